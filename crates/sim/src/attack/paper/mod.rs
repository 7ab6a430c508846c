//! A network of the paper, and how its machines are spoken with by whoever deviates.

mod plots;

use std::collections::BTreeMap;

use kith_actors::ktable::{Arc, KTable, Network, Region};
use kith_actors::paper::{
    ActorList, Builder, Input, Message, Node, Order, Output, Place, Rules, Setter, Share, Trigger,
    VerifiableRandom, Witness,
};
use kith_actors::scheme::{Hash, Pretended, Scheme};
use kith_sansio::{Machine, Rng, SeededRng};

use super::{Attack, AttackParams};
use crate::SimError;
use crate::ring::{Ring, View};
use crate::run::{Purpose, chance, drawn};
use crate::talk::{NOW, opening};

/// How many values the adversary looks at where it may choose one.
const VALUES: usize = 1_000;

/// After so many moves a selection is given up.
const MAX_MOVES: usize = 32;

/// All nodes, and what they agree on.
pub(super) struct Town<'a> {
    params: &'a AttackParams,
    ring: Ring,
    rules: Rules,
    /// Who is in the network now; the others were revoked.
    is_live: Vec<bool>,
}

/// Whom a node tells of, by index; of everybody who is in the network where there are none.
type Told<'a> = Option<&'a [bool]>;

impl<'a> Town<'a> {
    pub(super) fn new(params: &'a AttackParams, attack: Attack) -> Result<Town<'a>, SimError> {
        let AttackParams { nodes, colluding, seed, .. } = *params;
        let table = KTable::exact(Network::new(nodes, colluding, params.alpha)?)?;
        let deciders = table.rows().last().map_or(0.0, |row| row.region.size());
        let cache = params.cache.unwrap_or(attack.usual_cache()).min(nodes) as f64 / nodes as f64;
        let candidates = Arc::new(deciders.max(cache)).unwrap_or(Arc::WHOLE);
        let rules = Rules { table, candidates, max_age_secs: 60 };
        let revoked = if attack == Attack::Dead { colluding } else { 0 };
        let is_gone = drawn(revoked, nodes + revoked, &mut chance(seed, Purpose::Colluders, 0));
        let is_live = is_gone.into_iter().map(|gone| !gone).collect();
        Ok(Town { params, ring: Ring::new(nodes + revoked, seed, 0), rules, is_live })
    }

    /// Any node.
    fn somebody(&self, rng: &mut dyn Rng) -> usize {
        loop {
            let index = rng.below(self.is_live.len() as u64) as usize;
            if self.is_live[index] {
                return index;
            }
        }
    }

    fn index(&self, node: &Node) -> Option<usize> {
        self.ring.index(node)
    }

    fn view<'b>(&'b self, node: &Node, told: Told<'b>) -> View<'b> {
        let only = Some(told.unwrap_or(&self.is_live));
        View { ring: &self.ring, owner: node.place(), reach: self.rules.candidates, only }
    }

    /// The random value of a trigger between honest nodes.
    fn draw(&self, trigger: Node, rng: &mut dyn Rng) -> Option<VerifiableRandom> {
        self.draw_with(trigger, &mut Vec::new(), None, rng)
    }

    /// The random value of a trigger. Whoever is among `scripts` is an accomplice that gives the number written there, and
    /// repeats what an honest witness says where none is. They tell each other of nobody but `told`.
    fn draw_with(
        &self,
        trigger: Node,
        scripts: &mut [(Node, Option<Hash>)],
        told: Told<'_>,
        rng: &mut dyn Rng,
    ) -> Option<VerifiableRandom> {
        let mut asking = Trigger::new(&self.rules, trigger, &self.view(&trigger, told), NOW).ok()?;
        let opening = opening(&mut asking);
        let views: Vec<_> = opening.iter().map(|(node, _)| (*node, self.view(node, told))).collect();
        let witness = |(node, view)| (node, Witness::new(&self.rules, view, Pretended(*Node::key(&node))));
        let mut witnesses: BTreeMap<_, _> = views.iter().map(|(node, view)| witness((*node, view))).collect();
        let mut heard = None;
        let answer = |to: &Node, message: Message| {
            let script = scripts.iter().find(|(node, _)| node == to).map(|(_, number)| *number);
            if let Some(None) = script {
                return echo(to, &message, heard.as_ref()?);
            }
            let machine = witnesses.get_mut(to)?;
            match script.flatten() {
                Some(number) => answer(machine, trigger, message, &mut Script(number)),
                None => {
                    let said = answer(machine, trigger, message, rng)?;
                    heard = Some(said.clone());
                    Some(said)
                }
            }
        };
        let is_late = |node: &Node| scripts.iter().any(|(one, number)| one == node && number.is_none());
        let late: Vec<_> = opening.iter().map(|(node, _)| *node).filter(is_late).collect();
        match converse((asking, trigger, opening), &late, answer)? {
            Output::Random(random) => Some(random),
            _ => None,
        }
    }

    /// The random value of which the trigger is the only witness.
    fn draw_alone(&self, trigger: Node, random: Hash) -> VerifiableRandom {
        let statement = VerifiableRandom::statement(NOW.utc, &[VerifiableRandom::commitment(&random)]);
        let signature = Pretended(*trigger.key()).sign(&statement);
        VerifiableRandom { trigger, at: NOW.utc, shares: vec![Share { witness: trigger, random, signature }] }
    }

    /// Where a value selects.
    fn place(&self, random: Hash) -> Place {
        let random = self.draw_alone(self.ring.nodes()[0], random);
        self.order(random).place()
    }

    fn order(&self, random: VerifiableRandom) -> Order {
        Order { random, actors: self.params.actors, moves: Vec::new() }
    }

    /// The list of an order between honest builders, wherever it is moved. The trigger passes the messages: who did is
    /// nothing that a list says.
    fn select(&self, random: &VerifiableRandom, rng: &mut dyn Rng) -> Option<ActorList> {
        let mut order = self.order(random.clone());
        loop {
            match self.build(order, None, |_| None, rng)? {
                Output::Selected(list) => return Some(list),
                Output::Route { order: moved, .. } if moved.moves.len() <= MAX_MOVES => order = moved,
                _ => return None,
            }
        }
    }

    /// One setter that looks for builders among `eligible`, each of whom tells of those that `told` says.
    fn build<'b>(
        &'b self,
        order: Order,
        eligible: Told<'b>,
        told: impl Fn(&Node) -> Told<'b>,
        rng: &mut dyn Rng,
    ) -> Option<Output> {
        let me = order.random.trigger;
        let place = self.ring.at(order.place());
        let mut setting = Setter::new(&self.rules, &me, &self.view(&place, eligible), order, NOW).ok()?;
        let opening = opening(&mut setting);
        let views: Vec<_> = opening.iter().map(|(node, _)| (*node, self.view(node, told(node)))).collect();
        let mut builders: BTreeMap<Node, _> = views
            .iter()
            .map(|(node, view)| (*node, Builder::new(&self.rules, view, Pretended(*node.key()))))
            .collect();
        converse((setting, me, opening), &[], |to, message| answer(builders.get_mut(to)?, me, message, rng))
    }

