//! The floor that moves files: the node owns transfers, commands watch them.

mod course;
mod incoming;
mod journal;
mod lanes;
mod live;
mod missed;
mod notices;
mod offers;
mod orders;
mod outgoing;
mod receivers;
mod rooms;
mod routes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kith_connect::Protocol;
use kith_identity::Fingerprint;
use kith_sansio::{Now, Time, system};
use kith_store::Database;
use kith_transfer::{Limit, Rate};
use serde_json::{Value, json};
use tokio::sync::RwLockReadGuard;

use self::journal::{Job, Journal, Known};
use self::lanes::Lanes;
use self::live::Live;
use self::offers::Offers;
#[cfg(test)]
pub(crate) use self::orders::blank;
use self::receivers::Receivers;
use self::rooms::Rooms;
use super::Node;
use crate::api::shapes::{State, Transfer};
use crate::failure::{Failure, Result, chain};
use crate::floors::Floor;

/// The protocol of `kith_transfer`, named to `kith_connect`.
pub(crate) const PROTOCOL: Protocol = Protocol::new(kith_transfer::PROTOCOL);
/// Files and names that are listed one by one.
const MAX_LISTED: usize = 100;
/// Ended transfers that stay in memory.
const MAX_ENDED: usize = 200;
/// Transfers that move at once, each way.
const MAX_RUNNING: usize = 64;
/// Of those that come from one contact, so that one that accepts and lets others move first leaves room: half.
const MAX_RUNNING_PER_CONTACT: usize = MAX_RUNNING / 2;
/// Transfers that may move at once where more than [`MAX_RUNNING`] were accepted before and come back; each keeps a
/// thread busy.
const MAX_BACK: usize = 3 * MAX_RUNNING;
/// Of those that come from one contact: more than a sender lets move and offers at once.
const MAX_BACK_PER_CONTACT: usize = MAX_BACK / 2;
/// Orders that have not ended.
const MAX_ORDERS: usize = 1_000;
/// Offers that wait for an answer here.
const MAX_PENDING: usize = 256;
/// Incoming transfers that wait for their sender, paused ones among them.
const MAX_SLEEPING: usize = 256;
/// How often what has been idle for too long is put away.
const TIDY: Duration = Duration::from_secs(600);
/// How often a sign of life is noted in the row of an incoming transfer whose bytes flow, in seconds.
const SIGN_SECS: u64 = 3_600;
/// Unanswered offers of one contact.
const MAX_PENDING_PER_CONTACT: usize = 8;

pub(crate) const FLOOR: Floor = Floor {
    name: "transfer",
    start: |node| Box::pin(start(node)),
    stop: |_| Box::pin(async {}),
    routes: routes::routes,
    status: |node| Some(status(node)),
    commands: &["send", "receive", "transfer"],
};

/// All transfers of this node.
pub(crate) struct Transfers {
    journal: Journal,
    all: Mutex<BTreeMap<String, Arc<Live>>>,
    receivers: Receivers,
    rooms: Rooms,
    offers: Offers,
    /// Places for outgoing transfers.
    lanes: Lanes,
    /// Shared by those who take up an incoming transfer, until its row is written; the tidying has it alone.
    keeping: tokio::sync::RwLock<()>,
    /// What all transfers together may send, and receive.
    up: Limit,
    down: Limit,
}

