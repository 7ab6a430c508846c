//! Keeps a QUIC connection that began over a relay on one that answers.
//!
//! A relay that dies says nothing, and QUIC by itself waits half a minute. The initiator looks whether anything comes,
//! and has the target met at another of its relays where nothing does: that is another path of the same connection,
//! which loses no byte.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use kith_identity::{Fingerprint, Relay};
use kith_sansio::system::time;
use kith_sansio::{Span, Time};
use noq::{PathEvent, PathId};

use super::reaching;
use crate::direct::limits::{DOUBT, LOOK, MEND_AGAIN, RELAYED_PATIENCE, RELAYS_PATIENCE};
use crate::shell::endpoint::{Peer, Shared};
use crate::shell::quic::Link;
use crate::shell::{until, within};
use crate::trust::{Find, Found};

/// What has come over one path: which, and how many datagrams.
type Heard = (PathId, u64);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    /// Ask the relayed path whether it is there.
    Ask,
    /// Have the target met at another relay.
    Mend,
}

/// Whether a connection needs another relay. Pure.
#[derive(Debug)]
struct Vigil {
    used: Option<Heard>,
    /// `None` while nothing has come since the machine is elsewhere.
    heard_at: Option<Time>,
    relayed: Option<Heard>,
    relayed_heard_at: Option<Time>,
    /// Since when nothing has come where something should have.
    doubt: Option<Time>,
    /// Nothing else is tried before.
    again: Time,
    pause: Span,
}

impl Vigil {
    fn new(now: Time) -> Vigil {
        Vigil {
            used: None,
            heard_at: Some(now),
            relayed: None,
            relayed_heard_at: Some(now),
            doubt: None,
            again: now,
            pause: MEND_AGAIN.0,
        }
    }

    /// What has come over the path that is used, and over the relayed one where it is open; `patience` is how long that
    /// may take to answer.
    fn look(&mut self, now: Time, used: Heard, relayed: Option<Heard>, patience: Span) -> Action {
        if self.used.replace(used) != Some(used) {
            self.heard_at = Some(now);
        }
        if std::mem::replace(&mut self.relayed, relayed) != relayed {
            self.relayed_heard_at = Some(now);
        }
        if self.heard_at.is_some_and(|at| now - at < DOUBT) {
            self.doubt = None;
            if relayed.is_some() {
                self.pause = MEND_AGAIN.0;
                return Action::Nothing;
            }
            return self.mend(now);
        }
        let doubt = *self.doubt.get_or_insert(now);
        match relayed {
            Some(_) if self.relayed_heard_at > Some(doubt) => Action::Nothing,
            Some(_) if self.heard_at.is_some() && now - doubt < patience => Action::Ask,
            _ => self.mend(now),
        }
    }

    fn mend(&self, now: Time) -> Action {
        if now >= self.again { Action::Mend } else { Action::Nothing }
    }

    /// The machine is elsewhere: nothing that was heard before means anything, which is what has come until now.
    fn shaken(&mut self, now: Time, used: Heard, relayed: Option<Heard>) {
        (self.used, self.relayed) = (Some(used), relayed);
        (self.heard_at, self.relayed_heard_at, self.doubt) = (None, None, Some(now));
        (self.again, self.pause) = (now, MEND_AGAIN.0);
    }

    /// Whether another relay was reached.
    fn mended(&mut self, now: Time, is_mended: bool) {
        if is_mended {
            (self.heard_at, self.doubt, self.pause) = (Some(now), None, MEND_AGAIN.0);
        } else {
            self.pause = self.pause.times(2).min(MEND_AGAIN.1);
        }
        self.again = now + self.pause;
    }
}

/// Looks after the relayed path of `link` for as long as it is open.
pub(in crate::shell) fn tend(shared: &Arc<Shared>, link: &Arc<Link>) {
    if link.may_move() {
        link.tune();
        let work = run(Arc::clone(shared), Arc::clone(link));
        shared.spawn(work);
    }
}

