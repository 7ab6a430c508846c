//! What one member can do to one node, and what it cannot.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kith_dht::defaults::{
    ASK_BURST, MAX_PER_NET, MAX_RENEWALS, MAX_ROUNDS, MAX_SERVINGS, RENEW, REPLICAS, SETTLE, TEND,
};
use kith_dht::node::{Input, Output};
use kith_dht::{Body, Config, Contact, Lookup, Message, Node, Refusal, Routes, Scope, Value};
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::{Machine, Now, SeededRng, Span, Time, Timestamp};

use crate::support::{contact, contact_at, ids};

const NOW: Now = Now { time: Time(1_000_000), utc: Timestamp(1_000) };

/// A node that has heard so many others.
fn node(others: &[NodeId], own: NodeId, config: &Config, members: u64) -> Node {
    let mut node = Node::new(contact(own), config.clone(), members);
    let mut rng = SeededRng::new(1);
    node.handle_input(NOW, Input::Join(Vec::new()), &mut rng);
    for (id, other) in others.iter().enumerate() {
        say(&mut node, &contact(*other), id as u64, Body::Ping { is_new: false });
    }
    node
}

/// What a node answers.
fn say(node: &mut Node, from: &Contact, id: u64, body: Body) -> Vec<Body> {
    let input = Input::Heard { from: from.clone(), message: Message { id, body } };
    node.handle_input(NOW, input, &mut SeededRng::new(id));
    let answers = std::iter::from_fn(|| node.poll_output());
    let bodies = answers.filter_map(|output| match output {
        Output::Send { to, message } if to.id == from.id && message.id == id => Some(message.body),
        _ => None,
    });
    bodies.collect()
}

fn value(key: NodeId) -> Value {
    Value {
        kind: 1,
        key,
        publisher: Fingerprint::from_bytes([1; 32]),
        version: 1,
        expires: Timestamp(2_000),
        bytes: b"value"[..].into(),
    }
}

#[test]
fn who_asks_too_much_is_not_answered_and_others_are() {
    let ids = ids(3, 1);
    let mut node = node(&[], ids[0], &Config::default(), 3);
    let ping = Body::Ping { is_new: false };
    for id in 0..ASK_BURST {
        assert_eq!(say(&mut node, &contact(ids[1]), 1_000 + id, ping.clone()), [Body::Pong]);
    }
    assert_eq!(say(&mut node, &contact(ids[1]), 9_999, ping.clone()), []);
    assert_eq!(say(&mut node, &contact(ids[2]), 9_999, ping), [Body::Pong]);
}

#[test]
fn a_value_that_belongs_elsewhere_is_refused() {
    let ids = ids(200, 2);
    let config = Config { region: 1_000, ..Config::default() };
    let mut node = node(&ids[1..], ids[0], &config, 200);
    let far = value(ids[199]);
    assert_eq!(say(&mut node, &contact(ids[1]), 1, Body::Store(far)), [Body::Refused(Refusal::TooFar)]);
    assert_eq!(say(&mut node, &contact(ids[1]), 2, Body::Store(value(ids[0]))), [Body::Stored]);
    let Body::Found(found) = &say(&mut node, &contact(ids[1]), 3, Body::Get(ids[0]))[0] else {
        panic!("it is there")
    };
    assert_eq!(*found, value(ids[0]));
}

#[test]
fn an_answer_counts_only_from_the_node_that_was_asked() {
    let ids = ids(4, 3);
    let mut node = node(&ids[1..2], ids[0], &Config::default(), 4);
    let mut rng = SeededRng::new(1);
    node.handle_input(NOW, Input::Get { op: 5, key: ids[3] }, &mut rng);
    let asked = std::iter::from_fn(|| node.poll_output()).find_map(|output| match output {
        Output::Send { to, message } if message.body == Body::Get(ids[3]) => Some((to, message.id)),
        _ => None,
    });
    let (to, id) = asked.expect("it asks");
    let found =
        |from: Contact| Input::Heard { from, message: Message { id, body: Body::Found(value(ids[3])) } };
    node.handle_input(NOW, found(contact(ids[2])), &mut rng);
    assert!(std::iter::from_fn(|| node.poll_output()).all(|output| !matches!(output, Output::Got { .. })));
    node.handle_input(NOW, found(to.clone()), &mut rng);
    let got = std::iter::from_fn(|| node.poll_output())
        .any(|output| matches!(output, Output::Got { value: Some(_), .. }));
    assert!(got);
}

