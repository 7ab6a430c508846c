//! Messages of `invite/1` on a stream: `u16 length ‖ message`.

use std::io;

use kith_connect::Stream;
use kith_identity::invitation::{MAX_MESSAGE_BYTES, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(super) async fn read(stream: &mut Stream) -> io::Result<Message> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::other("the peer's message is too long"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Message::from_bytes(&bytes).map_err(io::Error::other)
}

pub(super) async fn write(stream: &mut Stream, message: &Message) -> io::Result<()> {
    let bytes = message.to_bytes();
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    stream.flush().await
}
