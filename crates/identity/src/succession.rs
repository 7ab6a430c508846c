//! Succession: the holder of a key says that another key takes its place (SEP §5.1).
//!
//! A [`Succession`] is well-formed and nothing more; [`Succession::verify`] turns it into a [`VerifiedSuccession`].
//! Neither changes whom anybody trusts: that is for a person to decide, since whoever stole the old key can make such
//! a statement too.
//!
//! Layout, [`SUCCESSION_BYTES`] in all, one form per statement:
//!
//! ```text
//! "kithnet succession v1" ‖ 44 bytes old SPKI ‖ 44 bytes new SPKI ‖ u64 seconds since 1970, big-endian
//!   ‖ 64 bytes signature by the old key ‖ 64 bytes signature by the new key
//! ```
//!
//! Both signatures cover everything in front of the first of them. The time is what the signer says and decides
//! nothing; a statement does not expire.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};

use crate::key::SPKI_BYTES;
use crate::record::{Kind, Record, RecordError, VerifiedRecordSet};
use crate::text::serde_by_text;
use crate::{Fingerprint, Identity, KeyError, PublicKey, fingerprint_of_spki};

/// What every statement starts with.
const TAG: &[u8; 21] = b"kithnet succession v1";
/// What both signatures cover, in bytes.
const SIGNED_BYTES: usize = TAG.len() + 2 * SPKI_BYTES + 8;
/// Length of a signature in bytes.
const SIGNATURE_BYTES: usize = 64;
/// Length of a statement in bytes.
pub const SUCCESSION_BYTES: usize = SIGNED_BYTES + 2 * SIGNATURE_BYTES;
/// Length of a statement in characters of base64.
const TEXT_CHARS: usize = SUCCESSION_BYTES.div_ceil(3) * 4;

/// Why bytes are no statement of succession, or one that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuccessionError {
    /// Not [`SUCCESSION_BYTES`] long; how many bytes (or characters of base64) there are.
    #[error("a statement of succession has {SUCCESSION_BYTES} bytes, this has {0}")]
    Length(usize),
    /// Not base64 in its one canonical form.
    #[error("the statement of succession is not in base64")]
    Base64,
    /// Another kind of statement, or another version of this one.
    #[error("not a statement 'kithnet succession v1'")]
    Tag,
    /// The old or the new key cannot be used.
    #[error("a key of the succession cannot be used: {0}")]
    Key(#[from] KeyError),
    /// A time that no text form has.
    #[error("the succession says a time beyond the year 9999")]
    Time,
    /// A key cannot follow itself.
    #[error("the succession names one key twice")]
    SameKey,
    /// The statement is about another key.
    #[error("the succession is of {found}, not of {wanted}")]
    WrongKey {
        /// Whose succession was asked for.
        wanted: Fingerprint,
        /// Whose it is.
        found: Fingerprint,
    },
    /// The signature of the old key is not by it over this statement.
    #[error("the old key has not signed the succession")]
    OldSignature,
    /// The signature of the new key is not by it over this statement.
    #[error("the new key has not signed the succession")]
    NewSignature,
}

/// A well-formed statement that one key follows another. **Not verified**: anybody can have made it.
/// Text: standard base64 with padding, canonical form only.
#[derive(Clone, PartialEq, Eq)]
pub struct Succession {
    bytes: [u8; SUCCESSION_BYTES],
    old_spki: [u8; SPKI_BYTES],
    new_spki: [u8; SPKI_BYTES],
    at: Timestamp,
}

/// A statement that both keys have signed, which is all that it proves: who holds the old key may be a thief.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSuccession {
    statement: Succession,
    old: PublicKey,
    new: PublicKey,
}

