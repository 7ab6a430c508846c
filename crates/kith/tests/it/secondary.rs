//! Other people's name servers take over the zone: Knot and NSD by transfer, and `dig` with keys right and wrong.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kith_sansio::system;
use kith_vnet::needs;

use crate::harness::{Place, Zone, eventually, free_port, within_minutes};

const KEY: &str = "transfer.example";
const SECRET: &str = "c2l4dGVlbiBieXRlcyBhbmQgc29tZSBtb3JlIG9mIHRoZW0=";
/// More than any of these servers takes to stop.
const STOP_TRIES: u32 = 200;

/// A name server that is stopped by its process id when the test ends, however it ends.
struct Server {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
}

impl Server {
    fn spawn(mut command: Command, port: u16, log: &Path) -> Server {
        let file = fs::File::create(log).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Server { child, port, log: log.to_path_buf() }
    }

    /// What it answers, in the short form of dig.
    fn dig(&self, name: &str, kind: &str) -> Vec<u8> {
        let port = self.port.to_string();
        let arguments = ["@127.0.0.1", "-p", &port, "+short", "+tries=1", "+time=2", name, kind];
        Command::new("dig").args(arguments).output().unwrap().stdout
    }

    /// How many lines of its log are like that.
    fn logged(&self, like: impl Fn(&str) -> bool) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().lines().filter(|line| like(line)).count()
    }

    #[track_caller]
    fn answers(&self, name: &str, kind: &str, what: &str, good: impl Fn(&str) -> bool) -> Vec<u8> {
        let log = || fs::read_to_string(&self.log).unwrap_or_default();
        eventually(&format!("{what} (log:\n{})", log()), || {
            let answer = self.dig(name, kind);
            good(&String::from_utf8_lossy(&answer)).then_some(answer)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: some of these servers are several processes, and the first one stops the others.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        for _ in 0..STOP_TRIES {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            let _ = Command::new("sleep").arg("0.05").status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn knot(place: &Place, primary: &str, port: u16) -> Server {
    let folder = place.path("knot");
    fs::create_dir(&folder).unwrap();
    let (dir, (host, from)) = (folder.display(), primary.split_once(':').unwrap());
    let text = format!(
        "server:\n  rundir: \"{dir}\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
         background-workers: 1\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n  storage: \"{dir}\"\n\
         key:\n  - id: {KEY}\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         remote:\n  - id: kith\n    address: {host}@{from}\n    key: {KEY}\n\
         acl:\n  - id: notices\n    address: {host}\n    key: {KEY}\n    action: notify\n\
         zone:\n  - domain: 0a.localhost\n    storage: \"{dir}\"\n    master: kith\n    acl: notices\n"
    );
    fs::write(folder.join("knot.conf"), text).unwrap();
    let mut command = Command::new("knotd");
    command.arg("-c").arg(folder.join("knot.conf"));
    Server::spawn(command, port, &folder.join("log"))
}

fn nsd(place: &Place, primary: &str, port: u16) -> Server {
    let folder = place.path("nsd");
    fs::create_dir(&folder).unwrap();
    let (dir, (host, from)) = (folder.display(), primary.split_once(':').unwrap());
    let text = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{dir}\"\n  \
         pidfile: \"{dir}/pid\"\n  database: \"\"\n  xfrdfile: \"{dir}/xfrd.state\"\n  xfrdir: \"{dir}\"\n  \
         zonelistfile: \"{dir}/zone.list\"\n  server-count: 1\n  verbosity: 2\n\
         remote-control:\n  control-enable: no\n\
         key:\n  name: \"{KEY}\"\n  algorithm: hmac-sha256\n  secret: \"{SECRET}\"\n\
         zone:\n  name: \"0a.localhost\"\n  zonefile: \"zone\"\n  allow-notify: {host} {KEY}\n  \
         request-xfr: {host}@{from} {KEY}\n"
    );
    fs::write(folder.join("nsd.conf"), text).unwrap();
    let mut command = Command::new("nsd");
    command.arg("-d").arg("-c").arg(folder.join("nsd.conf"));
    Server::spawn(command, port, &folder.join("log"))
}

/// A directory with secondaries on these ports.
fn zone_with_secondaries(place: &Place, ports: &[u16]) -> Zone {
    zone_with_metrics(place, ports, "")
}

/// The same with one more line of configuration.
fn zone_with_metrics(place: &Place, ports: &[u16], line: &str) -> Zone {
    let mut zone = Zone::start(place);
    zone.person.crash();
    let secret = place.path("secret");
    let mut file =
        fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&secret).unwrap();
    writeln!(file, "{SECRET}").unwrap();
    let mut config = fs::OpenOptions::new().append(true).open(zone.person.home.join("kith.toml")).unwrap();
    let secret = secret.display();
    writeln!(config, "\n[directory]\nname-servers = ['ns1.example.org', 'ns2.example.org']\n{line}").unwrap();
    writeln!(config, "[[directory.tsig-key]]\nname = '{KEY}'\nsecret-file = '{secret}'").unwrap();
    for port in ports {
        writeln!(config, "[[directory.secondary]]\naddress = '127.0.0.1:{port}'\nkey = '{KEY}'").unwrap();
    }
    zone.serve();
    zone
}

fn verify(ni: &str, set: &[u8], place: &Place) -> String {
    let file = place.path("fetched");
    fs::write(&file, set).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/verify_record_set.py");
    let output = Command::new("python3").arg(script).arg(ni).arg("--txt").arg(&file).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn knot_and_nsd_take_over_the_zone_and_follow_its_changes() {
    needs!("knotd", "nsd");
    needs!("dig", "python3");
    let place = Place::new();
    let ports = [free_port(), free_port()];
    let metrics = free_port();
    let zone = zone_with_metrics(&place, &ports, &format!("metrics = '127.0.0.1:{metrics}'\n"));
    let mut servers = [knot(&place, &zone.dns, ports[0]), nsd(&place, &zone.dns, ports[1])];
    for server in &servers {
        server.answers("0a.localhost", "SOA", "the first transfer", |soa| soa.contains("ns1.example.org."));
        server.answers("0a.localhost", "NS", "name servers", |ns| ns.contains("ns2.example.org."));
    }
    let mut north = zone.person(&place, "north");
    let id = north.run(&["id", "--json"]).ok().json();
    let (ni, fqdn) = (id["ni"].as_str().unwrap(), id["fqdn"].as_str().unwrap());
    north.up(&[]);
    north.status();
    let announced = system::time();
    for server in &servers {
        let set = server.answers(fqdn, "TXT", "the announced set", |set| set.contains("address="));
        eprintln!("at the secondary after {:?}", system::time() - announced);
        let verdict = verify(ni, &set, &place);
        assert!(verdict.starts_with("valid"), "{verdict}");
    }
    north.run(&["down"]).ok();
    for server in &servers {
        let withdrawn = |set: &str| set.contains("timestamp=") && !set.contains("address=");
        let set = server.answers(fqdn, "TXT", "the set without addresses", withdrawn);
        assert!(verify(ni, &set, &place).starts_with("valid"));
    }
    // Both had the zone, and took what changed of it.
    let [by_knot, failed] = [
        servers[0].logged(|line| line.contains("IXFR, incoming") && line.contains("finished")),
        servers[0].logged(|line| line.contains("XFR, incoming") && line.contains("failed")),
    ];
    assert!(by_knot > 0 && failed == 0, "{}", fs::read_to_string(&servers[0].log).unwrap());
    let incremental = "kith_directory_transfers_total{outcome=\"incremental\"} ";
    eventually("a transfer of what changed to NSD too", || {
        let page = scrape(metrics);
        let count = page.lines().find_map(|line| line.strip_prefix(incremental))?.parse::<usize>().unwrap();
        (count > by_knot).then_some(())
    });
    // A secondary that was away comes back and has what changed meanwhile.
    let [_, away] = &mut servers;
    let nsd_port = away.port;
    let south = zone.person(&place, "south");
    let away_folder = place.path("nsd");
    let [knot, gone] = servers;
    drop(gone);
    fs::rename(&away_folder, place.path("nsd-before")).unwrap();
    fs::write(place.path("blob"), "hello").unwrap();
    south.run(&["blob", "put", place.path("blob").to_str().unwrap()]).ok();
    let name = south.run(&["id", "--json"]).ok().json()["fqdn"].as_str().unwrap().to_owned();
    knot.answers(&name, "TXT", "another node's set", |set| set.contains("blob="));
    let back = nsd(&place, &zone.dns, nsd_port);
    back.answers(&name, "TXT", "what it missed", |set| set.contains("blob="));
}

#[test]
fn a_set_that_expired_is_gone_from_the_secondary_too() {
    needs!("knotd", "dig");
    let place = Place::new();
    let port = free_port();
    let zone = zone_with_secondaries(&place, &[port]);
    let server = knot(&place, &zone.dns, port);
    server.answers("0a.localhost", "SOA", "the first transfer", |soa| !soa.is_empty());
    let north = zone.person(&place, "north");
    let config = north.home.join("kith.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("ttl = \"1h\""), "{text}");
    fs::write(&config, text.replace("ttl = \"1h\"", "ttl = \"90s\"")).unwrap();
    fs::write(place.path("blob"), "hello").unwrap();
    north.run(&["blob", "put", place.path("blob").to_str().unwrap()]).ok();
    let fqdn = north.run(&["id", "--json"]).ok().json()["fqdn"].as_str().unwrap().to_owned();
    server.answers(&fqdn, "TXT", "the announced set", |set| set.contains("blob="));
    within_minutes(3, "the end of the set", || server.dig(&fqdn, "TXT").is_empty().then_some(()));
}

/// The directory's page of metrics.
fn scrape(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The exit and the words of a transfer by dig.
fn transfer(zone: &Zone, key: Option<&str>, kind: &str) -> String {
    let (host, port) = zone.dns.split_once(':').unwrap();
    let (host, name) = (format!("@{host}"), "0a.localhost");
    let mut arguments = vec![host.as_str(), "-p", port, "+tries=1", "+nocomments", "+tcp"];
    arguments.extend(key.map(|key| ["-y", key]).iter().flatten());
    arguments.extend([name, kind]);
    let output = Command::new("dig").args(arguments).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn only_the_right_key_transfers_the_zone() {
    needs!("dig");
    let place = Place::new();
    let zone = zone_with_secondaries(&place, &[free_port()]);
    let north = zone.person(&place, "north");
    fs::write(place.path("blob"), "hello").unwrap();
    north.run(&["blob", "put", place.path("blob").to_str().unwrap()]).ok();
    let fqdn = north.run(&["id", "--json"]).ok().json()["fqdn"].as_str().unwrap().to_owned();
    let right = format!("hmac-sha256:{KEY}:{SECRET}");
    // The set is in the zone under the next number, which is told some seconds later.
    let whole = eventually("a transfer with the set", || {
        let whole = transfer(&zone, Some(&right), "AXFR");
        assert!(whole.contains("XFR size"), "{whole}");
        whole.contains(&fqdn).then_some(whole)
    });
    assert_eq!(whole.matches("IN\tSOA").count(), 2, "{whole}");
    let by_number = transfer(&zone, Some(&right), "IXFR=1");
    assert!(by_number.contains("IN\tSOA"), "{by_number}");
    let other = SECRET.replace("c2l4", "c2l5");
    for (key, why) in [
        (None, "Transfer failed"),
        (Some(format!("hmac-sha256:{KEY}:{other}")), "BADSIG"),
        (Some(format!("hmac-sha512:{KEY}:{SECRET}")), "BADKEY"),
        (Some(format!("hmac-sha256:another.example:{SECRET}")), "BADKEY"),
    ] {
        let refused = transfer(&zone, key.as_deref(), "AXFR");
        assert!(refused.contains(why) && !refused.contains("timestamp="), "{key:?}: {refused}");
    }
}

#[test]
fn a_key_that_is_missing_open_or_there_twice_is_refused_at_the_start() {
    let place = Place::new();
    let mut zone = zone_with_secondaries(&place, &[free_port()]);
    zone.person.crash();
    let serve = ["directory", "serve", "--listen-https", "off", "--listen-dns", "127.0.0.1:0"];
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(place.path("secret"), mode).unwrap();
    zone.person.run(&serve).fails(1, "others can read");
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(place.path("secret"), mode).unwrap();
    let config = zone.person.home.join("kith.toml");
    let text = fs::read_to_string(&config).unwrap().replace(&format!("key = '{KEY}'"), "key = 'other'");
    fs::write(&config, &text).unwrap();
    zone.person.run(&serve).fails(1, "'other'");
    let key = text.replace("key = 'other'", &format!("key = '{KEY}'"));
    let again = format!("[[directory.tsig-key]]\nname = '{}.'\n", KEY.to_uppercase());
    let secret = place.path("secret").display().to_string();
    fs::write(&config, format!("{key}\n{again}secret-file = '{secret}'\n")).unwrap();
    let refused = zone.person.run(&serve).fails(1, "there are two keys with the name 'transfer.example'");
    assert!(refused.err.contains("hint:"), "{refused:?}");
}
