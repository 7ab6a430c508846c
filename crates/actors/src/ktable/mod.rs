//! The k-table: how many nodes of how small a region decide together (SEP2P §3.3, §3.6).
//!
//! In each row the region is as large as it may be for the adversary to hold `k` or more of its nodes with a probability
//! below α. A node takes the first row whose region, around its own place, holds `k` nodes. The table ends with the row
//! that all nodes can take but for a share of α. Because a larger region contains the smaller ones, who takes which row
//! is a walk along the table, not a difference of two tails.

mod dyadic;
mod exact;
mod shares;

pub use dyadic::{Prefix, epoch_hash};
pub use exact::Arc;

use crate::binomial::at_least;

/// The most nodes that a network may have; beyond, the tails are not good for four digits.
pub const MAX_NODES: u64 = 1_000_000_000;

/// The smallest security threshold: [`Prefix`] must be able to say how small the smallest region is.
pub const MIN_ALPHA: f64 = 1e-60;

/// The largest k of a table; more nodes would have to sign only where nearly all collude.
pub const MAX_K: u64 = 16_384;

/// Why there is no k-table.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The number of nodes cannot be computed with.
    #[error("a network has 2 to {MAX_NODES} nodes, not {0}")]
    Nodes(u64),
    /// The number of colluding nodes is none that a table helps against.
    #[error("of {nodes} nodes at least 1 and at most {} collude, not {colluding}", nodes - 1)]
    Colluding {
        /// Nodes of the network.
        nodes: u64,
        /// How many of them one adversary controls.
        colluding: u64,
    },
    /// The security threshold is no probability to stay below.
    #[error("the security threshold is between {MIN_ALPHA:e} and 1, not {0:e}")]
    Alpha(f64),
    /// So many nodes collude that some node finds no group with an honest member beside itself.
    #[error("{colluding} colluding nodes need {} witnesses besides the trigger, and there are {nodes} nodes", colluding + 1)]
    TooFewNodes {
        /// Nodes of the network.
        nodes: u64,
        /// How many of them one adversary controls.
        colluding: u64,
    },
    /// The table would go beyond [`MAX_K`].
    #[error("more than {MAX_K} nodes would have to sign")]
    TooLong,
}

/// What a table is made for, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    nodes: u64,
    colluding: u64,
    alpha: f64,
}

impl Network {
    /// `nodes` nodes, of which one adversary controls at most `colluding`, and the probability `alpha` below which a
    /// region that the adversary holds counts as impossible: N, C and α of SEP2P.
    pub fn new(nodes: u64, colluding: u64, alpha: f64) -> Result<Network, TableError> {
        if !(2..=MAX_NODES).contains(&nodes) {
            return Err(TableError::Nodes(nodes));
        }
        if !(1..nodes).contains(&colluding) {
            return Err(TableError::Colluding { nodes, colluding });
        }
        if !(MIN_ALPHA..1.0).contains(&alpha) {
            return Err(TableError::Alpha(alpha));
        }
        Ok(Network { nodes, colluding, alpha })
    }

    /// N, the nodes of the network.
    pub fn nodes(&self) -> u64 {
        self.nodes
    }

    /// C, the nodes that one adversary controls at most.
    pub fn colluding(&self) -> u64 {
        self.colluding
    }

    /// α, the security threshold.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Whether the adversary holds `k` nodes of a region of size `rs` with a probability below α (equation 2).
    pub(crate) fn is_safe(&self, k: u64, rs: f64) -> bool {
        at_least(k, self.colluding, rs) < self.alpha
    }
}

/// A part of the id space around some place.
pub trait Region: Copy {
    /// Its share of the whole space, above 0 and at most 1.
    fn size(self) -> f64;

    /// How many of this size an adversary can look through, in a network of so many nodes.
    fn places(self, nodes: u64) -> f64;
}

/// `k` nodes of `region` hold an honest one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<R> {
    /// How many nodes decide together.
    pub k: u64,
    /// Where they are found.
    pub region: R,
    /// The share of all nodes for which this is the first row that they can take.
    pub share: f64,
}

/// A k-table, its rows by rising `k` and region.
#[derive(Clone, Debug, PartialEq)]
pub struct KTable<R> {
    network: Network,
    rows: Vec<Row<R>>,
}

impl<R: Region> KTable<R> {
    /// Fills in the shares of `rows`.
    fn new(network: Network, rows: &[(u64, R)]) -> KTable<R> {
        let sizes: Vec<_> = rows.iter().map(|&(k, region)| (k, region.size())).collect();
        let shares = shares::of(network.nodes, &sizes);
        let rows = rows.iter().zip(shares).map(|(&(k, region), share)| Row { k, region, share }).collect();
        KTable { network, rows }
    }

    /// What the table was made for.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The rows, by rising `k` and region.
    pub fn rows(&self) -> &[Row<R>] {
        &self.rows
    }

    /// The first row whose region holds as many nodes as it asks for, of which `count` says how many there are.
    pub fn first(&self, count: impl Fn(R) -> u64) -> Option<&Row<R>> {
        self.rows.iter().find(|row| count(row.region) >= row.k)
    }

    /// The largest k: what every node would need without a table.
    pub fn k_max(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.k)
    }

    /// The mean of k over all nodes that find a row.
    pub fn mean_k(&self) -> f64 {
        let (sum, share) = self
            .rows
            .iter()
            .fold((0.0, 0.0), |(sum, share), row| (sum + row.k as f64 * row.share, share + row.share));
        sum / share
    }

    /// At most how likely it is that for some node of the network the adversary holds `k` nodes of a region which that
    /// node may use: the sum over all regions, each with the probability of equation (2). Regions of any size lie around
    /// the nodes; blocks are counted all, so that no place, a node's or not, is the adversary's.
    pub fn any_trigger(&self) -> f64 {
        let Network { nodes, colluding, .. } = self.network;
        let of = |row: &Row<R>| row.region.places(nodes) * at_least(row.k, colluding, row.region.size());
        self.rows.iter().map(of).sum::<f64>().min(1.0)
    }
}
