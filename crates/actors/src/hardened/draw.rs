//! The draw: a ticket that its witnesses sign before any of them reveals what it adds.

use std::collections::VecDeque;
use std::ops::Deref;

use kith_identity::membership::pledge::Pledge;
use kith_identity::membership::tree::Path;
use kith_identity::membership::{Block, MemberLeaf, NodeId, VerifiedEpoch};
use kith_identity::vrf::Proof;
use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::list::place;
use super::{Book, Claim, Group, Input, Message, Order, Output, Refusal, Suite, Ticket, View};
use crate::gather::Gather;
use crate::ktable::{KTable, Prefix};
use crate::scheme::{Hash, Signature, hash};

/// How long a group may take for all of its answers.
pub(super) const PATIENCE: Span = Span::secs(30);

/// What a witness is asked to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The ticket.
    pub ticket: Ticket,
    /// That the trigger is a member.
    pub trigger: Path<MemberLeaf>,
    /// The trigger's own signature.
    pub signature: Signature,
    /// Who are the witnesses.
    pub group: Group,
}

/// What one witness gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawShare {
    /// That it is a member.
    pub witness: Path<MemberLeaf>,
    /// Its signature under the ticket.
    pub signature: Signature,
    /// The proof of its random output.
    pub proof: Proof,
}

/// A draw that is done: what it takes to find its seed, and to check that nobody chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// What the trigger had signed.
    pub proposal: Proposal,
    /// One share of each witness.
    pub shares: Vec<DrawShare>,
}

impl Draw {
    /// Checks everything that can be told from elsewhere in the network, and gives the seed. That nobody nearer was left
    /// out without cause is what the witnesses have signed.
    pub fn verify(
        &self,
        epoch: &VerifiedEpoch,
        table: &KTable<Prefix>,
        suite: &mut impl Suite,
    ) -> Result<Hash, Refusal> {
        let Proposal { ticket, trigger, signature, group } = &self.proposal;
        ticket.check(epoch)?;
        let trigger = epoch.member(trigger).map_err(|_| Refusal::Signer)?;
        let witnesses = self.shares.iter().map(|share| epoch.member(&share.witness));
        let witnesses = witnesses.collect::<Result<Vec<_>, _>>().map_err(|_| Refusal::Signer)?;
        if trigger.id != ticket.trigger || !witnesses.iter().copied().eq(&group.members) {
            return Err(Refusal::Signer);
        }
        if !is_lawful(group, &ticket.trigger, table) {
            return Err(Refusal::Group);
        }
        let pledge = ticket.pledge(group);
        let signatures = std::iter::once(signature).chain(self.shares.iter().map(|share| &share.signature));
        let signers = std::iter::once(trigger).chain(witnesses.iter().copied());
        if !suite.verify(&claims(signers, &pledge, signatures)) {
            return Err(Refusal::Signer);
        }
        let proofs = self.shares.iter().map(|share| &share.proof);
        seed(ticket, witnesses.into_iter().zip(proofs), suite)
    }
}

/// Whether a group is of the table's size and order: the nearest first, in the block of their number, without the centre.
fn is_lawful(group: &Group, center: &NodeId, table: &KTable<Prefix>) -> bool {
    let k = group.members.len() as u64;
    let block = Block::around(center, group.bits);
    table.rows().iter().any(|row| row.k == k && row.region.bits == group.bits)
        && group.members.is_sorted_by(|a, b| center.distance(&a.id) < center.distance(&b.id))
        && group.members.iter().all(|member| block.contains(&member.id) && member.id != *center)
}

/// That each of the signers signed the pledge.
pub(super) fn claims<'a>(
    signers: impl Iterator<Item = &'a MemberLeaf>,
    pledge: &'a Pledge,
    signatures: impl Iterator<Item = &'a Signature>,
) -> Vec<Claim<'a>> {
    signers.zip(signatures).map(|(signer, signature)| Claim { key: &signer.key, pledge, signature }).collect()
}

