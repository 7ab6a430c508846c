use std::collections::BTreeMap;

use kith_identity::membership::{Block, NodeId};
use kith_sansio::{Now, Rng, Time};

use super::Node;
use super::keeping::Pending;
use crate::contact::Contact;
use crate::defaults::{ASK_BURST, ASK_EVERY, MAX_ASKERS, MAX_CARDS, MAX_PENDING, REPLICAS};
use crate::message::{Body, Message};
use crate::value::{Refusal, Value};

/// Who asked how much: until when the time is used that each question takes.
#[derive(Debug, Default)]
pub(super) struct Askers(BTreeMap<NodeId, Time>);

impl Askers {
    /// Whether one more question of this node is answered.
    fn admit(&mut self, who: &NodeId, now: Time) -> bool {
        if self.0.len() >= MAX_ASKERS && !self.0.contains_key(who) {
            self.0.retain(|_, until| *until > now);
            if self.0.len() >= MAX_ASKERS {
                return false;
            }
        }
        let until = self.0.entry(*who).or_insert(now);
        let next = (*until).max(now) + ASK_EVERY;
        let is_admitted = next - now <= ASK_EVERY.times(ASK_BURST);
        if is_admitted {
            *until = next;
        }
        is_admitted
    }
}

impl Node {
    /// Answers a question of a member; one that asks too much is not answered.
    pub(super) fn answer(&mut self, now: Now, from: &Contact, message: Message, rng: &mut dyn Rng) {
        if !self.askers.admit(&from.id, now.time) {
            return;
        }
        let answer = match message.body {
            Body::Ping { is_new } => {
                if is_new {
                    self.is_new(&from.id, now.time);
                }
                Body::Pong
            }
            Body::Find(place) => self.nearest(place, &from.id),
            Body::Get(key) => match self.store.value(now, &key) {
                Some(value) => Body::Found(value.clone()),
                None => self.nearest(key, &from.id),
            },
            Body::Store(value) => match self.keep(now, value, (from, message.id), rng) {
                // The answer comes when the value is on the disk.
                Ok(true) => return,
                Ok(false) => Body::Stored,
                Err(reason) => Body::Refused(reason),
            },
            Body::Block { bits, digest, after } => self.neighbours(from, bits, digest, after),
            Body::Gone(id) => return self.is_said_gone(&from.id, &id, now.time),
            _ => return,
        };
        self.say(from, message.id, answer);
    }

    fn nearest(&self, place: NodeId, asker: &NodeId) -> Body {
        Body::Nodes(self.routes.answer(place, REPLICAS, asker))
    }

    /// Keeps a value; whether the answer has to wait.
    fn keep(
        &mut self,
        now: Now,
        value: Value,
        (by, question): (&Contact, u64),
        rng: &mut dyn Rng,
    ) -> Result<bool, Refusal> {
        if self.unsafe_yet.len() >= MAX_PENDING {
            return Err(Refusal::Full);
        }
        let key = value.key;
        let nearer = |id: &NodeId| key.nearer(id, &self.own.id).is_lt();
        let others = self.routes.nearest(key).take(2 * REPLICAS);
        if others.filter(|known| nearer(&known.contact.id)).count() == 2 * REPLICAS {
            return Err(Refusal::TooFar);
        }
        self.store.put(now, value, by.id)?;
        self.is_kept(&key, now.time, rng);
        Ok(self.write(&key, Pending::Answer(by.clone(), question)))
    }

    fn neighbours(&self, from: &Contact, bits: u8, digest: [u8; 32], after: NodeId) -> Body {
        let block = Block::around(&from.id, bits);
        if block == self.routes.block() && digest == self.routes.digest() {
            return Body::Same;
        }
        let others = self.routes.region().iter().map(|known| &known.contact);
        let mut others = others.filter(|other| block.contains(&other.id) && other.id > after);
        let nodes = others.by_ref().filter(|other| other.id != from.id).take(MAX_CARDS).cloned().collect();
        Body::Page { nodes, more: others.next().is_some() }
    }
}
