use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use kith_identity::{Address, Fingerprint, Transport};
use kith_sansio::system::{OsRng, now, time};
use kith_sansio::{Machine, Span, Time};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::datagrams::{Door, Flow, Routes, Sockets};
use super::session::{Busy, Pacer, carry};
use super::side;
use super::talk::talk;
use crate::limits::Place;
use crate::relay::limits::MAX_WAITING;
use crate::relay::message::RELAY;
use crate::relay::serving::{Client, Input, Joined, Load, Output, Regard, Relay, Session, Settings, Side};
use crate::relay::{Message, Quota, Token};
use crate::shell::endpoint::{Endpoint, Incoming, Peer, Shared};
use crate::shell::{Stream, until};
use crate::{Admission, Changes, ListenError};

/// What happens to a relay, waiting to be looked at.
const EVENTS: usize = 256;
/// What is to be said to one client, waiting for it to listen: all that may be asked of a target at once.
const SAYINGS: usize = 2 * MAX_WAITING;

/// How often it is looked at what sessions over UDP have moved, and which are silent.
const LOOK_EVERY: Span = Span::secs(5);

/// What a relay does for whom. Asked for everyone who comes and whenever trust changes, so it answers from memory.
type Regards = dyn Fn(&Fingerprint) -> Regard + Send + Sync;

/// A node that relays, until this is dropped.
#[derive(Debug)]
pub struct Relaying {
    load: Arc<Mutex<Load>>,
    _stop: DropGuard,
}

impl Relaying {
    /// How busy it is.
    pub fn load(&self) -> Load {
        *self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where connections go that begin with a token.
#[derive(Clone, Debug)]
pub(in crate::shell) struct Hook(mpsc::Sender<Event>);

impl Hook {
    /// Hands over a connection that has shown `token`.
    pub(in crate::shell) async fn present(&self, stream: TcpStream, token: Token, place: Place<IpAddr>) {
        // A relay that has ended needs no sides.
        let _ = self.0.send(Event::Side(stream, token, place)).await;
    }
}

/// What a relay's task hears from others.
pub(super) enum Event {
    Input(Input),
    Side(TcpStream, Token, Place<IpAddr>),
    /// A datagram that is a token came from there.
    Datagram(Token, SocketAddr, Door),
}

impl Endpoint {
    /// Relays for whom `regards` says so, within `quota` for each fingerprint. Initiators are let in whoever they are,
    /// unless they are barred: the target decides about them (SEP §5.3).
    ///
    /// # Errors
    /// Where this node relays already, and where it has no listener for TCP.
    pub fn relay(
        &self,
        quota: Quota,
        regards: impl Fn(&Fingerprint) -> Regard + Send + Sync + 'static,
    ) -> Result<Relaying, ListenError> {
        let shared = self.shared();
        let mut tcp = shared.local.iter().filter(|one| one.transport == Transport::Tcp);
        let stream_port = tcp.next().ok_or(ListenError::NoTcp)?.socket.port();
        let incoming = self.listen(RELAY, Admission::Anyone)?;
        // A relay behind a relay: whoever looks for it need not be known to it.
        incoming.over_relays();
        let sockets = session_sockets(&shared.local);
        let datagram_port = sockets.as_ref().map(|sockets| sockets.port);
        let settings = Settings { quota, stream_port: Some(stream_port), datagram_port };
        let (sender, events) = mpsc::channel(EVENTS);
        *shared.hook() = Some(Hook(sender.clone()));
        let (stop, load) = (CancellationToken::new(), Arc::new(Mutex::new(Load::default())));
        let routes = Arc::new(Routes::default());
        for work in sockets.into_iter().flat_map(|sockets| sockets.forward(&routes, &sender)) {
            let work = stop.clone().run_until_cancelled_owned(work);
            shared.spawn(work);
        }
        let driver = Driver {
            shared: Arc::clone(shared),
            relay: Relay::new(shared.own, settings),
            regards: Arc::new(regards),
            events: sender,
            load: Arc::clone(&load),
            clients: HashMap::new(),
            sides: HashMap::new(),
            sessions: HashMap::new(),
            pacers: HashMap::new(),
            busy: Busy::default(),
            doors: HashMap::new(),
            routes,
            flows: HashMap::new(),
            next_look: time() + LOOK_EVERY,
            next: 0,
        };
        let (stopped, closing) = (stop.clone(), shared.closing.clone());
        let changes = shared.trust.changed();
        shared.tasks.spawn(async move {
            let driver = driver.run(incoming, events, changes);
            let _stopped = stopped.run_until_cancelled(closing.run_until_cancelled(driver)).await;
        });
        Ok(Relaying { load, _stop: stop.drop_guard() })
    }
}

/// The task around the machine.
struct Driver {
    shared: Arc<Shared>,
    relay: Relay,
    regards: Arc<Regards>,
    events: mpsc::Sender<Event>,
    load: Arc<Mutex<Load>>,
    clients: HashMap<Client, mpsc::Sender<Message>>,
    /// Connections that have shown a token and wait for the other side.
    sides: HashMap<Side, Waiting>,
    sessions: HashMap<Session, CancellationToken>,
    /// Of those who have sessions, and of those who have used more than their time allowed.
    pacers: HashMap<Fingerprint, Arc<Pacer>>,
    busy: Busy,
    /// Where those came in who have shown a token over UDP.
    doors: HashMap<SocketAddr, Door>,
    routes: Arc<Routes>,
    /// Sessions over UDP.
    flows: HashMap<Session, ([SocketAddr; 2], Arc<Flow>)>,
    next_look: Time,
    next: u64,
}

/// A connection that has shown a token.
struct Waiting {
    stream: Arc<TcpStream>,
    _place: Place<IpAddr>,
    /// Ends the watch over it when dropped.
    _watch: Option<DropGuard>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let mut hook = self.shared.hook();
        // Another relay may have begun meanwhile.
        if hook.as_ref().is_some_and(|hook| hook.0.same_channel(&self.events)) {
            *hook = None;
        }
        self.sessions.values().for_each(CancellationToken::cancel);
    }
}

impl Driver {
    async fn run(mut self, mut incoming: Incoming, mut events: mpsc::Receiver<Event>, mut changes: Changes) {
        loop {
            let deadline = self.relay.poll_timeout();
            tokio::select! {
                came = incoming.next() => match came {
                    Some((peer, stream)) => self.came(peer, stream),
                    None => return,
                },
                Some(event) = events.recv() => self.happened(event),
                true = changes.next() => self.review(),
                () = until(self.next_look), if !self.flows.is_empty() => self.look(),
                () = until(deadline.unwrap_or_else(time)), if deadline.is_some() => {
                    self.relay.handle_timeout(now(), &mut OsRng);
                    self.drain();
                }
            }
            *self.load.lock().unwrap_or_else(PoisonError::into_inner) = self.relay.load();
        }
    }

