use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use crate::network::{family_bits, masked};
use crate::{BadPacket, Cidr, Header};

/// Most networks of one peer.
pub const MAX_NETWORKS_PER_PEER: usize = 256;

/// Which peer has which networks: where packets go, and whose they may be.
#[derive(Clone, Debug)]
pub struct Switch<P> {
    v4: Family<P>,
    v6: Family<P>,
}

/// The networks of one family, by the bits of their prefix.
type Family<P> = BTreeMap<u8, HashMap<u128, P>>;

/// Why a peer cannot have a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TakenError<P> {
    /// Another peer has it.
    #[error("{network} is another peer's")]
    Another {
        /// The network.
        network: Cidr,
        /// Whose it is.
        of: P,
    },
    /// More than [`MAX_NETWORKS_PER_PEER`].
    #[error("more than {MAX_NETWORKS_PER_PEER} networks for one peer")]
    TooMany,
}

/// Why a packet goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// It is no IP packet.
    #[error("no IP packet: {0}")]
    Malformed(#[from] BadPacket),
    /// No peer has its destination.
    #[error("no peer has {0}")]
    NoPeer(IpAddr),
    /// Its source is not an address of the peer that sent it.
    #[error("{0} is not an address of the peer that sent it")]
    NotItsSource(IpAddr),
}

impl<P> Default for Switch<P> {
    fn default() -> Self {
        Switch { v4: BTreeMap::new(), v6: BTreeMap::new() }
    }
}

impl<P: Copy + Eq + Hash> Switch<P> {
    /// Gives `peer` the networks `networks` in the place of those that it had; all of them, or none where one is
    /// another's. Within a network of one peer, another may have a smaller one.
    pub fn set(&mut self, peer: P, networks: &[Cidr]) -> Result<(), TakenError<P>> {
        if networks.len() > MAX_NETWORKS_PER_PEER {
            return Err(TakenError::TooMany);
        }
        for network in networks {
            let bits = network.prefix_bits();
            let of =
                self.family(network.ip()).get(&bits).and_then(|all| all.get(&masked(network.ip(), bits)));
            if let Some(of) = of.filter(|of| **of != peer) {
                return Err(TakenError::Another { network: network.network(), of: *of });
            }
        }
        self.remove(peer);
        for network in networks {
            let bits = network.prefix_bits();
            let family = if network.ip().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
            family.entry(bits).or_default().insert(masked(network.ip(), bits), peer);
        }
        Ok(())
    }

    /// Takes a peer's networks away.
    pub fn remove(&mut self, peer: P) {
        for family in [&mut self.v4, &mut self.v6] {
            family.retain(|_, networks| {
                networks.retain(|_, of| *of != peer);
                !networks.is_empty()
            });
        }
    }

    /// Whose `ip` is: the peer's with the longest prefix of it.
    pub fn peer_of(&self, ip: IpAddr) -> Option<P> {
        let mut longest_first = self.family(ip).iter().rev();
        longest_first.find_map(|(bits, networks)| networks.get(&masked(ip, *bits)).copied())
    }

    /// To whom a packet of this machine goes.
    pub fn outbound(&self, packet: &[u8]) -> Result<(P, Header), Dropped> {
        let header = Header::read(packet)?;
        let peer = self.peer_of(header.destination).ok_or(Dropped::NoPeer(header.destination))?;
        Ok((peer, header))
    }

    /// Lets a packet in that `peer` sent, where its source is that peer's.
    pub fn inbound(&self, peer: P, packet: &[u8]) -> Result<Header, Dropped> {
        let header = Header::read(packet)?;
        if self.peer_of(header.source) != Some(peer) {
            return Err(Dropped::NotItsSource(header.source));
        }
        Ok(header)
    }

