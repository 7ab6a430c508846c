//! What selections keep in `node.redb`: what this node has signed, and evidence on its way to the issuer. Nothing of it is
//! secret; nothing is sealed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use kith_identity::Fingerprint;
use kith_identity::membership::pledge::{Evidence, VerifiedEvidence};
use kith_store::{Database, StoreError, Table};

/// The book of the last epoch, by network.
const BOOKS: Table = Table("actors_books");
/// Evidence that the issuer has not acknowledged yet, by `network [32] ‖ accused [32]`: one of each is enough.
const EVIDENCE: Table = Table("actors_evidence");
/// So many members of a network may wait to be accused; of more nothing is kept, and whoever meets them again finds it
/// again.
const MAX_ACCUSED: usize = 1_024;

/// The rows of a node.
#[derive(Clone)]
pub(super) struct Rows(pub(super) Database);

impl Rows {
    /// The book of this network that was kept last.
    pub(super) fn book(&self, network: &Fingerprint) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.read(|tables| tables.row(BOOKS, network.as_bytes()))
    }

    /// Keeps the book of this network; it is durable when this returns.
    pub(super) fn keep(&self, network: &Fingerprint, book: &[u8]) -> Result<(), StoreError> {
        self.0.write(|tables| tables.put(BOOKS, network.as_bytes(), book))
    }

    /// Keeps the book of this network where there is none.
    pub(super) fn keep_first(&self, network: &Fingerprint, book: &[u8]) -> Result<(), StoreError> {
        self.0.write(|tables| match tables.row(BOOKS, network.as_bytes())? {
            Some(_) => Ok(()),
            None => tables.put(BOOKS, network.as_bytes(), book),
        })
    }

    /// Keeps evidence until it is [removed](Rows::is_told), where there is none against this member yet; whether it does.
    pub(super) fn accuse(&self, evidence: &VerifiedEvidence) -> Result<bool, StoreError> {
        let key = key(evidence);
        let waiting = self.waiting(&evidence.slot().network)?;
        if waiting.len() >= MAX_ACCUSED || waiting.contains_key(&key) {
            return Ok(false);
        }
        self.0.write(|tables| tables.put(EVIDENCE, &key, &evidence.as_evidence().to_bytes()))?;
        Ok(true)
    }

    /// The evidence that the issuer of this network has to be told of. What cannot be read is removed.
    pub(super) fn evidence(&self, network: &Fingerprint) -> Result<Vec<VerifiedEvidence>, StoreError> {
        let mut all = Vec::new();
        for (key, row) in self.waiting(network)? {
            match Evidence::from_bytes(&row).and_then(Evidence::verify) {
                Ok(evidence) => all.push(evidence),
                Err(error) => {
                    tracing::warn!(%error, "a row of evidence cannot be read and is removed");
                    self.0.write(|tables| tables.remove(EVIDENCE, &key).map(drop))?;
                }
            }
        }
        Ok(all)
    }

    /// The keys and rows of evidence for the issuer of this network.
    fn waiting(&self, network: &Fingerprint) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        let mut all = BTreeMap::new();
        self.0.read(|tables| {
            tables.scan(EVIDENCE, network.as_bytes(), |key, row| {
                if !key.starts_with(network.as_bytes()) {
                    return ControlFlow::Break(());
                }
                all.insert(key.to_vec(), row.to_vec());
                ControlFlow::Continue(())
            })
        })?;
        Ok(all)
    }

    /// Forgets evidence that the issuer has answered.
    pub(super) fn is_told(&self, evidence: &VerifiedEvidence) -> Result<(), StoreError> {
        self.0.write(|tables| tables.remove(EVIDENCE, &key(evidence)).map(drop))
    }
}

fn key(evidence: &VerifiedEvidence) -> Vec<u8> {
    [*evidence.slot().network.as_bytes(), *evidence.signer().fingerprint().as_bytes()].concat()
}
