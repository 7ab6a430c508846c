use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use kith_sansio::{Machine, Span, system};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::pump::{Chunk, RING};
use super::{Arrival, FrameReader, read_more, take_frame, write_frame};
use crate::cancel::Cancel;
use crate::error::{ReceiveError, Summary, Violation};
use crate::frame::{self, AbortReason, Frame, Head, Message, Notice, Refusal, TransferId};
use crate::hash::group_value;
use crate::offer::{MAX_ENTRIES, MAX_FILE_BYTES, MAX_OFFER_BYTES, Offer, OfferError};
use crate::progress::Progress;
use crate::receiver::{Input, Output, Receiver};
use crate::tree::{Folder, Target, Trouble};

/// How long a goodbye may take, and how much is read away meanwhile so that the sender gets to read it.
const FAREWELL: Duration = Duration::from_secs(2);
const READ_AWAY_BYTES: usize = 64 << 20;

/// What a receiver is ready to be offered, besides the protocol's own limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries at most.
    pub max_entries: u32,
    /// Bytes of all files at most.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_entries: MAX_ENTRIES, max_bytes: MAX_FILE_BYTES }
    }
}

/// A checked offer that waits for an answer.
#[derive(Debug)]
pub struct IncomingOffer {
    id: TransferId,
    offer: Offer,
    answer_within: Span,
    /// What the sender said after it.
    ahead: Vec<u8>,
}

impl IncomingOffer {
    /// The sender's name for the transfer.
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// What is offered. Cheap to clone.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// How long it may wait for an answer here: as long as the sender waits, and a large one no longer than
    /// [`answer_within`](crate::answer_within) says.
    pub fn answer_within(&self) -> Span {
        crate::offer::answer_within(self.offer.entries().len(), self.answer_within)
    }

    /// Waits until the sender withdraws the offer or is gone, for callers that wait for a person's answer meanwhile;
    /// dropping the future loses nothing.
    pub async fn withdrawn<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> ReceiveError {
        loop {
            match take_frame(&mut self.ahead) {
                Ok(Some(Frame::Abort(reason))) => return ReceiveError::Aborted(reason),
                Ok(Some(_)) => return Violation::Unexpected("before the offer was answered").into(),
                Err(violation) => return violation.into(),
                Ok(None) => {}
            }
            if let Err(source) = read_more(stream, &mut self.ahead).await {
                return ReceiveError::ConnectionLost { source };
            }
        }
    }
}

/// What a stream begins with.
#[derive(Debug)]
pub enum Opening {
    /// Files are offered.
    Offer(IncomingOffer),
    /// The peer tells how a transfer stands, to be answered with [`answer`](super::answer).
    Notice(Notice),
}

/// Reads and checks an offer. One that breaks a rule or limit is answered with a refusal.
pub async fn read_offer<S>(stream: &mut S, limits: &Limits) -> Result<IncomingOffer, ReceiveError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    match read_opening(stream, limits).await? {
        Opening::Offer(offer) => Ok(offer),
        Opening::Notice(_) => Err(Violation::Unexpected("before the offer").into()),
    }
}

/// Reads and checks what a stream begins with. An offer that breaks a rule or limit is answered with a refusal.
pub async fn read_opening<S>(stream: &mut S, limits: &Limits) -> Result<Opening, ReceiveError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut frames = FrameReader::new(&mut *stream);
    let read = read_frames(&mut frames, limits).await;
    let ahead = std::mem::take(&mut frames.buffer);
    match read {
        Ok(Read::Notice(notice)) => Ok(Opening::Notice(notice)),
        Ok(Read::Offer(head, offer)) => Ok(Opening::Offer(IncomingOffer {
            id: TransferId(head.id),
            offer,
            answer_within: Span::secs(head.answer_within.into()),
            ahead,
        })),
        Err(error) => {
            if matches!(error, ReceiveError::Peer(_) | ReceiveError::OverLimit { .. }) {
                let goodbye = refuse(stream, Refusal::Invalid);
                let _nobody_listens = tokio::time::timeout(FAREWELL, goodbye).await;
            }
            Err(error)
        }
    }
}