#[test]
fn a_value_of_another_key_is_no_answer() {
    let ids = ids(4, 3);
    let mut node = node(&ids[1..2], ids[0], &Config::default(), 4);
    let mut rng = SeededRng::new(1);
    node.handle_input(NOW, Input::Get { op: 5, key: ids[3] }, &mut rng);
    let sent: Vec<_> = std::iter::from_fn(|| node.poll_output()).collect();
    for output in sent {
        let Output::Send { to, message } = output else { continue };
        let message = Message { id: message.id, body: Body::Found(value(ids[2])) };
        node.handle_input(NOW, Input::Heard { from: to, message }, &mut rng);
    }
    let outputs: Vec<_> = std::iter::from_fn(|| node.poll_output()).collect();
    assert!(outputs.contains(&Output::Got { op: 5, value: None }), "{outputs:?}");
}

/// What a node asks now: whom, and the numbers of the questions.
fn asked(node: &mut Node, wanted: &Body) -> Vec<(Contact, u64)> {
    let outputs = std::iter::from_fn(|| node.poll_output());
    let questions = outputs.filter_map(|output| match output {
        Output::Send { to, message } if message.body == *wanted => Some((to, message.id)),
        _ => None,
    });
    questions.collect()
}

/// A liar has an old value at hand; another path is led to the new one by a node that takes its time.
#[test]
fn an_old_value_that_comes_first_does_not_hide_a_new_one_on_a_slower_path() {
    let ids = ids(6, 9);
    let config = Config { alpha: 1, paths: 2, ..Config::default() };
    let mut node = node(&ids[1..3], ids[0], &config, 6);
    let (mut rng, key, mut now) = (SeededRng::new(1), ids[5], NOW);
    let (old, new) = (value(key), Value { version: 2, ..value(key) });
    node.handle_input(now, Input::Get { op: 7, key }, &mut rng);
    let questions = asked(&mut node, &Body::Get(key));
    let [(liar, first), (slow, second)] = &questions[..] else { panic!("one for each path: {questions:?}") };
    let answer =
        |from: &Contact, id: u64, body| Input::Heard { from: from.clone(), message: Message { id, body } };
    node.handle_input(now, answer(liar, *first, Body::Found(old)), &mut rng);
    now.time += Span::millis(900);
    node.handle_timeout(now, &mut rng);
    node.handle_input(now, answer(slow, *second, Body::Nodes(vec![contact(ids[3])])), &mut rng);
    let questions = asked(&mut node, &Body::Get(key));
    let [(holder, third)] = &questions[..] else { panic!("the path goes on: {questions:?}") };
    now.time += Span::millis(900);
    node.handle_timeout(now, &mut rng);
    node.handle_input(now, answer(holder, *third, Body::Found(new.clone())), &mut rng);
    let outputs: Vec<_> = std::iter::from_fn(|| node.poll_output()).collect();
    assert!(outputs.contains(&Output::Got { op: 7, value: Some(new) }), "{outputs:?}");
}

/// Three hundred nodes of one /24 that are all nearer than anybody else.
#[test]
fn a_path_asks_two_nodes_of_one_network() {
    let ids = ids(320, 4);
    let one = Ipv4Addr::new(192, 0, 2, 1);
    let target = ids[0];
    let mut near: Vec<_> = ids.clone();
    near.sort_by(|a, b| target.nearer(a, b));
    let (crowd, others) = near.split_at(300);
    let config = Config { paths: 3, ..Config::default() };
    let seeds = crowd.iter().map(|id| contact_at(*id, one)).chain(others.iter().copied().map(contact));
    let mut lookup = Lookup::new(target, 8, &config, Scope::Internet, seeds);
    let mut asked = Vec::new();
    while let batch @ [_, ..] = &lookup.next_round()[..] {
        batch.iter().for_each(|contact| lookup.failed(&contact.id));
        asked.extend(batch.iter().cloned());
    }
    let crowded = asked.iter().filter(|contact| contact.address.ip() == one).count();
    assert_eq!(crowded, MAX_PER_NET * config.paths);
    assert_eq!(asked.len(), crowded + others.len());
}

#[test]
fn an_answer_names_no_more_than_it_should() {
    let ids = ids(200, 5);
    let mut node = node(&ids[1..], ids[0], &Config { region: 1_000, ..Config::default() }, 200);
    let Body::Nodes(nodes) = say(&mut node, &contact(ids[1]), 1, Body::Find(ids[50])).remove(0) else {
        panic!("nodes")
    };
    assert_eq!(nodes.len(), REPLICAS);
    assert!(nodes.iter().all(|contact| contact.id != ids[1] && contact.id != ids[0]));
}

