//! Transfers of the zone to its secondaries: whole (AXFR, RFC 5936), or what changed (IXFR, RFC 1995). What is asked for,
//! and the messages of the answer.
//!
//! The answer is written as the sets come, one message in memory at a time. It is the zone under the serial number that
//! it names, and so are both ends of a difference: a record is the same whenever it is given out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use kith_identity::Fingerprint;
use kith_sansio::Timestamp;

use super::plain::strings;
use super::reply::{hosts_of, record_bytes, soa, ttl_of};
use super::serial::{is_newer, number_of, serial_of};
use super::tsig::Signer;
use super::zone::Place;
use super::{REDIRECT, Zone};
use crate::defaults::{MAX_AGE_SECS, MAX_DNS_FORM_BYTES};
use crate::store::{Difference, Held, Shape};

/// Largest message of a transfer in bytes, length not counted: names are compressed by pointers, which reach that
/// far (RFC 1035 §4.1.4).
pub(crate) const MAX_MESSAGE_BYTES: usize = 16_383;
/// Where the question's name stands, which is the zone's.
const APEX: u16 = 0xc00c;

/// Counted up where the records of a set are written in another way than before.
const FORM: u8 = 1;

/// How much somebody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Nothing: it has what there is.
    Nothing,
    /// What changed since this number.
    Since(u64),
    /// All of it.
    Whole,
}

/// A transfer that somebody asks for.
pub(crate) struct Request {
    id: u16,
    /// Name, type and class as they were asked.
    question: Vec<u8>,
    /// The serial number that is there already; only an incremental transfer says it.
    known: Option<u32>,
}

impl Request {
    /// The transfer that `message` asks for; `None` where it asks for something else.
    pub(crate) fn read(message: &[u8], zone: &Zone) -> Option<Request> {
        let message = Message::from_vec(message).ok()?;
        let asks =
            message.metadata.message_type == MessageType::Query && message.metadata.op_code == OpCode::Query;
        let [question] = message.queries.as_slice() else { return None };
        let known = match question.query_type() {
            RecordType::AXFR => None,
            RecordType::IXFR => message.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) if zone.place(&record.name) == Place::Apex => Some(soa.serial),
                _ => None,
            }),
            _ => return None,
        };
        if !asks || question.query_class() != DNSClass::IN || zone.place(question.name()) != Place::Apex {
            return None;
        }
        Some(Request { id: message.metadata.id, question: question.to_bytes().ok()?, known })
    }

    /// What the secondary needs where the zone has this number (RFC 1995 §2).
    fn extent(&self, number: u64) -> Extent {
        let Some(known) = self.known else { return Extent::Whole };
        match number_of(known, number) {
            Some(known) => Extent::Since(known),
            None if is_newer(serial_of(number), known) => Extent::Whole,
            None => Extent::Nothing,
        }
    }

    /// The answer that there is no transfer.
    pub(crate) fn fail(&self, code: ResponseCode, mut signer: Signer, now: Timestamp) -> Vec<u8> {
        let mut message = self.header();
        message[3] = code.low();
        signer.sign(&mut message, now);
        message
    }

    /// The beginning of every message of the answer.
    fn header(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(MAX_MESSAGE_BYTES);
        message.extend_from_slice(&self.id.to_be_bytes());
        // An authoritative response with one question and no records yet.
        message.extend_from_slice(&[0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(&self.question);
        message
    }
}

/// The answer to a request that came over UDP. Whoever asks what changed is told the serial number, and comes back over
/// TCP (RFC 1995 §2); all of the zone is not for UDP (RFC 5936 §4.2).
pub(crate) fn over_udp(request: Request, zone: &Zone, signer: Signer, now: Timestamp) -> Vec<u8> {
    if request.known.is_none() {
        return request.fail(ResponseCode::Refused, signer, now);
    }
    let mut transfer = Transfer::new(request, zone, signer);
    transfer.soa(now);
    transfer.finish(now).split_off(2)
}

/// The shape of what is transferred: everything in it that neither sets nor the serial number decide.
pub(crate) fn shape(zone: &Zone) -> Shape {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[FORM, u8::from(zone.addresses)]);
    hasher.update(&zone.wire);
    hasher.update(&soa_bytes(zone, 0));
    for name_server in &zone.name_servers {
        hasher.update(&name_server.to_bytes().unwrap_or_default());
    }
    *hasher.finalize().as_bytes()
}

