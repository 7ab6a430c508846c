//! DTLS associations over UDP sockets: one for each address that is listened on, and one for each peer that is dialled.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use kith_identity::{Fingerprint, Identity};
use kith_sansio::system::now;
use kith_sansio::{Now, Time};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};

use super::bind::udp_socket;
use super::datagrams::Queue;
use super::due;
use super::endpoint::{Config, Shared};
use crate::dtls::{End, Hub, Id, Limits, MAX_PACKET_BYTES, Output};
use crate::error::named;
use crate::protocol::ADMITTED;
use crate::{BindError, DatagramError, Failure, defaults};

/// Packets taken from a socket in one go.
const BATCH: usize = 64;
/// Packets that wait where the system takes no more.
const MAX_UNSENT: usize = 128;

/// One UDP socket and its associations.
pub(super) struct Port {
    socket: UdpSocket,
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
    unsent: VecDeque<(SocketAddr, Bytes)>,
    /// When the task of this port wakes by itself.
    planned: Option<Time>,
    arrivals: Option<mpsc::UnboundedSender<(Call, Fingerprint)>>,
}

/// One association as the endpoint sees it.
pub(super) struct Line {
    port: Arc<Port>,
    id: Id,
    pub(super) remote: SocketAddr,
    is_target: bool,
    pub(super) inbox: Arc<Queue>,
    control: Mutex<Control>,
    waker: AtomicWaker,
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
        self.0.port.act(|hub, now| hub.close(now, id));
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
) -> Result<(Arc<Port>, Arrivals), BindError> {
    let failed = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
    let hub = Hub::new(Arc::clone(identity), limits(config), true).map_err(|error| failed(&error))?;
    let socket = UdpSocket::from_std(socket).map_err(|error| failed(&error))?;
    let (sender, arrivals) = mpsc::unbounded_channel();
    Ok((Port::new(socket, None, hub, Some(sender)), arrivals))
}

/// Reaches `target` at `at` and makes sure that it is there.
pub(super) async fn dial(shared: &Shared, at: SocketAddr, target: Fingerprint) -> Result<Call, Failure> {
    let network = |error: io::Error| Failure::Network(named(at, &error));
    let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = udp_socket(SocketAddr::new(any, 0)).and_then(UdpSocket::from_std).map_err(network)?;
    socket.connect(at).await.map_err(network)?;
    let broken = |error: kith_identity::tls::TlsError| Failure::Handshake(error.to_string());
    let hub = Hub::new(Arc::clone(&shared.identity), limits(&shared.config), false).map_err(broken)?;
    let port = Port::new(socket, Some(at), hub, None);
    let call = port.call(at, target).map_err(broken)?;
    shared.tasks.spawn(shared.closing.clone().run_until_cancelled_owned(run(port)));
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
pub(super) async fn run(port: Arc<Port>) {
    let _forgetting = Forgetting(Arc::clone(&port));
    let mut buffer = vec![0; MAX_PACKET_BYTES + 1];
    loop {
        let (planned, is_full) = {
            let mut state = port.state();
            if state.hub.is_empty() && state.arrivals.is_none() {
                return;
            }
            state.planned = state.hub.poll_timeout();
            (state.planned, !state.unsent.is_empty())
        };
        tokio::select! {
            ready = port.socket.readable() => match ready {
                Ok(()) => port.read(&mut buffer),
                Err(error) => return tracing::error!(%error, "cannot read from a DTLS socket"),
            },
            _ = port.socket.writable(), if is_full => port.act(|_, _| ()),
            () = due(planned) => port.act(|hub, now| hub.handle_timeout(now)),
            () = port.changed.notified() => {}
        }
    }
}

/// Lets go of what is left of a port that nobody reads any more; its lines know it, and it knows them.
struct Forgetting(Arc<Port>);

impl Drop for Forgetting {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.0.state().lines);
        lines.values().for_each(|line| line.inbox.end(DatagramError::Cut));
    }
}

