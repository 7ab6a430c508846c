//! Nodes behind a router that maps ports: small routers for PCP, NAT-PMP and UPnP, in network namespaces.

use std::fs;
use std::io::Write;

use kith_vnet::needs;

use crate::harness::{Person, Place, Running, eventually};
use crate::lan_of;
use crate::namespaces::Lan;

const ROUTER: &str = include_str!("router.py");
const MAPPED: [&str; 2] = ["quic://93.184.216.34:7117", "tcp://93.184.216.34:7117"];

/// A home whose node asks its router, and keeps away from local networks.
fn person(place: &Place, name: &str) -> Person {
    let person = place.person(name, &[]);
    let file = person.home.join("kith.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("port-mapping = false\n", "")).unwrap();
    person
}

/// A router on machine 1.
struct Router {
    running: Running,
    orders: std::process::ChildStdin,
}

impl Router {
    fn start(lan: &Lan, protocol: &str) -> Router {
        let mut command = lan.on(1, "python3", &["-c", ROUTER, protocol, "10.99.0.1"]);
        command.env_remove("PYTHONPATH");
        let (running, orders) = Running::with_input(command);
        running.line("ready");
        Router { running, orders }
    }

    fn order(&mut self, line: &str) {
        writeln!(self.orders, "{line}").unwrap();
    }
}

fn mapped(node: &Person) -> Vec<String> {
    let status = node.run(&["status", "--json"]).ok().json();
    let list = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let mut mapped = list(&status["mapping"]["mapped"]);
    let addresses = list(&status["addresses"]);
    // What is mapped is told to others, before what only this network can reach.
    assert!(addresses[..mapped.len()].iter().all(|address| mapped.contains(address)), "{status}");
    mapped.sort_unstable();
    mapped
}

#[test]
fn each_kind_of_router_lends_its_ports_for_as_long_as_the_node_runs() {
    needs!("python3");
    for protocol in ["pcp", "nat-pmp", "upnp"] {
        let lan = lan_of!(2);
        lan.way_out(2, 1);
        let place = Place::new();
        let mut north = person(&place, "north");
        let router = Router::start(&lan, protocol);
        lan.up(2, &mut north);
        eventually("the mapping", || (mapped(&north) == MAPPED).then_some(()));
        assert_eq!(north.status()["mapping"]["router"], "10.99.0.1");
        north.run(&["down"]).ok();
        let mut given_back = [router.running.line("unmapped"), router.running.line("unmapped")];
        given_back.sort_unstable();
        assert_eq!(given_back, ["unmapped tcp 7117 7117", "unmapped udp 7117 7117"], "{protocol}");
    }
}

#[test]
fn a_new_address_of_the_router_is_announced_and_a_router_that_is_gone_is_not() {
    needs!("python3");
    let lan = lan_of!(2);
    lan.way_out(2, 1);
    let place = Place::new();
    let mut north = person(&place, "north");
    let mut router = Router::start(&lan, "pcp");
    lan.up(2, &mut north);
    eventually("the mapping", || (mapped(&north) == MAPPED).then_some(()));
    router.order("address 93.184.216.35");
    // Another way out is another router: the node looks where it is every ten seconds.
    lan.no_way_out(2);
    eventually("the loss", || mapped(&north).is_empty().then_some(()));
    lan.way_out(2, 1);
    eventually("the new address", || {
        (mapped(&north) == ["quic://93.184.216.35:7117", "tcp://93.184.216.35:7117"]).then_some(())
    });
}

#[test]
fn a_node_that_is_told_to_asks_no_router() {
    needs!("python3");
    let lan = lan_of!(3);
    lan.way_out(2, 1);
    lan.way_out(3, 1);
    let place = Place::new();
    let (mut north, mut south) = (place.person("north", &[]), person(&place, "south"));
    let router = Router::start(&lan, "pcp");
    lan.up(2, &mut north);
    assert!(north.status().get("mapping").is_none());
    assert_eq!(north.status()["addresses"].as_array().unwrap().len(), 2);
    // The next one asks: had the first one done so, it would have been heard before.
    lan.up(3, &mut south);
    assert_eq!(router.running.line("asked by"), "asked by 10.99.0.3");
}
