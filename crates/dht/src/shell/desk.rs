//! The task that drives the machine and has the streams.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use kith_connect::{ConnectError, Endpoint, Incoming, Peer, Stream};
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::system::{self, OsRng};
use kith_sansio::{Machine, Span, Time};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::line::{Asked, Line, Talk, frame};
use super::membership::{Doorkeeper, Membership};
use super::shelf::{self, Shelf};
use super::{
    Addresses, EVENTS, Event, LineId, Order, PROTOCOL, PutError, Search, Settings, Status, sleep_until,
    within,
};
use crate::contact::Contact;
use crate::defaults::{DIAL, IDLE, MAX_DIALS, MAX_KNOWN, MAX_LINES_PER_MEMBER, MAX_NEIGHBOURS};
use crate::gate::Gate;
use crate::message::{Card, Message};
use crate::node::{Input, Node, Output};
use crate::value::Value;

/// Drives one node.
pub(super) struct Desk {
    endpoint: Endpoint,
    membership: Arc<dyn Membership>,
    addresses: Addresses,
    own: Contact,
    node: Node,
    known: Vec<Contact>,
    kept: Vec<(NodeId, Vec<u8>)>,
    shelf: Option<Arc<dyn Shelf>>,
    /// What became of rows; as many wait as values are being written.
    written: mpsc::UnboundedSender<(u64, bool)>,
    writings: mpsc::UnboundedReceiver<(u64, bool)>,
    neighbours: HashMap<Fingerprint, Neighbour>,
    replies: HashMap<u64, Reply>,
    /// The last number that was given to a wish or a stream.
    last: u64,
    joined: watch::Sender<bool>,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    dials: JoinSet<()>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// A member with whom there is a stream, or is to be one.
struct Neighbour {
    id: Option<NodeId>,
    /// The newest last, which is used: what is older may be dead without anybody having said so.
    lines: Vec<Line>,
    /// What is to be said once there is a stream, while one is being opened.
    waiting: Option<Vec<Bytes>>,
    asked: Asked,
    /// Whether this node opened the newest stream.
    is_ours: bool,
    /// When something was said last by either side.
    used: Time,
}

/// Who waits for an outcome.
enum Reply {
    Put(oneshot::Sender<Result<usize, PutError>>),
    Get(oneshot::Sender<Option<Value>>),
    Find(oneshot::Sender<Search>),
}

impl Neighbour {
    fn new(now: Time) -> Neighbour {
        let (lines, asked) = (Vec::new(), Asked::default());
        Neighbour { id: None, lines, waiting: None, asked, is_ours: false, used: now }
    }

    /// Whether its streams are to end because nobody says anything.
    fn is_idle(&self, now: Time) -> bool {
        let most = if self.is_ours { IDLE } else { IDLE.times(2) };
        self.waiting.is_none() && now - self.used >= most
    }
}

impl Desk {
    pub(super) fn new(
        endpoint: Endpoint,
        settings: Settings,
        membership: Arc<dyn Membership>,
        joined: watch::Sender<bool>,
        tasks: TaskTracker,
    ) -> Desk {
        let Settings { routing, address, known, addresses, kept, shelf } = settings;
        let own = Contact::of(&membership.own(), address);
        let node = Node::new(own.clone(), routing, membership.members());
        let node = if shelf.is_some() { node.durable() } else { node };
        let (written, writings) = mpsc::unbounded_channel();
        let (events, inbox) = mpsc::channel(EVENTS);
        Desk {
            endpoint,
            membership,
            addresses,
            own,
            node,
            known,
            kept,
            shelf,
            written,
            writings,
            neighbours: HashMap::new(),
            replies: HashMap::new(),
            last: 0,
            joined,
            events,
            inbox,
            dials: JoinSet::new(),
            places: Arc::new(Semaphore::new(MAX_DIALS)),
            tasks,
        }
    }

