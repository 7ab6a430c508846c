//! One device with its peers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::BytesMut;
use kith_connect::{ConnectError, Datagrams, Endpoint, OwnDevice, PathInfo, Protocol, Via};
use kith_identity::Fingerprint;
use kith_sansio::Span;
use kith_sansio::system::time;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::line::{Event, Line, add};
use super::linux::{Delivery, Device, DeviceError, Packets};
use super::{until, within};
use crate::{Cidr, Dropped, Fit, Header, Switch, TakenError, device_mtu, fit, halves, icmp};

/// How long packets of one peer may wait for room before they are dropped: those of the others wait behind them.
const PATIENCE: Span = Span::millis(20);
/// How often the size of the device is fitted to the paths.
const FIT_EVERY: Span = Span::secs(1);
/// How long reading rests after a failure.
const BREATHER: Span = Span::millis(50);
/// Most answers to the packets of one batch.
const MAX_ANSWERS: usize = 8;

/// What a device is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Its name.
    pub device: String,
    /// Its addresses, of which one at most is of IPv4.
    pub addresses: Vec<Cidr>,
    /// The largest packets that it takes, in bytes; smaller where a path carries less.
    pub most_mtu: u16,
}

/// Why a peer cannot be added to a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// Its networks are somebody else's.
    #[error(transparent)]
    Taken(#[from] TakenError<Fingerprint>),
    /// The system does not take its routes.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// How it stands with a peer.
#[derive(Clone, Debug)]
pub struct PeerState {
    /// How it is reached; `None` where it is not.
    pub path: Option<PathInfo>,
    /// The largest datagram that the path carries, in bytes.
    pub max_size: Option<usize>,
    /// Why it is not reached.
    pub trouble: Option<String>,
    /// Packets that were sent, and their bytes.
    pub sent: (u64, u64),
    /// Packets that came, and their bytes.
    pub received: (u64, u64),
    /// Packets that were not sent: there was no connection, or no room.
    pub unsent: u64,
    /// Packets that were too large for the path.
    pub too_large: u64,
    /// Packets from an address that is not the peer's.
    pub refused_sources: u64,
    /// Datagrams that hold no packet.
    pub malformed: u64,
}

/// A device with its peers; both are gone when it is dropped.
pub struct Hub {
    shared: Arc<Shared>,
    _until_dropped: DropGuard,
}

pub(super) struct Shared {
    pub(super) device: Device,
    _own_device: OwnDevice,
    endpoint: Endpoint,
    protocol: Protocol,
    most_mtu: u16,
    mtu: AtomicU16,
    switch: RwLock<Switch<Fingerprint>>,
    lines: RwLock<HashMap<Fingerprint, Arc<Line>>>,
    /// Packets that go to nobody.
    astray: AtomicU64,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// Packets for one peer.
struct Run<'a> {
    line: Arc<Line>,
    datagrams: Option<Arc<Datagrams>>,
    max_size: usize,
    pieces: Vec<Piece<'a>>,
    packets: usize,
    bytes: usize,
}

/// One datagram.
enum Piece<'a> {
    Whole(&'a [u8]),
    Half(BytesMut),
}

impl AsRef<[u8]> for Piece<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Piece::Whole(packet) => packet,
            Piece::Half(half) => half,
        }
    }
}

impl Hub {
    /// Makes the device and takes its packets. Peers are reached over `endpoint` for `protocol`.
    pub fn open(endpoint: Endpoint, protocol: Protocol, config: &HubConfig) -> Result<Hub, DeviceError> {
        let mtu = fitting_mtu([], config.most_mtu);
        let closing = CancellationToken::new();
        let own_device = endpoint.carries(&config.device);
        let shared = Arc::new(Shared {
            device: Device::open(&config.device, &config.addresses, mtu)?,
            _own_device: own_device,
            endpoint,
            protocol,
            most_mtu: config.most_mtu,
            mtu: AtomicU16::new(mtu),
            switch: RwLock::default(),
            lines: RwLock::default(),
            astray: AtomicU64::new(0),
            closing: closing.clone(),
            tasks: TaskTracker::new(),
        });
        for queue in 0..shared.device.queues() {
            shared.spawn(outlet(Arc::clone(&shared), queue));
        }
        shared.spawn(fit_device(Arc::clone(&shared)));
        Ok(Hub { shared, _until_dropped: closing.drop_guard() })
    }

