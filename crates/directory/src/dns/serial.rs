use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The serial number of a zone, shared by all who answer for it. It is 1 until the store was asked.
#[derive(Debug, Clone)]
pub(crate) struct Serial(Arc<AtomicU32>);

impl Default for Serial {
    fn default() -> Self {
        Serial(Arc::new(AtomicU32::new(1)))
    }
}

impl Serial {
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises the number to that of the store's revision; it never goes back. The number now.
    pub(crate) fn raise(&self, told: u64) -> u32 {
        let wanted = u32::try_from(told % (1 << 32)).unwrap_or(0);
        let raised = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            is_newer(wanted, now).then_some(wanted)
        });
        if raised.is_ok() { wanted } else { self.get() }
    }
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
        assert_eq!(serial.clone().get(), 5);
    }
}
