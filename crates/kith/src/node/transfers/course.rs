//! How long an outgoing transfer is tried, and when it is tried again: plain decisions about the time.

use std::time::Duration;

use kith_sansio::{Now, Span, Time, Timestamp};

/// How long a transfer waits for a contact that was there to come back, or to be less busy.
pub(super) const COMING_BACK: Span = Span::secs(600);
/// The pause before a second attempt; it grows with each further one.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause in the first minute, when somebody is likely to be watching.
const LONGEST_AT_FIRST: Duration = Duration::from_secs(2);
/// The longest pause later on.
const LONGEST: Duration = Duration::from_secs(60);
/// How soon a transfer changes its way again, at first.
const CHANGE_WAYS: Span = Span::secs(30);
/// How long the first minute is.
const AT_FIRST: Span = Span::secs(60);

/// For how long an order is tried that another run of the node had begun with: until its end on the wall clock, never
/// longer than it was given, and for some time at least.
pub(super) fn patience_left(until: Timestamp, given: Span, utc: Timestamp) -> Span {
    Span::secs(until.secs_since(utc)).min(given).max(COMING_BACK)
}

/// Since when something is so: a time that the wall clock told at the start of the node, or one since then. Its age
/// is counted on the clock that cannot be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    at: Time,
    /// How old it was then.
    before: Span,
}

impl Since {
    /// So since these seconds since 1970; one that lies ahead begins now.
    pub(super) fn wall(seconds: u64, now: Now) -> Since {
        Since { at: now.time, before: Span::secs(now.utc.secs_since(Timestamp(seconds))) }
    }

    /// So from now on.
    pub(super) fn now(now: Now) -> Since {
        Since { at: now.time, before: Span::ZERO }
    }

    /// How long it has been so.
    pub(super) fn age(self, now: Time) -> Span {
        Span(self.before.0.saturating_add((now - self.at).0))
    }
}

/// The patience of one order.
#[derive(Debug)]
pub(super) struct Course {
    /// When the contact is given up.
    pub(super) give_up: Time,
    /// When the contact was not reached the last time.
    pub(super) unreached_at: Time,
    /// Since when it has been tried in vain: when it was reached the last time.
    since: Time,
    pause: Duration,
    /// Connections in a row that were lost soon, before anything moved.
    lost_in_vain: u32,
    /// Until when a busy contact is asked.
    busy_until: Option<Time>,
    /// How often in a row it was busy.
    busy: u32,
    /// Before that no other way is taken, and how long it is until the next time.
    ways: (Time, Span),
}

impl Course {
    pub(super) fn new(now: Time, patience: Span) -> Course {
        Course {
            give_up: now + patience,
            unreached_at: Time(0),
            since: now,
            pause: PAUSE,
            lost_in_vain: 0,
            busy_until: None,
            busy: 0,
            ways: (Time(0), CHANGE_WAYS),
        }
    }

    /// Whether a transfer may leave a way that carries it for one that seems better: ever more rarely, since that may
    /// have been seen before and have led nowhere.
    pub(super) fn may_change_ways(&mut self, now: Time) -> bool {
        let (at, pause) = self.ways;
        let may = now >= at;
        if may {
            self.ways = (now + pause, pause.times(2));
        }
        may
    }

    /// The contact was reached.
    pub(super) fn reached(&mut self, now: Time) {
        (self.since, self.pause) = (now, PAUSE);
    }

    /// The contact was not reached: how long to wait before the next attempt, or `None` where the time is over.
    pub(super) fn unreached(&mut self, now: Time) -> Option<Duration> {
        self.unreached_at = now;
        (now < self.give_up).then(|| self.next_pause(now))
    }

    /// The connection was lost; `moved` says whether bytes had moved over it. A peer that takes connections and drops
    /// them is not asked in a circle, nor for ever; one that held an offer for a while is no such peer.
    pub(super) fn lost(&mut self, now: Time, moved: bool) -> Option<Duration> {
        let held = now - self.since >= AT_FIRST;
        self.lost_in_vain = if moved || held { 0 } else { self.lost_in_vain + 1 };
        if self.lost_in_vain <= 1 {
            self.give_up = self.give_up.max(now + COMING_BACK);
        } else if now >= self.give_up {
            return None;
        }
        Some(PAUSE * 2u32.pow(self.lost_in_vain.min(9)))
    }

    /// The contact has no room for the offer now; it is asked as long as an offer would wait for an answer. Each time
    /// it was reached, so that its pause grows by itself.
    pub(super) fn busy(&mut self, now: Time, accept_within: Span) -> Option<Duration> {
        let until = *self.busy_until.get_or_insert(now + accept_within);
        self.busy = self.busy.saturating_add(1);
        let pause = (PAUSE * 5 * 2u32.pow(self.busy.min(8) - 1)).min(LONGEST);
        (now < until.max(self.give_up)).then_some(pause)
    }

    /// Until when a place for the offer is waited for: as long as for the contact, be it away or busy.
    pub(super) fn place_until(&self) -> Time {
        self.busy_until.map_or(self.give_up, |until| until.max(self.give_up))
    }

    /// The contact has taken the offer.
    pub(super) fn accepted(&mut self) {
        (self.busy_until, self.busy) = (None, 0);
    }

