use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::REFUSED_CODE;
use super::tcp::Tls;

/// Authenticated bytes over one of the transports: the one place that knows them apart.
pub(super) enum Carrier {
    Tcp(Box<Tls>),
    Quic(noq::SendStream, noq::RecvStream),
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
        }
    }

    /// Ends both directions without waiting; TCP is ended by its socket.
    pub(super) fn abort(&mut self) {
        if let Carrier::Quic(send, recv) = self {
            // Closed already is as good.
            let _ = send.reset(REFUSED_CODE);
            let _ = recv.stop(REFUSED_CODE);
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
            Carrier::Quic(_, recv) => AsyncRead::poll_read(Pin::new(recv), cx, buf),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
            Carrier::Quic(send, _) => AsyncWrite::poll_write(Pin::new(send), cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, slices),
            Carrier::Quic(send, _) => write_slices(send, cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_flush(cx),
            Carrier::Quic(..) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Tcp(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            // Finished or closed already is as good.
            Carrier::Quic(send, _) => Poll::Ready(send.finish().or(Ok(()))),
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
