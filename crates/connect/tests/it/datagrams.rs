//! Datagrams over real sockets: what arrives, what is dropped, and peers that mean harm.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use kith_connect::{
    Admission, ConnectError, DatagramError, Datagrams, Incoming, Peer, Protocol, Via, defaults,
};
use kith_identity::{Transport, tls};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::nodes::{ECHO, Node, echoes, friends, soon};

pub(crate) const TUN: Protocol = Protocol::new("test-datagrams/1");
const VIAS: [Via; 2] = [Via::Quic, Via::Tcp];

struct Pair {
    one: Node,
    two: Node,
    near: Datagrams,
    far: Datagrams,
    incoming: Incoming<Datagrams>,
}

async fn pair(via: Via) -> Pair {
    let (one, two) = friends().await;
    let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let (near, far) = open(&one, &two, &mut incoming, via).await;
    Pair { one, two, near, far, incoming }
}

pub(crate) async fn open(
    one: &Node,
    two: &Node,
    incoming: &mut Incoming<Datagrams>,
    via: Via,
) -> (Datagrams, Datagrams) {
    let near = soon(one.endpoint.connect_datagrams_with(&two.fingerprint(), &TUN, via)).await.unwrap();
    let (peer, far) = soon(incoming.next()).await.unwrap();
    assert_eq!(peer, Peer::Known(one.fingerprint()));
    (near, far)
}

