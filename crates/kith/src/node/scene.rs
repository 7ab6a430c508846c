//! Real nodes on loopback, for tests of what happens between two of them.

use std::path::Path;
use std::sync::Arc;

use kith_store::Home;

use super::Node;
use crate::api::shapes::NewContact;
use crate::config::Config;
use crate::identity_file;

/// Starts a node with a home of its own in `folder`.
pub(crate) async fn node(folder: &Path, name: &str) -> Arc<Node> {
    let home = Home::at(folder.join(name));
    home.create().unwrap();
    identity_file::create(&home, None).unwrap();
    let listen = ["quic://127.0.0.1:0", "tcp://127.0.0.1:0"].map(|at| at.parse().unwrap()).to_vec();
    Node::start(&home, Config { listen, lan: false, ..Config::default() }).await.unwrap()
}

/// Two nodes that know each other.
pub(crate) async fn friends(folder: &Path) -> (Arc<Node>, Arc<Node>) {
    let (north, south) = (node(folder, "north").await, node(folder, "south").await);
    for (one, name, other) in [(&north, "south", &south), (&south, "north", &north)] {
        let at = other.endpoint.local_addresses().iter().map(ToString::to_string).collect();
        one.book.add(&NewContact { name: name.to_owned(), ni: other.ni().to_string(), at }).unwrap();
    }
    (north, south)
}

/// Ends a node, as somebody who stops it does.
pub(crate) async fn end(node: Arc<Node>) {
    node.stop();
    drop(node.end().await);
}
