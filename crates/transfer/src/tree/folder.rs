use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Timespec, Timestamps, fchmod, flock,
    fstat, fstatvfs, fsync, ftruncate, futimens, linkat, mkdirat, openat, readlinkat, renameat,
    renameat_with, statat, symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::handles::{Handles, open_folder, open_named};
use crate::error::ReceiveError;
use crate::frame::{Failed, Have, Reason, TransferId};
use crate::hash::{GROUP_BYTES, Value, groups_of};
use crate::offer::{Entry, Kind, Offer, STAGING_PREFIX};
use crate::receiver::Present;

/// Verified files that wait for a common sync before they get their names: this many at most,
const BATCH_FILES: usize = 4096;
/// or files of this many bytes together.
const BATCH_BYTES: u64 = 256 << 20;
/// Up to so many files or folders are synced one by one; more by a sync of the file system.
const SYNCED_SINGLY: usize = 8;
/// File in the staging folder with the digest of the offer it belongs to.
const DIGEST: &str = "digest";
/// File in the staging folder with the paths, each ended by NUL, of the folders that the transfer made: an attempt that
/// goes on, be it with a list of files that has changed, must know them from those that were there before.
const MADE: &str = "made";
/// At most so many bytes of it count.
const MAX_MADE_BYTES: u64 = 16 << 20;

/// How something is read that others may have put there: never through a link, never waiting for a pipe.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Where an offer is received.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The folder; made where it is missing.
    pub dir: PathBuf,
    /// Whether existing files that differ are replaced (atomically, after verification). Without, they fail.
    pub overwrite: bool,
    /// Id of an earlier attempt at an offer of equal [`digest`](Offer::digest), whose partial files are to be used
    /// (see [`find_partial`]); `None` to start with none.
    pub staging: Option<TransferId>,
}

/// The id of an earlier, unfinished transfer into `dir` of an offer with this digest; blocks.
pub fn find_partial(dir: &Path, digest: &[u8; 32]) -> Option<TransferId> {
    let root = open_named(dir).ok()?;
    for entry in Dir::read_from(&root).ok()?.flatten() {
        let name = entry.file_name().to_bytes();
        let id = name.strip_prefix(STAGING_PREFIX.as_bytes()).and_then(|id| std::str::from_utf8(id).ok());
        let Some(id) = id.and_then(|id| id.parse::<TransferId>().ok()) else { continue };
        let Ok(staging) = open_folder(&root, name) else { continue };
        let free = flock(&staging, FlockOperation::NonBlockingLockExclusive).is_ok();
        if free && digest_in(&staging).as_ref() == Some(digest) {
            return Some(id);
        }
    }
    None
}

