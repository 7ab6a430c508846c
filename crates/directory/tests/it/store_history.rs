//! The zone as it was under a number that was told, and the differences between two of them; against the trait, so that
//! every store can be held to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kith_directory::store::{Held, RedbStore, Store, StoreError};
use kith_identity::{Fingerprint, Identity};
use kith_sansio::{Rng, SeededRng, Timestamp};
use kith_store::{Database, Table};

use crate::store_walk::{NOW_NUMBER, tell, walk};
use crate::world::{NOW, identity, set, set_with_blobs};

/// Nodes of a zone.
const NODES: u64 = 12;
/// What happens in it.
const STEPS: usize = 120;

type Sets = BTreeMap<Fingerprint, Held>;

/// Takes over the zone, and then nothing but differences, each of which must fit exactly.
struct Secondary {
    number: u64,
    sets: Sets,
}

impl Secondary {
    async fn new(store: &dyn Store, number: u64) -> Secondary {
        Secondary { number, sets: walk(store, number, 5).await }
    }

    /// Takes over what changed up to `number`.
    async fn follow(&mut self, store: &dyn Store, number: u64) {
        let changed = store.changed(self.number, number).await.unwrap().expect("it was told, and is young");
        for of in changed.chunks(3) {
            let differences = store.differences(self.number, number, of.to_vec()).await.unwrap();
            let differences = differences.expect("it is kept");
            assert!(differences.iter().map(|one| &one.fingerprint).eq(of));
            for difference in differences {
                let who = difference.fingerprint;
                assert_eq!(self.sets.get(&who), difference.before.as_ref(), "what is taken away was there");
                match difference.after {
                    Some(after) => drop(self.sets.insert(who, after)),
                    None => drop(self.sets.remove(&who)),
                }
            }
        }
        self.number = number;
    }
}

struct Life<'a> {
    store: &'a dyn Store,
    rng: SeededRng,
    now: Timestamp,
    /// The zone under each number that was told.
    told: BTreeMap<u64, Sets>,
    secondaries: Vec<Secondary>,
}

impl Life<'_> {
    async fn step(&mut self) {
        match self.rng.below(10) {
            0..5 => {
                let who = identity(self.rng.below(NODES));
                // Some announces were under way for long, some sets come twice, some are over soon.
                let late = if self.rng.below(4) == 0 { self.rng.below(40) } else { 0 };
                let made = self.now.minus_secs(self.rng.below(2));
                let set = set(&who, made, 3 + self.rng.below(60) as u32);
                self.store.announce(self.now.minus_secs(late), set).await.unwrap();
            }
            5 => drop(self.store.expire(self.now, 1 + self.rng.below(4) as usize).await.unwrap()),
            6..8 => self.now = self.now.plus_secs(self.rng.below(14)),
            8 => self.tell().await,
            _ => self.look_back().await,
        }
    }

    async fn tell(&mut self) {
        let number = tell(self.store, self.now).await;
        if number == 1 {
            return;
        }
        let zone = walk(self.store, number, 4).await;
        if let Some(before) = self.told.insert(number, zone.clone()) {
            assert_eq!(before, zone, "it has changed under its number");
        }
        let behind = self.rng.below(self.secondaries.len() as u64 + 1) as usize;
        for secondary in self.secondaries.iter_mut().skip(behind) {
            secondary.follow(self.store, number).await;
            assert_eq!(secondary.sets, zone);
        }
        if self.secondaries.len() < 4 {
            self.secondaries.push(Secondary { number, sets: zone });
        }
    }

    /// What was told once is there as it was.
    async fn look_back(&mut self) {
        let which = self.rng.below(self.told.len() as u64 + 1) as usize;
        if let Some((number, zone)) = self.told.iter().nth(which) {
            let limit = 1 + self.rng.below(20) as usize;
            assert_eq!(&walk(self.store, *number, limit).await, zone);
        }
    }
}

