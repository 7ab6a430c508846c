use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use kith_identity::Fingerprint;
use kith_identity::membership::pledge::Evidence;
use kith_identity::membership::tree::{Leaf, Range, Tree, TreeError};
use kith_identity::membership::{
    Block, Enrolment, Issuer, IssuerError, Ledger, Member, Request, Rolled, Threshold, VerifiedEpoch,
};
use kith_sansio::Timestamp;

use super::CLOCK_SLACK_SECS;
use super::message::{Answer, MAX_MET, Question, Refusal};

/// Members that the issuer keeps in mind because others may call them.
const MAX_KEPT_IN_MIND: usize = 1_024;

/// Gives the hash of the table that follows from N, C and α.
type KTable = fn(u64, u64, Threshold) -> [u8; 32];

/// An issuer that answers the members of its network: its book, and the epoch of now with the trees behind it.
pub struct Desk<L> {
    issuer: Issuer<L>,
    k_table: KTable,
    current: Rolled,
    /// Who has said where it is called, the newest last.
    met: VecDeque<Met>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The peer, which has proved this key.
    pub peer: Fingerprint,
    /// Where it calls from; `None` where a relay is in between.
    pub from: Option<IpAddr>,
    /// Whether it may become a member.
    pub may_join: bool,
}

/// A member that others may call.
#[derive(Clone, Copy, Debug)]
struct Met {
    peer: Fingerprint,
    address: SocketAddr,
    at: Timestamp,
}

/// What a peer is to the network, by the issuer's book.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Stranger,
    Member,
    Revoked,
}

impl<L: Ledger> Desk<L> {
    /// Opens with a new epoch: the trees of the last one are not kept, and no number is used twice.
    pub fn open(
        mut issuer: Issuer<L>,
        now: Timestamp,
        k_table: KTable,
    ) -> Result<Desk<L>, IssuerError<L::Error>> {
        let current = issuer.roll(now, k_table)?;
        Ok(Desk { issuer, k_table, current, met: VecDeque::new() })
    }

    /// The issuer.
    pub fn issuer(&self) -> &Issuer<L> {
        &self.issuer
    }

    /// The newest epoch.
    pub fn epoch(&self) -> &VerifiedEpoch {
        &self.current.epoch
    }

    /// How many have been revoked before their certificates end, as of the newest epoch.
    pub fn revoked(&self) -> usize {
        self.current.revoked.leaves().len()
    }

