//! Tunnels between nodes, each on a machine of its own: network namespaces behind a bridge.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Done, Person, Place, Running, eventually};
use crate::lan_of;
use crate::namespaces::Lan;
use crate::surface::Ledger;

/// Machines on a network of their own, on which network devices can be made.
struct Bed(Lan);

impl Bed {
    #[track_caller]
    fn run(&self, machine: usize, program: &str, arguments: &[&str]) -> Done {
        Running::spawn(self.0.on(machine, program, arguments)).finish()
    }

    /// Whether the system lets it have a network device.
    fn has_devices(&self) -> bool {
        let made = self.run(1, "ip", &["tuntap", "add", "trial", "mode", "tun"]);
        made.code() == 0 && self.run(1, "ip", &["link", "delete", "trial"]).code() == 0
    }

    /// Starts the node of a home on a machine.
    #[track_caller]
    fn up(&self, machine: usize, person: &mut Person) {
        self.up_at(machine, person, &format!("10.99.0.{machine}"));
    }

    #[track_caller]
    fn up_at(&self, machine: usize, person: &mut Person, host: &str) {
        let [quic, tcp] = ["quic", "tcp"].map(|scheme| format!("{scheme}://{host}:7117"));
        let node = self.0.kith(machine, &person.home, &["up", "--listen", &quic, "--listen", &tcp]);
        node.line("ready");
        person.node = Some(node);
    }

    /// Two nodes that know each other, on the first two machines.
    #[track_caller]
    fn friends(&self, place: &Place) -> [Person; 2] {
        let mut friends = [place.person("north", &[]), place.person("south", &[])];
        for (person, machine) in friends.iter_mut().zip(1..) {
            self.up(machine, person);
        }
        friends[0].knows("south", &friends[1]);
        friends[1].knows("north", &friends[0]);
        friends
    }

    /// Waits until `to` answers a ping from a machine.
    #[track_caller]
    fn reaches(&self, machine: usize, to: &str, more: &[&str]) {
        let arguments = [&["-n", "-c", "1", "-W", "2"], more, &[to]].concat();
        eventually(&format!("an answer from {to}"), || {
            (self.run(machine, "ping", &arguments).code() == 0).then_some(())
        });
    }
}

/// A bed; skips the test where the system does not allow one.
macro_rules! bed {
    ($machines:expr) => {{
        kith_vnet::needs!("ping");
        let bed = Bed(lan_of!($machines));
        if !bed.has_devices() {
            return kith_vnet::skipped("network devices (/dev/net/tun)");
        }
        bed
    }};
}

fn tunnel(person: &Person) -> Value {
    person.run(&["tun", "list", "--json"]).ok().json()[0].clone()
}

#[track_caller]
fn open(north: &Person, south: &Person, more: &[&str]) {
    let ends =
        [(north, "south", ["10.7.0.1/24", "fd07::1/64"]), (south, "north", ["10.7.0.2/24", "fd07::2/64"])];
    for (person, contact, [v4, v6]) in ends {
        let own = ["tun", "up", contact, "--address", v4, "--address", v6];
        person.run(&[&own, more].concat()).ok();
    }
}

#[test]
fn packets_of_every_size_and_family_go_through_and_come_back_after_a_node_was_killed() {
    for transport in ["quic", "dtls", "tcp"] {
        let bed = bed!(2);
        let place = Place::new();
        let [mut north, mut south] = bed.friends(&place);
        open(&north, &south, &["--transport", transport]);
        for to in ["10.7.0.2", "fd07::2"] {
            bed.reaches(1, to, &[]);
            // Larger than the device takes, so that it is cut before, and just as large as IPv6 asks.
            bed.reaches(1, to, &["-s", "4000"]);
            bed.reaches(1, to, &["-s", "1232"]);
        }
        let now = tunnel(&north);
        assert_eq!((&now["state"], &now["transport"]), (&json!("up"), &json!(transport)));
        south.crash();
        bed.up(2, &mut south);
        bed.reaches(1, "10.7.0.2", &[]);
        bed.reaches(2, "fd07::1", &[]);
        assert_eq!(tunnel(&south)["transport"], transport);
        north.crash();
        bed.up(1, &mut north);
        bed.reaches(2, "10.7.0.1", &[]);
        bed.reaches(1, "fd07::2", &[]);
        north.run(&["tun", "down", "south"]).ok();
        assert_eq!(bed.run(1, "ip", &["link", "show", "kith0"]).code(), 1);
        assert_eq!(north.run(&["tun", "list", "--json"]).ok().json(), json!([]));
    }
}

