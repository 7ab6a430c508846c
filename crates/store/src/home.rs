use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use crate::{Holder, HomeError, temporary, unix, whole};

/// The name under which an identity is kept.
const KEY_FILE: &str = "key.pem";
/// The name of the lock file.
const LOCK_FILE: &str = "lock";
/// The most that is read of a lock file, in bytes.
const MAX_LOCK_BYTES: u64 = 256;

/// A node's home folder: small files, read and replaced as a whole.
///
/// Touches the disk only when asked to, and never reads the environment. A `name` is relative to the folder
/// and stays inside it (`kith.toml`, `transfers/journal`); any other is refused with [`HomeError::Name`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

/// The lock of a home folder; dropping it, or the end of the process however it comes, frees it.
#[derive(Debug)]
pub struct HomeLock {
    file: File,
}

impl Home {
    /// The home folder at `dir`, made absolute; touches nothing.
    pub fn at(dir: impl Into<PathBuf>) -> Home {
        let dir = dir.into();
        Home { dir: std::path::absolute(&dir).unwrap_or(dir) }
    }

    /// Creates the folder and its parents where they are missing, for its owner alone (mode 0700).
    ///
    /// The mode of a folder that is there already stays as it is: it may be one that others share.
    pub fn create(&self) -> Result<(), HomeError> {
        if self.dir.is_dir() {
            return Ok(());
        }
        unix::create_folder(&self.dir).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => HomeError::NotAFolder { path: self.dir.clone() },
            _ => HomeError::io("create", &self.dir, error),
        })?;
        if let Some(parent) = self.dir.parent() {
            // Some parents may be searched but not read; then the system's own syncing has to do.
            let _ = unix::sync_folder(parent);
        }
        Ok(())
    }

    /// Whether an identity lives here.
    pub fn exists(&self) -> bool {
        self.dir.join(KEY_FILE).is_file()
    }

    /// The folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of `name` in the folder, unchecked.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes the folder's lock, without waiting.
    ///
    /// The lock file says who holds it: process id, space, `what`, newline. Files that a killed process left
    /// half written are removed on the way.
    ///
    /// # Errors
    /// [`HomeError::Locked`] names the holder.
    pub fn lock(&self, what: &str) -> Result<HomeLock, HomeError> {
        let path = self.dir.join(LOCK_FILE);
        let mut file = unix::open_or_create(&path).map_err(|error| HomeError::io("lock", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(HomeError::Locked { home: self.dir.clone(), by: holder(&file) });
            }
            Err(fs::TryLockError::Error(error)) => return Err(HomeError::io("lock", &path, error)),
        }
        let line = format!("{} {}\n", std::process::id(), what.replace(char::is_control, " "));
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(line.as_bytes()))
            .map_err(|error| HomeError::io("lock", &path, error))?;
        temporary::remove_leftovers(&self.dir);
        Ok(HomeLock { file })
    }

    /// All of a file of at most `max_bytes` bytes.
    ///
    /// # Errors
    /// [`HomeError::NotFound`] where it does not exist, [`HomeError::TooLarge`] where it is larger.
    pub fn read(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, HomeError> {
        let path = self.checked(name)?;
        let failed = |error| HomeError::io("read", &path, error);
        let file = unix::open_for_reading(&path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(HomeError::NotAFile { path });
        }
        let mut bytes = Vec::new();
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > max_bytes {
            return Err(HomeError::TooLarge { path, max_bytes });
        }
        Ok(bytes)
    }

    /// Writes or replaces a file as [`write_atomic`](crate::write_atomic) does.
    pub fn write_atomic(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
        whole::write_atomic(&self.checked(name)?, bytes, mode)
    }

    /// Writes a file that must not exist yet, as a whole, even where two processes try it at the same time.
    ///
    /// # Errors
    /// [`HomeError::Exists`] where it exists; what is there stays untouched.
    pub fn create_new(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
        whole::create_new(&self.checked(name)?, bytes, mode)
    }

    fn checked(&self, name: &str) -> Result<PathBuf, HomeError> {
        let relative = Path::new(name);
        let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !inside || name.contains('\0') || name.ends_with('/') {
            return Err(HomeError::Name { name: name.to_owned() });
        }
        Ok(self.dir.join(relative))
    }
}

impl Drop for HomeLock {
    fn drop(&mut self) {
        // The file stays: removing it would let two processes lock two files of the same name.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// Reads who holds a lock; the holder may be writing it just now.
fn holder(file: &File) -> Holder {
    let mut line = String::new();
    let _ = file.take(MAX_LOCK_BYTES).read_to_string(&mut line);
    let line = line.trim_end();
    let (pid, what) = line.split_once(' ').unwrap_or((line, ""));
    Holder { pid: pid.parse().ok(), what: Some(what.to_owned()).filter(|what| !what.is_empty()) }
}
