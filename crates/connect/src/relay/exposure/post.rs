use kith_identity::{Fingerprint, Relay};
use kith_sansio::{Rng, Span, Time};

use super::knocks::Knocks;
use super::{Link, PING_AGAIN, PING_LEAST, PONG_PATIENCE};
use crate::relay::limits::{AGAIN_FIRST, AGAIN_MOST, BLAMED_FIRST, MESSAGES_AT_ONCE, PING_MOST};
use crate::relay::quota::Allowance;

/// One relay, and how this node stands with it.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) relay: Relay,
    pub(super) state: State,
    /// Attempts in a row that led to nothing lasting.
    failures: u32,
    /// How often in a row it ended with something that made no sense.
    faults: u32,
    /// The network has changed under the stream that is open or being opened, which has shown no life since.
    is_shaken: bool,
    /// Until when it is left alone for its faults, whatever else happens.
    blamed_until: Option<Time>,
    /// The longest time between pings that has not been found too long.
    pub(super) ceiling: Span,
    /// How long it is still named.
    pub(super) named_until: Option<Time>,
    /// What it may say, over all its streams.
    pub(super) allowance: Allowance,
}

#[derive(Debug)]
pub(super) enum State {
    Away { again: Time },
    Connecting { link: Link },
    Exposing { link: Link, deadline: Time },
    Warm(Warm),
}

/// A relay through which this node can be reached.
#[derive(Debug)]
pub(super) struct Warm {
    pub(super) link: Link,
    since: Time,
    pub(super) interval: Span,
    pub(super) next_ping: Time,
    /// When the first ping went that is not answered.
    pub(super) asked: Option<Time>,
    /// Its number, and that of the last one with its time.
    first: u32,
    last: (u32, Time),
    pub(super) rtt: Option<Span>,
    pub(super) knocks: Knocks,
}

impl Warm {
    fn new(link: Link, now: Time, ceiling: Span) -> Warm {
        let interval = PING_LEAST.min(ceiling);
        Warm {
            link,
            since: now,
            interval,
            next_ping: now + interval,
            asked: None,
            first: 0,
            last: (0, now),
            rtt: None,
            knocks: Knocks::default(),
        }
    }

    /// The number of the ping to send now.
    pub(super) fn ask(&mut self, now: Time) -> u32 {
        let number = self.last.0.wrapping_add(1);
        self.last = (number, now);
        let asked = *self.asked.get_or_insert_with(|| {
            self.first = number;
            now
        });
        self.next_ping = (now + PING_AGAIN).min(asked + PONG_PATIENCE);
        number
    }

    /// A pong came. One that was not asked for means nothing.
    fn answered(&mut self, now: Time, number: u32, ceiling: Span) {
        let is_asked = number.wrapping_sub(self.first) <= self.last.0.wrapping_sub(self.first);
        if self.asked.is_none() || !is_asked {
            return;
        }
        self.asked = None;
        if number == self.last.0 {
            self.rtt = Some(now - self.last.1);
        }
        self.interval = self.interval.times(2).min(ceiling);
        self.next_ping = now + self.interval;
    }
}

impl Post {
    /// A relay that is tried at once.
    pub(super) fn new(relay: Relay, now: Time) -> Post {
        Post {
            relay,
            state: State::Away { again: now },
            failures: 0,
            faults: 0,
            is_shaken: false,
            blamed_until: None,
            ceiling: PING_MOST,
            named_until: None,
            allowance: Allowance::new(now, MESSAGES_AT_ONCE),
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.relay.ni.fingerprint
    }

    pub(super) fn link(&self) -> Option<Link> {
        match &self.state {
            State::Away { .. } => None,
            State::Connecting { link } | State::Exposing { link, .. } => Some(*link),
            State::Warm(warm) => Some(warm.link),
        }
    }

    pub(super) fn warm(&self) -> Option<&Warm> {
        if let State::Warm(warm) = &self.state { Some(warm) } else { None }
    }

    pub(super) fn warm_mut(&mut self) -> Option<&mut Warm> {
        if let State::Warm(warm) = &mut self.state { Some(warm) } else { None }
    }

    pub(super) fn begin(&mut self, now: Time, link: Link) {
        self.state = State::Connecting { link };
        self.is_shaken = false;
        self.allowance = Allowance::new(now, MESSAGES_AT_ONCE);
    }

    /// This node can be reached through it.
    pub(super) fn take_in(&mut self, now: Time, link: Link) {
        self.state = State::Warm(Warm::new(link, now, self.ceiling));
        self.is_shaken = false;
    }

    /// It answers a ping.
    pub(super) fn answered(&mut self, now: Time, number: u32) {
        if let State::Warm(warm) = &mut self.state {
            warm.answered(now, number, self.ceiling);
            self.is_shaken &= warm.asked.is_some();
        }
    }

    /// It is tried again after a while, which grows until it has served for some time; at once where it was not at fault
    /// but this machine is elsewhere.
    pub(super) fn lose(&mut self, now: Time, rng: &mut dyn Rng) {
        if self.warm().is_some_and(|warm| now - warm.since >= PING_MOST) {
            (self.failures, self.faults) = (0, 0);
        }
        let again = if std::mem::take(&mut self.is_shaken) {
            now
        } else {
            let wait = pause(AGAIN_FIRST, self.failures, rng);
            self.failures = self.failures.saturating_add(1);
            now + wait
        };
        self.state = State::Away { again: self.blamed_until.map_or(again, |until| until.max(again)) };
    }

    /// It is lost because it says what makes no sense: it is left alone for longer.
    pub(super) fn blame(&mut self, now: Time, rng: &mut dyn Rng) {
        self.lose(now, rng);
        let until = now + pause(BLAMED_FIRST, self.faults, rng);
        self.faults = self.faults.saturating_add(1);
        self.blamed_until = Some(until);
        if let State::Away { again } = &mut self.state {
            *again = until.max(*again);
        }
    }

    /// The network has changed: what was learnt of it may be wrong.
    pub(super) fn shake(&mut self, now: Time) {
        self.ceiling = PING_MOST;
        match &mut self.state {
            State::Away { again } => {
                self.failures = 0;
                *again = self.blamed_until.map_or(now, |until| until.max(now));
            }
            State::Warm(warm) => {
                warm.interval = PING_LEAST;
                warm.next_ping = now;
                self.is_shaken = true;
            }
            State::Connecting { .. } | State::Exposing { .. } => self.is_shaken = true,
        }
    }

    /// When it is to be looked at.
    pub(super) fn due(&self) -> Option<Time> {
        match &self.state {
            State::Away { again } => Some(*again),
            State::Connecting { .. } => None,
            State::Exposing { deadline, .. } => Some(*deadline),
            State::Warm(warm) => Some(warm.next_ping),
        }
    }

    /// When it is not named any more, where it is away.
    pub(super) fn unnamed_at(&self) -> Option<Time> {
        self.named_until.filter(|_| self.warm().is_none())
    }
}

/// How long to wait after so many failures in a row: twice as long after each, and not all at once, where many nodes
/// have lost the same relay. A quarter more or less.
fn pause(first: Span, failures: u32, rng: &mut dyn Rng) -> Span {
    let wait = first.times(1 << failures.min(16)).min(AGAIN_MOST);
    Span(wait.0 * 3 / 4 + rng.below(wait.0 / 2))
}
