//! Datagrams with an authenticated peer, over QUIC, over TLS on TCP and over DTLS.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use kith_identity::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dtls::Line;
use super::endpoint::{PathInfo, Peer, Shared};
use super::flows::Channel;
use super::stream::Stream;
use super::tcp;
use crate::datagram::{Backlog, Flow, Frames, MAX_FRAME_BYTES, put_frame};
use crate::{DatagramError, defaults};

/// Datagrams sent over DTLS in one go.
const DTLS_BATCH: usize = 64;
/// Datagrams read from a QUIC connection in one go.
const BATCH: usize = 64;
/// Room that is left in what QUIC holds, for what it counts beside the bytes of a datagram.
const SLACK_BYTES: usize = 16 << 10;
/// Frames gathered for one write to TCP, in bytes.
const WRITE_BYTES: usize = 64 << 10;

/// Unreliable, unordered datagrams to and from an authenticated peer.
///
/// A datagram arrives whole, once or never. What waits to be sent is bounded; [`send`](Datagrams::send) drops the oldest
/// of it where there is no room, [`send_all`](Datagrams::send_all) waits. Over TCP datagrams get lost in that backlog
/// alone. Every call fails once the peer has gone or has lost this node's trust; dropping it tells the peer.
pub struct Datagrams {
    road: Road,
    peer: Peer,
    path: PathInfo,
    _until_dropped: DropGuard,
}

enum Road {
    Quic { channel: Arc<Channel>, flow: Flow },
    Tcp { outbox: Arc<Queue>, reader: tokio::sync::Mutex<Reader> },
    Dtls(Arc<Line>),
}

/// The receiving side over TCP.
struct Reader {
    stream: ReadHalf<Stream>,
    frames: Frames,
}

/// Datagrams between two tasks, and the end of it all.
pub(super) struct Queue {
    backlog: Mutex<Backlog>,
    filled: Notify,
    emptied: Notify,
    over: CancellationToken,
    why: OnceLock<DatagramError>,
}

impl Queue {
    /// One that holds `most_bytes` at most.
    pub(super) fn new(most_bytes: usize) -> Arc<Queue> {
        Arc::new(Queue {
            backlog: Mutex::new(Backlog::new(most_bytes)),
            filled: Notify::new(),
            emptied: Notify::new(),
            over: CancellationToken::new(),
            why: OnceLock::new(),
        })
    }

    /// Adds datagrams; the oldest make room.
    pub(super) fn push(&self, datagrams: impl IntoIterator<Item = Bytes>) {
        let mut backlog = self.backlog();
        datagrams.into_iter().for_each(|one| backlog.push(one));
        drop(backlog);
        self.filled.notify_one();
    }

