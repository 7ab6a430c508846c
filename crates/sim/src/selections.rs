//! `simulate figure3`, `figure4`, `figure5` and `figure7`: what selections cost and how well they protect (SEP2P §4.2,
//! §4.3).

use serde::Serialize;

use crate::SimError;
use crate::chart::{Chart, Mark, Series};
use crate::data::Data;
use crate::estimate::Mean;
use crate::run::Run;
use crate::scale::Scale;
use crate::selection::Strategy;
use crate::sweep::{Manner, Point, SelectionParams, Tally, sweep};

/// A point of figure 3: how well a strategy protects against nodes that collude.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EffectivenessRow {
    /// The strategy.
    pub strategy: Strategy,
    /// C.
    pub colluding: u64,
    /// C / N.
    pub share: f64,
    /// The nodes of R3, on average.
    pub cache: f64,
    /// Selections that were made.
    pub selections: u64,
    /// Selections that found too few nodes somewhere, and count for nothing else here.
    pub refused: u64,
    /// Asymmetric operations of a verifier, on average.
    pub verification: f64,
    /// A·C/N divided by the mean of actors that collude; none where no actor did.
    pub effectiveness: Option<f64>,
    /// With a probability of 95 % it is not less …
    pub effectiveness_low: Option<f64>,
    /// … and not more; none where the interval has no end.
    pub effectiveness_high: Option<f64>,
    /// Actors that collude, on average over the selections.
    pub actors_mean: f64,
    /// The most of them in a selection.
    pub actors_max: u64,
    /// Their standard deviation over the selections.
    pub actors_sd: f64,
}

/// A point of figures 4, 5 and 7: what it takes to make a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetupRow {
    /// The strategy.
    pub strategy: Strategy,
    /// C.
    pub colluding: u64,
    /// C / N.
    pub share: f64,
    /// The nodes of R3, on average.
    pub cache: f64,
    /// Selections that were made.
    pub selections: u64,
    /// Selections that found too few nodes somewhere, and count for nothing else here.
    pub refused: u64,
    /// Asymmetric operations of a verifier, on average.
    pub verification: f64,
    /// Asymmetric operations one after the other, on average.
    pub operations_latency: f64,
    /// Asymmetric operations in all.
    pub operations: f64,
    /// Messages one after the other.
    pub messages_latency: f64,
    /// Messages in all.
    pub messages: f64,
    /// How often a selection was moved to another region.
    pub relocations: f64,
    /// The most operations of a verifier.
    pub verification_max: u64,
    /// The standard deviation of these operations over the selections.
    pub verification_sd: f64,
    /// The most operations one after the other.
    pub operations_latency_max: u64,
    /// Their standard deviation.
    pub operations_latency_sd: f64,
    /// The most operations in all.
    pub operations_max: u64,
    /// Their standard deviation.
    pub operations_sd: f64,
    /// The most messages one after the other.
    pub messages_latency_max: u64,
    /// Their standard deviation.
    pub messages_latency_sd: f64,
    /// The most messages in all.
    pub messages_max: u64,
    /// Their standard deviation.
    pub messages_sd: f64,
    /// The most moves of a selection.
    pub relocations_max: u64,
    /// Their standard deviation.
    pub relocations_sd: f64,
}

/// A point of figure 3 ends where so many colluding actors are to be expected by chance: with SEP2P, for an interval of about
/// ± 1 % …
const ENOUGH_BUILT: f64 = 40_000.0;
/// … and with the others, which are too far from 1 for that to matter.
const ENOUGH_OTHERS: f64 = 2_000.0;
/// Where fewer collude than this, so many are not to be had,
const RARE: f64 = 0.001;
/// and a point ends after so many selections with SEP2P …
const SELECTIONS_BUILT: u64 = 300_000;
/// … or with another strategy.
const SELECTIONS_OTHERS: u64 = 150_000;