    fn family(&self, ip: IpAddr) -> &Family<P> {
        if family_bits(ip) == 32 { &self.v4 } else { &self.v6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::samples::packet;
    use proptest::prelude::*;

    fn networks(all: &[&str]) -> Vec<Cidr> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    fn switch() -> Switch<char> {
        let mut switch = Switch::default();
        switch.set('a', &networks(&["10.7.0.0/24", "fd07::/64", "0.0.0.0/0"])).unwrap();
        switch.set('b', &networks(&["10.7.0.9", "fd07::9", "192.168.5.0/24"])).unwrap();
        switch
    }

    #[test]
    fn the_longest_prefix_decides_where_a_packet_goes() {
        let switch = switch();
        for (to, peer) in [("10.7.0.2", 'a'), ("10.7.0.9", 'b'), ("192.168.5.7", 'b'), ("1.1.1.1", 'a')] {
            assert_eq!(switch.outbound(&packet("10.7.0.1", to, 60)).unwrap().0, peer, "{to}");
        }
        assert_eq!(switch.outbound(&packet("fd07::1", "fd07::9", 60)).unwrap().0, 'b');
        let nowhere = switch.outbound(&packet("fd07::1", "fd08::9", 60));
        assert_eq!(nowhere, Err(Dropped::NoPeer("fd08::9".parse().unwrap())));
    }

    #[test]
    fn no_peer_speaks_in_the_name_of_another() {
        let switch = switch();
        for (source, of) in [("10.7.0.2", 'a'), ("10.7.0.9", 'b'), ("192.168.5.7", 'b')] {
            let sent = packet(source, "10.7.0.1", 60);
            let other = if of == 'a' { 'b' } else { 'a' };
            assert!(switch.inbound(of, &sent).is_ok(), "{source}");
            let refused = switch.inbound(other, &sent);
            assert_eq!(refused, Err(Dropped::NotItsSource(source.parse().unwrap())));
        }
        // Not even where nobody has the address.
        assert!(switch.inbound('a', &packet("fd08::1", "fd07::1", 60)).is_err());
    }

    #[test]
    fn a_network_is_one_peers_and_a_refused_change_changes_nothing() {
        let mut switch = switch();
        let refused = switch.set('b', &networks(&["10.8.0.0/16", "10.7.0.77/24"]));
        assert_eq!(refused, Err(TakenError::Another { network: "10.7.0.0/24".parse().unwrap(), of: 'a' }));
        assert_eq!(switch.peer_of("10.7.0.9".parse().unwrap()), Some('b'));
        assert_eq!(switch.peer_of("10.8.0.9".parse().unwrap()), Some('a'));
        switch.remove('a');
        assert_eq!(switch.peer_of("10.7.0.2".parse().unwrap()), None);
        switch.set('b', &networks(&["10.7.0.77/24"])).unwrap();
        assert_eq!(switch.peer_of("10.7.0.2".parse().unwrap()), Some('b'));
        assert_eq!(switch.peer_of("192.168.5.7".parse().unwrap()), None);
        let many: Vec<_> = (0..=256_u32).map(|n| Cidr::host(IpAddr::V4(n.into()))).collect();
        assert_eq!(switch.set('c', &many), Err(TakenError::TooMany));
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_looking_at_every_network(
            entries in prop::collection::vec((0_u32..64, 20_u8..=32, 0_u8..4), 0..20),
            asked in 0_u32..64,
        ) {
            let mut switch = Switch::default();
            let mut held: Vec<(Cidr, u8)> = Vec::new();
            for (ip, bits, peer) in entries {
                let network = Cidr::new(IpAddr::V4((ip << 4).into()), bits).unwrap().network();
                let mut of_peer: Vec<_> = held.iter().filter(|(_, of)| *of == peer).map(|(one, _)| *one).collect();
                of_peer.push(network);
                if switch.set(peer, &of_peer).is_ok() {
                    held.push((network, peer));
                }
            }
            let ip = IpAddr::V4((asked << 4).into());
            let longest = held.iter().filter(|(network, _)| network.contains(ip)).max_by_key(|(network, _)| network.prefix_bits());
            prop_assert_eq!(switch.peer_of(ip), longest.map(|(_, peer)| *peer));
        }
    }
}
