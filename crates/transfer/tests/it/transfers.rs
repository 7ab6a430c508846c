//! Whole transfers between real folders.

use std::path::{Path, PathBuf};

use kith_transfer::{
    AbortReason, Fault, Offer, ReadError, Reason, ReceiveError, Refusal, SendError, Target, find_partial,
};
use proptest::prelude::*;

use crate::support::*;

fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    std::fs::create_dir(&to).unwrap();
    (root, from, to)
}

/// Gives back rights that a test took away, so that its folder can be removed.
struct Unlock(PathBuf);

impl Drop for Unlock {
    fn drop(&mut self) {
        let _may_be_gone =
            std::fs::set_permissions(&self.0, std::os::unix::fs::PermissionsExt::from_mode(0o755));
    }
}

#[test]
fn a_folder_arrives_identical() {
    let (_root, from, to) = folders();
    let top = holiday(&from);
    let _unlock = [Unlock(top.join("deep/er")), Unlock(to.join("holiday/deep/er"))];
    let (sent, received, _) = transfer(std::slice::from_ref(&top), &into(&to), 1, None);
    let (sent, received) = (sent.unwrap(), received.unwrap());
    assert_eq!(sent, received);
    assert_eq!((received.failures, received.resumed_bytes, received.files), (0, 0, 57));
    assert_eq!(snapshot(&to.join("holiday")), snapshot(&top));
    assert_eq!(names(&to), ["holiday"]);
}

#[test]
fn what_is_there_already_is_not_sent_again() {
    let (_root, from, to) = folders();
    let top = holiday(&from);
    let _unlock = [Unlock(top.join("deep/er")), Unlock(to.join("holiday/deep/er"))];
    transfer(std::slice::from_ref(&top), &into(&to), 1, None).1.unwrap();
    let (sent, received, written) = transfer(std::slice::from_ref(&top), &into(&to), 2, None);
    let received = received.unwrap();
    assert_eq!(sent.unwrap(), received);
    assert_eq!((received.failures, received.files), (0, 57));
    assert_eq!(received.resumed_bytes, received.bytes);
    assert!(written < 20_000, "{written} bytes for nothing");
    assert_eq!(snapshot(&to.join("holiday")), snapshot(&top));
}

#[test]
fn single_files_and_several_paths_arrive() {
    let (_root, from, to) = folders();
    std::fs::create_dir(from.join("b")).unwrap();
    std::fs::write(from.join("a"), b"a").unwrap();
    std::fs::write(from.join("b/c"), b"c").unwrap();
    let paths = [from.join("a"), from.join("b/"), from.join("b/c")];
    let (sent, received, _) = transfer(&paths, &into(&to.join("made/for/it")), 1, None);
    assert_eq!(sent.unwrap().files, 3);
    assert_eq!(received.unwrap().bytes, 3);
    assert_eq!(names(&to.join("made/for/it")), ["a", "b", "c"]);
}

#[test]
fn paths_that_cannot_be_offered_are_told() {
    let (_root, from, to) = folders();
    std::fs::write(from.join("a"), b"").unwrap();
    std::fs::write(to.join("a"), b"").unwrap();
    let offer = |paths: &[PathBuf]| Offer::from_paths(paths).unwrap_err();
    assert!(matches!(offer(&[]), ReadError::NoPaths));
    assert!(matches!(offer(&["/".into()]), ReadError::NoName { .. }));
    assert!(matches!(offer(&[from.join("a"), to.join("a")]), ReadError::SameName { .. }));
    assert!(matches!(offer(&[from.join("b")]), ReadError::Io { .. }));
    assert!(matches!(offer(&["/dev/null".into()]), ReadError::Special { .. }));
}

#[test]
fn special_files_are_left_out_and_told() {
    let (_root, from, to) = folders();
    let pipe = from.join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let offer = Offer::from_paths(&[from]).unwrap();
    assert_eq!(offer.skipped()[0].path, pipe);
    let (sent, ..) = run(transfer_offer(&offer, &into(&to), 1, None));
    assert_eq!(sent.unwrap().failures, 0);
    assert!(names(&to.join("from")).is_empty());
}

