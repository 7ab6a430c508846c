//! The journal: on a machine that dies at every write, with clocks that jump, and what it forgets.

use std::fs;

use kith_sansio::{SeededRng, Time, system};
use kith_store::crash::Backend;

use super::*;
use crate::node::transfers::live::tests::incoming;
use crate::node::transfers::live::{By, Live};

fn told(journal: &Journal) -> Vec<(String, serde_json::Value)> {
    let rows = journal.rows().unwrap();
    rows.into_iter().map(|(id, row)| (id, serde_json::to_value(row).unwrap())).collect()
}

#[test]
fn a_machine_that_dies_at_any_write_keeps_what_was_told_of_every_transfer() {
    let disk = Backend::new();
    let journal = Journal::new(Database::open_backend(&disk, 1 << 20).unwrap());
    let live = incoming();
    let mut known = Known::default();
    known.keep("2", &live.row());
    let write = |id: &str| journal.write(id, &live.row()).unwrap();
    let steps: [&dyn Fn(); 6] = [
        &|| write("1"),
        &|| write("2"),
        &|| {
            live.pause(By::Here);
            write("1");
        },
        &|| {
            live.cancel_by(By::Here);
            write("1");
        },
        &|| {
            live.end(Err(live.cancelled()));
            write("1");
        },
        &|| journal.prune(Timestamp(live.row().changed + KEPT_SECS + 1), &known).unwrap(),
    ];
    let mut rng = SeededRng::new(11);
    for (number, step) in steps.iter().enumerate() {
        let (rows, first) = (told(&journal), disk.events());
        step();
        let (changed, last) = (told(&journal), disk.events());
        assert_ne!(rows, changed, "step {number}");
        for events in first..=last {
            let image = Backend::with_image(disk.image_at(events, &mut rng));
            let after = told(&Journal::new(Database::open_backend(&image, 1 << 20).unwrap()));
            let stands = after == changed || events < last && after == rows;
            assert!(stands, "step {number}, {events} of {first}..={last}: {after:?}");
        }
    }
    assert_eq!(told(&journal).len(), 1, "what is in memory stays");
}

/// A transfer that failed, `changed` so late, whose partial files lie in `into`.
fn failed(into: &Path, number: u8, staging: u8, changed: u64) -> (String, Row) {
    let live = incoming();
    live.end(Err(Failure::failed("the disk is full")));
    let (id, staging) = (hex(number), hex(staging));
    fs::create_dir_all(part(into, &staging)).unwrap();
    let into = into.display().to_string();
    let job = Job::In { into, overwrite: false, digest: String::new(), staging };
    (id, Row { job, changed, ..live.row() })
}

fn hex(number: u8) -> String {
    kith_transfer::TransferId([number; 16]).to_string()
}

fn part(into: &Path, staging: &str) -> std::path::PathBuf {
    into.join(format!(".kith-partial-{staging}"))
}

#[test]
fn what_is_dropped_beyond_the_limit_leaves_no_partial_files_behind() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::new(Database::in_memory().unwrap());
    let now = 1_000_000_000;
    let all = 210_u8;
    for number in 0..all {
        // The newest one goes on with the files of the oldest one, and what a running node has goes on with another.
        let staging = if number == all - 1 { 0 } else { number };
        let (id, row) = failed(folder.path(), number, staging, now + u64::from(number));
        journal.write(&id, &row).unwrap();
    }
    let mut known = Known::default();
    known.keep(&hex(250), &failed(folder.path(), 250, 1, now).1);
    journal.prune(Timestamp(now + 300), &known).unwrap();
    let kept: Vec<_> = journal.rows().unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(kept, (11..all).map(hex).collect::<Vec<_>>());
    let left: Vec<_> = (0..all).filter(|number| part(folder.path(), &hex(*number)).exists()).collect();
    let expected: Vec<_> = [0, 1].into_iter().chain(11..all - 1).collect();
    assert_eq!(left, expected);
}

#[test]
fn what_the_node_has_forgotten_goes_whatever_the_wall_clock_says() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::new(Database::in_memory().unwrap());
    let (id, row) = failed(folder.path(), 1, 1, 1_000_000_000);
    journal.write(&id, &row).unwrap();
    journal.prune(Timestamp(5), &Known::default()).unwrap();
    assert!(part(folder.path(), &id).exists());
    let known = Known { forgotten: [id.clone()].into(), ..Known::default() };
    journal.prune(Timestamp(5), &known).unwrap();
    assert!(!part(folder.path(), &id).exists() && journal.rows().unwrap().is_empty());
}

