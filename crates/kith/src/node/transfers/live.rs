//! A transfer of this node: what is known of it, and what may be asked of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use kith_sansio::{Time, system};
use kith_transfer::{AbortReason, Cancel, Progress, Summary};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::journal::{Job, Row};
use crate::api::shapes::{FailedFile, State, Transfer};
use crate::failure::{Code, Failure};

/// How often a moving transfer tells where it is.
const TICK: std::time::Duration = std::time::Duration::from_millis(200);

/// What came out of a transfer that went to its end.
pub(crate) struct Transferred(pub(crate) Summary);

impl Transferred {
    fn write_into(&self, last: &mut Transfer) {
        let Transferred(summary) = self;
        last.bytes = summary.bytes;
        last.resumed_bytes = summary.resumed_bytes;
        last.files = summary.files.into();
        last.failed_files = summary.failures.into();
        let named = summary.failed.iter().take(super::MAX_LISTED);
        last.failed = named
            .map(|failed| FailedFile {
                path: failed.path.display().to_string(),
                reason: failed.reason.to_string(),
            })
            .collect();
    }
}

/// What a person decided about an offer.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Take it into this folder.
    Accept { into: String, overwrite: bool },
    /// Do not take it.
    Decline,
}

/// A transfer, running or ended.
pub(crate) struct Live {
    pub(crate) id: String,
    pub(crate) peer: kith_identity::Fingerprint,
    /// The person's wish to end it.
    pub(crate) cancel: CancellationToken,
    /// Held by the connection that carries an incoming transfer, so that there is never more than one.
    pub(crate) turn: tokio::sync::Mutex<()>,
    facts: Mutex<Facts>,
    changes: watch::Sender<u64>,
}

/// One connection's part in a transfer.
#[derive(Clone, Default)]
pub(crate) struct Attempt {
    pub(crate) progress: Arc<Progress>,
    pub(crate) cancel: Cancel,
}

struct Facts {
    row: Row,
    /// The connection that carries it, or the last one that did.
    attempt: Attempt,
    /// When bytes began to move.
    began: Option<Time>,
    /// Set while an incoming offer waits for a person.
    decision: Option<oneshot::Sender<Decision>>,
    /// Whether a `receive` command follows it.
    watched: bool,
}

impl Facts {
    fn snapshot(&self) -> Transfer {
        let mut transfer = self.row.last.clone();
        if transfer.state == State::Moving {
            let counts = &self.attempt.progress;
            transfer.resumed_bytes = counts.resumed_bytes();
            transfer.bytes = counts.moved_bytes() + transfer.resumed_bytes;
            transfer.files = counts.files_done().into();
            if let Some(began) = self.began {
                transfer.seconds = (system::time() - began).0 as f64 / 1e6;
            }
        }
        transfer
    }

    fn change(&mut self, last: Transfer) {
        if last.state != State::Moving {
            // It holds the whole list of files.
            self.attempt.progress = Arc::default();
        }
        if last.state != State::Offered {
            self.decision = None;
        }
        self.row.last = last;
        self.row.changed = system::utc().0;
    }
}

impl Live {
    pub(crate) fn new(id: String, peer: kith_identity::Fingerprint, row: Row) -> Arc<Live> {
        Arc::new(Live {
            id,
            peer,
            cancel: CancellationToken::new(),
            turn: tokio::sync::Mutex::default(),
            facts: Mutex::new(Facts {
                row,
                attempt: Attempt::default(),
                began: None,
                decision: None,
                watched: false,
            }),
            changes: watch::Sender::new(0),
        })
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Where it stands now.
    pub(crate) fn snapshot(&self) -> Transfer {
        self.facts().snapshot()
    }

    pub(crate) fn state(&self) -> State {
        self.facts().row.last.state
    }

    /// Its journal row as it should be written now.
    pub(crate) fn row(&self) -> Row {
        let facts = self.facts();
        Row { last: facts.snapshot(), ..facts.row.clone() }
    }

    /// Begins with a new connection; the one before it ends.
    pub(crate) fn begin(&self) -> Attempt {
        let attempt = Attempt { progress: Arc::default(), cancel: self.cancel.child_token().into() };
        let before = std::mem::replace(&mut self.facts().attempt, attempt.clone());
        before.cancel.cancel(AbortReason::Cancelled);
        attempt
    }

    pub(crate) fn job(&self) -> Job {
        self.facts().row.job.clone()
    }

    /// Changes what is known and tells those who watch.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Row)) {
        change(&mut self.facts().row);
        self.tell();
    }

