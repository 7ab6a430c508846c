//! The file system: reading folders into an offer, and receiving into a folder that nothing gets out of.

mod folder;
mod handles;
mod read;

pub(crate) use folder::{Folder, Trouble};
pub use folder::{Target, discard_partial, find_partial};
pub use read::{LocalOffer, Skipped};
pub(crate) use read::{OpenFile, SourceFiles};

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::hash::{GROUP_BYTES, Value, group_length, group_value};

/// Reads exactly `buffer.len()` bytes at `offset`; `false` where the file ends before.
pub(crate) fn read_full(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<bool> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Values of groups `first..first + count` of a file that should have `size` bytes; stops early where it cannot be
/// read, is shorter, or `go_on` says no.
pub(crate) fn values(file: &File, size: u64, first: u32, count: u32, go_on: impl Fn() -> bool) -> Vec<Value> {
    let groups = crate::hash::groups_of(size);
    let mut buffer = vec![0; GROUP_BYTES];
    let mut values = Vec::new();
    for group in first..first.saturating_add(count) {
        let length = group_length(size, group);
        let offset = u64::from(group) * GROUP_BYTES as u64;
        if length == 0 || !go_on() || !matches!(read_full(file, &mut buffer[..length], offset), Ok(true)) {
            break;
        }
        values.push(group_value(group, groups, &buffer[..length]));
    }
    values
}
