use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};

use rustix::io::Errno;

use super::handles::{Handles, open_folder, open_named};
use crate::error::ReadError;
use crate::frame::Reason;
use crate::offer::{Entry, Kind, MAX_DEPTH, MAX_ENTRIES, Offer, OfferError};

/// Something in a folder that is neither file, folder nor symbolic link, or cannot be read: it is not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it is.
    pub path: PathBuf,
    /// Why it is left out.
    pub why: &'static str,
    /// Whether it is something that would be sent if it could be read.
    pub is_unreadable: bool,
}

/// An offer together with where its files are on this machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalOffer(Arc<Local>);

#[derive(Debug)]
struct Local {
    offer: Offer,
    /// Entries at the top, ascending, and the paths they were read from.
    tops: Vec<(u32, PathBuf)>,
    /// Inode of every entry.
    inodes: Vec<u64>,
    skipped: Vec<Skipped>,
    unreadable: u64,
}

impl LocalOffer {
    /// What is offered.
    pub fn offer(&self) -> &Offer {
        &self.0.offer
    }

    /// What was found and left out; a thousand at most.
    pub fn skipped(&self) -> &[Skipped] {
        &self.0.skipped
    }

    /// How many folders and links could not be read, and were left out.
    pub fn unreadable(&self) -> u64 {
        self.0.unreadable
    }

    /// The path on this machine that entry `index` at the top was read from.
    fn top(&self, index: u32) -> Option<&Path> {
        let at = self.0.tops.binary_search_by_key(&index, |(top, _)| *top).ok()?;
        self.0.tops.get(at).map(|(_, path)| path.as_path())
    }
}

impl Offer {
    /// Reads files and folders into an offer; blocks. Each path is offered under its last name (`holiday/` as
    /// `holiday`, `.` as the name of that folder). A path that is a symbolic link is followed; those below are
    /// not, nor is one that leads nowhere: they are offered as links.
    /// Entries of a folder are sorted by name, so that an unchanged folder gives an equal [`digest`](Self::digest).
    pub fn from_paths(paths: &[PathBuf]) -> Result<LocalOffer, ReadError> {
        if paths.is_empty() {
            return Err(ReadError::NoPaths);
        }
        let mut walk = Walk::default();
        let mut names: Vec<(Vec<u8>, &PathBuf)> = Vec::new();
        for path in paths {
            let name = top_name(path)?;
            if let Some((_, first)) = names.iter().find(|(known, _)| *known == name) {
                return Err(ReadError::SameName { first: (*first).clone(), second: path.clone() });
            }
            walk.top(path, name.clone())?;
            names.push((name, path));
        }
        let offer = Offer::new(walk.entries)?;
        let (tops, inodes, skipped) = (walk.tops, walk.inodes, walk.skipped);
        Ok(LocalOffer(Arc::new(Local { offer, tops, inodes, skipped, unreadable: walk.unreadable })))
    }
}

fn top_name(path: &Path) -> Result<Vec<u8>, ReadError> {
    if let Some(name) = path.file_name() {
        // `holiday/.` ends in a name for `Path`, and means the folder all the same.
        return Ok(name.as_bytes().to_vec());
    }
    let whole = path.canonicalize().map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    match whole.file_name() {
        Some(name) => Ok(name.as_bytes().to_vec()),
        None => Err(ReadError::NoName { path: path.to_owned() }),
    }
}

#[derive(Default)]
struct Walk {
    entries: Vec<Entry>,
    inodes: Vec<u64>,
    tops: Vec<(u32, PathBuf)>,
    skipped: Vec<Skipped>,
    unreadable: u64,
}

/// A folder being read: its names, last first, and its handle.
struct Level {
    handle: OwnedFd,
    index: u32,
    names: Vec<Vec<u8>>,
}

impl Walk {
    fn top(&mut self, path: &Path, name: Vec<u8>) -> Result<(), ReadError> {
        let wrong = |source: io::Error| ReadError::Io { path: path.to_owned(), source };
        let stat = match statat(CWD, path, AtFlags::empty()) {
            Err(error @ (Errno::NOENT | Errno::LOOP)) => {
                return self.dangling(path, name).unwrap_or_else(|| Err(wrong(error.into())));
            }
            found => found.map_err(|error| wrong(error.into()))?,
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File(stat.st_size.unsigned_abs()),
            FileType::Directory => Kind::Folder,
            _ => return Err(ReadError::Special { path: path.to_owned() }),
        };
        let is_folder = kind == Kind::Folder;
        let index = self.add(0, name, kind, &stat)?;
        // Absolute, because sending may start after this process went to another folder.
        self.tops.push((index, std::path::absolute(path).map_err(wrong)?));
        if is_folder {
            let handle = open_named(path).map_err(wrong)?;
            let names = names(&handle).map_err(wrong)?;
            self.below(path, Level { handle, index, names })?;
        }
        Ok(())
    }

    /// A link that leads nowhere, as itself; `None` where there is none.
    fn dangling(&mut self, path: &Path, name: Vec<u8>) -> Option<Result<(), ReadError>> {
        let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let target = readlinkat(CWD, path, Vec::new()).ok()?;
        Some(self.add(0, name, Kind::Link(target.into_bytes()), &stat).map(|_index| ()))
    }