/// Figure 3: the colluding nodes play the strongest attack on each strategy.
pub fn figure3(params: &SelectionParams, run: &Run) -> Result<Data<EffectivenessRow>, SimError> {
    let manner = Manner { strategies: &Strategy::ALL, is_attacked: true, enough };
    let points = sweep(params, &manner, run)?;
    let rows = rows(&points, manner.strategies, |point, strategy, tallies| {
        effectiveness(params, point, strategy, tallies)
    });
    Ok(Data::new(run, rows))
}

fn enough(strategy: Strategy, actors: usize, share: f64) -> u64 {
    let (colluding, selections) = match strategy {
        Strategy::Sep2p => (ENOUGH_BUILT, SELECTIONS_BUILT),
        _ => (ENOUGH_OTHERS, SELECTIONS_OTHERS),
    };
    if share < RARE { selections } else { (colluding / (actors as f64 * share)).ceil() as u64 }
}

/// Figures 4 and 5, which show operations and messages of the same selections; nobody deviates.
pub fn setup(params: &SelectionParams, run: &Run) -> Result<Data<SetupRow>, SimError> {
    costs(params, &Strategy::ALL, run)
}

/// Figure 7: SEP2P alone; nobody deviates.
pub fn figure7(params: &SelectionParams, run: &Run) -> Result<Data<SetupRow>, SimError> {
    costs(params, &[Strategy::Sep2p], run)
}

fn costs(
    params: &SelectionParams,
    strategies: &'static [Strategy],
    run: &Run,
) -> Result<Data<SetupRow>, SimError> {
    let manner = Manner { strategies, is_attacked: false, enough: |_, _, _| u64::MAX };
    let points = sweep(params, &manner, run)?;
    let rows = rows(&points, strategies, |point, strategy, tallies| cost(params, point, strategy, tallies));
    Ok(Data::new(run, rows))
}

/// A row for each strategy and point, which is told the sums of each network.
fn rows<R>(
    points: &[Point],
    strategies: &[Strategy],
    row: impl Fn(&Point, Strategy, &[Tally]) -> R,
) -> Vec<R> {
    let of = |at: usize, point: &Point| {
        let tallies: Vec<_> = point.batches.iter().map(|batch| batch[at]).collect();
        (!tallies.is_empty()).then(|| row(point, strategies[at], &tallies))
    };
    (0..strategies.len()).flat_map(|at| points.iter().filter_map(move |point| of(at, point))).collect()
}

fn total(tallies: &[Tally]) -> Tally {
    tallies.iter().fold(Tally::default(), Tally::and)
}

fn effectiveness(
    params: &SelectionParams,
    point: &Point,
    strategy: Strategy,
    tallies: &[Tally],
) -> EffectivenessRow {
    let total = total(tallies);
    let share = point.colluding as f64 / params.nodes as f64;
    let ideal = params.actors as f64 * share;
    // The networks are independent of each other; the selections within one are not.
    let made = tallies.iter().filter(|tally| tally.selections > 0);
    let means: Vec<_> = made.map(|tally| tally.mean(tally.colluding)).collect();
    let mean = Mean::of(&means);
    let ratio = |actors: f64| (actors > 0.0).then(|| ideal / actors);
    EffectivenessRow {
        strategy,
        colluding: point.colluding,
        share,
        cache: point.cache,
        selections: total.selections,
        refused: total.refused,
        verification: total.mean(total.verification),
        effectiveness: ratio(mean.value),
        effectiveness_low: mean.margin.and_then(|margin| ratio(mean.value + margin)),
        effectiveness_high: mean.margin.and_then(|margin| ratio(mean.value - margin)),
        actors_mean: total.mean(total.colluding),
        actors_max: total.colluding.max,
        actors_sd: total.deviation(total.colluding),
    }
}

