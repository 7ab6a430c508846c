//! Invitations: one use, one guess, a time, and nobody in the middle.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use kith_identity::invitation::{Invitation, Terms};
use serde_json::{Value, json};

use crate::harness::{Done, Person, Place, Running, Zone, eventually, kith};
use crate::surface::Ledger;
use crate::tree;

impl Place {
    /// A home without an identity, with a name and loopback listeners of its own in its configuration.
    pub fn newcomer(&self, name: &str) -> Person {
        let person = Person { home: self.path(name), node: None };
        configure(&person, name);
        person
    }

    /// A node that nobody knows.
    #[track_caller]
    pub fn stranger(&self, name: &str) -> Person {
        let mut person = self.person(name, &["--name", name]);
        person.up(&[]);
        person
    }
}

/// Has every node of this home listen on loopback.
fn configure(person: &Person, name: &str) {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&person.home).unwrap();
    let listen = "listen = [\"quic://127.0.0.1:0\", \"tcp://127.0.0.1:0\"]";
    fs::write(person.home.join("kith.toml"), format!("name = \"{name}\"\n{listen}\n")).unwrap();
}

/// Opens an invitation and leaves the waiting to the node.
#[track_caller]
pub fn invite(person: &Person, more: &[&str]) -> (String, String) {
    let document = person.run(&[&["invite", "--detach", "--json"], more].concat()).ok().json();
    let text = |key: &str| document[key].as_str().unwrap().to_owned();
    (text("id"), text("link"))
}

#[track_caller]
pub fn join(person: &Person, link: &str) -> Done {
    person.run(&["join", link, "--no-receive", "--json"])
}

/// How an invitation stands.
#[track_caller]
pub fn state(person: &Person, id: &str) -> String {
    let all = person.run(&["invite", "list", "--json"]).ok().json();
    let one = all.as_array().unwrap().iter().find(|one| one["id"] == id).unwrap().clone();
    one["state"].as_str().unwrap().to_owned()
}