    fn give(&mut self, input: Input) {
        self.relay.handle_input(now(), input, &mut OsRng);
        self.drain();
    }

    fn came(&mut self, peer: Peer, stream: Stream) {
        // Without a name there is nothing that a relay could do for it.
        let Peer::Known(peer) = peer else { return };
        let client = Client(self.next);
        self.next += 1;
        let path = stream.path();
        let (sender, sayings) = mpsc::channel(SAYINGS);
        self.clients.insert(client, sender);
        let events = self.events.clone();
        self.shared.spawn(async move {
            let heard = |message| Event::Input(Input::Message(client, message));
            if let Err(error) = talk(stream, sayings, &events, heard).await {
                tracing::debug!(%error, "a client of the relay broke off");
            }
            let _ = events.send(Event::Input(Input::Left(client))).await;
        });
        let from = Address::new(path.transport, path.remote);
        let regard = (self.regards)(&peer);
        self.give(Input::Arrived { client, peer, from, regard });
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Input(input) => {
                match &input {
                    Input::Left(client) => drop(self.clients.remove(client)),
                    Input::Ended(session) => drop(self.sessions.remove(session)),
                    Input::Withdrawn(side) => drop(self.sides.remove(side)),
                    _ => {}
                }
                self.give(input);
            }
            Event::Side(stream, token, place) => {
                let side = Side::Stream(self.next);
                self.next += 1;
                let waiting = Waiting { stream: Arc::new(stream), _place: place, _watch: None };
                self.sides.insert(side, waiting);
                self.give(Input::Presented(token, side));
            }
            Event::Datagram(token, from, door) => {
                self.doors.insert(from, door);
                self.give(Input::Presented(token, Side::Datagrams(from)));
            }
        }
    }

