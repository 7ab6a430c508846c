//! The own record set for contacts alone: one blinded value for each, of today and shortly before its end of tomorrow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kith_dht::shell::PutError;
use kith_dht::{Alias, Day, Refusal, Value};
use kith_identity::membership::NodeId;
use kith_identity::record::VerifiedRecordSet;
use kith_identity::{Fingerprint, Identity};
use kith_sansio::system::OsRng;
use kith_sansio::{Now, Span, Time, Timestamp, system};

use super::pairs::Pair;
use super::publishing::{AGAIN, PAUSE, Published, not_stored};
use super::{CHECK, Running, is_current};
use crate::failure::{Failure, Result};
use crate::node::Node;

/// Contacts that a node publishes for; others find it in other ways.
const MAX_READERS: usize = 256;
/// How long before its day a value is published, in seconds, so that it is there when the day begins.
const AHEAD_SECS: u64 = 3_600;

/// What is published, for whom, and where to.
trait World {
    fn now(&self) -> Now;
    /// Whose record set it is.
    fn identity(&self) -> &Identity;
    fn network(&self) -> &Fingerprint;
    /// The own record set as it is now.
    fn set(&self) -> impl Future<Output = Option<VerifiedRecordSet>> + Send;
    /// The contacts of now that share a secret with this node.
    fn readers(&self) -> Vec<(Fingerprint, Pair)>;
    /// Stores a value; on how many nodes it is.
    fn put(&self, value: Value) -> impl Future<Output = std::result::Result<usize, PutError>> + Send;
    /// The newest value there.
    fn get(&self, place: NodeId) -> impl Future<Output = Option<Value>> + Send;
    fn tell(&self, published: Published);
}

/// A node and its DHT.
struct Around<'a> {
    node: &'a Arc<Node>,
    running: &'a Running,
}

/// The values for all contacts, by contact and day.
type Letters = BTreeMap<(Fingerprint, Day), Letter>;

/// The value for one contact on one day.
struct Letter {
    pair: Pair,
    day: Day,
    alias: Alias,
    /// Which set is in the value; none before the first.
    said: Option<Timestamp>,
    value: Option<Value>,
    stored: Option<Stored>,
    /// Why that failed last, where it did.
    error: Option<String>,
    /// When it was stored last, or that failed.
    tried: Time,
    due: Time,
    pause: Span,
}

/// What is stored.
#[derive(Clone, Copy)]
struct Stored {
    /// Since when.
    at: Timestamp,
    /// On how many nodes.
    nodes: usize,
    /// When the set in it ends, or the value itself.
    expires: Timestamp,
}

/// Publishes the own record set for contacts for as long as this node of the DHT runs.
pub(super) async fn publish(node: &Arc<Node>, running: &Running) {
    let (world, mut letters) = (Around { node, running }, Letters::new());
    while is_current(node, running) {
        if !turn(&world, &mut letters).await {
            tokio::time::sleep(CHECK).await;
        }
    }
}

/// Stores that value which is due and was tried longest ago; whether there was one. One at a time, because the set and
/// the contacts may be others a moment later.
async fn turn(world: &impl World, letters: &mut Letters) -> bool {
    let Some(set) = world.set().await else { return false };
    address(world, letters);
    let now = world.now().time;
    let due = letters.values_mut().filter(|letter| letter.is_due(&set, now));
    let next = due.min_by_key(|letter| letter.tried);
    let was_due = next.is_some();
    if let Some(letter) = next {
        letter.send(world, &set).await;
    }
    world.tell(published(letters, &set, Day::of(world.now().utc)));
    was_due
}

/// Which days' values are published now.
fn days(now: Timestamp) -> impl Iterator<Item = Day> + Clone {
    let (today, soon) = (Day::of(now), Day::of(now.plus_secs(AHEAD_SECS)));
    [Some(today), (soon != today).then_some(soon)].into_iter().flatten()
}

/// A letter to each contact that shares a secret with this node, for each of the days; no others.
fn address(world: &impl World, letters: &mut Letters) {
    let days = days(world.now().utc);
    let mut former = std::mem::take(letters);
    for (reader, pair) in world.readers().into_iter().take(MAX_READERS) {
        for day in days.clone() {
            let letter = former.remove(&(reader, day)).filter(|letter| letter.pair == pair);
            let letter = letter.unwrap_or_else(|| Letter::new(world, pair.clone(), day));
            letters.insert((reader, day), letter);
        }
    }
}

