//! The delegators that this node lets manage whom it trusts, and what their lists say now.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kith_connect::delegator::{Entry, Opener, PROTOCOL, Policy, Subscription, SubscriptionState};
use kith_connect::{ChangeSignal, Endpoint, Protocol};
use kith_identity::contacts::{Contact, Hint, Petname};
use kith_identity::{Fingerprint, Ni};
use kith_sansio::{Timestamp, system};
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
    /// The policy that this node serves; `None` where it serves none.
    serves: RwLock<Option<Arc<Policy>>>,
    changed: ChangeSignal,
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
            None => Ok(Delegated { database, uses: RwLock::new(uses), serves: RwLock::default(), changed }),
        }
    }

    fn uses(&self) -> RwLockReadGuard<'_, BTreeMap<Fingerprint, Used>> {
        self.uses.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn uses_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Fingerprint, Used>> {
        self.uses.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom this node serves from now on, or that it serves nobody. Streams of former members are the service's to end,
    /// which tells them first.
    pub(crate) fn serve(&self, policy: Option<Arc<Policy>>) {
        *self.serves.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Subscribes at every delegator in use.
    pub(crate) fn start(&self, endpoint: &Endpoint) {
        for (delegator, used) in self.uses_mut().iter_mut() {
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
        let mut uses = self.uses_mut();
        let delegator = row.ni.fingerprint;
        if uses.len() >= MAX_USES && !uses.contains_key(&delegator) {
            return Err(Failure::failed(format!("{MAX_USES} delegators are in use already"))
                .hint("drop one with 'kith delegator drop NAME'"));
        }
        let same_name =
            |used: &Used| used.row.name.as_str().to_lowercase() == row.name.as_str().to_lowercase();
        if let Some(other) = uses.values().find(|used| same_name(used) && used.row.ni != row.ni) {
            return Err(Failure::usage(format!("the name '{}' belongs to {}", row.name, other.row.ni)));
        }
        let bytes = serde_json::to_vec(&row).map_err(Failure::failed)?;
        self.database
            .write(|tables| tables.put(TABLE, delegator.as_bytes(), &bytes))
            .map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        let known = uses.remove(&delegator).and_then(|used| used.subscription);
        let subscription = known.or_else(|| endpoint.map(|endpoint| self.subscribe(endpoint, delegator)));
        if let Some(subscription) = &subscription {
            // Perhaps at another address.
            subscription.nudge();
        }
        uses.insert(delegator, Used { row, subscription });
        Ok(())
    }

    /// Lets a delegator manage nothing any more; what it said holds no longer.
    pub(crate) fn remove(&self, delegator: &Fingerprint) -> Result<()> {
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

    /// Whether some delegator has not been heard since this node started.
    pub(crate) fn is_awaited(&self) -> bool {
        let uses = self.uses();
        let mut lists = uses.values().filter_map(|used| used.subscription.as_ref());
        lists.any(|list| list.state().revision.is_none())
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
                Opener::Peer => self.is_served(peer),
                Opener::Own => self.uses().contains_key(peer),
            };
        }
        let uses = self.uses();
        let mut lists = uses.values().filter_map(|used| used.subscription.as_ref());
        lists.any(|list| list.permits(opener, peer, protocol))
    }

    fn is_served(&self, peer: &Fingerprint) -> bool {
        let serves = self.serves.read().unwrap_or_else(PoisonError::into_inner);
        serves.as_ref().is_some_and(|policy| policy.member(peer).is_some())
    }

    /// A peer of some list as a contact of that delegator's making, with the delegator's name.
    pub(crate) fn peer(&self, peer: &Fingerprint) -> Option<(Contact, Petname)> {
        let uses = self.uses();
        uses.values().find_map(|used| {
            let entry = used.subscription.as_ref()?.find(peer)?;
            Some((contact(&entry), used.row.name.clone()))
        })
    }

    /// The peer with this name on the lists; a failure where several have it.
    pub(crate) fn named(&self, name: &str) -> Result<Option<(Contact, Petname)>> {
        let folded = name.to_lowercase();
        let mut found: Option<(Contact, Petname)> = None;
        for used in self.uses().values() {
            let Some(list) = &used.subscription else { continue };
            let entries = list.entries();
            let entry = entries.iter().find(|entry| entry.card.name.as_str().to_lowercase() == folded);
            let Some(entry) = entry else { continue };
            match &found {
                Some((other, by)) if other.ni.fingerprint != entry.peer => {
                    let (one, two) = (by, &used.row.name);
                    return Err(Failure::usage(format!(
                        "'{name}' is one node for {one} and another for {two}"
                    ))
                    .hint(
                        "name it by its fingerprint; 'kith delegator show NAME' lists what each of them says",
                    ));
                }
                Some(_) => {}
                None => found = Some((contact(entry), used.row.name.clone())),
            }
        }
        Ok(found)
    }
}

fn contact(entry: &Entry) -> Contact {
    let added = Timestamp(0);
    Contact { hints: entry.card.hints.clone(), ..Contact::new(entry.card.name.clone(), entry.ni(), added) }
}

/// A delegator that is used from now on.
pub(crate) fn new_use(name: Petname, ni: Ni, at: Vec<Hint>) -> Use {
    Use { name, ni, at, since: system::utc().0 }
}
