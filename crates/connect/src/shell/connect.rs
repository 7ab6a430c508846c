use std::collections::HashMap;
use std::sync::Arc;

use kith_identity::{Address, Fingerprint, Ni, Relay, Transport};
use kith_sansio::system::{OsRng, now, time};
use kith_sansio::{Machine, Span};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{AbortHandle, JoinSet};

use super::carrier::Carrier;
use super::dtls::Call;
use super::endpoint::{Party, PathInfo, Peer, Shared};
use super::flows::Channel;
use super::quic::Link;
use super::registry::Cut;
use super::relay::Over;
use super::stream::Stream;
use super::{LINGER, REFUSED_CODE, accept, direct, dtls, relay, tcp, until, within};
use crate::delegator::Opener;
use crate::dialer::{Attempt, Dialer, Input, Output, Via};
use crate::protocol::{ADMITTED, Kind, Wanted};
use crate::relay::Carriage;
use crate::relay::limits::MAX_HOPS;
use crate::trust::{Find, Finds, Found};
use crate::{ConnectError, Failure, Protocol, Route, Tried, defaults};

/// A verified way to the target, on which no protocol has been named yet.
pub(super) enum Way {
    Tcp {
        tls: Box<tcp::Tls>,
        rtt: Span,
        /// What it goes over, the one that knows the target last.
        relays: Vec<Relay>,
    },
    /// A connection, and what it goes over.
    Quic(noq::Connection, Option<Over>),
    Dtls(Call),
}

/// Whom a race is for.
pub(super) enum Sought {
    /// Whoever this is.
    Peer(Fingerprint),
    /// A relay, which is looked up by its name. Over another one it is reached for the sake of those `beyond` alone: the
    /// relays after it, and the target.
    Relay { ni: Ni, beyond: Vec<Fingerprint> },
}

impl Sought {
    fn fingerprint(&self) -> Fingerprint {
        match self {
            Sought::Peer(fingerprint) => *fingerprint,
            Sought::Relay { ni, .. } => ni.fingerprint,
        }
    }

    /// Who comes after it where it is reached over a relay; `None` where it is not.
    fn beyond(&self) -> Option<&[Fingerprint]> {
        match self {
            Sought::Peer(_) => Some(&[]),
            Sought::Relay { beyond, .. } => (1..MAX_HOPS).contains(&beyond.len()).then_some(beyond),
        }
    }
}

/// What a stream is opened for, and whether it needs this node's trust.
#[derive(Clone, Copy)]
pub(super) struct Aim<'a> {
    target: Fingerprint,
    wanted: Wanted<'a>,
    /// Whether the target was trusted for the protocol when it was sought, or at any time since: a trust that is
    /// withdrawn before the stream is there must not pass for one that nobody asks for.
    needs_trust: bool,
}

impl<'a> Aim<'a> {
    /// As trust stands when a stream is wished for, before anybody is looked for.
    pub(super) fn new(shared: &Shared, target: Fingerprint, wanted: Wanted<'a>) -> Aim<'a> {
        Aim { target, wanted, needs_trust: shared.permits(Opener::Own, &target, wanted.protocol) }
    }

    /// The same as trust stands now; a failure where it was there and is withdrawn.
    fn again(self, shared: &Shared) -> Result<Aim<'a>, ConnectError> {
        let is_trusted = shared.permits(Opener::Own, &self.target, self.wanted.protocol);
        if self.needs_trust && !is_trusted {
            return Err(ConnectError::Withdrawn { target: self.target });
        }
        Ok(Aim { needs_trust: is_trusted, ..self })
    }
}

/// What becomes of a new QUIC connection beside the stream that it was made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It carries what comes later.
    Kept,
    /// It serves the peer's streams too, and ends [`LINGER`] after its own.
    Lingers,
    /// It carries nothing else.
    EndsWithStream,
}

/// The attempts of one race.
#[derive(Default)]
struct Attempts {
    tasks: JoinSet<(Attempt, Result<Way, Failure>)>,
    handles: HashMap<Attempt, AbortHandle>,
    ways: HashMap<Attempt, Way>,
}

impl Shared {
    /// A stream to `target`: over an existing connection where that answers, else over a new one.
    pub(super) async fn connect(
        self: &Arc<Self>,
        target: &Fingerprint,
        wanted: Wanted<'_>,
        via: Via,
    ) -> Result<Stream, ConnectError> {
        let aim = Aim::new(self, *target, wanted);
        let link = match via {
            Via::Any | Via::Quic => self.links.newest(target),
            Via::Bulk => return self.connect_bulk(aim).await,
            Via::Tcp | Via::Dtls => None,
        };
        let is_direct = link.as_ref().is_some_and(|link| link.is_direct());
        if matches!(via, Via::Any | Via::Tcp)
            && !is_direct
            && let Some(stream) = self.connect_punched(aim).await
        {
            return Ok(stream);
        }
        let Some(link) = link else { return self.connect_fresh(aim, via).await };
        self.connect_on(&link, aim, via).await
    }