#[test]
fn packets_are_as_large_as_the_path_is_found_to_carry() {
    for transport in ["quic", "dtls"] {
        finds_the_size(transport);
    }
}

fn finds_the_size(transport: &str) {
    let bed = bed!(2);
    let place = Place::new();
    let [north, south] = bed.friends(&place);
    open(&north, &south, &["--transport", transport]);
    bed.reaches(1, "10.7.0.2", &[]);
    // Ethernet carries 1500, of which IP, UDP and QUIC take their part.
    // Each probe that is lost is known to be so when something later has arrived.
    let found = eventually("the size of the path", || {
        bed.run(1, "ping", &["-n", "-q", "-c", "20", "-i", "0.02", "10.7.0.2"]).ok();
        tunnel(&north)["mtu"].as_u64().filter(|mtu| *mtu > 1300)
    });
    assert!(found < 1472, "{found}");
    // Whole, and no larger one.
    let firm = |bytes: u64| {
        bed.run(1, "ping", &["-n", "-c", "1", "-W", "2", "-M", "do", "-s", &bytes.to_string(), "10.7.0.2"])
    };
    eventually("an answer", || (firm(found - 28).code() == 0).then_some(()));
    assert_eq!(firm(found + 100).code(), 1);
}

#[test]
fn a_tunnel_carries_both_families_over_ipv6_alone() {
    for transport in ["quic", "dtls", "tcp"] {
        let bed = bed!(2);
        let bed = Bed(bed.0.with_v6_alone());
        let place = Place::new();
        let mut friends = [place.person("north", &[]), place.person("south", &[])];
        for (person, machine) in friends.iter_mut().zip(1..) {
            bed.up_at(machine, person, &format!("[fd99::{machine}]"));
        }
        let [north, mut south] = friends;
        north.knows("south", &south);
        south.knows("north", &north);
        open(&north, &south, &["--transport", transport]);
        bed.reaches(1, "10.7.0.2", &[]);
        bed.reaches(2, "fd07::1", &["-s", "4000"]);
        let now = tunnel(&north);
        assert!(now["remote"].as_str().unwrap().starts_with("[fd99::2]:"), "{now}");
        south.crash();
        bed.up_at(2, &mut south, "[fd99::2]");
        bed.reaches(1, "fd07::2", &[]);
    }
}

#[test]
fn several_contacts_share_a_device_and_each_has_its_own_addresses() {
    for transport in ["quic", "dtls"] {
        shares_a_device(transport);
    }
}

