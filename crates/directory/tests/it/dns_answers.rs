//! What the zone answers, as a pure function; read by the codec alone.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use kith_directory::dns::{Transport, Zone, answer};
use kith_identity::Ni;
use kith_identity::record::{Draft, Record, RecordSet, VerifiedRecordSet};
use kith_sansio::Timestamp;
use proptest::prelude::*;

use crate::world::{NOW, identity, set, set_with_blobs};

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    query_for(Name::from_ascii(name).unwrap(), kind)
}

fn query_for(mut name: Name, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    message.metadata.recursion_desired = true;
    message
}

pub(crate) fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(0);
    message.set_edns(edns);
    message
}

fn zone() -> Zone {
    Zone::new(&"example.org".parse().unwrap()).unwrap()
}

fn fqdn(seed: u64) -> String {
    Ni::new(identity(seed).fingerprint(), Some("example.org".parse().unwrap())).fqdn().unwrap()
}

fn asked(message: &Message, transport: Transport, zone: &Zone, held: Option<&VerifiedRecordSet>) -> Message {
    asked_at(message, transport, zone, held, NOW)
}

fn asked_at(
    message: &Message,
    transport: Transport,
    zone: &Zone,
    held: Option<&VerifiedRecordSet>,
    now: Timestamp,
) -> Message {
    let bytes = message.to_vec().unwrap();
    let reply = answer(&bytes, transport, zone, now, |fingerprint| {
        held.filter(|set| set.fingerprint() == *fingerprint).cloned()
    });
    let reply = Message::from_vec(&reply.unwrap()).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    assert_eq!(reply.metadata.message_type, MessageType::Response);
    assert!(!reply.metadata.recursion_available);
    reply
}

