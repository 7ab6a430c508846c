use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use kith_sansio::{Rng, SeededRng};
use kith_store::crash::Backend;
use kith_store::{Condition, Database, StoreError, WriteRows};

use crate::{CACHE, TABLE};

fn database() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.redb");
    let database = Database::open(&path, CACHE).unwrap();
    fill(&database);
    drop(database);
    (folder, path)
}

/// Two commits: 500 rows of the same value, one after the other.
fn fill(database: &Database) {
    for value in [6, 7] {
        let fill = |n: u16, rows: &mut WriteRows| rows.put(TABLE, &n.to_be_bytes(), &[value; 300]);
        database.write(|rows| (0..500).try_for_each(|n| fill(n, rows))).unwrap();
    }
}

#[test]
fn looking_at_a_database_tells_how_it_is_and_changes_nothing() {
    let (_folder, path) = database();
    let before = fs::read(&path).unwrap();
    assert_eq!(Database::inspect(&path).unwrap(), Condition::Closed);
    assert_eq!(fs::read(&path).unwrap(), before);
    let open = Database::open(&path, CACHE).unwrap();
    assert!(matches!(Database::inspect(&path), Err(StoreError::InUse { .. })));
    open.write(|rows| rows.put(TABLE, b"more", b"x")).unwrap();
    // What the disk would hold if the process were killed now.
    let killed = path.with_extension("killed");
    fs::copy(&path, &killed).unwrap();
    let before = fs::read(&killed).unwrap();
    assert_eq!(Database::inspect(&killed).unwrap(), Condition::Unclosed);
    assert_eq!(fs::read(&killed).unwrap(), before);
    fs::write(&killed, b"text").unwrap();
    assert!(Database::inspect(&killed).is_err());
    assert!(matches!(Database::inspect(&path.with_extension("none")), Err(StoreError::NoFolder { .. })));
}

/// Uses a database, whatever is in it: it tells of damage, or has all rows of one of its states.
fn use_all(database: &Database) -> Result<usize, StoreError> {
    let mut values = Vec::new();
    database.read(|read| {
        read.scan(TABLE, b"", |key, value| {
            if key != b"more" {
                values.push(value.to_vec());
            }
            ControlFlow::Continue(())
        })
    })?;
    let state = values.first().cloned().unwrap_or_default();
    assert!(values.is_empty() || state == [6; 300] || state == [7; 300]);
    assert!(values.iter().all(|value| *value == state));
    database.write(|write| {
        write.put(TABLE, b"more", &[1; 5000])?;
        write.remove(TABLE, &3u16.to_be_bytes())
    })?;
    Ok(values.len())
}

fn open_and_use(path: &Path) -> Result<usize, StoreError> {
    use_all(&Database::open(path, CACHE)?)
}

fn assert_told(error: &StoreError, path: &Path) {
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert!(error.hint().is_some() || error.source().is_some(), "{text}");
}

