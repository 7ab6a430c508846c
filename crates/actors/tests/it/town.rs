//! A network of the paper in one thread: every message is carried and counted.

use std::collections::{BTreeMap, VecDeque};

use kith_actors::ktable::{Arc, KTable, Network};
use kith_actors::paper::{
    ActorList, Builder, Cache, Input, Message, Node, Order, Output, Place, Refusal, Rules, Setter, Trigger,
    VerifiableRandom, Witness,
};
use kith_actors::scheme::{Counting, Operations, Scheme};
use kith_sansio::{Machine, Now, Rng, SeededRng, Time, Timestamp};

pub(crate) const NOW: Now = Now { time: Time(0), utc: Timestamp(1_800_000_000) };

pub(crate) struct Town<S> {
    pub(crate) rules: Rules,
    pub(crate) nodes: Vec<(Node, S)>,
    pub(crate) dead: Vec<Node>,
    /// What everybody says may be changed on its way.
    pub(crate) tamper: fn(&Node, &mut Message),
}

/// The nodes within R3 of one of them.
pub(crate) struct View<'a> {
    place: Place,
    reach: Arc,
    nodes: Vec<&'a Node>,
}

impl Cache for View<'_> {
    fn around(&self, center: Place, arc: Arc) -> Vec<Node> {
        let known = self.nodes.iter().filter(|node| self.reach.holds(self.place, node.place()));
        let mut nodes: Vec<_> =
            known.filter(|node| arc.holds(center, node.place())).map(|node| **node).collect();
        nodes.sort_by_key(|node| center.distance(node.place()));
        nodes
    }
}

/// What a conversation cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) messages: usize,
    pub(crate) operations: Operations,
}

impl<S: Scheme + Clone> Town<S> {
    /// A network with 1 % colluding, α = 1e-6, and caches of `cache` nodes on average.
    pub(crate) fn new(nodes: Vec<(Node, S)>, cache: f64) -> Town<S> {
        let count = nodes.len() as u64;
        let rules = Rules {
            table: KTable::exact(Network::new(count, count / 100, 1e-6).unwrap()).unwrap(),
            candidates: Arc::new(cache / count as f64).unwrap(),
            max_age_secs: 60,
        };
        Town { rules, nodes, dead: Vec::new(), tamper: |_, _| {} }
    }

    pub(crate) fn view(&self, node: &Node) -> View<'_> {
        View {
            place: node.place(),
            reach: self.rules.candidates,
            nodes: self.nodes.iter().map(|(n, _)| n).collect(),
        }
    }

    fn scheme(&self, node: &Node) -> Counting<S> {
        Counting::new(self.nodes.iter().find(|(other, _)| other == node).unwrap().1.clone())
    }

    /// The node that manages a place, as a lookup in the DHT would find it.
    pub(crate) fn at(&self, place: Place) -> Node {
        self.nodes.iter().map(|(node, _)| *node).min_by_key(|node| place.distance(node.place())).unwrap()
    }

    pub(crate) fn random(&self, trigger: Node, seed: u64) -> Result<(VerifiableRandom, Cost), Refusal> {
        let view = self.view(&trigger);
        let asking = Trigger::new(&self.rules, trigger, &view, NOW)?;
        let views: Vec<_> = self.nodes.iter().map(|(node, _)| self.view(node)).collect();
        let others = self
            .nodes
            .iter()
            .zip(&views)
            .map(|((node, _), view)| (*node, Witness::new(&self.rules, view, self.scheme(node))));
        let (output, mut others, mut cost) = self.talk(asking, trigger, others.collect(), seed);
        others.values_mut().for_each(|witness| add(&mut cost, witness.scheme.operations));
        match output {
            Output::Random(random) => Ok((random, cost)),
            Output::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Selects, and moves where a region has too few candidates; also counts the moves.
    pub(crate) fn select(
        &self,
        random: VerifiableRandom,
        actors: usize,
        seed: u64,
    ) -> Result<(ActorList, Cost), Refusal> {
        let mut order = Order { random, actors, moves: Vec::new() };
        let mut total = Cost::default();
        let views: Vec<_> = self.nodes.iter().map(|(node, _)| self.view(node)).collect();
        loop {
            let setter = self.at(order.place());
            let setting = Setter::new(&self.rules, &setter, &self.view(&setter), order, NOW)?;
            let others = self
                .nodes
                .iter()
                .zip(&views)
                .map(|((node, _), view)| (*node, Builder::new(&self.rules, view, self.scheme(node))));
            let (output, others, cost) = self.talk(setting, setter, others.collect(), seed);
            total.messages += cost.messages;
            others.values().for_each(|builder| add(&mut total, builder.scheme.operations));
            match output {
                Output::Selected(list) => return Ok((list, total)),
                Output::Route { order: moved, .. } => order = moved,
                Output::Refused(refusal) => return Err(refusal),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Carries messages between one node and others until the one has its result, or somebody refuses to go on.
    fn talk<A, B>(
        &self,
        mut one: A,
        me: Node,
        mut others: BTreeMap<Node, B>,
        seed: u64,
    ) -> (Output, BTreeMap<Node, B>, Cost)
    where
        A: Machine<Input = Input, Output = Output>,
        B: Machine<Input = Input, Output = Output>,
    {
        let mut rng = SeededRng::new(seed);
        let mut cost = Cost::default();
        let mut under_way = VecDeque::new();
        loop {
            while let Some(output) = one.poll_output() {
                let Output::Send { to, mut message } = output else { return (output, others, cost) };
                (self.tamper)(&me, &mut message);
                under_way.push_back((to, message));
            }
            let Some((to, message)) = under_way.pop_front() else {
                let late = Now { time: Time(u64::MAX), ..NOW };
                one.handle_timeout(late, &mut rng);
                return (one.poll_output().unwrap(), others, cost);
            };
            cost.messages += 1;
            let other = others.get_mut(&to).unwrap();
            other.handle_input(NOW, Input::Heard { from: me, message }, &mut rng);
            while let Some(output) = other.poll_output() {
                match output {
                    Output::Send { mut message, .. } => {
                        cost.messages += 1;
                        (self.tamper)(&to, &mut message);
                        one.handle_input(NOW, Input::Heard { from: to, message }, &mut rng);
                    }
                    Output::Probe(nodes) => {
                        cost.messages += 2 * nodes.len();
                        let alive = nodes.into_iter().filter(|node| !self.dead.contains(node)).collect();
                        other.handle_input(NOW, Input::Alive(alive), &mut rng);
                    }
                    refused => return (refused, others, cost),
                }
            }
        }
    }
}

fn add(cost: &mut Cost, operations: Operations) {
    cost.operations.signed += operations.signed;
    cost.operations.verified += operations.verified;
    cost.operations.certificates += operations.certificates;
}

/// So many key pairs of Ed25519, always the same.
pub(crate) fn keys(count: usize) -> Vec<ed25519_dalek::SigningKey> {
    let mut rng = SeededRng::new(7);
    let key = |_| {
        let mut secret = [0; 32];
        rng.fill(&mut secret);
        ed25519_dalek::SigningKey::from_bytes(&secret)
    };
    (0..count).map(key).collect()
}
