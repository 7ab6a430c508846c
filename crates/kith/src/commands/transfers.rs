//! `kith transfer`: what the node moves, and what a person may do about it.

use hyper::Method;
use indicatif::HumanBytes;
use kith_transfer::Rate;
use serde_json::Value;

use super::Context;
use crate::api::client::Control;
use crate::api::shapes::{State, Transfer, TransferChange};
use crate::cli;
use crate::failure::{Failure, Result};
use crate::output::{file_count, printable};

/// Letters of an id that a list shows.
const SHORT_ID: usize = 8;

pub(super) async fn transfer(context: &Context, command: cli::Transfer) -> Result<()> {
    let mut node = context.node().await?;
    let all: Vec<Transfer> = node.read("/v1/transfers").await?;
    match command {
        cli::Transfer::List { all: ended } => list(context, all, ended),
        cli::Transfer::Show { id } => {
            let found = by_id(&all, &id)?;
            context.out.result(found, || details(found))
        }
        cli::Transfer::Pause { which } => change(context, &mut node, &all, &which, pausing(true)).await,
        cli::Transfer::Resume { which } => change(context, &mut node, &all, &which, pausing(false)).await,
        cli::Transfer::Limit { id, rate } => {
            let limit = limit(&rate)?;
            let found = by_id(&all, &id)?.id.clone();
            let wish = TransferChange { limit: Some(limit), ..TransferChange::default() };
            change(context, &mut node, &all, &[found], wish).await
        }
        cli::Transfer::Cancel { which } => cancel(context, &mut node, &all, &which).await,
    }
}

fn pausing(paused: bool) -> TransferChange {
    TransferChange { paused: Some(paused), ..TransferChange::default() }
}

/// Bytes a second; 0 for none.
fn limit(text: &str) -> Result<u64> {
    if text == "off" {
        return Ok(0);
    }
    text.parse().map(Rate::bytes_per_second).map_err(|error| Failure::usage(error).hint("or say off"))
}

fn list(context: &Context, mut all: Vec<Transfer>, ended: bool) -> Result<()> {
    all.retain(|transfer| ended || !transfer.state.is_final());
    context.out.result(&all, || {
        let lines: Vec<_> = all.iter().map(line).collect();
        if lines.is_empty() { "no transfers".to_owned() } else { lines.join("\n") }
    })
}

/// The transfer of an id, or of the only one that begins so.
fn by_id<'a>(all: &'a [Transfer], text: &str) -> Result<&'a Transfer> {
    let mut found = all.iter().filter(|transfer| !text.is_empty() && transfer.id.starts_with(text));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("several transfers begin with {text}")).hint("write more of the id"))
        }
        (None, _) => Err(Failure::not_found(format!("there is no transfer '{}'", printable(text)))
            .hint("see 'kith transfer list --all'")),
    }
}

/// The transfer of an id; refused where it has ended.
fn under_way<'a>(all: &'a [Transfer], text: &str) -> Result<&'a Transfer> {
    let one = by_id(all, text)?;
    if one.state.is_final() {
        return Err(Failure::failed(format!("the transfer {} has ended", one.id)));
    }
    Ok(one)
}

/// The transfers that are meant: of a contact all that have not ended.
fn meant<'a>(all: &'a [Transfer], which: &[String]) -> Result<Vec<&'a Transfer>> {
    let mut meant: Vec<&Transfer> = Vec::new();
    for text in which {
        let of_contact: Vec<_> =
            all.iter().filter(|one| one.contact == *text && !one.state.is_final()).collect();
        let found = if of_contact.is_empty() { vec![by_id(all, text)?] } else { of_contact };
        for one in found {
            if !meant.iter().any(|known| known.id == one.id) {
                meant.push(one);
            }
        }
    }
    Ok(meant)
}

async fn change(
    context: &Context,
    node: &mut Control,
    all: &[Transfer],
    which: &[String],
    wish: TransferChange,
) -> Result<()> {
    let mut changed: Vec<Transfer> = Vec::new();
    for one in meant(all, which)? {
        changed.push(node.call(Method::PATCH, &format!("/v1/transfers/{}", one.id), Some(&wish)).await?);
    }
    context.out.result(&changed, || changed.iter().map(line).collect::<Vec<_>>().join("\n"))
}

async fn cancel(context: &Context, node: &mut Control, all: &[Transfer], which: &[String]) -> Result<()> {
    let ids = which.iter().map(|text| under_way(all, text).map(|one| one.id.clone()));
    let ids: Vec<String> = ids.collect::<Result<_>>()?;
    for id in &ids {
        let _: Value = node.call(Method::DELETE, &format!("/v1/transfers/{id}"), None::<&()>).await?;
    }
    context.out.result(&ids, || ids.iter().map(|id| format!("{id} cancelled")).collect::<Vec<_>>().join("\n"))
}

