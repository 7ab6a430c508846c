use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use kith_sansio::Timestamp;

use super::{MAX_SIGNED_BYTES, MAX_TTL_SECS, RecordError};
use crate::text::{decimal, quote};
use crate::{Address, Relay, Transport};

/// Longest type name in characters.
const MAX_KIND_CHARS: usize = 32;
/// The key of the addresses in JSON, which is therefore no type name.
const RESERVED: &str = "addresses";

/// The type name of a record: `[a-z][a-z0-9-]{0,31}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Cow<'static, str>);

impl Kind {
    /// Where the node listens; text.
    pub const ADDRESS: Kind = Kind(Cow::Borrowed("address"));
    /// Who relays for the node; text.
    pub const RELAY: Kind = Kind(Cow::Borrowed("relay"));
    /// Time of creation; text, once.
    pub const TIMESTAMP: Kind = Kind(Cow::Borrowed("timestamp"));
    /// Validity in seconds; text, once.
    pub const TTL: Kind = Kind(Cow::Borrowed("ttl"));
    /// Version of the format; text, once.
    pub const VERSION: Kind = Kind(Cow::Borrowed("version"));
    /// Any bytes of the owner.
    pub const BLOB: Kind = Kind(Cow::Borrowed("blob"));
    /// DER SubjectPublicKeyInfo; once.
    pub const PUBKEY: Kind = Kind(Cow::Borrowed("pubkey"));
    /// Ed25519 signature over the signed bytes; once.
    pub const SIGNATURE: Kind = Kind(Cow::Borrowed("signature"));
    /// Carried for a higher floor.
    pub const ONION: Kind = Kind(Cow::Borrowed("onion"));
    /// Carried for a higher floor.
    pub const MEMBER: Kind = Kind(Cow::Borrowed("member"));
    /// A statement of succession, [`Succession`](crate::Succession), of the owner.
    pub const SUCCESSOR: Kind = Kind(Cow::Borrowed("successor"));

    /// The type of this name.
    pub fn new(name: &str) -> Result<Kind, RecordError> {
        let sound = name.len() <= MAX_KIND_CHARS
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        match name {
            RESERVED => Err(RecordError::Reserved),
            _ if sound => Ok(Kind(Cow::Owned(name.to_owned()))),
            _ => Err(RecordError::Kind(quote(name))),
        }
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether values are printable ASCII and stand as such in JSON and TXT; others stand in base64.
    pub fn is_text(&self) -> bool {
        matches!(self.as_str(), "address" | "relay" | "timestamp" | "ttl" | "version")
    }

    /// Whether a set holds exactly one record of this type.
    pub fn is_once(&self) -> bool {
        matches!(self.as_str(), "timestamp" | "ttl" | "version" | "pubkey" | "signature")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for Kind {
    type Err = RecordError;

    fn from_str(name: &str) -> Result<Self, RecordError> {
        Kind::new(name)
    }
}

/// One data record: a type and a value that fits it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    kind: Kind,
    value: Vec<u8>,
}

impl Record {
    /// A record; refuses values that do not fit a known type. Addresses with a scheme that is not known here are
    /// carried, those with a known one must be right.
    pub fn new(kind: Kind, value: impl Into<Vec<u8>>) -> Result<Record, RecordError> {
        let record = Record { kind, value: value.into() };
        record.check()?;
        Ok(record)
    }

    /// Its type.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Its value, raw: for text types the text.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The value as text: of a text type, whose values are printable ASCII; empty for others that are no text.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.value).unwrap_or_default()
    }

    /// Bytes that it takes among the signed bytes.
    pub(super) fn encoded_bytes(&self) -> usize {
        2 + self.kind.as_str().len() + 4 + self.value.len()
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.value.len() > MAX_SIGNED_BYTES {
            return Err(RecordError::TooLarge(self.value.len()));
        }
        if self.kind.is_text() && !self.value.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err(RecordError::NotText(self.kind.clone()));
        }
        self.check_value().map_err(|why| RecordError::Value { kind: self.kind.clone(), why })
    }

    fn check_value(&self) -> Result<(), String> {
        let text = self.text();
        match self.kind.as_str() {
            "address" => check_address(text),
            "relay" => text.parse::<Relay>().map(drop).map_err(|error| error.to_string()),
            "timestamp" => text.parse::<Timestamp>().map(drop).map_err(|error| error.to_string()),
            "ttl" if decimal(text, MAX_TTL_SECS.into()).is_none_or(|secs| secs == 0) => {
                Err(format!("'{}' is not a number of seconds from 1 to {MAX_TTL_SECS}", quote(text)))
            }
            "version" if decimal(text, u32::MAX.into()).is_none() => {
                Err(format!("'{}' is not a version number", quote(text)))
            }
            "signature" if self.value.len() != 64 => {
                Err(format!("a signature has 64 bytes, not {}", self.value.len()))
            }
            _ => Ok(()),
        }
    }
}

fn check_address(text: &str) -> Result<(), String> {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let named = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    if named && scheme.parse::<Transport>().is_err() {
        return Ok(());
    }
    text.parse::<Address>().map(drop).map_err(|error| error.to_string())
}
