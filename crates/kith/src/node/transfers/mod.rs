//! The floor that moves files: the node owns transfers, commands watch them.

mod incoming;
mod journal;
mod live;
mod outgoing;
mod receivers;
mod rooms;
mod routes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_connect::Protocol;
use kith_sansio::system;
use kith_store::Database;
use serde_json::{Value, json};

use self::journal::Journal;
use self::live::Live;
use self::receivers::Receivers;
use self::rooms::Rooms;
use super::Node;
use crate::api::shapes::{State, Transfer};
use crate::failure::{Failure, Result};
use crate::floors::Floor;

/// The protocol of `kith_transfer`, named to `kith_connect`.
pub(crate) const PROTOCOL: Protocol = Protocol::new(kith_transfer::PROTOCOL);
/// Files and names that are listed one by one.
const MAX_LISTED: usize = 100;
/// Ended transfers that stay in memory.
const MAX_ENDED: usize = 200;
/// Transfers under way at once, both ways together.
const MAX_RUNNING: usize = 64;
/// Unanswered offers of one contact.
const MAX_PENDING_PER_CONTACT: usize = 8;

pub(crate) const FLOOR: Floor = Floor {
    name: "transfer",
    start: |node| Box::pin(start(node)),
    stop: |_| Box::pin(async {}),
    routes: routes::routes,
    status: |node| Some(status(node)),
    commands: &["send", "receive"],
};

/// All transfers of this node.
pub(crate) struct Transfers {
    journal: Journal,
    all: Mutex<BTreeMap<String, Arc<Live>>>,
    receivers: Receivers,
    rooms: Rooms,
}

impl Transfers {
    pub(crate) fn new(database: Database) -> Self {
        Transfers {
            journal: Journal::new(database),
            all: Mutex::default(),
            receivers: Receivers::default(),
            rooms: Rooms::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Live>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, id: &str) -> Result<Arc<Live>> {
        self.all().get(id).cloned().ok_or_else(|| Failure::not_found(format!("there is no transfer {id}")))
    }

    /// Forgets an offer that was never answered.
    fn forget(&self, live: &Arc<Live>) {
        let mut all = self.all();
        if all.get(&live.id).is_some_and(|known| Arc::ptr_eq(known, live)) {
            all.remove(&live.id);
        }
    }

    fn list(&self) -> Vec<Arc<Live>> {
        self.all().values().cloned().collect()
    }

    /// Takes a transfer in; refuses where too many are under way, or another has its id.
    fn insert(&self, live: &Arc<Live>) -> Result<()> {
        let mut all = self.all();
        if all.contains_key(&live.id) {
            return Err(Failure::failed(format!("there is a transfer {} already", live.id)));
        }
        let running = all.values().filter(|other| other.state().is_active()).count();
        if running >= MAX_RUNNING {
            return Err(Failure::failed(format!("{MAX_RUNNING} transfers are under way already")));
        }
        let mut ended: Vec<_> = all.values().filter(|other| other.state().is_final()).cloned().collect();
        if ended.len() >= MAX_ENDED {
            ended.sort_by_key(|other| other.row().changed);
            for old in &ended[..=ended.len() - MAX_ENDED] {
                all.remove(&old.id);
            }
        }
        all.insert(live.id.clone(), Arc::clone(live));
        Ok(())
    }

    /// Writes the transfer's row, off the runtime's threads; a failure is told and logged.
    async fn record(&self, live: &Arc<Live>) -> Result<()> {
        let (journal, id, row) = (self.journal.clone(), live.id.clone(), live.row());
        let written = tokio::task::spawn_blocking(move || journal.write(&id, &row)).await;
        match written.map_err(Failure::failed)? {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "the journal of transfers cannot be written");
                Err(Failure::failed(crate::failure::chain(&error)))
            }
        }
    }
}

/// Takes up what an earlier run of this node left unfinished, then listens.
async fn start(node: &Arc<Node>) -> Result<()> {
    let journal = node.transfers.journal.clone();
    let rows = tokio::task::spawn_blocking(move || {
        journal.prune(system::utc())?;
        journal.rows()
    });
    let rows =
        rows.await.map_err(Failure::failed)?.map_err(|e| Failure::failed(crate::failure::chain(&e)))?;
    for (id, mut row) in rows {
        let Some(peer) = row.fingerprint() else { continue };
        let goes_on = !row.last.state.is_final();
        if goes_on {
            row.last.state = State::Interrupted;
        }
        let live = Live::new(id, peer, row);
        if node.transfers.insert(&live).is_err() {
            break;
        }
        if goes_on && matches!(live.job(), journal::Job::Out { .. }) {
            outgoing::spawn(node, &live);
        }
    }
    incoming::listen(node)
}

fn status(node: &Node) -> Value {
    let running: Vec<Transfer> = node
        .transfers
        .list()
        .iter()
        .filter(|live| !live.state().is_final())
        .map(|live| live.snapshot())
        .collect();
    json!({ "running": running, "receivers": node.transfers.receivers.count() })
}
