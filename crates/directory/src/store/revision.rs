use kith_sansio::Timestamp;

/// Seconds whose changes are told together.
pub const BATCH_SECS: u64 = 10;
/// Seconds after the end of a batch before it is told: for commits under way, and for directory processes on one
/// store whose clocks differ a little. What takes longer comes under a number of its own.
const SETTLE_SECS: u64 = 1;

/// When a zone changed, in batches of [`BATCH_SECS`]: what a store keeps with its sets, and what the serial number
/// of the zone is made of.
///
/// A batch is numbered by its time, so numbers grow from one store to the next too, and all processes on one store
/// name the same one. It is told once it is over and settled, and sealed in the store before: a change that becomes
/// visible after that, however long it was under way, takes a higher number. So the zone under a number that was told
/// never changes any more, and whoever has it, and sees no higher one later, has missed nothing.
///
/// A store that is spread over several machines may keep one revision on each, changed in the same step as the sets
/// there, and [`join`](Revision::join) them when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revision {
    /// The batch of the newest change; 0 before the first.
    pub newest: u64,
    /// The batch with a change before that one.
    pub before: u64,
    /// No change to come takes this number, or a lower one.
    pub sealed: u64,
}

impl Revision {
    /// The revision after a change at `now`, which must become visible in the same step as the change.
    #[must_use]
    pub fn after_change(self, now: Timestamp) -> Revision {
        // Neither a clock that went back nor a change that comes late makes a number smaller, or one larger that is
        // not told yet.
        let batch = (now.0 / BATCH_SECS).max(self.newest).max(self.sealed.saturating_add(1));
        match batch == self.newest {
            true => self,
            // Of one part no change to come takes a number below its newest; of several joined one may.
            false => Revision { newest: batch, before: self.newest, sealed: self.sealed.max(batch - 1) },
        }
    }

    /// The revision that gives no change to come `number`, or a lower one.
    #[must_use]
    pub fn after_seal(self, number: u64) -> Revision {
        Revision { sealed: self.sealed.max(number), ..self }
    }

    /// The number of the newest batch that may be told at `now`; at least 1. Where it is
    /// [`open`](Revision::is_open), the store must seal it first.
    #[must_use]
    pub fn told(self, now: Timestamp) -> u64 {
        let settled = now.minus_secs(SETTLE_SECS).0 / BATCH_SECS;
        let from_the_future = self.newest > now.0 / BATCH_SECS + 1;
        let told = if self.newest < settled || from_the_future { self.newest } else { self.before };
        told.max(1)
    }

    /// Whether a change to come may take this number.
    #[must_use]
    pub fn is_open(self, number: u64) -> bool {
        self.sealed < number && number <= self.newest
    }

