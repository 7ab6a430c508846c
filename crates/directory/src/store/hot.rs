use std::time::Duration;

use bytes::Bytes;
use kith_identity::Fingerprint;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, GuardResult};

use crate::defaults::{HOT_BYTES, HOT_ROWS};

/// What an entry takes beside its row, in bytes: key, count of owners, places in the tables.
const ENTRY_BYTES: usize = 160;

/// Rows that were asked for lately, so that finding them again needs no page of the database. In a large zone nearly
/// every name lies on a page of its own, which costs more to fetch than all the rest of an answer.
pub(super) struct Hot(Cache<Fingerprint, Bytes, Weight>);

#[derive(Clone)]
struct Weight;

impl Weighter<Fingerprint, Bytes> for Weight {
    fn weight(&self, _: &Fingerprint, row: &Bytes) -> u64 {
        (row.len() + ENTRY_BYTES) as u64
    }
}

impl Hot {
    pub(super) fn new() -> Hot {
        Hot(Cache::with_weighter(HOT_ROWS, HOT_BYTES, Weight))
    }

    /// The row that is remembered, or else what `read` gives. That there is none is not remembered.
    pub(super) fn row<E>(
        &self,
        fingerprint: &Fingerprint,
        read: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Bytes>, E> {
        // Nobody waits for another who reads the same row: that would hold up a thread that others need.
        let place = match self.0.get_value_or_guard(fingerprint, Some(Duration::ZERO)) {
            GuardResult::Value(row) => return Ok(Some(row)),
            GuardResult::Guard(place) => Some(place),
            GuardResult::Timeout => None,
        };
        let Some(row) = read()?.map(Bytes::from) else { return Ok(None) };
        if let Some(place) = place {
            // Refused where the row was forgotten meanwhile: what was read may be older than the change.
            let _ = place.insert(row.clone());
        }
        Ok(Some(row))
    }

    /// Forgets a row that has changed. Whoever read it before the change does not put it back.
    pub(super) fn forget(&self, fingerprint: &Fingerprint) {
        self.0.remove(fingerprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hot: &Hot, who: &Fingerprint, row: Option<&[u8]>) -> Option<Bytes> {
        hot.row(who, || Ok::<_, ()>(row.map(<[u8]>::to_vec))).unwrap()
    }

    #[test]
    fn a_row_is_read_once_until_it_changes() {
        let (hot, who) = (Hot::new(), Fingerprint::from_bytes([7; 32]));
        assert_eq!(read(&hot, &who, None), None);
        assert_eq!(read(&hot, &who, Some(b"one")).unwrap(), "one", "that it was missing is not remembered");
        assert_eq!(read(&hot, &who, Some(b"two")).unwrap(), "one");
        hot.forget(&who);
        assert_eq!(read(&hot, &who, Some(b"two")).unwrap(), "two");
    }

    #[test]
    fn a_reader_that_comes_late_brings_nothing_old_back() {
        let (hot, who) = (Hot::new(), Fingerprint::from_bytes([7; 32]));
        let late = hot.row(&who, || {
            hot.forget(&who);
            Ok::<_, ()>(Some(b"old".to_vec()))
        });
        assert_eq!(late.unwrap().unwrap(), "old");
        assert_eq!(read(&hot, &who, Some(b"new")).unwrap(), "new");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let hot = Hot::new();
        for number in 0_u32..20_000 {
            let mut who = [0; 32];
            who[..4].copy_from_slice(&number.to_be_bytes());
            read(&hot, &Fingerprint::from_bytes(who), Some(&[0; 8192]));
        }
        assert!(hot.0.weight() <= HOT_BYTES, "{}", hot.0.weight());
        assert!(hot.0.len() > 1000);
    }
}
