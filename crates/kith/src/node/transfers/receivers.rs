//! `receive` commands that wait: which transfer goes to which.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_identity::Fingerprint;
use tokio::sync::oneshot;

use super::Transfers;
use super::journal::Job;
use super::live::{Follower, Live};
use crate::api::shapes::State;

/// What a `receive` command takes.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Only from this contact.
    pub(crate) from: Option<Fingerprint>,
    /// Absolute path of the folder.
    pub(crate) into: String,
    /// Accept without asking.
    pub(crate) yes: bool,
    pub(crate) overwrite: bool,
}

impl Wish {
    fn takes_from(&self, peer: &Fingerprint) -> bool {
        self.from.as_ref().is_none_or(|from| from == peer)
    }
}

/// A transfer that a command follows from now on.
pub(crate) type Taken = (Arc<Live>, Follower);

struct Waiting {
    wish: Wish,
    give: oneshot::Sender<Taken>,
}

/// The commands that wait for an offer, oldest first.
#[derive(Default)]
pub(crate) struct Receivers(Mutex<Vec<Waiting>>);

impl Receivers {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|one| !one.give.is_closed());
        waiting
    }

    pub(crate) fn count(&self) -> usize {
        self.waiting().len()
    }

    /// Queues a command; it gets the next transfer that its wish takes.
    pub(crate) fn wait(&self, wish: Wish) -> oneshot::Receiver<Taken> {
        let (give, taken) = oneshot::channel();
        self.waiting().push(Waiting { wish, give });
        taken
    }

    /// The wish of the first command that takes from `peer`; the command follows `live` from now on.
    pub(crate) fn give(&self, live: &Arc<Live>) -> Option<Wish> {
        let mut waiting = self.waiting();
        let place = waiting.iter().position(|one| one.wish.takes_from(&live.peer))?;
        let follower = live.follow()?;
        let one = waiting.remove(place);
        let wish = one.wish.clone();
        one.give.send((Arc::clone(live), follower)).ok()?;
        Some(wish)
    }
}

/// A transfer that is there already and belongs to this wish: one under way into the same folder that no
/// command follows, one that ended while nobody watched, or an offer that waits for a decision.
pub(crate) fn existing(transfers: &Transfers, wish: &Wish) -> Option<Taken> {
    let mut candidates: Vec<_> = transfers
        .list()
        .into_iter()
        .filter(|live| wish.takes_from(&live.peer) && !live.is_followed())
        .filter_map(|live| rank(&live, wish).map(|rank| (rank, live.row().changed, live)))
        .collect();
    candidates.sort_by_key(|(rank, changed, _)| (*rank, *changed));
    candidates.into_iter().find_map(|(_, _, live)| {
        let follower = live.follow()?;
        Some((live, follower))
    })
}

fn rank(live: &Live, wish: &Wish) -> Option<u8> {
    let row = live.row();
    let Job::In { into, .. } = &row.job else { return None };
    match row.last.state {
        State::Moving | State::Interrupted if *into == wish.into => Some(0),
        State::Done if !row.reported && *into == wish.into => Some(1),
        State::Offered if live.is_pending() => Some(2),
        _ => None,
    }
}
