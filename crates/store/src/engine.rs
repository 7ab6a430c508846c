//! The embedded engine (redb), behind this crate's own errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::StoreError;

/// All tables map bytes to bytes.
pub(crate) type Definition = redb::TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Runs engine code. The engine checks most of what it reads but asserts the rest, so on a damaged file it can
/// panic; that is told as damage.
pub(crate) fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(StoreError::Corrupt {
            path: path.to_path_buf(),
            what: "its pages contradict each other".to_owned(),
        })
    })
}

/// Drops something of the engine that a panic may have left in disorder.
pub(crate) fn discard<T>(path: &Path, value: T) {
    let _ = guarded(path, || {
        drop(value);
        Ok(())
    });
}

/// The engine's error in our words.
pub(crate) fn failure(doing: &'static str, path: &Path, error: impl Into<redb::Error>) -> StoreError {
    let buf = path.to_path_buf();
    match error.into() {
        redb::Error::Io(source) => StoreError::io(doing, path, source),
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path: buf },
        redb::Error::UpgradeRequired(found) => {
            StoreError::Version { path: buf, what: format!("file format {found}") }
        }
        redb::Error::Corrupted(what) if what.contains("version") => StoreError::Version { path: buf, what },
        redb::Error::Corrupted(what) => StoreError::Corrupt { path: buf, what },
        redb::Error::DatabaseClosed => StoreError::Closed { path: buf },
        redb::Error::PreviousIo => {
            StoreError::io(doing, path, std::io::Error::other("an earlier operation on it failed"))
        }
        wrong @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }) => {
            StoreError::Corrupt { path: buf, what: wrong.to_string() }
        }
        other => StoreError::io(doing, path, std::io::Error::other(other.to_string())),
    }
}
