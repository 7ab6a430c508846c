//! What fuzzing and the property tests feed with arbitrary bytes. Nothing here may panic but an assertion.

#![expect(clippy::expect_used, reason = "a failed expectation is what a fuzzer looks for")]

use std::sync::Arc;

use hickory_proto::op::{Message, MessageType};
use kith_identity::Identity;
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_sansio::{Machine, Now, SeededRng, Span, Time, Timestamp};

use crate::announce::{Announce, Complaint, Limits, admit};
use crate::defaults::MAX_UDP_BYTES;
use crate::dns::ask::Ask;
use crate::dns::notice::acknowledged;
use crate::dns::transfer::{Extent, MAX_MESSAGE_BYTES, Request, Transfer};
use crate::dns::tsig::{Algorithm, Found, Key, Signer, find};
use crate::dns::{Step, Transport, Zone, answer, read_whole, truncated};
use crate::lan::{self, Input, Link, Output};
use crate::members::{Members, MembersError};
use crate::store::{Difference, Held, RedisConfig, interpreted};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn somebody() -> Identity {
    Identity::generate(&mut SeededRng::new(7))
}

/// A set that fits into one UDP answer for small `blob_bytes`, needs TCP for more, and HTTPS for most.
fn some_set(blob_bytes: usize) -> VerifiedRecordSet {
    let draft = Draft { blobs: vec![vec![1; blob_bytes]], ..Draft::default() };
    draft.sign(&somebody(), NOW).expect("a small draft makes a set")
}

/// A query of any bytes gets silence or one well-formed answer of bounded size with the same id.
pub fn fuzz_dns_query(data: &[u8]) {
    let zone = Zone::new(&"example.org".parse().expect("an authority")).expect("a zone");
    for transport in [Transport::Udp, Transport::Tcp] {
        let blob_bytes = data.len() * 37 % 5000;
        let reply = answer(data, transport, &zone, NOW, |_| Some(some_set(blob_bytes)));
        let held = Held::of(&some_set(blob_bytes));
        let whole = match read_whole(data, transport, &zone) {
            Step::Silence => None,
            Step::Reply(bytes) => Some(bytes),
            Step::Lookup(question) => Some(question.answer(Some(&held), &zone, NOW)),
        };
        assert_eq!(reply, whole, "the short way and the long way");
        let Some(reply) = reply else { continue };
        let limit =
            if transport == Transport::Udp { usize::from(MAX_UDP_BYTES) } else { usize::from(u16::MAX) };
        assert!(reply.len() <= limit, "{} bytes", reply.len());
        assert_eq!(reply.get(..2), data.get(..2));
        let message = Message::from_vec(&reply).expect("our answers can be read");
        assert_eq!(message.metadata.message_type, MessageType::Response);
        assert!(answer(&reply, transport, &zone, NOW, |_| None).is_none(), "an answer to an answer");
    }
    if let Some(cut) = truncated(data) {
        assert!(cut.len() <= data.len(), "larger than its query");
        assert!(Message::from_vec(&cut).expect("our answers can be read").metadata.truncation);
    }
}

/// A signature of any bytes counts for nothing, its refusal can be read, and a transfer that any bytes ask for is
/// well-formed.
pub fn fuzz_dns_signed(data: &[u8]) {
    let zone = Zone::new(&"example.org".parse().expect("an authority")).expect("a zone");
    zone.serial.raise(NOW.0 / 10);
    let key = Arc::new(Key::new("transfer.example", Algorithm::HmacSha256, &[7; 32]).expect("a key"));
    if let Found::Signed(signed) = find(data) {
        // A corpus cannot hold a right code for the time of the test but by knowing the key.
        if let Err(fault) = signed.verify(std::slice::from_ref(&key), NOW, None) {
            let refusal = signed.refuse(&fault, NOW);
            assert_eq!(refusal.get(..2), data.get(..2));
            assert!(fault.code() == 0 || matches!(find(&refusal), Found::Signed(_)));
        }
        let _ = acknowledged(&signed.message(), &zone);
        transfer(&signed.message(), &zone, &key);
    }
    transfer(data, &zone, &key);
    altered(data, &key);
}

