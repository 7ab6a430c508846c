//! Where nodes are: on a ring, at the hash of their public key (SEP2P §3.2).

use std::cmp::Ordering;

use crate::ktable::{Arc, Region};
use crate::scheme::{Hash, Key, Scheme, Signature, hash};

/// A point of the ring: the first 128 bits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u128);

/// A node as its certificate shows it.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    key: Key,
    certificate: Signature,
    place: Place,
}

impl Place {
    /// The place of a hash.
    pub fn of(hash: &Hash) -> Place {
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        Place(u128::from_be_bytes(first))
    }

    /// How far away the other place is, the shorter way around.
    pub fn distance(self, other: Place) -> u128 {
        let way = self.0.wrapping_sub(other.0);
        way.min(way.wrapping_neg())
    }
}

impl Node {
    /// The node with this key, which `certificate` says to be genuine; nothing is checked.
    pub fn new(key: Key, certificate: Signature) -> Node {
        Node { key, certificate, place: Place::of(&hash(b"sep2p node", &[&key])) }
    }

    /// Its public key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Where it is, imposed by its key.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether the certificate verifies: one operation.
    pub fn is_genuine(&self, scheme: &mut impl Scheme) -> bool {
        scheme.certifies(&self.key, &self.certificate)
    }
}

/// Nodes are their keys.
impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        self.key == other.key
    }
}

impl Eq for Node {}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Node) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Node {
    fn cmp(&self, other: &Node) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl Arc {
    /// Whether the arc of this size around `center` holds `place`.
    pub fn holds(self, center: Place, place: Place) -> bool {
        // Half the ring is 2^127, and the arc reaches half its size to either side.
        center.distance(place) as f64 <= self.size() * 127f64.exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_go_the_shorter_way_around() {
        assert_eq!(Place(1).distance(Place(u128::MAX)), 2);
        assert_eq!(Place(0).distance(Place(1 << 127)), 1 << 127);
    }

    #[test]
    fn an_arc_lies_around_its_centre() {
        let (quarter, whole) = (Arc::new(0.25).unwrap(), Arc::new(1.0).unwrap());
        let eighth = 1u128 << 125;
        for place in [eighth, eighth.wrapping_neg()] {
            assert!(quarter.holds(Place(0), Place(place)));
        }
        assert!(!quarter.holds(Place(0), Place(eighth + (1 << 100))));
        assert!(whole.holds(Place(0), Place(1 << 127)));
    }
}
