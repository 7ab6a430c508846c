//! The delegators that this node lets manage whom it trusts, and what their lists say now.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kith_connect::delegator::{Entry, Opener, PROTOCOL, Policy, Subscription, SubscriptionState};
use kith_connect::{ChangeSignal, Endpoint, Protocol};
use kith_identity::contacts::{Contact, Hint, Petname};
use kith_identity::{Authority, Fingerprint, Ni};
use kith_sansio::{Span, Time, Timestamp, system};
use kith_store::{Database, StoreError, Table};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result, chain};

const TABLE: Table = Table("delegators");
/// Delegators that one node may use.
const MAX_USES: usize = 16;

/// A delegator in use, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Use {
    pub(crate) name: Petname,
    pub(crate) ni: Ni,
    #[serde(default)]
    pub(crate) at: Vec<Hint>,
    /// Seconds since 1970.
    pub(crate) since: u64,
}

/// What delegation adds to the contacts: their lists, and the members of this node's own policy.
pub(crate) struct Delegated {
    database: Database,
    uses: RwLock<BTreeMap<Fingerprint, Used>>,
    /// Held by whoever changes `uses`, so that disk and memory say the same; whoever reads does not wait for the disk.
    changing: Mutex<()>,
    serves: RwLock<Serves>,
    changed: ChangeSignal,
}

/// How long whoever is no member any more may stay, to hear it.
const FAREWELL: Span = Span::secs(30);

/// Whom this node serves as a delegator.
#[derive(Default)]
struct Serves {
    /// `None` where it serves nobody.
    policy: Option<Arc<Policy>>,
    /// Former members, and until when they may still be told so: what is open with them would be cut before they hear
    /// that nothing is left of their list.
    leaving: BTreeMap<Fingerprint, Time>,
}

impl Serves {
    fn next(&mut self, policy: Option<Arc<Policy>>, now: Time) {
        let Some(next) = policy else { return *self = Serves::default() };
        self.leaving.retain(|peer, until| *until > now && next.member(peer).is_none());
        let before = self.policy.replace(Arc::clone(&next));
        let members = before.iter().flat_map(|before| before.members().map(|(peer, _)| *peer));
        let gone = members.filter(|peer| next.member(peer).is_none());
        self.leaving.extend(gone.map(|peer| (peer, now + FAREWELL)));
    }

    fn has(&self, peer: &Fingerprint, now: Time) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.member(peer).is_some())
            || self.leaving.get(peer).is_some_and(|until| now < *until)
    }
}

struct Used {
    row: Use,
    /// `None` while no node runs.
    subscription: Option<Arc<Subscription>>,
}

impl Delegated {
    /// Reads which delegators are in use.
    pub(crate) fn open(database: Database, changed: ChangeSignal) -> Result<Delegated> {
        let mut uses = BTreeMap::new();
        let mut broken = None;
        let read = database.read(|tables| {
            tables.scan(TABLE, &[], |_, value| match serde_json::from_slice::<Use>(value) {
                Ok(row) => {
                    uses.insert(row.ni.fingerprint, Used { row, subscription: None });
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    broken = Some(error.to_string());
                    ControlFlow::Break(())
                }
            })
        });
        read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        match broken {
            Some(error) => Err(Failure::failed(format!("the database cannot be used: a delegator: {error}"))),
            None => Ok(Delegated {
                database,
                uses: RwLock::new(uses),
                changing: Mutex::default(),
                serves: RwLock::default(),
                changed,
            }),
        }
    }

