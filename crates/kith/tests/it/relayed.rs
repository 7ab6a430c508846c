//! A node that nobody can dial, reached over its relays.

use std::fs;
use std::io::Write;
use std::path::Path;

use kith_identity::invitation::Invitation;
use serde_json::Value;

use crate::harness::{Person, Place, Running, Zone, eventually};
use crate::invitations::{contacts, invite, join, state};
use crate::tree;

/// Adds lines to a home's configuration.
pub fn configure(person: &Person, lines: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(person.home.join("kith.toml")).unwrap();
    writeln!(file, "\n{lines}").unwrap();
}

/// South names two relays and no address; north knows south's fingerprint and nothing else.
struct Scene {
    relays: [Person; 2],
    north: Person,
    south: Person,
    zone: Zone,
    place: Place,
}

impl Scene {
    fn set() -> Scene {
        let place = Place::new();
        let zone = Zone::start(&place);
        let relays = ["first", "second"].map(|name| zone.person(&place, name));
        let (mut north, mut south) = (zone.person(&place, "north"), zone.person(&place, "south"));
        north.knows("south", &south);
        south.knows("north", &north);
        let used = relays.each_ref().map(|relay| format!("\"{}\"", relay.ni().trim())).join(", ");
        configure(&south, &format!("[relay]\nuse = [{used}]\nonly = true"));
        let relays = relays.map(|mut relay| {
            configure(&relay, "[relay]\nfor = \"contacts\"");
            relay.knows("south", &south);
            relay.up(&[]);
            relay
        });
        north.up(&[]);
        south.up(&[]);
        let scene = Scene { relays, north, south, zone, place };
        eventually("both relays in south's record set", || {
            let found = scene.north.run(&["discover", scene.south.ni().trim(), "--via", "https", "--json"]);
            (found.code() == 0 && found.json()["relay"].as_array()?.len() == 2).then_some(())
        });
        scene
    }

    fn ping(&self) -> Value {
        self.north.run(&["ping", "south", "--count", "1", "--fresh", "--json"]).ok().json()
    }

    /// South takes into `inbox` what north offers.
    fn receiving(&self, inbox: &Path) -> Running {
        let inbox = inbox.to_str().unwrap();
        self.south.command(&["receive", "--from", "north", "--into", inbox, "--yes", "--json"])
    }

    fn name(&self, relay: usize) -> String {
        self.relays[relay].ni().trim().to_owned()
    }
}

#[test]
fn an_invitation_is_taken_up_over_a_relay_too_and_tells_no_address() {
    let scene = Scene::set();
    let mut east = scene.zone.person(&scene.place, "east");
    east.up(&[]);
    let (id, link) = invite(&scene.south, &[]);
    let told: Invitation = link.parse().ok().unwrap();
    assert_eq!(told.addresses(), []);
    join(&east, &link).ok();
    eventually("the invitation is used", || (state(&scene.south, &id) == "joined").then_some(()));
    let south = contacts(&east).remove(0);
    let pong = east.run(&["ping", &south, "--count", "1", "--fresh", "--json"]).ok().json();
    assert_eq!(pong["path"], "relayed");
}

fn bytes(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap()
}

#[test]
fn a_node_that_nobody_can_dial_is_reached_and_sent_a_file_over_its_relay() {
    let scene = Scene::set();
    let discovered = scene.north.run(&["discover", scene.south.ni().trim(), "--json"]).ok().out;
    assert!(!discovered.contains("127.0.0.1"), "south names no address: {discovered}");
    let pong = scene.ping();
    assert_eq!(pong["path"], "relayed");
    let (first, second) = (scene.name(0), scene.name(1));
    let relay = pong["relay"].as_str().unwrap();
    assert!(first.ends_with(relay) || second.ends_with(relay) || first == relay || second == relay, "{pong}");
    let text = scene.north.run(&["ping", "south", "--count", "1"]).ok().out;
    assert!(text.contains("relayed via "), "{text}");
    let quic = ["ping", "south", "--count", "1", "--fresh", "--via", "quic", "--json"];
    let pong = scene.north.run(&quic).ok().json();
    assert_eq!((&pong["path"], &pong["transport"]), (&Value::from("relayed"), &Value::from("quic")));
    let (file, inbox) = (scene.place.path("file"), scene.place.path("inbox"));
    fs::write(&file, tree::noise(3 << 20, 5)).unwrap();
    let receiving = scene.receiving(&inbox);
    let sent = scene.north.run(&["send", file.to_str().unwrap(), "--to", "south", "--json"]).ok().json();
    assert_eq!((&sent["done"], &sent["path"]), (&Value::Bool(true), &Value::from("relayed")));
    receiving.finish().ok();
    assert!(bytes(&file) == bytes(&inbox.join("file")));
    let status = scene.south.status();
    let uses = status["relay"]["uses"].as_array().unwrap();
    assert_eq!(uses.len(), 2);
    assert!(uses.iter().all(|relay| relay["reachable"] == true), "{status}");
    assert_eq!(scene.relays[0].status()["relay"]["serves"]["exposed"], 1);
}

#[test]
fn pings_go_on_another_way_when_their_relay_is_killed() {
    let mut scene = Scene::set();
    let pinging = scene.north.command(&["ping", "south", "--count", "20", "--interval", "200ms", "--json"]);
    let pong = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let first = pong(&pinging.line("seq"));
    let of_first = scene.name(0).ends_with(first["relay"].as_str().unwrap());
    scene.relays[usize::from(!of_first)].crash();
    let last = pong(pinging.finish().ok().out.lines().last().unwrap());
    assert_eq!(last["seq"], 20);
    assert_ne!(last["relay"], first["relay"]);
}

#[test]
fn a_transfer_goes_on_over_the_next_relay_when_one_is_killed() {
    let mut scene = Scene::set();
    let (file, inbox) = (scene.place.path("file"), scene.place.path("inbox"));
    fs::write(&file, tree::noise(64 << 20, 5)).unwrap();
    let receiving = scene.receiving(&inbox);
    let slow = ["send", file.to_str().unwrap(), "--to", "south", "--limit", "8MiB/s", "--json"];
    let sending = scene.north.command(&slow);
    let busy = eventually("a part of the file", || {
        // Beside the transfer's there may be one in which a direct way was looked for.
        let sessions = |relay: &Person| relay.status()["relay"]["serves"]["sessions"].as_u64();
        let busy = scene.relays.iter().position(|relay| sessions(relay) > Some(0))?;
        let partial = fs::read_dir(&inbox).ok()?.flatten().next()?;
        let some =
            fs::read_dir(partial.path()).ok()?.flatten().any(|one| one.metadata().is_ok_and(|m| m.len() > 0));
        some.then_some(busy)
    });
    scene.relays[busy].crash();
    let sent = sending.finish().ok().json();
    assert_eq!((&sent["done"], &sent["path"]), (&Value::Bool(true), &Value::from("relayed")));
    receiving.finish().ok();
    assert!(bytes(&file) == bytes(&inbox.join("file")));
}
