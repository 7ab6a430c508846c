//! The announcer machine against a directory that is down, slow or asks for a pause, in virtual time.

use kith_directory::announcer::{Announcer, End, Input, Output, next_timestamp};
use kith_sansio::{Machine, Now, Rng, SeededRng, Span, Time, Timestamp};
use proptest::prelude::*;

use crate::world::NOW;

const TTL: u32 = 3600;

fn now(time: Time) -> Now {
    Now { time, utc: NOW.plus_secs(time.0 / 1_000_000) }
}

fn secs(secs: u64) -> Time {
    Time(secs * 1_000_000)
}

/// A directory of the virtual world: what it does with the attempt that starts at a time.
type Behaviour<'a> = &'a mut dyn FnMut(Time) -> Option<(Span, End)>;

/// Runs a machine until `end`; the times of its attempts.
fn run(
    machine: &mut Announcer,
    from: Time,
    end: Time,
    rng: &mut dyn Rng,
    directory: Behaviour<'_>,
) -> Vec<Time> {
    let mut time = from;
    let mut starts = Vec::new();
    let mut under_way: Option<(Time, Input)> = None;
    loop {
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Announce(attempt) | Output::Withdraw(attempt) => {
                    starts.push(time);
                    let ended = directory(time);
                    under_way = ended.map(|(after, end)| (time + after, Input::Ended { attempt, end }));
                }
                Output::Finished => return starts,
            }
        }
        let timer = machine.poll_timeout().unwrap_or(Time(u64::MAX));
        let answer = under_way.map_or(Time(u64::MAX), |(at, _)| at);
        let next = timer.min(answer);
        if next > end {
            return starts;
        }
        assert!(next >= time, "time runs forward");
        time = next;
        match under_way.take_if(|(at, _)| *at <= time) {
            Some((_, input)) => machine.handle_input(now(time), input, rng),
            None => machine.handle_timeout(now(time), rng),
        }
    }
}

fn taken(_: Time) -> Option<(Span, End)> {
    Some((Span::millis(20), End::Taken))
}

fn down(_: Time) -> Option<(Span, End)> {
    Some((Span::millis(1), End::Failed { pause: None }))
}

fn started(rng: &mut dyn Rng) -> Announcer {
    let mut machine = Announcer::new();
    assert_eq!(machine.poll_timeout(), None, "without anything to say nothing happens");
    machine.handle_input(now(Time(0)), Input::Changed(TTL), rng);
    machine
}

#[test]
fn announces_at_once_and_then_at_half_the_ttl_less_some_jitter() {
    let mut rng = SeededRng::new(1);
    let starts = run(&mut started(&mut rng), Time(0), secs(86_400), &mut rng, &mut taken);
    assert_eq!(starts[0], Time(0));
    assert!(starts.len() > 40);
    for pair in starts.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap >= Span::secs(1350) && gap <= Span::secs(1801), "{gap}");
    }
    assert!(starts.windows(3).any(|three| three[1] - three[0] != three[2] - three[1]), "there is jitter");
}

#[test]
fn backs_off_further_and_further_from_a_directory_that_is_down() {
    let mut rng = SeededRng::new(2);
    let starts = run(&mut started(&mut rng), Time(0), secs(7200), &mut rng, &mut down);
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] >= Span::millis(500) && gaps[0] <= Span::millis(1100));
    assert!(gaps[3] >= Span::secs(4) && gaps[3] <= Span::secs(9));
    assert!(gaps.iter().all(|gap| *gap <= Span::secs(301)));
    assert!(starts.len() < 70, "{} attempts in two hours", starts.len());
    // It comes back, and the schedule is the usual one again.
    let mut machine = started(&mut rng);
    let mut calls = 0;
    let starts = run(&mut machine, Time(0), secs(7200), &mut rng, &mut |at| {
        calls += 1;
        if calls <= 5 { down(at) } else { taken(at) }
    });
    assert!(starts[6] - starts[5] >= Span::secs(1350));
}

