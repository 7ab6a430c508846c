use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use kith_identity::{Fingerprint, Ni, Relay, Transport};
use kith_sansio::Machine;
use kith_sansio::system::{OsRng, now, time, utc};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::side;
use super::talk::Reader;
use super::weave::Over;
use crate::dialer::Via;
use crate::protocol::{Kind, Wanted};
use crate::relay::knocking::{Input, Knocking, Outcome, Output};
use crate::relay::message::{Pass, RELAY};
use crate::relay::{Carriage, Request};
use crate::shell::endpoint::{PathInfo, Shared};
use crate::shell::{Stream, connect, tcp, until};
use crate::{ConnectError, Failure};

/// A stream of `relay/1` to a relay, over a connection of its own, and the relays that it goes over itself: none where
/// nobody is `beyond`. TCP where that answers, because most of the time it is idle, and costs the relay a fraction of the
/// memory.
pub(super) fn to_relay<'a>(
    shared: &'a Arc<Shared>,
    ni: &'a Ni,
    beyond: Vec<Fingerprint>,
) -> BoxFuture<'a, Result<(Stream, Vec<Relay>), ConnectError>> {
    Box::pin(async move {
        let protocol = RELAY;
        let wanted = Wanted { protocol: &protocol, kind: Kind::Stream };
        let aim = connect::Aim::new(shared, ni.fingerprint, wanted);
        let sought = connect::Sought::Relay { ni: ni.clone(), beyond };
        let way = shared.race(sought, Via::Bulk, Kind::Stream).await?;
        let over = match &way {
            connect::Way::Tcp { relays, .. } => relays.clone(),
            connect::Way::Quic(..) | connect::Way::Dtls(_) => Vec::new(),
        };
        Ok((shared.open(way, aim, connect::Fate::EndsWithStream).await?, over))
    })
}

/// Where a token is to be brought: the relay's address by which it was reached, where that speaks TCP, else the port
/// that it names at the same host.
pub(super) fn session_address(path: &PathInfo, pass: &Pass) -> SocketAddr {
    match path.transport {
        Transport::Tcp => path.remote,
        Transport::Quic | Transport::Dtls => SocketAddr::new(path.remote.ip(), pass.port),
    }
}

/// How a relay lets somebody in.
struct Asked {
    path: PathInfo,
    pass: Pass,
    /// What it is reached over itself.
    over: Vec<Relay>,
}

/// Reaches `target` over `relay`, for the sake of those `beyond` it, and makes sure that it is there: the handshake is
/// with the target, the relay hears none of it.
pub(in crate::shell) async fn over(
    shared: &Arc<Shared>,
    (target, beyond): (Fingerprint, &[Fingerprint]),
    relay: &Relay,
    carriage: Carriage,
) -> Result<connect::Way, Failure> {
    if carriage == Carriage::Datagrams {
        let (socket, over) = meet(shared, target, relay).await?;
        let dialled = shared.quic.dial_over(socket, over, &shared.client_tls).await?;
        return Ok(connect::Way::Quic(dialled, Some(over)));
    }
    let (stream, relays) = joined(shared, target, relay, beyond.to_vec()).await?;
    let started = time();
    let tls = tcp::handshake(stream, target, &shared.client_tls).await?;
    Ok(connect::Way::Tcp { tls: Box::new(tls), rtt: time() - started, relays })
}

/// A TCP connection that `relay` has joined with one of `target`, and the relays that it goes over.
fn joined<'a>(
    shared: &'a Arc<Shared>,
    target: Fingerprint,
    relay: &'a Relay,
    beyond: Vec<Fingerprint>,
) -> BoxFuture<'a, Result<(TcpStream, Vec<Relay>), Failure>> {
    Box::pin(async move {
        let failed = |error: std::io::Error| Failure::Relay(error.to_string());
        let on_the_way = [&[target], beyond.as_slice()].concat();
        let Asked { path, pass, mut over } =
            ask(shared, (target, on_the_way.clone()), relay, Carriage::Stream).await?;
        let stream = match over.last() {
            None => side::bring(session_address(&path, &pass), &pass.token).await.map_err(failed)?,
            // What brings the token is put through to this relay as the question was.
            Some(nearer) => {
                let (stream, _) = joined(shared, relay.ni.fingerprint, nearer, on_the_way).await?;
                side::show(stream, &pass.token).await.map_err(failed)?
            }
        };
        over.push(relay.clone());
        Ok((stream, over))
    })
}

/// A socket towards `relay` that is joined with one of `target`.
pub(super) async fn meet(
    shared: &Arc<Shared>,
    target: Fingerprint,
    relay: &Relay,
) -> Result<(std::net::UdpSocket, Over), Failure> {
    let asked = ask(shared, (target, Vec::new()), relay, Carriage::Datagrams).await?;
    let at = SocketAddr::new(asked.path.remote.ip(), asked.pass.port);
    let joined = side::bring_over_udp(at, &asked.pass.token).await;
    let socket = joined.map_err(|error| Failure::Relay(error.to_string()))?;
    Ok((socket, Over { relay: relay.ni.fingerprint, peer: target, at }))
}

/// Asks `relay` for `target`. It may be reached over others where that is for the sake of somebody `beyond` it.
async fn ask(
    shared: &Arc<Shared>,
    (target, beyond): (Fingerprint, Vec<Fingerprint>),
    relay: &Relay,
    carriage: Carriage,
) -> Result<Asked, Failure> {
    let reached = to_relay(shared, &relay.ni, beyond).await;
    let (stream, over) = reached.map_err(|error| Failure::Relay(error.to_string()))?;
    let path = stream.path();
    let carried = (carriage, over.iter().map(|relay| relay.ni.fingerprint).collect());
    let request = Request::sign(&shared.identity, relay.ni.fingerprint, target, carried, utc(), &mut OsRng);
    match knock(stream, request).await {
        Outcome::Admitted(pass) => Ok(Asked { path, pass, over }),
        Outcome::Refused => Err(Failure::RelayRefused),
        Outcome::Silent => Err(Failure::Relay("no answer".into())),
        Outcome::Broken => Err(Failure::Relay("it broke off".into())),
    }
}

/// Asks, and waits for the answer.
async fn knock(stream: Stream, request: Request) -> Outcome {
    let (read, mut write) = tokio::io::split(stream);
    let mut reader = Reader::new(read);
    let mut knocking = Knocking::new(now(), request);
    loop {
        while let Some(output) = knocking.poll_output() {
            match output {
                Output::Send(message) => {
                    let frame = message.to_frame();
                    let said = async {
                        write.write_all(&frame).await?;
                        write.flush().await
                    };
                    if said.await.is_err() {
                        return Outcome::Broken;
                    }
                }
                Output::Observed(address) => tracing::debug!(%address, "seen by a relay"),
                Output::Done(outcome) => return outcome,
            }
        }
        let deadline = knocking.poll_timeout().unwrap_or_else(time);
        tokio::select! {
            heard = reader.next() => {
                let input = heard.ok().flatten().map_or(Input::Lost, Input::Message);
                knocking.handle_input(now(), input, &mut OsRng);
            }
            () = until(deadline) => knocking.handle_timeout(now(), &mut OsRng),
        }
    }
}
