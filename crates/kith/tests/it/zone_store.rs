//! What a directory acknowledged is there after it was killed under load, on whatever store; and a zone on a cluster
//! of Redis servers goes on when a directory and a server die.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kith_directory::client::{ClientConfig, Directory, MemoryReplay, SourceName};
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_identity::{Authority, Identity, Ni};
use kith_sansio::{SeededRng, system};
use kith_vnet::needs;

use crate::harness::{Person, Place, Running, Zone, eventually, free_port, kith};
use crate::servers::{Cluster, Server};

/// A client that trusts one fingerprint at some ports of this machine.
fn client(pin: &str, ports: &[u16]) -> Directory {
    let key = pin.parse::<Ni>().unwrap().fingerprint;
    let config = ports.iter().fold(ClientConfig::default(), |config, port| config.pin(authority(*port), key));
    Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()))
}

fn authority(port: u16) -> Authority {
    format!("localhost:{port}").parse().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// New nodes that announce themselves, at whichever directory answers.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<VerifiedRecordSet>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(pin: &str, ports: &[u16], seed: u64) -> Load {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let next = Arc::new(AtomicU64::new(seed));
        let thread = |number: usize| {
            let (stop, acknowledged, next) =
                (Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(&next));
            let (client, ports) = (client(pin, ports), ports.to_vec());
            std::thread::spawn(move || {
                let runtime = runtime();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let who = Identity::generate(&mut SeededRng::new(seed));
                    let set = Draft::default().sign(&who, system::utc()).unwrap();
                    let at = authority(ports[(number + seed as usize) % ports.len()]);
                    match runtime.block_on(client.announce(&at, &who, &set)) {
                        Ok(_) => acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(set),
                        // Nobody is there, or it is too much; a moment later it may be otherwise.
                        Err(_) => std::thread::park_timeout(std::time::Duration::from_millis(20)),
                    }
                }
            })
        };
        let threads = (0..4).map(thread).collect();
        Load { stop, acknowledged, threads }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    #[track_caller]
    fn wait_for_more(&self, more: usize) {
        let wanted = self.count() + more;
        eventually("so many announces", || (self.count() >= wanted).then_some(()));
    }

    fn finish(mut self) -> Vec<VerifiedRecordSet> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Every set is what the directory at `port` has.
#[track_caller]
fn all_there(pin: &str, port: u16, sets: &[VerifiedRecordSet]) {
    let (runtime, client) = (runtime(), client(pin, &[port]));
    for set in sets {
        let ni = Ni::new(set.fingerprint(), Some(authority(port)));
        let found = runtime.block_on(client.discover_via(&ni, SourceName::Https));
        assert_eq!(found.map(|found| found.set).as_ref().ok(), Some(set));
    }
}