pub(crate) async fn secondaries_follow_every_zone_that_is_told(store: &dyn Store, seed: u64) {
    let rng = SeededRng::new(seed);
    let mut life = Life { store, rng, now: NOW, told: BTreeMap::new(), secondaries: Vec::new() };
    for _ in 0..STEPS {
        life.step().await;
    }
    life.now = life.now.plus_secs(30);
    life.tell().await;
    let (last, zone) = life.told.pop_last().unwrap();
    assert_eq!(zone, walk(store, NOW_NUMBER, 7).await, "all changes were told");
    for mut secondary in life.secondaries {
        secondary.follow(store, last).await;
        assert_eq!(secondary.sets, zone);
    }
    for number in 0..NODES {
        let who = identity(number).fingerprint();
        let held = store.held(life.now, who).await.unwrap();
        assert_eq!(held.as_ref(), zone.get(&who).filter(|set| set.is_valid_at(life.now)));
    }
}

/// Announces a set and tells it; its number.
async fn announced(store: &dyn Store, who: &Identity, at: Timestamp) -> u64 {
    store.announce(at, set(who, at, 600)).await.unwrap();
    tell(store, at.plus_secs(11)).await
}

pub(crate) async fn a_number_of_another_store_is_not_known(store: &dyn Store) {
    let alice = identity(1);
    let first = announced(store, &alice, NOW.plus_secs(100)).await;
    let second = announced(store, &alice, NOW.plus_secs(200)).await;
    assert!(store.changed(first, second).await.unwrap().is_some());
    for unknown in [0, 1, first - 1, first + 1, second - 1] {
        assert_eq!(store.changed(unknown, second).await.unwrap(), None, "{unknown} was never told here");
    }
}

pub(crate) async fn another_shape_is_a_change_that_no_difference_spans(store: &dyn Store) {
    let alice = identity(1);
    assert_eq!(store.shape().await.unwrap(), None);
    store.reshape(NOW, [1; 32]).await.unwrap();
    assert_eq!(store.shape().await.unwrap(), Some([1; 32]));
    assert_eq!(tell(store, NOW.plus_secs(60)).await, 1, "the first is no change");
    let first = announced(store, &alice, NOW.plus_secs(100)).await;
    store.reshape(NOW.plus_secs(120), [1; 32]).await.unwrap();
    assert_eq!(tell(store, NOW.plus_secs(140)).await, first, "the same is none either");
    store.reshape(NOW.plus_secs(140), [2; 32]).await.unwrap();
    let other = tell(store, NOW.plus_secs(160)).await;
    assert!(other > first);
    assert_eq!(store.shape().await.unwrap(), Some([2; 32]));
    let second = announced(store, &alice, NOW.plus_secs(200)).await;
    assert_eq!(store.changed(first, second).await.unwrap(), None);
    assert_eq!(store.changed(other, second).await.unwrap().unwrap(), [alice.fingerprint()]);
}

pub(crate) async fn a_history_that_was_cut_begins_later(store: &dyn Store) {
    let alice = identity(1);
    let first = announced(store, &alice, NOW.plus_secs(100)).await;
    let second = announced(store, &alice, NOW.plus_secs(200)).await;
    store.cut(first).await.unwrap();
    assert!(store.changed(first, second).await.unwrap().is_some());
    store.cut(first + 1).await.unwrap();
    store.cut(first).await.unwrap();
    assert_eq!(store.changed(first, second).await.unwrap(), None);
    let third = announced(store, &alice, NOW.plus_secs(300)).await;
    assert_eq!(store.changed(first, third).await.unwrap(), None);
    assert!(store.changed(second, third).await.unwrap().is_some());
}

pub(crate) async fn what_is_too_old_is_forgotten(store: &dyn Store) {
    let (alice, bob) = (identity(1), identity(2));
    let first = announced(store, &alice, NOW).await;
    let second = announced(store, &alice, NOW.plus_secs(20)).await;
    let later = NOW.plus_secs(86_400);
    let third = announced(store, &alice, later.plus_secs(30)).await;
    store.expire(later.plus_secs(30), 100).await.unwrap();
    assert_eq!(store.changed(first, third).await.unwrap(), None, "the change to the second is forgotten");
    assert!(store.changed(second, third).await.unwrap().is_some());
    let fourth = announced(store, &bob, later.plus_secs(60)).await;
    assert!(store.changed(third, fourth).await.unwrap().is_some());
}

