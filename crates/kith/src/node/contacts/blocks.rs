//! Whom this node trusts for nothing, whatever contacts and delegators say.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::PoisonError;

use kith_identity::{Fingerprint, Ni};
use kith_sansio::{Timestamp, system};
use kith_store::{Database, StoreError, Table};
use serde::{Deserialize, Serialize};

use super::Book;
use crate::api::delegator::Block;
use crate::failure::{Failure, Result, chain};

const TABLE: Table = Table("blocks");
/// Most blocks.
const MAX_BLOCKS: usize = 100_000;

/// A block as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    name: Option<String>,
    since: u64,
}

pub(super) type Blocks = BTreeMap<Fingerprint, Row>;

/// Reads the blocks of a database. One that cannot be read is an error: it would let somebody in.
pub(super) fn stored(database: &Database) -> Result<Blocks> {
    let mut blocks = Blocks::new();
    let mut broken = false;
    let read = database.read(|tables| {
        tables.scan(TABLE, &[], |key, value| match (key.try_into(), serde_json::from_slice(value)) {
            (Ok(key), Ok(row)) => {
                blocks.insert(Fingerprint::from_bytes(key), row);
                ControlFlow::Continue(())
            }
            _ => {
                broken = true;
                ControlFlow::Break(())
            }
        })
    });
    read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
    if broken {
        Err(Failure::failed("the database cannot be used: a block cannot be read"))
    } else {
        Ok(blocks)
    }
}

fn shape(who: &Fingerprint, row: &Row) -> Block {
    let ni = Ni::new(*who, None).to_string();
    Block { ni, name: row.name.clone(), since: Timestamp(row.since).to_string() }
}

impl Book {
    /// Whether nobody may trust `peer` for anything.
    pub(crate) fn is_blocked(&self, peer: &Fingerprint) -> bool {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner).contains_key(peer)
    }

    /// All blocks.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().map(|(who, row)| shape(who, row)).collect()
    }

    /// Trusts a fingerprint, a contact or a node that a delegator lists for nothing any more.
    pub(crate) fn block(&self, who: &str) -> Result<Block> {
        let (peer, name) = match who.parse::<Ni>() {
            Ok(ni) => (ni.fingerprint, self.peer_of(&ni.fingerprint, None).map(|peer| peer.name.to_string())),
            Err(error) if who.starts_with("ni:") => return Err(Failure::usage(chain(&error))),
            Err(_) => {
                let peer = self.peer(who)?;
                (peer.ni.fingerprint, Some(peer.name.to_string()))
            }
        };
        if let Some(used) = self.delegated.used(&peer) {
            return Err(Failure::usage(format!("{} manages whom this node trusts", used.name))
                .hint(format!("'kith delegator drop {}' ends that", used.name)));
        }
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = blocks.get(&peer) {
            return Ok(shape(&peer, known));
        }
        if blocks.len() >= MAX_BLOCKS {
            return Err(Failure::failed(format!("{MAX_BLOCKS} nodes are blocked already")));
        }
        let row = Row { name, since: system::utc().0 };
        let bytes = serde_json::to_vec(&row).map_err(Failure::failed)?;
        self.database
            .write(|tables| tables.put(TABLE, peer.as_bytes(), &bytes))
            .map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        let block = shape(&peer, &row);
        blocks.insert(peer, row);
        drop(blocks);
        self.changed.raise();
        Ok(block)
    }

    /// Takes a block back: what contacts and delegators say holds again.
    pub(crate) fn unblock(&self, who: &str) -> Result<Block> {
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |(peer, row): &(&Fingerprint, &Row)| match who.parse::<Ni>() {
            Ok(ni) => ni.fingerprint == **peer,
            Err(_) => row.name.as_deref().is_some_and(|name| name.to_lowercase() == who.to_lowercase()),
        };
        let found: Vec<_> =
            blocks.iter().filter(is_meant).map(|(peer, row)| (*peer, shape(peer, row))).collect();
        let [(peer, block)] = found.as_slice() else {
            return Err(match found.len() {
                0 => Failure::not_found(format!("'{who}' is not blocked"))
                    .hint("'kith contact blocked' lists who is"),
                _ => Failure::usage(format!("several are blocked under the name '{who}'"))
                    .hint("name the fingerprint; 'kith contact blocked' lists them"),
            });
        };
        self.database
            .write(|tables| tables.remove(TABLE, peer.as_bytes()).map(drop))
            .map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        blocks.remove(peer);
        let block = block.clone();
        drop(blocks);
        self.changed.raise();
        Ok(block)
    }
}