fn tcp(name: &str, kind: RecordType, held: Option<&VerifiedRecordSet>) -> Message {
    asked(&query(name, kind), Transport::Tcp, &zone(), held)
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

fn texts(message: &Message) -> Vec<Vec<u8>> {
    let of = |data: &RData| match data {
        RData::TXT(txt) => txt.txt_data.concat(),
        other => panic!("{other:?}"),
    };
    message.answers.iter().map(|record| of(&record.data)).collect()
}

/// NODATA and NXDOMAIN carry the SOA, so that resolvers know for how long.
fn has_only_soa(message: &Message) -> u32 {
    assert!(message.answers.is_empty());
    let [record] = message.authorities.as_slice() else { panic!("{message:?}") };
    assert_eq!(record.name.to_ascii(), "0a.example.org.");
    let RData::SOA(soa) = &record.data else { panic!("{record:?}") };
    assert_eq!(record.ttl, soa.minimum);
    record.ttl
}

#[test]
fn a_set_is_given_as_txt_records_that_verify() {
    let alice = identity(1);
    let held = set(&alice, NOW, 3600);
    let reply = tcp(&fqdn(1), RecordType::TXT, Some(&held));
    assert_eq!(code(&reply), ResponseCode::NoError);
    assert!(reply.metadata.authoritative);
    assert!(reply.answers.iter().all(|record| record.ttl == 60 && record.dns_class == DNSClass::IN));
    let back = RecordSet::from_txt(texts(&reply)).unwrap().verify(&alice.fingerprint(), NOW);
    assert_eq!(back.unwrap(), held);
}

#[test]
fn ttl_ends_with_the_set() {
    let held = set(&identity(1), NOW, 3600);
    let ttl = |at| {
        let reply = asked_at(&query(&fqdn(1), RecordType::TXT), Transport::Tcp, &zone(), Some(&held), at);
        (code(&reply), reply.answers.first().map(|record| record.ttl))
    };
    assert_eq!(ttl(NOW.plus_secs(3539)), (ResponseCode::NoError, Some(60)));
    assert_eq!(ttl(NOW.plus_secs(3599)), (ResponseCode::NoError, Some(1)));
    assert_eq!(ttl(NOW.plus_secs(3600)), (ResponseCode::NXDomain, None));
    let a =
        asked_at(&query(&fqdn(1), RecordType::A), Transport::Tcp, &zone(), Some(&held), NOW.plus_secs(3590));
    assert_eq!(
        (code(&a), has_only_soa(&a)),
        (ResponseCode::NoError, 10),
        "NODATA of a node ends with it too"
    );
}

#[test]
fn apex_has_soa_and_ns_and_nothing_else() {
    let soa = tcp("0a.example.org", RecordType::SOA, None);
    assert!(matches!(&soa.answers[..], [record] if matches!(record.data, RData::SOA(_))));
    let ns = tcp("0a.example.org", RecordType::NS, None);
    let RData::NS(host) = &ns.answers[0].data else { panic!("{ns:?}") };
    assert_eq!(host.0.to_ascii(), "example.org.");
    for kind in [RecordType::A, RecordType::TXT, RecordType::MX, RecordType::Unknown(65_280)] {
        let reply = tcp("0a.example.org", kind, None);
        assert_eq!((code(&reply), has_only_soa(&reply)), (ResponseCode::NoError, 60));
    }
    let other = zone().with_name_servers(&["ns7.example.net", "ns8.example.net"]).unwrap();
    let ns = asked(&query("0a.example.org", RecordType::NS), Transport::Tcp, &other, None);
    assert_eq!(ns.answers.len(), 2);
    assert!(matches!(&ns.answers[0].data, RData::NS(host) if host.0.to_ascii() == "ns7.example.net."));
}

#[test]
fn a_wildcard_is_a_name_like_any_other() {
    for name in ["*.0a.example.org".to_owned(), format!("*.{}", fqdn(1)), "*.*.0a.example.org".to_owned()] {
        for kind in [RecordType::SOA, RecordType::NS, RecordType::TXT, RecordType::ANY] {
            let reply = tcp(&name, kind, None);
            assert_eq!(code(&reply), ResponseCode::NXDomain, "{name} {kind}");
            has_only_soa(&reply);
        }
    }
}

#[test]
fn resolvers_that_walk_label_by_label_pass() {
    let half = format!("{}.0a.example.org", "0123456789abcdef".repeat(2));
    for kind in [RecordType::TXT, RecordType::A, RecordType::NS] {
        let reply = tcp(&half, kind, None);
        assert_eq!((code(&reply), has_only_soa(&reply)), (ResponseCode::NoError, 60));
    }
    for missing in ["x.0a.example.org", &half.replace("0123", "g123"), &format!("a.b.c.{half}"), &fqdn(9)] {
        let reply = tcp(missing, RecordType::TXT, None);
        assert_eq!((code(&reply), has_only_soa(&reply)), (ResponseCode::NXDomain, 60), "{missing}");
    }
}

#[test]
fn names_are_found_in_any_case_and_echoed_as_asked() {
    let held = set(&identity(1), NOW, 3600);
    let mixed: String = fqdn(1)
        .chars()
        .enumerate()
        .map(|(n, c)| if n % 3 == 0 { c.to_ascii_uppercase() } else { c })
        .collect();
    let bytes = query(&mixed, RecordType::TXT).to_vec().unwrap();
    let reply = answer(&bytes, Transport::Tcp, &zone(), NOW, |_| Some(held.clone())).unwrap();
    assert_eq!(reply[12..bytes.len()], bytes[12..], "the question, byte by byte");
    assert_eq!(code(&Message::from_vec(&reply).unwrap()), ResponseCode::NoError);
}

#[test]
fn udp_answers_fit_or_say_that_they_do_not() {
    let alice = identity(1);
    let (small, middle) = (set(&alice, NOW, 60), set_with_blobs(&alice, NOW, &[700]));
    let plain = query(&fqdn(1), RecordType::TXT);
    let udp = |message: &Message, held| asked(message, Transport::Udp, &zone(), Some(held));
    assert!(!udp(&plain, &small).metadata.truncation);
    let cut = udp(&plain, &middle);
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_none());
    assert_eq!(cut.queries.len(), 1);
    assert!(udp(&with_edns(plain.clone(), 600), &middle).metadata.truncation);
    let edns = udp(&with_edns(plain.clone(), 4096), &middle);
    assert!(edns.metadata.truncation, "1 232 bytes is the most, whatever the client allows");
    assert_eq!(edns.edns.unwrap().max_payload(), 1232);
    let fits = set_with_blobs(&alice, NOW, &[300]);
    assert!(udp(&plain, &fits).metadata.truncation);
    assert!(!udp(&with_edns(plain.clone(), 1232), &fits).metadata.truncation);
    assert!(!asked(&plain, Transport::Tcp, &zone(), Some(&middle)).metadata.truncation);
}

#[test]
fn a_set_beyond_4_kib_points_to_https() {
    let alice = identity(1);
    let large = set_with_blobs(&alice, NOW, &[1000, 1000, 1000]);
    assert_eq!(texts(&tcp(&fqdn(1), RecordType::TXT, Some(&large))), [b"kithnet=https".to_vec()]);
    let still_fits = set_with_blobs(&alice, NOW, &[1000, 1000, 400]);
    assert!(texts(&tcp(&fqdn(1), RecordType::TXT, Some(&still_fits))).len() > 3);
}

