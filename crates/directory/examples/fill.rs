//! Fills a directory's store with signed record sets, for benchmarks and trials of a large zone.
//!
//! ```text
//! cargo run --release -p kith-directory --example fill -- STORE SETS [--ttl SECS] [--seed N] [--rounds N]
//!     [--authority HOST] [--sample N] [--queries FILE] [--paths FILE] [--zone FILE] [--bodies FOLDER]
//! ```
//! STORE is the database file of a directory that does not run (`HOME/directory.redb`), the address of a Redis or
//! Valkey store (`redis://…`; `--authority` names the zone), or `none` to write only the other files. The same `--seed` gives the same keys, so that what was filled once can be asked for later, and
//! `--rounds` replaces every set so many times.
//!
//! `--queries` gets lines for `dnsperf` and `--paths` the paths of HTTPS requests, both of `--sample` sets spread
//! over all of them; `--zone` gets all sets as a zone file for other servers, `--bodies` one JSON file for each set
//! of the sample under its path.

#![expect(clippy::expect_used, reason = "a tool for benchmarks ends where something fails")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use futures_util::StreamExt;
use kith_directory::store::{RedbStore, RedisConfig, RedisStore, Store, Stored};
use kith_identity::Identity;
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_sansio::{SeededRng, Timestamp, system};
use kith_store::Database;

/// Announces that are under way at once; the embedded store commits them together.
const AT_ONCE: usize = 2048;
/// Memory for the database while it is filled, in bytes.
const CACHE_BYTES: usize = 256 << 20;
/// Sets that one thread signs before it hands them over.
const CHUNK: usize = 256;

struct Options {
    store: String,
    sets: u64,
    ttl: u32,
    seed: u64,
    rounds: u64,
    authority: String,
    sample: u64,
    queries: Option<PathBuf>,
    paths: Option<PathBuf>,
    zone: Option<PathBuf>,
    bodies: Option<PathBuf>,
}

fn main() {
    let options = options();
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let store = runtime.block_on(open(&options));
    let begun = system::time();
    let first = system::utc().minus_secs(options.rounds - 1);
    for round in 0..options.rounds {
        let mut files = (round + 1 == options.rounds).then(|| Files::create(&options));
        let sets = sign(&options, first.plus_secs(round));
        let count = runtime.block_on(put(store.as_deref(), sets, &mut files));
        assert_eq!(count, options.sets, "a thread died");
    }
    let seconds = (system::time() - begun).as_millis() as f64 / 1000.0;
    let all = options.sets * options.rounds;
    println!("{all} sets in {seconds:.1} s, {:.0} a second", all as f64 / seconds);
}

/// The store of a name.
async fn open(options: &Options) -> Option<Arc<dyn Store>> {
    let name = options.store.as_str();
    if name == "none" {
        return None;
    }
    if name.contains("://") {
        let config = RedisConfig::parse(&[name]).expect("an address").for_zone(&options.authority);
        return Some(Arc::new(RedisStore::connect(config).await.expect("a store")));
    }
    Some(Arc::new(RedbStore::new(Database::open(Path::new(name), CACHE_BYTES).expect("a database"))))
}

/// Signs all sets on all processors, in any order.
fn sign(options: &Options, timestamp: Timestamp) -> Receiver<Vec<(u64, VerifiedRecordSet)>> {
    let (sender, receiver) = sync_channel(16);
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let (sets, seed, ttl) = (options.sets, options.seed, options.ttl);
    for thread in 0..threads {
        let sender = sender.clone();
        thread::spawn(move || {
            let mine: Vec<u64> = (0..sets).filter(|number| number % threads == thread).collect();
            for numbers in mine.chunks(CHUNK) {
                let signed = numbers.iter().map(|number| (*number, set(seed, *number, ttl, timestamp)));
                sender.send(signed.collect()).expect("somebody takes them");
            }
        });
    }
    receiver
}

/// The set of one node: what a node at home with both transports announces.
fn set(seed: u64, number: u64, ttl: u32, timestamp: Timestamp) -> VerifiedRecordSet {
    let identity = Identity::generate(&mut SeededRng::new((seed << 40) + number));
    let [_, _, _, _, _, b, c, d] = number.to_be_bytes();
    let address = |text: String| text.parse().expect("an address");
    let six = Ipv6Addr::new(0x2001, 0xdb8, b.into(), c.into(), 0, 0, 0, u16::from(d) + 1);
    let addresses = vec![
        address(format!("quic://10.{b}.{c}.{d}:7117")),
        address(format!("tcp://10.{b}.{c}.{d}:7117")),
        address(format!("quic://[{six}]:7117")),
    ];
    Draft { addresses, ttl, ..Draft::default() }.sign(&identity, timestamp).expect("a set")
}

