use hickory_proto::rr::Name;
use kith_identity::{Authority, Fingerprint};

use super::serial::Serial;
use crate::label::from_hex;

/// Why there can be no zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// The authority is an address; only names have a place in the DNS.
    #[error("{0} is an address, and only a name can have a DNS zone")]
    Address(Authority),
    /// The name does not fit below `<32 hex>.<32 hex>.0a.`, or is no host name.
    #[error("'{0}' is no name that a DNS zone can have")]
    Name(String),
}

/// The zone `0a.HOST`.
#[derive(Debug, Clone)]
pub struct Zone {
    pub(super) apex: Name,
    /// The apex as it is on the wire, in lower case.
    pub(super) wire: Vec<u8>,
    /// The first is the primary.
    pub(super) name_servers: Vec<Name>,
    pub(super) hostmaster: Name,
    pub(super) addresses: bool,
    pub(crate) serial: Serial,
}

/// Where a name lies, seen from the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Outside,
    Apex,
    /// One well-formed label below the apex.
    Half,
    Node(Fingerprint),
    Nowhere,
}

impl Zone {
    /// The zone of `authority`; its port does not matter, and its host is the name server until
    /// [`with_name_servers`](Zone::with_name_servers) names others.
    pub fn new(authority: &Authority) -> Result<Zone, ZoneError> {
        if !authority.is_name() {
            return Err(ZoneError::Address(authority.clone()));
        }
        let wrong = || ZoneError::Name(authority.host().to_owned());
        let host = name(authority.host())?;
        let apex = host.prepend_label("0a").map_err(|_| wrong())?;
        // The longest name of the zone must be a name too: 255 bytes in all (RFC 1035 §2.3.4).
        let label = "0".repeat(32);
        apex.prepend_label(&*label).and_then(|half| half.prepend_label(&*label)).map_err(|_| wrong())?;
        let hostmaster = host.prepend_label("hostmaster").map_err(|_| wrong())?;
        let (wire, serial) = (wire(&apex), Serial::default());
        Ok(Zone { apex, wire, name_servers: vec![host], hostmaster, addresses: false, serial })
    }

    /// The same zone, served by `hosts`, which the operator delegates it to: the primary first. No hosts change
    /// nothing.
    pub fn with_name_servers<T: AsRef<str>>(mut self, hosts: &[T]) -> Result<Zone, ZoneError> {
        if !hosts.is_empty() {
            self.name_servers = hosts.iter().map(|host| name(host.as_ref())).collect::<Result<_, _>>()?;
        }
        Ok(self)
    }

    /// The same zone, with the global unicast addresses of each set as A and AAAA records, or without.
    #[must_use]
    pub fn with_addresses(mut self, addresses: bool) -> Zone {
        self.addresses = addresses;
        self
    }

    pub(super) fn place(&self, asked: &Name) -> Place {
        if !self.apex.zone_of(asked) {
            return Place::Outside;
        }
        // Every label counts: the codec's own count leaves out a `*`, which would pass for the name above it.
        let below = asked.iter().count().saturating_sub(self.apex.iter().count());
        let mut labels = asked.iter();
        let mut half = || labels.next().and_then(from_hex);
        match below {
            0 => Place::Apex,
            1 => half().map_or(Place::Nowhere, |_| Place::Half),
            2 => match (half(), half()) {
                (Some(first), Some(second)) => Place::Node(join(first, second)),
                _ => Place::Nowhere,
            },
            _ => Place::Nowhere,
        }
    }
}

fn name(host: &str) -> Result<Name, ZoneError> {
    let mut name = Name::from_ascii(host).map_err(|_| ZoneError::Name(host.to_owned()))?;
    if name.is_root() {
        return Err(ZoneError::Name(host.to_owned()));
    }
    name.set_fqdn(true);
    Ok(name)
}

/// Labels after their lengths, then the root's (RFC 1035 §3.1).
fn wire(name: &Name) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.iter() {
        wire.push(label.len() as u8);
        wire.extend(label.to_ascii_lowercase());
    }
    wire.push(0);
    wire
}

pub(super) fn join(first: [u8; 16], second: [u8; 16]) -> Fingerprint {
    let mut whole = [0; 32];
    whole[..16].copy_from_slice(&first);
    whole[16..].copy_from_slice(&second);
    Fingerprint::from_bytes(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        let zone = Zone::new(&"example.org:8443".parse().unwrap()).unwrap();
        let mut name = Name::from_ascii(text).unwrap();
        name.set_fqdn(true);
        zone.place(&name)
    }

    #[test]
    fn names_have_their_place_whatever_their_case() {
        let (a, b) = ("935298155241920636698227595A9242", "2383f81e597a0ed88f651a0698036816");
        let zero = "k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY".parse().unwrap();
        assert_eq!(place(&format!("{a}.{b}.0a.example.org")), Place::Node(zero));
        assert_eq!(place(&format!("{a}.{b}.0A.EXAMPLE.oRg")), Place::Node(zero));
        assert_eq!(place("0a.example.org"), Place::Apex);
        assert_eq!(place(&format!("{b}.0a.example.org")), Place::Half);
        assert_eq!(place(&format!("{}.0a.example.org", &b[1..])), Place::Nowhere);
        assert_eq!(place(&format!("{}g.0a.example.org", &b[1..])), Place::Nowhere);
        assert_eq!(place(&format!("x.{a}.{b}.0a.example.org")), Place::Nowhere);
        assert_eq!(place(&format!("{a}.x.0a.example.org")), Place::Nowhere);
        for outside in ["example.org", "0b.example.org", "x0a.example.org", "0a.example.com", "."] {
            assert_eq!(place(outside), Place::Outside, "{outside}");
        }
    }

    #[test]
    fn only_names_that_fit_have_a_zone() {
        assert!(matches!(Zone::new(&"192.0.2.1".parse().unwrap()), Err(ZoneError::Address(_))));
        let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join(".");
        assert!(Zone::new(&long.parse().unwrap()).is_ok());
        if let Ok(too_long) = format!("{long}.dddddd").parse() {
            assert!(matches!(Zone::new(&too_long), Err(ZoneError::Name(_))));
        }
    }
}
