//! The canonical session of the README, as written, with ports of its own.

use std::fs;
use std::sync::Arc;

use kith_directory::client::{ClientConfig, Directory, MemoryReplay};
use kith_identity::record::{Draft, Record};
use kith_identity::{Authority, Fingerprint, Identity, Ni, Relay};
use kith_sansio::system::{self, OsRng};
use kith_vnet::needs;

use crate::harness::{Place, Zone};
use crate::tree;

#[test]
fn two_people_who_know_only_each_others_fingerprint_exchange_a_folder() {
    let place = Place::new();
    let zone = Zone::start(&place);
    let mut north = zone.person(&place, "north");
    let mut south = zone.person(&place, "south");
    north.knows("south", &south);
    south.knows("north", &north);
    north.up(&[]);
    south.up(&[]);
    tree::make(&place.path("holiday"));
    let inbox = place.path("inbox");
    let receiving =
        south.command(&["receive", "--from", "north", "--into", inbox.to_str().unwrap(), "--yes", "--json"]);
    let folder = place.path("holiday/");
    let sent = north.run(&["send", folder.to_str().unwrap(), "--to", "south", "--json"]).ok().json();
    let received = receiving.finish().ok().json();
    tree::assert_same(&place.path("holiday"), &inbox.join("holiday"));
    for end in [&sent, &received] {
        assert_eq!(end["done"], true);
        assert_eq!(end["resumed_bytes"], 0);
        assert_eq!(end["path"], "direct");
        assert!(end["bytes"].as_u64().unwrap() > 4 << 20);
        assert!(end["files"].as_u64().unwrap() >= 9);
    }
    assert_eq!(received["paths"][0], "holiday");
    assert!(!std::fs::read_dir(&inbox).unwrap().any(|e| e.unwrap().file_name() != "holiday"));
    for person in [&north, &south] {
        person.run(&["down"]).ok();
    }
}

#[test]
fn two_nodes_with_address_hints_and_no_directory_send_a_file_over_each_transport() {
    let place = Place::new();
    let (north, south) = place.friends();
    for (via, size) in [("tcp", 5_000_000), ("quic", 3_000_001)] {
        let file = place.path(&format!("over-{via}"));
        std::fs::write(&file, tree::noise(size, 7)).unwrap();
        let inbox = place.path("inbox");
        let receiving = south.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes", "--json"]);
        let sent = north.run(&["send", file.to_str().unwrap(), "--to", "south", "--via", via, "--json"]).ok();
        assert_eq!(sent.json()["transport"], via);
        receiving.finish().ok();
        assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(inbox.join(format!("over-{via}"))).unwrap());
    }
}

#[test]
fn what_dig_and_curl_fetch_is_accepted_by_a_verifier_that_shares_no_code() {
    needs!("dig", "curl", "python3");
    let place = Place::new();
    let zone = Zone::start(&place);
    let north = zone.person(&place, "north");
    let blob = place.path("blob");
    std::fs::write(&blob, [0, 255, 10, 13, 34, 92, 200]).unwrap();
    north.run(&["blob", "put", blob.to_str().unwrap()]).ok();
    let id = north.run(&["id", "--json"]).ok().json();
    let (ni, fqdn, url) = (&id["ni"], id["fqdn"].as_str().unwrap(), id["url"].as_str().unwrap());
    let (host, port) = zone.dns.split_once(':').unwrap();
    let dig = run("dig", &[&format!("@{host}"), "-p", port, "+short", "+tries=1", fqdn, "TXT"]);
    let curl = run("curl", &["--silent", "--insecure", url]);
    for (kind, bytes) in [("--txt", dig), ("--json", curl)] {
        let file = place.path("fetched");
        std::fs::write(&file, &bytes).unwrap();
        let verdict = verify(ni.as_str().unwrap(), kind, &file);
        assert!(verdict.starts_with("valid"), "{kind}: {verdict} {}", String::from_utf8_lossy(&bytes));
        let altered = String::from_utf8(bytes).unwrap().replacen("3600", "3601", 1);
        std::fs::write(&file, altered).unwrap();
        let verdict = verify(ni.as_str().unwrap(), kind, &file);
        assert!(verdict.starts_with("refused"), "{kind}: {verdict}");
    }
}

