use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::task::AtomicWaker;
use kith_identity::{Fingerprint, Transport};
use tokio::net::TcpStream;

use super::endpoint::{PathInfo, Peer};
use crate::Protocol;
use crate::delegator::Opener;

/// Every open stream, so that it can be cut from outside.
#[derive(Debug, Default)]
pub(super) struct Registry(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    streams: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    protocol: Protocol,
    needs_trust: Option<Opener>,
    path: PathInfo,
    cut: Arc<Cut>,
}

/// What an open stream is known by in the registry, and its switch.
#[derive(Debug)]
pub(super) struct Ticket {
    open: Arc<Mutex<Open>>,
    id: u64,
    cut: Arc<Cut>,
}

/// Why a stream was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was closed here, or the trust withdrawn.
    Cut,
    /// The address that it went out from.
    Lost,
}

const OPEN: u8 = 0;
const CUT: u8 = 1;
const LOST: u8 = 2;

/// The switch that ends a stream. Costs a stream nothing but one relaxed load per call: TCP is woken by the shutdown
/// of its socket, QUIC by the wakers, which are set only when a call has to wait.
#[derive(Debug)]
pub(super) struct Cut {
    state: AtomicU8,
    socket: Option<Arc<TcpStream>>,
    pub(super) reader: AtomicWaker,
    pub(super) writer: AtomicWaker,
}

impl Cut {
    pub(super) fn new(socket: Option<Arc<TcpStream>>) -> Arc<Cut> {
        Arc::new(Cut {
            state: AtomicU8::new(OPEN),
            socket,
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        })
    }

    /// Why there is no stream any more; `None` while there is.
    pub(super) fn why(&self) -> Option<Why> {
        match self.state.load(Ordering::Relaxed) {
            OPEN => None,
            CUT => Some(Why::Cut),
            _ => Some(Why::Lost),
        }
    }

    fn end(&self, why: Why) {
        let state = if why == Why::Cut { CUT } else { LOST };
        self.state.store(state, Ordering::SeqCst);
        if let Some(socket) = &self.socket {
            // It may be gone already.
            let _ = socket2::SockRef::from(&**socket).shutdown(std::net::Shutdown::Both);
        }
        self.reader.wake();
        self.writer.wake();
    }
}

impl Registry {
    /// Enters a stream. Where it `needs_trust` it is cut when its peer is not trusted for `protocol` any more, the way it
    /// was opened.
    pub(super) fn enter(
        &self,
        peer: Peer,
        protocol: Protocol,
        needs_trust: Option<Opener>,
        path: PathInfo,
        cut: Arc<Cut>,
    ) -> Ticket {
        let mut open = self.open();
        let id = open.next;
        open.next += 1;
        open.streams.insert(id, Entry { peer, protocol, needs_trust, path, cut: Arc::clone(&cut) });
        Ticket { open: Arc::clone(&self.0), id, cut }
    }

    /// Cuts every stream that needs a trust that is not there any more.
    pub(super) fn review(&self, trusts: impl Fn(Opener, &Fingerprint, &Protocol) -> bool) {
        let guarded: Vec<_> = self
            .open()
            .streams
            .values()
            .filter_map(|entry| {
                let (opener, peer) = (entry.needs_trust?, *entry.peer.fingerprint()?);
                Some((opener, peer, entry.protocol.clone(), Arc::clone(&entry.cut)))
            })
            .collect();
        // Asked outside the lock: what trust decides is not ours to know.
        for (opener, peer, protocol, cut) in guarded {
            if !trusts(opener, &peer, &protocol) {
                cut.end(Why::Cut);
            }
        }
    }

    pub(super) fn cut_all(&self) {
        for entry in self.open().streams.values() {
            entry.cut.end(Why::Cut);
        }
    }

    /// Ends every stream over TCP that goes out from one of these addresses, which this machine has lost.
    pub(super) fn lose(&self, lost: &HashSet<IpAddr>) {
        for entry in self.open().streams.values() {
            let own = entry.cut.socket.as_ref().and_then(|socket| socket.local_addr().ok());
            if own.is_some_and(|own| lost.contains(&own.ip().to_canonical())) {
                entry.cut.end(Why::Lost);
            }
        }
    }

    /// The paths of open TCP streams and DTLS associations with `peer`.
    pub(super) fn sole_paths(&self, peer: &Fingerprint) -> Vec<PathInfo> {
        let open = self.open();
        let of_peer = open.streams.values().filter(|entry| entry.peer.fingerprint() == Some(peer));
        of_peer.map(|entry| entry.path).filter(|path| path.transport != Transport::Quic).collect()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    pub(super) fn cut(&self) -> &Cut {
        &self.cut
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).streams.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_goes_out_from_a_lost_address_is_ended_and_nothing_else_is() {
        let registry = Registry::default();
        let mut all = Vec::new();
        for own in ["127.0.0.1:0", "127.0.0.2:0"] {
            let listener = TcpListener::bind(own).await.unwrap();
            let remote = listener.local_addr().unwrap();
            let (_near, far) = tokio::join!(TcpStream::connect(remote), listener.accept());
            let cut = Cut::new(Some(Arc::new(far.unwrap().0)));
            let path = PathInfo { transport: Transport::Tcp, remote, direct: true, relay: None, rtt: None };
            let protocol = Protocol::new("trial/1");
            all.push(registry.enter(Peer::Anonymous, protocol, None, path, cut));
        }
        registry.lose(&HashSet::from(["127.0.0.2", "192.0.2.1"].map(|ip| ip.parse().unwrap())));
        let ended: Vec<_> = all.iter().map(|ticket| ticket.cut().why()).collect();
        assert_eq!(ended, [None, Some(Why::Lost)]);
        registry.cut_all();
        assert!(all.iter().all(|ticket| ticket.cut().why() == Some(Why::Cut)));
    }
}
