//! Entry points for fuzzing: ordinary functions that assert what must hold for any bytes.

use std::sync::Arc;

use kith_identity::Fingerprint;
use kith_sansio::{Machine, Now, SeededRng, Span};

use crate::delegator::{
    self, Card, Epoch, Message, Policy, Server, ServerInput, SessionId, Subscriber, SubscriberInput, message,
};
use crate::protocol::{Protocol, hello_length};
use crate::relay;

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
    if let Ok(message) = relay::Message::from_cbor(data)
        && message.to_cbor() != data
    {
        panic!("a message changed on its way: {message:?}");
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
                subscriber.handle_timeout(now, &mut rng);
                continue;
            }
            Said::Other(0) => SubscriberInput::Connected,
            Said::Other(1) => SubscriberInput::Lost,
            Said::Other(_) => SubscriberInput::Nudged,
            Said::Message(message) => SubscriberInput::Received(message),
        };
        subscriber.handle_input(now, input, &mut rng);
        let outputs = std::iter::from_fn(|| subscriber.poll_output()).count();
        if outputs > 4 || subscriber.list().len() > delegator::MAX_MEMBERS {
            panic!("{outputs} outputs for one message");
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
                server.handle_timeout(now, &mut rng);
                continue;
            }
            Said::Other(0) => ServerInput::Policy(Arc::clone(&full)),
            Said::Other(1) => ServerInput::Policy(Arc::clone(&empty)),
            Said::Other(_) => {
                last += 1;
                ServerInput::Opened(SessionId(last), peer)
            }
            Said::Message(message) => ServerInput::Received(SessionId(last), message),
        };
        server.handle_input(now, input, &mut rng);
        let outputs = std::iter::from_fn(|| server.poll_output()).count();
        if outputs > 4 || server.sessions() > 2 {
            panic!("{outputs} outputs for one message, {} streams", server.sessions());
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
