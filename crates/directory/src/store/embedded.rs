use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use kith_identity::Fingerprint;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};
use kith_store::{Committer, Database, StoreError as DatabaseError, Table, WriteRows};
use tokio::sync::oneshot;

use super::hot::Hot;
use super::recent::stored;
use super::{BoxFuture, Held, Page, Revision, Store, StoreError, Stored};
use crate::replay::{Seen, Verdict};

/// Fingerprint → binary form of the set.
const SETS: Table = Table("directory-sets");
/// Fingerprint → u64 timestamp ‖ digest, of the newest set that was seen, once the set itself is gone.
const SEEN: Table = Table("directory-seen");
/// u64 time ‖ fingerprint → nothing: when a set ends, or the memory of one that is gone.
const DUE: Table = Table("directory-due");
/// Nothing → u64 newest ‖ u64 before ‖ u64 sealed: the revision. Once there was no third number.
const REVISION: Table = Table("directory-revision");

/// The embedded store. Announces of many connections share one durable transaction.
///
/// Looking up reads the database on the calling task: microseconds, out of its cache or the system's.
pub struct RedbStore {
    database: Database,
    committer: Committer,
    hot: Arc<Hot>,
}

/// What is known of the newest set of a node. A node has a row in one of the two tables, and one row that says until
/// when.
struct Newest {
    seen: Seen,
    /// The end of the set, while it is held.
    expires: Option<Timestamp>,
}

impl RedbStore {
    /// The store in `database`, which may hold other tables too.
    #[must_use]
    pub fn new(database: Database) -> Self {
        let committer = Committer::start(database.clone());
        RedbStore { database, committer, hot: Arc::new(Hot::new()) }
    }

