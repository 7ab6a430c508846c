//! The own record set in the DHT: published when it changes, and again before it ends.

use std::sync::Arc;

use kith_dht::Value;
use kith_dht::shell::PutError;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::{Span, Time, Timestamp, system};

use super::{CHECK, Running, blinded, is_current};
use crate::api::dht as shapes;
use crate::config::Publish;
use crate::failure::{Failure, Result, chain};
use crate::node::Node;

/// The shortest and the longest pause after a set could not be published.
pub(super) const PAUSE: (Span, Span) = (Span::secs(2), Span::secs(120));
/// A set is published again after this time, so that it is on the nodes that are nearest now.
pub(super) const AGAIN: Span = Span::secs(1_800);

/// How the own record set was published last.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    pub(super) timestamp: Option<Timestamp>,
    /// When it was stored last, and on how many nodes.
    pub(super) stored: Option<(Timestamp, usize)>,
    /// For how many contacts, where it is for them alone.
    pub(super) contacts: Option<usize>,
    pub(super) expires: Option<Timestamp>,
    pub(super) error: Option<String>,
}

impl Published {
    pub(super) fn shape(&self, publish: Publish) -> shapes::DhtPublished {
        shapes::DhtPublished {
            publish,
            contacts: self.contacts,
            at: self.stored.map(|(at, _)| at.to_string()),
            nodes: self.stored.map(|(_, nodes)| nodes),
            expires: self.expires.map(|expires| expires.to_string()),
            error: self.error.clone(),
        }
    }
}

/// Publishes the own record set for as long as this node of the DHT runs, for whom the configuration says.
pub(super) async fn publish(node: Arc<Node>, running: Running) {
    let work = async {
        if running.dht.joined().await.is_err() {
            return;
        }
        match node.config.dht.publish {
            Publish::Open => publish_openly(&node, &running).await,
            Publish::Contacts => blinded::publish(&node, &running).await,
            Publish::None => {}
        }
    };
    tokio::select! {
        () = work => {}
        () = node.stopping.cancelled() => {}
    }
}

async fn publish_openly(node: &Arc<Node>, running: &Running) {
    let (mut due, mut pause) = (Time(0), PAUSE.0);
    while is_current(node, running) {
        if let Some(set) = node.said().await {
            let is_new = node.keyspace.published().timestamp != Some(set.timestamp());
            if is_new || system::time() >= due {
                let is_done = publish_set(node, running, &set).await.is_ok();
                pause = if is_done { PAUSE.0 } else { pause.times(2).min(PAUSE.1) };
                due = system::time() + if is_done { AGAIN } else { pause };
            }
        }
        tokio::time::sleep(CHECK).await;
    }
}

/// Publishes the own set for everybody, where the configuration says so; the set, and on how many nodes it is.
pub(super) async fn publish_own(node: &Arc<Node>, running: &Running) -> Result<(VerifiedRecordSet, usize)> {
    if node.config.dht.publish != Publish::Open {
        return Err(Failure::failed("this node's record set is not published for everybody")
            .hint("'dht.publish' in kith.toml says for whom; what is for contacts is published by itself"));
    }
    let own = node.said().await;
    let own = own.ok_or_else(|| Failure::failed("the own record set cannot be signed"))?;
    let nodes = publish_set(node, running, &own).await?;
    Ok((own, nodes))
}

/// Publishes the own set now; on how many nodes it is.
async fn publish_set(node: &Node, running: &Running, set: &VerifiedRecordSet) -> Result<usize> {
    let outcome = store(running, Value::of(set)).await;
    let mut published = node.keyspace.published();
    published.timestamp = Some(set.timestamp());
    match &outcome {
        Ok(nodes) => {
            published.stored = Some((system::utc(), *nodes));
            (published.expires, published.error) = (Some(set.expires()), None);
        }
        Err(failure) => published.error = Some(failure.error.clone()),
    }
    outcome
}

/// Stores a value; on how many nodes it is.
pub(super) async fn store(running: &Running, value: Value) -> Result<usize> {
    running.dht.put(value).await.map_err(|error| not_stored(&error))
}

/// Says why a value is not stored.
pub(super) fn not_stored(error: &PutError) -> Failure {
    match error {
        PutError::TooFew { refusal: Some(refusal), .. } if refusal.is_about_the_value() => {
            Failure::failed(chain(error))
        }
        PutError::TooFew { .. } => Failure::unreachable(chain(error))
            .hint("'kith dht status' shows how many members this node reaches"),
        _ => Failure::failed(chain(error)),
    }
}
