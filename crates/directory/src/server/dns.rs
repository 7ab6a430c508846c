use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use kith_sansio::{Timestamp, system};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::StoreCall;
use super::shared::Shared;
use super::transfer::{self, Outcome, Wanted};
use super::udp::{self, Port};
use crate::dns::tsig::{Found, Signed};
use crate::dns::{self, Question, Step, Transport, Zone};
use crate::store::{BoxFuture, Held, StoreError};

/// Bytes of queries that are read at once from a connection.
const READ_BYTES: usize = 16 * 1024;
/// Bytes of answers that are gathered before they are sent.
const WRITE_BYTES: usize = 64 * 1024;

/// Starts serving the zone from one address.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    ports: Vec<Port>,
    listener: TcpListener,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    for port in ports {
        let (shared, stop) = (Arc::clone(shared), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = udp::serve(shared, port) => {}
            }
        });
    }
    tasks.spawn(serve_tcp(Arc::clone(shared), listener, stop.clone(), tasks.clone()));
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let (stream, _, place) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = shared.dns_connections.accept(&listener) => accepted,
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move {
            let life = Duration::from(shared.config.connections.life);
            let talk = async {
                // A transfer takes the time that it needs.
                if let Ok(Ok(Some((stream, wanted)))) =
                    tokio::time::timeout(life, converse(&shared, stream)).await
                {
                    transfer::run(&shared, stream, *wanted).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = talk => {}
            }
            drop(place);
        });
    }
}

/// Answers the queries of one connection, each after its length (RFC 1035 §4.2.2), until one asks for a transfer,
/// with which a connection ends. Of several that came together the answers are sent together, in the order in which
/// the store has them (RFC 7766 §6.2.1.1).
async fn converse(
    shared: &Shared,
    mut stream: TcpStream,
) -> std::io::Result<Option<(TcpStream, Box<Wanted>)>> {
    // There is always a zone where DNS is listened for.
    let Some(zone) = shared.zone.as_ref() else { return Ok(None) };
    // Failing to say that answers must not wait harms nobody.
    let _ = stream.set_nodelay(true);
    let idle = Duration::from(shared.config.connections.idle);
    let (mut inbox, mut outbox) = (BytesMut::with_capacity(READ_BYTES), Outbox::default());
    loop {
        if tokio::time::timeout(idle, stream.read_buf(&mut inbox)).await?? == 0 {
            return Ok(None);
        }
        let now = system::utc();
        let mut waiting = FuturesUnordered::new();
        let (mut over, mut wanted) = (false, None);
        while let Some(length) = frame(&inbox) {
            if length > dns::MAX_QUERY_BYTES {
                over = true;
                break;
            }
            let Some(query) = inbox.get(2..2 + length) else { break };
            match outbox.add(|out| begin(shared, zone, query, Transport::Tcp, now, out)) {
                Begun::Done => {}
                Begun::Later(later) => waiting.push(answered(shared, zone, later)),
                Begun::Signed(signed) => {
                    match transfer::answer(shared, zone, &signed, Transport::Tcp).await {
                        Outcome::Reply(answer) => outbox.add(|out| out.extend(answer)),
                        Outcome::Transfer(transfer) => (over, wanted) = (true, Some(transfer)),
                        Outcome::Silence => over = true,
                    }
                }
                // Silence would leave the other side waiting.
                Begun::Silence => over = true,
            }
            inbox.advance(2 + length);
            if over {
                break;
            }
            if outbox.bytes.len() > WRITE_BYTES {
                outbox.send(&mut stream, idle).await?;
            }
        }
        while let Some(answer) = waiting.next().await {
            outbox.add(|out| out.extend(answer));
        }
        outbox.send(&mut stream, idle).await?;
        if over {
            return Ok(wanted.map(|wanted| (stream, wanted)));
        }
        inbox.reserve(READ_BYTES);
    }
}

/// The length that the next query says to have.
fn frame(inbox: &[u8]) -> Option<usize> {
    inbox.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))
}

async fn answered(shared: &Shared, zone: &Zone, later: Later<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    later.finish(shared, zone, Transport::Tcp, &mut out).await;
    out
}

/// Answers on their way into a connection.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
}

impl Outbox {
    /// Adds what `answer` adds, after its length; nothing where that is nothing.
    fn add<T>(&mut self, answer: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        let value = answer(&mut self.bytes);
        match u16::try_from(self.bytes.len() - begin - 2) {
            Ok(length) if length > 0 => {
                self.bytes[begin..begin + 2].copy_from_slice(&length.to_be_bytes());
            }
            _ => self.bytes.truncate(begin),
        }
        value
    }

    async fn send(&mut self, stream: &mut TcpStream, idle: Duration) -> std::io::Result<()> {
        if !self.bytes.is_empty() {
            tokio::time::timeout(idle, stream.write_all(&self.bytes)).await??;
            self.bytes.clear();
            self.bytes.shrink_to(2 * WRITE_BYTES);
        }
        Ok(())
    }
}

/// What became of a query so far.
pub(super) enum Begun<'a> {
    /// It deserves no answer.
    Silence,
    /// Its answer was added.
    Done,
    /// The store is being asked.
    Later(Later<'a>),
    /// It is signed.
    Signed(Box<Signed>),
}

/// A query that waits for the store.
pub(super) struct Later<'a> {
    question: Question,
    looking: BoxFuture<'a, Result<Option<Held>, StoreError>>,
}

/// Answers a query into `out` as far as that goes without waiting.
pub(super) fn begin<'a>(
    shared: &'a Shared,
    zone: &Zone,
    query: &[u8],
    transport: Transport,
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Begun<'a> {
    let start = out.len();
    let step = match transfer::signature(query) {
        Found::Signed(signed) => return Begun::Signed(signed),
        Found::Malformed => dns::malformed(query).map_or(Step::Silence, Step::Reply),
        Found::Nothing => dns::read(query, transport, zone),
    };
    match step {
        Step::Silence => {
            shared.metrics.dns_ignored(transport);
            return Begun::Silence;
        }
        Step::Reply(bytes) => out.extend(bytes),
        Step::Lookup(question) => {
            let timed = shared.metrics.dns_sample();
            let mut looking = shared.store.held(now, *question.fingerprint());
            match looking.as_mut().now_or_never() {
                Some(found) => {
                    shared.metrics.store_took(StoreCall::Lookup, timed);
                    question_answered(shared, zone, question, found, now, out);
                }
                None => return Begun::Later(Later { question, looking }),
            }
        }
    }
    shared.metrics.dns_answered(transport, &out[start..]);
    Begun::Done
}

impl Later<'_> {
    /// Waits for the store and adds the answer to `out`.
    pub(super) async fn finish(self, shared: &Shared, zone: &Zone, transport: Transport, out: &mut Vec<u8>) {
        let start = out.len();
        let timed = Some(system::time());
        let found = self.looking.await;
        shared.metrics.store_took(StoreCall::Lookup, timed);
        question_answered(shared, zone, self.question, found, system::utc(), out);
        shared.metrics.dns_answered(transport, &out[start..]);
    }
}

fn question_answered(
    shared: &Shared,
    zone: &Zone,
    question: Question,
    found: Result<Option<Held>, StoreError>,
    now: Timestamp,
    out: &mut Vec<u8>,
) {
    match found {
        Ok(found) => question.answer_into(found.as_ref(), zone, now, out),
        Err(error) => {
            shared.store_failed(&error);
            out.extend(question.fail());
        }
    }
}
