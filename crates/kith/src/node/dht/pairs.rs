//! The secrets that this node shares with each contact (`blind/1`, docs/protocol-dht.md): under one of them a contact finds
//! a record set that is for nobody else.
//!
//! Each side says `contribution [32] ‖ public key [32]`, the initiator first. What a node contributes it keeps, so that
//! exchanges that cross each other come to one secret; and both have written it down before they use it.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kith_connect::{Protocol, Stream};
use kith_dht::{Alias, CONTRIBUTION_BYTES, Day, PairSecret};
use kith_identity::{Fingerprint, PublicKey};
use kith_sansio::system::OsRng;
use kith_sansio::{Rng, Span, Time, system};
use kith_store::{Database, StoreError, Table, WriteRows};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::failure::{Failure, Result, chain};
use crate::node::Node;

const BLIND: Protocol = Protocol::new("blind/1");
/// By `own fingerprint [32] ‖ contact [32]`: `own contribution [32]`, and once it is known
/// `contribution of the contact [32] ‖ its public key [32]`.
const PAIRS: Table = Table("dht_pairs");
/// Bytes of what each side says.
const HALF_BYTES: usize = CONTRIBUTION_BYTES + 32;
/// How long an exchange may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often connected contacts are looked over for one with whom nothing was exchanged since the node started.
const ROUND: Duration = Duration::from_secs(2);
/// A contact with whom that failed is asked again after this time.
const AGAIN: Span = Span::secs(60);
/// A contact may contribute something else once in this time: each is written to the disk.
const CHANGE: Span = Span::secs(60);

type Contribution = Zeroizing<[u8; CONTRIBUTION_BYTES]>;

/// What two contacts need to find each other's blinded record sets.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    secret: PairSecret,
    /// The contact's.
    key: PublicKey,
}

/// What is known of a pair.
#[derive(Clone)]
struct Entry {
    own: Contribution,
    theirs: Option<(Contribution, PublicKey)>,
    /// When the contact may contribute something else.
    fixed_until: Time,
}

/// The secrets with all contacts.
pub(super) struct Pairs {
    database: Database,
    own: PublicKey,
    /// Held by whoever changes something, until the disk has it; never on a thread of the runtime.
    deciding: Mutex<()>,
    all: Mutex<BTreeMap<Fingerprint, Entry>>,
}

impl Pair {
    /// What the contact is called for this node.
    pub(super) fn theirs(&self, network: &Fingerprint, own: &PublicKey, day: Day) -> Alias {
        self.secret.alias(network, &self.key, &own.fingerprint(), day)
    }

    /// What this node is called for the contact.
    pub(super) fn ours(&self, network: &Fingerprint, own: &PublicKey, day: Day) -> Alias {
        self.secret.alias(network, own, &self.key.fingerprint(), day)
    }
}

impl Entry {
    fn row(&self) -> Zeroizing<Vec<u8>> {
        let mut row = Zeroizing::new(Vec::with_capacity(CONTRIBUTION_BYTES + HALF_BYTES));
        row.extend_from_slice(&*self.own);
        if let Some((contribution, key)) = &self.theirs {
            row.extend_from_slice(&**contribution);
            row.extend_from_slice(key.as_bytes());
        }
        row
    }

    fn from_row(row: &[u8]) -> Option<Entry> {
        let (own, rest) = row.split_first_chunk::<CONTRIBUTION_BYTES>()?;
        let theirs = if rest.is_empty() { None } else { Some(half(rest.try_into().ok()?)?) };
        Some(Entry { own: Zeroizing::new(*own), theirs, fixed_until: Time(0) })
    }
}

/// A contribution and a key.
fn half(bytes: &[u8; HALF_BYTES]) -> Option<(Contribution, PublicKey)> {
    let (contribution, key) = bytes.split_first_chunk::<CONTRIBUTION_BYTES>()?;
    Some((Zeroizing::new(*contribution), PublicKey::from_bytes(key.first_chunk()?).ok()?))
}