impl Port {
    fn new(
        socket: UdpSocket,
        sole: Option<SocketAddr>,
        hub: Hub,
        arrivals: Option<mpsc::UnboundedSender<(Call, Fingerprint)>>,
    ) -> Arc<Port> {
        let state = State { hub, lines: HashMap::new(), unsent: VecDeque::new(), planned: None, arrivals };
        Arc::new(Port {
            socket,
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
            let line = Line::new(self, id, at, false);
            state.lines.insert(id, Arc::clone(&line));
            line
        };
        self.act(|_, _| ());
        Ok(Call(line))
    }

    /// Has the hub do something, and does what it wants done.
    fn act<R>(self: &Arc<Self>, work: impl FnOnce(&mut Hub, Now) -> R) -> R {
        let mut arrived = Vec::new();
        let mut state = self.state();
        let result = work(&mut state.hub, now());
        self.send_unsent(&mut state);
        while let Some(output) = state.hub.poll_output() {
            arrived.extend(self.carry_out(&mut state, output));
        }
        let due = state.hub.poll_timeout();
        let is_sooner = due.is_some_and(|due| state.planned.is_none_or(|planned| due < planned));
        if is_sooner || state.hub.is_empty() || !state.unsent.is_empty() {
            self.changed.notify_one();
        }
        let arrivals = state.arrivals.clone();
        drop(state);
        for call in arrived {
            // Nobody takes them where the endpoint is closed; they end with being dropped, which needs the lock.
            let _ = arrivals.as_ref().map(|arrivals| arrivals.send(call));
        }
        result
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, output: Output) -> Option<(Call, Fingerprint)> {
        match output {
            Output::Transmit(to, packet) => self.transmit(state, to, packet),
            Output::Arrived(id, from, peer) => {
                let line = Line::new(self, id, from, true);
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
            Output::Over(id, end) => {
                state.tell(id, |control| control.end = Some(end));
                if let Some(line) = state.lines.remove(&id) {
                    line.inbox.end(DatagramError::Ended);
                }
            }
        }
        None
    }

    fn transmit(&self, state: &mut State, to: SocketAddr, packet: Bytes) {
        if state.unsent.is_empty() && self.try_send(to, &packet) {
            return;
        }
        if state.unsent.len() >= MAX_UNSENT {
            state.unsent.pop_front();
        }
        state.unsent.push_back((to, packet));
    }

    fn send_unsent(&self, state: &mut State) {
        let before = state.unsent.len();
        while let Some((to, packet)) = state.unsent.front()
            && self.try_send(*to, packet)
        {
            state.unsent.pop_front();
        }
        if state.unsent.len() < before {
            self.emptied.notify_waiters();
        }
    }

    /// Whether the system took a packet, or will not take it ever.
    fn try_send(&self, to: SocketAddr, packet: &[u8]) -> bool {
        let sent = match self.sole {
            Some(_) => self.socket.try_send(packet),
            None => self.socket.try_send_to(packet, to),
        };
        !matches!(sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Takes what has come.
    fn read(self: &Arc<Self>, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            match self.socket.try_recv_from(buffer) {
                Ok((bytes, from)) => self.act(|hub, now| hub.handle_packet(now, from, &buffer[..bytes])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if let Some(at) = self.sole {
                        let ids: Vec<Id> = self.state().lines.keys().copied().collect();
                        let why = named(at, &error);
                        ids.into_iter().for_each(|id| self.act(|hub, now| hub.give_up(now, id, &why)));
                    }
                    return;
                }
            }
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
    fn new(port: &Arc<Port>, id: Id, remote: SocketAddr, is_target: bool) -> Arc<Line> {
        let waiting_bytes =
            if is_target { defaults::STRANGER_DATAGRAM_BYTES } else { defaults::DATAGRAM_BACKLOG_BYTES };
        Arc::new(Line {
            port: Arc::clone(port),
            id,
            remote,
            is_target,
            inbox: Queue::new(waiting_bytes),
            control: Mutex::default(),
            waker: AtomicWaker::new(),
        })
    }

    /// Sends datagrams in one go, and says how many: those that are too large are left out.
    pub(super) fn send<'a>(&self, datagrams: impl Iterator<Item = &'a [u8]>) -> usize {
        self.port.act(|hub, now| hub.send(now, self.id, datagrams))
    }

    /// Waits until the system takes more.
    pub(super) async fn room(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.port.emptied.notified());
            emptied.as_mut().enable();
            if self.port.state().unsent.len() < MAX_UNSENT / 2 {
                return;
            }
            emptied.await;
        }
    }

    /// Answers the hello.
    pub(super) fn answer(&self, is_admitted: bool) {
        self.port.act(|hub, now| hub.answer(now, self.id, is_admitted));
    }

    /// What is written is the hello, or the answer to it.
    pub(super) fn write(&self, words: &[u8]) {
        if self.is_target {
            self.answer(words == [ADMITTED]);
        } else {
            self.port.act(|hub, now| hub.ask(now, self.id, words));
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
