use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::{Debug, Display};

use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, Writer};

use super::StatementError;
use super::epoch::{EpochFacts, RevokedLeaf, Threshold, VerifiedEpoch};
use super::member::{MEMBER_BYTES, Member, MemberLeaf, Validity, VerifiedMember, VerifiedRequest};
use super::network::{Network, prove_nonce};
use super::pledge::VerifiedEvidence;
use super::tree::{Tree, TreeError};
use crate::{Fingerprint, Identity, vrf};

/// Length in bytes of what a ledger keeps of one member.
pub const ENROLMENT_BYTES: usize = MEMBER_BYTES + 8;

/// Why an issuer does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError<E: Debug + Display> {
    /// The key was a member and has been revoked, which is for good.
    #[error("{0} has been revoked")]
    Revoked(Fingerprint),
    /// The key is a member with another random function: a second one would give it a second draw.
    #[error("{0} has joined with another key of its random function")]
    OtherVrf(Fingerprint),
    /// Nobody of this fingerprint is a member.
    #[error("{0} is no member")]
    Unknown(Fingerprint),
    /// The evidence is about another network.
    #[error("the evidence is about the network {0}")]
    Foreign(Fingerprint),
    /// What would have been signed is no statement, or what the ledger holds is none; the clock may be beyond its time.
    #[error("a statement cannot be made: {0}")]
    Statement(#[from] StatementError),
    /// Two members have one place, which no honest random function gives.
    #[error("the members have no tree: {0}")]
    Tree(#[from] TreeError),
    /// The ledger could not be read or written.
    #[error("the book of the members: {0}")]
    Ledger(E),
}

/// What the issuer of a network has decided once and for all its members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// How long a certificate is valid, in seconds.
    pub certificate_secs: u64,
    /// How long an epoch is meant to last, in seconds.
    pub epoch_secs: u32,
    /// How many of a thousand members one adversary may control …
    pub colluding_per_mille: u32,
    /// … and how many in any case.
    pub colluding_least: u64,
    /// α.
    pub threshold: Threshold,
}

/// What an issuer keeps of one member: `337 bytes the last certificate ‖ u64 when it was revoked, 0 where it was not`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Enrolment {
    /// The last certificate.
    pub member: Member,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// The numbers that an issuer has given out last; neither is ever given out twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// The serial number of the last certificate.
    pub serial: u64,
    /// The number of the last epoch.
    pub epoch: u64,
}

/// Where an issuer keeps its book.
pub trait Ledger {
    /// Why it cannot be read or written.
    type Error: Debug + Display;

    /// What it holds of this member.
    fn enrolment(&self, member: &Fingerprint) -> Result<Option<Enrolment>, Self::Error>;

    /// What it holds of all.
    fn enrolments(&self) -> Result<Vec<Enrolment>, Self::Error>;

    /// The numbers given out last; zeros at first.
    fn counters(&self) -> Result<Counters, Self::Error>;

    /// Writes both in one step, which is durable when this returns: what it makes possible is signed afterwards.
    fn write(&mut self, counters: Counters, enrolment: Option<&Enrolment>) -> Result<(), Self::Error>;
}

/// A ledger that forgets everything when it is dropped: for tests and simulations.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger {
    enrolments: BTreeMap<Fingerprint, Enrolment>,
    counters: Counters,
}

/// The issuer of a network: admits members, revokes them, and states the epochs.
pub struct Issuer<L> {
    identity: Identity,
    vrf: vrf::Secret,
    network: Network,
    terms: Terms,
    ledger: L,
}

/// An epoch with the trees behind its roots, from which members get their proofs.
#[derive(Clone, Debug)]
pub struct Rolled {
    /// The statement.
    pub epoch: VerifiedEpoch,
    /// All members.
    pub members: Tree<MemberLeaf>,
    /// All that were revoked before their certificates end.
    pub revoked: Tree<RevokedLeaf>,
}

impl Default for Terms {
    /// Ninety days, one hour, 1 % and at least ten, 1e-12.
    fn default() -> Self {
        Terms {
            certificate_secs: 90 * 86_400,
            epoch_secs: 3600,
            colluding_per_mille: 10,
            colluding_least: 10,
            threshold: Threshold::DEFAULT,
        }
    }
}

impl Terms {
    /// C: how many of so many members one adversary may control.
    pub fn colluding(&self, members: u64) -> u64 {
        let share = u128::from(members) * u128::from(self.colluding_per_mille);
        u64::try_from(share.div_ceil(1000)).unwrap_or(u64::MAX).max(self.colluding_least)
    }
}

