//! The messages of `delegate/1`: each is `u24 length ‖ CBOR`, the length big-endian.
//!
//! | from | CBOR array | meaning |
//! | --- | --- | --- |
//! | subscriber | `[0, epoch or null, revision]` | the list that it holds; null and 0 for none |
//! | subscriber | `[1, revision]` | the list with this revision is in force |
//! | delegator | `[2, epoch, revision, base or null, lease, put, gone, more]` | the next list, or a part of the way there |
//! | delegator | `[3, epoch, revision]` | this list still holds |
//!
//! An epoch is 16 bytes, drawn when the delegator starts; revisions grow within one. A base of null says that the list
//! is told from its beginning. The lease, in seconds, is how long the list holds after each word of the delegator.
//! `put` is an array of entries, `gone` of fingerprints (32 bytes); where `more` is true another message with the same
//! epoch, revision and base follows, and the list changes with the last of them.
//!
//! An entry is `[fingerprint, name, authority or null, [hint …], [[protocol or null, in or null, out or null] …]]`, its
//! rights ordered by protocol, null (every protocol) first. `in` and `out` say until when the peer may open streams
//! here, and this node there: seconds since 1970, 0 for good, null for not at all.
//!
//! CBOR is canonical (RFC 8949 §4.2.1): a message that would be written otherwise is refused.

use std::convert::Infallible;
use std::sync::Arc;

use kith_identity::Fingerprint;
use kith_sansio::Timestamp;
use minicbor::data::Type;
use minicbor::encode::Write;
use minicbor::{Decoder, Encoder};

use super::list::{Card, Delta, Entry};
use super::rights::{Rights, Until, Ways};
use super::{MAX_HINTS, MAX_PROTOCOLS};
use crate::Protocol;

/// Largest message in bytes, without its length.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Largest message of a subscriber in bytes, without its length.
pub const MAX_WORD_BYTES: usize = 64;
/// Bytes of a message's length.
pub const LENGTH_BYTES: usize = 3;
/// An update is ended before it becomes larger than this, in bytes; the largest entry fits between the two.
const FULL_BYTES: usize = 56 << 10;
/// Longest text of an entry in bytes, whatever it is.
const MAX_TEXT_BYTES: usize = 512;

/// One life of a delegator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(pub [u8; 16]);

/// What the two sides say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The subscriber holds this list, or none.
    Subscribe(Option<(Epoch, u64)>),
    /// The subscriber has this list in force.
    Applied(u64),
    /// The delegator changes the list.
    Update(Update),
    /// The delegator says that the list holds.
    Alive(Epoch, u64),
}

/// A change of a list, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The delegator's life.
    pub epoch: Epoch,
    /// The list that this leads to.
    pub revision: u64,
    /// The list that this begins at; `None` for an empty one.
    pub base: Option<u64>,
    /// How long the list holds after each word of the delegator, in seconds.
    pub lease_secs: u32,
    /// What changes.
    pub delta: Delta,
    /// Whether another part follows.
    pub more: bool,
}

/// What is wrong with a message: the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A length of 0, or beyond [`MAX_MESSAGE_BYTES`].
    #[error("a message may not be {0} bytes long")]
    Length(usize),
    /// Not of any message's form, or not canonical.
    #[error("a message is malformed")]
    Malformed,
}

impl From<minicbor::decode::Error> for MessageError {
    fn from(_: minicbor::decode::Error) -> Self {
        MessageError::Malformed
    }
}

/// Reads and checks the length of a message.
pub fn length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, MessageError> {
    let [a, b, c] = bytes;
    match u32::from_be_bytes([0, a, b, c]) as usize {
        length @ 1..=MAX_MESSAGE_BYTES => Ok(length),
        length => Err(MessageError::Length(length)),
    }
}

