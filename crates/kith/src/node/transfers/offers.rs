//! What is offered, read from the file system: once for all recipients of an order.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kith_sansio::{Span, Time, system};
use kith_transfer::{LocalOffer, Offer};
use tokio::sync::OnceCell;

use crate::failure::{Failure, Result, chain};

/// A list of files that was read longer ago is read again before it is offered.
const FRESH: Span = Span::secs(60);

/// The lists of files that are being read, or are in use.
#[derive(Default)]
pub(super) struct Offers(Mutex<HashMap<Vec<String>, Weak<Reading>>>);

/// One list of files, which several transfers may share.
#[derive(Default)]
pub(super) struct Reading(OnceCell<(Result<LocalOffer>, Time)>);

impl Offers {
    /// The list of these paths: one that is being read or was a moment ago and not before `after`, or a new one.
    pub(super) fn reading(&self, paths: &[String], after: Time) -> Arc<Reading> {
        let mut readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readings.retain(|_, reading| reading.strong_count() > 0);
        if let Some(reading) = readings.get(paths).and_then(Weak::upgrade)
            && reading.is_fresh(after)
        {
            return reading;
        }
        let reading = Arc::new(Reading::default());
        readings.insert(paths.to_vec(), Arc::downgrade(&reading));
        reading
    }
}

impl Reading {
    /// Whether it is still being read, or was read a moment ago and not before `after`.
    pub(super) fn is_fresh(&self, after: Time) -> bool {
        self.0.get().is_none_or(|(_, at)| *at >= after && system::time() - *at < FRESH)
    }

    /// Reads the paths, or waits for whoever does.
    pub(super) async fn offer(&self, paths: &[String]) -> Result<LocalOffer> {
        let read = async {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            let read = tokio::task::spawn_blocking(move || Offer::from_paths(&paths)).await;
            let read = read
                .map_err(Failure::failed)
                .and_then(|read| read.map_err(|error| Failure::failed(chain(&error))));
            (read, system::time())
        };
        self.0.get_or_init(|| read).await.0.clone()
    }
}
