//! The way of nearly every query: TXT of a node's name, straight from bytes to bytes.
//!
//! Whatever is not exactly that (other types, options, a set that does not fit) takes the long way through the codec.
//! Both ways give the same bytes; the fuzz function and the tests hold them against each other.

use kith_identity::Fingerprint;

use super::zone::join;
use super::{Transport, Zone};
use crate::defaults::{MAX_DNS_FORM_BYTES, MAX_UDP_BYTES};
use crate::label::from_hex;
use crate::store::{Held, Text};

/// Bytes of a header (RFC 1035 §4.1.1).
const HEADER: usize = 12;
/// Two labels of 32 bytes, each after its length.
const LABELS: usize = 66;
/// Longest query that goes this way, in bytes: header, name, type and class, OPT.
const MAX_BYTES: usize = HEADER + 255 + 4 + OPT;
/// Bytes of an OPT record without options (RFC 6891 §6.1.2).
const OPT: usize = 11;
/// Type TXT, class IN.
const TXT_IN: [u8; 4] = [0, 16, 0, 1];
/// Owner (a pointer to the question's name), type TXT, class IN.
const OWNER_TXT_IN: [u8; 6] = [0xc0, HEADER as u8, 0, 16, 0, 1];

/// A query for TXT of a node's name, with no more than an OPT record without options beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain {
    query: [u8; MAX_BYTES],
    length: usize,
    question_end: usize,
    limit: usize,
    transport: Transport,
}

impl Plain {
    /// Reads `query`; `None` where it has to go the long way.
    pub(super) fn read(query: &[u8], transport: Transport, zone: &Zone) -> Option<(Plain, Fingerprint)> {
        let apex = zone.wire.as_slice();
        let question_end = HEADER + LABELS + apex.len() + TXT_IN.len();
        let extra = query.get(HEADER..)?.get(LABELS + apex.len() + TXT_IN.len()..)?;
        let counts = [0, 1, 0, 0, 0, 0, 0, u8::from(!extra.is_empty())];
        if query[2] & 0xf8 != 0 || query[4..HEADER] != counts || query.len() > MAX_BYTES {
            return None;
        }
        let (labels, rest) = query[HEADER..question_end].split_at(LABELS);
        let (name, kind) = rest.split_at(apex.len());
        // Lengths of labels are below `A`, so that they are compared as they are.
        if labels[0] != 32 || labels[33] != 32 || !name.eq_ignore_ascii_case(apex) || kind != TXT_IN {
            return None;
        }
        let fingerprint = join(from_hex(&labels[1..33])?, from_hex(&labels[34..])?);
        let payload = payload_of(extra)?;
        let limit = match transport {
            Transport::Udp => usize::from(payload.clamp(512, MAX_UDP_BYTES)),
            Transport::Tcp => usize::from(u16::MAX),
        };
        let mut copy = [0; MAX_BYTES];
        copy[..query.len()].copy_from_slice(query);
        Some((Plain { query: copy, length: query.len(), question_end, limit, transport }, fingerprint))
    }

    /// The query.
    pub(super) fn query(&self) -> &[u8] {
        &self.query[..self.length]
    }

    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// Adds the answer to `out`; `false`, and nothing added, where it has to be made the long way.
    pub(super) fn answer(&self, set: &Held, ttl: u32, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        out.extend_from_slice(&self.query[..self.question_end]);
        // A response, with authority; RD and CD as they were asked for.
        out[begin + 2] = 0x84 | self.query[2] & 1;
        out[begin + 3] = self.query[3] & 0x10;
        let answers = out.len();
        let mut count = 0_u16;
        let mut fits = set.each_text(|text| {
            out.extend_from_slice(&OWNER_TXT_IN);
            out.extend_from_slice(&ttl.to_be_bytes());
            // At most 64 KiB: what is longer does not fit, and is thrown away below.
            out.extend_from_slice(&((text.len() + text.len().div_ceil(255)) as u16).to_be_bytes());
            strings(text, out);
            count += 1;
        });
        fits &= out.len() - answers <= MAX_DNS_FORM_BYTES;
        if self.length > self.question_end {
            out.extend_from_slice(&[0, 0, 41]);
            out.extend_from_slice(&MAX_UDP_BYTES.to_be_bytes());
            out.extend_from_slice(&[0; 6]);
        }
        fits &= out.len() - begin <= self.limit;
        if fits {
            out[begin + 6..begin + 8].copy_from_slice(&count.to_be_bytes());
        } else {
            out.truncate(begin);
        }
        fits
    }
}

