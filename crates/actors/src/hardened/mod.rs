//! The selection that Kithnet runs (`docs/actors-protocol.md`): the roles and the logical cost of SEP2P, without the
//! choices that the paper leaves to whoever takes part.
//!
//! A [`Trigger`] has a [`Ticket`] signed by its [`Witness`]es, who then reveal one output each of their verifiable
//! random functions; nobody chooses it. Their hash names a place, whose [`Builder`]s, coordinated by a [`Setter`], sign
//! which members of its region are the actors. A [`ActorList`] is checked with its bytes and the issuer's fingerprint.
//!
//! Groups follow from the members' places ([`View::group`]): whoever is left out of one has to be proven absent by every
//! signer's own probe.

mod book;
mod build;
mod draw;
mod group;
mod list;
mod reason;
mod set;
mod stalled;
mod suite;
mod ticket;
mod wire;

use kith_identity::membership::{MemberLeaf, NodeId};
use kith_identity::vrf::Proof;

use crate::ktable::TableError;
use crate::scheme::Signature;

pub use book::{Book, BookError, Witnessed};
pub use build::Builder;
pub use draw::{Draw, DrawShare, Proposal, Trigger, Witness};
pub use group::{Group, View};
pub use list::{ActorList, Endorsement, ListError, MAX_LIST_BYTES, VerifiedActorList};
pub use reason::Reason;
pub use set::{Job, Order, Setter};
pub use stalled::{MAX_STALLED, Reminder, Stalled, Unfinished};
pub use suite::{Claim, Suite};
pub use ticket::{AROUND, GRACE_SECS, Terms, Ticket};
pub use wire::{MAX_MESSAGE_BYTES, MessageError};

/// What members say to each other, in the order of its kinds on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The trigger asks a witness to sign.
    Propose(Box<Proposal>),
    /// A witness has signed the ticket.
    Accept(Signature),
    /// All witnesses have: their signatures, in the order of the group.
    Accepted(Vec<Signature>),
    /// The proof of a witness's random output.
    Reveal(Proof),
    /// The setter asks a builder to select.
    Build(Box<Job>),
    /// Which of the first candidates did not answer this builder.
    Report(Vec<NodeId>),
    /// What all builders reported, in the order of the group.
    Reports(Vec<Vec<NodeId>>),
    /// The actors, signed.
    Signed {
        /// The actors, in their order.
        actors: Vec<MemberLeaf>,
        /// The builder's signature.
        signature: Signature,
    },
    /// The region has too few candidates, signed.
    Insufficient(Signature),
    /// The trigger asks the member nearest to the place of its draw to be the setter.
    Order(Box<Order>),
    /// The setter's answer: the list.
    Selected(Box<ActorList>),
    /// The setter's answer where its region holds too few: what goes to the next place.
    Moved(Box<Order>),
    /// A member does not do what it was asked to.
    Refused(Reason),
    /// Are you there?
    Ping,
    /// Here I am.
    Pong,
    /// As [`Message::Propose`]; and from a witness to those who are left out: give what you owe.
    Remind(Box<Reminder>),
    /// What a member that was left out gave to a witness, for the trigger; a refusal follows.
    Late {
        /// Who.
        from: NodeId,
        /// The proof of its output.
        proof: Box<Proof>,
    },
}

/// What a machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An authenticated member said something.
    Heard {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// Those of the probed members that answered.
    Alive(Vec<NodeId>),
    /// What those said who were reminded.
    Answered(Vec<(NodeId, Message)>),
}

/// What a machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Put the book where a restart finds it, before anything that follows is done.
    Keep,
    /// Say something to a member.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Ask these members whether they are there; the answer is [`Input::Alive`].
    Probe(Vec<NodeId>),
    /// Pass the reminder to these members; the answer is [`Input::Answered`].
    Remind(Vec<NodeId>, Box<Reminder>),
    /// The draw, or a move, is done: hand the order to the member nearest to this place, over the DHT.
    Route {
        /// The place.
        to: NodeId,
        /// The order.
        order: Box<Order>,
    },
    /// The list is there.
    Selected(Box<ActorList>),
    /// These members were asked and did not take part in time; the ticket is burnt.
    Unanswered(Vec<NodeId>),
    /// These members took part and then did not say what is missing; the ticket is burnt.
    Silent(Vec<NodeId>),
    /// What this member said does not hold, as only this machine can tell; the ticket is burnt.
    Lied(NodeId),
    /// It cannot go on.
    Refused(Refusal),
}

/// Why a member does not go on with a selection.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The range of members does not verify against the epoch, or is not a region of its size.
    #[error("the members of the region do not verify against the epoch's statement, or it has another size")]
    Region,
    /// There is no table for the epoch's numbers: too many may collude, for example.
    #[error("no selection in this epoch: {0}")]
    NoTable(#[from] TableError),
    /// Another table than the issuer's.
    #[error("the k-table is not the one of the epoch's statement")]
    Table,
    /// The place lies in a region that this member does not know whole.
    #[error("the place lies outside of the region that this member knows")]
    Elsewhere,
    /// Not enough members answer.
    #[error("no region of the k-table holds enough members that answer")]
    Sparse,
    /// The group is not the nearest members, or not of the smallest size.
    #[error("the group is not the one that follows from the members' places")]
    Group,
    /// A member that was left out as absent answers.
    #[error("a member that was left out answers")]
    LeftOut(NodeId),
    /// The ticket was used, skips the order, or is beyond the quota.
    #[error("the ticket's number was used before or is beyond the quota")]
    Sequence,
    /// The book is of another network or epoch: what was signed in this one is not known.
    #[error("there is no book of this epoch")]
    Book,
    /// As much was signed in this epoch as a book holds.
    #[error("too much was signed in this epoch")]
    Full,
    /// Another network or epoch.
    #[error("the ticket is of another network or epoch")]
    Epoch,
    /// The ticket has expired.
    #[error("the ticket has expired")]
    Expired,
    /// The list would be good long after the end of the epoch.
    #[error("the ticket lasts longer than {GRACE_SECS} seconds after its epoch")]
    Lasting,
    /// None, or more than half of what a region holds on average; where the region is the whole network, more than there
    /// are beside trigger and witnesses.
    #[error("a selection is of 1 to {most} actors in this network")]
    Actors {
        /// How many it may be of.
        most: u64,
    },
    /// A membership path, signature or random output does not verify.
    #[error("a signer or its proof does not verify")]
    Signer,
    /// What this member said was changed on its way.
    #[error("what this member reported is not among the reports")]
    Report,
}
