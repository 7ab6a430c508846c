//! A QUIC connection beside a relayed one over TCP, which cannot move itself: where it finds a direct path, what is opened
//! later goes over it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_identity::{Fingerprint, Relay};
use kith_sansio::system::time;
use kith_sansio::{Span, Time};

use super::{Seeker, ask, is_trusted, tcp};
use crate::Failure;
use crate::delegator::Opener;
use crate::direct::Side;
use crate::direct::message::DIRECT;
use crate::relay::Carriage;
use crate::shell::connect::Way;
use crate::shell::endpoint::{Peer, Shared};
use crate::shell::quic::Link;
use crate::shell::{DONE_CODE, accept, relay, until, within};

/// How long a direct path may take to be found before the connection is given up.
const PATIENCE: Span = Span::secs(15);
/// When it is punched over TCP as well, which needs no UDP and leads to one stream at a time.
const HEAD_START: Span = Span::secs(4);
/// How soon it is tried again with the same peer, at first and at most; doubled with each failure.
const AGAIN: (Span, Span) = (Span::secs(30), Span::secs(600));
/// Peers of which that is remembered.
const MAX_PEERS: usize = 1024;

/// With whom a direct path is sought beside a relayed stream, or was in vain.
#[derive(Debug, Default)]
pub(in crate::shell) struct Beside(Mutex<HashMap<Fingerprint, Attempted>>);

#[derive(Clone, Copy, Debug)]
struct Attempted {
    since: Time,
    /// Until then nothing else is tried.
    until: Time,
    pause: Span,
}

impl Beside {
    fn all(&self) -> MutexGuard<'_, HashMap<Fingerprint, Attempted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it may be tried with `peer` again, where it is to be tried now.
    fn begin(&self, peer: Fingerprint, now: Time) -> Option<Time> {
        let mut all = self.all();
        let before = all.get(&peer).copied();
        if before.is_some_and(|before| now < before.until) {
            return None;
        }
        if all.len() >= MAX_PEERS {
            all.retain(|_, one| now < one.until);
        }
        let pause = before.map_or(AGAIN.0, |before| before.pause.times(2).min(AGAIN.1));
        if all.len() < MAX_PEERS {
            all.insert(peer, Attempted { since: now, until: now + pause, pause });
        }
        Some(now + pause)
    }

    /// Whether it has been tried with `peer` and nothing was found in good time.
    fn is_vain(&self, peer: &Fingerprint, now: Time) -> bool {
        self.all().get(peer).is_some_and(|before| now >= before.since + HEAD_START)
    }

    fn found(&self, peer: &Fingerprint) {
        self.all().remove(peer);
    }
}

/// Looks for a direct path to `target`, which has just been reached over `over` by TCP.
pub(in crate::shell) fn beside(shared: &Arc<Shared>, target: Fingerprint, over: Relay) {
    if shared.quic.listeners.is_empty() {
        return tcp::begin(shared, target, over);
    }
    let may_seek = shared.config.seek_direct;
    // A connection that is there has looked, or does.
    let may_seek = may_seek && is_trusted(shared, &target);
    if !may_seek || shared.links.newest(&target).is_some() {
        return;
    }
    let Some(again) = shared.beside.begin(target, time()) else {
        if shared.beside.is_vain(&target, time()) {
            tcp::begin(shared, target, over);
        }
        return;
    };
    let work = seek(Arc::clone(shared), target, over, again);
    shared.spawn(work);
}

/// Tries until there is a direct path, or nothing is open any more that goes to `target` over a relay by TCP.
async fn seek(shared: Arc<Shared>, target: Fingerprint, over: Relay, mut again: Time) {
    loop {
        if is_met(&shared, target, &over).await {
            return shared.beside.found(&target);
        }
        until(again).await;
        let is_relayed = shared.registry.sole_paths(&target).iter().any(|path| path.relay.is_some());
        if !is_relayed || shared.links.newest(&target).is_some() {
            return;
        }
        let Some(later) = shared.beside.begin(target, time()) else { return };
        again = later;
    }
}

/// Whether a connection to `target` has become a direct one. Where none has in good time, TCP is tried beside it.
async fn is_met(shared: &Arc<Shared>, target: Fingerprint, over: &Relay) -> bool {
    let mut meeting = std::pin::pin!(meet(shared, target, over));
    let met = match within(HEAD_START, meeting.as_mut()).await {
        Some(met) => met,
        None => {
            tcp::begin(shared, target, over.clone());
            meeting.await
        }
    };
    match met {
        Ok(true) => return true,
        Ok(false) => tracing::debug!(peer = %target, "no direct path beside the relayed one"),
        Err(error) => tracing::debug!(peer = %target, %error, "no direct path beside the relayed one"),
    }
    tcp::begin(shared, target, over.clone());
    false
}

/// Whether a connection to `target` over a relay has become a direct one, which is kept.
async fn meet(shared: &Arc<Shared>, target: Fingerprint, over: &Relay) -> Result<bool, Failure> {
    let Way::Quic(connection, over) = relay::over(shared, (target, &[]), over, Carriage::Datagrams).await?
    else {
        return Ok(false);
    };
    let link = Link::new(connection, Peer::Known(target), over, None);
    accept::serve(shared, Arc::clone(&link), false);
    let asked = within(shared.config.handshake_timeout, ask(&link)).await;
    if let Some(Ok(carrier)) = asked
        && link.start_seeking()
    {
        let seeker = Seeker::new(Arc::clone(shared), Arc::clone(&link), Side::Initiator, carrier);
        shared.spawn(seeker.run());
        if within(PATIENCE, link.moved()).await.is_some() && shared.links.keep(&link) {
            // Nothing has been opened on it yet; where the trust is withdrawn, it ends all the same.
            link.admit(Opener::Own, &DIRECT, true);
            return Ok(true);
        }
    }
    link.connection.close(DONE_CODE, b"");
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_ever_more_rarely() {
        let (beside, peer) = (Beside::default(), Fingerprint::from_bytes([1; 32]));
        let mut now = Time(0);
        for pause in [30, 60, 120, 240, 480, 600, 600] {
            assert_eq!(beside.begin(peer, now), Some(now + Span::secs(pause)));
            let later = now + Span::secs(pause);
            assert_eq!(beside.begin(peer, Time(later.0 - 1)), None, "{pause}");
            let other = Fingerprint::from_bytes([2; 32]);
            assert!(beside.begin(other, Time(now.0 + 100_000_000_000)).is_some());
            now = later;
        }
        let last = Time(now.0 - 600_000_000);
        assert!(!beside.is_vain(&peer, last) && beside.is_vain(&peer, last + HEAD_START));
        beside.found(&peer);
        assert!(!beside.is_vain(&peer, now));
        assert!(beside.begin(peer, now).is_some() && beside.begin(peer, now).is_none());
    }
}
