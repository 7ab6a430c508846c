use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, SOA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use kith_identity::record::{Kind, RecordSet};
use kith_identity::{Address, Fingerprint, Reach};
use kith_sansio::Timestamp;

use super::plain::Plain;
use super::{REDIRECT, Transport, Zone};
use crate::defaults::{MAX_AGE_SECS, MAX_DNS_FORM_BYTES, MAX_UDP_BYTES};
use crate::store::Held;

/// A question about a node, to be answered once the store has been asked.
#[derive(Debug)]
pub struct Question {
    asked: Asked,
    fingerprint: Fingerprint,
}

#[derive(Debug)]
enum Asked {
    Plain(Box<Plain>),
    Whole(Box<Reply>),
}

impl Question {
    pub(super) fn plain(plain: Plain, fingerprint: Fingerprint) -> Self {
        Question { asked: Asked::Plain(Box::new(plain)), fingerprint }
    }

    pub(super) fn whole(reply: Reply, fingerprint: Fingerprint) -> Self {
        Question { asked: Asked::Whole(Box::new(reply)), fingerprint }
    }

    /// Whose set is asked for.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The answer from the store's set, which counts only while it is valid at `now`.
    #[must_use]
    pub fn answer(self, found: Option<&Held>, zone: &Zone, now: Timestamp) -> Vec<u8> {
        let mut out = Vec::new();
        self.answer_into(found, zone, now, &mut out);
        out
    }

    /// Adds the answer to `out`.
    pub fn answer_into(self, found: Option<&Held>, zone: &Zone, now: Timestamp, out: &mut Vec<u8>) {
        let found = found.filter(|set| set.is_valid_at(now));
        if let (Asked::Plain(plain), Some(set)) = (&self.asked, found) {
            let ttl = ttl_of(set.expires().secs_since(now));
            if plain.answer(set, ttl, out) {
                return;
            }
        }
        let answer = self.into_reply().map(|reply| match found {
            Some(set) => match set.to_record_set() {
                Some(records) => reply.node(&records, set.expires(), zone, now),
                None => reply.fail(ResponseCode::ServFail),
            },
            None => reply.no_such_name(zone),
        });
        out.extend(answer.unwrap_or_default());
    }

    /// The answer where the store failed.
    #[must_use]
    pub fn fail(self) -> Vec<u8> {
        self.into_reply().map(|reply| reply.fail(ResponseCode::ServFail)).unwrap_or_default()
    }

    /// What is plain can be read in any case.
    fn into_reply(self) -> Option<Reply> {
        match self.asked {
            Asked::Plain(plain) => Reply::to(Message::from_vec(plain.query()).ok()?, plain.transport()),
            Asked::Whole(reply) => Some(*reply),
        }
    }
}

/// A reply in the making: the question as it was asked, and how long the answer may be.
#[derive(Debug)]
pub(super) struct Reply {
    message: Message,
    edns_version: u8,
    limit: usize,
}

