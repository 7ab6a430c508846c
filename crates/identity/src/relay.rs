use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::text::{decimal, quote, serde_by_text};
use crate::{Ni, NiError};

/// Why a text is no relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Not of the form `PREFERENCE NI`.
    #[error("'{0}' is not of the form 'PREFERENCE NI'")]
    Form(String),
    /// The preference is no number from 0 to 65535 without sign or leading zero.
    #[error("'{0}' is not a preference from 0 to 65535")]
    Preference(String),
    /// The name is none.
    #[error(transparent)]
    Ni(#[from] NiError),
}

/// A node that forwards for the set's owner. Text `PREFERENCE NI`, for instance `10 ni://example.org/sha3-256;…`;
/// the lower preference is tried first, and the order in a set or in the DNS means nothing (SEP §5.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relay {
    /// Lower is tried first.
    pub preference: u16,
    /// The relaying node.
    pub ni: Ni,
}

/// By preference, then by fingerprint, so that everybody has the same order.
impl Ord for Relay {
    fn cmp(&self, other: &Relay) -> Ordering {
        (self.preference, self.ni.fingerprint).cmp(&(other.preference, other.ni.fingerprint))
    }
}

impl PartialOrd for Relay {
    fn partial_cmp(&self, other: &Relay) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.preference, self.ni)
    }
}

impl FromStr for Relay {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, RelayError> {
        let (preference, ni) = text.split_once(' ').ok_or_else(|| RelayError::Form(quote(text)))?;
        let preference = decimal(preference, 65_535)
            .and_then(|number| u16::try_from(number).ok())
            .ok_or_else(|| RelayError::Preference(quote(preference)))?;
        Ok(Relay { preference, ni: ni.parse()? })
    }
}

serde_by_text!(Relay);
