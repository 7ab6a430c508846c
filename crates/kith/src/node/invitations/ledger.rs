//! The invitations of a home: in memory, and one row each in `node.redb`. Whatever is decided here is durable before
//! it is told. Decisions are made one after the other and wait for the disk; whoever only reads waits for neither.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kith_identity::Fingerprint;
use kith_identity::invitation::{Secret, Ticket};
use kith_sansio::{Now, Span, Time, Timestamp};
use kith_store::{Database, StoreError, Table};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::failure::{Failure, Result, chain};

const TABLE: Table = Table("invitations");
/// Open invitations at once.
pub(super) const MAX_OPEN: usize = 16;
/// Ended invitations that are remembered.
const MAX_ENDED: usize = 64;
/// For how long after their end.
const KEPT_SECS: u64 = 86_400;
/// Joiners are still listened to for so long after an end, to be told that it is over.
pub(super) const LINGER: Span = Span::secs(600);
/// How soon the disk is asked again for what it has refused, and how seldom after many times.
const RETRY: (Span, Span) = (Span::secs(1), Span::secs(60));
/// How far a clock may be set back while the node is down; more, and an invitation would outlive its time.
const SET_BACK_SECS: u64 = 60;

/// Where an invitation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// Waits for a joiner.
    Open,
    /// Is one joiner's, who is not known to be a contact yet.
    Claimed,
    /// The joiner is a contact, and has not said that this node is one of his.
    Answered,
    /// Both know each other.
    Joined,
    /// Somebody guessed.
    Burnt,
    /// Its time is over.
    Expired,
    /// Its maker took it back.
    Cancelled,
}

impl Stage {
    /// Whether nobody can join any more.
    pub(crate) fn is_final(self) -> bool {
        !matches!(self, Stage::Open | Stage::Claimed | Stage::Answered)
    }
}

/// One invitation.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What the maker calls the joiner.
    pub(crate) called: Option<String>,
    /// Whether files will be offered to the joiner.
    pub(crate) offers: bool,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) expires: u64,
    pub(crate) stage: Stage,
    /// When it ended, in seconds since 1970; 0 before.
    #[serde(default)]
    pub(crate) ended: u64,
    /// The joiner, once there is one.
    pub(crate) peer: Option<Fingerprint>,
    /// Gone once the invitation has ended.
    #[serde(with = "secret")]
    pub(super) secret: Option<Secret>,
}

/// What a wish to join comes to.
pub(super) enum Claim {
    /// Not open to this joiner; why is not for him to know.
    Refused,
    /// It is his, now or since before.
    Granted(Row),
}

/// All invitations.
pub(crate) struct Ledger {
    database: Database,
    /// Held by whoever decides, until the disk has it; never on a thread of the runtime.
    deciding: Mutex<Retry>,
    /// What stands; held for no longer than it takes to look or to put something in.
    all: Mutex<BTreeMap<Ticket, Entry>>,
    changes: watch::Sender<u64>,
}

/// When the disk is asked again.
#[derive(Default)]
struct Retry {
    at: Time,
    /// The pause before; none where the disk takes everything.
    pause: Span,
}

impl Retry {
    /// What the disk said.
    fn note(&mut self, now: Time, settled: Result<()>) {
        let Err(failure) = settled else {
            *self = Retry::default();
            return;
        };
        if self.pause == Span::ZERO {
            tracing::error!(%failure, "invitations cannot be stored");
        } else {
            tracing::debug!(%failure, "invitations cannot be stored yet");
        }
        self.pause = Span(self.pause.0.saturating_mul(2)).clamp(RETRY.0, RETRY.1);
        self.at = now + self.pause;
    }

    /// How long until it is asked, where there is something to ask for.
    fn left(&self, now: Time) -> Option<Span> {
        (self.pause > Span::ZERO).then(|| self.at - now)
    }
}

