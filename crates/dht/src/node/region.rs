use std::ops::Bound;

use kith_identity::membership::{Block, NodeId};
use kith_sansio::{Now, Rng, Time};

use super::calls::{Probe, Why};
use super::tasks::Goal;
use super::{Node, Output, Phase, Timers};
use crate::contact::Contact;
use crate::defaults::{
    MAX_CARDS, MAX_KNOWN, MAX_PROBES, MAX_RUMOURS, MAX_SEARCHES, PROBE, REFRESH, REGION_SLACK, REPLICAS,
    REQUEST, SETTLE, STALE, SYNC, TEND, WATCHED,
};
use crate::lookup::Lookup;
use crate::message::Body;
use crate::routes::{Known, MAX_FAILURES};

pub(super) const LOWEST: NodeId = NodeId::from_bytes([0; 32]);
/// How many neighbours a joining node asks for the others before it does without.
const MAX_SYNC_TRIES: u8 = 3;

/// The reading of what a neighbour knows of the region, page by page.
#[derive(Debug)]
pub(super) struct Sync {
    from: Contact,
    after: NodeId,
    pages: usize,
    tries: u8,
}

/// What is remembered of a node of which others told and that did not answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absent {
    /// How often it did not.
    times: u8,
    /// When that was seen last.
    since: Time,
}

impl Absent {
    /// Whether it is asked no more because others tell of it: they may not have noticed yet that it is gone.
    fn counts(&self, now: Time) -> bool {
        self.times >= MAX_FAILURES && now - self.since < PROBE
    }
}

impl Node {
    pub(super) fn join(&mut self, now: Now, known: Vec<Contact>, rng: &mut dyn Rng) {
        if self.phase == Phase::Left {
            return;
        }
        self.phase = Phase::Joining;
        self.is_empty_handed = self.store.is_empty();
        let after = |span| Some(now.time + span);
        self.timers =
            Timers { probe: after(PROBE), sync: after(SYNC), refresh: after(REFRESH), tend: after(TEND) };
        self.known = known;
        self.look_for_region(now, rng);
    }

    /// Hears of members from whoever is trusted to know some.
    pub(super) fn meet(&mut self, now: Now, others: Vec<Contact>) {
        others.iter().for_each(|contact| self.is_rumoured(contact.clone(), now));
        self.known.retain(|known| others.iter().all(|other| other.id != known.id));
        self.known.splice(0..0, others);
        self.known.truncate(MAX_KNOWN);
        if self.phase == Phase::Joined && self.routes.region().is_empty() {
            self.sync_soon(now.time);
        }
    }

    fn look_for_region(&mut self, now: Now, rng: &mut dyn Rng) {
        let mut seeds = self.routes.answer(self.own.id, REPLICAS, &self.own.id);
        let known = self.known.iter().filter(|contact| self.may_be_asked(contact, now.utc));
        seeds.extend(known.cloned());
        self.start_at(now, self.own.id, REPLICAS, Goal::Join, seeds, rng);
    }

    /// The nearest nodes are found: one of them knows the region.
    pub(super) fn found_region(&mut self, now: Now, lookup: &Lookup, rng: &mut dyn Rng) {
        let block = self.routes.block();
        let neighbours = || lookup.nearest().filter(|contact| block.contains(&contact.id)).cloned();
        if self.phase == Phase::Joining {
            (0..block.bits()).for_each(|index| self.learn(now, index, rng));
            // They have answered, but do not know yet that this node has no values.
            neighbours().for_each(|contact| self.add_rumour(contact));
        }
        let neighbour = neighbours().next();
        self.sync = None;
        if let Some(from) = neighbour {
            self.sync_with(now.time, from, 1);
        }
    }

    pub(super) fn leave(&mut self) {
        let others: Vec<_> = self.routes.region().iter().map(|known| known.contact.clone()).collect();
        others.iter().for_each(|other| self.say(other, 0, Body::Leave));
        self.phase = Phase::Left;
        self.timers = Timers::default();
        self.tasks.clear();
        self.copies.clear();
        self.calls = Default::default();
        self.outputs.push_back(Output::Left);
    }

    pub(super) fn set_members(&mut self, now: Time, members: u64) {
        let before = self.routes.block();
        self.routes.set_members(members);
        if self.routes.block() != before && self.phase == Phase::Joined {
            self.sync_soon(now);
        }
    }

    pub(super) fn set_roster(&mut self, ids: &[NodeId]) {
        let block = self.routes.block();
        let unknown =
            |id: &&NodeId| block.contains(id) && **id != self.own.id && self.routes.find(id).is_none();
        let most = self.config.region.saturating_mul(REGION_SLACK);
        self.missing = ids.iter().filter(unknown).take(most).copied().collect();
    }

