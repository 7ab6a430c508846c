use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use kith_connect::Changes;
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_identity::membership::pledge::VerifiedEvidence;

use crate::hardened::View;

/// A future that a [`Ground`] gives.
type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A member and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its place.
    pub id: NodeId,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

/// What the shell stands on: who belongs to the network, where its members are, and a place on the disk. The floors
/// above bring it.
pub trait Ground: Send + Sync + 'static {
    /// The newest epoch with the proven region of this member; `None` while it is not at hand.
    fn view(&self) -> Option<Arc<View>>;

    /// Reports that [`Ground::view`] may answer something else.
    fn changed(&self) -> Changes;

    /// The living members nearest to a place outside of this member's region, nearest first.
    fn nearest<'a>(&'a self, place: &'a NodeId) -> Later<'a, Vec<Neighbour>>;

    /// Sees to it that the endpoint finds the way to a member, where that can be told beforehand, as long as what this
    /// gives is there.
    fn prepare<'a>(&'a self, member: &'a Neighbour) -> Later<'a, Box<dyn Send>>;

    /// Shows this node's certificate to a peer that did not take it for a member; whether it may do so now.
    fn introduce<'a>(&'a self, peer: &'a Fingerprint) -> Later<'a, bool>;

    /// The bytes that were kept last; `None` where none ever were. Runs where waiting is allowed.
    fn recall(&self) -> io::Result<Option<Vec<u8>>>;

    /// Keeps the bytes of the book; they are durable when this returns. Runs where waiting is allowed.
    fn keep(&self, book: &[u8]) -> io::Result<()>;

    /// A member has broken a pledge; the issuer is to be told, and nobody listens to that member any more.
    fn accuse(&self, evidence: VerifiedEvidence);
}
