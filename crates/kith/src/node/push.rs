//! Connected contacts tell each other their current record sets (`records/1`), so that a path found once is
//! found again without a directory.
//!
//! Wire: the initiator sends `u32 length ‖ JSON record set`, the target answers the same way, both big-endian and
//! at most [`MAX_JSON_BYTES`]; a length of zero says that there is no set.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kith_connect::{Protocol, Stream, Via};
use kith_identity::Fingerprint;
use kith_identity::record::{MAX_JSON_BYTES, RecordSet};
use kith_sansio::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Node;
use crate::failure::Result;

const RECORDS: Protocol = Protocol::new("records/1");
/// How long an exchange may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often connected contacts are looked over for one that does not know the current set.
const ROUND: Duration = Duration::from_secs(2);

/// What was told to whom: the timestamp of the last set that a contact has of this node.
#[derive(Default)]
pub(crate) struct Told(Mutex<HashMap<Fingerprint, Timestamp>>);

impl Told {
    fn knows(&self, peer: &Fingerprint, current: Timestamp) -> bool {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(peer).is_some_and(|last| *last >= current)
    }

    fn note(&self, peer: Fingerprint, set: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, set);
    }
}

pub(crate) fn start(node: &Arc<Node>) -> Result<()> {
    node.serve(RECORDS, |node, peer, stream| async move {
        let answered = tokio::time::timeout(TIMEOUT, answer(&node, peer, stream)).await;
        if let Ok(Err(error)) = answered {
            tracing::debug!(%error, "an exchange of record sets broke off");
        }
    })?;
    let pusher = Arc::clone(node);
    node.tasks.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(ROUND) => push_to_all(&pusher).await,
                () = pusher.stopped.cancelled() => return,
            }
        }
    });
    Ok(())
}

async fn push_to_all(node: &Arc<Node>) {
    let Some(set) = node.said().await else { return };
    for contact in node.book.list() {
        let peer = contact.ni.fingerprint;
        let connected = !node.endpoint.paths(&peer).is_empty();
        if !connected || node.told.knows(&peer, set.timestamp()) {
            continue;
        }
        let pushed = tokio::time::timeout(TIMEOUT, push(node, peer)).await;
        if let Err(error) =
            pushed.map_err(|_| std::io::ErrorKind::TimedOut.into()).and_then(|outcome| outcome)
        {
            tracing::debug!(%error, "a contact could not be told of the current record set");
        }
        // Told or not: the next set, or the next connection, is the next chance.
        node.told.note(peer, set.timestamp());
    }
}

/// Exchanges sets with a new contact over QUIC, so that each side can open streams on a connection that is there,
/// even where only one of them can be dialled.
pub(crate) fn greet(node: &Arc<Node>, peer: Fingerprint) {
    let node = Arc::clone(node);
    let tracker = node.tasks.clone();
    tracker.spawn(async move {
        let greeting = async {
            let stream = node.endpoint.connect_with(&peer, &RECORDS, Via::Quic).await;
            exchange(&node, peer, stream.map_err(std::io::Error::other)?).await
        };
        tokio::select! {
            greeted = tokio::time::timeout(TIMEOUT, greeting) => match greeted {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a new contact was not greeted"),
                Err(_) => tracing::debug!("a new contact was not greeted in time"),
            },
            () = node.stopped.cancelled() => {}
        }
    });
}

async fn push(node: &Arc<Node>, peer: Fingerprint) -> std::io::Result<()> {
    let stream = node.endpoint.connect(&peer, &RECORDS).await.map_err(std::io::Error::other)?;
    exchange(node, peer, stream).await
}

async fn exchange(node: &Arc<Node>, peer: Fingerprint, mut stream: Stream) -> std::io::Result<()> {
    write(node, &mut stream).await?;
    let theirs = read(&mut stream).await?;
    take(node, peer, theirs).await;
    stream.shutdown().await
}

async fn answer(node: &Arc<Node>, peer: Fingerprint, mut stream: Stream) -> std::io::Result<()> {
    let theirs = read(&mut stream).await?;
    write(node, &mut stream).await?;
    if let Some(set) = node.said().await {
        node.told.note(peer, set.timestamp());
    }
    take(node, peer, theirs).await;
    stream.shutdown().await
}

async fn write(node: &Arc<Node>, stream: &mut Stream) -> std::io::Result<()> {
    let set = node.said().await.map(|set| set.to_json()).unwrap_or_default();
    let length = u32::try_from(set.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&set).await?;
    stream.flush().await
}

async fn read(stream: &mut Stream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    if length > MAX_JSON_BYTES {
        return Err(std::io::Error::other("the peer's record set is too large"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// A set from its own subject is still only a claim until it is verified.
async fn take(node: &Arc<Node>, peer: Fingerprint, json: Vec<u8>) {
    if json.is_empty() {
        return;
    }
    let taken = match RecordSet::from_json(&json) {
        Ok(set) => node.directory.offer(set, &peer).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match taken {
        Ok(set) => {
            // Perhaps with another address.
            node.transfers.saw(&peer);
            node.book.hear_set(&set).await;
        }
        Err(error) => tracing::debug!(%error, "a contact's record set was not taken"),
    }
}
