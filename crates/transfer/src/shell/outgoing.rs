use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kith_sansio::{Machine, Span, system};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::pump::{Batch, RING};
use super::{Arrival, FrameReader, SendOptions};
use crate::cancel::Cancel;
use crate::error::{SendError, Summary};
use crate::frame::{self, Failed, Frame, HEADER_BYTES, Have, Head, Proof, Reason, Resume, TransferId};
use crate::hash::{GROUP_BYTES, GroupHasher, Root, group_length, groups_of};
use crate::offer::answer_within;
use crate::progress::Progress;
use crate::sender::{Input, Job, Output, Sender};
use crate::tree::{LocalOffer, OpenFile, SourceFiles, read_full, values};

/// How long a farewell or a last word may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Group values in one Proof frame: few, so that both sides hash at the same time.
const PROOF_VALUES: u32 = 64;

/// Offers the files and sends what the receiver does not have; returns with the receiver's account.
///
/// It keeps a thread busy with reading and hashing while it runs. Dropping the future ends the transfer without a
/// word to the receiver; `cancel` ends it with one.
pub async fn send<S>(
    stream: S,
    offer: &LocalOffer,
    mut options: SendOptions,
    progress: Arc<Progress>,
    cancel: Cancel,
) -> Result<Summary, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    progress.begin(offer.offer());
    options.accept_within = answer_within(offer.offer().entries().len(), options.accept_within);
    let (reader, writer) = tokio::io::split(stream);
    let mut session = Session {
        machine: Sender::new(offer.offer().clone(), options.accept_within),
        frames: FrameReader::new(reader),
        outbox: Outbox { writer, queue: VecDeque::new(), written: 0, dirty: false },
        job: None,
        waiting: None,
        stop: StopOnDrop(Arc::default()),
        local: offer.clone(),
        proved: Proved::default(),
        progress,
        options,
    };
    session.run(cancel).await
}

struct Session<S> {
    machine: Sender,
    frames: FrameReader<ReadHalf<S>>,
    outbox: Outbox<WriteHalf<S>>,
    job: Option<RunningJob>,
    /// A job that waits for the gate.
    waiting: Option<Job>,
    stop: StopOnDrop,
    local: LocalOffer,
    proved: Proved,
    progress: Arc<Progress>,
    options: SendOptions,
}

/// Roots of prefixes that were proved, so that going on behind them does not hash them again.
type Proved = Arc<Mutex<HashMap<u32, Root>>>;

/// Tells the reading thread to stop when the future that it works for is gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

struct RunningJob {
    batches: mpsc::Receiver<Batch>,
    free: blocking::Sender<Vec<u8>>,
}

enum Event {
    Cancelled,
    Arrived(Arrival),
    Batch(Option<Batch>),
    Wrote(io::Result<Option<Batch>>),
    Opened,
    Due,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    async fn run(&mut self, cancel: Cancel) -> Result<Summary, SendError> {
        let mut cancelled = false;
        loop {
            self.machine.handle_timeout(system::now(), &mut system::OsRng);
            while let Some(output) = self.machine.poll_output() {
                match output {
                    Output::Send(frame) => self.outbox.push(&frame),
                    Output::Run(Job::Offer) => self.start(Job::Offer),
                    Output::Run(job) => {
                        self.progress.set_accepted();
                        self.waiting = Some(job);
                    }
                    Output::Halt => {
                        self.stop.0.store(true, Relaxed);
                        (self.job, self.waiting) = (None, None);
                        self.outbox.drop_what_waits();
                    }
                    Output::Finished(result) => {
                        self.farewell().await;
                        return result;
                    }
                }
            }
            match self.event(&cancel, cancelled).await {
                Event::Cancelled => {
                    cancelled = true;
                    self.feed(Input::Cancel(cancel.reason()));
                }
                Event::Arrived(arrival) => self.arrived(arrival),
                Event::Batch(Some(batch)) => self.outbox.queue.push_back(batch),
                Event::Batch(None) => self.job_ended(),
                Event::Wrote(Ok(batch)) => self.wrote(batch),
                Event::Opened => {
                    if let Some(job) = self.waiting.take() {
                        self.start(job);
                    }
                }
                Event::Due => {}
                Event::Wrote(Err(error)) => self.last_words(error).await,
            }
        }
    }

