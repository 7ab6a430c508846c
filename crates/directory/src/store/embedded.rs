use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use kith_identity::Fingerprint;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};
use kith_store::{Committer, Database, ReadRows, StoreError as DatabaseError, Table, WriteRows};
use tokio::sync::oneshot;

use super::history::{self, Before};
use super::hot::Hot;
use super::recent::stored;
use super::{BoxFuture, Difference, Held, Page, Revision, Shape, Store, StoreError, Stored};
use crate::replay::{Seen, Verdict};

/// Fingerprint → binary form of the set.
const SETS: Table = Table("directory-sets");
/// Fingerprint → u64 timestamp ‖ digest, of the newest set that was seen, once the set itself is gone.
const SEEN: Table = Table("directory-seen");
/// u64 time ‖ fingerprint → nothing: when a set ends, or the memory of one that is gone.
const DUE: Table = Table("directory-due");
/// Nothing → u64 newest ‖ u64 before ‖ u64 sealed: the revision. Once there was no third number.
const REVISION: Table = Table("directory-revision");
/// Nothing → the shape.
const SHAPE: Table = Table("directory-shape");

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

    /// Makes a change, and gives its outcome once it is durable.
    fn commit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut WriteRows) -> Result<T, DatabaseError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        let done = move |result| {
            // Whoever asked may be gone.
            let _ = sender.send(result);
        };
        self.committer.submit(change, done);
        Box::pin(async move { Ok(receiver.await.map_err(|_| StoreError::Stopped)??) })
    }

    /// Reads what may have to come from the disk: too long for a task that others wait for.
    fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let database = self.database.clone();
        let reading = tokio::task::spawn_blocking(move || read(&database));
        Box::pin(async move { reading.await.map_err(|_| StoreError::Stopped)? })
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
        number: u64,
        after: Option<Fingerprint>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.reading(move |database| page(database, number, after, limit))
    }

    fn changed(&self, from: u64, to: u64) -> BoxFuture<'_, Result<Option<Vec<Fingerprint>>, StoreError>> {
        self.reading(move |database| database.read(|rows| changed(rows, from, to)))
    }

    fn differences(
        &self,
        from: u64,
        to: u64,
        of: Vec<Fingerprint>,
    ) -> BoxFuture<'_, Result<Option<Vec<Difference>>, StoreError>> {
        self.reading(move |database| {
            database.read(|rows| {
                if history::beginning(rows, revision(rows)?)? > from {
                    return Ok(None);
                }
                of.into_iter().map(|fingerprint| difference(rows, from, to, fingerprint)).collect()
            })
        })
    }

    fn cut(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.commit(move |rows| {
            let revision = revision_of(rows.row(REVISION, &[])?.as_deref());
            history::cut(rows, revision, number)
        })
    }

    fn reshape(&self, now: Timestamp, shape: Shape) -> BoxFuture<'_, Result<(), StoreError>> {
        self.commit(move |rows| reshape(rows, now, &shape))
    }

    fn shape(&self) -> BoxFuture<'_, Result<Option<Shape>, StoreError>> {
        let row = self.database.read(|rows| rows.row(SHAPE, &[]));
        let shape = row.map(|row| row.and_then(|row| row.try_into().ok()));
        Box::pin(std::future::ready(shape.map_err(StoreError::from)))
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(std::future::ready(self.database.read(|rows| Ok(revision(rows)?))))
    }

    fn seal(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.commit(move |rows| revise(rows, |revision| revision.after_seal(number)).map(drop))
    }
}

fn page(
    database: &Database,
    number: u64,
    after: Option<Fingerprint>,
    limit: usize,
) -> Result<Page, StoreError> {
    let limit = limit.max(1);
    // Behind every row of `after`, with a number or without.
    let from = after.map_or_else(Vec::new, |after| [after.as_bytes().as_slice(), &[0xff; 9]].concat());
    let (mut found, mut end) = (BTreeMap::new(), None);
    database.read(|rows| {
        rows.scan(SETS, &from, |key, bytes| {
            let Some(fingerprint) = key.try_into().ok().map(Fingerprint::from_bytes) else {
                return ControlFlow::Continue(());
            };
            if found.len() >= limit {
                end = found.keys().next_back().copied();
                return ControlFlow::Break(());
            }
            found.insert(fingerprint, bytes.to_vec());
            ControlFlow::Continue(())
        })?;
        // What changed since is as it was before, and what went away since is still there.
        let mut befores = Vec::new();
        history::befores(rows, &from, end, number, |fingerprint, bytes| {
            if befores.len() >= limit {
                end = befores.last().map(|(last, _)| *last);
                return ControlFlow::Break(());
            }
            befores.push((fingerprint, bytes.to_vec()));
            ControlFlow::Continue(())
        })?;
        found.extend(befores);
        Ok::<_, StoreError>(())
    })?;
    if found.len() > limit {
        let last = found.keys().nth(limit - 1).copied();
        end = end.min(last).or(last);
    }
    found.retain(|fingerprint, _| end.is_none_or(|end| *fingerprint <= end));
    let mut sets = Vec::with_capacity(found.len());
    for (fingerprint, bytes) in found.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        match Held::from_bytes(&fingerprint, bytes) {
            Some(set) => sets.push((fingerprint, set)),
            None => tracing::error!(error = %StoreError::Damaged(fingerprint), "a set is left out"),
        }
    }
    Ok(Page { sets, next: end })
}

