//! `kith network`: membership, over the running node.

use hyper::Method;
use serde::Deserialize;

use super::{Context, escape};
use crate::api::network::{Epoch, Issued, Joined, Network, NewIssue, NewMembership, RollEntry};
use crate::api::shapes::Status;
use crate::cli;
use crate::failure::Result;
use crate::output::printable;

pub(super) async fn network(context: &Context, command: cli::Network) -> Result<()> {
    let (mut node, out) = (context.node().await?, context.out);
    match command {
        cli::Network::Issue(options) => {
            let wish = NewIssue { who: options.who };
            let issued: Issued = node.call(Method::POST, "/v1/network/issued", Some(&wish)).await?;
            out.result(&issued, || issued_lines(&issued).join("\n"))
        }
        cli::Network::Join(options) => {
            let wish = NewMembership { issuer: options.issuer, at: options.at };
            let joined: Joined = node.call(Method::POST, "/v1/network/joined", Some(&wish)).await?;
            out.result(&joined, || joined_line(&joined))
        }
        cli::Network::Revoke { who } => {
            let path = format!("/v1/network/members/{}", escape(&who));
            let entry: RollEntry = node.call(Method::DELETE, &path, None::<&()>).await?;
            out.result(&entry, || match entry.state.as_str() {
                "revoked" => format!("{} is no member from the next epoch on", entry.ni),
                _ => format!("{} is invited no more", entry.ni),
            })
        }
        cli::Network::Status => {
            let network: Network = node.read("/v1/network").await?;
            out.result(&network, || lines(&network))
        }
    }
}

fn lines(network: &Network) -> String {
    let mut lines = network.issued.as_ref().map(issued_lines).unwrap_or_default();
    lines.extend(network.joined.as_ref().map(joined_line));
    if lines.is_empty() { "no network".to_owned() } else { lines.join("\n") }
}

fn epoch_text(epoch: &Epoch) -> String {
    let Epoch { number, ends, members, .. } = epoch;
    let members = if *members == 1 { "1 member".to_owned() } else { format!("{members} members") };
    format!("epoch {number} until {ends}, {members}")
}

fn issued_lines(issued: &Issued) -> Vec<String> {
    let first = format!("issues    {}\t{}", issued.ni, epoch_text(&issued.epoch));
    std::iter::once(first).chain(issued.roll.iter().map(entry_line)).collect()
}

fn entry_line(entry: &RollEntry) -> String {
    let until = entry.until.as_ref().filter(|_| entry.state == "member");
    let until = until.map_or(String::new(), |until| format!(" until {until}"));
    let name = entry.name.as_ref().map_or(String::new(), |name| format!("\t{}", printable(name)));
    format!("          {}\t{}{until}{name}", entry.ni, entry.state)
}

fn joined_line(joined: &Joined) -> String {
    let until = joined.until.as_ref().map_or(String::new(), |until| format!(" until {until}"));
    let state = if joined.state == "member" { "member" } else { "no member" };
    let failure = joined.failure.as_deref().map_or(String::new(), |why| format!(" ({})", printable(why)));
    format!("joined    {}\t{state}{until}{failure}\t{}", joined.ni, epoch_text(&joined.epoch))
}

/// What `status` says of membership; nothing where there is none.
pub(super) fn status_lines(status: &Status) -> Vec<String> {
    #[derive(Deserialize)]
    struct Section {
        issued: Option<Epoch>,
        joined: Option<Joined>,
    }
    let section = status.floors.get("network").and_then(|section| Section::deserialize(section).ok());
    let Some(Section { issued, joined }) = section else { return Vec::new() };
    let issued = issued.map(|epoch| format!("network      issued here: {}", epoch_text(&epoch)));
    let joined = joined.map(|joined| format!("network      {}", joined_line(&joined)));
    issued.into_iter().chain(joined).collect()
}
