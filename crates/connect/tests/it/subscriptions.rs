//! A delegator and its subscribers over real sockets.

use std::sync::Arc;
use std::time::Duration;

use kith_connect::delegator::{
    Card, Delegator, Direction, Opener, PROTOCOL, Policy, Rule, Stage, Subscription, Until,
};
use kith_connect::{Admission, Protocol};
use kith_sansio::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::nodes::{DEADLINE, Node, soon};

const PING: Protocol = Protocol::new("ping/1");
/// Shorter than either side waits for the other's word.
const AT_ONCE: Duration = Duration::from_secs(25);

fn enter(policy: &mut Policy, node: &Node, name: &str, group: &str) {
    let card = Card { name: name.parse().unwrap(), authority: None, hints: Vec::new() };
    policy.enter(node.fingerprint(), card, group.parse().unwrap()).unwrap();
}

fn sensors_may_reach_hubs() -> Rule {
    let (from, to) = ("sensors".parse().unwrap(), "hubs".parse().unwrap());
    Rule { from, to, direction: Direction::Out, protocols: [PING].into(), until: Until::Forever }
}

/// A subscription, and what tells of its changes.
fn subscribe(node: &Node, delegator: &Node) -> (Subscription, mpsc::UnboundedReceiver<()>) {
    node.meet(delegator);
    delegator.book.add(node);
    let (sender, changes) = mpsc::unbounded_channel();
    let changed = move || {
        let _nobody_waits = sender.send(());
    };
    (Subscription::start(node.endpoint.clone(), delegator.fingerprint(), changed), changes)
}

async fn until(changes: &mut mpsc::UnboundedReceiver<()>, mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::timeout(DEADLINE, changes.recv()).await.expect("a change in time").unwrap();
    }
}

#[tokio::test]
async fn a_list_arrives_follows_the_policy_and_stays_when_the_delegator_is_gone() {
    let (delegator, sensor, hub) = (Node::new().await, Node::new().await, Node::new().await);
    let mut policy = Policy::default();
    enter(&mut policy, &sensor, "sensor", "sensors");
    enter(&mut policy, &hub, "hub", "hubs");
    policy.grant(sensors_may_reach_hubs()).unwrap();
    let service = Delegator::start(&delegator.endpoint, Arc::new(policy.clone()), Span::secs(3600)).unwrap();
    let (sensors, mut changes) = subscribe(&sensor, &delegator);
    assert!(!sensors.has_list());
    let (hubs, mut hub_changes) = subscribe(&hub, &delegator);
    until(&mut changes, || sensors.permits(Opener::Own, &hub.fingerprint(), &PING)).await;
    until(&mut hub_changes, || hubs.permits(Opener::Peer, &sensor.fingerprint(), &PING)).await;
    assert!(sensors.has_list() && !sensors.permits(Opener::Peer, &hub.fingerprint(), &PING));
    assert_eq!(sensors.find(&hub.fingerprint()).unwrap().card.name.as_str(), "hub");
    policy.expel(&sensor.fingerprint()).unwrap();
    service.set_policy(Arc::new(policy));
    until(&mut changes, || sensors.entries().is_empty()).await;
    assert!(sensors.has_list(), "an empty one");
    until(&mut hub_changes, || hubs.entries().is_empty()).await;
    assert_eq!(hubs.state().stage, Stage::Current);
    assert!(service.is_running() && service.revision() == 2);
}

#[tokio::test]
async fn a_delegator_that_is_gone_leaves_the_list_and_is_taken_up_again() {
    let (delegator, one, other) = (Node::new().await, Node::new().await, Node::new().await);
    let mut policy = Policy::default();
    enter(&mut policy, &one, "one", "sensors");
    enter(&mut policy, &other, "other", "hubs");
    policy.grant(sensors_may_reach_hubs()).unwrap();
    let service = Delegator::start(&delegator.endpoint, Arc::new(policy.clone()), Span::secs(3600)).unwrap();
    let (list, mut changes) = subscribe(&one, &delegator);
    until(&mut changes, || list.entries().len() == 1).await;
    drop(service);
    let lost = async {
        while list.state().stage == Stage::Current {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, lost).await.unwrap();
    assert!(list.permits(Opener::Own, &other.fingerprint(), &PING), "what it said holds");
    policy.revoke(&"sensors".parse().unwrap(), &"hubs".parse().unwrap(), None).unwrap();
    let _again = Delegator::start(&delegator.endpoint, Arc::new(policy), Span::secs(3600)).unwrap();
    list.nudge();
    until(&mut changes, || list.entries().is_empty()).await;
}

/// Waits until a subscription says that this is why it has lost its delegator.
async fn failed(list: &Subscription, why: &str) {
    let lost = async {
        while !list.state().failure.is_some_and(|failure| failure.contains(why)) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, lost).await;
    waited.unwrap_or_else(|_| panic!("{why}: {:?}", list.state()));
}

#[tokio::test]
async fn a_delegator_that_speaks_nonsense_is_left_before_the_rest_of_it_is_there() {
    let (delegator, node) = (Node::new().await, Node::new().await);
    let mut incoming = delegator.endpoint.listen(PROTOCOL, Admission::Contacts).unwrap();
    let (list, _changes) = subscribe(&node, &delegator);
    // A length, and nothing of what it says: one byte more than a message may have is not waited for.
    let cases =
        [(&[0xff_u8; 3][..], "16777215 bytes"), (&[1, 0, 1], "65537 bytes"), (b"\0\0\x01\x20", "malformed")];
    for (nonsense, why) in cases {
        let (_, mut stream) = soon(incoming.next()).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        stream.flush().await.unwrap();
        let left = tokio::time::timeout(AT_ONCE, failed(&list, why)).await;
        left.expect("it is left at once");
        list.nudge();
    }
}

#[tokio::test]
async fn a_subscriber_that_speaks_at_length_is_let_go() {
    let (delegator, node) = (Node::new().await, Node::new().await);
    let mut policy = Policy::default();
    enter(&mut policy, &node, "node", "sensors");
    let _service = Delegator::start(&delegator.endpoint, Arc::new(policy), Span::secs(3600)).unwrap();
    node.meet(&delegator);
    delegator.book.add(&node);
    // What follows is not waited for: a delegator ends a silent subscriber's stream too, half a minute later.
    for words in [&[0, 0, 65][..], &[0xff; 3], b"\0\0\x01\x20"] {
        let mut stream = soon(node.endpoint.connect(&delegator.fingerprint(), &PROTOCOL)).await.unwrap();
        stream.write_all(words).await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = Vec::new();
        // An end or a break, and not a word.
        let ended = tokio::time::timeout(AT_ONCE, stream.read_to_end(&mut heard)).await;
        let _either_way = ended.expect("it is let go at once");
        assert!(heard.is_empty(), "{heard:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_no_member_gets_no_list() {
    let (delegator, stranger) = (Node::new().await, Node::new().await);
    let _service =
        Delegator::start(&delegator.endpoint, Arc::new(Policy::default()), Span::secs(3600)).unwrap();
    // Even where the endpoint lets it in.
    let (list, _changes) = subscribe(&stranger, &delegator);
    failed(&list, "").await;
    assert_eq!((list.state().revision, list.entries().len(), list.has_list()), (None, 0, false));
}
