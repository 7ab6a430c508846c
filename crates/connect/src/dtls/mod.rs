//! DTLS 1.3 without a socket: one association with a peer, and all those of one UDP port. Pure.
//!
//! An application datagram says by its first byte what it is:
//!
//! ```text
//! 0x00 ‖ datagram        what the floors above exchange
//! 0x01 ‖ hello           the initiator names the protocol; resent until it is answered
//! 0x02 ‖ u8 answer       0x01 admitted, 0x00 refused; resent for each hello
//! 0x03                   a sign of life
//! 0x04 ‖ u16 size ‖ …    a packet of that size, to find out whether one goes through
//! 0x05 ‖ u16 size        it did
//! ```
//!
//! Whatever has another form is passed over.

mod association;
mod hub;
mod record;
mod size;
#[cfg(test)]
mod tests;

use kith_sansio::{Span, Time, system};

pub(crate) use association::{Association, End};
pub(crate) use hub::{Hub, Id, Limits, Output};

/// Largest UDP payload that is sent before more is known to go through, in bytes: what every IPv6 path carries (RFC 8200 §5).
const MTU_BYTES: usize = 1280 - 40 - 8;
/// What DTLS takes of it: header, content type, authentication tag.
const RECORD_BYTES: usize = 5 + 1 + 16;
/// What DTLS and this layer take of it.
const OVERHEAD_BYTES: usize = RECORD_BYTES + 1;
/// Largest datagram that is sent before more is known to go through, in bytes.
pub(crate) const MAX_DATAGRAM_BYTES: usize = MTU_BYTES - OVERHEAD_BYTES;
/// Largest UDP payload that is looked at, in bytes: other implementations may know a larger path.
pub(crate) const MAX_PACKET_BYTES: usize = 2048;
/// Packets of one association that wait for one before them, in a handshake.
const MAX_WAITING_PACKETS: usize = 30;
/// More than any message of a handshake can have: all packets that may wait.
const MAX_MESSAGE_BYTES: usize = MAX_WAITING_PACKETS * MAX_PACKET_BYTES;

/// How long a flight of the handshake waits for its answer at first; each wait is twice the one before it.
const FIRST_RESEND: Span = Span::millis(500);
/// How long a hello waits for its answer at first.
const FIRST_HELLO: Span = Span::millis(250);
/// The longest such wait.
const LAST_HELLO: Span = Span::secs(1);
/// How long an initiator may take to show that its address is its own.
const PROOF_TIMEOUT: Span = Span::secs(3);

const DATAGRAM: u8 = 0x00;
const HELLO: u8 = 0x01;
const ANSWER: u8 = 0x02;
const ALIVE: u8 = 0x03;
const PROBE: u8 = 0x04;
const PROBED: u8 = 0x05;

/// The house's time of an instant, for the timers of the library; rounded up, so that nothing is woken too early.
fn time_of(instant: std::time::Instant) -> Time {
    let since = instant.saturating_duration_since(system::instant(Time(0)));
    Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX).saturating_add(1))
}
