use std::sync::Arc;

use kith_identity::tls::{self, Certificate, ServerCertificate, TlsError, Trust};
use kith_identity::{Identity, KeyError, fuzz};
use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, Error, NamedGroup, ProtocolVersion,
    RootCertStore, ServerConfig, ServerConnection, SignatureAlgorithm, SignatureScheme,
};

use crate::support::identity;

fn certificate(seed: u64) -> Certificate {
    Certificate::self_signed(&identity(seed)).unwrap()
}

fn shovel(from: &mut Connection, to: &mut Connection) -> Result<bool, Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut left = &wire[..];
    while !left.is_empty() {
        to.read_tls(&mut left).unwrap();
        to.process_new_packets()?;
    }
    Ok(!wire.is_empty())
}

/// A whole handshake in memory; the error is the one of the side that refuses.
fn handshake_with(
    client: ClientConfig,
    server: ServerConfig,
    name: &'static str,
) -> Result<(Connection, Connection), Error> {
    let name = ServerName::try_from(name).unwrap();
    let mut client = Connection::Client(ClientConnection::new(Arc::new(client), name).unwrap());
    let mut server = Connection::Server(ServerConnection::new(Arc::new(server)).unwrap());
    loop {
        let sent = shovel(&mut client, &mut server)?;
        let answered = shovel(&mut server, &mut client)?;
        if !sent && !answered {
            assert!(!client.is_handshaking() && !server.is_handshaking());
            return Ok((client, server));
        }
    }
}

fn handshake(client: ClientConfig, server: ServerConfig) -> Result<(Connection, Connection), Error> {
    handshake_with(client, server, tls::SERVER_NAME)
}

fn refused(client: ClientConfig, server: ServerConfig) -> Error {
    handshake(client, server).map(drop).unwrap_err()
}