#[test]
fn a_change_is_announced_at_once_even_between_failures() {
    let mut rng = SeededRng::new(3);
    let mut machine = started(&mut rng);
    run(&mut machine, Time(0), secs(100), &mut rng, &mut down);
    machine.handle_input(now(secs(100)), Input::Changed(TTL), &mut rng);
    assert_eq!(run(&mut machine, secs(100), secs(101), &mut rng, &mut taken), [secs(100)]);
    // While an attempt is under way, the change follows it.
    machine.handle_input(now(secs(200)), Input::Changed(TTL), &mut rng);
    assert!(matches!(machine.poll_output(), Some(Output::Announce(attempt)) if attempt > 1));
    machine.handle_input(now(secs(200)), Input::Changed(TTL), &mut rng);
    assert_eq!(machine.poll_output(), None);
}

#[test]
fn many_changes_at_once_become_few_announces() {
    let mut rng = SeededRng::new(4);
    let mut machine = Announcer::new();
    let mut starts = 0;
    for millis in 0..2000 {
        let time = Time(millis * 1000);
        machine.handle_input(now(time), Input::Changed(TTL), &mut rng);
        machine.handle_timeout(now(time), &mut rng);
        while let Some(Output::Announce(attempt)) = machine.poll_output() {
            starts += 1;
            machine.handle_input(now(time), Input::Ended { attempt, end: End::Taken }, &mut rng);
        }
    }
    assert!((5..=11).contains(&starts), "{starts}");
}

#[test]
fn a_pause_that_the_directory_asks_for_is_kept_even_when_something_changes() {
    let mut rng = SeededRng::new(5);
    let mut machine = started(&mut rng);
    let pause = Some(Span::secs(60));
    let mut refuse = |_| Some((Span::millis(1), End::Failed { pause }));
    assert_eq!(run(&mut machine, Time(0), secs(59), &mut rng, &mut refuse).len(), 1);
    machine.handle_input(now(secs(59)), Input::Changed(TTL), &mut rng);
    let starts = run(&mut machine, secs(59), secs(100), &mut rng, &mut taken);
    assert_eq!(starts.len(), 1);
    assert!(starts[0] >= secs(60) && starts[0] <= secs(61));
}

#[test]
fn a_directory_that_never_answers_is_given_up_and_its_late_answer_ignored() {
    let mut rng = SeededRng::new(6);
    let mut machine = started(&mut rng);
    let starts = run(&mut machine, Time(0), secs(40), &mut rng, &mut |_| None);
    assert!(starts.len() >= 2 && starts[1] >= secs(15));
    machine.handle_input(now(secs(40)), Input::Ended { attempt: 1, end: End::Taken }, &mut rng);
    assert_eq!(machine.poll_output(), None);
}

#[test]
fn withdraws_once_and_ends_although_the_directory_fails() {
    let mut rng = SeededRng::new(7);
    for (behaviour, attempts) in [(taken as fn(Time) -> _, 1), (down, 2), (|_| None, 2)] {
        let mut machine = started(&mut rng);
        run(&mut machine, Time(0), secs(10), &mut rng, &mut taken);
        machine.handle_input(now(secs(10)), Input::Withdraw, &mut rng);
        let starts = run(&mut machine, secs(10), secs(1000), &mut rng, &mut |at| behaviour(at));
        assert_eq!(starts.len(), attempts);
        assert_eq!(starts[0], secs(10));
        assert_eq!(machine.poll_timeout(), None);
        machine.handle_input(now(secs(2000)), Input::Changed(TTL), &mut rng);
        assert_eq!(machine.poll_output(), None, "the end is the end");
    }
    let mut silent = Announcer::new();
    silent.handle_input(now(Time(0)), Input::Withdraw, &mut rng);
    assert_eq!(silent.poll_output(), Some(Output::Finished), "what was never said needs no taking back");
}

#[test]
fn a_withdrawal_follows_the_attempt_under_way() {
    let mut rng = SeededRng::new(8);
    let mut machine = started(&mut rng);
    assert_eq!(machine.poll_output(), Some(Output::Announce(1)));
    machine.handle_input(now(secs(1)), Input::Withdraw, &mut rng);
    assert_eq!(machine.poll_output(), None);
    machine.handle_input(now(secs(2)), Input::Ended { attempt: 1, end: End::Taken }, &mut rng);
    assert_eq!(machine.poll_output(), Some(Output::Withdraw(2)));
}

