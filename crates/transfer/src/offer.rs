//! What a sender offers: a list of files, folders and symbolic links, checked before anything else is done with it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use kith_sansio::Span;
use minicbor::{Decode, Encode};

use crate::hash;

/// Entries in one offer at most.
pub const MAX_ENTRIES: u32 = 1_000_000;
/// Bytes of all `Entries` payloads of one offer at most.
pub const MAX_OFFER_BYTES: u64 = 64 << 20;
/// Bytes of one name at most (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;
/// Bytes of a whole path at most, separators included (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4096;
/// Bytes of a symbolic link's target at most.
pub const MAX_TARGET_BYTES: usize = 4095;
/// Names in one path at most.
pub const MAX_DEPTH: u16 = 256;
/// Size of one file in bytes at most (1 PiB), and of all files of an offer together.
pub const MAX_FILE_BYTES: u64 = 1 << 50;
/// An offer of more entries than this takes much room at the receiver.
pub const MANY_ENTRIES: usize = 10_000;
/// So long it waits for an answer there at most.
pub const MANY_WAIT: Span = Span::secs(600);
/// Names at the top that begin like this are the receiver's own.
pub const STAGING_PREFIX: &str = ".kith-partial-";

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Kind {
    /// A regular file of so many bytes.
    #[n(0)]
    File(#[n(0)] u64),
    /// A folder.
    #[n(1)]
    Folder,
    /// A symbolic link with its target, which is never followed.
    #[n(2)]
    Link(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
}

/// One file, folder or link; on the wire a CBOR array of its fields in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// 0 for an entry at the top, otherwise one more than the index of its folder, which comes earlier in the list.
    #[n(0)]
    pub parent: u32,
    /// Its name in that folder: any bytes but NUL and `/`, neither `.` nor `..`, 1 to 255 of them.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Permission bits, `07777` at most; a receiver clears set-user-id and set-group-id.
    #[n(2)]
    pub mode: u16,
    /// Time of last modification: seconds since 1970, negative before.
    #[n(3)]
    pub seconds: i64,
    /// Nanoseconds of that time, below 1 000 000 000.
    #[n(4)]
    pub nanos: u32,
    /// What it is.
    #[n(5)]
    pub kind: Kind,
}

impl Entry {
    /// Index of the entry's folder; `None` at the top.
    pub fn folder(&self) -> Option<u32> {
        self.parent.checked_sub(1)
    }

    /// Size in bytes where it is a file.
    pub fn size(&self) -> Option<u64> {
        if let Kind::File(size) = self.kind { Some(size) } else { None }
    }
}

/// How long an offer of so many entries waits for an answer, where its sender would wait for `asked`:
/// [`MANY_WAIT`] at most where there are more than [`MANY_ENTRIES`].
pub fn answer_within(entries: usize, asked: Span) -> Span {
    if entries > MANY_ENTRIES { asked.min(MANY_WAIT) } else { asked }
}

/// What is wrong with an offer: its maker's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// Nothing in it.
    #[error("the offer is empty")]
    Empty,
    /// More entries or bytes than an offer may have.
    #[error("the offer is too large ({entries} entries)")]
    TooLarge {
        /// Entries counted until then.
        entries: u64,
    },
    /// Empty, too long, `.`, `..`, or with `/` or NUL in it.
    #[error("entry {index} has a name that no file may have: {name:?}")]
    Name {
        /// Which entry.
        index: u32,
        /// Its name, as far as it can be shown.
        name: String,
    },
    /// The name of the receiver's own folder for partial files.
    #[error("entry {index} is named like a folder for partial files")]
    Reserved {
        /// Which entry.
        index: u32,
    },
    /// Its folder was not offered before it, or is no folder.
    #[error("entry {index} lies in something that was not offered as a folder before it")]
    Parent {
        /// Which entry.
        index: u32,
    },
    /// The path is too long or too deep.
    #[error("the path of entry {index} is too long or too deep")]
    Path {
        /// Which entry.
        index: u32,
    },
    /// Two entries have one path.
    #[error("entries {first} and {second} have the same path")]
    Duplicate {
        /// The earlier one.
        first: u32,
        /// The later one.
        second: u32,
    },
    /// A mode, time, size or link target that cannot be.
    #[error("entry {index} has an impossible {what}")]
    Field {
        /// Which entry.
        index: u32,
        /// Which field: `mode`, `time`, `size` or `target`.
        what: &'static str,
    },
    /// The announced totals are not those of the list.
    #[error("the announced totals are not those of the list")]
    Totals,
}

/// A checked list of entries: names are single harmless components, folders come before what lies in them, no path
/// twice, sizes add up. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Offer(Arc<Checked>);

#[derive(Debug)]
struct Checked {
    entries: Vec<Entry>,
    files: u32,
    bytes: u64,
    digest: [u8; 32],
}

impl PartialEq for Offer {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for Offer {}

impl Offer {
    /// Checks a list of entries.
    pub fn new(entries: Vec<Entry>) -> Result<Offer, OfferError> {
        if entries.is_empty() {
            return Err(OfferError::Empty);
        }
        let mut check = Check::default();
        for entry in &entries {
            check.entry(entry, &entries)?;
        }
        refuse_duplicates(&entries)?;
        let digest = digest(&entries);
        Ok(Offer(Arc::new(Checked { files: check.files, bytes: check.bytes, digest, entries })))
    }

