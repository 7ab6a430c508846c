//! Who belongs to a network, and where (SEP2P §2.3: each node has a certificate, and its place is imposed on it).
//!
//! A [`Network`] is its issuer: a node that signs who is a member ([`Member`]) and, every hour, how many there are and
//! what stands for all of them ([`Epoch`]). A member's [`NodeId`] comes from its fingerprint and a [`Nonce`] that the
//! issuer's verifiable random function makes of it: neither of them can choose it once the key exists, and a renewed
//! certificate has the same. Regions of the network are [`Block`]s; who is in one, all of them and nobody else, is
//! shown against the root in the epoch's statement ([`tree`]).
//!
//! What a node knows of the others, [`Members`] keeps.
//!
//! Statements are [`pledge`]s: whoever signs two that exclude each other has made evidence against themselves.
//!
//! What this does not prevent: an issuer that works together with a joining node can try many keys until one has the
//! place that they want, and an issuer decides alone who joins. C, how many members one adversary may control, is an
//! assumption about the issuer's diligence, not a result.

mod epoch;
mod error;
mod issuer;
mod member;
mod members;
mod network;
mod node_id;
pub mod pledge;
mod region;
pub mod signature;
pub mod tree;

pub use epoch::{EPOCH_BYTES, Epoch, EpochFacts, PresumedEpoch, RevokedLeaf, Threshold, VerifiedEpoch};
pub use error::StatementError;
pub use issuer::{
    Counters, ENROLMENT_BYTES, Enrolment, Issuer, IssuerError, Ledger, MemoryLedger, Rolled, Terms,
};
pub use member::{MEMBER_BYTES, Member, MemberLeaf, REQUEST_BYTES, Request, VerifiedMember, VerifiedRequest};
pub use members::{Adopted, Members, ShowError};
pub use network::Network;
pub use node_id::{Block, Distance, ID_BITS, NodeId, NodeIdError, Nonce};
pub use region::{REGION_MEMBERS, region_bits};
