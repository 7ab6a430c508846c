//! Fills a zone, lets nodes announce themselves over HTTPS, kills things under that load, and looks whether anything is
//! missing that was acknowledged; or lets Knot take over the zone. `bench/zone/outlive` builds and runs it.
//!
//! ```text
//! outlive redis --kith FILE [--sets N]               two directories on three Redis masters with a replica each
//! outlive redb --kith FILE [--sets N] [--rounds N]   one directory on its database, each set replaced N times
//! outlive secondary --kith FILE [--sets N]           a secondary transfers the zone and hears of changes
//! ```

#![expect(clippy::expect_used, reason = "a tool for benchmarks ends where something fails")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "the servers of the tests are used")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use kith_directory::client::{ClientConfig, Directory, MemoryReplay, SourceName};
use kith_directory::store::{RedbStore, RedisConfig, RedisStore, Store, Stored};
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_identity::{Authority, Fingerprint, Identity, Ni};
use kith_sansio::{SeededRng, Time, Timestamp, system};
use kith_store::Database;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/it/servers.rs"]
mod servers;

#[path = "outlive/secondary.rs"]
mod secondary;

/// The zone; the port in it is nobody's.
const ZONE: &str = "localhost:1";
/// Announces, and lookups, that are under way at once.
const AT_ONCE: usize = 2048;
/// The first number of the nodes that announce over HTTPS.
const LOAD: u64 = 1 << 40;
/// Nodes that announce over HTTPS at once.
const WORKERS: u64 = 16;
/// Cache of the database while it is filled, in bytes; as much as the program gives it.
const CACHE_BYTES: usize = 64 << 20;

struct Options {
    kith: PathBuf,
    sets: u64,
    rounds: u64,
}

