//! Record sets that one contact alone finds and opens.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use kith_dht::{Alias, BLINDED, Day, Gate, PairSecret, Parcel, SLACK_SECS, Value};
use kith_identity::membership::{Issuer, Members, MemoryLedger, NodeId, Terms};
use kith_identity::record::{Draft, RecordSet, VerifiedRecordSet};
use kith_identity::{Fingerprint, Identity, PublicKey};
use kith_sansio::{Rng, SeededRng, Timestamp};
use sha3::{Digest, Sha3_256};

const KEY: &str = include_str!("../../../identity/tests/it/vectors/key.pem");
const SET: &str = include_str!("../../../identity/tests/it/vectors/record-set.hex");
const VECTORS: &str = include_str!("../vectors/blinded.txt");
/// When the record set of the vectors was made, 2026-01-31T12:00:00Z.
const NOW: Timestamp = Timestamp(1_769_860_800);
const NETWORK: Fingerprint = Fingerprint::from_bytes([5; 32]);

/// Always the same byte.
struct Constant(u8);

impl Rng for Constant {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

fn publisher() -> Identity {
    Identity::from_pem(KEY, None).unwrap()
}

fn reader() -> Identity {
    Identity::generate(&mut Constant(9))
}

fn secret() -> PairSecret {
    PairSecret::of((&publisher().fingerprint(), &[1; 32]), (&reader().fingerprint(), &[2; 32]))
}

fn alias() -> Alias {
    secret().alias(&NETWORK, &publisher().public(), &reader().fingerprint(), Day::of(NOW))
}

fn set() -> VerifiedRecordSet {
    let digits: String = SET.split_whitespace().collect();
    let set = RecordSet::from_bytes(&HEXLOWER.decode(digits.as_bytes()).unwrap()).unwrap();
    set.verify(&publisher().fingerprint(), NOW).unwrap()
}

fn sealed() -> Value {
    alias().seal(&publisher(), NOW.0 + 1, &set(), &mut Constant(7)).unwrap()
}

fn gate() -> Members {
    let mut issuer =
        Issuer::new(Identity::generate(&mut SeededRng::new(1)), Terms::default(), MemoryLedger::default());
    Members::new(issuer.roll(NOW, |_, _, _| [7; 32]).unwrap().epoch, 1)
}

fn parcel(value: &Value) -> Parcel {
    Parcel { kind: value.kind, key: value.key, bytes: value.bytes.clone() }
}

fn vector(name: &str) -> &'static str {
    VECTORS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap()
}

#[test]
fn a_value_has_the_bytes_that_another_program_makes_of_the_page() {
    let value = sealed();
    let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
    assert_eq!(hex(publisher().fingerprint().as_bytes()), vector("publisher"));
    assert_eq!(hex(reader().fingerprint().as_bytes()), vector("reader"));
    assert_eq!(hex(&value.bytes[..32]), vector("blinded_key"));
    assert_eq!(hex(value.key.as_bytes()), vector("place"));
    assert_eq!(hex(value.bytes.last_chunk::<64>().unwrap()), vector("signature"));
    assert_eq!(hex(&Sha3_256::digest(&value.bytes)), vector("value"));
    let other_way =
        PairSecret::of((&reader().fingerprint(), &[2; 32]), (&publisher().fingerprint(), &[1; 32]));
    assert!(other_way == secret(), "both come to the same, whoever is named first");
}

#[test]
fn nodes_keep_it_without_knowing_whose_it_is_and_the_reader_opens_it() {
    let (value, mut gate) = (sealed(), gate());
    assert_eq!(gate.value(&parcel(&value), NOW), Some(value.clone()));
    assert_ne!(value.publisher, publisher().fingerprint());
    assert_eq!((value.version, value.expires), (NOW.0 + 1, Timestamp(1_769_904_000 + SLACK_SECS)));
    for part in [&publisher().public().as_bytes()[..], publisher().fingerprint().as_bytes()] {
        assert!(!value.bytes.windows(part.len()).any(|window| window == part));
    }
    let opened = alias().open(&value).unwrap().verify(&publisher().fingerprint(), NOW).unwrap();
    assert_eq!(opened, set());
}

#[test]
fn every_other_pair_direction_network_and_day_has_another_place_and_opens_nothing() {
    let (value, publisher, reader) = (sealed(), publisher(), reader());
    let (own, theirs) = (publisher.public(), reader.fingerprint());
    let day = Day::of(NOW);
    let other_secret = PairSecret::of((&publisher.fingerprint(), &[3; 32]), (&theirs, &[2; 32]));
    let others = [
        other_secret.alias(&NETWORK, &own, &theirs, day),
        secret().alias(&Fingerprint::from_bytes([6; 32]), &own, &theirs, day),
        secret().alias(&NETWORK, &reader.public(), &publisher.fingerprint(), day),
        secret().alias(&NETWORK, &own, &publisher.fingerprint(), day),
        secret().alias(&NETWORK, &own, &theirs, day.before()),
    ];
    for (number, other) in others.iter().enumerate() {
        assert_ne!(other.place(), value.key, "{number}");
        let moved = Value { key: other.place(), ..value.clone() };
        assert!(other.open(&value).is_none() && other.open(&moved).is_none(), "{number}");
    }
}

