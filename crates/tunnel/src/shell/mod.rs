//! The asynchronous shell: a TUN device, connections with the peers of it, and the machines between them.

mod hub;
mod line;
#[cfg(target_os = "linux")]
mod linux;

pub use hub::{AddError, Hub, HubConfig, PeerState};
pub use linux::{Device, DeviceError};

use kith_sansio::{Span, Time};

/// Waits until `at`.
async fn until(at: Time) {
    tokio::time::sleep_until(kith_sansio::system::instant(at).into()).await;
}

/// Runs `work`, for `span` at most.
async fn within<F: Future>(span: Span, work: F) -> Option<F::Output> {
    tokio::time::timeout(span.into(), work).await.ok()
}
