//! The messages of `relay/1`: `u16 length ‖ CBOR`, in one form each.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use kith_identity::{Address, Fingerprint, PublicKey, Transport};
use kith_sansio::{Rng, Timestamp};
use minicbor::{Decoder, Encoder};

use super::limits::{MAX_HOPS, MAX_MESSAGE_BYTES};
use super::request::{Carriage, Request};
use crate::Protocol;

/// The protocol between a relay and those who use it.
pub const RELAY: Protocol = Protocol::new("relay/1");

/// Opens one side of one session, once: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; Token::BYTES]);

/// How a side gets into its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// What it shows.
    pub token: Token,
    /// The relay's port to show it at, TCP or UDP as the request said. The address is the one by which the relay was
    /// reached.
    pub port: u16,
}

/// One message. Each is a CBOR array: its number, then its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `[0]` Target to relay: hand me the requests that are for me.
    Expose,
    /// `[1]` Relay to target: from now on.
    Exposed,
    /// `[2, u32]` Target to relay: are you there?
    Ping(u32),
    /// `[3, u32]` Relay to target: yes, to the ping of that number.
    Pong(u32),
    /// `[4, u8 transport, bytes address]` Relay to either: so I see you. The address is `ip ‖ u16 port`, 6 or 18
    /// bytes; the transport is 0 for TCP, 1 for QUIC, 2 for DTLS.
    Observed(Address),
    /// `[5, request…]` Initiator to relay. The fields of a request are `bytes relay, bytes target, bytes initiator
    /// SPKI, bytes nonce, u8 carriage, [* bytes hop], u64 expires, bytes signature`.
    Request(Box<Request>),
    /// `[6, u32 id, request…]` Relay to target: somebody asks for you.
    Knock(u32, Box<Request>),
    /// `[7, u32 id]` Target to relay: that one may come.
    Admit(u32),
    /// `[8, u32 id]` Target to relay: that one may not.
    Decline(u32),
    /// `[9, bytes token, u16 port]` Relay to initiator: you may come, this way.
    Ack(Pass),
    /// `[10, u32 id, bytes token, u16 port]` Relay to target: he comes, meet him this way.
    Meet(u32, Pass),
    /// `[11]` Relay to either: no.
    Refused,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Empty, or longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message has 1 to {MAX_MESSAGE_BYTES} bytes, this one {0}")]
    Length(usize),
    /// No message of this protocol, or not in its one form.
    #[error("not a message of relay/1")]
    Form,
}

/// No message; the reader's own word for it, so that the codec's stays inside.
struct Malformed;

impl From<minicbor::decode::Error> for Malformed {
    fn from(_: minicbor::decode::Error) -> Malformed {
        Malformed
    }
}

impl Token {
    /// Length in bytes.
    pub const BYTES: usize = 16;

    /// A new one.
    pub fn generate(rng: &mut dyn Rng) -> Token {
        let mut bytes = [0; Token::BYTES];
        rng.fill(&mut bytes);
        Token(bytes)
    }

    /// One that was brought.
    pub const fn from_bytes(bytes: [u8; Token::BYTES]) -> Token {
        Token(bytes)
    }

    /// To be shown.
    pub fn as_bytes(&self) -> &[u8; Token::BYTES] {
        &self.0
    }
}

/// A token opens a door, so it is not shown.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// How many bytes follow the two that a message begins with.
pub fn length(prefix: [u8; 2]) -> Result<usize, MessageError> {
    match usize::from(u16::from_be_bytes(prefix)) {
        length @ 1..=MAX_MESSAGE_BYTES => Ok(length),
        length => Err(MessageError::Length(length)),
    }
}

impl Message {
    /// The message with its length in front.
    pub fn to_frame(&self) -> Vec<u8> {
        let body = self.to_cbor();
        // The longest message, a knock with all hops, is well below 64 KiB.
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut frame = Vec::with_capacity(2 + body.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&body);
        frame
    }

