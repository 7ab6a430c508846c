use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of a zone, shared by all who answer for it. It is 1 until the store was asked.
#[derive(Debug, Clone)]
pub(crate) struct Serial(Arc<AtomicU64>);

impl Default for Serial {
    fn default() -> Self {
        Serial(Arc::new(AtomicU64::new(1)))
    }
}

impl Serial {
    /// The serial number.
    pub(crate) fn get(&self) -> u32 {
        serial_of(self.number())
    }

    /// The store's number, of which the serial number is the lower half.
    pub(crate) fn number(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises the number to that of the store's revision; it never goes back. The serial number now.
    pub(crate) fn raise(&self, told: u64) -> u32 {
        let raised = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            is_newer(serial_of(told), serial_of(now)).then_some(told)
        });
        if raised.is_ok() { serial_of(told) } else { self.get() }
    }
}

/// The serial number of a number.
pub(crate) fn serial_of(number: u64) -> u32 {
    (number % (1 << 32)) as u32
}

/// The number of an older serial number, as seen from `number`.
pub(crate) fn number_of(serial: u32, number: u64) -> Option<u64> {
    let now = serial_of(number);
    is_newer(now, serial).then(|| number.checked_sub(now.wrapping_sub(serial).into()))?
}

/// Whether `one` comes after `other` in the arithmetic of serial numbers (RFC 1982 §3.2).
pub(crate) fn is_newer(one: u32, other: u32) -> bool {
    matches!(one.wrapping_sub(other), 1..=0x7fff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_compared_on_a_circle() {
        assert!(is_newer(1, 0) && is_newer(0, u32::MAX) && is_newer(0x7fff_ffff, 0));
        assert!(!is_newer(0, 0) && !is_newer(0, 1) && !is_newer(u32::MAX, 0));
        assert!(!is_newer(0x8000_0000, 0) && !is_newer(0, 0x8000_0000), "undefined, so no");
    }

    #[test]
    fn a_serial_number_never_goes_back_and_passes_the_end() {
        let serial = Serial::default();
        assert_eq!(serial.raise(2_000_000_000), 2_000_000_000);
        assert_eq!(serial.raise(1_999_999_999), 2_000_000_000);
        assert_eq!(serial.raise(4_000_000_000), 4_000_000_000);
        assert_eq!(serial.raise((1 << 32) + 5), 5);
        assert_eq!((serial.clone().get(), serial.number()), (5, (1 << 32) + 5));
    }

    #[test]
    fn an_older_serial_number_is_found_across_the_end() {
        let number = (1 << 32) + 5;
        assert_eq!(number_of(3, number), Some(number - 2));
        assert_eq!(number_of(u32::MAX, number), Some(number - 6));
        assert_eq!(number_of(5, number), None, "the same");
        assert_eq!(number_of(6, number), None, "newer");
        assert_eq!(number_of(u32::MAX, 5), None, "there was none");
    }
}