fn changed(rows: &ReadRows, from: u64, to: u64) -> Result<Option<Vec<Fingerprint>>, StoreError> {
    let begin = history::beginning(rows, revision(rows)?)?;
    let is_known = from > 0 && (begin == from || history::has(rows, from)?);
    if begin > from || !is_known {
        return Ok(None);
    }
    let mut changed = BTreeSet::new();
    history::changes(rows, from, to, |fingerprint| {
        changed.insert(fingerprint);
    })?;
    Ok(Some(changed.into_iter().collect()))
}

fn difference(
    rows: &ReadRows,
    from: u64,
    to: u64,
    fingerprint: Fingerprint,
) -> Result<Option<Difference>, StoreError> {
    let state = |number| {
        let bytes = match history::before(rows, &fingerprint, number)? {
            Some(bytes) => bytes,
            None => rows.row(SETS, fingerprint.as_bytes())?.unwrap_or_default(),
        };
        Held::of_row(&fingerprint, bytes)
    };
    Ok(Some(Difference { fingerprint, before: state(from)?, after: state(to)? }))
}

fn reshape(rows: &mut WriteRows, now: Timestamp, shape: &Shape) -> Result<(), DatabaseError> {
    let before = rows.row(SHAPE, &[])?;
    if before.as_deref() == Some(shape) {
        return Ok(());
    }
    rows.put(SHAPE, &[], shape)?;
    if before.is_some() {
        let (old, revision) = changed_at(rows, now)?;
        history::begin(rows, old, revision)?;
    }
    Ok(())
}

fn revision(rows: &ReadRows) -> Result<Revision, DatabaseError> {
    Ok(revision_of(rows.row(REVISION, &[])?.as_deref()))
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

/// Notes a change of the zone; the revisions before and after it.
fn changed_at(rows: &mut WriteRows, now: Timestamp) -> Result<(Revision, Revision), DatabaseError> {
    revise(rows, |revision| revision.after_change(now))
}

fn revise(
    rows: &mut WriteRows,
    change: impl FnOnce(Revision) -> Revision,
) -> Result<(Revision, Revision), DatabaseError> {
    let before = revision_of(rows.row(REVISION, &[])?.as_deref());
    let after = change(before);
    if after != before {
        let mut writer = Writer::new();
        writer.u64(after.newest).u64(after.before).u64(after.sealed);
        rows.put(REVISION, &[], &writer.finish())?;
    }
    Ok((before, after))
}

/// Notes a change of one set, which was `before`.
fn note(
    rows: &mut WriteRows,
    now: Timestamp,
    fingerprint: &Fingerprint,
    before: Before<'_>,
) -> Result<(), DatabaseError> {
    let (old, revision) = changed_at(rows, now)?;
    history::note(rows, old, revision, fingerprint, before)
}

fn put(rows: &mut WriteRows, now: Timestamp, set: &VerifiedRecordSet) -> Result<Stored, DatabaseError> {
    let fingerprint = set.fingerprint();
    let key = fingerprint.as_bytes();
    let (held, before) = Newest::find(rows, &fingerprint)?;
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
    note(rows, now, &fingerprint, was(held.as_deref(), before.as_ref()))?;
    rows.put(SETS, key, &set.to_bytes())?;
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
    let revision = revision_of(rows.row(REVISION, &[])?.as_deref());
    history::forget(rows, revision, now, limit)?;
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
    let (held, newest) = Newest::find(rows, fingerprint)?;
    let was = was(held.as_deref(), newest.as_ref());
    let Some(newest) = newest else {
        // Only damage leaves a row without a meaning.
        rows.remove(SEEN, key)?;
        return remove(rows, now, fingerprint, was);
    };
    if newest.due() != time {
        return Ok(false);
    }
    if newest.expires.is_none() {
        rows.remove(SEEN, key)?;
        return Ok(false);
    }
    remove(rows, now, fingerprint, was)?;
    if now < newest.seen.forget_at() {
        rows.put(SEEN, key, &newest.to_row())?;
        rows.put(DUE, &due_key(newest.seen.forget_at(), key), &[])?;
    }
    Ok(true)
}

/// Removes a set, which is a change; whether it was there.
fn remove(
    rows: &mut WriteRows,
    now: Timestamp,
    fingerprint: &Fingerprint,
    was: Before<'_>,
) -> Result<bool, DatabaseError> {
    let removed = rows.remove(SETS, fingerprint.as_bytes())?;
    if removed {
        note(rows, now, fingerprint, was)?;
    }
    Ok(removed)
}

/// What a row of a set was.
fn was<'a>(held: Option<&'a [u8]>, newest: Option<&Newest>) -> Before<'a> {
    match held {
        None => Before::Nothing,
        Some(bytes) if newest.is_some_and(|newest| newest.expires.is_some()) => Before::Set(bytes),
        Some(_) => Before::Damage,
    }
}

fn due_key(at: Timestamp, fingerprint: &[u8; 32]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(at.0).bytes(fingerprint);
    writer.finish()
}

impl Newest {
    /// The row of a node's set, and what is known of the newest one. A row that is none of ours can only be damage; of
    /// that nothing is known.
    fn find(
        rows: &WriteRows,
        fingerprint: &Fingerprint,
    ) -> Result<(Option<Bytes>, Option<Newest>), DatabaseError> {
        let held = rows.row(SETS, fingerprint.as_bytes())?.map(Bytes::from);
        let set = held.clone().and_then(|bytes| Held::from_bytes(fingerprint, bytes));
        if let Some(set) = set {
            return Ok((held, Some(Newest { seen: set.seen(), expires: Some(set.expires()) })));
        }
        let seen = rows.row(SEEN, fingerprint.as_bytes())?;
        Ok((held, seen.and_then(|row| Newest::from_row(&row).ok())))
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
