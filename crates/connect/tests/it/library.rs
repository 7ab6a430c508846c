//! The crate as others use it: its examples and its short way, with a real directory.

use std::sync::Arc;

use kith_connect::{Admission, ConnectError, Node, NodeError, Peer, Protocol};
use kith_directory::client::{ClientConfig, Directory, SourceName};
use kith_directory::server::{Server, ServerConfig};
use kith_directory::store::RedbStore;
use kith_identity::{Authority, Identity, Ni};
use kith_sansio::SeededRng;
use kith_store::Database;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::nodes::{ECHO, echoes, on_loopback, soon};

#[path = "../../examples/greet.rs"]
#[allow(dead_code)]
mod greet;
#[path = "../../examples/welcome.rs"]
#[allow(dead_code)]
mod welcome;

/// Longest example in lines.
const MAX_LINES: usize = 30;

/// A directory on loopback; dropped, it ends.
struct Zone {
    authority: Authority,
    pin: Ni,
    _end: tokio_util::sync::DropGuard,
}

fn key(seed: u64) -> Arc<Identity> {
    Arc::new(Identity::generate(&mut SeededRng::new(seed)))
}

impl Zone {
    async fn start() -> Zone {
        let own = key(1000);
        let mut config = ServerConfig::new("127.0.0.1".parse().unwrap());
        config.listen_https = vec!["127.0.0.1:0".parse().unwrap()];
        let store = Arc::new(RedbStore::new(Database::in_memory().unwrap()));
        let server = Server::bind(config, store, &own).await.unwrap();
        let authority = server.https_addresses()[0].to_string().parse().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone().cancelled_owned()));
        Zone { authority, pin: Ni::new(own.fingerprint(), None), _end: stop.drop_guard() }
    }

    fn directory(&self) -> Directory {
        Directory::open(ClientConfig::default().pin(self.authority.clone(), self.pin.fingerprint))
    }

    async fn node(&self, key: Arc<Identity>) -> Node {
        soon(Node::announce(key, self.authority.clone(), self.directory(), on_loopback())).await.unwrap()
    }

    fn ni(&self, node: &Node) -> Ni {
        Ni::new(node.fingerprint(), Some(self.authority.clone()))
    }
}

#[tokio::test]
async fn the_examples_find_and_greet_each_other() {
    let zone = Zone::start().await;
    let (at, pin, key) = (zone.authority.clone(), zone.pin.clone(), key(1));
    let peer = Ni::new(key.fingerprint(), Some(at.clone()));
    let serving = tokio::spawn(async move {
        welcome::serve(key, at, &pin, on_loopback()).await.map_err(|error| error.to_string())
    });
    // It serves a moment after it is announced.
    let answer = soon(async {
        loop {
            match greet::greet(zone.authority.clone(), &zone.pin, &peer, on_loopback()).await {
                Ok(answer) => break answer,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let greeted = answer.strip_prefix("welcome, ").unwrap();
    assert_eq!(greeted.len(), peer.fingerprint.to_string().len());
    assert_ne!(greeted, peer.fingerprint.to_string());
    serving.abort();
}

#[test]
fn every_short_example_is_short() {
    for (name, text) in [
        ("greet", include_str!("../../examples/greet.rs")),
        ("welcome", include_str!("../../examples/welcome.rs")),
    ] {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{name} has {lines} lines");
    }
}

#[tokio::test]
async fn only_who_is_trusted_gets_in_and_no_longer_than_that() {
    let zone = Zone::start().await;
    let (alice, bob) = (zone.node(key(1)).await, zone.node(key(2)).await);
    let mut incoming = bob.listen(ECHO, Admission::Contacts).unwrap();
    let refused = soon(alice.connect(&zone.ni(&bob), &ECHO)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    bob.trust(zone.ni(&alice));
    let mut stream = soon(alice.connect(&zone.ni(&bob), &ECHO)).await.unwrap();
    let (peer, held) = soon(incoming.next()).await.unwrap();
    assert_eq!(peer, Peer::Known(alice.fingerprint()));
    bob.distrust(&alice.fingerprint());
    let cut = soon(stream.read(&mut [0; 10])).await;
    assert!(!matches!(cut, Ok(1..)), "{cut:?}");
    drop(held);
    let refused = soon(alice.connect(&zone.ni(&bob), &ECHO)).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn a_node_takes_its_announce_back_and_comes_again_elsewhere() {
    let zone = Zone::start().await;
    let (alice, bob) = (zone.node(key(1)).await, zone.node(key(2)).await);
    let ni = zone.ni(&bob);
    soon(bob.close()).await;
    let held = zone.directory().discover_via(&ni, SourceName::Https).await.unwrap();
    assert_eq!(held.set.addresses(), []);
    let gone = soon(alice.connect(&ni, &ECHO)).await;
    assert!(matches!(gone, Err(ConnectError::NotFound { .. })), "{gone:?}");
    // At once, with the same key and other ports: its sets are newer all the same.
    let again = zone.node(key(2)).await;
    let mut incoming = again.listen(ECHO, Admission::Anyone).unwrap();
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        }
    });
    echoes(soon(alice.connect(&ni, &ECHO)).await.unwrap(), b"hello").await;
}

#[tokio::test]
async fn a_directory_that_does_not_take_the_announce_is_named() {
    let zone = Zone::start().await;
    let unpinned = Directory::open(ClientConfig::default());
    let failed = soon(Node::announce(key(1), zone.authority.clone(), unpinned, on_loopback())).await;
    let Err(error @ NodeError::NotTaken { .. }) = failed else { panic!("a directory nobody vouches for") };
    assert!(error.to_string().contains(&zone.authority.to_string()), "{error}");
}

#[tokio::test]
async fn an_unknown_peer_is_not_found() {
    let zone = Zone::start().await;
    let alice = zone.node(key(1)).await;
    let nobody = Ni::new(key(9).fingerprint(), Some(zone.authority.clone()));
    let missing = soon(alice.connect(&nobody, &Protocol::new("x/1"))).await;
    let Err(ConnectError::NotFound { reasons, .. }) = missing else { panic!("{missing:?}") };
    assert_eq!(reasons.len(), 1, "{reasons:?}");
}
