use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kith_identity::Fingerprint;

use crate::defaults::{HOT_ROW_BYTES, HOT_ROWS};
use crate::generations::Generations;

/// Locks, so that tasks on several processors seldom wait for each other.
const SHARDS: usize = 16;

/// Rows that were asked for lately, so that finding them again needs no page of the database. In a large zone nearly
/// every name lies on a page of its own, which costs more to fetch than all the rest of an answer.
pub(super) struct Hot {
    shards: [Mutex<Shard>; SHARDS],
}

struct Shard {
    rows: Generations<Fingerprint, Bytes>,
    /// Counts what was forgotten, so that a reader who comes late with an old row leaves no trace.
    forgotten: u64,
}

impl Hot {
    pub(super) fn new() -> Hot {
        let shard = || Shard { rows: Generations::new(HOT_ROWS / SHARDS), forgotten: 0 };
        Hot { shards: std::array::from_fn(|_| Mutex::new(shard())) }
    }

    fn shard(&self, fingerprint: &Fingerprint) -> MutexGuard<'_, Shard> {
        let mut hasher = DefaultHasher::new();
        fingerprint.hash(&mut hasher);
        let shard = &self.shards[hasher.finish() as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row that is remembered, or else what `read` gives.
    pub(super) fn row<E>(
        &self,
        fingerprint: &Fingerprint,
        read: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Bytes>, E> {
        let before = {
            let mut shard = self.shard(fingerprint);
            if let Some(row) = shard.rows.peek(fingerprint).cloned() {
                shard.rows.touch(fingerprint);
                return Ok(Some(row));
            }
            shard.forgotten
        };
        let Some(row) = read()?.map(Bytes::from) else { return Ok(None) };
        if row.len() <= HOT_ROW_BYTES {
            let mut shard = self.shard(fingerprint);
            if shard.forgotten == before {
                shard.rows.put(*fingerprint, row.clone());
            }
        }
        Ok(Some(row))
    }

    /// Forgets a row that has changed. Whoever read it before the change does not put it back.
    pub(super) fn forget(&self, fingerprint: &Fingerprint) {
        let mut shard = self.shard(fingerprint);
        shard.forgotten += 1;
        shard.rows.remove(fingerprint);
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
    fn large_rows_take_no_room() {
        let (hot, who) = (Hot::new(), Fingerprint::from_bytes([7; 32]));
        let large = vec![0; HOT_ROW_BYTES + 1];
        assert_eq!(read(&hot, &who, Some(&large)).unwrap(), large);
        assert_eq!(read(&hot, &who, None), None);
    }
}
