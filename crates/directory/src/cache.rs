//! The client's cache: verified sets, kept beyond their end so that a replayed older one is still refused, and so
//! that a stale one can be served to somebody who asked for that.
//!
//! Plain functions of the time: no clock, no lock.

use std::collections::{BTreeSet, HashMap};

use kith_identity::Fingerprint;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::Timestamp;

use crate::replay::{Seen, Verdict};

/// Why a set does not come into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheRefusal {
    /// It is not valid now.
    #[error("the set is not valid now")]
    NotValid,
    /// A newer one was seen.
    #[error("a newer set was seen")]
    Older,
    /// Another one of the same time was seen.
    #[error("another set of the same time was seen")]
    Different,
}

/// Verified sets by fingerprint, bounded; where it is full, the one that ends first goes.
#[derive(Debug)]
pub struct Cache {
    limit: usize,
    sets: HashMap<Fingerprint, VerifiedRecordSet>,
    by_end: BTreeSet<(Timestamp, Fingerprint)>,
}

impl Cache {
    /// A cache of at most `limit` sets.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Cache { limit: limit.max(1), sets: HashMap::new(), by_end: BTreeSet::new() }
    }

    /// The set of `fingerprint`, if it is valid at `now`.
    #[must_use]
    pub fn valid(&self, fingerprint: &Fingerprint, now: Timestamp) -> Option<&VerifiedRecordSet> {
        self.sets.get(fingerprint).filter(|set| set.is_valid_at(now))
    }

    /// The last set of `fingerprint`, which may have expired.
    #[must_use]
    pub fn last(&self, fingerprint: &Fingerprint) -> Option<&VerifiedRecordSet> {
        self.sets.get(fingerprint)
    }

    /// Takes in `set` unless the replay rule forbids it, given what the replay memory has `seen`. When the answer
    /// is [`Verdict::Newer`], the caller's memory must take it in as well.
    pub fn offer(
        &mut self,
        now: Timestamp,
        set: &VerifiedRecordSet,
        seen: Option<Seen>,
    ) -> Result<Verdict, CacheRefusal> {
        if !set.is_valid_at(now) {
            return Err(CacheRefusal::NotValid);
        }
        let fingerprint = set.fingerprint();
        let own = self.sets.get(&fingerprint).map(Seen::of);
        let known = own.into_iter().chain(seen).filter(|seen| seen.counts(now));
        let newest = known.max_by_key(|seen| seen.timestamp);
        match Seen::of(set).judge(now, newest) {
            Verdict::Older => Err(CacheRefusal::Older),
            Verdict::Different => Err(CacheRefusal::Different),
            verdict => {
                self.put(fingerprint, set.clone());
                Ok(verdict)
            }
        }
    }

    fn put(&mut self, fingerprint: Fingerprint, set: VerifiedRecordSet) {
        let end = set.expires();
        if let Some(old) = self.sets.insert(fingerprint, set) {
            self.by_end.remove(&(old.expires(), fingerprint));
        }
        self.by_end.insert((end, fingerprint));
        while self.sets.len() > self.limit {
            let Some((_, first)) = self.by_end.pop_first() else { break };
            self.sets.remove(&first);
        }
    }

    /// How many sets are kept, stale ones included.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{identity, set};

    const NOW: Timestamp = Timestamp(1_800_000_000);

    #[test]
    fn a_set_is_served_until_its_end_and_stale_only_by_name() {
        let alice = identity(1);
        let mut cache = Cache::new(10);
        assert_eq!(cache.offer(NOW, &set(&alice, NOW, 60), None), Ok(Verdict::Newer));
        let fingerprint = alice.fingerprint();
        assert!(cache.valid(&fingerprint, NOW.plus_secs(59)).is_some());
        assert!(cache.valid(&fingerprint, NOW.plus_secs(60)).is_none());
        assert!(cache.last(&fingerprint).is_some());
    }

    #[test]
    fn an_older_set_is_refused_even_after_the_newer_one_expired() {
        let alice = identity(1);
        let mut cache = Cache::new(10);
        let newer = set(&alice, NOW, 10);
        let older = set(&alice, NOW.minus_secs(100), 86_400);
        cache.offer(NOW, &newer, None).unwrap();
        assert_eq!(cache.offer(NOW.plus_secs(11), &older, None), Err(CacheRefusal::Older));
        let mut empty = Cache::new(10);
        assert_eq!(empty.offer(NOW.plus_secs(11), &older, Some(Seen::of(&newer))), Err(CacheRefusal::Older));
        assert_eq!(empty.offer(NOW.plus_secs(11), &older, None), Ok(Verdict::Newer));
    }

    #[test]
    fn another_set_of_the_same_time_is_refused_and_the_same_one_is_a_repeat() {
        let alice = identity(1);
        let mut cache = Cache::new(10);
        let one = set(&alice, NOW, 100);
        cache.offer(NOW, &one, None).unwrap();
        assert_eq!(cache.offer(NOW, &one, None), Ok(Verdict::Repeat));
        assert_eq!(cache.offer(NOW, &set(&alice, NOW, 101), None), Err(CacheRefusal::Different));
    }

    #[test]
    fn a_full_cache_drops_the_set_that_ends_first() {
        let (alice, bob, carol) = (identity(1), identity(2), identity(3));
        let mut cache = Cache::new(2);
        for (who, ttl) in [(&alice, 50), (&bob, 20), (&carol, 40)] {
            cache.offer(NOW, &set(who, NOW, ttl), None).unwrap();
        }
        assert_eq!(cache.len(), 2);
        assert!(cache.last(&bob.fingerprint()).is_none());
    }
}