struct Entry {
    row: Row,
    /// Whether the disk has refused it as it stands.
    unsaved: bool,
    /// On the clock that cannot be set: its end, or where it has ended, until when joiners are told so.
    deadline: Time,
}

impl Entry {
    fn is_over(&self, now: Now) -> bool {
        now.utc.0 >= self.row.expires || now.time >= self.deadline
    }

    fn is_live(&self, now: Now) -> bool {
        !self.row.stage.is_final() && !self.is_over(now)
    }

    fn is_heard(&self, now: Now) -> bool {
        self.is_live(now) || self.row.stage.is_final() && now.time < self.deadline
    }

    /// How much longer it is listened for.
    fn left(&self, now: Now) -> Span {
        let left = self.deadline - now.time;
        if self.row.stage.is_final() {
            return left;
        }
        left.min(Span::secs(self.row.expires.saturating_sub(now.utc.0)))
    }

    /// An invitation as it was read from the disk.
    fn read(mut row: Row, now: Now) -> Entry {
        let left = if row.stage.is_final() {
            if row.ended == 0 {
                row.ended = row.expires.min(now.utc.0);
            }
            Span(LINGER.0.saturating_sub(Span::secs(now.utc.secs_since(Timestamp(row.ended))).0))
        } else {
            let set_back = row.created.saturating_sub(SET_BACK_SECS) > now.utc.0;
            Span::secs(if set_back { 0 } else { row.expires.saturating_sub(now.utc.0) })
        };
        Entry { deadline: now.time + left, row, unsaved: false }
    }
}

impl Ledger {
    /// Reads the invitations of a database; those whose time is over have ended.
    pub(crate) fn open(database: Database, now: Now) -> Result<Ledger> {
        let mut all = BTreeMap::new();
        let read = database.read(|tables| {
            tables.scan(TABLE, &[], |key, value| {
                match (key.try_into(), serde_json::from_slice::<Row>(value)) {
                    (Ok(ticket), Ok(row)) => {
                        all.insert(Ticket::from_bytes(ticket), Entry::read(row, now));
                    }
                    _ => tracing::warn!("an invitation in the database cannot be read and is left out"),
                }
                ControlFlow::Continue(())
            })
        });
        read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        let ledger = Ledger {
            database,
            deciding: Mutex::default(),
            all: Mutex::new(all),
            changes: watch::Sender::new(0),
        };
        ledger.sweep(now);
        Ok(ledger)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Ticket, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self) -> MutexGuard<'_, Retry> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Shows what was decided, and remembers whether the disk has it.
    fn put(&self, ticket: &Ticket, row: Row, now: Now, unsaved: bool) {
        if let Some(entry) = self.all().get_mut(ticket) {
            if row.stage.is_final() {
                entry.deadline = now.time + LINGER;
            }
            (entry.row, entry.unsaved) = (row, unsaved);
        }
        self.tell();
    }

    /// Stores what stands in memory alone: nobody is told of it before.
    fn save(&self, ticket: &Ticket) -> Result<()> {
        let unsaved = self.all().get(ticket).filter(|entry| entry.unsaved).map(|entry| entry.row.clone());
        let Some(row) = unsaved else { return Ok(()) };
        self.store(ticket, &row)?;
        if let Some(entry) = self.all().get_mut(ticket) {
            entry.unsaved = false;
        }
        Ok(())
    }

    /// Enters a new invitation.
    pub(super) fn add(&self, ticket: Ticket, row: Row, now: Now) -> Result<()> {
        self.sweep(now);
        let _deciding = self.decide();
        if self.all().values().filter(|entry| !entry.row.stage.is_final()).count() >= MAX_OPEN {
            return Err(Failure::failed(format!("{MAX_OPEN} invitations are open already"))
                .hint("cancel one with 'kith invite cancel ID'; 'kith invite list' shows them"));
        }
        self.store(&ticket, &row)?;
        let deadline = now.time + Span::secs(row.expires.saturating_sub(row.created));
        self.all().insert(ticket, Entry { row, deadline, unsaved: false });
        self.tell();
        Ok(())
    }

