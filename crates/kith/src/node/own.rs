//! What this node says of itself: addresses and a blob, signed with timestamps that only grow.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_directory::client::Clock;
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_identity::{Address, Fingerprint, Identity, Relay};
use kith_sansio::{Timestamp, system};
use kith_store::{Database, StoreError, Table};

use crate::failure::{Failure, Result, chain};

const TABLE: Table = Table("own");
const TIMESTAMP: &[u8] = b"timestamp";
const BLOB: &[u8] = b"blob";

/// The node's own statement.
pub(crate) struct Own {
    identity: Arc<Identity>,
    database: Database,
    clock: Clock,
    ttl_secs: u32,
    state: Mutex<State>,
}

struct State {
    addresses: Vec<Address>,
    relays: Vec<Relay>,
    blob: Option<Vec<u8>>,
    /// Signed for peers, where no directory asks for one.
    signed: Option<(Draft, VerifiedRecordSet)>,
}

impl Own {
    /// Reads what an earlier run left: the last timestamp, and the blob that goes on being published.
    pub(crate) fn open(identity: Arc<Identity>, database: Database, ttl_secs: u32) -> Result<Own> {
        let blob = database.read(|tables| tables.row(TABLE, BLOB));
        let blob = blob.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        let clock = clock(&database, TIMESTAMP.to_vec())?;
        let state = Mutex::new(State { addresses: Vec::new(), relays: Vec::new(), blob, signed: None });
        Ok(Own { identity, database, clock, ttl_secs, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of this identity's sets.
    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// What is to be said now.
    pub(crate) fn draft(&self) -> Draft {
        let state = self.state();
        Draft {
            addresses: state.addresses.clone(),
            relays: state.relays.clone(),
            blobs: state.blob.clone().into_iter().collect(),
            ttl: self.ttl_secs,
            ..Draft::default()
        }
    }

    /// Whether `said` is valid, and names the addresses and relays that are to be named now.
    pub(crate) fn agrees(&self, said: &VerifiedRecordSet) -> bool {
        let mut named = said.addresses();
        let (mut now, mut relays_now) = {
            let state = self.state();
            (state.addresses.clone(), state.relays.clone())
        };
        named.sort_by_key(ToString::to_string);
        now.sort_by_key(ToString::to_string);
        relays_now.sort();
        named == now && said.relays() == relays_now && said.is_valid_at(system::utc())
    }

    /// Tells where this node is reached from now on.
    pub(crate) fn set_addresses(&self, addresses: Vec<Address>) {
        self.state().addresses = addresses;
    }

    /// Tells by which relays this node is reached from now on; whether that is something new.
    pub(crate) fn set_relays(&self, relays: Vec<Relay>) -> bool {
        let mut state = self.state();
        let is_new = state.relays != relays;
        state.relays = relays;
        is_new
    }

    /// Publishes `blob` from now on, also after a restart.
    pub(crate) fn set_blob(&self, blob: Option<Vec<u8>>) -> Result<()> {
        self.database
            .write(|tables| match &blob {
                Some(bytes) => tables.put(TABLE, BLOB, bytes),
                None => tables.remove(TABLE, BLOB).map(|_| ()),
            })
            .map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        self.state().blob = blob;
        Ok(())
    }

    /// A set that says what is to be said now, for peers: the last one again while it is good for half its time.
    pub(crate) fn signed(&self) -> Result<VerifiedRecordSet> {
        let draft = self.draft();
        let now = system::utc();
        if let Some((said, set)) = &self.state().signed
            && *said == draft
            && set.is_valid_at(now)
            && now.secs_since(set.timestamp()) < u64::from(self.ttl_secs / 2)
        {
            return Ok(set.clone());
        }
        let set = self.sign(&draft)?;
        self.state().signed = Some((draft, set.clone()));
        Ok(set)
    }

    /// Signs a statement with the next timestamp.
    pub(crate) fn sign(&self, draft: &Draft) -> Result<VerifiedRecordSet> {
        let timestamp = self.clock.next(system::utc()).map_err(|error| Failure::failed(chain(&error)))?;
        draft.sign(&self.identity, timestamp).map_err(|error| Failure::failed(chain(&error)))
    }
}

/// The clock of a key that this home had before: after everything that it has signed.
pub(super) fn clock_of(database: &Database, old: &Fingerprint) -> Result<Clock> {
    clock(database, [TIMESTAMP, old.as_bytes()].concat())
}

/// The clock whose last timestamp is in `row`, after what the home has signed under whatever key.
fn clock(database: &Database, row: Vec<u8>) -> Result<Clock> {
    let last = |tables: &kith_store::ReadRows, row: &[u8]| {
        let bytes = tables.row(TABLE, row)?.and_then(|bytes| bytes.try_into().ok());
        Ok::<_, StoreError>(Timestamp(bytes.map_or(0, u64::from_be_bytes)))
    };
    let last = database.read(|tables| Ok(last(tables, &row)?.max(last(tables, TIMESTAMP)?)));
    let last = last.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
    let rows = database.clone();
    Ok(Clock::new(last, move |next| {
        rows.write(|tables| tables.put(TABLE, &row, &next.0.to_be_bytes()))
            .map_err(|error: StoreError| io::Error::other(error))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_sansio::SeededRng;

    fn own(database: &Database) -> Own {
        let identity = Arc::new(Identity::generate(&mut SeededRng::new(1)));
        Own::open(identity, database.clone(), 3_600).unwrap()
    }

    #[test]
    fn timestamps_grow_over_restarts_and_the_blob_stays() {
        let database = Database::in_memory().unwrap();
        let first = own(&database);
        first.set_blob(Some(b"hello".to_vec())).unwrap();
        let before = first.signed().unwrap();
        let again = own(&database);
        let after = again.signed().unwrap();
        assert!(after.timestamp() > before.timestamp());
        assert_eq!(after.blobs().len(), 1);
        assert_eq!(again.signed().unwrap(), after, "nothing new, nothing signed");
    }

    #[test]
    fn a_clock_that_was_years_ahead_leaves_no_set_that_nobody_takes() {
        let database = Database::in_memory().unwrap();
        let ahead = system::utc().plus_secs(10 * 365 * 86_400);
        let left: std::result::Result<(), StoreError> =
            database.write(|tables| tables.put(TABLE, TIMESTAMP, &ahead.0.to_be_bytes()));
        left.unwrap();
        let own = own(&database);
        assert!(own.signed().unwrap().is_valid_at(system::utc()));
        // The same while the node runs: what was signed under the wrong clock is not said again.
        let draft = own.draft();
        let wrong = draft.sign(&own.identity, ahead).unwrap();
        own.state().signed = Some((draft, wrong));
        assert!(own.signed().unwrap().is_valid_at(system::utc()));
    }

    #[test]
    fn a_set_that_names_other_relays_is_not_what_is_said_now() {
        let own = own(&Database::in_memory().unwrap());
        let said = own.signed().unwrap();
        assert!(own.agrees(&said));
        let relay = Relay { preference: 1, ni: kith_identity::Ni::new(own.identity.fingerprint(), None) };
        assert!(own.set_relays(vec![relay.clone()]) && !own.set_relays(vec![relay]));
        assert!(!own.agrees(&said));
        assert!(own.agrees(&own.signed().unwrap()));
    }

    #[test]
    fn another_address_is_another_set() {
        let own = own(&Database::in_memory().unwrap());
        let before = own.signed().unwrap();
        own.set_addresses(vec!["quic://192.0.2.1:7117".parse().unwrap()]);
        let after = own.signed().unwrap();
        assert!(after.timestamp() > before.timestamp());
        assert_eq!(after.addresses().len(), 1);
    }
}
