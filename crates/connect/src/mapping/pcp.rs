//! PCP (RFC 6887) and NAT-PMP (RFC 6886), as far as mapping a port needs them: the bytes. Both speak over UDP with
//! port 5351 of the router, and the first byte says which it is.

use std::net::{Ipv4Addr, SocketAddrV4};

use kith_sansio::wire::{Reader, WireError, Writer};

use super::{Kind, Lease};

/// The UDP port of both (RFC 6887 §19).
pub const PORT: u16 = 5351;
/// Longest packet of either (RFC 6887 §7).
pub const MAX_PACKET_BYTES: usize = 1100;

const PCP: u8 = 2;
const NAT_PMP: u8 = 0;
const ANSWER: u8 = 0x80;
const MAP: u8 = 1;
const UNSUPPORTED_VERSION: u8 = 1;

/// What a router answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// PCP: this mapping is made, or gone where the lease has no life.
    Pcp {
        /// The nonce of the request.
        nonce: [u8; 12],
        /// What was mapped.
        kind: Kind,
        /// The port of this machine.
        internal: u16,
        /// What it got.
        lease: Lease,
        /// Seconds since the router lost its mappings.
        epoch: u32,
    },
    /// PCP: the request was refused with this code.
    PcpRefused {
        /// The nonce of the request.
        nonce: [u8; 12],
        /// Why.
        code: u8,
    },
    /// The router speaks NAT-PMP and not PCP.
    NotPcp,
    /// NAT-PMP: the address of the router on the other side.
    NatPmpAddress {
        /// The address.
        external: Ipv4Addr,
        /// Seconds since the router lost its mappings.
        epoch: u32,
    },
    /// NAT-PMP: this mapping is made, or gone where it has no life.
    NatPmp {
        /// What was mapped.
        kind: Kind,
        /// The port of this machine.
        internal: u16,
        /// The port of the router.
        external: u16,
        /// How long it lasts.
        life_secs: u32,
        /// Seconds since the router lost its mappings.
        epoch: u32,
    },
    /// NAT-PMP: refused with this code.
    NatPmpRefused(u16),
}

/// The PCP request to map `internal` of `own`, as `wanted` where that is free; no life takes the mapping away.
///
/// Version 2, opcode MAP, two zero bytes, u32 life, 16 bytes own address, nonce, protocol, three zero bytes, u16
/// internal port, u16 wanted port, 16 bytes wanted address (RFC 6887 §7.1, §11.1).
#[must_use]
pub fn pcp_map(own: Ipv4Addr, nonce: &[u8; 12], kind: Kind, internal: u16, wanted: &Lease) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(PCP).u8(MAP).u16(0).u32(wanted.life_secs).bytes(&own.to_ipv6_mapped().octets());
    writer.bytes(nonce).u8(kind.number()).u24(0).u16(internal).u16(wanted.external.port());
    writer.bytes(&wanted.external.ip().to_ipv6_mapped().octets());
    writer.finish()
}

/// The NAT-PMP request for the router's address on the other side.
#[must_use]
pub fn nat_pmp_address() -> Vec<u8> {
    vec![NAT_PMP, 0]
}

/// The NAT-PMP request to map `internal`, as the port `wanted` where that is free; no life takes the mapping away.
#[must_use]
pub fn nat_pmp_map(kind: Kind, internal: u16, wanted: u16, life_secs: u32) -> Vec<u8> {
    let mut writer = Writer::new();
    let opcode = if kind == Kind::Udp { 1 } else { 2 };
    writer.u8(NAT_PMP).u8(opcode).u16(0).u16(internal).u16(wanted).u32(life_secs);
    writer.finish()
}

/// Reads an answer; `None` for what is none.
#[must_use]
pub fn read(packet: &[u8]) -> Option<Answer> {
    if packet.len() > MAX_PACKET_BYTES {
        return None;
    }
    match *packet.first()? {
        PCP => read_pcp(packet).ok()?,
        NAT_PMP => read_nat_pmp(packet).ok()?,
        _ => None,
    }
}

