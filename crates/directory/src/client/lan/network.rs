//! Networks of this machine, and their multicast sockets.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use if_addrs::{IfAddr, IfOperStatus};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::Networks;
use crate::defaults::LAN_NETWORKS;

/// The groups of mDNS (RFC 6762 §3).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Packets are sent so that nobody beyond the network can have sent one that looks the same (RFC 6762 §11).
const HOPS: u32 = 255;

/// One network: an interface and what places it. Where these change it is another network, with another salt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Network {
    pub(super) name: String,
    index: u32,
    /// The first IPv4 address and the length of its prefix.
    v4: Option<(Ipv4Addr, u8)>,
    /// The first IPv6 address; its network's part.
    v6: Option<u64>,
}

/// The networks that there are now.
pub(super) fn networks(which: Networks) -> io::Result<Vec<Network>> {
    let mut found: BTreeMap<u32, Network> = BTreeMap::new();
    let mut all = if_addrs::get_if_addrs()?;
    // The system's order may change, and which address is the first decides.
    all.sort_by_key(|one| (one.index, one.ip()));
    // The loopback interface may have other addresses too.
    let inward: Vec<_> = all.iter().filter(|one| one.is_loopback()).map(|one| one.index).collect();
    for one in all {
        let wanted = inward.contains(&one.index) == (which == Networks::Loopback);
        let down = matches!(
            one.oper_status,
            IfOperStatus::Down | IfOperStatus::NotPresent | IfOperStatus::LowerLayerDown
        );
        let Some(index) = one.index.filter(|_| wanted && !down && !one.is_p2p()) else { continue };
        let network = found.entry(index).or_insert_with(|| Network {
            name: one.name.clone(),
            index,
            v4: None,
            v6: None,
        });
        match one.addr {
            IfAddr::V4(v4) => {
                network.v4.get_or_insert((v4.ip, v4.prefixlen));
            }
            IfAddr::V6(v6) => {
                network.v6.get_or_insert((v6.ip.to_bits() >> 64) as u64);
            }
        }
    }
    Ok(found.into_values().take(LAN_NETWORKS).collect())
}

impl Network {
    /// Its sockets, one for each family that it has and the system can multicast on.
    pub(super) fn sockets(&self, port: u16) -> Vec<Port> {
        let v4 = self.v4.map(|(own, _)| self.socket_v4(own, port));
        let v6 = self.v6.map(|_| self.socket_v6(port));
        let opened = [v4, v6].into_iter().flatten();
        let noted = opened.inspect(|opened| {
            if let Err(error) = opened {
                tracing::debug!(network = %self.name, %error, "cannot multicast here");
            }
        });
        noted.filter_map(Result::ok).collect()
    }

    fn socket_v4(&self, own: Ipv4Addr, port: u16) -> io::Result<Port> {
        let socket = shared(Domain::IPV4)?;
        let group = SocketAddr::from((GROUP_V4, port));
        #[cfg(target_os = "linux")]
        socket.set_multicast_all_v4(false)?;
        // Bound to the group, it takes no packet that is meant for another program at this port.
        socket.bind(&group.into())?;
        socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(self.index))?;
        socket.set_multicast_if_v4(&own)?;
        socket.set_multicast_ttl_v4(HOPS)?;
        socket.set_multicast_loop_v4(true)?;
        Ok(Port { socket: UdpSocket::from_std(socket.into())?, group })
    }

    fn socket_v6(&self, port: u16) -> io::Result<Port> {
        let socket = shared(Domain::IPV6)?;
        let group = SocketAddr::V6(SocketAddrV6::new(GROUP_V6, port, 0, self.index));
        socket.set_only_v6(true)?;
        #[cfg(target_os = "linux")]
        socket.set_multicast_all_v6(false)?;
        socket.bind(&group.into())?;
        socket.join_multicast_v6(&GROUP_V6, self.index)?;
        socket.set_multicast_if_v6(self.index)?;
        socket.set_multicast_hops_v6(HOPS)?;
        socket.set_multicast_loop_v6(true)?;
        Ok(Port { socket: UdpSocket::from_std(socket.into())?, group })
    }
}

/// A socket whose port other programs can have too.
fn shared(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A multicast socket of one network and family.
#[derive(Debug)]
pub(super) struct Port {
    socket: UdpSocket,
    group: SocketAddr,
}

impl Port {
    /// The next packet of another program at the port of the group.
    pub(super) async fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let (length, from) = self.socket.recv_from(room).await?;
            let near = match from.ip() {
                IpAddr::V4(_) => true,
                IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_loopback(),
            };
            if near && from.port() == self.group.port() {
                return Ok(length);
            }
        }
    }

    /// Multicasts a packet, without waiting for the reactor to have looked at the socket, which would lose the first
    /// packet of a new one. Whoever missed it asks again.
    pub(super) fn send(&self, packet: &[u8]) {
        if let Err(error) = SockRef::from(&self.socket).send_to(packet, &self.group.into()) {
            tracing::trace!(%error, "a packet was not sent");
        }
    }
}
