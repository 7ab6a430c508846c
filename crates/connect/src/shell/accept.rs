use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use kith_identity::{Fingerprint, Transport, tls};
use kith_sansio::system::time;
use kith_sansio::{Span, Time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::carrier::Carrier;
use super::endpoint::{Listening, Party, PathInfo, Peer, Shared};
use super::flows::{self, Channel};
use super::quic::{Link, key_of};
use super::registry::Cut;
use super::relay::Over;
use super::stream::Stream;
use super::{DONE_CODE, REFUSED_CODE, direct, dtls, network, relay, tcp, until, within};
use crate::delegator::Opener;
use crate::error::TurnedAway;
use crate::limits::{Place, source};
use crate::protocol::{ADMITTED, Kind, hello_form};
use crate::{Admission, Changes, Protocol, defaults};

/// How long accepting rests where the system has no room for another connection.
const BREATHER: Span = Span::millis(50);

/// Starts the tasks that let peers in and put them out.
pub(super) fn start(
    shared: &Arc<Shared>,
    tcp: Vec<std::net::TcpListener>,
    dtls: Vec<(Arc<dtls::Port>, dtls::Source, dtls::Arrivals)>,
    changes: Changes,
) {
    for (port, source, arrivals) in dtls {
        start_dtls(shared, port, source, arrivals);
    }
    for listener in tcp {
        let task = accept_tcp(Arc::clone(shared), listener);
        shared.spawn(task);
    }
    for endpoint in shared.quic.listeners.clone() {
        let task = accept_quic(Arc::clone(shared), endpoint);
        shared.spawn(task);
    }
    let task = network::follow(Arc::clone(shared));
    shared.spawn(task);
    let task = follow_trust(Arc::clone(shared), changes);
    shared.spawn(task);
}

async fn follow_trust(shared: Arc<Shared>, mut changes: Changes) {
    while changes.next().await {
        shared.review_trust();
    }
}

async fn accept_tcp(shared: Arc<Shared>, listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot accept TCP connections"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(place) = shared.half_open.take(source(from.ip())) else { continue };
                let task = greet_tcp(Arc::clone(&shared), stream, (from, None), place);
                shared.spawn(task);
            }
            Err(error) => {
                tracing::debug!(%error, "no TCP connection accepted");
                until(time() + BREATHER).await;
            }
        }
    }
}

/// Takes what comes over TCP, or, over a relay, from `over.peer`: a handshake, or a token where this node is a relay.
async fn greet_tcp(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    (from, over): (SocketAddr, Option<Over>),
    place: Place<IpAddr>,
) {
    let deadline = time() + shared.config.handshake_timeout;
    let hook = shared.hook().clone();
    if let Some(hook) = hook {
        let taking = async {
            let is_for_relay = relay::is_ahead(&stream).await?;
            if is_for_relay { relay::take(&mut stream).await.map(Some) } else { Ok(None) }
        };
        match within(deadline - time(), taking).await {
            Some(Ok(Some(relay::Ahead::Token(token)))) => return hook.present(stream, token, place).await,
            Some(Ok(Some(relay::Ahead::Question(token)))) => {
                // Whoever does not hear the answer has gone.
                let _ = within(deadline - time(), relay::reflect(stream, token, from)).await;
                return;
            }
            Some(Ok(None)) => {}
            _ => return tracing::debug!("TCP connection turned away"),
        }
    }
    greet_tls(shared, stream, (from, over), place, deadline).await;
}

/// The target's side of a session at `relay`, which `initiator` alone may use.
pub(super) async fn greet_relayed(
    shared: Arc<Shared>,
    stream: TcpStream,
    relay: Fingerprint,
    initiator: Fingerprint,
) {
    let Ok(from) = stream.peer_addr() else { return };
    let Some(place) = shared.half_open.take(source(from.ip())) else { return };
    let over = Over { relay, peer: initiator, at: from };
    greet_tcp(shared, stream, (from, Some(over)), place).await;
}