    fn uses(&self) -> RwLockReadGuard<'_, BTreeMap<Fingerprint, Used>> {
        self.uses.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uses_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Fingerprint, Used>> {
        self.uses.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom this node serves from now on, or that it serves nobody. Streams of former members are the service's to end,
    /// which tells them first.
    pub(crate) fn serve(&self, policy: Option<Arc<Policy>>) {
        self.serves.write().unwrap_or_else(PoisonError::into_inner).next(policy, system::time());
    }

    /// Subscribes at every delegator in use.
    pub(crate) fn start(&self, endpoint: &Endpoint) {
        for (delegator, used) in self.uses_mut().iter_mut() {
            if *delegator == endpoint.fingerprint() {
                // Named while no node ran, by a command that could not know.
                tracing::warn!(name = %used.row.name, "this node cannot be its own delegator; drop it");
                continue;
            }
            used.subscription = Some(self.subscribe(endpoint, *delegator));
        }
    }

    /// Ends every subscription.
    pub(crate) fn stop(&self) {
        for used in self.uses_mut().values_mut() {
            used.subscription = None;
        }
    }

    fn subscribe(&self, endpoint: &Endpoint, delegator: Fingerprint) -> Arc<Subscription> {
        let changed = self.changed.clone();
        Arc::new(Subscription::start(endpoint.clone(), delegator, move || changed.raise()))
    }

    /// Lets `row` manage whom this node trusts; subscribes at once where a node runs.
    pub(crate) fn add(&self, row: Use, endpoint: Option<&Endpoint>) -> Result<()> {
        let _alone = self.changing();
        let delegator = row.ni.fingerprint;
        self.refuse_clash(&row)?;
        let bytes = serde_json::to_vec(&row).map_err(Failure::failed)?;
        self.database
            .write(|tables| tables.put(TABLE, delegator.as_bytes(), &bytes))
            .map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        let mut uses = self.uses_mut();
        let known = uses.remove(&delegator).and_then(|used| used.subscription);
        let subscription = known.or_else(|| endpoint.map(|endpoint| self.subscribe(endpoint, delegator)));
        if let Some(subscription) = &subscription {
            // Perhaps at another address.
            subscription.nudge();
        }
        uses.insert(delegator, Used { row, subscription });
        Ok(())
    }

    fn refuse_clash(&self, row: &Use) -> Result<()> {
        let uses = self.uses();
        if uses.len() >= MAX_USES && !uses.contains_key(&row.ni.fingerprint) {
            return Err(Failure::failed(format!("{MAX_USES} delegators are in use already"))
                .hint("drop one with 'kith delegator drop NAME'"));
        }
        let same_name =
            |used: &Used| used.row.name.as_str().to_lowercase() == row.name.as_str().to_lowercase();
        match uses.values().find(|used| same_name(used) && used.row.ni != row.ni) {
            Some(other) => {
                Err(Failure::usage(format!("the name '{}' belongs to {}", row.name, other.row.ni)))
            }
            None => Ok(()),
        }
    }

    /// Lets a delegator manage nothing any more; what it said holds no longer.
    pub(crate) fn remove(&self, delegator: &Fingerprint) -> Result<()> {
        let _alone = self.changing();
        self.database
            .write(|tables| tables.remove(TABLE, delegator.as_bytes()).map(drop))
            .map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        self.uses_mut().remove(delegator);
        self.changed.raise();
        Ok(())
    }

    /// The delegator in use with this name or fingerprint.
    pub(crate) fn find(&self, name: &str) -> Option<Use> {
        let uses = self.uses();
        let used = match name.parse::<Ni>() {
            Ok(ni) => uses.get(&ni.fingerprint),
            Err(_) => uses.values().find(|used| used.row.name.as_str().to_lowercase() == name.to_lowercase()),
        };
        used.map(|used| used.row.clone())
    }

    /// The delegator in use with this fingerprint.
    pub(crate) fn used(&self, delegator: &Fingerprint) -> Option<Use> {
        self.uses().get(delegator).map(|used| used.row.clone())
    }

    /// All delegators in use, and how each subscription stands where a node runs.
    pub(crate) fn list(&self) -> Vec<(Use, Option<SubscriptionState>)> {
        let state = |used: &Used| used.subscription.as_ref().map(|one| one.state());
        self.uses().values().map(|used| (used.row.clone(), state(used))).collect()
    }

    /// Whether the list of some delegator is not here: not heard since this node started, or not within its lease.
    pub(crate) fn is_awaited(&self) -> bool {
        let uses = self.uses();
        let mut lists = uses.values().filter_map(|used| used.subscription.as_ref());
        lists.any(|list| !list.has_list())
    }

    /// What a delegator's list says now.
    pub(crate) fn entries(&self, delegator: &Fingerprint) -> Vec<Entry> {
        let uses = self.uses();
        let subscription = uses.get(delegator).and_then(|used| used.subscription.as_ref());
        subscription.map(|subscription| subscription.entries()).unwrap_or_default()
    }

    /// Whether some list lets that side open streams of `protocol` with `peer`; or the conversation of a delegator with
    /// its own members.
    pub(crate) fn permits(&self, opener: Opener, peer: &Fingerprint, protocol: &Protocol) -> bool {
        if *protocol == PROTOCOL {
            return match opener {
                Opener::Peer => {
                    self.serves.read().unwrap_or_else(PoisonError::into_inner).has(peer, system::time())
                }
                Opener::Own => self.uses().contains_key(peer),
            };
        }
        let uses = self.uses();
        let mut lists = uses.values().filter_map(|used| used.subscription.as_ref());
        lists.any(|list| list.permits(opener, peer, protocol))
    }

    /// What each list says of a peer, with the delegator's name.
    fn listed(&self, peer: &Fingerprint) -> Vec<Listed> {
        let uses = self.uses();
        let listed = |used: &Used| Some((used.subscription.as_ref()?.find(peer)?, used.row.name.clone()));
        uses.values().filter_map(listed).collect()
    }

    /// A peer of some list as a contact of the delegators' making, with the name of the one whose word for it that is.
    pub(crate) fn peer(&self, peer: &Fingerprint, way: Way<'_>) -> Option<(Contact, Petname)> {
        let listed = self.listed(peer);
        let (entry, by) = spokesman(&listed, way, system::utc())?;
        Some((contact(entry, &listed), by.clone()))
    }

    /// Whose directories to ask for a peer, and where it may be, by all lists; `None` where it is on none.
    pub(crate) fn whereabouts(&self, peer: &Fingerprint) -> Option<(Vec<Authority>, Vec<Hint>)> {
        let listed = self.listed(peer);
        (!listed.is_empty()).then(|| (authorities(&listed), hints(&listed)))
    }

    /// The peer with this name on the lists; a failure where several have it.
    pub(crate) fn named(&self, name: &str) -> Result<Option<(Contact, Petname)>> {
        let Some((entry, by)) = self.entry_named(name)? else { return Ok(None) };
        Ok(Some((contact(&entry, &self.listed(&entry.peer)), by)))
    }

    fn entry_named(&self, name: &str) -> Result<Option<Listed>> {
        let folded = name.to_lowercase();
        let mut found: Option<Listed> = None;
        for used in self.uses().values() {
            let Some(list) = &used.subscription else { continue };
            let mut entries = list.entries().into_iter();
            let Some(entry) = entries.find(|entry| entry.card.name.as_str().to_lowercase() == folded) else {
                continue;
            };
            match &found {
                Some((other, by)) if other.peer != entry.peer => {
                    let (one, two) = (by, &used.row.name);
                    return Err(Failure::usage(format!(
                        "'{name}' is one node for {one} and another for {two}"
                    ))
                    .hint(
                        "name it by its fingerprint; 'kith delegator show NAME' lists what each of them says",
                    ));
                }
                Some(_) => {}
                None => found = Some((entry, used.row.name.clone())),
            }
        }
        Ok(found)
    }
}

/// An entry of a list, and the name of its delegator.
type Listed = (Entry, Petname);

/// What a peer is wanted for: which side opens streams of which protocol.
pub(crate) type Way<'a> = Option<(Opener, &'a Protocol)>;

