use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use noq::udp::RecvMeta;
use tokio::sync::mpsc;

use crate::direct::{Kind, Probe};
use crate::relay::Token;

/// Probes that wait for one listener; what comes faster is lost.
const WAITING: usize = 64;

/// Probes beside QUIC on one UDP socket.
#[derive(Debug)]
pub(in crate::shell) struct Hub {
    /// The socket of QUIC itself, so that NATs show the same address for both.
    socket: Option<std::net::UdpSocket>,
    ears: Mutex<HashMap<Token, mpsc::Sender<(Kind, SocketAddr)>>>,
}

/// Hears the probes that show one token, until dropped.
#[derive(Debug)]
pub(super) struct Ear {
    hub: Arc<Hub>,
    token: Token,
    pub(super) heard: mpsc::Receiver<(Kind, SocketAddr)>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.hub.ears().remove(&self.token);
    }
}

impl Hub {
    /// A hub on `socket`; without one it is silent.
    pub(in crate::shell) fn new(socket: Option<std::net::UdpSocket>) -> Arc<Hub> {
        Arc::new(Hub { socket, ears: Mutex::default() })
    }

    fn ears(&self) -> MutexGuard<'_, HashMap<Token, mpsc::Sender<(Kind, SocketAddr)>>> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears what shows `token` from now on.
    pub(super) fn listen(self: &Arc<Self>, token: Token) -> Ear {
        let (sender, heard) = mpsc::channel(WAITING);
        self.ears().insert(token, sender);
        Ear { hub: Arc::clone(self), token, heard }
    }

    /// Sends a probe; what cannot be sent at once is lost, as anywhere on its way.
    pub(super) fn send(&self, to: SocketAddr, probe: &Probe) {
        let Some(socket) = &self.socket else { return };
        let is_v6 = socket.local_addr().is_ok_and(|own| own.is_ipv6());
        let ip = match to.ip() {
            IpAddr::V4(ip) if is_v6 => ip.to_ipv6_mapped().into(),
            ip => ip,
        };
        if let Err(error) = socket.send_to(&probe.to_bytes(), SocketAddr::new(ip, to.port())) {
            tracing::debug!(%to, %error, "a probe was not sent");
        }
    }

    /// Takes the probes out of what was received: QUIC sees none of them.
    pub(in crate::shell) fn sift(&self, meta: &mut RecvMeta, received: &mut io::IoSliceMut<'_>) {
        if meta.stride != Probe::BYTES || meta.len == 0 {
            return;
        }
        let (mut kept, mut at) = (0, 0);
        while at < meta.len {
            let end = (at + meta.stride).min(meta.len).min(received.len());
            match received.get(at..end).and_then(Probe::from_bytes) {
                Some(probe) => self.hear(probe, meta.addr),
                None => {
                    received.copy_within(at..end, kept);
                    kept += end - at;
                }
            }
            at += meta.stride;
        }
        meta.len = kept;
    }

    fn hear(&self, probe: Probe, from: SocketAddr) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if let Some(ear) = self.ears().get(&probe.token) {
            // Whoever does not listen misses it.
            let _ = ear.try_send((probe.kind, from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_taken_out_of_what_comes_and_the_rest_stays() {
        let hub = Hub::new(None);
        let token = Token::from_bytes([7; 16]);
        let mut ear = hub.listen(token);
        let probe = |token| Probe { token, kind: Kind::Ask }.to_bytes().to_vec();
        let (one, two) = (vec![0x41; Probe::BYTES], vec![0x42; 9]);
        let stranger = probe(Token::from_bytes([8; 16]));
        let mut bytes = [probe(token), one.clone(), stranger, probe(token), two.clone()].concat();
        let from = "127.0.0.1:9".parse().unwrap();
        let mut meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (from, bytes.len(), Probe::BYTES);
        hub.sift(&mut meta, &mut io::IoSliceMut::new(&mut bytes));
        assert_eq!(bytes[..meta.len], [one, two].concat());
        for _ in 0..2 {
            assert_eq!(ear.heard.try_recv(), Ok((Kind::Ask, from)));
        }
        assert!(ear.heard.try_recv().is_err());
        let mut other = vec![0x40; 1200];
        (meta.len, meta.stride) = (1200, 1200);
        hub.sift(&mut meta, &mut io::IoSliceMut::new(&mut other));
        assert_eq!(meta.len, 1200);
    }
}
