//! What the two nodes of a transfer tell each other while no stream carries it.

use std::sync::Arc;
use std::time::Duration;

use kith_connect::Stream;
use kith_identity::Fingerprint;
use kith_sansio::{Span, system};
use kith_transfer::{Notice, Standing, TransferId};

use super::journal::Job;
use super::live::{By, Live};
use super::{PROTOCOL, incoming, outgoing};
use crate::api::shapes::State;
use crate::node::Node;

/// How long a notice is tried; the next offer tells the same.
const TRYING: Span = Span::secs(600);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How a transfer stands here.
fn standing(live: &Live) -> Standing {
    match live.state() {
        // Somebody has ended it, though the state may not say so yet.
        state if state.is_final() || live.cancel.is_cancelled() => Standing::Over,
        _ if live.is_paused_here() => Standing::Paused,
        _ => Standing::Going,
    }
}

/// Tells the contact how the transfer stands here, in the background, as soon as it can be reached.
pub(super) fn tell(node: &Arc<Node>, live: &Arc<Live>) {
    let (node, live) = (Arc::clone(node), Arc::clone(live));
    let tracker = node.tasks.clone();
    tracker.spawn(async move {
        let stopped = node.stopped.clone();
        tokio::select! {
            () = telling(&node, &live) => {}
            () = stopped.cancelled() => {}
        }
    });
}

async fn telling(node: &Arc<Node>, live: &Arc<Live>) {
    // One after the other, and each says how it stands when its turn has come.
    let _turn = live.telling.lock().await;
    let give_up = system::time() + TRYING;
    let mut pause = Duration::from_secs(1);
    let mut seen = live.sightings();
    while system::time() < give_up && node.book.contact_of(&live.peer).is_some() {
        if let Ok(stream) = node.endpoint.connect(&live.peer, &PROTOCOL).await {
            match kith_transfer::notify(stream, outgoing::id(&live.id), standing(live)).await {
                Ok(theirs) => return heard(node, live, theirs, false).await,
                Err(error) => tracing::debug!(%error, "a notice was not taken"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = seen.changed() => tokio::time::sleep(Duration::from_secs(1)).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A contact tells how a transfer stands there: takes note, and answers.
pub(super) async fn answer(node: &Arc<Node>, peer: Fingerprint, notice: Notice, stream: Stream) {
    let id = TransferId(notice.id);
    let known = node.transfers.find(&id.to_string()).ok().filter(|live| live.peer == peer);
    let own = match &known {
        Some(live) => {
            heard(node, live, notice.standing, true).await;
            standing(live)
        }
        None => Standing::Over,
    };
    if let Err(error) = kith_transfer::answer(stream, id, own).await {
        tracing::debug!(%error, "a notice was not answered");
    }
}

/// Takes note of how a transfer stands at the contact. What is only an answer ends no outgoing one: a contact that knows
/// nothing of it may still be offered it.
async fn heard(node: &Arc<Node>, live: &Arc<Live>, theirs: Standing, is_notice: bool) {
    let is_incoming = matches!(live.job(), Job::In { .. });
    let changed = match theirs {
        Standing::Paused => live.pause(By::Contact),
        Standing::Going => live.resume(By::Contact),
        Standing::Over if live.state().is_final() || live.state() == State::Moving => false,
        Standing::Over if is_notice || is_incoming => {
            live.cancel_by(By::Contact);
            let _logged = incoming::cancel_sleeping(node, live).await;
            false
        }
        _ => false,
    };
    live.saw();
    if changed {
        let _logged = node.transfers.record(live).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::transfers::live::tests::incoming;

    #[test]
    fn what_was_cancelled_is_told_to_be_over() {
        let live = incoming();
        assert_eq!(standing(&live), Standing::Going);
        live.pause(By::Here);
        assert_eq!(standing(&live), Standing::Paused);
        live.cancel_by(By::Here);
        assert_eq!(standing(&live), Standing::Over);
    }
}
