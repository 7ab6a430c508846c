//! `simulate figure8`: what it costs to keep the caches while nodes disconnect and come back (SEP2P §4.3).

use kith_actors::ktable::{KTable, Network, Region};
use kith_actors::paper::Rules;
use kith_dht::Config;
use kith_identity::membership::region_bits;
use kith_sansio::{Rng, Span};
use serde::Serialize;

use crate::chart::{Chart, Mark, Series};
use crate::data::Data;
use crate::estimate::Mean;
use crate::members::{ids, random_id};
use crate::ring::{Ring, node};
use crate::run::{Purpose, Run, chance};
use crate::scale::Scale;
use crate::sweep::rules;
use crate::upkeep::{Event, among_members, on_ring};
use crate::{Colluding, MAX_NODES, Mode, SimError};

/// The largest region of mode `hardened`: a node of the DHT bears in mind no more of whom it only heard.
pub const MAX_REGION: u64 = 4_096;

/// Which caches are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure8Params {
    /// N, the nodes of the network.
    pub nodes: u64,
    /// C, the nodes that one adversary controls.
    pub colluding: Colluding,
    /// α, the probability of a controlled region to stay below.
    pub alpha: f64,
    /// The nodes of a cache on average: one point for each.
    pub cache: Vec<u64>,
    /// After how long a node disconnects, on average: one curve for each. It comes back as often.
    pub mtbf: Vec<Span>,
    /// Whose caches are kept: those of the paper, or the regions of the DHT.
    pub modes: Vec<Mode>,
    /// How often a node joins and one leaves, at each point.
    pub events: u64,
    /// Where chance begins.
    pub seed: u64,
}

/// A point of figure 8.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpkeepRow {
    /// Whose caches are kept.
    pub mode: Mode,
    /// Hours after which a node disconnects, on average.
    pub mtbf_hours: f64,
    /// The nodes of a cache, on average.
    pub cache: f64,
    /// How often a node joined and one left.
    pub events: u64,
    /// Asymmetric operations of all nodes together because one joins, on average.
    pub join_operations: f64,
    /// Messages because one joins.
    pub join_messages: f64,
    /// Asymmetric operations because one leaves.
    pub leave_operations: f64,
    /// Messages because one leaves.
    pub leave_messages: f64,
    /// Asymmetric operations of each node in a minute, on average.
    pub operations: f64,
    /// With a probability of 95 % they are not fewer …
    pub operations_low: Option<f64>,
    /// … and not more.
    pub operations_high: Option<f64>,
    /// Messages of each node in a minute.
    pub messages: f64,
}

/// Simulates joins and leaves; how often they happen is reckoned from the time between failures.
pub fn figure8(params: &Figure8Params, run: &Run) -> Result<Data<UpkeepRow>, SimError> {
    let points = points(params)?;
    run.plan(points.len() as u64 * params.events);
    let has = |mode| params.modes.contains(&mode);
    let ring = has(Mode::Paper).then(|| Ring::new(params.nodes, params.seed, 0));
    let ids = has(Mode::Hardened).then(|| ids(params.nodes, params.seed));
    let mut rows = Vec::new();
    for point in &points {
        let events = run.map(params.events, |event| {
            let mut rng = chance(params.seed, Purpose::Work, event);
            match (&point.upkeep, &ring, &ids) {
                (Upkeep::Paper(rules), Some(ring), _) => {
                    let leaver = ring.nodes()[rng.below(params.nodes) as usize];
                    on_ring(rules, ring, node(&mut rng), leaver)
                }
                (Upkeep::Hardened(config), _, Some(ids)) => {
                    Some(among_members(ids, config, random_id(&mut rng), &mut rng))
                }
                _ => None,
            }
        });
        let events: Vec<_> = events.into_iter().flatten().collect();
        if !events.is_empty() {
            rows.extend(params.mtbf.iter().map(|mtbf| row(point, *mtbf, &events)));
        }
    }
    // Curve by curve: the sort is stable, so that caches go on ascending.
    rows.sort_by(|a, b| (a.mode as u8).cmp(&(b.mode as u8)).then(a.mtbf_hours.total_cmp(&b.mtbf_hours)));
    Ok(Data::new(run, rows))
}

