//! The floor of connections: where contacts are looked for, `ping`, and the exchange of record sets.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use kith_connect::{ConnectError, Discovery, Found, Protocol, Stream, Via};
use kith_directory::client::{Directory, DiscoverError, Freshness};
use kith_identity::contacts::{Contact, Hint};
use kith_identity::{Address, Authority, Fingerprint, Ni};
use kith_sansio::{Span, Time, system};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Node;
use super::contacts::Book;
use super::dht::Keyspace;
use super::invitations::Guests;
use crate::api::server::{Route, json_lines};
use crate::api::shapes::{NewPing, Pong};
use crate::api::wish::Body;
use crate::failure::{Failure, Result, chain};
use crate::floors::Floor;

/// Echo of [`PING_BYTES`], as often as the initiator likes.
const PING: Protocol = Protocol::new("ping/1");
/// Bytes of one ping, the payload of an ordinary ICMP one.
const PING_BYTES: usize = 56;
/// How long an answer may take.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// A ping connection that is silent for this long is closed by the target.
const PING_IDLE: Duration = Duration::from_secs(60);
/// Host names of hints are looked up for at most this long.
const HINT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) const FLOOR: Floor = Floor {
    name: "connect",
    start: |node| Box::pin(start(node)),
    stop: |_| Box::pin(async {}),
    routes,
    status: |node| Some(json!({ "connections": node.connections() })),
    commands: &["ping"],
};

/// Looks for contacts: address hints, what is cached, what the directories say now, and who is on the local networks.
pub(crate) struct Finder {
    book: Arc<Book>,
    directory: Directory,
    guests: Arc<Guests>,
    keyspace: Arc<Keyspace>,
}

impl Finder {
    pub(crate) fn new(
        book: Arc<Book>,
        directory: Directory,
        guests: Arc<Guests>,
        keyspace: Arc<Keyspace>,
    ) -> Self {
        Finder { book, directory, guests, keyspace }
    }

    /// Where to look for `target` by the person's own word: as a contact, as a delegator, as the issuer of a
    /// network, and as somebody who is being joined.
    fn whereabouts(&self, target: &Fingerprint) -> Option<(Ni, Vec<Hint>)> {
        let contact = self.book.contact_of(target).map(|contact| (contact.ni, contact.hints));
        let delegator = self.book.delegated.used(target).map(|used| (used.ni, used.at));
        let contact = joined(contact, delegator);
        let contact = joined(contact, self.book.network.whereabouts(target));
        joined(self.guests.find(target), contact)
    }

    async fn find(&self, target: Fingerprint, found: Found) {
        if self.book.is_blocked(&target) {
            return found.failed("it is blocked here");
        }
        // Whom the DHT calls it knows the address of. To look it up would take the DHT.
        if let Some(address) = self.keyspace.address(&target) {
            found.discovered([address]).await;
            return self.find_hinted(&target, &found).await;
        }
        let (own, listed) = (self.whereabouts(&target), self.book.delegated.whereabouts(&target));
        if own.is_none() && listed.is_none() {
            return found.failed("it is no contact");
        }
        let (own, hints) = own.unwrap_or_else(|| (Ni::new(target, None), Vec::new()));
        let (authorities, listed) = listed.unwrap_or_default();
        self.find_at(&names(own, authorities), &hints, &listed, found).await;
    }

    /// Says what is at hand of a member.
    async fn find_hinted(&self, member: &Fingerprint, found: &Found) {
        if let Some(set) = self.directory.cached(member) {
            found.discovered(set.addresses()).await;
            found.relays(set.relays()).await;
        }
        let own = self.whereabouts(member).map(|(_, hints)| hints).unwrap_or_default();
        for hint in own {
            match resolve(&hint).await {
                Ok(addresses) => found.hints(addresses).await,
                Err(error) => found.failed(format!("{hint}: {error}")),
            }
        }
    }

    /// Looks for a relay, which need be no contact: whoever named it says where to ask.
    async fn find_relay(&self, relay: Ni, found: Found) {
        if self.book.is_blocked(&relay.fingerprint) {
            return found.failed("it is blocked here");
        }
        let (ni, hints) = match self.whereabouts(&relay.fingerprint) {
            Some((known, hints)) => (Ni::new(relay.fingerprint, relay.authority.or(known.authority)), hints),
            None => (relay, Vec::new()),
        };
        self.find_at(&[ni], &hints, &[], found).await;
    }