/// Sends until something of it has arrived, since anything may get lost.
pub(crate) async fn arrives(from: &Datagrams, to: &Datagrams, datagram: &[u8]) {
    let sending = async {
        loop {
            from.send(datagram).unwrap();
            tokio::task::yield_now().await;
        }
    };
    let receiving = async { while to.recv().await.unwrap() != datagram {} };
    soon(async {
        tokio::select! { () = sending => {}, () = receiving => {} }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_arrive_whole_in_both_directions() {
    for via in VIAS {
        let Pair { near, far, two, one: _one, .. } = pair(via).await;
        assert_eq!(near.peer(), Peer::Known(two.fingerprint()));
        assert_eq!(near.path().transport, if via == Via::Tcp { Transport::Tcp } else { Transport::Quic });
        for bytes in [0, 1, 1000] {
            arrives(&near, &far, &vec![7; bytes]).await;
            arrives(&far, &near, &vec![8; bytes]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waits_for_room_arrives_whole_over_tcp() {
    let Pair { near, far, one: _one, two: _two, .. } = pair(Via::Tcp).await;
    // Several times what the backlog holds.
    let sent: Vec<Vec<u8>> =
        (0..2000_u32).map(|number| [&number.to_be_bytes()[..], &[0; 1000]].concat()).collect();
    let sending = async { near.send_all(sent.iter().map(Vec::as_slice)).await.unwrap() };
    let receiving = async {
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let most = sent.len() - received.len();
            let count = far.recv_many(&mut received, most.min(33)).await.unwrap();
            assert!((1..=33).contains(&count));
        }
        received
    };
    let (count, received) = soon(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(count, sent.len());
    assert!(received == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waits_for_room_is_not_dropped_here_over_quic() {
    let Pair { near, far, one: _one, two: _two, .. } = pair(Via::Quic).await;
    let datagram = [5; 1000];
    let sending = async { near.send_all((0..2000).map(|_| &datagram[..])).await.unwrap() };
    let receiving = async {
        // What the system drops under load is lost, so the number is not exact.
        let mut received = Vec::new();
        while received.len() < 500 {
            far.recv_many(&mut received, 64).await.unwrap();
        }
    };
    let (count, ()) = soon(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(count, 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_datagram_is_refused_and_the_largest_goes_through() {
    for via in VIAS {
        let Pair { near, far, one: _one, two: _two, .. } = pair(via).await;
        let most = near.max_size();
        assert!(most >= 1000, "{most}");
        let larger = vec![1; 1 << 16];
        match near.send(&larger) {
            Err(DatagramError::TooLarge { bytes, most }) => assert!(bytes == larger.len() && most < bytes),
            other => panic!("{via:?}: {other:?}"),
        }
        assert_eq!(near.send_many([&larger[..], b"fits", &larger[..]]), Ok(1));
        assert_eq!(soon(near.send_all([&larger[..], b"fits"])).await, Ok(1));
        arrives(&near, &far, &vec![2; most]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_size_grows_with_what_the_path_carries() {
    let Pair { near, far, one: _one, two: _two, .. } = pair(Via::Quic).await;
    // Loopback carries far more than the first packets dare.
    soon(async {
        while near.max_size() < 10_000 {
            near.send(b"probe").unwrap();
            far.recv().await.unwrap();
        }
    })
    .await;
    arrives(&near, &far, &vec![3; 10_000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_several_flows_share_a_connection_and_do_not_mix() {
    let Pair { one, two, near, far, mut incoming } = pair(Via::Quic).await;
    let (other_near, other_far) = open(&one, &two, &mut incoming, Via::Quic).await;
    assert_eq!(one.endpoint.paths(&two.fingerprint()).len(), 1);
    let ends = [(&near, &far, b"first"), (&other_near, &other_far, b"other")];
    let exchanges = ends.map(|(near, far, word)| async move {
        for _ in 0..20 {
            near.send(word).unwrap();
            assert_eq!(&far.recv().await.unwrap()[..], word);
        }
    });
    soon(futures_util::future::join_all(exchanges)).await;
    let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    echoes(stream, b"between them").await;
    drop(near);
    assert_eq!(soon(far.recv()).await, Err(DatagramError::Ended));
    arrives(&other_near, &other_far, b"still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_may_open_datagrams_over_the_connection_that_reached_it() {
    let (one, two) = friends().await;
    let mut incoming = one.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    echoes(stream, b"opened").await;
    two.believe(&one.fingerprint(), Vec::new());
    let (near, far) = open(&two, &one, &mut incoming, Via::Any).await;
    arrives(&near, &far, b"through the door that is open").await;
    arrives(&far, &near, b"and back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_hears_of_the_end() {
    for via in VIAS {
        let Pair { near, far, mut incoming, one, two } = pair(via).await;
        drop(far);
        assert_eq!(soon(near.recv()).await, Err(DatagramError::Ended), "{via:?}");
        assert_eq!(near.send(b"x"), Err(DatagramError::Ended));
        let (near, far) = open(&one, &two, &mut incoming, via).await;
        drop(near);
        assert_eq!(soon(far.recv()).await, Err(DatagramError::Ended), "{via:?}");
        let (_near, far) = open(&one, &two, &mut incoming, via).await;
        soon(one.endpoint.close()).await;
        assert_eq!(soon(far.recv()).await, Err(DatagramError::Ended), "{via:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_datagrams_and_neither_does_a_protocol_of_streams() {
    let (stranger, target) = (Node::new().await, Node::new().await);
    stranger.book.add(&target);
    stranger.meet(&target);
    target.echo(Admission::Contacts);
    let _incoming = target.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    for via in VIAS {
        let refused = soon(stranger.endpoint.connect_datagrams_with(&target.fingerprint(), &TUN, via)).await;
        assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    }
    assert_eq!(target.book.knocks(), [stranger.fingerprint()]);
    target.book.add(&stranger);
    for via in VIAS {
        let refused = soon(stranger.endpoint.connect_datagrams_with(&target.fingerprint(), &ECHO, via)).await;
        assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
        let refused = soon(stranger.endpoint.connect_with(&target.fingerprint(), &TUN, via)).await;
        assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
        soon(stranger.endpoint.connect_datagrams_with(&target.fingerprint(), &TUN, via)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_listened_for_once_for_datagrams_and_once_for_streams() {
    let node = Node::new().await;
    let datagrams = node.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    assert!(node.endpoint.listen_datagrams(TUN, Admission::Contacts).is_err());
    let _streams = node.endpoint.listen(TUN, Admission::Contacts).unwrap();
    drop(datagrams);
    node.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_withdrawn_by_either_side_ends_datagrams_within_a_second() {
    for via in VIAS {
        for initiator_withdraws in [true, false] {
            let Pair { one, two, near, far, .. } = pair(via).await;
            let datagram = [0; 900];
            // One waits to receive, the other for room that never comes over TCP, since nobody reads.
            let full = async { while near.send_all((0..100).map(|_| &datagram[..])).await.is_ok() {} };
            let quiet = async { while near.recv().await.is_ok() {} };
            let both = async { tokio::join!(full, quiet, async { while far.recv().await.is_ok() {} }) };
            let withdrawing = async {
                if initiator_withdraws {
                    one.book.remove(&two);
                } else {
                    two.book.remove(&one);
                }
            };
            let ends = Box::pin(async { tokio::join!(both, withdrawing) });
            tokio::time::timeout(std::time::Duration::from_secs(1), ends)
                .await
                .expect("all ends within a second");
            let own = if initiator_withdraws { &near } else { &far };
            assert_eq!(own.send(b"x"), Err(DatagramError::Cut), "{via:?}");
            assert_eq!(soon(own.recv()).await, Err(DatagramError::Cut), "{via:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_floods_a_peer_that_does_not_read_loses_the_oldest_and_fills_no_memory() {
    for via in VIAS {
        let Pair { one, two, near, far, .. } = pair(via).await;
        let (rounds, datagram) = (40_u8, [0; 1000]);
        for round in 0..rounds {
            let marked = [&[round][..], &datagram[1..]].concat();
            assert_eq!(near.send_many((0..1000).map(|_| &marked[..])), Ok(1000));
        }
        // 40 MB were sent; what the other end finds is what both backlogs and the system's own hold. The last of it is
        // there, since the oldest made room.
        let mut seen = Vec::new();
        soon(async {
            while seen.last().is_none_or(|last: &Bytes| last[0] != rounds - 1) {
                far.recv_many(&mut seen, 1).await.unwrap();
            }
        })
        .await;
        let rounds_seen: HashSet<u8> = seen.iter().map(|one| one[0]).collect();
        assert!(seen.len() < 39_000, "{via:?}: {} of 40000, {} rounds", seen.len(), rounds_seen.len());
        let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        echoes(stream, b"all is well").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_sends_waits_in_little_memory() {
    let (stranger, target) = (Node::new().await, Node::new().await);
    stranger.book.add(&target);
    stranger.meet(&target);
    target.echo(Admission::Anyone);
    let mut incoming = target.endpoint.listen_datagrams(TUN, Admission::Anyone).unwrap();
    let (near, far) = open(&stranger, &target, &mut incoming, Via::Quic).await;
    let datagram = [0; 1000];
    assert_eq!(soon(near.send_all((0..2000).map(|_| &datagram[..]))).await, Ok(2000));
    // All that could be sent before this has arrived when it comes back.
    for _ in 0..3 {
        let stream = soon(stranger.endpoint.connect_with(&target.fingerprint(), &ECHO, Via::Quic)).await;
        echoes(stream.unwrap(), b"meanwhile").await;
    }
    let mut waited = Vec::new();
    soon(far.recv_many(&mut waited, usize::MAX)).await.unwrap();
    let bytes: usize = waited.iter().map(Bytes::len).sum();
    assert!((1..=defaults::STRANGER_DATAGRAM_BYTES).contains(&bytes), "{bytes}");
}

/// What asks for datagrams.
fn hello() -> Vec<u8> {
    let length = u8::try_from(TUN.as_str().len()).unwrap();
    [&[length | 0x80], TUN.as_str().as_bytes()].concat()
}

/// TLS by hand, as a node that `target` knows, with the hello for datagrams said and answered.
async fn by_hand(target: &Node, own: &Node) -> TlsStream<TcpStream> {
    let certificate = tls::Certificate::self_signed(&own.identity).unwrap();
    let connector = TlsConnector::from(Arc::new(tls::node_client(&certificate).unwrap()));
    let stream = TcpStream::connect(target.at(Transport::Tcp)).await.unwrap();
    let mut stream =
        connector.connect(ServerName::try_from(tls::SERVER_NAME).unwrap(), stream).await.unwrap();
    stream.write_all(&hello()).await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), 1);
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_frame_is_the_end_of_its_sender_alone() {
    let (one, two) = friends().await;
    let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let mut stream = by_hand(&two, &one).await;
    let (_, far) = soon(incoming.next()).await.unwrap();
    stream.write_all(b"\x00\x05hello\x00\x00\xff\xffonly so much").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(soon(far.recv()).await.unwrap(), "hello");
    assert_eq!(soon(far.recv()).await.unwrap(), "");
    assert_eq!(soon(far.recv()).await, Err(DatagramError::Ended));
    let (near, far) = open(&one, &two, &mut incoming, Via::Tcp).await;
    arrives(&near, &far, b"all is well").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_that_belong_to_nothing_harm_nobody() {
    use noq::crypto::rustls::QuicClientConfig;
    let (one, two) = friends().await;
    let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let certificate = tls::Certificate::self_signed(&one.identity).unwrap();
    let crypto = QuicClientConfig::try_from(tls::node_client(&certificate).unwrap()).unwrap();
    let raw = noq::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = noq::ClientConfig::new(Arc::new(crypto));
    let connection =
        soon(raw.connect_with(config, two.at(Transport::Quic), tls::SERVER_NAME).unwrap()).await.unwrap();
    // Before anything is admitted, and many times what may wait.
    let junk = Bytes::from(vec![0x3f; 1000]);
    for _ in 0..4 * defaults::DATAGRAM_ARRIVAL_BYTES / junk.len() {
        soon(connection.send_datagram_wait(junk.clone())).await.unwrap();
    }
    let (mut send, mut recv) = soon(connection.open_bi()).await.unwrap();
    send.write_all(&hello()).await.unwrap();
    let mut answer = [0];
    soon(recv.read_exact(&mut answer)).await.unwrap();
    let (_, far) = soon(incoming.next()).await.unwrap();
    // No flow, another flow, a flow in a longer form than it has; then the right one.
    for datagram in [&b""[..], b"\x3fx", b"\x40\x00x", b"\xc0x", b"\x00right"] {
        soon(connection.send_datagram_wait(Bytes::copy_from_slice(datagram))).await.unwrap();
    }
    assert_eq!(soon(far.recv()).await.unwrap(), "right");
    // Whatever comes on the stream of a flow is its end.
    send.write_all(b"?").await.unwrap();
    assert_eq!(soon(far.recv()).await, Err(DatagramError::Ended));
}