/// The transfer that a message asks for, if it does, with one set, or with its change from a smaller one.
fn transfer(message: &[u8], zone: &Zone, key: &Arc<Key>) {
    let Some(request) = Request::read(message, zone) else { return };
    let mut transfer = Transfer::new(request, zone, Signer::request(Arc::clone(key)));
    let set = some_set(message.len() * 37 % 5000);
    let (fingerprint, after) = (set.fingerprint(), Some(Held::of(&set)));
    match (transfer.extent(), &after) {
        (Extent::Since(from), _) => {
            assert!(from < transfer.number());
            let difference = Difference { fingerprint, before: Some(Held::of(&some_set(0))), after };
            transfer.soa(NOW);
            transfer.soa_of(from, NOW);
            transfer.taken(&difference, NOW);
            transfer.soa(NOW);
            transfer.brought(&difference, NOW);
        }
        (Extent::Whole, Some(set)) => {
            transfer.apex(NOW);
            transfer.set(&fingerprint, set, NOW);
        }
        _ => {}
    }
    transfer.soa(NOW);
    let bytes = transfer.finish(NOW);
    let mut rest = bytes.as_slice();
    while let Some((length, tail)) = rest.split_first_chunk() {
        let (message, tail) = tail.split_at(usize::from(u16::from_be_bytes(*length)));
        assert!(message.len() <= MAX_MESSAGE_BYTES);
        Message::from_vec(message).expect("our answers can be read");
        rest = tail;
    }
}

/// A signed message that was altered by `data` either says what it said, or its signature does not count.
fn altered(data: &[u8], key: &Arc<Key>) {
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x020a\x07example\x03org\0\0\xfc\0\x01";
    let mut message = query.to_vec();
    Signer::request(Arc::clone(key)).sign(&mut message, NOW);
    for (byte, change) in message.iter_mut().zip(data) {
        *byte ^= change;
    }
    if let Found::Signed(signed) = find(&message)
        && signed.verify(std::slice::from_ref(key), NOW, None).is_ok()
    {
        assert_eq!(signed.message().get(2..), query.get(2..));
    }
}

/// Whatever a resolver sends is understood or ignored.
pub fn fuzz_dns_answer(data: &[u8]) {
    let id = data.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let name = format!("{0}.{0}.0a.example.org", "0".repeat(32));
    let ask = Ask::new(id, &name).expect("a name");
    let _ = ask.hear(data);
    // The same bytes behind a header and a question that pass.
    let mut answer = ask.to_bytes();
    answer.truncate(answer.len() - 11);
    answer[2] |= 0x80;
    answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    answer.extend_from_slice(data);
    let _ = ask.hear(&answer);
}

/// An announce of any bytes is refused with a status of the design, or is a valid set of that node.
pub fn fuzz_announce_body(data: &[u8]) {
    let somebody = somebody();
    let named = somebody.fingerprint();
    let request = Announce { client_key: Some(somebody.public()), named: &named, body: data };
    match admit(NOW, &request, &Limits::default(), None) {
        Ok(set) => assert!(set.is_valid_at(NOW) && set.fingerprint() == named),
        Err(refusal) => {
            assert!(matches!(refusal.status(), 413 | 422));
            let complaint = Complaint::from_json(&refusal.to_json()).expect("our refusals can be read");
            assert!(!complaint.error.is_empty() && !complaint.hint.is_empty());
        }
    }
}

/// A list of members of any bytes is refused with a line, or holds no more than it has lines.
pub fn fuzz_members(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    match Members::parse(data) {
        Ok(members) => assert!(members.len() <= lines),
        Err(MembersError::Line { line, .. } | MembersError::NoText { line }) => {
            assert!((1..=lines).contains(&line));
        }
        Err(_) => {}
    }
}

