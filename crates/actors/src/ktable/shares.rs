//! Which share of the nodes takes which row of a table.

use crate::binomial::at_least;

/// Probabilities below this are dropped: no share to which they add can be told from nothing.
const NEGLIGIBLE: f64 = 1e-40;

/// The share of nodes for which each of `rows`, pairs of k and size, is the first that holds k of `nodes` nodes.
///
/// The regions lie within each other, so the number of nodes in them grows row by row, and those who have found no row
/// yet are known by how many nodes they have seen.
pub(super) fn of(nodes: u64, rows: &[(u64, f64)]) -> Vec<f64> {
    let mut seen = Seen { first: 0, chances: vec![1.0] };
    let mut size = 0.0;
    let mut shares = Vec::with_capacity(rows.len());
    for &(k, larger) in rows {
        let step = (larger - size) / (1.0 - size);
        shares.push(seen.at_least(k, nodes, step));
        if larger >= 1.0 {
            break; // all nodes have been seen
        }
        seen = seen.grown_below(k, nodes, step);
        size = larger;
    }
    shares
}

/// The chance of having seen `first`, `first + 1`, … nodes without having found a row.
struct Seen {
    first: u64,
    chances: Vec<f64>,
}

impl Seen {
    fn iter(&self) -> impl Iterator<Item = (u64, f64)> {
        (self.first..).zip(self.chances.iter().copied()).filter(|&(_, chance)| chance > NEGLIGIBLE)
    }

    /// The chance that `k` nodes are seen when each of those that were not seen is added with probability `step`.
    fn at_least(&self, k: u64, nodes: u64, step: f64) -> f64 {
        self.iter().map(|(count, chance)| chance * at_least(k - count, nodes - count, step)).sum()
    }

    /// The chances of having seen fewer than `k` nodes after that.
    fn grown_below(&self, k: u64, nodes: u64, step: f64) -> Seen {
        let first = self.iter().next().map_or(k, |(count, _)| count);
        let mut chances = vec![0.0; (k - first) as usize];
        for (count, chance) in self.iter() {
            let slots = &mut chances[(count - first) as usize..];
            for (slot, arrival) in slots.iter_mut().zip(arrivals(nodes - count, step)) {
                *slot += chance * arrival;
            }
        }
        Seen { first, chances }
    }
}

/// The chances that 0, 1, … of `left` nodes arrive, each with probability `step` below 1, as far as they matter. Their
/// logarithms are added up, because the first may underflow where those after it do not.
fn arrivals(left: u64, step: f64) -> impl Iterator<Item = f64> {
    let (left, odds) = (left as f64, step / (1.0 - step));
    let mut ln = left * (-step).ln_1p();
    (0..).map_while(move |arrived| {
        let arrived = f64::from(arrived);
        let chance = ln.exp();
        ln += ((left - arrived) / (arrived + 1.0) * odds).ln();
        (arrived < left * step || chance > NEGLIGIBLE).then_some(chance)
    })
}
