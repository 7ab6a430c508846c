use std::fmt;

use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};

use super::member::MemberLeaf;
use super::network::{ClaimedNetwork, NETWORK_BYTES, Network};
use super::pledge::{Kind, Pledge, Slot};
use super::signature::Batch;
use super::tree::{Leaf, Path, Range, Root, TreeError};
use super::{NodeId, StatementError};
use crate::{Fingerprint, Identity};

/// What every statement starts with.
const TAG: &[u8; 16] = b"kithnet epoch v1";
/// What the issuer signs, in bytes.
const SIGNED_BYTES: usize = TAG.len() + NETWORK_BYTES + 8 + 8 + 4 + 3 * 8 + 3 * 32;
/// Length of a statement in bytes.
pub const EPOCH_BYTES: usize = SIGNED_BYTES + 64;

/// α: how improbable it has to be that one adversary controls a whole group of deciding nodes (SEP2P §3.3). Above 0
/// and below 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Threshold(u64);

/// What an epoch says of its network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochFacts {
    /// The number of the epoch, one more than that of the last.
    pub epoch: u64,
    /// When it begins.
    pub starts: Timestamp,
    /// How long it is meant to last, in seconds.
    pub seconds: u32,
    /// N: how many members there are.
    pub members: u64,
    /// C: how many of them one adversary may control.
    pub colluding: u64,
    /// α.
    pub threshold: Threshold,
    /// The hash of the table of group sizes and regions that follows from these three.
    pub k_table: [u8; 32],
    /// What stands for all members whose certificates are not valid any more before their time.
    pub revoked: Root,
    /// What stands for all members.
    pub roll: Root,
}

/// A well-formed statement of an epoch. **Not verified**: anybody can have made it.
///
/// ```text
/// "kithnet epoch v1" ‖ 44 bytes issuer's SPKI ‖ 32 bytes key of its random function
///   ‖ u64 epoch ‖ u64 starts ‖ u32 seconds ‖ u64 N ‖ u64 C ‖ u64 α, bits of an IEEE 754 number
///   ‖ 32 bytes hash of the k-table ‖ 32 bytes revocation root ‖ 32 bytes member root ‖ 64 bytes signature
/// ```
///
/// The signature is over a [`Pledge`] about the number of the epoch, whose content is sha3-256 over all before it.
#[derive(Clone, PartialEq, Eq)]
pub struct Epoch {
    bytes: [u8; EPOCH_BYTES],
    network: ClaimedNetwork,
    facts: EpochFacts,
}

/// A statement that the issuer has signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedEpoch {
    statement: Epoch,
    network: Network,
}

/// A statement of the right network with sound keys, of which it is not known yet whether the issuer has signed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PresumedEpoch(VerifiedEpoch);

/// What the tree of revocations holds: `32 bytes fingerprint`, which is its place in that tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RevokedLeaf(pub Fingerprint);

impl Threshold {
    /// 1e-12.
    pub const DEFAULT: Threshold = Threshold(1e-12_f64.to_bits());

    /// The threshold, where the number lies between 0 and 1.
    pub fn new(alpha: f64) -> Option<Threshold> {
        (alpha.is_normal() && alpha > 0.0 && alpha < 1.0).then_some(Threshold(alpha.to_bits()))
    }

