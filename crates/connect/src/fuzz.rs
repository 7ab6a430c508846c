//! Entry points for fuzzing: ordinary functions that assert what must hold for any bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kith_identity::{Fingerprint, Identity, Reach};
use kith_sansio::{Machine, Now, SeededRng, Span, Time, Timestamp};

use crate::datagram::{Flow, Frames, put_frame};
use crate::delegator::{
    self, Card, Epoch, Message, Policy, Server, ServerInput, SessionId, Subscriber, SubscriberInput, message,
};
use crate::direct;
use crate::dtls;
use crate::mapping::{Input, Kind, Mapper, Router, Wanted, pcp, upnp};
use crate::membership;
use crate::protocol::{Protocol, hello_form};
use crate::relay;

/// A hello either is refused or is written again as it was read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_hello(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let Ok((kind, length)) = hello_form(first) else { return };
    let Some(name) = rest.get(..length) else { return };
    if let Ok(protocol) = Protocol::from_wire(name)
        && protocol.hello(kind) != data[..=length]
    {
        panic!("a hello changed on its way: {protocol}");
    }
}

/// A message of `relay/1` either is refused or is written again as it was read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_relay_message(data: &[u8]) {
    if let Ok(message) = relay::Message::from_cbor(data)
        && message.to_cbor() != data
    {
        panic!("a message changed on its way: {message:?}");
    }
}

/// A message of `direct/1` either is refused or is written again as it was read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_direct_message(data: &[u8]) {
    if let Ok(message) = direct::Candidates::from_bytes(data)
        && message.to_bytes() != data
    {
        panic!("a message changed on its way: {message:?}");
    }
}

/// A probe either is something else or is written again as it was read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_direct_probe(data: &[u8]) {
    if let Some(probe) = direct::Probe::from_bytes(data)
        && probe.to_bytes() != data
    {
        panic!("a probe changed on its way: {probe:?}");
    }
}

/// A message of a delegator or a subscriber either is refused or is written again as it was read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_delegator_message(data: &[u8]) {
    if let Ok(message) = Message::from_cbor(data)
        && message.to_bytes()[message::LENGTH_BYTES..] != *data
    {
        panic!("a message changed on its way: {message:?}");
    }
}

/// A question to an issuer, or its answer, either is refused or is written again as it was read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_network_message(data: &[u8]) {
    if let Ok(question) = membership::Question::from_bytes(data)
        && (question.to_bytes()[3..] != *data || data.len() > membership::MAX_QUESTION_BYTES)
    {
        panic!("a question changed on its way: {question:?}");
    }
    if let Ok(answer) = membership::Answer::from_bytes(data)
        && (answer.to_bytes()[3..] != *data || data.len() > membership::MAX_ANSWER_BYTES)
    {
        panic!("an answer changed on its way: {answer:?}");
    }
}

/// Whatever a delegator says in whatever order, a subscriber stays within its limits and comes to rest.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_delegator_subscriber(data: &[u8]) {
    let (mut now, mut rng) = (Now::default(), SeededRng::new(1));
    let mut subscriber = Subscriber::new(Fingerprint::from_bytes([7; 32]), now);
    for said in said(data) {
        let input = match said {
            Said::Wait(span) => {
                now.time += span;
                now.utc = now.utc.plus_secs(span.as_secs());
                None
            }
            Said::Other(0) => Some(SubscriberInput::Connected),
            Said::Other(1) => Some(SubscriberInput::Lost),
            Said::Other(_) => Some(SubscriberInput::Nudged),
            Said::Message(message) => Some(SubscriberInput::Received(message)),
        };
        match input {
            Some(input) => subscriber.handle_input(now, input, &mut rng),
            None => subscriber.handle_timeout(now, &mut rng),
        }
        let outputs = std::iter::from_fn(|| subscriber.poll_output()).count();
        if outputs > 4 || subscriber.list().len() > delegator::MAX_MEMBERS {
            panic!("{outputs} outputs for one step");
        }
    }
    now.time += Span::secs(2 * 86_400);
    subscriber.handle_timeout(now, &mut rng);
    if subscriber.entries(now).next().is_some() {
        panic!("a list is in force that nobody vouches for");
    }
}

