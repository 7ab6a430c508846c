use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use sha3::{Digest, Sha3_256};

use crate::text::{quote, serde_by_text};
use crate::{Fingerprint, PublicKey};

/// Bits of an id.
pub const ID_BITS: u32 = 256;

/// What every hash to an imposed id starts with.
const TAG: &[u8] = b"kithnet node id v1";

/// Why a text is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no node id: 64 lower-case hexadecimal digits are")]
pub struct NodeIdError(String);

/// What the issuer adds to a fingerprint before it becomes a place: its verifiable random output, which neither the
/// member nor the issuer can choose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Nonce([u8; 64]);

/// A place in the space of the network, 256 bits, big-endian: of a member, or of a key that is stored.
/// Ordered like the number; text: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// How far two places are apart: their exclusive or, as a number (Kademlia's metric).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u8; 32]);

/// All places that share their first bits: a region of the network, and a contiguous range in the order of ids.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    first: NodeId,
    bits: u8,
}

impl Nonce {
    /// The nonce with these bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Nonce {
        Nonce(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl NodeId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> NodeId {
        NodeId(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The place that is imposed on a member: sha3-256 over `"kithnet node id v1" ‖ fingerprint ‖ nonce`.
    pub fn of(fingerprint: &Fingerprint, nonce: &Nonce) -> NodeId {
        let hash =
            Sha3_256::new().chain_update(TAG).chain_update(fingerprint.as_bytes()).chain_update(nonce.0);
        NodeId(hash.finalize().into())
    }

    /// The place that a key takes by itself (SEP2P §3.3): the hash of the public key alone, which is its
    /// fingerprint. Whoever tries many keys gets the place that they want.
    pub fn paper(key: &PublicKey) -> NodeId {
        NodeId(*key.fingerprint().as_bytes())
    }

    /// How far the other place is from here.
    pub fn distance(&self, other: &NodeId) -> Distance {
        Distance(std::array::from_fn(|at| self.0[at] ^ other.0[at]))
    }

    /// Which of two places is nearer to this one: `Less` where `a` is.
    pub fn nearer(&self, a: &NodeId, b: &NodeId) -> Ordering {
        self.distance(a).cmp(&self.distance(b))
    }

    /// How many first bits both have in common, 256 where they are equal.
    pub fn common_prefix(&self, other: &NodeId) -> u32 {
        self.distance(other).leading_zeros()
    }

    /// The bit at this position, 0 being the first and highest; false beyond the last.
    pub fn bit(&self, position: u32) -> bool {
        self.0.get((position / 8) as usize).is_some_and(|byte| byte >> (7 - position % 8) & 1 == 1)
    }
}

impl Distance {
    /// Its bytes, big-endian.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// How many first bits are 0: 256 where there is no distance.
    pub fn leading_zeros(&self) -> u32 {
        let first = self.0.iter().position(|byte| *byte != 0);
        first.map_or(ID_BITS, |at| at as u32 * 8 + self.0[at].leading_zeros())
    }
}

impl Block {
    /// The whole network.
    pub const WHOLE: Block = Block { first: NodeId([0; 32]), bits: 0 };

    /// The block of `2^(256 - bits)` places around `place`.
    pub fn around(place: &NodeId, bits: u8) -> Block {
        let mut first = place.0;
        let (whole, rest) = (usize::from(bits / 8), bits % 8);
        first[whole] &= !(0xff >> rest);
        first[whole + 1..].fill(0);
        Block { first: NodeId(first), bits }
    }

    /// All places that share exactly so many bits with `place`, 254 at most.
    pub fn beside(place: &NodeId, bits: u8) -> Block {
        let mut other = place.0;
        other[usize::from(bits / 8)] ^= 0x80 >> (bits % 8);
        Block::around(&NodeId(other), bits + 1)
    }

    /// Its lowest place.
    pub fn first(&self) -> NodeId {
        self.first
    }

    /// Its highest place.
    pub fn last(&self) -> NodeId {
        let mut last = self.first.0;
        let (whole, rest) = (usize::from(self.bits / 8), self.bits % 8);
        last[whole] |= 0xff >> rest;
        last[whole + 1..].fill(0xff);
        NodeId(last)
    }

    /// The place in it that has all other bits of `rest`.
    pub fn filled(&self, rest: &NodeId) -> NodeId {
        let (first, last) = (self.first.0, self.last().0);
        NodeId(std::array::from_fn(|at| first[at] | rest.0[at] & (first[at] ^ last[at])))
    }

    /// How many bits its places share.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Its share of the whole space: `2^-bits`.
    pub fn share(&self) -> f64 {
        (-f64::from(self.bits)).exp2()
    }

    /// Whether the place lies in it.
    pub fn contains(&self, place: &NodeId) -> bool {
        self.first.common_prefix(place) >= u32::from(self.bits)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

/// The first eight digits: ids in logs are there to be told apart.
impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0[..4]))
    }
}

impl fmt::Debug for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", HEXLOWER.encode(&self.0[..4]))
    }
}

