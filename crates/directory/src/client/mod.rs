//! The client: discovers sets through its sources, remembers them, and announces.

mod announcing;
mod clock;
mod connect;
mod dns;
mod error;
mod https;
mod lan;
mod publish;
mod source;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_identity::tls::Certificate;
use kith_identity::{Authority, Fingerprint, Identity, Ni};
use kith_sansio::system::{self, OsRng};
use kith_sansio::{Machine, Span, Timestamp};
use rustls::RootCertStore;
use tokio::sync::Semaphore;

pub use self::announcing::{AnnounceStatus, Announcer};
pub use self::clock::{Clock, ClockError};
pub use self::dns::DnsSource;
pub use self::error::{AnnounceError, DiscoverError, ExchangeError, Failure, LookupError, OfferError};
pub use self::https::HttpsSource;
pub use self::lan::{Lan, LanConfig, Networks, Voice};
pub use self::source::{Source, SourceName};
pub use crate::replay::{MemoryReplay, ReplayMemory, Seen};
pub use crate::store::BoxFuture;

use self::https::Exchanger;
use self::publish::Published;
use crate::cache::{Cache, CacheRefusal};
use crate::defaults;
use crate::lookup::{Answer, Found, Input, Lookup, NotFound, Output, Pace, Rejection};
use crate::replay::Verdict;

/// How a client asks and announces.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Resolvers to ask over DNS; the system's when empty.
    pub resolvers: Vec<SocketAddr>,
    /// Directories that are trusted by their key and not by the Web PKI.
    pub pins: HashMap<Authority, Fingerprint>,
    /// Roots of the Web PKI, for all other directories.
    pub roots: Arc<RootCertStore>,
    /// Times of a lookup.
    pub pace: Pace,
    /// Time for one lookup over HTTPS, connecting included.
    pub https_timeout: Span,
    /// Time for one announce, connecting included.
    pub announce_timeout: Span,
    /// Time for one question to one resolver.
    pub dns_try: Span,
    /// Sets that are cached.
    pub cache_sets: usize,
    /// The local networks, where nodes on them are to be found; asked last, where nobody has answered yet.
    pub lan: Option<Lan>,
}

impl ClientConfig {
    /// Trusts the directory of `authority` by its key, as a zone without a public name needs it.
    #[must_use]
    pub fn pin(mut self, authority: Authority, key: Fingerprint) -> ClientConfig {
        self.pins.insert(authority, key);
        self
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        ClientConfig {
            resolvers: Vec::new(),
            pins: HashMap::new(),
            roots: Arc::new(roots),
            pace: Pace::default(),
            https_timeout: defaults::HTTPS,
            announce_timeout: defaults::HTTPS_ANNOUNCE,
            dns_try: defaults::DNS_TRY,
            cache_sets: defaults::CACHE_SETS,
            lan: None,
        }
    }
}

/// What may be served without asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Freshness {
    /// A valid set out of the cache, else the sources are asked.
    #[default]
    Valid,
    /// The sources are asked, whatever the cache holds.
    Refetch,
    /// Where the cache holds no valid set and no source gives one, the last set though it expired.
    StaleAllowed,
}

/// A set that was discovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// The set.
    pub set: VerifiedRecordSet,
    /// Where it came from.
    pub verified_by: SourceName,
    /// It expired, and was asked for all the same.
    pub stale: bool,
}

/// What a directory did with a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// 201: there was none.
    Created,
    /// 204: it took the place of another, or was there already.
    Replaced,
}

/// How a directory answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The status of its answer; 200 and 404 are those of a directory.
    pub status: u16,
    /// Its clock, where it says what it shows.
    pub date: Option<Timestamp>,
}

/// The client of all directories. A clone is the same client.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    sources: Vec<Arc<dyn Source>>,
    exchanger: Arc<Exchanger>,
    pace: Pace,
    announce_timeout: Span,
    memory: Arc<dyn ReplayMemory>,
    cache: Mutex<Cache>,
    running: Semaphore,
    published: Published,
}