    /// Bytes move over this connection from now on.
    pub(crate) fn enter_moving(&self, attempt: &Attempt) {
        // The end of an older connection may have let go of it.
        self.facts().attempt.progress = Arc::clone(&attempt.progress);
        self.enter(State::Moving);
    }

    /// Moves to another state.
    pub(crate) fn enter(&self, state: State) {
        {
            let mut facts = self.facts();
            if state == State::Moving && facts.began.is_none() {
                facts.began = Some(system::time());
            }
            let last = Transfer { state, ..facts.snapshot() };
            facts.change(last);
        }
        self.tell();
    }

    /// Ends it: well, with what came out, or with the failure.
    pub(crate) fn end(&self, outcome: Result<Transferred, Failure>) {
        {
            let mut facts = self.facts();
            let mut last = facts.snapshot();
            last.failure = outcome.map(|transferred| transferred.write_into(&mut last)).err();
            last.state = if last.failure.is_some() { State::Failed } else { State::Done };
            last.done = last.failure.is_none();
            facts.change(last);
        }
        self.tell();
    }

    /// Waits for a person's decision about an offer.
    pub(crate) fn await_decision(&self) -> oneshot::Receiver<Decision> {
        let (sender, receiver) = oneshot::channel();
        self.facts().decision = Some(sender);
        receiver
    }

    /// Tells the decision; refused where nothing waits for one.
    pub(crate) fn decide(&self, decision: Decision) -> Result<(), Failure> {
        let waiting = self.facts().decision.take();
        match waiting.map(|sender| sender.send(decision)) {
            Some(Ok(())) => Ok(()),
            _ => Err(Failure::new(Code::NotFound, "this transfer waits for no decision")),
        }
    }

    /// Whether it is an offer that waits for a person.
    pub(crate) fn is_pending(&self) -> bool {
        self.facts().decision.is_some()
    }

    /// Claims it for one `receive` command; `None` where another follows it.
    pub(crate) fn follow(self: &Arc<Self>) -> Option<Follower> {
        let mut facts = self.facts();
        if std::mem::replace(&mut facts.watched, true) {
            return None;
        }
        Some(Follower(Arc::clone(self)))
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.facts().watched
    }

    /// Changes from now on, to be waited for with [`next_change`](Self::next_change).
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits for a change, and while bytes move for [`TICK`] at most; then tells where it stands.
    pub(crate) async fn next_change(&self, changes: &mut watch::Receiver<u64>) -> Transfer {
        let tick = async {
            match self.state() {
                State::Moving => tokio::time::sleep(TICK).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            () = tick => {}
        }
        changes.mark_unchanged();
        self.snapshot()
    }
}

/// A claim on a transfer; let go of when dropped.
pub(crate) struct Follower(Arc<Live>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.facts().watched = false;
    }
}

/// The transfer's events: one document now, one at each change, one each [`TICK`] while bytes move, the last at
/// its end.
pub(crate) fn events(live: Arc<Live>) -> impl Stream<Item = Result<Value, Failure>> + Send + 'static {
    let changes = live.changes();
    futures_util::stream::unfold((live, changes, None), |(live, mut changes, last)| async move {
        let transfer = match last {
            None => live.snapshot(),
            Some(State::Done | State::Failed) => return None,
            Some(_) => live.next_change(&mut changes).await,
        };
        let value = serde_json::to_value(&transfer).map_err(Failure::failed);
        Some((value, (live, changes, Some(transfer.state))))
    })
}