    /// Until the node leaves, or nobody wishes anything of it any more.
    pub(super) async fn run(mut self, mut incoming: Incoming, mut orders: mpsc::Receiver<Order>) {
        let mut changes = self.membership.changed();
        let known = std::mem::take(&mut self.known);
        self.restore().await;
        self.review();
        self.give(Input::Join(known));
        let mut sweep = system::time() + IDLE;
        loop {
            let due = self.node.poll_timeout().map_or(sweep, |due| due.min(sweep));
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Leave(reply)) => return self.leave(reply).await,
                    Some(order) => self.obey(order),
                    None => return,
                },
                arrived = incoming.next() => match arrived {
                    Some((Peer::Known(peer), stream)) => self.open(peer, stream, false),
                    Some((Peer::Anonymous, _)) => {}
                    None => return,
                },
                Some(event) = self.inbox.recv() => self.hear(event),
                Some((ticket, is_safe)) = self.writings.recv() => self.give(Input::Kept { ticket, is_safe }),
                Some(_) = self.dials.join_next() => {}
                true = changes.next() => self.review(),
                () = sleep_until(due) => {
                    if system::time() >= sweep {
                        sweep = system::time() + Span(IDLE.0 / 2);
                        self.sweep();
                    }
                    self.node.handle_timeout(system::now(), &mut OsRng);
                    self.drain();
                }
            }
        }
    }

    /// Takes back what was kept when the node ran last. To verify it takes its time.
    async fn restore(&mut self) {
        let (rows, membership) = (std::mem::take(&mut self.kept), Arc::clone(&self.membership));
        if rows.is_empty() {
            return;
        }
        let read = self.tasks.spawn_blocking(move || shelf::read(rows, &membership)).await;
        let Ok((values, broken)) = read else { return };
        self.give(Input::Restore(values));
        broken.iter().for_each(|key| self.forget(key));
    }

    fn forget(&self, key: &NodeId) {
        if let Some(shelf) = &self.shelf {
            shelf.remove(key);
        }
    }

    fn keep(&self, ticket: u64, value: &Value, by: &NodeId) {
        let written = self.written.clone();
        if let Some(shelf) = &self.shelf {
            // The node may have ended meanwhile.
            let tell = move |is_safe| written.send((ticket, is_safe)).unwrap_or_default();
            shelf.put(&value.key, shelf::row(value, by), Box::new(tell));
        }
    }

    /// Says goodbye, as far as members can still be reached.
    async fn leave(mut self, reply: oneshot::Sender<()>) {
        self.give(Input::Leave);
        while self.neighbours.values().any(|neighbour| neighbour.waiting.is_some()) {
            match self.inbox.recv().await {
                Some(Event::Dialled(to, stream)) => self.dialled(&to, stream),
                Some(_) => {}
                None => break,
            }
        }
        // Streams that nobody holds say what waits before they end.
        let Desk { neighbours, events, mut inbox, .. } = self;
        drop((neighbours, events));
        while inbox.recv().await.is_some() {}
        // Nobody may wait any more.
        let _gone = reply.send(());
    }

    fn obey(&mut self, order: Order) {
        self.last += 1;
        let op = self.last;
        let (reply, input) = match order {
            Order::Put(value, reply) => (Reply::Put(reply), Input::Put { op, value }),
            Order::Get(key, reply) => (Reply::Get(reply), Input::Get { op, key }),
            Order::Find(place, want, reply) => (Reply::Find(reply), Input::Find { op, place, want }),
            Order::Contact(id, reply) => {
                let known = self.node.routes().find(&id).map(|known| known.contact.clone());
                return drop(reply.send(known));
            }
            Order::Status(reply) => return drop(reply.send(self.status())),
            Order::Known(reply) => return drop(reply.send(self.known_now())),
            Order::Meet(others) => return self.give(Input::Meet(others)),
            Order::Moved(address) => return self.moved(address),
            Order::Leave(_) => return,
        };
        self.replies.insert(op, reply);
        self.give(input);
    }

    fn known_now(&self) -> Vec<Contact> {
        let known = self.node.routes().nearest(self.own.id).take(MAX_KNOWN);
        known.map(|known| known.contact.clone()).collect()
    }

    fn moved(&mut self, address: SocketAddr) {
        if address != self.own.address {
            self.own.address = address;
            // Streams begin with the card.
            self.neighbours.values_mut().for_each(|neighbour| neighbour.lines.clear());
            self.give(Input::Moved(address));
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Heard(from, message) => {
                if let Some(neighbour) = self.neighbours.get_mut(&from.fingerprint) {
                    (neighbour.used, neighbour.id) = (system::time(), Some(from.id));
                }
                self.give(Input::Heard { from, message });
            }
            Event::Dialled(to, stream) => {
                let is_lost = stream.is_none();
                self.dialled(&to, stream);
                if is_lost {
                    self.lost(to.fingerprint);
                }
            }
            Event::Closed(peer, line) => {
                if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                    neighbour.lines.retain(|other| other.id != line);
                    self.lost(peer);
                }
            }
        }
    }

    /// Looks again who belongs to the network, and how many.
    fn review(&mut self) {
        let now = system::utc();
        let own = Contact::of(&self.membership.own(), self.own.address);
        if own.certificate != self.own.certificate {
            // Streams begin with it.
            self.own = own;
            self.neighbours.values_mut().for_each(|neighbour| neighbour.lines.clear());
        }
        self.give(Input::Members(self.membership.members()));
        if let Some(roster) = self.membership.roster(&self.node.routes().block()) {
            self.give(Input::Roster(roster));
        }
        let mut gate = Doorkeeper(Arc::clone(&self.membership));
        let mut is_member = |Contact { certificate, address, .. }: &Contact| {
            let card = Card { certificate: certificate.clone(), address: *address };
            gate.contact(&card, now).is_some()
        };
        let known = self.node.routes().nearest(self.own.id).map(|known| &known.contact);
        let revoked = known.filter(|contact| !is_member(contact)).map(|contact| contact.id);
        let revoked: Vec<_> = revoked.collect();
        self.neighbours.retain(|_, neighbour| neighbour.id.is_none_or(|id| !revoked.contains(&id)));
        self.give(Input::Revoked(revoked));
    }

    fn give(&mut self, input: Input) {
        self.node.handle_input(system::now(), input, &mut OsRng);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Send { to, message } => self.send(&to, &message),
                Output::Joined => drop(self.joined.send_replace(true)),
                Output::Left => {}
                Output::Keep { ticket, value, by } => self.keep(ticket, &value, &by),
                Output::Forget(key) => self.forget(&key),
                // Whoever wished for it may not wait any more.
                Output::Found { op, nodes, hops, requests } => {
                    if let Some(Reply::Find(reply)) = self.replies.remove(&op) {
                        let _gone = reply.send(Search { nodes, hops, requests });
                    }
                }
                Output::Got { op, value } => {
                    if let Some(Reply::Get(reply)) = self.replies.remove(&op) {
                        let _gone = reply.send(value);
                    }
                }
                Output::Stored { op, nodes } => self.is_put(op, Ok(nodes)),
                Output::NotStored { op, nodes, needed, refusal } => {
                    self.is_put(op, Err(PutError::TooFew { nodes, needed, refusal }));
                }
            }
        }
    }

    fn is_put(&mut self, op: u64, outcome: Result<usize, PutError>) {
        if let Some(Reply::Put(reply)) = self.replies.remove(&op) {
            let _gone = reply.send(outcome);
        }
    }

    /// Says something to a member; for an answer alone nobody is called.
    fn send(&mut self, to: &Contact, message: &Message) {
        let bytes = frame(&message.to_bytes());
        if message.body.is_answer() {
            let line = self.neighbours.get(&to.fingerprint).and_then(|neighbour| neighbour.lines.last());
            return line.into_iter().for_each(|line| line.answer(bytes.clone()));
        }
        let neighbour = self.neighbour(to.fingerprint);
        (neighbour.id, neighbour.used) = (Some(to.id), system::time());
        neighbour.asked.add(message.id);
        if let Some(line) = neighbour.lines.last() {
            line.say(bytes);
        } else if let Some(waiting) = &mut neighbour.waiting {
            waiting.push(bytes);
        } else {
            neighbour.waiting = Some(vec![bytes]);
            self.dial(to.clone());
        }
    }

    /// What is known of streams with a member. Where these are too many, those that were silent for longest end.
    fn neighbour(&mut self, peer: Fingerprint) -> &mut Neighbour {
        if self.neighbours.len() >= MAX_NEIGHBOURS && !self.neighbours.contains_key(&peer) {
            let open = self.neighbours.iter().filter(|(_, other)| other.waiting.is_none());
            if let Some(silent) = open.min_by_key(|(_, other)| other.used).map(|(peer, _)| *peer) {
                self.neighbours.remove(&silent);
            }
        }
        self.neighbours.entry(peer).or_insert_with(|| Neighbour::new(system::time()))
    }

    fn open(&mut self, peer: Fingerprint, stream: Stream, is_ours: bool) {
        self.last += 1;
        let (id, own) = (LineId(self.last), frame(&self.own.to_card()));
        let (gate, events) = (Doorkeeper(Arc::clone(&self.membership)), self.events.clone());
        let tasks = self.tasks.clone();
        let neighbour = self.neighbour(peer);
        if neighbour.lines.len() >= MAX_LINES_PER_MEMBER {
            neighbour.lines.remove(0);
        }
        let path = stream.watch_path();
        let talk = Talk { id, peer, path, gate, asked: neighbour.asked.clone(), events };
        let line = Line::open(stream, talk, own, &tasks);
        neighbour.waiting.iter_mut().flat_map(|waiting| waiting.drain(..)).for_each(|bytes| line.say(bytes));
        neighbour.lines.push(line);
        neighbour.is_ours = is_ours;
        neighbour.used = system::time();
    }

    fn dial(&mut self, to: Contact) {
        let (endpoint, membership) = (self.endpoint.clone(), Arc::clone(&self.membership));
        let (addresses, places) = (self.addresses.clone(), Arc::clone(&self.places));
        let events = self.events.clone();
        self.dials.spawn(self.tasks.track_future(async move {
            let dialling = async {
                let _place = places.acquire().await.ok()?;
                let _hint = addresses.hint(to.fingerprint, to.address);
                connect(&endpoint, &*membership, &to.fingerprint).await
            };
            let stream = within(DIAL, dialling).await.flatten();
            let _the_desk_may_be_gone = events.send(Event::Dialled(to, stream.map(Box::new))).await;
        }));
    }

    fn dialled(&mut self, to: &Contact, stream: Option<Box<Stream>>) {
        if let Some(stream) = stream {
            self.open(to.fingerprint, *stream, true);
        }
        if let Some(neighbour) = self.neighbours.get_mut(&to.fingerprint) {
            neighbour.waiting = None;
        }
    }

    /// There is no stream with a member any more, or none came about: what it was asked it will not answer.
    fn lost(&mut self, peer: Fingerprint) {
        let is_lost = |other: &Neighbour| other.lines.is_empty() && other.waiting.is_none();
        if self.neighbours.get(&peer).is_some_and(is_lost)
            && let Some(Neighbour { id: Some(id), .. }) = self.neighbours.remove(&peer)
        {
            self.give(Input::Unreachable(id));
        }
    }

    fn sweep(&mut self) {
        let now = system::time();
        self.neighbours.retain(|_, neighbour| !neighbour.is_idle(now));
    }

    fn status(&self) -> Status {
        let routes = self.node.routes();
        Status {
            id: self.own.id,
            is_joined: *self.joined.borrow(),
            members: routes.members(),
            region_bits: routes.block().bits(),
            region: routes.region().len(),
            buckets: routes.len() - routes.region().len(),
            missing: self.node.missing().count(),
            values: self.node.store().len(),
            neighbours: self.neighbours.len(),
            lookups: self.node.lookups(),
            lookups_begun: self.node.lookups_begun(),
        }
    }
}

/// A stream to a member, to whom this node introduces itself where that is needed.
async fn connect(endpoint: &Endpoint, membership: &dyn Membership, peer: &Fingerprint) -> Option<Stream> {
    let protocol = PROTOCOL;
    let connecting = || Box::pin(endpoint.connect(peer, &protocol));
    if !membership.is_known(peer) && !membership.introduce(peer).await {
        return None;
    }
    let mut stream = connecting().await;
    // It may have forgotten this node.
    if let Err(ConnectError::Refused { .. }) = stream
        && membership.introduce(peer).await
    {
        stream = connecting().await;
    }
    stream.inspect_err(|error| tracing::debug!(%error, "no stream of dht/1")).ok()
}
