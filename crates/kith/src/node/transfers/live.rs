//! A transfer of this node: what is known of it, and what may be asked of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use kith_sansio::{Span, Time, Timestamp, system};
use kith_transfer::{AbortReason, Cancel, Limit, Progress, Rate, Summary};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::course::Since;
use super::journal::{Job, PAUSED_SECS, Row};
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
    /// Held by whoever tells the contact how it stands here.
    pub(crate) telling: tokio::sync::Mutex<()>,
    /// Its own limit of bandwidth.
    pub(crate) limit: Limit,
    facts: Mutex<Facts>,
    /// Held by whoever writes its row, on a thread that may wait.
    writing: Mutex<()>,
    changes: watch::Sender<u64>,
    /// Signs of life of the contact.
    seen: watch::Sender<u64>,
}

/// Who has paused a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A person at this node.
    Here,
    /// The contact.
    Contact,
}

/// One connection's part in a transfer.
#[derive(Clone, Default)]
pub(crate) struct Attempt {
    pub(crate) progress: Arc<Progress>,
    pub(crate) cancel: Cancel,
}

struct Facts {
    row: Row,
    /// Since when it stands as it does: paused, or without a change.
    rests: Since,
    /// The connection that carries it, or the last one that did.
    attempt: Attempt,
    /// When bytes began to move.
    began: Option<Time>,
    /// Set while an incoming offer waits for a person.
    decision: Option<oneshot::Sender<Decision>>,
    /// Whether a `receive` command follows it.
    watched: bool,
    /// Who wished to end it.
    cancelled_by: Option<By>,
    /// Whether the journal has refused its row.
    is_unsaved: bool,
}