/// How it stands: on how many nodes that value is which is on the fewest, and when the first one of today ends.
fn published(letters: &Letters, set: &VerifiedRecordSet, today: Day) -> Published {
    let stored = || letters.values().filter_map(|letter| letter.stored);
    let readers = letters.iter().filter(|(_, letter)| letter.stored.is_some());
    let readers: BTreeSet<_> = readers.map(|((reader, _), _)| reader).collect();
    let at = stored().map(|stored| stored.at).max();
    let todays = letters.values().filter(|letter| letter.day == today);
    Published {
        timestamp: Some(set.timestamp()),
        stored: at.zip(stored().map(|stored| stored.nodes).min()),
        contacts: Some(readers.len()),
        expires: todays.filter_map(|letter| letter.stored).map(|stored| stored.expires).min(),
        error: letters.values().find_map(|letter| letter.error.clone()),
    }
}

impl Letter {
    fn new(world: &impl World, pair: Pair, day: Day) -> Letter {
        Letter {
            alias: pair.ours(world.network(), &world.identity().public(), day),
            pair,
            day,
            said: None,
            value: None,
            stored: None,
            error: None,
            tried: Time(0),
            due: Time(0),
            pause: PAUSE.0,
        }
    }

    fn is_due(&self, set: &VerifiedRecordSet, now: Time) -> bool {
        self.is_new(set) || now >= self.due
    }

    fn is_new(&self, set: &VerifiedRecordSet) -> bool {
        self.said != Some(set.timestamp())
    }

    /// Stores the set for the contact; what was stored before as it was sealed then, so that it is no change.
    async fn send(&mut self, world: &impl World, set: &VerifiedRecordSet) {
        if self.is_new(set) {
            let last = self.value.as_ref().map_or(0, |value| value.version);
            self.seal(world, set, world.now().utc.0.max(last.saturating_add(1)));
        }
        let outcome = self.store(world, set).await;
        let now = world.now();
        self.tried = now.time;
        match outcome {
            Ok(nodes) => {
                let expires = set.expires().min(self.day.expires());
                (self.stored, self.error) = (Some(Stored { at: now.utc, nodes, expires }), None);
                (self.due, self.pause) = (now.time + AGAIN, PAUSE.0);
            }
            Err(failure) => {
                self.error = Some(failure.error);
                self.pause = self.pause.times(2).min(PAUSE.1);
                self.due = now.time + self.pause;
            }
        }
    }

    fn seal(&mut self, world: &impl World, set: &VerifiedRecordSet, version: u64) {
        self.said = Some(set.timestamp());
        self.value = self.alias.seal(world.identity(), version, set, &mut OsRng);
    }

    async fn store(&mut self, world: &impl World, set: &VerifiedRecordSet) -> Result<usize> {
        let Some(value) = self.value.clone() else {
            return Err(Failure::failed("the own record set cannot be sealed"));
        };
        let mut outcome = world.put(value.clone()).await;
        // This node has stored it before it was started again, when its clock was ahead or in the same second.
        if let Err(PutError::TooFew { refusal: Some(Refusal::Older), .. }) = outcome
            && let Some(newer) = world.get(value.key).await.filter(|found| found.replaces(&value))
            && let Some(version) = newer.version.checked_add(1)
        {
            self.seal(world, set, version);
            if let Some(value) = self.value.clone() {
                outcome = world.put(value).await;
            }
        }
        outcome.map_err(|error| not_stored(&error))
    }
}

impl World for Around<'_> {
    fn now(&self) -> Now {
        system::now()
    }

    fn identity(&self) -> &Identity {
        &self.node.identity
    }

    fn network(&self) -> &Fingerprint {
        &self.running.network
    }

    async fn set(&self) -> Option<VerifiedRecordSet> {
        self.node.said().await
    }

    fn readers(&self) -> Vec<(Fingerprint, Pair)> {
        let Node { book, keyspace, .. } = &**self.node;
        let contacts = book.list().into_iter().map(|contact| contact.ni.fingerprint);
        let contacts = contacts.filter(|peer| !book.is_blocked(peer));
        contacts.filter_map(|peer| Some((peer, keyspace.pairs.of(&peer)?))).collect()
    }

    async fn put(&self, value: Value) -> std::result::Result<usize, PutError> {
        self.running.dht.put(value).await
    }

    async fn get(&self, place: NodeId) -> Option<Value> {
        self.running.dht.get(place).await.ok().flatten()
    }

    fn tell(&self, published: Published) {
        *self.node.keyspace.published() = published;
    }
}

#[cfg(test)]
mod tests;
