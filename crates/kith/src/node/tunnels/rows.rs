//! The tunnels of a home: in memory, and one row each in `node.redb`.

use std::ops::ControlFlow;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use kith_identity::Fingerprint;
use kith_store::{Database, StoreError, Table};
use kith_tunnel::Cidr;
use serde::{Deserialize, Serialize};

use super::All;
use crate::failure::{Failure, Result, chain};

const TABLE: Table = Table("tunnels");

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) device: String,
    #[serde(with = "texts")]
    pub(super) addresses: Vec<Cidr>,
    #[serde(with = "texts")]
    pub(super) networks: Vec<Cidr>,
    pub(super) transport: Option<String>,
    pub(super) mtu: u16,
}

/// All of them.
pub(super) struct Rows {
    database: Database,
    all: RwLock<All>,
}

impl Rows {
    pub(super) fn open(database: Database) -> Result<Rows> {
        let mut all = All::new();
        let mut broken = None;
        let read = database.read(|tables| {
            tables.scan(TABLE, &[], |key, value| {
                let peer = <[u8; 32]>::try_from(key).map(Fingerprint::from_bytes);
                match (peer, serde_json::from_slice::<Row>(value)) {
                    (Ok(peer), Ok(row)) => {
                        all.insert(peer, row);
                        ControlFlow::Continue(())
                    }
                    (Err(_), _) => {
                        broken = Some("a tunnel to no fingerprint".to_owned());
                        ControlFlow::Break(())
                    }
                    (_, Err(error)) => {
                        broken = Some(format!("a tunnel: {error}"));
                        ControlFlow::Break(())
                    }
                }
            })
        });
        read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        match broken {
            Some(error) => Err(Failure::failed(format!("the database cannot be used: {error}"))),
            None => Ok(Rows { database, all: RwLock::new(all) }),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, All> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> All {
        self.read().clone()
    }

    pub(super) fn get(&self, peer: &Fingerprint) -> Option<Row> {
        self.read().get(peer).cloned()
    }

    /// Whether there is one like this.
    pub(super) fn any(&self, is_it: impl Fn(&Row) -> bool) -> bool {
        self.read().values().any(is_it)
    }

    /// How many there are; `None` where there are none.
    pub(super) fn count(&self) -> Option<usize> {
        Some(self.read().len()).filter(|count| *count > 0)
    }

    /// Stores a row, and has it once it is on the disk.
    pub(super) async fn put(&self, peer: &Fingerprint, row: Row) -> Result<()> {
        let (database, key) = (self.database.clone(), *peer.as_bytes());
        let value = serde_json::to_vec(&row).map_err(Failure::failed)?;
        write(move || database.write(|tables| tables.put(TABLE, &key, &value))).await?;
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(*peer, row);
        Ok(())
    }

    pub(super) async fn remove(&self, peer: &Fingerprint) -> Result<()> {
        let (database, key) = (self.database.clone(), *peer.as_bytes());
        write(move || database.write(|tables| tables.remove(TABLE, &key).map(drop))).await?;
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
        Ok(())
    }
}

/// The disk is waited for outside the runtime's threads.
async fn write(work: impl FnOnce() -> std::result::Result<(), StoreError> + Send + 'static) -> Result<()> {
    let written = tokio::task::spawn_blocking(work).await.map_err(Failure::failed)?;
    written.map_err(|error| Failure::failed(chain(&error)))
}

/// Networks as texts.
mod texts {
    use kith_tunnel::Cidr;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(all: &[Cidr], to: S) -> Result<S::Ok, S::Error> {
        all.iter().map(ToString::to_string).collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Cidr>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}
