//! The actor list as a file, and how it is checked with nothing but the issuer's fingerprint.

use kith_identity::Fingerprint;
use kith_identity::membership::pledge::Pledge;
use kith_identity::membership::tree::{Leaf, Path, TreeError};
use kith_identity::membership::{
    Block, EPOCH_BYTES, Epoch, MemberLeaf, NodeId, REGION_MEMBERS, StatementError, VerifiedEpoch, region_bits,
};
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};

use super::Refusal;
use super::suite::{self, Claim};
use super::ticket::Ticket;
use crate::ktable::{Network, Prefix, TableError};
use crate::scheme::{Hash, Signature, hash};

/// What every list starts with.
const TAG: &[u8; 17] = b"kithnet actors v1";
/// Largest list in bytes.
pub const MAX_LIST_BYTES: usize = 1 << 20;
/// Most regions that a selection may leave.
pub(super) const MAX_MOVES: usize = 16;
/// Most actors of a list.
pub(super) const MAX_ACTORS: usize = 4096;

/// Why a list is none, or not to be trusted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The bytes are too short or too long.
    #[error("not an actor list: {0}")]
    Form(#[from] WireError),
    /// Another kind of file, or another version.
    #[error("not an actor list of version 1")]
    Tag,
    /// More moves or actors than a list may have.
    #[error("the list is too large")]
    TooLarge,
    /// The statement of the epoch does not hold.
    #[error("the statement of the epoch: {0}")]
    Epoch(#[from] StatementError),
    /// Somebody is no member of the epoch.
    #[error("a builder is no member: {0}")]
    Member(#[from] TreeError),
    /// The numbers of the epoch are those of no network.
    #[error("the epoch's numbers: {0}")]
    Numbers(#[from] TableError),
    /// The ticket is not one of the epoch of the statement.
    #[error(transparent)]
    Ticket(#[from] Refusal),
    /// So few of so large a region might all be controlled by one adversary.
    #[error("{k} builders out of a region of 2^-{bits} are too few")]
    TooFew {
        /// How many signed.
        k: u64,
        /// The bits of their region.
        bits: u8,
    },
    /// A builder is not in the region of its place, there twice, or the trigger itself.
    #[error("a builder may not sign this list")]
    Builder,
    /// A signature does not verify.
    #[error("a signature does not verify")]
    Signature,
    /// A region of another size, not as many actors as asked for, one of them twice, outside of it, or the trigger.
    #[error("the actors are not as they have to be")]
    Actors,
}

/// The signatures of all builders of one region, each with the proof that its builder is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// The bits of the block in which the builders are.
    pub bits: u8,
    /// The builders, nearest first, and what they signed.
    pub signatures: Vec<(Path<MemberLeaf>, Signature)>,
}

/// A well-formed actor list. **Not verified**: anybody can have made it. Bytes as in `docs/actors-protocol.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorList {
    /// The statement of the epoch.
    pub epoch: Epoch,
    /// The draw, and what it was for.
    pub ticket: Ticket,
    /// What came out of it.
    pub seed: Hash,
    /// The bits of the region from which the actors are.
    pub region_bits: u8,
    /// Who attests that a region held too few candidates, region by region.
    pub moves: Vec<Endorsement>,
    /// The actors, in their order.
    pub actors: Vec<MemberLeaf>,
    /// Who selected them.
    pub endorsement: Endorsement,
}

/// The builders of one region, and what they have signed.
type Step<'a> = (&'a Endorsement, Vec<&'a MemberLeaf>, Pledge);

/// An actor list whose every signature and proof holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedActorList {
    list: ActorList,
    epoch: VerifiedEpoch,
}

/// Where a draw selects, after so many regions that held too few candidates.
pub(super) fn place(seed: &Hash, moves: usize) -> NodeId {
    NodeId::from_bytes(hash(b"kithnet actors place v1", &[seed, &(moves as u64).to_be_bytes()]))
}

/// What a builder says about a draw after so many moves.
pub(super) struct Outcome<'a> {
    pub(super) ticket: &'a Ticket,
    pub(super) seed: &'a Hash,
    pub(super) moves: usize,
    /// The k-table's entry: the block of the builders and their number.
    pub(super) entry: (u8, usize),
    pub(super) region_bits: u8,
    pub(super) epoch: &'a VerifiedEpoch,
    /// The actors; none where the region holds too few candidates.
    pub(super) actors: Option<&'a [MemberLeaf]>,
}

