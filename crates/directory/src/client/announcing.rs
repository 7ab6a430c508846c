use std::sync::Arc;

use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_identity::tls::Certificate;
use kith_identity::{Authority, Identity};
use kith_sansio::system::{self, OsRng};
use kith_sansio::{Machine, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{AnnounceError, Clock, ClockError, Directory};
use crate::announcer::{self, End, Input, Output};
use crate::store::BoxFuture;

/// How it stands with one authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceStatus {
    /// The authority.
    pub authority: Authority,
    /// Until when its directory holds a set of ours, if it took one.
    pub until: Option<Timestamp>,
    /// Whether it holds what is to be said now.
    pub current: bool,
    /// Why the last attempt failed; nothing after one that did not.
    pub error: Option<String>,
}

/// Keeps a node announced to all its authorities, each with a schedule of its own. Dropping it stops at once;
/// [`withdraw`](Announcer::withdraw) takes back what was said first.
pub struct Announcer {
    wishes: watch::Sender<Wish>,
    board: Arc<Board>,
    tasks: JoinSet<()>,
}

#[derive(Clone, Default)]
struct Wish {
    draft: Option<Draft>,
    /// Counts the drafts.
    number: u64,
    withdraw: bool,
}

/// What all tasks share.
struct Board {
    directory: Directory,
    identity: Arc<Identity>,
    certificate: Certificate,
    clock: Clock,
    statuses: watch::Sender<Vec<AnnounceStatus>>,
    newest: watch::Sender<Option<VerifiedRecordSet>>,
}

impl Announcer {
    /// Starts an announcer that has nothing to say yet. Must be called within a tokio runtime.
    pub fn start(
        directory: Directory,
        identity: Arc<Identity>,
        authorities: Vec<Authority>,
        clock: Clock,
    ) -> Result<Announcer, AnnounceError> {
        let certificate = Certificate::self_signed(&identity).map_err(AnnounceError::Certificate)?;
        let blank = |authority: &Authority| AnnounceStatus {
            authority: authority.clone(),
            until: None,
            current: false,
            error: None,
        };
        let statuses = watch::Sender::new(authorities.iter().map(blank).collect());
        let newest = watch::Sender::new(None);
        let board = Arc::new(Board { directory, identity, certificate, clock, statuses, newest });
        let wishes = watch::Sender::new(Wish::default());
        let mut tasks = JoinSet::new();
        for (place, authority) in authorities.into_iter().enumerate() {
            let task = Task { board: Arc::clone(&board), place, authority, wishes: wishes.subscribe() };
            tasks.spawn(task.run());
        }
        Ok(Announcer { wishes, board, tasks })
    }

    /// Says `draft` from now on; announces it at once where it differs from what is said already.
    pub fn update(&self, draft: Draft) {
        if self.wishes.borrow().draft.as_ref() != Some(&draft) {
            self.say(|wish| wish.draft = Some(draft));
        }
    }

    /// Announces what is said already once more, now.
    pub fn again(&self) {
        self.say(|_| ());
    }

    fn say(&self, change: impl FnOnce(&mut Wish)) {
        self.board.statuses.send_modify(|all| {
            for status in all {
                status.current = false;
                status.error = None;
            }
        });
        self.wishes.send_modify(|wish| {
            change(wish);
            wish.number += 1;
        });
    }

    /// How it stands with each authority, in the order in which they were given.
    pub fn statuses(&self) -> Vec<AnnounceStatus> {
        self.board.statuses.borrow().clone()
    }

    /// The set that was signed last, for peers that are connected.
    pub fn newest(&self) -> Option<VerifiedRecordSet> {
        self.board.newest.borrow().clone()
    }

    /// Waits until every authority holds what is to be said now, or has failed to take it at least once.
    pub async fn settled(&self) {
        let settled =
            |all: &Vec<AnnounceStatus>| all.iter().all(|status| status.current || status.error.is_some());
        // Ends only with the announcer itself, which is alive here.
        let _ = self.board.statuses.subscribe().wait_for(settled).await;
    }

    /// Follows how it stands with each authority.
    pub fn watch(&self) -> watch::Receiver<Vec<AnnounceStatus>> {
        self.board.statuses.subscribe()
    }

    /// Waits until a status is another than `before`.
    pub async fn changed(&self, before: &[AnnounceStatus]) {
        let _ = self.board.statuses.subscribe().wait_for(|all| all != before).await;
    }

