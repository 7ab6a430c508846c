use data_encoding::BASE64;
use kith_identity::{Identity, KeyError, KeyFileError, PublicKey, fingerprint_of_spki, fuzz};
use kith_sansio::SeededRng;
use proptest::prelude::*;

use crate::support::{VECTOR_KEY, ZERO, identity, vector_fingerprint};

const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// `VECTOR_KEY` as `openssl pkcs8 -topk8` encrypts it under "horse": by default, and with `-scrypt`.
const OPENSSL_PBKDF2: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhPCD/BGvj9tAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEFzYHl2isNv/QkNd+YnLtQAEQKAy
JmDFS/b3Wonq5yjziQ/OvI2p6xd/6TxtquP4djuaPZblTjfVaFgZC/dleIbMlzEq
eUdiyEt+c5/RswtuVNw=
-----END ENCRYPTED PRIVATE KEY-----
";
const OPENSSL_SCRYPT: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGTME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAgphz3hvUTQdAICQAAC
AQgCAQEwHQYJYIZIAWUDBAEqBBBuulpUs7zRm/bRQ3HLRFg/BEBfFA0wI0uIucJy
B5nFWZp8EO0kEHtKzWcGeulEU/K8W/dyM9rmx1kmpqFM3Y59MUDH/sFN0ufqmScV
chvJjpdi
-----END ENCRYPTED PRIVATE KEY-----
";
const P256: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgN7MmKXrjVUECNwyE
3qJOGYE5uv9iB7X46HvMHr78eIShRANCAAQIrSbcGCXoUtnPzaT4DvuNIvg7azPB
V+CTv8LFFXwJ8kI6rpsufWOcEqEq/k+4Bk/aiMb6PaBmpgpNMNyH28os
-----END PRIVATE KEY-----
";

fn spki(point: &[u8]) -> Vec<u8> {
    [&SPKI_PREFIX, point].concat()
}

#[test]
fn the_all_zero_key_has_the_fingerprint_of_the_vector_and_is_no_usable_key() {
    let zero = spki(&[0; 32]);
    assert_eq!(fingerprint_of_spki(&zero).unwrap().to_string(), ZERO);
    assert_eq!(PublicKey::from_spki(&zero), Err(KeyError::SmallOrder));
}

#[test]
fn small_order_points_and_other_forms_of_points_are_refused() {
    let mut one = [0; 32];
    one[0] = 1;
    let mut prime_less_one = [0xff; 32];
    (prime_less_one[0], prime_less_one[31]) = (0xec, 0x7f);
    for point in [[0; 32], one, prime_less_one] {
        assert_eq!(PublicKey::from_bytes(&point), Err(KeyError::SmallOrder));
    }
    // Numbers from the prime upwards are second names of the points with y = 0 to 18.
    for low in 0xed..=0xff {
        for high in [0x7f, 0xff] {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (low, high);
            assert_eq!(PublicKey::from_bytes(&point), Err(KeyError::NotAPoint));
        }
    }
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    assert_eq!(PublicKey::from_bytes(&off_curve), Err(KeyError::NotAPoint));
}

#[test]
fn only_ed25519_spki_is_read() {
    let good = identity(1).public().spki();
    assert_eq!(PublicKey::from_spki(&good), Ok(identity(1).public()));
    let mut other_oid = good;
    other_oid[8] = 0x6e;
    let long = [&good[..], &[0]].concat();
    for wrong in [&good[..43], &long, &other_oid, &[], &good[12..]] {
        assert_eq!(PublicKey::from_spki(wrong), Err(KeyError::NotEd25519(wrong.len())));
        assert_eq!(fingerprint_of_spki(wrong), Err(KeyError::NotEd25519(wrong.len())));
    }
}

#[test]
fn signatures_are_checked_strictly() {
    let signature = identity(1).sign(b"message");
    let key = identity(1).public();
    assert_eq!(key.verify(b"message", &signature), Ok(()));
    assert_eq!(key.verify(b"messagE", &signature), Err(KeyError::Signature));
    assert_eq!(key.verify(b"message", &signature[..63]), Err(KeyError::Signature));
    assert_eq!(identity(2).public().verify(b"message", &signature), Err(KeyError::Signature));
    assert_eq!(key.verify(b"message", &plus_group_order(signature)), Err(KeyError::Signature));
}

