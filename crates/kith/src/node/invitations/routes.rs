//! Calls of the control API about invitations.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::response::Response;
use axum::routing::{delete, get, post};
use kith_identity::contacts::Petname;
use kith_identity::invitation::{Invitation, InvitationError, Terms, Ticket};
use kith_sansio::{Timestamp, system};
use tokio::sync::watch;

use super::ledger::{Ledger, Row, Stage};
use super::{Listening, joining};
use crate::api::invitations::{self as shapes, Cancelled, Joined, NewInvitation, NewJoin};
use crate::api::server::{Answer, Route, json_lines};
use crate::api::wish::Body;
use crate::failure::{Failure, Result, chain};
use crate::node::Node;
use crate::node::contacts::shape;

/// Longest life of an invitation, in seconds.
const MAX_VALID_SECS: u64 = 30 * 86_400;

pub(super) fn routes() -> Vec<Route> {
    vec![
        ("/v1/invitations", get(list).post(create)),
        ("/v1/invitations/{id}", delete(cancel)),
        ("/v1/invitations/{id}/events", get(watch)),
        ("/v1/join", post(join)),
    ]
}

async fn create(
    Shared(node): Shared<Arc<Node>>,
    Body(wish): Body<NewInvitation>,
) -> Answer<shapes::Invitation> {
    let valid_secs = wish.valid_ms.div_ceil(1000);
    if !(1..=MAX_VALID_SECS).contains(&valid_secs) {
        return Err(Failure::usage("an invitation is valid for 1s to 30d"));
    }
    if let Some(name) = &wish.called {
        let name: Petname = name.parse().map_err(|error| Failure::usage(chain(&error)))?;
        if let Ok(holder) = node.book.find(name.as_str()) {
            return Err(Failure::usage(format!("the name '{name}' belongs to {}", holder.ni)));
        }
    }
    let mut changes = node.invitations.ledger.changes();
    let listening = node.invitations.listening.subscribe();
    let (ticket, link, qr) = node.on_disk(move |node| open(node, &wish, valid_secs)).await?;
    let usable = tokio::select! {
        usable = until_usable(&node.invitations.ledger, &ticket, &mut changes, listening) => usable,
        () = node.stopped.cancelled() => return Err(Failure::failed("the node is stopping")),
    };
    if let Err(failure) = usable {
        // Nobody is told the link.
        node.on_disk(move |node| node.invitations.ledger.cancel(&ticket, system::now())).await?;
        return Err(failure);
    }
    let row = node.invitations.ledger.find(&ticket)?;
    Ok(Json(shapes::Invitation { link: Some(link), qr: Some(qr), ..document(&node, &ticket, &row) }))
}

/// Whoever has the link may use it at once: waits until joiners are listened to, or the invitation has ended before. An
/// error where they cannot be listened to.
async fn until_usable(
    ledger: &Ledger,
    ticket: &Ticket,
    changes: &mut watch::Receiver<u64>,
    mut listening: watch::Receiver<Listening>,
) -> Result<()> {
    let mut is_news = false;
    while !ledger.find(ticket)?.stage.is_final() {
        match &*listening.borrow() {
            Listening::Yes => return Ok(()),
            Listening::Failed(failure) if is_news => return Err(failure.clone()),
            // It is tried again for this invitation.
            Listening::Failed(_) | Listening::No => {}
        }
        tokio::select! {
            changed = listening.changed() => {
                changed.map_err(Failure::failed)?;
                is_news = true;
            }
            changed = changes.changed() => changed.map_err(Failure::failed)?,
        }
    }
    Ok(())
}

fn open(node: &Node, wish: &NewInvitation, valid_secs: u64) -> Result<(Ticket, String, String)> {
    let now = system::now();
    let terms = Terms {
        inviter: node.ni(),
        addresses: node.addresses(),
        // The second that has begun is no part of its time.
        expires: now.utc.plus_secs(valid_secs + 1),
        offers: wish.offers,
    };
    let invitation = Invitation::new(&terms, &mut system::OsRng).map_err(|error| match error {
        InvitationError::Nowhere => Failure::failed(
            "nobody could find this node: it has no address and no authority",
        )
        .hint("connect to a network, or name a directory in kith.toml (authorities = [\"example.org\"])"),
        other => Failure::failed(chain(&other)),
    })?;
    let row = Row {
        called: wish.called.clone(),
        offers: wish.offers,
        created: now.utc.0,
        expires: terms.expires.0,
        stage: Stage::Open,
        ended: 0,
        peer: None,
        secret: Some(invitation.secret().clone()),
    };
    let ticket = invitation.ticket();
    node.invitations.ledger.add(ticket, row, now)?;
    Ok((ticket, invitation.link().to_string(), invitation.qr_text().to_string()))
}

