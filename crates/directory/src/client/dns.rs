//! The DNS as a source: a plain client that asks resolvers, over UDP and, for long answers, over TCP.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kith_identity::Ni;
use kith_identity::record::RecordSet;
use kith_sansio::system::OsRng;
use kith_sansio::{Rng, Span};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::{LookupError, Source, SourceName};
use crate::defaults::{DNS_TRIES, MAX_UDP_BYTES};
use crate::dns::ask::{Ask, Heard};
use crate::store::BoxFuture;

/// Where the system's resolvers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Most bytes of it that are read.
const MAX_RESOLV_CONF_BYTES: u64 = 64 * 1024;
/// Most resolvers that are asked.
const MAX_RESOLVERS: usize = 4;
/// The port of DNS.
const PORT: u16 = 53;

/// Asks the zone of an authority through resolvers.
#[derive(Debug, Clone)]
pub struct DnsSource {
    resolvers: Vec<SocketAddr>,
    patience: Span,
}

impl DnsSource {
    /// A source that asks `resolvers`, or the system's where there are none, and gives each question `patience`.
    #[must_use]
    pub fn new(resolvers: Vec<SocketAddr>, patience: Span) -> Self {
        DnsSource { resolvers, patience }
    }

    async fn find(&self, ni: Ni) -> Result<Option<RecordSet>, LookupError> {
        let not_served = || LookupError::NotServed(ni.clone());
        let name = ni.fqdn().map_err(|_| not_served())?;
        let id = u16::try_from(OsRng.below(1 << 16)).unwrap_or_default();
        let ask = Ask::new(id, &name).ok_or_else(not_served)?;
        let resolvers = if self.resolvers.is_empty() { system_resolvers() } else { self.resolvers.clone() };
        if resolvers.is_empty() {
            return Err(LookupError::NoResolver);
        }
        let mut failure = LookupError::NoResolverAnswered { waited: self.patience };
        for resolver in resolvers.iter().cycle().take(resolvers.len() * DNS_TRIES as usize) {
            match self.ask(*resolver, &ask).await {
                Ok(Heard::Texts(texts)) => {
                    return RecordSet::from_txt(&texts).map(Some).map_err(LookupError::Malformed);
                }
                Ok(Heard::Nothing) => return Ok(None),
                Ok(Heard::UseHttps) => return Err(LookupError::UseHttps),
                Ok(Heard::Failed(code)) => failure = LookupError::Resolver { resolver: *resolver, code },
                Ok(Heard::NotOurs | Heard::Truncated) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => failure = LookupError::Socket { resolver: *resolver, error },
            }
        }
        Err(failure)
    }

    async fn ask(&self, resolver: SocketAddr, ask: &Ask) -> io::Result<Heard> {
        let heard = tokio::time::timeout(self.patience.into(), ask_udp(resolver, ask)).await??;
        if heard != Heard::Truncated {
            return Ok(heard);
        }
        tokio::time::timeout(self.patience.into(), ask_tcp(resolver, ask)).await?
    }
}

impl Source for DnsSource {
    fn name(&self) -> SourceName {
        SourceName::Dns
    }

    fn serves(&self, ni: &Ni) -> bool {
        ni.authority.as_ref().is_some_and(kith_identity::Authority::is_name)
    }

    fn lookup(&self, ni: Ni) -> BoxFuture<'_, Result<Option<RecordSet>, LookupError>> {
        Box::pin(self.find(ni))
    }
}

/// A fresh socket for each question: its port is one more thing that a forger must guess.
async fn ask_udp(resolver: SocketAddr, ask: &Ask) -> io::Result<Heard> {
    let any = match resolver.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(&ask.to_bytes()).await?;
    // One byte more than is asked for, so that what is longer is seen to be cut off and not understood.
    let mut buffer = [0; MAX_UDP_BYTES as usize + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match ask.hear(&buffer[..length]) {
            Heard::NotOurs => {}
            heard => return Ok(heard),
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, ask: &Ask) -> io::Result<Heard> {
    let mut stream = TcpStream::connect(resolver).await?;
    let query = ask.to_bytes();
    let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), query.as_slice()].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    match ask.hear(&answer) {
        Heard::NotOurs | Heard::Truncated => Err(io::ErrorKind::InvalidData.into()),
        heard => Ok(heard),
    }
}

/// Read anew for each lookup: a computer that moves changes its resolvers.
fn system_resolvers() -> Vec<SocketAddr> {
    let mut text = Vec::new();
    let read = std::fs::File::open(RESOLV_CONF)
        .and_then(|file| file.take(MAX_RESOLV_CONF_BYTES).read_to_end(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let (config, _) = resolv_conf::Config::parse_with_errors(&text);
    let hosts = config.nameservers.into_iter().map(IpAddr::from);
    hosts.map(|host| SocketAddr::new(host, PORT)).take(MAX_RESOLVERS).collect()
}
