//! One node manages whom others trust (SEP §5.1).
//!
//! A delegator keeps a [`Policy`]: members, groups of them, and rules such as "group `sensors` may reach group
//! `hubs`". Each member's own list follows from it: the members that it may reach, or that may reach it, for which
//! protocols and until when. The [`Server`] pushes every change of these lists; the [`Subscriber`] mirrors its own in
//! memory and says who may do what at a time.
//!
//! Invariants: a list is in force only as long as its delegator was heard of within the lease. A delegator gets no
//! right of its own, and says nothing about anybody but to its own subscribers. What arrives is bounded before memory
//! is taken; whatever does not fit what went before ends the conversation, and the next one begins with a whole list.

mod change;
mod list;
pub mod message;
mod policy;
mod rights;
mod server;
mod subscriber;

pub use change::Change;
pub use list::{Card, Delta, Entry, EntryError, List};
pub use message::{Epoch, Message, MessageError, Update};
pub use policy::{Member, Policy, PolicyError, Rule};
pub use rights::{Direction, Opener, Rights, Until};
pub use server::{ClosedFor, Server, ServerInput, ServerOutput, SessionId};
pub use subscriber::{Fault, Stage, Subscriber, SubscriberInput, SubscriberOutput};

pub use crate::shell::{Delegator, Subscription, SubscriptionState};

use crate::Protocol;

/// The protocol between a delegator and its subscribers; the subscriber opens the stream.
pub const PROTOCOL: Protocol = Protocol::new("delegate/1");
/// Most members of one policy, and so most entries of one list.
pub const MAX_MEMBERS: usize = 16_384;
/// Most entries of all lists that follow from one policy, together.
pub const MAX_ENTRIES: usize = 4 << 20;
/// Most groups of one policy.
pub const MAX_GROUPS: usize = 1_024;
/// Most rules of one policy.
pub const MAX_RULES: usize = 1_024;
/// Most protocols that the rules of one policy name, all together.
pub const MAX_PROTOCOLS: usize = 16;
/// Most address hints of one member.
pub const MAX_HINTS: usize = 4;
/// Largest list in bytes, as its entries are written in messages.
pub const MAX_LIST_BYTES: usize = 16 << 20;