    /// A stream over a connection that is there, or over a new one where that does not answer.
    async fn connect_on(
        self: &Arc<Self>,
        link: &Arc<Link>,
        aim: Aim<'_>,
        via: Via,
    ) -> Result<Stream, ConnectError> {
        let mut reused = std::pin::pin!(self.open_on(link, aim));
        if let Some(result) = within(self.config.pool_patience, reused.as_mut()).await {
            match result {
                Err(ConnectError::Lost { .. }) => return self.connect_fresh(aim, via).await,
                result => return result,
            }
        }
        // It may be dead without anybody having said so: whoever answers first has it.
        let mut fresh = std::pin::pin!(self.connect_fresh(aim, via));
        tokio::select! {
            result = reused => match result {
                Err(ConnectError::Lost { .. }) => fresh.await,
                result => result,
            },
            result = &mut fresh => {
                link.doubt();
                result
            }
        }
    }

    /// A stream over a connection that is punched, where that is possible.
    async fn connect_punched(self: &Arc<Self>, aim: Aim<'_>) -> Option<Stream> {
        let way = self.lines.way(&aim.target).await?;
        // What fails here is tried in another way.
        Box::pin(self.open(way, aim, Fate::Kept)).await.ok()
    }

    /// A stream for much data: over a new connection, or, where none comes about in time, over one that is there. A
    /// peer that only reaches out (behind a NAT, say) has no address to be dialled at.
    async fn connect_bulk(self: &Arc<Self>, aim: Aim<'_>) -> Result<Stream, ConnectError> {
        // A race would end at a relay again.
        if let Some(link) = self.links.newest(&aim.target).filter(|link| link.has_moved()) {
            return Box::pin(self.connect_on(&link, aim, Via::Bulk)).await;
        }
        if let Some(stream) = self.connect_punched(aim).await {
            return Ok(stream);
        }
        let fresh = self.connect_fresh(aim, Via::Bulk);
        if self.links.newest(&aim.target).is_none() {
            return fresh.await;
        }
        let fresh = within(defaults::BULK_PATIENCE, fresh).await;
        let failed = match fresh {
            Some(Err(error @ (ConnectError::NotFound { .. } | ConnectError::Unreachable { .. }))) => {
                Some(error)
            }
            Some(result) => return result,
            None => None,
        };
        match (self.links.newest(&aim.target), failed) {
            (Some(link), _) => self.open_on(&link, aim).await,
            (None, Some(error)) => Err(error),
            (None, None) => self.connect_fresh(aim, Via::Bulk).await,
        }
    }

    /// A stream over a new connection that carries nothing else.
    pub(super) async fn connect_alone(
        self: &Arc<Self>,
        target: Fingerprint,
        wanted: Wanted<'_>,
        via: Via,
    ) -> Result<Stream, ConnectError> {
        self.open_fresh(Aim::new(self, target, wanted), via, || Fate::EndsWithStream).await
    }

    /// A stream to `target` at one address, without this node's certificate.
    pub(super) async fn connect_anonymous(
        self: &Arc<Self>,
        address: Address,
        target: Fingerprint,
        wanted: Wanted<'_>,
    ) -> Result<Stream, ConnectError> {
        let aim = Aim::new(self, target, wanted);
        let dialling = async {
            // An association shows who opens it.
            if address.transport == Transport::Dtls {
                return Err(Failure::NotDialled);
            }
            dial(self, target, address, &self.anonymous_tls).await
        };
        let dialled = within(self.config.handshake_timeout, dialling).await;
        let failed = |failure| ConnectError::Unreachable {
            target,
            tried: vec![Tried { route: Route::Direct(address), failure }],
        };
        let way = dialled.unwrap_or(Err(Failure::Silent(self.config.handshake_timeout))).map_err(failed)?;
        self.open(way, aim, Fate::EndsWithStream).await
    }

    /// A stream over a new connection, which is kept for more.
    async fn connect_fresh(self: &Arc<Self>, aim: Aim<'_>, via: Via) -> Result<Stream, ConnectError> {
        let fate = || {
            // One kept connection is enough: what bulk leaves behind would fill the peer's places for this node.
            let is_kept = via != Via::Bulk || self.links.newest(&aim.target).is_none();
            if is_kept { Fate::Kept } else { Fate::Lingers }
        };
        self.open_fresh(aim, via, fate).await
    }

