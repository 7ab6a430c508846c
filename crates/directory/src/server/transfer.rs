//! Signed queries, and the transfer of the zone, or of what changed, to a secondary.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use kith_identity::Fingerprint;
use kith_sansio::system;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::dns::{Begun, begin};
use super::metrics::Transferred;
use super::shared::Shared;
use crate::defaults::{TRANSFER_LIFE, TRANSFER_PAGE, TRANSFER_WRITE};
use crate::dns::transfer::{Extent, Request, Transfer, shape};
use crate::dns::tsig::{Found, Signed, Signer, find};
use crate::dns::{self, MAX_QUERY_BYTES, Transport, Zone};
use crate::store::{Difference, Page, StoreError};

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
        if transport == Transport::Tcp {
            return Outcome::Transfer(Box::new(Wanted { request, signer }));
        }
        let reply = dns::transfer::over_udp(request, zone, signer, now);
        shared.metrics.dns_answered(transport, &reply);
        return Outcome::Reply(reply);
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

/// Sends what a secondary needs of the zone, as long as it takes it.
pub(super) async fn run(shared: &Shared, mut stream: TcpStream, wanted: Wanted) {
    let Some(zone) = shared.zone.as_ref() else { return };
    let Wanted { request, signer } = wanted;
    let Ok(_place) = shared.secondaries.transfers.try_acquire() else {
        tracing::debug!("a transfer has to wait: too many are under way");
        shared.metrics.transferred(Transferred::Refused);
        let refusal = request.fail(ResponseCode::ServFail, signer, system::utc());
        shared.metrics.dns_answered(Transport::Tcp, &refusal);
        let length = u16::try_from(refusal.len()).unwrap_or(0).to_be_bytes();
        let _ = write(&mut stream, &[&length[..], &refusal].concat()).await;
        return;
    };
    shared.metrics.dns_answered(Transport::Tcp, &[]);
    let transfer = Transfer::new(request, zone, signer);
    let number = transfer.number();
    let sent = tokio::time::timeout(TRANSFER_LIFE.into(), send(shared, zone, &mut stream, transfer)).await;
    shared.metrics.transferred(match sent {
        Ok(Ok((transferred, sets))) => {
            tracing::debug!(serial = number, sets, ?transferred, "the zone was transferred");
            transferred
        }
        Ok(Err(Broken::Store(error))) => {
            tracing::error!(%error, "the store failed during a transfer");
            Transferred::Failed
        }
        Ok(Err(Broken::Connection(error))) => {
            tracing::debug!(%error, "a transfer was broken off");
            Transferred::BrokenOff
        }
        Ok(Err(Broken::Forgotten)) => {
            tracing::debug!("the history was shortened during a transfer");
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
    /// The store no longer knows what changed; the next transfer is of everything.
    Forgotten,
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

/// Sends the answer; what it was, and of how many sets.
async fn send(
    shared: &Shared,
    zone: &Zone,
    stream: &mut TcpStream,
    mut transfer: Transfer<'_>,
) -> Result<(Transferred, usize), Broken> {
    let (transferred, sets) = match transfer.extent() {
        Extent::Nothing => {
            transfer.soa(system::utc());
            (Transferred::Current, 0)
        }
        Extent::Whole => {
            has_shape(shared, zone, transfer.number()).await?;
            (Transferred::Whole, whole(shared, stream, &mut transfer).await?)
        }
        Extent::Since(from) => match Since::begin(shared, zone, from, transfer.number()).await? {
            Some(since) => (Transferred::Incremental, since.send(shared, stream, &mut transfer).await?),
            None => (Transferred::Whole, whole(shared, stream, &mut transfer).await?),
        },
    };
    write(stream, &transfer.finish(system::utc())).await?;
    stream.shutdown().await?;
    Ok((transferred, sets))
}

/// Whether the zone has the shape that it has here. Where another directory on the same store serves it with other
/// settings, a secondary of either must not get differences that the other one makes: they begin after `number` then.
async fn has_shape(shared: &Shared, zone: &Zone, number: u64) -> Result<bool, StoreError> {
    if shared.store.shape().await? == Some(shape(zone)) {
        return Ok(true);
    }
    tracing::debug!("another directory serves the zone with other name servers or address records");
    shared.store.cut(number.saturating_add(1)).await?;
    Ok(false)
}

/// Writes all sets; how many.
async fn whole(
    shared: &Shared,
    stream: &mut TcpStream,
    transfer: &mut Transfer<'_>,
) -> Result<usize, Broken> {
    let (mut sets, number) = (0, transfer.number());
    transfer.apex(system::utc());
    let mut page = shared.store.page(number, None, TRANSFER_PAGE).await?;
    loop {
        let now = system::utc();
        sets += page.sets.len();
        for (fingerprint, set) in &page.sets {
            transfer.set(fingerprint, set, now);
        }
        let bytes = transfer.take();
        // The next page is read while this one is under way.
        let (written, following) = tokio::join!(write(stream, &bytes), following(shared, number, &page));
        written?;
        match following? {
            Some(following) => page = following,
            None => break,
        }
    }
    transfer.soa(system::utc());
    Ok(sets)
}

/// What changed between two numbers.
struct Since {
    from: u64,
    to: u64,
    changed: Vec<Fingerprint>,
    /// What the first page of them was, read before anything is sent.
    first: Vec<Difference>,
}

impl Since {
    /// `None` where the secondary needs everything.
    async fn begin(shared: &Shared, zone: &Zone, from: u64, to: u64) -> Result<Option<Since>, StoreError> {
        if !has_shape(shared, zone, to).await? {
            return Ok(None);
        }
        let Some(changed) = shared.store.changed(from, to).await? else { return Ok(None) };
        let mut since = Since { from, to, changed, first: Vec::new() };
        match since.page(shared, 0).await {
            Ok(Some(first)) => since.first = first,
            Ok(None) | Err(StoreError::Damaged(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(since))
    }

    /// The differences of one page of sets; `None` where they are not known any more.
    async fn page(&self, shared: &Shared, page: usize) -> Result<Option<Vec<Difference>>, StoreError> {
        let of = self.changed.chunks(TRANSFER_PAGE).nth(page).unwrap_or_default();
        let read = shared.store.differences(self.from, self.to, of.to_vec()).await;
        if let Err(error @ StoreError::Damaged(_)) = &read {
            tracing::error!(%error, "a set is missing in what changed");
            // Nobody knows what secondaries have of it; they need everything.
            shared.store.cut(self.to.saturating_add(1)).await?;
        }
        read
    }

    /// Writes what went away, then what came (RFC 1995 §4); of how many sets.
    async fn send(
        mut self,
        shared: &Shared,
        stream: &mut TcpStream,
        transfer: &mut Transfer<'_>,
    ) -> Result<usize, Broken> {
        let pages = self.changed.len().div_ceil(TRANSFER_PAGE);
        transfer.soa(system::utc());
        transfer.soa_of(self.from, system::utc());
        for write_page in [Transfer::taken, Transfer::brought] {
            for page in 0..pages {
                let differences = match std::mem::take(&mut self.first) {
                    first if !first.is_empty() => first,
                    _ => self.page(shared, page).await?.ok_or(Broken::Forgotten)?,
                };
                let now = system::utc();
                for difference in &differences {
                    write_page(transfer, difference, now);
                }
                write(stream, &transfer.take()).await?;
            }
            transfer.soa(system::utc());
        }
        Ok(self.changed.len())
    }
}

async fn following(shared: &Shared, number: u64, page: &Page) -> Result<Option<Page>, StoreError> {
    match page.next {
        Some(after) => shared.store.page(number, Some(after), TRANSFER_PAGE).await.map(Some),
        None => Ok(None),
    }
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    tokio::time::timeout(Duration::from(TRANSFER_WRITE), stream.write_all(bytes)).await?
}
