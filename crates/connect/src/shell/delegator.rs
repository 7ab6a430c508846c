use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kith_identity::Fingerprint;
use kith_sansio::system::{self, OsRng};
use kith_sansio::{Machine, Rng, Span, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::endpoint::{Endpoint, Incoming, Peer};
use super::stream::Stream;
use super::{due, within};
use crate::delegator::message::{LENGTH_BYTES, MAX_MESSAGE_BYTES, MAX_WORD_BYTES, MessageError, length};
use crate::delegator::{
    Entry, Epoch, Message, Opener, PROTOCOL, Policy, Server, ServerInput, ServerOutput, SessionId, Stage,
    Subscriber, SubscriberInput, SubscriberOutput,
};
use crate::dialer::Via;
use crate::{Admission, ConnectError, ListenError, Protocol, defaults};

/// Words of subscribers that wait to be looked at.
const EVENTS: usize = 1024;
/// How long the last bytes to a peer may take.
const FAREWELL: Span = Span::secs(1);

/// Serves the subscribers of a policy; ends when dropped.
///
/// Whom the endpoint's [`Trust`](crate::Trust) trusts for [`PROTOCOL`] may ask, which should be the policy's members;
/// nobody else gets an answer in any case.
pub struct Delegator {
    server: Arc<Mutex<Server>>,
    events: mpsc::Sender<Event>,
    policies: Arc<Notify>,
    next: Arc<Mutex<Option<Arc<Policy>>>>,
    _ends: DropGuard,
}

/// What happens to one stream.
enum Event {
    Received(SessionId, Message),
    Closed(SessionId),
}

/// The desk's side of one stream, which ends with it.
struct Line {
    writer: mpsc::UnboundedSender<Message>,
    _ends: DropGuard,
}

/// The task that drives the machine.
struct Desk {
    server: Arc<Mutex<Server>>,
    lines: HashMap<SessionId, Line>,
    events: mpsc::Sender<Event>,
    last: u64,
    ending: CancellationToken,
}

impl Delegator {
    /// Listens for subscribers at `endpoint`; their lists hold for `lease` after each word from here.
    pub fn start(endpoint: &Endpoint, policy: Arc<Policy>, lease: Span) -> Result<Delegator, ListenError> {
        let incoming = endpoint.listen(PROTOCOL, Admission::Contacts)?;
        let mut epoch = [0; 16];
        OsRng.fill(&mut epoch);
        let server = Arc::new(Mutex::new(Server::new(policy, Epoch(epoch), lease)));
        let (events, inbox) = mpsc::channel(EVENTS);
        let (policies, next) = (Arc::new(Notify::new()), Arc::default());
        let ending = CancellationToken::new();
        let desk = Desk {
            server: Arc::clone(&server),
            lines: HashMap::new(),
            events: events.clone(),
            last: 0,
            ending: ending.clone(),
        };
        let run = desk.run(incoming, inbox, Arc::clone(&policies), Arc::clone(&next));
        tokio::spawn(ending.clone().run_until_cancelled_owned(run));
        Ok(Delegator { server, events, policies, next, _ends: ending.drop_guard() })
    }

    /// Makes `policy` the one in force; subscribers hear at once what changes for them. Of several that come faster than
    /// they can be told, the last counts.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(policy);
        self.policies.notify_one();
    }

    /// Each subscriber that is connected, and whether it has said that its list of now is in force.
    pub fn subscribers(&self) -> Vec<(Fingerprint, bool)> {
        // A policy that waits to be told is in force nowhere yet.
        let told = self.next.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        lock(&self.server).subscribers().map(|(peer, current)| (*peer, current && told)).collect()
    }

    /// The number of the lists; grows with each change of the policy.
    pub fn revision(&self) -> u64 {
        lock(&self.server).revision()
    }

    /// Whether the task that serves is there.
    pub fn is_running(&self) -> bool {
        !self.events.is_closed()
    }
}

