//! Networks that are worse than a NAT: without UDP, without IPv4, with two NATs in a row, with a router that maps ports,
//! with a wire that loses and reorders. In network namespaces.

use std::fs;

use kith_vnet::{needs, unable};
use serde_json::Value;

use crate::harness::{Person, Place, Running, eventually};
use crate::lan_of;
use crate::namespaces::{Lan, Nat};
use crate::nat::{AUTHORITY, can_meet, described, name, probe, up, zone_on};
use crate::relayed::configure;
use crate::tree;

const WIRE: &str = include_str!("lossy_wire.py");
/// What a first byte over a relay may take, in milliseconds.
const FIRST_BYTE_MS: f64 = 2_000.0;

/// A directory and a relay that everybody reaches, and people who know each other and use that relay.
pub struct World {
    pub people: Vec<Person>,
    lan: Lan,
    place: Place,
    _public: [Person; 2],
}

impl World {
    /// The directory on the first machine, the relay on the second, and nobody else up. `None` where the system does
    /// not let each machine know the directory's name.
    pub fn set(lan: Lan, names: &[&str], has_v6: bool) -> Option<World> {
        let ips: &[&str] = if has_v6 { &["93.184.216.1", "[2600:99::1]"] } else { &["93.184.216.1"] };
        let (place, directory) = zone_on(&lan, ips)?;
        let pin = directory.ni();
        let resolvers: Vec<String> = ips.iter().map(|ip| format!("{ip}:5353")).collect();
        let mut zone = vec!["--authority", AUTHORITY, "--pin", pin.trim()];
        zone.extend(resolvers.iter().flat_map(|resolver| ["--resolver", resolver]));
        let mut relay = place.person("relay", &zone);
        configure(&relay, "[relay]\nfor = \"contacts\"");
        let people: Vec<Person> = names.iter().map(|name| place.person(name, &zone)).collect();
        for one in &people {
            configure(one, &format!("[relay]\nuse = [\"{}\"]", relay.ni().trim()));
            relay.knows(name(one), one);
            people
                .iter()
                .filter(|other| name(other) != name(one))
                .for_each(|other| one.knows(name(other), other));
        }
        up(&lan, &place, 2, &mut relay, "up");
        Some(World { people, lan, place, _public: [directory, relay] })
    }

    /// Starts the people on these machines, and waits until each can be found with the relay.
    pub fn up(&mut self, machines: &[usize]) {
        for (person, machine) in self.people.iter_mut().zip(machines) {
            up(&self.lan, &self.place, *machine, person, "up");
        }
        for (one, other) in self.pairs().filter(|(one, other)| name(one) != name(other)) {
            eventually("the relay in each record set", || {
                let found = one.run(&["discover", other.ni().trim(), "--via", "https", "--json"]);
                (found.code() == 0 && found.json()["relay"].as_array()?.len() == 1).then_some(())
            });
        }
    }

    /// Each person beside the next.
    fn pairs(&self) -> impl Iterator<Item = (&Person, &Person)> {
        self.people.iter().zip(self.people.iter().cycle().skip(1))
    }

    fn named(&self, wanted: &str) -> &Person {
        self.people.iter().find(|one| name(one) == wanted).unwrap()
    }

    /// One ping.
    #[track_caller]
    fn ping(&self, from: &str, to: &str, more: &[&str]) -> Value {
        let ping = [&["ping", to, "--count", "1", "--json"], more].concat();
        self.named(from).run(&ping).ok().json()
    }

    /// How it goes from one to another over a transport, or any.
    #[track_caller]
    pub fn path(&self, from: &str, to: &str, via: &str) -> String {
        let pong = self.ping(from, to, &["--via", via]);
        assert_eq!(pong["transport"], via);
        pong["path"].as_str().unwrap().to_owned()
    }

