use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kith_identity::Fingerprint;
use kith_identity::tls::Certificate;
use kith_sansio::system;

use super::connections::Connections;
use super::{HttpsCertificate, ServerConfig, ServerError, tls_config};
use crate::announce::Refusal;
use crate::defaults::LIMITER_ENTRIES;
use crate::dns::Zone;
use crate::limiter::{Limiter, Network};
use crate::store::Store;

/// What all tasks of a server share.
pub(super) struct Shared {
    pub(super) config: ServerConfig,
    pub(super) store: Arc<dyn Store>,
    pub(super) zone: Option<Zone>,
    pub(super) https_connections: Arc<Connections>,
    pub(super) dns_connections: Arc<Connections>,
    pub(super) counters: Counters,
    own: Certificate,
    tls: RwLock<Arc<rustls::ServerConfig>>,
    fingerprints: Mutex<Limiter<Fingerprint>>,
    networks: Mutex<Limiter<Network>>,
    askers: Mutex<Limiter<Network>>,
}

/// What a server did since it started.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) taken: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) https_lookups: AtomicU64,
    pub(super) dns_queries: AtomicU64,
}

/// What a server did since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Announces that were taken.
    pub announces_taken: u64,
    /// Announces that were refused.
    pub announces_refused: u64,
    /// Lookups over HTTPS.
    pub https_lookups: u64,
    /// Queries over DNS, whatever the answer.
    pub dns_queries: u64,
}

impl Shared {
    pub(super) fn new(
        config: ServerConfig,
        store: Arc<dyn Store>,
        own: Certificate,
        tls: Arc<rustls::ServerConfig>,
        zone: Option<Zone>,
    ) -> Shared {
        let limits = config.connections;
        Shared {
            fingerprints: Mutex::new(Limiter::new(config.fingerprint_rate, LIMITER_ENTRIES)),
            networks: Mutex::new(Limiter::new(config.network_rate, LIMITER_ENTRIES)),
            askers: Mutex::new(Limiter::new(config.dns_rate, LIMITER_ENTRIES)),
            https_connections: Connections::new(limits.most, limits.most_per_network),
            dns_connections: Connections::new(limits.most, limits.most_per_network),
            counters: Counters::default(),
            tls: RwLock::new(tls),
            config,
            store,
            own,
            zone,
        }
    }

    /// The TLS configuration of the next connection.
    pub(super) fn tls(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.tls.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes one announce out of the allowance of a source.
    pub(super) fn spend_network(&self, source: IpAddr) -> Result<(), Refusal> {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        networks.take(system::time(), Network::of(source)).map_err(|wait| Refusal::TooOften { wait })
    }

    /// Takes one answer over UDP out of the allowance of a source; whether there was one.
    pub(super) fn spend_answer(&self, source: IpAddr) -> bool {
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        askers.take(system::time(), Network::of(source)).is_ok()
    }

    /// Takes one announce out of the allowance of a node.
    pub(super) fn spend_fingerprint(&self, fingerprint: Fingerprint) -> Result<(), Refusal> {
        let mut fingerprints = self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner);
        fingerprints.take(system::time(), fingerprint).map_err(|wait| Refusal::TooOften { wait })
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Holds on to a server that runs.
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

impl ServerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        ServerHandle { shared }
    }

    /// Serves new connections with another certificate; those that are open keep theirs. On an error the old one
    /// stays in use.
    pub fn reload_certificate(&self, certificate: &HttpsCertificate) -> Result<(), ServerError> {
        let config = tls_config(certificate, &self.shared.own)?;
        *self.shared.tls.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What the server did since it started.
    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            announces_taken: of(&counters.taken),
            announces_refused: of(&counters.refused),
            https_lookups: of(&counters.https_lookups),
            dns_queries: of(&counters.dns_queries),
        }
    }
}
