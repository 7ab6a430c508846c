//! Messages as bytes.

use bytes::Bytes;
use kith_dht::defaults::{MAX_CARDS, MAX_CERTIFICATE_BYTES, MAX_MESSAGE_BYTES, MAX_VALUE_BYTES};
use kith_dht::{Body, Card, Contact, Gate, Message, MessageError, Parcel, Refusal, Value};
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::Timestamp;

/// Believes everything that these tests write.
struct Open;

impl Gate for Open {
    fn contact(&mut self, card: &Card, _: Timestamp) -> Option<Contact> {
        (card.certificate[..] != b"refused"[..])
            .then(|| contact(&card.certificate, &card.address.to_string()))
    }

    fn value(&mut self, parcel: &Parcel, _: Timestamp) -> Option<Value> {
        (parcel.kind == 1).then(|| value(&parcel.bytes))
    }
}

fn contact(certificate: &[u8], address: &str) -> Contact {
    Contact {
        id: NodeId::from_bytes([3; 32]),
        fingerprint: Fingerprint::from_bytes([4; 32]),
        address: address.parse().unwrap(),
        certificate: Bytes::copy_from_slice(certificate),
        not_after: Timestamp::MAX,
    }
}

fn value(bytes: &[u8]) -> Value {
    Value {
        kind: 1,
        key: NodeId::from_bytes([5; 32]),
        publisher: Fingerprint::from_bytes([6; 32]),
        version: 7,
        expires: Timestamp(8),
        bytes: Bytes::copy_from_slice(bytes),
    }
}

fn read(bytes: &[u8]) -> Result<Message, MessageError> {
    Message::read(bytes)?.admit(&mut Open, Timestamp(0))
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_message_is_read_as_it_was_written() {
    let place = NodeId::from_bytes([9; 32]);
    let nodes = vec![contact(b"one", "192.0.2.1:7117"), contact(b"", "[2001:db8::1]:1")];
    let refusals = [
        Refusal::Expired,
        Refusal::TooLong,
        Refusal::TooLarge,
        Refusal::Older,
        Refusal::TooFar,
        Refusal::Quota,
        Refusal::Rate,
        Refusal::Full,
    ];
    let bodies = [
        Body::Ping { is_new: true },
        Body::Ping { is_new: false },
        Body::Find(place),
        Body::Get(place),
        Body::Store(value(b"content")),
        Body::Block { bits: 4, digest: [1; 32], after: place },
        Body::Gone(place),
        Body::Leave,
        Body::Pong,
        Body::Nodes(nodes.clone()),
        Body::Found(value(b"")),
        Body::Stored,
        Body::Page { nodes, more: true },
        Body::Page { nodes: Vec::new(), more: false },
        Body::Same,
    ];
    for body in bodies.into_iter().chain(refusals.map(Body::Refused)) {
        let message = Message { id: u64::MAX - 1, body };
        let bytes = message.to_bytes();
        assert_eq!(read(&bytes).as_ref(), Ok(&message));
        for length in 0..bytes.len() {
            assert!(Message::read(&bytes[..length]).is_err(), "{message:?} cut to {length} bytes");
        }
        assert!(Message::read(&[&bytes[..], &[0]].concat()).is_err(), "{message:?} with a byte more");
    }
}

/// The example of docs/protocol-dht.md.
#[test]
fn the_page_shows_the_bytes_that_are_written() {
    let question = Message { id: 7, body: Body::Find(NodeId::from_bytes([9; 32])) };
    let page = include_str!("../../../../docs/protocol-dht.md");
    let example = page.split("```").nth(1).unwrap();
    let mut lines = example.trim().lines();
    assert_eq!(hex(lines.next().unwrap()), question.to_bytes());
    let answer = Message { id: 7, body: Body::Nodes(vec![contact(&hex("c0ffee"), "192.0.2.1:7117")]) };
    assert_eq!(hex(lines.next().unwrap()), answer.to_bytes());
}

#[test]
fn what_is_too_large_is_refused_and_the_largest_is_read() {
    let largest = contact(&[1; MAX_CERTIFICATE_BYTES], "[2001:db8::1]:1");
    let page = Message { id: 1, body: Body::Page { nodes: vec![largest.clone(); MAX_CARDS], more: true } };
    let bytes = page.to_bytes();
    assert!(bytes.len() <= MAX_MESSAGE_BYTES && read(&bytes) == Ok(page));
    let store = |size| Message { id: 1, body: Body::Store(value(&vec![7; size])) };
    assert!(read(&store(MAX_VALUE_BYTES).to_bytes()).is_ok());
    assert_eq!(read(&store(MAX_VALUE_BYTES + 1).to_bytes()), Err(MessageError::Malformed));
    let wide = contact(&[1; MAX_CERTIFICATE_BYTES + 1], "192.0.2.1:1");
    assert!(read(&Message { id: 1, body: Body::Nodes(vec![wide]) }.to_bytes()).is_err());
    let mut many =
        Message { id: 1, body: Body::Nodes(vec![contact(b"", "192.0.2.1:1"); MAX_CARDS]) }.to_bytes();
    many[9] += 1;
    many.extend_from_slice(&[0, 0, 4, 192, 0, 2, 1, 0, 1]);
    assert_eq!(read(&many), Err(MessageError::Malformed));
    let long = vec![0; MAX_MESSAGE_BYTES + 1];
    assert_eq!(read(&long), Err(MessageError::Length(long.len())));
}

#[test]
fn a_card_that_is_refused_takes_nothing_from_the_others() {
    let nodes = vec![contact(b"refused", "192.0.2.1:1"), contact(b"good", "192.0.2.2:1")];
    let message = Message { id: 1, body: Body::Nodes(nodes) };
    let Ok(Message { body: Body::Nodes(left), .. }) = read(&message.to_bytes()) else { panic!("it is read") };
    assert_eq!(left, [contact(b"good", "192.0.2.2:1")]);
    let other = Value { kind: 2, ..value(b"content") };
    assert_eq!(read(&Message { id: 1, body: Body::Found(other) }.to_bytes()), Err(MessageError::Value));
}
