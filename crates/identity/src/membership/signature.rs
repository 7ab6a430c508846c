//! Signatures of members, checked so that everybody agrees on which ones are valid (ZIP-215): one alone and many at
//! once give the same answer, which the strict rules of record sets cannot promise.

use std::convert::Infallible;

use blake3::OutputReader;
use ed25519_zebra::{Signature, VerificationKey, VerificationKeyBytes, batch};
use rand_core::{TryCryptoRng, TryRng};

use crate::key::is_sound_form;
use crate::{KeyError, PublicKey};

/// What the coefficients of a batch are derived for.
const COEFFICIENTS: &str = "kithnet batch coefficients v1";

/// Checks one signature over `message` under ZIP-215. Small-order keys have been refused before: no [`PublicKey`] is
/// one.
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> Result<(), KeyError> {
    VerificationKey::try_from(*key.as_bytes())
        .and_then(|key| key.verify(&Signature::from_bytes(signature), message))
        .map_err(|_| KeyError::Signature)
}

/// Signatures that are checked together: eight take less than two thirds of the time that they take one by one.
///
/// A sum of all of them is checked, each times a coefficient of 128 bits. These are derived from a hash of everything
/// that was added, so that nobody can choose signatures whose errors cancel out, and no source of chance is needed.
pub struct Batch {
    verifier: batch::Verifier,
    inputs: blake3::Hasher,
    /// Whether every key may be one of a [`PublicKey`].
    is_sound: bool,
}

impl Batch {
    /// A batch of none.
    pub fn new() -> Batch {
        let inputs = blake3::Hasher::new_derive_key(COEFFICIENTS);
        Batch { verifier: batch::Verifier::new(), inputs, is_sound: true }
    }

    /// Adds a signature over `message`.
    pub fn add(&mut self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) {
        self.add_claimed(key.as_bytes(), message, signature);
    }

    /// Adds a signature of whoever has the key of these bytes: a batch with one that is no [`PublicKey`] is not valid.
    /// Cheaper than to make one of it before.
    pub fn add_claimed(&mut self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) {
        self.is_sound &= is_sound_form(key);
        let length = (message.len() as u64).to_be_bytes();
        self.inputs.update(key).update(signature).update(&length).update(message);
        let key = VerificationKeyBytes::from(*key);
        self.verifier.queue((key, Signature::from_bytes(signature), message));
    }

    /// Whether each of them is valid; which one is not, [`verify`] tells.
    pub fn verify(self) -> Result<(), KeyError> {
        if !self.is_sound {
            return Err(KeyError::Signature);
        }
        let coefficients = Coefficients(self.inputs.finalize_xof());
        self.verifier.verify(coefficients).map_err(|_| KeyError::Signature)
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

/// The stream of a hash.
struct Coefficients(OutputReader);

impl TryRng for Coefficients {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Coefficients {}
