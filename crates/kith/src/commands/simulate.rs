//! `kith simulate`: parameters from the command line, results to the terminal and to files.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::ValueEnum;
use kith_sim::{
    Attack, AttackParams, Chart, Data, DhtParams, Figure6Params, Figure8Params, LeakParams, Mode, Overlay,
    Params, Report, Run, SelectionParams, SimError, TableError,
};
use serde::Serialize;

use super::Context;
use super::transfer::interrupt;
use crate::cli::{
    AttackArgs, AttackMode, AttackName, Caches, Degrees, KTable, Leak, Sampling, Selections, SimDht, SimMode,
    SimOverlay, Simulate, Simulation, Upkeep,
};
use crate::failure::{Failure, Result, chain};

/// So many selections at each point and networks, where nobody says how many: what figure 3 needs for an interval of about
/// one per cent where one node in a thousand colludes …
const FIGURE_3: Samples = Samples { selections: 1_250_000, networks: 32 };
/// … and what is plenty for costs.
const OTHERS: Samples = Samples { selections: 4_000, networks: 16 };
/// No table with more columns is shown whole.
const MOST_COLUMNS: usize = 16;
/// How often the progress is looked at.
const GLANCE: Duration = Duration::from_millis(100);

pub(super) async fn simulate(context: &Context, command: &Simulate) -> Result<()> {
    match command {
        Simulate::KTable(options) => k_table(context, options),
        Simulate::Dht(options) => dht(context, options).await,
        Simulate::Attack(options) => attack(context, options).await,
        Simulate::Figure3(options) => {
            let params = selections(options, FIGURE_3);
            let work = move |run: &Run| kith_sim::figure3(&params, run);
            simulated(
                context,
                ("figure3", &options.sampling.simulation),
                work,
                Some(Data::chart_of_effectiveness),
            )
            .await
        }
        Simulate::Figure4(options) => setup(context, ("figure4", options), Data::chart_of_operations).await,
        Simulate::Figure5(options) => setup(context, ("figure5", options), Data::chart_of_messages).await,
        Simulate::Figure6(options) => figure6(context, options).await,
        Simulate::Figure7(options) => figure7(context, options).await,
        Simulate::Figure8(options) => figure8(context, options).await,
        Simulate::LeakIndex(options) => leak_index(context, options).await,
    }
}

async fn dht(context: &Context, options: &SimDht) -> Result<()> {
    let nodes = options.nodes.0;
    let params = DhtParams {
        overlay: match options.overlay {
            SimOverlay::Kademlia => Overlay::Kademlia,
            SimOverlay::Chord => Overlay::Chord,
        },
        nodes,
        colluding: options.colluding.of(nodes),
        mtbf: options.mtbf,
        parallel: options.parallel,
        paths: options.paths,
        lookups: options.lookups.0,
        seed: options.simulation.seed,
    };
    let work = move |run: &Run| kith_sim::dht(&params, run);
    simulated(context, ("dht", &options.simulation), work, None).await
}

async fn attack(context: &Context, options: &AttackArgs) -> Result<()> {
    let nodes = options.nodes.0;
    let name = options.name.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned());
    let is_asked = |one: &Attack| options.name == AttackName::All || one.name() == name;
    let params = AttackParams {
        attacks: Attack::ALL.into_iter().filter(is_asked).collect(),
        modes: match options.mode {
            AttackMode::Paper => vec![Mode::Paper],
            AttackMode::Hardened => vec![Mode::Hardened],
            AttackMode::Both => vec![Mode::Paper, Mode::Hardened],
        },
        nodes,
        colluding: options.colluding.of(nodes),
        actors: options.actors,
        alpha: options.alpha,
        cache: options.cache.map(|cache| cache.0),
        quota: options.quota,
        attempts: options.attempts.0,
        seed: options.simulation.seed,
    };
    let work = move |run: &Run| kith_sim::attack(&params, run);
    simulated(context, (&format!("attack-{name}"), &options.simulation), work, None).await
}

async fn setup(
    context: &Context,
    (name, options): (&str, &Selections),
    chart: fn(&Data<kith_sim::SetupRow>) -> Chart,
) -> Result<()> {
    let params = selections(options, OTHERS);
    let work = move |run: &Run| kith_sim::setup(&params, run);
    simulated(context, (name, &options.sampling.simulation), work, Some(chart)).await
}

async fn figure6(context: &Context, options: &Degrees) -> Result<()> {
    let params = Figure6Params {
        nodes: options.nodes.iter().map(|nodes| nodes.0).collect(),
        colluding: options.colluding.clone(),
        alphas: options.alpha.clone(),
        mode: mode(options.mode),
    };
    let work = move |run: &Run| kith_sim::figure6(&params, run);
    simulated(context, ("figure6", &options.simulation), work, Some(Data::chart_of_degrees)).await
}

