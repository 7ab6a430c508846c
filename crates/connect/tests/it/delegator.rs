//! A delegator and its subscribers in the virtual network, and delegators and subscribers that misbehave.

mod faults;
mod net;

use std::sync::Arc;

use kith_connect::Protocol;
use kith_connect::delegator::{Card, Direction, Policy, Rule, Until};
use kith_identity::Fingerprint;
use kith_sansio::{Rng, Span, Time, Timestamp};
use kith_vnet::{Faults, for_seeds};

use net::{Net, SUBSCRIBERS};

/// Short, so that tests see it end.
const LEASE: Span = Span::secs(60);

fn who(n: u8) -> Fingerprint {
    Fingerprint::from_bytes([n + 1; 32])
}

fn card(name: &str) -> Card {
    Card { name: name.parse().unwrap(), authority: None, hints: Vec::new() }
}

fn rule(from: &str, to: &str, direction: Direction, until: Until) -> Rule {
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    Rule { from, to, direction, protocols: [Protocol::new("ping/1")].into(), until }
}

/// Everybody may reach everybody.
fn mesh() -> Policy {
    let mut policy = Policy::default();
    for n in 0..SUBSCRIBERS {
        policy.enter(who(n), card(&format!("node {n}")), "all".parse().unwrap()).unwrap();
    }
    policy.grant(rule("all", "all", Direction::Both, Until::Forever)).unwrap();
    policy
}

/// One change that somebody may make; what is refused changes nothing.
fn some_step(policy: &Policy, rng: &mut dyn Rng) -> Policy {
    let mut next = policy.clone();
    let groups = ["all", "sensors", "hubs"];
    let mut pick = || groups[rng.below(3) as usize];
    let (one, other) = (pick(), pick());
    let peer = rng.below(u64::from(SUBSCRIBERS)) as u8;
    let direction = [Direction::In, Direction::Out, Direction::Both][rng.below(3) as usize];
    let done = match rng.below(6) {
        0 | 1 => next.enter(who(peer), card(&format!("node {peer}-{}", rng.below(3))), one.parse().unwrap()),
        2 => next.leave(&who(peer), &one.parse().unwrap()),
        3 => next.expel(&who(peer)),
        4 => next.grant(rule(one, other, direction, Until::Forever)),
        _ => next.revoke(&one.parse().unwrap(), &other.parse().unwrap(), None).map(|_| ()),
    };
    if done.is_ok() { next } else { policy.clone() }
}

#[test]
fn lists_converge_whatever_the_network_does_and_the_policy_meanwhile() {
    for_seeds(0..60, |seed| {
        let mut net = Net::new(seed, Faults::harsh(), Arc::new(mesh()), LEASE);
        for _ in 0..30 {
            let policy = some_step(&net.policy(), net.world.chance());
            net.set_policy(policy);
            match net.world.chance().below(10) {
                0 => net.restart_server(),
                1 => net.cut_somebody_off(),
                2 => net.world.network().heal(),
                _ => {}
            }
            let pause = Span(net.world.chance().below(4_000_000));
            net.run(pause);
        }
        net.world.network().heal();
        net.world.network().set_faults(Faults::default());
        net.run(Span::secs(180));
        net.assert_everybody_has_his_list();
    });
}

#[test]
fn a_revocation_is_in_force_everywhere_within_a_second() {
    for_seeds(0..10, |seed| {
        let mut net = Net::new(seed, Faults::none(Span::millis(50)), Arc::new(mesh()), LEASE);
        net.run(Span::secs(5));
        net.assert_everybody_has_his_list();
        assert!(net.in_force(0).contains(&who(3)));
        net.expel(3);
        net.run(Span::secs(1));
        for n in 0..SUBSCRIBERS {
            assert!(!net.in_force(n).contains(&who(3)), "{n}");
        }
        assert!(net.in_force(3).is_empty(), "and nothing is left of its own list");
        net.assert_everybody_has_his_list();
    });
}

#[test]
fn a_lost_delegator_leaves_the_list_in_force_until_its_lease_is_over() {
    for_seeds(0..10, |seed| {
        let mut net = Net::new(seed, Faults::default(), Arc::new(mesh()), LEASE);
        net.run(Span::secs(5));
        net.stop_server();
        // The last word was a quarter of the lease ago at most.
        net.run(Span::secs(40));
        assert_eq!(net.in_force(0).len(), usize::from(SUBSCRIBERS) - 1);
        net.run(Span::secs(25));
        for n in 0..SUBSCRIBERS {
            assert!(net.in_force(n).is_empty(), "{n}");
        }
        net.restart_server();
        net.run(Span::secs(125));
        net.assert_everybody_has_his_list();
        assert_eq!(net.in_force(0).len(), usize::from(SUBSCRIBERS) - 1);
    });
}

#[test]
fn a_subscriber_that_was_cut_off_hears_of_a_revocation_before_anything_else() {
    for_seeds(0..10, |seed| {
        let mut net = Net::new(seed, Faults::none(Span::millis(50)), Arc::new(mesh()), LEASE);
        net.run(Span::secs(5));
        net.cut_off(0);
        net.expel(3);
        // Neither side has noticed yet that the stream is dead.
        net.run(Span::secs(20));
        assert!(net.in_force(0).contains(&who(3)), "what it was told holds");
        assert!(!net.in_force(1).contains(&who(3)));
        net.world.network().heal();
        let heard = net.revision(0);
        while net.revision(0) == heard {
            net.run(Span::millis(10));
            assert!(net.now().time < Time(0) + Span::secs(120), "it comes back");
        }
        assert!(!net.in_force(0).contains(&who(3)), "the first list after that is the one of now");
        net.assert_everybody_has_his_list();
    });
}

#[test]
fn a_subscriber_that_stays_cut_off_trusts_nobody_when_its_lease_is_over() {
    for_seeds(0..10, |seed| {
        let mut net = Net::new(seed, Faults::none(Span::millis(50)), Arc::new(mesh()), LEASE);
        net.run(Span::secs(5));
        net.cut_off(0);
        net.expel(3);
        let changes = net.changes(0);
        net.run(LEASE);
        assert!(net.in_force(0).is_empty());
        assert!(net.changes(0) > changes, "and what is open is cut");
    });
}

#[test]
fn an_entry_ends_at_its_time_without_a_word_of_the_delegator() {
    let mut policy = mesh();
    policy.revoke(&"all".parse().unwrap(), &"all".parse().unwrap(), None).unwrap();
    let end = Timestamp(1_767_225_600 + 30);
    policy.grant(rule("all", "all", Direction::Both, Until::Time(end))).unwrap();
    let mut net = Net::new(1, Faults::default(), Arc::new(policy), LEASE);
    net.run(Span::secs(28));
    assert!(!net.in_force(0).is_empty());
    let changes = net.changes(0);
    net.stop_server();
    net.run(Span::secs(3));
    assert!(net.in_force(0).is_empty());
    assert!(net.changes(0) > changes, "the shell was told, so that connections are cut");
}

#[test]
fn equal_seeds_give_equal_histories() {
    let run = |seed| {
        let mut net = Net::new(seed, Faults::harsh(), Arc::new(mesh()), LEASE);
        net.run(Span::secs(100));
        net.world.digest()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
