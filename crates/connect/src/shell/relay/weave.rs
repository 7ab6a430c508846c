//! Relayed paths beside an endpoint's own UDP socket, under addresses of their own.
//!
//! Each relayed path has a socket of its own towards one relay, because the relay knows a side by where its datagrams
//! come from. QUIC sees all of them as one socket: a path has an address that no peer can have, and what is sent to
//! that address leaves over the path. So one connection may have a relayed path and a direct one, and move between them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use kith_identity::Fingerprint;
use kith_sansio::system::time;
use noq::udp::{RecvMeta, Transmit};
use noq::{AsyncUdpSocket, UdpSender};

use crate::relay::limits::TOKEN_LIFE;
use crate::shell::direct::Hub;
use crate::shell::until;

/// Most relayed paths of one endpoint.
pub(in crate::shell) const MAX_PATHS: usize = 256;

/// The relayed paths of one endpoint.
#[derive(Debug, Default)]
pub(in crate::shell) struct Paths {
    state: Mutex<State>,
    /// Wakes whoever receives, when there is a path more.
    news: AtomicWaker,
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    paths: HashMap<SocketAddr, Arc<Path>>,
    expected: HashMap<SocketAddr, OpenPath>,
}

/// Who comes over a path, and where that leads.
#[derive(Clone, Copy, Debug)]
pub(in crate::shell) struct Over {
    pub(in crate::shell) relay: Fingerprint,
    /// The other side.
    pub(in crate::shell) peer: Fingerprint,
    /// The relay's address.
    pub(in crate::shell) at: SocketAddr,
}

#[derive(Debug)]
struct Path {
    over: Over,
    /// Where its datagrams go, and the one place that they may come from.
    relay: SocketAddr,
    socket: Mutex<Box<dyn AsyncUdpSocket>>,
}

/// A relayed path; closed when dropped.
#[derive(Debug)]
pub(in crate::shell) struct OpenPath {
    paths: Arc<Paths>,
    address: SocketAddr,
}

impl OpenPath {
    /// What QUIC takes for the other side's address.
    pub(in crate::shell) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for OpenPath {
    fn drop(&mut self) {
        let mut state = self.paths.state();
        state.paths.remove(&self.address);
        self.paths.count.store(state.paths.len(), Ordering::Release);
    }
}

impl Paths {
    /// Adds a path over `socket`, which the relay knows; `None` where there are too many.
    pub(in crate::shell) fn add(
        self: &Arc<Self>,
        socket: Box<dyn AsyncUdpSocket>,
        over: Over,
        as_v6: bool,
    ) -> Option<OpenPath> {
        let mut state = self.state();
        if state.paths.len() >= MAX_PATHS {
            return None;
        }
        let address = loop {
            state.next = state.next.wrapping_add(1);
            let address = invented(state.next, as_v6);
            if !state.paths.contains_key(&address) {
                break address;
            }
        };
        state.paths.insert(address, Arc::new(Path { over, relay: over.at, socket: Mutex::new(socket) }));
        self.count.store(state.paths.len(), Ordering::Release);
        drop(state);
        self.news.wake();
        Some(OpenPath { paths: Arc::clone(self), address })
    }

    /// Keeps a path until somebody has come over it, or nobody has in time.
    pub(in crate::shell) fn expect(self: &Arc<Self>, path: OpenPath) {
        let (paths, address) = (Arc::clone(self), path.address);
        self.state().expected.insert(address, path);
        tokio::spawn(async move {
            until(time() + TOKEN_LIFE).await;
            drop(paths.claim(&address));
        });
    }

    /// The path that was expected under `address`, for whoever has come over it.
    pub(in crate::shell) fn claim(&self, address: &SocketAddr) -> Option<OpenPath> {
        self.state().expected.remove(address)
    }

    /// What the path is that an address stands for.
    pub(in crate::shell) fn over(&self, address: &SocketAddr) -> Option<Over> {
        is_invented(address.ip()).then(|| self.get(address).map(|path| path.over)).flatten()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, address: &SocketAddr) -> Option<Arc<Path>> {
        self.state().paths.get(address).cloned()
    }

    fn all(&self) -> Vec<(SocketAddr, Arc<Path>)> {
        self.state().paths.iter().map(|(address, path)| (*address, Arc::clone(path))).collect()
    }
}

/// An address that is never dialled: of 240.0.0.0/5, which is reserved, or of an invented network of RFC 4193.
fn invented(number: u32, as_v6: bool) -> SocketAddr {
    let [a, b, c, d] = number.to_be_bytes();
    let port = u16::from_be_bytes([c, d]).max(1);
    let ip: IpAddr = if as_v6 {
        let [high, low] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        Ipv6Addr::new(0xfd6b, 0x6974, 0x6872, 0x6c31, 0, 0, high, low).into()
    } else {
        Ipv4Addr::new(240 | (a & 0x07), b, c, d).into()
    };
    SocketAddr::new(ip, port)
}

/// Whether an address is one of a relayed path.
fn is_invented(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] & 0xf8 == 240,
        IpAddr::V6(ip) => ip.segments()[..4] == [0xfd6b, 0x6974, 0x6872, 0x6c31],
    }
}

