//! One stream with one member: messages in both directions, each after its length.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kith_connect::{PathInfo, PathWatch};
use kith_identity::Fingerprint;
use kith_sansio::system;
use kith_sansio::{Span, Time};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::membership::Doorkeeper;
use super::{Event, LineId, sleep_until, within};
use crate::contact::Contact;
use crate::defaults::{
    ASK_BURST, ASK_EVERY, MAX_ASKED, MAX_CERTIFICATE_BYTES, MAX_MESSAGE_BYTES, MAX_WAITING_BYTES, REQUEST,
};
use crate::gate::Gate;
use crate::message::{Card, Message};

/// Bytes of the length before each message.
const LENGTH_BYTES: usize = 2;
/// Longest card, with the length of its certificate and an IPv6 address.
const MAX_CARD_BYTES: usize = 2 + MAX_CERTIFICATE_BYTES + 1 + 16 + 2;
/// How long the last bytes to a peer may take.
const FAREWELL: Span = Span::secs(1);

/// The desk's side of a stream, which ends with it.
pub(super) struct Line {
    pub(super) id: LineId,
    queue: mpsc::UnboundedSender<Bytes>,
    /// Bytes that wait to be sent.
    waiting: Arc<AtomicUsize>,
    _ends: DropGuard,
}

/// Questions that a member has not answered yet: what else it answers is not looked at.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Mutex<BTreeSet<u64>>>);

/// What the task of a stream needs.
pub(super) struct Talk {
    pub(super) id: LineId,
    pub(super) peer: Fingerprint,
    /// How the peer is connected.
    pub(super) path: PathWatch,
    pub(super) gate: Doorkeeper,
    pub(super) asked: Asked,
    pub(super) events: mpsc::Sender<Event>,
}

/// When the next question of a member is looked at.
struct Pace(Time);

impl Line {
    /// Begins to talk over a stream, `first` before everything else, as one of `tasks`.
    pub(super) fn open(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        talk: Talk,
        first: Bytes,
        tasks: &TaskTracker,
    ) -> Line {
        let (queue, frames) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let ended = CancellationToken::new();
        let line =
            Line { id: talk.id, queue, waiting: Arc::clone(&waiting), _ends: ended.clone().drop_guard() };
        line.say(first);
        tasks.spawn(talk.run(stream, frames, waiting, ended));
        line
    }

    /// Sends a message of this node's own, whose number the machine bounds.
    pub(super) fn say(&self, bytes: Bytes) {
        self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        // It may have ended meanwhile; that is told by itself.
        let _ended = self.queue.send(bytes);
    }

    /// Sends what the member asked for, unless it does not take what is there already.
    pub(super) fn answer(&self, bytes: Bytes) {
        if self.waiting.load(Ordering::Relaxed) < MAX_WAITING_BYTES {
            self.say(bytes);
        }
    }
}

impl Asked {
    /// A question goes out.
    pub(super) fn add(&self, id: u64) {
        let mut asked = self.lock();
        asked.insert(id);
        if asked.len() > MAX_ASKED {
            asked.pop_first();
        }
    }

    /// Whether this question waits for its answer, which has come.
    fn take(&self, id: u64) -> bool {
        self.lock().remove(&id)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// Waits until one more question may be looked at.
    async fn step(&mut self) {
        let now = system::time();
        self.0 = self.0.max(now) + ASK_EVERY;
        let (ahead, burst) = (self.0 - now, ASK_EVERY.times(ASK_BURST));
        if ahead > burst {
            sleep_until(now + Span(ahead.0 - burst.0)).await;
        }
    }
}

impl Talk {
    /// Talks to the end: the stream's, or that of the desk's side, `ended`. Then what is still to be said has a moment.
    async fn run(
        self,
        stream: impl AsyncRead + AsyncWrite,
        frames: mpsc::UnboundedReceiver<Bytes>,
        waiting: Arc<AtomicUsize>,
        ended: CancellationToken,
    ) {
        let (mut reading, writing) = tokio::io::split(stream);
        let mut speaking = std::pin::pin!(speak(writing, frames, &waiting));
        tokio::select! {
            biased;
            () = ended.cancelled() => {
                let _it_may_take_nothing = within(FAREWELL, speaking).await;
            }
            heard = self.hear(&mut reading) => if let Err(error) = heard {
                tracing::debug!(peer = %self.peer, %error, "a stream of dht/1 has ended");
            },
            () = &mut speaking => {}
        }
        let _the_desk_may_be_gone = self.events.send(Event::Closed(self.peer, self.id)).await;
    }

