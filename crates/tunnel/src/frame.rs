use bytes::{BufMut, Bytes, BytesMut};
use kith_sansio::{Span, Time};

use crate::MAX_PACKET_BYTES;

/// Most halves of packets of one peer that wait for their other half.
pub const MAX_PENDING_HALVES: usize = 64;
/// Bytes in front of a half.
pub const HALF_HEADER_BYTES: usize = 3;

/// How long a half waits for the other one.
const PATIENCE: Span = Span::secs(2);

const ASK: u8 = 0x00;
const ANSWER: u8 = 0x01;
const FIRST_HALF: u8 = 0x10;
const SECOND_HALF: u8 = 0x11;
const PROBE_BYTES: usize = 9;

/// One datagram of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An IP packet, as far as its first byte tells.
    Packet(Bytes),
    /// Half of a packet.
    Half {
        /// The same for both halves, and another for the next packet.
        id: u16,
        /// Whether it is the second one.
        is_second: bool,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Is somebody there?
    Ask(Probe),
    /// Yes.
    Answer(Probe),
}

/// The number that tells questions apart; an answer has that of its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe(pub u64);

impl Probe {
    /// The datagram that asks with this number.
    pub fn ask(self) -> [u8; PROBE_BYTES] {
        self.after(ASK)
    }

    /// The datagram that answers it.
    pub fn answer(self) -> [u8; PROBE_BYTES] {
        self.after(ANSWER)
    }

