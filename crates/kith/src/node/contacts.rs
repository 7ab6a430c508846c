//! The floor of contacts: whom this node trusts, and who knocked.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use kith_connect::delegator::Opener;
use kith_connect::{ChangeSignal, Changes, Protocol, Trust};
use kith_identity::contacts::{Contact, Contacts, Group, Hint, Petname};
use kith_identity::{Fingerprint, Ni};
use kith_sansio::{Timestamp, system};
use kith_store::{Committer, Database, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Node;
use super::claims::Claims;
use super::delegator::{Delegated, Way};
use super::network::Network;
use super::successions;
use crate::api::delegator::{Block, NewBlock};
use crate::api::server::{Answer, Route};
use crate::api::shapes::{self, ContactChange, Knock, NewContact};
use crate::api::wish::Body;
use crate::failure::{Failure, Result, chain};
use crate::floors::Floor;

mod blocks;
mod meeting;

pub(crate) use self::meeting::{Met, presentable};

const CONTACTS: Table = Table("contacts");
const REQUESTS: Table = Table("requests");
/// Strangers that are remembered; the one that has been silent longest is forgotten first.
const MAX_REQUESTS: usize = 256;

pub(crate) const FLOOR: Floor = Floor {
    name: "contacts",
    start: |_| Box::pin(async { Ok(()) }),
    stop: |_| Box::pin(async {}),
    routes,
    status: |node| Some(json!({ "count": node.book.list().len(), "requests": node.book.requests().len() })),
    commands: &["contact"],
};

/// The contacts of a home, in memory and in its database.
pub(crate) struct Book {
    contacts: RwLock<Contacts>,
    /// Who claims to follow their keys. Locked after `contacts` where both are.
    claims: RwLock<Claims>,
    blocks: RwLock<blocks::Blocks>,
    /// What delegators add.
    pub(crate) delegated: Delegated,
    /// The network that this node issues, and the one that it has joined.
    pub(crate) network: Network,
    database: Database,
    committer: Committer,
    changed: ChangeSignal,
}

/// A stranger's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Request {
    first: u64,
    last: u64,
    times: u64,
    from: String,
}