impl Message {
    /// The message with its length before it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let cbor = self.cbor();
        let [.., a, b, c] = cbor.len().to_be_bytes();
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + cbor.len());
        bytes.extend_from_slice(&[a, b, c]);
        bytes.extend_from_slice(&cbor);
        bytes
    }

    /// Reads a message without its length.
    pub fn from_cbor(bytes: &[u8]) -> Result<Message, MessageError> {
        if bytes.is_empty() || bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::Length(bytes.len()));
        }
        let message = read(&mut Decoder::new(bytes))?;
        if message.cbor() == bytes { Ok(message) } else { Err(MessageError::Malformed) }
    }

    fn cbor(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        // Writing to memory cannot fail.
        let _infallible = match self {
            Message::Subscribe(held) => write_subscribe(&mut encoder, *held),
            Message::Applied(revision) => write_applied(&mut encoder, *revision),
            Message::Update(update) => write_update(&mut encoder, update),
            Message::Alive(epoch, revision) => write_alive(&mut encoder, *epoch, *revision),
        };
        encoder.into_writer()
    }
}

/// The messages that lead from the list `base` to `revision` by `delta`; at least one.
pub fn updates(
    epoch: Epoch,
    base: Option<u64>,
    revision: u64,
    lease_secs: u32,
    delta: Delta,
) -> Vec<Message> {
    let mut parts = vec![Delta::default()];
    let mut bytes = 0;
    for (size, step) in delta
        .gone
        .into_iter()
        .map(|peer| (34, Err(peer)))
        .chain(delta.put.into_iter().map(|entry| (entry_bytes(&entry), Ok(entry))))
    {
        if bytes + size > FULL_BYTES {
            parts.push(Delta::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            match step {
                Ok(entry) => part.put.push(entry),
                Err(peer) => part.gone.push(peer),
            }
        }
    }
    let last = parts.len() - 1;
    let part = |(number, delta)| Update { epoch, revision, base, lease_secs, delta, more: number < last };
    parts.into_iter().enumerate().map(part).map(Message::Update).collect()
}

/// How long an entry is in a message.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    let mut encoder = Encoder::new(Counted(0));
    let _infallible = write_entry(&mut encoder, entry);
    encoder.into_writer().0
}

/// Counts what is written.
struct Counted(usize);

impl Write for Counted {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0 += bytes.len();
        Ok(())
    }
}

type Written = Result<(), minicbor::encode::Error<Infallible>>;
type Out = Encoder<Vec<u8>>;

fn write_subscribe(out: &mut Out, held: Option<(Epoch, u64)>) -> Written {
    out.array(3)?.u8(0)?;
    match held {
        Some((epoch, revision)) => out.bytes(&epoch.0)?.u64(revision)?,
        None => out.null()?.u64(0)?,
    };
    Ok(())
}

fn write_applied(out: &mut Out, revision: u64) -> Written {
    out.array(2)?.u8(1)?.u64(revision)?;
    Ok(())
}

fn write_alive(out: &mut Out, epoch: Epoch, revision: u64) -> Written {
    out.array(3)?.u8(3)?.bytes(&epoch.0)?.u64(revision)?;
    Ok(())
}

fn write_update(out: &mut Out, update: &Update) -> Written {
    out.array(8)?.u8(2)?.bytes(&update.epoch.0)?.u64(update.revision)?;
    match update.base {
        Some(base) => out.u64(base)?,
        None => out.null()?,
    };
    out.u32(update.lease_secs)?.array(update.delta.put.len() as u64)?;
    update.delta.put.iter().try_for_each(|entry| write_entry(out, entry))?;
    out.array(update.delta.gone.len() as u64)?;
    for peer in &update.delta.gone {
        out.bytes(peer.as_bytes())?;
    }
    out.bool(update.more)?;
    Ok(())
}

