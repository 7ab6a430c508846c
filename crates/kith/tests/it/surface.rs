//! The surface of the program: help, man pages, completions, and the shape of what each command prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use kith_vnet::needs;
use serde_json::{Value, json};

use crate::harness::{Done, Person, Place, Running, Zone, free_port, kith};
use crate::service::Desk;
use crate::succession::{claims, copied, succeed};
use crate::{actors, delegator, dht, invitations, network, tunnels};

/// A fingerprint that nobody has a key to.
const ZERO: &str = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";

/// All commands as the words after `kith`, groups included, with the folder of their man pages.
fn commands(place: &Place) -> Vec<(String, std::path::PathBuf)> {
    let folder = place.path("man");
    let arguments = ["man", "--all", "--into", folder.to_str().unwrap(), "--json"];
    let list = Running::spawn(kith(&place.path("unused"), &arguments)).finish().ok().json();
    let pages = list["pages"].as_array().unwrap().iter();
    pages
        .map(|page| {
            (page["command"].as_str().unwrap().to_owned(), folder.join(page["file"].as_str().unwrap()))
        })
        .collect()
}

/// The commands that do something themselves: all but those that only hold others.
fn leaves(place: &Place) -> Vec<String> {
    let is_group = |one: &str| {
        let help = help(one);
        let usage = help.lines().find(|line| line.starts_with("Usage:")).unwrap();
        usage.ends_with("<COMMAND>")
    };
    commands(place).into_iter().map(|(command, _)| command).filter(|one| !is_group(one)).collect()
}

fn help(command: &str) -> String {
    let mut arguments: Vec<_> = command.split_whitespace().collect();
    arguments.push("--help");
    Running::spawn(kith(Path::new("/nowhere"), &arguments)).finish().ok().out
}

/// The exit codes that a command's help promises.
fn promised(command: &str) -> BTreeSet<i32> {
    let help = help(command);
    let (_, codes) = help.split_once("Exit codes:\n").unwrap_or_else(|| panic!("no exit codes: {help}"));
    let lines = codes.lines().take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.trim_start().split(' ').next().unwrap().parse().ok()).collect()
}

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    let all = commands(&place);
    assert!(all.len() > 25, "{all:?}");
    for (command, _) in all {
        let help = help(&command);
        let usage = format!("Usage: kith {command}");
        for part in [usage.trim_end(), "Exit codes:", "KITH_HOME", "KITH_LOG", "--json"] {
            assert!(help.contains(part), "'{part}' is not in the help of '{command}': {help}");
        }
        let mut words: Vec<_> = command.split_whitespace().collect();
        words.extend(["--nonsense", "--json"]);
        let done = Running::spawn(kith(&place.path("unused"), &words)).finish().fails(2, "--nonsense");
        assert_eq!(done.json()["code"], "usage");
    }
}

#[test]
fn every_command_has_a_man_page_that_groff_sets_without_a_warning() {
    needs!("groff");
    let place = Place::new();
    for (command, page) in commands(&place) {
        let done = Command::new("groff")
            .args(["-ww", "-Kutf8", "-man", "-Tutf8", "-P-cbou"])
            .arg(&page)
            .output()
            .unwrap();
        let (text, warnings) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success() && warnings.is_empty(), "{command}: {warnings}");
        for title in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "SEE ALSO"]
        {
            assert!(text.lines().any(|line| line == title), "{command} has no {title}: {text}");
        }
    }
}

#[test]
fn the_page_of_one_command_is_printed_alone() {
    let place = Place::new();
    let page = |words: &[&str]| Running::spawn(kith(&place.path("unused"), words)).finish();
    assert!(page(&["man", "contact", "add"]).ok().out.contains("kith\\-contact\\-add"));
    page(&["man", "contact", "nonsense"]).fails(3, "contact nonsense");
    let mut without_home = Command::new(env!("CARGO_BIN_EXE_kith"));
    without_home.arg("man").env_remove("HOME").env_remove("KITH_HOME").env_remove("XDG_DATA_HOME");
    Running::spawn(without_home).finish().ok();
}

/// A shell's verdict on the script for it.
fn shell_accepts(shell: &str, arguments: &[&str]) {
    let place = Place::new();
    let script = Running::spawn(kith(&place.path("unused"), &["completions", shell])).finish().ok().out;
    let file = place.path("script");
    fs::write(&file, script).unwrap();
    let done = Command::new(shell).args(arguments).arg(&file).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{shell}: {done:?}");
}