    /// Those `among` the nodes that may decide around a place, the nearest first, and how many of them do.
    fn deciders(&self, place: Place, without: &Node, among: &[bool]) -> Option<(Vec<Node>, usize)> {
        let within = |arc: Arc| {
            let is_among = |node: &&Node| self.index(node).is_some_and(|index| among[index]);
            let all = self.ring.within(place, arc).filter(is_among);
            let mut nodes: Vec<_> = all.filter(|node| *node != without).copied().collect();
            nodes.sort_by_key(|node| place.distance(node.place()));
            nodes
        };
        let row = self.rules.table.first(|arc| within(arc).len() as u64)?;
        Some((within(row.region), row.k as usize))
    }

    /// Everybody of an arc who is in the network.
    fn around(&self, place: Place, arc: Arc) -> impl Iterator<Item = &Node> {
        let is_live = |node: &&Node| self.index(node).is_some_and(|index| self.is_live[index]);
        self.ring.within(place, arc).filter(is_live)
    }
}

/// Gives one number, again and again.
struct Script(Hash);

impl Rng for Script {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().zip(self.0.iter().cycle()).for_each(|(byte, number)| *byte = *number);
    }
}

/// What an accomplice says that repeats the hash, and then the number, that an honest witness has said.
fn echo(me: &Node, asked: &Message, heard: &Message) -> Option<Message> {
    match (asked, heard) {
        (Message::Ask { .. }, Message::Commit(commit)) => Some(Message::Commit(*commit)),
        (Message::Commits(commits), Message::Reveal { random, .. }) => {
            let statement = VerifiableRandom::statement(NOW.utc, commits);
            Some(Message::Reveal { random: *random, signature: Pretended(*me.key()).sign(&statement) })
        }
        _ => None,
    }
}

/// What a witness or a builder answers; none where it refuses. Nobody is absent.
fn answer(
    machine: &mut impl Machine<Input = Input, Output = Output>,
    from: Node,
    message: Message,
    rng: &mut dyn Rng,
) -> Option<Message> {
    machine.handle_input(NOW, Input::Heard { from, message }, rng);
    loop {
        match machine.poll_output()? {
            Output::Send { message, .. } => return Some(message),
            Output::Probe(nodes) => machine.handle_input(NOW, Input::Alive(nodes), rng),
            _ => return None,
        }
    }
}

/// Carries messages between one node and others until the one has a result; none where somebody refuses to go on. Who is
/// `late` is told after the others.
fn converse(
    (mut one, me, mut said): (impl Machine<Input = Input, Output = Output>, Node, Vec<(Node, Message)>),
    late: &[Node],
    mut answer: impl FnMut(&Node, Message) -> Option<Message>,
) -> Option<Output> {
    // Neither a trigger nor a setter draws anything.
    let mut rng = SeededRng::new(0);
    while !said.is_empty() {
        said.sort_by_key(|(to, _)| late.contains(to));
        for (from, message) in std::mem::take(&mut said) {
            debug_assert_ne!(from, me);
            let message = answer(&from, message)?;
            one.handle_input(NOW, Input::Heard { from, message }, &mut rng);
        }
        while let Some(output) = one.poll_output() {
            let Output::Send { to, message } = output else { return Some(output) };
            said.push((to, message));
        }
    }
    None
}
