//! `kith simulate`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use kith_sansio::Span;
use kith_sim::{Colluding, Sharing};

#[derive(Debug, Subcommand)]
pub(crate) enum Simulate {
    /// Print how many nodes of how small a region have to sign a selection, and how many nodes need how many
    ///
    /// In each row the adversary holds k or more nodes of a region of size rs with a probability below α (SEP2P §3.3). A
    /// node takes the first row whose region, around its own place, holds k nodes.
    KTable(KTable),
    /// Make lookups, and count rounds, requests and those that get through
    ///
    /// The lookups are those of dht/1; what each node knows is derived from the ids of all by the rule of its own tables.
    /// Nodes that collude name to whoever asks nobody but each other. A lookup is from an honest node for a place whose
    /// nearest node is honest, and succeeds when that node has answered. With --mtbf, nodes disappear and others come, and
    /// who is gone stays in tables until it is missed there.
    Dht(SimDht),
    /// Play attacks on selections against the machines of both protocols, and see what they gain
    ///
    /// In each attempt a trigger that colludes, and whoever else colludes, deviate in the way of the attack; everybody else
    /// is the real machine. What is measured is how many actors of the list that the adversary ends with are its own,
    /// beside what chance gives; for keys that are beside each other, how often many of them are drawn together.
    Attack(AttackArgs),
    /// Security effectiveness versus verification cost (SEP2P Figure 3)
    ///
    /// The nodes that collude play the strongest attack on each strategy: they claim to be the setter, or the node of a
    /// hash, wherever they are near enough, and hide honest candidates where they build a list.
    Figure3(Selections),
    /// Asymmetric operations to make a list versus verification cost (SEP2P Figure 4)
    Figure4(Selections),
    /// Messages to make a list versus verification cost (SEP2P Figure 5)
    Figure5(Selections),
    /// The security degree k versus the share of colluding nodes (SEP2P Figure 6)
    Figure6(Degrees),
    /// What it takes to make a list versus the size of the node cache (SEP2P Figure 7)
    Figure7(Caches),
    /// What it takes to keep node caches, versus their size, while nodes disconnect and come back (SEP2P Figure 8)
    ///
    /// Nodes join and leave by the machines of SEP2P §3.6 (mode `paper`), or of the DHT that Kithnet runs (`hardened`,
    /// regions up to 4096 nodes). Each node disconnects once in the time between failures, and comes back once.
    Figure8(Upkeep),
    /// Which share of the concept index an adversary reads (SEP2P §5.3)
    ///
    /// An entry is cut into s shares, p of which are needed to read it (Shamir). Each lies on the nodes nearest to a hash of
    /// its own; the adversary has those that its nodes keep. Beside it stands what the formula gives.
    LeakIndex(Leak),
}

/// How nodes are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SimOverlay {
    /// dht/1, by the lookups of the real network
    Kademlia,
    /// Chord, over which SEP2P's figures go: one node after the other
    Chord,
}

/// What the adversary tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttackName {
    /// Try keys until its nodes are beside each other
    Keys,
    /// The trigger is one of its own witnesses
    OwnWitness,
    /// Witnesses repeat what an honest one says, which cancels it
    Echo,
    /// Ask one eligible group after the other
    Subset,
    /// Stop and begin again: the last witness to reveal, the trigger, the setter
    Retry,
    /// Use a list for another query than it was made for
    Reuse,
    /// Keys that are beside each other are drawn together
    CoLocated,
    /// Hide whom the only honest builder does not know
    Cache,
    /// Name nodes that were revoked, or say that others are dead
    Dead,
    /// Each of them
    All,
}

/// Against which protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttackMode {
    /// SEP2P to the letter
    Paper,
    /// What Kithnet runs
    Hardened,
    /// One after the other
    Both,
}

#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// The attack
    #[arg(value_enum, value_name = "NAME")]
    pub(crate) name: AttackName,
    /// N, the nodes of the network, 100K at most: each of them has real keys
    #[arg(long, value_name = "NUMBER", default_value = "10K")]
    pub(crate) nodes: Count,
    /// C, the nodes that one adversary controls: a number, or a share such as 1%
    #[arg(long, value_name = "NUMBER|SHARE", default_value = "1%", value_parser = colluding)]
    pub(crate) colluding: Colluding,
    /// A, the actors of a selection
    #[arg(long, value_name = "NUMBER", default_value_t = 32)]
    pub(crate) actors: usize,
    /// α, the probability of a region that the adversary holds to stay below
    #[arg(long, value_name = "PROBABILITY", default_value = "1e-6")]
    pub(crate) alpha: f64,
    /// Which protocol is attacked
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) mode: AttackMode,
    /// The nodes of a node cache of the paper, on average [default: 512 for subset, co-located and a setter that retries,
    /// 48 otherwise]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cache: Option<Count>,
    /// How many draws a trigger has
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub(crate) quota: u32,
    /// How often each attack is tried
    #[arg(long, value_name = "NUMBER", default_value = "400")]
    pub(crate) attempts: Count,
    #[command(flatten)]
    pub(crate) simulation: Simulation,
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
    #[arg(long, value_name = "NUMBER|SHARE", default_value = "1%", value_parser = colluding)]
    pub(crate) colluding: Colluding,
    /// α, the probability of a region that the adversary holds to stay below
    #[arg(long, value_name = "PROBABILITY", default_value = "1e-6")]
    pub(crate) alpha: f64,
    /// Which regions are used
    #[arg(long, value_enum, default_value = "paper")]
    pub(crate) mode: SimMode,
    /// A, the actors of a selection
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) actors: u64,
    /// How many draws a node has in an epoch
    #[arg(long, value_name = "NUMBER", default_value_t = 24)]
    pub(crate) quota: u64,
}

