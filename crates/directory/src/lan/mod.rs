//! Finding nodes on the local network: mDNS and DNS-SD that say nothing to strangers. Pure.
//!
//! A node shows itself as an instance of `_kith._udp.local` whose name is a keyed hash of a random [`Salt`], the key
//! being its fingerprint. Whoever knows the fingerprint recognises the name; to everybody else it is noise, on another
//! network and in the next hour another one. Who recognises it asks with a MAC under the fingerprint and gets the
//! record set sealed under a key of that question alone. Addresses are in the sealed set and nowhere else.
//!
//! [`Link`] is the machine of one network, [`Message`] what is said there, [`seal`] what the fingerprint keys.

mod link;
mod message;
mod name;
mod presence;
mod seal;
mod search;

pub use link::{Input, Link, Output};
pub use message::{MAX_PACKET_BYTES, Message, Query, Response, Seen};
pub use name::{Instance, Nonce, Salt};
pub use seal::{Ask, MAX_PIECES, MAX_SEALED_BYTES, Opened, open, seal};
