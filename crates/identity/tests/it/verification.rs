use kith_identity::record::{CLOCK_SKEW_SECS, Draft, Kind, Record, RecordSet, VerifyError};
use kith_identity::{Fingerprint, KeyError, fingerprint_of_spki};
use kith_sansio::Timestamp;
use proptest::prelude::*;

use crate::support::{
    MADE, VECTOR_JSON, draft, identity, record, records, sign_anyhow, signed, vector_fingerprint, with_record,
};

#[test]
fn a_set_is_valid_from_a_minute_before_its_timestamp_until_its_ttl_ends() {
    let set = signed(1);
    let at = |now| set.as_record_set().clone().verify(&set.fingerprint(), now);
    let expired = MADE.plus_secs(3600);
    let early = MADE.minus_secs(CLOCK_SKEW_SECS + 1);
    for now in [MADE.minus_secs(60), MADE, MADE.plus_secs(3599)] {
        assert_eq!(at(now).as_ref(), Ok(&set));
        assert!(set.is_valid_at(now));
    }
    assert_eq!(at(early), Err(VerifyError::FromTheFuture { timestamp: MADE, now: early }));
    assert_eq!(at(expired), Err(VerifyError::Expired { expired, now: expired }));
    assert!(!set.is_valid_at(early) && !set.is_valid_at(expired));
    assert!(at(Timestamp(0)).is_err() && at(Timestamp(u64::MAX)).is_err());
}

#[test]
fn a_stale_set_is_verified_but_for_its_end() {
    let set = signed(1);
    let stale = |now| set.as_record_set().clone().verify_stale(&set.fingerprint(), now);
    assert_eq!(stale(MADE.plus_secs(1 << 30)).as_ref(), Ok(&set));
    assert!(!stale(MADE.plus_secs(1 << 30)).unwrap().is_valid_at(MADE.plus_secs(1 << 30)));
    assert!(matches!(stale(MADE.minus_secs(61)), Err(VerifyError::FromTheFuture { .. })));
    let other = set.as_record_set().clone().verify_stale(&identity(2).fingerprint(), MADE);
    assert!(matches!(other, Err(VerifyError::WrongKey { .. })));
}

#[test]
fn somebody_elses_set_is_refused() {
    let (set, wanted) = (signed(1), identity(2).fingerprint());
    let refused = set.as_record_set().clone().verify(&wanted, MADE);
    assert_eq!(refused, Err(VerifyError::WrongKey { wanted, found: set.fingerprint() }));
}

#[test]
fn a_set_signed_by_another_key_is_refused() {
    let forged = sign_anyhow(records(&signed(1)), &identity(2));
    assert_eq!(forged.verify(&identity(1).fingerprint(), MADE), Err(VerifyError::Signature));
}

#[test]
fn another_version_is_refused_before_all_else() {
    let odd = with_record(&signed(1), &record("version", b"2"));
    let set = sign_anyhow(odd, &identity(1));
    for (who, now) in [(1, MADE), (2, Timestamp(0))] {
        let refused = set.clone().verify(&identity(who).fingerprint(), now);
        assert_eq!(refused, Err(VerifyError::UnknownVersion("2".into())));
    }
}

#[test]
fn a_key_of_another_kind_is_refused() {
    for key in [&b""[..], &[0x30; 44], &[0; 91]] {
        let set = sign_anyhow(with_record(&signed(1), &record("pubkey", key)), &identity(1));
        assert_eq!(set.verify(&identity(1).fingerprint(), MADE), Err(VerifyError::NotEd25519));
    }
}

/// Under a small-order key the signature R = identity, s = 0 satisfies the bare equation for some messages.
#[test]
fn a_small_order_key_is_refused_after_its_hash_and_before_its_signature() {
    let mut spki = identity(1).public().spki();
    spki[12..].fill(0);
    let weak = fingerprint_of_spki(&spki).unwrap();
    let mut forged = with_record(&signed(1), &record("pubkey", &spki));
    forged.retain(|record| *record.kind() != Kind::SIGNATURE);
    let mut signature = [0; 64];
    signature[0] = 1;
    forged.push(Record::new(Kind::SIGNATURE, signature).unwrap());
    let set = RecordSet::from_records(forged).unwrap();
    assert_eq!(set.clone().verify(&weak, MADE), Err(VerifyError::WeakKey(KeyError::SmallOrder)));
    let other = set.verify(&identity(1).fingerprint(), MADE);
    assert!(matches!(other, Err(VerifyError::WrongKey { .. })));
}

#[test]
fn the_signature_is_checked_before_the_time() {
    let forged = sign_anyhow(records(&signed(1)), &identity(2));
    let refused = forged.verify(&identity(1).fingerprint(), MADE.plus_secs(1 << 20));
    assert_eq!(refused, Err(VerifyError::Signature));
}

#[test]
fn every_single_altered_bit_is_refused() {
    let set = signed(1);
    let bytes = set.to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let read = RecordSet::from_bytes(&altered);
        assert!(!read.is_ok_and(|read| read.verify(&set.fingerprint(), MADE).is_ok()), "bit {bit}");
    }
}

