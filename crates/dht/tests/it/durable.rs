//! What a node keeps on a disk counts when it is there.

use kith_dht::node::{Input, Output};
use kith_dht::{Body, Config, Contact, Message, Node, Value};
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::{Machine, Now, SeededRng, Span, Time, Timestamp};

use crate::support::{contact, ids};

const NOW: Now = Now { time: Time(1_000_000), utc: Timestamp(1_000) };

fn value(key: NodeId, version: u64) -> Value {
    Value {
        kind: 1,
        key,
        publisher: Fingerprint::from_bytes([1; 32]),
        version,
        expires: Timestamp(2_000),
        bytes: version.to_be_bytes().to_vec().into(),
    }
}

fn joined(own: NodeId, other: &Contact) -> Node {
    let mut node = Node::new(contact(own), Config::default(), 2).durable();
    give(&mut node, Input::Join(Vec::new()));
    say(&mut node, other, 1, Body::Ping { is_new: false });
    node
}

fn give(node: &mut Node, input: Input) -> Vec<Output> {
    node.handle_input(NOW, input, &mut SeededRng::new(1));
    std::iter::from_fn(|| node.poll_output()).collect()
}

fn say(node: &mut Node, from: &Contact, id: u64, body: Body) -> Vec<Output> {
    give(node, Input::Heard { from: from.clone(), message: Message { id, body } })
}

/// What is to be written, and whether the asker has been answered.
fn seen(outputs: &[Output]) -> (Vec<(u64, Value, NodeId)>, bool) {
    let keeps = outputs.iter().filter_map(|output| match output {
        Output::Keep { ticket, value, by } => Some((*ticket, value.clone(), *by)),
        _ => None,
    });
    let is_answered = outputs
        .iter()
        .any(|output| matches!(output, Output::Send { message, .. } if message.body == Body::Stored));
    (keeps.collect(), is_answered)
}

#[test]
fn nobody_is_told_that_a_value_is_kept_before_it_is_on_the_disk() {
    let ids = ids(3, 1);
    let other = contact(ids[1]);
    let mut node = joined(ids[0], &other);
    let outputs = say(&mut node, &other, 7, Body::Store(value(ids[2], 1)));
    let (keeps, is_answered) = seen(&outputs);
    let [(ticket, kept, by)] = &keeps[..] else { panic!("{outputs:?}") };
    assert_eq!((kept, by, is_answered), (&value(ids[2], 1), &other.id, false));
    let outputs = give(&mut node, Input::Kept { ticket: *ticket, is_safe: true });
    let answer = Output::Send { to: other.clone(), message: Message { id: 7, body: Body::Stored } };
    assert_eq!(outputs, std::slice::from_ref(&answer));
    assert_eq!(give(&mut node, Input::Kept { ticket: *ticket, is_safe: true }), [], "once");
    // Brought once more it is written once more: the first one may be under way still.
    let (keeps, is_answered) = seen(&say(&mut node, &other, 8, Body::Store(value(ids[2], 1))));
    assert_eq!((keeps.len(), is_answered), (1, false));
}

#[test]
fn what_the_disk_does_not_take_is_not_acknowledged() {
    let ids = ids(3, 1);
    let other = contact(ids[1]);
    let mut node = joined(ids[0], &other);
    let (keeps, _) = seen(&say(&mut node, &other, 7, Body::Store(value(ids[2], 1))));
    let (_, is_answered) = seen(&give(&mut node, Input::Kept { ticket: keeps[0].0, is_safe: false }));
    assert!(!is_answered);
    // Its own copy counts no more than others'.
    let alone = |is_safe| {
        let mut node = Node::new(contact(ids[0]), Config::default(), 1).durable();
        give(&mut node, Input::Join(Vec::new()));
        let (keeps, _) = seen(&give(&mut node, Input::Put { op: 3, value: value(ids[2], 1) }));
        give(&mut node, Input::Kept { ticket: keeps[0].0, is_safe })
    };
    assert_eq!(alone(true), [Output::Stored { op: 3, nodes: 1 }]);
    assert_eq!(alone(false), [Output::NotStored { op: 3, nodes: 0, needed: 1, refusal: None }]);
}

#[test]
fn what_was_kept_is_there_after_a_restart_and_leaves_the_disk_at_its_end() {
    let ids = ids(5, 1);
    let other = contact(ids[1]);
    let mut node = Node::new(contact(ids[0]), Config::default(), 2).durable();
    let ended = Value { expires: NOW.utc, ..value(ids[3], 1) };
    let outputs = give(&mut node, Input::Restore(vec![(value(ids[2], 1), other.id), (ended, other.id)]));
    assert_eq!(outputs, [Output::Forget(ids[3])]);
    let outputs = give(&mut node, Input::Join(vec![other.clone()]));
    // It does not say that it has lost everything.
    let greeted = |output: &Output| matches!(output, Output::Send { message, .. } if message.body == Body::Ping { is_new: true });
    assert!(!outputs.iter().any(greeted));
    let outputs = say(&mut node, &other, 9, Body::Get(ids[2]));
    let found = |output: &Output| matches!(output, Output::Send { message, .. } if message.body == Body::Found(value(ids[2], 1)));
    assert!(outputs.iter().any(found), "{outputs:?}");
    let late = Now { time: NOW.time + Span::secs(1_200), utc: Timestamp(2_000) };
    node.handle_timeout(late, &mut SeededRng::new(2));
    let outputs: Vec<_> = std::iter::from_fn(|| node.poll_output()).collect();
    assert!(outputs.contains(&Output::Forget(ids[2])), "{outputs:?}");
}
