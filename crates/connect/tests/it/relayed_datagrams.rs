//! Sessions over UDP at a relay, with both sides by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kith_connect::Relaying;
use kith_connect::relay::limits::TOKEN_LIFE;
use kith_connect::relay::message::{Pass, RELAY, length};
use kith_connect::relay::{Carriage, Message, Quota, Request};
use kith_connect::{Stream, Via};
use kith_sansio::system::{OsRng, time, utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use crate::nodes::{Node, regard, soon};

const JOINED: &[u8] = b"kith-rl1\x01";

async fn say(stream: &mut Stream, message: &Message) {
    stream.write_all(&message.to_frame()).await.unwrap();
    stream.flush().await.unwrap();
}

async fn hear(stream: &mut Stream) -> Message {
    let mut prefix = [0; 2];
    soon(stream.read_exact(&mut prefix)).await.unwrap();
    let mut body = vec![0; length(prefix).unwrap()];
    soon(stream.read_exact(&mut body)).await.unwrap();
    Message::from_cbor(&body).unwrap()
}

/// One side of a session.
struct Side {
    socket: UdpSocket,
    at: SocketAddr,
    shows: Vec<u8>,
}

impl Side {
    async fn new(pass: Pass) -> Side {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let shows = [&b"kith-rl1"[..], pass.token.as_bytes()].concat();
        Side { socket, at: SocketAddr::new([127, 0, 0, 1].into(), pass.port), shows }
    }

    async fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.at).await.unwrap();
    }

    async fn show(&self) {
        self.send(&self.shows).await;
    }

    /// What the other side sent; a token that was shown twice is answered twice.
    async fn hears(&self) -> Vec<u8> {
        loop {
            let heard = self.receives().await;
            if heard != JOINED {
                return heard;
            }
        }
    }

    async fn receives(&self) -> Vec<u8> {
        let mut bytes = vec![0; 2048];
        let (length, from) = soon(self.socket.recv_from(&mut bytes)).await.unwrap();
        assert_eq!(from, self.at);
        bytes.truncate(length);
        bytes
    }

    /// Shows the token until the other side is there.
    async fn join(&self) {
        loop {
            self.show().await;
            let answer = tokio::time::timeout(Duration::from_millis(200), self.receives()).await;
            if let Ok(answer) = answer {
                return assert_eq!(answer, JOINED);
            }
        }
    }
}

struct Scene {
    relay: Node,
    relaying: Relaying,
    _exposed: Stream,
    sides: [Side; 2],
}

/// A relay, and an initiator and a target with a token each.
async fn scene(quota: Quota) -> Scene {
    let agreed = Box::pin(agreed(quota, Carriage::Datagrams, false)).await;
    let [his, theirs] = agreed.passes;
    let sides = [Side::new(his).await, Side::new(theirs).await];
    Scene { relay: agreed.relay, relaying: agreed.relaying, _exposed: agreed.exposed, sides }
}

/// What a relay has told both sides.
struct Agreed {
    relay: Node,
    relaying: Relaying,
    exposed: Stream,
    passes: [Pass; 2],
}

