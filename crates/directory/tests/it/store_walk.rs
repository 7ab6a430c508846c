//! What a zone transfer needs of a store: a walk through all sets, and when the zone changed. Each test is written
//! against the trait, so that every store can be held to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kith_directory::store::{Held, RedbStore, Revision, Store};
use kith_identity::Fingerprint;
use kith_sansio::Timestamp;
use kith_store::Database;

use crate::world::{NOW, identity, set};

fn redb() -> Arc<dyn Store> {
    Arc::new(RedbStore::new(Database::in_memory().unwrap()))
}

/// A number above all that are told: the zone as it is now.
pub(crate) const NOW_NUMBER: u64 = u64::MAX;

/// All sets of the zone under a number that a walk meets, none of them twice.
pub(crate) async fn walk(store: &dyn Store, number: u64, limit: usize) -> BTreeMap<Fingerprint, Held> {
    let (mut met, mut after) = (BTreeMap::new(), None);
    loop {
        let page = store.page(number, after, limit).await.unwrap();
        assert!(page.sets.len() <= limit);
        for (fingerprint, set) in page.sets {
            assert!(after.is_none_or(|after| fingerprint > after), "out of order");
            assert_eq!(met.insert(fingerprint, set), None, "met twice");
        }
        after = page.next;
        if after.is_none() {
            return met;
        }
    }
}

pub(crate) async fn a_walk_meets_every_set_once_whatever_the_size_of_its_pages(store: &dyn Store) {
    assert!(walk(store, NOW_NUMBER, 10).await.is_empty());
    let (mut all, mut lasting) = (BTreeMap::new(), BTreeMap::new());
    for seed in 0..25 {
        let ttl = if seed % 5 == 0 { 10 } else { 600 };
        let set = set(&identity(seed), NOW.minus_secs(seed), ttl);
        store.announce(NOW.minus_secs(seed), set.clone()).await.unwrap();
        all.insert(set.fingerprint(), Held::of(&set));
        if ttl == 600 {
            lasting.insert(set.fingerprint(), Held::of(&set));
        }
    }
    for limit in [1, 7, 24, 25, 26, 1000] {
        assert_eq!(walk(store, NOW_NUMBER, limit).await, all, "pages of {limit}");
    }
    store.expire(NOW.plus_secs(20), 1000).await.unwrap();
    for limit in [1, 3, 20, 1000] {
        assert_eq!(walk(store, NOW_NUMBER, limit).await, lasting, "pages of {limit}");
    }
}

pub(crate) async fn a_walk_goes_on_behind_a_set_that_was_replaced_or_went_away(store: &dyn Store) {
    for seed in 0..6 {
        store.announce(NOW, set(&identity(seed), NOW, if seed < 3 { 10 } else { 600 })).await.unwrap();
    }
    let all = walk(store, NOW_NUMBER, 100).await;
    for (seed, later) in (0..6).flat_map(|seed| [(seed, NOW), (seed, NOW.plus_secs(20))]) {
        let after = Some(identity(seed).fingerprint());
        store.expire(later, 100).await.unwrap();
        let rest = store.page(NOW_NUMBER, after, 100).await.unwrap();
        assert_eq!(rest.next, None);
        assert!(
            rest.sets
                .iter()
                .all(|(fingerprint, _)| all.contains_key(fingerprint) && Some(*fingerprint) != after)
        );
    }
    let replaced = set(&identity(5), NOW.plus_secs(30), 600);
    store.announce(NOW.plus_secs(30), replaced.clone()).await.unwrap();
    let met = walk(store, NOW_NUMBER, 2).await;
    assert_eq!(met.len(), 3);
    assert_eq!(met[&replaced.fingerprint()], Held::of(&replaced));
}

/// What a directory does before it tells a number.
pub(crate) async fn tell(store: &dyn Store, now: Timestamp) -> u64 {
    let revision = store.revision().await.unwrap();
    let told = revision.told(now);
    if revision.is_open(told) {
        store.seal(told).await.unwrap();
        assert!(!store.revision().await.unwrap().is_open(told));
    }
    told
}

