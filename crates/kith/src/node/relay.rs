//! The floor of relays: being one for others, and being reached through others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_connect::relay::Quota;
use kith_connect::relay::exposure::Standing;
use kith_connect::relay::serving::Regard;
use kith_connect::{Exposing, Relaying};
use kith_identity::Fingerprint;
use serde_json::{Value, json};

use super::Node;
use super::contacts::Book;
use crate::config::Served;
use crate::failure::{Failure, Result, chain};
use crate::floors::Floor;

pub(crate) const FLOOR: Floor = Floor {
    name: "relay",
    start: |node| Box::pin(start(node)),
    stop: |node| Box::pin(stop(node)),
    routes: Vec::new,
    status,
    commands: &["relay"],
};

/// What a node does as a relay and with relays.
#[derive(Default)]
pub(crate) struct Relays {
    relaying: Mutex<Option<Relaying>>,
    /// How each relay that is used stands.
    uses: Mutex<Option<Vec<Standing>>>,
}

fn locked<T>(of: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn start(node: &Arc<Node>) -> Result<()> {
    if let Some(served) = node.config.relay.serves.clone() {
        let book = Arc::clone(&node.book);
        let relaying = node.endpoint.relay(quota(node), move |peer| regard(&book, &served, peer));
        *locked(&node.relays.relaying) = Some(relaying.map_err(|error| Failure::failed(chain(&error)))?);
    }
    let used = node.config.relay.used();
    if used.is_empty() {
        return Ok(());
    }
    let exposing = node.endpoint.expose(used);
    *locked(&node.relays.uses) = Some(exposing.standings());
    let follower = Arc::clone(node);
    node.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = follower.stopping.cancelled() => {}
            () = follow(&follower, exposing) => {}
        }
    });
    Ok(())
}

async fn stop(node: &Arc<Node>) {
    drop(locked(&node.relays.relaying).take());
}

fn quota(node: &Node) -> Quota {
    let relay = &node.config.relay;
    Quota {
        sessions: relay.sessions.unwrap_or(Quota::default().sessions),
        bytes_per_day: relay.bytes_per_day.map(|size| size.0),
        bytes_per_second: relay.bytes_per_second.map(kith_transfer::Rate::bytes_per_second),
    }
}

fn regard(book: &Book, served: &Served, peer: &Fingerprint) -> Regard {
    if book.is_blocked(peer) {
        return Regard::Barred;
    }
    match (served, book.contact_of(peer)) {
        (Served::Anyone | Served::Contacts, Some(_)) => Regard::Known,
        (Served::Group(group), Some(one)) if one.groups.contains(group) => Regard::Known,
        (Served::Anyone, None) => Regard::Served,
        _ => Regard::Stranger,
    }
}

/// Names the relays in the record set by which this node can be reached.
async fn follow(node: &Arc<Node>, mut exposing: Exposing) {
    while exposing.changed().await {
        *locked(&node.relays.uses) = Some(exposing.standings());
        if node.own.set_relays(exposing.named()) {
            node.announcements.say(node.own.draft());
        }
    }
}

fn status(node: &Node) -> Option<Value> {
    let load = locked(&node.relays.relaying).as_ref().map(Relaying::load);
    let standings = locked(&node.relays.uses).clone();
    if load.is_none() && standings.is_none() {
        return None;
    }
    let used: Vec<_> = standings
        .unwrap_or_default()
        .iter()
        .map(|one| {
            let rtt_ms = one.rtt.map(|rtt| rtt.0 as f64 / 1e3);
            json!({ "ni": one.relay.ni.to_string(), "reachable": one.is_warm, "rtt_ms": rtt_ms })
        })
        .collect();
    let load = load
        .map(|load| json!({ "exposed": load.exposed, "waiting": load.waiting, "sessions": load.sessions }));
    Some(json!({ "serves": load, "uses": used }))
}