async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let connection = link.connection.clone();
    let mut events = connection.path_events();
    let mut losses = shared.losses.subscribe();
    let mut closed = std::pin::pin!(connection.closed());
    let mut vigil = Vigil::new(time());
    let mut mending: Option<BoxFuture<'static, bool>> = None;
    let mut next_look = time() + LOOK;
    loop {
        tokio::select! {
            _ = &mut closed => return,
            Some(event) = events.next() => {
                if let Ok(event) = event {
                    followed(&shared, &link, &event);
                }
            }
            Ok(()) = losses.changed() => {
                let (used, relayed) = heard(&link);
                vigil.shaken(time(), used, relayed);
            }
            is_mended = mended(&mut mending) => {
                let was_silent = vigil.doubt.is_some();
                mending = None;
                vigil.mended(time(), is_mended);
                if is_mended && was_silent {
                    link.give_up_direct();
                }
            }
            // Whoever did not open the connection opens no path either.
            () = until(next_look), if link.is_ours() => {
                next_look = time() + LOOK;
                if mending.is_none() {
                    mending = look(&shared, &link, &mut vigil);
                }
            }
        }
    }
}

async fn mended(mending: &mut Option<BoxFuture<'static, bool>>) -> bool {
    match mending {
        Some(mending) => mending.await,
        None => std::future::pending().await,
    }
}

/// What a change of the connection's paths means for the relayed one; the direct one is another's matter.
fn followed(shared: &Shared, link: &Link, event: &PathEvent) {
    match event {
        PathEvent::Established { id, .. } => {
            let path = link.connection.path(*id);
            let address = path.and_then(|path| path.remote_address().ok());
            let Some((address, over)) = address.and_then(|at| Some((at, shared.quic.over(&at)?))) else {
                return;
            };
            // Whom the relay has put through has signed for it; nobody else's connection has business there.
            if link.peer == Peer::Known(over.peer) {
                shared.quic.claim(&address, &link.connection, *id);
                link.take_relay(*id, over);
            }
        }
        PathEvent::Abandoned { id, .. } => link.lose_relay(*id),
        _ => {}
    }
}

/// What has come over the path that is used, and over the relayed one where it is open.
fn heard(link: &Link) -> (Heard, Option<Heard>) {
    let over = |id| Some((id, link.heard_over(id)?));
    let relayed = link.relayed().filter(|relayed| relayed.is_open);
    let used = link.used_path();
    (over(used).unwrap_or((used, 0)), relayed.and_then(|relayed| over(relayed.id)))
}

fn look(shared: &Arc<Shared>, link: &Arc<Link>, vigil: &mut Vigil) -> Option<BoxFuture<'static, bool>> {
    let (used, relayed) = heard(link);
    // Where a path is slow, so are its answers.
    let rtt = link.connection.rtt(used.0).unwrap_or_default();
    let patience = RELAYED_PATIENCE.max(Span::from(rtt).times(2));
    match vigil.look(time(), used, relayed, patience) {
        Action::Nothing => None,
        Action::Ask => {
            link.ask_relay();
            None
        }
        Action::Mend => Some(mend(Arc::clone(shared), Arc::clone(link)).boxed()),
    }
}

/// Has the target met at a relay, another one than now where there is one; whether it was.
async fn mend(shared: Arc<Shared>, link: Arc<Link>) -> bool {
    let Peer::Known(target) = link.peer else { return false };
    let now = link.relayed().map(|relayed| relayed.over.relay);
    let mut relays = relays_of(&shared, target).await;
    relays.sort_by_key(|relay| Some(relay.ni.fingerprint) == now);
    tracing::debug!(peer = %target, relays = relays.len(), "a relayed path is silent");
    let mut tries: FuturesUnordered<_> = (0_u64..)
        .zip(&relays)
        .map(|(turn, relay)| {
            let (shared, link) = (&shared, &link);
            async move {
                until(time() + shared.config.pace.relay_stagger.times(turn)).await;
                let met =
                    within(shared.config.pace.relay_timeout, reaching::meet(shared, target, relay)).await?;
                let (socket, over) = met.ok()?;
                shared.quic.open_over(socket, over, &link.connection).await.then_some(())
            }
        })
        .collect();
    while let Some(done) = tries.next().await {
        if done.is_some() {
            return true;
        }
    }
    false
}

