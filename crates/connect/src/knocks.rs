use std::collections::HashMap;

use kith_identity::Fingerprint;
use kith_sansio::{Span, Time};

/// Which strangers were noted lately, so that each is noted once per hour only.
#[derive(Debug)]
pub(crate) struct Knocks {
    noted: HashMap<Fingerprint, Time>,
    every: Span,
    most: usize,
}

impl Knocks {
    /// Notes each stranger once in `every`, and remembers at most `most` of them.
    pub(crate) fn new(every: Span, most: usize) -> Knocks {
        Knocks { noted: HashMap::new(), every, most }
    }

    /// Whether this knock is to be told.
    pub(crate) fn note(&mut self, now: Time, who: &Fingerprint) -> bool {
        if self.noted.get(who).is_some_and(|last| now - *last < self.every) {
            return false;
        }
        if self.noted.len() >= self.most {
            let every = self.every;
            self.noted.retain(|_, last| now - *last < every);
        }
        if self.noted.len() >= self.most {
            let oldest = self.noted.iter().min_by_key(|(_, last)| **last).map(|(who, _)| *who);
            oldest.map(|who| self.noted.remove(&who));
        }
        self.noted.insert(*who, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stranger_is_noted_once_per_hour_and_memory_is_bounded() {
        let mut knocks = Knocks::new(Span::secs(3600), 3);
        let who = |n| Fingerprint::from_bytes([n; 32]);
        assert!(knocks.note(Time(0), &who(1)));
        assert!(!knocks.note(Time(3_599_999_999), &who(1)));
        assert!(knocks.note(Time(3_600_000_000), &who(1)));
        for n in 2..200 {
            assert!(knocks.note(Time(3_600_000_000 + u64::from(n)), &who(n)));
            assert!(knocks.noted.len() <= 3);
        }
    }
}
