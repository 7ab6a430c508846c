use std::sync::{Mutex, MutexGuard, PoisonError};

use kith_identity::record::Draft;
use kith_sansio::SeededRng;
use kith_store::Database;
use zeroize::Zeroizing;

use super::*;
use crate::node::dht::pairs::Pairs;

const NETWORK: Fingerprint = Fingerprint::from_bytes([5; 32]);
const DAY: Day = Day(20_484);

/// A node, its contacts, and one other node that keeps their values.
struct Town {
    identity: Identity,
    pairs: Pairs,
    state: Mutex<State>,
}

struct State {
    now: Now,
    draft: (Draft, Timestamp),
    readers: Vec<Fingerprint>,
    kept: BTreeMap<NodeId, Value>,
    /// All that was to be stored, and how often something was looked up.
    puts: Vec<Value>,
    gets: usize,
    told: Published,
}

impl Town {
    /// At noon.
    fn with(readers: u64) -> Town {
        let identity = Identity::generate(&mut SeededRng::new(100));
        let pairs = Pairs::open(Database::in_memory().unwrap(), identity.public()).unwrap();
        let reader = |seed| {
            let key = Identity::generate(&mut SeededRng::new(seed)).public();
            let _own = pairs.take(&key.fingerprint(), (Zeroizing::new([1; 32]), key)).unwrap();
            key.fingerprint()
        };
        let readers = (0..readers).map(reader).collect();
        let utc = DAY.begins().plus_secs(43_200);
        let state = State {
            now: Now { time: Time(1), utc },
            draft: (Draft::default(), utc),
            readers,
            kept: BTreeMap::new(),
            puts: vec![],
            gets: 0,
            told: Published::default(),
        };
        Town { identity, pairs, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signed(&self) -> VerifiedRecordSet {
        let (draft, timestamp) = self.state().draft.clone();
        draft.sign(&self.identity, timestamp).unwrap()
    }

    fn passes(&self, secs: u64) {
        let mut state = self.state();
        state.now = Now { time: state.now.time + Span::secs(secs), utc: state.now.utc.plus_secs(secs) };
    }

    /// The node says something else from now on.
    fn changes(&self) {
        self.passes(1);
        let mut state = self.state();
        state.draft.1 = state.now.utc;
    }

    fn alias(&self, reader: &Fingerprint, day: Day) -> Alias {
        self.pairs.of(reader).unwrap().ours(&NETWORK, &self.identity.public(), day)
    }

    /// Who was to have a value of today, and of which time the set in it is, in the order of the attempts.
    fn sent(&self) -> Vec<(Fingerprint, Timestamp)> {
        let state = self.state();
        let of = |value: &Value| {
            let mut opened = state.readers.iter().map(|reader| (reader, self.alias(reader, DAY).open(value)));
            let (reader, set) = opened.find_map(|(reader, set)| Some((*reader, set?))).unwrap();
            let set = set.verify(&self.identity.fingerprint(), state.now.utc).unwrap();
            (reader, set.timestamp())
        };
        state.puts.iter().map(of).collect()
    }

    fn told(&self) -> Published {
        self.state().told.clone()
    }

    fn kept(&self, key: &NodeId) -> Value {
        self.state().kept[key].clone()
    }

    /// A value for the first contact that is kept already.
    fn has_kept(&self, version: u64) -> Value {
        let reader = self.state().readers[0];
        let value =
            self.alias(&reader, DAY).seal(&self.identity, version, &self.signed(), &mut OsRng).unwrap();
        self.state().kept.insert(value.key, value.clone());
        value
    }

    async fn turns(&self, letters: &mut Letters) -> usize {
        let mut turns = 0;
        while turn(self, letters).await {
            turns += 1;
            assert!(turns < 100, "it does not come to rest");
        }
        turns
    }
}

impl World for Town {
    fn now(&self) -> Now {
        self.state().now
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn network(&self) -> &Fingerprint {
        &NETWORK
    }

    async fn set(&self) -> Option<VerifiedRecordSet> {
        Some(self.signed())
    }

    fn readers(&self) -> Vec<(Fingerprint, Pair)> {
        let readers = self.state().readers.clone();
        readers.into_iter().map(|peer| (peer, self.pairs.of(&peer).unwrap())).collect()
    }

    async fn put(&self, value: Value) -> std::result::Result<usize, PutError> {
        let mut state = self.state();
        state.puts.push(value.clone());
        if state.kept.get(&value.key).is_some_and(|kept| *kept != value && !value.replaces(kept)) {
            return Err(PutError::TooFew { nodes: 0, needed: 1, refusal: Some(Refusal::Older) });
        }
        state.kept.insert(value.key, value);
        Ok(1)
    }

    async fn get(&self, place: NodeId) -> Option<Value> {
        let mut state = self.state();
        state.gets += 1;
        state.kept.get(&place).cloned()
    }

    fn tell(&self, published: Published) {
        self.state().told = published;
    }
}

#[tokio::test]
async fn set_and_contacts_are_looked_at_before_each_value() {
    let (town, mut letters) = (Town::with(4), Letters::new());
    let before = town.signed().timestamp();
    assert!(turn(&town, &mut letters).await && turn(&town, &mut letters).await);
    town.changes();
    let after = town.signed().timestamp();
    let readers: Vec<_> = letters.keys().map(|(reader, _)| *reader).collect();
    let gone = readers[2];
    town.state().readers.retain(|reader| *reader != gone);
    assert_eq!(town.turns(&mut letters).await, 3);
    // Who has heard nothing yet comes first.
    let order = [(0, before), (1, before), (3, after), (0, after), (1, after)];
    assert_eq!(town.sent(), order.map(|(reader, time)| (readers[reader], time)));
    assert_eq!(town.told().contacts, Some(3));
}

#[tokio::test]
async fn a_set_that_changes_again_and_again_reaches_everybody() {
    let (town, mut letters) = (Town::with(3), Letters::new());
    for _ in 0..3 {
        town.changes();
        assert!(turn(&town, &mut letters).await);
        town.changes();
        assert!(turn(&town, &mut letters).await);
    }
    for (reader, _) in letters.keys() {
        assert_eq!(town.sent().iter().filter(|(to, _)| to == reader).count(), 2);
    }
}

#[tokio::test]
async fn what_is_told_to_end_first_is_a_set_or_the_values_of_the_day() {
    let (town, mut letters) = (Town::with(2), Letters::new());
    town.turns(&mut letters).await;
    assert_eq!(town.told().expires, Some(town.signed().expires()));
    assert!(town.signed().expires() < DAY.expires());
    town.state().draft.0.ttl = 86_400;
    town.changes();
    assert!(turn(&town, &mut letters).await);
    let first = town.told().expires;
    assert!(first.is_some_and(|first| first < DAY.expires()), "one has the former set still");
    town.turns(&mut letters).await;
    assert!(town.signed().expires() > DAY.expires());
    assert_eq!(town.told().expires, Some(DAY.expires()));
    // The value of tomorrow is there, and that of today ends before it.
    town.passes(43_200 - AHEAD_SECS);
    assert_eq!(town.turns(&mut letters).await, 4);
    assert_eq!(town.told().expires, Some(DAY.expires()));
    // The former day's does not count any more.
    town.passes(AHEAD_SECS);
    town.turns(&mut letters).await;
    assert_eq!(town.told().expires, Some(town.signed().expires()));
}

#[tokio::test]
async fn a_value_that_was_stored_with_a_clock_ahead_is_replaced_at_once() {
    let (town, mut letters) = (Town::with(1), Letters::new());
    let ahead = town.has_kept(town.now().utc.0 + 3_600);
    assert_eq!(town.turns(&mut letters).await, 1);
    let told = town.told();
    assert!(told.error.is_none() && told.stored.is_some(), "{told:?}");
    assert_eq!(town.kept(&ahead.key).version, ahead.version + 1);
    // What comes later is newer still, and nothing has to be looked up.
    town.changes();
    assert_eq!(town.turns(&mut letters).await, 1);
    assert_eq!(town.kept(&ahead.key).version, ahead.version + 2);
    assert_eq!(town.state().gets, 1);
}

#[tokio::test]
async fn what_nothing_can_replace_is_tried_again_later() {
    let (town, mut letters) = (Town::with(1), Letters::new());
    let last = town.has_kept(u64::MAX);
    assert_eq!(town.turns(&mut letters).await, 1);
    let told = town.told();
    assert!(told.error.as_ref().is_some_and(|error| error.contains("newer value")), "{told:?}");
    town.passes(5);
    assert_eq!((town.turns(&mut letters).await, town.turns(&mut letters).await), (1, 0));
    assert_eq!((town.kept(&last.key), town.state().puts.len()), (last, 2));
}

#[tokio::test]
async fn what_cannot_be_sealed_is_told_and_waits() {
    let mut town = Town::with(1);
    let mut letters = Letters::new();
    address(&town, &mut letters);
    town.identity = Identity::generate(&mut SeededRng::new(7));
    assert_eq!((town.turns(&mut letters).await, town.turns(&mut letters).await), (1, 0));
    assert!(town.told().error.is_some());
    assert!(town.state().puts.is_empty());
}

#[test]
fn tomorrows_value_is_published_an_hour_before_and_todays_until_midnight() {
    let day = Day(20_484);
    let at = |secs: u64| days(day.begins().plus_secs(secs)).collect::<Vec<_>>();
    assert_eq!(at(0), [day]);
    assert_eq!(at(86_400 - AHEAD_SECS - 1), [day]);
    assert_eq!(at(86_400 - AHEAD_SECS), [day, Day(20_485)]);
    assert_eq!(at(86_399), [day, Day(20_485)]);
}
