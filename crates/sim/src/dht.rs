//! `simulate dht`: what a lookup costs in a settled network, and whether it gets through among malicious nodes.
//!
//! The lookups are those of the network ([`Lookup`]); what each node knows is derived from the sorted ids by the rule
//! of the network's own tables ([`Ideal`]).

use kith_dht::defaults::{MAX_PATHS, REPLICAS};
use kith_dht::{Config, Ideal, Lookup, Nearest, Scope};
use kith_identity::membership::NodeId;
use kith_sansio::Rng;
use serde::Serialize;

use crate::data::Data;
use crate::estimate::{largest, mean, quantile, share};
use crate::members::{contact, ids, random_id};
use crate::run::{Purpose, Run, chance, drawn};
use crate::{MAX_NODES, SimError};

/// Requests of a path that may be out at a time.
pub const MAX_PARALLEL: usize = 20;

/// Which network is searched, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhtParams {
    /// The nodes of the network.
    pub nodes: u64,
    /// How many of them name to whoever asks nobody but their accomplices, those nearest to what is searched for.
    pub colluding: u64,
    /// Requests of a path that are out at a time: Kademlia's α.
    pub parallel: usize,
    /// Paths of a lookup that share no node.
    pub paths: usize,
    /// How many lookups are made, each from an honest node for a place whose nearest node is another honest one.
    pub lookups: u64,
    /// Where chance begins.
    pub seed: u64,
}

/// What the lookups took until the nearest node had answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DhtRow {
    /// The nodes of the network.
    pub nodes: u64,
    /// How many of them collude.
    pub colluding: u64,
    /// Lookups that were made.
    pub lookups: u64,
    /// The share of them that found the nearest node.
    pub success: f64,
    /// With a probability of 95 % not fewer succeed …
    pub success_low: f64,
    /// … and not more.
    pub success_high: f64,
    /// Rounds of the successful ones, on average.
    pub rounds: f64,
    /// Rounds that 95 of 100 do not exceed.
    pub rounds_p95: f64,
    /// The most rounds.
    pub rounds_max: f64,
    /// Requests of the successful ones, on average.
    pub requests: f64,
    /// Requests that 95 of 100 do not exceed.
    pub requests_p95: f64,
    /// The most requests.
    pub requests_max: f64,
}

/// Simulates the lookups.
pub fn dht(params: &DhtParams, run: &Run) -> Result<Data<DhtRow>, SimError> {
    check(params)?;
    run.plan(params.lookups);
    let town = Town::new(params);
    let costs =
        run.map(params.lookups, |lookup| town.look_up(&mut chance(params.seed, Purpose::Work, lookup)));
    let rows = if costs.is_empty() { Vec::new() } else { vec![row(params, &costs)] };
    Ok(Data::new(run, rows))
}

fn check(params: &DhtParams) -> Result<(), SimError> {
    let DhtParams { nodes, colluding, parallel, paths, .. } = *params;
    if !(2..=MAX_NODES).contains(&nodes) {
        return Err(SimError::Nodes(nodes));
    }
    if colluding > nodes - 2 {
        return Err(SimError::NoneHonest { nodes, colluding });
    }
    if !(1..=MAX_PARALLEL).contains(&parallel) {
        return Err(SimError::Parallel(parallel));
    }
    if !(1..=MAX_PATHS).contains(&paths) {
        return Err(SimError::Paths(paths));
    }
    Ok(())
}

fn row(params: &DhtParams, costs: &[Option<Cost>]) -> DhtRow {
    let found: Vec<_> = costs.iter().flatten().collect();
    let of = |what: fn(&Cost) -> u32| found.iter().map(|cost| f64::from(what(cost))).collect::<Vec<_>>();
    let (rounds, requests) = (of(|cost| cost.rounds), of(|cost| cost.requests));
    let (lookups, hits) = (costs.len() as u64, found.len() as u64);
    let (success_low, success_high) = share(hits, lookups);
    DhtRow {
        nodes: params.nodes,
        colluding: params.colluding,
        lookups,
        success: hits as f64 / lookups as f64,
        success_low,
        success_high,
        rounds: mean(&rounds),
        rounds_p95: quantile(&rounds, 0.95),
        rounds_max: largest(&rounds),
        requests: mean(&requests),
        requests_p95: quantile(&requests, 0.95),
        requests_max: largest(&requests),
    }
}

/// What it took until the nearest node answered.
#[derive(Clone, Copy, Debug)]
struct Cost {
    rounds: u32,
    requests: u32,
}

/// All nodes of a network.
struct Town {
    config: Config,
    ids: Vec<NodeId>,
    /// Those that collude, sorted like all.
    liars: Vec<NodeId>,
}

impl Town {
    fn new(params: &DhtParams) -> Town {
        let ids = ids(params.nodes, params.seed);
        let lies = drawn(params.colluding, params.nodes, &mut chance(params.seed, Purpose::Colluders, 0));
        let liars = ids.iter().zip(lies).filter(|(_, lies)| *lies).map(|(id, _)| *id).collect();
        let config = Config { alpha: params.parallel, paths: params.paths, ..Config::default() };
        Town { config, ids, liars }
    }

    fn is_liar(&self, id: &NodeId) -> bool {
        self.liars.binary_search(id).is_ok()
    }

    /// Searches from an honest node for a place whose nearest node is another honest one; none where it is not found.
    fn look_up(&self, rng: &mut dyn Rng) -> Option<Cost> {
        loop {
            let from = self.ids[rng.below(self.ids.len() as u64) as usize];
            let target = random_id(rng);
            let owner = *Nearest::new(&self.ids, target).next()?;
            if from != owner && !self.is_liar(&from) && !self.is_liar(&owner) {
                return self.search(from, target, owner);
            }
        }
    }

    fn search(&self, from: NodeId, target: NodeId, owner: NodeId) -> Option<Cost> {
        let network = Ideal::new(&self.ids, &self.config);
        let first = REPLICAS.max(self.config.paths * self.config.alpha);
        let seeds: Vec<_> = network.nearest(from, target).take(first).map(contact).collect();
        let mut lookup = Lookup::new(target, 1, &self.config, Scope::Internet, seeds);
        loop {
            let round = lookup.next_round();
            if round.is_empty() {
                return None;
            }
            for asked in &round {
                let named: Vec<_> = if self.is_liar(&asked.id) {
                    Nearest::new(&self.liars, target).take(REPLICAS).map(contact).collect()
                } else {
                    network.nearest(asked.id, target).take(REPLICAS).map(contact).collect()
                };
                lookup.answered(&asked.id, named);
            }
            if round.iter().any(|asked| asked.id == owner) {
                return Some(Cost { rounds: lookup.rounds(), requests: lookup.requests() });
            }
        }
    }
}
