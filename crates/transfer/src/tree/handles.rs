use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::offer::{Entry, Offer};

/// Open folders kept at once at most.
const KEPT: usize = 32;

/// How a folder below another is opened: never through a symbolic link.
pub(super) fn open_folder(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// How a folder that the user named is opened.
pub(super) fn open_named(path: &std::path::Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Handles of the folders of an offer, opened one component at a time, the last used ones kept.
pub(super) struct Handles {
    kept: Vec<(u32, Arc<OwnedFd>)>,
}

impl Handles {
    pub(super) fn new() -> Self {
        Handles { kept: Vec::new() }
    }

    /// The handle of folder `index`; `top` opens a folder at the top of the offer.
    pub(super) fn folder(
        &mut self,
        offer: &Offer,
        index: u32,
        top: impl Fn(u32, &Entry) -> io::Result<OwnedFd>,
    ) -> io::Result<Arc<OwnedFd>> {
        let mut missing = Vec::new();
        let mut at = Some(index);
        let mut handle = None;
        while let Some(folder) = at {
            if let Some(found) = self.kept(folder) {
                handle = Some(found);
                break;
            }
            let entry = offer.entry(folder).ok_or(io::ErrorKind::NotFound)?;
            missing.push((folder, entry));
            at = entry.folder();
        }
        while let Some((folder, entry)) = missing.pop() {
            let opened = match &handle {
                Some(parent) => open_folder(parent, &entry.name)?,
                None => top(folder, entry)?,
            };
            let opened = Arc::new(opened);
            self.keep(folder, Arc::clone(&opened));
            handle = Some(opened);
        }
        handle.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn kept(&mut self, folder: u32) -> Option<Arc<OwnedFd>> {
        let at = self.kept.iter().rposition(|(kept, _)| *kept == folder)?;
        if at + 1 != self.kept.len() {
            let found = self.kept.remove(at);
            self.kept.push(found);
        }
        self.kept.last().map(|(_, handle)| Arc::clone(handle))
    }

    fn keep(&mut self, folder: u32, handle: Arc<OwnedFd>) {
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push((folder, handle));
    }
}
