//! The rules of invitations: with clocks that jump, and a machine that dies at every write.

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
    Row { called: None, offers: false, created: 1000, expires: 1600, stage: Stage::Open, peer: None, secret }
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
    assert_eq!(ledger.sweep(at(1100, 100)).unwrap(), Some(Span::secs(500)));
    assert_eq!(ledger.sweep(at(1001, 600)).unwrap(), None);
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
    assert_eq!(after.sweep(at(1500, 3)).unwrap(), Some(Span::secs(100)));
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
    ledger.advance(&TICKET, Stage::Answered).unwrap();
    assert!(is_granted(&ledger, 1, at(1004, 4), true));
    assert!(!is_granted(&ledger, 1, at(1004, 4), false), "the same key without the secret");
    ledger.advance(&TICKET, Stage::Joined).unwrap();
    assert!(!is_granted(&ledger, 1, at(1005, 5), true));
    ledger.cancel(&TICKET).unwrap();
    assert_eq!(ledger.find(&TICKET).unwrap().stage, Stage::Joined);
}

#[test]
fn one_that_is_taken_back_says_whether_its_joiner_is_a_contact() {
    for (advanced, ended) in [(false, Stage::Cancelled), (true, Stage::Joined)] {
        let ledger = open();
        assert!(is_granted(&ledger, 1, at(1001, 1), true));
        if advanced {
            ledger.advance(&TICKET, Stage::Answered).unwrap();
        }
        ledger.cancel(&TICKET).unwrap();
        let row = ledger.find(&TICKET).unwrap();
        assert_eq!((row.stage, row.secret.is_some()), (ended, false));
        assert!(!is_granted(&ledger, 1, at(1002, 2), true));
    }
}

#[test]
fn a_joiner_does_not_advance_one_that_has_ended_since_his_claim() {
    let ledger = open();
    assert!(is_granted(&ledger, 1, at(1001, 1), true));
    ledger.cancel(&TICKET).unwrap();
    assert!(!ledger.advance(&TICKET, Stage::Answered).unwrap());
    assert_eq!(ledger.find(&TICKET).unwrap().stage, Stage::Cancelled);
    let ledger = open();
    assert!(is_granted(&ledger, 1, at(1001, 1), true));
    ledger.sweep(at(1600, 600)).unwrap();
    assert!(!ledger.advance(&TICKET, Stage::Answered).unwrap());
    let ledger = open();
    assert!(is_granted(&ledger, 1, at(1001, 1), true));
    for stage in [Stage::Answered, Stage::Answered, Stage::Joined, Stage::Answered] {
        assert!(ledger.advance(&TICKET, stage).unwrap());
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
        ledger.cancel(&number(n)).unwrap();
        ledger.add(number(n + MAX_OPEN as u16), row(), at(1000, 0)).unwrap();
    }
    assert!(ledger.list().len() <= MAX_OPEN + MAX_ENDED);
    ledger.sweep(at(1600, 600)).unwrap();
    assert_eq!(ledger.list().len(), MAX_ENDED);
    ledger.sweep(at(1600 + KEPT_SECS, 600)).unwrap();
    assert!(ledger.list().is_empty());
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
