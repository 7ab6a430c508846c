use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::verifier::Possession;
use super::{ALPN, Certificate, DIRECTORY_ALPN, TlsError};
use crate::Fingerprint;

/// Most bytes of a server's PEM files that are looked at.
const MAX_PEM_BYTES: usize = 1 << 20;

/// What a directory's client trusts the server by. What the directory says is verified end to end in any case.
#[derive(Clone, Debug)]
pub enum Trust {
    /// A certificate for the server's name that leads to one of these roots.
    WebPki(Arc<RootCertStore>),
    /// The key with this fingerprint, whatever the certificate says.
    Pin(Fingerprint),
}

/// The certificate that a directory serves with.
#[derive(Clone, Copy)]
pub enum ServerCertificate<'a> {
    /// Its own identity, self-signed; clients pin its fingerprint.
    Own(&'a Certificate),
    /// The contents of PEM files from a certificate authority.
    Pem {
        /// The certificates, the server's own first.
        chain: &'a [u8],
        /// Its private key.
        key: &'a [u8],
    },
}

/// A node that is connected to: presents `certificate`, and asks for the peer's without insisting.
pub fn node_server(certificate: &Certificate) -> Result<ServerConfig, TlsError> {
    server(certificate.resolver(), ALPN)
}

/// A node that connects: presents `certificate` where it is asked for one. Any key is accepted, so the caller must
/// look at [`peer_key`](super::peer_key) before it says anything.
pub fn node_client(certificate: &Certificate) -> Result<ClientConfig, TlsError> {
    client(&Expect::Possession(None), Some(certificate), ALPN)
}

/// As [`node_client`], without a certificate: the peer sees nobody.
pub fn node_client_anonymous() -> Result<ClientConfig, TlsError> {
    client(&Expect::Possession(None), None, ALPN)
}

/// A directory's HTTPS server: asks clients for a certificate without insisting.
pub fn directory_server(certificate: ServerCertificate<'_>) -> Result<ServerConfig, TlsError> {
    let resolver = match certificate {
        ServerCertificate::Own(own) => own.resolver(),
        ServerCertificate::Pem { chain, key } => from_pem(chain, key)?,
    };
    server(resolver, DIRECTORY_ALPN)
}

/// A directory's client; `certificate` proves who announces and is not needed for discovery.
pub fn directory_client(trust: &Trust, certificate: Option<&Certificate>) -> Result<ClientConfig, TlsError> {
    let trust = match trust {
        Trust::WebPki(roots) => Expect::WebPki(roots),
        Trust::Pin(fingerprint) => Expect::Possession(Some(*fingerprint)),
    };
    client(&trust, certificate, DIRECTORY_ALPN)
}

/// What a client expects of the server's certificate.
enum Expect<'a> {
    WebPki(&'a Arc<RootCertStore>),
    Possession(Option<Fingerprint>),
}

fn server(resolver: Arc<dyn ResolvesServerCert>, alpn: &[u8]) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::Config(error.to_string()))?
        .with_client_cert_verifier(Arc::new(Possession { pin: None }))
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn client(
    expect: &Expect<'_>,
    certificate: Option<&Certificate>,
    alpn: &[u8],
) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::Config(error.to_string()))?
        .dangerous();
    let builder = match expect {
        Expect::Possession(pin) => {
            builder.with_custom_certificate_verifier(Arc::new(Possession { pin: *pin }))
        }
        Expect::WebPki(roots) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider).build();
            builder.with_custom_certificate_verifier(
                verifier.map_err(|error| TlsError::Config(error.to_string()))?,
            )
        }
    };
    let mut config = match certificate {
        Some(certificate) => builder.with_client_cert_resolver(certificate.resolver()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn from_pem(chain: &[u8], key: &[u8]) -> Result<Arc<SingleCertAndKey>, TlsError> {
    if chain.len().saturating_add(key.len()) > MAX_PEM_BYTES {
        return Err(TlsError::Pem(format!("larger than {MAX_PEM_BYTES} bytes")));
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem(format!("certificates: {error}")))?;
    if chain.is_empty() {
        return Err(TlsError::Pem("there is no certificate in them".into()));
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Pem(format!("private key: {error}")))?;
    let certified =
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| TlsError::Pem(error.to_string()))?;
    Ok(Arc::new(certified.into()))
}

/// The cryptography of every connection: TLS 1.3 suites, and the hybrid post-quantum key exchange first. Never the
/// process-wide default, which a library could change.
fn provider() -> Arc<CryptoProvider> {
    let aes = [cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut cipher_suites = aes.to_vec();
    // Without instructions for AES the other cipher is several times faster, and runs in constant time.
    let at = if has_aes() { cipher_suites.len() } else { 0 };
    cipher_suites.insert(at, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256);
    let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    Arc::new(CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() })
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}
