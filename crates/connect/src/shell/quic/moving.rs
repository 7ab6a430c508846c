//! Moving between the relayed path of a connection, which has number 0, and a direct one. Both sides do the same, each for
//! what it sends.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use noq::{PathId, PathStatus};

use super::Link;
use crate::defaults;
use crate::direct::limits::{DIRECT_BEAT, DIRECT_SILENCE, RELAYED_BEAT};
use crate::shell::endpoint::PathInfo;

impl Link {
    /// Whether this node opened it.
    pub(in crate::shell) fn is_ours(&self) -> bool {
        self.ours
    }

    /// Whether it began over a relay, and can have other paths.
    pub(in crate::shell) fn may_move(&self) -> bool {
        self.over.is_some() && self.connection.is_multipath_enabled()
    }

    /// Whether a direct path may be looked for, and nobody does yet.
    pub(in crate::shell) fn start_seeking(&self) -> bool {
        self.may_move() && !self.seeking.swap(true, Ordering::SeqCst)
    }

    /// How it goes, while it is open.
    pub(in crate::shell) fn path_now(&self) -> Option<PathInfo> {
        self.is_open().then(|| self.path())
    }

    /// Where datagrams for the relay go.
    pub(in crate::shell) fn relay_address(&self) -> Option<SocketAddr> {
        self.over.map(|over| over.at)
    }

    pub(super) fn direct(&self) -> Option<PathId> {
        *self.direct.borrow()
    }

    /// Whether it goes without a relay now.
    pub(in crate::shell) fn is_direct(&self) -> bool {
        self.over.is_none() || self.direct().is_some()
    }

    /// Whether it began over a relay and goes without one now.
    pub(in crate::shell) fn has_moved(&self) -> bool {
        self.over.is_some() && self.direct().is_some()
    }

    /// Waits until it goes directly; for ever where it is not looked for a way.
    pub(in crate::shell) async fn moved(&self) {
        let mut direct = self.direct.subscribe();
        // The sender is here.
        let _ = direct.wait_for(Option::is_some).await;
    }

    /// Has the relayed path show that it is alive, also while nothing goes over it.
    pub(in crate::shell) fn keep_relayed_path(&self) {
        if let Some(relayed) = self.connection.path(PathId::ZERO) {
            // What fails here is closed, and its end is told otherwise.
            let _ = relayed.set_keep_alive_interval(Some(RELAYED_BEAT.into()));
            let _ = relayed.set_max_idle_timeout(Some(defaults::IDLE_TIMEOUT.into()));
        }
    }

    /// Sends over the direct path `id` from now on, and over the relayed one when that fails.
    pub(in crate::shell) fn move_to(&self, id: PathId) {
        let Some(path) = self.connection.path(id) else { return };
        self.direct.send_replace(Some(id));
        // As above.
        let _ = path.set_status(PathStatus::Available);
        let _ = path.set_keep_alive_interval(Some(DIRECT_BEAT.into()));
        if let Some(relayed) = self.connection.path(PathId::ZERO) {
            let _ = path.set_max_idle_timeout(Some(DIRECT_SILENCE.into()));
            let _ = relayed.set_status(PathStatus::Backup);
        }
        tracing::debug!(peer = %self.peer, remote = %self.remote(), "moved to a direct path");
    }

    /// A path is gone; whether it is the direct one.
    pub(in crate::shell) fn has_lost(&self, id: PathId) -> bool {
        let direct = self.direct();
        if direct == Some(id) {
            self.direct.send_replace(None);
            if let Some(relayed) = self.connection.path(PathId::ZERO) {
                let _ = relayed.set_status(PathStatus::Available);
            }
            tracing::debug!(peer = %self.peer, "back on the relayed path");
            return true;
        }
        // The last path that there is ends with the connection alone.
        if id == PathId::ZERO
            && let Some(path) = direct.and_then(|id| self.connection.path(id))
        {
            let _ = path.set_max_idle_timeout(None);
        }
        false
    }
}