#[test]
fn an_empty_file_is_damage_and_stays_as_it_is() {
    let (_folder, path) = database();
    fs::write(&path, b"").unwrap();
    let error = open_and_use(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }));
    assert_eq!(error.to_string(), format!("the database {} is damaged: it is empty", path.display()));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_truncated_file_is_damage() {
    let (_folder, path) = database();
    let whole = fs::read(&path).unwrap();
    for length in [1, 8, 9, 100, 320, 4095, 4096, 8192, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open_and_use(&path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{length}: {error:?}");
        assert_told(&error, &path);
    }
}

#[test]
fn garbage_and_other_files_are_damage() {
    let (_folder, path) = database();
    let mut rng = SeededRng::new(1);
    let mut garbage = vec![0; 100_000];
    rng.fill(&mut garbage);
    for wrong in [garbage, vec![0; 4096], b"SQLite format 3\0 and so on".to_vec(), b"x".to_vec()] {
        fs::write(&path, wrong).unwrap();
        let error = open_and_use(&path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert_told(&error, &path);
    }
}

#[test]
fn damage_anywhere_is_an_error_or_harmless_but_no_panic() {
    let (_folder, path) = database();
    let whole = fs::read(&path).unwrap();
    let mut rng = SeededRng::new(2);
    for round in 0..150 {
        let mut damaged = whole.clone();
        let start = rng.below(if round % 3 == 0 { 320 } else { whole.len() as u64 - 600 }) as usize;
        let length = 1 + rng.below(if round % 2 == 0 { 4 } else { 600 }) as usize;
        rng.fill(&mut damaged[start..start + length]);
        fs::write(&path, damaged).unwrap();
        if let Err(error) = open_and_use(&path) {
            assert_told(&error, &path);
        }
    }
}

#[test]
fn a_file_of_another_version_is_told_as_such() {
    let (_folder, path) = database();
    let whole = fs::read(&path).unwrap();
    // Both commit slots begin with the version of the format: at 64 and 192 (redb's design, "Database header").
    for version in [1, 2, 4, 200] {
        let mut other = whole.clone();
        (other[64], other[192]) = (version, version);
        fs::write(&path, other).unwrap();
        let error = open_and_use(&path).unwrap_err();
        assert!(matches!(error, StoreError::Version { .. }), "{version}: {error:?}");
        assert_told(&error, &path);
    }
}

#[test]
fn a_folder_or_nothing_in_the_place_of_a_database_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = Database::open(folder.path(), CACHE).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let error = Database::open(&folder.path().join("none/node.redb"), CACHE).unwrap_err();
    assert!(matches!(error, StoreError::NoFolder { .. }), "{error:?}");
}

#[test]
fn a_database_opens_once() {
    let (_folder, path) = database();
    let first = Database::open(&path, CACHE).unwrap();
    let error = Database::open(&path, CACHE).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    drop(first);
    open_and_use(&path).unwrap();
}

#[test]
fn many_who_create_a_database_at_once_get_one_or_in_use() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.redb");
        let barrier = std::sync::Barrier::new(4);
        let opened: Vec<_> = std::thread::scope(|scope| {
            let open = || {
                barrier.wait();
                Database::open(&path, CACHE)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(opened.iter().filter(|database| database.is_ok()).count(), 1);
        assert!(opened.iter().flat_map(|o| o.as_ref().err()).all(|e| matches!(e, StoreError::InUse { .. })));
        drop(opened);
        open_and_use(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn errors_of_the_disk_have_their_own_variants() {
    let open = |kind| {
        let backend = Backend::new();
        backend.fail_after(2, kind);
        Database::open_backend(&backend, CACHE).unwrap_err()
    };
    assert!(matches!(open(ErrorKind::StorageFull), StoreError::Full { .. }));
    assert!(matches!(open(ErrorKind::ReadOnlyFilesystem), StoreError::ReadOnly { .. }));
    assert!(matches!(open(ErrorKind::PermissionDenied), StoreError::Denied { .. }));
    assert!(matches!(open(ErrorKind::Other), StoreError::Io { .. }));
}

#[test]
fn a_full_disk_fails_one_write_and_the_database_works_on_when_there_is_space_again() {
    for successes in 0..12 {
        let backend = Backend::new();
        let database = Database::open_backend(&backend, CACHE).unwrap();
        database.write(|rows| rows.put(TABLE, b"first", b"1")).unwrap();
        backend.fail_after(successes, ErrorKind::StorageFull);
        let failed = database.write(|rows| rows.put(TABLE, b"second", &vec![2; 3_000_000]));
        if let Err(error) = &failed {
            assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        }
        backend.recover();
        let second = database.read(|rows| rows.row(TABLE, b"second")).unwrap();
        // A failed sync leaves it open whether the commit is there; a failed write does not.
        assert!(if failed.is_ok() { second.is_some() } else { successes > 0 || second.is_none() });
        assert!(second.is_none_or(|value| value == [2; 3_000_000]));
        database.write(|rows| rows.put(TABLE, b"third", b"3")).unwrap();
        assert_eq!(database.read(|rows| rows.row(TABLE, b"first")).unwrap().unwrap(), b"1");
        assert_eq!(database.read(|rows| rows.row(TABLE, b"third")).unwrap().unwrap(), b"3");
    }
}
