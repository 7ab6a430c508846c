//! Fetches a blob: `blob_get NI [PIN]`; prints it.

use kith_directory::client::{ClientConfig, Directory};
use kith_identity::Ni;

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!("{}", run(std::env::args().skip(1).collect()).await?);
    Ok(())
}

pub(crate) async fn run(arguments: Vec<String>) -> Result<String, Error> {
    let [ni, pin @ ..] = &arguments[..] else { return Err("blob_get NI [PIN]".into()) };
    let ni: Ni = ni.parse()?;
    let mut config = ClientConfig::default();
    if let (Some(pin), Some(authority)) = (pin.first(), &ni.authority) {
        config = config.pin(authority.clone(), pin.parse::<Ni>()?.fingerprint);
    }
    let blob = Directory::open(config).fetch_blob(&ni).await?.ok_or("it publishes no blob")?;
    Ok(String::from_utf8_lossy(&blob).into_owned())
}
