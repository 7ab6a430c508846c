//! What the two nodes of a transfer tell each other where no stream carries it, or not in time.

use std::sync::Arc;
use std::time::Duration;

use kith_connect::Stream;
use kith_connect::delegator::Opener;
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
/// The longest pause between two attempts, at first and later on.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE_LATER: Duration = Duration::from_secs(600);
/// How long an incoming transfer that was cancelled here may take to end: it may turn out to be there as a whole.
const ENDING: Duration = Duration::from_secs(5);

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
    let mut seen = live.sightings();
    let began = system::time();
    let mut told_until = None;
    let mut pause = Duration::from_secs(1);
    while node.book.permits(Opener::Own, &live.peer, &PROTOCOL) {
        if live.cancel.is_cancelled() && matches!(live.job(), Job::In { .. }) {
            let _it_hangs = tokio::time::timeout(ENDING, ended(live)).await;
        }
        let is_untold = live.is_untold();
        let over = standing(live) == Standing::Over;
        let now = system::now();
        let until = match is_untold {
            // No offer follows that would tell the end of a transfer, so that is tried for a week in all.
            true => *told_until.get_or_insert_with(|| now.time + live.tell_left(now.utc)),
            false => began + TRYING,
        };
        if is_untold && now.time >= until {
            return told(node, live).await;
        }
        // An end that nobody here has wished for was told by its own stream, or will be in answer to an offer.
        if over && !is_untold || now.time >= until {
            return;
        }
        if let Ok(stream) = node.endpoint.connect(&live.peer, &PROTOCOL).await {
            match kith_transfer::notify(stream, outgoing::id(&live.id), standing(live)).await {
                Ok(theirs) => {
                    if over {
                        told(node, live).await;
                    }
                    return heard(node, live, theirs, false).await;
                }
                Err(error) => tracing::debug!(%error, "a notice was not taken"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = seen.changed() => tokio::time::sleep(Duration::from_secs(1)).await,
        }
        let is_early = system::time() < began + TRYING;
        pause = (pause * 2).min(if is_early { LONGEST_PAUSE } else { LONGEST_PAUSE_LATER });
    }
}

async fn ended(live: &Live) {
    let mut changes = live.changes();
    while !live.state().is_final() && changes.changed().await.is_ok() {}
}

/// The contact has heard that it is over, or will not.
async fn told(node: &Arc<Node>, live: &Arc<Live>) {
    live.told();
    // What was forgotten meanwhile stays so.
    if node.transfers.find(&live.id).is_ok_and(|known| Arc::ptr_eq(&known, live)) {
        let _logged = node.transfers.record(live).await;
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
        Standing::Over if live.state().is_final() => false,
        // An answer ends no offer: it was given before the offer came.
        Standing::Over if live.is_pending() && !is_notice => false,
        // Whoever lets bytes flow knows of it, whatever an answer says.
        Standing::Over if live.state() == State::Moving && !is_notice => false,
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