impl Outcome<'_> {
    /// What the builder pledges; two of one draw and number of moves are evidence against it.
    pub(super) fn pledge(&self) -> Pledge {
        let mut writer = Writer::new();
        self.ticket.terms.write(&mut writer);
        let (bits, k) = self.entry;
        writer.bytes(self.seed).u8(bits).u16(k as u16).u8(self.region_bits);
        writer.bytes(self.epoch.facts().roll.as_bytes());
        match self.actors {
            None => writer.u8(0),
            Some(actors) => {
                let mut leaves = Writer::new();
                actors.iter().for_each(|actor| actor.write(&mut leaves));
                writer.u8(1).bytes(&hash(b"kithnet actors root v1", &[&leaves.finish()]))
            }
        };
        Pledge::new(self.ticket.outcome(self.moves), &writer.finish())
    }
}

impl Endorsement {
    /// The builders, where so many of their block are enough, each is a member and in it, and none is there twice.
    pub(super) fn builders(
        &self,
        place: &NodeId,
        trigger: &NodeId,
        epoch: &VerifiedEpoch,
    ) -> Result<Vec<&MemberLeaf>, ListError> {
        let facts = epoch.facts();
        let network = Network::new(facts.members, facts.colluding, facts.threshold.alpha())?;
        let (k, bits) = (self.signatures.len() as u64, self.bits);
        if !network.is_safe_block(k, Prefix { bits }) {
            return Err(ListError::TooFew { k, bits });
        }
        let block = Block::around(place, bits);
        let builders =
            self.signatures.iter().map(|(path, _)| epoch.member(path)).collect::<Result<Vec<_>, _>>()?;
        let are_lawful = builders.is_sorted_by(|a, b| place.distance(&a.id) < place.distance(&b.id))
            && builders.iter().all(|one| block.contains(&one.id) && one.id != *trigger);
        if are_lawful { Ok(builders) } else { Err(ListError::Builder) }
    }

    /// That each of the builders signed the pledge.
    pub(super) fn claims<'a>(
        &'a self,
        builders: &[&'a MemberLeaf],
        pledge: &'a Pledge,
    ) -> impl Iterator<Item = Claim<'a>> {
        let signatures = self.signatures.iter().map(|(_, signature)| signature);
        builders.iter().zip(signatures).map(move |(one, signature)| Claim {
            key: &one.key,
            pledge,
            signature,
        })
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Endorsement, TreeError> {
        let (bits, k) = (reader.u8()?, reader.u8()?);
        let signatures = (0..k).map(|_| Ok((Path::read(reader)?, reader.array()?)));
        Ok(Endorsement { bits, signatures: signatures.collect::<Result<_, TreeError>>()? })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(self.bits).u8(self.signatures.len() as u8);
        for (path, signature) in &self.signatures {
            path.write(writer);
            writer.bytes(signature);
        }
    }
}

