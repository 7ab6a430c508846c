//! Sessions over UDP: datagrams copied, unchanged, between two addresses that have shown their tokens.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kith_sansio::system::time;
use kith_sansio::{Span, Time};
use noq::udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::serving::Event;
use super::session::{Pacer, REPORT_BYTES};
use super::side::{JOINED, PREAMBLE};
use crate::direct::{Kind, Probe};
use crate::relay::Token;
use crate::relay::serving::{Input, Session};
use crate::shell::bind::udp_socket;
use crate::shell::until;

/// Receptions at once.
const BATCH: usize = 8;
/// What the kernel puts together at most, in bytes.
const RECEPTION_BYTES: usize = 1 << 16;
/// A session is over when nothing has come for so long: QUIC shows every few seconds that it is alive.
const SILENCE: Span = Span::secs(60);
/// How long a socket rests that fails.
const BREATHER: Span = Span::millis(50);

/// The sockets of a relay, all with one port.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) port: u16,
    sockets: Vec<Arc<Socket>>,
}

#[derive(Debug)]
struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

/// Where a side came in, so that what is for it goes out there.
#[derive(Clone, Debug)]
pub(super) struct Door {
    socket: Arc<Socket>,
    own: Option<IpAddr>,
}

/// Where the datagrams of each address go.
#[derive(Debug, Default)]
pub(super) struct Routes(RwLock<HashMap<SocketAddr, Arc<Route>>>);

#[derive(Debug)]
struct Route {
    to: SocketAddr,
    door: Door,
    flow: Arc<Flow>,
}

/// What a session has moved, and when it did last.
#[derive(Debug)]
pub(super) struct Flow {
    session: Session,
    pacer: Option<Arc<Pacer>>,
    unreported: AtomicU64,
    heard: AtomicU64,
}

impl Sockets {
    /// One socket for each of `ips`, with a port that is free at all of them.
    pub(super) fn bind(ips: &[IpAddr]) -> io::Result<Sockets> {
        let (first, others) = ips.split_first().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let first = udp_socket((*first, 0).into())?;
        let port = first.local_addr()?.port();
        let others = others.iter().map(|ip| udp_socket((*ip, port).into()));
        let all: Vec<_> = std::iter::once(Ok(first)).chain(others).collect::<io::Result<_>>()?;
        let sockets = all.into_iter().map(Socket::new).collect::<io::Result<_>>()?;
        Ok(Sockets { port, sockets })
    }

    /// The work of each socket: it never ends.
    pub(super) fn forward(
        self,
        routes: &Arc<Routes>,
        events: &mpsc::Sender<Event>,
    ) -> Vec<impl Future<Output = ()> + Send + 'static> {
        let sockets = self.sockets.into_iter();
        sockets.map(|socket| forward(socket, Arc::clone(routes), events.clone())).collect()
    }
}

impl Socket {
    fn new(socket: std::net::UdpSocket) -> io::Result<Arc<Socket>> {
        let io = UdpSocket::from_std(socket)?;
        let state = UdpSocketState::new((&io).into())?;
        Ok(Arc::new(Socket { io, state }))
    }
}

impl Door {
    /// Says to the side at `to` that the other one is there.
    pub(super) fn say_joined(&self, to: SocketAddr) {
        let mut contents = PREAMBLE.to_vec();
        contents.push(JOINED);
        self.send(&Transmit {
            destination: to,
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: self.own,
        });
    }

    fn send(&self, transmit: &Transmit<'_>) {
        // What has no room is lost, as anywhere on its way.
        let _ = self.socket.state.try_send((&self.socket.io).into(), transmit);
    }
}

impl Routes {
    /// Joins two sides.
    pub(super) fn join(&self, [one, two]: [(SocketAddr, Door); 2], flow: &Arc<Flow>) {
        let route = |(to, door): &(SocketAddr, Door)| {
            Arc::new(Route { to: *to, door: door.clone(), flow: Arc::clone(flow) })
        };
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        routes.insert(one.0, route(&two));
        routes.insert(two.0, route(&one));
    }

    pub(super) fn part(&self, sides: [SocketAddr; 2]) {
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        sides.iter().for_each(|side| drop(routes.remove(side)));
    }

