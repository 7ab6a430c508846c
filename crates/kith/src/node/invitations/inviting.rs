//! The inviter's side of `invite/1`: listened for only while an invitation is open.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kith_connect::{Admission, Peer, Stream};
use kith_directory::limiter::{Limiter, Network, Rate};
use kith_identity::invitation::{Binding, EXPORTER_LABEL, Introduction, Message, Role, Secret, Ticket};
use kith_identity::{Fingerprint, Ni};
use kith_sansio::{Span, system};
use tokio::io::AsyncWriteExt;

use super::ledger::{Claim, Row, Stage};
use super::{Listening, PROTOCOL, introduction, met, wire};
use crate::failure::{Failure, Result};
use crate::node::Node;

/// How long a conversation may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How soon it is tried again to listen where that failed, and how seldom after many times.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Conversations at once, and of one network.
const MAX_TALKS: (usize, usize) = (32, 8);
/// Conversations of one network in a time.
const RATE: Rate = Rate { burst: 64, refill: Span::secs(1) };
/// Networks that are remembered for it.
const MAX_NETWORKS: usize = 1024;

/// Who is talking now, and who talked lately.
pub(super) struct Talks {
    now: Mutex<HashMap<Network, usize>>,
    lately: Mutex<Limiter<Network>>,
}

impl Default for Talks {
    fn default() -> Self {
        Talks { now: Mutex::default(), lately: Mutex::new(Limiter::new(RATE, MAX_NETWORKS)) }
    }
}

/// One conversation; ends when dropped.
struct Talk {
    node: Arc<Node>,
    network: Network,
}

impl Talk {
    /// A conversation with somebody at `ip`; `None` where there are enough.
    fn begin(node: &Arc<Node>, ip: IpAddr) -> Option<Talk> {
        let (talks, network) = (&node.invitations.talks, Network::of(ip));
        let mut lately = talks.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.take(system::time(), network).ok()?;
        let mut now = talks.now.lock().unwrap_or_else(PoisonError::into_inner);
        enter(&mut now, network).then(|| Talk { node: Arc::clone(node), network })
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let mut now = self.node.invitations.talks.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = now.get_mut(&self.network) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                now.remove(&self.network);
            }
        }
    }
}

/// Counts one more conversation with a network. Whoever is turned away leaves nothing behind.
fn enter(now: &mut HashMap<Network, usize>, network: Network) -> bool {
    let all: usize = now.values().sum();
    let own = now.get(&network).copied().unwrap_or(0);
    let has_room = all < MAX_TALKS.0 && own < MAX_TALKS.1;
    if has_room {
        now.insert(network, own + 1);
    }
    has_room
}

/// Listens whenever an invitation is open or ended a moment ago, and ends those whose time is over.
pub(super) async fn run(node: Arc<Node>) {
    let mut changes = node.invitations.ledger.changes();
    let mut pause = PAUSE.0;
    loop {
        changes.mark_unchanged();
        let next = sweep(&node).await;
        if !node.invitations.ledger.hears(system::now()) {
            tokio::select! {
                _ = changes.changed() => continue,
                // The disk has refused something.
                () = until_next(next) => continue,
                () = node.stopped.cancelled() => return,
            }
        }
        let heard = tokio::select! {
            heard = listen(&node, next, &mut changes) => heard,
            () = node.stopped.cancelled() => return,
        };
        let Err(failure) = heard else {
            node.invitations.listening.send_replace(Listening::No);
            pause = PAUSE.0;
            continue;
        };
        tracing::error!(%failure, "nobody can join");
        node.invitations.listening.send_replace(Listening::Failed(failure));
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            // Somebody waits for it.
            _ = changes.changed() => {}
            () = node.stopped.cancelled() => return,
        }
    }
}

async fn sweep(node: &Arc<Node>) -> Option<Span> {
    let swept = node.on_disk(|node| Ok(node.invitations.ledger.sweep(system::now()))).await;
    swept.unwrap_or(Some(Span::secs(1)))
}

/// A little longer than what is left, so that it is over then; the wall clock may be set meanwhile.
async fn until_next(left: Option<Span>) {
    match left {
        Some(left) => {
            let wait = Duration::from(left).min(Duration::from_secs(5)) + Duration::from_millis(10);
            tokio::time::sleep(wait).await;
        }
        None => std::future::pending().await,
    }
}

/// Takes joiners until none is to be heard any more.
async fn listen(
    node: &Arc<Node>,
    mut next: Option<Span>,
    changes: &mut tokio::sync::watch::Receiver<u64>,
) -> Result<()> {
    let mut incoming = node.endpoint.listen(PROTOCOL, Admission::Anyone).map_err(Failure::failed)?;
    incoming.over_relays();
    node.invitations.listening.send_replace(Listening::Yes);
    while node.invitations.ledger.hears(system::now()) {
        tokio::select! {
            joiner = incoming.next() => match joiner {
                Some((peer, stream)) => begin(node, peer, stream),
                None => return Ok(()),
            },
            _ = changes.changed() => {
                changes.mark_unchanged();
                next = sweep(node).await;
            }
            () = until_next(next) => next = sweep(node).await,
        }
    }
    Ok(())
}

