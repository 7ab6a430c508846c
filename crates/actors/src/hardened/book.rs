//! What a member remembers during an epoch, so that it signs nothing twice, and notices who does.

use std::collections::{BTreeMap, BTreeSet};

use kith_identity::membership::pledge::{Kind, Pledge, VerifiedEvidence};
use kith_identity::membership::{MemberLeaf, NodeId, VerifiedEpoch};
use kith_identity::{Fingerprint, PublicKey};
use kith_sansio::wire::{Reader, WireError, Writer};

use super::{Refusal, Ticket};
use crate::scheme::{Hash, Key, Signature};

/// What every book starts with.
const TAG: &[u8; 15] = b"kithnet book v1";
/// The most triggers, outcomes and barred members of a book, each.
const MAX_ENTRIES: usize = 1 << 16;
/// The most signers whose pledges are kept to notice contradictions, and the most pledges of each.
const MAX_SIGNERS: usize = 4096;
const MAX_OF_ONE: usize = 64;

/// Why bytes are no book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// The bytes are too short or too long.
    #[error("not a book: {0}")]
    Form(#[from] WireError),
    /// Another kind of file, or another version.
    #[error("not a book of version 1")]
    Tag,
    /// The entries of a list do not rise, or are too many.
    #[error("the entries of the book are out of order or too many")]
    Entries,
}

/// What a member signed in one epoch, and whom it takes no part with. It is good for that epoch alone.
///
/// It is on the disk before a signature leaves ([`super::Output::Keep`]). A member whose book of the running epoch is
/// lost cannot know what it signed, and makes a new one only for the next epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    network: Fingerprint,
    epoch: u64,
    quota: u32,
    last: BTreeMap<NodeId, u32>,
    signed: BTreeSet<Hash>,
    barred: BTreeSet<Key>,
}

impl Book {
    /// An empty book, in which each trigger has `quota` draws, for an epoch in which nothing was signed yet.
    pub fn new(epoch: &VerifiedEpoch, quota: u32) -> Book {
        Book {
            network: epoch.network().id(),
            epoch: epoch.facts().epoch,
            quota,
            last: BTreeMap::new(),
            signed: BTreeSet::new(),
            barred: BTreeSet::new(),
        }
    }

    /// A book for an epoch of which it is not known what was signed: good for nothing but to be on the disk when the next
    /// epoch begins.
    pub fn closed(epoch: &VerifiedEpoch) -> Book {
        Book::new(epoch, 0)
    }

    /// Whether it is one of [`Book::closed`].
    pub fn is_closed(&self) -> bool {
        self.quota == 0
    }

    /// Whether it is the one for this epoch.
    pub fn is_for(&self, epoch: &VerifiedEpoch) -> bool {
        self.network == epoch.network().id() && self.epoch == epoch.facts().epoch
    }

    /// The network and the number of the epoch.
    pub fn of(&self) -> (Fingerprint, u64) {
        (self.network, self.epoch)
    }

    /// The number of this trigger's next draw; `None` where its quota is used up.
    pub fn next(&self, trigger: &NodeId) -> Option<u32> {
        let last = self.last.get(trigger).copied().unwrap_or(0);
        (last < self.quota).then_some(last + 1)
    }

    /// How many draws this trigger has left.
    pub fn left(&self, trigger: &NodeId) -> u32 {
        self.quota.saturating_sub(self.last.get(trigger).copied().unwrap_or(0))
    }

    /// Takes no further part with a member against which there is evidence, for the rest of the epoch; whether the
    /// evidence is against this member, in this network.
    pub fn bar(&mut self, member: &MemberLeaf, evidence: &VerifiedEvidence) -> bool {
        let is_against =
            *evidence.signer().as_bytes() == member.key && evidence.slot().network == self.network;
        if is_against && has_room(self.barred.len()) {
            self.barred.insert(member.key);
        }
        is_against
    }

    /// Whether this member was barred.
    pub fn is_barred(&self, member: &MemberLeaf) -> bool {
        self.barred.contains(&member.key)
    }

    /// Notes that a draw is signed; refuses numbers that do not rise, and those beyond the quota.
    pub(super) fn draw(&mut self, ticket: &Ticket) -> Result<(), Refusal> {
        self.check(ticket)?;
        let last = self.last.get(&ticket.trigger).copied();
        if ticket.sequence <= last.unwrap_or(0) || ticket.sequence > self.quota {
            return Err(Refusal::Sequence);
        }
        if last.is_none() && !has_room(self.last.len()) {
            return Err(Refusal::Full);
        }
        self.last.insert(ticket.trigger, ticket.sequence);
        Ok(())
    }

