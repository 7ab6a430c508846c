//! `kith network`: membership, over the running node.

use hyper::Method;
use serde::Deserialize;

use super::{Context, escape};
use crate::api::network::{Epoch, Issued, Joined, Network, NewIssue, NewMembership, RollEntry};
use crate::api::shapes::Status;
use crate::cli;
use crate::failure::Result;
use crate::output::printable;

/// What is said where there is none.
const NOTHING: &str =
    "no network is issued here, and none was joined; 'kith network issue' and 'kith network join' do";

pub(super) async fn network(context: &Context, command: cli::Network) -> Result<()> {
    let (mut node, out) = (context.node().await?, context.out);
    match command {
        cli::Network::Issue(options) => {
            let wish = NewIssue { who: options.who };
            let issued: Issued = node.call(Method::POST, "/v1/network/issued", Some(&wish)).await?;
            out.result(&issued, || issued_lines(&issued).join("\n"))?;
            if !out.is_json() {
                out.aside(next_step(&issued));
            }
            Ok(())
        }
        cli::Network::Join(options) => {
            let wish = NewMembership { issuer: options.issuer, at: options.at };
            let joined: Joined = node.call(Method::POST, "/v1/network/joined", Some(&wish)).await?;
            out.result(&joined, || joined_line(&joined))?;
            if !out.is_json() {
                out.aside("the number of members is that of the epoch: the next one counts this node");
            }
            Ok(())
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
    if lines.is_empty() { NOTHING.to_owned() } else { lines.join("\n") }
}

/// How others come into a network.
fn next_step(issued: &Issued) -> String {
    let who = match issued.roll.iter().any(|entry| entry.state == "invited") {
        true => "those who are invited",
        false => "contacts of this node ('kith network issue NI' invites others)",
    };
    let ni = &issued.ni;
    format!("{who} join with: kith network join '{ni}' --at ADDRESS; 'kith status' here shows the addresses")
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
