//! `receive` commands that wait: which transfer goes to which.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_identity::Fingerprint;
use tokio::sync::{oneshot, watch};

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

    /// An offer that nobody has accepted, or a transfer into its own folder that comes back.
    fn takes(&self, live: &Live) -> bool {
        let free = |job: Job| matches!(job, Job::In { into, .. } if into.is_empty() || into == self.into);
        self.takes_from(&live.peer) && free(live.job())
    }
}

/// A transfer that a command follows from now on.
pub(crate) type Taken = (Arc<Live>, Follower);

struct Waiting {
    wish: Wish,
    give: oneshot::Sender<Taken>,
}

/// The commands that wait for an offer.
#[derive(Default)]
pub(crate) struct Receivers {
    /// Oldest first.
    waiting: Mutex<Vec<Waiting>>,
    /// Told whenever a command lets go of a transfer.
    released: watch::Sender<()>,
}

impl Receivers {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|one| !one.give.is_closed());
        waiting
    }

    pub(crate) fn count(&self) -> usize {
        self.waiting().len()
    }

    /// The transfer that `wish` takes: one that is there already, or else the next one that comes or that its
    /// command lets go of. That a command was killed is heard a moment after the next one asks.
    pub(crate) async fn take(&self, transfers: &Transfers, wish: &Wish) -> Option<Taken> {
        let mut released = self.released.subscribe();
        let mut coming = {
            // Looking and queueing in one, so that no offer falls between.
            let mut waiting = self.waiting();
            if let Some(taken) = self.existing(transfers, wish) {
                return Some(taken);
            }
            let (give, coming) = oneshot::channel();
            waiting.push(Waiting { wish: wish.clone(), give });
            coming
        };
        loop {
            tokio::select! {
                biased;
                taken = &mut coming => return taken.ok(),
                Ok(()) = released.changed() => {}
            }
            let _nothing_is_given_now = self.waiting();
            if let Ok(taken) = coming.try_recv() {
                return Some(taken);
            }
            if let Some(taken) = self.existing(transfers, wish) {
                coming.close();
                return Some(taken);
            }
        }
    }

    /// The wish of the first command that takes `live`; it follows it from now on.
    pub(crate) fn give(&self, live: &Arc<Live>) -> Option<Wish> {
        let mut waiting = self.waiting();
        let mut taken = (Arc::clone(live), live.follow(&self.released)?);
        while let Some(place) = waiting.iter().position(|one| one.wish.takes(live)) {
            let one = waiting.remove(place);
            match one.give.send(taken) {
                Ok(()) => return Some(one.wish),
                // That command has ended in this moment.
                Err(back) => taken = back,
            }
        }
        None
    }

    /// A transfer that is there already and belongs to this wish: one under way into the same folder that no
    /// command follows, one that ended while nobody watched, or an offer that waits for a decision. One whose
    /// connection is lost may never come back; it is given when it does.
    fn existing(&self, transfers: &Transfers, wish: &Wish) -> Option<Taken> {
        let mut candidates: Vec<_> = transfers
            .list()
            .into_iter()
            .filter(|live| wish.takes_from(&live.peer) && !live.is_followed())
            .filter_map(|live| rank(&live, wish).map(|rank| (rank, live.row().changed, live)))
            .collect();
        candidates.sort_by_key(|(rank, changed, _)| (*rank, *changed));
        candidates.into_iter().find_map(|(_, _, live)| {
            let follower = live.follow(&self.released)?;
            Some((live, follower))
        })
    }
}

fn rank(live: &Live, wish: &Wish) -> Option<u8> {
    let row = live.row();
    let Job::In { into, .. } = &row.job else { return None };
    match row.last.state {
        State::Moving if *into == wish.into => Some(0),
        State::Done if !row.reported && *into == wish.into => Some(1),
        State::Offered if live.is_pending() => Some(2),
        _ => None,
    }
}
