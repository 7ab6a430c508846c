use std::collections::VecDeque;

use kith_identity::membership::NodeId;
use kith_sansio::{Now, Rng, Time};

use super::calls::Why;
use super::keeping::Pending;
use super::{Node, Output, Phase};
use crate::contact::{Contact, Nets};
use crate::defaults::{MAX_PER_NET, PATIENCE, QUORUM, REPLICAS, REQUEST};
use crate::lookup::Lookup;
use crate::message::Body;
use crate::value::{Refusal, Value};

/// A lookup and what it is for.
#[derive(Debug)]
pub(super) struct Task {
    lookup: Lookup,
    goal: Goal,
    /// When slow nodes are waited for no longer.
    press: Time,
    /// When it ends, whoever has not answered, because a value was found.
    ends: Option<Time>,
}

#[derive(Debug)]
pub(super) enum Goal {
    Find {
        op: u64,
        want: usize,
    },
    Get {
        op: u64,
        best: Option<Value>,
    },
    /// For a person, or to keep a value alive.
    Put {
        op: Option<u64>,
        value: Value,
    },
    Join,
    /// To know more nodes.
    Learn,
}

/// A value on its way to the nodes that keep it.
#[derive(Debug)]
pub(super) struct Copies {
    op: Option<u64>,
    value: Value,
    /// Who comes next where one fails.
    spare: VecDeque<Contact>,
    waiting: usize,
    stored: usize,
    refusal: Option<Refusal>,
}

impl Task {
    pub(super) fn poll_timeout(&self) -> Time {
        self.ends.map_or(self.press, |ends| ends.min(self.press))
    }

    /// Whether it asks for a value.
    fn question(&self) -> Body {
        match self.goal {
            Goal::Get { .. } => Body::Get(self.lookup.target()),
            _ => Body::Find(self.lookup.target()),
        }
    }
}

impl Node {
    pub(super) fn find(&mut self, now: Now, op: u64, place: NodeId, want: usize, rng: &mut dyn Rng) {
        self.start(now, place, want, Goal::Find { op, want }, rng);
    }

    pub(super) fn get(&mut self, now: Now, op: u64, key: NodeId, rng: &mut dyn Rng) {
        if let Some(value) = self.store.value(now, &key).cloned() {
            return self.outputs.push_back(Output::Got { op, value: Some(value) });
        }
        self.start(now, key, REPLICAS, Goal::Get { op, best: None }, rng);
    }

    pub(super) fn put(&mut self, now: Now, op: Option<u64>, value: Value, rng: &mut dyn Rng) {
        self.start(now, value.key, REPLICAS, Goal::Put { op, value }, rng);
    }

    /// How many values are on their way to their nodes again.
    pub(super) fn renewing(&self) -> usize {
        let looks = self.tasks.values().filter(|task| matches!(task.goal, Goal::Put { op: None, .. }));
        looks.count() + self.copies.values().filter(|copies| copies.op.is_none()).count()
    }

    /// Begins a lookup at the nearest nodes that are known.
    pub(super) fn start(&mut self, now: Now, target: NodeId, want: usize, goal: Goal, rng: &mut dyn Rng) {
        let count = REPLICAS.max(self.config.alpha * self.config.paths);
        let seeds = self.routes.answer(target, count, &self.own.id);
        self.start_at(now, target, want, goal, seeds, rng);
    }

    pub(super) fn start_at(
        &mut self,
        now: Now,
        target: NodeId,
        want: usize,
        goal: Goal,
        seeds: Vec<Contact>,
        rng: &mut dyn Rng,
    ) {
        let lookup = Lookup::new(target, want, &self.config, self.routes.scope(), seeds);
        self.next_task += 1;
        self.tasks.insert(self.next_task, Task { lookup, goal, press: now.time + PATIENCE, ends: None });
        self.advance(now, self.next_task, rng);
    }

    pub(super) fn lookup_answered(
        &mut self,
        now: Now,
        id: u64,
        from: &Contact,
        mut body: Body,
        rng: &mut dyn Rng,
    ) {
        if let Body::Nodes(named) = &mut body {
            let mut nets = Nets::new(self.routes.scope());
            named.retain(|other| self.may_be_asked(other, now.utc) && nets.admit(other, MAX_PER_NET));
            named.truncate(REPLICAS);
        }
        let Some(task) = self.tasks.get_mut(&id) else { return };
        match (body, &mut task.goal) {
            (Body::Nodes(named), _) => {
                task.lookup.answered(&from.id, named.iter().cloned());
                named.into_iter().for_each(|contact| self.is_rumoured(contact, now));
            }
            (Body::Found(value), Goal::Get { best, .. }) if value.key == task.lookup.target() => {
                if best.as_ref().is_none_or(|best| value.replaces(best)) {
                    *best = Some(value);
                }
                task.lookup.found(&from.id);
                // The others may have a newer one: each path goes on, as long as a request may take.
                task.ends.get_or_insert(now.time + REQUEST);
            }
            _ => task.lookup.failed(&from.id),
        }
        self.advance(now, id, rng);
    }

