//! What the adversary does in each attack on the hardened protocol. Wherever it is refused, it goes on as it should: what it
//! gets then is the value of the attempt.

use kith_actors::hardened::{ActorList, Draw, DrawShare, Message, Order, Suite, View};
use kith_identity::membership::{Block, NodeId};
use kith_sansio::Rng;

use super::Village;
use super::scene::{HONEST, Lies, Scene};
use crate::attack::{Attack, AttackParams, Sample, gang, neighbours};

/// One attempt while it is played.
struct Game<'a> {
    village: &'a Village,
    params: &'a AttackParams,
    attack: Attack,
}

impl Village {
    /// The `number`-th attempt; none where too few nodes were found somewhere.
    pub(in crate::attack) fn play(
        &self,
        params: &AttackParams,
        attack: Attack,
        number: u64,
        rng: &mut dyn Rng,
    ) -> Option<Sample> {
        let game = Game { village: self, params, attack };
        match attack {
            Attack::Keys => game.keys(number, rng),
            Attack::OwnWitness => game.own_witness(rng),
            Attack::Echo => game.echo(rng),
            Attack::Subset => game.subset(rng),
            Attack::RetryLast | Attack::RetryTrigger | Attack::RetrySetter => game.retry(rng),
            Attack::Reuse => game.reuse(rng),
            Attack::CoLocated => game.co_located(rng),
            Attack::Cache | Attack::Dead => game.given_builders(rng),
        }
    }
}

impl<'a> Game<'a> {
    /// A group of nodes whose keys were tried: where the issuer has put them, they hold the witnesses of one of them only
    /// if all of these are the adversary's.
    fn keys(&self, number: u64, rng: &mut dyn Rng) -> Option<Sample> {
        let groups = &self.village.tried;
        let group = &groups[number as usize % groups.len().max(1)];
        let certain: Vec<_> = group.iter().filter_map(|id| self.village.index(id)).collect();
        let is_ours = self.gang(&certain, rng);
        // Who comes again has another draw.
        let sequence = 1 + (number / groups.len() as u64) as u32;
        let mut scene = Scene::new(self.village, &is_ours, u32::MAX);
        let drawn = scene.draw(self.village.ticket(self.params, group[0], sequence, 0), &HONEST)?;
        let witnesses = &drawn.1.draw.proposal.group.members;
        let holds_all = witnesses.iter().all(|witness| scene.is_ours(&witness.id));
        let list = scene.select(drawn, &HONEST)?;
        Some(self.measured(&scene, &list, holds_all))
    }

    /// Asks its witnesses to take the trigger for one of them, and then tries a draw of which it is the only one.
    fn own_witness(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let (trigger, is_ours) = self.trigger(rng);
        let mut scene = Scene::new(self.village, &is_ours, self.params.quota);
        let path = self.village.rolled.members.path(&trigger)?;
        let me = *path.claimed_leaf();
        let alters = |message: &mut Message| {
            if let Message::Propose(proposal) = message {
                proposal.group.members.pop();
                proposal.group.members.insert(0, me);
            }
        };
        let ticket = self.village.ticket(self.params, trigger, 1, 0);
        let mut accepted = scene.draw(ticket, &Lies { alters: &alters, ..HONEST }).is_some();
        let drawn = scene.draw(ticket, &HONEST)?;
        let mut alone = drawn.1.clone();
        let mut identity = &self.village.people[self.village.index(&trigger)?].1;
        for row in self.village.view(&trigger).table().rows() {
            alone.draw.proposal.group.bits = row.region.bits;
            alone.draw.proposal.group.members = vec![me];
            let pledge = ticket.pledge(&alone.draw.proposal.group);
            let signature = Suite::sign(&mut identity, &pledge);
            alone.draw.proposal.signature = signature;
            let proof = Suite::prove(&mut identity, &ticket.input());
            alone.draw.shares = vec![DrawShare { witness: path.clone(), signature, proof }];
            accepted |= self.holds(&alone);
        }
        let list = scene.select(drawn, &HONEST)?;
        Some(self.measured(&scene, &list, accepted))
    }