/// An invitation without its link, which only its maker is told, once.
fn document(node: &Node, ticket: &Ticket, row: &Row) -> shapes::Invitation {
    let contact = row.peer.filter(|_| row.stage != Stage::Burnt).and_then(|peer| node.book.contact_of(&peer));
    shapes::Invitation {
        id: ticket.to_string(),
        state: state(row.stage),
        called: row.called.clone(),
        offers: row.offers,
        created: Timestamp(row.created).to_string(),
        expires: Timestamp(row.expires).to_string(),
        contact: contact.map(|contact| shape(&node.book, &contact)),
        link: None,
        qr: None,
    }
}

fn state(stage: Stage) -> shapes::State {
    match stage {
        Stage::Open => shapes::State::Open,
        Stage::Claimed | Stage::Answered => shapes::State::Joining,
        Stage::Joined => shapes::State::Joined,
        Stage::Burnt => shapes::State::Guessed,
        Stage::Expired => shapes::State::Expired,
        Stage::Cancelled => shapes::State::Cancelled,
    }
}

async fn list(Shared(node): Shared<Arc<Node>>) -> Answer<Vec<shapes::Invitation>> {
    let rows = node.on_disk(|node| {
        node.invitations.ledger.sweep(system::now());
        Ok(node.invitations.ledger.list())
    });
    let rows = rows.await?;
    Ok(Json(rows.iter().map(|(ticket, row)| document(&node, ticket, row)).collect()))
}

fn ticket(id: &str) -> Result<Ticket> {
    id.parse().map_err(|error| Failure::not_found(chain(&error)).hint("'kith invite list' shows them"))
}

async fn cancel(Shared(node): Shared<Arc<Node>>, Path(id): Path<String>) -> Answer<Cancelled> {
    let ticket = ticket(&id)?;
    let row = node.on_disk(move |node| node.invitations.ledger.cancel(&ticket, system::now())).await?;
    let invitation = document(&node, &ticket, &row);
    Ok(Json(Cancelled { cancelled: row.stage == Stage::Cancelled, invitation }))
}

async fn watch(Shared(node): Shared<Arc<Node>>, Path(id): Path<String>) -> Result<Response> {
    let ticket = ticket(&id)?;
    node.invitations.ledger.find(&ticket)?;
    let changes = node.invitations.ledger.changes();
    let watcher = Watcher { node: Arc::clone(&node), ticket, changes, last: None };
    let events = futures_util::stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((event.and_then(|event| serde_json::to_value(event).map_err(Failure::failed)), watcher))
    });
    Ok(json_lines(&node, events))
}

/// Somebody who follows one invitation.
struct Watcher {
    node: Arc<Node>,
    ticket: Ticket,
    changes: watch::Receiver<u64>,
    last: Option<Stage>,
}

impl Watcher {
    /// What has changed: one document now, one at each change, the last at the end.
    async fn next(&mut self) -> Option<Result<shapes::Invitation>> {
        if self.last.is_some_and(Stage::is_final) {
            return None;
        }
        loop {
            self.changes.mark_unchanged();
            let row = match self.node.invitations.ledger.find(&self.ticket) {
                Ok(row) => row,
                Err(_) if self.last.is_some() => return None,
                Err(failure) => return Some(Err(failure)),
            };
            if self.last.map(state) != Some(state(row.stage)) {
                self.last = Some(row.stage);
                return Some(Ok(document(&self.node, &self.ticket, &row)));
            }
            self.changes.changed().await.ok()?;
        }
    }
}

async fn join(Shared(node): Shared<Arc<Node>>, Body(wish): Body<NewJoin>) -> Answer<Joined> {
    joining::join(&node, &wish).await.map(Json)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kith_store::Database;

    use super::*;
    use crate::node::invitations::Invitations;

    #[tokio::test]
    async fn an_invitation_that_ends_or_is_not_listened_for_keeps_nobody_waiting() {
        enum Case {
            Ends,
            IsHeard,
            IsNotHeard,
        }
        for case in [Case::Ends, Case::IsHeard, Case::IsNotHeard] {
            let invitations = Invitations::open(Database::in_memory().unwrap()).unwrap();
            let (ticket, now) = (Ticket::from_bytes([1; 8]), system::now());
            let (created, expires) = (now.utc.0, now.utc.0 + 60);
            let row = Row {
                called: None,
                offers: false,
                created,
                expires,
                stage: Stage::Open,
                ended: 0,
                peer: None,
                secret: None,
            };
            let mut changes = invitations.ledger.changes();
            // That it failed before says nothing of this one.
            invitations.listening.send_replace(Listening::Failed(Failure::failed("before")));
            let listening = invitations.listening.subscribe();
            invitations.ledger.add(ticket, row, now).unwrap();
            let mut waiting = Box::pin(until_usable(&invitations.ledger, &ticket, &mut changes, listening));
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
            match case {
                Case::Ends => drop(invitations.ledger.cancel(&ticket, now).unwrap()),
                Case::IsHeard => drop(invitations.listening.send_replace(Listening::Yes)),
                Case::IsNotHeard => {
                    let failed = Listening::Failed(Failure::failed("no"));
                    invitations.listening.send_replace(failed);
                }
            }
            let usable = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
            assert_eq!(usable.is_err(), matches!(case, Case::IsNotHeard));
        }
    }
}
