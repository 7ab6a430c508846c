//! Tables that nobody had to build: what each node of a settled network knows, derived from the sorted list of ids.

use std::ops::Range;

use kith_identity::membership::{Block, NodeId, region_bits};
use kith_sansio::{Rng, SeededRng};

use crate::defaults::Config;
use crate::nearest::nearest_known;

/// A network in which each bucket is full, or has everybody who belongs into it, and each region is known whole.
///
/// A bucket's nodes are drawn from those that belong into it by the owner's id alone, so that they are the same each
/// time; a simulator of ten million nodes needs no memory for them.
#[derive(Clone, Debug)]
pub struct Ideal<'a> {
    ids: &'a [NodeId],
    bits: u8,
    bucket: usize,
}

impl<'a> Ideal<'a> {
    /// The network of these ids, which ascend.
    pub fn new(ids: &'a [NodeId], config: &Config) -> Self {
        Ideal { ids, bits: region_bits(ids.len() as u64, config.region), bucket: config.bucket }
    }

    /// How many first bits the nodes of a region share.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The nodes that share a region with `own`, itself included.
    pub fn region(&self, own: NodeId) -> &'a [NodeId] {
        &self.ids[self.range(Block::around(&own, self.bits))]
    }

    /// The nodes in `own`'s bucket of those that share exactly `index` bits with it.
    pub fn bucket(&self, own: NodeId, index: u32) -> Vec<&'a NodeId> {
        let Ok(bits @ 0..=254) = u8::try_from(index) else { return Vec::new() };
        let range = self.range(Block::beside(&own, bits));
        if range.len() <= self.bucket {
            return self.ids[range].iter().collect();
        }
        let mut rng = SeededRng::new(seed(own, index));
        let mut places: Vec<usize> = Vec::with_capacity(self.bucket);
        while places.len() < self.bucket {
            let place = range.start + rng.below(range.len() as u64) as usize;
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places.into_iter().map(|place| &self.ids[place]).collect()
    }

    /// What `own` knows but itself, nearest to `target` first.
    pub fn nearest(&self, own: NodeId, target: NodeId) -> impl Iterator<Item = &'a NodeId> {
        let (bits, bucket) = (u32::from(self.bits), move |index| self.bucket(own, index));
        nearest_known(own, bits, target, bucket, self.region(own)).filter(move |id| **id != own)
    }

    fn range(&self, block: Block) -> Range<usize> {
        let (first, last) = (block.first(), block.last());
        self.ids.partition_point(|id| *id < first)..self.ids.partition_point(|id| *id <= last)
    }
}

fn seed(own: NodeId, index: u32) -> u64 {
    let bytes = own.as_bytes();
    let low = u64::from_be_bytes(std::array::from_fn(|at| bytes[24 + at]));
    low ^ u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