    /// A stream over a new connection. Where the peer closed that and has forgotten it, over another one: of a close
    /// and a stateless reset that arrive together QUIC tells the reset alone, and it was the close that said why.
    async fn open_fresh(
        self: &Arc<Self>,
        aim: Aim<'_>,
        via: Via,
        fate: impl Fn() -> Fate,
    ) -> Result<Stream, ConnectError> {
        let (first, is_forgotten) = self.try_fresh(aim, via, &fate).await?;
        if is_forgotten { self.try_fresh(aim, via, &fate).await?.0 } else { first }
    }

    /// What comes of one new connection, and whether the peer has forgotten that.
    async fn try_fresh(
        self: &Arc<Self>,
        aim: Aim<'_>,
        via: Via,
        fate: impl Fn() -> Fate,
    ) -> Result<(Result<Stream, ConnectError>, bool), ConnectError> {
        let aim = aim.again(self)?;
        let way = Box::pin(self.race(Sought::Peer(aim.target), via, aim.wanted.kind)).await?;
        let connection = match &way {
            Way::Quic(connection, _) => Some(connection.clone()),
            Way::Tcp { .. } | Way::Dtls(_) => None,
        };
        let opened = Box::pin(self.open(way, aim, fate())).await;
        let end = connection.filter(|_| opened.is_err()).and_then(|connection| connection.close_reason());
        Ok((opened, matches!(end, Some(noq::ConnectionError::Reset))))
    }

    /// The stream that a new way was made for.
    pub(super) async fn open(
        self: &Arc<Self>,
        way: Way,
        aim: Aim<'_>,
        fate: Fate,
    ) -> Result<Stream, ConnectError> {
        let (connection, over) = match way {
            Way::Tcp { tls, rtt, relays } => {
                let relay = relays.last().map(|relay| relay.ni.fingerprint);
                return self.open_tcp(tls, (rtt, relay), aim).await;
            }
            Way::Dtls(call) => return self.open_dtls(call, aim).await,
            Way::Quic(connection, over) => (connection, over),
        };
        let link = Link::new(connection, Peer::Known(aim.target), over, None);
        if fate == Fate::Kept {
            self.links.keep(&link);
        }
        if fate != Fate::EndsWithStream {
            accept::serve(self, Arc::clone(&link), false);
        }
        let opened = self.open_on(&link, aim).await;
        if let Err(ConnectError::Withdrawn { .. }) = opened {
            link.close_unless_used();
        }
        let mut stream = opened?;
        match fate {
            Fate::Kept => {}
            Fate::Lingers => stream.own_and_linger(link, LINGER),
            Fate::EndsWithStream => stream.own(link),
        }
        Ok(stream)
    }

    /// Runs the race of the target's addresses and relays to its end.
    pub(super) async fn race(
        self: &Arc<Self>,
        sought: Sought,
        via: Via,
        kind: Kind,
    ) -> Result<Way, ConnectError> {
        let target = sought.fingerprint();
        let mut dialer = Dialer::new(target, now(), via, self.vantage(), self.config.pace);
        if kind == Kind::Datagrams {
            dialer.for_datagrams();
        }
        let (found, mut finds) = Found::channel();
        let beyond = sought.beyond().map(<[Fingerprint]>::to_vec);
        let mut discovery = match sought {
            Sought::Peer(target) => self.discovery.candidates(target, found),
            Sought::Relay { ni, .. } => self.discovery.relay(ni, found),
        };
        let (mut searching, mut listening) = (true, true);
        let mut attempts = Attempts::default();
        loop {
            while let Some(output) = dialer.poll_output() {
                match output {
                    Output::Start(attempt, address) => attempts.start(self, target, attempt, address),
                    Output::Relay(attempt, relay) => {
                        let beyond = beyond.clone().unwrap_or_default();
                        attempts.start_over(self, (target, beyond), attempt, relay, via);
                    }
                    Output::Abort(attempt) => attempts.abort(attempt),
                    Output::Reached(attempt) => {
                        return attempts.ways.remove(&attempt).ok_or(ConnectError::Lost { target });
                    }
                    Output::Unreachable(tried) => return Err(lost_race(target, tried, &finds)),
                }
            }
            let deadline = dialer.poll_timeout().unwrap_or_else(time);
            let input = tokio::select! {
                () = &mut discovery, if searching => {
                    searching = false;
                    None
                }
                find = finds.next(), if listening => {
                    listening = find.is_some();
                    match find {
                        Some(Find::Candidates(batch)) => Some(Input::Candidates(batch)),
                        Some(Find::Relays(relays)) => {
                            beyond.as_ref().map(|beyond| Input::Relays(self.besides(relays, beyond)))
                        }
                        None => Some(Input::NoMoreCandidates),
                    }
                }
                Some(done) = attempts.tasks.join_next(), if !attempts.tasks.is_empty() => attempts.done(done.ok()),
                () = until(deadline) => {
                    dialer.handle_timeout(now(), &mut OsRng);
                    None
                }
            };
            if let Some(input) = input {
                dialer.handle_input(now(), input, &mut OsRng);
            }
        }
    }

