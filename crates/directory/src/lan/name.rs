use std::fmt;

use kith_identity::Fingerprint;
use kith_sansio::Rng;

use crate::label::hex;

/// What the hash of a name starts with.
const NAME_TAG: &[u8] = b"kithnet lan v1";

/// Makes names differ by network and hour: 16 random bytes, in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Salt(pub [u8; 16]);

/// Makes questions and answers differ from any other: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

/// The name that a node has on one network for an hour: its instance name, and its host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance(pub [u8; 16]);

impl Salt {
    /// A new one.
    pub fn draw(rng: &mut dyn Rng) -> Salt {
        Salt(draw(rng))
    }
}

impl Nonce {
    /// A new one.
    pub fn draw(rng: &mut dyn Rng) -> Nonce {
        Nonce(draw(rng))
    }
}

fn draw(rng: &mut dyn Rng) -> [u8; 16] {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    bytes
}

impl Instance {
    /// The name of `fingerprint` under `salt`: the first 16 bytes of BLAKE3, keyed with the fingerprint, over
    /// `kithnet lan v1` ‖ salt.
    #[must_use]
    pub fn of(fingerprint: &Fingerprint, salt: &Salt) -> Instance {
        Instance(keyed(fingerprint, &[NAME_TAG, &salt.0]))
    }
}

/// The first 16 bytes of BLAKE3, keyed with the fingerprint, over `parts` one after the other.
pub(super) fn keyed(fingerprint: &Fingerprint, parts: &[&[u8]]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&keyed_whole(fingerprint, parts)[..16]);
    short
}

/// All 32 bytes of it.
pub(super) fn keyed_whole(fingerprint: &Fingerprint, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(fingerprint.as_bytes());
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    *hasher.finalize().as_bytes()
}

/// 32 hexadecimal digits.
impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::from_hex;

    #[test]
    fn a_name_is_the_keyed_hash_of_its_salt() {
        let fingerprint = Fingerprint::from_bytes(std::array::from_fn(|at| at as u8));
        let salt = Salt([0x5a; 16]);
        let mut input = b"kithnet lan v1".to_vec();
        input.extend_from_slice(&[0x5a; 16]);
        let hash = blake3::keyed_hash(fingerprint.as_bytes(), &input);
        let instance = Instance::of(&fingerprint, &salt);
        assert_eq!(instance.0, hash.as_bytes()[..16]);
        assert_eq!(from_hex(instance.to_string().to_uppercase().as_bytes()), Some(instance.0));
        assert_ne!(Instance::of(&fingerprint, &Salt([0; 16])), instance);
    }
}