async fn figure7(context: &Context, options: &Caches) -> Result<()> {
    let caches = options.cache.iter().map(|cache| cache.0).collect();
    let params = sampled(&options.sampling, OTHERS, options.nodes.0, vec![options.colluding], caches);
    let work = move |run: &Run| kith_sim::figure7(&params, run);
    let chart = Data::chart_versus_cache;
    simulated(context, ("figure7", &options.sampling.simulation), work, Some(chart)).await
}

async fn figure8(context: &Context, options: &Upkeep) -> Result<()> {
    let params = Figure8Params {
        nodes: options.nodes.0,
        colluding: options.colluding,
        alpha: options.alpha,
        cache: options.cache.iter().map(|cache| cache.0).collect(),
        mtbf: options.mtbf.clone(),
        modes: options.mode.iter().copied().map(mode).collect(),
        events: options.events.0,
        seed: options.simulation.seed,
    };
    let work = move |run: &Run| kith_sim::figure8(&params, run);
    simulated(context, ("figure8", &options.simulation), work, Some(Data::chart_of_upkeep)).await
}

async fn leak_index(context: &Context, options: &Leak) -> Result<()> {
    let params = LeakParams {
        nodes: options.nodes.0,
        colluding: options.colluding.clone(),
        sharing: options.shares.clone(),
        copies: options.copies,
        entries: options.entries.0,
        seed: options.simulation.seed,
    };
    let work = move |run: &Run| kith_sim::leak_index(&params, run);
    simulated(context, ("leak-index", &options.simulation), work, Some(Data::chart_of_disclosure)).await
}

/// How many samples a figure has where nobody says how many.
#[derive(Clone, Copy)]
struct Samples {
    selections: u64,
    networks: u64,
}

fn selections(options: &Selections, usual: Samples) -> SelectionParams {
    let (colluding, caches) = (options.colluding.clone(), vec![options.cache.0]);
    sampled(&options.sampling, usual, options.nodes.0, colluding, caches)
}

fn sampled(
    sampling: &Sampling,
    usual: Samples,
    nodes: u64,
    colluding: Vec<kith_sim::Colluding>,
    cache: Vec<u64>,
) -> SelectionParams {
    SelectionParams {
        nodes,
        colluding,
        actors: sampling.actors,
        alpha: sampling.alpha,
        cache,
        selections: sampling.selections.map_or(usual.selections, |selections| selections.0),
        networks: sampling.networks.unwrap_or(usual.networks),
        every_setter: sampling.every_setter,
        seed: sampling.simulation.seed,
    }
}

/// Runs a simulation while its progress is shown; Ctrl-C ends it with what it has. A figure has a picture.
async fn simulated<R: Serialize + Send + 'static>(
    context: &Context,
    (name, options): (&str, &Simulation),
    work: impl FnOnce(&Run) -> std::result::Result<Data<R>, SimError> + Send + 'static,
    chart: Option<fn(&Data<R>) -> Chart>,
) -> Result<()> {
    let threads = options.threads.unwrap_or_else(|| available_parallelism().map_or(1, Into::into));
    let data = watched(context, Arc::new(Run::new(threads)), work).await?;
    if let Some(folder) = &options.into {
        put(folder, name, &data, chart)?;
    }
    context.out.result(&data, || columns(&data.csv()))?;
    match data.is_complete {
        true => Ok(()),
        false => {
            Err(Failure::failed("stopped before the end; the result is of what was done until then").told())
        }
    }
}

async fn watched<R: Send + 'static>(
    context: &Context,
    run: Arc<Run>,
    work: impl FnOnce(&Run) -> std::result::Result<Data<R>, SimError> + Send + 'static,
) -> Result<Data<R>> {
    let mut interrupt = interrupt()?;
    let mut glance = tokio::time::interval(GLANCE);
    let bar = context.out.board().steps();
    let running = Arc::clone(&run);
    let mut working = tokio::task::spawn_blocking(move || work(&running));
    let done = loop {
        tokio::select! {
            done = &mut working => break done,
            _ = interrupt.recv() => run.stop(),
            _ = glance.tick() => {
                let (done, planned) = run.progress();
                bar.set_length(planned);
                bar.set_position(done);
            }
        }
    };
    bar.finish_and_clear();
    done.map_err(Failure::failed)?.map_err(|error| not_simulated(&error))
}

fn not_simulated(error: &SimError) -> Failure {
    match error {
        SimError::Table(error) => refused(error),
        other => Failure::usage(chain(other)),
    }
}

