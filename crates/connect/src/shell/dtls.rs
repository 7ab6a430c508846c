//! DTLS associations over UDP sockets: one for each address that is listened on, and one for each peer that is dialled.

mod sieve;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use kith_identity::{Fingerprint, Identity};
use kith_sansio::system::now;
use kith_sansio::{Now, Time};
use tokio::io::ReadBuf;
use tokio::sync::{Notify, mpsc};

pub(super) use self::sieve::Sieve;
use self::sieve::{Below, Sifted};
use self::wire::{Ends, Outgoing, Room, Wire};
use super::bind::udp_socket;
use super::datagrams::Queue;
use super::due;
use super::endpoint::{Config, Shared};
use crate::dtls::{End, Hub, Id, Limits, MAX_DATAGRAM_BYTES, Output};
use crate::error::named;
use crate::protocol::ADMITTED;
use crate::{BindError, DatagramError, Failure, defaults};

/// One UDP socket and its associations.
pub(super) struct Port {
    wire: Wire,
    /// The one peer of a socket that was made for it.
    sole: Option<SocketAddr>,
    state: Mutex<State>,
    /// There is something for the task of this port to look at.
    changed: Notify,
    /// There is room among what is unsent.
    emptied: Notify,
}

struct State {
    hub: Hub,
    lines: HashMap<Id, Arc<Line>>,
    outgoing: Outgoing,
    /// When the task of this port wakes by itself.
    planned: Option<Time>,
    arrivals: Option<mpsc::UnboundedSender<(Call, Fingerprint)>>,
}

/// Where the packets of a port come from.
pub(super) struct Source(Kind);

enum Kind {
    /// Its socket.
    Own(Room),
    /// A socket of QUIC, which has the port.
    Beside(Below),
}

/// One association as the endpoint sees it.
pub(super) struct Line {
    /// Gone where the endpoint is closed, whoever may still hold this.
    port: Weak<Port>,
    id: Id,
    ends: Ends,
    is_target: bool,
    pub(super) inbox: Arc<Queue>,
    control: Mutex<Control>,
    waker: AtomicWaker,
    /// The largest datagram that goes through, in bytes.
    most_bytes: AtomicUsize,
}

#[derive(Default)]
struct Control {
    is_reached: bool,
    /// The hello of the peer, or its answer.
    heard: VecDeque<u8>,
    end: Option<End>,
}

/// Holds an association; dropped, it ends.
pub(super) struct Call(pub(super) Arc<Line>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.inbox.end(DatagramError::Cut);
        let id = self.0.id;
        self.0.act(|hub, now| hub.close(now, id));
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        half_open: config.max_half_open,
        half_open_per_source: config.max_half_open_per_source,
        patience: config.handshake_timeout,
    }
}

/// Associations of strangers that have proved their keys, as they come. There are no more of them than the hub lets be.
pub(super) type Arrivals = mpsc::UnboundedReceiver<(Call, Fingerprint)>;

/// A port that strangers may come to; [`run`] has it work.
pub(super) fn listen(
    socket: std::net::UdpSocket,
    identity: &Arc<Identity>,
    config: &Config,
) -> Result<(Arc<Port>, Source, Arrivals), BindError> {
    let (port, arrivals) = open(socket, identity, config)?;
    Ok((port, Source(Kind::Own(Room::new())), arrivals))
}

/// The same on the port of a socket of QUIC, of which `socket` is a copy; `None` where there is one already.
pub(super) fn listen_beside(
    (socket, sieve): (std::net::UdpSocket, &Sieve),
    identity: &Arc<Identity>,
    config: &Config,
) -> Result<Option<(Arc<Port>, Source, Arrivals)>, BindError> {
    let (port, arrivals) = open(socket, identity, config)?;
    Ok(sieve.begin().map(|below| (port, Source(Kind::Beside(below)), arrivals)))
}

fn open(
    socket: std::net::UdpSocket,
    identity: &Arc<Identity>,
    config: &Config,
) -> Result<(Arc<Port>, Arrivals), BindError> {
    let failed = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
    let hub = Hub::new(Arc::clone(identity), limits(config), true).map_err(|error| failed(&error))?;
    let wire = Wire::new(socket).map_err(|error| failed(&error))?;
    // There are no more of them than the hub lets be.
    let (sender, arrivals) = mpsc::unbounded_channel();
    Ok((Port::new(wire, None, hub, Some(sender)), arrivals))
}

