//! What the unit tests of this crate share.

use kith_identity::Identity;
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_sansio::{SeededRng, Timestamp};

/// An identity of a seed.
pub(crate) fn identity(seed: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(seed))
}

/// A set with nothing in it but its validity.
pub(crate) fn set(identity: &Identity, timestamp: Timestamp, ttl: u32) -> VerifiedRecordSet {
    Draft { ttl, ..Draft::default() }.sign(identity, timestamp).unwrap()
}

/// A set with one blob of `bytes` bytes.
pub(crate) fn set_with_blob(identity: &Identity, timestamp: Timestamp, bytes: usize) -> VerifiedRecordSet {
    let draft = Draft { blobs: vec![vec![7; bytes]], ..Draft::default() };
    draft.sign(identity, timestamp).unwrap()
}
