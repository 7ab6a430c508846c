mod congestion;
mod moving;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use kith_identity::{Address, Fingerprint, PublicKey, Transport, tls};
use kith_sansio::system::time;
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::{
    EndpointConfig, FourTuple, MtuDiscoveryConfig, NetworkChangeHint, PathEvent, PathId, PathStatus, Runtime,
    TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use self::congestion::Congestion;
use super::bind::udp_socket;
use super::direct::Hub;
use super::dtls::Sieve;
use super::endpoint::{PathInfo, Peer};
use super::flows::Flows;
use super::pin::Pin;
use super::relay::{OpenPath, Over, Paths, Woven};
use super::udp::Lean;
use super::{DONE_CODE, LINGER, REFUSED_CODE, until, within};
use crate::delegator::Opener;
use crate::direct::limits::OPEN_PATIENCE;
use crate::error::{TurnedAway, named};
use crate::limits::{Place, Places, source};
use crate::{BindError, Failure, Protocol, defaults};

/// Bytes that a peer may send ahead of the reader on one stream.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same where the connection may have several paths, or a poor one. QUIC ends a connection with more than 1024 gaps in
/// one stream: with two full packets of 1200 bytes to a gap, these are too few for so many.
const MOVABLE_STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Bytes that a peer may send ahead of the readers of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The same while the peer was not found to be trusted, so that strangers take no memory.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// Bytes sent and not yet acknowledged on one connection.
const SEND_WINDOW_BYTES: u64 = 8 << 20;
/// Largest UDP payload sent or taken: discovery finds out what the path carries, 1200 bytes to jumbo frames and loopback.
const MAX_UDP_PAYLOAD_BYTES: u16 = 16_000;
/// Where the search for the largest payload stops, in bytes: half of the probes for a hundredth of the speed. From 16 000
/// down it tries 1661 and then 1430 of the 1452 that Ethernet carries, so that more than 231 would leave it at 1200.
const MTU_STEP_BYTES: u16 = 200;
/// The same where the peer opened the connection: what every Ethernet carries over IPv6. A probe is built in a buffer that
/// the connection keeps, and one of 16 000 bytes would be a fifth of all that a stranger costs.
const MAX_UDP_PAYLOAD_BYTES_BACK: u16 = 1452;
/// Bytes sent before anything is known of the path: 32 full packets of Ethernet, of which the first probe for larger
/// packets takes a good part.
const INITIAL_WINDOW_BYTES: u64 = 48 << 10;
/// Streams that a peer may have open on one connection.
const MAX_STREAMS: u32 = 256;
/// The same while the peer was not found to be trusted.
const STRANGER_STREAMS: u32 = 4;
/// Bytes kept of one connection attempt until it is looked at, and of all together.
const INCOMING_BYTES: (u64, u64) = (64 << 10, 4 << 20);
/// Paths of one connection that began over a relay: that one, a direct one, and what is being opened or given up.
const MAX_PATHS: u32 = 4;
/// Connections kept with one peer.
const MAX_LINKS_PER_PEER: usize = 16;

/// The QUIC side of an endpoint: one socket for each listener, and those to dial from where no listener fits.
pub(super) struct Quic {
    pub(super) listeners: Vec<noq::Endpoint>,
    dialers: Mutex<HashMap<IpAddr, noq::Endpoint>>,
    endpoint_config: EndpointConfig,
    transport: Arc<TransportConfig>,
    /// For connections that begin over a relay, as client and as server: they may move.
    movable: (Arc<TransportConfig>, Arc<noq::ServerConfig>),
    /// Relayed paths of the first listener.
    paths: Arc<Paths>,
    /// Probes beside the first listener.
    pub(super) hub: Arc<Hub>,
    /// What takes DTLS out of what comes to the listeners, and their sockets.
    sieves: Vec<(Arc<Sieve>, std::net::UdpSocket)>,
}

/// One QUIC connection with a peer.
pub(super) struct Link {
    pub(super) connection: noq::Connection,
    pub(super) peer: Peer,
    /// Its path over a relay, where it began over one.
    relayed: Option<watch::Sender<Relayed>>,
    pub(super) flows: Flows,
    /// The direct path that it has moved to since.
    direct: watch::Sender<Option<PathId>>,
    /// A direct path is looked for.
    seeking: AtomicBool,
    /// This node opened it, for something of its own.
    ours: bool,
    admitted: AtomicBool,
    /// Limits for strangers do not hold for it, or not any more.
    welcome: AtomicBool,
    tolerated: AtomicBool,
    /// Somebody waited for it in vain; others should not.
    doubtful: AtomicBool,
    /// Streams whose hello is not answered yet.
    greeting: AtomicUsize,
    /// Streams that the peer opened, and that somebody here uses.
    guests: AtomicUsize,
    /// It is about to be looked at whether a stranger still needs it.
    leaving: AtomicBool,
    /// Its place among the connections on which nothing has been admitted yet, or among those of strangers.
    place: Mutex<Option<Place<IpAddr>>>,
    /// For what it has been used, and who opened those streams; `None` once for something that needs no trust.
    used: Mutex<Option<Vec<(Opener, Protocol)>>>,
}

/// The path of a connection over a relay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relayed {
    pub(super) id: PathId,
    pub(super) over: Over,
    /// It has not been given up.
    pub(super) is_open: bool,
}

