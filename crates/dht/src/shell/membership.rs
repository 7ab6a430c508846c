use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use kith_connect::Changes;
use kith_identity::Fingerprint;
use kith_identity::membership::{Block, Member, NodeId, VerifiedMember};
use kith_sansio::Timestamp;

use crate::contact::Contact;
use crate::gate::Gate;
use crate::message::{Card, Parcel};
use crate::value::Value;

/// What the shell asks of whoever knows who belongs to the network; the floors above decide. Asked with each message, so
/// it answers from memory.
pub trait Membership: Send + Sync + 'static {
    /// This node's certificate, the newest.
    fn own(&self) -> VerifiedMember;

    /// How many members the network has, as the newest epoch says.
    fn members(&self) -> u64;

    /// All members of a block, as the newest epoch proves; `None` where that proof is not at hand.
    fn roster(&self, block: &Block) -> Option<Vec<NodeId>>;

    /// The member that a certificate proves, where it is of this network, valid now and not revoked.
    fn verify(&self, certificate: Member, now: Timestamp) -> Option<VerifiedMember>;

    /// Whether this peer has shown its certificate here, and so has this node there, unless it has started anew since.
    fn is_known(&self, peer: &Fingerprint) -> bool;

    /// Shows this node's certificate to a peer that did not take it for a member; whether it may do so now.
    fn introduce<'a>(&'a self, peer: &'a Fingerprint) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

    /// Reports every later change of what the others answer.
    fn changed(&self) -> Changes;
}

/// The gate that a [`Membership`] keeps.
#[derive(Clone)]
pub(super) struct Doorkeeper(pub(super) Arc<dyn Membership>);

impl Gate for Doorkeeper {
    fn contact(&mut self, card: &Card, now: Timestamp) -> Option<Contact> {
        let certificate = Member::from_bytes(&card.certificate).ok()?;
        self.0.verify(certificate, now).map(|member| Contact::of(&member, card.address))
    }

    fn value(&mut self, parcel: &Parcel, now: Timestamp) -> Option<Value> {
        Value::from_parcel(parcel, now)
    }
}