    /// Gives `peer` networks and connects to it over `via`; in the place of what was said of it before.
    pub fn add(&self, peer: Fingerprint, networks: &[Cidr], via: Via) -> Result<(), AddError> {
        self.shared.switch_mut().set(peer, networks)?;
        let old = self.shared.lines_mut().remove(&peer);
        if let Some(old) = &old {
            old.end();
        }
        let kept = old.as_ref().map_or(&[][..], |old| old.networks.as_slice());
        kept.iter()
            .filter(|one| !networks.contains(one))
            .for_each(|one| self.shared.device.remove_route(one));
        for (at, network) in networks.iter().enumerate().filter(|(_, one)| !kept.contains(one)) {
            if let Err(error) = self.shared.device.add_route(network) {
                networks.iter().take(at).for_each(|one| self.shared.device.remove_route(one));
                self.shared.switch_mut().remove(peer);
                return Err(error.into());
            }
        }
        let line = Line::start(&self.shared, peer, networks.to_vec(), via);
        self.shared.lines_mut().insert(peer, line);
        Ok(())
    }

    /// Takes a peer away, with its connections and routes.
    pub fn remove(&self, peer: &Fingerprint) {
        self.shared.switch_mut().remove(*peer);
        let line = self.shared.lines_mut().remove(peer);
        if let Some(line) = line {
            line.end();
            line.networks.iter().for_each(|one| self.shared.device.remove_route(one));
        }
    }

    /// Takes a connection that a peer opened; `false`, and it ends, where there is no such peer.
    pub fn arrived(&self, peer: &Fingerprint, datagrams: Datagrams) -> bool {
        let line = self.shared.lines().get(peer).cloned();
        line.is_some_and(|line| {
            line.tell(Event::Arrived(datagrams));
            true
        })
    }

    /// Says that `peer` may be reached now.
    pub fn hope(&self, peer: &Fingerprint) {
        if let Some(line) = self.shared.lines().get(peer) {
            line.tell(Event::Hope);
        }
    }

    /// How it stands with `peer`.
    pub fn state(&self, peer: &Fingerprint) -> Option<PeerState> {
        let line = self.shared.lines().get(peer).cloned()?;
        let newest = line.newest();
        let (counts, said) = (&line.counts, |counter: &AtomicU64| counter.load(Ordering::Relaxed));
        Some(PeerState {
            path: newest.as_ref().map(|datagrams| datagrams.path()),
            max_size: newest.as_ref().map(|datagrams| datagrams.max_size()),
            trouble: newest.is_none().then(|| line.trouble()).flatten(),
            sent: (said(&counts.sent), said(&counts.sent_bytes)),
            received: (said(&counts.received), said(&counts.received_bytes)),
            unsent: said(&counts.unsent),
            too_large: said(&counts.too_large),
            refused_sources: said(&counts.refused_sources),
            malformed: said(&counts.malformed),
        })
    }

    /// Its peers, in no order.
    pub fn peers(&self) -> Vec<Fingerprint> {
        self.shared.lines().keys().copied().collect()
    }

    /// The largest packets that the device takes now, in bytes.
    pub fn mtu(&self) -> u16 {
        self.shared.mtu.load(Ordering::Relaxed)
    }

    /// Packets that no peer has the destination of.
    pub fn astray(&self) -> u64 {
        self.shared.astray.load(Ordering::Relaxed)
    }

    /// Whether the device is still there: somebody else may have taken it away.
    pub fn is_alive(&self) -> bool {
        !self.shared.closing.is_cancelled()
    }

