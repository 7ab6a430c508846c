use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce as AeadNonce, UnboundKey};
use aws_lc_rs::constant_time;
use kith_identity::Fingerprint;
use kith_identity::record::MAX_SIGNED_BYTES;
use kith_sansio::wire::{Reader, Writer};

use super::name::{Instance, Nonce, Salt, keyed, keyed_whole};

const ASK_TAG: &[u8] = b"kithnet lan v1 ask";
const ANSWER_TAG: &[u8] = b"kithnet lan v1 answer";
/// Most bytes of a set: what is signed, and the signature.
const MAX_SET_BYTES: usize = MAX_SIGNED_BYTES + 64;
/// Bytes of a set that one piece carries, so that its packet passes every network unfragmented.
const PIECE_BYTES: usize = 1000;
/// Sets are filled up to a multiple of this, so that their size tells little.
const PADDED_BYTES: usize = 500;
/// Most pieces of a set.
pub const MAX_PIECES: usize = (2 + MAX_SET_BYTES).div_ceil(PIECE_BYTES);
/// Nonce of the answer, place, number of pieces.
const HEAD_BYTES: usize = 16 + 1 + 1;
/// The seal's own bytes.
const SEAL_BYTES: usize = 16;
/// Most bytes of a sealed piece.
pub const MAX_SEALED_BYTES: usize = HEAD_BYTES + PIECE_BYTES + SEAL_BYTES;

/// The question for the set behind a name, which only somebody who knows the fingerprint can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// The name that was recognised.
    pub instance: Instance,
    /// This question's own.
    pub nonce: Nonce,
    /// The first 16 bytes of BLAKE3, keyed with the fingerprint, over `kithnet lan v1 ask` ‖ salt ‖ nonce.
    pub mac: [u8; 16],
}

impl Ask {
    /// The question for `fingerprint` under `salt`.
    #[must_use]
    pub fn new(fingerprint: &Fingerprint, salt: &Salt, nonce: Nonce) -> Ask {
        Ask { instance: Instance::of(fingerprint, salt), nonce, mac: mac(fingerprint, salt, &nonce) }
    }

    /// Whether whoever asks knows `fingerprint`, whose name is made with `salt` now.
    #[must_use]
    pub fn is_for(&self, fingerprint: &Fingerprint, salt: &Salt) -> bool {
        let right = mac(fingerprint, salt, &self.nonce);
        constant_time::verify_slices_are_equal(&self.mac, &right).is_ok()
            && self.instance == Instance::of(fingerprint, salt)
    }
}

fn mac(fingerprint: &Fingerprint, salt: &Salt, nonce: &Nonce) -> [u8; 16] {
    keyed(fingerprint, &[ASK_TAG, &salt.0, &nonce.0])
}

/// One piece of an answer, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The answer that it belongs to.
    pub answer: Nonce,
    /// Its place.
    pub index: u8,
    /// How many there are, 1 to [`MAX_PIECES`].
    pub count: u8,
    /// What was sealed.
    pub bytes: Vec<u8>,
}

/// The key of one answer: BLAKE3, keyed with the fingerprint, over `kithnet lan v1 answer` ‖ salt ‖ nonce of the
/// question ‖ nonce of the answer. No key seals two answers, also where a question is played again.
fn key(fingerprint: &Fingerprint, salt: &Salt, ask: &Nonce, answer: &Nonce) -> Option<LessSafeKey> {
    let key = keyed_whole(fingerprint, &[ANSWER_TAG, &salt.0, &ask.0, &answer.0]);
    UnboundKey::new(&CHACHA20_POLY1305, &key).ok().map(LessSafeKey::new)
}

/// The nonce of the seal: eleven zeros, then the place of the piece.
fn place(index: u8) -> AeadNonce {
    let mut nonce = [0; 12];
    nonce[11] = index;
    AeadNonce::assume_unique_for_key(nonce)
}

/// Seals the binary form of a set for whoever asked with `ask`, in pieces: nonce of the answer ‖ u8 place ‖ u8 number
/// of pieces ‖ sealed bytes with their tag. Sealed is u16 length ‖ set ‖ zeros up to a multiple of 500, cut after each
/// 1 000 bytes; the 18 bytes before it are authenticated. Empty where `set` is larger than any set.
#[must_use]
pub fn seal(fingerprint: &Fingerprint, salt: &Salt, ask: &Nonce, answer: Nonce, set: &[u8]) -> Vec<Vec<u8>> {
    let (true, Ok(length)) = (set.len() <= MAX_SET_BYTES, u16::try_from(set.len())) else {
        return Vec::new();
    };
    let Some(key) = key(fingerprint, salt, ask, &answer) else { return Vec::new() };
    let mut writer = Writer::new();
    writer.u16(length).bytes(set);
    let mut plain = writer.finish();
    plain.resize(plain.len().next_multiple_of(PADDED_BYTES), 0);
    let count = plain.len().div_ceil(PIECE_BYTES) as u8;
    plain
        .chunks(PIECE_BYTES)
        .zip(0..count)
        .filter_map(|(chunk, index)| {
            let mut head = Writer::new();
            head.bytes(&answer.0).u8(index).u8(count);
            let head = head.finish();
            let mut sealed = chunk.to_vec();
            key.seal_in_place_append_tag(place(index), Aad::from(&head), &mut sealed).ok()?;
            Some([head, sealed].concat())
        })
        .collect()
}

