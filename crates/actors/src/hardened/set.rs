//! The setter: the member nearest to the place of a draw, which passes messages between the builders there.

use std::collections::VecDeque;
use std::ops::Deref;

use kith_identity::membership::pledge::Pledge;
use kith_identity::membership::{Block, MemberLeaf, NodeId};
use kith_sansio::{Machine, Now, Rng, Time};

use super::build::actors;
use super::draw::{PATIENCE, claims};
use super::list::{ActorList, Endorsement, MAX_MOVES, Outcome, place};
use super::{Draw, Group, Input, Message, Output, Proposal, Refusal, Suite, View};
use crate::gather::Gather;
use crate::scheme::{Hash, Signature, hash};

/// A draw, and the regions that were left because they held too few candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The draw.
    pub draw: Draw,
    /// Who attests that a region held too few.
    pub moves: Vec<Endorsement>,
}

/// What a builder is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The order.
    pub order: Order,
    /// Who are the builders.
    pub group: Group,
}

/// S: coordinates the builders. It can stop a selection and burn the ticket, and nothing else.
#[derive(Debug)]
pub struct Setter<V, S> {
    view: V,
    suite: S,
    order: Order,
    seed: Hash,
    candidates: Vec<MemberLeaf>,
    absent: Vec<NodeId>,
    state: Setting,
    deadline: Option<Time>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Setting {
    Probing(Group),
    Reporting(Group, Gather<NodeId, Vec<NodeId>>),
    Signing(Group, Wanted, Gather<NodeId, Signature>),
    Over,
}

/// What each builder has to sign: these actors, or that there are too few.
#[derive(Debug)]
struct Wanted {
    actors: Option<Vec<MemberLeaf>>,
    pledge: Pledge,
}

impl<V: Deref<Target = View>, S: Suite> Setter<V, S> {
    /// Checks the draw and looks for the builders.
    pub fn new(view: V, mut suite: S, order: Order) -> Result<Self, Refusal> {
        let seed = order.draw.verify(view.epoch(), view.table(), &mut suite)?;
        let group = view.group(&place(&seed, order.moves.len()), order.trigger(), &[])?;
        let candidates = order.candidates(&view, &seed)?;
        let outputs = VecDeque::from([Output::Probe(group.ids())]);
        let (state, absent) = (Setting::Probing(group), Vec::new());
        Ok(Setter { view, suite, order, seed, candidates, absent, state, deadline: None, outputs })
    }

    fn probed(&mut self, alive: &[NodeId], now: Now) -> Result<(), Refusal> {
        let Setting::Probing(group) = &self.state else { return Ok(()) };
        let ids = group.ids();
        let absent: Vec<_> = ids.iter().filter(|id| !alive.contains(id)).copied().collect();
        if absent.is_empty() {
            let group = group.clone();
            let job = Job { order: self.order.clone(), group: group.clone() };
            self.tell(&ids, &Message::Build(Box::new(job)));
            self.state = Setting::Reporting(group, Gather::from(ids));
            self.deadline = Some(now.time + PATIENCE);
            return Ok(());
        }
        self.absent.extend(absent);
        let place = place(&self.seed, self.order.moves.len());
        let group = self.view.group(&place, self.order.trigger(), &self.absent)?;
        self.outputs.push_back(Output::Probe(group.ids()));
        self.state = Setting::Probing(group);
        Ok(())
    }

    /// Checks each answer as it comes, so that whoever lies is known. Messages that nobody waits for change nothing.
    fn heard(&mut self, from: NodeId, message: Message, now: Now) -> Result<(), Refusal> {
        match (std::mem::replace(&mut self.state, Setting::Over), message) {
            (Setting::Reporting(group, gather), Message::Report(failed)) if gather.awaits(&from) => {
                self.reported(group, gather, (from, failed), now);
            }
            (Setting::Signing(group, outcome, gather), Message::Signed { actors, signature })
                if gather.awaits(&from) =>
            {
                return self.said(group, outcome, gather, from, (Some(&actors), signature));
            }
            (Setting::Signing(group, outcome, gather), Message::Insufficient(signature))
                if gather.awaits(&from) =>
            {
                return self.said(group, outcome, gather, from, (None, signature));
            }
            (state, _) => self.state = state,
        }
        Ok(())
    }