    /// Takes the device away and waits until all has ended.
    pub async fn close(self) {
        self.shared.closing.cancel();
        self.shared.lines_mut().clear();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                _ = task => {}
                () = closing.cancelled() => {}
            }
        });
    }

    pub(super) async fn connect(&self, peer: &Fingerprint, via: Via) -> Result<Datagrams, ConnectError> {
        self.endpoint.connect_datagrams_with(peer, &self.protocol, via).await
    }

    pub(super) fn paths(&self, peer: &Fingerprint) -> Vec<PathInfo> {
        self.endpoint.paths(peer)
    }

    pub(super) fn inbound(&self, peer: &Fingerprint, packet: &[u8]) -> Result<Header, Dropped> {
        self.switch.read().unwrap_or_else(PoisonError::into_inner).inbound(*peer, packet)
    }

    fn switch_mut(&self) -> RwLockWriteGuard<'_, Switch<Fingerprint>> {
        self.switch.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> RwLockReadGuard<'_, HashMap<Fingerprint, Arc<Line>>> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines_mut(&self) -> RwLockWriteGuard<'_, HashMap<Fingerprint, Arc<Line>>> {
        self.lines.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sorts packets by peer, and puts into `back` what is said of those that do not go.
    fn sort<'a>(&self, packets: &'a Packets, back: &mut Delivery) -> Vec<Run<'a>> {
        let switch = self.switch.read().unwrap_or_else(PoisonError::into_inner);
        let mut runs: Vec<Run<'a>> = Vec::new();
        let mut answers = Vec::new();
        for packet in packets.iter() {
            let (peer, header) = match switch.outbound(packet) {
                Ok(found) => found,
                Err(error) => {
                    add(&self.astray, 1);
                    if let (Dropped::NoPeer(_), Ok(header)) = (error, Header::read(packet)) {
                        answers.extend(icmp::unreachable(packet, &header));
                    }
                    continue;
                }
            };
            // Packets that come together mostly go together.
            let at = match runs.iter().rposition(|run| run.line.peer == peer) {
                Some(at) => at,
                None => {
                    let Some(line) = self.lines().get(&peer).cloned() else { continue };
                    runs.push(Run::of(line));
                    runs.len() - 1
                }
            };
            let Some(run) = runs.get_mut(at) else { continue };
            answers.extend(run.take(packet, &header));
        }
        answers.iter().take(MAX_ANSWERS).for_each(|answer| {
            back.push(answer);
        });
        runs
    }

    /// Fits the device to what the paths carry.
    fn fit(&self) {
        let newest: Vec<_> = self.lines().values().filter_map(|line| line.newest()).collect();
        let mtu = fitting_mtu(newest.iter().map(|datagrams| datagrams.max_size()), self.most_mtu);
        if mtu == self.mtu.load(Ordering::Relaxed) {
            return;
        }
        match self.device.set_mtu(mtu) {
            Ok(()) => self.mtu.store(mtu, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, mtu, "the network device keeps its size"),
        }
    }
}

fn fitting_mtu(max_sizes: impl IntoIterator<Item = usize>, most: u16) -> u16 {
    u16::try_from(device_mtu(max_sizes, usize::from(most))).unwrap_or(most)
}

impl<'a> Run<'a> {
    fn of(line: Arc<Line>) -> Run<'a> {
        let datagrams = line.newest();
        let max_size = datagrams.as_ref().map_or(0, |datagrams| datagrams.max_size());
        Run { line, datagrams, max_size, pieces: Vec::new(), packets: 0, bytes: 0 }
    }

    /// Adds a packet, or says what is answered to it.
    fn take(&mut self, packet: &'a [u8], header: &Header) -> Option<Vec<u8>> {
        if self.datagrams.is_none() {
            add(&self.line.counts.unsent, 1);
            return icmp::unreachable(packet, header);
        }
        match fit(header, packet.len(), self.max_size) {
            Fit::Whole => self.pieces.push(Piece::Whole(packet)),
            Fit::Halves => {
                let id = self.line.next_half.fetch_add(1, Ordering::Relaxed);
                self.pieces.extend(halves(id, packet).map(Piece::Half));
            }
            Fit::TooLarge(mtu) => {
                add(&self.line.counts.too_large, 1);
                return icmp::too_large(packet, header, mtu);
            }
            Fit::Hopeless => {
                add(&self.line.counts.too_large, 1);
                return None;
            }
        }
        self.packets += 1;
        self.bytes += packet.len();
        None
    }

    async fn send(&self) {
        let Some(datagrams) = self.datagrams.as_ref().filter(|_| !self.pieces.is_empty()) else { return };
        let pieces: Vec<&[u8]> = self.pieces.iter().map(AsRef::as_ref).collect();
        let counts = &self.line.counts;
        match within(PATIENCE, datagrams.send_all(pieces)).await {
            Some(Ok(_)) => {
                add(&counts.sent, self.packets);
                add(&counts.sent_bytes, self.bytes);
            }
            // How many of them had room is not known.
            None | Some(Err(_)) => add(&counts.unsent, self.packets),
        }
        self.line.note_sent();
    }
}

/// Takes packets from one queue of the device and sends them to whom they are for.
async fn outlet(shared: Arc<Shared>, queue: usize) {
    let mut packets = Packets::of(usize::from(shared.most_mtu));
    let mut back = Delivery::new();
    loop {
        if let Err(error) = shared.device.read(queue, &mut packets).await {
            if !shared.device.is_there() {
                tracing::error!(%error, "the network device has gone");
                return shared.closing.cancel();
            }
            tracing::debug!(%error, "nothing read from the network device");
            until(time() + BREATHER).await;
            continue;
        }
        let runs = shared.sort(&packets, &mut back);
        for run in &runs {
            run.send().await;
        }
        if let Err(error) = shared.device.write(queue, &mut back).await {
            tracing::debug!(%error, "the network device does not take packets");
        }
    }
}

async fn fit_device(shared: Arc<Shared>) {
    loop {
        until(time() + FIT_EVERY).await;
        shared.fit();
    }
}
