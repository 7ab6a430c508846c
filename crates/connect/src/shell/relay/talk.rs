use std::io;

use kith_sansio::Span;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::relay::Message;
use crate::relay::message::length;
use crate::shell::{Stream, within};

/// How long a peer may take to take what is said to it.
const WRITE_PATIENCE: Span = Span::secs(10);

/// Reads messages; waiting for one may be given up and taken up again.
pub(super) struct Reader<R> {
    from: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R) -> Reader<R> {
        Reader { from, buffer: Vec::new() }
    }

    /// The next message; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn buffered(&mut self) -> io::Result<Option<Message>> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<2>() else { return Ok(None) };
        let length = length(*prefix).map_err(io::Error::other)?;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = Message::from_cbor(body).map_err(io::Error::other)?;
        self.buffer.drain(..2 + length);
        Ok(Some(message))
    }
}

/// Hands on what is heard over `stream` and says what is to be said, until one of them ends. What was to be said when
/// its source ends still is.
pub(super) async fn talk<E>(
    stream: Stream,
    mut sayings: mpsc::Receiver<Message>,
    events: &mpsc::Sender<E>,
    heard: impl Fn(Message) -> E,
) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut reader = Reader::new(read);
    loop {
        tokio::select! {
            message = reader.next() => match message? {
                Some(message) => {
                    if events.send(heard(message)).await.is_err() {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            },
            saying = sayings.recv() => {
                let Some(message) = saying else {
                    let _ended_already = within(WRITE_PATIENCE, write.shutdown()).await;
                    return Ok(());
                };
                let saying = async {
                    write.write_all(&message.to_frame()).await?;
                    write.flush().await
                };
                within(WRITE_PATIENCE, saying).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
            }
        }
    }
}