/// Removes what an unfinished transfer left in `dir`; blocks. Nothing there is no error.
pub fn discard_partial(dir: &Path, id: TransferId) -> io::Result<()> {
    let root = open_named(dir)?;
    let name = staging_name(id);
    match open_folder(&root, name.as_bytes()) {
        Ok(staging) => {
            empty(&staging)?;
            Ok(unlinkat(&root, name.as_str(), AtFlags::REMOVEDIR)?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Why something could not be done: one file's trouble, or the whole transfer's.
#[derive(Debug)]
pub(crate) enum Trouble {
    File(Reason),
    World(ReceiveError),
}

/// A target folder in use.
pub(crate) struct Folder {
    offer: Offer,
    target: Target,
    root: Arc<OwnedFd>,
    staging: OwnedFd,
    staging_name: String,
    handles: Handles,
    current: Option<File>,
    /// Verified files without a name yet.
    pending: Vec<u32>,
    pending_bytes: u64,
    /// Folders that are not there and why; nothing can be received into them.
    blocked: HashMap<u32, Reason>,
    /// Folders that this transfer makes or made; others keep mode and time, unless they may be overwritten.
    made: HashSet<u32>,
}

impl Folder {
    /// Opens target and staging folder, makes the offered folders and looks at what is there already.
    pub(crate) fn prepare(
        offer: &Offer,
        id: TransferId,
        target: &Target,
    ) -> Result<(Folder, Present), ReceiveError> {
        let storage = |source: io::Error| storage(&target.dir, source);
        std::fs::create_dir_all(&target.dir).map_err(storage)?;
        let root = Arc::new(open_named(&target.dir).map_err(storage)?);
        let staging_name = staging_name(target.staging.unwrap_or(id));
        let staging = open_staging(&root, &staging_name, target)?;
        let mut folder = Folder {
            offer: offer.clone(),
            target: target.clone(),
            root,
            staging,
            staging_name,
            handles: Handles::new(),
            current: None,
            pending: Vec::new(),
            pending_bytes: 0,
            blocked: HashMap::new(),
            made: HashSet::new(),
        };
        let partial = folder.claim_staging().map_err(storage)?;
        folder.note_made().map_err(storage)?;
        let mut present = Present::default();
        let fresh = folder.make_folders(&mut present)?;
        let needed = folder.look(&partial, &fresh, &mut present);
        present.failed.sort_unstable_by_key(|failed| failed.index);
        if let Err(error) = folder.check_space(needed) {
            folder.undo(&fresh, partial.is_empty());
            return Err(error);
        }
        Ok((folder, present))
    }

    /// Sizes of the partial files of this very offer; those of any other are removed.
    fn claim_staging(&mut self) -> io::Result<HashMap<u32, u64>> {
        let mut partial = HashMap::new();
        if digest_in(&self.staging) == Some(self.offer.digest()) {
            for entry in Dir::read_from(&self.staging)? {
                let entry = entry?;
                let index = entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok());
                if let Some(index) = index {
                    let stat = statat(&self.staging, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                    partial.insert(index, stat.st_size.unsigned_abs());
                }
            }
        } else {
            empty_but(&self.staging, Some(MADE))?;
            new_file(&self.staging, DIGEST)?.write_all(&self.offer.digest())?;
        }
        Ok(partial)
    }

    /// Notes on disk which of the offered folders are not there yet, before any of them is made.
    fn note_made(&mut self) -> io::Result<()> {
        let noted = made_in(&self.staging);
        let offer = self.offer.clone();
        let (mut absent, mut news) = (HashSet::new(), Vec::new());
        for (index, entry) in offer.indexed().filter(|(_, entry)| entry.kind == Kind::Folder) {
            let missing = entry.folder().is_some_and(|folder| absent.contains(&folder))
                || self.parent(entry).is_ok_and(|parent| {
                    let stat = statat(&*parent, entry.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
                    stat.is_err_and(|error| error == Errno::NOENT)
                });
            if !missing && noted.is_empty() {
                continue;
            }
            let path = offer.path(index).into_os_string().into_vec();
            let is_noted = noted.contains(&path);
            if missing || is_noted {
                self.made.insert(index);
            }
            if missing {
                absent.insert(index);
                if !is_noted && (news.len() + path.len()) as u64 <= MAX_MADE_BYTES {
                    news.extend_from_slice(&path);
                    news.push(0);
                }
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        File::from(openat(&self.staging, MADE, flags, Mode::RUSR | Mode::WUSR)?).write_all(&news)
    }

    /// Makes the offered folders, private for the time being; says for each entry whether it is a folder that was
    /// made now, so that nothing can be in it.
    fn make_folders(&mut self, present: &mut Present) -> Result<Vec<bool>, ReceiveError> {
        let offer = self.offer.clone();
        let mut fresh = vec![false; offer.entries().len()];
        for (index, entry) in offer.indexed().filter(|(_, entry)| entry.kind == Kind::Folder) {
            match self.make_folder(index, entry) {
                Ok(new) => fresh[index as usize] = new,
                Err(Trouble::World(error)) => return Err(error),
                Err(Trouble::File(reason)) => {
                    self.blocked.insert(index, reason);
                    present.failed.push(Failed { index, reason });
                }
            }
        }
        Ok(fresh)
    }

    fn make_folder(&mut self, index: u32, entry: &Entry) -> Result<bool, Trouble> {
        let parent = self.parent(entry)?;
        match mkdirat(&*parent, entry.name.as_slice(), Mode::RWXU) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => match self.folder(index) {
                Ok(_) => Ok(false),
                Err(Trouble::File(_)) => Err(Trouble::File(Reason::Exists)),
                Err(world) => Err(world),
            },
            Err(error) => Err(self.trouble(error)),
        }
    }

    /// Leaves the target as it was before: without the folders that were made, and without a staging of no use.
    fn undo(&mut self, fresh: &[bool], without_staging: bool) {
        let offer = self.offer.clone();
        for (index, entry) in offer.indexed().rev().filter(|(index, _)| fresh[*index as usize]) {
            tracing::trace!(index, "a folder is taken back");
            if let Ok(parent) = self.parent(entry) {
                let _not_ours_if_not_empty = unlinkat(&*parent, entry.name.as_slice(), AtFlags::REMOVEDIR);
            }
        }
        if without_staging {
            let _harmless_if_it_stays = self.remove_staging();
        }
    }

    /// Finds out which files are there; returns the bytes that are still to come.
    fn look(&mut self, partial: &HashMap<u32, u64>, fresh: &[bool], present: &mut Present) -> u64 {
        let offer = self.offer.clone();
        let mut needed = 0;
        for (index, entry) in offer.indexed() {
            let Some(size) = entry.size() else { continue };
            if let Some(reason) = entry.folder().and_then(|folder| self.blocked.get(&folder)) {
                present.failed.push(Failed { index, reason: *reason });
                continue;
            }
            let new = entry.folder().is_some_and(|folder| fresh.get(folder as usize) == Some(&true));
            let same_size = if new { None } else { self.existing(entry) };
            // A part is there because the file of that name was compared before, and is another one.
            let replacing = self.target.overwrite
                && partial.get(&index).is_some_and(|part| *part == size || *part >= GROUP_BYTES as u64);
            match same_size {
                Some(true) if size == 0 => present.already.push(index),
                Some(true) if !replacing => {
                    present.haves.push(Have { index, groups: groups_of(size), whole: true });
                }
                Some(false) if !self.target.overwrite => {
                    present.failed.push(Failed { index, reason: Reason::Exists });
                }
                _ => needed += self.partial(index, size, partial, present),
            }
        }
        needed
    }

    /// Notes the groups of a partial file; returns the bytes that are missing.
    fn partial(&self, index: u32, size: u64, partial: &HashMap<u32, u64>, present: &mut Present) -> u64 {
        let length = partial.get(&index).copied().unwrap_or(0);
        let groups =
            if length == size { groups_of(size) } else { (length.min(size) / GROUP_BYTES as u64) as u32 };
        if groups > 0 {
            present.haves.push(Have { index, groups, whole: false });
        }
        size - size.min(u64::from(groups) * GROUP_BYTES as u64)
    }

    /// Whether something has the entry's name: a regular file of its size (`true`) or anything else (`false`).
    fn existing(&mut self, entry: &Entry) -> Option<bool> {
        let parent = self.parent(entry).ok()?;
        let stat = statat(&*parent, entry.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Some(regular && Some(stat.st_size.unsigned_abs()) == entry.size())
    }

    fn check_space(&self, needed: u64) -> Result<(), ReceiveError> {
        let Ok(space) = fstatvfs(&*self.root) else { return Ok(()) };
        let available = space.f_bavail.saturating_mul(space.f_frsize);
        if space.f_blocks != 0 && needed > available {
            return Err(ReceiveError::NoSpace { path: self.target.dir.clone(), needed, available });
        }
        Ok(())
    }

    /// Values of own groups; fewer where they cannot be read.
    pub(crate) fn values(
        &mut self,
        (index, first, count): (u32, u32, u32),
        whole: bool,
        go_on: impl Fn() -> bool,
    ) -> Vec<Value> {
        let offer = self.offer.clone();
        let Some(entry) = offer.entry(index) else { return Vec::new() };
        let size = entry.size().unwrap_or(0);
        let opened = if whole {
            match self.parent(entry) {
                Ok(parent) => openat(&*parent, entry.name.as_slice(), READ, Mode::empty()),
                Err(_) => return Vec::new(),
            }
        } else {
            openat(&self.staging, index.to_string(), READ, Mode::empty())
        };
        match opened.map(File::from) {
            Ok(file) if fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file()) => {
                super::values(&file, size, first, count, go_on)
            }
            _ => Vec::new(),
        }
    }

    /// An existing file has the offered content. Where replacing is allowed it gets mode and time too.
    pub(crate) fn keep(&mut self, index: u32) -> Result<(), Trouble> {
        let offer = self.offer.clone();
        let Some(entry) = offer.entry(index).filter(|_| self.target.overwrite) else { return Ok(()) };
        let parent = self.parent(entry)?;
        let file =
            openat(&*parent, entry.name.as_slice(), READ, Mode::empty()).map_err(|e| self.trouble(e))?;
        attributes(&file, entry).map_err(|error| self.trouble(error))
    }

    /// Opens a partial file that goes on at group `first`.
    pub(crate) fn open(&mut self, index: u32, first: u32) -> Result<(), ReceiveError> {
        self.current = None;
        let name = index.to_string();
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || -> io::Result<File> {
            if first > 0 {
                let file = File::from(openat(&self.staging, &name, flags, Mode::empty())?);
                ftruncate(&file, u64::from(first) * GROUP_BYTES as u64)?;
                return Ok(file);
            }
            let new = || {
                openat(&self.staging, &name, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)
            };
            Ok(File::from(match new() {
                // Left by an earlier attempt, perhaps with a mode that forbids writing.
                Err(Errno::EXIST) => {
                    unlinkat(&self.staging, &name, AtFlags::empty())?;
                    new()?
                }
                other => other?,
            }))
        };
        self.current = Some(open().map_err(|error| self.world(error))?);
        Ok(())
    }

    /// Writes into the partial file that is open.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let Some(file) = &self.current else { return Ok(()) };
        match file.write_all_at(bytes, offset) {
            Ok(()) => Ok(()),
            // Larger than this file system allows one file to be.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.current = None;
                Err(Trouble::File(Reason::Unwritable))
            }
            Err(error) => Err(Trouble::World(self.world(error))),
        }
    }

    /// A file is verified: it gets mode and time, and its name with the next batch.
    pub(crate) fn commit(&mut self, index: u32) -> Result<Vec<Failed>, ReceiveError> {
        let offer = self.offer.clone();
        let Some(entry) = offer.entry(index) else { return Ok(Vec::new()) };
        let done = match self.current.take() {
            Some(file) => attributes(&file, entry),
            None => openat(&self.staging, index.to_string(), READ, Mode::empty())
                .and_then(|file| attributes(&file, entry)),
        };
        done.map_err(|error| self.world(error.into()))?;
        self.pending.push(index);
        self.pending_bytes += entry.size().unwrap_or(0);
        if self.pending.len() >= BATCH_FILES || self.pending_bytes >= BATCH_BYTES {
            return self.name_pending();
        }
        Ok(Vec::new())
    }

    /// A file does not come: its part is of no use.
    pub(crate) fn discard(&mut self, index: u32) {
        self.current = None;
        let _gone_with_the_folder = unlinkat(&self.staging, index.to_string(), AtFlags::empty());
    }

    /// Syncs the verified files and then gives them their names, so that a name never stands for less.
    pub(crate) fn name_pending(&mut self) -> Result<Vec<Failed>, ReceiveError> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.sync_pending(&pending).map_err(|error| self.world(error.into()))?;
        let offer = self.offer.clone();
        let mut failed = Vec::new();
        for index in pending {
            let Some(entry) = offer.entry(index) else { continue };
            let named = self
                .parent(entry)
                .and_then(|parent| self.rename(index.to_string().as_bytes(), &parent, entry));
            match named {
                Ok(()) => {}
                Err(Trouble::File(reason)) => failed.push(Failed { index, reason }),
                Err(Trouble::World(error)) => return Err(error),
            }
        }
        Ok(failed)
    }

    fn sync_pending(&self, pending: &[u32]) -> rustix::io::Result<()> {
        if pending.len() > SYNCED_SINGLY {
            return syncfs(&self.staging);
        }
        for index in pending {
            // Opened for reading: a file may be synced through any handle, and its mode may forbid writing by now.
            match openat(&self.staging, index.to_string(), READ, Mode::empty()) {
                Ok(file) => fsync(&file)?,
                Err(_) => return syncfs(&self.staging),
            }
        }
        Ok(())
    }

    fn rename(&self, from: &[u8], parent: &OwnedFd, entry: &Entry) -> Result<(), Trouble> {
        let name = entry.name.as_slice();
        let renamed = if self.target.overwrite {
            renameat(&self.staging, from, parent, name)
        } else {
            match renameat_with(&self.staging, from, parent, name, RenameFlags::NOREPLACE) {
                // File systems that cannot do this can make a second name, which never replaces either.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    linkat(&self.staging, from, parent, name, AtFlags::empty())
                }
                other => other,
            }
        };
        renamed.map_err(|error| self.trouble(error))
    }

    /// Names what is pending, makes links, sets modes and times of folders bottom-up, syncs, and leaves no staging.
    pub(crate) fn settle(&mut self) -> Result<Vec<Failed>, ReceiveError> {
        self.current = None;
        let mut failed = self.name_pending()?;
        let offer = self.offer.clone();
        let mut tell = |index, result: Result<(), Trouble>| match result {
            Ok(()) => Ok(()),
            Err(Trouble::File(reason)) => {
                failed.push(Failed { index, reason });
                Ok(())
            }
            Err(Trouble::World(error)) => Err(error),
        };
        let mut folders = 0;
        for (index, entry) in offer.indexed() {
            if let Kind::Link(target) = &entry.kind {
                tell(index, self.link(entry, target))?;
            }
        }
        for (index, entry) in offer.indexed().rev() {
            if entry.kind == Kind::Folder && !self.blocked.contains_key(&index) {
                folders += 1;
                let done = self.folder(index).and_then(|folder| {
                    if self.target.overwrite || self.made.contains(&index) {
                        attributes(&*folder, entry).map_err(|error| self.trouble(error))?;
                    }
                    if folders <= SYNCED_SINGLY {
                        fsync(&*folder).map_err(|e| self.trouble(e))
                    } else {
                        Ok(())
                    }
                });
                tell(index, done)?;
            }
        }
        self.remove_staging().map_err(|error| self.world(error))?;
        let synced = if folders > SYNCED_SINGLY { syncfs(&*self.root) } else { fsync(&*self.root) };
        synced.map_err(|error| self.world(error.into()))?;
        Ok(failed)
    }

    /// Removes the staging folder with all that is in it.
    pub(crate) fn remove_staging(&mut self) -> io::Result<()> {
        empty(&self.staging)?;
        Ok(unlinkat(&*self.root, self.staging_name.as_str(), AtFlags::REMOVEDIR)?)
    }

    /// Makes a symbolic link as it is; one with the same target is left alone.
    fn link(&mut self, entry: &Entry, target: &[u8]) -> Result<(), Trouble> {
        if let Some(reason) = entry.folder().and_then(|folder| self.blocked.get(&folder)) {
            return Err(Trouble::File(*reason));
        }
        let parent = self.parent(entry)?;
        let name = entry.name.as_slice();
        match symlinkat(target, &*parent, name) {
            Ok(()) => {}
            Err(Errno::EXIST)
                if readlinkat(&*parent, name, Vec::new()).is_ok_and(|t| t.as_bytes() == target) => {}
            Err(Errno::EXIST) if self.target.overwrite => {
                const NEW: &[u8] = b"link";
                let _left_by_one_that_failed = unlinkat(&self.staging, NEW, AtFlags::empty());
                symlinkat(target, &self.staging, NEW).map_err(|error| self.trouble(error))?;
                self.rename(NEW, &parent, entry)?;
            }
            Err(error) => return Err(self.trouble(error)),
        }
        // A link's time is an ornament that not every file system has.
        let _kept_by_most = utimensat(&*parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW);
        Ok(())
    }

    fn parent(&mut self, entry: &Entry) -> Result<Arc<OwnedFd>, Trouble> {
        match entry.folder() {
            None => Ok(Arc::clone(&self.root)),
            Some(folder) => match self.blocked.get(&folder) {
                Some(reason) => Err(Trouble::File(*reason)),
                None => self.folder(folder),
            },
        }
    }

    fn folder(&mut self, index: u32) -> Result<Arc<OwnedFd>, Trouble> {
        let root = Arc::clone(&self.root);
        let opened = self.handles.folder(&self.offer, index, |_, entry| open_folder(&root, &entry.name));
        opened.map_err(|error| self.trouble(Errno::from_io_error(&error).unwrap_or(Errno::NOENT)))
    }

    fn world(&self, source: io::Error) -> ReceiveError {
        storage(&self.target.dir, source)
    }

    fn trouble(&self, error: Errno) -> Trouble {
        Trouble::File(match error {
            Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => Reason::Exists,
            Errno::LOOP | Errno::NOTDIR | Errno::NOENT => Reason::Blocked,
            Errno::ACCESS | Errno::PERM => Reason::Denied,
            Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ => Reason::Name,
            Errno::MLINK | Errno::FBIG | Errno::OPNOTSUPP | Errno::XDEV => Reason::Unwritable,
            other => return Trouble::World(self.world(other.into())),
        })
    }
}

fn staging_name(id: TransferId) -> String {
    format!("{STAGING_PREFIX}{id}")
}

fn storage(dir: &Path, source: io::Error) -> ReceiveError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ReceiveError::DiskFull { path: dir.to_owned() }
        }
        _ => ReceiveError::Storage { path: dir.to_owned(), source },
    }
}