    pub(super) fn has(&self, side: &SocketAddr) -> bool {
        self.of(side).is_some()
    }

    fn of(&self, side: &SocketAddr) -> Option<Arc<Route>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(side).cloned()
    }
}

impl Flow {
    pub(super) fn new(session: Session, pacer: Option<Arc<Pacer>>) -> Arc<Flow> {
        let heard = AtomicU64::new(time().0);
        Arc::new(Flow { session, pacer, unreported: AtomicU64::new(0), heard })
    }

    /// Nothing has come for a long time.
    pub(super) fn is_silent(&self) -> bool {
        time() - Time(self.heard.load(Ordering::Relaxed)) >= SILENCE
    }

    /// What was moved since the last time.
    pub(super) fn report(&self) -> u64 {
        self.unreported.swap(0, Ordering::Relaxed)
    }

    /// Counts bytes that came; whether they may go on.
    fn may_pass(&self, bytes: u64, events: &mpsc::Sender<Event>) -> bool {
        self.heard.store(time().0, Ordering::Relaxed);
        if self.pacer.as_ref().is_some_and(|pacer| !pacer.may_pass(bytes)) {
            return false;
        }
        if self.unreported.fetch_add(bytes, Ordering::Relaxed) + bytes >= REPORT_BYTES
            && let Ok(seat) = events.try_reserve()
        {
            seat.send(Event::Input(Input::Moved(self.session, self.report())));
        }
        true
    }
}

async fn forward(socket: Arc<Socket>, routes: Arc<Routes>, events: mpsc::Sender<Event>) {
    let mut memory = vec![0; BATCH * RECEPTION_BYTES];
    let mut metas = [RecvMeta::default(); BATCH];
    loop {
        let received = match socket.io.readable().await {
            Ok(()) => socket.io.try_io(Interest::READABLE, || {
                let mut slices: Vec<_> = memory.chunks_mut(RECEPTION_BYTES).map(IoSliceMut::new).collect();
                socket.state.recv((&socket.io).into(), &mut slices, &mut metas)
            }),
            Err(error) => Err(error),
        };
        match received {
            Ok(count) => {
                for (meta, bytes) in metas.iter().zip(memory.chunks(RECEPTION_BYTES)).take(count) {
                    pass(&socket, meta, &bytes[..meta.len.min(bytes.len())], &routes, &events);
                }
                tokio::task::coop::consume_budget().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(%error, "a socket of the relay received nothing");
                until(time() + BREATHER).await;
            }
        }
    }
}

fn pass(socket: &Arc<Socket>, meta: &RecvMeta, bytes: &[u8], routes: &Routes, events: &mpsc::Sender<Event>) {
    if let Some(token) = token(&bytes[..meta.stride.min(bytes.len())]) {
        let door = Door { socket: Arc::clone(socket), own: meta.dst_ip };
        // Whoever is not looked at for once sends it again.
        let _ = events.try_send(Event::Datagram(token, meta.addr, door));
        return;
    }
    if let Some(Probe { token, kind: Kind::Observe }) = Probe::from_bytes(bytes) {
        // As long as the question: nobody gains by asking in another's name.
        let seen = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
        let contents = &Probe { token, kind: Kind::Observed(seen) }.to_bytes();
        let (destination, src_ip) = (meta.addr, meta.dst_ip);
        let answer = Transmit { destination, ecn: None, contents, segment_size: None, src_ip };
        return Door { socket: Arc::clone(socket), own: meta.dst_ip }.send(&answer);
    }
    let Some(route) = routes.of(&meta.addr) else { return };
    if route.flow.may_pass(bytes.len() as u64, events) {
        let segment_size = (meta.stride < bytes.len()).then_some(meta.stride);
        let (destination, src_ip) = (route.to, route.door.own);
        route.door.send(&Transmit { destination, ecn: meta.ecn, contents: bytes, segment_size, src_ip });
    }
}

/// The token that a datagram consists of.
fn token(datagram: &[u8]) -> Option<Token> {
    let token = datagram.strip_prefix(&PREAMBLE)?;
    Some(Token::from_bytes(token.try_into().ok()?))
}
