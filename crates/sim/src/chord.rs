//! Chord, over whose fingers the messages of SEP2P's figures go (§4.1).
//!
//! The finger `i` of a node is the first node at 2^i behind it or later. A message is handed to the furthest finger that is
//! not beyond its goal.

use kith_actors::paper::Node;

use crate::ring::Ring;

impl Ring {
    /// The nodes that a message comes to on its way from one to another, the goal as the last.
    pub(crate) fn way(&self, from: &Node, to: &Node) -> impl Iterator<Item = Node> {
        let (mut at, goal) = (from.place(), to.place());
        std::iter::from_fn(move || {
            let way = goal.0.wrapping_sub(at.0);
            let finger = 1 << way.checked_ilog2()?;
            let next = self.nodes()[self.successor(kith_actors::paper::Place(at.0.wrapping_add(finger)))];
            at = next.place();
            Some(next)
        })
    }

    /// How many messages that takes.
    pub(crate) fn hops(&self, from: &Node, to: &Node) -> u64 {
        self.way(from, to).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_over_half_the_logarithm_of_the_nodes_on_average() {
        let ring = Ring::new(4_096, 2, 0);
        let nodes = ring.nodes();
        let hops: u64 = (0..4_096).map(|at| ring.hops(&nodes[at], &nodes[at * 577 % 4_096])).sum();
        assert!((5.5..6.5).contains(&(hops as f64 / 4_096.0)), "{hops}");
        assert_eq!(ring.hops(&nodes[7], &nodes[7]), 0);
        assert_eq!(ring.hops(&nodes[7], &nodes[8]), 1);
        assert_eq!(ring.way(&nodes[7], &nodes[8]).last(), Some(nodes[8]));
    }
}
