use kith_sansio::Timestamp;

use crate::vrf::VrfError;
use crate::{Fingerprint, KeyError};

/// Why a certificate, a request for one or the statement of an epoch is none, or says nothing here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Not as long as such a statement is; how many bytes there are.
    #[error("{0} bytes are no such statement")]
    Length(usize),
    /// Another kind of statement, or another version of this one.
    #[error("not a statement '{0}'")]
    Tag(&'static str),
    /// A signing key in it cannot be used.
    #[error("a key in the statement cannot be used: {0}")]
    Key(#[from] KeyError),
    /// A key of the verifiable random function, or the proof of the nonce.
    #[error("the nonce does not hold: {0}")]
    Nonce(#[from] VrfError),
    /// It ends before it begins, or says a time beyond the year 9999.
    #[error("the statement says impossible times")]
    Times,
    /// The threshold α is not between 0 and 1.
    #[error("the statement says an impossible threshold")]
    Threshold,
    /// It is a statement of another network, or of one whose issuer has another random function.
    #[error("a statement of the network {found}, not of {wanted}")]
    Network {
        /// The network that it was checked for.
        wanted: Fingerprint,
        /// The network that it is of, as it says.
        found: Fingerprint,
    },
    /// It is not signed by whom it says.
    #[error("the statement is not signed by whom it says")]
    Signature,
    /// It is not valid yet.
    #[error("not valid before {0}")]
    NotYet(Timestamp),
    /// It is not valid any more.
    #[error("not valid since {0}")]
    Expired(Timestamp),
}
