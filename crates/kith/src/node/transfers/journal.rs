//! What the node remembers of transfers across a crash: one row each in `node.redb`.

use std::collections::BTreeSet;
use std::path::Path;

use kith_identity::Fingerprint;
use kith_sansio::{Span, Timestamp};
use kith_store::{Database, StoreError, Table};
use serde::{Deserialize, Serialize};

use crate::api::shapes::{NewTransfer, State, Transfer};
use crate::failure::Failure;

const TABLE: Table = Table("transfers");
/// Partial files of an incoming transfer are kept this long after its last sign of life.
pub(super) const KEPT_SECS: u64 = 7 * 86_400;
/// A transfer that a person has paused is kept this long.
pub(super) const PAUSED_SECS: u64 = 30 * 86_400;
/// Ended transfers that are kept to be shown; older ones are forgotten.
const MAX_ENDED: usize = 200;

/// Which way a transfer goes, with what is needed to go on with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Job {
    /// From here to a contact.
    Out {
        /// The order as it was given.
        order: NewTransfer,
    },
    /// From a contact to here; written once it is accepted.
    In {
        /// Absolute path of the target folder.
        into: String,
        /// Whether files that differ are replaced.
        overwrite: bool,
        /// Digest of the offer in hex: equal offers continue each other's partial files.
        digest: String,
        /// Id of the transfer whose partial files are continued (its own, or an older one's), in hex.
        staging: String,
    },
}

/// One row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The other side.
    pub(crate) peer: String,
    pub(crate) job: Job,
    /// Seconds since 1970 of the last change.
    pub(crate) changed: u64,
    /// Whether a `receive` command has printed the end.
    pub(crate) reported: bool,
    /// Whether a person has paused it here.
    #[serde(default)]
    pub(crate) paused_here: bool,
    /// Whether the contact has paused it.
    #[serde(default)]
    pub(crate) paused_there: bool,
    /// Since when somebody has paused it, in seconds since 1970; 0 where nobody does.
    #[serde(default)]
    pub(crate) paused_since: u64,
    /// Whether a person has cancelled it here.
    #[serde(default)]
    pub(crate) cancelled: bool,
    /// Whether a person has cancelled it here, and the contact has not heard of it.
    #[serde(default)]
    pub(crate) untold: bool,
    /// Seconds since 1970 until when the contact is to be told that; 0 where nothing is to be told.
    #[serde(default)]
    pub(crate) tell_until: u64,
    /// Outgoing: seconds since 1970 until when the contact is tried.
    #[serde(default)]
    pub(crate) until: u64,
    /// Where it stood.
    pub(crate) last: Transfer,
}

impl Row {
    /// A transfer that begins now, and that nobody pauses.
    pub(crate) fn new(peer: &Fingerprint, job: Job, now: Timestamp, last: Transfer) -> Row {
        Row {
            peer: peer.to_string(),
            job,
            changed: now.0,
            reported: false,
            paused_here: false,
            paused_there: false,
            paused_since: 0,
            cancelled: false,
            untold: false,
            tell_until: 0,
            until: 0,
            last,
        }
    }

    /// The other side's fingerprint; `None` in a row that somebody altered.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.peer.parse().ok()
    }

    /// Where it stands when the node starts again.
    pub(crate) fn start_again(&mut self) {
        if self.last.state.is_final() {
            return;
        }
        if self.cancelled || self.untold {
            // Just before the node ended.
            (self.last.state, self.last.failure) = (State::Failed, Some(Failure::failed("cancelled")));
            (self.last.until, self.last.waiting_for) = (None, None);
        } else {
            self.last.state = if self.is_paused() { State::Paused } else { State::Interrupted };
        }
    }

    /// Whether somebody pauses it.
    pub(crate) fn is_paused(&self) -> bool {
        !self.last.state.is_final() && (self.paused_here || self.paused_there)
    }

    /// Notes since when it is paused, where that is new.
    pub(crate) fn note_pause(&mut self, now: Timestamp) {
        match (self.is_paused(), self.paused_since) {
            (true, 0) => self.paused_since = now.0,
            (false, _) => self.paused_since = 0,
            (true, _) => {}
        }
    }

    /// Since when it has stood as it does, and how long it may; seconds since 1970, and seconds.
    pub(crate) fn rest(&self) -> (u64, u64) {
        match (self.is_paused(), self.paused_since) {
            // Written by a version that did not note it.
            (true, 0) => (self.changed, PAUSED_SECS),
            (true, since) => (since, PAUSED_SECS),
            (false, _) => (self.changed, KEPT_SECS),
        }
    }

    /// It was cancelled here, which the contact does not know.
    pub(crate) fn note_untold(&mut self, now: Timestamp) {
        if !std::mem::replace(&mut self.untold, true) {
            self.tell_until = now.plus_secs(KEPT_SECS).0;
        }
    }

    /// For how long the contact is to be told yet that it was cancelled here.
    pub(crate) fn tell_left(&self, now: Timestamp) -> Span {
        // A row of a version that did not note the end has its last change.
        let end = if self.tell_until > 0 { self.tell_until } else { self.changed.saturating_add(KEPT_SECS) };
        Span::secs(Timestamp(end).secs_since(now).min(KEPT_SECS))
    }

    /// Whether it is incoming and did not end well: one that is not kept for ever.
    pub(crate) fn leaves_parts(&self) -> bool {
        matches!(self.job, Job::In { .. }) && self.last.state != State::Done
    }

    /// Whether an incoming transfer that did not end well has shown no sign of life for too long, by the wall clock.
    fn is_given_up(&self, now: Timestamp) -> bool {
        let (since, kept) = self.rest();
        self.leaves_parts() && now.secs_since(Timestamp(since)) > kept
    }

    /// The transfer whose partial files an incoming one continues.
    fn staging(&self) -> Option<&str> {
        match &self.job {
            Job::In { staging, .. } => Some(staging),
            Job::Out { .. } => None,
        }
    }

    fn discard_partial(&self) {
        let Job::In { into, staging, .. } = &self.job else { return };
        let Ok(staging) = staging.parse() else { return };
        if let Err(error) = kith_transfer::discard_partial(Path::new(into), staging) {
            tracing::warn!(%error, %into, "partial files of an old transfer cannot be removed");
        }
    }
}

