//! Entry points for fuzzing: ordinary functions that assert what must hold for any bytes.

use crate::wire::{Reader, Writer};
use crate::{Span, Timestamp};

/// The first byte of each step picks a field; what is read is written again as it was.
pub fn fuzz_wire(data: &[u8]) {
    let (mut reader, mut writer) = (Reader::new(data), Writer::new());
    while let Ok(step) = reader.u8() {
        let before = reader.left();
        writer.u8(step);
        let read = match step % 6 {
            0 => reader.u16().map(|value| writer.u16(value)),
            1 => reader.u24().map(|value| writer.u24(value)),
            2 => reader.u32().map(|value| writer.u32(value)),
            3 => reader.u64().map(|value| writer.u64(value)),
            4 => reader.array::<7>().map(|value| writer.bytes(&value)),
            _ => reader.bytes(usize::from(step)).map(|value| writer.bytes(value)),
        };
        if read.is_err() {
            assert_eq!(reader.left(), before, "a refused read took bytes");
            break;
        }
    }
    writer.bytes(reader.rest());
    assert_eq!(writer.finish(), data);
    assert_eq!(reader.finish(), Ok(()));
}

/// Any text as a timestamp, which has one form, and as a length of time, whose shown form is rounded.
pub fn fuzz_times(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(stamp) = text.parse::<Timestamp>() {
        assert_eq!(stamp.to_string(), text);
    }
    if let Ok(span) = text.parse::<Span>() {
        assert!(!span.to_string().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wire_fields_hold_for_any_bytes(data: Vec<u8>) {
            fuzz_wire(&data);
        }

        #[test]
        fn times_hold_for_any_text(text in "[0-9]{0,6}(us|ms|[smhd])|[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z|.*") {
            fuzz_times(text.as_bytes());
        }
    }
}
