use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use noq::udp::RecvMeta;
use noq::{AsyncUdpSocket, UdpSender};

use super::dtls::Sieve;

/// Most bytes that the kernel hands over at once, however many datagrams it has put together.
const MAX_GRO_BYTES: usize = 1 << 16;

/// A UDP socket whose receive buffer is as large as what the kernel puts together, no larger.
///
/// By itself, QUIC would reserve the largest payload for each of 64 segments, 32 times over: 32 MiB for payloads of
/// 16 000 bytes, most of it touched in the first moments of an endpoint, when a handshake is waiting.
#[derive(Debug)]
pub(super) struct Lean {
    socket: Box<dyn AsyncUdpSocket>,
    segments: NonZeroUsize,
    /// Takes out what is not for QUIC.
    sieve: Option<Arc<Sieve>>,
}

impl Lean {
    /// `socket`, for payloads of `max_payload_bytes` at most.
    pub(super) fn new(socket: Box<dyn AsyncUdpSocket>, max_payload_bytes: u16) -> Lean {
        let enough = MAX_GRO_BYTES.div_ceil(usize::from(max_payload_bytes.max(1)));
        let segments =
            NonZeroUsize::new(enough).unwrap_or(NonZeroUsize::MIN).min(socket.max_receive_segments());
        Lean { socket, segments, sieve: None }
    }

    /// The same, with what `sieve` takes out.
    pub(super) fn sifted(self, sieve: Arc<Sieve>) -> Lean {
        Lean { sieve: Some(sieve), ..self }
    }
}

impl AsyncUdpSocket for Lean {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        self.socket.create_sender()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let ready = self.socket.poll_recv(cx, bufs, meta);
        if let (Poll::Ready(Ok(count)), Some(sieve)) = (&ready, &self.sieve) {
            for (one, received) in meta.iter_mut().zip(bufs).take(*count) {
                sieve.sift(one, received);
            }
        }
        ready
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_receive_segments(&self) -> NonZeroUsize {
        self.segments
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