/// Opens one piece of the answer to the question with the nonce `ask`; `None` for whatever nobody sealed for it.
#[must_use]
pub fn open(fingerprint: &Fingerprint, salt: &Salt, ask: &Nonce, piece: &[u8]) -> Option<Opened> {
    if piece.len() > MAX_SEALED_BYTES {
        return None;
    }
    let (head, sealed) = piece.split_at_checked(HEAD_BYTES)?;
    let mut reader = Reader::new(head);
    let answer = Nonce(reader.array().ok()?);
    let (index, count) = (reader.u8().ok()?, reader.u8().ok()?);
    if index >= count || usize::from(count) > MAX_PIECES {
        return None;
    }
    let mut bytes = sealed.to_vec();
    let key = key(fingerprint, salt, ask, &answer)?;
    let plain = key.open_in_place(place(index), Aad::from(head), &mut bytes).ok()?.len();
    bytes.truncate(plain);
    Some(Opened { answer, index, count, bytes })
}

/// The set out of all pieces of an answer, in their order.
pub(super) fn joined(pieces: &[Vec<u8>]) -> Option<Vec<u8>> {
    let plain = pieces.concat();
    let mut reader = Reader::new(&plain);
    let length = usize::from(reader.u16().ok()?);
    let set = reader.bytes(length).ok()?.to_vec();
    reader.rest().iter().all(|byte| *byte == 0).then_some(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn somebody(byte: u8) -> Fingerprint {
        Fingerprint::from_bytes([byte; 32])
    }

    const SALT: Salt = Salt([1; 16]);
    const ASKED: Nonce = Nonce([2; 16]);
    const ANSWER: Nonce = Nonce([3; 16]);

    /// The vectors of docs/protocol-lan.md; another implementation must come to the same bytes.
    #[test]
    fn the_vectors_of_the_documentation_hold() {
        let page = include_str!("../../../../docs/protocol-lan.md");
        let fingerprint = Fingerprint::from_bytes(std::array::from_fn(|at| at as u8));
        let ask = Ask::new(&fingerprint, &SALT, ASKED);
        let sealed = seal(&fingerprint, &SALT, &ASKED, ANSWER, b"set");
        let key = keyed_whole(&fingerprint, &[ANSWER_TAG, &SALT.0, &ASKED.0, &ANSWER.0]);
        let piece = HEXLOWER.encode(&sealed[0]);
        let vectors = [
            ("name", HEXLOWER.encode(&ask.instance.0)),
            ("mac", HEXLOWER.encode(&ask.mac)),
            ("key", HEXLOWER.encode(&key)),
            ("piece, first 24 bytes", piece[..48].to_owned()),
            ("piece, last 16 bytes", piece[piece.len() - 32..].to_owned()),
        ];
        let missing: Vec<_> = vectors
            .iter()
            .map(|(name, value)| format!("| {name} | `{value}` |"))
            .filter(|line| !page.contains(line))
            .collect();
        assert!(missing.is_empty(), "the page lacks\n{}", missing.join("\n"));
    }

    #[test]
    fn a_question_counts_for_its_fingerprint_and_salt_alone() {
        let ask = Ask::new(&somebody(1), &SALT, ASKED);
        assert!(ask.is_for(&somebody(1), &SALT));
        assert!(!ask.is_for(&somebody(2), &SALT));
        assert!(!ask.is_for(&somebody(1), &Salt([9; 16])));
        assert!(!Ask { nonce: ANSWER, ..ask }.is_for(&somebody(1), &SALT));
        assert!(!Ask { instance: Instance([0; 16]), ..ask }.is_for(&somebody(1), &SALT));
    }

    #[test]
    fn what_is_larger_than_any_set_is_not_sealed() {
        assert!(seal(&somebody(1), &SALT, &ASKED, ANSWER, &vec![0; MAX_SET_BYTES + 1]).is_empty());
        let largest = seal(&somebody(1), &SALT, &ASKED, ANSWER, &vec![0; MAX_SET_BYTES]);
        assert_eq!(largest.len(), MAX_PIECES);
        assert!(largest.iter().all(|piece| piece.len() <= MAX_SEALED_BYTES));
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_by_who_asked_and_by_nobody_else(
            set in proptest::collection::vec(any::<u8>(), 0..4000),
            flip in 1u8..,
            at: proptest::sample::Index,
        ) {
            let pieces = seal(&somebody(1), &SALT, &ASKED, ANSWER, &set);
            let opened: Vec<_> =
                pieces.iter().map(|piece| open(&somebody(1), &SALT, &ASKED, piece).unwrap()).collect();
            let plain: Vec<_> = opened.iter().map(|one| one.bytes.clone()).collect();
            prop_assert_eq!(joined(&plain), Some(set));
            for piece in &pieces {
                prop_assert!(open(&somebody(2), &SALT, &ASKED, piece).is_none());
                prop_assert!(open(&somebody(1), &Salt([9; 16]), &ASKED, piece).is_none());
                prop_assert!(open(&somebody(1), &SALT, &ANSWER, piece).is_none());
                let mut altered = piece.clone();
                altered[at.index(piece.len())] ^= flip;
                prop_assert!(open(&somebody(1), &SALT, &ASKED, &altered).is_none());
                prop_assert!(open(&somebody(1), &SALT, &ASKED, &piece[..at.index(piece.len())]).is_none());
            }
        }
    }
}
