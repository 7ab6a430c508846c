//! What a node's part in selections stands on: the region that the DHT has proved, the ways that it knows, and the disk.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_actors::hardened::{Book, Refusal, View};
use kith_actors::shell::{Ground, Neighbour};
use kith_connect::Changes;
use kith_dht::shell::Membership as _;
use kith_identity::Fingerprint;
use kith_identity::membership::pledge::VerifiedEvidence;
use kith_identity::membership::{NodeId, REGION_MEMBERS, VerifiedEpoch, region_bits};

use super::Selections;
use super::rows::Rows;
use crate::node::dht::Running as Part;
use crate::node::{Node, contacts, dht};

/// How many members nearest to a place are looked for: one of them sets a list up.
const NEAREST: usize = 8;

/// The ground of this node in one network.
pub(super) struct Land {
    part: Part,
    contacts: Arc<contacts::Book>,
    keyspace: Arc<dht::Keyspace>,
    selections: Arc<Selections>,
    newest: Mutex<Option<Newest>>,
    /// What was kept last.
    kept: Mutex<Option<Book>>,
}

/// The newest epoch whose region is proved, and whether there are selections in it.
#[derive(Clone)]
pub(super) struct Newest {
    pub(super) epoch: VerifiedEpoch,
    pub(super) view: Result<Arc<View>, Refusal>,
}

impl Land {
    pub(super) fn new(node: &Node, part: Part) -> Land {
        Land {
            part,
            contacts: Arc::clone(&node.book),
            keyspace: Arc::clone(&node.keyspace),
            selections: Arc::clone(&node.selections),
            newest: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// The part in the DHT that it stands on.
    pub(super) fn part(&self) -> &Part {
        &self.part
    }

    fn rows(&self) -> &Rows {
        &self.selections.rows
    }

    fn newest_slot(&self) -> MutexGuard<'_, Option<Newest>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was kept last of what this node has signed.
    pub(super) fn kept(&self) -> MutexGuard<'_, Option<Book>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest epoch with what it means for selections; nothing while its region is not proved.
    pub(super) fn newest(&self) -> Option<Newest> {
        let mut newest = self.newest_slot();
        let Some(roster) = self.part.pass.proved() else { return newest.clone() };
        let facts = roster.epoch.facts();
        // The DHT may not have changed the size of its region yet.
        let is_region = roster.range.block().bits() == region_bits(facts.members, REGION_MEMBERS);
        if is_region && newest.as_ref().is_none_or(|newest| newest.epoch != roster.epoch) {
            let view = View::new(roster.epoch.clone(), roster.range.clone()).map(Arc::new);
            if view.is_err() {
                self.nothing_is_signed_in(&roster.epoch);
            }
            *newest = Some(Newest { epoch: roster.epoch.clone(), view });
        }
        newest.clone()
    }

    /// Notes that an epoch without selections was seen, so that a node without a book takes part from the next one on.
    fn nothing_is_signed_in(&self, epoch: &VerifiedEpoch) {
        let (rows, network) = (self.rows().clone(), self.part.network);
        let book = Book::closed(epoch).to_bytes();
        self.selections.tasks.spawn_blocking(move || {
            if let Err(error) = rows.keep_first(&network, &book) {
                tracing::warn!(%error, "the book of selections is not kept");
            }
        });
    }

    /// The address of a member: what the DHT has, else what it finds.
    async fn find(&self, member: &Neighbour) -> Option<kith_dht::Contact> {
        let known = self.part.dht.contact(member.id).await.ok()?;
        if known.is_some() {
            return known;
        }
        let found = self.part.dht.find(member.id, 1).await.ok()?;
        found.nodes.into_iter().find(|contact| contact.id == member.id)
    }
}

impl Ground for Land {
    fn view(&self) -> Option<Arc<View>> {
        self.newest()?.view.ok()
    }

    fn changed(&self) -> Changes {
        self.part.pass.changed()
    }

    fn nearest<'a>(&'a self, place: &'a NodeId) -> Pin<Box<dyn Future<Output = Vec<Neighbour>> + Send + 'a>> {
        Box::pin(async move {
            let found = self.part.dht.find(*place, NEAREST).await;
            let nodes = found.map(|found| found.nodes).unwrap_or_default();
            nodes.iter().map(|one| Neighbour { id: one.id, fingerprint: one.fingerprint }).collect()
        })
    }

    fn prepare<'a>(
        &'a self,
        member: &'a Neighbour,
    ) -> Pin<Box<dyn Future<Output = Box<dyn Send>> + Send + 'a>> {
        Box::pin(async move {
            let contact = self.find(member).await.filter(|found| found.fingerprint == member.fingerprint);
            Box::new(contact.map(|found| self.keyspace.hint(found.fingerprint, found.address)))
                as Box<dyn Send>
        })
    }

    fn introduce<'a>(&'a self, peer: &'a Fingerprint) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        self.part.pass.introduce(peer)
    }

    fn recall(&self) -> io::Result<Option<Vec<u8>>> {
        self.rows().book(&self.part.network).map_err(io::Error::other)
    }

    fn keep(&self, book: &[u8]) -> io::Result<()> {
        self.rows().keep(&self.part.network, book).map_err(io::Error::other)?;
        *self.kept() = Book::from_bytes(book).ok();
        Ok(())
    }

    fn accuse(&self, evidence: VerifiedEvidence) {
        self.contacts.network.membership.accuse(&evidence);
        self.selections.accuse(evidence);
    }
}
