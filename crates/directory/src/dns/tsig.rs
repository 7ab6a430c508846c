//! Transaction signatures (TSIG, RFC 8945): who asks holds a key that was agreed on, and so does who answers.
//!
//! Parsing and signing work on bytes, because a signature covers a message as it was sent. `now` is an argument.

mod key;
mod read;

use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use kith_sansio::Timestamp;

pub use self::key::{Algorithm, Key, KeyError};
pub(crate) use self::read::{Found, Signed, find};

/// Seconds that two clocks may differ (RFC 8945 §10).
pub(crate) const FUDGE_SECS: u16 = 300;
const CLASS_ANY: u16 = 255;
const TYPE_TSIG: u16 = 250;
const NOT_AUTHORITATIVE: u16 = 9;

/// Why a signature does not count (RFC 8945 §5.2).
pub(crate) enum Fault {
    /// No key of that name and algorithm.
    Key,
    /// The code is wrong.
    Signature,
    /// The code is right and was made too long ago, or by a clock that is ahead.
    Time(Arc<Key>),
    /// The code is right as far as it goes, and was cut short.
    Truncated(Arc<Key>),
    /// The code has a length that it cannot have.
    Length,
}

impl Fault {
    /// Its number in a signature's record; 0 where the message is malformed.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Fault::Signature => 16,
            Fault::Key => 17,
            Fault::Time(_) => 18,
            Fault::Truncated(_) => 22,
            Fault::Length => 0,
        }
    }
}

impl Signed {
    /// The key that this was signed with, in the order of checks of RFC 8945 §5.2. `asked` is the code of the request
    /// that this answers.
    pub(crate) fn verify(
        &self,
        keys: &[Arc<Key>],
        now: Timestamp,
        asked: Option<&[u8]>,
    ) -> Result<Arc<Key>, Fault> {
        let named =
            |key: &&Arc<Key>| key.wire_name() == self.name && key.algorithm().wire_name() == self.algorithm;
        let key = keys.iter().find(named).ok_or(Fault::Key)?;
        let whole = key.algorithm().bytes();
        if self.mac.len() > whole || self.mac.len() < (whole / 2).max(10) {
            return Err(Fault::Length);
        }
        let variables =
            Variables { time: self.time, fudge: self.fudge, error: self.error, other: &self.other };
        let prior = asked.map(prefixed).unwrap_or_default();
        if !key.made(&[&prior, &self.message, &variables.to_bytes(key)], &self.mac) {
            return Err(Fault::Signature);
        }
        if now.0.abs_diff(self.time) > u64::from(self.fudge) {
            return Err(Fault::Time(Arc::clone(key)));
        }
        if self.mac.len() < whole {
            return Err(Fault::Truncated(Arc::clone(key)));
        }
        Ok(Arc::clone(key))
    }

    /// The answer to a request whose signature does not count: NOTAUTH and why, signed where the key is known to
    /// both (RFC 8945 §5.3.2).
    pub(crate) fn refuse(&self, fault: &Fault, now: Timestamp) -> Vec<u8> {
        if matches!(fault, Fault::Length) {
            return self.bare(ResponseCode::FormErr.low().into());
        }
        let mut answer = self.bare(NOT_AUTHORITATIVE);
        let clock = now.0.to_be_bytes();
        let (time, other) = match fault {
            // The time of the request, and ours beside it (RFC 8945 §5.2.3).
            Fault::Time(_) => (self.time, &clock[2..]),
            _ => (now.0, &[][..]),
        };
        let variables = Variables { time, fudge: FUDGE_SECS, error: fault.code(), other };
        let mac = match fault {
            Fault::Time(key) | Fault::Truncated(key) => {
                key.mac(&[&prefixed(&self.mac), &answer, &variables.to_bytes(key)])
            }
            _ => Vec::new(),
        };
        // The code is over this id, which need not be the one that the asker began with.
        let [a, b, ..] = self.header();
        append(&mut answer, &self.name, &self.algorithm, &variables, &mac, u16::from_be_bytes([a, b]));
        answer
    }

    /// A header and the question.
    fn bare(&self, code: u16) -> Vec<u8> {
        let [a, b, flags, ..] = self.header();
        let code = u8::try_from(code).unwrap_or(0) & 0x0f;
        let mut answer = vec![a, b, 0x80 | flags & 0x79, code, 0, 1, 0, 0, 0, 0, 0, 0];
        answer.extend_from_slice(self.question());
        answer
    }
}

/// Signs one message, or the messages of one answer in turn.
pub(crate) struct Signer {
    key: Arc<Key>,
    /// The code of the message before; empty before a request.
    prior: Vec<u8>,
    continues: bool,
}