/// The relays of `target`, by preference, as its verified sets name them.
async fn relays_of(shared: &Shared, target: Fingerprint) -> Vec<Relay> {
    let (found, mut finds) = Found::channel();
    let mut discovery = shared.discovery.candidates(target, found);
    let mut relays = Vec::new();
    let finding = async {
        let mut searching = true;
        loop {
            tokio::select! {
                () = &mut discovery, if searching => searching = false,
                find = finds.next() => match find {
                    Some(Find::Relays(all)) => return relays.extend(all),
                    Some(Find::Candidates(_)) => {}
                    None => return,
                }
            }
        }
    };
    let _ = within(RELAYS_PATIENCE, finding).await;
    relays.sort();
    relays.truncate(crate::relay::limits::MAX_RELAYS);
    relays
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECT: PathId = PathId::MAX;

    /// What a vigil does at these times, in milliseconds; `heard` says how much has come over the path that is used and
    /// over the relayed one.
    fn watch(
        vigil: &mut Vigil,
        times: impl IntoIterator<Item = u64>,
        heard: impl Fn(u64) -> (Heard, Option<Heard>),
    ) -> Vec<(u64, Action)> {
        let look = |millis: u64| {
            let (used, relayed) = heard(millis);
            let action = vigil.look(Time(millis * 1_000), used, relayed, RELAYED_PATIENCE);
            (action != Action::Nothing).then_some((millis, action))
        };
        times.into_iter().filter_map(look).collect()
    }

    fn each(from: u64, to: u64) -> impl Iterator<Item = u64> {
        (from..to).step_by(LOOK.0 as usize / 1_000)
    }

    #[test]
    fn a_relay_that_says_nothing_is_replaced_within_two_and_a_half_seconds() {
        let relayed = |count| ((PathId::ZERO, count), Some((PathId::ZERO, count)));
        let mut vigil = Vigil::new(Time(0));
        // A beat each second is enough.
        assert_eq!(watch(&mut vigil, each(0, 60_000), |at| relayed(at / 1_000)), []);
        let done = watch(&mut vigil, each(60_000, 62_500), |_| relayed(60));
        let mend = done.iter().find(|(_, action)| *action == Action::Mend);
        assert!(done[0].1 == Action::Ask && mend.is_some_and(|(at, _)| *at < 62_400), "{done:?}");
        // Where no other is reached it is tried again, ever more rarely.
        let mut tried = Vec::new();
        for at in each(62_400, 200_000) {
            if watch(&mut vigil, [at], |_| relayed(60)) == [(at, Action::Mend)] {
                vigil.mended(Time(at * 1_000), false);
                tried.push(at);
            }
        }
        assert!((7..12).contains(&tried.len()), "{tried:?}");
        vigil.mended(Time(200_000_000), true);
        assert_eq!(watch(&mut vigil, each(200_000, 260_000), |at| relayed(at / 1_000)), []);
    }

    #[test]
    fn while_a_direct_path_is_silent_the_relayed_one_is_asked_and_replaced_where_it_is_silent_too() {
        for is_there in [true, false] {
            let mut vigil = Vigil::new(Time(0));
            let done = watch(&mut vigil, each(0, 10_000), |at| {
                let direct = (DIRECT, at.min(5_000) / 1_000);
                let answers = if is_there && at > 6_000 { at } else { 0 };
                (direct, Some((PathId::ZERO, answers)))
            });
            let mends = done.iter().any(|(_, action)| *action == Action::Mend);
            assert!(mends != is_there && done[0].1 == Action::Ask && done[0].0 > 6_000, "{done:?}");
        }
    }

    #[test]
    fn one_in_reserve_that_is_lost_is_replaced_and_so_is_all_that_an_address_took_along() {
        let mut vigil = Vigil::new(Time(0));
        let done = watch(&mut vigil, each(0, 1_000), |at| ((DIRECT, at), None));
        assert_eq!(done.first(), Some(&(0, Action::Mend)));
        vigil.mended(Time(1_000_000), true);
        let both = |at| ((DIRECT, at), Some((PathId::ZERO, at)));
        assert_eq!(watch(&mut vigil, each(1_000, 5_000), both), []);
        // Some has come since it was looked last. A node that has just begun is no slower.
        let last = |count| ((DIRECT, count), Some((PathId::ZERO, count)));
        for (mut vigil, millis) in [(vigil, 5_000), (Vigil::new(Time(0)), 300)] {
            let (used, relayed) = last(millis - 100);
            vigil.shaken(Time(millis * 1_000), used, relayed);
            let done = watch(&mut vigil, [millis + 200], |_| last(millis - 100));
            assert_eq!(done, [(millis + 200, Action::Mend)]);
            // Where the relay answers meanwhile there is nothing to do.
            vigil.shaken(Time(millis * 1_000), used, relayed);
            let answers = |at| (used, Some((PathId::ZERO, at)));
            assert_eq!(watch(&mut vigil, each(millis + 200, millis + 3_000), answers), []);
        }
    }
}