#[track_caller]
pub fn contacts(person: &Person) -> Vec<String> {
    let all = person.run(&["contact", "list", "--json"]).ok().json();
    all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// The link with another secret: a guess, by somebody who knows all the rest.
fn guess(link: &str) -> String {
    let known: Invitation = link.parse().ok().unwrap();
    let terms = Terms {
        inviter: known.inviter(),
        addresses: known.addresses(),
        expires: known.expires(),
        offers: known.offers(),
    };
    let mut secret = *known.secret().as_bytes();
    secret[15] ^= 1;
    let secret = kith_identity::invitation::Secret::from_bytes(secret);
    Invitation::with(&terms, known.ticket(), secret).ok().unwrap().link().to_string()
}

#[test]
fn one_command_on_each_side_moves_a_folder_between_people_who_have_nothing_yet() {
    let place = Place::new();
    let (north, south) = (place.newcomer("north"), place.newcomer("south"));
    tree::make(&place.path("holiday"));
    let folder = place.path("holiday");
    let sending = north.command(&["send", folder.to_str().unwrap(), "--invite"]);
    let link = sending.line("kith:");
    let inbox = place.path("inbox");
    let joined = south.run(&["join", &link, "--into", inbox.to_str().unwrap(), "--yes"]).ok();
    assert!(joined.out.contains("north is a contact now: ni:"), "{joined:?}");
    let sent = sending.finish().ok();
    assert!(sent.out.contains("south is a contact now: ni:"), "{sent:?}");
    assert!(sent.err.contains("kith join"), "{sent:?}");
    tree::assert_same(&folder, &inbox.join("holiday"));
    assert_eq!((contacts(&north), contacts(&south)), (vec!["south".to_owned()], vec!["north".to_owned()]));
    // The nodes ended with their commands.
    for person in [&north, &south] {
        person.run(&["status"]).fails(1, "no node is running");
    }
}

#[test]
fn both_become_contacts_over_each_transport_and_reach_each_other_afterwards() {
    let place = Place::new();
    for via in ["tcp", "quic"] {
        let north = place.stranger(&format!("north-{via}"));
        let south = place.stranger(&format!("south-{via}"));
        let inviting = north.command(&["invite", "--as", "marie", "--json"]);
        let opened: Value = serde_json::from_str(&inviting.line("kith:")).unwrap();
        assert_eq!((&opened["state"], &opened["as"]), (&json!("open"), &json!("marie")));
        let joined =
            south.run(&["join", opened["link"].as_str().unwrap(), "--via", via, "--json"]).ok().json();
        assert_eq!(joined["contact"]["name"], format!("north-{via}"));
        assert_eq!((&joined["new"], &joined["offers"]), (&json!(true), &json!(false)));
        let spoken = north.run(&["id", "--words"]).ok().out;
        assert_eq!(joined["words"], spoken);
        let ended = inviting.finish().ok().json();
        assert_eq!((&ended["state"], &ended["contact"]["name"]), (&json!("joined"), &json!("marie")));
        north.run(&["ping", "marie", "-c", "1", "--fresh"]).ok();
        south.run(&["ping", &format!("north-{via}"), "-c", "1", "--fresh"]).ok();
    }
}

#[test]
fn people_in_a_zone_find_each_other_by_it_after_an_invitation() {
    let place = Place::new();
    let zone = Zone::start(&place);
    let (mut north, mut south) = (zone.person(&place, "north"), zone.person(&place, "south"));
    north.up(&[]);
    south.up(&[]);
    let (_, link) = invite(&north, &[]);
    let parsed: Invitation = link.parse().ok().unwrap();
    assert_eq!(parsed.inviter().authority.unwrap().to_string(), zone.authority);
    let joined = south.run(&["join", &link, "--as", "north", "--json"]).ok().json();
    assert!(joined["contact"]["ni"].as_str().unwrap().starts_with(&format!("ni://{}/", zone.authority)));
    // Both move to other ports: the hints of the invitation lead nowhere.
    for person in [&mut north, &mut south] {
        person.run(&["down"]).ok();
        person.node = None;
        person.up(&[]);
        person.status();
    }
    south.run(&["ping", "north", "-c", "1"]).ok();
    let name = contacts(&north).remove(0);
    north.run(&["ping", &name, "-c", "1"]).ok();
}

#[test]
fn an_invitation_is_good_for_one_person_once() {
    let place = Place::new();
    let (north, south, west) = (place.stranger("north"), place.stranger("south"), place.stranger("west"));
    let (id, link) = invite(&north, &[]);
    let (other, _) = invite(&north, &[]);
    join(&south, &link).ok();
    assert_eq!(state(&north, &id), "joined");
    for again in [&west, &south] {
        join(again, &link).fails(4, "used, expired, cancelled or wrong");
    }
    assert_eq!(contacts(&north), ["south"]);
    assert!(contacts(&west).is_empty());
    assert_eq!(state(&north, &other), "open");
    north.run(&["invite", "cancel", &other]).ok();
    assert_eq!(state(&north, &other), "cancelled");
    join(&west, &link).fails(4, "used, expired, cancelled or wrong");
}

#[test]
fn an_invitation_is_not_good_any_later() {
    let place = Place::new();
    let (north, south) = (place.stranger("north"), place.stranger("south"));
    let (_, open) = invite(&north, &[]);
    let inviting = north.command(&["invite", "--valid", "1s"]);
    let link = inviting.line("kith:");
    inviting.finish().fails(5, "nobody joined");
    join(&south, &link).fails(4, "this invitation expired at");
    let listed = north.run(&["invite", "list"]).ok().out;
    assert!(listed.contains("expired"), "{listed}");
    assert!(contacts(&north).is_empty() && contacts(&south).is_empty());
    join(&south, &open).ok();
}

#[test]
fn one_wrong_guess_ends_an_invitation_and_its_maker_is_told() {
    let place = Place::new();
    let (north, south, thief) = (place.stranger("north"), place.stranger("south"), place.stranger("thief"));
    let inviting = north.command(&["invite"]);
    let link = inviting.line("kith:");
    join(&thief, &guess(&link)).fails(4, "used, expired, cancelled or wrong");
    inviting.finish().fails(4, "wrong secret");
    join(&south, &link).fails(4, "used, expired, cancelled or wrong");
    for person in [&north, &south, &thief] {
        assert!(contacts(person).is_empty());
    }
}

#[test]
fn of_many_who_join_at_once_exactly_one_does() {
    let place = Place::new();
    let north = place.stranger("north");
    let joiners: Vec<_> = (0..4).map(|n| place.stranger(&format!("joiner-{n}"))).collect();
    let (id, link) = invite(&north, &[]);
    let running: Vec<_> =
        joiners.iter().map(|one| one.command(&["join", &link, "--no-receive", "--json"])).collect();
    let codes: Vec<_> = running.into_iter().map(|one| one.finish().code()).collect();
    let winners: Vec<_> = (0..4).filter(|n| codes[*n] == 0).collect();
    assert_eq!(winners.len(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 0 | 4)), "{codes:?}");
    assert_eq!(contacts(&north), [format!("joiner-{}", winners[0])]);
    assert_eq!(state(&north, &id), "joined");
    for (n, joiner) in joiners.iter().enumerate() {
        assert_eq!(contacts(joiner).len(), usize::from(n == winners[0]));
    }
}