/// Reaches `target` at `at` and makes sure that it is there.
pub(super) async fn dial(shared: &Shared, at: SocketAddr, target: Fingerprint) -> Result<Call, Failure> {
    let network = |error: io::Error| Failure::Network(named(at, &error));
    let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = udp_socket(SocketAddr::new(any, 0)).map_err(network)?;
    socket.connect(at).map_err(network)?;
    let wire = Wire::new(socket).map_err(network)?;
    let broken = |error: kith_identity::tls::TlsError| Failure::Handshake(error.to_string());
    let hub = Hub::new(Arc::clone(&shared.identity), limits(&shared.config), false).map_err(broken)?;
    let port = Port::new(wire, Some(at), hub, None);
    let call = port.call(at, target).map_err(broken)?;
    shared.spawn(run(port, Source(Kind::Own(Room::new()))));
    std::future::poll_fn(|cx| call.0.poll_reached(cx)).await.map_err(|end| match end {
        End::WrongPeer(found) => Failure::WrongPeer(found),
        End::Unreachable(why) => Failure::Network(why),
        End::Broken(why) => Failure::Handshake(why),
        End::Silent(waited) => Failure::Silent(waited),
        End::Flaw => Failure::Handshake("the DTLS library failed".to_owned()),
        End::Closed => Failure::Handshake("the peer has gone".to_owned()),
    })?;
    Ok(call)
}

/// Reads, sends what could not be sent at once, and lets timers fire; ends with the association of a port that was made
/// for one.
pub(super) async fn run(port: Arc<Port>, mut source: Source) {
    let _forgetting = Forgetting(Arc::clone(&port));
    loop {
        let (planned, is_full) = {
            let mut state = port.state();
            if state.hub.is_empty() && state.arrivals.is_none() {
                return;
            }
            state.planned = state.hub.poll_timeout();
            (state.planned, !state.outgoing.is_empty())
        };
        tokio::select! {
            goes_on = port.read(&mut source) => if !goes_on {
                return;
            },
            _ = port.wire.writable(), if is_full => port.act(None, |_, _| ()),
            () = due(planned) => port.act(None, Hub::handle_timeout),
            () = port.changed.notified() => {}
        }
    }
}

/// Ends what is left of a port that nobody reads any more, and tells the peers.
struct Forgetting(Arc<Port>);

impl Drop for Forgetting {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.0.state().lines);
        for (id, line) in lines {
            line.inbox.end(DatagramError::Cut);
            self.0.act(Some(line.ends), |hub, now| hub.close(now, id));
        }
    }
}

impl Port {
    fn new(
        wire: Wire,
        sole: Option<SocketAddr>,
        hub: Hub,
        arrivals: Option<mpsc::UnboundedSender<(Call, Fingerprint)>>,
    ) -> Arc<Port> {
        let outgoing = Outgoing::default();
        let state = State { hub, lines: HashMap::new(), outgoing, planned: None, arrivals };
        Arc::new(Port {
            wire,
            sole,
            state: Mutex::new(state),
            changed: Notify::new(),
            emptied: Notify::new(),
        })
    }

    fn call(
        self: &Arc<Self>,
        at: SocketAddr,
        target: Fingerprint,
    ) -> Result<Call, kith_identity::tls::TlsError> {
        let line = {
            let mut state = self.state();
            let id = state.hub.connect(now(), at, target)?;
            let line = Line::new(self, id, Ends { peer: at, own: None }, false);
            state.lines.insert(id, Arc::clone(&line));
            line
        };
        self.act(None, |_, _| ());
        Ok(Call(line))
    }

    /// Whether strangers may come from now on; those who are there stay.
    pub(super) fn listen(self: &Arc<Self>, listens: bool) {
        self.act(None, |hub, _| hub.listen(listens));
    }

    /// Has the hub do something, and does what it wants done. What goes to the peer of `ends` leaves from the address that
    /// the peer knows.
    fn act<R>(self: &Arc<Self>, ends: Option<Ends>, work: impl FnOnce(&mut Hub, Now) -> R) -> R {
        let mut arrived = Vec::new();
        let mut state = self.state();
        let result = work(&mut state.hub, now());
        while let Some(output) = state.hub.poll_output() {
            arrived.extend(self.carry_out(&mut state, ends, output));
        }
        let was_full = !state.outgoing.has_room();
        let is_full = !self.wire.try_send(&mut state.outgoing);
        if was_full && state.outgoing.has_room() {
            self.emptied.notify_waiters();
        }
        let due = state.hub.poll_timeout();
        let is_sooner = due.is_some_and(|due| state.planned.is_none_or(|planned| due < planned));
        if is_sooner || state.hub.is_empty() || is_full {
            self.changed.notify_one();
        }
        let arrivals = state.arrivals.clone().filter(|_| !arrived.is_empty());
        drop(state);
        for call in arrived {
            // Nobody takes them where the endpoint is closed; they end with being dropped, which needs the lock.
            let _ = arrivals.as_ref().map(|arrivals| arrivals.send(call));
        }
        result
    }

    fn carry_out(
        self: &Arc<Self>,
        state: &mut State,
        ends: Option<Ends>,
        output: Output,
    ) -> Option<(Call, Fingerprint)> {
        let towards =
            |peer: SocketAddr| ends.filter(|ends| ends.peer == peer).unwrap_or(Ends { peer, own: None });
        match output {
            Output::Transmit(to, packet) => state.outgoing.push(towards(to), &packet),
            Output::Arrived(id, from, peer) => {
                let line = Line::new(self, id, towards(from), true);
                state.lines.insert(id, Arc::clone(&line));
                return Some((Call(line), peer));
            }
            Output::Reached(id) => state.tell(id, |control| control.is_reached = true),
            Output::Heard(id, words) => state.tell(id, |control| control.heard.extend(words)),
            Output::Datagram(id, datagram) => {
                if let Some(line) = state.lines.get(&id) {
                    line.inbox.push([datagram]);
                }
            }
            Output::Size(id, bytes) => {
                if let Some(line) = state.lines.get(&id) {
                    line.most_bytes.store(bytes, Ordering::Relaxed);
                }
            }
            Output::Over(id, end) => {
                state.tell(id, |control| control.end = Some(end));
                if let Some(line) = state.lines.remove(&id) {
                    line.inbox.end(DatagramError::Ended);
                }
            }
        }
        None
    }

