//! Nodes come, go and die; regions stay whole.

use std::net::Ipv4Addr;

use kith_dht::node::{Input, Output};
use kith_dht::{Body, Config, Message, Node};
use kith_sansio::{Machine, Now, SeededRng, Span};
use kith_vnet::{Faults, for_seeds};

use super::{Net, small};
use crate::support::{contact, contact_at, ids, nearest_of, random_id};

#[test]
fn regions_are_known_whole_after_joins_leaves_and_deaths() {
    for_seeds(0..4, |seed| {
        let mut net = Net::new(seed, 150, small(), Faults::default());
        net.settle();
        net.run(Span::secs(30));
        assert_eq!(net.exact(), 150, "after the joins");

        for _ in 0..15 {
            let id = net.any();
            net.live.retain(|other| *other != id);
            net.world.input(&id, Input::Leave);
            net.run(Span::secs(1));
            assert_eq!(net.world.machine(&id).and_then(Machine::poll_timeout), None);
            net.world.crash(&id);
        }
        assert_eq!(net.exact(), net.live.len(), "after the leaves");

        let dead = net.kill(33);
        net.run(Span::secs(300));
        assert_eq!(net.exact(), net.live.len(), "after the deaths");

        dead.into_iter().for_each(|id| net.start(id));
        net.run(Span::secs(120));
        assert_eq!(net.exact(), net.live.len(), "after the return");
    });
}

/// A row of neighbours that die together hides all but the first of them from those who watch the next three.
#[test]
fn a_row_of_neighbours_that_die_at_once_is_missed_within_two_minutes() {
    for_seeds(0..4, |seed| {
        let mut net = Net::new(seed, 64, Config::default(), Faults::default());
        net.settle();
        net.run(Span::secs(30));
        net.live.sort();
        let dead: Vec<_> = net.live.drain(20..40).collect();
        dead.iter().for_each(|id| drop(net.world.crash(id)));
        net.run(Span::secs(110));
        assert_eq!(net.exact(), net.live.len());
    });
}

/// Each was the first of a network, for all that it knew.
#[test]
fn nodes_that_were_alone_find_each_other_through_one_that_somebody_told_of() {
    let mut net = Net::new(4, 3, small(), Faults::default());
    for id in net.ids.clone() {
        let own = net.contact(id);
        net.world.start(&id, Node::new(own, net.config.clone(), 3));
        net.world.input(&id, Input::Join(Vec::new()));
        net.live.push(id);
    }
    net.run(Span::secs(60));
    assert_eq!(net.exact(), 0);
    let (hub, others) = (contact(net.ids[0]), net.ids[1..].to_vec());
    others.iter().for_each(|id| net.world.input(id, Input::Meet(vec![hub.clone()])));
    net.run(Span::secs(30));
    assert_eq!(net.exact(), 3);
}

/// A node that moves from a private network to the internet counts addresses as they count there.
#[test]
fn a_node_that_moves_counts_as_it_should_where_it_is() {
    let at = |(number, id)| contact_at(id, Ipv4Addr::new(192, 168, 1, number as u8 + 1));
    let contacts: Vec<_> = ids(16, 12).into_iter().enumerate().map(at).collect();
    let config = Config { bucket: 8, region: 1, ..Config::default() };
    let mut node = Node::new(contacts[0].clone(), config, 16);
    let mut rng = SeededRng::new(1);
    node.handle_input(Now::default(), Input::Join(Vec::new()), &mut rng);
    for from in &contacts[1..] {
        let message = Message { id: 0, body: Body::Ping { is_new: false } };
        node.handle_input(Now::default(), Input::Heard { from: from.clone(), message }, &mut rng);
    }
    let before = node.routes().len();
    node.handle_input(Now::default(), Input::Moved(([203, 0, 113, 1], 7117).into()), &mut rng);
    let buckets = usize::from(node.routes().block().bits());
    assert!(
        node.routes().len() < before && node.routes().len() - node.routes().region().len() <= 2 * buckets
    );
}

/// Nothing is lost for good on a network that loses a tenth of all messages.
#[test]
fn regions_come_to_be_whole_on_a_bad_network() {
    for_seeds(0..3, |seed| {
        let mut net = Net::new(seed, 80, small(), Faults::harsh());
        net.settle();
        net.world.network().set_faults(Faults::default());
        net.run(Span::secs(1_800));
        assert_eq!(net.exact(), net.live.len());
    });
}

#[test]
fn a_neighbour_that_nobody_told_of_is_found_by_the_roster() {
    let mut net = Net::new(1, 60, small(), Faults::default());
    net.settle();
    let (id, hidden) = {
        let id = net.ids[20];
        (id, net.world.machine(&id).unwrap().routes().region()[0].contact.id)
    };
    // As if a liar had named everybody else.
    let goodbye = Message { id: 0, body: Body::Leave };
    net.world.input(&id, Input::Heard { from: contact(hidden), message: goodbye });
    assert!(!net.regions(&id).1.contains(&hidden));
    net.world.input(&id, Input::Roster(net.ids.clone()));
    assert_eq!(net.world.machine(&id).unwrap().missing().collect::<Vec<_>>(), [&hidden]);
    net.run(Span::secs(50));
    assert!(net.regions(&id).1.contains(&hidden));
    assert_eq!(net.world.machine(&id).unwrap().missing().count(), 0);
}

#[test]
fn a_neighbour_is_not_dropped_because_somebody_says_so() {
    let mut net = Net::new(2, 60, small(), Faults::default());
    net.settle();
    net.run(Span::secs(120));
    assert_eq!(net.exact(), net.live.len());
    let liar = net.ids[7];
    let region: Vec<_> = net.regions(&liar).1.into_iter().collect();
    for (victim, hearer) in region.iter().flat_map(|a| region.iter().map(move |b| (*a, *b))) {
        let message = Message { id: 0, body: Body::Gone(victim) };
        net.world.input(&hearer, Input::Heard { from: contact(liar), message });
    }
    net.run(Span::secs(30));
    assert_eq!(net.exact(), net.live.len());
}

/// A thousand nodes, none of which knows more than a tenth of the others.
#[test]
fn lookups_among_a_thousand_nodes_take_two_hops_or_more_on_average() {
    let mut net = Net::new(3, 1_000, small(), Faults::default());
    net.settle();
    let known = net.world.machines().map(|(_, node)| node.routes().len()).sum::<usize>();
    assert!(known < 1_000 * 100, "{known} places in all tables");
    let (mut hops, mut requests, lookups) = (0, 0, 300);
    for _ in 0..lookups {
        let place = random_id(net.world.chance());
        let (at, op) = (net.any(), net.op());
        net.world.input(&at, Input::Find { op, place, want: 1 });
        let Output::Found { nodes, hops: took, requests: asked, .. } = net.outcome(op) else {
            panic!("found")
        };
        let others: Vec<_> = net.live.iter().copied().filter(|id| *id != at).collect();
        assert_eq!(vec![nodes[0].id], nearest_of(&others, place, 1));
        hops += took;
        requests += asked;
    }
    let (hops, requests) = (f64::from(hops) / f64::from(lookups), f64::from(requests) / f64::from(lookups));
    println!(
        "1000 nodes: {hops:.2} hops and {requests:.1} requests over 3 paths, {known} places in all tables"
    );
    assert!(hops >= 2.0, "{hops} hops");
}
