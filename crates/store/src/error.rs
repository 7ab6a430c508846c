use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who holds the lock of a home folder, as far as the lock file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: Option<u32>,
    /// What that process said it is doing, such as `up`.
    pub what: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.what) {
            (Some(pid), Some(what)) => write!(f, "process {pid} ({what})"),
            (Some(pid), None) => write!(f, "process {pid}"),
            (None, _) => f.write_str("another process"),
        }
    }
}

/// Why something in a home folder, or a file that is written as a whole, could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// The file or folder does not exist.
    #[error("{} does not exist", .path.display())]
    NotFound {
        /// What was looked for.
        path: PathBuf,
    },
    /// A file that must not be replaced is there already.
    #[error("{} exists already", .path.display())]
    Exists {
        /// The file that is there.
        path: PathBuf,
    },
    /// Another process works on this home folder.
    #[error("the home folder {} is in use by {by}", .home.display())]
    Locked {
        /// The home folder.
        home: PathBuf,
        /// Who holds it.
        by: Holder,
    },
    /// The system denies access.
    #[error("no permission to {doing} {}", .path.display())]
    Denied {
        /// What was tried: `read`, `write`, `create`, …
        doing: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The disk is mounted read-only.
    #[error("cannot {doing} {}: the disk is read-only", .path.display())]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The disk, or the quota on it, is full.
    #[error("cannot {doing} {}: the disk is full", .path.display())]
    Full {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// A file is larger than what is expected under its name.
    #[error("{} is larger than {max_bytes} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size that is read, in bytes.
        max_bytes: u64,
    },
    /// Something that is not an ordinary file stands where a file is expected.
    #[error("{} is not an ordinary file", .path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// Something that is not a folder stands where the home folder is expected.
    #[error("{} is not a folder", .path.display())]
    NotAFolder {
        /// What is there.
        path: PathBuf,
    },
    /// A name that does not stay inside the home folder; a fault of the caller.
    #[error("'{name}' is not a name inside a home folder")]
    Name {
        /// The name.
        name: String,
    },
    /// Anything else that the system reports.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl HomeError {
    /// What a person can do about it, in one line.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            HomeError::NotFound { .. } => Some("create a home with 'kith init', or name one with --home"),
            HomeError::Locked { .. } => Some("stop the other process, or use another home with --home"),
            HomeError::Denied { .. } => {
                Some("check the owner and the mode of the home folder, or use --home")
            }
            HomeError::ReadOnly { .. } => Some("use a home on a disk that can be written, with --home"),
            HomeError::Full { .. } => Some("free some space and try again; nothing was changed"),
            _ => None,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> HomeError {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => HomeError::NotFound { path },
            io::ErrorKind::AlreadyExists => HomeError::Exists { path },
            io::ErrorKind::PermissionDenied => HomeError::Denied { doing, path },
            io::ErrorKind::ReadOnlyFilesystem => HomeError::ReadOnly { doing, path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HomeError::Full { doing, path },
            io::ErrorKind::NotADirectory => HomeError::NotAFolder { path },
            io::ErrorKind::IsADirectory => HomeError::NotAFile { path },
            _ => HomeError::Io { doing, path, source: Arc::new(source) },
        }
    }
}

