//! When to tell a secondary that the zone changed, as a machine (RFC 1996 §3): at once, at most every ten seconds,
//! and again with longer and longer pauses until the secondary answers.

use std::collections::VecDeque;

use kith_sansio::{Machine, Now, Rng, Span, Time};

use crate::defaults::{NOTIFY_BACKOFF_FIRST, NOTIFY_BACKOFF_LAST, NOTIFY_GAP, NOTIFY_SILENT_TRIES};

/// What happens to a notifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The zone has this serial number now.
    Serial(u32),
    /// The secondary acknowledged the notice with this id; its signature was verified.
    Acknowledged(u16),
}

/// What a notifier wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send a notice.
    Send {
        /// Its id, another one each time.
        id: u16,
        /// The zone's serial number.
        serial: u32,
    },
    /// The secondary has not answered for some time; told once, until it does.
    Silent,
    /// A secondary that was silent has answered.
    Back,
}

/// The notices for one secondary.
#[derive(Debug, Default)]
pub struct Notifier {
    serial: Option<u32>,
    /// When the next notice is due; nothing while there is nothing to tell.
    due: Option<Time>,
    /// The notice whose answer counts.
    waiting_for: Option<u16>,
    tries: u32,
    /// When the first notice about the present number, or the one before, was sent.
    begun: Option<Time>,
    outputs: VecDeque<Output>,
}

impl Notifier {
    /// A notifier with nothing to tell yet.
    #[must_use]
    pub fn new() -> Self {
        Notifier::default()
    }

    fn serial(&mut self, now: Time, serial: u32, rng: &mut dyn Rng) {
        if self.serial.replace(serial) == Some(serial) {
            return;
        }
        // What is under way may be answered by somebody who looked before the change.
        self.waiting_for = None;
        if self.due.is_none() {
            self.tries = 0;
            self.due = Some(self.begun.map_or(now, |begun| now.max(begun + NOTIFY_GAP)));
        }
        self.run(now, rng);
    }

    fn acknowledged(&mut self, id: u16) {
        if self.waiting_for != Some(id) {
            return;
        }
        if self.tries >= NOTIFY_SILENT_TRIES {
            self.outputs.push_back(Output::Back);
        }
        (self.due, self.waiting_for, self.tries) = (None, None, 0);
    }

    /// Sends the notice that is due.
    fn run(&mut self, now: Time, rng: &mut dyn Rng) {
        let (Some(due), Some(serial)) = (self.due, self.serial) else { return };
        if now < due {
            return;
        }
        if self.tries == 0 {
            self.begun = Some(now);
        }
        self.tries = self.tries.saturating_add(1);
        if self.tries == NOTIFY_SILENT_TRIES {
            self.outputs.push_back(Output::Silent);
        }
        let mut id = [0; 2];
        rng.fill(&mut id);
        let id = u16::from_be_bytes(id);
        self.waiting_for = Some(id);
        let doubled = NOTIFY_BACKOFF_FIRST.times(1 << (self.tries - 1).min(20));
        self.due = Some(now + Span(doubled.0.min(NOTIFY_BACKOFF_LAST.0)));
        self.outputs.push_back(Output::Send { id, serial });
    }
}

impl Machine for Notifier {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match input {
            Input::Serial(serial) => self.serial(now.time, serial, rng),
            Input::Acknowledged(id) => self.acknowledged(id),
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        self.run(now.time, rng);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use kith_sansio::{SeededRng, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::defaults::REVISION_CHECK;
    use crate::store::Revision;

    struct Bench {
        machine: Notifier,
        rng: SeededRng,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { machine: Notifier::new(), rng: SeededRng::new(1) }
        }

        fn input(&mut self, secs: u64, input: Input) -> Vec<Output> {
            let now = Now { time: Time(0) + Span::secs(secs), utc: Timestamp(secs) };
            self.machine.handle_input(now, input, &mut self.rng);
            self.drain()
        }

        fn drain(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.machine.poll_output()).collect()
        }

        /// Follows the timer until `secs`; what was wanted, and in which second.
        fn until(&mut self, secs: u64) -> Vec<(u64, Output)> {
            let mut wanted = Vec::new();
            while let Some(at) = self.machine.poll_timeout().filter(|at| at.0 <= secs * 1_000_000) {
                self.machine.handle_timeout(Now { time: at, utc: Timestamp(0) }, &mut self.rng);
                let outputs = self.drain();
                wanted.extend(outputs.into_iter().map(|output| (at.0 / 1_000_000, output)));
            }
            wanted
        }
    }

    fn sent(output: Output) -> (u16, u32) {
        let Output::Send { id, serial } = output else { panic!("{output:?}") };
        (id, serial)
    }

    #[test]
    fn a_change_is_told_at_once_and_only_once_when_it_is_acknowledged() {
        let mut bench = Bench::new();
        let first = bench.input(5, Input::Serial(7));
        let (id, serial) = sent(first[0]);
        assert_eq!((first.len(), serial), (1, 7));
        assert_eq!(bench.input(5, Input::Acknowledged(id)), []);
        assert_eq!(bench.machine.poll_timeout(), None);
        assert_eq!(bench.input(60, Input::Serial(7)), [], "nothing new");
    }

