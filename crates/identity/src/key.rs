use std::fmt;
use std::hash::{Hash, Hasher};

use curve25519_dalek::EdwardsPoint;
use ed25519_dalek::{Signature, VerifyingKey};
use sha3::{Digest, Sha3_256};

use crate::Fingerprint;

/// The twelve bytes that every DER SubjectPublicKeyInfo of an Ed25519 key starts with (RFC 8410 §4).
pub(crate) const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Length in bytes of an Ed25519 SubjectPublicKeyInfo.
pub(crate) const SPKI_BYTES: usize = 44;

/// Why bytes are no usable Ed25519 public key, or no signature by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not the DER SubjectPublicKeyInfo of an Ed25519 key; the number of bytes that were given.
    #[error("not the DER SubjectPublicKeyInfo of an Ed25519 key ({0} bytes)")]
    NotEd25519(usize),
    /// The 32 bytes are no point of the curve in its one canonical form.
    #[error("not a point of the Ed25519 curve")]
    NotAPoint,
    /// One of the small-order points, under which anybody can sign.
    #[error("a small-order Ed25519 key, which proves nothing")]
    SmallOrder,
    /// The signature is not by this key over this message.
    #[error("the signature does not verify")]
    Signature,
}

/// An Ed25519 public key: a point of the curve in canonical form and never of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key of a DER SubjectPublicKeyInfo of 44 bytes.
    pub fn from_spki(spki: &[u8]) -> Result<PublicKey, KeyError> {
        PublicKey::from_bytes(point_of_spki(spki)?)
    }

    /// The key whose 32 bytes of RFC 8032 these are.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<PublicKey, KeyError> {
        if !is_canonical(bytes) {
            return Err(KeyError::NotAPoint);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        if key.is_weak() { Err(KeyError::SmallOrder) } else { Ok(PublicKey(key)) }
    }

    pub(crate) fn from_verifying_key(key: VerifyingKey) -> PublicKey {
        PublicKey(key)
    }

    pub(crate) fn point(&self) -> EdwardsPoint {
        self.0.to_edwards()
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The DER SubjectPublicKeyInfo (RFC 8410 §4).
    pub fn spki(&self) -> [u8; 44] {
        let mut spki = [0; SPKI_BYTES];
        spki[..12].copy_from_slice(&SPKI_PREFIX);
        spki[12..].copy_from_slice(self.as_bytes());
        spki
    }

    /// The fingerprint: sha3-256 over [`PublicKey::spki`].
    pub fn fingerprint(&self) -> Fingerprint {
        hash(&self.spki())
    }

    /// Checks a signature of 64 bytes over `message`, strictly: no small-order points, no non-canonical numbers,
    /// so that nobody but the signer can make a second form of it.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature = Signature::from_slice(signature).map_err(|_| KeyError::Signature)?;
        self.0.verify_strict(message, &signature).map_err(|_| KeyError::Signature)
    }
}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// The fingerprint of any Ed25519 SubjectPublicKeyInfo, of small order too: for showing a key, never for trusting it.
pub fn fingerprint_of_spki(spki: &[u8]) -> Result<Fingerprint, KeyError> {
    point_of_spki(spki)?;
    Ok(hash(spki))
}

pub(crate) fn point_of_spki(spki: &[u8]) -> Result<&[u8; 32], KeyError> {
    spki.strip_prefix(&SPKI_PREFIX)
        .and_then(|point| point.try_into().ok())
        .ok_or(KeyError::NotEd25519(spki.len()))
}

pub(crate) fn hash(spki: &[u8]) -> Fingerprint {
    Fingerprint::from_bytes(Sha3_256::digest(spki).into())
}

/// The second coordinates of the eight points of small order, little-endian and without the sign of the first.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        minus_one
    },
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
];

/// Whether these bytes are those of a [`PublicKey`], where they are a point of the curve at all: whoever decompresses
/// them anyhow need not do so twice.
pub(crate) fn is_sound_form(bytes: &[u8; 32]) -> bool {
    let mut second = *bytes;
    second[31] &= 0x7f;
    is_canonical(bytes) && !SMALL_ORDER.contains(&second)
}

/// Whether the coordinate is below the field's prime 2^255 − 19 (RFC 8032 §5.1.3), which decoders do not check.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    bytes[31] & 0x7f != 0x7f || bytes[1..31].iter().any(|byte| *byte != 0xff) || bytes[0] < 0xed
}
