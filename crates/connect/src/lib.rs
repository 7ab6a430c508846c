//! From a fingerprint to an authenticated connection (SEP §5.3, §5.4; floor 3).
//!
//! An [`Endpoint`] reaches peers by their fingerprint and is reached by them, over QUIC, over TLS 1.3 on TCP
//! and, for datagrams alone and where it is asked for, over DTLS 1.3.
//! A connection is authenticated at both ends before a byte of a protocol flows; the protocol's name is the first
//! frame inside it. Who is let in decides the [`Trust`] of the floors above, where a peer may be found the
//! [`Discovery`].
//!
//! One node can manage whom others trust: see [`delegator`]. Who belongs to a network, and how a node joins one: see
//! [`membership`].
//!
//! Invariants: no plaintext, no choice of ciphers, no switch that weakens verification. Whatever comes from a peer
//! has a limit in size, number and time ([`defaults`]). A refusal is one fixed code whatever its reason. The
//! machines ([`dialer`], [`address`]) own no socket and no clock; everything that does is in the private `shell`.
//!
//! A program that brings nothing but a key takes a [`Node`], and needs three calls:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use kith_connect::{Config, Node, Protocol};
//! # use kith_directory::client::{ClientConfig, Directory};
//! # use kith_identity::{Identity, Ni};
//! # use kith_sansio::system::OsRng;
//! # async fn connected(peer: Ni) -> Result<(), Box<dyn std::error::Error>> {
//! let directory = Directory::open(ClientConfig::default());
//! let key = Arc::new(Identity::generate(&mut OsRng));
//! let node = Node::announce(key, "example.org".parse()?, directory, Config::default()).await?;
//! let stream = node.connect(&peer, &Protocol::new("greet/1")).await?;
//! # Ok(())
//! # }
//! ```

pub mod address;
mod datagram;
pub mod defaults;
pub mod delegator;
pub mod dialer;
pub mod direct;
mod dtls;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod knocks;
mod limits;
pub mod mapping;
pub mod membership;
mod node;
mod protocol;
pub mod relay;
mod shell;
mod trust;

pub use address::{Interface, Vantage, advertised};
pub use dialer::Via;
pub use error::{BindError, ConnectError, DatagramError, Failure, ListenError, Route, Tried};
pub use node::{Node, NodeError};
pub use protocol::{Admission, MAX_PROTOCOL_BYTES, Protocol, ProtocolError};
pub use shell::{
    Config, Datagrams, Endpoint, Exposing, Incoming, MappingConfig, OwnDevice, PathInfo, PathWatch, Peer,
    PortMapping, Relaying, Stream, interfaces,
};
pub use trust::{ChangeSignal, Changes, Discovery, Found, NoDiscovery, Trust};
