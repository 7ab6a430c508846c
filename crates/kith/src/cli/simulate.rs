//! `kith simulate`.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum Simulate {
    /// Print how many nodes of how small a region have to sign a selection, and how many nodes need how many
    ///
    /// In each row the adversary holds k or more nodes of a region of size rs with a probability below α (SEP2P §3.3). A
    /// node takes the first row whose region, around its own place, holds k nodes.
    KTable(KTable),
}

/// Which protocol is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SimMode {
    /// SEP2P to the letter: regions of any size
    Paper,
    /// What Kithnet runs: regions are blocks of ids with a common prefix
    Hardened,
}

#[derive(Debug, Args)]
pub(crate) struct KTable {
    /// N, the nodes of the network, such as 10000, 100K or 10M
    #[arg(long, value_name = "NUMBER", default_value = "100K")]
    pub(crate) nodes: Count,
    /// C, the nodes that one adversary controls: a number, or a share such as 1%, which is one node at least
    #[arg(long, value_name = "NUMBER|SHARE", default_value = "1%")]
    pub(crate) colluding: Colluding,
    /// α, the probability of a region that the adversary holds to stay below
    #[arg(long, value_name = "PROBABILITY", default_value = "1e-6")]
    pub(crate) alpha: f64,
    /// Which regions are used
    #[arg(long, value_enum, default_value = "paper")]
    pub(crate) mode: SimMode,
}

/// A number of nodes: digits, `_` between them, and `K` or `M` for thousands or millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Count, String> {
        let (digits, unit) = match text.as_bytes().last() {
            Some(b'K') => (&text[..text.len() - 1], 1_000),
            Some(b'M') => (&text[..text.len() - 1], 1_000_000),
            _ => (text, 1),
        };
        let number = digits.replace('_', "").parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        number.map(Count).ok_or_else(|| "a number such as 10000, 100K or 10M is wanted".to_owned())
    }
}

/// How many nodes collude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Colluding {
    /// So many.
    Number(u64),
    /// So many of a hundred.
    Percent(f64),
}

impl Colluding {
    /// Their number among `nodes`.
    pub(crate) fn of(self, nodes: u64) -> u64 {
        match self {
            Colluding::Number(number) => number,
            Colluding::Percent(percent) => ((nodes as f64 * percent / 100.0).round() as u64).max(1),
        }
    }
}

impl FromStr for Colluding {
    type Err = String;

    fn from_str(text: &str) -> Result<Colluding, String> {
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().map(|Count(number)| Colluding::Number(number));
        };
        match percent.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Colluding::Percent(percent)),
            _ => Err("a share such as 1% or 0.01% is wanted".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_shares_are_read_as_the_paper_writes_them() {
        for (text, count) in [("7", 7), ("10K", 10_000), ("10M", 10_000_000), ("10_000", 10_000)] {
            assert_eq!(text.parse(), Ok(Count(count)));
            assert_eq!(text.parse(), Ok(Colluding::Number(count)));
        }
        let of = |text: &str, nodes| text.parse::<Colluding>().map(|colluding| colluding.of(nodes));
        assert_eq!(of("1%", 100_000), Ok(1_000));
        assert_eq!(of("0.001%", 10_000_000), Ok(100));
        assert_eq!(of("0.001%", 10_000), Ok(1));
        for wrong in ["", "K", "-1", "1.5", "1k%", "101%", "NaN%", "18446744073709551615M"] {
            assert!(wrong.parse::<Colluding>().is_err(), "{wrong}");
        }
    }
}
