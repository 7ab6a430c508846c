//! The node's key as a TLS identity: a self-signed certificate, and verifiers that prove possession of a key and
//! nothing else (SEP §5.1).
//!
//! TLS 1.3 only, X25519MLKEM768 first, no tickets, no resumption, no early data. Names, dates and extensions of a
//! peer's certificate are ignored: who it is follows from its key alone, and [`peer_key`] tells it.
//!
//! DTLS, whose libraries know no Ed25519, has certificates of its own, each a [`Leaf`] for a day, and [`leaf_key`] tells
//! whose it is. No verifier of TLS takes one, and DTLS takes no other.

mod certificate;
mod config;
mod leaf;
mod verifier;

pub use certificate::Certificate;
pub use config::{
    ServerCertificate, Trust, directory_client, directory_server, node_client, node_client_anonymous,
    node_server,
};
pub use leaf::{Leaf, leaf_key};
pub use verifier::{named_key, peer_key, proven_key};

use crate::KeyError;

/// The one application protocol that nodes negotiate; which protocol follows is said inside the connection.
pub const ALPN: &[u8] = b"kith";
/// The one server name that nodes send, whoever they connect to.
pub const SERVER_NAME: &str = "kith.invalid";
/// The application protocol of a directory.
pub const DIRECTORY_ALPN: &[u8] = b"http/1.1";

/// Why a certificate or a configuration cannot be made, or a peer's certificate not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer's certificate is no X.509.
    #[error("the peer's certificate cannot be read")]
    BadCertificate,
    /// The key in the peer's certificate cannot be used.
    #[error("the key in the peer's certificate cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The peer's certificate for DTLS does not speak for an identity today.
    #[error("the peer's certificate for DTLS cannot be used: {0}")]
    Leaf(&'static str),
    /// The certificate of this node could not be made.
    #[error("the certificate cannot be made: {0}")]
    Make(String),
    /// The PEM files of a server hold no certificate, no key, or a key that does not fit.
    #[error("the certificate files cannot be used: {0}")]
    Pem(String),
    /// rustls refuses the configuration.
    #[error("TLS cannot be configured: {0}")]
    Config(String),
}
