//! What the benchmarks have in common: an endpoint that lets everybody in and knows where its peer is.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use kith_connect::{ChangeSignal, Changes, Config, Discovery, Endpoint, Found, Protocol, Trust};
use kith_identity::{Address, Fingerprint, Identity};

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

/// Whoever is looked for is at these addresses.
pub(crate) struct There(pub(crate) Vec<Address>);

impl Discovery for There {
    fn candidates<'a>(
        &'a self,
        _: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move { found.hints(self.0.iter().copied()).await })
    }
}

/// An endpoint that listens there.
pub(crate) async fn endpoint(identity: Identity, listen: &[&str], discovery: impl Discovery) -> Endpoint {
    let listen = listen.iter().map(|one| one.parse().expect("an address")).collect();
    let config = Config { listen, ..Config::default() };
    let trust = Arc::new(Everybody(ChangeSignal::new()));
    Endpoint::bind(Arc::new(identity), trust, Arc::new(discovery), config).await.expect("an endpoint")
}
