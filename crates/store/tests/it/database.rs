use std::collections::BTreeMap;
use std::ops::ControlFlow;

use kith_store::{Database, MAX_KEY_BYTES, MAX_VALUE_BYTES, StoreError, Table, WriteRows};
use proptest::prelude::*;

use crate::{CACHE, OTHER, TABLE};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn read_all(database: &Database, from: &[u8]) -> Rows {
    let mut rows = Rows::new();
    database
        .read(|read| {
            read.scan(TABLE, from, |key, value| {
                rows.insert(key.to_vec(), value.to_vec());
                ControlFlow::Continue(())
            })
        })
        .unwrap();
    rows
}

fn scan_within(write: &WriteRows, from: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    write
        .scan(TABLE, from, |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn a_table_that_was_never_written_is_empty() {
    let database = Database::in_memory().unwrap();
    database
        .read(|rows| {
            assert_eq!(rows.row(TABLE, b"key")?, None);
            assert_eq!(rows.count(TABLE)?, 0);
            rows.scan(TABLE, b"", |_, _| panic!("no row"))
        })
        .unwrap_or_else(|error: StoreError| panic!("{error}"));
    database
        .write(|rows| {
            assert_eq!(rows.row(TABLE, b"key")?, None);
            assert_eq!(rows.count(TABLE)?, 0);
            assert!(!rows.remove(TABLE, b"key")?);
            rows.scan(TABLE, b"", |_, _| panic!("no row"))
        })
        .unwrap_or_else(|error: StoreError| panic!("{error}"));
}

#[test]
fn rows_are_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.redb");
    let database = Database::open(&path, CACHE).unwrap();
    database.write(|rows| rows.put(TABLE, b"key", b"value")).unwrap();
    drop(database);
    let database = Database::open(&path, CACHE).unwrap();
    assert_eq!(database.read(|rows| rows.row(TABLE, b"key")).unwrap().unwrap(), b"value");
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["node.redb"]);
}

#[test]
fn nothing_happened_where_writing_fails_or_panics() {
    let database = Database::in_memory().unwrap();
    database.write(|rows| rows.put(TABLE, b"a", b"1")).unwrap();
    let failed = database.write(|rows| {
        rows.put(TABLE, b"a", b"2")?;
        rows.put(OTHER, b"b", b"2")?;
        Err::<(), _>(StoreError::Refused("not today".to_owned()))
    });
    assert_eq!(failed.unwrap_err().to_string(), "not today");
    let panicked = std::panic::catch_unwind(|| {
        database.write(|rows| {
            rows.remove(TABLE, b"a")?;
            if rows.count(TABLE)? == 0 {
                panic!("within a write");
            }
            Ok::<_, StoreError>(())
        })
    });
    assert!(panicked.is_err());
    assert_eq!(database.read(|rows| rows.row(TABLE, b"a")).unwrap().unwrap(), b"1");
    assert_eq!(database.read(|rows| rows.count(OTHER)).unwrap(), 0);
}

#[test]
fn what_a_failed_read_spoiled_is_never_said_to_be_written() {
    let database = Database::in_memory().unwrap();
    let table = Table("spoiled");
    database.write(|rows| rows.put(table, b"a", b"1")).unwrap();
    let written: Result<(), StoreError> = database.write(|rows| {
        rows.put(table, b"b", b"2")?;
        // A table cannot be opened twice; whoever asks so and looks away must not be told that all is well.
        rows.scan(table, &[], |key, _| {
            let _ = rows.row(table, key);
            std::ops::ControlFlow::Break(())
        })
    });
    let there = database.read(|rows| rows.row(table, b"b")).unwrap();
    assert_eq!(written.is_ok(), there.is_some(), "{written:?}");
}

#[test]
fn a_reader_keeps_its_view_while_others_write() {
    let database = Database::in_memory().unwrap();
    database.write(|rows| rows.put(TABLE, b"a", b"1")).unwrap();
    database
        .read(|rows| {
            database.write(|rows| rows.put(TABLE, b"a", b"2"))?;
            assert_eq!(rows.row(TABLE, b"a")?.unwrap(), b"1");
            Ok::<_, StoreError>(())
        })
        .unwrap();
    assert_eq!(database.read(|rows| rows.row(TABLE, b"a")).unwrap().unwrap(), b"2");
}

#[test]
fn keys_and_values_beyond_the_limits_are_refused() {
    let database = Database::in_memory().unwrap();
    let put =
        |key: usize, value: usize| database.write(|rows| rows.put(TABLE, &vec![0; key], &vec![0; value]));
    put(MAX_KEY_BYTES, 1).unwrap();
    put(0, 0).unwrap();
    assert!(matches!(put(MAX_KEY_BYTES + 1, 1), Err(StoreError::TooLarge { what: "a key", .. })));
    assert!(matches!(put(1, MAX_VALUE_BYTES + 1), Err(StoreError::TooLarge { what: "a value", .. })));
}

#[test]
fn a_scan_stops_when_told() {
    let database = Database::in_memory().unwrap();
    let count_to_two = |seen: &mut u32| {
        *seen += 1;
        if *seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    database
        .write(|rows| {
            (0..9).try_for_each(|key: u8| rows.put(TABLE, &[key], b""))?;
            let mut seen = 0;
            rows.scan(TABLE, &[3], |_, _| count_to_two(&mut seen))?;
            assert_eq!(seen, 2);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    let mut seen = 0;
    database.read(|rows| rows.scan(TABLE, &[3], |_, _| count_to_two(&mut seen))).unwrap();
    assert_eq!(seen, 2);
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Scan(Vec<u8>),
    Commit,
    Abort,
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop::collection::vec(0u8..4, 0..3);
    prop_oneof![
        4 => (key.clone(), any::<Vec<u8>>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key.clone().prop_map(Step::Remove),
        2 => key.prop_map(Step::Scan),
        1 => Just(Step::Commit),
        1 => Just(Step::Abort),
    ]
}

/// Runs the steps of one transaction, comparing with a model, until it commits or aborts.
fn transact(
    write: &mut WriteRows,
    model: &mut Rows,
    steps: &mut impl Iterator<Item = Step>,
) -> Result<(), StoreError> {
    for step in steps.by_ref() {
        match step {
            Step::Put(key, value) => {
                write.put(TABLE, &key, &value)?;
                model.insert(key, value);
            }
            Step::Remove(key) => assert_eq!(write.remove(TABLE, &key)?, model.remove(&key).is_some()),
            Step::Scan(from) => {
                assert_eq!(write.count(TABLE)?, model.len() as u64);
                assert_eq!(write.row(TABLE, &from)?.as_ref(), model.get(&from));
                let expected: Vec<_> =
                    model.range(from.clone()..).map(|(key, value)| (key.clone(), value.clone())).collect();
                assert_eq!(scan_within(write, &from), expected);
            }
            Step::Commit => return Ok(()),
            Step::Abort => return Err(StoreError::Refused(String::new())),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_transaction_behaves_like_a_map(steps in prop::collection::vec(step(), 1..80)) {
        let database = Database::in_memory().unwrap();
        let mut model = Rows::new();
        let mut steps = steps.into_iter().peekable();
        while steps.peek().is_some() {
            let mut next = model.clone();
            if database.write(|write| transact(write, &mut next, &mut steps)).is_ok() {
                model = next;
            }
            prop_assert_eq!(&read_all(&database, b""), &model);
        }
    }
}
