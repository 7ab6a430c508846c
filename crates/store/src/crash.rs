//! A disk for tests that records everything written to it, and shows what a crash at any point may leave.
//!
//! Between two syncs a real disk may keep any part of what was written: some writes and not others, in any
//! order, and of one write any sectors. [`Backend::image_at`] makes such leftovers from a seed.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_sansio::Rng;

/// The part of a write that a disk keeps or loses as a whole, in bytes.
const SECTOR_BYTES: usize = 512;

/// A recording disk; a clone is the same disk. Open it with [`Database::open_backend`](crate::Database::open_backend).
#[derive(Clone, Default)]
pub struct Backend {
    disk: Arc<Mutex<Disk>>,
    /// Passed by every sync.
    gate: Arc<Mutex<()>>,
}

/// The disk as one engine has it open; a kind of its own, so that no type of the engine shows.
#[derive(Debug)]
pub(crate) struct Opened {
    backend: Backend,
    closed: AtomicBool,
}

#[derive(Default)]
struct Disk {
    /// What was on it before the first event.
    initial: Vec<u8>,
    /// What a reader sees now.
    current: Vec<u8>,
    events: Vec<Event>,
    /// Writes and syncs that still succeed; `None` for all.
    until_failure: Option<(u64, io::ErrorKind)>,
    is_large: bool,
}

enum Event {
    Write(u64, Vec<u8>),
    Resize(u64),
    Sync,
}

impl Backend {
    /// An empty disk.
    pub fn new() -> Backend {
        Backend::default()
    }

    /// A disk with something on it, such as an image of another.
    pub fn with_image(image: Vec<u8>) -> Backend {
        let disk = Disk { initial: image.clone(), current: image, ..Disk::default() };
        Backend { disk: Arc::new(Mutex::new(disk)), gate: Arc::default() }
    }

    /// Lets databases on it be written as large ones are, which need no repair after a crash.
    pub fn be_large(&self) {
        self.disk().is_large = true;
    }

    /// Whether databases on it are written as large ones are.
    pub(crate) fn is_large(&self) -> bool {
        self.disk().is_large
    }

    /// How many events (writes, changes of length, syncs) there were so far.
    pub fn events(&self) -> usize {
        self.disk().events.len()
    }

    /// How many syncs there were so far.
    pub fn syncs(&self) -> usize {
        self.disk().events.iter().filter(|event| matches!(event, Event::Sync)).count()
    }

    /// What the disk holds when the power goes after the first `events` events.
    ///
    /// All that was synced is there. Of what came after the last sync, `rng` chooses: each write is there, or
    /// missing, or torn so that only some of its sectors are there; each change of length is there or missing.
    pub fn image_at(&self, events: usize, rng: &mut dyn Rng) -> Vec<u8> {
        let disk = self.disk();
        let events = &disk.events[..events.min(disk.events.len())];
        let synced = events.iter().rposition(|event| matches!(event, Event::Sync)).unwrap_or(0);
        let mut image = disk.initial.clone();
        for event in &events[..synced] {
            event.happen(&mut image);
        }
        for event in &events[synced..] {
            match (rng.below(3), event) {
                (0, _) => event.happen(&mut image),
                (1, Event::Write(offset, bytes)) => tear(&mut image, *offset, bytes, rng),
                _ => {}
            }
        }
        image
    }

    /// What a reader sees after the first `events` events: a killed process on a machine that lives on.
    pub fn killed_at(&self, events: usize) -> Vec<u8> {
        let disk = self.disk();
        let mut image = disk.initial.clone();
        for event in disk.events.iter().take(events) {
            event.happen(&mut image);
        }
        image
    }

    /// Lets `events` more writes, changes of length and syncs succeed, and all after them fail with `kind`.
    pub fn fail_after(&self, events: u64, kind: io::ErrorKind) {
        self.disk().until_failure = Some((events, kind));
    }

    /// Lets no sync end until the guard is dropped: a slow disk.
    pub fn hold_syncs(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everything succeed again.
    pub fn recover(&self) {
        self.disk().until_failure = None;
    }

    /// The disk for an engine that opens it.
    pub(crate) fn opened(&self) -> Opened {
        Opened { backend: self.clone(), closed: AtomicBool::new(false) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, event: Event) -> io::Result<()> {
        let mut disk = self.disk();
        match &mut disk.until_failure {
            Some((0, kind)) => return Err(io::Error::from(*kind)),
            Some((left, _)) => *left -= 1,
            None => {}
        }
        event.happen(&mut disk.current);
        disk.events.push(event);
        Ok(())
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("events", &self.events()).finish_non_exhaustive()
    }
}

impl Event {
    fn happen(&self, image: &mut Vec<u8>) {
        match self {
            Event::Write(offset, bytes) => put(image, *offset, bytes),
            Event::Resize(length) => image.resize(place(*length), 0),
            Event::Sync => {}
        }
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn put(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = place(offset);
    let end = start.saturating_add(bytes.len());
    if image.len() < end {
        image.resize(end, 0);
    }
    image[start..end].copy_from_slice(bytes);
}

fn tear(image: &mut Vec<u8>, offset: u64, bytes: &[u8], rng: &mut dyn Rng) {
    for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
        if rng.below(2) == 0 {
            put(image, offset + (number * SECTOR_BYTES) as u64, sector);
        }
    }
}

impl Opened {
    fn record(&self, event: Event) -> io::Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(io::Error::other("the disk is closed"));
        }
        self.backend.record(event)
    }
}

impl redb::StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.backend.disk().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.backend.disk();
        let start = place(offset);
        let bytes = disk.current.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.record(Event::Resize(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        drop(self.backend.hold_syncs());
        self.record(Event::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.record(Event::Write(offset, data.to_vec()))
    }

    fn close(&self) -> io::Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}
