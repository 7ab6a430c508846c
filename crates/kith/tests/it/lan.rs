//! Nodes that find each other on a local network, with no directory anywhere.

use std::fs;

use data_encoding::{BASE32, BASE64, HEXLOWER};
use kith_identity::{Fingerprint, Ni};
use kith_vnet::needs;

use crate::harness::{Person, Place, Running, eventually};
use crate::namespaces::Lan;
use crate::{lan_of, tree};

/// A home whose node takes part in local networks, as homes do where nothing is said.
fn person(place: &Place, name: &str) -> Person {
    let person = place.person(name, &[]);
    let file = person.home.join("kith.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("lan = false\n", "")).unwrap();
    person
}

/// A stranger: prints each name that he hears, then asks for its set with a MAC that he made up, and says what came.
const STRANGER: &str = r#"
import os, re, socket, struct, sys, time
group, own = "224.0.0.251", sys.argv[1]
wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
wire.bind((group, 5353))
mine = socket.inet_aton(own)
wire.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + mine)
wire.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, mine)
wire.settimeout(0.2)

def ask(own_labels, kind):
    labels = own_labels + ["_kith", "_udp", "local"]
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    wire.sendto(struct.pack(">6H", 0, 0, 1, 0, 0, 0) + name + struct.pack(">2H", kind, 1), (group, 5353))

def hear(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            packet, source = wire.recvfrom(9000)
        except socket.timeout:
            continue
        if source[0] != own:
            yield packet

names = set()
for _ in range(20):
    ask([], 12)
    for packet in hear(1):
        if packet[2] & 0x80:
            names |= {match[1].decode() for match in re.finditer(rb"\x20([0-9a-f]{32})\x05_kith", packet)}
    if names:
        break
for name in sorted(names):
    print("name", name, flush=True)
    nonce = os.urandom(16).hex()
    for _ in range(3):
        ask([nonce, os.urandom(16).hex(), name], 16)
        if any(packet[2] & 0x80 and nonce.encode() in packet for packet in hear(1)):
            print("got a set", flush=True)
print("end", flush=True)
"#;

/// What a stranger on machine 3 heard: the names.
fn stranger(lan: &Lan) -> Vec<String> {
    let mut command = lan.on(3, "python3", &["-c", STRANGER, "10.99.0.3"]);
    command.env_remove("PYTHONPATH");
    let heard = Running::spawn(command).finish().ok().out;
    assert!(heard.ends_with("end"), "{heard}");
    assert!(!heard.contains("got a set"), "{heard}");
    heard.lines().filter_map(|line| line.strip_prefix("name ")).map(str::to_owned).collect()
}

fn discover(lan: &Lan, machine: usize, person: &Person, ni: &str) -> serde_json::Value {
    eventually("the discovery", || {
        let done = lan.kith(machine, &person.home, &["discover", ni, "--via", "lan", "--json"]).finish();
        done.status.success().then(|| done.json())
    })
}

#[test]
fn two_nodes_on_one_network_find_each_other_and_send_a_file_with_no_directory() {
    needs!("tcpdump");
    let lan = lan_of!(2);
    let place = Place::new();
    let (mut north, mut south) = (person(&place, "north"), person(&place, "south"));
    let file = place.path("capture");
    let capture = lan.capture(&file);
    lan.up(1, &mut north);
    lan.up(2, &mut south);
    for (one, name, other) in [(&north, "south", &south), (&south, "north", &north)] {
        one.run(&["contact", "add", name, &other.ni()]).ok();
    }
    let folder = place.path("holiday");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("today"), "sunny\n").unwrap();
    let inbox = place.path("inbox");
    let receiving =
        south.command(&["receive", "--from", "north", "--into", inbox.to_str().unwrap(), "--yes"]);
    north.run(&["send", folder.to_str().unwrap(), "--to", "south"]).ok();
    receiving.finish().ok();
    tree::assert_same(&folder, &inbox.join("holiday"));
    let set = discover(&lan, 2, &south, "north");
    assert_eq!(set["verified_by"], "lan");
    let mut at: Vec<_> = set["addresses"].as_array().unwrap().iter().map(|at| at.as_str().unwrap()).collect();
    at.sort_unstable();
    assert_eq!(at, ["quic://10.99.0.1:7117", "tcp://10.99.0.1:7117"]);
    assert_eq!(north.status()["lan"]["networks"], serde_json::json!(["eth0"]));
    capture.end();
    let packets = fs::read(&file).unwrap();
    for person in [&north, &south] {
        for secret in secrets(person) {
            assert_no_trace(&packets, &secret);
        }
    }
    assert!(holds(&packets, b"_kith"), "the capture is of something else");
}

#[test]
fn a_stranger_learns_a_name_of_the_hour_and_gets_no_set() {
    needs!("python3");
    let lan = lan_of!(3);
    let place = Place::new();
    let (mut north, south) = (person(&place, "north"), person(&place, "south"));
    lan.up(1, &mut north);
    let ni = north.ni();
    // Whoever knows the fingerprint gets the set, also without a node of his own.
    let set = discover(&lan, 2, &south, &ni);
    assert_eq!(set["verified_by"], "lan");
    let first = stranger(&lan);
    assert_eq!(first.len(), 1, "{first:?}");
    north.run(&["down"]).ok();
    north.node.take().unwrap().finish().ok();
    let gone = lan.kith(2, &south.home, &["discover", &ni, "--via", "lan"]).finish();
    gone.fails(5, "nobody with this fingerprint answered on the local network");
    lan.up(1, &mut north);
    let second = stranger(&lan);
    assert_eq!(second.len(), 1, "{second:?}");
    assert_ne!(first, second, "a name outlived its salt");
}

