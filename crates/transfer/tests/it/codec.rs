//! Frames and offers: what is written is read, and everything else is refused.

use kith_transfer::frame::{self, Failed, Frame, FrameError, Have, Head, Message, Proof, Received, Resume};
use kith_transfer::fuzz::{fuzz_frame, fuzz_offer, fuzz_receiver, fuzz_sender};
use kith_transfer::{AbortReason, Entry, Kind, Notice, Offer, OfferError, Reason, Refusal, Standing};
use proptest::collection::vec;
use proptest::prelude::*;

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(frame, &mut bytes);
    bytes
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
}

fn file(parent: u32, name: &[u8]) -> Entry {
    Entry { parent, name: name.to_vec(), mode: 0o644, seconds: -2, nanos: 3, kind: Kind::File(300) }
}

#[test]
fn frames_have_the_documented_bytes() {
    let head = Head { version: 1, id: [0xab; 16], entries: 2, files: 1, bytes: 256, answer_within: 600 };
    let id = "ab".repeat(16);
    let received = Received {
        files: 1,
        bytes: 300,
        resumed: 0,
        failures: 1,
        failed: vec![Failed { index: 4, reason: Reason::Exists }],
    };
    let cases = [
        (Frame::Offer(head), format!("01 000021 a6 0001 0150{id} 0202 0301 04190100 05190258")),
        (
            Frame::Entries(vec![file(0, b"a")]),
            "02 000010 81 86 00 4161 1901a4 21 03 82 00 81 19012c".to_owned(),
        ),
        (Frame::OfferEnd, "03 000000".to_owned()),
        (
            Frame::Proof(Proof { index: 1, first: 2, values: vec![7; 32], last: true }),
            format!("10 00002a a4 0001 0102 02 5820 {} 03f5", "07".repeat(32)),
        ),
        (Frame::FileStart { index: 1, first: 2 }, "20 000008 00000001 00000002".to_owned()),
        (Frame::FileEnd { root: [9; 32] }, format!("22 000020 {}", "09".repeat(32))),
        (
            Frame::FileFailed(Failed { index: 1, reason: Reason::Vanished }),
            "23 000005 00000001 01".to_owned(),
        ),
        (Frame::Done, "24 000000".to_owned()),
        (Frame::Refuse(Refusal::NoSpace), "80 000003 a1 0001".to_owned()),
        (
            Frame::Have(vec![Have { index: 1, groups: 2, whole: false }]),
            "81 000005 81 83 01 02 f4".to_owned(),
        ),
        (Frame::Accept, "82 000000".to_owned()),
        (Frame::Resume(vec![Resume { index: 1, first: 2 }]), "83 000004 81 82 01 02".to_owned()),
        (Frame::Start, "84 000000".to_owned()),
        (Frame::Received(received), "85 000010 a5 0001 0119012c 0200 0301 0481820403".to_owned()),
        (
            Frame::Notice(Notice { version: 1, id: [0xab; 16], standing: Standing::Paused }),
            format!("fe 000017 a3 0001 0150{id} 0201"),
        ),
        (Frame::Abort(AbortReason::DiskFull), "ff 000003 a1 0001".to_owned()),
    ];
    for (frame, bytes) in cases {
        let written = encoded(&frame);
        assert_eq!(data_encoding::HEXLOWER.encode(&written), bytes.replace(' ', ""), "{frame:?}");
        assert_eq!(frame::split(&written).unwrap().unwrap(), (Message::Control(frame), written.len()));
    }
}

#[test]
fn other_forms_of_the_same_content_are_refused() {
    for (wrong, why) in [
        ("80 000004 a1 0018 01", "an integer longer than needed"),
        ("80 000005 bf 0001 ff 00", "an indefinite map and a byte too many"),
        ("80 000004 bf 0001 ff", "an indefinite map"),
        ("80 000005 a2 0001 0501", "an unknown key"),
        ("80 000005 a2 0001 0001", "a key twice"),
        ("80 000004 a1 0001 00", "a byte too many"),
        ("80 000003 a1 0009", "an unknown reason"),
        ("80 000001 a0", "a missing key"),
        (
            "01 00001d a6 0001 0150 abababababababababababababababab 0202 0301 0401 0500",
            "no time for an answer",
        ),
        ("fe 000017 a3 0001 0150 abababababababababababababababab 0203", "an unknown standing"),
        ("23 000005 00000001 09", "an unknown reason"),
        ("10 000010 a4 0001 0102 02 43 070707 03 f5 00000000", "values of odd length"),
    ] {
        assert!(matches!(frame::split(&hex(wrong)), Err(FrameError::Payload(_))), "{why}");
    }
}

