use proptest::prelude::*;

use super::*;
use crate::delegator::{Change, Opener};

const NOW: Timestamp = Timestamp(1_769_860_800);
const PING: Protocol = Protocol::new("ping/1");

fn who(n: u8) -> Fingerprint {
    Fingerprint::from_bytes([n; 32])
}

fn card(name: &str) -> Card {
    Card { name: name.parse().unwrap(), authority: None, hints: Vec::new() }
}

fn group(name: &str) -> Group {
    name.parse().unwrap()
}

fn rule(from: &str, to: &str, direction: Direction, protocols: &[&str], until: Until) -> Rule {
    let protocols = protocols.iter().map(|one| one.parse().unwrap()).collect();
    Rule { from: group(from), to: group(to), direction, protocols, until }
}

fn sensors_and_hubs() -> Policy {
    let mut policy = Policy::default();
    for n in 1..4 {
        policy.enter(who(n), card(&format!("sensor {n}")), group("sensors")).unwrap();
    }
    for n in 11..13 {
        policy.enter(who(n), card(&format!("hub {n}")), group("hubs")).unwrap();
    }
    policy
}

fn permits(policy: &Policy, one: u8, opener: Opener, other: u8, protocol: &Protocol) -> bool {
    let list = policy.list_of(&who(one)).unwrap();
    list.find(&who(other)).is_some_and(|entry| entry.rights.permit(opener, protocol, NOW))
}

#[test]
fn a_rule_between_groups_becomes_an_entry_on_both_sides() {
    let mut policy = sensors_and_hubs();
    policy.grant(rule("sensors", "hubs", Direction::Out, &["ping/1"], Until::Forever)).unwrap();
    for sensor in 1..4 {
        for hub in 11..13 {
            assert!(permits(&policy, sensor, Opener::Own, hub, &PING));
            assert!(permits(&policy, hub, Opener::Peer, sensor, &PING));
            assert!(!permits(&policy, sensor, Opener::Peer, hub, &PING));
            assert!(!permits(&policy, hub, Opener::Own, sensor, &PING));
            assert!(!permits(&policy, hub, Opener::Peer, sensor, &Protocol::new("send/1")));
        }
        assert!(policy.list_of(&who(sensor)).unwrap().find(&who(2)).is_none(), "sensors know no sensors");
    }
    assert!(policy.list_of(&who(99)).unwrap().is_empty(), "a stranger gets nothing");
}

#[test]
fn a_group_that_may_reach_itself_is_a_mesh_without_oneself() {
    let mut policy = sensors_and_hubs();
    policy.grant(rule("sensors", "sensors", Direction::Out, &[], Until::Forever)).unwrap();
    let list = policy.list_of(&who(1)).unwrap();
    assert_eq!(list.iter().map(|entry| entry.peer).collect::<Vec<_>>(), [who(2), who(3)]);
    assert!(permits(&policy, 1, Opener::Own, 2, &PING) && permits(&policy, 1, Opener::Peer, 2, &PING));
}

#[test]
fn a_rule_with_another_end_replaces_the_one_that_was_there() {
    let mut policy = sensors_and_hubs();
    let early = Until::Time(NOW.plus_secs(10));
    policy.grant(rule("sensors", "hubs", Direction::Out, &[], Until::Forever)).unwrap();
    policy.grant(rule("sensors", "hubs", Direction::Out, &[], early)).unwrap();
    assert_eq!(policy.rules().len(), 1);
    policy.grant(rule("sensors", "hubs", Direction::Out, &["ping/1"], early)).unwrap();
    assert_eq!(policy.rules().len(), 2);
    let only: BTreeSet<Protocol> = [PING].into();
    assert_eq!(policy.revoke(&group("sensors"), &group("hubs"), Some(&only)), Ok(1));
    assert_eq!(policy.expire(NOW.plus_secs(9)), 0);
    assert_eq!(policy.expire(NOW.plus_secs(10)), 1);
    let none = policy.revoke(&group("sensors"), &group("hubs"), None);
    assert_eq!(none, Err(PolicyError::NoRule(group("sensors"), group("hubs"))));
}