    /// Waits for whatever comes first.
    async fn event(&mut self, cancel: &Cancel, cancelled: bool) -> Event {
        let due = self.machine.poll_timeout();
        let sleep = async {
            match due {
                Some(time) => tokio::time::sleep_until(system::instant(time).into()).await,
                None => std::future::pending().await,
            }
        };
        let (writing, dirty) = (!self.outbox.queue.is_empty(), self.outbox.dirty);
        let batch = async {
            match &mut self.job {
                Some(job) => job.batches.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled(), if !cancelled => Event::Cancelled,
            arrival = self.frames.next() => Event::Arrived(arrival),
            batch = batch, if !writing => Event::Batch(batch),
            () = self.options.gate.opened(), if self.waiting.is_some() => Event::Opened,
            wrote = self.outbox.write(&self.progress), if writing || dirty => Event::Wrote(wrote),
            () = sleep => Event::Due,
        }
    }

    fn feed(&mut self, input: Input) {
        self.machine.handle_input(system::now(), input, &mut system::OsRng);
        self.progress.set_resumed(self.machine.resumed_bytes());
    }

    fn arrived(&mut self, arrival: Arrival) {
        self.feed(match arrival {
            Arrival::Frame(frame) => Input::Frame(frame),
            Arrival::Bad(violation) => Input::Bad(violation),
            Arrival::Lost(error) => Input::Lost(error),
        });
    }

    fn wrote(&mut self, batch: Option<Batch>) {
        if let (Some(job), Some(batch)) = (&self.job, batch) {
            let _job_needs_no_more = job.free.send(batch.into_buffer());
        }
    }

    fn start(&mut self, job: Job) {
        let (batch_out, batches) = mpsc::channel(RING);
        let (free, free_in) = blocking::channel();
        for _ in 1..RING {
            let _receiver_is_here = free.send(Vec::new());
        }
        let maker = Maker {
            out: batch_out,
            free: free_in,
            batch: Batch::reuse(Vec::new()),
            scratch: Vec::new(),
            stop: Arc::clone(&self.stop.0),
            progress: Arc::clone(&self.progress),
            answer_within: answer_secs(self.options.accept_within),
            local: self.local.clone(),
            proved: Arc::clone(&self.proved),
        };
        let id = self.options.id;
        tokio::task::spawn_blocking(move || maker.run(id, job));
        self.job = Some(RunningJob { batches, free });
    }

    fn job_ended(&mut self) {
        self.job = None;
        self.feed(Input::JobDone);
    }

    /// The stream cannot be written any more; perhaps the receiver said why.
    async fn last_words(&mut self, error: io::Error) {
        let said = tokio::time::timeout(FAREWELL, self.frames.next()).await;
        match said {
            Ok(Arrival::Frame(frame @ (Frame::Abort(_) | Frame::Refuse(_)))) => {
                self.feed(Input::Frame(frame));
            }
            _ => self.feed(Input::Lost(error)),
        }
        // Where a refusal is out of place the machine complains; either way it has finished.
        self.outbox.queue.clear();
    }

    /// Sends what is queued, a goodbye among it, within a short time: nobody may be listening.
    async fn farewell(&mut self) {
        let goodbye = async {
            while !self.outbox.queue.is_empty() {
                if self.outbox.write(&self.progress).await.is_err() {
                    return;
                }
            }
            let _nobody_listens = self.outbox.writer.flush().await;
            let _nobody_listens = self.outbox.writer.shutdown().await;
        };
        let _nobody_listens = tokio::time::timeout(FAREWELL, goodbye).await;
    }
}

/// What waits to be written.
struct Outbox<W> {
    writer: W,
    queue: VecDeque<Batch>,
    /// Bytes of the first batch that were written.
    written: usize,
    dirty: bool,
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    fn push(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame::encode(frame, &mut bytes);
        self.queue.push_back(Batch::of(bytes));
    }

    /// Forgets what is queued, so that a last word need not wait for it; a batch that is on its way is finished.
    fn drop_what_waits(&mut self) {
        self.queue.truncate(usize::from(self.written > 0));
    }

