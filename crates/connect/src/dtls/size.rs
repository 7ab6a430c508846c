use kith_sansio::{Span, Time};

use super::MTU_BYTES;

/// UDP payloads that are tried, in bytes: what is left of Ethernet with IPv4 and with IPv6, and of the tunnels that are
/// commonly in between.
const TRIED: [u16; 8] = [1280, 1332, 1372, 1392, 1412, 1432, 1452, 1472];
/// How often each is tried before it counts as too large.
const ROUNDS: u8 = 3;
/// How long the answers of a round may take.
const ROUND: Span = Span::secs(1);
/// How often it is made sure that what was found still goes through.
const CONFIRM_EVERY: Span = Span::secs(30);
/// How often more is looked for.
const SEARCH_EVERY: Span = Span::secs(600);

/// Finds out how large packets a path carries, by packets of that size that the peer confirms (RFC 8899). All sizes are
/// tried at once, which costs ten kilobytes and one round trip.
#[derive(Debug)]
pub(crate) struct Size {
    found: u16,
    doing: Doing,
    due: Time,
    search_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Rounds that are left.
    Search(u8),
    /// Packets of what was found that nobody has confirmed.
    Confirm(u8),
}

impl Size {
    /// Nothing is known, and the search begins at once.
    pub(crate) fn new(now: Time) -> Size {
        Size {
            found: MTU_BYTES as u16,
            doing: Doing::Search(ROUNDS),
            due: now,
            search_at: now + SEARCH_EVERY,
        }
    }

    /// The largest UDP payload that is known to go through, in bytes.
    pub(crate) fn found(&self) -> usize {
        usize::from(self.found)
    }

    /// When there is something to try.
    pub(crate) fn due(&self) -> Time {
        self.due
    }

    /// The sizes that are to be tried now.
    pub(crate) fn probes(&mut self, now: Time) -> impl Iterator<Item = u16> + use<> {
        let mut from = u16::MAX;
        if now >= self.due {
            from = self.turn(now);
        }
        // To confirm, what was found alone; to search, whatever is larger.
        let is_search = matches!(self.doing, Doing::Search(_));
        TRIED.into_iter().filter(move |size| if is_search { *size > from } else { *size == from })
    }

    /// Goes on by one step, and says from where.
    fn turn(&mut self, now: Time) -> u16 {
        let is_base = self.found() == MTU_BYTES;
        let is_largest = TRIED.last() == Some(&self.found);
        match self.doing {
            Doing::Search(left) if left > 0 && !is_largest => {
                self.doing = Doing::Search(left - 1);
                self.due = now + ROUND;
                return self.found;
            }
            Doing::Search(_) => self.rest(now),
            Doing::Confirm(ROUNDS) => {
                // The path is another one now.
                *self = Size::new(now);
                return self.turn(now);
            }
            Doing::Confirm(0) if now >= self.search_at && !is_largest => {
                self.search_at = now + SEARCH_EVERY;
                self.doing = Doing::Search(ROUNDS);
                return self.turn(now);
            }
            Doing::Confirm(_) if is_base => self.rest(now),
            Doing::Confirm(missed) => {
                self.doing = Doing::Confirm(missed + 1);
                self.due = now + ROUND;
                return self.found;
            }
        }
        u16::MAX
    }

    fn rest(&mut self, now: Time) {
        self.doing = Doing::Confirm(0);
        self.due = now + CONFIRM_EVERY;
    }

    /// The peer got a packet of `size`; whether larger ones go through than was known.
    pub(crate) fn heard(&mut self, now: Time, size: u16) -> bool {
        if !TRIED.contains(&size) {
            return false;
        }
        if matches!(self.doing, Doing::Confirm(1..)) && size >= self.found {
            self.rest(now);
        }
        let is_more = size > self.found;
        self.found = self.found.max(size);
        is_more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets time pass; the path carries what `carried` says.
    fn run(size: &mut Size, from: Time, span: Span, carried: u16) -> usize {
        let (mut now, mut sent) = (from, 0);
        while now < from + span {
            for probe in size.probes(now).collect::<Vec<_>>() {
                sent += 1;
                if probe <= carried {
                    size.heard(now, probe);
                }
            }
            assert!(size.due() > now, "a step that was taken is due again");
            now = size.due();
        }
        sent
    }

    #[test]
    fn the_largest_size_that_arrives_is_found_with_few_packets() {
        for (carried, found) in [(1500, 1472), (1471, 1452), (1392, 1392), (1279, 1232), (0, 1232)] {
            let mut size = Size::new(Time(0));
            assert!(run(&mut size, Time(0), Span::secs(5), carried) <= 3 * TRIED.len());
            assert_eq!(size.found(), found, "{carried}");
        }
    }

    #[test]
    fn a_path_that_carries_less_is_noticed_and_one_that_carries_more_too() {
        let mut size = Size::new(Time(0));
        run(&mut size, Time(0), Span::secs(100), 1500);
        assert_eq!(size.found(), 1472);
        let at = size.due();
        run(&mut size, at, Span::secs(40), 1392);
        assert_eq!(size.found(), 1392);
        let at = size.due();
        run(&mut size, at, Span::secs(660), 1500);
        assert_eq!(size.found(), 1472);
    }

    #[test]
    fn what_was_not_tried_is_not_believed() {
        let mut size = Size::new(Time(0));
        for told in [0, 1233, 9000, u16::MAX] {
            assert!(!size.heard(Time(0), told));
        }
        assert_eq!(size.found(), 1232);
    }
}
