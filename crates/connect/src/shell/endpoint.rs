use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kith_identity::{Address, Fingerprint, Identity, Transport, tls};
use kith_sansio::Span;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::{Listeners, bind, interfaces_but};
use super::datagrams::Datagrams;
use super::direct::Beside;
use super::direct::tcp::Lines;
use super::quic::{Links, Quic};
use super::registry::Registry;
use super::relay::Hook;
use super::stream::Stream;
use super::{accept, dtls, within};
use crate::delegator::Opener;
use crate::dialer::{Pace, Via};
use crate::knocks::Knocks;
use crate::limits::Places;
use crate::protocol::{Kind, Wanted};
use crate::{
    Admission, BindError, ConnectError, Discovery, Interface, ListenError, Protocol, Trust, Vantage, address,
    advertised, defaults,
};

/// How an endpoint listens, dials and bounds what strangers may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen. Empty: any address, port [`defaults::PORT`] for TCP and QUIC, the next free port where it
    /// is taken, IPv4 alone where the system has no IPv6. Port 0: any free one. DTLS only where it is said.
    pub listen: Vec<Address>,
    /// How addresses are raced.
    pub pace: Pace,
    /// How long a peer may take until its hello is there and answered.
    pub handshake_timeout: Span,
    /// Connections in all that have not said hello yet.
    pub max_half_open: usize,
    /// Of these, from one IPv4 address or IPv6 /64.
    pub max_half_open_per_source: usize,
    /// Connections in all over TCP and DTLS of peers that are not trusted, where a protocol admits anyone.
    pub max_strangers: usize,
    /// The same over QUIC, where each costs several times the memory.
    pub max_quic_strangers: usize,
    /// Of either, from one IPv4 address or IPv6 /64.
    pub max_strangers_per_source: usize,
    /// Open streams in all.
    pub max_streams: usize,
    /// Open streams with one peer.
    pub max_streams_per_peer: usize,
    /// Admitted streams that wait for one listener.
    pub incoming_queue: usize,
    /// How long an existing connection may take to answer before a new one is dialled beside it.
    pub pool_patience: Span,
    /// Whether a direct way is looked for where a relay is between: QUIC connections move there, over TCP it is punched
    /// for later streams. The peer learns addresses of this node for that.
    pub seek_direct: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: Vec::new(),
            pace: Pace::default(),
            handshake_timeout: defaults::HANDSHAKE_TIMEOUT,
            max_half_open: defaults::MAX_HALF_OPEN,
            max_half_open_per_source: defaults::MAX_HALF_OPEN_PER_SOURCE,
            max_strangers: defaults::MAX_STRANGERS,
            max_quic_strangers: defaults::MAX_QUIC_STRANGERS,
            max_strangers_per_source: defaults::MAX_STRANGERS_PER_SOURCE,
            max_streams: defaults::MAX_STREAMS,
            max_streams_per_peer: defaults::MAX_STREAMS_PER_PEER,
            incoming_queue: defaults::INCOMING_QUEUE,
            pool_patience: defaults::POOL_PATIENCE,
            seek_direct: true,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The holder of this fingerprint's key, proved.
    Known(Fingerprint),
    /// Somebody who did not say; possible only where a protocol admits anyone.
    Anonymous,
}

impl Peer {
    /// The fingerprint, where there is one.
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Peer::Known(fingerprint) => Some(fingerprint),
            Peer::Anonymous => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Known(fingerprint) => fingerprint.fmt(f),
            Peer::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// What the connection is made of.
    pub transport: Transport,
    /// The peer's side of it.
    pub remote: SocketAddr,
    /// No relay in between.
    pub direct: bool,
    /// The relay in between, the target's where there are several.
    pub relay: Option<Fingerprint>,
    /// Round-trip time: the current estimate of QUIC, for TCP the time that the connection took; `None` where
    /// neither is known, and over DTLS.
    pub rtt: Option<Duration>,
}