/// What stands in a store is damage, or is rendered as the set of that node; nothing of it is believed.
pub fn fuzz_held(data: &[u8]) {
    let somebody = somebody();
    let mut damaged = some_set(data.len() % 64).to_bytes();
    if let [place, byte, ..] = *data {
        let at = usize::from(place) % damaged.len();
        damaged[at] ^= byte;
    }
    for bytes in [data.to_vec(), damaged] {
        let Some(held) = Held::from_bytes(&somebody.fingerprint(), bytes) else { continue };
        let mut texts = Vec::new();
        let whole = held.each_text(|text| {
            let mut bytes = Vec::new();
            text.write(&mut bytes);
            assert_eq!(bytes.len(), text.len());
            texts.push(bytes);
        });
        if let Some(set) = held.to_record_set() {
            assert!(whole);
            assert_eq!(set.to_txt(), texts);
        }
    }
}

/// Whatever a server of a Redis store answers is understood, or left out; what is learned of a cluster is bounded, and
/// can be connected to and shown.
pub fn fuzz_redis_answer(data: &[u8]) {
    let Some((slots, fingerprints)) = interpreted(data) else { return };
    // A row takes more than a byte, and so does a server.
    assert!(slots.len() <= data.len() && fingerprints.len() * 32 <= data.len());
    for (first, last, servers) in slots {
        assert!(first <= last && last < 16_384 && !servers.is_empty() && servers.len() <= 64);
        for server in servers {
            let text = server.to_string();
            assert!(!text.chars().any(char::is_control) && text.parse() == Ok(server), "{text:?}");
        }
    }
}

/// The address of a store of any bytes, one or several, is refused with a reason, or means what it says when it is
/// written again without its password.
pub fn fuzz_redis_address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let urls: Vec<&str> = text.split('\n').collect();
    let config = match RedisConfig::parse(&urls) {
        Ok(config) => config,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = config.to_string();
    assert!(!config.servers.is_empty() && config.servers.len() <= 64);
    assert!(!written.contains('@') && !written.chars().any(char::is_control), "{written:?}");
    let again = RedisConfig::parse(&[&written]).expect("what is written can be read");
    assert_eq!(again, RedisConfig { user: None, password: None, ..config });
}

/// Whatever a directory complains about can be shown on a terminal.
pub fn fuzz_http_error(data: &[u8]) {
    let Some(complaint) = Complaint::from_json(data) else { return };
    assert!(!complaint.error.chars().chain(complaint.hint.chars()).any(char::is_control));
    assert_eq!(Complaint::from_json(&complaint.to_json()), Some(complaint));
}

/// Any packet on a local network leaves the machine of the network in order: what it sends is bounded and can be read
/// again, and its timers go on.
pub fn fuzz_lan_packet(data: &[u8]) {
    let mut rng = SeededRng::new(7);
    let mut link = Link::new();
    let own = somebody().fingerprint();
    let mut now = Now { time: Time(0), utc: NOW };
    link.handle_input(now, Input::Show(own), &mut rng);
    link.handle_input(now, Input::Seek { search: 1, target: own }, &mut rng);
    if let Some(message) = lan::Message::read(data) {
        link.handle_input(now, Input::Heard(message), &mut rng);
    }
    let mut sent = 0;
    for _ in 0..20 {
        while let Some(output) = link.poll_output() {
            match output {
                Output::Send(packet) => {
                    sent += 1;
                    assert!(packet.len() <= usize::from(MAX_UDP_BYTES), "{} bytes", packet.len());
                    assert!(lan::Message::read(&packet).is_some(), "our packets can be read");
                }
                Output::Say(question) => {
                    let set = Some(some_set(3000).to_bytes());
                    link.handle_input(now, Input::Said { question, set }, &mut rng);
                }
                Output::Found { set, .. } => {
                    set.verify(&own, now.utc).expect("a set that was found is valid");
                }
            }
        }
        let next = link.poll_timeout().expect("a node that shows itself has a timer");
        now.time = next.max(now.time + Span(1));
        link.handle_timeout(now, &mut rng);
    }
    assert!(sent < 256, "{sent} packets for one");
}
