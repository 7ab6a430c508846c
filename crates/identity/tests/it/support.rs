//! Identities and sets that several tests use.

use kith_identity::record::{Draft, Kind, Record, RecordSet, VerifiedRecordSet};
use kith_identity::{Fingerprint, Identity};
use kith_sansio::{SeededRng, Timestamp};

/// 2026-01-31T12:00:00Z, when every set of these tests was made.
pub(crate) const MADE: Timestamp = Timestamp(1_769_860_800);

pub(crate) const ZERO: &str = "k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";

pub(crate) const VECTOR_KEY: &str = include_str!("vectors/key.pem");
pub(crate) const VECTOR_JSON: &str = include_str!("vectors/record-set.json");
pub(crate) const VECTOR_TXT: &str = include_str!("vectors/record-set.txt");

pub(crate) fn identity(seed: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(seed))
}

pub(crate) fn vector_fingerprint() -> Fingerprint {
    include_str!("vectors/fingerprint.txt").trim().parse().unwrap()
}

pub(crate) fn vector_bytes() -> Vec<u8> {
    let digits: String = include_str!("vectors/record-set.hex").split_whitespace().collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

pub(crate) fn draft() -> Draft {
    Draft {
        addresses: vec!["quic://192.0.2.1:4433".parse().unwrap(), "tcp://[2001:db8::1]:443".parse().unwrap()],
        relays: vec![format!("10 ni://example.org/sha3-256;{ZERO}").parse().unwrap()],
        blobs: vec![vec![0, 1, 2, 255]],
        extra: vec![record("x-new", b"\x00anything")],
        ..Draft::default()
    }
}

pub(crate) fn signed(seed: u64) -> VerifiedRecordSet {
    draft().sign(&identity(seed), MADE).unwrap()
}

pub(crate) fn record(kind: &str, value: &[u8]) -> Record {
    Record::new(kind.parse().unwrap(), value).unwrap()
}

/// All records of a set, the signature last.
pub(crate) fn records(set: &VerifiedRecordSet) -> Vec<Record> {
    set.iter().cloned().chain([Record::new(Kind::SIGNATURE, set.signature().to_vec()).unwrap()]).collect()
}

/// The set of any well-formed records, signed by `identity`, which the records need not fit.
pub(crate) fn sign_anyhow(mut records: Vec<Record>, identity: &Identity) -> RecordSet {
    records.retain(|record| *record.kind() != Kind::SIGNATURE);
    let with = |signature: &[u8]| {
        let signature = Record::new(Kind::SIGNATURE, signature).unwrap();
        RecordSet::from_records(records.iter().cloned().chain([signature]).collect()).unwrap()
    };
    let bytes = with(&[0; 64]).to_bytes();
    with(&identity.sign(&bytes[..bytes.len() - 64]))
}

/// The records with all of one type replaced by one.
pub(crate) fn with_record(set: &VerifiedRecordSet, new: &Record) -> Vec<Record> {
    let others = records(set).into_iter().filter(|record| record.kind() != new.kind());
    others.chain([new.clone()]).collect()
}
