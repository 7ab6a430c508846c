//! Calls of the control API about transfers.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::response::Response;
use axum::routing::{get, post};
use kith_transfer::Rate;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::live::{By, Decision, Live, events};
use super::receivers::{Taken, Wish};
use super::{notices, orders};
use crate::api::server::{Answer, Route, json_lines};
use crate::api::shapes::{Acceptance, NewReceiver, NewTransfer, Started, State, Transfer, TransferChange};
use crate::api::wish::Body;
use crate::failure::{Failure, Result};
use crate::node::Node;

pub(super) fn routes() -> Vec<Route> {
    vec![
        ("/v1/transfers", get(list).post(create)),
        ("/v1/transfers/{id}", get(show).patch(change).delete(cancel)),
        ("/v1/transfers/{id}/events", get(watch)),
        ("/v1/transfers/{id}/accept", post(accept)),
        ("/v1/receivers", post(receive)),
    ]
}

async fn list(Shared(node): Shared<Arc<Node>>) -> Json<Vec<Transfer>> {
    Json(node.transfers.list().iter().map(|live| live.snapshot()).collect())
}

async fn create(Shared(node): Shared<Arc<Node>>, Body(order): Body<NewTransfer>) -> Answer<Started> {
    if order.paths.is_empty() || order.paths.iter().any(|path| !FilePath::new(path).is_absolute()) {
        return Err(Failure::usage("a transfer needs absolute paths"));
    }
    orders::start(&node, order).await.map(Json)
}

async fn show(Shared(node): Shared<Arc<Node>>, Path(id): Path<String>) -> Answer<Transfer> {
    node.transfers.find(&id).map(|live| Json(live.snapshot()))
}

async fn cancel(Shared(node): Shared<Arc<Node>>, Path(id): Path<String>) -> Answer<Value> {
    let live = node.transfers.find(&id)?;
    if live.is_pending() {
        live.decide(Decision::Decline)?;
    } else if !live.state().is_final() {
        // What has ended in this moment stays as it ended.
        live.cancel_by(By::Here);
        super::incoming::cancel_sleeping(&node, &live).await?;
        // Durable before it is acknowledged; its own stream may be too slow, or gone, to tell it.
        node.transfers.record(&live).await?;
        if live.is_untold() {
            notices::tell(&node, &live);
        }
    }
    Ok(Json(json!({ "cancelled": true })))
}

async fn change(
    Shared(node): Shared<Arc<Node>>,
    Path(id): Path<String>,
    Body(change): Body<TransferChange>,
) -> Answer<Transfer> {
    let live = node.transfers.find(&id)?;
    if live.state().is_final() {
        return Err(Failure::failed(format!("the transfer {id} has ended")));
    }
    let limit = match change.limit {
        None | Some(0) => None,
        Some(limit) => {
            let wrong = || Failure::usage("a limit is 1KiB/s to 1024GiB/s");
            Some(Rate::new(limit).ok_or_else(wrong)?)
        }
    };
    if change.paused == Some(true) && live.is_pending() {
        return Err(Failure::failed("this offer was not accepted yet, so there is nothing to pause")
            .hint("take it with 'kith receive', or decline it with 'kith transfer cancel'"));
    }
    if change.limit.is_some() {
        live.set_limit(limit);
    }
    let changed = match change.paused {
        Some(true) => live.pause(By::Here),
        Some(false) => live.resume(By::Here),
        None => false,
    };
    // Durable before it is acknowledged: what is paused stays so.
    node.transfers.record(&live).await?;
    if changed {
        notices::tell(&node, &live);
    }
    Ok(Json(live.snapshot()))
}

async fn watch(Shared(node): Shared<Arc<Node>>, Path(id): Path<String>) -> Result<Response> {
    let live = node.transfers.find(&id)?;
    Ok(json_lines(&node, events(live)))
}

async fn accept(
    Shared(node): Shared<Arc<Node>>,
    Path(id): Path<String>,
    Body(wish): Body<Acceptance>,
) -> Answer<Value> {
    let live = node.transfers.find(&id)?;
    refuse_relative(&wish.into)?;
    live.decide(Decision::Accept { into: wish.into, overwrite: wish.overwrite })?;
    Ok(Json(json!({ "accepted": true })))
}

async fn receive(Shared(node): Shared<Arc<Node>>, Body(wish): Body<NewReceiver>) -> Result<Response> {
    refuse_relative(&wish.into)?;
    let from = wish.from.as_deref().map(|name| node.book.peer(name)).transpose()?;
    let wish = Wish {
        from: from.map(|contact| contact.ni.fingerprint),
        into: wish.into,
        yes: wish.yes,
        overwrite: wish.overwrite,
    };
    let receiver = Receiver { node: Arc::clone(&node), wish, follows: None, ended: false };
    let events = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.next().await?;
        Some((serde_json::to_value(event).map_err(Failure::failed), receiver))
    });
    Ok(json_lines(&node, events))
}

/// A `receive` command: it follows one transfer, or the next one where that loses its connection.
struct Receiver {
    node: Arc<Node>,
    wish: Wish,
    follows: Option<(Taken, watch::Receiver<u64>)>,
    ended: bool,
}

impl Receiver {
    async fn next(&mut self) -> Option<Transfer> {
        if self.ended {
            return None;
        }
        let transfer = match &mut self.follows {
            Some(((live, _), changes)) => live.next_change(changes).await,
            None => self.begin().await?,
        };
        let (live, _) = &self.follows.as_ref()?.0;
        if transfer.state.is_final() {
            self.ended = true;
            self.reported(Arc::clone(live));
        } else if matches!(transfer.state, State::Interrupted | State::Paused) {
            // Perhaps it comes back, perhaps the contact offers something else.
            self.follows = None;
        }
        Some(transfer)
    }

    async fn begin(&mut self) -> Option<Transfer> {
        let taken = self.node.transfers.receivers.take(&self.node.transfers, &self.wish).await?;
        let live = Arc::clone(&taken.0);
        let changes = live.changes();
        if self.wish.yes && live.is_pending() {
            let Wish { into, overwrite, .. } = self.wish.clone();
            // An offer that went away in this moment ends its events by itself.
            let _ = live.decide(Decision::Accept { into, overwrite });
        }
        self.follows = Some((taken, changes));
        Some(live.snapshot())
    }

    /// The end counts as reported once it was taken.
    fn reported(&self, live: Arc<Live>) {
        live.update(|row| row.reported = true);
        let node = Arc::clone(&self.node);
        tokio::spawn(async move { node.transfers.record(&live).await });
    }
}

fn refuse_relative(into: &str) -> Result<()> {
    if FilePath::new(into).is_absolute() {
        return Ok(());
    }
    Err(Failure::usage(format!("the folder to receive into must be an absolute path, not '{into}'")))
}
