use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_identity::Fingerprint;
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_sansio::Timestamp;

use super::StoreError;
use crate::generations::Generations;

/// Sets that were verified lately, so that their signatures are not looked at twice. A clone is the same one.
#[derive(Clone)]
pub(super) struct Recent(Arc<Mutex<Generations<Fingerprint, VerifiedRecordSet>>>);

impl Recent {
    pub(super) fn new(limit: usize) -> Recent {
        Recent(Arc::new(Mutex::new(Generations::new(limit))))
    }

    fn sets(&self) -> MutexGuard<'_, Generations<Fingerprint, VerifiedRecordSet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, fingerprint: &Fingerprint) -> Option<VerifiedRecordSet> {
        self.sets().peek(fingerprint).cloned()
    }

    /// Never puts an older set over a newer one: a reader may come late with what it read.
    pub(super) fn put(&self, set: &VerifiedRecordSet) {
        let mut sets = self.sets();
        let newer = sets.peek(&set.fingerprint()).is_some_and(|known| known.timestamp() > set.timestamp());
        if !newer {
            sets.put(set.fingerprint(), set.clone());
        }
    }
}

/// The set in bytes that come out of a store. Whether its time is now is for the caller to ask: a set that is ahead of
/// a clock which was set back is no damage.
pub(super) fn stored(fingerprint: &Fingerprint, bytes: &[u8]) -> Result<VerifiedRecordSet, StoreError> {
    let set = RecordSet::from_bytes(bytes).ok();
    let whenever = Timestamp(u64::MAX);
    set.and_then(|set| set.verify_stale(fingerprint, whenever).ok()).ok_or(StoreError::Damaged(*fingerprint))
}