    /// Counts what sessions over UDP have moved, and ends those that nobody uses.
    fn look(&mut self) {
        self.next_look = time() + LOOK_EVERY;
        let moved: Vec<_> =
            self.flows.iter().map(|(id, (_, flow))| (*id, flow.report(), flow.is_silent())).collect();
        for (session, bytes, is_silent) in moved {
            if bytes > 0 {
                self.give(Input::Moved(session, bytes));
            }
            if is_silent && self.part(session).is_some() {
                self.give(Input::Ended(session));
            }
        }
    }

    /// Copies no more between the sides of a session over UDP; the bytes that it had not told of, or `None` where it is
    /// none.
    fn part(&mut self, session: Session) -> Option<u64> {
        let (sides, flow) = self.flows.remove(&session)?;
        self.routes.part(sides);
        sides.iter().for_each(|side| drop(self.doors.remove(side)));
        Some(flow.report())
    }

    /// Trust has changed, and with it perhaps what this node does for whom.
    fn review(&mut self) {
        for user in self.relay.users() {
            let regard = (self.regards)(&user);
            self.give(Input::Regarded(user, regard));
        }
    }

    fn drain(&mut self) {
        let mut left = VecDeque::new();
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::Send(client, message) => {
                    let sayings = self.clients.get(&client);
                    if sayings.is_some_and(|sayings| sayings.try_send(message).is_err()) {
                        // It does not listen.
                        self.clients.remove(&client);
                        left.push_back(Input::Left(client));
                    }
                }
                Output::Close(client) => drop(self.clients.remove(&client)),
                Output::Wait(Side::Datagrams(_)) | Output::Again(Side::Stream(_)) => {}
                Output::Wait(side) => self.watch(side),
                Output::Again(Side::Datagrams(from)) => self.say_joined(from),
                Output::Reject(Side::Datagrams(from)) => {
                    // Whoever is joined stays so, whatever else he shows.
                    if !self.routes.has(&from) {
                        self.doors.remove(&from);
                    }
                }
                Output::Reject(side) => drop(self.sides.remove(&side)),
                Output::Join(joined) => self.join(joined),
                Output::End(session) => {
                    if let Some(bytes) = self.part(session) {
                        left.extend([Input::Moved(session, bytes), Input::Ended(session)]);
                    } else if let Some(end) = self.sessions.get(&session) {
                        end.cancel();
                    }
                }
            }
        }
        left.into_iter().for_each(|input| self.give(input));
    }

    /// Notices where a side that waits has gone: the other need not wait for it.
    fn watch(&mut self, side: Side) {
        let stop = CancellationToken::new();
        let Some(waiting) = self.sides.get_mut(&side) else { return };
        waiting._watch = Some(stop.clone().drop_guard());
        let (stream, events) = (Arc::clone(&waiting.stream), self.events.clone());
        self.shared.spawn(async move {
            if stop.run_until_cancelled(side::gone(&stream)).await.is_some() {
                let _ = events.send(Event::Input(Input::Withdrawn(side))).await;
            }
        });
    }

    fn join(&mut self, joined: Joined) {
        let session = joined.session;
        if let [Side::Datagrams(one), Side::Datagrams(two)] = joined.sides {
            return self.join_datagrams(&joined, [one, two]);
        }
        let sides = joined.sides.map(|side| self.sides.remove(&side).map(|waiting| waiting.stream));
        let end = CancellationToken::new();
        self.sessions.insert(session, end.clone());
        let pacer = joined.bytes_per_second.map(|rate| self.pacer(joined.payer, rate));
        let (events, busy) = (self.events.clone(), self.busy.clone());
        self.shared.spawn(async move {
            if let [Some(one), Some(two)] = sides {
                carry(session, [one, two], (pacer, busy), events.clone(), end).await;
            }
            let _ = events.send(Event::Input(Input::Ended(session))).await;
        });
    }

    fn join_datagrams(&mut self, joined: &Joined, [one, two]: [SocketAddr; 2]) {
        let pacer = joined.bytes_per_second.map(|rate| self.pacer(joined.payer, rate));
        let flow = Flow::new(joined.session, pacer);
        if let (Some(near), Some(far)) = (self.doors.get(&one), self.doors.get(&two)) {
            self.routes.join([(one, near.clone()), (two, far.clone())], &flow);
        }
        if self.flows.is_empty() {
            self.next_look = time() + LOOK_EVERY;
        }
        self.flows.insert(joined.session, ([one, two], flow));
        [one, two].iter().for_each(|side| self.say_joined(*side));
    }

    fn say_joined(&self, to: SocketAddr) {
        if let Some(door) = self.doors.get(&to) {
            door.say_joined(to);
        }
    }

    fn pacer(&mut self, payer: Fingerprint, rate: u64) -> Arc<Pacer> {
        // One that has used more than its time allowed still owes that, however often it ends its sessions.
        self.pacers.retain(|_, pacer| Arc::strong_count(pacer) > 1 || pacer.owes());
        Arc::clone(self.pacers.entry(payer).or_insert_with(|| Arc::new(Pacer::new(rate))))
    }
}

