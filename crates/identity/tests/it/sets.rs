use kith_identity::record::{
    Draft, Kind, MAX_ADDRESSES, MAX_RECORDS, MAX_SIGNED_BYTES, Record, RecordError, RecordSet,
};
use proptest::prelude::*;

use crate::support::{MADE, ZERO, draft, identity, record, records, signed, with_record};

fn value_error(kind: &str, value: &[u8]) -> String {
    match Record::new(kind.parse().unwrap(), value) {
        Err(RecordError::Value { kind: told, why }) => {
            assert_eq!(told.as_str(), kind);
            why
        }
        other => panic!("{kind} {value:?}: {other:?}"),
    }
}

#[test]
fn type_names_are_checked() {
    for name in ["a", "x-new", "a1-", "address", &"a".repeat(32)] {
        assert_eq!(Kind::new(name).unwrap().as_str(), name);
    }
    for name in ["", "A", "1a", "-a", "a_b", "a b", "a.b", "ä", "a=", "a\0", &"a".repeat(33), "Address"] {
        assert!(matches!(Kind::new(name), Err(RecordError::Kind(_))), "{name}");
    }
    assert_eq!(Kind::new("addresses"), Err(RecordError::Reserved));
}

#[test]
fn text_types_hold_printable_ascii_only() {
    for kind in [Kind::ADDRESS, Kind::RELAY, Kind::TIMESTAMP, Kind::TTL, Kind::VERSION] {
        for value in ["a\nb", "a\0", "\u{7f}", "\t", "ä", "\r\n"] {
            assert_eq!(Record::new(kind.clone(), value), Err(RecordError::NotText(kind.clone())));
        }
    }
    for kind in [Kind::BLOB, Kind::ONION, Kind::MEMBER, Kind::SUCCESSOR] {
        assert!(Record::new(kind, [0, 10, 255]).is_ok());
    }
}

#[test]
fn values_that_do_not_fit_their_type_are_refused() {
    for address in [
        "",
        "quic://",
        "quic://1.2.3.4",
        "1.2.3.4:5",
        "quic://host:5",
        "tcp://[::1]",
        "://x",
        "Q://x",
        "q x://y",
    ] {
        value_error("address", address.as_bytes());
    }
    for relay in
        ["", "10", "10 ", "x ni:///sha3-256;A", &format!("010 ni:///sha3-256;{ZERO}"), "1 ni:///sha-256;AA"]
    {
        value_error("relay", relay.as_bytes());
    }
    for time in [
        "",
        "0",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00+00:00",
        "2026-01-31T12:00:00.5Z",
        "2026-02-30T12:00:00Z",
    ] {
        value_error("timestamp", time.as_bytes());
    }
    for ttl in
        ["", "0", "86401", "-1", "+1", "01", "1.0", "1e3", " 1", "1 ", "0x10", "99999999999999999999999"]
    {
        value_error("ttl", ttl.as_bytes());
    }
    for version in ["", "v1", "01", "+1", "1.0", "-1"] {
        value_error("version", version.as_bytes());
    }
    for length in [0, 63, 65] {
        value_error("signature", &vec![0; length]);
    }
    for ttl in ["1", "10", "86400"] {
        assert!(Record::new(Kind::TTL, ttl).is_ok());
    }
}

#[test]
fn addresses_of_another_scheme_are_carried_and_not_dialled() {
    let odd = record("address", b"carrier-pigeon://loft/3");
    let set = Draft { extra: vec![odd], ..draft() }.sign(&identity(1), MADE).unwrap();
    assert_eq!(set.records(&Kind::ADDRESS).count(), 3);
    assert_eq!(set.addresses().len(), 2);
}

#[test]
fn addresses_that_aim_at_a_victim_are_carried_and_told_apart() {
    let aimed = ["quic://127.0.0.1:1", "tcp://224.0.0.1:1", "tcp://169.254.169.254:80"];
    let addresses = aimed.map(|address| address.parse().unwrap()).to_vec();
    let set = Draft { addresses, ..draft() }.sign(&identity(1), MADE).unwrap();
    assert!(set.addresses().iter().all(|address| address.reach() != kith_identity::Reach::Global));
}

