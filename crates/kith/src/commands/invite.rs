//! `kith invite`, and the invitation of `kith send --invite`.

use std::pin::pin;
use std::time::Duration;

use hyper::Method;
use kith_identity::{Ni, words};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;
use tokio::signal::unix::Signal;

use super::own_node::OwnNode;
use super::transfer::interrupt;
use super::{Context, escape, transfer};
use crate::api::client::{Control, Lines};
use crate::api::invitations::{Cancelled, Invitation, NewInvitation, State};
use crate::api::shapes::Contact;
use crate::cli::{Invitations, Invite, Open, Send};
use crate::failure::{Failure, Result};
use crate::output::printable;

/// How long an invitation that is being opened is waited for, to take it back.
const OPENING: Duration = Duration::from_secs(5);

pub(super) async fn invite(context: &Context, options: Invite) -> Result<()> {
    match options.command {
        Some(Invitations::List) => list(context).await,
        Some(Invitations::Cancel { id }) => {
            cancel(context, &id).await?;
            context.out.result(&json!({ "cancelled": true }), || format!("{id} is no invitation any more"))
        }
        None if options.open.detach => {
            let mut node = context.node().await?;
            let invitation = open(&mut node, &options.open, false).await?;
            show(context, &invitation, &options.open)
        }
        None => {
            let own = OwnNode::ensure(context).await?;
            own.run(until_joined(context, &options.open, false)).await.map(drop)
        }
    }
}

/// Invites somebody, waits until he has joined, and sends to him.
pub(super) async fn send(context: &Context, options: Send) -> Result<()> {
    let wish =
        Open { called: options.called.clone(), valid: options.valid, no_qr: options.no_qr, detach: false };
    let own = OwnNode::ensure(context).await?;
    own.run(async {
        let contact = until_joined(context, &wish, true).await?;
        Box::pin(transfer::send(context, Send { invite: false, to: vec![contact.ni], ..options })).await
    })
    .await
}

async fn open(node: &mut Control, options: &Open, offers: bool) -> Result<Invitation> {
    let wish = NewInvitation { called: options.called.clone(), valid_ms: options.valid.as_millis(), offers };
    node.call(Method::POST, "/v1/invitations", Some(&wish)).await
}

/// Prints the link, and for a person what to do with it.
fn show(context: &Context, invitation: &Invitation, options: &Open) -> Result<()> {
    let link = invitation.link.clone().unwrap_or_default();
    context.out.item(invitation, || link)?;
    if context.out.is_json() {
        return Ok(());
    }
    if let (Some(text), false) = (&invitation.qr, options.no_qr) {
        let code = QrCode::new(text).map_err(Failure::failed)?;
        let picture =
            code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
        context.out.aside(picture);
    }
    context.out.aside(format!(
        "For one person, once, until {}; give it to nobody else. On the other side: kith join LINK",
        invitation.expires
    ));
    Ok(())
}

/// Opens an invitation and waits for its end; whoever joined.
async fn until_joined(context: &Context, options: &Open, offers: bool) -> Result<Contact> {
    let mut node = context.node().await?;
    let mut interrupt = interrupt()?;
    let invitation = opened(context, &mut node, options, offers, &mut interrupt).await?;
    show(context, &invitation, options)?;
    let path = format!("/v1/invitations/{}/events", invitation.id);
    let events = node.lines(Method::GET, &path, None::<&()>).await?;
    let ended = tokio::select! {
        ended = last(context, events) => ended?,
        _ = interrupt.recv() => {
            cancel(context, &invitation.id).await?;
            return Err(Failure::failed("cancelled"));
        }
    };
    let contact = outcome(&ended)?;
    context.out.item(&ended, || joined(&contact))?;
    Ok(contact)
}

/// Opens an invitation; what the node opens though somebody interrupts is taken back.
async fn opened(
    context: &Context,
    node: &mut Control,
    options: &Open,
    offers: bool,
    interrupt: &mut Signal,
) -> Result<Invitation> {
    let mut opening = pin!(open(node, options, offers));
    tokio::select! {
        opened = &mut opening => return opened,
        _ = interrupt.recv() => {}
    }
    if let Ok(opened) = tokio::time::timeout(OPENING, opening).await {
        cancel(context, &opened?.id).await?;
    }
    Err(Failure::failed("cancelled"))
}

async fn last(context: &Context, mut events: Lines) -> Result<Invitation> {
    while let Some(event) = events.next::<Invitation>().await? {
        match event.state {
            State::Open => {}
            State::Joining => context.out.aside("somebody is joining …"),
            _ => return Ok(event),
        }
    }
    Err(Failure::failed("the node stopped; the invitation stays open until its time is over")
        .hint("start the node again with 'kith up'; 'kith invite list' shows the invitation"))
}

/// Who joined, or why nobody did.
fn outcome(ended: &Invitation) -> Result<Contact> {
    match (ended.state, &ended.contact) {
        (State::Joined, Some(contact)) => Ok(contact.clone()),
        (State::Guessed, _) => Err(Failure::not_trusted(
            "somebody tried this invitation with a wrong secret, so it has ended",
        )
        .hint(
            "make a new one, and give the link by another way: somebody may have read or changed this one",
        )),
        (State::Expired, _) => {
            Err(Failure::unreachable(format!("nobody joined until {}", ended.expires)).hint("make a new one"))
        }
        (State::Cancelled, _) => Err(Failure::failed("the invitation was cancelled")),
        _ => Err(Failure::failed("who joined was removed from the contacts at once")),
    }
}

/// Who is a contact now, with what two people can compare.
pub(super) fn joined(contact: &Contact) -> String {
    let spoken = contact.ni.parse::<Ni>().map(|ni| words(&ni.fingerprint).join(" ")).unwrap_or_default();
    format!("{} is a contact now: {}\nwords: {spoken}", printable(&contact.name), contact.ni)
}

/// Takes an invitation back; a failure where it had ended otherwise.
async fn cancel(context: &Context, id: &str) -> Result<()> {
    let mut node = context.node().await?;
    let path = format!("/v1/invitations/{}", escape(id));
    let answer: Cancelled = node.call(Method::DELETE, &path, None::<&()>).await?;
    if answer.cancelled {
        return Ok(());
    }
    match (answer.invitation.state, &answer.invitation.contact) {
        (State::Joined, Some(contact)) => {
            let name = printable(&contact.name);
            Err(Failure::failed(format!("{name} joined before"))
                .hint(format!("'kith contact remove {name}' takes that back")))
        }
        (State::Joined, None) => Err(Failure::failed("somebody joined before, and is no contact any more")),
        (state, _) => Err(Failure::failed(format!("the invitation had ended before: {}", said(state)))),
    }
}

async fn list(context: &Context) -> Result<()> {
    let mut node = context.node().await?;
    let all: Vec<Invitation> = node.read("/v1/invitations").await?;
    context.out.result(&all, || {
        let lines: Vec<_> = all.iter().map(line).collect();
        if lines.is_empty() { "none".to_owned() } else { lines.join("\n") }
    })
}

fn said(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Joining => "somebody is joining",
        State::Joined => "joined",
        State::Guessed => "ended by a wrong secret",
        State::Expired => "expired",
        State::Cancelled => "cancelled",
    }
}

fn line(one: &Invitation) -> String {
    let state = said(one.state);
    let who = one.contact.as_ref().map(|contact| contact.name.clone()).or_else(|| one.called.clone());
    let who = who.map_or(String::new(), |who| format!("\t{}", printable(&who)));
    format!("{}\t{state}\tuntil {}{who}", one.id, one.expires)
}
