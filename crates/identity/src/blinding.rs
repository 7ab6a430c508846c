//! Keys that nobody links to an identity but who knows the number that blinds them: key blinding as Tor's onion services
//! have it (rend-spec-v3, appendix A.2).

use curve25519_dalek::Scalar;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use sha2::{Digest, Sha512};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::PublicKey;

/// What the secret half of the nonces of a blinded key is derived under.
const NONCES_TAG: &[u8] = b"kithnet blinded nonces v1";

/// A number that turns an identity's key into another one. Whoever knows it knows whose key that is, and can sign nothing.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Blinding(Scalar);

/// An identity under a blinded key. No `Debug`; wiped from memory when dropped.
pub struct BlindedIdentity {
    secret: ExpandedSecretKey,
    key: VerifyingKey,
}

impl Blinding {
    /// The number that 64 uniform bytes make: little-endian, modulo the order of the group.
    pub fn from_uniform(bytes: &[u8; 64]) -> Blinding {
        Blinding(Scalar::from_bytes_mod_order_wide(bytes))
    }
}

impl PublicKey {
    /// The key that this one becomes: the point, so many times.
    #[must_use]
    pub fn blinded(&self, by: &Blinding) -> PublicKey {
        PublicKey::from_verifying_key(VerifyingKey::from(self.point() * by.0))
    }
}

impl BlindedIdentity {
    /// The secret scalar, so many times. Nonces are derived from a secret of this key's own: under two keys whose ratio
    /// somebody knows, one nonce for one message would give the identity away.
    pub(crate) fn new(secret: &ExpandedSecretKey, by: &Blinding) -> BlindedIdentity {
        let mut blinded = ExpandedSecretKey { scalar: secret.scalar * by.0, hash_prefix: [0; 32] };
        let key = VerifyingKey::from(&blinded);
        let mut nonces: [u8; 64] = Sha512::new()
            .chain_update(NONCES_TAG)
            .chain_update(secret.hash_prefix)
            .chain_update(key.as_bytes())
            .finalize()
            .into();
        blinded.hash_prefix.copy_from_slice(&nonces[..32]);
        nonces.zeroize();
        BlindedIdentity { secret: blinded, key }
    }

    /// The public half: what [`PublicKey::blinded`] makes of the identity's.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_verifying_key(self.key)
    }

    /// Signs `message` (Ed25519, RFC 8032; deterministic): [`PublicKey::verify`] takes it.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        raw_sign::<Sha512>(&self.secret, message, &self.key).to_bytes()
    }
}
