use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::NiError;
use crate::text::{quote, serde_by_text};

/// Length of a fingerprint's text in characters.
const TEXT_CHARS: usize = 43;

/// sha3-256 over the DER SubjectPublicKeyInfo of a public key: all that is needed to find, reach and recognise a
/// peer. Its text is base64url without padding, 43 characters, the two unused bits zero (RFC 6920).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Fingerprint {
        Fingerprint(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The base64url text alone, without `ni:`.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = NiError;

    fn from_str(text: &str) -> Result<Self, NiError> {
        if text.contains('=') {
            return Err(NiError::Padding);
        }
        if let Some(wrong) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
            return Err(NiError::Alphabet(wrong));
        }
        if text.len() != TEXT_CHARS {
            return Err(NiError::Length(text.len()));
        }
        // Length and alphabet are right, so only the two unused bits of the last character are left to be wrong.
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| NiError::UnusedBits(quote(text)))?;
        bytes.try_into().map(Fingerprint).map_err(|_| NiError::Length(text.len()))
    }
}

serde_by_text!(Fingerprint);

/// Six words of the BIP-39 English list over the first 66 bits, eleven bits each: a check that people can speak.
pub fn words(fingerprint: &Fingerprint) -> [&'static str; 6] {
    let list = bip39::Language::English.word_list();
    let bytes = fingerprint.as_bytes();
    std::array::from_fn(|word| {
        let bits = (word * 11..word * 11 + 11).map(|bit| usize::from(bytes[bit / 8] >> (7 - bit % 8) & 1));
        list[bits.fold(0, |index, bit| index << 1 | bit)]
    })
}
