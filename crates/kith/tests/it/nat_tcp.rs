//! The sixteen pairs of NATs over TCP, where no UDP gets through, in network namespaces.

use std::io::Write;

use kith_sansio::system::time;
use kith_vnet::{needs, unable};

use crate::harness::{Running, eventually};
use crate::lan_of;
use crate::namespaces::{Lan, Nat};
use crate::nat::{KINDS, can_meet, described, name};
use crate::nat_more::World;

const PROBE: &str = include_str!("nat_probe_tcp.py");
const NO_NAT: &str = "NAT by nftables and mount namespaces";

fn probe(lan: &Lan, machine: usize, what: &str) -> Running {
    let mut command = lan.on(machine, "python3", &["-c", PROBE, what, "93.184.216.1", "93.184.216.100"]);
    command.env_remove("PYTHONPATH");
    Running::spawn(command)
}

/// One line for each kind in the north, one column for each in the south.
fn table(cells: &[String]) -> String {
    let line = |first: String, cells: Vec<String>| {
        cells.into_iter().fold(format!("{first:<16}"), |line, cell| format!("{line}{cell:<16}"))
    };
    let kinds = KINDS.map(|kind| format!("{kind:?}"));
    let head = line("over TCP".to_owned(), kinds.to_vec());
    let rows = kinds.into_iter().zip(cells.chunks(KINDS.len())).map(|(kind, row)| line(kind, row.to_vec()));
    [head].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

#[test]
fn of_every_pair_of_nats_thirteen_meet_directly_over_tcp_and_three_stay_relayed() {
    needs!("nft", "sysctl", "mount", "python3");
    let mut lan = lan_of!(2 + 2 * KINDS.len(), public);
    lan.second_address(1, "93.184.216.100");
    let kinds: Vec<Nat> = KINDS.into_iter().chain(KINDS).collect();
    let mut machines = Vec::new();
    for (nat, router) in kinds.iter().zip(3..) {
        let Some(inside) = lan.behind_without_udp(router, *nat) else { return unable(NO_NAT) };
        machines.push(inside);
    }
    let serving = probe(&lan, 1, "serve");
    serving.line("ready");
    let probes: Vec<Running> = machines.iter().map(|machine| probe(&lan, *machine, "ask")).collect();
    for (asked, nat) in probes.into_iter().zip(&kinds) {
        assert_eq!(asked.finish().ok().out, described(*nat), "{nat:?}");
    }
    let sides =
        ["north", "south"].iter().flat_map(|side| KINDS.map(|nat| format!("{side}-{nat:?}").to_lowercase()));
    let names: Vec<String> = sides.collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(mut world) = World::set(lan, &names, false) else { return unable(NO_NAT) };
    world.up(&machines);

    let (norths, souths) = world.people.split_at(KINDS.len());
    let pairs = || {
        let norths = KINDS.iter().zip(norths);
        norths.flat_map(|one| KINDS.iter().zip(souths).map(move |to| (one, to)))
    };
    let mut cells = Vec::new();
    for ((one, north), (other, south)) in pairs() {
        let (north, south, began) = (name(north), name(south), time());
        assert_eq!(world.path(north, south, "tcp"), "relayed");
        if can_meet(*one, *other) {
            let what = format!("a direct path from {north} to {south}");
            eventually(&what, || (world.path(north, south, "tcp") == "direct").then_some(()));
            cells.push(format!("direct {:.1} s", (time() - began).0 as f64 / 1e6));
        } else {
            cells.push("relayed".to_owned());
        }
    }
    let _nobody_reads_it_where_this_fails = writeln!(std::io::stderr(), "{}", table(&cells));
    for ((one, north), (other, south)) in pairs().filter(|((one, _), (other, _))| !can_meet(**one, **other)) {
        assert_eq!(world.path(name(north), name(south), "tcp"), "relayed", "{one:?} {other:?}");
    }
}