/// Whatever a subscriber says in whatever order, its delegator answers each word once at most, and forgets the stream.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_delegator_server(data: &[u8]) {
    let (mut now, mut rng) = (Now::default(), SeededRng::new(1));
    let (peer, mut last) = (Fingerprint::from_bytes([7; 32]), 1);
    let mut policy = Policy::default();
    if let (Ok(name), Ok(group)) = ("member".parse(), "group".parse()) {
        let card = Card { name, authority: None, hints: Vec::new() };
        let _it_fits = policy.enter(peer, card, group);
    }
    let (full, empty) = (Arc::new(policy), Arc::new(Policy::default()));
    let mut server = Server::new(Arc::clone(&full), Epoch([1; 16]), Span::secs(3600));
    server.handle_input(now, ServerInput::Opened(SessionId(last), peer), &mut rng);
    for said in said(data) {
        let input = match said {
            Said::Wait(span) => {
                now.time += span;
                None
            }
            Said::Other(0) => Some(ServerInput::Policy(Arc::clone(&full))),
            Said::Other(1) => Some(ServerInput::Policy(Arc::clone(&empty))),
            Said::Other(_) => {
                last += 1;
                Some(ServerInput::Opened(SessionId(last), peer))
            }
            Said::Message(message) => Some(ServerInput::Received(SessionId(last), message)),
        };
        match input {
            Some(input) => server.handle_input(now, input, &mut rng),
            None => server.handle_timeout(now, &mut rng),
        }
        let outputs = std::iter::from_fn(|| server.poll_output()).count();
        if outputs > 4 || server.sessions() > 2 {
            panic!("{outputs} outputs for one step, {} streams", server.sessions());
        }
    }
    (1..=last).for_each(|one| server.handle_input(now, ServerInput::Closed(SessionId(one)), &mut rng));
    if server.sessions() > 0 || server.poll_timeout().is_some() {
        panic!("a stream that has ended is remembered");
    }
}

/// One thing that happens, as fuzzed bytes say it.
enum Said {
    Message(Message),
    Wait(Span),
    Other(u8),
}

/// `ff n`: time passes; `fe n`: something without a message; `n` below: so many bytes of a message, 256 times the first.
fn said(mut data: &[u8]) -> impl Iterator<Item = Said> {
    std::iter::from_fn(move || {
        loop {
            let (&[first, second], rest) = data.split_first_chunk::<2>()?;
            data = rest;
            match first {
                0xff => return Some(Said::Wait(Span::secs(u64::from(second) * 8))),
                0xfe => return Some(Said::Other(second % 3)),
                _ => {
                    let length = (usize::from(first) << 8 | usize::from(second)).min(data.len());
                    let (message, rest) = data.split_at(length);
                    data = rest;
                    if let Ok(message) = Message::from_cbor(message) {
                        return Some(Said::Message(message));
                    }
                }
            }
        }
    })
}

/// Whatever a router says, the mapper goes on, tells public addresses alone and no more than one for each listener; and
/// what it says of itself over UPnP leads to no other host.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_router(data: &[u8]) {
    let gateway = Ipv4Addr::new(192, 168, 1, 1);
    let mut rng = SeededRng::new(7);
    let wanted = [Wanted { kind: Kind::Udp, port: 7117 }, Wanted { kind: Kind::Tcp, port: 7117 }];
    let mut mapper = Mapper::new(wanted, &mut rng);
    let mut now = Now { time: Time(0), utc: Timestamp(0) };
    let router = Router { gateway, own: Ipv4Addr::new(192, 168, 1, 5) };
    mapper.handle_input(now, Input::Router(Some(router)), &mut rng);
    for _ in 0..12 {
        mapper.handle_input(now, Input::Heard(data.to_vec()), &mut rng);
        while mapper.poll_output().is_some() {}
        let mapped = mapper.mapped();
        if mapped.len() > wanted.len() || mapped.iter().any(|one| one.reach() != Reach::Global) {
            panic!("a router made this node say {mapped:?}");
        }
        let Some(next) = mapper.poll_timeout() else { panic!("the mapper sleeps for ever") };
        now.time = next.max(now.time + Span(1));
        mapper.handle_timeout(now, &mut rng);
    }
    if let Some(place) = upnp::location(data, gateway)
        && place.at.ip() != gateway
    {
        panic!("led to {}", place.at);
    }
    let own = upnp::Place { at: (gateway, 5000).into(), path: "/".to_owned() };
    let text = String::from_utf8_lossy(data);
    if let Some(service) = upnp::service(&text, &own)
        && service.control.at.ip() != gateway
    {
        panic!("led to {}", service.control.at);
    }
    let _ = (upnp::answered_address(&text), upnp::refused(&text), pcp::read(data));
}

/// Frames come out the same however their bytes are cut, and are written again as they were read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_frames(data: &[u8]) {
    let Some((&piece, wire)) = data.split_first() else { return };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut frames, mut whole) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames.buffer().extend_from_slice(piece);
            whole.extend(std::iter::from_fn(|| frames.next()));
        }
        whole
    };
    let whole = read(&mut std::iter::once(wire));
    if whole != read(&mut wire.chunks(usize::from(piece).max(1))) {
        panic!("frames depend on how their bytes are cut");
    }
    let mut again = BytesMut::new();
    whole.iter().for_each(|datagram| {
        put_frame(&mut again, datagram);
    });
    if !wire.starts_with(&again) {
        panic!("a frame changed on its way");
    }
}

