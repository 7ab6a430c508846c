//! Files that are written as a whole, wherever they are.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{HomeError, temporary, unix};

/// Writes or replaces a file as a whole, with this mode: after a crash it has its old contents or the new ones.
///
/// # Errors
/// [`HomeError::NotFound`] where its folder does not exist. The file is as it was then, and nothing else is left.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
    write_beside(path, bytes, mode, |temporary| {
        fs::rename(temporary, path).map_err(|error| HomeError::io("write", path, error))
    })
}

/// Refuses a place where [`write_atomic`] would fail now: makes a file in its folder, and removes it at once.
///
/// # Errors
/// [`HomeError::NotAFile`] where something else than a file is there, or what [`write_atomic`] would fail with.
pub fn refuse_unwritable(path: &Path) -> Result<(), HomeError> {
    let is_other = fs::metadata(path).is_ok_and(|there| !there.is_file());
    if is_other || path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(HomeError::NotAFile { path: path.to_path_buf() });
    }
    let (_file, temporary) = beside(path, 0o600)?;
    fs::remove_file(&temporary).map_err(|error| HomeError::io("write", path, error))
}

/// Writes a file that must not exist yet.
pub(crate) fn create_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
    if path.symlink_metadata().is_ok() {
        return Err(HomeError::Exists { path: path.to_path_buf() });
    }
    write_beside(path, bytes, mode, |temporary| {
        // A hard link, unlike a rename, never replaces what is there.
        let linked = fs::hard_link(temporary, path);
        let _ = fs::remove_file(temporary);
        linked.map_err(|error| HomeError::io("create", path, error))
    })
}

/// Writes and syncs a temporary file beside `path`, lets `place` give it its name, syncs the folder.
fn write_beside(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    place: impl FnOnce(&Path) -> Result<(), HomeError>,
) -> Result<(), HomeError> {
    let (mut file, temporary) = beside(path, mode)?;
    let placed = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|error| HomeError::io("write", path, error))
        .and_then(|()| place(&temporary));
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    placed?;
    unix::sync_folder(folder(path)).map_err(|error| HomeError::io("write", path, error))
}

/// A new temporary file in the folder of `path`.
fn beside(path: &Path, mode: u32) -> Result<(File, PathBuf), HomeError> {
    let folder = folder(path);
    temporary::create(folder, path, mode).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => HomeError::NotFound { path: folder.to_path_buf() },
        io::ErrorKind::NotADirectory => HomeError::NotAFolder { path: folder.to_path_buf() },
        _ => HomeError::io("write", path, error),
    })
}

/// The folder of a file; the current one, where the path is a name alone.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