    pub(super) fn lookup_failed(&mut self, now: Now, id: u64, who: &NodeId, rng: &mut dyn Rng) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.lookup.failed(who);
            self.advance(now, id, rng);
        }
    }

    /// Lets lookups go on without those that are slow, and ends those whose time is over.
    pub(super) fn press_on(&mut self, now: Now, rng: &mut dyn Rng) {
        let due = self.tasks.iter().filter(|(_, task)| task.poll_timeout() <= now.time);
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        for id in due {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            if task.ends.is_some_and(|ends| ends <= now.time) {
                self.finish(now, id, rng);
                continue;
            }
            task.lookup.press_on();
            task.press = now.time + PATIENCE;
            self.advance(now, id, rng);
        }
    }

    /// Asks whoever is next, or ends the lookup.
    fn advance(&mut self, now: Now, id: u64, rng: &mut dyn Rng) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let (batch, question) = (task.lookup.next_round(), task.question());
        if !batch.is_empty() {
            task.press = now.time + PATIENCE;
        } else if task.lookup.is_finished() || task.ends.is_some() && task.lookup.is_settled() {
            return self.finish(now, id, rng);
        }
        for contact in batch {
            self.ask(&contact, now.time, question.clone(), Why::Task(id));
        }
    }

    fn finish(&mut self, now: Now, id: u64, rng: &mut dyn Rng) {
        let Some(Task { lookup, goal, .. }) = self.tasks.remove(&id) else { return };
        match goal {
            Goal::Find { op, want } => {
                let nodes: Vec<_> = lookup.nearest().take(want).cloned().collect();
                let hops = nodes.first().and_then(|nearest| lookup.round_of(&nearest.id)).unwrap_or(0);
                self.outputs.push_back(Output::Found { op, nodes, hops, requests: lookup.requests() });
            }
            Goal::Get { op, best } => self.outputs.push_back(Output::Got { op, value: best }),
            Goal::Put { op, value } => self.copy(now, id, op, value, &lookup, rng),
            Goal::Join => self.found_region(now, &lookup, rng),
            Goal::Learn => {}
        }
    }

    /// Sends a value to the nearest nodes that answered, this one among them where it is.
    fn copy(&mut self, now: Now, id: u64, op: Option<u64>, value: Value, lookup: &Lookup, rng: &mut dyn Rng) {
        let mut spare: VecDeque<_> = lookup.nearest().cloned().collect();
        let furthest = spare.get(REPLICAS - 1).map(|contact| contact.id);
        let is_near = furthest.is_none_or(|id| value.key.nearer(&self.own.id, &id).is_lt());
        let mut copies = Copies { op, value, spare: VecDeque::new(), waiting: 0, stored: 0, refusal: None };
        if is_near && self.phase != Phase::Left {
            match self.store.put(now, copies.value.clone(), self.own.id) {
                Ok(_) => {
                    self.is_kept(&copies.value.key, now.time, rng);
                    match self.write(&copies.value.key, Pending::Copy(id)) {
                        true => copies.waiting = 1,
                        false => copies.stored = 1,
                    }
                }
                Err(reason) => copies.refusal = Some(reason),
            }
        }
        let others = REPLICAS - copies.stored - copies.waiting;
        let first: Vec<_> = spare.drain(..spare.len().min(others)).collect();
        copies.spare = spare;
        copies.waiting += first.len();
        for contact in &first {
            self.ask(contact, now.time, Body::Store(copies.value.clone()), Why::Copy(id));
        }
        self.copies.insert(id, copies);
        self.end_copies(id);
    }

    pub(super) fn copy_answered(&mut self, now: Time, id: u64, body: &Body) {
        let Some(copies) = self.copies.get_mut(&id) else { return };
        match body {
            Body::Stored => {
                copies.stored += 1;
                copies.waiting -= 1;
                self.end_copies(id);
            }
            Body::Refused(reason) => self.copy_failed(now, id, Some(*reason)),
            _ => self.copy_failed(now, id, None),
        }
    }

    /// The next nearest takes the place of one that did not store a value, unless that would not take it either.
    pub(super) fn copy_failed(&mut self, now: Time, id: u64, refusal: Option<Refusal>) {
        let Some(copies) = self.copies.get_mut(&id) else { return };
        copies.refusal = refusal.or(copies.refusal);
        let is_at_fault = refusal.is_some_and(Refusal::is_about_the_value);
        match copies.spare.pop_front().filter(|_| !is_at_fault) {
            Some(next) => {
                let question = Body::Store(copies.value.clone());
                self.ask(&next, now, question, Why::Copy(id));
            }
            None => {
                copies.waiting -= 1;
                self.end_copies(id);
            }
        }
    }

    fn end_copies(&mut self, id: u64) {
        if self.copies.get(&id).is_none_or(|copies| copies.waiting > 0) {
            return;
        }
        let Some(Copies { op: Some(op), stored: nodes, refusal, .. }) = self.copies.remove(&id) else {
            return;
        };
        // The epoch may have begun before those joined whom this node knows.
        let needed = quorum(self.routes.members().max(self.routes.len() as u64 + 1));
        self.outputs.push_back(match nodes >= needed {
            true => Output::Stored { op, nodes },
            false => Output::NotStored { op, nodes, needed, refusal },
        });
    }
}

/// On how many nodes a value has to be before it counts as stored: on more than may be lost at a time.
pub(crate) fn quorum(members: u64) -> usize {
    usize::try_from(members / 3 + 1).map_or(QUORUM, |third| third.min(QUORUM))
}