    /// A new connection goes this way over TCP, and soon brings the first byte.
    #[track_caller]
    fn first_byte(&self, from: &str, to: &str, path: &str) {
        let fresh = || self.ping(from, to, &["--fresh", "--via", "tcp"]);
        let pongs = [fresh(), fresh(), fresh()];
        assert!(pongs.iter().all(|pong| pong["path"] == path), "{from} to {to}: {pongs:?}");
        // What the machine is busy with otherwise delays one or the other, what a timer of ours makes wait delays all.
        let least = pongs.iter().map(|pong| pong["first_byte_ms"].as_f64().unwrap()).fold(f64::MAX, f64::min);
        assert!(least <= FIRST_BYTE_MS, "{from} to {to}: {pongs:?}");
    }

    /// A QUIC connection that begins over the relay goes without it in the end.
    #[track_caller]
    fn moves(&self, from: &str, to: &str) {
        eventually(&format!("a direct path from {from} to {to}"), || {
            (self.path(from, to, "quic") == "direct").then_some(())
        });
    }

    /// Sends a file that arrives as it was; how it went.
    #[track_caller]
    fn sends(&self, from: &str, to: &str, bytes: usize, more: &[&str]) -> Value {
        let (file, inbox) = (self.place.path("file"), self.place.path("inbox"));
        let _none_yet = fs::remove_dir_all(&inbox);
        fs::write(&file, tree::noise(bytes, bytes as u64)).unwrap();
        let take = ["receive", "--from", from, "--into", inbox.to_str().unwrap(), "--yes", "--json"];
        let receiving = self.named(to).command(&take);
        let send = [&["send", file.to_str().unwrap(), "--to", to, "--json"], more].concat();
        let sent = self.named(from).run(&send).ok().json();
        receiving.finish().ok();
        assert_eq!(sent["done"], true);
        let hash = |file| blake3::hash(&fs::read(file).unwrap());
        assert_eq!(hash(file), hash(inbox.join("file")), "{from} to {to}");
        sent
    }
}

/// What is set up where the system can; skips the test where it cannot.
macro_rules! or_unable {
    ($made:expr) => {
        match $made {
            Some(made) => made,
            None => return unable("NAT by nftables and mount namespaces"),
        }
    };
}

#[test]
fn where_no_udp_gets_through_tcp_reaches_the_peer_directly_or_over_the_relay() {
    needs!("nft", "sysctl", "mount");
    let mut lan = lan_of!(6, public);
    let [north, south, west] = [3, 4, 5].map(|router| lan.behind(router, Nat::Symmetric).unwrap_or_default());
    or_unable!([north, south, west].iter().all(|machine| *machine > 0).then_some(()));
    assert!(lan.block_udp(3) && lan.block_udp(4));
    let mut world = or_unable!(World::set(lan, &["north", "south", "west", "east"], false));
    world.up(&[north, south, west, 6]);
    let quic = ["ping", "east", "--count", "1", "--via", "quic", "--wait", "1s"];
    assert_eq!(world.named("north").run(&quic).code(), 5, "UDP is blocked");
    for (from, to, path) in [
        ("north", "east", "direct"),
        ("north", "west", "relayed"),
        ("west", "north", "relayed"),
        ("north", "south", "relayed"),
    ] {
        world.first_byte(from, to, path);
        let sent = world.sends(from, to, 300_000, &[]);
        assert_eq!((&sent["path"], &sent["transport"]), (&path.into(), &"tcp".into()), "{from} to {to}");
    }
    // Nobody dials the north, but the north can be asked to dial.
    world.first_byte("east", "north", "relayed");
    world.path("east", "north", "tcp");
    eventually("a direct way over TCP", || (world.path("east", "north", "tcp") == "direct").then_some(()));
    let sent = world.sends("east", "north", 300_000, &[]);
    assert_eq!((&sent["path"], &sent["transport"]), (&"direct".into(), &"tcp".into()));
}

