use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// The switch that ends a stream. Costs a stream nothing but one relaxed load per call: TCP is woken by the shutdown
/// of its socket, QUIC by the wakers, which are set only when a call has to wait.
#[derive(Debug)]
pub(super) struct Cut {
    done: AtomicBool,
    socket: Option<Arc<TcpStream>>,
    pub(super) reader: AtomicWaker,
    pub(super) writer: AtomicWaker,
}

impl Cut {
    pub(super) fn new(socket: Option<Arc<TcpStream>>) -> Arc<Cut> {
        Arc::new(Cut {
            done: AtomicBool::new(false),
            socket,
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        })
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    fn cut(&self) {
        self.done.store(true, Ordering::SeqCst);
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
                cut.cut();
            }
        }
    }

    pub(super) fn cut_all(&self) {
        for entry in self.open().streams.values() {
            entry.cut.cut();
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