impl Book {
    /// Reads the contacts of a database.
    pub(crate) fn open(database: Database) -> Result<Book> {
        let mut contacts = Contacts::new();
        let mut broken = None;
        let read = database.read(|tables| {
            tables.scan(CONTACTS, &[], |key, value| {
                let row = serde_json::from_slice::<Contact>(value).map_err(|error| error.to_string());
                match row.and_then(|row| contacts.add(row).map_err(|error| error.to_string())) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        broken = Some(format!("contact '{}': {error}", String::from_utf8_lossy(key)));
                        ControlFlow::Break(())
                    }
                }
            })
        });
        read.map_err(|error: kith_store::StoreError| Failure::failed(chain(&error)))?;
        match broken {
            Some(error) => Err(Failure::failed(format!("the database cannot be used: {error}"))),
            None => {
                let changed = ChangeSignal::new();
                Ok(Book {
                    contacts: RwLock::new(contacts),
                    claims: RwLock::new(successions::stored(&database)?),
                    blocks: RwLock::new(blocks::stored(&database)?),
                    delegated: Delegated::open(database.clone(), changed.clone())?,
                    network: Network::open(database.clone(), changed.clone())?,
                    committer: Committer::start(database.clone()),
                    database,
                    changed,
                })
            }
        }
    }

    /// Has everybody look again who follows whom this node lets in.
    pub(super) fn raise_change(&self) {
        self.changed.raise();
    }

    /// The contacts as they are.
    pub(super) fn contacts(&self) -> RwLockReadGuard<'_, Contacts> {
        self.contacts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The claims to follow contacts' keys.
    pub(super) fn claims(&self) -> RwLockReadGuard<'_, Claims> {
        self.claims.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn list(&self) -> Vec<Contact> {
        self.contacts().iter().cloned().collect()
    }

    /// The contact of this petname or fingerprint.
    pub(crate) fn find(&self, name: &str) -> Result<Contact> {
        let contacts = self.contacts();
        let found = match name.parse::<Ni>() {
            Ok(ni) => contacts.by_fingerprint(&ni.fingerprint),
            Err(_) => contacts.find(name),
        };
        found.cloned().ok_or_else(|| {
            Failure::not_found(format!("there is no contact '{name}'"))
                .hint("list them with 'kith contact list', add one with 'kith contact add NAME NI'")
        })
    }

    /// The fingerprint that a text means: a petname's, or itself.
    pub(crate) fn resolve(&self, name: &str) -> Result<Ni> {
        match name.parse::<Ni>() {
            // A contact's own authority serves where the text has none.
            Ok(ni) if ni.authority.is_none() => Ok(self.find(name).map_or(ni, |contact| contact.ni)),
            Ok(ni) => Ok(ni),
            Err(_) if !name.starts_with("ni:") => self.find(name).map(|contact| contact.ni),
            Err(error) => Err(Failure::usage(chain(&error))),
        }
    }

    /// The contact of a fingerprint.
    pub(crate) fn contact_of(&self, peer: &Fingerprint) -> Option<Contact> {
        self.contacts().by_fingerprint(peer).cloned()
    }

    /// The contact of this petname or fingerprint, or the node that a delegator lists so; a contact goes first.
    pub(crate) fn peer(&self, name: &str) -> Result<Contact> {
        self.peer_and_delegator(name, None).map(|(peer, _)| peer)
    }

    /// The same for streams of `protocol` that this node opens: where several delegators list the node, it is called as
    /// one of them calls it who allows that.
    pub(crate) fn peer_for(&self, name: &str, protocol: &Protocol) -> Result<Contact> {
        self.peer_and_delegator(name, Some((Opener::Own, protocol))).map(|(peer, _)| peer)
    }

    fn peer_and_delegator(&self, name: &str, way: Way<'_>) -> Result<(Contact, Option<Petname>)> {
        let unknown = match self.find(name) {
            Ok(contact) => return Ok((contact, None)),
            Err(failure) => failure,
        };
        let listed = match name.parse::<Ni>() {
            Ok(ni) => self.delegated.peer(&ni.fingerprint, way),
            Err(_) => self.delegated.named(name)?,
        };
        listed.map(|(peer, by)| (peer, Some(by))).ok_or_else(|| match self.delegated.is_awaited() {
            true => unknown.hint("the list of a delegator is not here yet; 'kith delegator list' shows why"),
            false => unknown,
        })
    }

    /// The contact of a fingerprint, or what a delegator says of it.
    pub(crate) fn peer_of(&self, peer: &Fingerprint, way: Way<'_>) -> Option<Contact> {
        self.contact_of(peer).or_else(|| self.delegated.peer(peer, way).map(|(peer, _)| peer))
    }

    /// The petname of a fingerprint, or the fingerprint itself.
    pub(crate) fn name_of(&self, peer: &Fingerprint) -> String {
        self.name_for(peer, None)
    }

    /// The same for what the peer is wanted for.
    pub(crate) fn name_for(&self, peer: &Fingerprint, way: Way<'_>) -> String {
        self.peer_of(peer, way).map_or_else(|| peer.to_string(), |contact| contact.name.to_string())
    }

    /// Whether that side may open streams of `protocol` with `peer`. A block goes before everything; a contact may do
    /// what it likes; others what a delegator allows. The conversation with a delegator is for its members alone, the
    /// one with an issuer also for those of its network.
    pub(crate) fn permits(&self, opener: Opener, peer: &Fingerprint, protocol: &Protocol) -> bool {
        let is_own_choice = *protocol != kith_connect::delegator::PROTOCOL && self.contacts().trusts(peer);
        let is_allowed =
            || self.delegated.permits(opener, peer, protocol) || self.network.permits(opener, peer, protocol);
        !self.is_blocked(peer) && (is_own_choice || is_allowed())
    }

    /// Refuses what neither contacts nor delegators allow this node, or what it has blocked.
    pub(crate) fn refuse_unless_allowed(&self, peer: &Contact, protocol: &Protocol) -> Result<()> {
        let fingerprint = &peer.ni.fingerprint;
        if self.is_blocked(fingerprint) {
            return Err(Failure::not_trusted(format!("{} is blocked here", peer.name))
                .hint(format!("'kith contact unblock {}' takes that back", peer.ni)));
        }
        if self.permits(Opener::Own, fingerprint, protocol) {
            return Ok(());
        }
        if self.peer_of(fingerprint, None).is_none() {
            return Err(Failure::not_trusted(format!("{} is no contact any more", peer.name)));
        }
        Err(Failure::not_trusted(format!("no delegator lets this node reach {} for {protocol}", peer.name))
            .hint("'kith delegator list' names the delegators here, and 'kith delegator show NAME' what they allow"))
    }

    /// Trusts a fingerprint under a name.
    pub(crate) fn add(&self, new: &NewContact) -> Result<Contact> {
        let usage = |error: &dyn std::error::Error| Failure::usage(chain(error));
        let name = new.name.parse::<Petname>().map_err(|e| usage(&e))?;
        let mut contact = Contact::new(name, new.ni.parse().map_err(|e| usage(&e))?, system::utc());
        for at in &new.at {
            contact.hints.push(at.parse::<Hint>().map_err(|e| usage(&e))?);
        }
        let added = contact.clone();
        self.change(|contacts| contacts.add(contact).map_err(|e| usage(&e)))?;
        self.forget_request(&added.ni.fingerprint)?;
        Ok(added)
    }

    pub(crate) fn rename(&self, name: &str, new_name: &str) -> Result<Contact> {
        let old = self.find(name)?;
        let to: Petname = new_name.parse().map_err(|e| Failure::usage(chain(&e)))?;
        self.change(|contacts| {
            contacts.rename(old.name.as_str(), to).map_err(|e| Failure::usage(chain(&e)))
        })?;
        self.find(new_name)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<Contact> {
        let contact = self.find(name)?;
        self.change_all(|contacts, claims| {
            claims.forget(&contact.ni.fingerprint);
            contacts.remove(contact.name.as_str()).map(|_| ()).map_err(|e| Failure::not_found(chain(&e)))
        })?;
        Ok(contact)
    }

    pub(crate) fn join(&self, name: &str, group: &str) -> Result<Contact> {
        let contact = self.find(name)?;
        let group: Group = group.parse().map_err(|e| Failure::usage(chain(&e)))?;
        let mut changed = contact.clone();
        changed.groups.insert(group);
        self.replace(changed)
    }

    pub(crate) fn leave(&self, name: &str, group: &str) -> Result<Contact> {
        let contact = self.find(name)?;
        let mut changed = contact.clone();
        changed.groups.retain(|other| other.as_str() != group);
        if changed.groups.len() == contact.groups.len() {
            return Err(Failure::not_found(format!("{name} is not in a group '{group}'")));
        }
        self.replace(changed)
    }

    fn replace(&self, contact: Contact) -> Result<Contact> {
        let replaced = contact.clone();
        self.change(|contacts| contacts.replace(contact).map(|_| ()).map_err(|e| Failure::usage(chain(&e))))?;
        Ok(replaced)
    }

    fn change(&self, change: impl FnOnce(&mut Contacts) -> Result<()>) -> Result<()> {
        self.change_all(|contacts, _| change(contacts))
    }

    /// Changes the book: first durably in the database, then in memory, then for open connections.
    pub(super) fn change_all<T>(
        &self,
        change: impl FnOnce(&mut Contacts, &mut Claims) -> Result<T>,
    ) -> Result<T> {
        let mut contacts = self.contacts.write().unwrap_or_else(PoisonError::into_inner);
        let mut claims: RwLockWriteGuard<'_, Claims> =
            self.claims.write().unwrap_or_else(PoisonError::into_inner);
        let (mut new_contacts, mut new_claims) = (contacts.clone(), claims.clone());
        let result = change(&mut new_contacts, &mut new_claims)?;
        let stored = self.database.write(|tables| {
            store_contacts(tables, &contacts, &new_contacts)?;
            successions::store(tables, &claims, &new_claims)
        });
        stored.map_err(|error| Failure::failed(chain(&error)))?;
        let trust_changed = *contacts != new_contacts;
        (*contacts, *claims) = (new_contacts, new_claims);
        drop((contacts, claims));
        if trust_changed {
            self.changed.raise();
        }
        Ok(result)
    }

    /// Strangers who knocked, the latest first.
    pub(crate) fn requests(&self) -> Vec<Knock> {
        let mut rows = Vec::new();
        let read = self.database.read(|tables| {
            tables.scan(REQUESTS, &[], |key, value| {
                if let (Ok(key), Ok(row)) = (key.try_into(), serde_json::from_slice::<Request>(value)) {
                    rows.push((Fingerprint::from_bytes(key), row));
                }
                ControlFlow::Continue(())
            })
        });
        if let Err(error) = read.map_err(|error: kith_store::StoreError| error) {
            tracing::error!(%error, "requests cannot be read");
        }
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.last));
        rows.into_iter()
            .map(|(fingerprint, row)| Knock {
                ni: Ni::new(fingerprint, None).to_string(),
                first: Timestamp(row.first).to_string(),
                last: Timestamp(row.last).to_string(),
                times: row.times,
                from: row.from,
            })
            .collect()
    }

    pub(crate) fn clear_requests(&self) -> Result<()> {
        let all: Vec<Ni> = self.requests().iter().filter_map(|knock| knock.ni.parse().ok()).collect();
        all.iter().try_for_each(|ni| self.forget_request(&ni.fingerprint))
    }

    pub(super) fn forget_request(&self, fingerprint: &Fingerprint) -> Result<()> {
        self.database
            .write(|tables| tables.remove(REQUESTS, fingerprint.as_bytes()).map(|_| ()))
            .map_err(|error: kith_store::StoreError| Failure::failed(chain(&error)))
    }
}