#[test]
fn a_withdrawal_is_not_held_up_by_a_pause_that_the_directory_asks_for() {
    let mut rng = SeededRng::new(10);
    let mut machine = started(&mut rng);
    assert_eq!(machine.poll_output(), Some(Output::Announce(1)));
    machine.handle_input(now(secs(1)), Input::Withdraw, &mut rng);
    let refused = End::Failed { pause: Some(Span::secs(300)) };
    machine.handle_input(now(secs(2)), Input::Ended { attempt: 1, end: refused }, &mut rng);
    assert_eq!(machine.poll_output(), Some(Output::Withdraw(2)), "somebody waits for the end");
    machine.handle_input(now(secs(3)), Input::Ended { attempt: 2, end: refused }, &mut rng);
    assert!(machine.poll_timeout().unwrap() <= secs(5), "the second try comes soon as well");
}

#[test]
fn a_computer_that_slept_announces_within_a_minute_of_waking() {
    let mut rng = SeededRng::new(9);
    let mut machine = started(&mut rng);
    run(&mut machine, Time(0), secs(30), &mut rng, &mut taken);
    // Eight hours pass on the wall clock, none on the monotonic one.
    let wake = machine.poll_timeout().unwrap();
    assert!(wake <= secs(62));
    machine.handle_timeout(Now { time: wake, utc: NOW.plus_secs(8 * 3600) }, &mut rng);
    assert_eq!(machine.poll_output(), Some(Output::Announce(2)));
}

proptest! {
    /// Faulty directories and clocks that jump: attempts never come too close, timestamps strictly increase, and a
    /// directory that takes one set in five is announced to before the ttl of the one before ends.
    #[test]
    fn schedule_holds_under_faults(seed: u64) {
        let mut rng = SeededRng::new(seed);
        let mut faults = SeededRng::new(seed ^ 1);
        let mut machine = started(&mut rng);
        let (mut last, mut timestamps, mut successes) = (Timestamp(0), Vec::new(), Vec::new());
        let mut in_a_row = 0;
        let starts = run(&mut machine, Time(0), secs(20_000), &mut rng, &mut |at| {
            let jump = faults.below(7200);
            last = next_timestamp(NOW.plus_secs(at.0 / 1_000_000).minus_secs(jump), last);
            timestamps.push(last);
            in_a_row += 1;
            match if in_a_row == 5 { 3 } else { faults.below(4) } {
                0 => None,
                1 => Some((Span::millis(faults.below(3000)), End::Failed { pause: None })),
                _ => { in_a_row = 0; successes.push(at); taken(at) }
            }
        });
        prop_assert!(timestamps.windows(2).all(|pair| pair[0] < pair[1]), "seed {}", seed);
        prop_assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= Span::millis(200)), "seed {}", seed);
        prop_assert!(successes.windows(2).all(|pair| pair[1] - pair[0] < Span::secs(TTL.into())), "seed {}", seed);
    }
}

#[test]
fn endless_wishes_make_no_more_sets_than_seconds_and_the_last_one_is_said() {
    let mut rng = SeededRng::new(8);
    let mut machine = Announcer::new();
    let (mut last, mut sets, mut said) = (NOW, 0, Time(0));
    let wishes_end = secs(300);
    for hundredth in 0..31_000 {
        let time = Time(hundredth * 10_000);
        if time < wishes_end {
            machine.handle_input(now(time), Input::Changed(TTL), &mut rng);
        }
        machine.handle_timeout(now(time), &mut rng);
        while let Some(Output::Announce(attempt)) = machine.poll_output() {
            last = next_timestamp(now(time).utc, last);
            assert!(last.secs_since(now(time).utc) <= 7, "{last} after {time:?}");
            (sets, said) = (sets + 1, time);
            machine.handle_input(now(time), Input::Ended { attempt, end: End::Taken }, &mut rng);
        }
    }
    assert!((290..=307).contains(&sets), "{sets} sets in 300 s");
    assert!(said >= Time(wishes_end.0 - 10_000), "what was wished last is said");
}
