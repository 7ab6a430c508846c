use std::sync::Arc;

use kith_connect::{Admission, Peer, Via};
use kith_identity::{Address, Transport, tls};
use rustls::NamedGroup;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::nodes::{ECHO, Node, Tape, echoes, friends, soon, udp_wiretap};

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_is_tls_13_with_a_post_quantum_key_exchange_and_no_tickets() {
    let (one, two) = friends().await;
    let certificate = tls::Certificate::self_signed(&one.identity).unwrap();
    let connector = TlsConnector::from(Arc::new(tls::node_client(&certificate).unwrap()));
    let tcp = TcpStream::connect(two.at(Transport::Tcp)).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from(tls::SERVER_NAME).unwrap(), tcp).await.unwrap();
    stream.write_all(b"\x0btest-echo/1").await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), 1);
    let connection = stream.get_ref().1;
    assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(connection.tls13_tickets_received(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_without_a_certificate_is_anonymous_and_admitted_only_where_anyone_is() {
    let (_, two) = friends().await;
    let anyone = kith_connect::Protocol::new("open/1");
    let mut incoming = two.endpoint.listen(anyone, Admission::Anyone).unwrap();
    for (hello, answer) in [(&b"\x0btest-echo/1"[..], 0), (b"\x06open/1", 1)] {
        let connector = TlsConnector::from(Arc::new(tls::node_client_anonymous().unwrap()));
        let tcp = TcpStream::connect(two.at(Transport::Tcp)).await.unwrap();
        let mut stream =
            connector.connect(ServerName::try_from(tls::SERVER_NAME).unwrap(), tcp).await.unwrap();
        stream.write_all(hello).await.unwrap();
        assert_eq!(soon(stream.read_u8()).await.unwrap(), answer);
    }
    assert_eq!(soon(incoming.next()).await.unwrap().0, Peer::Anonymous);
    assert!(two.book.knocks().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_shows_neither_protocol_nor_fingerprints_nor_keys() {
    let (one, two) = friends().await;
    let (tape, tcp) = tcp_wiretap(two.at(Transport::Tcp)).await;
    one.believe(&two.fingerprint(), vec![Address::new(Transport::Tcp, tcp)]);
    let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Tcp)).await.unwrap();
    echoes(stream, b"a secret between friends").await;
    assert_silent(&tape, &one, &two);

    let (tape, _proxy, udp) = udp_wiretap(two.at(Transport::Quic)).await;
    one.believe(&two.fingerprint(), vec![Address::new(Transport::Quic, udp)]);
    let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    echoes(stream, b"a secret between friends").await;
    assert_silent(&tape, &one, &two);
}

/// Nothing on the tape tells who speaks about what.
fn assert_silent(tape: &Tape, one: &Node, two: &Node) {
    let tape = tape.lock().unwrap();
    assert!(tape.len() > 1000, "the tape has {} bytes", tape.len());
    let mut secrets: Vec<Vec<u8>> =
        vec![b"test-echo".to_vec(), b"a secret between friends".to_vec(), b"sha3-256".to_vec()];
    for node in [one, two] {
        for bytes in [node.fingerprint().as_bytes(), node.identity.public().as_bytes()] {
            secrets.push(bytes.to_vec());
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            secrets.push(hex.to_uppercase().into_bytes());
            secrets.push(hex.into_bytes());
            // The first 40 characters of base64: without padding, and enough.
            secrets.push(base64(bytes, b'+', b'/'));
            secrets.push(base64(bytes, b'-', b'_'));
        }
    }
    for secret in &secrets {
        let shown = tape.windows(secret.len()).any(|window| window == &secret[..]);
        assert!(!shown, "{} is in the capture", String::from_utf8_lossy(secret));
    }
}

fn base64(bytes: &[u8], plus: u8, slash: u8) -> Vec<u8> {
    let mut alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    alphabet.extend([plus, slash]);
    let digits = bytes.chunks_exact(3).flat_map(|three| {
        let number = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        [18, 12, 6, 0].map(|shift| alphabet[(number >> shift & 63) as usize])
    });
    digits.collect()
}

/// A TCP proxy in front of `to` that records both directions.
async fn tcp_wiretap(to: std::net::SocketAddr) -> (Tape, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tape, at) = (Tape::default(), listener.local_addr().unwrap());
    let recording = Arc::clone(&tape);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::spawn(record(near_read, far_write, Arc::clone(&recording)));
            tokio::spawn(record(far_read, near_write, Arc::clone(&recording)));
        }
    });
    (tape, at)
}

async fn record(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, tape: Tape) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n) = from.read(&mut buffer).await
        && n > 0
    {
        tape.lock().unwrap().extend_from_slice(&buffer[..n]);
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
