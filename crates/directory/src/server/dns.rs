use std::sync::Arc;
use std::time::Duration;

use kith_sansio::system;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shared::{Shared, count};
use crate::dns::{self, Step, Transport, Zone};

/// Tasks that answer from one socket, so that one slow read of the store holds up nobody else.
const UDP_TASKS: usize = 4;
/// Largest packet that is received whole; queries are far smaller, and a longer one is refused in any case.
const MAX_PACKET_BYTES: usize = 2048;
/// Pause after an error, so that one which stays does not keep a processor busy.
const RECEIVE_PAUSE: Duration = Duration::from_millis(5);

/// Starts serving the zone from one address.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    socket: &Arc<UdpSocket>,
    listener: TcpListener,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    for _ in 0..UDP_TASKS {
        let (shared, socket, stop) = (Arc::clone(shared), Arc::clone(socket), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve_udp(&shared, &socket) => {}
            }
        });
    }
    tasks.spawn(serve_tcp(Arc::clone(shared), listener, stop.clone(), tasks.clone()));
}

async fn serve_udp(shared: &Shared, socket: &UdpSocket) {
    let mut packet = [0; MAX_PACKET_BYTES];
    let mut silent = false;
    loop {
        let (length, source) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            Err(error) => {
                // Errors here are news about packets sent before; the socket itself goes on.
                tracing::trace!(%error, "cannot receive a packet");
                tokio::time::sleep(RECEIVE_PAUSE).await;
                continue;
            }
        };
        let query = &packet[..length];
        let answer = match shared.spend_answer(source.ip()) {
            true => answer(shared, query, Transport::Udp).await,
            false => put_off(query, &mut silent),
        };
        if let Some(answer) = answer {
            // Whoever asked asks again.
            let _ = socket.send_to(&answer, source).await;
        }
    }
}

/// What a source gets that asks too much: by turns the advice to come over TCP, where it has to prove itself, and
/// nothing, so that a forger gains nothing and a resolver gets through.
fn put_off(query: &[u8], silent: &mut bool) -> Option<Vec<u8>> {
    *silent = !*silent;
    if *silent { dns::truncated(query) } else { None }
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
            tokio::select! {
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(life, converse(&shared, stream)) => {}
            }
            drop(place);
        });
    }
}

/// Answers the queries of one connection in turn, each after its length (RFC 1035 §4.2.2).
async fn converse(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    let idle = Duration::from(shared.config.connections.idle);
    let mut query = Vec::new();
    loop {
        let length = usize::from(tokio::time::timeout(idle, stream.read_u16()).await??);
        if length > dns::MAX_QUERY_BYTES {
            return Ok(());
        }
        query.resize(length, 0);
        tokio::time::timeout(idle, stream.read_exact(&mut query)).await??;
        let Some(answer) = answer(shared, &query, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
        tokio::time::timeout(idle, stream.write_all(&framed)).await??;
    }
}

async fn answer(shared: &Shared, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    // There is always a zone where DNS is listened for.
    let zone = shared.zone.as_ref()?;
    count(&shared.counters.dns_queries);
    let now = system::utc();
    match dns::read(query, transport, zone, now) {
        Step::Silence => None,
        Step::Reply(bytes) => Some(bytes),
        Step::Lookup(question) => Some(look_up(shared, question, zone).await),
    }
}

async fn look_up(shared: &Shared, question: dns::Question, zone: &Zone) -> Vec<u8> {
    let now = system::utc();
    match shared.store.held(now, *question.fingerprint()).await {
        Ok(found) => question.answer(found.as_ref(), zone, now),
        Err(error) => {
            tracing::error!(%error, "the store failed");
            question.fail()
        }
    }
}