/// Where sessions over UDP are: beside the listeners for QUIC, with a port of their own.
fn session_sockets(local: &[Address]) -> Option<Sockets> {
    let quic = local.iter().filter(|one| one.transport == Transport::Quic);
    let mut ips: Vec<IpAddr> = quic.map(|one| one.socket.ip()).collect();
    // One on all addresses takes IPv4 too.
    if ips.contains(&Ipv6Addr::UNSPECIFIED.into()) {
        ips = vec![Ipv6Addr::UNSPECIFIED.into()];
    }
    ips.dedup();
    if ips.is_empty() {
        return None;
    }
    let bound = Sockets::bind(&ips);
    bound.inspect_err(|error| tracing::warn!(%error, "this relay serves no sessions over UDP")).ok()
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use kith_identity::Identity;

    use super::*;
    use crate::shell::within;
    use crate::{ChangeSignal, Config, Discovery, Found, Protocol, Trust};

    /// Trusts nobody, and finds nobody.
    struct Nobody(ChangeSignal);

    impl Trust for Nobody {
        fn trusts(&self, _: &Fingerprint, _: &Protocol) -> bool {
            false
        }

        fn knocked(&self, _: &Fingerprint, _: SocketAddr) {}

        fn changed(&self) -> Changes {
            self.0.changes()
        }
    }

    impl Discovery for Nobody {
        fn candidates<'a>(
            &'a self,
            _: Fingerprint,
            _: Found,
        ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
            Box::pin(std::future::ready(()))
        }
    }

    async fn endpoint(listen: &str) -> Endpoint {
        let identity = Arc::new(Identity::generate(&mut OsRng));
        let nobody = Arc::new(Nobody(ChangeSignal::new()));
        let config = Config { listen: vec![listen.parse().unwrap()], ..Config::default() };
        Endpoint::bind(identity, Arc::clone(&nobody) as _, nobody, config).await.unwrap()
    }

    #[tokio::test]
    async fn a_relay_that_ends_leaves_the_next_one_its_tokens() {
        let endpoint = endpoint("tcp://127.0.0.1:0").await;
        let relaying = endpoint.relay(Quota::default(), |_| Regard::Stranger).unwrap();
        let (next, load) = (Hook(mpsc::channel(1).0), Arc::clone(&relaying.load));
        *endpoint.shared().hook() = Some(next.clone());
        drop(relaying);
        let ended = async {
            while Arc::strong_count(&load) > 1 {
                tokio::task::yield_now().await;
            }
        };
        within(Span::secs(30), ended).await.expect("the task ends");
        assert!(endpoint.shared().hook().as_ref().is_some_and(|hook| hook.0.same_channel(&next.0)));
        drop(endpoint.relay(Quota::default(), |_| Regard::Stranger).unwrap());
        within(Span::secs(30), async {
            while endpoint.shared().hook().is_some() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("its own is taken away");
    }

    #[tokio::test]
    async fn a_node_that_takes_no_tcp_is_no_relay() {
        let endpoint = endpoint("quic://127.0.0.1:0").await;
        let relaying = endpoint.relay(Quota::default(), |_| Regard::Known);
        assert_eq!(relaying.err(), Some(ListenError::NoTcp));
        assert!(endpoint.listen(RELAY, Admission::Anyone).is_ok(), "nor does it look like one");
    }
}
