//! The power goes at every write: what a node of the DHT has acknowledged is there afterwards.

use std::sync::mpsc::channel;

use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::SeededRng;
use kith_store::Database;
use kith_store::crash::Backend;

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
