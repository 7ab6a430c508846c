use kith_identity::contacts::{
    Contact, ContactError, Contacts, Group, Hint, HintError, MAX_HINTS, NameError, Petname,
};
use kith_identity::{Fingerprint, Ni, Transport};
use kith_sansio::Timestamp;

use crate::support::{MADE, ZERO};

fn contact(name: &str, seed: u8) -> Contact {
    let ni = Ni::new(Fingerprint::from_bytes([seed; 32]), None);
    Contact::new(name.parse().unwrap(), ni, MADE)
}

fn book() -> Contacts {
    Contacts::from_rows([contact("alice", 1), contact("Bob", 2), contact("Ærøskøbing 7", 3)]).unwrap()
}

#[test]
fn petnames_are_checked() {
    for name in
        ["a", "Alice", "my laptop", "Ærø", "a.b-c_d", "李", "nino", "ni", &"ü".repeat(64), "o'neil", "👩"]
    {
        assert_eq!(name.parse::<Petname>().unwrap().as_str(), name);
    }
    let refuse = |name: &str| name.parse::<Petname>().unwrap_err();
    assert_eq!(refuse(""), NameError::Length(0));
    assert_eq!(refuse(&"x".repeat(65)), NameError::Length(65));
    assert!(matches!(refuse("a/b"), NameError::Slash(_)));
    assert!(matches!(refuse("-a"), NameError::Dash(_)));
    assert!(matches!(refuse(&format!("ni:///sha3-256;{ZERO}")), NameError::Slash(_)));
    assert!(matches!(refuse("ni:alice"), NameError::Fingerprint(_)));
    assert!(matches!(refuse("NI:alice"), NameError::Fingerprint(_)));
    for blank in [" a", "a ", " ", "\u{a0}a"] {
        assert!(matches!(refuse(blank), NameError::Blank(_)), "{blank:?}");
    }
    for unseen in ["a\nb", "a\0", "\u{1b}[31m", "a\u{202e}b", "a\u{200b}", "\u{feff}a", "a\u{85}"] {
        assert!(matches!(refuse(unseen), NameError::Invisible(_)), "{unseen:?}");
    }
}

#[test]
fn group_names_are_checked() {
    for name in ["a", "sensors", "floor-2", "7"] {
        assert_eq!(name.parse::<Group>().unwrap().as_str(), name);
    }
    for name in ["", "A", "-a", "a b", "ä", "a:b", &"a".repeat(33)] {
        assert!(matches!(name.parse::<Group>(), Err(NameError::Group(_))), "{name}");
    }
}

#[test]
fn hints_name_a_host_or_an_address() {
    let hint: Hint = "quic://Home.example:4433".parse().unwrap();
    assert_eq!((hint.transport(), hint.host(), hint.port()), (Transport::Quic, "home.example", 4433));
    assert_eq!((hint.address(), hint.to_string().as_str()), (None, "quic://home.example:4433"));
    let hint: Hint = "tcp://[2001:db8::1]:443".parse().unwrap();
    assert_eq!(hint.address().unwrap().to_string(), "tcp://[2001:db8::1]:443");
    assert_eq!(
        "tcp://127.0.0.1:1".parse::<Hint>().unwrap().address().unwrap().to_string(),
        "tcp://127.0.0.1:1"
    );
    for wrong in ["", "home:1", "dtls://home:1", "http://home:1", "QUIC://home:1"] {
        assert!(matches!(wrong.parse::<Hint>(), Err(HintError::Scheme(_))), "{wrong}");
    }
    assert!(matches!("tcp://home".parse::<Hint>(), Err(HintError::NoPort(_))));
    for wrong in ["tcp://home:0", "tcp://home:1/x", "tcp://a b:1", "tcp://me@home:1", "tcp://:1", "tcp://"] {
        assert!(matches!(wrong.parse::<Hint>(), Err(HintError::Host(_))), "{wrong}");
    }
}

#[test]
fn contacts_are_found_by_name_and_by_fingerprint() {
    let book = book();
    let bob = Fingerprint::from_bytes([2; 32]);
    for who in
        ["Bob", "bob", "BOB", &format!("ni:///sha3-256;{bob}"), &format!("ni://example.org/sha3-256;{bob}")]
    {
        assert_eq!(book.find(who).unwrap().name.as_str(), "Bob", "{who}");
    }
    assert_eq!(book.find("ÆRØSKØBING 7").unwrap().ni.fingerprint, Fingerprint::from_bytes([3; 32]));
    assert!(book.find("carol").is_none() && book.find("").is_none());
    assert!(book.trusts(&bob) && !book.trusts(&Fingerprint::from_bytes([9; 32])));
    assert_eq!(book.by_fingerprint(&bob).unwrap().name.as_str(), "Bob");
    assert_eq!(
        book.iter().map(|contact| contact.name.as_str()).collect::<Vec<_>>(),
        ["alice", "Bob", "Ærøskøbing 7"]
    );
}

