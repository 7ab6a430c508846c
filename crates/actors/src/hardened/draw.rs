//! The draw: a ticket that its witnesses sign before any of them reveals what it adds.

use std::collections::VecDeque;
use std::ops::Deref;

use kith_identity::membership::pledge::Pledge;
use kith_identity::membership::tree::Path;
use kith_identity::membership::{Block, MemberLeaf, NodeId, VerifiedEpoch};
use kith_identity::vrf::Proof;
use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::stalled::{MAX_STALLED, Reminder, Unfinished};
use super::{Book, Claim, Group, Input, Message, Output, Refusal, Suite, Ticket, View};
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

impl Proposal {
    /// The trigger, where it is a member and has signed this.
    pub(super) fn signer(
        &self,
        epoch: &VerifiedEpoch,
        suite: &mut impl Suite,
    ) -> Result<&MemberLeaf, Refusal> {
        let trigger = epoch.member(&self.trigger).map_err(|_| Refusal::Signer)?;
        let pledge = self.ticket.pledge(&self.group);
        let claim = Claim { key: &trigger.key, pledge: &pledge, signature: &self.signature };
        let is_signed = trigger.id == self.ticket.trigger && suite.verify(&[claim]);
        if is_signed { Ok(trigger) } else { Err(Refusal::Signer) }
    }
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
        if !is_lawful(group, ticket, epoch, table) {
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

/// Whether a group is of the table's size and order: the nearest to the place of the draw first, in the block of their
/// number, without the trigger.
fn is_lawful(group: &Group, ticket: &Ticket, epoch: &VerifiedEpoch, table: &KTable<Prefix>) -> bool {
    let (k, center) = (group.members.len() as u64, ticket.place(epoch));
    let block = Block::around(&center, group.bits);
    table.rows().iter().any(|row| row.k == k && row.region.bits == group.bits)
        && group.members.is_sorted_by(|a, b| center.distance(&a.id) < center.distance(&b.id))
        && group.members.iter().all(|member| block.contains(&member.id) && member.id != ticket.trigger)
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
    /// Draws before that stalled: who owes an output is left out.
    stalled: Vec<Unfinished>,
    absent: Vec<NodeId>,
    /// Who gives no output, and the first of them that gave a wrong one.
    lost: Vec<NodeId>,
    liar: Option<NodeId>,
    state: Drawing,
    deadline: Option<Time>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Drawing {
    Probing(Group),
    Signing(Proposal, Gather<NodeId, Signature>),
    Revealing(Unfinished),
    Over,
}

/// Neither the trigger nor a witness is an actor: where the region is the whole network, those who are left have to be
/// enough.
fn has_candidates(view: &View, ticket: &Ticket, group: &Group) -> Result<(), Refusal> {
    let left = view.leaves().len().saturating_sub(1 + group.members.len());
    match view.region().bits() {
        0 if left == 0 => Err(Refusal::Sparse),
        0 if left < usize::from(ticket.terms.actors) => Err(Refusal::Actors { most: left as u64 }),
        _ => Ok(()),
    }
}

/// The nearest without those who are not there and those who owe an output. Where too few are left, whoever has owed it
/// longest is asked again first.
fn witnesses(
    view: &View,
    ticket: &Ticket,
    absent: &[NodeId],
    stalled: &[Unfinished],
) -> Result<Group, Refusal> {
    let silent = stalled.iter().flat_map(Unfinished::silent);
    let left_out: Vec<_> = absent.iter().copied().chain(silent).collect();
    match (view.witnesses(ticket, &left_out), stalled) {
        (Err(Refusal::Sparse), [_, later @ ..]) => witnesses(view, ticket, absent, later),
        (found, _) => found,
    }
}

impl<V: Deref<Target = View>, S: Suite> Trigger<V, S> {
    /// Begins by looking for the witnesses of the ticket, whose number `book` must not know yet.
    pub fn new(view: V, suite: S, ticket: Ticket, book: &mut Book) -> Result<Self, Refusal> {
        Trigger::after(view, suite, ticket, book, &[])
    }

    /// As [`Trigger::new`], after draws of the epoch that stalled, whose numbers rise: the last [`MAX_STALLED`] count.
    pub fn after(
        view: V,
        suite: S,
        ticket: Ticket,
        book: &mut Book,
        unfinished: &[Unfinished],
    ) -> Result<Self, Refusal> {
        ticket.check(view.epoch())?;
        let stalled = unfinished[unfinished.len().saturating_sub(MAX_STALLED)..].to_vec();
        let group = witnesses(&view, &ticket, &[], &stalled)?;
        has_candidates(&view, &ticket, &group)?;
        book.draw(&ticket)?;
        Ok(Trigger {
            view,
            suite,
            ticket,
            stalled,
            absent: Vec::new(),
            lost: Vec::new(),
            liar: None,
            outputs: VecDeque::from([Output::Keep, Output::Probe(group.ids())]),
            state: Drawing::Probing(group),
            deadline: None,
        })
    }

    /// The draw, where all have accepted it and not all outputs came.
    pub fn unfinished(&self) -> Option<&Unfinished> {
        match &self.state {
            Drawing::Revealing(unfinished) => Some(unfinished),
            _ => None,
        }
    }

    fn probed(&mut self, alive: &[NodeId], now: Now) -> Result<(), Refusal> {
        let Drawing::Probing(group) = &self.state else { return Ok(()) };
        let absent: Vec<_> = group.ids().into_iter().filter(|id| !alive.contains(id)).collect();
        if absent.is_empty() {
            let group = group.clone();
            return self.propose(group, now);
        }
        self.absent.extend(absent);
        let group = witnesses(&self.view, &self.ticket, &self.absent, &self.stalled)?;
        self.outputs.push_back(Output::Probe(group.ids()));
        self.state = Drawing::Probing(group);
        Ok(())
    }

    fn propose(&mut self, group: Group, now: Now) -> Result<(), Refusal> {
        let ids = group.ids();
        // Nobody is reminded whose output is not missing.
        let is_left_out = |id: &NodeId| group.skipped.contains(id);
        let stalled = self.stalled.iter().filter(|draw| draw.silent().iter().any(is_left_out));
        let stalled: Vec<_> = stalled.map(Unfinished::stalled).cloned().collect();
        let proposal = Proposal {
            ticket: self.ticket,
            trigger: self.view.path(&self.ticket.trigger)?,
            signature: self.suite.sign(&self.ticket.pledge(&group)),
            group,
        };
        let message = if stalled.is_empty() {
            Message::Propose(Box::new(proposal.clone()))
        } else {
            Message::Remind(Box::new(Reminder { proposal: proposal.clone(), stalled }))
        };
        self.tell(&ids, &message);
        self.state = Drawing::Signing(proposal, Gather::from(ids));
        self.deadline = Some(now.time + PATIENCE);
        Ok(())
    }

    /// Checks each answer as it comes, so that whoever lies is known. Messages that nobody waits for change nothing.
    fn heard(&mut self, from: NodeId, message: Message, now: Now) -> Result<(), Refusal> {
        match (std::mem::replace(&mut self.state, Drawing::Over), message) {
            (Drawing::Signing(proposal, gather), Message::Accept(signature)) if gather.awaits(&from) => {
                self.accepted(proposal, gather, (from, signature), now);
            }
            (Drawing::Revealing(draw), Message::Reveal(proof)) if draw.awaits(&from) => {
                self.revealed(draw, from, proof);
            }
            (Drawing::Revealing(draw), Message::Refused(_)) if draw.awaits(&from) => {
                self.lost.push(from);
                self.revealing(draw);
            }
            (state, _) => self.state = state,
        }
        Ok(())
    }

    fn accepted(
        &mut self,
        proposal: Proposal,
        mut gather: Gather<NodeId, Signature>,
        (from, signature): (NodeId, Signature),
        now: Now,
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
                self.deadline = Some(now.time + PATIENCE);
                Drawing::Revealing(Unfinished::new(proposal, signatures))
            }
        };
    }

    fn revealed(&mut self, mut draw: Unfinished, from: NodeId, proof: Proof) {
        match draw.reveal(&from, proof, &self.view, &mut self.suite) {
            Ok(Some((to, order))) => self.outputs.push_back(Output::Route { to, order }),
            Ok(None) => self.revealing(draw),
            Err(_) => {
                self.lost.push(from);
                self.liar = self.liar.or(Some(from));
                self.revealing(draw);
            }
        }
    }

    /// Whoever still can reveals first: those who are missing at the end are those who stall.
    fn revealing(&mut self, draw: Unfinished) {
        let silent = draw.silent();
        self.state = Drawing::Revealing(draw);
        if silent.iter().all(|id| self.lost.contains(id)) {
            self.stopped(silent);
        }
    }

    /// The draw ends without these outputs.
    fn stopped(&mut self, silent: Vec<NodeId>) {
        self.deadline = None;
        self.outputs.push_back(self.liar.map_or(Output::Silent(silent), Output::Lied));
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
            Input::Heard { from, message } => self.heard(from, message, now),
            Input::Answered(_) => Ok(()),
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
        match &self.state {
            Drawing::Signing(_, gather) => {
                self.outputs.push_back(Output::Unanswered(gather.missing()));
                self.state = Drawing::Over;
            }
            Drawing::Revealing(draw) => {
                let silent = draw.silent();
                self.stopped(silent);
            }
            Drawing::Probing(_) | Drawing::Over => {}
        }
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
    Probing(Box<Reminder>),
    Reminding(Box<Reminder>),
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
                let reminder = Box::new(Reminder { proposal: *proposal, stalled: Vec::new() });
                self.consider(from, reminder, now, book)
            }
            (Witnessing::Idle, Input::Heard { from, message: Message::Remind(reminder) }) => {
                self.consider(from, reminder, now, book)
            }
            (Witnessing::Probing(reminder), Input::Alive(alive)) => {
                absent(&self.view, &reminder.proposal.group, &alive, book)
                    .and_then(|()| self.remind(reminder, book))
            }
            (Witnessing::Reminding(reminder), Input::Answered(answers)) => {
                self.answered(reminder, &answers, book)
            }
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
        reminder: Box<Reminder>,
        now: Now,
        book: &mut Book,
    ) -> Result<(), Refusal> {
        let Proposal { ticket, group, .. } = &reminder.proposal;
        let epoch = self.view.epoch();
        ticket.check(epoch)?;
        if ticket.terms.expires <= now.utc {
            return Err(Refusal::Expired);
        }
        self.view.check_witnesses(ticket, group)?;
        let trigger = reminder.proposal.signer(epoch, &mut self.suite)?;
        let is_mine = group.members.iter().any(|member| member.id == self.me);
        if from != trigger.id || !is_mine || book.is_barred(trigger) {
            return Err(Refusal::Signer);
        }
        reminder.check(&self.view, &mut self.suite)?;
        let debtors = reminder.debtors();
        let others: Vec<_> = group.skipped.iter().filter(|id| !debtors.contains(id)).copied().collect();
        if others.is_empty() {
            return self.remind(reminder, book);
        }
        self.outputs.push_back(Output::Probe(others));
        self.state = Witnessing::Probing(reminder);
        Ok(())
    }

