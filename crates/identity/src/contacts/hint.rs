use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::text::{quote, serde_by_text};
use crate::{Address, Authority, AuthorityError, Transport};

/// Why a text is no hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HintError {
    /// Neither `quic://` nor `tcp://` at the start.
    #[error("'{0}' does not start with quic:// or tcp://")]
    Scheme(String),
    /// What follows is no `host:port`.
    #[error(transparent)]
    Host(#[from] AuthorityError),
    /// There is no port.
    #[error("'{0}' has no port")]
    NoPort(String),
}

/// Where a contact can perhaps be reached, as its person was told: `quic://host:port` or `tcp://host:port`, the host
/// a name or an address (IPv6 in brackets). Nothing vouches for it; the handshake does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hint {
    transport: Transport,
    place: Authority,
    port: u16,
}

impl Hint {
    /// How.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The host: a name in lower case, or an address without brackets.
    pub fn host(&self) -> &str {
        self.place.host()
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is one and no name has to be looked up.
    pub fn address(&self) -> Option<Address> {
        let ip = self.place.ip()?;
        Some(Address::new(self.transport, SocketAddr::new(ip, self.port)))
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.transport, self.place)
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hint {
    type Err = HintError;

    fn from_str(text: &str) -> Result<Self, HintError> {
        let scheme = || HintError::Scheme(quote(text));
        let (transport, place) = text.split_once("://").ok_or_else(scheme)?;
        let transport = match transport {
            "quic" => Transport::Quic,
            "tcp" => Transport::Tcp,
            _ => return Err(scheme()),
        };
        let place: Authority = place.parse()?;
        let port = place.port().ok_or_else(|| HintError::NoPort(quote(text)))?;
        Ok(Hint { transport, place, port })
    }
}

serde_by_text!(Hint);
