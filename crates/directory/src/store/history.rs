//! What the embedded store keeps of its history: for each set and each number with which it changed, the set before.

use std::ops::ControlFlow;

use kith_identity::Fingerprint;
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};
use kith_store::{ReadRows, StoreError as DatabaseError, Table, WriteRows};

use super::{BATCH_SECS, Revision};
use crate::defaults::{HISTORY_BYTES, HISTORY_ROWS, HISTORY_SECS};

/// Fingerprint ‖ u64 number → the set before its first change with this number; empty where there was none.
const BEFORE: Table = Table("directory-before");
/// u64 number ‖ fingerprint → u32 length of the row above.
const CHANGED: Table = Table("directory-changed");
/// Nothing → u64 newest ‖ u64 begin ‖ u64 rows ‖ u64 bytes.
const KEPT: Table = Table("directory-kept");

/// What a row counts for beside the set in it: two keys and a length.
const ROW_BYTES: u64 = 84;
/// Rows that one change may remove at most; even the smallest make room for the largest set.
const TRIM_ROWS: usize = 256;

/// What there is of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kept {
    /// The newest number of the zone when this was written.
    newest: u64,
    /// Rows with this number or a lower one may be missing.
    begin: u64,
    rows: u64,
    bytes: u64,
}

impl Kept {
    /// What there is in a store with this revision. Where another program changed the zone and kept no history, it
    /// begins after the newest number: nor did that program transfer the zone as it was under a number.
    fn of(row: Option<&[u8]>, revision: Revision) -> Kept {
        let mut kept = row.and_then(|row| Kept::from_row(row).ok()).unwrap_or_default();
        if kept.newest != revision.newest {
            kept.begin = kept.begin.max(revision.newest.saturating_add(1));
        }
        kept
    }

