use std::sync::Arc;

use futures_util::future::BoxFuture;
use kith_dht::{Day, record_set_key};
use kith_directory::client::{LookupError, Source, SourceName};
use kith_identity::record::RecordSet;
use kith_identity::{Fingerprint, Ni};
use kith_sansio::{Timestamp, system};

use super::Keyspace;

/// Bytes of the fingerprint before a record set.
const FINGERPRINT_BYTES: usize = 32;

/// Record sets that members have published for everybody, for the directory's client; there are none while this node
/// belongs to no network.
pub(crate) struct DhtSource(pub(crate) Arc<Keyspace>);

/// The record set in a value that is one.
pub(super) fn record_set(value: &kith_dht::Value) -> Option<(Fingerprint, RecordSet)> {
    let (fingerprint, set) = value.bytes.split_first_chunk::<FINGERPRINT_BYTES>()?;
    let set = RecordSet::from_bytes(set).ok().filter(|_| value.kind == kith_dht::RECORD_SET)?;
    Some((Fingerprint::from_bytes(*fingerprint), set))
}

/// Record sets that contacts have published for this node alone; there are none of whom it shares no secret with.
pub(crate) struct BlindedSource(pub(crate) Arc<Keyspace>);

impl Source for BlindedSource {
    fn name(&self) -> SourceName {
        SourceName::DhtBlinded
    }

    fn serves(&self, ni: &Ni) -> bool {
        self.0.slot().is_some() && self.0.pairs.of(&ni.fingerprint).is_some()
    }

    fn lookup(&self, ni: Ni) -> BoxFuture<'_, Result<Option<RecordSet>, LookupError>> {
        Box::pin(async move {
            let (Some(running), Some(pair)) = (self.0.running(), self.0.pairs.of(&ni.fingerprint)) else {
                return Err(LookupError::NotServed(ni));
            };
            for day in read_days(system::utc()) {
                let alias = pair.theirs(&running.network, self.0.pairs.own(), day);
                if let Ok(Some(value)) = running.dht.get(alias.place()).await
                    && let Some(set) = alias.open(&value)
                {
                    return Ok(Some(set));
                }
            }
            // A contact need not publish like that, and another source may know more.
            Err(LookupError::NotServed(ni))
        })
    }
}

/// The days whose values may be there: the last one's end a while after it.
fn read_days(now: Timestamp) -> impl Iterator<Item = Day> {
    let today = Day::of(now);
    [today, today.before()].into_iter().filter(move |day| now < day.expires())
}

impl Source for DhtSource {
    fn name(&self) -> SourceName {
        SourceName::Dht
    }

    fn serves(&self, _: &Ni) -> bool {
        self.0.slot().is_some()
    }

    fn lookup(&self, ni: Ni) -> BoxFuture<'_, Result<Option<RecordSet>, LookupError>> {
        Box::pin(async move {
            let Some(running) = self.0.running() else { return Err(LookupError::NotServed(ni)) };
            match running.dht.get(record_set_key(&ni.fingerprint)).await {
                Ok(Some(value)) => Ok(record_set(&value).map(|(_, set)| set)),
                // Who announces to a directory need not publish here: silence is no word that there is no such set.
                Ok(None) if ni.authority.is_none() => Ok(None),
                Ok(None) | Err(_) => Err(LookupError::NotServed(ni)),
            }
        })
    }
}
