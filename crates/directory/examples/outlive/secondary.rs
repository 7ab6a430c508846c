//! Knot takes over a large zone, and follows its changes.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kith_directory::client::{ClientConfig, Directory, MemoryReplay, SourceName};
use kith_directory::store::{RedbStore, Store};
use kith_identity::Ni;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::{Time, system};

use super::{LOAD, Options, Served, authority, client, fill, home, node, open, pin, seconds, set};

const KEY: &str = "transfer.example";
const SECRET: &str = "c2l4dGVlbiBieXRlcyBhbmQgc29tZSBtb3JlIG9mIHRoZW0=";
/// Changes that are followed.
const CHANGES: u64 = 3;
/// Time for Knot to take over the zone, once and after each change.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Between two looks.
const STEP: Duration = Duration::from_millis(100);

pub(super) async fn secondary(options: &Options) {
    let folder = tempfile::tempdir().expect("a folder");
    let home = home(options, folder.path(), "zone");
    let path = home.join("directory.redb");
    let store: Arc<dyn Store> = Arc::new(RedbStore::new(open(&path)));
    fill(&store, options.sets, system::utc(), "fill").await;
    let number = store.revision().await.expect("a revision").newest.to_string();
    drop(store);
    let (dns, port) = (free_port(), free_port());
    configure(folder.path(), &home, port);
    let served = Served::with_dns(options, &home, &format!("127.0.0.1:{dns}"), &[]);
    println!("directory: {} MiB", served.memory() / 1024);
    // What was filled in last is told some seconds later.
    while !dig(dns, "0a.localhost", "SOA").contains(&number) {
        tokio::time::sleep(STEP).await;
    }
    let begun = system::time();
    let knot = Knot::start(folder.path(), dns, port);
    knot.wait(&served, "0a.localhost", "SOA", |answer| !answer.is_empty()).await;
    println!("first answer of the secondary after {}", seconds(begun));
    knot.print_transfers(&served);
    let resolved = resolver(port);
    for step in 0..100 {
        check(&resolved, served.port, &set_of(step * options.sets / 100)).await;
    }
    println!("100 of its answers verify");
    let client = client(pin(options, &home), &[served.port]);
    for number in LOAD..LOAD + CHANGES {
        let set = set(number, system::utc());
        client.announce(&authority(served.port), &node(number), &set).await.expect("it is taken");
        let announced = system::time();
        let name = ni(served.port, &set).fqdn().expect("a name");
        knot.wait(&served, &name, "TXT", |answer| answer.contains("signature=")).await;
        println!("announced, and seen at the secondary after {}", seconds(announced));
        knot.print_transfers(&served);
        check(&resolved, served.port, &set).await;
    }
    println!("all answers verify");
}

fn set_of(number: u64) -> VerifiedRecordSet {
    set(number, system::utc())
}

fn ni(port: u16, set: &VerifiedRecordSet) -> Ni {
    Ni::new(set.fingerprint(), Some(authority(port)))
}

/// A client that asks the secondary for everything.
fn resolver(dns: u16) -> Directory {
    let resolvers = vec![SocketAddr::from(([127, 0, 0, 1], dns))];
    let config = ClientConfig { resolvers, ..ClientConfig::default() };
    Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()))
}

/// The secondary answers with a valid set of the same addresses.
async fn check(resolved: &Directory, port: u16, set: &VerifiedRecordSet) {
    let found = resolved.discover_via(&ni(port, set), SourceName::Dns).await.expect("a set that verifies");
    assert_eq!(found.set.addresses(), set.addresses());
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

/// Names the secondary in the directory's configuration.
fn configure(folder: &Path, home: &Path, port: u16) {
    let secret = folder.join("secret");
    let mut file =
        fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&secret).expect("a file");
    writeln!(file, "{SECRET}").expect("written");
    let mut config = fs::OpenOptions::new().append(true).open(home.join("kith.toml")).expect("kith.toml");
    let secret = secret.display();
    let key = format!("[[directory.tsig-key]]\nname = '{KEY}'\nsecret-file = '{secret}'\n");
    let secondary = format!("[[directory.secondary]]\naddress = '127.0.0.1:{port}'\nkey = '{KEY}'\n");
    write!(config, "\n[directory]\n{key}{secondary}").expect("written");
}

/// What a server of this machine answers.
fn dig(port: u16, name: &str, kind: &str) -> String {
    let port = port.to_string();
    let arguments = ["@127.0.0.1", "-p", &port, "+short", "+tries=1", "+time=2", name, kind];
    let answer = Command::new("dig").args(arguments).output().expect("dig").stdout;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A secondary that is stopped by its process id.
struct Knot {
    child: Child,
    port: u16,
    log: PathBuf,
    begun: Time,
}

impl Knot {
    fn start(folder: &Path, primary: u16, port: u16) -> Knot {
        let folder = folder.join("knot");
        fs::create_dir(&folder).expect("a folder");
        let dir = folder.display();
        // What is measured is the transfer: the zone stays in memory, in one process without a copy on the disk.
        let text = format!(
            "server:\n  rundir: \"{dir}\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\n\
             log:\n  - target: stderr\n    any: info\n\
             database:\n  storage: \"{dir}\"\n\
             key:\n  - id: {KEY}\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
             remote:\n  - id: kith\n    address: 127.0.0.1@{primary}\n    key: {KEY}\n\
             acl:\n  - id: notices\n    address: 127.0.0.1\n    key: {KEY}\n    action: notify\n\
             zone:\n  - domain: 0a.localhost\n    storage: \"{dir}\"\n    zonefile-sync: -1\n    \
             zonefile-load: none\n    journal-content: none\n    master: kith\n    acl: notices\n"
        );
        fs::write(folder.join("knot.conf"), text).expect("written");
        let log = folder.join("log");
        let file = fs::File::create(&log).expect("a file");
        let mut command = Command::new("knotd");
        command.arg("-c").arg(folder.join("knot.conf")).stdin(Stdio::null());
        let child = command.stdout(file.try_clone().expect("a file")).stderr(file).spawn().expect("knotd");
        Knot { child, port, log, begun: system::time() }
    }

    /// Asks with dig until the answer is good.
    async fn wait(&self, served: &Served, name: &str, kind: &str, good: impl Fn(&str) -> bool) {
        let begun = system::time();
        loop {
            let answer = dig(self.port, name, kind);
            if good(&answer) && !answer.starts_with(";;") {
                return;
            }
            let waited = Duration::from(system::time() - begun);
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(
                waited < PATIENCE,
                "nothing of {name} (at most {} MiB):\n{}",
                served.peak() / 1024,
                log()
            );
            tokio::time::sleep(STEP).await;
        }
    }

    /// What Knot says of its last transfer, and what the directory took at most since its start.
    fn print_transfers(&self, served: &Served) {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rfind(|line| line.contains("XFR") && line.contains("finished"));
        let kind = last.map_or("nothing", |line| if line.contains("IXFR") { "what changed" } else { "all" });
        let last = last.and_then(|line| line.split_once("finished, ")).map_or("", |(_, told)| told);
        let (now, most) = (served.memory() / 1024, served.peak() / 1024);
        let knot = super::memory(self.child.id(), "VmRSS") / 1024;
        println!("  transfer of {kind}: {last}; directory: {now} MiB, at most {most} MiB; Knot: {knot} MiB");
        println!("  {} after Knot's start", seconds(self.begun));
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
