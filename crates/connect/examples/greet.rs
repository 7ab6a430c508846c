//! Connects to a peer and prints how it greets: `greet AUTHORITY PIN PEER`.

use std::sync::Arc;

use kith_connect::{Config, Node, Protocol};
use kith_directory::client::{ClientConfig, Directory};
use kith_identity::{Authority, Identity, Ni};
use kith_sansio::system::OsRng;
use tokio::io::AsyncReadExt;

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, at, pin, peer] = &arguments[..] else { return Err("greet AUTHORITY PIN PEER".into()) };
    println!("{}", greet(at.parse()?, &pin.parse()?, &peer.parse()?, Config::default()).await?);
    Ok(())
}

pub(crate) async fn greet(at: Authority, pin: &Ni, peer: &Ni, listen: Config) -> Result<String, Error> {
    let directory = Directory::open(ClientConfig::default().pin(at.clone(), pin.fingerprint));
    let key = Arc::new(Identity::generate(&mut OsRng));
    let node = Node::announce(key, at, directory, listen).await?;
    let stream = node.connect(peer, &Protocol::new("greet/1")).await?;
    let mut answer = String::new();
    stream.take(1000).read_to_string(&mut answer).await?;
    Ok(answer)
}
