//! How a node shows itself on one network, and whom it answers.

use std::collections::{BTreeMap, VecDeque};

use kith_identity::Fingerprint;
use kith_sansio::{Now, Rng, Span, Time};

use super::message::{self, Query, TTL_SECS};
use super::name::{Instance, Nonce, Salt};
use super::seal::{Ask, seal};
use crate::defaults::{
    LAN_ANSWERS_BURST, LAN_ANSWERS_PER_SECOND, LAN_NONCES, LAN_QUESTIONS, LAN_SALT_LIFE, LAN_SAY_EVERY,
};
use crate::limiter::{Limiter, Rate};

/// How often a node says that it has come.
const ANNOUNCEMENTS: u8 = 2;
/// Shortest and longest time before an answer that others may give too (RFC 6762 §6).
const DELAY_MILLIS: (u64, u64) = (20, 120);

/// A node on one network, under the name of the hour.
#[derive(Debug)]
pub(super) struct Presence {
    fingerprint: Fingerprint,
    salt: Salt,
    instance: Instance,
    /// When the salt was drawn.
    drawn: Now,
    announcements_left: u8,
    /// When it shows itself next.
    show_at: Option<Time>,
    /// Not before this.
    not_before: Time,
    /// Questions that were answered under this salt, the latest.
    used: VecDeque<Nonce>,
    /// Questions whose set is on its way from the floors above.
    open: BTreeMap<u64, Ask>,
    next_question: u64,
    budget: Limiter<()>,
}

impl Presence {
    pub(super) fn new(fingerprint: Fingerprint, now: Now, rng: &mut dyn Rng) -> Presence {
        let salt = Salt::draw(rng);
        Presence {
            fingerprint,
            salt,
            instance: Instance::of(&fingerprint, &salt),
            drawn: now,
            announcements_left: ANNOUNCEMENTS,
            show_at: Some(now.time),
            not_before: now.time,
            used: VecDeque::new(),
            open: BTreeMap::new(),
            next_question: 0,
            budget: budget(),
        }
    }

    /// The name of this hour.
    pub(super) fn instance(&self) -> Instance {
        self.instance
    }

    /// Takes in questions; those that a set is wanted for are handed back by number.
    pub(super) fn asked(&mut self, now: Now, query: &Query, rng: &mut dyn Rng) -> Vec<u64> {
        let browsed = query.browses && !query.knows.contains(&self.instance);
        if browsed || query.resolves.contains(&self.instance) {
            let delay = DELAY_MILLIS.0 + rng.below(DELAY_MILLIS.1 - DELAY_MILLIS.0 + 1);
            let at = self.not_before.max(now.time + Span::millis(delay));
            self.show_at = Some(self.show_at.map_or(at, |planned| planned.min(at)));
        }
        query.asks.iter().filter_map(|ask| self.wanted(now.time, ask)).collect()
    }

    fn wanted(&mut self, now: Time, ask: &Ask) -> Option<u64> {
        let counts = ask.instance == self.instance
            && ask.is_for(&self.fingerprint, &self.salt)
            // A question that somebody plays again is not answered again.
            && !self.used.contains(&ask.nonce)
            && self.open.len() < LAN_QUESTIONS
            && self.budget.take(now, ()).is_ok();
        if !counts {
            return None;
        }
        if self.used.len() >= LAN_NONCES {
            self.used.pop_front();
        }
        self.used.push_back(ask.nonce);
        self.next_question += 1;
        self.open.insert(self.next_question, *ask);
        Some(self.next_question)
    }

    /// The packets that answer a question; none where the salt has changed since, or there is nothing to say.
    pub(super) fn answer(&mut self, question: u64, set: Option<&[u8]>, rng: &mut dyn Rng) -> Vec<Vec<u8>> {
        let (Some(ask), Some(set)) = (self.open.remove(&question), set) else { return Vec::new() };
        let pieces = seal(&self.fingerprint, &self.salt, &ask.nonce, Nonce::draw(rng), set);
        pieces.iter().map(|piece| message::piece(&ask, piece)).collect()
    }

    /// What is to be said now because its time has come.
    pub(super) fn due(&mut self, now: Now, rng: &mut dyn Rng) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        if self.is_old(now) {
            packets.push(self.goodbye());
            let next = Presence::new(self.fingerprint, now, rng);
            let old = std::mem::replace(self, next);
            (self.next_question, self.budget) = (old.next_question, old.budget);
        }
        if self.show_at.is_some_and(|at| now.time >= at) {
            packets.push(message::presence(&self.instance, &self.salt, TTL_SECS));
            self.not_before = now.time + LAN_SAY_EVERY;
            self.announcements_left = self.announcements_left.saturating_sub(1);
            self.show_at = (self.announcements_left > 0).then_some(self.not_before);
        }
        packets
    }

    /// The hour is over by either clock; the wall clock goes on while a computer sleeps.
    fn is_old(&self, now: Now) -> bool {
        now.time - self.drawn.time >= LAN_SALT_LIFE
            || now.utc.secs_since(self.drawn.utc) >= LAN_SALT_LIFE.as_secs()
    }

    /// The packet by which it takes its leave.
    pub(super) fn goodbye(&self) -> Vec<u8> {
        message::presence(&self.instance, &self.salt, 0)
    }

    pub(super) fn wake(&self) -> Time {
        let hour_ends = self.drawn.time + LAN_SALT_LIFE;
        self.show_at.map_or(hour_ends, |at| at.min(hour_ends))
    }
}

/// How many sets may be given out.
fn budget() -> Limiter<()> {
    Limiter::new(Rate::per(Span::secs(1), LAN_ANSWERS_PER_SECOND, LAN_ANSWERS_BURST), 1)
}
