//! Caches of SEP2P §3.6 while nodes come and go.

use kith_actors::paper::upkeep::{AttestedCache, Heard, Keeper, Message, Newcomer, Output, goodbye};
use kith_actors::paper::{Attestation, Cache, Node, Refusal};
use kith_actors::scheme::{Counting, Pretended, Scheme};
use kith_sansio::{Machine, Now, SeededRng, Time, Timestamp};

use crate::town::{NOW, Town, keys};

/// A network and one node more, which wants to join.
fn town() -> (Town<Pretended>, Node) {
    let node = |key: ed25519_dalek::SigningKey| {
        let key = key.verifying_key().to_bytes();
        (Node::new(key, Pretended::certificate(&key)), Pretended(key))
    };
    let mut nodes: Vec<_> = keys(601).into_iter().map(node).collect();
    let (newcomer, _) = nodes.pop().unwrap();
    nodes.sort_by_key(|(node, _)| node.place());
    (Town::new(nodes, 64.0), newcomer)
}

fn counting(node: &Node) -> Counting<Pretended> {
    Counting::new(Pretended(*node.key()))
}

/// What a node of the town answers.
fn told(town: &Town<Pretended>, to: &Node, from: Node, message: Message) -> Vec<Output> {
    let view = town.view(to);
    let mut keeper = Keeper::new(&town.rules, *to, &view, counting(to));
    keeper.handle_input(NOW, Heard { from, message }, &mut SeededRng::new(1));
    std::iter::from_fn(|| keeper.poll_output()).collect()
}

/// The cache of a node, attested by those around it as far as they do so.
fn attested(town: &Town<Pretended>, owner: &Node, newcomer: Node) -> Option<AttestedCache> {
    let view = town.view(owner);
    let mut keeper = Keeper::new(&town.rules, *owner, &view, counting(owner));
    let mut rng = SeededRng::new(1);
    keeper.handle_input(NOW, Heard { from: newcomer, message: Message::Ask }, &mut rng);
    while let Some(Output::Send { to, message }) = keeper.poll_output() {
        if let Message::Cache(cache) = message {
            return Some(*cache);
        }
        for output in told(town, &to, *owner, message) {
            let Output::Send { message, .. } = output else { return None };
            keeper.handle_input(NOW, Heard { from: to, message }, &mut rng);
        }
    }
    None
}

fn neighbours(town: &Town<Pretended>, newcomer: &Node) -> [Node; 2] {
    let after = town.nodes.partition_point(|(node, _)| node.place() < newcomer.place());
    let count = town.nodes.len();
    [town.nodes[(after + count - 1) % count].0, town.nodes[after % count].0]
}

#[test]
fn a_newcomer_takes_over_what_its_neighbours_have_attested_and_shows_itself_to_all_of_it() {
    let (town, me) = town();
    let neighbours = neighbours(&town, &me);
    let mut newcomer = Newcomer::new(&town.rules, me, neighbours, counting(&me), NOW);
    let asked: Vec<_> = std::iter::from_fn(|| newcomer.poll_output()).collect();
    assert_eq!(asked.len(), 2);
    for owner in neighbours {
        let cache = attested(&town, &owner, me).unwrap();
        let mut checker = counting(&me);
        cache.verify(&town.rules, &mut checker, NOW.utc).unwrap();
        assert_eq!(checker.operations.total(), 2 * cache.attestations.len() as u64);
        let message = Message::Cache(Box::new(cache));
        newcomer.handle_input(NOW, Heard { from: owner, message }, &mut SeededRng::new(1));
    }
    assert_eq!(newcomer.poll_timeout(), None);
    let mut outputs: Vec<_> = std::iter::from_fn(|| newcomer.poll_output()).collect();
    let Some(Output::Joined(known)) = outputs.pop() else { panic!("it has not joined") };
    let mut region = town.view(&me).around(me.place(), town.rules.candidates);
    region.sort();
    assert_eq!(known, region);
    for (output, node) in outputs.into_iter().zip(known) {
        assert_eq!(output, Output::Send { to: node, message: Message::Here });
        assert_eq!(told(&town, &node, me, Message::Here), [Output::Known(me)]);
    }
}

