//! Pledges, and the evidence that one was broken.

use kith_identity::membership::pledge::{
    EVIDENCE_BYTES, Evidence, EvidenceError, Kind, Pledge, Slot, VerifiedEvidence,
};
use kith_identity::{Fingerprint, Identity, KeyError, fuzz};
use proptest::prelude::*;

use crate::support::identity;

fn slot(number: u64) -> Slot {
    Slot::numbered(Kind::from_bytes(*b"ticket          ").unwrap(), Fingerprint::from_bytes([3; 32]), number)
}

fn accuse(signer: &Identity, one: Pledge, other: Pledge) -> Result<VerifiedEvidence, EvidenceError> {
    let signatures = [one.sign(signer), other.sign(signer)];
    VerifiedEvidence::of(&signer.public(), (&one, &signatures[0]), (&other, &signatures[1]))
}

fn evidence() -> VerifiedEvidence {
    accuse(&identity(1), Pledge::new(slot(1), b"one"), Pledge::new(slot(1), b"other")).unwrap()
}

#[test]
fn two_contents_of_one_slot_are_evidence_that_anybody_can_check() {
    let evidence = evidence();
    assert_eq!(*evidence.signer(), identity(1).public());
    assert_eq!((*evidence.slot(), evidence.slot().kind.to_string()), (slot(1), "ticket".to_owned()));
    let bytes = evidence.as_evidence().to_bytes();
    assert_eq!(bytes.len(), EVIDENCE_BYTES);
    assert_eq!(Evidence::from_bytes(&bytes).and_then(Evidence::verify), Ok(evidence.clone()));
    // Whichever was seen first, it is the same evidence.
    let turned = accuse(&identity(1), Pledge::new(slot(1), b"other"), Pledge::new(slot(1), b"one"));
    assert_eq!(turned, Ok(evidence));
}

#[test]
fn saying_the_same_twice_or_different_things_about_different_slots_is_no_offence() {
    let one = Pledge::new(slot(1), b"one");
    assert_eq!(accuse(&identity(1), one, one), Err(EvidenceError::NoContradiction));
    let elsewhere = [
        slot(2),
        Slot { kind: Kind::EPOCH, ..slot(1) },
        Slot { network: Fingerprint::from_bytes([4; 32]), ..slot(1) },
    ];
    for other in elsewhere {
        let other = Pledge::new(other, b"other");
        assert_eq!(accuse(&identity(1), one, other), Err(EvidenceError::DifferentSlots));
    }
}

#[test]
fn nobody_is_accused_by_what_another_signed() {
    let pledges = [Pledge::new(slot(1), b"one"), Pledge::new(slot(1), b"other")];
    let (mine, theirs) = (pledges[0].sign(&identity(1)), pledges[1].sign(&identity(2)));
    for (one, other) in
        [((&pledges[0], &mine), (&pledges[1], &theirs)), ((&pledges[1], &theirs), (&pledges[0], &mine))]
    {
        for accused in [1, 2] {
            let accused = identity(accused).public();
            assert_eq!(VerifiedEvidence::of(&accused, one, other), Err(EvidenceError::Signature));
        }
    }
}

#[test]
fn every_flipped_bit_of_evidence_is_refused() {
    let good = evidence().as_evidence().to_bytes();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Evidence::from_bytes(&bad).and_then(Evidence::verify).is_err(), "bit {bit}");
    }
}

#[test]
fn a_key_under_which_anybody_can_sign_accuses_nobody() {
    let mut bad = evidence().as_evidence().to_bytes();
    bad[19 + 12..19 + 44].fill(0);
    bad[19 + 12] = 1;
    let refused = Evidence::from_bytes(&bad).and_then(Evidence::verify);
    assert_eq!(refused, Err(EvidenceError::Key(KeyError::SmallOrder)));
}

#[test]
fn a_kind_is_one_word_with_blanks_behind_it() {
    for bad in [
        b"                ",
        b"Ticket          ",
        b"two words       ",
        b" ticket         ",
        b"ticket1         ",
        b"ticket\0\0\0\0\0\0\0\0\0\0",
    ] {
        assert_eq!(Kind::from_bytes(*bad), Err(EvidenceError::Kind));
    }
    assert_eq!(
        Kind::from_bytes(*b"exactly-sixteen-").map(|kind| kind.to_string()),
        Ok("exactly-sixteen-".to_owned())
    );
    assert_eq!(Kind::from_bytes(*b"member          "), Ok(Kind::MEMBER));
}

#[test]
fn a_pledge_is_a_signature_over_what_the_page_says() {
    let pledge = Pledge::new(slot(5), b"statement");
    let by_hand =
        [&b"kithnet pledge v1ticket          "[..], &[3; 32], &[0; 31], &[5], &pledge.content].concat();
    assert_eq!(pledge.message(), by_hand);
    assert_eq!(pledge.verify(&identity(1).public(), &identity(1).sign(&by_hand)), Ok(()));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_one_evidence(data: Vec<u8>, at in 0..EVIDENCE_BYTES, value: u8) {
        fuzz::fuzz_membership(&data);
        let mut almost = evidence().as_evidence().to_bytes();
        almost[at] = value;
        fuzz::fuzz_membership(&almost);
    }
}