fn main() {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    let mut options = Options { kith: "target/release/kith".into(), sets: 1_000_000, rounds: 10 };
    while let (Some(word), Some(value)) = (words.next(), words.next()) {
        match word.as_str() {
            "--kith" => options.kith = value.into(),
            "--sets" => options.sets = value.parse().expect("a number"),
            "--rounds" => options.rounds = value.parse().expect("a number"),
            _ => panic!("there is no option {word}"),
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    match mode.as_str() {
        "redis" => runtime.block_on(redis(&options)),
        "redb" => runtime.block_on(redb(&options)),
        "secondary" => runtime.block_on(secondary::secondary(&options)),
        _ => panic!("redis, redb or secondary?"),
    }
}

async fn redis(options: &Options) {
    let folder = tempfile::tempdir().expect("a folder");
    // Six servers, two directories and the load share this machine: a second without an answer is no death.
    let mut cluster = servers::Cluster::patient(5000);
    let url = cluster.url();
    let config = RedisConfig::parse(&[&url]).expect("an address").for_zone(ZONE);
    let store: Arc<dyn Store> = Arc::new(RedisStore::connect(config.clone()).await.expect("a store"));
    fill(&store, options.sets, system::utc(), "fill").await;
    drop(store);
    for server in &cluster.servers {
        println!("redis-server {}: {} MiB", server.port, memory(server.pid(), "VmRSS") / 1024);
    }
    let homes = [home(options, folder.path(), "one"), home(options, folder.path(), "two")];
    std::fs::copy(homes[0].join("key.pem"), homes[1].join("key.pem")).expect("a key");
    let pin = pin(options, &homes[0]);
    let first = Served::start(options, &homes[0], &["--store", &url]);
    let second = Served::start(options, &homes[1], &["--store", &url]);
    let load = Load::start(pin, &[first.port, second.port]);
    load.wait_for(1000).await;
    println!("directories: {} and {} MiB", first.memory() / 1024, second.memory() / 1024);
    let before = load.count();
    let killed = system::time();
    first.kill();
    cluster.servers[0].kill();
    println!("killed one directory and one master after {before} acknowledged announces");
    let client = client(pin, &[second.port]);
    for number in 0..64 {
        let who = node(number % options.sets).fingerprint();
        while !found(&client, second.port, who).await {}
    }
    println!("the other directory answers for every shard after {}", seconds(killed));
    cluster.servers[0].restart();
    cluster.servers[0].info("replication", "master_link_status:up");
    println!("the killed master is back as a replica after {}", seconds(killed));
    load.wait_for(load.count() + 500).await;
    let acknowledged = load.finish().await;
    let missing = missing_over_https(&client, second.port, &acknowledged).await;
    println!("announces acknowledged over HTTPS: {}, missing: {missing}", acknowledged.len());
    drop(second);
    let store: Arc<dyn Store> = Arc::new(RedisStore::connect(config).await.expect("a store"));
    let gone = verify(&store, options.sets).await;
    verdict(missing + gone);
}

async fn redb(options: &Options) {
    let folder = tempfile::tempdir().expect("a folder");
    let home = home(options, folder.path(), "zone");
    let path = home.join("directory.redb");
    let first = system::utc().minus_secs(options.rounds);
    for round in 0..=options.rounds {
        let store: Arc<dyn Store> = Arc::new(RedbStore::new(open(&path)));
        fill(&store, options.sets, first.plus_secs(round), &format!("round {round}")).await;
        println!("  {}", size(&path));
    }
    let pin = pin(options, &home);
    let begun = system::time();
    let mut served = Served::start(options, &home, &[]);
    println!("start after an orderly end: {}, {} MiB", seconds(begun), served.memory() / 1024);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        // Each process listens on a port of its own.
        let client = client(pin, &[served.port]);
        let load = Load::start_at(pin, &[served.port], LOAD + (round << 32));
        load.wait_for(400).await;
        for number in (0..options.sets).step_by((options.sets / 500).max(1) as usize) {
            assert!(found(&client, served.port, node(number).fingerprint()).await, "nothing of {number}");
        }
        println!("under load: {} MiB, at most {} MiB", served.memory() / 1024, served.peak() / 1024);
        served.kill();
        acknowledged.extend(load.finish().await);
        let begun = system::time();
        served = Served::start(options, &home, &[]);
        println!("start after kill -9: {}, {}", seconds(begun), size(&path));
        // The limit of announces of one network begins anew with the process.
    }
    let client = client(pin, &[served.port]);
    let missing = missing_over_https(&client, served.port, &acknowledged).await;
    println!("announces acknowledged over HTTPS: {}, missing: {missing}", acknowledged.len());
    println!("at the end: {} MiB, at most {} MiB", served.memory() / 1024, served.peak() / 1024);
    drop(served);
    let begun = system::time();
    let store: Arc<dyn Store> = Arc::new(RedbStore::new(open(&path)));
    println!("opened after kill -9: {}", seconds(begun));
    pace(&store, options.sets).await;
    let gone = verify(&store, options.sets).await;
    verdict(missing + gone);
}

/// How long lookups take that come one by one, without signatures.
async fn pace(store: &Arc<dyn Store>, sets: u64) {
    let mut times = Vec::new();
    for step in 0..sets.min(100_000) {
        let who = node(step * 7919 % sets).fingerprint();
        let begun = system::time();
        assert!(matches!(store.held(system::utc(), who).await, Ok(Some(_))), "it is there");
        times.push((system::time() - begun).0);
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("lookups: median {} µs, 99.9 % within {} µs, all within {} µs", at(0.5), at(0.999), at(1.0));
}

fn verdict(missing: u64) {
    println!("missing: {missing}");
    assert_eq!(missing, 0, "something that was acknowledged is missing");
}

fn open(path: &Path) -> Database {
    Database::open(path, CACHE_BYTES).expect("a database")
}

/// What a file takes of the disk; it has holes where nothing was written yet.
fn size(path: &Path) -> String {
    let file = std::fs::metadata(path).expect("a file");
    format!("{} MiB on disk, in a file of {} MiB", file.blocks() >> 11, file.len() >> 20)
}

fn seconds(since: Time) -> String {
    format!("{:.2} s", (system::time() - since).as_millis() as f64 / 1000.0)
}

fn node(number: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(number))
}

/// What a node at home with both transports announces.
fn set(number: u64, at: Timestamp) -> VerifiedRecordSet {
    let [.., b, c, d] = number.to_be_bytes();
    let addresses = [format!("quic://10.{b}.{c}.{d}:7117"), format!("tcp://10.{b}.{c}.{d}:7117")];
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Draft { addresses, ttl: 86_400, ..Draft::default() }.sign(&node(number), at).expect("a set")
}

/// Puts all sets in, each signed by its own node.
async fn fill(store: &Arc<dyn Store>, sets: u64, at: Timestamp, name: &str) {
    let begun = system::time();
    let announces = futures_util::stream::iter(0..sets.div_ceil(256)).map(|chunk| {
        let store = Arc::clone(store);
        async move {
            let numbers = chunk * 256..sets.min((chunk + 1) * 256);
            let signed = tokio::task::spawn_blocking(move || numbers.map(|n| set(n, at)).collect::<Vec<_>>());
            let puts =
                signed.await.expect("signed").into_iter().map(|set| store.announce(system::utc(), set));
            for stored in futures_util::future::join_all(puts).await {
                assert_ne!(stored.expect("the store takes it"), Stored::NotNewer);
            }
        }
    });
    announces.buffer_unordered(AT_ONCE / 256).collect::<Vec<()>>().await;
    let spent = (system::time() - begun).as_millis().max(1);
    println!("{name}: {sets} sets in {}, {} a second", seconds(begun), sets * 1000 / spent);
}

/// Looks up all sets, signatures included; how many are missing.
async fn verify(store: &Arc<dyn Store>, sets: u64) -> u64 {
    let begun = system::time();
    let lookups = futures_util::stream::iter(0..sets.div_ceil(256)).map(|chunk| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let numbers = chunk * 256..sets.min((chunk + 1) * 256);
            let all: Vec<_> = numbers.map(|number| node(number).fingerprint()).collect();
            let lookups = all.iter().map(|who| store.lookup(system::utc(), who));
            let found = futures_util::future::join_all(lookups).await;
            found.iter().filter(|found| !matches!(found, Ok(Some(_)))).count() as u64
        })
    });
    let missing = lookups.buffer_unordered(AT_ONCE / 256);
    let missing = missing.fold(0, |sum, one| std::future::ready(sum + one.expect("a count"))).await;
    println!("looked up {sets} sets and their signatures in {}, missing: {missing}", seconds(begun));
    missing
}