/// The hash of all outputs, in the order of the group.
fn seed<'a>(
    ticket: &Ticket,
    proofs: impl Iterator<Item = (&'a MemberLeaf, &'a Proof)>,
    suite: &mut impl Suite,
) -> Result<Hash, Refusal> {
    let input = ticket.input();
    let mut outputs = Vec::new();
    for (witness, proof) in proofs {
        let output = suite.output(&witness.vrf, &input, proof).ok_or(Refusal::Signer)?;
        outputs.extend_from_slice(output.as_bytes());
    }
    Ok(hash(b"kithnet seed v1", &[&input, &outputs]))
}

/// T: has its ticket signed, and collects the outputs. A ticket is burnt by whatever goes wrong after it was signed.
#[derive(Debug)]
pub struct Trigger<V, S> {
    view: V,
    suite: S,
    ticket: Ticket,
    absent: Vec<NodeId>,
    state: Drawing,
    deadline: Option<Time>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Drawing {
    Probing(Group),
    Signing(Proposal, Gather<NodeId, Signature>),
    Revealing(Proposal, Vec<Signature>, Gather<NodeId, Proof>),
    Over,
}

impl<V: Deref<Target = View>, S: Suite> Trigger<V, S> {
    /// Begins by looking for the witnesses of the ticket, whose number `book` must not know yet.
    pub fn new(view: V, suite: S, ticket: Ticket, book: &mut Book) -> Result<Self, Refusal> {
        ticket.check(view.epoch())?;
        let group = view.group(&ticket.trigger, &ticket.trigger, &[])?;
        book.draw(&ticket)?;
        let outputs = VecDeque::from([Output::Keep, Output::Probe(group.ids())]);
        let state = Drawing::Probing(group);
        Ok(Trigger { view, suite, ticket, absent: Vec::new(), state, deadline: None, outputs })
    }

    fn probed(&mut self, alive: &[NodeId], now: Now) -> Result<(), Refusal> {
        let Drawing::Probing(group) = &self.state else { return Ok(()) };
        let absent: Vec<_> = group.ids().into_iter().filter(|id| !alive.contains(id)).collect();
        if absent.is_empty() {
            let group = group.clone();
            return self.propose(group, now);
        }
        self.absent.extend(absent);
        let group = self.view.group(&self.ticket.trigger, &self.ticket.trigger, &self.absent)?;
        self.outputs.push_back(Output::Probe(group.ids()));
        self.state = Drawing::Probing(group);
        Ok(())
    }

    fn propose(&mut self, group: Group, now: Now) -> Result<(), Refusal> {
        let ids = group.ids();
        let proposal = Proposal {
            ticket: self.ticket,
            trigger: self.view.path(&self.ticket.trigger)?,
            signature: self.suite.sign(&self.ticket.pledge(&group)),
            group,
        };
        self.tell(&ids, &Message::Propose(Box::new(proposal.clone())));
        self.state = Drawing::Signing(proposal, Gather::from(ids));
        self.deadline = Some(now.time + PATIENCE);
        Ok(())
    }

    /// Checks each answer as it comes, so that whoever lies is known. Messages that nobody waits for change nothing.
    fn heard(&mut self, from: NodeId, message: Message) -> Result<(), Refusal> {
        match (std::mem::replace(&mut self.state, Drawing::Over), message) {
            (Drawing::Signing(proposal, gather), Message::Accept(signature)) if gather.awaits(&from) => {
                self.accepted(proposal, gather, from, signature);
            }
            (Drawing::Revealing(proposal, signatures, gather), Message::Reveal(proof))
                if gather.awaits(&from) =>
            {
                return self.revealed(proposal, signatures, gather, from, proof);
            }
            (state, _) => self.state = state,
        }
        Ok(())
    }