#[test]
fn bash_accepts_its_completions_and_completes_with_them() {
    needs!("bash");
    shell_accepts("bash", &["--norc", "-n"]);
    let place = Place::new();
    let script = Running::spawn(kith(&place.path("unused"), &["completions", "bash"])).finish().ok().out;
    let file = place.path("script");
    fs::write(&file, script).unwrap();
    let ask = "source \"$1\"; COMP_WORDS=(kith contact re); COMP_CWORD=2; _kith kith re contact; echo \"${COMPREPLY[@]}\"";
    let done = Command::new("bash").args(["--norc", "-c", ask, "bash"]).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "rename remove requests");
}

#[test]
fn zsh_accepts_its_completions() {
    needs!("zsh");
    shell_accepts("zsh", &["-f", "-n"]);
}

#[test]
fn fish_accepts_its_completions() {
    needs!("fish");
    shell_accepts("fish", &["--no-config", "-n"]);
}

/// What was run: which command ended with which code, each output held against its description.
pub struct Ledger {
    schemas: Value,
    components: Value,
    pub seen: BTreeSet<(String, i32)>,
}

impl Ledger {
    fn new() -> Ledger {
        let read = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let local = include_str!("../../../../docs/commands.schema.json").replace("openapi.json#/", "#/");
        let openapi = read(include_str!("../../../../docs/openapi.json"));
        Ledger { schemas: read(&local), components: openapi["components"].clone(), seen: BTreeSet::new() }
    }

    fn schema(&self, command: &str) -> Value {
        self.schemas["$defs"][command.replace(' ', "-")].clone()
    }

