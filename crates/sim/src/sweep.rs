//! Many selections at each of several points, in several networks.

use kith_actors::binomial::at_least;
use kith_actors::ktable::{Arc, KTable, Network, Region};
use kith_actors::paper::Rules;
use kith_actors::scheme::Hash;
use kith_sansio::Rng;

use crate::aims;
use crate::ring::Ring;
use crate::run::{Purpose, Run, chance, drawn};
use crate::selection::{Outcome, Strategy, Town};
use crate::{Colluding, MAX_ACTORS, MAX_NODES, SimError};

/// Which selections are simulated: the parameters of SEP2P Table 3.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectionParams {
    /// N, the nodes of a network.
    pub nodes: u64,
    /// C, the nodes that one adversary controls; one point for each.
    pub colluding: Vec<Colluding>,
    /// A, the actors of a selection.
    pub actors: usize,
    /// α, the probability of a controlled region to stay below.
    pub alpha: f64,
    /// The nodes of a cache, on average: one point for each.
    pub cache: Vec<u64>,
    /// Selections at each point, at most.
    pub selections: u64,
    /// Over how many networks they are spread.
    pub networks: u64,
    /// Each node of each network is the setter once, instead of so many random ones (SEP2P §4.1).
    pub every_setter: bool,
    /// Where chance begins.
    pub seed: u64,
}

/// One combination of C and cache size.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) colluding: u64,
    /// The nodes of R3, on average.
    pub(crate) cache: f64,
    rules: Rules,
    /// Selections in each network, by each strategy.
    selections: Vec<u64>,
    /// What came of it, network by network.
    pub(crate) batches: Vec<Batch>,
}

/// The selections of one point in one network, by each strategy.
pub(crate) type Batch = Vec<Tally>;

/// Sums over selections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) selections: u64,
    /// Selections that found too few nodes somewhere and have to be begun anew.
    pub(crate) refused: u64,
    pub(crate) colluding: Sums,
    pub(crate) verification: Sums,
    pub(crate) operations: Sums,
    pub(crate) operations_latency: Sums,
    pub(crate) messages: Sums,
    pub(crate) messages_latency: Sums,
    pub(crate) moves: Sums,
}

/// Of a number that each selection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    sum: u64,
    squares: u64,
    pub(crate) max: u64,
}

impl Sums {
    fn of(number: u64) -> Sums {
        Sums { sum: number, squares: number.pow(2), max: number }
    }

    fn and(self, other: Sums) -> Sums {
        Sums {
            sum: self.sum + other.sum,
            squares: self.squares + other.squares,
            max: self.max.max(other.max),
        }
    }
}

impl Tally {
    fn of(outcome: Option<&Outcome>) -> Tally {
        let Some(outcome) = outcome else { return Tally { refused: 1, ..Tally::default() } };
        Tally {
            selections: 1,
            refused: 0,
            colluding: Sums::of(outcome.colluding),
            verification: Sums::of(outcome.verification),
            operations: Sums::of(outcome.setup.total.operations),
            operations_latency: Sums::of(outcome.setup.latency.operations),
            messages: Sums::of(outcome.setup.total.messages),
            messages_latency: Sums::of(outcome.setup.latency.messages),
            moves: Sums::of(outcome.moves),
        }
    }

    /// Both together.
    pub(crate) fn and(self, other: &Tally) -> Tally {
        Tally {
            selections: self.selections + other.selections,
            refused: self.refused + other.refused,
            colluding: self.colluding.and(other.colluding),
            verification: self.verification.and(other.verification),
            operations: self.operations.and(other.operations),
            operations_latency: self.operations_latency.and(other.operations_latency),
            messages: self.messages.and(other.messages),
            messages_latency: self.messages_latency.and(other.messages_latency),
            moves: self.moves.and(other.moves),
        }
    }

    /// The mean over the selections.
    pub(crate) fn mean(&self, of: Sums) -> f64 {
        of.sum as f64 / self.selections as f64
    }

    /// The standard deviation over them.
    pub(crate) fn deviation(&self, of: Sums) -> f64 {
        let variance = of.squares as f64 / self.selections as f64 - self.mean(of).powi(2);
        variance.max(0.0).sqrt()
    }
}

/// Who deviates, and how many selections each point has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) strategies: &'static [Strategy],
    /// Whoever colludes plays the strongest attack.
    pub(crate) is_attacked: bool,
    /// How many selections by a strategy are enough where so many of A actors collude by chance: A, and C / N.
    pub(crate) enough: fn(Strategy, usize, f64) -> u64,
}

/// So many selections, one after the other, are one piece of work.
const PIECE: u64 = 64;

impl Point {
    /// Selections in each network by the strategy that has the most.
    fn most(&self) -> u64 {
        self.selections.iter().copied().max().unwrap_or(0)
    }

    fn pieces(&self) -> u64 {
        self.most().div_ceil(PIECE)
    }
}