    fn accepted(
        &mut self,
        proposal: Proposal,
        mut gather: Gather<NodeId, Signature>,
        from: NodeId,
        signature: Signature,
    ) {
        let witness = proposal.group.members.iter().filter(|witness| witness.id == from);
        let pledge = self.ticket.pledge(&proposal.group);
        if !self.suite.verify(&claims(witness, &pledge, [&signature].into_iter())) {
            self.outputs.push_back(Output::Lied(from));
            return;
        }
        self.state = match gather.put(&from, signature) {
            None => Drawing::Signing(proposal, gather),
            Some(signatures) => {
                self.tell(&proposal.group.ids(), &Message::Accepted(signatures.clone()));
                let gather = Gather::from(proposal.group.ids());
                Drawing::Revealing(proposal, signatures, gather)
            }
        };
    }

    fn revealed(
        &mut self,
        proposal: Proposal,
        signatures: Vec<Signature>,
        mut gather: Gather<NodeId, Proof>,
        from: NodeId,
        proof: Proof,
    ) -> Result<(), Refusal> {
        let input = self.ticket.input();
        let witness = proposal.group.members.iter().find(|witness| witness.id == from);
        if witness.is_none_or(|witness| self.suite.output(&witness.vrf, &input, &proof).is_none()) {
            self.outputs.push_back(Output::Lied(from));
            return Ok(());
        }
        let Some(proofs) = gather.put(&from, proof) else {
            self.state = Drawing::Revealing(proposal, signatures, gather);
            return Ok(());
        };
        let draw = self.draw(proposal, signatures, proofs)?;
        let seed = draw.verify(self.view.epoch(), self.view.table(), &mut self.suite)?;
        let order = Box::new(Order { draw, moves: Vec::new() });
        self.outputs.push_back(Output::Route { to: place(&seed, 0), order });
        Ok(())
    }

    fn draw(
        &self,
        proposal: Proposal,
        signatures: Vec<Signature>,
        proofs: Vec<Proof>,
    ) -> Result<Draw, Refusal> {
        let given = proposal.group.members.iter().zip(signatures).zip(proofs);
        let shares = given
            .map(|((witness, signature), proof)| {
                Ok(DrawShare { witness: self.view.path(&witness.id)?, signature, proof })
            })
            .collect::<Result<_, Refusal>>()?;
        Ok(Draw { proposal, shares })
    }

    fn tell(&mut self, ids: &[NodeId], message: &Message) {
        self.outputs.extend(ids.iter().map(|to| Output::Send { to: *to, message: message.clone() }));
    }
}

impl<V: Deref<Target = View>, S: Suite> Machine for Trigger<V, S> {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, _: &mut dyn Rng) {
        let done = match input {
            Input::Alive(alive) => self.probed(&alive, now),
            Input::Heard { from, message } => self.heard(from, message),
        };
        if let Err(refusal) = done {
            self.state = Drawing::Over;
            self.outputs.push_back(Output::Refused(refusal));
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        if self.poll_timeout().is_none_or(|deadline| deadline > now.time) {
            return;
        }
        self.outputs.push_back(match std::mem::replace(&mut self.state, Drawing::Over) {
            Drawing::Signing(_, gather) => Output::Unanswered(gather.missing()),
            Drawing::Revealing(_, _, gather) => Output::Silent(gather.missing()),
            Drawing::Probing(_) | Drawing::Over => return,
        });
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.deadline.filter(|_| !matches!(self.state, Drawing::Over))
    }
}

/// TL: signs one ticket, and reveals its output once all others have signed it too.
#[derive(Debug)]
pub struct Witness<V, S> {
    view: V,
    me: NodeId,
    suite: S,
    state: Witnessing,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Witnessing {
    Idle,
    Probing(Box<Proposal>),
    Signed(Box<Proposal>),
    Over,
}

impl<V: Deref<Target = View>, S: Suite> Witness<V, S> {
    /// A witness of one draw.
    pub fn new(view: V, me: NodeId, suite: S) -> Self {
        Witness { view, me, suite, state: Witnessing::Idle, outputs: VecDeque::new() }
    }

