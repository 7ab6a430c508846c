//! `simulate dht`: what a lookup costs, and whether it gets through among malicious nodes, and where nodes come and go.
//!
//! The lookups are those of the network ([`Lookup`]); what each node knows is derived from the sorted ids by the rule
//! of the network's own tables ([`Ideal`]). Chord, which SEP2P's figures go over, is here to be compared with.

use std::collections::HashMap;

use kith_dht::defaults::{MAX_PATHS, PROBE, REPLICAS, REQUEST, STALE};
use kith_dht::{Config, Ideal, Lookup, Nearest, Scope};
use kith_identity::membership::NodeId;
use kith_sansio::{Rng, SeededRng, Span};
use serde::Serialize;

use crate::data::Data;
use crate::estimate::{largest, mean, quantile, share};
use crate::members::{contact, ids, random_id};
use crate::ring::Ring;
use crate::run::{Purpose, Run, chance, drawn};
use crate::{MAX_NODES, SimError};

/// Requests of a path that may be out at a time.
pub const MAX_PARALLEL: usize = 20;

/// A node that is gone is in a bucket until it was not heard for so long, as newcomers claim its place.
const NOTICED: Span = STALE;
/// A node that is gone is in its region until a neighbour asked it twice in vain, and told the others, which ask twice.
const MISSED: Span = Span(PROBE.0 + 4 * REQUEST.0);

/// How nodes are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlay {
    /// dht/1, by the lookups of the real network.
    #[default]
    Kademlia,
    /// Chord, one node after the other.
    Chord,
}

/// Which network is searched, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhtParams {
    /// How nodes are found.
    pub overlay: Overlay,
    /// The nodes of the network that are there.
    pub nodes: u64,
    /// How many of them name to whoever asks nobody but their accomplices, those nearest to what is searched for; in
    /// Chord, where one asks one node after the other, they do not pass it on.
    pub colluding: u64,
    /// After how long a node disappears without a word, on average, and another one comes; nobody where there is none.
    pub mtbf: Option<Span>,
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
    /// How nodes are found.
    pub overlay: Overlay,
    /// The nodes of the network.
    pub nodes: u64,
    /// How many of them collude.
    pub colluding: u64,
    /// Hours after which a node disappears, on average; none where all stay.
    pub mtbf_hours: Option<f64>,
    /// Requests of a path that are out at a time.
    pub parallel: usize,
    /// Paths of a lookup.
    pub paths: usize,
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
    /// Requests to nodes that were gone, on average.
    pub unanswered: f64,
}

/// Simulates the lookups.
pub fn dht(params: &DhtParams, run: &Run) -> Result<Data<DhtRow>, SimError> {
    check(params)?;
    run.plan(params.lookups);
    let costs = match params.overlay {
        Overlay::Kademlia => {
            let town = Town::new(params);
            run.map(params.lookups, |lookup| town.look_up(&mut chance(params.seed, Purpose::Work, lookup)))
        }
        Overlay::Chord => {
            let ring = Ring::new(params.nodes, params.seed, 0);
            let lies = liars(params);
            let on_ring = |lookup| around(&ring, &lies, &mut chance(params.seed, Purpose::Work, lookup));
            run.map(params.lookups, on_ring)
        }
    };
    let rows = if costs.is_empty() { Vec::new() } else { vec![row(params, &costs)] };
    Ok(Data::new(run, rows))
}

fn check(params: &DhtParams) -> Result<(), SimError> {
    let DhtParams { overlay, nodes, colluding, mtbf, parallel, paths, .. } = *params;
    if !(2..=MAX_NODES).contains(&nodes) {
        return Err(SimError::Nodes(nodes));
    }
    if colluding > nodes - 2 {
        return Err(SimError::NoneHonest { nodes, colluding });
    }
    if mtbf == Some(Span::ZERO) {
        return Err(SimError::NoTime);
    }
    if overlay == Overlay::Chord && mtbf.is_some() {
        return Err(SimError::SettledRing);
    }
    if !(1..=MAX_PARALLEL).contains(&parallel) {
        return Err(SimError::Parallel(parallel));
    }
    if !(1..=MAX_PATHS).contains(&paths) {
        return Err(SimError::Paths(paths));
    }
    Ok(())
}

/// Which nodes collude, by their place among all.
fn liars(params: &DhtParams) -> Vec<bool> {
    drawn(params.colluding, params.nodes, &mut chance(params.seed, Purpose::Colluders, 0))
}

fn row(params: &DhtParams, costs: &[Option<Cost>]) -> DhtRow {
    let found: Vec<_> = costs.iter().flatten().collect();
    let of = |what: fn(&Cost) -> u32| found.iter().map(|cost| f64::from(what(cost))).collect::<Vec<_>>();
    let (rounds, requests) = (of(|cost| cost.rounds), of(|cost| cost.requests));
    let (lookups, hits) = (costs.len() as u64, found.len() as u64);
    let (success_low, success_high) = share(hits, lookups);
    DhtRow {
        overlay: params.overlay,
        nodes: params.nodes,
        colluding: params.colluding,
        mtbf_hours: params.mtbf.map(|mtbf| mtbf.0 as f64 / Span::secs(3_600).0 as f64),
        parallel: params.parallel,
        paths: params.paths,
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
        unanswered: mean(&of(|cost| cost.unanswered)),
    }
}

