use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};

use redb::{ReadableTable, ReadableTableMetadata};

use crate::StoreError;
use crate::engine::{Definition, discard, failure, guarded};

/// The largest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// The largest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024 * 1024;

/// A table of byte keys and byte values, ordered by key; it exists from its first row on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub &'static str);

/// The rows as they stood when the reading began; writers do not disturb it.
pub struct ReadRows {
    transaction: redb::ReadTransaction,
    path: PathBuf,
    failed: Cell<bool>,
}

/// The rows and the changes made so far, visible to nobody else until all of them are durable.
///
/// Changes are staged in memory first, so that one of several writers of a commit can fail alone.
pub struct WriteRows {
    transaction: Option<redb::WriteTransaction>,
    path: PathBuf,
    staged: Staged,
    changed: bool,
    failed: Cell<bool>,
}

/// Per table the rows to be put (`Some`) or removed (`None`).
type Staged = BTreeMap<&'static str, Changes>;
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl Table {
    fn definition(self) -> Definition {
        Definition::new(self.0)
    }
}

impl ReadRows {
    pub(crate) fn new(path: &Path, transaction: redb::ReadTransaction) -> ReadRows {
        ReadRows { transaction, path: path.to_path_buf(), failed: Cell::new(false) }
    }

    /// The value under `key`.
    pub fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(table, |rows| read_row(&self.path, rows, key))
    }

    /// Visits the rows from the key `from` (inclusive) on, in order of their keys, until `visit` breaks off.
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.with(table, |table| {
            let mut rows = Rows::new(&self.path, table, from)?;
            while let Some((key, value)) = rows.next()? {
                if visit(key.value(), value.value()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// How many rows the table has.
    pub fn count(&self, table: Table) -> Result<u64, StoreError> {
        self.with(table, |rows| count_rows(&self.path, rows))
    }

    /// Whether reading met an error of the disk or of the file.
    pub(crate) fn failed(&self) -> bool {
        self.failed.get()
    }

    /// Reads from a table; one that does not exist has no rows.
    fn with<T: Default>(
        &self,
        table: Table,
        read: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let opened = guarded(&self.path, || match self.transaction.open_table(table.definition()) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(failure("read", &self.path, error)),
        });
        let outcome = opened.and_then(|rows| rows.map_or_else(|| Ok(T::default()), |rows| read(&rows)));
        self.failed.set(self.failed.get() || outcome.is_err());
        outcome
    }
}

impl WriteRows {
    pub(crate) fn new(path: &Path, transaction: redb::WriteTransaction) -> WriteRows {
        WriteRows {
            transaction: Some(transaction),
            path: path.to_path_buf(),
            staged: Staged::new(),
            changed: false,
            failed: Cell::new(false),
        }
    }

    /// The value under `key`, with the changes made so far.
    pub fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.staged.get(table.0).and_then(|changes| changes.get(key)) {
            Some(change) => Ok(change.clone()),
            None => self.with(table, |rows| read_row(&self.path, rows, key)),
        }
    }

    /// Visits the rows from the key `from` (inclusive) on, in order of their keys and with the changes made so
    /// far, until `visit` breaks off.
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let none = Changes::new();
        let changes = self.staged.get(table.0).unwrap_or(&none);
        self.with(table, |rows| merge(Rows::new(&self.path, rows, from)?, changes, from, visit))
    }

    /// How many rows the table has, with the changes made so far.
    pub fn count(&self, table: Table) -> Result<u64, StoreError> {
        self.with(table, |rows| {
            let mut count = count_rows(&self.path, rows)?;
            for (key, change) in self.staged.get(table.0).into_iter().flatten() {
                match (read_row(&self.path, rows, key)?.is_some(), change.is_some()) {
                    (false, true) => count += 1,
                    (true, false) => count -= 1,
                    _ => {}
                }
            }
            Ok(count)
        })
    }

    /// Puts a row, replacing the one that is there.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] beyond [`MAX_KEY_BYTES`] and [`MAX_VALUE_BYTES`].
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.fits("a key", key, MAX_KEY_BYTES)?;
        self.fits("a value", value, MAX_VALUE_BYTES)?;
        self.staged.entry(table.0).or_default().insert(key.to_vec(), Some(value.to_vec()));
        Ok(())
    }

    /// Removes a row; whether it was there.
    pub fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        if self.row(table, key)?.is_none() {
            return Ok(false);
        }
        self.staged.entry(table.0).or_default().insert(key.to_vec(), None);
        Ok(true)
    }

    fn fits(&self, what: &'static str, bytes: &[u8], max_bytes: usize) -> Result<(), StoreError> {
        if bytes.len() <= max_bytes {
            return Ok(());
        }
        Err(StoreError::TooLarge { path: self.path.clone(), what, bytes: bytes.len(), max_bytes })
    }

    /// Where the database lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Hands the staged changes to the engine. An error leaves the transaction unfit to be committed.
    pub(crate) fn apply(&mut self) -> Result<(), StoreError> {
        let staged = std::mem::take(&mut self.staged);
        let Some(transaction) = &self.transaction else { return Err(self.closed()) };
        self.changed |= !staged.is_empty();
        guarded(&self.path, || {
            for (name, changes) in staged {
                apply_changes(transaction, Table(name), &changes)
                    .map_err(|error| failure("write", &self.path, error))?;
            }
            Ok(())
        })
    }

    /// Forgets the staged changes.
    pub(crate) fn drop_staged(&mut self) {
        self.staged.clear();
    }

    /// Makes everything applied durable; without any change there is nothing to sync.
    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        let Some(transaction) = self.transaction.take() else { return Err(self.closed()) };
        guarded(&self.path, || {
            if self.changed {
                transaction.commit().map_err(|error| failure("write", &self.path, error))
            } else {
                transaction.abort().map_err(|error| failure("write", &self.path, error))
            }
        })
    }

    fn with<T>(
        &self,
        table: Table,
        read: impl FnOnce(&redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(transaction) = &self.transaction else { return Err(self.closed()) };
        let open = || transaction.open_table(table.definition()).map_err(|e| failure("read", &self.path, e));
        let outcome = guarded(&self.path, open).and_then(|rows| {
            let outcome = read(&rows);
            discard(&self.path, rows);
            outcome
        });
        self.failed.set(self.failed.get() || outcome.is_err());
        outcome
    }

    /// Whether reading met an error of the disk or of the file.
    pub(crate) fn failed(&self) -> bool {
        self.failed.get()
    }

    fn closed(&self) -> StoreError {
        StoreError::Closed { path: self.path.clone() }
    }
}

