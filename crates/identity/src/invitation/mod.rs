//! Invitations: a link that makes two strangers contacts, once (`docs/protocol-invite.md`).
//!
//! An [`Invitation`] says who invites, where, and until when, and holds a secret of 128 bits. Whoever joins proves the
//! secret with a [`Proof`] over what both ends export of their TLS session, so that a proof is worth nothing on any
//! other connection; the inviter proves it back. [`Message`] is what they say to each other.
//!
//! Pure: no clock, no socket; chance is an argument. Secrets have no `Debug` and are wiped when dropped.

mod link;
mod message;
mod place;
mod secret;

pub use link::{Invitation, InvitationError, Terms};
pub use message::{Introduction, MAX_MESSAGE_BYTES, Message, MessageError};
pub use place::MAX_PLACES;
pub use secret::{Binding, Proof, Role, Secret, Ticket};

/// The label under which both ends export what a [`Proof`] is bound to.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-kithnet-invite-v1";