/// How a simulation runs, and where its data goes.
#[derive(Debug, Args)]
pub(crate) struct Simulation {
    /// Where chance begins: equal seeds give equal data, with any number of threads
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many threads compute [default: one for each processor]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) threads: Option<usize>,
    /// A folder, made where it is missing, to put the data into as CSV and JSON, and the picture of a figure as SVG and PNG
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SimDht {
    /// How nodes are found
    #[arg(long, value_enum, default_value = "kademlia")]
    pub(crate) overlay: SimOverlay,
    /// The nodes of the network, such as 10000, 100K or 10M
    #[arg(long, value_name = "NUMBER", default_value = "10K")]
    pub(crate) nodes: Count,
    /// How many of them collude: a number, or a share such as 20%
    #[arg(long, value_name = "NUMBER|SHARE", default_value = "0", value_parser = colluding)]
    pub(crate) colluding: Colluding,
    /// The mean time between failures: after how long a node disappears, such as 1h [default: all stay]
    #[arg(long, value_name = "TIME")]
    pub(crate) mtbf: Option<Span>,
    /// Requests of a path that are out at a time: Kademlia's α
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    pub(crate) parallel: usize,
    /// Paths of a lookup that share no node
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    pub(crate) paths: usize,
    /// How many lookups are made
    #[arg(long, value_name = "NUMBER", default_value = "2000")]
    pub(crate) lookups: Count,
    #[command(flatten)]
    pub(crate) simulation: Simulation,
}

/// What figures 3, 4 and 5 are made for: the parameters of SEP2P Table 3.
#[derive(Debug, Args)]
pub(crate) struct Selections {
    /// N, the nodes of the network, such as 10000, 100K or 10M
    #[arg(long, value_name = "NUMBER", default_value = "100K")]
    pub(crate) nodes: Count,
    /// C, the nodes that one adversary controls: numbers, or shares such as 1%
    #[arg(
        long, value_name = "NUMBER|SHARE,…", value_delimiter = ',', value_parser = colluding,
        default_value = "0.001%,0.01%,0.1%,1%,10%"
    )]
    pub(crate) colluding: Vec<Colluding>,
    /// The nodes of a node cache, on average
    #[arg(long, value_name = "NUMBER", default_value = "48")]
    pub(crate) cache: Count,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

#[derive(Debug, Args)]
pub(crate) struct Caches {
    /// N, the nodes of the network, such as 10000, 100K or 10M
    #[arg(long, value_name = "NUMBER", default_value = "100K")]
    pub(crate) nodes: Count,
    /// C, the nodes that one adversary controls: a number, or a share such as 1%
    #[arg(long, value_name = "NUMBER|SHARE", default_value = "1%", value_parser = colluding)]
    pub(crate) colluding: Colluding,
    /// The nodes of a node cache, on average
    #[arg(
        long,
        value_name = "NUMBER,…",
        value_delimiter = ',',
        default_value = "32,36,40,48,64,128,256,512,1024,2048,4096"
    )]
    pub(crate) cache: Vec<Count>,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

/// Which selections are made, and how many.
#[derive(Debug, Args)]
pub(crate) struct Sampling {
    /// A, the actors of a selection
    #[arg(long, value_name = "NUMBER", default_value_t = 32)]
    pub(crate) actors: usize,
    /// α, the probability of a region that the adversary holds to stay below
    #[arg(long, value_name = "PROBABILITY", default_value = "1e-6")]
    pub(crate) alpha: f64,
    /// Selections at each point; fewer at points of figure 3 that are certain before, or never will be [default: 1250K for
    /// figure3, 4K for the others]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) selections: Option<Count>,
    /// Over how many networks they are spread [default: 32 for figure3, 16 for the others]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) networks: Option<u64>,
    /// Let each node of each network be the setter once, as SEP2P does, instead of random ones
    #[arg(long, conflicts_with = "selections")]
    pub(crate) every_setter: bool,
    #[command(flatten)]
    pub(crate) simulation: Simulation,
}

#[derive(Debug, Args)]
pub(crate) struct Degrees {
    /// N, the nodes of the network, such as 10000, 100K or 10M
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',', default_value = "10K,10M")]
    pub(crate) nodes: Vec<Count>,
    /// C, the nodes that one adversary controls: numbers, or shares such as 1%
    #[arg(
        long, value_name = "NUMBER|SHARE,…", value_delimiter = ',', value_parser = colluding,
        default_value = "0.001%,0.01%,0.1%,1%,10%"
    )]
    pub(crate) colluding: Vec<Colluding>,
    /// α, the probability of a region that the adversary holds to stay below
    #[arg(long, value_name = "PROBABILITY,…", value_delimiter = ',', default_value = "1e-6,1e-10")]
    pub(crate) alpha: Vec<f64>,
    /// Which regions are used
    #[arg(long, value_enum, default_value = "paper")]
    pub(crate) mode: SimMode,
    #[command(flatten)]
    pub(crate) simulation: Simulation,
}