async fn read_frames<R: AsyncRead + Unpin>(
    frames: &mut FrameReader<R>,
    limits: &Limits,
) -> Result<Read, ReceiveError> {
    let head = match next(frames).await? {
        Frame::Offer(head) => head,
        Frame::Notice(notice) => return spoken(notice.version).map(|()| Read::Notice(notice)),
        _ => return Err(Violation::Unexpected("before the offer").into()),
    };
    spoken(head.version)?;
    if head.entries > limits.max_entries || head.bytes > limits.max_bytes {
        return Err(ReceiveError::OverLimit { entries: head.entries.into(), bytes: head.bytes });
    }
    let mut entries = Vec::new();
    let start = frames.consumed;
    loop {
        match next(frames).await? {
            Frame::Entries(more) => entries.extend(more),
            Frame::OfferEnd => break,
            _ => return Err(Violation::Unexpected("inside an offer").into()),
        }
        if entries.len() > head.entries as usize || frames.consumed - start > MAX_OFFER_BYTES {
            return Err(Violation::Offer(OfferError::TooLarge { entries: entries.len() as u64 }).into());
        }
    }
    let checked = tokio::task::spawn_blocking(move || Offer::new(entries)).await;
    let offer = checked.map_err(|_| ReceiveError::Worker)?.map_err(Violation::Offer)?;
    if !totals_agree(&head, &offer) {
        return Err(Violation::Offer(OfferError::Totals).into());
    }
    Ok(Read::Offer(head, offer))
}

/// What was read at the beginning of a stream.
enum Read {
    Offer(Head, Offer),
    Notice(Notice),
}

fn spoken(version: u8) -> Result<(), ReceiveError> {
    if version == frame::VERSION { Ok(()) } else { Err(Violation::Version(version).into()) }
}

fn totals_agree(head: &Head, offer: &Offer) -> bool {
    head.entries as usize == offer.entries().len()
        && head.files == offer.files()
        && head.bytes == offer.bytes()
}

async fn next<R: AsyncRead + Unpin>(frames: &mut FrameReader<R>) -> Result<Frame, ReceiveError> {
    match frames.next().await {
        Arrival::Frame(Frame::Abort(reason)) => Err(ReceiveError::Aborted(reason)),
        Arrival::Frame(frame) => Ok(frame),
        Arrival::Bad(violation) => Err(violation.into()),
        Arrival::Lost(source) => Err(ReceiveError::ConnectionLost { source }),
    }
}

/// Refuses an offer that was read, and ends the stream.
pub async fn refuse<S>(mut stream: S, reason: Refusal) -> io::Result<()>
where
    S: AsyncWrite + Unpin + Send,
{
    write_frame(&mut stream, &Frame::Refuse(reason)).await?;
    stream.shutdown().await
}

/// Accepts an offer and receives it into a folder; returns when everything is on disk.
///
/// It keeps a thread busy with hashing and writing while it runs. After an error, partial files stay in the target
/// folder under `.kith-partial-ID`; see [`Target::staging`].
pub async fn receive<S>(
    stream: S,
    incoming: IncomingOffer,
    target: Target,
    progress: Arc<Progress>,
    cancel: Cancel,
) -> Result<Summary, ReceiveError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    progress.begin(&incoming.offer);
    let (reader, writer) = tokio::io::split(stream);
    let (to_disk, disk_in) = mpsc::channel(RING + 4);
    let (disk_out, from_disk) = mpsc::channel(64);
    let (free, free_in) = mpsc::channel(RING);
    for _ in 1..RING {
        let _receiver_is_here = free.try_send(Vec::new());
    }
    let stop = StopOnDrop(Arc::default());
    let disk = Disk {
        machine: Receiver::new(incoming.offer.clone(), target.overwrite),
        folder: None,
        out: disk_out,
        free,
        stop: Arc::clone(&stop.0),
        progress: Arc::clone(&progress),
    };
    let (id, offer) = (incoming.id, incoming.offer);
    tokio::task::spawn_blocking(move || disk.run(&offer, id, &target, disk_in));
    let first = Chunk::reuse(Vec::new(), &incoming.ahead);
    let mut session = Session {
        reader,
        writer,
        to_disk,
        from_disk,
        free: free_in,
        chunk: Some(first),
        stop,
        progress,
        muted: false,
    };
    session.run(cancel).await
}

