//! Whom a node knows: a bucket for each distance, and its own region whole.

use kith_identity::membership::{Block, NodeId, region_bits};
use kith_sansio::{Time, Timestamp};

use crate::contact::{Contact, Nets, Scope};
use crate::defaults::{Config, MAX_PER_NET, REGION_SLACK};
use crate::nearest::{Placed, nearest_known};

/// A node that answered.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who it is.
    pub contact: Contact,
    /// When it was heard last.
    pub heard: Time,
    /// Requests since then that it did not answer.
    pub failures: u8,
}

/// What hearing a node changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is known, or there is no place for it.
    Nothing,
    /// It has a place in a bucket now.
    Bucket,
    /// It is new in the own region.
    Region,
    /// There is no place for it until this one, which was not heard for longest, fails.
    Full(Contact),
}

/// What nobody answers for so often is gone.
pub(crate) const MAX_FAILURES: u8 = 2;

/// Nodes that share a number of bits with the own id, longest not heard first.
#[derive(Clone, Debug, Default)]
struct Bucket {
    nodes: Vec<Known>,
    /// Who takes the place of one that fails; the newest last.
    spare: Vec<Contact>,
}

/// The routing table and the region cache of one node. Only nodes that were heard themselves have a place.
#[derive(Clone, Debug)]
pub struct Routes {
    own: NodeId,
    scope: Scope,
    config: Config,
    members: u64,
    block: Block,
    /// The bucket at `i` has nodes that share exactly `i` bits with the own id.
    buckets: Vec<Bucket>,
    /// Every live node of the own block, sorted by id.
    region: Vec<Known>,
}

impl Routes {
    /// The node `own` knows nobody yet in a network of `members` nodes.
    pub fn new(own: &Contact, config: Config, members: u64) -> Routes {
        Routes::around(own.id, own.scope(), config, members)
    }

    fn around(own: NodeId, scope: Scope, config: Config, members: u64) -> Routes {
        let bits = region_bits(members, config.region);
        let buckets = vec![Bucket::default(); bits.into()];
        Routes { own, scope, config, members, block: Block::around(&own, bits), buckets, region: Vec::new() }
    }

    /// The own place.
    pub fn own(&self) -> NodeId {
        self.own
    }

    /// From where it looks at addresses.
    pub(crate) fn scope(&self) -> Scope {
        self.scope
    }

    /// The own region.
    pub fn block(&self) -> Block {
        self.block
    }

    /// How many nodes the network has.
    pub fn members(&self) -> u64 {
        self.members
    }

    /// The nodes of the own region but the own, sorted by id.
    pub fn region(&self) -> &[Known] {
        &self.region
    }

