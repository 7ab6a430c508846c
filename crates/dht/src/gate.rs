use kith_identity::Fingerprint;
use kith_identity::membership::{Member, Members, NodeId};
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_sansio::Timestamp;
use sha3::{Digest, Sha3_256};

use crate::blinded::{self, BLINDED};
use crate::contact::Contact;
use crate::message::{Card, Parcel};
use crate::value::Value;

/// The kind of a value that is a record set: `fingerprint [32] ‖ record set in its binary form`.
pub const RECORD_SET: u8 = 1;
/// What the hash to the key of a record set starts with.
const RECORD_SET_TAG: &[u8] = b"kithnet dht record set v1";
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 32;

/// What the rules of a network decide: certificates and signatures on the real one; a simulator knows its nodes.
pub trait Gate {
    /// The member that shows this card, where its certificate is of this network, valid now and not revoked.
    fn contact(&mut self, card: &Card, now: Timestamp) -> Option<Contact>;

    /// The value in this parcel, where it proves that it belongs at its key.
    fn value(&mut self, parcel: &Parcel, now: Timestamp) -> Option<Value>;
}

/// The gate of a network with an issuer. To verify takes longer than a machine may take, so messages pass it before they
/// come to one.
impl Gate for Members {
    fn contact(&mut self, card: &Card, now: Timestamp) -> Option<Contact> {
        let certificate = Member::from_bytes(&card.certificate).ok()?;
        self.verify(certificate, now).ok().map(|member| Contact::of(&member, card.address))
    }

    fn value(&mut self, parcel: &Parcel, now: Timestamp) -> Option<Value> {
        Value::from_parcel(parcel, now)
    }
}

/// Where a node's record set is kept: sha3-256 over `"kithnet dht record set v1" ‖ fingerprint`.
pub fn record_set_key(fingerprint: &Fingerprint) -> NodeId {
    let hash = Sha3_256::new().chain_update(RECORD_SET_TAG).chain_update(fingerprint.as_bytes());
    NodeId::from_bytes(hash.finalize().into())
}

impl Value {
    /// The record set as a value: its timestamp is the version, and it is kept as long as it is valid.
    pub fn of(set: &VerifiedRecordSet) -> Value {
        let fingerprint = set.fingerprint();
        Value {
            kind: RECORD_SET,
            key: record_set_key(&fingerprint),
            publisher: fingerprint,
            version: set.timestamp().0,
            expires: set.expires(),
            bytes: [&fingerprint.as_bytes()[..], &set.to_bytes()].concat().into(),
        }
    }

    /// The value in a parcel, where that proves that it belongs at its key.
    pub(crate) fn from_parcel(parcel: &Parcel, now: Timestamp) -> Option<Value> {
        match parcel.kind {
            RECORD_SET => open_set(parcel, now),
            BLINDED => blinded::from_parcel(parcel, now),
            _ => None,
        }
    }
}

/// The record set in a parcel of that kind, as a value.
fn open_set(parcel: &Parcel, now: Timestamp) -> Option<Value> {
    let (fingerprint, set) = parcel.bytes.split_first_chunk::<FINGERPRINT_BYTES>()?;
    let fingerprint = Fingerprint::from_bytes(*fingerprint);
    if parcel.key != record_set_key(&fingerprint) {
        return None;
    }
    let set = RecordSet::from_bytes(set).ok()?.verify(&fingerprint, now).ok()?;
    Some(Value::of(&set))
}