fn shares_a_device(transport: &str) {
    let bed = bed!(3);
    let place = Place::new();
    let [north, south] = bed.friends(&place);
    let mut east = place.person("east", &[]);
    bed.up(3, &mut east);
    north.knows("east", &east);
    east.knows("north", &north);
    let up = |person: &Person, arguments: &[&str]| {
        person.run(&[&["tun", "up"], arguments, &["--transport", transport]].concat())
    };
    up(
        &north,
        &[
            "south",
            "--address",
            "10.7.0.1/24",
            "--address",
            "fd07::1/64",
            "--allow",
            "10.7.0.2",
            "--allow",
            "fd07::2",
        ],
    )
    .ok();
    up(&north, &["east", "--allow", "10.7.0.2"]).fails(2, "goes to south already");
    up(&north, &["east", "--allow", "10.7.0.3", "--allow", "fd07::3", "--allow", "192.168.5.0/24"]).ok();
    up(&south, &["north", "--address", "10.7.0.2/24", "--address", "fd07::2/64"]).ok();
    up(&east, &["north", "--address", "10.7.0.3/24", "--address", "fd07::3/64"]).ok();
    bed.run(3, "ip", &["address", "add", "192.168.5.1/32", "dev", "lo"]).ok();
    for there in ["10.7.0.2", "10.7.0.3", "fd07::2", "fd07::3", "192.168.5.1"] {
        bed.reaches(1, there, &[]);
    }
    let device: Value = bed.run(1, "ip", &["-d", "-j", "link", "show", "dev", "kith0"]).ok().json();
    let processors = std::thread::available_parallelism().unwrap().get();
    if processors > 1 {
        let queues = &device[0]["linkinfo"]["info_data"]["numqueues"];
        assert_eq!(queues, processors.min(4), "{device}");
    }
    north.run(&["tun", "down", "south"]).ok();
    let nowhere = bed.run(1, "ping", &["-n", "-c", "1", "-W", "2", "10.7.0.2"]);
    assert_eq!(nowhere.code(), 1, "{nowhere:?}");
    bed.reaches(1, "192.168.5.1", &[]);
}

#[test]
fn a_device_that_another_node_has_is_not_shared_with_it() {
    let bed = bed!(2);
    let place = Place::new();
    let [north, south] = bed.friends(&place);
    open(&north, &south, &[]);
    let mut other = place.person("other", &[]);
    bed.0.up(1, &mut other);
    other.knows("south", &south);
    let refused = other.run(&["tun", "up", "south", "--address", "10.8.0.1/24"]);
    refused.fails(1, "there is a network device kith0 already");
    bed.reaches(1, "10.7.0.2", &[]);
    // One that somebody made for it beforehand is taken.
    bed.run(1, "ip", &["tuntap", "add", "made", "mode", "tun"]).ok();
    other.run(&["tun", "up", "south", "--address", "10.8.0.1/24", "--device", "made"]).ok();
    bed.reaches(1, "10.8.0.1", &[]);
}

#[test]
fn a_node_whose_address_changes_is_found_again() {
    let bed = bed!(2);
    let place = Place::new();
    let [mut north, mut south] = [place.person("north", &[]), place.person("south", &[])];
    bed.0.up(1, &mut north);
    bed.up(2, &mut south);
    north.knows("south", &south);
    // South knows no address of north.
    south.run(&["contact", "add", "north", &north.ni()]).ok();
    open(&north, &south, &[]);
    bed.reaches(1, "10.7.0.2", &[]);
    bed.run(1, "ip", &["address", "del", "10.99.0.1/24", "dev", "eth0"]).ok();
    bed.run(1, "ip", &["address", "add", "10.99.0.11/24", "dev", "eth0"]).ok();
    bed.reaches(1, "10.7.0.2", &[]);
    bed.reaches(2, "10.7.0.1", &[]);
    eventually("the new address", || {
        tunnel(&south)["remote"]
            .as_str()
            .is_some_and(|remote| remote.starts_with("10.99.0.11:"))
            .then_some(())
    });
}

#[test]
fn much_data_goes_through_both_ways() {
    kith_vnet::needs!("iperf3");
    let bed = bed!(2);
    let place = Place::new();
    let [north, south] = bed.friends(&place);
    open(&north, &south, &[]);
    bed.reaches(1, "10.7.0.2", &[]);
    let serving = Running::spawn(bed.0.on(2, "iperf3", &["-s", "-B", "10.7.0.2", "--forceflush"]));
    serving.line("listening");
    for more in [&[][..], &["-R"]] {
        let arguments = [&["-c", "10.7.0.2", "-n", "30M", "-J"], more].concat();
        let report = bed.run(1, "iperf3", &arguments).ok();
        let report: Value = serde_json::from_str(&report.out).unwrap();
        // What is still on its way when the sender is done is not counted there.
        assert!(report["end"]["sum_received"]["bytes"].as_u64().unwrap() >= 15 << 20, "{report}");
    }
    let now = tunnel(&north);
    for way in ["sent_bytes", "received_bytes"] {
        assert!(now[way].as_u64().unwrap() >= 15 << 20, "{now}");
    }
    assert_eq!((&now["refused_sources"], &now["malformed"]), (&json!(0), &json!(0)));
}

