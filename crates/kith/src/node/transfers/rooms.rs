//! How many offers a node holds in memory at once: an offer may be large, and a contact may be careless.

use std::sync::Arc;

use kith_connect::Stream;
use kith_transfer::{IncomingOffer, Limits, Opening, ReceiveError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Offers that are read at once.
const READING: usize = 4;
/// Entries of all offers that are held, those of the largest one and as many again.
const ENTRIES: usize = 2 * kith_transfer::offer::MAX_ENTRIES as usize;

/// The room for offers.
pub(super) struct Rooms {
    reading: Semaphore,
    entries: Arc<Semaphore>,
}

impl Default for Rooms {
    fn default() -> Self {
        Rooms { reading: Semaphore::new(READING), entries: Arc::new(Semaphore::new(ENTRIES)) }
    }
}

impl Rooms {
    /// Reads what a stream begins with when its turn has come.
    pub(super) async fn read(&self, stream: &mut Stream) -> Result<Opening, ReceiveError> {
        // The semaphore is never closed; were it, there would just be no limit.
        let _turn = self.reading.acquire().await.ok();
        kith_transfer::read_opening(stream, &Limits::default()).await
    }

    /// Room for the entries of an offer until the permit is dropped; `None` where there is none.
    pub(super) fn keep(&self, offer: &IncomingOffer) -> Option<OwnedSemaphorePermit> {
        let entries = u32::try_from(offer.offer().entries().len()).ok()?;
        Arc::clone(&self.entries).try_acquire_many_owned(entries).ok()
    }
}
