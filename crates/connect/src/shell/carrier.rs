use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::REFUSED_CODE;
use super::dtls::{Call, Line};
use super::tcp::Tls;

/// Authenticated bytes over one of the transports: the one place that knows them apart.
pub(super) enum Carrier {
    Tcp(Box<Tls>),
    Quic(noq::SendStream, noq::RecvStream, noq::Connection),
    /// Of a DTLS association the hello and its answer; what follows are datagrams, and the end.
    Dtls(Call),
}

impl Carrier {
    /// Says no, in the one way there is.
    pub(super) async fn refuse(mut self) {
        match &mut self {
            // Whether it arrives is the peer's concern.
            Carrier::Tcp(tls) => {
                let _ = tls.write_all(&[crate::protocol::REFUSED]).await;
                let _ = tls.shutdown().await;
            }
            Carrier::Quic(..) => self.abort(),
            Carrier::Dtls(call) => call.0.answer(false),
        }
    }

    /// Ends both directions without waiting; TCP is ended by its socket.
    pub(super) fn abort(&mut self) {
        if let Carrier::Quic(send, recv, _) = self {
            // Closed already is as good.
            let _ = send.reset(REFUSED_CODE);
            let _ = recv.stop(REFUSED_CODE);
        }
    }
}

impl Carrier {
    /// The socket of a TCP connection.
    pub(super) fn socket(&self) -> Option<Arc<TcpStream>> {
        match self {
            Carrier::Tcp(tls) => Some(Arc::clone(&tls.get_ref().0.0)),
            Carrier::Quic(..) | Carrier::Dtls(_) => None,
        }
    }

    /// The number of the QUIC stream.
    pub(super) fn stream_id(&self) -> Option<noq::StreamId> {
        match self {
            Carrier::Tcp(_) | Carrier::Dtls(_) => None,
            Carrier::Quic(send, ..) => Some(send.id()),
        }
    }

    /// The DTLS association, where it is one.
    pub(super) fn line(&self) -> Option<&Arc<Line>> {
        match self {
            Carrier::Dtls(call) => Some(&call.0),
            Carrier::Tcp(_) | Carrier::Quic(..) => None,
        }
    }
}

/// The length in bytes of what [`Carrier::export`] gives.
pub(super) const EXPORT_BYTES: usize = 32;

impl Carrier {
    /// Keying material of the TLS session under it (RFC 8446 §7.5), without a context.
    pub(super) fn export(&self, label: &[u8]) -> io::Result<[u8; EXPORT_BYTES]> {
        let material = [0; EXPORT_BYTES];
        match self {
            Carrier::Tcp(tls) => match &**tls {
                Tls::Client(client) => client.get_ref().1.export_keying_material(material, label, None),
                Tls::Server(server) => server.get_ref().1.export_keying_material(material, label, None),
            }
            .map_err(io::Error::other),
            Carrier::Quic(_, _, connection) => {
                let mut material = material;
                let exported = connection.export_keying_material(&mut material, label, b"");
                exported.map_err(|_| io::Error::other("this session exports no keying material"))?;
                Ok(material)
            }
            Carrier::Dtls(_) => Err(io::Error::other("DTLS exports no keying material here")),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
            Carrier::Quic(_, recv, _) => AsyncRead::poll_read(Pin::new(recv), cx, buf),
            Carrier::Dtls(call) => call.0.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
            Carrier::Quic(send, ..) => AsyncWrite::poll_write(Pin::new(send), cx, bytes),
            Carrier::Dtls(call) => {
                call.0.write(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let carrier = self.get_mut();
        match carrier {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, slices),
            Carrier::Quic(send, ..) => write_slices(send, cx, slices),
            Carrier::Dtls(_) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                Pin::new(carrier).poll_write(cx, first.map_or(&[], |slice| slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_flush(cx),
            Carrier::Quic(..) | Carrier::Dtls(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            // Finished or closed already is as good.
            Carrier::Quic(send, ..) => Poll::Ready(send.finish().or(Ok(()))),
            Carrier::Dtls(_) => Poll::Ready(Ok(())),
        }
    }
}

/// Writes slice after slice until one does not fit.
fn write_slices(
    send: &mut noq::SendStream,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let mut written = 0;
    for slice in slices.iter().filter(|slice| !slice.is_empty()) {
        match AsyncWrite::poll_write(Pin::new(&mut *send), cx, slice) {
            Poll::Ready(Ok(n)) => {
                written += n;
                if n < slice.len() {
                    break;
                }
            }
            Poll::Pending | Poll::Ready(Err(_)) if written > 0 => break,
            other => return other,
        }
    }
    Poll::Ready(Ok(written))
}