/// What it took until the nearest node answered.
#[derive(Clone, Copy, Debug)]
struct Cost {
    rounds: u32,
    requests: u32,
    unanswered: u32,
}

/// A lookup in Chord; none where a node on the way, or the one that is looked for, colludes.
fn around(ring: &Ring, lies: &[bool], rng: &mut dyn Rng) -> Option<Cost> {
    let is_liar = |node: &kith_actors::paper::Node| ring.index(node).is_some_and(|index| lies[index]);
    loop {
        let from = ring.nodes()[rng.below(ring.nodes().len() as u64) as usize];
        let owner = ring.at(crate::ring::node(rng).place());
        if from != owner && !is_liar(&from) && !is_liar(&owner) {
            let rounds = ring.hops(&from, &owner) as u32;
            let is_clear = ring.way(&from, &owner).all(|node| !is_liar(&node));
            return is_clear.then_some(Cost { rounds, requests: rounds, unanswered: 0 });
        }
    }
}

/// All nodes of a network.
struct Town {
    config: Config,
    seed: u64,
    /// Those that are there, and those that others may not have missed yet.
    ids: Vec<NodeId>,
    /// Those that collude, sorted like all; they stay.
    liars: Vec<NodeId>,
    /// How long ago who is gone went.
    gone: HashMap<NodeId, Span>,
    members: Vec<NodeId>,
}

impl Town {
    fn new(params: &DhtParams) -> Town {
        let members = ids(params.nodes, params.seed);
        let lies = liars(params);
        let liars = members.iter().zip(lies).filter(|(_, lies)| *lies).map(|(id, _)| *id).collect();
        let gone = params.mtbf.map(|mtbf| gone(params, mtbf)).unwrap_or_default();
        let mut ids = [&members[..], &gone.keys().copied().collect::<Vec<_>>()].concat();
        ids.sort_unstable();
        let config = Config { alpha: params.parallel, paths: params.paths, ..Config::default() };
        Town { config, seed: params.seed, ids, liars, gone, members }
    }

    fn is_liar(&self, id: &NodeId) -> bool {
        self.liars.binary_search(id).is_ok()
    }

    /// Searches from an honest node for a place whose nearest node is another honest one; none where it is not found.
    fn look_up(&self, rng: &mut dyn Rng) -> Option<Cost> {
        loop {
            let from = self.members[rng.below(self.members.len() as u64) as usize];
            let target = random_id(rng);
            let owner = *Nearest::new(&self.members, target).next()?;
            if from != owner && !self.is_liar(&from) && !self.is_liar(&owner) {
                return self.search(from, target, owner);
            }
        }
    }

    fn search(&self, from: NodeId, target: NodeId, owner: NodeId) -> Option<Cost> {
        let network = Ideal::new(&self.ids, &self.config);
        let known = |of: NodeId| network.nearest(of, target).filter(move |id| self.thinks_there(&of, id));
        let first = REPLICAS.max(self.config.paths * self.config.alpha);
        let seeds: Vec<_> = known(from).take(first).map(contact).collect();
        let mut lookup = Lookup::new(target, 1, &self.config, Scope::Internet, seeds);
        let mut unanswered = 0;
        loop {
            let round = lookup.next_round();
            if round.is_empty() {
                return None;
            }
            for asked in &round {
                if self.gone.contains_key(&asked.id) {
                    unanswered += 1;
                    lookup.failed(&asked.id);
                    continue;
                }
                let named: Vec<_> = if self.is_liar(&asked.id) {
                    Nearest::new(&self.liars, target).take(REPLICAS).map(contact).collect()
                } else {
                    known(asked.id).take(REPLICAS).map(contact).collect()
                };
                lookup.answered(&asked.id, named);
            }
            if round.iter().any(|asked| asked.id == owner) {
                return Some(Cost { rounds: lookup.rounds(), requests: lookup.requests(), unanswered });
            }
        }
    }

    /// Whether a node has not noticed that another one, which is in its table, is gone: it heard it after the longest time
    /// that this may take, but before it went.
    fn thinks_there(&self, of: &NodeId, id: &NodeId) -> bool {
        let Some(gone) = self.gone.get(id) else { return true };
        let bits = u32::from(Ideal::new(&self.ids, &self.config).bits());
        let longest = if of.common_prefix(id) < bits { NOTICED } else { MISSED };
        let low = |id: &NodeId| u64::from_be_bytes(std::array::from_fn(|at| id.as_bytes()[24 + at]));
        let mut rng = SeededRng::new(self.seed ^ low(of) ^ low(id).rotate_left(1));
        Span(rng.below(longest.0)) > *gone
    }
}

/// Who went not so long ago that all would have noticed. Nodes last as long as chance wants, and others replace them.
fn gone(params: &DhtParams, mtbf: Span) -> HashMap<NodeId, Span> {
    let mut rng = chance(params.seed, Purpose::Absent, 0);
    let expected = params.nodes as f64 * NOTICED.0 as f64 / mtbf.0 as f64;
    let absent = expected.min(MAX_NODES as f64) as u64;
    (0..absent).map(|_| (random_id(&mut rng), Span(rng.below(NOTICED.0)))).collect()
}