/// A liar cannot forge a certificate, but it can say that its owner is where nobody answers.
#[test]
fn a_wrong_address_leads_the_path_astray_that_was_told_it_and_no_other() {
    let ids = ids(3, 6);
    let (target, wrong) = (ids[0], Ipv4Addr::new(198, 51, 100, 1));
    let config = Config { paths: 2, alpha: 1, ..Config::default() };
    let mut lookup = Lookup::new(target, 1, &config, Scope::Site, ids[1..].iter().copied().map(contact));
    assert_eq!(lookup.next_round().len(), 2);
    lookup.answered(&ids[1], [contact_at(target, wrong)]);
    assert_eq!(lookup.next_round(), [contact_at(target, wrong)]);
    lookup.answered(&ids[2], [contact(target)]);
    assert!(lookup.next_round().is_empty(), "one asks at a time");
    lookup.failed(&target);
    assert_eq!(lookup.next_round(), [contact(target)]);
    lookup.answered(&target, []);
    assert!(lookup.next_round().is_empty() && lookup.is_finished());
    assert_eq!(lookup.nearest().next(), Some(&contact(target)));
}

#[test]
fn who_was_revoked_stays_out_until_the_issuer_says_otherwise() {
    let ids = ids(3, 8);
    let mut node = node(&ids[1..], ids[0], &Config::default(), 3);
    let mut rng = SeededRng::new(1);
    let ping = Body::Ping { is_new: false };
    node.handle_input(NOW, Input::Revoked(vec![ids[1]]), &mut rng);
    assert_eq!(say(&mut node, &contact(ids[1]), 1, ping.clone()), []);
    assert!(node.routes().find(&ids[1]).is_none() && node.routes().find(&ids[2]).is_some());
    node.handle_input(NOW, Input::Revoked(Vec::new()), &mut rng);
    assert_eq!(say(&mut node, &contact(ids[1]), 2, ping), [Body::Pong]);
}

#[test]
fn who_is_a_member_no_more_loses_its_place() {
    let ids = ids(3, 9);
    let mut node = node(&ids[1..2], ids[0], &Config::default(), 3);
    let brief = Contact { not_after: NOW.utc.plus_secs(60), ..contact(ids[2]) };
    let ping = Body::Ping { is_new: false };
    assert_eq!(say(&mut node, &brief, 1, ping.clone()), [Body::Pong]);
    assert!(node.routes().find(&brief.id).is_some());
    let later = Now { time: NOW.time + TEND.times(2), utc: NOW.utc.plus_secs(60) };
    node.handle_timeout(later, &mut SeededRng::new(1));
    assert!(node.routes().find(&brief.id).is_none());
    assert!(node.routes().find(&ids[1]).is_some());
    let input = Input::Heard { from: brief.clone(), message: Message { id: 2, body: ping } };
    node.handle_input(later, input, &mut SeededRng::new(1));
    assert!(node.routes().find(&brief.id).is_none());
}

#[test]
fn nobody_has_a_place_at_an_address_that_leads_to_oneself_or_to_all() {
    let ids = ids(3, 10);
    let mut node = node(&ids[1..2], ids[0], &Config::default(), 3);
    for ip in [[127, 0, 0, 1], [0, 0, 0, 0], [224, 0, 0, 1]] {
        say(&mut node, &contact_at(ids[2], ip.into()), 1, Body::Ping { is_new: false });
        assert!(node.routes().find(&ids[2]).is_none(), "{ip:?}");
    }
}

/// How often a node sends a value to `to` in what it says now.
fn copies(node: &mut Node, to: &NodeId) -> usize {
    let is_copy = |output: &Output| matches!(output, Output::Send { to: other, message } if other.id == *to && matches!(message.body, Body::Store(_)));
    std::iter::from_fn(|| node.poll_output()).filter(is_copy).count()
}