/// This node's place on the network: reaches peers and is reached. Clones are the same endpoint; when the last is
/// dropped, it closes.
#[derive(Clone)]
pub struct Endpoint {
    guard: Arc<Guard>,
}

/// A network device whose packets go over an endpoint, for as long as this is held.
#[derive(Debug)]
pub struct OwnDevice {
    devices: Arc<Mutex<Vec<String>>>,
    name: String,
}

impl Drop for OwnDevice {
    fn drop(&mut self) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = devices.iter().position(|name| *name == self.name) {
            devices.swap_remove(at);
        }
    }
}

/// Closes the endpoint when nobody holds it any more; tasks hold [`Shared`] alone.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.shut();
    }
}

/// What the tasks of an endpoint share.
pub(super) struct Shared {
    pub(super) own: Fingerprint,
    pub(super) identity: Arc<Identity>,
    pub(super) trust: Arc<dyn Trust>,
    pub(super) discovery: Arc<dyn Discovery>,
    pub(super) config: Config,
    pub(super) client_tls: rustls::ClientConfig,
    pub(super) anonymous_tls: rustls::ClientConfig,
    pub(super) server_tls: Arc<rustls::ServerConfig>,
    pub(super) quic: Quic,
    pub(super) links: Links,
    pub(super) registry: Registry,
    pub(super) half_open: Arc<Places<IpAddr>>,
    /// Connections of peers that are not trusted, and were let in where anyone is: over TCP or DTLS, and over QUIC.
    pub(super) strangers: Arc<Places<IpAddr>>,
    pub(super) quic_strangers: Arc<Places<IpAddr>>,
    pub(super) streams: Arc<Places<Party>>,
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) local: Vec<Address>,
    /// With whom a direct path is sought beside a relayed stream.
    pub(super) beside: Beside,
    /// Network devices whose packets go over this endpoint.
    own_devices: Arc<Mutex<Vec<String>>>,
    /// How often this machine's addresses have changed, and how often it has lost one.
    pub(super) changes: watch::Sender<u64>,
    pub(super) losses: watch::Sender<u64>,
    /// With whom it is punched over TCP.
    pub(super) lines: Lines,
    /// Addresses beside its listeners' at which this node is reached.
    pub(super) offered: watch::Sender<Vec<Address>>,
    default_port_taken: bool,
    listening: Mutex<HashMap<(Protocol, Kind), Listening>>,
    knocks: Mutex<Knocks>,
    /// Where connections go that begin with a token, while this node relays.
    hook: Mutex<Option<Hook>>,
    /// DTLS on the ports of QUIC, once it was wanted there.
    dtls_beside: Mutex<Vec<Arc<dtls::Port>>>,
}

/// Whose share of a limit is used: a peer's, or where it has no name its network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    Named(Fingerprint),
    Source(IpAddr),
}

#[derive(Clone)]
pub(super) struct Listening {
    pub(super) admission: Admission,
    /// Strangers whom it admits may come over relays too.
    over_relays: bool,
    pub(super) queue: Queue,
}

/// Who takes what peers open.
#[derive(Clone)]
pub(super) enum Queue {
    Streams(mpsc::Sender<(Peer, Stream)>),
    Datagrams(mpsc::Sender<(Peer, Datagrams)>),
}

/// A place in a [`Queue`].
pub(super) enum Seat {
    Stream(mpsc::OwnedPermit<(Peer, Stream)>),
    Datagrams(mpsc::OwnedPermit<(Peer, Datagrams)>),
}

impl Queue {
    /// A place, once there is one; `None` where nobody listens any more.
    pub(super) async fn reserve(self) -> Option<Seat> {
        match self {
            Queue::Streams(queue) => queue.reserve_owned().await.ok().map(Seat::Stream),
            Queue::Datagrams(queue) => queue.reserve_owned().await.ok().map(Seat::Datagrams),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Queue::Streams(queue) => queue.is_closed(),
            Queue::Datagrams(queue) => queue.is_closed(),
        }
    }
}

impl Seat {
    pub(super) fn is_for_datagrams(&self) -> bool {
        matches!(self, Seat::Datagrams(_))
    }

