//! The routing rule: who has a place, who is nearest, and that derived tables follow the same rule.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use kith_dht::defaults::MAX_PER_NET;
use kith_dht::{Config, Heard, Ideal, Lookup, Nearest, Routes, Scope, nearest_known};
use kith_identity::membership::NodeId;
use kith_sansio::{Rng, SeededRng, Time};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{contact, contact_at, ids, nearest_of};

/// Routes of the first of some ids, which heard all others in a random order.
fn settled(ids: &[NodeId], own: NodeId, config: &Config, seed: u64) -> Routes {
    let mut routes = Routes::new(&contact(own), config.clone(), ids.len() as u64);
    let mut rng = SeededRng::new(seed);
    let mut order = ids.to_vec();
    for place in (1..order.len()).rev() {
        order.swap(place, rng.below(place as u64 + 1) as usize);
    }
    for id in order {
        routes.heard(&contact(id), Time(1));
    }
    routes
}

#[test]
fn derived_tables_have_what_a_node_has_that_heard_everybody() {
    let ids = ids(10_000, 1);
    let config = Config::default();
    let network = Ideal::new(&ids, &config);
    for own in ids.iter().step_by(997).copied() {
        let routes = settled(&ids, own, &config, 5);
        assert_eq!(routes.block().bits(), network.bits());
        let region: Vec<_> = routes.region().iter().map(|known| known.contact.id).collect();
        let derived: Vec<_> = network.region(own).iter().copied().filter(|id| *id != own).collect();
        assert_eq!(region, derived);
        for index in 0..u32::from(network.bits()) {
            let bucket = network.bucket(own, index);
            assert_eq!(bucket.len(), routes.bucket_len(index as usize));
            assert!(bucket.iter().all(|id| own.common_prefix(id) == index));
            assert_eq!(bucket.iter().collect::<HashSet<_>>().len(), bucket.len(), "nobody twice");
        }
    }
}

#[test]
fn a_network_has_two_places_in_a_bucket_and_in_an_answer() {
    let ids = ids(400, 2);
    let own = ids[0];
    let mut routes = Routes::new(&contact(own), Config { region: 12, ..Config::default() }, 400);
    for (number, id) in ids.iter().enumerate() {
        routes.heard(&contact_at(*id, Ipv4Addr::new(192, 0, 2, number as u8)), Time(1));
    }
    for index in 0..usize::from(routes.block().bits()) {
        assert!(routes.bucket_len(index) <= MAX_PER_NET);
    }
    assert!(routes.region().len() > MAX_PER_NET, "a region has everybody");
    assert_eq!(routes.answer(own, 20, &ids[9]).len(), MAX_PER_NET);
}

#[test]
fn a_full_bucket_keeps_whom_it_has_until_one_fails() {
    let own = NodeId::from_bytes([0; 32]);
    let id =
        |low: u8| NodeId::from_bytes(std::array::from_fn(|at| [0x80, low].get(at).copied().unwrap_or(0)));
    let contact = |id: NodeId| contact_at(id, Ipv4Addr::new(10, 0, id.as_bytes()[1], 1));
    let config = Config { bucket: 3, region: 1, ..Config::default() };
    let mut routes = Routes::new(&contact(own), config, 1_000);
    for low in 1..=3 {
        assert_eq!(routes.heard(&contact(id(low)), Time(low.into())), Heard::Bucket);
    }
    assert_eq!(routes.heard(&contact(id(1)), Time(4)), Heard::Nothing);
    assert_eq!(routes.heard(&contact(id(9)), Time(5)), Heard::Full(contact(id(2))));
    assert!(routes.find(&id(9)).is_none());
    assert_eq!(routes.failed(&contact(id(2))), None);
    assert_eq!(routes.failed(&contact(id(2))), Some(contact(id(2))));
    assert!(routes.find(&id(9)).is_some(), "who waited has the place");
}

#[test]
fn a_region_follows_the_size_of_the_network() {
    let ids = ids(2_000, 4);
    let config = Config { region: 32, ..Config::default() };
    let mut routes = settled(&ids, ids[700], &config, 1);
    let before: Vec<_> = routes.region().iter().map(|known| known.contact.id).collect();
    routes.set_members(8_000);
    assert!(routes.region().len() < before.len() && !routes.region().is_empty());
    assert!(routes.region().iter().all(|known| routes.block().contains(&known.contact.id)));
}

