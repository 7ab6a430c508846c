use std::fmt;
use std::time::Duration;

use kith_sansio::Timestamp;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::TlsError;
use crate::{Identity, PublicKey};

/// What an identity signs for a leaf starts with this.
const TAG: &[u8] = b"kithnet dtls leaf v1";
/// The extension that says whose leaf it is: made of a random UUID below the arc that Microsoft lends to whoever has none
/// of his own. Not below 2.25, because X.509 libraries read 32 bits of an arc.
const EXTENSION: [u64; 14] =
    [1, 2, 840, 113556, 1, 8000, 2554, 47181, 15922, 51665, 19867, 40277, 5249374, 11341659];
/// The same in DER.
const EXTENSION_DER: [u8; 33] = [
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x14, 0x01, 0xbe, 0x40, 0x93, 0x7a, 0x82, 0xf0, 0x4d, 0xfc, 0x32, 0x83,
    0x93, 0x51, 0x81, 0x9b, 0x1b, 0x82, 0xba, 0x55, 0x82, 0xc0, 0xb2, 0x5e, 0x85, 0xb4, 0x9e, 0x5b,
];
/// What an Ed25519 key takes as a `SubjectPublicKeyInfo`.
const SPKI_BYTES: usize = 44;
/// The content of the extension: the identity's key and its signature.
const CONTENT_BYTES: usize = SPKI_BYTES + 64;
/// A P-256 key as a `SubjectPublicKeyInfo`: this, and the 64 bytes of an uncompressed point.
const P256_SPKI_HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const P256_SPKI_BYTES: usize = P256_SPKI_HEAD.len() + 64;

/// Largest certificate that is looked at, in bytes; one of ours has less than 600.
const MAX_LEAF_BYTES: usize = 2048;
/// The longest life of a leaf, in seconds.
const LIFE: u64 = 86_400;
/// How far before it is made its life begins: what the clocks of two nodes may differ by.
const BACKDATED: u64 = 3600;

/// A certificate for DTLS alone, whose libraries know no Ed25519: a key of its own on P-256, and the word of an
/// identity that it speaks for it, for a day at most.
///
/// The word is one critical extension: the identity's 44 bytes of SPKI and its signature over
/// `kithnet dtls leaf v1` ‖ DER of the leaf's SPKI ‖ u64 not before ‖ u64 not after, big-endian Unix seconds, which
/// are the certificate's own.
#[derive(Clone)]
pub struct Leaf {
    der: Vec<u8>,
    private_key: Zeroizing<Vec<u8>>,
    not_after: Timestamp,
}

impl Leaf {
    /// A new leaf of `identity`, with a new key.
    ///
    /// # Errors
    /// Where no certificate can be made.
    pub fn issue(identity: &Identity, now: Timestamp) -> Result<Leaf, TlsError> {
        let made = |error: rcgen::Error| TlsError::Make(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
        let not_before = now.min(Timestamp::MAX.minus_secs(LIFE)).minus_secs(BACKDATED);
        let not_after = not_before.plus_secs(LIFE);
        let signature = identity.sign(&statement(&key.subject_public_key_info(), not_before, not_after));
        let content = [&identity.public().spki()[..], &signature[..]].concat();
        let mut extension = CustomExtension::from_oid_content(&EXTENSION, content);
        extension.set_criticality(true);
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, "kith");
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        parameters.not_before = epoch + Duration::from_secs(not_before.0);
        parameters.not_after = epoch + Duration::from_secs(not_after.0);
        parameters.custom_extensions = vec![extension];
        let der = parameters.self_signed(&key).map_err(made)?.der().to_vec();
        Ok(Leaf { der, private_key: Zeroizing::new(key.serialize_der()), not_after })
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its private key in PKCS #8; never written anywhere.
    pub fn private_key(&self) -> &[u8] {
        &self.private_key
    }

    /// Whether half of its life is over, so that the next one is due.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        // Where the clock was set back, this one may not have begun.
        now.plus_secs(LIFE / 2) >= self.not_after || now < self.not_after.minus_secs(LIFE)
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf(until {})", self.not_after)
    }
}

/// Whose leaf this certificate is, by the identity's own word. That the peer has the leaf's key is the handshake's to
/// prove; names, its own signature and other extensions are not looked at.
///
/// # Errors
/// Where it is no leaf, or not of today.
pub fn leaf_key(der: &[u8], now: Timestamp) -> Result<PublicKey, TlsError> {
    if der.len() > MAX_LEAF_BYTES {
        return Err(TlsError::BadCertificate);
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| TlsError::BadCertificate)?;
    if !rest.is_empty() {
        return Err(TlsError::BadCertificate);
    }
    let spki = certificate.tbs_certificate.subject_pki.raw;
    if spki.len() != P256_SPKI_BYTES || !spki.starts_with(&P256_SPKI_HEAD) {
        return Err(TlsError::Leaf("its key is not on P-256"));
    }
    let mut words = certificate.extensions().iter().filter(|one| one.oid.as_bytes() == EXTENSION_DER);
    let (Some(word), None) = (words.next(), words.next()) else {
        return Err(TlsError::Leaf("it does not say once whose it is"));
    };
    let (identity, signature) = match word.value.split_at_checked(SPKI_BYTES) {
        Some(parts) if word.value.len() == CONTENT_BYTES => parts,
        _ => return Err(TlsError::Leaf("what it says of whose it is has another length")),
    };
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).map(Timestamp);
    let validity = certificate.validity();
    let (Ok(not_before), Ok(not_after)) = (seconds(validity.not_before), seconds(validity.not_after)) else {
        return Err(TlsError::Leaf("its dates are before 1970"));
    };
    if not_after < not_before || not_after.secs_since(not_before) > LIFE {
        return Err(TlsError::Leaf("it is for longer than a day"));
    }
    if now < not_before || now > not_after {
        return Err(TlsError::Leaf("it is not valid now"));
    }
    let key = PublicKey::from_spki(identity)?;
    key.verify(&statement(spki, not_before, not_after), signature)
        .map_err(|_| TlsError::Leaf("its identity did not sign it"))?;
    Ok(key)
}

/// What an identity signs.
fn statement(spki: &[u8], not_before: Timestamp, not_after: Timestamp) -> Vec<u8> {
    [TAG, spki, &not_before.0.to_be_bytes(), &not_after.0.to_be_bytes()].concat()
}
