use std::collections::{BTreeMap, HashMap};

use kith_connect::relay::message::Message as Said;

use super::Node;

/// One message of a stream, as it goes over the network: as bytes, so that both codecs are in the way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    number: u64,
    /// `None` is the end.
    bytes: Option<Vec<u8>>,
}

impl Packet {
    pub(super) fn is_end(&self) -> bool {
        self.bytes.is_none()
    }
}

/// What came over one stream.
#[derive(Default)]
struct Received {
    next: u64,
    later: BTreeMap<u64, Vec<u8>>,
}

/// The streams of one node: what comes is handed on in order and once; what is lost stalls its stream.
#[derive(Default)]
pub(super) struct Streams {
    places: HashMap<u64, Node>,
    sent: HashMap<(Node, u64), u64>,
    received: HashMap<(Node, u64), Received>,
}

impl Streams {
    pub(super) fn place(&mut self, stream: u64, at: Node) {
        self.places.insert(stream, at);
    }

    pub(super) fn at(&self, stream: u64) -> Node {
        self.places[&stream]
    }

    pub(super) fn send(&mut self, node: Node, stream: u64, said: &Said) -> Packet {
        let sent = self.sent.entry((node, stream)).or_insert(0);
        *sent += 1;
        Packet { number: *sent - 1, bytes: Some(said.to_cbor()) }
    }

    pub(super) fn close(&mut self, node: Node, stream: u64) -> Packet {
        Packet { number: self.sent.get(&(node, stream)).copied().unwrap_or(0), bytes: None }
    }

    pub(super) fn receive(&mut self, node: Node, stream: u64, packet: Packet) -> Vec<Said> {
        let Received { next, later } = self.received.entry((node, stream)).or_default();
        if let Some(bytes) = packet.bytes
            && packet.number >= *next
        {
            later.insert(packet.number, bytes);
        }
        let mut said = Vec::new();
        while let Some(bytes) = later.remove(next) {
            *next += 1;
            said.push(Said::from_cbor(&bytes).expect("a message that this node can read"));
        }
        said
    }
}