async fn greet_tls(
    shared: Arc<Shared>,
    stream: TcpStream,
    (from, over): (SocketAddr, Option<Over>),
    place: Place<IpAddr>,
    deadline: Time,
) {
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let greeting = async {
        let lost = |error: std::io::Error| TurnedAway::Lost(error.to_string());
        let tls = tcp::greet(stream, Arc::clone(&shared.server_tls)).await.map_err(lost)?;
        let key = tls::peer_key(tls.get_ref().1.peer_certificates())
            .map_err(|error| TurnedAway::Key(error.to_string()))?;
        let peer = key.map_or(Peer::Anonymous, |key| Peer::Known(key.fingerprint()));
        let cut = Cut::new(Some(Arc::clone(&tls.get_ref().0.0)));
        if over.is_some_and(|over| peer != Peer::Known(over.peer)) {
            return Err(TurnedAway::NotAdmitted);
        }
        let relay = over.map(|over| over.relay);
        let direct = relay.is_none();
        let path = PathInfo { transport: Transport::Tcp, remote: from, direct, relay, rtt: None };
        admit(&shared, Carrier::Tcp(Box::new(tls)), None, cut, peer, path).await
    };
    let result = within(deadline - time(), greeting).await.unwrap_or(Err(TurnedAway::Slow));
    drop(place);
    if let Err(error) = result {
        tracing::debug!(%error, "TCP connection turned away");
    }
}

/// Lets peers in over DTLS at one port.
pub(super) fn start_dtls(
    shared: &Arc<Shared>,
    port: Arc<dtls::Port>,
    source: dtls::Source,
    arrivals: dtls::Arrivals,
) {
    shared.spawn(dtls::run(port, source));
    let task = accept_dtls(Arc::clone(shared), arrivals);
    shared.spawn(task);
}

async fn accept_dtls(shared: Arc<Shared>, mut arrivals: dtls::Arrivals) {
    while let Some((call, peer)) = arrivals.recv().await {
        let task = greet_dtls(Arc::clone(&shared), call, peer);
        shared.spawn(task);
    }
}

async fn greet_dtls(shared: Arc<Shared>, call: dtls::Call, peer: Fingerprint) {
    let from = SocketAddr::new(call.0.remote().ip().to_canonical(), call.0.remote().port());
    let path = PathInfo { transport: Transport::Dtls, remote: from, direct: true, relay: None, rtt: None };
    admit_proved(&shared, Carrier::Dtls(call), Cut::new(None), peer, path).await;
}

/// The target's side of a direct connection that was made together with `peer`, who has proved his key.
pub(super) async fn greet_punched(
    shared: Arc<Shared>,
    tls: Box<tcp::Tls>,
    from: SocketAddr,
    peer: Fingerprint,
) {
    let cut = Cut::new(Some(Arc::clone(&tls.get_ref().0.0)));
    let path = PathInfo { transport: Transport::Tcp, remote: from, direct: true, relay: None, rtt: None };
    admit_proved(&shared, Carrier::Tcp(tls), cut, peer, path).await;
}

/// Admits what is a stream by itself, of a peer who has proved his key.
async fn admit_proved(
    shared: &Arc<Shared>,
    carrier: Carrier,
    cut: Arc<Cut>,
    peer: Fingerprint,
    path: PathInfo,
) {
    let admission = admit(shared, carrier, None, cut, Peer::Known(peer), path);
    let result = within(shared.config.handshake_timeout, admission).await.unwrap_or(Err(TurnedAway::Slow));
    if let Err(error) = result {
        tracing::debug!(%error, transport = %path.transport, "a connection turned away");
    }
}

async fn accept_quic(shared: Arc<Shared>, endpoint: noq::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let over = shared.quic.over(&incoming.remote_address());
        let from = over.map_or(incoming.remote_address(), |over| over.at);
        if shared.half_open.crowded() && incoming.may_retry() && !incoming.remote_address_validated() {
            // Room is short: first prove that the address is yours.
            let _ = incoming.retry();
            continue;
        }
        let Some(place) = shared.half_open.take(source(from.ip())) else {
            incoming.refuse();
            continue;
        };
        let task = greet_quic(Arc::clone(&shared), incoming, over, place);
        shared.spawn(task);
    }
}

