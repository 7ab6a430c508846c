//! `kith network`: an issuer and members, as programs.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Person, Place, eventually};
use crate::surface::Ledger;

/// A fingerprint that nobody has a key to.
const ZERO: &str = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";

/// Somebody with epochs as short as they may be.
fn brisk(place: &Place, name: &str) -> Person {
    let person = place.person(name, &[]);
    let file = person.home.join("kith.toml");
    let config = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, format!("{config}\n[network]\nepoch = \"10s\"\n")).unwrap();
    person
}

fn joining(issuer: &Person) -> Vec<String> {
    let mut words = vec![issuer.ni()];
    words.extend(issuer.addresses().into_iter().flat_map(|at| ["--at".to_owned(), at]));
    words
}

/// Runs `kith network join` with whatever comes of it.
fn join(node: &Person, issuer: &Person) -> crate::harness::Done {
    let more = joining(issuer);
    let words: Vec<_> = ["network", "join"].into_iter().chain(more.iter().map(String::as_str)).collect();
    node.run(&[&words[..], &["--json"]].concat())
}

fn seen(node: &Person) -> Value {
    node.run(&["network", "status", "--json"]).ok().json()
}

fn states(issuer: &Person) -> Vec<String> {
    let roll = seen(issuer)["issued"]["roll"].as_array().unwrap().clone();
    let mut states: Vec<_> = roll.iter().map(|entry| entry["state"].as_str().unwrap().to_owned()).collect();
    states.sort_unstable();
    states
}

#[test]
fn nodes_join_by_invitation_or_as_contacts_and_a_killed_issuer_keeps_them() {
    let place = Place::new();
    let mut office = brisk(&place, "office");
    let (mut north, mut south) = (place.person("north", &[]), place.person("south", &[]));
    office.up(&[]);
    north.up(&[]);
    south.up(&[]);
    let nothing = seen(&office);
    assert_eq!(nothing, json!({ "issued": null, "joined": null }));
    assert!(office.run(&["network", "status"]).ok().out.contains("no network"));
    join(&north, &office).fails(4, "issues no network, or has not invited");
    office.run(&["network", "issue"]).ok();
    join(&north, &office).fails(4, "has not invited this node");
    office.run(&["network", "issue", &north.ni()]).ok();
    assert_eq!(states(&office), ["invited"]);
    let joined = join(&north, &office).ok().json();
    assert_eq!((&joined["state"], &joined["ni"]), (&json!("member"), &json!(office.ni())));
    office.knows("south", &south);
    join(&south, &office).ok();
    assert_eq!(states(&office), ["member", "member"]);
    eventually("an epoch with both", || (seen(&north)["joined"]["epoch"]["members"] == 2).then_some(()));
    assert!(north.status()["network"]["joined"]["epoch"]["number"].as_u64() > Some(1));

    office.run(&["network", "revoke", "south"]).ok();
    office.run(&["network", "revoke", ZERO]).fails(3, "is no member");
    office.run(&["network", "issue", ZERO, "south"]).fails(4, "has been revoked, which is for good");
    assert_eq!(states(&office), ["member", "revoked"], "nobody of them is invited");
    office.run(&["contact", "block", ZERO]).ok();
    office.run(&["network", "issue", ZERO]).fails(2, "is blocked here");
    let at = office.addresses();
    let before = seen(&office)["issued"]["epoch"]["number"].as_u64();
    office.crash();
    let listen = at.iter().flat_map(|at| ["--listen", at.as_str()]);
    office.up_with(&std::iter::once("up").chain(listen).collect::<Vec<_>>());
    assert_eq!(states(&office), ["member", "revoked"]);
    assert!(seen(&office)["issued"]["epoch"]["number"].as_u64() > before);
    eventually("the revoked node hears it", || {
        let joined = seen(&south)["joined"].clone();
        (joined["state"] == "none" && joined["failure"].as_str()?.contains("revoked")).then_some(())
    });
    join(&south, &office).fails(4, "has revoked this node");
    let again = join(&north, &office).ok().json();
    assert_eq!((&again["id"], &again["until"]), (&joined["id"], &joined["until"]));
}

/// Every command with each of its exit codes.
pub fn of_networks(place: &Place, ledger: &mut Ledger) {
    let own = Place::new();
    let nowhere = place.path("nowhere");
    let (mut office, mut north) = (own.person("office", &[]), own.person("north", &[]));
    office.up(&[]);
    north.up(&[]);
    ledger.run(&office.home, "network revoke", &[&north.ni()], 3);
    ledger.run(&office.home, "network issue", &["nobody"], 3);
    ledger.run(&office.home, "network issue", &[], 0);
    let more = joining(&office);
    let more: Vec<_> = more.iter().map(String::as_str).collect();
    ledger.run(&north.home, "network join", &more, 4);
    ledger.run(&office.home, "network issue", &[&north.ni()], 0);
    ledger.run(&office.home, "network revoke", &[&north.ni()], 0);
    ledger.run(&office.home, "network issue", &[&north.ni()], 0);
    ledger.run(&north.home, "network join", &more, 0);
    ledger.run(&north.home, "network join", &["nobody"], 3);
    ledger.run(&north.home, "network join", &[ZERO, "--at", "tcp://127.0.0.1:1"], 5);
    ledger.run(&office.home, "network join", &more, 2);
    ledger.run(&north.home, "network status", &[], 0);
    ledger.run(&office.home, "network status", &[], 0);
    ledger.run(&office.home, "status", &[], 0);
    ledger.run(&north.home, "status", &[], 0);
    ledger.run(&office.home, "network revoke", &[&north.ni()], 0);
    ledger.run(&office.home, "network issue", &[&north.ni()], 4);
    for (command, more) in [
        ("network issue", &[][..]),
        ("network join", &[ZERO]),
        ("network revoke", &[ZERO]),
        ("network status", &[]),
    ] {
        ledger.run(&nowhere, command, more, 1);
    }
}
