//! Signed queries, and the transfer of the whole zone to a secondary.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use kith_sansio::system;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::dns::{Begun, begin};
use super::metrics::Transferred;
use super::shared::Shared;
use crate::defaults::{TRANSFER_LIFE, TRANSFER_PAGE, TRANSFER_WRITE};
use crate::dns::transfer::{Request, Transfer};
use crate::dns::tsig::{Found, Signed, Signer, find};
use crate::dns::{self, MAX_QUERY_BYTES, Transport, Zone};
use crate::store::{Page, StoreError};

/// What to do about a query.
pub(super) enum Outcome {
    Silence,
    Reply(Vec<u8>),
    /// Hand the connection to [`run`].
    Transfer(Box<Wanted>),
}

/// A transfer for somebody who may have it.
pub(super) struct Wanted {
    request: Request,
    signer: Signer,
}

/// The signature of a query. What is no query is told so elsewhere.
pub(super) fn signature(query: &[u8]) -> Found {
    let is_query = query.get(2).is_some_and(|flags| flags & 0xf8 == 0) && query.len() <= MAX_QUERY_BYTES;
    if is_query { find(query) } else { Found::Nothing }
}

/// Answers a signed query.
pub(super) async fn answer(shared: &Shared, zone: &Zone, signed: &Signed, transport: Transport) -> Outcome {
    let now = system::utc();
    let key = match signed.verify(shared.secondaries.keys(), now, None) {
        Ok(key) => key,
        Err(fault) => {
            tracing::debug!(key = %signed.key_name(), fault = fault.code(), "a signed query is refused");
            let refusal = signed.refuse(&fault, now);
            shared.metrics.dns_answered(transport, &refusal);
            return Outcome::Reply(refusal);
        }
    };
    let may_transfer = shared.secondaries.may_transfer(&key);
    let (mut signer, message) = (Signer::answer(Arc::clone(&key), signed), signed.message());
    if let Some(request) = Request::read(&message, zone).filter(|_| may_transfer) {
        shared.metrics.dns_answered(transport, &[]);
        return match transport {
            Transport::Tcp => Outcome::Transfer(Box::new(Wanted { request, signer })),
            // Whoever asks over UDP is told the serial number, and comes back over TCP (RFC 1995 §2).
            Transport::Udp => Outcome::Reply(dns::transfer::serial(request, zone, signer, now)),
        };
    }
    let Some(mut answer) = unsigned(shared, zone, &message, transport).await else {
        return Outcome::Silence;
    };
    if answer.len() + signer.overhead() > dns::longest_answer(&message, transport) {
        let Some(cut) = dns::truncated(&message) else { return Outcome::Silence };
        answer = cut;
    }
    signer.sign(&mut answer, now);
    Outcome::Reply(answer)
}

/// The answer to a query whose signature was taken off.
async fn unsigned(shared: &Shared, zone: &Zone, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match begin(shared, zone, message, transport, system::utc(), &mut out) {
        Begun::Done => {}
        Begun::Later(later) => later.finish(shared, zone, transport, &mut out).await,
        Begun::Silence | Begun::Signed(_) => return None,
    }
    Some(out)
}

/// Sends the zone, as long as the secondary takes it.
pub(super) async fn run(shared: &Shared, mut stream: TcpStream, wanted: Wanted) {
    let Some(zone) = shared.zone.as_ref() else { return };
    let Wanted { request, signer } = wanted;
    let Ok(_place) = shared.secondaries.transfers.try_acquire() else {
        tracing::debug!("a transfer has to wait: too many are under way");
        shared.metrics.transferred(Transferred::Refused);
        let refusal = request.fail(ResponseCode::ServFail, signer, system::utc());
        let _ = write(&mut stream, &refusal).await;
        return;
    };
    let transfer = Transfer::new(request, zone, signer);
    let (serial, is_current) = (transfer.serial(), transfer.is_current());
    let sent = tokio::time::timeout(TRANSFER_LIFE.into(), send(shared, &mut stream, transfer)).await;
    shared.metrics.transferred(match sent {
        Ok(Ok(sets)) => {
            tracing::debug!(serial, sets, "the zone was transferred");
            if is_current { Transferred::Current } else { Transferred::Whole }
        }
        Ok(Err(Broken::Store(error))) => {
            tracing::error!(%error, "the store failed during a transfer");
            Transferred::Failed
        }
        Ok(Err(Broken::Connection(error))) => {
            tracing::debug!(%error, "a transfer was broken off");
            Transferred::BrokenOff
        }
        Err(_) => {
            tracing::debug!("a transfer took too long");
            Transferred::BrokenOff
        }
    });
}

/// Why a transfer ended early; the secondary keeps what it had.
enum Broken {
    Store(StoreError),
    Connection(io::Error),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Broken::Store(error)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Connection(error)
    }
}

async fn send(shared: &Shared, stream: &mut TcpStream, mut transfer: Transfer<'_>) -> Result<usize, Broken> {
    let mut sets = 0;
    if transfer.is_current() {
        transfer.soa(system::utc());
    } else {
        transfer.apex(system::utc());
        let mut page = shared.store.page(system::utc(), None, TRANSFER_PAGE).await?;
        loop {
            let now = system::utc();
            sets += page.sets.len();
            for (fingerprint, set) in page.sets.iter().filter(|(_, set)| set.is_valid_at(now)) {
                transfer.set(fingerprint, set, now);
            }
            let bytes = transfer.take();
            // The next page is read while this one is under way.
            let (written, following) = tokio::join!(write(stream, &bytes), following(shared, &page));
            written?;
            match following? {
                Some(following) => page = following,
                None => break,
            }
        }
        transfer.soa(system::utc());
    }
    write(stream, &transfer.finish(system::utc())).await?;
    stream.shutdown().await?;
    Ok(sets)
}

async fn following(shared: &Shared, page: &Page) -> Result<Option<Page>, StoreError> {
    match page.next {
        Some(after) => shared.store.page(system::utc(), Some(after), TRANSFER_PAGE).await.map(Some),
        None => Ok(None),
    }
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    tokio::time::timeout(Duration::from(TRANSFER_WRITE), stream.write_all(bytes)).await?
}
