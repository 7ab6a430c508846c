//! One selection by each of the strategies of SEP2P §4.1, between the real machines.

use kith_actors::paper::baseline::{Actors, HashedList, ServedList, near};
use kith_actors::paper::{
    Builder, Cache, Node, Order, Output, Place, Refusal, Rules, Setter, Trigger, VerifiableRandom, Witness,
};
use kith_actors::scheme::{Counting, Hash, Pretended};
use kith_sansio::Rng;

use crate::aims::Aimed;
use crate::ring::{Ring, View};
use crate::talk::{Cost, NOW, opening, talk};

/// How a selection may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Strategy {
    /// SEP2P §3.5.
    #[serde(rename = "SEP2P")]
    Sep2p,
    /// The setter chooses, and nobody checks the actors.
    #[serde(rename = "ES.NAV")]
    EsNav,
    /// The setter chooses, and the actors' certificates are checked.
    #[serde(rename = "ES.AV")]
    EsAv,
    /// Each actor is found by one more hash.
    #[serde(rename = "M.Hash")]
    MHash,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Strategy; 4] = [Strategy::Sep2p, Strategy::EsNav, Strategy::EsAv, Strategy::MHash];

    /// Its name in the paper.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Sep2p => "SEP2P",
            Strategy::EsNav => "ES.NAV",
            Strategy::EsAv => "ES.AV",
            Strategy::MHash => "M.Hash",
        }
    }
}

/// What came of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Actors that collude.
    pub(crate) colluding: u64,
    /// Asymmetric operations of whoever checks the list.
    pub(crate) verification: u64,
    /// What it took to make the list.
    pub(crate) setup: Cost,
    /// Regions that were left.
    pub(crate) moves: u64,
}

/// After so many moves a selection is given up: the caches are too small.
pub(crate) const MAX_MOVES: usize = 32;

/// A network in which selections are made.
#[derive(Debug)]
pub(crate) struct Town<'a> {
    ring: &'a Ring,
    rules: &'a Rules,
    /// A, how many actors are selected.
    actors: usize,
    /// Who colludes and plays the strongest attack on each strategy, by index; none where all are honest.
    colluding: Option<&'a [bool]>,
    /// As many of those who collude as can be of use.
    accomplices: Vec<Node>,
}

