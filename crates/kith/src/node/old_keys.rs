//! Keys that this home had before: each goes on being announced, with the statement of who followed it, and contacts
//! are told.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_directory::client::{Announcer, Clock};
use kith_identity::record::{Draft, MAX_TTL_SECS};
use kith_identity::{Fingerprint, Identity, Succession, VerifiedSuccession};
use kith_sansio::{Span, Timestamp, system};
use kith_store::{Database, Home, StoreError, Table};
use serde::{Deserialize, Serialize};

use super::{Node, own};
use crate::failure::{Failure, Result, chain};
use crate::identity_file::{self, Passphrase};

const TABLE: Table = Table("old-keys");
/// How long an old key is announced after its succession, in seconds: 180 days.
const ANNOUNCED_SECS: u64 = 180 * 86_400;
/// Keys before this one that a home follows back; older ones are not announced.
const MAX_OLD_KEYS: usize = 16;
/// Contacts that could not be told are tried again after this time, then after twice as long, and so on.
const FIRST_ROUND: Span = Span::secs(60);
const LAST_ROUND: Span = Span::secs(3_600);

/// A succession as it is stored, under the old fingerprint.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    statement: Succession,
    /// Somebody may know it: there can be no other for the same key.
    published: bool,
}

/// A key that was followed.
struct OldKey {
    statement: VerifiedSuccession,
    /// Why its record set cannot be announced.
    trouble: Option<String>,
    announced: Option<(Arc<Identity>, Clock)>,
}

/// The keys that this home had before.
pub(crate) struct OldKeys {
    keys: Vec<OldKey>,
    announcers: Mutex<Vec<Announcer>>,
}

/// Until when a succession is announced.
pub(crate) fn until(statement: &VerifiedSuccession) -> Timestamp {
    statement.at().plus_secs(ANNOUNCED_SECS)
}

/// Notes a succession before the new key is in its place. A later one for the same key takes its place as long as
/// nobody can have heard of it.
pub(crate) fn prepare(database: &Database, statement: &VerifiedSuccession) -> Result<()> {
    let row = Row { statement: statement.as_succession().clone(), published: false };
    write(database, &statement.old(), &row)
}

/// Who followed `key`, where that is known to others already.
pub(crate) fn published(database: &Database, key: &Fingerprint) -> Result<Option<VerifiedSuccession>> {
    let found =
        rows(database)?.into_iter().find(|(statement, published)| *published && statement.old() == *key);
    Ok(found.map(|(statement, _)| statement))
}

/// The steps that led to `current`, the last one first.
pub(crate) fn chain_to(database: &Database, current: &Fingerprint) -> Result<Vec<VerifiedSuccession>> {
    let rows = rows(database)?;
    let mut chain: Vec<VerifiedSuccession> = Vec::new();
    let mut key = *current;
    while chain.len() < MAX_OLD_KEYS
        && let Some((step, _)) = rows.iter().find(|(step, _)| step.successor() == key)
        && step.old() != *current
        && !chain.contains(step)
    {
        chain.push(step.clone());
        key = step.old();
    }
    Ok(chain)
}

fn rows(database: &Database) -> Result<Vec<(VerifiedSuccession, bool)>> {
    let mut rows = Vec::new();
    let read = database.read(|tables| {
        tables.scan(TABLE, &[], |key, value| {
            let old = key.try_into().map(Fingerprint::from_bytes).ok();
            let row = serde_json::from_slice::<Row>(value).ok();
            match old.zip(row).map(|(old, row)| (row.statement.verify(&old), row.published)) {
                Some((Ok(statement), published)) => rows.push((statement, published)),
                _ => tracing::error!("the row of an old key cannot be read"),
            }
            ControlFlow::Continue(())
        })
    });
    read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
    Ok(rows)
}

fn write(database: &Database, old: &Fingerprint, row: &Row) -> Result<()> {
    let value = serde_json::to_vec(row).map_err(Failure::failed)?;
    database
        .write(|tables| tables.put(TABLE, old.as_bytes(), &value))
        .map_err(|error: StoreError| Failure::failed(chain(&error)))
}

