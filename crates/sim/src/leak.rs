//! `simulate leak-index`: which share of the concept index an adversary reads (SEP2P §5.3).
//!
//! An entry of the index is cut into s shares, p of which are needed to read it (Shamir). Each share lies at a hash of its
//! own, on the nodes nearest to it by the rule of the DHT. The adversary has the shares that its nodes keep.

use kith_actors::binomial::at_least;
use kith_dht::Nearest;
use kith_identity::membership::NodeId;
use kith_sansio::Rng;
use serde::Serialize;

use crate::chart::{Chart, Mark, Series};
use crate::data::Data;
use crate::estimate::share;
use crate::members::{ids, random_id};
use crate::run::{Purpose, Run, chance, drawn};
use crate::scale::Scale;
use crate::{Colluding, MAX_NODES, SimError};

/// The most shares of an entry.
pub const MAX_SHARES: u64 = 255;
/// The most nodes that keep a share.
pub const MAX_COPIES: u64 = 64;
/// Entries of one piece of work.
const BATCH: u64 = 1_000;

/// How an entry is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// p, how many shares are needed.
    pub needed: u64,
    /// s, how many there are.
    pub shares: u64,
}

/// Which index is read.
#[derive(Clone, Debug, PartialEq)]
pub struct LeakParams {
    /// N, the nodes of the network.
    pub nodes: u64,
    /// C, the nodes that one adversary controls; one point for each.
    pub colluding: Vec<Colluding>,
    /// How entries are cut; one curve for each.
    pub sharing: Vec<Sharing>,
    /// How many nodes keep each share.
    pub copies: u64,
    /// How many entries the index has.
    pub entries: u64,
    /// Where chance begins.
    pub seed: u64,
}

/// One point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeakRow {
    /// p.
    pub needed: u64,
    /// s.
    pub shares: u64,
    /// How many nodes keep each share.
    pub copies: u64,
    /// C.
    pub colluding: u64,
    /// C / N.
    pub share: f64,
    /// Entries of the index.
    pub entries: u64,
    /// The share of them that the adversary reads.
    pub disclosed: f64,
    /// With a probability of 95 % the true share is not less …
    pub disclosed_low: f64,
    /// … and not more.
    pub disclosed_high: f64,
    /// What the formula gives.
    pub formula: f64,
}

/// Places the shares of all entries, and counts the entries that the adversary reads.
pub fn leak_index(params: &LeakParams, run: &Run) -> Result<Data<LeakRow>, SimError> {
    check(params)?;
    let points: Vec<_> = (params.sharing.iter())
        .flat_map(|sharing| params.colluding.iter().map(|one| (*sharing, one.of(params.nodes))))
        .collect();
    let batches = params.entries.div_ceil(BATCH);
    run.plan(batches * points.len() as u64);
    let ids = ids(params.nodes, params.seed);
    let mut rows = Vec::new();
    for (sharing, colluding) in points {
        let counts = run.map(batches, |batch| {
            let entries = BATCH.min(params.entries - batch * BATCH);
            // Nodes keep shares of the space that differ much, so each batch has its own adversary.
            let mut rng = chance(params.seed, Purpose::Colluders, batch);
            let index = Index { ids: &ids, colludes: drawn(colluding, params.nodes, &mut rng), sharing };
            let mut rng = chance(params.seed, Purpose::Work, batch);
            (entries, (0..entries).filter(|_| index.is_read(params.copies, &mut rng)).count() as u64)
        });
        if !counts.is_empty() {
            rows.push(row(params, sharing, colluding, &counts));
        }
    }
    Ok(Data::new(run, rows))
}

fn check(params: &LeakParams) -> Result<(), SimError> {
    let nodes = params.nodes;
    if !(2..=MAX_NODES).contains(&nodes) {
        return Err(SimError::Nodes(nodes));
    }
    if let Some(colluding) = params.colluding.iter().map(|one| one.of(nodes)).find(|all| *all > nodes - 2) {
        return Err(SimError::NoneHonest { nodes, colluding });
    }
    for Sharing { needed, shares } in params.sharing.iter().copied() {
        if !(1..=MAX_SHARES).contains(&shares) || !(1..=shares).contains(&needed) {
            return Err(SimError::Sharing { needed, shares });
        }
    }
    if !(1..=MAX_COPIES.min(nodes)).contains(&params.copies) {
        return Err(SimError::Copies(params.copies));
    }
    Ok(())
}

struct Index<'a> {
    ids: &'a [NodeId],
    colludes: Vec<bool>,
    sharing: Sharing,
}

impl Index<'_> {
    /// Whether the adversary keeps enough shares of an entry.
    fn is_read(&self, copies: u64, rng: &mut dyn Rng) -> bool {
        let is_read = |place| {
            let mut keepers = Nearest::new(self.ids, place).take(copies as usize);
            keepers.any(|id| self.ids.binary_search(id).is_ok_and(|index| self.colludes[index]))
        };
        // All places are drawn, so that an entry lies at the same ones whoever colludes.
        let places: Vec<_> = (0..self.sharing.shares).map(|_| random_id(rng)).collect();
        places.into_iter().filter(|place| is_read(*place)).count() as u64 >= self.sharing.needed
    }
}

/// The binomial tail of p of s shares, each of which is read where one of its keepers colludes. The keepers are drawn
/// without putting them back.
fn formula(params: &LeakParams, Sharing { needed, shares }: Sharing, colluding: u64) -> f64 {
    let honest = (params.nodes - colluding) as f64;
    let kept: f64 = (0..params.copies)
        .map(|copy| ((honest - copy as f64) / (params.nodes - copy) as f64).max(0.0))
        .product();
    at_least(needed, shares, 1.0 - kept)
}

fn row(params: &LeakParams, sharing: Sharing, colluding: u64, counts: &[(u64, u64)]) -> LeakRow {
    let entries = counts.iter().map(|(entries, _)| entries).sum();
    let read = counts.iter().map(|(_, read)| read).sum();
    let (disclosed_low, disclosed_high) = share(read, entries);
    LeakRow {
        needed: sharing.needed,
        shares: sharing.shares,
        copies: params.copies,
        colluding,
        share: colluding as f64 / params.nodes as f64,
        entries,
        disclosed: read as f64 / entries as f64,
        disclosed_low,
        disclosed_high,
        formula: formula(params, sharing, colluding),
    }
}

impl Data<LeakRow> {
    /// What was counted, and what the formula gives, for each way to cut.
    pub fn chart_of_disclosure(&self) -> Chart {
        let mut series = Vec::new();
        for row in &self.rows {
            let percent = row.share * 100.0;
            let name = format!("{} of {}", row.needed, row.shares);
            let color = series.len() / 2;
            Series::push(&mut series, &name, Mark::Plain(color), (percent, row.disclosed));
            let name = format!("{name}, formula");
            Series::push(&mut series, &name, Mark::Empty(color), (percent, row.formula));
        }
        Chart {
            title: "Disclosure of the concept index",
            x: ("colluding nodes (%)", Scale::Logarithmic),
            y: ("share of the entries that is read", Scale::Logarithmic),
            series,
        }
    }
}
