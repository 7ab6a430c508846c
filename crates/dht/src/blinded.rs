//! Record sets for one contact alone: where they are kept, and what stands in them, only the two can tell
//! (`docs/protocol-dht.md`, blinded record sets).

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;
use kith_identity::membership::NodeId;
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_identity::{Blinding, Fingerprint, Identity, PublicKey};
use kith_sansio::wire::{Reader, WireError, Writer};
use kith_sansio::{Rng, Timestamp};
use sha3::{Digest, Sha3_256, Sha3_512};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::message::Parcel;
use crate::value::Value;

/// The kind of a value that is a blinded record set:
/// `blinded key [32] ‖ day u32 ‖ version u64 ‖ nonce [12] ‖ sealed ‖ signature [64]`.
pub const BLINDED: u8 = 2;
/// Bytes that each of two contacts adds to the secret of the pair.
pub const CONTRIBUTION_BYTES: usize = 32;
/// How long before its day, and after it, a blinded value is kept, in seconds: for clocks that differ.
pub const SLACK_SECS: u64 = 2 * 3_600;

const DAY_SECS: u64 = 86_400;
const SECRET_TAG: &[u8] = b"kithnet dht pair secret v1";
const ALIAS_TAG: &[u8] = b"kithnet dht alias v1";
const BLINDING_TAG: &[u8] = b"kithnet dht blinding v1";
const SEAL_TAG: &[u8] = b"kithnet dht blinded seal v1";
const PLACE_TAG: &[u8] = b"kithnet dht blinded key v1";
const VALUE_TAG: &[u8] = b"kithnet dht blinded value v1";
/// What stands before the sealed bytes.
const HEAD_BYTES: usize = 32 + 4 + 8 + NONCE_LEN;
/// The seal's own bytes.
const SEAL_BYTES: usize = 16;
const SIGNATURE_BYTES: usize = 64;
/// What is sealed has one of these sizes, so that it tells little; the last one holds a record set of any size.
const SIZES: [usize; 5] = [1 << 10, 2 << 10, 4 << 10, 8 << 10, 17 << 10];

/// A day of UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    /// The day of this time.
    pub fn of(time: Timestamp) -> Day {
        Day(u32::try_from(time.0 / DAY_SECS).unwrap_or(u32::MAX))
    }

    /// The day before.
    #[must_use]
    pub fn before(self) -> Day {
        Day(self.0.saturating_sub(1))
    }

    /// When it begins.
    pub fn begins(self) -> Timestamp {
        Timestamp(u64::from(self.0) * DAY_SECS)
    }

    /// When values of this day end.
    pub fn expires(self) -> Timestamp {
        self.begins().plus_secs(DAY_SECS + SLACK_SECS)
    }

    /// Whether a value of this day is taken now.
    fn is_taken_at(self, now: Timestamp) -> bool {
        self.begins() <= now.plus_secs(SLACK_SECS) && now < self.expires()
    }
}

/// What two contacts know and nobody else, made of a contribution of each.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PairSecret([u8; 32]);

impl PairSecret {
    /// The secret of two, whichever is named first.
    pub fn of(
        one: (&Fingerprint, &[u8; CONTRIBUTION_BYTES]),
        other: (&Fingerprint, &[u8; CONTRIBUTION_BYTES]),
    ) -> PairSecret {
        let (first, second) = if one.0 < other.0 { (one, other) } else { (other, one) };
        let mut hash = Sha3_256::new_with_prefix(SECRET_TAG);
        for fingerprint in [first.0, second.0] {
            hash.update(fingerprint.as_bytes());
        }
        for contribution in [first.1, second.1] {
            hash.update(contribution);
        }
        PairSecret(hash.finalize().into())
    }

    /// What `publisher`, one of the two, is called for `reader`, the other one, on a day in a network.
    pub fn alias(
        &self,
        network: &Fingerprint,
        publisher: &PublicKey,
        reader: &Fingerprint,
        day: Day,
    ) -> Alias {
        let hash = Sha3_256::new_with_prefix(ALIAS_TAG)
            .chain_update(self.0)
            .chain_update(network.as_bytes())
            .chain_update(publisher.as_bytes())
            .chain_update(reader.as_bytes())
            .chain_update(day.0.to_be_bytes());
        let secret = Zeroizing::new(<[u8; 32]>::from(hash.finalize()));
        let uniform = Sha3_512::new_with_prefix(BLINDING_TAG).chain_update(*secret).finalize();
        let blinding = Blinding::from_uniform(&Zeroizing::new(uniform.into()));
        let seal = Sha3_256::new_with_prefix(SEAL_TAG).chain_update(*secret).finalize();
        Alias { day, key: publisher.blinded(&blinding), blinding, seal: Zeroizing::new(seal.into()) }
    }
}

