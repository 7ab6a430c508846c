//! This node as a member: its certificate, the newest epoch with its revocations, and who has shown a certificate here.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use kith_connect::ChangeSignal;
use kith_connect::membership::CLOCK_SLACK_SECS;
use kith_identity::contacts::Hint;
use kith_identity::membership::pledge::VerifiedEvidence;
use kith_identity::membership::tree::Range;
use kith_identity::membership::{
    Adopted, Epoch, Member, Members, RevokedLeaf, VerifiedEpoch, VerifiedMember,
};
use kith_identity::{Fingerprint, Ni};
use kith_sansio::wire::{Reader, Writer};
use kith_sansio::{Timestamp, system};
use kith_store::{Database, StoreError, Table};
use serde::{Deserialize, Serialize};

use crate::api::network as shapes;
use crate::failure::{Failure, Result, chain};

/// Rows of one: [`ISSUER`], [`CERTIFICATE`], [`EPOCH`] and [`REVOKED`].
const OWN: Table = Table("network_own");
/// Whose network this node has joined.
const ISSUER: &[u8] = b"issuer";
const CERTIFICATE: &[u8] = b"certificate";
const EPOCH: &[u8] = b"epoch";
/// The revocations of the epoch: ranges, one after the other.
const REVOKED: &[u8] = b"revoked";
/// Members that are remembered; of more, those whose certificates end first have to show them again.
const MAX_KNOWN: usize = 65_536;
/// How long after its time the next epoch is asked for at the earliest, in seconds: the issuer needs a moment.
pub(in crate::node) const AFTER_SECS: u64 = 2;

/// Whose network this node has joined, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) ni: Ni,
    #[serde(default)]
    pub(super) at: Vec<Hint>,
    /// Seconds since 1970.
    pub(super) since: u64,
}

/// What the issuer has answered.
pub(super) struct News {
    /// A new certificate, where one was asked for.
    pub(super) certificate: Option<Member>,
    pub(super) epoch: VerifiedEpoch,
    /// All revocations of the epoch.
    pub(super) revoked: Vec<Range<RevokedLeaf>>,
}

/// What this node has of the network that it has joined.
pub(crate) struct Membership {
    database: Database,
    changed: ChangeSignal,
    state: RwLock<Option<State>>,
    /// Held by whoever asks the issuer, so that answers are taken in the order of the questions.
    pub(super) asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct State {
    row: Row,
    /// `None` where it has ended, or the issuer has revoked it.
    certificate: Option<VerifiedMember>,
    members: Members,
    failure: Option<String>,
}

impl Membership {
    /// Reads what was stored; everything is verified again.
    pub(crate) fn open(database: Database, changed: ChangeSignal) -> Result<Membership> {
        let read = database.read(|tables| {
            let row = |key| tables.row(OWN, key);
            Ok::<_, StoreError>((row(ISSUER)?, row(CERTIFICATE)?, row(EPOCH)?, row(REVOKED)?))
        });
        let (issuer, certificate, epoch, revoked) = read.map_err(|error| Failure::failed(chain(&error)))?;
        let state = match (issuer, epoch) {
            (Some(issuer), Some(epoch)) => {
                let restored =
                    restore(&issuer, &epoch, certificate.as_deref(), revoked.as_deref().unwrap_or_default());
                Some(restored.map_err(|error| {
                    Failure::failed(format!("the database cannot be used: the network joined: {error}"))
                })?)
            }
            _ => None,
        };
        Ok(Membership { database, changed, state: RwLock::new(state), asking: tokio::sync::Mutex::default() })
    }

    fn state(&self) -> RwLockReadGuard<'_, Option<State>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose network this node has joined, and where the issuer may be.
    pub(super) fn row(&self) -> Option<Row> {
        self.state().as_ref().map(|state| state.row.clone())
    }

    /// Where the issuer with this fingerprint may be.
    pub(crate) fn whereabouts(&self, issuer: &Fingerprint) -> Option<(Ni, Vec<Hint>)> {
        self.row().filter(|row| row.ni.fingerprint == *issuer).map(|row| (row.ni, row.at))
    }

    /// Whether this is the issuer of the network that was joined.
    pub(super) fn is_issuer(&self, peer: &Fingerprint) -> bool {
        self.state().as_ref().is_some_and(|state| state.row.ni.fingerprint == *peer)
    }

    /// Whether this peer has shown a valid certificate and is not barred. Nobody is, where this node is no member any more:
    /// it would hear of no revocation.
    pub(super) fn is_member(&self, peer: &Fingerprint) -> bool {
        self.state()
            .as_ref()
            .is_some_and(|state| state.certificate.is_some() && state.members.is_member(peer, system::utc()))
    }

