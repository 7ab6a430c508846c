//! The power goes at every write: what was acknowledged is there, and nothing by halves.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use kith_sansio::{Rng, SeededRng};
use kith_store::crash::Backend;
use kith_store::{Committer, Database, StoreError, Table};

use crate::{CACHE, OTHER, TABLE};

type Rows = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

/// One transaction of a workload and when it was under way, in events of the disk.
struct Done {
    begun: usize,
    acknowledged: usize,
    after: Rows,
}

/// What one transaction does.
type Edits = Vec<(Table, Vec<u8>, Option<Vec<u8>>)>;

fn edits(rng: &mut SeededRng) -> Edits {
    (0..1 + rng.below(12))
        .map(|_| {
            let table = if rng.below(3) == 0 { OTHER } else { TABLE };
            let key = vec![rng.below(40) as u8; 1 + rng.below(20) as usize];
            let longest = if rng.below(20) == 0 { 60_000 } else { 600 };
            let mut value = vec![0; rng.below(longest) as usize];
            rng.fill(&mut value);
            (table, key, (rng.below(4) > 0).then_some(value))
        })
        .collect()
}

fn edit(model: &mut Rows, edits: &Edits) {
    for (table, key, value) in edits {
        match value {
            Some(value) => drop(model.insert((table.0, key.clone()), value.clone())),
            None => drop(model.remove(&(table.0, key.clone()))),
        }
    }
}

fn write(rows: &mut kith_store::WriteRows, edits: &Edits) -> Result<(), StoreError> {
    for (table, key, value) in edits {
        match value {
            Some(value) => rows.put(*table, key, value)?,
            None => drop(rows.remove(*table, key)?),
        }
    }
    Ok(())
}

fn contents(database: &Database) -> Result<Rows, StoreError> {
    let mut all = Rows::new();
    database.read(|read| {
        for table in [TABLE, OTHER] {
            read.scan(table, b"", |key, value| {
                all.insert((table.0, key.to_vec()), value.to_vec());
                ControlFlow::Continue(())
            })?;
        }
        Ok(all)
    })
}

/// Runs `count` transactions, every fifth of them refused in the middle.
fn workload(backend: &Backend, rng: &mut SeededRng, count: usize) -> Vec<Done> {
    let database = Database::open_backend(backend, CACHE).unwrap();
    let mut model = contents(&database).unwrap();
    let opened = backend.events();
    let mut done = vec![Done { begun: 0, acknowledged: opened, after: model.clone() }];
    for number in 0..count {
        let edits = edits(rng);
        let begun = backend.events();
        let outcome = database.write(|rows| {
            write(rows, &edits)?;
            if number % 5 == 4 { Err(StoreError::Refused(String::new())) } else { Ok(()) }
        });
        if outcome.is_ok() {
            edit(&mut model, &edits);
            done.push(Done { begun, acknowledged: backend.events(), after: model.clone() });
        }
    }
    done
}

/// Asserts that an image of a crash after `events` events opens and holds an acceptable state.
fn assert_whole(image: Vec<u8>, events: usize, done: &[Done], seed: u64) -> Database {
    let database = Database::open_backend(&Backend::with_image(image), CACHE)
        .unwrap_or_else(|error| panic!("seed {seed}, crash after {events} events: {error}"));
    let found = contents(&database).unwrap();
    let acknowledged = done.iter().rposition(|done| done.acknowledged <= events).unwrap_or(0);
    let allowed = done[acknowledged..].iter().take_while(|done| done.begun <= events);
    assert!(
        allowed.map(|done| &done.after).any(|state| *state == found),
        "seed {seed}, crash after {events} events: {} rows are there, {} were acknowledged",
        found.len(),
        done[acknowledged].after.len(),
    );
    database
}

#[test]
fn after_a_crash_at_any_write_acknowledged_commits_are_there_and_nothing_by_halves() {
    for seed in 0..6 {
        let mut rng = SeededRng::new(seed);
        let backend = Backend::new();
        if seed % 2 == 1 {
            backend.be_large();
        }
        let done = workload(&backend, &mut rng, 25);
        let created = done[0].acknowledged;
        for events in created..=backend.events() {
            assert_whole(backend.killed_at(events), events, &done, seed);
            for _ in 0..2 {
                assert_whole(backend.image_at(events, &mut rng), events, &done, seed);
            }
        }
    }
}

#[test]
fn a_crash_during_the_repair_after_a_crash_loses_nothing_either() {
    for seed in 100..112 {
        let mut rng = SeededRng::new(seed);
        let backend = Backend::new();
        let done = workload(&backend, &mut rng, 12);
        let first = done[0].acknowledged as u64;
        let events = (first + rng.below(backend.events() as u64 - first + 1)) as usize;
        let second = Backend::with_image(backend.image_at(events, &mut rng));
        let again = workload(&second, &mut rng, 6);
        let initial = &again[0].after;
        assert!(done.iter().any(|done| done.after == *initial), "seed {seed}");
        for events in 0..=second.events() {
            assert_whole(second.image_at(events, &mut rng), events, &again, seed);
        }
    }
}

#[test]
fn group_commits_survive_crashes_too() {
    for seed in 200..203 {
        let mut rng = SeededRng::new(seed);
        let backend = Backend::new();
        let acknowledged = committed_counters(&backend);
        for events in 0..=backend.events() {
            let known: Vec<u8> =
                acknowledged.iter().filter(|(_, at)| *at <= events).map(|(key, _)| *key).collect();
            if known.is_empty() {
                continue;
            }
            let image = Backend::with_image(backend.image_at(events, &mut rng));
            let database = Database::open_backend(&image, CACHE).unwrap();
            for key in known {
                let (a, b) = database
                    .read(|rows| Ok::<_, StoreError>((rows.row(TABLE, &[key])?, rows.row(OTHER, &[key])?)))
                    .unwrap();
                assert!(a.is_some() && a == b, "seed {seed}, crash after {events} events: {key}");
            }
        }
    }
}

/// Four threads commit a pair of rows each, one after the other; which were acknowledged at which event.
fn committed_counters(backend: &Backend) -> Vec<(u8, usize)> {
    let committer = Committer::start(Database::open_backend(backend, CACHE).unwrap());
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (committer, acknowledged, backend) = (&committer, &acknowledged, backend);
            scope.spawn(move || {
                for key in thread * 15..(thread + 1) * 15 {
                    let (told, outcome) = channel();
                    committer.submit(
                        move |rows| {
                            rows.put(TABLE, &[key], &[key; 200])?;
                            rows.put(OTHER, &[key], &[key; 200])
                        },
                        move |result| told.send(result).unwrap(),
                    );
                    outcome.recv().unwrap().unwrap();
                    acknowledged.lock().unwrap().push((key, backend.events()));
                }
            });
        }
    });
    drop(committer);
    Arc::into_inner(acknowledged).unwrap().into_inner().unwrap()
}

#[test]
fn equal_seeds_make_equal_images() {
    let backend = Backend::new();
    workload(&backend, &mut SeededRng::new(1), 5);
    let image = |seed| backend.image_at(backend.events() - 1, &mut SeededRng::new(seed));
    assert_eq!(image(3), image(3));
}
