use kith_identity::membership::NodeId;
use kith_sansio::{Now, Rng, Span, Time};

use super::Node;
use super::calls::Why;
use crate::contact::Contact;
use crate::defaults::{MAX_REPAIRS, RENEW, REPLICAS, SETTLE, SYNC};
use crate::message::Body;

impl Node {
    /// A value was brought here, so others have it too, and nobody needs to bring it again for a while.
    pub(super) fn is_kept(&mut self, key: &NodeId, now: Time, rng: &mut dyn Rng) {
        let holders = self.keepers(key);
        if let Some(held) = self.store.held_mut(key) {
            if held.holders.is_empty() {
                held.holders = holders;
            }
            held.renew = now + Span(RENEW.0 + rng.below(RENEW.0));
        }
    }

    /// A neighbour has just come, perhaps once more: it has no values. It is believed that now and then, because values
    /// are brought to it for it.
    pub(super) fn is_new(&mut self, id: &NodeId, now: Time) {
        let is_recent = self.arrivals.get(id).is_some_and(|last| now - *last < SYNC);
        if is_recent || !self.routes.block().contains(id) {
            return;
        }
        self.arrivals.insert(*id, now);
        self.store.all_mut().for_each(|held| held.holders.retain(|holder| holder != id));
        self.region_changed(id, now);
    }

    /// Drops what has expired, repairs what lost nodes, and renews what nobody brought for long.
    pub(super) fn tend(&mut self, now: Now, rng: &mut dyn Rng) {
        self.store.expire(now);
        let ended = self.routes.expire(now.utc);
        ended.iter().for_each(|id| drop(self.rumours.remove(id)));
        self.arrivals.retain(|_, last| now.time - *last < SYNC);
        let block = self.routes.block();
        let (mut due, mut stale) = (Vec::new(), Vec::new());
        for held in self.store.all_mut() {
            held.holders.retain(|id| self.routes.find(id).is_some());
            if held.renew <= now.time {
                held.renew = now.time + Span(RENEW.0 + rng.below(RENEW.0));
                due.push(held.value.clone());
            } else if block.contains(&held.value.key) {
                stale.push(held.value.key);
            }
        }
        due.into_iter().for_each(|value| self.put(now, None, value, rng));
        let mut left = MAX_REPAIRS;
        stale.iter().for_each(|key| self.repair(key, now.time, &mut left));
        if left == 0 {
            self.timers.tend = Some(now.time + SETTLE);
        }
    }

    /// Brings a value to nodes that have become one of its nearest, where this is the nearest that has it.
    fn repair(&mut self, key: &NodeId, now: Time, left: &mut usize) {
        let keepers = self.keepers(key);
        let Some(held) = self.store.held_mut(key) else { return };
        let (holders, value) = (held.holders.clone(), held.value.clone());
        let own = self.own.id;
        if holders.iter().any(|id| key.nearer(id, &own).is_lt()) {
            return;
        }
        for id in keepers.iter().filter(|id| !holders.contains(id)) {
            let Some(contact) = self.routes.find(id).map(|known| known.contact.clone()) else { continue };
            if *left == 0 {
                return;
            }
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
