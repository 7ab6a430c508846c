//! Token buckets, one per key, in bounded memory; time is an argument.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kith_sansio::{Span, Time};

use crate::generations::Generations;

/// How much one key may do: `burst` at once, and one more every `refill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens of a full bucket.
    pub burst: u32,
    /// Time in which one token comes back; zero sets no limit at all.
    pub refill: Span,
}

impl Rate {
    /// No limit at all.
    pub const UNLIMITED: Rate = Rate { burst: 1, refill: Span::ZERO };

    /// `count` in each `period`, of which the tokens of `burst` may be taken at once; none is no limit.
    #[must_use]
    pub fn per(period: Span, count: u32, burst: u32) -> Rate {
        match count {
            0 => Rate::UNLIMITED,
            // Faster than the clock counts is no limit either, but must not read as one.
            count => Rate { burst, refill: Span((period.0 / u64::from(count)).max(1)) },
        }
    }
}

/// A source network: the first 24 bits of an IPv4 address, 48 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// The network of `address`; an IPv4 address in IPv6 clothes counts as IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Network {
        Network(match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
            }
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
            }
        })
    }
}

/// One bucket per key. Where the memory is full, the key that nobody used for longest is forgotten, and starts again
/// with a full bucket.
#[derive(Debug)]
pub struct Limiter<K> {
    rate: Rate,
    buckets: Generations<K, Bucket>,
}

/// A bucket as the time when it will be full again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Time,
}

impl<K: Eq + Hash + Copy> Limiter<K> {
    /// A limiter that remembers at most `limit` keys.
    #[must_use]
    pub fn new(rate: Rate, limit: usize) -> Self {
        Limiter { rate, buckets: Generations::new(limit) }
    }

    /// Takes one token of `key`; when there is none, says how long until there is.
    pub fn take(&mut self, now: Time, key: K) -> Result<(), Span> {
        if self.rate.refill == Span::ZERO {
            return Ok(());
        }
        let depth = self.rate.refill.times(u64::from(self.rate.burst.max(1)));
        let bucket = self.buckets.peek(&key);
        // A time beyond a whole bucket can only mean that the clock was another one.
        let full_at = bucket.map_or(now, |bucket| bucket.full_at.clamp(now, now + depth));
        let then = full_at + self.rate.refill;
        if then > now + depth {
            return Err(then - (now + depth));
        }
        self.buckets.put(key, Bucket { full_at: then });
        Ok(())
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { burst: 3, refill: Span::secs(10) };

    #[test]
    fn a_burst_passes_then_one_per_refill() {
        let mut limiter = Limiter::new(RATE, 100);
        let at = |secs: u64| Time(secs * 1_000_000);
        for _ in 0..3 {
            assert_eq!(limiter.take(at(0), 'a'), Ok(()));
        }
        assert_eq!(limiter.take(at(0), 'a'), Err(Span::secs(10)));
        assert_eq!(limiter.take(at(0), 'b'), Ok(()), "another key has its own bucket");
        assert_eq!(limiter.take(at(9), 'a'), Err(Span::secs(1)));
        assert_eq!(limiter.take(at(10), 'a'), Ok(()));
        assert_eq!(limiter.take(at(10), 'a'), Err(Span::secs(10)));
        assert_eq!(limiter.take(at(1000), 'a'), Ok(()));
    }

    #[test]
    fn a_rate_of_none_is_no_limit() {
        assert_eq!(Rate::per(Span::secs(1), 200, 500), Rate { burst: 500, refill: Span::millis(5) });
        let mut limiter = Limiter::new(Rate::per(Span::secs(1), 0, 1), 10);
        assert!((0..1000).all(|_| limiter.take(Time(0), 'a').is_ok()));
    }

    #[test]
    fn neighbours_share_a_bucket() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.250"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("::ffff:192.0.2.9"), of("192.0.2.1"));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:ffff::"));
        assert_ne!(of("2001:db8:1::"), of("2001:db8:2::"));
    }

    proptest! {
        #[test]
        fn memory_stays_bounded_and_nobody_gets_more_than_the_rate(
            steps in proptest::collection::vec((0u64..5_000_000, 0u16..50), 1..400)
        ) {
            let mut limiter = Limiter::new(RATE, 200);
            let mut now = Time(0);
            let mut taken: HashMap<u16, u64> = HashMap::new();
            for (wait, key) in steps {
                now += Span(wait);
                if limiter.take(now, key).is_ok() {
                    *taken.entry(key).or_default() += 1;
                }
                prop_assert!(limiter.len() <= 200);
            }
            for count in taken.values() {
                prop_assert!(*count <= 3 + now.0 / RATE.refill.0);
            }
        }

        #[test]
        fn a_flood_of_keys_takes_no_more_memory(keys in proptest::collection::vec(any::<u32>(), 1..2000)) {
            let mut limiter = Limiter::new(RATE, 64);
            for key in keys {
                let _ = limiter.take(Time(0), key);
                prop_assert!(limiter.len() <= 64);
            }
        }
    }
}