/// The delegator by whose name a peer goes: one who allows what it is wanted for, before one who says something else.
fn spokesman<'a>(listed: &'a [Listed], way: Way<'_>, now: Timestamp) -> Option<&'a Listed> {
    let allows =
        |entry: &Entry| way.is_some_and(|(opener, protocol)| entry.rights.permit(opener, protocol, now));
    listed.iter().find(|(entry, _)| allows(entry)).or(listed.first())
}

fn authorities(listed: &[Listed]) -> Vec<Authority> {
    distinct(listed.iter().filter_map(|(entry, _)| entry.card.authority.clone()))
}

fn hints(listed: &[Listed]) -> Vec<Hint> {
    distinct(listed.iter().flat_map(|(entry, _)| entry.card.hints.iter().cloned()))
}

/// Each one once, in the order in which they come.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for one in all {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    distinct
}

/// What all lists say of a peer, under its name on one of them.
fn contact(entry: &Entry, listed: &[Listed]) -> Contact {
    let authority = entry.card.authority.clone().or_else(|| authorities(listed).into_iter().next());
    let (ni, added) = (Ni::new(entry.peer, authority), Timestamp(0));
    Contact { hints: hints(listed), ..Contact::new(entry.card.name.clone(), ni, added) }
}

/// A delegator that is used from now on.
pub(crate) fn new_use(name: Petname, ni: Ni, at: Vec<Hint>) -> Use {
    Use { name, ni, at, since: system::utc().0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_connect::delegator::{Card, Direction, Rights, Until};

    const PING: Protocol = Protocol::new("ping/1");

    /// What a delegator says of one and the same node.
    fn says(by: &str, name: &str, authority: &str, hints: &[&str], protocol: &'static str) -> Listed {
        let mut rights = Rights::default();
        rights.allow(Some(Protocol::new(protocol)), Direction::Both, Until::Forever);
        let card = Card {
            name: name.parse().unwrap(),
            authority: Some(authority.parse().unwrap()),
            hints: hints.iter().map(|hint| hint.parse().unwrap()).collect(),
        };
        (Entry { peer: Fingerprint::from_bytes([7; 32]), card, rights }, by.parse().unwrap())
    }

    #[test]
    fn disk_and_memory_agree_on_who_is_used_whoever_changes_it_at_the_same_time() {
        let database = Database::in_memory().unwrap();
        let delegated = Delegated::open(database.clone(), ChangeSignal::new()).unwrap();
        let peer = Fingerprint::from_bytes([7; 32]);
        for round in 0..200 {
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    let row = new_use("warden".parse().unwrap(), Ni::new(peer, None), Vec::new());
                    delegated.add(row, None).unwrap();
                });
                threads.spawn(|| delegated.remove(&peer).unwrap());
            });
            let stored = Delegated::open(database.clone(), ChangeSignal::new()).unwrap();
            assert_eq!(stored.used(&peer), delegated.used(&peer), "round {round}");
        }
    }

    #[test]
    fn whoever_is_expelled_may_stay_to_hear_it_and_no_longer() {
        let (peer, other) = (Fingerprint::from_bytes([7; 32]), Fingerprint::from_bytes([8; 32]));
        let mut policy = Policy::default();
        for (who, name) in [(peer, "roof"), (other, "office")] {
            let card = Card { name: name.parse().unwrap(), authority: None, hints: Vec::new() };
            policy.enter(who, card, "all".parse().unwrap()).unwrap();
        }
        let all = Arc::new(policy.clone());
        policy.expel(&peer).unwrap();
        let fewer = Arc::new(policy);
        let (mut serves, now) = (Serves::default(), Time(0) + Span::secs(1000));
        serves.next(Some(Arc::clone(&all)), now);
        serves.next(Some(Arc::clone(&fewer)), now);
        // Another change meanwhile takes nothing from it.
        serves.next(Some(Arc::clone(&fewer)), now + Span::secs(1));
        assert!(serves.has(&peer, now + Span::secs(29)) && !serves.has(&peer, now + FAREWELL));
        assert!(serves.has(&other, now + FAREWELL));
        serves.next(Some(all), now + Span::secs(2));
        assert!(serves.has(&peer, now + FAREWELL), "it is a member again");
        serves.next(Some(fewer), now + Span::secs(3));
        serves.next(None, now + Span::secs(3));
        assert!(!serves.has(&peer, now + Span::secs(3)) && !serves.has(&other, now + Span::secs(3)));
    }

    #[test]
    fn no_delegator_keeps_from_sight_what_another_one_says_of_a_node() {
        let (here, there) = ("quic://192.0.2.1:7117", "quic://192.0.2.2:7117");
        let one = says("one", "nobody", "one.example", &[here], "send/1");
        let two = says("two", "office", "two.example", &[here, there], "ping/1");
        let listed = [one, two];
        let (entry, by) = spokesman(&listed, Some((Opener::Own, &PING)), Timestamp(0)).unwrap();
        let known = contact(entry, &listed);
        assert_eq!((known.name.as_str(), by.as_str()), ("office", "two"), "who allows it names it");
        let texts: Vec<_> = known.hints.iter().map(ToString::to_string).collect();
        assert_eq!(texts, [here, there], "each hint of both once");
        let authorities: Vec<_> = authorities(&listed).iter().map(ToString::to_string).collect();
        assert_eq!(authorities, ["one.example", "two.example"]);
        let (entry, _) = spokesman(&listed, None, Timestamp(0)).unwrap();
        assert_eq!(entry.card.name.as_str(), "nobody");
        assert!(spokesman(&[], None, Timestamp(0)).is_none());
    }
}
