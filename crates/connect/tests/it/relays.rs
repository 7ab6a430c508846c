//! Relays, targets and initiators in the virtual network: streams that stall and break, tokens that get lost, nodes
//! that crash, and relays that lie.

mod party;

use std::collections::HashSet;

use kith_connect::relay::knocking::Outcome;
use kith_connect::relay::limits::{NAMED_FOR, PING_MOST, PONG_PATIENCE, REFUSED_AFTER};
use kith_identity::Fingerprint;
use kith_sansio::{Span, Time};
use kith_vnet::{Faults, Peers, World, for_seeds};

use party::{Input, Lie, Node, Party, Told, name, relay_name};

const RELAYS: u8 = 3;
const TARGETS: u8 = 2;
const INITIATORS: u8 = 3;

struct Net(World<Peers<Party>>);

impl Net {
    /// Relays that serve every target, targets that use every relay and admit every initiator but the last.
    fn new(seed: u64, faults: Faults) -> Net {
        let mut world = World::new(seed, faults, Peers::default());
        for number in 0..RELAYS {
            world.start(&Node::Relay(number), Party::relay(number, None));
        }
        for number in 0..TARGETS {
            world.start(&Node::Target(number), Party::target(number));
        }
        for number in 0..INITIATORS {
            world.start(&Node::Initiator(number), Party::initiator(number));
        }
        let mut net = Net(world);
        for number in 0..TARGETS {
            net.0.input(&Node::Target(number), Input::Use(RELAYS));
        }
        net
    }

    fn run(&mut self, span: Span) {
        self.0.run_until(self.0.now() + span);
    }

    /// Asks over a relay for a target, and waits for what comes of it.
    fn knock(&mut self, initiator: u8, relay: u8, target: u8) -> Option<(Span, Outcome)> {
        let (began, seen) = (self.0.now(), self.0.events().len());
        let at = Node::Initiator(initiator);
        self.0.input(&at, Input::Knock { relay, target: name(Node::Target(target)) });
        let ended = |world: &World<Peers<Party>>| {
            world.events()[seen..].iter().find_map(|(when, who, told)| match told {
                Told::Ended(outcome) if *who == at => Some((*when - began, *outcome)),
                _ => None,
            })
        };
        self.0.run_until_true(Span::secs(8), |world| ended(world).is_some());
        ended(&self.0)
    }

    fn named(&self, target: u8) -> Vec<Fingerprint> {
        let Some(Party::Target(party)) = self.0.machine(&Node::Target(target)) else { panic!("a target") };
        party.exposure.named().iter().map(|relay| relay.ni.fingerprint).collect()
    }

    fn told(&self) -> impl Iterator<Item = &(Time, Node, Told)> {
        self.0.events().iter()
    }

    /// What must hold in every world, whatever happens in it.
    fn check(&self) {
        let mut joined = HashSet::new();
        for (_, at, told) in self.told() {
            match told {
                Told::Joined(sides) => {
                    assert_eq!(sides.len(), 2);
                    for side in sides {
                        assert_ne!(side.0, Node::Initiator(INITIATORS - 1), "nobody admits him");
                        assert!(joined.insert((*at, *side)), "{side:?} is joined once at {at:?}");
                    }
                }
                Told::Met(initiator) => {
                    let stranger = name(Node::Initiator(INITIATORS - 1));
                    assert_ne!(*initiator, stranger, "nobody meets whom he does not admit");
                }
                Told::Ended(_) | Told::Carried => {}
            }
        }
    }
}

#[test]
fn over_a_quiet_network_the_admitted_are_put_through_and_the_others_hear_no_after_three_seconds() {
    for_seeds(0..100, |seed| {
        let mut net = Net::new(seed, Faults::none(Span::millis(20)));
        net.run(Span::secs(1));
        for target in 0..TARGETS {
            assert_eq!(net.named(target), (0..RELAYS).map(relay_name).collect::<Vec<_>>());
        }
        for relay in 0..RELAYS {
            let (took, outcome) = net.knock(0, relay, 1).expect("an answer");
            assert!(
                matches!(outcome, Outcome::Admitted(_)) && took < Span::millis(200),
                "{outcome:?} {took}"
            );
        }
        let (refused, outcome) = net.knock(INITIATORS - 1, 0, 1).expect("an answer");
        assert_eq!(outcome, Outcome::Refused);
        let (unknown, outcome) = net.knock(0, 0, TARGETS).expect("an answer");
        assert_eq!(outcome, Outcome::Refused);
        net.0.crash(&Node::Target(0));
        let (silent, outcome) = net.knock(0, 0, 0).expect("an answer");
        assert_eq!(outcome, Outcome::Refused);
        assert_eq!((refused, unknown), (silent, silent));
        assert!(refused >= REFUSED_AFTER && refused.0 < REFUSED_AFTER.0 + 100_000);
        net.run(Span::secs(1));
        let carried = net.told().filter(|(_, _, told)| *told == Told::Carried).count();
        assert_eq!(carried, 3, "what was put through carries");
        net.check();
    });
}

