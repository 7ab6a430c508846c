//! Transfers from here to a contact.

use std::sync::Arc;
use std::time::Duration;

use kith_connect::delegator::Opener;
use kith_connect::{PathInfo, PathWatch, Stream, Via};
use kith_sansio::{Span, Time, Timestamp, system};
use kith_transfer::{
    AbortReason, Cancel, Gate, LocalOffer, Paced, Refusal, SendError, SendOptions, Skipped, Summary,
    TransferId, answer_within,
};

use super::course::{Course, patience_left};
use super::journal::Job;
use super::lanes::Offered;
use super::live::{Attempt, By, Live, Transferred};
use super::missed::Missed;
use super::orders::MAX_WAIT_MS;
use super::{MAX_LISTED, PROTOCOL};
use crate::api::shapes::{FailedFile, NewTransfer, State, Transfer};
use crate::failure::{Failure, Result, chain};
use crate::node::{Node, connect};

/// How long an offer that is out waits for an answer, where the order does not say.
pub(super) const ACCEPT_WITHIN: Span = Span::secs(600);
/// A contact that is reached within this time gets what was read before.
const QUICK: Span = Span::secs(1);
/// How often it is looked how a transfer goes.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Another way is not worth it for less than this share of what has moved: both sides read that once more.
const WORTH: u64 = 8;
/// How often a contact that has paused a transfer is asked whether it goes on.
const ASKING: Duration = Duration::from_secs(600);

/// Runs the transfer to its end, in the background.
pub(super) fn spawn(node: &Arc<Node>, live: &Arc<Live>) {
    let (node, live) = (Arc::clone(node), Arc::clone(live));
    let tracker = node.tasks.clone();
    tracker.spawn(async move {
        let outcome = tokio::select! {
            outcome = run(&node, &live) => outcome,
            // The journal keeps it; the next start goes on with it.
            () = node.stopped.cancelled() => return,
        };
        match outcome {
            Ok(summary) => live.end(Ok(Transferred(summary))),
            Err(Ended::Expired(failure)) => live.expire(failure),
            Err(Ended::Failed(failure)) => live.end(Err(failure)),
        }
        let _ = node.transfers.record(&live).await;
    });
}

/// Why a transfer ended without success.
enum Ended {
    Failed(Failure),
    /// Its time was over.
    Expired(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::Failed(failure)
    }
}

/// What came of one attempt.
enum Outcome {
    Done(Summary),
    /// Somebody has paused it.
    Paused,
    /// Again after so long.
    Again(Duration),
    /// The contact has no room for it: again after so long.
    Busy(Duration),
}

/// What is offered, a connection for it, and its place among the offers.
struct Ready {
    offer: LocalOffer,
    stream: Stream,
    place: Offered,
}

/// A transfer that is being tried.
struct Run<'a> {
    node: &'a Arc<Node>,
    live: &'a Arc<Live>,
    order: NewTransfer,
    via: Via,
    accept_within: Span,
    /// How long this offer may wait for an answer, which is less where it is a large one.
    within: Span,
    course: Course,
    /// The last attempt ended because there is a better way.
    changes_ways: bool,
}

async fn run(node: &Arc<Node>, live: &Arc<Live>) -> std::result::Result<Summary, Ended> {
    let Job::Out { order } = live.job() else {
        return Err(Failure::failed("the journal row of this transfer is not of an outgoing one").into());
    };
    let via = connect::via(order.via.as_deref())?;
    let given = Span::millis(order.wait_ms.min(MAX_WAIT_MS));
    let patience = match live.state() {
        State::Connecting => given,
        // Another run of the node had begun with it.
        _ => patience_left(Timestamp(live.row().until), given, system::utc()),
    };
    let accept_within = order.accept_ms.map_or(ACCEPT_WITHIN, Span::millis);
    let course = Course::new(system::time(), patience);
    let within = accept_within;
    let mut run = Run { node, live, order, via, accept_within, within, course, changes_ways: false };
    loop {
        if live.is_paused() {
            run.sleep_while_paused().await?;
        }
        match run.attempt().await? {
            Outcome::Done(summary) => return Ok(summary),
            Outcome::Paused => live.enter_rest(),
            Outcome::Again(pause) => rest(live, pause).await?,
            Outcome::Busy(pause) => rest_while_busy(live, pause).await?,
        }
    }
}