fn port(listen: &str) -> u16 {
    listen.rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn a_directory_that_is_killed_under_load_has_all_that_it_acknowledged() {
    let place = Place::new();
    let mut zone = Zone::start(&place);
    let (pin, port) = (zone.person.ni(), port(&zone.https));
    let load = Load::start(&pin, &[port], 1);
    for _ in 0..2 {
        load.wait_for_more(80);
        zone.person.crash();
        zone.serve();
    }
    load.wait_for_more(20);
    let sets = load.finish();
    all_there(&pin, port, &sets);
}

/// Starts a directory of `home` on a store.
fn serve(home: &Path, name: &str, listen: u16, store: &str) -> Running {
    let address = format!("127.0.0.1:{listen}");
    let arguments = ["directory", "serve", "--authority", name, "--listen-https", &address];
    let running =
        Running::spawn(kith(home, &[&arguments[..], &["--listen-dns", "off", "--store", store]].concat()));
    running.line("ready");
    running
}

/// A second home with the identity of the first.
fn twin(place: &Place, person: &Person) -> std::path::PathBuf {
    let home = place.person("twin", &["--authority", "localhost:1"]).home.clone();
    std::fs::copy(person.home.join("key.pem"), home.join("key.pem")).unwrap();
    home
}

#[test]
fn a_directory_on_redis_that_is_killed_under_load_has_all_that_it_acknowledged() {
    needs!("redis-server", "redis-cli");
    let place = Place::new();
    let server = Server::start(&[]);
    let person = place.person("zone", &["--authority", "localhost:1"]);
    let (pin, port) = (person.ni(), free_port());
    let mut directory = serve(&person.home, "localhost:1", port, &server.url());
    let load = Load::start(&pin, &[port], 100_000);
    load.wait_for_more(80);
    directory.kill();
    directory = serve(&person.home, "localhost:1", port, &server.url());
    load.wait_for_more(20);
    let sets = load.finish();
    all_there(&pin, port, &sets);
    assert!(!person.home.join("directory.redb").exists());
    drop(directory);
    drop(server);
    let url = format!("redis://127.0.0.1:{}", free_port());
    let arguments = ["directory", "serve", "--listen-https", "127.0.0.1:0", "--listen-dns", "off"];
    person.run(&[&arguments[..], &["--store", &url]].concat()).fails(5, "hint:");
    person.run(&[&arguments[..], &["--store", "localhost"]].concat()).fails(1, "redis://");
}

/// The files of an authority and of a certificate that it made for 127.0.0.1: authority, certificate, key.
fn vouched(place: &Place) -> [String; 3] {
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let [ca, ca_key, request, certificate, key, names] =
        ["ca.pem", "ca.key", "request", "certificate.pem", "certificate.key", "names"].map(file);
    std::fs::write(&names, "subjectAltName=IP:127.0.0.1\n").unwrap();
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test"];
    let openssl = |arguments: &[&str]| {
        let done = std::process::Command::new("openssl").args(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    openssl(&[&["req", "-x509", "-days", "1", "-keyout", &ca_key, "-out", &ca][..], &curve].concat());
    openssl(&[&["req", "-keyout", &key, "-out", &request][..], &curve].concat());
    openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-set_serial",
        "1",
        "-days",
        "1",
        "-extfile",
        &names,
        "-out",
        &certificate,
    ]);
    [ca, certificate, key]
}

#[test]
fn a_directory_reaches_its_store_over_tls_when_the_authority_is_named() {
    needs!("redis-server", "redis-cli", "openssl");
    let place = Place::new();
    let [ca, certificate, key] = vouched(&place);
    let server = Server::start(&[
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://127.0.0.1:{}", server.port);
    let (person, port) = (place.person("zone", &["--authority", "localhost:1"]), free_port());
    let serve =
        ["directory", "serve", "--listen-https", "127.0.0.1:0", "--listen-dns", "off", "--store", &url];
    let refused = person.run(&serve).fails(1, "is not trusted");
    assert!(refused.err.contains("store-ca"), "{refused:?}");
    person.run(&[&serve[..], &["--store-ca", &key]].concat()).fails(1, "cannot be used");
    person.run(&[&serve[..], &["--store-ca", "/nowhere"]].concat()).fails(1, "/nowhere");
    let config = person.home.join("kith.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[directory]\nstore = '{url}'\nstore-ca = '{ca}'\n")).unwrap();
    let _directory = serve_configured(&person.home, port);
    let pin = person.ni();
    let who = Identity::generate(&mut SeededRng::new(1));
    let set = Draft::default().sign(&who, system::utc()).unwrap();
    runtime().block_on(client(&pin, &[port]).announce(&authority(port), &who, &set)).unwrap();
    all_there(&pin, port, &[set]);
}

/// Starts the directory of `home` on the store of its configuration.
fn serve_configured(home: &Path, listen: u16) -> Running {
    let address = format!("127.0.0.1:{listen}");
    let running = Running::spawn(kith(
        home,
        &["directory", "serve", "--listen-https", &address, "--listen-dns", "off"],
    ));
    running.line("ready");
    running
}

#[test]
fn a_zone_on_a_cluster_loses_a_directory_and_a_master_and_nothing_that_was_acknowledged() {
    needs!("redis-server", "redis-cli");
    let place = Place::new();
    let mut cluster = Cluster::start();
    let person = place.person("zone", &["--authority", "localhost:1"]);
    let (pin, other, ports) = (person.ni(), twin(&place, &person), [free_port(), free_port()]);
    let first = serve(&person.home, "localhost:1", ports[0], &cluster.url());
    let _second = serve(&other, "localhost:1", ports[1], &cluster.url());
    let load = Load::start(&pin, &ports, 200_000);
    load.wait_for_more(100);
    let before = load.acknowledged.lock().unwrap().clone();
    first.kill();
    cluster.servers[0].kill();
    load.wait_for_more(30);
    cluster.servers[3].info("replication", "role:master");
    all_there(&pin, ports[1], &before);
    // Its master's place is taken; it comes back as a replica, and announces of its nodes are acknowledged again.
    cluster.servers[0].restart();
    cluster.servers[0].info("replication", "master_link_status:up");
    load.wait_for_more(30);
    let sets = load.finish();
    all_there(&pin, ports[1], &sets);
}
