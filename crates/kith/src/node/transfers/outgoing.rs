//! Transfers from here to a contact.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kith_connect::{Stream, Via};
use kith_identity::Fingerprint;
use kith_sansio::{Rng, Span, Time, system};
use kith_transfer::{LocalOffer, Offer, Refusal, SendError, SendOptions, Skipped, Summary, TransferId};

use super::journal::{Job, Row};
use super::live::{Live, Transferred};
use super::{MAX_LISTED, PROTOCOL};
use crate::api::shapes::{FailedFile, NewTransfer, Started, State, Transfer};
use crate::failure::{Failure, Result, chain};
use crate::node::{Node, connect};

/// How long a transfer that was accepted waits for a lost contact to come back.
const COMING_BACK: Span = Span::secs(600);
/// Nobody waits longer than a year, in milliseconds.
const MAX_WAIT_MS: u64 = 365 * 86_400_000;
/// The pause before a second attempt; it grows with each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// Begins a transfer, or finds the same one under way.
pub(super) async fn start(node: &Arc<Node>, order: NewTransfer) -> Result<Started> {
    let contact = node.book.find(&order.to)?;
    connect::via(order.via.as_deref())?;
    refuse_own_home(node, &order)?;
    if let Some(live) = under_way(node, &order, &contact.ni.fingerprint) {
        return Ok(Started { id: live.id.clone(), attached: true });
    }
    let mut id = [0; 16];
    system::OsRng.fill(&mut id);
    let id = TransferId(id).to_string();
    let last = Transfer {
        paths: order.paths.clone(),
        ..blank(&id, "out", contact.name.as_str(), State::Connecting)
    };
    let peer = contact.ni.fingerprint;
    let row = Row {
        peer: peer.to_string(),
        job: Job::Out { order },
        changed: system::utc().0,
        reported: true,
        last,
    };
    let live = Live::new(id.clone(), peer, row);
    node.transfers.insert(&live)?;
    if let Err(failure) = node.transfers.record(&live).await {
        node.transfers.forget(&live);
        return Err(failure);
    }
    spawn(node, &live);
    Ok(Started { id, attached: false })
}

/// A folder that holds the home would hand over the private key.
fn refuse_own_home(node: &Node, order: &NewTransfer) -> Result<()> {
    let Ok(home) = node.home.dir().canonicalize() else { return Ok(()) };
    for path in &order.paths {
        // What cannot be resolved is told when it is read.
        let Ok(real) = Path::new(path).canonicalize() else { continue };
        if home.starts_with(&real) || real.starts_with(&home) {
            return Err(Failure::usage(format!("{path} holds this node's home with its private key"))
                .hint("send the other folders and files one by one"));
        }
    }
    Ok(())
}

fn under_way(node: &Node, order: &NewTransfer, peer: &Fingerprint) -> Option<Arc<Live>> {
    node.transfers.list().into_iter().find(|live| {
        let same = matches!(&live.job(), Job::Out { order: other } if other.paths == order.paths && other.via == order.via);
        same && live.peer == *peer && !live.state().is_final()
    })
}

/// A transfer of which nothing is known yet.
pub(super) fn blank(id: &str, direction: &str, contact: &str, state: State) -> Transfer {
    Transfer {
        id: id.to_owned(),
        direction: direction.to_owned(),
        contact: contact.to_owned(),
        state,
        done: false,
        bytes: 0,
        total_bytes: 0,
        resumed_bytes: 0,
        files: 0,
        total_files: 0,
        seconds: 0.0,
        path: "none".to_owned(),
        transport: None,
        into: None,
        paths: Vec::new(),
        failed: Vec::new(),
        failed_files: 0,
        skipped: Vec::new(),
        failure: None,
    }
}

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
        live.end(outcome.map(Transferred));
        let _ = node.transfers.record(&live).await;
    });
}

