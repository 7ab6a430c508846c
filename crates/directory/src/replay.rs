//! Replay memory: which set of a fingerprint was the newest one, remembered beyond its end.
//!
//! Directory, client and cache judge by the same rule: older than what was seen is refused, equal time and equal
//! bytes is a repeat, equal time and other bytes is refused (SEP §5.2.4).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use kith_identity::Fingerprint;
use kith_identity::record::{REPLAY_SECS, VerifiedRecordSet};
use kith_sansio::Timestamp;

use crate::defaults;

/// The newest set that was seen of a fingerprint: its time, and what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Timestamp of the set.
    pub timestamp: Timestamp,
    /// BLAKE3 over the length of the signed bytes (u64, big-endian) ‖ signed bytes ‖ signature.
    pub digest: [u8; 32],
}

/// What the replay rule says of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Newer than all that was seen.
    Newer,
    /// The very set that was seen last.
    Repeat,
    /// Older than what was seen.
    Older,
    /// As old as what was seen, and not the same.
    Different,
}

impl Seen {
    /// What is remembered of `set`.
    pub fn of(set: &VerifiedRecordSet) -> Seen {
        let digest = Seen::digest_of(set.signed_bytes(), set.signature());
        Seen { timestamp: set.timestamp(), digest }
    }

    pub(crate) fn digest_of(signed: &[u8], signature: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(signed.len() as u64).to_be_bytes());
        hasher.update(signed);
        hasher.update(signature);
        *hasher.finalize().as_bytes()
    }

    /// The first second in which this may be forgotten: no set of this time can be valid any more.
    #[must_use]
    pub fn forget_at(&self) -> Timestamp {
        self.timestamp.plus_secs(REPLAY_SECS)
    }

    /// Whether this counts at `now`: it is not to be forgotten, and not so far ahead that only a clock which was
    /// wrong can have let it in. Without the second, a node whose clock once ran ahead would be shut out until then.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> bool {
        now < self.forget_at() && self.timestamp <= now.plus_secs(REPLAY_SECS)
    }

    /// Judges `self` against what was `seen` before, as far as that [`counts`](Seen::counts).
    #[must_use]
    pub fn judge(&self, now: Timestamp, seen: Option<Seen>) -> Verdict {
        match seen.filter(|seen| seen.counts(now)) {
            None => Verdict::Newer,
            Some(seen) if self.timestamp > seen.timestamp => Verdict::Newer,
            Some(seen) if self.timestamp < seen.timestamp => Verdict::Older,
            Some(seen) if self.digest == seen.digest => Verdict::Repeat,
            Some(_) => Verdict::Different,
        }
    }
}

/// Where a client remembers the newest set of each fingerprint; `kith` keeps it in the node's database.
///
/// Both calls come from asynchronous tasks and must not block for long.
pub trait ReplayMemory: Send + Sync {
    /// What was seen last, if that is remembered.
    fn highest(&self, fingerprint: &Fingerprint) -> Option<Seen>;
    /// Remembers `seen`, at least until [`Seen::forget_at`].
    fn remember(&self, fingerprint: &Fingerprint, seen: Seen);
}

/// Replay memory that ends with the process, bounded; where it is full the oldest time is forgotten first.
#[derive(Debug)]
pub struct MemoryReplay {
    limit: usize,
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    by_fingerprint: HashMap<Fingerprint, Seen>,
    by_time: BTreeSet<(Timestamp, Fingerprint)>,
}

impl MemoryReplay {
    /// A memory of at most `limit` fingerprints.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        MemoryReplay { limit: limit.max(1), rows: Mutex::default() }
    }

    /// How many fingerprints are remembered.
    pub fn len(&self) -> usize {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).by_fingerprint.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemoryReplay {
    fn default() -> Self {
        MemoryReplay::new(defaults::REPLAY_ENTRIES)
    }
}

impl ReplayMemory for MemoryReplay {
    fn highest(&self, fingerprint: &Fingerprint) -> Option<Seen> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).by_fingerprint.get(fingerprint).copied()
    }

    fn remember(&self, fingerprint: &Fingerprint, seen: Seen) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = rows.by_fingerprint.insert(*fingerprint, seen) {
            rows.by_time.remove(&(old.timestamp, *fingerprint));
        }
        rows.by_time.insert((seen.timestamp, *fingerprint));
        while rows.by_fingerprint.len() > self.limit {
            let Some((_, oldest)) = rows.by_time.pop_first() else { break };
            rows.by_fingerprint.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(timestamp: u64, digest: u8) -> Seen {
        Seen { timestamp: Timestamp(timestamp), digest: [digest; 32] }
    }

    #[test]
    fn the_rule_of_replays() {
        let now = Timestamp(1000);
        assert_eq!(seen(10, 1).judge(now, None), Verdict::Newer);
        assert_eq!(seen(11, 1).judge(now, Some(seen(10, 1))), Verdict::Newer);
        assert_eq!(seen(9, 1).judge(now, Some(seen(10, 1))), Verdict::Older);
        assert_eq!(seen(10, 1).judge(now, Some(seen(10, 1))), Verdict::Repeat);
        assert_eq!(seen(10, 2).judge(now, Some(seen(10, 1))), Verdict::Different);
    }

    #[test]
    fn what_was_seen_is_forgotten_after_86_460_seconds_and_not_before() {
        let last = Some(seen(10, 1));
        assert_eq!(seen(9, 1).judge(Timestamp(86_469), last), Verdict::Older);
        assert_eq!(seen(9, 1).judge(Timestamp(86_470), last), Verdict::Newer);
    }

    #[test]
    fn what_only_a_wrong_clock_can_have_let_in_does_not_count() {
        let now = Timestamp(1_000_000);
        let (day_ahead, years_ahead) = (now.0 + REPLAY_SECS, u64::MAX);
        assert_eq!(seen(now.0, 1).judge(now, Some(seen(day_ahead, 1))), Verdict::Older);
        assert_eq!(seen(now.0, 1).judge(now, Some(seen(day_ahead + 1, 1))), Verdict::Newer);
        assert_eq!(seen(now.0, 1).judge(now, Some(seen(years_ahead, 1))), Verdict::Newer);
    }

    #[test]
    fn a_full_memory_forgets_the_oldest_time() {
        let memory = MemoryReplay::new(2);
        let of = |n| Fingerprint::from_bytes([n; 32]);
        memory.remember(&of(1), seen(30, 0));
        memory.remember(&of(2), seen(10, 0));
        memory.remember(&of(2), seen(40, 0));
        memory.remember(&of(3), seen(50, 0));
        assert_eq!(memory.highest(&of(1)), None);
        assert_eq!(memory.highest(&of(2)), Some(seen(40, 0)));
        assert_eq!(memory.len(), 2);
    }
}
