use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use crate::{Database, StoreError, WriteRows};

/// The most changes that wait for their commit.
const MAX_WAITING: usize = 4096;
/// The most changes that share one commit.
const MAX_BATCH: usize = 512;

/// Group commit: gathers changes from many threads and makes them durable together, one sync for all that came
/// while the one before was under way.
///
/// Changes are applied in the order in which they were submitted, each seeing those before it. One that fails
/// or panics leaves no trace and does not touch the others. Dropping the committer commits what still waits.
#[derive(Debug)]
pub struct Committer {
    database: Database,
    queue: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

/// A change in the queue.
trait Job: Send {
    /// Makes the change; whether its rows are to be committed.
    fn stage(&mut self, rows: &mut WriteRows) -> bool;
    /// Tells its owner how it went, given how the commit went.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Change<T, F, D> {
    change: Option<F>,
    outcome: Option<T>,
    refusal: Option<StoreError>,
    done: D,
}

impl Committer {
    /// Starts the committing thread.
    ///
    /// Where the system gives no thread, every change is refused with [`StoreError::Closed`].
    pub fn start(database: Database) -> Committer {
        let (queue, jobs) = sync_channel(MAX_WAITING);
        let own = database.clone();
        let thread =
            thread::Builder::new().name("kith-commit".to_owned()).spawn(move || run(&own, &jobs)).ok();
        Committer { database, queue: Some(queue), thread }
    }

    /// Hands in a change, without waiting; `done` gets its outcome on the committing thread, once the change is
    /// durable or has failed.
    ///
    /// `done` must be short, because all others wait for it. Where the queue is full it is called at once, on
    /// this thread, with [`StoreError::Busy`].
    pub fn submit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut WriteRows) -> Result<T, StoreError> + Send + 'static,
        done: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) {
        let job = Box::new(Change { change: Some(change), outcome: None, refusal: None, done });
        let path = self.database.path().to_path_buf();
        match self.queue.as_ref().map(|queue| queue.try_send(job)) {
            Some(Ok(())) | None => {}
            Some(Err(TrySendError::Full(job))) => job.finish(Err(StoreError::Busy { path })),
            Some(Err(TrySendError::Disconnected(job))) => job.finish(Err(StoreError::Closed { path })),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            // The last owner may be a `done`, which runs on that very thread.
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl<T, F, D> Job for Change<T, F, D>
where
    T: Send,
    F: FnOnce(&mut WriteRows) -> Result<T, StoreError> + Send,
    D: FnOnce(Result<T, StoreError>) + Send,
{
    fn stage(&mut self, rows: &mut WriteRows) -> bool {
        let Some(change) = self.change.take() else { return false };
        match catch_unwind(AssertUnwindSafe(|| change(rows))) {
            Ok(Ok(value)) => self.outcome = Some(value),
            Ok(Err(error)) => self.refusal = Some(error),
            Err(_) => self.refusal = Some(StoreError::Panicked { path: rows.path().to_path_buf() }),
        }
        self.outcome.is_some()
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let Change { outcome, refusal, done, .. } = *self;
        let result = match (refusal, committed, outcome) {
            (Some(refusal), ..) => Err(refusal),
            (None, Err(error), _) => Err(error),
            (None, Ok(()), Some(value)) => Ok(value),
            // Never asked to stage, and yet committed: does not happen.
            (None, Ok(()), None) => return,
        };
        // A panic there is its owner's bug; the others still get their answers.
        let _ = catch_unwind(AssertUnwindSafe(|| done(result)));
    }
}

fn run(database: &Database, jobs: &Receiver<Box<dyn Job>>) {
    while let Ok(first) = jobs.recv() {
        let mut batch: Vec<_> = std::iter::once(first).chain(jobs.try_iter().take(MAX_BATCH - 1)).collect();
        let committed = commit(database, &mut batch);
        for job in batch {
            job.finish(committed.clone());
        }
    }
}

/// Commits a batch of changes, without those that refuse.
fn commit(database: &Database, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let (mut rows, opening) = database.begin_write()?;
    for job in batch {
        if !job.stage(&mut rows) {
            rows.drop_staged();
        } else if let Err(error) = rows.apply() {
            return database.abandon(rows, opening, error);
        }
    }
    database.finish_write(rows, opening)
}