impl Run<'_> {
    /// Waits until nobody pauses it any more. A contact that has paused it is asked now and then: its word that it goes
    /// on may have been lost.
    async fn sleep_while_paused(&mut self) -> std::result::Result<(), Ended> {
        let live = self.live;
        live.enter_rest();
        let _logged = self.node.transfers.record(live).await;
        let mut changes = live.changes();
        while live.is_paused() {
            let ask = async {
                match live.is_paused_here() {
                    true => tokio::time::sleep(Duration::from_secs(3_600)).await,
                    false => tokio::time::sleep(ASKING).await,
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = ask => if !live.is_paused_here() { break },
                () = live.cancel.cancelled() => return Err(live.cancelled().into()),
            }
            if live.pause_left(system::time()) == Span::ZERO {
                return Err(Ended::Expired(Failure::failed("it was paused for 30 days")));
            }
        }
        self.course.resumed(system::time());
        Ok(())
    }

    /// Reads what is offered, reaches the contact, offers and sends.
    async fn attempt(&mut self) -> std::result::Result<Outcome, Ended> {
        let (node, live) = (self.node, self.live);
        let attempt = live.begin();
        let cancel = attempt.cancel.clone();
        let Some(Ready { offer, stream, place }) = self.ready(&cancel).await? else {
            return self.ended_here();
        };
        if note_path(live, &stream.path()) {
            // From now on there is somebody to tell when it is cancelled, also after a restart.
            let _logged = node.transfers.record(live).await;
        }
        self.within = answer_within(offer.offer().entries().len(), self.accept_within);
        let until = system::utc().plus_secs(self.within.as_secs());
        live.enter_until(State::Offered, Some(until), None);
        let sent = self.carry(stream, &offer, attempt, place).await;
        self.outcome(sent, &cancel).await
    }

    /// Reads what is offered and reaches the contact; `None` where the attempt was cancelled. The place comes first:
    /// whoever waits for one would hold a connection, and read what is another folder by then.
    async fn ready(&mut self, cancel: &Cancel) -> std::result::Result<Option<Ready>, Ended> {
        let (node, live) = (self.node, self.live);
        let Some(mut place) = self.place(cancel).await? else { return Ok(None) };
        let mut reading = node.transfers.offers.reading(&self.order.paths, self.course.unreached_at);
        let mut rounds = 0;
        loop {
            let offer = tokio::select! {
                read = reading.offer(&self.order.paths) => read?,
                // A large folder is read to its end all the same, for nobody.
                () = cancel.cancelled() => return Ok(None),
            };
            note_offer(live, &offer);
            let began = system::time();
            let Some((stream, kept)) = self.reach(cancel, place).await? else { return Ok(None) };
            // A contact that is always slow to reach is not connected to in a circle.
            let was_quick = system::time() - began < QUICK || rounds > 0;
            if was_quick && reading.is_fresh(self.course.unreached_at) {
                return Ok(Some(Ready { offer, stream, place: kept }));
            }
            // The folder may be another one by now.
            drop(stream);
            rounds += 1;
            place = kept;
            reading = node.transfers.offers.reading(&self.order.paths, system::time());
        }
    }

    /// A place for the offer, waited for as long as for the contact; `None` where the attempt was cancelled.
    async fn place(&self, cancel: &Cancel) -> std::result::Result<Option<Offered>, Ended> {
        let (lanes, live) = (&self.node.transfers.lanes, self.live);
        if let Some(place) = lanes.offer_now(live.peer) {
            return Ok(Some(place));
        }
        let give_up = self.course.place_until();
        live.enter_until(State::Waiting, Some(wall(give_up)), Some("other offers go out first".to_owned()));
        tokio::select! {
            place = lanes.offer(live.peer) => {
                live.enter(State::Connecting);
                Ok(Some(place))
            }
            () = tokio::time::sleep_until(system::instant(give_up).into()) => {
                let failure = Failure::failed("too many other offers waited for an answer all the time");
                Err(Ended::Expired(failure.hint("--wait gives it longer; 'kith transfer list' shows the others")))
            }
            () = cancel.cancelled() => Ok(None),
        }
    }

    async fn carry(
        &mut self,
        stream: Stream,
        offer: &LocalOffer,
        attempt: Attempt,
        place: Offered,
    ) -> std::result::Result<Summary, SendError> {
        let (node, live) = (self.node, self.live);
        let way = stream.watch_path();
        let stream = Paced::new(stream, vec![node.transfers.up.clone(), live.limit.clone()], Vec::new());
        let gate = Gate::new();
        let options =
            SendOptions { accept_within: self.within, gate: gate.clone(), ..SendOptions::new(id(&live.id)) };
        let Attempt { progress, cancel } = attempt.clone();
        let sending = kith_transfer::send(stream, offer, options, progress, cancel);
        tokio::pin!(sending);
        tokio::select! {
            outcome = &mut sending => return outcome,
            () = attempt.progress.accepted() => self.accepted().await,
        }
        let lane = match node.transfers.lanes.moving_now() {
            Some(lane) => lane,
            None => {
                live.enter_until(State::Waiting, None, Some("other transfers move first".to_owned()));
                tokio::select! {
                    outcome = &mut sending => return outcome,
                    lane = node.transfers.lanes.moving() => lane,
                }
            }
        };
        drop(place);
        live.enter_moving(&attempt);
        gate.open();
        let sent = tokio::select! {
            outcome = &mut sending => outcome,
            () = self.better_way(&way) => {
                // As much as was sent is not sent again.
                attempt.cancel.cancel(AbortReason::Stopping);
                let _what_was_under_way = sending.await;
                self.changes_ways = true;
                Err(SendError::Cancelled)
            }
        };
        drop(lane);
        sent
    }

    /// Notes how the transfer goes, until it goes over a relay while there is a direct way to the contact.
    async fn better_way(&mut self, way: &PathWatch) {
        let (node, live) = (self.node, self.live);
        loop {
            tokio::time::sleep(LOOK).await;
            note_path(live, &way.now());
            if way.now().relay.is_none() || !node.endpoint.has_direct_way(&live.peer, self.via) {
                continue;
            }
            let Transfer { bytes, total_bytes, .. } = live.snapshot();
            if total_bytes.saturating_sub(bytes) > bytes / WORTH
                && self.course.may_change_ways(system::time())
            {
                return;
            }
        }
    }

    /// The contact has taken the offer, so it pauses it no more, whenever the bytes move.
    async fn accepted(&mut self) {
        self.course.accepted();
        if self.live.resume(By::Contact) {
            let _logged = self.node.transfers.record(self.live).await;
        }
    }

    /// A person has paused it, or does not want it any more.
    fn ended_here(&self) -> std::result::Result<Outcome, Ended> {
        if self.live.cancel.is_cancelled() {
            return Err(self.live.cancelled().into());
        }
        Ok(Outcome::Paused)
    }

    async fn outcome(
        &mut self,
        sent: std::result::Result<Summary, SendError>,
        cancel: &Cancel,
    ) -> std::result::Result<Outcome, Ended> {
        let (live, now) = (self.live, system::time());
        let changes_ways = std::mem::take(&mut self.changes_ways);
        let error = match sent {
            Ok(summary) => return Ok(Outcome::Done(summary)),
            Err(_) if changes_ways && !live.cancel.is_cancelled() && !live.is_paused() => {
                live.enter_until(State::Interrupted, self.until(), None);
                return Ok(Outcome::Again(Duration::ZERO));
            }
            Err(_) if cancel.is_cancelled() => return self.ended_here(),
            Err(error) => error,
        };
        let again = match &error {
            error if error.is_paused() => {
                live.pause(By::Contact);
                return Ok(Outcome::Paused);
            }
            SendError::Refused(Refusal::Busy) => {
                let again = self.course.busy(now, self.accept_within);
                live.enter_until(State::Waiting, self.until(), Some("the contact is busy".to_owned()));
                again.map(Outcome::Busy)
            }
            SendError::Unanswered { .. } | SendError::Refused(Refusal::Unanswered) => {
                let failure = Failure::failed(format!("nobody accepted the offer within {}", self.within));
                let hint = match self.within < self.accept_within {
                    true => "an offer of more than 10000 names waits no longer; send it in parts",
                    false => "--accept-within gives them longer",
                };
                return Err(Ended::Expired(failure.hint(hint)));
            }
            error if error.is_connection_lost() => {
                tracing::info!(%error, "a transfer's connection was lost");
                let Transfer { state, bytes, resumed_bytes, .. } = live.snapshot();
                let again = self.course.lost(now, state == State::Moving && bytes > resumed_bytes);
                live.enter_until(State::Interrupted, self.until(), None);
                again.map(Outcome::Again)
            }
            _ => None,
        };
        again.ok_or_else(|| explain(live, &error).into())
    }

    /// When the contact is given up.
    fn until(&self) -> Option<Timestamp> {
        Some(wall(self.course.give_up))
    }

    /// Whether the contact may be reached now; an end where it may not be at all.
    fn is_allowed(&self) -> std::result::Result<bool, Ended> {
        let (book, peer) = (&self.node.book, &self.live.peer);
        if book.permits(Opener::Own, peer, &PROTOCOL) {
            return Ok(true);
        }
        let why = match book.is_blocked(peer) {
            true => "is blocked here",
            // After a start, a list that was in force before has to arrive again.
            false if book.delegated.is_awaited() => return Ok(false),
            false => "is no contact any more",
        };
        Err(Failure::not_trusted(format!("{} {why}", self.live.snapshot().contact)).into())
    }

    /// Connects, again and again until the time of the order is over; `None` where the attempt was cancelled. The place
    /// is given away while the contact is waited for.
    async fn reach(
        &mut self,
        cancel: &Cancel,
        place: Offered,
    ) -> std::result::Result<Option<(Stream, Offered)>, Ended> {
        let (node, live) = (self.node, self.live);
        let mut place = Some(place);
        loop {
            let held = match place.take() {
                Some(held) => held,
                None => match self.place(cancel).await? {
                    Some(held) => held,
                    None => return Ok(None),
                },
            };
            let missed = if self.is_allowed()? {
                let via = bulk(self.via);
                let connecting = async { node.endpoint.connect_with(&live.peer, &PROTOCOL, via).await };
                tokio::select! {
                    connected = connecting => match connected {
                        // It may have been reached without a trust that was there all the time.
                        Ok(_) if !self.is_allowed()? => Missed::Unlisted,
                        Ok(stream) => {
                            self.course.reached(system::time());
                            node.transfers.saw(&live.peer);
                            return Ok(Some((stream, held)));
                        }
                        Err(error) => Missed::Unreached(error),
                    },
                    () = cancel.cancelled() => return Ok(None),
                }
            } else {
                Missed::Unlisted
            };
            drop(held);
            if !missed.may_pass(node, live) {
                return Err(missed.explain(node, live).await.into());
            }
            let Some(pause) = self.course.unreached(system::time()) else {
                // What is paused waits for whoever has paused it, however long they are away.
                if live.is_paused() {
                    return Ok(None);
                }
                return Err(Ended::Expired(missed.explain(node, live).await));
            };
            let failure = missed.failure(node, live);
            if live.snapshot().waiting_for.as_deref() != Some(failure.error.as_str()) {
                live.enter_until(State::Waiting, self.until(), Some(failure.error));
            }
            tokio::select! {
                () = sleep_or_sign(live, pause) => {}
                () = cancel.cancelled() => return Ok(None),
            }
        }
    }
}

