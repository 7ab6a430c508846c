//! The highest timestamp seen of each fingerprint, kept in `node.redb` beyond the end of its set.

use std::ops::ControlFlow;

use kith_directory::client::{MemoryReplay, ReplayMemory, Seen};
use kith_identity::Fingerprint;
use kith_sansio::{Timestamp, system};
use kith_store::{Committer, Database, StoreError, Table};

use crate::failure::{Failure, Result, chain};

const TABLE: Table = Table("seen");

/// Replay memory in memory and on disk.
pub(crate) struct Replay {
    memory: MemoryReplay,
    committer: Committer,
}

impl Replay {
    /// Reads the rows that still matter and forgets the others.
    pub(crate) fn open(database: Database) -> Result<Replay> {
        let memory = MemoryReplay::default();
        let now = system::utc();
        let mut over = Vec::new();
        let read = database.read(|tables| {
            tables.scan(TABLE, &[], |key, value| {
                match row(key, value) {
                    Some((fingerprint, seen)) if seen.forget_at() > now => {
                        memory.remember(&fingerprint, seen);
                    }
                    _ => over.push(key.to_vec()),
                }
                ControlFlow::Continue(())
            })
        });
        read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        let committer = Committer::start(database);
        committer.submit(
            move |tables| over.iter().try_for_each(|key| tables.remove(TABLE, key).map(|_| ())),
            |_| {},
        );
        Ok(Replay { memory, committer })
    }
}

/// Key: fingerprint; value: `u64 timestamp ‖ 32 bytes digest`.
fn row(key: &[u8], value: &[u8]) -> Option<(Fingerprint, Seen)> {
    let (time, digest) = value.split_first_chunk::<8>()?;
    let seen = Seen { timestamp: Timestamp(u64::from_be_bytes(*time)), digest: digest.try_into().ok()? };
    Some((Fingerprint::from_bytes(key.try_into().ok()?), seen))
}

impl ReplayMemory for Replay {
    fn highest(&self, fingerprint: &Fingerprint) -> Option<Seen> {
        self.memory.highest(fingerprint)
    }

    fn remember(&self, fingerprint: &Fingerprint, seen: Seen) {
        self.memory.remember(fingerprint, seen);
        let key = *fingerprint;
        let mut value = seen.timestamp.0.to_be_bytes().to_vec();
        value.extend_from_slice(&seen.digest);
        self.committer.submit(
            move |tables| tables.put(TABLE, key.as_bytes(), &value),
            |noted| {
                if let Err(error) = noted {
                    tracing::error!(%error, "a timestamp cannot be remembered");
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_after_a_restart() {
        let database = Database::in_memory().unwrap();
        let peer = Fingerprint::from_bytes([7; 32]);
        let seen = Seen { timestamp: system::utc(), digest: [9; 32] };
        let first = Replay::open(database.clone()).unwrap();
        first.remember(&peer, seen);
        drop(first);
        assert_eq!(Replay::open(database).unwrap().highest(&peer), Some(seen));
    }

    #[test]
    fn rows_that_no_set_can_match_any_more_are_forgotten() {
        let database = Database::in_memory().unwrap();
        let peer = Fingerprint::from_bytes([7; 32]);
        let first = Replay::open(database.clone()).unwrap();
        first.remember(&peer, Seen { timestamp: Timestamp(1_000), digest: [9; 32] });
        drop(first);
        assert_eq!(Replay::open(database).unwrap().highest(&peer), None);
    }
}
