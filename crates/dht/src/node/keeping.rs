use std::collections::BTreeSet;

use kith_identity::membership::NodeId;
use kith_sansio::{Now, Rng, Span, Time};

use super::calls::Why;
use super::{Node, Output};
use crate::contact::Contact;
use crate::defaults::{MAX_RENEWALS, MAX_REPAIRS, MAX_SERVINGS, RENEW, REPAIRERS, REPLICAS, SETTLE, SYNC};
use crate::message::Body;
use crate::value::Value;

/// What a node was brought since a while ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    since: Time,
    copies: usize,
}

/// Who waits until a value is on the disk.
#[derive(Debug)]
pub(super) enum Pending {
    /// A member that brought it, and the number of its question.
    Answer(Contact, u64),
    /// A task that stores it.
    Copy(u64),
}

impl Node {
    /// Takes back what it kept before it was started again.
    pub(super) fn restore(&mut self, now: Now, values: Vec<(Value, NodeId)>, rng: &mut dyn Rng) {
        for (value, by) in values {
            let key = value.key;
            match self.store.restore(now, value, by) {
                Ok(()) => self.renew_later(&key, now.time, rng),
                Err(_) => self.outputs.push_back(Output::Forget(key)),
            }
        }
    }

    /// The others had these values before, too: nobody needs to bring them what was restored.
    pub(super) fn assume_holders(&mut self) {
        let restored = self.store.all_mut().filter(|held| held.holders.is_empty());
        let keys: Vec<_> = restored.map(|held| held.value.key).collect();
        for key in keys {
            let holders = self.keepers(&key);
            if let Some(held) = self.store.held_mut(&key) {
                held.holders = holders;
            }
        }
    }

    /// Has a value of the store written; whether somebody has to wait for that.
    pub(super) fn write(&mut self, key: &NodeId, pending: Pending) -> bool {
        let held = self.store.held_mut(key).filter(|_| self.is_durable);
        let Some((value, by)) = held.map(|held| (held.value.clone(), held.by)) else { return false };
        self.forget_gone();
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.unsafe_yet.insert(ticket, pending);
        self.outputs.push_back(Output::Keep { ticket, value, by });
        true
    }

    pub(super) fn is_safe(&mut self, now: Time, ticket: u64, is_safe: bool) {
        match (self.unsafe_yet.remove(&ticket), is_safe) {
            (Some(Pending::Answer(to, id)), true) => self.say(&to, id, Body::Stored),
            (Some(Pending::Copy(task)), true) => self.copy_answered(now, task, &Body::Stored),
            (Some(Pending::Copy(task)), false) => self.copy_failed(now, task, None),
            // Who brought it gets no answer, and looks for another one.
            (Some(Pending::Answer(..)) | None, _) => {}
        }
    }

    /// What left the store leaves the disk.
    pub(super) fn forget_gone(&mut self) {
        let gone = self.store.take_gone();
        if self.is_durable {
            self.outputs.extend(gone.into_iter().map(Output::Forget));
        }
    }

    /// A value was brought here, so others have it too, and nobody needs to bring it again for a while.
    pub(super) fn is_kept(&mut self, key: &NodeId, now: Time, rng: &mut dyn Rng) {
        let holders = self.keepers(key);
        if let Some(held) = self.store.held_mut(key)
            && held.holders.is_empty()
        {
            held.holders = holders;
        }
        self.renew_later(key, now, rng);
    }

    fn renew_later(&mut self, key: &NodeId, now: Time, rng: &mut dyn Rng) {
        self.store.renew_at(key, now + Span(RENEW.0 + rng.below(RENEW.0)));
    }

    /// A neighbour has just come, perhaps once more: it has no values.
    pub(super) fn is_new(&mut self, id: &NodeId, now: Time) {
        let is_neighbour = self.routes.block().contains(id) && self.routes.find(id).is_some();
        if is_neighbour && self.emptied.insert(*id) {
            self.region_changed(id, now);
        }
    }

    /// Believes those that say that they have no values. Whoever was brought some not long ago has to wait, because that
    /// costs more than to say so.
    fn believe_emptied(&mut self, now: Time) {
        self.served.retain(|_, served| now - served.since < SYNC);
        let (later, emptied) =
            std::mem::take(&mut self.emptied).into_iter().partition(|id| self.served.contains_key(id));
        let emptied: BTreeSet<NodeId> = emptied;
        self.emptied = later;
        self.store.all_mut().for_each(|held| held.holders.retain(|id| !emptied.contains(id)));
    }

    /// Drops what has expired, repairs what lost nodes, and renews what nobody brought for long.
    pub(super) fn tend(&mut self, now: Now, rng: &mut dyn Rng) {
        self.store.expire(now);
        self.tidy_absent(now.time);
        let ended = self.routes.expire(now.utc);
        ended.iter().for_each(|id| drop(self.rumours.remove(id)));
        self.emptied.retain(|id| self.routes.find(id).is_some());
        self.believe_emptied(now.time);
        let block = self.routes.block();
        let mut stale = Vec::new();
        for held in self.store.all_mut() {
            held.holders.retain(|id| self.routes.find(id).is_some());
            if block.contains(&held.value.key) {
                stale.push(held.value.key);
            }
        }
        let mut left = MAX_REPAIRS;
        stale.iter().for_each(|key| self.repair(key, now.time, &mut left));
        self.renew(now, rng);
        if left == 0 || self.store.due(now.time).is_some() {
            self.timers.tend = Some(now.time + SETTLE);
        }
    }

    /// Brings to their nodes again what is due for longest, a few values at a time.
    fn renew(&mut self, now: Now, rng: &mut dyn Rng) {
        for _ in self.renewing()..MAX_RENEWALS {
            let Some(value) = self.store.due(now.time).cloned() else { return };
            self.renew_later(&value.key, now.time, rng);
            self.put(now, None, value, rng);
        }
    }

    /// Brings a value to nodes that have become one of its nearest, where this is one of the nearest that have it.
    fn repair(&mut self, key: &NodeId, now: Time, left: &mut usize) {
        let keepers = self.keepers(key);
        let Some(held) = self.store.held_mut(key) else { return };
        let (holders, value) = (held.holders.clone(), held.value.clone());
        let own = self.own.id;
        if holders.iter().filter(|id| key.nearer(id, &own).is_lt()).count() >= REPAIRERS {
            return;
        }
        let most = self.store.len() * MAX_SERVINGS;
        for id in keepers.iter().filter(|id| !holders.contains(id)) {
            let Some(contact) = self.routes.find(id).map(|known| known.contact.clone()) else { continue };
            if *left == 0 {
                return;
            }
            let served = self.served.entry(*id).or_insert(Served { since: now, copies: 0 });
            if served.copies >= most {
                continue;
            }
            served.copies += 1;
            *left -= 1;
            self.ask(&contact, now, Body::Store(value.clone()), Why::Repair(*key));
        }
    }

    pub(super) fn repaired(&mut self, key: &NodeId, by: &Contact, body: &Body) {
        // One that refuses is not asked again before the value is renewed.
        if let (Some(held), Body::Stored | Body::Refused(_)) = (self.store.held_mut(key), body) {
            held.holders.retain(|id| *id != by.id);
            held.holders.push(by.id);
        }
    }

    /// The nodes nearest to a key, as far as this one knows, but itself.
    fn keepers(&self, key: &NodeId) -> Vec<NodeId> {
        self.routes.nearest(*key).take(REPLICAS - 1).map(|known| known.contact.id).collect()
    }
}