fn lookups(seed: u64, config: &Config, dead: u64) -> (Lookup, Vec<NodeId>, Vec<NodeId>) {
    let ids = ids(500, seed);
    let network = Ideal::new(&ids, config);
    let mut rng = SeededRng::new(seed);
    let (from, target) = (ids[3], crate::support::random_id(&mut rng));
    let seeds: Vec<_> = network.nearest(from, target).take(24).copied().map(contact).collect();
    let mut lookup = Lookup::new(target, 8, config, Scope::Site, seeds);
    let (mut asked, mut waiting) = (Vec::new(), Vec::new());
    loop {
        let batch = lookup.next_round();
        assert!(batch.len() <= config.alpha * config.paths);
        asked.extend(batch.iter().map(|contact| contact.id));
        waiting.extend(batch);
        if waiting.is_empty() {
            break;
        }
        let next = waiting.swap_remove(rng.below(waiting.len() as u64) as usize);
        if rng.below(100) < dead {
            lookup.failed(&next.id);
        } else {
            lookup.answered(&next.id, network.nearest(next.id, target).take(20).copied().map(contact));
        }
    }
    assert!(lookup.is_finished());
    (lookup, asked, ids)
}

proptest! {
    #[test]
    fn the_nearest_of_a_sorted_list_come_in_order(bytes in vec(any::<[u8; 2]>(), 0..60), target: [u8; 32]) {
        let mut ids: Vec<_> = bytes.iter().map(|[a, b]| {
            let mut id = [0; 32];
            (id[0], id[31]) = (*a, *b);
            NodeId::from_bytes(id)
        }).collect();
        ids.sort();
        let target = NodeId::from_bytes(target);
        let walked: Vec<_> = Nearest::new(&ids, target).copied().collect();
        prop_assert_eq!(walked, nearest_of(&ids, target, ids.len()));
    }

    #[test]
    fn what_is_known_comes_nearest_first_and_whole(seed: u64, target: [u8; 32], bits in 0u32..12, near in 0u32..20) {
        let ids = ids(200, seed);
        let own = ids[100];
        // A target that shares some bits with the own id: every way through the buckets is taken.
        let mut target = target;
        for bit in 0..near {
            let (byte, mask) = ((bit / 8) as usize, 0x80 >> (bit % 8));
            target[byte] = target[byte] & !mask | own.as_bytes()[byte] & mask;
        }
        let target = NodeId::from_bytes(target);
        let bucket = |index| ids.iter().filter(|id| own.common_prefix(id) == index).collect();
        let region: Vec<_> = ids.iter().copied().filter(|id| own.common_prefix(id) >= bits).collect();
        let known: Vec<_> = nearest_known(own, bits, target, bucket, &region).copied().collect();
        prop_assert_eq!(known, nearest_of(&ids, target, ids.len()));
    }

    #[test]
    fn a_lookup_finds_the_nearest_and_asks_nobody_twice(seed in 0u64..1_000, paths in 1usize..6, alpha in 1usize..5) {
        let config = Config { region: 64, paths, alpha, ..Config::default() };
        let (lookup, asked, ids) = lookups(seed, &config, 0);
        let own = ids[3];
        let found: Vec<_> = lookup.nearest().map(|contact| contact.id).filter(|id| *id != own).take(7).collect();
        let others: Vec<_> = ids.into_iter().filter(|id| *id != own).collect();
        prop_assert_eq!(found, nearest_of(&others, lookup.target(), 7));
        prop_assert_eq!(asked.iter().collect::<HashSet<_>>().len(), asked.len());
        prop_assert_eq!(lookup.requests() as usize, asked.len());
    }

    #[test]
    fn a_lookup_ends_whoever_fails(seed in 0u64..1_000, dead in 0u64..=100) {
        let config = Config { region: 64, ..Config::default() };
        lookups(seed, &config, dead);
    }

    #[test]
    fn a_slow_node_holds_up_nobody(seed in 0u64..200) {
        let ids = ids(300, seed);
        let mut lookup = Lookup::new(ids[0], 4, &Config { paths: 1, ..Config::default() }, Scope::Site, ids[1..9].iter().copied().map(contact));
        let first = lookup.next_round();
        prop_assert_eq!(first.len(), 3);
        prop_assert!(lookup.next_round().is_empty());
        lookup.press_on();
        prop_assert!(!lookup.next_round().is_empty());
        prop_assert!(!lookup.is_finished());
        lookup.answered(&first[0].id, []);
        prop_assert_eq!(lookup.round_of(&first[0].id), Some(1));
    }
}