#[test]
fn what_is_not_ours_is_refused_and_what_is_not_dns_is_told_so() {
    for (name, kind) in [
        ("example.org", RecordType::TXT),
        ("0a.example.com", RecordType::SOA),
        (".", RecordType::NS),
        ("0a.example.org", RecordType::AXFR),
        ("0a.example.org", RecordType::IXFR),
    ] {
        let reply = tcp(name, kind, None);
        assert_eq!(code(&reply), ResponseCode::Refused, "{name} {kind}");
        assert!(!reply.metadata.authoritative);
        assert_eq!(reply.all_sections().count(), 0);
    }
    let mut chaos = query("0a.example.org", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&asked(&chaos, Transport::Udp, &zone(), None)), ResponseCode::Refused);
    let mut badvers = with_edns(query("0a.example.org", RecordType::SOA), 1232);
    badvers.edns.as_mut().unwrap().set_version(1);
    let reply = asked(&badvers, Transport::Udp, &zone(), None);
    assert_eq!(u16::from(code(&reply)), 16, "BADVERS");
    assert_eq!(reply.edns.unwrap().version(), 0);
    for opcode in [OpCode::Notify, OpCode::Update, OpCode::Status] {
        let mut other = query("0a.example.org", RecordType::SOA);
        other.metadata.op_code = opcode;
        assert_eq!(code(&asked(&other, Transport::Udp, &zone(), None)), ResponseCode::NotImp);
    }
    let mut two = query("0a.example.org", RecordType::SOA);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&asked(&two, Transport::Udp, &zone(), None)), ResponseCode::FormErr);
    let mut none = query("0a.example.org", RecordType::SOA);
    none.queries.clear();
    assert_eq!(code(&asked(&none, Transport::Udp, &zone(), None)), ResponseCode::FormErr);
}

#[test]
fn answers_and_fragments_get_silence() {
    let mut response = query("0a.example.org", RecordType::SOA);
    response.metadata.message_type = MessageType::Response;
    let bytes = response.to_vec().unwrap();
    assert_eq!(answer(&bytes, Transport::Udp, &zone(), NOW, |_| None), None);
    for length in 0..12 {
        assert_eq!(answer(&vec![0; length], Transport::Udp, &zone(), NOW, |_| None), None);
    }
}

#[test]
fn any_gets_one_small_record() {
    let held = set_with_blobs(&identity(1), NOW, &[400]);
    for name in ["0a.example.org", &fqdn(1)] {
        let reply = tcp(name, RecordType::ANY, Some(&held));
        assert!(matches!(&reply.answers[..], [record] if matches!(record.data, RData::HINFO(_))));
    }
}

#[test]
fn addresses_are_given_only_when_switched_on_and_only_global_ones() {
    let list = [
        "tcp://8.8.4.4:1",
        "quic://8.8.4.4:2",
        "quic://10.0.0.1:1",
        "tcp://[2606:4700::1111]:1",
        "tcp://[fe80::1]:1",
    ];
    let addresses = list.iter().map(|text| text.parse().unwrap()).collect();
    let held = Draft { addresses, ..Draft::default() }.sign(&identity(1), NOW).unwrap();
    let off = tcp(&fqdn(1), RecordType::A, Some(&held));
    assert_eq!((code(&off), has_only_soa(&off)), (ResponseCode::NoError, 60));
    let on = zone().with_addresses(true);
    let ask = |kind| asked(&query(&fqdn(1), kind), Transport::Udp, &on, Some(&held)).answers;
    assert!(matches!(&ask(RecordType::A)[..], [a] if a.data.to_string() == "8.8.4.4"));
    assert!(matches!(&ask(RecordType::AAAA)[..], [a] if a.data.to_string() == "2606:4700::1111"));
}

#[test]
fn records_of_unknown_types_and_long_values_survive_the_dns() {
    let alice = identity(1);
    let kind = kith_identity::record::Kind::new("future").unwrap();
    let extra =
        vec![Record::new(kind.clone(), vec![0xff; 256]).unwrap(), Record::new(kind, vec![0; 255]).unwrap()];
    let held = Draft { extra, ..Draft::default() }.sign(&alice, NOW).unwrap();
    let reply = tcp(&fqdn(1), RecordType::TXT, Some(&held));
    let back = RecordSet::from_txt(texts(&reply)).unwrap().verify(&alice.fingerprint(), NOW).unwrap();
    assert_eq!(back, held);
}

proptest! {
    /// Any name, any type: never an answer beyond its bound, never one that claims what is not ours.
    #[test]
    fn every_question_gets_one_bounded_answer(
        labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,33}", 0..6),
        below: bool,
        kind: u16,
        payload in proptest::option::of(any::<u16>()),
    ) {
        let mut labels = labels;
        if below {
            labels.extend(["0A".to_owned(), "Example".to_owned(), "org".to_owned()]);
        }
        let Ok(name) = Name::from_labels(labels.iter().map(String::as_bytes)) else { return Ok(()) };
        let kind = RecordType::from(kind);
        prop_assume!(!matches!(kind, RecordType::OPT));
        let mut message = query_for(name, kind);
        if let Some(payload) = payload {
            message = with_edns(message, payload);
        }
        let bytes = message.to_vec().unwrap();
        let reply = answer(&bytes, Transport::Udp, &zone(), NOW, |_| None).unwrap();
        let limit = payload.unwrap_or(512).clamp(512, 1232);
        prop_assert!(reply.len() <= usize::from(limit));
        let reply = Message::from_vec(&reply).unwrap();
        prop_assert_eq!(&reply.queries, &message.queries);
        prop_assert_eq!(reply.metadata.authoritative, below && !matches!(kind, RecordType::AXFR | RecordType::IXFR));
    }
}