impl Trust for Book {
    fn trusts(&self, peer: &Fingerprint, protocol: &Protocol) -> bool {
        self.permits(Opener::Peer, peer, protocol)
    }

    fn reaches(&self, peer: &Fingerprint, protocol: &Protocol) -> bool {
        self.permits(Opener::Own, peer, protocol)
    }

    fn is_member(&self, peer: &Fingerprint) -> bool {
        !self.is_blocked(peer) && self.network.is_member(peer)
    }

    fn knocked(&self, peer: &Fingerprint, from: SocketAddr) {
        let (peer, now, from) = (*peer, system::utc().0, from.ip().to_string());
        let note = move |tables: &mut kith_store::WriteRows| {
            let known = tables.row(REQUESTS, peer.as_bytes())?;
            let known = known.and_then(|bytes| serde_json::from_slice::<Request>(&bytes).ok());
            if known.is_none() && tables.count(REQUESTS)? >= MAX_REQUESTS as u64 {
                forget_the_quietest(tables)?;
            }
            let (first, times) = known.map_or((now, 0), |known| (known.first, known.times));
            let row = Request { first, last: now, times: times + 1, from };
            tables.put(REQUESTS, peer.as_bytes(), &serde_json::to_vec(&row).unwrap_or_default())
        };
        self.committer.submit(note, |noted| {
            match noted {
                Ok(()) => {}
                // Strangers can bring this about.
                Err(error @ kith_store::StoreError::Busy { .. }) => {
                    tracing::debug!(%error, "a request is not noted");
                }
                Err(error) => tracing::error!(%error, "a request cannot be noted"),
            }
        });
    }

