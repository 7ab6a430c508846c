//! The issuer's book: who is admitted, renewed and revoked, and what each epoch says.

use std::collections::{BTreeMap, BTreeSet};

use kith_identity::Fingerprint;
use kith_identity::membership::pledge::{Kind, Pledge, Slot, VerifiedEvidence};
use kith_identity::membership::{
    Block, Counters, Enrolment, Issuer, IssuerError, Ledger, MemoryLedger, Network, NodeId, Request, Terms,
    Threshold, VerifiedMember,
};
use kith_sansio::Timestamp;
use proptest::prelude::*;

use super::{ISSUER, admit, issuer, network, request, roll};
use crate::support::{MADE, identity};

const DAY: u64 = 86_400;

#[test]
fn a_renewed_certificate_has_the_same_place_and_a_higher_number() {
    let mut issuer = issuer();
    let first = admit(&mut issuer, 1);
    let later = MADE.plus_secs(60 * DAY);
    let second = issuer.admit(&request(&identity(1)), later).unwrap();
    assert_eq!((second.id(), second.nonce()), (first.id(), first.nonce()));
    assert_eq!((first.serial(), second.serial()), (1, 2));
    assert_eq!(second.not_after(), later.plus_secs(90 * DAY));
    // Also when the old one has long ended.
    let third = issuer.admit(&request(&identity(1)), MADE.plus_secs(500 * DAY)).unwrap();
    assert_eq!(third.id(), first.id());
}

#[test]
fn asking_again_early_gives_the_same_certificate_so_that_it_costs_the_issuer_nothing() {
    let mut issuer = issuer();
    let first = admit(&mut issuer, 1);
    let again = issuer.admit(&request(&identity(1)), MADE.plus_secs(44 * DAY)).unwrap();
    assert_eq!(again, first);
    assert_eq!(issuer.ledger().counters().unwrap().serial, 1);
}

#[test]
fn a_member_cannot_take_another_random_function() {
    let mut issuer = issuer();
    admit(&mut issuer, 1);
    let mut other = Request::sign(&identity(1), &network()).to_bytes();
    other[15 + 32 + 44..15 + 32 + 76].copy_from_slice(identity(2).vrf_secret().key().as_bytes());
    let signature = identity(1).sign(&other[..15 + 32 + 76]);
    other[15 + 32 + 76..].copy_from_slice(&signature);
    let other = Request::from_bytes(&other).unwrap().verify(&network()).unwrap();
    let refused = issuer.admit(&other, MADE).unwrap_err();
    assert_eq!(refused, IssuerError::OtherVrf(identity(1).fingerprint()));
}

#[test]
fn who_is_revoked_is_gone_at_the_next_epoch_and_never_comes_back() {
    let mut issuer = issuer();
    let (gone, stays) = (admit(&mut issuer, 1), admit(&mut issuer, 2));
    let before = roll(&mut issuer);
    assert_eq!(issuer.revoke(&gone.fingerprint(), MADE), Ok(true));
    assert_eq!(issuer.revoke(&gone.fingerprint(), MADE), Ok(false));
    let after = roll(&mut issuer);
    assert!(before.members.path(&gone.id()).is_some() && after.members.path(&gone.id()).is_none());
    let path = after.members.path(&stays.id()).unwrap();
    assert_eq!(after.epoch.member(&path), Ok(&stays.leaf()));
    // The old proof does not hold in the new epoch, nor does the new one in the old.
    let old = before.members.path(&gone.id()).unwrap();
    assert!(before.epoch.member(&old).is_ok() && after.epoch.member(&old).is_err());
    for (member, revoked) in [(&gone, true), (&stays, false)] {
        let place = NodeId::from_bytes(*member.fingerprint().as_bytes());
        let range = after.revoked.range(&Block::around(&place, 255)).unwrap();
        let found = after.epoch.revoked(&range).unwrap();
        assert_eq!(found.iter().any(|leaf| leaf.0 == member.fingerprint()), revoked);
    }
    let refused = issuer.admit(&request(&identity(1)), MADE.plus_secs(500 * DAY)).unwrap_err();
    assert_eq!(refused, IssuerError::Revoked(gone.fingerprint()));
}

#[test]
fn a_certificate_that_has_ended_needs_no_revocation() {
    let mut issuer = issuer();
    let member = admit(&mut issuer, 1);
    issuer.revoke(&member.fingerprint(), MADE).unwrap();
    assert_eq!(roll(&mut issuer).revoked.leaves().len(), 1);
    let ended = issuer.roll(member.not_after(), |_, _, _| [0; 32]).unwrap();
    assert!(ended.revoked.leaves().is_empty() && ended.members.leaves().is_empty());
}

