//! The power goes at every write: what a node of the DHT has acknowledged is there afterwards. And what contacts make of
//! their contributions.

use std::sync::mpsc::channel;

use kith_dht::Day;
use kith_identity::membership::NodeId;
use kith_identity::{Fingerprint, Identity, PublicKey};
use kith_sansio::SeededRng;
use kith_store::Database;
use kith_store::crash::Backend;

use super::pairs::{self, Pairs};
use super::rows::Rows;

const CACHE: usize = 1 << 20;

fn key(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

#[test]
fn what_was_acknowledged_is_there_wherever_the_power_goes() {
    let network = Fingerprint::from_bytes([5; 32]);
    let disk = Backend::new();
    let mut steps = Vec::new();
    let begin;
    {
        let rows = Rows::open(Database::open_backend(&disk, CACHE).unwrap());
        begin = disk.events();
        let shelf = rows.shelf(network);
        for number in 0..12u8 {
            let begun = disk.events();
            let (sender, written) = channel();
            // Each key is written three times over.
            let row = vec![number; 40];
            shelf.put(&key(number / 3), row.clone(), Box::new(move |is_safe| sender.send(is_safe).unwrap()));
            assert!(written.recv().unwrap());
            steps.push((begun, disk.events(), key(number / 3), row));
        }
    }
    let mut rng = SeededRng::new(4);
    for events in begin..=disk.events() {
        for image in [disk.killed_at(events), disk.image_at(events, &mut rng)] {
            let rows = Rows::open(Database::open_backend(&Backend::with_image(image), CACHE).unwrap());
            let stored = rows.stored(&network).unwrap().values;
            for (_, done, name, row) in steps.iter().filter(|step| step.1 <= events) {
                // Another one may have been on its way to the same key.
                let is_later = |other: &Vec<u8>| {
                    steps
                        .iter()
                        .any(|step| step.2 == *name && step.1 > *done && step.0 <= events && step.3 == *other)
                };
                let found = stored.iter().find(|(key, _)| key == name).map(|(_, row)| row);
                assert!(
                    found.is_some_and(|found| found == row || is_later(found)),
                    "after {events} events: {found:?}"
                );
            }
        }
    }
}

#[test]
fn another_network_finds_nothing_of_the_first() {
    let database = Database::in_memory().unwrap();
    let (first, other) = (Fingerprint::from_bytes([5; 32]), Fingerprint::from_bytes([6; 32]));
    let rows = Rows::open(database);
    let (sender, written) = channel();
    rows.shelf(first).put(&key(1), vec![1], Box::new(move |is_safe| sender.send(is_safe).unwrap()));
    assert!(written.recv().unwrap());
    assert_eq!(rows.stored(&first).unwrap().values, [(key(1), vec![1])]);
    assert!(rows.stored(&other).unwrap().values.is_empty());
    assert!(rows.stored(&first).unwrap().values.is_empty(), "what is of no use any more is removed");
}

const NETWORK: Fingerprint = Fingerprint::from_bytes([5; 32]);

/// One of two contacts.
struct Side {
    database: Database,
    key: PublicKey,
    pairs: Pairs,
}

impl Side {
    fn new(seed: u64) -> Side {
        let (database, key) =
            (Database::in_memory().unwrap(), Identity::generate(&mut SeededRng::new(seed)).public());
        Side { pairs: Pairs::open(database.clone(), key).unwrap(), database, key }
    }

    fn restart(&mut self) {
        self.pairs = Pairs::open(self.database.clone(), self.key).unwrap();
    }

    fn name(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// Where this side looks for what the other one publishes.
    fn seeks(&self, other: &Side) -> Option<NodeId> {
        Some(self.pairs.of(&other.name())?.theirs(&NETWORK, &self.key, Day(1)).place())
    }

    /// Where this side publishes for the other one.
    fn leaves(&self, other: &Side) -> Option<NodeId> {
        Some(self.pairs.of(&other.name())?.ours(&NETWORK, &self.key, Day(1)).place())
    }
}

/// One asks the other.
fn exchange(asking: &Side, asked: &Side) -> bool {
    let own = asking.pairs.contribution(&asked.name()).unwrap();
    let Ok(theirs) = asked.pairs.take(&asking.name(), (own, asking.key)) else { return false };
    asking.pairs.take(&asked.name(), (theirs, asked.key)).is_ok()
}

fn agree(one: &Side, other: &Side) -> bool {
    let found = (one.seeks(other), other.seeks(one));
    found == (other.leaves(one), one.leaves(other)) && found.0.is_some() && found.0 != found.1
}

#[test]
fn contacts_that_ask_each_other_at_once_come_to_one_secret_and_keep_it() {
    let (mut one, mut other) = (Side::new(1), Side::new(2));
    let (first, second) =
        (one.pairs.contribution(&other.name()).unwrap(), other.pairs.contribution(&one.name()).unwrap());
    assert!(one.seeks(&other).is_none() && other.leaves(&one).is_none());
    assert!(other.pairs.take(&one.name(), (first.clone(), one.key)).unwrap() == second);
    assert!(one.pairs.take(&other.name(), (second, other.key)).unwrap() == first);
    assert!(agree(&one, &other));
    let place = one.seeks(&other);
    one.restart();
    other.restart();
    assert!(exchange(&one, &other) && exchange(&other, &one) && agree(&one, &other));
    assert_eq!(one.seeks(&other), place);
}

#[test]
fn who_has_lost_the_secret_makes_another_one_but_not_again_and_again() {
    let (one, mut other) = (Side::new(1), Side::new(2));
    assert!(exchange(&one, &other));
    let place = other.seeks(&one);
    other.restart();
    // The same key in a home that knows nothing.
    let lost = Side::new(1);
    assert!(exchange(&lost, &other) && agree(&lost, &other));
    assert_ne!(other.seeks(&lost), place);
    assert!(!exchange(&Side::new(1), &other), "each is written to the disk");
    assert!(exchange(&lost, &other) && agree(&lost, &other));
}

#[test]
fn the_secret_goes_with_the_contact_and_with_the_own_key() {
    let (mut one, mut other) = (Side::new(1), Side::new(2));
    assert!(exchange(&one, &other));
    assert!(one.pairs.others_than(&[other.name()]).is_empty());
    assert_eq!(one.pairs.others_than(&[]), [other.name()]);
    one.pairs.forget(&[other.name()]).unwrap();
    assert!(one.seeks(&other).is_none());
    one.restart();
    assert!(one.seeks(&other).is_none());
    other.restart();
    assert!(exchange(&one, &other));
    let (key, next) = (one.key, Side::new(3).key);
    for key in [next, key] {
        one.key = key;
        one.restart();
        assert!(one.seeks(&other).is_none(), "removed once another key was there");
    }
}

#[tokio::test]
async fn a_contact_that_names_another_key_or_none_is_not_heard() {
    let (one, other) = (Side::new(1), Side::new(2));
    let said = |key: &[u8]| [&[1; 32], key].concat();
    let read = async |bytes: &[u8]| pairs::read(&mut &bytes[..], &other.name()).await.is_ok();
    assert!(read(&said(other.key.as_bytes())).await);
    assert!(!read(&said(one.key.as_bytes())).await);
    assert!(!read(&said(&[0; 32])).await, "a key of small order");
    assert!(!read(&said(&[0xff; 32])).await, "no key");
    assert!(!read(&said(&other.key.as_bytes()[..31])).await);
}
