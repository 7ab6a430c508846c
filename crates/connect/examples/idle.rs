//! Contacts that connect to a node and then do nothing, many in one process; `bench/idle` runs it.
//!
//! ```text
//! idle names COUNT               # the names of the first COUNT contacts, one a line; always the same
//! idle connect NI ADDRESS COUNT  # connects so many of them to the node, says so, and holds on
//! ```

#![expect(clippy::expect_used, reason = "a benchmark ends where something fails")]

use kith_connect::{Endpoint, Protocol, Via};
use kith_identity::{Address, Fingerprint, Identity, Ni};
use kith_sansio::SeededRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod peer;

use peer::{There, endpoint};

/// What every node listens for: an echo of 56 bytes at a time.
const PING: Protocol = Protocol::new("ping/1");
const PING_BYTES: usize = 56;

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
    let endpoint = endpoint(identity(number), &["quic://127.0.0.1:0"], There(vec![at])).await;
    let mut stream = endpoint.connect_with(&node, &PING, Via::Quic).await.expect("the node lets it in");
    stream.write_all(&[7; PING_BYTES]).await.expect("the node reads");
    stream.flush().await.expect("the node reads");
    stream.read_exact(&mut [0; PING_BYTES]).await.expect("the node answers");
    stream.shutdown().await.expect("the stream ends");
    endpoint
}