/// Tells the writing thread to stop when the future that it works for is gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What the disk thread is given.
enum Work {
    Chunk(Chunk),
    Bad(Violation),
    Lost(io::Error),
    Cancel(AbortReason),
}

/// What the disk thread gives back.
enum Report {
    Send(Vec<u8>),
    Finished(Box<Result<Summary, ReceiveError>>),
}

struct Session<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    to_disk: mpsc::Sender<Work>,
    from_disk: mpsc::Receiver<Report>,
    free: mpsc::Receiver<Vec<u8>>,
    /// The chunk being filled; `None` while all buffers are with the disk, or nothing more comes.
    chunk: Option<Chunk>,
    stop: StopOnDrop,
    progress: Arc<Progress>,
    /// Nothing can be said any more: the last frame was not written to its end.
    muted: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    async fn run(&mut self, cancel: Cancel) -> Result<Summary, ReceiveError> {
        let (mut cancelled, mut over) = (false, false);
        // What came ahead of its time may be whole frames already.
        let mut rest = Vec::new();
        self.filled(0, &mut rest, &mut over);
        loop {
            let waiting = self.chunk.is_none() && !over;
            let window = match &mut self.chunk {
                Some(chunk) if !over => chunk.window(),
                _ => &mut [],
            };
            let reading = !window.is_empty();
            tokio::select! {
                biased;
                () = cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    self.stop.0.store(true, Relaxed);
                    self.tell(Work::Cancel(cancel.reason()));
                }
                report = self.from_disk.recv() => match report {
                    Some(Report::Send(_)) if self.muted => {}
                    Some(Report::Send(bytes)) => {
                        if let Err(error) = self.send(&bytes, &cancel).await {
                            over = true;
                            self.muted = true;
                            // Whoever gave up a peer that reads nothing has cancelled, and lost nothing.
                            if !cancel.is_cancelled() {
                                self.tell(Work::Lost(error));
                            }
                        }
                    }
                    Some(Report::Finished(result)) => {
                        self.farewell(&result).await;
                        return *result;
                    }
                    None => return Err(ReceiveError::Worker),
                },
                buffer = self.free.recv(), if waiting => match buffer {
                    Some(buffer) => {
                        self.chunk = Some(Chunk::reuse(buffer, &rest));
                        self.filled(0, &mut rest, &mut over);
                    }
                    // The disk thread is about to say why.
                    None => over = true,
                },
                count = fill(&mut self.reader, window), if reading => match count {
                    Ok(0) => {
                        over = true;
                        self.end(io::ErrorKind::UnexpectedEof.into());
                    }
                    Ok(count) => self.filled(count, &mut rest, &mut over),
                    Err(error) => {
                        over = true;
                        self.end(error);
                    }
                },
            }
        }
    }

    /// Bytes were read: hand over what is whole.
    fn filled(&mut self, count: usize, rest: &mut Vec<u8>, over: &mut bool) {
        let Some(mut chunk) = self.chunk.take() else { return };
        let before = chunk.content;
        let scanned = if count == 0 { chunk.scan() } else { chunk.read(count) };
        self.progress.add_moved(chunk.content - before);
        match scanned {
            Ok(()) if chunk.is_ready() => {
                rest.clear();
                rest.extend_from_slice(chunk.rest());
                self.tell(Work::Chunk(chunk));
            }
            Ok(()) => self.chunk = Some(chunk),
            Err(error) => {
                // What came before the bad frame counts.
                self.tell(Work::Chunk(chunk));
                self.tell(Work::Bad(error.into()));
                *over = true;
            }
        }
    }

    /// Nothing more comes; what came before the end counts.
    fn end(&mut self, error: io::Error) {
        if let Some(chunk) = self.chunk.take() {
            self.tell(Work::Chunk(chunk));
        }
        self.tell(Work::Lost(error));
    }

    fn tell(&mut self, work: Work) {
        // There are fewer buffers than places in the channel, and each other message is sent once.
        let _disk_has_ended = self.to_disk.try_send(work);
    }

    /// Writes a frame; once cancelled, for no longer than a goodbye may take.
    async fn send(&mut self, bytes: &[u8], cancel: &Cancel) -> io::Result<()> {
        let writing = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        let given_up = async {
            cancel.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            biased;
            written = writing => written,
            () = given_up => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Ends the stream so that the sender can still read what was said last.
    async fn farewell(&mut self, result: &Result<Summary, ReceiveError>) {
        let goodbye = async {
            if self.writer.shutdown().await.is_err() || result.is_ok() {
                return;
            }
            let mut sink = vec![0; 64 << 10];
            let mut left = READ_AWAY_BYTES;
            while let Ok(count @ 1..) = self.reader.read(&mut sink).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    return;
                }
            }
        };
        let _nobody_listens = tokio::time::timeout(FAREWELL, goodbye).await;
    }
}

