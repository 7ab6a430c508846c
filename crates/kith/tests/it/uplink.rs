//! Transfers and tunnels while the network under them changes: another uplink, a relay that is gone.

use std::fs;
use std::path::{Path, PathBuf};

use kith_sansio::{Span, system};
use kith_vnet::needs;
use serde_json::Value;

use crate::harness::{Person, Place, Running, eventually};
use crate::lan_of;
use crate::namespaces::{Lan, Nat};
use crate::nat::{AUTHORITY, RESOLVER, up, zone_on};
use crate::relayed::configure;
use crate::tree;

/// How long bytes may stand still when the network changes. What a quiet machine needs is half of it at most.
const STANDSTILL: Span = Span::secs(6);

/// The machines of a [`Scene`], counted from 1.
const RELAYS: [usize; 2] = [2, 3];
const FIRST_ROUTER: usize = 4;
const SECOND_ROUTER: usize = 5;
const SOUTHS_ROUTER: usize = 6;

/// North and south are behind a NAT each, and south names two relays. One of them has a second uplink behind another NAT,
/// and does not use it yet.
struct Scene {
    north: Person,
    south: Person,
    relays: [Person; 2],
    norths_machine: usize,
    /// The machine that has two uplinks.
    mover: usize,
    _directory: Person,
    place: Place,
    lan: Lan,
}

impl Scene {
    fn set(mut lan: Lan, nat: Nat, does_north_move: bool) -> Option<Scene> {
        let (place, directory) = zone_on(&lan, &["93.184.216.1"])?;
        let pin = directory.ni();
        let zone = ["--authority", AUTHORITY, "--pin", &pin, "--resolver", RESOLVER];
        let [mut north, mut south] = ["north", "south"].map(|name| place.person(name, &zone));
        let mut relays = ["first", "second"].map(|name| place.person(name, &zone));
        north.knows("south", &south);
        south.knows("north", &north);
        let used = relays.each_ref().map(|relay| format!("\"{}\"", relay.ni().trim())).join(", ");
        configure(&south, &format!("[relay]\nuse = [{used}]"));
        for (relay, machine) in relays.iter_mut().zip(RELAYS) {
            configure(relay, "[relay]\nfor = \"contacts\"");
            relay.knows("south", &south);
            up(&lan, &place, machine, relay, "up");
        }
        let norths_machine = lan.behind(FIRST_ROUTER, nat)?;
        let souths_machine = lan.behind(SOUTHS_ROUTER, nat)?;
        let mover = if does_north_move { norths_machine } else { souths_machine };
        lan.second_uplink(mover, SECOND_ROUTER, nat)?;
        up(&lan, &place, norths_machine, &mut north, "up");
        up(&lan, &place, souths_machine, &mut south, "up");
        let scene = Scene { north, south, relays, norths_machine, mover, _directory: directory, place, lan };
        eventually("both relays in south's record set", || {
            let found = scene.north.run(&["discover", scene.south.ni().trim(), "--via", "https", "--json"]);
            (found.code() == 0 && found.json()["relay"].as_array()?.len() == 2).then_some(())
        });
        Some(scene)
    }

    /// How north reaches south.
    fn way(&self) -> Value {
        self.north.run(&["ping", "south", "--count", "1", "--json"]).ok().json()["path"].clone()
    }

    /// The machine that has two uplinks uses the other one, and the relay that is used is killed.
    fn everything_changes(&mut self) {
        let busy = self.busy_relay();
        self.lan.changes_uplink(self.mover, SECOND_ROUTER);
        self.relays[busy].crash();
    }

    fn ping(&self, machine: usize, count: &str, to: &str) -> Running {
        let ping = ["-n", "-q", "-i", "0.05", "-W", "0.5", "-c", count, to];
        Running::spawn(self.lan.on(machine, "ping", &ping))
    }