    pub(super) fn send(self, shared: &Shared, peer: Peer, stream: Stream) {
        match self {
            Seat::Stream(seat) => drop(seat.send((peer, stream))),
            Seat::Datagrams(seat) => drop(seat.send((peer, Datagrams::over(shared, stream)))),
        }
    }
}

/// What peers opened for one protocol, streams or [`Datagrams`]; dropped, the protocol is refused again.
pub struct Incoming<T = Stream> {
    protocol: Protocol,
    kind: Kind,
    queue: mpsc::Receiver<(Peer, T)>,
    shared: Arc<Shared>,
}

impl Endpoint {
    /// Opens an endpoint for `identity`: it listens when this returns.
    pub async fn bind(
        identity: Arc<Identity>,
        trust: Arc<dyn Trust>,
        discovery: Arc<dyn Discovery>,
        config: Config,
    ) -> Result<Endpoint, BindError> {
        let tls_error = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
        let certificate = tls::Certificate::self_signed(&identity).map_err(|error| tls_error(&error))?;
        let server_tls = Arc::new(tls::node_server(&certificate).map_err(|error| tls_error(&error))?);
        let client_tls = tls::node_client(&certificate).map_err(|error| tls_error(&error))?;
        let anonymous_tls = tls::node_client_anonymous().map_err(|error| tls_error(&error))?;
        let Listeners { tcp, udp, dtls, local, default_port_taken } = bind(&config.listen)?;
        let dtls = dtls.into_iter().map(|socket| dtls::listen(socket, &identity, &config));
        let dtls = dtls.collect::<Result<Vec<_>, _>>()?;
        let quic = Quic::new(&server_tls, udp)?;
        let changes = trust.changed();
        let shared = Arc::new(Shared {
            own: identity.fingerprint(),
            identity,
            trust,
            discovery,
            client_tls,
            anonymous_tls,
            server_tls,
            quic,
            links: Links::default(),
            registry: Registry::default(),
            half_open: Places::new(config.max_half_open, config.max_half_open_per_source),
            strangers: Places::new(config.max_strangers, config.max_strangers_per_source),
            quic_strangers: Places::new(config.max_quic_strangers, config.max_strangers_per_source),
            streams: Places::new(config.max_streams, config.max_streams_per_peer),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            local,
            beside: Beside::default(),
            own_devices: Arc::default(),
            changes: watch::Sender::new(0),
            losses: watch::Sender::new(0),
            lines: Lines::default(),
            offered: watch::Sender::new(Vec::new()),
            default_port_taken,
            listening: Mutex::default(),
            knocks: Mutex::new(Knocks::new(defaults::KNOCK_EVERY, defaults::MAX_KNOCKS)),
            hook: Mutex::default(),
            dtls_beside: Mutex::default(),
            config,
        });
        accept::start(&shared, tcp, dtls, changes);
        Ok(Endpoint { guard: Arc::new(Guard(shared)) })
    }

