//! Certificates, requests and statements of epochs: what is signed, what is refused, and the one form they have.

use kith_identity::membership::{
    EPOCH_BYTES, Epoch, Issuer, MEMBER_BYTES, Member, MemoryLedger, Network, NodeId, REQUEST_BYTES, Request,
    StatementError, Terms, Threshold, VerifiedEpoch, VerifiedMember,
};
use kith_identity::vrf::VrfError;
use kith_identity::{Fingerprint, Identity, KeyError, fuzz};
use kith_sansio::{Rng, SeededRng, Timestamp};
use proptest::prelude::*;
use sha3::{Digest, Sha3_256};

use super::{ISSUER, admit, issuer, network, request, roll};
use crate::support::{MADE, VECTOR_KEY, identity};

const VECTORS: &str = include_str!("../vectors/membership.txt");

fn certificate() -> [u8; MEMBER_BYTES] {
    admit(&mut issuer(), 1).as_member().to_bytes()
}

fn statement() -> [u8; EPOCH_BYTES] {
    let mut issuer = issuer();
    for seed in 1..4 {
        admit(&mut issuer, seed);
    }
    roll(&mut issuer).epoch.as_epoch().to_bytes()
}

fn verify_member(bytes: &[u8]) -> Result<VerifiedMember, StatementError> {
    Member::from_bytes(bytes)?.verify(&Network::of(&identity(ISSUER)), MADE)
}

fn verify_epoch(bytes: &[u8]) -> Result<VerifiedEpoch, StatementError> {
    Epoch::from_bytes(bytes)?.verify(&network())
}

/// Signs a certificate again after its bytes were changed, as a dishonest issuer would.
fn sign_member(bytes: &mut [u8; MEMBER_BYTES], issuer: &Identity) {
    let signature = Member::from_bytes(bytes).unwrap().pledge().sign(issuer);
    bytes[MEMBER_BYTES - 64..].copy_from_slice(&signature);
}

fn vector(name: &str) -> Vec<u8> {
    let line = VECTORS.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    data_encoding::HEXLOWER.decode(line.trim().as_bytes()).unwrap()
}

#[test]
fn a_certificate_says_who_belongs_where_and_for_how_long() {
    let member = verify_member(&certificate()).unwrap();
    assert_eq!(member.fingerprint(), identity(1).fingerprint());
    assert_eq!(*member.vrf(), identity(1).vrf_secret().key());
    assert_eq!(member.id(), NodeId::of(&member.fingerprint(), member.nonce()));
    assert_eq!((member.serial(), member.not_before()), (1, MADE));
    assert_eq!(member.not_after(), MADE.plus_secs(90 * 86_400));
    assert_eq!(member.leaf().fingerprint(), member.fingerprint());
    assert_eq!(member.leaf().public_key().as_ref(), Ok(member.key()));
    assert_eq!(member.leaf().vrf_key().as_ref(), Ok(member.vrf()));
}

#[test]
fn the_nonce_is_the_issuers_random_output_on_network_and_fingerprint() {
    let (issuing, member) = (identity(ISSUER), verify_member(&certificate()).unwrap());
    let input = [b"kithnet nonce v1", &network().as_bytes()[..], member.fingerprint().as_bytes()].concat();
    let output = issuing.vrf_secret().prove(&input).claimed_output().unwrap();
    assert_eq!(member.nonce().as_bytes(), output.as_bytes());
}

#[test]
fn signing_what_the_vectors_say_gives_the_vectors() {
    let issuing = Identity::from_pem(VECTOR_KEY, None).unwrap();
    let network = issuing.fingerprint();
    let ledger = MemoryLedger::default();
    let mut issuer = Issuer::new(issuing, Terms::default(), ledger);
    let join = Request::sign(&identity(1), &network);
    assert_eq!(join.to_bytes(), &vector("request")[..]);
    let member = issuer.admit(&join.verify(&network).unwrap(), MADE).unwrap();
    assert_eq!(member.as_member().to_bytes(), &vector("member")[..]);
    assert_eq!(member.id().as_bytes(), &vector("id")[..]);
    let rolled = issuer.roll(MADE, |_, _, _| Sha3_256::digest(b"no table").into()).unwrap();
    assert_eq!(rolled.epoch.as_epoch().to_bytes(), &vector("epoch")[..]);
}

