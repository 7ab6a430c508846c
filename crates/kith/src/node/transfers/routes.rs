//! Calls of the control API about transfers.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::live::{Decision, Follower, Live, events};
use super::receivers::{Wish, existing};
use super::{journal::Job, outgoing};
use crate::api::server::{Answer, Route, json_lines};
use crate::api::shapes::{Acceptance, NewReceiver, NewTransfer, Started, Transfer};
use crate::api::wish::Body;
use crate::failure::{Failure, Result};
use crate::node::Node;

pub(super) fn routes() -> Vec<Route> {
    vec![
        ("/v1/transfers", get(list).post(create)),
        ("/v1/transfers/{id}", get(show).delete(cancel)),
        ("/v1/transfers/{id}/events", get(watch)),
        ("/v1/transfers/{id}/accept", post(accept)),
        ("/v1/receivers", post(receive)),
    ]
}

async fn list(State(node): State<Arc<Node>>) -> Json<Vec<Transfer>> {
    Json(node.transfers.list().iter().map(|live| live.snapshot()).collect())
}

async fn create(State(node): State<Arc<Node>>, Body(order): Body<NewTransfer>) -> Answer<Started> {
    if order.paths.is_empty() || order.paths.iter().any(|path| !FilePath::new(path).is_absolute()) {
        return Err(Failure::usage("a transfer needs absolute paths"));
    }
    outgoing::start(&node, order).await.map(Json)
}

async fn show(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Answer<Transfer> {
    node.transfers.find(&id).map(|live| Json(live.snapshot()))
}

async fn cancel(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Answer<Value> {
    let live = node.transfers.find(&id)?;
    if live.is_pending() {
        live.decide(Decision::Decline)?;
    } else {
        live.cancel.cancel();
        super::incoming::cancel_sleeping(&node, &live).await?;
    }
    Ok(Json(json!({ "cancelled": true })))
}

async fn watch(State(node): State<Arc<Node>>, Path(id): Path<String>) -> Result<Response> {
    let live = node.transfers.find(&id)?;
    Ok(json_lines(&node, events(live, None, || {})))
}

async fn accept(
    State(node): State<Arc<Node>>,
    Path(id): Path<String>,
    Body(wish): Body<Acceptance>,
) -> Answer<Value> {
    let live = node.transfers.find(&id)?;
    refuse_relative(&wish.into)?;
    live.decide(Decision::Accept { into: wish.into, overwrite: wish.overwrite })?;
    Ok(Json(json!({ "accepted": true })))
}

async fn receive(State(node): State<Arc<Node>>, Body(wish): Body<NewReceiver>) -> Result<Response> {
    refuse_relative(&wish.into)?;
    let from = wish.from.as_deref().map(|name| node.book.find(name)).transpose()?;
    let wish = Wish {
        from: from.map(|contact| contact.ni.fingerprint),
        into: wish.into,
        yes: wish.yes,
        overwrite: wish.overwrite,
    };
    if let Some((live, follower)) = existing(&node.transfers, &wish) {
        if wish.yes && live.is_pending() {
            let decision = Decision::Accept { into: wish.into, overwrite: wish.overwrite };
            // An offer that went away in this moment ends its events by itself.
            let _ = live.decide(decision);
        }
        return Ok(json_lines(&node, reported(&node, live, follower)));
    }
    let taken = node.transfers.receivers.wait(wish);
    let own = Arc::clone(&node);
    let events = async move {
        match taken.await {
            Ok((live, follower)) => futures_util::future::Either::Left(reported(&own, live, follower)),
            Err(_) => futures_util::future::Either::Right(futures_util::stream::empty()),
        }
    };
    use futures_util::{FutureExt, StreamExt};
    Ok(json_lines(&node, events.into_stream().flatten()))
}

fn refuse_relative(into: &str) -> Result<()> {
    if FilePath::new(into).is_absolute() {
        return Ok(());
    }
    Err(Failure::usage(format!("the folder to receive into must be an absolute path, not '{into}'")))
}

/// The events of a transfer for a `receive` command; its end counts as reported once taken.
fn reported(
    node: &Arc<Node>,
    live: Arc<Live>,
    follower: Follower,
) -> impl futures_util::Stream<Item = Result<Value>> + Send + use<> {
    let (node, ended) = (Arc::clone(node), Arc::clone(&live));
    events(live, Some(follower), move || {
        ended.update(|row| row.reported = true);
        if matches!(ended.job(), Job::In { .. }) {
            tokio::spawn(async move { node.transfers.record(&ended).await });
        }
    })
}
