//! The floor of delegation (SEP §5.1, `docs/delegator.md`): this node as a delegator of others, and the delegators that
//! manage whom this node trusts.

mod file;
mod keeper;
mod routes;
mod uses;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kith_connect::delegator::{Change, Delegator, MAX_MEMBERS, Policy};
use kith_sansio::{Now, Span, Time, system};
use kith_store::Database;
use serde_json::{Value, json};

pub(crate) use self::keeper::Keeper;
use self::routes::overview;
pub(crate) use self::routes::{
    change_group, end_use, find_use, grant, lines, list_of, list_used, members, overview_at_rest,
    refuse_with_file, revoke, revoke_member, take_up, told,
};
pub(crate) use self::uses::{Delegated, Way};
use super::Node;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::floors::Floor;

/// How often rules that have ended are taken away. Their end is in the lists, so that nothing hangs on it.
const SWEEP: Duration = Duration::from_secs(10);
/// The wall clock may run ahead of the timer by so much between two looks.
const JUMP: Span = Span::secs(60);
/// A wall clock that was set forward must have stayed so for this long before rules go by it.
const DOUBT: Span = Span::secs(3600);
/// Streams beside those of subscribers.
const OTHER_STREAMS: usize = 4_096;

pub(crate) const FLOOR: Floor = Floor {
    name: "delegator",
    start: |node| Box::pin(start(node)),
    stop: |node| Box::pin(stop(node)),
    routes: routes::routes,
    status: |node| Some(status(node)),
    commands: &["delegator"],
};

/// This node as a delegator.
pub(crate) struct Delegation {
    keeper: Keeper,
    /// The service, while this node serves.
    service: Mutex<Option<Delegator>>,
}

impl Delegation {
    pub(crate) fn open(database: Database) -> Result<Delegation> {
        Ok(Delegation { keeper: Keeper::open(database)?, service: Mutex::default() })
    }

    fn service(&self) -> MutexGuard<'_, Option<Delegator>> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the policy; what changes for subscribers is on its way when this returns.
    fn change(
        &self,
        node: &Node,
        by: &str,
        change: impl FnOnce(&mut Policy) -> Result<()>,
    ) -> Result<Vec<Change>> {
        self.keeper.change(by, change, |policy| {
            if let Some(service) = self.service().as_ref() {
                node.book.delegated.serve(Some(Arc::clone(policy)));
                service.set_policy(Arc::clone(policy));
            }
        })
    }

    /// Members that are connected, and those of them whose list of now is in force.
    fn subscribers(&self) -> (BTreeSet<kith_identity::Fingerprint>, BTreeSet<kith_identity::Fingerprint>) {
        let subscribers = self.service().as_ref().map(Delegator::subscribers).unwrap_or_default();
        let current = subscribers.iter().filter(|(_, current)| *current).map(|(peer, _)| *peer).collect();
        (subscribers.into_iter().map(|(peer, _)| peer).collect(), current)
    }
}

/// Room for as many streams and connections as there may be subscribers, where this node is to serve.
pub(super) fn make_room(config: &Config, endpoint: &mut kith_connect::Config) {
    if config.delegator.serve {
        endpoint.max_streams = endpoint.max_streams.max(2 * MAX_MEMBERS + OTHER_STREAMS);
    }
}

async fn start(node: &Arc<Node>) -> Result<()> {
    node.book.delegated.start(&node.endpoint);
    if !node.config.delegator.serve {
        return Ok(());
    }
    let file = node.config.delegator.file.clone();
    let stamp = file.as_deref().and_then(file::stamp);
    if let Some(path) = file.clone() {
        node.on_disk(move |node| file::load(node, &path)).await?;
    }
    let policy = node.delegation.keeper.policy();
    let service = Delegator::start(&node.endpoint, Arc::clone(&policy), node.config.delegator.lease());
    *node.delegation.service() = Some(service.map_err(Failure::failed)?);
    // What was changed since is told by whoever changed it, or here.
    let now = node.delegation.keeper.policy();
    node.book.delegated.serve(Some(Arc::clone(&now)));
    if let Some(service) = node.delegation.service().as_ref().filter(|_| !Arc::ptr_eq(&policy, &now)) {
        service.set_policy(now);
    }
    match file {
        // What has ended stays in the policy as it stays in the file; else each reading would bring it back.
        Some(path) => node.tasks.spawn(file::follow(Arc::clone(node), path, stamp)),
        None => node.tasks.spawn(sweep(Arc::clone(node))),
    };
    Ok(())
}

async fn stop(node: &Arc<Node>) {
    node.book.delegated.serve(None);
    node.book.delegated.stop();
    *node.delegation.service() = None;
}

/// Says whether the wall clock may be gone by for what cannot be taken back: not where it has just jumped ahead, because
/// it may be set right again.
struct Clock {
    looked: Now,
    doubted_until: Time,
}

impl Clock {
    fn new(now: Now) -> Clock {
        Clock { looked: now, doubted_until: now.time }
    }

    fn is_settled(&mut self, now: Now) -> bool {
        let (by_timer, ahead) = (now.time - self.looked.time, now.utc.secs_since(self.looked.utc));
        if Span::secs(ahead) > Span(by_timer.0.saturating_add(JUMP.0)) {
            self.doubted_until = now.time + DOUBT;
        }
        self.looked = now;
        now.time >= self.doubted_until
    }
}

/// Takes rules away that have ended.
async fn sweep(node: Arc<Node>) {
    let mut clock = Clock::new(system::now());
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = node.stopped.cancelled() => return,
        }
        if !clock.is_settled(system::now()) {
            continue;
        }
        let swept = node.on_disk(|node| {
            node.delegation.change(node, "time", |policy| {
                policy.expire(system::utc());
                Ok(())
            })
        });
        if let Err(failure) = swept.await {
            tracing::error!(%failure, "rules that have ended cannot be taken away");
        }
    }
}

fn status(node: &Node) -> Value {
    let overview = overview(node);
    json!({
        "serving": overview.serving,
        "members": overview.members,
        "connected": overview.connected,
        "current": overview.current,
        "using": overview.using,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_sansio::Timestamp;

    #[test]
    fn a_wall_clock_that_jumps_ahead_is_gone_by_when_it_has_stayed_so_for_an_hour() {
        let mut now = Now { time: Time(0), utc: Timestamp(1_767_225_600) };
        let mut clock = Clock::new(now);
        let mut wait = |seconds: u64, jump: u64| {
            now.time += Span::secs(seconds);
            now.utc = now.utc.plus_secs(seconds + jump);
            clock.is_settled(now)
        };
        assert!(wait(10, 0) && wait(3600, 0) && wait(10, 60));
        assert!(!wait(10, 61), "a jump");
        assert!(!wait(3590, 0) && wait(10, 0));
        assert!(!wait(10, 86_400) && !wait(3000, 0) && !wait(10, 86_400), "and another one");
        assert!(!wait(3590, 0) && wait(10, 0));
    }
}
