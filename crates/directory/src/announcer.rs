//! The schedule of announces to one authority as a machine: at half the ttl less some jitter, at once when
//! there is something new to say, later and later while the directory fails, and once without addresses at the
//! end.

use std::collections::VecDeque;

use kith_identity::record::REPLAY_SECS;
use kith_sansio::{Machine, Now, Rng, Span, Time, Timestamp};

use crate::defaults::{
    ANNOUNCE, ANNOUNCE_AHEAD, ANNOUNCE_EVERY, ANNOUNCE_GAP, BACKOFF_FIRST, BACKOFF_LAST, CLOCK_CHECK,
};

/// The timestamp of the next set: strictly after the `last` one, also where the clock was set back.
///
/// A last one that lies more than a day ahead was given by a clock that was wrong. No clock that is right has taken
/// such a set, and none would take one after it for as long; so counting starts anew.
#[must_use]
pub fn next_timestamp(now: Timestamp, last: Timestamp) -> Timestamp {
    if last > now.plus_secs(REPLAY_SECS) {
        return now;
    }
    now.max(last.plus_secs(1))
}

/// What happens to an announcer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// There is something new to say, in a set of this ttl in seconds.
    Changed(u32),
    /// An attempt ended.
    Ended {
        /// Which.
        attempt: u64,
        /// How.
        end: End,
    },
    /// Announce a set without addresses, then stop.
    Withdraw,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The directory took the set.
    Taken,
    /// It did not, or did not answer; it may have asked for a pause.
    Failed {
        /// The pause that it asked for.
        pause: Option<Span>,
    },
}

/// What an announcer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Sign the current draft with a new timestamp, and send it.
    Announce(u64),
    /// The same without addresses.
    Withdraw(u64),
    /// Nothing more will come.
    Finished,
}

/// How often a withdrawal is tried: the set expires by itself, and somebody waits for the end.
const WITHDRAW_TRIES: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is nothing to say yet.
    Silent,
    /// The next attempt is due then.
    Waiting(Time),
    /// An attempt is under way, until then.
    Sending(Time),
    Finished,
}

/// The schedule of one authority.
#[derive(Debug)]
pub struct Announcer {
    phase: Phase,
    ttl: u32,
    attempt: u64,
    failures: u32,
    /// There is something that the attempt under way does not say.
    dirty: bool,
    withdrawing: bool,
    /// No attempt before this, whatever changes.
    not_before: Time,
    /// When the next attempt would be if all had kept to the average.
    average: Time,
    /// When half of what the directory holds has passed on the wall clock, which goes on while a computer sleeps.
    due: Option<Timestamp>,
    /// When the wall clock was looked at last.
    looked: Time,
    outputs: VecDeque<Output>,
}

impl Default for Announcer {
    fn default() -> Self {
        Announcer {
            phase: Phase::Silent,
            ttl: kith_identity::record::DEFAULT_TTL_SECS,
            attempt: 0,
            failures: 0,
            dirty: false,
            withdrawing: false,
            not_before: Time(0),
            average: Time(0),
            due: None,
            looked: Time(0),
            outputs: VecDeque::new(),
        }
    }
}

impl Announcer {
    /// An announcer with nothing to say yet.
    #[must_use]
    pub fn new() -> Self {
        Announcer::default()
    }

    fn changed(&mut self, now: Time) {
        match self.phase {
            Phase::Sending(_) => self.dirty = true,
            Phase::Silent | Phase::Waiting(_) => {
                self.phase = Phase::Waiting(self.not_before.max(now));
                self.run(now);
            }
            Phase::Finished => {}
        }
    }

    fn withdraw(&mut self, now: Time) {
        self.withdrawing = true;
        self.failures = 0;
        match self.phase {
            // Nothing was ever said, so there is nothing to take back.
            Phase::Silent => self.finish(),
            // Not held up by a pause: this is the last thing we say.
            Phase::Waiting(_) => {
                self.phase = Phase::Waiting(now);
                self.run(now);
            }
            Phase::Sending(_) => self.dirty = true,
            Phase::Finished => {}
        }
    }