    fn from_row(row: &[u8]) -> Result<Kept, WireError> {
        let mut reader = Reader::new(row);
        let [newest, begin, rows, bytes] = [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
        reader.finish()?;
        Ok(Kept { newest, begin, rows, bytes })
    }

    fn write(self, rows: &mut WriteRows) -> Result<(), DatabaseError> {
        let mut writer = Writer::new();
        writer.u64(self.newest).u64(self.begin).u64(self.rows).u64(self.bytes);
        rows.put(KEPT, &[], &writer.finish())
    }
}

/// The first number that is young enough to be kept.
pub(super) fn oldest(now: Timestamp) -> u64 {
    now.minus_secs(HISTORY_SECS).0 / BATCH_SECS
}

/// What a change finds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Before<'a> {
    Nothing,
    Set(&'a [u8]),
    /// What is no set: nobody knows what secondaries have of it.
    Damage,
}

/// Notes that a set changes with `revision`, which was `old` before, and what it was.
pub(super) fn note(
    rows: &mut WriteRows,
    old: Revision,
    revision: Revision,
    fingerprint: &Fingerprint,
    before: Before<'_>,
) -> Result<(), DatabaseError> {
    let mut kept = Kept::of(rows.row(KEPT, &[])?.as_deref(), old);
    let number = revision.newest;
    kept.newest = number;
    let before = match before {
        Before::Nothing => &[],
        Before::Set(bytes) => bytes,
        Before::Damage => {
            kept.begin = number;
            &[]
        }
    };
    let key = before_key(fingerprint, number);
    // Of several changes with one number the first one tells what was before all of them.
    if kept.begin < number && rows.row(BEFORE, &key)?.is_none() {
        let length = u32::try_from(before.len()).unwrap_or(u32::MAX);
        rows.put(BEFORE, &key, before)?;
        rows.put(CHANGED, &changed_key(number, fingerprint), &length.to_be_bytes())?;
        (kept.rows, kept.bytes) = (kept.rows + 1, kept.bytes + u64::from(length) + ROW_BYTES);
    }
    trim(rows, &mut kept, 0, TRIM_ROWS)?;
    kept.write(rows)
}

/// Makes the history begin with the number of `revision`, which was `old` before.
pub(super) fn begin(rows: &mut WriteRows, old: Revision, revision: Revision) -> Result<(), DatabaseError> {
    let mut kept = Kept::of(rows.row(KEPT, &[])?.as_deref(), old);
    (kept.newest, kept.begin) = (revision.newest, kept.begin.max(revision.newest));
    kept.write(rows)
}

/// Makes the history begin with `number`, unless it begins later.
pub(super) fn cut(rows: &mut WriteRows, revision: Revision, number: u64) -> Result<(), DatabaseError> {
    let mut kept = Kept::of(rows.row(KEPT, &[])?.as_deref(), revision);
    if kept.begin >= number {
        return Ok(());
    }
    (kept.newest, kept.begin) = (revision.newest, number);
    kept.write(rows)
}

/// Removes up to `limit` rows that are too old at `now`.
pub(super) fn forget(
    rows: &mut WriteRows,
    revision: Revision,
    now: Timestamp,
    limit: usize,
) -> Result<(), DatabaseError> {
    let mut kept = Kept::of(rows.row(KEPT, &[])?.as_deref(), revision);
    if trim(rows, &mut kept, oldest(now), limit)? == 0 {
        return Ok(());
    }
    kept.newest = revision.newest;
    kept.write(rows)
}

/// Removes up to `limit` rows from the beginning as long as there are too many, or they are of a number below
/// `oldest`; how many.
fn trim(rows: &mut WriteRows, kept: &mut Kept, oldest: u64, limit: usize) -> Result<usize, DatabaseError> {
    let mut over = Vec::new();
    let (mut count, mut bytes) = (kept.rows, kept.bytes);
    if count > HISTORY_ROWS || bytes > HISTORY_BYTES || oldest > 0 {
        rows.scan(CHANGED, &[], |key, length| {
            let number = number_of(key);
            let is_over = count > HISTORY_ROWS || bytes > HISTORY_BYTES || number < oldest;
            if !is_over || over.len() >= limit {
                return ControlFlow::Break(());
            }
            let length = length.try_into().map_or(0, u32::from_be_bytes);
            count = count.saturating_sub(1);
            bytes = bytes.saturating_sub(u64::from(length) + ROW_BYTES);
            over.push((number, key.to_vec()));
            ControlFlow::Continue(())
        })?;
    }
    for (number, key) in &over {
        rows.remove(CHANGED, key)?;
        if let Some(fingerprint) = fingerprint_of(key.get(8..).unwrap_or_default()) {
            rows.remove(BEFORE, &before_key(&fingerprint, *number))?;
        }
        kept.begin = kept.begin.max(*number);
    }
    (kept.rows, kept.bytes) = (count, bytes);
    Ok(over.len())
}

/// Where the history begins: the difference from this number, or a later one, is known.
pub(super) fn beginning(rows: &ReadRows, revision: Revision) -> Result<u64, DatabaseError> {
    Ok(Kept::of(rows.row(KEPT, &[])?.as_deref(), revision).begin)
}

/// Whether a change had this number.
pub(super) fn has(rows: &ReadRows, number: u64) -> Result<bool, DatabaseError> {
    let mut found = false;
    rows.scan(CHANGED, &number.to_be_bytes(), |key, _| {
        found = number_of(key) == number;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// Calls `visit` with whose sets changed with numbers above `from` and up to `to`, some of them several times.
pub(super) fn changes(
    rows: &ReadRows,
    from: u64,
    to: u64,
    mut visit: impl FnMut(Fingerprint),
) -> Result<(), DatabaseError> {
    rows.scan(CHANGED, &from.saturating_add(1).to_be_bytes(), |key, _| {
        if number_of(key) > to {
            return ControlFlow::Break(());
        }
        if let Some(fingerprint) = fingerprint_of(key.get(8..).unwrap_or_default()) {
            visit(fingerprint);
        }
        ControlFlow::Continue(())
    })
}

/// The set of a node before its first change with a number above `number`, empty where there was none; `None` where
/// there is no such change.
pub(super) fn before(
    rows: &ReadRows,
    fingerprint: &Fingerprint,
    number: u64,
) -> Result<Option<Vec<u8>>, DatabaseError> {
    let mut found = None;
    rows.scan(BEFORE, &before_key(fingerprint, number.saturating_add(1)), |key, bytes| {
        found = key.starts_with(fingerprint.as_bytes()).then(|| bytes.to_vec());
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// Calls `visit` with the sets of the nodes behind the key `from`, up to `end` or all, each before its first change with
/// a number above `number`, in the order of their fingerprints; empty where there was none.
pub(super) fn befores(
    rows: &ReadRows,
    from: &[u8],
    end: Option<Fingerprint>,
    number: u64,
    mut visit: impl FnMut(Fingerprint, &[u8]) -> ControlFlow<()>,
) -> Result<(), DatabaseError> {
    let mut last = None;
    rows.scan(BEFORE, from, |key, bytes| {
        let fingerprint = key.get(..32).and_then(fingerprint_of);
        let changed = key.get(32..).map_or(0, number_of);
        match fingerprint {
            // Most rows are of no concern, and there are many behind the end.
            Some(fingerprint) if end.is_some_and(|end| fingerprint > end) => ControlFlow::Break(()),
            Some(fingerprint) if changed > number && last != Some(fingerprint) => {
                last = Some(fingerprint);
                visit(fingerprint, bytes)
            }
            _ => ControlFlow::Continue(()),
        }
    })
}

fn before_key(fingerprint: &Fingerprint, number: u64) -> Vec<u8> {
    [fingerprint.as_bytes().as_slice(), &number.to_be_bytes()].concat()
}

fn changed_key(number: u64, fingerprint: &Fingerprint) -> Vec<u8> {
    [&number.to_be_bytes(), fingerprint.as_bytes().as_slice()].concat()
}

/// The number at the beginning of a key.
fn number_of(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

fn fingerprint_of(bytes: &[u8]) -> Option<Fingerprint> {
    bytes.try_into().ok().map(Fingerprint::from_bytes)
}
