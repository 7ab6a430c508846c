//! One search for a fingerprint on one network.

use kith_identity::Fingerprint;
use kith_identity::record::RecordSet;
use kith_sansio::{Rng, Time, Timestamp};

use super::message::Seen;
use super::name::{Instance, Nonce, Salt};
use super::seal::{Ask, Opened, joined, open};
use crate::defaults::{LAN_ASK_AGAIN, LAN_TRIES};

/// Questions of one search whose answers are still taken; old ones go.
const MAX_ASKED: usize = 8;

/// What is known of a search.
#[derive(Debug)]
pub(super) struct Search {
    target: Fingerprint,
    asked: Vec<Asked>,
    again: Option<Time>,
    tries_left: u32,
    over: bool,
}

/// A question, and as much of its answer as has come.
#[derive(Debug)]
struct Asked {
    ask: Ask,
    salt: Salt,
    answer: Option<(Nonce, Vec<Option<Vec<u8>>>)>,
}

impl Search {
    pub(super) fn new(target: Fingerprint) -> Search {
        Search { target, asked: Vec::new(), again: None, tries_left: 0, over: false }
    }

    /// Whether the set is still wanted.
    pub(super) fn is_open(&self) -> bool {
        !self.over
    }

    /// Whether this is the node that is looked for.
    pub(super) fn recognises(&self, instance: &Instance, salt: &Salt) -> bool {
        Instance::of(&self.target, salt) == *instance
    }

    /// The question to ask where the node that is looked for shows itself, unless it was asked already.
    pub(super) fn meets(&mut self, now: Time, seen: &Seen, rng: &mut dyn Rng) -> Option<Ask> {
        let known = self.asked.iter().any(|asked| asked.ask.instance == seen.instance);
        if self.over || known || !self.recognises(&seen.instance, &seen.salt) {
            return None;
        }
        self.tries_left = LAN_TRIES;
        Some(self.ask(now, seen.salt, rng))
    }

    fn ask(&mut self, now: Time, salt: Salt, rng: &mut dyn Rng) -> Ask {
        let ask = Ask::new(&self.target, &salt, Nonce::draw(rng));
        if self.asked.len() >= MAX_ASKED {
            self.asked.remove(0);
        }
        self.asked.push(Asked { ask, salt, answer: None });
        self.tries_left = self.tries_left.saturating_sub(1);
        self.again = (self.tries_left > 0).then_some(now + LAN_ASK_AGAIN);
        ask
    }

    /// The question once more, where no answer has come to it in time.
    pub(super) fn due(&mut self, now: Time, rng: &mut dyn Rng) -> Option<Ask> {
        if self.over || self.again.is_none_or(|at| now < at) {
            return None;
        }
        let salt = self.asked.last()?.salt;
        Some(self.ask(now, salt, rng))
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.again.filter(|_| !self.over)
    }

    /// Takes in a sealed piece; the set where it was the last one that was missing. Others who know the fingerprint
    /// can answer too, so that a set which is not valid for it at `now` is no answer.
    pub(super) fn hears(&mut self, now: Timestamp, ask: &Ask, piece: &[u8]) -> Option<RecordSet> {
        if self.over {
            return None;
        }
        let asked = self.asked.iter_mut().find(|asked| asked.ask == *ask)?;
        let opened = open(&self.target, &asked.salt, &ask.nonce, piece)?;
        let set = RecordSet::from_bytes(&asked.put(opened)?).ok()?;
        set.clone().verify(&self.target, now).ok()?;
        self.over = true;
        Some(set)
    }
}

impl Asked {
    /// The whole answer, where this piece completes it.
    fn put(&mut self, opened: Opened) -> Option<Vec<u8>> {
        let count = usize::from(opened.count);
        let begun = self
            .answer
            .as_ref()
            .is_some_and(|(answer, pieces)| *answer == opened.answer && pieces.len() == count);
        if !begun {
            self.answer = Some((opened.answer, vec![None; count]));
        }
        let (_, pieces) = self.answer.as_mut()?;
        *pieces.get_mut(usize::from(opened.index))? = Some(opened.bytes);
        let whole: Option<Vec<Vec<u8>>> = pieces.iter().cloned().collect();
        joined(&whole?)
    }
}
