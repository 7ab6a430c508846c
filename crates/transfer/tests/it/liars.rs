//! Peers that lie, stall or fall silent, against the real receiver and sender on a real folder.

use std::path::Path;
use std::sync::Arc;

use kith_transfer::frame::{self, Failed, Frame, Have, Head, Resume};
use kith_transfer::hash::{GROUP_BYTES, Root, group_value};
use kith_transfer::{
    AbortReason, Entry, Fault, Gate, Kind, Limits, Offer, OfferError, Progress, Reason, ReceiveError,
    SendError, SendOptions, TransferId, Violation, read_offer, receive, send,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::support::*;

fn entry(name: &[u8], size: u64) -> Entry {
    Entry { parent: 0, name: name.to_vec(), mode: 0o644, seconds: 1, nanos: 0, kind: Kind::File(size) }
}

fn offer_bytes(entries: Vec<Entry>, claimed: Option<Head>) -> Vec<u8> {
    let sizes = entries.iter().filter_map(Entry::size);
    let (files, bytes) = (sizes.clone().count() as u32, sizes.fold(0, u64::wrapping_add));
    let head =
        Head { version: 1, id: [5; 16], entries: entries.len() as u32, files, bytes, answer_within: 600 };
    let mut out = Vec::new();
    frame::encode(&Frame::Offer(claimed.unwrap_or(head)), &mut out);
    frame::encode(&Frame::Entries(entries), &mut out);
    frame::encode(&Frame::OfferEnd, &mut out);
    out
}

fn group(bytes: &[u8], number: u32, groups: u32, out: &mut Vec<u8>) {
    out.extend(frame::group_header(bytes.len()));
    out.extend(bytes);
    out.extend(group_value(number, groups, bytes));
}

/// Receives what a liar writes; the liar's bytes, then its end of the stream.
fn receive_lies(dir: &Path, lies: &[u8]) -> Result<kith_transfer::Summary, ReceiveError> {
    run(async {
        let (mut liar, mut stream) = tokio::io::duplex(64 << 10);
        let lying = async {
            let _refused_midway = liar.write_all(lies).await;
            let _refused_midway = liar.shutdown().await;
            let mut answers = Vec::new();
            let _ends = liar.read_to_end(&mut answers).await;
        };
        let receiving = async {
            let incoming = read_offer(&mut stream, &Limits::default()).await?;
            let done =
                receive(&mut stream, incoming, into(dir), Arc::new(Progress::new()), Default::default())
                    .await;
            drop(stream);
            done
        };
        tokio::join!(receiving, lying).0
    })
}

#[test]
fn a_large_offer_waits_ten_minutes_whatever_its_sender_says() {
    for (count, within) in [(10_000, 30 * 86_400), (10_001, 600)] {
        let entries: Vec<_> = (0..count).map(|n| entry(format!("{n:x}").as_bytes(), 0)).collect();
        let (version, id) = (1, [5; 16]);
        let head = Head { version, id, entries: count, files: count, bytes: 0, answer_within: 30 * 86_400 };
        let lies = offer_bytes(entries, Some(head));
        let offer = run(async {
            let (mut liar, mut stream) = tokio::io::duplex(64 << 10);
            let limits = Limits::default();
            tokio::join!(liar.write_all(&lies), read_offer(&mut stream, &limits)).1.unwrap()
        });
        assert_eq!(offer.answer_within(), kith_sansio::Span::secs(within));
        assert_eq!(kith_transfer::answer_within(count as usize, kith_sansio::Span::secs(5)).as_secs(), 5);
    }
}

#[test]
fn offers_that_would_lead_outside_touch_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for name in [b"..".as_slice(), b"../evil", b"/etc/evil", b"a\0b", b"", &[b'x'; 256], b".kith-partial-1"] {
        let error = receive_lies(dir.path(), &offer_bytes(vec![entry(name, 1)], None)).unwrap_err();
        assert!(matches!(error, ReceiveError::Peer(Violation::Offer(_))), "{error:?}");
        assert_eq!(error.fault(), Fault::Peer);
    }
    let overflow = offer_bytes(vec![entry(b"a", u64::MAX), entry(b"b", 2)], None);
    assert!(matches!(receive_lies(dir.path(), &overflow), Err(ReceiveError::Peer(_))));
    let head = Head { version: 1, id: [5; 16], entries: 1, files: 1, bytes: 5, answer_within: 600 };
    let totals = receive_lies(dir.path(), &offer_bytes(vec![entry(b"a", 4)], Some(head.clone())));
    assert!(matches!(totals, Err(ReceiveError::Peer(Violation::Offer(OfferError::Totals)))));
    let version =
        receive_lies(dir.path(), &offer_bytes(vec![entry(b"a", 5)], Some(Head { version: 2, ..head })));
    assert!(matches!(version, Err(ReceiveError::Peer(Violation::Version(2)))));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn content_that_is_not_what_was_claimed_gets_no_name() {
    let content = bytes(GROUP_BYTES + 10, 1);
    let (first, second) = content.split_at(GROUP_BYTES);
    let mut root = Root::default();
    root.push(group_value(0, 2, first));
    root.push(group_value(1, 2, second));
    let root = root.finish();
    let start = |out: &mut Vec<u8>| frame::encode(&Frame::FileStart { index: 0, first: 0 }, out);
    let offered = || offer_bytes(vec![entry(b"film", content.len() as u64)], None);
    let end = |root, out: &mut Vec<u8>| {
        frame::encode(&Frame::FileEnd { root }, out);
        frame::encode(&Frame::Done, out);
    };
    type Lie<'a> = &'a dyn Fn(&mut Vec<u8>);
    let lies: [(&str, Lie<'_>); 6] = [
        ("a wrong root", &|out| {
            group(first, 0, 2, out);
            group(second, 1, 2, out);
            end([1; 32], out);
        }),
        ("a changed byte", &|out| {
            group(first, 0, 2, out);
            group(second, 1, 2, out);
            let at = out.len() - 40;
            out[at] ^= 1;
            end(root, out);
        }),
        ("too few groups", &|out| {
            group(first, 0, 2, out);
            end(root, out);
        }),
        ("too many groups", &|out| {
            group(first, 0, 2, out);
            group(second, 1, 2, out);
            group(second, 2, 3, out);
            end(root, out);
        }),
        ("groups in another order", &|out| {
            group(second, 0, 2, out);
            group(first, 1, 2, out);
            end(root, out);
        }),
        ("something unknown", &|out| {
            group(first, 0, 2, out);
            out.extend([0x42, 0, 0, 0]);
        }),
    ];
    for (what, lie) in lies {
        let dir = tempfile::tempdir().unwrap();
        let mut out = offered();
        start(&mut out);
        lie(&mut out);
        let error = receive_lies(dir.path(), &out).unwrap_err();
        assert_eq!(error.fault(), Fault::Peer, "{what}: {error:?}");
        assert!(!dir.path().join("film").exists(), "{what}");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut out = offered();
    start(&mut out);
    group(first, 0, 2, &mut out);
    group(second, 1, 2, &mut out);
    end(root, &mut out);
    assert_eq!(receive_lies(dir.path(), &out).unwrap().files, 1);
    assert_eq!(std::fs::read(dir.path().join("film")).unwrap(), content);
}

#[test]
fn a_frame_broken_off_is_a_lost_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = offer_bytes(vec![entry(b"a", 10), entry(b"b", 10)], None);
    frame::encode(&Frame::FileStart { index: 0, first: 0 }, &mut out);
    group(b"0123456789", 0, 1, &mut out);
    frame::encode(&Frame::FileEnd { root: group_value(0, 1, b"0123456789") }, &mut out);
    out.extend([0x20, 0, 0]);
    let error = receive_lies(dir.path(), &out).unwrap_err();
    assert!(error.is_connection_lost(), "{error:?}");
    // What had come to its end before is kept.
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"0123456789");
}

#[test]
fn a_receiver_that_answers_nonsense_is_told_apart() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a"), b"a").unwrap();
    let offer = Offer::from_paths(&[root.path().join("a")]).unwrap();
    let answers: [(&str, Vec<u8>); 4] = [
        ("garbage", vec![0x42; 9]),
        ("a group", [frame::group_header(1).as_slice(), &[0; 33]].concat()),
        ("received before anything was sent", encoded(&Frame::Received(Default::default()))),
        ("a failed file", encoded(&Frame::FileFailed(Failed { index: 0, reason: Reason::Changed }))),
    ];
    for (what, answer) in answers {
        let sent = run(async {
            let (near, far) = tokio::io::duplex(64 << 10);
            let sending = send(
                near,
                &offer,
                SendOptions::new(TransferId([1; 16])),
                Default::default(),
                Default::default(),
            );
            tokio::join!(sending, answer_with(far, &answer)).0
        });
        assert!(matches!(sent, Err(SendError::Peer(_))), "{what}: {sent:?}");
    }
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(frame, &mut bytes);
    bytes
}

