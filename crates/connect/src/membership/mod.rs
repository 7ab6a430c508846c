//! Membership on the network: what members ask the issuer of their network, and how a certificate reaches a peer.
//!
//! The issuer of a network (`kith_identity::membership`) answers over `network/1`: a node joins, a member asks for the
//! newest epoch, for all members of a block, for the revocations, and brings evidence. There is no conversation to keep
//! in mind: each [`Question`] has one [`Answer`], which follows from the issuer's book and the epoch alone ([`Desk`]).
//!
//! Over `member/1` two nodes that have never heard of each other exchange certificates ([`show`]): from then on each
//! knows that the other is a member, and admits it where [`Members`](crate::Admission::Members) are.
//!
//! Invariants: a certificate is given to the key alone that proved itself on the connection. Whoever is refused learns
//! why, where it was let in at all. What arrives is bounded before memory is taken.

mod desk;
mod message;

pub use desk::{Caller, Desk};
pub use message::{
    Answer, MAX_ANSWER_BYTES, MAX_MET, MAX_QUESTION_BYTES, MessageError, Question, Refusal, answer_length,
    question_length,
};

pub use crate::shell::{Enquiry, EnquiryError, hear_question, say_answer, show, take_certificate};

use crate::Protocol;

/// The protocol between an issuer and the members of its network; the member opens the stream.
pub const PROTOCOL: Protocol = Protocol::new("network/1");
/// The exchange of certificates between two members, of whom neither need know the other.
pub const SHOW: Protocol = Protocol::new("member/1");
/// By how much a member's clock may be behind the issuer's: a certificate is valid from so many seconds before it was
/// given.
pub const CLOCK_SLACK_SECS: u64 = 300;
/// Most questions of one stream: the ranges of a network whose members or revocations do not fit into one.
pub const MAX_QUESTIONS: usize = 1024;