#[test]
fn a_different_file_is_not_replaced_unless_asked() {
    let (_root, from, to) = folders();
    for (name, old, new) in
        [("a", "same size", "SAME SIZE"), ("b", "short", "much longer"), ("c", "equal", "equal")]
    {
        std::fs::write(from.join(name), new).unwrap();
        std::fs::create_dir_all(to.join("from")).unwrap();
        std::fs::write(to.join("from").join(name), old).unwrap();
    }
    let (sent, received, _) = transfer(std::slice::from_ref(&from), &into(&to), 1, None);
    let received = received.unwrap();
    assert_eq!(sent.unwrap(), received);
    let failed: Vec<_> = received.failed.iter().map(|f| (f.path.to_str().unwrap(), f.reason)).collect();
    let mut sorted = failed.clone();
    sorted.sort_by_key(|(path, _)| path.to_string());
    assert_eq!(sorted, [("from/a", Reason::Exists), ("from/b", Reason::Exists)]);
    assert_eq!((received.files, received.failures, received.resumed_bytes), (1, 2, 5));
    assert_eq!(std::fs::read(to.join("from/a")).unwrap(), b"same size");

    let target = Target { overwrite: true, ..into(&to) };
    assert_eq!(transfer(std::slice::from_ref(&from), &target, 2, None).1.unwrap().failures, 0);
    assert_eq!(snapshot(&from), snapshot(&to.join("from")));
}

#[test]
fn a_file_that_is_being_replaced_goes_on_where_the_connection_was_lost() {
    let (_root, from, to) = folders();
    let paths = [from.join("a")];
    std::fs::write(&paths[0], bytes(6 << 20, 1)).unwrap();
    std::fs::write(to.join("a"), bytes(6 << 20, 2)).unwrap();
    let target = Target { overwrite: true, ..into(&to) };
    let (sent, _, _) = transfer(&paths, &target, 9, Some((4 << 20) + 5000));
    assert!(sent.unwrap_err().is_connection_lost());
    assert_eq!(std::fs::read(to.join("a")).unwrap(), bytes(6 << 20, 2), "the old one stays until then");
    let summary = transfer(&paths, &target, 9, None).0.unwrap();
    assert!(summary.resumed_bytes >= 3 << 20, "{}", summary.resumed_bytes);
    assert_eq!(std::fs::read(to.join("a")).unwrap(), bytes(6 << 20, 1));
}

#[test]
fn planted_links_are_neither_followed_nor_replaced() {
    let (root, from, to) = folders();
    let outside = root.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), b"mine").unwrap();
    std::fs::create_dir(from.join("sub")).unwrap();
    for name in ["sub/one", "two", "precious"] {
        std::fs::write(from.join(name), b"new").unwrap();
    }
    std::fs::create_dir(to.join("from")).unwrap();
    std::os::unix::fs::symlink(&outside, to.join("from/sub")).unwrap();
    std::os::unix::fs::symlink(outside.join("precious"), to.join("from/precious")).unwrap();
    std::os::unix::fs::symlink(outside.join("made"), to.join("from/two")).unwrap();
    let (_, received, _) = transfer(std::slice::from_ref(&from), &into(&to), 1, None);
    let received = received.unwrap();
    assert_eq!((received.files, received.failures), (0, 4), "{received:?}");
    assert_eq!(names(&outside), ["precious"]);
    assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"mine");

    // Overwriting replaces the link to a file, not what it points to; a link to a folder stays in the way.
    let received = transfer(&[from], &Target { overwrite: true, ..into(&to) }, 2, None).1.unwrap();
    assert_eq!((received.files, received.failures), (2, 2), "{received:?}");
    assert_eq!(names(&outside), ["precious"]);
    assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"mine");
    assert!(!to.join("from/two").is_symlink());
}

