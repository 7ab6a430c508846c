use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use kith_identity::tls::{Leaf, TlsError};
use kith_identity::{Fingerprint, Identity};
use kith_sansio::{Now, Span, Time, Timestamp};

use super::association::Said;
use super::{
    Association, End, FIRST_RESEND, MAX_PACKET_BYTES, MAX_WAITING_PACKETS, MTU_BYTES, PROOF_TIMEOUT, record,
};
use crate::limits::source;

/// Packets that an initiator encrypts with one key at most. A target, which changes its key whenever the initiator does,
/// has twice as many (RFC 9147 §4.5.3 allows 2^23), so that both hardly ever ask for it at once.
const RECORDS_PER_KEY: u64 = 1 << 22;

/// Names one association of one [`Hub`], never again another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(u64);

/// What strangers may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Associations in all that nobody has admitted; as many again whose initiator has not shown its address.
    pub(crate) half_open: usize,
    /// Of those with a shown address, from one IPv4 address or IPv6 /64.
    pub(crate) half_open_per_source: usize,
    /// How long a handshake may take, and a hello after it.
    pub(crate) patience: Span,
}

/// What a [`Hub`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send this packet.
    Transmit(SocketAddr, Bytes),
    /// An initiator has proved its key.
    Arrived(Id, SocketAddr, Fingerprint),
    /// The target has proved its key.
    Reached(Id),
    /// A hello, or the answer to it.
    Heard(Id, Bytes),
    /// A datagram for the floors above.
    Datagram(Id, Bytes),
    /// Datagrams of so many bytes go through from now on, and no larger ones.
    Size(Id, usize),
    /// The association is over.
    Over(Id, End),
}

/// All associations of one UDP port.
///
/// A first packet costs one of as many places as handshakes have; where all are taken, it takes the oldest, so that
/// whoever invents addresses keeps nobody out who answers quickly. An initiator that has shown its address, by the
/// cookie of its ServerHello, has a place among those of its network until it is admitted.
pub(crate) struct Hub {
    identity: Arc<Identity>,
    config: Arc<dimpl::Config>,
    leaf: Option<Leaf>,
    /// Whether strangers may open associations.
    listens: bool,
    limits: Limits,
    all: HashMap<Id, Entry>,
    /// Associations in the handshake, and those after it, by the peer's address: one of each kind.
    arriving: HashMap<SocketAddr, Id>,
    settled: HashMap<SocketAddr, Id>,
    unproven: BTreeMap<Id, Time>,
    half_open: HashMap<IpAddr, usize>,
    half_open_in_all: usize,
    timers: BTreeSet<(Time, Id)>,
    next: u64,
    outputs: VecDeque<Output>,
}

struct Entry {
    association: Association,
    remote: SocketAddr,
    due: Option<Time>,
    standing: Standing,
}

/// Which limit an association counts for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Own,
    Unproven,
    HalfOpen,
    Admitted,
}

impl Hub {
    /// One without associations.
    ///
    /// # Errors
    /// Where the library refuses the configuration.
    pub(crate) fn new(identity: Arc<Identity>, limits: Limits, listens: bool) -> Result<Hub, TlsError> {
        let records = if listens { 2 * RECORDS_PER_KEY } else { RECORDS_PER_KEY };
        Hub::changing_keys_after(records, identity, limits, listens)
    }

    /// One whose associations change their keys after so many packets.
    pub(super) fn changing_keys_after(
        records: u64,
        identity: Arc<Identity>,
        limits: Limits,
        listens: bool,
    ) -> Result<Hub, TlsError> {
        let config = dimpl::Config::builder()
            .mtu(MTU_BYTES)
            .max_queue_rx(MAX_WAITING_PACKETS)
            .flight_start_rto(FIRST_RESEND.into())
            .handshake_timeout(limits.patience.max(Span::millis(1)).into())
            .dtls12_cipher_suites(&[])
            .require_client_certificate(true)
            .use_server_cookie(true)
            .aead_encryption_limit(records)
            .build()
            .map_err(|error| TlsError::Config(format!("{error:?}")))?;
        Ok(Hub {
            identity,
            config: Arc::new(config),
            leaf: None,
            listens,
            limits,
            all: HashMap::new(),
            arriving: HashMap::new(),
            settled: HashMap::new(),
            unproven: BTreeMap::new(),
            half_open: HashMap::new(),
            half_open_in_all: 0,
            timers: BTreeSet::new(),
            next: 0,
            outputs: VecDeque::new(),
        })
    }