fn begin(node: &Arc<Node>, peer: Peer, stream: Stream) {
    let Peer::Known(peer) = peer else { return tracing::debug!("a joiner without a key is not listened to") };
    let Some(talk) = Talk::begin(node, stream.path().remote.ip()) else {
        return tracing::debug!("a joiner is not listened to: there are too many");
    };
    let stopped = node.stopped.clone();
    node.tasks.spawn(async move {
        let talking = tokio::time::timeout(TIMEOUT, converse(&talk.node, peer, stream));
        tokio::select! {
            talked = talking => match talked {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a joiner's conversation broke off"),
                Err(_) => tracing::debug!("a joiner was too slow"),
            },
            () = stopped.cancelled() => {}
        }
    });
}

async fn converse(node: &Arc<Node>, peer: Fingerprint, mut stream: Stream) -> io::Result<()> {
    let exported = stream.export(EXPORTER_LABEL)?;
    let Message::Join { ticket, proof, who } = wire::read(&mut stream).await? else {
        return Err(io::Error::other("a joiner begins with another message than join"));
    };
    let binding = Binding { ticket, exported, joiner: peer, inviter: node.identity.fingerprint() };
    let proves = {
        let binding = binding.clone();
        move |secret: &Secret| secret.is_proved_by(&proof, Role::Joiner, &binding)
    };
    let granted = with_ledger(node, move |node| grant(node, &ticket, peer, &who, proves)).await?;
    let Some(secret) = granted else {
        wire::write(&mut stream, &Message::Refused).await?;
        return stream.shutdown().await;
    };
    let proof = secret.prove(Role::Inviter, &binding);
    wire::write(&mut stream, &Message::Welcome { proof, who: introduction(node) }).await?;
    let Message::Stored = wire::read(&mut stream).await? else {
        return Err(io::Error::other("a joiner answers with another message than stored"));
    };
    with_ledger(node, move |node| node.invitations.ledger.advance(&ticket, Stage::Joined, system::now()))
        .await?;
    wire::write(&mut stream, &Message::Seen).await?;
    stream.shutdown().await
}

/// Works with the ledger, whatever becomes of the stream.
async fn with_ledger<T: Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(&Arc<Node>) -> Result<T> + Send + 'static,
) -> io::Result<T> {
    node.on_disk(work).await.map_err(|failure| {
        tracing::error!(%failure, "an invitation cannot be dealt with");
        io::Error::other(failure.error)
    })
}

/// Claims the invitation for `peer` and makes him a contact; the secret, where both are done.
fn grant(
    node: &Arc<Node>,
    ticket: &Ticket,
    peer: Fingerprint,
    who: &Introduction,
    proves: impl FnOnce(&Secret) -> bool,
) -> Result<Option<Secret>> {
    let ledger = &node.invitations.ledger;
    let Claim::Granted(row) = ledger.claim(ticket, peer, system::now(), proves)? else { return Ok(None) };
    match row.stage {
        Stage::Claimed => {
            let is_new = admit(node, peer, &row, who)?;
            let advanced = ledger.advance(ticket, Stage::Answered, system::now());
            if !matches!(advanced, Ok(true)) {
                // It has ended since the claim: nobody becomes a contact by it.
                if is_new {
                    node.book.remove(&Ni::new(peer, None).to_string())?;
                }
                return advanced.map(|_| None);
            }
        }
        // Who was removed since then stays removed.
        _ if node.book.contact_of(&peer).is_none() => return Ok(None),
        _ => {}
    }
    Ok(row.secret)
}

/// Makes `peer` a contact; whether he is new.
fn admit(node: &Arc<Node>, peer: Fingerprint, row: &Row, who: &Introduction) -> Result<bool> {
    let called = row.called.as_deref().and_then(|name| name.parse().ok());
    node.book.meet(met(node, peer, who, called)).map(|(_, is_new)| is_new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn joiners_are_listened_to_again_after_that_had_failed() {
        let folder = tempfile::tempdir().unwrap();
        let node = crate::node::scene::node(folder.path(), "north").await;
        let taken = node.endpoint.listen(PROTOCOL, Admission::Anyone).unwrap();
        let mut listening = node.invitations.listening.subscribe();
        let now = system::now();
        let (created, expires) = (now.utc.0, now.utc.0 + 600);
        let (called, peer, secret) = (None, None, None);
        let row = Row { called, offers: false, created, expires, stage: Stage::Open, ended: 0, peer, secret };
        node.invitations.ledger.add(Ticket::from_bytes([1; 8]), row, now).unwrap();
        let within = Duration::from_secs(60);
        let failed = listening.wait_for(|now| matches!(now, Listening::Failed(_)));
        tokio::time::timeout(within, failed).await.unwrap().unwrap();
        drop(taken);
        let heard = listening.wait_for(|now| matches!(now, Listening::Yes));
        tokio::time::timeout(within, heard).await.unwrap().unwrap();
        crate::node::scene::end(node).await;
    }

    #[test]
    fn conversations_are_bounded_and_so_is_what_is_remembered_of_them() {
        let network = |n: u8| Network::of(IpAddr::from([198, 51, n, 1]));
        let mut now = HashMap::new();
        let entered = (0..20).filter(|_| enter(&mut now, network(0))).count();
        assert_eq!(entered, MAX_TALKS.1);
        let entered = (1..=255).filter(|n| enter(&mut now, network(*n))).count();
        assert_eq!(entered, MAX_TALKS.0 - MAX_TALKS.1);
        assert_eq!((now.values().sum::<usize>(), now.len()), (MAX_TALKS.0, entered + 1));
    }
}