#[test]
fn a_folder_that_was_there_keeps_its_mode_unless_asked() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (_root, from, to) = folders();
    for place in ["private", "private/below", "new"] {
        std::fs::create_dir(from.join(place)).unwrap();
        std::fs::write(from.join(place).join("file"), bytes(2 << 20, 1)).unwrap();
        std::fs::set_permissions(from.join(place), PermissionsExt::from_mode(0o777)).unwrap();
    }
    std::fs::create_dir_all(to.join("from/private")).unwrap();
    std::fs::set_permissions(to.join("from/private"), PermissionsExt::from_mode(0o700)).unwrap();
    // A lost connection in between does not make the transfer take old folders for its own, or its own for old ones.
    transfer(std::slice::from_ref(&from), &into(&to), 1, Some(3 << 20)).1.unwrap_err();
    let target = Target { staging: Some(kith_transfer::TransferId([1; 16])), ..into(&to) };
    transfer(std::slice::from_ref(&from), &target, 2, None).1.unwrap();
    assert_eq!(mode(&to.join("from/private")), 0o700);
    assert_eq!((mode(&to.join("from/private/below")), mode(&to.join("from/new"))), (0o777, 0o777));
    let target = Target { overwrite: true, ..into(&to) };
    transfer(&[from], &target, 3, None).1.unwrap();
    assert_eq!(mode(&to.join("from/private")), 0o777);
}

#[test]
fn a_link_that_cannot_be_replaced_is_in_no_other_s_way() {
    let (_root, from, to) = folders();
    for name in ["a", "b"] {
        std::os::unix::fs::symlink("new", from.join(name)).unwrap();
    }
    std::fs::create_dir_all(to.join("from/a")).unwrap();
    std::os::unix::fs::symlink("old", to.join("from/b")).unwrap();
    let target = Target { overwrite: true, ..into(&to) };
    let received = transfer(&[from], &target, 1, None).1.unwrap();
    assert_eq!(received.failed.len(), 1, "{received:?}");
    assert_eq!(std::fs::read_link(to.join("from/b")).unwrap(), Path::new("new"));
}

#[test]
fn a_link_at_the_place_of_the_staging_folder_is_refused() {
    let (root, from, to) = folders();
    std::fs::write(from.join("a"), b"a").unwrap();
    let elsewhere = root.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, to.join(format!(".kith-partial-{}", "01".repeat(16)))).unwrap();
    let (sent, received, _) = transfer(&[from], &into(&to), 1, None);
    assert!(matches!(received, Err(ReceiveError::Storage { .. })), "{received:?}");
    assert!(matches!(sent, Err(SendError::Refused(Refusal::Storage))), "{sent:?}");
    assert!(names(&elsewhere).is_empty());
}

