//! Certificates for DTLS: who they speak for, when, and where they are worth nothing.

use std::time::Duration;

use kith_identity::tls::{self, Certificate, Leaf, TlsError, leaf_key};
use kith_identity::{Identity, fuzz};
use kith_sansio::Timestamp;
use proptest::prelude::*;
use rcgen::{
    CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;

use crate::support::identity;

const NOW: Timestamp = Timestamp(1_790_000_000);
const DAY: u64 = 86_400;
const OID: [u64; 14] =
    [1, 2, 840, 113556, 1, 8000, 2554, 47181, 15922, 51665, 19867, 40277, 5249374, 11341659];

/// A leaf as another program might make one.
struct Forged {
    key: KeyPair,
    not_before: u64,
    not_after: u64,
    /// What is signed, where it is not what the certificate says.
    signed: Option<(Vec<u8>, u64, u64)>,
    tag: &'static [u8],
    signer: Identity,
    times: usize,
    cut: usize,
}

impl Default for Forged {
    fn default() -> Self {
        Forged {
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            not_before: NOW.0 - 10,
            not_after: NOW.0 - 10 + DAY,
            signed: None,
            tag: b"kithnet dtls leaf v1",
            signer: identity(1),
            times: 1,
            cut: 0,
        }
    }
}

impl Forged {
    fn der(&self) -> Vec<u8> {
        let own = (self.key.subject_public_key_info(), self.not_before, self.not_after);
        let (spki, not_before, not_after) = self.signed.as_ref().unwrap_or(&own);
        let message = [self.tag, spki, &not_before.to_be_bytes(), &not_after.to_be_bytes()].concat();
        let mut content = [&identity(1).public().spki()[..], &self.signer.sign(&message)[..]].concat();
        content.truncate(content.len() - self.cut);
        let mut parameters = CertificateParams::default();
        let date = |at| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at);
        (parameters.not_before, parameters.not_after) = (date(self.not_before), date(self.not_after));
        parameters.custom_extensions = vec![CustomExtension::from_oid_content(&OID, content); self.times];
        parameters.self_signed(&self.key).unwrap().der().to_vec()
    }
}

#[test]
fn a_leaf_speaks_for_its_identity_for_a_day_at_most() {
    let leaf = Leaf::issue(&identity(1), NOW).unwrap();
    let key = |at| leaf_key(leaf.der(), Timestamp(at));
    assert_eq!(key(NOW.0), Ok(identity(1).public()));
    assert_eq!(key(NOW.0 - 3600), Ok(identity(1).public()));
    assert_eq!(key(NOW.0 + DAY - 3600), Ok(identity(1).public()));
    for outside in [0, NOW.0 - 3601, NOW.0 + DAY - 3599] {
        assert!(matches!(key(outside), Err(TlsError::Leaf(_))), "{outside}");
    }
    assert!(!leaf.is_stale(NOW));
    assert!(leaf.is_stale(NOW.plus_secs(DAY / 2)));
    assert!(leaf.is_stale(NOW.minus_secs(DAY)));
    assert_ne!(leaf.der(), Leaf::issue(&identity(1), NOW).unwrap().der());
}

#[test]
fn a_clock_that_stands_anywhere_leaves_a_leaf_to_be_made() {
    for at in [Timestamp(0), Timestamp(1), Timestamp(2_600_000_000), Timestamp::MAX, Timestamp(u64::MAX)] {
        let leaf = Leaf::issue(&identity(1), at).unwrap();
        assert_eq!(leaf_key(leaf.der(), at).is_ok(), at <= Timestamp::MAX.minus_secs(DAY), "{at}");
    }
}

#[test]
fn what_the_identity_did_not_sign_speaks_for_nobody() {
    assert_eq!(leaf_key(&Forged::default().der(), NOW), Ok(identity(1).public()));
    let own = |change: fn(&mut (Vec<u8>, u64, u64))| {
        let forged = Forged::default();
        let mut signed = (forged.key.subject_public_key_info(), forged.not_before, forged.not_after);
        change(&mut signed);
        Forged { signed: Some(signed), ..forged }
    };
    let wrong = [
        Forged { times: 0, ..Forged::default() },
        Forged { times: 2, ..Forged::default() },
        Forged { cut: 1, ..Forged::default() },
        Forged { cut: 80, ..Forged::default() },
        Forged { signer: identity(2), ..Forged::default() },
        Forged { tag: b"kithnet dtls leaf v2", ..Forged::default() },
        Forged { not_after: NOW.0 + DAY - 9, ..Forged::default() },
        Forged { not_after: NOW.0 - 1, ..Forged::default() },
        Forged { key: KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), ..Forged::default() },
        own(|signed| signed.0[40] ^= 1),
        own(|signed| signed.1 -= 1),
        own(|signed| signed.2 += 1),
    ];
    for (at, forged) in wrong.iter().enumerate() {
        assert!(matches!(leaf_key(&forged.der(), NOW), Err(TlsError::Leaf(_))), "number {at}");
    }
    assert_eq!(leaf_key(&[0x30; 4096], NOW), Err(TlsError::BadCertificate));
}

#[test]
fn tls_takes_no_leaf_and_dtls_nothing_else() {
    let leaf = CertificateDer::from(Leaf::issue(&identity(1), NOW).unwrap().der().to_vec());
    assert!(tls::named_key(&leaf).is_err());
    assert!(tls::peer_key(Some(&[leaf])).is_err());
    let certificate = Certificate::self_signed(&identity(1)).unwrap();
    assert!(matches!(leaf_key(certificate.der(), NOW), Err(TlsError::Leaf(_))));
}

#[test]
fn the_corpus_holds_a_leaf_that_is_taken() {
    let kept = include_bytes!("../../../../fuzz/corpus/identity_leaf/leaf");
    assert_eq!(leaf_key(kept, NOW), Ok(identity(1).public()));
}

#[test]
fn what_is_printed_of_a_leaf_holds_no_key() {
    let leaf = Leaf::issue(&identity(1), NOW).unwrap();
    assert_eq!(format!("{leaf:?}"), "Leaf(until 2026-09-22T13:13:20Z)");
}

proptest! {
    #[test]
    fn an_altered_leaf_is_refused_or_speaks_for_the_same_identity(at: prop::sample::Index, bit in 0_u8..8) {
        let mut der = Forged::default().der();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        fuzz::fuzz_leaf(&der);
        if let Ok(key) = leaf_key(&der, NOW) {
            prop_assert_eq!(key, identity(1).public());
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
        fuzz::fuzz_leaf(&bytes);
    }
}
