//! The server: HTTPS and DNS over one store, each on the addresses that it is given, or on none.

mod connections;
mod dns;
mod https;
mod metrics;
mod secondaries;
mod shared;
mod transfer;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kith_identity::tls::{Certificate, ServerCertificate, TlsError, directory_server};
use kith_identity::{Authority, Identity};
use kith_sansio::{Span, system};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::secondaries::Secondaries;
pub use self::secondaries::Secondary;
use self::shared::Shared;
pub use self::shared::{Counts, ServerHandle};
use self::udp::Port;
use crate::announce::{AllowList, Limits};
use crate::defaults;
use crate::dns::tsig::Key;
use crate::dns::{Zone, ZoneError};
use crate::limiter::Rate;
use crate::store::Store;

/// What a server is to do. Endpoints without addresses are switched off.
#[derive(Clone)]
pub struct ServerConfig {
    /// The zone. Its host is the zone's place in the DNS.
    pub authority: Authority,
    /// Where announces are taken and sets are given out over HTTPS.
    pub listen_https: Vec<SocketAddr>,
    /// Where the zone `0a.HOST` is served, over UDP and TCP on the same port.
    pub listen_dns: Vec<SocketAddr>,
    /// What HTTPS is served with.
    pub https_certificate: HttpsCertificate,
    /// How much one node may put in.
    pub limits: Limits,
    /// How often one fingerprint may announce.
    pub fingerprint_rate: Rate,
    /// How often one source network (/24, /48) may announce.
    pub network_rate: Rate,
    /// How often one source network (/24, /48) is answered over UDP, where anybody can ask in its name. Beyond that,
    /// every other query is sent to TCP by an answer no longer than itself, the rest get silence.
    pub dns_rate: Rate,
    /// Who may announce; everybody where this is empty.
    pub allow: Option<Arc<dyn AllowList>>,
    /// Whether the global unicast addresses of a set are given as A and AAAA records too.
    pub a_records: bool,
    /// The hosts that the zone is delegated to, the primary first; the authority's host where this is empty.
    pub name_servers: Vec<String>,
    /// Who may transfer the zone and is told when it changed.
    pub secondaries: Vec<Secondary>,
    /// The keys of the secondaries.
    pub tsig_keys: Vec<Arc<Key>>,
    /// Times and numbers of connections.
    pub connections: ConnectionLimits,
    /// Where metrics are given out over HTTP, in the text format of Prometheus; a loopback address.
    pub metrics: Option<SocketAddr>,
    /// Sockets that receive DNS over UDP on each address; one for each processor where this is empty.
    pub dns_sockets: Option<usize>,
}

/// What connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once, for HTTPS and for DNS over TCP each.
    pub most: usize,
    /// Connections at once from one source network (/24, /48).
    pub most_per_network: usize,
    /// Time for a TLS handshake.
    pub handshake: Span,
    /// Time for the head of a request, and for the pause between two requests.
    pub idle: Span,
    /// Time for the body of a request.
    pub body: Span,
    /// Longest life of a connection.
    pub life: Span,
}

/// What HTTPS is served with.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum HttpsCertificate {
    /// The directory's own identity, self-signed; clients pin its fingerprint.
    #[default]
    Own,
    /// The contents of PEM files.
    Pem {
        /// The certificates, the server's own first.
        chain: Vec<u8>,
        /// Its private key.
        key: Vec<u8>,
    },
}

impl ServerConfig {
    /// A server of `authority` that listens nowhere yet.
    #[must_use]
    pub fn new(authority: Authority) -> ServerConfig {
        ServerConfig {
            authority,
            listen_https: Vec::new(),
            listen_dns: Vec::new(),
            https_certificate: HttpsCertificate::Own,
            limits: Limits::default(),
            fingerprint_rate: Rate { burst: 20, refill: Span::secs(5) },
            network_rate: Rate { burst: 500, refill: Span::millis(20) },
            dns_rate: Rate { burst: 500, refill: Span::millis(5) },
            allow: None,
            a_records: false,
            name_servers: Vec::new(),
            secondaries: Vec::new(),
            tsig_keys: Vec::new(),
            connections: ConnectionLimits::default(),
            metrics: None,
            dns_sockets: None,
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            most: defaults::MAX_CONNECTIONS,
            most_per_network: defaults::MAX_CONNECTIONS_PER_NETWORK,
            handshake: defaults::HANDSHAKE,
            idle: defaults::IDLE,
            body: defaults::BODY,
            life: defaults::CONNECTION_LIFE,
        }
    }
}

/// Why a server cannot start, or not take another certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Metrics are for this machine alone.
    #[error("metrics cannot be given out on {0}, which is no loopback address")]
    PublicMetrics(SocketAddr),
    /// The authority can have no DNS zone.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// A secondary is to sign with a key that is not there.
    #[error("the secondary {secondary} has the key '{key}', and there is no such key")]
    UnknownKey {
        /// The secondary.
        secondary: SocketAddr,
        /// The name of its key.
        key: String,
    },
    /// Two keys have one name, which is all that a request says of its key.
    #[error("there are two keys with the name '{0}'")]
    KeyTwice(String),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
}