async fn answer_with(mut stream: DuplexStream, answer: &[u8]) {
    stream.write_all(answer).await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert!(heard.ends_with(&encoded(&Frame::Abort(AbortReason::Protocol))));
}

#[test]
fn the_sender_counts_what_is_there_though_it_is_told_before_it_has_proved_all() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a"), bytes(3 << 20, 1)).unwrap();
    let offer = Offer::from_paths(&[root.path().join("a")]).unwrap();
    let both = |one: Frame, other: Frame| [encoded(&one), encoded(&other)].concat();
    let accepts = both(Frame::Have(vec![Have { index: 0, groups: 2, whole: false }]), Frame::Accept);
    let starts = both(Frame::Resume(vec![Resume { index: 0, first: 2 }]), Frame::Start);
    let (progress, gate) = (Arc::new(Progress::new()), Gate::new());
    let sent = run(async {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let options = SendOptions { gate: gate.clone(), ..SendOptions::new(TransferId([1; 16])) };
        let sending = send(near, &offer, options, Arc::clone(&progress), Default::default());
        let receiving = async {
            far.write_all(&accepts).await.unwrap();
            progress.accepted().await;
            far.write_all(&starts).await.unwrap();
            // The sender hears it before it is let to prove anything.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            gate.open();
            let mut sink = vec![0; 64 << 10];
            while progress.moved_bytes() == 0 {
                assert!(far.read(&mut sink).await.unwrap() > 0);
            }
            assert_eq!(progress.resumed_bytes(), 2 << 20);
            drop(far);
        };
        tokio::join!(sending, receiving).0
    });
    assert!(sent.is_err());
}