impl<L: Ledger> Issuer<L> {
    /// The issuer of the network that is named after this identity, with its book.
    pub fn new(identity: Identity, terms: Terms, ledger: L) -> Issuer<L> {
        let (vrf, network) = (identity.vrf_secret(), Network::of(&identity));
        Issuer { identity, vrf, network, terms, ledger }
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The book.
    pub fn ledger(&self) -> &L {
        &self.ledger
    }

    /// Makes the node of a request a member, or renews its certificate: with the same nonce, so it stays where it is.
    /// As long as half of the time of its last certificate is left, that one is given again.
    ///
    /// Who may join is for the caller to decide.
    pub fn admit(
        &mut self,
        request: &VerifiedRequest,
        now: Timestamp,
    ) -> Result<VerifiedMember, IssuerError<L::Error>> {
        let fingerprint = request.key().fingerprint();
        let known = self.ledger.enrolment(&fingerprint).map_err(IssuerError::Ledger)?;
        let mut not_after = now.plus_secs(self.terms.certificate_secs);
        if let Some(enrolment) = known {
            if enrolment.revoked.is_some() {
                return Err(IssuerError::Revoked(fingerprint));
            }
            let last = enrolment.member.verify_at_any_time(&self.network)?;
            if last.vrf() != request.vrf() {
                return Err(IssuerError::OtherVrf(fingerprint));
            }
            if now >= last.not_before() && last.not_after().secs_since(now) > self.terms.certificate_secs / 2
            {
                return Ok(last);
            }
            // A clock that went back must not hide a longer certificate that is still out: a revocation lasts as long
            // as what the ledger has.
            not_after = not_after.max(last.not_after());
        }
        let mut counters = self.ledger.counters().map_err(IssuerError::Ledger)?;
        counters.serial += 1;
        let validity = Validity { serial: counters.serial, not_before: now, not_after };
        let proof = prove_nonce(&self.vrf, &self.network.id(), &fingerprint);
        let member = VerifiedMember::sign(&self.identity, &self.network, request, proof, validity)?;
        let enrolment = Enrolment { member: member.as_member().clone(), revoked: None };
        self.ledger.write(counters, Some(&enrolment)).map_err(IssuerError::Ledger)?;
        Ok(member)
    }

    /// Revokes a member for good; false where it was before. The next epoch tells it.
    pub fn revoke(&mut self, member: &Fingerprint, now: Timestamp) -> Result<bool, IssuerError<L::Error>> {
        let known = self.ledger.enrolment(member).map_err(IssuerError::Ledger)?;
        let mut enrolment = known.ok_or(IssuerError::Unknown(*member))?;
        if enrolment.revoked.is_some() {
            return Ok(false);
        }
        // 0 stands for never in the ledger, and no clock says so by right.
        enrolment.revoked = Some(now.max(Timestamp(1)));
        let counters = self.ledger.counters().map_err(IssuerError::Ledger)?;
        self.ledger.write(counters, Some(&enrolment)).map_err(IssuerError::Ledger)?;
        Ok(true)
    }

    /// Revokes a member that has broken a pledge in this network; false where it was revoked before.
    pub fn accuse(
        &mut self,
        evidence: &VerifiedEvidence,
        now: Timestamp,
    ) -> Result<bool, IssuerError<L::Error>> {
        let network = evidence.slot().network;
        if network != self.network.id() {
            return Err(IssuerError::Foreign(network));
        }
        self.revoke(&evidence.signer().fingerprint(), now)
    }

    /// Begins the next epoch with everybody who is a member now. `k_table` gives the hash of the table that follows
    /// from N, C and α, which is a matter of higher floors.
    pub fn roll(
        &mut self,
        now: Timestamp,
        k_table: impl FnOnce(u64, u64, Threshold) -> [u8; 32],
    ) -> Result<Rolled, IssuerError<L::Error>> {
        let (mut members, mut revoked) = (Vec::new(), Vec::new());
        for enrolment in self.ledger.enrolments().map_err(IssuerError::Ledger)? {
            // Whose certificate has ended is not a member and need not be revoked.
            if enrolment.member.not_after() <= now {
                continue;
            }
            match enrolment.revoked {
                None => members.push(enrolment.member.own_leaf()?),
                Some(_) => revoked.push(RevokedLeaf(enrolment.member.claimed())),
            }
        }
        let (members, revoked) = (Tree::new(members)?, Tree::new(revoked)?);
        // Nothing is signed about an epoch before its number is used up for good.
        let mut counters = self.ledger.counters().map_err(IssuerError::Ledger)?;
        counters.epoch += 1;
        self.ledger.write(counters, None).map_err(IssuerError::Ledger)?;
        let count = members.leaves().len() as u64;
        let (colluding, threshold) = (self.terms.colluding(count), self.terms.threshold);
        let facts = EpochFacts {
            epoch: counters.epoch,
            starts: now,
            seconds: self.terms.epoch_secs,
            members: count,
            colluding,
            threshold,
            k_table: k_table(count, colluding, threshold),
            revoked: revoked.root(),
            roll: members.root(),
        };
        let epoch = VerifiedEpoch::sign(&self.identity, &facts)?;
        Ok(Rolled { epoch, members, revoked })
    }
}

impl Enrolment {
    /// Reads it from a row; refuses every form but the one of [`Enrolment::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Enrolment, StatementError> {
        let mut reader = Reader::new(bytes);
        let length = |_| StatementError::Length(bytes.len());
        let member = Member::from_bytes(reader.bytes(MEMBER_BYTES).map_err(length)?)?;
        let revoked = Timestamp(reader.u64().map_err(length)?);
        reader.finish().map_err(length)?;
        if revoked > Timestamp::MAX {
            return Err(StatementError::Times);
        }
        Ok(Enrolment { member, revoked: (revoked > Timestamp(0)).then_some(revoked) })
    }

    /// Its row, of [`ENROLMENT_BYTES`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(&self.member.to_bytes()).u64(self.revoked.map_or(0, |at| at.0));
        writer.finish()
    }
}

impl Ledger for MemoryLedger {
    type Error = Infallible;

    fn enrolment(&self, member: &Fingerprint) -> Result<Option<Enrolment>, Infallible> {
        Ok(self.enrolments.get(member).cloned())
    }

    fn enrolments(&self) -> Result<Vec<Enrolment>, Infallible> {
        Ok(self.enrolments.values().cloned().collect())
    }

    fn counters(&self) -> Result<Counters, Infallible> {
        Ok(self.counters)
    }

    fn write(&mut self, counters: Counters, enrolment: Option<&Enrolment>) -> Result<(), Infallible> {
        self.counters = counters;
        if let Some(enrolment) = enrolment {
            self.enrolments.insert(enrolment.member.claimed(), enrolment.clone());
        }
        Ok(())
    }
}
