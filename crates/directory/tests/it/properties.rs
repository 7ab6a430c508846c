//! Sets that nobody may accept, offered to everybody; and arbitrary bytes to every parser.

use std::sync::Arc;

use kith_directory::announce::{Announce, Limits, admit};
use kith_directory::cache::Cache;
use kith_directory::client::{ClientConfig, Directory, MemoryReplay};
use kith_directory::fuzz;
use kith_directory::replay::{Seen, Verdict};
use kith_directory::store::{RedbStore, Store, Stored};
use kith_identity::Identity;
use kith_identity::record::{Kind, Record, RecordSet, VerifiedRecordSet};
use kith_sansio::Timestamp;
use kith_store::Database;
use proptest::prelude::*;

use crate::dns_answers::query;
use crate::world::{NOW, identity, set, utc};

fn client() -> Directory {
    Directory::new(ClientConfig::default(), Vec::new(), Arc::new(MemoryReplay::default()))
}

/// A set with one byte of one value, or of the signature, changed; `None` where that is no set at all any more.
fn altered(set: &VerifiedRecordSet, place: usize, byte: usize, flip: u8) -> Option<RecordSet> {
    let mut records: Vec<Record> = set.iter().cloned().collect();
    records.push(Record::new(Kind::SIGNATURE, set.signature().to_vec()).unwrap());
    let at = place % records.len();
    let mut value = records[at].value().to_vec();
    let byte = byte % value.len();
    value[byte] ^= flip;
    records[at] = Record::new(records[at].kind().clone(), value).ok()?;
    RecordSet::from_records(records).ok()
}

/// One step in the life of a node's sets: made at this time with this validity, offered at that time.
#[derive(Clone, Copy, Debug)]
struct Step {
    made: u64,
    ttl: u32,
    at: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let made = prop_oneof![0u64..300, 0u64..100_000];
    let step = (made, 1u32..200, prop_oneof![Just(0u64), 0u64..400, 80_000u64..90_000]);
    proptest::collection::vec(step, 1..25).prop_map(|steps| {
        let mut now = 0;
        let absolute = |(back, ttl, wait): (u64, u32, u64)| {
            now += wait;
            Step { made: (now + 61).saturating_sub(back), ttl, at: now }
        };
        steps.into_iter().map(absolute).collect()
    })
}

/// What the design says, without any bounds on memory.
#[derive(Default)]
struct Model {
    newest: Option<VerifiedRecordSet>,
}

