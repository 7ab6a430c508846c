//! The lookup machine against sources that lie, stall, fail or come late, in virtual time.

use kith_directory::lookup::{Answer, Found, Input, Lookup, NotFound, Output, Pace, Rejection};
use kith_directory::replay::Seen;
use kith_identity::Identity;
use kith_identity::record::{RecordSet, VerifiedRecordSet, VerifyError};
use kith_sansio::{Machine, Now, Rng, SeededRng, Span, Time};
use proptest::prelude::*;

use crate::world::{NOW, identity, set};

/// What a source of the virtual world does: answers after this time, or never.
type Script = (Option<u64>, Say);

#[derive(Clone, Debug)]
enum Say {
    Set(RecordSet),
    Nothing,
    Failure,
}

fn say(set: &VerifiedRecordSet) -> Say {
    Say::Set(set.as_record_set().clone())
}

fn at(millis: u64) -> Now {
    Now { time: Time(millis * 1000), utc: NOW.plus_secs(millis / 1000) }
}

struct Ending {
    result: Result<Found, NotFound>,
    millis: u64,
    asked: Vec<(u64, usize)>,
}

/// Runs a lookup against scripted sources to its end.
fn run(who: &Identity, scripts: &[Script], seen: Option<Seen>) -> Ending {
    let mut rng = SeededRng::new(1);
    let mut lookup = Lookup::new(at(0), who.fingerprint(), scripts.len(), seen, Pace::default());
    let mut coming: Vec<(u64, usize)> = Vec::new();
    let (mut now, mut asked) = (0, Vec::new());
    loop {
        while let Some(output) = lookup.poll_output() {
            match output {
                Output::Ask(source) => {
                    asked.push((now, source));
                    coming.extend(scripts[source].0.map(|delay| (now + delay, source)));
                }
                Output::Finished(result) => {
                    assert_eq!(lookup.poll_timeout(), None, "an ended lookup wants no timer");
                    return Ending { result, millis: now, asked };
                }
            }
        }
        let timer = lookup.poll_timeout().expect("a lookup under way has a deadline").0.div_ceil(1000);
        coming.sort_unstable();
        match coming.first().copied() {
            Some((when, source)) if when <= timer => {
                coming.remove(0);
                now = now.max(when);
                let answer = match scripts[source].1.clone() {
                    Say::Set(set) => Answer::Set(set),
                    Say::Nothing => Answer::Nothing,
                    Say::Failure => Answer::Failed,
                };
                lookup.handle_input(at(now), Input { source, answer }, &mut rng);
            }
            _ => {
                assert!(timer >= now);
                now = timer;
                lookup.handle_timeout(at(now), &mut rng);
            }
        }
    }
}

#[test]
fn first_valid_set_is_taken_after_a_moment_for_a_newer_one() {
    let alice = identity(1);
    let (old, new) = (set(&alice, NOW, 600), set(&alice, NOW.plus_secs(5), 600));
    let alone = run(&alice, &[(Some(10), say(&old))], None);
    assert_eq!(alone.result, Ok(Found { source: 0, set: old.clone() }));
    assert_eq!(alone.millis, 10, "nobody else is waited for");
    // The second starts at 50 ms and answers at 80 ms, 20 ms after the first.
    let both = run(&alice, &[(Some(60), say(&old)), (Some(30), say(&new))], None);
    assert_eq!(both.result, Ok(Found { source: 1, set: new.clone() }));
    let late = run(&alice, &[(Some(60), say(&old)), (Some(200), say(&new))], None);
    assert_eq!(late.result, Ok(Found { source: 0, set: old.clone() }));
    assert_eq!(late.millis, 110);
    let older_second = run(&alice, &[(Some(60), say(&new)), (Some(30), say(&old))], None);
    assert_eq!(older_second.result, Ok(Found { source: 0, set: new }));
}

#[test]
fn sources_start_one_after_another_and_at_once_when_the_one_before_failed() {
    let alice = identity(1);
    let stalled = run(&alice, &[(None, Say::Nothing), (None, Say::Nothing)], None);
    assert_eq!(stalled.asked, [(0, 0), (50, 1)]);
    assert_eq!(stalled.millis, 5000);
    assert_eq!(stalled.result, Err(NotFound::NoAnswer));
    let failed = run(&alice, &[(Some(3), Say::Failure), (Some(4), Say::Nothing)], None);
    assert_eq!(failed.asked, [(0, 0), (3, 1)]);
    assert_eq!((failed.millis, failed.result), (7, Err(NotFound::Nothing)));
    let quick = run(&alice, &[(Some(5), say(&set(&alice, NOW, 60))), (Some(1), Say::Nothing)], None);
    assert_eq!(quick.asked, [(0, 0)], "a source that is not needed is not asked");
}