/// The time on the wall clock.
fn wall(time: Time) -> Timestamp {
    system::utc().plus_secs((time - system::time()).as_secs())
}

fn note_offer(live: &Live, offer: &LocalOffer) {
    live.update(|row| {
        row.last.skipped = offer.skipped().iter().take(MAX_LISTED).map(skipped).collect();
        row.last.unreadable = offer.unreadable();
        row.last.total_bytes = offer.offer().bytes();
        row.last.total_files = offer.offer().files().into();
    });
}

/// Waits, for a shorter time where the contact gives a sign of life.
async fn sleep_or_sign(live: &Live, pause: Duration) {
    let mut signs = live.sightings();
    let least = pause.min(Duration::from_secs(1));
    tokio::time::sleep(least).await;
    tokio::select! {
        () = tokio::time::sleep(pause - least) => {}
        _ = signs.changed() => {}
    }
}

fn skipped(skipped: &Skipped) -> FailedFile {
    FailedFile { path: skipped.path.display().to_string(), reason: skipped.why.to_owned() }
}

/// A folder that is not asked to take a certain transport takes the one that moves most.
fn bulk(via: Via) -> Via {
    if via == Via::Any { Via::Bulk } else { via }
}

/// Waits before the next attempt; a pause by a person is seen to after it.
async fn rest(live: &Live, pause: Duration) -> Result<()> {
    tokio::select! {
        () = sleep_or_sign(live, pause) => Ok(()),
        () = live.cancel.cancelled() => Err(live.cancelled()),
    }
}

