use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kith_connect::{Admission, ConnectError, Peer, Protocol, Via};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::nodes::{ECHO, Node, echoes, friends, on_loopback, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_and_noted_once() {
    let (stranger, target) = (Node::new().await, Node::new().await);
    stranger.book.add(&target);
    stranger.meet(&target);
    target.echo(Admission::Contacts);
    for via in [Via::Tcp, Via::Quic, Via::Any, Via::Tcp] {
        match soon(stranger.endpoint.connect_with(&target.fingerprint(), &ECHO, via)).await {
            Err(ConnectError::Refused { target: by, protocol }) => {
                assert_eq!((by, protocol), (target.fingerprint(), ECHO));
            }
            other => panic!("{via:?}: {other:?}"),
        }
    }
    assert_eq!(target.book.knocks(), [stranger.fingerprint()]);
    target.book.add(&stranger);
    let stream = soon(stranger.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    echoes(stream, b"no stranger any more").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_for_anyone_admits_strangers_and_says_who_they_are() {
    let (stranger, target) = (Node::new().await, Node::new().await);
    stranger.meet(&target);
    let mut incoming = target.endpoint.listen(ECHO, Admission::Anyone).unwrap();
    for via in [Via::Tcp, Via::Quic] {
        let _stream = soon(stranger.endpoint.connect_with(&target.fingerprint(), &ECHO, via)).await.unwrap();
        let (peer, stream) = soon(incoming.next()).await.unwrap();
        assert_eq!(peer, Peer::Known(stranger.fingerprint()));
        assert_eq!(stream.peer(), peer);
    }
    assert!(target.book.knocks().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_connection_ends_with_his_last_stream_and_a_friends_stays() {
    let (friend, stranger, target) = (Node::new().await, Node::new().await, Node::new().await);
    target.book.add(&friend);
    target.echo(Admission::Anyone);
    let mut open = Vec::new();
    for one in [&friend, &stranger] {
        one.meet(&target);
        for _ in 0..2 {
            let there = target.fingerprint();
            let stream = soon(one.endpoint.connect_with(&there, &ECHO, Via::Quic)).await.unwrap();
            open.push((one, stream));
        }
    }
    let still_there = |one: &Node| one.endpoint.paths(&target.fingerprint()).len();
    for (whose, stream) in open {
        assert_eq!(still_there(whose), 1);
        echoes(stream, b"before it ends").await;
    }
    soon(async {
        while still_there(&stranger) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(still_there(&friend), 1);
    let stream = soon(stranger.endpoint.connect(&target.fingerprint(), &ECHO)).await.unwrap();
    echoes(stream, b"he may come back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_someone_else_is_named_and_learns_nothing() {
    let (one, two, impostor) = (Node::new().await, Node::new().await, Node::new().await);
    one.book.add(&two);
    impostor.echo(Admission::Contacts);
    one.believe(&two.fingerprint(), impostor.endpoint.local_addresses());
    for via in [Via::Tcp, Via::Quic, Via::Any] {
        match soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await {
            Err(ConnectError::WrongPeer { target, found, address, .. }) => {
                assert_eq!((target, found), (two.fingerprint(), impostor.fingerprint()));
                assert!(impostor.endpoint.local_addresses().contains(&address));
            }
            other => panic!("{via:?}: {other:?}"),
        }
    }
    // Nobody showed a certificate, so nobody was noted.
    assert!(impostor.book.knocks().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_can_be_asked_anonymously_where_anyone_is_admitted() {
    let (one, two) = (Node::new().await, Node::new().await);
    let open = Protocol::new("open/1");
    let mut incoming = two.endpoint.listen(open.clone(), Admission::Anyone).unwrap();
    two.echo(Admission::Contacts);
    let (here, there, contacts_only) = (one.fingerprint(), two.fingerprint(), ECHO);
    for address in two.endpoint.local_addresses() {
        let asking = one.endpoint.connect_anonymous(&address, &there, &open);
        let _stream = soon(asking).await.unwrap();
        assert_eq!(soon(incoming.next()).await.unwrap().0, Peer::Anonymous);
        let asking = one.endpoint.connect_anonymous(&address, &there, &contacts_only);
        let refused = soon(asking).await;
        assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
        // The pin holds here as well.
        let asking = one.endpoint.connect_anonymous(&address, &here, &open);
        let refused = soon(asking).await;
        assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");
    }
    assert!(two.book.knocks().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_peer_is_found_beside_a_wrong_one() {
    let (one, two) = friends().await;
    let impostor = Node::new().await;
    let mut addresses = impostor.endpoint.local_addresses();
    addresses.extend(two.endpoint.local_addresses());
    one.believe(&two.fingerprint(), addresses);
    let stream = soon(one.endpoint.connect(&two.fingerprint(), &ECHO)).await.unwrap();
    echoes(stream, b"found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_withdrawn_by_the_target_cuts_readers_and_writers_at_both_ends() {
    for via in [Via::Tcp, Via::Quic] {
        let (one, two) = friends().await;
        let protocol = Protocol::new("quiet/1");
        let mut incoming = two.endpoint.listen(protocol.clone(), Admission::Contacts).unwrap();
        let reading = soon(one.endpoint.connect_with(&two.fingerprint(), &protocol, via)).await.unwrap();
        let (_, read_end) = soon(incoming.next()).await.unwrap();
        let writing = soon(one.endpoint.connect_with(&two.fingerprint(), &protocol, via)).await.unwrap();
        let (_, write_end) = soon(incoming.next()).await.unwrap();
        // One side of each waits to read, the other side writes until it must wait.
        let ends =
            [tokio::spawn(drain(reading)), tokio::spawn(drain(read_end)), tokio::spawn(drain(write_end))];
        let full = tokio::spawn(fill(writing));
        two.book.remove(&one);
        let cut = tokio::time::timeout(Duration::from_secs(1), async {
            for end in ends {
                end.await.unwrap();
            }
            full.await.unwrap();
        });
        cut.await.expect("everything ends within a second");
        soon(async {
            while !two.endpoint.paths(&one.fingerprint()).is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let refused = soon(one.endpoint.connect_with(&two.fingerprint(), &protocol, via)).await;
        assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_withdrawn_by_the_initiator_cuts_too_and_says_so() {
    for via in [Via::Tcp, Via::Quic] {
        let (one, two) = friends().await;
        let mut stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        one.book.remove(&two);
        let error = soon(stream.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted, "{error}");
        let error = soon(stream.write_all(b"more")).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_in_one_direction_opens_and_cuts_streams_of_that_direction_alone() {
    for via in [Via::Tcp, Via::Quic] {
        let (one, two) = (Node::new().await, Node::new().await);
        one.meet(&two);
        two.meet(&one);
        one.echo(Admission::Contacts);
        two.echo(Admission::Contacts);
        one.book.reach(&two);
        two.book.add(&one);
        let there = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        let back = soon(two.endpoint.connect_with(&one.fingerprint(), &ECHO, via)).await;
        assert!(matches!(back, Err(ConnectError::Refused { .. })), "{back:?}");
        assert_eq!(one.book.knocks(), [two.fingerprint()]);
        // The refusal ends neither the stream nor the connection that it came over.
        let again = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        echoes(again, b"still there").await;
        let waiting = tokio::spawn(drain(there));
        one.book.remove(&two);
        soon(waiting).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_withdrawn_from_one_leaves_the_other_alone() {
    let (one, two) = friends().await;
    let other = Node::new().await;
    two.book.add(&other);
    other.meet(&two);
    let kept = soon(other.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    let cut = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    two.book.remove(&one);
    drain(cut).await;
    echoes(kept, b"still here").await;
}

/// `one` waits for the answer of `two`, where somebody else has the only seat.
struct Seatless {
    one: Node,
    two: Node,
    incoming: kith_connect::Incoming,
    waiting: tokio::task::JoinHandle<Result<kith_connect::Stream, ConnectError>>,
    _first: (Node, kith_connect::Stream),
}

async fn seatless() -> Seatless {
    let (one, other) = (Node::new().await, Node::new().await);
    let two = Node::with(kith_connect::Config { incoming_queue: 1, ..on_loopback() }).await;
    for (near, far) in [(&one, &two), (&other, &two), (&two, &one), (&two, &other)] {
        near.book.add(far);
        near.meet(far);
    }
    let protocol = Protocol::new("slow/1");
    let incoming = two.endpoint.listen(protocol.clone(), Admission::Contacts).unwrap();
    // This one takes the only seat, so that the next has to wait for its answer.
    let first = soon(other.endpoint.connect_with(&two.fingerprint(), &protocol, Via::Quic)).await.unwrap();
    let asked = two.book.asked.load(Ordering::SeqCst);
    let (endpoint, target, name) = (one.endpoint.clone(), two.fingerprint(), protocol.clone());
    let waiting = tokio::spawn(async move { endpoint.connect_with(&target, &name, Via::Quic).await });
    soon(async {
        while two.book.asked.load(Ordering::SeqCst) == asked {
            tokio::task::yield_now().await;
        }
    })
    .await;
    Seatless { one, two, incoming, waiting, _first: (other, first) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_refused_to_the_target_does_not_end_a_connection_that_waits_for_its_answer() {
    let Seatless { one, two, mut incoming, waiting, .. } = seatless().await;
    let unheard = Protocol::new("unheard/1");
    let refused = soon(two.endpoint.connect_with(&one.fingerprint(), &unheard, Via::Quic)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    let _seat = soon(incoming.next()).await.unwrap();
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_withdrawn_while_the_hello_is_under_way_ends_the_connection() {
    for initiator_withdraws in [true, false] {
        let Seatless { one, two, mut incoming, waiting, .. } = seatless().await;
        let target = two.fingerprint();
        let (who, whom) = if initiator_withdraws { (&one, &two) } else { (&two, &one) };
        who.book.remove(whom);
        let _seat = soon(incoming.next()).await.unwrap();
        let stream = soon(waiting).await.unwrap();
        soon(async {
            while !one.endpoint.paths(&target).is_empty()
                || !two.endpoint.paths(&one.fingerprint()).is_empty()
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
        if let Ok(mut stream) = stream {
            assert!(soon(stream.read_u8()).await.is_err());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_withdrawn_while_the_peer_is_looked_for_opens_no_stream() {
    for (via, alone) in [(Via::Tcp, false), (Via::Tcp, true), (Via::Quic, false), (Via::Quic, true)] {
        let (one, two) = friends().await;
        let (book, there) = (Arc::clone(&one.book), two.fingerprint());
        one.when_looking(move || book.remove_peer(&there));
        let connected = match alone {
            true => soon(one.endpoint.connect_fresh(&there, &ECHO, via)).await,
            false => soon(one.endpoint.connect_with(&there, &ECHO, via)).await,
        };
        assert!(matches!(connected, Err(ConnectError::Withdrawn { .. })), "{via:?}: {connected:?}");
        soon(async {
            while !one.endpoint.paths(&there).is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Whoever was not trusted when it was sought needs no trust.
        let connected = soon(one.endpoint.connect_with(&there, &ECHO, via)).await;
        echoes(connected.unwrap(), b"as a stranger").await;
    }
}

/// Reads until the end, whatever it is.
async fn drain(mut stream: kith_connect::Stream) {
    let mut buffer = vec![0; 1 << 16];
    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

/// Writes until it fails.
async fn fill(mut stream: kith_connect::Stream) {
    let chunk = vec![0; 1 << 16];
    while stream.write_all(&chunk).await.is_ok() {}
}
