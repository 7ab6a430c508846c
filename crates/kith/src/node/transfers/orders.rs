//! Orders of a person here: what is refused at once, and what is under way already.

use std::path::Path;
use std::sync::Arc;

use kith_identity::Fingerprint;
use kith_sansio::{Rng, system};
use kith_transfer::{Rate, TransferId};

use super::PROTOCOL;
use super::journal::{Job, Row};
use super::live::Live;
use super::outgoing::spawn;
use crate::api::shapes::{NewTransfer, Started, State, Transfer};
use crate::failure::{Failure, Result};
use crate::node::{Node, connect};

/// Nobody waits longer than a year, in milliseconds.
pub(super) const MAX_WAIT_MS: u64 = 365 * 86_400_000;

/// Begins a transfer, or finds the same one under way.
pub(super) async fn start(node: &Arc<Node>, order: NewTransfer) -> Result<Started> {
    let contact = node.book.peer_for(&order.to, &PROTOCOL)?;
    node.book.refuse_unless_allowed(&contact, &PROTOCOL)?;
    connect::via(order.via.as_deref())?;
    refuse_impossible(&order)?;
    refuse_own_home(node, &order)?;
    if let Some(live) = under_way(node, &order, &contact.ni.fingerprint) {
        return Ok(Started { id: live.id.clone(), attached: true });
    }
    let mut id = [0; 16];
    system::OsRng.fill(&mut id);
    let id = TransferId(id).to_string();
    let last = Transfer {
        paths: order.paths.clone(),
        limit: order.limit,
        ..blank(&id, "out", contact.name.as_str(), State::Connecting)
    };
    let peer = contact.ni.fingerprint;
    let until = system::utc().plus_secs(order.wait_ms.min(MAX_WAIT_MS) / 1_000);
    let job = Job::Out { order };
    let row = Row { reported: true, until: until.0, ..Row::new(&peer, job, system::utc(), last) };
    let live = Live::new(id.clone(), peer, row);
    node.transfers.insert(&live)?;
    if let Err(failure) = node.transfers.record(&live).await {
        node.transfers.forget(&live);
        return Err(failure);
    }
    spawn(node, &live);
    Ok(Started { id, attached: false })
}

fn refuse_impossible(order: &NewTransfer) -> Result<()> {
    let times = 1_000..=u64::from(kith_transfer::frame::MAX_ANSWER_SECS) * 1_000;
    if order.accept_ms.is_some_and(|within| !times.contains(&within)) {
        return Err(Failure::usage("an offer waits for an answer for 1s to 30d"));
    }
    if order.limit.is_some_and(|limit| Rate::new(limit).is_none()) {
        return Err(Failure::usage("a limit is 1KiB/s to 1024GiB/s"));
    }
    Ok(())
}

/// A folder that holds the home would hand over the private key.
fn refuse_own_home(node: &Node, order: &NewTransfer) -> Result<()> {
    let Ok(home) = node.home.dir().canonicalize() else { return Ok(()) };
    for path in &order.paths {
        // What cannot be resolved is told when it is read.
        let Ok(real) = Path::new(path).canonicalize() else { continue };
        if home.starts_with(&real) || real.starts_with(&home) {
            return Err(Failure::usage(format!("{path} holds this node's home with its private key"))
                .hint("send the other folders and files one by one"));
        }
    }
    Ok(())
}

fn under_way(node: &Node, order: &NewTransfer, peer: &Fingerprint) -> Option<Arc<Live>> {
    node.transfers.list().into_iter().find(|live| {
        let same = matches!(&live.job(), Job::Out { order: other } if other.paths == order.paths && other.via == order.via);
        same && live.peer == *peer && !live.state().is_final()
    })
}

/// A transfer of which nothing is known yet.
pub(crate) fn blank(id: &str, direction: &str, contact: &str, state: State) -> Transfer {
    Transfer {
        id: id.to_owned(),
        direction: direction.to_owned(),
        contact: contact.to_owned(),
        state,
        done: false,
        bytes: 0,
        total_bytes: 0,
        resumed_bytes: 0,
        files: 0,
        total_files: 0,
        seconds: 0.0,
        path: "none".to_owned(),
        transport: None,
        into: None,
        paths: Vec::new(),
        failed: Vec::new(),
        failed_files: 0,
        skipped: Vec::new(),
        unreadable: 0,
        paused_by: None,
        waiting_for: None,
        until: None,
        limit: None,
        failure: None,
    }
}