fn write_entry(out: &mut Encoder<impl Write<Error = Infallible>>, entry: &Entry) -> Written {
    out.array(5)?.bytes(entry.peer.as_bytes())?.str(entry.card.name.as_str())?;
    match &entry.card.authority {
        Some(authority) => out.str(&authority.to_string())?,
        None => out.null()?,
    };
    out.array(entry.card.hints.len() as u64)?;
    for hint in &entry.card.hints {
        out.str(&hint.to_string())?;
    }
    let rows = entry.rights.rows();
    out.array(rows.len() as u64)?;
    for (protocol, ways) in rows {
        out.array(3)?;
        match protocol {
            Some(protocol) => out.str(protocol.as_str())?,
            None => out.null()?,
        };
        write_until(out, ways.incoming)?;
        write_until(out, ways.outgoing)?;
    }
    Ok(())
}

fn write_until(out: &mut Encoder<impl Write<Error = Infallible>>, until: Option<Until>) -> Written {
    match until {
        None => out.null()?,
        Some(Until::Forever) => out.u64(0)?,
        // Nobody means the first second of 1970.
        Some(Until::Time(end)) => out.u64(end.0.max(1))?,
    };
    Ok(())
}

fn read(from: &mut Decoder<'_>) -> Result<Message, MessageError> {
    let fields = from.array()?.ok_or(MessageError::Malformed)?;
    let message = match (from.u8()?, fields) {
        (0, 3) => {
            let epoch = maybe(from, epoch)?;
            let revision = from.u64()?;
            match epoch {
                Some(epoch) => Message::Subscribe(Some((epoch, revision))),
                None if revision == 0 => Message::Subscribe(None),
                None => return Err(MessageError::Malformed),
            }
        }
        (1, 2) => Message::Applied(from.u64()?),
        (2, 8) => Message::Update(update(from)?),
        (3, 3) => Message::Alive(epoch(from)?, from.u64()?),
        _ => return Err(MessageError::Malformed),
    };
    if from.position() == from.input().len() { Ok(message) } else { Err(MessageError::Malformed) }
}

fn update(from: &mut Decoder<'_>) -> Result<Update, MessageError> {
    let (epoch, revision) = (epoch(from)?, from.u64()?);
    let base = maybe(from, |from| Ok(from.u64()?))?;
    let lease_secs = from.u32()?;
    let mut delta = Delta::default();
    // As many as the message has bytes for; nothing is reserved by what it says.
    for _ in 0..count(from)? {
        delta.put.push(Arc::new(entry(from)?));
    }
    for _ in 0..count(from)? {
        delta.gone.push(fingerprint(from)?);
    }
    Ok(Update { epoch, revision, base, lease_secs, delta, more: from.bool()? })
}

fn entry(from: &mut Decoder<'_>) -> Result<Entry, MessageError> {
    exactly(from, 5)?;
    let peer = fingerprint(from)?;
    let name = text(from)?.parse().map_err(|_| MessageError::Malformed)?;
    let authority = maybe(from, |from| text(from)?.parse().map_err(|_| MessageError::Malformed))?;
    let mut hints = Vec::new();
    for _ in 0..at_most(from, MAX_HINTS)? {
        hints.push(text(from)?.parse().map_err(|_| MessageError::Malformed)?);
    }
    let mut rights = Rights::default();
    for _ in 0..at_most(from, MAX_PROTOCOLS + 1)? {
        exactly(from, 3)?;
        let protocol: Option<Protocol> =
            maybe(from, |from| text(from)?.parse().map_err(|_| MessageError::Malformed))?;
        let ways = Ways { incoming: maybe(from, until)?, outgoing: maybe(from, until)? };
        if !rights.take_row(protocol, ways) {
            return Err(MessageError::Malformed);
        }
    }
    Ok(Entry { peer, card: Card { name, authority, hints }, rights })
}

fn until(from: &mut Decoder<'_>) -> Result<Until, MessageError> {
    Ok(match from.u64()? {
        0 => Until::Forever,
        end => Until::Time(Timestamp(end)),
    })
}

fn epoch(from: &mut Decoder<'_>) -> Result<Epoch, MessageError> {
    from.bytes()?.try_into().map(Epoch).map_err(|_| MessageError::Malformed)
}