#[test]
fn every_flipped_bit_of_a_certificate_a_request_and_an_epoch_is_refused() {
    let (member, epoch) = (certificate(), statement());
    let join = Request::sign(&identity(1), &network()).to_bytes();
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        bad
    };
    for bit in 0..MEMBER_BYTES * 8 {
        assert!(verify_member(&flipped(&member, bit)).is_err(), "bit {bit} of the certificate");
    }
    for bit in 0..EPOCH_BYTES * 8 {
        assert!(verify_epoch(&flipped(&epoch, bit)).is_err(), "bit {bit} of the epoch");
    }
    for bit in 0..REQUEST_BYTES * 8 {
        let read = Request::from_bytes(&flipped(&join, bit)).and_then(|request| request.verify(&network()));
        assert!(read.is_err(), "bit {bit} of the request");
    }
}

#[test]
fn a_certificate_is_valid_in_its_time_alone() {
    let at = |now| Member::from_bytes(&certificate()).unwrap().verify(&Network::of(&identity(ISSUER)), now);
    let end = MADE.plus_secs(90 * 86_400);
    assert_eq!(at(MADE.minus_secs(1)), Err(StatementError::NotYet(MADE)));
    assert!(at(MADE).is_ok() && at(end.minus_secs(1)).is_ok());
    assert_eq!(at(end), Err(StatementError::Expired(end)));
}

#[test]
fn a_certificate_of_another_network_says_nothing_here() {
    let other = Network::of(&identity(ISSUER + 1));
    let refused = Member::from_bytes(&certificate()).unwrap().verify(&other, MADE);
    assert_eq!(refused, Err(StatementError::Network { wanted: other.id(), found: network() }));
}

#[test]
fn an_issuer_cannot_choose_a_place() {
    let (issuing, mut chosen) = (identity(ISSUER), certificate());
    // The proof of another member's nonce, signed for this one: its place would be known to be a better one.
    let other = admit(&mut issuer(), 2).as_member().to_bytes();
    let proof = 17 + 76 + 44 + 32..17 + 76 + 44 + 32 + 80;
    chosen[proof.clone()].copy_from_slice(&other[proof]);
    sign_member(&mut chosen, &issuing);
    assert_eq!(verify_member(&chosen), Err(StatementError::Nonce(VrfError::Proof)));
}

#[test]
fn an_issuer_with_another_random_function_is_another_network() {
    let mut changed = certificate();
    let other = *identity(3).vrf_secret().key().as_bytes();
    changed[17 + 44..17 + 76].copy_from_slice(&other);
    sign_member(&mut changed, &identity(ISSUER));
    assert!(matches!(verify_member(&changed), Err(StatementError::Network { .. })));
}

#[test]
fn a_key_of_small_order_is_no_member_whoever_signs_it() {
    let small = [&[1][..], &[0; 31]].concat();
    for (place, why) in [
        (17 + 76 + 12, StatementError::Key(KeyError::SmallOrder)),
        (17 + 76 + 44, StatementError::Nonce(VrfError::Key)),
    ] {
        let mut bad = certificate();
        bad[place..place + 32].copy_from_slice(&small);
        sign_member(&mut bad, &identity(ISSUER));
        assert_eq!(verify_member(&bad), Err(why));
    }
}