#[test]
fn a_contact_that_speaks_from_an_address_of_somebody_else_is_not_heard() {
    let bed = bed!(2);
    let place = Place::new();
    let [north, south] = bed.friends(&place);
    north.run(&["tun", "up", "south", "--address", "10.7.0.1/24", "--allow", "10.7.0.2"]).ok();
    south.run(&["tun", "up", "north", "--address", "10.7.0.2/24"]).ok();
    bed.reaches(2, "10.7.0.1", &[]);
    bed.run(2, "ip", &["addr", "add", "10.7.0.9/24", "dev", "kith0"]).ok();
    let spoofed = bed.run(2, "ping", &["-n", "-c", "1", "-W", "1", "-I", "10.7.0.9", "10.7.0.1"]);
    assert_eq!(spoofed.code(), 1, "{spoofed:?}");
    eventually("the refusal", || (tunnel(&north)["refused_sources"].as_u64().unwrap() > 0).then_some(()));
    // Nothing goes to it either.
    let nowhere = bed.run(1, "ping", &["-n", "-c", "1", "-W", "1", "10.7.0.9"]);
    assert_eq!(nowhere.code(), 1, "{nowhere:?}");
    bed.reaches(2, "10.7.0.1", &[]);
}

#[test]
fn what_goes_to_a_contact_that_is_removed_goes_nowhere() {
    let bed = bed!(2);
    let place = Place::new();
    let [north, south] = bed.friends(&place);
    open(&north, &south, &[]);
    bed.reaches(1, "10.7.0.2", &[]);
    north.run(&["contact", "remove", "south"]).ok();
    eventually("the end of the device", || {
        (bed.run(1, "ip", &["link", "show", "kith0"]).code() == 1).then_some(())
    });
    assert_eq!(north.run(&["tun", "list", "--json"]).ok().json(), json!([]));
}

#[test]
fn a_node_without_the_privilege_says_what_it_needs() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    let south = place.person("south", &[]);
    if rustix::process::getuid().is_root() {
        kith_vnet::needs!("setpriv");
        north.up_without("net_admin");
    } else {
        north.up(&[]);
    }
    north.knows("south", &south);
    let refused = north.run(&["tun", "up", "south", "--address", "10.7.0.1/24"]);
    refused.fails(1, "CAP_NET_ADMIN");
    assert_eq!(north.run(&["tun", "list", "--json"]).ok().json(), json!([]));
}

/// The commands of tunnels with each of their exit codes.
pub fn of_tunnels(place: &Place, ledger: &mut Ledger, north: &Person) {
    let nowhere = place.path("nowhere");
    ledger.run(&north.home, "tun list", &[], 0);
    ledger.run(&nowhere, "tun list", &[], 1);
    ledger.run(&nowhere, "tun up", &["south"], 1);
    ledger.run(&nowhere, "tun down", &["south"], 1);
    ledger.run(&north.home, "tun up", &["nobody", "--address", "10.7.0.1/24"], 3);
    ledger.run(&north.home, "tun down", &["south"], 3);
    with_a_device(ledger);
    // Where no device can be made, that is said to be skipped above.
    ledger.seen.extend(["tun up", "tun down"].map(|command| (command.to_owned(), 0)));
}

fn with_a_device(ledger: &mut Ledger) {
    let bed = bed!(2);
    let place = Place::new();
    let [north, _south] = bed.friends(&place);
    let home: &Path = &north.home;
    ledger.run(home, "tun up", &["south", "--address", "10.7.0.1/24"], 0);
    ledger.run(home, "tun list", &[], 0);
    ledger.run(home, "tun down", &["south"], 0);
}
