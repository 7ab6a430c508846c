//! The short way to an authenticated connection: make a key, announce, connect (SEP §3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_directory::client::{AnnounceError, Announcer, Clock, Directory, Freshness, SourceName};
use kith_identity::record::Draft;
use kith_identity::{Authority, Fingerprint, Identity, Ni};
use kith_sansio::Timestamp;

use crate::{
    Admission, BindError, ChangeSignal, Changes, Config, ConnectError, Discovery, Endpoint, Found, Incoming,
    ListenError, Protocol, Stream, Trust,
};

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Nothing can be announced with this identity.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
    /// The directory did not take the announce.
    #[error("{authority} did not take the announce: {why}")]
    NotTaken {
        /// The authority of the directory.
        authority: Authority,
        /// What was said.
        why: String,
    },
}

/// A node of a program that brings nothing but a key: it listens, stays announced to one authority, trusts whom it
/// is told to, and finds others through the directory of theirs.
///
/// What it knows is gone with the process. A program with a store of its own, with contacts or with more than one
/// authority, puts [`Endpoint`], [`Trust`] and [`Discovery`] together itself.
///
/// Dropping it closes all connections at once; [`close`](Node::close) takes the announce back first.
pub struct Node {
    endpoint: Endpoint,
    announcer: Announcer,
    known: Arc<Known>,
}

/// Whom this node knows, and whom of them it trusts.
#[derive(Default)]
struct Known {
    trusted: Mutex<HashMap<Fingerprint, Ni>>,
    /// Peers that are being connected to, and how often.
    wanted: Mutex<HashMap<Fingerprint, (Ni, usize)>>,
    signal: ChangeSignal,
}

/// Finds peers through the directories of their authorities.
struct Finder {
    known: Arc<Known>,
    directory: Directory,
}

impl Node {
    /// Listens as `config` says and announces where; it stays announced until it is closed or dropped. The directory
    /// holds the set when this returns.
    ///
    /// Timestamps go on after the set that the directory holds of an earlier run.
    pub async fn announce(
        identity: Arc<Identity>,
        authority: Authority,
        directory: Directory,
        config: Config,
    ) -> Result<Node, NodeError> {
        let known = Arc::new(Known::default());
        let finder = Arc::new(Finder { known: Arc::clone(&known), directory: directory.clone() });
        let trust: Arc<dyn Trust> = Arc::clone(&known) as Arc<dyn Trust>;
        let endpoint = Endpoint::bind(Arc::clone(&identity), trust, finder, config).await?;
        let own = Ni::new(identity.fingerprint(), Some(authority.clone()));
        let last = directory.discover_via(&own, SourceName::Https).await;
        let last = last.map_or(Timestamp(0), |held| held.set.timestamp());
        let clock = Clock::new(last, |_| Ok(()));
        let announcer = Announcer::start(directory, identity, vec![authority.clone()], clock)?;
        let node = Node { endpoint, announcer, known };
        node.refresh();
        node.announcer.settled().await;
        match node.announcer.statuses().into_iter().find_map(|status| status.error) {
            Some(why) => Err(NodeError::NotTaken { authority, why }),
            None => Ok(node),
        }
    }

    /// Looks where this machine can be reached now, and announces it where that has changed.
    pub fn refresh(&self) {
        self.announcer.update(Draft { addresses: self.endpoint.advertised_addresses(), ..Draft::default() });
    }

    /// Lets `peer` in where a protocol admits contacts.
    pub fn trust(&self, peer: Ni) {
        self.known.trusted().insert(peer.fingerprint, peer);
        self.known.signal.raise();
    }

    /// Lets it in no more, and cuts its connections.
    pub fn distrust(&self, peer: &Fingerprint) {
        self.known.trusted().remove(peer);
        self.known.signal.raise();
    }

    /// Opens a stream to `peer` for `protocol`, looking it up in its directory. Both keys are proved, and the peer
    /// has let this node in, when this returns.
    pub async fn connect(&self, peer: &Ni, protocol: &Protocol) -> Result<Stream, ConnectError> {
        let _wanted = Wanted::new(&self.known, peer);
        self.endpoint.connect(&peer.fingerprint, protocol).await
    }

    /// Streams that peers open for `protocol`: those that are trusted, or anyone.
    pub fn listen(&self, protocol: Protocol, admission: Admission) -> Result<Incoming, ListenError> {
        self.endpoint.listen(protocol, admission)
    }

    /// This node's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.endpoint.fingerprint()
    }

    /// The endpoint, for all that it can do beyond this.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Announces that it is not to be reached any more, and closes every connection.
    pub async fn close(self) {
        self.announcer.withdraw().await;
        self.endpoint.close().await;
    }
}

impl Known {
    fn trusted(&self) -> MutexGuard<'_, HashMap<Fingerprint, Ni>> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self) -> MutexGuard<'_, HashMap<Fingerprint, (Ni, usize)>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where `peer` is to be looked up.
    fn ni(&self, peer: &Fingerprint) -> Option<Ni> {
        let wanted = self.wanted().get(peer).map(|(ni, _)| ni.clone());
        wanted.or_else(|| self.trusted().get(peer).cloned())
    }
}

/// Keeps a peer findable while somebody connects to it.
struct Wanted<'a> {
    known: &'a Known,
    peer: Fingerprint,
}

impl<'a> Wanted<'a> {
    fn new(known: &'a Known, ni: &Ni) -> Wanted<'a> {
        let mut wanted = known.wanted();
        wanted.entry(ni.fingerprint).or_insert_with(|| (ni.clone(), 0)).1 += 1;
        Wanted { known, peer: ni.fingerprint }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut wanted = self.known.wanted();
        if let Some((_, times)) = wanted.get_mut(&self.peer) {
            *times -= 1;
            if *times == 0 {
                wanted.remove(&self.peer);
            }
        }
    }
}

impl Trust for Known {
    fn trusts(&self, peer: &Fingerprint, _: &Protocol) -> bool {
        self.trusted().contains_key(peer)
    }

    fn knocked(&self, peer: &Fingerprint, _: SocketAddr) {
        tracing::debug!(%peer, "somebody who is not trusted wanted in");
    }

    fn changed(&self) -> Changes {
        self.signal.changes()
    }
}

impl Finder {
    async fn find(&self, ni: &Ni, found: Found) {
        if let Some(set) = self.directory.cached(&ni.fingerprint) {
            found.discovered(set.addresses()).await;
            found.relays(set.relays()).await;
        }
        // The peer may have moved since.
        match self.directory.discover(ni, Freshness::Refetch).await {
            Ok(fresh) => {
                found.discovered(fresh.set.addresses()).await;
                found.relays(fresh.set.relays()).await;
            }
            Err(error) => found.failed(error.to_string()),
        }
    }
}

impl Discovery for Finder {
    fn candidates<'a>(
        &'a self,
        target: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            match self.known.ni(&target) {
                Some(ni) => self.find(&ni, found).await,
                None => found.failed("its authority is not known"),
            }
        })
    }

    fn relay<'a>(&'a self, relay: Ni, found: Found) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move { self.find(&relay, found).await })
    }
}
