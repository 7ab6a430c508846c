//! Statements of succession: what is signed, what is refused, and the one form they have.

use kith_identity::contacts::{Contact, ContactError, Contacts};
use kith_identity::record::{Draft, Kind, RecordSet};
use kith_identity::{
    Fingerprint, Identity, Ni, SUCCESSION_BYTES, Succession, SuccessionError, VerifiedSuccession, fuzz,
};
use kith_sansio::{SeededRng, Timestamp};
use proptest::prelude::*;

use crate::support::{MADE, VECTOR_KEY, identity, record};

const VECTOR: &str = include_str!("vectors/succession.hex");

/// The successor of the vector: the key of TEST 1 in RFC 8032 §7.1.
const NEXT_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";

fn made() -> VerifiedSuccession {
    VerifiedSuccession::sign(&identity(1), &identity(2), MADE).unwrap()
}

fn bytes() -> [u8; SUCCESSION_BYTES] {
    made().as_succession().to_bytes()
}

fn verify(bytes: &[u8], old: &Fingerprint) -> Result<VerifiedSuccession, SuccessionError> {
    Succession::from_bytes(bytes)?.verify(old)
}

#[test]
fn a_statement_says_who_follows_whom_and_when() {
    let statement = verify(&bytes(), &identity(1).fingerprint()).unwrap();
    assert_eq!(statement, made());
    assert_eq!(statement.old(), identity(1).fingerprint());
    assert_eq!(statement.successor(), identity(2).fingerprint());
    assert_eq!(statement.at(), MADE);
}

#[test]
fn signing_what_the_vector_says_gives_the_vector() {
    let digits: String = VECTOR.split_whitespace().collect();
    let vector = data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap();
    let old = Identity::from_pem(VECTOR_KEY, None).unwrap();
    let new = Identity::from_pem(NEXT_KEY, None).unwrap();
    let again = VerifiedSuccession::sign(&old, &new, MADE).unwrap();
    assert_eq!(data_encoding::HEXLOWER.encode(&again.as_succession().to_bytes()), digits);
    assert_eq!(verify(&vector, &old.fingerprint()), Ok(again));
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = bytes();
    for bit in 0..good.len() * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&bad, &identity(1).fingerprint()).is_err(), "bit {bit}");
    }
}

#[test]
fn a_statement_of_another_key_proves_nothing_for_this_one() {
    let refused = verify(&bytes(), &identity(2).fingerprint()).unwrap_err();
    let (wanted, found) = (identity(2).fingerprint(), identity(1).fingerprint());
    assert_eq!(refused, SuccessionError::WrongKey { wanted, found });
}

#[test]
fn both_keys_have_to_sign_and_in_their_own_places() {
    let (good, stranger) = (bytes(), identity(3));
    let old = identity(1).fingerprint();
    let signed = &good[..SUCCESSION_BYTES - 128];
    let with = |by_old: [u8; 64], by_new: [u8; 64]| [signed, &by_old, &by_new].concat();
    let (by_old, by_new) = (identity(1).sign(signed), identity(2).sign(signed));
    assert_eq!(with(by_old, by_new), good);
    let refusals = [
        (with(stranger.sign(signed), by_new), SuccessionError::OldSignature),
        (with(by_new, by_old), SuccessionError::OldSignature),
        (with(by_old, by_old), SuccessionError::NewSignature),
        (with(by_old, stranger.sign(signed)), SuccessionError::NewSignature),
    ];
    for (bytes, why) in refusals {
        assert_eq!(verify(&bytes, &old), Err(why));
    }
}

#[test]
fn a_key_cannot_follow_itself() {
    let itself = VerifiedSuccession::sign(&identity(1), &identity(1), MADE);
    assert_eq!(itself.unwrap_err(), SuccessionError::SameKey);
}

#[test]
fn a_small_order_key_neither_follows_nor_is_followed() {
    for place in [21, 65] {
        let mut bad = bytes();
        bad[place + 12..place + 44].fill(0);
        bad[place + 12] = 1;
        let statement = Succession::from_bytes(&bad).unwrap();
        let old = statement.claimed_old();
        assert!(matches!(statement.verify(&old), Err(SuccessionError::Key(_))));
    }
}

