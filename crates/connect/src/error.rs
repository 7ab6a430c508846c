use std::fmt;
use std::io;
use std::net::SocketAddr;

use kith_identity::{Address, Fingerprint};
use kith_sansio::Span;

use crate::Protocol;

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program listens there.
    #[error("{address} is taken by another program")]
    Taken {
        /// The address asked for.
        address: Address,
    },
    /// No port of the default range is free.
    #[error("no port from {first} to {last} is free")]
    NoFreePort {
        /// First port tried.
        first: u16,
        /// Last port tried.
        last: u16,
    },
    /// The system refuses to listen there.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// More than [`MAX_LISTENERS`](crate::defaults::MAX_LISTENERS) addresses.
    #[error("{0} addresses to listen on are too many")]
    TooMany(usize),
    /// The identity makes no certificate or TLS configuration.
    #[error("cannot set up TLS for this identity: {0}")]
    Tls(String),
}

/// Why a connection did not come about.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing and nobody knows an address of this fingerprint.
    #[error("no address is known for {target}{}", because(.reasons))]
    NotFound {
        /// Who was looked for.
        target: Fingerprint,
        /// What discovery said, one line for each source that failed.
        reasons: Vec<String>,
    },
    /// Addresses are known, none answers.
    #[error("{target} does not answer{}", list(.tried))]
    Unreachable {
        /// Who was looked for.
        target: Fingerprint,
        /// Every way and why it did not do.
        tried: Vec<Tried>,
    },
    /// Addresses are known, none of the transport that was insisted on.
    #[error("{target} is known by {} alone", shown(.known))]
    OtherTransport {
        /// Who was looked for.
        target: Fingerprint,
        /// The ways that are known, all of another transport.
        known: Vec<Route>,
    },
    /// Somebody else answers where the target should be.
    #[error("{address} is {found}, not {target}")]
    WrongPeer {
        /// Who was looked for.
        target: Fingerprint,
        /// Who answered.
        found: Fingerprint,
        /// Where.
        address: Address,
        /// Every way and why it did not do.
        tried: Vec<Tried>,
    },
    /// The target answers, and admits this node to nothing of that name.
    #[error("{target} does not admit this node to {protocol}")]
    Refused {
        /// Who was asked.
        target: Fingerprint,
        /// For what.
        protocol: Protocol,
    },
    /// The target was reached and went away before it answered.
    #[error("the connection to {target} ended before it was admitted")]
    Lost {
        /// Who was asked.
        target: Fingerprint,
    },
    /// This node trusted the target when the stream was wished for, and trusts it no more.
    #[error("trust in {target} was withdrawn before it was reached")]
    Withdrawn {
        /// Who was asked for.
        target: Fingerprint,
    },
    /// As many streams as are allowed are open with this peer, or in all.
    #[error("too many streams are open with {target}")]
    TooMany {
        /// Who was asked for.
        target: Fingerprint,
    },
    /// This endpoint is closed.
    #[error("this endpoint is closed")]
    Closed,
}

/// A way to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// To one of its addresses.
    Direct(Address),
    /// Over a relay of this fingerprint.
    Over(Fingerprint),
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Direct(address) => write!(f, "{address}"),
            Route::Over(relay) => write!(f, "relay {relay}"),
        }
    }
}

/// One way that was tried, or left out, and why it did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The way.
    pub route: Route,
    /// Why not.
    pub failure: Failure,
}

/// Why one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The system says no: refused, unreachable, reset.
    #[error("{0}")]
    Network(String),
    /// The handshake broke off.
    #[error("handshake failed: {0}")]
    Handshake(String),
    /// No answer in time.
    #[error("no answer within {0}")]
    Silent(Span),
    /// Somebody else answered.
    #[error("this is {0}")]
    WrongPeer(Fingerprint),
    /// Addresses of this kind are not dialled from here.
    #[error("not an address to dial from here")]
    NotDialled,
    /// Another transport was insisted on.
    #[error("another transport was asked for")]
    OtherTransport,
    /// The relay says no: it does not know the target, or the target does not want this node or does not answer.
    #[error("it does not put this node through")]
    RelayRefused,
    /// The relay itself is not reached, or breaks off.
    #[error("{0}")]
    Relay(String),
    /// The race ended before its turn or its answer came.
    #[error("given up")]
    GivenUp,
}

/// Why datagrams cannot be sent, or do not arrive any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// The path does not carry a datagram of this size.
    #[error("a datagram of {bytes} bytes is too large, {most} are possible now")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What the path carries now.
        most: usize,
    },
    /// The peer has ended it, or is not reached any more.
    #[error("the peer has gone")]
    Ended,
    /// Closed here, or trust was withdrawn.
    #[error("closed here, or trust withdrawn")]
    Cut,
}

/// Why a protocol cannot be listened for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody in this program listens for it already.
    #[error("{0} is being listened for already")]
    Taken(Protocol),
    /// This endpoint is closed.
    #[error("this endpoint is closed")]
    Closed,
    /// Nearly all that goes over a relay goes over TCP, and this endpoint has no listener for it.
    #[error("a relay needs a listener for TCP, and this node has none")]
    NoTcp,
}

/// Why an arriving connection led to no stream; for logs at debug level only.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnedAway {
    #[error("too slow")]
    Slow,
    #[error("connection lost: {0}")]
    Lost(String),
    #[error("no hello: {0}")]
    Hello(#[from] crate::ProtocolError),
    #[error("not admitted")]
    NotAdmitted,
    #[error("key not usable: {0}")]
    Key(String),
    #[error("too many streams")]
    TooMany,
}

fn because(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) }
}

fn shown(routes: &[Route]) -> String {
    routes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn list(tried: &[Tried]) -> String {
    let each: Vec<_> = tried.iter().map(|one| format!("{}: {}", one.route, one.failure)).collect();
    if each.is_empty() { String::new() } else { format!(" ({})", each.join("; ")) }
}

/// Says which socket address an error is about, in one form everywhere.
pub(crate) fn named(socket: SocketAddr, error: &io::Error) -> String {
    format!("{socket}: {error}")
}