    /// The entries in their order, which is the order of sending.
    pub fn entries(&self) -> &[Entry] {
        &self.0.entries
    }

    /// Entry `index`.
    pub fn entry(&self, index: u32) -> Option<&Entry> {
        self.0.entries.get(index as usize)
    }

    /// How many regular files there are.
    pub fn files(&self) -> u32 {
        self.0.files
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// BLAKE3 over the canonical encodings of all entries: equal for equal names, kinds, sizes, modes, times and
    /// targets in equal order. It says nothing about contents.
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// Names at the top.
    pub fn top_names(&self) -> impl Iterator<Item = &OsStr> {
        self.0.entries.iter().filter(|entry| entry.parent == 0).map(|entry| OsStr::from_bytes(&entry.name))
    }

    /// Path of entry `index` relative to the target folder; empty where there is no such entry.
    pub fn path(&self, index: u32) -> PathBuf {
        let mut names = Vec::new();
        let mut at = Some(index);
        while let Some(entry) = at.and_then(|index| self.entry(index)) {
            names.push(OsStr::from_bytes(&entry.name));
            at = entry.folder();
        }
        names.iter().rev().collect()
    }

    /// Size of file `index` in bytes; `None` where that entry is missing or no file.
    pub fn size(&self, index: u32) -> Option<u64> {
        self.entry(index)?.size()
    }

    /// How many groups file `index` has; `None` where that entry is missing or no file.
    pub fn groups(&self, index: u32) -> Option<u32> {
        self.size(index).map(hash::groups_of)
    }

    /// Indices and entries together.
    pub(crate) fn indexed(&self) -> impl DoubleEndedIterator<Item = (u32, &Entry)> + ExactSizeIterator {
        // The count was bounded by MAX_ENTRIES when the list was checked.
        self.0.entries.iter().enumerate().map(|(index, entry)| (index as u32, entry))
    }
}

/// Running state of the check of a list.
#[derive(Default)]
struct Check {
    /// Path length in bytes and depth of every entry so far.
    paths: Vec<(u16, u16)>,
    files: u32,
    bytes: u64,
}

impl Check {
    fn entry(&mut self, entry: &Entry, entries: &[Entry]) -> Result<(), OfferError> {
        let index = self.paths.len() as u32;
        if index >= MAX_ENTRIES {
            return Err(OfferError::TooLarge { entries: entries.len() as u64 });
        }
        if !is_name(&entry.name) {
            let name = String::from_utf8_lossy(&entry.name).chars().take(80).collect();
            return Err(OfferError::Name { index, name });
        }
        let above = match entry.folder() {
            None if entry.name.starts_with(STAGING_PREFIX.as_bytes()) => {
                return Err(OfferError::Reserved { index });
            }
            None => None,
            Some(folder) if folder < index && entries[folder as usize].kind == Kind::Folder => {
                Some(self.paths[folder as usize])
            }
            Some(_) => return Err(OfferError::Parent { index }),
        };
        let (length, depth) = above.map_or((0, 0), |(length, depth)| (usize::from(length) + 1, depth));
        let length = length + entry.name.len();
        if length > MAX_PATH_BYTES || depth >= MAX_DEPTH {
            return Err(OfferError::Path { index });
        }
        self.paths.push((length as u16, depth + 1));
        self.fields(index, entry)
    }

    fn fields(&mut self, index: u32, entry: &Entry) -> Result<(), OfferError> {
        let wrong = |what| Err(OfferError::Field { index, what });
        if entry.mode > 0o7777 {
            return wrong("mode");
        }
        if entry.nanos >= 1_000_000_000 {
            return wrong("time");
        }
        match &entry.kind {
            Kind::Folder => {}
            Kind::Link(target) => {
                if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0) {
                    return wrong("target");
                }
            }
            Kind::File(size) => {
                if *size > MAX_FILE_BYTES || self.bytes + size > MAX_FILE_BYTES {
                    return wrong("size");
                }
                self.bytes += size;
                self.files += 1;
            }
        }
        Ok(())
    }
}

/// Whether `name` may be one component of a path.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == 0 || byte == b'/')
}

fn refuse_duplicates(entries: &[Entry]) -> Result<(), OfferError> {
    let key = |index: u32| {
        let entry = &entries[index as usize];
        (entry.parent, entry.name.as_slice())
    };
    let mut order: Vec<u32> = (0..entries.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| key(a).cmp(&key(b)).then(a.cmp(&b)));
    match order.windows(2).find(|pair| key(pair[0]) == key(pair[1])) {
        Some(pair) => Err(OfferError::Duplicate { first: pair[0], second: pair[1] }),
        None => Ok(()),
    }
}

fn digest(entries: &[Entry]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.clear();
        // Writing CBOR to memory cannot fail: no field has an encoder that does.
        let _infallible = minicbor::encode(entry, &mut bytes);
        hasher.update(&bytes);
    }
    *hasher.finalize().as_bytes()
}