#[test]
fn what_is_revoked_is_gone_whichever_way_round_it_was_granted() {
    let only: BTreeSet<Protocol> = [PING].into();
    let (sensors, hubs) = (group("sensors"), group("hubs"));
    for direction in [Direction::In, Direction::Both] {
        for only in [None, Some(&only)] {
            let mut policy = sensors_and_hubs();
            policy.grant(rule("hubs", "sensors", direction, &["ping/1"], Until::Forever)).unwrap();
            policy.grant(rule("sensors", "hubs", Direction::Out, &["ping/1"], Until::Forever)).unwrap();
            policy.grant(rule("hubs", "sensors", Direction::Out, &["ping/1"], Until::Forever)).unwrap();
            assert_eq!(policy.revoke(&sensors, &hubs, only), Ok(2), "{direction}");
            assert!(!permits(&policy, 1, Opener::Own, 11, &PING));
            assert!(permits(&policy, 11, Opener::Own, 1, &PING), "that was granted to the hubs by itself");
        }
    }
}

#[test]
fn an_entry_that_is_new_on_many_lists_is_in_memory_once() {
    let before = sensors_and_hubs();
    let mut granted = before.clone();
    granted.grant(rule("sensors", "hubs", Direction::Out, &["ping/1"], Until::Forever)).unwrap();
    let mut joined = granted.clone();
    joined.enter(who(13), card("hub 13"), group("hubs")).unwrap();
    for (before, after, hub) in [(&before, &granted, 11), (&granted, &joined, 13)] {
        let deltas = before.deltas(after).unwrap();
        let of = |sensor: u8| deltas[&who(sensor)].put.iter().find(|entry| entry.peer == who(hub)).unwrap();
        assert!(Arc::ptr_eq(of(1), of(2)) && Arc::ptr_eq(of(1), of(3)), "hub {hub}");
    }
}

#[test]
fn names_are_one_members_and_free_again_with_it() {
    let mut policy = sensors_and_hubs();
    let taken = policy.enter(who(9), card("HUB 11"), group("hubs"));
    assert_eq!(taken, Err(PolicyError::NameTaken("HUB 11".to_owned())));
    policy.expel(&who(11)).unwrap();
    assert_eq!((policy.member(&who(11)), policy.named("hub 11")), (None, None));
    policy.enter(who(9), card("HUB 11"), group("hubs")).unwrap();
    assert_eq!(policy.named("hub 11"), Some(who(9)));
    assert_eq!(
        policy.leave(&who(9), &group("sensors")),
        Err(PolicyError::NotInGroup(who(9), group("sensors")))
    );
    assert_eq!(policy.expel(&who(11)), Err(PolicyError::NoMember(who(11))));
}

#[test]
fn what_is_too_much_is_refused_and_changes_nothing() {
    let mut policy = sensors_and_hubs();
    for n in 0..MAX_PROTOCOLS {
        let protocol = format!("p{n}/1");
        policy.grant(rule("sensors", "hubs", Direction::Out, &[&protocol], Until::Forever)).unwrap();
    }
    let before = policy.clone();
    let refused = policy.grant(rule("sensors", "hubs", Direction::Out, &["more/1"], Until::Forever));
    assert_eq!(refused, Err(PolicyError::TooMany { what: "protocols in all rules", most: MAX_PROTOCOLS }));
    let hints = (1..=MAX_HINTS + 1).map(|n| format!("tcp://192.0.2.1:{n}").parse().unwrap()).collect();
    let crowded = Card { hints, ..card("crowded") };
    assert!(matches!(policy.enter(who(50), crowded, group("hubs")), Err(PolicyError::TooMany { .. })));
    assert_eq!(policy, before);
    policy.check().unwrap();
}

#[test]
fn lists_that_are_too_many_together_are_refused() {
    let mut policy = Policy::default();
    let number = |n: usize| Fingerprint::from_bytes(std::array::from_fn(|at| n.to_le_bytes()[at % 8]));
    for n in 0..2_049 {
        policy.enter(number(n), card(&format!("node {n}")), group("all")).unwrap();
    }
    policy.check().unwrap();
    policy.grant(rule("all", "all", Direction::Both, &[], Until::Forever)).unwrap();
    assert_eq!(policy.check(), Err(PolicyError::TooMany { what: "entries in all lists", most: MAX_ENTRIES }));
    policy.expel(&number(0)).unwrap();
    policy.check().unwrap();
}

