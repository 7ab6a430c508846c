//! Copying between two sides what a relay cannot read.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kith_sansio::system::time;
use kith_sansio::{Span, Time};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::serving::Event;
use super::side::JOINED;
use crate::relay::serving::{Input, Session};
use crate::shell::{LINGER, pulse, until};

/// Bytes copied at once, at first and at most.
const CHUNK_BYTES: (usize, usize) = (64 << 10, 256 << 10);
/// What all directions that copy may hold together, as long as it is enough for the smallest chunks.
const BUSY_BYTES: usize = 16 << 20;
/// How often in a row one direction copies before the others have their turn.
const CHUNKS_IN_A_ROW: usize = 16;
/// Bytes after which the relay is told of them.
pub(super) const REPORT_BYTES: u64 = 1 << 20;
/// The time after which it is told of fewer.
const REPORT_EVERY: Span = Span::secs(1);
/// Fewest bytes copied at once, however little bandwidth there is.
const PACED_CHUNK_BYTES: usize = 4 << 10;
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

    /// Waits until `bytes` more may go, which use the time that comes after.
    async fn pace(&self, bytes: u64) {
        let now = time();
        let start = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*free).max(now);
            *free = start + self.span(bytes);
            start
        };
        if start - now > BURST {
            until(start).await;
        }
    }

    /// Bytes copied at once: no more than may go at once.
    fn chunk_bytes(&self) -> usize {
        let bytes = u128::from(self.bytes_per_second) * u128::from(BURST.0) / 1_000_000;
        usize::try_from(bytes).unwrap_or(usize::MAX).max(PACED_CHUNK_BYTES)
    }

    /// Bytes that went have not had their time yet.
    pub(super) fn owes(&self) -> bool {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) > time()
    }
}

/// What a session has moved, and who is to know.
struct Meter {
    session: Session,
    events: mpsc::Sender<Event>,
    unreported: AtomicU64,
    reported: AtomicU64,
    pacer: Option<Arc<Pacer>>,
    busy: Busy,
    /// One side takes no more: what the other hears in the end is no proper end.
    broken: AtomicBool,
}

impl Meter {
    fn new(
        session: Session,
        (pacer, busy): (Option<Arc<Pacer>>, Busy),
        events: mpsc::Sender<Event>,
    ) -> Meter {
        let (unreported, reported) = (AtomicU64::new(0), AtomicU64::new(time().0));
        Meter { session, events, unreported, reported, pacer, busy, broken: AtomicBool::new(false) }
    }

    /// Waits until `bytes` may go on.
    async fn pace(&self, bytes: usize) {
        if let Some(pacer) = &self.pacer {
            pacer.pace(bytes as u64).await;
        }
    }

    async fn count(&self, bytes: usize) {
        let unreported = self.unreported.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let since = time() - Time(self.reported.load(Ordering::Relaxed));
        if unreported >= REPORT_BYTES || since >= REPORT_EVERY {
            self.report().await;
        }
    }

    async fn report(&self) {
        self.reported.store(time().0, Ordering::Relaxed);
        let bytes = self.unreported.swap(0, Ordering::Relaxed);
        if bytes > 0 {
            // Without a relay there is nobody to count for.
            let _ = self.events.send(Event::Input(Input::Moved(self.session, bytes))).await;
        }
    }

    /// Bytes to copy at once, where there are as many.
    fn share(&self) -> usize {
        let share = self.busy.share();
        self.pacer.as_ref().map_or(share, |pacer| pacer.chunk_bytes().min(share))
    }
}

/// What broke one direction.
enum Broken {
    /// Its source: it is gone, and hears nothing either.
    From(io::Error),
    /// Its sink takes no more. What it has said itself may still be on its way.
    To(io::Error),
}

/// Tells both sides that they are joined, and copies between them until both have ended, one broke off, or `end` is
/// called for. Either side sees an end only where the other has said so, else that the connection broke.
pub(super) async fn carry(
    session: Session,
    sides: [Arc<TcpStream>; 2],
    pace: (Option<Arc<Pacer>>, Busy),
    events: mpsc::Sender<Event>,
    end: CancellationToken,
) {
    let meter = Meter::new(session, pace, events);
    let [one, two] = &sides;
    match end.run_until_cancelled(copy(one, two, &meter)).await {
        Some(Ok(())) => {}
        Some(Err(Broken::From(error) | Broken::To(error))) => {
            tracing::debug!(%error, "a session broke off");
            meter.report().await;
            // What was said before is to arrive.
            let _ended_early = end.run_until_cancelled(until(time() + LINGER)).await;
            sides.iter().for_each(|side| reset(side));
        }
        None => sides.iter().for_each(|side| reset(side)),
    }
    meter.report().await;
}

