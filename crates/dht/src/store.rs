//! What a node keeps for others: bounded in all, bounded and slowed for each publisher, and gone at its end.
//!
//! Publishers are keys, and keys cost nothing; so each value counts for the member who brought it, too. Where there is
//! no room left, whoever has most gives up some.

use std::collections::{BTreeMap, BTreeSet};

use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::{Now, Time};

use crate::defaults::{
    MAX_BYTES_PER_PUBLISHER, MAX_STORE_BYTES, MAX_TTL_SECS, MAX_VALUE_BYTES, MAX_VALUES_PER_PUBLISHER,
    STORE_BURST, STORE_EVERY,
};
use crate::value::{Refusal, Value};

/// What a value costs beside its bytes, so that empty ones are bounded too.
const OVERHEAD_BYTES: usize = 256;

/// The values of one node.
#[derive(Clone, Debug, Default)]
pub struct Store {
    held: BTreeMap<NodeId, Held>,
    publishers: BTreeMap<Fingerprint, Account>,
    /// What the members have here that brought it.
    shares: BTreeMap<NodeId, Share>,
    /// When the values are due to be brought to their nodes again.
    renewals: BTreeSet<(Time, NodeId)>,
    bytes: usize,
    /// Keys that nothing is kept at any more, since somebody asked.
    gone: Vec<NodeId>,
}

/// A value and how it is kept alive.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) value: Value,
    /// Whose share it counts in.
    pub(crate) by: NodeId,
    /// When it is brought to its nodes again, unless another one does so before.
    renew: Time,
    /// The nodes that are believed to have it.
    pub(crate) holders: Vec<NodeId>,
}

/// What a member has brought.
#[derive(Clone, Debug, Default)]
struct Share {
    keys: BTreeSet<NodeId>,
    bytes: usize,
}

/// What a publisher has here.
#[derive(Clone, Debug)]
struct Account {
    values: usize,
    bytes: usize,
    /// Changes are taken until this is further from now than a burst takes.
    next: Time,
}

impl Store {
    /// Keeps a value that this member brought; whether it is another one than before.
    ///
    /// # Errors
    /// Where it is not kept.
    pub fn put(&mut self, now: Now, value: Value, by: NodeId) -> Result<bool, Refusal> {
        let size = check(now, &value)?;
        let before = match self.held.get(&value.key) {
            Some(held) if held.value == value => {
                self.share_out(&value.key, by);
                return Ok(false);
            }
            Some(held) if !value.replaces(&held.value) => return Err(Refusal::Older),
            Some(held) => Some((held.value.publisher, held.size())),
            None => None,
        };
        let own = before.filter(|(publisher, _)| *publisher == value.publisher);
        self.charge(now.time, &value, size, own.map(|(_, size)| size))?;
        self.make_room(&value.key, size, &by)?;
        self.remove(&value.key);
        let account = self.account(value.publisher);
        account.values += 1;
        account.bytes += size;
        self.bytes += size;
        self.shares.entry(by).or_default().add(value.key, size);
        self.renewals.insert((now.time, value.key));
        self.held.insert(value.key, Held { value, by, renew: now.time, holders: Vec::new() });
        Ok(true)
    }

    /// Keeps a value that was kept before a restart: that is no change of its publisher's.
    ///
    /// # Errors
    /// Where it is not kept.
    pub(crate) fn restore(&mut self, now: Now, value: Value, by: NodeId) -> Result<(), Refusal> {
        let (publisher, next) = (value.publisher, self.account(value.publisher).next);
        let kept = self.put(now, value, by);
        self.account(publisher).next = next;
        kept.map(drop)
    }

