//! Parsers of outside bytes as ordinary functions that assert what must hold for any input.

use std::path::Component;

use crate::frame::{self, Frame, Message};
use crate::offer::{MAX_PATH_BYTES, Offer};

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

/// The entries of any frames are refused as an offer, or lie inside the target folder, each path once.
pub fn fuzz_offer(data: &[u8]) {
    let (mut rest, mut entries) = (data, Vec::new());
    while let Ok(Some((message, end))) = frame::split(rest) {
        if let Message::Control(Frame::Entries(more)) = message {
            entries.extend(more);
        }
        rest = &rest[end..];
    }
    let Ok(offer) = Offer::new(entries) else { return };
    let mut paths: Vec<_> = (0..).zip(offer.entries()).map(|(index, _)| offer.path(index)).collect();
    for path in &paths {
        assert!(path.as_os_str().len() <= MAX_PATH_BYTES && path.components().count() > 0);
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?} leaves the folder");
    }
    paths.sort();
    assert!(paths.windows(2).all(|pair| pair[0] != pair[1]), "a path stands twice");
    assert_eq!(offer.entries().iter().filter_map(crate::Entry::size).sum::<u64>(), offer.bytes());
}
