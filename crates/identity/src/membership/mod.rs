//! Who belongs to a network, and where (SEP2P §2.3: each node has a certificate, and its place is imposed on it).
//!
//! A member's [`NodeId`] comes from its fingerprint and a [`Nonce`] that the issuer's verifiable random function
//! makes of it: neither of them can choose it. Regions of the network are [`Block`]s.

mod node_id;

pub use node_id::{Block, Distance, ID_BITS, NodeId, NodeIdError, Nonce};
