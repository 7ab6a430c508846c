use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kith_sansio::wire::{Reader, WireError};

/// Largest IP packet, in bytes.
pub const MAX_PACKET_BYTES: usize = u16::MAX as usize;

/// Bytes of an IPv4 header without options, and of an IPv6 header.
pub(crate) const V4_HEADER_BYTES: usize = 20;
pub(crate) const V6_HEADER_BYTES: usize = 40;

/// What the tunnel has to know of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who it says that it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Whether routers may not cut it: IPv6, and IPv4 with the bit for that.
    pub is_indivisible: bool,
    /// What comes after the IP header: the protocol's number in the first header.
    pub(crate) next: u8,
    /// Where that begins, in bytes.
    pub(crate) body_at: usize,
    /// A fragment that is not the first.
    pub(crate) is_later_fragment: bool,
}

/// Why bytes are no IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPacket {
    /// Shorter than its header.
    #[error("shorter than its header: {0}")]
    Short(#[from] WireError),
    /// Neither version 4 nor 6.
    #[error("version {0}")]
    Version(u8),
    /// An IPv4 header that says that it has less than 20 bytes.
    #[error("a header of {0} bytes")]
    HeaderLength(usize),
    /// It says to have another length than it has.
    #[error("{said} bytes by its header, {has} in truth")]
    Length {
        /// By its header.
        said: usize,
        /// In truth.
        has: usize,
    },
}

impl Header {
    /// Reads the header of a packet that has exactly the length that it says.
    pub fn read(packet: &[u8]) -> Result<Header, BadPacket> {
        let mut reader = Reader::new(packet);
        let first = reader.u8()?;
        match first >> 4 {
            4 => Header::read_v4(packet, usize::from(first & 0x0f) * 4, reader),
            6 => Header::read_v6(packet, reader),
            version => Err(BadPacket::Version(version)),
        }
    }

    /// RFC 791 §3.1.
    fn read_v4(packet: &[u8], header_bytes: usize, mut reader: Reader<'_>) -> Result<Header, BadPacket> {
        if header_bytes < V4_HEADER_BYTES {
            return Err(BadPacket::HeaderLength(header_bytes));
        }
        reader.u8()?;
        let said = usize::from(reader.u16()?);
        reader.u16()?;
        let fragment = reader.u16()?;
        reader.u8()?;
        let next = reader.u8()?;
        reader.u16()?;
        let source = Ipv4Addr::from(reader.array::<4>()?).into();
        let destination = Ipv4Addr::from(reader.array::<4>()?).into();
        reader.bytes(header_bytes - V4_HEADER_BYTES)?;
        fits(packet, said)?;
        Ok(Header {
            source,
            destination,
            is_indivisible: fragment & 0x4000 != 0,
            next,
            body_at: header_bytes,
            is_later_fragment: fragment & 0x1fff != 0,
        })
    }

    /// RFC 8200 §3.
    fn read_v6(packet: &[u8], mut reader: Reader<'_>) -> Result<Header, BadPacket> {
        reader.u24()?;
        let said = V6_HEADER_BYTES + usize::from(reader.u16()?);
        let next = reader.u8()?;
        reader.u8()?;
        let source = Ipv6Addr::from(reader.array::<16>()?).into();
        let destination = Ipv6Addr::from(reader.array::<16>()?).into();
        fits(packet, said)?;
        let body_at = V6_HEADER_BYTES;
        Ok(Header { source, destination, is_indivisible: true, next, body_at, is_later_fragment: false })
    }
}

fn fits(packet: &[u8], said: usize) -> Result<(), BadPacket> {
    if said == packet.len() { Ok(()) } else { Err(BadPacket::Length { said, has: packet.len() }) }
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// A packet of `bytes` in all, UDP by its header.
    pub(crate) fn packet(source: &str, destination: &str, bytes: usize) -> Vec<u8> {
        let mut packet = vec![0; bytes];
        match (source.parse().unwrap(), destination.parse().unwrap()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet[0] = 0x45;
                packet[2..4].copy_from_slice(&u16::try_from(bytes).unwrap().to_be_bytes());
                packet[9] = 17;
                packet[12..16].copy_from_slice(&source.octets());
                packet[16..20].copy_from_slice(&destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet[0] = 0x60;
                packet[4..6].copy_from_slice(&u16::try_from(bytes - V6_HEADER_BYTES).unwrap().to_be_bytes());
                packet[6] = 17;
                packet[8..24].copy_from_slice(&source.octets());
                packet[24..40].copy_from_slice(&destination.octets());
            }
            _ => panic!("two families"),
        }
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::samples::packet;
    use super::*;

    #[test]
    fn a_packet_says_whence_and_whither() {
        for (source, destination) in [("10.7.0.1", "10.7.0.2"), ("fd07::1", "fd07::2")] {
            let header = Header::read(&packet(source, destination, 100)).unwrap();
            assert_eq!(header.source.to_string(), source);
            assert_eq!(header.destination.to_string(), destination);
            assert_eq!(header.is_indivisible, header.source.is_ipv6());
        }
        let mut whole = packet("10.7.0.1", "10.7.0.2", 100);
        whole[6] = 0x40;
        assert!(Header::read(&whole).unwrap().is_indivisible);
    }

    #[test]
    fn what_is_shorter_or_longer_than_it_says_is_no_packet() {
        for good in [packet("10.7.0.1", "10.7.0.2", 60), packet("fd07::1", "fd07::2", 60)] {
            for length in 0..good.len() {
                assert!(Header::read(&good[..length]).is_err(), "{length}");
            }
            assert!(matches!(Header::read(&[&good[..], b"x"].concat()), Err(BadPacket::Length { .. })));
        }
        let mut wrong = packet("10.7.0.1", "10.7.0.2", 60);
        wrong[0] = 0x44;
        assert_eq!(Header::read(&wrong), Err(BadPacket::HeaderLength(16)));
        wrong[0] = 0x4f;
        assert!(Header::read(&wrong[..59]).is_err());
        wrong[0] = 0x55;
        assert_eq!(Header::read(&wrong), Err(BadPacket::Version(5)));
    }
}