#[test]
fn a_file_that_changes_while_it_is_read_fails_and_the_next_arrives() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("film"), bytes(24 << 20, 1)).unwrap();
    std::fs::write(from.join("note"), b"note").unwrap();
    for shrink in [true, false] {
        let offer = Offer::from_paths(std::slice::from_ref(&from)).unwrap();
        let (sent, received) = run(async {
            let (near, mut far, _) = link(None);
            let progress = Arc::new(Progress::new());
            let options = SendOptions::new(TransferId([u8::from(shrink); 16]));
            let sending = send(near, &offer, options, Arc::clone(&progress), Default::default());
            let receiving = async {
                let incoming = read_offer(&mut far, &Limits::default()).await.unwrap();
                receive(far, incoming, into(&to), Default::default(), Default::default()).await
            };
            let changing = async {
                while progress.moved_bytes() < 1 << 20 {
                    tokio::task::yield_now().await;
                }
                let file = std::fs::File::options().append(true).open(from.join("film")).unwrap();
                file.set_len(if shrink { 20 << 20 } else { 25 << 20 }).unwrap();
            };
            let (sent, received, ()) = tokio::join!(sending, receiving, changing);
            (sent.unwrap(), received.unwrap())
        });
        assert_eq!(sent, received);
        assert_eq!((sent.failures, sent.files), (1, 1));
        assert_eq!(sent.failed[0].reason, Reason::Changed);
        assert_eq!(names(&to.join("from")), ["note"]);
        assert_eq!(names(&to), ["from"]);
    }
}