    /// `peer` wants to join by the invitation `ticket`; `proves` says whether he has its secret. One wrong proof burns
    /// it.
    pub(super) fn claim(
        &self,
        ticket: &Ticket,
        peer: Fingerprint,
        now: Now,
        proves: impl FnOnce(&Secret) -> bool,
    ) -> Result<Claim> {
        let _deciding = self.decide();
        self.save(ticket)?;
        let live = self.all().get(ticket).filter(|entry| entry.is_live(now)).map(|entry| entry.row.clone());
        let Some(mut row) = live else { return Ok(Claim::Refused) };
        let Some(secret) = row.secret.as_ref() else { return Ok(Claim::Refused) };
        if row.peer.is_some_and(|claimed| claimed != peer) {
            return Ok(Claim::Refused);
        }
        if !proves(secret) {
            if row.stage == Stage::Open {
                self.burn(ticket, peer, row, now)?;
            }
            return Ok(Claim::Refused);
        }
        if row.stage == Stage::Open {
            (row.stage, row.peer) = (Stage::Claimed, Some(peer));
            self.store(ticket, &row)?;
            self.put(ticket, row.clone(), now, false);
        }
        Ok(Claim::Granted(row))
    }

    fn burn(&self, ticket: &Ticket, by: Fingerprint, mut row: Row, now: Now) -> Result<()> {
        // In memory at once: should the disk fail, there is no second guess either.
        if let Some(entry) = self.all().get_mut(ticket) {
            entry.row.secret = None;
        }
        end(&mut row, Stage::Burnt, now);
        row.peer = Some(by);
        let stored = self.store(ticket, &row);
        self.put(ticket, row, now, stored.is_err());
        stored
    }

    /// The joiner is a contact now ([`Stage::Answered`]), or knows this node too ([`Stage::Joined`]). An invitation
    /// that has ended otherwise meanwhile stays as it is, and the answer is no.
    pub(super) fn advance(&self, ticket: &Ticket, stage: Stage, now: Now) -> Result<bool> {
        let stands = self.change(ticket, now, |row| match (row.stage, stage) {
            (Stage::Claimed, Stage::Answered) => row.stage = stage,
            (Stage::Claimed | Stage::Answered, Stage::Joined) => end(row, stage, now),
            _ => {}
        })?;
        Ok(matches!(stands.stage, Stage::Answered | Stage::Joined))
    }

    /// Ends an invitation, and says how it stands then. Where its joiner is a contact already he has joined, whatever
    /// he has said of it; what has ended before stays as it ended.
    pub(super) fn cancel(&self, ticket: &Ticket, now: Now) -> Result<Row> {
        self.change(ticket, now, |row| match row.stage {
            Stage::Open | Stage::Claimed => end(row, Stage::Cancelled, now),
            Stage::Answered => end(row, Stage::Joined, now),
            _ => {}
        })
    }

    /// How it stands after the change.
    fn change(&self, ticket: &Ticket, now: Now, change: impl FnOnce(&mut Row)) -> Result<Row> {
        let _deciding = self.decide();
        self.save(ticket)?;
        let before = self.find(ticket)?;
        let mut row = before.clone();
        change(&mut row);
        if row.stage != before.stage {
            self.store(ticket, &row)?;
            self.put(ticket, row.clone(), now, false);
        }
        Ok(row)
    }

    /// Ends what is over, forgets what ended long ago, and asks the disk again for what it has refused; says when to
    /// come again.
    pub(super) fn sweep(&self, now: Now) -> Option<Span> {
        let mut retry = self.decide();
        self.end_overdue(now);
        if now.time >= retry.at {
            retry.note(now.time, self.settle(now));
        }
        let all = self.all();
        let heard = all.values().filter(|entry| entry.is_heard(now)).map(|entry| entry.left(now));
        heard.chain(retry.left(now.time)).min()
    }

