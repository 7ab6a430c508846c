//! `simulate attack`: what an adversary gains by each attack on a selection, against the machines of both modes.
//!
//! An attempt is one of a trigger that colludes. Who else colludes is drawn anew for each attempt, so that attempts in one
//! network are independent of each other, and a list that nobody steers holds as many of the adversary's nodes as its
//! share of the candidates says. Where an attack needs a group in which all but one collude, the adversary is given it:
//! one honest node is what the protocol says is enough.

mod hardened;
mod paper;

use kith_actors::binomial::{at_least, best_of};
use kith_actors::ktable::{KTable, Network};
use kith_identity::membership::{REGION_MEMBERS, region_bits};
use kith_sansio::Rng;
use serde::Serialize;

use crate::data::Data;
use crate::estimate::{Mean, mean, share};
use crate::run::{Purpose, Run, chance};
use crate::{MAX_ACTORS, Mode, SimError};

/// The most nodes of a network that is attacked: each of them has real keys.
pub const MAX_ATTACKED: u64 = 100_000;

/// What an adversary tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Tries keys until its nodes are beside each other.
    Keys,
    /// The trigger is one of its own witnesses.
    OwnWitness,
    /// Witnesses repeat what an honest one says, which cancels it.
    Echo,
    /// Asks one eligible group after the other.
    Subset,
    /// The last witness to reveal does so only if it likes the result.
    RetryLast,
    /// The trigger begins again until it likes the list.
    RetryTrigger,
    /// The setter has the list made again until it likes it.
    RetrySetter,
    /// Uses a list for another query than it was made for.
    Reuse,
    /// Its keys are beside each other, so that they are drawn together.
    CoLocated,
    /// Hides whom the only honest builder does not know.
    Cache,
    /// Names nodes that were revoked.
    Dead,
}

impl Attack {
    /// All of them.
    pub const ALL: [Attack; 11] = [
        Attack::Keys,
        Attack::OwnWitness,
        Attack::Echo,
        Attack::Subset,
        Attack::RetryLast,
        Attack::RetryTrigger,
        Attack::RetrySetter,
        Attack::Reuse,
        Attack::CoLocated,
        Attack::Cache,
        Attack::Dead,
    ];

    /// Its name; three have one in common.
    pub fn name(self) -> &'static str {
        match self {
            Attack::Keys => "keys",
            Attack::OwnWitness => "own-witness",
            Attack::Echo => "echo",
            Attack::Subset => "subset",
            Attack::RetryLast | Attack::RetryTrigger | Attack::RetrySetter => "retry",
            Attack::Reuse => "reuse",
            Attack::CoLocated => "co-located",
            Attack::Cache => "cache",
            Attack::Dead => "dead",
        }
    }

    /// Who retries.
    pub fn by(self) -> Option<&'static str> {
        match self {
            Attack::RetryLast => Some("last"),
            Attack::RetryTrigger => Some("trigger"),
            Attack::RetrySetter => Some("setter"),
            _ => None,
        }
    }

    /// How many nodes a cache of the paper has on average, where nothing else is said: as many as a region of the hardened
    /// mode where it matters whom of a region the list has, and otherwise the paper's own (Table 3).
    pub fn usual_cache(self) -> u64 {
        match self {
            Attack::Subset | Attack::RetrySetter | Attack::CoLocated => REGION_MEMBERS as u64,
            _ => 48,
        }
    }
}

/// Which attacks are played, and in what network.
#[derive(Clone, Debug, PartialEq)]
pub struct AttackParams {
    /// The attacks.
    pub attacks: Vec<Attack>,
    /// Against which protocols.
    pub modes: Vec<Mode>,
    /// N, the nodes of the network.
    pub nodes: u64,
    /// C, the nodes that the adversary controls.
    pub colluding: u64,
    /// A, the actors of a selection.
    pub actors: usize,
    /// α, the probability of a controlled region to stay below.
    pub alpha: f64,
    /// The nodes of a cache of the paper, on average; none for [`Attack::usual_cache`].
    pub cache: Option<u64>,
    /// How many draws a trigger has.
    pub quota: u32,
    /// How often each attack is tried.
    pub attempts: u64,
    /// Where chance begins.
    pub seed: u64,
}

/// What came of an attack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttackRow {
    /// The attack.
    pub attack: &'static str,
    /// Who does it, where several could.
    pub by: Option<&'static str>,
    /// The protocol.
    pub mode: &'static str,
    /// What is measured.
    pub measure: String,
    /// Attempts that ended with a list.
    pub attempts: u64,
    /// Attempts that found too few nodes somewhere, and count for nothing else.
    pub refused: u64,
    /// In what share of the attempts everybody who checks took what deviates for good.
    pub accepted: f64,
    /// What was measured, on average.
    pub mean: f64,
    /// With a probability of 95 % it is not less …
    pub low: Option<f64>,
    /// … and not more; a mean of one attempt has neither.
    pub high: Option<f64>,
    /// What it is where nobody steers.
    pub chance: f64,
    /// What it is in the best of as many draws as the quota allows, for attacks that draw again.
    pub quota_bias: Option<f64>,
}

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    value: f64,
    /// What was to be expected of the value if nobody steers.
    chance: f64,
    accepted: bool,
}