async fn put(
    store: Option<&dyn Store>,
    sets: Receiver<Vec<(u64, VerifiedRecordSet)>>,
    files: &mut Option<Files>,
) -> u64 {
    let sets = std::iter::from_fn(|| sets.recv().ok()).flatten().inspect(|(number, set)| {
        if let Some(files) = files {
            files.add(*number, set);
        }
    });
    let announces = futures_util::stream::iter(sets).map(|(_, set)| async move {
        let Some(store) = store else { return 1 };
        match store.announce(system::utc(), set).await.expect("the store takes it") {
            Stored::Created | Stored::Replaced | Stored::Repeated => {}
            Stored::NotNewer => newer_is_there(),
        }
        1
    });
    announces.buffer_unordered(AT_ONCE).fold(0, |sum, one| std::future::ready(sum + one)).await
}

fn newer_is_there() {
    eprintln!("error: a newer set is there already; wait a second, or take another --seed");
    std::process::exit(1);
}

/// What is written beside the store.
struct Files {
    every: u64,
    authority: String,
    queries: Option<BufWriter<File>>,
    paths: Option<BufWriter<File>>,
    zone: Option<BufWriter<File>>,
    bodies: Option<PathBuf>,
}

impl Files {
    fn create(options: &Options) -> Files {
        let file = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| BufWriter::new(File::create(path).expect("a file")))
        };
        let mut zone = file(&options.zone);
        let host = &options.authority;
        if let Some(zone) = &mut zone {
            let lines = format!(
                "$ORIGIN 0a.{host}.\n$TTL 60\n@ SOA {host}. hostmaster.{host}. 1 60 60 86400 60\n@ NS {host}.\n"
            );
            zone.write_all(lines.as_bytes()).expect("room");
        }
        Files {
            every: (options.sets / options.sample.clamp(1, options.sets)).max(1),
            authority: host.clone(),
            queries: file(&options.queries),
            paths: file(&options.paths),
            zone,
            bodies: options.bodies.clone(),
        }
    }

    fn add(&mut self, number: u64, set: &VerifiedRecordSet) {
        let fingerprint = set.fingerprint();
        if let Some(zone) = &mut self.zone {
            let owner = labels(fingerprint.as_bytes());
            for text in set.to_txt() {
                let strings: Vec<String> = text.chunks(255).map(quoted).collect();
                writeln!(zone, "{owner} TXT {}", strings.join(" ")).expect("room");
            }
        }
        if !number.is_multiple_of(self.every) {
            return;
        }
        if let Some(queries) = &mut self.queries {
            let owner = labels(fingerprint.as_bytes());
            writeln!(queries, "{owner}.0a.{} TXT", self.authority).expect("room");
        }
        let path = format!(".well-known/ni/sha3-256/{fingerprint}");
        if let Some(paths) = &mut self.paths {
            writeln!(paths, "/{path}").expect("room");
        }
        if let Some(folder) = &self.bodies {
            let file = folder.join(path);
            std::fs::create_dir_all(file.parent().expect("it has one")).expect("a folder");
            std::fs::write(file, set.to_json()).expect("room");
        }
    }
}

fn labels(fingerprint: &[u8; 32]) -> String {
    let hex = data_encoding::HEXLOWER.encode(fingerprint);
    let (first, second) = hex.split_at(32);
    format!("{first}.{second}")
}

/// A character string as zone files have it (RFC 1035 §5.1).
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => text.push_str(&format!("\\{other:03}")),
        }
    }
    text.push('"');
    text
}

fn options() -> Options {
    let mut words = std::env::args().skip(1);
    let store = words.next().expect("fill STORE SETS [OPTIONS]");
    let sets = number(words.next());
    let mut options = Options {
        store,
        sets,
        ttl: 86_400,
        seed: 1,
        rounds: 1,
        authority: "bench.example".to_owned(),
        sample: 100_000,
        queries: None,
        paths: None,
        zone: None,
        bodies: None,
    };
    while let Some(word) = words.next() {
        let value = words.next();
        match word.as_str() {
            "--ttl" => options.ttl = u32::try_from(number(value)).expect("seconds"),
            "--seed" => options.seed = number(value),
            "--rounds" => options.rounds = number(value).max(1),
            "--sample" => options.sample = number(value),
            "--authority" => options.authority = value.expect("a host"),
            "--queries" => options.queries = value.map(PathBuf::from),
            "--paths" => options.paths = value.map(PathBuf::from),
            "--zone" => options.zone = value.map(PathBuf::from),
            "--bodies" => options.bodies = value.map(PathBuf::from),
            other => {
                eprintln!("error: there is no option {other}");
                std::process::exit(2);
            }
        }
    }
    options
}

fn number(word: Option<String>) -> u64 {
    word.and_then(|word| word.parse().ok()).expect("a number")
}
