//! The three strategies that SEP2P is compared with (§4.1). All of them begin with the verifiable random of §3.4.

use kith_sansio::Rng;

use super::{Cache, Node, Place, Refusal, Rules, VerifiableRandom};
use crate::ktable::Arc;
use crate::scheme::{Hash, Scheme, Signature, hash};

/// A list that one node chose: ES.NAV and ES.AV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedList {
    /// The random value that names the setter.
    pub random: VerifiableRandom,
    /// The setter.
    pub setter: Node,
    /// Whom it chose.
    pub actors: Vec<Node>,
    /// Its signature over them.
    pub signature: Signature,
}

/// Whether the certificates of actors are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actors {
    /// ES.NAV: they are not.
    Unchecked,
    /// ES.AV: they are.
    Checked,
}

impl ServedList {
    /// What an honest setter answers: `actors` nodes at random out of its cache. Whoever is the setter may take others.
    pub fn new(
        rules: &Rules,
        scheme: &mut impl Scheme,
        (setter, cache): (Node, &impl Cache),
        (random, actors): (VerifiableRandom, usize),
        rng: &mut dyn Rng,
    ) -> ServedList {
        let mut known = cache.around(setter.place(), rules.candidates);
        let draw = |_| (!known.is_empty()).then(|| known.swap_remove(rng.below(known.len() as u64) as usize));
        let actors = (0..actors).map_while(draw).collect();
        ServedList::signed(scheme, setter, random, actors)
    }

    /// The list with these actors, signed by its setter.
    pub fn signed(
        scheme: &mut impl Scheme,
        setter: Node,
        random: VerifiableRandom,
        actors: Vec<Node>,
    ) -> ServedList {
        let signature = scheme.sign(&served(&random.value(), &actors));
        ServedList { random, setter, actors, signature }
    }

    /// Checks the random value (2k + 1 operations), the setter's certificate and signature (2), and for ES.AV the
    /// certificate of each actor (A).
    pub fn verify(&self, rules: &Rules, scheme: &mut impl Scheme, actors: Actors) -> Result<(), Refusal> {
        let random = self.random.verify(rules, scheme)?;
        let is_setter = targets(random).next().is_some_and(|at| near(rules).holds(at, self.setter.place()))
            && self.setter.is_genuine(scheme)
            && scheme.verify(self.setter.key(), &served(&random, &self.actors), &self.signature);
        if !is_setter {
            return Err(Refusal::Signer);
        }
        let are_checked =
            actors == Actors::Unchecked || self.actors.iter().all(|actor| actor.is_genuine(scheme));
        if are_checked { Ok(()) } else { Err(Refusal::Actor) }
    }
}

/// Actors that are near to the hashes of the random value: M.Hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedList {
    /// The random value.
    pub random: VerifiableRandom,
    /// The node found for each hash of it, in order.
    pub actors: Vec<Node>,
}

impl HashedList {
    /// Where the actors of `random` are looked up, over the DHT.
    pub fn targets(random: &VerifiableRandom, actors: usize) -> Vec<Place> {
        targets(random.value()).take(actors).collect()
    }

    /// Checks the random value (2k + 1 operations), and the place and certificate of each actor (A).
    pub fn verify(&self, rules: &Rules, scheme: &mut impl Scheme) -> Result<(), Refusal> {
        let random = self.random.verify(rules, scheme)?;
        let near = near(rules);
        let are_legitimate = (self.actors.iter().zip(targets(random)))
            .all(|(actor, target)| near.holds(target, actor.place()) && actor.is_genuine(scheme));
        if are_legitimate { Ok(()) } else { Err(Refusal::Actor) }
    }
}

/// The hash of the random value, the hash of that, and so on.
fn targets(random: Hash) -> impl Iterator<Item = Place> {
    let next = |value: &Hash| hash(b"sep2p setter", &[value]);
    std::iter::successors(Some(next(&random)), move |value| Some(next(value))).map(|value| Place::of(&value))
}

fn served(random: &Hash, actors: &[Node]) -> Hash {
    let keys: Vec<_> = actors.iter().map(|actor| *actor.key()).collect();
    hash(b"sep2p served", &[random, keys.as_flattened()])
}

/// The smallest arc that holds a node with probability 1 - α, around whatever place: what "sufficiently near" has to be
/// for every random value to be usable (§4.2).
pub fn near(rules: &Rules) -> Arc {
    let network = rules.table.network();
    // (1 - rs)^N = α
    let size = -(network.alpha().ln() / network.nodes() as f64).exp_m1();
    Arc::new(size).unwrap_or(Arc::WHOLE)
}
