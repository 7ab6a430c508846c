//! A network of the paper: all nodes on a ring, and what each of them knows, derived from their sorted places.

use kith_actors::ktable::{Arc, Region};
use kith_actors::paper::{Cache, Node, Place};
use kith_actors::scheme::{Hash, Pretended};
use kith_sansio::Rng;

use crate::run::{Purpose, chance};

/// All nodes, sorted by place.
#[derive(Debug)]
pub(crate) struct Ring(Vec<Node>);

impl Ring {
    /// The `number`-th network of so many nodes.
    pub(crate) fn new(nodes: u64, seed: u64, number: u64) -> Ring {
        let mut rng = chance(seed, Purpose::Places, number);
        let mut all: Vec<_> = (0..nodes).map(|_| node(&mut rng)).collect();
        all.sort_unstable_by_key(Node::place);
        Ring(all)
    }

    /// This network and these nodes.
    pub(crate) fn with(&self, more: &[Node]) -> Ring {
        let mut all = [&self.0, more].concat();
        all.sort_by_key(Node::place);
        Ring(all)
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.0
    }

    /// Which of the sorted nodes this is; none where it is invented.
    pub(crate) fn index(&self, node: &Node) -> Option<usize> {
        self.0.binary_search_by_key(&node.place(), Node::place).ok()
    }

    /// The first node at a place or after it.
    pub(crate) fn successor(&self, place: Place) -> usize {
        self.0.partition_point(|node| node.place() < place) % self.0.len()
    }

    /// The node that manages a place: the nearest one.
    pub(crate) fn at(&self, place: Place) -> Node {
        let [before, after] = self.beside(place);
        if place.distance(before.place()) < place.distance(after.place()) { before } else { after }
    }

    /// The nodes before and behind a place.
    pub(crate) fn beside(&self, place: Place) -> [Node; 2] {
        let after = self.successor(place);
        [self.0[(after + self.0.len() - 1) % self.0.len()], self.0[after]]
    }

    /// The nodes of an arc, in the order of the ring.
    pub(crate) fn within(&self, center: Place, arc: Arc) -> impl Iterator<Item = &Node> {
        // A little more than half of the arc, because a place is more exact than a floating-point number.
        let half = ((arc.size() * 127f64.exp2()) as u128).saturating_add(1 << 80).min(1 << 127);
        let first = self.successor(Place(center.0.wrapping_sub(half)));
        (self.0[first..].iter().chain(&self.0[..first]))
            .take_while(move |node| center.distance(node.place()) <= half)
            .filter(move |node| arc.holds(center, node.place()))
    }
}

/// A new node.
pub(crate) fn node(rng: &mut dyn Rng) -> Node {
    let mut key: Hash = [0; 32];
    rng.fill(&mut key);
    Node::new(key, Pretended::certificate(&key))
}

/// The cache of one node: everybody within R3 of it, or those among them of whom it tells.
pub(crate) struct View<'a> {
    pub(crate) ring: &'a Ring,
    pub(crate) owner: Place,
    pub(crate) reach: Arc,
    /// Where there are such, only these are told of, by their index.
    pub(crate) only: Option<&'a [bool]>,
}

impl Cache for View<'_> {
    fn around(&self, center: Place, arc: Arc) -> Vec<Node> {
        let is_told =
            |node: &Node| self.only.is_none_or(|only| self.ring.index(node).is_some_and(|index| only[index]));
        let known = self.ring.within(center, arc).filter(|node| self.reach.holds(self.owner, node.place()));
        let mut nodes: Vec<_> = known.filter(|node| is_told(node)).copied().collect();
        nodes.sort_by_key(|node| center.distance(node.place()));
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arcs_and_managers_are_those_that_a_look_at_all_nodes_gives() {
        let ring = Ring::new(500, 1, 0);
        for at in 0..40u128 {
            let center = Place((at << 121) + 12_345);
            let nearest = ring.nodes().iter().min_by_key(|node| center.distance(node.place())).unwrap();
            assert_eq!(ring.at(center), *nearest);
            for size in [1e-9, 0.01, 0.5, 1.0] {
                let arc = Arc::new(size).unwrap();
                let mut found: Vec<_> = ring.within(center, arc).copied().collect();
                found.sort_by_key(Node::place);
                let all = ring.nodes().iter().filter(|node| arc.holds(center, node.place()));
                assert!(found.iter().eq(all), "{size} around {center:?}");
            }
        }
    }
}
