//! Homes that are unreadable, read-only, locked or corrupt.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use crate::harness::{Place, Running, kith};

/// The user id of nobody.
const NOBODY: u32 = 65_534;

#[test]
fn a_second_node_on_one_home_is_refused_by_name() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    north.up(&[]);
    let pid = north.status()["pid"].as_u64().unwrap().to_string();
    let second = north.run(&["up", "--listen", "tcp://127.0.0.1:0"]).fails(1, &pid);
    assert!(second.err.contains("north") && second.err.contains("hint: 'kith status'"), "{second:?}");
}

#[test]
fn a_detached_node_that_waits_for_its_home_is_waited_for_and_says_why_it_ends() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let lock = kith_store::Home::at(&north.home).lock("a long command").unwrap();
    let starting = north.command(&["up", "--detach", "--listen", "tcp://127.0.0.1:0"]);
    // The child gives up before its parent does.
    let done = starting.finish().fails(1, "a long command");
    assert!(done.err.contains("did not start"), "{done:?}");
    drop(lock);
    north.run(&["status"]).fails(1, "no node is running");
}

#[test]
fn a_killed_node_leaves_a_home_that_starts_again() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    north.up(&[]);
    north.crash();
    north.run(&["status"]).fails(1, "no node is running");
    north.up(&[]);
    assert_eq!(north.status()["ready"], true);
}

#[test]
fn a_second_identity_is_never_made_over_the_first() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let before = north.ni();
    north.run(&["init"]).fails(1, "holds an identity already");
    assert_eq!(north.ni(), before);
    assert_eq!(fs::metadata(north.home.join("key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&north.home).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_configuration_that_is_there_is_never_replaced() {
    let place = Place::new();
    let home = place.path("north");
    fs::create_dir(&home).unwrap();
    let written = "# by hand\nauthorities = ['example.org']\n";
    fs::write(home.join("kith.toml"), written).unwrap();
    let init = |more: &[&str]| Running::spawn(kith(&home, &[&["init"], more].concat())).finish();
    for more in [["--name", "north"], ["--resolver", "127.0.0.1:53"], ["--authority", "example.net"]] {
        init(&more).fails(1, "kith.toml");
    }
    assert!(!home.join("key.pem").exists());
    assert!(init(&["--json"]).ok().json()["ni"].as_str().unwrap().starts_with("ni://example.org/"));
    assert_eq!(fs::read_to_string(home.join("kith.toml")).unwrap(), written);
}

#[test]
fn a_corrupt_configuration_names_file_key_and_nearest_known_key() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let config = north.home.join("kith.toml");
    for (text, part) in [
        ("autorities = []", "did you mean 'authorities'"),
        ("ttl = 5", "ttl"),
        ("ttl = \"2d\"", "1s to 1d"),
        ("\u{0}\u{1}", "kith.toml"),
        ("[directory]\nlisten-dns = ['nowhere']", "kith.toml"),
    ] {
        fs::write(&config, text).unwrap();
        let done = north.run(&["up", "--listen", "tcp://127.0.0.1:0"]).fails(1, part);
        assert!(done.err.contains("kith.toml") || done.err.contains("did you mean"), "{done:?}");
    }
    fs::write(&config, [0xff, 0xfe]).unwrap();
    north.run(&["up"]).fails(1, "UTF-8");
    fs::write(&config, vec![b'#'; 300 * 1024]).unwrap();
    north.run(&["up"]).fails(1, "kith.toml");
}

#[test]
fn a_corrupt_database_is_an_error_and_not_a_panic() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let ni = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";
    north.run(&["contact", "add", "zero", ni]).ok();
    let database = north.home.join("node.redb");
    let good = fs::read(&database).unwrap();
    for bad in [vec![0x5a; good.len()], good[..100].to_vec(), b"text".to_vec()] {
        fs::write(&database, bad).unwrap();
        let done = north.run(&["up", "--listen", "tcp://127.0.0.1:0"]).fails(1, "node.redb");
        assert!(!done.err.contains("panicked"), "{done:?}");
    }
    fs::write(&database, good).unwrap();
    assert_eq!(north.run(&["contact", "list", "--json"]).ok().json()[0]["name"], "zero");
}

#[test]
fn a_broken_key_file_is_told_apart() {
    let place = Place::new();
    let north = place.person("north", &[]);
    let key = north.home.join("key.pem");
    for bad in [&b"nothing"[..], b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b""] {
        fs::write(&key, bad).unwrap();
        north.run(&["id"]).fails(1, "key.pem");
    }
}

#[test]
fn a_passphrase_from_a_file_opens_the_key_and_a_wrong_one_does_not() {
    let place = Place::new();
    let secret = place.path("secret");
    fs::write(&secret, "correct horse\n").unwrap();
    let mut north = place.person("north", &["--passphrase-file", secret.to_str().unwrap()]);
    assert!(fs::read_to_string(north.home.join("key.pem")).unwrap().contains("ENCRYPTED"));
    let ni = north.ni();
    north.up(&[]);
    assert_eq!(north.status()["fingerprint"], ni);
    north.run(&["down"]).ok();
    fs::write(&secret, "wrong").unwrap();
    north.run(&["id"]).fails(1, "passphrase");
    fs::remove_file(&secret).unwrap();
    north.run(&["id"]).fails(1, "secret");
}

#[test]
fn homes_that_cannot_be_used_say_why() {
    let place = Place::new();
    let file = place.path("file");
    fs::write(&file, "x").unwrap();
    Running::spawn(kith(&file, &["init"])).finish().fails(1, "file");
    Running::spawn(kith(&file.join("below"), &["init"])).finish().fails(1, "below");
    let north = place.person("north", &[]);
    // Root may read and write everything, so another user tries.
    let unprivileged = |arguments: &[&str]| {
        let mut command = kith(&north.home, arguments);
        if rustix::process::getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        Running::spawn(command).finish()
    };
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&north.home, fs::Permissions::from_mode(0o555)).unwrap();
    unprivileged(&["up", "--listen", "tcp://127.0.0.1:0"]).fails(1, "north");
    fs::set_permissions(&north.home, fs::Permissions::from_mode(0o000)).unwrap();
    unprivileged(&["id"]).fails(1, "north");
    fs::set_permissions(&north.home, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_home_on_a_read_only_disk_says_so() {
    if !rustix::process::getuid().is_root() || !kith_vnet::is_there("unshare") {
        return kith_vnet::unable("root and unshare");
    }
    let place = Place::new();
    let north = place.person("north", &[]);
    let script = format!(
        "mount --bind '{0}' '{0}' && mount -o remount,ro,bind '{0}' && exec '{1}' --home '{0}' up --listen tcp://127.0.0.1:0",
        north.home.display(),
        env!("CARGO_BIN_EXE_kith")
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let done = Running::spawn(command).finish();
    if done.err.contains("unshare") || done.err.contains("mount:") {
        return kith_vnet::unable("mount namespaces");
    }
    done.fails(1, "north");
}

#[test]
fn a_home_with_a_very_long_path_still_has_a_control_socket() {
    let place = Place::new();
    let mut north = place.person(&format!("deep/{}", "long/".repeat(30)), &[]);
    north.up(&[]);
    let status = north.status();
    assert!(status["control"].as_str().unwrap().len() <= 107);
    assert!(status["notes"][0].as_str().unwrap().contains("too long"));
    north.run(&["down"]).ok();
}
