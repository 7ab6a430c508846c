//! Ports of the router: sockets and timers around [`Mapper`].

mod http;
mod igd;
mod route;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use kith_identity::{Address, Transport};
use kith_sansio::Machine;
use kith_sansio::system::{self, OsRng};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};

use self::igd::Igd;
use crate::defaults::MAPPING_LOOK_EVERY;
use crate::mapping::{Input, Kind, Lease, Mapper, Output, Router, Wanted, pcp, upnp};

/// How ports are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingConfig {
    /// The router to ask; the system's way out where it is missing.
    pub router: Option<Router>,
    /// The router's port for PCP and NAT-PMP.
    pub port: u16,
    /// Where routers that speak UPnP are searched for.
    pub search: SocketAddrV4,
}

impl Default for MappingConfig {
    fn default() -> Self {
        MappingConfig { router: None, port: pcp::PORT, search: upnp::GROUP }
    }
}

/// Keeps ports of the router that lead to this node, in a task. When it is dropped the mappings end by themselves;
/// [`release`](PortMapping::release) gives them back at once.
#[derive(Debug)]
pub struct PortMapping {
    mapped: watch::Receiver<Vec<Address>>,
    router: watch::Receiver<Option<Router>>,
    end: mpsc::Sender<oneshot::Sender<()>>,
}

impl PortMapping {
    /// Starts to map a port for each of these listeners that others could reach over IPv4; must be called in a runtime.
    /// `None` where there is no such listener.
    #[must_use]
    pub fn start(listeners: &[Address], config: MappingConfig) -> Option<PortMapping> {
        let wanted: Vec<_> =
            listeners.iter().filter_map(|one| Some((wanted(one)?, one.socket.ip()))).collect();
        if wanted.is_empty() {
            return None;
        }
        let (told, mapped) = watch::channel(Vec::new());
        let (at, router) = watch::channel(None);
        let (end, ending) = mpsc::channel(1);
        let mapper = Mapper::new(wanted.iter().map(|(wanted, _)| *wanted), &mut OsRng);
        let ips = wanted.into_iter().map(|(_, ip)| ip).collect();
        tokio::spawn(
            Task {
                config,
                mapper,
                ips,
                told,
                at,
                wire: None,
                igd: Arc::default(),
                work: FuturesUnordered::new(),
                made: None,
            }
            .run(ending),
        );
        Some(PortMapping { mapped, router, end })
    }

    /// Where the world reaches this node through the router now.
    #[must_use]
    pub fn mapped(&self) -> Vec<Address> {
        self.mapped.borrow().clone()
    }

    /// The router that is asked; `None` where there is none.
    #[must_use]
    pub fn router(&self) -> Option<Ipv4Addr> {
        self.router.borrow().map(|router| router.gateway)
    }

    /// Hears each change of [`mapped`](PortMapping::mapped).
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Vec<Address>> {
        self.mapped.clone()
    }

    /// Gives all mappings back.
    pub async fn release(&self) {
        let (done, ended) = oneshot::channel();
        if self.end.send(done).await.is_ok() {
            let _ = ended.await;
        }
    }
}

/// What a listener needs of a router; nothing where nobody from outside could be meant.
fn wanted(listener: &Address) -> Option<Wanted> {
    let ip = listener.socket.ip().to_canonical();
    let kind = match listener.transport {
        Transport::Tcp => Kind::Tcp,
        Transport::Quic => Kind::Udp,
        Transport::Dtls => return None,
    };
    let reachable = ip.is_unspecified() || matches!(ip, IpAddr::V4(v4) if v4.is_private());
    reachable.then_some(Wanted { kind, port: listener.socket.port() })
}

/// What comes of work that takes its time.
enum Done {
    Mapped(Made),
    Removed,
}

/// What UPnP has made of a wish, and where.
struct Made {
    wish: u64,
    lease: Option<Lease>,
    kind: Kind,
    router: Option<Router>,
    igd: Arc<tokio::sync::Mutex<Igd>>,
}

struct Task {
    config: MappingConfig,
    mapper: Mapper,
    ips: Vec<IpAddr>,
    told: watch::Sender<Vec<Address>>,
    at: watch::Sender<Option<Router>>,
    wire: Option<Arc<UdpSocket>>,
    /// One conversation with the router at a time.
    igd: Arc<tokio::sync::Mutex<Igd>>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// The last of it.
    made: Option<Made>,
}