fn cost(params: &SelectionParams, point: &Point, strategy: Strategy, tallies: &[Tally]) -> SetupRow {
    let total = total(tallies);
    SetupRow {
        strategy,
        colluding: point.colluding,
        share: point.colluding as f64 / params.nodes as f64,
        cache: point.cache,
        selections: total.selections,
        refused: total.refused,
        verification: total.mean(total.verification),
        operations_latency: total.mean(total.operations_latency),
        operations: total.mean(total.operations),
        messages_latency: total.mean(total.messages_latency),
        messages: total.mean(total.messages),
        relocations: total.mean(total.moves),
        verification_max: total.verification.max,
        verification_sd: total.deviation(total.verification),
        operations_latency_max: total.operations_latency.max,
        operations_latency_sd: total.deviation(total.operations_latency),
        operations_max: total.operations.max,
        operations_sd: total.deviation(total.operations),
        messages_latency_max: total.messages_latency.max,
        messages_latency_sd: total.deviation(total.messages_latency),
        messages_max: total.messages.max,
        messages_sd: total.deviation(total.messages),
        relocations_max: total.moves.max,
        relocations_sd: total.deviation(total.moves),
    }
}

/// The axis that figures 3, 4 and 5 have in common.
const VERIFICATION: (&str, Scale) = ("verification cost (asymmetric operations)", Scale::Linear);

impl Data<EffectivenessRow> {
    /// Figure 3.
    pub fn chart_of_effectiveness(&self) -> Chart {
        let mut series = Vec::new();
        for row in &self.rows {
            let Some(effectiveness) = row.effectiveness else { continue };
            let mark = Mark::Plain(row.strategy as usize);
            let series = Series::of(&mut series, row.strategy.name(), mark);
            series.points.push((row.verification, effectiveness));
            if let (Some(low), Some(high)) = (row.effectiveness_low, row.effectiveness_high) {
                series.intervals.push((row.verification, [low, high]));
            }
        }
        let y = ("security effectiveness", Scale::Linear);
        Chart { title: "Security effectiveness versus verification", x: VERIFICATION, y, series }
    }
}

impl Data<SetupRow> {
    /// Figure 4.
    pub fn chart_of_operations(&self) -> Chart {
        let y = ("setup cost (asymmetric operations)", Scale::Logarithmic);
        self.chart_versus_verification("Setup, asymmetric operations", y, |row| {
            [row.operations_latency, row.operations]
        })
    }

    /// Figure 5.
    pub fn chart_of_messages(&self) -> Chart {
        let y = ("setup cost (messages)", Scale::Logarithmic);
        self.chart_versus_verification("Setup, messages", y, |row| [row.messages_latency, row.messages])
    }

    fn chart_versus_verification(
        &self,
        title: &'static str,
        y: (&'static str, Scale),
        of: fn(&SetupRow) -> [f64; 2],
    ) -> Chart {
        let mut series = Vec::new();
        for row in &self.rows {
            let color = row.strategy as usize;
            let looks = [("latency", Mark::Empty(color)), ("total", Mark::Plain(color))];
            for ((what, mark), cost) in looks.into_iter().zip(of(row)) {
                let name = format!("{}, {what}", row.strategy.name());
                Series::push(&mut series, &name, mark, (row.verification, cost));
            }
        }
        Chart { title, x: VERIFICATION, y, series }
    }

    /// Figure 7.
    pub fn chart_versus_cache(&self) -> Chart {
        let mut series = Vec::new();
        for row in self.rows.iter().filter(|row| row.selections > 0) {
            for (name, mark, cost) in [
                ("operations, latency", Mark::Empty(0), row.operations_latency),
                ("operations, total", Mark::Plain(0), row.operations),
                ("messages, latency", Mark::Empty(1), row.messages_latency),
                ("messages, total", Mark::Plain(1), row.messages),
                ("relocations", Mark::Plain(2), row.relocations),
            ] {
                Series::push(&mut series, name, mark, (row.cache, cost));
            }
        }
        Chart {
            title: "Setup costs varying R3",
            x: ("cache size (nodes)", Scale::Logarithmic),
            y: ("setup cost", Scale::Logarithmic),
            series,
        }
    }
}
