//! What others ask of a member.

use kith_identity::PublicKey;
use kith_identity::membership::pledge::Pledge;
use kith_identity::membership::{MemberLeaf, NodeId};
use kith_sansio::{Now, Rng};

use super::{MAX_TASKS, MAX_TASKS_OF_ONE, Output, Patron, Role, Seat, Side, Talk, Task, WORK};
use crate::hardened::{self, Builder, Draw, Message, Proposal, Reason, Reminder, Setter, Witness};
use crate::scheme::Signature;

impl Seat {
    /// The first thing that a member says in a talk that it has opened.
    pub(super) fn asked(&mut self, now: Now, talk: Talk, from: NodeId, message: Message, rng: &mut dyn Rng) {
        let (view, suite) = (self.view.clone(), self.identity.clone());
        let role = match &message {
            // It takes no part: no group and no list is to wait for it.
            Message::Ping | Message::Remind(_) if self.book.is_closed() => {
                return self.refuse(talk, from, Reason::Book);
            }
            Message::Ping => {
                self.say(talk, from, Message::Pong);
                return self.end(talk);
            }
            Message::Remind(reminder) if reminder.leaves_out(&self.me) => {
                return self.reminded(talk, from, reminder);
            }
            Message::Propose(_) | Message::Remind(_) | Message::Build(_) | Message::Order(_)
                if !self.has_room(&from) =>
            {
                return self.refuse(talk, from, Reason::Busy);
            }
            Message::Propose(proposal) => {
                self.note_ticket(proposal);
                Ok(Role::Witness(Witness::new(view, self.me, suite)))
            }
            Message::Remind(reminder) => {
                self.note_tickets(reminder);
                Ok(Role::Witness(Witness::new(view, self.me, suite)))
            }
            Message::Build(job) => {
                self.note_draw(&job.order.draw);
                Ok(Role::Builder(Builder::new(view, self.me, suite)))
            }
            Message::Order(order) => {
                self.note_draw(&order.draw);
                Setter::new(view, suite, (**order).clone()).map(Role::Setter)
            }
            _ => return self.end(talk),
        };
        match role {
            Ok(role) => self.begin(now, (talk, from), role, message, rng),
            Err(refusal) => self.refuse(talk, from, Reason::of(&refusal)),
        }
    }

    fn begin(
        &mut self,
        now: Now,
        (talk, from): (Talk, NodeId),
        role: Role,
        message: Message,
        rng: &mut dyn Rng,
    ) {
        let task = self.number();
        self.tasks.insert(task, Task::new(role, Patron::Member(from, talk), now.time + WORK));
        self.talks.insert(talk, Side { task, peer: from, is_probe: false });
        match message {
            // The setter has it already.
            Message::Order(_) => self.run(now, task, rng, |_, _, _| {}),
            message => self.drive(now, task, hardened::Input::Heard { from, message }, rng),
        }
    }

    /// A trigger has this member left out because of a draw that stalled: whoever passes that on is given what is owed.
    fn reminded(&mut self, talk: Talk, from: NodeId, reminder: &Reminder) {
        self.note_tickets(reminder);
        match reminder.answer(&self.me, &self.view, &mut self.identity) {
            Ok(proof) => {
                self.say(talk, from, Message::Reveal(proof));
                self.end(talk);
            }
            Err(refusal) => self.refuse(talk, from, Reason::of(&refusal)),
        }
    }

    fn refuse(&mut self, talk: Talk, from: NodeId, reason: Reason) {
        self.say(talk, from, Message::Refused(reason));
        self.end(talk);
    }

    /// Whether this member may have something done here.
    fn has_room(&self, of: &NodeId) -> bool {
        let patrons = self.tasks.values().filter_map(|task| match task.patron {
            Patron::Member(patron, _) => Some(patron),
            Patron::Wish(_) => None,
        });
        let (all, own) = patrons.fold((0, 0), |(all, own), one| (all + 1, own + usize::from(one == *of)));
        all < MAX_TASKS && own < MAX_TASKS_OF_ONE
    }

    /// Remembers what a trigger has signed: another ticket of the same number is evidence against it.
    fn note_ticket(&mut self, proposal: &Proposal) {
        let Ok(trigger) = self.view.epoch().member(&proposal.trigger).copied() else { return };
        if trigger.id == proposal.ticket.trigger {
            self.note(&trigger, proposal.ticket.pledge(&proposal.group), proposal.signature);
        }
    }

    fn note_tickets(&mut self, reminder: &Reminder) {
        self.note_ticket(&reminder.proposal);
        reminder.stalled.iter().for_each(|draw| self.note_ticket(&draw.proposal));
    }

    /// Remembers what trigger and witnesses of a draw have signed.
    fn note_draw(&mut self, draw: &Draw) {
        self.note_ticket(&draw.proposal);
        let pledge = draw.proposal.ticket.pledge(&draw.proposal.group);
        for share in &draw.shares {
            let Ok(witness) = self.view.epoch().member(&share.witness).copied() else { return };
            self.note(&witness, pledge, share.signature);
        }
    }

    fn note(&mut self, signer: &MemberLeaf, pledge: Pledge, signature: Signature) {
        let Ok(key) = PublicKey::from_bytes(&signer.key) else { return };
        if pledge.slot.network != self.view.epoch().network().id() || pledge.verify(&key, &signature).is_err()
        {
            return;
        }
        if let Some(evidence) = self.seen.note(&key, pledge, signature) {
            if !self.book.is_barred(signer) && self.book.bar(signer, &evidence) {
                self.outputs.push_back(Output::Keep(self.book.to_bytes()));
            }
            self.outputs.push_back(Output::Accuse(Box::new(evidence)));
        }
    }
}
