use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::text::{quote, serde_by_text};

/// Longest text of an address in characters that is looked at.
const MAX_ADDRESS_CHARS: usize = 80;

/// Services that clouds offer to their machines under a fixed address and that hand out credentials.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No `scheme://` at the start.
    #[error("'{0}' does not start with tcp://, quic:// or dtls://")]
    Form(String),
    /// A scheme that is none of ours.
    #[error("'{0}' is not a transport; there are tcp, quic and dtls")]
    Transport(String),
    /// What follows is no `ip:port`, or not in its one canonical form.
    #[error("'{0}' is not ip:port in canonical form (IPv6 in brackets, no scope)")]
    Socket(String),
}

/// How packets are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TLS 1.3 over TCP.
    Tcp,
    /// QUIC over UDP.
    Quic,
    /// DTLS 1.3 over UDP.
    Dtls,
}

impl Transport {
    /// The scheme in front of `://`.
    pub const fn scheme(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Quic => "quic",
            Transport::Dtls => "dtls",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.scheme())
    }
}

impl FromStr for Transport {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        [Transport::Tcp, Transport::Quic, Transport::Dtls]
            .into_iter()
            .find(|transport| transport.scheme() == text)
            .ok_or_else(|| AddressError::Transport(quote(text)))
    }
}

/// Where a node listens: `tcp://ip:port`, `quic://ip:port` or `dtls://ip:port`, IPv6 in brackets. One text per
/// address: other ways to write the same are refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// How.
    pub transport: Transport,
    /// Where; without scope or flow label.
    pub socket: SocketAddr,
}

/// How far an address reaches, which decides whether a signed set may make us dial it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Anywhere.
    Global,
    /// A private network: dialled only where it is on-link, or given as a hint.
    Private,
    /// The link only.
    LinkLocal,
    /// This machine: dialled only where this node itself announces loopback.
    Loopback,
    /// Never dialled: multicast, broadcast, unspecified, reserved, metadata services, port 0.
    Never,
}

impl Address {
    /// The address of `socket` over `transport`.
    pub fn new(transport: Transport, socket: SocketAddr) -> Address {
        let socket = SocketAddr::new(socket.ip(), socket.port());
        Address { transport, socket }
    }

    /// How far it reaches. An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) counts as itself.
    pub fn reach(&self) -> Reach {
        if self.socket.port() == 0 {
            return Reach::Never;
        }
        match self.socket.ip() {
            IpAddr::V4(ip) => reach_v4(ip),
            IpAddr::V6(ip) => reach_v6(ip),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = SocketAddr::new(self.socket.ip(), self.socket.port());
        write!(f, "{}://{socket}", self.transport)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| AddressError::Form(quote(text)))?;
        let transport = scheme.parse()?;
        let wrong = || AddressError::Socket(quote(rest));
        if text.len() > MAX_ADDRESS_CHARS {
            return Err(wrong());
        }
        let address = Address::new(transport, rest.parse().map_err(|_| wrong())?);
        if address.to_string() == text { Ok(address) } else { Err(wrong()) }
    }
}

serde_by_text!(Address);

fn reach_v4(ip: Ipv4Addr) -> Reach {
    match ip.octets() {
        [169, 254, 169, 254] | [0, ..] | [224..=255, ..] => Reach::Never,
        [127, ..] => Reach::Loopback,
        [169, 254, ..] => Reach::LinkLocal,
        // Private (RFC 1918), shared by carriers (RFC 6598), protocol assignments (RFC 6890), benchmarks (RFC 2544).
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Reach::Private,
        [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => Reach::Private,
        _ => Reach::Global,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    if let Some(mapped) = embedded_v4(ip) {
        return reach_v4(mapped);
    }
    if METADATA_V6.contains(&ip) {
        return Reach::Never;
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Loopback,
        // Unspecified and the long dead IPv4-compatible addresses.
        [0, 0, 0, 0, 0, 0, _, _] => Reach::Never,
        [0xff00..=0xffff, ..] => Reach::Never,
        [0xfe80..=0xfebf, ..] => Reach::LinkLocal,
        // Discard-only (RFC 6666).
        [0x100, 0, 0, 0, ..] => Reach::Never,
        // Unique local (RFC 4193), the site-local range before it, and local translation (RFC 8215).
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Reach::Private,
        _ => Reach::Global,
    }
}

fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}