    /// Adds a datagram once there is room for it.
    async fn push_when_there_is_room(&self, datagram: &Bytes) -> Result<(), DatagramError> {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.push_where_there_is_room(datagram) {
                return Ok(());
            }
            tokio::select! {
                () = emptied => {}
                () = self.over.cancelled() => self.check()?,
            }
        }
    }

    fn push_where_there_is_room(&self, datagram: &Bytes) -> bool {
        let mut backlog = self.backlog();
        let has_room = backlog.has_room_for(datagram.len());
        if has_room {
            backlog.push(datagram.clone());
            self.filled.notify_one();
        }
        has_room
    }

    /// Moves `most` datagrams at most to `out`, and says how many.
    fn take(&self, out: &mut Vec<Bytes>, most: usize) -> usize {
        let mut backlog = self.backlog();
        let before = out.len();
        out.extend(std::iter::from_fn(|| backlog.pop()).take(most));
        out.len() - before
    }

    /// Moves datagrams to `frames` until these are enough for one write.
    fn gather(&self, frames: &mut BytesMut) {
        let mut backlog = self.backlog();
        while frames.len() < WRITE_BYTES
            && let Some(datagram) = backlog.pop()
        {
            put_frame(frames, &datagram);
        }
    }

    /// Waits for datagrams and moves them to `out`, `most` at most; says how many.
    async fn recv(&self, out: &mut Vec<Bytes>, most: usize) -> Result<usize, DatagramError> {
        loop {
            let taken = self.take(out, most);
            if taken > 0 || most == 0 {
                return Ok(taken);
            }
            self.check()?;
            tokio::select! {
                () = self.filled.notified() => {}
                () = self.over.cancelled() => {}
            }
        }
    }

    /// Holds `most_bytes` at most from now on.
    pub(super) fn allow(&self, most_bytes: usize) {
        self.backlog().allow(most_bytes);
    }

    /// Ends it, for the first reason given.
    pub(super) fn end(&self, why: DatagramError) {
        let _ = self.why.set(why);
        self.over.cancel();
    }

    fn check(&self) -> Result<(), DatagramError> {
        self.why.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Datagrams {
    /// Speaks datagrams where `stream` was opened for them.
    pub(super) fn over(shared: &Shared, mut stream: Stream) -> Datagrams {
        let (peer, path) = (stream.peer(), stream.path());
        let stop = CancellationToken::new();
        let line = stream.carrier().line().cloned();
        let road = match (stream.take_channel(), line) {
            (_, Some(line)) => {
                let task = watch(stream, Arc::clone(&line.inbox));
                let task = stop.clone().run_until_cancelled_owned(task);
                shared.spawn(task);
                Road::Dtls(line)
            }
            (Some(channel), None) => {
                let channel = Arc::new(channel);
                let task = watch(stream, Arc::clone(&channel.inbox));
                let task = stop.clone().run_until_cancelled_owned(task);
                shared.spawn(task);
                Road::Quic { flow: channel.flow, channel }
            }
            (None, None) => {
                stream.limit_unsent();
                let (read, write) = tokio::io::split(stream);
                let outbox = Queue::new(defaults::DATAGRAM_BACKLOG_BYTES);
                let task = write_frames(write, Arc::clone(&outbox));
                let task = stop.clone().run_until_cancelled_owned(task);
                shared.spawn(task);
                let reader = Reader { stream: read, frames: Frames::default() };
                Road::Tcp { outbox, reader: tokio::sync::Mutex::new(reader) }
            }
        };
        Datagrams { road, peer, path, _until_dropped: stop.drop_guard() }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// How the peer is reached now.
    pub fn path(&self) -> PathInfo {
        match &self.road {
            Road::Quic { channel, .. } => channel.link.path(),
            Road::Tcp { .. } | Road::Dtls(_) => self.path,
        }
    }

    /// The largest datagram that can be sent now, in bytes. Over QUIC and DTLS it follows what the path is found to carry,
    /// and is a little over a kilobyte at least; over TCP it is 65 535.
    pub fn max_size(&self) -> usize {
        match &self.road {
            Road::Quic { channel, flow } => {
                channel.link.connection.max_datagram_size().unwrap_or(0).saturating_sub(flow.length())
            }
            Road::Tcp { .. } => MAX_FRAME_BYTES,
            Road::Dtls(line) => line.most_bytes(),
        }
    }

    /// Sends a datagram without waiting. Where too much waits to be sent, the oldest of that is dropped.
    ///
    /// # Errors
    /// Where it is larger than [`max_size`](Datagrams::max_size), or all is over.
    pub fn send(&self, datagram: &[u8]) -> Result<(), DatagramError> {
        match self.send_many([datagram])? {
            0 => Err(DatagramError::TooLarge { bytes: datagram.len(), most: self.max_size() }),
            _ => Ok(()),
        }
    }

    /// Sends datagrams in one go, without waiting, and says how many: those that are too large are left out.
    ///
    /// # Errors
    /// Where all is over.
    pub fn send_many<'a>(
        &self,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<usize, DatagramError> {
        self.check()?;
        if let Road::Dtls(line) = &self.road {
            return Ok(line.send(datagrams.into_iter()));
        }
        let dressed = self.dress(datagrams);
        match &self.road {
            Road::Dtls(_) => Ok(0),
            Road::Quic { channel, .. } => hand_over(&channel.link.connection, &dressed),
            Road::Tcp { outbox, .. } => {
                let sent = dressed.len();
                outbox.push(dressed);
                Ok(sent)
            }
        }
    }

    /// Sends datagrams as soon as there is room for them, and says how many: those that are too large are left out.
    /// Where the call is given up, what had no room yet is not sent.
    ///
    /// # Errors
    /// Where all is over.
    pub async fn send_all<'a>(
        &self,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<usize, DatagramError> {
        self.check()?;
        if let Road::Dtls(line) = &self.road {
            let datagrams: Vec<&[u8]> = datagrams.into_iter().collect();
            return send_in_turn(line, &datagrams).await;
        }
        let dressed = self.dress(datagrams);
        match &self.road {
            Road::Dtls(_) => Ok(0),
            Road::Quic { channel, .. } => tokio::select! {
                biased;
                sent = hand_over_in_turn(&channel.link.connection, &dressed) => sent,
                () = channel.inbox.over.cancelled() => channel.inbox.check().map(|()| 0),
            },
            Road::Tcp { outbox, .. } => {
                for datagram in &dressed {
                    outbox.push_when_there_is_room(datagram).await?;
                }
                Ok(dressed.len())
            }
        }
    }

    /// The next datagram.
    ///
    /// # Errors
    /// Where all is over.
    pub async fn recv(&self) -> Result<Bytes, DatagramError> {
        let mut one = Vec::with_capacity(1);
        loop {
            self.recv_many(&mut one, 1).await?;
            if let Some(datagram) = one.pop() {
                return Ok(datagram);
            }
        }
    }

    /// Waits for a datagram and appends what is there to `out`, `most` at most; says how many. Nothing is lost where the
    /// call is given up. One task at a time receives.
    ///
    /// # Errors
    /// Where all is over.
    pub async fn recv_many(&self, out: &mut Vec<Bytes>, most: usize) -> Result<usize, DatagramError> {
        match &self.road {
            Road::Quic { channel, .. } => channel.recv(out, most).await,
            Road::Dtls(line) => line.inbox.recv(out, most).await,
            Road::Tcp { outbox, reader } => {
                let received = reader.lock().await.recv(out, most).await;
                if let Err(error) = &received {
                    outbox.end(error.clone());
                }
                received
            }
        }
    }

    fn check(&self) -> Result<(), DatagramError> {
        match &self.road {
            Road::Quic { channel, .. } => channel.inbox.check(),
            Road::Tcp { outbox, .. } => outbox.check(),
            Road::Dtls(line) => line.inbox.check(),
        }
    }

    /// Copies datagrams as the road needs them, without those that are too large.
    fn dress<'a>(&self, datagrams: impl IntoIterator<Item = &'a [u8]>) -> Vec<Bytes> {
        let most = self.max_size();
        let fitting: Vec<&[u8]> = datagrams.into_iter().filter(|datagram| datagram.len() <= most).collect();
        let flow = match &self.road {
            Road::Quic { flow, .. } => Some(flow),
            Road::Tcp { .. } | Road::Dtls(_) => None,
        };
        let prefix = flow.map_or(0, |flow| flow.length());
        // One piece of memory for all of them.
        let mut all = BytesMut::with_capacity(fitting.iter().map(|datagram| prefix + datagram.len()).sum());
        let each = fitting.into_iter().map(|datagram| {
            if let Some(flow) = flow {
                flow.put(&mut all);
            }
            all.extend_from_slice(datagram);
            all.split().freeze()
        });
        each.collect()
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams")
            .field("peer", &self.peer)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// Whoever waits for datagrams of one flow takes those of all flows of the connection to where they belong: with one
    /// flow, the usual case, they pass through no other task.
    async fn recv(&self, out: &mut Vec<Bytes>, most: usize) -> Result<usize, DatagramError> {
        loop {
            let taken = self.inbox.take(out, most);
            if taken > 0 || most == 0 {
                return Ok(taken);
            }
            self.inbox.check()?;
            let mut batch = [const { Bytes::new() }; BATCH];
            tokio::select! {
                biased;
                () = self.inbox.filled.notified() => {}
                () = self.inbox.over.cancelled() => {}
                read = self.link.connection.read_many_datagrams(&mut batch) => match read {
                    Ok(read) => self.link.flows.deliver(&mut batch[..read]),
                    Err(error) => self.inbox.end(lost(&error)),
                },
            }
        }
    }
}

impl Reader {
    async fn recv(&mut self, out: &mut Vec<Bytes>, most: usize) -> Result<usize, DatagramError> {
        loop {
            let before = out.len();
            out.extend(std::iter::from_fn(|| self.frames.next()).take(most));
            if out.len() > before || most == 0 {
                return Ok(out.len() - before);
            }
            self.frames.buffer().reserve(MAX_FRAME_BYTES);
            match self.stream.read_buf(self.frames.buffer()).await {
                Ok(0) => return Err(DatagramError::Ended),
                Ok(_) => {}
                Err(error) => return Err(ended(&error)),
            }
        }
    }
}

/// What the failure of a stream means for datagrams.
fn ended(error: &io::Error) -> DatagramError {
    match error.kind() {
        io::ErrorKind::ConnectionAborted => DatagramError::Cut,
        _ => DatagramError::Ended,
    }
}

/// What the loss of a QUIC connection means for datagrams.
fn lost(error: &noq::ConnectionError) -> DatagramError {
    match error {
        noq::ConnectionError::LocallyClosed => DatagramError::Cut,
        _ => DatagramError::Ended,
    }
}

/// Waits for the end of the stream that datagrams belong to. Nothing is said on it, so whatever comes is the end.
async fn watch(mut stream: Stream, inbox: Arc<Queue>) {
    let why = match stream.read_u8().await {
        Err(error) => ended(&error),
        Ok(_) => DatagramError::Ended,
    };
    inbox.end(why);
}

/// Writes what is in the outbox, as long as the stream takes it.
async fn write_frames(mut stream: WriteHalf<Stream>, outbox: Arc<Queue>) {
    let mut frames = BytesMut::new();
    loop {
        outbox.gather(&mut frames);
        if frames.is_empty() {
            outbox.filled.notified().await;
            continue;
        }
        outbox.emptied.notify_waiters();
        let written = async {
            stream.write_all(&frames).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            return outbox.end(ended(&error));
        }
        frames.clear();
    }
}

/// Gives datagrams to a QUIC connection, which drops the oldest where it has no room.
fn hand_over(connection: &noq::Connection, datagrams: &[Bytes]) -> Result<usize, DatagramError> {
    match connection.send_many_datagrams(datagrams) {
        Ok(sent) => Ok(sent),
        // The path carries less than a moment ago.
        Err(noq::SendDatagramError::TooLarge) if datagrams.len() > 1 => {
            datagrams.iter().map(|one| hand_over(connection, std::slice::from_ref(one))).sum()
        }
        Err(noq::SendDatagramError::TooLarge) => Ok(0),
        Err(noq::SendDatagramError::ConnectionLost(error)) => Err(lost(&error)),
        Err(_) => Err(DatagramError::Ended),
    }
}

/// Gives datagrams to a DTLS association as the system has room.
async fn send_in_turn(line: &Line, datagrams: &[&[u8]]) -> Result<usize, DatagramError> {
    let mut sent = 0;
    for some in datagrams.chunks(DTLS_BATCH) {
        tokio::select! {
            () = line.room() => {}
            () = line.inbox.over.cancelled() => {}
        }
        line.inbox.check()?;
        sent += line.send(some.iter().copied());
    }
    Ok(sent)
}

/// Gives datagrams to a QUIC connection as it has room.
async fn hand_over_in_turn(
    connection: &noq::Connection,
    datagrams: &[Bytes],
) -> Result<usize, DatagramError> {
    let (mut rest, mut sent) = (datagrams, 0);
    while let Some(first) = rest.first() {
        let mut room = connection.datagram_send_buffer_space().saturating_sub(SLACK_BYTES);
        let fits = rest.iter().take_while(|one| match room.checked_sub(one.len()) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        // Without room, the connection itself says when there is some again.
        if now.len() == 1 {
            sent += match connection.send_datagram_wait(first.clone()).await {
                Ok(()) => 1,
                Err(noq::SendDatagramError::TooLarge) => 0,
                Err(noq::SendDatagramError::ConnectionLost(error)) => return Err(lost(&error)),
                Err(_) => return Err(DatagramError::Ended),
            };
        } else {
            sent += hand_over(connection, now)?;
        }
        rest = later;
    }
    Ok(sent)
}

impl Stream {
    /// Has the system hold little that is not on its way yet: what waits here can still be dropped.
    fn limit_unsent(&mut self) {
        if self.path().transport == Transport::Tcp {
            tcp::limit_unsent(self.carrier());
        }
    }
}