    /// All witnesses but one collude, and hand in the random output of the honest one for their own.
    fn echo(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let trigger = self.somebody(rng);
        let ticket = self.village.ticket(self.params, trigger, 1, 0);
        let witnesses = self.village.view(&trigger).witnesses(&ticket, &[]).ok()?.members;
        let (_, accomplices) = witnesses.split_last()?;
        let indices = accomplices.iter().filter_map(|one| self.village.index(&one.id));
        let certain: Vec<_> = indices.chain(self.village.index(&trigger)).collect();
        let is_ours = self.gang(&certain, rng);
        let mut scene = Scene::new(self.village, &is_ours, self.params.quota);
        let drawn = scene.draw(ticket, &HONEST)?;
        let mut forged = drawn.1.clone();
        let honest = forged.draw.shares.last()?.proof;
        let echoes = forged.draw.shares.iter_mut().take(accomplices.len());
        echoes.for_each(|share| share.proof = honest);
        let accepted = !accomplices.is_empty() && self.holds(&forged);
        let list = scene.select(drawn, &HONEST)?;
        Some(self.measured(&scene, &list, accepted))
    }

    /// Says of one member after the other that decides that it does not answer, so that others would decide.
    fn subset(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let (trigger, is_ours) = self.trigger(rng);
        let mut scene = Scene::new(self.village, &is_ours, self.params.quota);
        let ticket = |sequence| self.village.ticket(self.params, trigger, sequence, 0);
        let witnesses = self.village.view(&trigger).witnesses(&ticket(1), &[]).ok()?.members;
        let mut others = Vec::new();
        for left_out in witnesses.iter().filter(|one| !is_ours_at(self.village, &is_ours, &one.id)) {
            let denies = |_: &NodeId, id: &NodeId| *id == left_out.id;
            others.extend(scene.draw(ticket(1), &Lies { denies: &denies, ..HONEST }));
        }
        let drawn = scene.draw(ticket(1), &HONEST)?;
        let mut lists = vec![scene.select(drawn, &HONEST)?];
        let (place, order) = scene.draw(ticket(2), &HONEST)?;
        let builders = self.village.view(&place).group(&place, &trigger, &[]).ok()?.members;
        for left_out in builders.iter().filter(|one| !is_ours_at(self.village, &is_ours, &one.id)) {
            let denies = |_: &NodeId, id: &NodeId| *id == left_out.id;
            lists.extend(scene.select((place, order.clone()), &Lies { denies: &denies, ..HONEST }));
        }
        lists.extend(others.into_iter().filter_map(|drawn| scene.select(drawn, &HONEST)));
        let accepted = lists.len() > 1;
        Some(self.measured(&scene, &best(&scene, lists)?, accepted))
    }

    /// Uses all draws that the quota allows, tries to use each of them again, and keeps the best list.
    fn retry(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let trigger = self.somebody(rng);
        let ticket = |sequence, query| self.village.ticket(self.params, trigger, sequence, query);
        let mut certain = vec![trigger];
        for sequence in (1..=self.params.quota).filter(|_| self.attack == Attack::RetryLast) {
            let witnesses = self.village.view(&trigger).witnesses(&ticket(sequence, 0), &[]).ok()?.members;
            certain.extend(witnesses.last().map(|one| one.id));
        }
        let certain: Vec<_> = certain.iter().filter_map(|id| self.village.index(id)).collect();
        let is_ours = self.gang(&certain, rng);
        let mut scene = Scene::new(self.village, &is_ours, self.params.quota);
        let (mut lists, mut again) = (Vec::new(), Vec::new());
        for sequence in 1..=self.params.quota {
            // Whoever reveals last knows the seed by now, and with it the list.
            let drawn = scene.draw(ticket(sequence, 0), &HONEST)?;
            match self.attack {
                Attack::RetryLast => again.extend(scene.draw(ticket(sequence, 0), &HONEST)),
                Attack::RetryTrigger => again.extend(scene.draw(ticket(sequence, 1), &HONEST)),
                _ => {}
            }
            lists.extend(scene.select(drawn.clone(), &HONEST));
            if self.attack == Attack::RetrySetter {
                again.extend(scene.select(drawn.clone(), &HONEST).map(|_| drawn));
            }
        }
        again.extend(scene.draw(ticket(self.params.quota + 1, 0), &HONEST));
        Some(self.measured(&scene, &best(&scene, lists)?, !again.is_empty()))
    }