    /// A node is new in the region: it may be one of those that keep a value.
    pub(super) fn region_changed(&mut self, id: &NodeId, now: Time) {
        self.missing.remove(id);
        let soon = now + SETTLE;
        if let Some(due) = &mut self.timers.tend {
            *due = soon.min(*due);
        }
    }

    /// A node left, or is a member no more.
    pub(super) fn forget(&mut self, id: &NodeId, now: Time) {
        self.rumours.remove(id);
        if self.routes.remove(id).is_some() && self.routes.block().contains(id) {
            self.region_changed(id, now);
        }
    }

    /// A node failed for good. Whoever watches it, or brought it something, tells the region; the others ask for themselves.
    pub(super) fn lost(&mut self, node: &Contact, why: Why, now: Time) {
        if !self.routes.block().contains(&node.id) {
            return;
        }
        self.region_changed(&node.id, now);
        self.watch_on(&node.id, now);
        if matches!(why, Why::Probe(Probe::Watch) | Why::Repair(_)) {
            let others: Vec<_> = self.routes.region().iter().map(|known| known.contact.clone()).collect();
            others.iter().for_each(|other| self.say(other, 0, Body::Gone(node.id)));
        }
    }

    /// One of those that this node watches is gone: whoever comes in its place may have gone with it.
    fn watch_on(&mut self, gone: &NodeId, now: Time) {
        let own = self.own.id;
        let order = |id: &NodeId| (*id < own, *id);
        let watched: Vec<_> = self.routes.successors(WATCHED).cloned().collect();
        if watched.last().is_some_and(|last| order(gone) > order(&last.contact.id)) {
            return;
        }
        for Known { contact, heard, .. } in watched {
            if now - heard >= REQUEST.times(MAX_FAILURES.into()) && !self.calls.is_probed(&contact) {
                self.probe(&contact, now, Probe::Watch);
            }
        }
    }

    pub(super) fn is_said_gone(&mut self, by: &NodeId, id: &NodeId, now: Time) {
        if !self.routes.block().contains(by) || !self.routes.block().contains(id) {
            return;
        }
        // Whoever was heard after the one who misses it began to ask is there.
        if let Some(Known { contact, .. }) = self.routes.find(id).filter(|known| now - known.heard >= REQUEST)
        {
            let contact = contact.clone();
            self.add_rumour(contact);
        }
    }

    /// A node that was heard of is asked itself where there is a place for it.
    pub(super) fn is_rumoured(&mut self, contact: Contact, now: Now) {
        let absent = self.absent.get(&(contact.id, contact.address));
        let is_absent = absent.is_some_and(|absent| absent.counts(now.time));
        if !is_absent && self.may_be_asked(&contact, now.utc) && self.routes.has_place(&contact) {
            self.add_rumour(contact);
        }
    }

    /// A node of which others told did not answer there.
    pub(super) fn is_absent(&mut self, contact: &Contact, now: Time) {
        if self.absent.len() >= MAX_RUMOURS {
            self.tidy_absent(now);
        }
        if self.absent.len() < MAX_RUMOURS {
            let place = (contact.id, contact.address);
            let absent = self.absent.entry(place).or_insert(Absent { times: 0, since: now });
            let before = if now - absent.since < PROBE { absent.times } else { 0 };
            *absent = Absent { times: before.saturating_add(1), since: now };
        }
    }

    pub(super) fn tidy_absent(&mut self, now: Time) {
        self.absent.retain(|_, absent| now - absent.since < PROBE);
    }

    /// A bucket is full: whoever was not heard for longest shows whether it is there.
    pub(super) fn doubt(&mut self, oldest: Contact, now: Time) {
        if self.routes.find(&oldest.id).is_some_and(|known| now - known.heard >= STALE) {
            self.add_rumour(oldest);
        }
    }

    fn add_rumour(&mut self, contact: Contact) {
        // Whoever is being asked need not be asked once more, which would keep others waiting.
        if self.rumours.len() < MAX_RUMOURS && !self.calls.is_probed(&contact) {
            // The first address that was told is tried; a later one may come again.
            self.rumours.entry(contact.id).or_insert(contact);
        }
    }

    /// Asks whom it heard of, a few at a time; where nobody is left, it has joined.
    pub(super) fn ask_around(&mut self, now: Time) {
        if matches!(self.phase, Phase::Apart | Phase::Left) {
            return;
        }
        while self.calls.probes() < MAX_PROBES
            && let Some((_, contact)) = self.rumours.pop_first()
        {
            // Since it was heard of, others may have taken the last place.
            if self.routes.find(&contact.id).is_some() || self.routes.has_place(&contact) {
                self.probe(&contact, now, Probe::Rumour);
            }
        }
        let is_busy = self.sync.is_some() || !self.tasks.is_empty() || self.calls.probes() > 0;
        if self.phase == Phase::Joining && !is_busy {
            self.phase = Phase::Joined;
            self.assume_holders();
            self.outputs.push_back(Output::Joined);
            self.sync_soon(now);
        }
    }

