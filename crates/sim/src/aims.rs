//! Random values that make a certain node the setter: SEP2P fixes RND_T so that each node is the setter once (§4.1).
//!
//! A setter follows from a hash, which nobody can choose; so values are tried until each node was hit. The last witness of
//! a trigger then draws what makes the value out of those of the others.

use kith_actors::paper::{Node, Order, Share, VerifiableRandom};
use kith_actors::scheme::Hash;
use kith_sansio::Rng;

use crate::ring::Ring;
use crate::run::{Purpose, Run, chance};
use crate::talk::NOW;

/// So many values are tried for each node. A node manages a share of the ring that is mean 1/N and seldom very small: one
/// in 2 600 is not hit, and left out.
const TRIES: u64 = 100;
/// Values of one piece of work.
const BATCH: u64 = 10_000;

/// Pieces of work that it takes.
pub(crate) fn pieces(nodes: u64) -> u64 {
    (nodes * TRIES).div_ceil(BATCH)
}

/// For each node a value that makes it the setter, as far as one was found.
pub(crate) fn at_each(ring: &Ring, (seed, number): (u64, u64), run: &Run) -> Vec<Option<Hash>> {
    let nodes = ring.nodes();
    let pieces = pieces(nodes.len() as u64);
    let hits = run.map(pieces, |piece| {
        let mut rng = chance(seed, Purpose::Setters, number * pieces + piece);
        let mut is_hit = vec![false; nodes.len()];
        let mut hits = Vec::new();
        for _ in 0..BATCH {
            let mut random = [0; 32];
            rng.fill(&mut random);
            let setter = ring.index(&ring.at(place(nodes[0], random)));
            if let Some(setter) = setter.filter(|setter| !std::mem::replace(&mut is_hit[*setter], true)) {
                hits.push((setter, random));
            }
        }
        hits
    });
    let mut aims = vec![None; nodes.len()];
    for (setter, random) in hits.into_iter().flatten() {
        aims[setter].get_or_insert(random);
    }
    aims
}

/// Where the selection of a random value begins.
fn place(trigger: Node, random: Hash) -> kith_actors::paper::Place {
    let share = Share { witness: trigger, random, signature: [0; 64] };
    let random = VerifiableRandom { trigger, at: NOW.utc, shares: vec![share] };
    Order { random, actors: 0, moves: Vec::new() }.place()
}

/// Chance, except that the last of so many random numbers makes their exclusive or the wanted one.
pub(crate) struct Aimed<'a> {
    pub(crate) rng: &'a mut dyn Rng,
    pub(crate) left: usize,
    pub(crate) missing: Hash,
}

impl Rng for Aimed<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.rng.fill(bytes);
        if self.left == 1 && bytes.len() == self.missing.len() {
            bytes.copy_from_slice(&self.missing);
        }
        self.left = self.left.saturating_sub(1);
        self.missing.iter_mut().zip(bytes).for_each(|(missing, drawn)| *missing ^= *drawn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_each_node_is_the_setter_once() {
        let ring = Ring::new(3_000, 1, 0);
        let aims = at_each(&ring, (1, 0), &Run::new(2));
        for (at, aim) in aims.iter().enumerate() {
            let setter = aim.map(|aim| ring.at(place(ring.nodes()[5], aim)));
            assert!(setter.is_none_or(|setter| setter == ring.nodes()[at]));
        }
        let left_out = aims.iter().filter(|aim| aim.is_none()).count();
        assert!(left_out < 10, "{left_out}");
        assert_eq!(aims, at_each(&ring, (1, 0), &Run::new(1)));
    }
}
