use std::collections::HashMap;

use kith_identity::Fingerprint;
use kith_sansio::{Time, Timestamp};

use crate::relay::limits::{CLOCK_SKEW_SECS, MAX_KNOCKS_OPEN, MAX_NONCES, REFUSED_AFTER, TOKEN_LIFE};
use crate::relay::request::{Nonce, VerifiedRequest};

/// The knocks of one stream that are not settled.
#[derive(Debug, Default)]
pub(super) struct Knocks(HashMap<u32, Knock>);

#[derive(Debug)]
struct Knock {
    request: VerifiedRequest,
    came: Time,
    is_admitted: bool,
}

impl Knock {
    /// The relay has told the initiator off by now, or its tokens have expired.
    fn is_over(&self, now: Time) -> bool {
        now - self.came >= (if self.is_admitted { TOKEN_LIFE } else { REFUSED_AFTER })
    }
}

impl Knocks {
    /// Takes a knock in; `false` where there are too many, or its number is in use.
    pub(super) fn take(&mut self, now: Time, id: u32, request: VerifiedRequest) -> bool {
        self.0.retain(|_, knock| !knock.is_over(now));
        if self.0.len() >= MAX_KNOCKS_OPEN || self.0.contains_key(&id) {
            return false;
        }
        self.0.insert(id, Knock { request, came: now, is_admitted: false });
        true
    }

    /// The request of a knock that is not judged yet.
    pub(super) fn judging(&self, id: u32) -> Option<&VerifiedRequest> {
        self.0.get(&id).filter(|knock| !knock.is_admitted).map(|knock| &knock.request)
    }

    /// Keeps a knock that is admitted, and forgets one that is not.
    pub(super) fn judged(&mut self, id: u32, is_admitted: bool) {
        if !is_admitted {
            self.0.remove(&id);
        } else if let Some(knock) = self.0.get_mut(&id) {
            knock.is_admitted = true;
        }
    }

    /// The request of a knock that was admitted, once.
    pub(super) fn meet(&mut self, now: Time, id: u32) -> Option<VerifiedRequest> {
        let is_due = self.0.get(&id).is_some_and(|knock| knock.is_admitted && !knock.is_over(now));
        if is_due { self.0.remove(&id).map(|knock| knock.request) } else { None }
    }
}

/// The nonces that let somebody in, until nothing can be valid any more that has them.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    seen: HashMap<(Fingerprint, Nonce), Timestamp>,
    /// How many there may be before those are sought that have expired.
    sweep_at: usize,
}

impl Nonces {
    /// Remembers the nonce of a request; `false` where it was seen before, or there is no room for it.
    pub(super) fn remember(&mut self, request: &VerifiedRequest, now: Timestamp) -> bool {
        if self.seen.len() >= self.sweep_at {
            self.seen.retain(|_, until| *until > now);
            self.sweep_at = (self.seen.len() * 2).clamp(64, MAX_NONCES);
        }
        let key = (request.initiator(), request.request().nonce);
        if self.seen.len() >= MAX_NONCES || self.seen.get(&key).is_some_and(|until| *until > now) {
            return false;
        }
        self.seen.insert(key, request.request().expires.plus_secs(CLOCK_SKEW_SECS));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::limits::REQUEST_SECS;
    use crate::relay::{Carriage, Request};
    use kith_identity::Identity;
    use kith_sansio::{SeededRng, Span};

    const NOW: Timestamp = Timestamp(1_800_000_000);
    const RELAY: Fingerprint = Fingerprint::from_bytes([1; 32]);

    fn request(rng: &mut SeededRng, identity: &Identity, at: Timestamp) -> VerifiedRequest {
        let target = Fingerprint::from_bytes([2; 32]);
        Request::sign(identity, RELAY, target, (Carriage::Stream, vec![]), at, rng)
            .verify(&RELAY, at)
            .unwrap()
    }

    #[test]
    fn a_nonce_counts_once_until_its_request_has_expired_everywhere() {
        let rng = &mut SeededRng::new(1);
        let identity = Identity::generate(rng);
        let (mut nonces, one) = (Nonces::default(), request(rng, &identity, NOW));
        assert!(nonces.remember(&one, NOW));
        let last = NOW.plus_secs(REQUEST_SECS + CLOCK_SKEW_SECS - 1);
        for at in [NOW, NOW.plus_secs(40), last] {
            assert!(!nonces.remember(&one, at));
        }
        // By then it does not verify any more.
        assert!(one.into_request().verify(&RELAY, last.plus_secs(1)).is_err());
        let other = request(rng, &identity, last);
        assert!(nonces.remember(&other, last));
    }

    #[test]
    fn what_has_expired_leaves_the_memory() {
        let rng = &mut SeededRng::new(2);
        let identity = Identity::generate(rng);
        let mut nonces = Nonces::default();
        for at in 0..1_000 {
            let now = NOW.plus_secs(at * 10);
            assert!(nonces.remember(&request(rng, &identity, now), now));
            assert!(nonces.seen.len() <= 64, "{}", nonces.seen.len());
        }
    }

    #[test]
    fn a_knock_is_met_once_in_time_and_only_when_admitted() {
        let rng = &mut SeededRng::new(3);
        let identity = Identity::generate(rng);
        let one = request(rng, &identity, NOW);
        let mut knocks = Knocks::default();
        let late = |span: Span| Time(5) + span;
        assert!(knocks.take(Time(5), 1, one.clone()));
        assert!(!knocks.take(Time(5), 1, one.clone()));
        assert_eq!(knocks.meet(Time(5), 1), None);
        knocks.judged(1, true);
        assert_eq!(knocks.judging(1), None);
        assert_eq!(knocks.meet(Time(6), 1), Some(one.clone()));
        assert_eq!(knocks.meet(Time(6), 1), None);
        assert!(knocks.take(Time(5), 2, one.clone()));
        knocks.judged(2, true);
        assert_eq!(knocks.meet(late(TOKEN_LIFE), 2), None);
        assert!(knocks.take(Time(5), 3, one.clone()));
        knocks.judged(3, false);
        assert_eq!(knocks.meet(Time(5), 3), None);
        for id in 10..9_999 {
            knocks.take(Time(5), id, one.clone());
        }
        assert_eq!(knocks.0.len(), MAX_KNOCKS_OPEN);
        assert!(knocks.take(late(TOKEN_LIFE), 1, one));
        assert_eq!(knocks.0.len(), 1);
    }
}
