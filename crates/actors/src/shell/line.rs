//! One stream with one member: messages in both directions, each after its length.

use std::io;

use bytes::Bytes;
use kith_identity::membership::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::desk::Event;
use super::{MAX_MESSAGES, REQUEST, TALK, within};
use crate::hardened::{MAX_MESSAGE_BYTES, Message};
use crate::seat::Talk;

/// Bytes of the length before each message.
const LENGTH_BYTES: usize = 3;

/// Talks over a stream until either side has ended, or for as long as a talk may take.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite,
    talk: Talk,
    from: NodeId,
    frames: mpsc::UnboundedReceiver<Bytes>,
    events: mpsc::Sender<Event>,
) {
    let (mut reading, writing) = tokio::io::split(stream);
    let hearing = async {
        for _ in 0..MAX_MESSAGES {
            let message = read(&mut reading).await?;
            events.send(Event::Heard(talk, from, message)).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Err::<(), _>(io::Error::from(io::ErrorKind::QuotaExceeded))
    };
    let talking = async {
        tokio::select! {
            biased;
            () = speak(writing, frames) => {}
            heard = hearing => if let Err(error) = heard {
                tracing::debug!(%error, "a stream of actors/1 has ended");
            },
        }
    };
    let _in_time = within(TALK, talking).await;
    let _the_desk_may_be_gone = events.send(Event::Closed(talk)).await;
}

/// Writes what is to be said, until nothing more comes or the member takes nothing more.
async fn speak(mut stream: impl AsyncWrite + Unpin, mut frames: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        let writing = async {
            stream.write_all(&frame).await?;
            stream.flush().await
        };
        let Some(Ok(())) = within(REQUEST, writing).await else { return };
    }
    let _it_may_be_gone = within(REQUEST, stream.shutdown()).await;
}

/// What is said, with its length before it. What is too long for a message is none of ours: nobody reads it.
pub(super) fn frame(message: &Message) -> Bytes {
    let bytes = message.to_bytes();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &bytes].concat().into()
}

/// Reads one message, which comes whole in the time of a request once it has begun. Memory is taken as it comes.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length[..1]).await?;
    let rest = async {
        stream.read_exact(&mut length[1..]).await?;
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]);
        if length as usize > MAX_MESSAGE_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::new();
        stream.take(length.into()).read_to_end(&mut bytes).await?;
        if bytes.len() < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Message::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    };
    within(REQUEST, rest).await.ok_or(io::ErrorKind::TimedOut)?
}
