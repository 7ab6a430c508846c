//! The task that drives the seat and has the streams.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use kith_connect::{ConnectError, Endpoint, Incoming, Peer, Stream};
use kith_identity::membership::NodeId;
use kith_identity::{Fingerprint, Identity};
use kith_sansio::system::{self, OsRng};
use kith_sansio::{Machine, Time};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::ground::{Ground, Neighbour};
use super::line::{converse, frame};
use super::{
    DIAL, EVENTS, MAX_COUNTED, MAX_DIALS, MAX_TALKS, MAX_TALKS_OF_ONE, Order, PROTOCOL, QUOTA, SelectError,
    Selection, Status, TALK_BURST, TALK_EVERY, within,
};
use crate::hardened::{Book, Message, Terms, View};
use crate::seat::{Input, Output, Seat, Talk};

/// What happens on streams, and what was looked for.
pub(super) enum Event {
    Heard(Talk, NodeId, Message),
    Closed(Talk),
    Found(u64, Vec<Neighbour>),
}

type Reply = oneshot::Sender<Result<Selection, SelectError>>;

/// Drives one seat.
pub(super) struct Desk {
    endpoint: Endpoint,
    identity: Arc<Identity>,
    me: NodeId,
    ground: Arc<dyn Ground>,
    /// Nothing while the region is not known.
    seat: Option<Seat>,
    /// The members of the region by their keys.
    places: HashMap<Fingerprint, NodeId>,
    /// The keys of those whom the seat may want to talk with.
    keys: BTreeMap<NodeId, Fingerprint>,
    lines: HashMap<Talk, Line>,
    paces: HashMap<Fingerprint, Time>,
    replies: HashMap<u64, Reply>,
    /// The last number that was given to a wish or a stream.
    last: u64,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    /// What is under way on streams, and searches.
    talks: JoinSet<()>,
    /// All of that, and work on the disk, which nothing cancels.
    tasks: TaskTracker,
    dials: Arc<Semaphore>,
}

/// The desk's side of a stream, which ends with it.
struct Line {
    queue: mpsc::UnboundedSender<Bytes>,
    /// Who has opened it, where this node has not.
    peer: Option<Fingerprint>,
}

impl Desk {
    pub(super) fn new(
        endpoint: Endpoint,
        identity: Arc<Identity>,
        me: NodeId,
        ground: Arc<dyn Ground>,
        tasks: TaskTracker,
    ) -> Desk {
        let (events, inbox) = mpsc::channel(EVENTS);
        Desk {
            endpoint,
            identity,
            me,
            ground,
            seat: None,
            places: HashMap::new(),
            keys: BTreeMap::new(),
            lines: HashMap::new(),
            paces: HashMap::new(),
            replies: HashMap::new(),
            last: 0,
            events,
            inbox,
            talks: JoinSet::new(),
            tasks,
            dials: Arc::new(Semaphore::new(MAX_DIALS)),
        }
    }

    /// Until nobody wishes anything any more, or the book cannot be kept: then nothing may be signed.
    pub(super) async fn run(mut self, mut incoming: Incoming, mut orders: mpsc::Receiver<Order>) {
        if let Err(error) = self.work(&mut incoming, &mut orders).await {
            tracing::error!(%error, "the book of selections cannot be kept: this node takes no part any more");
        }
    }

