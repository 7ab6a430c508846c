use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use kith_identity::Fingerprint;
use kith_identity::membership::{NodeId, VerifiedMember};
use kith_sansio::Timestamp;

use crate::nearest::Placed;

/// A member and where it is reached. Only a [`Gate`](crate::Gate) makes one out of what a peer sent, so that nobody
/// without a valid certificate enters a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The place that is imposed on it.
    pub id: NodeId,
    /// Its key.
    pub fingerprint: Fingerprint,
    /// Where it says that it listens; a hint for the dialer, and what the caps count.
    pub address: SocketAddr,
    /// Its certificate, to be shown to others.
    pub certificate: Bytes,
    /// When that ends: from then on it is no member.
    pub not_after: Timestamp,
}

/// From where an address is reached. Whoever is in a private network has its neighbours there, so many of them there
/// are no sign of one party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// From the same machine.
    Loopback,
    /// From the same link.
    Link,
    /// From the same site: the private addresses of IPv4, the unique local ones of IPv6.
    Site,
    /// From the same provider or overlay: the shared addresses, 100.64.0.0/10.
    Shared,
    /// From everywhere.
    Internet,
}

/// The part of the internet that one party easily has many addresses of: an IPv4 /24 or an IPv6 /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Net {
    /// The first three bytes of an IPv4 address.
    V4([u8; 3]),
    /// The first six bytes of an IPv6 address.
    V6([u8; 6]),
}

/// Counts nodes by their network.
#[derive(Clone, Debug)]
pub(crate) struct Nets {
    scope: Scope,
    nets: Vec<Net>,
}

impl Scope {
    /// From where an address is reached; `None` for one that no single node has.
    pub fn of(address: SocketAddr) -> Option<Scope> {
        let ip = address.ip().to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return None;
        }
        Some(match ip {
            ip if ip.is_loopback() => Scope::Loopback,
            IpAddr::V4(ip) if ip.is_broadcast() => return None,
            IpAddr::V4(ip) if ip.is_link_local() => Scope::Link,
            IpAddr::V4(ip) if ip.is_private() => Scope::Site,
            IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64 => Scope::Shared,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Scope::Link,
            IpAddr::V6(ip) if ip.is_unique_local() => Scope::Site,
            IpAddr::V4(_) | IpAddr::V6(_) => Scope::Internet,
        })
    }

    /// Whether whoever is here may reach this address.
    pub fn reaches(self, address: SocketAddr) -> bool {
        match Scope::of(address) {
            None => false,
            Some(Scope::Loopback) => self == Scope::Loopback,
            Some(_) => true,
        }
    }
}

impl Net {
    /// The network in which an address counts for somebody in this scope; `None` in a private network of the same kind.
    pub fn of(address: SocketAddr, scope: Scope) -> Option<Net> {
        if scope != Scope::Internet && Scope::of(address) == Some(scope) {
            return None;
        }
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.octets().first_chunk().copied().map(Net::V4),
            IpAddr::V6(ip) => ip.octets().first_chunk().copied().map(Net::V6),
        }
    }
}

impl Nets {
    /// As they count for somebody in this scope.
    pub(crate) fn new(scope: Scope) -> Nets {
        Nets { scope, nets: Vec::new() }
    }

    /// Whether a network has a place for one more at this address, of `most`.
    pub(crate) fn has_place(&self, address: SocketAddr, most: usize) -> bool {
        let net = Net::of(address, self.scope);
        net.is_none_or(|net| self.nets.iter().filter(|known| **known == net).count() < most)
    }

    /// Counts a node.
    pub(crate) fn add(&mut self, address: SocketAddr) {
        self.nets.extend(Net::of(address, self.scope));
    }

    /// Counts one more node, unless its network has `most` already.
    pub(crate) fn admit(&mut self, contact: &Contact, most: usize) -> bool {
        let has_place = self.has_place(contact.address, most);
        if has_place {
            self.add(contact.address);
        }
        has_place
    }
}

impl Contact {
    /// The member that a certificate proves, at an address that it says itself or that was told of it.
    pub fn of(member: &VerifiedMember, address: SocketAddr) -> Contact {
        Contact {
            id: member.id(),
            fingerprint: member.fingerprint(),
            address,
            certificate: Bytes::copy_from_slice(&member.as_member().to_bytes()),
            not_after: member.not_after(),
        }
    }

    /// From where it looks at the addresses of others. An address that nobody can have is looked at from everywhere.
    pub fn scope(&self) -> Scope {
        Scope::of(self.address).unwrap_or(Scope::Internet)
    }
}

impl Placed for Contact {
    fn place(&self) -> NodeId {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_by_their_network() {
        let net = |text: &str| Net::of(text.parse().unwrap(), Scope::Internet);
        assert_eq!(net("192.0.2.1:1"), net("192.0.2.200:9"));
        assert_eq!(net("192.0.2.1:1"), net("[::ffff:192.0.2.7]:1"));
        assert_ne!(net("192.0.2.1:1"), net("192.0.3.1:1"));
        assert_eq!(net("[2001:db8:1:2::1]:1"), net("[2001:db8:1:ffff::9]:1"));
        assert_ne!(net("[2001:db8:1::1]:1"), net("[2001:db8:2::1]:1"));
        assert_eq!(net("192.168.1.1:1"), net("192.168.1.9:1"));
        assert!(net("127.0.0.1:1").is_some() && net("192.168.1.1:1").is_some(), "told from elsewhere");
    }

    #[test]
    fn a_private_network_counts_only_for_those_outside() {
        let kinds = [
            (Scope::Loopback, ["127.0.0.1:1", "[::1]:1"]),
            (Scope::Link, ["169.254.3.4:1", "[fe80::1]:1"]),
            (Scope::Site, ["192.168.1.1:1", "[fd00::1]:1"]),
            (Scope::Shared, ["100.64.0.1:1", "100.127.255.255:1"]),
            (Scope::Internet, ["100.128.0.1:1", "[2001:db8::1]:1"]),
        ];
        for (scope, addresses) in kinds {
            for address in addresses.map(|text| text.parse::<SocketAddr>().unwrap()) {
                assert_eq!(Scope::of(address), Some(scope), "{address}");
                for (other, _) in kinds {
                    let is_free = other == scope && scope != Scope::Internet;
                    assert_eq!(Net::of(address, other).is_none(), is_free, "{address} for {other:?}");
                }
            }
        }
    }

    #[test]
    fn nobody_is_reached_at_an_address_of_all_or_of_oneself() {
        for text in ["0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1", "255.255.255.255:1"] {
            assert!(!Scope::Loopback.reaches(text.parse().unwrap()), "{text}");
        }
        for text in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            let address = text.parse().unwrap();
            assert!(Scope::Loopback.reaches(address) && !Scope::Internet.reaches(address), "{text}");
        }
    }
}
