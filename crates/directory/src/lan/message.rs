use hickory_proto::op::{Message as Dns, MessageType, OpCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use kith_sansio::wire::Writer;

use super::name::{Instance, Nonce, Salt};
use super::seal::{Ask, MAX_SEALED_BYTES};
use crate::label::{from_hex, hex};

/// The service type of nodes, by labels.
const SERVICE: [&[u8]; 3] = [b"_kith", b"_udp", b"local"];
/// Longest packet that is looked at: what nodes say fits the packets of an Ethernet.
pub const MAX_PACKET_BYTES: usize = 1500;
/// Most questions and records of a packet that is looked at.
const MAX_RECORDS: usize = 64;
/// Life of a record in seconds; a node that is gone without a word is forgotten after it.
pub(super) const TTL_SECS: u32 = 120;
/// Life of an answer in seconds: nobody but who asked has a use for it.
const ANSWER_TTL_SECS: u32 = 1;
const SALT_KEY: &[u8] = b"salt=";
const IN: u16 = 1;
/// The class of a record of which there is one (RFC 6762 §10.2).
const IN_UNIQUE: u16 = 0x8001;
const PTR: u16 = 12;
const TXT: u16 = 16;
const SRV: u16 = 33;

/// What was said on a network, as far as it concerns nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks.
    Query(Query),
    /// Somebody shows itself, or answers.
    Response(Response),
}

/// Questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Which nodes are there?
    pub browses: bool,
    /// Names that whoever browses knows already, for a while to come.
    pub knows: Vec<Instance>,
    /// Names that are asked for openly.
    pub resolves: Vec<Instance>,
    /// Questions for sets.
    pub asks: Vec<Ask>,
}

/// Answers, asked for or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Nodes that are there.
    pub seen: Vec<Seen>,
    /// Nodes that say that they go.
    pub gone: Vec<Instance>,
    /// Sealed pieces, by the question that they answer.
    pub pieces: Vec<(Ask, Vec<u8>)>,
}

/// A node that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub instance: Instance,
    /// What the name is made with.
    pub salt: Salt,
    /// How long this counts, in seconds.
    pub ttl_secs: u32,
}

/// What a name means here.
enum Subject {
    Service,
    Node(Instance),
    Set(Ask),
}

impl Message {
    /// Reads a packet; `None` for what is no mDNS, or nothing about nodes.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Message> {
        let header = packet.first_chunk::<12>()?;
        let counts = header[4..].chunks(2).map(|count| usize::from(u16::from_be_bytes([count[0], count[1]])));
        // Looked at before memory is taken for as many as the header promises.
        if packet.len() > MAX_PACKET_BYTES || counts.sum::<usize>() > MAX_RECORDS || !concerns_nodes(packet) {
            return None;
        }
        let dns = Dns::from_vec(packet).ok()?;
        if dns.metadata.op_code != OpCode::Query {
            return None;
        }
        match dns.metadata.message_type {
            MessageType::Query => Query::read(&dns).map(Message::Query),
            MessageType::Response => Response::read(&dns).map(Message::Response),
        }
    }
}

impl Query {
    fn read(dns: &Dns) -> Option<Query> {
        let mut query = Query::default();
        for question in &dns.queries {
            let any = question.query_type() == RecordType::ANY;
            match (subject(question.name()), question.query_type()) {
                (Some(Subject::Service), kind) if any || kind == RecordType::PTR => query.browses = true,
                (Some(Subject::Node(instance)), kind)
                    if any || matches!(kind, RecordType::TXT | RecordType::SRV) =>
                {
                    query.resolves.push(instance);
                }
                (Some(Subject::Set(ask)), RecordType::TXT) => query.asks.push(ask),
                _ => {}
            }
        }
        let known = dns.answers.iter().filter(|record| record.ttl >= TTL_SECS / 2);
        query.knows = known.filter_map(pointed_at).collect();
        (query.browses || !query.asks.is_empty() || !query.resolves.is_empty()).then_some(query)
    }
}