fn lock(server: &Mutex<Server>) -> MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    async fn run(
        mut self,
        mut incoming: Incoming,
        mut inbox: mpsc::Receiver<Event>,
        policies: Arc<Notify>,
        next: Arc<Mutex<Option<Arc<Policy>>>>,
    ) {
        loop {
            let deadline = lock(&self.server).poll_timeout();
            tokio::select! {
                () = policies.notified() => {
                    let policy = next.lock().unwrap_or_else(PoisonError::into_inner).take();
                    policy.into_iter().for_each(|policy| self.give(ServerInput::Policy(policy)));
                }
                arrived = incoming.next() => match arrived {
                    Some((Peer::Known(peer), stream)) => self.open(peer, stream),
                    Some((Peer::Anonymous, _)) => {}
                    None => return,
                },
                Some(event) = inbox.recv() => match event {
                    Event::Received(session, message) => self.give(ServerInput::Received(session, message)),
                    Event::Closed(session) => {
                        self.lines.remove(&session);
                        self.give(ServerInput::Closed(session));
                    }
                },
                () = due(deadline) => {
                    lock(&self.server).handle_timeout(system::now(), &mut OsRng);
                    self.drain();
                }
            }
        }
    }

    fn open(&mut self, peer: Fingerprint, stream: Stream) {
        self.last += 1;
        let session = SessionId(self.last);
        let (writer, messages) = mpsc::unbounded_channel();
        let ended = CancellationToken::new();
        self.lines.insert(session, Line { writer, _ends: ended.clone().drop_guard() });
        let talk = serve(stream, session, messages, self.events.clone(), ended);
        tokio::spawn(self.ending.clone().run_until_cancelled_owned(talk));
        self.give(ServerInput::Opened(session, peer));
    }

    fn give(&mut self, input: ServerInput) {
        lock(&self.server).handle_input(system::now(), input, &mut OsRng);
        self.drain();
    }

    fn drain(&mut self) {
        let mut server = lock(&self.server);
        while let Some(output) = server.poll_output() {
            match output {
                ServerOutput::Send(session, message) => {
                    if let Some(line) = self.lines.get(&session) {
                        // It may have ended meanwhile; that is told by itself.
                        let _ended = line.writer.send(message);
                    }
                }
                ServerOutput::Close(session, reason) => {
                    tracing::debug!(%reason, "a subscriber is let go");
                    self.lines.remove(&session);
                }
            }
        }
    }
}

/// One subscriber's stream, to its end: its own, or that of the desk's side, `ended`. Then what is still to be said has a
/// moment, and nothing is heard any more.
async fn serve(
    stream: impl AsyncRead + AsyncWrite,
    session: SessionId,
    messages: mpsc::UnboundedReceiver<Message>,
    events: mpsc::Sender<Event>,
    ended: CancellationToken,
) {
    let (mut reading, writing) = tokio::io::split(stream);
    let mut speaking = std::pin::pin!(speak(writing, messages));
    tokio::select! {
        // Nothing that arrives after the end counts.
        biased;
        () = ended.cancelled() => {
            let _it_may_take_nothing = within(FAREWELL, speaking).await;
        }
        () = hear(&mut reading, session, &events) => {}
        () = &mut speaking => {}
    }
    let _the_desk_may_be_gone = events.send(Event::Closed(session)).await;
}

/// Hands on what a subscriber says, until its stream ends.
async fn hear(stream: &mut (impl AsyncRead + Unpin), session: SessionId, events: &mpsc::Sender<Event>) {
    loop {
        match read(stream, MAX_WORD_BYTES).await {
            Ok(message) => {
                if events.send(Event::Received(session, message)).await.is_err() {
                    return;
                }
            }
            Err(error) => return tracing::debug!(%error, "a subscriber's stream has ended"),
        }
    }
}

/// Writes what is to be said, until nothing more comes or the peer takes nothing more.
async fn speak(mut stream: impl AsyncWrite + Unpin, mut messages: mpsc::UnboundedReceiver<Message>) {
    while let Some(message) = messages.recv().await {
        match within(defaults::SUBSCRIBER_PATIENCE, write(&mut stream, &message)).await {
            Some(Ok(())) => {}
            _ => return,
        }
    }
    let _it_may_be_gone = within(FAREWELL, stream.shutdown()).await;
}

