//! What records a packet is made of, as far as can be seen without keys (RFC 9147 §4).

/// Bytes in front of a record in the clear.
const PLAIN_HEADER_BYTES: usize = 13;
/// The content type of handshake messages.
const HANDSHAKE: u8 = 22;
/// The type of a ClientHello among these.
const CLIENT_HELLO: u8 = 1;

/// What a packet consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    /// It holds a record in the clear, or something that is no record.
    pub(crate) clear: bool,
    /// It holds an encrypted record.
    pub(crate) sealed: bool,
}

/// Looks through a packet.
pub(crate) fn kinds(mut packet: &[u8]) -> Kinds {
    let mut kinds = Kinds::default();
    while let Some(&first) = packet.first() {
        let is_sealed = first & 0xe0 == 0x20;
        kinds.sealed |= is_sealed;
        kinds.clear |= !is_sealed;
        let length = if is_sealed { sealed_length(packet) } else { clear_length(packet) };
        match length.and_then(|length| packet.get(length..)) {
            Some(rest) => packet = rest,
            None => break,
        }
    }
    kinds
}

/// Whether a packet may open an association: it begins with the first part of a ClientHello.
pub(crate) fn is_client_hello(packet: &[u8]) -> bool {
    let (Some(header), Some(message)) = (packet.get(..PLAIN_HEADER_BYTES), packet.get(PLAIN_HEADER_BYTES..))
    else {
        return false;
    };
    let is_first_epoch = header[3..5] == [0, 0];
    // Message number, and where in the message its bytes belong.
    let is_beginning = message.get(4..9).is_some_and(|at| at == [0; 5]);
    header[0] == HANDSHAKE && is_first_epoch && message.first() == Some(&CLIENT_HELLO) && is_beginning
}

fn clear_length(packet: &[u8]) -> Option<usize> {
    let length = packet.get(PLAIN_HEADER_BYTES - 2..)?.first_chunk()?;
    Some(PLAIN_HEADER_BYTES + usize::from(u16::from_be_bytes(*length)))
}

/// `None` where the record says no length and takes the rest.
fn sealed_length(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let (has_id, number_bytes, has_length) =
        (first & 0x10 != 0, 1 + usize::from(first & 8 != 0), first & 4 != 0);
    if has_id || !has_length {
        return None;
    }
    let length = packet.get(1 + number_bytes..)?.first_chunk()?;
    Some(1 + number_bytes + 2 + usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HELLO: [u8; 25] =
        [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn records_are_told_apart_wherever_they_are_in_a_packet() {
        let sealed = [0x2f, 0, 0, 0, 2, 7, 7];
        let to_the_end = [0x2a, 0, 0, 22, 22];
        for (packet, clear, is_sealed) in [
            (&[][..], false, false),
            (&HELLO, true, false),
            (&sealed, false, true),
            (&[&HELLO[..], &sealed].concat(), true, true),
            (&[&sealed[..], &HELLO].concat(), true, true),
            (&[&sealed[..], &to_the_end, &HELLO].concat(), false, true),
            (&HELLO[..5], true, false),
            (&sealed[..3], false, true),
        ] {
            assert_eq!(kinds(packet), Kinds { clear, sealed: is_sealed }, "{packet:?}");
        }
    }

    #[test]
    fn only_the_beginning_of_a_client_hello_opens_an_association() {
        assert!(is_client_hello(&HELLO));
        for at in [0, 4, 13, 17, 18, 19, 20, 21] {
            let mut other = HELLO;
            other[at] ^= 2;
            assert!(!is_client_hello(&other), "{at}");
        }
        assert!(!is_client_hello(&HELLO[..20]));
    }

    proptest! {
        #[test]
        fn any_packet_is_looked_through_without_harm(packet: Vec<u8>) {
            let found = kinds(&packet);
            prop_assert_eq!(found.clear || found.sealed, !packet.is_empty());
            let _ = is_client_hello(&packet);
        }
    }
}
