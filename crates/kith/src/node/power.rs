//! The power goes at every write of the node's database: what a command was told is done is there afterwards.

use std::sync::Arc;

use kith_connect::Trust;
use kith_directory::client::{ReplayMemory, Seen};
use kith_identity::{Fingerprint, Identity, Ni};
use kith_sansio::{SeededRng, Timestamp, system};
use kith_store::Database;
use kith_store::crash::Backend;

use super::contacts::Book;
use super::own::Own;
use super::replay::Replay;
use crate::api::shapes::NewContact;

const CACHE: usize = 1 << 20;

fn identity(seed: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(seed))
}

fn open(disk: &Backend) -> (Book, Own, Replay) {
    let database = Database::open_backend(disk, CACHE).unwrap();
    let own = Own::open(Arc::new(identity(0)), database.clone(), 3600).unwrap();
    (Book::open(database.clone()).unwrap(), own, Replay::open(database).unwrap())
}

/// Contacts with their groups, and the blob: what commands have set.
type Said = (Vec<(String, Vec<String>)>, Vec<Vec<u8>>);

fn said(book: &Book, own: &Own) -> Said {
    let groups = |contact: &kith_identity::contacts::Contact| {
        contact.groups.iter().map(|group| group.as_str().to_owned()).collect()
    };
    let contacts = book.list().iter().map(|one| (one.name.to_string(), groups(one))).collect();
    (contacts, own.draft().blobs)
}

/// One step: the disk's events before and after it, and what held after it.
struct Step {
    begun: usize,
    done: usize,
    said: Said,
    timestamp: Timestamp,
}

fn new(name: &str, seed: u64) -> NewContact {
    let ni = Ni::new(identity(seed).fingerprint(), None).to_string();
    NewContact { name: name.to_owned(), ni, at: vec!["quic://192.0.2.1:7117".to_owned()] }
}

fn live(disk: &Backend, peer: &Fingerprint, seen: &[Seen]) -> Vec<Step> {
    let (book, own, replay) = open(disk);
    let mut steps = Vec::new();
    let actions: [&dyn Fn(); 8] = [
        &|| drop(book.add(&new("alice", 1)).unwrap()),
        &|| own.set_blob(Some(b"one".to_vec())).unwrap(),
        &|| drop(book.add(&new("bob", 2)).unwrap()),
        &|| drop(book.join("alice", "friends").unwrap()),
        &|| own.set_blob(Some(vec![7; 3000])).unwrap(),
        &|| drop(book.rename("bob", "robert").unwrap()),
        &|| drop(book.remove("alice").unwrap()),
        &|| own.set_blob(None).unwrap(),
    ];
    for (number, action) in actions.into_iter().enumerate() {
        let begun = disk.events();
        book.knocked(&identity(50 + number as u64).fingerprint(), "192.0.2.9:1".parse().unwrap());
        replay.remember(peer, seen[number]);
        action();
        let timestamp = own.clock().next(Timestamp(1_000 + number as u64 / 3)).unwrap();
        steps.push(Step { begun, done: disk.events(), said: said(&book, &own), timestamp });
    }
    steps
}

#[test]
fn a_node_keeps_contacts_blob_and_timestamps_wherever_the_power_goes() {
    let peer = Fingerprint::from_bytes([9; 32]);
    let now = system::utc();
    let seen: Vec<_> = (0..8).map(|n| Seen { timestamp: now.plus_secs(n), digest: [n as u8; 32] }).collect();
    let disk = Backend::new();
    let empty = {
        let (book, own, _) = open(&disk);
        said(&book, &own)
    };
    let begin = disk.events();
    let steps = live(&disk, &peer, &seen);
    let mut rng = SeededRng::new(3);
    for events in begin..=disk.events() {
        for image in [disk.killed_at(events), disk.image_at(events, &mut rng)] {
            let (book, own, replay) = open(&Backend::with_image(image));
            let acknowledged = steps.iter().rposition(|step| step.done <= events);
            let before = acknowledged.map_or(&empty, |at| &steps[at].said);
            let later = steps.iter().skip(acknowledged.map_or(0, |at| at + 1));
            let mut allowed = later.take_while(|step| step.begun <= events).map(|step| &step.said);
            let found = said(&book, &own);
            assert!(
                found == *before || allowed.any(|said| *said == found),
                "after {events} events: {found:?} instead of {before:?}"
            );
            let last = acknowledged.map_or(Timestamp(0), |at| steps[at].timestamp);
            assert!(own.clock().next(Timestamp(0)).unwrap() > last, "after {events} events");
            let remembered = replay.highest(&peer);
            assert!(
                remembered.is_none_or(|one| seen.contains(&one)),
                "after {events} events: {remembered:?}"
            );
            assert!(book.requests().iter().all(|knock| knock.ni.parse::<Ni>().is_ok()));
        }
    }
}
