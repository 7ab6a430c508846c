//! Folders with everything that a folder can hold, and their comparison.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// What is compared of an entry: kind and content, mode, modification time in nanoseconds.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    content: Content,
    mode: u32,
    time: Option<(i64, i64)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Folder,
    File(u64, String),
    Link(PathBuf),
}

/// Makes a folder with files of many sizes, odd names, modes, times, links and empty folders.
pub fn make(folder: &Path) {
    fs::create_dir_all(folder.join("photos/2026/empty")).unwrap();
    fs::create_dir_all(folder.join("locked")).unwrap();
    for (name, size) in [
        ("empty", 0),
        ("one", 1),
        ("small", 10_240),
        ("photos/beach.raw", 3 << 20),
        ("photos/2026/odd", (1 << 20) + 1),
    ] {
        fs::write(folder.join(name), noise(size, name.len() as u64)).unwrap();
    }
    fs::write(folder.join("Grüße 日本 \u{1f4e6}"), "unicode").unwrap();
    fs::write(folder.join(OsStr::from_bytes(b"not \xff utf-8")), "bytes").unwrap();
    fs::write(folder.join("n".repeat(255)), "long name").unwrap();
    fs::write(folder.join("script.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(folder.join("script.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.join("one"), fs::Permissions::from_mode(0o400)).unwrap();
    symlink("photos/beach.raw", folder.join("link")).unwrap();
    symlink("nowhere/at all", folder.join("dangling")).unwrap();
    let old = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for name in ["small", "photos/beach.raw", "photos/2026/empty", "photos"] {
        fs::File::open(folder.join(name)).unwrap().set_modified(old).unwrap();
    }
    fs::set_permissions(folder.join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
}

/// Reproducible bytes that do not compress.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Everything below `folder`, by relative path.
pub fn read(folder: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    visit(folder, folder, &mut entries);
    entries
}

fn visit(root: &Path, path: &Path, entries: &mut BTreeMap<PathBuf, Entry>) {
    let found = fs::symlink_metadata(path).unwrap();
    let content = if found.is_symlink() {
        Content::Link(fs::read_link(path).unwrap())
    } else if found.is_dir() {
        for inner in fs::read_dir(path).unwrap() {
            visit(root, &inner.unwrap().path(), entries);
        }
        Content::Folder
    } else {
        Content::File(found.len(), blake3::hash(&fs::read(path).unwrap()).to_string())
    };
    let time = (!found.is_symlink()).then(|| (found.mtime(), found.mtime_nsec()));
    let mode = if found.is_symlink() { 0 } else { found.permissions().mode() & 0o7777 };
    entries.insert(path.strip_prefix(root).unwrap().to_owned(), Entry { content, mode, time });
}

/// Fails with the first difference between two folders.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (read(one), read(other));
    for (path, entry) in &one {
        assert_eq!(Some(entry), other.get(path), "{}", path.display());
    }
    assert_eq!(one.len(), other.len(), "{:?}", other.keys().find(|path| !one.contains_key(*path)));
}
