use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use kith_identity::Fingerprint;
use kith_identity::membership::{NodeId, VerifiedMember};

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
#[derive(Clone, Debug, Default)]
pub(crate) struct Nets(Vec<Net>);

impl Net {
    /// The network of an address; `None` for loopback, which nobody reaches from elsewhere.
    pub fn of(address: SocketAddr) -> Option<Net> {
        match address.ip().to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => ip.octets().first_chunk().copied().map(Net::V4),
            IpAddr::V6(ip) => ip.octets().first_chunk().copied().map(Net::V6),
        }
    }
}

impl Nets {
    /// Counts one more node, unless its network has `most` already.
    pub(crate) fn admit(&mut self, contact: &Contact, most: usize) -> bool {
        let Some(net) = Net::of(contact.address) else { return true };
        let has_place = self.0.iter().filter(|known| **known == net).count() < most;
        if has_place {
            self.0.push(net);
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
        }
    }

    /// The network that the caps count it in.
    pub fn net(&self) -> Option<Net> {
        Net::of(self.address)
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
        let net = |text: &str| Net::of(text.parse().unwrap());
        assert_eq!(net("192.0.2.1:1"), net("192.0.2.200:9"));
        assert_eq!(net("192.0.2.1:1"), net("[::ffff:192.0.2.7]:1"));
        assert_ne!(net("192.0.2.1:1"), net("192.0.3.1:1"));
        assert_eq!(net("[2001:db8:1:2::1]:1"), net("[2001:db8:1:ffff::9]:1"));
        assert_ne!(net("[2001:db8:1::1]:1"), net("[2001:db8:2::1]:1"));
        assert_eq!((net("127.0.0.1:1"), net("[::1]:1")), (None, None));
    }
}
