//! The distributed selection of SEP2P §3.5: a setter passes messages between the builders of one region.

use std::collections::{BTreeMap, VecDeque};

use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::list::{insufficient, place, statement, verify_moves};
use super::random::{combined, drawn, told};
use super::{
    ActorList, Attestation, Cache, Disclosure, Input, Message, Node, Output, Refusal, Rules, VerifiableRandom,
};
use crate::gather::Gather;
use crate::scheme::{Hash, Scheme, Signature, hash};

/// What is to be selected: VRND_T, the number of actors, and the regions that were left because they held too few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The random value.
    pub random: VerifiableRandom,
    /// A, how many actors are wanted.
    pub actors: usize,
    /// Who attested that a region held too few, region by region.
    pub moves: Vec<Vec<Attestation>>,
}

impl Order {
    /// Where the builders are: around the hash of the random value, hashed once more for each move.
    pub fn place(&self) -> super::Place {
        place(&self.random.value(), self.moves.len())
    }
}

impl Disclosure {
    fn commitment(&self) -> Hash {
        let keys: Vec<_> = self.candidates.iter().map(|node| *node.key()).collect();
        hash(b"sep2p candidates", &[&self.random, keys.as_flattened()])
    }
}

/// S: manages the place of an order, and passes messages between its builders.
#[derive(Debug)]
pub struct Setter {
    order: Order,
    builders: Vec<Node>,
    state: Setting,
    deadline: Time,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Setting {
    Commits(Gather<Node, Hash>),
    Candidates(Gather<Node, Disclosure>),
    Signatures(Gather<Node, (Option<Vec<Node>>, Signature)>),
    Over,
}

impl Setter {
    /// Asks the fewest builders that the k-table allows around the order's place, all but `me`.
    pub fn new(
        rules: &Rules,
        me: &Node,
        cache: &impl Cache,
        order: Order,
        now: Now,
    ) -> Result<Setter, Refusal> {
        let builders = rules.deciders(cache, order.place(), me).ok_or(Refusal::Sparse)?;
        let outputs = told(&builders, &Message::Build(Box::new(order.clone()))).collect();
        let state = Setting::Commits(Gather::from(builders.clone()));
        let deadline = now.time + Span::secs(rules.max_age_secs);
        Ok(Setter { order, builders, state, deadline, outputs })
    }

    fn heard(&mut self, from: &Node, message: Message) {
        match (&mut self.state, message) {
            (Setting::Commits(gather), Message::Commit(commit)) => {
                let Some(commits) = gather.put(from, commit) else { return };
                self.pass(&Message::Commits(commits));
                self.state = Setting::Candidates(Gather::from(self.builders.clone()));
            }
            (Setting::Candidates(gather), Message::Candidates(candidates)) => {
                let Some(all) = gather.put(from, candidates) else { return };
                self.pass(&Message::Disclosed(all));
                self.state = Setting::Signatures(Gather::from(self.builders.clone()));
            }
            (Setting::Signatures(gather), Message::Signed { actors, signature }) => {
                let all = gather.put(from, (Some(actors), signature));
                self.finish(all);
            }
            (Setting::Signatures(gather), Message::Insufficient(signature)) => {
                let all = gather.put(from, (None, signature));
                self.finish(all);
            }
            _ => {}
        }
    }

    fn pass(&mut self, message: &Message) {
        self.outputs.extend(told(&self.builders, message));
    }

    /// Step 9, once all have answered: a list if all signed the same one, a move if all found too few.
    fn finish(&mut self, all: Option<Vec<(Option<Vec<Node>>, Signature)>>) {
        let Some(all) = all else { return };
        let agreed = all.windows(2).all(|two| two[0].0 == two[1].0);
        let actors = all.first().and_then(|(actors, _)| actors.clone());
        let signatures = all.into_iter().map(|(_, signature)| signature);
        let attestations: Vec<_> = self
            .builders
            .iter()
            .zip(signatures)
            .map(|(builder, signature)| Attestation { builder: *builder, signature })
            .collect();
        self.state = Setting::Over;
        self.outputs.push_back(match actors {
            _ if !agreed => Output::Refused(Refusal::Broken),
            Some(actors) => Output::Selected(ActorList {
                random: self.order.random.value(),
                at: self.order.random.at,
                moves: self.order.moves.clone(),
                actors,
                attestations,
            }),
            None => {
                let mut order = self.order.clone();
                order.moves.push(attestations);
                Output::Route { to: order.place(), order }
            }
        });
    }
}

impl Machine for Setter {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, _: Now, input: Input, _: &mut dyn Rng) {
        if let Input::Heard { from, message } = input {
            self.heard(&from, message);
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now.time) {
            self.state = Setting::Over;
            self.outputs.push_back(Output::Refused(Refusal::Silence));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        (!matches!(self.state, Setting::Over)).then_some(self.deadline)
    }
}

/// SL: selects, together with the others of its region, and signs.
#[derive(Debug)]
pub struct Builder<'a, C, S> {
    rules: &'a Rules,
    cache: &'a C,
    /// Signs for the builder.
    pub scheme: S,
    state: Building,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Building {
    Idle,
    /// What it committed to, and the hash of that.
    Committed(Node, Order, Disclosure, Hash),
    Disclosing(Node, Order, Vec<Hash>),
    Probing(Ranking),
    Over,
}

/// Candidates in the order in which they are taken, as far as they are known to be there.
#[derive(Debug)]
struct Ranking {
    setter: Node,
    order: Order,
    /// The rest of CL, the last one next, with how many builders know each.
    rest: Vec<(Node, usize)>,
    builders: usize,
    probed: Vec<(Node, usize)>,
    taken: Vec<(Node, usize)>,
}

impl<'a, C: Cache, S: Scheme> Builder<'a, C, S> {
    /// A builder that nobody has asked yet.
    pub fn new(rules: &'a Rules, cache: &'a C, scheme: S) -> Self {
        Builder { rules, cache, scheme, state: Building::Idle, outputs: VecDeque::new() }
    }

