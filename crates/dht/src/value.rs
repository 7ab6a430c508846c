use bytes::Bytes;
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::Timestamp;

/// Something kept at a key that proves itself: a record set, or what later floors sign or seal. Only a
/// [`Gate`](crate::Gate) makes one out of what a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its sort, which says how it proves itself: [`RECORD_SET`](crate::RECORD_SET), [`BLINDED`](crate::BLINDED) or what
    /// later floors add.
    pub kind: u8,
    /// Where it is kept; its proof binds it there.
    pub key: NodeId,
    /// Whose quota it counts in.
    pub publisher: Fingerprint,
    /// Grows with each change; the greatest is the one that counts.
    pub version: u64,
    /// Until when it is kept.
    pub expires: Timestamp,
    /// Its content and its proof.
    pub bytes: Bytes,
}

/// Why a node does not keep a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It has expired.
    #[error("the value has expired")]
    Expired,
    /// It would be kept for too long.
    #[error("the value expires too far from now")]
    TooLong,
    /// It is too large.
    #[error("the value is too large")]
    TooLarge,
    /// A newer one is there.
    #[error("there is a newer value")]
    Older,
    /// Other nodes are nearer to its key.
    #[error("other nodes are nearer to the key")]
    TooFar,
    /// Its publisher has as many values or bytes here as one may have.
    #[error("the publisher has no room left here")]
    Quota,
    /// Its publisher changes values too often.
    #[error("the publisher stores too often")]
    Rate,
    /// The node has no room for anybody's.
    #[error("the node has no room left")]
    Full,
}

/// In the order of their codes.
const REFUSALS: [Refusal; 8] = [
    Refusal::Expired,
    Refusal::TooLong,
    Refusal::TooLarge,
    Refusal::Older,
    Refusal::TooFar,
    Refusal::Quota,
    Refusal::Rate,
    Refusal::Full,
];

impl Refusal {
    /// Whether other nodes would say the same.
    pub fn is_about_the_value(self) -> bool {
        matches!(self, Refusal::Expired | Refusal::TooLong | Refusal::TooLarge | Refusal::Older)
    }

    /// Its number on the wire.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// The refusal with this number.
    pub(crate) fn from_code(code: u8) -> Option<Refusal> {
        REFUSALS.get(usize::from(code)).copied()
    }
}

impl Value {
    /// Whether it takes the place of another one at the same key. Of two with one version the same one wins everywhere.
    pub fn replaces(&self, other: &Value) -> bool {
        (self.version, &self.bytes) > (other.version, &other.bytes)
    }
}