    /// Takes a member that has broken a pledge for none from now on. The issuer's next epoch says so to all.
    pub(crate) fn accuse(&self, evidence: &VerifiedEvidence) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = state.as_mut().is_some_and(|state| state.members.accuse(evidence));
        drop(state);
        if is_news {
            self.changed.raise();
        }
    }

    /// The own certificate, as a peer is shown it.
    pub(crate) fn certificate(&self) -> Option<Member> {
        let state = self.state();
        Some(state.as_ref()?.certificate.as_ref()?.as_member().clone())
    }

    /// The network that this node belongs to, and its certificate; `None` where it belongs to none.
    pub(crate) fn belongs(&self) -> Option<(Fingerprint, VerifiedMember)> {
        let state = self.state();
        let state = state.as_ref()?;
        let own = state.certificate.as_ref().filter(|own| system::utc() < own.not_after())?;
        Some((state.row.ni.fingerprint, own.clone()))
    }

    /// The number of the newest epoch.
    pub(crate) fn epoch_number(&self) -> Option<u64> {
        self.state().as_ref().map(|state| state.members.epoch().facts().epoch)
    }

    /// How many members the network has, as of the newest epoch.
    pub(crate) fn epoch_members(&self) -> Option<u64> {
        self.state().as_ref().map(|state| state.members.epoch().facts().members)
    }

    /// The member that a certificate proves, whoever has told of it.
    pub(crate) fn verify(&self, certificate: Member) -> Option<VerifiedMember> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.as_mut()?.members.verify(certificate, system::utc()).ok()
    }

    /// Takes the certificate that a peer has shown; the own one is the answer to it.
    pub(crate) fn meet(&self, peer: &Fingerprint, shown: Member) -> Option<Member> {
        let own = self.certificate()?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = state.as_mut()?;
        match state.members.show(peer, shown, system::utc()) {
            Ok(_) => Some(own),
            Err(error) => {
                tracing::debug!(%error, "a certificate is not accepted");
                None
            }
        }
    }

    /// Whether the issuer is to be asked: the epoch is over, or the clock was set back far. Members ask one after the
    /// other, within a twentieth of the epoch.
    pub(super) fn is_due(&self, own: &Fingerprint, now: Timestamp) -> bool {
        self.state().as_ref().is_some_and(|state| {
            let facts = state.members.epoch().facts();
            let turn = u64::from(own.as_bytes()[0]) * u64::from(facts.seconds) / (20 * 256);
            now >= facts.ends().plus_secs(AFTER_SECS + turn) || now.plus_secs(CLOCK_SLACK_SECS) < facts.starts
        })
    }

    /// Whether a certificate is to be asked for: there is none for this key in this network, or half of its time is over.
    pub(super) fn needs_certificate(&self, issuer: &Fingerprint, own: &Fingerprint, now: Timestamp) -> bool {
        let state = self.state();
        let certificate = state.as_ref().filter(|state| state.row.ni.fingerprint == *issuer);
        let certificate = certificate.and_then(|state| state.certificate.as_ref());
        certificate.is_none_or(|certificate| {
            let (begun, ends) = (certificate.not_before(), certificate.not_after());
            certificate.fingerprint() != *own || ends.secs_since(now) <= ends.secs_since(begun) / 2
        })
    }

    /// Takes what the issuer has answered: first durably, then in memory, then for open connections. Whether the epoch is
    /// a new one.
    pub(super) fn adopt(&self, row: &Row, news: &News) -> Result<bool> {
        let certificate = news.certificate.clone().map(|one| one.verify(news.epoch.network(), system::utc()));
        let certificate =
            certificate.transpose().map_err(|error| unfit(&error).hint("is the clock right?"))?;
        let known = self.state().clone();
        let before = known.as_ref().map(|state| state.members.epoch().clone());
        let next = renewed(known, row, certificate.clone(), news)?;
        if next.members.epoch() == &news.epoch {
            self.store(&next, &news.revoked)?;
        }
        // Done again with what is there now: somebody may have shown a certificate meanwhile.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let live = renewed(state.clone(), row, certificate, news)?;
        *state = Some(live);
        drop(state);
        self.changed.raise();
        Ok(before.as_ref() != Some(next.members.epoch()))
    }

    fn store(&self, state: &State, revoked: &[Range<RevokedLeaf>]) -> Result<()> {
        let issuer = serde_json::to_vec(&state.row).map_err(Failure::failed)?;
        let epoch = state.members.epoch().as_epoch().to_bytes();
        let mut ranges = Writer::new();
        revoked.iter().for_each(|range| range.write(&mut ranges));
        let ranges = ranges.finish();
        let stored = self.database.write(|tables| {
            tables.put(OWN, ISSUER, &issuer)?;
            tables.put(OWN, EPOCH, &epoch)?;
            tables.put(OWN, REVOKED, &ranges)?;
            match &state.certificate {
                Some(certificate) => tables.put(OWN, CERTIFICATE, &certificate.as_member().to_bytes()),
                None => tables.remove(OWN, CERTIFICATE).map(drop),
            }
        });
        stored.map_err(|error: StoreError| Failure::failed(chain(&error)))
    }

    /// The issuer could not be asked, or refused; where it has `revoked` this node, its certificate is of no use.
    pub(super) fn failed(&self, failure: &Failure, revoked: bool) {
        if !self.note(failure, revoked) {
            return;
        }
        self.changed.raise();
        let removed = self.database.write(|tables| tables.remove(OWN, CERTIFICATE).map(drop));
        if let Err(error) = removed.map_err(|error: StoreError| error) {
            tracing::error!(%error, "the revoked certificate stays in the database");
        }
    }

    /// Remembers a failure; whether a certificate was dropped for it.
    fn note(&self, failure: &Failure, revoked: bool) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.as_mut().is_some_and(|state| {
            state.failure = Some(failure.error.clone());
            revoked && state.certificate.take().is_some()
        })
    }

    /// Forgets certificates that have ended, the own one too; what is open by them is cut.
    pub(super) fn tidy(&self, now: Timestamp) {
        if self.forget_ended(now) {
            self.changed.raise();
        }
    }

    fn forget_ended(&self, now: Timestamp) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.as_mut().is_some_and(|state| {
            let own_ended = state.certificate.take_if(|own| own.not_after() <= now).is_some();
            state.members.tidy(now) || own_ended
        })
    }

    /// The network that this node has joined.
    pub(super) fn overview(&self) -> Option<shapes::Joined> {
        let (state, now) = (self.state(), system::utc());
        let state = state.as_ref()?;
        let certificate = state.certificate.as_ref().filter(|certificate| now < certificate.not_after());
        Some(shapes::Joined {
            ni: state.row.ni.to_string(),
            at: state.row.at.iter().map(ToString::to_string).collect(),
            since: Timestamp(state.row.since).to_string(),
            state: if certificate.is_some() { "member" } else { "none" }.to_owned(),
            id: certificate.map(|certificate| certificate.id().to_string()),
            until: certificate.map(|certificate| certificate.not_after().to_string()),
            epoch: shapes::Epoch::of(state.members.epoch()),
            known: state.members.len(),
            failure: state.failure.clone(),
        })
    }
}

