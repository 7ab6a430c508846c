//! Two nodes behind NATs of the kernel's, each in a network namespace, and a relay between them.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kith_connect::relay::Quota;
use kith_connect::relay::serving::Regard;
use kith_connect::{Admission, Config, Via};
use kith_identity::{Fingerprint, Identity, Ni, Relay};
use kith_sansio::SeededRng;
use kith_sansio::system::time;

use crate::direct::Transfer;
use crate::nodes::{ECHO, Node, soon};

/// Says which node a process of this test is.
const ROLE: &str = "KITH_TEST_NAT";
const RELAY_AT: &str = "203.0.113.1:7117";

fn identity(seed: u64) -> Arc<Identity> {
    Arc::new(Identity::generate(&mut SeededRng::new(seed)))
}

/// The node of one role; all know who the others are, and the relay is at one address.
async fn node(seed: u64) -> Node {
    let listen = ["tcp://0.0.0.0:7117", "quic://0.0.0.0:7117"].map(|one| one.parse().unwrap()).to_vec();
    let node = Node::reborn(identity(seed), Config { listen, ..Config::default() }).await;
    let relay = ["tcp", "quic"].map(|scheme| format!("{scheme}://{RELAY_AT}").parse().unwrap());
    node.believe(&name(1), relay.to_vec());
    [1, 2, 3].into_iter().filter(|other| *other != seed).for_each(|other| node.book.trust(name(other)));
    node
}

fn name(seed: u64) -> Fingerprint {
    identity(seed).fingerprint()
}

fn relays() -> Vec<Relay> {
    vec![Relay { preference: 1, ni: Ni::new(name(1), None) }]
}

async fn relay() {
    let node = node(1).await;
    let _relaying = node.endpoint.relay(Quota::default(), |_| Regard::Known).unwrap();
    std::future::pending::<()>().await;
}

async fn target() {
    let node = node(2).await;
    node.echo(Admission::Contacts);
    let _exposing = node.endpoint.expose(relays());
    std::future::pending::<()>().await;
}

async fn initiator() {
    let node = node(3).await;
    let there = name(2);
    node.believe_relays(&there, relays());
    let stream = soon(async {
        loop {
            // The others may not be there yet.
            match node.endpoint.connect_with(&there, &ECHO, Via::Quic).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    })
    .await;
    let (began, path) = (time(), stream.path());
    assert!(path.relay == Some(name(1)) || path.direct, "{path:?}");
    let transfer = Transfer::start(stream);
    let direct = soon(async {
        loop {
            match node.endpoint.paths(&there).into_iter().find(|path| path.direct) {
                Some(path) => return path,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    let took = time() - began;
    transfer.more(1 << 20).await;
    transfer.end().await;
    println!("direct to {} after {took}", direct.remote);
}

/// Not a test by itself: what [`two_nodes_behind_nats_meet_without_their_relay`] runs in each namespace.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_a_namespace() {
    match std::env::var(ROLE).as_deref() {
        Ok("relay") => relay().await,
        Ok("target") => target().await,
        Ok("initiator") => initiator().await,
        _ => {}
    }
}

#[test]
fn two_nodes_behind_nats_meet_without_their_relay() {
    kith_vnet::needs!("unshare", "ip", "nft");
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !is_root {
        return kith_vnet::unable("root, for namespaces with NATs");
    }
    let mut command = Command::new("unshare");
    // All of it ends with the first process.
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        include_str!("nats.sh"),
        "sh",
    ]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "nats::a_node_in_a_namespace", "--nocapture"]);
    let done = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if !out.contains("ready\n") {
        // A container without the rights, or a kernel without the parts.
        return kith_vnet::skipped("network namespaces with NATs");
    }
    assert!(done.status.success(), "{out}\n{err}");
    assert!(out.contains("direct to 203.0.113.2:7117 after"), "{out}\n{err}");
}
