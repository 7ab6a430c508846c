//! An issuer and its members as real nodes on loopback.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kith_connect::membership::show;
use kith_connect::{Admission, ConnectError, Protocol};
use kith_identity::contacts::Hint;
use kith_sansio::{Span, system};
use kith_store::Home;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Row;
use crate::config::{Config, Network};
use crate::node::{Node, scene};

/// Long enough for any machine; nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(60);
/// A protocol of members.
const CHOIR: Protocol = Protocol::new("choir/1");

async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(DEADLINE, work).await.expect("an end within the deadline")
}

fn hints(node: &Node) -> Vec<Hint> {
    node.endpoint.local_addresses().iter().map(|at| at.to_string().parse().unwrap()).collect()
}

/// Starts an issuer, with the shortest epochs, in a home that is there or not.
pub(in crate::node) async fn issuer(folder: &Path) -> Arc<Node> {
    let home = Home::at(folder.join("issuer"));
    if !home.exists() {
        home.create().unwrap();
        crate::identity_file::create(&home, None).unwrap();
    }
    let listen = ["quic://127.0.0.1:0", "tcp://127.0.0.1:0"].map(|at| at.parse().unwrap()).to_vec();
    let network = Network { epoch: Some(Span::secs(10)), ..Network::default() };
    let node = Node::start(&home, Config { listen, lan: false, network, ..Config::default() }).await.unwrap();
    node.book.network.issuing.found(&node.identity.fingerprint()).unwrap();
    super::issue(&node).await.unwrap();
    node
}

/// Starts a node that the issuer has invited, and lets it join.
pub(in crate::node) async fn member(folder: &Path, name: &str, issuer: &Node) -> Arc<Node> {
    let node = scene::node(folder, name).await;
    issuer.book.network.issuing.invite(&[node.identity.fingerprint()]).unwrap();
    join(&node, issuer).await;
    let mut incoming = node.endpoint.listen(CHOIR, Admission::Members).unwrap();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    stream.write_u8(byte).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    node
}

pub(in crate::node) async fn join(node: &Arc<Node>, issuer: &Node) {
    let (ni, at) = (issuer.ni(), hints(issuer));
    let _sought = node.guests.expect(ni.clone(), at.clone());
    soon(super::ask(node, Row { ni, at, since: system::utc().0 })).await.unwrap();
    super::take_certificates(node).unwrap();
}

fn own_certificate(node: &Node) -> kith_identity::membership::Member {
    node.book.network.membership.certificate().unwrap()
}

/// What the issuer has in its book of everybody, sorted.
pub(in crate::node) fn states(issuer: &Node) -> Vec<String> {
    let issued = issuer.book.network.issuing.overview(&issuer.book).unwrap().unwrap();
    let mut states: Vec<_> = issued.roll.into_iter().map(|entry| entry.state).collect();
    states.sort_unstable();
    states
}

/// Waits until a look at something shows it.
pub(in crate::node) async fn until(mut seen: impl FnMut() -> bool) {
    soon(async {
        while !seen() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_are_nobodys_contacts_reach_each_other_until_one_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = issuer(folder.path()).await;
    let (north, south) =
        (member(folder.path(), "north", &issuer).await, member(folder.path(), "south", &issuer).await);
    let peer = south.identity.fingerprint();
    let _sought = north.guests.expect(south.ni(), hints(&south));
    let early = soon(north.endpoint.connect(&peer, &CHOIR)).await;
    assert!(matches!(early, Err(ConnectError::Refused { .. })), "{early:?}");

    let theirs = soon(show(&north.endpoint, &peer, &own_certificate(&north))).await.unwrap();
    assert!(north.book.network.membership.meet(&peer, theirs).is_some());
    let mut stream = soon(north.endpoint.connect(&peer, &CHOIR)).await.unwrap();
    stream.write_u8(7).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), 7);
    let _sought = south.guests.expect(north.ni(), hints(&north));
    drop(soon(south.endpoint.connect(&north.identity.fingerprint(), &CHOIR)).await.unwrap());
    assert!(south.book.list().is_empty() && north.book.list().is_empty());

    issuer.book.network.issuing.revoke(&north.identity.fingerprint()).unwrap();
    let end = soon(stream.read_u8()).await;
    assert!(end.is_err(), "{end:?}");
    // Whichever of the two heard it first.
    until(|| !south.book.network.is_member(&north.identity.fingerprint())).await;
    let late = soon(north.endpoint.connect(&peer, &CHOIR)).await;
    assert!(matches!(late, Err(ConnectError::Refused { .. })), "{late:?}");
    assert!(
        soon(show(&north.endpoint, &peer, &south.book.network.membership.certificate().unwrap()))
            .await
            .is_err()
    );
    // It hears it itself, and has nothing to show any more.
    until(|| north.book.network.membership.certificate().is_none()).await;
    let told = north.book.network.membership.overview().unwrap();
    assert!(told.state == "none" && told.failure.unwrap().contains("revoked"), "{:?}", told.id);
    for node in [issuer, north, south] {
        scene::end(node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_and_a_member_that_start_again_know_what_they_knew() {
    let folder = tempfile::tempdir().unwrap();
    let first = issuer(folder.path()).await;
    let north = member(folder.path(), "north", &first).await;
    let south = member(folder.path(), "south", &first).await;
    let (certificate, stolen) = (own_certificate(&north), own_certificate(&south));
    first.book.network.issuing.revoke(&south.identity.fingerprint()).unwrap();
    let seen = |node: &Node| node.book.network.membership.overview().unwrap().epoch.number;
    let next = first.book.network.issuing.summary().unwrap().number + 1;
    until(|| seen(&north) >= next).await;
    scene::end(first).await;
    let home = north.home.clone();
    scene::end(north).await;

    // The member alone, while nobody issues.
    let config =
        Config { listen: vec!["tcp://127.0.0.1:0".parse().unwrap()], lan: false, ..Config::default() };
    let north = Node::start(&home, config).await.unwrap();
    assert_eq!(own_certificate(&north), certificate);
    let number = seen(&north);
    assert!(number >= next);
    let membership = &north.book.network.membership;
    assert!(membership.meet(&south.identity.fingerprint(), stolen).is_none(), "it is revoked still");

    let again = issuer(folder.path()).await;
    let issued = again.book.network.issuing.overview(&again.book).unwrap().unwrap();
    assert!(issued.epoch.number > number, "no number is used twice");
    assert_eq!(states(&again), ["member", "revoked"]);
    join(&north, &again).await;
    assert_eq!(own_certificate(&north), certificate, "the same as long as half of its time is left");
    for node in [again, north, south] {
        scene::end(node).await;
    }
}