/// The name that a publisher has for one reader on one day, and what the two need for it. No `Debug`.
#[derive(Clone)]
pub struct Alias {
    day: Day,
    key: PublicKey,
    blinding: Blinding,
    seal: Zeroizing<[u8; 32]>,
}

impl Alias {
    /// Where its value is kept.
    pub fn place(&self) -> NodeId {
        place(&self.key)
    }

    /// A record set as a value for the reader; the publisher gives each that differs another, greater version. `None` where
    /// `identity` is not the publisher's.
    pub fn seal(
        &self,
        identity: &Identity,
        version: u64,
        set: &VerifiedRecordSet,
        rng: &mut dyn Rng,
    ) -> Option<Value> {
        let signer = identity.blinded(&self.blinding);
        if signer.public() != self.key {
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        rng.fill(&mut nonce);
        let mut out = Writer::new();
        out.bytes(self.key.as_bytes()).u32(self.day.0).u64(version).bytes(&nonce);
        let mut bytes = out.finish();
        let mut sealed = padded(&set.to_bytes())?;
        let seal = self.cipher()?;
        seal.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&bytes), &mut sealed)
            .ok()?;
        bytes.extend_from_slice(&sealed);
        let signature = signer.sign(&signed(&bytes));
        bytes.extend_from_slice(&signature);
        Some(value(&self.key, self.day, version, bytes.into()))
    }

    /// The record set in a value of this name, still to be verified.
    pub fn open(&self, value: &Value) -> Option<RecordSet> {
        let bytes = &value.bytes;
        if value.kind != BLINDED || value.key != self.place() {
            return None;
        }
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let (_, nonce) = head.split_last_chunk::<NONCE_LEN>()?;
        let (sealed, _) = rest.split_last_chunk::<SIGNATURE_BYTES>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.cipher()?.open_in_place(nonce, Aad::from(head), &mut sealed).ok()?;
        RecordSet::from_bytes(unpadded(plain)?).ok()
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&CHACHA20_POLY1305, &*self.seal).ok().map(LessSafeKey::new)
    }
}

/// The value in a parcel of this kind: signed by the blinded key that it is kept under, of a day about now, and of one of
/// the sizes. What is sealed, and by whom, shows to its reader alone.
pub(crate) fn from_parcel(parcel: &Parcel, now: Timestamp) -> Option<Value> {
    let (content, signature) = parcel.bytes.split_last_chunk::<SIGNATURE_BYTES>()?;
    let (key, day, version, sealed) = read(content).ok()?;
    let is_of_a_size = SIZES.iter().any(|size| size + SEAL_BYTES == sealed);
    let key = PublicKey::from_bytes(&key).ok()?;
    if parcel.key != place(&key) || !is_of_a_size || !day.is_taken_at(now) {
        return None;
    }
    key.verify(&signed(content), signature).ok()?;
    Some(value(&key, day, version, parcel.bytes.clone()))
}

/// The blinded key, the day, the version, and how much is sealed.
fn read(content: &[u8]) -> Result<([u8; 32], Day, u64, usize), WireError> {
    let mut reader = Reader::new(content);
    let (key, day, version) = (reader.array()?, Day(reader.u32()?), reader.u64()?);
    reader.bytes(NONCE_LEN)?;
    Ok((key, day, version, reader.left()))
}

/// Each blinded key is a publisher of its own to whoever keeps its value.
fn value(key: &PublicKey, day: Day, version: u64, bytes: Bytes) -> Value {
    Value {
        kind: BLINDED,
        key: place(key),
        publisher: key.fingerprint(),
        version,
        expires: day.expires(),
        bytes,
    }
}

/// Where the value of a blinded key is kept.
pub(crate) fn place(key: &PublicKey) -> NodeId {
    let hash = Sha3_256::new_with_prefix(PLACE_TAG).chain_update(key.as_bytes());
    NodeId::from_bytes(hash.finalize().into())
}

/// What is signed.
fn signed(content: &[u8]) -> Vec<u8> {
    [VALUE_TAG, content].concat()
}

/// `length u16 ‖ set ‖ zeros` of the smallest of the sizes.
pub(crate) fn padded(set: &[u8]) -> Option<Vec<u8>> {
    let size = SIZES.into_iter().find(|size| 2 + set.len() <= *size)?;
    let mut out = Writer::new();
    out.u16(u16::try_from(set.len()).ok()?).bytes(set);
    let mut plain = out.finish();
    plain.resize(size, 0);
    Some(plain)
}

/// The set in what was sealed.
pub(crate) fn unpadded(plain: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(plain);
    let length = reader.u16().ok()?;
    let set = reader.bytes(length.into()).ok()?;
    (padded(set).as_deref() == Some(plain)).then_some(set)
}
