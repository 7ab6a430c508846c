//! What somebody here wants drawn: one draw after the other until a list is there.

use std::collections::VecDeque;

use kith_identity::membership::{Block, NodeId};
use kith_identity::vrf::Proof;
use kith_sansio::{Now, Rng};

use super::{Handing, MAX_TRIES, Output, PAUSE, Patron, Role, SETTERS, Seat, Task, Trouble, WORK, Wish};
use crate::hardened::{
    self, ActorList, MAX_STALLED, Message, Order, Reason, Refusal, Ticket, Trigger, Unfinished,
};

impl Seat {
    /// Begins the next draw of a wish.
    pub(super) fn draw(&mut self, now: Now, op: u64, rng: &mut dyn Rng) {
        let Some(wish) = self.wishes.get_mut(&op) else { return };
        wish.again = None;
        let terms = wish.terms;
        if self.book.is_closed() {
            return self.given_up(op, Trouble::Here(Refusal::Book));
        }
        let Some(sequence) = self.book.next(&self.me) else {
            return self.given_up(op, Trouble::Quota);
        };
        if terms.expires <= now.utc {
            return self.given_up(op, Trouble::Here(Refusal::Expired));
        }
        let epoch = self.view.epoch();
        let (network, number) = (epoch.network().id(), epoch.facts().epoch);
        let ticket = Ticket { network, epoch: number, trigger: self.me, sequence, terms };
        let (view, suite) = (self.view.clone(), self.identity.clone());
        match Trigger::after(view, suite, ticket, &mut self.book, &self.stalled) {
            // Nothing that could change in this epoch.
            Err(refusal) => self.given_up(op, Trouble::Here(refusal)),
            Ok(trigger) => {
                if let Some(wish) = self.wishes.get_mut(&op) {
                    wish.draws += 1;
                }
                let task = self.number();
                let role = Role::Trigger(trigger);
                self.tasks.insert(task, Task::new(role, Patron::Wish(op), now.time + WORK));
                self.run(now, task, rng, |_, _, _| {});
            }
        }
    }

    /// A draw of a wish came to nothing.
    pub(super) fn failed(&mut self, now: Now, op: u64, trouble: Trouble) {
        let Some(wish) = self.wishes.get_mut(&op) else { return };
        if !trouble.is_final() && wish.draws < MAX_TRIES {
            wish.again = Some(now.time + PAUSE.times(wish.draws.max(1).into()));
            return;
        }
        self.given_up(op, trouble);
    }

    /// No more draws are made for a wish.
    pub(super) fn given_up(&mut self, op: u64, trouble: Trouble) {
        let Some(Wish { draws, .. }) = self.wishes.remove(&op) else { return };
        self.outputs.push_back(Output::NotSelected { op, draws, trouble });
    }

    /// Keeps a draw in which somebody accepted and does not reveal: the next ones go on without, unless it answers the
    /// others.
    pub(super) fn remember(&mut self, task: u64) {
        let Some(Role::Trigger(trigger)) = self.tasks.get(&task).map(|found| &found.role) else { return };
        let Some(unfinished) = trigger.unfinished().cloned() else { return };
        let number = |one: &Unfinished| one.stalled().proposal.ticket.sequence;
        let at = self.stalled.partition_point(|one| number(one) < number(&unfinished));
        self.stalled.insert(at, unfinished);
        if self.stalled.len() > MAX_STALLED {
            self.stalled.remove(0);
        }
    }

    /// A witness passes on what somebody who was left out has revealed. Where an earlier draw is whole by that, it takes
    /// the place of the one under way; where not, the next draw goes on with that member.
    fn late(&mut self, now: Now, task: u64, (who, proof): (NodeId, Proof), rng: &mut dyn Rng) {
        let mut done = None;
        for one in self.stalled.iter_mut().filter(|one| one.awaits(&who)) {
            if let Ok(order) = one.reveal(&who, proof, &self.view, &mut self.identity) {
                done = order;
            }
        }
        self.stalled.retain(|one| !one.silent().is_empty());
        if let Some((place, order)) = done
            && self.is_wanted(now, task, &order)
        {
            self.route(now, task, place, order, rng);
        }
    }

    /// Whether an order is for what the wish of this task is for.
    fn is_wanted(&self, now: Now, task: u64, order: &Order) -> bool {
        let terms = order.draw.proposal.ticket.terms;
        let Some(Patron::Wish(op)) = self.tasks.get(&task).map(|found| found.patron) else { return false };
        self.wishes.get(&op).is_some_and(|wish| wish.terms == terms) && terms.expires > now.utc
    }

    /// A draw or a move is done: whoever is nearest to the place goes on.
    pub(super) fn route(&mut self, now: Now, task: u64, place: NodeId, order: Box<Order>, rng: &mut dyn Rng) {
        let Some(found) = self.tasks.get_mut(&task) else { return };
        if let Patron::Member(..) = found.patron {
            return self.reply(task, Message::Moved(order));
        }
        found.until = now.time + WORK;
        found.role = Role::Handing(Handing { order, place, candidates: VecDeque::new(), asked: None });
        found.talks.clear();
        let open: Vec<_> =
            self.talks.iter().filter(|(_, side)| side.task == task).map(|(talk, _)| *talk).collect();
        open.into_iter().for_each(|talk| self.end(talk));
        let block = Block::around(&place, self.view.region().bits());
        if block == *self.view.region() {
            let mut members: Vec<_> = self.view.ids().collect();
            members.sort_unstable_by_key(|id| place.distance(id));
            self.setters_may_be(now, task, members, rng);
        } else {
            self.outputs.push_back(Output::Find { wish: task, place });
        }
    }