#[derive(Debug, Args)]
pub(crate) struct Upkeep {
    /// N, the nodes of the network, such as 10000, 100K or 10M
    #[arg(long, value_name = "NUMBER", default_value = "100K")]
    pub(crate) nodes: Count,
    /// C, the nodes that one adversary controls: a number, or a share such as 1%
    #[arg(long, value_name = "NUMBER|SHARE", default_value = "1%", value_parser = colluding)]
    pub(crate) colluding: Colluding,
    /// α, the probability of a region that the adversary holds to stay below
    #[arg(long, value_name = "PROBABILITY", default_value = "1e-6")]
    pub(crate) alpha: f64,
    /// The nodes of a node cache, on average
    #[arg(
        long,
        value_name = "NUMBER,…",
        value_delimiter = ',',
        default_value = "32,64,128,256,512,1024,2048,4096,8192,16384,32768"
    )]
    pub(crate) cache: Vec<Count>,
    /// The mean time between failures: after how long a node disconnects, such as 1h or 5d
    #[arg(long, value_name = "TIME,…", value_delimiter = ',', default_value = "1h,6h,1d,5d")]
    pub(crate) mtbf: Vec<Span>,
    /// Whose caches are kept
    #[arg(long, value_enum, value_delimiter = ',', default_value = "paper,hardened")]
    pub(crate) mode: Vec<SimMode>,
    /// How often a node joins and one leaves, at each point
    #[arg(long, value_name = "NUMBER", default_value = "40")]
    pub(crate) events: Count,
    #[command(flatten)]
    pub(crate) simulation: Simulation,
}

#[derive(Debug, Args)]
pub(crate) struct Leak {
    /// N, the nodes of the network, such as 10000, 100K or 10M
    #[arg(long, value_name = "NUMBER", default_value = "100K")]
    pub(crate) nodes: Count,
    /// C, the nodes that one adversary controls: numbers, or shares such as 1%
    #[arg(
        long, value_name = "NUMBER|SHARE,…", value_delimiter = ',', value_parser = colluding,
        default_value = "0.01%,0.1%,1%,10%"
    )]
    pub(crate) colluding: Vec<Colluding>,
    /// How an entry is cut, p/s: so many shares are needed of how many
    #[arg(
        long, value_name = "NUMBER/NUMBER,…", value_delimiter = ',', value_parser = sharing,
        default_value = "1/1,2/2,2/3,3/5"
    )]
    pub(crate) shares: Vec<Sharing>,
    /// How many nodes keep each share; one in SEP2P, 20 in dht/1
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) copies: u64,
    /// How many entries the index has
    #[arg(long, value_name = "NUMBER", default_value = "1M")]
    pub(crate) entries: Count,
    #[command(flatten)]
    pub(crate) simulation: Simulation,
}

/// How an entry is cut, such as 2/3.
fn sharing(text: &str) -> Result<Sharing, String> {
    let numbers = text.split_once('/').and_then(|(p, s)| Some((p.parse().ok()?, s.parse().ok()?)));
    let sharing = numbers.map(|(needed, shares)| Sharing { needed, shares });
    sharing.ok_or_else(|| "two numbers such as 2/3 are wanted".to_owned())
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

/// How many nodes collude, as the paper writes it.
fn colluding(text: &str) -> Result<Colluding, String> {
    let Some(percent) = text.strip_suffix('%') else {
        return text.parse().map(|Count(number)| Colluding::Number(number));
    };
    match percent.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Colluding::Percent(percent)),
        _ => Err("a share such as 1% or 0.01% is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_cut_as_it_is_written() {
        assert_eq!(sharing("2/3"), Ok(Sharing { needed: 2, shares: 3 }));
        for wrong in ["", "2", "2/", "/3", "2/3/4", "-1/3"] {
            assert!(sharing(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_and_shares_are_read_as_the_paper_writes_them() {
        for (text, count) in [("7", 7), ("10K", 10_000), ("10M", 10_000_000), ("10_000", 10_000)] {
            assert_eq!(text.parse(), Ok(Count(count)));
            assert_eq!(colluding(text), Ok(Colluding::Number(count)));
        }
        let of = |text: &str, nodes| colluding(text).map(|colluding| colluding.of(nodes));
        assert_eq!(of("1%", 100_000), Ok(1_000));
        assert_eq!(of("0.001%", 10_000_000), Ok(100));
        assert_eq!(of("0.001%", 10_000), Ok(1));
        for wrong in ["", "K", "-1", "1.5", "1k%", "101%", "NaN%", "18446744073709551615M"] {
            assert!(colluding(wrong).is_err(), "{wrong}");
        }
    }
}
