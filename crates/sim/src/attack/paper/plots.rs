//! What the adversary does in each attack on the paper's protocol.

use kith_actors::ktable::{Arc, Region};
use kith_actors::paper::{ActorList, Attestation, Node, Output, Place, VerifiableRandom};
use kith_actors::scheme::{Hash, Pretended, Scheme};
use kith_sansio::Rng;

use super::{Town, VALUES};
use crate::attack::{Attack, Sample, gang, neighbours};
use crate::talk::NOW;

/// How often the adversary begins again; nothing in the paper says that a failure counts as a query.
const RETRIES: usize = 32;

/// How many groups the adversary asks at most.
const GROUPS: usize = 32;

impl Town<'_> {
    /// One attempt; none where too few nodes were found somewhere.
    pub(in crate::attack) fn play(&self, attack: Attack, rng: &mut dyn Rng) -> Option<Sample> {
        match attack {
            Attack::Keys => self.keys(rng),
            Attack::OwnWitness => self.own_witness(rng),
            Attack::Echo => self.echo(rng),
            Attack::Subset => self.subset(rng),
            Attack::RetryLast => self.retry_last(rng),
            Attack::RetryTrigger => self.retry_trigger(rng),
            Attack::RetrySetter => self.retry_setter(rng),
            Attack::Reuse => self.reuse(rng),
            Attack::CoLocated => self.co_located(rng),
            Attack::Cache => self.cache(rng),
            Attack::Dead => self.dead(rng),
        }
    }

    /// Tries keys until there are k + 1 nodes so near to each other that they decide for one another, and then values until
    /// one selects beside them.
    fn keys(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let row = self.rules.table.rows().last()?;
        let near = Arc::new(row.region.size() / 2.0)?;
        let centre = Place::of(&number(rng));
        let tried: Vec<_> = (0..=row.k).map(|_| tried_key(centre, near, rng)).collect();
        let town = Town {
            params: self.params,
            ring: self.ring.with(&tried),
            rules: self.rules.clone(),
            is_live: vec![true; self.ring.nodes().len() + tried.len()],
        };
        let certain: Vec<_> = tried.iter().filter_map(|node| town.index(node)).collect();
        let only_tried = gang(&certain, 0, town.is_live.len(), rng);
        let is_ours = gang(&certain, self.params.colluding, town.is_live.len(), rng);
        let wanted = (0..).map(|_| number(rng)).find(|value| near.holds(centre, town.place(*value)))?;
        let mut scripts: Vec<_> = tried[1..].iter().map(|node| (*node, Some([0; 32]))).collect();
        let (witnesses, _) = town.deciders(tried[0].place(), &tried[0], &only_tried)?;
        scripts.iter_mut().find(|(node, _)| *node == witnesses[0])?.1 = Some(wanted);
        let random = town.draw_with(tried[0], &mut scripts, Some(&only_tried), rng)?;
        let list = town.invented(&random, &tried[1..], &is_ours);
        Some(town.judged(Attack::Keys, &list, &is_ours, true))
    }

    /// The list of accomplices that builders sign who all collude.
    fn invented(&self, random: &VerifiableRandom, builders: &[Node], is_ours: &[bool]) -> ActorList {
        let all = self.ring.nodes().iter().zip(is_ours);
        let actors = all.filter(|(_, ours)| **ours).map(|(node, _)| *node).take(self.params.actors).collect();
        let mut list = ActorList {
            random: random.value(),
            at: NOW.utc,
            moves: Vec::new(),
            actors,
            attestations: Vec::new(),
        };
        let sign = |builder: &Node| Attestation {
            builder: *builder,
            signature: Pretended(*builder.key()).sign(&list.statement()),
        };
        list.attestations = builders.iter().map(sign).collect();
        list
    }

    /// The trigger lies in the smallest region around itself, so that k = 1 is enough, and chooses the value.
    fn own_witness(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let (trigger, is_ours) = self.trigger(rng);
        let random = self.draw_alone(trigger, self.wanted(&is_ours, rng));
        Some(self.judged(Attack::OwnWitness, &self.select(&random, rng)?, &is_ours, true))
    }

    /// All witnesses but one collude: one repeats what the honest one says, so that nothing of it is left in the exclusive
    /// or, and the others say what makes up the value that is wanted.
    fn echo(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let trigger = self.somebody(rng);
        let node = self.ring.nodes()[trigger];
        let (witnesses, k) = self.deciders(node.place(), &node, &self.is_live)?;
        let accomplices = &witnesses[..k - 1];
        let indices = accomplices.iter().filter_map(|one| self.index(one));
        let certain: Vec<_> = indices.chain([trigger]).collect();
        let is_ours = gang(&certain, self.params.colluding, self.is_live.len(), rng);
        let mut scripts: Vec<_> = accomplices.iter().map(|one| (*one, Some([0; 32]))).collect();
        if let Some((_, script)) = scripts.first_mut() {
            *script = None;
        }
        if let Some((_, script)) = scripts.get_mut(1) {
            *script = Some(self.wanted(&is_ours, rng));
        }
        let random = self.draw_with(node, &mut scripts, None, rng)?;
        Some(self.judged(Attack::Echo, &self.select(&random, rng)?, &is_ours, scripts.len() > 1))
    }

    /// Has a list made by one group of eligible builders after the other.
    fn subset(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let (trigger, is_ours) = self.trigger(rng);
        let random = self.draw(trigger, rng)?;
        let place = self.order(random.clone()).place();
        let (eligible, k) = self.deciders(place, &trigger, &self.is_live)?;
        let eligible: Vec<_> = eligible.iter().filter_map(|node| self.index(node)).collect();
        let mut lists = Vec::new();
        for group in subsets(eligible.len(), k).take(GROUPS) {
            let chosen: Vec<_> = group.iter().map(|at| eligible[*at]).collect();
            let only = gang(&chosen, 0, self.is_live.len(), rng);
            if let Some(Output::Selected(list)) =
                self.build(self.order(random.clone()), Some(&only), |_| None, rng)
            {
                lists.push(list);
            }
        }
        let accepted = lists.len() > 1;
        Some(self.judged(Attack::Subset, &self.best(lists, &is_ours)?, &is_ours, accepted))
    }

    /// A witness that colludes learns the value before it reveals: it fails until the place has many accomplices.
    fn retry_last(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let trigger = self.somebody(rng);
        let node = self.ring.nodes()[trigger];
        let (witnesses, k) = self.deciders(node.place(), &node, &self.is_live)?;
        let last = self.index(&witnesses[k - 1])?;
        let is_ours = gang(&[trigger, last], self.params.colluding, self.is_live.len(), rng);
        let drawn: Vec<_> = (0..RETRIES).filter_map(|_| self.draw(node, rng)).collect();
        let accepted = drawn.len() > 1;
        let ours = |random: &VerifiableRandom| self.ours_around(self.place(random.value()), &is_ours);
        let random = drawn.into_iter().max_by_key(ours)?;
        Some(self.judged(Attack::RetryLast, &self.select(&random, rng)?, &is_ours, accepted))
    }

    /// A trigger says that the selection failed until it likes the list.
    fn retry_trigger(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let (trigger, is_ours) = self.trigger(rng);
        let list = |_| self.select(&self.draw(trigger, rng)?, rng);
        self.retried(Attack::RetryTrigger, (0..RETRIES).filter_map(list).collect(), &is_ours)
    }

    /// A setter has the same builders make the list of the same value again until it likes it.
    fn retry_setter(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let (trigger, is_ours) = self.trigger(rng);
        let random = self.draw(trigger, rng)?;
        let list = |_| self.select(&random, rng);
        self.retried(Attack::RetrySetter, (0..RETRIES).filter_map(list).collect(), &is_ours)
    }

    fn retried(&self, attack: Attack, lists: Vec<ActorList>, is_ours: &[bool]) -> Option<Sample> {
        let accepted = lists.len() > 1;
        Some(self.judged(attack, &self.best(lists, is_ours)?, is_ours, accepted))
    }

    /// Shows the best of the lists of several queries for one of them.
    fn reuse(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let (trigger, is_ours) = self.trigger(rng);
        let list = |_| self.select(&self.draw(trigger, rng)?, rng);
        self.retried(Attack::Reuse, (0..self.params.quota).filter_map(list).collect(), &is_ours)
    }

    /// The adversary's keys are beside each other.
    fn co_located(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let mut by_key: Vec<_> = (0..self.is_live.len()).collect();
        by_key.sort_by_key(|index| *self.ring.nodes()[*index].key());
        let ours = neighbours(&by_key, self.params.colluding, rng);
        let is_ours = gang(&ours, 0, self.is_live.len(), rng);
        let trigger = self.ring.nodes()[*ours.first()?];
        let list = self.select(&self.draw(trigger, rng)?, rng)?;
        Some(self.judged(Attack::CoLocated, &list, &is_ours, true))
    }

    /// All builders but one collude, and hide whom they can. Out of those that may be the honest one, the trigger takes
    /// the furthest: what that one does not know is lost.
    fn cache(&self, rng: &mut dyn Rng) -> Option<Sample> {
        self.given_builders(Attack::Cache, usize::MAX, rng)
    }

    /// A builder that colludes names accomplices that were revoked, whose certificates are genuine.
    fn dead(&self, rng: &mut dyn Rng) -> Option<Sample> {
        self.given_builders(Attack::Dead, 1, rng)
    }

    /// So many of the builders collude, but never all of them.
    fn given_builders(&self, attack: Attack, most: usize, rng: &mut dyn Rng) -> Option<Sample> {
        let trigger = self.somebody(rng);
        let node = self.ring.nodes()[trigger];
        let order = self.order(self.draw(node, rng)?);
        let place = order.place();
        let (eligible, k) = self.deciders(place, &node, &self.is_live)?;
        let last = if attack == Attack::Cache { eligible.len() - 1 } else { k - 1 };
        let asked: Vec<_> = eligible[..k - 1].iter().chain([&eligible[last]]).copied().collect();
        let accomplices: Vec<_> =
            asked[..k - 1].iter().take(most).filter_map(|one| self.index(one)).collect();
        let certain: Vec<_> = accomplices.iter().copied().chain([trigger]).collect();
        let is_ours = self.live_gang(&certain, rng);
        let revoked_too: Vec<_> =
            is_ours.iter().zip(&self.is_live).map(|(ours, live)| *ours || !live).collect();
        let everybody = vec![true; self.is_live.len()];
        let said: &[bool] = if attack == Attack::Dead { &everybody } else { &is_ours };
        let colludes = |one: &Node| self.index(one).is_some_and(|index| accomplices.contains(&index));
        let only: Vec<_> = asked.iter().filter_map(|one| self.index(one)).collect();
        let only = gang(&only, 0, self.is_live.len(), rng);
        let built = self.build(order, Some(&only), |one| colludes(one).then_some(said), rng)?;
        // A move would be to where the adversary has no builder.
        let Output::Selected(list) = built else { return None };
        let candidates = self.around(place, self.rules.candidates).count() as f64;
        let chance = self.params.actors as f64 * self.ours_around(place, &is_ours) as f64 / candidates;
        Some(Sample { chance, ..self.judged(attack, &list, &revoked_too, !accomplices.is_empty()) })
    }

    /// A trigger that colludes, and who else does.
    fn trigger(&self, rng: &mut dyn Rng) -> (Node, Vec<bool>) {
        let trigger = self.somebody(rng);
        (self.ring.nodes()[trigger], gang(&[trigger], self.params.colluding, self.is_live.len(), rng))
    }

    /// Who colludes of those who are in the network.
    fn live_gang(&self, certain: &[usize], rng: &mut dyn Rng) -> Vec<bool> {
        let live: Vec<_> = (0..self.is_live.len()).filter(|index| self.is_live[*index]).collect();
        let certain: Vec<_> = certain.iter().filter_map(|one| live.binary_search(one).ok()).collect();
        let is_in = gang(&certain, self.params.colluding, live.len(), rng);
        let ours: Vec<_> =
            live.iter().zip(is_in).filter(|(_, is_in)| *is_in).map(|(index, _)| *index).collect();
        gang(&ours, 0, self.is_live.len(), rng)
    }

    /// Out of several values the one whose region has the most accomplices.
    fn wanted(&self, is_ours: &[bool], rng: &mut dyn Rng) -> Hash {
        let values: Vec<_> = (0..VALUES).map(|_| number(rng)).collect();
        let best = values.iter().max_by_key(|value| self.ours_around(self.place(**value), is_ours));
        best.copied().unwrap_or_default()
    }

    fn ours_around(&self, place: Place, is_ours: &[bool]) -> usize {
        let all = self.around(place, self.rules.candidates).filter_map(|node| self.index(node));
        all.filter(|index| is_ours[*index]).count()
    }

    fn ours(&self, list: &ActorList, is_ours: &[bool]) -> usize {
        list.actors.iter().filter(|one| self.index(one).is_some_and(|index| is_ours[index])).count()
    }

    fn best(&self, lists: Vec<ActorList>, is_ours: &[bool]) -> Option<ActorList> {
        lists.into_iter().max_by_key(|list| self.ours(list, is_ours))
    }

    /// What a list is worth that a data source is shown: nothing where it does not verify.
    fn judged(&self, attack: Attack, list: &ActorList, is_ours: &[bool], deviates: bool) -> Sample {
        let is_good = list.verify(&self.rules, &mut Pretended([0; 32])).is_ok();
        let ours = if is_good { self.ours(list, is_ours) } else { 0 };
        self.params.measured(attack, ours, deviates && is_good)
    }
}