#[test]
fn so_many_values_are_brought_to_their_nodes_again_at_a_time_and_the_others_after_them() {
    let ids = ids(2, 12);
    let count = 2 * MAX_RENEWALS + 1;
    let mut node = node(&ids[1..], ids[0], &Config::default(), 2);
    let keys = crate::support::ids(count, 13);
    for (number, key) in keys.iter().enumerate() {
        let number = number as u64;
        let publisher = Fingerprint::from_bytes([number as u8; 32]);
        let kept = Value { publisher, ..value(*key) };
        // As many as are due later at once, at the pace that a node answers one other.
        let now = Now { time: NOW.time + Span::secs(number), utc: NOW.utc };
        let message = Message { id: number, body: Body::Store(kept) };
        node.handle_input(now, Input::Heard { from: contact(ids[1]), message }, &mut SeededRng::new(1));
    }
    assert_eq!(node.store().len(), count);
    while node.poll_output().is_some() {}
    // Nobody has brought any of them for so long that all are due. The other node answers at once.
    let (mut rng, mut begun) = (SeededRng::new(2), Vec::new());
    let late = NOW.time + Span::secs(count as u64) + RENEW.times(2);
    for round in 0..4 {
        let now = Now { time: late + SETTLE.times(round), utc: NOW.utc };
        let mut sought = BTreeSet::new();
        node.handle_timeout(now, &mut rng);
        while let Some(output) = node.poll_output() {
            let Output::Send { to, message: Message { id, body } } = output else { continue };
            let body = match body {
                Body::Find(target) => {
                    sought.extend(keys.contains(&target).then_some(target));
                    Body::Nodes(Vec::new())
                }
                Body::Store(_) => Body::Stored,
                Body::Block { .. } => Body::Same,
                _ => Body::Pong,
            };
            node.handle_input(now, Input::Heard { from: to, message: Message { id, body } }, &mut rng);
        }
        begun.push(sought.len());
    }
    assert_eq!(begun, [MAX_RENEWALS, MAX_RENEWALS, 1, 0]);
}

#[test]
fn who_comes_and_goes_is_not_brought_everything_each_time() {
    let ids = ids(4, 11);
    let mut node = node(&ids[1..], ids[0], &Config::default(), 4);
    assert_eq!(say(&mut node, &contact(ids[1]), 1, Body::Store(value(ids[0]))), [Body::Stored]);
    let (mut rng, mut sent) = (SeededRng::new(1), 0);
    for step in 1..=40 {
        let now = Now { time: NOW.time + SETTLE.times(2 * step), ..NOW };
        for body in [Body::Leave, Body::Ping { is_new: true }] {
            let message = Message { id: step, body };
            node.handle_input(now, Input::Heard { from: contact(ids[2]), message }, &mut rng);
        }
        node.handle_timeout(Now { time: now.time + SETTLE, ..now }, &mut rng);
        sent += copies(&mut node, &ids[2]);
    }
    assert!((1..=MAX_SERVINGS).contains(&sent), "{sent} copies of one value");
}

/// The nearest may only be thought to have a value: the next one brings it to a new node, too.
#[test]
fn a_value_is_repaired_though_the_nearest_does_nothing() {
    let mut near = ids(4, 12);
    let key = near[0];
    near.sort_by(|a, b| key.nearer(a, b));
    let mut node = node(&[near[0], near[2]], near[1], &Config::default(), 4);
    assert_eq!(say(&mut node, &contact(near[2]), 1, Body::Store(value(key))), [Body::Stored]);
    say(&mut node, &contact(near[3]), 2, Body::Ping { is_new: true });
    node.handle_timeout(Now { time: NOW.time + SETTLE, ..NOW }, &mut SeededRng::new(1));
    assert_eq!(copies(&mut node, &near[3]), 1);
}

/// A liar whose accomplices are each nearer than the one before does not hold a lookup for ever.
#[test]
fn a_path_that_liars_lead_on_comes_to_its_end() {
    let mut near = ids(2_000, 13);
    let target = near[0];
    near.sort_by(|a, b| target.nearer(b, a));
    let config = Config { paths: 1, alpha: 1, ..Config::default() };
    let mut lookup = Lookup::new(target, 1, &config, Scope::Site, [contact(near[0])]);
    let mut named = near[1..].iter().copied();
    while let [asked] = &lookup.next_round()[..] {
        lookup.answered(&asked.id, named.next().map(contact));
    }
    assert!(lookup.is_finished());
    assert_eq!(lookup.rounds(), MAX_ROUNDS + 1);
}

#[test]
fn nobody_loses_a_place_for_not_answering_where_a_liar_says_it_is() {
    let ids = ids(3, 7);
    let mut routes = Routes::new(&contact(ids[0]), Config::default(), 3);
    routes.heard(&contact(ids[1]), Time(1));
    let elsewhere = contact_at(ids[1], Ipv4Addr::new(198, 51, 100, 1));
    for _ in 0..5 {
        assert_eq!(routes.failed(&elsewhere), None);
    }
    assert!(routes.find(&ids[1]).is_some());
    assert_eq!(routes.failed(&contact(ids[1])), None);
    assert_eq!(routes.failed(&contact(ids[1])), Some(contact(ids[1])));
}
