use std::collections::{BTreeMap, BTreeSet};

use kith_sansio::Timestamp;

use super::StatementError;
use super::epoch::{RevokedLeaf, VerifiedEpoch};
use super::member::{Member, VerifiedMember};
use super::network::Network;
use super::pledge::{EvidenceError, VerifiedEvidence};
use super::tree::{Leaf, Range, TreeError};
use crate::Fingerprint;

/// Why a peer is not taken for a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShowError {
    /// The certificate is of somebody else.
    #[error("{peer} has shown the certificate of {found}")]
    NotTheirs {
        /// Who has shown it.
        peer: Fingerprint,
        /// Whose it is.
        found: Fingerprint,
    },
    /// The certificate does not hold.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The member has been revoked, or has broken a pledge.
    #[error("{0} is barred from the network")]
    Barred(Fingerprint),
}

/// What came of a statement of an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Adopted {
    /// It is the newest, and counts from now on.
    Newest,
    /// It is the one that counts, or older.
    Known,
    /// The issuer has said two things about one epoch. The first one counts.
    Contradiction(Box<VerifiedEvidence>),
}

/// What a node knows about who is a member of its network: from certificates that it was shown, the newest epoch, and
/// evidence. Answers from memory, of bounded size.
#[derive(Clone, Debug)]
pub struct Members {
    epoch: VerifiedEpoch,
    most: usize,
    /// Until when whose certificate is valid.
    shown: BTreeMap<Fingerprint, Timestamp>,
    /// The same by time, so that what ends first is found first.
    ends: BTreeSet<(Timestamp, Fingerprint)>,
    /// Revoked by the issuer, as of the newest epoch whose revocations were heard.
    revoked: BTreeSet<Fingerprint>,
    /// Known by evidence to have broken a pledge.
    accused: BTreeSet<Fingerprint>,
    /// Certificates that held when they were verified, of [`MAX_VERIFIED`] at most.
    verified: BTreeMap<Fingerprint, VerifiedMember>,
}

/// Certificates that need not be verified again: those of a node's neighbours, with room.
const MAX_VERIFIED: usize = 4_096;

impl Members {
    /// Nobody yet, in the network of this epoch. At most `most` are remembered, and one in any case; of more, those whose
    /// certificates end first have to show them again.
    pub fn new(epoch: VerifiedEpoch, most: usize) -> Members {
        Members {
            epoch,
            most,
            shown: BTreeMap::new(),
            ends: BTreeSet::new(),
            revoked: BTreeSet::new(),
            accused: BTreeSet::new(),
            verified: BTreeMap::new(),
        }
    }

    /// The newest epoch that is known.
    pub fn epoch(&self) -> &VerifiedEpoch {
        &self.epoch
    }

    /// The network.
    pub fn network(&self) -> &Network {
        self.epoch.network()
    }

    /// Takes the certificate that `peer`, who has proved its key, has shown: a member from then on. Where there is no room
    /// it is another one that is forgotten, whenever this certificate ends.
    pub fn show(
        &mut self,
        peer: &Fingerprint,
        certificate: Member,
        now: Timestamp,
    ) -> Result<VerifiedMember, ShowError> {
        let found = certificate.claimed();
        if found != *peer {
            return Err(ShowError::NotTheirs { peer: *peer, found });
        }
        let member = self.verify(certificate, now)?;
        self.forget(peer);
        if self.shown.len() >= self.most.max(1)
            && let Some((_, first)) = self.ends.first().copied()
        {
            self.forget(&first);
        }
        self.shown.insert(*peer, member.not_after());
        self.ends.insert((member.not_after(), *peer));
        Ok(member)
    }