async fn greet_quic(shared: Arc<Shared>, incoming: noq::Incoming, over: Option<Over>, place: Place<IpAddr>) {
    let invented = incoming.remote_address();
    let lost = |error: noq::ConnectionError| TurnedAway::Lost(error.to_string());
    let handshake = async {
        let accepted = if over.is_some() { shared.quic.accept_over(incoming) } else { incoming.accept() };
        accepted.map_err(lost)?.await.map_err(lost)
    };
    let handshake = within(shared.config.handshake_timeout, handshake);
    let connection = match handshake.await.unwrap_or(Err(TurnedAway::Slow)) {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "QUIC connection turned away"),
    };
    let peer = match key_of(&connection) {
        Ok(key) => key.map_or(Peer::Anonymous, |key| Peer::Known(key.fingerprint())),
        Err(error) => return tracing::debug!(%error, "QUIC connection turned away"),
    };
    if let Some(over) = over {
        shared.quic.claim(&invented, &connection, noq::PathId::ZERO);
        if peer != Peer::Known(over.peer) {
            return connection.close(REFUSED_CODE, b"");
        }
    }
    let link = Link::new(connection, peer, over, Some(place));
    if peer != Peer::Anonymous && !shared.links.keep(&link) {
        // No refusal: the peer may well be trusted, and comes back when one of its connections has ended.
        return link.connection.close(DONE_CODE, b"");
    }
    serve(&shared, link, true);
}

/// Takes the streams that the peer opens on `link`, until it closes, and tends its path over a relay. Where the peer opened
/// the connection and nothing is admitted on it in time, it ends.
pub(super) fn serve(shared: &Arc<Shared>, link: Arc<Link>, on_trial: bool) {
    relay::tend(shared, &link);
    let task = take_streams(Arc::clone(shared), link, on_trial);
    shared.spawn(task);
}

async fn take_streams(shared: Arc<Shared>, link: Arc<Link>, mut on_trial: bool) {
    let deadline = time() + shared.config.handshake_timeout;
    let mut draining = std::pin::pin!(flows::drain(&link).fuse());
    loop {
        let accepted = tokio::select! {
            accepted = link.connection.accept_bi() => accepted,
            () = &mut draining => continue,
            () = until(deadline), if on_trial => {
                on_trial = false;
                link.close_unless_admitted();
                continue;
            }
        };
        let Ok((send, recv)) = accepted else { break };
        link.begin_greeting();
        let carrier = Carrier::Quic(send, recv, link.connection.clone());
        let task = greet_stream(Arc::clone(&shared), Arc::clone(&link), carrier);
        shared.spawn(task);
    }
    shared.links.forget(&link);
}

async fn greet_stream(shared: Arc<Shared>, link: Arc<Link>, carrier: Carrier) {
    let admission = admit(&shared, carrier, Some(&link), Cut::new(None), link.peer, link.path());
    match within(shared.config.handshake_timeout, admission).await.unwrap_or(Err(TurnedAway::Slow)) {
        Ok(None) => {}
        Ok(Some((protocol, needs_trust))) => {
            link.admit(Opener::Peer, &protocol, needs_trust);
            if trusted(&shared, link.peer, &protocol) {
                link.welcome();
                direct::begin(&shared, &link);
            }
            // Trust that was withdrawn meanwhile could not be seen to be what the connection was used for.
            link.close_if_forsaken(|opener, peer, protocol| shared.permits(opener, peer, protocol));
        }
        Err(error) => tracing::debug!(%error, "QUIC stream turned away"),
    }
    link.end_greeting();
}