/// An endpoint's own socket and its relayed paths, as one.
#[derive(Debug)]
pub(in crate::shell) struct Woven {
    own: Box<dyn AsyncUdpSocket>,
    paths: Arc<Paths>,
    hub: Arc<Hub>,
    /// Paths are asked first this time, so that a busy socket does not silence them.
    paths_first: bool,
}

impl Woven {
    pub(in crate::shell) fn new(own: Box<dyn AsyncUdpSocket>, paths: Arc<Paths>, hub: Arc<Hub>) -> Woven {
        Woven { own, paths, hub, paths_first: false }
    }

    /// What comes to the own socket. Nobody speaks there for a relayed path, and probes are not for QUIC.
    fn poll_own(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let ready = self.own.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = &ready {
            for (one, received) in meta.iter_mut().zip(bufs).take(*count) {
                if is_invented(one.addr.ip()) {
                    one.len = 0;
                }
                self.hub.sift(one, received);
            }
        }
        ready
    }

    fn poll_paths(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.paths.count.load(Ordering::Acquire) == 0 {
            return Poll::Pending;
        }
        for (address, path) in self.paths.all() {
            let mut socket = path.socket.lock().unwrap_or_else(PoisonError::into_inner);
            // A socket that fails says nothing; the connection over it times out.
            let Poll::Ready(Ok(count)) = socket.poll_recv(cx, bufs, meta) else { continue };
            for one in &mut meta[..count] {
                if one.addr == path.relay {
                    one.addr = address;
                    one.dst_ip = None;
                } else {
                    // Somebody else: an empty datagram is none.
                    one.len = 0;
                }
            }
            return Poll::Ready(Ok(count));
        }
        Poll::Pending
    }
}

impl AsyncUdpSocket for Woven {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        let own = self.own.create_sender();
        Box::pin(WovenSender { own, paths: Arc::clone(&self.paths), others: HashMap::new() })
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.paths.news.register(cx.waker());
        self.paths_first = !self.paths_first;
        if self.paths_first {
            if let Poll::Ready(ready) = self.poll_paths(cx, bufs, meta) {
                return Poll::Ready(ready);
            }
            return self.poll_own(cx, bufs, meta);
        }
        match self.poll_own(cx, bufs, meta) {
            Poll::Pending => self.poll_paths(cx, bufs, meta),
            ready => ready,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.own.local_addr()
    }

    fn max_receive_segments(&self) -> NonZeroUsize {
        self.own.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.own.may_fragment()
    }
}

/// Sends over the own socket, or over the path that an address stands for.
#[derive(Debug)]
struct WovenSender {
    own: Pin<Box<dyn UdpSender>>,
    paths: Arc<Paths>,
    others: HashMap<SocketAddr, (SocketAddr, Pin<Box<dyn UdpSender>>)>,
}

impl UdpSender for WovenSender {
    fn poll_send(
        self: Pin<&mut Self>,
        transmit: &Transmit<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !is_invented(transmit.destination.ip()) {
            return this.own.as_mut().poll_send(transmit, cx);
        }
        let Some(path) = this.paths.get(&transmit.destination) else {
            // A path that was closed loses what is sent over it, as any other does.
            this.others.remove(&transmit.destination);
            return Poll::Ready(Ok(()));
        };
        let (relay, sender) = this.others.entry(transmit.destination).or_insert_with(|| {
            let socket = path.socket.lock().unwrap_or_else(PoisonError::into_inner);
            (path.relay, socket.create_sender())
        });
        let transmit = Transmit {
            destination: *relay,
            ecn: transmit.ecn,
            contents: transmit.contents,
            segment_size: transmit.segment_size,
            src_ip: None,
        };
        sender.as_mut().poll_send(&transmit, cx)
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        self.own.max_transmit_segments()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_paths_are_nobody_elses() {
        for number in [0, 1, 0xffff, 0x0001_0000, 0x00ff_ffff, u32::MAX] {
            for as_v6 in [false, true] {
                let address = invented(number, as_v6);
                assert!(is_invented(address.ip()) && address.port() > 0, "{address}");
                assert_eq!(address.is_ipv6(), as_v6);
            }
        }
        for ip in ["192.0.2.1", "127.0.0.1", "255.255.255.255", "fd00::1", "2001:db8::1", "::1"] {
            assert!(!is_invented(ip.parse().unwrap()), "{ip}");
        }
    }
}
