//! Which addresses are dialled, and which are announced. Pure.

use std::net::{IpAddr, SocketAddr};

use kith_identity::record::MAX_ADDRESSES;
use kith_identity::{Address, Reach};

/// An address of this machine and the length of its network prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The address.
    pub ip: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix_bits: u8,
}

/// Where an address to dial comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A person of this node gave it.
    Hint,
    /// The target's record set says so.
    Discovered,
}

/// What this node knows of its own place in the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vantage {
    /// Every listener of this node is on loopback.
    pub loopback_only: bool,
    /// The addresses of this machine.
    pub interfaces: Vec<Interface>,
}

impl Interface {
    /// Whether `ip` is in this interface's network.
    pub fn holds(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let bits = u32::from(self.prefix_bits).min(32);
                (u32::from(own) ^ u32::from(other)).leading_zeros() >= bits
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let bits = u32::from(self.prefix_bits).min(128);
                (u128::from(own) ^ u128::from(other)).leading_zeros() >= bits
            }
            _ => false,
        }
    }
}

/// Whether `address` may be dialled from `vantage`.
///
/// A record set can aim its readers at a victim, so addresses that no peer can have are never dialled, loopback
/// only from a node that listens on loopback only, and private addresses only where they are on a network of
/// this machine or a person gave them.
pub fn may_dial(address: &Address, origin: Origin, vantage: &Vantage) -> bool {
    let ip = address.socket.ip().to_canonical();
    match address.reach() {
        Reach::Global => true,
        Reach::Private => origin == Origin::Hint || vantage.interfaces.iter().any(|own| own.holds(ip)),
        Reach::Loopback => vantage.loopback_only,
        Reach::LinkLocal | Reach::Never => false,
    }
}

/// Whether all of `listeners` are on loopback, and there is one.
pub fn loopback_only(listeners: &[Address]) -> bool {
    !listeners.is_empty() && listeners.iter().all(|one| one.socket.ip().to_canonical().is_loopback())
}

