use kith_sansio::wire::{Reader, WireError, Writer};

use super::{Nonce, StatementError};
use crate::key::SPKI_BYTES;
use crate::vrf::{self, Proof};
use crate::{Fingerprint, Identity, PublicKey};

/// What the input of a nonce starts with.
const NONCE_TAG: &[u8] = b"kithnet nonce v1";
/// Length in bytes of what a statement says about its network.
pub(super) const NETWORK_BYTES: usize = SPKI_BYTES + 32;

/// A network: its issuer's key, and the key of the issuer's random function, which imposes the members' places.
/// Its name is the issuer's fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    issuer: PublicKey,
    vrf: vrf::Key,
}

/// What a statement says about its network: `44 bytes issuer's SPKI ‖ 32 bytes key of its random function`. Unverified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClaimedNetwork {
    spki: [u8; SPKI_BYTES],
    vrf: [u8; 32],
}

impl Network {
    /// The network that this identity issues.
    pub fn of(issuer: &Identity) -> Network {
        Network { issuer: issuer.public(), vrf: issuer.vrf_secret().key() }
    }

    /// Its name: the issuer's fingerprint.
    pub fn id(&self) -> Fingerprint {
        self.issuer.fingerprint()
    }

    /// The issuer's key.
    pub fn issuer(&self) -> &PublicKey {
        &self.issuer
    }

    /// The key of the issuer's random function.
    pub fn vrf(&self) -> &vrf::Key {
        &self.vrf
    }

    /// Checks that `proof` is by the issuer about this member, and gives the nonce.
    pub fn nonce(&self, member: &Fingerprint, proof: &Proof) -> Result<Nonce, StatementError> {
        let output = self.vrf.verify(&nonce_input(&self.id(), member), proof)?;
        Ok(Nonce::from_bytes(*output.as_bytes()))
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.issuer.spki()).bytes(self.vrf.as_bytes());
    }

    /// Whether a statement says that it is of this network.
    pub(super) fn check(&self, claimed: &ClaimedNetwork) -> Result<(), StatementError> {
        if claimed.spki == self.issuer.spki() && claimed.vrf == *self.vrf.as_bytes() {
            return Ok(());
        }
        Err(StatementError::Network { wanted: self.id(), found: claimed.id() })
    }
}

impl ClaimedNetwork {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<ClaimedNetwork, WireError> {
        Ok(ClaimedNetwork { spki: reader.array()?, vrf: reader.array()? })
    }

    pub(super) fn id(&self) -> Fingerprint {
        crate::key::hash(&self.spki)
    }

    /// The network, where its name is `wanted` and its keys are sound.
    pub(super) fn verify(&self, wanted: &Fingerprint) -> Result<Network, StatementError> {
        if self.id() != *wanted {
            return Err(StatementError::Network { wanted: *wanted, found: self.id() });
        }
        let issuer = PublicKey::from_spki(&self.spki)?;
        Ok(Network { issuer, vrf: vrf::Key::from_bytes(&self.vrf)? })
    }
}

/// The proof of a member's nonce.
pub(super) fn prove_nonce(issuer: &vrf::Secret, network: &Fingerprint, member: &Fingerprint) -> Proof {
    issuer.prove(&nonce_input(network, member))
}

fn nonce_input(network: &Fingerprint, member: &Fingerprint) -> Vec<u8> {
    [NONCE_TAG, network.as_bytes(), member.as_bytes()].concat()
}
