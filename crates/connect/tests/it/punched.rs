//! Peers that are reached over a relay by TCP alone, and then punch.

use std::time::Duration;

use kith_connect::direct::{Kind, Probe};
use kith_connect::relay::{Quota, Token};
use kith_connect::{Config, Exposing, Stream, Via};
use kith_identity::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::nodes::{ECHO, Node, echoes, soon};
use crate::relayed::{Relayer, expose};

/// A relay, a target that is exposed there, and an initiator who knows of no other way to it; none has UDP.
struct Scene {
    initiator: Node,
    target: Node,
    _relay: Relayer,
    _exposing: Exposing,
}

fn tcp_alone(seek_direct: bool) -> Config {
    Config { listen: vec!["tcp://127.0.0.1:0".parse().unwrap()], seek_direct, ..Config::default() }
}

impl Scene {
    async fn set(initiator: Config, target: Config) -> Scene {
        let relay = Relayer::with(Quota::default(), tcp_alone(true)).await;
        let (initiator, target) = (Node::with(initiator).await, Node::with(target).await);
        let exposing = expose(&initiator, &target, &[&relay]).await;
        Scene { initiator, target, _relay: relay, _exposing: exposing }
    }

    async fn stream(&self, via: Via) -> Stream {
        let stream =
            soon(self.initiator.endpoint.connect_with(&self.target.fingerprint(), &ECHO, via)).await.unwrap();
        assert_eq!(stream.path().transport, Transport::Tcp);
        stream
    }

    /// Waits until a way is found, or none is there any more.
    async fn has_way(&self, wanted: bool) {
        let there = self.target.fingerprint();
        soon(async {
            while self.initiator.endpoint.has_direct_way(&there, Via::Tcp) != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_relayed_stream_a_way_is_punched_over_tcp_for_what_is_opened_later() {
    for via in [Via::Any, Via::Bulk, Via::Tcp] {
        let scene = Scene::set(tcp_alone(true), tcp_alone(true)).await;
        let mut first = scene.stream(via).await;
        assert!(!first.path().direct && first.path().relay.is_some());
        scene.has_way(true).await;
        // One connection is there from the trial; each of the others is punched when it is wanted.
        for _ in 0..5 {
            scene.has_way(true).await;
            let later = scene.stream(via).await;
            assert!(later.path().direct && later.path().relay.is_none());
            echoes(later, &vec![7; 1 << 20]).await;
        }
        assert!(!first.path().direct, "what is open stays where it is");
        first.write_all(b"and goes on").await.unwrap();
        first.flush().await.unwrap();
        let mut back = [0; 11];
        soon(first.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"and goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_trusted_any_more_has_no_way() {
    let scene = Scene::set(tcp_alone(true), tcp_alone(true)).await;
    let _relayed = scene.stream(Via::Tcp).await;
    scene.has_way(true).await;
    let mut direct = scene.stream(Via::Tcp).await;
    assert!(direct.path().direct);
    scene.target.book.remove(&scene.initiator);
    assert!(!matches!(soon(direct.read(&mut [0])).await, Ok(1..)), "the stream is cut");
    drop(direct);
    scene.has_way(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_want_to_be_found_does_not_punch() {
    for (ours, theirs) in [(true, false), (false, true)] {
        let scene = Scene::set(tcp_alone(ours), tcp_alone(theirs)).await;
        for _ in 0..3 {
            let stream = scene.stream(Via::Tcp).await;
            assert!(!stream.path().direct);
            echoes(stream, b"over the relay").await;
        }
        assert!(!scene.initiator.endpoint.has_direct_way(&scene.target.fingerprint(), Via::Any));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_says_over_tcp_where_a_port_is_seen_and_nothing_to_anything_else() {
    let relay = Relayer::with(Quota::default(), tcp_alone(true)).await;
    let token = Token::from_bytes([7; 16]);
    for (kind, is_answered) in [(Kind::Observe, true), (Kind::Ask, false), (Kind::Answer, false)] {
        let mut socket = soon(TcpStream::connect(relay.node.at(Transport::Tcp))).await.unwrap();
        let own = socket.local_addr().unwrap();
        socket.write_all(&Probe { token, kind }.to_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Where bytes are left unread, the end is a reset.
        let _ended = soon(socket.read_to_end(&mut answer)).await;
        let seen = Probe { token, kind: Kind::Observed(own) }.to_bytes();
        assert_eq!(answer, if is_answered { &seen[..] } else { &[] });
    }
}
