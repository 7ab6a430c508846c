//! Clocks that jump: what is lost, what is not, and that everything is well again once they are right.

use kith_directory::announcer::{Announcer, End, Input, Output, next_timestamp};
use kith_directory::cache::{Cache, CacheRefusal};
use kith_directory::client::{MemoryReplay, ReplayMemory, Seen};
use kith_directory::replay::Verdict;
use kith_directory::store::{RedbStore, Store, Stored};
use kith_sansio::{Machine, Now, SeededRng, Time, Timestamp};
use kith_store::{Database, Table};

use crate::world::{NOW, identity, set};

const YEAR: u64 = 365 * 86_400;

fn now(secs: u64, utc: Timestamp) -> Now {
    Now { time: Time(secs * 1_000_000), utc }
}

#[test]
fn timestamps_grow_when_the_clock_is_set_back_and_start_anew_after_one_that_was_years_ahead() {
    assert_eq!(next_timestamp(NOW.minus_secs(7200), NOW), NOW.plus_secs(1), "two hours back");
    assert_eq!(next_timestamp(NOW, NOW.plus_secs(7200)), NOW.plus_secs(7201), "ahead by two hours before");
    assert_eq!(next_timestamp(NOW, NOW.plus_secs(YEAR)), NOW, "ahead by a year before");
    assert_eq!(next_timestamp(NOW, Timestamp(u64::MAX)), NOW);
}

/// Node, directory and reader run on a clock that is years ahead, as on a computer that starts with a broken one.
#[tokio::test]
async fn a_zone_whose_clock_was_years_ahead_works_again_once_it_is_right() {
    let ahead = NOW.plus_secs(10 * YEAR);
    let alice = identity(1);
    let database = Database::in_memory().unwrap();
    let store = RedbStore::new(database.clone());
    let (mut cache, memory) = (Cache::new(10), MemoryReplay::default());
    let mut offer = |at, set: &_| {
        let verdict = cache.offer(at, set, memory.highest(&alice.fingerprint()))?;
        if verdict == Verdict::Newer {
            memory.remember(&alice.fingerprint(), Seen::of(set));
        }
        Ok::<_, CacheRefusal>(verdict)
    };
    let wrong = set(&alice, next_timestamp(ahead, NOW.minus_secs(10)), 3600);
    assert_eq!(store.announce(ahead, wrong.clone()).await.unwrap(), Stored::Created);
    assert_eq!(offer(ahead, &wrong), Ok(Verdict::Newer));
    assert_eq!(store.lookup(ahead, &alice.fingerprint()).await.unwrap(), Some(wrong.clone()));

    assert_eq!(store.lookup(NOW, &alice.fingerprint()).await.unwrap(), None, "it is from the future");
    assert_eq!(offer(NOW, &wrong), Err(CacheRefusal::NotValid));
    let right = set(&alice, next_timestamp(NOW, wrong.timestamp()), 3600);
    let stored = store.announce(NOW, right.clone()).await.unwrap();
    assert!(matches!(stored, Stored::Created | Stored::Replaced), "{stored:?}");
    assert_eq!(store.lookup(NOW, &alice.fingerprint()).await.unwrap(), Some(right.clone()));
    assert_eq!(offer(NOW, &right), Ok(Verdict::Newer));
    let older = set(&alice, right.timestamp().minus_secs(1), 3600);
    assert_eq!(store.announce(NOW, older.clone()).await.unwrap(), Stored::NotNewer, "the rule holds again");
    assert_eq!(offer(NOW, &older), Err(CacheRefusal::Older));
    let rows = |name| database.read(|rows| rows.count(Table(name))).unwrap();
    assert_eq!([rows("directory-sets"), rows("directory-seen"), rows("directory-due")], [1, 0, 1]);
}