    /// Takes a message or the answers to a probe; `book` refuses what was signed before. What does not belong here
    /// changes nothing, and after a refusal the witness can be asked again.
    pub fn handle(&mut self, now: Now, input: Input, book: &mut Book) {
        let done = match (std::mem::replace(&mut self.state, Witnessing::Idle), input) {
            (Witnessing::Idle, Input::Heard { from, message: Message::Propose(proposal) }) => {
                self.consider(from, proposal, now, book)
            }
            (Witnessing::Probing(proposal), Input::Alive(alive)) => self.sign(proposal, &alive, book),
            (Witnessing::Signed(proposal), Input::Heard { from, message: Message::Accepted(signatures) })
                if from == proposal.ticket.trigger =>
            {
                self.reveal(&proposal, &signatures)
            }
            (state, _) => {
                self.state = state;
                Ok(())
            }
        };
        if let Err(refusal) = done {
            self.outputs.push_back(Output::Refused(refusal));
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn consider(
        &mut self,
        from: NodeId,
        proposal: Box<Proposal>,
        now: Now,
        book: &mut Book,
    ) -> Result<(), Refusal> {
        let Proposal { ticket, trigger, signature, group } = &*proposal;
        let epoch = self.view.epoch();
        ticket.check(epoch)?;
        if ticket.terms.expires <= now.utc {
            return Err(Refusal::Expired);
        }
        self.view.check(&ticket.trigger, &ticket.trigger, group)?;
        let trigger = epoch.member(trigger).map_err(|_| Refusal::Signer)?;
        let pledge = ticket.pledge(group);
        let is_signed = self.suite.verify(&[Claim { key: &trigger.key, pledge: &pledge, signature }]);
        let is_mine = group.members.iter().any(|member| member.id == self.me);
        if from != ticket.trigger || trigger.id != from || !is_signed || !is_mine || book.is_barred(trigger) {
            return Err(Refusal::Signer);
        }
        if group.skipped.is_empty() {
            return self.sign(proposal, &[], book);
        }
        self.outputs.push_back(Output::Probe(group.skipped.clone()));
        self.state = Witnessing::Probing(proposal);
        Ok(())
    }

    fn sign(&mut self, proposal: Box<Proposal>, alive: &[NodeId], book: &mut Book) -> Result<(), Refusal> {
        absent(&self.view, &proposal.group, alive, book)?;
        book.draw(&proposal.ticket)?;
        self.outputs.push_back(Output::Keep);
        let signature = self.suite.sign(&proposal.ticket.pledge(&proposal.group));
        let to = proposal.ticket.trigger;
        self.outputs.push_back(Output::Send { to, message: Message::Accept(signature) });
        self.state = Witnessing::Signed(proposal);
        Ok(())
    }

    fn reveal(&mut self, proposal: &Proposal, signatures: &[Signature]) -> Result<(), Refusal> {
        let Proposal { ticket, group, .. } = proposal;
        let pledge = ticket.pledge(group);
        if signatures.len() != group.members.len()
            || !self.suite.verify(&claims(group.members.iter(), &pledge, signatures.iter()))
        {
            return Err(Refusal::Signer);
        }
        let message = Message::Reveal(self.suite.prove(&ticket.input()));
        self.outputs.push_back(Output::Send { to: ticket.trigger, message });
        self.state = Witnessing::Over;
        Ok(())
    }
}

/// Makes sure that nobody whom a group leaves out answers, except who was barred.
pub(super) fn absent(view: &View, group: &Group, alive: &[NodeId], book: &Book) -> Result<(), Refusal> {
    let is_barred = |id: &NodeId| view.member(id).is_some_and(|member| book.is_barred(member));
    match group.skipped.iter().find(|id| alive.contains(id) && !is_barred(id)) {
        Some(there) => Err(Refusal::LeftOut(*there)),
        None => Ok(()),
    }
}
