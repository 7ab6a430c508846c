use std::fmt;

use kith_identity::Ni;
use kith_identity::record::RecordSet;

use super::LookupError;
use crate::store::BoxFuture;

/// Where a set came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SourceName {
    /// The zone in the DNS.
    Dns,
    /// The directory over HTTPS.
    Https,
    /// The local network.
    Lan,
    /// The distributed hash table, where it is for everybody.
    Dht,
    /// The distributed hash table, where it is for this node alone.
    DhtBlinded,
    /// This client's own memory.
    Cache,
    /// The node itself, over a connection.
    Push,
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SourceName::Dns => "dns",
            SourceName::Https => "https",
            SourceName::Lan => "lan",
            SourceName::Dht => "dht",
            SourceName::DhtBlinded => "dht-blinded",
            SourceName::Cache => "cache",
            SourceName::Push => "push",
        })
    }
}

/// Somebody to ask for sets. What it says is verified by whoever asks.
pub trait Source: Send + Sync {
    /// What it is.
    fn name(&self) -> SourceName;

    /// Whether it can know anything of `ni`; if not it is not asked.
    fn serves(&self, ni: &Ni) -> bool {
        let _ = ni;
        true
    }

    /// The set of `ni`, or `None` if there is none. Dropping the future ends the search.
    fn lookup(&self, ni: Ni) -> BoxFuture<'_, Result<Option<RecordSet>, LookupError>>;
}
