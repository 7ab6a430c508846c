//! Limits of bandwidth: a token bucket as a machine that is told the time, and its text form.

use std::fmt;
use std::str::FromStr;

use kith_sansio::{Span, Time};

/// The slowest rate that can be asked for, in bytes a second.
pub const MIN_RATE: u64 = 1024;
/// The fastest rate that can be asked for, in bytes a second; faster is no limit.
pub const MAX_RATE: u64 = 1 << 40;
/// A stream takes so much of the time at once, so that many streams take turns and a change is felt soon.
const TURN: Span = Span::millis(50);
/// What was not used for this long is made up for: a sleep that took too long costs nothing.
const CREDIT: Span = Span::millis(100);

/// Bytes a second, [`MIN_RATE`] to [`MAX_RATE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// A rate; `None` outside its bounds.
    pub fn new(bytes_per_second: u64) -> Option<Rate> {
        (MIN_RATE..=MAX_RATE).contains(&bytes_per_second).then_some(Rate(bytes_per_second))
    }

    /// Bytes a second.
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }

    /// Bytes of one turn.
    fn turn(self) -> u64 {
        (u128::from(self.0) * u128::from(TURN.0) / 1_000_000) as u64
    }

    /// How long so many bytes take.
    fn time_of(self, bytes: u64) -> Span {
        let micros = (u128::from(bytes) * 1_000_000).div_ceil(u128::from(self.0));
        Span(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// A text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no rate: a number with B, KiB, MiB or GiB, 1KiB/s to 1024GiB/s, such as 500KiB/s or 2MiB/s"
)]
pub struct RateError(String);

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `2MiB/s`; `/s` may be missing.
impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let wrong = || RateError(text.to_owned());
        let amount = text.strip_suffix("/s").unwrap_or(text);
        let unit = UNITS.iter().find_map(|(unit, bytes)| Some((amount.strip_suffix(unit)?, *bytes)));
        let (number, unit) = unit.ok_or_else(wrong)?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit).and_then(Rate::new).ok_or_else(wrong)
    }
}

/// In the largest unit that leaves no remainder.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes));
        let (unit, bytes) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}/s", self.0 / bytes)
    }
}

/// A token bucket: who asks is told from when on its bytes may move, in the order of asking.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    rate: Option<Rate>,
    /// When the next bytes may move.
    next: Time,
}

impl Bucket {
    /// A bucket of this rate; without one there is no limit.
    pub fn new(rate: Option<Rate>) -> Self {
        Bucket { rate, next: Time(0) }
    }

    /// The rate.
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Changes the rate; what was promised at the old one stands.
    pub fn set_rate(&mut self, now: Time, rate: Option<Rate>) {
        self.rate = rate;
        self.next = self.next.min(now);
    }

    /// Bytes that may be asked for at once.
    pub fn turn(&self) -> u64 {
        self.rate.map_or(u64::MAX, |rate| rate.turn().max(1))
    }

    /// Takes the place of so many bytes, and tells from when on they may move.
    pub fn take(&mut self, now: Time, bytes: u64) -> Time {
        let Some(rate) = self.rate else { return now };
        let earliest = Time(now.0.saturating_sub(CREDIT.0));
        let start = self.next.max(earliest);
        self.next = start + rate.time_of(bytes);
        start.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_read_and_print() {
        for (text, bytes) in
            [("2MiB/s", 2 << 20), ("1KiB/s", 1024), ("1025B/s", 1025), ("1024GiB/s", 1 << 40)]
        {
            assert_eq!(rate(text).bytes_per_second(), bytes);
            assert_eq!(rate(text).to_string().parse::<Rate>().unwrap(), rate(text));
        }
        assert_eq!(rate("2MiB"), rate("2048KiB/s"));
        assert_eq!(rate("2048KiB").to_string(), "2MiB/s");
        for wrong in [
            "",
            "2",
            "MiB/s",
            "-1MiB/s",
            "+1MiB/s",
            "1.5MiB/s",
            "2MB/s",
            "1B/s",
            "1025GiB/s",
            "2MiB/m",
            "2 MiB/s",
        ] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    /// Bytes that `streams` greedy streams move in `span` of virtual time, each oversleeping by `late`.
    fn moved(bucket: &mut Bucket, streams: usize, span: Span, late: Span) -> Vec<u64> {
        let mut due = vec![Time(0); streams];
        let mut moved = vec![0; streams];
        let mut promised = vec![0; streams];
        loop {
            let (who, now) = due.iter().copied().enumerate().min_by_key(|(_, at)| *at).unwrap();
            if now > Time(0) + span {
                return moved;
            }
            moved[who] += std::mem::take(&mut promised[who]);
            let bytes = bucket.turn().min(1 << 20);
            let at = bucket.take(now, bytes);
            promised[who] = bytes;
            due[who] = if at > now { at + late } else { Time(now.0 + 1) };
        }
    }

    #[test]
    fn all_streams_together_keep_to_the_rate_and_share_it() {
        for (text, streams) in [("1KiB/s", 1), ("2MiB/s", 1), ("2MiB/s", 7), ("1GiB/s", 64)] {
            let mut bucket = Bucket::new(Some(rate(text)));
            let each = moved(&mut bucket, streams, Span::secs(20), Span::ZERO);
            let (all, fair) = (each.iter().sum::<u64>(), rate(text).bytes_per_second() * 20);
            assert!(all <= fair + fair / 50 && all >= fair - fair / 20, "{text}: {all} of {fair}");
            let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
            assert!(most - least <= 2 * bucket.turn().min(1 << 20), "{text}: {each:?}");
        }
    }

    #[test]
    fn sleeps_that_take_too_long_are_made_up_for() {
        let mut bucket = Bucket::new(Some(rate("1GiB/s")));
        let each = moved(&mut bucket, 1, Span::secs(5), Span::millis(3));
        let fair = 5 * (1_u64 << 30);
        assert!(each[0] > fair - fair / 20 && each[0] <= fair + fair / 50, "{each:?} of {fair}");
    }

    #[test]
    fn what_was_not_used_for_long_is_no_credit() {
        let mut bucket = Bucket::new(Some(rate("1MiB/s")));
        let now = Time(0) + Span::secs(3_600);
        assert_eq!(bucket.take(now, 1 << 20), now);
        assert_eq!(bucket.take(now, 1), now + Span::millis(900));
    }

    #[test]
    fn a_new_rate_holds_at_once_and_no_rate_is_no_limit() {
        let mut bucket = Bucket::new(Some(rate("1KiB/s")));
        let now = Time(0) + Span::secs(10);
        bucket.take(now, 1 << 20);
        bucket.set_rate(now, Some(rate("1MiB/s")));
        assert_eq!(bucket.take(now, 1 << 20), now);
        bucket.set_rate(now, None);
        assert_eq!((bucket.take(now, u64::MAX), bucket.take(now, u64::MAX)), (now, now));
        assert_eq!(bucket.turn(), u64::MAX);
    }
}
