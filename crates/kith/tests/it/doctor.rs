//! `kith doctor`: each thing is broken once, and the report names it and says what to do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::harness::{Person, Place, Running, Zone, eventually, free_port, kith};

/// A fingerprint that nobody has a key to.
const ZERO: &str = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";

/// What the doctor says of a home.
struct Report {
    code: i32,
    checks: Vec<Value>,
}

impl Report {
    #[track_caller]
    fn of(home: &Path) -> Report {
        let done = Running::spawn(kith(home, &["doctor", "--json"])).finish();
        let checks = done.json()["checks"].as_array().unwrap().clone();
        Report { code: done.code(), checks }
    }

    /// The line of `check` with this verdict that says `part`.
    #[track_caller]
    fn says(&self, check: &str, verdict: &str, part: &str) -> &Value {
        let is = |one: &&Value| {
            one["check"] == check && one["verdict"] == verdict && one["says"].as_str().unwrap().contains(part)
        };
        self.checks
            .iter()
            .find(is)
            .unwrap_or_else(|| panic!("no {verdict} of {check} with '{part}': {:?}", self.checks))
    }

    /// The one failure, with what to do.
    #[track_caller]
    fn fails(&self, check: &str, part: &str, todo: &str) {
        assert_eq!(self.code, 1);
        let found = self.says(check, "fail", part);
        assert!(found["do"].as_str().unwrap().contains(todo), "'{todo}' is not in {found}");
        let failed: Vec<_> = self.checks.iter().filter(|one| one["verdict"] == "fail").collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
    }
}

