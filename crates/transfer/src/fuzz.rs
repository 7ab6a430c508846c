//! Parsers of outside bytes as ordinary functions that assert what must hold for any input.

use kith_sansio::{Machine, Now, SeededRng};

use crate::frame::{self, Frame, Message};
use crate::offer::{Entry, Kind, Offer};
use crate::receiver::{Input, Output, Present, Receiver};
use crate::sender::{self, Sender};

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

/// Any list of entries is refused, or every path of it is relative, confined and unlike all others.
pub fn fuzz_offer(data: &[u8]) {
    let Ok(Message::Control(Frame::Entries(entries))) = frame::decode(0x02, data) else { return };
    let Ok(offer) = Offer::new(entries) else { return };
    let mut paths = std::collections::HashSet::new();
    for index in 0..offer.entries().len() as u32 {
        let path = offer.path(index);
        let names = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        assert!(names && path.components().count() > 0, "{} stays inside", path.display());
        assert!(paths.insert(path), "no path comes twice");
    }
}

/// Any frames from the sender leave the receiving machine in order: it ends at most once, and a file is committed at
/// most once and only while it may be.
pub fn fuzz_receiver(data: &[u8]) {
    let Some(offer) = sample() else { return };
    let mut machine = Receiver::new(offer, false);
    let mut rng = SeededRng::new(0);
    let (mut rest, mut ended) = (data, false);
    let mut committed = std::collections::HashSet::new();
    let mut input = Some(Input::Prepared(Present::default()));
    while let Some(now) = input.take() {
        machine.handle_input(Now::default(), now, &mut rng);
        while let Some(output) = machine.poll_output() {
            assert!(!ended, "nothing follows the end");
            match output {
                Output::Commit { index } => assert!(committed.insert(index), "committed once"),
                Output::Finished(_) => ended = true,
                _ => {}
            }
        }
        input = match frame::split(rest) {
            Ok(Some((message, end))) => {
                rest = &rest[end..];
                Some(match message {
                    Message::Control(frame) => Input::Frame(frame),
                    Message::Group { bytes, value } => {
                        Input::Group { length: bytes.len(), claimed: value, computed: value }
                    }
                })
            }
            _ => None,
        };
    }
}

/// Any frames from the receiver leave the sending machine in order: it ends at most once, and asks for one job at a
/// time, about files that it offered.
pub fn fuzz_sender(data: &[u8]) {
    let Some(offer) = sample() else { return };
    let mut machine = Sender::new(offer.clone(), kith_sansio::Span::secs(1));
    let mut rng = SeededRng::new(0);
    let (mut rest, mut ended) = (data, false);
    machine.handle_timeout(Now::default(), &mut rng);
    loop {
        let mut job = false;
        while let Some(output) = machine.poll_output() {
            assert!(!ended, "nothing follows the end");
            match output {
                sender::Output::Run(sender::Job::Stream(list)) => {
                    job = true;
                    assert!(list.windows(2).all(|pair| pair[0].index < pair[1].index), "sorted");
                    assert!(
                        list.iter().all(|item| offer.groups(item.index).is_some_and(|all| item.first <= all))
                    );
                }
                sender::Output::Run(_) => job = true,
                sender::Output::Finished(_) => ended = true,
                _ => {}
            }
        }
        let input = match frame::split(rest) {
            _ if job => sender::Input::JobDone,
            Ok(Some((Message::Control(frame), end))) => {
                rest = &rest[end..];
                sender::Input::Frame(frame)
            }
            _ => return,
        };
        machine.handle_input(Now::default(), input, &mut rng);
    }
}

/// A small offer with files of no, one and several groups, a folder and a link.
fn sample() -> Option<Offer> {
    let entry = |parent, name: &[u8], kind| Entry {
        parent,
        name: name.to_vec(),
        mode: 0o644,
        seconds: 0,
        nanos: 0,
        kind,
    };
    let entries = vec![
        entry(0, b"top", Kind::Folder),
        entry(1, b"empty", Kind::File(0)),
        entry(1, b"small", Kind::File(10)),
        entry(1, b"large", Kind::File((3 << 20) + 1)),
        entry(1, b"link", Kind::Link(b"small".to_vec())),
    ];
    Offer::new(entries).ok()
}