    fn changed(&self) -> Changes {
        self.changed.changes()
    }
}

/// Writes what differs. A row has the name as it is written, so that one that changes its case alone moves too.
fn store_contacts(
    tables: &mut kith_store::WriteRows,
    before: &Contacts,
    after: &Contacts,
) -> std::result::Result<(), kith_store::StoreError> {
    let same_name = |one: &Contact| after.find(one.name.as_str()).is_some_and(|other| other.name == one.name);
    for gone in before.iter().filter(|one| !same_name(one)) {
        tables.remove(CONTACTS, gone.name.as_str().as_bytes())?;
    }
    for new in after.iter().filter(|one| before.find(one.name.as_str()) != Some(*one)) {
        let row = serde_json::to_vec(new).unwrap_or_default();
        tables.put(CONTACTS, new.name.as_str().as_bytes(), &row)?;
    }
    Ok(())
}

fn forget_the_quietest(
    tables: &mut kith_store::WriteRows,
) -> std::result::Result<(), kith_store::StoreError> {
    let mut quietest: Option<(u64, Vec<u8>)> = None;
    tables.scan(REQUESTS, &[], |key, value| {
        let last = serde_json::from_slice::<Request>(value).map_or(0, |row| row.last);
        if quietest.as_ref().is_none_or(|(least, _)| last < *least) {
            quietest = Some((last, key.to_vec()));
        }
        ControlFlow::Continue(())
    })?;
    match quietest {
        Some((_, key)) => tables.remove(REQUESTS, &key).map(|_| ()),
        None => Ok(()),
    }
}

