use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use crate::{Fingerprint, PublicKey};

/// The key of a peer whose handshake is done, from the certificates that it presented; `None` where it presented
/// none. The handshake has proven that the peer has the key.
pub fn peer_key(certificates: Option<&[CertificateDer<'_>]>) -> Result<Option<PublicKey>, TlsError> {
    certificates.and_then(<[_]>::first).map(key_of).transpose()
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, TlsError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::BadCertificate)?;
    if !rest.is_empty() {
        return Err(TlsError::BadCertificate);
    }
    Ok(PublicKey::from_spki(parsed.tbs_certificate.subject_pki.raw)?)
}

fn refused(error: &TlsError) -> Error {
    Error::InvalidCertificate(match error {
        TlsError::BadCertificate => CertificateError::BadEncoding,
        _ => CertificateError::ApplicationVerificationFailure,
    })
}

/// Accepts any certificate with a usable Ed25519 key, and demands the signature that proves possession. Where a
/// fingerprint is pinned, only the key with that fingerprint.
#[derive(Debug)]
pub(super) struct Possession {
    pub(super) pin: Option<Fingerprint>,
}

impl Possession {
    fn certificate(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let key = named_key(certificate)?;
        match self.pin {
            Some(pin) if pin != key.fingerprint() => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(()),
        }
    }
}

/// The key whose possession a TLS 1.3 handshake proves: `signed` is its holder's signature over `message`, the
/// transcript. What every verifier of a peer's certificate comes down to.
pub fn proven_key(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<PublicKey, Error> {
    if signed.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let key = named_key(certificate)?;
    key.verify(message, signed.signature())
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadSignature))?;
    Ok(key)
}

/// The key that a certificate names, before possession of it is proven.
pub fn named_key(certificate: &CertificateDer<'_>) -> Result<PublicKey, Error> {
    key_of(certificate).map_err(|error| refused(&error))
}

/// Never called, because TLS 1.2 is not compiled into any configuration; refuses all the same.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

impl ServerCertVerifier for Possession {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.certificate(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proven_key(message, certificate, signed).map(|_| HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.certificate(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proven_key(message, certificate, signed).map(|_| HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
