use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kith_identity::{Address, Transport};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::{BindError, Interface, defaults};

/// Connections that the system holds until they are accepted.
const BACKLOG: i32 = 1024;

/// Bound sockets, and where they are.
pub(super) struct Listeners {
    pub(super) tcp: Vec<std::net::TcpListener>,
    pub(super) udp: Vec<std::net::UdpSocket>,
    pub(super) dtls: Vec<std::net::UdpSocket>,
    pub(super) local: Vec<Address>,
    pub(super) default_port_taken: bool,
}

/// The addresses of this machine; empty where the system does not tell.
pub fn interfaces() -> Vec<Interface> {
    interfaces_but(&[])
}

/// The addresses of this machine but for those of some devices.
pub(super) fn interfaces_but(devices: &[String]) -> Vec<Interface> {
    let mut all = if_addrs::get_if_addrs().unwrap_or_default();
    all.retain(|own| !devices.contains(&own.name));
    let each = all.into_iter().map(|own| match own.addr {
        if_addrs::IfAddr::V4(v4) => Interface { ip: v4.ip.into(), prefix_bits: v4.prefixlen },
        if_addrs::IfAddr::V6(v6) => Interface { ip: v6.ip.into(), prefix_bits: v6.prefixlen },
    });
    each.collect()
}

/// Listens on `wanted`, or on the default where nothing is wanted.
pub(super) fn bind(wanted: &[Address]) -> Result<Listeners, BindError> {
    if wanted.len() > defaults::MAX_LISTENERS {
        return Err(BindError::TooMany(wanted.len()));
    }
    if !wanted.is_empty() {
        return bind_all(wanted);
    }
    // Where there is no IPv6, IPv4 alone.
    let ips = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    bind_next_free(&ips, defaults::PORT, defaults::PORT + defaults::PORTS_TRIED)
}

/// Both transports on the first port from `first` to `last` that is free for both, on the first of `ips` that the
/// system knows.
fn bind_next_free(ips: &[IpAddr], first: u16, last: u16) -> Result<Listeners, BindError> {
    for port in first..=last {
        match bind_both(ips, port) {
            Err(BindError::Taken { .. }) => {}
            Ok(listeners) => return Ok(Listeners { default_port_taken: port != first, ..listeners }),
            Err(other) => return Err(other),
        }
    }
    Err(BindError::NoFreePort { first, last })
}

fn bind_both(ips: &[IpAddr], port: u16) -> Result<Listeners, BindError> {
    let mut result = Err(BindError::NoFreePort { first: port, last: port });
    for &ip in ips {
        let at = SocketAddr::new(ip, port);
        result = bind_all(&[Transport::Quic, Transport::Tcp].map(|transport| Address::new(transport, at)));
        if !matches!(result, Err(BindError::Listen { .. })) {
            break;
        }
    }
    result
}

fn bind_all(wanted: &[Address]) -> Result<Listeners, BindError> {
    let mut listeners = Listeners {
        tcp: Vec::new(),
        udp: Vec::new(),
        dtls: Vec::new(),
        local: Vec::new(),
        default_port_taken: false,
    };
    for &address in wanted {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address },
            _ => BindError::Listen { address, source },
        };
        let socket = match address.transport {
            Transport::Tcp => {
                let listener = tcp_listener(address.socket).map_err(failed)?;
                let at = listener.local_addr().map_err(failed)?;
                listeners.tcp.push(listener);
                at
            }
            Transport::Quic => {
                let udp = udp_socket(address.socket).map_err(failed)?;
                let at = udp.local_addr().map_err(failed)?;
                listeners.udp.push(udp);
                at
            }
            Transport::Dtls => {
                let udp = udp_socket(address.socket).map_err(failed)?;
                let at = udp.local_addr().map_err(failed)?;
                listeners.dtls.push(udp);
                at
            }
        };
        listeners.local.push(Address::new(address.transport, socket));
    }
    Ok(listeners)
}

fn tcp_listener(at: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A UDP socket with large buffers; also used to dial from.
pub(super) fn udp_socket(at: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // The system's own limit may be lower; then it is that.
    let _ = socket.set_recv_buffer_size(defaults::UDP_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(defaults::UDP_BUFFER_BYTES);
    socket.bind(&at.into())?;
    Ok(socket.into())
}

/// What every TCP connection gets: no delay for small writes, and a sign of life now and then.
pub(super) fn tune_tcp(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let every = defaults::KEEP_ALIVE.into();
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(every).with_interval(every))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::LOCALHOST)];

    #[test]
    fn a_port_taken_by_either_transport_is_passed_over_and_told() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let first = taken.local_addr().unwrap().port().min(u16::MAX - 64);
        assert!(matches!(
            bind_both(&LOOPBACK, taken.local_addr().unwrap().port()),
            Err(BindError::Taken { .. })
        ));
        let found = bind_next_free(&LOOPBACK, first, first + 64).unwrap();
        let ports: Vec<u16> = found.local.iter().map(|one| one.socket.port()).collect();
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[0], ports[1]);
        assert_eq!(found.default_port_taken, ports[0] != first);
    }

    #[test]
    fn a_family_that_is_missing_gives_way_to_the_next() {
        // An address that no machine has stands for the missing family.
        let ips = ["2001:db8::1".parse().unwrap(), LOOPBACK[0]];
        let found = bind_both(&ips, 0).unwrap();
        assert!(found.local.iter().all(|one| one.socket.ip() == LOOPBACK[0]));
    }
}
