use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::ReadableDatabase;

use crate::crash;
use crate::engine::{discard, failure, guarded};
use crate::rows::{ReadRows, WriteRows};
use crate::{StoreError, temporary, unix};

/// The cache of a database in memory, in bytes.
const MEMORY_CACHE_BYTES: usize = 1 << 20;
/// The largest file that is checked as a whole each time it is opened, in bytes: some tens of milliseconds.
const MAX_CHECKED_BYTES: u64 = 64 << 20;

/// An embedded database: tables of byte keys and byte values, transactions, one writer at a time.
///
/// A clone is the same database. Reading and writing block the thread; a shell of an asynchronous runtime
/// calls them where blocking is allowed, or goes through a [`Committer`](crate::Committer).
///
/// After an error of the disk (full, unplugged) the database opens itself again with the next transaction, so
/// that it works on once the cause is gone.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    path: PathBuf,
    cache_bytes: usize,
    state: Mutex<State>,
}

/// What lies under a database.
enum Source {
    File,
    Memory,
    Backend(crash::Backend),
}

struct State {
    engine: Option<Arc<redb::Database>>,
    /// Counts how often the engine was opened.
    opening: u64,
}

/// How a database file was found, by looking alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It was closed in order.
    Closed,
    /// The process that had it open was killed; the next [`open`](Database::open) mends it.
    Unclosed,
}

impl Database {
    /// Looks at the database file at `path` and changes nothing: whether it can be opened, and how it was left.
    /// Its rows are not looked at.
    ///
    /// # Errors
    /// As [`open`](Database::open); a missing file is an error too.
    pub fn inspect(path: &Path) -> Result<Condition, StoreError> {
        let opened = guarded(path, || match redb::ReadOnlyDatabase::open(path) {
            Ok(engine) => Ok(Some(engine)),
            Err(redb::DatabaseError::RepairAborted) => Ok(None),
            Err(error) => Err(failure("open", path, error)),
        })?;
        match opened {
            Some(engine) => {
                discard(path, engine);
                Ok(Condition::Closed)
            }
            None => Ok(Condition::Unclosed),
        }
    }

