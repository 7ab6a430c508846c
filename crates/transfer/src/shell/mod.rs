//! The asynchronous movers: they own buffers and threads, and do what the machines say.

mod incoming;
mod notice;
mod outgoing;
mod paced;
mod pump;

use std::io;

use kith_sansio::Span;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::cancel::Gate;
use crate::error::Violation;
use crate::frame::{self, Frame, HEADER_BYTES, Header, MAX_CONTROL_BYTES, Message, TransferId};

pub use incoming::{IncomingOffer, Limits, Opening, read_offer, read_opening, receive, refuse};
pub use notice::{answer, notify};
pub use outgoing::send;
pub use paced::{Limit, Paced};

/// How to send.
#[derive(Clone, Debug)]
pub struct SendOptions {
    /// Random, new for every transfer.
    pub id: TransferId,
    /// How long to wait for acceptance once the offer is out; 10 minutes by default, 1 s to 30 days. A large offer
    /// waits no longer than [`answer_within`](crate::answer_within) says.
    pub accept_within: Span,
    /// Once accepted, nothing is read or sent before it is open, which it is by default: for callers that let a
    /// certain number of transfers move at once.
    pub gate: Gate,
}

impl SendOptions {
    /// Defaults for a transfer of this id.
    pub fn new(id: TransferId) -> Self {
        SendOptions { id, accept_within: Span::secs(600), gate: Gate::wide_open() }
    }
}

/// What comes from the other side while control frames alone are expected.
#[derive(Debug)]
enum Arrival {
    Frame(Frame),
    Bad(Violation),
    Lost(io::Error),
}

/// Reads control frames; dropping the future of `next` loses nothing.
struct FrameReader<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Bytes of the frames so far.
    consumed: u64,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    fn new(reader: R) -> Self {
        FrameReader { reader, buffer: Vec::new(), consumed: 0 }
    }

    async fn next(&mut self) -> Arrival {
        loop {
            let before = self.buffer.len();
            match take_frame(&mut self.buffer) {
                Ok(Some(frame)) => {
                    self.consumed += (before - self.buffer.len()) as u64;
                    return Arrival::Frame(frame);
                }
                Err(violation) => return Arrival::Bad(violation),
                Ok(None) => {}
            }
            if let Err(error) = read_more(&mut self.reader, &mut self.buffer).await {
                return Arrival::Lost(error);
            }
        }
    }
}

/// Reads some more bytes; the end of the stream is an error. Dropping the future loses nothing.
async fn read_more<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.reserve(8 << 10);
    match reader.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Takes the first control frame off a buffer, where it is whole.
fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Frame>, Violation> {
    if let Some(head) = buffer.first_chunk::<HEADER_BYTES>() {
        // A group has no place here, so the largest control frame bounds the buffer.
        if Header::parse(*head)?.length > MAX_CONTROL_BYTES {
            return Err(Violation::Unexpected("at this point"));
        }
    }
    let (frame, end) = match frame::split(buffer)? {
        None => return Ok(None),
        Some((Message::Control(frame), end)) => (frame, end),
        Some((Message::Group { .. }, _)) => return Err(Violation::Unexpected("at this point")),
    };
    buffer.drain(..end);
    Ok(Some(frame))
}

/// Writes one frame and flushes it.
async fn write_frame<W: AsyncWrite + Unpin>(writer: &mut W, frame: &Frame) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame::encode(frame, &mut bytes);
    writer.write_all(&bytes).await?;
    writer.flush().await
}
