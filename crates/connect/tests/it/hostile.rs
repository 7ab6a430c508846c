use std::sync::Arc;

use kith_connect::relay::Quota;
use kith_connect::relay::serving::Regard;
use kith_connect::{Admission, Config, ConnectError, Via};
use kith_identity::{Transport, tls};
use kith_sansio::Span;
use noq::crypto::rustls::QuicClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::nodes::{ECHO, Node, echoes, friends, impatient, on_loopback, soon};

/// A target with short limits, and a friend of it.
async fn target(config: Config) -> (Node, Node) {
    let (target, friend) = (Node::with(config).await, Node::new().await);
    target.book.add(&friend);
    friend.book.add(&target);
    friend.meet(&target);
    target.echo(Admission::Contacts);
    (target, friend)
}

async fn works(target: &Node, friend: &Node) {
    for via in [Via::Tcp, Via::Quic] {
        let stream = soon(friend.endpoint.connect_with(&target.fingerprint(), &ECHO, via)).await.unwrap();
        echoes(stream, b"all is well").await;
    }
}

/// The handshake alone, by hand, as a node that `target` knows.
async fn handshake(target: &Node, own: &Node) -> TlsStream<TcpStream> {
    let certificate = tls::Certificate::self_signed(&own.identity).unwrap();
    let connector = TlsConnector::from(Arc::new(tls::node_client(&certificate).unwrap()));
    let stream = TcpStream::connect(target.at(Transport::Tcp)).await.unwrap();
    connector.connect(ServerName::try_from(tls::SERVER_NAME).unwrap(), stream).await.unwrap()
}

