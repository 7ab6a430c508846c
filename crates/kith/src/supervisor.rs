//! What a service manager hears (`sd_notify`): that the program is ready, that it lives, that it stops. Without one
//! (no `NOTIFY_SOCKET` in the environment) nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

/// A shorter wish of the service manager is not followed to the letter.
const SHORTEST_BEAT: Duration = Duration::from_millis(50);

/// It listens; `status` is one line for people.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It has begun to stop.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Shows that the program lives, twice in the time that the service manager allows; never ends.
pub(crate) async fn watchdog() {
    let Some(allowed) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut beat = tokio::time::interval((allowed / 2).max(SHORTEST_BEAT));
    loop {
        beat.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