    /// Reads everything below a folder, depth first, without recursion.
    fn below(&mut self, top: &Path, level: Level) -> Result<(), ReadError> {
        let mut path = top.to_owned();
        let mut levels = vec![level];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                if !levels.is_empty() {
                    path.pop();
                }
                continue;
            };
            let place = path.join(OsStr::from_bytes(&name));
            let parent = level.index + 1;
            if let Some(index) = self.entry(level, parent, &name, &place)? {
                if levels.len() >= usize::from(MAX_DEPTH) {
                    return Err(OfferError::Path { index }.into());
                }
                let open = |handle: OwnedFd| names(&handle).map(|names| Level { handle, index, names });
                match levels.last().map(|level| open_folder(&level.handle, &name).and_then(open)) {
                    Some(Ok(level)) => {
                        levels.push(level);
                        path = place;
                    }
                    _ => self.unreadable(place, "its content cannot be read"),
                }
            }
        }
        Ok(())
    }

    /// Adds one entry; its index where it is a folder to go into.
    fn entry(
        &mut self,
        level: &Level,
        parent: u32,
        name: &[u8],
        place: &Path,
    ) -> Result<Option<u32>, ReadError> {
        let Ok(stat) = statat(&level.handle, name, AtFlags::SYMLINK_NOFOLLOW) else {
            self.skip(place.to_owned(), "it vanished");
            return Ok(None);
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File(stat.st_size.unsigned_abs()),
            FileType::Directory => Kind::Folder,
            FileType::Symlink => match readlinkat(&level.handle, name, Vec::new()) {
                Ok(target) => Kind::Link(target.into_bytes()),
                Err(_) => {
                    self.unreadable(place.to_owned(), "the link cannot be read");
                    return Ok(None);
                }
            },
            _ => {
                self.skip(place.to_owned(), "it is no file, folder or link");
                return Ok(None);
            }
        };
        let is_folder = kind == Kind::Folder;
        let index = self.add(parent, name.to_vec(), kind, &stat)?;
        Ok(is_folder.then_some(index))
    }

    fn add(&mut self, parent: u32, name: Vec<u8>, kind: Kind, stat: &Stat) -> Result<u32, ReadError> {
        let index = self.entries.len() as u32;
        if index >= MAX_ENTRIES {
            return Err(OfferError::TooLarge { entries: u64::from(index) + 1 }.into());
        }
        let mode = (stat.st_mode & 0o7777) as u16;
        let nanos = stat.st_mtime_nsec as u32;
        self.entries.push(Entry { parent, name, mode, seconds: stat.st_mtime, nanos, kind });
        self.inodes.push(stat.st_ino);
        Ok(index)
    }

    fn skip(&mut self, path: PathBuf, why: &'static str) {
        if self.skipped.len() < 1_000 {
            self.skipped.push(Skipped { path, why, is_unreadable: false });
        }
    }

    fn unreadable(&mut self, path: PathBuf, why: &'static str) {
        self.unreadable += 1;
        // What somebody has to see comes first.
        self.skipped.truncate(999);
        let place = self.skipped.partition_point(|known| known.is_unreadable);
        self.skipped.insert(place, Skipped { path, why, is_unreadable: true });
    }
}

/// Names in a folder, sorted backwards.
fn names(handle: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(handle)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
            if names.len() > MAX_ENTRIES as usize {
                break;
            }
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// The files of an offer, to be opened one after the other.
pub(crate) struct SourceFiles {
    local: LocalOffer,
    handles: Handles,
}

/// A file of an offer that is open.
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) size: u64,
    inode: u64,
    seconds: i64,
    nanos: u32,
}

impl OpenFile {
    /// Whether it still is what was offered, and a regular file.
    pub(crate) fn is_unchanged(&self) -> bool {
        fstat(&self.file).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && stat.st_size.unsigned_abs() == self.size
                && stat.st_ino == self.inode
                && stat.st_mtime == self.seconds
                && stat.st_mtime_nsec as u32 == self.nanos
        })
    }
}

impl SourceFiles {
    pub(crate) fn new(local: &LocalOffer) -> Self {
        SourceFiles { local: local.clone(), handles: Handles::new() }
    }

    /// Opens file `index`.
    pub(crate) fn open(&mut self, index: u32) -> Result<OpenFile, Reason> {
        let offer = self.local.offer();
        let (Some(entry), Some(&inode)) = (offer.entry(index), self.local.0.inodes.get(index as usize))
        else {
            return Err(Reason::Vanished);
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let local = &self.local;
        let opened = match entry.folder() {
            None => match local.top(index) {
                Some(path) => openat(CWD, path, flags, Mode::empty()).map_err(io::Error::from),
                None => return Err(Reason::Vanished),
            },
            Some(folder) => {
                let top = |index, _: &Entry| {
                    local.top(index).map_or(Err(io::ErrorKind::NotFound.into()), open_named)
                };
                self.handles.folder(offer, folder, top).and_then(|parent| {
                    Ok(openat(&*parent, entry.name.as_slice(), flags | OFlags::NOFOLLOW, Mode::empty())?)
                })
            }
        };
        let file = File::from(opened.map_err(|error| reason_of(&error))?);
        let size = entry.size().unwrap_or(0);
        Ok(OpenFile { file, size, inode, seconds: entry.seconds, nanos: entry.nanos })
    }
}

fn reason_of(error: &io::Error) -> Reason {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR) => Reason::Vanished,
        // A symbolic link stands where a file was.
        Some(Errno::LOOP) => Reason::Changed,
        _ => Reason::Unreadable,
    }
}