/// As [`scene`], before anybody has shown his token; the relay knows the initiator or not.
async fn agreed(quota: Quota, carriage: Carriage, is_known: bool) -> Agreed {
    let (relay, target, initiator) = (Node::new().await, Node::new().await, Node::new().await);
    relay.book.add(&target);
    if is_known {
        relay.book.add(&initiator);
    }
    let book = Arc::clone(&relay.book);
    let relaying = relay.endpoint.relay(quota, move |peer| regard(&book, peer)).unwrap();
    target.meet(&relay);
    initiator.meet(&relay);
    let name = relay.fingerprint();
    let mut exposed = soon(target.endpoint.connect_with(&name, &RELAY, Via::Tcp)).await.unwrap();
    say(&mut exposed, &Message::Expose).await;
    assert_eq!(hear(&mut exposed).await, Message::Exposed);
    assert!(matches!(hear(&mut exposed).await, Message::Observed(_)));
    let mut asking = soon(initiator.endpoint.connect_with(&name, &RELAY, Via::Tcp)).await.unwrap();
    let there = target.fingerprint();
    let carriage = (carriage, Vec::new());
    let request = Request::sign(&initiator.identity, name, there, carriage, utc(), &mut OsRng);
    say(&mut asking, &Message::Request(Box::new(request))).await;
    assert!(matches!(hear(&mut asking).await, Message::Observed(_)));
    let Message::Knock(id, _) = hear(&mut exposed).await else { panic!("no knock") };
    say(&mut exposed, &Message::Admit(id)).await;
    let Message::Meet(_, theirs) = hear(&mut exposed).await else { panic!("no meeting") };
    let Message::Ack(his) = hear(&mut asking).await else { panic!("no token") };
    soon(async {
        while relaying.load().sessions == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    Agreed { relay, relaying, exposed, passes: [his, theirs] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_leaves_before_the_other_has_come_ends_the_session() {
    let began = time();
    let agreed = Box::pin(agreed(Quota::default(), Carriage::Stream, true)).await;
    for pass in agreed.passes {
        let at = SocketAddr::new([127, 0, 0, 1].into(), pass.port);
        let mut side = tokio::net::TcpStream::connect(at).await.unwrap();
        side.write_all(&[&b"kith-rl1"[..], pass.token.as_bytes()].concat()).await.unwrap();
        drop(side);
        soon(async {
            while agreed.relaying.load().sessions > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert!(time() - began < TOKEN_LIFE, "not only when the tokens are out of date");
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_go_unchanged_between_the_two_that_showed_their_tokens_and_nobody_else() {
    let scene = scene(Quota::default()).await;
    let [one, two] = &scene.sides;
    let third = Side { socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(), at: one.at, shows: vec![] };
    tokio::join!(one.join(), two.join());
    assert_eq!(scene.relaying.load().sessions, 1);
    // Whoever else knows the token, or an address, gets nothing through.
    third.send(&one.shows).await;
    third.send(b"from somebody else").await;
    for size in [1, 24, 1200, 1452] {
        let there: Vec<u8> = (0..size).map(|at: u32| (at * 7) as u8).collect();
        one.send(&there).await;
        assert_eq!(two.hears().await, there);
        two.send(&there).await;
        assert_eq!(one.hears().await, there);
    }
    // A token that is shown again is answered again, and does not go over.
    one.show().await;
    assert_eq!(one.receives().await, JOINED);
    one.send(b"last").await;
    assert_eq!(two.hears().await, b"last");
    assert!(third.socket.try_recv(&mut [0; 9]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_day_end_a_session_over_udp_too() {
    let scene = scene(Quota { bytes_per_day: Some(1 << 20), ..Quota::default() }).await;
    let [one, two] = &scene.sides;
    tokio::join!(one.join(), two.join());
    soon(async {
        while scene.relaying.load().sessions > 0 {
            one.send(&[7; 1200]).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(scene.relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_over_udp_has_the_bandwidth_that_is_allowed_and_loses_the_rest() {
    let scene = scene(Quota { bytes_per_second: Some(64 << 10), ..Quota::default() }).await;
    let [one, two] = &scene.sides;
    tokio::join!(one.join(), two.join());
    for _ in 0..1_000 {
        one.send(&[7; 1200]).await;
    }
    // The other way pays too, and goes on when there is room again.
    let there = async {
        loop {
            two.send(b"there").await;
            let heard = tokio::time::timeout(Duration::from_millis(50), one.hears()).await;
            if heard.is_ok_and(|heard| heard == b"there") {
                return;
            }
        }
    };
    soon(there).await;
    let (mut got, mut bytes) = (0, [0; 2048]);
    while two.socket.try_recv(&mut bytes).is_ok() {
        got += 1;
    }
    assert!((1..900).contains(&got), "{got} of a thousand");
}
