//! Publishes a blob under a new key: `blob_put AUTHORITY BLOB [PIN]`; prints where it is found.

use kith_directory::client::{ClientConfig, Directory};
use kith_identity::{Authority, Identity, Ni};
use kith_sansio::system::OsRng;

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!("{}", run(std::env::args().skip(1).collect()).await?);
    Ok(())
}

pub(crate) async fn run(arguments: Vec<String>) -> Result<String, Error> {
    let [authority, blob, pin @ ..] = &arguments[..] else {
        return Err("blob_put AUTHORITY BLOB [PIN]".into());
    };
    let authority: Authority = authority.parse()?;
    let mut config = ClientConfig::default();
    if let Some(pin) = pin.first() {
        config = config.pin(authority.clone(), pin.parse::<Ni>()?.fingerprint);
    }
    let identity = Identity::generate(&mut OsRng);
    Directory::open(config).put_blob(&authority, &identity, blob.as_bytes()).await?;
    Ok(Ni::new(identity.fingerprint(), Some(authority)).to_string())
}
