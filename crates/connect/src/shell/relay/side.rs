//! One side of a session over TCP: a connection that begins with a token in place of a handshake.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kith_sansio::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::direct::{Kind, Probe};
use crate::relay::Token;
use crate::relay::limits::TOKEN_LIFE;
use crate::shell::bind::{tune_tcp, udp_socket};
use crate::shell::within;

/// What stands in front of a token. The first byte is none that TLS begins with.
pub(super) const PREAMBLE: [u8; 8] = *b"kith-rl1";
/// What a relay says to both sides when they are joined. From then on every byte is the other side's.
pub(super) const JOINED: u8 = 1;
/// How long a relay may take to be connected to.
const CONNECT_PATIENCE: Span = Span::secs(5);

/// How soon a token is shown again over UDP.
const SHOW_AGAIN: Span = Span::millis(200);

/// What a connection begins with that is for a relay and no handshake.
#[derive(Debug)]
pub(in crate::shell) enum Ahead {
    /// One side of a session.
    Token(Token),
    /// Somebody asks where the relay sees him.
    Question(Token),
}

/// Whether what comes over `stream` begins as that does; waits for its first byte.
pub(in crate::shell) async fn is_ahead(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(stream.peek(&mut first).await? == 1 && first[0] == PREAMBLE[0])
}

/// Takes what is ahead.
pub(in crate::shell) async fn take(stream: &mut TcpStream) -> io::Result<Ahead> {
    let mut bytes = [0; Probe::BYTES];
    let (preamble, rest) = bytes.split_at_mut(PREAMBLE.len());
    stream.read_exact(preamble).await?;
    if *preamble == PREAMBLE {
        let mut token = [0; Token::BYTES];
        stream.read_exact(&mut token).await?;
        tune_tcp(stream)?;
        return Ok(Ahead::Token(Token::from_bytes(token)));
    }
    if *preamble != Probe::PREAMBLE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.read_exact(rest).await?;
    match Probe::from_bytes(&bytes) {
        Some(Probe { token, kind: Kind::Observe }) => Ok(Ahead::Question(token)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Says to whoever asked with `token` that he comes from `seen`.
pub(in crate::shell) async fn reflect(
    mut stream: TcpStream,
    token: Token,
    seen: SocketAddr,
) -> io::Result<()> {
    let seen = SocketAddr::new(seen.ip().to_canonical(), seen.port());
    stream.write_all(&Probe { token, kind: Kind::Observed(seen) }.to_bytes()).await
}

/// Waits until a side that waits has gone. One that speaks before its time is not looked at any more.
pub(super) async fn gone(stream: &TcpStream) {
    if matches!(stream.peek(&mut [0]).await, Ok(1..)) {
        std::future::pending::<()>().await;
    }
}

/// Shows `token` to the relay at `at` over a UDP socket, until the other side has shown its own.
pub(super) async fn bring_over_udp(at: SocketAddr, token: &Token) -> io::Result<std::net::UdpSocket> {
    let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::from_std(udp_socket((any, 0).into())?)?;
    let shown = [&PREAMBLE[..], token.as_bytes()].concat();
    let (mut answer, mut joined) = ([0; PREAMBLE.len() + 2], PREAMBLE.to_vec());
    joined.push(JOINED);
    let exchange = async {
        loop {
            socket.send_to(&shown, at).await?;
            let heard = async {
                loop {
                    let (length, from) = socket.recv_from(&mut answer).await?;
                    if from == at && answer[..length] == joined[..] {
                        return io::Result::Ok(());
                    }
                }
            };
            if let Some(heard) = within(SHOW_AGAIN, heard).await {
                return heard;
            }
        }
    };
    within(TOKEN_LIFE, exchange).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
    socket.into_std()
}

/// Brings `token` to the relay at `at`, and waits until the other side has brought its own.
pub(super) async fn bring(at: SocketAddr, token: &Token) -> io::Result<TcpStream> {
    let connecting = within(CONNECT_PATIENCE, TcpStream::connect(at)).await;
    let stream = connecting.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
    tune_tcp(&stream)?;
    show(stream, token).await
}

/// Shows `token` to the relay behind `stream`, and waits until the other side has shown its own.
pub(super) async fn show(mut stream: TcpStream, token: &Token) -> io::Result<TcpStream> {
    let exchange = async {
        let mut bytes = PREAMBLE.to_vec();
        bytes.extend_from_slice(token.as_bytes());
        stream.write_all(&bytes).await?;
        stream.read_u8().await
    };
    match within(TOKEN_LIFE, exchange).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))? {
        JOINED => Ok(stream),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
