use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use data_encoding::HEXLOWER;

use crate::text::{quote, serde_by_text};
use crate::{Authority, AuthorityError, Fingerprint};

/// Longest name in characters that is looked at.
const MAX_NI_CHARS: usize = 512;
/// Longest DNS name in characters.
const MAX_FQDN_CHARS: usize = 253;

/// The other algorithms of the Named Information Hash Algorithm Registry (RFC 6920 §9.4, IANA).
const OTHER_ALGORITHMS: [&str; 16] = [
    "sha-256",
    "sha-256-128",
    "sha-256-120",
    "sha-256-96",
    "sha-256-64",
    "sha-256-32",
    "sha-384",
    "sha-512",
    "sha3-224",
    "sha3-384",
    "sha3-512",
    "blake2s-256",
    "blake2b-256",
    "blake2b-512",
    "k12-256",
    "k12-512",
];

/// Why a text is no name of a node, or has no such mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NiError {
    /// Longer than any name.
    #[error("a name of {0} characters is too long")]
    TooLong(usize),
    /// Not of the form `ni://AUTHORITY/sha3-256;VALUE`.
    #[error("'{0}' is not of the form ni://AUTHORITY/sha3-256;VALUE")]
    Form(String),
    /// Another algorithm of the Named Information registry.
    #[error("the algorithm {0} of the Named Information registry is not supported, only sha3-256")]
    OtherAlgorithm(&'static str),
    /// No algorithm of the registry.
    #[error("'{0}' is no algorithm of the Named Information registry; names here use sha3-256")]
    UnknownAlgorithm(String),
    /// The value has not 43 characters.
    #[error("the value of a sha3-256 name has 43 characters, not {0}")]
    Length(usize),
    /// A character outside the base64url alphabet.
    #[error("{0:?} is not a character of base64url")]
    Alphabet(char),
    /// The value ends in `=`.
    #[error("the value is written without '=' padding")]
    Padding,
    /// The two unused bits of the last character are not zero.
    #[error("the unused bits at the end of '{0}' are not zero")]
    UnusedBits(String),
    /// Something follows the value.
    #[error("nothing may follow the value: '{0}'")]
    Trailing(String),
    /// The authority is none.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The mapping needs an authority and there is none.
    #[error("the name has no authority")]
    NoAuthority,
    /// The DNS needs a host name, and the authority is an address.
    #[error("the authority {0} is an address and has no name in the DNS")]
    NotAName(Authority),
    /// The DNS name would be longer than 253 characters.
    #[error("the host name of {0} is too long for a name below it")]
    HostTooLong(Authority),
}

/// A node's name: its fingerprint, and the authority of the directory that knows it, where there is one.
/// Text `ni://AUTHORITY/sha3-256;VALUE` or `ni:///sha3-256;VALUE` (RFC 6920). Equality and hashing ignore the
/// authority: it is the same node wherever it announces.
#[derive(Clone)]
pub struct Ni {
    /// Who.
    pub fingerprint: Fingerprint,
    /// Whose directory to ask.
    pub authority: Option<Authority>,
}

impl Ni {
    /// The name of `fingerprint` under `authority`.
    pub fn new(fingerprint: Fingerprint, authority: Option<Authority>) -> Ni {
        Ni { fingerprint, authority }
    }

    /// Its DNS name; see [`fqdn`].
    pub fn fqdn(&self) -> Result<String, NiError> {
        fqdn(&self.fingerprint, self.authority.as_ref().ok_or(NiError::NoAuthority)?)
    }

    /// Its URL; see [`url`].
    pub fn url(&self) -> Result<String, NiError> {
        Ok(url(&self.fingerprint, self.authority.as_ref().ok_or(NiError::NoAuthority)?))
    }
}

/// `<hex of bytes 0..16>.<hex of bytes 16..32>.0a.HOST`, without a final dot. `0a` is sha3-256, number 10 of the
/// registry; HOST is the authority without its port, which must be a name.
pub fn fqdn(fingerprint: &Fingerprint, authority: &Authority) -> Result<String, NiError> {
    if !authority.is_name() {
        return Err(NiError::NotAName(authority.clone()));
    }
    let (high, low) = fingerprint.as_bytes().split_at(16);
    let name = format!("{}.{}.0a.{}", HEXLOWER.encode(high), HEXLOWER.encode(low), authority.host());
    if name.len() > MAX_FQDN_CHARS { Err(NiError::HostTooLong(authority.clone())) } else { Ok(name) }
}

/// `https://AUTHORITY/.well-known/ni/sha3-256/VALUE` (RFC 6920 §4).
pub fn url(fingerprint: &Fingerprint, authority: &Authority) -> String {
    format!("https://{authority}/.well-known/ni/sha3-256/{fingerprint}")
}

impl PartialEq for Ni {
    fn eq(&self, other: &Ni) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Ni {}

impl Hash for Ni {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl fmt::Display for Ni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ni://")?;
        if let Some(authority) = &self.authority {
            write!(f, "{authority}")?;
        }
        write!(f, "/sha3-256;{}", self.fingerprint)
    }
}

impl fmt::Debug for Ni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ni {
    type Err = NiError;

    fn from_str(text: &str) -> Result<Self, NiError> {
        if text.len() > MAX_NI_CHARS {
            return Err(NiError::TooLong(text.len()));
        }
        let form = || NiError::Form(quote(text));
        let rest = text.strip_prefix("ni://").ok_or_else(form)?;
        // The value holds neither '/' nor ';', so the last ';' ends the algorithm and the '/' before it the authority.
        let (head, value) = rest.rsplit_once(';').ok_or_else(form)?;
        let (authority, algorithm) = head.rsplit_once('/').ok_or_else(form)?;
        check_algorithm(algorithm)?;
        if let Some(at) = value.find(['?', '#', '/', '&']) {
            return Err(NiError::Trailing(quote(&value[at..])));
        }
        let authority = if authority.is_empty() { None } else { Some(authority.parse()?) };
        Ok(Ni { fingerprint: value.parse()?, authority })
    }
}

serde_by_text!(Ni);

fn check_algorithm(name: &str) -> Result<(), NiError> {
    if name == "sha3-256" {
        return Ok(());
    }
    match OTHER_ALGORITHMS.iter().find(|other| **other == name) {
        Some(other) => Err(NiError::OtherAlgorithm(other)),
        None => Err(NiError::UnknownAlgorithm(quote(name))),
    }
}
