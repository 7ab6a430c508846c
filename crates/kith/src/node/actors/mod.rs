//! The floor of selections (`docs/actors.md`): a node that belongs to a network has actors drawn there, and takes part when
//! others do.

mod evidence;
mod ground;
mod routes;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kith_actors::shell::Actors;
use kith_identity::Ni;
use kith_sansio::{Span, system};
use kith_store::Database;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ground::Land;
use self::rows::Rows;
use super::Node;
use super::dht::Running as Part;
use crate::api::actors::ActorsStatus;
use crate::failure::{Failure, Result, chain};
use crate::floors::Floor;

/// How often it is looked whether the node takes part in a DHT, on which selections stand.
const CHECK: Duration = Duration::from_secs(1);
/// How soon a part that has ended by itself, because its book could not be kept, begins again, at first and at most;
/// doubled each time.
const AGAIN: (Span, Span) = (Span::secs(1), Span::secs(300));

pub(crate) const FLOOR: Floor = Floor {
    name: "actors",
    start: |node| Box::pin(start(node)),
    stop: |node| Box::pin(stop(node)),
    routes: routes::routes,
    status,
    commands: &["actors"],
};

/// What this node has of selections.
pub(crate) struct Selections {
    rows: Rows,
    running: Mutex<Option<Running>>,
    /// Rings when there is evidence for the issuer.
    bell: Notify,
    /// All of this floor that must have ended before the database closes.
    tasks: TaskTracker,
    ending: CancellationToken,
}

/// A part in the selections of a network.
#[derive(Clone)]
struct Running {
    actors: Actors,
    land: Arc<Land>,
}

impl Selections {
    pub(crate) fn open(database: Database) -> Selections {
        Selections {
            rows: Rows(database),
            running: Mutex::default(),
            bell: Notify::new(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Option<Running> {
        self.slot().clone()
    }
}

async fn start(node: &Arc<Node>) -> Result<()> {
    node.selections.tasks.spawn(keep(Arc::clone(node)));
    node.selections.tasks.spawn(evidence::tell(Arc::clone(node)));
    Ok(())
}

async fn stop(node: &Arc<Node>) {
    let Selections { tasks, ending, .. } = &*node.selections;
    ending.cancel();
    tasks.close();
    tasks.wait().await;
}

/// Takes part in selections whenever this node has a part in a DHT.
async fn keep(node: Arc<Node>) {
    let selections = &node.selections;
    let (mut soonest, mut pause) = (system::time(), AGAIN.0);
    loop {
        let part = node.keyspace.running();
        let is_same = |running: &Running, part: &Part| Arc::ptr_eq(&running.land.part().pass, &part.pass);
        let (is_current, is_over) = match (&*selections.slot(), &part) {
            (Some(running), Some(part)) if is_same(running, part) => (true, running.actors.is_over()),
            (None, None) => (true, false),
            _ => (false, false),
        };
        if !is_current {
            pause = AGAIN.0;
        }
        if !is_current || is_over && system::time() >= soonest {
            end(selections).await;
            if let Some(Err(failure)) = part.map(|part| begin(&node, part)) {
                tracing::error!(%failure, "this node takes no part in selections");
            }
            soonest = system::time() + pause;
            pause = pause.times(2).min(AGAIN.1);
        }
        tokio::select! {
            () = tokio::time::sleep(CHECK) => {}
            () = selections.ending.cancelled() => return end(selections).await,
        }
    }
}

fn begin(node: &Arc<Node>, part: Part) -> Result<()> {
    let own = part.own;
    let land = Arc::new(Land::new(node, part));
    let (endpoint, identity) = (node.endpoint.clone(), Arc::clone(&node.identity));
    let actors = Actors::start(endpoint, identity, own, Arc::clone(&land) as _);
    let actors = actors.map_err(|error| Failure::failed(chain(&error)))?;
    *node.selections.slot() = Some(Running { actors, land });
    Ok(())
}

async fn end(selections: &Selections) {
    let running = selections.slot().take();
    if let Some(Running { actors, .. }) = running {
        actors.end().await;
    }
}

fn status(node: &Node) -> Option<Value> {
    let Running { land, actors } = node.selections.running()?;
    let newest = land.newest();
    let kept = land.kept().clone().filter(|_| !actors.is_over());
    // What was kept for an epoch before says nothing about this one.
    let book = kept.filter(|book| newest.as_ref().is_some_and(|newest| book.is_for(&newest.epoch)));
    let view = newest.as_ref().map(|newest| &newest.view);
    let part = land.part();
    Some(json!(ActorsStatus {
        network: Ni::new(part.network, None).to_string(),
        epoch: newest.as_ref().map(|newest| newest.epoch.facts().epoch),
        region: view.and_then(|view| view.as_ref().ok()).map_or(0, |view| view.leaves().len()),
        takes_part: book.as_ref().is_some_and(|book| !book.is_closed()),
        draws_left: book.as_ref().map_or(0, |book| book.left(&part.own)),
        refused: view.and_then(|view| view.as_ref().err()).map(ToString::to_string),
    }))
}