/// Reads the hello, decides, and hands the stream to whoever listens; `None` where it is this floor's own.
async fn admit(
    shared: &Arc<Shared>,
    mut carrier: Carrier,
    link: Option<&Arc<Link>>,
    cut: Arc<Cut>,
    peer: Peer,
    path: PathInfo,
) -> Result<Option<(Protocol, bool)>, TurnedAway> {
    let lost = |error: std::io::Error| TurnedAway::Lost(error.to_string());
    let decision = match read_hello(&mut carrier).await {
        // Over DTLS there are no streams.
        Ok((_, Kind::Stream)) if carrier.line().is_some() => None,
        Ok((protocol, kind)) => {
            if let Some(link) = link
                && let Some(side) = direct::asked(shared, link, &protocol)
            {
                direct::answer(shared, link, side, carrier);
                return Ok(None);
            }
            if link.is_none()
                && let Some(peer) = direct::tcp::asked(shared, peer, &path, &protocol)
            {
                direct::tcp::answer(shared, peer, &path, carrier);
                return Ok(None);
            }
            decide(shared, peer, path.remote, protocol, kind)
        }
        Err(TurnedAway::Hello(_)) => None,
        Err(error) => return Err(error),
    };
    let Some((protocol, listening)) = decision else {
        carrier.refuse().await;
        return Err(TurnedAway::NotAdmitted);
    };
    let party = match peer {
        Peer::Known(fingerprint) => Party::Named(fingerprint),
        Peer::Anonymous => Party::Source(source(path.remote.ip())),
    };
    let is_trusted = trusted(shared, peer, &protocol);
    let strange = match link {
        _ if is_trusted => Some(None),
        // Over QUIC it is the connection that has a stranger's place.
        Some(link) => link.tolerate(&shared.quic_strangers).then_some(None),
        None => shared.strangers.take(source(path.remote.ip())).map(Some),
    };
    let Some(strange) = strange else {
        carrier.refuse().await;
        return Err(TurnedAway::TooMany);
    };
    let (Some(place), Some(seat)) = (shared.streams.take(party), listening.queue.reserve().await) else {
        carrier.refuse().await;
        return Err(TurnedAway::TooMany);
    };
    let needs_trust = listening.admission != Admission::Anyone;
    let ticket =
        shared.registry.enter(peer, protocol.clone(), needs_trust.then_some(Opener::Peer), path, cut);
    let channel = link.zip(carrier.stream_id()).filter(|_| seat.is_for_datagrams());
    let waiting_bytes =
        if is_trusted { defaults::DATAGRAM_BACKLOG_BYTES } else { defaults::STRANGER_DATAGRAM_BYTES };
    if let Some(line) = carrier.line() {
        let most = if is_trusted { defaults::DATAGRAM_ARRIVAL_BYTES } else { waiting_bytes };
        line.inbox.allow(most);
    }
    let mut stream = Stream::new(carrier, peer, path, ticket, place);
    stream.stay_as(link.map(Link::guest), strange);
    stream.follow(link);
    stream.carry(channel.map(|(link, stream)| Channel::open(link, stream, waiting_bytes)));
    if needs_trust && !trusted(shared, peer, &protocol) {
        // Withdrawn since the decision, before the registry knew of the stream.
        stream.refuse().await;
        return Err(TurnedAway::NotAdmitted);
    }
    stream.carrier().write_all(&[ADMITTED]).await.map_err(lost)?;
    stream.carrier().flush().await.map_err(lost)?;
    seat.send(shared, peer, stream);
    Ok(Some((protocol, needs_trust)))
}

async fn read_hello(carrier: &mut Carrier) -> Result<(Protocol, Kind), TurnedAway> {
    let lost = |error: std::io::Error| TurnedAway::Lost(error.to_string());
    let mut name = [0; crate::MAX_PROTOCOL_BYTES];
    let (kind, length) = hello_form(carrier.read_u8().await.map_err(lost)?)?;
    carrier.read_exact(&mut name[..length]).await.map_err(lost)?;
    Ok((Protocol::from_wire(&name[..length])?, kind))
}

fn trusted(shared: &Shared, peer: Peer, protocol: &Protocol) -> bool {
    peer.fingerprint().is_some_and(|peer| shared.permits(Opener::Peer, peer, protocol))
}

/// Who is listening for `protocol`, where `peer` may speak to him; notes the others.
fn decide(
    shared: &Shared,
    peer: Peer,
    from: SocketAddr,
    protocol: Protocol,
    kind: Kind,
) -> Option<(Protocol, Listening)> {
    let listening = shared.listening().get(&(protocol.clone(), kind)).cloned();
    let admission = listening.as_ref().map(|one| one.admission);
    if admission == Some(Admission::Anyone) || trusted(shared, peer, &protocol) {
        return listening.map(|listening| (protocol, listening));
    }
    // Who is no member of a network may be one of another: nobody whom a person would make a contact of for that.
    if admission != Some(Admission::Members)
        && let Peer::Known(stranger) = peer
    {
        shared.knock(&stranger, from);
    }
    None
}