fn home(options: &Options, folder: &Path, name: &str) -> PathBuf {
    let home = folder.join(name);
    let made = kith(options, &home, &["init", "--authority", ZONE]).output().expect("kith");
    assert!(made.status.success(), "{made:?}");
    home
}

fn kith(options: &Options, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(&options.kith);
    command.arg("--home").arg(home).args(arguments);
    command
}

/// The fingerprint of a home.
fn pin(options: &Options, home: &Path) -> Fingerprint {
    let id = kith(options, home, &["id"]).output().expect("kith");
    String::from_utf8_lossy(&id.stdout).trim().parse::<Ni>().expect("a fingerprint").fingerprint
}

fn authority(port: u16) -> Authority {
    format!("localhost:{port}").parse().expect("an authority")
}

fn client(pin: Fingerprint, ports: &[u16]) -> Directory {
    let config = ports.iter().fold(ClientConfig::default(), |config, port| config.pin(authority(*port), pin));
    Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()))
}

/// Whether the directory answers with a valid set.
async fn found(client: &Directory, port: u16, who: Fingerprint) -> bool {
    let ni = Ni::new(who, Some(authority(port)));
    client.discover_via(&ni, SourceName::Https).await.is_ok()
}

async fn missing_over_https(client: &Directory, port: u16, sets: &[VerifiedRecordSet]) -> u64 {
    let mut missing = 0;
    for set in sets {
        missing += u64::from(!found(client, port, set.fingerprint()).await);
    }
    missing
}

/// A field of `/proc/PID/status` in KiB.
fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A directory that runs.
struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn start(options: &Options, home: &Path, more: &[&str]) -> Served {
        Served::with_dns(options, home, "off", more)
    }

    fn with_dns(options: &Options, home: &Path, dns: &str, more: &[&str]) -> Served {
        let arguments = ["directory", "serve", "--listen-https", "127.0.0.1:0", "--listen-dns", dns];
        let mut command = kith(options, home, &[&arguments[..], more].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("kith");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let https = lines.find_map(|line| line.strip_prefix("https")?.rsplit(':').next()?.parse().ok());
        lines.find(|line| line == "ready").expect("it is ready");
        Served { child, port: https.expect("a port") }
    }

    fn memory(&self) -> u64 {
        memory(self.child.id(), "VmRSS")
    }

    fn peak(&self) -> u64 {
        memory(self.child.id(), "VmHWM")
    }

    /// `kill -9`.
    fn kill(self) {}
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// New nodes that announce themselves, at whichever directory answers.
struct Load {
    stop: CancellationToken,
    count: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<VerifiedRecordSet>>>,
}

impl Load {
    fn start(pin: Fingerprint, ports: &[u16]) -> Load {
        Load::start_at(pin, ports, LOAD)
    }

    fn start_at(pin: Fingerprint, ports: &[u16], first: u64) -> Load {
        let (stop, count) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let tasks = (0..WORKERS).map(|worker| {
            let (client, ports) = (client(pin, ports), ports.to_vec());
            let (stop, count) = (stop.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for turn in 0_u64.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    let number = first + worker + turn * WORKERS;
                    let set = set(number, system::utc());
                    let port = ports[(worker + turn) as usize % ports.len()];
                    if client.announce(&authority(port), &node(number), &set).await.is_ok() {
                        acknowledged.push(set);
                        count.fetch_add(1, Ordering::Relaxed);
                    } else {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                }
                acknowledged
            })
        });
        Load { tasks: tasks.collect(), stop, count }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    async fn wait_for(&self, count: u64) {
        while self.count() < count {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn finish(self) -> Vec<VerifiedRecordSet> {
        self.stop.cancel();
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.expect("a worker"));
        }
        all
    }
}
