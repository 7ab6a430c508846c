//! Signatures and random outputs behind a trait, so that they can be counted and simulated.

use std::sync::Arc;

use kith_identity::Identity;
use kith_identity::membership::pledge::Pledge;
use kith_identity::membership::signature::Batch;
use kith_identity::vrf::{Key, Output, Proof};

use crate::scheme::{Counting, Signature};

/// That a key signed a pledge.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The 32 bytes of the key.
    pub key: &'a [u8; 32],
    /// What was pledged.
    pub pledge: &'a Pledge,
    /// The signature.
    pub signature: &'a Signature,
}

/// How one member signs and draws, and checks what others did.
pub trait Suite {
    /// Signs a pledge with the member's own key.
    fn sign(&mut self, pledge: &Pledge) -> Signature;

    /// Whether all claims hold, checked together.
    fn verify(&mut self, claims: &[Claim<'_>]) -> bool;

    /// The proof of the member's random output of `input`.
    fn prove(&mut self, input: &[u8]) -> Proof;

    /// The output that a proof shows to be that of the random function with this key.
    fn output(&mut self, key: &[u8; 32], input: &[u8], proof: &Proof) -> Option<Output>;
}

/// Whether all claims hold: one batch under ZIP-215.
pub(super) fn verify(claims: &[Claim<'_>]) -> bool {
    batch(claims).verify().is_ok()
}

/// The claims, to be checked together.
pub(super) fn batch(claims: &[Claim<'_>]) -> Batch {
    let mut batch = Batch::new();
    for claim in claims {
        batch.add_claimed(claim.key, &claim.pledge.message(), claim.signature);
    }
    batch
}

impl Suite for &Identity {
    fn sign(&mut self, pledge: &Pledge) -> Signature {
        pledge.sign(self)
    }

    fn verify(&mut self, claims: &[Claim<'_>]) -> bool {
        verify(claims)
    }

    fn prove(&mut self, input: &[u8]) -> Proof {
        self.vrf_secret().prove(input)
    }

    fn output(&mut self, key: &[u8; 32], input: &[u8], proof: &Proof) -> Option<Output> {
        Key::from_bytes(key).ok()?.verify(input, proof).ok()
    }
}

impl Suite for Arc<Identity> {
    fn sign(&mut self, pledge: &Pledge) -> Signature {
        Suite::sign(&mut &**self, pledge)
    }

    fn verify(&mut self, claims: &[Claim<'_>]) -> bool {
        Suite::verify(&mut &**self, claims)
    }

    fn prove(&mut self, input: &[u8]) -> Proof {
        Suite::prove(&mut &**self, input)
    }

    fn output(&mut self, key: &[u8; 32], input: &[u8], proof: &Proof) -> Option<Output> {
        Suite::output(&mut &**self, key, input, proof)
    }
}

/// A random output counts as a signature, checking one as the check of a signature.
impl<S: Suite> Suite for Counting<S> {
    fn sign(&mut self, pledge: &Pledge) -> Signature {
        self.operations.signed += 1;
        self.scheme.sign(pledge)
    }

    fn verify(&mut self, claims: &[Claim<'_>]) -> bool {
        self.operations.verified += claims.len() as u64;
        self.scheme.verify(claims)
    }

    fn prove(&mut self, input: &[u8]) -> Proof {
        self.operations.signed += 1;
        self.scheme.prove(input)
    }

    fn output(&mut self, key: &[u8; 32], input: &[u8], proof: &Proof) -> Option<Output> {
        self.operations.verified += 1;
        self.scheme.output(key, input, proof)
    }
}