/// A directory that listens and does not answer yet.
pub struct Server {
    shared: Arc<Shared>,
    https: Vec<TcpListener>,
    dns: Vec<(Vec<Port>, TcpListener)>,
    metrics: Option<TcpListener>,
}

impl Server {
    /// Listens where `config` says. `identity` is the directory's own.
    pub async fn bind(
        config: ServerConfig,
        store: Arc<dyn Store>,
        identity: &Identity,
    ) -> Result<Server, ServerError> {
        let own = Certificate::self_signed(identity)?;
        let tls = tls_config(&config.https_certificate, &own)?;
        let zone = if config.listen_dns.is_empty() { None } else { Some(zone_of(&config)?) };
        let secondaries = Secondaries::of(&config)?;
        let mut https = Vec::new();
        for address in &config.listen_https {
            https.push(listen(*address).await?);
        }
        let sockets = config.dns_sockets.unwrap_or_else(processors).clamp(1, MAX_SOCKETS);
        let mut dns = Vec::new();
        for address in &config.listen_dns {
            dns.push(listen_twice(*address, sockets).await?);
        }
        let metrics = match config.metrics {
            None => None,
            Some(address) if !address.ip().is_loopback() => return Err(ServerError::PublicMetrics(address)),
            Some(address) => Some(listen(address).await?),
        };
        let shared = Arc::new(Shared::new(config, store, own, tls, zone, secondaries));
        if let Some(zone) = &shared.zone {
            secondaries::check(&shared, zone).await;
        }
        Ok(Server { shared, https, dns, metrics })
    }

    /// Where HTTPS is served, ports resolved.
    pub fn https_addresses(&self) -> Vec<SocketAddr> {
        self.https.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Where DNS is served, ports resolved.
    pub fn dns_addresses(&self) -> Vec<SocketAddr> {
        self.dns.iter().filter_map(|(ports, _)| ports.first()?.local_addr().ok()).collect()
    }

    /// Where metrics are given out, port resolved.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }

    /// A handle for the time while the server runs.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(Arc::clone(&self.shared))
    }

    /// Serves until `shutdown` is ready, then lets requests under way finish, for a few seconds at most.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        // Who drops this future ends the server as well.
        let _ending = stop.clone().drop_guard();
        for listener in self.https {
            tasks.spawn(https::serve(Arc::clone(&self.shared), listener, stop.clone(), tasks.clone()));
        }
        for (ports, listener) in self.dns {
            dns::spawn(&self.shared, ports, listener, &stop, &tasks);
        }
        if let Some(listener) = self.metrics {
            tasks.spawn(metrics::serve(Arc::clone(&self.shared), listener, stop.clone(), tasks.clone()));
        }
        secondaries::spawn(&self.shared, &stop, &tasks);
        tasks.spawn(sweep(Arc::clone(&self.shared), stop.clone()));
        tasks.close();
        shutdown.await;
        stop.cancel();
        if tokio::time::timeout(defaults::SHUTDOWN.into(), tasks.wait()).await.is_err() {
            tracing::debug!("connections were cut off at shutdown");
        }
    }
}

fn tls_config(
    certificate: &HttpsCertificate,
    own: &Certificate,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let certificate = match certificate {
        HttpsCertificate::Own => ServerCertificate::Own(own),
        HttpsCertificate::Pem { chain, key } => ServerCertificate::Pem { chain, key },
    };
    directory_server(certificate).map(Arc::new)
}

fn zone_of(config: &ServerConfig) -> Result<Zone, ZoneError> {
    let zone = Zone::new(&config.authority)?.with_addresses(config.a_records);
    zone.with_name_servers(&config.name_servers)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|error| ServerError::Listen { address, error })
}

/// How often a free port is looked for that is free for UDP and for TCP.
const PORT_TRIES: usize = 16;

/// Most sockets that receive DNS on one address.
const MAX_SOCKETS: usize = 64;

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

async fn listen_twice(address: SocketAddr, sockets: usize) -> Result<(Vec<Port>, TcpListener), ServerError> {
    let wrong = |error| ServerError::Listen { address, error };
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        // TCP first: it tells whether another program has the port, which sockets that share one would not.
        let listener = listen(address).await?;
        let taken = listener.local_addr().map_err(wrong)?;
        tries -= 1;
        match Port::bind(taken, sockets) {
            Ok(ports) => return Ok((ports, listener)),
            Err(error) if tries == 0 => return Err(wrong(error)),
            Err(_) => {}
        }
    }
}

/// Sweeps expired sets out of the store.
async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let due = system::instant(system::time() + defaults::SWEEP);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(due.into()) => {}
        }
        loop {
            match shared.store.expire(system::utc(), defaults::SWEEP_ROWS).await {
                Ok(removed) if removed >= defaults::SWEEP_ROWS => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(%error, "expired sets cannot be removed from the store");
                    break;
                }
            }
        }
    }
}
