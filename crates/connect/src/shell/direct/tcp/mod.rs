//! Direct connections over TCP to a peer that is reached over a relay: streams, ports and the clock around [`Punching`].

mod lines;
mod port;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use kith_identity::{Fingerprint, Relay, tls};
use kith_sansio::system::{OsRng, now, time};
use kith_sansio::{Machine, Span, Time};
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(in crate::shell) use self::lines::Lines;
use self::lines::{IDLE, Wish};
use self::port::Port;
use super::{Reader, WRITE_PATIENCE, is_trusted};
use crate::direct::punching::{Input, Output, PUNCH, Punching};
use crate::direct::{Place, Side};
use crate::protocol::{ADMITTED, Kind};
use crate::relay::{Carriage, Token};
use crate::shell::carrier::Carrier;
use crate::shell::connect::Way;
use crate::shell::endpoint::{Party, PathInfo, Peer, Shared};
use crate::shell::{accept, due, relay, tcp, until, within};
use crate::{Failure, Interface, Protocol, Vantage};

/// How long an unused connection is kept: the target waits a little longer for it to be used.
const SPARE_LIFE: Span = Span::secs(8);
/// How often it is looked whether the line is still of use, and where this node is.
const LOOK_EVERY: Span = Span::secs(10);
/// Connections that have come about and are not looked at yet.
const MADE: usize = 8;

/// Looks for ways to `target`, which has just been reached over a relay by TCP.
pub(in crate::shell) fn begin(shared: &Arc<Shared>, target: Fingerprint, over: Relay) {
    if !shared.config.seek_direct || !is_trusted(shared, &target) {
        return;
    }
    let Some(wishes) = shared.lines.begin(target) else { return };
    let task = Arc::clone(shared);
    let work = async move {
        if let Err(error) = talk(&task, target, &over, wishes).await {
            tracing::debug!(peer = %target, %error, "nothing is punched");
            // Not before the peer may have changed its mind.
            until(time() + IDLE).await;
        }
        task.lines.end(&target);
    };
    shared.spawn(work);
}

/// The initiator's side: asks the target over the relay for a conversation, and has it.
async fn talk(
    shared: &Arc<Shared>,
    target: Fingerprint,
    over: &Relay,
    wishes: mpsc::Receiver<Wish>,
) -> Result<(), Failure> {
    let way = relay::over(shared, (target, &[]), over, Carriage::Stream).await?;
    let Way::Tcp { tls, .. } = way else { return Ok(()) };
    let broken = |error: std::io::Error| Failure::Relay(error.to_string());
    let at = tls.get_ref().0.0.peer_addr().map_err(broken)?;
    let mut carrier = Carrier::Tcp(tls);
    let asking = async {
        carrier.write_all(&PUNCH.hello(Kind::Stream)).await?;
        carrier.flush().await?;
        carrier.read_u8().await
    };
    match within(shared.config.handshake_timeout, asking).await {
        Some(Ok(ADMITTED)) => {
            Puncher::new(shared, target, Side::Initiator, at).run(carrier, Some(wishes)).await;
            Ok(())
        }
        _ => Err(Failure::RelayRefused),
    }
}

/// Whether a stream for `protocol` that came over `path` is an initiator's who may punch: somebody whom this node trusts
/// for any protocol that it listens for.
pub(in crate::shell) fn asked(
    shared: &Shared,
    peer: Peer,
    path: &PathInfo,
    protocol: &Protocol,
) -> Option<Fingerprint> {
    let peer = peer.fingerprint().filter(|_| *protocol == PUNCH && shared.config.seek_direct)?;
    (path.relay.is_some() && shared.trusted_for(peer).is_some()).then_some(*peer)
}

/// The target's side.
pub(in crate::shell) fn answer(
    shared: &Arc<Shared>,
    peer: Fingerprint,
    path: &PathInfo,
    mut carrier: Carrier,
) {
    let Some(place) = shared.streams.take(Party::Named(peer)) else {
        return tracing::debug!(%peer, "it has too many streams");
    };
    let puncher = Puncher::new(shared, peer, Side::Target, path.remote);
    let work = async move {
        let said = async {
            carrier.write_all(&[ADMITTED]).await?;
            carrier.flush().await
        };
        if let Some(Ok(())) = within(WRITE_PATIENCE, said).await {
            puncher.run(carrier, None).await;
        }
        drop(place);
    };
    shared.spawn(work);
}