/// The same signature with the group's order added to its number: a second form that lax verifiers accept.
fn plus_group_order(mut signature: [u8; 64]) -> [u8; 64] {
    let order = data_encoding::HEXLOWER
        .decode(b"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
        .unwrap();
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    signature
}

#[test]
fn a_key_file_of_openssl_is_read() {
    let plain = Identity::from_pem(VECTOR_KEY, None).unwrap();
    assert_eq!(plain.fingerprint(), vector_fingerprint());
    for pem in [OPENSSL_PBKDF2, OPENSSL_SCRYPT] {
        assert!(Identity::is_encrypted(pem));
        let opened = Identity::from_pem(pem, Some("horse")).unwrap();
        assert_eq!(opened.fingerprint(), vector_fingerprint());
    }
}

#[test]
fn a_key_file_is_read_back() {
    let pem = identity(1).to_pem(None, &mut SeededRng::new(2)).unwrap();
    assert!(!Identity::is_encrypted(pem.as_str()));
    assert_eq!(Identity::from_pem(pem.as_str(), None).unwrap().fingerprint(), identity(1).fingerprint());
    let again = Identity::from_pem(VECTOR_KEY, None).unwrap().to_pem(None, &mut SeededRng::new(2)).unwrap();
    assert_eq!(again.as_str(), VECTOR_KEY);
}

#[test]
fn a_key_file_with_a_passphrase_opens_with_that_one_only() {
    let pem = identity(1).to_pem(Some("correct horse"), &mut SeededRng::new(2)).unwrap();
    assert!(Identity::is_encrypted(pem.as_str()));
    let open =
        |passphrase| Identity::from_pem(pem.as_str(), passphrase).map(|identity| identity.fingerprint());
    assert_eq!(open(Some("correct horse")), Ok(identity(1).fingerprint()));
    assert_eq!(open(Some("correct horsf")), Err(KeyFileError::WrongPassphrase));
    assert_eq!(open(None), Err(KeyFileError::PassphraseNeeded));
    let empty = identity(1).to_pem(Some(""), &mut SeededRng::new(2)).err();
    assert_eq!(empty, Some(KeyFileError::EmptyPassphrase));
}

#[test]
fn an_encrypted_key_file_is_never_the_same_twice() {
    let mut rng = SeededRng::new(2);
    let first = identity(1).to_pem(Some("p"), &mut rng).unwrap();
    let second = identity(1).to_pem(Some("p"), &mut rng).unwrap();
    assert_ne!(first.as_str(), second.as_str());
}

#[test]
fn bad_key_files_are_refused_each_for_its_reason() {
    let open = |pem: &str| Identity::from_pem(pem, Some("horse")).err();
    assert_eq!(open(""), Some(KeyFileError::NotPem));
    assert_eq!(open("secret"), Some(KeyFileError::NotPem));
    assert_eq!(open(&VECTOR_KEY[..60]), Some(KeyFileError::NotPem));
    assert_eq!(open(&"-".repeat(1 << 20)), Some(KeyFileError::NotPem));
    assert_eq!(open(P256), Some(KeyFileError::NotEd25519));
    let label = VECTOR_KEY.replace("PRIVATE KEY", "PUBLIC KEY");
    assert_eq!(open(&label), Some(KeyFileError::NotAPrivateKey));
    let body = |body: &str| format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    assert_eq!(open(&body("AAAA")), Some(KeyFileError::NotPem));
    // SEQUENCE { INTEGER 0 }
    assert_eq!(open(&body("MAMCAQA=")), Some(KeyFileError::NotAPrivateKey));
}

#[test]
fn a_key_file_that_asks_for_gigabytes_is_refused_before_they_are_taken() {
    let body: String = OPENSSL_SCRYPT.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = BASE64.decode(body.as_bytes()).unwrap();
    // INTEGER 16384, the cost; then INTEGER 8, the block size.
    let cost = [2, 2, 0x40, 0, 2, 1, 8];
    let at = der.windows(cost.len()).position(|window| window == cost).unwrap();
    der[at + 6] = 0x7f;
    der[at + 2] = 0x7f;
    let wrap = |der: &[u8]| {
        let body = BASE64.encode(der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let marks = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----"];
        format!("{}\n{}\n{}\n", marks[0], lines.join("\n"), marks[1])
    };
    assert_eq!(Identity::from_pem(&wrap(&der), Some("horse")).err(), Some(KeyFileError::Encryption));
}

proptest! {
    #[test]
    fn any_bytes_are_no_key_or_one_key(data: Vec<u8>, point: [u8; 32]) {
        fuzz::fuzz_keys(&data);
        fuzz::fuzz_keys(&spki(&point));
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(&data));
        fuzz::fuzz_keys(pem.as_bytes());
    }

    #[test]
    fn every_generated_key_signs(seed: u64, message: Vec<u8>) {
        let identity = identity(seed);
        prop_assert_eq!(identity.public().verify(&message, &identity.sign(&message)), Ok(()));
        prop_assert_eq!(PublicKey::from_bytes(identity.public().as_bytes()), Ok(identity.public()));
    }
}