    /// Keys at which something was kept and nothing is any more, since this was asked last.
    pub(crate) fn take_gone(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.gone)
    }

    /// The value of a key, unless it has expired.
    pub fn value(&self, now: Now, key: &NodeId) -> Option<&Value> {
        self.held.get(key).map(|held| &held.value).filter(|value| value.expires > now.utc)
    }

    /// How many values are kept.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether everything that is kept is counted where it should be, and within its bounds.
    pub(crate) fn is_in_order(&self) -> bool {
        let bytes: usize = self.held.values().map(Held::size).sum();
        let shared: usize = self.shares.values().map(|share| share.bytes).sum();
        let keys: usize = self.shares.values().map(|share| share.keys.len()).sum();
        let published: usize = self.publishers.values().map(|account| account.bytes).sum();
        let values: usize = self.publishers.values().map(|account| account.values).sum();
        let is_fair = |account: &Account| {
            account.values <= MAX_VALUES_PER_PUBLISHER && account.bytes <= MAX_BYTES_PER_PUBLISHER
        };
        [shared, published, self.bytes] == [bytes; 3]
            && [keys, values, self.renewals.len()] == [self.held.len(); 3]
            && bytes <= MAX_STORE_BYTES
            && self.publishers.values().all(is_fair)
    }

    /// Drops what has expired, and what is remembered of publishers that have nothing here.
    pub(crate) fn expire(&mut self, now: Now) {
        let expired: Vec<_> = self.held.values().filter(|held| held.value.expires <= now.utc).collect();
        let expired: Vec<_> = expired.into_iter().map(|held| held.value.key).collect();
        expired.iter().for_each(|key| self.drop_value(key));
        self.publishers.retain(|_, account| account.values > 0 || account.next > now.time);
    }

    pub(crate) fn held_mut(&mut self, key: &NodeId) -> Option<&mut Held> {
        self.held.get_mut(key)
    }

    /// The value that has been due for longest to be brought to its nodes again.
    pub(crate) fn due(&self, now: Time) -> Option<&Value> {
        let (_, key) = self.renewals.first().filter(|(at, _)| *at <= now)?;
        self.held.get(key).map(|held| &held.value)
    }

    pub(crate) fn renew_at(&mut self, key: &NodeId, at: Time) {
        if let Some(held) = self.held.get_mut(key) {
            self.renewals.remove(&(held.renew, *key));
            held.renew = at;
            self.renewals.insert((at, *key));
        }
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        self.held.values_mut()
    }

    /// Takes room and time of the publisher; `before` is what it gives up for it.
    fn charge(
        &mut self,
        now: Time,
        value: &Value,
        size: usize,
        before: Option<usize>,
    ) -> Result<(), Refusal> {
        let account = self.account(value.publisher);
        let values = account.values + 1 - usize::from(before.is_some());
        if values > MAX_VALUES_PER_PUBLISHER
            || account.bytes - before.unwrap_or(0) + size > MAX_BYTES_PER_PUBLISHER
        {
            return Err(Refusal::Quota);
        }
        let next = account.next.max(now) + STORE_EVERY;
        if next - now > STORE_EVERY.times(STORE_BURST) {
            return Err(Refusal::Rate);
        }
        account.next = next;
        Ok(())
    }

    /// Lets those go that have most, until there is room for a value at this key; `by` itself has to be one of the others.
    fn make_room(&mut self, key: &NodeId, size: usize, by: &NodeId) -> Result<(), Refusal> {
        loop {
            let freed = self.held.get(key).map_or(0, Held::size);
            if self.bytes - freed + size <= MAX_STORE_BYTES {
                return Ok(());
            }
            let most = self.shares.values().max_by_key(|share| share.bytes);
            let most = most.filter(|most| most.bytes > self.bytes_of(by) + size);
            let last = most.and_then(|share| share.keys.last().copied()).ok_or(Refusal::Full)?;
            self.drop_value(&last);
        }
    }

    /// A value counts for the one who has least here of those who brought it: nobody fills the share of others.
    fn share_out(&mut self, key: &NodeId, by: NodeId) {
        let Some((before, size)) = self.held.get(key).map(|held| (held.by, held.size())) else { return };
        if self.bytes_of(&by) + size < self.bytes_of(&before) {
            self.unshare(&before, key, size);
            self.shares.entry(by).or_default().add(*key, size);
            self.held.entry(*key).and_modify(|held| held.by = by);
        }
    }

    fn bytes_of(&self, member: &NodeId) -> usize {
        self.shares.get(member).map_or(0, |share| share.bytes)
    }

    fn unshare(&mut self, member: &NodeId, key: &NodeId, size: usize) {
        let Some(share) = self.shares.get_mut(member) else { return };
        share.keys.remove(key);
        share.bytes -= size;
        if share.keys.is_empty() {
            self.shares.remove(member);
        }
    }

    fn account(&mut self, publisher: Fingerprint) -> &mut Account {
        self.publishers.entry(publisher).or_insert(Account { values: 0, bytes: 0, next: Time(0) })
    }

    fn drop_value(&mut self, key: &NodeId) {
        self.remove(key);
        self.gone.push(*key);
    }

    fn remove(&mut self, key: &NodeId) {
        let Some(held) = self.held.remove(key) else { return };
        let size = held.size();
        self.bytes -= size;
        self.renewals.remove(&(held.renew, *key));
        self.unshare(&held.by, key, size);
        let account = self.account(held.value.publisher);
        account.values -= 1;
        account.bytes -= size;
    }
}

