use ed25519_dalek::hazmat::ExpandedSecretKey;
use ed25519_dalek::{Signer, SigningKey};
use kith_sansio::Rng;
use pkcs8::der::SecretDocument;
use pkcs8::der::pem::PemLabel;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use crate::blinding::{BlindedIdentity, Blinding};
use crate::{Fingerprint, PublicKey, vrf};

/// Longest key file in bytes that is looked at.
const MAX_PEM_BYTES: usize = 16 * 1024;
/// The sixteen bytes in front of the 32 secret ones in a PKCS#8 v1 document of an Ed25519 key (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// scrypt: N = 2^14, r = 8 need 16 MiB, which OpenSSL opens too; p = 5 brings the work to what OWASP advises.
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 5;
/// What a key file of other origin may ask for: memory of scrypt in bytes, its passes, and rounds of PBKDF2.
const MAX_SCRYPT_BYTES: u64 = 256 << 20;
const MAX_SCRYPT_PASSES: u16 = 16;
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;

/// Why a key file cannot be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Not a PEM text with one private key, or larger than 16 KiB.
    #[error("not a PEM text with a private key")]
    NotPem,
    /// The PEM holds something else than a PKCS#8 private key.
    #[error("the PEM text holds no PKCS#8 private key")]
    NotAPrivateKey,
    /// The key is encrypted and no passphrase was given.
    #[error("the key is encrypted and needs a passphrase")]
    PassphraseNeeded,
    /// The passphrase does not open it, or the file is damaged.
    #[error("the passphrase does not open the key")]
    WrongPassphrase,
    /// Encrypted by something else than PBES2 with scrypt or PBKDF2, or at an absurd cost.
    #[error("the key is encrypted in a way that is not supported")]
    Encryption,
    /// A private key of another algorithm, or a damaged one.
    #[error("the private key is not a sound Ed25519 key")]
    NotEd25519,
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The key could not be written; never seen.
    #[error("the key cannot be encoded")]
    Encode,
}

/// A node's secret Ed25519 key. No `Debug`; wiped from memory when dropped.
#[derive(Clone)]
pub struct Identity(SigningKey);

/// The text of a key file; wiped from memory when dropped.
pub struct SecretPem(Zeroizing<String>);

/// What the key of the verifiable random function is derived for.
const VRF_CONTEXT: &str = "kithnet identity vrf v1";

impl Identity {
    /// A new identity.
    pub fn generate(rng: &mut dyn Rng) -> Identity {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill(&mut *secret);
        Identity(SigningKey::from_bytes(&secret))
    }

    /// The identity in a PEM text: PKCS#8, or PKCS#8 encrypted by PBES2 (then `passphrase` is needed). A
    /// passphrase given for a key that is not encrypted is ignored. Takes about a second where it is encrypted.
    pub fn from_pem(pem: &str, passphrase: Option<&str>) -> Result<Identity, KeyFileError> {
        if pem.len() > MAX_PEM_BYTES {
            return Err(KeyFileError::NotPem);
        }
        let (label, document) =
            SecretDocument::from_pem(pem.trim_start()).map_err(|_| KeyFileError::NotPem)?;
        if label == PrivateKeyInfoRef::PEM_LABEL {
            return from_der(document.as_bytes());
        }
        if label != EncryptedPrivateKeyInfoRef::PEM_LABEL {
            return Err(KeyFileError::NotAPrivateKey);
        }
        let sealed = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
            .map_err(|_| KeyFileError::NotAPrivateKey)?;
        let scheme = sealed.encryption_algorithm.pbes2().ok_or(KeyFileError::Encryption)?;
        check_cost(&scheme.kdf)?;
        let passphrase = passphrase.ok_or(KeyFileError::PassphraseNeeded)?;
        let opened = sealed.decrypt(passphrase).map_err(|_| KeyFileError::WrongPassphrase)?;
        // Padding is right by chance once in 256 wrong passphrases; what comes out then is no PKCS#8.
        PrivateKeyInfoRef::try_from(opened.as_bytes()).map_err(|_| KeyFileError::WrongPassphrase)?;
        from_der(opened.as_bytes())
    }