#[test]
fn a_network_with_ipv6_alone_is_one_too() {
    let lan = lan_of!(2).with_v6_alone();
    let place = Place::new();
    let (mut north, south) = (person(&place, "north"), person(&place, "south"));
    lan.up(1, &mut north);
    let set = discover(&lan, 2, &south, &north.ni());
    let at: Vec<_> = set["addresses"].as_array().unwrap().iter().map(|at| at.as_str().unwrap()).collect();
    assert!(at.contains(&"quic://[fd99::1]:7117"), "{at:?}");
}

#[test]
fn a_node_that_is_told_to_keeps_silent_on_networks() {
    needs!("tcpdump");
    let lan = lan_of!(2);
    let place = Place::new();
    let (mut north, south) = (place.person("north", &[]), person(&place, "south"));
    let file = place.path("capture");
    let capture = lan.capture(&file);
    lan.up(1, &mut north);
    assert!(north.status().get("lan").is_none());
    lan.kith(2, &south.home, &["discover", &north.ni(), "--via", "lan"]).finish().fails(5, "local network");
    lan.kith(1, &north.home, &["discover", &south.ni(), "--via", "lan"]).finish().fails(3, "");
    capture.end();
    let packets = fs::read(&file).unwrap();
    // The question of south, from 10.99.0.2, and no packet of north's.
    assert!(holds(&packets, &[10, 99, 0, 2, 224, 0, 0, 251]));
    assert!(!holds(&packets, &[10, 99, 0, 1, 224, 0, 0, 251]));
    // Over IPv6 it is an Ethernet frame to the group from its interface.
    let frame = [&[0x33, 0x33, 0, 0, 0, 0xfb][..], &lan.hardware_address(1)].concat();
    assert!(!holds(&packets, &frame));
}

/// The bytes of a person's fingerprint and public key.
fn secrets(person: &Person) -> [Vec<u8>; 2] {
    let ni: Ni = person.ni().parse().unwrap();
    let fingerprint: Fingerprint = ni.fingerprint;
    let key = person.run(&["id", "--json"]).ok().json();
    let spki = BASE64.decode(key["spki"].as_str().unwrap().as_bytes()).unwrap();
    // The last 32 of its bytes are the key, the same algorithm stands before every one.
    [fingerprint.as_bytes().to_vec(), spki[spki.len() - 32..].to_vec()]
}

fn holds(packets: &[u8], part: &[u8]) -> bool {
    packets.windows(part.len()).any(|window| window == part)
}

/// No eight bytes in a row of `secret`, raw, in hexadecimal, base32 or base64.
fn assert_no_trace(packets: &[u8], secret: &[u8]) {
    let lower = packets.to_ascii_lowercase();
    let check = |capture: &[u8], part: &[u8]| {
        assert!(!holds(capture, part), "the capture holds {}", String::from_utf8_lossy(part));
    };
    for eight in secret.windows(8) {
        check(packets, eight);
        check(&lower, HEXLOWER.encode(eight).as_bytes());
        // As part of a longer text the eight bytes can begin at any bit of a character.
        for before in 0..5 {
            let padded = [&vec![0; before], eight, &[0; 5]].concat();
            let text = BASE32.encode(&padded).to_ascii_lowercase();
            let whole = (before * 8).div_ceil(5)..(before * 8 + 64) / 5;
            check(&lower, &text.as_bytes()[whole]);
        }
        for before in 0..3 {
            let padded = [&vec![0; before], eight, &[0; 3]].concat();
            let whole = (before * 8).div_ceil(6)..(before * 8 + 64) / 6;
            let text = BASE64.encode(&padded).as_bytes()[whole].to_vec();
            check(packets, &text);
            let url: Vec<u8> = text
                .iter()
                .map(|c| match c {
                    b'+' => b'-',
                    b'/' => b'_',
                    c => *c,
                })
                .collect();
            check(packets, &url);
        }
    }
}

#[test]
fn the_search_for_traces_finds_them() {
    let secret: Vec<u8> = (100..132).collect();
    for text in [
        secret[3..20].to_vec(),
        HEXLOWER.encode(&secret[1..10]).into_bytes(),
        BASE64.encode(&[b"xy", &secret[5..20]].concat()).into_bytes(),
        BASE32.encode(&[b"xyz", &secret[5..20]].concat()).into_bytes(),
    ] {
        let packets = [&b"before"[..], &text, b"after"].concat();
        let found = std::panic::catch_unwind(|| assert_no_trace(&packets, &secret));
        assert!(found.is_err(), "{text:?}");
    }
    assert_no_trace(&[0; 5000], &secret);
}

#[test]
fn nodes_on_loopback_have_nothing_to_do_with_networks() {
    let place = Place::new();
    let mut north = person(&place, "north");
    north.up(&[]);
    assert!(north.status().get("lan").is_none());
}