#[test]
fn files_that_change_or_vanish_fail_alone() {
    let (_root, from, to) = folders();
    for name in ["changed", "fine", "grown", "linked", "vanished"] {
        std::fs::write(from.join(name), bytes(5000, 1)).unwrap();
    }
    let offer = Offer::from_paths(std::slice::from_ref(&from)).unwrap();
    std::fs::write(from.join("changed"), bytes(5000, 2)).unwrap();
    set_time(&from.join("changed"), 1, 1);
    std::fs::write(from.join("grown"), bytes(5001, 2)).unwrap();
    std::fs::remove_file(from.join("vanished")).unwrap();
    std::fs::remove_file(from.join("linked")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", from.join("linked")).unwrap();
    let (sent, received, _) = run(transfer_offer(&offer, &into(&to), 1, None));
    let summary = sent.unwrap();
    assert_eq!(summary, received.unwrap());
    let reasons: Vec<_> = summary.failed.iter().map(|failed| failed.reason).collect();
    assert_eq!(reasons, [Reason::Changed, Reason::Changed, Reason::Changed, Reason::Vanished]);
    assert_eq!(names(&to.join("from")), ["fine"]);
}

#[test]
fn an_unfinished_transfer_of_the_same_offer_is_found_and_resumed() {
    let (_root, from, to) = folders();
    std::fs::write(from.join("film"), bytes(8 << 20, 3)).unwrap();
    let paths = [from.join("film")];
    let digest = Offer::from_paths(&paths).unwrap().offer().digest();
    assert_eq!(find_partial(&to, &digest), None);
    let (sent, received, _) = transfer(&paths, &into(&to), 1, Some(5 << 20));
    assert!(sent.unwrap_err().is_connection_lost());
    assert!(received.unwrap_err().is_connection_lost());
    assert!(!to.join("film").exists());
    let staging = find_partial(&to, &digest);
    assert!(staging.is_some());
    assert_eq!(find_partial(&to, &[0; 32]), None);
    let (sent, received, written) = transfer(&paths, &Target { staging, ..into(&to) }, 2, None);
    assert_eq!(sent.unwrap(), received.unwrap());
    assert!(written < (4 << 20) + 4096, "{written}");
    assert_eq!(std::fs::read(to.join("film")).unwrap(), bytes(8 << 20, 3));
    assert_eq!(names(&to), ["film"]);
}

#[test]
fn a_tampered_partial_file_is_not_trusted() {
    let (_root, from, to) = folders();
    std::fs::write(from.join("film"), bytes(8 << 20, 3)).unwrap();
    transfer(&[from.join("film")], &into(&to), 1, Some(6 << 20)).1.unwrap_err();
    let partial = to.join(format!(".kith-partial-{}/0", "01".repeat(16)));
    let mut content = std::fs::read(&partial).unwrap();
    content[2 << 20] ^= 1;
    std::fs::write(&partial, content).unwrap();
    let received = transfer(&[from.join("film")], &into(&to), 1, None).1.unwrap();
    assert_eq!(received.resumed_bytes, 2 << 20);
    assert_eq!(std::fs::read(to.join("film")).unwrap(), bytes(8 << 20, 3));
}

#[test]
fn a_target_that_cannot_be_written_is_refused() {
    let (_root, from, _) = folders();
    std::fs::write(from.join("a"), b"a").unwrap();
    for dir in ["/proc/self", "/dev/null"] {
        let (sent, received, _) = transfer(std::slice::from_ref(&from), &into(Path::new(dir)), 1, None);
        assert!(matches!(received, Err(ReceiveError::Storage { .. })), "{dir}: {received:?}");
        assert!(matches!(sent, Err(SendError::Refused(Refusal::Storage))), "{dir}: {sent:?}");
    }
}

#[test]
fn more_than_the_free_space_is_refused_before_anything_is_sent() {
    let (_root, from, to) = folders();
    let sparse = std::fs::File::create(from.join("sparse")).unwrap();
    if sparse.set_len(8 << 40).is_err() {
        return kith_vnet::unable("a file system with sparse files of 8 TiB");
    }
    let (sent, received, written) = transfer(std::slice::from_ref(&from), &into(&to), 1, None);
    assert!(matches!(received, Err(ReceiveError::NoSpace { .. })), "{received:?}");
    assert!(matches!(sent, Err(SendError::Refused(Refusal::NoSpace))), "{sent:?}");
    assert!(written < 1000);
    assert!(names(&to).is_empty());
}

/// A small file system of its own, while it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        let mount = ["-t", "tmpfs", "-o", "size=8m", "none"];
        let done = std::process::Command::new("mount").args(mount).arg(at).output();
        done.is_ok_and(|output| output.status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ends_with_the_namespace = std::process::Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn a_disk_that_fills_up_ends_the_transfer_and_keeps_the_parts() {
    let (_root, from, to) = folders();
    let Some(_disk) = SmallDisk::mount(&to) else {
        return kith_vnet::skipped("root");
    };
    std::fs::write(from.join("film"), bytes(6 << 20, 3)).unwrap();
    std::fs::write(from.join("other"), bytes(1 << 20, 3)).unwrap();
    let offer = Offer::from_paths(std::slice::from_ref(&from)).unwrap();
    let (sent, received) = run(async {
        // The space goes away between the check and the writing.
        let (near, mut far, _) = link(None);
        let options = kith_transfer::SendOptions::new(kith_transfer::TransferId([1; 16]));
        let progress = std::sync::Arc::new(kith_transfer::Progress::new());
        let sending = kith_transfer::send(near, &offer, options, progress, Default::default());
        let receiving = async {
            let incoming = kith_transfer::read_offer(&mut far, &Default::default()).await.unwrap();
            let target = into(&to);
            let progress = std::sync::Arc::new(kith_transfer::Progress::new());
            let watch = std::sync::Arc::clone(&progress);
            let eater = async {
                while watch.moved_bytes() == 0 {
                    tokio::task::yield_now().await;
                }
                let _until_full = std::fs::write(to.join("eater"), bytes(7 << 20, 1));
            };
            tokio::join!(kith_transfer::receive(far, incoming, target, progress, Default::default()), eater).0
        };
        tokio::join!(sending, receiving)
    });
    assert!(matches!(received, Err(ReceiveError::DiskFull { .. })), "{received:?}");
    assert!(matches!(sent, Err(SendError::Aborted(AbortReason::DiskFull))), "{sent:?}");
    std::fs::remove_file(to.join("eater")).unwrap();
    let received = transfer(std::slice::from_ref(&from), &into(&to), 1, None).1.unwrap();
    assert_eq!(received.failures, 0);
    assert_eq!(snapshot(&from), snapshot(&to.join("from")));
}

#[test]
fn a_transfer_can_be_cancelled_from_either_side() {
    let (_root, from, to) = folders();
    std::fs::write(from.join("film"), bytes(64 << 20, 3)).unwrap();
    let offer = Offer::from_paths(&[from]).unwrap();
    for sender_cancels in [true, false] {
        let (sent, received) = run(async {
            let (near, mut far, _) = link(None);
            let options = kith_transfer::SendOptions::new(kith_transfer::TransferId([1; 16]));
            let token = kith_transfer::Cancel::new();
            let never = kith_transfer::Cancel::new();
            let (first, second) = if sender_cancels { (&token, &never) } else { (&never, &token) };
            let progress = std::sync::Arc::new(kith_transfer::Progress::new());
            let watch = std::sync::Arc::clone(&progress);
            let sending = kith_transfer::send(near, &offer, options, progress, first.clone());
            let receiving = async {
                let incoming = kith_transfer::read_offer(&mut far, &Default::default()).await.unwrap();
                let progress = std::sync::Arc::new(kith_transfer::Progress::new());
                kith_transfer::receive(far, incoming, into(&to), progress, second.clone()).await
            };
            let cancelling = async {
                while watch.moved_bytes() < 2 << 20 {
                    tokio::task::yield_now().await;
                }
                token.cancel(kith_transfer::AbortReason::Cancelled);
            };
            let (sent, received, ()) = tokio::join!(sending, receiving, cancelling);
            (sent.unwrap_err(), received.unwrap_err())
        });
        if sender_cancels {
            assert!(matches!(sent, SendError::Cancelled));
            assert!(matches!(received, ReceiveError::Aborted(AbortReason::Cancelled)), "{received:?}");
        } else {
            assert!(matches!(sent, SendError::Aborted(AbortReason::Cancelled)), "{sent:?}");
            assert!(matches!(received, ReceiveError::Cancelled));
            assert_eq!(received.fault(), Fault::Caller);
        }
    }
}

#[test]
fn a_transfer_paused_on_either_side_says_so_and_goes_on_later() {
    for sender_pauses in [true, false] {
        let (_root, from, to) = folders();
        std::fs::write(from.join("film"), bytes(48 << 20, 3)).unwrap();
        let offer = Offer::from_paths(std::slice::from_ref(&from)).unwrap();
        let (sent, received) = run(async {
            let (near, mut far, _) = link(None);
            let options = kith_transfer::SendOptions::new(kith_transfer::TransferId([1; 16]));
            let (pause, never) = (kith_transfer::Cancel::new(), kith_transfer::Cancel::new());
            let (first, second) = if sender_pauses { (&pause, &never) } else { (&never, &pause) };
            // What is on its way when the pause comes, to the receiver or to its disk, is asked for again.
            let arrived = std::sync::Arc::new(kith_transfer::Progress::new());
            let watch = std::sync::Arc::clone(&arrived);
            let sending = kith_transfer::send(near, &offer, options, Default::default(), first.clone());
            let receiving = async {
                let incoming = kith_transfer::read_offer(&mut far, &Default::default()).await.unwrap();
                kith_transfer::receive(far, incoming, into(&to), arrived, second.clone()).await
            };
            let pausing = async {
                while watch.moved_bytes() < 24 << 20 {
                    tokio::task::yield_now().await;
                }
                pause.cancel(AbortReason::Paused);
            };
            let (sent, received, ()) = tokio::join!(sending, receiving, pausing);
            (sent.unwrap_err(), received.unwrap_err())
        });
        if sender_pauses {
            assert!(matches!(sent, SendError::Cancelled), "{sent:?}");
            assert!(received.is_paused(), "{received:?}");
        } else {
            assert!(sent.is_paused() && !sent.is_connection_lost(), "{sent:?}");
            assert!(matches!(received, ReceiveError::Cancelled), "{received:?}");
        }
        let again = run(transfer_offer(&offer, &into(&to), 1, None)).0.unwrap();
        assert!(again.resumed_bytes >= 1 << 20, "{}", again.resumed_bytes);
        assert_eq!(snapshot(&from), snapshot(&to.join("from")));
    }
}

#[test]
fn a_receiver_that_is_paused_before_it_has_looked_at_its_folder_refuses_for_now() {
    let (_root, from, to) = folders();
    std::fs::write(from.join("a"), b"a").unwrap();
    let offer = Offer::from_paths(&[from]).unwrap();
    let (sent, received) = run(async {
        let (near, mut far, _) = link(None);
        let options = kith_transfer::SendOptions::new(kith_transfer::TransferId([1; 16]));
        let sending = kith_transfer::send(near, &offer, options, Default::default(), Default::default());
        let receiving = async {
            let incoming = kith_transfer::read_offer(&mut far, &Default::default()).await.unwrap();
            let paused = kith_transfer::Cancel::new();
            paused.cancel(AbortReason::Paused);
            kith_transfer::receive(far, incoming, into(&to), Default::default(), paused).await
        };
        tokio::join!(sending, receiving)
    });
    // Whether the folder was looked at in this moment or not: it goes on later.
    assert!(sent.unwrap_err().is_paused());
    assert!(matches!(received, Err(ReceiveError::Cancelled)), "{received:?}");
}

#[test]
fn a_notice_tells_each_side_how_the_transfer_stands_at_the_other() {
    use kith_transfer::{Opening, Standing, TransferId};
    run(async {
        let (near, mut far, _) = link(None);
        let id = TransferId([3; 16]);
        let hearing = async {
            let opening = kith_transfer::read_opening(&mut far, &Default::default()).await.unwrap();
            let Opening::Notice(notice) = opening else { panic!("{opening:?}") };
            assert_eq!((notice.id, notice.standing), (id.0, Standing::Paused));
            kith_transfer::answer(far, id, Standing::Going).await.unwrap();
        };
        let (theirs, ()) = tokio::join!(kith_transfer::notify(near, id, Standing::Paused), hearing);
        assert_eq!(theirs.unwrap(), Standing::Going);
        let (near, far, _) = link(None);
        let wrong = kith_transfer::answer(far, TransferId([4; 16]), Standing::Going);
        let (theirs, _) = tokio::join!(kith_transfer::notify(near, id, Standing::Over), wrong);
        assert_eq!(theirs.unwrap_err().fault(), Fault::Peer);
    });
}

#[test]
fn a_transfer_within_limits_arrives_whole() {
    use kith_transfer::{Limit, Paced};
    let (_root, from, to) = folders();
    std::fs::write(from.join("a"), bytes(3 << 20, 1)).unwrap();
    let offer = Offer::from_paths(std::slice::from_ref(&from)).unwrap();
    let limit = |rate: &str| Limit::new(Some(rate.parse().unwrap()));
    run(async {
        let (near, far, _) = link(None);
        let (slow, fast) = (limit("256MiB/s"), limit("512MiB/s"));
        let near = Paced::new(near, vec![slow.clone(), fast.clone()], vec![fast.clone()]);
        let mut far = Paced::new(far, vec![fast.clone()], vec![slow.clone(), fast]);
        let options = kith_transfer::SendOptions::new(kith_transfer::TransferId([1; 16]));
        let sending = kith_transfer::send(near, &offer, options, Default::default(), Default::default());
        let receiving = async {
            let incoming = kith_transfer::read_offer(&mut far, &Default::default()).await.unwrap();
            kith_transfer::receive(far, incoming, into(&to), Default::default(), Default::default()).await
        };
        let (sent, received) = tokio::join!(sending, receiving);
        assert_eq!(sent.unwrap(), received.unwrap());
        slow.set(None);
        assert_eq!(slow.rate(), None);
    });
    assert_eq!(snapshot(&from), snapshot(&to.join("from")));
}

#[test]
fn a_link_that_leads_nowhere_is_sent_as_a_link() {
    let (_root, from, to) = folders();
    for (name, target) in [("nowhere", "missing/target"), ("itself", "itself")] {
        let link = from.join(name);
        std::os::unix::fs::symlink(target, &link).unwrap();
        transfer(&[link], &into(&to), 1, None).0.unwrap();
        assert_eq!(std::fs::read_link(to.join(name)).unwrap(), Path::new(target));
    }
}

#[test]
fn nobody_accepting_ends_the_offer() {
    let (_root, from, _to) = folders();
    std::fs::write(from.join("a"), b"a").unwrap();
    let offer = Offer::from_paths(&[from]).unwrap();
    let progress = std::sync::Arc::new(kith_transfer::Progress::new());
    let sent = run(async {
        let (near, _far, _) = link(None);
        let mut options = kith_transfer::SendOptions::new(kith_transfer::TransferId([1; 16]));
        options.accept_within = kith_sansio::Span::millis(20);
        let sent = kith_transfer::send(near, &offer, options, progress.clone(), Default::default()).await;
        let accepted = tokio::time::timeout(std::time::Duration::from_millis(1), progress.accepted());
        assert!(accepted.await.is_err(), "nobody has accepted it");
        sent
    });
    assert!(matches!(sent, Err(SendError::Unanswered { .. })), "{sent:?}");
}

#[test]
fn an_accepted_transfer_waits_for_its_gate_and_can_be_cancelled_there() {
    use kith_transfer::{Cancel, Gate, Progress, SendOptions, TransferId};
    for opens in [true, false] {
        let (_root, from, to) = folders();
        std::fs::write(from.join("a"), vec![7; 3 << 20]).unwrap();
        let offer = Offer::from_paths(std::slice::from_ref(&from)).unwrap();
        let (gate, cancel, progress) = (Gate::new(), Cancel::new(), std::sync::Arc::new(Progress::new()));
        let (sent, received) = run(async {
            let (near, mut far, written) = link(None);
            let options = SendOptions { gate: gate.clone(), ..SendOptions::new(TransferId([1; 16])) };
            let sending = kith_transfer::send(near, &offer, options, progress.clone(), cancel.clone());
            let receiving = async {
                let incoming = kith_transfer::read_offer(&mut far, &Default::default()).await?;
                kith_transfer::receive(far, incoming, into(&to), Default::default(), Default::default()).await
            };
            let deciding = async {
                progress.accepted().await;
                let before = written.load(std::sync::atomic::Ordering::Relaxed);
                for _ in 0..1_000 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(written.load(std::sync::atomic::Ordering::Relaxed), before);
                if opens { gate.open() } else { cancel.cancel(AbortReason::Cancelled) }
            };
            let (sent, received, ()) = tokio::join!(sending, receiving, deciding);
            (sent, received)
        });
        if opens {
            assert_eq!(sent.unwrap(), received.unwrap());
            assert_eq!(snapshot(&from), snapshot(&to.join("from")));
        } else {
            assert!(matches!(sent, Err(SendError::Cancelled)), "{sent:?}");
            assert!(matches!(received, Err(ReceiveError::Aborted(AbortReason::Cancelled))), "{received:?}");
        }
    }
}

#[test]
fn a_refusal_reaches_the_sender_and_a_withdrawal_the_receiver() {
    let (_root, from, _to) = folders();
    std::fs::write(from.join("a"), b"a").unwrap();
    let offer = Offer::from_paths(&[from]).unwrap();
    for withdraw in [false, true] {
        let cancel = kith_transfer::Cancel::new();
        let (sent, ()) = run(async {
            let (near, mut far, _) = link(None);
            let options = kith_transfer::SendOptions::new(kith_transfer::TransferId([1; 16]));
            let sending = kith_transfer::send(near, &offer, options, Default::default(), cancel.clone());
            let receiving = async {
                let mut incoming = kith_transfer::read_offer(&mut far, &Default::default()).await.unwrap();
                if withdraw {
                    cancel.cancel(kith_transfer::AbortReason::Cancelled);
                    let error = incoming.withdrawn(&mut far).await;
                    assert!(matches!(error, ReceiveError::Aborted(AbortReason::Cancelled)), "{error:?}");
                } else {
                    kith_transfer::refuse(&mut far, Refusal::Declined).await.unwrap();
                }
            };
            tokio::join!(sending, receiving)
        });
        match sent {
            Err(SendError::Cancelled) => assert!(withdraw),
            Err(SendError::Refused(Refusal::Declined)) => assert!(!withdraw),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_transfers_do_not_share_one_staging_folder() {
    let (_root, from, to) = folders();
    std::fs::write(from.join("a"), bytes(4 << 20, 1)).unwrap();
    let offer = Offer::from_paths(&[from]).unwrap();
    run(async {
        let (near, mut far, _) = link(None);
        let options = kith_transfer::SendOptions::new(kith_transfer::TransferId([1; 16]));
        let sending = kith_transfer::send(near, &offer, options, Default::default(), Default::default());
        let receiving = async {
            let incoming = kith_transfer::read_offer(&mut far, &Default::default()).await.unwrap();
            let staging = to.join(format!(".kith-partial-{}", "01".repeat(16)));
            std::fs::create_dir(&staging).unwrap();
            let held = std::fs::File::open(&staging).unwrap();
            held.lock().unwrap();
            let received =
                kith_transfer::receive(far, incoming, into(&to), Default::default(), Default::default())
                    .await;
            assert!(matches!(received, Err(ReceiveError::Busy { .. })), "{received:?}");
        };
        let (sent, ()) = tokio::join!(sending, receiving);
        assert!(matches!(sent, Err(SendError::Refused(Refusal::Busy))), "{sent:?}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn an_interrupted_transfer_is_resumed_until_it_is_whole(cuts in proptest::collection::vec(0u64..9 << 20, 1..4)) {
        let (_root, from, to) = folders();
        let top = from.join("tree");
        std::fs::create_dir_all(top.join("sub")).unwrap();
        std::fs::write(top.join("a"), bytes((3 << 20) + 5, 1)).unwrap();
        for number in 0..40 {
            std::fs::write(top.join(format!("sub/{number}")), bytes(number * 1000, number as u64)).unwrap();
        }
        std::fs::write(top.join("z"), bytes(5 << 20, 2)).unwrap();
        let paths = [top.clone()];
        let digest = Offer::from_paths(&paths).unwrap().offer().digest();
        let mut total = 0;
        let rounds = cuts.len() as u64;
        for (round, cut) in (1..).zip(cuts.into_iter().map(Some).chain([None])) {
            let target = Target { staging: find_partial(&to, &digest), ..into(&to) };
            let (sent, received, written) = transfer(&paths, &target, round, cut);
            total += written;
            if let Err(error) = &sent {
                prop_assert!(error.is_connection_lost(), "{error:?}");
            }
            if cut.is_none() {
                prop_assert_eq!(sent.unwrap(), received.unwrap());
            }
        }
        prop_assert_eq!(snapshot(&top), snapshot(&to.join("tree")));
        prop_assert_eq!(names(&to), ["tree"]);
        // Per cut: the group that was broken off, what was in flight, the offer and the proof again.
        let offered = (8 << 20) + 5 + 780_000;
        prop_assert!(total < offered + (rounds + 1) * (1_200_000 + 80_000) + 100_000, "{} for {}", total, offered);
    }
}
