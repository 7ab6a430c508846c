use std::ops::ControlFlow;

use kith_identity::Fingerprint;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};
use kith_store::{Committer, Database, StoreError as DatabaseError, Table, WriteRows};
use tokio::sync::oneshot;

use super::recent::stored;
use super::{BoxFuture, Held, Page, Revision, Store, StoreError, Stored};
use crate::replay::{Seen, Verdict};

/// Fingerprint → binary form of the set.
const SETS: Table = Table("directory-sets");
/// Fingerprint → u64 timestamp ‖ u64 end ‖ digest, of the newest set that was seen.
const SEEN: Table = Table("directory-seen");
/// u64 time ‖ fingerprint ‖ what → nothing: what is to be removed when.
const DUE: Table = Table("directory-due");
/// Nothing → u64 newest ‖ u64 before: the revision.
const REVISION: Table = Table("directory-revision");

/// The embedded store. Announces of many connections share one durable transaction.
///
/// Looking up reads the database on the calling task: microseconds, out of its cache or the system's.
pub struct RedbStore {
    database: Database,
    committer: Committer,
}

/// What is remembered of the newest set.
struct Newest {
    seen: Seen,
    expires: Timestamp,
}

#[derive(Clone, Copy)]
enum Due {
    Expire = 0,
    Forget = 1,
}

impl RedbStore {
    /// The store in `database`, which may hold other tables too.
    #[must_use]
    pub fn new(database: Database) -> Self {
        let committer = Committer::start(database.clone());
        RedbStore { database, committer }
    }

    /// The set's binary form, valid or not.
    fn row(&self, fingerprint: &Fingerprint) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.database.read(|rows| rows.row(SETS, fingerprint.as_bytes()))?)
    }

    fn read_held(&self, now: Timestamp, fingerprint: &Fingerprint) -> Result<Option<Held>, StoreError> {
        self.row(fingerprint)?.map_or(Ok(None), |bytes| Held::stored(now, fingerprint, bytes))
    }

    fn read(
        &self,
        now: Timestamp,
        fingerprint: &Fingerprint,
    ) -> Result<Option<VerifiedRecordSet>, StoreError> {
        let Some(bytes) = self.row(fingerprint)? else { return Ok(None) };
        let set = stored(fingerprint, &bytes)?;
        Ok(Some(set).filter(|set| set.is_valid_at(now)))
    }
}

impl Store for RedbStore {
    fn announce(&self, now: Timestamp, set: VerifiedRecordSet) -> BoxFuture<'_, Result<Stored, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        self.committer.submit(
            move |rows| put(rows, now, &set),
            move |result| {
                // Whoever asked may be gone; the set is stored all the same.
                let _ = sender.send(result);
            },
        );
        Box::pin(async move { Ok(receiver.await.map_err(|_| StoreError::Stopped)??) })
    }

    fn lookup<'a>(
        &'a self,
        now: Timestamp,
        fingerprint: &'a Fingerprint,
    ) -> BoxFuture<'a, Result<Option<VerifiedRecordSet>, StoreError>> {
        Box::pin(std::future::ready(self.read(now, fingerprint)))
    }

    fn count(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        let count = self.database.read(|rows| rows.count(SETS));
        Box::pin(std::future::ready(count.map(Some).map_err(StoreError::from)))
    }

    fn held(
        &self,
        now: Timestamp,
        fingerprint: Fingerprint,
    ) -> BoxFuture<'_, Result<Option<Held>, StoreError>> {
        Box::pin(std::future::ready(self.read_held(now, &fingerprint)))
    }

    fn expire(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        self.committer.submit(
            move |rows| sweep(rows, now, limit),
            move |result| {
                let _ = sender.send(result);
            },
        );
        Box::pin(async move { Ok(receiver.await.map_err(|_| StoreError::Stopped)??) })
    }

    fn page(
        &self,
        now: Timestamp,
        after: Option<Fingerprint>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let database = self.database.clone();
        // Signatures are looked at: milliseconds for a page, too long for a task that others wait for.
        let reading = tokio::task::spawn_blocking(move || page(&database, now, after, limit));
        Box::pin(async move { reading.await.map_err(|_| StoreError::Stopped)? })
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let row = self.database.read(|rows| rows.row(REVISION, &[]));
        Box::pin(std::future::ready(row.map(|row| revision_of(row.as_deref())).map_err(StoreError::from)))
    }
}