impl Succession {
    /// The statement in these bytes; refuses every form but the one of [`Succession::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Succession, SuccessionError> {
        let bytes: [u8; SUCCESSION_BYTES] =
            bytes.try_into().map_err(|_| SuccessionError::Length(bytes.len()))?;
        let short = |_: WireError| SuccessionError::Length(SUCCESSION_BYTES);
        let mut reader = Reader::new(&bytes);
        if reader.array::<{ TAG.len() }>().map_err(short)? != *TAG {
            return Err(SuccessionError::Tag);
        }
        let (old_spki, new_spki) = (reader.array().map_err(short)?, reader.array().map_err(short)?);
        let at = Timestamp(reader.u64().map_err(short)?);
        if at > Timestamp::MAX {
            return Err(SuccessionError::Time);
        }
        fingerprint_of_spki(&old_spki)?;
        fingerprint_of_spki(&new_spki)?;
        if old_spki == new_spki {
            return Err(SuccessionError::SameKey);
        }
        Ok(Succession { bytes, old_spki, new_spki, at })
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; SUCCESSION_BYTES] {
        self.bytes
    }

    /// Whose succession it says it is. Unverified.
    pub fn claimed_old(&self) -> Fingerprint {
        crate::key::hash(&self.old_spki)
    }

    /// Makes sure that it is the succession of the key with this fingerprint, and that both keys are sound and have
    /// signed it.
    pub fn verify(self, old: &Fingerprint) -> Result<VerifiedSuccession, SuccessionError> {
        let found = self.claimed_old();
        if found != *old {
            return Err(SuccessionError::WrongKey { wanted: *old, found });
        }
        let (old, new) = (PublicKey::from_spki(&self.old_spki)?, PublicKey::from_spki(&self.new_spki)?);
        let (signed, signatures) = self.bytes.split_at(SIGNED_BYTES);
        let (by_old, by_new) = signatures.split_at(SIGNATURE_BYTES);
        old.verify(signed, by_old).map_err(|_| SuccessionError::OldSignature)?;
        new.verify(signed, by_new).map_err(|_| SuccessionError::NewSignature)?;
        Ok(VerifiedSuccession { statement: self, old, new })
    }
}

impl VerifiedSuccession {
    /// States that `new` follows `old`, as of `at`.
    pub fn sign(
        old: &Identity,
        new: &Identity,
        at: Timestamp,
    ) -> Result<VerifiedSuccession, SuccessionError> {
        let (old_key, new_key) = (old.public(), new.public());
        let mut writer = Writer::new();
        writer.bytes(TAG).bytes(&old_key.spki()).bytes(&new_key.spki()).u64(at.0);
        let signed = writer.finish();
        let bytes = [&signed[..], &old.sign(&signed), &new.sign(&signed)].concat();
        let statement = Succession::from_bytes(&bytes)?;
        Ok(VerifiedSuccession { statement, old: old_key, new: new_key })
    }

    /// The key that is followed.
    pub fn old(&self) -> Fingerprint {
        self.old.fingerprint()
    }

    /// The key that follows.
    pub fn successor(&self) -> Fingerprint {
        self.new.fingerprint()
    }

    /// When it was made, as the signer says.
    pub fn at(&self) -> Timestamp {
        self.statement.at
    }

    /// The statement without the proof, for a codec or a store.
    pub fn as_succession(&self) -> &Succession {
        &self.statement
    }

    /// The `successor` record that carries it in the record set of the old key.
    pub fn to_record(&self) -> Result<Record, RecordError> {
        Record::new(Kind::SUCCESSOR, self.statement.bytes)
    }
}

impl VerifiedRecordSet {
    /// The successions of its owner that it carries, in no order that means anything; `successor` records that are
    /// none are left out.
    pub fn successions(&self) -> Vec<VerifiedSuccession> {
        let owner = self.fingerprint();
        self.records(&Kind::SUCCESSOR)
            .filter_map(|value| Succession::from_bytes(value).ok()?.verify(&owner).ok())
            .collect()
    }
}

impl fmt::Display for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.bytes))
    }
}

impl fmt::Debug for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let new = crate::key::hash(&self.new_spki);
        write!(f, "Succession({} to {new}, {})", self.claimed_old(), self.at)
    }
}

impl FromStr for Succession {
    type Err = SuccessionError;

    fn from_str(text: &str) -> Result<Self, SuccessionError> {
        if text.len() != TEXT_CHARS {
            return Err(SuccessionError::Length(text.len()));
        }
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| SuccessionError::Base64)?;
        Succession::from_bytes(&bytes)
    }
}

serde_by_text!(Succession);