    /// This node's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.shared().own
    }

    /// Where it listens, with the real ports.
    pub fn local_addresses(&self) -> Vec<Address> {
        self.shared().local.clone()
    }

    /// The addresses worth announcing now, by [`advertised`].
    pub fn advertised_addresses(&self) -> Vec<Address> {
        advertised(&self.shared().local, &self.interfaces())
    }

    /// The addresses of this machine, but for those of devices whose packets go over this endpoint.
    pub fn interfaces(&self) -> Vec<Interface> {
        self.shared().interfaces()
    }

    /// Says that what goes into a network device goes over this endpoint: until the result is dropped its addresses are
    /// told nobody, and its network counts as none of this machine's, since a connection there would carry itself.
    #[must_use]
    pub fn carries(&self, device: &str) -> OwnDevice {
        let devices = Arc::clone(&self.shared().own_devices);
        devices.lock().unwrap_or_else(PoisonError::into_inner).push(device.to_owned());
        OwnDevice { devices, name: device.to_owned() }
    }

    /// Addresses at which this node is reached beside those of its listeners, such as ports that a router maps. Peers
    /// that are connected over a relay are told of those that speak QUIC; the ones offered before do not count any more.
    pub fn offer(&self, addresses: Vec<Address>) {
        self.shared().offered.send_if_modified(|before| {
            let has_changed = *before != addresses;
            *before = addresses;
            has_changed
        });
    }

    /// Waits until the addresses of this machine have changed: what went out from one that is lost has to find another way.
    pub async fn moved(&self) {
        let mut changes = self.shared().changes.subscribe();
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether peers are let in over DTLS at the ports of QUIC too, from now on: one open or mapped port is then enough for
    /// both. At first they are not. Associations that are open stay as they are.
    pub fn accept_dtls(&self, accepts: bool) -> Result<(), BindError> {
        let shared = self.shared();
        let mut beside = shared.dtls_beside.lock().unwrap_or_else(PoisonError::into_inner);
        if accepts && beside.is_empty() {
            for socket in shared.quic.sieves() {
                let socket = socket.map_err(|error| BindError::Tls(error.to_string()))?;
                if let Some((port, source, arrivals)) =
                    dtls::listen_beside(socket, &shared.identity, &shared.config)?
                {
                    accept::start_dtls(shared, Arc::clone(&port), source, arrivals);
                    beside.push(port);
                }
            }
        }
        beside.iter().for_each(|port| port.listen(accepts));
        Ok(())
    }

    /// Whether the default port was taken, so that another one is in use.
    pub fn default_port_taken(&self) -> bool {
        self.shared().default_port_taken
    }

    /// Opens a stream to `target` for `protocol` by whatever way answers first.
    pub async fn connect(&self, target: &Fingerprint, protocol: &Protocol) -> Result<Stream, ConnectError> {
        self.connect_with(target, protocol, Via::Any).await
    }

    /// Opens a stream to `target` for `protocol`, insisting on a transport.
    ///
    /// An existing QUIC connection is used where it answers; else the target's addresses are raced. The stream is
    /// admitted by the target when this returns.
    pub async fn connect_with(
        &self,
        target: &Fingerprint,
        protocol: &Protocol,
        via: Via,
    ) -> Result<Stream, ConnectError> {
        let wanted = Wanted { protocol, kind: Kind::Stream };
        self.unless_closed(self.shared().connect(target, wanted, via)).await
    }

    /// Exchanges datagrams with `target` for `protocol` by whatever way answers first.
    pub async fn connect_datagrams(
        &self,
        target: &Fingerprint,
        protocol: &Protocol,
    ) -> Result<Datagrams, ConnectError> {
        self.connect_datagrams_with(target, protocol, Via::Any).await
    }

    /// Exchanges datagrams with `target` for `protocol`, insisting on a transport.
    ///
    /// As with a stream, an existing QUIC connection is used where it answers, and the target has admitted this node when
    /// this returns. DTLS, which is not safe from quantum computers, is used where [`Via::Dtls`] insists on it, or where
    /// the target is known by no other address and no relay.
    pub async fn connect_datagrams_with(
        &self,
        target: &Fingerprint,
        protocol: &Protocol,
        via: Via,
    ) -> Result<Datagrams, ConnectError> {
        let wanted = Wanted { protocol, kind: Kind::Datagrams };
        let stream = self.unless_closed(self.shared().connect(target, wanted, via)).await?;
        Ok(Datagrams::over(self.shared(), stream))
    }

    /// As [`connect_with`](Endpoint::connect_with), but over a new connection with a handshake of its own, which
    /// ends with the stream: drop it only after the peer has answered.
    pub async fn connect_fresh(
        &self,
        target: &Fingerprint,
        protocol: &Protocol,
        via: Via,
    ) -> Result<Stream, ConnectError> {
        self.unless_closed(self.shared().connect_alone(*target, Wanted { protocol, kind: Kind::Stream }, via))
            .await
    }

    /// Opens a stream for `protocol` to whoever holds the key `found` and answers at `address`, without showing who
    /// this node is; over a new connection, which ends with the stream. For asking a peer that is nobody's target,
    /// such as the one that [`ConnectError::WrongPeer`] names; the protocol must admit anyone.
    pub async fn connect_anonymous(
        &self,
        address: &Address,
        found: &Fingerprint,
        protocol: &Protocol,
    ) -> Result<Stream, ConnectError> {
        let wanted = Wanted { protocol, kind: Kind::Stream };
        self.unless_closed(self.shared().connect_anonymous(*address, *found, wanted)).await
    }

    /// The outcome of `connecting`, or the end of this endpoint where that comes first.
    async fn unless_closed(
        &self,
        connecting: impl Future<Output = Result<Stream, ConnectError>>,
    ) -> Result<Stream, ConnectError> {
        tokio::select! {
            biased;
            () = self.shared().closing.cancelled() => Err(ConnectError::Closed),
            result = Box::pin(connecting) => result,
        }
    }

    /// Lets peers that `admission` admits open streams for `protocol`.
    pub fn listen(&self, protocol: Protocol, admission: Admission) -> Result<Incoming, ListenError> {
        self.listen_for(protocol, Kind::Stream, admission, Queue::Streams)
    }

    /// Lets peers that `admission` admits exchange datagrams for `protocol`. Streams of the same name are another
    /// matter: whoever takes them says so with [`listen`](Endpoint::listen).
    pub fn listen_datagrams(
        &self,
        protocol: Protocol,
        admission: Admission,
    ) -> Result<Incoming<Datagrams>, ListenError> {
        self.listen_for(protocol, Kind::Datagrams, admission, Queue::Datagrams)
    }

    fn listen_for<T>(
        &self,
        protocol: Protocol,
        kind: Kind,
        admission: Admission,
        queue_of: fn(mpsc::Sender<(Peer, T)>) -> Queue,
    ) -> Result<Incoming<T>, ListenError> {
        let shared = self.shared();
        if shared.closing.is_cancelled() {
            return Err(ListenError::Closed);
        }
        let (sender, queue) = mpsc::channel(shared.config.incoming_queue.max(1));
        match shared.listening().entry((protocol.clone(), kind)) {
            Entry::Occupied(_) => return Err(ListenError::Taken(protocol)),
            Entry::Vacant(free) => {
                free.insert(Listening { admission, over_relays: false, queue: queue_of(sender) })
            }
        };
        Ok(Incoming { protocol, kind, queue, shared: Arc::clone(shared) })
    }

    /// How `peer` is connected now: each QUIC connection, each TCP stream and each DTLS association,
    /// in no order.
    pub fn paths(&self, peer: &Fingerprint) -> Vec<PathInfo> {
        let shared = self.shared();
        let mut paths = shared.links.paths(peer);
        paths.extend(shared.registry.sole_paths(peer));
        paths
    }

    /// Whether a new stream to `peer`, which is reached over a relay otherwise, is expected to go directly.
    pub fn has_direct_way(&self, peer: &Fingerprint, via: Via) -> bool {
        let (any, tcp) = (matches!(via, Via::Any | Via::Bulk), via == Via::Tcp);
        let is_connected = self.paths(peer).iter().any(|path| path.direct);
        any && is_connected || (any || tcp) && self.shared().lines.works(peer)
    }

    /// Closes every connection, tells the peers and waits for it, a second at most.
    pub async fn close(&self) {
        let shared = self.shared();
        shared.shut();
        let _ = within(Span::secs(1), shared.quic.drained()).await;
        let _ = within(Span::secs(1), shared.tasks.wait()).await;
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.guard.0
    }
}

