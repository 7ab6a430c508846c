//! From a relayed path to a direct one (SEP §5.4): what two peers say to each other, and when they try. Pure.
//!
//! While a QUIC connection goes over a relay, its two sides tell each other inside it where they may be found
//! ([`Candidates`]). Each then sends [probes](Probe) to the other's addresses, so that the NATs in between let the other's
//! in, and answers those that come. The initiator opens a path of the same connection to the first address that has
//! answered, and the connection moves there; the [machine](Seeking) of each side decides all of it but the moving. A TCP
//! connection cannot move: beside it others are [punched](punching) for later streams.
//!
//! Invariants: candidates come from an authenticated peer that was admitted, [`MAX_CANDIDATES`] at most, and only those
//! that this node would dial by itself are probed. What a peer can make this node send to others is bounded in number,
//! size and rate ([`limits`]). A probe that shows no token of this conversation has no effect.
//!
//! [`MAX_CANDIDATES`]: limits::MAX_CANDIDATES

mod allowance;
pub mod limits;
pub mod message;
pub mod probe;
pub mod punching;
pub mod seeking;

pub use message::Candidates;
pub use probe::{Kind, Probe};
pub use seeking::{Input, Output, Place, Seeking, Side};