/// What happens beside the conversation.
enum Event {
    /// The port of a round is ready.
    Ready(Token, Option<Port>),
    /// The peer has proved its key over a connection of a round.
    Through(Token, SocketAddr, Box<tcp::Tls>, Span),
}

/// The task of one side, for as long as the conversation lasts.
struct Puncher {
    shared: Arc<Shared>,
    peer: Fingerprint,
    side: Side,
    /// The relay, where it was reached.
    relay: SocketAddr,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    /// What each round is doing; ends with it.
    rounds: HashMap<Token, (Option<Port>, JoinSet<()>)>,
    wishes: VecDeque<Wish>,
    spare: Option<(Way, Time)>,
}

impl Puncher {
    fn new(shared: &Arc<Shared>, peer: Fingerprint, side: Side, relay: SocketAddr) -> Puncher {
        Puncher {
            shared: Arc::clone(shared),
            peer,
            side,
            relay: SocketAddr::new(relay.ip().to_canonical(), relay.port()),
            events: mpsc::channel(MADE),
            rounds: HashMap::new(),
            wishes: VecDeque::new(),
            spare: None,
        }
    }

    async fn run(mut self, carrier: Carrier, mut wished: Option<mpsc::Receiver<Wish>>) {
        let (from, mut write) = tokio::io::split(carrier);
        let mut reader = Reader { from, buffer: Vec::new() };
        let mut changes = self.shared.trust.changed();
        let mut place = self.place();
        let mut punching = Punching::new(now(), self.side, place.clone());
        let mut look = time() + LOOK_EVERY;
        loop {
            if !self.drain(&mut punching, &mut write).await || !self.is_of_use(&punching) {
                return;
            }
            let deadline = punching.poll_timeout();
            let input = tokio::select! {
                said = reader.next() => match said {
                    Some(said) => Some(Input::Heard(said)),
                    None => return,
                },
                Some(event) = self.events.1.recv() => self.happened(event),
                wish = wanted(&mut wished) => match wish {
                    Some(wish) => self.wanted(wish, &punching),
                    None => return,
                },
                true = changes.next() => continue,
                () = until(look) => {
                    look = time() + LOOK_EVERY;
                    let before = std::mem::replace(&mut place, self.place());
                    (before != place).then(|| Input::Moved(place.clone()))
                }
                () = due(deadline) => {
                    punching.handle_timeout(now(), &mut OsRng);
                    None
                }
            };
            if let Some(input) = input {
                punching.handle_input(now(), input, &mut OsRng);
            }
        }
    }

    /// Whether the two may still meet, and, where this node has begun, somebody wants something of the line.
    fn is_of_use(&mut self, punching: &Punching) -> bool {
        if self.spare.as_ref().is_some_and(|(_, until)| *until <= time()) {
            self.spare = None;
        }
        match self.side {
            Side::Target => self.shared.trusted_for(&self.peer).is_some(),
            Side::Initiator => {
                let works = punching.works() || self.spare.is_some();
                let used = self.shared.lines.note(&self.peer, works);
                used.is_some_and(|used| time() - used < IDLE) && is_trusted(&self.shared, &self.peer)
            }
        }
    }

    /// Does what the machine wants; `false` once there is nobody to talk to.
    async fn drain(&mut self, punching: &mut Punching, write: &mut WriteHalf<Carrier>) -> bool {
        while let Some(output) = punching.poll_output() {
            match output {
                Output::Prepare(round) => self.prepare(round),
                Output::Say(candidates) => {
                    let frame = candidates.to_frame();
                    let saying = async {
                        write.write_all(&frame).await?;
                        write.flush().await
                    };
                    if !matches!(within(WRITE_PATIENCE, saying).await, Some(Ok(()))) {
                        return false;
                    }
                }
                Output::Dial(round, to) => self.dial(round, to),
                Output::Release(round) => {
                    // Whoever waits for what has come to nothing goes another way.
                    if self.rounds.remove(&round).is_some() && self.rounds.len() < self.wishes.len() {
                        self.wishes.pop_front();
                    }
                }
                Output::End(why) => {
                    tracing::debug!(peer = %self.peer, why, "nothing is punched any more");
                    return false;
                }
            }
        }
        true
    }