#[test]
fn a_stranger_cannot_be_revoked() {
    let stranger = identity(9).fingerprint();
    assert_eq!(issuer().revoke(&stranger, MADE), Err(IssuerError::Unknown(stranger)));
}

#[test]
fn evidence_of_this_network_revokes_and_of_another_does_not() {
    let mut issuer = issuer();
    let member = admit(&mut issuer, 1);
    let evidence = |network| {
        let slot = Slot::numbered(Kind::from_bytes(*b"ticket          ").unwrap(), network, 1);
        let pledges = [Pledge::new(slot, b"one"), Pledge::new(slot, b"other")];
        let signatures = pledges.map(|pledge| pledge.sign(&identity(1)));
        VerifiedEvidence::of(member.key(), (&pledges[0], &signatures[0]), (&pledges[1], &signatures[1]))
            .unwrap()
    };
    let foreign = Fingerprint::from_bytes([1; 32]);
    assert_eq!(issuer.accuse(&evidence(foreign), MADE), Err(IssuerError::Foreign(foreign)));
    assert_eq!(roll(&mut issuer).members.leaves().len(), 1);
    assert_eq!(issuer.accuse(&evidence(network()), MADE), Ok(true));
    assert!(roll(&mut issuer).members.leaves().is_empty());
}

#[test]
fn two_statements_of_one_epoch_are_evidence_against_the_issuer() {
    // An issuer whose book was put back to yesterday's.
    let (mut one, mut other) = (issuer(), issuer());
    admit(&mut one, 1);
    let statements = [roll(&mut one).epoch, roll(&mut other).epoch].map(|epoch| epoch.as_epoch().clone());
    let [one, other] = statements.map(|statement| (statement.pledge(), statement.signature()));
    let key = identity(ISSUER).public();
    let evidence = VerifiedEvidence::of(&key, (&one.0, &one.1), (&other.0, &other.1)).unwrap();
    assert_eq!(evidence.slot(), &Slot::numbered(Kind::EPOCH, network(), 1));
}

#[test]
fn epochs_count_up_and_say_how_many_there_are() {
    let mut issuer = issuer();
    for seed in 1..=30 {
        admit(&mut issuer, seed);
    }
    for number in 1..4 {
        let mut asked = None;
        let rolled = issuer
            .roll(MADE, |members, colluding, threshold| {
                asked = Some((members, colluding, threshold));
                [9; 32]
            })
            .unwrap();
        let facts = rolled.epoch.facts();
        assert_eq!((facts.epoch, facts.members, facts.colluding, facts.k_table), (number, 30, 10, [9; 32]));
        assert_eq!(asked, Some((30, 10, Threshold::DEFAULT)));
    }
}

#[test]
fn one_in_a_hundred_may_collude_and_ten_in_any_case() {
    let terms = Terms::default();
    for (members, colluding) in [(0, 10), (1000, 10), (1001, 11), (100_000, 1000), (10_000_000, 100_000)] {
        assert_eq!(terms.colluding(members), colluding);
    }
    let all = Terms { colluding_per_mille: u32::MAX, ..terms };
    assert_eq!(all.colluding(u64::MAX), u64::MAX);
}

/// A ledger whose next writings fail.
struct Failing(MemoryLedger, bool);

impl Ledger for Failing {
    type Error = &'static str;

    fn enrolment(&self, member: &Fingerprint) -> Result<Option<Enrolment>, &'static str> {
        Ok(self.0.enrolment(member).unwrap())
    }

    fn enrolments(&self) -> Result<Vec<Enrolment>, &'static str> {
        Ok(self.0.enrolments().unwrap())
    }

    fn counters(&self) -> Result<Counters, &'static str> {
        Ok(self.0.counters().unwrap())
    }

    fn write(&mut self, counters: Counters, enrolment: Option<&Enrolment>) -> Result<(), &'static str> {
        if self.1 {
            return Err("the disk is full");
        }
        self.0.write(counters, enrolment).map_err(|never| match never {})
    }
}

#[test]
fn what_the_ledger_did_not_take_is_not_given_out() {
    let mut issuer = Issuer::new(identity(ISSUER), Terms::default(), Failing(MemoryLedger::default(), true));
    let failed = IssuerError::Ledger("the disk is full");
    assert_eq!(issuer.admit(&request(&identity(1)), MADE).unwrap_err(), failed);
    assert_eq!(issuer.roll(MADE, |_, _, _| panic!("nothing is stated")).unwrap_err(), failed);
    assert_eq!(issuer.ledger().counters(), Ok(Counters::default()));
}

