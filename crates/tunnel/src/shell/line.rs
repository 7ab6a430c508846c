//! One peer of a device: its connections, kept by a [`Peering`], and what comes in over them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kith_connect::{Datagrams, PathInfo, Via};
use kith_identity::{Fingerprint, Transport};
use kith_sansio::system::{OsRng, now, time};
use kith_sansio::{Machine, Span, Time};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::hub::Shared;
use super::linux::Delivery;
use super::until;
use crate::{Cidr, Connection, Dropped, Frame, Halves, Input, Output, Pace, Peering};

/// Datagrams taken from a connection in one go.
const BATCH: usize = 128;
/// How often the peering is told that datagrams came and went.
const TELL_EVERY: Span = Span::millis(250);
/// How often it is looked whether there is a way without the relay that a connection goes over.
const LOOK_EVERY: Span = Span::secs(2);
/// Events that wait for the peering.
const EVENTS: usize = 16;

/// What happened to a line, beside its datagrams.
pub(super) enum Event {
    /// A connection is there, opened by the peer.
    Arrived(Datagrams),
    /// A connection is there, opened here.
    Reached(Datagrams),
    /// An attempt failed.
    Failed,
    /// A connection has ended.
    Ended(Connection),
    /// There is reason to try now.
    Hope,
}

/// What went over a line, and what did not.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) unsent: AtomicU64,
    pub(super) too_large: AtomicU64,
    pub(super) refused_sources: AtomicU64,
    pub(super) malformed: AtomicU64,
}

/// One peer of a device.
pub(super) struct Line {
    pub(super) peer: Fingerprint,
    pub(super) networks: Vec<Cidr>,
    pub(super) via: Via,
    /// The queue of the device that all of its packets take.
    queue: usize,
    pub(super) counts: Counts,
    pub(super) next_half: AtomicU16,
    newest: Mutex<Option<Arc<Datagrams>>>,
    trouble: Mutex<Option<String>>,
    events: mpsc::Sender<Event>,
    sent: AtomicBool,
    stirred: Notify,
    stop: CancellationToken,
}

pub(super) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

impl Line {
    /// A line that connects from now on, until it is ended or the hub closes.
    pub(super) fn start(shared: &Arc<Shared>, peer: Fingerprint, networks: Vec<Cidr>, via: Via) -> Arc<Line> {
        let (events, queue) = mpsc::channel(EVENTS);
        let line = Arc::new(Line {
            peer,
            networks,
            via,
            queue: usize::from(peer.as_bytes().first().copied().unwrap_or_default()),
            counts: Counts::default(),
            next_half: AtomicU16::new(0),
            newest: Mutex::default(),
            trouble: Mutex::default(),
            events,
            sent: AtomicBool::new(false),
            stirred: Notify::new(),
            stop: CancellationToken::new(),
        });
        let keeper = Keeper {
            shared: Arc::clone(shared),
            line: Arc::clone(&line),
            peering: Peering::new(now(), Pace::default()),
            open: HashMap::new(),
            opened: 0,
        };
        shared.spawn(line.stop.clone().run_until_cancelled_owned(keeper.run(queue)));
        line
    }

    /// Ends it with all its connections.
    pub(super) fn end(&self) {
        self.stop.cancel();
    }

    /// The connection that datagrams go out over.
    pub(super) fn newest(&self) -> Option<Arc<Datagrams>> {
        locked(&self.newest).clone()
    }

    /// Why the last attempt failed, while there is no connection.
    pub(super) fn trouble(&self) -> Option<String> {
        locked(&self.trouble).clone()
    }