    /// Over it is, whatever the disk says.
    fn end_overdue(&self, now: Now) {
        let over: Vec<(Ticket, Row)> = {
            let all = self.all();
            let over = all.iter().filter(|(_, entry)| !entry.row.stage.is_final() && entry.is_over(now));
            over.map(|(ticket, entry)| (*ticket, entry.row.clone())).collect()
        };
        for (ticket, mut row) in over {
            let end_as = if row.stage == Stage::Answered { Stage::Joined } else { Stage::Expired };
            end(&mut row, end_as, now);
            self.put(&ticket, row, now, true);
        }
    }

    /// Brings the disk to what stands in memory.
    fn settle(&self, now: Now) -> Result<()> {
        let all: Vec<Ticket> = self.all().keys().copied().collect();
        all.iter().try_for_each(|ticket| self.save(ticket))?;
        let ended = ended(&self.all());
        for (place, (at, ticket)) in ended.iter().enumerate() {
            if place >= MAX_ENDED || now.utc.secs_since(Timestamp(*at)) >= KEPT_SECS {
                self.remove(ticket)?;
                self.all().remove(ticket);
            }
        }
        Ok(())
    }

    /// Whether joiners are to be listened to: while somebody may join, and for [`LINGER`] after that, so that whoever
    /// comes too late is told.
    pub(super) fn hears(&self, now: Now) -> bool {
        self.all().values().any(|entry| entry.is_heard(now))
    }

    /// How many wait for a joiner.
    pub(super) fn open_count(&self, now: Now) -> usize {
        self.all().values().filter(|entry| entry.is_live(now)).count()
    }

    /// All of them, those that end last at the end.
    pub(super) fn list(&self) -> Vec<(Ticket, Row)> {
        let mut rows: Vec<_> =
            self.all().iter().map(|(ticket, entry)| (*ticket, entry.row.clone())).collect();
        rows.sort_by_key(|(_, row)| row.expires);
        rows
    }

    pub(super) fn find(&self, ticket: &Ticket) -> Result<Row> {
        self.all().get(ticket).map(|entry| entry.row.clone()).ok_or_else(|| unknown(ticket))
    }

    fn store(&self, ticket: &Ticket, row: &Row) -> Result<()> {
        let bytes = Zeroizing::new(serde_json::to_vec(row).map_err(Failure::failed)?);
        self.database
            .write(|tables| tables.put(TABLE, ticket.as_bytes(), &bytes))
            .map_err(|error: StoreError| Failure::failed(chain(&error)))
    }

    fn remove(&self, ticket: &Ticket) -> Result<()> {
        self.database
            .write(|tables| tables.remove(TABLE, ticket.as_bytes()).map(drop))
            .map_err(|error: StoreError| Failure::failed(chain(&error)))
    }
}

fn end(row: &mut Row, stage: Stage, now: Now) {
    row.stage = stage;
    row.ended = now.utc.0;
    row.secret = None;
}

/// Those that have ended and when, the last ones first.
fn ended(all: &BTreeMap<Ticket, Entry>) -> Vec<(u64, Ticket)> {
    let ended = all.iter().filter(|(_, entry)| entry.row.stage.is_final());
    let mut ended: Vec<_> = ended.map(|(ticket, entry)| (entry.row.ended, *ticket)).collect();
    ended.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
    ended
}

fn unknown(ticket: &Ticket) -> Failure {
    Failure::not_found(format!("there is no invitation {ticket}")).hint("'kith invite list' shows them")
}

/// The secret as base64.
mod secret {
    use data_encoding::BASE64;
    use kith_identity::invitation::Secret;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = secret.as_ref().map(|secret| Zeroizing::new(BASE64.encode(secret.as_bytes())));
        text.as_ref().map(|text| text.as_str()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let bytes = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?);
        let bytes: [u8; 16] = bytes.as_slice().try_into().map_err(D::Error::custom)?;
        Ok(Some(Secret::from_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests;
