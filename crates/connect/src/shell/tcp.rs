use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use kith_identity::{Fingerprint, tls};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::bind::tune_tcp;
use super::carrier::Carrier;
use super::pin::Pin as PeerPin;
use crate::Failure;
use crate::error::named;

/// Plaintext that rustls holds encrypted until the socket takes it, in bytes.
const TLS_BUFFER_BYTES: usize = 256 << 10;
/// What the system holds of datagrams that are not on their way yet, in bytes.
const UNSENT_BYTES: u32 = 128 << 10;

/// A TLS connection over a TCP socket.
pub(super) type Tls = TlsStream<Socket>;

/// A TCP socket that the registry can shut down beside the stream that uses it.
#[derive(Debug)]
pub(super) struct Socket(pub(super) Arc<TcpStream>);

/// Connects to `at` and makes sure that `target` is there.
pub(super) async fn dial(
    at: SocketAddr,
    target: Fingerprint,
    template: &rustls::ClientConfig,
) -> Result<Tls, Failure> {
    let network = |error: io::Error| Failure::Network(named(at, &error));
    let stream = TcpStream::connect(at).await.map_err(network)?;
    tune_tcp(&stream).map_err(network)?;
    handshake(stream, target, template).await
}

/// The initiator's side of the handshake, with whoever is at the other end, who has to be `target`.
pub(super) async fn handshake(
    stream: TcpStream,
    target: Fingerprint,
    template: &rustls::ClientConfig,
) -> Result<Tls, Failure> {
    let (config, pin) = PeerPin::to(target, template);
    let name =
        ServerName::try_from(tls::SERVER_NAME).map_err(|error| Failure::Handshake(error.to_string()))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, Socket(Arc::new(stream)));
    let mut tls = connecting.await.map_err(|error| match pin.somebody_else() {
        Some(found) => Failure::WrongPeer(found),
        None => Failure::Handshake(error.to_string()),
    })?;
    tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    Ok(tls.into())
}

/// Has the system take no more from a connection's writer while much is not on its way yet, where it knows how.
pub(super) fn limit_unsent(carrier: &Carrier) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Carrier::Tcp(tls) = carrier {
        // Without it, more is under way and older when it arrives.
        let _ = socket2::SockRef::from(&*tls.get_ref().0.0).set_tcp_notsent_lowat(UNSENT_BYTES);
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = carrier;
}

/// The target's side of the handshake.
pub(super) async fn greet(stream: TcpStream, config: Arc<rustls::ServerConfig>) -> io::Result<Tls> {
    tune_tcp(&stream)?;
    let mut tls = TlsAcceptor::from(config).accept(Socket(Arc::new(stream))).await?;
    tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    Ok(tls.into())
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buf.initialize_unfilled()) {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write))
    }
}
