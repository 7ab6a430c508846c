//! How fast bytes go through an endpoint over loopback, and how soon the first arrives.
//!
//! ```text
//! cargo run --release -p kith-connect --example throughput -- [--mib 1024] [--rounds 5] [--hash] [--via tcp|quic]
//! ```
//! starts a second process as the target and prints MB/s (10^6 bytes) for each transport, the processor time and the
//! peak memory of both sides, and the median time from nothing to the first byte answered over a fresh connection.
//! `--hash` has both sides hash every byte with BLAKE3, as transfers do.

#![expect(clippy::expect_used, reason = "a benchmark ends where something fails")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use kith_connect::{Admission, Discovery, Endpoint, NoDiscovery, Protocol, Stream, Via};
use kith_identity::{Address, Fingerprint, Identity};
use kith_sansio::Time;
use kith_sansio::system::{OsRng, time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod peer;

use peer::There;

const SINK: Protocol = Protocol::new("sink/1");
const ECHO: Protocol = Protocol::new("echo/1");
const CHUNK_BYTES: usize = 1 << 20;

struct Options {
    mib: u64,
    rounds: usize,
    hash: bool,
    via: Option<Via>,
}

fn options(arguments: &[String]) -> Options {
    let value = |name: &str| {
        let at = arguments.iter().position(|one| one == name)?;
        arguments.get(at + 1)
    };
    let number = |name, default| value(name).map_or(default, |text| text.parse().expect("a number"));
    Options {
        mib: number("--mib", 1024),
        rounds: usize::try_from(number("--rounds", 5)).expect("a small number"),
        hash: arguments.iter().any(|one| one == "--hash"),
        via: match value("--via").map(String::as_str) {
            Some("tcp") => Some(Via::Tcp),
            Some("quic") => Some(Via::Quic),
            _ => None,
        },
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = options(&arguments);
    if arguments.first().is_some_and(|one| one == "target") {
        target(&options).await;
    } else {
        initiator(&arguments, &options).await;
    }
}

async fn endpoint(discovery: impl Discovery) -> Endpoint {
    let listen = ["tcp://127.0.0.1:0", "quic://127.0.0.1:0"];
    peer::endpoint(Identity::generate(&mut OsRng), &listen, discovery).await
}

async fn target(options: &Options) {
    let endpoint = endpoint(NoDiscovery).await;
    let mut sink = endpoint.listen(SINK, Admission::Anyone).expect("a listener");
    let mut echo = endpoint.listen(ECHO, Admission::Anyone).expect("a listener");
    let addresses: Vec<_> = endpoint.local_addresses().iter().map(Address::to_string).collect();
    println!("{} {}", endpoint.fingerprint(), addresses.join(" "));
    let (tell, mut gone) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        let _ = tell.send(());
    });
    loop {
        tokio::select! {
            Some((_, mut stream)) = sink.next() => {
                let hash = options.hash;
                tokio::spawn(async move { swallow(&mut stream, hash).await });
            }
            Some((_, mut stream)) = echo.next() => {
                tokio::spawn(async move {
                    let byte = stream.read_u8().await.expect("a byte");
                    stream.write_u8(byte).await.expect("a byte");
                    stream.flush().await.expect("a byte");
                    let _ = stream.read_u8().await;
                });
            }
            // The initiator is gone.
            _ = &mut gone => return,
            else => return,
        }
    }
}

/// Reads everything, then tells what it cost.
async fn swallow(stream: &mut Stream, hash: bool) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut hasher = blake3::Hasher::new();
    let before = cpu_micros();
    loop {
        let n = stream.read(&mut buffer).await.expect("bytes");
        if n == 0 {
            break;
        }
        if hash {
            hasher.update(&buffer[..n]);
        }
    }
    stream.write_u64(cpu_micros() - before).await.expect("an answer");
    stream.write_u64(peak_memory_kib()).await.expect("an answer");
    stream.flush().await.expect("an answer");
    let _ = stream.shutdown().await;
}

async fn initiator(arguments: &[String], options: &Options) {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .arg("target")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its address");
    let mut words = line.split_whitespace();
    let peer: Fingerprint = words.next().expect("a fingerprint").parse().expect("a fingerprint");
    let addresses: Vec<Address> = words.map(|word| word.parse().expect("an address")).collect();
    for (name, via) in [("tcp", Via::Tcp), ("quic", Via::Quic)] {
        if options.via.is_none_or(|wanted| wanted == via) {
            // Throughput first: the many endpoints of the other would count as its memory.
            for _ in 0..options.rounds {
                throughput(name, via, &peer, &addresses, options).await;
            }
            latency(name, via, &peer, &addresses).await;
        }
    }
    if options.via.is_none() {
        latency("any", Via::Any, &peer, &addresses).await;
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Time from an endpoint without any connection to the first byte answered.
async fn latency(name: &str, via: Via, peer: &Fingerprint, addresses: &[Address]) {
    let mut times = Vec::new();
    for _ in 0..51 {
        let endpoint = endpoint(There(addresses.to_vec())).await;
        let start = time();
        let mut stream = endpoint.connect_with(peer, &ECHO, via).await.expect("a stream");
        let connected = (time() - start).0;
        stream.write_u8(7).await.expect("a byte");
        stream.flush().await.expect("a byte");
        stream.read_u8().await.expect("a byte");
        times.push(((time() - start).0, connected));
        drop(stream);
    }
    times.sort_unstable();
    let (first, connected) = times[times.len() / 2];
    let slow = times[times.len() * 9 / 10].0;
    println!(
        "{name}: first byte answered after {first} us (p50), {slow} us (p90); connected after {connected} us"
    );
}

async fn throughput(name: &str, via: Via, peer: &Fingerprint, addresses: &[Address], options: &Options) {
    let endpoint = endpoint(There(addresses.to_vec())).await;
    let mut stream = endpoint.connect_with(peer, &SINK, via).await.expect("a stream");
    let chunk = vec![0x5a; CHUNK_BYTES];
    let mut hasher = blake3::Hasher::new();
    let (start, cpu) = (time(), cpu_micros());
    for _ in 0..options.mib {
        if options.hash {
            hasher.update(&chunk);
        }
        stream.write_all(&chunk).await.expect("room");
    }
    stream.flush().await.expect("room");
    stream.shutdown().await.expect("an end");
    let their_cpu = stream.read_u64().await.expect("an answer");
    let their_memory = stream.read_u64().await.expect("an answer");
    report(name, options, start, cpu_micros() - cpu, their_cpu, their_memory);
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn report(name: &str, options: &Options, start: Time, own_cpu: u64, their_cpu: u64, their_memory: u64) {
    let micros = (time() - start).0;
    let bytes = options.mib << 20;
    println!(
        "{name}: {:.0} MB/s; cpu {:.2} s here, {:.2} s there; peak memory {} MiB here, {} MiB there",
        bytes as f64 / micros as f64,
        own_cpu as f64 / 1e6,
        their_cpu as f64 / 1e6,
        peak_memory_kib() / 1024,
        their_memory / 1024,
    );
}

/// Processor time of this process, in microseconds, to a hundredth of a second.
fn cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) * 10_000
}

/// Most memory that this process held so far, in KiB.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