    #[track_caller]
    fn is_valid(&self, schema: &Value, document: &Value) -> Result<(), Vec<String>> {
        let whole = json!({ "allOf": [schema], "components": self.components });
        let validator = jsonschema::validator_for(&whole).unwrap();
        let faults: Vec<_> = validator.iter_errors(document).map(|fault| fault.to_string()).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Holds what a command printed against its description.
    #[track_caller]
    pub fn check(&mut self, command: &str, code: i32, done: &Done) {
        assert_eq!(done.code(), code, "{command}: {done:?}");
        self.check_lines(command, code, &done.out);
    }

    #[track_caller]
    pub fn check_lines(&mut self, command: &str, code: i32, out: &str) {
        let schema = self.schema(command);
        assert!(schema.is_object(), "docs/commands.schema.json does not describe '{command}'");
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let streams = self.schemas["streams"].as_array().unwrap().contains(&json!(command));
        assert!(lines.len() == 1 || (streams && !lines.is_empty()), "{command}: {out}");
        let failure = json!({ "$ref": "#/components/schemas/Failure" });
        for (at, line) in lines.iter().enumerate() {
            let is_last = at + 1 == lines.len();
            if code != 0 && is_last && self.is_valid(&failure, line).is_ok() {
                let name = ["failed", "usage", "not-found", "not-trusted", "unreachable"][code as usize - 1];
                assert_eq!(line["code"], name, "{command}: {line}");
                continue;
            }
            self.is_valid(&schema, line).unwrap_or_else(|faults| panic!("{command}: {faults:?} in {line}"));
        }
        self.seen.insert((command.to_owned(), code));
    }

    /// Runs a command of `home`; `line` begins with the command's words.
    #[track_caller]
    pub fn run(&mut self, home: &Path, command: &str, more: &[&str], code: i32) -> Done {
        let mut words: Vec<_> = command.split(' ').collect();
        words.extend(more);
        words.push("--json");
        let done = Running::spawn(kith(home, &words)).finish();
        self.check(command, code, &done);
        done
    }

    /// What the help promises and no case has shown.
    #[track_caller]
    fn is_complete(&self, commands: &[String]) {
        let mut missing = Vec::new();
        for command in commands {
            assert!(
                self.schema(command).is_object(),
                "docs/commands.schema.json does not describe '{command}'"
            );
            // Wrong usage is tried for every command elsewhere.
            for code in promised(command).into_iter().filter(|code| *code != 2) {
                if !self.seen.contains(&(command.clone(), code)) {
                    missing.push((command.clone(), code));
                }
            }
        }
        assert!(missing.is_empty(), "no case of this test shows these: {missing:?}");
        let described = self.schemas["$defs"].as_object().unwrap().keys();
        let superfluous: Vec<_> =
            described.filter(|name| !commands.iter().any(|c| c.replace(' ', "-") == **name)).collect();
        assert!(superfluous.is_empty(), "{superfluous:?} are no commands");
    }
}

/// Every command, with every exit code that its help promises. A new command needs a case here.
#[test]
fn every_command_prints_what_is_described_and_ends_with_the_codes_that_its_help_promises() {
    let place = Place::new();
    let mut ledger = Ledger::new();
    let mut lost = lost(&place);
    lost.up(&[]);
    // It takes a minute until it gives up.
    let waiting = lost.command(&["status", "--wait", "--json"]);
    of_the_home(&place, &mut ledger);
    of_contacts(&place, &mut ledger);
    of_successions(&place, &mut ledger);
    delegator::of_delegators(&place, &mut ledger);
    network::of_networks(&place, &mut ledger);
    dht::of_dht(&place, &mut ledger);
    actors::of_actors(&place, &mut ledger);
    of_pages(&place, &mut ledger);
    of_simulations(&place, &mut ledger);
    of_actor_lists(&place, &mut ledger);
    of_figures(&place, &mut ledger);
    of_services(&place, &mut ledger);
    let mut zone = Zone::start(&place);
    let (mut north, mut south) = (zone.person(&place, "north"), zone.person(&place, "south"));
    north.up(&[]);
    south.up(&[]);
    of_connections(&place, &mut ledger, &north, &south);
    tunnels::of_tunnels(&place, &mut ledger, &north);
    invitations::of_invitations(&place, &mut ledger, &north, &south);
    of_directories(&place, &mut ledger, &north, &lost);
    of_a_directory_that_went_back(&place, &mut ledger, &mut zone);
    ledger.check("status", 5, &waiting.finish());
    ledger.is_complete(&leaves(&place));
}

/// A home whose directory does not answer.
fn lost(place: &Place) -> Person {
    let authority = format!("localhost:{}", free_port());
    let resolver = format!("127.0.0.1:{}", free_port());
    place.person("lost", &["--authority", &authority, "--pin", ZERO, "--resolver", &resolver])
}

fn of_the_home(place: &Place, ledger: &mut Ledger) {
    let (home, nowhere) = (place.path("home"), place.path("nowhere"));
    ledger.run(&home, "init", &["--name", "home"], 0);
    ledger.run(&home, "init", &[], 1);
    ledger.run(&home, "id", &[], 0);
    ledger.run(&home, "id", &["--of", ZERO], 0);
    ledger.run(&nowhere, "id", &[], 1);
    ledger.run(&home, "id", &["--of", "nowhere.pem"], 3);
    ledger.run(&home, "down", &[], 1);
    ledger.run(&home, "status", &[], 1);
    let listen = ["--listen", "quic://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"];
    ledger.run(&home, "up", &[&["--detach"], &listen[..]].concat(), 0);
    ledger.run(&home, "up", &listen, 1);
    ledger.run(&home, "status", &["--wait"], 0);
    ledger.run(&home, "announce", &[], 1);
    ledger.run(&home, "doctor", &[], 0);
    ledger.run(&nowhere, "doctor", &[], 1);
    ledger.run(&home, "down", &[], 0);
    let node = Running::spawn(kith(&home, &[&["up", "--json"], &listen[..]].concat()));
    ledger.check_lines("up", 0, &node.line("fingerprint"));
    ledger.run(&home, "relay serve", &listen, 1);
    ledger.run(&home, "relay list", &[], 0);
    ledger.run(&nowhere, "relay list", &[], 1);
    ledger.run(&home, "down", &[], 0);
    assert_eq!(node.finish().code(), 0);
    let node = Running::spawn(kith(
        &home,
        &[&["relay", "serve", "--for", "anyone", "--json"], &listen[..]].concat(),
    ));
    ledger.check_lines("relay serve", 0, &node.line("fingerprint"));
    ledger.run(&home, "relay list", &[], 0);
    ledger.run(&home, "down", &[], 0);
    assert_eq!(node.finish().code(), 0);
}

fn of_contacts(place: &Place, ledger: &mut Ledger) {
    let (home, nowhere) = (place.path("home"), place.path("nowhere"));
    let name = ["zero"];
    ledger.run(&home, "contact add", &["zero", ZERO, "--at", "quic://192.0.2.7:7117"], 0);
    ledger.run(&home, "contact rename", &["zero", "nil"], 0);
    ledger.run(&home, "contact rename", &["nil", "zero"], 0);
    ledger.run(&home, "contact show", &name, 0);
    ledger.run(&home, "contact list", &[], 0);
    ledger.run(&home, "contact group add", &["friends", "zero"], 0);
    ledger.run(&home, "contact group list", &[], 0);
    ledger.run(&home, "contact group remove", &["friends", "zero"], 0);
    ledger.run(&home, "contact requests", &[], 0);
    ledger.run(&home, "contact requests", &["--clear"], 0);
    ledger.run(&home, "contact remove", &name, 0);
    for (command, more) in [
        ("contact rename", &["zero", "nil"][..]),
        ("contact show", &name),
        ("contact remove", &name),
        ("contact group add", &["friends", "zero"]),
        ("contact group remove", &["friends", "zero"]),
    ] {
        ledger.run(&home, command, more, 3);
        ledger.run(&nowhere, command, more, 1);
    }
    ledger.run(&nowhere, "contact add", &["zero", ZERO], 1);
    for command in ["contact list", "contact requests", "contact group list"] {
        ledger.run(&nowhere, command, &[], 1);
    }
}

fn of_successions(place: &Place, ledger: &mut Ledger) {
    let (nowhere, own) = (place.path("nowhere"), Place::new());
    let (mut north, south) = own.friends();
    let mut copy = copied(&own, &north, "copy");
    copy.knows("south", &south);
    ledger.run(&north.home, "id succeed", &[], 1);
    north.run(&["down"]).ok();
    ledger.run(&north.home, "id succeed", &["--new-key", "nowhere.pem"], 3);
    ledger.run(&north.home, "id succeed", &[], 0);
    north.up(&[]);
    claims(&south, "north", 1);
    ledger.run(&south.home, "contact list", &[], 0);
    succeed(&mut copy);
    copy.up(&[]);
    claims(&south, "north", 2);
    ledger.run(&south.home, "contact succession list", &[], 0);
    ledger.run(&south.home, "contact succession confirm", &["north"], 4);
    ledger.run(&south.home, "contact succession reject", &["north", &copy.ni()], 0);
    ledger.run(&south.home, "contact succession confirm", &["north"], 0);
    for command in ["contact succession confirm", "contact succession reject"] {
        ledger.run(&south.home, command, &["north"], 3);
        ledger.run(&nowhere, command, &["north"], 1);
    }
    ledger.run(&nowhere, "contact succession list", &[], 1);
}

fn of_pages(place: &Place, ledger: &mut Ledger) {
    let home = place.path("unused");
    ledger.run(&home, "completions", &["bash"], 0);
    ledger.run(&home, "man", &["contact", "add"], 0);
    ledger.run(&home, "man", &["--all", "--into", place.path("pages").to_str().unwrap()], 0);
    ledger.run(&home, "man", &["nonsense"], 3);
    ledger.run(&home, "man", &["--all", "--into", "/dev/null/below"], 1);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = kith(&home, &["completions", "bash"]).stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    ledger.seen.insert(("completions".to_owned(), 1));
}

fn of_simulations(place: &Place, ledger: &mut Ledger) {
    let home = place.path("unused");
    let command = "simulate k-table";
    let table =
        ledger.run(&home, command, &["--nodes", "10M", "--colluding", "1%", "--alpha", "1e-10"], 0).json();
    assert_eq!(table["kmax"], 10);
    assert_eq!((table["mean_k"].as_f64().unwrap() * 100.0).round(), 626.0);
    let named = ledger.run(&home, command, &["--nodes", "1M", "--colluding", "10_000"], 0);
    let usual = ledger.run(
        &home,
        command,
        &["--nodes=1000000", "--colluding=1%", "--alpha=0.000001", "--mode=paper"],
        0,
    );
    assert_eq!(named.out, usual.out);
    let hardened =
        ledger.run(&home, command, &["--nodes", "64", "--colluding", "10", "--mode", "hardened"], 0).json();
    assert_eq!(hardened["kmax"], 11);
    ledger.run(&home, command, &["--nodes", "100", "--colluding", "99", "--mode", "hardened"], 1);
    for wrong in [
        ["--colluding", "100%"],
        ["--nodes", "1"],
        ["--nodes", "many"],
        ["--alpha", "1"],
        ["--colluding", "-1%"],
    ] {
        ledger.run(&home, command, &[&wrong[0..1], &wrong[1..]].concat(), 2);
    }
}

fn of_actor_lists(place: &Place, ledger: &mut Ledger) {
    let (home, command) = (place.path("unused"), "actors verify");
    let genuine = include_bytes!("../../../../fuzz/corpus/actors_list/list");
    let issuer = kith_actors::hardened::ActorList::from_bytes(genuine).unwrap().ticket.network;
    let issuer = kith_identity::Ni::new(issuer, None).to_string();
    let list = place.path("list");
    let check = |bytes: &[u8], issuer: &str, ledger: &mut Ledger, code| {
        fs::write(&list, bytes).unwrap();
        ledger.run(&home, command, &[list.to_str().unwrap(), "--issuer", issuer, "--expired"], code)
    };
    let told = check(genuine, &issuer, ledger, 0).json();
    assert_eq!((told["network"].as_str(), told["moves"].as_u64()), (Some(issuer.as_str()), Some(0)));
    let (actors, builders) = (told["actors"].as_array().unwrap(), told["builders"].as_array().unwrap());
    assert_eq!((actors.len(), told["operations"].as_u64()), (2, Some(2 * builders.len() as u64)));
    let mut changed = genuine.to_vec();
    changed[1_000] ^= 1;
    for wrong in [&changed[..], &genuine[1..], b"", &[7; 2_000_000]] {
        check(wrong, &issuer, ledger, 4);
    }
    check(genuine, ZERO, ledger, 4);
    check(genuine, "nobody", ledger, 2);
    ledger.run(&home, command, &[place.path("none").to_str().unwrap(), "--issuer", &issuer], 3);
    ledger.run(&home, command, &["/", "--issuer", &issuer], 1);
}

fn of_figures(place: &Place, ledger: &mut Ledger) {
    let home = place.path("unused");
    let nowhere = ["--into", "/dev/null/below"];
    let small = ["--nodes", "2K", "--selections", "20", "--networks", "2"];
    let (figure6, lookups) = (["--nodes", "10K"], ["--nodes", "2K", "--lookups", "20"]);
    for (command, options) in [
        ("simulate dht", &lookups[..]),
        ("simulate attack", &["reuse", "--nodes", "800", "--colluding", "16", "--attempts", "4"]),
        ("simulate figure3", &small),
        ("simulate figure4", &small),
        ("simulate figure5", &small),
        ("simulate figure6", &figure6),
        ("simulate figure7", &["--cache", "48,64", "--nodes", "2K", "--selections", "20", "--networks", "2"]),
        ("simulate figure8", &["--cache", "48,64", "--nodes", "2K", "--events", "4"]),
        ("simulate leak-index", &["--nodes", "2K", "--entries", "3K"]),
    ] {
        let name = match command.strip_prefix("simulate ").unwrap() {
            "attack" => "attack-reuse",
            name => name,
        };
        let folder = place.path(&format!("{name}-data"));
        let into = ["--threads", "1", "--into", folder.to_str().unwrap()];
        let one = ledger.run(&home, command, &[options, &into].concat(), 0);
        let two = ledger.run(&home, command, &[options, &["--threads", "2"]].concat(), 0);
        assert_eq!(one.out, two.out, "{name} depends on the number of threads");
        let read = |ending: &str| fs::read_to_string(folder.join(name).with_extension(ending));
        assert_eq!(serde_json::from_str::<Value>(&read("json").unwrap()).unwrap(), one.json());
        let rows = one.json()["rows"].as_array().unwrap().len();
        assert!(rows > 0);
        assert_eq!(read("csv").unwrap().lines().count(), rows + 1);
        let is_drawn = name.starts_with("figure") || name == "leak-index";
        assert_eq!(read("svg").is_ok_and(|svg| svg.contains("<circle")), is_drawn);
        let png = fs::read(folder.join(name).with_extension("png"));
        assert_eq!(png.is_ok_and(|png| png.starts_with(b"\x89PNG")), is_drawn);
        ledger.run(&home, command, &[options, &nowhere].concat(), 1);
        ledger.run(&home, command, &["--nodes", "1"], 2);
    }
    for wrong in [["--nodes", "1"], ["--quota", "0"], ["--actors", "10K"], ["--colluding", "100%"]] {
        ledger.run(&home, "simulate attack", &[&["echo"][..], &wrong].concat(), 2);
    }
    for wrong in [["--paths", "0"], ["--parallel", "1000"], ["--colluding", "100%"], ["--nodes", "11M"]] {
        ledger.run(&home, "simulate dht", &wrong, 2);
    }
    for wrong in [["--actors", "0"], ["--cache", "0"], ["--networks", "0"], ["--colluding", "100%"]] {
        ledger.run(&home, "simulate figure3", &wrong, 2);
    }
    for wrong in [["--overlay", "chord", "--mtbf", "1h"], ["--mtbf", "0s", "--paths", "1"]] {
        ledger.run(&home, "simulate dht", &wrong, 2);
    }
    ledger.run(&home, "simulate dht", &["--overlay=chord", "--nodes=2K", "--lookups=20"], 0);
    ledger.run(
        &home,
        "simulate figure7",
        &["--every-setter", "--cache=64", "--nodes=500", "--networks=1"],
        0,
    );
    for wrong in [["--shares", "3/2"], ["--copies", "0"], ["--nodes", "1"]] {
        ledger.run(&home, "simulate leak-index", &wrong, 2);
    }
    for wrong in [["--mtbf", "0s"], ["--cache", "200K"], ["--mode", "other"]] {
        ledger.run(&home, "simulate figure8", &wrong, 2);
    }
}

fn of_services(place: &Place, ledger: &mut Ledger) {
    let desk = Desk::new(place);
    for (arguments, code) in [
        (&["install-service", "--remove", "--json"][..], 3),
        (&["install-service", "--print", "--json"], 0),
        (&["install-service", "--json"], 0),
        (&["install-service", "--remove", "--json"], 0),
    ] {
        ledger.check("install-service", code, &Running::spawn(desk.kith(arguments)).finish());
    }
    fs::write(desk.unit(), "[Service]\n").unwrap();
    ledger.check("install-service", 1, &Running::spawn(desk.kith(&["install-service", "--json"])).finish());
}

fn of_connections(place: &Place, ledger: &mut Ledger, north: &Person, south: &Person) {
    let nowhere = place.path("nowhere");
    north.knows("south", south);
    north.run(&["contact", "add", "gone", ZERO, "--at", "tcp://127.0.0.1:1"]).ok();
    of_transfers(place, ledger, north);
    let file = place.path("letter");
    fs::write(&file, "hello").unwrap();
    let file = file.to_str().unwrap();
    let inbox = place.path("inbox");
    let inbox = inbox.to_str().unwrap();
    ledger.run(&north.home, "ping", &["south", "-c", "1"], 4);
    ledger.run(&north.home, "send", &[file, "--to", "south"], 4);
    ledger.run(&south.home, "contact requests", &[], 0);
    south.knows("north", north);
    ledger.run(&north.home, "ping", &["south", "-c", "2", "--interval", "1ms"], 0);
    let receiving = south.command(&["receive", "--yes", "--into", inbox, "--json"]);
    ledger.run(&north.home, "send", &[file, "--to", "south"], 0);
    ledger.check("receive", 0, &receiving.finish());
    ledger.run(&north.home, "status", &[], 0);
    for (command, more) in [("ping", &["nobody"][..]), ("send", &[file, "--to", "nobody"])] {
        ledger.run(&north.home, command, more, 3);
        ledger.run(&nowhere, command, more, 1);
    }
    ledger.run(&north.home, "receive", &["--yes", "--from", "nobody"], 3);
    ledger.run(&nowhere, "receive", &["--yes"], 1);
    ledger.run(&north.home, "send", &["nothing-here", "--to", "south"], 3);
    ledger.run(&north.home, "send", &[file, "--to", "gone", "--wait", "1s"], 5);
    ledger.run(&north.home, "ping", &["gone", "--wait", "1s"], 5);
}

fn of_transfers(place: &Place, ledger: &mut Ledger, north: &Person) {
    let nowhere = place.path("nowhere");
    let file = place.path("waiting");
    fs::write(&file, "later").unwrap();
    let order = [file.to_str().unwrap(), "--to", "gone", "--wait", "1d", "--detach", "--limit", "2MiB/s"];
    let id = ledger.run(&north.home, "send", &order, 0).json()["id"].as_str().unwrap().to_owned();
    let short = &id[..10];
    ledger.run(&north.home, "transfer list", &[], 0);
    ledger.run(&north.home, "transfer show", &[short], 0);
    ledger.run(&north.home, "transfer limit", &[short, "500KiB/s"], 0);
    ledger.run(&north.home, "transfer pause", &[short], 0);
    ledger.run(&north.home, "transfer resume", &["gone"], 0);
    ledger.run(&north.home, "transfer cancel", &[short], 0);
    for (command, more) in [
        ("transfer show", &["nonsense"][..]),
        ("transfer limit", &["nonsense", "off"]),
        ("transfer pause", &["nonsense"]),
        ("transfer resume", &["nonsense"]),
        ("transfer cancel", &["nonsense"]),
    ] {
        ledger.run(&north.home, command, more, 3);
        ledger.run(&nowhere, command, more, 1);
    }
    ledger.run(&nowhere, "transfer list", &[], 1);
}

fn of_directories(place: &Place, ledger: &mut Ledger, north: &Person, lost: &Person) {
    let nowhere = place.path("nowhere");
    let blob = place.path("blob");
    fs::write(&blob, "published").unwrap();
    let blob = blob.to_str().unwrap();
    let own = north.ni();
    let unknown = ZERO.replace("ni:///", &own[..own.rfind("/sha3").unwrap() + 1]);
    ledger.run(&north.home, "announce", &[], 0);
    ledger.run(&north.home, "blob put", &[blob], 0);
    for (command, more) in [("discover", [own.as_str()]), ("blob get", [&own])] {
        ledger.run(&north.home, command, &more, 0);
        ledger.run(&nowhere, command, &more, 1);
        ledger.run(&north.home, command, &[&unknown], 3);
        ledger.run(&lost.home, command, &[&lost.ni()], 5);
    }
    ledger.run(&nowhere, "blob put", &[blob], 1);
    ledger.run(&lost.home, "blob put", &[blob], 5);
    ledger.run(&lost.home, "announce", &[], 5);
    let home = place.path("home");
    let options =
        ["--authority", "localhost", "--listen-https", "127.0.0.1:0", "--listen-dns", "127.0.0.1:0"];
    let serving = Running::spawn(kith(&home, &[&["directory", "serve", "--json"], &options[..]].concat()));
    let line = serving.line("ready");
    ledger.check_lines("directory serve", 0, &line);
    let listening: Value = serde_json::from_str(&line).unwrap();
    let taken = listening["https"][0].as_str().unwrap();
    let pid = rustix::process::Pid::from_child(&serving.child);
    let other = place.path("other");
    ledger.run(&other, "init", &[], 0);
    let again = ["--authority", "localhost", "--listen-https", taken, "--listen-dns", "off"];
    ledger.run(&other, "directory serve", &again, 1);
    let nowhere = format!("redis://127.0.0.1:{}", crate::harness::free_port());
    let stored = ["--authority", "localhost", "--listen-dns", "off", "--store", &nowhere];
    ledger.run(&other, "directory serve", &stored, 5);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(serving.finish().code(), 0);
}

/// A directory that was set back to an older state must not make a reader believe what was replaced.
fn of_a_directory_that_went_back(place: &Place, ledger: &mut Ledger, zone: &mut Zone) {
    let (writer, reader) = (zone.person(place, "writer"), zone.person(place, "reader"));
    let blob = place.path("blob");
    let database = zone.person.home.join("directory.redb");
    let publish = |text: &str| {
        fs::write(&blob, text).unwrap();
        writer.run(&["blob", "put", blob.to_str().unwrap()]).ok();
    };
    publish("first");
    stop(zone);
    let old = fs::read(&database).unwrap();
    zone.serve();
    publish("second");
    ledger.run(&reader.home, "discover", &[&writer.ni()], 0);
    stop(zone);
    fs::write(&database, old).unwrap();
    zone.serve();
    ledger.run(&reader.home, "discover", &[&writer.ni()], 4);
    ledger.run(&reader.home, "blob get", &[&writer.ni()], 4);
}

fn stop(zone: &mut Zone) {
    let node = zone.person.node.take().unwrap();
    let pid = rustix::process::Pid::from_child(&node.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(node.finish().code(), 0);
}