/// What a running node has in memory, and so may not be dropped from the journal.
#[derive(Debug, Default)]
pub(crate) struct Known {
    ids: BTreeSet<String>,
    /// Ids of partial files that are in use, or may be gone on with.
    stagings: BTreeSet<String>,
    ended: usize,
    /// What the node has just forgotten, whatever the wall clock says of it.
    pub(crate) forgotten: BTreeSet<String>,
}

impl Known {
    /// Counts a transfer in.
    pub(crate) fn keep(&mut self, id: &str, row: &Row) {
        self.ids.insert(id.to_owned());
        self.stagings.extend(row.staging().map(str::to_owned));
        self.ended += usize::from(row.last.state.is_final());
    }
}

/// The table of transfers.
#[derive(Clone)]
pub(crate) struct Journal(Database);

impl Journal {
    pub(crate) fn new(database: Database) -> Self {
        Journal(database)
    }

    /// All rows, oldest change first. Rows that cannot be read are dropped with a warning.
    pub(crate) fn rows(&self) -> Result<Vec<(String, Row)>, StoreError> {
        let mut rows: Vec<(String, Row)> = Vec::new();
        self.0.read(|tables| {
            tables.scan(TABLE, &[], |key, value| {
                let id = String::from_utf8_lossy(key).into_owned();
                match serde_json::from_slice(value) {
                    Ok(row) => rows.push((id, row)),
                    Err(error) => tracing::warn!(%id, %error, "a transfer's journal row cannot be read"),
                }
                std::ops::ControlFlow::Continue(())
            })
        })?;
        rows.sort_by_key(|(_, row)| row.changed);
        Ok(rows)
    }

    /// Writes a row durably; blocks for some milliseconds.
    pub(crate) fn write(&self, id: &str, row: &Row) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(row).unwrap_or_default();
        self.0.write(|tables| tables.put(TABLE, id.as_bytes(), &bytes))
    }

    /// Forgets the oldest ended transfers beyond the limit, and incoming ones that did not end well and that nobody
    /// came back to; the partial files of all these are removed. What the node has in memory stays.
    pub(crate) fn prune(&self, now: Timestamp, known: &Known) -> Result<(), StoreError> {
        let (mut dropped, mut kept): (Vec<_>, Vec<_>) = self.rows()?.into_iter().partition(|(id, row)| {
            !known.ids.contains(id) && (known.forgotten.contains(id) || row.is_given_up(now))
        });
        let is_ended = |id: &String, row: &Row| row.last.state.is_final() && !known.ids.contains(id);
        let ended = kept.iter().filter(|(id, row)| is_ended(id, row)).count();
        let mut surplus = (known.ended + ended).saturating_sub(MAX_ENDED);
        // The oldest come first.
        dropped.extend(kept.extract_if(.., |(id, row)| {
            let is_surplus = surplus > 0 && is_ended(id, row);
            surplus -= usize::from(is_surplus);
            is_surplus
        }));
        // Partial files that a newer transfer goes on with stay.
        let in_use = |staging: &str| {
            known.stagings.contains(staging) || kept.iter().any(|(_, row)| row.staging() == Some(staging))
        };
        for (_, row) in dropped.iter().filter(|(_, row)| row.leaves_parts()) {
            if !row.staging().is_some_and(in_use) {
                row.discard_partial();
            }
        }
        if dropped.is_empty() {
            return Ok(());
        }
        self.0.write(|tables| {
            dropped.iter().try_for_each(|(id, _)| tables.remove(TABLE, id.as_bytes()).map(|_| ()))
        })
    }
}

#[cfg(test)]
mod tests;
