//! Announces to a directory as fast as it takes them, over many connections, for benchmarks.
//!
//! ```text
//! cargo run --release -p kith-directory --example announce -- IP:PORT PIN CONNECTIONS EACH [--fresh]
//! ```
//! Each connection is another node with EACH sets of its own, signed beforehand; PIN is the directory's fingerprint.
//! With `--fresh` every announce has a connection and a mutual handshake of its own, sixteen at a time. Prints
//! announces a second as one line of JSON. The directory must not limit rates.

#![expect(clippy::expect_used, reason = "a tool for benchmarks ends where something fails")]

use std::net::SocketAddr;
use std::sync::Arc;

use kith_identity::record::Draft;
use kith_identity::tls::{Certificate, Trust, directory_client};
use kith_identity::{Identity, Ni};
use kith_sansio::Timestamp;
use kith_sansio::system::{self, OsRng};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections at once where each is fresh.
const FRESH_AT_ONCE: usize = 16;

/// One node with all that it is going to send.
struct Node {
    connector: TlsConnector,
    requests: Vec<Vec<u8>>,
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [target, pin, connections, each, ..] = words.as_slice() else {
        eprintln!("error: announce IP:PORT PIN CONNECTIONS EACH [--fresh]");
        std::process::exit(2);
    };
    let target: SocketAddr = target.parse().expect("an address");
    let trust = Trust::Pin(pin.parse::<Ni>().expect("a pin").fingerprint);
    let (connections, each) = (number(connections), number(each));
    let fresh = words.iter().any(|word| word == "--fresh");
    let first = system::utc().minus_secs(each as u64);
    let (start, places) = (Arc::new(Barrier::new(connections + 1)), Arc::new(Semaphore::new(FRESH_AT_ONCE)));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let node = node(&trust, each, first);
        let (start, places) = (Arc::clone(&start), Arc::clone(&places));
        tasks.push(tokio::spawn(async move {
            if fresh {
                start.wait().await;
                for request in &node.requests {
                    let _place = places.acquire().await.expect("it is never closed");
                    put(&mut connect(&node.connector, target).await, request).await;
                }
            } else {
                let mut stream = connect(&node.connector, target).await;
                start.wait().await;
                for request in &node.requests {
                    put(&mut stream, request).await;
                }
            }
        }));
    }
    start.wait().await;
    let begun = system::time();
    for task in tasks {
        task.await.expect("every announce is taken");
    }
    let seconds = (system::time() - begun).as_millis() as f64 / 1000.0;
    let count = connections * each;
    println!(
        "{{\"announces\":{count},\"seconds\":{seconds:.3},\"per_second\":{:.1}}}",
        count as f64 / seconds
    );
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}

fn node(trust: &Trust, each: usize, first: Timestamp) -> Node {
    let identity = Identity::generate(&mut OsRng);
    let certificate = Certificate::self_signed(&identity).expect("a certificate");
    let config = directory_client(trust, Some(&certificate)).expect("a configuration");
    let fingerprint = identity.fingerprint();
    let requests = (0..each as u64).map(|number| {
        let addresses = vec!["quic://10.0.0.1:7117".parse().expect("an address")];
        let draft = Draft { addresses, ttl: 86_400, ..Draft::default() };
        let body = draft.sign(&identity, first.plus_secs(number)).expect("a set").to_json();
        let head = format!(
            "PUT /.well-known/ni/sha3-256/{fingerprint} HTTP/1.1\r\nHost: bench.example\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    });
    Node { requests: requests.collect(), connector: TlsConnector::from(Arc::new(config)) }
}

async fn connect(connector: &TlsConnector, target: SocketAddr) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(target).await.expect("a connection");
    stream.set_nodelay(true).expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    connector.connect(name, stream).await.expect("a handshake")
}

/// Sends one announce and reads its answer, which has no body where it was taken.
async fn put(stream: &mut TlsStream<TcpStream>, request: &[u8]) {
    stream.write_all(request).await.expect("the directory listens");
    stream.flush().await.expect("the directory listens");
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut part).await.expect("an answer");
        assert!(length > 0, "the connection ended");
        answer.extend_from_slice(&part[..length]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&answer));
}
