//! The JSON shapes of the control API about delegators and blocks; `docs/openapi.json` describes the same.

use serde::{Deserialize, Serialize};

/// `GET /v1/delegator`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Delegation {
    /// Whether this node serves its members now.
    pub(crate) serving: bool,
    /// The file that the list is kept in, where it is.
    pub(crate) file: Option<String>,
    pub(crate) members: usize,
    pub(crate) groups: usize,
    pub(crate) rules: Vec<Rule>,
    /// Members that are connected, and those of them that have their list of now in force.
    pub(crate) connected: usize,
    pub(crate) current: usize,
    /// Delegators that manage whom this node trusts.
    pub(crate) using: Vec<Using>,
}

/// Members of one group may reach those of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rule {
    pub(crate) from: String,
    pub(crate) to: String,
    /// `out`, `in` or `both`.
    pub(crate) direction: String,
    /// Empty for every one.
    pub(crate) protocols: Vec<String>,
    /// Missing for good.
    pub(crate) until: Option<String>,
}

/// `POST /v1/delegator/rules`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRule {
    pub(crate) from: String,
    pub(crate) to: String,
    #[serde(default = "out")]
    pub(crate) direction: String,
    #[serde(default)]
    pub(crate) protocols: Vec<String>,
    /// Seconds from now on; for good where it is missing.
    #[serde(default)]
    pub(crate) for_secs: Option<u64>,
}

fn out() -> String {
    "out".to_owned()
}

/// The query of `DELETE /v1/delegator/rules`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revocation {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Separated by commas: only rules for exactly these.
    #[serde(default)]
    pub(crate) protocols: Option<String>,
}

/// `PATCH /v1/delegator/groups/{group}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupChange {
    #[serde(default)]
    pub(crate) add: Vec<NewMember>,
    /// Names or fingerprints of members.
    #[serde(default)]
    pub(crate) remove: Vec<String>,
}

/// Somebody who is to be in a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMember {
    /// A fingerprint, or the name of a member or of a contact.
    pub(crate) who: String,
    /// The name that it is to have; else the one that it has, or the first words of its fingerprint.
    #[serde(default, rename = "as")]
    pub(crate) called: Option<String>,
    /// Where it may be reached; else what is known of it.
    #[serde(default)]
    pub(crate) at: Vec<String>,
}

/// A member of this node's policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) ni: String,
    pub(crate) at: Vec<String>,
    pub(crate) groups: Vec<String>,
    /// It is connected now.
    pub(crate) connected: bool,
    /// It has said that its list of now is in force.
    pub(crate) current: bool,
}

/// `GET /v1/delegator/members/{name}`, and `GET /v1/delegators/{name}`: whose list, and what is on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct List {
    /// The member that the list is for; missing where it is this node's own.
    pub(crate) member: Option<Member>,
    /// The delegator that it comes from; missing where this node is it.
    pub(crate) delegator: Option<Using>,
    pub(crate) entries: Vec<Entry>,
}

/// One node of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) ni: String,
    pub(crate) at: Vec<String>,
    pub(crate) rights: Vec<Right>,
    /// This node has blocked it: the list changes nothing about that.
    pub(crate) blocked: bool,
}

/// Something that the list's owner and the node of an entry may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Right {
    /// `in`, `out` or `both`, as the list's owner sees it.
    pub(crate) direction: String,
    /// Missing for every one.
    pub(crate) protocol: Option<String>,
    /// Missing for good.
    pub(crate) until: Option<String>,
}

/// What a change of the policy came to: one sentence for each step, none where everything was so already.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) changes: Vec<String>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogLine {
    pub(crate) at: String,
    /// `command`, `file` or `time`.
    pub(crate) by: String,
    /// `admitted`, `described`, `expelled`, `joined`, `left`, `granted` or `revoked`.
    pub(crate) change: String,
    pub(crate) text: String,
}

/// A delegator that manages whom this node trusts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Using {
    pub(crate) name: String,
    pub(crate) ni: String,
    pub(crate) at: Vec<String>,
    pub(crate) since: String,
    /// `off` (no node runs), `waiting`, `connecting`, `syncing` or `current`.
    pub(crate) state: String,
    /// The number of the list held.
    pub(crate) revision: Option<u64>,
    /// Entries in force.
    pub(crate) entries: usize,
    /// Until when they hold if nothing more is heard.
    pub(crate) holds_until: Option<String>,
    /// Why it was lost or cannot be reached.
    pub(crate) failure: Option<String>,
}

/// `POST /v1/delegators`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUse {
    /// A fingerprint, or the name of a contact.
    pub(crate) who: String,
    #[serde(default, rename = "as")]
    pub(crate) called: Option<String>,
    #[serde(default)]
    pub(crate) at: Vec<String>,
}

/// `POST /v1/blocks`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBlock {
    /// A fingerprint, or the name of a contact or of a node that a delegator lists.
    pub(crate) who: String,
}

/// Somebody who is trusted for nothing, whatever contacts and delegators say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) ni: String,
    /// How it was called when it was blocked.
    pub(crate) name: Option<String>,
    pub(crate) since: String,
}