fn number(rng: &mut dyn Rng) -> Hash {
    let mut number = [0; 32];
    rng.fill(&mut number);
    number
}

/// A genuine node whose key was tried until it lay in the arc.
fn tried_key(centre: Place, near: Arc, rng: &mut dyn Rng) -> Node {
    loop {
        let key = number(rng);
        let node = Node::new(key, [0; 64]);
        if near.holds(centre, node.place()) {
            return Node::new(key, Pretended::certificate(&key));
        }
    }
}

/// All sets of `k` of the first `n` numbers.
fn subsets(n: usize, k: usize) -> impl Iterator<Item = Vec<usize>> {
    let first = (k <= n).then(|| (0..k).collect::<Vec<_>>());
    std::iter::successors(first, move |last| {
        let mut next = last.clone();
        let at = (0..k).rev().find(|at| next[*at] < n - k + at)?;
        next[at] += 1;
        for later in at + 1..k {
            next[later] = next[later - 1] + 1;
        }
        Some(next)
    })
}

#[cfg(test)]
mod tests {
    use super::subsets;

    #[test]
    fn all_subsets_are_found_once() {
        let all: Vec<_> = subsets(4, 2).collect();
        assert_eq!(all, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!((subsets(3, 3).count(), subsets(2, 3).count(), subsets(6, 4).count()), (1, 0, 15));
    }
}
