//! Nodes by number.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use kith_dht::Contact;
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::{Rng, SeededRng, Timestamp};

pub(crate) fn random_id(rng: &mut dyn Rng) -> NodeId {
    let mut bytes = [0; 32];
    rng.fill(&mut bytes);
    NodeId::from_bytes(bytes)
}

/// So many random ids, sorted.
pub(crate) fn ids(count: usize, seed: u64) -> Vec<NodeId> {
    let mut rng = SeededRng::new(seed);
    let mut ids: Vec<_> = (0..count).map(|_| random_id(&mut rng)).collect();
    ids.sort();
    ids
}

/// A node whose address follows from its id, nearly always in a network of its own.
pub(crate) fn contact(id: NodeId) -> Contact {
    let [.., a, b, c] = *id.as_bytes();
    contact_at(id, Ipv4Addr::new(10, a, b, c))
}

pub(crate) fn contact_at(id: NodeId, ip: Ipv4Addr) -> Contact {
    let fingerprint = Fingerprint::from_bytes(*id.as_bytes());
    let (address, certificate) = (SocketAddr::from((ip, 7117)), Bytes::new());
    Contact { id, fingerprint, address, certificate, not_after: Timestamp::MAX }
}

/// The nearest by comparing all.
pub(crate) fn nearest_of(ids: &[NodeId], target: NodeId, count: usize) -> Vec<NodeId> {
    let mut all = ids.to_vec();
    all.sort_by(|a, b| target.nearer(a, b));
    all.truncate(count);
    all
}