    /// Notes that the member takes part in finding the outcome of a draw after so many moves; refuses a second time.
    pub(super) fn outcome(&mut self, ticket: &Ticket, moves: usize) -> Result<(), Refusal> {
        self.check(ticket)?;
        let slot = ticket.outcome(moves).key;
        if self.signed.contains(&slot) {
            return Err(Refusal::Sequence);
        }
        if !has_room(self.signed.len()) {
            return Err(Refusal::Full);
        }
        self.signed.insert(slot);
        Ok(())
    }

    fn check(&self, ticket: &Ticket) -> Result<(), Refusal> {
        let is_of = (ticket.network, ticket.epoch) == (self.network, self.epoch) && self.quota > 0;
        if is_of { Ok(()) } else { Err(Refusal::Book) }
    }

    /// The book in these bytes; refuses every form but the one of [`Book::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Book, BookError> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != *TAG {
            return Err(BookError::Tag);
        }
        let (network, epoch) = (Fingerprint::from_bytes(reader.array()?), reader.u64()?);
        let quota = reader.u32()?;
        let last = entries(&mut reader, |reader| Ok((NodeId::from_bytes(reader.array()?), reader.u32()?)))?;
        let signed = entries(&mut reader, |reader| Ok((reader.array()?, ())))?.into_keys().collect();
        let barred = entries(&mut reader, |reader| Ok((reader.array()?, ())))?.into_keys().collect();
        reader.finish()?;
        Ok(Book { network, epoch, quota, last, signed, barred })
    }

    /// Its bytes: `"kithnet book v1" ‖ 32 bytes network ‖ u64 epoch ‖ u32 quota`, and three lists, each after its length
    /// as u32 and rising: `32 bytes trigger ‖ u32 last sequence`, 32 bytes of each outcome, 32 bytes of each barred key.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(TAG).bytes(self.network.as_bytes()).u64(self.epoch).u32(self.quota);
        writer.u32(self.last.len() as u32);
        for (trigger, sequence) in &self.last {
            writer.bytes(trigger.as_bytes()).u32(*sequence);
        }
        for set in [&self.signed, &self.barred] {
            writer.u32(set.len() as u32);
            set.iter().for_each(|entry| {
                writer.bytes(entry);
            });
        }
        writer.finish()
    }
}

fn has_room(entries: usize) -> bool {
    entries < MAX_ENTRIES
}

fn entries<K: Ord, V>(
    reader: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<(K, V), WireError>,
) -> Result<BTreeMap<K, V>, BookError> {
    let count = reader.u32()? as usize;
    if count > MAX_ENTRIES {
        return Err(BookError::Entries);
    }
    let entries = (0..count).map(|_| read(reader)).collect::<Result<Vec<_>, _>>()?;
    if entries.is_sorted_by(|a, b| a.0 < b.0) {
        Ok(entries.into_iter().collect())
    } else {
        Err(BookError::Entries)
    }
}

/// A kind, the network and the key of a slot.
type WholeSlot = (Kind, [u8; 32], Hash);

/// Pledges of others that a member has seen: so many of so many signers that none of them keeps out another's.
#[derive(Debug, Default)]
pub struct Witnessed(BTreeMap<Key, Seen>);

/// What one signer has pledged.
#[derive(Debug)]
enum Seen {
    Pledges(BTreeMap<WholeSlot, (Pledge, Signature)>),
    /// It has contradicted itself.
    Exposed,
}

impl Witnessed {
    /// Keeps a pledge whose signature was checked; gives evidence where the signer pledged something else about the
    /// same before, once for each signer.
    pub fn note(
        &mut self,
        signer: &PublicKey,
        pledge: Pledge,
        signature: Signature,
    ) -> Option<VerifiedEvidence> {
        let is_known = self.0.contains_key(signer.as_bytes());
        if !is_known && self.0.len() >= MAX_SIGNERS {
            return None;
        }
        let seen = self.0.entry(*signer.as_bytes()).or_insert(Seen::Pledges(BTreeMap::new()));
        let Seen::Pledges(theirs) = seen else { return None };
        let slot = (pledge.slot.kind, *pledge.slot.network.as_bytes(), pledge.slot.key);
        if let Some((before, first)) = theirs.get(&slot) {
            let evidence = VerifiedEvidence::of(signer, (before, first), (&pledge, &signature)).ok()?;
            *seen = Seen::Exposed;
            return Some(evidence);
        }
        if theirs.len() < MAX_OF_ONE {
            theirs.insert(slot, (pledge, signature));
        }
        None
    }
}
