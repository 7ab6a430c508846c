//! The own record set for contacts alone: one blinded value for each, of today and shortly before its end of tomorrow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kith_dht::{Alias, Day, Value};
use kith_identity::Fingerprint;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::system::OsRng;
use kith_sansio::{Span, Time, Timestamp, system};

use super::pairs::Pair;
use super::publishing::{AGAIN, PAUSE, Published, store};
use super::{CHECK, Running, is_current};
use crate::node::Node;

/// Contacts that a node publishes for; others find it in other ways.
const MAX_READERS: usize = 256;
/// How long before its day a value is published, in seconds, so that it is there when the day begins.
const AHEAD_SECS: u64 = 3_600;

/// The values for all contacts, by contact and day.
type Letters = BTreeMap<(Fingerprint, Day), Letter>;

/// The value for one contact on one day.
struct Letter {
    pair: Pair,
    alias: Alias,
    /// The set in the value, and the value; none before the first.
    said: Option<(Timestamp, Value)>,
    /// When it was stored last, and on how many nodes.
    stored: Option<(Timestamp, usize)>,
    /// Why that failed last, where it did.
    error: Option<String>,
    due: Time,
    pause: Span,
}

/// Publishes the own record set for contacts for as long as this node of the DHT runs.
pub(super) async fn publish(node: &Arc<Node>, running: &Running) {
    let mut letters = Letters::new();
    while is_current(node, running) {
        if let Some(set) = node.said().await {
            address(node, running, &mut letters);
            for letter in letters.values_mut().filter(|letter| letter.is_due(&set)) {
                letter.send(node, running, &set).await;
            }
            *node.keyspace.published() = published(&letters, &set);
        }
        tokio::time::sleep(CHECK).await;
    }
}

/// Which days' values are published now.
fn days(now: Timestamp) -> impl Iterator<Item = Day> + Clone {
    let (today, soon) = (Day::of(now), Day::of(now.plus_secs(AHEAD_SECS)));
    [Some(today), (soon != today).then_some(soon)].into_iter().flatten()
}

/// A letter to each contact that shares a secret with this node, for each of the days; no others.
fn address(node: &Node, running: &Running, letters: &mut Letters) {
    let (pairs, days) = (&node.keyspace.pairs, days(system::utc()));
    let contacts = node.book.list().into_iter().map(|contact| contact.ni.fingerprint);
    let readers = contacts.filter(|peer| !node.book.is_blocked(peer));
    let readers = readers.filter_map(|peer| Some((peer, pairs.of(&peer)?))).take(MAX_READERS);
    let mut former = std::mem::take(letters);
    for (reader, pair) in readers {
        for day in days.clone() {
            let letter = former.remove(&(reader, day)).filter(|letter| letter.pair == pair);
            let letter = letter.unwrap_or_else(|| Letter {
                alias: pair.ours(&running.network, pairs.own(), day),
                pair: pair.clone(),
                said: None,
                stored: None,
                error: None,
                due: Time(0),
                pause: PAUSE.0,
            });
            letters.insert((reader, day), letter);
        }
    }
}

/// How it stands: on how many nodes that value is which is on the fewest.
fn published(letters: &Letters, set: &VerifiedRecordSet) -> Published {
    let stored = || letters.values().filter_map(|letter| letter.stored);
    let readers = letters.iter().filter(|(_, letter)| letter.stored.is_some());
    let readers: BTreeSet<_> = readers.map(|((reader, _), _)| reader).collect();
    let (at, nodes) = (stored().map(|(at, _)| at).max(), stored().map(|(_, nodes)| nodes).min());
    Published {
        timestamp: Some(set.timestamp()),
        stored: at.zip(nodes),
        contacts: Some(readers.len()),
        expires: at.map(|_| set.expires()),
        error: letters.values().find_map(|letter| letter.error.clone()),
    }
}

impl Letter {
    fn is_due(&self, set: &VerifiedRecordSet) -> bool {
        self.is_new(set) || system::time() >= self.due
    }

    fn is_new(&self, set: &VerifiedRecordSet) -> bool {
        self.said.as_ref().is_none_or(|(timestamp, _)| *timestamp != set.timestamp())
    }

    /// Stores the set for the contact; what was stored before as it was sealed then, so that it is no change.
    async fn send(&mut self, node: &Node, running: &Running, set: &VerifiedRecordSet) {
        if self.is_new(set) {
            let last = self.said.as_ref().map_or(0, |(_, value)| value.version);
            let version = system::utc().0.max(last + 1);
            let sealed = self.alias.seal(&node.identity, version, set, &mut OsRng);
            self.said = sealed.map(|value| (set.timestamp(), value));
        }
        let Some((_, value)) = self.said.clone() else { return };
        match store(running, value).await {
            Ok(nodes) => {
                (self.stored, self.error) = (Some((system::utc(), nodes)), None);
                (self.due, self.pause) = (system::time() + AGAIN, PAUSE.0);
            }
            Err(failure) => {
                self.error = Some(failure.error);
                self.pause = self.pause.times(2).min(PAUSE.1);
                self.due = system::time() + self.pause;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tomorrows_value_is_published_an_hour_before_and_todays_until_midnight() {
        let day = Day(20_484);
        let at = |secs: u64| days(day.begins().plus_secs(secs)).collect::<Vec<_>>();
        assert_eq!(at(0), [day]);
        assert_eq!(at(86_400 - AHEAD_SECS - 1), [day]);
        assert_eq!(at(86_400 - AHEAD_SECS), [day, Day(20_485)]);
        assert_eq!(at(86_399), [day, Day(20_485)]);
    }
}
