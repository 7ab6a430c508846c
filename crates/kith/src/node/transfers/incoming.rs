//! Transfers from a contact to here.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kith_connect::delegator::Opener;
use kith_connect::{PathWatch, Stream};
use kith_identity::Fingerprint;
use kith_sansio::{Span, system};
use kith_transfer::{AbortReason, IncomingOffer, Opening, Paced, ReceiveError, Refusal, Target};
use tokio::sync::RwLockReadGuard;

use super::journal::{Job, Row};
use super::live::{Attempt, By, Decision, Live, Transferred};
use super::notices;
use super::orders::blank;
use super::outgoing::{LOOK, note_path};
use super::{MAX_LISTED, PROTOCOL};
use crate::api::shapes::{State, Transfer};
use crate::failure::{Failure, Result, chain};
use crate::node::Node;

/// How long a peer may take to send its offer.
const OFFER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an older connection of the same transfer may take to end.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts to listen for offers. One that is cut off when the node stops stands in the journal: its peer comes back
/// when this node does.
pub(super) fn listen(node: &Arc<Node>) -> Result<()> {
    node.serve(PROTOCOL, |node, peer, stream| async move { handle(&node, peer, stream).await })
}

async fn handle(node: &Arc<Node>, peer: Fingerprint, mut stream: Stream) {
    let rooms = &node.transfers.rooms;
    let read = tokio::time::timeout(OFFER_TIMEOUT, rooms.read(&mut stream)).await;
    let offer = match read {
        Ok(Ok(Opening::Offer(offer))) => offer,
        Ok(Ok(Opening::Notice(notice))) => return notices::answer(node, peer, notice, stream).await,
        Ok(Err(error)) => return tracing::debug!(%error, "an offer was refused"),
        Err(_) => return tracing::debug!("an offer did not come within its time"),
    };
    let Some(_room) = rooms.keep(&offer) else {
        let _ = refuse(stream, Refusal::Busy).await;
        return tracing::debug!("an offer was refused: too many entries are held already");
    };
    let id = offer.id().to_string();
    let outcome = match node.transfers.find(&id) {
        Ok(known) if known.peer == peer => again(node, &known, offer, stream).await,
        Ok(_) => refuse(stream, Refusal::Declined).await,
        Err(_) => first_time(node, id, peer, offer, stream).await,
    };
    if let Err(failure) = outcome {
        tracing::debug!(%failure, "an incoming transfer ended");
    }
}

async fn refuse(stream: Stream, reason: Refusal) -> Result<()> {
    let refused = tokio::time::timeout(OFFER_TIMEOUT, kith_transfer::refuse(stream, reason)).await;
    refused.map_err(Failure::failed)?.map_err(Failure::failed)
}

/// A transfer that is known comes over a new connection.
async fn again(node: &Arc<Node>, known: &Arc<Live>, offer: IncomingOffer, stream: Stream) -> Result<()> {
    let Job::In { digest, .. } = known.job() else {
        return refuse(stream, Refusal::Declined).await;
    };
    if known.is_paused_here() && digest == digest_of(&offer) {
        // That it is offered means that the contact does not pause it.
        known.resume(By::Contact);
        return refuse(stream, Refusal::Paused).await;
    }
    // The node may have missed the end of the older connection: end it, then take over.
    let attempt = known.begin();
    let turn = tokio::time::timeout(HANDOVER_TIMEOUT, known.turn.lock()).await.map_err(Failure::failed)?;
    let keeping = node.transfers.keep().await;
    let (state, same) = (known.state(), digest == digest_of(&offer));
    if same && (state == State::Failed || known.cancel.is_cancelled()) {
        drop(keeping);
        return refuse(stream, Refusal::Declined).await;
    }
    if attempt.cancel.is_cancelled() && !known.cancel.is_cancelled() {
        return Err(Failure::failed("a newer connection carries this transfer"));
    }
    let Job::In { into, overwrite, staging, .. } = known.job() else { return Ok(()) };
    if into.is_empty() || !same {
        // What was accepted, if anything was, are other files; these are another question.
        if !state.is_final() {
            known.enter(State::Interrupted);
        }
        node.transfers.forget(known);
        drop((turn, keeping));
        return first_time(node, known.id.clone(), known.peer, offer, stream).await;
    }
    if !node.transfers.has_room_for(known) {
        drop(keeping);
        return refuse(stream, Refusal::Busy).await;
    }
    // What was received to its end is reported once more; it does not make what is there now replaceable.
    let overwrite = overwrite && state != State::Done;
    known.update(|row| {
        row.last.done = false;
        row.job = Job::In { into: into.clone(), overwrite, digest, staging: staging.clone() };
    });
    known.enter_moving(&attempt);
    let _followed_or_not = node.transfers.receivers.give(known);
    let place = Place { into: into.into(), overwrite, staging };
    take(node, known, Waiting { offer, stream }, attempt, place, keeping).await
}

