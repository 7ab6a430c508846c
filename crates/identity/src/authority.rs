use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::text::{decimal, quote, serde_by_text};

/// Longest host name in characters (RFC 1035 §2.3.4, without the final dot).
const MAX_HOST_CHARS: usize = 253;
/// Longest label of a host name in characters.
const MAX_LABEL_CHARS: usize = 63;

/// Why a text is no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Nothing at all.
    #[error("the authority is empty")]
    Empty,
    /// Longer than any host name with a port.
    #[error("the authority has {0} characters, more than any host name")]
    TooLong(usize),
    /// A user before `@`.
    #[error("an authority names a host, not a user: '{0}'")]
    UserInfo(String),
    /// Neither a host name nor an IP address.
    #[error("'{0}' is neither a host name nor an IP address")]
    Host(String),
    /// The port is no number from 1 to 65535 without sign or leading zero.
    #[error("'{0}' is not a port from 1 to 65535")]
    Port(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Host {
    Name(String),
    Address(IpAddr, String),
}

/// The zone whose directory a node announces to: a host name (kept in lower case) or an IP address, and a port
/// where it is not the usual one. IPv6 addresses stand in brackets in its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    host: Host,
    port: Option<u16>,
}

impl Authority {
    /// The host: a name in lower case, or an address without brackets.
    pub fn host(&self) -> &str {
        match &self.host {
            Host::Name(name) => name,
            Host::Address(_, text) => text,
        }
    }

    /// The address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Name(_) => None,
            Host::Address(address, _) => Some(*address),
        }
    }

    /// The port, where one is written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether the host is a name; only names have a place in the DNS.
    pub fn is_name(&self) -> bool {
        matches!(self.host, Host::Name(_))
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(_), text) => write!(f, "[{text}]")?,
            _ => f.write_str(self.host())?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        if text.is_empty() {
            return Err(AuthorityError::Empty);
        }
        if text.len() > MAX_HOST_CHARS + 8 {
            return Err(AuthorityError::TooLong(text.len()));
        }
        if text.contains('@') {
            return Err(AuthorityError::UserInfo(quote(text)));
        }
        let (host, port) = split_port(text)?;
        let port = port.map(parse_port).transpose()?;
        Ok(Authority { host: parse_host(host)?, port })
    }
}

serde_by_text!(Authority);

fn split_port(text: &str) -> Result<(&str, Option<&str>), AuthorityError> {
    if !text.starts_with('[') {
        return Ok(text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))));
    }
    let end = text.find(']').ok_or_else(|| AuthorityError::Host(quote(text)))?;
    let (host, rest) = text.split_at(end + 1);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(AuthorityError::Host(quote(text))),
    }
}

pub(crate) fn parse_port(text: &str) -> Result<u16, AuthorityError> {
    decimal(text, 65_535)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| AuthorityError::Port(quote(text)))
}

fn parse_host(text: &str) -> Result<Host, AuthorityError> {
    let wrong = || AuthorityError::Host(quote(text));
    if let Some(inner) = text.strip_prefix('[') {
        let address: Ipv6Addr = inner.trim_end_matches(']').parse().map_err(|_| wrong())?;
        return Ok(Host::Address(address.into(), address.to_string()));
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into(), address.to_string()));
    }
    let name = text.to_ascii_lowercase();
    // A last label of digits alone would be read as an address by some resolvers and as a name by others.
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let sound = name.len() <= MAX_HOST_CHARS
        && name.split('.').all(is_label)
        && !name.rsplit('.').next().is_some_and(numeric);
    if sound { Ok(Host::Name(name)) } else { Err(wrong()) }
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_CHARS).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}
