//! The builder: selects out of all members of its region, and signs.

use std::collections::VecDeque;

use kith_identity::membership::{Block, MemberLeaf, NodeId};
use kith_sansio::Now;

use super::draw::absent;
use super::list::place;
use super::set::Job;
use super::{Book, Input, Message, Output, Refusal, Suite, View};
use crate::scheme::{Hash, hash};

/// SL: one of those nearest to the place of a draw.
#[derive(Debug)]
pub struct Builder<'a, S> {
    view: &'a View,
    me: NodeId,
    suite: S,
    state: Building,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Building {
    Idle,
    Probing(Box<Selecting>),
    Reported(Box<Selecting>),
    Over,
}

/// The candidates in their order, of whom the first were asked.
#[derive(Debug)]
struct Selecting {
    setter: NodeId,
    job: Job,
    seed: Hash,
    candidates: Vec<MemberLeaf>,
    /// How many of them were asked, and how many of these before the last probe.
    asked: usize,
    answered: usize,
    failed: Vec<NodeId>,
}

impl<'a, S: Suite> Builder<'a, S> {
    /// A builder of one draw.
    pub fn new(view: &'a View, me: NodeId, suite: S) -> Self {
        Builder { view, me, suite, state: Building::Idle, outputs: VecDeque::new() }
    }

    /// Takes a message or the answers to a probe; `book` refuses what was signed before.
    pub fn handle(&mut self, now: Now, input: Input, book: &mut Book) {
        let done = match (std::mem::replace(&mut self.state, Building::Over), input) {
            (Building::Idle, Input::Heard { from, message: Message::Build(job) }) => {
                self.consider(from, *job, now)
            }
            (Building::Probing(selecting), Input::Alive(alive)) => self.probed(selecting, &alive, book),
            (Building::Reported(selecting), Input::Heard { from, message: Message::Reports(reports) })
                if from == selecting.setter =>
            {
                self.sign(&selecting, &reports, book)
            }
            (state, _) => {
                self.state = state;
                Err(Refusal::Turn)
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

    fn consider(&mut self, setter: NodeId, job: Job, now: Now) -> Result<(), Refusal> {
        let order = &job.order;
        if order.draw.proposal.ticket.terms.expires <= now.utc {
            return Err(Refusal::Expired);
        }
        let seed = order.draw.verify(self.view.epoch(), self.view.table(), &mut self.suite)?;
        order.check_moves(self.view, &seed, &mut self.suite)?;
        let place = place(&seed, order.moves.len());
        self.view.check(&place, order.trigger(), &job.group)?;
        if !job.group.members.iter().any(|member| member.id == self.me) {
            return Err(Refusal::Signer);
        }
        let candidates = self.candidates(&job, &seed, &place)?;
        let selecting =
            Selecting { setter, job, seed, candidates, asked: 0, answered: 0, failed: Vec::new() };
        self.probe(Box::new(selecting));
        Ok(())
    }

    /// All members of the region but the trigger and the witnesses, in an order that nobody chose.
    fn candidates(&self, job: &Job, seed: &Hash, place: &NodeId) -> Result<Vec<MemberLeaf>, Refusal> {
        let proposal = &job.order.draw.proposal;
        let region = Block::around(place, self.view.region().bits());
        let is_apart = |id: NodeId| {
            id == proposal.ticket.trigger || proposal.group.members.iter().any(|witness| witness.id == id)
        };
        let mut candidates: Vec<_> =
            self.view.members(region)?.filter(|one| !is_apart(one.id)).copied().collect();
        let role = [proposal.ticket.terms.role];
        candidates
            .sort_by_cached_key(|one| hash(b"kithnet actors order v1", &[seed, one.id.as_bytes(), &role]));
        Ok(candidates)
    }

    /// Asks as many further candidates as are missing, and at first those whom the group leaves out.
    fn probe(&mut self, mut selecting: Box<Selecting>) {
        let missing = selecting.wanted() - (selecting.asked - selecting.failed.len());
        let from = selecting.asked;
        selecting.asked = selecting.candidates.len().min(from + missing);
        let mut ids: Vec<_> = selecting.candidates[from..selecting.asked].iter().map(|one| one.id).collect();
        if from == 0 {
            ids.extend(&selecting.job.group.skipped);
        }
        if ids.is_empty() {
            let (to, message) = (selecting.setter, Message::Report(selecting.failed.clone()));
            self.outputs.push_back(Output::Send { to, message });
            self.state = Building::Reported(selecting);
        } else {
            self.outputs.push_back(Output::Probe(ids));
            self.state = Building::Probing(selecting);
        }
    }

    fn probed(
        &mut self,
        mut selecting: Box<Selecting>,
        alive: &[NodeId],
        book: &Book,
    ) -> Result<(), Refusal> {
        absent(&selecting.job.group, alive, book)?;
        let asked = &selecting.candidates[selecting.answered..selecting.asked];
        let failed: Vec<_> = asked.iter().map(|one| one.id).filter(|id| !alive.contains(id)).collect();
        selecting.answered = selecting.asked;
        selecting.failed.extend(failed);
        self.probe(selecting);
        Ok(())
    }

    /// Leaves out who failed every builder's probe: one honest builder is enough to keep a member in, and one that lies
    /// can keep an absent one in, which gains it nothing.
    fn sign(
        &mut self,
        selecting: &Selecting,
        reports: &[Vec<NodeId>],
        book: &mut Book,
    ) -> Result<(), Refusal> {
        let Selecting { setter, job, seed, candidates, failed, .. } = selecting;
        let mine = job.group.members.iter().position(|member| member.id == self.me);
        let is_kept = mine.is_some_and(|at| reports.get(at) == Some(failed));
        if !is_kept || reports.len() != job.group.members.len() {
            return Err(Refusal::Report);
        }
        let is_absent = |id: &NodeId| reports.iter().all(|report| report.contains(id));
        let there = candidates.iter().filter(|one| !is_absent(&one.id));
        let actors: Vec<_> = there.take(selecting.wanted()).copied().collect();
        let moves = job.order.moves.len();
        let is_enough = actors.len() == selecting.wanted();
        let entry = (job.group.bits, job.group.members.len());
        let pledge =
            job.order.outcome(self.view, seed, moves, entry, is_enough.then_some(&actors[..])).pledge();
        book.once(pledge.slot.key)?;
        let signature = self.suite.sign(&pledge);
        let message =
            if is_enough { Message::Signed { actors, signature } } else { Message::Insufficient(signature) };
        self.outputs.push_back(Output::Send { to: *setter, message });
        Ok(())
    }
}

impl Selecting {
    /// A.
    fn wanted(&self) -> usize {
        usize::from(self.job.order.draw.proposal.ticket.terms.actors)
    }
}
