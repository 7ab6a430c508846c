use hickory_proto::rr::Name;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

/// Shortest secret in bytes: what `hmac-sha256` is worth at half its length.
pub(super) const MIN_SECRET_BYTES: usize = 16;
/// Longest secret in bytes.
pub(super) const MAX_SECRET_BYTES: usize = 1024;

/// How the code of a signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// `hmac-sha256`, which everybody has.
    HmacSha256,
    /// `hmac-sha384`.
    HmacSha384,
    /// `hmac-sha512`.
    HmacSha512,
}

/// Why something is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A key's name is a name of the DNS.
    #[error("'{0}' is no name that a key can have")]
    Name(String),
    /// Nothing that signs like that.
    #[error("'{0}' is none of hmac-sha256, hmac-sha384 and hmac-sha512")]
    Algorithm(String),
    /// A secret that can be guessed, or is something else.
    #[error(
        "the secret of the key '{name}' has {bytes} bytes, it must have {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}"
    )]
    Secret {
        /// The key.
        name: String,
        /// The length of its secret.
        bytes: usize,
    },
}

/// A secret that two servers share, under a name. It is not shown and is wiped from memory when it goes.
pub struct Key {
    text: String,
    wire: Vec<u8>,
    algorithm: Algorithm,
    secret: Zeroizing<Vec<u8>>,
}

impl Algorithm {
    /// Its name in the DNS.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::HmacSha256 => "hmac-sha256",
            Algorithm::HmacSha384 => "hmac-sha384",
            Algorithm::HmacSha512 => "hmac-sha512",
        }
    }

    pub(super) fn wire_name(self) -> &'static [u8] {
        match self {
            Algorithm::HmacSha256 => b"\x0bhmac-sha256\0",
            Algorithm::HmacSha384 => b"\x0bhmac-sha384\0",
            Algorithm::HmacSha512 => b"\x0bhmac-sha512\0",
        }
    }

    /// The length of its codes.
    pub(super) fn bytes(self) -> usize {
        match self {
            Algorithm::HmacSha256 => 32,
            Algorithm::HmacSha384 => 48,
            Algorithm::HmacSha512 => 64,
        }
    }
}

impl std::str::FromStr for Algorithm {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        let all = [Algorithm::HmacSha256, Algorithm::HmacSha384, Algorithm::HmacSha512];
        let found = all.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| KeyError::Algorithm(name.to_owned()))
    }
}

impl Key {
    /// The key `name`, which is compared without case, with this secret.
    pub fn new(name: &str, algorithm: Algorithm, secret: &[u8]) -> Result<Key, KeyError> {
        let wrong = || KeyError::Name(name.to_owned());
        let parsed = Name::from_ascii(name).map_err(|_| wrong())?;
        let mut wire = Vec::new();
        for label in parsed.iter() {
            wire.push(u8::try_from(label.len()).map_err(|_| wrong())?);
            wire.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        wire.push(0);
        if wire.len() == 1 || wire.len() > 255 {
            return Err(wrong());
        }
        if !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&secret.len()) {
            return Err(KeyError::Secret { name: name.to_owned(), bytes: secret.len() });
        }
        let text = name.trim_end_matches('.').to_ascii_lowercase();
        Ok(Key { text, wire, algorithm, secret: Zeroizing::new(secret.to_vec()) })
    }

    /// Its name, in small letters and without the last dot.
    pub fn name(&self) -> &str {
        &self.text
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its name in canonical form.
    pub(crate) fn wire_name(&self) -> &[u8] {
        &self.wire
    }

    /// The code of `parts` together.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        match self.algorithm {
            Algorithm::HmacSha256 => self.fed::<Hmac<Sha256>>(parts).finalize().into_bytes().to_vec(),
            Algorithm::HmacSha384 => self.fed::<Hmac<Sha384>>(parts).finalize().into_bytes().to_vec(),
            Algorithm::HmacSha512 => self.fed::<Hmac<Sha512>>(parts).finalize().into_bytes().to_vec(),
        }
    }

    /// Whether `mac` is the beginning of the code of `parts`, in constant time.
    pub(super) fn made(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        let verified = match self.algorithm {
            Algorithm::HmacSha256 => self.fed::<Hmac<Sha256>>(parts).verify_truncated_left(mac),
            Algorithm::HmacSha384 => self.fed::<Hmac<Sha384>>(parts).verify_truncated_left(mac),
            Algorithm::HmacSha512 => self.fed::<Hmac<Sha512>>(parts).verify_truncated_left(mac),
        };
        verified.is_ok()
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    fn fed<M: Mac + KeyInit>(&self, parts: &[&[u8]]) -> M {
        let mut mac = <M as KeyInit>::new_from_slice(&self.secret).expect("a key of any length");
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_algorithms_and_secrets_are_checked() {
        let key = Key::new("Transfer.Example.", Algorithm::HmacSha256, &[1; 16]).unwrap();
        assert_eq!((key.name(), key.wire_name()), ("transfer.example", &b"\x08transfer\x07example\0"[..]));
        for name in ["", ".", "a..b", &"a".repeat(64)] {
            assert!(
                matches!(Key::new(name, Algorithm::HmacSha256, &[1; 16]), Err(KeyError::Name(_))),
                "{name}"
            );
        }
        for bytes in [0, 15, 1025] {
            let key = Key::new("k", Algorithm::HmacSha256, &vec![1; bytes]);
            assert!(matches!(key, Err(KeyError::Secret { .. })), "{bytes}");
        }
        assert_eq!("HMAC-SHA512".parse(), Ok(Algorithm::HmacSha512));
        assert!("hmac-md5".parse::<Algorithm>().is_err());
    }

    /// RFC 4231 §4.7, test case 6 (a key longer than a block); the secret is 131 bytes of 0xaa.
    #[test]
    fn codes_are_those_of_the_standard() {
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        for (algorithm, expected) in [
            (Algorithm::HmacSha256, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
            (
                Algorithm::HmacSha384,
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
            ),
            (
                Algorithm::HmacSha512,
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e52\
                 95e64f73f63f0aec8b915a985d786598",
            ),
        ] {
            let key = Key::new("k", algorithm, &[0xaa; 131]).unwrap();
            let mac = key.mac(&[&text[..7], &text[7..]]);
            assert_eq!(data_encoding::HEXLOWER.encode(&mac), expected);
            assert!(key.made(&[text], &mac) && key.made(&[text], &mac[..20]));
            assert!(!key.made(&[&text[1..]], &mac));
        }
    }
}
