use kith_actors::ktable::TableError;
use kith_dht::defaults::MAX_PATHS;

use crate::{MAX_ACTORS, MAX_ATTACKED, MAX_COPIES, MAX_NODES, MAX_PARALLEL, MAX_SHARES};

/// Why nothing can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// There is no k-table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The number of nodes is none that can be simulated.
    #[error("2 to {MAX_NODES} nodes can be simulated, not {0}")]
    Nodes(u64),
    /// Nobody is left to search, or to be found.
    #[error("of {nodes} nodes at least two have to be honest, and {colluding} collude")]
    NoneHonest {
        /// Nodes of the network.
        nodes: u64,
        /// How many of them collude.
        colluding: u64,
    },
    /// A lookup cannot ask so many at a time.
    #[error("a path of a lookup asks 1 to {MAX_PARALLEL} nodes at a time, not {0}")]
    Parallel(usize),
    /// A lookup cannot have so many paths.
    #[error("a lookup has 1 to {MAX_PATHS} paths, not {0}")]
    Paths(usize),
    /// So many actors cannot be selected.
    #[error("1 to {MAX_ACTORS} actors are selected, not {0}")]
    Actors(usize),
    /// Nodes that disconnect at once are none.
    #[error("the time between failures is longer than nothing")]
    NoTime,
    /// So many nodes cannot be attacked: each of them has real keys.
    #[error("attacks are simulated among 2 to {MAX_ATTACKED} nodes, not {0}")]
    Attacked(u64),
    /// A region of so small a network has fewer actors.
    #[error("1 to {most} actors are selected in a network of this size")]
    MostActors {
        /// How many it may be at most.
        most: usize,
    },
    /// There is nothing in Chord that would repair a ring.
    #[error("in Chord all nodes stay: what repairs a ring is not simulated")]
    SettledRing,
    /// An entry cannot be cut so.
    #[error("an entry has 1 to {MAX_SHARES} shares, of which 1 to all are needed, not {needed} of {shares}")]
    Sharing {
        /// How many shares are needed.
        needed: u64,
        /// How many there are.
        shares: u64,
    },
    /// A share cannot be kept by so many nodes.
    #[error("a share is kept by 1 to {MAX_COPIES} nodes, not {0}")]
    Copies(u64),
    /// A cache cannot hold so many nodes.
    #[error("a cache of the {nodes} nodes holds 1 to {nodes}, not {cache}")]
    Cache {
        /// Nodes of the network.
        nodes: u64,
        /// Nodes that a cache should hold.
        cache: u64,
    },
}