    async fn work(&mut self, incoming: &mut Incoming, orders: &mut mpsc::Receiver<Order>) -> io::Result<()> {
        let mut changes = self.ground.changed();
        self.review().await?;
        loop {
            let due = self.seat.as_ref().and_then(Machine::poll_timeout);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await?,
                    None => return Ok(()),
                },
                arrived = incoming.next() => match arrived {
                    Some((Peer::Known(peer), stream)) => self.open(peer, stream),
                    Some((Peer::Anonymous, _)) => {}
                    None => return Ok(()),
                },
                Some(event) = self.inbox.recv() => self.hear(event).await?,
                Some(_) = self.talks.join_next() => {}
                true = changes.next() => self.review().await?,
                () = sleep_until(due) => {
                    self.forget().await?;
                    if let Some(seat) = &mut self.seat {
                        seat.handle_timeout(system::now(), &mut OsRng);
                    }
                    self.drain().await?;
                }
            }
        }
    }

    /// Looks again what epoch it is.
    async fn review(&mut self) -> io::Result<()> {
        let Some(view) = self.ground.view() else { return Ok(()) };
        if self.seat.as_ref().is_some_and(|seat| seat.view().epoch() == view.epoch()) {
            return Ok(());
        }
        let ground = Arc::clone(&self.ground);
        let stored = self.on_disk(move || ground.recall()).await?;
        let book = book_for(&view, stored.as_deref());
        self.places = view.leaves().iter().map(|leaf| (leaf.fingerprint(), leaf.id)).collect();
        self.keys = view.leaves().iter().map(|leaf| (leaf.id, leaf.fingerprint())).collect();
        if self.seat.is_some() {
            // It has the book kept itself.
            return self.give(Input::Epoch(view, Box::new(book))).await;
        }
        self.keep(book.to_bytes()).await?;
        self.seat = Some(Seat::new(self.me, Arc::clone(&self.identity), view, book));
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Status(reply) => {
                let _gone = reply.send(self.status());
                Ok(())
            }
            Order::Select(_, reply) if self.seat.is_none() => {
                let _gone = reply.send(Err(SelectError::NotReady));
                Ok(())
            }
            Order::Select(terms, reply) => self.select(terms, reply).await,
        }
    }

    async fn select(&mut self, terms: Terms, reply: Reply) -> io::Result<()> {
        self.last += 1;
        let op = self.last;
        self.replies.insert(op, reply);
        self.give(Input::Select { op, terms }).await
    }

    /// Draws no more for those who do not wait for it.
    async fn forget(&mut self) -> io::Result<()> {
        let gone = self.replies.extract_if(|_, reply| reply.is_closed());
        let gone: Vec<_> = gone.map(|(op, _)| op).collect();
        for op in gone {
            self.give(Input::Forget { op }).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Heard(talk, from, message) => self.give(Input::Heard { talk, from, message }).await,
            Event::Closed(talk) => {
                self.lines.remove(&talk);
                self.give(Input::Closed(talk)).await
            }
            Event::Found(wish, nearest) => {
                let mut members: Vec<_> = nearest.iter().map(|one| one.id).collect();
                self.keys.extend(nearest.into_iter().map(|one| (one.id, one.fingerprint)));
                members.push(self.me);
                self.give(Input::Found { wish, members }).await
            }
        }
    }

    /// A member opens a talk.
    fn open(&mut self, peer: Fingerprint, stream: Stream) {
        let theirs = self.lines.values().filter(|line| line.peer.is_some());
        let (all, own) =
            theirs.fold((0, 0), |(all, own), line| (all + 1, own + usize::from(line.peer == Some(peer))));
        let is_too_much = all >= MAX_TALKS || own >= MAX_TALKS_OF_ONE || !self.is_in_pace(&peer);
        if is_too_much || self.seat.is_none() {
            return;
        }
        self.last += 1;
        let talk = Talk::incoming(self.last);
        // Whoever is not of this region has no place that matters here: what it hands over proves itself.
        let from = self.places.get(&peer).copied().unwrap_or(NodeId::from_bytes(*peer.as_bytes()));
        let (queue, frames) = mpsc::unbounded_channel();
        self.lines.insert(talk, Line { queue, peer: Some(peer) });
        let talking = converse(stream, talk, from, frames, self.events.clone());
        self.talks.spawn(self.tasks.track_future(talking));
    }

    fn is_in_pace(&mut self, peer: &Fingerprint) -> bool {
        let now = system::time();
        if self.paces.len() >= MAX_COUNTED {
            self.paces.retain(|_, next| *next > now);
        }
        if self.paces.len() >= MAX_COUNTED && !self.paces.contains_key(peer) {
            return false;
        }
        let next = self.paces.entry(*peer).or_insert(now);
        *next = (*next).max(now);
        let is_in_pace = *next - now < TALK_EVERY.times(TALK_BURST);
        if is_in_pace {
            *next += TALK_EVERY;
        }
        is_in_pace
    }

    async fn give(&mut self, input: Input) -> io::Result<()> {
        if let Some(seat) = &mut self.seat {
            seat.handle_input(system::now(), input, &mut OsRng);
        }
        self.drain().await
    }

    async fn drain(&mut self) -> io::Result<()> {
        while let Some(output) = self.seat.as_mut().and_then(Machine::poll_output) {
            match output {
                Output::Keep(book) => self.keep(book).await?,
                Output::Say { talk, to, message } => self.say(talk, to, &message),
                Output::End(talk) => drop(self.lines.remove(&talk)),
                Output::Find { wish, place } => self.find(wish, place),
                Output::Accuse(evidence) => self.ground.accuse(*evidence),
                Output::Selected { op, list, draws } => {
                    self.tell(op, Ok(Selection { list: *list, draws }));
                }
                Output::NotSelected { op, draws, trouble } => {
                    self.tell(op, Err(SelectError::Failed { draws, trouble }));
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, op: u64, outcome: Result<Selection, SelectError>) {
        if let Some(reply) = self.replies.remove(&op) {
            // Whoever wished for it may not wait any more.
            let _gone = reply.send(outcome);
        }
    }

    async fn keep(&self, book: Vec<u8>) -> io::Result<()> {
        let ground = Arc::clone(&self.ground);
        self.on_disk(move || ground.keep(&book)).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.tasks.spawn_blocking(work).await.map_err(io::Error::other)?
    }

    /// Says something in a talk; the first thing opens it.
    fn say(&mut self, talk: Talk, to: NodeId, message: &Message) {
        let frame = frame(message);
        if let Some(line) = self.lines.get(&talk) {
            // It may have ended meanwhile; that is told by itself.
            let _ended = line.queue.send(frame);
            return;
        }
        if talk.is_incoming() {
            return;
        }
        let (queue, frames) = mpsc::unbounded_channel();
        let _it_has_just_begun = queue.send(frame);
        self.lines.insert(talk, Line { queue, peer: None });
        let (endpoint, ground) = (self.endpoint.clone(), Arc::clone(&self.ground));
        let (events, dials) = (self.events.clone(), Arc::clone(&self.dials));
        let fingerprint = self.keys.get(&to).copied();
        self.talks.spawn(self.tasks.track_future(async move {
            let dialling = async {
                let member = Neighbour { id: to, fingerprint: fingerprint? };
                let _place = dials.acquire().await.ok()?;
                connect(&endpoint, &*ground, &member).await
            };
            match within(DIAL, dialling).await.flatten() {
                Some(stream) => converse(stream, talk, to, frames, events).await,
                None => drop(events.send(Event::Closed(talk)).await),
            }
        }));
    }

    fn find(&mut self, wish: u64, place: NodeId) {
        let (ground, events) = (Arc::clone(&self.ground), self.events.clone());
        self.talks.spawn(self.tasks.track_future(async move {
            let nearest = within(DIAL, ground.nearest(&place)).await.unwrap_or_default();
            let _the_desk_may_be_gone = events.send(Event::Found(wish, nearest)).await;
        }));
    }

    fn status(&self) -> Status {
        let seat = self.seat.as_ref();
        Status {
            id: self.me,
            epoch: seat.map(|seat| seat.view().epoch().facts().epoch),
            region: self.places.len(),
            takes_part: seat.is_some_and(|seat| !seat.book().is_closed()),
            draws_left: seat.map_or(0, |seat| seat.book().left(&self.me)),
        }
    }
}

/// The book of an epoch, given what was kept last. One of an earlier epoch shows that nothing was signed in this one;
/// without any, nobody knows.
fn book_for(view: &View, stored: Option<&[u8]>) -> Book {
    let epoch = view.epoch();
    let of = (epoch.network().id(), epoch.facts().epoch);
    match stored.and_then(|bytes| Book::from_bytes(bytes).ok()) {
        Some(book) if book.of() == of => book,
        Some(book) if book.of().0 == of.0 && book.of().1 < of.1 => Book::new(epoch, QUOTA),
        _ => Book::closed(epoch),
    }
}

async fn sleep_until(at: Option<Time>) {
    match at {
        Some(at) => tokio::time::sleep_until(system::instant(at).into()).await,
        None => std::future::pending().await,
    }
}

/// A stream to a member, to whom this node introduces itself where that is needed.
async fn connect(endpoint: &Endpoint, ground: &dyn Ground, member: &Neighbour) -> Option<Stream> {
    let _way = ground.prepare(member).await;
    let protocol = PROTOCOL;
    let connecting = || Box::pin(endpoint.connect(&member.fingerprint, &protocol));
    let mut stream = connecting().await;
    if let Err(ConnectError::Refused { .. }) = stream
        && ground.introduce(&member.fingerprint).await
    {
        stream = connecting().await;
    }
    stream.inspect_err(|error| tracing::debug!(%error, "no stream of actors/1")).ok()
}
