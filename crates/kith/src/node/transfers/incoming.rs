//! Transfers from a contact to here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kith_connect::{Admission, Peer, Stream};
use kith_identity::Fingerprint;
use kith_sansio::system;
use kith_transfer::{IncomingOffer, Limits, ReceiveError, Refusal, Target};

use super::journal::{Job, Row};
use super::live::{Decision, Live, Transferred};
use super::outgoing::{blank, note_path};
use super::{MAX_LISTED, MAX_PENDING_PER_CONTACT, PROTOCOL};
use crate::api::shapes::{State, Transfer};
use crate::failure::{Failure, Result, chain};
use crate::node::Node;

/// How long a peer may take to send its offer.
const OFFER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an offer waits for a decision.
const DECISION_TIMEOUT: Duration = Duration::from_secs(600);
/// How long an older connection of the same transfer may take to end.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts to listen for offers.
pub(super) fn listen(node: &Arc<Node>) -> Result<()> {
    let mut incoming = node.endpoint.listen(PROTOCOL, Admission::Contacts).map_err(Failure::failed)?;
    let node = Arc::clone(node);
    let tracker = node.tasks.clone();
    tracker.spawn(async move {
        loop {
            let next = tokio::select! {
                next = incoming.next() => next,
                () = node.stopped.cancelled() => None,
            };
            let Some((peer, stream)) = next else { return };
            let Peer::Known(peer) = peer else { continue };
            let node = Arc::clone(&node);
            node.tasks.clone().spawn(async move {
                tokio::select! {
                    () = handle(&node, peer, stream) => {}
                    // The journal keeps it; the peer comes back when this node does.
                    () = node.stopped.cancelled() => {}
                }
            });
        }
    });
    Ok(())
}