async fn read(stream: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<Message> {
    let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut head = [0; LENGTH_BYTES];
    stream.read_exact(&mut head).await?;
    let length = length(head).map_err(malformed)?;
    if length > most {
        return Err(malformed(MessageError::Length(length)));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Message::from_cbor(&bytes).map_err(malformed)
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    stream.write_all(&message.to_bytes()).await?;
    stream.flush().await
}

/// This node's list of one delegator, kept up to date in memory; ends when dropped.
pub struct Subscription {
    shared: Arc<Followed>,
    _ends: DropGuard,
}

struct Followed {
    machine: RwLock<Subscriber>,
    failure: Mutex<Option<String>>,
    nudge: Notify,
}

/// How a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionState {
    /// Whether the delegator is connected, and the list current.
    pub stage: Stage,
    /// The number of the list held, as the delegator counts them.
    pub revision: Option<u64>,
    /// Entries in force now.
    pub entries: usize,
    /// Until when they hold if nothing more is heard.
    pub holds_until: Option<Timestamp>,
    /// Why the delegator was lost or could not be reached, the last time.
    pub failure: Option<String>,
}

impl Subscription {
    /// Subscribes the node of `endpoint` at `delegator`. `changed` is called whenever the list in force is another one.
    pub fn start(
        endpoint: Endpoint,
        delegator: Fingerprint,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Subscription {
        let shared = Arc::new(Followed {
            machine: RwLock::new(Subscriber::new(endpoint.fingerprint(), system::now())),
            failure: Mutex::default(),
            nudge: Notify::new(),
        });
        let ending = CancellationToken::new();
        let run = Box::pin(follow(Arc::clone(&shared), endpoint, delegator, changed));
        tokio::spawn(ending.clone().run_until_cancelled_owned(run));
        Subscription { shared, _ends: ending.drop_guard() }
    }

    /// Whether the list lets that side open streams of `protocol` with `peer` now.
    pub fn permits(&self, opener: Opener, peer: &Fingerprint, protocol: &Protocol) -> bool {
        self.shared.read().permits(opener, peer, protocol, system::now())
    }

    /// The entry of a peer that is allowed anything now.
    pub fn find(&self, peer: &Fingerprint) -> Option<Entry> {
        self.shared.read().find(peer, system::now()).cloned()
    }

    /// All entries that allow anything now.
    pub fn entries(&self) -> Vec<Entry> {
        self.shared.read().entries(system::now()).cloned().collect()
    }

    /// Whether there is a list of the delegator: it was heard, and the lease of what it said is not over.
    pub fn has_list(&self) -> bool {
        self.shared.read().holds_until(system::now()).is_some()
    }

    /// How it stands.
    pub fn state(&self) -> SubscriptionState {
        let (machine, now) = (self.shared.read(), system::now());
        SubscriptionState {
            stage: machine.stage(),
            revision: machine.revision(),
            entries: machine.entries(now).count(),
            holds_until: machine.holds_until(now),
            failure: self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Tries a delegator that is lost again at once.
    pub fn nudge(&self) {
        self.shared.nudge.notify_one();
    }
}

impl Followed {
    fn read(&self) -> RwLockReadGuard<'_, Subscriber> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine(&self) -> RwLockWriteGuard<'_, Subscriber> {
        self.machine.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, input: SubscriberInput) {
        self.machine().handle_input(system::now(), input, &mut OsRng);
    }

    fn failed(&self, reason: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// Drives the machine: between two connections, and on each.
async fn follow(
    shared: Arc<Followed>,
    endpoint: Endpoint,
    delegator: Fingerprint,
    changed: impl Fn() + Send + Sync,
) {
    loop {
        let output = shared.machine().poll_output();
        match output {
            Some(SubscriberOutput::Connect) => {
                match Box::pin(waiting(
                    &shared,
                    &changed,
                    endpoint.connect_with(&delegator, &PROTOCOL, Via::Any),
                ))
                .await
                {
                    Ok(stream) => {
                        shared.give(SubscriberInput::Connected);
                        Box::pin(talk(&shared, &changed, stream)).await;
                    }
                    Err(error) => {
                        shared.failed(Some(match error {
                            ConnectError::Refused { .. } => {
                                "the delegator does not admit this node: it may be no member".to_owned()
                            }
                            error => error.to_string(),
                        }));
                        shared.give(SubscriberInput::Lost);
                    }
                }
            }
            Some(SubscriberOutput::Changed) => changed(),
            // There is no stream to say it on, or to end.
            Some(SubscriberOutput::Send(_) | SubscriberOutput::Disconnect(_)) => {}
            None => tokio::select! {
                () = timer(&shared) => {}
                () = shared.nudge.notified() => shared.give(SubscriberInput::Nudged),
            },
        }
    }
}

/// Waits for `work`, while the machine's timers go on: a list ends also while its delegator is looked for.
async fn waiting<T>(shared: &Followed, changed: &impl Fn(), work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = timer(shared) => {
                let told = shared.machine().poll_output();
                if told == Some(SubscriberOutput::Changed) {
                    changed();
                }
            }
        }
    }
}

async fn timer(shared: &Followed) {
    let deadline = shared.read().poll_timeout();
    due(deadline).await;
    shared.machine().handle_timeout(system::now(), &mut OsRng);
}

/// One connection with the delegator, to its end.
async fn talk(shared: &Followed, changed: &impl Fn(), stream: Stream) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let (inbox, mut messages) = mpsc::channel(1);
    // A message that is half here must not be lost when a timer fires.
    let hearing = async {
        loop {
            match read(&mut reading, MAX_MESSAGE_BYTES).await {
                Ok(message) => {
                    if inbox.send(message).await.is_err() {
                        return None;
                    }
                }
                Err(error) => return Some(error.to_string()),
            }
        }
    };
    let mut hearing = std::pin::pin!(hearing);
    loop {
        loop {
            let output = shared.machine().poll_output();
            match output {
                Some(SubscriberOutput::Send(message)) => {
                    if let Some(Ok(())) =
                        within(defaults::DELEGATOR_PATIENCE, write(&mut writing, &message)).await
                    {
                        continue;
                    }
                    shared.failed(Some("the delegator takes nothing more".to_owned()));
                    return shared.give(SubscriberInput::Lost);
                }
                Some(SubscriberOutput::Changed) => changed(),
                Some(SubscriberOutput::Disconnect(fault)) => {
                    tracing::debug!(%fault, "a delegator is left");
                    return shared.failed(Some(fault.to_string()));
                }
                Some(SubscriberOutput::Connect) => {}
                None => break,
            }
        }
        if shared.read().stage() == Stage::Current {
            shared.failed(None);
        }
        tokio::select! {
            // What arrived before the end counts.
            biased;
            Some(message) = messages.recv() => shared.give(SubscriberInput::Received(message)),
            ended = &mut hearing => {
                shared.failed(ended);
                return shared.give(SubscriberInput::Lost);
            }
            () = timer(shared) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Long enough for any machine, and shorter than a subscriber that takes nothing is waited for.
    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_session_that_is_closed_is_written_no_more_and_not_heard() {
        let (mut peer, stream) = tokio::io::duplex(64);
        let ((writer, messages), (events, mut inbox)) = (mpsc::unbounded_channel(), mpsc::channel(8));
        let ended = CancellationToken::new();
        let session = SessionId(7);
        let serving = tokio::spawn(serve(stream, session, messages, events, ended.clone()));
        let alive = Message::Alive(Epoch([0; 16]), 1);
        (0..100).for_each(|_| writer.send(alive.clone()).unwrap());
        // It speaks, so it is past the beginning, and stuck: nothing is read but this.
        peer.read_exact(&mut [0; 1]).await.unwrap();
        drop(writer);
        ended.cancel();
        peer.write_all(&Message::Applied(1).to_bytes()).await.unwrap();
        let event = tokio::time::timeout(DEADLINE, inbox.recv()).await.unwrap().unwrap();
        assert!(matches!(event, Event::Closed(SessionId(7))));
        tokio::time::timeout(DEADLINE, serving).await.unwrap().unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() < 64 + alive.to_bytes().len(), "{}", rest.len());
    }

    #[tokio::test]
    async fn what_is_left_to_say_at_the_end_of_a_session_is_said_where_the_peer_takes_it() {
        let (mut peer, stream) = tokio::io::duplex(64);
        let ((writer, messages), (events, _inbox)) = (mpsc::unbounded_channel(), mpsc::channel(8));
        let ended = CancellationToken::new();
        let alive = Message::Alive(Epoch([0; 16]), 1);
        (0..5).for_each(|_| writer.send(alive.clone()).unwrap());
        drop(writer);
        ended.cancel();
        let serving = tokio::spawn(serve(stream, SessionId(1), messages, events, ended));
        let mut heard = Vec::new();
        tokio::time::timeout(DEADLINE, peer.read_to_end(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, alive.to_bytes().repeat(5));
        serving.await.unwrap();
    }
}
