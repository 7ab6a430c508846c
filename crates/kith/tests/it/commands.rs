//! What commands print, and with which exit code they end.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{Place, Running, kith};

const ZERO: &str = "ni://example.org/sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";

#[test]
fn id_of_the_all_zero_key_has_the_known_mappings() {
    let place = Place::new();
    let home = place.path("unused");
    let id = Running::spawn(kith(&home, &["id", "--of", ZERO, "--json"])).finish().ok().json();
    assert_eq!(
        id["fqdn"],
        "935298155241920636698227595a9242.2383f81e597a0ed88f651a0698036816.0a.example.org"
    );
    assert_eq!(
        id["url"],
        "https://example.org/.well-known/ni/sha3-256/k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY"
    );
    assert_eq!(id["words"].as_str().unwrap().split(' ').count(), 6);
    assert!(!home.exists(), "reading a fingerprint must make no home");
}

#[test]
fn wrong_fingerprints_are_refused_with_the_reason() {
    let place = Place::new();
    let home = place.path("unused");
    let value = "k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";
    for (ni, reason) in [
        (format!("ni:///sha-256;{value}"), "sha-256"),
        (format!("ni:///sha3-256;{value}="), ""),
        (format!("ni:///sha3-256;{}", &value[1..]), ""),
        ("ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBZ".to_owned(), ""),
        (format!("ni:///sha3-256;{}", value.replace('-', "+")), ""),
        (format!("ni://exa mple/sha3-256;{value}"), ""),
        (format!("ni://example.org/path/sha3-256;{value}"), ""),
        ("ni:///sha3-256;".to_owned(), ""),
        ("ni:".to_owned(), ""),
    ] {
        let done = Running::spawn(kith(&home, &["id", "--of", &ni])).finish();
        done.fails(2, reason);
    }
}

#[test]
fn a_relay_without_a_listener_for_tcp_says_what_it_needs() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let done = north.run(&["relay", "serve", "--listen", "quic://127.0.0.1:0"]);
    done.fails(1, "hint: add a tcp:// address");
}

#[test]
fn id_reads_key_files_of_all_kinds() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let ni = north.ni();
    let key = north.home.join("key.pem");
    assert_eq!(north.run(&["id", "--of", key.to_str().unwrap()]).ok().out, ni);
    let spki = north.run(&["id", "--json"]).ok().json()["spki"].as_str().unwrap().to_owned();
    let public = place.path("public.pem");
    fs::write(&public, format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n")).unwrap();
    assert_eq!(north.run(&["id", "--of", public.to_str().unwrap()]).ok().out, ni);
    fs::write(&public, "no key").unwrap();
    north.run(&["id", "--of", public.to_str().unwrap()]).fails(1, "no PEM file");
    north.run(&["id", "--of", "nowhere"]).fails(3, "no file nowhere");
    assert!(north.run(&["id", "--qr"]).ok().out.lines().count() > 10);
    assert_eq!(north.run(&["id", "--words"]).ok().out.split(' ').count(), 6);
}

#[test]
fn contacts_are_kept_with_and_without_a_node() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    let add = |name: &str, ni: &str| north.run(&["contact", "add", name, ni]);
    add("zero", ZERO).ok();
    add("zero", "ni:///sha3-256;AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").fails(2, "zero");
    add("other", ZERO).fails(2, "zero");
    add("-bad", ZERO).fails(2, "");
    north.run(&["contact", "add", "bad", ZERO, "--at", "udp://1.2.3.4:5"]).fails(2, "udp");
    for running in [false, true] {
        if running {
            north.up(&[]);
        }
        let shown = north.run(&["contact", "show", "zero", "--json"]).ok().json();
        assert_eq!(shown["ni"], ZERO);
        assert_eq!(shown["path"], "none");
        north.run(&["contact", "rename", "zero", "nil"]).ok();
        north.run(&["contact", "group", "add", "friends", "nil"]).ok();
        let groups = north.run(&["contact", "group", "list", "--json"]).ok().json();
        assert_eq!(groups["friends"][0], "nil");
        north.run(&["contact", "group", "remove", "friends", "nil"]).ok();
        north.run(&["contact", "rename", "nil", "zero"]).ok();
        north.run(&["contact", "show", "nobody"]).fails(3, "no contact 'nobody'");
        assert_eq!(north.run(&["contact", "list", "--json"]).ok().json().as_array().unwrap().len(), 1);
    }
    north.run(&["contact", "remove", "zero"]).ok();
    north.run(&["down"]).ok();
    assert!(north.run(&["contact", "list", "--json"]).ok().json().as_array().unwrap().is_empty());
}