    /// The key file: PKCS#8 as PEM; with a passphrase encrypted by PBES2 (scrypt, AES-256-CBC), which takes about
    /// a second.
    pub fn to_pem(&self, passphrase: Option<&str>, rng: &mut dyn Rng) -> Result<SecretPem, KeyFileError> {
        let der = self.to_der();
        let (label, document) = match passphrase {
            None => {
                let plain = SecretDocument::try_from(&der[..]).map_err(|_| KeyFileError::Encode)?;
                (PrivateKeyInfoRef::PEM_LABEL, plain)
            }
            Some("") => return Err(KeyFileError::EmptyPassphrase),
            Some(passphrase) => (EncryptedPrivateKeyInfoRef::PEM_LABEL, seal(&der[..], passphrase, rng)?),
        };
        document.to_pem(label, LineEnding::LF).map(SecretPem).map_err(|_| KeyFileError::Encode)
    }

    /// Signs `message` (Ed25519, RFC 8032; deterministic).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_verifying_key(self.0.verifying_key())
    }

    /// The fingerprint of the public half.
    pub fn fingerprint(&self) -> Fingerprint {
        self.public().fingerprint()
    }

    /// The key of its verifiable random function: derived, so that an identity has one for good and no second file to
    /// lose, and not the signing key itself, so that no proof is ever of use as a signature.
    pub fn vrf_secret(&self) -> vrf::Secret {
        vrf::Secret::from_seed(&Zeroizing::new(blake3::derive_key(VRF_CONTEXT, self.0.as_bytes())))
    }

    /// This identity under another key, which nobody links to it without the number.
    pub fn blinded(&self, by: &Blinding) -> BlindedIdentity {
        BlindedIdentity::new(&ExpandedSecretKey::from(self.0.as_bytes()), by)
    }

    /// Whether a PEM text says that its private key is encrypted; looks at its first line only.
    pub fn is_encrypted(pem: &str) -> bool {
        pem.trim_start().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    }

    fn to_der(&self) -> Zeroizing<[u8; 48]> {
        let mut der = Zeroizing::new([0; 48]);
        der[..16].copy_from_slice(&PKCS8_PREFIX);
        der[16..].copy_from_slice(self.0.as_bytes());
        der
    }
}

impl SecretPem {
    /// The PEM text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its bytes, for a file.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn from_der(der: &[u8]) -> Result<Identity, KeyFileError> {
    let info = PrivateKeyInfoRef::try_from(der).map_err(|_| KeyFileError::NotAPrivateKey)?;
    SigningKey::try_from(info).map(Identity).map_err(|_| KeyFileError::NotEd25519)
}

fn seal(der: &[u8], passphrase: &str, rng: &mut dyn Rng) -> Result<SecretDocument, KeyFileError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    rng.fill(&mut salt);
    rng.fill(&mut iv);
    let cost = pkcs8::pkcs5::scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P);
    let scheme =
        pbes2::Parameters::generate_scrypt_aes256cbc(cost.map_err(|_| KeyFileError::Encode)?, &salt, iv)
            .map_err(|_| KeyFileError::Encode)?;
    let info = PrivateKeyInfoRef::try_from(der).map_err(|_| KeyFileError::Encode)?;
    info.encrypt_with_params(scheme, passphrase).map_err(|_| KeyFileError::Encode)
}

/// Refuses costs that would take gigabytes or hours, before any of it is spent.
fn check_cost(kdf: &pbes2::Kdf) -> Result<(), KeyFileError> {
    let bearable = match kdf {
        pbes2::Kdf::Scrypt(scrypt) => {
            let memory = scrypt.cost_parameter.checked_mul(128 * u64::from(scrypt.block_size));
            memory.is_some_and(|bytes| bytes <= MAX_SCRYPT_BYTES)
                && scrypt.parallelization <= MAX_SCRYPT_PASSES
        }
        pbes2::Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= MAX_PBKDF2_ROUNDS,
        _ => false,
    };
    if bearable { Ok(()) } else { Err(KeyFileError::Encryption) }
}
