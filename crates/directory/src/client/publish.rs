//! The short way for programs that only publish and fetch: sign, announce, and remember nothing but the time.

use std::sync::{Mutex, PoisonError};

use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_identity::{Authority, Fingerprint, Identity, Ni};
use kith_sansio::{Timestamp, system};

use super::{AnnounceError, Directory, DiscoverError, Freshness, SourceName};
use crate::announcer::next_timestamp;
use crate::defaults::PUBLISHED_ENTRIES;
use crate::generations::Generations;

/// The status with which a directory says that it has seen a set as new, or newer.
const NOT_NEWER: u16 = 409;

/// The time of the last set of each identity that published here.
#[derive(Debug)]
pub(super) struct Published(Mutex<Generations<Fingerprint, Timestamp>>);

impl Default for Published {
    fn default() -> Self {
        Published(Mutex::new(Generations::new(PUBLISHED_ENTRIES)))
    }
}

impl Published {
    /// The time of the next set of `who`: now, and later than its last one and than `seen`.
    fn next(&self, who: Fingerprint, now: Timestamp, seen: Timestamp) -> Timestamp {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = last.peek(&who).copied().unwrap_or_default();
        let next = next_timestamp(now, own.max(seen));
        last.put(who, next);
        next
    }
}

impl Directory {
    /// Publishes `blob` under `identity`'s fingerprint, in a set of its own that takes the place of what was there
    /// before; good for an hour. The set that was announced.
    pub async fn put_blob(
        &self,
        authority: &Authority,
        identity: &Identity,
        blob: impl Into<Vec<u8>>,
    ) -> Result<VerifiedRecordSet, AnnounceError> {
        self.publish(authority, identity, &Draft { blobs: vec![blob.into()], ..Draft::default() }).await
    }

    /// The first blob that `ni` publishes now, whatever the cache holds; `None` where its set has none.
    pub async fn fetch_blob(&self, ni: &Ni) -> Result<Option<Vec<u8>>, DiscoverError> {
        let found = self.discover(ni, Freshness::Refetch).await?;
        Ok(found.set.blobs().first().map(|blob| blob.to_vec()))
    }

    /// Signs `draft` and puts it into the directory of `authority`, once; the set that was announced.
    ///
    /// Where the directory has seen a set as new, of an earlier run or of a clock that was ahead, the set is signed
    /// once more with a time after that one. Whoever stays announced uses an
    /// [`Announcer`](crate::client::Announcer).
    pub async fn publish(
        &self,
        authority: &Authority,
        identity: &Identity,
        draft: &Draft,
    ) -> Result<VerifiedRecordSet, AnnounceError> {
        match self.publish_after(authority, identity, draft, Timestamp(0)).await {
            Err(refused @ AnnounceError::Refused { status: NOT_NEWER, .. }) => {
                let ni = Ni::new(identity.fingerprint(), Some(authority.clone()));
                match self.discover_via(&ni, SourceName::Https).await {
                    Ok(held) => self.publish_after(authority, identity, draft, held.set.timestamp()).await,
                    Err(_) => Err(refused),
                }
            }
            result => result,
        }
    }

    async fn publish_after(
        &self,
        authority: &Authority,
        identity: &Identity,
        draft: &Draft,
        seen: Timestamp,
    ) -> Result<VerifiedRecordSet, AnnounceError> {
        let timestamp = self.inner.published.next(identity.fingerprint(), system::utc(), seen);
        let set = draft.sign(identity, timestamp).map_err(AnnounceError::Draft)?;
        self.announce(authority, identity, &set).await?;
        Ok(set)
    }
}
