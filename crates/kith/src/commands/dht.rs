//! `kith dht`: the values that the members of a network keep for each other, over the running node.

use std::path::Path;

use hyper::Method;
use serde_json::{Map, Value};

use super::{Context, escape, read_at_most};
use crate::api::dht::{DhtFound, DhtPublished, DhtStatus, DhtStored, NewDhtValue};
use crate::cli;
use crate::config::Publish;
use crate::failure::{Failure, Result, chain};
use crate::output::printable;

/// No document of a record set is larger.
const MAX_BYTES: u64 = 64 * 1024;

pub(super) async fn dht(context: &Context, command: cli::Dht) -> Result<()> {
    let out = context.out;
    match command {
        cli::Dht::Status => {
            let status: DhtStatus = context.node().await?.read("/v1/dht").await?;
            out.result(&status, || status_text(&status))
        }
        cli::Dht::Get { key } => {
            let path = format!("/v1/dht/values/{}", escape(&key));
            let found: DhtFound = context.node().await?.read(&path).await?;
            out.result(&found, || found_text(&found))
        }
        cli::Dht::Put { file } => {
            let set = file.as_deref().map(read).transpose()?;
            let wish = NewDhtValue { set };
            let mut node = context.node().await?;
            let stored: DhtStored = node.call(Method::POST, "/v1/dht/values", Some(&wish)).await?;
            out.result(&stored, || {
                let DhtStored { key, nodes, expires, .. } = &stored;
                format!("{key}\ton {}, until {expires}", counted(*nodes, "node"))
            })
        }
    }
}

fn read(file: &Path) -> Result<Map<String, Value>> {
    let Some(bytes) = read_at_most(MAX_BYTES, file)? else {
        return Err(Failure::failed(format!("{} is larger than any record set", file.display())));
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::failed(format!("{} is no record set: {}", file.display(), chain(&error)))
            .hint("'kith discover NI --json' prints one")
    })
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn status_text(status: &DhtStatus) -> String {
    let region = match status.region.complete {
        Some(true) => "complete".to_owned(),
        Some(false) => format!("{} not found yet", status.region.missing),
        None => "not proved yet".to_owned(),
    };
    let members = usize::try_from(status.members).unwrap_or(usize::MAX);
    [
        format!("network    {}, {}", status.network, counted(members, "member")),
        format!("place      {}{}", status.id, if status.joined { "" } else { ", joining" }),
        format!("region     {} bits, {} known, {region}", status.region.bits, status.region.known),
        format!("elsewhere  {} known", status.buckets),
        format!("values     {}", status.values),
        format!("streams    {}", status.streams),
        format!("lookups    {} running, {} since the start", status.lookups.running, status.lookups.begun),
        format!("published  {}", published_text(&status.published)),
    ]
    .join("\n")
}

fn published_text(published: &DhtPublished) -> String {
    let readers = published
        .contacts
        .map_or(String::new(), |contacts| format!("for {}, ", counted(contacts, "contact")));
    let stored = match (published.publish, &published.nodes, &published.expires) {
        (Publish::None, ..) => "for nobody".to_owned(),
        (_, Some(nodes), Some(until)) => format!("{readers}on {}, until {until}", counted(*nodes, "node")),
        (Publish::Contacts, ..) => "for contacts alone, not yet".to_owned(),
        _ => "not yet".to_owned(),
    };
    let error = published.error.as_deref().map_or(String::new(), |error| format!(" ({})", printable(error)));
    format!("{stored}{error}")
}

fn found_text(found: &DhtFound) -> String {
    let addresses = found.set.get("addresses").and_then(Value::as_array).cloned().unwrap_or_default();
    let addresses =
        addresses.iter().filter_map(Value::as_str).map(|one| format!("addresses  {}\n", printable(one)));
    format!("ni         {}\n{}expires    {}", found.ni, addresses.collect::<String>(), found.expires)
}
