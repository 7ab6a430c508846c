//! The calls about the DHT.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use kith_dht::record_set_key;
use kith_identity::membership::{Block, NodeId};
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_identity::{Ni, fingerprint_of_spki};
use kith_sansio::system;
use serde_json::{Map, Value};

use super::source::record_set;
use super::{Running, publishing};
use crate::api::dht::{DhtFound, DhtLookups, DhtRegion, DhtStatus, DhtStored, NewDhtValue};
use crate::api::server::{Answer, Route};
use crate::api::wish::Body;
use crate::failure::{Failure, Result, chain};
use crate::node::Node;

/// What `kith discover --json` says beside the wire form of a set.
const SAID_BESIDE: [&str; 3] = ["verified_by", "expires", "stale"];

pub(super) fn routes() -> Vec<Route> {
    vec![("/v1/dht", get(overview)), ("/v1/dht/values", post(put)), ("/v1/dht/values/{key}", get(find))]
}

fn running(node: &Node) -> Result<Running> {
    node.keyspace.running().ok_or_else(super::no_part)
}

async fn overview(State(node): State<Arc<Node>>) -> Answer<DhtStatus> {
    let running = running(&node)?;
    let status = running.dht.status().await.map_err(Failure::failed)?;
    let block = Block::around(&status.id, status.region_bits);
    let is_proven = running.pass.has_roster(&block);
    Ok(Json(DhtStatus {
        network: Ni::new(running.network, None).to_string(),
        id: status.id.to_string(),
        joined: status.is_joined,
        members: status.members,
        region: DhtRegion {
            bits: status.region_bits,
            known: status.region,
            missing: status.missing,
            complete: is_proven.then_some(status.missing == 0),
        },
        buckets: status.buckets,
        values: status.values,
        streams: status.neighbours,
        lookups: DhtLookups { running: status.lookups, begun: status.lookups_begun },
        published: node.keyspace.published().shape(node.config.dht.publish),
    }))
}

/// The key that a person means: itself, or that of somebody's record set.
fn key(node: &Node, text: &str) -> Result<NodeId> {
    match text.parse::<NodeId>() {
        Ok(key) => Ok(key),
        Err(_) => node.book.resolve(text).map(|ni| record_set_key(&ni.fingerprint)),
    }
}

async fn find(State(node): State<Arc<Node>>, Path(text): Path<String>) -> Answer<DhtFound> {
    let running = running(&node)?;
    let key = key(&node, &text)?;
    let value = running.dht.get(key).await.map_err(Failure::failed)?;
    let value = value.ok_or_else(|| super::nobody_has(&text))?;
    let (fingerprint, set) = record_set(&value)
        .ok_or_else(|| Failure::failed("the value is of a kind that this version does not know"))?;
    let set = set.verify(&fingerprint, system::utc()).map_err(|error| Failure::not_trusted(chain(&error)))?;
    Ok(Json(DhtFound {
        key: key.to_string(),
        ni: Ni::new(fingerprint, None).to_string(),
        expires: set.expires().to_string(),
        set: serde_json::from_slice(&set.to_json()).map_err(Failure::failed)?,
    }))
}

/// Publishes a record set: this node's, or one that somebody has.
async fn put(State(node): State<Arc<Node>>, Body(new): Body<NewDhtValue>) -> Answer<DhtStored> {
    let running = running(&node)?;
    let (set, nodes) = match new.set {
        None => publishing::publish_own(&node, &running).await?,
        Some(document) => {
            let set = verified(document)?;
            let nodes = publishing::store(&running, kith_dht::Value::of(&set)).await?;
            (set, nodes)
        }
    };
    let fingerprint = set.fingerprint();
    Ok(Json(DhtStored {
        key: record_set_key(&fingerprint).to_string(),
        ni: Ni::new(fingerprint, None).to_string(),
        nodes,
        expires: set.expires().to_string(),
    }))
}

/// The set in a document, as signed by the key that it names.
fn verified(mut document: Map<String, Value>) -> Result<VerifiedRecordSet> {
    SAID_BESIDE.iter().for_each(|name| drop(document.remove(*name)));
    let bytes = serde_json::to_vec(&document).map_err(Failure::failed)?;
    let set = RecordSet::from_json(&bytes)
        .map_err(|error| Failure::usage(format!("this is no record set: {}", chain(&error))))?;
    let key = document.get("pubkey").and_then(Value::as_str).unwrap_or_default();
    let key = data_encoding::BASE64.decode(key.as_bytes()).ok();
    let fingerprint = key.and_then(|spki| fingerprint_of_spki(&spki).ok());
    let fingerprint = fingerprint.ok_or_else(|| Failure::usage("the record set names no Ed25519 key"))?;
    set.verify(&fingerprint, system::utc()).map_err(|error| Failure::not_trusted(chain(&error)))
}
