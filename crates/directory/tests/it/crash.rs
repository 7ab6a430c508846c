//! The power goes at every write of a directory's store, while sets come, are replaced and expire.

use std::sync::Arc;

use kith_directory::store::{RedbStore, Store, Stored};
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::{Rng, SeededRng, Timestamp};
use kith_store::crash::Backend;
use kith_store::{Database, Table};

use crate::world::{NOW, identity, set};

const CACHE: usize = 1 << 20;

/// A set that was acknowledged, and at which event of the disk.
struct Acknowledged {
    at: usize,
    set: VerifiedRecordSet,
}

struct History {
    acknowledged: Vec<Acknowledged>,
    /// Sweeps: the event at which each began, and its time.
    swept: Vec<(usize, Timestamp)>,
    end: Timestamp,
}

/// Several nodes announce at once, round by round, and what is over is swept.
async fn live(disk: &Backend, rng: &mut SeededRng) -> History {
    let store = Arc::new(RedbStore::new(Database::open_backend(disk, CACHE).unwrap()));
    let (mut acknowledged, mut swept, mut now) = (Vec::new(), Vec::new(), NOW);
    for round in 0..8 {
        let announces = (0..1 + rng.below(4)).map(|_| {
            let set = set(&identity(rng.below(5)), now.minus_secs(rng.below(3)), 5 + rng.below(60) as u32);
            let (store, disk) = (Arc::clone(&store), disk.clone());
            tokio::spawn(async move {
                let stored = store.announce(now, set.clone()).await.unwrap();
                (stored != Stored::NotNewer).then(|| Acknowledged { at: disk.events(), set })
            })
        });
        for announce in announces.collect::<Vec<_>>() {
            acknowledged.extend(announce.await.unwrap());
        }
        now = now.plus_secs(if round == 5 { 90_000 } else { 10 });
        swept.push((disk.events(), now));
        store.expire(now, 1 + rng.below(5) as usize).await.unwrap();
    }
    History { acknowledged, swept, end: now }
}

fn rows(database: &Database) -> [u64; 3] {
    ["directory-sets", "directory-seen", "directory-due"]
        .map(|name| database.read(|rows| rows.count(Table(name))).unwrap())
}

/// The history has what it says it has, and the newest number that it knows is that of the zone.
fn assert_history_is_whole(database: &Database, what: &str) {
    database
        .read(|rows| {
            let [before, changed] =
                ["directory-before", "directory-changed"].map(|name| rows.count(Table(name)).unwrap());
            let number = |name, at: usize| {
                let row = rows.row(Table(name), &[]).unwrap().unwrap_or(vec![0; 32]);
                u64::from_be_bytes(row[at * 8..][..8].try_into().unwrap())
            };
            assert_eq!([before, changed], [number("directory-kept", 2); 2], "{what}");
            assert_eq!(number("directory-kept", 0), number("directory-revision", 0), "{what}");
            Ok::<_, kith_store::StoreError>(())
        })
        .unwrap();
}

impl History {
    /// Whether nothing ever took the place of `set`.
    fn is_last(&self, set: &VerifiedRecordSet) -> bool {
        let mut others =
            self.acknowledged.iter().filter(|other| other.set.fingerprint() == set.fingerprint());
        others.all(|other| other.set.timestamp() <= set.timestamp())
    }

    /// What was acknowledged before `events` is there unless a later sweep may have taken it, and older sets are
    /// refused; nothing is there by halves.
    async fn assert_kept(&self, image: Vec<u8>, events: usize, seed: u64) {
        let what = format!("seed {seed}, crash after {events} events");
        let database = Database::open_backend(&Backend::with_image(image), CACHE)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_history_is_whole(&database, &what);
        let store = RedbStore::new(database.clone());
        for Acknowledged { set, .. } in self.acknowledged.iter().filter(|one| one.at <= events) {
            let begun = self.swept.iter().filter(|(at, _)| *at <= events).map(|(_, now)| *now).max();
            let begun = begun.unwrap_or(NOW);
            if begun < set.expires() && self.is_last(set) {
                let found = store.lookup(set.timestamp(), &set.fingerprint()).await.unwrap();
                assert_eq!(found.as_ref(), Some(set), "{what}: a set is missing");
            }
            if begun < set.timestamp().plus_secs(86_460) {
                let who = (0..5).map(identity).find(|who| who.fingerprint() == set.fingerprint()).unwrap();
                let older = super::world::set(&who, set.timestamp().minus_secs(1), 60);
                let stored = store.announce(set.timestamp(), older).await.unwrap();
                assert_eq!(stored, Stored::NotNewer, "{what}: the memory of a set is missing");
            }
        }
        // A row that no sweep would ever find is half of something.
        while store.expire(self.end.plus_secs(1_000_000), 1000).await.unwrap() > 0 {}
        assert_eq!(rows(&database), [0; 3], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_every_acknowledged_set_and_nothing_by_halves_wherever_the_power_goes() {
    for seed in 0..3 {
        let mut rng = SeededRng::new(seed);
        let disk = Backend::new();
        drop(Database::open_backend(&disk, CACHE).unwrap());
        let begin = disk.events();
        let history = live(&disk, &mut rng).await;
        for events in begin..=disk.events() {
            history.assert_kept(disk.killed_at(events), events, seed).await;
            history.assert_kept(disk.image_at(events, &mut rng), events, seed).await;
        }
    }
}

/// A disk that fails takes nothing back that was acknowledged, and acknowledges nothing that it lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_reported_and_costs_no_set() {
    for allowed in 0..30 {
        let disk = Backend::new();
        let store = RedbStore::new(Database::open_backend(&disk, CACHE).unwrap());
        let (alice, bob) = (identity(1), identity(2));
        let held = set(&alice, NOW, 600);
        store.announce(NOW, held.clone()).await.unwrap();
        disk.fail_after(allowed, std::io::ErrorKind::StorageFull);
        let late = set(&bob, NOW, 600);
        let told = store.announce(NOW, late.clone()).await;
        drop(store);
        disk.recover();
        let image = disk.killed_at(disk.events());
        let store = RedbStore::new(Database::open_backend(&Backend::with_image(image), CACHE).unwrap());
        assert_eq!(store.lookup(NOW, &alice.fingerprint()).await.unwrap(), Some(held), "{allowed}");
        if told.is_ok() {
            assert_eq!(store.lookup(NOW, &bob.fingerprint()).await.unwrap(), Some(late), "{allowed}");
            return assert!(allowed > 0);
        }
    }
    panic!("thirty writes are not enough for one announce");
}