/// Simulates all points.
pub(crate) fn sweep(params: &SelectionParams, manner: &Manner, run: &Run) -> Result<Vec<Point>, SimError> {
    let mut points = points(params, manner)?;
    let aims = if params.every_setter { aims::pieces(params.nodes) } else { 0 };
    run.plan((points.iter().map(Point::pieces).sum::<u64>() + aims) * params.networks);
    for number in 0..params.networks {
        if run.is_stopped() {
            break;
        }
        let ring = Ring::new(params.nodes, params.seed, number);
        let aims = params.every_setter.then(|| aims::at_each(&ring, (params.seed, number), run));
        for point in &mut points {
            let batch = batch(params, manner, point, (&ring, number), aims.as_deref(), run);
            point.batches.extend(batch);
        }
    }
    Ok(points)
}

fn points(params: &SelectionParams, manner: &Manner) -> Result<Vec<Point>, SimError> {
    let SelectionParams { nodes, actors, alpha, .. } = *params;
    if !(2..=MAX_NODES).contains(&nodes) {
        return Err(SimError::Nodes(nodes));
    }
    if !(1..=MAX_ACTORS).contains(&actors) {
        return Err(SimError::Actors(actors));
    }
    let all =
        params.colluding.iter().flat_map(|one| params.cache.iter().map(move |cache| (one.of(nodes), *cache)));
    all.map(|(colluding, cache)| {
        if !(1..=nodes).contains(&cache) {
            return Err(SimError::Cache { nodes, cache });
        }
        let rules = rules(&KTable::exact(Network::new(nodes, colluding, alpha)?)?, cache);
        let share = colluding as f64 / nodes as f64;
        let selections = |strategy: &Strategy| match params.every_setter {
            true => nodes,
            false => {
                let enough = (manner.enough)(*strategy, actors, share);
                params.selections.min(enough).div_ceil(params.networks.max(1))
            }
        };
        let selections = manner.strategies.iter().map(selections).collect();
        let cache = rules.candidates.size() * nodes as f64;
        Ok(Point { colluding, cache, rules, selections, batches: Vec::new() })
    })
    .collect()
}

/// Rules with a cache of so many nodes on average. R3 contains R2 (§3.5), however small the cache, as far as nodes are
/// taken from R2: the nearest ones, which are nearer where the region may be the whole network.
pub(crate) fn rules(table: &KTable<Arc>, cache: u64) -> Rules {
    let network = table.network();
    let deciders = table.rows().last().map_or(0.0, |row| row.region.size().min(reach(network, row.k + 1)));
    let wanted = cache as f64 / network.nodes() as f64;
    let candidates = Arc::new(deciders.max(wanted)).unwrap_or(Arc::WHOLE);
    Rules { table: table.clone(), candidates, max_age_secs: 60 }
}

/// The size of a region that holds so many nodes with a probability of 1 - α.
fn reach(network: Network, nodes: u64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at_least(nodes, network.nodes(), middle) < 1.0 - network.alpha() {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The selections of one point in one network; none where the run was stopped before the first.
fn batch(
    params: &SelectionParams,
    manner: &Manner,
    point: &Point,
    (ring, number): (&Ring, u64),
    aims: Option<&[Option<Hash>]>,
    run: &Run,
) -> Option<Batch> {
    let colluding =
        drawn(point.colluding, params.nodes, &mut chance(params.seed, Purpose::Colluders, number));
    let town = Town::new(ring, &point.rules, params.actors, manner.is_attacked.then_some(&colluding));
    let one = |selection| {
        let item = number * params.selections.max(point.most()) + selection;
        let mut rng = chance(params.seed, Purpose::Work, item);
        let wanted = manner.strategies.iter().zip(&point.selections);
        let wanted = wanted.map(|(strategy, selections)| (selection < *selections).then_some(*strategy));
        match aims.map(|aims| aims[selection as usize]) {
            Some(None) => None,
            aim => Some(selections(&town, wanted, aim.flatten(), &mut rng)),
        }
    };
    let both = |sums: Batch, more: Batch| sums.iter().zip(&more).map(|(sum, one)| sum.and(one)).collect();
    let pieces = run.map(point.pieces(), |piece| {
        (piece * PIECE..point.most().min((piece + 1) * PIECE)).filter_map(one).reduce(both)
    });
    pieces.into_iter().flatten().reduce(both)
}

/// A random trigger, and what each strategy that is wanted makes of its random value, which is `aim` where there is one.
fn selections(
    town: &Town<'_>,
    wanted: impl Iterator<Item = Option<Strategy>>,
    aim: Option<Hash>,
    rng: &mut dyn Rng,
) -> Batch {
    let random = town.random(town.trigger(rng), aim, rng).ok();
    let mut by = |strategy| {
        let (random, cost) = random.as_ref()?;
        town.select(strategy, random, *cost, rng).ok()
    };
    wanted.map(|strategy| strategy.map_or_else(Tally::default, |one| Tally::of(by(one).as_ref()))).collect()
}
