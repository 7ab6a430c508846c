//! What was acknowledged outlives the server: the sets, and the memory of the newest ones.

use std::sync::Arc;

use kith_directory::store::{Held, RedbStore, Store, Stored};
use kith_sansio::SeededRng;
use kith_store::Database;
use kith_store::crash::Backend;

use crate::world::{NOW, Zone, identity, in_time, set, utc};

#[tokio::test]
async fn sets_and_replay_memory_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zone.redb");
    let (alice, bob) = (identity(1), identity(2));
    let (of_alice, of_bob) = (set(&alice, utc(), 600), set(&bob, utc(), 600));
    let zone = Zone::at(&path).await;
    assert_eq!(zone.put(&alice, &of_alice).await.status, 201);
    assert_eq!(zone.put(&bob, &of_bob).await.status, 201);
    zone.stop().await;
    let zone = Zone::at(&path).await;
    assert_eq!(zone.get(&alice, "").await.body, of_alice.to_json());
    assert_eq!(zone.put(&alice, &of_alice).await.status, 204, "a repeat");
    assert_eq!(zone.put(&alice, &set(&alice, of_alice.timestamp(), 601)).await.status, 409);
    assert_eq!(zone.put(&alice, &set(&alice, of_alice.timestamp().minus_secs(1), 600)).await.status, 409);
    assert_eq!(zone.put(&bob, &set(&bob, of_bob.timestamp().plus_secs(1), 600)).await.status, 204);
    zone.stop().await;
}

#[tokio::test]
async fn expired_sets_leave_the_answers_at_once_and_the_store_when_swept() {
    let database = Database::in_memory().unwrap();
    let store = RedbStore::new(database.clone());
    let rows = |name: &'static str| database.read(|rows| rows.count(kith_store::Table(name))).unwrap();
    let (alice, bob) = (identity(1), identity(2));
    let fingerprint = alice.fingerprint();
    assert_eq!(store.announce(NOW, set(&alice, NOW, 10)).await.unwrap(), Stored::Created);
    assert_eq!(store.announce(NOW, set(&alice, NOW.plus_secs(1), 10)).await.unwrap(), Stored::Replaced);
    store.announce(NOW, set(&bob, NOW, 1000)).await.unwrap();
    assert!(store.lookup(NOW.plus_secs(10), &fingerprint).await.unwrap().is_some());
    assert!(store.lookup(NOW.plus_secs(11), &fingerprint).await.unwrap().is_none());
    assert_eq!((rows("directory-sets"), rows("directory-seen"), rows("directory-due")), (2, 0, 2));
    assert_eq!(store.expire(NOW.plus_secs(10), 100).await.unwrap(), 0);
    assert_eq!(store.expire(NOW.plus_secs(11), 100).await.unwrap(), 1);
    assert_eq!((rows("directory-sets"), rows("directory-seen"), rows("directory-due")), (1, 1, 2));
    let late = NOW.plus_secs(20);
    assert_eq!(store.announce(late, set(&alice, NOW, 100)).await.unwrap(), Stored::NotNewer);
    assert_eq!(
        store.announce(late, set(&alice, late, 100)).await.unwrap(),
        Stored::Created,
        "there was none"
    );
    let forgotten = NOW.plus_secs(200_000);
    assert_eq!((rows("directory-sets"), rows("directory-seen"), rows("directory-due")), (2, 0, 2));
    assert_eq!(store.expire(forgotten, 1).await.unwrap(), 1, "no more than asked for at a time");
    assert_eq!(store.expire(forgotten, 1).await.unwrap(), 1);
    assert_eq!(store.expire(forgotten, 1).await.unwrap(), 0);
    assert_eq!((rows("directory-sets"), rows("directory-seen"), rows("directory-due")), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_is_found_at_once_however_many_read_meanwhile() {
    let store = Arc::new(RedbStore::new(Database::in_memory().unwrap()));
    let alice = identity(1);
    let stop = tokio_util::sync::CancellationToken::new();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, stop, alice) = (Arc::clone(&store), stop.clone(), alice.fingerprint());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    store.held(NOW, alice).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for step in 0..300 {
        let newest = set(&alice, NOW.minus_secs(3600 - step), 80_000);
        assert_ne!(store.announce(NOW, newest.clone()).await.unwrap(), Stored::NotNewer);
        let held = store.held(NOW, alice.fingerprint()).await.unwrap();
        assert_eq!(held, Some(Held::of(&newest)), "step {step}");
    }
    stop.cancel();
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn of_many_announces_at_once_the_newest_remains() {
    let store = Arc::new(RedbStore::new(Database::in_memory().unwrap()));
    let alice = identity(1);
    let sets: Vec<_> = (0..40).map(|n| set(&alice, NOW.plus_secs(n * 7 % 40), 600)).collect();
    let tasks: Vec<_> = sets
        .into_iter()
        .map(|set| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.announce(NOW, set).await.unwrap() })
        })
        .collect();
    for task in tasks {
        in_time(task).await.unwrap();
    }
    let last = store.lookup(NOW, &alice.fingerprint()).await.unwrap().unwrap();
    assert_eq!(last.timestamp(), NOW.plus_secs(39));
}

/// Every state that a power cut can leave behind holds everything that was acknowledged before it.
#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut() {
    let disk = Backend::new();
    let store = RedbStore::new(Database::open_backend(&disk, 1 << 20).unwrap());
    let begin = disk.events();
    let mut acknowledged = Vec::new();
    for seed in 0..4 {
        let set = set(&identity(seed % 3), NOW.plus_secs(seed), 600);
        store.announce(NOW, set.clone()).await.unwrap();
        acknowledged.push((disk.events(), set));
    }
    let mut rng = SeededRng::new(5);
    for events in begin..=disk.events() {
        let image = Backend::with_image(disk.image_at(events, &mut rng));
        let after = RedbStore::new(Database::open_backend(&image, 1 << 20).unwrap());
        for (_, set) in acknowledged.iter().filter(|(at, _)| *at <= events) {
            let found = after.lookup(NOW, &set.fingerprint()).await.unwrap().unwrap();
            assert!(found.timestamp() >= set.timestamp(), "after {events} events");
            let replayed = super::world::set(&identity(set.timestamp().0 - NOW.0), NOW.minus_secs(1), 600);
            if replayed.fingerprint() == set.fingerprint() {
                assert_eq!(after.announce(NOW, replayed).await.unwrap(), Stored::NotNewer);
            }
        }
    }
}