impl Response {
    fn read(dns: &Dns) -> Option<Response> {
        let mut response = Response::default();
        for record in dns.answers.iter().chain(&dns.additionals) {
            match (subject(&record.name), &record.data) {
                (Some(Subject::Service), _) if record.ttl == 0 => response.gone.extend(pointed_at(record)),
                (Some(Subject::Node(instance)), RData::TXT(txt)) => match salt(&txt.txt_data) {
                    Some(_) if record.ttl == 0 => response.gone.push(instance),
                    Some(salt) => {
                        let ttl_secs = record.ttl.min(TTL_SECS);
                        response.seen.push(Seen { instance, salt, ttl_secs });
                    }
                    None => {}
                },
                (Some(Subject::Set(ask)), RData::TXT(txt)) => {
                    let piece = txt.txt_data.concat();
                    if piece.len() <= MAX_SEALED_BYTES {
                        response.pieces.push((ask, piece));
                    }
                }
                _ => {}
            }
        }
        let empty = response.seen.is_empty() && response.gone.is_empty() && response.pieces.is_empty();
        (!empty).then_some(response)
    }
}

/// Whether the service's label is anywhere in it: what others say to each other, which is most, is not read.
fn concerns_nodes(packet: &[u8]) -> bool {
    let label = SERVICE[0];
    packet
        .windows(1 + label.len())
        .any(|part| usize::from(part[0]) == label.len() && part[1..].eq_ignore_ascii_case(label))
}

/// The node that a record of the service points at.
fn pointed_at(record: &Record) -> Option<Instance> {
    let RData::PTR(target) = &record.data else { return None };
    match (subject(&record.name)?, subject(&target.0)?) {
        (Subject::Service, Subject::Node(instance)) => Some(instance),
        _ => None,
    }
}

fn salt(texts: &[Box<[u8]>]) -> Option<Salt> {
    let value = texts.iter().find_map(|text| {
        let (key, value) = text.split_at_checked(SALT_KEY.len())?;
        key.eq_ignore_ascii_case(SALT_KEY).then_some(value)
    })?;
    from_hex(value).map(Salt)
}

/// `_kith._udp.local`, `NAME._kith._udp.local` or `NONCE.MAC.NAME._kith._udp.local`.
fn subject(name: &Name) -> Option<Subject> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let (own, service) = labels.split_at_checked(labels.len().checked_sub(SERVICE.len())?)?;
    if !service.iter().zip(SERVICE).all(|(label, wanted)| label.eq_ignore_ascii_case(wanted)) {
        return None;
    }
    match own {
        [] => Some(Subject::Service),
        [instance] => from_hex(instance).map(Instance).map(Subject::Node),
        [nonce, mac, instance] => Some(Subject::Set(Ask {
            instance: Instance(from_hex(instance)?),
            nonce: Nonce(from_hex(nonce)?),
            mac: from_hex(mac)?,
        })),
        _ => None,
    }
}

/// The packet that asks which nodes are there.
pub(super) fn browse() -> Vec<u8> {
    question(&[], PTR)
}

/// The packet that asks for a set.
pub(super) fn ask(ask: &Ask) -> Vec<u8> {
    question(&labels_of(ask), TXT)
}

/// The packet by which a node shows itself, or with `ttl_secs` 0 takes its leave.
pub(super) fn presence(instance: &Instance, salt: &Salt, ttl_secs: u32) -> Vec<u8> {
    let name = hex(&instance.0);
    let mut host = Writer::new();
    // Priority, weight and port: there is nothing to be seen for whoever does not know the fingerprint.
    host.u16(0).u16(0).u16(0);
    labels(&mut host, [name.as_bytes(), b"local"]);
    let mut pointer = Writer::new();
    labels(&mut pointer, std::iter::once(name.as_bytes()).chain(SERVICE));
    let text = text(&[SALT_KEY, hex(&salt.0).as_bytes()].concat());
    let mut writer = header(0x8400, 0, 3);
    let own = [name.as_bytes()];
    record(&mut writer, &[], PTR, IN, ttl_secs, &pointer.finish());
    record(&mut writer, &own, TXT, IN_UNIQUE, ttl_secs, &text);
    record(&mut writer, &own, SRV, IN_UNIQUE, ttl_secs, &host.finish());
    writer.finish()
}

/// The packet with one sealed piece.
pub(super) fn piece(ask: &Ask, sealed: &[u8]) -> Vec<u8> {
    let own = labels_of(ask);
    let own: Vec<&[u8]> = own.iter().map(String::as_bytes).collect();
    let mut writer = header(0x8400, 0, 1);
    // Several pieces are several records of one name, so none takes the place of another.
    record(&mut writer, &own, TXT, IN, ANSWER_TTL_SECS, &text(sealed));
    writer.finish()
}

fn labels_of(ask: &Ask) -> [String; 3] {
    [hex(&ask.nonce.0), hex(&ask.mac), hex(&ask.instance.0)]
}