pub(crate) async fn a_change_that_comes_late_takes_a_number_that_was_not_told(store: &dyn Store) {
    let at = |secs| NOW.plus_secs(secs);
    // Several, so that they lie in different parts of a store.
    for seed in 0..4 {
        store.announce(at(seed), set(&identity(seed), at(0), 600)).await.unwrap();
    }
    let mut before = tell(store, at(11)).await;
    for seed in 0..12 {
        // Under way since before the batch was told: a server that stood still, a commit on a slow disk.
        store.announce(at(5), set(&identity(seed), at(5), 600)).await.unwrap();
        let after = tell(store, at(600 + 20 * seed)).await;
        assert!(after > before, "{before} then {after}");
        before = after;
    }
    store.expire(at(605), 100).await.unwrap();
    assert!(tell(store, at(900)).await > before, "removed late");
}

pub(crate) async fn every_change_raises_the_revision_and_nothing_else_does(store: &dyn Store) {
    let told = async |now| tell(store, now).await;
    assert_eq!(store.revision().await.unwrap(), Revision::default());
    let at = |secs| NOW.plus_secs(secs);
    store.announce(at(0), set(&identity(1), at(0), 25)).await.unwrap();
    assert_eq!(told(at(11)).await, NOW.0 / 10, "created");
    store.announce(at(11), set(&identity(1), at(0), 25)).await.unwrap();
    store.announce(at(12), set(&identity(1), at(0).minus_secs(5), 600)).await.unwrap();
    assert_eq!(told(at(21)).await, NOW.0 / 10, "a repeat and a replay change nothing");
    store.announce(at(22), set(&identity(1), at(22), 25)).await.unwrap();
    assert_eq!(told(at(31)).await, NOW.0 / 10 + 2, "replaced");
    assert_eq!(store.expire(at(40), 100).await.unwrap(), 0);
    assert_eq!(told(at(51)).await, NOW.0 / 10 + 2, "nothing expired");
    assert_eq!(store.expire(at(52), 100).await.unwrap(), 1);
    assert_eq!(told(at(61)).await, NOW.0 / 10 + 5, "expired");
    // Not every store counts the memories that go.
    store.expire(at(200_000), 100).await.unwrap();
    assert_eq!(told(at(200_011)).await, NOW.0 / 10 + 5, "only a memory went");
    store.announce(at(300_000), set(&identity(2), at(300_000), 25)).await.unwrap();
    told(at(300_011)).await;
    for (seed, earlier) in [(3, 200_020), (4, 200_040)] {
        let before = told(at(earlier)).await;
        store.announce(at(earlier), set(&identity(seed), at(earlier), 25)).await.unwrap();
        assert!(told(at(earlier)).await > before, "changed after a clock was ahead");
    }
}

#[tokio::test]
async fn the_embedded_store_can_be_walked() {
    a_walk_meets_every_set_once_whatever_the_size_of_its_pages(&*redb()).await;
    a_walk_goes_on_behind_a_set_that_was_replaced_or_went_away(&*redb()).await;
}

#[tokio::test]
async fn the_embedded_store_tells_when_the_zone_changed() {
    a_change_that_comes_late_takes_a_number_that_was_not_told(&*redb()).await;
    every_change_raises_the_revision_and_nothing_else_does(&*redb()).await;
}

#[tokio::test]
async fn the_revision_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zone.redb");
    let store = RedbStore::new(Database::open(&path, 1 << 20).unwrap());
    store.announce(NOW, set(&identity(1), NOW, 60)).await.unwrap();
    store.seal(NOW.0 / 10).await.unwrap();
    let before = store.revision().await.unwrap();
    drop(store);
    let store = RedbStore::new(Database::open(&path, 1 << 20).unwrap());
    assert_eq!(store.revision().await.unwrap(), before);
    assert_eq!((before.newest, before.sealed), (NOW.0 / 10, NOW.0 / 10));
}
