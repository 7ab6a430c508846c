//! The messages of `dht/1` and their bytes: `kind u8 ‖ id u64 ‖ body`, all numbers big-endian.
//!
//! | kind | from | body | meaning |
//! | --- | --- | --- | --- |
//! | 0 | asker | `new u8` | are you there? `new` is 1 where the asker has just come and has no values; 16 |
//! | 1 | asker | `place [32]` | whom do you know nearest to this place? 17 |
//! | 2 | asker | `key [32]` | do you have the value of this key? 18, or 17 for whom to ask |
//! | 3 | asker | `parcel` | keep this value; 19 or 20 |
//! | 4 | asker | `bits u8 ‖ digest [32] ‖ after [32]` | who is in the block that shares `bits` bits with me, beyond the place `after`? 21, or 22 where the digest says that both know the same |
//! | 5 | node | `id [32]` | this neighbour did not answer me; no answer |
//! | 6 | node | – | I am leaving; no answer |
//! | 16 | asked | – | here I am |
//! | 17 | asked | `count u8 ‖ card …` | these are the nearest |
//! | 18 | asked | `parcel` | here it is |
//! | 19 | asked | – | kept |
//! | 20 | asked | `reason u8` | not kept |
//! | 21 | asked | `more u8 ‖ count u8 ‖ card …` | these are in the block, ascending; more than these where `more` is 1 |
//! | 22 | asked | – | I know nobody whom you do not |
//!
//! `card` is `length u16 ‖ certificate ‖ address`, an address `4 ‖ ip [4] ‖ port u16` or `6 ‖ ip [16] ‖ port u16`.
//! `parcel` is `kind u8 ‖ key [32] ‖ length u16 ‖ bytes`. An answer has the id of its question.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use kith_identity::membership::NodeId;
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};

use crate::contact::Contact;
use crate::defaults::{MAX_CARDS, MAX_CERTIFICATE_BYTES, MAX_MESSAGE_BYTES, MAX_VALUE_BYTES};
use crate::gate::Gate;
use crate::value::{Refusal, Value};

/// A contact as a peer tells of it: nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// What may be its certificate.
    pub certificate: Bytes,
    /// Where it may be reached.
    pub address: SocketAddr,
}

/// A value as a peer tells it: nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// What sort of value it should be, which says how it proves itself.
    pub kind: u8,
    /// Where it should be kept.
    pub key: NodeId,
    /// Its content and its proof.
    pub bytes: Bytes,
}

/// What nodes say. As it comes out of bytes it holds cards and parcels; [`Message::admit`] makes contacts and values of
/// them, and only these the machine takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<C = Contact, V = Value> {
    /// Tells a question from others of the same node; its answer has the same.
    pub id: u64,
    /// What is said.
    pub body: Body<C, V>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<C = Contact, V = Value> {
    /// Are you there?
    Ping {
        /// The asker has just come, and has no values yet.
        is_new: bool,
    },
    /// Whom do you know nearest to this place?
    Find(NodeId),
    /// Do you have the value of this key, or whom do you know nearest to it?
    Get(NodeId),
    /// Keep this value.
    Store(V),
    /// Who is in a block around the asker?
    Block {
        /// How many bits its places share with the asker's.
        bits: u8,
        /// Whom the asker knows there ([`Routes::digest`](crate::Routes::digest)).
        digest: [u8; 32],
        /// Only those beyond this place.
        after: NodeId,
    },
    /// A neighbour did not answer.
    Gone(NodeId),
    /// The sender is leaving.
    Leave,
    /// Here I am.
    Pong,
    /// The nearest.
    Nodes(Vec<C>),
    /// The value that was asked for.
    Found(V),
    /// The value is kept.
    Stored,
    /// The value is not kept.
    Refused(Refusal),
    /// Nodes of a block, ascending.
    Page {
        /// They.
        nodes: Vec<C>,
        /// Whether there are more beyond the last of them.
        more: bool,
    },
    /// Both know the same nodes of a block.
    Same,
}

