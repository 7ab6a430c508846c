//! A verifiable random function: whoever holds the secret key makes exactly one random output of an input, and a proof
//! that it is that one (RFC 9381).
//!
//! [`Ecvrf`] is the suite ECVRF-EDWARDS25519-SHA512-ELL2. Its sister with try-and-increment would need no map to the
//! curve, but what it costs depends on the input, and whoever chooses the input can search for dear ones; here every
//! verification costs the same. No library of this suite is kept that is not under the GPL or built on OpenSSL, so the
//! few lines of the standard stand here, over `curve25519-dalek`, which has the map (RFC 9380) and all arithmetic.
//!
//! Proof, 80 bytes: `32 bytes point Γ ‖ 16 bytes challenge c ‖ 32 bytes scalar s`, numbers little-endian. Output: 64
//! bytes. Points have one encoding, scalars are below the order of the group; every other form is refused.

use std::fmt;
use std::hash::{Hash, Hasher};

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use curve25519_dalek::traits::VartimeMultiscalarMul;
use data_encoding::HEXLOWER;
use kith_sansio::Rng;
use sha2::{Digest, Sha512};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Length of a proof in bytes.
pub const PROOF_BYTES: usize = 80;
/// Length of an output in bytes.
pub const OUTPUT_BYTES: usize = 64;

/// The octet of the suite (RFC 9381 §5.5).
const SUITE: u8 = 0x04;
/// Separates the map to the curve from every other use of it (RFC 9381 §5.4.1.2).
const TO_CURVE: &[u8] = b"ECVRF_edwards25519_XMD:SHA-512_ELL2_NU_\x04";

/// Why a key or a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VrfError {
    /// The key is no point of the curve in its one encoding, or of small order.
    #[error("not a key of the verifiable random function")]
    Key,
    /// The proof is not made of a point and two numbers in their one encoding.
    #[error("not a proof of the verifiable random function")]
    Form,
    /// The proof is not by this key about this input.
    #[error("the proof does not verify")]
    Proof,
}

/// A verifiable random function. The network uses [`Ecvrf`]; a simulation of millions of nodes may use another one.
pub trait Vrf {
    /// What makes outputs.
    type Secret;
    /// What checks them.
    type Key;

    /// The key that belongs to a secret.
    fn key(secret: &Self::Secret) -> Self::Key;

    /// The proof of the one output of `input`.
    fn prove(secret: &Self::Secret, input: &[u8]) -> Proof;

    /// The output of `input` under `key`, where the proof is one.
    fn verify(key: &Self::Key, input: &[u8], proof: &Proof) -> Result<Output, VrfError>;
}

/// ECVRF-EDWARDS25519-SHA512-ELL2 (RFC 9381 §5.5).
#[derive(Clone, Copy, Debug)]
pub enum Ecvrf {}

/// A secret key. No `Debug`; wiped from memory when dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Secret {
    x: Scalar,
    /// What the nonces of proofs come from (RFC 8032 §5.1.6).
    prefix: [u8; 32],
    #[zeroize(skip)]
    key: Key,
}

/// A public key, validated (RFC 9381 §5.4.5): a point in its one encoding and never of small order, so that there is
/// one output for each input, also where its owner made it with ill intent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    point: EdwardsPoint,
    bytes: [u8; 32],
}

/// What shows that an output is the right one. **Not verified**: any 80 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof([u8; PROOF_BYTES]);

/// A random output.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Output([u8; OUTPUT_BYTES]);

impl Secret {
    /// A new secret.
    pub fn generate(rng: &mut dyn Rng) -> Secret {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill(&mut *seed);
        Secret::from_seed(&seed)
    }

    /// The secret of these 32 bytes (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Secret {
        let hashed = Zeroizing::new(<[u8; 64]>::from(Sha512::digest(seed)));
        let (mut low, mut prefix) = (Zeroizing::new([0; 32]), [0; 32]);
        low.copy_from_slice(&hashed[..32]);
        prefix.copy_from_slice(&hashed[32..]);
        let x = Scalar::from_bytes_mod_order(clamp_integer(*low));
        let point = EdwardsPoint::mul_base(&x);
        Secret { x, prefix, key: Key { point, bytes: point.compress().0 } }
    }

    /// Its public key.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The proof of the one output of `input` (RFC 9381 §5.1). Deterministic.
    pub fn prove(&self, input: &[u8]) -> Proof {
        let h = to_curve(&self.key, input);
        let h_bytes = h.compress().0;
        let gamma = self.x * h;
        // RFC 9381 §5.4.2.2: the nonce is a function of the secret and of what is proven.
        let nonce = Sha512::new().chain_update(self.prefix).chain_update(h_bytes);
        let nonce = Zeroizing::new(Scalar::from_hash(nonce));
        let points = [h, gamma, EdwardsPoint::mul_base(&nonce), *nonce * h].map(|point| point.compress().0);
        let c = challenge(&self.key, &points);
        let s = *nonce + scalar(&c) * self.x;
        let mut proof = [0; PROOF_BYTES];
        proof[..32].copy_from_slice(&points[1]);
        proof[32..48].copy_from_slice(&c);
        proof[48..].copy_from_slice(s.as_bytes());
        Proof(proof)
    }
}

