use std::net::{IpAddr, SocketAddr};

use kith_sansio::wire::{Reader, WireError, Writer};

use crate::{Address, Authority, Transport};

/// Most places (address and port, whatever the transports) in a link or an introduction.
pub const MAX_PLACES: usize = 8;

const TCP: u8 = 1;
const QUIC: u8 = 2;
const V6: u8 = 4;

/// Why bytes are no list of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoPlaces;

impl From<WireError> for NoPlaces {
    fn from(_: WireError) -> Self {
        NoPlaces
    }
}

/// Where somebody listens, each address and port once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(Vec<(SocketAddr, u8)>);

impl Places {
    /// The places of these addresses, at most [`MAX_PLACES`], in the order in which they come; what cannot be dialled
    /// as TCP or QUIC is left out.
    pub(super) fn of(addresses: &[Address]) -> Places {
        let mut places: Vec<(SocketAddr, u8)> = Vec::new();
        for address in addresses {
            let transport = match address.transport {
                Transport::Tcp => TCP,
                Transport::Quic => QUIC,
                Transport::Dtls => continue,
            };
            let room = places.len() < MAX_PLACES;
            match places.iter_mut().find(|(socket, _)| *socket == address.socket) {
                Some((_, transports)) => *transports |= transport,
                None if room && address.socket.port() != 0 => places.push((address.socket, transport)),
                None => {}
            }
        }
        Places(places)
    }

    /// Each place's addresses, QUIC before TCP.
    pub(super) fn addresses(&self) -> Vec<Address> {
        let each = self.0.iter().flat_map(|(socket, transports)| {
            [(QUIC, Transport::Quic), (TCP, Transport::Tcp)]
                .into_iter()
                .filter(move |(bit, _)| transports & bit != 0)
                .map(|(_, transport)| Address::new(transport, *socket))
        });
        each.collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `u8 count`, then for each `u8 kind ‖ 4 or 16 bytes of address ‖ u16 port`; kind is 1 for TCP, 2 for QUIC, 3 for
    /// both, and 4 more for IPv6.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(self.0.len() as u8);
        for (socket, transports) in &self.0 {
            match socket.ip() {
                IpAddr::V4(ip) => writer.u8(*transports).bytes(&ip.octets()),
                IpAddr::V6(ip) => writer.u8(transports | V6).bytes(&ip.octets()),
            };
            writer.u16(socket.port());
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Places, NoPlaces> {
        let count = usize::from(reader.u8()?);
        if count > MAX_PLACES {
            return Err(NoPlaces);
        }
        let mut places: Vec<(SocketAddr, u8)> = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = reader.u8()?;
            let transports = kind & !V6;
            let ip: IpAddr = match kind & V6 {
                0 => reader.array::<4>()?.into(),
                _ => reader.array::<16>()?.into(),
            };
            let socket = SocketAddr::new(ip, reader.u16()?);
            let known = places.iter().any(|(other, _)| *other == socket);
            if !(1..=3).contains(&transports) || socket.port() == 0 || known {
                return Err(NoPlaces);
            }
            places.push((socket, transports));
        }
        Ok(Places(places))
    }
}

/// `u8 length ‖ text`; a length of 0 for none. Authorities of more than 255 characters have no place in it.
pub(super) fn write_authority(writer: &mut Writer, authority: Option<&Authority>) {
    let text = authority.map(ToString::to_string).unwrap_or_default();
    match u8::try_from(text.len()) {
        Ok(length) => writer.u8(length).bytes(text.as_bytes()),
        Err(_) => writer.u8(0),
    };
}

pub(super) fn read_authority(reader: &mut Reader<'_>) -> Result<Option<Authority>, NoPlaces> {
    let length = usize::from(reader.u8()?);
    if length == 0 {
        return Ok(None);
    }
    let text = std::str::from_utf8(reader.bytes(length)?).map_err(|_| NoPlaces)?;
    let authority: Authority = text.parse().map_err(|_| NoPlaces)?;
    if authority.to_string() == text { Ok(Some(authority)) } else { Err(NoPlaces) }
}