    /// Begins an association with `target`, which should be at `remote`.
    ///
    /// # Errors
    /// Where no certificate can be made.
    pub(crate) fn connect(
        &mut self,
        now: Now,
        remote: SocketAddr,
        target: Fingerprint,
    ) -> Result<Id, TlsError> {
        let patience = self.limits.patience;
        let config = Arc::clone(&self.config);
        let association = Association::connect(now, config, self.leaf(now.utc)?, target, patience);
        Ok(self.enter(association, remote, Standing::Own))
    }

    /// Whether strangers may open associations from now on; those that are there stay.
    pub(crate) fn listen(&mut self, listens: bool) {
        self.listens = listens;
    }

    /// Takes in a packet from `remote`.
    pub(crate) fn handle_packet(&mut self, now: Now, remote: SocketAddr, packet: &[u8]) {
        if packet.len() > MAX_PACKET_BYTES {
            return;
        }
        let settled = self.settled.get(&remote).copied();
        let mut arriving = self.arriving.get(&remote).copied();
        if arriving.is_none() && self.listens && record::is_client_hello(packet) {
            // From a peer that is connected too: it may have started anew.
            arriving = self.open_door(now, remote);
        }
        for id in [settled, arriving].into_iter().flatten() {
            self.with(now, id, |association| association.handle_packet(now, packet));
        }
    }

