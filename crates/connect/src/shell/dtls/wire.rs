//! A UDP socket on which packets go in batches, one call of the system for many of them, in both directions.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use noq::udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Most bytes of one batch, and most that the kernel hands over as one.
const MAX_BATCH_BYTES: usize = u16::MAX as usize;
/// Batches that are taken with one call.
const BATCHES: usize = 4;

/// Bytes that wait where the system takes no more.
const MAX_WAITING_BYTES: usize = 256 << 10;

/// Where packets come from or go to: the peer's address, and this machine's, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) own: Option<IpAddr>,
}

/// A UDP socket of DTLS.
pub(super) struct Wire {
    socket: UdpSocket,
    system: UdpSocketState,
}

/// Packets of one size, but for the last one, which may be smaller, with the same ends.
struct Batch {
    ends: Ends,
    bytes: Vec<u8>,
    size: usize,
    count: usize,
}

/// Packets on their way out; the oldest make room where the system takes no more.
#[derive(Default)]
pub(super) struct Outgoing {
    batches: VecDeque<Batch>,
    bytes: usize,
}

/// Room for what comes.
pub(super) struct Room(Vec<u8>);

impl Room {
    pub(super) fn new() -> Room {
        // What is not used is never touched.
        Room(vec![0; BATCHES * MAX_BATCH_BYTES])
    }
}

impl Wire {
    /// Packets of this socket are never cut on their way.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Wire> {
        let system = UdpSocketState::new((&socket).into())?;
        Ok(Wire { socket: UdpSocket::from_std(socket)?, system })
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Takes what has come, and gives the packets to `take`, those from one place together.
    pub(super) fn try_recv(
        &self,
        room: &mut Room,
        mut take: impl FnMut(Ends, std::slice::Chunks<'_, u8>),
    ) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); BATCHES];
        let count = {
            let mut slices: Vec<_> = room.0.chunks_mut(MAX_BATCH_BYTES).map(IoSliceMut::new).collect();
            self.socket.try_io(Interest::READABLE, || {
                self.system.recv((&self.socket).into(), &mut slices, &mut metas)
            })?
        };
        for (meta, batch) in metas.iter().zip(room.0.chunks(MAX_BATCH_BYTES)).take(count) {
            let batch = batch.get(..meta.len).unwrap_or_default();
            let ends = Ends { peer: meta.addr, own: meta.dst_ip };
            take(ends, batch.chunks(meta.stride.max(1)));
        }
        Ok(())
    }

    /// Sends what is on its way out, until the system takes no more; whether that is now nothing.
    pub(super) fn try_send(&self, outgoing: &mut Outgoing) -> bool {
        while let Some(batch) = outgoing.batches.front() {
            if !self.try_send_batch(batch) {
                return false;
            }
            outgoing.bytes -= batch.bytes.len();
            outgoing.batches.pop_front();
        }
        true
    }

    /// Whether the system took a batch, or will not take it ever.
    fn try_send_batch(&self, batch: &Batch) -> bool {
        let most = self.system.max_gso_segments().get().saturating_mul(batch.size.max(1));
        // All at once, or one by one where the system cannot do that.
        batch.bytes.chunks(most).all(|contents| {
            let transmit = Transmit {
                destination: batch.ends.peer,
                ecn: None,
                contents,
                segment_size: Some(batch.size),
                src_ip: batch.ends.own,
            };
            let sent = self
                .socket
                .try_io(Interest::WRITABLE, || self.system.try_send((&self.socket).into(), &transmit));
            !matches!(sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        })
    }
}

impl Outgoing {
    /// Adds a packet.
    pub(super) fn push(&mut self, ends: Ends, packet: &[u8]) {
        self.bytes += packet.len();
        match self.batches.back_mut().filter(|batch| batch.has_room_for(ends, packet)) {
            Some(batch) => batch.add(packet),
            None => self.batches.push_back(Batch::of(ends, packet)),
        }
        while self.bytes > MAX_WAITING_BYTES
            && let Some(oldest) = self.batches.pop_front()
        {
            self.bytes -= oldest.bytes.len();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether there is room for as much again as a sender sends in one go.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < MAX_WAITING_BYTES / 2
    }
}

impl Batch {
    /// The most packets of a batch: what Linux takes.
    const MOST: usize = 64;

    fn of(ends: Ends, packet: &[u8]) -> Batch {
        Batch { ends, bytes: packet.to_vec(), size: packet.len(), count: 1 }
    }

    fn has_room_for(&self, ends: Ends, packet: &[u8]) -> bool {
        self.ends == ends
            && self.count < Batch::MOST
            && packet.len() <= self.size
            && self.bytes.len() == self.count * self.size
            && self.bytes.len() + packet.len() <= MAX_BATCH_BYTES
    }

    fn add(&mut self, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(port: u16) -> Ends {
        Ends { peer: SocketAddr::from(([127, 0, 0, 1], port)), own: None }
    }

    fn sizes(outgoing: &Outgoing) -> Vec<Vec<usize>> {
        let each = outgoing.batches.iter();
        each.map(|batch| batch.bytes.chunks(batch.size).map(<[u8]>::len).collect()).collect()
    }

    #[test]
    fn packets_of_one_size_go_together_and_a_smaller_one_is_the_last() {
        let mut outgoing = Outgoing::default();
        for (port, size) in [(1, 9), (1, 9), (1, 4), (1, 4), (1, 9), (2, 9), (2, 9)] {
            outgoing.push(ends(port), &vec![7; size]);
        }
        assert_eq!(sizes(&outgoing), [&[9, 9, 4][..], &[4], &[9], &[9, 9]]);
        for _ in 0..200 {
            outgoing.push(ends(3), &[1; 1200]);
        }
        let longest = sizes(&outgoing).into_iter().max_by_key(Vec::len).unwrap();
        assert!(longest.len() > 40 && longest.len() * 1200 <= MAX_BATCH_BYTES, "{longest:?}");
    }

    #[test]
    fn what_the_system_does_not_take_is_bounded() {
        let mut outgoing = Outgoing::default();
        for _ in 0..1000 {
            outgoing.push(ends(1), &[1; 1200]);
            assert!(outgoing.bytes <= MAX_WAITING_BYTES);
        }
        assert!(!outgoing.has_room() && !outgoing.is_empty());
        assert_eq!(outgoing.bytes, sizes(&outgoing).iter().flatten().sum::<usize>());
    }

    #[tokio::test]
    async fn a_batch_arrives_as_the_packets_that_it_was_made_of() {
        let [one, two] = [0, 1].map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = Ends { peer: two.local_addr().unwrap(), own: None };
        let (one, two) = (Wire::new(one).unwrap(), Wire::new(two).unwrap());
        let mut outgoing = Outgoing::default();
        for size in [1000, 1000, 1000, 10, 0, 1400] {
            outgoing.push(to, &vec![5; size]);
        }
        one.writable().await.unwrap();
        assert!(one.try_send(&mut outgoing));
        let (mut room, mut arrived) = (Room::new(), Vec::new());
        while arrived.iter().sum::<usize>() < 4410 {
            two.readable().await.unwrap();
            let _ = two.try_recv(&mut room, |_, packets| arrived.extend(packets.map(<[u8]>::len)));
        }
        arrived.retain(|size| *size > 0);
        assert_eq!(arrived, [1000, 1000, 1000, 10, 1400]);
    }
}