#[test]
fn each_record_that_every_set_has_is_missed() {
    for kind in [Kind::TIMESTAMP, Kind::TTL, Kind::VERSION, Kind::PUBKEY, Kind::SIGNATURE] {
        let mut records = records(&signed(1));
        records.retain(|record| *record.kind() != kind);
        assert_eq!(RecordSet::from_records(records), Err(RecordError::Missing(kind)));
    }
    assert!(RecordSet::from_records(vec![]).is_err());
}

#[test]
fn each_record_that_stands_once_is_refused_twice() {
    for (kind, value) in [
        (Kind::TIMESTAMP, b"2026-01-31T12:00:01Z".to_vec()),
        (Kind::TTL, b"10".to_vec()),
        (Kind::VERSION, b"2".to_vec()),
        (Kind::PUBKEY, vec![1]),
        (Kind::SIGNATURE, vec![1; 64]),
    ] {
        let mut other = records(&signed(1));
        other.push(Record::new(kind.clone(), value).unwrap());
        assert_eq!(RecordSet::from_records(other), Err(RecordError::Several(kind.clone())));
        let mut same = records(&signed(1));
        same.extend(same.clone().into_iter().filter(|record| *record.kind() == kind));
        assert_eq!(RecordSet::from_records(same), Err(RecordError::Several(kind)));
    }
}

#[test]
fn equal_records_are_refused() {
    for twice in ["address", "relay", "blob", "x-new"] {
        let mut records = records(&signed(1));
        let record = records.iter().find(|record| record.kind().as_str() == twice).unwrap().clone();
        records.insert(0, record);
        assert_eq!(RecordSet::from_records(records), Err(RecordError::Duplicate(twice.parse().unwrap())));
    }
}

#[test]
fn equal_values_under_different_types_are_no_duplicates() {
    let extra = ["onion", "member"].map(|kind| record(kind, b"same")).to_vec();
    assert!(Draft { extra, ..draft() }.sign(&identity(1), MADE).is_ok());
}

#[test]
fn sixteen_addresses_are_allowed_and_no_more() {
    let addresses =
        |count: usize| (0..count).map(|n| format!("tcp://192.0.2.{n}:1").parse().unwrap()).collect();
    let sign = |count| Draft { addresses: addresses(count), ..Draft::default() }.sign(&identity(1), MADE);
    assert_eq!(sign(MAX_ADDRESSES).unwrap().addresses().len(), 16);
    assert_eq!(sign(MAX_ADDRESSES + 1), Err(RecordError::TooManyAddresses));
}

#[test]
fn sixty_four_records_are_allowed_and_no_more() {
    let blobs = |count: usize| (0..count).map(|n| vec![n as u8]).collect();
    // Timestamp, ttl, version, pubkey and signature are records too.
    let sign = |count| Draft { blobs: blobs(count), ..Draft::default() }.sign(&identity(1), MADE);
    let full = sign(MAX_RECORDS - 5).unwrap();
    assert_eq!(records(&full).len(), MAX_RECORDS);
    assert_eq!(RecordSet::from_json(&full.to_json()), Ok(full.as_record_set().clone()));
    assert_eq!(sign(MAX_RECORDS - 4), Err(RecordError::TooManyRecords));
    let mut more = records(&full);
    more.push(record("blob", b"one more"));
    assert_eq!(RecordSet::from_records(more), Err(RecordError::TooManyRecords));
}

#[test]
fn sixteen_kibibytes_are_allowed_and_no_more() {
    let sign = |bytes| Draft { blobs: vec![vec![7; bytes]], ..Draft::default() }.sign(&identity(1), MADE);
    let room = MAX_SIGNED_BYTES - (sign(0).unwrap().signed_bytes().len());
    let full = sign(room).unwrap();
    assert_eq!(full.signed_bytes().len(), MAX_SIGNED_BYTES);
    for set in [
        RecordSet::from_json(&full.to_json()),
        RecordSet::from_txt(full.to_txt()),
        RecordSet::from_bytes(&full.to_bytes()),
    ] {
        assert_eq!(set.as_ref(), Ok(full.as_record_set()));
    }
    assert_eq!(sign(room + 1), Err(RecordError::TooLarge(MAX_SIGNED_BYTES + 1)));
    assert!(matches!(Record::new(Kind::BLOB, vec![0; 1 << 20]), Err(RecordError::TooLarge(_))));
}