    /// Those who owe an output to an earlier draw are asked for it. That they are there is not enough.
    fn remind(&mut self, reminder: Box<Reminder>, book: &mut Book) -> Result<(), Refusal> {
        let debtors = reminder.debtors();
        if debtors.is_empty() {
            return self.sign(reminder.proposal, book);
        }
        self.outputs.push_back(Output::Remind(debtors, reminder.clone()));
        self.state = Witnessing::Reminding(reminder);
        Ok(())
    }

    fn answered(
        &mut self,
        reminder: Box<Reminder>,
        answers: &[(NodeId, Message)],
        book: &mut Book,
    ) -> Result<(), Refusal> {
        for (from, answer) in answers {
            if let Message::Reveal(proof) = answer
                && !is_barred(&self.view, from, book)
                && reminder.is_paid(from, proof, &mut self.suite)
            {
                let message = Message::Late { from: *from, proof: Box::new(*proof) };
                self.outputs.push_back(Output::Send { to: reminder.proposal.ticket.trigger, message });
                return Err(Refusal::LeftOut(*from));
            }
        }
        self.sign(reminder.proposal, book)
    }

    fn sign(&mut self, proposal: Proposal, book: &mut Book) -> Result<(), Refusal> {
        book.draw(&proposal.ticket)?;
        self.outputs.push_back(Output::Keep);
        let signature = self.suite.sign(&proposal.ticket.pledge(&proposal.group));
        let to = proposal.ticket.trigger;
        self.outputs.push_back(Output::Send { to, message: Message::Accept(signature) });
        self.state = Witnessing::Signed(Box::new(proposal));
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
    match group.skipped.iter().find(|id| alive.contains(id) && !is_barred(view, id, book)) {
        Some(there) => Err(Refusal::LeftOut(*there)),
        None => Ok(()),
    }
}

fn is_barred(view: &View, id: &NodeId, book: &Book) -> bool {
    view.member(id).is_some_and(|member| book.is_barred(member))
}
