//! The port of one round: listened at, and dialled from, so that NATs show one address for both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use kith_identity::{Address, Transport};
use kith_sansio::Span;
use kith_sansio::system::{OsRng, time};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::direct::limits::{DIAL_AT, MAX_CANDIDATES};
use crate::direct::{Kind, Probe};
use crate::relay::Token;
use crate::shell::bind::tune_tcp;
use crate::shell::endpoint::Shared;
use crate::shell::{interfaces, until, within};
use crate::{address, advertised};

/// How long a relay may take to say where it sees the port.
const OBSERVE_PATIENCE: Span = Span::millis(1_500);
/// Connections that are taken in a round; one of them is the peer's.
const MAX_TAKEN: usize = 8;

/// A port that is bound, and where it may be seen.
pub(super) struct Port {
    own: Vec<SocketAddr>,
    listeners: Vec<TcpListener>,
    pub(super) addresses: Vec<SocketAddr>,
    /// Keeps what NATs have noted of the port.
    _seen: Option<TcpStream>,
}

impl Port {
    /// A port of its own, as the relay at `relay` sees it where that answers.
    pub(super) async fn open(shared: &Shared, relay: SocketAddr) -> io::Result<Port> {
        let mut port = Port::bind(&ips(&shared.local))?;
        let (seen, stream) = match within(OBSERVE_PATIENCE, port.observe(relay)).await {
            Some(Ok((seen, stream))) => (Some(seen), Some(stream)),
            Some(Err(error)) => {
                tracing::debug!(%relay, %error, "a relay does not say where it sees a port");
                (None, None)
            }
            None => (None, None),
        };
        let own: Vec<_> = port.own.iter().map(|own| Address::new(Transport::Tcp, *own)).collect();
        let local = advertised(&own, &interfaces());
        for one in seen.into_iter().chain(local.iter().map(|one| one.socket)) {
            if port.addresses.len() < MAX_CANDIDATES && !port.addresses.contains(&one) {
                port.addresses.push(one);
            }
        }
        port._seen = stream;
        Ok(port)
    }

    fn bind(ips: &[IpAddr]) -> io::Result<Port> {
        let (mut own, mut listeners) = (Vec::new(), Vec::new());
        let mut number = 0;
        for ip in ips {
            // Not every system has every family, and the port of one may be taken in the other.
            let Ok(listener) = bound(SocketAddr::new(*ip, number)).and_then(listening) else { continue };
            let at = listener.local_addr()?;
            number = at.port();
            own.push(at);
            listeners.push(listener);
        }
        if own.is_empty() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        Ok(Port { own, listeners, addresses: Vec::new(), _seen: None })
    }

    /// Where the relay sees the port, and the connection over which it said so.
    async fn observe(&self, relay: SocketAddr) -> io::Result<(SocketAddr, TcpStream)> {
        let mut stream = from(&self.own, relay)?.connect(relay).await?;
        let token = Token::generate(&mut OsRng);
        stream.write_all(&Probe { token, kind: Kind::Observe }.to_bytes()).await?;
        let mut answer = [0; Probe::BYTES];
        stream.read_exact(&mut answer).await?;
        match Probe::from_bytes(&answer) {
            Some(Probe { token: same, kind: Kind::Observed(seen) }) if same == token => Ok((seen, stream)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Dials `to` from this port and takes what comes to it: each connection goes to `made`. Ends with what it returns.
    pub(super) fn punch(self, to: Vec<SocketAddr>, made: &mpsc::Sender<TcpStream>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for at in to {
            tasks.spawn(dial(self.own.clone(), at, made.clone()));
        }
        let Port { listeners, _seen: seen, .. } = self;
        let seen = Arc::new(seen);
        for listener in listeners {
            let (made, seen) = (made.clone(), Arc::clone(&seen));
            tasks.spawn(async move {
                take(listener, made).await;
                drop(seen);
            });
        }
        tasks
    }
}

/// Dials again where the connection is refused, as some NATs do until they are opened from inside. What is lost the
/// system repeats.
async fn dial(own: Vec<SocketAddr>, at: SocketAddr, made: mpsc::Sender<TcpStream>) {
    let began = time();
    for after in DIAL_AT {
        until(began + after).await;
        let Ok(socket) = from(&own, at) else { return };
        match socket.connect(at).await {
            Ok(stream) => {
                if tune_tcp(&stream).is_ok() {
                    // A round that is over takes none.
                    let _ = made.send(stream).await;
                }
                return;
            }
            Err(error) => tracing::debug!(%at, %error, "nobody was met there"),
        }
    }
}

async fn take(listener: TcpListener, made: mpsc::Sender<TcpStream>) {
    for _ in 0..MAX_TAKEN {
        match listener.accept().await {
            Ok((stream, _)) if tune_tcp(&stream).is_ok() => {
                if made.send(stream).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
    std::future::pending::<()>().await;
}

/// Where a node with these listeners binds ports.
fn ips(local: &[Address]) -> Vec<IpAddr> {
    if !address::loopback_only(local) {
        return vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    }
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in local.iter().map(|one| one.socket.ip()) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

fn bound(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Several sockets of one port, one of which listens.
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

fn listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(i32::try_from(MAX_TAKEN).unwrap_or(1))?;
    TcpListener::from_std(socket.into())
}

/// Another socket of the port, to dial `to` from.
fn from(own: &[SocketAddr], to: SocketAddr) -> io::Result<TcpSocket> {
    let own = own.iter().find(|own| own.is_ipv4() == to.is_ipv4()).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(TcpSocket::from_std_stream(bound(*own)?.into()))
}