    /// Announces a set without addresses and relays wherever something was announced, and stops. Takes as long
    /// as the directories do, at most two attempts each; the caller sets a limit by dropping the future.
    pub async fn withdraw(mut self) {
        self.wishes.send_modify(|wish| wish.withdraw = true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// One authority's schedule at work.
struct Task {
    board: Arc<Board>,
    place: usize,
    authority: Authority,
    wishes: watch::Receiver<Wish>,
}

type Attempt = BoxFuture<'static, (u64, End)>;

impl Task {
    async fn run(mut self) {
        let mut machine = announcer::Announcer::new();
        let mut attempt: Option<Attempt> = None;
        loop {
            while let Some(output) = machine.poll_output() {
                match output {
                    Output::Announce(number) => attempt = Some(self.attempt(number, false)),
                    Output::Withdraw(number) => attempt = Some(self.attempt(number, true)),
                    Output::Finished => return,
                }
            }
            let input = tokio::select! {
                ended = running(&mut attempt) => Some(ended),
                wish = next_wish(&mut self.wishes) => match wish {
                    Some(input) => Some(input),
                    None => return,
                },
                () = until(machine.poll_timeout()) => None,
            };
            match input {
                Some(input) => machine.handle_input(system::now(), input, &mut OsRng),
                None => machine.handle_timeout(system::now(), &mut OsRng),
            }
        }
    }

    fn attempt(&self, number: u64, withdraw: bool) -> Attempt {
        let (board, authority, place) = (Arc::clone(&self.board), self.authority.clone(), self.place);
        let wish = self.wishes.borrow().clone();
        let current = {
            let wishes = self.wishes.clone();
            move |said: u64| wishes.borrow().number == said
        };
        Box::pin(async move {
            let said = wish.number;
            let result = board.announce(&authority, wish.draft.unwrap_or_default(), withdraw).await;
            let end = match &result {
                Ok(_) => End::Taken,
                Err(AnnounceError::Refused { retry_after, .. }) => End::Failed { pause: *retry_after },
                Err(_) => End::Failed { pause: None },
            };
            board.note(place, result, current(said));
            (number, end)
        })
    }
}

impl Board {
    /// Signs and sends; the end of what was sent.
    async fn announce(
        &self,
        authority: &Authority,
        mut draft: Draft,
        withdraw: bool,
    ) -> Result<Timestamp, AnnounceError> {
        if withdraw {
            draft.addresses.clear();
            draft.relays.clear();
        }
        let timestamp = self.timestamp().await?;
        let set = draft.sign(&self.identity, timestamp).map_err(AnnounceError::Draft)?;
        self.newest.send_modify(|newest| {
            if newest.as_ref().is_none_or(|known| known.timestamp() < set.timestamp()) {
                *newest = Some(set.clone());
            }
        });
        self.directory.announce_as(authority, &self.certificate, &set).await?;
        Ok(set.expires())
    }

    /// The next timestamp; remembering it is work for a thread that may block.
    async fn timestamp(&self) -> Result<Timestamp, ClockError> {
        let clock = self.clock.clone();
        let next = tokio::task::spawn_blocking(move || clock.next(system::utc())).await;
        next.unwrap_or_else(|error| Err(ClockError(std::io::Error::other(error))))
    }

    fn note(&self, place: usize, result: Result<Timestamp, AnnounceError>, current: bool) {
        self.statuses.send_modify(|all| {
            let Some(status) = all.get_mut(place) else { return };
            match result {
                Ok(until) => {
                    status.until = Some(until);
                    status.current = current;
                    status.error = None;
                }
                Err(error) => {
                    tracing::debug!(authority = %status.authority, %error, "announce failed");
                    status.error = Some(error.to_string());
                }
            }
        });
    }
}

/// The end of the attempt under way; never, where there is none.
async fn running(attempt: &mut Option<Attempt>) -> Input {
    match attempt {
        None => std::future::pending().await,
        Some(running) => {
            let (number, end) = running.await;
            *attempt = None;
            Input::Ended { attempt: number, end }
        }
    }
}

/// The next wish; `None` when nobody is there any more to wish.
async fn next_wish(wishes: &mut watch::Receiver<Wish>) -> Option<Input> {
    wishes.changed().await.ok()?;
    let wish = wishes.borrow_and_update();
    if wish.withdraw {
        return Some(Input::Withdraw);
    }
    Some(Input::Changed(wish.draft.as_ref().map_or(1, |draft| draft.ttl)))
}

async fn until(time: Option<kith_sansio::Time>) {
    match time {
        Some(time) => tokio::time::sleep_until(system::instant(time).into()).await,
        None => std::future::pending().await,
    }
}
