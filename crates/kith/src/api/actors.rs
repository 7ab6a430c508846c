//! The JSON shapes of the control API about selections; `docs/openapi.json` describes the same.

use serde::{Deserialize, Serialize};

/// The section of `GET /v1/status`: this node's part in the selections of its network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ActorsStatus {
    /// The network's name.
    pub(crate) network: String,
    /// The newest epoch whose region is known; nothing where none is yet.
    pub(crate) epoch: Option<u64>,
    /// Members of this node's region in that epoch.
    pub(crate) region: usize,
    /// Whether it takes part: it knows what it has signed in the epoch.
    pub(crate) takes_part: bool,
    /// Draws that it has left in the epoch.
    pub(crate) draws_left: u32,
    /// Why nothing can be selected in the epoch, where that is so.
    pub(crate) refused: Option<String>,
}

/// `POST /v1/actors`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewActors {
    /// The hash of what they are drawn for: 64 hexadecimal digits.
    pub(crate) manifest: String,
    /// How many.
    pub(crate) count: u16,
    /// What they are to do.
    #[serde(default)]
    pub(crate) role: u8,
    /// Until when the list is to be good; as long as it may where this is missing.
    #[serde(default)]
    pub(crate) expires: Option<String>,
}

/// Actors that were drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DrawnActors {
    /// The network's name, with which the list is checked.
    pub(crate) network: String,
    /// How many draws it took.
    pub(crate) draws: u32,
    /// The list with its proof: the bytes of its file, base64.
    pub(crate) list: String,
}