#[test]
fn a_lying_source_does_not_keep_the_honest_one_from_being_heard() {
    let (alice, mallory) = (identity(1), identity(2));
    let honest = set(&alice, NOW, 600);
    let forged = set(&mallory, NOW.plus_secs(9), 600);
    let result = run(&alice, &[(Some(1), say(&forged)), (Some(300), say(&honest))], None).result;
    assert_eq!(result, Ok(Found { source: 1, set: honest }));
    let alone = run(&alice, &[(Some(1), say(&forged)), (Some(1), Say::Nothing)], None).result;
    let Err(NotFound::Refused { source: 0, why: Rejection::Invalid(VerifyError::WrongKey { .. }) }) = alone
    else {
        panic!("{alone:?}")
    };
}

#[test]
fn replayed_expired_and_future_sets_are_refused() {
    let alice = identity(1);
    let newest = set(&alice, NOW.plus_secs(1), 30);
    let seen = Some(Seen::of(&newest));
    let refused = |set: VerifiedRecordSet, seen| match run(&alice, &[(Some(1), say(&set))], seen).result {
        Err(NotFound::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(set(&alice, NOW, 600), seen), Rejection::Older);
    assert_eq!(refused(set(&alice, NOW.plus_secs(1), 31), seen), Rejection::Different);
    let expired = refused(set(&alice, NOW.minus_secs(30), 30), None);
    assert!(matches!(expired, Rejection::Invalid(VerifyError::Expired { .. })));
    let future = refused(set(&alice, NOW.plus_secs(62), 30), None);
    assert!(matches!(future, Rejection::Invalid(VerifyError::FromTheFuture { .. })));
    assert!(run(&alice, &[(Some(1), say(&newest))], seen).result.is_ok(), "the same one again is fine");
}

#[test]
fn a_source_that_lags_does_not_outweigh_one_that_says_there_is_none() {
    let (alice, mallory) = (identity(1), identity(2));
    let seen = Some(Seen::of(&set(&alice, NOW, 30)));
    let (old, forged) = (set(&alice, NOW.minus_secs(9), 600), set(&mallory, NOW, 600));
    let nothing = (Some(1), Say::Nothing);
    let result = |first: Script, second: Script| run(&alice, &[first, second], seen).result;
    assert_eq!(result((Some(1), say(&old)), nothing.clone()), Err(NotFound::Nothing));
    let why = result((Some(1), say(&old)), (Some(1), say(&forged)));
    assert!(matches!(why, Err(NotFound::Refused { source: 1, .. })), "the worst is told: {why:?}");
    assert!(matches!(result((Some(1), say(&forged)), nothing), Err(NotFound::Refused { source: 0, .. })));
}

#[test]
fn answers_that_nobody_asked_for_are_dropped() {
    let alice = identity(1);
    let mut rng = SeededRng::new(1);
    let mut lookup = Lookup::new(at(0), alice.fingerprint(), 2, None, Pace::default());
    let honest = set(&alice, NOW, 60).as_record_set().clone();
    for source in [1, 2, usize::MAX] {
        lookup.handle_input(at(1), Input { source, answer: Answer::Set(honest.clone()) }, &mut rng);
    }
    assert_eq!(lookup.poll_output(), Some(Output::Ask(0)));
    assert_eq!(lookup.poll_output(), None);
    lookup.handle_input(at(2), Input { source: 0, answer: Answer::Failed }, &mut rng);
    lookup.handle_input(at(3), Input { source: 0, answer: Answer::Set(honest) }, &mut rng);
    assert_eq!(lookup.poll_output(), Some(Output::Ask(1)));
    assert_eq!(lookup.poll_output(), None, "a source speaks once");
}

#[test]
fn a_lookup_without_sources_ends_at_once() {
    let ending = run(&identity(1), &[], None);
    assert_eq!((ending.millis, ending.result), (0, Err(NotFound::NoAnswer)));
}

proptest! {
    /// Whatever the sources do, a lookup ends in time; with a set only if an honest one came, and then a valid one.
    #[test]
    fn every_lookup_ends_in_time_with_a_valid_set_or_a_reason(seed: u64, count in 0usize..6) {
        let mut rng = SeededRng::new(seed);
        let (alice, mallory) = (identity(1), identity(2));
        let scripts: Vec<Script> = (0..count).map(|_| {
            let delay = (rng.below(4) > 0).then(|| rng.below(7000));
            let say = match rng.below(6) {
                0 | 1 => say(&set(&alice, NOW.minus_secs(rng.below(50)), 100)),
                2 => say(&set(&mallory, NOW, 100)),
                3 => say(&set(&alice, NOW.minus_secs(100), 50)),
                4 => Say::Nothing,
                _ => Say::Failure,
            };
            (delay, say)
        }).collect();
        let ending = run(&alice, &scripts, None);
        prop_assert!(Span::millis(ending.millis) <= Pace::default().deadline, "seed {}", seed);
        if let Ok(found) = ending.result {
            prop_assert!(found.set.is_valid_at(at(ending.millis).utc));
            prop_assert_eq!(found.set.fingerprint(), alice.fingerprint());
        }
        let mut asked: Vec<_> = ending.asked.iter().map(|(_, source)| *source).collect();
        asked.dedup();
        prop_assert_eq!(asked.len(), ending.asked.len());
    }
}