#[test]
fn a_row_of_the_ledger_is_read_as_it_was_written_and_in_no_other_form() {
    let mut issuer = issuer();
    let member = admit(&mut issuer, 1);
    for revoked in [None, Some(MADE)] {
        let enrolment = Enrolment { member: member.as_member().clone(), revoked };
        let row = enrolment.to_bytes();
        assert_eq!(Enrolment::from_bytes(&row), Ok(enrolment));
        assert!(Enrolment::from_bytes(&row[1..]).is_err());
        assert!(Enrolment::from_bytes(&[&row[..], &[0]].concat()).is_err());
    }
    issuer.revoke(&member.fingerprint(), Timestamp(0)).unwrap();
    let row = issuer.ledger().enrolment(&member.fingerprint()).unwrap().unwrap().to_bytes();
    assert!(Enrolment::from_bytes(&row).unwrap().revoked.is_some(), "revoked, however wrong the clock was");
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u64),
    Revoke(u64),
    Roll,
    Wait(u64),
    /// The clock is set back.
    Back(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..6).prop_map(Step::Admit),
        1 => (0u64..6).prop_map(Step::Revoke),
        2 => Just(Step::Roll),
        2 => (0..70 * DAY).prop_map(Step::Wait),
        1 => (0..200 * DAY).prop_map(Step::Back),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Against a model: the last certificate of each, and who was revoked; whatever the clock does.
    #[test]
    fn an_epoch_says_who_was_admitted_and_has_neither_ended_nor_been_revoked(steps in steps()) {
        let (mut issuer, mut now) = (issuer(), MADE);
        let (mut last, mut revoked) = (BTreeMap::<u64, VerifiedMember>::new(), BTreeSet::new());
        let (mut places, mut serials, mut epoch) = (BTreeMap::new(), BTreeSet::new(), 0);
        for step in steps {
            match step {
                Step::Wait(seconds) => now = now.plus_secs(seconds),
                Step::Back(seconds) => now = now.minus_secs(seconds),
                Step::Admit(seed) => match issuer.admit(&request(&identity(seed)), now) {
                    Err(refused) => {
                        prop_assert_eq!(refused, IssuerError::Revoked(identity(seed).fingerprint()));
                        prop_assert!(revoked.contains(&seed));
                    }
                    Ok(member) => {
                        prop_assert!(!revoked.contains(&seed));
                        let again = member.as_member().clone().verify(&Network::of(&identity(ISSUER)), now);
                        prop_assert_eq!(again.as_ref(), Ok(&member));
                        prop_assert_eq!(*places.entry(seed).or_insert(member.id()), member.id());
                        let before = last.insert(seed, member.clone());
                        let same = before.as_ref() == Some(&member);
                        prop_assert_eq!(serials.insert(member.serial()), !same, "no number is used twice");
                        // A revocation is told until the last certificate of a key ends: none that is out ends later.
                        prop_assert!(before.is_none_or(|before| before.not_after() <= member.not_after()));
                    }
                },
                Step::Revoke(seed) => {
                    let known = last.contains_key(&seed);
                    let answer = issuer.revoke(&identity(seed).fingerprint(), now);
                    prop_assert_eq!(answer.is_ok(), known);
                    if known {
                        prop_assert_eq!(answer, Ok(revoked.insert(seed)));
                    }
                }
                Step::Roll => {
                    let rolled = issuer.roll(now, |_, _, _| [0; 32]).unwrap();
                    epoch += 1;
                    prop_assert_eq!(rolled.epoch.facts().epoch, epoch);
                    let valid = last.iter().filter(|(_, one)| one.not_after() > now).map(|(seed, _)| *seed);
                    let (gone, members): (BTreeSet<_>, BTreeSet<_>) = valid.partition(|seed| revoked.contains(seed));
                    let places: BTreeSet<_> = members.iter().map(|seed| places[seed]).collect();
                    let range = rolled.members.range(&Block::WHOLE).unwrap();
                    let stated = rolled.epoch.block(&range).unwrap();
                    prop_assert_eq!(stated.iter().map(|leaf| leaf.id).collect::<BTreeSet<_>>(), places);
                    let range = rolled.revoked.range(&Block::WHOLE).unwrap();
                    let stated = rolled.epoch.revoked(&range).unwrap();
                    let gone: BTreeSet<_> = gone.iter().map(|seed| identity(*seed).fingerprint()).collect();
                    prop_assert_eq!(stated.iter().map(|leaf| leaf.0).collect::<BTreeSet<_>>(), gone);
                }
            }
        }
    }
}
