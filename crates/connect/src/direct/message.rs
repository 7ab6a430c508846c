//! The one message of `direct/1`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kith_sansio::wire::{Reader, WireError, Writer};

use super::limits::MAX_CANDIDATES;
use crate::Protocol;
use crate::relay::Token;

/// The protocol by which the two sides of a relayed connection look for a direct path.
pub const DIRECT: Protocol = Protocol::new("direct/1");

/// Length of the number of bytes that every message begins with.
pub const LENGTH_BYTES: usize = 2;
/// The bytes of a message without addresses, and with as many of the longest as there may be.
const LEAST_BYTES: usize = 1 + Token::BYTES + 1;
const MOST_BYTES: usize = LEAST_BYTES + MAX_CANDIDATES * 19;

/// Where the sender may be found: `u8 wants ‖ token ‖ u8 number ‖ addresses`, each `u8 4 or 6 ‖ ip ‖ u16 port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Whether the other side is to say the same of itself; else this is the answer to that.
    pub wants_answer: bool,
    /// What probes for the sender have to show; in `punch/1` the name of the round.
    pub token: Token,
    /// UDP addresses of its QUIC, in `punch/1` TCP ones, [`MAX_CANDIDATES`] at most; none is an IPv4 address inside an
    /// IPv6 one.
    pub addresses: Vec<SocketAddr>,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Shorter or longer than any message.
    #[error("a message has {LEAST_BYTES} to {MOST_BYTES} bytes, this one {0}")]
    Length(usize),
    /// It ends too early or too late.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Too many addresses.
    #[error("{MAX_CANDIDATES} addresses at most, not {0}")]
    TooMany(u8),
    /// A field has a value that it cannot have.
    #[error("not a message of direct/1")]
    Form,
}

/// How many bytes follow the two that a message begins with.
pub fn length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, MessageError> {
    let length = usize::from(u16::from_be_bytes(prefix));
    if (LEAST_BYTES..=MOST_BYTES).contains(&length) { Ok(length) } else { Err(MessageError::Length(length)) }
}

impl Candidates {
    /// The message with its length in front. Addresses that are too many are left out.
    pub fn to_frame(&self) -> Vec<u8> {
        let body = self.to_bytes();
        let mut frame = Writer::new();
        // A few hundred bytes at most.
        frame.u16(u16::try_from(body.len()).unwrap_or(u16::MAX)).bytes(&body);
        frame.finish()
    }

    /// The message without its length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let addresses = &self.addresses[..self.addresses.len().min(MAX_CANDIDATES)];
        let mut to = Writer::new();
        to.u8(u8::from(self.wants_answer)).bytes(self.token.as_bytes());
        to.u8(u8::try_from(addresses.len()).unwrap_or(u8::MAX));
        for address in addresses {
            match address.ip().to_canonical() {
                IpAddr::V4(ip) => to.u8(4).bytes(&ip.octets()),
                IpAddr::V6(ip) => to.u8(6).bytes(&ip.octets()),
            };
            to.u16(address.port());
        }
        to.finish()
    }

    /// Reads a message, in its one form only.
    pub fn from_bytes(bytes: &[u8]) -> Result<Candidates, MessageError> {
        let mut from = Reader::new(bytes);
        let wants_answer = match from.u8()? {
            0 => false,
            1 => true,
            _ => return Err(MessageError::Form),
        };
        let token = Token::from_bytes(from.array()?);
        let number = from.u8()?;
        if usize::from(number) > MAX_CANDIDATES {
            return Err(MessageError::TooMany(number));
        }
        let mut addresses = Vec::with_capacity(usize::from(number));
        for _ in 0..number {
            let ip: IpAddr = match from.u8()? {
                4 => Ipv4Addr::from(from.array::<4>()?).into(),
                6 => Ipv6Addr::from(from.array::<16>()?).into(),
                _ => return Err(MessageError::Form),
            };
            if ip.to_canonical() != ip {
                return Err(MessageError::Form);
            }
            addresses.push(SocketAddr::new(ip, from.u16()?));
        }
        from.finish()?;
        Ok(Candidates { wants_answer, token, addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> Token {
        Token::from_bytes(*b"0123456789abcdef")
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let addresses = ["192.0.2.7:7117", "[2001:db8::1]:80"].map(|one| one.parse().unwrap()).to_vec();
        let said = Candidates { wants_answer: true, token: token(), addresses };
        let mut plain = b"\x00\x2c\x010123456789abcdef\x02".to_vec();
        plain.extend([4, 192, 0, 2, 7, 0x1b, 0xcd]);
        plain.extend([6, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80]);
        assert_eq!(said.to_frame(), plain);
        assert_eq!(length([plain[0], plain[1]]), Ok(plain.len() - LENGTH_BYTES));
        assert_eq!(Candidates::from_bytes(&plain[LENGTH_BYTES..]), Ok(said));
    }

    #[test]
    fn more_addresses_than_allowed_are_neither_said_nor_heard() {
        let addresses = vec!["192.0.2.7:7117".parse().unwrap(); 1_000];
        let said = Candidates { wants_answer: false, token: token(), addresses }.to_bytes();
        assert_eq!(Candidates::from_bytes(&said).unwrap().addresses.len(), MAX_CANDIDATES);
        let mut more = said;
        more[17] += 1;
        more.extend([4, 192, 0, 2, 7, 0x1b, 0xcd]);
        assert_eq!(Candidates::from_bytes(&more), Err(MessageError::TooMany(17)));
        assert!(length(1_000_u16.to_be_bytes()).is_err() && length([0, 0]).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let said = Candidates { wants_answer: false, token: token(), addresses: vec![] }.to_bytes();
        let with = |number: u8, rest: &[u8]| [&said[..17], &[number], rest].concat();
        assert_eq!(Candidates::from_bytes(&[&[2], &said[1..]].concat()), Err(MessageError::Form));
        assert_eq!(Candidates::from_bytes(&with(1, &[5, 1, 2, 3, 4, 0, 9])), Err(MessageError::Form));
        let inside = [&[6][..], &"::ffff:1.2.3.4".parse::<Ipv6Addr>().unwrap().octets(), &[0, 9]].concat();
        assert_eq!(Candidates::from_bytes(&with(1, &inside)), Err(MessageError::Form));
        assert!(matches!(Candidates::from_bytes(&with(1, &[4, 1])), Err(MessageError::Wire(_))));
        assert!(matches!(Candidates::from_bytes(&with(0, &[4])), Err(MessageError::Wire(_))));
    }

    proptest! {
        #[test]
        fn messages_are_read_as_they_were_written(
            wants_answer: bool,
            token: [u8; 16],
            addresses in proptest::collection::vec(any::<(IpAddr, u16)>(), 0..=MAX_CANDIDATES),
        ) {
            let addresses = addresses.into_iter().map(|(ip, port)| (ip.to_canonical(), port).into()).collect();
            let said = Candidates { wants_answer, token: Token::from_bytes(token), addresses };
            prop_assert_eq!(Candidates::from_bytes(&said.to_bytes()), Ok(said));
        }
    }
}