impl<'a> Town<'a> {
    pub(crate) fn new(
        ring: &'a Ring,
        rules: &'a Rules,
        actors: usize,
        colluding: Option<&'a [bool]>,
    ) -> Town<'a> {
        let all = ring.nodes().iter().zip(colluding.unwrap_or_default());
        let accomplices =
            all.filter(|(_, colludes)| **colludes).map(|(node, _)| *node).take(actors).collect();
        Town { ring, rules, actors, colluding, accomplices }
    }

    /// Any node.
    pub(crate) fn trigger(&self, rng: &mut dyn Rng) -> Node {
        let nodes = self.ring.nodes();
        nodes[rng.below(nodes.len() as u64) as usize]
    }

    /// The verifiable random value of a trigger, which is `aim` where there is one, and what it took.
    pub(crate) fn random(
        &self,
        trigger: Node,
        aim: Option<Hash>,
        rng: &mut dyn Rng,
    ) -> Result<(VerifiableRandom, Cost), Refusal> {
        let mut cost = Cost::default();
        let mut asking = Trigger::new(self.rules, trigger, &self.view(&trigger), NOW)?;
        let opening = opening(&mut asking);
        let views: Vec<_> = opening.iter().map(|(node, _)| (*node, self.view(node))).collect();
        let witnesses =
            views.iter().map(|(node, view)| (*node, Witness::new(self.rules, view, scheme(node))));
        let mut aimed = aim.map(|missing| Aimed { rng: &mut *rng, left: views.len(), missing });
        let rng: &mut dyn Rng = match &mut aimed {
            Some(aimed) => aimed,
            None => rng,
        };
        match talk((asking, trigger, opening), witnesses, &mut cost, rng) {
            Some(Output::Random(random)) => Ok((random, cost)),
            Some(Output::Refused(refusal)) => Err(refusal),
            _ => Err(Refusal::Silence),
        }
    }

    /// The actors that a strategy draws out of a random value that took `cost`.
    pub(crate) fn select(
        &self,
        strategy: Strategy,
        random: &VerifiableRandom,
        cost: Cost,
        rng: &mut dyn Rng,
    ) -> Result<Outcome, Refusal> {
        match strategy {
            Strategy::Sep2p => self.built(random.clone(), cost, rng),
            Strategy::EsNav => self.served(random.clone(), cost, Actors::Unchecked, rng),
            Strategy::EsAv => self.served(random.clone(), cost, Actors::Checked, rng),
            Strategy::MHash => self.hashed(random.clone(), cost),
        }
    }

    fn built(&self, random: VerifiableRandom, mut cost: Cost, rng: &mut dyn Rng) -> Result<Outcome, Refusal> {
        let mut at = random.trigger;
        let mut order = Order { random, actors: self.actors, moves: Vec::new() };
        loop {
            let setter = self.ring.at(order.place());
            cost.pass(self.ring.hops(&at, &setter));
            match self.build(setter, order, &mut cost, rng)? {
                Output::Selected(list) => {
                    let verification = counted(|checker| list.verify(self.rules, checker))?;
                    let moves = list.moves.len() as u64;
                    return Ok(Outcome { moves, ..self.outcome(&list.actors, verification, cost) });
                }
                Output::Route { order: moved, .. } if moved.moves.len() <= MAX_MOVES => {
                    (at, order) = (setter, moved);
                }
                Output::Refused(refusal) => return Err(refusal),
                _ => return Err(Refusal::Sparse),
            }
        }
    }

    /// One setter with its builders. Of these, whoever colludes hides all honest candidates.
    fn build(
        &self,
        setter: Node,
        order: Order,
        cost: &mut Cost,
        rng: &mut dyn Rng,
    ) -> Result<Output, Refusal> {
        let mut setting = Setter::new(self.rules, &setter, &self.view(&setter), order, NOW)?;
        let opening = opening(&mut setting);
        let view =
            |node: &Node| View { only: self.colluding.filter(|_| self.colludes(node)), ..self.view(node) };
        let views: Vec<_> = opening.iter().map(|(node, _)| (*node, view(node))).collect();
        let builders = views.iter().map(|(node, view)| (*node, Builder::new(self.rules, view, scheme(node))));
        talk((setting, setter, opening), builders, cost, rng).ok_or(Refusal::Silence)
    }

    /// The setter chooses. Where an accomplice is near enough to claim to be it, the actors are accomplices and, as far
    /// as nobody checks them, inventions.
    fn served(
        &self,
        random: VerifiableRandom,
        mut cost: Cost,
        check: Actors,
        rng: &mut dyn Rng,
    ) -> Result<Outcome, Refusal> {
        let place = HashedList::targets(&random, 1)[0];
        let liar = self.liar(place);
        let setter = liar.unwrap_or_else(|| self.ring.at(place));
        cost.pass(self.ring.hops(&random.trigger, &setter));
        let (mut scheme, view) = (scheme(&setter), self.view(&setter));
        let list = if liar.is_some() {
            let honest =
                view.around(place, self.rules.candidates).into_iter().filter(|node| !self.colludes(node));
            let invented = (1..=self.actors as u64).map(invented);
            let rest: Vec<_> = if check == Actors::Checked { honest.collect() } else { invented.collect() };
            let actors = self.accomplices.iter().copied().chain(rest).take(self.actors).collect();
            ServedList::signed(&mut scheme, setter, random, actors)
        } else {
            ServedList::new(self.rules, &mut scheme, (setter, &view), (random, self.actors), rng)
        };
        cost.operate(scheme.operations.total());
        let verification = counted(|checker| list.verify(self.rules, checker, check))?;
        Ok(self.outcome(&list.actors, verification, cost))
    }

    /// Each actor is the node nearest to one hash, or an accomplice that is near enough.
    fn hashed(&self, random: VerifiableRandom, mut cost: Cost) -> Result<Outcome, Refusal> {
        let found = |place| self.liar(place).unwrap_or_else(|| self.ring.at(place));
        let actors: Vec<_> = HashedList::targets(&random, self.actors).into_iter().map(found).collect();
        let hops: Vec<_> = actors.iter().map(|actor| self.ring.hops(&random.trigger, actor)).collect();
        cost.total.messages += hops.iter().sum::<u64>();
        cost.latency.messages += hops.iter().max().copied().unwrap_or(0);
        let list = HashedList { random, actors };
        let verification = counted(|checker| list.verify(self.rules, checker))?;
        Ok(self.outcome(&list.actors, verification, cost))
    }

    fn outcome(&self, actors: &[Node], verification: u64, setup: Cost) -> Outcome {
        let colluding = actors.iter().filter(|actor| self.colludes(actor)).count() as u64;
        Outcome { colluding, verification, setup, moves: 0 }
    }

    /// What a node knows of its neighbours.
    fn view(&self, node: &Node) -> View<'_> {
        View { ring: self.ring, owner: node.place(), reach: self.rules.candidates, only: None }
    }

    /// Whether a node colludes; whoever is invented does.
    fn colludes(&self, node: &Node) -> bool {
        let Some(colluding) = self.colluding else { return false };
        self.ring.index(node).is_none_or(|index| colluding[index])
    }

    /// One that colludes and passes for the manager of a place.
    fn liar(&self, place: Place) -> Option<Node> {
        let colluding = self.colluding?;
        let mut near = self.ring.numbered(place, near(self.rules));
        near.find(|(index, _)| colluding[*index]).map(|(_, node)| *node)
    }
}

fn scheme(node: &Node) -> Counting<Pretended> {
    Counting::new(Pretended(*node.key()))
}

/// How many operations a check takes.
fn counted<T>(check: impl FnOnce(&mut Counting<Pretended>) -> Result<T, Refusal>) -> Result<u64, Refusal> {
    let mut checker = Counting::new(Pretended([0; 32]));
    check(&mut checker)?;
    Ok(checker.operations.total())
}

/// A node that nobody certified.
fn invented(number: u64) -> Node {
    let mut key = [0xff; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    Node::new(key, [0; 64])
}