    /// Lets timers fire that are due.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        let due = self.timers.range(..=(now.time, Id(u64::MAX)));
        let due: Vec<Id> = due.map(|(_, id)| *id).collect();
        for id in due {
            let is_late = self.unproven.get(&id).is_some_and(|until| *until <= now.time);
            self.with(now, id, |association| {
                association.handle_timeout(now);
                if is_late {
                    association.end(End::Silent(PROOF_TIMEOUT));
                }
            });
            if let Some(entry) = self.all.get_mut(&id)
                && let Some(again) = entry.due.filter(|again| *again <= now.time)
            {
                // Whoever wants to be woken in the past is woken a moment later, and keeps nothing busy.
                let later = now.time + Span::millis(1);
                entry.due = Some(later);
                self.timers.remove(&(again, id));
                self.timers.insert((later, id));
            }
        }
    }

    /// An initiator names the protocol.
    pub(crate) fn ask(&mut self, now: Now, id: Id, hello: &[u8]) {
        self.with(now, id, |association| association.ask(now, hello));
    }

    /// A target says whether the initiator is admitted.
    pub(crate) fn answer(&mut self, now: Now, id: Id, is_admitted: bool) {
        self.with(now, id, |association| association.answer(now, is_admitted));
    }

    /// Sends datagrams, and says how many: those that are too large are left out.
    pub(crate) fn send<'a>(&mut self, now: Now, id: Id, datagrams: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut sent = 0;
        self.with(now, id, |association| {
            sent = datagrams.filter(|datagram| association.send(now, datagram)).count();
        });
        sent
    }

    /// Ends an association and tells the peer.
    pub(crate) fn close(&mut self, now: Now, id: Id) {
        self.with(now, id, |association| association.close(now));
    }

    /// Ends a handshake that cannot come about.
    pub(crate) fn give_up(&mut self, now: Now, id: Id, why: &str) {
        self.with(now, id, |association| {
            if association.is_in_handshake() {
                association.end(End::Unreachable(why.to_owned()));
            }
        });
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Whether there is no association.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many associations there are.
    pub(crate) fn cost(&self) -> usize {
        self.all.len()
    }

    /// A place for a first packet.
    fn open_door(&mut self, now: Now, remote: SocketAddr) -> Option<Id> {
        if self.unproven.len() >= self.limits.half_open.max(1)
            && let Some((&oldest, _)) = self.unproven.first_key_value()
        {
            self.with(now, oldest, |association| association.end(End::Closed));
        }
        let (config, patience) = (Arc::clone(&self.config), self.limits.patience);
        // Without a certificate nobody can be let in; the next one finds out whether there is one.
        let association = Association::accept(now, config, self.leaf(now.utc).ok()?, patience);
        let id = self.enter(association, remote, Standing::Unproven);
        let until = now.time + PROOF_TIMEOUT;
        self.unproven.insert(id, until);
        self.wake(id);
        Some(id)
    }

    fn leaf(&mut self, now: Timestamp) -> Result<&Leaf, TlsError> {
        let leaf = match self.leaf.take() {
            Some(leaf) if !leaf.is_stale(now) => leaf,
            _ => Leaf::issue(&self.identity, now)?,
        };
        Ok(self.leaf.insert(leaf))
    }

    fn enter(&mut self, association: Association, remote: SocketAddr, standing: Standing) -> Id {
        let id = Id(self.next);
        self.next += 1;
        self.all.insert(id, Entry { association, remote, due: None, standing });
        self.arriving.insert(remote, id);
        self.settle(id);
        id
    }

    /// Has an association do something, and takes what comes of it.
    fn with(&mut self, now: Now, id: Id, work: impl FnOnce(&mut Association)) {
        if let Some(entry) = self.all.get_mut(&id) {
            work(&mut entry.association);
            if let Some(replaced) = self.settle(id) {
                if let Some(entry) = self.all.get_mut(&replaced) {
                    entry.association.close(now);
                }
                self.settle(replaced);
            }
        }
    }

    /// Passes on what an association says, and books where it stands now. Says which one it takes the place of.
    fn settle(&mut self, id: Id) -> Option<Id> {
        let mut replaced = self.pass_on(id);
        let entry = self.all.get(&id)?;
        if entry.standing == Standing::Unproven && entry.association.is_proven() && !self.prove(id) {
            if let Some(entry) = self.all.get_mut(&id) {
                entry.association.end(End::Closed);
            }
            replaced = replaced.or(self.pass_on(id));
        }
        match self.all.get(&id) {
            Some(entry) if entry.association.is_over() => self.forget(id),
            Some(entry) if entry.association.is_open() => {
                self.leave_half_open(id);
                self.wake(id);
            }
            _ => self.wake(id),
        }
        replaced
    }

    fn pass_on(&mut self, id: Id) -> Option<Id> {
        let entry = self.all.get_mut(&id)?;
        let (remote, mut replaced) = (entry.remote, None);
        while let Some(said) = entry.association.poll_output() {
            self.outputs.push_back(match said {
                Said::Transmit(packet) => Output::Transmit(remote, packet),
                Said::Reached(peer) => {
                    self.arriving.remove(&remote);
                    replaced = self.settled.insert(remote, id);
                    match entry.standing {
                        Standing::Own => Output::Reached(id),
                        _ => Output::Arrived(id, remote, peer),
                    }
                }
                Said::Heard(words) => Output::Heard(id, words),
                Said::Datagram(datagram) => Output::Datagram(id, datagram),
                Said::Size(bytes) => Output::Size(id, bytes),
                Said::Over(end) => Output::Over(id, end),
            });
        }
        replaced
    }

    /// Counts an initiator among those of its network, where there is room.
    fn prove(&mut self, id: Id) -> bool {
        self.unproven.remove(&id);
        let Some(entry) = self.all.get_mut(&id) else { return false };
        let count = self.half_open.entry(source(entry.remote.ip())).or_insert(0);
        let has_room =
            *count < self.limits.half_open_per_source && self.half_open_in_all < self.limits.half_open;
        if has_room {
            *count += 1;
            self.half_open_in_all += 1;
            entry.standing = Standing::HalfOpen;
        } else if *count == 0 {
            self.half_open.remove(&source(entry.remote.ip()));
        }
        has_room
    }

    fn leave_half_open(&mut self, id: Id) {
        let Some(entry) = self.all.get_mut(&id).filter(|entry| entry.standing == Standing::HalfOpen) else {
            return;
        };
        entry.standing = Standing::Admitted;
        let from = source(entry.remote.ip());
        self.half_open_in_all -= 1;
        if let Some(count) = self.half_open.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.half_open.remove(&from);
            }
        }
    }

    /// Books when an association wants to be woken.
    fn wake(&mut self, id: Id) {
        let Some(entry) = self.all.get_mut(&id) else { return };
        let wanted = entry.association.poll_timeout();
        let due = [wanted, self.unproven.get(&id).copied()].into_iter().flatten().min();
        if due != entry.due {
            if let Some(before) = entry.due {
                self.timers.remove(&(before, id));
            }
            entry.due = due;
            self.timers.extend(due.map(|due| (due, id)));
        }
    }

    fn forget(&mut self, id: Id) {
        self.leave_half_open(id);
        self.unproven.remove(&id);
        let Some(entry) = self.all.remove(&id) else { return };
        for by_address in [&mut self.arriving, &mut self.settled] {
            if by_address.get(&entry.remote) == Some(&id) {
                by_address.remove(&entry.remote);
            }
        }
        if let Some(due) = entry.due {
            self.timers.remove(&(due, id));
        }
    }
}