#[test]
fn no_draw_is_asked_for_whose_list_cannot_be_written() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let (folder, hash) = (place.path("folder"), "0".repeat(64));
    fs::create_dir(&folder).unwrap();
    let select = |out: &Path| {
        north.run(&["actors", "select", "--for", &hash, "--count", "1", "--out", out.to_str().unwrap()])
    };
    // Before the node is asked, which is not there.
    select(&folder).fails(1, "folder is not an ordinary file");
    select(&place.path("none/list")).fails(1, "none does not exist");
    let before = fs::read_dir(place.path("")).unwrap().count();
    select(&folder.join("list")).fails(1, "up'");
    assert_eq!(
        (fs::read_dir(&folder).unwrap().count(), fs::read_dir(place.path("")).unwrap().count()),
        (0, before)
    );
}

#[test]
fn commands_that_need_a_node_offer_to_start_one() {
    let place = Place::new();
    let north = place.person("north", &[]);
    for arguments in [&["status"][..], &["down"]] {
        north.run(arguments).fails(1, "up'");
    }
    let nobody = place.path("nobody");
    Running::spawn(kith(&nobody, &["status"])).finish().fails(1, "init'");
}

#[test]
fn wrong_usage_ends_with_two() {
    let place = Place::new();
    let home = place.path("unused");
    for arguments in [&["nonsense"][..], &["send"], &["id", "--qr", "--words"], &["ping", "x", "-c", "0"]] {
        assert_eq!(Running::spawn(kith(&home, arguments)).finish().code(), 2, "{arguments:?}");
    }
}

#[test]
fn exit_codes_do_not_depend_on_who_reads_the_output() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let code = |arguments: &[&str], out: Stdio, err: Stdio| {
        let mut command = kith(&north.home, arguments);
        command.stdin(Stdio::null()).stdout(out).stderr(err).status().unwrap().code()
    };
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let unread = || Stdio::from(std::io::pipe().unwrap().1);
    let unknown = ["--json", "contact", "show", "nobody"];
    assert_eq!(code(&unknown, unread(), unread()), Some(3));
    assert_eq!(code(&unknown, full(), full()), Some(3));
    assert_eq!(code(&["id"], unread(), Stdio::null()), Some(0));
    assert_eq!(code(&["id"], full(), Stdio::null()), Some(1));
}

#[test]
fn a_node_outlives_the_reader_of_its_output() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let mut command = kith(&north.home, &["up", "--listen", "tcp://127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(std::io::pipe().unwrap().1).stderr(std::io::pipe().unwrap().1);
    let mut node = command.spawn().unwrap();
    assert_eq!(north.status()["ready"], true);
    north.run(&["down"]).ok();
    assert_eq!(node.wait().unwrap().code(), Some(0));
}

#[test]
fn up_on_a_fresh_home_says_who_it_is_and_detached_it_stays() {
    let place = Place::new();
    let home = place.path("fresh");
    let listen = ["--listen", "quic://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"];
    let up =
        Running::spawn(kith(&home, &[&["up", "--detach", "--json"], &listen[..]].concat())).finish().ok();
    assert!(up.json()["fingerprint"].as_str().unwrap().starts_with("ni:///sha3-256;"));
    assert_eq!(up.json()["ready"], true);
    Running::spawn(kith(&home, &[&["up"], &listen[..]].concat())).finish().fails(1, "");
    Running::spawn(kith(&home, &["down"])).finish().ok();
    let up = Running::spawn(kith(&home, &[&["up"], &listen[..]].concat()));
    up.line("fingerprint  ni:///sha3-256;");
    up.line("ready");
    Running::spawn(kith(&home, &["down"])).finish().ok();
    up.finish().ok();
}

#[test]
fn a_contact_whose_name_changes_its_case_alone_is_still_one_contact() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let ni = "ni:///sha3-256;OboJhW6BME7EP_SM7zIH6jPCJEs7Y4jkrcK2APDGkM0";
    north.run(&["contact", "add", "south", ni]).ok();
    north.run(&["contact", "rename", "south", "South"]).ok();
    let listed = north.run(&["contact", "list", "--json"]).ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["name"], "South");
}