    /// The message without its length.
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing CBOR to memory cannot fail.
        let _infallible = self.write(&mut Encoder::new(&mut bytes));
        bytes
    }

    /// Reads a message, in its one form only: what is written again otherwise than it was read is none.
    pub fn from_cbor(bytes: &[u8]) -> Result<Message, MessageError> {
        if bytes.is_empty() || bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::Length(bytes.len()));
        }
        let message = read(&mut Decoder::new(bytes)).map_err(|Malformed| MessageError::Form)?;
        if message.to_cbor() == bytes { Ok(message) } else { Err(MessageError::Form) }
    }

    fn write(&self, to: &mut Encoder<&mut Vec<u8>>) -> Written {
        match self {
            Message::Expose => bare(to, 0),
            Message::Exposed => bare(to, 1),
            Message::Ping(number) => numbered(to, 2, *number),
            Message::Pong(number) => numbered(to, 3, *number),
            Message::Observed(address) => write_address(to, address),
            Message::Request(request) => {
                to.array(1 + REQUEST_FIELDS)?.u8(5)?;
                write_request(to, request)
            }
            Message::Knock(id, request) => {
                to.array(2 + REQUEST_FIELDS)?.u8(6)?.u32(*id)?;
                write_request(to, request)
            }
            Message::Admit(id) => numbered(to, 7, *id),
            Message::Decline(id) => numbered(to, 8, *id),
            Message::Ack(pass) => {
                to.array(3)?.u8(9)?.bytes(&pass.token.0)?.u16(pass.port)?;
                Ok(())
            }
            Message::Meet(id, pass) => {
                to.array(4)?.u8(10)?.u32(*id)?.bytes(&pass.token.0)?.u16(pass.port)?;
                Ok(())
            }
            Message::Refused => bare(to, 11),
        }
    }
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// How many elements a request has in its message.
const REQUEST_FIELDS: u64 = 8;

fn bare(to: &mut Encoder<&mut Vec<u8>>, kind: u8) -> Written {
    to.array(1)?.u8(kind)?;
    Ok(())
}

fn numbered(to: &mut Encoder<&mut Vec<u8>>, kind: u8, number: u32) -> Written {
    to.array(2)?.u8(kind)?.u32(number)?;
    Ok(())
}

fn write_address(to: &mut Encoder<&mut Vec<u8>>, address: &Address) -> Written {
    let mut bytes = match address.socket.ip().to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend_from_slice(&address.socket.port().to_be_bytes());
    let transport = match address.transport {
        Transport::Tcp => 0,
        Transport::Quic => 1,
        Transport::Dtls => 2,
    };
    to.array(3)?.u8(4)?.u8(transport)?.bytes(&bytes)?;
    Ok(())
}

fn write_request(to: &mut Encoder<&mut Vec<u8>>, request: &Request) -> Written {
    to.bytes(request.relay.as_bytes())?
        .bytes(request.target.as_bytes())?
        .bytes(&request.initiator.spki())?
        .bytes(&request.nonce)?
        .u8(request.carriage.code())?
        .array(request.hops.len() as u64)?;
    for hop in &request.hops {
        to.bytes(hop.as_bytes())?;
    }
    to.u64(request.expires.0)?.bytes(&request.signature)?;
    Ok(())
}

fn read(from: &mut Decoder<'_>) -> Result<Message, Malformed> {
    let fields = from.array()?.ok_or(Malformed)?;
    let kind = from.u8()?;
    Ok(match (kind, fields) {
        (0, 1) => Message::Expose,
        (1, 1) => Message::Exposed,
        (2, 2) => Message::Ping(from.u32()?),
        (3, 2) => Message::Pong(from.u32()?),
        (4, 3) => Message::Observed(read_address(from)?),
        (5, 9) => Message::Request(read_request(from)?),
        (6, 10) => Message::Knock(from.u32()?, read_request(from)?),
        (7, 2) => Message::Admit(from.u32()?),
        (8, 2) => Message::Decline(from.u32()?),
        (9, 3) => Message::Ack(read_pass(from)?),
        (10, 4) => Message::Meet(from.u32()?, read_pass(from)?),
        (11, 1) => Message::Refused,
        _ => return Err(Malformed),
    })
}

fn array<const N: usize>(from: &mut Decoder<'_>) -> Result<[u8; N], Malformed> {
    from.bytes()?.try_into().map_err(|_| Malformed)
}

fn fingerprint(from: &mut Decoder<'_>) -> Result<Fingerprint, Malformed> {
    array(from).map(Fingerprint::from_bytes)
}

