//! Who decides around a place: it follows from the members' places and from who answers.

use kith_identity::membership::tree::{Path, Range};
use kith_identity::membership::{Block, MemberLeaf, NodeId, REGION_MEMBERS, VerifiedEpoch, region_bits};

use super::{Refusal, Ticket};
use crate::ktable::{KTable, Network, Prefix};

/// The most members of a group: a list says their number in one byte.
pub(super) const MAX_SIGNERS: usize = 255;

/// The most actors that a selection may ask for: half of what a region holds on average.
pub(super) fn most_actors(members: u64) -> u64 {
    (members >> region_bits(members, REGION_MEMBERS)) / 2
}

/// What a member knows of its network: the epoch, its k-table, and all members of its own region R3.
#[derive(Clone, Debug)]
pub struct View {
    epoch: VerifiedEpoch,
    table: KTable<Prefix>,
    region: Range<MemberLeaf>,
    members: Vec<MemberLeaf>,
}

/// The members that decide together, nearest to their place first, and those nearer than the last that did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The block in which they are: its k-table entry.
    pub bits: u8,
    /// The members.
    pub members: Vec<MemberLeaf>,
    /// Who was left out, nearest first.
    pub skipped: Vec<NodeId>,
}

impl View {
    /// The view of a member whose region is `region`: everything is checked against the epoch's statement.
    pub fn new(epoch: VerifiedEpoch, region: Range<MemberLeaf>) -> Result<View, Refusal> {
        let facts = epoch.facts();
        let network = Network::new(facts.members, facts.colluding, facts.threshold.alpha())?;
        let table = KTable::dyadic(network)?;
        if table.hash() != facts.k_table {
            return Err(Refusal::Table);
        }
        if region.block().bits() != region_bits(facts.members, REGION_MEMBERS) {
            return Err(Refusal::Region);
        }
        let members = epoch.block(&region).map_err(|_| Refusal::Region)?.to_vec();
        Ok(View { epoch, table, region, members })
    }

    /// The epoch.
    pub fn epoch(&self) -> &VerifiedEpoch {
        &self.epoch
    }

    /// The epoch's k-table.
    pub fn table(&self) -> &KTable<Prefix> {
        &self.table
    }

    /// The region R3 of the member.
    pub fn region(&self) -> &Block {
        self.region.block()
    }

    /// The ids of all members of the region.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().map(|member| member.id)
    }

    /// All members of the region.
    pub fn leaves(&self) -> &[MemberLeaf] {
        &self.members
    }

    /// The member of the region with this id.
    pub(super) fn member(&self, id: &NodeId) -> Option<&MemberLeaf> {
        self.members.iter().find(|member| member.id == *id)
    }

    /// Proof that a member of the region is one.
    pub(super) fn path(&self, id: &NodeId) -> Result<Path<MemberLeaf>, Refusal> {
        self.region.path(id).ok_or(Refusal::Elsewhere)
    }

    /// All members of a block, where it lies in the region that is known.
    pub(super) fn members(&self, block: Block) -> Result<impl Iterator<Item = &MemberLeaf>, Refusal> {
        let known = self.region();
        if block.bits() < known.bits() || !known.contains(&block.first()) {
            return Err(Refusal::Elsewhere);
        }
        Ok(self.members.iter().filter(move |member| block.contains(&member.id)))
    }

    /// The smallest group around `center` that the k-table allows: the nearest members but `except`, without those that
    /// are `absent`.
    pub fn group(&self, center: &NodeId, except: &NodeId, absent: &[NodeId]) -> Result<Group, Refusal> {
        for row in self.table.rows().iter().filter(|row| row.k <= MAX_SIGNERS as u64) {
            let bits = row.region.bits;
            let mut members: Vec<_> = self.members(Block::around(center, bits))?.copied().collect();
            members.retain(|member| member.id != *except);
            members.sort_unstable_by_key(|member| center.distance(&member.id));
            let is_there = |member: &MemberLeaf| !absent.contains(&member.id);
            let Some(last) = members.iter().filter(|one| is_there(one)).nth(row.k as usize - 1) else {
                continue;
            };
            let last = center.distance(&last.id);
            let nearer = members.into_iter().filter(|member| center.distance(&member.id) <= last);
            let (members, skipped): (Vec<_>, Vec<_>) = nearer.partition(is_there);
            return Ok(Group { bits, members, skipped: skipped.iter().map(|one| one.id).collect() });
        }
        Err(Refusal::Sparse)
    }

    /// The witnesses of a draw, without those that are `absent`.
    pub fn witnesses(&self, ticket: &Ticket, absent: &[NodeId]) -> Result<Group, Refusal> {
        self.group(&ticket.place(&self.epoch), &ticket.trigger, absent)
    }

    /// Makes sure that these are the witnesses of a draw.
    pub(super) fn check_witnesses(&self, ticket: &Ticket, group: &Group) -> Result<(), Refusal> {
        self.check(&ticket.place(&self.epoch), &ticket.trigger, group)
    }

    /// Makes sure that nobody could have chosen another group: it is the one that follows, if those whom it leaves out
    /// are absent indeed.
    pub(super) fn check(&self, center: &NodeId, except: &NodeId, group: &Group) -> Result<(), Refusal> {
        if self.group(center, except, &group.skipped)? == *group { Ok(()) } else { Err(Refusal::Group) }
    }
}

impl Group {
    /// Who is in it.
    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.members.iter().map(|member| member.id).collect()
    }
}
