//! `kith actors select`: the members of a network as programs, who draw actors among each other.

use std::fs;

use kith_actors::hardened::ActorList;
use serde_json::Value;

use crate::dht::Town;
use crate::harness::{Person, Place, kith, within_minutes};
use crate::surface::Ledger;

/// What the actors are drawn for.
const HASH: &str = "52fdfc072182654f163f5f0f9a621d729566c74d10037c4d7bbb0407d1e2c649";

/// How the node takes part, once its section of the status says so.
fn part(member: &Person) -> Option<Value> {
    let part = member.run(&["status", "--json"]).ok().json()["actors"].clone();
    part["epoch"].is_u64().then_some(part)
}

/// What `select` prints, once it comes off: an epoch has to count all members, and all have to know it.
fn selected(member: &Person, more: &[&str]) -> Value {
    let words = [&["actors", "select", "--for", HASH, "--json"], more].concat();
    within_minutes(2, "a selection", || {
        let done = member.run(&words);
        (done.code() == 0).then(|| done.json())
    })
}

#[test]
fn actors_are_drawn_and_checked_without_a_node_and_a_killed_member_remembers_what_it_signed() {
    let names = ["north", "south", "east", "west", "hill", "dale"];
    let mut town = Town::issued("epoch = \"20s\"\ncolluding = 1", &names);
    let place = Place::new();
    let (file, issuer) = (place.path("list"), town.office.ni());
    let path = file.to_str().unwrap();
    let drawn = selected(&town.members[0], &["--count", "2", "--role", "3", "--out", path]);
    assert_eq!(
        (&drawn["manifest"], &drawn["role"], &drawn["network"]),
        (&HASH.into(), &3.into(), &issuer.clone().into())
    );
    assert_eq!((drawn["actors"].as_array().unwrap().len(), drawn["members"].as_u64()), (2, Some(6)));
    let list = fs::read(&file).unwrap();
    assert_eq!(data_encoding::BASE64.encode(&list), drawn["list"].as_str().unwrap());
    let left = part(&town.members[0]).unwrap();
    assert!(left["epoch"] != drawn["epoch"] || left["draws_left"].as_u64() < Some(24), "{left}");

    // Half of six at most, which costs no draw.
    within_minutes(1, "a refusal", || {
        let more = town.members[0].run(&["actors", "select", "--count", "4", "--for", HASH]);
        (more.code() == 2).then(|| more.fails(2, "1 to 3 actors"))
    });

    holds(&place, &list, &issuer);

    // Who has lost what it signed takes no part in the first epoch that it sees, however often it comes back.
    within_minutes(3, "a node that knows what it has signed", || {
        town.members[0].crash_and_return(|| {});
        let first = within_minutes(1, "the region", || part(&town.members[0]));
        within_minutes(1, "a node that takes part, or another epoch", || {
            let now = part(&town.members[0])?;
            (now["takes_part"] == true || now["epoch"] != first["epoch"])
                .then_some(now["epoch"] == first["epoch"])
        })
        .then_some(())
    });
    let again = selected(&town.members[0], &["--count", "2"]);
    let number = |drawn: &Value| (drawn["epoch"].as_u64().unwrap(), drawn["sequence"].as_u64().unwrap());
    assert!(number(&again) > number(&drawn) && again["seed"] != drawn["seed"]);
}

/// A list holds for who has its file and the name of the issuer, and no other one that differs in a byte.
fn holds(place: &Place, list: &[u8], issuer: &str) {
    let verify = |bytes: &[u8]| {
        let file = place.path("shown");
        fs::write(&file, bytes).unwrap();
        let words = ["actors", "verify", file.to_str().unwrap(), "--issuer", issuer, "--json"];
        crate::harness::Running::spawn(kith(&place.path("unused"), &words)).finish()
    };
    let told = verify(list).ok().json();
    assert_eq!((told["manifest"].as_str(), told["expired"].as_bool()), (Some(HASH), Some(false)));
    let fingerprint = issuer.parse::<kith_identity::Ni>().unwrap().fingerprint;
    for at in 0..list.len() {
        let mut changed = list.to_vec();
        changed[at] ^= 1 << (at % 8);
        let read = ActorList::from_bytes(&changed).and_then(|list| list.verify(&fingerprint));
        assert!(read.is_err(), "byte {at} of {}", list.len());
        // The tag, the epoch's statement, the ticket, the seed, the actors, and who has signed.
        if at % (list.len() / 12) == 3 {
            verify(&changed).fails(4, "does not hold");
        }
    }
}

/// `kith actors select` with each of its exit codes.
pub fn of_actors(place: &Place, ledger: &mut Ledger) {
    let (command, wish) = ("actors select", ["--for", HASH, "--count", "1"]);
    let mut town = Town::issued("epoch = \"20s\"\ncolluding = \"1%\"", &["north", "south", "east", "west"]);
    selected(&town.members[0], &["--count", "1"]);
    let out = place.path("actors");
    let more = [&wish[..], &["--expires", "5m", "--out", out.to_str().unwrap()]].concat();
    within_minutes(2, "a selection", || {
        let done = town.members[1].run(&[&["actors", "select", "--json"], &more[..]].concat());
        (done.code() == 0).then(|| ledger.check(command, 0, &done))
    });
    ledger.run(
        &place.path("unused"),
        "actors verify",
        &[out.to_str().unwrap(), "--issuer", &town.office.ni()],
        0,
    );
    ledger.run(&town.members[0].home, "status", &[], 0);
    for wrong in [
        ["--for", "query", "--count", "1"].as_slice(),
        &["--for", HASH, "--count", "0"],
        &["--for", HASH, "--count", "1", "--expires", "soon"],
    ] {
        ledger.run(&town.members[0].home, command, wrong, 2);
    }
    let nowhere = place.path("none").join("list");
    ledger.run(
        &town.members[0].home,
        command,
        &[&wish[..], &["--out", nowhere.to_str().unwrap()]].concat(),
        1,
    );
    ledger.run(&place.path("nowhere"), command, &wish, 1);
    ledger.run(&town.office.home, command, &wish, 3);
    // Nobody tells it who is in its region.
    town.office.crash();
    town.members[0].crash_and_return(|| {});
    ledger.run(&town.members[0].home, command, &wish, 5);
    // Nor others what comes after the epoch.
    within_minutes(1, "the end of the epoch", || {
        let done = town.members[1].run(&[&["actors", "select"], &wish[..]].concat());
        (done.code() == 5 && done.err.contains("is over")).then_some(())
    });
}
