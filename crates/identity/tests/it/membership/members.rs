//! What a node knows about who is a member.

use kith_identity::Fingerprint;
use kith_identity::membership::pledge::{Kind, Pledge, Slot, VerifiedEvidence};
use kith_identity::membership::{
    Adopted, Block, Issuer, Member, Members, MemoryLedger, NodeId, ShowError, StatementError, Terms,
    VerifiedEpoch,
};
use kith_sansio::Timestamp;
use proptest::prelude::*;

use super::{admit, issuer, network, request, roll};
use crate::support::{MADE, identity};

fn fingerprint(seed: u64) -> Fingerprint {
    identity(seed).fingerprint()
}

fn certificate(issuer: &mut Issuer<MemoryLedger>, seed: u64) -> Member {
    admit(issuer, seed).as_member().clone()
}

fn evidence(seed: u64, network: Fingerprint) -> VerifiedEvidence {
    let slot = Slot::numbered(Kind::from_bytes(*b"ticket          ").unwrap(), network, 1);
    let pledges = [Pledge::new(slot, b"one"), Pledge::new(slot, b"other")];
    let signatures = pledges.map(|pledge| pledge.sign(&identity(seed)));
    let key = identity(seed).public();
    VerifiedEvidence::of(&key, (&pledges[0], &signatures[0]), (&pledges[1], &signatures[1])).unwrap()
}

#[test]
fn who_has_shown_a_certificate_is_a_member_until_it_ends() {
    let mut issuer = issuer();
    let mut members = Members::new(roll(&mut issuer).epoch, 10);
    let shown = certificate(&mut issuer, 1);
    assert!(!members.is_member(&fingerprint(1), MADE));
    let member = members.show(&fingerprint(1), shown.clone(), MADE).unwrap();
    let end = member.not_after();
    assert!(
        members.is_member(&fingerprint(1), MADE) && members.is_member(&fingerprint(1), end.minus_secs(1))
    );
    assert!(!members.is_member(&fingerprint(1), end) && !members.is_member(&fingerprint(2), MADE));
    assert_eq!(members.next_end(), Some(end));
    assert!(!members.tidy(end.minus_secs(1)) && members.tidy(end) && !members.tidy(end));
    assert_eq!(members.next_end(), None);
    let late = members.show(&fingerprint(1), shown, end);
    assert_eq!(late.unwrap_err(), ShowError::Statement(StatementError::Expired(end)));
}

#[test]
fn a_renewed_certificate_takes_the_place_of_the_old_one() {
    let mut issuer = issuer();
    let mut members = Members::new(roll(&mut issuer).epoch, 10);
    let old = members.show(&fingerprint(1), certificate(&mut issuer, 1), MADE).unwrap();
    let later = MADE.plus_secs(60 * 86_400);
    let renewed = issuer.admit(&request(&identity(1)), later).unwrap();
    members.show(&fingerprint(1), renewed.as_member().clone(), later).unwrap();
    assert!(!members.tidy(old.not_after()));
    assert!(members.is_member(&fingerprint(1), old.not_after()));
}

#[test]
fn nobody_is_a_member_by_the_certificate_of_another() {
    let mut issuer = issuer();
    let mut members = Members::new(roll(&mut issuer).epoch, 10);
    let refused = members.show(&fingerprint(2), certificate(&mut issuer, 1), MADE).unwrap_err();
    assert_eq!(refused, ShowError::NotTheirs { peer: fingerprint(2), found: fingerprint(1) });
    assert!(!members.is_member(&fingerprint(1), MADE) && !members.is_member(&fingerprint(2), MADE));
}

#[test]
fn who_is_revoked_is_dropped_at_the_epoch_that_tells_it_and_cannot_show_the_certificate_again() {
    let mut issuer = issuer();
    let mut members = Members::new(roll(&mut issuer).epoch, 10);
    for seed in 1..4 {
        members.show(&fingerprint(seed), certificate(&mut issuer, seed), MADE).unwrap();
    }
    issuer.revoke(&fingerprint(1), MADE).unwrap();
    let rolled = roll(&mut issuer);
    let whole = rolled.revoked.range(&Block::WHOLE).unwrap();
    assert!(members.revoke(&whole).is_err(), "the revocations of an epoch that is not known yet");
    assert_eq!(members.adopt(rolled.epoch), Ok(Adopted::Newest));
    members.revoke(&whole).unwrap();
    let still: Vec<_> = (1..4).filter(|seed| members.is_member(&fingerprint(*seed), MADE)).collect();
    assert_eq!(still, [2, 3]);
    let again = members.show(&fingerprint(1), certificate(&mut super::issuer(), 1), MADE).unwrap_err();
    assert_eq!(again, ShowError::Barred(fingerprint(1)));
}