impl ActorList {
    /// The list in these bytes; refuses every form but the one of [`ActorList::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<ActorList, ListError> {
        if bytes.len() > MAX_LIST_BYTES {
            return Err(ListError::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        if reader.array()? != *TAG {
            return Err(ListError::Tag);
        }
        let epoch = Epoch::from_bytes(reader.bytes(EPOCH_BYTES)?)?;
        let ticket = Ticket::read(&mut reader)?;
        let (seed, region_bits, moves) = (reader.array()?, reader.u8()?, usize::from(reader.u8()?));
        let actors = usize::from(reader.u16()?);
        if moves > MAX_MOVES || actors > MAX_ACTORS {
            return Err(ListError::TooLarge);
        }
        let moves = (0..moves).map(|_| Endorsement::read(&mut reader)).collect::<Result<_, _>>()?;
        let actors = (0..actors).map(|_| MemberLeaf::read(&mut reader)).collect::<Result<_, _>>()?;
        let endorsement = Endorsement::read(&mut reader)?;
        reader.finish()?;
        Ok(ActorList { epoch, ticket, seed, region_bits, moves, actors, endorsement })
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(TAG).bytes(&self.epoch.to_bytes());
        self.ticket.write(&mut writer);
        writer.bytes(&self.seed).u8(self.region_bits);
        writer.u8(self.moves.len() as u8).u16(self.actors.len() as u16);
        self.moves.iter().for_each(|one| one.write(&mut writer));
        self.actors.iter().for_each(|actor| actor.write(&mut writer));
        self.endorsement.write(&mut writer);
        writer.finish()
    }

    /// Makes sure that the builders of the place that the draw names have selected these actors, in the network of this
    /// issuer: its signature under the epoch and those of the builders in one batch.
    pub fn verify(self, issuer: &Fingerprint) -> Result<VerifiedActorList, ListError> {
        let epoch = self.epoch.clone().presume(issuer)?;
        let others = suite::batch(&ActorList::claims(&self.checked(epoch.presumed())?));
        match epoch.clone().verify_with(others) {
            Some(epoch) => Ok(VerifiedActorList { list: self, epoch }),
            // One of them does not hold; which one, a check alone tells.
            None => epoch.verify_alone().map_err(ListError::Epoch).and(Err(ListError::Signature)),
        }
    }

    /// [`ActorList::verify`] where the statement of the epoch was verified before: k paths, and k signatures in one
    /// batch; as many again for each move.
    pub fn verify_in(self, epoch: VerifiedEpoch) -> Result<VerifiedActorList, ListError> {
        if *epoch.as_epoch() != self.epoch {
            return Err(ListError::Ticket(Refusal::Epoch));
        }
        if !suite::verify(&ActorList::claims(&self.checked(&epoch)?)) {
            return Err(ListError::Signature);
        }
        Ok(VerifiedActorList { list: self, epoch })
    }

    /// Makes sure of everything but the signatures; gives who has to have signed what.
    fn checked(&self, epoch: &VerifiedEpoch) -> Result<Vec<Step<'_>>, ListError> {
        self.ticket.check(epoch)?;
        self.check_actors(epoch.facts().members)?;
        let steps = self.moves.iter().chain([&self.endorsement]).enumerate();
        let checked = steps.map(|(moves, step)| {
            let builders = step.builders(&place(&self.seed, moves), &self.ticket.trigger, epoch)?;
            Ok((step, builders, self.pledge(moves, step, epoch)))
        });
        checked.collect()
    }

    fn claims<'a>(steps: &'a [Step<'_>]) -> Vec<Claim<'a>> {
        steps.iter().flat_map(|(step, builders, pledge)| step.claims(builders, pledge)).collect()
    }

    fn pledge(&self, moves: usize, step: &Endorsement, epoch: &VerifiedEpoch) -> Pledge {
        Outcome {
            ticket: &self.ticket,
            seed: &self.seed,
            moves,
            entry: (step.bits, step.signatures.len()),
            region_bits: self.region_bits,
            epoch,
            actors: (moves == self.moves.len()).then_some(&self.actors),
        }
        .pledge()
    }

    fn check_actors(&self, members: u64) -> Result<(), ListError> {
        let region = Block::around(&place(&self.seed, self.moves.len()), self.region_bits);
        let mut ids: Vec<_> = self.actors.iter().map(|actor| actor.id).collect();
        ids.sort_unstable();
        let are_lawful = self.region_bits == region_bits(members, REGION_MEMBERS)
            && ids.len() == usize::from(self.ticket.terms.actors)
            && ids.is_sorted_by(|a, b| a < b)
            && ids.iter().all(|id| region.contains(id) && *id != self.ticket.trigger);
        if are_lawful { Ok(()) } else { Err(ListError::Actors) }
    }
}

impl VerifiedActorList {
    /// The actors, in their order.
    pub fn actors(&self) -> &[MemberLeaf] {
        &self.list.actors
    }

    /// The draw, and what it was for.
    pub fn ticket(&self) -> &Ticket {
        &self.list.ticket
    }

    /// The epoch.
    pub fn epoch(&self) -> &VerifiedEpoch {
        &self.epoch
    }

    /// Until when it is good, at most [`super::GRACE_SECS`] after its epoch: whoever uses it later is to be refused.
    pub fn expires(&self) -> Timestamp {
        self.list.ticket.terms.expires
    }

    /// SEP2P's security cost: a membership check and a signature check for each builder.
    pub fn operations(&self) -> usize {
        let steps = self.list.moves.iter().chain([&self.list.endorsement]);
        steps.map(|step| 2 * step.signatures.len()).sum()
    }

    /// The list without the proof that it holds, for a codec or a store.
    pub fn as_list(&self) -> &ActorList {
        &self.list
    }
}
