use kith_sansio::Timestamp;

/// Seconds whose changes are told together.
pub const BATCH_SECS: u64 = 10;
/// Seconds after the end of a batch before it is told: for commits under way, and for directory processes on one
/// store whose clocks differ a little.
const SETTLE_SECS: u64 = 1;

/// When a zone changed, in batches of [`BATCH_SECS`]: what a store keeps with its sets, and what the serial number
/// of the zone is made of.
///
/// A batch is numbered by its time, so numbers grow from one store to the next too, and all processes on one store
/// name the same one. It is told once it is over and settled; whoever has read the zone under a number, and sees
/// no higher one later, has missed nothing.
///
/// A store that is spread over several machines may keep one revision on each, changed in the same step as the sets
/// there, and [`join`](Revision::join) them when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revision {
    /// The batch of the newest change; 0 before the first.
    pub newest: u64,
    /// The batch with a change before that one.
    pub before: u64,
}

impl Revision {
    /// The revision after a change at `now`, which must become visible in the same step as the change.
    #[must_use]
    pub fn after_change(self, now: Timestamp) -> Revision {
        let batch = now.0 / BATCH_SECS;
        match self.newest {
            newest if batch > newest => Revision { newest: batch, before: newest },
            // This batch, or the next one: another process is a little ahead.
            newest if batch + 1 >= newest => self,
            // The clock went back. The numbers do not.
            newest => Revision { newest: newest + 1, before: newest },
        }
    }

    /// The number of the newest batch that may be told at `now`; at least 1.
    #[must_use]
    pub fn told(self, now: Timestamp) -> u64 {
        let settled = now.minus_secs(SETTLE_SECS).0 / BATCH_SECS;
        let from_the_future = self.newest > now.0 / BATCH_SECS + 1;
        let told = if self.newest < settled || from_the_future { self.newest } else { self.before };
        told.max(1)
    }

    /// The revision of two parts of a store together.
    #[must_use]
    pub fn join(self, other: Revision) -> Revision {
        let newest = self.newest.max(other.newest);
        let all = [self.newest, self.before, other.newest, other.before];
        let before = all.into_iter().filter(|batch| *batch < newest).max().unwrap_or(0);
        Revision { newest, before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(1_000_000);

    fn at(secs: u64) -> Timestamp {
        NOON.plus_secs(secs)
    }

    #[test]
    fn the_changes_of_ten_seconds_are_told_together_once_they_are_over() {
        let first = Revision::default().after_change(at(3));
        let second = first.after_change(at(9));
        assert_eq!(first, second, "one batch");
        assert_eq!(second.told(at(10)), 1, "a commit may be under way");
        assert_eq!(second.told(at(11)), 100_000);
        let third = second.after_change(at(12));
        assert_eq!(third.told(at(20)), 100_000);
        assert_eq!(third.told(at(21)), 100_001);
        assert_eq!(third.told(at(10_000)), 100_001, "nothing new");
    }

    #[test]
    fn a_clock_that_went_back_makes_no_number_smaller_and_hides_no_change() {
        let ahead = Revision::default().after_change(at(7200));
        let told = ahead.told(at(7211));
        let back = ahead.after_change(at(30));
        assert_eq!(ahead.told(at(30)), told);
        assert!(back.told(at(30)) > told);
        assert!(back.after_change(at(31)).told(at(31)) > back.told(at(31)));
    }

    #[test]
    fn a_process_that_is_a_second_behind_adds_to_a_batch_that_was_not_told() {
        let revision = Revision::default().after_change(at(9));
        assert_eq!(revision.told(at(10)), 1, "by the clock that is ahead");
        assert_eq!(revision.after_change(at(9)), revision, "by the clock that is behind");
        let ahead = Revision::default().after_change(at(10));
        assert_eq!(ahead.after_change(at(9)), ahead);
    }

    #[test]
    fn parts_of_a_store_tell_together_what_one_store_would() {
        let whole = |times: &[u64]| {
            times.iter().fold(Revision::default(), |revision, secs| revision.after_change(at(*secs)))
        };
        let joined = whole(&[5, 31]).join(whole(&[12, 22]));
        for now in 0..60 {
            let told = whole(&[5, 12, 22, 31].into_iter().filter(|secs| *secs <= now).collect::<Vec<_>>());
            if now >= 31 {
                assert_eq!(joined.told(at(now)), told.told(at(now)), "{now}");
            }
        }
        assert_eq!(Revision::default().join(whole(&[5])), whole(&[5]));
    }
}
