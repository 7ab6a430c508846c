//! Waiting for what a machine waits for.

use kith_sansio::{Time, system};

/// Waits until a machine wants to be woken; for ever where it does not.
pub(crate) async fn due(at: Option<Time>) {
    match at {
        Some(at) => tokio::time::sleep_until(system::instant(at).into()).await,
        None => std::future::pending().await,
    }
}
