//! How many outgoing transfers there are at once: offers that are out, and transfers that move.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kith_identity::Fingerprint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::MAX_RUNNING;

/// Offers that are on their way or out, with all contacts. Each holds a connection.
const MAX_OFFERED: usize = 256;
/// Of these, with one contact: more than it takes unanswered, so that it is the contact who says that it is busy.
const MAX_OFFERED_EACH: usize = 16;

/// The places; whoever waits for one gets it in the order of asking.
pub(super) struct Lanes {
    offered: Arc<Semaphore>,
    each: Mutex<HashMap<Fingerprint, Weak<Semaphore>>>,
    moving: Arc<Semaphore>,
}

/// A place for an offer, free again when dropped.
pub(super) struct Offered {
    _with_contact: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// A place for a transfer that moves, free again when dropped.
pub(super) struct Lane {
    _place: Option<OwnedSemaphorePermit>,
}

impl Default for Lanes {
    fn default() -> Self {
        Lanes {
            offered: Arc::new(Semaphore::new(MAX_OFFERED)),
            each: Mutex::default(),
            moving: Arc::new(Semaphore::new(MAX_RUNNING)),
        }
    }
}

// The semaphores are never closed; were one, there would just be no limit.
impl Lanes {
    /// Waits for a place for an offer to `contact`. Its own share comes first, so that many orders for one contact keep
    /// nobody else's waiting.
    pub(super) async fn offer(&self, contact: Fingerprint) -> Offered {
        let with_contact = self.share(contact).acquire_owned().await.ok();
        let of_all = Arc::clone(&self.offered).acquire_owned().await.ok();
        Offered { _with_contact: with_contact, _of_all: of_all }
    }

    /// A place for an offer to `contact`, where one is free.
    pub(super) fn offer_now(&self, contact: Fingerprint) -> Option<Offered> {
        let with_contact = self.share(contact).try_acquire_owned().ok()?;
        let of_all = Arc::clone(&self.offered).try_acquire_owned().ok()?;
        Some(Offered { _with_contact: Some(with_contact), _of_all: Some(of_all) })
    }

    fn share(&self, contact: Fingerprint) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        each.retain(|_, share| share.strong_count() > 0);
        if let Some(share) = each.get(&contact).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(MAX_OFFERED_EACH));
        each.insert(contact, Arc::downgrade(&share));
        share
    }

    /// Waits for a place for an accepted transfer.
    pub(super) async fn moving(&self) -> Lane {
        Lane { _place: Arc::clone(&self.moving).acquire_owned().await.ok() }
    }

    /// A place for an accepted transfer, where one is free.
    pub(super) fn moving_now(&self) -> Option<Lane> {
        let place = Arc::clone(&self.moving).try_acquire_owned().ok()?;
        Some(Lane { _place: Some(place) })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn contact(n: u8) -> Fingerprint {
        Fingerprint::from_bytes([n; 32])
    }

    #[test]
    fn unanswered_offers_keep_nothing_from_moving_and_one_contact_no_other_waiting() {
        let lanes = Lanes::default();
        let to_one: Vec<_> = (0..100).map_while(|_| lanes.offer(contact(0)).now_or_never()).collect();
        assert_eq!(to_one.len(), MAX_OFFERED_EACH);
        let to_others = (1..=255).flat_map(|n| [contact(n); MAX_OFFERED_EACH]);
        let to_others: Vec<_> = to_others.map_while(|who| lanes.offer(who).now_or_never()).collect();
        assert_eq!(to_others.len(), MAX_OFFERED - MAX_OFFERED_EACH);
        let moving: Vec<_> = (0..100).map_while(|_| lanes.moving_now()).collect();
        assert_eq!(moving.len(), MAX_RUNNING);
        assert!(lanes.moving().now_or_never().is_none());
        drop((to_one, moving));
        assert!(lanes.offer(contact(200)).now_or_never().is_some());
        assert!(lanes.moving_now().is_some());
    }

    #[tokio::test]
    async fn places_are_given_in_the_order_of_asking() {
        let lanes = Lanes::default();
        let mut taken: Vec<_> = (0..MAX_RUNNING).filter_map(|_| lanes.moving_now()).collect();
        let (mut first, mut second) = (Box::pin(lanes.moving()), Box::pin(lanes.moving()));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        taken.pop();
        assert!(lanes.moving_now().is_none());
        assert!((&mut second).now_or_never().is_none() && (&mut first).now_or_never().is_some());
    }
}
