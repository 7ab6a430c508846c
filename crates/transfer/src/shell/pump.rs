//! Reusable buffers between the asynchronous stream and the thread that hashes and touches the disk.

use crate::frame::{FrameError, HEADER_BYTES, Header, MAX_GROUP_PAYLOAD_BYTES};

/// Buffers in one ring: with them the memory of a transfer is bounded, whatever its size.
pub(super) const RING: usize = 4;
/// Bytes of one buffer: a full group with its header, and room for small frames around it.
pub(super) const BUFFER_BYTES: usize = MAX_GROUP_PAYLOAD_BYTES + HEADER_BYTES + (64 << 10);
/// With so many bytes of whole frames a received buffer goes to the disk thread. Less would cost a wake-up for every
/// few small files.
const SHIP_BYTES: usize = 256 << 10;
/// Read at most so much beyond what is known to be wanted, because what is cut off has to be copied.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// A frame of this size is worth ending a buffer with.
const LARGE_FRAME_BYTES: usize = 64 << 10;

/// Whole frames, ready to be sent.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    used: usize,
    /// Bytes of files in it.
    pub(super) content: u64,
}

impl Batch {
    /// An empty batch that reuses `bytes`.
    pub(super) fn reuse(mut bytes: Vec<u8>) -> Batch {
        bytes.resize(BUFFER_BYTES, 0);
        Batch { bytes, used: 0, content: 0 }
    }

    /// A batch of one control frame.
    pub(super) fn of(bytes: Vec<u8>) -> Batch {
        Batch { used: bytes.len(), bytes, content: 0 }
    }

    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes.len() - self.used >= bytes
    }

    /// Appends; what has no room grows the batch.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.used += bytes.len();
    }

    /// The next `length` bytes, to be filled and then [`advance`](Self::advance)d over.
    pub(super) fn space(&mut self, length: usize) -> &mut [u8] {
        let end = self.used + length;
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.used..end]
    }

    pub(super) fn advance(&mut self, length: usize) {
        self.used += length;
    }

    /// Forgets the last `length` bytes.
    pub(super) fn take_back(&mut self, length: usize) {
        self.used = self.used.saturating_sub(length);
    }
}

/// Received bytes: whole frames in front, then the beginning of another.
#[derive(Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    filled: usize,
    /// End of the last whole frame.
    whole: usize,
    /// End of the frame that is not whole yet, where its header is there.
    end: Option<usize>,
    /// Bytes of files in the frames so far, headers and values apart.
    pub(super) content: u64,
    urgent: bool,
}

impl Chunk {
    /// An empty chunk that reuses `bytes`, beginning with what the last one had too much.
    pub(super) fn reuse(mut bytes: Vec<u8>, rest: &[u8]) -> Chunk {
        bytes.resize(BUFFER_BYTES.max(rest.len()), 0);
        bytes[..rest.len()].copy_from_slice(rest);
        Chunk { bytes, filled: rest.len(), ..Chunk::default() }
    }

    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Whole frames.
    pub(super) fn frames(&self) -> &[u8] {
        &self.bytes[..self.whole]
    }

    /// What follows them.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.whole..self.filled]
    }

    /// Where to read to. Empty only where the chunk must be shipped first.
    pub(super) fn window(&mut self) -> &mut [u8] {
        let most = self.bytes.len();
        let end = match self.end {
            Some(end) if end - self.whole >= LARGE_FRAME_BYTES => end.min(most),
            _ => most.min(self.filled + READ_AHEAD_BYTES),
        };
        &mut self.bytes[self.filled..end]
    }

    /// Takes note of `count` bytes read into the window.
    pub(super) fn read(&mut self, count: usize) -> Result<(), FrameError> {
        self.filled += count;
        self.scan()
    }

    /// Finds the frames in what was filled in so far.
    pub(super) fn scan(&mut self) -> Result<(), FrameError> {
        loop {
            let Some(head) = self.bytes[self.whole..self.filled].first_chunk::<HEADER_BYTES>() else {
                self.end = None;
                return Ok(());
            };
            let header = Header::parse(*head)?;
            let end = self.whole + HEADER_BYTES + header.length;
            if end > self.filled {
                self.end = Some(end);
                return Ok(());
            }
            self.whole = end;
            self.urgent |= !header.is_bulk();
            if header.kind == crate::frame::GROUP {
                self.content += (header.length - 32) as u64;
            }
        }
    }

    /// Whether it is time to hand it over.
    pub(super) fn is_ready(&self) -> bool {
        let full = self.end.is_some_and(|end| end > self.bytes.len()) || self.filled == self.bytes.len();
        self.whole > 0 && (self.urgent || self.whole >= SHIP_BYTES || full)
    }
}