#[test]
fn a_draft_says_what_was_put_in() {
    let set = draft().sign(&identity(1), MADE).unwrap();
    let mut addresses = set.addresses();
    addresses.sort();
    let mut expected = draft().addresses;
    expected.sort();
    assert_eq!(addresses, expected);
    assert_eq!(set.relays(), draft().relays);
    assert_eq!(set.blobs(), [&[0, 1, 2, 255][..]]);
    assert_eq!(set.records(&Kind::new("x-new").unwrap()).collect::<Vec<_>>(), [b"\x00anything"]);
    assert_eq!((set.timestamp(), set.ttl_secs(), set.expires()), (MADE, 3600, MADE.plus_secs(3600)));
    assert_eq!((set.fingerprint(), set.public_key()), (identity(1).fingerprint(), identity(1).public()));
}

#[test]
fn a_draft_cannot_say_anything_that_is_not_well_formed() {
    let sign = |draft: Draft| draft.sign(&identity(1), MADE).unwrap_err();
    for ttl in [0, 86_401] {
        assert!(matches!(sign(Draft { ttl, ..draft() }), RecordError::Value { .. }));
    }
    for (kind, value) in
        [("timestamp", &b"2026-01-31T12:00:00Z"[..]), ("ttl", b"1"), ("version", b"1"), ("pubkey", b"")]
    {
        let extra = vec![record(kind, value)];
        assert_eq!(sign(Draft { extra, ..draft() }), RecordError::Several(kind.parse().unwrap()));
    }
    let extra = vec![record("signature", &[0; 64])];
    assert_eq!(sign(Draft { extra, ..draft() }), RecordError::Several(Kind::SIGNATURE));
    let extra = vec![record("address", b"quic://192.0.2.1:4433")];
    assert_eq!(sign(Draft { extra, ..draft() }), RecordError::Duplicate(Kind::ADDRESS));
}

#[test]
fn relays_come_in_order_whatever_the_order_of_the_records() {
    let relays = [300, 2, 10].map(|n| format!("{n} ni:///sha3-256;{ZERO}").parse().unwrap()).to_vec();
    let set = Draft { relays, ..draft() }.sign(&identity(1), MADE).unwrap();
    assert_eq!(set.relays().iter().map(|relay| relay.preference).collect::<Vec<_>>(), [2, 10, 300]);
}

#[test]
fn unknown_types_are_kept_whatever_they_hold() {
    let extra =
        vec![record("x", b""), record("x", &[0; 255]), record("x", &[0; 256]), record("z9", b"=\"\\\n")];
    let set = Draft { extra: extra.clone(), ..draft() }.sign(&identity(1), MADE).unwrap();
    for again in [RecordSet::from_json(&set.to_json()), RecordSet::from_txt(set.to_txt())] {
        let again = again.unwrap().verify(&set.fingerprint(), MADE).unwrap();
        assert_eq!(again, set);
        assert!(extra.iter().all(|record| again.iter().any(|kept| kept == record)));
    }
}

proptest! {
    #[test]
    fn the_order_of_records_means_nothing(seed: u64, order in Just((0..10).collect::<Vec<usize>>()).prop_shuffle()) {
        let set = signed(seed);
        let records = records(&set);
        prop_assert_eq!(records.len(), order.len());
        let shuffled = order.iter().map(|at| records[*at].clone()).collect();
        let again = RecordSet::from_records(shuffled).unwrap();
        prop_assert_eq!(again.verify(&set.fingerprint(), MADE), Ok(set));
    }

    #[test]
    fn any_record_is_refused_or_carried(kind in "[a-z-]{0,4}|address|relay|ttl|blob", value: Vec<u8>) {
        let Ok(kind) = Kind::new(&kind) else { return Ok(()) };
        let Ok(record) = Record::new(kind.clone(), value.clone()) else {
            prop_assert!(kind.is_text());
            return Ok(());
        };
        prop_assert_eq!((record.kind(), record.value()), (&kind, &value[..]));
        if let Ok(set) = RecordSet::from_records(with_record(&signed(1), &record)) {
            prop_assert!(set.records(&kind).any(|kept| kept == value));
        }
    }
}
