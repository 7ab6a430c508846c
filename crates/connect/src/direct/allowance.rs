use kith_sansio::{Span, Time};

/// How often a peer may have something done.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    since: Time,
    at_once: u32,
    every: Span,
}

impl Allowance {
    /// So often at once, and once more after each `every`.
    pub(super) fn new(now: Time, at_once: u32, every: Span) -> Allowance {
        Allowance { left: at_once, since: now, at_once, every }
    }

    /// Whether it may be done once more.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let gained = (now - self.since).0 / self.every.0;
        self.since += self.every.times(gained);
        self.left = self.left.saturating_add(u32::try_from(gained).unwrap_or(u32::MAX)).min(self.at_once);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}