    /// Tells of an event; dropped where too many wait, which a peer can cause.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.events.try_send(event);
    }

    /// A datagram was sent.
    pub(super) fn note_sent(&self) {
        if !self.sent.swap(true, Ordering::Relaxed) {
            self.stirred.notify_one();
        }
    }

    fn admits(&self, datagrams: &Datagrams) -> bool {
        match self.via {
            Via::Tcp => datagrams.path().transport == Transport::Tcp,
            Via::Quic => datagrams.path().transport == Transport::Quic,
            Via::Dtls => datagrams.path().transport == Transport::Dtls,
            _ => true,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One open connection.
struct Open {
    datagrams: Arc<Datagrams>,
    heard: Arc<AtomicBool>,
    _until_dropped: DropGuard,
}

/// Runs the peering of a line.
struct Keeper {
    shared: Arc<Shared>,
    line: Arc<Line>,
    peering: Peering,
    open: HashMap<Connection, Open>,
    opened: u64,
}

impl Keeper {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let (mut tell_at, mut look_at) = (Time(0), time() + LOOK_EVERY);
        let line = Arc::clone(&self.line);
        loop {
            self.follow(&line);
            let deadline = self.peering.poll_timeout();
            let stirred = async {
                until(tell_at).await;
                line.stirred.notified().await;
            };
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(&line, event),
                    None => return,
                },
                () = until(deadline.unwrap_or_else(time)), if deadline.is_some() => {
                    self.tell_traffic(&line);
                    self.peering.handle_timeout(now(), &mut OsRng);
                }
                () = until(look_at), if line.via == Via::Any => {
                    look_at = time() + LOOK_EVERY;
                    if self.could_leave_relay(&line) {
                        self.input(Input::Better);
                    }
                }
                () = stirred => {
                    tell_at = time() + TELL_EVERY;
                    self.tell_traffic(&line);
                }
            }
        }
    }

    /// Whether the connection goes over a relay by TCP, which stays there, and the peer is reached directly otherwise.
    fn could_leave_relay(&self, line: &Line) -> bool {
        let stays = |path: PathInfo| path.relay.is_some() && path.transport == Transport::Tcp;
        let paths = || self.shared.paths(&line.peer);
        line.newest().is_some_and(|newest| stays(newest.path())) && paths().iter().any(|path| path.direct)
    }

    fn input(&mut self, input: Input) {
        self.peering.handle_input(now(), input, &mut OsRng);
    }

    /// What came and went since the last time, as far as it matters: that it did.
    fn tell_traffic(&mut self, line: &Line) {
        if line.sent.swap(false, Ordering::Relaxed) {
            self.input(Input::Sent);
        }
        let heard: Vec<_> = self
            .open
            .iter()
            .filter(|(_, open)| open.heard.swap(false, Ordering::Relaxed))
            .map(|(id, _)| *id)
            .collect();
        heard.into_iter().for_each(|connection| self.input(Input::Heard(connection)));
    }

    fn take(&mut self, line: &Arc<Line>, event: Event) {
        match event {
            Event::Arrived(datagrams) if !line.admits(&datagrams) => {
                let transport = datagrams.path().transport;
                *locked(&line.trouble) =
                    Some(format!("the contact insists on {transport}, and this node on another transport"));
            }
            Event::Arrived(datagrams) | Event::Reached(datagrams) => {
                let connection = self.open(line, datagrams);
                self.input(Input::Connected(connection));
            }
            Event::Failed => self.input(Input::Failed),
            Event::Ended(connection) => {
                self.open.remove(&connection);
                self.input(Input::Ended(connection));
            }
            Event::Hope => self.input(Input::Hope),
        }
    }

    fn open(&mut self, line: &Arc<Line>, datagrams: Datagrams) -> Connection {
        self.opened += 1;
        let connection = Connection(self.opened);
        let (stop, heard) = (line.stop.child_token(), Arc::new(AtomicBool::new(false)));
        let datagrams = Arc::new(datagrams);
        let inlet = Inlet {
            shared: Arc::clone(&self.shared),
            line: Arc::clone(line),
            datagrams: Arc::clone(&datagrams),
            heard: Arc::clone(&heard),
            halves: Halves::default(),
            into: Delivery::new(),
        };
        self.shared.spawn(stop.clone().run_until_cancelled_owned(inlet.run(connection)));
        *locked(&line.trouble) = None;
        self.open.insert(connection, Open { datagrams, heard, _until_dropped: stop.drop_guard() });
        connection
    }

    /// Does what the peering wants.
    fn follow(&mut self, line: &Arc<Line>) {
        while let Some(output) = self.peering.poll_output() {
            match output {
                Output::Connect => self.connect(line),
                Output::Ask(connection, probe) => {
                    if let Some(open) = self.open.get(&connection) {
                        // Where it is over, its inlet says so.
                        let _ = open.datagrams.send(&probe.ask());
                    }
                }
                Output::Close(connection) => {
                    self.open.remove(&connection);
                }
            }
        }
        let newest = self.peering.newest().and_then(|newest| self.open.get(&newest));
        *locked(&line.newest) = newest.map(|open| Arc::clone(&open.datagrams));
    }

    fn connect(&self, line: &Arc<Line>) {
        let (shared, line) = (Arc::clone(&self.shared), Arc::clone(line));
        let stop = line.stop.clone();
        self.shared.spawn(stop.run_until_cancelled_owned(async move {
            let event = match shared.connect(&line.peer, line.via).await {
                Ok(datagrams) => Event::Reached(datagrams),
                Err(error) => {
                    tracing::debug!(%error, "a tunnel's peer is not reached");
                    *locked(&line.trouble) = Some(error.to_string());
                    Event::Failed
                }
            };
            // The peering waits for this one.
            let _ = line.events.send(event).await;
        }));
    }
}

/// Takes what comes in over one connection.
struct Inlet {
    shared: Arc<Shared>,
    line: Arc<Line>,
    datagrams: Arc<Datagrams>,
    heard: Arc<AtomicBool>,
    halves: Halves,
    into: Delivery,
}

impl Inlet {
    async fn run(mut self, connection: Connection) {
        let mut received = Vec::with_capacity(BATCH);
        while self.datagrams.recv_many(&mut received, BATCH).await.is_ok() {
            if !self.heard.swap(true, Ordering::Relaxed) {
                self.line.stirred.notify_one();
            }
            self.sort(&mut received);
            if let Err(error) = self.shared.device.write(self.line.queue, &mut self.into).await {
                tracing::debug!(%error, "the network device does not take packets");
            }
        }
        let _ = self.line.events.send(Event::Ended(connection)).await;
    }

    fn sort(&mut self, received: &mut Vec<Bytes>) {
        for datagram in received.drain(..) {
            let packet = match Frame::read(datagram) {
                Some(Frame::Packet(packet)) => packet,
                Some(Frame::Half { id, is_second, bytes }) => {
                    match self.halves.join(time(), id, is_second, bytes) {
                        Some(packet) => packet,
                        None => continue,
                    }
                }
                Some(Frame::Ask(probe)) => {
                    let _ = self.datagrams.send(&probe.answer());
                    continue;
                }
                Some(Frame::Answer(_)) => continue,
                None => {
                    add(&self.line.counts.malformed, 1);
                    continue;
                }
            };
            self.admit(&packet);
        }
    }

    fn admit(&mut self, packet: &[u8]) {
        let counts = &self.line.counts;
        match self.shared.inbound(&self.line.peer, packet) {
            Ok(_) => {
                if self.into.push(packet) {
                    add(&counts.received, 1);
                    add(&counts.received_bytes, packet.len());
                }
            }
            Err(Dropped::NotItsSource(_)) => add(&counts.refused_sources, 1),
            Err(_) => add(&counts.malformed, 1),
        }
    }
}