    /// Looks where a person said, where delegators said, and where the directories say; `names` are those of one node.
    async fn find_at(&self, names: &[Ni], hints: &[Hint], listed: &[Hint], found: Found) {
        let Some(target) = names.first().map(|ni| ni.fingerprint) else { return };
        let is_hinted = !hints.is_empty() || !listed.is_empty();
        let hints = async {
            for hint in hints {
                match resolve(hint).await {
                    Ok(addresses) => found.hints(addresses).await,
                    Err(error) => found.failed(format!("{hint}: {error}")),
                }
            }
            // What a delegator says makes this node dial no more than a record set could.
            for hint in listed {
                match resolve(hint).await {
                    Ok(addresses) => found.discovered(addresses).await,
                    Err(error) => found.failed(format!("{hint}: {error}")),
                }
            }
        };
        let directories = async {
            // What is cached is tried at once; the peer may have moved since, so its directory is asked as well.
            let cached = self.directory.cached(&target);
            if let Some(set) = &cached {
                self.book.hear_set(set).await;
                found.discovered(set.addresses()).await;
                found.relays(set.relays()).await;
            }
            let is_known = cached.is_some() || is_hinted;
            let mut asking = Vec::new();
            for ni in names {
                asking.push(self.ask(ni, is_known, &found));
            }
            futures_util::future::join_all(asking).await;
        };
        futures_util::future::join(hints, directories).await;
    }

    /// Asks one directory.
    async fn ask(&self, ni: &Ni, is_known: bool, found: &Found) {
        match self.directory.discover(ni, Freshness::Refetch).await {
            Ok(fresh) => {
                self.book.hear_set(&fresh.set).await;
                found.discovered(fresh.set.addresses()).await;
                found.relays(fresh.set.relays()).await;
            }
            Err(DiscoverError::NothingToAsk(_)) if is_known => {}
            Err(DiscoverError::NothingToAsk(_)) => {
                found.failed("its fingerprint names no authority and there is no address hint");
            }
            Err(error) => found.failed(chain(&error)),
        }
    }
}

/// The names of a node whose directories are asked: the person's own, or where that says none those of all delegators.
fn names(own: Ni, listed: Vec<Authority>) -> Vec<Ni> {
    if own.authority.is_some() || listed.is_empty() {
        return vec![own];
    }
    listed.into_iter().map(|authority| Ni::new(own.fingerprint, Some(authority))).collect()
}

/// What two sources say of one node; the first goes first.
fn joined(one: Option<(Ni, Vec<Hint>)>, other: Option<(Ni, Vec<Hint>)>) -> Option<(Ni, Vec<Hint>)> {
    match (one, other) {
        (Some((mut ni, mut hints)), Some((known, more))) => {
            ni.authority = ni.authority.or(known.authority);
            hints.extend(more);
            Some((ni, hints))
        }
        (one, other) => one.or(other),
    }
}

impl Discovery for Finder {
    fn candidates<'a>(
        &'a self,
        target: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.find(target, found))
    }

    fn relay<'a>(&'a self, relay: Ni, found: Found) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.find_relay(relay, found))
    }
}

async fn resolve(hint: &Hint) -> std::result::Result<Vec<Address>, String> {
    if let Some(address) = hint.address() {
        return Ok(vec![address]);
    }
    let looked =
        tokio::time::timeout(HINT_TIMEOUT, tokio::net::lookup_host((hint.host(), hint.port()))).await;
    let sockets =
        looked.map_err(|_| "its name is not resolved in time".to_owned())?.map_err(|e| e.to_string())?;
    Ok(sockets.map(|socket| Address::new(hint.transport(), socket)).take(8).collect())
}

/// The transport that a command insists on.
pub(crate) fn via(name: Option<&str>) -> Result<Via> {
    match name {
        None => Ok(Via::Any),
        Some("tcp") => Ok(Via::Tcp),
        Some("quic") => Ok(Via::Quic),
        Some(other) => Err(Failure::usage(format!("there is no transport '{other}'")).hint("tcp or quic")),
    }
}

/// A failed connection as a person reads it.
pub(crate) fn explain(name: &str, error: &ConnectError) -> Failure {
    let text = format!("cannot reach {name}: {}", chain(error));
    match error {
        ConnectError::Refused { .. } => Failure::not_trusted(format!("{name} does not admit this node"))
            .hint("ask them to run 'kith contact add NAME NI' with what 'kith id' prints here"),
        ConnectError::Withdrawn { .. } => Failure::not_trusted(text),
        ConnectError::WrongPeer { .. } => Failure::not_trusted(text)
            .hint("the address belongs to another key; check the fingerprint with 'kith contact show'"),
        ConnectError::NotFound { .. } => Failure::unreachable(text)
            .hint("is their node up, and announced? An address hint helps: kith contact add NAME NI --at quic://host:port"),
        ConnectError::OtherTransport { .. } => Failure::unreachable(text)
            .hint("leave --via out, or add an address hint of that transport"),
        _ => Failure::unreachable(text).hint("is their node up?"),
    }
}

async fn start(node: &Arc<Node>) -> Result<()> {
    node.serve(PING, |_, _, stream| async {
        if let Err(error) = echo(stream).await {
            tracing::debug!(%error, "a ping connection broke off");
        }
    })?;
    super::push::start(node)
}