#[test]
fn clashes_are_named_and_change_nothing() {
    let mut book = book();
    let before = book.clone();
    let name = |name: &str| name.parse::<Petname>().unwrap();
    let holder = Fingerprint::from_bytes([1; 32]);
    assert_eq!(book.add(contact("ALICE", 9)), Err(ContactError::NameTaken { name: name("alice"), holder }));
    let known = ContactError::Known { fingerprint: holder, name: name("alice") };
    assert_eq!(book.add(contact("carol", 1)), Err(known));
    assert_eq!(
        book.rename("bob", name("Alice")),
        Err(ContactError::NameTaken { name: name("alice"), holder })
    );
    assert_eq!(book.rename("carol", name("dave")), Err(ContactError::Unknown("carol".into())));
    assert_eq!(book.remove("carol"), Err(ContactError::Unknown("carol".into())));
    assert!(matches!(book.replace(contact("carol", 9)), Err(ContactError::Unknown(_))));
    assert!(matches!(book.replace(contact("alice", 2)), Err(ContactError::NameTaken { .. })));
    let mut hinted = contact("carol", 9);
    hinted.hints = vec!["tcp://home:1".parse().unwrap(); MAX_HINTS + 1];
    assert_eq!(book.add(hinted), Err(ContactError::TooManyHints));
    assert_eq!(book, before);
    assert!(matches!(
        Contacts::from_rows([contact("a", 1), contact("A", 2)]),
        Err(ContactError::NameTaken { .. })
    ));
}

#[test]
fn contacts_are_renamed_replaced_and_removed() {
    let mut book = book();
    book.rename("alice", "ALICE".parse().unwrap()).unwrap();
    book.rename("bob", "robert".parse().unwrap()).unwrap();
    assert!(book.find("bob").is_none());
    assert_eq!(book.find("robert").unwrap().ni.fingerprint, Fingerprint::from_bytes([2; 32]));
    let mut alice = book.find("alice").unwrap().clone();
    assert_eq!(alice.name.as_str(), "ALICE");
    alice.hints.push("quic://home:1".parse().unwrap());
    assert!(book.replace(alice.clone()).unwrap().hints.is_empty());
    assert_eq!(book.remove("Alice").unwrap(), alice);
    assert!(!book.trusts(&alice.ni.fingerprint) && book.find("alice").is_none());
    assert_eq!(book.len(), 2);
    book.add(alice).unwrap();
}

#[test]
fn groups_gather_their_contacts() {
    let mut alice = contact("alice", 1);
    alice.groups = ["sensors", "hubs"].map(|group| group.parse().unwrap()).into();
    let mut bob = contact("bob", 2);
    bob.groups = [("sensors".parse::<Group>().unwrap())].into();
    let book = Contacts::from_rows([bob, alice, contact("carol", 3)]).unwrap();
    let groups: Vec<_> =
        book.groups().into_iter().map(|(group, members)| (group.to_string(), members.len())).collect();
    assert_eq!(groups, [("hubs".to_owned(), 1), ("sensors".to_owned(), 2)]);
    let sensors = "sensors".parse().unwrap();
    assert_eq!(
        book.members(&sensors).map(|contact| contact.name.as_str()).collect::<Vec<_>>(),
        ["alice", "bob"]
    );
}

#[test]
fn a_contact_is_one_readable_row_and_is_checked_when_read() {
    let mut alice = contact("Alice", 0);
    alice.ni = format!("ni://example.org/sha3-256;{ZERO}").parse().unwrap();
    alice.hints = vec!["quic://home.example:4433".parse().unwrap()];
    alice.groups = ["hubs".parse::<Group>().unwrap()].into();
    let row = serde_json::to_string(&alice).unwrap();
    let expected = format!(
        r#"{{"name":"Alice","ni":"ni://example.org/sha3-256;{ZERO}","hints":["quic://home.example:4433"],"groups":["hubs"],"added":"2026-01-31T12:00:00Z"}}"#
    );
    assert_eq!(row, expected);
    let read: Contact = serde_json::from_str(&row).unwrap();
    assert_eq!((&read, &read.ni.authority, read.added), (&alice, &alice.ni.authority, Timestamp(MADE.0)));
    for (from, to) in [
        ("Alice", "../Alice"),
        ("Alice", ""),
        ("sha3-256", "sha-256"),
        ("quic:", "ftp:"),
        ("hubs", "Hubs"),
        ("12:00:00Z", "12:00"),
        ("\"added\"", "\"adder\""),
    ] {
        assert!(serde_json::from_str::<Contact>(&row.replacen(from, to, 1)).is_err(), "{from}");
    }
}