/// Reads all that is there at once, as far as the window goes: a TLS stream yields a record of 16 KiB at a time, and
/// waiting for everything else again after each of them would cost more than reading it. 0 at the end of the stream.
async fn fill<R: AsyncRead + Unpin>(reader: &mut R, window: &mut [u8]) -> io::Result<usize> {
    let mut window = ReadBuf::new(window);
    std::future::poll_fn(|cx| {
        while window.remaining() > 0 {
            let before = window.filled().len();
            match Pin::new(&mut *reader).poll_read(cx, &mut window) {
                Poll::Ready(Ok(())) if window.filled().len() > before => {}
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(error)) if before == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if before == 0 => return Poll::Pending,
                // What was read comes first; an error is still there the next time.
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(window.filled().len()))
    })
    .await
}

/// The thread that hashes and writes.
struct Disk {
    machine: Receiver,
    folder: Option<Folder>,
    out: mpsc::Sender<Report>,
    free: mpsc::Sender<Vec<u8>>,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

impl Disk {
    fn run(mut self, offer: &Offer, id: TransferId, target: &Target, mut work: mpsc::Receiver<Work>) {
        let prepared = match Folder::prepare(offer, id, target) {
            Ok((folder, present)) => {
                self.folder = Some(folder);
                Input::Prepared(present)
            }
            Err(error) => Input::Failed(error),
        };
        let mut going = self.feed(prepared, &[]);
        while going {
            going = match work.blocking_recv() {
                Some(Work::Chunk(chunk)) => self.chunk(chunk),
                Some(Work::Bad(violation)) => self.feed(Input::Bad(violation), &[]),
                Some(Work::Lost(error)) => self.feed(Input::Lost(error), &[]),
                Some(Work::Cancel(reason)) => self.feed(Input::Cancel(reason), &[]),
                None => self.feed(Input::Lost(io::ErrorKind::BrokenPipe.into()), &[]),
            };
        }
    }

    /// Goes through the frames of a chunk; `false` at the end of the transfer.
    fn chunk(&mut self, chunk: Chunk) -> bool {
        let mut frames = chunk.frames();
        while !frames.is_empty() && !self.stop.load(Relaxed) {
            let going = match frame::split(frames) {
                Ok(Some((message, end))) => {
                    frames = &frames[end..];
                    self.message(message)
                }
                Ok(None) => break,
                Err(error) => self.feed(Input::Bad(error.into()), &[]),
            };
            if !going {
                return false;
            }
        }
        self.progress.set_files_done(self.machine.files_done());
        let _stream_is_over = self.free.try_send(chunk.into_buffer());
        true
    }

