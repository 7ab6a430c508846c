//! What a directory says to an announce: a plain function of the request and the time.
//!
//! The order of the checks is the order of their price. Who is not the node it writes about is sent away before its
//! body is read; what is too large, before it is parsed; what is no record set, before a signature is checked.

use kith_identity::record::{RecordError, VerifiedRecordSet, VerifyError};
use kith_identity::{Fingerprint, PublicKey};
use kith_sansio::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::defaults;

/// How much one node may put into a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest body in bytes.
    pub max_body_bytes: usize,
    /// Largest single blob in bytes.
    pub max_blob_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_body_bytes: defaults::MAX_BODY_BYTES, max_blob_bytes: defaults::MAX_BLOB_BYTES }
    }
}

/// Who may announce to a closed zone.
pub trait AllowList: Send + Sync {
    /// Whether the node may announce.
    fn allows(&self, fingerprint: &Fingerprint) -> bool;
}

/// One announce as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Announce<'a> {
    /// The key that the client proved to hold.
    pub client_key: Option<PublicKey>,
    /// The fingerprint that the URL names.
    pub named: &'a Fingerprint,
    /// The body.
    pub body: &'a [u8],
}

/// Why a directory does not take a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// 401: there was no client certificate.
    #[error("an announce needs the node's client certificate")]
    NoCertificate,
    /// 403: the client is somebody else.
    #[error("the client certificate belongs to {0}, which is not the fingerprint of this URL")]
    SomebodyElse(Fingerprint),
    /// 403: the zone is closed to it.
    #[error("this zone does not take announces of {0}")]
    NotAllowed(Fingerprint),
    /// 409: a newer set, or another one of the same time, was seen.
    #[error("the set is not newer than the one that was announced last")]
    NotNewer,
    /// 413: the body is too large.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// 413: a blob is too large.
    #[error("a blob of {bytes} bytes is larger than {limit} bytes")]
    BlobTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// 422: the body is no record set.
    #[error("the body is no record set: {0}")]
    Malformed(RecordError),
    /// 422: the set is not valid for this fingerprint now.
    #[error("the record set is not valid: {0}")]
    Invalid(VerifyError),
    /// 429: too often.
    #[error("too many announces")]
    TooOften {
        /// When the next one may pass.
        wait: Span,
    },
}

impl Refusal {
    /// The HTTP status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Refusal::NoCertificate => 401,
            Refusal::SomebodyElse(_) | Refusal::NotAllowed(_) => 403,
            Refusal::NotNewer => 409,
            Refusal::BodyTooLarge { .. } | Refusal::BlobTooLarge { .. } => 413,
            Refusal::Malformed(_) | Refusal::Invalid(_) => 422,
            Refusal::TooOften { .. } => 429,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Refusal::NoCertificate => "connect with a TLS certificate of the node's own Ed25519 key",
            Refusal::SomebodyElse(_) => "announce under the fingerprint of the certificate's key",
            Refusal::NotAllowed(_) => {
                "the zone is closed; ask its operator to add this fingerprint to its members"
            }
            Refusal::NotNewer => "sign the set again with a later timestamp, and check the clock",
            Refusal::BodyTooLarge { .. } | Refusal::BlobTooLarge { .. } => {
                "announce fewer or smaller records"
            }
            Refusal::Malformed(_) => "see the wire format of record sets",
            Refusal::Invalid(VerifyError::FromTheFuture { .. } | VerifyError::Expired { .. }) => {
                "check the clock of the node"
            }
            Refusal::Invalid(_) => "sign the set again with the key of this fingerprint",
            Refusal::TooOften { .. } => "wait for the time in Retry-After",
        }
    }

    /// The JSON body of the answer.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        Complaint { error: self.to_string(), hint: self.hint().to_owned() }.to_json()
    }
}

/// The first check, made before the body is read: the client is the node that the URL names, and the zone is open
/// to it.
pub fn admit_client(
    client_key: Option<&PublicKey>,
    named: &Fingerprint,
    allow: Option<&dyn AllowList>,
) -> Result<(), Refusal> {
    let client = client_key.ok_or(Refusal::NoCertificate)?.fingerprint();
    if client != *named {
        return Err(Refusal::SomebodyElse(client));
    }
    match allow {
        Some(list) if !list.allows(named) => Err(Refusal::NotAllowed(*named)),
        _ => Ok(()),
    }
}