/// Has the connection end as one that broke.
fn reset(stream: &TcpStream) {
    // One that ended by itself needs nothing.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Copies both directions to their ends. Where one side takes no more, what it has said is copied all the same.
async fn copy(one: &TcpStream, two: &TcpStream, meter: &Meter) -> Result<(), Broken> {
    for side in [one, two] {
        write(side, &[JOINED]).await.map_err(Broken::To)?;
    }
    let mut there = pin!(pump(one, two, meter));
    let mut back = pin!(pump(two, one, meter));
    let (first, other) = tokio::select! {
        first = &mut there => (first, back),
        first = &mut back => (first, there),
    };
    match first {
        Ok(()) => other.await,
        Err(Broken::From(error)) => Err(Broken::From(error)),
        Err(Broken::To(error)) => {
            meter.broken.store(true, Ordering::Relaxed);
            let _broken_too = other.await;
            Err(Broken::To(error))
        }
    }
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
async fn pump(from: &TcpStream, to: &TcpStream, meter: &Meter) -> Result<(), Broken> {
    let mut chunks = 0_usize;
    loop {
        from.readable().await.map_err(Broken::From)?;
        let _busy = meter.busy.one();
        let mut buffer = Vec::with_capacity(CHUNK_BYTES.0.min(meter.share()));
        loop {
            buffer.clear();
            match from.try_read_buf(&mut buffer) {
                Ok(0) if meter.broken.load(Ordering::Relaxed) => return Ok(()),
                Ok(0) => return finish(to).map_err(Broken::To),
                Ok(n) => {
                    meter.pace(n).await;
                    write(to, &buffer).await.map_err(Broken::To)?;
                    meter.count(n).await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Broken::From(error)),
            }
            chunks = chunks.wrapping_add(1);
            if chunks.is_multiple_of(CHUNKS_IN_A_ROW) {
                tokio::task::yield_now().await;
            }
            // There is more than fits: fewer and larger steps, or smaller ones where others came.
            let share = meter.share();
            if buffer.len() == buffer.capacity() && buffer.capacity() < share || buffer.capacity() > share {
                buffer = Vec::with_capacity(share);
            }
        }
    }
}

/// Says that no more comes.
fn finish(to: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write)
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::select! {
                writable = to.writable() => writable?,
                // The side that waits for its bytes may have another way.
                () = pulse::lost(to, pulse::RELAYED_SILENCE) => return Err(io::ErrorKind::TimedOut.into()),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::within;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::task::JoinHandle;

    const DEADLINE: Span = Span::secs(30);

    async fn soon<F: Future>(work: F) -> F::Output {
        within(DEADLINE, work).await.expect("an end within the deadline")
    }

    /// A connection: the relay's end and the other.
    async fn connection(socket: TcpSocket) -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (far, near) = tokio::join!(socket.connect(at), listener.accept());
        (Arc::new(near.unwrap().0), far.unwrap())
    }

    fn socket() -> TcpSocket {
        TcpSocket::new_v4().unwrap()
    }

    struct Scene {
        one: TcpStream,
        two: TcpStream,
        events: mpsc::Receiver<Event>,
        end: CancellationToken,
        carrying: JoinHandle<()>,
    }

    /// A session whose two sides have heard that they are joined.
    async fn scene(pacer: Option<Pacer>) -> Scene {
        let sides = [connection(socket()).await, connection(socket()).await];
        joined(sides, pacer).await
    }

    /// One whose way to the first side holds few bytes.
    async fn narrow() -> Scene {
        let small = socket();
        small.set_recv_buffer_size(4 << 10).unwrap();
        let (near, one) = connection(small).await;
        socket2::SockRef::from(&*near).set_send_buffer_size(4 << 10).unwrap();
        joined([(near, one), connection(socket()).await], None).await
    }

    async fn joined(sides: [(Arc<TcpStream>, TcpStream); 2], pacer: Option<Pacer>) -> Scene {
        let [(near, mut one), (far, mut two)] = sides;
        let (sender, events) = mpsc::channel(1024);
        let end = CancellationToken::new();
        let pace = (pacer.map(Arc::new), Busy::default());
        let carrying = tokio::spawn(carry(Session(7), [near, far], pace, sender, end.clone()));
        for side in [&mut one, &mut two] {
            assert_eq!(soon(side.read_u8()).await.unwrap(), JOINED);
        }
        Scene { one, two, events, end, carrying }
    }

    impl Scene {
        /// The bytes that were reported, once the session is over.
        async fn reported(mut self) -> u64 {
            soon(self.carrying).await.unwrap();
            let mut sum = 0;
            while let Some(event) = self.events.recv().await {
                match event {
                    Event::Input(Input::Moved(Session(7), bytes)) => sum += bytes,
                    _ => panic!("nothing else is told"),
                }
            }
            sum
        }
    }

    fn breaks(side: TcpStream) {
        reset(&side);
        drop(side);
    }

    #[tokio::test]
    async fn each_side_ends_by_itself_and_every_byte_is_told() {
        let mut scene = scene(None).await;
        scene.one.write_all(b"there").await.unwrap();
        scene.one.shutdown().await.unwrap();
        let mut heard = Vec::new();
        soon(scene.two.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, b"there");
        scene.two.write_all(b"and back").await.unwrap();
        scene.two.shutdown().await.unwrap();
        let mut heard = Vec::new();
        soon(scene.one.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, b"and back");
        assert_eq!(scene.reported().await, 13);
    }

    #[tokio::test]
    async fn a_side_that_breaks_off_has_not_ended_for_the_other() {
        let mut scene = scene(None).await;
        scene.one.write_all(b"the beginning").await.unwrap();
        let mut heard = [0; 13];
        soon(scene.two.read_exact(&mut heard)).await.unwrap();
        let Scene { one, mut two, carrying, .. } = scene;
        breaks(one);
        let ended = soon(two.read(&mut heard)).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        soon(carrying).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_side_has_said_arrives_although_it_takes_no_more() {
        let mut scene = narrow().await;
        let answer = vec![5; 60_000];
        scene.two.write_all(&answer).await.unwrap();
        let Scene { mut one, two, carrying, .. } = scene;
        // What is said to it from now on breaks the way there; the way back is full.
        breaks(two);
        one.write_all(b"x").await.unwrap();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let mut heard = Vec::new();
        let ended = soon(one.read_to_end(&mut heard)).await;
        assert!(heard == answer, "{} of {} bytes", heard.len(), answer.len());
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        soon(carrying).await.unwrap();
    }

    #[tokio::test]
    async fn a_session_that_is_cut_tells_what_it_has_moved_and_looks_cut() {
        let mut scene = scene(None).await;
        scene.one.write_all(&[1; 1000]).await.unwrap();
        let mut heard = [0; 1000];
        soon(scene.two.read_exact(&mut heard)).await.unwrap();
        scene.end.cancel();
        let ended = soon(scene.two.read(&mut heard)).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(scene.reported().await, 1000);
    }

    #[tokio::test]
    async fn bytes_wait_for_their_time_before_they_go() {
        let rate = 64 << 10;
        let mut scene = scene(Some(Pacer::new(rate))).await;
        let began = time();
        let bytes = vec![1; rate as usize];
        scene.one.write_all(&bytes).await.unwrap();
        let mut heard = vec![0; bytes.len()];
        soon(scene.two.read_exact(&mut heard)).await.unwrap();
        // But for what may go at once, and the step that ends after the time.
        let took = time() - began;
        assert!(took >= Span::millis(800), "{took}");
        drop((scene.one, scene.two));
        soon(scene.carrying).await.unwrap();
    }

    #[tokio::test]
    async fn a_payer_that_has_gone_ahead_owes_until_the_time_has_come() {
        let pacer = Pacer::new(1000);
        assert!(!pacer.owes());
        soon(pacer.pace(100_000)).await;
        assert!(pacer.owes());
        let chunk = [1, 20_000, 1 << 20, u64::MAX].map(|rate| Pacer::new(rate).chunk_bytes());
        assert_eq!(chunk[..3], [4 << 10, 4 << 10, (1 << 20) / 20]);
        assert!(chunk[3] > 1 << 30);
    }
}
