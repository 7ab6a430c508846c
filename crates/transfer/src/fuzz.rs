//! Parsers of outside bytes as ordinary functions that assert what must hold for any input.

use crate::frame::{self, Message};

/// Any bytes are refused, incomplete, or a frame that is written back as it was read.
pub fn fuzz_frame(data: &[u8]) {
    let Ok(Some((message, end))) = frame::split(data) else { return };
    assert!(end <= data.len(), "a frame ends inside the input");
    if let Message::Control(frame) = message {
        let mut written = Vec::new();
        frame::encode(&frame, &mut written);
        assert_eq!(written, &data[..end], "frames have one form");
    }
}