    fn after(self, kind: u8) -> [u8; PROBE_BYTES] {
        let mut bytes = [kind; PROBE_BYTES];
        bytes[1..].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

impl Frame {
    /// Reads a datagram; `None` where it is none of a tunnel.
    pub fn read(datagram: Bytes) -> Option<Frame> {
        let first = *datagram.first()?;
        match first {
            _ if matches!(first >> 4, 4 | 6) => Some(Frame::Packet(datagram)),
            ASK | ANSWER => {
                let number: [u8; 8] = datagram.get(1..)?.try_into().ok()?;
                let probe = Probe(u64::from_be_bytes(number));
                Some(if first == ASK { Frame::Ask(probe) } else { Frame::Answer(probe) })
            }
            FIRST_HALF | SECOND_HALF => {
                let id = u16::from_be_bytes(datagram.get(1..HALF_HEADER_BYTES)?.try_into().ok()?);
                let bytes = datagram.slice(HALF_HEADER_BYTES..);
                Some(Frame::Half { id, is_second: first == SECOND_HALF, bytes })
            }
            _ => None,
        }
    }
}

/// Cuts a packet into the two datagrams of its halves, the first not the smaller one.
pub fn halves(id: u16, packet: &[u8]) -> [BytesMut; 2] {
    let (first, second) = packet.split_at(packet.len().div_ceil(2));
    [(FIRST_HALF, first), (SECOND_HALF, second)].map(|(kind, bytes)| {
        let mut datagram = BytesMut::with_capacity(HALF_HEADER_BYTES + bytes.len());
        datagram.put_u8(kind);
        datagram.put_u16(id);
        datagram.put_slice(bytes);
        datagram
    })
}

/// Puts the halves of one peer's packets together again. A half whose other one does not come makes room for a later one.
#[derive(Debug)]
pub struct Halves {
    waiting: Vec<Option<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    id: u16,
    is_second: bool,
    bytes: Bytes,
    since: Time,
}

impl Default for Halves {
    fn default() -> Self {
        Halves { waiting: std::iter::repeat_with(|| None).take(MAX_PENDING_HALVES).collect() }
    }
}

impl Halves {
    /// Takes a half that has arrived; the packet, where it is the other half of one.
    pub fn join(&mut self, now: Time, id: u16, is_second: bool, bytes: Bytes) -> Option<Bytes> {
        let slot = self.waiting.get_mut(usize::from(id) % MAX_PENDING_HALVES)?;
        let fits =
            |other: &Waiting| other.id == id && other.is_second != is_second && now - other.since <= PATIENCE;
        let Some(other) = slot.take_if(|other| fits(other)) else {
            *slot = Some(Waiting { id, is_second, bytes, since: now });
            return None;
        };
        let (first, second) = if is_second { (other.bytes, bytes) } else { (bytes, other.bytes) };
        if first.len() + second.len() > MAX_PACKET_BYTES {
            return None;
        }
        Some(Bytes::from([first, second].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn half(datagram: BytesMut) -> (u16, bool, Bytes) {
        match Frame::read(datagram.freeze()) {
            Some(Frame::Half { id, is_second, bytes }) => (id, is_second, bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn datagrams_are_told_apart_by_their_first_byte() {
        for first in 0..=0xff_u8 {
            let datagram = Bytes::from([&[first][..], &[7; 8]].concat());
            let probe = Probe(u64::from_be_bytes([7; 8]));
            match (first, Frame::read(datagram.clone())) {
                (0x00, Some(Frame::Ask(asked))) => assert_eq!(asked, probe),
                (0x01, Some(Frame::Answer(answered))) => assert_eq!(answered, probe),
                (0x10 | 0x11, Some(Frame::Half { id: 0x0707, bytes, .. })) => assert_eq!(bytes.len(), 6),
                (0x40..=0x4f | 0x60..=0x6f, Some(Frame::Packet(packet))) => assert_eq!(packet, datagram),
                (_, None) => {}
                (_, other) => panic!("{first:x}: {other:?}"),
            }
        }
        for short in [&b""[..], b"\x00", b"\x0112345678x", b"\x10", b"\x11x"] {
            assert_eq!(Frame::read(Bytes::from_static(short)), None);
        }
        assert_eq!(Frame::read(Bytes::copy_from_slice(&Probe(5).ask())), Some(Frame::Ask(Probe(5))));
        assert_eq!(Frame::read(Bytes::copy_from_slice(&Probe(5).answer())), Some(Frame::Answer(Probe(5))));
    }

    #[test]
    fn a_half_waits_two_seconds_and_for_its_own_other_one() {
        let mut halves_of_peer = Halves::default();
        let [first, second] = halves(3, b"abcde").map(half);
        let mut join = |at: Time, (id, is_second, bytes): (u16, bool, Bytes)| {
            halves_of_peer.join(at, id, is_second, bytes)
        };
        let begin = Time(0);
        assert_eq!(join(begin, first.clone()), None);
        assert_eq!(join(begin, first.clone()), None);
        assert_eq!(join(begin, (4, second.1, second.2.clone())), None);
        assert_eq!(join(begin + Span::secs(2), second.clone()).unwrap(), &b"abcde"[..]);
        assert_eq!(join(begin, second.clone()), None);
        assert_eq!(join(begin + Span::secs(3), first), None);
        assert_eq!(join(begin + Span::secs(3), second).unwrap(), &b"abcde"[..]);
    }

    #[test]
    fn halves_of_more_than_a_packet_are_dropped() {
        let mut halves_of_peer = Halves::default();
        let half = Bytes::from(vec![0; 40_000]);
        assert_eq!(halves_of_peer.join(Time(0), 1, false, half.clone()), None);
        assert_eq!(halves_of_peer.join(Time(0), 1, true, half), None);
    }

    proptest! {
        #[test]
        fn packets_come_out_whole_in_whatever_order_their_halves_come(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..32),
            order in any::<u64>(),
        ) {
            let mut rng = kith_sansio::SeededRng::new(order);
            let mut sent: Vec<_> = (0..).zip(&packets).flat_map(|(id, packet)| halves(id, packet).map(half)).collect();
            for last in (1..sent.len()).rev() {
                let chosen = kith_sansio::Rng::next_u64(&mut rng) as usize % (last + 1);
                sent.swap(last, chosen);
            }
            let mut halves_of_peer = Halves::default();
            let mut joined: Vec<_> = sent
                .into_iter()
                .filter_map(|(id, is_second, bytes)| halves_of_peer.join(Time(0), id, is_second, bytes))
                .collect();
            let mut packets = packets;
            joined.sort();
            packets.sort();
            prop_assert_eq!(joined, packets);
        }
    }
}
