//! DTLS on a UDP port that QUIC has, so that one open or mapped port is enough for both (RFC 9443).

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use noq::udp::RecvMeta;
use tokio::sync::mpsc;

use super::wire::Ends;

/// The first byte of a packet of DTLS. Packets of QUIC begin with `40` or more where nobody says that he takes others.
const FIRST_BYTES: std::ops::Range<u8> = 20..64;
/// Most bytes that wait for DTLS, with what each batch costs beside.
const MAX_WAITING_BYTES: usize = 2 << 20;
/// What a batch costs beside its bytes.
const BATCH_BYTES: usize = 128;

/// Packets of one size, but for the last one, which may be smaller.
pub(super) struct Sifted {
    pub(super) ends: Ends,
    pub(super) size: usize,
    pub(super) bytes: Bytes,
}

/// Takes the packets of DTLS out of what comes to a socket of QUIC, once somebody wants them.
#[derive(Debug, Default)]
pub(in crate::shell) struct Sieve {
    into: OnceLock<mpsc::UnboundedSender<Sifted>>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// What was taken out.
pub(super) struct Below {
    from: mpsc::UnboundedReceiver<Sifted>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Sifted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sifted({} bytes)", self.bytes.len())
    }
}

impl Sieve {
    /// Sifts from now on; `None` where it does already.
    pub(super) fn begin(&self) -> Option<Below> {
        // No more waits than `MAX_WAITING_BYTES`.
        let (into, from) = mpsc::unbounded_channel();
        self.into.set(into).ok()?;
        Some(Below { from, waiting_bytes: Arc::clone(&self.waiting_bytes) })
    }

    /// Takes packets of DTLS out of what was received: QUIC sees none of them.
    pub(in crate::shell) fn sift(&self, meta: &mut RecvMeta, received: &mut io::IoSliceMut<'_>) {
        let Some(into) = self.into.get() else { return };
        let size = meta.stride.max(1);
        let Some(bytes) = received.get(..meta.len) else { return };
        let is_dtls = |packet: &[u8]| packet.first().is_some_and(|first| FIRST_BYTES.contains(first));
        if !bytes.chunks(size).any(is_dtls) {
            return;
        }
        let ends = Ends { peer: meta.addr, own: meta.dst_ip };
        if bytes.chunks(size).all(is_dtls) {
            self.put(into, Sifted { ends, size, bytes: Bytes::copy_from_slice(bytes) });
            meta.len = 0;
            return;
        }
        let (mut kept, mut at) = (0, 0);
        while at < meta.len {
            let end = (at + size).min(meta.len);
            match received.get(at..end).filter(|packet| is_dtls(packet)) {
                Some(packet) => self.put(into, Sifted { ends, size, bytes: Bytes::copy_from_slice(packet) }),
                None => {
                    received.copy_within(at..end, kept);
                    kept += end - at;
                }
            }
            at = end;
        }
        meta.len = kept;
    }

    fn put(&self, into: &mpsc::UnboundedSender<Sifted>, sifted: Sifted) {
        let cost = sifted.bytes.len() + BATCH_BYTES;
        if self.waiting_bytes.load(Ordering::Relaxed) + cost <= MAX_WAITING_BYTES {
            self.waiting_bytes.fetch_add(cost, Ordering::Relaxed);
            // Nobody takes them where the endpoint is closing.
            let _ = into.send(sifted);
        }
    }
}

impl Below {
    /// The next packets; `None` where there is no socket any more.
    pub(super) async fn next(&mut self) -> Option<Sifted> {
        let sifted = self.from.recv().await?;
        self.waiting_bytes.fetch_sub(sifted.bytes.len() + BATCH_BYTES, Ordering::Relaxed);
        Some(sifted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sift(sieve: &Sieve, size: usize, bytes: &mut [u8]) -> usize {
        let mut meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = ("192.0.2.1:9".parse().unwrap(), bytes.len(), size);
        sieve.sift(&mut meta, &mut io::IoSliceMut::new(bytes));
        meta.len
    }

    #[tokio::test]
    async fn packets_of_dtls_are_taken_out_and_the_rest_stays() {
        let sieve = Sieve::default();
        let mut mixed = [&[0x40; 5][..], &[22; 5], &[0xc0; 5], &[0x2f; 3]].concat();
        assert_eq!(sift(&sieve, 5, &mut mixed), 18, "nobody wants them");
        let mut below = sieve.begin().unwrap();
        assert!(sieve.begin().is_none());
        assert_eq!(sift(&sieve, 5, &mut mixed), 10);
        assert_eq!(mixed[..10], [[0x40; 5], [0xc0; 5]].concat());
        assert_eq!(below.next().await.unwrap().bytes[..], [22; 5]);
        assert_eq!(below.next().await.unwrap().bytes[..], [0x2f; 3]);
        let mut all = [&[0x2f; 9][..], &[0x2e; 4]].concat();
        assert_eq!(sift(&sieve, 9, &mut all), 0);
        let sifted = below.next().await.unwrap();
        assert_eq!((sifted.size, sifted.bytes.len(), sifted.ends.peer.port()), (9, 13, 9));
        for first in [0, 19, 64, 0x7f, 0x80, 0xff] {
            assert_eq!(sift(&sieve, 4, &mut [first; 4]), 4, "{first}");
        }
        assert_eq!(sift(&sieve, 0, &mut []), 0);
    }

    #[tokio::test]
    async fn what_nobody_takes_is_bounded() {
        let sieve = Sieve::default();
        let mut below = sieve.begin().unwrap();
        for _ in 0..10_000 {
            assert_eq!(sift(&sieve, 1200, &mut [22; 1200]), 0);
        }
        assert!(sieve.waiting_bytes.load(Ordering::Relaxed) <= MAX_WAITING_BYTES);
        while sieve.waiting_bytes.load(Ordering::Relaxed) > 0 {
            below.next().await.unwrap();
        }
        assert_eq!(sift(&sieve, 1200, &mut [22; 1200]), 0);
        assert!(below.next().await.is_some());
    }
}
