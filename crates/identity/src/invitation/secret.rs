use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use kith_sansio::Rng;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::InvitationError;
use crate::Fingerprint;
use crate::text::quote;

/// What the key of the proofs is derived under.
const KEY_CONTEXT: &str = "kithnet invite v1 proof key";
/// Length of a ticket in bytes.
const TICKET_BYTES: usize = 8;

/// The number of an invitation: says which one is meant, and proves nothing. Its text is 13 characters of base32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket([u8; TICKET_BYTES]);

/// What is proved: 128 random bits.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 16]);

/// Whose proof it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one who has the link.
    Joiner,
    /// The one who made it.
    Inviter,
}

/// What a proof is bound to: one invitation, one TLS session, two keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which invitation.
    pub ticket: Ticket,
    /// What both ends export of their session under [`EXPORTER_LABEL`](super::EXPORTER_LABEL).
    pub exported: [u8; 32],
    /// The joiner's key, as the session proved it.
    pub joiner: Fingerprint,
    /// The inviter's key, as the session proved it.
    pub inviter: Fingerprint,
}

/// A keyed hash that only a holder of the secret can make. Comparing takes the same time whatever differs.
#[derive(Clone, Copy, Debug)]
pub struct Proof(pub(super) [u8; 32]);

impl Ticket {
    /// A new number.
    pub fn random(rng: &mut dyn Rng) -> Ticket {
        let mut bytes = [0; TICKET_BYTES];
        rng.fill(&mut bytes);
        Ticket(bytes)
    }

    /// The number with these bytes.
    pub const fn from_bytes(bytes: [u8; TICKET_BYTES]) -> Ticket {
        Ticket(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; TICKET_BYTES] {
        &self.0
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let wrong = || InvitationError::Ticket(quote(text));
        // 13 characters hold 8 bytes.
        if text.len() != 13 {
            return Err(wrong());
        }
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| wrong())?;
        bytes.try_into().map(Ticket).map_err(|_| wrong())
    }
}

impl Secret {
    /// A new secret.
    pub fn random(rng: &mut dyn Rng) -> Secret {
        let mut bytes = [0; 16];
        rng.fill(&mut bytes);
        let secret = Secret(bytes);
        bytes.zeroize();
        secret
    }

    /// The secret with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Secret {
        Secret(bytes)
    }

    /// Its bytes, to be kept where nobody else reads.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The proof of `role`: keyed BLAKE3 over `role ‖ ticket ‖ exported ‖ joiner ‖ inviter`, the key derived from the
    /// secret under `kithnet invite v1 proof key`.
    pub fn prove(&self, role: Role, binding: &Binding) -> Proof {
        Proof(self.hash(role, binding).into())
    }

    /// Whether `proof` is the one of `role`.
    #[must_use]
    pub fn is_proved_by(&self, proof: &Proof, role: Role, binding: &Binding) -> bool {
        // blake3 compares in constant time.
        self.hash(role, binding) == proof.0
    }

    fn hash(&self, role: Role, binding: &Binding) -> blake3::Hash {
        let mut key = blake3::derive_key(KEY_CONTEXT, &self.0);
        let role = match role {
            Role::Joiner => 1,
            Role::Inviter => 2,
        };
        let mut hasher = blake3::Hasher::new_keyed(&key);
        key.zeroize();
        hasher
            .update(&[role])
            .update(binding.ticket.as_bytes())
            .update(&binding.exported)
            .update(binding.joiner.as_bytes())
            .update(binding.inviter.as_bytes());
        hasher.finalize()
    }
}
