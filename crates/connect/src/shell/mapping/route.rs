//! The system's way out over IPv4.

use std::net::{IpAddr, Ipv4Addr};

use crate::address::Interface;
use crate::mapping::Router;

/// The default route's gateway, and this machine's address on its network; where Linux tells it.
pub(super) fn router() -> Option<Router> {
    let table = std::fs::read_to_string("/proc/net/route").ok()?;
    let gateway = gateway(&table)?;
    own_address(gateway, &super::super::interfaces()).map(|own| Router { gateway, own })
}

/// The gateway of the default route with the least metric, out of the kernel's table: name, destination, gateway and
/// flags, use and metric, addresses in hexadecimal as the processor has them.
fn gateway(table: &str) -> Option<Ipv4Addr> {
    const UP_AND_GATEWAY: u32 = 3;
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let metric: u32 = fields.get(6)?.parse().ok()?;
        let default = hex(1)? == 0 && hex(7)? == 0 && hex(3)? & UP_AND_GATEWAY == UP_AND_GATEWAY;
        let gateway = Ipv4Addr::from(hex(2)?.to_ne_bytes());
        default.then_some((metric, gateway))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

fn own_address(gateway: Ipv4Addr, interfaces: &[Interface]) -> Option<Ipv4Addr> {
    interfaces.iter().filter(|one| one.prefix_bits < 32 && one.holds(gateway.into())).find_map(
        |one| match one.ip {
            // With a public address of its own a machine needs no mapping.
            IpAddr::V4(own) if own.is_private() => Some(own),
            _ => None,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_default_route_with_the_least_metric_leads_out() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(gateway(table), Some(Ipv4Addr::new(192, 0, 2, 1)));
        let without: String =
            table.lines().filter(|line| !line.contains("0003")).collect::<Vec<_>>().join("\n");
        assert_eq!(gateway(&without), None);
        assert_eq!(gateway("nonsense\nmore of it\n"), None);
    }

    #[test]
    fn only_a_private_address_on_the_router_s_network_needs_a_mapping() {
        let own = |ip: &str, prefix_bits| Interface { ip: ip.parse().unwrap(), prefix_bits };
        let interfaces = [own("127.0.0.1", 8), own("10.0.0.5", 8), own("192.168.1.5", 24)];
        assert_eq!(
            own_address(Ipv4Addr::new(192, 168, 1, 1), &interfaces),
            Some(Ipv4Addr::new(192, 168, 1, 5))
        );
        assert_eq!(own_address(Ipv4Addr::new(172, 16, 0, 1), &interfaces), None);
        assert_eq!(own_address(Ipv4Addr::new(1, 1, 1, 1), &[own("1.1.1.2", 24)]), None);
    }
}