    /// Shows lists of other queries for the first one.
    fn reuse(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let (trigger, is_ours) = self.trigger(rng);
        let mut scene = Scene::new(self.village, &is_ours, self.params.quota);
        let asked = self.village.ticket(self.params, trigger, 1, 0).terms.manifest;
        let mut shown = Vec::new();
        for query in 0..self.params.quota {
            let drawn =
                scene.draw(self.village.ticket(self.params, trigger, 1 + query, query as u8), &HONEST)?;
            let list = scene.select(drawn, &HONEST)?;
            let mut renamed = list.clone();
            renamed.ticket.terms.manifest = asked;
            shown.push(list);
            shown.extend((query > 0).then_some(renamed));
        }
        // A source looks for which query the list is.
        let is_good = |list: &ActorList| {
            let verified = list.clone().verify(&self.village.issuer);
            verified.is_ok_and(|list| list.ticket().terms.manifest == asked)
        };
        shown.retain(is_good);
        let accepted = shown.len() > 1;
        Some(self.measured(&scene, &best(&scene, shown)?, accepted))
    }

    /// The adversary's keys are beside each other.
    fn co_located(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let ours = neighbours(&self.village.by_key, self.params.colluding, rng);
        let is_ours = gang(&ours, 0, self.village.people.len(), rng);
        let trigger = self.village.people[*ours.first()?].0;
        let mut scene = Scene::new(self.village, &is_ours, self.params.quota);
        let drawn = scene.draw(self.village.ticket(self.params, trigger, 1, 0), &HONEST)?;
        let list = scene.select(drawn, &HONEST)?;
        Some(self.measured(&scene, &list, true))
    }

    /// All builders but one collude. They say of everybody who is honest that they do not answer; for what they know, one
    /// tries to pass a part of the region for all of it; and a list of theirs names one that was revoked.
    fn given_builders(&self, rng: &mut dyn Rng) -> Option<Sample> {
        let trigger = self.somebody(rng);
        let alone = self.gang(&[self.village.index(&trigger)?], rng);
        let ticket = self.village.ticket(self.params, trigger, 1, 0);
        let drawn = Scene::new(self.village, &alone, self.params.quota).draw(ticket, &HONEST)?;
        let (place, order) = &drawn;
        let view = self.village.view(place);
        let builders = view.group(place, &trigger, &[]).ok()?.members;
        let (_, accomplices) = builders.split_last()?;
        let certain: Vec<_> = accomplices
            .iter()
            .map(|one| one.id)
            .chain([trigger])
            .filter_map(|id| self.village.index(&id))
            .collect();
        let is_ours = self.gang(&certain, rng);
        let chance = self.chance(&is_ours, place, order);
        let mut scene = Scene::new(self.village, &is_ours, self.params.quota);
        // The trigger, who passes the messages, needs the honest one.
        let denies =
            |prober: &NodeId, id: &NodeId| *prober != trigger && !is_ours_at(self.village, &is_ours, id);
        let accepted_part = self.attack == Attack::Cache && self.hides(place, &is_ours);
        let list = scene.select(drawn.clone(), &Lies { denies: &denies, ..HONEST })?;
        let accepted = accepted_part || self.attack == Attack::Dead && self.names_revoked(&list, rng);
        Some(Sample { chance, ..self.measured(&scene, &list, accepted) })
    }

