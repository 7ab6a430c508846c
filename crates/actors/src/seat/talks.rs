//! Talks with other members, and whether they are there.

use std::collections::BTreeMap;

use kith_identity::membership::NodeId;
use kith_sansio::{Machine, Now, Rng};

use super::{Input, Output, PROBE, Patron, Probe, Role, Seat, Side, Talk, Trouble};
use crate::hardened::{self, Message, Reason};

impl Seat {
    /// Says something in a talk; to itself as if it were another.
    pub(super) fn say(&mut self, talk: Talk, to: NodeId, message: Message) {
        if to != self.me {
            return self.outputs.push_back(Output::Say { talk, to, message });
        }
        let other = match self.mirrors.get(&talk) {
            Some(other) => *other,
            None => {
                // The other end is as if somebody else had opened it; no driver counts so far.
                let other = Talk(u64::MAX - 2 * self.number());
                self.mirrors.extend([(talk, other), (other, talk)]);
                other
            }
        };
        self.loops.push_back(Input::Heard { talk: other, from: to, message });
    }

    pub(super) fn end(&mut self, talk: Talk) {
        self.talks.remove(&talk);
        match self.mirrors.remove(&talk) {
            Some(other) => {
                self.mirrors.remove(&other);
                self.loops.push_back(Input::Closed(other));
            }
            None => self.outputs.push_back(Output::End(talk)),
        }
    }

    /// Opens a talk of a task.
    pub(super) fn open(&mut self, task: u64, peer: NodeId, is_probe: bool) -> Talk {
        let talk = Talk(2 * self.number());
        self.talks.insert(talk, Side { task, peer, is_probe });
        talk
    }

    /// What a machine says to somebody.
    pub(super) fn send(&mut self, task: u64, to: NodeId, message: Message) {
        let Some(found) = self.tasks.get(&task) else { return };
        let is_last =
            matches!(message, Message::Reveal(_) | Message::Signed { .. } | Message::Insufficient(_));
        match (found.patron, found.talks.get(&to).copied()) {
            (Patron::Member(patron, _), _) if patron == to && is_last => self.reply(task, message),
            (Patron::Member(patron, talk), _)
                if patron == to && matches!(found.role, Role::Witness(_) | Role::Builder(_)) =>
            {
                self.say(talk, to, message);
            }
            (_, Some(talk)) => self.say(talk, to, message),
            (_, None) => {
                let talk = self.open(task, to, false);
                if let Some(found) = self.tasks.get_mut(&task) {
                    found.talks.insert(to, talk);
                }
                self.say(talk, to, message);
            }
        }
    }

    /// Asks members one thing: whether they are there, or what they owe.
    pub(super) fn probe(
        &mut self,
        now: Now,
        task: u64,
        ids: Vec<NodeId>,
        question: &Message,
        rng: &mut dyn Rng,
    ) {
        let (own, others): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| *id == self.me);
        let waiting: BTreeMap<_, _> = others.into_iter().map(|id| (self.open(task, id, true), id)).collect();
        for (talk, id) in &waiting {
            self.say(*talk, *id, question.clone());
        }
        let is_done = waiting.is_empty();
        if let Some(found) = self.tasks.get_mut(&task) {
            let is_there = !self.book.is_closed();
            let answers = own.into_iter().filter(|_| is_there).map(|id| (id, Message::Pong)).collect();
            let is_reminder = *question != Message::Ping;
            found.probe = Some(Probe { waiting, answers, is_reminder, until: now.time + PROBE });
        }
        if is_done {
            self.conclude(now, task, rng);
        }
    }

    /// A member that was asked has said something.
    pub(super) fn probed(&mut self, now: Now, talk: Talk, answer: Message, rng: &mut dyn Rng) {
        let Some(side) = self.talks.get(&talk).copied() else { return };
        if let Some(probe) = self.tasks.get_mut(&side.task).and_then(|task| task.probe.as_mut()) {
            probe.answers.push((side.peer, answer));
        }
        self.end(talk);
        self.unprobed(now, side.task, talk, rng);
    }

    /// Nothing more comes in this talk of a probe.
    pub(super) fn unprobed(&mut self, now: Now, task: u64, talk: Talk, rng: &mut dyn Rng) {
        let Some(probe) = self.tasks.get_mut(&task).and_then(|task| task.probe.as_mut()) else { return };
        if probe.waiting.remove(&talk).is_some() && probe.waiting.is_empty() {
            self.conclude(now, task, rng);
        }
    }

    /// The probe of a task is over.
    fn conclude(&mut self, now: Now, task: u64, rng: &mut dyn Rng) {
        let Some(found) = self.tasks.get_mut(&task) else { return };
        let Some(Probe { waiting, answers, is_reminder, .. }) = found.probe.take() else { return };
        let is_handing = matches!(found.role, Role::Handing(_));
        waiting.into_keys().for_each(|talk| self.end(talk));
        if is_reminder {
            return self.drive(now, task, hardened::Input::Answered(answers), rng);
        }
        let are_there = answers.into_iter().filter(|(_, answer)| *answer == Message::Pong);
        let alive: Vec<_> = are_there.map(|(id, _)| id).collect();
        if is_handing {
            self.setters_are(now, task, &alive);
        } else {
            self.drive(now, task, hardened::Input::Alive(alive), rng);
        }
    }

    /// A talk of a task has ended by the other side.
    pub(super) fn left(&mut self, now: Now, talk: Talk, side: Side, rng: &mut dyn Rng) {
        let Some(task) = self.tasks.get_mut(&side.task) else { return };
        task.talks.retain(|_, other| *other != talk);
        if matches!(task.patron, Patron::Member(_, of_patron) if of_patron == talk) {
            return self.finish(side.task);
        }
        let is_missed = !task.done.contains(&side.peer);
        match &task.role {
            Role::Handing(handing) if handing.asked == Some(side.peer) => self.hand(now, side.task),
            Role::Trigger(trigger) if is_missed && trigger.unfinished().is_some() => {
                let heard =
                    hardened::Input::Heard { from: side.peer, message: Message::Refused(Reason::Others) };
                self.drive(now, side.task, heard, rng);
            }
            Role::Trigger(_) | Role::Setter(_) if is_missed => {
                self.trouble(now, side.task, Trouble::Unanswered(vec![side.peer]));
            }
            _ => {}
        }
    }

    /// Lets what is due of a task happen.
    pub(super) fn due(&mut self, now: Now, task: u64, rng: &mut dyn Rng) {
        let Some(found) = self.tasks.get(&task) else { return };
        if found.probe.as_ref().is_some_and(|probe| probe.until <= now.time) {
            self.conclude(now, task, rng);
        }
        self.run(now, task, rng, |role, _, rng| match role {
            Role::Trigger(trigger) => trigger.handle_timeout(now, rng),
            Role::Setter(setter) => setter.handle_timeout(now, rng),
            Role::Witness(_) | Role::Builder(_) | Role::Handing(_) => {}
        });
        if self.tasks.get(&task).is_some_and(|found| found.until <= now.time) {
            self.trouble(now, task, Trouble::Late);
        }
    }
}