#[test]
fn revocations_may_come_block_by_block() {
    let mut issuer = issuer();
    let mut members = Members::new(roll(&mut issuer).epoch, 100);
    for seed in 1..30 {
        members.show(&fingerprint(seed), certificate(&mut issuer, seed), MADE).unwrap();
        issuer.revoke(&fingerprint(seed), MADE).unwrap();
    }
    let rolled = roll(&mut issuer);
    assert_eq!(members.adopt(rolled.epoch.clone()), Ok(Adopted::Newest));
    for half in [[0; 32], [0xff; 32]] {
        let block = Block::around(&NodeId::from_bytes(half), 1);
        members.revoke(&rolled.revoked.range(&block).unwrap()).unwrap();
        for seed in 1..30 {
            let told = half == [0xff; 32] || fingerprint(seed).as_bytes()[0] < 0x80;
            assert_eq!(members.is_barred(&fingerprint(seed)), told);
            assert_eq!(members.is_member(&fingerprint(seed), MADE), !told);
        }
    }
}

#[test]
fn who_has_broken_a_pledge_is_dropped_at_once() {
    let mut issuer = issuer();
    let mut members = Members::new(roll(&mut issuer).epoch, 10);
    members.show(&fingerprint(1), certificate(&mut issuer, 1), MADE).unwrap();
    assert!(!members.accuse(&evidence(1, Fingerprint::from_bytes([1; 32]))), "about another network");
    assert!(members.is_member(&fingerprint(1), MADE));
    assert!(members.accuse(&evidence(1, network())));
    assert!(!members.accuse(&evidence(1, network())));
    assert!(!members.is_member(&fingerprint(1), MADE));
    let again = members.show(&fingerprint(1), certificate(&mut issuer, 1), MADE).unwrap_err();
    assert_eq!(again, ShowError::Barred(fingerprint(1)));
}

#[test]
fn evidence_about_strangers_fills_no_memory() {
    let mut members = Members::new(roll(&mut issuer()).epoch, 10);
    assert!(!members.accuse(&evidence(1, network())));
    assert!(!members.is_barred(&fingerprint(1)));
}

#[test]
fn of_too_many_those_are_forgotten_whose_certificates_end_first() {
    let mut issuer = issuer();
    let mut members = Members::new(roll(&mut issuer).epoch, 3);
    for (seed, hours) in [(1, 5), (2, 1), (3, 4), (4, 2), (5, 3)] {
        let now = MADE.plus_secs(hours * 3600);
        let member = issuer.admit(&request(&identity(seed)), now).unwrap();
        members.show(&fingerprint(seed), member.as_member().clone(), now).unwrap();
    }
    let known: Vec<_> = (1..6).filter(|seed| members.is_member(&fingerprint(*seed), MADE)).collect();
    assert_eq!(known, [1, 3, 5]);
}

#[test]
fn who_shows_a_certificate_is_a_member_also_where_there_is_no_room_and_all_others_end_later() {
    for (most, left) in [(2, vec![1, 3]), (1, vec![1]), (0, vec![1])] {
        let mut issuer = issuer();
        let mut members = Members::new(roll(&mut issuer).epoch, most);
        let mut certificates = Vec::new();
        for (seed, hours) in [(1, 1), (2, 2), (3, 3)] {
            let now = MADE.plus_secs(hours * 3600);
            let member = issuer.admit(&request(&identity(seed)), now).unwrap();
            certificates.push((seed, now, member.as_member().clone()));
        }
        certificates.reverse();
        let last = MADE.plus_secs(3 * 3600);
        for (seed, _, certificate) in certificates {
            members.show(&fingerprint(seed), certificate.clone(), last).unwrap();
            assert!(members.is_member(&fingerprint(seed), last));
            // Shown again it takes nobody's place.
            let before = members.len();
            members.show(&fingerprint(seed), certificate, last).unwrap();
            assert!(members.is_member(&fingerprint(seed), last) && members.len() == before);
        }
        let known: Vec<_> = (1..4).filter(|seed| members.is_member(&fingerprint(*seed), last)).collect();
        assert_eq!(known, left, "{most} are remembered");
    }
}

