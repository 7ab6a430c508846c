//! Record sets: a node's signed, timed statement of where and how to reach it (SEP §5.2, §6).
//!
//! A [`RecordSet`] is well-formed and nothing more; [`RecordSet::verify`] turns it into a [`VerifiedRecordSet`],
//! which is the only form that the rest of the program accepts. A [`Draft`] is what a node signs for itself.
//!
//! Signed bytes: the ASCII tag `kithnet record set v1`, then the records other than `signature`, each as u16
//! length of type ‖ type ‖ u32 length of value ‖ value (big-endian), these encodings sorted bytewise.

mod binary;
mod draft;
mod json;
mod kind;
mod set;
mod txt;
mod verified;

pub use draft::Draft;
pub use kind::{Kind, Record};
pub use set::RecordSet;
pub use verified::{VerifiedRecordSet, VerifyError};

/// Most records in a set, all types together.
pub const MAX_RECORDS: usize = 64;
/// Most `address` records in a set.
pub const MAX_ADDRESSES: usize = 16;
/// Most signed bytes of a set.
pub const MAX_SIGNED_BYTES: usize = 16 * 1024;
/// Most bytes of a set as JSON, and of its TXT records together.
pub const MAX_JSON_BYTES: usize = 48 * 1024;
/// Longest validity of a set in seconds.
pub const MAX_TTL_SECS: u32 = 86_400;
/// Validity of a set in seconds where nothing else is said.
pub const DEFAULT_TTL_SECS: u32 = 3_600;
/// How far in the future the timestamp of a valid set may lie, in seconds: clocks differ.
pub const CLOCK_SKEW_SECS: u64 = 60;
/// How long after its timestamp a set must be remembered against replay, in seconds: the longest validity and the
/// clock skew.
pub const REPLAY_SECS: u64 = MAX_TTL_SECS as u64 + CLOCK_SKEW_SECS;

/// Why records make no well-formed set; says which record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not a type name.
    #[error("'{0}' is not a record type: a letter, then up to 31 letters, digits or '-', all lower case")]
    Kind(String),
    /// The type name `addresses` is reserved for JSON.
    #[error("the record type 'addresses' is reserved")]
    Reserved,
    /// More records than [`MAX_RECORDS`].
    #[error("more than {MAX_RECORDS} records")]
    TooManyRecords,
    /// More addresses than [`MAX_ADDRESSES`].
    #[error("more than {MAX_ADDRESSES} address records")]
    TooManyAddresses,
    /// The set would have more than [`MAX_SIGNED_BYTES`].
    #[error("the records take {0} signed bytes, more than {MAX_SIGNED_BYTES}")]
    TooLarge(usize),
    /// The outer form is larger than any set.
    #[error("{bytes} bytes, more than the {limit} of any record set")]
    InputTooLarge {
        /// Size of the input.
        bytes: usize,
        /// The limit it broke.
        limit: usize,
    },
    /// A record of this type must stand alone, and there are several.
    #[error("several '{0}' records, where one is allowed")]
    Several(Kind),
    /// Two records of this type are equal.
    #[error("two equal '{0}' records")]
    Duplicate(Kind),
    /// A record that every set has is missing.
    #[error("the '{0}' record is missing")]
    Missing(Kind),
    /// A value of a text type holds something else than printable ASCII.
    #[error("the '{0}' record holds something else than printable ASCII")]
    NotText(Kind),
    /// The value is not what its type asks for.
    #[error("the '{kind}' record is wrong: {why}")]
    Value {
        /// The record's type.
        kind: Kind,
        /// What is wrong.
        why: String,
    },
    /// The value is no canonical standard base64 with padding.
    #[error("the '{0}' record is not canonical base64 with padding")]
    Base64(Kind),
    /// Not the JSON of a record set.
    #[error("not the JSON of a record set: {0}")]
    Json(String),
    /// A TXT record is not of the form `type=value`.
    #[error("TXT record {0} is not of the form type=value")]
    Txt(usize),
    /// Not the binary form of a record set.
    #[error("not the binary form of a record set: {0}")]
    Binary(&'static str),
}