/// The value of the SOA record.
fn soa_bytes(zone: &Zone, serial: u32) -> Vec<u8> {
    let RData::SOA(soa) = soa(zone, serial, ttl_of(MAX_AGE_SECS)) else { return Vec::new() };
    // Name by name: together they would be compressed, with pointers into another message than this one.
    let mut data = soa.mname.to_bytes().unwrap_or_default();
    data.extend(soa.rname.to_bytes().unwrap_or_default());
    for number in [soa.serial, soa.refresh as u32, soa.retry as u32, soa.expire as u32, soa.minimum] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    data
}

/// Bytes of a set's TXT records, as [`texts_of`](super::reply::texts_of) counts them.
fn dns_form(set: &Held) -> usize {
    let mut form = 0;
    set.each_text(|text| form += record_bytes(text.len()));
    form
}

/// Calls `take` with type, TTL and value of each record of a set. Nothing but the set decides about them: what is
/// taken away one day must be what was given out another day.
fn each_record(set: &Held, addresses: bool, mut take: impl FnMut(RecordType, u32, &[u8])) {
    let ttl = ttl_of(set.ttl_secs());
    let mut data = Vec::new();
    if dns_form(set) > MAX_DNS_FORM_BYTES {
        data.push(REDIRECT.len() as u8);
        data.extend_from_slice(REDIRECT);
        take(RecordType::TXT, ttl, &data);
    } else {
        set.each_text(|text| {
            data.clear();
            strings(text, &mut data);
            take(RecordType::TXT, ttl, &data);
        });
    }
    if !addresses {
        return;
    }
    for host in set.to_record_set().as_ref().map(hosts_of).unwrap_or_default() {
        match host {
            IpAddr::V4(v4) => take(RecordType::A, ttl, &v4.octets()),
            IpAddr::V6(v6) => take(RecordType::AAAA, ttl, &v6.octets()),
        }
    }
}

/// The answer to a [`Request`] in the making.
pub(crate) struct Transfer<'a> {
    zone: &'a Zone,
    request: Request,
    number: u64,
    signer: Signer,
    most: usize,
    message: Vec<u8>,
    answers: u16,
    /// The node that the last record was of, and where in the message its name stands.
    owner: Option<(Fingerprint, u16)>,
    /// Messages that are complete, each after its length.
    complete: Vec<u8>,
}