/// A stream that a peer opened, as its connection counts it.
pub(super) struct Guest(Arc<Link>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::SeqCst);
        self.0.let_go();
    }
}

/// Paths go on from wherever this machine is; which of them is lost shows by itself.
#[derive(Debug)]
struct InPlace;

impl NetworkChangeHint for InPlace {
    fn is_path_recoverable(&self, _: PathId, _: FourTuple) -> bool {
        true
    }
}

/// Open QUIC connections by peer, newest last.
#[derive(Default)]
pub(super) struct Links(Mutex<HashMap<Fingerprint, Vec<Arc<Link>>>>);

impl Quic {
    pub(super) fn new(
        tls: &Arc<rustls::ServerConfig>,
        sockets: Vec<std::net::UdpSocket>,
    ) -> Result<Quic, BindError> {
        let tls_error = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
        let crypto = QuicServerConfig::try_from(Arc::clone(tls)).map_err(|error| tls_error(&error))?;
        let mut towards_strangers = transport().map_err(|error| tls_error(&error))?;
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(MAX_UDP_PAYLOAD_BYTES_BACK);
        towards_strangers
            .mtu_discovery_config(Some(mtu))
            .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
            .max_concurrent_bidi_streams(VarInt::from_u32(STRANGER_STREAMS));
        let may_move = |config: &mut TransportConfig| {
            config
                .max_concurrent_multipath_paths(MAX_PATHS)
                .stream_receive_window(VarInt::from_u32(MOVABLE_STREAM_WINDOW_BYTES));
        };
        let mut movable_towards_strangers = towards_strangers.clone();
        may_move(&mut movable_towards_strangers);
        let mut movable = transport().map_err(|error| tls_error(&error))?;
        may_move(&mut movable);
        let transport = Arc::new(transport().map_err(|error| tls_error(&error))?);
        let mut server = noq::ServerConfig::with_crypto(Arc::new(crypto));
        server
            .transport_config(Arc::new(towards_strangers))
            .max_incoming(defaults::MAX_HALF_OPEN)
            .incoming_buffer_size(INCOMING_BYTES.0)
            .incoming_buffer_size_total(INCOMING_BYTES.1);
        let mut movable_server = server.clone();
        movable_server.transport_config(Arc::new(movable_towards_strangers));
        let mut endpoint_config = EndpointConfig::default();
        endpoint_config.max_udp_payload_size(MAX_UDP_PAYLOAD_BYTES).map_err(|error| tls_error(&error))?;
        // So that packets of QUIC can be told from those of DTLS.
        endpoint_config.grease_quic_bit(false);
        let mut quic = Quic {
            listeners: Vec::new(),
            dialers: Mutex::default(),
            endpoint_config,
            transport,
            movable: (Arc::new(movable), Arc::new(movable_server)),
            paths: Arc::default(),
            hub: Hub::new(sockets.first().and_then(|socket| socket.try_clone().ok())),
            sieves: Vec::new(),
        };
        for socket in sockets {
            let listen_error = |source, at: Option<SocketAddr>| BindError::Listen {
                address: Address::new(Transport::Quic, at.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into())),
                source,
            };
            let at = socket.local_addr().ok();
            let copy = socket.try_clone().map_err(|source| listen_error(source, at))?;
            let sieve = Arc::new(Sieve::default());
            let server = (server.clone(), Arc::clone(&sieve));
            let endpoint = quic.endpoint(socket, Some(server)).map_err(|source| listen_error(source, at))?;
            quic.listeners.push(endpoint);
            quic.sieves.push((sieve, copy));
        }
        Ok(quic)
    }

    fn endpoint(
        &self,
        socket: std::net::UdpSocket,
        server: Option<(noq::ServerConfig, Arc<Sieve>)>,
    ) -> io::Result<noq::Endpoint> {
        let runtime = Arc::new(noq::TokioRuntime);
        let mut socket = Lean::new(runtime.wrap_udp_socket(socket)?, MAX_UDP_PAYLOAD_BYTES);
        let (server, sieve) = server.unzip();
        if let Some(sieve) = sieve {
            socket = socket.sifted(sieve);
        }
        let socket = Box::new(socket);
        let is_first_listener = server.is_some() && self.listeners.is_empty();
        let socket: Box<dyn noq::AsyncUdpSocket> = if is_first_listener {
            Box::new(Woven::new(socket, Arc::clone(&self.paths), Arc::clone(&self.hub)))
        } else {
            socket
        };
        noq::Endpoint::new_with_abstract_socket(self.endpoint_config.clone(), server, socket, runtime)
    }

    /// A path over `socket`, which a relay has joined with the other side's.
    fn add_path(&self, socket: std::net::UdpSocket, over: Over) -> io::Result<(&noq::Endpoint, OpenPath)> {
        let endpoint = self.listeners.first().ok_or(io::ErrorKind::Unsupported)?;
        let as_v6 = endpoint.local_addr()?.is_ipv6();
        let socket = noq::TokioRuntime.wrap_udp_socket(socket)?;
        let path = self.paths.add(socket, over, as_v6).ok_or(io::ErrorKind::QuotaExceeded)?;
        Ok((endpoint, path))
    }

    /// Connects over a relayed path and makes sure that the peer is there.
    pub(super) async fn dial_over(
        &self,
        socket: std::net::UdpSocket,
        over: Over,
        template: &rustls::ClientConfig,
    ) -> Result<noq::Connection, Failure> {
        let (endpoint, path) =
            self.add_path(socket, over).map_err(|error| Failure::Relay(error.to_string()))?;
        let transport = &self.movable.0;
        let connection = dial_from((endpoint, transport), path.address(), over.peer, template).await?;
        keep_path(path, &connection, PathId::ZERO);
        Ok(connection)
    }

    /// Lets the peer connect over a relayed path, for as long as the path is good for that.
    pub(super) fn await_over(&self, socket: std::net::UdpSocket, over: Over) -> io::Result<()> {
        let (_, path) = self.add_path(socket, over)?;
        self.paths.expect(path);
        Ok(())
    }

    /// What a path to `address` goes over, where that is a relayed one.
    pub(super) fn over(&self, address: &SocketAddr) -> Option<Over> {
        self.paths.over(address)
    }

    /// Keeps the path that a connection came over as its path `id`.
    pub(super) fn claim(&self, address: &SocketAddr, connection: &noq::Connection, id: PathId) {
        if let Some(path) = self.paths.claim(address) {
            keep_path(path, connection, id);
        }
    }

    /// Opens another path of a connection that began over a relay, over a relay too; whether the peer answers there.
    pub(super) async fn open_over(
        &self,
        socket: std::net::UdpSocket,
        over: Over,
        connection: &noq::Connection,
    ) -> bool {
        let Ok((_, path)) = self.add_path(socket, over) else { return false };
        let opening = connection.open_path(path.address(), PathStatus::Backup);
        let Some(id) = opening.path_id() else { return false };
        keep_path(path, connection, id);
        let is_open = matches!(within(OPEN_PATIENCE, opening).await, Some(Ok(_)));
        if !is_open && let Some(path) = connection.path(id) {
            // It may have ended by itself.
            let _ = path.close();
        }
        is_open
    }

    /// This machine has other addresses than before.
    pub(super) fn moved(&self) {
        self.all().iter().for_each(|endpoint| endpoint.handle_network_change(Some(Arc::new(InPlace))));
    }

    /// Connects to `at` and makes sure that `target` is there.
    pub(super) async fn dial(
        &self,
        at: SocketAddr,
        target: Fingerprint,
        template: &rustls::ClientConfig,
    ) -> Result<noq::Connection, Failure> {
        let endpoint = self.endpoint_towards(at).map_err(|error| Failure::Network(named(at, &error)))?;
        dial_from((&endpoint, &self.transport), at, target, template).await
    }

    /// Takes a connection that comes over a relay.
    pub(super) fn accept_over(
        &self,
        incoming: noq::Incoming,
    ) -> Result<noq::Connecting, noq::ConnectionError> {
        incoming.accept_with(Arc::clone(&self.movable.1))
    }

    /// A socket that reaches `at`: a listener's where possible, so that the peer sees the port that it may use itself.
    fn endpoint_towards(&self, at: SocketAddr) -> io::Result<noq::Endpoint> {
        let fits = |own: IpAddr| match own {
            IpAddr::V6(own) if own.is_unspecified() => true,
            IpAddr::V4(own) if own.is_unspecified() => at.is_ipv4(),
            own => own.is_ipv4() == at.is_ipv4() && own.is_loopback() == at.ip().is_loopback(),
        };
        let listener = self.listeners.iter().find(|one| one.local_addr().is_ok_and(|own| fits(own.ip())));
        if let Some(endpoint) = listener {
            return Ok(endpoint.clone());
        }
        let own: IpAddr =
            if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut dialers = self.dialers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = dialers.get(&own) {
            return Ok(endpoint.clone());
        }
        let endpoint = self.endpoint(udp_socket((own, 0).into())?, None)?;
        dialers.insert(own, endpoint.clone());
        Ok(endpoint)
    }

    /// The sockets of the listeners, and what takes DTLS out of what comes there.
    pub(super) fn sieves(&self) -> impl Iterator<Item = io::Result<(std::net::UdpSocket, &Sieve)>> {
        self.sieves.iter().map(|(sieve, socket)| Ok((socket.try_clone()?, &**sieve)))
    }

    fn all(&self) -> Vec<noq::Endpoint> {
        let dialers = self.dialers.lock().unwrap_or_else(PoisonError::into_inner);
        self.listeners.iter().chain(dialers.values()).cloned().collect()
    }

    pub(super) fn close(&self) {
        self.all().iter().for_each(|endpoint| endpoint.close(DONE_CODE, b""));
    }

    /// Waits until every peer has been told of the close.
    pub(super) async fn drained(&self) {
        for endpoint in self.all() {
            endpoint.wait_all_draining().await;
        }
    }
}