fn routes() -> Vec<Route> {
    vec![
        ("/v1/contacts", get(list).post(add)),
        ("/v1/contacts/{name}", get(show).patch(change).delete(remove)),
        ("/v1/requests", get(requests).delete(clear)),
        ("/v1/blocks", get(blocks).post(block)),
        ("/v1/blocks/{who}", axum::routing::delete(unblock)),
    ]
}

/// A contact as the control API shows it; `reached` is filled in where a node runs.
pub(crate) fn shape(book: &Book, contact: &Contact) -> shapes::Contact {
    shapes::Contact {
        name: contact.name.to_string(),
        ni: contact.ni.to_string(),
        at: contact.hints.iter().map(ToString::to_string).collect(),
        groups: contact.groups.iter().map(|group| group.as_str().to_owned()).collect(),
        added: contact.added.to_string(),
        delegator: None,
        blocked: book.is_blocked(&contact.ni.fingerprint),
        successions: book.open_successions(contact),
        path: "none".to_owned(),
        relay: None,
        transport: None,
        remote: None,
        rtt_ms: None,
    }
}

async fn list(State(node): State<Arc<Node>>) -> Json<Vec<shapes::Contact>> {
    Json(node.contacts())
}

async fn show(State(node): State<Arc<Node>>, Path(name): Path<String>) -> Answer<shapes::Contact> {
    let (peer, by) = node.book.peer_and_delegator(&name, None)?;
    Ok(Json(shapes::Contact { delegator: by.map(|by| by.to_string()), ..node.reached(&peer) }))
}

async fn blocks(State(node): State<Arc<Node>>) -> Json<Vec<Block>> {
    Json(node.book.blocks())
}

async fn block(State(node): State<Arc<Node>>, Body(new): Body<NewBlock>) -> Answer<Block> {
    on_book(node, move |book| book.block(&new.who)).await.map(Json)
}

async fn unblock(State(node): State<Arc<Node>>, Path(who): Path<String>) -> Answer<Block> {
    on_book(node, move |book| book.unblock(&who)).await.map(Json)
}

/// Database writes take milliseconds, so they leave the runtime's threads.
pub(super) async fn on_book<T: Send + 'static>(
    node: Arc<Node>,
    work: impl FnOnce(&Book) -> Result<T> + Send + 'static,
) -> Result<T> {
    node.on_disk(move |node| work(&node.book)).await
}

async fn add(State(node): State<Arc<Node>>, Body(new): Body<NewContact>) -> Answer<shapes::Contact> {
    on_book(node, move |book| book.add(&new).map(|contact| shape(book, &contact))).await.map(Json)
}

async fn change(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
    Body(change): Body<ContactChange>,
) -> Answer<shapes::Contact> {
    on_book(node, move |book| apply(book, &name, &change).map(|contact| shape(book, &contact)))
        .await
        .map(Json)
}

/// Applies a change to one contact.
pub(crate) fn apply(book: &Book, name: &str, change: &ContactChange) -> Result<Contact> {
    let mut contact = book.find(name)?;
    if let Some(group) = &change.join {
        contact = book.join(name, group)?;
    }
    if let Some(group) = &change.leave {
        contact = book.leave(name, group)?;
    }
    if let Some(new_name) = &change.name {
        contact = book.rename(name, new_name)?;
    }
    Ok(contact)
}

async fn remove(State(node): State<Arc<Node>>, Path(name): Path<String>) -> Answer<shapes::Contact> {
    on_book(node, move |book| book.remove(&name).map(|contact| shape(book, &contact))).await.map(Json)
}

async fn requests(State(node): State<Arc<Node>>) -> Json<Vec<Knock>> {
    Json(node.book.requests())
}

async fn clear(State(node): State<Arc<Node>>) -> Answer<Value> {
    on_book(node, Book::clear_requests).await.map(|()| Json(json!({ "cleared": true })))
}