#[test]
fn an_open_invitation_outlives_a_killed_node() {
    let place = Place::new();
    let mut north = place.newcomer("north");
    settle_at(&north, crate::harness::free_port());
    north.up_with(&["up"]);
    let (id, link) = invite(&north, &["--as", "marie"]);
    let (cancelled, gone) = invite(&north, &[]);
    north.run(&["invite", "cancel", &cancelled]).ok();
    north.crash();
    north.up_with(&["up"]);
    assert_eq!((state(&north, &id), state(&north, &cancelled)), ("open".to_owned(), "cancelled".to_owned()));
    let south = place.stranger("south");
    join(&south, &gone).fails(4, "not open");
    join(&south, &link).ok();
    assert_eq!(contacts(&north), ["marie"]);
    north.crash();
    north.up_with(&["up"]);
    join(&place.stranger("west"), &link).fails(4, "not open");
}

/// Has every node of this home listen on one port.
fn settle_at(person: &Person, port: u16) {
    let listen = format!("listen = [\"quic://127.0.0.1:{port}\", \"tcp://127.0.0.1:{port}\"]\n");
    fs::write(person.home.join("kith.toml"), listen).unwrap();
}

#[test]
fn a_joiner_outlasts_a_node_that_does_not_let_him_in_yet() {
    let place = Place::new();
    let (mut north, mut double) = (place.newcomer("north"), place.newcomer("double"));
    let port = crate::harness::free_port();
    settle_at(&north, port);
    settle_at(&double, port);
    north.up_with(&["up"]);
    let (_, link) = invite(&north, &["--as", "marie"]);
    north.run(&["down"]).ok();
    // The same key and no invitation: a node that starts, or has no room for strangers, refuses in the same way.
    fs::copy(north.home.join("key.pem"), double.home.join("key.pem")).unwrap();
    double.up_with(&["up"]);
    let south = place.stranger("south");
    let joining = south.command(&["join", &link, "--no-receive", "--wait", "100s", "--json"]);
    eventually("a refusal", || {
        let asked = double.run(&["contact", "requests", "--json"]).ok().json();
        asked.as_array().unwrap().iter().any(|one| one["ni"] == south.ni()).then_some(())
    });
    double.run(&["down"]).ok();
    north.up_with(&["up"]);
    joining.finish().ok();
    assert_eq!(contacts(&north), ["marie"]);
}

