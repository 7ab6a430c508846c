//! A new key in the place of an old one: how contacts learn of it, who decides, and what a thief of the old key can do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Person, Place, Running, Zone, eventually};

/// The open claims that `person` has about a contact.
fn open(person: &Person, name: &str) -> Vec<Value> {
    let shown = person.run(&["contact", "show", name, "--json"]).ok().json();
    shown["successions"].as_array().unwrap().clone()
}

/// Waits until so many keys claim to follow the contact's.
#[track_caller]
pub fn claims(person: &Person, name: &str, count: usize) -> Vec<Value> {
    eventually("the claim", || Some(open(person, name)).filter(|open| open.len() == count))
}

/// Stops the node, gives the home a new key, and says which.
#[track_caller]
pub fn succeed(person: &mut Person) -> String {
    if let Some(node) = person.node.take() {
        person.run(&["down"]).ok();
        node.finish().ok();
    }
    person.run(&["id", "succeed", "--json"]).ok().json()["ni"].as_str().unwrap().to_owned()
}

/// Starts the node where it was, so that hints of others lead to it.
#[track_caller]
fn up_at(person: &mut Person, addresses: &[String]) {
    let mut arguments = vec!["up"];
    addresses.iter().for_each(|address| arguments.extend(["--listen", address]));
    person.up_with(&arguments);
}

/// A home with the same key, as a thief would have it.
pub fn copied(place: &Place, person: &Person, name: &str) -> Person {
    let home = place.path(name);
    fs::create_dir(&home).unwrap();
    for file in ["key.pem", "kith.toml"] {
        fs::copy(person.home.join(file), home.join(file)).unwrap();
    }
    Person { home, node: None }
}

fn old_file(person: &Person) -> PathBuf {
    let mut names = fs::read_dir(&person.home).unwrap().map(|entry| entry.unwrap().path());
    names.find(|path| path.to_string_lossy().contains("key.old-")).unwrap()
}

#[test]
fn a_contact_learns_of_a_new_key_from_the_directory_and_follows_when_its_person_says_so() {
    let place = Place::new();
    let zone = Zone::start(&place);
    let (mut north, mut south) = (zone.person(&place, "north"), zone.person(&place, "south"));
    south.knows("north", &north);
    south.run(&["contact", "group", "add", "friends", "north"]).ok();
    south.up(&[]);
    let old = north.ni();
    // North knows nobody, so that it can tell nobody.
    let new = succeed(&mut north);
    assert_ne!(old, new);
    assert_eq!(north.ni(), new);
    north.up(&[]);
    let claim = eventually("the record set of the old key", || {
        let _not_there_yet = south.run(&["discover", "north", "--json"]);
        open(&south, "north").first().cloned()
    });
    assert_eq!(
        (&claim["old"], &claim["new"], &claim["state"]),
        (&old.into(), &new.as_str().into(), &"pending".into())
    );
    let listed = south.run(&["contact", "list"]).ok().out;
    assert!(listed.contains("says that its new key is") && listed.contains(&new), "{listed}");
    assert!(south.run(&["status"]).ok().out.contains(&new));
    north.knows("south", &south);
    south
        .run(&["ping", "north", "-c", "1", "--wait", "0s"])
        .fails(5, "kith contact succession confirm north");
    let confirmed = south.run(&["contact", "succession", "confirm", "north", "--json"]).ok().json();
    assert_eq!(confirmed["ni"], new.as_str());
    assert_eq!(confirmed["groups"][0], "friends");
    assert!(open(&south, "north").is_empty());
    south.run(&["ping", "north", "-c", "1"]).ok();
    north.run(&["ping", "south", "-c", "1"]).ok();
    south.run(&["contact", "succession", "confirm", "north"]).fails(3, "waits for a decision");
}

#[test]
fn a_node_with_a_new_key_tells_its_contacts_without_any_directory() {
    let place = Place::new();
    let (mut north, mut south) = place.friends();
    let new = succeed(&mut north);
    north.up(&[]);
    let claim = &claims(&south, "north", 1)[0];
    assert_eq!(claim["new"], new.as_str());
    let refused = north.run(&["ping", "south", "-c", "1"]).fails(4, "does not admit");
    assert!(refused.err.contains("this home's key is new"), "{refused:?}");
    // What was heard outlives the node, and is decided without one too.
    south.crash();
    assert_eq!(open(&south, "north").len(), 1);
    south.run(&["contact", "succession", "confirm", "north"]).ok();
    let listed = south.run(&["contact", "succession", "list", "--json"]).ok().json();
    assert_eq!((&listed[0]["state"], &listed[0]["new"]), (&"confirmed".into(), &new.as_str().into()));
    south.up(&[]);
    south.run(&["contact", "remove", "north"]).ok();
    south.knows("north", &north);
    south.run(&["ping", "north", "-c", "1"]).ok();
}

