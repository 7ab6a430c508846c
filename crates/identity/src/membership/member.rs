use std::fmt;

use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};

use super::network::{ClaimedNetwork, NETWORK_BYTES, Network};
use super::pledge::{Kind, Pledge, Slot};
use super::tree::Leaf;
use super::{NodeId, Nonce, StatementError, signature};
use crate::key::{SPKI_BYTES, SPKI_PREFIX, point_of_spki};
use crate::vrf::{self, PROOF_BYTES, Proof};
use crate::{Fingerprint, Identity, PublicKey, fingerprint_of_spki};

/// What every certificate starts with.
const TAG: &[u8; 17] = b"kithnet member v1";
/// What every request for one starts with.
const REQUEST_TAG: &[u8; 15] = b"kithnet join v1";
/// What the issuer signs of a certificate, in bytes.
const SIGNED_BYTES: usize = TAG.len() + NETWORK_BYTES + SPKI_BYTES + 32 + PROOF_BYTES + 3 * 8;
/// What the joining node signs of its request, in bytes.
const REQUESTED_BYTES: usize = REQUEST_TAG.len() + 32 + SPKI_BYTES + 32;
/// Length of a certificate in bytes.
pub const MEMBER_BYTES: usize = SIGNED_BYTES + 64;
/// Length of a request in bytes.
pub const REQUEST_BYTES: usize = REQUESTED_BYTES + 64;

/// A well-formed certificate: this key belongs to the network, with this random function, at this place, for this
/// time. **Not verified**: anybody can have made it.
///
/// ```text
/// "kithnet member v1" ‖ 44 bytes issuer's SPKI ‖ 32 bytes key of the issuer's random function
///   ‖ 44 bytes member's SPKI ‖ 32 bytes key of its random function ‖ 80 bytes proof of the nonce
///   ‖ u64 serial ‖ u64 not before ‖ u64 not after ‖ 64 bytes signature
/// ```
///
/// Times are seconds since 1970; the last one is the first moment at which it is valid no more. The nonce is the
/// output that the proof shows, of the issuer's random function on `"kithnet nonce v1" ‖ network ‖ fingerprint`. The
/// signature is over a [`Pledge`] about the serial number, whose content is sha3-256 over all that is before it.
#[derive(Clone, PartialEq, Eq)]
pub struct Member {
    bytes: [u8; MEMBER_BYTES],
    network: ClaimedNetwork,
    spki: [u8; SPKI_BYTES],
    vrf: [u8; 32],
    proof: Proof,
    serial: u64,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A certificate that was valid when it was verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedMember {
    member: Member,
    key: PublicKey,
    vrf: vrf::Key,
    fingerprint: Fingerprint,
    nonce: Nonce,
    id: NodeId,
}

/// The request of a node for a certificate, signed by it: `"kithnet join v1" ‖ 32 bytes network ‖ 44 bytes SPKI
/// ‖ 32 bytes key of its random function ‖ 64 bytes signature` over everything before. **Not verified**.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    bytes: [u8; REQUEST_BYTES],
    network: Fingerprint,
    spki: [u8; SPKI_BYTES],
    vrf: [u8; 32],
}

/// A request that was made by the key that it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VerifiedRequest {
    key: PublicKey,
    vrf: vrf::Key,
}

/// What the tree of an epoch holds of a member: `32 bytes id ‖ 32 bytes signing key ‖ 32 bytes key of its random
/// function`. Whoever shows that it is there needs no certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberLeaf {
    /// Its place.
    pub id: NodeId,
    /// The 32 bytes of its signing key.
    pub key: [u8; 32],
    /// The 32 bytes of the key of its random function.
    pub vrf: [u8; 32],
}

