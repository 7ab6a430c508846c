//! The message that tells a secondary that the zone changed (NOTIFY, RFC 1996), and its answer.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Record, RecordType};

use super::Zone;
use super::reply::{soa, ttl_of};
use crate::defaults::MAX_AGE_SECS;

/// The message, not yet signed. It carries the SOA record as a hint.
pub(crate) fn notice(zone: &Zone, id: u16, serial: u32) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Notify);
    message.metadata.authoritative = true;
    message.add_query(Query::query(zone.apex.clone(), RecordType::SOA));
    let ttl = ttl_of(MAX_AGE_SECS);
    message.add_answer(Record::from_rdata(zone.apex.clone(), ttl, soa(zone, serial, ttl)));
    message.to_vec().unwrap_or_default()
}

/// The id of a message, and how its sender took it, where it is an answer to a notice about this zone.
pub(crate) fn acknowledged(message: &[u8], zone: &Zone) -> Option<(u16, ResponseCode)> {
    let message = Message::from_vec(message).ok()?;
    let answers = message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Notify
        && message.queries.first().is_none_or(|question| question.name() == &zone.apex);
    answers.then_some((message.metadata.id, message.metadata.response_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_names_the_zone_and_only_its_answer_counts() {
        let zone = Zone::new(&"example.org".parse().unwrap()).unwrap();
        let mut bytes = notice(&zone, 7, 99);
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.queries[0].query_type(), RecordType::SOA);
        assert_eq!(message.answers.len(), 1);
        assert_eq!(acknowledged(&bytes, &zone), None, "it is no answer");
        bytes[2] |= 0x80;
        assert_eq!(acknowledged(&bytes, &zone), Some((7, ResponseCode::NoError)));
        bytes[3] |= 5;
        assert_eq!(acknowledged(&bytes, &zone), Some((7, ResponseCode::Refused)));
        let other = Zone::new(&"example.net".parse().unwrap()).unwrap();
        assert_eq!(acknowledged(&bytes, &other), None);
        bytes[2] &= 0x87;
        assert_eq!(acknowledged(&bytes, &zone), None, "an answer to something else");
    }
}