impl Held {
    fn size(&self) -> usize {
        self.value.bytes.len() + OVERHEAD_BYTES
    }
}

impl Share {
    fn add(&mut self, key: NodeId, size: usize) {
        self.keys.insert(key);
        self.bytes += size;
    }
}

/// What a value takes of the room, where it may be kept at all.
fn check(now: Now, value: &Value) -> Result<usize, Refusal> {
    if value.expires <= now.utc {
        return Err(Refusal::Expired);
    }
    if value.expires.secs_since(now.utc) > MAX_TTL_SECS {
        return Err(Refusal::TooLong);
    }
    if value.bytes.len() > MAX_VALUE_BYTES {
        return Err(Refusal::TooLarge);
    }
    Ok(value.bytes.len() + OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kith_sansio::Timestamp;

    use super::*;

    const UTC: Timestamp = Timestamp(1_000_000);

    fn at(seconds: u64) -> Now {
        Now { time: Time(seconds * 1_000_000), utc: UTC.plus_secs(seconds) }
    }

    fn value(key: u8, publisher: u8, version: u64, size: usize) -> Value {
        Value {
            kind: 1,
            key: NodeId::from_bytes([key; 32]),
            publisher: Fingerprint::from_bytes([publisher; 32]),
            version,
            expires: UTC.plus_secs(3_600),
            bytes: vec![7; size].into(),
        }
    }

    fn put(store: &mut Store, now: Now, value: Value) -> Result<bool, Refusal> {
        store.put(now, value, NodeId::from_bytes([1; 32]))
    }

    #[test]
    fn the_newest_is_kept_until_it_expires() {
        let mut store = Store::default();
        assert_eq!(put(&mut store, at(0), value(1, 1, 5, 10)), Ok(true));
        assert_eq!(put(&mut store, at(0), value(1, 1, 5, 10)), Ok(false));
        assert_eq!(put(&mut store, at(0), value(1, 1, 4, 10)), Err(Refusal::Older));
        assert_eq!(put(&mut store, at(0), value(1, 1, 6, 10)), Ok(true));
        let key = NodeId::from_bytes([1; 32]);
        assert_eq!(store.value(at(3_599), &key).map(|value| value.version), Some(6));
        assert_eq!(store.value(at(3_600), &key), None);
        store.expire(at(3_600));
        assert!(store.is_empty() && store.bytes == 0 && store.publishers.is_empty());
        assert!(store.shares.is_empty() && store.renewals.is_empty());
        assert_eq!(put(&mut store, at(3_600), value(1, 1, 7, 10)), Err(Refusal::Expired));
        let far = Value { expires: UTC.plus_secs(MAX_TTL_SECS + 1), ..value(1, 1, 8, 10) };
        assert_eq!(put(&mut store, at(0), far), Err(Refusal::TooLong));
    }

    #[test]
    fn of_two_with_one_version_every_node_keeps_the_same() {
        let (a, b) = (value(1, 1, 5, 10), Value { bytes: Bytes::from_static(b"other"), ..value(1, 1, 5, 0) });
        assert_ne!(a.replaces(&b), b.replaces(&a));
        assert!(!a.replaces(&a));
    }

    #[test]
    fn a_publisher_has_its_room_and_no_more() {
        let mut store = Store::default();
        for key in 0..MAX_VALUES_PER_PUBLISHER as u8 {
            assert_eq!(put(&mut store, at(10_000 * u64::from(key) / 1_000), value(key, 1, 1, 1)), Ok(true));
        }
        assert_eq!(put(&mut store, at(3_000), value(200, 1, 1, 1)), Err(Refusal::Quota));
        assert_eq!(put(&mut store, at(3_000), value(0, 1, 2, 1)), Ok(true), "a change needs no more room");
        assert_eq!(put(&mut store, at(3_000), value(200, 2, 1, 1)), Ok(true), "others have theirs");
        assert_eq!(put(&mut store, at(3_000), value(201, 2, 1, MAX_VALUE_BYTES + 1)), Err(Refusal::TooLarge));
        let large = MAX_BYTES_PER_PUBLISHER / (MAX_VALUE_BYTES + OVERHEAD_BYTES);
        for key in 0..large as u8 {
            assert_eq!(put(&mut store, at(3_000), value(100 + key, 3, 1, MAX_VALUE_BYTES)), Ok(true));
        }
        assert_eq!(put(&mut store, at(3_000), value(99, 3, 1, MAX_VALUE_BYTES)), Err(Refusal::Quota));
        assert!(store.is_in_order());
    }

    #[test]
    fn a_publisher_that_changes_too_often_is_slowed() {
        let mut store = Store::default();
        let every = STORE_EVERY.as_secs();
        for version in 0..STORE_BURST {
            assert_eq!(put(&mut store, at(0), value(1, 1, version + 1, 1)), Ok(true));
        }
        assert_eq!(put(&mut store, at(0), value(1, 1, 1_000, 1)), Err(Refusal::Rate));
        assert_eq!(put(&mut store, at(every), value(1, 1, 1_000, 1)), Ok(true));
        assert_eq!(put(&mut store, at(every), value(1, 1, 1_001, 1)), Err(Refusal::Rate));
    }

    /// As many values as there is room for, each of a key that nobody has used before.
    #[test]
    fn one_member_with_many_keys_takes_no_room_from_others() {
        let mut store = Store::default();
        let (crowd, other) = (NodeId::from_bytes([9; 32]), NodeId::from_bytes([2; 32]));
        let bytes = Bytes::from(vec![7; MAX_VALUE_BYTES]);
        let numbered = |number: u32| {
            let name = std::array::from_fn(|at| number.to_be_bytes()[at % 4]);
            let (key, publisher) = (NodeId::from_bytes(name), Fingerprint::from_bytes(name));
            Value { key, publisher, bytes: bytes.clone(), ..value(0, 0, 1, 0) }
        };
        let room = (MAX_STORE_BYTES / (MAX_VALUE_BYTES + OVERHEAD_BYTES)) as u32;
        for number in 0..room {
            assert_eq!(store.put(at(0), numbered(number), crowd), Ok(true));
        }
        assert_eq!(store.put(at(0), numbered(room), crowd), Err(Refusal::Full));
        let own = room + 1..room + 1 + room / 2 - 1;
        for number in own.clone() {
            assert_eq!(store.put(at(0), numbered(number), other), Ok(true), "{number}");
        }
        for number in own.end..own.end + room {
            assert_eq!(store.put(at(0), numbered(number), crowd), Err(Refusal::Full));
        }
        assert!(own.clone().all(|number| store.value(at(0), &numbered(number).key).is_some()));
        assert!(store.is_in_order());
        // What both bring counts for the one who has less.
        let third = NodeId::from_bytes([3; 32]);
        assert_eq!(store.put(at(0), numbered(own.start), third), Ok(false));
        assert_eq!(store.bytes_of(&third), MAX_VALUE_BYTES + OVERHEAD_BYTES);
    }

    #[test]
    fn what_is_due_for_longest_is_renewed_first() {
        let mut store = Store::default();
        for key in 1..4 {
            assert_eq!(put(&mut store, at(0), value(key, key, 1, 1)), Ok(true));
            store.renew_at(&NodeId::from_bytes([key; 32]), Time(100 - u64::from(key)));
        }
        assert_eq!(store.due(Time(96)), None);
        assert_eq!(store.due(Time(100)).map(|value| value.key), Some(NodeId::from_bytes([3; 32])));
        store.renew_at(&NodeId::from_bytes([3; 32]), Time(200));
        assert_eq!(store.due(Time(100)).map(|value| value.key), Some(NodeId::from_bytes([2; 32])));
    }
}
