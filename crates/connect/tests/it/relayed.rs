//! Relays with real sockets: a target that nobody can dial is reached, and nobody whom it does not want gets through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kith_connect::dialer::Pace;
use kith_connect::relay::message::RELAY;
use kith_connect::relay::serving::Regard;
use kith_connect::relay::{Message, Quota};
use kith_connect::{
    Admission, Config, ConnectError, Endpoint, Exposing, Failure, Peer, Protocol, Relaying, Route, Via,
};
use kith_identity::{Ni, Relay, Transport};
use kith_sansio::Span;
use kith_sansio::system::time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::direct::Transfer;
use crate::nodes::{ECHO, Node, echoes, on_loopback, regard, soon};

/// A node that relays for whom it trusts.
pub(crate) struct Relayer {
    pub(crate) node: Node,
    relaying: Option<Relaying>,
}

impl Relayer {
    async fn new(quota: Quota) -> Relayer {
        Relayer::with(quota, on_loopback()).await
    }

    pub(crate) async fn with(quota: Quota, config: Config) -> Relayer {
        let node = Node::with(config).await;
        let book = Arc::clone(&node.book);
        let relaying = node.endpoint.relay(quota, move |peer| regard(&book, peer)).unwrap();
        Relayer { node, relaying: Some(relaying) }
    }

    pub(crate) fn record(&self, preference: u16) -> Relay {
        Relay { preference, ni: Ni::new(self.node.fingerprint(), None) }
    }

    pub(crate) fn sessions(&self) -> usize {
        self.relaying.as_ref().unwrap().load().sessions
    }
}

/// A target that is exposed at `relays`, and an initiator who knows these and no address of it.
async fn exposed(relays: &[&Relayer]) -> (Node, Node, Exposing) {
    // One after another, however busy the machine is.
    let pace = Pace { relay_stagger: Span::secs(12), ..Pace::default() };
    // What goes over a relay stays there: moving is a matter of its own.
    let initiator = Node::with(Config { pace, seek_direct: false, ..on_loopback() }).await;
    let target = Node::new().await;
    let exposing = expose(&initiator, &target, relays).await;
    (initiator, target, exposing)
}

/// Has two nodes trust each other; the target echoes.
fn acquaint(initiator: &Node, target: &Node) {
    target.echo(Admission::Contacts);
    target.book.add(initiator);
    initiator.book.add(target);
}