async fn dial_from(
    (endpoint, transport): (&noq::Endpoint, &Arc<TransportConfig>),
    at: SocketAddr,
    target: Fingerprint,
    template: &rustls::ClientConfig,
) -> Result<noq::Connection, Failure> {
    let (config, pin) = Pin::to(target, template);
    let crypto = QuicClientConfig::try_from(config).map_err(|error| Failure::Handshake(error.to_string()))?;
    let mut config = noq::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::clone(transport));
    let connecting = endpoint
        .connect_with(config, at, tls::SERVER_NAME)
        .map_err(|error| Failure::Network(format!("{at}: {error}")))?;
    connecting.await.map_err(|error| match pin.somebody_else() {
        Some(found) => Failure::WrongPeer(found),
        None => Failure::Handshake(error.to_string()),
    })
}

/// Keeps a relayed path until it is given up, or the end of its connection has been told.
fn keep_path(path: OpenPath, connection: &noq::Connection, id: PathId) {
    let closed = connection.on_closed();
    let mut events = connection.path_events();
    tokio::spawn(async move {
        let given_up = async {
            while let Some(event) = events.next().await {
                if matches!(event, Ok(PathEvent::Discarded { id: gone, .. }) if gone == id) {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = closed => until(time() + LINGER).await,
            () = given_up => {}
        }
        drop(path);
    });
}

fn transport() -> Result<TransportConfig, noq::VarIntBoundsExceeded> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_UDP_PAYLOAD_BYTES).minimum_change(MTU_STEP_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .mtu_discovery_config(Some(mtu))
        .max_idle_timeout(Some(Duration::from(defaults::IDLE_TIMEOUT).try_into()?))
        .keep_alive_interval(Some(defaults::KEEP_ALIVE.into()))
        .datagram_receive_buffer_size(Some(defaults::DATAGRAM_ARRIVAL_BYTES))
        .datagram_send_buffer_size(defaults::DATAGRAM_BACKLOG_BYTES)
        .congestion_controller_factory(Arc::new(Congestion::starting_with(INITIAL_WINDOW_BYTES)))
        .allow_spin(false);
    Ok(transport)
}

/// Who is at the other end of a QUIC connection whose handshake is over.
pub(super) fn key_of(connection: &noq::Connection) -> Result<Option<PublicKey>, TurnedAway> {
    let certificates =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    tls::peer_key(certificates.as_ref().map(|all| all.as_slice()))
        .map_err(|error| TurnedAway::Key(error.to_string()))
}

impl Link {
    /// A connection that this node opened, or one that took `place` when it arrived.
    pub(super) fn new(
        connection: noq::Connection,
        peer: Peer,
        over: Option<Over>,
        place: Option<Place<IpAddr>>,
    ) -> Arc<Link> {
        Arc::new(Link {
            connection,
            peer,
            relayed: over.map(|over| watch::Sender::new(Relayed { id: PathId::ZERO, over, is_open: true })),
            flows: Flows::default(),
            direct: watch::Sender::new(None),
            seeking: AtomicBool::new(false),
            ours: place.is_none(),
            admitted: AtomicBool::new(false),
            welcome: AtomicBool::new(place.is_none()),
            tolerated: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            greeting: AtomicUsize::new(0),
            guests: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
            place: Mutex::new(place),
            used: Mutex::new(Some(Vec::new())),
        })
    }

    /// Remembers that a stream of `protocol` was admitted, for which trust is needed or not.
    pub(super) fn admit(&self, opener: Opener, protocol: &Protocol, needs_trust: bool) {
        self.admitted.store(true, Ordering::Relaxed);
        self.doubtful.store(false, Ordering::Relaxed);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *used {
            used if !needs_trust => *used = None,
            Some(all) if !all.iter().any(|(known, one)| *known == opener && one == protocol) => {
                all.push((opener, protocol.clone()));
            }
            _ => {}
        }
    }

    /// The peer is trusted: lifts the limits for strangers.
    pub(super) fn welcome(&self) {
        if !self.welcome.swap(true, Ordering::Relaxed) {
            self.give_back_place();
            self.connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
            self.connection.set_max_concurrent_bi_streams(VarInt::from_u32(MAX_STREAMS));
        }
    }

    /// Limits for strangers do not hold for the peer.
    pub(super) fn is_welcome(&self) -> bool {
        self.welcome.load(Ordering::Relaxed)
    }

    /// A stranger is about to be let in where anyone is: it moves from the places of those who have not said hello to
    /// those of `strangers`; `false` where they are taken.
    pub(super) fn tolerate(&self, strangers: &Arc<Places<IpAddr>>) -> bool {
        let mut held = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_welcome() || self.tolerated.load(Ordering::Relaxed) {
            return true;
        }
        let Some(place) = strangers.take(source(self.remote().ip())) else { return false };
        *held = Some(place);
        self.tolerated.store(true, Ordering::Relaxed);
        true
    }

    /// A stream is there and has not said hello.
    pub(super) fn begin_greeting(&self) {
        self.greeting.fetch_add(1, Ordering::SeqCst);
    }

    /// Its hello is answered. Closes the connection where nothing is admitted on it, nor about to be.
    pub(super) fn end_greeting(self: &Arc<Self>) {
        if self.greeting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.close_unless_admitted();
            self.let_go();
        }
    }

    /// A stream that the peer opened is used here until the guest is dropped.
    pub(super) fn guest(self: &Arc<Self>) -> Guest {
        self.guests.fetch_add(1, Ordering::SeqCst);
        Guest(Arc::clone(self))
    }

    /// Closes a stranger's connection on which nothing is open, once what was said last had its time to arrive: he
    /// may come back, and until then takes no memory.
    fn let_go(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_left_by_a_stranger() || self.leaving.swap(true, Ordering::SeqCst) {
            return;
        }
        let link = Arc::clone(self);
        runtime.spawn(async move {
            let _closed_by_the_peer = within(LINGER, link.connection.closed()).await;
            link.leaving.store(false, Ordering::SeqCst);
            if link.is_left_by_a_stranger() {
                link.connection.close(DONE_CODE, b"");
            }
        });
    }

    fn is_left_by_a_stranger(&self) -> bool {
        let is_empty = self.guests.load(Ordering::SeqCst) == 0 && self.greeting.load(Ordering::SeqCst) == 0;
        is_empty && !self.ours && !self.is_welcome()
    }

    /// Closes the connection where nothing has been admitted on it. One that this node opened stays: its own hello may
    /// be waiting for an answer there.
    pub(super) fn close_unless_admitted(&self) {
        if !self.ours && !self.admitted.load(Ordering::Relaxed) {
            self.connection.close(REFUSED_CODE, b"");
            self.give_back_place();
        }
    }

    fn give_back_place(&self) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Has others not wait for this connection until it has answered again.
    pub(super) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    fn is_usable(&self) -> bool {
        self.is_open() && !self.doubtful.load(Ordering::Relaxed)
    }

    fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Where the peer is, or the relay in front of it.
    pub(super) fn remote(&self) -> SocketAddr {
        match (self.direct(), self.relayed()) {
            (None, Some(relayed)) => relayed.over.at,
            (id, _) => self.remote_of(id.unwrap_or(PathId::ZERO)),
        }
    }

    fn remote_of(&self, id: PathId) -> SocketAddr {
        let remote = self.connection.path(id).and_then(|path| path.remote_address().ok());
        let remote = remote.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
        SocketAddr::new(remote.ip().to_canonical(), remote.port())
    }

    /// How it goes now.
    pub(super) fn path(&self) -> PathInfo {
        let over = self.relayed().map(|relayed| relayed.over).filter(|_| self.direct().is_none());
        let used = self.used_path();
        PathInfo {
            transport: Transport::Quic,
            remote: over.map_or_else(|| self.remote_of(used), |over| over.at),
            direct: over.is_none(),
            relay: over.map(|over| over.relay),
            rtt: self.connection.rtt(used),
        }
    }

    /// Closes the connection where it was used for nothing.
    pub(super) fn close_unless_used(&self) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if used.is_some_and(|used| used.is_empty()) {
            self.connection.close(REFUSED_CODE, b"");
        }
    }

    /// Closes the connection where everything that it was used for needs a trust that is gone.
    pub(super) fn close_if_forsaken(&self, trusts: impl Fn(Opener, &Fingerprint, &Protocol) -> bool) {
        let Peer::Known(peer) = self.peer else { return };
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_trusted = |(opener, protocol): &(Opener, Protocol)| trusts(*opener, &peer, protocol);
        if used.is_some_and(|used| !used.is_empty() && !used.iter().any(is_trusted)) {
            self.connection.close(REFUSED_CODE, b"");
        }
    }
}

