//! Members of the DHT by their ids.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use kith_dht::Contact;
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::{Rng, Timestamp};

use crate::run::{Purpose, chance};

/// The sorted ids of so many members.
pub(crate) fn ids(members: u64, seed: u64) -> Vec<NodeId> {
    let mut places = chance(seed, Purpose::Places, 0);
    let mut ids: Vec<_> = (0..members).map(|_| random_id(&mut places)).collect();
    ids.sort_unstable();
    ids
}

/// Any place.
pub(crate) fn random_id(rng: &mut dyn Rng) -> NodeId {
    let mut bytes = [0; 32];
    rng.fill(&mut bytes);
    NodeId::from_bytes(bytes)
}

/// A node whose address follows from its id, nearly always in a network of its own.
pub(crate) fn contact(id: &NodeId) -> Contact {
    let [.., a, b, c] = *id.as_bytes();
    Contact {
        id: *id,
        fingerprint: Fingerprint::from_bytes(*id.as_bytes()),
        address: SocketAddr::from((Ipv4Addr::new(10, a, b, c), 7117)),
        certificate: Bytes::new(),
        not_after: Timestamp::MAX,
    }
}