    /// The number.
    pub fn alpha(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl EpochFacts {
    /// When the next epoch is meant to begin.
    pub fn ends(&self) -> Timestamp {
        self.starts.plus_secs(u64::from(self.seconds))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<EpochFacts>, WireError> {
        let (epoch, starts, seconds) = (reader.u64()?, Timestamp(reader.u64()?), reader.u32()?);
        let (members, colluding, alpha) = (reader.u64()?, reader.u64()?, f64::from_bits(reader.u64()?));
        let k_table = reader.array()?;
        let (revoked, roll) = (Root::from_bytes(reader.array()?), Root::from_bytes(reader.array()?));
        Ok(Threshold::new(alpha).map(|threshold| EpochFacts {
            epoch,
            starts,
            seconds,
            members,
            colluding,
            threshold,
            k_table,
            revoked,
            roll,
        }))
    }

    fn write(&self, writer: &mut Writer) {
        writer.u64(self.epoch).u64(self.starts.0).u32(self.seconds);
        writer.u64(self.members).u64(self.colluding).u64(self.threshold.0);
        writer.bytes(&self.k_table).bytes(self.revoked.as_bytes()).bytes(self.roll.as_bytes());
    }
}

impl Epoch {
    /// The statement in these bytes; refuses every form but the one of [`Epoch::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Epoch, StatementError> {
        let bytes: [u8; EPOCH_BYTES] = bytes.try_into().map_err(|_| StatementError::Length(bytes.len()))?;
        let short = |_: WireError| StatementError::Length(EPOCH_BYTES);
        let mut reader = Reader::new(&bytes);
        if reader.array().map_err(short)? != *TAG {
            return Err(StatementError::Tag("kithnet epoch v1"));
        }
        let network = ClaimedNetwork::read(&mut reader).map_err(short)?;
        let facts = EpochFacts::read(&mut reader).map_err(short)?.ok_or(StatementError::Threshold)?;
        if facts.seconds == 0 || facts.ends() > Timestamp::MAX {
            return Err(StatementError::Times);
        }
        Ok(Epoch { bytes, network, facts })
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; EPOCH_BYTES] {
        self.bytes
    }

    /// The network that it says it is of. Unverified.
    pub fn claimed_network(&self) -> Fingerprint {
        self.network.id()
    }

    /// Makes sure that the issuer with this fingerprint has signed it and that its keys are sound. Whether it is the
    /// epoch of now is for the caller to judge.
    pub fn verify(self, issuer: &Fingerprint) -> Result<VerifiedEpoch, StatementError> {
        self.presume(issuer)?.verify_alone()
    }

    /// [`Epoch::verify`] without the check of the signature, for who checks it together with others: see
    /// [`PresumedEpoch`].
    pub fn presume(self, issuer: &Fingerprint) -> Result<PresumedEpoch, StatementError> {
        let network = self.network.verify(issuer)?;
        Ok(PresumedEpoch(VerifiedEpoch { statement: self, network }))
    }

    /// What the issuer has signed: two of one epoch are evidence against it.
    pub fn pledge(&self) -> Pledge {
        pledge(&self.network.id(), self.facts.epoch, &self.bytes[..SIGNED_BYTES])
    }

    /// The issuer's signature over [`Epoch::pledge`].
    pub fn signature(&self) -> [u8; 64] {
        std::array::from_fn(|at| self.bytes[SIGNED_BYTES + at])
    }
}

impl PresumedEpoch {
    /// What it will be. Nothing that follows from it counts before its signature was checked.
    pub fn presumed(&self) -> &VerifiedEpoch {
        &self.0
    }

    /// Checks the issuer's signature and those of `others` in one batch; `None` where not all of them hold.
    pub fn verify_with(self, mut others: Batch) -> Option<VerifiedEpoch> {
        let statement = &self.0.statement;
        others.add(self.0.network.issuer(), &statement.pledge().message(), &statement.signature());
        others.verify().is_ok().then_some(self.0)
    }

    /// Checks the issuer's signature.
    pub fn verify_alone(self) -> Result<VerifiedEpoch, StatementError> {
        let statement = &self.0.statement;
        let checked = statement.pledge().verify(self.0.network.issuer(), &statement.signature());
        checked.map(|()| self.0).map_err(|_| StatementError::Signature)
    }
}

impl VerifiedEpoch {
    /// Signs the statement of an epoch.
    pub(super) fn sign(issuer: &Identity, facts: &EpochFacts) -> Result<VerifiedEpoch, StatementError> {
        let network = Network::of(issuer);
        let mut writer = Writer::new();
        writer.bytes(TAG);
        network.write(&mut writer);
        facts.write(&mut writer);
        let signed = writer.finish();
        let signature = pledge(&network.id(), facts.epoch, &signed).sign(issuer);
        let statement = Epoch::from_bytes(&[&signed[..], &signature].concat())?;
        Ok(VerifiedEpoch { statement, network })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What it says.
    pub fn facts(&self) -> &EpochFacts {
        &self.statement.facts
    }

    /// The statement without the proof, for a codec or a store.
    pub fn as_epoch(&self) -> &Epoch {
        &self.statement
    }

    /// The member that a path shows.
    pub fn member<'a>(&self, path: &'a Path<MemberLeaf>) -> Result<&'a MemberLeaf, TreeError> {
        path.verify(&self.facts().roll)
    }

    /// All members of the block of a range.
    pub fn block<'a>(&self, range: &'a Range<MemberLeaf>) -> Result<&'a [MemberLeaf], TreeError> {
        range.verify(&self.facts().roll)
    }

    /// All revoked members whose fingerprints lie in the block of a range; none shows that there is none.
    pub fn revoked<'a>(&self, range: &'a Range<RevokedLeaf>) -> Result<&'a [RevokedLeaf], TreeError> {
        range.verify(&self.facts().revoked)
    }
}

impl Leaf for RevokedLeaf {
    const BYTES: usize = 32;
    const KEY: &'static [u8; 32] = b"kithnet tree revoked leaf v1\0\0\0\0";

    fn id(&self) -> NodeId {
        NodeId::from_bytes(*self.0.as_bytes())
    }

    fn write(&self, writer: &mut Writer) {
        writer.bytes(self.0.as_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.array().map(|bytes| RevokedLeaf(Fingerprint::from_bytes(bytes)))
    }
}

fn pledge(network: &Fingerprint, epoch: u64, signed: &[u8]) -> Pledge {
    Pledge::new(Slot::numbered(Kind::EPOCH, *network, epoch), signed)
}

impl fmt::Debug for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:e}", self.alpha())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({} of {})", self.facts.epoch, self.claimed_network())
    }
}
