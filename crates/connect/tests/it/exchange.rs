use kith_connect::dialer::Pace;
use kith_connect::{
    Admission, BindError, Config, ConnectError, Endpoint, Failure, ListenError, NoDiscovery, Peer, Protocol,
    Via,
};
use kith_identity::{Address, Fingerprint, Transport};
use kith_sansio::Span;
use std::io::IoSlice;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::nodes::{
    ECHO, Node, befriend, echoes, friends, friends_with, hesitant_udp_proxy, on_loopback, soon,
};

fn megabytes(n: usize) -> Vec<u8> {
    (0..n << 20).map(|at| (at.wrapping_mul(31) >> 3) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_over_each_transport() {
    // For much data QUIC is dialled where TCP takes too long, which it does on a busy machine.
    let pace = Pace { stagger: Span::secs(12), ..Pace::default() };
    let (one, two) = friends_with(Config { pace, ..on_loopback() }).await;
    for (via, transport) in
        [(Via::Tcp, Transport::Tcp), (Via::Quic, Transport::Quic), (Via::Bulk, Transport::Tcp)]
    {
        let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        assert_eq!(stream.peer(), Peer::Known(two.fingerprint()));
        assert_eq!(stream.path().transport, transport);
        assert_eq!(stream.path().remote, two.at(transport));
        assert!(
            one.endpoint.paths(&two.fingerprint()).contains(&stream.path()) || transport == Transport::Quic
        );
        echoes(stream, &megabytes(5)).await;
    }
    let any = soon(one.endpoint.connect(&two.fingerprint(), &ECHO)).await.unwrap();
    echoes(any, b"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gathered_writes_arrive_in_order() {
    let (one, two) = friends().await;
    for via in [Via::Tcp, Via::Quic] {
        let mut stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        assert!(tokio::io::AsyncWrite::is_write_vectored(&stream));
        let parts =
            [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"after "), IoSlice::new(b"another")];
        assert_eq!(soon(stream.write_vectored(&parts)).await.unwrap(), 17);
        stream.flush().await.unwrap();
        let mut back = [0; 17];
        soon(stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"one after another");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_quic_connection_serves_many_streams_in_both_directions() {
    // However long a busy machine takes to answer on the connection that is there.
    let patient = Config { pool_patience: Span::secs(12), ..on_loopback() };
    let (one, two) = befriend(Node::with(patient.clone()).await, Node::with(patient).await);
    one.echo(Admission::Contacts);
    let first = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    let second = soon(one.endpoint.connect(&two.fingerprint(), &ECHO)).await.unwrap();
    let back = soon(two.endpoint.connect(&one.fingerprint(), &ECHO)).await.unwrap();
    for node in [&one, &two] {
        let other = if node.fingerprint() == one.fingerprint() { &two } else { &one };
        let paths = node.endpoint.paths(&other.fingerprint());
        assert_eq!(paths.len(), 1, "{paths:?}");
        assert!(paths[0].direct && paths[0].rtt.is_some());
    }
    for stream in [first, second, back] {
        echoes(stream, b"all the same").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_closed_and_came_back_is_reached_again() {
    let (one, two) = friends().await;
    let before = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    let listen = two.endpoint.local_addresses();
    let identity = Arc::clone(&two.identity);
    two.endpoint.close().await;
    drop((before, two));
    let again = soon(async {
        loop {
            // The sockets of the old endpoint go when its last task has ended.
            let config = Config { listen: listen.clone(), ..Config::default() };
            let book = Arc::new(crate::nodes::Book::default());
            match Endpoint::bind(Arc::clone(&identity), book, Arc::new(NoDiscovery), config).await {
                Ok(endpoint) => break endpoint,
                Err(BindError::Taken { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    let mut incoming = again.listen(ECHO, Admission::Anyone).unwrap();
    let stream = soon(one.endpoint.connect_with(&again.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    let (peer, _other_end) = soon(incoming.next()).await.unwrap();
    assert_eq!(peer, Peer::Known(one.fingerprint()));
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nowhere_or_does_not_answer_is_told_apart() {
    let one = Node::new().await;
    let nobody = Fingerprint::from_bytes([3; 32]);
    match soon(one.endpoint.connect(&nobody, &ECHO)).await.unwrap_err() {
        ConnectError::NotFound { target, reasons } => {
            assert_eq!(target, nobody);
            assert_eq!(reasons, ["nobody told me"]);
        }
        other => panic!("{other}"),
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    one.believe(&nobody, vec![Address::new(Transport::Tcp, free), "tcp://224.0.0.1:7".parse().unwrap()]);
    match soon(one.endpoint.connect(&nobody, &ECHO)).await.unwrap_err() {
        ConnectError::Unreachable { tried, .. } => {
            assert_eq!(tried.len(), 2);
            assert!(tried.iter().any(|one| matches!(one.failure, Failure::Network(_))), "{tried:?}");
            assert!(tried.iter().any(|one| one.failure == Failure::NotDialled), "{tried:?}");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let one = Node::new().await;
    let taken = one.endpoint.local_addresses();
    for address in taken {
        let config = Config { listen: vec![address], ..Config::default() };
        let book = Arc::new(crate::nodes::Book::default());
        let result = Endpoint::bind(Arc::clone(&one.identity), book, Arc::new(NoDiscovery), config).await;
        match result.err() {
            Some(BindError::Taken { address: named }) => assert_eq!(named, address),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_has_one_listener_and_is_refused_without_one() {
    let (one, two) = friends().await;
    assert_eq!(two.endpoint.listen(ECHO, Admission::Anyone).err(), Some(ListenError::Taken(ECHO)));
    let other = Protocol::new("other/1");
    for via in [Via::Tcp, Via::Quic] {
        let refused = soon(one.endpoint.connect_with(&two.fingerprint(), &other, via)).await;
        assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    }
    let incoming = two.endpoint.listen(other.clone(), Admission::Contacts).unwrap();
    drop(incoming);
    let _again = two.endpoint.listen(other.clone(), Admission::Contacts).unwrap();
    soon(one.endpoint.connect(&two.fingerprint(), &other)).await.unwrap();
    // A contact that asks for what is not there is no stranger.
    assert!(two.book.knocks().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_arrives_late_is_none_the_less_one() {
    let (one, two) = friends().await;
    // By then the peer has closed the connection, forgotten it and said so.
    let at = hesitant_udp_proxy(&two).await;
    one.believe(&two.fingerprint(), vec![Address::new(Transport::Quic, at)]);
    let other = Protocol::new("other/1");
    let refused = soon(one.endpoint.connect_with(&two.fingerprint(), &other, Via::Quic)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_everything_at_both_ends() {
    let (one, two) = friends().await;
    let mut incoming = one.endpoint.listen(Protocol::new("never/1"), Admission::Anyone).unwrap();
    let mut streams = Vec::new();
    for via in [Via::Tcp, Via::Quic] {
        streams.push(soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap());
    }
    soon(two.endpoint.close()).await;
    for mut stream in streams {
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
    }
    soon(one.endpoint.close()).await;
    assert!(soon(incoming.next()).await.is_none());
    assert!(matches!(soon(one.endpoint.connect(&two.fingerprint(), &ECHO)).await, Err(ConnectError::Closed)));
    assert!(matches!(one.endpoint.listen(ECHO, Admission::Anyone), Err(ListenError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_is_spoken_where_it_is_there() {
    let listen = ["tcp://[::1]:0", "quic://[::1]:0"].map(|one| one.parse().unwrap()).to_vec();
    let config = Config { listen, ..on_loopback() };
    let book = Arc::new(crate::nodes::Book::default());
    let identity = Arc::new(kith_identity::Identity::generate(&mut kith_sansio::system::OsRng));
    if Endpoint::bind(identity, book, Arc::new(NoDiscovery), config.clone()).await.is_err() {
        return kith_vnet::unable("IPv6 on loopback");
    }
    let (one, two) = (Node::new().await, Node::with(config).await);
    two.echo(Admission::Anyone);
    one.meet(&two);
    for via in [Via::Tcp, Via::Quic] {
        let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        assert!(stream.path().remote.is_ipv6());
        echoes(stream, b"six").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_without_a_word_is_replaced_and_not_waited_for_twice() {
    let patience = Span::secs(3);
    let (one, two) = friends_with(Config { pool_patience: patience, ..on_loopback() }).await;
    let (proxy, at) = crate::nodes::udp_proxy(two.at(Transport::Quic)).await;
    one.believe(&two.fingerprint(), vec![Address::new(Transport::Quic, at)]);
    let before = soon(one.endpoint.connect(&two.fingerprint(), &ECHO)).await.unwrap();
    proxy.abort();
    let _ = proxy.await;
    one.believe(&two.fingerprint(), vec![Address::new(Transport::Tcp, two.at(Transport::Tcp))]);
    let after = soon(one.endpoint.connect(&two.fingerprint(), &ECHO)).await.unwrap();
    assert_eq!(after.path().transport, Transport::Tcp);
    // Nobody waits for the dead one again: it would take longer than this.
    let (target, work) = (two.fingerprint(), ECHO);
    let at_once = tokio::time::timeout(patience.into(), one.endpoint.connect(&target, &work)).await;
    let stream = at_once.expect("the dead one is passed over").unwrap();
    echoes(stream, b"alive").await;
    drop(before);
}