/// How it stands, in a few words.
pub(super) fn standing(transfer: &Transfer) -> String {
    let until = || transfer.until.as_ref().map_or(String::new(), |until| format!(" until {until}"));
    match transfer.state {
        State::Connecting => "connecting".to_owned(),
        State::Waiting => format!("waiting{}", until()),
        State::Offered => format!("offered{}", until()),
        State::Moving => "moving".to_owned(),
        State::Interrupted => "interrupted".to_owned(),
        State::Paused => match transfer.paused_by.as_deref() {
            Some("contact") => "paused by the contact".to_owned(),
            Some("both") => "paused here and by the contact".to_owned(),
            _ => "paused here".to_owned(),
        },
        State::Done => "done".to_owned(),
        State::Failed => "failed".to_owned(),
        State::Expired => "expired".to_owned(),
    }
}

/// One line of a list.
pub(super) fn line(transfer: &Transfer) -> String {
    let id = transfer.id.get(..SHORT_ID).unwrap_or(&transfer.id);
    let direction = if transfer.direction == "out" { "to" } else { "from" };
    let names: Vec<_> = transfer.paths.iter().take(3).map(|path| printable(last_name(path))).collect();
    let more = if transfer.paths.len() > names.len() { ", …" } else { "" };
    let limit = transfer.limit.and_then(Rate::new).map_or(String::new(), |rate| format!("\tat most {rate}"));
    format!(
        "{id}\t{direction} {}\t{}\t{} of {}\t{}{more}{limit}",
        printable(&transfer.contact),
        standing(transfer),
        HumanBytes(transfer.bytes),
        HumanBytes(transfer.total_bytes),
        names.join(", "),
    )
}

fn last_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

fn details(transfer: &Transfer) -> String {
    let mut lines = vec![
        format!("id        {}", transfer.id),
        format!(
            "contact   {} {}",
            if transfer.direction == "out" { "to" } else { "from" },
            printable(&transfer.contact)
        ),
        format!("state     {}", standing(transfer)),
        format!(
            "moved     {} of {}, {} of {}",
            HumanBytes(transfer.bytes),
            HumanBytes(transfer.total_bytes),
            transfer.files,
            file_count(transfer.total_files)
        ),
    ];
    let mut more = |name: &str, text: Option<String>| {
        lines.extend(text.map(|text| format!("{name:10}{}", printable(&text))));
    };
    more("limit", transfer.limit.and_then(Rate::new).map(|rate| rate.to_string()));
    more("waits for", transfer.waiting_for.clone());
    more("into", transfer.into.clone());
    transfer.paths.iter().for_each(|path| more("path", Some(path.clone())));
    more("failure", transfer.failure.as_ref().map(|failure| failure.error.clone()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfers() -> Vec<Transfer> {
        [("aa10", "south", "moving"), ("aa11", "south", "done"), ("ab10", "aa", "paused")]
            .into_iter()
            .map(|(id, contact, state)| {
                serde_json::from_value(serde_json::json!({
                    "id": id, "direction": "out", "contact": contact, "state": state, "done": false, "bytes": 0,
                    "total_bytes": 0, "resumed_bytes": 0, "files": 0, "total_files": 0, "seconds": 0.0,
                    "path": "none", "transport": null, "into": null, "paths": [], "failed": [],
                    "failed_files": 0, "skipped": [], "failure": null
                }))
                .unwrap()
            })
            .collect()
    }

    #[test]
    fn an_id_may_be_shortened_as_long_as_it_is_the_only_one() {
        let all = transfers();
        assert_eq!(by_id(&all, "ab").unwrap().id, "ab10");
        assert_eq!(by_id(&all, "aa11").unwrap().id, "aa11");
        assert_eq!(by_id(&all, "aa").unwrap_err().code, crate::failure::Code::Usage);
        for unknown in ["", "b", "ab100"] {
            assert_eq!(by_id(&all, unknown).unwrap_err().code, crate::failure::Code::NotFound);
        }
    }

    #[test]
    fn what_has_ended_cannot_be_cancelled() {
        let all = transfers();
        assert_eq!(under_way(&all, "ab").unwrap().id, "ab10");
        assert_eq!(under_way(&all, "aa11").unwrap_err().error, "the transfer aa11 has ended");
        assert_eq!(under_way(&all, "b").unwrap_err().code, crate::failure::Code::NotFound);
    }

    #[test]
    fn a_contact_means_all_its_transfers_that_have_not_ended() {
        let all = transfers();
        let ids = |which: &[&str]| -> Vec<String> {
            let which: Vec<_> = which.iter().map(ToString::to_string).collect();
            meant(&all, &which).unwrap().iter().map(|one| one.id.clone()).collect()
        };
        assert_eq!(ids(&["south"]), ["aa10"]);
        assert_eq!(ids(&["aa", "ab10", "aa10"]), ["ab10", "aa10"]);
    }

    #[test]
    fn a_limit_is_a_rate_or_off() {
        assert_eq!((limit("off").unwrap(), limit("2MiB/s").unwrap()), (0, 2 << 20));
        assert!(limit("fast").is_err());
    }
}