    /// A step of [`told_of_changes`].
    const STEP: Span = Span::millis(50);

    /// How long after each change, in a store that is looked at every second beginning at `first_look`, a secondary
    /// that answers in `answers_after` hears of it.
    fn told_of_changes(mut changes: Vec<Span>, first_look: Span, answers_after: Span) -> Vec<Span> {
        const BEGIN: u64 = 1_800_000_000;
        let (mut bench, mut revision) = (Bench::new(), Revision::default());
        let (mut look, mut answer, mut open, mut waited) = (first_look, None, Vec::new(), Vec::new());
        changes.sort_unstable();
        changes.reverse();
        let mut at = Span::ZERO;
        // Two minutes, and as long as anything may take after the last change.
        while at < Span::secs(180) {
            let utc = Timestamp(BEGIN + at.as_secs());
            let now = Now { time: Time(0) + at, utc };
            while let Some(change) = changes.pop_if(|change| *change <= at) {
                revision = revision.after_change(utc);
                open.push((change, revision.newest));
            }
            let mut inputs = Vec::new();
            if at >= look {
                look = Span(at.0 + REVISION_CHECK.0);
                let told = revision.told(utc);
                if revision.is_open(told) {
                    revision = revision.after_seal(told);
                }
                inputs.push(Input::Serial(told as u32));
            }
            if let Some((_, id)) = answer.take_if(|(due, _)| *due <= at) {
                inputs.push(Input::Acknowledged(id));
            }
            for input in inputs {
                bench.machine.handle_input(now, input, &mut bench.rng);
            }
            bench.machine.handle_timeout(now, &mut bench.rng);
            for output in bench.drain() {
                let Output::Send { id, serial } = output else { continue };
                answer = Some((Span(at.0 + answers_after.0), id));
                open.retain(|(change, number)| {
                    let heard = *number <= u64::from(serial);
                    waited.extend(heard.then(|| Span(at.0 - change.0)));
                    !heard
                });
            }
            at = Span(at.0 + STEP.0);
        }
        assert!(open.is_empty(), "never told: {open:?}");
        waited
    }

    proptest! {
        /// Of the fifteen seconds that a change may take to a secondary this leaves two for its transfer.
        #[test]
        fn a_secondary_hears_of_every_change_within_thirteen_seconds(
            changes in proptest::collection::vec(0..120_000_u64, 1..40),
            first_look in 0..1000_u64,
            answers_after in 0..900_u64,
        ) {
            let changes: Vec<_> = changes.into_iter().map(Span::millis).collect();
            let count = changes.len();
            let waited = told_of_changes(changes, Span::millis(first_look), Span::millis(answers_after));
            prop_assert_eq!(waited.len(), count);
            prop_assert!(waited.iter().all(|waited| *waited <= Span::secs(13)), "{:?}", waited.iter().max());
        }
    }

    #[test]
    fn changes_in_quick_succession_are_told_every_ten_seconds() {
        let mut bench = Bench::new();
        let (id, _) = sent(bench.input(0, Input::Serial(1))[0]);
        bench.input(0, Input::Acknowledged(id));
        for secs in 1..9 {
            assert_eq!(bench.input(secs, Input::Serial(1 + secs as u32)), []);
        }
        let told = bench.until(10);
        assert_eq!((told.len(), told[0].0, sent(told[0].1).1), (1, 10, 9));
    }

    #[test]
    fn a_silent_secondary_is_told_again_with_growing_pauses_and_reported_once() {
        let mut bench = Bench::new();
        let mut ids = vec![sent(bench.input(0, Input::Serial(1))[0]).0];
        let told = bench.until(300);
        let silent = told.iter().filter(|(_, output)| *output == Output::Silent).count();
        let sends: Vec<_> = told.iter().filter(|(_, output)| *output != Output::Silent).collect();
        let times: Vec<u64> = sends.iter().map(|(secs, _)| *secs).collect();
        assert_eq!(times, [1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert_eq!(silent, 1);
        ids.extend(sends.iter().map(|(_, output)| sent(*output).0));
        let last = ids.pop().unwrap();
        for old in ids.into_iter().filter(|id| *id != last) {
            assert_eq!(bench.input(301, Input::Acknowledged(old)), [], "an answer that comes too late");
        }
        assert!(bench.machine.poll_timeout().is_some());
        assert_eq!(bench.input(301, Input::Acknowledged(last)), [Output::Back]);
        assert_eq!(bench.machine.poll_timeout(), None);
    }

    #[test]
    fn an_answer_to_a_notice_of_before_a_change_does_not_count_for_the_change() {
        let mut bench = Bench::new();
        let (id, _) = sent(bench.input(0, Input::Serial(1))[0]);
        assert_eq!(bench.input(0, Input::Serial(2)), []);
        assert_eq!(bench.input(0, Input::Acknowledged(id)), []);
        let told = bench.until(1);
        assert_eq!(sent(told[0].1).1, 2);
    }
}
