//! Entry points for fuzzing: ordinary functions that assert what must hold for any bytes.

use bytes::Bytes;
use kith_identity::membership::NodeId;
use kith_identity::{Fingerprint, PublicKey};
use kith_sansio::{Machine, Now, SeededRng, Span, Timestamp};

use crate::blinded::{BLINDED, Day, padded, place, unpadded};
use crate::contact::Contact;
use crate::defaults::{Config, MAX_MESSAGE_BYTES, REGION_SLACK};
use crate::gate::Gate;
use crate::message::{Card, Message, Parcel};
use crate::node::{Input, Node, Output};
use crate::value::Value;

/// Small ones, which are full soon.
const REGION: usize = 8;
const BUCKET: usize = 4;

/// Lets everybody and everything in; a card's certificate is its id.
struct Open;

impl Gate for Open {
    fn contact(&mut self, card: &Card, _: Timestamp) -> Option<Contact> {
        let mut id = [0; 32];
        let length = card.certificate.len().min(id.len());
        id[..length].copy_from_slice(&card.certificate[..length]);
        let fingerprint = Fingerprint::from_bytes(id);
        let certificate = card.certificate.clone();
        let (id, address) = (NodeId::from_bytes(id), card.address);
        Some(Contact { id, fingerprint, address, certificate, not_after: Timestamp::MAX })
    }

    fn value(&mut self, parcel: &Parcel, now: Timestamp) -> Option<Value> {
        let Parcel { kind, key, bytes } = parcel.clone();
        let publisher = Fingerprint::from_bytes([kind; 32]);
        Some(Value { kind, key, publisher, version: 1, expires: now.plus_secs(600), bytes })
    }
}

/// Any bytes are refused, or are a message, or a card, that is written as it was read.
pub fn fuzz_message(data: &[u8]) {
    if let Ok(card) = Card::read(data) {
        let contact = Open.contact(&card, Timestamp(0)).map(|contact| contact.to_card());
        assert_eq!(contact.as_deref(), Some(data), "cards have one form");
    }
    let Ok(message) = Message::read(data) else { return };
    let Ok(message) = message.admit(&mut Open, Timestamp(0)) else { return };
    assert_eq!(message.to_bytes(), data, "messages have one form");
}

/// Any bytes are refused as a blinded value, or are kept as they came and end within the day; and what is sealed in one
/// has one form.
pub fn fuzz_blinded(data: &[u8]) {
    if let Some(set) = unpadded(data) {
        assert_eq!(padded(set).as_deref(), Some(data), "what is sealed has one form");
    }
    // The day of the value in the corpus.
    let now = Day(20_484).begins();
    let Some(key) = data.first_chunk().and_then(|key| PublicKey::from_bytes(key).ok()) else { return };
    let parcel = Parcel { kind: BLINDED, key: place(&key), bytes: Bytes::copy_from_slice(data) };
    let Some(value) = Value::from_parcel(&parcel, now) else { return };
    assert_eq!((&value.bytes[..], value.key), (data, parcel.key), "values are kept as they came");
    assert!(value.expires > now && value.expires.secs_since(now) <= 2 * 86_400, "values end soon");
}

/// Any messages from members leave a node in order: what it says can be read, and it keeps no more than it may. Each
/// message comes after its length in two bytes and a byte that says who sent it.
pub fn fuzz_node(data: &[u8]) {
    let config = Config { region: REGION, bucket: BUCKET, ..Config::default() };
    let mut node = Node::new(member(0x55), config, 64);
    let (mut rng, mut now, mut rest) = (SeededRng::new(1), Now::default(), data);
    let wishes = [
        Input::Join(vec![member(1), member(0x54)]),
        Input::Get { op: 1, key: NodeId::from_bytes([3; 32]) },
        Input::Put { op: 2, value: sample() },
    ];
    for wish in wishes {
        node.handle_input(now, wish, &mut rng);
        drain(&mut node);
    }
    while let Some(([high, low, who], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        now.time += Span::millis(u64::from(*who) * 20);
        now.utc = Timestamp(now.time.0 / 1_000_000);
        if node.poll_timeout().is_some_and(|due| due <= now.time) {
            node.handle_timeout(now, &mut rng);
            drain(&mut node);
        }
        if let Ok(message) = Message::read(bytes).and_then(|message| message.admit(&mut Open, now.utc)) {
            node.handle_input(now, Input::Heard { from: member(*who), message }, &mut rng);
            drain(&mut node);
        }
    }
    assert!(node.store().is_in_order(), "what is kept is counted and bounded");
    let routes = node.routes();
    assert!(routes.region().len() <= REGION * REGION_SLACK, "the region is bounded");
    assert!(
        routes.len() - routes.region().len() <= BUCKET * usize::from(routes.block().bits()),
        "and the table"
    );
}

fn drain(node: &mut Node) {
    while let Some(output) = node.poll_output() {
        let Output::Send { message, .. } = output else { continue };
        let bytes = message.to_bytes();
        assert!(bytes.len() <= MAX_MESSAGE_BYTES, "a message of {} bytes", bytes.len());
        assert!(Message::read(&bytes).is_ok(), "what a node says can be read");
    }
}

fn member(number: u8) -> Contact {
    let certificate = Bytes::copy_from_slice(&[number; 32]);
    let address = ([10, number, 0, 1], 7117).into();
    let fingerprint = Fingerprint::from_bytes([number; 32]);
    let id = NodeId::from_bytes([number; 32]);
    Contact { id, fingerprint, address, certificate, not_after: Timestamp::MAX }
}

fn sample() -> Value {
    Value {
        kind: 1,
        key: NodeId::from_bytes([4; 32]),
        publisher: Fingerprint::from_bytes([1; 32]),
        version: 1,
        expires: Timestamp(60),
        bytes: Bytes::from_static(b"value"),
    }
}