    /// The member that a certificate proves, whoever has told of it; to be let in, a peer has to [`show`](Members::show)
    /// it. A certificate that was verified a while ago costs next to nothing.
    pub fn verify(&mut self, certificate: Member, now: Timestamp) -> Result<VerifiedMember, ShowError> {
        let owner = certificate.claimed();
        if self.is_barred(&owner) {
            return Err(ShowError::Barred(owner));
        }
        if let Some(known) = self.verified.get(&owner)
            && *known.as_member() == certificate
            && (known.not_before()..known.not_after()).contains(&now)
        {
            return Ok(known.clone());
        }
        let member = certificate.verify(self.network(), now)?;
        self.verified.insert(owner, member.clone());
        if self.verified.len() > MAX_VERIFIED {
            self.verified.pop_first();
        }
        Ok(member)
    }

    /// Whether this peer has shown a certificate that is still valid, and is not barred.
    pub fn is_member(&self, peer: &Fingerprint, now: Timestamp) -> bool {
        self.shown.get(peer).is_some_and(|end| now < *end)
    }

    /// How many have shown a certificate that is remembered.
    pub fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether nobody has.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// When the next certificate that is remembered ends: who was a member by it is none from then on.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Forgets the certificates that have ended; whether there were any.
    pub fn tidy(&mut self, now: Timestamp) -> bool {
        let before = self.shown.len();
        while let Some((end, peer)) = self.ends.first().copied()
            && end <= now
        {
            self.forget(&peer);
        }
        self.shown.len() < before
    }

    /// Takes the statement of an epoch of this network.
    pub fn adopt(&mut self, epoch: VerifiedEpoch) -> Result<Adopted, StatementError> {
        if epoch.network() != self.network() {
            let (wanted, found) = (self.network().id(), epoch.network().id());
            return Err(StatementError::Network { wanted, found });
        }
        match self.contradiction(&epoch) {
            Ok(evidence) => Ok(Adopted::Contradiction(Box::new(evidence))),
            Err(_) if epoch.facts().epoch > self.epoch.facts().epoch => {
                self.epoch = epoch;
                Ok(Adopted::Newest)
            }
            Err(_) => Ok(Adopted::Known),
        }
    }

    /// Takes the revocations of the newest epoch in one block of fingerprints, which may be all. Whoever is among them
    /// is a member no more; who is not any more, because the certificate has ended, is forgotten.
    pub fn revoke(&mut self, range: &Range<RevokedLeaf>) -> Result<(), TreeError> {
        let revoked: Vec<_> = self.epoch.revoked(range)?.iter().map(|leaf| leaf.0).collect();
        self.revoked.retain(|peer| !range.block().contains(&RevokedLeaf(*peer).id()));
        for peer in revoked {
            self.forget(&peer);
            self.revoked.insert(peer);
        }
        Ok(())
    }

    /// Drops a member that has broken a pledge in this network; whether anything came of it.
    ///
    /// Evidence about somebody who has shown no certificate here is not kept: anybody can make as much as they like
    /// about keys of their own. The issuer's next epoch tells of those that count.
    pub fn accuse(&mut self, evidence: &VerifiedEvidence) -> bool {
        let accused = evidence.signer().fingerprint();
        let counts = evidence.slot().network == self.network().id() && self.shown.contains_key(&accused);
        if counts {
            self.forget(&accused);
            self.accused.insert(accused);
        }
        counts
    }

    /// Whether this peer has been revoked or accused, whatever certificate it has.
    pub fn is_barred(&self, peer: &Fingerprint) -> bool {
        self.revoked.contains(peer) || self.accused.contains(peer)
    }

    fn contradiction(&self, other: &VerifiedEpoch) -> Result<VerifiedEvidence, EvidenceError> {
        let [one, other] = [&self.epoch, other].map(VerifiedEpoch::as_epoch);
        let (first, second) = ((one.pledge(), one.signature()), (other.pledge(), other.signature()));
        VerifiedEvidence::of(self.network().issuer(), (&first.0, &first.1), (&second.0, &second.1))
    }

    fn forget(&mut self, peer: &Fingerprint) {
        if let Some(end) = self.shown.remove(peer) {
            self.ends.remove(&(end, *peer));
        }
    }
}
