//! How a node ends: by a signal, by `kith down`, or by the system's wish.

use std::future::Future;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::Node;
use crate::failure::{Failure, Result};
use crate::supervisor;

/// Completes at the first Ctrl-C or termination signal.
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    let listen = |kind| signal(kind).map_err(|e| Failure::failed(format!("cannot listen for signals: {e}")));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Runs until somebody stops the node, then ends it in good order.
pub(crate) async fn until_stopped(node: Arc<Node>, stop: impl Future<Output = ()>) {
    tokio::select! {
        () = stop => node.stop(),
        () = node.stopping.cancelled() => {}
        () = supervisor::watchdog() => {}
    }
    supervisor::stopping();
    drop(node.end().await);
}
