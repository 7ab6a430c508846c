//! The JSON shapes of the control API about membership; `docs/openapi.json` describes the same.

use kith_identity::membership::VerifiedEpoch;
use serde::{Deserialize, Serialize};

/// `GET /v1/network`: the network that this node issues, and the one that it has joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) issued: Option<Issued>,
    pub(crate) joined: Option<Joined>,
}

/// The network that this node issues.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Issued {
    /// Its name: this node's fingerprint.
    pub(crate) ni: String,
    pub(crate) epoch: Epoch,
    /// Revoked before their certificates end, as of this epoch.
    pub(crate) revoked: u64,
    /// Everybody who is a member, was one, or is invited, as of now.
    pub(crate) roll: Vec<RollEntry>,
}

/// An epoch of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Epoch {
    pub(crate) number: u64,
    pub(crate) starts: String,
    /// When the next one is meant to begin.
    pub(crate) ends: String,
    /// How many members there are.
    pub(crate) members: u64,
    /// How many of them one adversary may control, as the issuer assumes.
    pub(crate) colluding: u64,
}

/// Somebody in the issuer's book.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RollEntry {
    pub(crate) ni: String,
    /// The contact's name, where it is one.
    pub(crate) name: Option<String>,
    /// `member`, `ended` (its certificate), `revoked`, `invited` or `uninvited`.
    pub(crate) state: String,
    /// The end of its last certificate.
    pub(crate) until: Option<String>,
}

/// `POST /v1/network/issued`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewIssue {
    /// Fingerprints, or names of contacts: who is invited.
    #[serde(default)]
    pub(crate) who: Vec<String>,
}

/// `POST /v1/network/joined`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMembership {
    /// The issuer's fingerprint, or the name of a contact.
    pub(crate) issuer: String,
    #[serde(default)]
    pub(crate) at: Vec<String>,
}

/// The network that this node has joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Its name: the issuer's fingerprint.
    pub(crate) ni: String,
    pub(crate) at: Vec<String>,
    pub(crate) since: String,
    /// `member`, or `none` where there is no valid certificate any more.
    pub(crate) state: String,
    /// This node's place in the network.
    pub(crate) id: Option<String>,
    /// The end of the certificate; it is renewed in time.
    pub(crate) until: Option<String>,
    pub(crate) epoch: Epoch,
    /// Other members that have shown their certificates since this node started.
    pub(crate) known: usize,
    /// Why the issuer could not be asked, or refused, the last time.
    pub(crate) failure: Option<String>,
}

impl Epoch {
    pub(crate) fn of(epoch: &VerifiedEpoch) -> Epoch {
        let facts = epoch.facts();
        Epoch {
            number: facts.epoch,
            starts: facts.starts.to_string(),
            ends: facts.ends().to_string(),
            members: facts.members,
            colluding: facts.colluding,
        }
    }
}