    /// The revision of two parts of a store together.
    #[must_use]
    pub fn join(self, other: Revision) -> Revision {
        let newest = self.newest.max(other.newest);
        let all = [self.newest, self.before, other.newest, other.before];
        let before = all.into_iter().filter(|batch| *batch < newest).max().unwrap_or(0);
        Revision { newest, before, sealed: self.sealed.min(other.sealed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: Timestamp = Timestamp(1_000_000);

    fn at(secs: u64) -> Timestamp {
        NOON.plus_secs(secs)
    }

    /// What a directory does before it tells a number.
    fn tell(revision: &mut Revision, now: Timestamp) -> u64 {
        let told = revision.told(now);
        if revision.is_open(told) {
            *revision = revision.after_seal(told);
        }
        told
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
    fn a_change_that_becomes_visible_after_its_batch_was_told_is_told_as_well() {
        let mut revision = Revision::default().after_change(at(3));
        assert_eq!(tell(&mut revision, at(11)), 100_000);
        // Announced at the ninth second, and there at the fifteenth.
        revision = revision.after_change(at(9));
        assert!(tell(&mut revision, at(21)) > 100_000);
        // Hours later, from a server that stood still.
        let told = tell(&mut revision, at(7200));
        revision = revision.after_change(at(9));
        assert!(tell(&mut revision, at(7200)) > told);
    }

    #[test]
    fn a_number_that_a_later_one_follows_need_not_be_sealed() {
        let revision = Revision::default().after_change(at(3)).after_change(at(12));
        assert_eq!(revision.told(at(12)), 100_000);
        assert!(!revision.is_open(100_000), "what comes late takes the next");
        assert_eq!(revision.after_change(at(4)), revision);
        assert!(!Revision::default().is_open(1), "nothing has happened yet");
    }

    #[test]
    fn a_number_that_a_late_change_in_another_part_may_take_is_sealed_although_a_later_one_follows() {
        let parts = [Revision::default().after_change(at(3)).after_change(at(12)), Revision::default()];
        let joined = parts[0].join(parts[1]);
        assert_eq!(joined.told(at(12)), 100_000);
        assert_eq!(parts[1].after_change(at(4)).newest, 100_000, "it would be under a number that was told");
        assert!(joined.is_open(100_000));
        let parts = parts.map(|part| part.after_seal(100_000));
        assert!(!parts[0].join(parts[1]).is_open(100_000));
        assert_eq!(parts[1].after_change(at(4)).newest, 100_001);
    }

    #[test]
    fn a_clock_that_went_back_makes_no_number_smaller_and_hides_no_change() {
        let mut revision = Revision::default().after_change(at(7200));
        let ahead = tell(&mut revision, at(7211));
        assert_eq!(tell(&mut revision, at(30)), ahead);
        revision = revision.after_change(at(30));
        let back = tell(&mut revision, at(30));
        assert!(back > ahead);
        revision = revision.after_change(at(31));
        assert!(tell(&mut revision, at(31)) > back);
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
        assert_eq!(Revision::default().join(whole(&[5])), Revision { sealed: 0, ..whole(&[5]) });
        let sealed = whole(&[5]).after_seal(100_000);
        assert!(sealed.join(whole(&[5])).is_open(100_000), "one part is not sealed");
        assert!(!sealed.join(Revision::default().after_seal(100_000)).is_open(100_000));
    }

    /// What may happen to a store of two parts.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        /// A change in one part becomes visible, made so many seconds before.
        Change { second_part: bool, late: u64 },
        /// A directory looks, by a clock that is so many seconds ahead.
        Look { ahead: u64 },
        /// The time goes on.
        Wait(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (any::<bool>(), 0..40_u64).prop_map(|(second_part, late)| Event::Change { second_part, late }),
            (0..30_u64).prop_map(|ahead| Event::Look { ahead }),
            (0..8_u64).prop_map(Event::Wait),
        ];
        proptest::collection::vec(event, 0..60)
    }

    proptest! {
        #[test]
        fn who_read_the_zone_under_a_number_hears_a_higher_one_of_every_change_that_it_missed(
            events in events()
        ) {
            let (mut parts, mut now) = ([Revision::default(); 2], NOON);
            let (mut changes, mut serial, mut read, mut highest) = (0_u32, 1, 0, 0);
            let mut look = |parts: &mut [Revision; 2], now, changes| {
                let joined = parts[0].join(parts[1]);
                let told = joined.told(now);
                if joined.is_open(told) {
                    *parts = parts.map(|part| part.after_seal(told));
                }
                if told > serial {
                    // The secondary transfers at once.
                    (serial, read) = (told, changes);
                }
                read
            };
            for event in events {
                match event {
                    Event::Change { second_part, late } => {
                        let part = &mut parts[usize::from(second_part)];
                        *part = part.after_change(now.minus_secs(late));
                        prop_assert!(part.newest > highest, "the zone under a number that was told changed");
                        changes += 1;
                    }
                    Event::Look { ahead } => {
                        let now = now.plus_secs(ahead);
                        look(&mut parts, now, changes);
                        let told = parts[0].join(parts[1]).told(now);
                        highest = if told > 1 { highest.max(told) } else { highest };
                    }
                    Event::Wait(secs) => now = now.plus_secs(secs),
                }
            }
            // Clocks that were ahead may have used up numbers to come. Far ahead they are told at once; the next two
            // of the clock wait until they are over.
            look(&mut parts, now.plus_secs(60), changes);
            prop_assert_eq!(look(&mut parts, now.plus_secs(90), changes), changes);
        }

        #[test]
        fn a_change_in_time_is_told_within_eleven_seconds(secs in 0..1000_u64, before in 0..1000_u64) {
            let mut revision = Revision::default().after_change(at(before.min(secs)));
            for now in before.min(secs)..secs {
                tell(&mut revision, at(now));
            }
            let old = tell(&mut revision, at(secs));
            revision = revision.after_change(at(secs));
            prop_assert!(tell(&mut revision, at(secs + 11)) > old);
        }
    }
}
