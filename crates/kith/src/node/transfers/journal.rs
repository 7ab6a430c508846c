//! What the node remembers of transfers across a crash: one row each in `node.redb`.

use kith_identity::Fingerprint;
use kith_store::{Database, StoreError, Table};
use serde::{Deserialize, Serialize};

use crate::api::shapes::{NewTransfer, Transfer};

const TABLE: Table = Table("transfers");
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
    /// Where it stood.
    pub(crate) last: Transfer,
}

impl Row {
    /// The other side's fingerprint; `None` in a row that somebody altered.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.peer.parse().ok()
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

    /// Forgets the oldest ended transfers beyond the limit.
    pub(crate) fn prune(&self) -> Result<(), StoreError> {
        let ended: Vec<_> = self.rows()?.into_iter().filter(|(_, row)| row.last.state.is_final()).collect();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        if surplus == 0 {
            return Ok(());
        }
        self.0.write(|tables| {
            for (id, _) in &ended[..surplus] {
                tables.remove(TABLE, id.as_bytes())?;
            }
            Ok(())
        })
    }
}