    fn heard(&mut self, from: Node, message: Message, now: Now, rng: &mut dyn Rng) -> Result<(), Refusal> {
        match (std::mem::replace(&mut self.state, Building::Over), message) {
            (Building::Idle, Message::Build(order)) => {
                let candidates = self.cache.around(order.place(), self.rules.candidates);
                let own = Disclosure { random: drawn(rng), candidates };
                let commitment = own.commitment();
                self.say(from, Message::Commit(commitment));
                self.state = Building::Committed(from, *order, own, commitment);
                Ok(())
            }
            (Building::Committed(setter, order, own, commitment), Message::Commits(commits))
                if setter == from =>
            {
                if !commits.contains(&commitment) {
                    return Err(Refusal::NotCommitted);
                }
                self.say(from, Message::Candidates(own));
                self.state = Building::Disclosing(setter, order, commits);
                Ok(())
            }
            (Building::Disclosing(setter, order, commits), Message::Disclosed(all)) if setter == from => {
                self.check(&order, &commits, &all, now)?;
                let ranking = Ranking::new(setter, order, &all);
                self.go_on(ranking)
            }
            _ => Err(Refusal::NotCommitted),
        }
    }

    fn say(&mut self, to: Node, message: Message) {
        self.outputs.push_back(Output::Send { to, message });
    }

    /// Steps 8.a and 8.b: the random value and what was committed to.
    fn check(
        &mut self,
        order: &Order,
        commits: &[Hash],
        all: &[Disclosure],
        now: Now,
    ) -> Result<(), Refusal> {
        let random = order.random.verify(self.rules, &mut self.scheme)?;
        let at = order.random.at;
        let age = now.utc.secs_since(at).max(at.secs_since(now.utc));
        if age > self.rules.max_age_secs {
            return Err(Refusal::Expired);
        }
        verify_moves(self.rules, &mut self.scheme, &random, at, &order.moves)?;
        let is_kept = all.iter().map(Disclosure::commitment).eq(commits.iter().copied());
        if is_kept { Ok(()) } else { Err(Refusal::Broken) }
    }

    /// Steps 8.c to 8.e: asks as many candidates as are missing whether they are there, until there are enough or none is
    /// left.
    fn go_on(&mut self, mut ranking: Ranking) -> Result<(), Refusal> {
        let missing = ranking.order.actors - ranking.taken.len();
        if missing == 0 {
            return self.sign(ranking);
        }
        if ranking.rest.len() < missing {
            let (random, moves) = (ranking.order.random.value(), ranking.order.moves.len());
            let signature = self.scheme.sign(&insufficient(&random, ranking.order.random.at, moves));
            self.say(ranking.setter, Message::Insufficient(signature));
            return Ok(());
        }
        ranking.probed = ranking.rest.split_off(ranking.rest.len() - missing);
        ranking.probed.reverse();
        self.outputs.push_back(Output::Probe(ranking.probed.iter().map(|(node, _)| *node).collect()));
        self.state = Building::Probing(ranking);
        Ok(())
    }

    /// Steps 8.f and 8.g: whoever is known to all builders is known to an honest one; the others show their certificate.
    fn sign(&mut self, ranking: Ranking) -> Result<(), Refusal> {
        let Ranking { setter, order, builders, taken, .. } = ranking;
        let (region, place) = (self.rules.candidates, order.place());
        let scheme = &mut self.scheme;
        let are_legitimate = taken.iter().all(|(actor, known)| {
            region.holds(place, actor.place()) && (*known == builders || actor.is_genuine(scheme))
        });
        if !are_legitimate {
            return Err(Refusal::Actor);
        }
        let actors: Vec<_> = taken.into_iter().map(|(actor, _)| actor).collect();
        let signature = self.scheme.sign(&statement(&order.random.value(), order.random.at, &actors));
        self.say(setter, Message::Signed { actors, signature });
        Ok(())
    }

    fn answered(&mut self, alive: &[Node]) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.state, Building::Over) {
            Building::Probing(mut ranking) => {
                let there = ranking.probed.drain(..).filter(|(node, _)| alive.contains(node));
                ranking.taken.extend(there);
                self.go_on(ranking)
            }
            other => {
                self.state = other;
                Ok(())
            }
        }
    }
}

impl Ranking {
    /// The union of all candidates by their key ⊕ RND_S.
    fn new(setter: Node, order: Order, all: &[Disclosure]) -> Ranking {
        let random = combined(all.iter().map(|one| &one.random));
        let mut known: BTreeMap<Node, usize> = BTreeMap::new();
        for node in all.iter().flat_map(|one| &one.candidates) {
            *known.entry(*node).or_default() += 1;
        }
        let mut rest: Vec<_> = known.into_iter().collect();
        rest.sort_by_cached_key(|(node, _)| std::cmp::Reverse(combined([&random, node.key()].into_iter())));
        Ranking { setter, order, rest, builders: all.len(), probed: Vec::new(), taken: Vec::new() }
    }
}

impl<C: Cache, S: Scheme> Machine for Builder<'_, C, S> {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        let done = match input {
            Input::Heard { from, message } => self.heard(from, message, now, rng),
            Input::Alive(alive) => self.answered(&alive),
        };
        if let Err(refusal) = done {
            self.outputs.push_back(Output::Refused(refusal));
        }
    }

    fn handle_timeout(&mut self, _: Now, _: &mut dyn Rng) {}

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        None
    }
}