    /// Waits for packets and takes them; `false` where no more come.
    async fn read(self: &Arc<Self>, source: &mut Source) -> bool {
        match &mut source.0 {
            Kind::Own(room) => match self.wire.readable().await {
                Ok(()) => self.read_own(room),
                Err(error) => {
                    tracing::error!(%error, "cannot read from a DTLS socket");
                    return false;
                }
            },
            Kind::Beside(below) => {
                let Some(sifted) = below.next().await else { return false };
                self.take(&sifted);
            }
        }
        // Whoever takes the datagrams has a turn before there are more.
        tokio::task::yield_now().await;
        true
    }

    fn take(self: &Arc<Self>, sifted: &Sifted) {
        self.act(Some(sifted.ends), |hub, now| {
            let packets = sifted.bytes.chunks(sifted.size);
            packets.for_each(|packet| hub.handle_packet(now, sifted.ends.peer, packet));
        });
    }

    fn read_own(self: &Arc<Self>, room: &mut Room) {
        let read = self.wire.try_recv(room, |ends, packets| {
            self.act(Some(ends), |hub, now| {
                packets.for_each(|packet| hub.handle_packet(now, ends.peer, packet));
            });
        });
        let Err(error) = read else { return };
        if let Some(at) = self.sole.filter(|_| error.kind() != io::ErrorKind::WouldBlock) {
            let ids: Vec<Id> = self.state().lines.keys().copied().collect();
            let why = named(at, &error);
            ids.into_iter().for_each(|id| self.act(None, |hub, now| hub.give_up(now, id, &why)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&self, id: Id, what: impl FnOnce(&mut Control)) {
        if let Some(line) = self.lines.get(&id) {
            what(&mut line.control());
            line.waker.wake();
        }
    }
}

impl Line {
    fn new(port: &Arc<Port>, id: Id, ends: Ends, is_target: bool) -> Arc<Line> {
        let waiting_bytes =
            if is_target { defaults::STRANGER_DATAGRAM_BYTES } else { defaults::DATAGRAM_ARRIVAL_BYTES };
        Arc::new(Line {
            port: Arc::downgrade(port),
            id,
            ends,
            is_target,
            inbox: Queue::new(waiting_bytes),
            control: Mutex::default(),
            waker: AtomicWaker::new(),
            most_bytes: AtomicUsize::new(MAX_DATAGRAM_BYTES),
        })
    }

    /// The peer's address.
    pub(super) fn remote(&self) -> SocketAddr {
        self.ends.peer
    }

    /// The largest datagram that is sent now, in bytes.
    pub(super) fn most_bytes(&self) -> usize {
        self.most_bytes.load(Ordering::Relaxed)
    }

    fn act<R: Default>(&self, work: impl FnOnce(&mut Hub, Now) -> R) -> R {
        self.port.upgrade().map_or_else(R::default, |port| port.act(Some(self.ends), work))
    }

    /// Sends datagrams in one go, and says how many: those that are too large are left out.
    pub(super) fn send<'a>(&self, datagrams: impl Iterator<Item = &'a [u8]>) -> usize {
        self.act(|hub, now| hub.send(now, self.id, datagrams))
    }

    /// Waits until the system takes more.
    pub(super) async fn room(&self) {
        while let Some(port) = self.port.upgrade() {
            let mut emptied = std::pin::pin!(port.emptied.notified());
            emptied.as_mut().enable();
            if port.state().outgoing.has_room() {
                return;
            }
            emptied.await;
        }
    }

    /// Answers the hello.
    pub(super) fn answer(&self, is_admitted: bool) {
        self.act(|hub, now| hub.answer(now, self.id, is_admitted));
    }

    /// What is written is the hello, or the answer to it.
    pub(super) fn write(&self, words: &[u8]) {
        if self.is_target {
            self.answer(words == [ADMITTED]);
        } else {
            self.act(|hub, now| hub.ask(now, self.id, words));
        }
    }

    /// Reads the peer's hello, or its answer; after that there is nothing to read until the end.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.waker.register(cx.waker());
        let mut control = self.control();
        let heard: Vec<u8> = {
            let most = control.heard.len().min(buffer.remaining());
            control.heard.drain(..most).collect()
        };
        buffer.put_slice(&heard);
        if heard.is_empty() && control.end.is_none() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_reached(&self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.waker.register(cx.waker());
        let control = self.control();
        match &control.end {
            Some(end) => Poll::Ready(Err(end.clone())),
            None if control.is_reached => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
