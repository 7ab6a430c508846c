//! The one real clock and the one real source of randomness, for shells only.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place that may read the clock and draw chance"
)]

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{Now, Rng, Time, Timestamp};

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Monotonic time since this process first asked.
pub fn time() -> Time {
    Time(u64::try_from(origin().elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Wall-clock time; 1970 where the clock stands before that.
pub fn utc() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Both clocks.
pub fn now() -> Now {
    Now { time: time(), utc: utc() }
}

/// The `Instant` of a [`Time`] of this clock, for runtimes that sleep until one.
pub fn instant(at: Time) -> Instant {
    origin()
        .checked_add(Duration::from_micros(at.0))
        .unwrap_or_else(|| origin() + Duration::from_secs(1 << 32))
}

/// The operating system's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRng;

impl Rng for OsRng {
    fn fill(&mut self, bytes: &mut [u8]) {
        // A system without randomness cannot make keys; nothing after this point would be safe.
        #[expect(clippy::expect_used, reason = "no safe way on exists without randomness")]
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards_and_maps_to_instants() {
        let first = time();
        let second = time();
        assert!(second >= first);
        assert_eq!(instant(Time(2_000_000)) - instant(Time(500_000)), Duration::from_millis(1500));
    }

    #[test]
    fn random_bytes_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        OsRng.fill(&mut a);
        OsRng.fill(&mut b);
        assert_ne!(a, b);
    }
}