    /// Writes some, or flushes where nothing is queued; returns a batch that was written to its end. Dropping the
    /// future loses nothing.
    async fn write(&mut self, progress: &Progress) -> io::Result<Option<Batch>> {
        let Some(batch) = self.queue.front() else {
            self.writer.flush().await?;
            self.dirty = false;
            return Ok(None);
        };
        let all = batch.filled().len();
        if self.written < all {
            let count = self.writer.write(&batch.filled()[self.written..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let content = |written: usize| batch.content * written as u64 / all.max(1) as u64;
            progress.add_moved(content(self.written + count) - content(self.written));
            self.written += count;
            self.dirty = true;
        }
        if self.written < all {
            return Ok(None);
        }
        self.written = 0;
        Ok(self.queue.pop_front())
    }
}

/// The time for an answer as the offer tells it.
fn answer_secs(within: Span) -> u32 {
    let most = frame::MAX_ANSWER_SECS;
    u32::try_from(within.as_secs()).unwrap_or(most).clamp(1, most)
}

/// Bytes that are read and hashed at a time, so that they are still in the nearest cache for the hash.
const PIECE_BYTES: usize = 128 << 10;

/// The transfer ended while its files were being read.
struct Stopped;

/// Reads and hashes on a thread of its own, and packs frames into batches.
struct Maker {
    out: mpsc::Sender<Batch>,
    free: blocking::Receiver<Vec<u8>>,
    batch: Batch,
    scratch: Vec<u8>,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    answer_within: u32,
    local: LocalOffer,
    proved: Proved,
}

impl Maker {
    fn run(mut self, id: TransferId, job: Job) {
        let made = match job {
            Job::Offer => self.offer(id),
            Job::Prove(haves) => self.prove(&haves),
            Job::Stream(resumes) => self.stream(&resumes),
        };
        if made.and_then(|()| self.flush()).is_err() {
            tracing::trace!("reading was stopped");
        }
    }

    fn offer(&mut self, id: TransferId) -> Result<(), Stopped> {
        let offer = self.local.offer().clone();
        self.put(&Frame::Offer(Head {
            version: frame::VERSION,
            id: id.0,
            entries: offer.entries().len() as u32,
            files: offer.files(),
            bytes: offer.bytes(),
            answer_within: self.answer_within,
        }))?;
        let mut outcome = Ok(());
        frame::entries_frames(offer.entries(), |bytes| {
            if outcome.is_ok() {
                outcome = self.put_bytes(&bytes);
            }
        });
        outcome?;
        self.put(&Frame::OfferEnd)
    }

    fn prove(&mut self, haves: &[Have]) -> Result<(), Stopped> {
        let mut files = SourceFiles::new(&self.local);
        for have in haves {
            self.progress.set_current(have.index);
            let opened = files.open(have.index).ok().filter(OpenFile::is_unchanged);
            let mut root = Root::default();
            let mut first = 0;
            while first < have.groups {
                let count = PROOF_VALUES.min(have.groups - first);
                let stop = Arc::clone(&self.stop);
                let own = opened.as_ref().map_or_else(Vec::new, |open| {
                    values(&open.file, open.size, first, count, || !stop.load(Relaxed))
                });
                own.iter().for_each(|value| root.push(*value));
                let short = own.len() < count as usize;
                let last = short || first + count == have.groups;
                self.put(&Frame::Proof(Proof { index: have.index, first, values: own.concat(), last }))?;
                if have.groups > PROOF_VALUES {
                    self.flush()?;
                }
                if short {
                    break;
                }
                first += count;
            }
            if self.local.offer().groups(have.index).is_some_and(|groups| root.groups() < groups) {
                self.proved.lock().unwrap_or_else(PoisonError::into_inner).insert(have.index, root);
            }
        }
        Ok(())
    }

    fn stream(&mut self, resumes: &[Resume]) -> Result<(), Stopped> {
        let offer = self.local.offer().clone();
        let mut files = SourceFiles::new(&self.local);
        let mut resumes = resumes.iter().peekable();
        let mut done = 0;
        for (index, entry) in offer.indexed() {
            let Some(size) = entry.size() else { continue };
            let listed = resumes.next_if(|resume| resume.index == index);
            if listed.is_none_or(|resume| resume.first != groups_of(size)) {
                self.progress.set_current(index);
                let first = listed.map_or(0, |resume| resume.first);
                if let Err(reason) = self.file(&mut files, index, first)? {
                    self.put(&Frame::FileFailed(Failed { index, reason }))?;
                }
            }
            done += 1;
            self.progress.set_files_done(done);
        }
        Ok(())
    }

    /// One file; the reason where it fails, which the caller sends.
    fn file(
        &mut self,
        files: &mut SourceFiles,
        index: u32,
        first: u32,
    ) -> Result<Result<(), Reason>, Stopped> {
        let open = match files.open(index) {
            Ok(open) => open,
            Err(reason) => return Ok(Err(reason)),
        };
        let groups = groups_of(open.size);
        // A small file is looked at once, after it was read: nothing of it leaves if it turns out to be another.
        if (groups != 1 || first > 0) && !open.is_unchanged() {
            return Ok(Err(Reason::Changed));
        }
        let Some(mut root) = self.prefix(&open, index, first) else { return Ok(Err(Reason::Changed)) };
        self.put(&Frame::FileStart { index, first })?;
        for group in first..groups {
            match self.group(&open, group, groups)? {
                Ok(value) => root.push(value),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        if !open.is_unchanged() {
            if groups == 1 && first == 0 {
                // It may never have been what was offered; nothing of it was handed out yet.
                let length = group_length(open.size, 0);
                self.batch.take_back(HEADER_BYTES + length + 32);
                self.batch.content -= length as u64;
            }
            return Ok(Err(Reason::Changed));
        }
        self.put(&Frame::FileEnd { root: root.finish() })?;
        Ok(Ok(()))
    }

    /// The root so far of a file that goes on at group `first`.
    fn prefix(&self, open: &OpenFile, index: u32, first: u32) -> Option<Root> {
        let proved = self.proved.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
        if let Some(root) = proved.filter(|root| root.groups() == first) {
            return Some(root);
        }
        let mut root = Root::default();
        while root.groups() < first {
            let count = PROOF_VALUES.min(first - root.groups());
            let own = values(&open.file, open.size, root.groups(), count, || !self.stop.load(Relaxed));
            if own.len() < count as usize {
                return None;
            }
            own.into_iter().for_each(|value| root.push(value));
        }
        Some(root)
    }

    fn group(
        &mut self,
        open: &OpenFile,
        group: u32,
        groups: u32,
    ) -> Result<Result<[u8; 32], Reason>, Stopped> {
        let length = group_length(open.size, group);
        self.room(HEADER_BYTES + length + 32)?;
        let space = self.batch.space(HEADER_BYTES + length + 32);
        let (header, space) = space.split_at_mut(HEADER_BYTES);
        let (bytes, value) = space.split_at_mut(length);
        let mut hasher = GroupHasher::new(group, groups);
        let mut offset = u64::from(group) * GROUP_BYTES as u64;
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            match read_full(&open.file, piece, offset) {
                Ok(true) => hasher.update(piece),
                Ok(false) => return Ok(Err(Reason::Changed)),
                Err(_) => return Ok(Err(Reason::Unreadable)),
            }
            offset += piece.len() as u64;
        }
        header.copy_from_slice(&frame::group_header(length));
        let own = hasher.finish();
        value.copy_from_slice(&own);
        self.batch.advance(HEADER_BYTES + length + 32);
        self.batch.content += length as u64;
        Ok(Ok(own))
    }

    fn put(&mut self, frame: &Frame) -> Result<(), Stopped> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        frame::encode(frame, &mut scratch);
        let put = self.put_bytes(&scratch);
        self.scratch = scratch;
        put
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.room(bytes.len())?;
        self.batch.put(bytes);
        Ok(())
    }

    fn room(&mut self, bytes: usize) -> Result<(), Stopped> {
        if self.batch.has_room(bytes) { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        if self.stop.load(Relaxed) {
            return Err(Stopped);
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let full = std::mem::take(&mut self.batch);
        self.out.blocking_send(full).map_err(|_| Stopped)?;
        self.batch = Batch::reuse(self.free.recv().map_err(|_| Stopped)?);
        Ok(())
    }
}
