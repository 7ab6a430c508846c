use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;

use kith_identity::{Address, Fingerprint, Ni, Relay};
use tokio::sync::{mpsc, watch};

use crate::Protocol;
use crate::address::Origin;
use crate::delegator::Opener;
use crate::dialer::Candidate;

/// Most candidates that wait for the race to take them.
const FOUND_QUEUE: usize = 64;

/// Whom this node trusts; the floors above decide.
pub trait Trust: Send + Sync + 'static {
    /// Whether `peer` may open streams of `protocol` here. Asked on every connection, so it answers from memory.
    fn trusts(&self, peer: &Fingerprint, protocol: &Protocol) -> bool;

    /// Whether streams of `protocol` that this node opened to `peer` may go on; as in the other direction where nothing
    /// else is said. A stream to somebody who is trusted so neither when it is wished for nor when it opens needs no trust
    /// later; one whose trust is withdrawn in between does not open.
    fn reaches(&self, peer: &Fingerprint, protocol: &Protocol) -> bool {
        self.trusts(peer, protocol)
    }

    /// Whether `peer` may open streams of the protocols that admit [`Members`](crate::Admission::Members): it has shown
    /// a certificate of this node's network that is still valid, and is not revoked. Asked on every connection, so it
    /// answers from memory. Nobody is where nothing else is said.
    ///
    /// Streams that this node opened to a member by a protocol that it listens for in this way end with the membership,
    /// too. A stream to somebody who is not known as a member here may be one to a member: it goes on as long as the peer
    /// lets it.
    fn is_member(&self, _peer: &Fingerprint) -> bool {
        false
    }

    /// A peer proved to be `peer`, wanted in from `from` and was not trusted. Told once per hour and fingerprint.
    fn knocked(&self, peer: &Fingerprint, from: SocketAddr);

    /// Reports every later change of what [`trusts`](Trust::trusts), [`reaches`](Trust::reaches) and
    /// [`is_member`](Trust::is_member) answer, so that open connections can be cut.
    fn changed(&self) -> Changes;
}

impl dyn Trust {
    /// Whether streams of `protocol` with `peer` may be opened by that side, or go on.
    pub(crate) fn permits(&self, opener: Opener, peer: &Fingerprint, protocol: &Protocol) -> bool {
        match opener {
            Opener::Peer => self.trusts(peer, protocol),
            Opener::Own => self.reaches(peer, protocol),
        }
    }
}

/// Says that trust has changed. Cheap to clone; every [`Changes`] made from it hears.
#[derive(Clone, Debug)]
pub struct ChangeSignal(watch::Sender<u64>);

/// Hears a [`ChangeSignal`].
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<u64>);

impl ChangeSignal {
    /// A signal that nobody hears yet.
    pub fn new() -> ChangeSignal {
        ChangeSignal(watch::Sender::new(0))
    }

    /// Tells everybody that trust has changed.
    pub fn raise(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Hears changes from now on.
    pub fn changes(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

impl Default for ChangeSignal {
    fn default() -> Self {
        ChangeSignal::new()
    }
}

impl Changes {
    /// Waits for the next change; `false` when there can be none any more.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Finds out where a peer may be; the floors above know how (hints, caches, directories, the local network).
pub trait Discovery: Send + Sync + 'static {
    /// Tells `found` of every address of `target` as it becomes known, what is at hand first. The end of the
    /// future means that there will be no more; it is dropped as soon as the peer is reached.
    fn candidates<'a>(
        &'a self,
        target: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

    /// As [`candidates`](Discovery::candidates), for a relay that a verified set or this node's owner names. It may be
    /// nobody whom this node knows otherwise: its name says where to look.
    fn relay<'a>(&'a self, relay: Ni, found: Found) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.candidates(relay.fingerprint, found)
    }
}

/// Takes what a [`Discovery`] finds.
#[derive(Debug)]
pub struct Found {
    finds: mpsc::Sender<Find>,
    reasons: std::sync::Arc<Mutex<Vec<String>>>,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Find {
    Candidates(Vec<Candidate>),
    Relays(Vec<Relay>),
}

/// The race's side of [`Found`].
#[derive(Debug)]
pub(crate) struct Finds {
    finds: mpsc::Receiver<Find>,
    reasons: std::sync::Arc<Mutex<Vec<String>>>,
}

impl Found {
    pub(crate) fn channel() -> (Found, Finds) {
        let (sender, finds) = mpsc::channel(FOUND_QUEUE);
        let reasons = std::sync::Arc::default();
        (Found { finds: sender, reasons: std::sync::Arc::clone(&reasons) }, Finds { finds, reasons })
    }

    /// Addresses that a person gave for this peer.
    pub async fn hints(&self, addresses: impl IntoIterator<Item = Address>) {
        self.all(addresses, Origin::Hint).await;
    }

    /// Addresses from the peer's verified record set, or from the local network.
    pub async fn discovered(&self, addresses: impl IntoIterator<Item = Address>) {
        self.all(addresses, Origin::Discovered).await;
    }

    /// The relays that the peer's verified record set names, while it is valid.
    pub async fn relays(&self, relays: impl IntoIterator<Item = Relay>) {
        let relays: Vec<_> = relays.into_iter().collect();
        if !relays.is_empty() {
            // As with addresses.
            let _ = self.finds.send(Find::Relays(relays)).await;
        }
    }

    /// A source failed; told to whoever asked where no address is found at all.
    pub fn failed(&self, reason: impl Into<String>) {
        if let Ok(mut reasons) = self.reasons.lock()
            && reasons.len() < FOUND_QUEUE
        {
            reasons.push(reason.into());
        }
    }

    async fn all(&self, addresses: impl IntoIterator<Item = Address>, origin: Origin) {
        let candidates: Vec<_> = addresses.into_iter().map(|address| Candidate { address, origin }).collect();
        if !candidates.is_empty() {
            // Nobody listens any more once the race is over.
            let _ = self.finds.send(Find::Candidates(candidates)).await;
        }
    }
}

impl Finds {
    /// What is found next; `None` when discovery has let go of its side.
    pub(crate) async fn next(&mut self) -> Option<Find> {
        self.finds.recv().await
    }

    /// Why sources failed.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.reasons.lock().map(|reasons| reasons.clone()).unwrap_or_default()
    }
}

/// A discovery that knows nobody: for nodes that are only reached, never reach out.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDiscovery;

impl Discovery for NoDiscovery {
    fn candidates<'a>(&'a self, _: Fingerprint, _: Found) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::ready(()))
    }
}