/// Why a database could not be opened, read or written.
///
/// Cheap to clone, because one failed commit is told to everybody who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder of the database does not exist.
    #[error("the folder of the database {} does not exist", .path.display())]
    NoFolder {
        /// The database.
        path: PathBuf,
    },
    /// The file is not a database, or a damaged one.
    #[error("the database {} is damaged: {what}", .path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file has a format that this program does not read.
    #[error("the database {} was written by another version of this program: {what}", .path.display())]
    Version {
        /// The database.
        path: PathBuf,
        /// Which version was found.
        what: String,
    },
    /// Another process, or another [`Database`](crate::Database) of this one, has it open.
    #[error("the database {} is in use by another process", .path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The system denies access.
    #[error("no permission to {doing} the database {}", .path.display())]
    Denied {
        /// What was tried: `open`, `read`, `write`.
        doing: &'static str,
        /// The database.
        path: PathBuf,
    },
    /// The disk is mounted read-only.
    #[error("cannot {doing} the database {}: the disk is read-only", .path.display())]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// The database.
        path: PathBuf,
    },
    /// The disk, or the quota on it, is full. Nothing of the transaction happened.
    #[error("cannot {doing} the database {}: the disk is full", .path.display())]
    Full {
        /// What was tried.
        doing: &'static str,
        /// The database.
        path: PathBuf,
    },
    /// A key or a value is larger than the store takes; a fault of the caller.
    #[error("{what} of {bytes} bytes is too large for the database {}, which takes {max_bytes}", .path.display())]
    TooLarge {
        /// The database.
        path: PathBuf,
        /// `a key` or `a value`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The largest size taken.
        max_bytes: usize,
    },
    /// The queue of the [`Committer`](crate::Committer) is full; try again later.
    #[error("too many changes are waiting for the database {}", .path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The [`Committer`](crate::Committer) has stopped.
    #[error("the database {} is closed", .path.display())]
    Closed {
        /// The database.
        path: PathBuf,
    },
    /// The code that was to change rows panicked; its changes were dropped. A bug of ours.
    #[error("an internal error stopped a change of the database {}", .path.display())]
    Panicked {
        /// The database.
        path: PathBuf,
    },
    /// A caller's own refusal: changes staged so far are dropped.
    #[error("{0}")]
    Refused(String),
    /// Anything else that the system reports.
    #[error("cannot {doing} the database {}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl StoreError {
    /// What a person can do about it, in one line.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            StoreError::Corrupt { .. } => Some(
                "move the file away and put a backup in its place; the identity is in key.pem, not in it",
            ),
            StoreError::Version { .. } => Some("use the version of kith that wrote it"),
            StoreError::InUse { .. } => Some("stop the other process, or use another home with --home"),
            StoreError::Denied { .. } => {
                Some("check the owner and the mode of the home folder, or use --home")
            }
            StoreError::ReadOnly { .. } => Some("use a home on a disk that can be written, with --home"),
            StoreError::Full { .. } => Some("free some space and try again; nothing was lost"),
            _ => None,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => StoreError::NoFolder { path },
            io::ErrorKind::PermissionDenied => StoreError::Denied { doing, path },
            io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { doing, path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { doing, path },
            io::ErrorKind::WouldBlock => StoreError::InUse { path },
            io::ErrorKind::InvalidData => StoreError::Corrupt { path, what: source.to_string() },
            io::ErrorKind::UnexpectedEof => {
                StoreError::Corrupt { path, what: "it ends too early".to_owned() }
            }
            io::ErrorKind::IsADirectory => {
                StoreError::Corrupt { path, what: "it is a folder, not a file".to_owned() }
            }
            _ => StoreError::Io { doing, path, source: Arc::new(source) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_becomes_a_sentence_with_a_hint() {
        let path = Path::new("/home/u/node.redb");
        for (kind, home, store) in [
            (
                io::ErrorKind::PermissionDenied,
                "no permission to write /home/u/node.redb",
                "no permission to write the database /home/u/node.redb",
            ),
            (
                io::ErrorKind::ReadOnlyFilesystem,
                "cannot write /home/u/node.redb: the disk is read-only",
                "cannot write the database /home/u/node.redb: the disk is read-only",
            ),
            (
                io::ErrorKind::StorageFull,
                "cannot write /home/u/node.redb: the disk is full",
                "cannot write the database /home/u/node.redb: the disk is full",
            ),
        ] {
            let told = HomeError::io("write", path, kind.into());
            assert_eq!(told.to_string(), home);
            assert!(told.hint().is_some());
            let told = StoreError::io("write", path, kind.into());
            assert_eq!(told.to_string(), store);
            assert!(told.hint().is_some());
        }
    }
}