/// First place and length, as in `a0000000/3`.
impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.first, self.bits)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let bytes = if text.len() == 64 { HEXLOWER.decode(text.as_bytes()).ok() } else { None };
        bytes.and_then(|bytes| bytes.try_into().ok()).map(NodeId).ok_or_else(|| NodeIdError(quote(text)))
    }
}

serde_by_text!(NodeId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(bytes: [u8; 32]) -> NodeId {
        NodeId(bytes)
    }

    #[test]
    fn an_imposed_place_is_the_hash_that_the_page_says() {
        let place = NodeId::of(&Fingerprint::from_bytes([1; 32]), &Nonce::from_bytes([2; 64]));
        let by_hand = [&b"kithnet node id v1"[..], &[1; 32], &[2; 64]].concat();
        assert_eq!(place.0, <[u8; 32]>::from(Sha3_256::digest(by_hand)));
        assert_eq!(place.to_string().parse(), Ok(place));
    }

    #[test]
    fn a_text_of_another_form_is_no_id() {
        let good = id([0xab; 32]).to_string();
        for bad in ["", &good[..62], &good.to_uppercase(), &format!("{good}00"), &good.replace('a', "g")] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_block_has_two_places() {
        let block = Block::around(&id([0xff; 32]), 255);
        assert_eq!((block.first().bit(255), block.last().bit(255)), (false, true));
        assert_eq!(block.first().common_prefix(&block.last()), 255);
        assert_eq!(Block::around(&id([7; 32]), 0), Block::WHOLE);
        assert_eq!(Block::WHOLE.last(), id([0xff; 32]));
    }

    proptest! {
        #[test]
        fn distance_is_a_metric_and_agrees_with_the_prefix(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
            let (a, b, c) = (id(a), id(b), id(c));
            prop_assert_eq!(a.distance(&b), b.distance(&a));
            prop_assert_eq!(a.distance(&a).leading_zeros(), 256);
            let common = (0..256).take_while(|at| a.bit(*at) == b.bit(*at)).count() as u32;
            prop_assert_eq!(a.common_prefix(&b), common);
            prop_assert!(a.common_prefix(&c) >= common.min(b.common_prefix(&c)));
            prop_assert_eq!(a.nearer(&b, &c), a.distance(&b).cmp(&a.distance(&c)));
        }

        #[test]
        fn a_block_is_the_range_from_its_first_to_its_last_place(a: [u8; 32], b: [u8; 32], same in 0usize..32, bits: u8) {
            let place = id(a);
            let mut near = a;
            near[same..].copy_from_slice(&b[same..]);
            let (block, near) = (Block::around(&place, bits), id(near));
            prop_assert!(block.contains(&place));
            prop_assert_eq!(block.contains(&near), (block.first()..=block.last()).contains(&near));
            prop_assert_eq!(block.contains(&near), place.common_prefix(&near) >= u32::from(bits));
            if bits < 255 {
                let beside = Block::beside(&place, bits);
                prop_assert_eq!(beside.contains(&near), place.common_prefix(&near) == u32::from(bits));
                prop_assert_eq!(place.common_prefix(&beside.filled(&id(b))), u32::from(bits));
            }
            let filled = block.filled(&id(b));
            for at in 0..256 {
                prop_assert_eq!(filled.bit(at), if at < u32::from(bits) { place } else { id(b) }.bit(at));
            }
        }
    }
}