impl Transfers {
    /// `up` and `down` are the limits of the whole node.
    pub(crate) fn new(database: Database, up: Option<Rate>, down: Option<Rate>) -> Self {
        Transfers {
            journal: Journal::new(database),
            all: Mutex::default(),
            receivers: Receivers::default(),
            rooms: Rooms::default(),
            offers: Offers::default(),
            lanes: Lanes::default(),
            keeping: tokio::sync::RwLock::default(),
            up: Limit::new(up),
            down: Limit::new(down),
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

    /// As long as this is held no transfer and no partial files are put away: from before it is decided whose partial
    /// files are gone on with, until the row that says so is written.
    async fn keep(&self) -> RwLockReadGuard<'_, ()> {
        self.keeping.read().await
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
        refuse_too_many(&all, live)?;
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

    /// Whether a transfer that was accepted before, and comes over a new connection, has room to move.
    fn has_room_for(&self, back: &Live) -> bool {
        let all = self.all();
        let (others, of_contact) = moving(&all, back);
        others < MAX_BACK && of_contact < MAX_BACK_PER_CONTACT
    }

    /// A contact gave a sign of life: what waits for it is tried now.
    pub(crate) fn saw(&self, peer: &Fingerprint) {
        let all = self.all();
        all.values()
            .filter(|live| live.peer == *peer && (!live.state().is_final() || live.is_untold()))
            .for_each(|live| live.saw());
    }

    /// Incoming transfers that nobody came back to end, the oldest ones also where there are too many.
    fn give_up(&self, now: Time) {
        let mut sleeping: Vec<_> = self.list().into_iter().filter(|live| is_sleeping(live)).collect();
        sleeping.sort_by_key(|live| live.row().changed);
        let surplus = sleeping.len().saturating_sub(MAX_SLEEPING);
        let given_up = sleeping.into_iter().enumerate();
        for (_, live) in given_up.filter(|(number, live)| *number < surplus || live.is_given_up(now)) {
            live.end(Err(Failure::failed("the sender did not come back")));
            live.set_unsaved(true);
        }
    }

    /// Forgets in memory and in the journal what is over for too long.
    async fn tidy(&self, now: Now) -> Result<()> {
        let _alone = self.keeping.write().await;
        self.give_up(now.time);
        // One connection may carry a transfer for longer than partial files are kept without a sign of life.
        let is_alive = |live: &Live| is_incoming(live) && live.state() == State::Moving;
        let has_news = |live: &Arc<Live>| {
            let is_noted = is_alive(live) && live.note_life(now.utc, SIGN_SECS);
            is_noted || live.is_unsaved()
        };
        for live in self.list().into_iter().filter(has_news) {
            let _tried_again_the_next_time = self.record(&live).await;
        }
        let known = {
            let mut all = self.all();
            let mut known = Known::default();
            // What the journal is about to forget is forgotten here too.
            all.retain(|id, live| {
                let is_over = live.state().is_final() && live.is_given_up(now.time);
                if is_over {
                    known.forgotten.insert(id.clone());
                } else {
                    known.keep(id, &live.row());
                }
                !is_over
            });
            known
        };
        let journal = self.journal.clone();
        let pruned = tokio::task::spawn_blocking(move || journal.prune(now.utc, &known)).await;
        pruned.map_err(Failure::failed)?.map_err(|error| Failure::failed(chain(&error)))
    }

    /// Writes the transfer's row, off the runtime's threads; a failure is told and logged.
    async fn record(&self, live: &Arc<Live>) -> Result<()> {
        // An offer that nobody has accepted is no promise.
        if matches!(live.job(), Job::In { into, .. } if into.is_empty()) {
            return Ok(());
        }
        let (journal, writing) = (self.journal.clone(), Arc::clone(live));
        let written =
            tokio::task::spawn_blocking(move || writing.write_row(|row| journal.write(&writing.id, row)));
        match written.await.map_err(Failure::failed)? {
            Ok(()) => Ok(()),
            // Where it matters to somebody they are told; in any case it is tried again.
            Err(error) => {
                tracing::error!(%error, "the journal of transfers cannot be written");
                Err(Failure::failed(crate::failure::chain(&error)))
            }
        }
    }
}

fn is_incoming(live: &Live) -> bool {
    matches!(live.job(), Job::In { .. })
}

/// Whether it is an incoming transfer without a connection.
fn is_sleeping(live: &Live) -> bool {
    matches!(live.state(), State::Interrupted | State::Paused) && is_incoming(live)
}

/// The other incoming transfers that move: how many there are, and how many of its contact.
fn moving(all: &BTreeMap<String, Arc<Live>>, but: &Live) -> (usize, usize) {
    let is_moving =
        |live: &&Arc<Live>| live.id != but.id && live.state() == State::Moving && is_incoming(live);
    let of_contact = |live: &&Arc<Live>| live.peer == but.peer;
    let all = || all.values().filter(is_moving);
    (all().count(), all().filter(of_contact).count())
}

fn refuse_too_many(all: &BTreeMap<String, Arc<Live>>, new: &Live) -> Result<()> {
    let count = |of: &dyn Fn(&Live) -> bool| all.values().filter(|live| of(live)).count();
    if !is_incoming(new) {
        let orders = count(&|live| !live.state().is_final() && !is_incoming(live));
        if orders >= MAX_ORDERS {
            return Err(Failure::failed(format!("{MAX_ORDERS} transfers are under way or wait already"))
                .hint("see 'kith transfer list'; 'kith transfer cancel' ends some"));
        }
        return Ok(());
    }
    let (others, of_contact) = moving(all, new);
    let is_offer = |live: &Live| live.state() == State::Offered && is_incoming(live);
    let offers_of_contact = count(&|live| live.peer == new.peer && is_offer(live));
    if others >= MAX_RUNNING
        || of_contact >= MAX_RUNNING_PER_CONTACT
        || count(&is_offer) >= MAX_PENDING
        || offers_of_contact >= MAX_PENDING_PER_CONTACT
    {
        return Err(Failure::failed("too many transfers are under way or wait for an answer already"));
    }
    Ok(())
}

/// Takes up what an earlier run of this node left unfinished, then listens.
async fn start(node: &Arc<Node>) -> Result<()> {
    let journal = node.transfers.journal.clone();
    let rows = tokio::task::spawn_blocking(move || {
        journal.prune(system::utc(), &Known::default())?;
        journal.rows()
    });
    let rows =
        rows.await.map_err(Failure::failed)?.map_err(|e| Failure::failed(crate::failure::chain(&e)))?;
    for (id, mut row) in rows {
        let Some(peer) = row.fingerprint() else { continue };
        row.start_again();
        let goes_on = !row.last.state.is_final();
        let live = Live::new(id, peer, row);
        if node.transfers.insert(&live).is_err() {
            break;
        }
        if goes_on && matches!(live.job(), journal::Job::Out { .. }) {
            outgoing::spawn(node, &live);
        }
        if live.is_untold() {
            notices::tell(node, &live);
        }
    }
    let tidying = Arc::clone(node);
    node.tasks.spawn(async move {
        let mut book = kith_connect::Trust::changed(tidying.book.as_ref());
        loop {
            tokio::select! {
                () = tokio::time::sleep(TIDY) => {
                    if let Err(failure) = tidying.transfers.tidy(system::now()).await {
                        tracing::error!(%failure, "old transfers cannot be put away");
                    }
                }
                // Perhaps with another address.
                true = book.next() => tidying.transfers.list().iter().for_each(|live| live.saw()),
                () = tidying.stopped.cancelled() => return,
            }
        }
    });
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
    let rate = |limit: &Limit| limit.rate().map(Rate::bytes_per_second);
    json!({
        "running": running,
        "receivers": node.transfers.receivers.count(),
        "limit_up": rate(&node.transfers.up),
        "limit_down": rate(&node.transfers.down),
    })
}

#[cfg(test)]
mod tests;