#[test]
fn what_has_ended_otherwise_cannot_be_taken_back() {
    let place = Place::new();
    let (north, south) = (place.stranger("north"), place.stranger("south"));
    let (id, link) = invite(&north, &[]);
    join(&south, &link).ok();
    north.run(&["invite", "cancel", &id]).fails(1, "south joined before");
    north.run(&["contact", "remove", "south"]).ok();
    north.run(&["invite", "cancel", &id]).fails(1, "no contact any more");
    let inviting = north.command(&["invite", "--valid", "1s", "--json"]);
    let opened: Value = serde_json::from_str(&inviting.line("kith:")).unwrap();
    inviting.finish().fails(5, "nobody joined");
    let expired = opened["id"].as_str().unwrap();
    north.run(&["invite", "cancel", expired]).fails(1, "ended before: expired");
    let (open, _) = invite(&north, &[]);
    for _ in 0..2 {
        north.run(&["invite", "cancel", &open]).ok();
    }
}

#[test]
fn names_are_made_unique_and_a_removed_contact_stays_removed() {
    let place = Place::new();
    let (north, south) = (place.stranger("north"), place.stranger("same"));
    let west = place.person("west", &["--name", "Same"]);
    let mut west = west;
    west.up(&[]);
    let (_, link) = invite(&north, &[]);
    join(&south, &link).ok();
    let (_, link) = invite(&north, &[]);
    join(&west, &link).ok();
    assert_eq!(contacts(&north), ["same", "Same-2"]);
    north.run(&["invite", "--as", "same"]).fails(2, "belongs to");
    let (_, link) = invite(&north, &[]);
    south.run(&["contact", "add", "other", &west.ni()]).ok();
    south.run(&["join", &link, "--as", "other"]).fails(2, "belongs to");
    // A contact who joins again is the same contact.
    let again = join(&south, &link).ok().json();
    assert_eq!((&again["new"], &again["contact"]["name"]), (&json!(false), &json!("north")));
    assert_eq!(contacts(&north), ["same", "Same-2"]);
    north.run(&["contact", "remove", "same"]).ok();
    join(&south, &link).fails(4, "not open");
    assert_eq!(contacts(&north), ["Same-2"]);
}

