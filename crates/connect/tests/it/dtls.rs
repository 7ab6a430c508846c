//! Datagrams over DTLS with real sockets: who is let in, what is lost on the way, and what strangers cost.

use std::net::SocketAddr;

use kith_connect::{
    Admission, Config, ConnectError, DatagramError, Datagrams, Failure, Incoming, Protocol, Via,
};
use kith_identity::{Address, Transport};
use tokio::net::UdpSocket;

use crate::datagrams::{self, TUN, arrives};
use crate::nodes::{ECHO, Node, on_loopback, soon};

fn with_dtls() -> Config {
    let mut config = on_loopback();
    config.listen.push("dtls://127.0.0.1:0".parse().unwrap());
    config
}

/// Two nodes that trust each other, the second one with DTLS; the first one knows it by `known` alone.
async fn friends(known: fn(&Address) -> bool) -> (Node, Node) {
    let (one, two) = (Node::new().await, Node::with(with_dtls()).await);
    one.book.add(&two);
    two.book.add(&one);
    believe(&one, &two, known);
    (one, two)
}

fn believe(one: &Node, two: &Node, known: fn(&Address) -> bool) {
    let addresses = two.endpoint.local_addresses();
    one.believe(&two.fingerprint(), addresses.into_iter().filter(known).collect());
}

fn dtls_of(node: &Node) -> SocketAddr {
    let addresses = node.endpoint.local_addresses();
    addresses.into_iter().find(|one| one.transport == Transport::Dtls).unwrap().socket
}