    /// The set's binary form, valid or not.
    fn row(&self, fingerprint: &Fingerprint) -> Result<Option<Bytes>, StoreError> {
        Ok(self.hot.row(fingerprint, || self.database.read(|rows| rows.row(SETS, fingerprint.as_bytes())))?)
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
        let (hot, fingerprint) = (Arc::clone(&self.hot), set.fingerprint());
        self.committer.submit(
            move |rows| put(rows, now, &set),
            move |result| {
                hot.forget(&fingerprint);
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
        let hot = Arc::clone(&self.hot);
        self.committer.submit(
            move |rows| sweep(rows, now, limit),
            move |result| {
                let swept = result.map(|swept| {
                    swept.ended.iter().for_each(|fingerprint| hot.forget(fingerprint));
                    swept.rows
                });
                let _ = sender.send(swept);
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
        // It may have to come from the disk: too long for a task that others wait for.
        let reading = tokio::task::spawn_blocking(move || page(&database, now, after, limit));
        Box::pin(async move { reading.await.map_err(|_| StoreError::Stopped)? })
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let row = self.database.read(|rows| rows.row(REVISION, &[]));
        Box::pin(std::future::ready(row.map(|row| revision_of(row.as_deref())).map_err(StoreError::from)))
    }

    fn seal(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        let (sender, receiver) = oneshot::channel();
        self.committer.submit(
            move |rows| revise(rows, |revision| revision.after_seal(number)),
            move |result| {
                let _ = sender.send(result);
            },
        );
        Box::pin(async move { Ok(receiver.await.map_err(|_| StoreError::Stopped)??) })
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
        match Held::stored(now, &fingerprint, bytes) {
            Ok(Some(set)) => sets.push((fingerprint, set)),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a set is left out"),
        }
    }
    Ok(Page { sets, next })
}

fn revision_of(row: Option<&[u8]>) -> Revision {
    // A row of another length can only be damage; the next change puts a number there that is higher than all before.
    let read = |row| {
        let mut reader = Reader::new(row);
        let (newest, before) = (reader.u64().ok()?, reader.u64().ok()?);
        Some(Revision { newest, before, sealed: reader.u64().unwrap_or(0) })
    };
    row.and_then(read).unwrap_or_default()
}

/// Notes a change of the zone.
fn changed(rows: &mut WriteRows, now: Timestamp) -> Result<(), DatabaseError> {
    revise(rows, |revision| revision.after_change(now))
}

fn revise(rows: &mut WriteRows, change: impl FnOnce(Revision) -> Revision) -> Result<(), DatabaseError> {
    let before = revision_of(rows.row(REVISION, &[])?.as_deref());
    let after = change(before);
    if after != before {
        let mut writer = Writer::new();
        writer.u64(after.newest).u64(after.before).u64(after.sealed);
        rows.put(REVISION, &[], &writer.finish())?;
    }
    Ok(())
}

fn put(rows: &mut WriteRows, now: Timestamp, set: &VerifiedRecordSet) -> Result<Stored, DatabaseError> {
    let fingerprint = set.fingerprint();
    let key = fingerprint.as_bytes();
    let before = Newest::find(rows, &fingerprint)?;
    match Seen::of(set).judge(now, before.as_ref().map(|newest| newest.seen)) {
        Verdict::Older | Verdict::Different => return Ok(Stored::NotNewer),
        // Where the set itself is gone a repeat brings it back.
        Verdict::Repeat if before.as_ref().is_some_and(|before| before.expires.is_some()) => {
            return Ok(Stored::Repeated);
        }
        Verdict::Repeat | Verdict::Newer => {}
    }
    if let Some(before) = &before {
        rows.remove(DUE, &due_key(before.due(), key))?;
        if before.expires.is_none() {
            rows.remove(SEEN, key)?;
        }
    }
    rows.put(DUE, &due_key(set.expires(), key), &[])?;
    rows.put(SETS, key, &set.to_bytes())?;
    changed(rows, now)?;
    let was_valid = before
        .is_some_and(|before| before.seen.counts(now) && before.expires.is_some_and(|expires| now < expires));
    Ok(if was_valid { Stored::Replaced } else { Stored::Created })
}

/// What a sweep did.
struct Swept {
    /// Rows that were due.
    rows: usize,
    /// Whose sets ended.
    ended: Vec<Fingerprint>,
}

fn sweep(rows: &mut WriteRows, now: Timestamp, limit: usize) -> Result<Swept, DatabaseError> {
    let mut due = Vec::new();
    rows.scan(DUE, &[], |key, _| {
        let time = key.first_chunk().map(|time| Timestamp(u64::from_be_bytes(*time)));
        let over = time.filter(|time| *time <= now);
        match over {
            Some(time) if due.len() < limit => due.push((time, key.to_vec())),
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    })?;
    let mut ended = Vec::new();
    for (time, key) in &due {
        rows.remove(DUE, key)?;
        let fingerprint = key.get(8..40).and_then(|bytes| bytes.try_into().ok());
        if let Some(fingerprint) = fingerprint.map(Fingerprint::from_bytes)
            && end(rows, now, *time, &fingerprint)?
        {
            ended.push(fingerprint);
        }
    }
    if !ended.is_empty() {
        changed(rows, now)?;
    }
    Ok(Swept { rows: due.len(), ended })
}

/// Ends what is due at `time`; whether that was a set.
fn end(
    rows: &mut WriteRows,
    now: Timestamp,
    time: Timestamp,
    fingerprint: &Fingerprint,
) -> Result<bool, DatabaseError> {
    let key = fingerprint.as_bytes();
    let Some(newest) = Newest::find(rows, fingerprint)? else {
        // Only damage leaves a row without a meaning.
        rows.remove(SEEN, key)?;
        return rows.remove(SETS, key);
    };
    if newest.due() != time {
        return Ok(false);
    }
    if newest.expires.is_none() {
        rows.remove(SEEN, key)?;
        return Ok(false);
    }
    rows.remove(SETS, key)?;
    if now < newest.seen.forget_at() {
        rows.put(SEEN, key, &newest.to_row())?;
        rows.put(DUE, &due_key(newest.seen.forget_at(), key), &[])?;
    }
    Ok(true)
}

fn due_key(at: Timestamp, fingerprint: &[u8; 32]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(at.0).bytes(fingerprint);
    writer.finish()
}

impl Newest {
    /// A row that is none of ours can only be damage; it is as if it were not there.
    fn find(rows: &WriteRows, fingerprint: &Fingerprint) -> Result<Option<Newest>, DatabaseError> {
        let held = rows.row(SETS, fingerprint.as_bytes())?;
        if let Some(held) = held.and_then(|bytes| Held::from_bytes(fingerprint, bytes)) {
            return Ok(Some(Newest { seen: held.seen(), expires: Some(held.expires()) }));
        }
        let seen = rows.row(SEEN, fingerprint.as_bytes())?;
        Ok(seen.and_then(|row| Newest::from_row(&row).ok()))
    }

    /// When the row of this is due.
    fn due(&self) -> Timestamp {
        self.expires.unwrap_or_else(|| self.seen.forget_at())
    }

    fn to_row(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.seen.timestamp.0).bytes(&self.seen.digest);
        writer.finish()
    }

    fn from_row(row: &[u8]) -> Result<Newest, WireError> {
        let mut reader = Reader::new(row);
        let (timestamp, digest) = (Timestamp(reader.u64()?), reader.array()?);
        reader.finish()?;
        Ok(Newest { seen: Seen { timestamp, digest }, expires: None })
    }
}
