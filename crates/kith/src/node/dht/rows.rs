//! What the DHT keeps in `node.redb`: values of others, and whom it knew last. All of it is public; nothing is sealed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use kith_dht::shell::{Shelf, Written};
use kith_dht::{Card, Contact};
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_store::{Committer, Database, StoreError, Table, WriteRows};

use crate::failure::{Failure, Result, chain};

/// Values, by `network [32] ‖ key [32]`.
const VALUES: Table = Table("dht_values");
/// The cards of members that were known last, one after the other with two bytes of length before each, by network.
const KNOWN: Table = Table("dht_known");
const NAME_BYTES: usize = 32;

pub(super) struct Rows {
    database: Database,
    committer: Arc<Committer>,
}

/// What was kept when the node ran last.
pub(super) struct Stored {
    pub(super) values: Vec<(NodeId, Vec<u8>)>,
    pub(super) known: Vec<Card>,
}

impl Rows {
    pub(super) fn open(database: Database) -> Rows {
        Rows { committer: Arc::new(Committer::start(database.clone())), database }
    }

    /// What was kept for this network; that of others is removed.
    pub(super) fn stored(&self, network: &Fingerprint) -> Result<Stored> {
        let mut all = BTreeMap::new();
        let known = self.database.read(|tables| {
            tables.scan(VALUES, &[], |key, row| {
                all.insert(key.to_vec(), row.to_vec());
                ControlFlow::Continue(())
            })?;
            tables.row(KNOWN, network.as_bytes())
        });
        let known = known.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        let (own, foreign): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(key, _)| key.starts_with(network.as_bytes()));
        if !foreign.is_empty() {
            let removed = self
                .database
                .write(|tables| foreign.iter().try_for_each(|(key, _)| tables.remove(VALUES, key).map(drop)));
            removed.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        }
        let values = own.into_iter().filter_map(|(key, row)| {
            let key: [u8; NAME_BYTES] = key.get(NAME_BYTES..)?.try_into().ok()?;
            Some((NodeId::from_bytes(key), row))
        });
        Ok(Stored { values: values.collect(), known: cards(&known.unwrap_or_default()) })
    }

    /// Writes down whom the node knows; where that fails, it asks the issuer.
    pub(super) fn remember(&self, network: &Fingerprint, known: &[Contact]) {
        let (network, mut row) = (*network, Vec::new());
        for contact in known {
            let card = contact.to_card();
            row.extend_from_slice(&(card.len() as u16).to_be_bytes());
            row.extend_from_slice(&card);
        }
        let put = move |tables: &mut WriteRows| tables.put(KNOWN, network.as_bytes(), &row);
        self.committer.submit(put, |put| {
            if let Err(error) = put {
                tracing::warn!(%error, "whom the DHT knows is not written down");
            }
        });
    }

    /// Where the values of this network are kept.
    pub(super) fn shelf(&self, network: Fingerprint) -> Arc<dyn Shelf> {
        Arc::new(NetworkShelf { committer: Arc::clone(&self.committer), network })
    }
}

fn cards(mut row: &[u8]) -> Vec<Card> {
    let mut cards = Vec::new();
    while let Some((length, rest)) = row.split_first_chunk::<2>() {
        let Some((card, rest)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else { break };
        row = rest;
        cards.extend(Card::read(card));
    }
    cards
}

struct NetworkShelf {
    committer: Arc<Committer>,
    network: Fingerprint,
}

impl NetworkShelf {
    fn name(&self, key: &NodeId) -> Vec<u8> {
        [&self.network.as_bytes()[..], key.as_bytes()].concat()
    }
}

impl Shelf for NetworkShelf {
    fn put(&self, key: &NodeId, row: Vec<u8>, written: Written) {
        let name = self.name(key);
        let put = move |tables: &mut WriteRows| tables.put(VALUES, &name, &row);
        self.committer.submit(put, |put| {
            // Members can bring this about by bringing many values at once.
            if let Err(error) = &put {
                tracing::debug!(%error, "a value of the DHT is not written");
            }
            written(put.is_ok());
        });
    }

    fn remove(&self, key: &NodeId) {
        let name = self.name(key);
        let remove = move |tables: &mut WriteRows| tables.remove(VALUES, &name);
        self.committer.submit(remove, |removed| {
            if let Err(error) = removed {
                tracing::debug!(%error, "a value of the DHT stays on the disk");
            }
        });
    }
}
