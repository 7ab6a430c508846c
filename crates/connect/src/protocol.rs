use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Longest protocol name in bytes.
pub const MAX_PROTOCOL_BYTES: usize = 64;

/// The answer of a target that admits the initiator.
pub(crate) const ADMITTED: u8 = 0x01;

/// The one answer of a target that does not, whatever the reason.
pub(crate) const REFUSED: u8 = 0x00;

/// Set in the first byte of a hello that asks for datagrams.
const DATAGRAMS: u8 = 0x80;

/// What an initiator wants to speak a protocol over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A stream of bytes.
    Stream,
    /// Datagrams.
    Datagrams,
}

/// What an initiator asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) protocol: &'a Protocol,
    pub(crate) kind: Kind,
}

/// A protocol's name and version, such as `send/1`: what an initiator wants of a target.
///
/// A name of `[a-z][a-z0-9-]*`, a slash and a version of decimal digits without a leading zero, at most
/// [`MAX_PROTOCOL_BYTES`] in all. It travels inside the encrypted connection only, never in a handshake field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(Cow<'static, str>);

/// Why bytes or text are no protocol name, or no hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Empty, or longer than [`MAX_PROTOCOL_BYTES`].
    #[error("a protocol name has 1 to {MAX_PROTOCOL_BYTES} bytes, this one {0}")]
    Length(usize),
    /// Not of the form `name/version`.
    #[error("a protocol name has the form send/1")]
    Form,
}

/// Whom a protocol admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Peers whose fingerprint is trusted for this protocol.
    Contacts,
    /// Peers that hold a valid certificate of the network, contacts or not: those of whom [`Trust`](crate::Trust) says
    /// so.
    Members,
    /// Everybody, named or not.
    Anyone,
}

impl Protocol {
    /// A protocol known when the program is written.
    ///
    /// # Panics
    /// Where the name is not of the form `send/1`: in a constant, that is an error of the build.
    pub const fn new(name: &'static str) -> Protocol {
        assert!(well_formed(name.as_bytes()), "a protocol name has the form send/1");
        Protocol(Cow::Borrowed(name))
    }

    /// The name with its version.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first frame of a connection, from initiator to target: `u8 length ‖ name`; for datagrams, the length has
    /// its highest bit set.
    pub(crate) fn hello(&self, kind: Kind) -> Vec<u8> {
        let mut frame = Vec::with_capacity(1 + self.0.len());
        let mark = if kind == Kind::Datagrams { DATAGRAMS } else { 0 };
        // A name has at most 64 bytes.
        frame.push(u8::try_from(self.0.len()).unwrap_or(u8::MAX) | mark);
        frame.extend_from_slice(self.0.as_bytes());
        frame
    }

    /// Reads a name as it comes from a peer.
    pub(crate) fn from_wire(name: &[u8]) -> Result<Protocol, ProtocolError> {
        if name.is_empty() || name.len() > MAX_PROTOCOL_BYTES {
            return Err(ProtocolError::Length(name.len()));
        }
        if !well_formed(name) {
            return Err(ProtocolError::Form);
        }
        let name = str::from_utf8(name).map_err(|_| ProtocolError::Form)?;
        Ok(Protocol(Cow::Owned(name.to_owned())))
    }
}

/// What the first byte of a hello asks for, and how many bytes of name follow it.
pub(crate) fn hello_form(first: u8) -> Result<(Kind, usize), ProtocolError> {
    let kind = if first & DATAGRAMS == 0 { Kind::Stream } else { Kind::Datagrams };
    match usize::from(first & !DATAGRAMS) {
        length @ 1..=MAX_PROTOCOL_BYTES => Ok((kind, length)),
        length => Err(ProtocolError::Length(length)),
    }
}

const fn well_formed(name: &[u8]) -> bool {
    let mut slash = 0;
    while slash < name.len() && name[slash] != b'/' {
        let byte = name[slash];
        let later = byte.is_ascii_digit() || byte == b'-';
        if !(byte.is_ascii_lowercase() || slash > 0 && later) {
            return false;
        }
        slash += 1;
    }
    let mut end = slash + 1;
    if slash == 0
        || end >= name.len()
        || name.len() > MAX_PROTOCOL_BYTES
        || name[end] == b'0' && end + 1 < name.len()
    {
        return false;
    }
    while end < name.len() {
        if !name[end].is_ascii_digit() {
            return false;
        }
        end += 1;
    }
    true
}

impl FromStr for Protocol {
    type Err = ProtocolError;
    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        match text.len() {
            1..=MAX_PROTOCOL_BYTES => Protocol::from_wire(text.as_bytes()),
            length => Err(ProtocolError::Length(length)),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_one_form() {
        for good in ["send/1", "a/0", "dht-lookup/12", "x9/3"] {
            assert_eq!(good.parse::<Protocol>().unwrap().as_str(), good);
        }
        let long = format!("{}/1", "a".repeat(63));
        for wrong in
            ["", "send", "send/", "/1", "send/01", "Send/1", "9a/1", "send/1/2", "send/1 ", "se nd/1", &long]
        {
            assert!(wrong.parse::<Protocol>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_hello_is_read_as_it_was_written(name in "[a-z][a-z0-9-]{0,40}/[1-9][0-9]{0,3}", plain: bool) {
            let protocol: Protocol = name.parse().unwrap();
            let kind = if plain { Kind::Stream } else { Kind::Datagrams };
            let hello = protocol.hello(kind);
            prop_assert_eq!(hello_form(hello[0]), Ok((kind, hello.len() - 1)));
            prop_assert_eq!(Protocol::from_wire(&hello[1..]), Ok(protocol));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
            crate::fuzz::fuzz_hello(&bytes);
        }
    }
}