#[test]
fn a_clock_that_jumps_makes_no_transfer_older_or_younger_while_the_node_runs() {
    // Its row was written by a clock that stood years ahead, or years behind.
    let utc = system::utc().0;
    for (changed, is_old) in [(utc + 100 * KEPT_SECS, false), (utc, false), (utc - 2 * KEPT_SECS, true)] {
        let row = Row { changed, ..incoming().row() };
        let live = Live::new("1".to_owned(), row.fingerprint().unwrap(), row);
        let now = system::time();
        assert_eq!(live.is_given_up(now), is_old);
        assert!(live.is_given_up(now + Span::secs(KEPT_SECS + 1)));
        // A sign of life: a week from now on, by the clock that cannot be set.
        live.enter(State::Interrupted);
        assert!(!live.is_given_up(now + Span::secs(KEPT_SECS - 1)));
    }
}

#[test]
fn a_pause_is_counted_from_its_beginning_across_restarts() {
    let live = incoming();
    assert!(live.pause(By::Here));
    let began = live.row().paused_since;
    assert!(began > 0);
    // Ten days ago, and written since then.
    let ten_days = 10 * 86_400;
    let row = Row { paused_since: began - ten_days, ..live.row() };
    let restarted = Live::new(live.id.clone(), live.peer, row);
    restarted.enter_rest();
    restarted.pause(By::Contact);
    let left = restarted.pause_left(system::time()).as_secs();
    let expected = PAUSED_SECS - ten_days;
    assert!(left <= expected && left > expected - 3_600, "{left}");
    assert_eq!(restarted.row().paused_since, began - ten_days);
    let end = system::time() + Span::secs(expected + 1);
    assert!(restarted.is_given_up(end) && restarted.pause_left(end) == Span::ZERO);
    assert!(restarted.row().is_given_up(Timestamp(began + expected + 60)));
    // One of the two goes on: it is paused as before.
    restarted.resume(By::Contact);
    assert_eq!(restarted.row().paused_since, began - ten_days);
    restarted.resume(By::Here);
    assert_eq!(restarted.row().paused_since, 0);
    assert!(!restarted.is_given_up(Time(0)));
}

#[test]
fn a_contact_that_is_away_is_told_of_the_end_for_one_week_and_not_for_one_after_each_start() {
    let live = incoming();
    live.cancel_by(By::Here);
    let row = live.row();
    let began = row.tell_until - KEPT_SECS;
    let days = |days: u64| Timestamp(began + days * 86_400);
    assert_eq!(row.tell_left(days(0)), Span::secs(KEPT_SECS));
    // Five days later the node starts again, and the person says it once more.
    let restarted = Live::new(live.id.clone(), live.peer, Row { changed: days(5).0, ..row.clone() });
    restarted.cancel_by(By::Here);
    assert_eq!(restarted.row().tell_left(days(5)), Span::secs(2 * 86_400));
    assert_eq!(restarted.row().tell_left(days(8)), Span::ZERO);
    // A clock that was set back makes it no longer than it was.
    assert_eq!(row.tell_left(Timestamp(0)), Span::secs(KEPT_SECS));
    let old = Row { tell_until: 0, changed: began, ..row };
    assert_eq!(old.tell_left(days(6)), Span::secs(86_400));
}

#[test]
fn what_was_cancelled_just_before_the_node_was_killed_does_not_begin_again() {
    let known = incoming();
    let unknown = Row { job: order(), ..incoming().row() };
    let unknown = Live::new("1".to_owned(), known.peer, unknown);
    for live in [known, unknown] {
        let mut going = live.row();
        going.start_again();
        assert_eq!(going.last.state, State::Interrupted);
        live.cancel_by(By::Here);
        let mut row = live.row();
        row.start_again();
        assert_eq!((row.last.state, row.last.failure.unwrap().error.as_str()), (State::Failed, "cancelled"));
    }
}

/// An order that nobody was reached for.
fn order() -> Job {
    let (to, paths) = ("north".to_owned(), vec!["/note".to_owned()]);
    Job::Out { order: NewTransfer { to, paths, via: None, wait_ms: 0, accept_ms: None, limit: None } }
}