impl Drop for WriteRows {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            discard(&self.path, transaction);
        }
    }
}

fn apply_changes(
    transaction: &redb::WriteTransaction,
    table: Table,
    changes: &Changes,
) -> Result<(), redb::Error> {
    let mut rows = transaction.open_table(table.definition())?;
    for (key, change) in changes {
        match change {
            Some(value) => drop(rows.insert(key.as_slice(), value.as_slice())?),
            None => drop(rows.remove(key.as_slice())?),
        }
    }
    Ok(())
}

fn read_row(
    path: &Path,
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    guarded(path, || {
        let found = table.get(key).map_err(|error| failure("read", path, error))?;
        Ok(found.map(|value| value.value().to_vec()))
    })
}

fn count_rows(path: &Path, table: &impl ReadableTableMetadata) -> Result<u64, StoreError> {
    guarded(path, || table.len().map_err(|error| failure("read", path, error)))
}

type Bytes<'a> = redb::AccessGuard<'a, &'static [u8]>;

/// The rows of a table from a key on.
struct Rows<'a> {
    path: &'a Path,
    range: redb::Range<'a, &'static [u8], &'static [u8]>,
}

impl<'a> Rows<'a> {
    fn new(
        path: &'a Path,
        table: &'a impl ReadableTable<&'static [u8], &'static [u8]>,
        from: &[u8],
    ) -> Result<Rows<'a>, StoreError> {
        let range =
            guarded(path, || table.range::<&[u8]>(from..).map_err(|error| failure("read", path, error)))?;
        Ok(Rows { path, range })
    }

    fn next(&mut self) -> Result<Option<(Bytes<'a>, Bytes<'a>)>, StoreError> {
        guarded(self.path, || {
            let row = self.range.next().transpose().map_err(|error| failure("read", self.path, error))?;
            // Where the page lies about lengths, the engine finds out here, and not outside of the guard.
            if let Some((key, value)) = &row {
                std::hint::black_box((key.value().len(), value.value().len()));
            }
            Ok(row)
        })
    }
}

/// Visits stored rows and staged changes as one ordered sequence.
fn merge(
    mut rows: Rows<'_>,
    changes: &Changes,
    from: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut changes = changes.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).peekable();
    while let Some((key, value)) = rows.next()? {
        while let Some((staged, change)) = changes.next_if(|(staged, _)| staged.as_slice() < key.value()) {
            if let Some(value) = change
                && visit(staged, value).is_break()
            {
                return Ok(());
            }
        }
        let flow = match changes.next_if(|(staged, _)| staged.as_slice() == key.value()) {
            Some((staged, Some(value))) => visit(staged, value),
            Some((_, None)) => ControlFlow::Continue(()),
            None => visit(key.value(), value.value()),
        };
        if flow.is_break() {
            return Ok(());
        }
    }
    for (staged, change) in changes {
        if let Some(value) = change
            && visit(staged, value).is_break()
        {
            break;
        }
    }
    Ok(())
}
