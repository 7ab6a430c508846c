use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

/// A point on a monotonic clock, in microseconds since an origin that only the clock's owner knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// A length of time in microseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

/// Wall-clock time: whole seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// Both clocks, read together by a shell and handed to a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time: for timers and measured lengths.
    pub time: Time,
    /// Wall-clock time: for signed statements and expiry dates.
    pub utc: Timestamp,
}

/// Why a text is no length of time or no timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeError {
    /// Not of the form `2026-01-31T12:00:00Z`.
    #[error("'{0}' is not a time of the form 2026-01-31T12:00:00Z")]
    Timestamp(String),
    /// Not of the form `10s`, `5m`, `12h`, `7d` or `250ms`.
    #[error("'{0}' is not a length of time such as 250ms, 10s, 5m, 12h or 7d")]
    Span(String),
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// `n` milliseconds, saturating.
    pub const fn millis(n: u64) -> Span {
        Span(n.saturating_mul(1_000))
    }

    /// `n` seconds, saturating.
    pub const fn secs(n: u64) -> Span {
        Span(n.saturating_mul(1_000_000))
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// The factor's product, saturating.
    #[must_use]
    pub const fn times(self, factor: u64) -> Span {
        Span(self.0.saturating_mul(factor))
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> Self {
        std::time::Duration::from_micros(span.0)
    }
}

impl From<std::time::Duration> for Span {
    fn from(duration: std::time::Duration) -> Self {
        Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Add<Span> for Time {
    type Output = Time;
    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Span> for Time {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Sub for Time {
    type Output = Span;
    /// The length from the earlier time to the later; zero where the order is reversed.
    fn sub(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            us if us % 86_400_000_000 == 0 => write!(f, "{}d", us / 86_400_000_000),
            us if us % 3_600_000_000 == 0 => write!(f, "{}h", us / 3_600_000_000),
            us if us % 60_000_000 == 0 => write!(f, "{}m", us / 60_000_000),
            us if us % 1_000_000 == 0 => write!(f, "{}s", us / 1_000_000),
            us if us < 1_000 => write!(f, "{us}us"),
            us if us < 1_000_000 => write!(f, "{}ms", us / 1_000),
            us => write!(f, "{}.{:01}s", us / 1_000_000, us % 1_000_000 / 100_000),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Span {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError::Span(text.chars().take(40).collect());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let micros: u64 = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(micros).map(Span).ok_or_else(wrong)
    }
}

impl Timestamp {
    /// The last second that RFC 3339 can write with four digits for the year.
    pub const MAX: Timestamp = Timestamp(253_402_300_799);

    /// This time and `seconds` more, saturating.
    #[must_use]
    pub const fn plus_secs(self, seconds: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(seconds))
    }

    /// This time less `seconds`, not before 1970.
    #[must_use]
    pub const fn minus_secs(self, seconds: u64) -> Timestamp {
        Timestamp(self.0.saturating_sub(seconds))
    }

    /// Seconds from `earlier` to here; zero where the order is reversed.
    pub const fn secs_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time in the `Date` of an HTTP answer (RFC 9110 §5.6.7): `Sat, 31 Jan 2026 12:00:00 GMT`.
    #[must_use]
    pub fn from_http_date(text: &str) -> Option<Timestamp> {
        // A date has 29 letters; nothing longer is looked at.
        let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.get(..29)?).ok()?;
        if text.len() == 29 { u64::try_from(time.as_second()).ok().map(Timestamp) } else { None }
    }
}

/// RFC 3339 in UTC, to the second: `2026-01-31T12:00:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = i64::try_from(self.0.min(Timestamp::MAX.0)).unwrap_or(0);
        match jiff::Timestamp::from_second(second) {
            Ok(time) => write!(f, "{}", time.strftime("%Y-%m-%dT%H:%M:%SZ")),
            Err(_) => f.write_str("9999-12-30T22:00:00Z"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Accepts the one canonical form only, so that a text and its meaning are one to one.
impl FromStr for Timestamp {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError::Timestamp(text.chars().take(40).collect());
        if text.len() != 20 {
            return Err(wrong());
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        let stamp = Timestamp(u64::try_from(time.as_second()).map_err(|_| wrong())?);
        if stamp.to_string() == text { Ok(stamp) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_one_form() {
        let stamp: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(stamp, Timestamp(1_769_860_800));
        assert_eq!(stamp.to_string(), "2026-01-31T12:00:00Z");
        for wrong in [
            "2026-01-31T12:00:00+00:00",
            "2026-01-31T12:00:00.0Z",
            "2026-01-31 12:00:00Z",
            "2026-01-31t12:00:00z",
            "2026-02-30T12:00:00Z",
            "2026-01-31T12:00:60Z",
            "1969-12-31T23:59:59Z",
            "",
        ] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn dates_of_http_answers_are_read() {
        let date = "Sat, 31 Jan 2026 12:00:00 GMT";
        assert_eq!(Timestamp::from_http_date(date), Some(Timestamp(1_769_860_800)));
        for wrong in ["", "Sat", "Sat, 31 Feb 2026 12:00:00 GMT", "Thu, 01 Jan 1969 00:00:00 GMT", "é"] {
            assert_eq!(Timestamp::from_http_date(wrong), None, "{wrong}");
        }
        assert_eq!(Timestamp::from_http_date(&format!("{date} ")), None);
        assert_eq!(Timestamp::from_http_date(&"é".repeat(29)), None);
    }

    #[test]
    fn spans_read_and_print() {
        for text in ["250ms", "10s", "5m", "12h", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for wrong in ["", "5", "m", "-5s", "5 s", "1.5s", "99999999999999999999s", "300000000000000d"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_saturate() {
        assert_eq!(Time(5) - Time(9), Span(0));
        assert_eq!(Time(u64::MAX) + Span(1), Time(u64::MAX));
        assert_eq!(Span::millis(u64::MAX), Span(u64::MAX));
        assert_eq!(Span::secs(u64::MAX), Span(u64::MAX));
    }
}
