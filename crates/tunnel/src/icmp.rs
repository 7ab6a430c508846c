//! What a router says of a packet that does not get through (RFC 792, RFC 1191, RFC 4443): the tunnel's end is one.

use std::net::IpAddr;

use crate::Header;
use crate::packet::{V4_HEADER_BYTES, V6_HEADER_BYTES};

/// Largest answer in bytes: as much of the packet as fits into what every host takes (RFC 1812 §4.3.2.3, RFC 4443 §2.4).
const MAX_V4_BYTES: usize = 576;
const MAX_V6_BYTES: usize = 1280;

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// Type and code of each answer, for either family.
const V4_TOO_LARGE: [u8; 2] = [3, 4];
const V4_NO_HOST: [u8; 2] = [3, 1];
const V6_TOO_LARGE: [u8; 2] = [2, 0];
const V6_NO_ADDRESS: [u8; 2] = [1, 3];

/// The answer to `packet` that no more than `mtu` bytes get through. It comes in the name of the destination, since it
/// must not come from the one who asks. `None` where nobody may be answered: an error, a later fragment, or a packet to or
/// from many.
pub fn too_large(packet: &[u8], header: &Header, mtu: usize) -> Option<Vec<u8>> {
    let told = u32::try_from(mtu).ok()?;
    let types = if header.source.is_ipv4() { V4_TOO_LARGE } else { V6_TOO_LARGE };
    answer(packet, header, types, told)
}

/// The answer to `packet` that its destination is not reached now. `None` as with [`too_large`].
pub fn unreachable(packet: &[u8], header: &Header) -> Option<Vec<u8>> {
    let types = if header.source.is_ipv4() { V4_NO_HOST } else { V6_NO_ADDRESS };
    answer(packet, header, types, 0)
}

fn answer(packet: &[u8], header: &Header, types: [u8; 2], told: u32) -> Option<Vec<u8>> {
    if header.is_later_fragment || !is_one(header.source) || !is_one(header.destination) {
        return None;
    }
    let is_error = match (header.next, packet.get(header.body_at)) {
        // Everything but questions and answers (RFC 1122 §3.2.2); of IPv6, what is below 128.
        (ICMP, Some(kind)) => !matches!(kind, 0 | 8 | 13..=18),
        (ICMP_V6, Some(kind)) => *kind < 128,
        (ICMP | ICMP_V6, None) => true,
        _ => false,
    };
    if is_error {
        return None;
    }
    let mut body = vec![types[0], types[1], 0, 0];
    body.extend_from_slice(&told.to_be_bytes());
    match (header.destination, header.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            body.extend_from_slice(packet.get(..MAX_V4_BYTES - V4_HEADER_BYTES - 8).unwrap_or(packet));
            let sum = checksum(&[&body]);
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            let length = u16::try_from(V4_HEADER_BYTES + body.len()).ok()?;
            let mut head = vec![0x45, 0xc0];
            head.extend_from_slice(&length.to_be_bytes());
            head.extend_from_slice(&[0, 0, 0, 0, 64, ICMP, 0, 0]);
            head.extend_from_slice(&from.octets());
            head.extend_from_slice(&to.octets());
            let sum = checksum(&[&head]);
            head[10..12].copy_from_slice(&sum.to_be_bytes());
            Some([head, body].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            body.extend_from_slice(packet.get(..MAX_V6_BYTES - V6_HEADER_BYTES - 8).unwrap_or(packet));
            let length = u16::try_from(body.len()).ok()?;
            let pseudo = [&u32::from(length).to_be_bytes()[..], &[0, 0, 0, ICMP_V6]].concat();
            let sum = checksum(&[&from.octets(), &to.octets(), &pseudo, &body]);
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut head = vec![0x60, 0, 0, 0];
            head.extend_from_slice(&length.to_be_bytes());
            head.extend_from_slice(&[ICMP_V6, 64]);
            head.extend_from_slice(&from.octets());
            head.extend_from_slice(&to.octets());
            Some([head, body].concat())
        }
        _ => None,
    }
}

/// An address of one host.
fn is_one(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_multicast() && !ip.is_unspecified() && !is_broadcast
}

/// The internet checksum (RFC 1071) over parts of even length, but for the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum();
    let folded = (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16));
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::samples::packet;

    fn answered(sent: &[u8], mtu: usize) -> Option<Vec<u8>> {
        too_large(sent, &Header::read(sent).unwrap(), mtu)
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 1071 §3.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2]]), !0xf201);
    }

    #[test]
    fn who_sends_too_much_is_told_what_gets_through() {
        let sent = packet("10.7.0.1", "10.7.0.2", 1500);
        let told = answered(&sent, 1398).unwrap();
        let header = Header::read(&told).unwrap();
        assert_eq!(
            (header.source.to_string(), header.destination.to_string()),
            ("10.7.0.2".into(), "10.7.0.1".into())
        );
        assert_eq!(told.len(), MAX_V4_BYTES);
        assert_eq!((checksum(&[&told[..20]]), checksum(&[&told[20..]])), (0, 0));
        assert_eq!(told[20..28], [3, 4, told[22], told[23], 0, 0, 0x05, 0x76]);
        assert_eq!(told[28..], sent[..MAX_V4_BYTES - 28]);

        let sent = packet("fd07::1", "fd07::2", 1500);
        let told = answered(&sent, 1398).unwrap();
        let header = Header::read(&told).unwrap();
        assert_eq!(
            (header.source.to_string(), header.destination.to_string()),
            ("fd07::2".into(), "fd07::1".into())
        );
        assert_eq!(told.len(), MAX_V6_BYTES);
        let pseudo = [&u32::try_from(told.len() - 40).unwrap().to_be_bytes()[..], &[0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[&told[8..40], &pseudo, &told[40..]]), 0);
        assert_eq!(told[40..42], [2, 0]);
        assert_eq!(told[44..48], 1398_u32.to_be_bytes());
    }

    #[test]
    fn errors_and_crowds_are_not_answered() {
        let mut error = packet("10.7.0.1", "10.7.0.2", 1500);
        error[9] = ICMP;
        error[20] = 3;
        assert_eq!(answered(&error, 1398), None);
        error[20] = 8;
        assert!(answered(&error, 1398).is_some());
        let mut error = packet("fd07::1", "fd07::2", 1500);
        error[6] = ICMP_V6;
        error[40] = 1;
        assert_eq!(answered(&error, 1398), None);
        for to in ["224.0.0.1", "255.255.255.255", "0.0.0.0"] {
            assert_eq!(answered(&packet("10.7.0.1", to, 1500), 1398), None, "{to}");
        }
        assert_eq!(answered(&packet("fd07::1", "ff02::1", 1500), 1398), None);
        let mut later = packet("10.7.0.1", "10.7.0.2", 1500);
        later[7] = 5;
        assert_eq!(answered(&later, 1398), None);
        let sent = packet("10.7.0.1", "10.7.0.2", 60);
        let told = unreachable(&sent, &Header::read(&sent).unwrap()).unwrap();
        assert_eq!(told[20..22], [3, 1]);
    }
}
