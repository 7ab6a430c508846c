//! Nodes behind NATs of all kinds, in network namespaces.

use std::fs;

use kith_vnet::needs;

use crate::harness::{Person, Place, Running, eventually};
use crate::lan_of;
use crate::namespaces::{Lan, Nat};
use crate::relayed::configure;

const PROBE: &str = include_str!("nat_probe.py");
pub const KINDS: [Nat; 4] = [Nat::Open, Nat::Restricted, Nat::PortRestricted, Nat::Symmetric];

/// What the probe says of each kind.
pub fn described(nat: Nat) -> &'static str {
    match nat {
        Nat::Open => "endpoint-independent endpoint-independent",
        Nat::Restricted => "endpoint-independent address-dependent",
        Nat::PortRestricted => "endpoint-independent address-and-port-dependent",
        Nat::Symmetric => "address-and-port-dependent address-and-port-dependent",
    }
}

pub fn probe(lan: &Lan, machine: usize, what: &str) -> Running {
    let mut command = lan.on(machine, "python3", &["-c", PROBE, what, "93.184.216.1", "93.184.216.100"]);
    command.env_remove("PYTHONPATH");
    Running::spawn(command)
}

#[test]
fn each_kind_of_nat_is_what_it_is_called() {
    needs!("python3", "nft", "sysctl");
    let mut lan = lan_of!(1 + KINDS.len(), public);
    lan.second_address(1, "93.184.216.100");
    let serving = probe(&lan, 1, "serve");
    serving.line("ready");
    for (nat, router) in KINDS.into_iter().zip(2..) {
        let Some(inside) = lan.behind(router, nat) else { return kith_vnet::unable("NAT by nftables") };
        assert_eq!(probe(&lan, inside, "ask").finish().ok().out, described(nat), "{nat:?}");
    }
}

/// A directory and a relay that everybody reaches, and one household behind each kind of NAT on either side.
struct Scene {
    norths: Vec<Person>,
    souths: Vec<Person>,
    _public: [Person; 2],
    _place: Place,
    _lan: Lan,
}

/// Where the directory is, by name, and what answers DNS for it.
pub const AUTHORITY: &str = "directory.test:8443";
pub const RESOLVER: &str = "93.184.216.1:5353";

/// Starts a node on a machine where the directory's name is known.
pub fn up(lan: &Lan, place: &Place, machine: usize, person: &mut Person, arguments: &str) {
    let (hosts, home) = (place.path("hosts"), person.home.display());
    let script = format!(
        "mount --bind {} /etc/hosts && exec {} --home {home} {arguments}",
        hosts.display(),
        env!("CARGO_BIN_EXE_kith"),
    );
    let node = Running::spawn(lan.on(machine, "unshare", &["--mount", "sh", "-c", &script]));
    node.line("ready");
    person.node = Some(node);
}

/// The directory, on the first machine at these addresses, and where everything else is to be; `None` where the system does
/// not let each machine know the directory's name.
pub fn zone_on(lan: &Lan, ips: &[&str]) -> Option<(Place, Person)> {
    let mount = ["--mount", "mount", "--bind", "/etc/hosts", "/etc/hosts"];
    if Running::spawn(lan.on(1, "unshare", &mount)).finish().code() != 0 {
        return None;
    }
    let place = Place::new();
    let hosts = ips.iter().map(|ip| format!("{} directory.test\n", ip.trim_matches(['[', ']'])));
    fs::write(place.path("hosts"), format!("127.0.0.1 localhost\n{}", hosts.collect::<String>())).unwrap();
    let mut directory = place.person("zone", &["--authority", AUTHORITY]);
    let listen = ips.iter().map(|ip| format!(" --listen-https {ip}:8443 --listen-dns {ip}:5353"));
    up(lan, &place, 1, &mut directory, &format!("directory serve{}", listen.collect::<String>()));
    Some((place, directory))
}

impl Scene {
    fn set(mut lan: Lan) -> Option<Scene> {
        let (place, directory) = zone_on(&lan, &["93.184.216.1"])?;
        let pin = directory.ni();
        let zone = ["--authority", AUTHORITY, "--pin", &pin, "--resolver", RESOLVER];
        let person = |name: &str| place.person(name, &zone);
        let mut relay = person("relay");
        configure(&relay, "[relay]\nfor = \"contacts\"");
        let [mut norths, mut souths] = ["north", "south"].map(|side| {
            KINDS.map(|nat| person(&format!("{side}-{nat:?}").to_lowercase())).into_iter().collect::<Vec<_>>()
        });
        for one in norths.iter().chain(&souths) {
            configure(one, &format!("[relay]\nuse = [\"{}\"]", relay.ni().trim()));
            relay.knows(name(one), one);
        }
        for (north, south) in norths.iter().flat_map(|north| souths.iter().map(move |south| (north, south))) {
            north.knows(name(south), south);
            south.knows(name(north), north);
        }
        up(&lan, &place, 2, &mut relay, "up");
        let kinds = KINDS.into_iter().chain(KINDS).zip(3..);
        for ((nat, router), one) in kinds.zip(norths.iter_mut().chain(&mut souths)) {
            let inside = lan.behind(router, nat)?;
            up(&lan, &place, inside, one, "up");
        }
        let scene = Scene { norths, souths, _public: [directory, relay], _place: place, _lan: lan };
        for (north, south) in scene.norths.iter().zip(&scene.souths) {
            for (one, other) in [(north, south), (south, north)] {
                eventually("the relay in each record set", || {
                    let found = one.run(&["discover", other.ni().trim(), "--via", "https", "--json"]);
                    (found.code() == 0 && found.json()["relay"].as_array()?.len() == 1).then_some(())
                });
            }
        }
        Some(scene)
    }
}

pub fn name(person: &Person) -> &str {
    person.home.file_name().unwrap().to_str().unwrap()
}

/// Who meets without the relay in the end: all but those whose ports nobody can foretell on either side.
pub fn can_meet(one: Nat, other: Nat) -> bool {
    let hard = [Nat::PortRestricted, Nat::Symmetric];
    !(hard.contains(&one) && hard.contains(&other) && (one == Nat::Symmetric || other == Nat::Symmetric))
}

#[test]
fn of_every_pair_of_nats_thirteen_meet_directly_over_udp_and_three_stay_relayed() {
    needs!("nft", "sysctl", "mount");
    let lan = lan_of!(2 + 2 * KINDS.len(), public);
    let Some(scene) = Scene::set(lan) else {
        return kith_vnet::unable("NAT by nftables and mount namespaces");
    };
    let pairs = || {
        KINDS
            .iter()
            .zip(&scene.norths)
            .flat_map(|one| KINDS.iter().zip(&scene.souths).map(move |to| (one, to)))
    };
    let path = |north: &Person, south: &Person, via: &str| {
        let ping = ["ping", name(south), "--count", "1", "--via", via, "--json"];
        let pong = north.run(&ping).ok().json();
        assert_eq!(pong["transport"], via);
        pong["path"].as_str().unwrap().to_owned()
    };
    for ((one, north), (other, south)) in pairs() {
        assert_eq!(path(north, south, "tcp"), "relayed");
        path(north, south, "quic");
        if can_meet(*one, *other) {
            eventually("a direct path", || (path(north, south, "quic") == "direct").then_some(()));
        }
    }
    for ((one, north), (other, south)) in pairs() {
        let expected = if can_meet(*one, *other) { "direct" } else { "relayed" };
        assert_eq!(path(north, south, "quic"), expected, "{one:?} {other:?}");
    }
}
