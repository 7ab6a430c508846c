//! What a node keeps of its transfers, and what it puts away.

use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use kith_sansio::{Span, Timestamp};
use kith_transfer::TransferId;

use super::journal::{KEPT_SECS, Row};
use super::orders::blank;
use super::receivers::Wish;
use super::*;

fn peer() -> Fingerprint {
    Fingerprint::from_bytes([7; 32])
}

fn hex(number: u8) -> String {
    TransferId([number; 16]).to_string()
}

/// An incoming transfer that was accepted at this time, and goes on with the partial files of `staging`.
fn accepted(into: &Path, number: u8, staging: u8, since: Timestamp) -> Arc<Live> {
    let into = into.display().to_string();
    let job = Job::In { into, overwrite: false, digest: String::new(), staging: hex(staging) };
    let row = Row::new(&peer(), job, since, blank(&hex(number), "in", "north", State::Interrupted));
    Live::new(hex(number), peer(), row)
}

fn parts(into: &Path, staging: u8) -> PathBuf {
    into.join(format!(".kith-partial-{}", hex(staging)))
}

fn transfers() -> Transfers {
    Transfers::new(Database::in_memory().unwrap(), None, None)
}

fn after(secs: u64) -> Now {
    let now = system::now();
    Now { time: now.time + Span::secs(secs), utc: now.utc.plus_secs(secs) }
}

#[tokio::test]
async fn partial_files_that_are_about_to_be_gone_on_with_are_not_put_away() {
    let folder = tempfile::tempdir().unwrap();
    let transfers = transfers();
    let old = accepted(folder.path(), 1, 1, system::utc());
    transfers.insert(&old).unwrap();
    old.end(Err(Failure::failed("the disk is full")));
    transfers.record(&old).await.unwrap();
    std::fs::create_dir(parts(folder.path(), 1)).unwrap();
    // Somebody has seen them, and has not written yet that they are in use.
    let keeping = transfers.keep().await;
    let mut tidying = Box::pin(transfers.tidy(after(KEPT_SECS + 1)));
    assert!((&mut tidying).now_or_never().is_none());
    let new = accepted(folder.path(), 2, 1, system::utc());
    new.enter(State::Moving);
    transfers.insert(&new).unwrap();
    transfers.record(&new).await.unwrap();
    drop(keeping);
    tidying.await.unwrap();
    assert!(parts(folder.path(), 1).exists());
    let rows: Vec<_> = transfers.journal.rows().unwrap().into_iter().map(|(id, _)| id).collect();
    assert!(rows.contains(&hex(2)), "{rows:?}");
}

#[tokio::test]
async fn a_transfer_that_one_connection_carries_for_weeks_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let transfers = transfers();
    let live = accepted(folder.path(), 1, 1, system::utc());
    live.enter(State::Moving);
    transfers.insert(&live).unwrap();
    transfers.record(&live).await.unwrap();
    std::fs::create_dir(parts(folder.path(), 1)).unwrap();
    for hour in 1..=24 * 9 {
        transfers.tidy(after(hour * 3_600)).await.unwrap();
    }
    // The node is killed, and starts again a moment later.
    let journal = transfers.journal.clone();
    journal.prune(after(24 * 9 * 3_600 + 60).utc, &Known::default()).unwrap();
    assert_eq!(journal.rows().unwrap().len(), 1);
    assert!(parts(folder.path(), 1).exists());
    journal.prune(after(24 * 17 * 3_600).utc, &Known::default()).unwrap();
    assert!(!parts(folder.path(), 1).exists(), "nobody came back for a week");
}

#[tokio::test]
async fn one_contact_does_not_take_all_places_for_transfers_that_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let transfers = transfers();
    let from = |number: u8, peer: Fingerprint| {
        let row = accepted(folder.path(), number, number, system::utc()).row();
        let live = Live::new(hex(number), peer, Row { peer: peer.to_string(), ..row });
        live.enter(State::Moving);
        live
    };
    // It accepts and never lets its bytes move, so they stand as moving for ever.
    let taken = (0..100).take_while(|number| transfers.insert(&from(*number, peer())).is_ok()).count();
    assert_eq!(taken, MAX_RUNNING_PER_CONTACT);
    let other = Fingerprint::from_bytes([8; 32]);
    let taken = (100..200).take_while(|number| transfers.insert(&from(*number, other)).is_ok()).count();
    assert_eq!(taken, MAX_RUNNING - MAX_RUNNING_PER_CONTACT);
    // What was accepted before comes back sooner, and is bounded all the same.
    let back = from(255, peer());
    assert!(transfers.has_room_for(&back));
    let more = (200..255).chain(0..20).map(|number| (format!("{number} came back"), from(number, peer())));
    transfers.all().extend(more);
    assert!(!transfers.has_room_for(&back));
    assert!(transfers.has_room_for(&from(255, other)));
}

#[tokio::test]
async fn what_a_full_disk_refused_is_in_the_journal_when_there_is_room() {
    let disk = kith_store::crash::Backend::new();
    let database = Database::open_backend(&disk, 1 << 20).unwrap();
    let transfers = Transfers::new(database, None, None);
    let live = accepted(Path::new("/inbox"), 1, 1, system::utc());
    transfers.insert(&live).unwrap();
    transfers.record(&live).await.unwrap();
    disk.fail_after(0, std::io::ErrorKind::StorageFull);
    live.end(Err(Failure::failed("the disk is full")));
    assert!(transfers.record(&live).await.is_err());
    let state = || transfers.journal.rows().unwrap()[0].1.last.state;
    disk.recover();
    assert_eq!(state(), State::Interrupted);
    transfers.tidy(system::now()).await.unwrap();
    assert_eq!(state(), State::Failed);
}

#[tokio::test]
async fn of_one_contact_some_offers_wait_however_many_come_at_once() {
    let transfers = transfers();
    let offered = |number: u8| {
        let live = accepted(Path::new(""), number, number, system::utc());
        // Nobody is asked yet.
        live.enter(State::Offered);
        live
    };
    let taken = (0..100).take_while(|number| transfers.insert(&offered(*number)).is_ok()).count();
    assert_eq!(taken, MAX_PENDING_PER_CONTACT);
}

#[tokio::test]
async fn a_receiver_takes_what_another_lets_go_of() {
    let transfers = transfers();
    let live = accepted(Path::new("/inbox"), 1, 1, system::utc());
    live.enter(State::Moving);
    transfers.insert(&live).unwrap();
    let wish = Wish { from: None, into: "/inbox".to_owned(), yes: true, overwrite: false };
    let first = transfers.receivers.take(&transfers, &wish).await.unwrap();
    let mut second = Box::pin(transfers.receivers.take(&transfers, &wish));
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    let second = tokio::time::timeout(std::time::Duration::from_secs(60), second).await;
    let (taken, _follower) = second.expect("it hears of it").unwrap();
    assert_eq!(taken.id, live.id);
    assert_eq!(transfers.receivers.count(), 0);
}