#[test]
fn a_statement_has_one_length_one_tag_and_a_time_that_can_be_written() {
    let good = bytes();
    for cut in 0..good.len() {
        assert_eq!(Succession::from_bytes(&good[..cut]), Err(SuccessionError::Length(cut)));
    }
    let longer = [&good[..], &[0]].concat();
    assert_eq!(Succession::from_bytes(&longer), Err(SuccessionError::Length(SUCCESSION_BYTES + 1)));
    let mut other = good;
    other[20] = b'2';
    assert_eq!(Succession::from_bytes(&other), Err(SuccessionError::Tag));
    let late = VerifiedSuccession::sign(&identity(1), &identity(2), Timestamp(u64::MAX));
    assert_eq!(late.unwrap_err(), SuccessionError::Time);
}

#[test]
fn the_text_of_a_statement_is_canonical_base64() {
    let good = made().as_succession().to_string();
    assert_eq!(good.parse::<Succession>().as_ref(), Ok(made().as_succession()));
    for bad in [
        String::new(),
        good.trim_end_matches('=').to_owned(),
        format!("{good} "),
        good.replacen('k', "-", 1),
        format!("{}B=", &good[..good.len() - 2]),
        format!("{good}{good}"),
    ] {
        assert!(bad.parse::<Succession>().is_err(), "{bad}");
    }
}

#[test]
fn a_record_set_carries_the_successions_of_its_owner_and_nobody_elses() {
    let others = VerifiedSuccession::sign(&identity(3), &identity(2), MADE).unwrap();
    let extra = vec![
        made().to_record().unwrap(),
        others.to_record().unwrap(),
        record("successor", b"no statement"),
        record("successor", &[]),
    ];
    let set = Draft { extra, ..Draft::default() }.sign(&identity(1), MADE).unwrap();
    assert_eq!(set.records(&Kind::SUCCESSOR).count(), 4);
    let read = RecordSet::from_txt(set.to_txt()).unwrap().verify(&set.fingerprint(), MADE).unwrap();
    assert_eq!(read.successions(), [made()]);
}

#[test]
fn a_contact_moves_to_the_new_key_with_all_that_belongs_to_it() {
    let (old, new) = (identity(1).fingerprint(), identity(2).fingerprint());
    let authority = Some("example.org".parse().unwrap());
    let mut contact = Contact::new("North".parse().unwrap(), Ni::new(old, authority), MADE);
    contact.hints.push("quic://192.0.2.1:7117".parse().unwrap());
    contact.groups.insert("friends".parse().unwrap());
    let mut book = Contacts::from_rows([contact.clone()]).unwrap();
    let moved = book.succeed("north", new).unwrap();
    assert!(book.trusts(&new) && !book.trusts(&old));
    assert_eq!(moved.ni.to_string(), format!("ni://example.org/sha3-256;{new}"));
    assert_eq!(Contact { ni: contact.ni.clone(), ..moved.clone() }, contact);
    assert_eq!(book.find("NORTH"), Some(&moved));
    assert_eq!(book.len(), 1);
}

#[test]
fn a_contact_does_not_move_to_a_key_that_is_in_the_book() {
    let named = |name: &str, seed| {
        Contact::new(name.parse().unwrap(), Ni::new(identity(seed).fingerprint(), None), MADE)
    };
    let rows = [named("north", 1), named("south", 2)];
    let mut book = Contacts::from_rows(rows).unwrap();
    let before = book.clone();
    for new in [1, 2] {
        let refused = book.succeed("north", identity(new).fingerprint()).unwrap_err();
        assert!(matches!(refused, ContactError::Known { .. }), "{refused}");
    }
    assert!(matches!(book.succeed("west", identity(3).fingerprint()), Err(ContactError::Unknown(_))));
    assert_eq!(book, before);
}

proptest! {
    #[test]
    fn every_statement_is_read_as_it_was_made(old: u64, new: u64, at in 0..Timestamp::MAX.0) {
        prop_assume!(old != new);
        let made = VerifiedSuccession::sign(&identity(old), &identity(new), Timestamp(at)).unwrap();
        let bytes = made.as_succession().to_bytes();
        prop_assert_eq!(verify(&bytes, &made.old()), Ok(made.clone()));
        let text = made.as_succession().to_string();
        prop_assert_eq!(text.parse(), Ok(made.as_succession().clone()));
        fuzz::fuzz_succession(&bytes);
        fuzz::fuzz_succession(text.as_bytes());
    }

    #[test]
    fn any_bytes_are_refused_or_one_statement(data: Vec<u8>, at in 0..SUCCESSION_BYTES, seed: u64) {
        fuzz::fuzz_succession(&data);
        let mut almost = bytes();
        kith_sansio::Rng::fill(&mut SeededRng::new(seed), &mut almost[at..]);
        fuzz::fuzz_succession(&almost);
    }
}