#[test]
fn a_link_comes_by_standard_input_or_in_pieces_and_is_checked_before_anything_is_done() {
    let place = Place::new();
    let (north, south) = (place.stranger("north"), place.newcomer("south"));
    let (_, link) = invite(&north, &[]);
    let mut mistyped = link.clone();
    mistyped.replace_range(20..21, if &link[20..21] == "a" { "b" } else { "a" });
    for (wrong, part) in [
        (link[..link.len() - 1].to_owned(), "incomplete"),
        (mistyped, "a character is wrong"),
        ("https://example.org".to_owned(), "starts with 'kith:'"),
    ] {
        south.run(&["join", &wrong]).fails(2, part);
    }
    assert!(!south.home.join("key.pem").exists());
    north.run(&["join", &link]).fails(2, "of this node itself");
    let mut child = kith(&south.home, &["join", "-", "--no-receive"]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (head, tail) = link.split_at(60);
    write!(child.stdin.take().unwrap(), " {head}\n  {tail}\n").unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(contacts(&south), ["north"]);
    let (_, link) = invite(&north, &[]);
    let (head, tail) = link.split_at(60);
    south.run(&["join", head, tail, "--no-receive"]).ok();
}

#[test]
fn a_cancelled_command_takes_its_invitation_back() {
    let place = Place::new();
    let north = place.stranger("north");
    let inviting = north.command(&["invite", "--json"]);
    let opened: Value = serde_json::from_str(&inviting.line("kith:")).unwrap();
    interrupt(&inviting);
    inviting.finish().fails(1, "cancelled");
    assert_eq!(state(&north, opened["id"].as_str().unwrap()), "cancelled");
}

#[test]
fn whoever_stops_the_node_of_a_command_ends_the_command() {
    let place = Place::new();
    let north = place.newcomer("north");
    let inviting = north.command(&["invite"]);
    inviting.line("kith:");
    north.run(&["down"]).ok();
    inviting.finish().fails(1, "stopped this command's node");
    north.run(&["status"]).fails(1, "no node is running");
}

pub fn interrupt(running: &Running) {
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn a_person_sees_a_qr_code_that_holds_the_link() {
    let place = Place::new();
    let north = place.stranger("north");
    let drawn = north.run(&["invite", "--detach"]).ok();
    assert!(drawn.err.contains('█') && drawn.err.contains("kith join"), "{drawn:?}");
    assert!(drawn.out.starts_with("kith:") && drawn.out.lines().count() == 1, "{drawn:?}");
    let plain = north.run(&["invite", "--detach", "--no-qr"]).ok();
    assert!(!plain.err.contains('█'), "{plain:?}");
}

/// The surface test's cases.
pub fn of_invitations(place: &Place, ledger: &mut Ledger, north: &Person, south: &Person) {
    let nowhere = place.path("nowhere");
    for (command, more) in [("invite list", &[][..]), ("invite cancel", &["aaaaaaaaaaaaa"])] {
        ledger.run(&nowhere, command, more, 1);
    }
    ledger.run(&north.home, "invite cancel", &["aaaaaaaaaaaaa"], 3);
    ledger.run(&north.home, "invite", &["--valid", "1s"], 5);
    let inviting = north.command(&["invite", "--json"]);
    let opened: Value = serde_json::from_str(&inviting.line("kith:")).unwrap();
    ledger.run(&south.home, "join", &[&guess(opened["link"].as_str().unwrap())], 4);
    ledger.check("invite", 4, &inviting.finish());
    let inviting = north.command(&["invite", "--json"]);
    let opened = inviting.line("kith:");
    ledger.check_lines("invite", 0, &opened);
    let opened: Value = serde_json::from_str(&opened).unwrap();
    ledger.run(&north.home, "invite list", &[], 0);
    ledger.run(&north.home, "invite cancel", &[opened["id"].as_str().unwrap()], 0);
    ledger.check("invite", 1, &inviting.finish());
    let inviting = north.command(&["invite", "--json"]);
    let opened: Value = serde_json::from_str(&inviting.line("kith:")).unwrap();
    ledger.run(&south.home, "join", &[opened["link"].as_str().unwrap()], 0);
    ledger.check("invite", 0, &inviting.finish());
    let unreachable = nowhere_to_be_found();
    ledger.run(&south.home, "join", &[&unreachable, "--wait", "0s"], 5);
    let joining = south.command(&["join", &unreachable, "--json"]);
    eventually("the command to listen for Ctrl-C", || catches_interrupts(&joining).then_some(()));
    interrupt(&joining);
    ledger.check("join", 1, &joining.finish());
    let letter = place.path("letter");
    let sending = north.command(&["send", letter.to_str().unwrap(), "--invite", "--json"]);
    let opened: Value = serde_json::from_str(&sending.line("kith:")).unwrap();
    let inbox = place.path("invited");
    let into = ["--yes", "--into", inbox.to_str().unwrap()];
    ledger.run(&south.home, "join", &[&[opened["link"].as_str().unwrap()], &into[..]].concat(), 0);
    ledger.check("send", 0, &sending.finish());
}

/// An invitation of nobody, at an address where nothing listens.
fn nowhere_to_be_found() -> String {
    let terms = Terms {
        inviter: "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY".parse().unwrap(),
        addresses: vec!["tcp://127.0.0.1:1".parse().unwrap()],
        expires: kith_sansio::system::utc().plus_secs(600),
        offers: false,
    };
    Invitation::new(&terms, &mut kith_sansio::system::OsRng).ok().unwrap().link().to_string()
}

/// Whether the process has a handler of its own for Ctrl-C.
fn catches_interrupts(running: &Running) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    u64::from_str_radix(caught, 16).unwrap() & (1 << (2 - 1)) != 0
}
