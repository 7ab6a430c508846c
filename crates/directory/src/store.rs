//! Where a directory keeps its sets: a trait, and behind it the embedded store, and Redis or Valkey.

mod embedded;
mod held;
mod history;
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

/// A digest of how a zone is written, beside its sets.
pub type Shape = [u8; 32];

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

/// A part of the zone as it was under a number.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Sets with their fingerprints.
    pub sets: Vec<(Fingerprint, Held)>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<Fingerprint>,
}

/// What the zone had of a node under two numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The node.
    pub fingerprint: Fingerprint,
    /// Its set under the first number.
    pub before: Option<Held>,
    /// Its set under the second.
    pub after: Option<Held>,
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
/// A store keeps a history as well: what each change took away, under the change's number (see [`Revision`]), written in
/// the same step as the change. So the zone can be given out as it was under a number that was told, however long that
/// takes, and the difference between two of them. It is bounded; whoever asks for more than it has gets everything.
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

    /// The sets behind `after`, which is the [`next`](Page::next) of the page before, or nothing for the first page:
    /// at most `limit`, in an order that fingerprints alone decide, those included that are over and not removed yet.
    ///
    /// They are those of the zone under `number`, which was told: all changes with this number or a lower one, and
    /// none with a higher one. Where the history does not reach back that far, a set is of that moment, or of a later
    /// one; the numbers of [`changed`](Store::changed) begin after it then. A damaged set is left out and logged, so
    /// that it does not hide the others. Signatures are not looked at, as in [`held`](Store::held).
    fn page(
        &self,
        number: u64,
        after: Option<Fingerprint>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Whose sets changed with numbers above `from` and up to `to`, which was told; in the order of a walk. `None`
    /// where the history does not reach back to `from`, or this store never told it.
    fn changed(&self, from: u64, to: u64) -> BoxFuture<'_, Result<Option<Vec<Fingerprint>>, StoreError>>;

    /// What the zone had of these nodes under both numbers, in the order in which they are named. `None` where the
    /// history does not reach back to `from` any more; an error where a set of one of the two is damaged.
    fn differences(
        &self,
        from: u64,
        to: u64,
        of: Vec<Fingerprint>,
    ) -> BoxFuture<'_, Result<Option<Vec<Difference>>, StoreError>>;

    /// Makes the history begin with `number`, unless it begins later; durable when it returns.
    fn cut(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Notes the shape of the records that sets are given out as, and of the top of the zone. Where it was another,
    /// that is a change of the zone, with whose number the history begins. Durable when it returns.
    fn reshape(&self, now: Timestamp, shape: Shape) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The shape that was noted last.
    fn shape(&self) -> BoxFuture<'_, Result<Option<Shape>, StoreError>>;

    /// When the zone changed: every announce that created or replaced a set counts, every set that
    /// [`expire`](Store::expire) removed, and every other shape, whichever process did it. It is asked about once a
    /// second.
    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Makes sure that no change which becomes visible from now on takes `number`, or a lower one; durable when it
    /// returns. What secondaries are told is sealed before.
    fn seal(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>>;
}