/// Plays the attacks.
pub fn attack(params: &AttackParams, run: &Run) -> Result<Data<AttackRow>, SimError> {
    check(params)?;
    let games = || params.modes.iter().flat_map(|mode| params.attacks.iter().map(move |one| (*mode, *one)));
    run.plan(games().count() as u64 * params.attempts);
    let villages = hardened::Villages::found(params, run)?;
    let mut rows = Vec::new();
    for (mode, one) in games() {
        let samples = match mode {
            Mode::Paper => {
                let town = paper::Town::new(params, one)?;
                played(params, one, run, |_, rng| town.play(one, rng))
            }
            Mode::Hardened => {
                let Some(village) = villages.of(one) else { continue };
                played(params, one, run, |number, rng| village.play(params, one, number, rng))
            }
        };
        rows.extend(row(params, mode, one, &samples));
    }
    rows.sort_by_key(|row| Attack::ALL.iter().position(|one| (one.name(), one.by()) == (row.attack, row.by)));
    Ok(Data::new(run, rows))
}

fn check(params: &AttackParams) -> Result<(), SimError> {
    let AttackParams { nodes, colluding, actors, cache, .. } = *params;
    if !(2..=MAX_ATTACKED).contains(&nodes) {
        return Err(SimError::Attacked(nodes));
    }
    KTable::exact(Network::new(nodes, colluding, params.alpha)?)?;
    if let Some(cache) = cache.filter(|cache| !(1..=nodes).contains(cache)) {
        return Err(SimError::Cache { nodes, cache });
    }
    let most = match params.modes.contains(&Mode::Hardened) {
        // Half of a region (`docs/actors-protocol.md`).
        true => ((nodes >> region_bits(nodes, REGION_MEMBERS)) / 2) as usize,
        false => MAX_ACTORS,
    };
    if (1..=most.min(MAX_ACTORS)).contains(&actors) { Ok(()) } else { Err(SimError::MostActors { most }) }
}

/// The attempts, of which those that found too few nodes have no sample.
fn played(
    params: &AttackParams,
    one: Attack,
    run: &Run,
    play: impl Fn(u64, &mut dyn Rng) -> Option<Sample> + Sync,
) -> Vec<Option<Sample>> {
    run.map(params.attempts, |number| {
        let item = (one as u64) << 32 | number;
        play(number, &mut chance(params.seed, Purpose::Work, item))
    })
}

fn row(params: &AttackParams, mode: Mode, one: Attack, samples: &[Option<Sample>]) -> Option<AttackRow> {
    let made: Vec<_> = samples.iter().flatten().collect();
    if made.is_empty() {
        return None;
    }
    let of = |what: fn(&Sample) -> f64| made.iter().map(|sample| what(sample)).collect::<Vec<_>>();
    let value = mean(&of(|sample| sample.value));
    let (measure, interval) = if one == Attack::CoLocated {
        let hits = made.iter().filter(|sample| sample.value > 0.0).count() as u64;
        let measure = format!("share of lists with {} or more that collude", params.many());
        (measure, Some(share(hits, made.len() as u64)))
    } else {
        // By how much each attempt is beyond its own chance: how full of colluders its region was matters less then.
        let margin = Mean::of(&of(|sample| sample.value - sample.chance)).margin;
        let interval = margin.map(|margin| ((value - margin).max(0.0), value + margin));
        ("actors that collude".to_owned(), interval)
    };
    let (low, high) = interval.unzip();
    let is_drawn_again = matches!(one, Attack::RetryLast | Attack::RetryTrigger | Attack::RetrySetter);
    Some(AttackRow {
        attack: one.name(),
        by: one.by(),
        mode: match mode {
            Mode::Paper => "paper",
            Mode::Hardened => "hardened",
        },
        measure,
        attempts: made.len() as u64,
        refused: (samples.len() - made.len()) as u64,
        accepted: mean(&of(|sample| f64::from(u8::from(sample.accepted)))),
        mean: value,
        low,
        high,
        chance: mean(&of(|sample| sample.chance)),
        quota_bias: is_drawn_again
            .then(|| best_of(u64::from(params.quota), params.actors as u64, params.share())),
    })
}

impl AttackParams {
    /// C / N.
    fn share(&self) -> f64 {
        self.colluding as f64 / self.nodes as f64
    }

    /// A·C/N.
    fn ideal(&self) -> f64 {
        self.actors as f64 * self.share()
    }

    /// So many of the adversary's nodes are in fewer than one list of a hundred by chance.
    fn many(&self) -> u64 {
        let actors = self.actors as u64;
        (1..=actors).find(|many| at_least(*many, actors, self.share()) < 0.01).unwrap_or(actors)
    }

    /// What a list with so many of the adversary's actors counts, and what it counts by chance.
    fn measured(&self, one: Attack, colluding: usize, accepted: bool) -> Sample {
        match one {
            Attack::CoLocated => Sample {
                value: f64::from(u8::from(colluding as u64 >= self.many())),
                chance: at_least(self.many(), self.actors as u64, self.share()),
                accepted,
            },
            _ => Sample { value: colluding as f64, chance: self.ideal(), accepted },
        }
    }
}

/// Who colludes: `certain` and as many others as make `count`, each set of them as likely as any other.
fn gang(certain: &[usize], count: u64, all: usize, rng: &mut dyn Rng) -> Vec<bool> {
    let mut is_in = vec![false; all];
    certain.iter().for_each(|one| is_in[*one] = true);
    let mut left = (count as usize).min(all).saturating_sub(is_in.iter().filter(|one| **one).count());
    while left > 0 {
        let one = rng.below(all as u64) as usize;
        left -= usize::from(!is_in[one]);
        is_in[one] = true;
    }
    is_in
}

/// A run of `count` out of `sorted`, which goes on at the beginning.
fn neighbours<T: Copy>(sorted: &[T], count: u64, rng: &mut dyn Rng) -> Vec<T> {
    let first = rng.below(sorted.len() as u64) as usize;
    sorted.iter().cycle().skip(first).take(count as usize).copied().collect()
}
