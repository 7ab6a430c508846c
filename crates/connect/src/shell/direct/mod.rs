//! Moving a relayed QUIC connection to a direct path: sockets, paths and the clock around [`Seeking`].

mod beside;
mod hub;
pub(super) mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use kith_identity::{Fingerprint, Transport};
use kith_sansio::system::{OsRng, now, time};
use kith_sansio::{Machine, Span, Time};
use noq::{PathEvent, PathId, PathStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

pub(super) use self::beside::{Beside, beside};
use self::hub::Ear;
pub(super) use self::hub::Hub;
use super::carrier::Carrier;
use super::endpoint::Shared;
use super::quic::Link;
use super::{until, within};
use crate::Protocol;
use crate::advertised;
use crate::delegator::Opener;
use crate::direct::limits::{MAX_CANDIDATES, OBSERVE_PATIENCE, OPEN_PATIENCE};
use crate::direct::message::{DIRECT, LENGTH_BYTES, length};
use crate::direct::{Candidates, Input, Kind, Output, Place, Probe, Seeking, Side};
use crate::protocol::{ADMITTED, Kind as Form};
use crate::relay::Token;

/// How often it is looked where this node is while its connection is relayed; keeps its address at NATs too.
const LOOK_EVERY: Span = Span::secs(10);
/// How soon it is looked again where the relay did not say it, at first; doubled each time, up to [`LOOK_EVERY`].
const LOOK_AGAIN: Span = Span::secs(1);
/// How often a relay is asked within the time that it has.
const OBSERVE_TIMES: u64 = 3;
/// How long a peer may take to take what is said to it.
const WRITE_PATIENCE: Span = Span::secs(10);

/// The target's side: the initiator of `link` has been found to be trusted.
pub(super) fn begin(shared: &Arc<Shared>, link: &Arc<Link>) {
    if !shared.config.seek_direct || !link.start_seeking() {
        return;
    }
    let (task, link) = (Arc::clone(shared), Arc::clone(link));
    let work = async move {
        match within(task.config.handshake_timeout, ask(&link)).await {
            Some(Ok(carrier)) => Seeker::new(task, link, Side::Target, carrier).run().await,
            _ => tracing::debug!("the peer looks for no direct path"),
        }
    };
    shared.spawn(work);
}

async fn ask(link: &Link) -> std::io::Result<Carrier> {
    let (send, recv) = link.connection.open_bi().await?;
    let mut carrier = Carrier::Quic(send, recv, link.connection.clone());
    carrier.write_all(&DIRECT.hello(Form::Stream)).await?;
    carrier.flush().await?;
    if carrier.read_u8().await? == ADMITTED {
        Ok(carrier)
    } else {
        Err(std::io::ErrorKind::InvalidData.into())
    }
}

/// Whether a stream for `protocol` that the peer opened on `link` begins the search, for which nobody has to listen, and
/// as which side this node takes part: as the initiator, who has dialled a target that he trusts over a relay, or as a
/// target that trusts him for something that it listens for.
pub(super) fn asked(shared: &Shared, link: &Link, protocol: &Protocol) -> Option<Side> {
    if *protocol != DIRECT || !shared.config.seek_direct || !link.may_move() {
        return None;
    }
    let peer = link.peer.fingerprint()?;
    if link.is_ours() {
        return (is_trusted(shared, peer) && link.start_seeking()).then_some(Side::Initiator);
    }
    let trusted = shared.trusted_for(peer)?;
    if !link.start_seeking() {
        return None;
    }
    // As if he had been admitted to that: where the trust is withdrawn, the connection ends.
    link.admit(Opener::Peer, &trusted, true);
    link.welcome();
    Some(Side::Target)
}

/// Whether `peer` may learn where this node is.
fn is_trusted(shared: &Shared, peer: &Fingerprint) -> bool {
    shared.trust.reaches(peer, &DIRECT) || shared.trusted_for(peer).is_some()
}

/// Takes part in the search that the peer has begun.
pub(super) fn answer(shared: &Arc<Shared>, link: &Arc<Link>, side: Side, mut carrier: Carrier) {
    let (task, link) = (Arc::clone(shared), Arc::clone(link));
    let work = async move {
        let said = async {
            carrier.write_all(&[ADMITTED]).await?;
            carrier.flush().await
        };
        if let Ok(()) = said.await {
            Seeker::new(task, link, side, carrier).run().await;
        }
    };
    shared.spawn(work);
}

/// A path that is being opened: to where, and whether that went well.
type Opening = BoxFuture<'static, (SocketAddr, bool)>;

/// Reads messages; waiting for one may be given up and taken up again.
struct Reader {
    from: ReadHalf<Carrier>,
    buffer: Vec<u8>,
}

impl Reader {
    /// The next message; `None` once there will be none.
    async fn next(&mut self) -> Option<Candidates> {
        loop {
            if let Some((prefix, rest)) = self.buffer.split_first_chunk::<LENGTH_BYTES>() {
                let length = length(*prefix).ok()?;
                if let Some(body) = rest.get(..length) {
                    let said = Candidates::from_bytes(body).ok()?;
                    self.buffer.drain(..LENGTH_BYTES + length);
                    return Some(said);
                }
            }
            if self.from.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// The task of one side, for as long as the connection lives.
struct Seeker {
    shared: Arc<Shared>,
    link: Arc<Link>,
    side: Side,
    /// The peer, while it is heard; afterwards the paths that are there are followed, and no others sought.
    talk: Option<(Reader, WriteHalf<Carrier>)>,
    /// Where the relay sees this node's socket.
    observed: Option<SocketAddr>,
    /// When it is looked again where this node is, and how soon after that where the relay does not say it.
    look: Time,
    pause: Span,
    opening: Option<Opening>,
}

impl Seeker {
    fn new(shared: Arc<Shared>, link: Arc<Link>, side: Side, carrier: Carrier) -> Seeker {
        let (from, write) = tokio::io::split(carrier);
        let reader = Reader { from, buffer: Vec::new() };
        let talk = Some((reader, write));
        Seeker { shared, link, side, talk, observed: None, look: time(), pause: LOOK_AGAIN, opening: None }
    }

    async fn run(mut self) {
        let connection = self.link.connection.clone();
        let mut events = connection.path_events();
        self.observe().await;
        let mut offered = self.shared.offered.subscribe();
        let mut seeking = Seeking::new(now(), self.side, self.place(), &mut OsRng);
        let mut ear = self.shared.quic.hub.listen(seeking.token());
        let mut closed = std::pin::pin!(connection.closed());
        let Some(mut relay) = self.link.watch_relay() else { return };
        loop {
            self.drain(&mut seeking).await;
            let (deadline, look) = (seeking.poll_timeout(), self.look);
            let input = tokio::select! {
                _ = &mut closed => return,
                said = next(&mut self.talk) => {
                    if said.is_none() {
                        self.talk = None;
                    }
                    said.map(Input::Heard)
                }
                Some((kind, from)) = ear.heard.recv() => Some(Input::Probed(kind, from)),
                event = events.next() => event.and_then(Result::ok).and_then(|event| self.followed(&event)),
                (to, is_open) = opened(&mut self.opening) => {
                    self.opening = None;
                    (!is_open).then_some(Input::Failed(to))
                }
                Ok(()) = offered.changed() => Some(Input::Place(self.place())),
                // Whoever needed another relay may be elsewhere.
                Ok(()) = relay.changed() => self.look().await,
                () = until(look) => self.look().await,
                () = until(deadline.unwrap_or_else(time)), if deadline.is_some() => None,
            };
            if input == Some(Input::Lost) {
                // Where it was lost with an address, another one is to be told.
                self.look = time();
            }
            match input {
                Some(input) if self.talk.is_some() || matches!(input, Input::Opened | Input::Lost) => {
                    seeking.handle_input(now(), input, &mut OsRng);
                }
                Some(_) => {}
                None => seeking.handle_timeout(now(), &mut OsRng),
            }
        }
    }

    async fn drain(&mut self, seeking: &mut Seeking) {
        while let Some(output) = seeking.poll_output() {
            match output {
                Output::Say(candidates) => self.say(&candidates).await,
                Output::Probe(to, probe) => self.shared.quic.hub.send(to, &probe),
                Output::Open(to) => self.open(to),
                Output::End(why) => {
                    tracing::debug!(peer = %self.link.peer, why, "no direct path is sought any more");
                    self.talk = None;
                }
            }
        }
    }

    async fn say(&mut self, candidates: &Candidates) {
        let Some((_, write)) = &mut self.talk else { return };
        let frame = candidates.to_frame();
        let saying = async {
            write.write_all(&frame).await?;
            write.flush().await
        };
        if !matches!(within(WRITE_PATIENCE, saying).await, Some(Ok(()))) {
            self.talk = None;
        }
    }

    fn open(&mut self, to: SocketAddr) {
        let connection = self.link.connection.clone();
        let opening = async move {
            // Beside the relayed path nothing goes over it until it is known to carry what QUIC needs.
            let path = connection.open_path(to, PathStatus::Backup);
            let id = path.path_id();
            let is_open = matches!(within(OPEN_PATIENCE, path).await, Some(Ok(_)));
            if !is_open && let Some(path) = id.and_then(|id| connection.path(id)) {
                // It may have ended by itself.
                let _ = path.close();
            }
            (to, is_open)
        };
        self.opening = Some(opening.boxed());
    }

    /// What a change of the connection's paths means.
    fn followed(&self, event: &PathEvent) -> Option<Input> {
        match event {
            PathEvent::Established { id, .. } if self.is_direct(*id) => {
                self.link.move_to(*id);
                Some(Input::Opened)
            }
            PathEvent::Abandoned { id, .. } => self.link.has_lost(*id).then_some(Input::Lost),
            _ => None,
        }
    }

    /// Whether a path goes over no relay.
    fn is_direct(&self, id: PathId) -> bool {
        let path = self.link.connection.path(id);
        let remote = path.and_then(|path| path.remote_address().ok());
        id != PathId::ZERO && remote.is_some_and(|remote| self.shared.quic.over(&remote).is_none())
    }

    /// Looks where this node is, while that matters.
    async fn look(&mut self) -> Option<Input> {
        self.look = time() + LOOK_EVERY;
        if self.talk.is_none() || self.link.is_direct() {
            return None;
        }
        self.observe().await;
        Some(Input::Place(self.place()))
    }

    /// Asks the relay where it sees the socket that a direct path would use.
    async fn observe(&mut self) {
        let Some(relay) = self.link.relayed().map(|relayed| relayed.over.at) else { return };
        let hub = &self.shared.quic.hub;
        let token = Token::generate(&mut OsRng);
        let mut ear = hub.listen(token);
        for _ in 0..OBSERVE_TIMES {
            hub.send(relay, &Probe { token, kind: Kind::Observe });
            let patience = Span(OBSERVE_PATIENCE.0 / OBSERVE_TIMES);
            if let Some(seen) = within(patience, observed(&mut ear, relay)).await {
                self.observed = Some(seen);
                (self.look, self.pause) = (time() + LOOK_EVERY, LOOK_AGAIN);
                return;
            }
        }
        self.look = time() + self.pause;
        self.pause = self.pause.times(2).min(LOOK_EVERY);
    }

    fn place(&self) -> Place {
        let own = self.shared.quic.listeners.first().and_then(|one| one.local_addr().ok());
        let Some(own) = own else { return Place::default() };
        let is_ours = |address: &&kith_identity::Address| {
            address.transport == Transport::Quic && address.socket.port() == own.port()
        };
        let listening = advertised(&self.shared.local, &self.shared.interfaces());
        let offered = self.shared.offered.borrow().clone();
        let offered = offered.iter().filter(|one| one.transport == Transport::Quic);
        let mut candidates: Vec<SocketAddr> = Vec::new();
        let listening = listening.iter().filter(is_ours).map(|one| one.socket);
        for one in self.observed.into_iter().chain(offered.map(|one| one.socket)).chain(listening) {
            if candidates.len() < MAX_CANDIDATES && !candidates.contains(&one) {
                candidates.push(one);
            }
        }
        let (v4, v6) = match own.ip() {
            IpAddr::V4(_) => (true, false),
            IpAddr::V6(ip) => (ip.is_unspecified(), true),
        };
        Place { candidates, vantage: self.shared.vantage(), v4, v6 }
    }
}

async fn observed(ear: &mut Ear, relay: SocketAddr) -> SocketAddr {
    loop {
        match ear.heard.recv().await {
            Some((Kind::Observed(seen), from)) if from == relay => return seen,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

async fn next(talk: &mut Option<(Reader, WriteHalf<Carrier>)>) -> Option<Candidates> {
    match talk {
        Some((reader, _)) => reader.next().await,
        None => std::future::pending().await,
    }
}

async fn opened(opening: &mut Option<Opening>) -> (SocketAddr, bool) {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}