impl OldKeys {
    /// Opens the keys that led to `current`. One whose file is missing or does not open is told of by its statement
    /// all the same; only announcing needs the key.
    pub(crate) fn open(
        home: &Home,
        database: &Database,
        current: &Fingerprint,
        passphrase: Option<&Passphrase>,
    ) -> Result<OldKeys> {
        let now = system::utc();
        let mut keys = Vec::new();
        for statement in chain_to(database, current)? {
            if until(&statement) <= now {
                continue;
            }
            // From now on others may hear of it.
            write(
                database,
                &statement.old(),
                &Row { statement: statement.as_succession().clone(), published: true },
            )?;
            let (announced, trouble) = match identity_file::load_old(home, &statement.old(), passphrase) {
                Ok(identity) => {
                    let clock = own::clock_of(database, &statement.old())?;
                    (Some((Arc::new(identity), clock)), None)
                }
                Err(failure) => (None, Some(failure.error)),
            };
            keys.push(OldKey { statement, trouble, announced });
        }
        Ok(OldKeys { keys, announcers: Mutex::default() })
    }

    /// Whether the key of this home followed another.
    pub(crate) fn is_followed(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The statement of who followed `old`.
    pub(super) fn statement(&self, old: &Fingerprint) -> Option<VerifiedSuccession> {
        self.statements().into_iter().find(|statement| statement.old() == *old)
    }

    /// All statements that are told, the oldest key's first.
    pub(super) fn statements(&self) -> Vec<VerifiedSuccession> {
        let now = system::utc();
        let current = self.keys.iter().filter(|key| until(&key.statement) > now);
        current.map(|key| key.statement.clone()).rev().collect()
    }

    /// What the owner should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let note = |key: &OldKey| {
            let (old, end) = (key.statement.old(), until(&key.statement));
            match &key.trouble {
                None => format!("the old key {old} is announced with its successor until {end}"),
                Some(trouble) => format!("the old key {old} cannot be announced: {trouble}"),
            }
        };
        self.keys.iter().map(note).collect()
    }

    fn announcers(&self) -> MutexGuard<'_, Vec<Announcer>> {
        self.announcers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts announcing and telling.
pub(super) fn start(node: &Arc<Node>) -> Result<()> {
    if !node.old_keys.is_followed() {
        return Ok(());
    }
    for key in &node.old_keys.keys {
        let Some((identity, clock)) = &key.announced else { continue };
        let announcer = Announcer::start(
            node.directory.clone(),
            Arc::clone(identity),
            node.config.authorities.clone(),
            clock.clone(),
        );
        let announcer = announcer.map_err(|error| Failure::failed(chain(&error)))?;
        announcer.update(draft(&key.statement)?);
        node.old_keys.announcers().push(announcer);
    }
    let teller = Arc::clone(node);
    node.tasks.spawn(async move {
        tokio::select! {
            () = tell_all(&teller) => {}
            () = teller.stopping.cancelled() => {}
        }
        // What was announced stays valid: it says nothing but who follows.
        teller.old_keys.announcers().clear();
    });
    Ok(())
}

/// What an old key still says: no addresses, since nobody answers under it, and who follows. It is valid for as long
/// as can be, so that it stays when this node stops.
fn draft(statement: &VerifiedSuccession) -> Result<Draft> {
    let record = statement.to_record().map_err(|error| Failure::failed(chain(&error)))?;
    Ok(Draft { extra: vec![record], ttl: MAX_TTL_SECS, ..Draft::default() })
}

/// Tells every contact once, those that cannot be reached again and again, until the time is over.
async fn tell_all(node: &Arc<Node>) {
    let mut told: HashSet<Fingerprint> = HashSet::new();
    let mut pause = FIRST_ROUND;
    while !node.old_keys.statements().is_empty() {
        for contact in node.book.list() {
            let peer = contact.ni.fingerprint;
            if !told.contains(&peer) && node.tell(&peer).await {
                told.insert(peer);
            }
        }
        tokio::time::sleep(pause.into()).await;
        pause = pause.times(2).min(LAST_ROUND);
    }
}