    /// A pause by a person costs no patience.
    pub(super) fn resumed(&mut self, now: Time) {
        self.give_up = self.give_up.max(now + COMING_BACK);
        self.lost_in_vain = 0;
        self.accepted();
        self.reached(now);
    }

    fn next_pause(&mut self, now: Time) -> Duration {
        let longest = if now - self.since < AT_FIRST { LONGEST_AT_FIRST } else { LONGEST };
        let pause = self.pause.min(longest);
        self.pause = (pause * 2).min(longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts in vain until it gives up: how many, and when.
    fn attempts(course: &mut Course, mut now: Time) -> (u32, Time) {
        let mut count = 1;
        while let Some(pause) = course.unreached(now) {
            now += pause.into();
            count += 1;
        }
        (count, now)
    }

    #[test]
    fn an_order_is_tried_until_its_time_is_over_and_not_too_often() {
        let (count, end) = attempts(&mut Course::new(Time(0), Span::secs(60)), Time(0));
        assert!(end >= Time(0) + Span::secs(60) && end <= Time(0) + Span::secs(62), "{end:?}");
        assert!(count < 45, "{count}");
        let two_days = Span::secs(2 * 86_400);
        let (count, end) = attempts(&mut Course::new(Time(0), two_days), Time(0));
        assert!(end >= Time(0) + two_days && end <= Time(0) + two_days + Span::secs(60), "{end:?}");
        assert!((2_800..3_000).contains(&count), "{count}");
    }

    #[test]
    fn a_lost_contact_is_waited_for_but_one_that_drops_all_connections_not_for_ever() {
        let mut course = Course::new(Time(0), Span::ZERO);
        let later = Time(0) + Span::secs(3_600);
        course.reached(later);
        assert!(course.lost(later, true).is_some());
        assert_eq!(course.give_up, later + COMING_BACK);
        let (mut now, mut losses) = (later, 0);
        while let Some(pause) = course.lost(now, false) {
            now += pause.into();
            losses += 1;
            course.reached(now);
        }
        assert!(now <= later + COMING_BACK + COMING_BACK && losses < 50, "{now:?} after {losses}");
    }

    #[test]
    fn a_contact_that_held_the_offer_for_hours_is_waited_for_each_time() {
        let mut course = Course::new(Time(0), Span::ZERO);
        for hour in [0, 4, 8] {
            course.reached(Time(0) + Span::secs(hour * 3_600));
            let lost = Time(0) + Span::secs((hour + 3) * 3_600);
            assert!(course.lost(lost, false).is_some(), "{hour}");
            assert_eq!(course.give_up, lost + COMING_BACK);
        }
    }

    #[test]
    fn a_busy_contact_is_asked_as_long_as_an_offer_waits() {
        let mut course = Course::new(Time(0), Span::secs(1));
        let mut now = Time(0) + Span::secs(10);
        let mut asked = 0;
        // Whoever says that it is busy was reached.
        course.reached(now);
        while let Some(pause) = course.busy(now, Span::secs(600)) {
            now += pause.into();
            asked += 1;
            course.reached(now);
        }
        let end = Time(0) + Span::secs(610);
        assert_eq!(course.place_until(), end);
        assert!(now >= end && now <= end + Span::secs(60) && asked < 20, "{now:?} after {asked}");
        course.accepted();
        assert_eq!(course.busy(now, Span::secs(600)), Some(Duration::from_millis(500)));
    }

    #[test]
    fn a_clock_that_jumps_gives_no_order_more_than_its_time_and_no_rest_another_age() {
        let (given, until) = (Span::secs(3_600), Timestamp(1_000_000_000));
        assert_eq!(patience_left(until, given, Timestamp(until.0 - 1_800)), Span::secs(1_800));
        // Set back by years, and set forward by years.
        assert_eq!(patience_left(until, given, Timestamp(0)), given);
        assert_eq!(patience_left(until, given, Timestamp(2 * until.0)), COMING_BACK);
        let at = |utc: u64, secs: u64| Now { utc: Timestamp(utc), time: Time(0) + Span::secs(secs) };
        let since = Since::wall(1_000, at(1_600, 50));
        assert_eq!(since.age(at(1_600, 50).time), Span::secs(600));
        assert_eq!(since.age(at(0, 60).time), Span::secs(610));
        assert_eq!(Since::wall(1_000, at(5, 50)).age(at(5, 51).time), Span::secs(1));
        assert_eq!(Since::now(at(5, 50)).age(at(9_000_000, 51).time), Span::secs(1));
    }

    #[test]
    fn ways_that_seem_better_are_taken_ever_more_rarely() {
        let mut course = Course::new(Time(0), Span::secs(60));
        let times = (0..600).filter(|second| course.may_change_ways(Time(0) + Span::secs(*second)));
        assert_eq!(times.collect::<Vec<_>>(), [0, 30, 90, 210, 450]);
    }

    #[test]
    fn a_pause_costs_no_patience() {
        let mut course = Course::new(Time(0), Span::secs(60));
        let later = Time(0) + Span::secs(86_400);
        course.resumed(later);
        assert!(course.unreached(later).is_some());
    }
}
