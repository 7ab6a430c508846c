//! Datagrams without a socket: frames on a byte stream, the flow that a QUIC datagram belongs to, and the backlog that
//! holds what nobody has taken yet.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest datagram that a frame holds, in bytes.
pub(crate) const MAX_FRAME_BYTES: usize = u16::MAX as usize;

/// Bytes in front of each frame.
const LENGTH_BYTES: usize = 2;

/// What a datagram in a [`Backlog`] costs beside its bytes.
const OVERHEAD_BYTES: usize = size_of::<Bytes>();

/// Appends one frame: `u16 length ‖ datagram`, big-endian. `false`, and nothing appended, where it is too large.
pub(crate) fn put_frame(out: &mut BytesMut, datagram: &[u8]) -> bool {
    let Ok(length) = u16::try_from(datagram.len()) else { return false };
    out.reserve(LENGTH_BYTES + datagram.len());
    out.put_u16(length);
    out.put_slice(datagram);
    true
}

/// Takes frames apart as their bytes arrive. Holds at most one frame and what came after it in one read.
#[derive(Debug, Default)]
pub(crate) struct Frames(BytesMut);

impl Frames {
    /// Where bytes that arrive are appended.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.0
    }

    /// The next whole datagram.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let length = usize::from(u16::from_be_bytes(*self.0.first_chunk()?));
        if self.0.len() < LENGTH_BYTES + length {
            return None;
        }
        self.0.advance(LENGTH_BYTES);
        Some(self.0.split_to(length).freeze())
    }

    /// Whether the bytes end between two frames.
    #[cfg(test)]
    pub(crate) fn is_clean(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which datagrams of one QUIC connection belong together: those of the stream that its hello came on.
///
/// It travels in front of each datagram as a variable-length integer (RFC 9000 §16) of the stream's number without the
/// bit for unidirectional ones: one byte for the first 32 streams of either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow(u64);

impl Flow {
    /// The flow of the bidirectional stream number `index` that the server opened, or the client.
    pub(crate) fn of_stream(index: u64, by_server: bool) -> Flow {
        Flow(index << 1 | u64::from(by_server))
    }

    /// Bytes that it takes in front of a datagram.
    pub(crate) fn length(self) -> usize {
        match self.0 {
            0..=0x3f => 1,
            0x40..=0x3fff => 2,
            0x4000..=0x3fff_ffff => 4,
            _ => 8,
        }
    }

    /// Appends it to `out`.
    pub(crate) fn put(self, out: &mut BytesMut) {
        // The high bits are free: a stream's number has 62 bits, and one of them is left out here.
        let length = self.length();
        let marked = self.0 | u64::from(length.ilog2()) << (8 * length - 2);
        out.put_uint(marked, length);
    }

    /// Takes it off the front of a datagram; `None` where there is none in its shortest form.
    pub(crate) fn take(datagram: &mut Bytes) -> Option<Flow> {
        let length = 1 << (datagram.first()? >> 6);
        if datagram.len() < length {
            return None;
        }
        let marked = datagram.get_uint(length);
        let flow = Flow(marked & (u64::MAX >> (66 - 8 * length)));
        (flow.length() == length).then_some(flow)
    }
}

/// Datagrams that wait to be taken, bounded by the memory that they hold; the oldest make room for the newest.
#[derive(Debug)]
pub(crate) struct Backlog {
    waiting: VecDeque<Bytes>,
    held_bytes: usize,
    most_bytes: usize,
}

impl Backlog {
    /// One that holds at most `most_bytes`, with what each datagram costs beside its bytes.
    pub(crate) fn new(most_bytes: usize) -> Backlog {
        Backlog { waiting: VecDeque::new(), held_bytes: 0, most_bytes }
    }

    /// Holds `most_bytes` at most from now on; what waits already stays until there is something new.
    pub(crate) fn allow(&mut self, most_bytes: usize) {
        self.most_bytes = most_bytes;
    }

    /// Whether a datagram of `bytes` has room without another being dropped.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.held_bytes + bytes + OVERHEAD_BYTES <= self.most_bytes
    }

    /// Adds a datagram, dropping the oldest where there is no room. One that never fits is dropped itself.
    pub(crate) fn push(&mut self, datagram: Bytes) {
        if datagram.len() + OVERHEAD_BYTES > self.most_bytes {
            return;
        }
        while !self.has_room_for(datagram.len()) && self.pop().is_some() {}
        self.held_bytes += datagram.len() + OVERHEAD_BYTES;
        self.waiting.push_back(datagram);
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let datagram = self.waiting.pop_front()?;
        self.held_bytes -= datagram.len() + OVERHEAD_BYTES;
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(frames: &mut Frames) -> Vec<Bytes> {
        std::iter::from_fn(|| frames.next()).collect()
    }

    #[test]
    fn a_frame_larger_than_its_length_field_is_not_written() {
        let mut out = BytesMut::new();
        assert!(!put_frame(&mut out, &vec![0; MAX_FRAME_BYTES + 1]));
        assert!(out.is_empty());
        assert!(put_frame(&mut out, &vec![0; MAX_FRAME_BYTES]));
        assert_eq!(out.len(), LENGTH_BYTES + MAX_FRAME_BYTES);
    }

    #[test]
    fn a_truncated_frame_yields_nothing_until_its_rest_is_there() {
        let mut frames = Frames::default();
        for (byte, whole) in [(0, 0), (2, 0), (b'a', 0), (b'b', 1), (0, 0)] {
            frames.buffer().put_u8(byte);
            assert_eq!(taken(&mut frames).len(), whole);
        }
        assert!(!frames.is_clean());
    }

    #[test]
    fn a_flow_has_one_form_and_no_other_is_taken() {
        for (index, by_server, bytes) in [
            (0, false, vec![0x00]),
            (0, true, vec![0x01]),
            (31, true, vec![0x3f]),
            (32, false, vec![0x40, 0x40]),
            (0x2000, false, vec![0x80, 0, 0x40, 0]),
            (0x2000_0000, false, vec![0xc0, 0, 0, 0, 0x40, 0, 0, 0]),
        ] {
            let mut out = BytesMut::new();
            Flow::of_stream(index, by_server).put(&mut out);
            assert_eq!(out, bytes, "{index}");
        }
        let longer_than_need_be = Bytes::from_static(&[0x40, 0x01, b'x']);
        assert_eq!(Flow::take(&mut longer_than_need_be.clone()), None);
        assert_eq!(Flow::take(&mut Bytes::from_static(&[0x80, 1])), None);
        assert_eq!(Flow::take(&mut Bytes::new()), None);
    }

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let mut backlog = Backlog::new(3 * (10 + OVERHEAD_BYTES));
        for number in 0..5_u8 {
            backlog.push(Bytes::from(vec![number; 10]));
        }
        assert!(!backlog.has_room_for(10));
        backlog.push(Bytes::from(vec![9; 1000]));
        let left: Vec<u8> = std::iter::from_fn(|| backlog.pop()).map(|one| one[0]).collect();
        assert_eq!(left, [2, 3, 4]);
        assert_eq!(backlog.held_bytes, 0);
    }

    #[test]
    fn empty_datagrams_are_bounded_too() {
        let mut backlog = Backlog::new(1000);
        (0..10_000).for_each(|_| backlog.push(Bytes::new()));
        assert!(backlog.waiting.len() <= 1000 / OVERHEAD_BYTES);
    }

    proptest! {
        #[test]
        fn frames_are_read_as_they_were_written_however_they_are_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            piece in 1_usize..500,
        ) {
            let mut wire = BytesMut::new();
            datagrams.iter().for_each(|one| assert!(put_frame(&mut wire, one)));
            let (mut frames, mut read) = (Frames::default(), Vec::new());
            for piece in wire.chunks(piece) {
                frames.buffer().put_slice(piece);
                read.extend(taken(&mut frames));
            }
            prop_assert!(frames.is_clean());
            prop_assert_eq!(read, datagrams);
        }

        #[test]
        fn a_flow_is_read_as_it_was_written(index in 0_u64..1 << 60, by_server: bool, payload: Vec<u8>) {
            let flow = Flow::of_stream(index, by_server);
            let mut out = BytesMut::new();
            flow.put(&mut out);
            prop_assert_eq!(out.len(), flow.length());
            out.put_slice(&payload);
            let mut datagram = out.freeze();
            prop_assert_eq!(Flow::take(&mut datagram), Some(flow));
            prop_assert_eq!(&datagram[..], &payload[..]);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
            crate::fuzz::fuzz_frames(&bytes);
            crate::fuzz::fuzz_flow(&bytes);
        }
    }
}