    /// Who is nearest to the place that was asked for.
    pub(super) fn found(&mut self, now: Now, task: u64, members: Vec<NodeId>, rng: &mut dyn Rng) {
        let is_waiting = self.tasks.get(&task).is_some_and(|task| {
            matches!(&task.role, Role::Handing(handing) if handing.asked.is_none()) && task.probe.is_none()
        });
        if is_waiting {
            self.setters_may_be(now, task, members, rng);
        }
    }

    fn setters_may_be(&mut self, now: Now, task: u64, mut members: Vec<NodeId>, rng: &mut dyn Rng) {
        members.truncate(SETTERS);
        self.probe(now, task, members, &Message::Ping, rng);
    }

    /// These of the nearest members are there.
    pub(super) fn setters_are(&mut self, now: Now, task: u64, alive: &[NodeId]) {
        let Some(Role::Handing(handing)) = self.tasks.get_mut(&task).map(|task| &mut task.role) else {
            return;
        };
        let mut alive = alive.to_vec();
        alive.sort_unstable_by_key(|id| handing.place.distance(id));
        handing.candidates = alive.into();
        self.hand(now, task);
    }

    /// Asks the next candidate to be the setter.
    pub(super) fn hand(&mut self, now: Now, task: u64) {
        let Some(found) = self.tasks.get_mut(&task) else { return };
        let Role::Handing(handing) = &mut found.role else { return };
        handing.asked = handing.candidates.pop_front();
        match handing.asked {
            None => self.trouble(now, task, Trouble::NoSetter),
            Some(setter) => {
                let order = handing.order.clone();
                found.talks.clear();
                self.send(task, setter, Message::Order(order));
            }
        }
    }

    /// What the setter has answered.
    pub(super) fn set(&mut self, now: Now, task: u64, from: NodeId, message: Message, rng: &mut dyn Rng) {
        let Some(found) = self.tasks.get(&task) else { return };
        let (Role::Handing(handing), Patron::Wish(op)) = (&found.role, found.patron) else { return };
        if handing.asked != Some(from) {
            return;
        }
        match message {
            Message::Selected(list) => {
                if list.ticket != handing.order.draw.proposal.ticket {
                    return self.trouble(now, task, Trouble::Lied(from));
                }
                self.selected(now, task, op, *list);
            }
            Message::Moved(moved) => {
                let is_next = moved.draw == handing.order.draw
                    && moved.moves.len() == handing.order.moves.len() + 1
                    && moved.moves.starts_with(&handing.order.moves);
                match moved.place(&self.view, &mut self.identity) {
                    Ok(place) if is_next => self.route(now, task, place, moved, rng),
                    _ => self.trouble(now, task, Trouble::Lied(from)),
                }
            }
            // It has not begun: somebody else can.
            Message::Refused(Reason::Elsewhere | Reason::Book | Reason::Busy) => self.hand(now, task),
            Message::Refused(reason) => {
                self.trouble(now, task, Trouble::Refused { who: from, reason });
            }
            _ => {}
        }
    }

    fn selected(&mut self, now: Now, task: u64, op: u64, list: ActorList) {
        match list.verify_in(self.view.epoch().clone()) {
            Err(error) => self.trouble(now, task, Trouble::List(error)),
            Ok(list) => {
                self.finish(task);
                let draws = self.wishes.remove(&op).map_or(0, |wish| wish.draws);
                self.outputs.push_back(Output::Selected { op, list: Box::new(list), draws });
            }
        }
    }

    /// What somebody said to whom a task of this seat talks.
    pub(super) fn told(&mut self, now: Now, task: u64, from: NodeId, message: Message, rng: &mut dyn Rng) {
        let Some(found) = self.tasks.get_mut(&task) else { return };
        if matches!(message, Message::Reveal(_) | Message::Signed { .. } | Message::Insufficient(_)) {
            found.done.insert(from);
        }
        match (&found.role, message) {
            (Role::Handing(_), message) => self.set(now, task, from, message, rng),
            (Role::Trigger(_), Message::Late { from: who, proof }) => {
                self.late(now, task, (who, *proof), rng);
            }
            // The draw is over only once the others have revealed.
            (Role::Trigger(trigger), Message::Refused(reason)) if trigger.unfinished().is_none() => {
                self.trouble(now, task, Trouble::Refused { who: from, reason });
            }
            (Role::Setter(_), Message::Refused(reason)) => {
                self.trouble(now, task, Trouble::Refused { who: from, reason });
            }
            (Role::Witness(_) | Role::Builder(_), Message::Refused(_)) => self.finish(task),
            (_, message) => self.drive(now, task, hardened::Input::Heard { from, message }, rng),
        }
    }
}