/// Puts the data of a simulation, and its picture, into a folder.
fn put<R: Serialize>(
    folder: &Path,
    name: &str,
    data: &Data<R>,
    chart: Option<fn(&Data<R>) -> Chart>,
) -> Result<()> {
    let failed = |path: &Path, error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let write = |ending: &str, bytes: &[u8]| {
        let path = folder.join(name).with_extension(ending);
        std::fs::write(&path, bytes).map_err(|error| failed(&path, error))
    };
    write("csv", data.csv().as_bytes())?;
    let json = serde_json::to_string_pretty(data).map_err(Failure::failed)? + "\n";
    write("json", json.as_bytes())?;
    let Some(chart) = chart.map(|chart| chart(data)) else { return Ok(()) };
    write("svg", chart.svg().map_err(Failure::failed)?.as_bytes())?;
    write("png", &chart.png().map_err(Failure::failed)?)
}

/// CSV in columns for a person, numbers to four digits; of very many columns those are left out that tell how much each
/// number varies.
fn columns(csv: &str) -> String {
    let cell = |text: &str| match text.parse::<f64>() {
        Ok(number) if text.contains(['.', 'e']) => four_digits(number),
        _ => text.to_owned(),
    };
    let names: Vec<_> = csv.lines().next().unwrap_or_default().split(',').collect();
    let is_extra =
        |name: &str| names.len() > MOST_COLUMNS && (name.ends_with("_max") || name.ends_with("_sd"));
    let row = |line: &str| {
        let cells = line.split(',').zip(&names).filter(|(_, name)| !is_extra(name));
        cells.map(|(text, _)| cell(text)).collect()
    };
    let rows: Vec<Vec<_>> = csv.lines().map(row).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        cells.join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn mode(mode: SimMode) -> Mode {
    match mode {
        SimMode::Paper => Mode::Paper,
        SimMode::Hardened => Mode::Hardened,
    }
}

fn k_table(context: &Context, options: &KTable) -> Result<()> {
    let nodes = options.nodes.0;
    let colluding = options.colluding.of(nodes);
    let KTable { alpha, actors, quota, .. } = *options;
    let params = Params { nodes, colluding, alpha, mode: mode(options.mode), actors, quota };
    let report = kith_sim::k_table(params).map_err(|error| refused(&error))?;
    context.out.result(&report, || text(&params, &report))
}

fn refused(error: &TableError) -> Failure {
    match error {
        TableError::Nodes(_) | TableError::Colluding { .. } | TableError::Alpha(_) => {
            Failure::usage(chain(error))
        }
        other => Failure::failed(chain(other)).hint("fewer colluding nodes, or more nodes, are needed"),
    }
}

fn text(params: &Params, report: &Report) -> String {
    let mut text = format!("{:>5}  {:>10}  {:>12}  {:>10}\n", "k", "rs", "nodes", "share");
    for line in &report.table {
        let (nodes, share) = (four_digits(line.nodes), four_digits(line.share));
        let _a_string_takes_all =
            writeln!(text, "{:>5}  {:>10.3e}  {nodes:>12}  {share:>10}", line.k, line.rs);
    }
    let _a_string_takes_all = write!(
        text,
        "k is {:.4} on average and {} at most; a verifier does 2k asymmetric operations\n\
         the adversary holds the signers of some node with a probability of at most {}\n\
         of {} actors {} collude on average, and {} in the best list out of {} draws of each of its nodes",
        report.mean_k,
        report.kmax,
        four_digits(report.any_trigger),
        params.actors,
        four_digits(report.mean_actors),
        four_digits(report.best_actors),
        params.quota,
    );
    text
}

/// A number that is not negative, to four significant digits.
fn four_digits(number: f64) -> String {
    if number > 0.0 && number < 1e-3 {
        return format!("{number:.3e}");
    }
    let decimals = if number > 0.0 { (3 - number.log10().floor() as i32).max(0) } else { 0 };
    format!("{number:.*}", decimals as usize)
}

#[cfg(test)]
mod tests {
    use super::{columns, four_digits};

    #[test]
    fn csv_stands_in_columns() {
        let text = columns("name,cost,nodes\nSEP2P,7.57891,100000\nA,,3\n");
        assert_eq!(text, " name   cost   nodes\nSEP2P  7.579  100000\n    A              3");
        let many = ["cost_sd", &"n,".repeat(16), "cost_max"].join(",");
        assert_eq!(columns(&many).matches("cost").count(), 0);
    }

    #[test]
    fn four_digits_of_every_number() {
        let numbers = [0.0, 1.234_56e-7, 0.009_101_2, 0.268_70, 1.0, 16.909_5, 123_456.7];
        let texts = ["0", "1.235e-7", "0.009101", "0.2687", "1.000", "16.91", "123457"];
        assert_eq!(numbers.map(four_digits), texts);
    }
}
