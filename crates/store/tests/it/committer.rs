use std::io::ErrorKind;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kith_store::crash::Backend;
use kith_store::{Committer, Database, StoreError};

use crate::{CACHE, OTHER, TABLE};

/// Far more than anything here takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn number(bytes: Option<Vec<u8>>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

/// Holds the committing thread inside a change until the sender is dropped.
fn hold(committer: &Committer) -> Sender<()> {
    let (entered, inside) = channel();
    let (release, released) = channel::<()>();
    committer.submit(
        move |_| {
            entered.send(()).unwrap();
            let _ = released.recv_timeout(DEADLINE);
            Ok(())
        },
        |_| {},
    );
    inside.recv_timeout(DEADLINE).unwrap();
    release
}

#[test]
fn a_change_is_durable_when_its_owner_is_told() {
    let backend = Backend::new();
    let committer = Committer::start(Database::open_backend(&backend, CACHE).unwrap());
    let (told, outcome) = channel();
    let disk = backend.clone();
    committer.submit(
        |rows| rows.put(TABLE, b"key", b"value").map(|()| 7),
        move |result| told.send((result, disk.image_at(disk.events(), &mut Nothing))).unwrap(),
    );
    let (result, image) = outcome.recv_timeout(DEADLINE).unwrap();
    assert_eq!(result.unwrap(), 7);
    let after = Database::open_backend(&Backend::with_image(image), CACHE).unwrap();
    assert_eq!(after.read(|rows| rows.row(TABLE, b"key")).unwrap().unwrap(), b"value");
}

/// Chance that always chooses to lose what was not synced.
struct Nothing;

impl kith_sansio::Rng for Nothing {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0xff);
    }

    fn below(&mut self, bound: u64) -> u64 {
        bound.saturating_sub(1)
    }
}

#[test]
fn many_changes_share_few_syncs_and_keep_their_order() {
    let backend = Backend::new();
    let database = Database::open_backend(&backend, CACHE).unwrap();
    let committer = Committer::start(database.clone());
    let release = hold(&committer);
    let before = backend.syncs();
    let order = Arc::new(Mutex::new(Vec::new()));
    for expected in 0..400u64 {
        let order = Arc::clone(&order);
        committer.submit(
            move |rows| {
                let seen = number(rows.row(TABLE, b"counter")?);
                rows.put(TABLE, b"counter", &(seen + 1).to_be_bytes())?;
                Ok(seen)
            },
            move |seen| order.lock().unwrap().push((expected, seen.unwrap())),
        );
    }
    drop(release);
    drop(committer);
    assert!(order.lock().unwrap().iter().all(|(expected, seen)| expected == seen));
    assert_eq!(order.lock().unwrap().len(), 400);
    assert_eq!(number(database.read(|rows| rows.row(TABLE, b"counter")).unwrap()), 400);
    let syncs = backend.syncs() - before;
    assert!(syncs <= 8, "400 changes took {syncs} syncs");
}

#[test]
fn one_that_fails_or_panics_does_not_touch_the_others() {
    let database = Database::in_memory().unwrap();
    let committer = Committer::start(database.clone());
    let release = hold(&committer);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    for change in 0..30u8 {
        let outcomes = Arc::clone(&outcomes);
        committer.submit(
            move |rows| {
                rows.put(TABLE, &[change], b"")?;
                rows.put(OTHER, b"last", &[change])?;
                match change % 3 {
                    0 => Ok(()),
                    1 => Err(StoreError::Refused("no".to_owned())),
                    _ => panic!("a bug in a change"),
                }
            },
            move |outcome| outcomes.lock().unwrap().push((change, outcome)),
        );
    }
    // An answer that panics does not stop the thread either.
    committer.submit(|_| Ok(()), |_| panic!("a bug in an answer"));
    drop(release);
    drop(committer);
    let outcomes = outcomes.lock().unwrap();
    assert_eq!(outcomes.len(), 30);
    for (change, outcome) in outcomes.iter() {
        match (change % 3, outcome) {
            (0, Ok(())) | (1, Err(StoreError::Refused(_))) | (2, Err(StoreError::Panicked { .. })) => {}
            other => panic!("{other:?}"),
        }
        let row = database.read(|rows| rows.row(TABLE, &[*change])).unwrap();
        assert_eq!(row.is_some(), change % 3 == 0);
    }
    assert_eq!(database.read(|rows| rows.row(OTHER, b"last")).unwrap().unwrap(), [27]);
}

#[test]
fn a_commit_that_fails_is_told_to_everybody_in_it() {
    let backend = Backend::new();
    let database = Database::open_backend(&backend, CACHE).unwrap();
    let committer = Committer::start(database.clone());
    let release = hold(&committer);
    let (told, outcomes) = channel();
    let submit = |key: u8| {
        let told = told.clone();
        committer.submit(
            move |rows| rows.put(TABLE, &[key], &[key; 1000]),
            move |outcome| told.send(outcome).unwrap(),
        );
    };
    (0..50).for_each(submit);
    backend.fail_after(0, ErrorKind::StorageFull);
    drop(release);
    for _ in 0..50 {
        let outcome = outcomes.recv_timeout(DEADLINE).unwrap();
        assert!(matches!(outcome, Err(StoreError::Full { .. })), "{outcome:?}");
    }
    backend.recover();
    submit(99);
    outcomes.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!(database.read(|rows| rows.count(TABLE)).unwrap(), 1);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let committer = Committer::start(Database::in_memory().unwrap());
    let release = hold(&committer);
    let busy = Arc::new(Mutex::new((0, 0)));
    for _ in 0..10_000 {
        let busy = Arc::clone(&busy);
        committer.submit(
            |rows| rows.put(TABLE, b"key", b""),
            move |outcome| match outcome {
                Ok(()) => busy.lock().unwrap().0 += 1,
                Err(StoreError::Busy { .. }) => busy.lock().unwrap().1 += 1,
                Err(other) => panic!("{other}"),
            },
        );
    }
    let refused = busy.lock().unwrap().1;
    assert!((1..10_000).contains(&refused));
    drop(release);
    drop(committer);
    assert_eq!(*busy.lock().unwrap(), (10_000 - refused, refused));
}

#[test]
fn the_last_owner_may_be_an_answer() {
    let committer = Arc::new(Committer::start(Database::in_memory().unwrap()));
    let (told, outcome) = channel();
    let (go, gone) = channel::<()>();
    let own = Arc::clone(&committer);
    committer.submit(
        |rows| rows.put(TABLE, b"key", b""),
        move |result| {
            let _ = gone.recv_timeout(DEADLINE);
            drop(own);
            told.send(result).unwrap();
        },
    );
    drop(committer);
    drop(go);
    outcome.recv_timeout(DEADLINE).unwrap().unwrap();
}