/// What is wrong with a message: the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message may not be {0} bytes long")]
    Length(usize),
    /// Not of any message's form.
    #[error("a message is malformed")]
    Malformed,
    /// The value does not prove that it belongs at its key.
    #[error("a value does not prove itself")]
    Value,
}

impl From<WireError> for MessageError {
    fn from(_: WireError) -> Self {
        MessageError::Malformed
    }
}

impl Card {
    /// Reads a card alone; it would be written the same again.
    ///
    /// # Errors
    /// Where it has no card's form.
    pub fn read(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes);
        let card = read_card(&mut reader)?;
        reader.finish()?;
        Ok(card)
    }
}

impl Contact {
    /// The bytes of its card.
    pub fn to_card(&self) -> Vec<u8> {
        let mut out = Writer::new();
        write_card(&mut out, self);
        out.finish()
    }
}

impl Message<Card, Parcel> {
    /// Reads a message; it would be written the same again.
    ///
    /// # Errors
    /// Where it is too long, or has no message's form.
    pub fn read(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::Length(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let (kind, id) = (reader.u8()?, reader.u64()?);
        let body = read_body(kind, &mut reader)?;
        reader.finish()?;
        Ok(Message { id, body })
    }

    /// What is true of a message: cards that the gate refuses are left out.
    ///
    /// # Errors
    /// Where the gate refuses its value.
    pub fn admit(self, gate: &mut impl Gate, now: Timestamp) -> Result<Message, MessageError> {
        let body = match self.body {
            Body::Ping { is_new } => Body::Ping { is_new },
            Body::Find(target) => Body::Find(target),
            Body::Get(key) => Body::Get(key),
            Body::Store(parcel) => Body::Store(gate.value(&parcel, now).ok_or(MessageError::Value)?),
            Body::Block { bits, digest, after } => Body::Block { bits, digest, after },
            Body::Gone(id) => Body::Gone(id),
            Body::Leave => Body::Leave,
            Body::Pong => Body::Pong,
            Body::Nodes(cards) => Body::Nodes(contacts(&cards, gate, now)),
            Body::Found(parcel) => Body::Found(gate.value(&parcel, now).ok_or(MessageError::Value)?),
            Body::Stored => Body::Stored,
            Body::Refused(reason) => Body::Refused(reason),
            Body::Page { nodes, more } => Body::Page { nodes: contacts(&nodes, gate, now), more },
            Body::Same => Body::Same,
        };
        Ok(Message { id: self.id, body })
    }
}

impl Message {
    /// The bytes of the message.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(self.body.kind()).u64(self.id);
        match &self.body {
            Body::Leave | Body::Pong | Body::Stored | Body::Same => {}
            Body::Ping { is_new } => {
                out.u8((*is_new).into());
            }
            Body::Find(place) | Body::Get(place) | Body::Gone(place) => {
                out.bytes(place.as_bytes());
            }
            Body::Store(value) | Body::Found(value) => write_parcel(&mut out, value),
            Body::Block { bits, digest, after } => {
                out.u8(*bits).bytes(digest).bytes(after.as_bytes());
            }
            Body::Nodes(nodes) => write_cards(&mut out, nodes),
            Body::Refused(reason) => {
                out.u8(reason.code());
            }
            Body::Page { nodes, more } => {
                out.u8((*more).into());
                write_cards(&mut out, nodes);
            }
        }
        out.finish()
    }
}

impl<C, V> Body<C, V> {
    /// Whether it answers something.
    pub fn is_answer(&self) -> bool {
        self.kind() >= 16
    }

    fn kind(&self) -> u8 {
        match self {
            Body::Ping { .. } => 0,
            Body::Find(_) => 1,
            Body::Get(_) => 2,
            Body::Store(_) => 3,
            Body::Block { .. } => 4,
            Body::Gone(_) => 5,
            Body::Leave => 6,
            Body::Pong => 16,
            Body::Nodes(_) => 17,
            Body::Found(_) => 18,
            Body::Stored => 19,
            Body::Refused(_) => 20,
            Body::Page { .. } => 21,
            Body::Same => 22,
        }
    }
}