impl Facts {
    fn snapshot(&self) -> Transfer {
        let mut transfer = self.row.last.clone();
        transfer.paused_by = match (self.row.paused_here, self.row.paused_there) {
            _ if transfer.state.is_final() => None,
            (true, true) => Some("both".to_owned()),
            (true, false) => Some("here".to_owned()),
            (false, true) => Some("contact".to_owned()),
            (false, false) => None,
        };
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

    /// Notes whether and since when it is paused.
    fn note_pause(&mut self) {
        let was_paused = self.row.paused_since != 0;
        let now = system::now();
        self.row.note_pause(now.utc);
        if !(was_paused && self.row.is_paused()) {
            self.rests = Since::now(now);
        }
    }

    fn change(&mut self, last: Transfer) {
        if last.state != State::Moving {
            // It holds the whole list of files.
            self.attempt.progress = Arc::default();
        }
        if last.state != State::Offered {
            self.decision = None;
        }
        if last.state == State::Moving {
            // Whoever lets bytes flow has not paused.
            self.row.paused_there = false;
        }
        self.row.last = last;
        self.row.changed = system::utc().0;
        self.note_pause();
    }
}

impl Live {
    pub(crate) fn new(id: String, peer: kith_identity::Fingerprint, mut row: Row) -> Arc<Live> {
        let now = system::now();
        let rests = Since::wall(row.rest().0, now);
        if row.is_paused() && row.paused_since == 0 {
            row.paused_since = row.changed;
        }
        let limit = Limit::new(row.last.limit.and_then(Rate::new));
        Arc::new(Live {
            id,
            peer,
            cancel: CancellationToken::new(),
            turn: tokio::sync::Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            limit,
            writing: Mutex::default(),
            facts: Mutex::new(Facts {
                row,
                rests,
                attempt: Attempt::default(),
                began: None,
                decision: None,
                watched: false,
                cancelled_by: None,
                is_unsaved: false,
            }),
            changes: watch::Sender::new(0),
            seen: watch::Sender::new(0),
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

    /// Has its row written as it stands when its turn has come, so that what is written last is what stood last.
    pub(crate) fn write_row<E>(&self, write: impl FnOnce(&Row) -> Result<(), E>) -> Result<(), E> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = write(&self.row());
        self.set_unsaved(written.is_err());
        written
    }

    /// Whether its row is to be written once more: the disk has refused it.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.facts().is_unsaved
    }

    /// Says whether its row is to be written once more.
    pub(crate) fn set_unsaved(&self, is_unsaved: bool) {
        self.facts().is_unsaved = is_unsaved;
    }

    /// Begins with a new connection; the one before it ends. It ends at once where a person has paused the transfer.
    pub(crate) fn begin(&self) -> Attempt {
        let attempt = Attempt { progress: Arc::default(), cancel: self.cancel.child_token().into() };
        let before = {
            let mut facts = self.facts();
            if facts.row.paused_here {
                attempt.cancel.cancel(AbortReason::Paused);
            }
            std::mem::replace(&mut facts.attempt, attempt.clone())
        };
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
        self.enter_until(state, None, None);
    }

    /// Lost its connection, or was paused: where it rests.
    pub(crate) fn enter_rest(&self) {
        self.enter(if self.is_paused() { State::Paused } else { State::Interrupted });
    }

    /// Moves to a state that lasts until a certain time at most, because of `waiting_for`.
    pub(crate) fn enter_until(&self, state: State, until: Option<Timestamp>, waiting_for: Option<String>) {
        {
            let mut facts = self.facts();
            if state == State::Moving && facts.began.is_none() {
                facts.began = Some(system::time());
            }
            let until = until.map(|until| until.to_string());
            let last = Transfer { state, until, waiting_for, ..facts.snapshot() };
            facts.change(last);
        }
        self.tell();
    }

    /// Whether somebody has paused it.
    pub(crate) fn is_paused(&self) -> bool {
        let facts = self.facts();
        facts.row.paused_here || facts.row.paused_there
    }

    /// Whether a person has paused it here.
    pub(crate) fn is_paused_here(&self) -> bool {
        self.facts().row.paused_here
    }

    /// Pauses it, unless it has ended; its connection ends. Whether that changed anything.
    pub(crate) fn pause(&self, by: By) -> bool {
        let attempt = {
            let mut facts = self.facts();
            let row = &mut facts.row;
            let flag = if by == By::Here { &mut row.paused_here } else { &mut row.paused_there };
            if row.last.state.is_final() || std::mem::replace(flag, true) {
                return false;
            }
            let last = Transfer { state: State::Paused, until: None, waiting_for: None, ..facts.snapshot() };
            let attempt = facts.attempt.clone();
            facts.change(last);
            attempt
        };
        attempt.cancel.cancel(AbortReason::Paused);
        self.tell();
        true
    }

    /// Takes a pause back; it goes on once nobody pauses it any more. Whether that changed anything.
    pub(crate) fn resume(&self, by: By) -> bool {
        {
            let mut facts = self.facts();
            let row = &mut facts.row;
            let flag = if by == By::Here { &mut row.paused_here } else { &mut row.paused_there };
            if !std::mem::replace(flag, false) {
                return false;
            }
            facts.note_pause();
            let row = &mut facts.row;
            if !row.paused_here && !row.paused_there && row.last.state == State::Paused {
                let last = Transfer { state: State::Interrupted, ..facts.snapshot() };
                facts.change(last);
            }
        }
        self.tell();
        true
    }

    /// For how long it may stay paused.
    pub(crate) fn pause_left(&self, now: Time) -> Span {
        let facts = self.facts();
        match facts.row.is_paused() {
            true => Span(Span::secs(PAUSED_SECS).0.saturating_sub(facts.rests.age(now).0)),
            false => Span::secs(PAUSED_SECS),
        }
    }

    /// Whether an incoming transfer that did not end well has shown no sign of life for too long.
    pub(crate) fn is_given_up(&self, now: Time) -> bool {
        let facts = self.facts();
        let (_, kept) = facts.row.rest();
        facts.row.leaves_parts() && facts.rests.age(now) > Span::secs(kept)
    }

    /// Whether it was cancelled here and the contact has not heard of it.
    pub(crate) fn is_untold(&self) -> bool {
        self.facts().row.untold
    }

    /// For how long the contact is to be told yet that it was cancelled here.
    pub(crate) fn tell_left(&self, now: Timestamp) -> Span {
        self.facts().row.tell_left(now)
    }

    /// The contact knows how it stands.
    pub(crate) fn told(&self) {
        self.facts().row.untold = false;
    }

    /// Gives it its own limit, or none.
    pub(crate) fn set_limit(&self, rate: Option<Rate>) {
        self.limit.set(rate);
        self.update(|row| row.last.limit = rate.map(Rate::bytes_per_second));
    }

    /// Ends it, at somebody's wish.
    pub(crate) fn cancel_by(&self, by: By) {
        {
            let mut facts = self.facts();
            facts.cancelled_by.get_or_insert(by);
            let row = &mut facts.row;
            // A contact that was never reached has nothing to hear.
            let is_known_there = matches!(row.job, Job::In { .. }) || row.last.transport.is_some();
            if by == By::Here && !row.last.state.is_final() {
                row.cancelled = true;
                if is_known_there {
                    row.note_untold(system::utc());
                }
            }
        }
        self.cancel.cancel();
    }

    /// What is said of a transfer that somebody wished to end.
    pub(crate) fn cancelled(&self) -> Failure {
        let facts = self.facts();
        match facts.cancelled_by {
            Some(By::Contact) => Failure::failed(format!("{} cancelled it", facts.row.last.contact)),
            _ => Failure::failed("cancelled"),
        }
    }

    /// The contact gave a sign of life.
    pub(crate) fn saw(&self) {
        self.seen.send_modify(|count| *count += 1);
    }

    /// Signs of life of the contact from now on.
    pub(crate) fn sightings(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }

    /// Ends because its time is over.
    pub(crate) fn expire(&self, failure: Failure) {
        self.end_as(State::Expired, Err(failure));
    }

    /// Ends it: well, with what came out, or with the failure.
    pub(crate) fn end(&self, outcome: Result<Transferred, Failure>) {
        self.end_as(State::Failed, outcome);
    }

    /// Ends it; `badly` is the state that goes with a failure.
    fn end_as(&self, badly: State, outcome: Result<Transferred, Failure>) {
        {
            let mut facts = self.facts();
            let mut last = facts.snapshot();
            last.failure = outcome.map(|transferred| transferred.write_into(&mut last)).err();
            last.state = if last.failure.is_some() { badly } else { State::Done };
            (last.paused_by, last.until, last.waiting_for) = (None, None, None);
            last.done = last.failure.is_none();
            // What has ended is paused no more, and is not answered so.
            (facts.row.paused_here, facts.row.paused_there) = (false, false);
            facts.row.untold &= !last.done;
            facts.change(last);
        }
        self.tell();
    }

    /// Notes that it is alive, where that was noted longer ago than `secs`; whether it was.
    pub(crate) fn note_life(&self, now: Timestamp, secs: u64) -> bool {
        let mut facts = self.facts();
        let is_old = now.secs_since(Timestamp(facts.row.changed)) >= secs;
        if is_old {
            facts.row.changed = now.0;
        }
        is_old
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

    /// Claims it for one `receive` command, until `released` is told; `None` where another follows it.
    pub(crate) fn follow(self: &Arc<Self>, released: &watch::Sender<()>) -> Option<Follower> {
        let mut facts = self.facts();
        if std::mem::replace(&mut facts.watched, true) {
            return None;
        }
        Some(Follower { live: Arc::clone(self), released: released.clone() })
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
pub(crate) struct Follower {
    live: Arc<Live>,
    released: watch::Sender<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.live.facts().watched = false;
        self.released.send_replace(());
    }
}

/// The transfer's events: one document now, one at each change, one each [`TICK`] while bytes move, the last at
/// its end.
pub(crate) fn events(live: Arc<Live>) -> impl Stream<Item = Result<Value, Failure>> + Send + 'static {
    let changes = live.changes();
    futures_util::stream::unfold((live, changes, None::<State>), |(live, mut changes, last)| async move {
        let transfer = match last {
            None => live.snapshot(),
            Some(state) if state.is_final() => return None,
            Some(_) => live.next_change(&mut changes).await,
        };
        let value = serde_json::to_value(&transfer).map_err(Failure::failed);
        Some((value, (live, changes, Some(transfer.state))))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::node::transfers::orders::blank;

    pub(in crate::node::transfers) fn incoming() -> Arc<Live> {
        let peer = kith_identity::Fingerprint::from_bytes([7; 32]);
        let job = Job::In {
            into: "/inbox".to_owned(),
            overwrite: false,
            digest: String::new(),
            staging: String::new(),
        };
        let last = blank("1", "in", "north", State::Interrupted);
        let row = Row::new(&peer, job, Timestamp(0), last);
        Live::new("1".to_owned(), peer, row)
    }

    #[test]
    fn of_two_who_write_its_row_the_last_one_writes_how_it_stands() {
        use std::sync::mpsc;
        use std::time::Duration;

        let live = incoming();
        let (written, on_disk) = mpsc::channel();
        let told = live.write_row(|row| {
            // It changes while the disk takes its time, and that is written too.
            live.pause(By::Here);
            let (other, later) = (Arc::clone(&live), written.clone());
            let (done, is_done) = mpsc::channel();
            std::thread::spawn(move || {
                other.write_row(|row| later.send(row.paused_here)).unwrap();
                done.send(())
            });
            assert!(is_done.recv_timeout(Duration::from_millis(100)).is_err(), "one after the other");
            written.send(row.paused_here)
        });
        told.unwrap();
        let rows: Vec<_> = on_disk.iter().take(2).collect();
        assert_eq!(rows, [false, true]);
    }

    #[test]
    fn what_has_ended_is_paused_no_more() {
        let live = incoming();
        assert!(live.pause(By::Here) && live.pause(By::Contact));
        live.end(Err(live.cancelled()));
        let row = live.row();
        assert!(!live.is_paused() && !row.paused_here && !row.paused_there);
        assert!(!live.pause(By::Contact));
    }
}