/// What a certificate says besides who: which one it is, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Validity {
    pub(super) serial: u64,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Member {
    /// The certificate in these bytes; refuses every form but the one of [`Member::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Member, StatementError> {
        let bytes: [u8; MEMBER_BYTES] = bytes.try_into().map_err(|_| StatementError::Length(bytes.len()))?;
        let short = |_: WireError| StatementError::Length(MEMBER_BYTES);
        let mut reader = Reader::new(&bytes);
        if reader.array().map_err(short)? != *TAG {
            return Err(StatementError::Tag("kithnet member v1"));
        }
        let network = ClaimedNetwork::read(&mut reader).map_err(short)?;
        let (spki, vrf) = (reader.array().map_err(short)?, reader.array().map_err(short)?);
        let proof = Proof::from_bytes(reader.array().map_err(short)?);
        let serial = reader.u64().map_err(short)?;
        let not_before = Timestamp(reader.u64().map_err(short)?);
        let not_after = Timestamp(reader.u64().map_err(short)?);
        fingerprint_of_spki(&spki)?;
        if not_before >= not_after || not_after > Timestamp::MAX {
            return Err(StatementError::Times);
        }
        Ok(Member { bytes, network, spki, vrf, proof, serial, not_before, not_after })
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; MEMBER_BYTES] {
        self.bytes
    }

    /// Whose it says it is. Unverified.
    pub fn claimed(&self) -> Fingerprint {
        crate::key::hash(&self.spki)
    }

    /// The network that it says it is of. Unverified.
    pub fn claimed_network(&self) -> Fingerprint {
        self.network.id()
    }

    /// The first moment at which it is valid no more, as it says. Unverified.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// What the tree of an epoch holds of this member, where the issuer itself has kept the certificate: its proof is
    /// not checked again.
    pub(super) fn own_leaf(&self) -> Result<MemberLeaf, StatementError> {
        let key = point_of_spki(&self.spki)?;
        let nonce = Nonce::from_bytes(*self.proof.claimed_output()?.as_bytes());
        Ok(MemberLeaf { id: NodeId::of(&self.claimed(), &nonce), key: *key, vrf: self.vrf })
    }

    /// Makes sure that the issuer of `network` has signed it, that the keys in it are sound, that the place was
    /// imposed, and that it is valid at `now`. Whether it has been revoked, the tree of the epoch says.
    pub fn verify(self, network: &Network, now: Timestamp) -> Result<VerifiedMember, StatementError> {
        network.check(&self.network)?;
        if now < self.not_before {
            return Err(StatementError::NotYet(self.not_before));
        }
        if now >= self.not_after {
            return Err(StatementError::Expired(self.not_after));
        }
        self.verify_at_any_time(network)
    }

    /// [`Member::verify`] without regard to the time, for the issuer's own book.
    pub(super) fn verify_at_any_time(self, network: &Network) -> Result<VerifiedMember, StatementError> {
        network.check(&self.network)?;
        let (key, vrf) = (PublicKey::from_spki(&self.spki)?, vrf::Key::from_bytes(&self.vrf)?);
        let signature = self.signature();
        self.pledge().verify(network.issuer(), &signature).map_err(|_| StatementError::Signature)?;
        let fingerprint = key.fingerprint();
        let nonce = network.nonce(&fingerprint, &self.proof)?;
        let id = NodeId::of(&fingerprint, &nonce);
        Ok(VerifiedMember { member: self, key, vrf, fingerprint, nonce, id })
    }

    /// What the issuer has signed: two of one serial number are evidence against it.
    pub fn pledge(&self) -> Pledge {
        pledge(&self.network.id(), self.serial, &self.bytes[..SIGNED_BYTES])
    }

    /// The issuer's signature over [`Member::pledge`].
    pub fn signature(&self) -> [u8; 64] {
        std::array::from_fn(|at| self.bytes[SIGNED_BYTES + at])
    }
}

impl VerifiedMember {
    /// Signs a certificate.
    pub(super) fn sign(
        issuer: &Identity,
        network: &Network,
        request: &VerifiedRequest,
        proof: Proof,
        validity: Validity,
    ) -> Result<VerifiedMember, StatementError> {
        let mut writer = Writer::new();
        writer.bytes(TAG);
        network.write(&mut writer);
        writer.bytes(&request.key.spki()).bytes(request.vrf.as_bytes()).bytes(proof.as_bytes());
        writer.u64(validity.serial).u64(validity.not_before.0).u64(validity.not_after.0);
        let signed = writer.finish();
        let signature = pledge(&network.id(), validity.serial, &signed).sign(issuer);
        Member::from_bytes(&[&signed[..], &signature].concat())?.verify_at_any_time(network)
    }

    /// The member's key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The key of its random function.
    pub fn vrf(&self) -> &vrf::Key {
        &self.vrf
    }

    /// The fingerprint of its key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Its place in the network.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// What fixed its place.
    pub fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// The number of the certificate, higher than those of all that the issuer signed before.
    pub fn serial(&self) -> u64 {
        self.member.serial
    }

    /// The first moment at which it is valid.
    pub fn not_before(&self) -> Timestamp {
        self.member.not_before
    }