    /// Whether a part of a region passes for the whole.
    fn hides(&self, place: &NodeId, is_ours: &[bool]) -> bool {
        let (bits, rolled) = (self.village.bits, &self.village.rolled);
        let ours = |half: &Block| {
            let within = self.village.people.iter().zip(is_ours).filter(|((id, _), _)| half.contains(id));
            within.filter(|(_, ours)| **ours).count()
        };
        let halves = [Block::around(place, bits + 1), Block::beside(place, bits)];
        let Some(fuller) = halves.into_iter().max_by_key(ours) else { return false };
        rolled.members.range(&fuller).is_ok_and(|range| View::new(rolled.epoch.clone(), range).is_ok())
    }

    /// Whether a list with a revoked member in it is good.
    fn names_revoked(&self, list: &ActorList, rng: &mut dyn Rng) -> bool {
        let region = Block::around(&list.actors[0].id, list.region_bits);
        let known: Vec<_> = self.village.revoked.iter().filter(|one| region.contains(&one.id)).collect();
        let Some(revoked) = known.get(rng.below(known.len() as u64) as usize) else { return false };
        let mut named = list.clone();
        named.actors[0] = **revoked;
        named.verify(&self.village.issuer).is_ok()
    }

    /// How many actors are the adversary's on average, out of the candidates of an order.
    fn chance(&self, is_ours: &[bool], place: &NodeId, order: &Order) -> f64 {
        let Draw { proposal, .. } = &order.draw;
        let region = Block::around(place, self.village.bits);
        let is_apart = |id: &NodeId| {
            *id == proposal.ticket.trigger || proposal.group.members.iter().any(|one| one.id == *id)
        };
        let all = self.village.people.iter().zip(is_ours);
        let candidates: Vec<_> = all.filter(|((id, _), _)| region.contains(id) && !is_apart(id)).collect();
        let ours = candidates.iter().filter(|(_, ours)| **ours).count() as f64;
        self.params.actors as f64 * ours / candidates.len() as f64
    }

    /// Whether a draw passes with whoever checks it: each builder does so first.
    fn holds(&self, order: &Order) -> bool {
        let village = self.village;
        let somebody = &village.people[0].1;
        let view = village.view(&order.draw.proposal.ticket.trigger);
        order.draw.verify(view.epoch(), view.table(), &mut &*somebody).is_ok()
    }

    fn somebody(&self, rng: &mut dyn Rng) -> NodeId {
        self.village.people[rng.below(self.village.people.len() as u64) as usize].0
    }

    fn gang(&self, certain: &[usize], rng: &mut dyn Rng) -> Vec<bool> {
        gang(certain, self.params.colluding, self.village.people.len(), rng)
    }

    /// A trigger that colludes, and who else does.
    fn trigger(&self, rng: &mut dyn Rng) -> (NodeId, Vec<bool>) {
        let index = rng.below(self.village.people.len() as u64) as usize;
        (self.village.people[index].0, self.gang(&[index], rng))
    }

    fn measured(&self, scene: &Scene<'_>, list: &ActorList, accepted: bool) -> Sample {
        self.params.measured(self.attack, ours(scene, list), accepted)
    }
}

fn ours(scene: &Scene<'_>, list: &ActorList) -> usize {
    list.actors.iter().filter(|one| scene.is_ours(&one.id)).count()
}

fn best(scene: &Scene<'_>, lists: Vec<ActorList>) -> Option<ActorList> {
    lists.into_iter().max_by_key(|list| ours(scene, list))
}

fn is_ours_at(village: &Village, is_ours: &[bool], id: &NodeId) -> bool {
    village.index(id).is_some_and(|index| is_ours[index])
}
