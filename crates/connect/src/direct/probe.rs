//! The datagrams that go between two peers beside QUIC, and from a node to a relay (there over TCP as well): all of one
//! length, so that none is worth sending in another's name.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use kith_sansio::wire::{Reader, Writer};

use crate::relay::Token;

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 0: are you there?
    Ask,
    /// 1: I am, and I have heard you.
    Answer,
    /// 2, to a relay: where do you see me?
    Observe,
    /// 3, from a relay: there.
    Observed(SocketAddr),
}

/// One datagram: `"kith-pn1" ‖ token ‖ u8 kind ‖ ip ‖ u16 port`, 43 bytes; IPv4 addresses as IPv6 ones, zeros where the
/// kind has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The receiver's, by which it knows that the sender has read its candidates; for relays the sender's choice.
    pub token: Token,
    /// What it says.
    pub kind: Kind,
}

impl Probe {
    /// What every one begins with.
    pub const PREAMBLE: [u8; 8] = *b"kith-pn1";
    /// Length in bytes.
    pub const BYTES: usize = Probe::PREAMBLE.len() + Token::BYTES + 1 + 16 + 2;

    /// The datagram.
    pub fn to_bytes(&self) -> [u8; Probe::BYTES] {
        let (kind, address) = match self.kind {
            Kind::Ask => (0, None),
            Kind::Answer => (1, None),
            Kind::Observe => (2, None),
            Kind::Observed(address) => (3, Some(address)),
        };
        let ip = address.map_or(Ipv6Addr::UNSPECIFIED, |address| match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        });
        let mut to = Writer::new();
        to.bytes(&Probe::PREAMBLE).bytes(self.token.as_bytes()).u8(kind).bytes(&ip.octets());
        to.u16(address.map_or(0, |address| address.port()));
        let mut bytes = [0; Probe::BYTES];
        for (to, from) in bytes.iter_mut().zip(to.finish()) {
            *to = from;
        }
        bytes
    }

    /// Reads a datagram; `None` where it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Probe> {
        if bytes.len() != Probe::BYTES {
            return None;
        }
        let rest = bytes.strip_prefix(&Probe::PREAMBLE)?;
        let mut from = Reader::new(rest);
        let token = Token::from_bytes(from.array().ok()?);
        let kind = from.u8().ok()?;
        let ip = Ipv6Addr::from(from.array::<16>().ok()?);
        let port = from.u16().ok()?;
        let kind = match (kind, ip.is_unspecified() && port == 0) {
            (0, true) => Kind::Ask,
            (1, true) => Kind::Answer,
            (2, true) => Kind::Observe,
            (3, false) => Kind::Observed(SocketAddr::new(ip.to_canonical(), port)),
            _ => return None,
        };
        Some(Probe { token, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_has_one_form() {
        let token = Token::from_bytes(*b"0123456789abcdef");
        let seen = "192.0.2.7:4660".parse().unwrap();
        let bytes = Probe { token, kind: Kind::Observed(seen) }.to_bytes();
        let mut plain = b"kith-pn10123456789abcdef\x03".to_vec();
        plain.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7, 0x12, 0x34]);
        assert_eq!(bytes[..], plain);
        let wide = Kind::Observed("[2001:db8::1]:1".parse().unwrap());
        for kind in [Kind::Ask, Kind::Answer, Kind::Observe, Kind::Observed(seen), wide] {
            let probe = Probe { token, kind };
            assert_eq!(Probe::from_bytes(&probe.to_bytes()), Some(probe));
        }
    }

    #[test]
    fn other_datagrams_are_no_probes() {
        let good = Probe { token: Token::from_bytes([7; 16]), kind: Kind::Ask }.to_bytes();
        assert_eq!(Probe::from_bytes(&good[1..]), None);
        assert_eq!(Probe::from_bytes(&[&good[..], &[0]].concat()), None);
        for (at, value) in [(0, b'K'), (24, 3), (24, 4), (25, 1), (42, 1)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Probe::from_bytes(&bad), None, "{at}");
        }
    }
}
