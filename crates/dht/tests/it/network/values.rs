//! What is acknowledged stays.

use std::net::Ipv4Addr;

use kith_dht::Value;
use kith_dht::node::Output;
use kith_sansio::{Span, Timestamp};
use kith_vnet::{Faults, for_seeds};

use super::{Net, small, value};
use crate::support::{contact_at, ids, nearest_of};

/// Stores so many values from different nodes; those that were acknowledged.
fn store(net: &mut Net, count: u64) -> Vec<Value> {
    let values: Vec<_> = (0..count).map(|number| value(net.world.chance(), number)).collect();
    let ops: Vec<_> = values.iter().map(|value| net.put(value.clone())).collect();
    let outcomes: Vec<_> = ops.into_iter().map(|op| net.outcome(op)).collect();
    let stored =
        values.into_iter().zip(outcomes).filter(|(_, outcome)| matches!(outcome, Output::Stored { .. }));
    stored.map(|(value, _)| value).collect()
}

fn assert_all_are_found(net: &mut Net, values: &[Value]) {
    let ops: Vec<_> = values.iter().map(|value| net.ask_anywhere(value.key)).collect();
    for (op, value) in ops.into_iter().zip(values) {
        let Output::Got { value: found, .. } = net.outcome(op) else { panic!("an answer") };
        assert_eq!(found.as_ref(), Some(value), "no acknowledged value is lost");
    }
}

#[test]
fn a_thousand_nodes_lose_a_third_of_themselves_and_no_acknowledged_value() {
    let mut net = Net::new(5, 1_000, small(), Faults::default());
    net.settle();
    let values = store(&mut net, 200);
    assert_eq!(values.len(), 200);
    net.kill(33);
    assert_all_are_found(&mut net, &values);
    net.run(Span::secs(300));
    assert_eq!(net.exact(), net.live.len(), "the regions know who is left");
    assert_all_are_found(&mut net, &values);
}

/// Twelve times a third dies: without repair, one value in ten would be left.
#[test]
fn values_are_brought_to_new_nodes_as_old_ones_die() {
    for_seeds(0..2, |seed| {
        let mut net = Net::new(seed, 120, small(), Faults::default());
        net.settle();
        let values = store(&mut net, 30);
        for _ in 0..12 {
            let dead = net.kill(33);
            net.run(Span::secs(300));
            dead.into_iter().for_each(|id| net.start(id));
            net.run(Span::secs(120));
        }
        assert_all_are_found(&mut net, &values);
    });
}

/// Every node of the network starts anew, one after the other, sooner than its neighbours would miss it.
#[test]
fn a_node_that_starts_anew_is_brought_what_it_should_have() {
    let mut net = Net::new(6, 60, small(), Faults::default());
    net.settle();
    net.run(Span::secs(120));
    let values = store(&mut net, 20);
    for id in net.ids.clone() {
        net.world.crash(&id);
        net.live.retain(|other| *other != id);
        net.start(id);
        net.run(Span::secs(20));
    }
    assert_all_are_found(&mut net, &values);
    let copies: usize = net.world.machines().map(|(_, node)| node.store().len()).sum();
    assert!(copies >= 20 * 15, "{copies} copies of 20 values");
}

#[test]
fn a_node_that_starts_anew_twice_within_minutes_is_brought_its_values_again() {
    let mut net = Net::new(12, 60, small(), Faults::default());
    net.settle();
    net.run(Span::secs(120));
    let values = store(&mut net, 20);
    let id = values.iter().flat_map(|value| nearest_of(&net.ids, value.key, 3)).next().unwrap();
    let mine = values.iter().filter(|value| nearest_of(&net.ids, value.key, 15).contains(&id)).count();
    for pause in [60, 900] {
        net.world.crash(&id);
        net.live.retain(|other| *other != id);
        net.start(id);
        net.run(Span::secs(pause));
    }
    let has = net.world.machine(&id).unwrap().store().len();
    assert!(has >= mine, "{has} of {mine} values");
}

#[test]
fn what_is_acknowledged_on_a_bad_network_is_found_there() {
    for_seeds(0..3, |seed| {
        let mut net = Net::new(seed, 80, small(), Faults::default());
        net.settle();
        net.world.network().set_faults(Faults::harsh());
        let values = store(&mut net, 20);
        assert!(values.len() >= 10, "{} of 20 are acknowledged", values.len());
        net.kill(33);
        assert_all_are_found(&mut net, &values);
    });
}

#[test]
fn the_newest_version_is_found() {
    let mut net = Net::new(8, 60, small(), Faults::default());
    net.settle();
    let old = store(&mut net, 1).remove(0);
    let new = Value { version: 2, bytes: b"new"[..].into(), ..old.clone() };
    let op = net.put(new.clone());
    assert!(matches!(net.outcome(op), Output::Stored { .. }));
    let op = net.put(old);
    let Output::NotStored { refusal, .. } = net.outcome(op) else { panic!("an older one is refused") };
    assert_eq!(refusal, Some(kith_dht::Refusal::Older));
    assert_all_are_found(&mut net, &vec![new; 20]);
}

#[test]
fn a_value_ends_everywhere_at_its_time() {
    let mut net = Net::new(8, 60, small(), Faults::default());
    net.settle();
    let value = value(net.world.chance(), 1);
    let value = Value { expires: Timestamp(value.expires.0 - 80_000), ..value };
    let op = net.put(value.clone());
    assert!(matches!(net.outcome(op), Output::Stored { .. }));
    net.run(Span::secs(5_800));
    assert_all_are_found(&mut net, std::slice::from_ref(&value));
    net.run(Span::secs(600));
    let op = net.ask_anywhere(value.key);
    assert_eq!(net.outcome(op), Output::Got { op, value: None });
    net.run(Span::secs(240));
    assert!(net.world.machines().all(|(_, node)| node.store().is_empty()), "and nobody keeps it");
}

/// All in one /24, of which two would count elsewhere.
#[test]
fn a_network_on_one_lan_stores_and_finds() {
    let at = |(number, id)| contact_at(id, Ipv4Addr::new(192, 168, 1, number as u8 + 1));
    let contacts = ids(64, 11).into_iter().enumerate().map(at).collect();
    let mut net = Net::of(11, contacts, small(), Faults::default());
    net.settle();
    net.run(Span::secs(120));
    assert_eq!(net.exact(), 64);
    let values = store(&mut net, 10);
    assert_eq!(values.len(), 10);
    net.kill(33);
    assert_all_are_found(&mut net, &values);
}

#[test]
fn in_a_network_of_three_a_value_is_acknowledged_and_survives_one() {
    let mut net = Net::new(9, 3, small(), Faults::default());
    net.settle();
    let values = store(&mut net, 5);
    assert_eq!(values.len(), 5);
    net.kill(34);
    assert_eq!(net.live.len(), 2);
    assert_all_are_found(&mut net, &values);
}

#[test]
fn a_value_that_too_few_nodes_have_is_not_acknowledged() {
    let mut net = Net::new(10, 40, small(), Faults::default());
    net.settle();
    let others: Vec<_> = net.ids[1..].to_vec();
    net.world.network().partition_groups(&[net.ids[0]], &others);
    net.live = vec![net.ids[0]];
    let value = value(net.world.chance(), 1);
    let op = net.put(value);
    assert!(
        matches!(net.outcome(op), Output::NotStored { nodes: 1, needed: 14, .. }),
        "{:?}",
        net.outcome(op)
    );
}
