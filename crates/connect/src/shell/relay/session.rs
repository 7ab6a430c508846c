//! Copying between two sides what a relay cannot read.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kith_sansio::system::time;
use kith_sansio::{Span, Time};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::serving::Event;
use super::side;
use crate::relay::serving::{Input, Session};
use crate::shell::until;

/// Bytes copied at once, at first and at most.
const CHUNK_BYTES: (usize, usize) = (64 << 10, 256 << 10);
/// What all directions that copy may hold together, as long as it is enough for the smallest chunks.
const BUSY_BYTES: usize = 16 << 20;
/// How often in a row one direction copies before the others have their turn.
const CHUNKS_IN_A_ROW: usize = 16;
/// Bytes after which the relay is told of them.
pub(super) const REPORT_BYTES: u64 = 1 << 20;
/// How much of its bandwidth a payer may use at once.
const BURST: Span = Span::millis(50);

/// The bandwidth of one payer, over all its sessions.
#[derive(Debug)]
pub(super) struct Pacer {
    bytes_per_second: u64,
    /// When the bytes that were granted have had their time.
    free: Mutex<Time>,
}

impl Pacer {
    pub(super) fn new(bytes_per_second: u64) -> Pacer {
        Pacer { bytes_per_second: bytes_per_second.max(1), free: Mutex::new(Time(0)) }
    }

    /// Whether `bytes` more may go at once: what comes too fast is lost.
    pub(super) fn may_pass(&self, bytes: u64) -> bool {
        let now = time();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let may_pass = *free <= now + BURST;
        if may_pass {
            *free = (*free).max(now) + self.span(bytes);
        }
        may_pass
    }

    fn span(&self, bytes: u64) -> Span {
        Span(bytes.saturating_mul(1_000_000) / self.bytes_per_second)
    }

    /// Waits until `bytes` more may go.
    async fn pace(&self, bytes: u64) {
        let granted = {
            let now = time();
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(now) + self.span(bytes);
            *free
        };
        if granted - time() > BURST {
            until(granted).await;
        }
    }
}

/// What a session has moved, and who is to know.
struct Meter {
    session: Session,
    events: mpsc::Sender<Event>,
    unreported: AtomicU64,
    pacer: Option<Arc<Pacer>>,
    busy: Busy,
}

impl Meter {
    async fn count(&self, bytes: u64) {
        if let Some(pacer) = &self.pacer {
            pacer.pace(bytes).await;
        }
        if self.unreported.fetch_add(bytes, Ordering::Relaxed) + bytes >= REPORT_BYTES {
            self.report().await;
        }
    }

    async fn report(&self) {
        let bytes = self.unreported.swap(0, Ordering::Relaxed);
        if bytes > 0 {
            // Without a relay there is nobody to count for.
            let _ = self.events.send(Event::Input(Input::Moved(self.session, bytes))).await;
        }
    }
}

/// Tells both sides that they are joined, and copies between them until both have ended, or one broke off.
pub(super) async fn carry(
    session: Session,
    [mut one, mut two]: [TcpStream; 2],
    (pacer, busy): (Option<Arc<Pacer>>, Busy),
    events: mpsc::Sender<Event>,
) {
    let meter = Meter { session, events, unreported: AtomicU64::new(0), pacer, busy };
    let copying = async {
        tokio::try_join!(side::joined(&mut one), side::joined(&mut two))?;
        tokio::try_join!(pump(&one, &two, &meter), pump(&two, &one, &meter))
    };
    if let Err(error) = copying.await {
        tracing::debug!(%error, "a session broke off");
    }
    meter.report().await;
}

/// How many directions are copying, of all sessions of a relay.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

/// One that is.
struct OneBusy<'a>(&'a Busy);

impl Busy {
    fn one(&self) -> OneBusy<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        OneBusy(self)
    }

    /// What one may hold.
    fn share(&self) -> usize {
        let (least, most) = CHUNK_BYTES;
        (BUSY_BYTES / self.0.load(Ordering::Relaxed).max(1)).clamp(least, most)
    }
}

impl Drop for OneBusy<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Copies one direction to its end. Holds memory only while there is something to copy.
async fn pump(from: &TcpStream, to: &TcpStream, meter: &Meter) -> io::Result<()> {
    let mut chunks = 0_usize;
    loop {
        from.readable().await?;
        let _busy = meter.busy.one();
        let mut buffer = Vec::with_capacity(CHUNK_BYTES.0);
        loop {
            buffer.clear();
            match from.try_read_buf(&mut buffer) {
                Ok(0) => return socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write),
                Ok(n) => {
                    write(to, &buffer).await?;
                    meter.count(n as u64).await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            chunks = chunks.wrapping_add(1);
            if chunks.is_multiple_of(CHUNKS_IN_A_ROW) {
                tokio::task::yield_now().await;
            }
            // There is more than fits: fewer and larger steps, or smaller ones where others came.
            let share = meter.busy.share();
            if buffer.len() == buffer.capacity() && buffer.capacity() < share || buffer.capacity() > share {
                buffer = Vec::with_capacity(share);
            }
        }
    }
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
