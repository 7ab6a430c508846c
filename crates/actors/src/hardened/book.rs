//! What a member remembers during an epoch, so that it signs nothing twice, and notices who does.

use std::collections::{BTreeMap, BTreeSet};

use kith_identity::PublicKey;
use kith_identity::membership::NodeId;
use kith_identity::membership::pledge::{Pledge, VerifiedEvidence};

use super::Refusal;
use crate::scheme::Signature;

/// The most pledges of others that are kept to notice contradictions.
const MAX_WITNESSED: usize = 4096;

/// A member's own signatures of one epoch. Whoever keeps it on a disk does so before a message leaves.
#[derive(Clone, Debug)]
pub struct Book {
    quota: u32,
    last: BTreeMap<NodeId, u32>,
    signed: BTreeSet<[u8; 32]>,
    barred: BTreeSet<NodeId>,
}

impl Book {
    /// An empty book, in which each trigger has `quota` draws.
    pub fn new(quota: u32) -> Book {
        Book { quota, last: BTreeMap::new(), signed: BTreeSet::new(), barred: BTreeSet::new() }
    }

    /// Takes no further part with this member: it accepted and did not reveal.
    pub fn bar(&mut self, member: NodeId) {
        self.barred.insert(member);
    }

    /// Whether this member was barred.
    pub fn is_barred(&self, member: &NodeId) -> bool {
        self.barred.contains(member)
    }

    /// Notes that a draw of the trigger is signed; refuses numbers that do not rise, and those beyond the quota.
    pub(super) fn draw(&mut self, trigger: &NodeId, sequence: u32) -> Result<(), Refusal> {
        let last = self.last.entry(*trigger).or_default();
        if !(*last + 1..=self.quota).contains(&sequence) {
            return Err(Refusal::Sequence);
        }
        *last = sequence;
        Ok(())
    }

    /// Notes that the member takes part in what this slot is about; refuses a second time.
    pub(super) fn once(&mut self, pledge: [u8; 32]) -> Result<(), Refusal> {
        if self.signed.insert(pledge) { Ok(()) } else { Err(Refusal::Sequence) }
    }
}

/// Pledges of others that a member has seen.
#[derive(Debug, Default)]
pub struct Witnessed(BTreeMap<([u8; 32], [u8; 32]), (Pledge, Signature)>);

impl Witnessed {
    /// Keeps a pledge whose signature was checked; gives evidence where the signer pledged something else about the
    /// same before.
    pub fn note(
        &mut self,
        signer: &PublicKey,
        pledge: Pledge,
        signature: Signature,
    ) -> Option<VerifiedEvidence> {
        let at = (*signer.as_bytes(), pledge.slot.key);
        if let Some((before, first)) = self.0.get(&at) {
            return VerifiedEvidence::of(signer, (before, first), (&pledge, &signature)).ok();
        }
        if self.0.len() < MAX_WITNESSED {
            self.0.insert(at, (pledge, signature));
        }
        None
    }
}