#[test]
fn transfers_can_be_tasks_and_a_dropped_one_ends() {
    let root = tempfile::tempdir().unwrap();
    let to = root.path().join("to");
    std::fs::write(root.path().join("film"), bytes(16 << 20, 1)).unwrap();
    let offer = Offer::from_paths(&[root.path().join("film")]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let lost = runtime.block_on(async {
        let (mut near, mut far, _) = link(Some(6 << 20));
        near.stalls = true;
        let progress = Arc::new(Progress::new());
        let watch = Arc::clone(&progress);
        let sending = tokio::spawn(async move {
            send(near, &offer, SendOptions::new(TransferId([1; 16])), progress, Default::default()).await
        });
        let receiving = tokio::spawn(async move {
            let incoming = read_offer(&mut far, &Limits::default()).await.unwrap();
            receive(far, incoming, into(&to), Default::default(), Default::default()).await
        });
        while watch.moved_bytes() < 4 << 20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(watch.current().unwrap(), Path::new("film"));
        assert_eq!((watch.total_bytes(), watch.total_files()), (16 << 20, 1));
        sending.abort();
        receiving.await.unwrap()
    });
    assert!(lost.unwrap_err().is_connection_lost());
}

#[test]
fn a_transfer_can_be_cancelled_though_the_peer_reads_nothing() {
    let root = tempfile::tempdir().unwrap();
    let received = run(async {
        let (mut liar, mut stream) = tokio::io::duplex(2);
        let offering = async {
            liar.write_all(&offer_bytes(vec![entry(b"a", 4)], None)).await.unwrap();
            liar
        };
        let limits = Limits::default();
        let (_silent, incoming) = tokio::join!(offering, read_offer(&mut stream, &limits));
        let token = kith_transfer::Cancel::new();
        let receiving =
            receive(stream, incoming.unwrap(), into(root.path()), Arc::new(Progress::new()), token.clone());
        // The staging folder is there, so that the acceptance is being said.
        let cancelling = async {
            while names(root.path()).is_empty() {
                tokio::task::yield_now().await;
            }
            token.cancel(kith_transfer::AbortReason::Cancelled);
        };
        let both = async { tokio::join!(receiving, cancelling).0 };
        tokio::time::timeout(std::time::Duration::from_secs(20), both).await.expect("it ends")
    });
    assert!(matches!(received, Err(ReceiveError::Cancelled)), "{received:?}");
}

#[test]
fn what_stands_in_a_small_file_s_place_is_not_sent() {
    let root = tempfile::tempdir().unwrap();
    let (note, secret) = (root.path().join("note"), root.path().join("secret"));
    std::fs::write(&note, b"harmless").unwrap();
    std::fs::write(&secret, b"password").unwrap();
    let offer = Offer::from_paths(std::slice::from_ref(&note)).unwrap();
    std::fs::remove_file(&note).unwrap();
    std::os::unix::fs::symlink(&secret, &note).unwrap();
    let heard = run(async {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let options = SendOptions::new(TransferId([1; 16]));
        let sending = send(near, &offer, options, Default::default(), Default::default());
        let listening = async {
            far.write_all(&encoded(&Frame::Accept)).await.unwrap();
            let mut heard = Vec::new();
            let done = encoded(&Frame::Done);
            while !heard.ends_with(&done) {
                assert_ne!(far.read_buf(&mut heard).await.unwrap(), 0);
            }
            heard
        };
        tokio::select! {
            heard = listening => heard,
            sent = sending => panic!("{sent:?}"),
        }
    });
    let failed = encoded(&Frame::FileFailed(Failed { index: 0, reason: Reason::Changed }));
    assert!(heard.windows(failed.len()).any(|bytes| bytes == failed));
    assert!(!heard.windows(8).any(|bytes| bytes == b"password"), "the secret was sent");
}
