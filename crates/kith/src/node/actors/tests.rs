//! What a restart must not forget: what was signed, and evidence that the issuer has not acknowledged.

use kith_identity::membership::pledge::{Kind, Pledge, Slot, VerifiedEvidence};
use kith_identity::{Fingerprint, Identity};
use kith_sansio::SeededRng;
use kith_store::Database;
use kith_store::crash::Backend;

use super::rows::Rows;
use crate::config::Config;
use crate::node::network::tests::{issuer, join, member, states, until};
use crate::node::{Node, scene};

const CACHE: usize = 1 << 20;

/// Evidence that somebody has signed two things about one.
fn evidence(identity: &Identity, network: Fingerprint) -> VerifiedEvidence {
    let slot = Slot::numbered(Kind::TICKET, network, 7);
    let pledges = [b"one", b"two"].map(|content| Pledge::new(slot, content));
    let signatures = pledges.map(|pledge| pledge.sign(identity));
    let key = identity.public();
    VerifiedEvidence::of(&key, (&pledges[0], &signatures[0]), (&pledges[1], &signatures[1])).unwrap()
}

fn generated(seed: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(seed))
}

#[test]
fn what_was_signed_is_in_the_book_wherever_the_power_goes() {
    let network = Fingerprint::from_bytes([5; 32]);
    let disk = Backend::new();
    let mut kept = Vec::new();
    {
        let rows = Rows(Database::open_backend(&disk, CACHE).unwrap());
        for number in 1..=6u8 {
            rows.keep(&network, &[number; 50]).unwrap();
            kept.push(disk.events());
        }
    }
    let mut rng = SeededRng::new(3);
    for events in kept[0]..=disk.events() {
        let least = kept.iter().filter(|done| **done <= events).count() as u8;
        for image in [disk.killed_at(events), disk.image_at(events, &mut rng)] {
            let rows = Rows(Database::open_backend(&Backend::with_image(image), CACHE).unwrap());
            let book = rows.book(&network).unwrap().unwrap();
            assert!(book[0] == least || book[0] == least + 1, "after {events} events: {book:?}");
        }
    }
}

#[test]
fn networks_have_books_of_their_own_and_an_empty_one_replaces_none() {
    let rows = Rows(Database::in_memory().unwrap());
    let [one, other] = [5, 6].map(|byte| Fingerprint::from_bytes([byte; 32]));
    assert_eq!(rows.book(&one).unwrap(), None);
    rows.keep_first(&one, b"empty").unwrap();
    rows.keep(&one, b"signed").unwrap();
    rows.keep_first(&one, b"empty").unwrap();
    assert_eq!(rows.book(&one).unwrap().as_deref(), Some(&b"signed"[..]));
    assert_eq!(rows.book(&other).unwrap(), None);
}

#[test]
fn evidence_waits_once_for_each_accused_until_it_is_told() {
    let rows = Rows(Database::in_memory().unwrap());
    let [network, other] = [5, 6].map(|byte| Fingerprint::from_bytes([byte; 32]));
    let [one, two] = [1, 2].map(|seed| evidence(&generated(seed), network));
    let waits = [&one, &two, &one, &evidence(&generated(1), other)].map(|one| rows.accuse(one).unwrap());
    assert_eq!(waits, [true, true, false, true]);
    assert_eq!(rows.evidence(&network).unwrap().len(), 2);
    rows.is_told(&one).unwrap();
    assert_eq!(rows.evidence(&network).unwrap(), [two]);
    assert_eq!(rows.evidence(&other).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_reaches_an_issuer_that_was_away_though_the_node_was_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let office = issuer(folder.path()).await;
    let north = member(folder.path(), "north", &office).await;
    let south = member(folder.path(), "south", &office).await;
    let network = office.identity.fingerprint();
    scene::end(office).await;
    north.selections.accuse(evidence(&south.identity, network));
    let waiting = |node: &Node| node.selections.rows.evidence(&network).unwrap().len();
    until(|| waiting(&north) == 1).await;
    let home = north.home.clone();
    scene::end(north).await;

    let config =
        Config { listen: vec!["tcp://127.0.0.1:0".parse().unwrap()], lan: false, ..Config::default() };
    let north = Node::start(&home, config).await.unwrap();
    assert_eq!(waiting(&north), 1);
    let office = issuer(folder.path()).await;
    join(&north, &office).await;
    until(|| waiting(&north) == 0).await;
    assert_eq!(states(&office), ["member", "revoked"]);
    for node in [office, north, south] {
        scene::end(node).await;
    }
}