    /// Relays that are on no way yet.
    fn besides(&self, mut relays: Vec<Relay>, on_the_way: &[Fingerprint]) -> Vec<Relay> {
        let own = self.identity.fingerprint();
        relays.retain(|relay| relay.ni.fingerprint != own && !on_the_way.contains(&relay.ni.fingerprint));
        relays
    }

    async fn open_tcp(
        self: &Arc<Self>,
        tls: Box<tcp::Tls>,
        (rtt, relay): (Span, Option<Fingerprint>),
        aim: Aim<'_>,
    ) -> Result<Stream, ConnectError> {
        let socket = Arc::clone(&tls.get_ref().0.0);
        let remote = socket.peer_addr().map_err(|_| ConnectError::Lost { target: aim.target })?;
        let (direct, rtt) = (relay.is_none(), Some(rtt.into()));
        let path = PathInfo { transport: Transport::Tcp, remote, direct, relay, rtt };
        let aim = aim.again(self)?;
        self.hello(Carrier::Tcp(tls), Cut::new(Some(socket)), path, aim).await
    }

    async fn open_dtls(self: &Arc<Self>, call: Call, aim: Aim<'_>) -> Result<Stream, ConnectError> {
        let remote = call.0.remote();
        let path = PathInfo { transport: Transport::Dtls, remote, direct: true, relay: None, rtt: None };
        let aim = aim.again(self)?;
        self.hello(Carrier::Dtls(call), Cut::new(None), path, aim).await
    }

    async fn open_on(self: &Arc<Self>, link: &Arc<Link>, aim: Aim<'_>) -> Result<Stream, ConnectError> {
        let Aim { target, wanted: Wanted { protocol, kind }, .. } = aim;
        let lost = |error: noq::ConnectionError| quic_loss(&error, target, protocol);
        let opening = within(self.config.handshake_timeout, link.connection.open_bi());
        let (send, recv) = opening.await.ok_or(ConnectError::Lost { target })?.map_err(lost)?;
        let aim = aim.again(self)?;
        // Open before the peer hears of it, so that nothing is lost of what it sends at once.
        let channel = (kind == Kind::Datagrams)
            .then(|| Channel::open(link, send.id(), defaults::DATAGRAM_BACKLOG_BYTES));
        let carrier = Carrier::Quic(send, recv, link.connection.clone());
        let result = self.hello(carrier, Cut::new(None), link.path(), aim).await;
        let result = result.map(|mut stream| {
            stream.carry(channel);
            stream.follow(Some(link));
            stream
        });
        match (&result, link.connection.close_reason()) {
            (Ok(_), _) => {
                link.admit(Opener::Own, protocol, aim.needs_trust);
                link.close_if_forsaken(|opener, peer, protocol| self.permits(opener, peer, protocol));
            }
            (Err(ConnectError::Lost { .. }), Some(error)) => return Err(lost(error)),
            (Err(_), _) => {}
        }
        result
    }

    /// Names the protocol and waits for the answer.
    async fn hello(
        self: &Arc<Self>,
        carrier: Carrier,
        cut: Arc<Cut>,
        path: PathInfo,
        aim: Aim<'_>,
    ) -> Result<Stream, ConnectError> {
        let Aim { target, wanted: Wanted { protocol, kind }, needs_trust } = aim;
        let peer = Peer::Known(target);
        let place = self.streams.take(Party::Named(target)).ok_or(ConnectError::TooMany { target })?;
        let needs_trust = needs_trust.then_some(Opener::Own);
        let ticket = self.registry.enter(peer, protocol.clone(), needs_trust, path, cut);
        // What was withdrawn before the registry knew of the stream is told to nobody else.
        aim.again(self)?;
        let mut stream = Stream::new(carrier, peer, path, ticket, place);
        let exchange = async {
            let carrier = stream.carrier();
            carrier.write_all(&protocol.hello(kind)).await?;
            carrier.flush().await?;
            carrier.read_u8().await
        };
        match within(self.config.handshake_timeout, exchange).await {
            Some(Ok(ADMITTED)) => Ok(stream),
            Some(Ok(_)) => Err(ConnectError::Refused { target, protocol: protocol.clone() }),
            Some(Err(error)) if is_reset_refusal(&error) => {
                Err(ConnectError::Refused { target, protocol: protocol.clone() })
            }
            Some(Err(_)) | None => Err(ConnectError::Lost { target }),
        }
    }
}

