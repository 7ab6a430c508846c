use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;

use crate::offer::Offer;

/// How far a transfer is: atomics that the transfer writes and anybody may read at any time.
#[derive(Debug)]
pub struct Progress {
    moved: AtomicU64,
    resumed: AtomicU64,
    files_done: AtomicU32,
    current: AtomicU32,
    offer: OnceLock<Offer>,
    accepted: watch::Sender<bool>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            moved: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            files_done: AtomicU32::new(0),
            current: AtomicU32::new(u32::MAX),
            offer: OnceLock::new(),
            accepted: watch::Sender::new(false),
        }
    }
}

impl Progress {
    /// Nothing moved yet.
    pub fn new() -> Self {
        Progress::default()
    }

    /// Bytes of files that went over the wire in this session.
    pub fn moved_bytes(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// Bytes that the receiver had already, so that they do not move.
    pub fn resumed_bytes(&self) -> u64 {
        self.resumed.load(Relaxed)
    }

    /// Bytes of all offered files; 0 before the transfer starts.
    pub fn total_bytes(&self) -> u64 {
        self.offer.get().map_or(0, Offer::bytes)
    }

    /// Files dealt with so far.
    pub fn files_done(&self) -> u32 {
        self.files_done.load(Relaxed)
    }

    /// All offered files; 0 before the transfer starts.
    pub fn total_files(&self) -> u32 {
        self.offer.get().map_or(0, Offer::files)
    }

    /// Waits until the receiver has accepted the offer.
    pub async fn accepted(&self) {
        // Ends only with this value itself, which is alive here.
        let _ = self.accepted.subscribe().wait_for(|accepted| *accepted).await;
    }

    /// Path of the file that moves now, relative to the target folder.
    pub fn current(&self) -> Option<PathBuf> {
        let offer = self.offer.get()?;
        let index = self.current.load(Relaxed);
        offer.entry(index).map(|_| offer.path(index))
    }

    pub(crate) fn begin(&self, offer: &Offer) {
        let _same_when_retried = self.offer.set(offer.clone());
        self.moved.store(0, Relaxed);
        self.resumed.store(0, Relaxed);
        self.files_done.store(0, Relaxed);
    }

    pub(crate) fn set_accepted(&self) {
        self.accepted.send_replace(true);
    }

    pub(crate) fn add_moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn set_resumed(&self, bytes: u64) {
        self.resumed.store(bytes, Relaxed);
    }

    pub(crate) fn set_files_done(&self, files: u32) {
        self.files_done.store(files, Relaxed);
    }

    pub(crate) fn set_current(&self, index: u32) {
        self.current.store(index, Relaxed);
    }
}