#[test]
fn nobody_attests_a_cache_that_hides_or_invents_somebody() {
    let (town, me) = town();
    let owner = neighbours(&town, &me)[0];
    let AttestedCache { at, nodes, attestations, .. } = attested(&town, &owner, me).unwrap();
    let signer = attestations[0].builder;
    let answer = |nodes, at| told(&town, &signer, owner, Message::Attest { at, nodes });
    assert!(matches!(&answer(nodes.clone(), at)[..], [Output::Send { message: Message::Attested(_), .. }]));
    for hidden in 0..nodes.len() {
        let mut fewer = nodes.clone();
        let gone = fewer.remove(hidden);
        let is_known = town.rules.candidates.holds(signer.place(), gone.place());
        assert_eq!(answer(fewer, at) == [Output::Refused(Refusal::Broken)], is_known);
    }
    let invented = Node::new(*me.key(), [0; 64]);
    for (more, refusal) in [(invented, Refusal::Actor), (nodes[0], Refusal::Broken), (owner, Refusal::Actor)]
    {
        let more = [&nodes[..], &[more]].concat();
        assert_eq!(answer(more, at), [Output::Refused(refusal)]);
    }
    assert_eq!(answer(nodes, Timestamp(at.0 - 61)), [Output::Refused(Refusal::Expired)]);
}

#[test]
fn a_newcomer_believes_no_cache_that_too_few_or_the_wrong_ones_attested() {
    let (town, me) = town();
    let owner = neighbours(&town, &me)[0];
    let cache = attested(&town, &owner, me).unwrap();
    let verified = |cache: &AttestedCache| cache.verify(&town.rules, &mut counting(&me), NOW.utc);
    assert_eq!(verified(&cache), Ok(()));
    let changes: [fn(&mut AttestedCache); 5] = [
        |cache| cache.nodes.truncate(20),
        |cache| cache.attestations[0].signature[0] ^= 1,
        |cache| cache.attestations[0] = cache.attestations[1].clone(),
        |cache| cache.attestations[0].builder = cache.nodes[20],
        |cache| {
            let owner = cache.owner;
            let signature = Pretended(*owner.key()).sign(&[0; 32]);
            cache.attestations = vec![Attestation { builder: owner, signature }];
        },
    ];
    for change in changes {
        let mut changed = cache.clone();
        change(&mut changed);
        assert_eq!(verified(&changed), Err(Refusal::Signer));
    }
    let old = AttestedCache { at: Timestamp(cache.at.0 - 61), ..cache.clone() };
    assert_eq!(verified(&old), Err(Refusal::Expired));
    // It does not wait for ever, nor take another one's cache.
    let mut newcomer = Newcomer::new(&town.rules, me, neighbours(&town, &me), counting(&me), NOW);
    while newcomer.poll_output().is_some() {}
    let stranger = AttestedCache { owner: me, ..cache };
    let message = Message::Cache(Box::new(stranger));
    newcomer.handle_input(NOW, Heard { from: owner, message }, &mut SeededRng::new(1));
    assert_eq!(newcomer.poll_output(), Some(Output::Refused(Refusal::Signer)));
    let mut newcomer = Newcomer::new(&town.rules, me, neighbours(&town, &me), counting(&me), NOW);
    while newcomer.poll_output().is_some() {}
    newcomer.handle_timeout(Now { time: Time(u64::MAX), ..NOW }, &mut SeededRng::new(1));
    assert_eq!(newcomer.poll_output(), Some(Output::Refused(Refusal::Silence)));
}

#[test]
fn nobody_says_goodbye_for_another_one() {
    let (town, stranger) = town();
    let (me, other) = (town.nodes[300].0, town.nodes[301].0);
    let said = goodbye(&town.rules, &me, &town.view(&me), &mut counting(&me), NOW.utc);
    assert!(said.len() > 30);
    for output in said {
        let Output::Send { to, message } = output else { panic!("{output:?}") };
        assert_eq!(told(&town, &to, other, message.clone()), [Output::Refused(Refusal::Signer)]);
        assert_eq!(told(&town, &to, me, message), [Output::Gone(me)]);
    }
    let false_certificate = Node::new(*stranger.key(), [0; 64]);
    let near = neighbours(&town, &stranger)[0];
    assert_eq!(told(&town, &near, false_certificate, Message::Here), [Output::Refused(Refusal::Actor)]);
    let far = town.nodes[(town.nodes.iter().position(|(node, _)| *node == near).unwrap() + 300) % 600].0;
    assert_eq!(told(&town, &far, stranger, Message::Here), [Output::Refused(Refusal::Actor)]);
}
