//! The nearest of what is sorted by place.

use kith_identity::membership::{ID_BITS, NodeId};

/// Something that has a place in the space of the network.
pub trait Placed {
    /// Where it is.
    fn place(&self) -> NodeId;
}

impl Placed for NodeId {
    fn place(&self) -> NodeId {
        *self
    }
}

/// The items of a slice that is sorted by place, nearest to `target` first. It descends the tree of prefixes, so the
/// first few of ten million cost no more than the first few of a hundred.
#[derive(Clone, Debug)]
pub struct Nearest<'a, T> {
    target: NodeId,
    /// Ranges that share all bits before the given one; the nearest is the last.
    ranges: Vec<(&'a [T], u32)>,
}

impl<'a, T: Placed> Nearest<'a, T> {
    /// Over `sorted`, which ascends by place.
    pub fn new(sorted: &'a [T], target: NodeId) -> Self {
        Nearest { target, ranges: vec![(sorted, 0)] }
    }
}

impl<'a, T: Placed> Iterator for Nearest<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            let (range, bit) = self.ranges.pop()?;
            match range {
                [] => {}
                [only] => return Some(only),
                // Nothing tells these apart.
                [first, rest @ ..] if bit >= ID_BITS => {
                    self.ranges.push((rest, bit));
                    return Some(first);
                }
                _ => {
                    let (zeros, ones) = range.split_at(range.partition_point(|item| !item.place().bit(bit)));
                    let (near, far) = if self.target.bit(bit) { (ones, zeros) } else { (zeros, ones) };
                    self.ranges.extend([(far, bit + 1), (near, bit + 1)]);
                }
            }
        }
    }
}

/// What a node knows, nearest to `target` first: `bucket(i)` has nodes that share exactly `i` bits with `own`,
/// `region` is sorted and has those that share `bits` or more.
///
/// Everything in one bucket is nearer or further than everything in another, so only what is asked for is sorted.
pub fn nearest_known<'a, T: Placed>(
    own: NodeId,
    bits: u32,
    target: NodeId,
    bucket: impl Fn(u32) -> Vec<&'a T> + Clone,
    region: &'a [T],
) -> impl Iterator<Item = &'a T> {
    let sorted = move |mut nodes: Vec<&'a T>| {
        nodes.sort_by(|a, b| target.nearer(&a.place(), &b.place()));
        nodes
    };
    let shared = own.common_prefix(&target);
    let home = if shared < bits { &[][..] } else { region };
    let (same, inner, outer) = (bucket.clone(), bucket.clone(), bucket);
    // What is in the buckets after that of the target, and in the region, is as far from it as the node itself.
    let beyond = (shared < bits)
        .then_some(())
        .into_iter()
        .flat_map(move |()| sorted((shared + 1..bits).flat_map(&inner).chain(region).collect()));
    Nearest::new(home, target)
        .chain((shared..bits).take(1).flat_map(move |index| sorted(same(index))))
        .chain(beyond)
        .chain((0..shared.min(bits)).rev().flat_map(move |index| sorted(outer(index))))
}