#[test]
fn nodes_with_ipv6_alone_meet_directly_and_reach_those_with_ipv4_alone_over_the_relay() {
    needs!("nft", "sysctl", "mount");
    let mut lan = lan_of!(7, public).with_v6();
    lan.v6_alone(3);
    lan.v6_alone(4);
    let north = or_unable!(lan.behind_v6(5));
    let south = or_unable!(lan.behind_v6(6));
    let old = or_unable!(lan.behind(7, Nat::PortRestricted));
    let mut world = or_unable!(World::set(lan, &["west", "east", "north", "south", "old"], true));
    world.up(&[3, 4, north, south, old]);
    // Nothing is in between, or nothing that keeps the inside from asking.
    for (from, to) in [("west", "east"), ("north", "east")] {
        assert_eq!([world.path(from, to, "tcp"), world.path(from, to, "quic")], ["direct", "direct"]);
    }
    for (from, to) in [("east", "south"), ("north", "south"), ("north", "old"), ("old", "north")] {
        world.first_byte(from, to, "relayed");
    }
    // Firewalls that let in what was asked for are opened from both sides.
    world.moves("west", "south");
    world.moves("north", "south");
    for (from, to) in [("north", "old"), ("old", "north"), ("old", "east")] {
        assert_eq!(world.path(from, to, "quic"), "relayed", "{from} to {to}");
    }
    for (from, to, path) in [("west", "east", "direct"), ("north", "old", "relayed")] {
        assert_eq!(world.sends(from, to, 300_000, &[])["path"], path);
    }
}

/// What two NATs in a row are together.
fn together(home: Nat, carrier: Nat) -> Nat {
    let strict = [Nat::Open, Nat::Restricted, Nat::PortRestricted, Nat::Symmetric];
    let rank = |nat: Nat| strict.iter().position(|one| *one == nat).unwrap();
    strict[rank(home).max(rank(carrier))]
}

#[test]
fn two_nats_in_a_row_are_punched_where_one_of_the_stricter_kind_is() {
    needs!("nft", "sysctl", "mount", "python3");
    let mut lan = lan_of!(6, public);
    lan.second_address(1, "93.184.216.100");
    let households = [
        ("north", Nat::PortRestricted, Nat::PortRestricted),
        ("south", Nat::Open, Nat::PortRestricted),
        ("west", Nat::Restricted, Nat::Open),
        ("east", Nat::PortRestricted, Nat::Symmetric),
    ];
    let mut machines = Vec::new();
    for ((_, home, carrier), router) in households.into_iter().zip(3..) {
        let gate = or_unable!(lan.behind(router, carrier));
        machines.push(or_unable!(lan.behind(gate, home)));
    }
    let serving = probe(&lan, 1, "serve");
    serving.line("ready");
    let probes: Vec<Running> = machines.iter().map(|machine| probe(&lan, *machine, "ask")).collect();
    for (asked, (who, home, carrier)) in probes.into_iter().zip(households) {
        assert_eq!(asked.finish().ok().out, described(together(home, carrier)), "{who}");
    }
    let names = households.map(|(who, ..)| who);
    let mut world = or_unable!(World::set(lan, &names, false));
    world.up(&machines);
    let kind =
        |who: &str| households.iter().find(|one| one.0 == who).map(|one| together(one.1, one.2)).unwrap();
    let pairs =
        [("north", "south"), ("south", "west"), ("west", "east"), ("east", "west"), ("east", "north")];
    for (from, to) in pairs {
        world.first_byte(from, to, "relayed");
        world.path(from, to, "quic");
        if can_meet(kind(from), kind(to)) {
            world.moves(from, to);
        }
    }
    for (from, to) in pairs {
        let expected = if can_meet(kind(from), kind(to)) { "direct" } else { "relayed" };
        assert_eq!(world.path(from, to, "quic"), expected, "{from} to {to}");
    }
}

/// What a router does whose ports nobody can foretell, beside what its daemon of port mappings does.
const MAPPING_ROUTER: &str = "table inet filter {
    chain forward { type filter hook forward priority 0; jump miniupnpd; iifname eth0 ct state new drop; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting {
        type nat hook postrouting priority 100;
        jump postrouting_miniupnpd;
        oifname eth0 masquerade random,fully-random;
    }
    chain postrouting_miniupnpd { }
}";

