use std::ops::RangeInclusive;

use kith_sansio::{Rng, Span};

/// What a link does to messages. Chances are in thousandths and drawn for each message by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How many of a thousand messages are lost.
    pub drop_permille: u32,
    /// How many of a thousand messages arrive twice; the second copy is delayed by itself.
    pub duplicate_permille: u32,
    /// How many of a thousand messages may be overtaken by later ones. All others of a link stay in order.
    pub reorder_permille: u32,
    /// By how much a message that may be overtaken is late at most, beyond its delay.
    pub reorder_by: Span,
    /// The shortest and the longest delay of a link; each between them is equally likely.
    pub delay: RangeInclusive<Span>,
}

impl Faults {
    /// No faults: every message arrives once, in order, after exactly `delay`.
    pub fn none(delay: Span) -> Faults {
        Faults {
            drop_permille: 0,
            duplicate_permille: 0,
            reorder_permille: 0,
            reorder_by: Span::ZERO,
            delay: delay..=delay,
        }
    }

    /// A bad network: 10 % lost, 5 % twice, 10 % out of order by up to 200 ms, 5 to 100 ms of delay.
    pub fn harsh() -> Faults {
        Faults {
            drop_permille: 100,
            duplicate_permille: 50,
            reorder_permille: 100,
            reorder_by: Span::millis(200),
            delay: Span::millis(5)..=Span::millis(100),
        }
    }

    pub(crate) fn draw_delay(&self, rng: &mut dyn Rng) -> Span {
        let shortest = self.delay.start().0;
        let width = self.delay.end().0.saturating_sub(shortest);
        Span(shortest.saturating_add(rng.below(width.saturating_add(1))))
    }
}

/// The faults of [`Faults::none`] with a delay of 10 ms.
impl Default for Faults {
    fn default() -> Faults {
        Faults::none(Span::millis(10))
    }
}

/// Whether something that happens in `permille` of a thousand cases happens.
pub(crate) fn happens(permille: u32, rng: &mut dyn Rng) -> bool {
    rng.below(1_000) < u64::from(permille)
}