    /// Whether the next epoch is to begin: the time of the last one is over, or has not come because the clock was set
    /// back.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let facts = self.epoch().facts();
        now >= facts.ends() || now < facts.starts
    }

    /// Begins the next epoch.
    pub fn roll(&mut self, now: Timestamp) -> Result<(), IssuerError<L::Error>> {
        self.current = self.issuer.roll(now, self.k_table)?;
        Ok(())
    }

    /// Revokes a member for good; false where it was before. The next epoch tells it.
    pub fn revoke(&mut self, member: &Fingerprint, now: Timestamp) -> Result<bool, IssuerError<L::Error>> {
        self.issuer.revoke(member, now)
    }

    /// Answers a peer. Who is a member may renew its certificate in any case. An error is the issuer's own trouble.
    pub fn answer(
        &mut self,
        caller: &Caller,
        question: &Question,
        now: Timestamp,
    ) -> Result<Answer, IssuerError<L::Error>> {
        let Caller { peer, may_join, .. } = caller;
        let standing = self.standing(peer)?;
        let answer = match (standing, question) {
            (Standing::Revoked, _) => Err(Refusal::Revoked),
            (Standing::Stranger, Question::Join(_)) if !*may_join => Err(Refusal::Uninvited),
            (_, Question::Join(request)) => self.join(peer, request, now)?,
            (Standing::Stranger, _) => Err(Refusal::NoMember),
            (_, Question::Newest) => Ok(Answer::Newest(Box::new(self.epoch().as_epoch().clone()))),
            (_, Question::Members(epoch, block)) => {
                self.range(&self.current.members, *epoch, block).map(Answer::Members)
            }
            (_, Question::Revoked(epoch, block)) => {
                self.range(&self.current.revoked, *epoch, block).map(Answer::Revoked)
            }
            (_, Question::Accuse(evidence)) => self.accuse(evidence, now)?,
            (_, Question::Meet(port)) => Ok(Answer::Met(self.meet(caller, *port, now)?)),
        };
        Ok(answer.unwrap_or_else(Answer::Refused))
    }

    fn standing(&self, peer: &Fingerprint) -> Result<Standing, IssuerError<L::Error>> {
        let enrolment = self.issuer.ledger().enrolment(peer).map_err(IssuerError::Ledger)?;
        Ok(match enrolment {
            None => Standing::Stranger,
            Some(enrolment) if enrolment.revoked.is_some() => Standing::Revoked,
            Some(_) => Standing::Member,
        })
    }

    fn join(
        &mut self,
        peer: &Fingerprint,
        request: &Request,
        now: Timestamp,
    ) -> Result<Result<Answer, Refusal>, IssuerError<L::Error>> {
        let network = self.issuer.network().id();
        let Ok(request) = request.verify(&network) else { return Ok(Err(Refusal::Unsound)) };
        // Somebody else's request, which whoever has heard it could bring.
        if request.key().fingerprint() != *peer {
            return Ok(Err(Refusal::Unsound));
        }
        match self.issuer.admit(&request, now.minus_secs(CLOCK_SLACK_SECS)) {
            Ok(member) => {
                let epoch = self.epoch().as_epoch().clone();
                Ok(Ok(Answer::Admitted(Box::new(member.as_member().clone()), Box::new(epoch))))
            }
            Err(IssuerError::Revoked(_)) => Ok(Err(Refusal::Revoked)),
            Err(IssuerError::OtherVrf(_)) => Ok(Err(Refusal::OtherVrf)),
            Err(error) => Err(error),
        }
    }

    fn range<M: Leaf>(&self, tree: &Tree<M>, epoch: u64, block: &Block) -> Result<Range<M>, Refusal> {
        if epoch != self.epoch().facts().epoch {
            return Err(Refusal::OtherEpoch);
        }
        tree.range(block).map_err(|_: TreeError| Refusal::TooLarge)
    }

    /// The members that asked last, but the one that asks now, who is kept in mind for the next.
    fn meet(
        &mut self,
        caller: &Caller,
        port: u16,
        now: Timestamp,
    ) -> Result<Vec<(Member, SocketAddr)>, IssuerError<L::Error>> {
        // A member that is up asks at least once in each epoch.
        let facts = self.epoch().facts();
        let oldest = now.minus_secs(2 * u64::from(facts.seconds));
        self.met.retain(|met| met.peer != caller.peer && (oldest..=now).contains(&met.at));
        let mut members = Vec::new();
        for Met { peer, address, .. } in self.met.iter().rev() {
            let enrolment = self.issuer.ledger().enrolment(peer).map_err(IssuerError::Ledger)?;
            if let Some(Enrolment { member, revoked: None }) = enrolment
                && member.not_after() > now
            {
                members.push((member, *address));
            }
            if members.len() == MAX_MET {
                break;
            }
        }
        if let Some(ip) = caller.from.filter(|_| port > 0) {
            if self.met.len() >= MAX_KEPT_IN_MIND {
                self.met.pop_front();
            }
            let address = SocketAddr::new(ip.to_canonical(), port);
            self.met.push_back(Met { peer: caller.peer, address, at: now });
        }
        Ok(members)
    }

    fn accuse(
        &mut self,
        evidence: &Evidence,
        now: Timestamp,
    ) -> Result<Result<Answer, Refusal>, IssuerError<L::Error>> {
        let Ok(evidence) = evidence.clone().verify() else { return Ok(Err(Refusal::Unsound)) };
        match self.issuer.accuse(&evidence, now) {
            Ok(_) => Ok(Ok(Answer::Taken)),
            Err(IssuerError::Unknown(_) | IssuerError::Foreign(_)) => Ok(Err(Refusal::Unsound)),
            Err(error) => Err(error),
        }
    }
}
