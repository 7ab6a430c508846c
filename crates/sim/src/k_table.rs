//! `simulate k-table`: how many nodes have to sign, and how many nodes need how many.

use kith_actors::binomial::best_of;
use kith_actors::ktable::{KTable, Network, Region, TableError};
use serde::Serialize;

/// Which regions a selection may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Prefix blocks, a power of two of them.
    #[default]
    Hardened,
    /// Arcs of any size (SEP2P §3.6).
    Paper,
}

/// What the table is made for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// N, the nodes of the network.
    pub nodes: u64,
    /// C, the nodes that one adversary controls.
    pub colluding: u64,
    /// α, the probability of a controlled region to stay below.
    pub alpha: f64,
    /// Which regions are used.
    pub mode: Mode,
    /// A, the actors of a selection.
    pub actors: u64,
    /// How many draws a node has in an epoch.
    pub quota: u64,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Line {
    /// How many nodes sign.
    pub k: u64,
    /// Size of the region in which they are found, as a share of the id space.
    pub rs: f64,
    /// How many nodes the region holds on average.
    pub nodes: f64,
    /// The share of all nodes whose smallest k this is.
    pub share: f64,
}

/// A k-table and what follows from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The rows, by rising k.
    pub table: Vec<Line>,
    /// The largest k, which every node would need without a table.
    pub kmax: u64,
    /// The mean of k over all nodes.
    pub mean_k: f64,
    /// At most how likely it is that the adversary holds the k signers of some node, anywhere in the network.
    pub any_trigger: f64,
    /// A·C/N: how many of the actors of a selection collude on average.
    pub mean_actors: f64,
    /// How many of them collude on average in the best list out of all draws of all nodes of the adversary.
    pub best_actors: f64,
}

/// The k-table for `params`, with who uses which row.
pub fn k_table(params: Params) -> Result<Report, TableError> {
    let network = Network::new(params.nodes, params.colluding, params.alpha)?;
    Ok(match params.mode {
        Mode::Hardened => report(&params, &KTable::dyadic(network)?),
        Mode::Paper => report(&params, &KTable::exact(network)?),
    })
}

fn report<R: Region>(params: &Params, table: &KTable<R>) -> Report {
    let Params { colluding, actors, quota, .. } = *params;
    let nodes = table.network().nodes() as f64;
    let line = |row: &kith_actors::ktable::Row<R>| {
        let rs = row.region.size();
        Line { k: row.k, rs, nodes: nodes * rs, share: row.share }
    };
    Report {
        table: table.rows().iter().map(line).collect(),
        kmax: table.k_max(),
        mean_k: table.mean_k(),
        any_trigger: table.any_trigger(),
        mean_actors: actors as f64 * colluding as f64 / nodes,
        best_actors: best_of(colluding.saturating_mul(quota), actors, colluding as f64 / nodes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(mode: Mode) -> Report {
        let (nodes, colluding) = (10_000_000, 100_000);
        k_table(Params { nodes, colluding, alpha: 1e-12, mode, actors: 32, quota: 24 }).unwrap()
    }

    #[test]
    fn the_best_of_all_draws_is_that_of_the_protocols_page() {
        let report = report(Mode::Hardened);
        assert!((report.mean_actors - 0.32).abs() < 1e-12 && (report.best_actors - 5.89).abs() < 0.005);
    }

    #[test]
    fn nodes_are_those_of_the_region_and_shares_add_up() {
        for mode in [Mode::Paper, Mode::Hardened] {
            let report = report(mode);
            assert!(report.table.iter().all(|line| line.nodes == line.rs * 1e7));
            assert!((report.table.iter().map(|line| line.share).sum::<f64>() - 1.0).abs() < 1e-6);
            assert_eq!(report.table.last().unwrap().k, report.kmax);
        }
    }

    #[test]
    fn blocks_need_more_signatures_than_regions_of_any_size() {
        let (paper, hardened) = (report(Mode::Paper), report(Mode::Hardened));
        assert!(paper.mean_k < hardened.mean_k && paper.kmax < hardened.kmax);
    }
}
