//! Regions of any size, as in the paper.

use super::{KTable, MAX_K, Network, Region, TableError};
use crate::binomial::fewer_than;

/// A region of the paper: an arc of the ring around a place, of any size.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Arc(f64);

impl Arc {
    /// All of the ring.
    pub const WHOLE: Arc = Arc(1.0);

    /// An arc of this size, above 0 and at most 1.
    pub fn new(size: f64) -> Option<Arc> {
        (size > 0.0 && size <= 1.0).then_some(Arc(size))
    }
}

impl Region for Arc {
    fn size(self) -> f64 {
        self.0
    }

    /// One around each node.
    fn places(self, nodes: u64) -> f64 {
        nodes as f64
    }
}

impl KTable<Arc> {
    /// The table of SEP2P §3.6: for each k the largest region that equation (2) allows.
    pub fn exact(network: Network) -> Result<KTable<Arc>, TableError> {
        let mut rows = Vec::new();
        let mut size = 0.0;
        for k in 1..=network.colluding + 1 {
            if k > MAX_K {
                return Err(TableError::TooLong);
            }
            size = largest(network, k, size);
            rows.push((k, Arc(size)));
            if fewer_than(k, network.nodes, size) <= network.alpha {
                break;
            }
        }
        Ok(KTable::new(network, &rows))
    }
}

/// The largest region in which `k` nodes are safe, where one of size `safe` is. Positive floating-point numbers are
/// ordered as their bits are, so that bisecting the bits ends at two neighbours.
fn largest(network: Network, k: u64, safe: f64) -> f64 {
    if network.is_safe(k, 1.0) {
        return 1.0;
    }
    let (mut safe, mut unsafe_) = (safe.to_bits(), 1f64.to_bits());
    while unsafe_ - safe > 1 {
        let middle = safe + (unsafe_ - safe) / 2;
        if network.is_safe(k, f64::from_bits(middle)) {
            safe = middle;
        } else {
            unsafe_ = middle;
        }
    }
    f64::from_bits(safe)
}
