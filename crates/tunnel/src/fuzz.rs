//! Entry points for fuzzing: ordinary functions that assert what must hold for any bytes.

use bytes::Bytes;
use kith_sansio::{Span, Time};

use crate::{Cidr, Fit, Frame, Halves, Header, Switch, fit, halves, icmp};

/// A packet that is read is as long as it says; what is answered to it is a packet; halves of it make it again.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_packet(data: &[u8]) {
    let Ok(header) = Header::read(data) else { return };
    for max_size in [0, 600, 1160, 1398, 65_535] {
        let Fit::TooLarge(mtu) = fit(&header, data.len(), max_size) else { continue };
        if let Some(answer) = icmp::too_large(data, &header, mtu) {
            let Ok(answered) = Header::read(&answer) else { panic!("an answer that is no packet") };
            if answered.destination != header.source || icmp::unreachable(&answer, &answered).is_some() {
                panic!("an answer to somebody else, or one that is answered: {answered:?}");
            }
        }
    }
    let mut switch = Switch::default();
    let is_set = switch.set(1, &[Cidr::host(header.source)]).is_ok();
    if !is_set || switch.inbound(1, data) != Ok(header) || switch.inbound(2, data).is_ok() {
        panic!("a packet is not its sender's alone: {header:?}");
    }
    let mut waiting = Halves::default();
    let mut joined = None;
    for half in halves(7, data) {
        let Some(Frame::Half { id, is_second, bytes }) = Frame::read(half.freeze()) else {
            panic!("a half that is none");
        };
        joined = waiting.join(Time(0), id, is_second, bytes);
    }
    if joined.as_deref() != Some(data) {
        panic!("halves that make another packet");
    }
}

/// Datagrams of a peer, each after its length in two bytes: whatever they are, what comes out is no larger than a packet.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_frame(data: &[u8]) {
    let (mut rest, mut waiting, mut now) = (data, Halves::default(), Time(0));
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (datagram, after) = after.split_at(length);
        rest = after;
        now += Span::millis(100);
        if let Some(Frame::Half { id, is_second, bytes }) = Frame::read(Bytes::copy_from_slice(datagram))
            && let Some(packet) = waiting.join(now, id, is_second, bytes)
            && packet.len() > crate::MAX_PACKET_BYTES
        {
            panic!("a packet of {} bytes", packet.len());
        }
    }
}

/// A network either is refused or is written again so that it is read as the same.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_network(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(network) = text.parse::<Cidr>() else { return };
    if network.to_string().parse() != Ok(network) || !network.network().contains(network.ip()) {
        panic!("a network changed on its way: {network}");
    }
}
