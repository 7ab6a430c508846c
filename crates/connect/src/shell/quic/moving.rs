//! Moving between the relayed path of a connection and a direct one. Both sides do the same, each for what it sends.

use std::sync::atomic::Ordering;

use noq::{PathId, PathStatus};
use tokio::sync::watch;

use super::{Link, Relayed};
use crate::defaults;
use crate::direct::limits::{DIRECT_BEAT, DIRECT_SILENCE, RELAYED_BEAT, RESERVE_BEAT};
use crate::shell::endpoint::PathInfo;
use crate::shell::relay::Over;

impl Link {
    /// Whether this node opened it.
    pub(in crate::shell) fn is_ours(&self) -> bool {
        self.ours
    }

    /// Whether it began over a relay, and can have other paths.
    pub(in crate::shell) fn may_move(&self) -> bool {
        self.relayed.is_some() && self.connection.is_multipath_enabled()
    }

    /// Whether a direct path may be looked for, and nobody does yet.
    pub(in crate::shell) fn start_seeking(&self) -> bool {
        self.may_move() && !self.seeking.swap(true, Ordering::SeqCst)
    }

    /// How it goes, while it is open.
    pub(in crate::shell) fn path_now(&self) -> Option<PathInfo> {
        self.is_open().then(|| self.path())
    }

    /// Its path over a relay, the last one where it has lost that.
    pub(in crate::shell) fn relayed(&self) -> Option<Relayed> {
        self.relayed.as_ref().map(|relayed| *relayed.borrow())
    }

    /// Hears when it has come to another relay.
    pub(in crate::shell) fn watch_relay(&self) -> Option<watch::Receiver<Relayed>> {
        self.relayed.as_ref().map(watch::Sender::subscribe)
    }

    pub(super) fn direct(&self) -> Option<PathId> {
        *self.direct.borrow()
    }

    /// The path that what is sent goes over.
    pub(in crate::shell) fn used_path(&self) -> PathId {
        let relayed = || self.relayed().map_or(PathId::ZERO, |relayed| relayed.id);
        self.direct().unwrap_or_else(relayed)
    }

    /// Whether it goes without a relay now.
    pub(in crate::shell) fn is_direct(&self) -> bool {
        self.relayed.is_none() || self.direct().is_some()
    }

    /// Whether it began over a relay and goes without one now.
    pub(in crate::shell) fn has_moved(&self) -> bool {
        self.relayed.is_some() && self.direct().is_some()
    }

    /// Waits until it goes directly; for ever where it is not looked for a way.
    pub(in crate::shell) async fn moved(&self) {
        let mut direct = self.direct.subscribe();
        // The sender is here.
        let _ = direct.wait_for(Option::is_some).await;
    }

    /// Datagrams that have come over a path so far.
    pub(in crate::shell) fn heard_over(&self, id: PathId) -> Option<u64> {
        self.connection.path_stats(id).map(|stats| stats.udp_rx.datagrams)
    }

    /// Has each path show that it is there, the one that is used more often, and what is sent go over that.
    pub(in crate::shell) fn tune(&self) {
        let direct = self.direct().and_then(|id| self.connection.path(id));
        let relayed = self.relayed().filter(|relayed| relayed.is_open);
        let relayed = relayed.and_then(|relayed| self.connection.path(relayed.id));
        // What fails here is closed, and its end is told otherwise. Two that are used alike would take turns.
        if let Some(direct) = &direct {
            let _ = direct.set_status(PathStatus::Available);
            let _ = direct.set_keep_alive_interval(Some(DIRECT_BEAT.into()));
            // The last path that there is ends with the connection alone.
            let _ = direct.set_max_idle_timeout(relayed.is_some().then_some(DIRECT_SILENCE.into()));
        }
        if let Some(relayed) = &relayed {
            let (status, beat) = match direct {
                Some(_) => (PathStatus::Backup, RESERVE_BEAT),
                None => (PathStatus::Available, RELAYED_BEAT),
            };
            let _ = relayed.set_status(status);
            let _ = relayed.set_keep_alive_interval(Some(beat.into()));
            let _ = relayed.set_max_idle_timeout(Some(defaults::IDLE_TIMEOUT.into()));
            let _ = relayed.ping();
        }
    }

    /// Sends over the direct path `id` from now on, and over the relayed one when that fails.
    pub(in crate::shell) fn move_to(&self, id: PathId) {
        self.direct.send_replace(Some(id));
        self.tune();
        tracing::debug!(peer = %self.peer, remote = %self.remote(), "moved to a direct path");
    }

    /// Has the path `id` over a relay instead of the one that it had.
    pub(in crate::shell) fn take_relay(&self, id: PathId, over: Over) {
        let Some(relayed) = &self.relayed else { return };
        let before = relayed.send_replace(Relayed { id, over, is_open: true });
        let before = if before.id == id { None } else { self.connection.path(before.id) };
        self.tune();
        if let Some(before) = before {
            // It may have ended by itself.
            let _ = before.close();
        }
        tracing::debug!(peer = %self.peer, relay = %over.relay, "has come to another relay");
    }

    /// Asks the relayed path whether it is there; an answer counts as heard.
    pub(in crate::shell) fn ask_relay(&self) {
        if let Some(path) = self.relayed().and_then(|relayed| self.connection.path(relayed.id)) {
            // What is closed says nothing.
            let _ = path.ping();
        }
    }

    /// A path is gone; whether it is the direct one.
    pub(in crate::shell) fn has_lost(&self, id: PathId) -> bool {
        if self.direct() != Some(id) {
            return false;
        }
        self.direct.send_replace(None);
        self.tune();
        tracing::debug!(peer = %self.peer, "back on the relayed path");
        true
    }

    /// A path is gone, perhaps the relayed one.
    pub(in crate::shell) fn lose_relay(&self, id: PathId) {
        let Some(relayed) = &self.relayed else { return };
        let is_lost = relayed
            .send_if_modified(|relayed| relayed.id == id && std::mem::replace(&mut relayed.is_open, false));
        if is_lost {
            self.tune();
        }
    }

    /// Goes over the relayed path, as the direct one says nothing.
    pub(in crate::shell) fn give_up_direct(&self) {
        if let Some(path) = self.direct().and_then(|id| self.connection.path(id)) {
            // It may have ended by itself; its end is told as any other.
            let _ = path.close();
        }
    }
}