    /// The first moment at which it is valid no more.
    pub fn not_after(&self) -> Timestamp {
        self.member.not_after
    }

    /// What the tree of an epoch holds of this member.
    pub fn leaf(&self) -> MemberLeaf {
        MemberLeaf { id: self.id, key: *self.key.as_bytes(), vrf: *self.vrf.as_bytes() }
    }

    /// The certificate without the proof that it holds, for a codec or a store.
    pub fn as_member(&self) -> &Member {
        &self.member
    }
}

impl Request {
    /// The request of `joining` to the issuer of `network`.
    pub fn sign(joining: &Identity, network: &Fingerprint) -> Request {
        let (spki, vrf) = (joining.public().spki(), *joining.vrf_secret().key().as_bytes());
        let mut bytes = [0; REQUEST_BYTES];
        let signed = [&REQUEST_TAG[..], network.as_bytes(), &spki, &vrf].concat();
        bytes[..REQUESTED_BYTES].copy_from_slice(&signed);
        bytes[REQUESTED_BYTES..].copy_from_slice(&joining.sign(&signed));
        Request { bytes, network: *network, spki, vrf }
    }

    /// The request in these bytes; refuses every form but the one of [`Request::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Request, StatementError> {
        let bytes: [u8; REQUEST_BYTES] = bytes.try_into().map_err(|_| StatementError::Length(bytes.len()))?;
        let short = |_: WireError| StatementError::Length(REQUEST_BYTES);
        let mut reader = Reader::new(&bytes);
        if reader.array().map_err(short)? != *REQUEST_TAG {
            return Err(StatementError::Tag("kithnet join v1"));
        }
        let network = Fingerprint::from_bytes(reader.array().map_err(short)?);
        let (spki, vrf) = (reader.array().map_err(short)?, reader.array().map_err(short)?);
        fingerprint_of_spki(&spki)?;
        Ok(Request { bytes, network, spki, vrf })
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; REQUEST_BYTES] {
        self.bytes
    }

    /// Makes sure that it is to the issuer of `network`, that both keys are sound, and that the first has signed it.
    pub fn verify(&self, network: &Fingerprint) -> Result<VerifiedRequest, StatementError> {
        if self.network != *network {
            return Err(StatementError::Network { wanted: *network, found: self.network });
        }
        let (key, vrf) = (PublicKey::from_spki(&self.spki)?, vrf::Key::from_bytes(&self.vrf)?);
        let signature = std::array::from_fn(|at| self.bytes[REQUESTED_BYTES + at]);
        signature::verify(&key, &self.bytes[..REQUESTED_BYTES], &signature)
            .map_err(|_| StatementError::Signature)?;
        Ok(VerifiedRequest { key, vrf })
    }
}

impl VerifiedRequest {
    /// The key of the node that wants to join.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The key of its random function.
    pub fn vrf(&self) -> &vrf::Key {
        &self.vrf
    }
}

impl MemberLeaf {
    /// Its signing key. Costs a few microseconds: the bytes are looked at again.
    pub fn public_key(&self) -> Result<PublicKey, StatementError> {
        Ok(PublicKey::from_bytes(&self.key)?)
    }

    /// The key of its random function.
    pub fn vrf_key(&self) -> Result<vrf::Key, StatementError> {
        Ok(vrf::Key::from_bytes(&self.vrf)?)
    }

    /// The fingerprint of its signing key.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut spki = [0; SPKI_BYTES];
        spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
        spki[SPKI_PREFIX.len()..].copy_from_slice(&self.key);
        crate::key::hash(&spki)
    }
}

impl Leaf for MemberLeaf {
    const BYTES: usize = 96;
    const KEY: &'static [u8; 32] = b"kithnet tree member leaf v1\0\0\0\0\0";

    fn id(&self) -> NodeId {
        self.id
    }

    fn write(&self, writer: &mut Writer) {
        writer.bytes(self.id.as_bytes()).bytes(&self.key).bytes(&self.vrf);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(MemberLeaf { id: NodeId::from_bytes(reader.array()?), key: reader.array()?, vrf: reader.array()? })
    }
}

fn pledge(network: &Fingerprint, serial: u64, signed: &[u8]) -> Pledge {
    Pledge::new(Slot::numbered(Kind::MEMBER, *network, serial), signed)
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({} until {})", self.claimed(), self.not_after)
    }
}
