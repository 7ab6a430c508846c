//! The rules of invitations: with clocks that jump, and a machine that dies at every write.

use std::sync::Arc;

use kith_sansio::{Now, SeededRng, Span, Time, Timestamp};
use kith_store::crash::Backend;

use super::*;

const TICKET: Ticket = Ticket::from_bytes([1; 8]);

fn at(utc: u64, secs: u64) -> Now {
    Now { utc: Timestamp(utc), time: Time(0) + Span::secs(secs) }
}

fn who(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

fn row() -> Row {
    let secret = Some(Secret::from_bytes([7; 16]));
    Row {
        called: None,
        offers: false,
        created: 1000,
        expires: 1600,
        stage: Stage::Open,
        ended: 0,
        peer: None,
        secret,
    }
}

fn open() -> Ledger {
    let ledger = Ledger::open(Database::in_memory().unwrap(), at(1000, 0)).unwrap();
    ledger.add(TICKET, row(), at(1000, 0)).unwrap();
    ledger
}

fn is_granted(ledger: &Ledger, peer: u8, now: Now, proves: bool) -> bool {
    matches!(ledger.claim(&TICKET, who(peer), now, |_| proves).unwrap(), Claim::Granted(_))
}

#[test]
fn it_is_good_until_its_time_on_either_clock() {
    assert!(is_granted(&open(), 1, at(1599, 599), true));
    assert!(!is_granted(&open(), 1, at(1600, 10), true), "the wall clock says it is over");
    assert!(!is_granted(&open(), 1, at(1001, 600), true), "the wall clock was set back meanwhile");
    assert!(!is_granted(&open(), 1, at(5000, 1), true), "the wall clock was set forward");
    let ledger = open();
    assert_eq!(ledger.sweep(at(1100, 100)), Some(Span::secs(500)));
    assert_eq!(ledger.sweep(at(1001, 600)), Some(LINGER), "joiners are told so");
    assert_eq!(ledger.sweep(at(1001, 1200)), None);
    assert_eq!(ledger.find(&TICKET).unwrap().stage, Stage::Expired);
    assert!(ledger.find(&TICKET).unwrap().secret.is_none());
}

#[test]
fn a_restart_with_a_clock_set_back_ends_it() {
    let database = Database::in_memory().unwrap();
    let before = Ledger::open(database.clone(), at(1000, 0)).unwrap();
    before.add(TICKET, row(), at(1000, 0)).unwrap();
    drop(before);
    let after = Ledger::open(database.clone(), at(1500, 3)).unwrap();
    assert_eq!(after.sweep(at(1500, 3)), Some(Span::secs(100)));
    assert!(!is_granted(&after, 1, at(1400, 103), true), "what was left at the restart is over");
    drop(after);
    let database = Database::in_memory().unwrap();
    Ledger::open(database.clone(), at(1000, 0)).unwrap().add(TICKET, row(), at(1000, 0)).unwrap();
    let set_back = Ledger::open(database, at(900, 0)).unwrap();
    assert_eq!(set_back.find(&TICKET).unwrap().stage, Stage::Expired);
}

#[test]
fn one_key_has_it_and_may_come_again_until_all_is_done() {
    let ledger = open();
    assert!(is_granted(&ledger, 1, at(1001, 1), true));
    assert!(!is_granted(&ledger, 2, at(1002, 2), true));
    assert!(is_granted(&ledger, 1, at(1003, 3), true));
    ledger.advance(&TICKET, Stage::Answered, at(1004, 4)).unwrap();
    assert!(is_granted(&ledger, 1, at(1004, 4), true));
    assert!(!is_granted(&ledger, 1, at(1004, 4), false), "the same key without the secret");
    ledger.advance(&TICKET, Stage::Joined, at(1004, 4)).unwrap();
    assert!(!is_granted(&ledger, 1, at(1005, 5), true));
    ledger.cancel(&TICKET, at(1006, 6)).unwrap();
    assert_eq!(ledger.find(&TICKET).unwrap().stage, Stage::Joined);
}

#[test]
fn one_that_is_taken_back_says_whether_its_joiner_is_a_contact() {
    for (advanced, ended) in [(false, Stage::Cancelled), (true, Stage::Joined)] {
        let ledger = open();
        assert!(is_granted(&ledger, 1, at(1001, 1), true));
        if advanced {
            ledger.advance(&TICKET, Stage::Answered, at(1004, 4)).unwrap();
        }
        ledger.cancel(&TICKET, at(1006, 6)).unwrap();
        let row = ledger.find(&TICKET).unwrap();
        assert_eq!((row.stage, row.secret.is_some()), (ended, false));
        assert!(!is_granted(&ledger, 1, at(1002, 2), true));
    }
}

#[test]
fn a_joiner_does_not_advance_one_that_has_ended_since_his_claim() {
    let ledger = open();
    assert!(is_granted(&ledger, 1, at(1001, 1), true));
    ledger.cancel(&TICKET, at(1006, 6)).unwrap();
    assert!(!ledger.advance(&TICKET, Stage::Answered, at(1004, 4)).unwrap());
    assert_eq!(ledger.find(&TICKET).unwrap().stage, Stage::Cancelled);
    let ledger = open();
    assert!(is_granted(&ledger, 1, at(1001, 1), true));
    ledger.sweep(at(1600, 600));
    assert!(!ledger.advance(&TICKET, Stage::Answered, at(1004, 4)).unwrap());
    let ledger = open();
    assert!(is_granted(&ledger, 1, at(1001, 1), true));
    for stage in [Stage::Answered, Stage::Answered, Stage::Joined, Stage::Answered] {
        assert!(ledger.advance(&TICKET, stage, at(1004, 4)).unwrap());
    }
    assert_eq!(ledger.find(&TICKET).unwrap().stage, Stage::Joined);
}

#[test]
fn one_guess_burns_it_and_a_wrong_ticket_touches_nothing() {
    let ledger = open();
    let other = Ticket::from_bytes([2; 8]);
    assert!(matches!(ledger.claim(&other, who(3), at(1001, 1), |_| true).unwrap(), Claim::Refused));
    assert_eq!(ledger.find(&TICKET).unwrap().stage, Stage::Open);
    assert!(!is_granted(&ledger, 2, at(1001, 1), false));
    let burnt = ledger.find(&TICKET).unwrap();
    assert!(burnt.stage == Stage::Burnt && burnt.secret.is_none());
    assert!(!is_granted(&ledger, 1, at(1002, 2), true));
}

#[test]
fn open_and_remembered_ones_are_bounded() {
    let ledger = Ledger::open(Database::in_memory().unwrap(), at(1000, 0)).unwrap();
    let number = |n: u16| Ticket::from_bytes([0, 0, 0, 0, 0, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    for n in 0..MAX_OPEN as u16 {
        ledger.add(number(n), row(), at(1000, 0)).unwrap();
    }
    assert!(ledger.add(number(500), row(), at(1000, 0)).is_err());
    for n in 0..200 {
        ledger.cancel(&number(n), at(1000, 0)).unwrap();
        ledger.add(number(n + MAX_OPEN as u16), row(), at(1000, 0)).unwrap();
    }
    assert!(ledger.list().len() <= MAX_OPEN + MAX_ENDED);
    ledger.sweep(at(1600, 600));
    assert_eq!(ledger.list().len(), MAX_ENDED);
    ledger.sweep(at(1600 + KEPT_SECS, 600));
    assert!(ledger.list().is_empty());
}

#[test]
fn ended_ones_are_remembered_by_their_end_and_not_by_the_time_that_they_had() {
    let database = Database::in_memory().unwrap();
    let ledger = Ledger::open(database.clone(), at(1000, 0)).unwrap();
    let long = Ticket::from_bytes([2; 8]);
    ledger.add(TICKET, row(), at(1000, 0)).unwrap();
    ledger.add(long, Row { expires: 1000 + 30 * KEPT_SECS, ..row() }, at(1000, 0)).unwrap();
    ledger.cancel(&long, at(1100, 100)).unwrap();
    drop(ledger);
    // The node was down when the other one's time was over, for longer than ended ones are remembered.
    let late = 1100 + KEPT_SECS;
    let after = Ledger::open(database, at(late, 0)).unwrap();
    assert!(after.find(&long).is_err());
    let expired = after.find(&TICKET).unwrap();
    assert_eq!((expired.stage, expired.ended), (Stage::Expired, late));
    after.sweep(at(late + KEPT_SECS - 1, 900));
    assert!(after.find(&TICKET).is_ok());
    after.sweep(at(late + KEPT_SECS, 901));
    assert!(after.find(&TICKET).is_err());
}

#[test]
fn joiners_are_listened_to_for_a_while_after_the_end_and_across_a_restart() {
    let database = Database::in_memory().unwrap();
    let ledger = Ledger::open(database.clone(), at(1000, 0)).unwrap();
    assert!(!ledger.hears(at(1000, 0)));
    ledger.add(TICKET, row(), at(1000, 0)).unwrap();
    assert!(is_granted(&ledger, 1, at(1001, 1), true));
    ledger.advance(&TICKET, Stage::Joined, at(1010, 10)).unwrap();
    assert!(ledger.hears(at(1609, 609)) && !ledger.hears(at(1610, 610)));
    assert_eq!(ledger.sweep(at(1010, 10)), Some(LINGER));
    assert_eq!(ledger.sweep(at(1610, 610)), None);
    assert_eq!(ledger.open_count(at(1010, 10)), 0);
    drop(ledger);
    let after = Ledger::open(database.clone(), at(1310, 5)).unwrap();
    assert!(after.hears(at(1310, 304)) && !after.hears(at(1310, 305)));
    drop(after);
    assert!(!Ledger::open(database, at(1610, 0)).unwrap().hears(at(1610, 0)));
}

#[test]
fn whoever_only_reads_does_not_wait_for_the_disk() {
    let disk = Backend::new();
    let ledger =
        Arc::new(Ledger::open(Database::open_backend(&disk, 1 << 20).unwrap(), at(1000, 0)).unwrap());
    ledger.add(TICKET, row(), at(1000, 0)).unwrap();
    let held = disk.hold_syncs();
    let before = disk.events();
    let deciding = Arc::clone(&ledger);
    let decided = std::thread::spawn(move || is_granted(&deciding, 1, at(1001, 1), true));
    while disk.events() == before {
        std::thread::yield_now();
    }
    let (tell, read) = std::sync::mpsc::channel();
    let reading = Arc::clone(&ledger);
    std::thread::spawn(move || {
        let now = at(1001, 1);
        let open = (reading.hears(now), reading.open_count(now), reading.list().len());
        tell.send((open, reading.find(&TICKET).unwrap().stage))
    });
    let seen = read.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(seen, ((true, 1, 1), Stage::Open), "and nothing that is not durable");
    drop(held);
    assert!(decided.join().unwrap());
    assert_eq!(ledger.find(&TICKET).unwrap().stage, Stage::Claimed);
}

/// What was told before the machine died holds after it.
#[test]
fn a_machine_that_dies_at_any_write_forgets_no_claim_and_no_guess() {
    for proves in [true, false] {
        let disk = Backend::new();
        let database = Database::open_backend(&disk, 1 << 20).unwrap();
        let ledger = Ledger::open(database, at(1000, 0)).unwrap();
        ledger.add(TICKET, row(), at(1000, 0)).unwrap();
        let before = disk.events();
        assert_eq!(is_granted(&ledger, 1, at(1001, 1), proves), proves);
        let told = disk.events();
        let mut rng = SeededRng::new(7);
        for events in before..=told {
            let image = Backend::with_image(disk.image_at(events, &mut rng));
            let database = Database::open_backend(&image, 1 << 20).unwrap();
            let after = Ledger::open(database, at(1002, 0)).unwrap();
            let stage = after.find(&TICKET).unwrap().stage;
            let decided = if proves { Stage::Claimed } else { Stage::Burnt };
            assert!(stage == decided || events < told && stage == Stage::Open, "{stage:?} at {events}");
            if stage == decided {
                assert!(!is_granted(&after, 2, at(1003, 1), true), "somebody else after it was decided");
                assert_eq!(is_granted(&after, 1, at(1003, 1), true), proves);
            }
        }
    }
}

/// The invitation after a restart, on the disk as it is, at a time when it would be open.
fn after_restart(disk: &Backend) -> Stage {
    let image = Backend::with_image(disk.killed_at(disk.events()));
    let ledger = Ledger::open(Database::open_backend(&image, 1 << 20).unwrap(), at(1010, 0)).unwrap();
    ledger.find(&TICKET).unwrap().stage
}

fn on_disk() -> (Backend, Ledger) {
    let disk = Backend::new();
    let ledger = Ledger::open(Database::open_backend(&disk, 1 << 20).unwrap(), at(1000, 0)).unwrap();
    ledger.add(TICKET, row(), at(1000, 0)).unwrap();
    (disk, ledger)
}

#[test]
fn a_guess_on_a_full_disk_is_answered_when_the_invitation_is_burnt_there_too() {
    let (disk, ledger) = on_disk();
    disk.fail_after(0, std::io::ErrorKind::StorageFull);
    let claim = |peer, secs, proves| ledger.claim(&TICKET, who(peer), at(1000 + secs, secs), |_| proves);
    assert!(claim(2, 1, false).is_err());
    assert!(ledger.find(&TICKET).unwrap().secret.is_none(), "there is no second guess");
    // Whoever comes now hears nothing, since a restart would open it again.
    assert!(claim(1, 2, true).is_err() && claim(2, 2, false).is_err());
    assert!(ledger.cancel(&TICKET, at(1002, 2)).is_err());
    assert_eq!(after_restart(&disk), Stage::Open);
    assert_eq!(ledger.sweep(at(1003, 3)), Some(Span::secs(1)));
    disk.recover();
    assert_eq!(ledger.sweep(at(1004, 4)), Some(Span::secs(597)), "nothing is left but to be heard");
    assert_eq!(after_restart(&disk), Stage::Burnt);
    assert!(matches!(claim(1, 5, true), Ok(Claim::Refused)));
}

#[test]
fn what_a_full_disk_refused_is_stored_when_there_is_room_and_asked_for_less_and_less_often() {
    let (disk, ledger) = on_disk();
    disk.fail_after(0, std::io::ErrorKind::StorageFull);
    let mut now = 600;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let pause = ledger.sweep(at(1000 + now, now)).unwrap();
        pauses.push(pause.as_secs());
        now += pause.as_secs();
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(ledger.find(&TICKET).unwrap().stage, Stage::Expired);
    assert_eq!(after_restart(&disk), Stage::Open);
    disk.recover();
    assert_eq!(ledger.sweep(at(1000 + now - 1, now - 1)), Some(Span::secs(1)), "not before its time");
    ledger.sweep(at(1000 + now, now));
    assert_eq!(after_restart(&disk), Stage::Expired);
}
