//! Where a directory keeps its sets: a trait, and behind it the embedded store, and Redis or Valkey.

mod embedded;
mod held;
mod hot;
mod recent;
mod redis;
mod revision;

use std::pin::Pin;

use kith_identity::Fingerprint;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::Timestamp;

pub use self::embedded::RedbStore;
pub use self::held::Held;
pub(crate) use self::held::Text;
pub(crate) use self::redis::interpreted;
pub use self::redis::{RedisConfig, RedisError, RedisServer, RedisStore, RedisUrlError};
pub use self::revision::{BATCH_SECS, Revision};

/// A future that a trait can give out.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What became of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// There was no valid set of this fingerprint.
    Created,
    /// It took the place of an older one.
    Replaced,
    /// It is there already.
    Repeated,
    /// A newer one, or another one of the same time, was seen; nothing was changed.
    NotNewer,
}

/// A part of all sets of a zone.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Sets with their fingerprints, each valid when the page was read.
    pub sets: Vec<(Fingerprint, Held)>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<Fingerprint>,
}

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The embedded database failed.
    #[error(transparent)]
    Database(#[from] kith_store::StoreError),
    /// Redis or Valkey did not do it.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// A set came out of the store that is not what was put into it.
    #[error("the stored set of {0} is damaged")]
    Damaged(Fingerprint),
    /// A set that was taken at its time is in the future now: the clock was set back.
    #[error(
        "the set of {fingerprint} was made at {timestamp} and it is {now} here: the clock of this machine is behind"
    )]
    ClockBehind {
        /// Whose set it is.
        fingerprint: Fingerprint,
        /// When it was made.
        timestamp: Timestamp,
        /// The time of this machine.
        now: Timestamp,
    },
    /// The store was stopped.
    #[error("the directory's store was stopped")]
    Stopped,
}

/// The sets of a zone, and the memory of the newest set of each node until its timestamp + 86 460 s.
///
/// Every implementation is atomic and durable: what is acknowledged survives a crash in the next instruction.
pub trait Store: Send + Sync + 'static {
    /// Takes in a set that is valid at `now`, unless the replay rule forbids it; durable when it returns.
    fn announce(&self, now: Timestamp, set: VerifiedRecordSet) -> BoxFuture<'_, Result<Stored, StoreError>>;

    /// The set of `fingerprint` that is valid at `now`.
    fn lookup<'a>(
        &'a self,
        now: Timestamp,
        fingerprint: &'a Fingerprint,
    ) -> BoxFuture<'a, Result<Option<VerifiedRecordSet>, StoreError>>;

    /// How many sets there are, those included that are over and not removed yet; `None` where that is not cheap.
    fn count(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// The same set for somebody who verifies it, without a look at its signature.
    fn held(
        &self,
        now: Timestamp,
        fingerprint: Fingerprint,
    ) -> BoxFuture<'_, Result<Option<Held>, StoreError>> {
        Box::pin(async move { Ok(self.lookup(now, &fingerprint).await?.as_ref().map(Held::of)) })
    }

    /// Removes up to `limit` sets and memories whose time is over at `now`; says how many it removed. A set that
    /// goes is a change of the zone. Where memories go by themselves only sets count.
    fn expire(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// The sets behind `after`, which is the [`next`](Page::next) of the page before, or nothing for the first page.
    /// Reads at most `limit` sets and gives those that are valid at `now`, in an order that fingerprints alone decide.
    ///
    /// A walk through all pages meets each fingerprint at most once, and each that has a valid set the whole time.
    /// Of a set that came, was replaced or expired meanwhile it may meet either state. A damaged set is left out and
    /// logged, so that it does not hide the others. Signatures are not looked at, as in [`held`](Store::held).
    fn page(
        &self,
        now: Timestamp,
        after: Option<Fingerprint>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// When the zone changed: every announce that created or replaced a set counts, and every set that
    /// [`expire`](Store::expire) removed, whichever process did it. It is asked about once a second.
    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Makes sure that no change which becomes visible from now on takes `number`, or a lower one; durable when it
    /// returns. What secondaries are told is sealed before.
    fn seal(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>>;
}