#[test]
fn lengths_are_checked_before_the_payload_is_there() {
    for wrong in ["24 000001", "20 000009", "21 000020", "21 100021", "02 040001", "ff 000000"] {
        assert!(matches!(frame::split(&hex(wrong)), Err(FrameError::Length { .. })), "{wrong}");
    }
    assert_eq!(frame::split(&hex("42 000000")), Err(FrameError::Kind(0x42)));
    assert_eq!(frame::split(&hex("21 100020")), Ok(None));
}

#[test]
fn offers_that_break_a_rule_are_refused() {
    let dir = |parent, name: &[u8]| Entry { kind: Kind::Folder, ..file(parent, name) };
    let link = |target: &[u8]| Entry { kind: Kind::Link(target.to_vec()), ..file(0, b"l") };
    let sized = |size| Entry { kind: Kind::File(size), ..file(0, b"s") };
    for name in [b"".as_slice(), b".", b"..", b"/", b"a/b", b"/etc", b"nul\0", b"../x", &[b'x'; 256]] {
        assert!(matches!(Offer::new(vec![file(0, name)]), Err(OfferError::Name { .. })), "{name:?}");
    }
    assert!(Offer::new(vec![file(0, &[0xff; 255])]).is_ok());
    assert_eq!(Offer::new(vec![]), Err(OfferError::Empty));
    assert_eq!(Offer::new(vec![file(0, b".kith-partial-0")]), Err(OfferError::Reserved { index: 0 }));
    assert_eq!(Offer::new(vec![file(1, b"a")]), Err(OfferError::Parent { index: 0 }));
    assert_eq!(Offer::new(vec![file(2, b"a"), dir(0, b"d")]), Err(OfferError::Parent { index: 0 }));
    assert_eq!(Offer::new(vec![file(0, b"a"), file(1, b"b")]), Err(OfferError::Parent { index: 1 }));
    assert_eq!(Offer::new(vec![link(b"x"), file(1, b"b")]), Err(OfferError::Parent { index: 1 }));
    assert_eq!(
        Offer::new(vec![file(0, b"a"), dir(0, b"b"), dir(0, b"a")]),
        Err(OfferError::Duplicate { first: 0, second: 2 })
    );
    let field = |entry, what| assert_eq!(Offer::new(vec![entry]), Err(OfferError::Field { index: 0, what }));
    field(link(b""), "target");
    field(link(b"a\0b"), "target");
    field(link(&[b'x'; 4096]), "target");
    field(sized(u64::MAX), "size");
    field(Entry { mode: 0o10000, ..file(0, b"a") }, "mode");
    field(Entry { nanos: 1_000_000_000, ..file(0, b"a") }, "time");
    let halves = vec![Entry { name: b"t".to_vec(), ..sized(1 << 49) }, sized((1 << 49) + 1)];
    assert_eq!(Offer::new(halves), Err(OfferError::Field { index: 1, what: "size" }));
    let deep =
        |count: u32, length: usize| (0..count).map(|at| dir(at, &vec![b'd'; length])).collect::<Vec<_>>();
    assert!(Offer::new(deep(256, 15)).is_ok());
    assert_eq!(Offer::new(deep(257, 1)), Err(OfferError::Path { index: 256 }));
    assert_eq!(Offer::new(deep(17, 255)), Err(OfferError::Path { index: 16 }));
}

