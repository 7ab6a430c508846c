use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kith_identity::Fingerprint;
use kith_identity::membership::{Member, Network, NodeId, RevokedLeaf, VerifiedMember};
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_sansio::Timestamp;
use sha3::{Digest, Sha3_256};

use crate::contact::Contact;
use crate::message::{Card, Parcel};
use crate::value::Value;

/// The kind of a value that is a record set: `fingerprint [32] ‖ record set in its binary form`.
pub const RECORD_SET: u8 = 1;
/// What the hash to the key of a record set starts with.
const RECORD_SET_TAG: &[u8] = b"kithnet dht record set v1";
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 32;
/// Certificates that are remembered as verified: those of a region and a table, with room.
const MAX_REMEMBERED: usize = 4_096;

/// What the rules of a network decide: certificates and signatures on the real one; a simulator knows its nodes.
pub trait Gate {
    /// The member that shows this card, where its certificate is of this network, valid now and not revoked.
    fn contact(&mut self, card: &Card, now: Timestamp) -> Option<Contact>;

    /// The value in this parcel, where it proves that it belongs at its key.
    fn value(&mut self, parcel: &Parcel, now: Timestamp) -> Option<Value>;
}

/// The gate of a network with an issuer. It verifies each certificate once, which takes longer than a machine may take;
/// so messages pass it before they come to one.
#[derive(Clone, Debug)]
pub struct Members {
    network: Network,
    revoked: BTreeSet<Fingerprint>,
    verified: BTreeMap<Bytes, VerifiedMember>,
}

impl Members {
    /// The gate of `network`, which nobody has been thrown out of.
    pub fn new(network: Network) -> Members {
        Members { network, revoked: BTreeSet::new(), verified: BTreeMap::new() }
    }

    /// These are all whom the issuer has revoked, as the epoch proves.
    pub fn set_revoked(&mut self, leaves: &[RevokedLeaf]) {
        self.revoked = leaves.iter().map(|leaf| leaf.0).collect();
    }

    fn member(&mut self, certificate: &Bytes, now: Timestamp) -> Option<&VerifiedMember> {
        let is_valid = |member: &VerifiedMember| (member.not_before()..member.not_after()).contains(&now);
        if !self.verified.get(certificate).is_some_and(is_valid) {
            self.verified.remove(certificate);
            let member = Member::from_bytes(certificate).ok()?.verify(&self.network, now).ok()?;
            if self.verified.len() >= MAX_REMEMBERED {
                self.verified.pop_first();
            }
            self.verified.insert(certificate.clone(), member);
        }
        self.verified.get(certificate).filter(|member| !self.revoked.contains(&member.fingerprint()))
    }
}

impl Gate for Members {
    fn contact(&mut self, card: &Card, now: Timestamp) -> Option<Contact> {
        self.member(&card.certificate, now).map(|member| Contact::of(member, card.address))
    }

    fn value(&mut self, parcel: &Parcel, now: Timestamp) -> Option<Value> {
        let (fingerprint, set) = parcel.bytes.split_first_chunk::<FINGERPRINT_BYTES>()?;
        let fingerprint = Fingerprint::from_bytes(*fingerprint);
        if parcel.kind != RECORD_SET || parcel.key != record_set_key(&fingerprint) {
            return None;
        }
        let set = RecordSet::from_bytes(set).ok()?.verify(&fingerprint, now).ok()?;
        Some(Value::of(&set))
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
}