#[test]
fn a_relay_that_vanishes_is_noticed_and_back_when_it_is() {
    for_seeds(0..100, |seed| {
        let mut net = Net::new(seed, Faults::none(Span::millis(20)));
        net.run(Span::secs(30));
        let others: Vec<Node> =
            (0..TARGETS).map(Node::Target).chain((0..INITIATORS).map(Node::Initiator)).collect();
        net.0.network().partition_groups(&[Node::Relay(0)], &others);
        net.run(Span(PING_MOST.0 + PONG_PATIENCE.0 + 1_000_000));
        let Some(Party::Target(party)) = net.0.machine(&Node::Target(0)) else { panic!("a target") };
        let warm: Vec<bool> = party.exposure.standings().iter().map(|standing| standing.is_warm).collect();
        assert_eq!(warm, [false, true, true]);
        assert!(matches!(net.knock(0, 1, 0), Some((_, Outcome::Admitted(_)))));
        net.run(NAMED_FOR);
        assert_eq!(net.named(0), [relay_name(1), relay_name(2)]);
        net.0.network().heal();
        net.run(Span::secs(90));
        assert_eq!(net.named(0).len(), 3);
        assert!(matches!(net.knock(0, 0, 0), Some((_, Outcome::Admitted(_)))));
        net.check();
    });
}

/// Messages are lost (a stream that loses one stalls and breaks), nodes crash and come back, and links are cut.
#[test]
fn over_a_bad_network_every_knock_ends_and_no_token_opens_twice() {
    let bad = Faults { drop_permille: 60, duplicate_permille: 60, ..Faults::harsh() };
    let (mut admitted, mut others, mut seeds) = (0, 0, 0);
    for_seeds(0..150, |seed| {
        let mut net = Net::new(seed, bad.clone());
        seeds += 1;
        net.run(Span::secs(5));
        for _ in 0..10 {
            let draw = |net: &mut Net, below: u8| net.0.chance().below(below.into()) as u8;
            let (who, over, whom) =
                (draw(&mut net, INITIATORS), draw(&mut net, RELAYS), draw(&mut net, TARGETS));
            match draw(&mut net, 6) {
                0 => {
                    net.0.crash(&Node::Relay(over));
                    net.0.start(&Node::Relay(over), Party::relay(over, None));
                }
                1 => net.0.network().partition(&Node::Relay(over), &Node::Target(whom)),
                2 => net.0.network().heal(),
                _ => {}
            }
            match net.knock(who, over, whom) {
                Some((_, Outcome::Admitted(_))) => admitted += 1,
                Some(_) => others += 1,
                None => panic!("a knock does not end"),
            }
        }
        net.0.network().heal();
        net.check();
    });
    assert!(seeds == 1 || (admitted > 100 && others > 100), "{admitted} admitted, {others} others");
}

/// A relay that lies, floods, replays or stalls harms nobody who uses another one.
#[test]
fn a_relay_that_lies_lets_nobody_in_and_keeps_nobody_from_another() {
    for (lie, met_over_the_liar) in [
        (Lie::Floods, 0),
        (Lie::Replays, 1),
        (Lie::Stalls, 0),
        (Lie::Invents, 0),
        // It says that the target admits whom it has declined.
        (Lie::Admits, 1),
    ] {
        for_seeds(0..40, |seed| {
            let mut net = Net::new(seed, Faults::none(Span::millis(10)));
            net.0.crash(&Node::Relay(0));
            net.0.start(&Node::Relay(0), Party::relay(0, Some(lie)));
            // Until the targets have noticed and are exposed at it.
            net.run(Span::secs(10));
            let over_the_liar = net.knock(0, 0, 0).expect("it ends");
            assert!(over_the_liar.0 <= Span::secs(6), "{lie:?}: {over_the_liar:?}");
            let stranger = net.knock(INITIATORS - 1, 0, 0).expect("it ends");
            assert!(stranger.0 <= Span::secs(6), "{lie:?}: {stranger:?}");
            let is_told_so = matches!(stranger.1, Outcome::Admitted(_));
            assert!(
                is_told_so || lie != Lie::Admits,
                "the relay puts him through as far as it can: {stranger:?}"
            );
            net.run(Span::secs(5));
            let honest = net.knock(0, 1, 0);
            assert!(matches!(honest, Some((_, Outcome::Admitted(_)))), "{lie:?}: {honest:?}");
            net.run(Span::secs(60));
            let met = net.told().filter(|(_, _, told)| matches!(told, Told::Met(_))).count();
            assert_eq!(met, met_over_the_liar + 1, "{lie:?}: each request lets in once at most");
            assert!(net.named(0).contains(&relay_name(1)) && net.named(0).contains(&relay_name(2)));
            net.check();
        });
    }
}
