use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_connect::{Discovery, Found};
use kith_identity::{Address, Fingerprint, Transport};

/// Where the members are whom the node of the DHT wants to reach now: a source for the endpoint's
/// [`Discovery`]. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<HashMap<Fingerprint, SocketAddr>>>);

/// Tells the address of one member until it is dropped.
#[derive(Debug)]
pub(super) struct Hint {
    addresses: Addresses,
    of: Fingerprint,
}

impl Addresses {
    /// Tells where a member may be. There is one hint for each at a time.
    pub(super) fn hint(&self, of: Fingerprint, at: SocketAddr) -> Hint {
        self.lock().insert(of, at);
        Hint { addresses: self.clone(), of }
    }

    /// Where this member may be, where the node of the DHT wants to reach it now.
    pub fn of(&self, member: &Fingerprint) -> Option<Address> {
        self.lock().get(member).map(|at| Address::new(Transport::Quic, *at))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Fingerprint, SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hint {
    fn drop(&mut self) {
        self.addresses.lock().remove(&self.of);
    }
}

impl Discovery for Addresses {
    fn candidates<'a>(
        &'a self,
        target: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let at = self.of(&target);
        // What others say of it: the policy for discovered addresses holds.
        Box::pin(async move { found.discovered(at).await })
    }
}