async fn open(one: &Node, two: &Node, incoming: &mut Incoming<Datagrams>) -> (Datagrams, Datagrams) {
    datagrams::open(one, two, incoming, Via::Dtls).await
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_arrive_whole_in_both_directions() {
    let (one, two) = friends(|_| true).await;
    let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let (near, far) = open(&one, &two, &mut incoming).await;
    assert_eq!((near.path().transport, near.path().remote), (Transport::Dtls, dtls_of(&two)));
    assert_eq!(far.path().transport, Transport::Dtls);
    assert_eq!(one.endpoint.paths(&two.fingerprint()), [near.path()]);
    // Loopback carries more than anything that is tried.
    for one in [&near, &far] {
        soon(async {
            while one.max_size() < 1449 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    for bytes in [0, 1, 1000, 1209, near.max_size()] {
        arrives(&near, &far, &vec![7; bytes]).await;
        arrives(&far, &near, &vec![8; bytes]).await;
    }
    let larger = vec![1; near.max_size() + 1];
    assert!(matches!(near.send(&larger), Err(DatagramError::TooLarge { .. })));
    assert_eq!(near.send_many([&larger[..], b"fits"]), Ok(1));
    assert_eq!(soon(near.send_all([&larger[..], b"fits"])).await, Ok(1));
    drop(near);
    assert_eq!(soon(async { while far.recv().await.is_ok() {} }).await, ());
    assert_eq!(far.recv().await, Err(DatagramError::Ended));
    assert!(one.endpoint.paths(&two.fingerprint()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_peers_share_a_port() {
    let two = Node::with(with_dtls()).await;
    let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let mut pairs = Vec::new();
    for number in 0..4_u8 {
        let one = Node::new().await;
        one.book.add(&two);
        two.book.add(&one);
        believe(&one, &two, |_| true);
        let (near, far) = open(&one, &two, &mut incoming).await;
        pairs.push((one, near, far, number));
    }
    for (_, near, far, number) in &pairs {
        arrives(near, far, &[*number; 5]).await;
        arrives(far, near, &[*number; 6]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dtls_is_taken_where_it_is_insisted_on_or_nothing_else_is_known() {
    let (one, two) = friends(|_| true).await;
    let _incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let any = soon(one.endpoint.connect_datagrams(&two.fingerprint(), &TUN)).await.unwrap();
    assert_ne!(any.path().transport, Transport::Dtls);
    drop(any);

    let (one, two) = friends(|known| known.transport == Transport::Dtls).await;
    let _incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let only = soon(one.endpoint.connect_datagrams(&two.fingerprint(), &TUN)).await.unwrap();
    assert_eq!(only.path().transport, Transport::Dtls);
    let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Dtls)).await;
    assert!(matches!(stream, Err(ConnectError::NotFound { .. })), "{stream:?}");

    let (one, two) = friends(|known| known.transport == Transport::Tcp).await;
    let other = soon(one.endpoint.connect_datagrams_with(&two.fingerprint(), &TUN, Via::Dtls)).await;
    assert!(matches!(other, Err(ConnectError::OtherTransport { .. })), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_of_quic_takes_dtls_while_it_is_told_to() {
    let mut config = on_loopback();
    config.pace.attempt_timeout = kith_sansio::Span::secs(2);
    let (one, two) = (Node::with(config).await, Node::new().await);
    one.book.add(&two);
    two.book.add(&one);
    believe(&one, &two, |known| known.transport == Transport::Quic);
    let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    two.echo(Admission::Contacts);
    let (target, tun) = (two.fingerprint(), TUN);
    let dial = || one.endpoint.connect_datagrams_with(&target, &tun, Via::Dtls);
    assert!(matches!(soon(dial()).await, Err(ConnectError::Unreachable { .. })));

    for _ in 0..2 {
        two.endpoint.accept_dtls(true).unwrap();
    }
    let (near, far) = open(&one, &two, &mut incoming).await;
    let quic = two.endpoint.local_addresses().into_iter().find(|one| one.transport == Transport::Quic);
    assert_eq!(near.path().remote, quic.unwrap().socket);
    arrives(&near, &far, b"there").await;
    arrives(&far, &near, b"and back").await;
    // QUIC goes on beside it.
    soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();

    two.endpoint.accept_dtls(false).unwrap();
    assert!(matches!(soon(dial()).await, Err(ConnectError::Unreachable { .. })));
    arrives(&near, &far, b"still").await;
    arrives(&far, &near, b"here").await;
    two.endpoint.accept_dtls(true).unwrap();
    let (near, far) = open(&one, &two, &mut incoming).await;
    arrives(&near, &far, b"again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dials_without_a_name_does_not_dial_dtls() {
    let (one, two) = friends(|_| true).await;
    let address = Address::new(Transport::Dtls, dtls_of(&two));
    let asked = soon(one.endpoint.connect_anonymous(&address, &two.fingerprint(), &ECHO)).await;
    let Err(ConnectError::Unreachable { tried, .. }) = asked else { panic!("{asked:?}") };
    assert_eq!(tried[0].failure, Failure::NotDialled);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_and_noted_and_the_wrong_peer_is_named() {
    let (stranger, target) = (Node::new().await, Node::with(with_dtls()).await);
    stranger.book.add(&target);
    believe(&stranger, &target, |_| true);
    let _incoming = target.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    for protocol in [TUN, Protocol::new("unknown/1")] {
        let refused =
            soon(stranger.endpoint.connect_datagrams_with(&target.fingerprint(), &protocol, Via::Dtls)).await;
        assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    }
    assert_eq!(target.book.knocks(), [stranger.fingerprint()]);

    let absent = Node::new().await;
    stranger.believe(&absent.fingerprint(), vec![Address::new(Transport::Dtls, dtls_of(&target))]);
    let wrong = soon(stranger.endpoint.connect_datagrams_with(&absent.fingerprint(), &TUN, Via::Dtls)).await;
    match wrong {
        Err(ConnectError::WrongPeer { found, .. }) => assert_eq!(found, target.fingerprint()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_told_at_once() {
    let (one, two) = friends(|_| false).await;
    let free = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    one.believe(&two.fingerprint(), vec![Address::new(Transport::Dtls, free)]);
    let failed = soon(one.endpoint.connect_datagrams_with(&two.fingerprint(), &TUN, Via::Dtls)).await;
    assert!(matches!(failed, Err(ConnectError::Unreachable { .. })), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_withdrawn_by_either_side_ends_datagrams_within_a_second() {
    for initiator_withdraws in [true, false] {
        let (one, two) = friends(|_| true).await;
        let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
        let (near, far) = open(&one, &two, &mut incoming).await;
        let ends = async {
            tokio::join!(
                async { while near.recv().await.is_ok() {} },
                async { while far.recv().await.is_ok() {} },
                async {
                    match initiator_withdraws {
                        true => one.book.remove(&two),
                        false => two.book.remove(&one),
                    }
                }
            )
        };
        tokio::time::timeout(std::time::Duration::from_secs(1), Box::pin(ends))
            .await
            .expect("all ends within a second");
        let own = if initiator_withdraws { &near } else { &far };
        assert_eq!(own.send(b"x"), Err(DatagramError::Cut));
        assert_eq!(soon(own.recv()).await, Err(DatagramError::Cut));
    }
}

/// A forwarder in front of `to` that loses the first packets of each direction, doubles others and swaps neighbours.
async fn bad_way(to: SocketAddr) -> (tokio::task::JoinHandle<()>, SocketAddr) {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(to).await.unwrap();
    let at = near.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut there, mut back) = ([0; 2048], [0; 2048]);
        let (mut client, mut number) = (None, [0_u32; 2]);
        let mut held: [Option<Vec<u8>>; 2] = [None, None];
        loop {
            let (way, packet) = tokio::select! {
                Ok((bytes, from)) = near.recv_from(&mut there) => {
                    client = Some(from);
                    (0, there[..bytes].to_vec())
                }
                Ok(bytes) = far.recv(&mut back) => (1, back[..bytes].to_vec()),
            };
            number[way] += 1;
            let out = match number[way] {
                1 | 4 => Vec::new(),
                2 | 6 => vec![packet.clone(), packet],
                3 => {
                    held[way] = Some(packet);
                    Vec::new()
                }
                _ => std::iter::once(packet).chain(held[way].take()).collect(),
            };
            for packet in out {
                match (way, client) {
                    (0, _) => drop(far.send(&packet).await),
                    (_, Some(client)) => drop(near.send_to(&packet, client).await),
                    _ => {}
                }
            }
        }
    });
    (task, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_lost_doubled_and_out_of_order_delay_a_handshake_and_no_more() {
    let mut config = on_loopback();
    config.pace.attempt_timeout = kith_sansio::Span::secs(20);
    config.pace.race_timeout = kith_sansio::Span::secs(25);
    let (one, two) = (Node::with(config).await, Node::with(with_dtls()).await);
    one.book.add(&two);
    two.book.add(&one);
    let (way, at) = bad_way(dtls_of(&two)).await;
    one.believe(&two.fingerprint(), vec![Address::new(Transport::Dtls, at)]);
    let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let (near, far) = open(&one, &two, &mut incoming).await;
    arrives(&near, &far, b"there").await;
    arrives(&far, &near, b"and back").await;
    way.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_from_many_sources_keeps_nobody_out() {
    let (one, two) = friends(|_| true).await;
    let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    // A ClientHello that offers nothing, from a thousand ports, and other things that are no handshake.
    let hello = [
        &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 62, 1, 0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 50][..],
        &[0; 50],
    ]
    .concat();
    for number in 0..1000_usize {
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let _ = stranger.send_to(&hello, dtls_of(&two)).await;
        let _ = stranger.send_to(&vec![number as u8; number], dtls_of(&two)).await;
    }
    let (near, far) = open(&one, &two, &mut incoming).await;
    arrives(&near, &far, b"all is well").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_starts_anew_is_let_in_again() {
    let (one, two) = friends(|_| true).await;
    let mut incoming = two.endpoint.listen_datagrams(TUN, Admission::Contacts).unwrap();
    let (near, far) = open(&one, &two, &mut incoming).await;
    arrives(&near, &far, b"first").await;
    one.endpoint.close().await;
    soon(async { while far.recv().await.is_ok() {} }).await;
    assert_eq!(near.send(b"x"), Err(DatagramError::Cut));
    let again = Node::new().await;
    again.book.add(&two);
    two.book.add(&again);
    believe(&again, &two, |_| true);
    let (near, far) = open(&again, &two, &mut incoming).await;
    arrives(&near, &far, b"again").await;
    // The port is free when the target has closed.
    let at = dtls_of(&two);
    two.endpoint.close().await;
    soon(async { while near.recv().await.is_ok() {} }).await;
    drop((two, far, incoming));
    soon(async {
        while UdpSocket::bind(at).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