#[test]
fn digests_tell_offers_apart() {
    let digest = |entry| Offer::new(vec![entry]).unwrap().digest();
    assert_eq!(digest(file(0, b"a")), digest(file(0, b"a")));
    assert_ne!(digest(file(0, b"a")), digest(file(0, b"b")));
    assert_ne!(digest(file(0, b"a")), digest(Entry { nanos: 4, ..file(0, b"a") }));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        any::<u64>().prop_map(Kind::File),
        Just(Kind::Folder),
        vec(any::<u8>(), 0..20).prop_map(Kind::Link)
    ];
    let rest = (0u32..6, vec(any::<u8>(), 0..4), any::<u16>(), any::<i64>(), any::<u32>(), kind);
    rest.prop_map(|(parent, name, mode, seconds, nanos, kind)| Entry {
        parent,
        name,
        mode,
        seconds,
        nanos,
        kind,
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let failed = (any::<u32>(), 0u8..8)
        .prop_map(|(index, code)| Failed { index, reason: Reason::from_code(code).unwrap() });
    let have = (any::<u32>(), any::<u32>(), any::<bool>()).prop_map(|(index, groups, whole)| Have {
        index,
        groups,
        whole,
    });
    prop_oneof![
        (any::<u8>(), any::<[u8; 16]>(), any::<u32>(), any::<u32>(), any::<u64>(), 1..2_592_001_u32)
            .prop_map(|(version, id, entries, files, bytes, answer_within)| {
                Frame::Offer(Head { version, id, entries, files, bytes, answer_within })
            }),
        (any::<u8>(), any::<[u8; 16]>(), 0u8..3).prop_map(|(version, id, code)| {
            let standing = Standing::from_code(code).unwrap();
            Frame::Notice(Notice { version, id, standing })
        }),
        vec(any_entry(), 0..10).prop_map(Frame::Entries),
        Just(Frame::OfferEnd),
        (any::<u32>(), any::<u32>(), vec(any::<[u8; 32]>(), 0..5), any::<bool>()).prop_map(
            |(index, first, values, last)| Frame::Proof(Proof {
                index,
                first,
                values: values.concat(),
                last
            })
        ),
        (any::<u32>(), any::<u32>()).prop_map(|(index, first)| Frame::FileStart { index, first }),
        any::<[u8; 32]>().prop_map(|root| Frame::FileEnd { root }),
        failed.clone().prop_map(Frame::FileFailed),
        Just(Frame::Done),
        (0u8..7).prop_map(|code| Frame::Refuse(Refusal::from_code(code).unwrap())),
        vec(have, 0..20).prop_map(Frame::Have),
        Just(Frame::Accept),
        vec((any::<u32>(), any::<u32>()).prop_map(|(index, first)| Resume { index, first }), 0..20)
            .prop_map(Frame::Resume),
        Just(Frame::Start),
        (any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>(), vec(failed, 0..9)).prop_map(
            |(files, bytes, resumed, failures, failed)| Frame::Received(Received {
                files,
                bytes,
                resumed,
                failures,
                failed
            })
        ),
        (0u8..6).prop_map(|code| Frame::Abort(AbortReason::from_code(code).unwrap())),
    ]
}

proptest! {
    #[test]
    fn frames_round_trip(frame in any_frame(), rest in vec(any::<u8>(), 0..9)) {
        let mut bytes = encoded(&frame);
        let end = bytes.len();
        bytes.extend(rest);
        prop_assert_eq!(frame::split(&bytes), Ok(Some((Message::Control(frame), end))));
        prop_assert_eq!(frame::split(&bytes[..end - 1]), Ok(None));
    }

    #[test]
    fn any_bytes_are_refused_or_canonical(data in vec(any::<u8>(), 0..200)) {
        fuzz_frame(&data);
        fuzz_offer(&data);
        fuzz_receiver(&data);
        fuzz_sender(&data);
    }

    #[test]
    fn frames_with_a_changed_byte_are_refused_or_canonical(frame in any_frame(), at: prop::sample::Index, to: u8) {
        let mut bytes = encoded(&frame);
        let at = at.index(bytes.len());
        bytes[at] = to;
        fuzz_frame(&bytes);
        if bytes[0] == 2 {
            fuzz_offer(&bytes[4..]);
        }
    }

    #[test]
    fn lists_of_entries_are_refused_or_confined(entries in vec(any_entry(), 0..12)) {
        fuzz_offer(&encoded(&Frame::Entries(entries))[4..]);
    }

    #[test]
    fn frames_in_any_order_leave_the_machines_in_order(frames in vec(likely_frame(), 0..30)) {
        let bytes = frames.concat();
        fuzz_receiver(&bytes);
        fuzz_sender(&bytes);
    }
}

/// Frames about the few files that the fuzzed machines know.
fn likely_frame() -> impl Strategy<Value = Vec<u8>> {
    let control = prop_oneof![
        (0u32..6, 0u32..5).prop_map(|(index, first)| Frame::FileStart { index, first }),
        any::<[u8; 32]>().prop_map(|root| Frame::FileEnd { root }),
        Just(Frame::FileEnd { root: *blake3::hash(b"").as_bytes() }),
        Just(Frame::FileEnd { root: [1; 32] }),
        (0u32..6).prop_map(|index| Frame::FileFailed(Failed { index, reason: Reason::Changed })),
        Just(Frame::Done),
        Just(Frame::Accept),
        Just(Frame::Start),
        (0u32..6, 0u32..6).prop_map(|(index, groups)| Frame::Have(vec![Have { index, groups, whole: true }])),
        (0u32..6, 0u32..6).prop_map(|(index, first)| Frame::Resume(vec![Resume { index, first }])),
        Just(Frame::Received(Received::default())),
    ];
    let group = prop_oneof![Just(10usize), Just(1), Just(1 << 20)].prop_map(|length| {
        let mut bytes = frame::group_header(length).to_vec();
        bytes.extend(std::iter::repeat_n(0, length));
        bytes.extend([1; 32]);
        bytes
    });
    prop_oneof![5 => control.prop_map(|frame| encoded(&frame)), 1 => group]
}
