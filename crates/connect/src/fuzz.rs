//! Entry points for fuzzing: ordinary functions that assert what must hold for any bytes.

use crate::protocol::{Protocol, hello_length};
use crate::relay::Message;

/// A hello either is refused or is written again as it was read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_hello(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let Ok(length) = hello_length(first) else { return };
    let Some(name) = rest.get(..length) else { return };
    if let Ok(protocol) = Protocol::from_wire(name)
        && protocol.hello() != data[..=length]
    {
        panic!("a hello changed on its way: {protocol}");
    }
}

/// A message of `relay/1` either is refused or is written again as it was read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_relay_message(data: &[u8]) {
    if let Ok(message) = Message::from_cbor(data)
        && message.to_cbor() != data
    {
        panic!("a message changed on its way: {message:?}");
    }
}