    fn ended(&mut self, Now { time: now, utc }: Now, end: End, rng: &mut dyn Rng) {
        let dirty = std::mem::take(&mut self.dirty);
        match end {
            End::Taken if self.withdrawing && !dirty => return self.finish(),
            End::Taken => {
                self.failures = 0;
                self.looked = now;
                self.due = Some(utc.plus_secs(u64::from(self.ttl).div_ceil(2)));
                let pause = if dirty { Span::ZERO } else { self.refresh(rng) };
                self.phase = Phase::Waiting(self.not_before.max(now + pause));
            }
            End::Failed { pause } => {
                // What was under way when the withdrawal came is none of its tries.
                self.failures = if self.withdrawing && dirty { 0 } else { self.failures.saturating_add(1) };
                self.due = None;
                if self.withdrawing && !dirty && self.failures >= WITHDRAW_TRIES {
                    return self.finish();
                }
                // A withdrawal is not held up: somebody waits for the end, and few tries are left.
                if let Some(pause) = pause.filter(|_| !self.withdrawing) {
                    self.not_before = self.not_before.max(now + Span(pause.0.min(BACKOFF_LAST.0)));
                }
                let pause = if dirty { Span::ZERO } else { self.backoff(rng) };
                self.phase = Phase::Waiting(self.not_before.max(now + pause));
            }
        }
        self.run(now);
    }

    /// Half the ttl, less up to an eighth.
    fn refresh(&self, rng: &mut dyn Rng) -> Span {
        let ttl = Span::secs(self.ttl.into());
        Span(ttl.0 / 2 - rng.below(ttl.0 / 8 + 1))
    }

    /// Twice as long after each failure, up to a bound; half of it by chance.
    fn backoff(&self, rng: &mut dyn Rng) -> Span {
        let doubled = BACKOFF_FIRST.times(1 << self.failures.saturating_sub(1).min(20));
        let ceiling = doubled.0.min(BACKOFF_LAST.0);
        Span(ceiling / 2 + rng.below(ceiling / 2 + 1))
    }

    /// Starts the attempt that is due.
    fn run(&mut self, now: Time) {
        let Phase::Waiting(at) = self.phase else { return };
        if now < at {
            return;
        }
        self.attempt += 1;
        self.due = None;
        self.average = self.average.max(now) + ANNOUNCE_EVERY;
        let ahead = Time(self.average.0.saturating_sub(ANNOUNCE_AHEAD.0));
        self.not_before = ahead.max(now + ANNOUNCE_GAP);
        self.phase = Phase::Sending(now + ANNOUNCE);
        self.outputs.push_back(match self.withdrawing {
            true => Output::Withdraw(self.attempt),
            false => Output::Announce(self.attempt),
        });
    }

    fn finish(&mut self) {
        self.phase = Phase::Finished;
        self.outputs.push_back(Output::Finished);
    }
}

impl Machine for Announcer {
    type Input = Input;
    type Output = Output;

    /// Takes in one event. The end of an attempt that was given up counts no more.
    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match input {
            Input::Changed(_) if self.withdrawing => {}
            Input::Changed(ttl) => {
                self.ttl = ttl.max(1);
                self.changed(now.time);
            }
            Input::Withdraw if self.withdrawing => {}
            Input::Withdraw => self.withdraw(now.time),
            Input::Ended { attempt, end } => {
                if attempt == self.attempt && matches!(self.phase, Phase::Sending(_)) {
                    self.ended(now, end, rng);
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        self.looked = now.time;
        match self.phase {
            Phase::Waiting(_) if self.due.is_some_and(|due| now.utc >= due) => {
                self.phase = Phase::Waiting(now.time);
                self.run(now.time);
            }
            Phase::Sending(deadline) if now.time >= deadline => {
                self.ended(now, End::Failed { pause: None }, rng);
            }
            _ => self.run(now.time),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self.phase {
            Phase::Waiting(at) if self.due.is_some() => Some(at.min(self.looked + CLOCK_CHECK)),
            Phase::Waiting(at) | Phase::Sending(at) => Some(at),
            Phase::Silent | Phase::Finished => None,
        }
    }
}