/// Exposes `target` at `relays`; `initiator`, whom it trusts, knows these and no address of it.
pub(crate) async fn expose(initiator: &Node, target: &Node, relays: &[&Relayer]) -> Exposing {
    acquaint(initiator, target);
    for relay in relays {
        relay.node.book.add(target);
        target.meet(&relay.node);
        initiator.meet(&relay.node);
    }
    let records: Vec<Relay> = relays.iter().zip(1..).map(|(relay, at)| relay.record(at)).collect();
    initiator.believe_relays(&target.fingerprint(), records.clone());
    let mut exposing = target.endpoint.expose(records.clone());
    soon(async { while exposing.named().len() < records.len() && exposing.changed().await {} }).await;
    assert_eq!(exposing.named(), records);
    exposing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_nobody_can_dial_is_reached_over_its_relay() {
    let relay = Relayer::new(Quota::default()).await;
    let (initiator, target, _exposing) = exposed(&[&relay]).await;
    for via in [Via::Any, Via::Tcp, Via::Bulk] {
        let stream = soon(initiator.endpoint.connect_with(&target.fingerprint(), &ECHO, via)).await.unwrap();
        let path = stream.path();
        assert_eq!(stream.peer(), Peer::Known(target.fingerprint()));
        assert_eq!((path.direct, path.relay), (false, Some(relay.node.fingerprint())));
        assert_eq!(path.remote, relay.node.at(Transport::Tcp));
        assert_eq!(initiator.endpoint.paths(&target.fingerprint()), [path]);
        let theirs = target.endpoint.paths(&initiator.fingerprint());
        assert!(theirs.iter().all(|path| path.relay == Some(relay.node.fingerprint())) && theirs.len() == 1);
        let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| (at.wrapping_mul(31) >> 3) as u8).collect();
        echoes(stream, &bytes).await;
        soon(async {
            while relay.sessions() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let stream =
        soon(initiator.endpoint.connect_with(&target.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    let path = stream.path();
    assert_eq!((path.direct, path.relay), (false, Some(relay.node.fingerprint())));
    assert_eq!(path.transport, Transport::Quic);
    assert_eq!(path.remote.ip(), relay.node.at(Transport::Tcp).ip());
    let theirs = target.endpoint.paths(&initiator.fingerprint());
    assert!(
        theirs.iter().any(|one| one.relay == Some(relay.node.fingerprint()) && !one.direct),
        "{theirs:?}"
    );
    let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| (at.wrapping_mul(31) >> 3) as u8).collect();
    echoes(stream, &bytes).await;
    // Later streams go over the same connection.
    let stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    assert_eq!(stream.path().transport, Transport::Quic);
    echoes(stream, b"and one more").await;
    assert_eq!(relay.sessions(), 1);
}

async fn is_idle(relay: &Relayer) {
    while relay.sessions() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_go_over_a_relay_as_frames_or_over_quic() {
    let relay = Relayer::new(Quota { bytes_per_day: Some(4 << 20), ..Quota::default() }).await;
    let (initiator, target, _exposing) = exposed(&[&relay]).await;
    let protocol = Protocol::new("test-datagrams/1");
    let mut incoming = target.endpoint.listen_datagrams(protocol.clone(), Admission::Contacts).unwrap();
    for (via, transport) in [(Via::Tcp, Transport::Tcp), (Via::Quic, Transport::Quic)] {
        let there = target.fingerprint();
        let near = soon(initiator.endpoint.connect_datagrams_with(&there, &protocol, via)).await.unwrap();
        let (_, far) = soon(incoming.next()).await.unwrap();
        for path in [near.path(), far.path()] {
            assert_eq!((path.transport, path.relay), (transport, Some(relay.node.fingerprint())));
        }
        let largest = vec![7; near.max_size().min(1100)];
        let arrives = async {
            loop {
                near.send(&largest).unwrap();
                let heard = tokio::time::timeout(Duration::from_millis(200), far.recv()).await;
                if let Ok(datagram) = heard {
                    return datagram.unwrap();
                }
            }
        };
        assert_eq!(soon(arrives).await, largest);
        assert_eq!(relay.sessions(), 1);
        if via == Via::Quic {
            // They pay like everything else: the quota of the day ends the session, and with it the datagrams.
            let spending = async { while near.send_all([&largest[..]; 64]).await.is_ok() {} };
            soon(async {
                tokio::select! { () = spending => {}, () = is_idle(&relay) => {} }
            })
            .await;
        }
        drop((near, far));
        soon(is_idle(&relay)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_target_does_not_want_is_refused_as_if_there_were_nobody_and_the_target_learns_of_it() {
    let relay = Relayer::new(Quota::default()).await;
    let (_, target, _exposing) = exposed(&[&relay]).await;
    let (stranger, nobody, silent) = (Node::new().await, Node::new().await, Node::new().await);
    stranger.meet(&relay.node);
    silent.meet(&relay.node);
    relay.node.book.add(&silent);
    // One whom the relay takes in, and who says nothing to whatever is asked.
    let mut quiet = soon(silent.endpoint.connect(&relay.node.fingerprint(), &RELAY)).await.unwrap();
    quiet.write_all(&Message::Expose.to_frame()).await.unwrap();
    quiet.flush().await.unwrap();
    let mut answer = vec![0; Message::Exposed.to_frame().len()];
    soon(quiet.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, Message::Exposed.to_frame());
    let mut took = Vec::new();
    for whom in [&target, &nobody, &silent] {
        stranger.believe_relays(&whom.fingerprint(), vec![relay.record(1)]);
        let began = time();
        match soon(stranger.endpoint.connect(&whom.fingerprint(), &ECHO)).await {
            Err(ConnectError::Unreachable { tried, .. }) => {
                assert_eq!(tried[0].route, Route::Over(relay.node.fingerprint()));
                assert_eq!(tried[0].failure, Failure::RelayRefused);
            }
            other => panic!("{other:?}"),
        }
        took.push(Duration::from(time() - began));
    }
    assert!(took.iter().all(|took| *took >= Duration::from_secs(3)), "{took:?}");
    assert_eq!(target.book.knocks(), [stranger.fingerprint()]);
    assert_eq!(relay.sessions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_comes_over_a_relay_only_where_strangers_are_asked_in() {
    let relay = Relayer::new(Quota::default()).await;
    let (_, target, _exposing) = exposed(&[&relay]).await;
    let stranger = Node::new().await;
    stranger.meet(&relay.node);
    stranger.believe_relays(&target.fingerprint(), vec![relay.record(1)]);
    let open = Protocol::new("test-open/1");
    let mut incoming = target.endpoint.listen(open.clone(), Admission::Anyone).unwrap();
    let refused = soon(stranger.endpoint.connect(&target.fingerprint(), &open)).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");
    assert_eq!(target.book.knocks(), [stranger.fingerprint()]);
    incoming.over_relays();
    let _stream = soon(stranger.endpoint.connect(&target.fingerprint(), &open)).await.unwrap();
    let (peer, stream) = soon(incoming.next()).await.unwrap();
    assert_eq!(peer, Peer::Known(stranger.fingerprint()));
    assert_eq!(stream.path().relay, Some(relay.node.fingerprint()));
    // For nothing else.
    let refused = soon(stranger.endpoint.connect(&target.fingerprint(), &ECHO)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    drop((incoming, stream));
    let refused = soon(stranger.endpoint.connect(&target.fingerprint(), &open)).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_dies_is_followed_by_the_next_one() {
    let (mut first, second) = (Relayer::new(Quota::default()).await, Relayer::new(Quota::default()).await);
    let (initiator, target, _exposing) = exposed(&[&first, &second]).await;
    let mut stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    assert_eq!(stream.path().relay, Some(first.node.fingerprint()), "the preferred one");
    first.relaying = None;
    first.node.endpoint.close().await;
    assert!(!matches!(soon(stream.read(&mut [0; 9])).await, Ok(1..)), "the stream ends");
    let stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    assert_eq!(stream.path().relay, Some(second.node.fingerprint()));
    echoes(stream, b"over the other one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quic_connection_whose_relay_dies_goes_on_over_the_next_one_and_loses_nothing() {
    let (mut first, second) = (Relayer::new(Quota::default()).await, Relayer::new(Quota::default()).await);
    let (initiator, target, _exposing) = exposed(&[&first, &second]).await;
    let (here, there) = (initiator.fingerprint(), target.fingerprint());
    let stream = soon(initiator.endpoint.connect_with(&there, &ECHO, Via::Quic)).await.unwrap();
    assert_eq!(stream.path().relay, Some(first.node.fingerprint()), "the preferred one");
    let transfer = Transfer::start(stream);
    transfer.more(1 << 20).await;
    first.relaying = None;
    first.node.endpoint.close().await;
    let (began, next) = (time(), Some(second.node.fingerprint()));
    let over_next = |node: &Node, peer| node.endpoint.paths(peer).iter().any(|path| path.relay == next);
    soon(async {
        while !over_next(&initiator, &there) || !over_next(&target, &here) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // What a quiet machine needs is a quarter of it.
    let took = time() - began;
    assert!(took < Span::secs(10), "{took}");
    transfer.more(1 << 20).await;
    transfer.end().await;
    let stream = soon(initiator.endpoint.connect(&there, &ECHO)).await.unwrap();
    assert_eq!((stream.path().transport, stream.path().relay), (Transport::Quic, next));
    echoes(stream, b"and what is opened later").await;
    assert_eq!(second.sessions(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_comes_back_is_used_again() {
    let relay = Relayer::new(Quota::default()).await;
    let (initiator, target, mut exposing) = exposed(&[&relay]).await;
    let listen = relay.node.endpoint.local_addresses();
    let identity = Arc::clone(&relay.node.identity);
    relay.node.endpoint.close().await;
    drop(relay);
    soon(async { while exposing.standings()[0].is_warm && exposing.changed().await {} }).await;
    let again = soon(async {
        loop {
            let config = Config { listen: listen.clone(), ..Config::default() };
            let (trust, map) =
                (Arc::new(crate::nodes::Book::default()), Arc::new(crate::nodes::Map::default()));
            match Endpoint::bind(Arc::clone(&identity), trust, map, config).await {
                Ok(endpoint) => break endpoint,
                // The sockets of the old endpoint go when its last task has ended.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let _relaying = again.relay(Quota::default(), |_| Regard::Known).unwrap();
    soon(async { while !exposing.standings()[0].is_warm && exposing.changed().await {} }).await;
    let stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    echoes(stream, b"again").await;
}

/// Relays of which each is known at the one before it alone, a target at the last, and an initiator who can dial the first.
async fn chained(count: usize) -> (Vec<Relayer>, Node, Node, Vec<Exposing>) {
    let pace = Pace { relay_stagger: Span::secs(12), ..Pace::default() };
    let initiator = Node::with(Config { pace, seek_direct: false, ..on_loopback() }).await;
    let target = Node::new().await;
    acquaint(&initiator, &target);
    let mut relays: Vec<Relayer> = Vec::new();
    for _ in 0..count {
        relays.push(Relayer::new(Quota::default()).await);
    }
    initiator.meet(&relays[0].node);
    let mut exposed = Vec::new();
    let nodes = relays.iter().map(|relay| &relay.node).chain([&target]);
    for (nearer, node) in relays.iter().zip(nodes.skip(1)) {
        nearer.node.book.add(node);
        node.meet(&nearer.node);
        initiator.believe_relays(&node.fingerprint(), vec![nearer.record(1)]);
        let mut exposing = node.endpoint.expose(vec![nearer.record(1)]);
        soon(async { while exposing.named().is_empty() && exposing.changed().await {} }).await;
        exposed.push(exposing);
    }
    (relays, initiator, target, exposed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_nobody_can_dial_is_reached_over_its_own_up_to_three_in_a_row() {
    for count in [2, 3] {
        let (relays, initiator, target, _exposed) = chained(count).await;
        let stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
        let path = stream.path();
        let (first, last) = (&relays[0], &relays[count - 1]);
        assert_eq!((path.direct, path.relay), (false, Some(last.node.fingerprint())));
        assert_eq!(path.remote, first.node.at(Transport::Tcp));
        let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| (at.wrapping_mul(31) >> 3) as u8).collect();
        echoes(stream, &bytes).await;
        soon(async {
            for relay in &relays {
                is_idle(relay).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_relays_in_a_row_are_too_many() {
    let (relays, initiator, target, _exposed) = chained(4).await;
    let failed = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await;
    let Err(ConnectError::Unreachable { tried, .. }) = failed else { panic!("{failed:?}") };
    assert_eq!(tried.len(), 1, "{tried:?}");
    assert_eq!(tried[0].route, Route::Over(relays[3].node.fingerprint()));
    assert!(relays.iter().all(|relay| relay.sessions() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_name_each_other_are_no_way() {
    let (relays, initiator, target, _exposed) = chained(2).await;
    let strange = Node::with(Config { seek_direct: false, ..on_loopback() }).await;
    target.book.add(&strange);
    strange.book.add(&target);
    strange.believe_relays(&target.fingerprint(), vec![relays[1].record(1)]);
    for (relay, other) in [(0, 1), (1, 0)] {
        let names = vec![relays[other].record(1), relays[relay].record(2)];
        strange.believe_relays(&relays[relay].node.fingerprint(), names);
    }
    let failed = soon(strange.endpoint.connect(&target.fingerprint(), &ECHO)).await;
    assert!(matches!(failed, Err(ConnectError::Unreachable { .. })), "{failed:?}");
    // Whoever can dial the first gets through all the same.
    strange.meet(&relays[0].node);
    let stream = soon(strange.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    echoes(stream, b"in a circle").await;
    drop(initiator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_way_is_preferred_to_a_relay() {
    let relay = Relayer::new(Quota::default()).await;
    let (initiator, target, _exposing) = exposed(&[&relay]).await;
    initiator.meet(&target);
    let stream = soon(initiator.endpoint.connect_with(&target.fingerprint(), &ECHO, Via::Tcp)).await.unwrap();
    assert!(stream.path().direct && stream.path().relay.is_none());
    assert_eq!(relay.sessions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_relay_does_not_serve_any_more_is_cut() {
    let relay = Relayer::new(Quota::default()).await;
    let (initiator, target, mut exposing) = exposed(&[&relay]).await;
    let mut stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    relay.node.book.remove(&target);
    assert!(!matches!(soon(stream.read(&mut [0; 9])).await, Ok(1..)), "the stream ends");
    soon(async { while exposing.standings()[0].is_warm && exposing.changed().await {} }).await;
    assert!(!exposing.standings()[0].is_warm);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_relay_bars_cannot_ask_and_is_cut_where_he_is_the_initiator() {
    let relay = Relayer::new(Quota::default()).await;
    let (initiator, target, _exposing) = exposed(&[&relay]).await;
    let mut stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    relay.node.book.bar(&initiator);
    assert!(!matches!(soon(stream.read(&mut [0; 9])).await, Ok(1..)), "the stream ends");
    let refused = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await;
    let Err(ConnectError::Unreachable { tried, .. }) = refused else { panic!("{refused:?}") };
    assert!(matches!(tried[0].failure, Failure::Relay(_)), "not as a stranger: {tried:?}");
    soon(async {
        while relay.sessions() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_asked_at_once_when_the_network_has_changed() {
    let relay = Relayer::new(Quota::default()).await;
    let relays = [&relay];
    // By themselves both ask as long after they were taken in.
    let ((_, _one, mut moved), (_, _two, mut settled)) = tokio::join!(exposed(&relays), exposed(&relays));
    moved.shaken();
    let first = async {
        tokio::select! {
            biased;
            () = async { while moved.standings()[0].rtt.is_none() && moved.changed().await {} } => "moved",
            () = async { while settled.standings()[0].rtt.is_none() && settled.changed().await {} } => "settled",
        }
    };
    assert_eq!(soon(first).await, "moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_not_exposed() {
    let relay = Relayer::new(Quota::default()).await;
    let stranger = Node::new().await;
    stranger.meet(&relay.node);
    let mut stream = soon(stranger.endpoint.connect(&relay.node.fingerprint(), &RELAY)).await.unwrap();
    stream.write_all(&Message::Expose.to_frame()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, Message::Refused.to_frame());
    assert_eq!(relay.relaying.as_ref().unwrap().load().exposed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_day_end_a_session() {
    let quota = Quota { bytes_per_day: Some(2 << 20), ..Quota::default() };
    let relay = Relayer::new(quota).await;
    let (initiator, target, _exposing) = exposed(&[&relay]).await;
    let stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let reading = tokio::spawn(async move { while matches!(read.read(&mut [0; 4096]).await, Ok(1..)) {} });
    let writing = async { while write.write_all(&[7; 4096]).await.is_ok() && write.flush().await.is_ok() {} };
    soon(writing).await;
    soon(reading).await.unwrap();
    assert!(matches!(
        soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await,
        Err(ConnectError::Unreachable { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bandwidth_of_a_target_is_for_all_its_sessions_together() {
    let quota = Quota { bytes_per_second: Some(4 << 20), ..Quota::default() };
    let relay = Relayer::new(quota).await;
    let (initiator, target, _exposing) = exposed(&[&relay]).await;
    let there = target.fingerprint();
    let one = soon(initiator.endpoint.connect_with(&there, &ECHO, Via::Tcp)).await.unwrap();
    let two = soon(initiator.endpoint.connect_with(&there, &ECHO, Via::Tcp)).await.unwrap();
    let (began, bytes) = (time(), vec![7; 2 << 20]);
    tokio::join!(echoes(one, &bytes), echoes(two, &bytes));
    // Twice two mebibytes there and back.
    assert!(time() - began >= Span::millis(1_800), "{}", time() - began);
}

/// A connection to the relay that shows `token`, and what becomes of it.
async fn shows(at: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = tokio::net::TcpStream::connect(at).await.unwrap();
    let _may_be_closed_already = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = soon(socket.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_gave_opens_nothing() {
    let relay = Relayer::new(Quota::default()).await;
    let (initiator, target, _exposing) = exposed(&[&relay]).await;
    let at = relay.node.at(Transport::Tcp);
    for bytes in [&b"kith-rl1................"[..], b"kith-xx1................", b"kith"] {
        if bytes.len() == 4 {
            let mut socket = tokio::net::TcpStream::connect(at).await.unwrap();
            socket.write_all(bytes).await.unwrap();
            socket.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = soon(socket.read_to_end(&mut answer)).await;
            assert_eq!(answer, b"");
        } else {
            assert_eq!(shows(at, bytes).await, b"");
        }
    }
    let stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    echoes(stream, b"and others are not in its way").await;
}

/// Everything that goes over a session is in the relay's hands, and none of it can be read.
#[tokio::test(flavor = "multi_thread")]
async fn the_relay_sees_no_plaintext() {
    let relay = Relayer::new(Quota::default()).await;
    let (initiator, target, _exposing) = exposed(&[&relay]).await;
    // The initiator's way to the relay leads past a tap.
    let tap = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, to) = (tap.local_addr().unwrap(), relay.node.at(Transport::Tcp));
    initiator.believe(&relay.node.fingerprint(), vec![format!("tcp://{at}").parse().unwrap()]);
    let tape = crate::nodes::Tape::default();
    let recording = Arc::clone(&tape);
    tokio::spawn(async move {
        while let Ok((near, _)) = tap.accept().await {
            let far = tokio::net::TcpStream::connect(to).await.unwrap();
            let tape = Arc::clone(&recording);
            tokio::spawn(async move {
                let ((mut a, mut b), (mut c, mut d)) = (near.into_split(), far.into_split());
                let there = record(&mut a, &mut d, &tape);
                let back = record(&mut c, &mut b, &tape);
                tokio::join!(there, back);
            });
        }
    });
    let secret = b"nobody but the two of us may read this sentence";
    let stream = soon(initiator.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    assert_eq!(stream.path().remote, at);
    echoes(stream, secret).await;
    let tape = tape.lock().unwrap();
    let holds = |what: &[u8]| tape.windows(what.len()).any(|window| window == what);
    assert!(tape.len() > 1_000 && holds(b"kith-rl1"));
    assert!(!holds(&secret[..8]) && !holds(ECHO.as_str().as_bytes()));
    assert!(!holds(target.fingerprint().as_bytes()) && !holds(initiator.fingerprint().as_bytes()));
}

async fn record(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    tape: &crate::nodes::Tape,
) {
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        tape.lock().unwrap().extend_from_slice(&bytes[..n]);
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