    /// Hands on what the member says, who is looked at again with each message.
    async fn hear(&self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let card = within(REQUEST, read(stream, MAX_CARD_BYTES)).await.ok_or(io::ErrorKind::TimedOut)??;
        let card = Card::read(&card).map_err(malformed)?;
        let mut pace = Pace(Time(0));
        self.member(&card)?;
        loop {
            let bytes = read(stream, MAX_MESSAGE_BYTES).await?;
            let message = Message::read(&bytes).map_err(malformed)?;
            let is_answer = message.body.is_answer();
            if !(is_answer && self.asked.take(message.id)) {
                pace.step().await;
                if is_answer {
                    // Too late, or nobody asked: nothing in it is worth the check of a signature.
                    continue;
                }
            }
            let from = self.member(&card)?;
            match message.admit(&mut self.gate.clone(), system::utc()) {
                Ok(message) => {
                    self.events
                        .send(Event::Heard(from, message))
                        .await
                        .map_err(|_| io::ErrorKind::BrokenPipe)?;
                }
                Err(error) => tracing::debug!(peer = %self.peer, %error, "a message is left out"),
            }
        }
    }

    /// The member whose card this is, where it is the peer's.
    fn member(&self, card: &Card) -> io::Result<Contact> {
        let address = reached_at(&self.path.now(), card.address.port());
        let contact = self.gate.clone().contact(&Card { address, ..card.clone() }, system::utc());
        let contact = contact.filter(|contact| contact.fingerprint == self.peer);
        contact
            .ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "no valid certificate of its own"))
    }
}

/// Where a peer is reached that says that it listens at this port: at the IP address that its connection comes from,
/// whatever it says itself. Of one behind a relay nothing proves where it is, so it has no address that anybody asks.
fn reached_at(path: &PathInfo, port: u16) -> SocketAddr {
    match path.direct {
        true => SocketAddr::new(path.remote.ip().to_canonical(), port),
        false => SocketAddr::from(([0; 4], port)),
    }
}

/// Writes what is to be said, until nothing more comes or the member takes nothing more.
async fn speak(
    mut stream: impl AsyncWrite + Unpin,
    mut frames: mpsc::UnboundedReceiver<Bytes>,
    waiting: &AtomicUsize,
) {
    while let Some(frame) = frames.recv().await {
        let writing = async {
            stream.write_all(&frame).await?;
            if frames.is_empty() { stream.flush().await } else { Ok(()) }
        };
        let Some(Ok(())) = within(REQUEST, writing).await else { return };
        waiting.fetch_sub(frame.len(), Ordering::Relaxed);
    }
    let _it_may_be_gone = within(FAREWELL, stream.shutdown()).await;
}

/// What is said, with its length before it. No message and no card is longer than two bytes can say.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message].concat().into()
}

/// Reads one message, which comes whole in the time of a request once it has begun.
async fn read(stream: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length[..1]).await?;
    let rest = async {
        stream.read_exact(&mut length[1..]).await?;
        let length = usize::from(u16::from_be_bytes(length));
        if length > most {
            return Err(malformed(format!("{length} bytes are too many")));
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    };
    within(REQUEST, rest).await.ok_or(io::ErrorKind::TimedOut)?
}

fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