    fn reported(
        &mut self,
        group: Group,
        mut gather: Gather<NodeId, Vec<NodeId>>,
        (from, failed): (NodeId, Vec<NodeId>),
        now: Now,
    ) {
        let is_candidate = |id: &NodeId| self.candidates.iter().any(|one| one.id == *id);
        if failed.len() > self.candidates.len() || !failed.iter().all(is_candidate) {
            self.outputs.push_back(Output::Lied(from));
            return;
        }
        self.state = match gather.put(&from, failed) {
            None => Setting::Reporting(group, gather),
            Some(reports) => {
                let actors = actors(&self.candidates, &reports, self.order.wanted());
                let pledge = self.order.pledge(&self.view, &self.seed, &group, actors.as_deref());
                let ids = group.ids();
                self.tell(&ids, &Message::Reports(reports));
                self.deadline = Some(now.time + PATIENCE);
                Setting::Signing(group, Wanted { actors, pledge }, Gather::from(ids))
            }
        };
    }

    fn said(
        &mut self,
        group: Group,
        outcome: Wanted,
        mut gather: Gather<NodeId, Signature>,
        from: NodeId,
        (actors, signature): (Option<&Vec<MemberLeaf>>, Signature),
    ) -> Result<(), Refusal> {
        let builder = group.members.iter().filter(|builder| builder.id == from);
        let claims = claims(builder, &outcome.pledge, [&signature].into_iter());
        if actors != outcome.actors.as_ref() || !self.suite.verify(&claims) {
            self.outputs.push_back(Output::Lied(from));
            return Ok(());
        }
        let Some(signatures) = gather.put(&from, signature) else {
            self.state = Setting::Signing(group, outcome, gather);
            return Ok(());
        };
        let endorsement = self.endorsement(&group, signatures)?;
        match outcome.actors {
            Some(actors) => self.finish(actors, endorsement),
            None => self.move_on(endorsement),
        }
    }

    fn endorsement(&self, group: &Group, signatures: Vec<Signature>) -> Result<Endorsement, Refusal> {
        let signed = group.members.iter().zip(signatures);
        let signatures = signed
            .map(|(builder, signature)| Ok((self.view.path(&builder.id)?, signature)))
            .collect::<Result<_, Refusal>>()?;
        Ok(Endorsement { bits: group.bits, signatures })
    }

    fn finish(&mut self, actors: Vec<MemberLeaf>, endorsement: Endorsement) -> Result<(), Refusal> {
        let list = ActorList {
            epoch: self.view.epoch().as_epoch().clone(),
            ticket: self.order.draw.proposal.ticket,
            seed: self.seed,
            region_bits: self.view.region().bits(),
            moves: self.order.moves.clone(),
            actors,
            endorsement,
        };
        // What does not verify is of no use to anybody.
        list.clone().verify_in(self.view.epoch().clone()).map_err(|_| Refusal::Signer)?;
        self.outputs.push_back(Output::Selected(Box::new(list)));
        Ok(())
    }

    fn move_on(&mut self, endorsement: Endorsement) -> Result<(), Refusal> {
        let mut order = self.order.clone();
        order.moves.push(endorsement);
        if order.moves.len() > MAX_MOVES {
            return Err(Refusal::Sparse);
        }
        order.check_moves(&self.view, &self.seed, &mut self.suite)?;
        let to = place(&self.seed, order.moves.len());
        self.outputs.push_back(Output::Route { to, order: Box::new(order) });
        Ok(())
    }

