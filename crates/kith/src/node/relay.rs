//! The floor of relays: being one for others, and being reached through others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_connect::relay::Quota;
use kith_connect::relay::exposure::Standing;
use kith_connect::relay::limits::{MAX_EXPOSED, MAX_WAITING};
use kith_connect::relay::serving::Regard;
use kith_connect::{Exposing, ListenError, Relaying};
use kith_identity::Fingerprint;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Node;
use super::contacts::Book;
use crate::config::{Config, Served};
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
    moved: Notify,
}

impl Relays {
    /// This machine has other addresses than before: each relay is to be asked whether it still answers.
    pub(crate) fn moved(&self) {
        self.moved.notify_one();
    }
}

/// Streams beside those of relaying.
const OTHER_STREAMS: usize = 4_096;
/// Streams that a stranger may have on one connection.
const STREAMS_OF_STRANGER: usize = 4;

/// Room for as many strangers as may wait, and as many again that have not said yet what they want, without their taking
/// any from others.
pub(super) fn make_room(config: &Config, endpoint: &mut kith_connect::Config) {
    let Some(served) = &config.relay.serves else { return };
    // Whom it serves without knowing him is a stranger as well.
    let served = if *served == Served::Anyone { MAX_EXPOSED } else { 0 };
    endpoint.max_strangers = endpoint.max_strangers.max(2 * MAX_WAITING + served);
    let streams = MAX_EXPOSED + STREAMS_OF_STRANGER * endpoint.max_strangers + OTHER_STREAMS;
    endpoint.max_streams = endpoint.max_streams.max(streams);
}

fn locked<T>(of: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn start(node: &Arc<Node>) -> Result<()> {
    if let Some(served) = node.config.relay.serves.clone() {
        let book = Arc::clone(&node.book);
        let relaying = node.endpoint.relay(quota(node), move |peer| regard(&book, &served, peer));
        *locked(&node.relays.relaying) = Some(relaying.map_err(|error| no_relay(&error))?);
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

fn no_relay(error: &ListenError) -> Failure {
    let failure = Failure::failed(chain(error));
    match error {
        ListenError::NoTcp => failure.hint("add a tcp:// address to 'listen' in kith.toml, or to --listen"),
        _ => failure,
    }
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
    loop {
        tokio::select! {
            has_changed = exposing.changed() => {
                if !has_changed {
                    return;
                }
                *locked(&node.relays.uses) = Some(exposing.standings());
                if node.own.set_relays(exposing.named()) {
                    node.announcements.say(node.own.draft());
                }
            }
            () = node.relays.moved.notified() => exposing.shaken(),
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

#[cfg(test)]
mod tests {
    use kith_identity::Ni;
    use kith_store::Database;

    use super::Regard::{Barred, Known, Served as Anybody, Stranger};
    use super::*;

    #[test]
    fn a_relay_knows_its_contacts_or_a_group_of_them_and_does_nothing_for_whom_this_node_has_blocked() {
        let book = Book::open(Database::in_memory().unwrap()).unwrap();
        let all = [1, 2, 3, 4].map(|byte| Fingerprint::from_bytes([byte; 32]));
        let ni = |who: &Fingerprint| Ni::new(*who, None).to_string();
        for (name, who) in ["cousin", "colleague", "blocked"].iter().zip(&all) {
            book.add(&serde_json::from_value(json!({ "name": name, "ni": ni(who) })).unwrap()).unwrap();
            book.join(name, if *name == "colleague" { "work" } else { "family" }).unwrap();
        }
        book.block("blocked").unwrap();
        let regards = |served: Served| all.each_ref().map(|who| regard(&book, &served, who));
        assert_eq!(regards(Served::Contacts), [Known, Known, Barred, Stranger]);
        assert_eq!(regards(Served::Group("family".parse().unwrap())), [Known, Stranger, Barred, Stranger]);
        assert_eq!(regards(Served::Anyone), [Known, Known, Barred, Anybody]);
    }

    #[test]
    fn strangers_of_a_relay_cannot_take_the_streams_of_others() {
        let mut config = Config::default();
        let usual = kith_connect::Config::default();
        let mut room = usual.clone();
        make_room(&config, &mut room);
        assert_eq!(room, usual, "only where this node relays");
        for served in [Served::Contacts, Served::Anyone] {
            config.relay.serves = Some(served);
            let mut room = usual.clone();
            make_room(&config, &mut room);
            let strange = STREAMS_OF_STRANGER * room.max_strangers;
            assert!(room.max_strangers >= 2 * MAX_WAITING && room.max_streams >= strange + usual.max_streams);
        }
    }
}
