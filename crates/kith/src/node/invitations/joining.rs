//! The joiner's side of `invite/1`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kith_connect::{ConnectError, Stream, Via};
use kith_identity::contacts::{Contact, Petname};
use kith_identity::invitation::{Binding, EXPORTER_LABEL, Introduction, Invitation, Message, Role};
use kith_identity::{Ni, words};
use kith_sansio::{Span, system};

use super::{PROTOCOL, hints_of, introduction, met, wire};
use crate::api::invitations::{Joined, NewJoin};
use crate::failure::{Code, Failure, Result, chain};
use crate::node::contacts::shape;
use crate::node::{Node, connect, push};

/// How long a conversation may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the inviter is told that its answer is stored.
const TELLING: u32 = 3;
/// Nobody waits longer than a day, in milliseconds.
const MAX_WAIT_MS: u64 = 86_400_000;

/// Joins by an invitation: tries until the inviter answers, or the time to wait is over.
pub(super) async fn join(node: &Arc<Node>, wish: &NewJoin) -> Result<Joined> {
    let invitation: Invitation = wish.link.parse().map_err(|error| {
        Failure::usage(chain(&error)).hint("copy the whole link, from 'kith:' to its last character")
    })?;
    let inviter = invitation.inviter();
    if inviter.fingerprint == node.identity.fingerprint() {
        return Err(Failure::usage("this invitation is of this node itself")
            .hint("give the link to somebody else, who runs 'kith join' with it"));
    }
    let called = wish.called.as_deref().map(|name| free_name(node, name, &inviter)).transpose()?;
    let via = connect::via(wish.via.as_deref())?;
    let _guest = node.guests.expect(inviter.clone(), hints_of(&invitation.addresses()));
    let joining = Joining { node, invitation: &invitation, called, via };
    let give_up = system::time() + Span::millis(wish.wait_ms.min(MAX_WAIT_MS));
    let mut pause = Duration::from_millis(100);
    loop {
        match joining.attempt().await {
            Ok(met) => return Ok(joining.settle(met).await),
            Err(failure) if failure.code != Code::Unreachable || system::time() >= give_up => {
                return Err(failure);
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// The name, where nobody else has it.
fn free_name(node: &Node, name: &str, inviter: &Ni) -> Result<Petname> {
    let wanted: Petname = name.parse().map_err(|error| Failure::usage(chain(&error)))?;
    match node.book.find(name) {
        Ok(holder) if holder.ni.fingerprint != inviter.fingerprint => {
            Err(Failure::usage(format!("the name '{wanted}' belongs to {}", holder.ni)))
        }
        _ => Ok(wanted),
    }
}

/// One `join` command.
struct Joining<'a> {
    node: &'a Arc<Node>,
    invitation: &'a Invitation,
    called: Option<Petname>,
    via: Via,
}

/// An inviter who is a contact now.
struct Stored {
    contact: Contact,
    is_new: bool,
    /// The inviter knows it.
    is_seen: bool,
}

impl Joining<'_> {
    async fn attempt(&self) -> Result<Stored> {
        let target = self.invitation.inviter().fingerprint;
        let connected = self.node.endpoint.connect_fresh(&target, &PROTOCOL, self.via).await;
        let stream = connected.map_err(|error| self.explain(&error))?;
        match tokio::time::timeout(TIMEOUT, self.converse(stream)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(broke_off(&"no answer in time")),
        }
    }

    async fn converse(&self, mut stream: Stream) -> Result<Stored> {
        let lost = |error: io::Error| broke_off(&error);
        let binding = Binding {
            ticket: self.invitation.ticket(),
            exported: stream.export(EXPORTER_LABEL).map_err(lost)?,
            joiner: self.node.identity.fingerprint(),
            inviter: self.invitation.inviter().fingerprint,
        };
        let secret = self.invitation.secret();
        let proof = secret.prove(Role::Joiner, &binding);
        let join = Message::Join { ticket: binding.ticket, proof, who: introduction(self.node) };
        wire::write(&mut stream, &join).await.map_err(lost)?;
        let (proof, who) = match wire::read(&mut stream).await.map_err(lost)? {
            Message::Welcome { proof, who } => (proof, who),
            Message::Refused => return Err(self.refused()),
            _ => return Err(broke_off(&"the inviter says something else than is its turn")),
        };
        if !secret.is_proved_by(&proof, Role::Inviter, &binding) {
            return Err(Failure::not_trusted("the inviter does not know the secret of this invitation")
                .hint("ask for a new one, by a way that nobody else can change"));
        }
        let (contact, is_new) = self.store(who).await?;
        let telling = async {
            wire::write(&mut stream, &Message::Stored).await?;
            wire::read(&mut stream).await
        };
        let is_seen = matches!(telling.await, Ok(Message::Seen));
        Ok(Stored { contact, is_new, is_seen })
    }

    async fn store(&self, who: Introduction) -> Result<(Contact, bool)> {
        let inviter = self.invitation.inviter();
        let mut found = met(self.node, inviter.fingerprint, &who, self.called.clone());
        found.ni.authority = found.ni.authority.or(inviter.authority);
        // What the link says comes from the person; it goes first.
        let mut hints = hints_of(&self.invitation.addresses());
        hints.extend(found.hints.into_iter().filter(|hint| !hints.contains(hint)).collect::<Vec<_>>());
        found.hints = hints;
        found.is_own_word = false;
        let node = Arc::clone(self.node);
        tokio::task::spawn_blocking(move || node.book.meet(found)).await.map_err(Failure::failed)?
    }

    /// The inviter is stored, so this has worked. Where the inviter has not heard of it, it is told again; where it
    /// cannot be reached any more, it learns at the end of the invitation.
    async fn settle(&self, stored: Stored) -> Joined {
        let Stored { contact, is_new, mut is_seen } = stored;
        for _ in 0..TELLING {
            if is_seen {
                break;
            }
            is_seen = self.attempt().await.is_ok_and(|again| again.is_seen);
        }
        push::greet(self.node, contact.ni.fingerprint);
        Joined {
            words: words(&contact.ni.fingerprint).join(" "),
            contact: shape(&self.node.book, &contact),
            new: is_new,
            offers: self.invitation.offers(),
        }
    }

    fn explain(&self, error: &ConnectError) -> Failure {
        let text = format!("cannot reach the inviter: {}", chain(error));
        match error {
            ConnectError::Refused { .. } => self.refused(),
            ConnectError::WrongPeer { .. } => Failure::not_trusted(text)
                .hint("somebody else answers at the inviter's address: ask for a new invitation"),
            _ => {
                Failure::unreachable(text).hint("is the inviter's node up, and can it be reached from here?")
            }
        }
    }

    fn refused(&self) -> Failure {
        let expires = self.invitation.expires();
        let why = if system::utc() >= expires {
            format!("this invitation expired at {expires}")
        } else {
            "this invitation is not open: used, expired, cancelled or wrong".to_owned()
        };
        Failure::not_trusted(why).hint("ask for a new one: it is good for one person, once")
    }
}

fn broke_off(error: &dyn std::fmt::Display) -> Failure {
    Failure::unreachable(format!("the connection to the inviter broke off: {error}"))
        .hint("run the same command again: it goes on where it stopped")
}