impl Attempts {
    fn start(&mut self, shared: &Arc<Shared>, target: Fingerprint, attempt: Attempt, address: Address) {
        let shared = Arc::clone(shared);
        let handle = self
            .tasks
            .spawn(async move { (attempt, dial(&shared, target, address, &shared.client_tls).await) });
        self.handles.insert(attempt, handle);
    }

    fn start_over(
        &mut self,
        shared: &Arc<Shared>,
        (target, beyond): (Fingerprint, Vec<Fingerprint>),
        attempt: Attempt,
        relay: Relay,
        via: Via,
    ) {
        let shared = Arc::clone(shared);
        let carriage = if via == Via::Quic { Carriage::Datagrams } else { Carriage::Stream };
        let over = async move {
            let way = relay::over(&shared, (target, &beyond), &relay, carriage).await;
            // Whoever is reached in order to reach somebody else is not looked for.
            if let (Ok(Way::Tcp { .. }), true) = (&way, beyond.is_empty()) {
                match via {
                    Via::Any | Via::Bulk => direct::beside(&shared, target, relay),
                    Via::Tcp => direct::tcp::begin(&shared, target, relay),
                    Via::Quic | Via::Dtls => {}
                }
            }
            (attempt, way)
        };
        let handle = self.tasks.spawn(over);
        self.handles.insert(attempt, handle);
    }

    fn abort(&mut self, attempt: Attempt) {
        self.ways.remove(&attempt);
        if let Some(handle) = self.handles.remove(&attempt) {
            handle.abort();
        }
    }

    fn done(&mut self, done: Option<(Attempt, Result<Way, Failure>)>) -> Option<Input> {
        let (attempt, result) = done?;
        Some(match result {
            Ok(way) => {
                self.ways.insert(attempt, way);
                Input::Connected(attempt)
            }
            Err(failure) => Input::Failed(attempt, failure),
        })
    }
}

/// One attempt at one address.
async fn dial(
    shared: &Shared,
    target: Fingerprint,
    address: Address,
    tls: &rustls::ClientConfig,
) -> Result<Way, Failure> {
    let started = time();
    match address.transport {
        Transport::Tcp => {
            let tls = tcp::dial(address.socket, target, tls).await?;
            Ok(Way::Tcp { tls: Box::new(tls), rtt: time() - started, relays: Vec::new() })
        }
        Transport::Quic => {
            shared.quic.dial(address.socket, target, tls).await.map(|connection| Way::Quic(connection, None))
        }
        Transport::Dtls => dtls::dial(shared, address.socket, target).await.map(Way::Dtls),
    }
}

/// What a lost race is called.
fn lost_race(target: Fingerprint, tried: Vec<Tried>, finds: &Finds) -> ConnectError {
    let somebody_else = tried.iter().find_map(|one| match (&one.failure, one.route) {
        (Failure::WrongPeer(found), Route::Direct(address)) => Some((*found, address)),
        _ => None,
    });
    match somebody_else {
        Some((found, address)) => ConnectError::WrongPeer { target, found, address, tried },
        None if tried.is_empty() => ConnectError::NotFound { target, reasons: finds.reasons() },
        None if tried.iter().all(|one| one.failure == Failure::OtherTransport) => {
            ConnectError::OtherTransport { target, known: tried.into_iter().map(|one| one.route).collect() }
        }
        None => ConnectError::Unreachable { target, tried },
    }
}

fn quic_loss(error: &noq::ConnectionError, target: Fingerprint, protocol: &Protocol) -> ConnectError {
    match error {
        noq::ConnectionError::ApplicationClosed(close) if close.error_code == REFUSED_CODE => {
            ConnectError::Refused { target, protocol: protocol.clone() }
        }
        _ => ConnectError::Lost { target },
    }
}

/// Whether QUIC says by the stream that this node is not admitted.
fn is_reset_refusal(error: &std::io::Error) -> bool {
    let inner = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    let read = inner.and_then(|inner| inner.downcast_ref::<noq::ReadError>());
    let write = inner.and_then(|inner| inner.downcast_ref::<noq::WriteError>());
    matches!(read, Some(noq::ReadError::Reset(REFUSED_CODE)))
        || matches!(write, Some(noq::WriteError::Stopped(REFUSED_CODE)))
}