#[test]
fn times_that_cannot_be_are_refused_before_any_signature_is_looked_at() {
    let times = 17 + 76 + 44 + 32 + 80 + 8;
    for (from, to) in [(5, 5), (6, 5), (0, u64::MAX), (u64::MAX, u64::MAX)] {
        let mut bad = certificate();
        bad[times..times + 8].copy_from_slice(&u64::to_be_bytes(from));
        bad[times + 8..times + 16].copy_from_slice(&u64::to_be_bytes(to));
        assert_eq!(Member::from_bytes(&bad), Err(StatementError::Times), "{from} to {to}");
    }
    for (starts, seconds) in [(5, 0), (u64::MAX, 1), (Timestamp::MAX.0, 1)] {
        let mut bad = statement();
        bad[100..108].copy_from_slice(&u64::to_be_bytes(starts));
        bad[108..112].copy_from_slice(&u32::to_be_bytes(seconds));
        assert_eq!(Epoch::from_bytes(&bad), Err(StatementError::Times), "{starts} for {seconds}");
    }
}

#[test]
fn a_threshold_lies_between_nothing_and_everything() {
    for alpha in [0.0, -0.0, 1.0, 2.0, -1e-6, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE / 2.0] {
        assert_eq!(Threshold::new(alpha), None);
        let mut bad = statement();
        bad[128..136].copy_from_slice(&alpha.to_bits().to_be_bytes());
        assert_eq!(Epoch::from_bytes(&bad), Err(StatementError::Threshold), "{alpha}");
    }
    assert_eq!(Threshold::new(1e-12), Some(Threshold::DEFAULT));
    assert_eq!(Threshold::DEFAULT.alpha(), 1e-12);
}

#[test]
fn an_epoch_is_verified_from_the_issuers_fingerprint_alone() {
    let epoch = verify_epoch(&statement()).unwrap();
    assert_eq!(epoch.network(), &Network::of(&identity(ISSUER)));
    let facts = epoch.facts();
    assert_eq!((facts.epoch, facts.members, facts.colluding), (1, 3, 10));
    assert_eq!((facts.starts, facts.ends()), (MADE, MADE.plus_secs(3600)));
    assert_eq!((facts.threshold, facts.k_table), (Threshold::DEFAULT, [7; 32]));
    let other = Fingerprint::from_bytes([1; 32]);
    let refused = Epoch::from_bytes(&statement()).unwrap().verify(&other);
    assert_eq!(refused, Err(StatementError::Network { wanted: other, found: network() }));
}

#[test]
fn statements_have_one_length_and_one_tag() {
    let (member, epoch) = (certificate(), statement());
    let join = Request::sign(&identity(1), &network()).to_bytes();
    for cut in 0..MEMBER_BYTES {
        assert_eq!(Member::from_bytes(&member[..cut]), Err(StatementError::Length(cut)));
    }
    for cut in 0..EPOCH_BYTES {
        assert_eq!(Epoch::from_bytes(&epoch[..cut]), Err(StatementError::Length(cut)));
    }
    for cut in 0..REQUEST_BYTES {
        assert_eq!(Request::from_bytes(&join[..cut]), Err(StatementError::Length(cut)));
    }
    for (mut bytes, version) in [(member.to_vec(), 16), (epoch.to_vec(), 15), (join.to_vec(), 14)] {
        bytes[version] = b'2';
        assert!(matches!(
            Member::from_bytes(&bytes),
            Err(StatementError::Tag(_) | StatementError::Length(_))
        ));
        assert!(matches!(Epoch::from_bytes(&bytes), Err(StatementError::Tag(_) | StatementError::Length(_))));
        assert!(matches!(
            Request::from_bytes(&bytes),
            Err(StatementError::Tag(_) | StatementError::Length(_))
        ));
    }
}

#[test]
fn a_request_to_another_network_cannot_be_used_here() {
    let elsewhere = Request::sign(&identity(1), &Fingerprint::from_bytes([9; 32]));
    assert!(matches!(elsewhere.verify(&network()), Err(StatementError::Network { .. })));
    assert_eq!(*request(&identity(1)).key(), identity(1).public());
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_one_statement(data: Vec<u8>, at in 0..MEMBER_BYTES, seed: u64) {
        fuzz::fuzz_membership(&data);
        let mut rng = SeededRng::new(seed);
        for mut almost in [certificate().to_vec(), statement().to_vec()] {
            let from = at.min(almost.len());
            rng.fill(&mut almost[from..]);
            fuzz::fuzz_membership(&almost);
        }
    }
}
