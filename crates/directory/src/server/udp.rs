//! DNS over UDP: several sockets on one port, packets received in batches, each answered from the address that it
//! was sent to.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kith_sansio::system;
use noq_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::dns::{Begun, begin};
use super::shared::Shared;
use super::transfer::{self, Outcome};
use crate::dns::{self, Transport, Zone};

/// Room for one packet, or for several that the system hands over as one.
const PACKET_BYTES: usize = 64 * 1024;
/// Queries of one socket that wait for the store at once.
const MAX_WAITING: usize = 1024;
/// Packets that wait in the system for a socket, in bytes; the system may allow less.
const QUEUE_BYTES: usize = 1 << 20;
/// Pause after an error, so that one which stays does not keep a processor busy.
const RECEIVE_PAUSE: Duration = Duration::from_millis(5);

/// One of the sockets of a port.
pub(super) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// Who asked, and which of our addresses.
#[derive(Clone, Copy)]
struct Route {
    source: SocketAddr,
    own: Option<IpAddr>,
}

impl Port {
    /// `count` sockets on `address`; the system spreads the sources over them.
    pub(super) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<Port>> {
        (0..count.max(1)).map(|_| Port::bind_one(address, count > 1)).collect()
    }

    fn bind_one(address: SocketAddr, shared: bool) -> io::Result<Port> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        // Less room only loses packets that would have waited.
        let _ = state.set_recv_buffer_size((&socket).into(), QUEUE_BYTES);
        Ok(Port { socket, state })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    async fn receive(&self, room: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        let receive = || self.state.recv((&self.socket).into(), room, metas);
        self.socket.async_io(Interest::READABLE, receive).await
    }

    async fn send(&self, route: Route, answer: &[u8]) {
        let packet = Transmit {
            destination: route.source,
            ecn: None,
            contents: answer,
            segment_size: None,
            src_ip: route.own,
        };
        let send = || self.state.try_send((&self.socket).into(), &packet);
        // Whoever asked asks again.
        let _ = self.socket.async_io(Interest::WRITABLE, send).await;
    }
}

/// Answers from one socket for ever. What the store has at hand is answered at once; the rest waits beside it.
pub(super) async fn serve(shared: Arc<Shared>, port: Port) {
    // There is always a zone where DNS is listened for.
    let Some(zone) = shared.zone.as_ref() else { return };
    let mut packets = vec![0; BATCH_SIZE * PACKET_BYTES];
    let mut room: Vec<IoSliceMut<'_>> = packets.chunks_mut(PACKET_BYTES).map(IoSliceMut::new).collect();
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    let mut waiting = FuturesUnordered::new();
    let (mut silent, mut out) = (false, Vec::new());
    loop {
        let received = tokio::select! {
            received = port.receive(&mut room, &mut metas), if waiting.len() < MAX_WAITING => received,
            Some((route, answer)) = waiting.next() => {
                let answer: Vec<u8> = answer;
                if !answer.is_empty() {
                    port.send(route, &answer).await;
                }
                continue;
            }
        };
        let count = match received {
            Ok(count) => count,
            Err(error) => {
                // Errors here are news about packets sent before; the socket itself goes on.
                tracing::trace!(%error, "cannot receive a packet");
                tokio::time::sleep(RECEIVE_PAUSE).await;
                continue;
            }
        };
        let now = system::utc();
        for (packet, meta) in room.iter().zip(&metas).take(count) {
            let route = Route { source: meta.addr, own: meta.dst_ip };
            for query in packet[..meta.len].chunks(meta.stride.max(1)) {
                out.clear();
                if shared.spend_answer(route.source.ip()) {
                    let begun = begin(&shared, zone, query, Transport::Udp, now, &mut out);
                    if matches!(begun, Begun::Later(_) | Begun::Signed(_)) {
                        let shared = &shared;
                        waiting.push(async move { (route, finished(shared, zone, begun).await) });
                    }
                } else {
                    put_off(&shared, query, &mut silent, &mut out);
                }
                if !out.is_empty() {
                    port.send(route, &out).await;
                }
            }
        }
    }
}

/// The answer to a query that waits for the store, or may have to; empty for none.
async fn finished(shared: &Shared, zone: &Zone, begun: Begun<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match begun {
        Begun::Later(later) => later.finish(shared, zone, Transport::Udp, &mut out).await,
        Begun::Signed(signed) => {
            if let Outcome::Reply(answer) = transfer::answer(shared, zone, &signed, Transport::Udp).await {
                out = answer;
            }
        }
        Begun::Silence | Begun::Done => {}
    }
    out
}

/// What a source gets that asks too much: by turns the advice to come over TCP, where it has to prove itself, and
/// nothing, so that a forger gains nothing and a resolver gets through.
fn put_off(shared: &Shared, query: &[u8], silent: &mut bool, out: &mut Vec<u8>) {
    *silent = !*silent;
    let advice = if *silent { dns::truncated(query) } else { None };
    shared.metrics.dns_limited(advice.is_some());
    out.extend(advice.unwrap_or_default());
}