    /// Opens the database at `path`, and creates it where there is no such file, with mode 0600.
    ///
    /// At most `cache_bytes` bytes of it are kept in memory. Where it is small (64 MiB) the checksums of all that is
    /// in it are compared. A large one opens at once, also after the process was killed: each of its commits syncs
    /// twice and says which pages are free. A new database gets its name only when it is complete; an empty file under that name
    /// is therefore damage.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Version`] for a file that cannot be used,
    /// [`StoreError::InUse`] where it is open already.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Database, StoreError> {
        Database::of(Source::File, path.to_path_buf(), cache_bytes)
    }

    /// A new database that lives in memory and dies with its last clone.
    pub fn in_memory() -> Result<Database, StoreError> {
        Database::of(Source::Memory, PathBuf::from("(in memory)"), MEMORY_CACHE_BYTES)
    }

    /// Opens the database on a recording disk, and creates it where the disk is empty; for tests.
    pub fn open_backend(backend: &crash::Backend, cache_bytes: usize) -> Result<Database, StoreError> {
        Database::of(Source::Backend(backend.clone()), PathBuf::from("(test disk)"), cache_bytes)
    }

    /// Where the database lies; for messages.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Reads from one unchanging view of all tables.
    pub fn read<T, E: From<StoreError>>(&self, read: impl FnOnce(&ReadRows) -> Result<T, E>) -> Result<T, E> {
        let path = &self.inner.path;
        let (engine, opening) = self.inner.engine()?;
        let begun = guarded(path, || engine.begin_read().map_err(|error| failure("read", path, error)));
        let begun = self.inner.noticing(opening, begun)?;
        drop(engine);
        let rows = ReadRows::new(path, begun);
        let outcome = read(&rows);
        let failed = rows.failed();
        discard(path, rows);
        if failed {
            self.inner.let_go(opening);
        }
        outcome
    }

    /// Changes rows: all of it durable on the disk when this returns `Ok`, nothing of it when it returns `Err`.
    ///
    /// One `Err` cannot promise that: where the disk reports a failure of the final sync, nobody knows what it
    /// kept. Then all of the changes are there at the next transaction, or none, never a part.
    ///
    /// Waits while another thread writes; within `write`, another call of this function would wait for ever.
    pub fn write<T, E: From<StoreError>>(
        &self,
        write: impl FnOnce(&mut WriteRows) -> Result<T, E>,
    ) -> Result<T, E> {
        let (mut rows, opening) = self.begin_write()?;
        let outcome = write(&mut rows);
        if rows.failed() {
            drop(rows);
            self.inner.let_go(opening);
            // Nothing was written, whatever the closure made of the failure.
            return outcome.and_then(|_| {
                let failure = io::Error::other("reading from it failed before");
                Err(StoreError::io("write", &self.inner.path, failure).into())
            });
        }
        let value = outcome?;
        self.finish_write(rows, opening)?;
        Ok(value)
    }

    /// Begins a transaction; the number goes to [`finish_write`](Database::finish_write).
    pub(crate) fn begin_write(&self) -> Result<(WriteRows, u64), StoreError> {
        let path = &self.inner.path;
        let (engine, opening) = self.inner.engine()?;
        let begun = guarded(path, || engine.begin_write().map_err(|error| failure("write", path, error)));
        drop(engine);
        let mut transaction = self.inner.noticing(opening, begun)?;
        // The engine would otherwise walk through all of a file that was not closed in order: seconds for a large one.
        transaction.set_quick_repair(self.inner.is_large());
        Ok((WriteRows::new(path, transaction), opening))
    }

    /// Applies what is still staged and commits.
    pub(crate) fn finish_write(&self, mut rows: WriteRows, opening: u64) -> Result<(), StoreError> {
        match rows.apply() {
            Ok(()) => self.inner.noticing(opening, rows.commit()),
            Err(error) => self.abandon(rows, opening, error),
        }
    }

    /// Gives up a transaction that `error` spoiled.
    pub(crate) fn abandon(&self, rows: WriteRows, opening: u64, error: StoreError) -> Result<(), StoreError> {
        drop(rows);
        self.inner.noticing(opening, Err(error))
    }

    fn of(source: Source, path: PathBuf, cache_bytes: usize) -> Result<Database, StoreError> {
        let state = Mutex::new(State { engine: None, opening: 0 });
        let inner = Inner { source, path, cache_bytes, state };
        inner.engine()?;
        Ok(Database { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl Inner {
    /// The open engine; opens it where it is not, or not any more.
    fn engine(&self) -> Result<(Arc<redb::Database>, u64), StoreError> {
        let mut state = self.state();
        if let Some(engine) = &state.engine {
            return Ok((Arc::clone(engine), state.opening));
        }
        let engine = Arc::new(guarded(&self.path, || self.open())?);
        state.opening += 1;
        state.engine = Some(Arc::clone(&engine));
        Ok((engine, state.opening))
    }

    /// Passes a result on, and lets go of the engine of that opening where it failed.
    fn noticing<T>(&self, opening: u64, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.let_go(opening);
        }
        result
    }

    /// Lets go of the engine of that opening: it refuses everything after an error of the disk.
    fn let_go(&self, opening: u64) {
        let mut state = self.state();
        if state.opening == opening && !matches!(self.source, Source::Memory) {
            let engine = state.engine.take();
            discard(&self.path, engine);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the file is too large to be checked as a whole when it is opened.
    fn is_large(&self) -> bool {
        match &self.source {
            Source::File => fs::metadata(&self.path).is_ok_and(|file| file.len() > MAX_CHECKED_BYTES),
            Source::Memory => false,
            Source::Backend(backend) => backend.is_large(),
        }
    }

    fn open(&self) -> Result<redb::Database, StoreError> {
        let mut builder = redb::Database::builder();
        builder.set_cache_size(self.cache_bytes);
        let failed = |error| failure("open", &self.path, error);
        match &self.source {
            Source::File => open_file(&builder, &self.path),
            Source::Memory => {
                builder.create_with_backend(redb::backends::InMemoryBackend::new()).map_err(failed)
            }
            Source::Backend(backend) => builder.create_with_backend(backend.opened()).map_err(failed),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let engine = self.state().engine.take();
        discard(&self.path, engine);
    }
}

fn open_file(builder: &redb::Builder, path: &Path) -> Result<redb::Database, StoreError> {
    let opened = fs::OpenOptions::new().read(true).write(true).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return create_file(builder, path),
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    let metadata = file.metadata().map_err(|error| StoreError::io("open", path, error))?;
    if !metadata.is_file() || metadata.len() == 0 {
        let what = if metadata.is_file() { "it is empty" } else { "it is not an ordinary file" };
        return Err(StoreError::Corrupt { path: path.to_path_buf(), what: what.to_owned() });
    }
    let mut engine = builder.create_file(file).map_err(|error| failure("open", path, error))?;
    if metadata.len() <= MAX_CHECKED_BYTES {
        check(&mut engine, path)?;
    }
    Ok(engine)
}

/// Compares all checksums, because the engine itself does so only after a crash.
fn check(engine: &mut redb::Database, path: &Path) -> Result<(), StoreError> {
    if !engine.check_integrity().map_err(|error| failure("open", path, error))? {
        tracing::warn!(path = %path.display(), "the database was damaged; it is back at its last intact state");
    }
    Ok(())
}

/// Makes a new database under a temporary name, and names it when it is complete.
fn create_file(builder: &redb::Builder, path: &Path) -> Result<redb::Database, StoreError> {
    let failed = |error| StoreError::io("create", path, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (file, temporary) = temporary::create(folder, path, 0o600).map_err(failed)?;
    let engine = builder.create_file(file).map_err(|error| failure("create", path, error));
    let named = if engine.is_ok() { fs::hard_link(&temporary, path) } else { Ok(()) };
    let _ = fs::remove_file(&temporary);
    let engine = engine?;
    match named {
        Ok(()) => unix::sync_folder(folder).map_err(failed)?,
        // Another process was faster, and has it open.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(StoreError::InUse { path: path.to_path_buf() });
        }
        Err(error) => return Err(failed(error)),
    }
    Ok(engine)
}