/// All checks that need no memory of earlier announces: who, how much, what, and whether it is valid at `now`.
pub fn admit(
    now: Timestamp,
    request: &Announce<'_>,
    limits: &Limits,
    allow: Option<&dyn AllowList>,
) -> Result<VerifiedRecordSet, Refusal> {
    admit_client(request.client_key.as_ref(), request.named, allow)?;
    if request.body.len() > limits.max_body_bytes {
        return Err(Refusal::BodyTooLarge { limit: limits.max_body_bytes });
    }
    let set = kith_identity::record::RecordSet::from_json(request.body).map_err(|error| match error {
        RecordError::InputTooLarge { limit, .. } => Refusal::BodyTooLarge { limit },
        error => Refusal::Malformed(error),
    })?;
    let largest = set.records(&kith_identity::record::Kind::BLOB).map(<[u8]>::len).max().unwrap_or(0);
    if largest > limits.max_blob_bytes {
        return Err(Refusal::BlobTooLarge { bytes: largest, limit: limits.max_blob_bytes });
    }
    set.verify(request.named, now).map_err(Refusal::Invalid)
}

/// The JSON body of every error of a directory: `{"error":…,"hint":…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: String,
}

/// Longest text of an error that is believed to be meant for people, in characters.
const MAX_TEXT_CHARS: usize = 300;

impl Complaint {
    /// The JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what a directory answered. It may end on somebody's terminal, so control characters and what is too
    /// long are cut off; anything that is no such JSON is `None`.
    #[must_use]
    pub fn from_json(body: &[u8]) -> Option<Complaint> {
        if body.len() > defaults::MAX_BODY_BYTES {
            return None;
        }
        let Complaint { error, hint } = serde_json::from_slice(body).ok()?;
        Some(Complaint { error: plain(&error), hint: plain(&hint) })
    }
}

fn plain(text: &str) -> String {
    let cleaned = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    cleaned.filter(|c| !is_bidi_control(*c)).take(MAX_TEXT_CHARS).collect()
}

/// Characters that turn the direction of the text around them.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{identity, set, set_with_blob};

    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn ask(who: u64, named: &Fingerprint, body: &[u8], allow: Option<&dyn AllowList>) -> Result<(), u16> {
        let client_key = Some(identity(who).public());
        let request = Announce { client_key, named, body };
        admit(NOW, &request, &Limits::default(), allow).map(|_| ()).map_err(|refusal| refusal.status())
    }

    struct Nobody;
    impl AllowList for Nobody {
        fn allows(&self, _: &Fingerprint) -> bool {
            false
        }
    }

    #[test]
    fn each_refusal_has_its_status() {
        let alice = identity(1);
        let named = alice.fingerprint();
        let good = set(&alice, NOW, 60).to_json();
        assert_eq!(ask(1, &named, &good, None), Ok(()));
        let anonymous = Announce { client_key: None, named: &named, body: &good };
        assert_eq!(admit(NOW, &anonymous, &Limits::default(), None), Err(Refusal::NoCertificate));
        assert_eq!(ask(2, &named, &good, None), Err(403));
        assert_eq!(ask(1, &named, &good, Some(&Nobody)), Err(403));
        assert_eq!(ask(1, &named, &vec![b' '; defaults::MAX_BODY_BYTES + 1], None), Err(413));
        assert_eq!(ask(1, &named, &set_with_blob(&alice, NOW, 4096).to_json(), None), Ok(()));
        assert_eq!(ask(1, &named, &set_with_blob(&alice, NOW, 4097).to_json(), None), Err(413));
        assert_eq!(ask(1, &named, b"{}", None), Err(422));
        assert_eq!(ask(1, &named, &set(&identity(2), NOW, 60).to_json(), None), Err(422));
        assert_eq!(ask(1, &named, &set(&alice, NOW.minus_secs(60), 60).to_json(), None), Err(422));
        assert_eq!(ask(1, &named, &set(&alice, NOW.plus_secs(61), 60).to_json(), None), Err(422));
        assert_eq!(ask(1, &named, &set(&alice, NOW.plus_secs(60), 60).to_json(), None), Ok(()));
    }

    #[test]
    fn complaints_of_a_directory_are_fit_for_a_terminal() {
        let evil = br#"{"error":"a\u001b[2Jb\u202ec","hint":"x\ny"}"#;
        let complaint = Complaint::from_json(evil).unwrap();
        assert_eq!(complaint, Complaint { error: "a [2Jbc".into(), hint: "x y".into() });
        assert_eq!(Complaint::from_json(br#"{"error":"only"}"#).unwrap().hint, "");
        for wrong in [&b""[..], b"null", b"[]", b"{\"hint\":\"x\"}", b"\xff"] {
            assert_eq!(Complaint::from_json(wrong), None);
        }
    }
}