/// What is kept at one point of the figure.
struct Point {
    cache: f64,
    upkeep: Upkeep,
}

enum Upkeep {
    Paper(Rules),
    Hardened(Config),
}

fn points(params: &Figure8Params) -> Result<Vec<Point>, SimError> {
    let Figure8Params { nodes, alpha, .. } = *params;
    if !(2..=MAX_NODES).contains(&nodes) {
        return Err(SimError::Nodes(nodes));
    }
    if let Some(cache) = params.cache.iter().find(|cache| !(1..=nodes).contains(*cache)) {
        return Err(SimError::Cache { nodes, cache: *cache });
    }
    if params.mtbf.contains(&Span::ZERO) {
        return Err(SimError::NoTime);
    }
    let table = KTable::exact(Network::new(nodes, params.colluding.of(nodes), alpha)?)?;
    let mut points = Vec::new();
    for mode in &params.modes {
        for cache in &params.cache {
            match mode {
                Mode::Paper => {
                    let rules = rules(&table, *cache);
                    let cache = rules.candidates.size() * nodes as f64;
                    points.push(Point { cache, upkeep: Upkeep::Paper(rules) });
                }
                Mode::Hardened if *cache <= MAX_REGION => {
                    let config = Config { region: *cache as usize, ..Config::default() };
                    let cache = nodes as f64 / f64::from(region_bits(nodes, config.region)).exp2();
                    points.push(Point { cache, upkeep: Upkeep::Hardened(config) });
                }
                Mode::Hardened => {}
            }
        }
    }
    Ok(points)
}

fn row(point: &Point, mtbf: Span, events: &[Event]) -> UpkeepRow {
    let minutes = mtbf.0 as f64 / Span::secs(60).0 as f64;
    let mean =
        |of: fn(&Event) -> u64| Mean::of(&events.iter().map(|event| of(event) as f64).collect::<Vec<_>>());
    let both = mean(|event| event.join.operations + event.leave.operations);
    let end = |sign: f64| both.margin.map(|margin| (both.value + sign * margin) / minutes);
    UpkeepRow {
        mode: match point.upkeep {
            Upkeep::Paper(_) => Mode::Paper,
            Upkeep::Hardened(_) => Mode::Hardened,
        },
        mtbf_hours: minutes / 60.0,
        cache: point.cache,
        events: events.len() as u64,
        join_operations: mean(|event| event.join.operations).value,
        join_messages: mean(|event| event.join.messages).value,
        leave_operations: mean(|event| event.leave.operations).value,
        leave_messages: mean(|event| event.leave.messages).value,
        operations: both.value / minutes,
        operations_low: end(-1.0),
        operations_high: end(1.0),
        messages: mean(|event| event.join.messages + event.leave.messages).value / minutes,
    }
}

impl Data<UpkeepRow> {
    /// The figure: a curve for each mode and time between failures.
    pub fn chart_of_upkeep(&self) -> Chart {
        let mut hours: Vec<_> = self.rows.iter().map(|row| row.mtbf_hours).collect();
        hours.sort_by(f64::total_cmp);
        hours.dedup();
        let mut series = Vec::new();
        for row in &self.rows {
            let color = hours.partition_point(|hours| *hours < row.mtbf_hours);
            let (mode, mark) = match row.mode {
                Mode::Paper => ("paper", Mark::Plain(color)),
                Mode::Hardened => ("hardened", Mark::Empty(color)),
            };
            let name = format!("{mode}, MTBF {} h", row.mtbf_hours);
            Series::push(&mut series, &name, mark, (row.cache, row.operations));
        }
        Chart {
            title: "Maintenance of caches",
            x: ("cache size (nodes)", Scale::Logarithmic),
            y: ("asymmetric operations per node and minute", Scale::Logarithmic),
            series,
        }
    }
}
