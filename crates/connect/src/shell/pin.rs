use std::sync::{Arc, OnceLock};

use kith_identity::{Fingerprint, tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// Accepts one peer only, and does so before this node shows its own certificate: who answers in the target's place
/// does not learn who asked.
#[derive(Debug)]
pub(super) struct Pin {
    target: Fingerprint,
    found: OnceLock<Fingerprint>,
}

impl Pin {
    /// `template`, which may verify however it likes, for `target` alone; the pin tells afterwards who was there.
    pub(super) fn to(target: Fingerprint, template: &ClientConfig) -> (ClientConfig, Arc<Pin>) {
        let pin = Arc::new(Pin { target, found: OnceLock::new() });
        let mut config = template.clone();
        config.dangerous().set_certificate_verifier(Arc::clone(&pin) as Arc<dyn ServerCertVerifier>);
        (config, pin)
    }

    /// Who proved to be there instead of the target.
    pub(super) fn somebody_else(&self) -> Option<Fingerprint> {
        self.found.get().filter(|found| **found != self.target).copied()
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Whose key it is counts once possession is proved, so that a wrong peer is named only if it is real.
        tls::named_key(end_entity).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = tls::proven_key(message, cert, dss)?;
        let found = *self.found.get_or_init(|| key.fingerprint());
        if found == self.target {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