/// Adds a text as the character strings of a TXT record (RFC 1035 §3.3).
pub(super) fn strings(text: Text<'_>, out: &mut Vec<u8>) {
    let length = text.len();
    if length <= 255 {
        out.push(length as u8);
        return text.write(out);
    }
    let mut whole = Vec::with_capacity(length);
    text.write(&mut whole);
    for part in whole.chunks(255) {
        out.push(part.len() as u8);
        out.extend_from_slice(part);
    }
}

/// How long an answer may be, by the OPT record; 512 without one.
fn payload_of(extra: &[u8]) -> Option<u16> {
    match *extra {
        [] => Some(512),
        // Root, OPT, payload, extended code 0, version 0, DO or nothing, no options.
        [0, 0, 41, high, low, 0, 0, 0 | 0x80, 0, 0, 0] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kith_identity::record::Draft;
    use kith_sansio::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::dns::{Step, read, read_whole};
    use crate::testing::identity;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn zone() -> Zone {
        Zone::new(&"example.org".parse().unwrap()).unwrap()
    }

    /// A query as resolvers send it, in mixed case, of these flags and this OPT record.
    fn query(who: &Fingerprint, upper: u64, flags: [u8; 2], opt: &[u8]) -> Vec<u8> {
        let hex = data_encoding::HEXLOWER.encode(who.as_bytes());
        let mut name = format!(" {} {}\u{2}0a\u{7}example\u{3}org\0", &hex[..32], &hex[32..]).into_bytes();
        for (place, byte) in name.iter_mut().enumerate() {
            if upper >> (place % 64) & 1 == 1 {
                byte.make_ascii_uppercase();
            }
        }
        let mut query = vec![0x12, 0x34, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())];
        query.extend(name);
        query.extend(TXT_IN);
        query.extend(opt);
        query
    }

    fn both(query: &[u8], transport: Transport, held: Option<&Held>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let finish = |step| match step {
            Step::Silence => None,
            Step::Reply(bytes) => Some(bytes),
            Step::Lookup(question) => Some(question.answer(held, &zone(), NOW)),
        };
        let short = finish(read(query, transport, &zone()));
        (short, finish(read_whole(query, transport, &zone())))
    }

    #[test]
    fn the_usual_query_goes_the_short_way() {
        let alice = identity(1);
        let fingerprint = alice.fingerprint();
        let set = Held::of(&crate::testing::set(&alice, NOW, 600));
        for opt in [&[][..], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]] {
            let query = query(&fingerprint, 0, [1, 0], opt);
            let (plain, asked) = Plain::read(&query, Transport::Udp, &zone()).unwrap();
            assert_eq!(asked, fingerprint);
            assert!(plain.answer(&set, 60, &mut Vec::new()));
        }
    }

    proptest! {
        #[test]
        fn both_ways_give_the_same_bytes(
            upper: u64, flags: [u8; 2], payload: u16, opt_flags: [u8; 4], kind in 0usize..6, tcp: bool, seconds in 1u32..200,
            blobs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..4),
            cut in 0usize..400, change in prop::option::of((0usize..200, any::<u8>())),
        ) {
            let alice = identity(1);
            let set = Draft { blobs, ttl: seconds, ..Draft::default() }.sign(&alice, NOW.minus_secs(100));
            let Ok(set) = set else { return Ok(()) };
            let held = Held::of(&set);
            let [high, low] = payload.to_be_bytes();
            let opts: [&[u8]; 6] = [
                &[],
                &[0, 0, 41, high, low, 0, 0, 0, 0, 0, 0],
                &[0, 0, 41, high, low, 0, 0, 0x80, 0, 0, 0],
                &[0, 0, 41, high, low, opt_flags[0], opt_flags[1], opt_flags[2], opt_flags[3], 0, 0],
                &[0, 0, 41, high, low, 0, 0, 0, 0, 0, 8, 0, 10, 0, 4, 1, 2, 3, 4],
                &[0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0],
            ];
            let mut bytes = query(&alice.fingerprint(), upper, flags, opts[kind]);
            if let Some((place, byte)) = change {
                let length = bytes.len();
                bytes[place % length] = byte;
            }
            if cut < 100 {
                bytes.truncate(cut);
            }
            let transport = if tcp { Transport::Tcp } else { Transport::Udp };
            for held in [Some(&held), None] {
                let (short, long) = both(&bytes, transport, held);
                prop_assert_eq!(short, long);
            }
        }
    }
}
