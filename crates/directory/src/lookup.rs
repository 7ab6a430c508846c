//! One lookup as a machine: asks its sources one after another with a short stagger, takes the first valid set,
//! and waits a moment for a newer one.
//!
//! A source can be silent, late, wrong or lying; what it says counts only after verification, and only while it
//! is not older than what was seen before.

use std::collections::VecDeque;

use kith_identity::Fingerprint;
use kith_identity::record::{RecordSet, VerifiedRecordSet, VerifyError};
use kith_sansio::{Machine, Now, Rng, Span, Time};

use crate::defaults;
use crate::replay::{Seen, Verdict};

/// The times of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time between the starts of two sources.
    pub stagger: Span,
    /// How long a valid set waits for a newer one.
    pub prefer_newer: Span,
    /// Time for the whole lookup.
    pub deadline: Span,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { stagger: defaults::STAGGER, prefer_newer: defaults::PREFER_NEWER, deadline: defaults::LOOKUP }
    }
}

/// What a source said.
#[derive(Debug)]
pub enum Answer {
    /// This set.
    Set(RecordSet),
    /// That it has none.
    Nothing,
    /// Nothing that could be understood, or nothing at all.
    Failed,
}

/// What happens to a lookup.
#[derive(Debug)]
pub struct Input {
    /// Which source, by its place in the list.
    pub source: usize,
    /// What it said.
    pub answer: Answer,
}

/// What a lookup wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask this source.
    Ask(usize),
    /// It has ended; everything still under way can be dropped.
    Finished(Result<Found, NotFound>),
}

/// A set, and the source that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// By its place in the list.
    pub source: usize,
    /// Valid now.
    pub set: VerifiedRecordSet,
}

/// How a lookup ends without a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFound {
    /// A source gave a set that was refused. A set that is only old, as one out of a resolver's cache can be, does
    /// not count where another source says that there is none.
    Refused {
        /// The first such source.
        source: usize,
        /// Why.
        why: Rejection,
    },
    /// A source says that there is none.
    Nothing,
    /// No source said anything.
    NoAnswer,
}

/// Why a set from a source does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It is not valid for the fingerprint now.
    #[error(transparent)]
    Invalid(VerifyError),
    /// It is older than one that was seen.
    #[error("the set is older than one that was seen before")]
    Older,
    /// It is another than the one of the same time that was seen.
    #[error("the set is another than the one of the same time that was seen before")]
    Different,
}

impl Rejection {
    /// Whether the source need not be at fault: it may just lag behind.
    #[must_use]
    pub fn is_lag(&self) -> bool {
        matches!(self, Rejection::Older | Rejection::Invalid(VerifyError::Expired { .. }))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Asked,
    Done,
}

/// A lookup of one fingerprint.
#[derive(Debug)]
pub struct Lookup {
    fingerprint: Fingerprint,
    seen: Option<Seen>,
    pace: Pace,
    sources: Vec<State>,
    next_ask: Time,
    deadline: Time,
    settle_at: Option<Time>,
    best: Option<Found>,
    refused: Option<(usize, Rejection)>,
    heard_nothing: bool,
    finished: bool,
    outputs: VecDeque<Output>,
}

impl Lookup {
    /// A lookup of `fingerprint` at `sources` sources, given what was `seen` of it before. It starts at once.
    #[must_use]
    pub fn new(now: Now, fingerprint: Fingerprint, sources: usize, seen: Option<Seen>, pace: Pace) -> Self {
        let mut lookup = Lookup {
            fingerprint,
            seen,
            pace,
            sources: vec![State::Idle; sources],
            next_ask: now.time,
            deadline: now.time + pace.deadline,
            settle_at: None,
            best: None,
            refused: None,
            heard_nothing: false,
            finished: false,
            outputs: VecDeque::new(),
        };
        lookup.go_on(now.time);
        lookup
    }

    fn take(&mut self, now: Now, source: usize, answer: Answer) {
        match answer {
            Answer::Failed => {}
            Answer::Nothing => self.heard_nothing = true,
            Answer::Set(set) => match self.check(now, set) {
                Ok(set) => self.prefer(now.time, Found { source, set }),
                Err(why) => self.refuse(source, why),
            },
        }
    }

    /// Keeps the worst that was refused, and of equals the first.
    fn refuse(&mut self, source: usize, why: Rejection) {
        let worse = self.refused.as_ref().is_none_or(|(_, known)| known.is_lag() && !why.is_lag());
        if worse {
            self.refused = Some((source, why));
        }
    }

    fn check(&self, now: Now, set: RecordSet) -> Result<VerifiedRecordSet, Rejection> {
        let set = set.verify(&self.fingerprint, now.utc).map_err(Rejection::Invalid)?;
        match Seen::of(&set).judge(now.utc, self.seen) {
            Verdict::Newer | Verdict::Repeat => Ok(set),
            Verdict::Older => Err(Rejection::Older),
            Verdict::Different => Err(Rejection::Different),
        }
    }

    fn prefer(&mut self, now: Time, found: Found) {
        let newer = self.best.as_ref().is_none_or(|best| found.set.timestamp() > best.set.timestamp());
        if newer {
            self.best = Some(found);
        }
        self.settle_at.get_or_insert(now + self.pace.prefer_newer);
    }

    /// Starts the sources that are due, and ends when nothing more can come or may be waited for.
    fn go_on(&mut self, now: Time) {
        if self.finished {
            return;
        }
        let late = now >= self.deadline || self.settle_at.is_some_and(|at| now >= at);
        if !late && self.best.is_none() {
            self.ask_next(now);
        }
        let waits = self.sources.contains(&State::Asked)
            || self.best.is_none() && self.sources.contains(&State::Idle);
        if late || !waits {
            self.finish();
        }
    }

    /// The next source is due after the stagger, or at once when nobody is being waited for.
    fn ask_next(&mut self, now: Time) {
        while now >= self.next_ask || !self.sources.contains(&State::Asked) {
            let Some(source) = self.sources.iter().position(|state| *state == State::Idle) else { return };
            self.sources[source] = State::Asked;
            self.next_ask = now + self.pace.stagger;
            self.outputs.push_back(Output::Ask(source));
        }
    }

    fn finish(&mut self) {
        self.finished = true;
        let result = match (self.best.take(), self.refused.take()) {
            (Some(found), _) => Ok(found),
            (None, Some((_, why))) if why.is_lag() && self.heard_nothing => Err(NotFound::Nothing),
            (None, Some((source, why))) => Err(NotFound::Refused { source, why }),
            (None, None) if self.heard_nothing => Err(NotFound::Nothing),
            (None, None) => Err(NotFound::NoAnswer),
        };
        self.outputs.push_back(Output::Finished(result));
    }
}

impl Machine for Lookup {
    type Input = Input;
    type Output = Output;

    /// Takes in one answer. An answer that nobody asked for, or a second one, is dropped.
    fn handle_input(&mut self, now: Now, input: Input, _: &mut dyn Rng) {
        if self.finished || self.sources.get(input.source) != Some(&State::Asked) {
            return;
        }
        self.sources[input.source] = State::Done;
        self.take(now, input.source, input.answer);
        self.go_on(now.time);
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        self.go_on(now.time);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        if self.finished {
            return None;
        }
        let more = self.best.is_none() && self.sources.contains(&State::Idle);
        let next = more.then_some(self.next_ask);
        [Some(self.deadline), self.settle_at, next].into_iter().flatten().min()
    }
}
