//! What the DHT asks of the membership of this node.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use kith_connect::membership::show;
use kith_connect::{Changes, Endpoint, Trust as _};
use kith_dht::shell::Membership;
use kith_identity::Fingerprint;
use kith_identity::membership::tree::{Range, TreeError};
use kith_identity::membership::{Block, Member, MemberLeaf, NodeId, VerifiedEpoch, VerifiedMember};
use kith_sansio::Timestamp;

use crate::node::Node;
use crate::node::contacts::Book;

/// Members of a block, as an epoch proves.
#[derive(Debug)]
pub(in crate::node) struct Roster {
    pub(in crate::node) epoch: VerifiedEpoch,
    pub(in crate::node) range: Range<MemberLeaf>,
    members: Vec<NodeId>,
}

impl Roster {
    /// The members of a range that is checked against the epoch.
    pub(super) fn new(epoch: VerifiedEpoch, range: Range<MemberLeaf>) -> Result<Roster, TreeError> {
        let members = epoch.block(&range)?.iter().map(|leaf| leaf.id).collect();
        Ok(Roster { epoch, range, members })
    }
}

/// The membership of this node in one network.
pub(in crate::node) struct Pass {
    book: Arc<Book>,
    endpoint: Endpoint,
    network: Fingerprint,
    /// The certificate with which it began; where there is a newer one, that counts.
    first: VerifiedMember,
    roster: Mutex<Option<Arc<Roster>>>,
}

impl Pass {
    pub(super) fn new(node: &Node, network: Fingerprint, first: VerifiedMember) -> Pass {
        let (book, endpoint) = (Arc::clone(&node.book), node.endpoint.clone());
        Pass { book, endpoint, network, first, roster: Mutex::default() }
    }

    pub(super) fn set_roster(&self, roster: Roster) {
        *self.roster.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(roster));
        self.book.raise_change();
    }

    /// Who is in this node's region, as the newest epoch has proved last.
    pub(in crate::node) fn proved(&self) -> Option<Arc<Roster>> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the newest epoch has proved who is in this block.
    pub(super) fn has_roster(&self, block: &Block) -> bool {
        let epoch = self.book.network.membership.epoch_number();
        self.proved()
            .is_some_and(|roster| roster.range.block() == block && Some(roster.epoch.facts().epoch) == epoch)
    }
}

impl Membership for Pass {
    fn own(&self) -> VerifiedMember {
        let belongs = self.book.network.membership.belongs();
        belongs
            .filter(|(network, _)| *network == self.network)
            .map_or_else(|| self.first.clone(), |(_, own)| own)
    }

    fn members(&self) -> u64 {
        // The epoch may have begun before this node joined.
        self.book.network.membership.epoch_members().unwrap_or(1).max(1)
    }

    fn roster(&self, block: &Block) -> Option<Vec<NodeId>> {
        let roster = self.proved().filter(|roster| roster.range.block() == block);
        roster.map(|roster| roster.members.clone())
    }

    fn verify(&self, certificate: Member, _: Timestamp) -> Option<VerifiedMember> {
        if self.book.is_blocked(&certificate.claimed()) {
            return None;
        }
        let belongs = self.book.network.membership.belongs();
        belongs.filter(|(network, _)| *network == self.network)?;
        self.book.network.membership.verify(certificate)
    }

    fn is_known(&self, peer: &Fingerprint) -> bool {
        self.book.is_member(peer)
    }

    fn introduce<'a>(&'a self, peer: &'a Fingerprint) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move {
            let Some(own) = self.book.network.membership.certificate() else { return false };
            match show(&self.endpoint, peer, &own).await {
                Ok(theirs) => self.book.network.membership.meet(peer, theirs).is_some(),
                Err(error) => {
                    tracing::debug!(%error, "a member does not take the certificate");
                    false
                }
            }
        })
    }

    fn changed(&self) -> Changes {
        self.book.changed()
    }
}