/// A node announces large sets again and again, more of them than one part of the store keeps.
pub(crate) async fn a_history_has_a_bound(store: &dyn Store, rounds: u64) {
    let alice = identity(1);
    let first = announced(store, &alice, NOW).await;
    let mut last = first;
    for round in 1..=rounds {
        let at = NOW.plus_secs(round * 10);
        store.announce(at, set_with_blobs(&alice, at, &[4096, 4096, 4000])).await.unwrap();
        last = tell(store, at.plus_secs(11)).await;
        if round == 10 {
            assert!(store.changed(first, last).await.unwrap().is_some());
        }
    }
    assert_eq!(store.changed(first, last).await.unwrap(), None);
    assert_eq!(store.differences(first, last, vec![alice.fingerprint()]).await.unwrap(), None);
    let newest = store.differences(last - 1, last, vec![alice.fingerprint()]).await.unwrap();
    assert_eq!(newest.unwrap().len(), 1, "the newest is there");
}

fn redb() -> Arc<dyn Store> {
    Arc::new(RedbStore::new(Database::in_memory().unwrap()))
}

#[tokio::test]
async fn secondaries_of_the_embedded_store_follow_every_zone_that_is_told() {
    for seed in 0..60 {
        secondaries_follow_every_zone_that_is_told(&*redb(), seed).await;
    }
}

#[tokio::test]
async fn the_embedded_store_has_a_history() {
    a_number_of_another_store_is_not_known(&*redb()).await;
    another_shape_is_a_change_that_no_difference_spans(&*redb()).await;
    a_history_that_was_cut_begins_later(&*redb()).await;
    what_is_too_old_is_forgotten(&*redb()).await;
}

#[tokio::test]
async fn the_history_of_the_embedded_store_has_a_bound() {
    a_history_has_a_bound(&*redb(), 7000).await;
}

#[tokio::test]
async fn the_history_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zone.redb");
    let open = || RedbStore::new(Database::open(&path, 1 << 20).unwrap());
    let (alice, store) = (identity(1), open());
    let first = announced(&store, &alice, NOW).await;
    let mut secondary = Secondary::new(&store, first).await;
    drop(store);
    let store = open();
    let second = announced(&store, &alice, NOW.plus_secs(30)).await;
    drop(store);
    let store = open();
    secondary.follow(&store, second).await;
    assert_eq!(secondary.sets, walk(&store, second, 10).await);
}

#[tokio::test]
async fn a_program_that_keeps_no_history_makes_it_begin_anew() {
    let database = Database::in_memory().unwrap();
    let (alice, store) = (identity(1), RedbStore::new(database.clone()));
    let first = announced(&store, &alice, NOW).await;
    // As it was written when nothing else was known.
    let other = [first + 2, first, 0].map(u64::to_be_bytes).concat();
    let revision = Table("directory-revision");
    database.write(|rows| rows.put(revision, &[], &other)).unwrap();
    let second = announced(&store, &alice, NOW.plus_secs(100)).await;
    for unknown in [first, first + 2] {
        assert_eq!(store.changed(unknown, second).await.unwrap(), None, "{unknown}");
    }
    let third = announced(&store, &alice, NOW.plus_secs(200)).await;
    assert!(store.changed(second, third).await.unwrap().is_some());
}

#[tokio::test]
async fn a_damaged_set_is_in_no_difference() {
    let database = Database::in_memory().unwrap();
    let (alice, store) = (identity(1), RedbStore::new(database.clone()));
    let first = announced(&store, &alice, NOW).await;
    let second = announced(&store, &alice, NOW.plus_secs(20)).await;
    let who = alice.fingerprint();
    database.write(|rows| rows.put(Table("directory-sets"), who.as_bytes(), b"garbage")).unwrap();
    let found = store.differences(first, second, vec![who]).await;
    assert!(matches!(found, Err(StoreError::Damaged(damaged)) if damaged == who), "{found:?}");
    assert!(walk(&store, second, 10).await.is_empty(), "it is left out");
    let third = announced(&store, &alice, NOW.plus_secs(40)).await;
    assert_eq!(store.changed(second, third).await.unwrap(), None, "nobody knows what secondaries have");
    let fourth = announced(&store, &alice, NOW.plus_secs(60)).await;
    let mut secondary = Secondary::new(&store, third).await;
    secondary.follow(&store, fourth).await;
}
