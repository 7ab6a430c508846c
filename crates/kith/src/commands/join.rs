//! `kith join`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use hyper::Method;
use kith_identity::invitation::Invitation;
use zeroize::Zeroizing;

use super::own_node::OwnNode;
use super::ping::via;
use super::transfer::interrupt;
use super::{Context, invite, transfer};
use crate::api::invitations::{Joined, NewJoin};
use crate::api::shapes::Contact;
use crate::cli::{Join, Receive};
use crate::failure::{Failure, Result, chain};

/// No link is longer.
const MAX_LINK_BYTES: u64 = 4096;

pub(super) async fn join(context: &Context, options: Join) -> Result<()> {
    let link = link(&options.link)?;
    let invitation: Invitation = link.parse().map_err(|error| {
        Failure::usage(chain(&error)).hint("copy the whole link, from 'kith:' to its last character")
    })?;
    let wanted = invitation.offers() || options.receive || options.into.is_some();
    let receives = wanted && !options.no_receive;
    let from_input = options.link == ["-"];
    if receives && !options.yes && (from_input || !std::io::stdin().is_terminal()) {
        return Err(Failure::usage(
            "nobody can be asked about the files, because standard input is no terminal",
        )
        .hint("say --yes to accept them without asking, or --no-receive to leave them to 'kith receive'"));
    }
    let own = OwnNode::ensure(context).await?;
    own.run(async {
        let contact = meet(context, &options, &link).await?;
        if receives {
            Box::pin(transfer::receive(context, reception(options, contact))).await?;
        }
        Ok(())
    })
    .await
}

/// The link of the command line, which a terminal may have cut into words, or of standard input.
fn link(words: &[String]) -> Result<Zeroizing<String>> {
    if words != ["-"] {
        return Ok(Zeroizing::new(words.concat()));
    }
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin().lock().take(MAX_LINK_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failure::failed(format!("cannot read the link from standard input: {error}")))?;
    Ok(text)
}

/// Becomes a contact of the inviter.
async fn meet(context: &Context, options: &Join, link: &str) -> Result<Contact> {
    let request = NewJoin {
        link: link.to_owned(),
        called: options.called.clone(),
        via: via(options.via),
        wait_ms: options.wait.as_millis(),
    };
    let mut interrupt = interrupt()?;
    let mut node = context.node().await?;
    let joining = node.call::<Joined>(Method::POST, "/v1/join", Some(&request));
    let joined = tokio::select! {
        joined = joining => joined?,
        _ = interrupt.recv() => return Err(Failure::failed("cancelled")),
    };
    context.out.item(&joined, || invite::joined(&joined.contact))?;
    Ok(joined.contact)
}

fn reception(options: Join, contact: Contact) -> Receive {
    Receive {
        from: Some(contact.ni),
        into: options.into.unwrap_or_else(|| PathBuf::from(".")),
        yes: options.yes,
        overwrite: options.overwrite,
        keep: false,
    }
}