impl Links {
    /// Keeps `link` for its peer; `false` where there are too many already, or the peer has no name.
    pub(super) fn keep(&self, link: &Arc<Link>) -> bool {
        let Peer::Known(peer) = link.peer else { return false };
        let mut links = self.links();
        let of_peer = links.entry(peer).or_default();
        let room = of_peer.len() < MAX_LINKS_PER_PEER;
        if room {
            of_peer.push(Arc::clone(link));
        }
        room
    }

    pub(super) fn forget(&self, link: &Arc<Link>) {
        let Peer::Known(peer) = link.peer else { return };
        let mut links = self.links();
        if let Some(of_peer) = links.get_mut(&peer) {
            of_peer.retain(|one| !Arc::ptr_eq(one, link));
            if of_peer.is_empty() {
                links.remove(&peer);
            }
        }
    }

    /// The newest connection with `peer` that is open and answers as far as is known.
    pub(super) fn newest(&self, peer: &Fingerprint) -> Option<Arc<Link>> {
        self.links().get(peer)?.iter().rev().find(|link| link.is_usable()).cloned()
    }

    pub(super) fn paths(&self, peer: &Fingerprint) -> Vec<PathInfo> {
        let links = self.links().get(peer).cloned().unwrap_or_default();
        links.iter().filter(|link| link.is_open()).map(|link| link.path()).collect()
    }

    /// Closes every connection that is not trusted for anything that it was used for.
    pub(super) fn review(&self, trusts: impl Fn(Opener, &Fingerprint, &Protocol) -> bool) {
        let all: Vec<_> = self.links().values().flatten().cloned().collect();
        all.iter().for_each(|link| link.close_if_forsaken(&trusts));
    }

    fn links(&self) -> MutexGuard<'_, HashMap<Fingerprint, Vec<Arc<Link>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
