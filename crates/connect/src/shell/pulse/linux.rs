//! What Linux knows of a TCP connection, asked over a netlink socket (sock_diag(7)).

use std::net::{IpAddr, SocketAddr};

use kith_sansio::Span;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use super::Vitals;

const HEADER_BYTES: usize = 16;
/// `struct inet_diag_msg`.
const ANSWER_BYTES: usize = 72;
/// Where that has what was written and not acknowledged.
const QUEUE_AT: usize = 60;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;
/// Where `struct tcp_info` has these.
const RETRANSMITS_AT: usize = 2;
const PROBES_AT: usize = 3;
const LAST_ACK_RECV_AT: usize = 56;

/// How it stands with the connection between these; `None` where the system does not say.
pub(super) fn vitals(own: SocketAddr, peer: SocketAddr) -> Option<Vitals> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(SOCK_DIAG)).ok()?;
    sendto(&socket, &question(own, peer), SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).ok()?;
    // The kernel has answered before it took the question.
    let mut answer = [0; 4096];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty()).ok()?;
    read(answer.get(..length)?)
}

fn question(own: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let (own, peer) = (canonical(own), canonical(peer));
    let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut body = vec![family.as_raw() as u8, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(own.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    for ip in [own.ip(), peer.ip()] {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes = ip.octets(),
        }
        body.extend(bytes);
    }
    // Any interface, and whatever it is called inside.
    body.extend(0_u32.to_ne_bytes());
    body.extend([0xff; 8]);
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(0);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

fn read(message: &[u8]) -> Option<Vitals> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let body = message.get(HEADER_BYTES..)?;
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let unacknowledged = number(body, QUEUE_AT)?;
    let mut attributes = body.get(ANSWER_BYTES..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let name = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        if name == INET_DIAG_INFO {
            let tries = (*value.get(RETRANSMITS_AT)?).max(*value.get(PROBES_AT)?);
            let silence = Span::millis(number(value, LAST_ACK_RECV_AT)?.into());
            return Some(Vitals { unacknowledged, tries, silence });
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_system_says_what_of_a_connection_is_not_acknowledged() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(ip) else { continue };
            let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            near.write_all(b"heard").unwrap();
            far.read_exact(&mut [0; 5]).unwrap();
            let ends = (near.local_addr().unwrap(), near.peer_addr().unwrap());
            let Some(seen) = vitals(ends.0, ends.1) else { return kith_vnet::unable("sock_diag") };
            assert_eq!((seen.unacknowledged, seen.tries), (0, 0), "{ip}");
            // A peer that reads nothing is full in the end, and goes on to acknowledge that it is there.
            near.set_nonblocking(true).unwrap();
            while near.write(&[0; 1 << 16]).is_ok() {}
            let seen = vitals(ends.0, ends.1).unwrap();
            assert!(seen.unacknowledged > 0 && seen.tries < 2, "{ip}: {seen:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let nobody = "192.0.2.1:9".parse().unwrap();
        assert_eq!(vitals(nobody, nobody), None);
        let mut whole = vec![0; HEADER_BYTES + ANSWER_BYTES];
        whole[4] = SOCK_DIAG_BY_FAMILY as u8;
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None);
        }
        // An attribute that claims to have no length.
        whole.extend([0; 64]);
        assert_eq!(read(&whole), None);
    }
}