    /// Waits until `to` answers a ping from a machine.
    fn reaches(&self, machine: usize, to: &str) {
        eventually("an answer", || (self.ping(machine, "1", to).finish().code() == 0).then_some(()));
    }

    fn busy_relay(&self) -> usize {
        let sessions = |relay: &Person| relay.status()["relay"]["serves"]["sessions"].as_u64();
        self.relays.iter().position(|relay| sessions(relay) > Some(0)).expect("a relay with a session")
    }
}

/// A folder of 48 MiB in 30 files, some of them in folders.
fn folder(place: &Place) -> PathBuf {
    let folder = place.path("folder");
    for number in 0_usize..30 {
        let inner = folder.join(["", "inner", "inner/most"][number % 3]);
        fs::create_dir_all(&inner).unwrap();
        let size = [100, 3 << 20, (1 << 20) + 7 * number, 2 << 20][number % 4];
        fs::write(inner.join(format!("file {number}")), tree::noise(size, number as u64)).unwrap();
    }
    folder
}

/// A folder that is being sent.
struct Sending {
    folder: PathBuf,
    inbox: PathBuf,
    sending: Running,
    receiving: Running,
}

impl Sending {
    fn start(scene: &Scene) -> Sending {
        Sending::no_faster_than("6MiB/s", scene)
    }

    fn no_faster_than(limit: &str, scene: &Scene) -> Sending {
        let (folder, inbox) = (folder(&scene.place), scene.place.path("inbox"));
        let into = inbox.to_str().unwrap();
        let receiving =
            scene.south.command(&["receive", "--from", "north", "--into", into, "--yes", "--json"]);
        let send = ["send", folder.to_str().unwrap(), "--to", "south", "--limit", limit, "--json"];
        let sending = scene.north.command(&send);
        Sending { folder, inbox, sending, receiving }
    }

    /// Waits until `bytes` more have arrived, and says for how long at most nothing did.
    fn more(&self, bytes: u64) -> Span {
        let before = size(&self.inbox);
        let (mut last, mut since, mut longest) = (before, system::time(), Span::ZERO);
        eventually("more of the folder", || {
            let now = size(&self.inbox);
            if now != last {
                longest = longest.max(system::time() - since);
                (last, since) = (now, system::time());
            }
            (now >= before + bytes).then_some(())
        });
        longest
    }

    /// Waits for the end, and says what the sender printed.
    fn arrives(self) -> Value {
        let sent = self.sending.finish().ok().json();
        assert_eq!(sent["done"], true, "{sent}");
        self.receiving.finish().ok();
        tree::assert_same(&self.folder, &self.inbox.join("folder"));
        sent
    }
}

/// Bytes of all files below `folder`, partial ones too.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let each = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size(&entry.path()),
        Ok(_) => entry.metadata().map_or(0, |found| found.len()),
        Err(_) => 0,
    });
    each.sum()
}

/// Makes a scene, or skips the test.
macro_rules! scene {
    ($nat:expr) => {
        scene!($nat, true)
    };
    ($nat:expr, $does_north_move:expr) => {{
        needs!("nft", "sysctl", "mount");
        match Scene::set(lan_of!(6, public), $nat, $does_north_move) {
            Some(scene) => scene,
            None => return kith_vnet::unable("NAT by nftables and mount namespaces"),
        }
    }};
}

#[track_caller]
fn moves_again(what: &str, stood: Span) {
    println!("{what}: nothing moved for {stood}");
    assert!(stood <= STANDSTILL, "{what}: {stood}");
}

#[test]
fn a_folder_arrives_whole_although_its_sender_changes_the_uplink_and_the_relay_dies() {
    let mut scene = scene!(Nat::Symmetric);
    assert_eq!(scene.way(), "relayed", "two such NATs let nobody through");
    let sending = Sending::start(&scene);
    sending.more(4 << 20);
    scene.everything_changes();
    moves_again("over relays", sending.more(12 << 20));
    assert_eq!(sending.arrives()["path"], "relayed");
}

