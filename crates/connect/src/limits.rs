//! Counted places: how many connections and streams there may be, in all and for each source or peer.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts places by key, bounded in all and for each key.
#[derive(Debug)]
pub(crate) struct Places<K> {
    state: Mutex<State<K>>,
    most: usize,
    most_each: usize,
}

#[derive(Debug)]
struct State<K> {
    taken: usize,
    each: HashMap<K, usize>,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash + Copy> {
    places: Arc<Places<K>>,
    key: K,
}

impl<K: Eq + Hash + Copy> Places<K> {
    pub(crate) fn new(most: usize, most_each: usize) -> Arc<Places<K>> {
        Arc::new(Places { state: Mutex::new(State { taken: 0, each: HashMap::new() }), most, most_each })
    }

    /// A place for `key`; `None` where it, or everybody together, has too many.
    pub(crate) fn take(self: &Arc<Self>, key: K) -> Option<Place<K>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.taken >= self.most {
            return None;
        }
        let each = state.each.entry(key).or_insert(0);
        if *each >= self.most_each {
            return None;
        }
        *each += 1;
        state.taken += 1;
        Some(Place { places: Arc::clone(self), key })
    }

    /// Whether more than half of all places are taken.
    pub(crate) fn crowded(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).taken > self.most / 2
    }
}

impl<K: Eq + Hash + Copy> Drop for Place<K> {
    fn drop(&mut self) {
        let mut state = self.places.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.taken = state.taken.saturating_sub(1);
        if let Some(each) = state.each.get_mut(&self.key) {
            *each -= 1;
            if *each == 0 {
                state.each.remove(&self.key);
            }
        }
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 /64, which one customer has to himself.
pub(crate) fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_each_and_in_all_and_come_back() {
        let places = Places::new(3, 2);
        let first = places.take('a').unwrap();
        let _second = places.take('a').unwrap();
        assert!(places.take('a').is_none());
        let _third = places.take('b').unwrap();
        assert!(places.crowded());
        assert!(places.take('c').is_none());
        drop(first);
        assert!(places.take('c').is_some());
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
        let source = |ip: &str| source(ip.parse().unwrap()).to_string();
        assert_eq!(source("10.1.2.3"), "10.1.2.3");
        assert_eq!(source("::ffff:10.1.2.3"), "10.1.2.3");
        assert_eq!(source("2600:1:2:3:4:5:6:7"), "2600:1:2:3::");
    }
}
