//! The canonical session of the README, as written, with ports of its own.

use crate::harness::{Place, Zone};
use crate::{needs, tree};

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
    needs!("dig");
    needs!("curl");
    needs!("python3");
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
