//! What a selection is for, and what its signers pledge.

use kith_identity::Fingerprint;
use kith_identity::membership::pledge::{Kind, Pledge, Slot};
use kith_identity::membership::{Block, NodeId, VerifiedEpoch, region_bits};
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};

use super::group::most_actors;
use super::{Group, Refusal};
use crate::scheme::{Hash, hash};

/// How long a list may be good after the end of its epoch, in seconds.
pub const GRACE_SECS: u64 = 600;

/// About how many members are around a trigger among whom the places of its draws are.
pub const AROUND: usize = 64;

/// What the actors are selected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Hash of the query's manifest.
    pub manifest: Hash,
    /// A, how many actors.
    pub actors: u16,
    /// What they are to do; one seed orders the candidates differently for each role.
    pub role: u8,
    /// Until when the list is good.
    pub expires: Timestamp,
}

/// One draw of a trigger: it has a quota of them in an epoch, numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The network.
    pub network: Fingerprint,
    /// The epoch.
    pub epoch: u64,
    /// T's place.
    pub trigger: NodeId,
    /// Which of the trigger's draws.
    pub sequence: u32,
    /// What it is for.
    pub terms: Terms,
}

impl Ticket {
    /// Makes sure that the ticket is of this epoch, not good for much longer, and for as many actors as a region has.
    pub(super) fn check(&self, epoch: &VerifiedEpoch) -> Result<(), Refusal> {
        let facts = epoch.facts();
        if (self.network, self.epoch) != (epoch.network().id(), facts.epoch) {
            return Err(Refusal::Epoch);
        }
        if self.terms.expires > facts.ends().plus_secs(GRACE_SECS) {
            return Err(Refusal::Lasting);
        }
        let most = most_actors(facts.members);
        if (1..=most).contains(&u64::from(self.terms.actors)) {
            Ok(())
        } else {
            Err(Refusal::Actors { most })
        }
    }

    /// The place around which its witnesses are: in the block of about [`AROUND`] members around T, whose bits it begins
    /// with, and the rest of `sha3-256("kithnet witnesses v1" ‖ input)`. So nobody is a witness of all draws of T, and all
    /// of them are among those whom T knows best.
    pub fn place(&self, epoch: &VerifiedEpoch) -> NodeId {
        let bits = region_bits(epoch.facts().members, AROUND);
        let rest = NodeId::from_bytes(hash(b"kithnet witnesses v1", &[&self.input()]));
        Block::around(&self.trigger, bits).filled(&rest)
    }

    /// What every random output is of: the draw alone, not what it is for, so that nobody can try several terms.
    pub fn input(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(b"kithnet draw v1").bytes(self.network.as_bytes()).u64(self.epoch);
        writer.bytes(self.trigger.as_bytes()).u32(self.sequence);
        writer.finish()
    }

    /// What the trigger and its witnesses pledge: this draw is for these terms, with this group of witnesses.
    pub fn pledge(&self, group: &Group) -> Pledge {
        let mut writer = Writer::new();
        self.terms.write(&mut writer);
        group.write(&mut writer);
        Pledge::new(self.slot(Kind::TICKET, 0), &writer.finish())
    }

    /// What a builder may say one thing about: the outcome of this draw after so many moves.
    pub(super) fn outcome(&self, moves: usize) -> Slot {
        self.slot(Kind::ACTOR_LIST, moves)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Ticket, WireError> {
        Ok(Ticket {
            network: Fingerprint::from_bytes(reader.array()?),
            epoch: reader.u64()?,
            trigger: NodeId::from_bytes(reader.array()?),
            sequence: reader.u32()?,
            terms: Terms::read(reader)?,
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.bytes(self.network.as_bytes()).u64(self.epoch);
        writer.bytes(self.trigger.as_bytes()).u32(self.sequence);
        self.terms.write(writer);
    }

    fn slot(&self, kind: Kind, moves: usize) -> Slot {
        let key = hash(b"kithnet actors slot v1", &[&self.input(), &(moves as u64).to_be_bytes()]);
        Slot { kind, network: self.network, key }
    }
}

impl Terms {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.manifest).u16(self.actors).u8(self.role).u64(self.expires.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Terms, WireError> {
        Ok(Terms {
            manifest: reader.array()?,
            actors: reader.u16()?,
            role: reader.u8()?,
            expires: Timestamp(reader.u64()?),
        })
    }
}
