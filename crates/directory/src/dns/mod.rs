//! The zone `0a.HOST` as a pure function from a query to an answer, and the client's half of the conversation.
//!
//! `hickory-proto` is the codec; what is asked and answered is decided here. Nothing opens a socket.
//!
//! | name | answer |
//! | --- | --- |
//! | `0a.HOST` | SOA, NS; NODATA for other types |
//! | `<32 hex>.0a.HOST` | NODATA, so that resolvers which walk label by label pass |
//! | `<32 hex>.<32 hex>.0a.HOST` | TXT of the set, NXDOMAIN without one |
//! | anything else below | NXDOMAIN |
//! | outside | REFUSED |

pub(crate) mod ask;
pub(crate) mod notice;
mod plain;
mod reply;
pub(crate) mod serial;
pub(crate) mod transfer;
pub mod tsig;
mod zone;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use kith_identity::Fingerprint;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::Timestamp;

use crate::store::Held;

use self::plain::Plain;
pub use self::reply::Question;
use self::reply::Reply;
use self::zone::Place;
pub use self::zone::{Zone, ZoneError};

/// The text that stands in place of a set whose DNS form is too large.
pub const REDIRECT: &[u8] = b"kithnet=https";

/// Longest query that is looked at, in bytes; a question with all its EDNS options is far shorter.
pub(crate) const MAX_QUERY_BYTES: usize = 1024;

/// What a query came over, which decides how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// 512 bytes, or what EDNS allows up to 1 232.
    Udp,
    /// 65 535 bytes.
    Tcp,
}

/// What to do about a query.
#[derive(Debug)]
pub enum Step {
    /// Nothing: it is no query.
    Silence,
    /// Send this.
    Reply(Vec<u8>),
    /// Look up [`Question::fingerprint`], then send [`Question::answer`].
    Lookup(Question),
}

/// Answers one query, with `lookup` as the store; `None` for what deserves no answer.
pub fn answer(
    query: &[u8],
    transport: Transport,
    zone: &Zone,
    now: Timestamp,
    lookup: impl FnOnce(&Fingerprint) -> Option<VerifiedRecordSet>,
) -> Option<Vec<u8>> {
    match read(query, transport, zone) {
        Step::Silence => None,
        Step::Reply(bytes) => Some(bytes),
        Step::Lookup(question) => {
            let found = lookup(question.fingerprint()).as_ref().map(Held::of);
            Some(question.answer(found.as_ref(), zone, now))
        }
    }
}

/// Reads one query as far as it can be answered without the store.
pub fn read(query: &[u8], transport: Transport, zone: &Zone) -> Step {
    match Plain::read(query, transport, zone) {
        Some((plain, fingerprint)) => Step::Lookup(Question::plain(plain, fingerprint)),
        None => read_whole(query, transport, zone),
    }
}

/// The same through the codec, for every query.
pub(crate) fn read_whole(query: &[u8], transport: Transport, zone: &Zone) -> Step {
    let Some(header) = query.first_chunk::<12>() else { return Step::Silence };
    if header[2] & 0x80 != 0 {
        return Step::Silence;
    }
    let opcode = OpCode::from_u8(header[2] >> 3 & 0x0f);
    if opcode != OpCode::Query {
        return Step::Reply(reply::bare(header, ResponseCode::NotImp));
    }
    if !has_sane_counts(header) || query.len() > MAX_QUERY_BYTES {
        return Step::Reply(reply::bare(header, ResponseCode::FormErr));
    }
    let Ok(message) = Message::from_vec(query) else {
        return Step::Reply(reply::bare(header, ResponseCode::FormErr));
    };
    let Some(reply) = Reply::to(message, transport) else {
        return Step::Reply(reply::bare(header, ResponseCode::FormErr));
    };
    decide(reply, zone)
}

/// An empty answer that says that there is more over TCP, never longer than the query: for a source that asks more
/// than it is allowed to, which may be somebody else. `None` for what deserves no answer.
#[must_use]
pub fn truncated(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.first_chunk::<12>()?;
    let asks = header[2] & 0xf8 == 0 && has_sane_counts(header) && query.len() <= MAX_QUERY_BYTES;
    let message = Message::from_vec(query).ok().filter(|_| asks)?;
    let answer = Reply::to(message, Transport::Udp)?.truncated();
    Some(answer).filter(|answer| answer.len() <= query.len())
}

/// The answer to a query that cannot be read; `None` for what deserves none.
pub(crate) fn malformed(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.first_chunk::<12>().filter(|header| header[2] & 0x80 == 0)?;
    Some(reply::bare(header, ResponseCode::FormErr))
}

/// How long the answer to a well-formed query may be, in bytes.
pub(crate) fn longest_answer(query: &[u8], transport: Transport) -> usize {
    let asked = Message::from_vec(query).ok().and_then(|query| query.edns);
    reply::limit(asked.as_ref(), transport)
}

/// One question and few records beside it, told before memory is taken for what the header promises.
fn has_sane_counts(header: &[u8; 12]) -> bool {
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    count(4) == 1 && count(6) == 0 && count(8) <= 1 && count(10) <= 4
}

fn decide(reply: Reply, zone: &Zone) -> Step {
    if reply.edns_version() > 0 {
        return Step::Reply(reply.fail(ResponseCode::BADVERS));
    }
    let class_known = matches!(reply.class(), DNSClass::IN | DNSClass::ANY);
    let transfer = matches!(reply.kind(), RecordType::AXFR | RecordType::IXFR);
    let place = zone.place(reply.name());
    if !class_known || transfer || place == Place::Outside {
        return Step::Reply(reply.fail(ResponseCode::Refused));
    }
    match place {
        Place::Apex => Step::Reply(reply.apex(zone)),
        Place::Half => Step::Reply(reply.no_data(zone)),
        Place::Node(fingerprint) => Step::Lookup(Question::whole(reply, fingerprint)),
        Place::Nowhere | Place::Outside => Step::Reply(reply.no_such_name(zone)),
    }
}
