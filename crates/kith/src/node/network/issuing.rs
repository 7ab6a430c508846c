//! This node as the issuer of a network: its desk, and who may ask there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kith_connect::Stream;
use kith_connect::membership::{
    Answer, Caller, Desk, MAX_QUESTIONS, Question, Refusal, hear_question, say_answer,
};
use kith_identity::membership::{Issuer, IssuerError, Ledger, Terms};
use kith_identity::{Fingerprint, Identity, Ni};
use kith_sansio::{Span, Timestamp, system};
use kith_store::Database;

use super::ledger::{LedgerError, Rows};
use crate::api::network::{Epoch, Issued, RollEntry};
use crate::failure::{Failure, Result, chain};
use crate::node::Node;
use crate::node::contacts::Book;

/// How often it is looked whether the next epoch is to begin.
const CHECK: std::time::Duration = std::time::Duration::from_secs(1);
/// Pause after an epoch could not begin.
const PAUSE: Span = Span::secs(10);
/// Conversations of one member at once; one is enough for everything.
const MAX_CONVERSATIONS: usize = 4;

/// The issuer of this home, where it is one.
pub(crate) struct Issuing {
    rows: Rows,
    /// Whose network this home issues; another key than the node's where that was replaced since.
    issuer: RwLock<Option<Fingerprint>>,
    /// Who is invited, and who has been a member ever: these may ask. Answers from memory.
    known: RwLock<Known>,
    desk: Mutex<Option<Desk<Rows>>>,
    /// Members that are being answered, once for each conversation.
    talking: Mutex<Vec<Fingerprint>>,
}

#[derive(Default)]
struct Known {
    invited: BTreeSet<Fingerprint>,
    enrolled: BTreeSet<Fingerprint>,
}

fn broken(error: &LedgerError) -> Failure {
    Failure::failed(format!("the book of the network: {}", chain(error)))
}

fn failed(error: &IssuerError<LedgerError>) -> Failure {
    Failure::failed(chain(error))
}

impl Issuing {
    pub(crate) fn open(database: Database) -> Result<Issuing> {
        let rows = Rows(database);
        let issuer = rows.issuer().map_err(|error| broken(&error))?;
        let known = match issuer {
            None => Known::default(),
            Some(_) => Known {
                invited: rows.invited().map_err(|error| broken(&error))?,
                enrolled: rows
                    .enrolments()
                    .map_err(|error| broken(&error))?
                    .iter()
                    .map(|enrolment| enrolment.member.claimed())
                    .collect(),
            },
        };
        Ok(Issuing {
            rows,
            issuer: RwLock::new(issuer),
            known: RwLock::new(known),
            desk: Mutex::default(),
            talking: Mutex::default(),
        })
    }

    fn desk(&self) -> MutexGuard<'_, Option<Desk<Rows>>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this home issues a network, by the key that it has now or by an earlier one.
    pub(super) fn issuer(&self) -> Option<Fingerprint> {
        *self.issuer.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a peer may ask though it is no contact.
    pub(super) fn admits(&self, peer: &Fingerprint) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.invited.contains(peer) || known.enrolled.contains(peer)
    }

    /// Makes this home the issuer of the network of its key, where it is not yet.
    pub(super) fn found(&self, own: &Fingerprint) -> Result<()> {
        match self.issuer() {
            Some(issuer) if issuer == *own => Ok(()),
            Some(former) => Err(refused_with_former(&former)),
            None => {
                self.rows.set_issuer(own).map_err(|error| broken(&error))?;
                *self.issuer.write().unwrap_or_else(PoisonError::into_inner) = Some(*own);
                Ok(())
            }
        }
    }

    /// Opens the desk with a new epoch, where it is not open; whether it was not.
    pub(super) fn begin(&self, identity: &Identity, terms: Terms) -> Result<bool> {
        let mut desk = self.desk();
        if desk.is_some() {
            return Ok(false);
        }
        let issuer = Issuer::new(identity.clone(), terms, self.rows.clone());
        let opened = Desk::open(issuer, system::utc(), |nodes, colluding, threshold| {
            kith_actors::ktable::epoch_hash(nodes, colluding, threshold.alpha())
        });
        *desk = Some(opened.map_err(|error| failed(&error))?);
        Ok(true)
    }