async fn run(node: &Arc<Node>, live: &Arc<Live>) -> Result<Summary> {
    let Job::Out { order } = live.job() else {
        return Err(Failure::failed("the journal row of this transfer is not of an outgoing one"));
    };
    let via = connect::via(order.via.as_deref())?;
    let paths: Vec<PathBuf> = order.paths.iter().map(PathBuf::from).collect();
    let read = tokio::task::spawn_blocking(move || Offer::from_paths(&paths));
    let read = tokio::select! {
        read = read => read.map_err(Failure::failed)?,
        // A large folder is read to its end all the same, for nobody.
        () = live.cancel.cancelled() => return Err(cancelled()),
    };
    let offer = read.map_err(|error| Failure::failed(chain(&error)))?;
    live.update(|row| {
        row.last.skipped = offer.skipped().iter().take(MAX_LISTED).map(skipped).collect();
        row.last.total_bytes = offer.offer().bytes();
        row.last.total_files = offer.offer().files().into();
    });
    let was_interrupted = live.state() == State::Interrupted;
    let patience = if was_interrupted { COMING_BACK } else { Span::millis(order.wait_ms.min(MAX_WAIT_MS)) };
    let mut give_up = system::time() + patience;
    let mut lost_in_vain = 0;
    loop {
        let stream = reach(node, live, via, give_up).await?;
        note_path(live, &stream);
        live.enter(State::Offered);
        match carry(live, stream, &offer).await {
            Ok(summary) => return Ok(summary),
            Err(error) if error.is_connection_lost() && !live.cancel.is_cancelled() => {
                tracing::info!(%error, "a transfer's connection was lost");
                // A peer that takes connections and drops them is not asked in a circle, nor for ever.
                let Transfer { state, bytes, resumed_bytes, .. } = live.snapshot();
                let moved = state == State::Moving && bytes > resumed_bytes;
                lost_in_vain = if moved { 0 } else { lost_in_vain + 1 };
                live.enter(State::Interrupted);
                if lost_in_vain <= 1 {
                    give_up = system::time() + COMING_BACK;
                } else if system::time() >= give_up {
                    return Err(explain(live, &error));
                }
                rest(live, PAUSE * 2u32.pow(lost_in_vain.min(5))).await?;
            }
            Err(error) => return Err(explain(live, &error)),
        }
    }
}

fn skipped(skipped: &Skipped) -> FailedFile {
    FailedFile { path: skipped.path.display().to_string(), reason: skipped.why.to_owned() }
}

/// A folder that is not asked to take a certain transport takes the one that moves most.
fn bulk(via: Via) -> Via {
    if via == Via::Any { Via::Bulk } else { via }
}

fn cancelled() -> Failure {
    Failure::failed("cancelled")
}

/// Waits before the next attempt.
async fn rest(live: &Live, pause: Duration) -> Result<()> {
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        () = live.cancel.cancelled() => Err(cancelled()),
    }
}

/// Connects, again and again until `give_up`.
async fn reach(node: &Arc<Node>, live: &Live, via: Via, give_up: Time) -> Result<Stream> {
    let mut pause = PAUSE;
    loop {
        if node.book.contact_of(&live.peer).is_none() {
            return Err(Failure::not_trusted(format!("{} is no contact any more", live.snapshot().contact)));
        }
        let protocol = PROTOCOL;
        let error = tokio::select! {
            connected = node.endpoint.connect_with(&live.peer, &protocol, bulk(via)) => match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            },
            () = live.cancel.cancelled() => return Err(cancelled()),
        };
        let hopeless = !connect::may_pass(&error);
        if hopeless || system::time() >= give_up {
            return Err(node.explain(&live.peer, &error).await);
        }
        rest(live, pause).await?;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Notes how the peer is reached.
pub(super) fn note_path(live: &Live, stream: &Stream) {
    let path = stream.path();
    live.update(|row| {
        row.last.path = "direct".to_owned();
        row.last.transport = Some(path.transport.to_string());
    });
}

async fn carry(
    live: &Arc<Live>,
    stream: Stream,
    offer: &LocalOffer,
) -> std::result::Result<Summary, SendError> {
    let options = SendOptions::new(id(&live.id));
    let attempt = live.begin();
    let accepted = Arc::clone(&attempt.progress);
    let sending = kith_transfer::send(stream, offer, options, attempt.progress, attempt.cancel);
    tokio::pin!(sending);
    tokio::select! {
        outcome = &mut sending => return outcome,
        () = accepted.accepted() => live.enter(State::Moving),
    }
    sending.await
}

/// The transfer's id as the wire carries it; zeros for an id that is not of our making.
pub(super) fn id(text: &str) -> TransferId {
    text.parse().unwrap_or(TransferId([0; 16]))
}

fn explain(live: &Live, error: &SendError) -> Failure {
    let contact = live.snapshot().contact;
    match error {
        // The protocol's own word for it is narrower than what this node's receivers use it for.
        SendError::Refused(Refusal::Busy) => {
            Failure::failed(format!("{contact} is busy with this transfer, or with too many others"))
                .hint("try again when they have answered or received what you offered before")
        }
        SendError::Refused(_) => Failure::failed(format!("{contact} did not accept: {}", chain(error))),
        SendError::Cancelled => cancelled(),
        _ => Failure::failed(format!("sending to {contact}: {}", chain(error))),
    }
}