/// A set with everything that a set can carry, announced as any client would.
#[test]
fn the_verifier_accepts_every_kind_of_record_in_any_order_and_refuses_each_altered_one() {
    needs!("dig", "curl", "python3");
    let place = Place::new();
    let zone = Zone::start(&place);
    let ni = announce_everything(&zone);
    let ni = Ni::new(ni.fingerprint, Some(zone.authority.parse().unwrap()));
    let (host, port) = zone.dns.split_once(':').unwrap();
    let dig =
        run("dig", &[&format!("@{host}"), "-p", port, "+short", "+tries=1", &ni.fqdn().unwrap(), "TXT"]);
    let mut lines: Vec<_> = String::from_utf8(dig).unwrap().lines().map(str::to_owned).collect();
    assert!(lines.len() >= 10, "{lines:?}");
    let file = place.path("fetched");
    let verdict = |lines: &[String]| {
        fs::write(&file, lines.join("\n") + "\n").unwrap();
        verify(&ni.to_string(), "--txt", &file)
    };
    for turn in 0..lines.len() {
        lines.rotate_left(1);
        lines.swap(0, turn);
        assert!(verdict(&lines).starts_with("valid"), "{lines:?}");
    }
    for index in 0..lines.len() {
        let mut altered = lines.clone();
        altered[index] = alter(&lines[index]);
        assert!(verdict(&altered).starts_with("refused"), "{}", altered[index]);
        altered.remove(index);
        assert!(verdict(&altered).starts_with("refused"), "without {}", lines[index]);
    }
    let json = run("curl", &["--silent", "--insecure", &ni.url().unwrap()]);
    fs::write(&file, &json).unwrap();
    assert!(verify(&ni.to_string(), "--json", &file).starts_with("valid"));
    let swapped = String::from_utf8(json).unwrap().replacen("10 ni:", "11 ni:", 1);
    fs::write(&file, swapped).unwrap();
    assert!(verify(&ni.to_string(), "--json", &file).starts_with("refused"));
}

/// One character of the value, changed for another that the same place may hold.
fn alter(line: &str) -> String {
    let at = line.rfind(|c: char| c.is_ascii_alphanumeric()).unwrap();
    let other = match &line[at..=at] {
        "0" => "1",
        digit if digit.parse::<u8>().is_ok() => "0",
        "A" => "B",
        _ => "A",
    };
    format!("{}{other}{}", &line[..at], &line[at + 1..])
}

fn announce_everything(zone: &Zone) -> Ni {
    let identity = Identity::generate(&mut OsRng);
    let relay = |preference, byte| Relay {
        preference,
        ni: Ni::new(Fingerprint::from_bytes([byte; 32]), Some("example.org".parse().unwrap())),
    };
    let draft = Draft {
        addresses: vec![
            "quic://192.0.2.7:7117".parse().unwrap(),
            "tcp://[2001:db8::7]:7117".parse().unwrap(),
        ],
        relays: vec![relay(10, 7), relay(20, 9)],
        blobs: vec![(0..=255).collect()],
        extra: vec![Record::new("x-unknown".parse().unwrap(), vec![0, 200, 34, 92]).unwrap()],
        ttl: 3_600,
    };
    let set = draft.sign(&identity, system::utc()).unwrap();
    let authority: Authority = zone.authority.parse().unwrap();
    let pin: Ni = zone.person.ni().parse().unwrap();
    let config =
        ClientConfig { pins: [(authority.clone(), pin.fingerprint)].into(), ..ClientConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()));
        client.announce(&authority, &identity, &set).await.unwrap();
    });
    Ni::new(identity.fingerprint(), None)
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    output.stdout
}

fn verify(ni: &str, kind: &str, file: &std::path::Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/verify_record_set.py");
    let output =
        std::process::Command::new("python3").arg(script).arg(ni).arg(kind).arg(file).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