#[test]
fn two_nodes_see_each_others_keys_over_post_quantum_tls_without_tickets() {
    let client = tls::node_client(&certificate(1)).unwrap();
    let server = tls::node_server(&certificate(2)).unwrap();
    let (client, server) = handshake(client, server).unwrap();
    for side in [&client, &server] {
        assert_eq!(side.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(side.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
        assert_eq!(side.alpn_protocol(), Some(tls::ALPN));
    }
    assert_eq!(tls::peer_key(server.peer_certificates()).unwrap(), Some(identity(1).public()));
    assert_eq!(tls::peer_key(client.peer_certificates()).unwrap(), Some(identity(2).public()));
    match (client, server) {
        (Connection::Client(client), Connection::Server(server)) => {
            assert_eq!(client.tls13_tickets_received(), 0);
            assert_eq!(server.server_name(), Some(tls::SERVER_NAME));
        }
        _ => unreachable!(),
    }
}

#[test]
fn an_anonymous_client_is_nobody() {
    let client = tls::node_client_anonymous().unwrap();
    let server = tls::node_server(&certificate(2)).unwrap();
    let (client, server) = handshake(client, server).unwrap();
    assert_eq!(tls::peer_key(server.peer_certificates()), Ok(None));
    assert_eq!(tls::peer_key(client.peer_certificates()).unwrap(), Some(identity(2).public()));
}

#[test]
fn a_second_connection_is_a_whole_handshake_again() {
    let client = Arc::new(tls::node_client(&certificate(1)).unwrap());
    let server = Arc::new(tls::node_server(&certificate(2)).unwrap());
    for _ in 0..2 {
        let (client, _) = handshake((*client).clone(), (*server).clone()).unwrap();
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn nothing_about_either_node_is_in_the_clients_first_flight() {
    let client = tls::node_client(&certificate(1)).unwrap();
    let name = ServerName::try_from(tls::SERVER_NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let contains = |part: &[u8]| hello.windows(part.len()).any(|window| window == part);
    assert!(contains(tls::SERVER_NAME.as_bytes()) && contains(tls::ALPN));
    assert!(!contains(identity(1).public().as_bytes()));
    assert!(!contains(&identity(1).fingerprint().as_bytes()[..8]));
}

#[test]
fn only_tls_1_3_suites_and_two_groups_are_offered() {
    let config = tls::node_client_anonymous().unwrap();
    let provider = config.crypto_provider();
    assert!(provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()));
    assert_eq!(provider.cipher_suites.len(), 3);
    let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
    assert_eq!(groups, [NamedGroup::X25519MLKEM768, NamedGroup::X25519]);
}

#[test]
fn the_certificate_holds_nothing_of_its_owner_but_the_key() {
    let (first, second) = (certificate(1), certificate(2));
    assert_eq!(first.der(), certificate(1).der());
    assert_eq!(first.fingerprint(), identity(1).fingerprint());
    // Key and signature are all that differs: 32 and 64 bytes.
    assert_eq!(first.der().len(), second.der().len());
    let strip = |certificate: &Certificate, identity: &Identity| {
        let der = certificate.der();
        let key = *identity.public().as_bytes();
        let at = der.windows(32).position(|window| window == key).unwrap();
        [&der[..at], &der[at + 32..der.len() - 64]].concat()
    };
    assert_eq!(strip(&first, &identity(1)), strip(&second, &identity(2)));
}

/// Claims one certificate and signs with another key, or with garbage.
#[derive(Clone)]
struct Liar(Option<Identity>);

impl std::fmt::Debug for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Liar")
    }
}

impl SigningKey for Liar {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Liar {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.as_ref().map_or(vec![0; 64], |identity| identity.sign(message).to_vec()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

fn lying(der: &[u8], signer: Option<Identity>) -> Arc<SingleCertAndKey> {
    let certificate = CertificateDer::from(der.to_vec());
    Arc::new(CertifiedKey::new(vec![certificate], Arc::new(Liar(signer))).into())
}

fn lying_client(der: &[u8], signer: Option<Identity>) -> ClientConfig {
    let mut client = tls::node_client(&certificate(1)).unwrap();
    client.client_auth_cert_resolver = lying(der, signer);
    client
}

fn lying_server(der: &[u8], signer: Option<Identity>) -> ServerConfig {
    let mut server = tls::node_server(&certificate(2)).unwrap();
    server.cert_resolver = lying(der, signer);
    server
}

#[test]
fn a_signature_by_another_key_fails() {
    let bad = Error::InvalidCertificate(CertificateError::BadSignature);
    for signer in [None, Some(identity(9))] {
        let honest = tls::node_server(&certificate(2)).unwrap();
        assert_eq!(refused(lying_client(certificate(1).der(), signer.clone()), honest), bad);
        let honest = tls::node_client(&certificate(1)).unwrap();
        assert_eq!(refused(honest, lying_server(certificate(2).der(), signer)), bad);
    }
    // The same construction with the right key passes: it is the signature that was refused.
    let honest = lying_client(certificate(1).der(), Some(identity(1)));
    assert!(handshake(honest, tls::node_server(&certificate(2)).unwrap()).is_ok());
}

#[test]
fn certificates_with_a_key_that_proves_nothing_are_refused() {
    let no = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    let p256 = rcgen::generate_simple_self_signed([tls::SERVER_NAME.to_owned()]).unwrap().cert.der().to_vec();
    let mut small_order = certificate(1).der().to_vec();
    let key = *identity(1).public().as_bytes();
    let at = small_order.windows(32).position(|window| window == key).unwrap();
    small_order[at..at + 32].fill(0);
    assert_eq!(tls::peer_key(Some(&[small_order[..].into()])), Err(TlsError::Key(KeyError::SmallOrder)));
    assert!(matches!(tls::peer_key(Some(&[p256[..].into()])), Err(TlsError::Key(KeyError::NotEd25519(_)))));
    for der in [&p256, &small_order] {
        assert_eq!(refused(lying_client(der, None), tls::node_server(&certificate(2)).unwrap()), no);
        assert_eq!(refused(tls::node_client(&certificate(1)).unwrap(), lying_server(der, None)), no);
    }
}

#[test]
fn what_is_no_certificate_is_refused() {
    let good = certificate(1).der().to_vec();
    let longer = [&good[..], &[0]].concat();
    for der in [&b""[..], b"x", &good[..good.len() - 1], &longer] {
        assert_eq!(tls::peer_key(Some(&[der.into()])), Err(TlsError::BadCertificate));
        let error = refused(lying_client(der, None), tls::node_server(&certificate(2)).unwrap());
        assert_eq!(error, Error::InvalidCertificate(CertificateError::BadEncoding));
    }
    assert_eq!(tls::peer_key(None), Ok(None));
    assert_eq!(tls::peer_key(Some(&[])), Ok(None));
}

#[test]
fn a_server_with_an_ordinary_key_does_not_pass_for_a_node() {
    let made = rcgen::generate_simple_self_signed([tls::SERVER_NAME.to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let web = ServerCertificate::Pem { chain: chain.as_bytes(), key: key.as_bytes() };
    let mut server = tls::directory_server(web).unwrap();
    server.alpn_protocols = vec![tls::ALPN.to_vec()];
    assert!(handshake(tls::node_client(&certificate(1)).unwrap(), server).is_err());
}

#[test]
fn a_directory_client_and_a_node_do_not_talk() {
    let trust = Trust::Pin(identity(2).fingerprint());
    let client = tls::directory_client(&trust, None).unwrap();
    let error = refused(client, tls::node_server(&certificate(2)).unwrap());
    assert_eq!(error, Error::NoApplicationProtocol);
}

#[test]
fn a_pinned_directory_is_accepted_and_no_other() {
    let server = || tls::directory_server(ServerCertificate::Own(&certificate(2))).unwrap();
    let own = certificate(1);
    let client = tls::directory_client(&Trust::Pin(identity(2).fingerprint()), Some(&own)).unwrap();
    let (client, other) = handshake_with(client, server(), "directory.example").unwrap();
    assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(tls::peer_key(other.peer_certificates()).unwrap(), Some(identity(1).public()));
    let client = tls::directory_client(&Trust::Pin(identity(3).fingerprint()), Some(&own)).unwrap();
    let error = handshake_with(client, server(), "directory.example").map(drop).unwrap_err();
    assert_eq!(error, Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
}

#[test]
fn a_public_directory_is_known_by_its_name_and_authority() {
    let made = rcgen::generate_simple_self_signed(["directory.example".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let web =
        || tls::directory_server(ServerCertificate::Pem { chain: chain.as_bytes(), key: key.as_bytes() });
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = |roots| tls::directory_client(&Trust::WebPki(Arc::new(roots)), None).unwrap();
    assert!(handshake_with(client(roots.clone()), web().unwrap(), "directory.example").is_ok());
    assert!(handshake_with(client(roots.clone()), web().unwrap(), "other.example").is_err());
    let own = tls::directory_server(ServerCertificate::Own(&certificate(2))).unwrap();
    assert!(handshake_with(client(roots), own, "directory.example").is_err());
}

#[test]
fn no_roots_and_unusable_pem_files_are_told() {
    let made = rcgen::generate_simple_self_signed(["directory.example".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["directory.example".to_owned()]).unwrap();
    let (chain, key, wrong) =
        (made.cert.pem(), made.signing_key.serialize_pem(), other.signing_key.serialize_pem());
    let huge = "x".repeat(2 << 20);
    for (chain, key) in
        [("", &key), ("x", &key), (&chain, &String::new()), (&key, &chain), (&chain, &wrong), (&huge, &key)]
    {
        let pem = ServerCertificate::Pem { chain: chain.as_bytes(), key: key.as_bytes() };
        assert!(matches!(tls::directory_server(pem), Err(TlsError::Pem(_))));
    }
    let empty = Trust::WebPki(Arc::new(RootCertStore::empty()));
    assert!(matches!(tls::directory_client(&empty, None), Err(TlsError::Config(_))));
}

proptest! {
    #[test]
    fn an_altered_certificate_is_refused_or_has_one_key(at: prop::sample::Index, bit in 0u8..8) {
        let mut der = certificate(1).der().to_vec();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        fuzz::fuzz_keys(&der);
        if let Ok(Some(key)) = tls::peer_key(Some(&[der[..].into()])) {
            let inside = der.windows(32).any(|window| window == key.as_bytes());
            prop_assert!(inside);
        }
    }
}