/// Makes or opens the staging folder and locks it. It must be ours: in a folder that others can write to, somebody
/// could have made it first.
fn open_staging(root: &OwnedFd, name: &str, target: &Target) -> Result<OwnedFd, ReceiveError> {
    let open = || -> io::Result<OwnedFd> {
        match mkdirat(root, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let staging = open_folder(root, name.as_bytes())?;
        if fstat(&staging)?.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Whatever it was, what lies in it from now on is nobody else's.
        fchmod(&staging, Mode::RWXU)?;
        Ok(staging)
    };
    let staging = open().map_err(|source| storage(&target.dir, source))?;
    match flock(&staging, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(staging),
        Err(Errno::WOULDBLOCK) => Err(ReceiveError::Busy { path: target.dir.join(name) }),
        Err(error) => Err(storage(&target.dir, error.into())),
    }
}

fn new_file(staging: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(File::from(openat(staging, name, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Paths of the folders that earlier attempts made; what cannot be read is of no attempt.
fn made_in(staging: &OwnedFd) -> HashSet<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Ok(file) = openat(staging, MADE, READ, Mode::empty()) {
        let read = File::from(file).take(MAX_MADE_BYTES).read_to_end(&mut bytes);
        bytes.truncate(read.unwrap_or(0));
    }
    bytes.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect()
}

fn digest_in(staging: &OwnedFd) -> Option<[u8; 32]> {
    let mut file = File::from(openat(staging, DIGEST, READ, Mode::empty()).ok()?);
    let mut digest = [0; 32];
    file.read_exact(&mut digest).ok()?;
    Some(digest)
}

/// Removes the files of a staging folder, which has no folders in it.
fn empty(staging: &OwnedFd) -> io::Result<()> {
    empty_but(staging, None)
}

/// The same, with one file that stays.
fn empty_but(staging: &OwnedFd, kept: Option<&str>) -> io::Result<()> {
    for entry in Dir::read_from(staging)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && kept.map(str::as_bytes) != Some(name) {
            unlinkat(staging, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn times(entry: &Entry) -> Timestamps {
    let modified = Timespec { tv_sec: entry.seconds, tv_nsec: i64::from(entry.nanos) };
    // The time of last access is not offered; the other one is nearer to the truth than now is.
    Timestamps { last_access: modified, last_modification: modified }
}

/// Mode without set-user-id and set-group-id, and time of last modification.
fn attributes(file: &impl std::os::fd::AsFd, entry: &Entry) -> rustix::io::Result<()> {
    fchmod(file, Mode::from_raw_mode(u32::from(entry.mode & 0o1777)))?;
    futimens(file, &times(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offer::Entry;

    fn file(name: &str, size: u64) -> Entry {
        Entry { parent: 0, name: name.into(), mode: 0o644, seconds: 1, nanos: 2, kind: Kind::File(size) }
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let offer = Offer::new(vec![file("a", 3)]).unwrap();
        let target = Target { dir: dir.path().to_owned(), ..Target::default() };
        let (mut folder, present) = Folder::prepare(&offer, TransferId([7; 16]), &target).unwrap();
        assert!(present.haves.is_empty() && present.failed.is_empty());
        folder.current = Some(File::options().write(true).open("/dev/full").unwrap());
        let trouble = folder.write(0, b"abc").unwrap_err();
        assert!(matches!(trouble, Trouble::World(ReceiveError::DiskFull { .. })), "{trouble:?}");
    }

    #[test]
    fn a_name_is_given_only_after_the_sync_and_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let offer = Offer::new(vec![file("a", 3), file("b", 3)]).unwrap();
        let target = Target { dir: dir.path().to_owned(), ..Target::default() };
        let (mut folder, _) = Folder::prepare(&offer, TransferId([7; 16]), &target).unwrap();
        for index in 0..2 {
            folder.open(index, 0).unwrap();
            folder.write(0, b"new").unwrap();
            assert!(folder.commit(index).unwrap().is_empty());
        }
        assert!(!dir.path().join("a").exists());
        std::fs::write(dir.path().join("a"), b"old").unwrap();
        let failed = folder.settle().unwrap();
        assert_eq!(failed, [Failed { index: 0, reason: Reason::Exists }]);
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"old");
        assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn folders_get_mode_and_time_though_the_offer_is_another_one_after_an_interruption() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};

        let dir = tempfile::tempdir().unwrap();
        let target = Target { dir: dir.path().to_owned(), ..Target::default() };
        std::fs::create_dir(dir.path().join("old")).unwrap();
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path().join("old"), private).unwrap();
        let folder = |parent, name: &str| Entry { mode: 0o755, kind: Kind::Folder, parent, ..file(name, 0) };
        let first = vec![folder(0, "a"), folder(1, "b"), folder(0, "old")];
        let second = vec![file("new", 0), folder(0, "a"), folder(2, "b"), folder(2, "c"), folder(0, "old")];
        for (entries, settles) in [(first, false), (second, true)] {
            let offer = Offer::new(entries).unwrap();
            let (mut folder, _) = Folder::prepare(&offer, TransferId([7; 16]), &target).unwrap();
            assert!(!settles || folder.settle().unwrap().is_empty());
        }
        for (name, mode) in [("a", 0o755), ("a/b", 0o755), ("a/c", 0o755), ("old", 0o700)] {
            let found = std::fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!((found.mode() & 0o777, found.mtime() == 1), (mode, mode == 0o755), "{name}");
        }
        assert!(!dir.path().join(staging_name(TransferId([7; 16]))).exists());
    }

    #[test]
    fn partial_files_are_claimed_by_their_own_offer_only() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target { dir: dir.path().to_owned(), ..Target::default() };
        let id = TransferId([7; 16]);
        for (size, haves) in [(5, 0), (5, 1), (4, 0)] {
            let offer = Offer::new(vec![file("a", size)]).unwrap();
            let (mut folder, present) = Folder::prepare(&offer, id, &target).unwrap();
            assert_eq!(present.haves.len(), haves);
            folder.open(0, 0).unwrap();
            folder.write(0, &b"12345"[..size as usize]).unwrap();
        }
        discard_partial(dir.path(), id).unwrap();
        discard_partial(dir.path(), id).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