/// The addresses worth announcing for `listeners` on a machine with `interfaces`.
///
/// An unspecified listener stands for every address of the machine of its family (of both for `[::]`, which
/// listens on both). Loopback is announced only where every listener is on loopback; addresses that no peer can
/// dial are left out. Global addresses come first, each address once; where there are more than a record set holds, as
/// on a machine with many virtual networks, whole IP addresses are left out from the end.
pub fn advertised(listeners: &[Address], interfaces: &[Interface]) -> Vec<Address> {
    let only_loopback = loopback_only(listeners);
    let mut found: Vec<Address> = Vec::new();
    for listener in listeners {
        let ips = match listener.socket.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => own_addresses(interfaces, false),
            IpAddr::V6(ip) if ip.is_unspecified() => own_addresses(interfaces, true),
            ip => vec![ip.to_canonical()],
        };
        for ip in ips {
            let address = Address::new(listener.transport, SocketAddr::new(ip, listener.socket.port()));
            let wanted = match address.reach() {
                Reach::Global | Reach::Private => true,
                Reach::Loopback => only_loopback,
                Reach::LinkLocal | Reach::Never => false,
            };
            if wanted && !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found.sort_by_key(|one| one.reach() != Reach::Global);
    if found.len() > MAX_ADDRESSES {
        let mut ips: Vec<IpAddr> = Vec::new();
        for ip in found.iter().map(|one| one.socket.ip()) {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        found.sort_by_key(|one| ips.iter().position(|ip| *ip == one.socket.ip()));
        found.truncate(MAX_ADDRESSES);
    }
    found
}

fn own_addresses(interfaces: &[Interface], v6_too: bool) -> Vec<IpAddr> {
    interfaces.iter().map(|own| own.ip).filter(|ip| v6_too || ip.is_ipv4()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn vantage() -> Vantage {
        let own = |ip: &str, prefix_bits| Interface { ip: ip.parse().unwrap(), prefix_bits };
        Vantage {
            loopback_only: false,
            interfaces: vec![
                own("127.0.0.1", 8),
                own("192.168.7.5", 24),
                own("fd00::5", 64),
                own("fe80::1", 64),
            ],
        }
    }

    fn dialled(address: &str, origin: Origin, vantage: &Vantage) -> bool {
        may_dial(&address.parse().unwrap(), origin, vantage)
    }

    #[test]
    fn what_no_peer_can_be_is_never_dialled() {
        let loopback = Vantage { loopback_only: true, ..vantage() };
        for never in [
            "tcp://0.0.0.0:1",
            "tcp://224.0.0.1:1",
            "tcp://255.255.255.255:1",
            "tcp://169.254.169.254:80",
            "tcp://[::]:1",
            "tcp://[ff02::1]:1",
            "tcp://[fe80::1]:1",
            "tcp://[64:ff9b::a9fe:a9fe]:1",
            "tcp://[2002:a9fe:a9fe::1]:1",
        ] {
            for origin in [Origin::Hint, Origin::Discovered] {
                assert!(!dialled(never, origin, &loopback), "{never}");
            }
        }
    }

    #[test]
    fn loopback_is_dialled_only_from_nodes_on_loopback() {
        let loopback = Vantage { loopback_only: true, ..vantage() };
        for address in ["tcp://127.0.0.1:1", "quic://127.8.8.8:1", "tcp://[::1]:1"] {
            assert!(!dialled(address, Origin::Hint, &vantage()), "{address}");
            assert!(dialled(address, Origin::Discovered, &loopback), "{address}");
        }
    }

    #[test]
    fn private_addresses_are_dialled_on_link_or_as_hints() {
        for (address, on_link) in [
            ("tcp://192.168.7.9:1", true),
            ("tcp://192.168.8.9:1", false),
            ("tcp://10.0.0.1:1", false),
            ("tcp://100.64.0.1:1", false),
            ("tcp://[fd00::9]:1", true),
            ("tcp://[fd00:0:0:1::9]:1", false),
        ] {
            assert_eq!(dialled(address, Origin::Discovered, &vantage()), on_link, "{address}");
            assert!(dialled(address, Origin::Hint, &vantage()), "{address}");
        }
        assert!(dialled("tcp://1.1.1.1:1", Origin::Discovered, &vantage()));
        assert!(dialled("tcp://[2600::1]:1", Origin::Discovered, &vantage()));
    }

    #[test]
    fn unspecified_listeners_are_announced_as_the_machine_s_addresses() {
        let announced =
            advertised(&addresses(&["quic://[::]:7117", "tcp://0.0.0.0:7117"]), &vantage().interfaces);
        assert_eq!(
            announced,
            addresses(&["quic://192.168.7.5:7117", "quic://[fd00::5]:7117", "tcp://192.168.7.5:7117"])
        );
    }

    #[test]
    fn loopback_is_announced_only_where_there_is_nothing_else() {
        let both = addresses(&["quic://127.0.0.1:5", "tcp://[::1]:6"]);
        assert_eq!(advertised(&both, &vantage().interfaces), both);
        let mixed = addresses(&["quic://127.0.0.1:5", "tcp://192.168.7.5:6"]);
        assert_eq!(advertised(&mixed, &vantage().interfaces), mixed[1..]);
        assert!(advertised(&[], &vantage().interfaces).is_empty());
    }

    #[test]
    fn a_machine_with_many_networks_announces_as_many_addresses_as_a_set_holds() {
        let own = |ip: String| Interface { ip: ip.parse().unwrap(), prefix_bits: 16 };
        let mut interfaces: Vec<_> = (0..20).map(|number| own(format!("10.{number}.0.1"))).collect();
        interfaces.push(own("2600::1".to_owned()));
        let announced = advertised(&addresses(&["tcp://[::]:1", "quic://[::]:1"]), &interfaces);
        assert_eq!(announced.len(), MAX_ADDRESSES);
        assert_eq!(announced[..2], addresses(&["tcp://[2600::1]:1", "quic://[2600::1]:1"]));
        for pair in announced.chunks(2) {
            assert_eq!(pair[0].socket, pair[1].socket, "each with every transport");
        }
    }

    #[test]
    fn global_addresses_are_announced_first() {
        let interfaces = [
            Interface { ip: "10.0.0.1".parse().unwrap(), prefix_bits: 8 },
            Interface { ip: "2600::1".parse().unwrap(), prefix_bits: 64 },
        ];
        let announced = advertised(&addresses(&["tcp://[::]:1"]), &interfaces);
        assert_eq!(announced, addresses(&["tcp://[2600::1]:1", "tcp://10.0.0.1:1"]));
    }
}