fn page(
    database: &Database,
    now: Timestamp,
    after: Option<Fingerprint>,
    limit: usize,
) -> Result<Page, StoreError> {
    let (mut rows_read, mut next) = (Vec::new(), None);
    let from = after.as_ref().map_or(&[][..], |after| after.as_bytes());
    database.read(|rows| {
        rows.scan(SETS, from, |key, bytes| {
            let Some(fingerprint) = key.try_into().ok().map(Fingerprint::from_bytes) else {
                return ControlFlow::Continue(());
            };
            if after == Some(fingerprint) {
                return ControlFlow::Continue(());
            }
            if rows_read.len() >= limit.max(1) {
                next = rows_read.last().map(|(last, _)| *last);
                return ControlFlow::Break(());
            }
            rows_read.push((fingerprint, bytes.to_vec()));
            ControlFlow::Continue(())
        })
    })?;
    let mut sets = Vec::with_capacity(rows_read.len());
    for (fingerprint, bytes) in rows_read {
        match stored(&fingerprint, &bytes) {
            Ok(set) if set.is_valid_at(now) => sets.push(set),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "a set is left out"),
        }
    }
    Ok(Page { sets, next })
}

fn revision_of(row: Option<&[u8]>) -> Revision {
    // A row of another length can only be damage; the next change puts a number there that is higher than all before.
    let read = |row| {
        let mut reader = Reader::new(row);
        Some(Revision { newest: reader.u64().ok()?, before: reader.u64().ok()? })
    };
    row.and_then(read).unwrap_or_default()
}

/// Notes a change of the zone.
fn changed(rows: &mut WriteRows, now: Timestamp) -> Result<(), DatabaseError> {
    let before = revision_of(rows.row(REVISION, &[])?.as_deref());
    let after = before.after_change(now);
    if after != before {
        let mut writer = Writer::new();
        writer.u64(after.newest).u64(after.before);
        rows.put(REVISION, &[], &writer.finish())?;
    }
    Ok(())
}

fn put(rows: &mut WriteRows, now: Timestamp, set: &VerifiedRecordSet) -> Result<Stored, DatabaseError> {
    let fingerprint = set.fingerprint();
    let key = fingerprint.as_bytes();
    // A row of another length can only be damage; the set that comes now takes its place.
    let before = rows.row(SEEN, key)?.and_then(|row| Newest::from_row(&row).ok());
    let newest = Newest { seen: Seen::of(set), expires: set.expires() };
    match newest.seen.judge(now, before.as_ref().map(|newest| newest.seen)) {
        Verdict::Older | Verdict::Different => return Ok(Stored::NotNewer),
        // Where the set itself is gone, or damaged, a repeat brings it back.
        Verdict::Repeat if rows.row(SETS, key)?.is_some_and(|row| row == set.to_bytes()) => {
            return Ok(Stored::Repeated);
        }
        Verdict::Repeat | Verdict::Newer => {}
    }
    if let Some(before) = &before {
        rows.remove(DUE, &due_key(before.expires, key, Due::Expire))?;
        rows.remove(DUE, &due_key(before.seen.forget_at(), key, Due::Forget))?;
    }
    rows.put(DUE, &due_key(newest.expires, key, Due::Expire), &[])?;
    rows.put(DUE, &due_key(newest.seen.forget_at(), key, Due::Forget), &[])?;
    rows.put(SEEN, key, &newest.to_row())?;
    rows.put(SETS, key, &set.to_bytes())?;
    changed(rows, now)?;
    let was_valid = before.is_some_and(|before| before.seen.counts(now) && now < before.expires);
    Ok(if was_valid { Stored::Replaced } else { Stored::Created })
}

fn sweep(rows: &mut WriteRows, now: Timestamp, limit: usize) -> Result<usize, DatabaseError> {
    let mut due = Vec::new();
    rows.scan(DUE, &[], |key, _| {
        let over = key.first_chunk().is_some_and(|time| u64::from_be_bytes(*time) <= now.0);
        if !over || due.len() >= limit {
            return ControlFlow::Break(());
        }
        due.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    let mut gone = false;
    for key in &due {
        rows.remove(DUE, key)?;
        let forget = key.last() == Some(&(Due::Forget as u8));
        let removed = rows.remove(if forget { SEEN } else { SETS }, key.get(8..40).unwrap_or_default())?;
        gone |= removed && !forget;
    }
    if gone {
        changed(rows, now)?;
    }
    Ok(due.len())
}

fn due_key(at: Timestamp, fingerprint: &[u8; 32], due: Due) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(at.0).bytes(fingerprint).u8(due as u8);
    writer.finish()
}

impl Newest {
    fn to_row(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.seen.timestamp.0).u64(self.expires.0).bytes(&self.seen.digest);
        writer.finish()
    }

    fn from_row(row: &[u8]) -> Result<Newest, WireError> {
        let mut reader = Reader::new(row);
        let (timestamp, expires) = (Timestamp(reader.u64()?), Timestamp(reader.u64()?));
        let digest = reader.array()?;
        reader.finish()?;
        Ok(Newest { seen: Seen { timestamp, digest }, expires })
    }
}