impl Directory {
    /// A client that asks DNS and HTTPS, and the local networks where they are given, and whose memory ends with the process.
    ///
    /// A program that runs again and again keeps its [`ReplayMemory`] and uses [`new`](Directory::new).
    #[must_use]
    pub fn open(config: ClientConfig) -> Directory {
        Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()))
    }

    /// A client that asks `sources` first, then DNS, then HTTPS, then the local networks where it has any, each a
    /// moment after the one before.
    #[must_use]
    pub fn new(
        config: ClientConfig,
        sources: Vec<Arc<dyn Source>>,
        memory: Arc<dyn ReplayMemory>,
    ) -> Directory {
        Directory::asking(config, sources, Vec::new(), memory)
    }

    /// As [`new`](Directory::new), with other sources that are asked after all of these.
    #[must_use]
    pub fn asking(
        config: ClientConfig,
        mut sources: Vec<Arc<dyn Source>>,
        last: Vec<Arc<dyn Source>>,
        memory: Arc<dyn ReplayMemory>,
    ) -> Directory {
        let exchanger = Arc::new(Exchanger::new(config.roots, config.pins, config.https_timeout));
        sources.push(Arc::new(DnsSource::new(config.resolvers, config.dns_try)));
        sources.push(Arc::new(HttpsSource::over(Arc::clone(&exchanger))));
        if let Some(lan) = config.lan {
            sources.push(Arc::new(lan));
        }
        sources.extend(last);
        let inner = Inner {
            sources,
            exchanger,
            pace: config.pace,
            announce_timeout: config.announce_timeout,
            memory,
            cache: Mutex::new(Cache::new(config.cache_sets)),
            running: Semaphore::new(defaults::MAX_LOOKUPS),
            published: Published::default(),
        };
        Directory { inner: Arc::new(inner) }
    }

    /// The newest valid set of `ni` that can be had.
    pub async fn discover(&self, ni: &Ni, freshness: Freshness) -> Result<Discovered, DiscoverError> {
        if freshness != Freshness::Refetch
            && let Some(set) = self.cached(&ni.fingerprint)
        {
            return Ok(Discovered { set, verified_by: SourceName::Cache, stale: false });
        }
        let sources: Vec<_> = self.inner.sources.iter().filter(|source| source.serves(ni)).cloned().collect();
        let result = self.ask(ni, &sources).await;
        match (result, freshness) {
            (Err(error), Freshness::StaleAllowed) => self.last(&ni.fingerprint).ok_or(error),
            (result, _) => result,
        }
    }

    /// As [`discover`](Directory::discover) with [`Freshness::Refetch`], but from one kind of source only.
    pub async fn discover_via(&self, ni: &Ni, via: SourceName) -> Result<Discovered, DiscoverError> {
        if via == SourceName::Cache {
            let set = self.cached(&ni.fingerprint).ok_or(DiscoverError::NotFound(ni.fingerprint))?;
            return Ok(Discovered { set, verified_by: SourceName::Cache, stale: false });
        }
        let serves = |source: &&Arc<dyn Source>| source.name() == via && source.serves(ni);
        let sources: Vec<_> = self.inner.sources.iter().filter(serves).cloned().collect();
        self.ask(ni, &sources).await
    }

    /// Takes in a set that somebody gave us unasked, for instance a connected contact its own; the next
    /// [`discover`](Directory::discover) serves it out of the cache.
    pub fn offer(&self, set: RecordSet, fingerprint: &Fingerprint) -> Result<VerifiedRecordSet, OfferError> {
        let set = set.verify(fingerprint, system::utc()).map_err(OfferError::Invalid)?;
        self.remember(&set).map_err(OfferError::Refused)?;
        Ok(set)
    }

    /// Puts `set` into the directory of `authority`, once.
    pub async fn announce(
        &self,
        authority: &Authority,
        identity: &Identity,
        set: &VerifiedRecordSet,
    ) -> Result<Announced, AnnounceError> {
        let certificate = Certificate::self_signed(identity).map_err(AnnounceError::Certificate)?;
        self.announce_as(authority, &certificate, set).await
    }

    /// As [`announce`](Directory::announce), with a certificate that was made before.
    async fn announce_as(
        &self,
        authority: &Authority,
        certificate: &Certificate,
        set: &VerifiedRecordSet,
    ) -> Result<Announced, AnnounceError> {
        let inner = &self.inner;
        inner.exchanger.announce(authority, certificate, set, inner.announce_timeout).await
    }

    /// Asks the directory of `authority` for `who` and looks at nothing but how it answers.
    pub async fn probe(&self, authority: &Authority, who: Fingerprint) -> Result<Probe, ExchangeError> {
        self.inner.exchanger.probe(authority, who).await
    }

    /// The valid set of `fingerprint` in the cache.
    #[must_use]
    pub fn cached(&self, fingerprint: &Fingerprint) -> Option<VerifiedRecordSet> {
        self.cache().valid(fingerprint, system::utc()).cloned()
    }

    fn last(&self, fingerprint: &Fingerprint) -> Option<Discovered> {
        let set = self.cache().last(fingerprint)?.clone();
        let stale = !set.is_valid_at(system::utc());
        Some(Discovered { set, verified_by: SourceName::Cache, stale })
    }

    async fn ask(&self, ni: &Ni, sources: &[Arc<dyn Source>]) -> Result<Discovered, DiscoverError> {
        if sources.is_empty() {
            return Err(DiscoverError::NothingToAsk(ni.clone()));
        }
        // The semaphore is never closed; were it, there would just be no limit.
        let _turn = self.inner.running.acquire().await.ok();
        let seen = self.inner.memory.highest(&ni.fingerprint);
        let mut failures = Vec::new();
        match run(ni, sources, seen, self.inner.pace, &mut failures).await {
            Ok(Found { source, set }) => self.accept(set, sources[source].name()),
            Err(NotFound::Refused { source, why }) => self.instead(ni, sources[source].name(), why),
            Err(NotFound::Nothing) => Err(DiscoverError::NotFound(ni.fingerprint)),
            Err(NotFound::NoAnswer) => Err(DiscoverError::NoAnswer { ni: ni.clone(), failures }),
        }
    }

    /// What a lookup found may have been overtaken by a newer set meanwhile; then that one is the answer.
    fn accept(&self, set: VerifiedRecordSet, source: SourceName) -> Result<Discovered, DiscoverError> {
        let ni = Ni::new(set.fingerprint(), None);
        match self.remember(&set) {
            Ok(_) => Ok(Discovered { set, verified_by: source, stale: false }),
            Err(CacheRefusal::Older) => self.instead(&ni, source, Rejection::Older),
            Err(CacheRefusal::Different) => self.instead(&ni, source, Rejection::Different),
            Err(CacheRefusal::NotValid) => Err(DiscoverError::NotFound(ni.fingerprint)),
        }
    }

    /// A source that only lags behind what we know is no reason to know nothing.
    fn instead(&self, ni: &Ni, source: SourceName, why: Rejection) -> Result<Discovered, DiscoverError> {
        match self.cached(&ni.fingerprint) {
            Some(set) if why == Rejection::Older => {
                Ok(Discovered { set, verified_by: SourceName::Cache, stale: false })
            }
            _ => Err(DiscoverError::Refused { fingerprint: ni.fingerprint, from: source, why }),
        }
    }

    fn remember(&self, set: &VerifiedRecordSet) -> Result<(), CacheRefusal> {
        let fingerprint = set.fingerprint();
        let mut cache = self.cache();
        let seen = self.inner.memory.highest(&fingerprint);
        if cache.offer(system::utc(), set, seen)? == Verdict::Newer {
            self.inner.memory.remember(&fingerprint, Seen::of(set));
        }
        Ok(())
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drives one lookup to its end; what is still under way then is dropped.
async fn run(
    ni: &Ni,
    sources: &[Arc<dyn Source>],
    seen: Option<Seen>,
    pace: Pace,
    failures: &mut Vec<Failure>,
) -> Result<Found, NotFound> {
    let mut lookup = Lookup::new(system::now(), ni.fingerprint, sources.len(), seen, pace);
    let mut asked = FuturesUnordered::new();
    loop {
        while let Some(output) = lookup.poll_output() {
            match output {
                Output::Ask(at) => asked.push(async move { (at, sources[at].lookup(ni.clone()).await) }),
                Output::Finished(result) => return result,
            }
        }
        let wake = system::instant(lookup.poll_timeout().unwrap_or_default());
        tokio::select! {
            Some((source, said)) = asked.next() => {
                let answer = answer_of(said, sources[source].name(), failures);
                lookup.handle_input(system::now(), Input { source, answer }, &mut OsRng);
            }
            () = tokio::time::sleep_until(wake.into()) => lookup.handle_timeout(system::now(), &mut OsRng),
        }
    }
}

fn answer_of(
    said: Result<Option<RecordSet>, LookupError>,
    source: SourceName,
    failures: &mut Vec<Failure>,
) -> Answer {
    match said {
        Ok(Some(set)) => Answer::Set(set),
        Ok(None) => Answer::Nothing,
        Err(why) => {
            tracing::debug!(%source, error = %why, "a source failed");
            failures.push(Failure { source, why });
            Answer::Failed
        }
    }
}