fn digest_of(offer: &IncomingOffer) -> String {
    data_encoding::HEXLOWER.encode(&offer.offer().digest())
}

async fn first_time(
    node: &Arc<Node>,
    id: String,
    peer: Fingerprint,
    offer: IncomingOffer,
    stream: Stream,
) -> Result<()> {
    let live = offered(node, id, peer, &offer);
    if let Err(failure) = node.transfers.insert(&live) {
        refuse(stream, Refusal::Busy).await?;
        return Err(failure);
    }
    let _turn = live.turn.lock().await;
    let until = system::utc().plus_secs(offer.answer_within().as_secs());
    live.enter_until(State::Offered, Some(until), None);
    let attempt = live.begin();
    let mut waiting = Waiting { offer, stream };
    let (into, overwrite) = match decide(node, &live, &attempt, &mut waiting).await {
        Ok(Decision::Accept { into, overwrite }) => (into, overwrite),
        Ok(Decision::Decline) => {
            live.end(Err(Failure::failed("declined")));
            return refuse(waiting.stream, Refusal::Declined).await;
        }
        Err(gone) => return not_decided(node, &live, waiting.stream, gone).await,
    };
    let keeping = node.transfers.keep().await;
    let digest = digest_of(&waiting.offer);
    let staging = earlier(node, &live, &digest, &into).await.unwrap_or_else(|| live.id.clone());
    live.update(|row| {
        row.job = Job::In { into: into.clone(), overwrite, digest, staging: staging.clone() };
        row.last.into = Some(into.clone());
    });
    take(node, &live, waiting, attempt, Place { into: into.into(), overwrite, staging }, keeping).await
}

/// The transfer of an offer that nobody has answered yet.
fn offered(node: &Node, id: String, peer: Fingerprint, offer: &IncomingOffer) -> Arc<Live> {
    let names = offer.offer().top_names().take(MAX_LISTED);
    let from = node.book.name_for(&peer, Some((Opener::Peer, &PROTOCOL)));
    let last = Transfer {
        total_bytes: offer.offer().bytes(),
        total_files: offer.offer().files().into(),
        paths: names.map(|name| name.to_string_lossy().into_owned()).collect(),
        ..blank(&id, "in", &from, State::Offered)
    };
    let job =
        Job::In { into: String::new(), overwrite: false, digest: digest_of(offer), staging: id.clone() };
    let row = Row::new(&peer, job, system::utc(), last);
    Live::new(id, peer, row)
}

/// Nothing was promised: the same offer may come again.
async fn not_decided(node: &Arc<Node>, live: &Arc<Live>, stream: Stream, gone: Undecided) -> Result<()> {
    let (failure, reason) = match gone {
        Undecided::Lost(error) => {
            live.enter(State::Interrupted);
            node.transfers.forget(live);
            return Err(Failure::failed(error));
        }
        Undecided::Withdrawn => (Failure::failed("the sender took its offer back"), Refusal::Declined),
        Undecided::Late(within) => {
            (Failure::failed(format!("nobody accepted the offer within {within}")), Refusal::Unanswered)
        }
    };
    live.end(Err(failure.clone()));
    node.transfers.forget(live);
    let _ = refuse(stream, reason).await;
    Err(failure)
}

/// An offer with the stream that it came over.
struct Waiting {
    offer: IncomingOffer,
    stream: Stream,
}

/// Where an offer goes.
struct Place {
    into: PathBuf,
    overwrite: bool,
    /// Id of the transfer whose partial files are continued.
    staging: String,
}

/// Why an offer ended without a decision.
enum Undecided {
    /// Its connection ended, or a newer one took its place.
    Lost(String),
    Withdrawn,
    Late(Span),
}