impl Task {
    async fn run(mut self, mut ending: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut look = tokio::time::interval(MAPPING_LOOK_EVERY.into());
        let mut room = vec![0; pcp::MAX_PACKET_BYTES + 1];
        loop {
            self.drain();
            let timer = super::due(self.mapper.poll_timeout());
            let wire = self.wire.clone();
            let receive = async {
                match &wire {
                    Some(wire) => wire.recv(&mut room).await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                received = receive => match received {
                    Ok(length) => Some(Input::Heard(room[..length].to_vec())),
                    // A router that does not listen says so; it is asked otherwise in time.
                    Err(_) => { tokio::time::sleep(std::time::Duration::from_millis(20)).await; None }
                },
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done),
                _ = look.tick() => self.look_around(),
                () = timer => None,
                end = ending.recv() => {
                    self.end(end).await;
                    return;
                }
            };
            let now = system::now();
            match input {
                Some(input) => self.mapper.handle_input(now, input, &mut OsRng),
                None => self.mapper.handle_timeout(now, &mut OsRng),
            }
        }
    }

    fn done(&mut self, done: Done) -> Option<Input> {
        let Done::Mapped(made) = done else { return None };
        let input = Input::Upnp { wish: made.wish, lease: made.lease };
        self.made = Some(made);
        Some(input)
    }

    /// Takes away what was mapped last, where it was mapped.
    fn give_back(&mut self, wish: u64) {
        let Some(Made { lease: Some(lease), kind, router: Some(router), igd, .. }) =
            self.made.take().filter(|made| made.wish == wish)
        else {
            return;
        };
        self.remove(router, igd, kind, lease.external.port());
    }

    fn remove(&self, router: Router, igd: Arc<tokio::sync::Mutex<Igd>>, kind: Kind, external: u16) {
        let search = self.config.search;
        self.work.push(Box::pin(async move {
            igd.lock().await.remove(router, search, kind, external).await;
            Done::Removed
        }));
    }

    /// Where the way out is now, where that has changed.
    fn look_around(&mut self) -> Option<Input> {
        let router = self.config.router.or_else(route::router);
        // A listener on one address is reached through the router of its own network alone.
        let router = router.filter(|router| {
            self.ips.iter().any(|ip| ip.is_unspecified() || ip.to_canonical() == IpAddr::V4(router.own))
        });
        if router == *self.at.borrow() && (router.is_none() || self.wire.is_some()) {
            return None;
        }
        self.wire = router.and_then(|router| connect(router, self.config.port).ok()).map(Arc::new);
        let router = router.filter(|_| self.wire.is_some());
        self.igd = Arc::default();
        self.at.send_replace(router);
        Some(Input::Router(router))
    }

    fn drain(&mut self) {
        while let Some(output) = self.mapper.poll_output() {
            let router = *self.at.borrow();
            match (output, router) {
                (Output::Send(packet), _) => {
                    if let Some(wire) = &self.wire {
                        // What is lost is sent again.
                        let _ = wire.try_send(&packet);
                    }
                }
                (Output::Upnp { wish, wanted, lease }, Some(router)) => {
                    let (igd, search) = (Arc::clone(&self.igd), self.config.search);
                    self.work.push(Box::pin(async move {
                        let lease = igd.lock().await.map(router, search, wanted, lease).await;
                        Done::Mapped(Made { wish, lease, kind: wanted.kind, router: Some(router), igd })
                    }));
                }
                (Output::UpnpRemove { kind, external }, Some(router)) => {
                    self.remove(router, Arc::clone(&self.igd), kind, external);
                }
                (Output::UpnpReturn { wish }, _) => self.give_back(wish),
                (Output::Upnp { wish, wanted, .. }, None) => {
                    let igd = Arc::clone(&self.igd);
                    let made = Made { wish, lease: None, kind: wanted.kind, router: None, igd };
                    self.work.push(Box::pin(async move { Done::Mapped(made) }));
                }
                (Output::UpnpRemove { .. }, None) => {}
                (Output::Changed, _) => {
                    self.told.send_replace(self.mapper.mapped());
                }
            }
        }
    }

    /// Gives back what is mapped, as far as the router takes it in a moment.
    async fn end(mut self, done: Option<oneshot::Sender<()>>) {
        // Dropped without a word: the mappings end by themselves.
        let Some(told) = done else { return };
        self.mapper.handle_input(system::now(), Input::Release, &mut OsRng);
        self.drain();
        // What is still being mapped is given back too.
        let removed = async {
            while let Some(done) = self.work.next().await {
                if let Some(input) = self.done(done) {
                    self.mapper.handle_input(system::now(), input, &mut OsRng);
                    self.drain();
                }
            }
        };
        let _ = super::within(crate::defaults::MAPPING_RELEASE, removed).await;
        let _ = told.send(());
    }
}

/// A socket that hears the router and nobody else.
fn connect(router: Router, port: u16) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((router.own, 0))?;
    socket.connect(SocketAddr::from((router.gateway, port)))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