impl Reply {
    /// The reply to `query`, which must hold exactly one question.
    pub(super) fn to(query: Message, transport: Transport) -> Option<Reply> {
        let limit = limit(query.edns.as_ref(), transport);
        let edns_version = query.edns.as_ref().map_or(0, Edns::version);
        let mut message = Message::response(query.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&query.metadata);
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_BYTES).set_version(0);
            message.set_edns(edns);
        }
        let [question] = <[Query; 1]>::try_from(query.queries).ok()?;
        message.add_query(question);
        Some(Reply { message, edns_version, limit })
    }

    pub(super) fn edns_version(&self) -> u8 {
        self.edns_version
    }

    // `to` put exactly one question there.
    pub(super) fn name(&self) -> &Name {
        self.message.queries[0].name()
    }

    pub(super) fn kind(&self) -> RecordType {
        self.message.queries[0].query_type()
    }

    pub(super) fn class(&self) -> DNSClass {
        self.message.queries[0].query_class()
    }

    pub(super) fn fail(mut self, code: ResponseCode) -> Vec<u8> {
        self.message.metadata.response_code = code;
        self.finish()
    }

    pub(super) fn truncated(mut self) -> Vec<u8> {
        self.message.metadata.truncation = true;
        self.finish()
    }

    pub(super) fn apex(mut self, zone: &Zone) -> Vec<u8> {
        let ttl = ttl_of(MAX_AGE_SECS);
        match self.kind() {
            RecordType::SOA => self.add(ttl, soa(zone, zone.serial.get(), ttl)),
            RecordType::NS => {
                for name_server in &zone.name_servers {
                    self.add(ttl, RData::NS(NS(name_server.clone())));
                }
            }
            RecordType::ANY => self.add(ttl, minimal()),
            _ => return self.no_data(zone),
        }
        self.authoritative()
    }

    pub(super) fn no_data(self, zone: &Zone) -> Vec<u8> {
        self.negative(zone, MAX_AGE_SECS)
    }

    pub(super) fn no_such_name(mut self, zone: &Zone) -> Vec<u8> {
        self.message.metadata.response_code = ResponseCode::NXDomain;
        self.negative(zone, MAX_AGE_SECS)
    }

    fn negative(mut self, zone: &Zone, secs: u64) -> Vec<u8> {
        let ttl = ttl_of(secs);
        let record = Record::from_rdata(zone.apex.clone(), ttl, soa(zone, zone.serial.get(), ttl));
        self.message.add_authority(record);
        self.authoritative()
    }

    /// A node with a set that is valid now.
    fn node(mut self, set: &RecordSet, expires: Timestamp, zone: &Zone, now: Timestamp) -> Vec<u8> {
        let remaining = expires.secs_since(now);
        let ttl = ttl_of(remaining);
        match self.kind() {
            RecordType::TXT => self.texts(set, ttl),
            RecordType::ANY => self.add(ttl, minimal()),
            RecordType::A | RecordType::AAAA if zone.addresses => self.addresses(set, ttl),
            _ => {}
        }
        if self.message.answers.is_empty() {
            return self.negative(zone, remaining);
        }
        self.authoritative()
    }

    fn texts(&mut self, set: &RecordSet, ttl: u32) {
        for text in texts_of(set) {
            self.add(ttl, RData::TXT(TXT::from_bytes(text.chunks(255).collect())));
        }
    }

    fn addresses(&mut self, set: &RecordSet, ttl: u32) {
        for host in hosts_of(set) {
            match (self.kind(), host) {
                (RecordType::A, IpAddr::V4(v4)) => self.add(ttl, RData::A(A(v4))),
                (RecordType::AAAA, IpAddr::V6(v6)) => self.add(ttl, RData::AAAA(AAAA(v6))),
                _ => {}
            }
        }
    }

    fn add(&mut self, ttl: u32, data: RData) {
        let owner = self.name().clone();
        self.message.add_answer(Record::from_rdata(owner, ttl, data));
    }

    fn authoritative(mut self) -> Vec<u8> {
        self.message.metadata.authoritative = true;
        self.finish()
    }

    /// The bytes; where they are too many, an empty answer that says so, and the client comes back over TCP.
    fn finish(self) -> Vec<u8> {
        match self.message.to_vec() {
            Ok(bytes) if bytes.len() <= self.limit => bytes,
            Ok(_) => self.message.truncate().to_vec().unwrap_or_default(),
            Err(_) => bare(&header_of(&self.message), ResponseCode::ServFail),
        }
    }
}

/// How long an answer may be, in bytes.
pub(super) fn limit(asked: Option<&Edns>, transport: Transport) -> usize {
    let asked = asked.map_or(512, Edns::max_payload);
    match transport {
        Transport::Udp => usize::from(asked.clamp(512, MAX_UDP_BYTES)),
        Transport::Tcp => usize::from(u16::MAX),
    }
}

fn header_of(message: &Message) -> [u8; 12] {
    let [a, b] = message.metadata.id.to_be_bytes();
    [a, b, u8::from(message.metadata.recursion_desired), 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// A header and nothing else, for a query that cannot be echoed: its id, opcode and RD.
pub(super) fn bare(query: &[u8; 12], code: ResponseCode) -> Vec<u8> {
    vec![query[0], query[1], 0x80 | query[2] & 0x79, code.low(), 0, 0, 0, 0, 0, 0, 0, 0]
}

/// The texts of the TXT records of a set.
pub(super) fn texts_of(set: &RecordSet) -> Vec<Vec<u8>> {
    let texts = set.to_txt();
    let form: usize = texts.iter().map(|text| record_bytes(text.len())).sum();
    if form > MAX_DNS_FORM_BYTES { vec![REDIRECT.to_vec()] } else { texts }
}

/// Bytes of the TXT record of a text: owner (a pointer), type, class, ttl, length, 12 in all, and 1 of each character
/// string.
pub(super) fn record_bytes(text: usize) -> usize {
    12 + text + text.div_ceil(255)
}

/// The global unicast addresses of a set.
pub(super) fn hosts_of(set: &RecordSet) -> BTreeSet<IpAddr> {
    let texts = set.records(&Kind::ADDRESS).filter_map(|text| std::str::from_utf8(text).ok());
    let addresses = texts.filter_map(|text| text.parse::<Address>().ok());
    let global = addresses.filter(|address| address.reach() == Reach::Global);
    global.map(|address| address.socket.ip()).collect()
}

pub(super) fn ttl_of(remaining: u64) -> u32 {
    u32::try_from(remaining.min(MAX_AGE_SECS)).unwrap_or(0)
}

/// What ANY gets: there is something, ask for it by type (RFC 8482 §4.2).
fn minimal() -> RData {
    RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()))
}

pub(super) fn soa(zone: &Zone, serial: u32, minimum: u32) -> RData {
    let (primary, responsible) = (zone.name_servers[0].clone(), zone.hostmaster.clone());
    RData::SOA(SOA::new(primary, responsible, serial, 60, 30, 86_400, minimum))
}