fn unfit(error: &dyn std::error::Error) -> Failure {
    Failure::failed(format!("what the issuer says does not hold: {}", chain(error)))
}

/// What is known after the issuer's answer; nothing of another network stays.
fn renewed(
    known: Option<State>,
    row: &Row,
    certificate: Option<VerifiedMember>,
    news: &News,
) -> Result<State> {
    let known = known.filter(|state| state.row.ni.fingerprint == row.ni.fingerprint);
    let mut state = known.unwrap_or_else(|| State {
        row: row.clone(),
        certificate: None,
        members: Members::new(news.epoch.clone(), MAX_KNOWN),
        failure: None,
    });
    (state.row, state.failure) = (row.clone(), None);
    state.certificate = certificate.or(state.certificate);
    let adopted = state.members.adopt(news.epoch.clone()).map_err(|error| unfit(&error))?;
    if let Adopted::Contradiction(evidence) = adopted {
        let evidence = data_encoding::BASE64URL_NOPAD.encode(&evidence.as_evidence().to_bytes());
        tracing::error!(evidence, "the issuer has signed two statements of one epoch; the first one counts");
        return Err(Failure::failed("the issuer of the network has signed two statements of one epoch"));
    }
    if *state.members.epoch() == news.epoch {
        let told = news.revoked.iter().try_for_each(|range| state.members.revoke(range));
        told.map_err(|error| unfit(&error))?;
    }
    Ok(state)
}

/// What was stored, verified again. A certificate that does not hold any more is asked for anew.
fn restore(
    issuer: &[u8],
    epoch: &[u8],
    certificate: Option<&[u8]>,
    mut revoked: &[u8],
) -> std::result::Result<State, String> {
    let row: Row = serde_json::from_slice(issuer).map_err(|error| error.to_string())?;
    let epoch = Epoch::from_bytes(epoch).and_then(|epoch| epoch.verify(&row.ni.fingerprint));
    let epoch = epoch.map_err(|error| error.to_string())?;
    let mut members = Members::new(epoch, MAX_KNOWN);
    while !revoked.is_empty() {
        let mut reader = Reader::new(revoked);
        let range = Range::read(&mut reader).map_err(|error| error.to_string())?;
        revoked = reader.rest();
        members.revoke(&range).map_err(|error| error.to_string())?;
    }
    let certificate = certificate.and_then(|bytes| Member::from_bytes(bytes).ok());
    let certificate = certificate.and_then(|one| one.verify(members.network(), system::utc()).ok());
    Ok(State { row, certificate, members, failure: None })
}