impl Signer {
    /// For a request.
    pub(crate) fn request(key: Arc<Key>) -> Signer {
        Signer { key, prior: Vec::new(), continues: false }
    }

    /// For the answer to a request that was verified.
    pub(crate) fn answer(key: Arc<Key>, request: &Signed) -> Signer {
        Signer { key, prior: request.mac.clone(), continues: false }
    }

    /// How many bytes a signature adds to a message.
    pub(crate) fn overhead(&self) -> usize {
        let algorithm = self.key.algorithm();
        self.key.wire_name().len() + 10 + algorithm.wire_name().len() + 16 + algorithm.bytes()
    }

    /// Adds the signature to a message; its code is the one that answers are held against.
    pub(crate) fn sign(&mut self, message: &mut Vec<u8>, now: Timestamp) -> &[u8] {
        let variables = Variables { time: now.0, fudge: FUDGE_SECS, error: 0, other: &[] };
        let prior = if self.prior.is_empty() { Vec::new() } else { prefixed(&self.prior) };
        // From the second message of an answer on only the timers are signed (RFC 8945 §5.3.1).
        let tail = if self.continues { variables.timers() } else { variables.to_bytes(&self.key) };
        let mac = self.key.mac(&[&prior, message, &tail]);
        let id = message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        append(message, self.key.wire_name(), self.key.algorithm().wire_name(), &variables, &mac, id);
        self.continues = !self.prior.is_empty();
        self.prior = mac;
        &self.prior
    }
}

/// What a signature covers beside the message and its own name.
struct Variables<'a> {
    /// Seconds since 1970, 48 bits.
    time: u64,
    fudge: u16,
    error: u16,
    other: &'a [u8],
}

impl Variables<'_> {
    fn timers(&self) -> Vec<u8> {
        [&self.time.to_be_bytes()[2..], &self.fudge.to_be_bytes()].concat()
    }

    /// As they are signed (RFC 8945 §4.3.3).
    fn to_bytes(&self, key: &Key) -> Vec<u8> {
        [
            key.wire_name(),
            &CLASS_ANY.to_be_bytes(),
            &[0; 4],
            key.algorithm().wire_name(),
            &self.timers(),
            &self.error.to_be_bytes(),
            &length(self.other),
            self.other,
        ]
        .concat()
    }
}

/// Adds the record (RFC 8945 §4.2).
fn append(message: &mut Vec<u8>, name: &[u8], algorithm: &[u8], variables: &Variables, mac: &[u8], id: u16) {
    let data = [
        algorithm,
        &variables.timers(),
        &length(mac),
        mac,
        &id.to_be_bytes(),
        &variables.error.to_be_bytes(),
        &length(variables.other),
        variables.other,
    ]
    .concat();
    message.extend_from_slice(name);
    message.extend_from_slice(&TYPE_TSIG.to_be_bytes());
    message.extend_from_slice(&CLASS_ANY.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&length(&data));
    message.extend_from_slice(&data);
    if let Some(count) = message.get_mut(10..12) {
        let more = u16::from_be_bytes([count[0], count[1]]).saturating_add(1);
        count.copy_from_slice(&more.to_be_bytes());
    }
}

/// Codes and names are far shorter than what a u16 counts.
fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