#[test]
fn who_dials_the_old_address_learns_step_by_step_who_followed() {
    let place = Place::new();
    let (mut north, south) = place.friends();
    let addresses = north.addresses();
    let old = north.ni();
    north.run(&["contact", "remove", "south"]).ok();
    let second = succeed(&mut north);
    // Between the two it runs, so that the first step is one that others may know.
    up_at(&mut north, &addresses);
    let third = succeed(&mut north);
    up_at(&mut north, &addresses);
    for (from, to) in [(&old, &second), (&second, &third)] {
        assert!(open(&south, "north").is_empty());
        south.run(&["ping", "north", "-c", "1", "--wait", "0s"]).fails(4, "confirm north");
        let claim = &open(&south, "north")[0];
        assert_eq!((&claim["old"], &claim["new"]), (&from.as_str().into(), &to.as_str().into()));
        let confirmed = south.run(&["contact", "succession", "confirm", "north", "--json"]).ok().json();
        assert_eq!(confirmed["at"].as_array().unwrap().len(), addresses.len(), "hints stay");
    }
    north.knows("south", &south);
    south.run(&["ping", "north", "-c", "1"]).ok();
}

#[test]
fn a_second_different_successor_is_refused_until_the_person_names_one() {
    let place = Place::new();
    let (mut north, south) = place.friends();
    let mut thief = copied(&place, &north, "thief");
    thief.knows("south", &south);
    let new = succeed(&mut north);
    north.up(&[]);
    assert_eq!(claims(&south, "north", 1)[0]["state"], "pending");
    let stolen = succeed(&mut thief);
    thief.up(&[]);
    let both = claims(&south, "north", 2);
    assert_eq!((&both[0]["new"], &both[0]["state"]), (&new.as_str().into(), &"pending".into()));
    assert_eq!((&both[1]["new"], &both[1]["state"]), (&stolen.as_str().into(), &"refused".into()));
    for shown in [&["contact", "list"][..], &["contact", "show", "north"], &["status"]] {
        let out = south.run(shown).ok().out;
        assert!(out.contains("WARNING") && out.contains(&new) && out.contains(&stolen), "{out}");
    }
    south.run(&["contact", "succession", "confirm", "north"]).fails(4, "different keys");
    let nobody = "ni:///sha3-256;OboJhW6BME7EP_SM7zIH6jPCJEs7Y4jkrcK2APDGkM0";
    south.run(&["contact", "succession", "confirm", "north", nobody]).fails(3, "nobody claims");
    south.run(&["contact", "succession", "confirm", "north", &new]).ok();
    assert!(open(&south, "north").is_empty());
    eventually("north to be admitted", || {
        (north.run(&["ping", "south", "-c", "1"]).code() == 0).then_some(())
    });
    thief.run(&["ping", "south", "-c", "1"]).fails(4, "does not admit");
    let states: Vec<_> = {
        let listed = south.run(&["contact", "succession", "list", "--json"]).ok().json();
        listed.as_array().unwrap().iter().map(|claim| claim["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states, ["confirmed", "rejected"]);
}

#[test]
fn a_second_successor_is_told_after_the_first_was_confirmed_or_rejected() {
    for confirmed in [true, false] {
        let place = Place::new();
        let (mut north, south) = place.friends();
        let mut thief = copied(&place, &north, "thief");
        thief.knows("south", &south);
        let new = succeed(&mut north);
        north.up(&[]);
        claims(&south, "north", 1);
        let verb = if confirmed { "confirm" } else { "reject" };
        south.run(&["contact", "succession", verb, "north"]).ok();
        let stolen = succeed(&mut thief);
        thief.up(&[]);
        let claim = &claims(&south, "north", 1)[0];
        assert_eq!((&claim["new"], &claim["state"]), (&stolen.as_str().into(), &"refused".into()));
        assert!(south.run(&["contact", "list"]).ok().out.contains("WARNING"));
        south.run(&["contact", "succession", "confirm", "north"]).fails(4, "different keys");
        south.run(&["contact", "succession", "reject", "north", &stolen]).ok();
        assert!(!south.run(&["contact", "list"]).ok().out.contains("WARNING"));
        // A mistake can be mended: whoever was rejected is named.
        if !confirmed {
            south.run(&["contact", "succession", "confirm", "north", &new]).ok();
        }
        eventually("north to be admitted", || {
            (north.run(&["ping", "south", "-c", "1"]).code() == 0).then_some(())
        });
    }
}

#[test]
fn confirming_cuts_what_is_open_to_the_old_key() {
    let place = Place::new();
    let (north, south) = place.friends();
    let mut next = copied(&place, &north, "next");
    next.knows("south", &south);
    succeed(&mut next);
    next.up(&[]);
    claims(&south, "north", 1);
    let pings = ["tcp", "quic"].map(|via| {
        south.command(&["ping", "north", "-c", "1000", "--interval", "20ms", "--via", via, "--json"])
    });
    pings.iter().for_each(|pinging| drop(pinging.line("rtt_ms")));
    south.run(&["contact", "succession", "confirm", "north"]).ok();
    for pinging in pings {
        let done = pinging.finish();
        assert!(matches!(done.code(), 4 | 5), "{done:?}");
    }
    north.run(&["ping", "south", "-c", "1"]).fails(4, "does not admit");
}

#[test]
fn a_key_is_followed_once_and_never_by_itself_or_its_past() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    let key = fs::read(north.home.join("key.pem")).unwrap();
    north.up(&[]);
    north.run(&["id", "succeed"]).fails(1, "kith down");
    let first = succeed(&mut north);
    assert_eq!(fs::read(old_file(&north)).unwrap(), key);
    assert_eq!(fs::metadata(old_file(&north)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(north.home.join("key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    let old = old_file(&north);
    north.run(&["id", "succeed", "--new-key", old.to_str().unwrap()]).fails(2, "this home's key before");
    let current = north.home.join("key.pem");
    north.run(&["id", "succeed", "--new-key", current.to_str().unwrap()]).fails(2, "names one key twice");
    north.run(&["id", "succeed", "--new-key", "nowhere.pem"]).fails(3, "nowhere.pem");
    assert_eq!(north.ni(), first);
    north.up(&[]);
    let status = north.run(&["status", "--json"]).ok().json();
    assert!(
        status["notes"][0].as_str().unwrap().contains("is announced with its successor until"),
        "{status}"
    );
    drop(north.node.take());
    // With the old key back in its place there is no second successor: contacts would refuse it.
    fs::write(north.home.join("key.pem"), &key).unwrap();
    north.run(&["id", "succeed"]).fails(1, "has a successor already");
}

#[test]
fn a_home_that_crashed_before_its_new_key_was_in_place_is_as_it_was() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    let (before, key) = (north.ni(), fs::read(north.home.join("key.pem")).unwrap());
    let lost = succeed(&mut north);
    // What the disk holds where the last step is missing.
    fs::write(north.home.join("key.pem"), &key).unwrap();
    north.up(&[]);
    assert_eq!(north.ni(), before);
    assert!(north.run(&["status", "--json"]).ok().json()["notes"].as_array().unwrap().is_empty());
    let new = succeed(&mut north);
    assert_ne!(new, lost);
    north.up(&[]);
    assert_eq!(north.ni(), new);
    assert_eq!(north.run(&["status", "--json"]).ok().json()["notes"].as_array().unwrap().len(), 1);
}

#[test]
fn passphrase_and_a_key_of_ones_own_are_taken_over() {
    let place = Place::new();
    let pass = place.path("pass");
    fs::write(&pass, "secret\n").unwrap();
    let mut north = place.person("north", &["--passphrase-file", pass.to_str().unwrap()]);
    let other = place.person("other", &[]);
    let key = other.home.join("key.pem");
    let made = north.run(&["id", "succeed", "--new-key", key.to_str().unwrap(), "--json"]).ok().json();
    assert_eq!(made["ni"], other.ni().as_str());
    assert_eq!(north.ni(), other.ni());
    for file in [north.home.join("key.pem"), old_file(&north)] {
        assert!(fs::read_to_string(file).unwrap().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    }
    north.up(&[]);
    let notes = north.run(&["status", "--json"]).ok().json()["notes"].clone();
    assert!(notes[0].as_str().unwrap().contains("is announced with its successor until"), "{notes}");
}

#[test]
fn the_id_command_still_takes_its_options_alone() {
    let place = Place::new();
    let north = place.person("north", &[]);
    north.run(&["id", "--words"]).ok();
    let mixed = Running::spawn(crate::harness::kith(&north.home, &["id", "--words", "succeed"])).finish();
    assert_eq!(mixed.code(), 2, "{mixed:?}");
}
