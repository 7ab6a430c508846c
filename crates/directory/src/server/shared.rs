use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kith_identity::Fingerprint;
use kith_identity::tls::Certificate;
use kith_sansio::{Span, Time, system};

use super::connections::Connections;
use super::metrics::Metrics;
use super::secondaries::Secondaries;
use super::{HttpsCertificate, ServerConfig, ServerError, tls_config};
use crate::announce::Refusal;
use crate::defaults::{self, LIMITER_ENTRIES};
use crate::dns::Zone;
use crate::limiter::{Limiter, Network};
use crate::store::{Store, StoreError};

/// What all tasks of a server share.
pub(super) struct Shared {
    pub(super) config: ServerConfig,
    pub(super) store: Arc<dyn Store>,
    pub(super) zone: Option<Zone>,
    pub(super) secondaries: Secondaries,
    pub(super) https_connections: Arc<Connections>,
    pub(super) dns_connections: Arc<Connections>,
    pub(super) metrics: Metrics,
    complained: Mutex<Option<Time>>,
    own: Certificate,
    tls: RwLock<Arc<rustls::ServerConfig>>,
    fingerprints: Mutex<Limiter<Fingerprint>>,
    networks: Mutex<Limiter<Network>>,
    askers: Mutex<Limiter<Network>>,
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
        secondaries: Secondaries,
    ) -> Shared {
        let limits = config.connections;
        Shared {
            fingerprints: Mutex::new(Limiter::new(config.fingerprint_rate, LIMITER_ENTRIES)),
            networks: Mutex::new(Limiter::new(config.network_rate, LIMITER_ENTRIES)),
            askers: Mutex::new(Limiter::new(config.dns_rate, LIMITER_ENTRIES)),
            https_connections: Connections::new(limits.most, limits.most_per_network),
            dns_connections: Connections::new(limits.most, limits.most_per_network),
            metrics: Metrics::new(),
            complained: Mutex::default(),
            tls: RwLock::new(tls),
            config,
            store,
            own,
            zone,
            secondaries,
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

    /// Says that the store failed: somebody must act. Anybody who asks can cause it, so it is said now and then.
    pub(super) fn store_failed(&self, error: &StoreError) {
        let now = system::time();
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|before| now >= before + defaults::COMPLAINTS) {
            *complained = Some(now);
            tracing::error!(%error, "the store failed");
        }
    }

    /// Takes one answer over UDP out of the allowance of a source; whether there was one.
    pub(super) fn spend_answer(&self, source: IpAddr) -> bool {
        if self.config.dns_rate.refill == Span::ZERO {
            return true;
        }
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        askers.take(system::time(), Network::of(source)).is_ok()
    }

    /// Takes one announce out of the allowance of a node.
    pub(super) fn spend_fingerprint(&self, fingerprint: Fingerprint) -> Result<(), Refusal> {
        let mut fingerprints = self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner);
        fingerprints.take(system::time(), fingerprint).map_err(|wait| Refusal::TooOften { wait })
    }
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
        let metrics = &self.shared.metrics;
        let (announces_taken, announces_refused) = metrics.announces();
        Counts {
            announces_taken,
            announces_refused,
            https_lookups: metrics.https_lookups(),
            dns_queries: metrics.dns_queries(),
        }
    }
}
