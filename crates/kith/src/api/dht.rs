//! The JSON shapes of the control API about the DHT; `docs/openapi.json` describes the same.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Publish;

/// `GET /v1/dht`: this node's part in the DHT of its network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DhtStatus {
    /// The network's name.
    pub(crate) network: String,
    /// This node's place.
    pub(crate) id: String,
    /// Whether it knows its region, and its region knows it.
    pub(crate) joined: bool,
    /// How many members the network has.
    pub(crate) members: u64,
    pub(crate) region: DhtRegion,
    /// Members that it knows in the rest of the network.
    pub(crate) buckets: usize,
    /// Values that it keeps.
    pub(crate) values: usize,
    /// Members that it has streams with.
    pub(crate) streams: usize,
    pub(crate) lookups: DhtLookups,
    pub(crate) published: DhtPublished,
}

/// The region of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DhtRegion {
    /// How many first bits its places share.
    pub(crate) bits: u8,
    /// Live members of it that this node knows.
    pub(crate) known: usize,
    /// Members of it that were not found yet.
    pub(crate) missing: usize,
    /// Whether everybody was found; missing until the epoch has proved who is in it.
    pub(crate) complete: Option<bool>,
}

/// What a node looked up, for itself and for others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DhtLookups {
    pub(crate) running: usize,
    /// Since the node started.
    pub(crate) begun: u64,
}

/// How the own record set was published last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DhtPublished {
    /// For whom.
    pub(crate) publish: Publish,
    /// For how many contacts it is stored, where it is for them alone.
    pub(crate) contacts: Option<usize>,
    pub(crate) at: Option<String>,
    /// On how many nodes it is; of several values, the one that is on the fewest.
    pub(crate) nodes: Option<usize>,
    pub(crate) expires: Option<String>,
    /// Why the last attempt failed, where it did.
    pub(crate) error: Option<String>,
}

/// `GET /v1/dht/values/{key}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DhtFound {
    pub(crate) key: String,
    /// Whose value it is.
    pub(crate) ni: String,
    pub(crate) expires: String,
    /// The record set as on the wire.
    pub(crate) set: Map<String, Value>,
}

/// `POST /v1/dht/values`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDhtValue {
    /// The record set to publish, as on the wire; this node's own where it is missing.
    #[serde(default)]
    pub(crate) set: Option<Map<String, Value>>,
}

/// What was published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DhtStored {
    pub(crate) key: String,
    pub(crate) ni: String,
    /// On how many nodes it is.
    pub(crate) nodes: usize,
    pub(crate) expires: String,
}