impl<'a> Transfer<'a> {
    /// The answer to `request` with the zone's present serial number, signed by `signer`.
    pub(crate) fn new(request: Request, zone: &'a Zone, signer: Signer) -> Transfer<'a> {
        let (number, most) = (zone.serial.number(), MAX_MESSAGE_BYTES - signer.overhead());
        let mut transfer = Transfer {
            zone,
            request,
            number,
            signer,
            most,
            message: Vec::new(),
            answers: 0,
            owner: None,
            complete: Vec::new(),
        };
        transfer.begin();
        transfer
    }

    /// What the secondary needs. Where that is nothing, the answer is one SOA record.
    pub(crate) fn extent(&self) -> Extent {
        self.request.extent(self.number)
    }

    /// The number of the zone that is transferred.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Writes what stands at the top of the zone: the SOA record, which comes first, and the NS records.
    pub(crate) fn apex(&mut self, now: Timestamp) {
        self.soa(now);
        for name_server in &self.zone.name_servers {
            let name = name_server.to_bytes().unwrap_or_default();
            self.record(None, RecordType::NS, ttl_of(MAX_AGE_SECS), &name, now);
        }
    }

    /// Writes the SOA record, with which a transfer begins and ends.
    pub(crate) fn soa(&mut self, now: Timestamp) {
        self.soa_of(self.number, now);
    }

    /// Writes the SOA record of a number: the one that the secondary has stands before what is taken away.
    pub(crate) fn soa_of(&mut self, number: u64, now: Timestamp) {
        let data = soa_bytes(self.zone, serial_of(number));
        self.record(None, RecordType::SOA, ttl_of(MAX_AGE_SECS), &data, now);
    }

    /// Writes the records of one set: the same that a question for it is answered with, but for their TTL.
    pub(crate) fn set(&mut self, fingerprint: &Fingerprint, set: &Held, now: Timestamp) {
        each_record(set, self.zone.addresses, |kind, ttl, data| {
            self.record(Some(*fingerprint), kind, ttl, data, now);
        });
    }

    /// Writes the records that a difference takes away.
    pub(crate) fn taken(&mut self, difference: &Difference, now: Timestamp) {
        self.only(&difference.fingerprint, difference.before.as_ref(), difference.after.as_ref(), now);
    }

    /// Writes the records that a difference brings.
    pub(crate) fn brought(&mut self, difference: &Difference, now: Timestamp) {
        self.only(&difference.fingerprint, difference.after.as_ref(), difference.before.as_ref(), now);
    }

    /// Writes the records that one set has and another has not.
    fn only(&mut self, fingerprint: &Fingerprint, set: Option<&Held>, other: Option<&Held>, now: Timestamp) {
        let (Some(set), addresses) = (set, self.zone.addresses) else { return };
        let mut common = BTreeSet::new();
        if let Some(other) = other {
            each_record(other, addresses, |kind, ttl, data| {
                common.insert((u16::from(kind), ttl, data.to_vec()));
            });
        }
        each_record(set, addresses, |kind, ttl, data| {
            if other.is_none() || !common.contains(&(u16::from(kind), ttl, data.to_vec())) {
                self.record(Some(*fingerprint), kind, ttl, data, now);
            }
        });
    }

    /// The messages that are complete, each after its length, ready to be sent.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.complete)
    }

    /// All that is left, the last message too.
    pub(crate) fn finish(mut self, now: Timestamp) -> Vec<u8> {
        self.close(now);
        self.complete
    }

    fn record(
        &mut self,
        owner: Option<Fingerprint>,
        kind: RecordType,
        ttl: u32,
        data: &[u8],
        now: Timestamp,
    ) {
        // Two labels of 32 characters and a pointer; type, class, ttl, length.
        let room = 68 + 10 + data.len();
        if self.message.len() + room > self.most && self.answers > 0 {
            self.close(now);
            self.begin();
        }
        self.owner(owner);
        self.message.extend_from_slice(&u16::from(kind).to_be_bytes());
        self.message.extend_from_slice(&u16::from(DNSClass::IN).to_be_bytes());
        self.message.extend_from_slice(&ttl.to_be_bytes());
        // The largest value is that of a set that still fits the DNS: 4 096 bytes.
        self.message.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        self.message.extend_from_slice(data);
        self.answers += 1;
    }

    /// Writes the name of a node, or of the zone.
    fn owner(&mut self, owner: Option<Fingerprint>) {
        let Some(fingerprint) = owner else {
            return self.message.extend_from_slice(&APEX.to_be_bytes());
        };
        match self.owner {
            Some((known, at)) if known == fingerprint => {
                self.message.extend_from_slice(&(0xc000 | at).to_be_bytes());
            }
            _ => {
                self.owner = u16::try_from(self.message.len()).ok().map(|at| (fingerprint, at));
                for half in fingerprint.as_bytes().chunks(16) {
                    self.message.push(32);
                    self.message.extend_from_slice(data_encoding::HEXLOWER.encode(half).as_bytes());
                }
                self.message.extend_from_slice(&APEX.to_be_bytes());
            }
        }
    }

    fn begin(&mut self) {
        self.message = self.request.header();
        (self.answers, self.owner) = (0, None);
    }

    fn close(&mut self, now: Timestamp) {
        self.message[6..8].copy_from_slice(&self.answers.to_be_bytes());
        self.signer.sign(&mut self.message, now);
        let length = u16::try_from(self.message.len()).unwrap_or(0);
        self.complete.extend_from_slice(&length.to_be_bytes());
        self.complete.append(&mut self.message);
    }
}
