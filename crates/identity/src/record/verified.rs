use std::sync::Arc;

use kith_sansio::Timestamp;

use super::set::values;
use super::{CLOCK_SKEW_SECS, Kind, Record, RecordSet};
use crate::text::{decimal, quote};
use crate::{Address, Fingerprint, KeyError, PublicKey, Relay, fingerprint_of_spki};

/// Why a well-formed set is not valid for a fingerprint at a time. Checked in this order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A version of the format that is not known here.
    #[error("version {0} of the record set format is not known")]
    UnknownVersion(String),
    /// The key in it is no Ed25519 SubjectPublicKeyInfo.
    #[error("the public key of the set is no Ed25519 key")]
    NotEd25519,
    /// The set is somebody else's.
    #[error("the set belongs to {found}, not to {wanted}")]
    WrongKey {
        /// Whose set was asked for.
        wanted: Fingerprint,
        /// Whose key is in it.
        found: Fingerprint,
    },
    /// The key is of small order, or no point at all: anybody could sign under it.
    #[error("the public key of the set proves nothing: {0}")]
    WeakKey(KeyError),
    /// The signature is not by the key over these records.
    #[error("the signature of the set does not verify")]
    Signature,
    /// Its timestamp lies more than [`CLOCK_SKEW_SECS`] ahead.
    #[error("the set was made at {timestamp}, which is in the future (now {now})")]
    FromTheFuture {
        /// When it says it was made.
        timestamp: Timestamp,
        /// When it was checked.
        now: Timestamp,
    },
    /// Its validity has ended.
    #[error("the set expired at {expired} (now {now})")]
    Expired {
        /// The first second at which it was not valid any more.
        expired: Timestamp,
        /// When it was checked.
        now: Timestamp,
    },
}

/// A set that was valid for its fingerprint when it was verified: version known, signed by the key whose hash the
/// fingerprint is, neither from the future nor expired. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRecordSet(Arc<Verified>);

#[derive(Debug, PartialEq, Eq)]
struct Verified {
    set: RecordSet,
    key: PublicKey,
    fingerprint: Fingerprint,
    timestamp: Timestamp,
    ttl_secs: u32,
}

impl RecordSet {
    /// Makes sure that the set is valid for `fingerprint` at `now`: version known, hash of the key, key not of small
    /// order, signature, and timestamp − 60 s ≤ now < timestamp + ttl.
    pub fn verify(self, fingerprint: &Fingerprint, now: Timestamp) -> Result<VerifiedRecordSet, VerifyError> {
        let set = self.verify_stale(fingerprint, now)?;
        if now >= set.expires() {
            return Err(VerifyError::Expired { expired: set.expires(), now });
        }
        Ok(set)
    }

    /// As [`RecordSet::verify`], but the validity may have ended: for sets out of a store, which are served stale
    /// only to somebody who asked for that and is told so.
    pub fn verify_stale(
        self,
        fingerprint: &Fingerprint,
        now: Timestamp,
    ) -> Result<VerifiedRecordSet, VerifyError> {
        let key = self.check_key(fingerprint)?;
        key.verify(&self.signed, &self.signature).map_err(|_| VerifyError::Signature)?;
        let set = VerifiedRecordSet::trusted(self, key, *fingerprint);
        if set.timestamp() > now.plus_secs(CLOCK_SKEW_SECS) {
            return Err(VerifyError::FromTheFuture { timestamp: set.timestamp(), now });
        }
        Ok(set)
    }

    fn check_key(&self, wanted: &Fingerprint) -> Result<PublicKey, VerifyError> {
        if self.once(&Kind::VERSION) != b"1" {
            let version = String::from_utf8_lossy(self.once(&Kind::VERSION));
            return Err(VerifyError::UnknownVersion(quote(&version)));
        }
        let spki = self.once(&Kind::PUBKEY);
        let found = fingerprint_of_spki(spki).map_err(|_| VerifyError::NotEd25519)?;
        if found != *wanted {
            return Err(VerifyError::WrongKey { wanted: *wanted, found });
        }
        PublicKey::from_spki(spki).map_err(VerifyError::WeakKey)
    }
}

impl VerifiedRecordSet {
    /// Only for sets whose signature was made or checked a moment ago.
    pub(super) fn trusted(set: RecordSet, key: PublicKey, fingerprint: Fingerprint) -> VerifiedRecordSet {
        // Both values were parsed when their records were made, so neither fallback is ever taken.
        let text = |kind| std::str::from_utf8(set.once(kind)).unwrap_or_default();
        let timestamp = text(&Kind::TIMESTAMP).parse().unwrap_or_default();
        let ttl_secs = decimal(text(&Kind::TTL), super::MAX_TTL_SECS.into()).unwrap_or_default() as u32;
        VerifiedRecordSet(Arc::new(Verified { set, key, fingerprint, timestamp, ttl_secs }))
    }

    /// Whose it is.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// The key that signed it.
    pub fn public_key(&self) -> PublicKey {
        self.0.key
    }

    /// When it was made.
    pub fn timestamp(&self) -> Timestamp {
        self.0.timestamp
    }

    /// Its validity in seconds, 1 to 86 400.
    pub fn ttl_secs(&self) -> u32 {
        self.0.ttl_secs
    }

    /// The first second at which it is not valid any more.
    pub fn expires(&self) -> Timestamp {
        self.0.timestamp.plus_secs(self.0.ttl_secs.into())
    }

    /// Whether it is valid at `now`.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.0.timestamp <= now.plus_secs(CLOCK_SKEW_SECS) && now < self.expires()
    }

    /// Its addresses, unordered; those of a scheme that is not known here are left out. Whoever dials looks at
    /// [`Address::reach`] first: a set can aim its readers at a victim.
    pub fn addresses(&self) -> Vec<Address> {
        self.parsed(&Kind::ADDRESS)
    }

    /// Its relays, the first to be tried first.
    pub fn relays(&self) -> Vec<Relay> {
        let mut relays: Vec<Relay> = self.parsed(&Kind::RELAY);
        relays.sort();
        relays
    }

    /// Its blobs, unordered.
    pub fn blobs(&self) -> Vec<&[u8]> {
        self.records(&Kind::BLOB).collect()
    }

    /// The values of the records of one type, in no order that means anything.
    pub fn records(&self, kind: &Kind) -> impl Iterator<Item = &[u8]> {
        values(&self.0.set.records, kind)
    }

    /// All records but the signature, sorted by their encoding.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.0.set.records.iter()
    }

    /// What the signature covers; layout in [`crate::record`].
    pub fn signed_bytes(&self) -> &[u8] {
        &self.0.set.signed
    }

    /// The Ed25519 signature over [`VerifiedRecordSet::signed_bytes`].
    pub fn signature(&self) -> &[u8; 64] {
        &self.0.set.signature
    }

    /// The set without the proof, for instance to send it through a codec that takes any set.
    pub fn as_record_set(&self) -> &RecordSet {
        &self.0.set
    }

    fn parsed<T: std::str::FromStr>(&self, kind: &Kind) -> Vec<T> {
        self.records(kind).filter_map(|value| std::str::from_utf8(value).ok()?.parse().ok()).collect()
    }
}
