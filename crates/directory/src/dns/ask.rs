//! The client's half: one question, and what an answer to it says.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::REDIRECT;
use crate::defaults::MAX_UDP_BYTES;

/// Longest chain of aliases that is followed.
const MAX_ALIASES: usize = 8;

/// One question for TXT records, with the id that its answer must carry.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    id: u16,
    name: Name,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is not an answer to this question.
    NotOurs,
    /// It did not fit; ask over TCP.
    Truncated,
    /// The joined character strings of each TXT record.
    Texts(Vec<Vec<u8>>),
    /// There is no such record.
    Nothing,
    /// The set is too large for DNS.
    UseHttps,
    /// The resolver failed, with this code.
    Failed(u16),
}

impl Ask {
    /// A question for `name`; `None` where that is no name.
    pub(crate) fn new(id: u16, name: &str) -> Option<Ask> {
        let mut name = Name::from_ascii(name).ok()?;
        name.set_fqdn(true);
        Some(Ask { id, name })
    }

    /// The query's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), RecordType::TXT));
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_BYTES).set_version(0);
        message.set_edns(edns);
        message.to_vec().unwrap_or_default()
    }

    /// Reads what came back. Whatever is broken or not asked for is not ours: anybody can send it.
    pub(crate) fn hear(&self, answer: &[u8]) -> Heard {
        // One question, told before memory is taken for as many as the header promises.
        if answer.len() < 12 || answer[4..6] != [0, 1] {
            return Heard::NotOurs;
        }
        let Ok(message) = Message::from_vec(answer) else { return Heard::NotOurs };
        if !self.is_answered_by(&message) {
            return Heard::NotOurs;
        }
        match message.metadata.response_code {
            _ if message.metadata.truncation => Heard::Truncated,
            ResponseCode::NXDomain => Heard::Nothing,
            ResponseCode::NoError => self.texts(&message.answers),
            code => Heard::Failed(code.into()),
        }
    }

    fn is_answered_by(&self, message: &Message) -> bool {
        message.metadata.id == self.id
            && message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query
            && matches!(message.queries.as_slice(), [question]
                if question.name() == &self.name
                    && question.query_type() == RecordType::TXT
                    && question.query_class() == DNSClass::IN)
    }

    fn texts(&self, answers: &[Record]) -> Heard {
        let mut owner = &self.name;
        for _ in 0..MAX_ALIASES {
            let alias = answers.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if &record.name == owner => Some(&target.0),
                _ => None,
            });
            match alias {
                Some(target) => owner = target,
                None => break,
            }
        }
        let texts: Vec<Vec<u8>> = answers
            .iter()
            .filter(|record| &record.name == owner)
            .filter_map(|record| match &record.data {
                RData::TXT(txt) => Some(txt.txt_data.concat()),
                _ => None,
            })
            .collect();
        match texts.as_slice() {
            [] => Heard::Nothing,
            [only] if only == REDIRECT => Heard::UseHttps,
            _ => Heard::Texts(texts),
        }
    }
}
