//! Draws that stalled: all witnesses accepted, and one did not reveal. It owes its output, and whoever is asked to leave
//! it out of a later group asks for that output first.

use kith_identity::membership::NodeId;
use kith_identity::vrf::Proof;

use super::draw::claims;
use super::list::place;
use super::{Draw, DrawShare, Order, Proposal, Refusal, Suite, Ticket, View};
use crate::gather::Gather;
use crate::scheme::Signature;

/// The most stalled draws that a reminder carries.
pub const MAX_STALLED: usize = 8;

/// A draw that all of its witnesses have accepted, so that each owes its output. **Not verified**.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// What they accepted.
    pub proposal: Proposal,
    /// Their signatures, in the order of the group.
    pub signatures: Vec<Signature>,
}

/// A proposal whose group leaves out who owes an output of an earlier draw. **Not verified**.
///
/// The trigger has it signed by the witnesses; each of them first passes it as it is to those who owe, who answer with
/// what they owe. The trigger's signature under a group that leaves them out is what allows them to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reminder {
    /// What is to be signed.
    pub proposal: Proposal,
    /// The draws, whose numbers rise.
    pub stalled: Vec<Stalled>,
}

impl Stalled {
    fn holds(&self, id: &NodeId) -> bool {
        self.proposal.group.members.iter().any(|member| member.id == *id)
    }

    /// Makes sure that this is an earlier draw of `ticket`'s trigger, and that all of its witnesses accepted it. Two
    /// members of one region find the same.
    fn check(&self, ticket: &Ticket, view: &View, suite: &mut impl Suite) -> Result<(), Refusal> {
        let Proposal { ticket: own, trigger, signature, group } = &self.proposal;
        let trigger = view.epoch().member(trigger).map_err(|_| Refusal::Signer)?;
        let is_earlier = own.sequence < ticket.sequence
            && (own.network, own.epoch, own.trigger) == (ticket.network, ticket.epoch, ticket.trigger);
        if !is_earlier || trigger.id != own.trigger || self.signatures.len() != group.members.len() {
            return Err(Refusal::Signer);
        }
        view.check_witnesses(own, group)?;
        let pledge = own.pledge(group);
        let signers = std::iter::once(trigger).chain(&group.members);
        let signatures = std::iter::once(signature).chain(&self.signatures);
        if suite.verify(&claims(signers, &pledge, signatures)) { Ok(()) } else { Err(Refusal::Signer) }
    }
}

impl Reminder {
    /// Whether this member is one of those that the proposal leaves out.
    pub fn leaves_out(&self, id: &NodeId) -> bool {
        self.proposal.group.skipped.contains(id)
    }

    /// Who is left out and owes an output.
    pub(super) fn debtors(&self) -> Vec<NodeId> {
        let skipped = self.proposal.group.skipped.iter();
        skipped.filter(|id| self.owed(id).is_some()).copied().collect()
    }

    /// The draw whose output a member owes: the last one that it accepted.
    fn owed(&self, id: &NodeId) -> Option<&Stalled> {
        self.stalled.iter().rfind(|draw| draw.holds(id))
    }

    /// Makes sure of all draws.
    pub(super) fn check(&self, view: &View, suite: &mut impl Suite) -> Result<(), Refusal> {
        if !self.stalled.is_sorted_by(|a, b| a.proposal.ticket.sequence < b.proposal.ticket.sequence) {
            return Err(Refusal::Signer);
        }
        self.stalled.iter().try_for_each(|draw| draw.check(&self.proposal.ticket, view, suite))
    }

    /// Whether a member that was reminded has given what it owes. Nothing else counts as an answer.
    pub(super) fn is_paid(&self, from: &NodeId, proof: &Proof, suite: &mut impl Suite) -> bool {
        let Some(draw) = self.owed(from) else { return false };
        reveals(&draw.proposal, from, proof, suite)
    }

    /// What this member owes, whoever passes the reminder to it. It depends on nothing that the member remembers: its
    /// own signature is in the draw.
    pub fn answer(&self, me: &NodeId, view: &View, suite: &mut impl Suite) -> Result<Proof, Refusal> {
        self.proposal.ticket.check(view.epoch())?;
        self.proposal.signer(view.epoch(), suite)?;
        let owed = self.owed(me).filter(|_| self.leaves_out(me)).ok_or(Refusal::Signer)?;
        owed.check(&self.proposal.ticket, view, suite)?;
        Ok(suite.prove(&owed.proposal.ticket.input()))
    }
}

/// Whether this is the proof of a witness's output.
fn reveals(proposal: &Proposal, from: &NodeId, proof: &Proof, suite: &mut impl Suite) -> bool {
    let witness = proposal.group.members.iter().find(|witness| witness.id == *from);
    witness.is_some_and(|witness| suite.output(&witness.vrf, &proposal.ticket.input(), proof).is_some())
}

/// T's own draw that all have accepted, and those outputs that came.
#[derive(Clone, Debug)]
pub struct Unfinished {
    draw: Stalled,
    proofs: Gather<NodeId, Proof>,
}

impl Unfinished {
    pub(super) fn new(proposal: Proposal, signatures: Vec<Signature>) -> Unfinished {
        let proofs = Gather::from(proposal.group.ids());
        Unfinished { draw: Stalled { proposal, signatures }, proofs }
    }

    /// The draw.
    pub fn stalled(&self) -> &Stalled {
        &self.draw
    }

    /// Whether this member's output is missing.
    pub fn awaits(&self, from: &NodeId) -> bool {
        self.proofs.awaits(from)
    }

    /// Whose outputs are missing.
    pub fn silent(&self) -> Vec<NodeId> {
        self.proofs.missing()
    }

    /// Takes a missing output; the order and the place to which it goes, once none is missing. Refuses an output that is
    /// not this member's.
    pub fn reveal(
        &mut self,
        from: &NodeId,
        proof: Proof,
        view: &View,
        suite: &mut impl Suite,
    ) -> Result<Option<(NodeId, Box<Order>)>, Refusal> {
        let Stalled { proposal, signatures } = &self.draw;
        if !reveals(proposal, from, &proof, suite) {
            return Err(Refusal::Signer);
        }
        let Some(proofs) = self.proofs.put(from, proof) else { return Ok(None) };
        let given = proposal.group.members.iter().zip(signatures).zip(proofs);
        let shares = given
            .map(|((witness, signature), proof)| {
                Ok(DrawShare { witness: view.path(&witness.id)?, signature: *signature, proof })
            })
            .collect::<Result<_, Refusal>>()?;
        let draw = Draw { proposal: proposal.clone(), shares };
        let seed = draw.verify(view.epoch(), view.table(), suite)?;
        Ok(Some((place(&seed, 0), Box::new(Order { draw, moves: Vec::new() }))))
    }
}
