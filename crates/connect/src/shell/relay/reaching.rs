use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use kith_identity::{Fingerprint, Ni, Relay, Transport};
use kith_sansio::Machine;
use kith_sansio::system::{OsRng, now, time, utc};
use tokio::io::AsyncWriteExt;

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

/// A stream of `relay/1` to a relay, over a connection of its own: TCP where that answers, because most of the time it
/// is idle, and costs the relay a fraction of the memory.
pub(super) fn to_relay<'a>(
    shared: &'a Arc<Shared>,
    ni: &'a Ni,
) -> Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send + 'a>> {
    Box::pin(async move {
        let protocol = RELAY;
        let wanted = Wanted { protocol: &protocol, kind: Kind::Stream };
        let aim = connect::Aim::new(shared, ni.fingerprint, wanted);
        let sought = connect::Sought::Relay(ni.clone());
        let way = shared.race(sought, Via::Bulk).await?;
        shared.open(way, aim, connect::Fate::EndsWithStream).await
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

/// Reaches `target` over `relay`, and makes sure that it is there: the handshake is with the target, the relay hears
/// none of it.
pub(in crate::shell) async fn over(
    shared: &Arc<Shared>,
    target: Fingerprint,
    relay: &Relay,
    carriage: Carriage,
) -> Result<connect::Way, Failure> {
    if carriage == Carriage::Datagrams {
        let (socket, over) = meet(shared, target, relay).await?;
        let dialled = shared.quic.dial_over(socket, over, &shared.client_tls).await?;
        return Ok(connect::Way::Quic(dialled, Some(over)));
    }
    let (path, pass) = ask(shared, target, relay, carriage).await?;
    let started = time();
    let joined = side::bring(session_address(&path, &pass), &pass.token).await;
    let stream = joined.map_err(|error| Failure::Relay(error.to_string()))?;
    let tls = tcp::handshake(stream, target, &shared.client_tls).await?;
    Ok(connect::Way::Tcp { tls: Box::new(tls), rtt: time() - started, relay: Some(relay.ni.fingerprint) })
}

/// A socket towards `relay` that is joined with one of `target`.
pub(super) async fn meet(
    shared: &Arc<Shared>,
    target: Fingerprint,
    relay: &Relay,
) -> Result<(std::net::UdpSocket, Over), Failure> {
    let (path, pass) = ask(shared, target, relay, Carriage::Datagrams).await?;
    let at = SocketAddr::new(path.remote.ip(), pass.port);
    let joined = side::bring_over_udp(at, &pass.token).await;
    let socket = joined.map_err(|error| Failure::Relay(error.to_string()))?;
    Ok((socket, Over { relay: relay.ni.fingerprint, peer: target, at }))
}

/// How `relay` is reached, and how to get into a session with `target` there.
async fn ask(
    shared: &Arc<Shared>,
    target: Fingerprint,
    relay: &Relay,
    carriage: Carriage,
) -> Result<(PathInfo, Pass), Failure> {
    let stream = to_relay(shared, &relay.ni).await;
    let stream = stream.map_err(|error| Failure::Relay(error.to_string()))?;
    let path = stream.path();
    let carried = (carriage, Vec::new());
    let request = Request::sign(&shared.identity, relay.ni.fingerprint, target, carried, utc(), &mut OsRng);
    match knock(stream, request).await {
        Outcome::Admitted(pass) => Ok((path, pass)),
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
