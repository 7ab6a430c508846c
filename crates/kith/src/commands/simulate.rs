//! `kith simulate`: parameters from the command line, results to the terminal.

use std::fmt::Write;

use kith_sim::{Mode, Params, Report, TableError};

use super::Context;
use crate::cli::{KTable, SimMode, Simulate};
use crate::failure::{Failure, Result, chain};

pub(super) fn simulate(context: &Context, command: &Simulate) -> Result<()> {
    match command {
        Simulate::KTable(options) => k_table(context, options),
    }
}

fn k_table(context: &Context, options: &KTable) -> Result<()> {
    let nodes = options.nodes.0;
    let mode = match options.mode {
        SimMode::Paper => Mode::Paper,
        SimMode::Hardened => Mode::Hardened,
    };
    let params = Params { nodes, colluding: options.colluding.of(nodes), alpha: options.alpha, mode };
    let report = kith_sim::k_table(params).map_err(|error| refused(&error))?;
    context.out.result(&report, || text(&report))
}

fn refused(error: &TableError) -> Failure {
    match error {
        TableError::Nodes(_) | TableError::Colluding { .. } | TableError::Alpha(_) => {
            Failure::usage(chain(error))
        }
        other => Failure::failed(chain(other)).hint("fewer colluding nodes, or more nodes, are needed"),
    }
}

fn text(report: &Report) -> String {
    let mut text = format!("{:>5}  {:>10}  {:>12}  {:>10}\n", "k", "rs", "nodes", "share");
    for line in &report.table {
        let (nodes, share) = (four_digits(line.nodes), four_digits(line.share));
        let _a_string_takes_all =
            writeln!(text, "{:>5}  {:>10.3e}  {nodes:>12}  {share:>10}", line.k, line.rs);
    }
    let _a_string_takes_all = write!(
        text,
        "k is {:.4} on average and {} at most; a verifier does 2k asymmetric operations\n\
         the adversary holds the signers of some node with a probability of at most {}",
        report.mean_k,
        report.kmax,
        four_digits(report.any_trigger)
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
    use super::four_digits;

    #[test]
    fn four_digits_of_every_number() {
        let numbers = [0.0, 1.234_56e-7, 0.009_101_2, 0.268_70, 1.0, 16.909_5, 123_456.7];
        let texts = ["0", "1.235e-7", "0.009101", "0.2687", "1.000", "16.91", "123457"];
        assert_eq!(numbers.map(four_digits), texts);
    }
}