/// What is in front of a datagram either is no flow, or is written again as it was read.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_flow(data: &[u8]) {
    let mut datagram = Bytes::copy_from_slice(data);
    let Some(flow) = Flow::take(&mut datagram) else { return };
    let mut again = BytesMut::new();
    flow.put(&mut again);
    again.extend_from_slice(&datagram);
    if again != data {
        panic!("a flow changed on its way: {flow:?}");
    }
}

/// Whatever arrives at a port for DTLS, among the packets of somebody who means well, what strangers cost stays bounded,
/// the library does not panic, and in the end everything comes to rest.
///
/// The first byte of each step says what happens: a packet of one of four addresses, a packet of the one who means well
/// with some of its bytes changed, or with none, or that time passes.
#[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
pub fn fuzz_dtls(data: &[u8]) {
    let Some(mut world) = Dtls::new() else { return };
    let mut rest = data.get(..data.len().min(1 << 14)).unwrap_or_default();
    while let Some((&step, later)) = rest.split_first() {
        let length = later.first().map_or(0, |length| usize::from(*length) * usize::from(step >> 4).max(1));
        let (words, left) = later.get(1..).unwrap_or_default().split_at_checked(length).unwrap_or_default();
        rest = left;
        match step & 3 {
            0 => world.server.handle_packet(world.now, Dtls::at(step), words),
            1 => world.exchange(words),
            2 => world.exchange(&[]),
            _ => world.now.time += Span::millis(words.len() as u64 * 37),
        }
        world.settle();
    }
    // Whoever was let in says that he lives for ever; all others are gone.
    for _ in 0..100 {
        world.now.time += Span::secs(1);
        world.settle();
    }
    if !world.server.is_empty() {
        panic!("an association stays that nobody keeps alive");
    }
}

/// A target and an initiator who know nothing of one another but what the fuzzer passes on.
struct Dtls {
    now: Now,
    server: dtls::Hub,
    client: dtls::Hub,
    to_server: Vec<Bytes>,
    to_client: Vec<Bytes>,
}

impl Dtls {
    fn new() -> Option<Dtls> {
        let identity = |seed| Arc::new(Identity::generate(&mut SeededRng::new(seed)));
        let limits = dtls::Limits { half_open: 2, half_open_per_source: 1, patience: Span::secs(10) };
        let now = Now { time: Time(1), utc: Timestamp(1_790_000_000) };
        let server = dtls::Hub::new(identity(1), limits, true).ok()?;
        let mut client = dtls::Hub::new(identity(2), limits, false).ok()?;
        client.connect(now, Dtls::at(0), identity(1).fingerprint()).ok()?;
        Some(Dtls { now, server, client, to_server: Vec::new(), to_client: Vec::new() })
    }

    fn at(number: u8) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1 + (number >> 2 & 3)), 7117))
    }

    /// Delivers what is on its way, with `changes` in the first packet to the server.
    fn exchange(&mut self, changes: &[u8]) {
        for (number, packet) in std::mem::take(&mut self.to_server).into_iter().enumerate() {
            let mut packet = packet.to_vec();
            for change in changes.chunks_exact(3).filter(|_| number == 0) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % packet.len().max(1);
                if let Some(byte) = packet.get_mut(at) {
                    *byte ^= change[2];
                }
            }
            self.server.handle_packet(self.now, Dtls::at(0), &packet);
        }
        for packet in std::mem::take(&mut self.to_client) {
            self.client.handle_packet(self.now, Dtls::at(0), &packet);
        }
    }

    /// Lets timers fire, and answers as an endpoint would.
    #[expect(clippy::panic, reason = "a fuzz target speaks by panicking")]
    fn settle(&mut self) {
        self.server.handle_timeout(self.now);
        self.client.handle_timeout(self.now);
        while let Some(output) = self.server.poll_output() {
            match output {
                dtls::Output::Transmit(to, packet) if to == Dtls::at(0) => self.to_client.push(packet),
                dtls::Output::Heard(id, _) => self.server.answer(self.now, id, true),
                dtls::Output::Over(_, dtls::End::Flaw) => panic!("the library panicked"),
                _ => {}
            }
        }
        while let Some(output) = self.client.poll_output() {
            match output {
                dtls::Output::Transmit(_, packet) => self.to_server.push(packet),
                dtls::Output::Reached(id) => self.client.ask(self.now, id, b"\x86tun/12"),
                dtls::Output::Over(_, dtls::End::Flaw) => panic!("the library panicked"),
                _ => {}
            }
        }
        let woken = [self.server.poll_timeout(), self.client.poll_timeout()];
        if woken.into_iter().flatten().any(|due| due <= self.now.time) {
            panic!("a timer is due that has just fired");
        }
        if self.server.cost() > 4 + 1 {
            panic!("strangers cost more than they may");
        }
    }
}