fn read_pass(from: &mut Decoder<'_>) -> Result<Pass, Malformed> {
    Ok(Pass { token: Token(array(from)?), port: from.u16()? })
}

fn read_address(from: &mut Decoder<'_>) -> Result<Address, Malformed> {
    let transport = match from.u8()? {
        0 => Transport::Tcp,
        1 => Transport::Quic,
        2 => Transport::Dtls,
        _ => return Err(Malformed),
    };
    let bytes = from.bytes()?;
    let (ip, port) = bytes.split_last_chunk::<2>().ok_or(Malformed)?;
    let ip: IpAddr = match ip.len() {
        4 => <[u8; 4]>::try_from(ip).map_err(|_| Malformed)?.into(),
        16 => <[u8; 16]>::try_from(ip).map_err(|_| Malformed)?.into(),
        _ => return Err(Malformed),
    };
    Ok(Address::new(transport, SocketAddr::new(ip, u16::from_be_bytes(*port))))
}

fn read_request(from: &mut Decoder<'_>) -> Result<Box<Request>, Malformed> {
    let relay = fingerprint(from)?;
    let target = fingerprint(from)?;
    let initiator = PublicKey::from_spki(&array::<44>(from)?).map_err(|_| Malformed)?;
    let nonce = array(from)?;
    let carriage = Carriage::from_code(from.u8()?).ok_or(Malformed)?;
    let count = from.array()?.and_then(|count| usize::try_from(count).ok()).ok_or(Malformed)?;
    if count >= MAX_HOPS {
        return Err(Malformed);
    }
    let hops = (0..count).map(|_| fingerprint(from)).collect::<Result<_, _>>()?;
    let expires = Timestamp(from.u64()?);
    let signature = array(from)?;
    Ok(Box::new(Request { relay, target, initiator, nonce, carriage, hops, expires, signature }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_identity::Identity;
    use kith_sansio::{Rng, SeededRng};
    use proptest::prelude::*;

    fn request(seed: u64, hops: usize, carriage: Carriage, expires: u64) -> Box<Request> {
        let rng = &mut SeededRng::new(seed);
        let mut name = || {
            let mut bytes = [0; 32];
            rng.fill(&mut bytes);
            Fingerprint::from_bytes(bytes)
        };
        let (relay, target) = (name(), name());
        let hops = (0..hops).map(|_| name()).collect();
        let initiator = Identity::generate(&mut SeededRng::new(seed % 8)).public();
        let (mut nonce, mut signature) = ([0; 16], [0; 64]);
        rng.fill(&mut nonce);
        rng.fill(&mut signature);
        let expires = Timestamp(expires);
        Box::new(Request { relay, target, initiator, nonce, carriage, hops, expires, signature })
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let requests =
            (any::<u64>(), 0..MAX_HOPS, any::<bool>(), any::<u64>()).prop_map(|(seed, hops, a, at)| {
                request(seed, hops, if a { Carriage::Stream } else { Carriage::Datagrams }, at)
            });
        let passes =
            (any::<[u8; 16]>(), any::<u16>()).prop_map(|(token, port)| Pass { token: Token(token), port });
        let transports = prop_oneof![Just(Transport::Tcp), Just(Transport::Quic), Just(Transport::Dtls)];
        let addresses = (transports, any::<IpAddr>(), any::<u16>())
            .prop_map(|(transport, ip, port)| Address::new(transport, (ip.to_canonical(), port).into()));
        prop_oneof![
            Just(Message::Expose),
            Just(Message::Exposed),
            any::<u32>().prop_map(Message::Ping),
            any::<u32>().prop_map(Message::Pong),
            addresses.prop_map(Message::Observed),
            requests.clone().prop_map(Message::Request),
            (any::<u32>(), requests).prop_map(|(id, request)| Message::Knock(id, request)),
            any::<u32>().prop_map(Message::Admit),
            any::<u32>().prop_map(Message::Decline),
            passes.clone().prop_map(Message::Ack),
            (any::<u32>(), passes).prop_map(|(id, pass)| Message::Meet(id, pass)),
            Just(Message::Refused),
        ]
    }

    proptest! {
        #[test]
        fn messages_come_back_as_they_went(message in any_message()) {
            let frame = message.to_frame();
            let (prefix, body) = frame.split_first_chunk().unwrap();
            prop_assert_eq!(length(*prefix), Ok(body.len()));
            prop_assert_eq!(Message::from_cbor(body), Ok(message));
        }

        #[test]
        fn a_message_that_is_cut_or_goes_on_is_none(message in any_message(), at in any::<prop::sample::Index>()) {
            let mut body = message.to_cbor();
            let cut = at.index(body.len());
            prop_assert!(Message::from_cbor(&body[..cut]).is_err());
            body.push(0);
            prop_assert!(Message::from_cbor(&body).is_err());
        }

        #[test]
        fn any_bytes_are_refused_or_written_again_as_they_were(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            crate::fuzz::fuzz_relay_message(&bytes);
        }

        #[test]
        fn a_changed_message_is_refused_or_another(
            message in any_message(), at in any::<prop::sample::Index>(), bit in 0..8u8
        ) {
            let mut body = message.to_cbor();
            let at = at.index(body.len());
            body[at] ^= 1u8 << bit;
            crate::fuzz::fuzz_relay_message(&body);
            prop_assert_ne!(Message::from_cbor(&body), Ok(message));
        }
    }

    #[test]
    fn messages_have_the_bytes_that_the_documents_say() {
        let hex = |message: Message| data(&message.to_cbor());
        fn data(bytes: &[u8]) -> String {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        assert_eq!(hex(Message::Expose), "8100");
        assert_eq!(hex(Message::Exposed), "8101");
        assert_eq!(hex(Message::Ping(300)), "820219012c");
        assert_eq!(hex(Message::Pong(7)), "820307");
        assert_eq!(hex(Message::Observed("quic://192.0.2.7:7117".parse().unwrap())), "83040146c00002071bcd");
        assert_eq!(hex(Message::Admit(1)), "820701");
        assert_eq!(hex(Message::Decline(1)), "820801");
        let pass = Pass { token: Token([0xab; 16]), port: 7117 };
        let token = "ab".repeat(16);
        assert_eq!(hex(Message::Ack(pass)), format!("830950{token}191bcd"));
        assert_eq!(hex(Message::Meet(2, pass)), format!("840a0250{token}191bcd"));
        assert_eq!(hex(Message::Refused), "810b");
    }

    #[test]
    fn other_forms_of_a_message_are_refused() {
        for other in [
            &[0x81, 0x18, 0x00][..],                     // a number in more bytes than it needs
            &[0x9f, 0x00, 0xff],                         // an array without a length
            &[0x82, 0x00, 0x00],                         // a field too many
            &[0x82, 0x02, 0x1a, 0, 0, 0, 1],             // a number in more bytes than it needs
            &[0x81, 0x0c],                               // no such message
            &[0x83, 0x04, 0x03, 0x46, 1, 2, 3, 4, 5, 6], // no such transport
            &[0x83, 0x04, 0x00, 0x45, 1, 2, 3, 4, 5],    // no such address
            &[0xa1, 0x00, 0x00],
            &[0x00],
        ] {
            assert_eq!(Message::from_cbor(other), Err(MessageError::Form), "{other:02x?}");
        }
        // An IPv4 address has one form.
        let mut mapped = vec![0x83, 0x04, 0x00, 0x52];
        mapped.extend_from_slice(&"::ffff:1.2.3.4".parse::<std::net::Ipv6Addr>().unwrap().octets());
        mapped.extend_from_slice(&[0, 1]);
        assert_eq!(Message::from_cbor(&mapped), Err(MessageError::Form));
        assert_eq!(Message::from_cbor(&[]), Err(MessageError::Length(0)));
        assert_eq!(Message::from_cbor(&[0; 513]), Err(MessageError::Length(513)));
        assert_eq!(length([2, 1]), Err(MessageError::Length(513)));
        assert_eq!(length([0, 0]), Err(MessageError::Length(0)));
    }

    #[test]
    fn the_longest_message_fits() {
        let longest = Message::Knock(u32::MAX, request(1, MAX_HOPS - 1, Carriage::Datagrams, u64::MAX));
        assert!(longest.to_cbor().len() <= MAX_MESSAGE_BYTES);
    }
}