    /// Lets these nodes join, none of them where one has been revoked.
    pub(super) fn invite(&self, who: &[Fingerprint]) -> Result<()> {
        for one in who {
            let known = self.rows.enrolment(one).map_err(|error| broken(&error))?;
            if known.is_some_and(|enrolment| enrolment.revoked.is_some()) {
                return Err(Failure::not_trusted(format!("{one} has been revoked, which is for good"))
                    .hint("its owner can join with another key, from another home: invite that one"));
            }
        }
        self.rows.invite(who, system::utc()).map_err(|error| broken(&error))?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).invited.extend(who);
        Ok(())
    }

    /// Revokes a member, or takes an invitation back.
    pub(super) fn revoke(&self, who: &Fingerprint) -> Result<()> {
        let mut desk = self.desk();
        let Some(desk) = desk.as_mut() else { return Err(no_issuer()) };
        let was_invited = self.rows.uninvite(who).map_err(|error| broken(&error))?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).invited.remove(who);
        match desk.revoke(who, system::utc()) {
            Ok(_) => Ok(()),
            Err(IssuerError::Unknown(_)) if was_invited => Ok(()),
            Err(IssuerError::Unknown(_)) => Err(Failure::not_found(format!("{who} is no member"))
                .hint("'kith network status' lists the members")),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Answers a peer; what goes wrong here is said in the log, and to the peer that there is trouble.
    fn answer(&self, caller: Caller, question: &Question) -> Answer {
        let caller = Caller { may_join: caller.may_join || self.admits(&caller.peer), ..caller };
        let answer = match self.desk().as_mut() {
            Some(desk) => desk.answer(&caller, question, system::utc()),
            None => return Answer::Refused(Refusal::Trouble),
        };
        match answer {
            Ok(answer) => {
                if matches!(answer, Answer::Admitted(..)) {
                    self.known.write().unwrap_or_else(PoisonError::into_inner).enrolled.insert(caller.peer);
                }
                answer
            }
            Err(error) => {
                tracing::error!(%error, "a member is not answered");
                Answer::Refused(Refusal::Trouble)
            }
        }
    }

    /// Begins the next epoch where it is time.
    fn roll_in_time(&self) -> Result<()> {
        let now = system::utc();
        match self.desk().as_mut().filter(|desk| desk.is_due(now)) {
            Some(desk) => desk.roll(now).map_err(|error| failed(&error)),
            None => Ok(()),
        }
    }

    /// The epoch of the network that this node issues; `None` where it issues nothing.
    pub(super) fn summary(&self) -> Option<Epoch> {
        self.desk().as_ref().map(|desk| Epoch::of(desk.epoch()))
    }

    /// What the issuer has given out, as of now; `None` where this node issues nothing.
    pub(super) fn overview(&self, book: &Book) -> Result<Option<Issued>> {
        let desk = self.desk();
        let Some(desk) = desk.as_ref() else { return Ok(None) };
        let now = system::utc();
        let mut roll = Vec::new();
        for enrolment in desk.issuer().ledger().enrolments().map_err(|error| broken(&error))? {
            let member = enrolment.member.claimed();
            let until = enrolment.member.not_after();
            let state = match enrolment.revoked {
                Some(_) => "revoked",
                None if until <= now => "ended",
                None => "member",
            };
            roll.push(entry(book, &member, state, Some(until)));
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        roll.extend(known.invited.difference(&known.enrolled).map(|who| entry(book, who, "invited", None)));
        Ok(Some(Issued {
            ni: Ni::new(desk.issuer().network().id(), None).to_string(),
            epoch: Epoch::of(desk.epoch()),
            revoked: desk.revoked() as u64,
            roll,
        }))
    }

    /// What is told of one node after it was revoked.
    pub(super) fn told(&self, book: &Book, who: &Fingerprint) -> RollEntry {
        let until = self.rows.enrolment(who).ok().flatten().map(|enrolment| enrolment.member.not_after());
        let state = if until.is_some() { "revoked" } else { "uninvited" };
        entry(book, who, state, until)
    }
}

fn entry(book: &Book, who: &Fingerprint, state: &str, until: Option<Timestamp>) -> RollEntry {
    RollEntry {
        ni: Ni::new(*who, None).to_string(),
        name: book.contact_of(who).map(|contact| contact.name.to_string()),
        state: state.to_owned(),
        until: until.map(|until| until.to_string()),
    }
}

/// This node issues nothing.
pub(super) fn no_issuer() -> Failure {
    Failure::not_found("this node issues no network").hint("'kith network issue' makes it an issuer")
}

fn refused_with_former(former: &Fingerprint) -> Failure {
    Failure::failed(format!("this home issued the network of {former}, a key that it has no more"))
        .hint("a network ends with its issuer's key; issue another one from another home")
}

/// Rolls epochs until the node stops.
pub(super) async fn roll(node: Arc<Node>) {
    let mut again = system::time();
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECK) => {}
            () = node.stopped.cancelled() => return,
        }
        if system::time() < again {
            continue;
        }
        if let Err(failure) = node.on_disk(|node| node.book.network.issuing.roll_in_time()).await {
            tracing::error!(%failure, "the next epoch of the network cannot begin");
            again = system::time() + PAUSE;
        }
    }
}

/// One conversation with a member, or with who is to become one.
pub(super) async fn converse(node: Arc<Node>, peer: Fingerprint, mut stream: Stream) {
    let Some(_talk) = Talk::begin(&node, peer) else {
        return tracing::debug!("a member talks too much at once");
    };
    for _ in 0..MAX_QUESTIONS {
        let question = match hear_question(&mut stream).await {
            Ok(question) => question,
            Err(error) => return tracing::debug!(%error, "a conversation with a member has ended"),
        };
        let path = stream.path();
        let from = path.direct.then(|| path.remote.ip());
        let answering = node.on_disk(move |node| {
            let may_join = node.book.contact_of(&peer).is_some();
            Ok(node.book.network.issuing.answer(Caller { peer, from, may_join }, &question))
        });
        let Ok(answer) = answering.await else { return };
        if let Err(error) = say_answer(&mut stream, &answer).await {
            return tracing::debug!(%error, "a member takes no answer");
        }
    }
}

/// A place among the conversations, given back when dropped.
struct Talk {
    node: Arc<Node>,
    peer: Fingerprint,
}

impl Talk {
    fn begin(node: &Arc<Node>, peer: Fingerprint) -> Option<Talk> {
        let mut talking = node.book.network.issuing.talking.lock().unwrap_or_else(PoisonError::into_inner);
        if talking.iter().filter(|one| **one == peer).count() >= MAX_CONVERSATIONS {
            return None;
        }
        talking.push(peer);
        Some(Talk { node: Arc::clone(node), peer })
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let mut talking =
            self.node.book.network.issuing.talking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = talking.iter().position(|one| *one == self.peer) {
            talking.swap_remove(at);
        }
    }
}