impl Pairs {
    /// Reads the secrets of this key; those of former ones are removed.
    pub(super) fn open(database: Database, own: PublicKey) -> Result<Pairs> {
        let fingerprint = own.fingerprint();
        let (mut all, mut former) = (BTreeMap::new(), Vec::new());
        let read = database.read(|tables| {
            tables.scan(PAIRS, &[], |name, row| {
                let contact = name.strip_prefix(fingerprint.as_bytes()).and_then(|rest| rest.try_into().ok());
                match contact.zip(Entry::from_row(row)) {
                    Some((contact, entry)) => drop(all.insert(Fingerprint::from_bytes(contact), entry)),
                    None => former.push(name.to_vec()),
                }
                ControlFlow::Continue(())
            })
        });
        read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        let pairs = Pairs { database, own, deciding: Mutex::new(()), all: Mutex::new(all) };
        if !former.is_empty() {
            pairs.write(|tables| former.iter().try_for_each(|name| tables.remove(PAIRS, name).map(drop)))?;
        }
        Ok(pairs)
    }

    /// This node's key.
    pub(super) fn own(&self) -> &PublicKey {
        &self.own
    }

    /// The secret with a contact, where both have contributed.
    pub(super) fn of(&self, contact: &Fingerprint) -> Option<Pair> {
        let (own, contribution, key) = {
            let all = self.all();
            let entry = all.get(contact)?;
            let (contribution, key) = entry.theirs.clone()?;
            (entry.own.clone(), contribution, key)
        };
        let secret = PairSecret::of((&self.own.fingerprint(), &own), (contact, &contribution));
        Some(Pair { secret, key })
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node contributes with a contact; made and written down where there is nothing yet.
    pub(super) fn contribution(&self, contact: &Fingerprint) -> Result<Contribution> {
        let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.all().get(contact).map(|entry| entry.own.clone());
        match known {
            Some(own) => Ok(own),
            None => self.keep(contact, new_entry()).map(|entry| entry.own),
        }
    }

    /// Takes what a contact contributes; what this node does.
    pub(super) fn take(
        &self,
        contact: &Fingerprint,
        theirs: (Contribution, PublicKey),
    ) -> Result<Contribution> {
        let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.all().get(contact).cloned();
        let entry = known.unwrap_or_else(new_entry);
        if entry.theirs.as_ref() == Some(&theirs) {
            return Ok(entry.own);
        }
        let now = system::time();
        if now < entry.fixed_until {
            return Err(Failure::failed("the contact contributes something else again and again"));
        }
        let entry = Entry { theirs: Some(theirs), fixed_until: now + CHANGE, ..entry };
        self.keep(contact, entry).map(|entry| entry.own)
    }

    /// Those that are none of these contacts any more.
    pub(super) fn others_than(&self, contacts: &[Fingerprint]) -> Vec<Fingerprint> {
        self.all().keys().filter(|peer| !contacts.contains(peer)).copied().collect()
    }

    pub(super) fn forget(&self, gone: &[Fingerprint]) -> Result<()> {
        let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(|tables| {
            gone.iter().try_for_each(|peer| tables.remove(PAIRS, &self.name(peer)).map(drop))
        })?;
        self.all().retain(|peer, _| !gone.contains(peer));
        Ok(())
    }

    /// First on the disk, then in memory.
    fn keep(&self, contact: &Fingerprint, entry: Entry) -> Result<Entry> {
        self.write(|tables| tables.put(PAIRS, &self.name(contact), &entry.row()))?;
        self.all().insert(*contact, entry.clone());
        Ok(entry)
    }

    fn write(
        &self,
        change: impl FnOnce(&mut WriteRows) -> std::result::Result<(), StoreError>,
    ) -> Result<()> {
        self.database.write(change).map_err(|error: StoreError| Failure::failed(chain(&error)))
    }

    fn name(&self, contact: &Fingerprint) -> Vec<u8> {
        [&self.own.fingerprint().as_bytes()[..], contact.as_bytes()].concat()
    }
}

fn new_entry() -> Entry {
    let mut own = Zeroizing::new([0; CONTRIBUTION_BYTES]);
    OsRng.fill(&mut *own);
    Entry { own, theirs: None, fixed_until: Time(0) }
}

/// Answers contacts, and asks those that are connected while this node belongs to a network.
pub(super) fn start(node: &Arc<Node>) -> Result<()> {
    node.serve(BLIND, |node, peer, stream| async move {
        if let Ok(Err(failure)) = tokio::time::timeout(TIMEOUT, answer(&node, peer, stream)).await {
            tracing::debug!(%failure, "an exchange for blinded record sets broke off");
        }
    })?;
    let asking = Arc::clone(node);
    node.tasks.spawn(async move {
        let rounds = async {
            let mut asked = HashMap::new();
            loop {
                tokio::time::sleep(ROUND).await;
                round(&asking, &mut asked).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            () = asking.stopped.cancelled() => {}
        }
    });
    Ok(())
}

/// Forgets who is no contact any more, and asks the connected ones that were not asked since the node started: one of the
/// two may have lost the secret.
async fn round(node: &Arc<Node>, asked: &mut HashMap<Fingerprint, Time>) {
    let contacts: Vec<_> = node.book.list().iter().map(|contact| contact.ni.fingerprint).collect();
    asked.retain(|peer, _| contacts.contains(peer));
    let gone = node.keyspace.pairs.others_than(&contacts);
    if !gone.is_empty()
        && let Err(failure) = with_pairs(node, move |pairs| pairs.forget(&gone)).await
    {
        tracing::warn!(%failure, "the secrets with former contacts cannot be removed");
    }
    if node.book.network.membership.belongs().is_none() {
        return;
    }
    for peer in contacts {
        let is_due = asked.get(&peer).is_none_or(|at| *at <= system::time());
        if !is_due || node.book.is_blocked(&peer) || node.endpoint.paths(&peer).is_empty() {
            continue;
        }
        let next = match tokio::time::timeout(TIMEOUT, ask(node, peer)).await {
            Ok(Ok(())) => Time(u64::MAX),
            Ok(Err(failure)) => {
                tracing::debug!(%failure, "a contact exchanges nothing for blinded record sets");
                system::time() + AGAIN
            }
            Err(_) => system::time() + AGAIN,
        };
        asked.insert(peer, next);
    }
}

async fn ask(node: &Arc<Node>, peer: Fingerprint) -> Result<()> {
    let own = with_pairs(node, move |pairs| pairs.contribution(&peer)).await?;
    let mut stream = node.endpoint.connect(&peer, &BLIND).await.map_err(Failure::failed)?;
    write(node, &mut stream, &own).await.map_err(Failure::failed)?;
    let theirs = read(&mut stream, &peer).await?;
    with_pairs(node, move |pairs| pairs.take(&peer, theirs)).await?;
    stream.shutdown().await.map_err(Failure::failed)
}

async fn answer(node: &Arc<Node>, peer: Fingerprint, mut stream: Stream) -> Result<()> {
    // A delegator may let in others than contacts.
    if node.book.contact_of(&peer).is_none() {
        return Err(Failure::not_trusted("it is no contact"));
    }
    let theirs = read(&mut stream, &peer).await?;
    let own = with_pairs(node, move |pairs| pairs.take(&peer, theirs)).await?;
    write(node, &mut stream, &own).await.map_err(Failure::failed)?;
    stream.shutdown().await.map_err(Failure::failed)
}

async fn with_pairs<T: Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(&Pairs) -> Result<T> + Send + 'static,
) -> Result<T> {
    node.on_disk(move |node| work(&node.keyspace.pairs)).await
}

async fn write(node: &Node, stream: &mut Stream, own: &Contribution) -> std::io::Result<()> {
    stream.write_all(&**own).await?;
    stream.write_all(node.identity.public().as_bytes()).await?;
    stream.flush().await
}

/// What the contact says, whose key has to be that of the connection.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    peer: &Fingerprint,
) -> Result<(Contribution, PublicKey)> {
    let mut bytes = Zeroizing::new([0; HALF_BYTES]);
    stream.read_exact(&mut *bytes).await.map_err(Failure::failed)?;
    let theirs = half(&bytes).filter(|(_, key)| key.fingerprint() == *peer);
    theirs.ok_or_else(|| Failure::not_trusted("it names another key than the one that it proved"))
}