    /// How many nodes are in the bucket of those that share `index` bits.
    pub fn bucket_len(&self, index: usize) -> usize {
        self.buckets.get(index).map_or(0, |bucket| bucket.nodes.len())
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.region.len() + self.buckets.iter().map(|bucket| bucket.nodes.len()).sum::<usize>()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node with this id.
    pub fn find(&self, id: &NodeId) -> Option<&Known> {
        match self.bucket_of(id) {
            Some(index) => self.buckets[index].nodes.iter().find(|known| known.contact.id == *id),
            None => self.place_in_region(id).ok().map(|place| &self.region[place]),
        }
    }

    /// The network has another number of members: the own region becomes larger or smaller.
    pub fn set_members(&mut self, members: u64) {
        self.rebuild(Routes::around(self.own, self.scope, self.config.clone(), members));
    }

    /// This node is in another kind of network: others count there.
    pub fn set_scope(&mut self, scope: Scope) {
        if scope != self.scope {
            self.rebuild(Routes::around(self.own, scope, self.config.clone(), self.members));
        }
    }

    fn rebuild(&mut self, after: Routes) {
        let before = std::mem::replace(self, after);
        for known in before.region.into_iter().chain(before.buckets.into_iter().flat_map(|b| b.nodes)) {
            self.heard(&known.contact, known.heard);
        }
    }

    /// A node was heard itself: it has the place that is free for it.
    pub fn heard(&mut self, contact: &Contact, now: Time) -> Heard {
        if !self.is_possible(contact) {
            return Heard::Nothing;
        }
        let known = Known { contact: contact.clone(), heard: now, failures: 0 };
        let Some(index) = self.bucket_of(&contact.id) else { return self.heard_in_region(known) };
        self.buckets[index].heard(known, self.config.bucket, self.scope)
    }

    /// Whether a node that was only heard of would have a place.
    pub fn has_place(&self, contact: &Contact) -> bool {
        if !self.is_possible(contact) || self.find(&contact.id).is_some() {
            return false;
        }
        let Some(index) = self.bucket_of(&contact.id) else { return self.region.len() < self.most() };
        let bucket = &self.buckets[index];
        bucket.nodes.len() < self.config.bucket && bucket.admits(contact, self.scope)
    }

    /// Whether it is another node, at an address that a node can have.
    pub fn is_possible(&self, contact: &Contact) -> bool {
        contact.id != self.own && self.scope.reaches(contact.address)
    }

    /// A node did not answer at an address; where that makes it lose its place, that is what was known of it. What
    /// others say of its address counts for nothing.
    pub fn failed(&mut self, contact: &Contact) -> Option<Contact> {
        let id = &contact.id;
        let known = match self.bucket_of(id) {
            Some(index) => self.buckets[index].nodes.iter_mut().find(|known| known.contact.id == *id)?,
            None => {
                let place = self.place_in_region(id).ok()?;
                &mut self.region[place]
            }
        };
        if known.contact.address != contact.address {
            return None;
        }
        known.failures += 1;
        if known.failures < MAX_FAILURES { None } else { self.remove(id) }
    }

    /// A node is gone.
    pub fn remove(&mut self, id: &NodeId) -> Option<Contact> {
        match self.bucket_of(id) {
            Some(index) => self.buckets[index].remove(id, self.scope),
            None => self.place_in_region(id).ok().map(|place| self.region.remove(place).contact),
        }
    }

    /// Takes out whose certificate has ended; they.
    pub fn expire(&mut self, now: Timestamp) -> Vec<NodeId> {
        let has_ended = |known: &&Known| known.contact.not_after <= now;
        let all = self.buckets.iter().flat_map(|bucket| &bucket.nodes).chain(&self.region);
        let ended: Vec<_> = all.filter(has_ended).map(|known| known.contact.id).collect();
        self.buckets.iter_mut().for_each(|bucket| bucket.spare.retain(|spare| spare.not_after > now));
        ended.iter().for_each(|id| drop(self.remove(id)));
        ended
    }

    /// Who is known, nearest to `target` first.
    pub fn nearest(&self, target: NodeId) -> impl Iterator<Item = &Known> {
        let bucket = move |index: u32| self.buckets[index as usize].nodes.iter().collect();
        nearest_known(self.own, self.block.bits().into(), target, bucket, &self.region)
    }

    /// What is answered to somebody who looks for `target`: the `count` nearest, few of one network.
    pub fn answer(&self, target: NodeId, count: usize, asker: &NodeId) -> Vec<Contact> {
        let mut nets = Nets::new(self.scope);
        let contacts = self.nearest(target).map(|known| &known.contact);
        let fit = contacts.filter(|contact| contact.id != *asker && nets.admit(contact, MAX_PER_NET));
        fit.take(count).cloned().collect()
    }

    /// The next `count` nodes of the region after the own id, round and round.
    pub fn successors(&self, count: usize) -> impl Iterator<Item = &Known> {
        let start = self.region.partition_point(|known| known.contact.id < self.own);
        self.region[start..].iter().chain(&self.region[..start]).take(count)
    }

    /// Everybody in the own region together with oneself, as one number: the exclusive or of the ids. Neighbours that
    /// have the same know the same.
    pub fn digest(&self) -> [u8; 32] {
        let ids = self.region.iter().map(|known| known.contact.id).chain([self.own]);
        ids.fold([0; 32], |sum, id| std::array::from_fn(|at| sum[at] ^ id.as_bytes()[at]))
    }

    fn bucket_of(&self, id: &NodeId) -> Option<usize> {
        let shared = self.own.common_prefix(id) as usize;
        (shared < self.buckets.len()).then_some(shared)
    }

    fn place_in_region(&self, id: &NodeId) -> Result<usize, usize> {
        self.region.binary_search_by(|known| known.contact.id.cmp(id))
    }

    fn most(&self) -> usize {
        self.config.region.saturating_mul(REGION_SLACK)
    }

    fn heard_in_region(&mut self, known: Known) -> Heard {
        match self.place_in_region(&known.contact.id) {
            Ok(place) => {
                self.region[place] = known;
                Heard::Nothing
            }
            Err(_) if self.region.len() >= self.most() => Heard::Nothing,
            Err(place) => {
                self.region.insert(place, known);
                Heard::Region
            }
        }
    }
}

impl Bucket {
    fn heard(&mut self, known: Known, size: usize, scope: Scope) -> Heard {
        let before = self.nodes.iter().position(|other| other.contact.id == known.contact.id);
        if let Some(place) = before {
            self.nodes.remove(place);
        }
        let (is_new, admits) = (before.is_none(), self.admits(&known.contact, scope));
        if admits && self.nodes.len() < size {
            self.nodes.push(known);
            return if is_new { Heard::Bucket } else { Heard::Nothing };
        }
        let Some(oldest) = self.nodes.first().filter(|_| admits) else { return Heard::Nothing };
        let oldest = oldest.contact.clone();
        self.spare.retain(|other| other.id != known.contact.id);
        if self.spare.len() >= size {
            self.spare.remove(0);
        }
        self.spare.push(known.contact);
        Heard::Full(oldest)
    }

    fn admits(&self, contact: &Contact, scope: Scope) -> bool {
        let mut nets = Nets::new(scope);
        self.nodes.iter().for_each(|known| nets.add(known.contact.address));
        nets.has_place(contact.address, MAX_PER_NET)
    }

    /// Takes a node out; the newest spare that the networks allow has its place.
    fn remove(&mut self, id: &NodeId, scope: Scope) -> Option<Contact> {
        self.spare.retain(|contact| contact.id != *id);
        let place = self.nodes.iter().position(|known| known.contact.id == *id)?;
        let gone = self.nodes.remove(place);
        if let Some(next) = self.spare.iter().rposition(|contact| self.admits(contact, scope)) {
            let contact = self.spare.remove(next);
            self.nodes.insert(0, Known { contact, heard: Time(0), failures: MAX_FAILURES - 1 });
        }
        Some(gone.contact)
    }
}

impl Placed for Known {
    fn place(&self) -> NodeId {
        self.contact.id
    }
}