fn prefixed(mac: &[u8]) -> Vec<u8> {
    [&length(mac), mac].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn key(algorithm: Algorithm) -> Arc<Key> {
        Arc::new(Key::new("Transfer.Example", algorithm, &[7; 32]).unwrap())
    }

    fn query() -> Vec<u8> {
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x020a\x07example\x03org\x00\x00\xfc\x00\x01");
        query
    }

    fn signed(key: &Arc<Key>, now: Timestamp) -> (Vec<u8>, Box<Signed>) {
        let mut message = query();
        let overhead = Signer::request(Arc::clone(key)).overhead();
        Signer::request(Arc::clone(key)).sign(&mut message, now);
        assert_eq!(message.len(), query().len() + overhead);
        let Found::Signed(signed) = find(&message) else { panic!("no signature") };
        (message, signed)
    }

    fn fault(signed: &Signed, keys: &[Arc<Key>], now: Timestamp) -> u16 {
        signed.verify(keys, now, None).err().unwrap().code()
    }

    #[test]
    fn what_was_signed_is_verified_with_every_algorithm() {
        for algorithm in [Algorithm::HmacSha256, Algorithm::HmacSha384, Algorithm::HmacSha512] {
            let key = key(algorithm);
            let (_, signed) = signed(&key, NOW);
            assert_eq!(signed.message, query());
            assert!(signed.verify(&[Arc::clone(&key)], NOW, None).is_ok());
        }
    }

    /// Computed with Python's `hmac` by the formula of RFC 8945 §4.3, for the query `0a.example.org. AXFR`.
    #[test]
    fn the_code_is_the_one_that_others_compute() {
        let (_, signed) = signed(&key(Algorithm::HmacSha256), NOW);
        assert_eq!(data_encoding::HEXLOWER.encode(&signed.mac), VECTOR);
    }

    const VECTOR: &str = "3755465a3a1310d8b666c96e68918f416119de1a47bba0845825d5507853ff01";

    #[test]
    fn wrong_keys_codes_times_and_lengths_are_told_apart() {
        let (good, other) = (key(Algorithm::HmacSha256), key(Algorithm::HmacSha512));
        let same_name = Arc::new(Key::new("transfer.example", Algorithm::HmacSha256, &[8; 32]).unwrap());
        let keys = [Arc::clone(&good)];
        let (_, mut signed) = signed(&good, NOW);
        assert_eq!(fault(&signed, &[], NOW), 17);
        assert_eq!(fault(&signed, &[other], NOW), 17, "the algorithm is part of the key");
        assert_eq!(fault(&signed, &[same_name], NOW), 16);
        assert!(signed.verify(&keys, NOW.plus_secs(300), None).is_ok());
        assert_eq!(fault(&signed, &keys, NOW.plus_secs(301)), 18);
        assert_eq!(fault(&signed, &keys, NOW.minus_secs(301)), 18);
        assert_eq!(signed.verify(&keys, NOW, Some(&[1; 32])).err().unwrap().code(), 16, "it answers nothing");
        signed.mac.truncate(16);
        assert_eq!(fault(&signed, &keys, NOW), 22);
        signed.mac.truncate(15);
        assert_eq!(fault(&signed, &keys, NOW), 0);
        signed.mac = vec![0; 33];
        assert_eq!(fault(&signed, &keys, NOW), 0);
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let key = key(Algorithm::HmacSha256);
        let (message, _) = signed(&key, NOW);
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 4;
            let verified = match find(&changed) {
                Found::Signed(signed) => signed.verify(&[Arc::clone(&key)], NOW, None).is_ok(),
                Found::Nothing | Found::Malformed => false,
            };
            // The id may be changed on the way by a forwarder (RFC 8945 §5.4); class and ttl are fixed values.
            assert!(!verified || at < 2, "byte {at}");
        }
    }

    #[test]
    fn an_answer_of_many_messages_is_a_chain() {
        let key = key(Algorithm::HmacSha384);
        let (_, request) = signed(&key, NOW);
        let mut signer = Signer::answer(Arc::clone(&key), &request);
        let mut prior = request.mac.clone();
        for number in 0..3 {
            let mut message = query();
            let mac = signer.sign(&mut message, NOW).to_vec();
            let Found::Signed(answer) = find(&message) else { panic!("no signature") };
            if number == 0 {
                assert!(answer.verify(&[Arc::clone(&key)], NOW, Some(&prior)).is_ok());
            }
            let timers = [&NOW.0.to_be_bytes()[2..], &FUDGE_SECS.to_be_bytes()].concat();
            assert_eq!(key.made(&[&prefixed(&prior), &query(), &timers], &mac), number > 0);
            prior = mac;
        }
    }

    #[test]
    fn a_refusal_says_why_and_is_signed_where_both_know_the_key() {
        let key = key(Algorithm::HmacSha256);
        let (_, request) = signed(&key, NOW);
        let refused = |fault: &Fault| match find(&request.refuse(fault, NOW.plus_secs(400))) {
            Found::Signed(answer) => answer,
            Found::Nothing | Found::Malformed => panic!("no signature"),
        };
        for (fault, code) in [(Fault::Key, 17), (Fault::Signature, 16)] {
            let answer = refused(&fault);
            assert_eq!((answer.error, answer.mac.len(), answer.message[3] & 15), (code, 0, 9));
        }
        let late = refused(&Fault::Time(Arc::clone(&key)));
        assert_eq!((late.error, late.time), (18, NOW.0));
        assert_eq!(late.other, (NOW.0 + 400).to_be_bytes()[2..]);
        assert!(late.verify(&[Arc::clone(&key)], NOW, Some(&request.mac)).is_ok());
        let malformed = request.refuse(&Fault::Length, NOW);
        assert_eq!(malformed[3] & 15, 1);
    }
}