/// Waits for room at a contact, whose signs of life say nothing about that; a pause by a person ends it.
async fn rest_while_busy(live: &Live, pause: Duration) -> Result<()> {
    let mut changes = live.changes();
    let paused = async { while !live.is_paused() && changes.changed().await.is_ok() {} };
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        () = paused => Ok(()),
        () = live.cancel.cancelled() => Err(live.cancelled()),
    }
}

/// Notes how the peer is reached; whether that is the first time.
pub(super) fn note_path(live: &Live, path: &PathInfo) -> bool {
    let (way, transport) = (if path.direct { "direct" } else { "relayed" }, path.transport.to_string());
    let before = live.snapshot();
    if before.path != way || before.transport.as_ref() != Some(&transport) {
        live.update(|row| {
            row.last.path = way.to_owned();
            row.last.transport = Some(transport);
        });
    }
    before.transport.is_none()
}

/// The transfer's id as the wire carries it; zeros for an id that is not of our making.
pub(super) fn id(text: &str) -> TransferId {
    text.parse().unwrap_or(TransferId([0; 16]))
}

fn explain(live: &Live, error: &SendError) -> Failure {
    let contact = live.snapshot().contact;
    match error {
        SendError::Refused(Refusal::Busy) => {
            Failure::failed(format!("{contact} is busy with this transfer, or with too many others"))
                .hint("try again when they have answered or received what you offered before")
        }
        SendError::Refused(_) => Failure::failed(format!("{contact} did not accept: {}", chain(error))),
        SendError::Cancelled => live.cancelled(),
        SendError::Aborted(AbortReason::Cancelled) => Failure::failed(format!("{contact} cancelled it")),
        _ => Failure::failed(format!("sending to {contact}: {}", chain(error))),
    }
}

#[cfg(test)]
mod tests;
