//! Contacts that connect to a node and then do nothing, many in one process; `bench/idle` runs it.
//!
//! ```text
//! idle names COUNT               # the names of the first COUNT contacts, one a line; always the same
//! idle connect NI ADDRESS COUNT  # connects so many of them to the node, says so, and holds on
//! ```

#![expect(clippy::expect_used, reason = "a benchmark ends where something fails")]

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use kith_connect::{ChangeSignal, Changes, Config, Discovery, Endpoint, Found, Protocol, Trust, Via};
use kith_identity::{Address, Fingerprint, Identity, Ni};
use kith_sansio::SeededRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What every node listens for: an echo of 56 bytes at a time.
const PING: Protocol = Protocol::new("ping/1");
const PING_BYTES: usize = 56;

struct Everybody(ChangeSignal);

impl Trust for Everybody {
    fn trusts(&self, _: &Fingerprint, _: &Protocol) -> bool {
        true
    }
    fn knocked(&self, _: &Fingerprint, _: SocketAddr) {}
    fn changed(&self) -> Changes {
        self.0.changes()
    }
}

struct There(Address);

impl Discovery for There {
    fn candidates<'a>(
        &'a self,
        _: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move { found.hints([self.0]).await })
    }
}

fn identity(number: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(number))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["names", count] => {
            for number in 0..count.parse().expect("a number") {
                println!("{}", Ni::new(identity(number).fingerprint(), None));
            }
        }
        ["connect", ni, at, count] => {
            let node = ni.parse::<Ni>().expect("a name").fingerprint;
            let at = at.parse().expect("an address");
            let mut held = Vec::new();
            for number in 0..count.parse().expect("a number") {
                held.push(connected(number, node, at).await);
            }
            println!("connected {}", held.len());
            std::future::pending::<()>().await;
        }
        _ => {
            eprintln!("usage: idle names COUNT | idle connect NI ADDRESS COUNT");
            std::process::exit(2);
        }
    }
}

/// One contact, whose connection has carried one ping and stays.
async fn connected(number: u64, node: Fingerprint, at: Address) -> Endpoint {
    let listen = vec!["quic://127.0.0.1:0".parse().expect("an address")];
    let trust = Arc::new(Everybody(ChangeSignal::new()));
    let config = Config { listen, ..Config::default() };
    let bound = Endpoint::bind(Arc::new(identity(number)), trust, Arc::new(There(at)), config).await;
    let endpoint = bound.expect("a contact listens");
    let mut stream = endpoint.connect_with(&node, &PING, Via::Quic).await.expect("the node lets it in");
    stream.write_all(&[7; PING_BYTES]).await.expect("the node reads");
    stream.flush().await.expect("the node reads");
    stream.read_exact(&mut [0; PING_BYTES]).await.expect("the node answers");
    stream.shutdown().await.expect("the stream ends");
    endpoint
}
