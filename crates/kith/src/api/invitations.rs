//! The JSON shapes of the control API about invitations; `docs/openapi.json` describes the same.

use serde::{Deserialize, Serialize};

use super::shapes::Contact;

/// `POST /v1/invitations`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewInvitation {
    /// The name that the joiner is to have here.
    #[serde(default, rename = "as")]
    pub(crate) called: Option<String>,
    pub(crate) valid_ms: u64,
    /// Files will be offered to the joiner.
    #[serde(default)]
    pub(crate) offers: bool,
}

/// Where an invitation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Waits for a joiner.
    Open,
    /// Is one joiner's, who has not said that it is done.
    Joining,
    /// Both are contacts.
    Joined,
    /// A wrong proof ended it.
    Guessed,
    /// Its time is over.
    Expired,
    /// Its maker took it back.
    Cancelled,
}

/// An invitation, and each line of its events. Its link has no place in logs, so there is no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Invitation {
    pub(crate) id: String,
    pub(crate) state: State,
    #[serde(rename = "as")]
    pub(crate) called: Option<String>,
    pub(crate) offers: bool,
    pub(crate) created: String,
    pub(crate) expires: String,
    /// Who joined.
    pub(crate) contact: Option<Contact>,
    /// In the answer to its making only.
    pub(crate) link: Option<String>,
    /// The link as a QR code holds it; in the answer to its making only.
    pub(crate) qr: Option<String>,
}

/// The answer to `DELETE /v1/invitations/{id}`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Cancelled {
    /// Whether it was taken back, now or before; not so where it had ended otherwise.
    pub(crate) cancelled: bool,
    /// How it stands.
    pub(crate) invitation: Invitation,
}

/// `POST /v1/join`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJoin {
    pub(crate) link: String,
    /// The name that the inviter is to have here.
    #[serde(default, rename = "as")]
    pub(crate) called: Option<String>,
    /// `tcp` or `quic`, to insist on it.
    #[serde(default)]
    pub(crate) via: Option<String>,
    pub(crate) wait_ms: u64,
}

/// The answer to `POST /v1/join`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Joined {
    pub(crate) contact: Contact,
    /// The six words of the contact's fingerprint.
    pub(crate) words: String,
    /// It was no contact before.
    pub(crate) new: bool,
    /// The inviter will offer files.
    pub(crate) offers: bool,
}