#[test]
fn every_change_has_a_sentence() {
    let before = sensors_and_hubs();
    let mut after = before.clone();
    after.expel(&who(1)).unwrap();
    after.enter(who(2), card("probe"), group("hubs")).unwrap();
    after.enter(who(7), card("new"), group("sensors")).unwrap();
    after.grant(rule("sensors", "hubs", Direction::In, &["ping/1"], Until::Time(NOW))).unwrap();
    let told: Vec<_> = Change::between(&before, &after).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "sensor 1 is not in group sensors any more".to_owned(),
            format!("sensor 1 is no member any more: ni:///sha3-256;{}", who(1)),
            format!("probe is described anew: ni:///sha3-256;{}", who(2)),
            "probe is in group hubs".to_owned(),
            format!("new is a member: ni:///sha3-256;{}", who(7)),
            "new is in group sensors".to_owned(),
            "granted: sensors may be reached by hubs for ping/1 until 2026-01-31T12:00:00Z".to_owned(),
        ]
    );
    let back: Vec<_> = Change::between(&after, &before).iter().map(Change::kind).collect();
    assert_eq!(back, ["left", "left", "expelled", "admitted", "joined", "described", "revoked"]);
    assert!(Change::between(&after, &after).is_empty());
}

/// One step on a policy.
#[derive(Clone, Debug)]
enum Step {
    Enter(u8, u8, u8),
    Leave(u8, u8),
    Expel(u8),
    Grant(u8, u8, u8, u8),
    Revoke(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..8, 0u8..4, 0u8..3).prop_map(|(who, group, name)| Step::Enter(who, group, name)),
        2 => (0u8..8, 0u8..4).prop_map(|(who, group)| Step::Leave(who, group)),
        1 => (0u8..8).prop_map(Step::Expel),
        3 => (0u8..4, 0u8..4, 0u8..3, 0u8..3).prop_map(|(a, b, d, p)| Step::Grant(a, b, d, p)),
        2 => (0u8..4, 0u8..4).prop_map(|(a, b)| Step::Revoke(a, b)),
    ];
    proptest::collection::vec(step, 1..24)
}

/// What is refused changes nothing.
fn take(policy: &mut Policy, step: &Step) {
    let groups = ["a", "b", "c", "d"].map(group);
    let mut next = policy.clone();
    let taken = match *step {
        Step::Enter(n, to, name) => {
            next.enter(who(n), card(&format!("{n}-{name}")), groups[usize::from(to)].clone())
        }
        Step::Leave(n, from) => next.leave(&who(n), &groups[usize::from(from)]),
        Step::Expel(n) => next.expel(&who(n)),
        Step::Grant(a, b, direction, protocols) => {
            let direction = [Direction::In, Direction::Out, Direction::Both][usize::from(direction)];
            let protocols: &[&str] = [&[][..], &["ping/1"], &["ping/1", "send/1"]][usize::from(protocols)];
            let (from, to) = (groups[usize::from(a)].as_str(), groups[usize::from(b)].as_str());
            next.grant(rule(from, to, direction, protocols, Until::Forever))
        }
        Step::Revoke(a, b) => next.revoke(&groups[usize::from(a)], &groups[usize::from(b)], None).map(|_| ()),
    };
    if taken.is_ok() {
        *policy = next;
    }
}

proptest! {
    #[test]
    fn changes_of_a_policy_lead_each_list_to_the_next(first in steps(), second in steps()) {
        let mut before = Policy::default();
        first.iter().for_each(|step| take(&mut before, step));
        let mut after = before.clone();
        second.iter().for_each(|step| take(&mut after, step));
        let deltas = before.deltas(&after).unwrap();
        for n in 0..8 {
            let (old, new) = (before.list_of(&who(n)).unwrap(), after.list_of(&who(n)).unwrap());
            let mut list = old.clone();
            if let Some(delta) = deltas.get(&who(n)) {
                for peer in &delta.gone {
                    list.remove(peer).unwrap();
                }
                for entry in &delta.put {
                    prop_assert_ne!(list.find(&entry.peer), Some(&**entry), "told for nothing");
                    list.put(entry.clone()).unwrap();
                }
            }
            prop_assert_eq!(&list, &new);
            prop_assert_eq!(deltas.contains_key(&who(n)), old != new);
        }
    }

    #[test]
    fn both_sides_of_a_pair_are_told_the_same(all in steps()) {
        let mut policy = Policy::default();
        all.iter().for_each(|step| take(&mut policy, step));
        for one in 0..8 {
            for other in 0..8 {
                for protocol in [PING, Protocol::new("send/1"), Protocol::new("other/1")] {
                    let out = permits(&policy, one, Opener::Own, other, &protocol);
                    prop_assert_eq!(out, permits(&policy, other, Opener::Peer, one, &protocol));
                }
            }
        }
    }
}