#[test]
fn a_folder_arrives_whole_although_its_receiver_changes_the_uplink_and_the_relay_dies() {
    let mut scene = scene!(Nat::Symmetric, false);
    let sending = Sending::start(&scene);
    sending.more(4 << 20);
    scene.everything_changes();
    moves_again("receiver elsewhere", sending.more(12 << 20));
    assert_eq!(sending.arrives()["path"], "relayed");
}

#[test]
fn a_folder_on_a_direct_path_arrives_whole_through_the_same() {
    let mut scene = scene!(Nat::PortRestricted);
    eventually("a direct path", || (scene.way() == "direct").then_some(()));
    // It lasts longer than the pause after a round of probes that all came too late.
    let sending = Sending::no_faster_than("2MiB/s", &scene);
    sending.more(4 << 20);
    scene.everything_changes();
    moves_again("directly", sending.more(12 << 20));
    assert_eq!(sending.arrives()["path"], "direct");
    eventually("a direct path", || (scene.way() == "direct").then_some(()));
}

#[test]
fn a_folder_goes_on_over_the_next_relay_when_one_is_killed_or_falls_silent() {
    for is_silent in [false, true] {
        let mut scene = scene!(Nat::Symmetric);
        let sending = Sending::start(&scene);
        sending.more(4 << 20);
        let busy = scene.busy_relay();
        if is_silent {
            scene.lan.falls_silent(RELAYS[busy]);
        } else {
            scene.relays[busy].crash();
        }
        moves_again(if is_silent { "relay silent" } else { "relay killed" }, sending.more(12 << 20));
        assert_eq!(sending.arrives()["path"], "relayed");
    }
}

/// How north's tunnel stands.
fn tunnel(scene: &Scene) -> Value {
    scene.north.run(&["tun", "list", "--json"]).ok().json()[0].clone()
}

#[test]
fn a_tunnel_moves_from_its_relay_to_a_direct_path_and_back_to_another_relay() {
    needs!("ping");
    let mut scene = scene!(Nat::PortRestricted);
    let device = Running::spawn(scene.lan.on(1, "ip", &["tuntap", "add", "trial", "mode", "tun"]));
    if device.finish().code() != 0 {
        return kith_vnet::skipped("network devices (/dev/net/tun)");
    }
    // Until then they see each other at relays alone.
    scene.lan.closes(FIRST_ROUTER, SOUTHS_ROUTER);
    for (person, contact, own) in
        [(&scene.north, "south", "10.7.0.1/24"), (&scene.south, "north", "10.7.0.2/24")]
    {
        person.run(&["tun", "up", contact, "--address", own]).ok();
    }
    let (north, south) = (scene.norths_machine, scene.norths_machine + 1);
    scene.reaches(north, "10.7.0.2");
    assert!(tunnel(&scene)["relay"].is_string());
    let pinging = [scene.ping(north, "300", "10.7.0.2"), scene.ping(south, "300", "10.7.0.1")];
    scene.lan.opens(FIRST_ROUTER);
    let now = eventually("a direct path", || Some(tunnel(&scene)).filter(|now| now["relay"].is_null()));
    // Not through the tunnel itself.
    assert!(now["remote"].as_str().expect("an address").starts_with("93.184.216."), "{now}");
    let told = scene.north.status()["addresses"].to_string();
    assert!(!told.contains("10.7.0.1"), "{told}");
    for pinging in pinging {
        let done = pinging.finish().ok();
        assert!(done.out.contains("300 received"), "{done:?}");
    }
    // They see each other no more, and the relay that was kept in reserve is gone.
    let busy = scene.busy_relay();
    scene.relays[busy].crash();
    scene.lan.closes(FIRST_ROUTER, SOUTHS_ROUTER);
    let began = system::time();
    scene.reaches(north, "10.7.0.2");
    moves_again("a tunnel", system::time() - began);
}
