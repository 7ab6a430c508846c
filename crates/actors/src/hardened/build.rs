//! The builder: selects out of all members of its region, and signs.

use std::collections::VecDeque;
use std::ops::Deref;

use kith_identity::membership::{MemberLeaf, NodeId};
use kith_sansio::Now;

use super::draw::absent;
use super::list::place;
use super::set::Job;
use super::{Book, Input, Message, Output, Refusal, Suite, View};
use crate::scheme::Hash;

/// SL: one of those nearest to the place of a draw.
#[derive(Debug)]
pub struct Builder<V, S> {
    view: V,
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

impl<V: Deref<Target = View>, S: Suite> Builder<V, S> {
    /// A builder of one draw.
    pub fn new(view: V, me: NodeId, suite: S) -> Self {
        Builder { view, me, suite, state: Building::Idle, outputs: VecDeque::new() }
    }

    /// Takes a message or the answers to a probe; `book` refuses a draw in which it took part before. What does not belong
    /// here changes nothing, and after a refusal the builder can be asked again.
    pub fn handle(&mut self, now: Now, input: Input, book: &mut Book) {
        let done = match (std::mem::replace(&mut self.state, Building::Idle), input) {
            (Building::Idle, Input::Heard { from, message: Message::Build(job) }) => {
                self.consider(from, *job, now, book)
            }
            (Building::Probing(selecting), Input::Alive(alive)) => self.probed(selecting, &alive, book),
            (Building::Reported(selecting), Input::Heard { from, message: Message::Reports(reports) })
                if from == selecting.setter =>
            {
                self.sign(&selecting, &reports)
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

    /// The draw is used up before the first probe: whoever does not like who is there cannot have it probed again.
    fn consider(&mut self, setter: NodeId, job: Job, now: Now, book: &mut Book) -> Result<(), Refusal> {
        let order = &job.order;
        if order.draw.proposal.ticket.terms.expires <= now.utc {
            return Err(Refusal::Expired);
        }
        let seed = order.draw.verify(self.view.epoch(), self.view.table(), &mut self.suite)?;
        order.check_moves(&self.view, &seed, &mut self.suite)?;
        let place = place(&seed, order.moves.len());
        self.view.check(&place, order.trigger(), &job.group)?;
        if !job.group.members.iter().any(|member| member.id == self.me) {
            return Err(Refusal::Signer);
        }
        let candidates = order.candidates(&self.view, &seed)?;
        book.outcome(&order.draw.proposal.ticket, order.moves.len())?;
        self.outputs.push_back(Output::Keep);
        let selecting =
            Selecting { setter, job, seed, candidates, asked: 0, answered: 0, failed: Vec::new() };
        self.probe(Box::new(selecting));
        Ok(())
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
        absent(&self.view, &selecting.job.group, alive, book)?;
        let asked = &selecting.candidates[selecting.answered..selecting.asked];
        let is_there = |one: &MemberLeaf| alive.contains(&one.id) && !book.is_barred(one);
        let failed: Vec<_> = asked.iter().filter(|one| !is_there(one)).map(|one| one.id).collect();
        selecting.answered = selecting.asked;
        selecting.failed.extend(failed);
        self.probe(selecting);
        Ok(())
    }

    fn sign(&mut self, selecting: &Selecting, reports: &[Vec<NodeId>]) -> Result<(), Refusal> {
        let Selecting { setter, job, seed, candidates, failed, .. } = selecting;
        let mine = job.group.members.iter().position(|member| member.id == self.me);
        let is_kept = mine.is_some_and(|at| reports.get(at) == Some(failed));
        if !is_kept || reports.len() != job.group.members.len() {
            return Err(Refusal::Report);
        }
        let actors = actors(candidates, reports, selecting.wanted());
        let signature = self.suite.sign(&job.order.pledge(&self.view, seed, &job.group, actors.as_deref()));
        let message = match actors {
            Some(actors) => Message::Signed { actors, signature },
            None => Message::Insufficient(signature),
        };
        self.outputs.push_back(Output::Send { to: *setter, message });
        self.state = Building::Over;
        Ok(())
    }
}

/// The first of the candidates that did not fail every builder's probe, where there are as many as wanted. One honest
/// builder is enough to keep a member in; one that lies can keep an absent one in, which gains it nothing.
pub(super) fn actors(
    candidates: &[MemberLeaf],
    reports: &[Vec<NodeId>],
    wanted: usize,
) -> Option<Vec<MemberLeaf>> {
    let is_absent = |id: &NodeId| reports.iter().all(|report| report.contains(id));
    let there = candidates.iter().filter(|one| !is_absent(&one.id));
    let actors: Vec<_> = there.take(wanted).copied().collect();
    (actors.len() == wanted).then_some(actors)
}

impl Selecting {
    /// A.
    fn wanted(&self) -> usize {
        self.job.order.wanted()
    }
}
