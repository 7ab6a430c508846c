//! The invitations of a home: in memory, and one row each in `node.redb`. Whatever is decided here is durable before
//! it is told.

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
/// For how long.
const KEPT_SECS: u64 = 86_400;
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
    all: Mutex<BTreeMap<Ticket, Entry>>,
    changes: watch::Sender<u64>,
}

struct Entry {
    row: Row,
    /// Its end on the clock that cannot be set.
    deadline: Time,
}

impl Entry {
    fn is_over(&self, now: Now) -> bool {
        now.utc.0 >= self.row.expires || now.time >= self.deadline
    }

    fn is_live(&self, now: Now) -> bool {
        !self.row.stage.is_final() && !self.is_over(now)
    }

    /// What is left of its time.
    fn left(&self, now: Now) -> Span {
        (self.deadline - now.time).min(Span::secs(self.row.expires.saturating_sub(now.utc.0)))
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
                        let set_back = row.created.saturating_sub(SET_BACK_SECS) > now.utc.0;
                        let left = if set_back { 0 } else { row.expires.saturating_sub(now.utc.0) };
                        all.insert(
                            Ticket::from_bytes(ticket),
                            Entry { deadline: now.time + Span::secs(left), row },
                        );
                    }
                    _ => tracing::warn!("an invitation in the database cannot be read and is left out"),
                }
                ControlFlow::Continue(())
            })
        });
        read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        let ledger = Ledger { database, all: Mutex::new(all), changes: watch::Sender::new(0) };
        ledger.sweep(now)?;
        Ok(ledger)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Ticket, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Enters a new invitation.
    pub(super) fn add(&self, ticket: Ticket, row: Row, now: Now) -> Result<()> {
        self.sweep(now)?;
        let mut all = self.all();
        if all.values().filter(|entry| !entry.row.stage.is_final()).count() >= MAX_OPEN {
            return Err(Failure::failed(format!("{MAX_OPEN} invitations are open already"))
                .hint("cancel one with 'kith invite cancel ID'; 'kith invite list' shows them"));
        }
        let deadline = now.time + Span::secs(row.expires.saturating_sub(row.created));
        let entry = Entry { row, deadline };
        self.store(&ticket, &entry.row)?;
        all.insert(ticket, entry);
        drop(all);
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
        let mut all = self.all();
        let Some(entry) = all.get_mut(ticket).filter(|entry| entry.is_live(now)) else {
            return Ok(Claim::Refused);
        };
        let Some(secret) = entry.row.secret.as_ref() else { return Ok(Claim::Refused) };
        if entry.row.peer.is_some_and(|claimed| claimed != peer) {
            return Ok(Claim::Refused);
        }
        if !proves(secret) {
            if entry.row.stage == Stage::Open {
                // In memory at once: should the disk fail, there is no second guess either.
                end(&mut entry.row, Stage::Burnt);
                entry.row.peer = Some(peer);
                let stored = self.store(ticket, &entry.row);
                drop(all);
                self.tell();
                stored?;
            }
            return Ok(Claim::Refused);
        }
        if entry.row.stage == Stage::Open {
            let claimed = Row { stage: Stage::Claimed, peer: Some(peer), ..entry.row.clone() };
            self.store(ticket, &claimed)?;
            entry.row = claimed;
        }
        let row = entry.row.clone();
        drop(all);
        self.tell();
        Ok(Claim::Granted(row))
    }

    /// The joiner is a contact now ([`Stage::Answered`]), or knows this node too ([`Stage::Joined`]). An invitation
    /// that has ended otherwise meanwhile stays as it is, and the answer is no.
    pub(super) fn advance(&self, ticket: &Ticket, stage: Stage) -> Result<bool> {
        let stands = self.change(ticket, |row| match (row.stage, stage) {
            (Stage::Claimed, Stage::Answered) => row.stage = stage,
            (Stage::Claimed | Stage::Answered, Stage::Joined) => end(row, stage),
            _ => {}
        })?;
        Ok(matches!(stands, Stage::Answered | Stage::Joined))
    }

    /// Ends an invitation. Where its joiner is a contact already he has joined, whatever he has said of it.
    pub(super) fn cancel(&self, ticket: &Ticket) -> Result<()> {
        self.change(ticket, |row| match row.stage {
            Stage::Open | Stage::Claimed => end(row, Stage::Cancelled),
            Stage::Answered => end(row, Stage::Joined),
            _ => {}
        })
        .map(drop)
    }

    /// Where it stands after the change.
    fn change(&self, ticket: &Ticket, change: impl FnOnce(&mut Row)) -> Result<Stage> {
        let mut all = self.all();
        let entry = all.get_mut(ticket).ok_or_else(|| unknown(ticket))?;
        let mut row = entry.row.clone();
        change(&mut row);
        let stage = row.stage;
        if stage != entry.row.stage {
            self.store(ticket, &row)?;
            entry.row = row;
            drop(all);
            self.tell();
        }
        Ok(stage)
    }

    /// Ends what is over and forgets what ended long ago; says when to come again.
    pub(super) fn sweep(&self, now: Now) -> Result<Option<Span>> {
        let mut all = self.all();
        let over: Vec<Ticket> = all
            .iter()
            .filter(|(_, entry)| !entry.row.stage.is_final() && entry.is_over(now))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in &over {
            let Some(entry) = all.get_mut(ticket) else { continue };
            let end_as = if entry.row.stage == Stage::Answered { Stage::Joined } else { Stage::Expired };
            end(&mut entry.row, end_as);
            self.store(ticket, &entry.row)?;
        }
        let ended = ended(&all);
        for (place, (expires, ticket)) in ended.iter().enumerate() {
            if place >= MAX_ENDED || now.utc.secs_since(Timestamp(*expires)) >= KEPT_SECS {
                self.remove(ticket)?;
                all.remove(ticket);
            }
        }
        let next = all.values().filter(|entry| entry.is_live(now)).map(|entry| entry.left(now)).min();
        drop(all);
        if !over.is_empty() {
            self.tell();
        }
        Ok(next)
    }

    /// Whether somebody may join.
    pub(super) fn is_open(&self, now: Now) -> bool {
        self.all().values().any(|entry| entry.is_live(now))
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

fn end(row: &mut Row, stage: Stage) {
    row.stage = stage;
    row.secret = None;
}

fn ended(all: &BTreeMap<Ticket, Entry>) -> Vec<(u64, Ticket)> {
    let ended = all.iter().filter(|(_, entry)| entry.row.stage.is_final());
    let mut ended: Vec<_> = ended.map(|(ticket, entry)| (entry.row.expires, *ticket)).collect();
    ended.sort_unstable_by_key(|(expires, _)| std::cmp::Reverse(*expires));
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