    fn prepare(&mut self, round: Token) {
        let (shared, relay, events) = (Arc::clone(&self.shared), self.relay, self.events.0.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let port = Port::open(&shared, relay).await;
            let port = port.inspect_err(|error| tracing::debug!(%error, "no port to punch from")).ok();
            let _ = events.send(Event::Ready(round, port)).await;
        });
        self.rounds.insert(round, (None, tasks));
    }

    fn dial(&mut self, round: Token, to: Vec<SocketAddr>) {
        let Some((port, tasks)) = self.rounds.get_mut(&round) else { return };
        let Some(port) = port.take() else { return };
        let (made, streams) = mpsc::channel(MADE);
        *tasks = port.punch(to, &made);
        let work = authenticate(
            Arc::clone(&self.shared),
            self.peer,
            self.side,
            round,
            streams,
            self.events.0.clone(),
        );
        tasks.spawn(work);
    }

    fn happened(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Ready(round, port) => {
                let entry = self.rounds.get_mut(&round)?;
                let addresses = port.as_ref().map_or(Vec::new(), |port| port.addresses.clone());
                entry.0 = port;
                Some(Input::Ready(round, addresses))
            }
            Event::Through(round, from, tls, rtt) => {
                if !self.rounds.contains_key(&round) {
                    return None;
                }
                tracing::debug!(peer = %self.peer, %from, "punched");
                match self.side {
                    Side::Target => {
                        let work = accept::greet_punched(Arc::clone(&self.shared), tls, from, self.peer);
                        self.shared.spawn(work);
                    }
                    Side::Initiator => self.deliver(Way::Tcp { tls, rtt, relays: Vec::new() }),
                }
                Some(Input::Through(round, from))
            }
        }
    }

    fn deliver(&mut self, mut way: Way) {
        while let Some(wish) = self.wishes.pop_front() {
            match wish.send(way) {
                Ok(()) => return,
                Err(back) => way = back,
            }
        }
        self.spare = Some((way, time() + SPARE_LIFE));
    }

    fn wanted(&mut self, wish: Wish, punching: &Punching) -> Option<Input> {
        match self.spare.take().filter(|(_, until)| time() < *until) {
            Some((way, _)) => {
                // Whoever does not wait any more needs none.
                let _ = wish.send(way);
                None
            }
            None if punching.works() => {
                self.wishes.push_back(wish);
                Some(Input::Wanted)
            }
            None => None,
        }
    }

    fn place(&self) -> Place {
        let Vantage { loopback_only, mut interfaces } = self.shared.vantage();
        interfaces.sort_by_key(|Interface { ip, prefix_bits }| (*ip, *prefix_bits));
        Place { candidates: Vec::new(), vantage: Vantage { loopback_only, interfaces }, v4: true, v6: true }
    }
}

/// Makes sure that the peer is at the other end of what comes about in a round.
async fn authenticate(
    shared: Arc<Shared>,
    peer: Fingerprint,
    side: Side,
    round: Token,
    mut streams: mpsc::Receiver<TcpStream>,
    events: mpsc::Sender<Event>,
) {
    let mut greeting = JoinSet::new();
    loop {
        tokio::select! {
            Some(stream) = streams.recv() => {
                let shared = Arc::clone(&shared);
                greeting.spawn(async move { greet(&shared, peer, side, stream).await });
            }
            Some(done) = greeting.join_next(), if !greeting.is_empty() => {
                if let Ok(Some((from, tls, rtt))) = done
                    && events.send(Event::Through(round, from, tls, rtt)).await.is_err()
                {
                    return;
                }
            }
            else => return,
        }
    }
}

async fn greet(
    shared: &Shared,
    peer: Fingerprint,
    side: Side,
    stream: TcpStream,
) -> Option<(SocketAddr, Box<tcp::Tls>, Span)> {
    let from = stream.peer_addr().ok()?;
    let began = time();
    let tls = match side {
        Side::Initiator => tcp::handshake(stream, peer, &shared.client_tls).await.ok()?,
        Side::Target => {
            let tls = tcp::greet(stream, Arc::clone(&shared.server_tls)).await.ok()?;
            let key = tls::peer_key(tls.get_ref().1.peer_certificates()).ok()??;
            (key.fingerprint() == peer).then_some(tls)?
        }
    };
    Some((SocketAddr::new(from.ip().to_canonical(), from.port()), Box::new(tls), time() - began))
}

async fn wanted(wished: &mut Option<mpsc::Receiver<Wish>>) -> Option<Wish> {
    match wished {
        Some(wished) => wished.recv().await,
        None => std::future::pending().await,
    }
}