#[test]
fn the_reader_cannot_publish_in_the_publishers_name() {
    assert!(alias().seal(&reader(), NOW.0, &set(), &mut Constant(7)).is_none());
}

#[test]
fn no_byte_may_be_another_for_the_nodes_and_none_that_is_sealed_for_the_reader() {
    let (value, mut gate, alias) = (sealed(), gate(), alias());
    let signature = value.bytes.len() - 64;
    for place in 0..value.bytes.len() {
        let mut bytes = value.bytes.to_vec();
        bytes[place] ^= 1;
        let bytes = Bytes::from(bytes);
        assert_eq!(gate.value(&Parcel { bytes: bytes.clone(), ..parcel(&value) }, NOW), None, "byte {place}");
        let altered = Value { bytes, ..value.clone() };
        assert_eq!(alias.open(&altered).is_some(), place >= signature, "byte {place}");
    }
    for length in [0, 31, 55, 56, 120, signature, value.bytes.len() - 1] {
        let bytes = value.bytes.slice(..length);
        assert_eq!(
            gate.value(&Parcel { bytes: bytes.clone(), ..parcel(&value) }, NOW),
            None,
            "{length} bytes"
        );
        assert!(alias.open(&Value { bytes, ..value.clone() }).is_none(), "{length} bytes");
    }
    let elsewhere = Parcel { key: NodeId::from_bytes([1; 32]), ..parcel(&value) };
    assert_eq!(gate.value(&elsewhere, NOW), None);
    assert_eq!(gate.value(&Parcel { kind: 1, ..parcel(&value) }, NOW), None);
    assert_eq!(gate.value(&Parcel { kind: 3, ..parcel(&value) }, NOW), None);
}

#[test]
fn it_is_taken_from_two_hours_before_its_day_until_two_hours_after() {
    let (value, mut gate) = (sealed(), gate());
    let (first, end) = (Timestamp(1_769_817_600 - SLACK_SECS), Timestamp(1_769_904_000 + SLACK_SECS));
    assert_eq!(gate.value(&parcel(&value), Timestamp(first.0 - 1)), None);
    assert_eq!(gate.value(&parcel(&value), first), Some(value.clone()));
    assert_eq!(gate.value(&parcel(&value), Timestamp(end.0 - 1)), Some(value.clone()));
    assert_eq!(gate.value(&parcel(&value), end), None);
}

/// A value of anybody's own key, signed as it should be, but for what is sealed.
fn crafted(key: &Identity, sealed_bytes: usize) -> Parcel {
    let head = [&key.public().as_bytes()[..], &Day::of(NOW).0.to_be_bytes(), &[0; 8 + 12]].concat();
    let content = [head, vec![0; sealed_bytes]].concat();
    let signature = key.sign(&[b"kithnet dht blinded value v1", &content[..]].concat());
    let hash = Sha3_256::digest([b"kithnet dht blinded key v1", &key.public().as_bytes()[..]].concat());
    let bytes = [&content[..], &signature].concat().into();
    Parcel { kind: BLINDED, key: NodeId::from_bytes(hash.into()), bytes }
}

#[test]
fn what_is_sealed_has_one_of_few_sizes() {
    let mut gate = gate();
    for size in [1 << 10, 2 << 10, 4 << 10, 8 << 10, 17 << 10] {
        assert!(gate.value(&crafted(&reader(), size + 16), NOW).is_some(), "{size}");
        assert!(gate.value(&crafted(&reader(), size + 15), NOW).is_none(), "{size}");
        assert!(gate.value(&crafted(&reader(), size + 17), NOW).is_none(), "{size}");
    }
    assert!(gate.value(&crafted(&reader(), 0), NOW).is_none());
    let length_of = |blob: usize| {
        let draft = Draft { blobs: vec![vec![1; blob]], ..Draft::default() };
        let set = draft.sign(&publisher(), NOW).unwrap();
        let value = alias().seal(&publisher(), 1, &set, &mut Constant(7)).unwrap();
        assert_eq!(alias().open(&value).unwrap().verify(&publisher().fingerprint(), NOW).unwrap(), set);
        value.bytes.len()
    };
    let around = 56 + 16 + 64;
    assert_eq!(
        [0, 500, 1_000, 8_100, 16_000].map(length_of).map(|length| length - around),
        [1 << 10, 1 << 10, 2 << 10, 17 << 10, 17 << 10]
    );
}

#[test]
fn nobody_is_called_by_a_key_under_which_anybody_can_sign() {
    let mut parcel = crafted(&reader(), 1_040);
    let mut bytes = parcel.bytes.to_vec();
    // The neutral element, whose signature of anything is itself and nothing.
    bytes[..32].copy_from_slice(&[&[1][..], &[0; 31]].concat());
    let length = bytes.len();
    bytes[length - 64..].copy_from_slice(&[&[1][..], &[0; 63]].concat());
    let hash = Sha3_256::digest([b"kithnet dht blinded key v1", &bytes[..32]].concat());
    parcel.key = NodeId::from_bytes(hash.into());
    assert!(PublicKey::from_bytes(bytes.first_chunk().unwrap()).is_err());
    parcel.bytes = bytes.into();
    assert_eq!(gate().value(&parcel, NOW), None);
}
