//! Files that get their real name only when they are complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::unix;

/// The end of the name of a file that is being written.
const ENDING: &str = ".tmp";

/// A new file `.NAME.PID-N.tmp` in `folder`, to become `target`.
pub(crate) fn create(folder: &Path, target: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".{name}.{}-{number}{ENDING}", std::process::id()));
        match unix::create_file(&path, mode) {
            Ok(file) => return Ok((file, path)),
            // A process of the same id died here earlier.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes what processes that are gone left half written in `folder`.
pub(crate) fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let writer = name.to_str().and_then(writer);
        if writer.is_some_and(|pid| pid != std::process::id() && !unix::is_alive(pid)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The process that writes a file of this name.
fn writer(name: &str) -> Option<u32> {
    let (_, last) = name.strip_prefix('.')?.strip_suffix(ENDING)?.rsplit_once('.')?;
    let (pid, _) = last.split_once('-')?;
    pid.parse().ok()
}