fn question(own: &[String], kind: u16) -> Vec<u8> {
    let mut writer = header(0, 1, 0);
    labels(&mut writer, own.iter().map(String::as_bytes).chain(SERVICE));
    writer.u16(kind).u16(IN);
    writer.finish()
}

/// Id 0, flags, number of questions and of answers.
fn header(flags: u16, questions: u16, answers: u16) -> Writer {
    let mut writer = Writer::new();
    writer.u16(0).u16(flags).u16(questions).u16(answers).u16(0).u16(0);
    writer
}

fn record(writer: &mut Writer, own: &[&[u8]], kind: u16, class: u16, ttl_secs: u32, data: &[u8]) {
    labels(writer, own.iter().copied().chain(SERVICE));
    writer.u16(kind).u16(class).u32(ttl_secs).u16(data.len() as u16).bytes(data);
}

fn labels<'a>(writer: &mut Writer, labels: impl IntoIterator<Item = &'a [u8]>) {
    for label in labels {
        writer.u8(label.len() as u8).bytes(label);
    }
    writer.u8(0);
}

/// Character strings of at most 255 bytes each.
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    for part in bytes.chunks(255) {
        writer.u8(part.len() as u8).bytes(part);
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_identity::Fingerprint;
    use proptest::prelude::*;

    const INSTANCE: Instance = Instance([7; 16]);
    const SALT: Salt = Salt([8; 16]);

    #[test]
    fn a_node_that_comes_and_goes_is_read_as_such() {
        let seen = Seen { instance: INSTANCE, salt: SALT, ttl_secs: TTL_SECS };
        let Some(Message::Response(there)) = Message::read(&presence(&INSTANCE, &SALT, TTL_SECS)) else {
            panic!("no response");
        };
        assert_eq!(there, Response { seen: vec![seen], ..Response::default() });
        let Some(Message::Response(bye)) = Message::read(&presence(&INSTANCE, &SALT, 0)) else {
            panic!("no response");
        };
        assert_eq!(bye.gone, [INSTANCE, INSTANCE]);
        assert!(bye.seen.is_empty());
    }

    #[test]
    fn a_packet_shows_neither_address_nor_port() {
        let packet = presence(&INSTANCE, &SALT, TTL_SECS);
        let dns = Dns::from_vec(&packet).unwrap();
        let records: Vec<_> = dns.answers.iter().map(|record| record.data.record_type()).collect();
        assert_eq!(records, [RecordType::PTR, RecordType::TXT, RecordType::SRV]);
        let RData::SRV(host) = &dns.answers[2].data else { panic!("no SRV") };
        assert_eq!(host.port, 0);
        assert_eq!(host.target.to_string(), format!("{INSTANCE}.local."));
    }

    #[test]
    fn names_have_no_case_and_foreign_services_are_passed_over() {
        let mut upper = browse();
        upper.make_ascii_uppercase();
        assert!(matches!(Message::read(&upper), Some(Message::Query(query)) if query.browses));
        let mut foreign = browse();
        let at = foreign.windows(5).position(|part| part == b"_kith").unwrap();
        foreign[at + 1] = b'x';
        assert!(Message::read(&foreign).is_none());
    }

    #[test]
    fn packets_that_promise_too_much_are_not_looked_at() {
        let mut packet = browse();
        packet[6] = 0xff;
        assert!(Message::read(&packet).is_none());
        let mut long = browse();
        long.resize(MAX_PACKET_BYTES + 1, 0);
        assert!(Message::read(&long).is_none());
    }

    proptest! {
        #[test]
        fn questions_and_pieces_are_read_as_they_were_written(
            key: [u8; 32], salt: [u8; 16], nonce: [u8; 16],
            sealed in proptest::collection::vec(any::<u8>(), 1..MAX_SEALED_BYTES),
        ) {
            let question = Ask::new(&Fingerprint::from_bytes(key), &Salt(salt), Nonce(nonce));
            let expected = Query { asks: vec![question], ..Query::default() };
            prop_assert_eq!(Message::read(&ask(&question)), Some(Message::Query(expected)));
            let packet = piece(&question, &sealed);
            prop_assert!(packet.len() <= 1232);
            let expected = Response { pieces: vec![(question, sealed)], ..Response::default() };
            prop_assert_eq!(Message::read(&packet), Some(Message::Response(expected)));
        }
    }
}