async fn echo(mut stream: Stream) -> std::io::Result<()> {
    let mut payload = [0; PING_BYTES];
    loop {
        match tokio::time::timeout(PING_IDLE, stream.read_exact(&mut payload)).await {
            Ok(Ok(_)) => {}
            // The initiator has closed, or fell silent.
            _ => return stream.shutdown().await,
        }
        stream.write_all(&payload).await?;
        stream.flush().await?;
    }
}

fn routes() -> Vec<Route> {
    vec![("/v1/ping", post(ping))]
}

async fn ping(State(node): State<Arc<Node>>, Body(wish): Body<NewPing>) -> Result<Response> {
    let contact = node.book.peer_for(&wish.contact, &PING)?;
    node.book.refuse_unless_allowed(&contact, &PING)?;
    let answering = Arc::clone(&node);
    let session = Session {
        via: via(wish.via.as_deref())?,
        contact,
        node,
        give_up: system::time() + Span::millis(wish.wait_ms),
        open: None,
        seq: 0,
        wish,
    };
    Ok(json_lines(
        &answering,
        futures_util::stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            if session.seq == session.wish.count {
                return None;
            }
            let pong = session.next().await;
            let goes_on = pong.is_ok().then_some(session);
            Some((pong.and_then(|pong| serde_json::to_value(pong).map_err(Failure::failed)), goes_on))
        }),
    ))
}

/// A series of pings to one contact.
struct Session {
    node: Arc<Node>,
    wish: NewPing,
    contact: Contact,
    via: Via,
    give_up: Time,
    open: Option<Stream>,
    seq: u32,
}

impl Session {
    async fn next(&mut self) -> Result<Pong> {
        if self.seq > 0 {
            tokio::time::sleep(Duration::from_millis(self.wish.interval_ms)).await;
        }
        self.seq += 1;
        self.leave_relay();
        let began = system::time();
        let (mut stream, mut connected) = match self.open.take() {
            Some(stream) => (stream, None),
            None => (self.connect().await?, Some(system::time() - began)),
        };
        let mut sent = system::time();
        let mut answer = exchange(&mut stream).await;
        if answer.is_err() && connected.is_none() {
            // What it went over may be gone, and something else be there.
            let again = system::time();
            stream = self.connect().await?;
            sent = system::time();
            connected = Some(sent - again);
            answer = exchange(&mut stream).await;
        }
        answer.map_err(|error| {
            Failure::unreachable(format!("the connection to {} broke off: {error}", self.contact.name))
        })?;
        let answered = system::time();
        let path = stream.path();
        let (way, relay) = self.node.way(&path);
        let pong = Pong {
            seq: self.seq,
            bytes: PING_BYTES,
            rtt_ms: millis(answered - sent),
            connect_ms: connected.map(millis),
            first_byte_ms: millis(answered - began),
            path: way,
            relay,
            transport: path.transport.to_string(),
            remote: path.remote.to_string(),
        };
        if self.wish.fresh {
            let _ = stream.shutdown().await;
        } else {
            self.open = Some(stream);
        }
        Ok(pong)
    }

    /// Opens the stream anew where it goes over a relay and a direct way has been found beside it.
    fn leave_relay(&mut self) {
        let is_relayed = self.open.as_ref().is_some_and(|open| !open.path().direct);
        let has_way = self.node.endpoint.has_direct_way(&self.contact.ni.fingerprint, self.via);
        if is_relayed && has_way {
            self.open = None;
        }
    }

    async fn connect(&self) -> Result<Stream> {
        let (mut pause, peer) = (Duration::from_millis(100), self.contact.ni.fingerprint);
        loop {
            // A list may have changed since, or somebody was blocked.
            self.node.book.refuse_unless_allowed(&self.contact, &PING)?;
            let connected = if self.wish.fresh {
                self.node.endpoint.connect_fresh(&peer, &PING, self.via).await
            } else {
                self.node.endpoint.connect_with(&peer, &PING, self.via).await
            };
            match connected {
                Ok(stream) => {
                    // It may have been reached without a trust that was there all the time.
                    self.node.book.refuse_unless_allowed(&self.contact, &PING)?;
                    return Ok(stream);
                }
                Err(error) if system::time() >= self.give_up || !may_pass(&error) => {
                    return Err(self.node.explain(&peer, &error).await);
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

/// Whether waiting may help: the peer may come up, its directory may answer.
pub(crate) fn may_pass(error: &ConnectError) -> bool {
    !matches!(error, ConnectError::Refused { .. } | ConnectError::WrongPeer { .. })
}

async fn exchange(stream: &mut Stream) -> std::io::Result<()> {
    let payload = [0x6b; PING_BYTES];
    let mut answer = [0; PING_BYTES];
    let both = async {
        stream.write_all(&payload).await?;
        stream.flush().await?;
        stream.read_exact(&mut answer).await
    };
    tokio::time::timeout(PONG_TIMEOUT, both).await.map_err(|_| std::io::ErrorKind::TimedOut)??;
    if answer == payload { Ok(()) } else { Err(std::io::Error::other("the answer is not what was sent")) }
}

fn millis(span: Span) -> f64 {
    span.0 as f64 / 1e3
}