    fn message(&mut self, message: Message<'_>) -> bool {
        match message {
            Message::Control(frame) => self.feed(Input::Frame(frame), &[]),
            Message::Group { bytes, value } => {
                let place = self.machine.place();
                let computed = place.map_or([0; 32], |place| group_value(place.group, place.groups, bytes));
                self.feed(Input::Group { length: bytes.len(), claimed: value, computed }, bytes)
            }
        }
    }

    /// Gives the machine an input and does what it says; `bytes` are those of the group that the input is about.
    fn feed(&mut self, input: Input, bytes: &[u8]) -> bool {
        // The receiving machine has no timers, so the clock is not read for every group.
        let now = kith_sansio::Now::default();
        self.machine.handle_input(now, input, &mut system::OsRng);
        while let Some(output) = self.machine.poll_output() {
            let answer = match output {
                Output::Send(frame) => {
                    let mut encoded = Vec::new();
                    frame::encode(&frame, &mut encoded);
                    let _stream_is_gone = self.out.blocking_send(Report::Send(encoded));
                    self.progress.set_resumed(self.machine.resumed_bytes());
                    None
                }
                Output::Finished(result) => {
                    self.finished(result);
                    return false;
                }
                other => self.touch(&other, bytes),
            };
            if let Some(answer) = answer {
                self.machine.handle_input(now, answer, &mut system::OsRng);
            }
        }
        true
    }

    /// Does something to the file system; the answer for the machine.
    fn touch(&mut self, output: &Output, bytes: &[u8]) -> Option<Input> {
        let folder = self.folder.as_mut()?;
        match *output {
            Output::Hash { index, first, count, whole } => {
                let stop = Arc::clone(&self.stop);
                self.progress.set_current(index);
                Some(Input::Hashed(folder.values((index, first, count), whole, || !stop.load(Relaxed))))
            }
            Output::Keep { index } => folder.keep(index).err().map(|trouble| match trouble {
                // What cannot get the offered mode and time is still there with the offered content.
                Trouble::File(reason) => Input::FileFailed(reason),
                Trouble::World(error) => Input::Failed(error),
            }),
            Output::Open { index, first } => {
                self.progress.set_current(index);
                folder.open(index, first).err().map(Input::Failed)
            }
            Output::Write { offset } => folder.write(offset, bytes).err().map(|trouble| match trouble {
                Trouble::File(reason) => Input::FileFailed(reason),
                Trouble::World(error) => Input::Failed(error),
            }),
            Output::Commit { index } => self.named(|folder| folder.commit(index)),
            Output::Drop { index } => {
                folder.discard(index);
                None
            }
            Output::Settle => {
                let failed = self.named(Folder::settle);
                Some(failed.unwrap_or(Input::Settled))
            }
            Output::Send(_) | Output::Finished(_) => None,
        }
    }

    /// Tells the machine which files could not get their names.
    fn named(
        &mut self,
        act: impl FnOnce(&mut Folder) -> Result<Vec<crate::frame::Failed>, ReceiveError>,
    ) -> Option<Input> {
        match act(self.folder.as_mut()?) {
            Ok(failed) => {
                for failed in failed {
                    self.machine.handle_input(
                        kith_sansio::Now::default(),
                        Input::EntryFailed(failed),
                        &mut system::OsRng,
                    );
                }
                None
            }
            Err(error) => Some(Input::Failed(error)),
        }
    }

    fn finished(&mut self, result: Result<Summary, ReceiveError>) {
        if let (Some(folder), Err(ReceiveError::Cancelled | ReceiveError::ConnectionLost { .. })) =
            (&mut self.folder, &result)
        {
            // What was verified before need not wait for another attempt.
            if folder.name_pending().is_err() {
                tracing::debug!("verified files stay among the partial ones");
            }
        }
        // The lock on the staging folder goes before the caller can try again.
        self.folder = None;
        let _caller_is_gone = self.out.blocking_send(Report::Finished(Box::new(result)));
    }
}
