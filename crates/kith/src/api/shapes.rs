//! The JSON shapes of the control API; `docs/openapi.json` describes the same.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::node::claims::Stand;

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// This identity (ni:…).
    pub(crate) fingerprint: String,
    pub(crate) name: Option<String>,
    pub(crate) version: String,
    pub(crate) home: String,
    pub(crate) control: String,
    pub(crate) pid: u32,
    /// Listening, and announced to every directory of the configuration.
    pub(crate) ready: bool,
    pub(crate) listen: Vec<String>,
    /// Addresses worth telling others.
    pub(crate) addresses: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) announced: Vec<Announced>,
    pub(crate) contacts: Vec<Contact>,
    /// One section per floor that is on.
    #[serde(flatten)]
    pub(crate) floors: Map<String, Value>,
}

/// How the announcement to one directory stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Announced {
    pub(crate) authority: String,
    /// Until when the announced set is valid; missing before the first success.
    pub(crate) until: Option<String>,
    /// Why the last attempt failed, where it did.
    pub(crate) error: Option<String>,
}

/// A contact, and how it is reached now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Contact {
    pub(crate) name: String,
    pub(crate) ni: String,
    pub(crate) at: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) added: String,
    /// The delegator that lists it, where it is no contact of this node's own.
    #[serde(default)]
    pub(crate) delegator: Option<String>,
    /// It is trusted for nothing, all the same.
    #[serde(default)]
    pub(crate) blocked: bool,
    /// Claims to follow its key that wait for a decision.
    pub(crate) successions: Vec<Succession>,
    /// `direct`, `relayed` or `none`.
    pub(crate) path: String,
    /// Petname or fingerprint of the relay in between.
    pub(crate) relay: Option<String>,
    pub(crate) transport: Option<String>,
    pub(crate) remote: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
}

/// A claim that a key follows a contact's: an element of `GET /v1/successions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Succession {
    /// Petname.
    pub(crate) contact: String,
    pub(crate) old: String,
    pub(crate) new: String,
    /// Six words of the new fingerprint, for comparing by voice.
    pub(crate) words: String,
    /// When it was made, as its signer says.
    pub(crate) made: String,
    /// When it was first seen here.
    pub(crate) seen: String,
    pub(crate) state: Stand,
}

/// `POST /v1/contacts/{name}/succession`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    /// Whether to trust the new key from now on instead of the old one, or not.
    pub(crate) confirm: bool,
    /// Which key is meant; needed where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ni: Option<String>,
}

/// `POST /v1/contacts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewContact {
    pub(crate) name: String,
    pub(crate) ni: String,
    #[serde(default)]
    pub(crate) at: Vec<String>,
}

/// `PATCH /v1/contacts/{name}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContactChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) join: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leave: Option<String>,
}

/// A stranger who tried to connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Knock {
    pub(crate) ni: String,
    pub(crate) first: String,
    pub(crate) last: String,
    /// Hours in which it tried; one knock is noted an hour.
    pub(crate) times: u64,
    pub(crate) from: String,
}

/// `POST /v1/ping`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPing {
    pub(crate) contact: String,
    pub(crate) count: u32,
    pub(crate) interval_ms: u64,
    pub(crate) fresh: bool,
    pub(crate) via: Option<String>,
    pub(crate) wait_ms: u64,
}

/// One line of the answer to `POST /v1/ping`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pong {
    pub(crate) seq: u32,
    /// Bytes there and back.
    pub(crate) bytes: usize,
    pub(crate) rtt_ms: f64,
    /// Time to an authenticated, admitted connection, where one was made for this ping.
    pub(crate) connect_ms: Option<f64>,
    /// Time from the wish to connect to the first application byte from the peer.
    pub(crate) first_byte_ms: f64,
    pub(crate) path: String,
    /// Petname or fingerprint of the relay in between.
    pub(crate) relay: Option<String>,
    pub(crate) transport: String,
    pub(crate) remote: String,
}

/// `POST /v1/blob`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBlob {
    /// Standard base64 with padding; missing to publish nothing any more.
    pub(crate) blob: Option<String>,
}

/// `POST /v1/transfers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTransfer {
    pub(crate) to: String,
    /// Absolute paths.
    pub(crate) paths: Vec<String>,
    pub(crate) via: Option<String>,
    /// How long the node tries to reach the contact.
    pub(crate) wait_ms: u64,
    /// How long an offer that is out waits for an answer; ten minutes where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accept_ms: Option<u64>,
    /// Bytes a second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
}

/// `PATCH /v1/transfers/{id}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransferChange {
    /// Pause it, or go on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paused: Option<bool>,
    /// Bytes a second at most; 0 for no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
}

/// `POST /v1/receivers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewReceiver {
    pub(crate) from: Option<String>,
    /// Absolute path of the folder to receive into.
    pub(crate) into: String,
    pub(crate) yes: bool,
    pub(crate) overwrite: bool,
}

/// `POST /v1/transfers/{id}/accept`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acceptance {
    pub(crate) into: String,
    #[serde(default)]
    pub(crate) overwrite: bool,
}

/// A file that did not go over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedFile {
    pub(crate) path: String,
    pub(crate) reason: String,
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Outgoing: reading the folder and reaching the contact.
    Connecting,
    /// Outgoing: the contact is away or busy, or others go first; the node tries again.
    Waiting,
    /// Waiting for acceptance.
    Offered,
    /// Bytes move.
    Moving,
    /// The connection was lost; goes on when it is back.
    Interrupted,
    /// Paused by a person, on either side.
    Paused,
    /// Everything is over.
    Done,
    /// Ended without success.
    Failed,
    /// Outgoing: its time was over before the contact was reached, or had answered.
    Expired,
}

impl State {
    pub(crate) fn is_final(self) -> bool {
        matches!(self, State::Done | State::Failed | State::Expired)
    }
}

/// A transfer: `GET /v1/transfers/{id}`, and each line of its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) id: String,
    /// `out` or `in`.
    pub(crate) direction: String,
    /// Petname, or the fingerprint of a contact that was removed.
    pub(crate) contact: String,
    pub(crate) state: State,
    /// True on the last line of a transfer that succeeded, and there alone.
    pub(crate) done: bool,
    pub(crate) bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) resumed_bytes: u64,
    pub(crate) files: u64,
    pub(crate) total_files: u64,
    /// Length of the transfer from its acceptance on, in seconds.
    pub(crate) seconds: f64,
    /// `direct`, `relayed` or `none`.
    pub(crate) path: String,
    pub(crate) transport: Option<String>,
    /// Incoming: the folder.
    pub(crate) into: Option<String>,
    /// Top-level names: sent from, or received as.
    pub(crate) paths: Vec<String>,
    /// At most a hundred.
    pub(crate) failed: Vec<FailedFile>,
    pub(crate) failed_files: u64,
    /// Outgoing: what is neither file, folder nor link, or cannot be read, and was not offered; at most a hundred.
    pub(crate) skipped: Vec<FailedFile>,
    /// How many of those cannot be read.
    #[serde(default)]
    pub(crate) unreadable: u64,
    /// Who has paused it: `here`, `contact` or `both`.
    #[serde(default)]
    pub(crate) paused_by: Option<String>,
    /// Why the node waits before it tries again.
    #[serde(default)]
    pub(crate) waiting_for: Option<String>,
    /// Until when the contact is tried, or may answer.
    #[serde(default)]
    pub(crate) until: Option<String>,
    /// Bytes a second at most.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
    pub(crate) failure: Option<Failure>,
}

/// The answer to `POST /v1/transfers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) id: String,
    /// The same transfer was under way already; this is it.
    pub(crate) attached: bool,
}