/// Waits for a `receive` command or a person, as long as the sender does.
async fn decide(
    node: &Arc<Node>,
    live: &Arc<Live>,
    attempt: &Attempt,
    waiting: &mut Waiting,
) -> std::result::Result<Decision, Undecided> {
    let decision = live.await_decision();
    let within = waiting.offer.answer_within();
    if let Some(wish) = node.transfers.receivers.give(live)
        && wish.yes
    {
        // Where a person was faster, that decision stands.
        let _ = live.decide(Decision::Accept { into: wish.into, overwrite: wish.overwrite });
    }
    tokio::select! {
        biased;
        decided = decision => decided.map_err(|gone| Undecided::Lost(gone.to_string())),
        gone = waiting.offer.withdrawn(&mut waiting.stream) => Err(match gone {
            ReceiveError::Aborted(AbortReason::Paused) => Undecided::Lost("the sender has paused its offer".to_owned()),
            ReceiveError::Aborted(reason) if reason != AbortReason::Stopping => Undecided::Withdrawn,
            other => Undecided::Lost(chain(&other)),
        }),
        () = attempt.cancel.cancelled() => Err(match live.cancel.is_cancelled() {
            // Its own stream may be dead, and say nothing for long.
            true => Undecided::Withdrawn,
            false => Undecided::Lost("a newer connection carries the offer".to_owned()),
        }),
        () = tokio::time::sleep(within.into()) => Err(Undecided::Late(within)),
    }
}

/// An unfinished transfer of the same files, from the same contact, into the same folder: its partial files are
/// continued, and it ends.
async fn earlier(node: &Node, live: &Live, digest: &str, into: &str) -> Option<String> {
    let (other, staging) = node.transfers.list().into_iter().find_map(|other| {
        let unfinished = matches!(other.state(), State::Interrupted | State::Paused | State::Failed);
        match other.job() {
            Job::In { into: old_into, digest: old_digest, staging, .. }
                if unfinished && other.id != live.id && other.peer == live.peer =>
            {
                (old_digest == digest && old_into == into).then_some((other, staging))
            }
            _ => None,
        }
    })?;
    if !other.state().is_final() {
        other.end(Err(Failure::failed("a newer transfer goes on with its files")));
        let _logged = node.transfers.record(&other).await;
    }
    Some(staging)
}

async fn take(
    node: &Arc<Node>,
    live: &Arc<Live>,
    waiting: Waiting,
    attempt: Attempt,
    place: Place,
    keeping: RwLockReadGuard<'_, ()>,
) -> Result<()> {
    let Waiting { offer, stream } = waiting;
    let way = stream.watch_path();
    let _whoever_accepts_knows_it = note_path(live, &stream.path());
    live.enter_moving(&attempt);
    if let Err(failure) = node.transfers.record(live).await {
        live.end(Err(failure.clone()));
        drop(keeping);
        refuse(stream, Refusal::Storage).await?;
        return Err(failure);
    }
    drop(keeping);
    let staging = Some(super::outgoing::id(&place.staging));
    let target = Target { dir: place.into, overwrite: place.overwrite, staging };
    let stream = Paced::new(stream, Vec::new(), vec![node.transfers.down.clone(), live.limit.clone()]);
    let receiving = kith_transfer::receive(stream, offer, target, attempt.progress, attempt.cancel.clone());
    let outcome = tokio::select! {
        outcome = receiving => outcome,
        never = follow_path(live, &way) => match never {},
    };
    let goes_on = !live.cancel.is_cancelled();
    match outcome {
        Ok(summary) => live.end(Ok(Transferred(summary))),
        Err(error) if goes_on && error.is_paused() => {
            live.pause(By::Contact);
            live.enter_rest();
        }
        Err(error) if goes_on && (error.is_connection_lost() || attempt.cancel.is_cancelled()) => {
            tracing::info!(%error, "a transfer's connection was lost");
            live.enter_rest();
        }
        Err(ReceiveError::Cancelled) => live.end(Err(live.cancelled())),
        Err(error) => live.end(Err(explain(live, &error))),
    }
    node.transfers.record(live).await
}

/// Notes how a transfer goes, for as long as it does.
async fn follow_path(live: &Live, way: &PathWatch) -> Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        let _known_already = note_path(live, &way.now());
    }
}

fn explain(live: &Live, error: &kith_transfer::ReceiveError) -> Failure {
    let contact = live.snapshot().contact;
    if matches!(error, ReceiveError::Aborted(AbortReason::Cancelled)) {
        return Failure::failed(format!("{contact} cancelled it"));
    }
    let failure = Failure::failed(format!("receiving from {contact}: {}", chain(error)));
    if matches!(error, ReceiveError::DiskFull { .. } | ReceiveError::NoSpace { .. }) {
        return failure.hint("make room and let the sender send again: what arrived is kept");
    }
    failure
}

/// Ends an incoming transfer that has no connection at the moment.
pub(super) async fn cancel_sleeping(node: &Arc<Node>, live: &Arc<Live>) -> Result<()> {
    let sleeps = matches!(live.state(), State::Interrupted | State::Paused);
    if !sleeps || !matches!(live.job(), Job::In { .. }) {
        return Ok(());
    }
    live.end(Err(live.cancelled()));
    node.transfers.record(live).await
}