    /// Asks the next neighbours whether they are there, and looks for some whom the roster names.
    pub(super) fn watch(&mut self, now: Now, rng: &mut dyn Rng) {
        let watched: Vec<_> = self.routes.successors(WATCHED).map(|known| known.contact.clone()).collect();
        for contact in watched {
            self.probe(&contact, now.time, Probe::Watch);
        }
        let beyond = self.missing.range((Bound::Excluded(self.searched), Bound::Unbounded));
        let wanted = beyond.chain(self.missing.range(..=self.searched)).take(MAX_SEARCHES);
        for id in wanted.copied().collect::<Vec<_>>() {
            self.searched = id;
            self.start(now, id, 1, Goal::Learn, rng);
        }
    }

    /// Neighbours that join at the same time may not have heard of each other.
    fn sync_soon(&mut self, now: Time) {
        self.sync_every = SETTLE;
        self.timers.sync = Some(now + SETTLE);
    }

    /// Compares the region with what a neighbour knows, chosen by chance. A node that joined a moment ago, or has no
    /// neighbours, looks for its region once more: they may all have joined through each other.
    pub(super) fn begin_sync(&mut self, now: Now, rng: &mut dyn Rng) {
        let is_settled = self.sync_every == SYNC;
        self.sync_every = SYNC.min(self.sync_every.times(2));
        if self.phase != Phase::Joined || self.sync.is_some() {
            return;
        }
        match self.any_neighbour(rng).filter(|_| is_settled || rng.below(2) == 0) {
            Some(from) => self.sync_with(now.time, from, MAX_SYNC_TRIES),
            None => self.look_for_region(now, rng),
        }
    }

    fn any_neighbour(&self, rng: &mut dyn Rng) -> Option<Contact> {
        let region = self.routes.region();
        region.get(rng.below(region.len() as u64) as usize).map(|known| known.contact.clone())
    }

    fn sync_with(&mut self, now: Time, from: Contact, tries: u8) {
        self.sync = Some(Sync { from, after: LOWEST, pages: 0, tries });
        self.ask_page(now);
    }

    fn ask_page(&mut self, now: Time) {
        let Some(Sync { from, after, .. }) = &self.sync else { return };
        let (from, after) = (from.clone(), *after);
        let (bits, digest) = (self.routes.block().bits(), self.routes.digest());
        self.ask(&from, now, Body::Block { bits, digest, after }, Why::Page);
    }

    pub(super) fn page(&mut self, now: Now, from: &Contact, body: Body, rng: &mut dyn Rng) {
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.from.id == from.id) else { return };
        let (nodes, more) = match body {
            Body::Page { nodes, more } => (nodes, more),
            Body::Same => (Vec::new(), false),
            _ => return self.page_failed(now, rng),
        };
        let last = nodes.iter().map(|contact| contact.id).max();
        let most = self.config.region.saturating_mul(REGION_SLACK).div_ceil(MAX_CARDS);
        sync.pages += 1;
        match last.filter(|last| more && *last > sync.after && sync.pages < most) {
            Some(last) => {
                sync.after = last;
                self.ask_page(now.time);
            }
            None => self.sync = None,
        }
        let block = self.routes.block();
        let neighbours = nodes.into_iter().filter(|contact| block.contains(&contact.id));
        neighbours.for_each(|contact| self.is_rumoured(contact, now));
    }

    /// A neighbour did not tell whom it knows: another one may.
    pub(super) fn page_failed(&mut self, now: Now, rng: &mut dyn Rng) {
        let Some(Sync { tries, .. }) = self.sync.take() else { return };
        if let Some(from) = self.any_neighbour(rng).filter(|_| tries < MAX_SYNC_TRIES) {
            self.sync_with(now.time, from, tries + 1);
        }
    }

    /// Looks around in one bucket after the other, and around the own place, where there may be neighbours of whom none
    /// of the others has heard.
    pub(super) fn refresh(&mut self, now: Now, rng: &mut dyn Rng) {
        let bits = u32::from(self.routes.block().bits());
        match (self.refreshed % (bits + 1)) as u8 {
            0 => self.look_for_region(now, rng),
            index => self.learn(now, index - 1, rng),
        }
        self.refreshed = self.refreshed.wrapping_add(1);
    }

    /// A lookup of a random place that shares exactly `index` bits with the own.
    fn learn(&mut self, now: Now, index: u8, rng: &mut dyn Rng) {
        let mut bytes = [0; 32];
        rng.fill(&mut bytes);
        let bucket = Block::beside(&self.own.id, index);
        self.start(now, bucket.filled(&NodeId::from_bytes(bytes)), 1, Goal::Learn, rng);
    }
}