fn contacts(cards: &[Card], gate: &mut impl Gate, now: Timestamp) -> Vec<Contact> {
    cards.iter().filter_map(|card| gate.contact(card, now)).collect()
}

fn read_body(kind: u8, reader: &mut Reader<'_>) -> Result<Body<Card, Parcel>, MessageError> {
    Ok(match kind {
        0 => Body::Ping { is_new: read_bool(reader)? },
        1 => Body::Find(read_id(reader)?),
        2 => Body::Get(read_id(reader)?),
        3 => Body::Store(read_parcel(reader)?),
        4 => Body::Block { bits: reader.u8()?, digest: reader.array()?, after: read_id(reader)? },
        5 => Body::Gone(read_id(reader)?),
        6 => Body::Leave,
        16 => Body::Pong,
        17 => Body::Nodes(read_cards(reader)?),
        18 => Body::Found(read_parcel(reader)?),
        19 => Body::Stored,
        20 => Body::Refused(Refusal::from_code(reader.u8()?).ok_or(MessageError::Malformed)?),
        21 => Body::Page { more: read_bool(reader)?, nodes: read_cards(reader)? },
        22 => Body::Same,
        _ => return Err(MessageError::Malformed),
    })
}

fn read_id(reader: &mut Reader<'_>) -> Result<NodeId, MessageError> {
    Ok(NodeId::from_bytes(reader.array()?))
}

fn read_bool(reader: &mut Reader<'_>) -> Result<bool, MessageError> {
    match reader.u8()? {
        flag @ 0..=1 => Ok(flag == 1),
        _ => Err(MessageError::Malformed),
    }
}

fn read_cards(reader: &mut Reader<'_>) -> Result<Vec<Card>, MessageError> {
    let count = usize::from(reader.u8()?);
    if count > MAX_CARDS {
        return Err(MessageError::Malformed);
    }
    (0..count).map(|_| read_card(reader)).collect()
}

fn read_card(reader: &mut Reader<'_>) -> Result<Card, MessageError> {
    let length = usize::from(reader.u16()?);
    if length > MAX_CERTIFICATE_BYTES {
        return Err(MessageError::Malformed);
    }
    let certificate = Bytes::copy_from_slice(reader.bytes(length)?);
    let ip = match reader.u8()? {
        4 => IpAddr::from(reader.array::<4>()?),
        6 => IpAddr::from(reader.array::<16>()?),
        _ => return Err(MessageError::Malformed),
    };
    Ok(Card { certificate, address: SocketAddr::new(ip, reader.u16()?) })
}

fn read_parcel(reader: &mut Reader<'_>) -> Result<Parcel, MessageError> {
    let (kind, key, length) = (reader.u8()?, read_id(reader)?, usize::from(reader.u16()?));
    if length > MAX_VALUE_BYTES {
        return Err(MessageError::Malformed);
    }
    Ok(Parcel { kind, key, bytes: Bytes::copy_from_slice(reader.bytes(length)?) })
}

fn write_cards(out: &mut Writer, nodes: &[Contact]) {
    let nodes = &nodes[..nodes.len().min(MAX_CARDS)];
    out.u8(nodes.len() as u8);
    nodes.iter().for_each(|contact| write_card(out, contact));
}

fn write_card(out: &mut Writer, contact: &Contact) {
    out.u16(contact.certificate.len() as u16).bytes(&contact.certificate);
    match contact.address.ip() {
        IpAddr::V4(ip) => out.u8(4).bytes(&ip.octets()),
        IpAddr::V6(ip) => out.u8(6).bytes(&ip.octets()),
    };
    out.u16(contact.address.port());
}

fn write_parcel(out: &mut Writer, value: &Value) {
    out.u8(value.kind).bytes(value.key.as_bytes());
    out.u16(value.bytes.len() as u16).bytes(&value.bytes);
}