impl Key {
    /// The key with these bytes, where they are one.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Key, VrfError> {
        let point = decode(bytes).ok_or(VrfError::Key)?;
        if point.is_small_order() { Err(VrfError::Key) } else { Ok(Key { point, bytes: *bytes }) }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The output of `input`, where the proof is by this key about it (RFC 9381 §5.3). Takes the same time for every
    /// input of one length.
    pub fn verify(&self, input: &[u8], proof: &Proof) -> Result<Output, VrfError> {
        let (gamma, c, s) = proof.decode()?;
        let minus_c = -scalar(&c);
        let h = to_curve(self, input);
        let u = EdwardsPoint::vartime_double_scalar_mul_basepoint(&minus_c, &self.point, &s);
        let v = EdwardsPoint::vartime_multiscalar_mul([s, minus_c], [h, gamma]);
        let points = [h, gamma, u, v].map(|point| point.compress().0);
        if challenge(self, &points) == c { Ok(output(&gamma)) } else { Err(VrfError::Proof) }
    }
}

impl Proof {
    /// The proof with these bytes.
    pub const fn from_bytes(bytes: [u8; PROOF_BYTES]) -> Proof {
        Proof(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; PROOF_BYTES] {
        &self.0
    }

    /// The output that it claims. **Not verified**: whose it is, and of what, is only known after [`Key::verify`].
    pub fn claimed_output(&self) -> Result<Output, VrfError> {
        self.decode().map(|(gamma, ..)| output(&gamma))
    }

    /// Γ, c and s (RFC 9381 §5.4.4).
    fn decode(&self) -> Result<(EdwardsPoint, [u8; 16], Scalar), VrfError> {
        let (mut gamma, mut c, mut s) = ([0; 32], [0; 16], [0; 32]);
        gamma.copy_from_slice(&self.0[..32]);
        c.copy_from_slice(&self.0[32..48]);
        s.copy_from_slice(&self.0[48..]);
        let s: Option<Scalar> = Scalar::from_canonical_bytes(s).into();
        Ok((decode(&gamma).ok_or(VrfError::Form)?, c, s.ok_or(VrfError::Form)?))
    }
}

impl Output {
    /// The output with these bytes.
    pub const fn from_bytes(bytes: [u8; OUTPUT_BYTES]) -> Output {
        Output(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; OUTPUT_BYTES] {
        &self.0
    }
}

impl Vrf for Ecvrf {
    type Secret = Secret;
    type Key = Key;

    fn key(secret: &Secret) -> Key {
        secret.key()
    }

    fn prove(secret: &Secret, input: &[u8]) -> Proof {
        secret.prove(input)
    }

    fn verify(key: &Key, input: &[u8], proof: &Proof) -> Result<Output, VrfError> {
        key.verify(input, proof)
    }
}

/// A point of the prime-order group that nobody knows the logarithm of (RFC 9381 §5.4.1.2).
fn to_curve(key: &Key, input: &[u8]) -> EdwardsPoint {
    EdwardsPoint::encode_to_curve::<Sha512>(&[&key.bytes, input], &[TO_CURVE])
}

/// The challenge about the key and four points (RFC 9381 §5.4.3).
fn challenge(key: &Key, points: &[[u8; 32]; 4]) -> [u8; 16] {
    let mut hash = Sha512::new().chain_update([SUITE, 0x02]).chain_update(key.bytes);
    for point in points {
        hash.update(point);
    }
    let hash: [u8; 64] = hash.chain_update([0x00]).finalize().into();
    std::array::from_fn(|at| hash[at])
}

/// The output that a point Γ stands for (RFC 9381 §5.2).
fn output(gamma: &EdwardsPoint) -> Output {
    let point = gamma.mul_by_cofactor().compress().0;
    Output(
        Sha512::new().chain_update([SUITE, 0x03]).chain_update(point).chain_update([0x00]).finalize().into(),
    )
}

/// A challenge as a number.
fn scalar(challenge: &[u8; 16]) -> Scalar {
    Scalar::from(u128::from_le_bytes(*challenge))
}

/// The point with this encoding, which has to be the only one of it (RFC 8032 §5.1.3).
fn decode(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
    let point = CompressedEdwardsY(*bytes).decompress()?;
    (point.compress().0 == *bytes).then_some(point)
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vrf::Key({}…)", HEXLOWER.encode(&self.bytes[..4]))
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proof({}…)", HEXLOWER.encode(&self.0[..4]))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({}…)", HEXLOWER.encode(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The point that inputs are mapped to stands in no proof, so the vectors of RFC 9381 Appendix B.4 say it, too.
    #[test]
    fn inputs_are_mapped_to_the_points_of_the_standard() {
        let vectors = [
            (
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "b8066ebbb706c72b64390324e4a3276f129569eab100c26b9f05011200c1bad9",
            ),
            (
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "76ac3ccb86158a9104dff819b1ca293426d305fd76b39b13c9356d9b58c08e57",
            ),
            (
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "13d2a8b5ca32db7e98094a61f656a08c6c964344e058879a386a947a4e189ed1",
            ),
        ];
        for (key, input, point) in vectors {
            let bytes = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
            let key = Key::from_bytes(&bytes(key).try_into().unwrap()).unwrap();
            assert_eq!(HEXLOWER.encode(&to_curve(&key, &bytes(input)).compress().0), point);
        }
    }
}