fn read_pcp(packet: &[u8]) -> Result<Option<Answer>, WireError> {
    let mut reader = Reader::new(packet);
    let (_version, opcode, _zero, code) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let (life_secs, epoch) = (reader.u32()?, reader.u32()?);
    reader.bytes(12)?;
    let nonce = reader.array()?;
    let kind = Kind::of(reader.u8()?);
    reader.bytes(3)?;
    let (internal, port) = (reader.u16()?, reader.u16()?);
    let address = std::net::Ipv6Addr::from(reader.array::<16>()?).to_ipv4_mapped();
    if opcode != ANSWER | MAP {
        return Ok(None);
    }
    if code != 0 {
        return Ok(Some(Answer::PcpRefused { nonce, code }));
    }
    Ok(kind.zip(address).map(|(kind, address)| Answer::Pcp {
        nonce,
        kind,
        internal,
        lease: Lease { external: SocketAddrV4::new(address, port), life_secs },
        epoch,
    }))
}

fn read_nat_pmp(packet: &[u8]) -> Result<Option<Answer>, WireError> {
    let mut reader = Reader::new(packet);
    let (_version, opcode, code) = (reader.u8()?, reader.u8()?, reader.u16()?);
    if opcode & ANSWER == 0 {
        return Ok(None);
    }
    let opcode = opcode & !ANSWER;
    if code == u16::from(UNSUPPORTED_VERSION) {
        return Ok(Some(Answer::NotPcp));
    }
    if code != 0 {
        return Ok(Some(Answer::NatPmpRefused(code)));
    }
    let epoch = reader.u32()?;
    let kind = match opcode {
        0 => {
            let external = Ipv4Addr::from(reader.array::<4>()?);
            return Ok(Some(Answer::NatPmpAddress { external, epoch }));
        }
        1 => Kind::Udp,
        2 => Kind::Tcp,
        _ => return Ok(None),
    };
    let (internal, external, life_secs) = (reader.u16()?, reader.u16()?, reader.u32()?);
    Ok(Some(Answer::NatPmp { kind, internal, external, life_secs, epoch }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 5);

    fn lease(port: u16, life_secs: u32) -> Lease {
        Lease { external: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), port), life_secs }
    }

    /// Written out by hand from RFC 6887 §7.1 and §11.1.
    #[test]
    fn a_pcp_request_is_as_the_standard_draws_it() {
        let bytes = pcp_map(OWN, &[9; 12], Kind::Tcp, 7117, &lease(7118, 3600));
        let mut expected = vec![2, 1, 0, 0, 0, 0, 0x0e, 0x10];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 5]);
        expected.extend([9; 12]);
        expected.extend([6, 0, 0, 0, 0x1b, 0xcd, 0x1b, 0xce]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 7]);
        assert_eq!(bytes, expected);
    }

    /// Written out by hand from RFC 6886 §3.2 and §3.3.
    #[test]
    fn nat_pmp_is_as_the_standard_draws_it() {
        assert_eq!(nat_pmp_address(), [0, 0]);
        assert_eq!(nat_pmp_map(Kind::Udp, 7117, 0, 7200), [0, 1, 0, 0, 0x1b, 0xcd, 0, 0, 0, 0, 0x1c, 0x20]);
        let answer = [0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7];
        let external = Ipv4Addr::new(203, 0, 113, 7);
        assert_eq!(read(&answer), Some(Answer::NatPmpAddress { external, epoch: 9 }));
        let answer = [0, 130, 0, 0, 0, 0, 0, 9, 0x1b, 0xcd, 0x1b, 0xce, 0, 0, 0x1c, 0x20];
        let mapped =
            Answer::NatPmp { kind: Kind::Tcp, internal: 7117, external: 7118, life_secs: 7200, epoch: 9 };
        assert_eq!(read(&answer), Some(mapped));
    }

    #[test]
    fn refusals_and_a_router_without_pcp_are_told_apart() {
        assert_eq!(read(&[0, 128, 0, 1, 0, 0, 0, 1]), Some(Answer::NotPcp));
        assert_eq!(read(&[0, 130, 0, 2, 0, 0, 0, 1]), Some(Answer::NatPmpRefused(2)));
        let mut refused = pcp_map(OWN, &[9; 12], Kind::Tcp, 7117, &lease(7118, 0));
        refused[1] |= ANSWER;
        refused[3] = 2;
        assert_eq!(read(&refused), Some(Answer::PcpRefused { nonce: [9; 12], code: 2 }));
        assert_eq!(read(&pcp_map(OWN, &[9; 12], Kind::Tcp, 7117, &lease(7118, 0))), None, "a request");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
        }
    }
}