impl Shared {
    /// Runs a task until it ends or the endpoint is closed, which waits for it.
    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) {
        self.tasks.spawn(self.closing.clone().run_until_cancelled_owned(task));
    }

    pub(super) fn listening(&self) -> MutexGuard<'_, HashMap<(Protocol, Kind), Listening>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hook(&self) -> MutexGuard<'_, Option<Hook>> {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where this node stands, as the address policy needs it.
    pub(super) fn vantage(&self) -> Vantage {
        Vantage { loopback_only: address::loopback_only(&self.local), interfaces: self.interfaces() }
    }

    pub(super) fn interfaces(&self) -> Vec<Interface> {
        interfaces_but(&self.own_devices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that somebody who is not trusted wanted in.
    pub(super) fn knock(&self, who: &Fingerprint, from: SocketAddr) {
        let now = kith_sansio::system::time();
        if self.knocks.lock().unwrap_or_else(PoisonError::into_inner).note(now, who) {
            self.trust.knocked(who, SocketAddr::new(from.ip().to_canonical(), from.port()));
        }
    }

    /// Whether `peer` may come over a relay: trusted for something that is listened for here, or a stranger where
    /// these are asked in.
    pub(super) fn wants(&self, peer: &Fingerprint) -> bool {
        let is_open =
            self.listening().values().any(|one| one.admission == Admission::Anyone && one.over_relays);
        is_open || self.trusted_for(peer).is_some()
    }

    /// Whether streams of `protocol` with `peer` may be opened by that side, or go on: by membership where it is listened
    /// for members, by trust elsewhere. Where one name is listened for in both ways, both are needed.
    pub(super) fn permits(&self, opener: Opener, peer: &Fingerprint, protocol: &Protocol) -> bool {
        let is_for = |admission| {
            let listening = self.listening();
            let mut kinds = [Kind::Stream, Kind::Datagrams].into_iter();
            kinds.any(|kind| {
                listening.get(&(protocol.clone(), kind)).is_some_and(|one| one.admission == admission)
            })
        };
        // Asked outside the lock: what trust decides is not ours to know.
        let is_for_members = is_for(Admission::Members);
        let needs_trust = !is_for_members || is_for(Admission::Contacts);
        (!is_for_members || self.trust.is_member(peer))
            && (!needs_trust || self.trust.permits(opener, peer, protocol))
    }

    /// Something that is listened for here and that `peer` is trusted for.
    pub(super) fn trusted_for(&self, peer: &Fingerprint) -> Option<Protocol> {
        let guarded: Vec<Protocol> = {
            let listening = self.listening();
            let guarded = listening.iter().filter(|(_, one)| one.admission != Admission::Anyone);
            guarded.map(|((protocol, _), _)| protocol.clone()).collect()
        };
        // Asked outside the lock: what trust decides is not ours to know.
        guarded.into_iter().find(|protocol| self.permits(Opener::Peer, peer, protocol))
    }

    /// Cuts what is open to peers that are not trusted any more.
    pub(super) fn review_trust(&self) {
        let trusts = |opener, peer: &Fingerprint, protocol: &Protocol| self.permits(opener, peer, protocol);
        self.registry.review(trusts);
        self.links.review(trusts);
    }

    fn shut(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.listening().clear();
        self.registry.cut_all();
        self.quic.close();
    }
}

impl<T> Incoming<T> {
    /// The next one and who opened it; `None` when the endpoint is closed.
    pub async fn next(&mut self) -> Option<(Peer, T)> {
        self.queue.recv().await
    }

    /// Asks strangers in over the relays at which this node is exposed, where the protocol admits anyone. Without that
    /// relays put through whom this node trusts, and nobody else.
    pub fn over_relays(&self) {
        if let Some(entry) = self.shared.listening().get_mut(&(self.protocol.clone(), self.kind)) {
            entry.over_relays = true;
        }
    }

    /// The protocol that is listened for.
    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }
}

impl<T> Drop for Incoming<T> {
    fn drop(&mut self) {
        self.queue.close();
        let key = (self.protocol.clone(), self.kind);
        let mut listening = self.shared.listening();
        // After the endpoint has closed, the entry is gone already.
        if listening.get(&key).is_some_and(|entry| entry.queue.is_closed()) {
            listening.remove(&key);
        }
    }
}
