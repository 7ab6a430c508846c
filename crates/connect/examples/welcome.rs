//! Greets whoever connects: `welcome AUTHORITY PIN` prints its own name, and serves.

use std::sync::Arc;

use kith_connect::{Admission, Config, Node, Protocol};
use kith_directory::client::{ClientConfig, Directory};
use kith_identity::{Authority, Identity, Ni};
use tokio::io::AsyncWriteExt;

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, at, pin] = &arguments[..] else { return Err("welcome AUTHORITY PIN".into()) };
    let key = Arc::new(Identity::generate(&mut kith_sansio::system::OsRng));
    serve(key, at.parse()?, &pin.parse()?, Config::default()).await
}

pub(crate) async fn serve(key: Arc<Identity>, at: Authority, pin: &Ni, listen: Config) -> Result<(), Error> {
    let directory = Directory::open(ClientConfig::default().pin(at.clone(), pin.fingerprint));
    let node = Node::announce(key, at.clone(), directory, listen).await?;
    let mut incoming = node.listen(Protocol::new("greet/1"), Admission::Anyone)?;
    println!("{}", Ni::new(node.fingerprint(), Some(at)));
    while let Some((peer, mut stream)) = incoming.next().await {
        let _ = stream.write_all(format!("welcome, {peer}").as_bytes()).await;
        let _ = stream.shutdown().await;
    }
    Ok(())
}
