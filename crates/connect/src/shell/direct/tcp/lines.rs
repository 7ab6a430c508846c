use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kith_identity::Fingerprint;
use kith_sansio::system::time;
use kith_sansio::{Span, Time};
use tokio::sync::{mpsc, oneshot};

use crate::shell::connect::Way;
use crate::shell::within;

/// How long somebody waits for a punched connection before he takes another way.
const PATIENCE: Span = Span::secs(2);
/// A line that nobody has wanted anything of for so long ends.
pub(super) const IDLE: Span = Span::secs(120);
/// Wishes that wait to be heard.
const WISHES: usize = 16;
/// Peers with lines at once.
const MAX_LINES: usize = 256;

/// Somebody who waits for a connection.
pub(super) type Wish = oneshot::Sender<Way>;

/// The conversations about punching that this node has begun, one with each peer.
#[derive(Default)]
pub(in crate::shell) struct Lines(Mutex<HashMap<Fingerprint, Line>>);

struct Line {
    wishes: mpsc::Sender<Wish>,
    works: bool,
    used: Time,
}

impl Lines {
    fn lines(&self) -> MutexGuard<'_, HashMap<Fingerprint, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a line with `peer`: who wants something of it. `None` where there is one already, or too many.
    pub(super) fn begin(&self, peer: Fingerprint) -> Option<mpsc::Receiver<Wish>> {
        let mut lines = self.lines();
        if let Some(line) = lines.get_mut(&peer) {
            line.used = time();
            return None;
        }
        if lines.len() >= MAX_LINES {
            return None;
        }
        let (wishes, wished) = mpsc::channel(WISHES);
        lines.insert(peer, Line { wishes, works: false, used: time() });
        Some(wished)
    }

    pub(super) fn end(&self, peer: &Fingerprint) {
        self.lines().remove(peer);
    }

    /// Notes whether there is a way to `peer` as far as is known; when the line was last used.
    pub(super) fn note(&self, peer: &Fingerprint, works: bool) -> Option<Time> {
        let mut lines = self.lines();
        let line = lines.get_mut(peer)?;
        line.works = works;
        Some(line.used)
    }

    /// Whether `peer` is reached by punching.
    pub(in crate::shell) fn works(&self, peer: &Fingerprint) -> bool {
        self.lines().get(peer).is_some_and(|line| line.works)
    }

    /// A connection to `peer` that goes directly, where that is known to be possible and soon done.
    pub(in crate::shell) async fn way(&self, peer: &Fingerprint) -> Option<Way> {
        let (wish, way) = oneshot::channel();
        {
            let mut lines = self.lines();
            let line = lines.get_mut(peer).filter(|line| line.works)?;
            line.used = time();
            line.wishes.try_send(wish).ok()?;
        }
        within(PATIENCE, way).await?.ok()
    }
}