fn healthy(place: &Place) -> Person {
    let north = place.person("north", &[]);
    fs::write(north.home.join("kith.toml"), "listen = ['tcp://127.0.0.1:0', 'quic://127.0.0.1:0']\n")
        .unwrap();
    north.run(&["contact", "list"]).ok();
    north
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// All files of a home with their contents and times.
fn state(home: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime, u32)> {
    let mut all: Vec<_> = fs::read_dir(home)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let meta = fs::metadata(&path).unwrap();
            (
                path.clone(),
                fs::read(&path).unwrap_or_default(),
                meta.modified().unwrap(),
                meta.permissions().mode(),
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_healthy_home_passes_and_is_not_changed() {
    let place = Place::new();
    let north = healthy(&place);
    let before = state(&north.home);
    let report = Report::of(&north.home);
    assert_eq!(report.code, 0, "{:?}", report.checks);
    assert_eq!(state(&north.home), before);
    report.says("home", "ok", "yours alone");
    report.says("identity", "ok", &north.ni());
    report.says("database", "ok", "node.redb");
    report.says("node", "warn", "none is running");
    report.says("ports", "ok", "is free");
    report.says("addresses", "ok", "loopback alone");
    report.says("directory", "ok", "none");
    let text = north.run(&["doctor"]).ok().out;
    assert!(text.contains("-> start one with 'kith up'"), "{text}");
}

#[test]
fn a_home_that_is_missing_is_not_made() {
    let place = Place::new();
    let home = place.path("nowhere");
    let report = Report::of(&home);
    assert_eq!(report.code, 1);
    report.says("home", "fail", "no folder");
    report.says("identity", "fail", "key.pem");
    assert!(!home.exists());
}

#[test]
fn what_others_may_read_is_named_with_the_command_that_closes_it() {
    let place = Place::new();
    let north = healthy(&place);
    chmod(&north.home, 0o750);
    Report::of(&north.home).fails("home", "mode 750", "chmod 700");
    chmod(&north.home, 0o700);
    chmod(&north.home.join("key.pem"), 0o640);
    Report::of(&north.home).fails("identity", "mode 640", "chmod 600");
    chmod(&north.home.join("key.pem"), 0o600);
    assert_eq!(Report::of(&north.home).code, 0);
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(&north.home, Some(65_534), None).unwrap();
        Report::of(&north.home).fails("home", "belongs to user 65534", "chown");
    }
}

#[test]
fn broken_files_are_named() {
    let place = Place::new();
    let north = healthy(&place);
    let (config, key, database) =
        (north.home.join("kith.toml"), north.home.join("key.pem"), north.home.join("node.redb"));
    let good = [&config, &key, &database].map(|path| fs::read(path).unwrap());
    fs::write(&config, "autorities = []\n").unwrap();
    Report::of(&north.home).fails("configuration", "autorities", "did you mean 'authorities'");
    fs::write(&config, &good[0]).unwrap();
    fs::write(&key, "nothing").unwrap();
    Report::of(&north.home).fails("identity", "key.pem", "");
    fs::write(&key, &good[1]).unwrap();
    fs::write(&database, "nothing").unwrap();
    Report::of(&north.home).fails("database", "node.redb", "backup");
    fs::write(&database, &good[2]).unwrap();
    assert_eq!(Report::of(&north.home).code, 0);
}

#[test]
fn a_key_with_a_passphrase_is_not_asked_for() {
    let place = Place::new();
    let secret = place.path("secret");
    fs::write(&secret, "correct horse\n").unwrap();
    chmod(&secret, 0o600);
    let north = place.person("north", &["--passphrase-file", secret.to_str().unwrap()]);
    Report::of(&north.home).says("identity", "ok", "ni:///sha3-256;");
    chmod(&secret, 0o644);
    Report::of(&north.home).fails("identity", "secret", "chmod 600");
    fs::write(north.home.join("kith.toml"), "").unwrap();
    let report = Report::of(&north.home);
    report.says("identity", "warn", "passphrase");
    assert_eq!(report.code, 0);
}

#[test]
fn a_clock_that_went_back_is_noticed() {
    let place = Place::new();
    let north = healthy(&place);
    let made = fs::metadata(north.home.join("key.pem")).unwrap().modified().unwrap();
    let later = made + Duration::from_secs(3_600);
    fs::File::options().write(true).open(north.home.join("kith.toml")).unwrap().set_modified(later).unwrap();
    Report::of(&north.home).fails("clock", "written at", "set the clock");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let place = Place::new();
    let north = healthy(&place);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    fs::write(north.home.join("kith.toml"), format!("listen = ['tcp://{at}']\n")).unwrap();
    Report::of(&north.home).fails("ports", &at.to_string(), "kith.toml");
    let zone = format!(
        "listen = ['tcp://127.0.0.1:0']\n[directory]\nauthority = 'localhost'\nlisten-https = ['{at}']\nlisten-dns = []\ncertificate = '/nowhere/chain.pem'\nkey = '/nowhere/key.pem'\n"
    );
    fs::write(north.home.join("kith.toml"), zone).unwrap();
    let report = Report::of(&north.home);
    report.says("zone", "warn", &at.to_string());
    report.fails("zone", "/nowhere/chain.pem", "directory.certificate");
}

#[test]
fn a_node_that_is_killed_or_stopped_still_is_told_apart() {
    let place = Place::new();
    let mut north = healthy(&place);
    north.up(&[]);
    let pid = north.status()["pid"].as_u64().unwrap();
    Report::of(&north.home).says("node", "ok", &pid.to_string());
    let child = rustix::process::Pid::from_child(&north.node.as_ref().unwrap().child);
    rustix::process::kill_process(child, rustix::process::Signal::STOP).unwrap();
    // Each of its threads stops when it is its turn to run.
    let is_stopped =
        |task: &Path| fs::read_to_string(task.join("status")).is_ok_and(|text| text.contains("State:\tT"));
    let tasks = || fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    eventually("the stop", || tasks().all(|task| is_stopped(&task)).then_some(()));
    Report::of(&north.home).fails("node", &pid.to_string(), "kill");
    north.crash();
    let report = Report::of(&north.home);
    assert_eq!(report.code, 0, "{:?}", report.checks);
    report.says("node", "warn", "none is running");
    report.says("database", "ok", "the next start mends it");
}

#[test]
fn a_directory_is_looked_at_from_the_name_to_what_it_holds() {
    let place = Place::new();
    let mut zone = Zone::start(&place);
    let mut north = zone.person(&place, "north");
    Report::of(&north.home).says("announced", "ok", "nothing");
    north.up(&[]);
    north.status();
    let report = Report::of(&north.home);
    assert_eq!(report.code, 0, "{:?}", report.checks);
    report.says("directory", "ok", &zone.authority);
    report.says("clock", "ok", &zone.authority);
    report.says("announced", "ok", "until");
    report.says("dns", "ok", "0a.localhost");
    let config = north.home.join("kith.toml");
    let good = fs::read_to_string(&config).unwrap();
    let broken = |from: &str, to: &str| {
        fs::write(&config, good.replace(from, to)).unwrap();
        Report::of(&north.home)
    };
    let pin = zone.person.ni();
    broken(&pin, ZERO).fails("directory", "TLS handshake", "pin");
    let closed = format!("localhost:{}", free_port());
    broken(&zone.authority, &closed).fails("directory", "cannot connect", "network");
    let silent = format!("127.0.0.1:{}", free_port());
    broken(&zone.dns, &silent).says("dns", "warn", "HTTPS is used instead");
    fs::write(&config, &good).unwrap();
    // A directory that forgot everything.
    zone.person.crash();
    fs::remove_file(zone.person.home.join("directory.redb")).unwrap();
    zone.serve();
    Report::of(&north.home).fails("announced", &zone.authority, "kith announce");
}

#[test]
fn a_full_disk_is_noticed() {
    if !rustix::process::getuid().is_root() || !kith_vnet::is_there("unshare") {
        return kith_vnet::unable("root and unshare");
    }
    let place = Place::new();
    let north = healthy(&place);
    let home = north.home.display();
    let script = format!(
        "cp -a {home} {home}.copy && mount -t tmpfs -o size=2m,mode=700 none {home} && cp -a {home}.copy/. {home}/ && exec {} --home {home} doctor",
        env!("CARGO_BIN_EXE_kith")
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let done = Running::spawn(command).finish();
    if done.err.contains("unshare") || done.err.contains("mount:") {
        return kith_vnet::unable("mount namespaces");
    }
    assert!(done.out.contains("FAIL  disk"), "{done:?}");
    done.fails(1, "one check failed");
}
