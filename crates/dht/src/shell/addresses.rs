use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_connect::{Discovery, Found};
use kith_identity::{Address, Fingerprint, Transport};

/// Where the members are whom the node of the DHT, or who asks it, wants to reach now: a source for the endpoint's
/// [`Discovery`]. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<HashMap<Fingerprint, Told>>>);

/// An address that hints tell, and how many do.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: SocketAddr,
    hints: usize,
}

/// Tells the address of one member until it is dropped.
#[derive(Debug)]
#[must_use = "the address is forgotten when this is dropped"]
pub struct Hint {
    addresses: Addresses,
    of: Fingerprint,
}

impl Addresses {
    /// Tells where a member may be, while somebody wants to reach it. Of several addresses of one the last counts.
    pub fn hint(&self, of: Fingerprint, at: SocketAddr) -> Hint {
        let mut told = self.lock();
        let hints = told.get(&of).map_or(0, |told| told.hints) + 1;
        told.insert(of, Told { at, hints });
        Hint { addresses: self.clone(), of }
    }

    /// Where this member may be, while somebody wants to reach it.
    pub fn of(&self, member: &Fingerprint) -> Option<Address> {
        self.lock().get(member).map(|told| Address::new(Transport::Quic, told.at))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Fingerprint, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hint {
    fn drop(&mut self) {
        let mut told = self.addresses.lock();
        if let Some(one) = told.get_mut(&self.of) {
            one.hints -= 1;
        }
        told.retain(|_, one| one.hints > 0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_as_long_as_anybody_wants_it() {
        let (addresses, member) = (Addresses::default(), Fingerprint::from_bytes([1; 32]));
        let told = || addresses.of(&member).map(|address| address.socket.port());
        let one = addresses.hint(member, SocketAddr::from(([127, 0, 0, 1], 1)));
        let two = addresses.hint(member, SocketAddr::from(([127, 0, 0, 1], 2)));
        assert_eq!(told(), Some(2));
        drop(two);
        assert_eq!(told(), Some(2));
        drop(one);
        assert_eq!(told(), None);
    }
}