fn fingerprint(from: &mut Decoder<'_>) -> Result<Fingerprint, MessageError> {
    from.bytes()?.try_into().map(Fingerprint::from_bytes).map_err(|_| MessageError::Malformed)
}

fn text<'a>(from: &mut Decoder<'a>) -> Result<&'a str, MessageError> {
    let text = from.str()?;
    if text.len() <= MAX_TEXT_BYTES { Ok(text) } else { Err(MessageError::Malformed) }
}

fn maybe<'a, T>(
    from: &mut Decoder<'a>,
    read: impl FnOnce(&mut Decoder<'a>) -> Result<T, MessageError>,
) -> Result<Option<T>, MessageError> {
    if from.datatype()? == Type::Null {
        from.null()?;
        return Ok(None);
    }
    read(from).map(Some)
}

fn count(from: &mut Decoder<'_>) -> Result<u64, MessageError> {
    from.array()?.ok_or(MessageError::Malformed)
}

fn at_most(from: &mut Decoder<'_>, most: usize) -> Result<u64, MessageError> {
    let count = count(from)?;
    if count <= most as u64 { Ok(count) } else { Err(MessageError::Malformed) }
}

fn exactly(from: &mut Decoder<'_>, fields: u64) -> Result<(), MessageError> {
    if count(from)? == fields { Ok(()) } else { Err(MessageError::Malformed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delegator::{Direction, MAX_MEMBERS};

    fn sample(n: u8) -> Entry {
        let mut rights = Rights::default();
        rights.allow(None, Direction::In, Until::Forever);
        rights.allow(Some(Protocol::new("ping/1")), Direction::Both, Until::Time(Timestamp(1_800_000_000)));
        let hints = vec!["quic://192.0.2.1:7117".parse().unwrap()];
        let authority = Some("example.org".parse().unwrap());
        let card = Card { name: "hub".parse().unwrap(), authority, hints };
        Entry { peer: Fingerprint::from_bytes([n; 32]), card, rights }
    }

    /// `[2, 16 × 0a, 7, 6, 3600, [entry], [32 × 02], false]`.
    const VECTOR: &str = "8802500a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0706190e108185582001010101010101010101\
        0101010101010101010101010101010101010101010163687562 6b6578616d706c652e6f726781757175\
        69633a2f2f3139322e302e322e313a373131378283f600f68366 70696e672f311a6b49d2001a6b49d200\
        8158200202020202020202020202020202020202020202020202020202020202020202f4";

    #[test]
    fn an_update_is_written_as_documented() {
        let delta = Delta { put: vec![Arc::new(sample(1))], gone: vec![Fingerprint::from_bytes([2; 32])] };
        let update = Update {
            epoch: Epoch([10; 16]),
            revision: 7,
            base: Some(6),
            lease_secs: 3600,
            delta,
            more: false,
        };
        let bytes = Message::Update(update.clone()).to_bytes();
        let hex: String = bytes[LENGTH_BYTES..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, VECTOR.replace(' ', ""));
        assert_eq!(length(bytes[..LENGTH_BYTES].try_into().unwrap()), Ok(bytes.len() - LENGTH_BYTES));
        assert_eq!(Message::from_cbor(&bytes[LENGTH_BYTES..]), Ok(Message::Update(update)));
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_read() {
        assert_eq!(length([0, 0, 0]), Err(MessageError::Length(0)));
        assert_eq!(length([1, 0, 0]), Ok(MAX_MESSAGE_BYTES));
        assert_eq!(length([1, 0, 1]), Err(MessageError::Length(MAX_MESSAGE_BYTES + 1)));
        assert!(Message::from_cbor(&vec![0x80; MAX_MESSAGE_BYTES + 1]).is_err());
    }

    #[test]
    fn what_is_not_canonical_or_of_another_form_is_refused() {
        let good = Message::Applied(5).to_bytes();
        assert_eq!(&good[LENGTH_BYTES..], [0x82, 0x01, 0x05]);
        for wrong in [
            &[0x82, 0x01, 0x18, 0x05][..],
            &[0x9f, 0x01, 0x05, 0xff],
            &[0x82, 0x01, 0x05, 0x00],
            &[0x83, 0x01, 0x05, 0x00],
            &[0x82, 0x09, 0x05],
            &[0x83, 0x00, 0xf6, 0x01],
            &[0x82],
            b"",
        ] {
            assert!(Message::from_cbor(wrong).is_err(), "{wrong:02x?}");
        }
    }

    #[test]
    fn the_largest_list_is_split_into_messages_that_fit() {
        let largest = {
            let label = "a".repeat(61);
            let host = format!("{label}.{label}.{label}.{}", "a".repeat(60));
            let hints = (1..=MAX_HINTS).map(|n| format!("quic://{host}:6550{n}").parse().unwrap());
            let mut rights = Rights::default();
            for n in 0..MAX_PROTOCOLS {
                let protocol = format!("{}{n:02}/1", "p".repeat(60)).parse().unwrap();
                rights.allow(Some(protocol), Direction::In, Until::Time(Timestamp::MAX));
            }
            rights.allow(None, Direction::Both, Until::Time(Timestamp::MAX));
            let name = "\u{10348}".repeat(64).parse().unwrap();
            let card = Card {
                name,
                authority: Some(format!("{host}:65535").parse().unwrap()),
                hints: hints.collect(),
            };
            Entry { card, rights, ..sample(1) }
        };
        assert!(entry_bytes(&largest) < MAX_MESSAGE_BYTES - FULL_BYTES);
        let mut written = Encoder::new(Vec::new());
        write_entry(&mut written, &largest).unwrap();
        assert_eq!(entry_bytes(&largest), written.into_writer().len());
        let largest = Arc::new(largest);
        let delta =
            Delta { put: vec![largest; 100], gone: vec![Fingerprint::from_bytes([2; 32]); MAX_MEMBERS] };
        let messages = updates(Epoch([0; 16]), None, 1, 3600, delta.clone());
        let mut joined = Delta::default();
        for (number, message) in messages.iter().enumerate() {
            let bytes = message.to_bytes();
            assert!(length(bytes[..LENGTH_BYTES].try_into().unwrap()).is_ok());
            let Message::Update(update) = message else { panic!("{message:?}") };
            assert_eq!(update.more, number + 1 < messages.len());
            joined.put.extend(update.delta.put.iter().cloned());
            joined.gone.extend(&update.delta.gone);
        }
        assert_eq!(joined, delta);
        assert_eq!(updates(Epoch([0; 16]), None, 1, 3600, Delta::default()).len(), 1);
        for word in [Message::Applied(u64::MAX), Message::Subscribe(Some((Epoch([9; 16]), u64::MAX)))] {
            assert!(word.to_bytes().len() <= LENGTH_BYTES + MAX_WORD_BYTES);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
            crate::fuzz::fuzz_delegator_message(&bytes);
        }

        #[test]
        fn what_is_written_is_read(
            peers in proptest::collection::vec(any::<u8>(), 0..5), revision: u64, base: Option<u64>, lease: u32, more: bool,
        ) {
            let put: Vec<_> = peers.iter().map(|n| Arc::new(sample(*n))).collect();
            let gone = peers.iter().map(|n| Fingerprint::from_bytes([*n; 32])).collect();
            let delta = Delta { put, gone };
            let epoch = Epoch([1; 16]);
            for message in [
                Message::Update(Update { epoch, revision, base, lease_secs: lease, delta, more }),
                Message::Alive(epoch, revision),
                Message::Applied(revision),
                Message::Subscribe(Some((epoch, revision))),
                Message::Subscribe(None),
            ] {
                prop_assert_eq!(Message::from_cbor(&message.to_bytes()[LENGTH_BYTES..]), Ok(message));
            }
        }
    }
}
