//! A network of the paper: all nodes on a ring, and what each of them knows, derived from their sorted places.

use kith_actors::ktable::{Arc, Region};
use kith_actors::paper::{Cache, Node, Place};
use kith_actors::scheme::{Hash, Pretended};
use kith_sansio::Rng;

use crate::run::{Purpose, chance};

/// All nodes, sorted by place.
#[derive(Debug)]
pub(crate) struct Ring {
    nodes: Vec<Node>,
    /// For each of 2^bits equal parts of the ring the first node that is there or later. There are as many parts as nodes
    /// or half as many, so that hardly any has to be looked through.
    firsts: Vec<u32>,
    bits: u32,
}

impl Ring {
    /// The `number`-th network of so many nodes.
    pub(crate) fn new(nodes: u64, seed: u64, number: u64) -> Ring {
        let mut rng = chance(seed, Purpose::Places, number);
        Ring::of((0..nodes).map(|_| node(&mut rng)).collect())
    }

    /// This network and these nodes.
    pub(crate) fn with(&self, more: &[Node]) -> Ring {
        Ring::of([&self.nodes, more].concat())
    }

    fn of(mut nodes: Vec<Node>) -> Ring {
        nodes.sort_by_key(Node::place);
        let bits = nodes.len().ilog2().max(1);
        let mut at = 0;
        let first = |part: u128| {
            while nodes.get(at).is_some_and(|node: &Node| node.place().0 >> (128 - bits) < part) {
                at += 1;
            }
            at as u32
        };
        let firsts = (0..1 << bits).map(first).collect();
        Ring { nodes, firsts, bits }
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Which of the sorted nodes this is; none where it is invented.
    pub(crate) fn index(&self, node: &Node) -> Option<usize> {
        let at = self.successor(node.place());
        (self.nodes[at].place() == node.place()).then_some(at)
    }

    /// The first node at a place or after it.
    pub(crate) fn successor(&self, place: Place) -> usize {
        let first = self.firsts[(place.0 >> (128 - self.bits)) as usize] as usize;
        let before = self.nodes[first..].iter().take_while(|node| node.place() < place).count();
        (first + before) % self.nodes.len()
    }

    /// The node that manages a place: the nearest one.
    pub(crate) fn at(&self, place: Place) -> Node {
        let [before, after] = self.beside(place);
        if place.distance(before.place()) < place.distance(after.place()) { before } else { after }
    }

    /// The nodes before and behind a place.
    pub(crate) fn beside(&self, place: Place) -> [Node; 2] {
        let after = self.successor(place);
        [self.nodes[(after + self.nodes.len() - 1) % self.nodes.len()], self.nodes[after]]
    }

    /// The nodes of an arc, in the order of the ring.
    pub(crate) fn within(&self, center: Place, arc: Arc) -> impl Iterator<Item = &Node> {
        self.numbered(center, arc).map(|(_, node)| node)
    }

    /// The same with their indices.
    pub(crate) fn numbered(&self, center: Place, arc: Arc) -> impl Iterator<Item = (usize, &Node)> {
        let arc = Around::new(center, arc);
        // A little more than half of the arc, because a place is more exact than a floating-point number.
        let half = arc.half.saturating_add(1 << 80).min(1 << 127);
        let first = self.successor(Place(center.0.wrapping_sub(half)));
        (first..self.nodes.len())
            .chain(0..first)
            .map(|at| (at, &self.nodes[at]))
            .take_while(move |(_, node)| center.distance(node.place()) <= half)
            .filter(move |(_, node)| arc.holds(node.place()))
    }
}

/// [`Arc::holds`] for one centre and many places.
#[derive(Clone, Copy)]
struct Around {
    center: Place,
    arc: Arc,
    /// Half of the arc, rounded down: whatever is not further away is held, by places alone.
    half: u128,
}

impl Around {
    fn new(center: Place, arc: Arc) -> Around {
        Around { center, arc, half: (arc.size() * 127f64.exp2()) as u128 }
    }

    fn holds(&self, place: Place) -> bool {
        self.center.distance(place) <= self.half || self.arc.holds(self.center, place)
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
        // The smaller arc is looked through, and the larger one asked: either may be the whole ring.
        let (wanted, known) = ((center, arc), (self.owner, self.reach));
        let (few, many) = if arc.size() < self.reach.size() { (wanted, known) } else { (known, wanted) };
        let many = Around::new(many.0, many.1);
        let both = self.ring.numbered(few.0, few.1).filter(|(_, node)| many.holds(node.place()));
        let told = both.filter(|(index, _)| self.only.is_none_or(|only| only[*index]));
        let mut nodes: Vec<_> = told.map(|(_, node)| *node).collect();
        nodes.sort_by_key(|node| center.distance(node.place()));
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_found_in_rings_of_all_sizes() {
        for nodes in [1, 2, 3, 64, 1_000] {
            let ring = Ring::new(nodes, 1, 0);
            for (at, node) in ring.nodes().iter().enumerate() {
                assert_eq!(ring.index(node), Some(at));
                assert_eq!(ring.successor(Place(node.place().0 + 1)), (at + 1) % nodes as usize);
            }
            assert_eq!(ring.successor(Place(0)), 0);
        }
    }

    #[test]
    fn a_cache_tells_of_whoever_is_in_its_reach_and_in_the_arc_the_nearest_first() {
        let ring = Ring::new(500, 1, 0);
        let owner = ring.nodes()[7].place();
        let center = ring.nodes()[11].place();
        for (reach, size) in [(0.1, 1.0), (1.0, 0.1), (0.1, 0.05), (0.05, 0.1), (1.0, 1.0)] {
            let (reach, arc) = (Arc::new(reach).unwrap(), Arc::new(size).unwrap());
            let is_there = |node: &&Node| reach.holds(owner, node.place()) && arc.holds(center, node.place());
            let mut there: Vec<_> = ring.nodes().iter().filter(is_there).copied().collect();
            there.sort_by_key(|node| center.distance(node.place()));
            assert_eq!(View { ring: &ring, owner, reach, only: None }.around(center, arc), there);
        }
    }

    #[test]
    fn arcs_and_managers_are_those_that_a_look_at_all_nodes_gives() {
        let ring = Ring::new(500, 1, 0);
        for at in 0..40u128 {
            let center = Place((at << 121) + 12_345);
            let nearest = ring.nodes().iter().min_by_key(|node| center.distance(node.place())).unwrap();
            assert_eq!(ring.at(center), *nearest);
            assert_eq!(ring.index(&node(&mut chance(2, Purpose::Places, at as u64))), None);
            for size in [1e-9, 0.01, 0.5, 1.0] {
                let arc = Arc::new(size).unwrap();
                let mut found: Vec<_> = ring.within(center, arc).copied().collect();
                found.sort_by_key(Node::place);
                let all = ring.nodes().iter().filter(|node| arc.holds(center, node.place()));
                assert!(found.iter().eq(all), "{size} around {center:?}");
            }
            let behind = ring.nodes().iter().position(|node| node.place() >= center).unwrap_or(0);
            assert_eq!(ring.successor(center), behind);
        }
    }
}
