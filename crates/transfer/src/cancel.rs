use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::frame::AbortReason;

/// Ends one session of a transfer from outside, and says why. Clones end the same session.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    token: CancellationToken,
    reason: Arc<OnceLock<AbortReason>>,
}

impl Cancel {
    /// Not cancelled.
    pub fn new() -> Self {
        Cancel::default()
    }

    /// Ends the session, and tells the peer this reason; the first reason stands.
    pub fn cancel(&self, reason: AbortReason) {
        let _the_first_stands = self.reason.set(reason);
        self.token.cancel();
    }

    /// Whether the session was told to end.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the session is told to end.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// What the peer is told: a user's cancellation where nothing else was said.
    pub fn reason(&self) -> AbortReason {
        self.reason.get().copied().unwrap_or(AbortReason::Cancelled)
    }
}

/// Keeps an accepted transfer from moving until it is opened. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(CancellationToken);

impl Gate {
    /// Closed.
    pub fn new() -> Self {
        Gate::default()
    }

    /// Open from the beginning.
    pub fn wide_open() -> Self {
        let gate = Gate::new();
        gate.open();
        gate
    }

    /// Lets it move.
    pub fn open(&self) {
        self.0.cancel();
    }

    /// Waits until it may move.
    pub async fn opened(&self) {
        self.0.cancelled().await;
    }
}

/// Ends with the token, as cancelled by the user.
impl From<CancellationToken> for Cancel {
    fn from(token: CancellationToken) -> Self {
        Cancel { token, reason: Arc::default() }
    }
}