/// All bytes until the other side ends the connection, in whatever way.
async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n) = soon(stream.read(&mut buffer)).await
        && n > 0
    {
        all.extend_from_slice(&buffer[..n]);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stalls_in_the_handshake_is_put_out() {
    let (target, friend) = target(impatient()).await;
    let mut silent = TcpStream::connect(target.at(Transport::Tcp)).await.unwrap();
    assert_eq!(until_closed(&mut silent).await, b"");
    let mut half = TcpStream::connect(target.at(Transport::Tcp)).await.unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    assert_eq!(until_closed(&mut half).await, b"");
    works(&target, &friend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_sends_half_a_hello_is_put_out() {
    let (target, friend) = target(impatient()).await;
    for half in [&b""[..], b"\x0b", b"\x0btest-ec"] {
        let mut stream = handshake(&target, &friend).await;
        stream.write_all(half).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(until_closed(&mut stream).await, b"");
    }
    works(&target, &friend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_is_none_gets_the_one_refusal() {
    let (target, friend) = target(impatient()).await;
    for wrong in [&b"\x00"[..], b"\xff", b"\x05SEND/", b"\x06send/9", b"\x04\xff\xff\xff\xff"] {
        let mut stream = handshake(&target, &friend).await;
        stream.write_all(wrong).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(until_closed(&mut stream).await, [0], "{wrong:?}");
    }
    works(&target, &friend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_instead_of_tls_and_quic_does_no_harm() {
    let (target, friend) = target(impatient()).await;
    let mut noise = TcpStream::connect(target.at(Transport::Tcp)).await.unwrap();
    noise.write_all(&[0x5a; 5000]).await.unwrap();
    until_closed(&mut noise).await;
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 20, 1200, 9000] {
        udp.send_to(&vec![0xc3; length], target.at(Transport::Quic)).await.unwrap();
    }
    works(&target, &friend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_is_bounded_and_passes() {
    let config = Config { max_half_open_per_source: 4, ..impatient() };
    let (target, friend) = target(config).await;
    let mut flood = Vec::new();
    for _ in 0..100 {
        flood.push(TcpStream::connect(target.at(Transport::Tcp)).await.unwrap());
    }
    for stream in &mut flood {
        assert_eq!(until_closed(stream).await, b"");
    }
    works(&target, &friend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quic_connection_that_asks_for_nothing_is_closed() {
    let (target, friend) = target(impatient()).await;
    let certificate = tls::Certificate::self_signed(&friend.identity).unwrap();
    let crypto = QuicClientConfig::try_from(tls::node_client(&certificate).unwrap()).unwrap();
    let client = noq::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = noq::ClientConfig::new(Arc::new(crypto));
    let connecting =
        client.connect_with(config.clone(), target.at(Transport::Quic), tls::SERVER_NAME).unwrap();
    let connection = soon(connecting).await.unwrap();
    assert!(matches!(soon(connection.closed()).await, noq::ConnectionError::ApplicationClosed(_)));
    // As is one that opens a stream and stops in the middle of its hello.
    let connecting = client.connect_with(config, target.at(Transport::Quic), tls::SERVER_NAME).unwrap();
    let connection = soon(connecting).await.unwrap();
    let (mut send, _recv) = soon(connection.open_bi()).await.unwrap();
    send.write_all(b"\x0btest").await.unwrap();
    assert!(matches!(soon(connection.closed()).await, noq::ConnectionError::ApplicationClosed(_)));
    works(&target, &friend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_closes_in_the_middle_ends_its_stream_and_no_other() {
    let (one, two) = friends().await;
    let third = Node::new().await;
    two.book.add(&third);
    third.meet(&two);
    let protocol = kith_connect::Protocol::new("watch/1");
    let mut incoming = two.endpoint.listen(protocol.clone(), Admission::Contacts).unwrap();
    let kept = soon(third.endpoint.connect(&two.fingerprint(), &ECHO)).await.unwrap();
    for via in [Via::Tcp, Via::Quic] {
        let mut stream = soon(one.endpoint.connect_with(&two.fingerprint(), &protocol, via)).await.unwrap();
        let (_, mut end) = soon(incoming.next()).await.unwrap();
        stream.write_all(b"first half").await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        let seen = until_closed(&mut end).await;
        assert!(b"first half".starts_with(&seen[..]));
    }
    echoes(kept, b"unmoved").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_strangers_are_bounded_where_anyone_is_let_in() {
    let each = Config { max_strangers_per_source: 2, ..on_loopback() };
    let together = Config { max_strangers: 2, max_quic_strangers: 2, ..on_loopback() };
    for (config, via) in
        [(&each, Via::Tcp), (&each, Via::Quic), (&together, Via::Tcp), (&together, Via::Quic)]
    {
        let target = Node::with(config.clone()).await;
        target.echo(Admission::Anyone);
        let mut open = Vec::new();
        for at in 0..6 {
            let stranger = Node::new().await;
            stranger.meet(&target);
            match soon(stranger.endpoint.connect_with(&target.fingerprint(), &ECHO, via)).await {
                Ok(stream) if at < 2 => open.push((stranger, stream)),
                Err(ConnectError::Refused { .. }) if at >= 2 => {}
                other => panic!("{via:?}, {at}: {other:?}"),
            }
        }
        let friend = Node::new().await;
        target.book.add(&friend);
        friend.meet(&target);
        let stream = soon(friend.endpoint.connect_with(&target.fingerprint(), &ECHO, via)).await.unwrap();
        echoes(stream, b"no stranger").await;
        drop(open);
        let stranger = Node::new().await;
        stranger.meet(&target);
        let again = async {
            while stranger.endpoint.connect_with(&target.fingerprint(), &ECHO, via).await.is_err() {}
        };
        soon(again).await;
    }
}

/// A relay looks at the first byte before anything else; that takes none of the time for the rest away, nor adds any.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_with_a_relay_has_one_deadline() {
    let patience = Span::secs(4);
    let relay = Node::with(Config { handshake_timeout: patience, ..on_loopback() }).await;
    let _relaying = relay.endpoint.relay(Quota::default(), |_| Regard::Stranger).unwrap();
    let mut halting = TcpStream::connect(relay.at(Transport::Tcp)).await.unwrap();
    tokio::time::sleep(Span(patience.0 / 2).into()).await;
    let mut silent = TcpStream::connect(relay.at(Transport::Tcp)).await.unwrap();
    tokio::time::sleep(Span(patience.0 / 4).into()).await;
    // A handshake of TLS begins so.
    halting.write_all(&[0x16]).await.unwrap();
    // With a time for each step it would end after the one that came later.
    let (mut one, mut two) = ([0; 9], [0; 9]);
    let first = async {
        tokio::select! {
            biased;
            ended = halting.read(&mut one) => ("halting", ended),
            ended = silent.read(&mut two) => ("silent", ended),
        }
    };
    assert!(matches!(soon(first).await, ("halting", Ok(0) | Err(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_with_one_peer_are_bounded() {
    let config = Config { max_streams_per_peer: 3, ..impatient() };
    let (target, friend) = target(config).await;
    let mut open = Vec::new();
    for via in [Via::Tcp, Via::Quic, Via::Quic] {
        open.push(soon(friend.endpoint.connect_with(&target.fingerprint(), &ECHO, via)).await.unwrap());
    }
    for via in [Via::Tcp, Via::Quic] {
        let refused = soon(friend.endpoint.connect_with(&target.fingerprint(), &ECHO, via)).await;
        assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    }
    drop(open);
    soon(async {
        while friend.endpoint.connect_with(&target.fingerprint(), &ECHO, Via::Tcp).await.is_err() {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_answers_the_hello_is_given_up() {
    let (target, friend) = (Node::new().await, Node::with(impatient()).await);
    friend.book.add(&target);
    friend.meet(&target);
    target.book.add(&friend);
    // One place in the queue, taken; nobody takes from it.
    let config =
        Config { incoming_queue: 1, handshake_timeout: Span::secs(20), ..crate::nodes::on_loopback() };
    let busy = Node::reborn(Arc::clone(&target.identity), config).await;
    busy.book.add(&friend);
    friend.meet(&busy);
    let _incoming = busy.endpoint.listen(ECHO, Admission::Contacts).unwrap();
    let _first = soon(friend.endpoint.connect_with(&busy.fingerprint(), &ECHO, Via::Tcp)).await.unwrap();
    let second = soon(friend.endpoint.connect_with(&busy.fingerprint(), &ECHO, Via::Tcp)).await;
    assert!(matches!(second, Err(ConnectError::Lost { .. })), "{second:?}");
}