async fn handle(node: &Arc<Node>, peer: Fingerprint, mut stream: Stream) {
    let read =
        tokio::time::timeout(OFFER_TIMEOUT, kith_transfer::read_offer(&mut stream, &Limits::default())).await;
    let offer = match read {
        Ok(Ok(offer)) => offer,
        Ok(Err(error)) => return tracing::debug!(%error, "an offer was refused"),
        Err(_) => return tracing::debug!("an offer did not come within its time"),
    };
    let id = offer.id().to_string();
    let outcome = match node.transfers.find(&id) {
        Ok(known) if known.peer == peer && is_the_same(&known, &offer) => {
            again(node, &known, offer, stream).await
        }
        // What was accepted was these files; others under the same id are another question.
        Ok(known) if known.peer == peer && known.state() != State::Moving => {
            first_time(node, id, peer, offer, stream).await
        }
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

fn digest(offer: &IncomingOffer) -> String {
    data_encoding::HEXLOWER.encode(&offer.offer().digest())
}

/// Whether the offer is of the very files that were offered before.
fn is_the_same(known: &Live, offer: &IncomingOffer) -> bool {
    matches!(known.job(), Job::In { digest: accepted, .. } if accepted == digest(offer))
}

/// A transfer that was accepted before and comes back after its connection was lost.
async fn again(node: &Arc<Node>, known: &Arc<Live>, offer: IncomingOffer, stream: Stream) -> Result<()> {
    let Job::In { into, overwrite, staging, .. } = known.job() else {
        return refuse(stream, Refusal::Declined).await;
    };
    if into.is_empty() || known.state() == State::Failed {
        return refuse(stream, Refusal::Declined).await;
    }
    // The node may have missed the end of the older connection: end it, then take over.
    if known.state() == State::Moving {
        let mut changes = known.changes();
        known.begin();
        let gone =
            tokio::time::timeout(HANDOVER_TIMEOUT, changes.wait_for(|_| known.state() != State::Moving));
        gone.await.map_err(Failure::failed)?.map_err(Failure::failed)?;
    }
    known.update(|row| row.last.done = false);
    take(node, known, offer, stream, PathBuf::from(into), overwrite, &staging).await
}

async fn first_time(
    node: &Arc<Node>,
    id: String,
    peer: Fingerprint,
    offer: IncomingOffer,
    stream: Stream,
) -> Result<()> {
    let pending = node.transfers.list().iter().filter(|live| live.peer == peer && live.is_pending()).count();
    if pending >= MAX_PENDING_PER_CONTACT {
        return refuse(stream, Refusal::Busy).await;
    }
    let last = Transfer {
        total_bytes: offer.offer().bytes(),
        total_files: offer.offer().files().into(),
        paths: offer
            .offer()
            .top_names()
            .take(MAX_LISTED)
            .map(|name| name.to_string_lossy().into_owned())
            .collect(),
        ..blank(&id, "in", &node.book.name_of(&peer), State::Offered)
    };
    let digest = digest(&offer);
    let job = Job::In { into: String::new(), overwrite: false, digest: digest.clone(), staging: id.clone() };
    let row = Row { peer: peer.to_string(), job, changed: system::utc().0, reported: false, last };
    let live = Live::new(id, peer, row);
    node.transfers.insert(&live)?;
    let mut waiting = Waiting { offer, stream };
    let decision = match decide(node, &live, &mut waiting).await {
        Ok(decision) => decision,
        Err(failure) => {
            live.end(Err(failure.clone()));
            // Nothing was promised: the same offer may come again.
            node.transfers.forget(&live);
            let _ = refuse(waiting.stream, Refusal::Declined).await;
            return Err(failure);
        }
    };
    let Waiting { offer, stream } = waiting;
    let Decision::Accept { into, overwrite } = decision else {
        live.end(Err(Failure::failed("declined")));
        return refuse(stream, Refusal::Declined).await;
    };
    let staging = earlier(node, &live, &digest, &into).unwrap_or_else(|| live.id.clone());
    live.update(|row| {
        row.job = Job::In { into: into.clone(), overwrite, digest, staging: staging.clone() };
        row.last.into = Some(into.clone());
    });
    take(node, &live, offer, stream, PathBuf::from(into), overwrite, &staging).await
}

/// An offer with the stream that it came over.
struct Waiting {
    offer: IncomingOffer,
    stream: Stream,
}

/// Waits for a `receive` command or a person, as long as the sender does.
async fn decide(node: &Arc<Node>, live: &Arc<Live>, waiting: &mut Waiting) -> Result<Decision> {
    let decision = live.await_decision();
    if let Some(wish) = node.transfers.receivers.give(live)
        && wish.yes
    {
        live.decide(Decision::Accept { into: wish.into, overwrite: wish.overwrite })?;
    }
    tokio::select! {
        biased;
        decided = decision => decided.map_err(Failure::failed),
        gone = waiting.offer.withdrawn(&mut waiting.stream) => Err(match gone {
            ReceiveError::Aborted(_) => Failure::failed("the sender took its offer back"),
            other => Failure::failed(chain(&other)),
        }),
        () = tokio::time::sleep(DECISION_TIMEOUT) => Err(Failure::failed("nobody accepted the offer within 10m")),
    }
}

/// An unfinished transfer of the same files, from the same contact, into the same folder: its partial files
/// are continued.
fn earlier(node: &Node, live: &Live, digest: &str, into: &str) -> Option<String> {
    node.transfers.list().into_iter().find_map(|other| {
        let row = other.row();
        let unfinished = matches!(row.last.state, State::Interrupted | State::Failed);
        match row.job {
            Job::In { into: old_into, digest: old_digest, staging, .. }
                if unfinished && other.id != live.id && other.peer == live.peer =>
            {
                (old_digest == digest && old_into == into).then_some(staging)
            }
            _ => None,
        }
    })
}

async fn take(
    node: &Arc<Node>,
    live: &Arc<Live>,
    offer: IncomingOffer,
    stream: Stream,
    into: PathBuf,
    overwrite: bool,
    staging: &str,
) -> Result<()> {
    note_path(live, &stream);
    let attempt = live.begin();
    live.enter(State::Moving);
    node.transfers.record(live).await?;
    let target = Target { dir: into, overwrite, staging: Some(super::outgoing::id(staging)) };
    let outcome =
        kith_transfer::receive(stream, offer, target, attempt.progress, attempt.cancel.clone()).await;
    let goes_on = !live.cancel.is_cancelled();
    match outcome {
        Ok(summary) => live.end(Ok(Transferred(summary))),
        Err(error) if goes_on && (error.is_connection_lost() || attempt.cancel.is_cancelled()) => {
            tracing::info!(%error, "a transfer's connection was lost");
            live.enter(State::Interrupted);
        }
        Err(error) => live.end(Err(explain(live, &error))),
    }
    node.transfers.record(live).await
}

fn explain(live: &Live, error: &kith_transfer::ReceiveError) -> Failure {
    let failure = Failure::failed(format!("receiving from {}: {}", live.snapshot().contact, chain(error)));
    if matches!(error, ReceiveError::DiskFull { .. } | ReceiveError::NoSpace { .. }) {
        return failure.hint("make room and let the sender send again: what arrived is kept");
    }
    failure
}

/// Ends an incoming transfer that has no connection at the moment.
pub(super) async fn cancel_sleeping(node: &Arc<Node>, live: &Arc<Live>) -> Result<()> {
    if live.state() != State::Interrupted || !matches!(live.job(), Job::In { .. }) {
        return Ok(());
    }
    live.end(Err(Failure::failed("cancelled")));
    node.transfers.record(live).await
}
