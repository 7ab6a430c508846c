use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, PKCS_ED25519, PublicKeyData, SerialNumber};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::TlsError;
use crate::{Fingerprint, Identity, PublicKey};

/// The self-signed certificate of an identity, with its key. Subject, serial number and dates (1975 to 4096) are
/// the same for everybody, so that nothing but the key tells one node from another.
#[derive(Clone)]
pub struct Certificate {
    der: CertificateDer<'static>,
    key: Arc<NodeKey>,
}

impl Certificate {
    /// The certificate of `identity`; the same one every time.
    pub fn self_signed(identity: &Identity) -> Result<Certificate, TlsError> {
        let key = NodeKey::new(identity);
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, "kith");
        parameters.serial_number = Some(SerialNumber::from(1_u64));
        parameters.not_before = rcgen::date_time_ymd(1975, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(4096, 1, 1);
        let made = parameters.self_signed(&key).map_err(|error| TlsError::Make(error.to_string()))?;
        Ok(Certificate { der: made.into(), key: Arc::new(key) })
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whose it is.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.identity.fingerprint()
    }

    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        let key: Arc<dyn SigningKey> = self.key.clone();
        Arc::new(CertifiedKey::new(vec![self.der.clone()], key).into())
    }
}

/// Shows whose it is, nothing secret.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint())
    }
}

/// The identity as rcgen and rustls want a key. Signing stays with [`Identity`]; the secret is not copied into
/// another format.
struct NodeKey {
    identity: Identity,
    public: PublicKey,
}

impl NodeKey {
    fn new(identity: &Identity) -> NodeKey {
        NodeKey { identity: identity.clone(), public: identity.public() }
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

impl PublicKeyData for NodeKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.identity.sign(message).to_vec())
    }
}

impl SigningKey for NodeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(NodeKey::new(&self.identity)) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.public.spki().to_vec()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.identity.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