#[test]
fn every_single_altered_bit_of_the_json_and_the_txt_is_refused() {
    let set = signed(1);
    let valid =
        |read: Result<RecordSet, _>| read.is_ok_and(|read| read.verify(&set.fingerprint(), MADE).is_ok());
    let json = set.to_json();
    assert!(valid(RecordSet::from_json(&json)));
    for bit in 0..json.len() * 8 {
        let mut altered = json.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!valid(RecordSet::from_json(&altered)), "bit {bit} of the JSON");
    }
    let txt = set.to_txt();
    assert!(valid(RecordSet::from_txt(&txt)));
    for (line, bit) in
        txt.iter().enumerate().flat_map(|(at, line)| (0..line.len() * 8).map(move |bit| (at, bit)))
    {
        let mut altered = txt.clone();
        altered[line][bit / 8] ^= 1 << (bit % 8);
        assert!(!valid(RecordSet::from_txt(&altered)), "bit {bit} of line {line}");
    }
}

#[test]
fn a_record_taken_away_or_put_in_is_refused() {
    let set = signed(1);
    let valid = |records| {
        RecordSet::from_records(records).is_ok_and(|altered| altered.verify(&set.fingerprint(), MADE).is_ok())
    };
    assert!(valid(records(&set)));
    for at in 0..records(&set).len() {
        let mut fewer = records(&set);
        fewer.remove(at);
        assert!(!valid(fewer));
    }
    for (kind, value) in
        [("blob", &b"x"[..]), ("address", b"tcp://192.0.2.9:1"), ("x", b""), ("successor", b"me")]
    {
        let mut more = records(&set);
        more.push(record(kind, value));
        assert!(!valid(more));
    }
}

#[test]
fn records_of_two_sets_of_one_key_do_not_mix() {
    let old = Draft { blobs: vec![vec![1]], ..draft() }.sign(&identity(1), MADE).unwrap();
    let new = Draft { blobs: vec![vec![2]], ..draft() }.sign(&identity(1), MADE.plus_secs(1)).unwrap();
    for kind in [Kind::BLOB, Kind::TIMESTAMP, Kind::SIGNATURE] {
        let from_old = records(&old).into_iter().find(|record| *record.kind() == kind).unwrap();
        let mixed = RecordSet::from_records(with_record(&new, &from_old)).unwrap();
        assert_eq!(mixed.verify(&new.fingerprint(), MADE), Err(VerifyError::Signature));
    }
}

#[test]
fn the_vector_is_valid_and_an_altered_one_is_not() {
    let now = MADE.plus_secs(10);
    let set = RecordSet::from_json(VECTOR_JSON.as_bytes()).unwrap();
    let set = set.verify(&vector_fingerprint(), now).unwrap();
    assert_eq!(set.relays().iter().map(|relay| relay.preference).collect::<Vec<_>>(), [3, 20]);
    for (from, to) in [
        ("203.0.113.7", "203.0.113.8"),
        ("loft/3", "loft/4"),
        ("3 ni://example.org", "4 ni://example.org"),
        ("3 ni://example.org", "3 ni://example.net"),
        ("AP89CiI=", "AP89CiM="),
        ("12:00:00Z", "12:00:01Z"),
        ("\"ttl\": 3600", "\"ttl\": 3601"),
    ] {
        assert!(VECTOR_JSON.contains(from));
        let altered = RecordSet::from_json(VECTOR_JSON.replacen(from, to, 1).as_bytes()).unwrap();
        assert_eq!(altered.verify(&vector_fingerprint(), now), Err(VerifyError::Signature), "{from}");
    }
}

proptest! {
    #[test]
    fn the_window_of_validity_is_exact(
        made in 0u64..4_000_000_000, ttl in 1u32..=86_400, offset in -100_000i64..100_000,
    ) {
        let (made, now) = (Timestamp(made), Timestamp(made.saturating_add_signed(offset)));
        let set = Draft { ttl, ..Draft::default() }.sign(&identity(1), made).unwrap();
        let valid = made.0 <= now.0 + 60 && now.0 < made.0 + u64::from(ttl);
        let verified = set.as_record_set().clone().verify(&set.fingerprint(), now);
        prop_assert_eq!(verified.is_ok(), valid);
        prop_assert_eq!(set.is_valid_at(now), valid);
        match verified {
            Ok(verified) => prop_assert_eq!(verified, set),
            Err(VerifyError::FromTheFuture { .. }) => prop_assert!(now < made),
            Err(VerifyError::Expired { .. }) => prop_assert!(now > made),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn no_other_fingerprint_owns_a_set(seed: u64, other: [u8; 32]) {
        let set = signed(seed);
        let other = Fingerprint::from_bytes(other);
        prop_assume!(other != set.fingerprint());
        let verified = set.as_record_set().clone().verify(&other, MADE);
        let wrong_key = matches!(verified, Err(VerifyError::WrongKey { .. }));
        prop_assert!(wrong_key);
    }

    #[test]
    fn a_forged_or_altered_record_never_verifies(seed: u64, forger: u64, at in 0usize..9, value: Vec<u8>) {
        let set = signed(seed);
        let mut altered = records(&set);
        let kind = altered[at].kind().clone();
        prop_assume!(altered[at].value() != value && seed != forger);
        if let Ok(other) = Record::new(kind, value) {
            altered[at] = other;
        }
        let forged = sign_anyhow(altered, &identity(forger));
        prop_assert!(forged.verify(&set.fingerprint(), MADE).is_err());
    }
}