#[tokio::test]
async fn a_directory_whose_clock_is_set_back_goes_on_refusing_older_sets() {
    let store = RedbStore::new(Database::in_memory().unwrap());
    let alice = identity(1);
    let (old, new) = (set(&alice, NOW.minus_secs(3000), 3600), set(&alice, NOW, 3600));
    store.announce(NOW, new.clone()).await.unwrap();
    let back = NOW.minus_secs(2990);
    assert_eq!(store.announce(back, old).await.unwrap(), Stored::NotNewer);
    assert_eq!(store.lookup(back, &alice.fingerprint()).await.unwrap(), None, "nothing rather than old");
    assert_eq!(store.lookup(NOW, &alice.fingerprint()).await.unwrap(), Some(new));
}

/// What a clock that is ahead has swept away is gone; the next announce brings it back.
#[tokio::test]
async fn a_directory_that_was_days_ahead_for_a_moment_takes_the_next_announce() {
    let store = RedbStore::new(Database::in_memory().unwrap());
    let alice = identity(1);
    let held = set(&alice, NOW, 3600);
    store.announce(NOW, held.clone()).await.unwrap();
    while store.expire(NOW.plus_secs(3 * 86_400), 100).await.unwrap() > 0 {}
    let again = set(&alice, next_timestamp(NOW.plus_secs(5), held.timestamp()), 3600);
    assert_eq!(store.announce(NOW.plus_secs(5), again.clone()).await.unwrap(), Stored::Created);
    assert_eq!(store.lookup(NOW.plus_secs(5), &alice.fingerprint()).await.unwrap(), Some(again));
}

#[tokio::test]
async fn a_repeat_brings_back_what_a_clock_that_was_hours_ahead_swept_away() {
    let store = RedbStore::new(Database::in_memory().unwrap());
    let held = set(&identity(1), NOW, 3600);
    store.announce(NOW, held.clone()).await.unwrap();
    while store.expire(NOW.plus_secs(7_200), 100).await.unwrap() > 0 {}
    assert_eq!(store.lookup(NOW, &held.fingerprint()).await.unwrap(), None);
    store.announce(NOW, held.clone()).await.unwrap();
    assert_eq!(store.lookup(NOW, &held.fingerprint()).await.unwrap(), Some(held.clone()));
    assert_eq!(store.announce(NOW, held).await.unwrap(), Stored::Repeated);
}

fn announced(announcer: &mut Announcer) -> Option<u64> {
    let mut last = None;
    while let Some(output) = announcer.poll_output() {
        let Output::Announce(attempt) = output else { panic!("{output:?}") };
        assert_eq!(last.replace(attempt), None, "one at a time");
    }
    last
}

fn started(rng: &mut SeededRng) -> Announcer {
    let mut announcer = Announcer::new();
    announcer.handle_input(now(0, NOW), Input::Changed(3600), rng);
    let attempt = announced(&mut announcer).unwrap();
    announcer.handle_input(now(0, NOW), Input::Ended { attempt, end: End::Taken }, rng);
    announcer
}

#[test]
fn an_announcer_whose_wall_clock_is_set_back_announces_no_later_than_at_half_the_ttl() {
    let mut rng = SeededRng::new(1);
    let mut announcer = started(&mut rng);
    let back = NOW.minus_secs(10 * YEAR);
    for secs in 1..=1800 {
        announcer.handle_timeout(now(secs, back.plus_secs(secs)), &mut rng);
        if announced(&mut announcer).is_some() {
            return assert!(secs >= 1350, "{secs}");
        }
    }
    panic!("no announce in half the ttl");
}

#[test]
fn an_announcer_whose_wall_clock_jumps_ahead_announces_within_a_minute_and_not_again_and_again() {
    let mut rng = SeededRng::new(1);
    let mut announcer = started(&mut rng);
    let mut times = Vec::new();
    for secs in 1..=1400 {
        let at = now(secs, NOW.plus_secs(YEAR + secs));
        announcer.handle_timeout(at, &mut rng);
        if let Some(attempt) = announced(&mut announcer) {
            times.push(secs);
            announcer.handle_input(at, Input::Ended { attempt, end: End::Taken }, &mut rng);
        }
    }
    assert_eq!(times.len(), 1, "{times:?}");
    assert!(times[0] <= 60);
}