impl Model {
    fn offer(&mut self, now: Timestamp, set: &VerifiedRecordSet) -> Option<Verdict> {
        if !set.is_valid_at(now) {
            return None;
        }
        let remembered = self.newest.as_ref().filter(|old| now.0 < old.timestamp().0 + 86_460);
        let verdict = match remembered {
            None => Verdict::Newer,
            Some(old) if set.timestamp() > old.timestamp() => Verdict::Newer,
            Some(old) if set.timestamp() < old.timestamp() => Verdict::Older,
            Some(old) if set == old => Verdict::Repeat,
            Some(_) => Verdict::Different,
        };
        if verdict == Verdict::Newer {
            self.newest = Some(set.clone());
        }
        Some(verdict)
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The whole way of an announce, as the server goes it.
fn announce(store: &RedbStore, now: Timestamp, who: &Identity, set: &RecordSet) -> Result<Stored, u16> {
    let (body, named) = (set.to_json(), who.fingerprint());
    let request = Announce { client_key: Some(who.public()), named: &named, body: &body };
    let set = admit(now, &request, &Limits::default(), None).map_err(|refusal| refusal.status())?;
    Ok(block_on(store.announce(now, set)).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn altered_sets_are_refused_by_directory_client_and_cache(place: usize, byte: usize, flip in 1u8..) {
        let alice = identity(1);
        let now = utc();
        let Some(forged) = altered(&set(&alice, now, 600), place, byte, flip) else { return Ok(()) };
        let store = RedbStore::new(Database::in_memory().unwrap());
        prop_assert_eq!(announce(&store, now, &alice, &forged), Err(422));
        let client = client();
        prop_assert!(client.offer(forged, &alice.fingerprint()).is_err());
        prop_assert!(client.cached(&alice.fingerprint()).is_none());
    }

    #[test]
    fn sets_of_somebody_else_are_refused(other in 2u64..1000) {
        let (alice, mallory) = (identity(1), identity(other));
        let now = utc();
        let forged = set(&mallory, now, 600).as_record_set().clone();
        let store = RedbStore::new(Database::in_memory().unwrap());
        prop_assert_eq!(announce(&store, now, &alice, &forged), Err(422));
        prop_assert!(client().offer(forged, &alice.fingerprint()).is_err());
    }

    /// Directory and cache against the rule of the design: expired, future, older and different sets, also long
    /// after the newer one expired, also after sweeps.
    #[test]
    fn directory_and_cache_follow_the_replay_rule(steps in steps(), sweep: bool) {
        let alice = identity(1);
        let store = RedbStore::new(Database::in_memory().unwrap());
        let (mut model, mut cache, memory) = (Model::default(), Cache::new(4), MemoryReplay::default());
        for Step { made, ttl, at } in steps {
            let (now, set) = (NOW.plus_secs(at), set(&alice, NOW.plus_secs(made), ttl));
            if sweep {
                block_on(store.expire(now, 10)).unwrap();
            }
            let expected = model.offer(now, &set);
            let by_store = match announce(&store, now, &alice, set.as_record_set()) {
                Err(422) => None,
                Ok(Stored::Created | Stored::Replaced) => Some(Verdict::Newer),
                Ok(Stored::Repeated) => Some(Verdict::Repeat),
                Ok(Stored::NotNewer) => Some(expected.filter(|v| *v != Verdict::Newer).unwrap_or(Verdict::Older)),
                Err(status) => panic!("{status}"),
            };
            prop_assert_eq!(by_store, expected);
            use kith_directory::client::ReplayMemory;
            let by_cache = cache.offer(now, &set, memory.highest(&alice.fingerprint())).ok();
            prop_assert_eq!(by_cache, expected.filter(|v| matches!(v, Verdict::Newer | Verdict::Repeat)));
            if by_cache == Some(Verdict::Newer) {
                memory.remember(&alice.fingerprint(), Seen::of(&set));
            }
            let held = block_on(store.lookup(now, &alice.fingerprint())).unwrap();
            prop_assert_eq!(held.as_ref(), model.newest.as_ref().filter(|set| set.is_valid_at(now)));
            prop_assert_eq!(cache.valid(&alice.fingerprint(), now), held.as_ref());
        }
    }

    #[test]
    fn announces_of_any_bytes_are_refused_in_order(data: Vec<u8>) {
        fuzz::fuzz_announce_body(&data);
        fuzz::fuzz_http_error(&data);
        fuzz::fuzz_members(&data);
        fuzz::fuzz_held(&data);
        fuzz::fuzz_redis_answer(&data);
        fuzz::fuzz_redis_address(&data);
    }

    #[test]
    fn announces_with_a_few_wrong_bytes_are_refused_in_order(place: usize, byte: u8) {
        let mut json = set(&identity(1), NOW, 600).to_json();
        let place = place % json.len();
        json[place] = byte;
        fuzz::fuzz_announce_body(&json);
    }
}

proptest! {
    #[test]
    fn dns_packets_of_any_bytes_do_no_harm(data: Vec<u8>) {
        fuzz::fuzz_dns_query(&data);
        fuzz::fuzz_dns_answer(&data);
        fuzz::fuzz_dns_signed(&data);
    }

    #[test]
    fn dns_queries_with_a_few_wrong_bytes_do_no_harm(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        cut: usize,
        more: Vec<u8>,
    ) {
        let name = format!("{0}.{0}.0a.example.org", "0123456789abcdef".repeat(2));
        let mut bytes = query(&name, hickory_proto::rr::RecordType::TXT).to_vec().unwrap();
        for (place, byte) in changes {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        bytes.truncate(bytes.len() - cut % 20);
        bytes.extend(more);
        fuzz::fuzz_dns_query(&bytes);
        fuzz::fuzz_dns_answer(&bytes);
        fuzz::fuzz_dns_signed(&bytes);
    }

    #[test]
    fn error_bodies_can_be_shown(error: String, hint: String, junk: Vec<u8>) {
        let json = serde_json::json!({ "error": error, "hint": hint }).to_string();
        fuzz::fuzz_http_error(json.as_bytes());
        fuzz::fuzz_http_error(&junk);
    }
}
