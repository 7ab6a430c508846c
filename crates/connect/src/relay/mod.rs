//! Reaching a node through another one (SEP §5.3): what is said, and the three sides that say it. Pure.
//!
//! A [target](exposure) keeps a stream of `relay/1` open with each of its relays. An [initiator](knocking) sends a
//! relay a [`Request`] that it has signed; the [relay](serving) hands it to the target, keeps the
//! initiator in quarantine until the target has answered, and gives both a token where it admits him. Each brings its
//! token over a connection of its own, and from then on the relay copies between the two what it cannot read: their
//! handshake is theirs, with the target as the server.
//!
//! Invariants: no machine here owns a socket, a clock or a source of chance. Whatever a peer can make one of them hold
//! has a limit ([`limits`]). An initiator who is not admitted hears the same thing at the same time, whoever he asked
//! for. A token opens one side of one session, once.

pub mod exposure;
pub mod knocking;
pub mod limits;
pub mod message;
pub mod quota;
pub mod request;
pub mod serving;

mod quarantine;

pub use message::{Message, Token};
pub use quota::Quota;
pub use request::{Carriage, Request, RequestError, VerifiedRequest};