    fn tell(&mut self, ids: &[NodeId], message: &Message) {
        self.outputs.extend(ids.iter().map(|to| Output::Send { to: *to, message: message.clone() }));
    }
}

impl Order {
    /// Where it goes next; checks the draw for that.
    pub(crate) fn place(&self, view: &View, suite: &mut impl Suite) -> Result<NodeId, Refusal> {
        let seed = self.draw.verify(view.epoch(), view.table(), suite)?;
        self.check_moves(view, &seed, suite)?;
        Ok(place(&seed, self.moves.len()))
    }

    /// T.
    pub(super) fn trigger(&self) -> &NodeId {
        &self.draw.proposal.ticket.trigger
    }

    /// A.
    pub(super) fn wanted(&self) -> usize {
        usize::from(self.draw.proposal.ticket.terms.actors)
    }

    /// All members of the region but the trigger and the witnesses, in an order that nobody chose.
    pub(super) fn candidates(&self, view: &View, seed: &Hash) -> Result<Vec<MemberLeaf>, Refusal> {
        let Proposal { ticket, group, .. } = &self.draw.proposal;
        let region = Block::around(&place(seed, self.moves.len()), view.region().bits());
        let is_apart =
            |id: NodeId| id == ticket.trigger || group.members.iter().any(|witness| witness.id == id);
        let mut candidates: Vec<_> = view.members(region)?.filter(|one| !is_apart(one.id)).copied().collect();
        let role = [ticket.terms.role];
        candidates
            .sort_by_cached_key(|one| hash(b"kithnet actors order v1", &[seed, one.id.as_bytes(), &role]));
        Ok(candidates)
    }

    /// What the builders of a group pledge: these actors, or that there are too few.
    pub(super) fn pledge(
        &self,
        view: &View,
        seed: &Hash,
        group: &Group,
        actors: Option<&[MemberLeaf]>,
    ) -> Pledge {
        let entry = (group.bits, group.members.len());
        self.outcome(view, seed, self.moves.len(), entry, actors).pledge()
    }

    /// Makes sure that the builders of each region that was left say so.
    pub(super) fn check_moves(
        &self,
        view: &View,
        seed: &Hash,
        suite: &mut impl Suite,
    ) -> Result<(), Refusal> {
        if self.moves.len() > MAX_MOVES {
            return Err(Refusal::Sparse);
        }
        for (moves, step) in self.moves.iter().enumerate() {
            let builders = step.builders(&place(seed, moves), self.trigger(), view.epoch());
            let builders = builders.map_err(|_| Refusal::Signer)?;
            let pledge = self.outcome(view, seed, moves, (step.bits, step.signatures.len()), None).pledge();
            let claims: Vec<_> = step.claims(&builders, &pledge).collect();
            if !suite.verify(&claims) {
                return Err(Refusal::Signer);
            }
        }
        Ok(())
    }

    fn outcome<'b>(
        &'b self,
        view: &'b View,
        seed: &'b Hash,
        moves: usize,
        entry: (u8, usize),
        actors: Option<&'b [MemberLeaf]>,
    ) -> Outcome<'b> {
        let (ticket, region_bits) = (&self.draw.proposal.ticket, view.region().bits());
        Outcome { ticket, seed, moves, entry, region_bits, epoch: view.epoch(), actors }
    }
}

impl<V: Deref<Target = View>, S: Suite> Machine for Setter<V, S> {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, _: &mut dyn Rng) {
        let done = match input {
            Input::Alive(alive) => self.probed(&alive, now),
            Input::Heard { from, message } => self.heard(from, message, now),
            Input::Answered(_) => Ok(()),
        };
        if let Err(refusal) = done {
            self.state = Setting::Over;
            self.outputs.push_back(Output::Refused(refusal));
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        if self.poll_timeout().is_none_or(|deadline| deadline > now.time) {
            return;
        }
        self.outputs.push_back(match std::mem::replace(&mut self.state, Setting::Over) {
            Setting::Reporting(_, gather) => Output::Unanswered(gather.missing()),
            Setting::Signing(_, _, gather) => Output::Silent(gather.missing()),
            Setting::Probing(_) | Setting::Over => return,
        });
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.deadline.filter(|_| !matches!(self.state, Setting::Over))
    }
}