/// Puts the daemon of home routers on one.
fn mapping_router(lan: &Lan, place: &Place, router: usize, speaks_pcp: bool) -> Running {
    let settings = place.path(&format!("miniupnpd-{router}.conf"));
    let (upnp, pcp) = if speaks_pcp { ("no", "yes") } else { ("yes", "no") };
    let text = format!(
        "ext_ifname=eth0\nlistening_ip=eth1\nenable_upnp={upnp}\nenable_natpmp={pcp}\nsecure_mode=yes\n\
         uuid=6f2d7d8e-1b1c-4f0a-9d7e-3a5e5c0f{router:04}\nallow 1024-65535 0.0.0.0/0 1024-65535\n"
    );
    fs::write(&settings, text).unwrap();
    let pid = place.path(&format!("miniupnpd-{router}.pid"));
    let arguments = ["-d", "-f", settings.to_str().unwrap(), "-P", pid.to_str().unwrap()];
    Running::spawn(lan.on(router, "miniupnpd", &arguments))
}

#[test]
fn a_port_that_the_router_lends_leads_through_a_nat_that_nobody_punches() {
    needs!("nft", "sysctl", "mount", "miniupnpd");
    let mut lan = lan_of!(5, public);
    let mut machines = Vec::new();
    for router in 3..=4 {
        machines.push(or_unable!(lan.behind(router, Nat::Symmetric)));
        assert!(lan.rules(router, "delete table ip nat") && lan.rules(router, MAPPING_ROUTER));
    }
    machines.push(or_unable!(lan.behind(5, Nat::Symmetric)));
    let mut world = or_unable!(World::set(lan, &["north", "west", "south"], false));
    for person in &world.people[..2] {
        let file = person.home.join("kith.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("port-mapping = false\n", "")).unwrap();
    }
    let _daemons =
        [(3, true), (4, false)].map(|(router, pcp)| mapping_router(&world.lan, &world.place, router, pcp));
    world.up(&machines);
    for (who, router) in [("north", 3), ("west", 4)] {
        let lent = ["quic", "tcp"].map(|scheme| format!("{scheme}://93.184.216.{router}:7117"));
        eventually("what the router lends in the record set", || {
            let ni = world.named(who).ni();
            let found =
                world.named("south").run(&["discover", ni.trim(), "--via", "https", "--json"]).ok().out;
            lent.iter().all(|address| found.contains(address.as_str())).then_some(())
        });
        for via in ["tcp", "quic"] {
            assert_eq!(world.path("south", who, via), "direct", "{who} over {via}");
        }
        // The other way round it begins over the relay.
        world.moves(who, "south");
    }
    assert_eq!(world.path("north", "west", "tcp"), "direct");
    assert_eq!(world.sends("south", "west", 300_000, &[])["path"], "direct");
}

#[test]
fn over_a_relay_whose_wire_loses_and_reorders_a_file_arrives_whole() {
    needs!("nft", "sysctl", "mount", "python3", "ping");
    let mut lan = lan_of!(4, public);
    let machines = [3, 4].map(|router| lan.behind(router, Nat::Symmetric).unwrap_or_default());
    or_unable!(machines.iter().all(|machine| *machine > 0).then_some(()));
    // Each way: one frame of twenty is lost, and those that follow overtake each other.
    let Some(_wire) = lan.through(2, WIRE, &["0.05", "0.02", "0.01", "7"]) else {
        return kith_vnet::skipped("network devices (/dev/net/tun)");
    };
    let pings = ["-n", "-q", "-c", "100", "-i", "0.01", "93.184.216.2"];
    let echoes = Running::spawn(lan.on(1, "ping", &pings)).finish().ok().out;
    assert!(!echoes.contains(" 0% packet loss"), "{echoes}");
    let mut world = or_unable!(World::set(lan, &["north", "south"], false));
    world.up(&machines);
    for via in ["tcp", "quic"] {
        let sent = world.sends("north", "south", 1 << 20, &["--via", via]);
        assert_eq!((&sent["path"], &sent["transport"]), (&"relayed".into(), &via.into()));
    }
}