#[test]
fn the_newest_epoch_counts_and_two_of_one_number_are_evidence_against_the_issuer() {
    let (mut one, mut other) = (issuer(), issuer());
    admit(&mut other, 1);
    let epochs: Vec<VerifiedEpoch> = (0..3).map(|_| roll(&mut one).epoch).collect();
    let mut members = Members::new(epochs[1].clone(), 10);
    assert_eq!(members.adopt(epochs[0].clone()), Ok(Adopted::Known));
    assert_eq!(members.adopt(epochs[1].clone()), Ok(Adopted::Known));
    roll(&mut other);
    let Ok(Adopted::Contradiction(evidence)) = members.adopt(roll(&mut other).epoch) else {
        panic!("not noticed")
    };
    assert_eq!((evidence.signer().fingerprint(), evidence.slot().kind), (network(), Kind::EPOCH));
    assert_eq!(members.epoch(), &epochs[1]);
    assert_eq!(members.adopt(epochs[2].clone()), Ok(Adopted::Newest));
    assert_eq!(members.epoch(), &epochs[2]);
    let mut foreign = Issuer::new(identity(77), Terms::default(), MemoryLedger::default());
    let foreign = foreign.roll(MADE, |_, _, _| [0; 32]).unwrap().epoch;
    let refused = members.adopt(foreign).unwrap_err();
    assert_eq!(refused, StatementError::Network { wanted: network(), found: fingerprint(77) });
}

#[derive(Clone, Debug)]
enum Step {
    Show(u64),
    Accuse(u64),
    Revoke(u64),
    Wait(u64),
    /// The clock is set back.
    Back(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Against a model that never forgets but what has ended, whatever the clock does.
    #[test]
    fn nobody_is_a_member_who_has_not_shown_or_is_barred_or_has_ended(
        steps in prop::collection::vec(
            prop_oneof![
                4 => (0u64..5).prop_map(Step::Show),
                1 => (0u64..5).prop_map(Step::Accuse),
                1 => (0u64..5).prop_map(Step::Revoke),
                1 => (0u64..40 * 86_400).prop_map(Step::Wait),
                1 => (0u64..60 * 86_400).prop_map(Step::Back),
            ],
            0..30,
        ),
    ) {
        let (mut issuer, mut now) = (issuer(), MADE);
        let mut members = Members::new(roll(&mut issuer).epoch, 100);
        let (mut until, mut barred) = (std::collections::BTreeMap::<u64, Timestamp>::new(), std::collections::BTreeSet::new());
        for step in steps {
            match step {
                Step::Wait(seconds) => now = now.plus_secs(seconds),
                Step::Back(seconds) => now = now.minus_secs(seconds),
                Step::Show(seed) => {
                    let Ok(member) = issuer.admit(&request(&identity(seed)), now) else { continue };
                    let shown = members.show(&fingerprint(seed), member.as_member().clone(), now);
                    prop_assert_eq!(shown.is_ok(), !barred.contains(&seed));
                    if shown.is_ok() {
                        until.insert(seed, member.not_after());
                    }
                }
                Step::Accuse(seed) => {
                    if members.accuse(&evidence(seed, network())) {
                        barred.insert(seed);
                    }
                }
                Step::Revoke(seed) => {
                    let _ = issuer.revoke(&fingerprint(seed), now);
                    let rolled = issuer.roll(now, |_, _, _| [0; 32]).unwrap();
                    prop_assert_eq!(members.adopt(rolled.epoch.clone()), Ok(Adopted::Newest));
                    members.revoke(&rolled.revoked.range(&Block::WHOLE).unwrap()).unwrap();
                    barred.extend(rolled.revoked.leaves().iter().filter_map(|leaf| (0..5).find(|seed| fingerprint(*seed) == leaf.0)));
                }
            }
            members.tidy(now);
            until.retain(|_, end| now < *end);
            for seed in 0..5 {
                let valid = until.contains_key(&seed);
                prop_assert_eq!(members.is_member(&fingerprint(seed), now), valid && !barred.contains(&seed));
            }
        }
    }
}
