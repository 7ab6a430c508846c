use std::sync::Arc;

use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_identity::tls::Certificate;
use kith_identity::{Authority, Identity};
use kith_sansio::system::{self, OsRng};
use kith_sansio::{Machine, Timestamp};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use super::{AnnounceError, Clock, ClockError, Directory};
use crate::announcer::{self, End, Input, Output};
use crate::store::BoxFuture;
use crate::timer::due;

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
///
/// A set that is signed for one authority goes to the others as well: whoever saw the newest set refuses older ones,
/// and must not be kept from a node because another of its directories holds one.
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
    /// Held while a set is signed, so that one is signed for all.
    signing: Mutex<()>,
    statuses: watch::Sender<Vec<AnnounceStatus>>,
    newest: watch::Sender<Option<Signed>>,
}

/// A set, and what it says.
#[derive(Clone)]
struct Signed {
    set: VerifiedRecordSet,
    number: u64,
    withdraw: bool,
}

/// What a task knows of its authority, shared with the attempt under way.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The time of the set that was sent last.
    tried: Timestamp,
    /// The time of the set that was taken last.
    taken: Timestamp,
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
        let signing = Mutex::default();
        let board = Arc::new(Board { directory, identity, certificate, clock, signing, statuses, newest });
        let wishes = watch::Sender::new(Wish::default());
        let mut tasks = JoinSet::new();
        for (place, authority) in authorities.into_iter().enumerate() {
            let newest = board.newest.subscribe();
            let (board, wishes) = (Arc::clone(&board), wishes.subscribe());
            let task = Task { board, place, authority, wishes, newest, known: Known::default() };
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
        self.board.newest.borrow().as_ref().map(|signed| signed.set.clone())
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
    newest: watch::Receiver<Option<Signed>>,
    known: Known,
}

type Attempt = BoxFuture<'static, (u64, End, Known)>;

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
                (number, end, known) = running(&mut attempt) => {
                    self.known = known;
                    Some(Input::Ended { attempt: number, end })
                }
                wish = next_wish(&mut self.wishes) => match wish {
                    Some(input) => Some(input),
                    None => return,
                },
                ttl = overtaken(&mut self.newest, &mut self.known), if attempt.is_none() => {
                    Some(Input::Changed(ttl))
                }
                () = due(machine.poll_timeout()) => None,
            };
            match input {
                Some(input) => machine.handle_input(system::now(), input, &mut OsRng),
                None => machine.handle_timeout(system::now(), &mut OsRng),
            }
        }
    }

    fn attempt(&self, number: u64, withdraw: bool) -> Attempt {
        let (board, authority, place) = (Arc::clone(&self.board), self.authority.clone(), self.place);
        let (wishes, mut known) = (self.wishes.clone(), self.known);
        Box::pin(async move {
            let wish = wishes.borrow().clone();
            let said = wish.number;
            let result = board.announce(&authority, wish, withdraw, &mut known).await;
            let end = match &result {
                Ok(_) => End::Taken,
                Err(AnnounceError::Refused { retry_after, .. }) => End::Failed { pause: *retry_after },
                Err(_) => End::Failed { pause: None },
            };
            let current = wishes.borrow().number == said;
            board.note(place, result, current);
            (number, end, known)
        })
    }
}

impl Board {
    /// Signs and sends; the end of what was sent.
    async fn announce(
        &self,
        authority: &Authority,
        wish: Wish,
        withdraw: bool,
        known: &mut Known,
    ) -> Result<Timestamp, AnnounceError> {
        let set = self.sign(wish, withdraw, known.taken).await?;
        known.tried = set.timestamp();
        self.directory.announce_as(authority, &self.certificate, &set).await?;
        known.taken = set.timestamp();
        Ok(set.expires())
    }

    /// The set that another authority has got already, where this one has not and the set is still young; else a
    /// new one.
    async fn sign(
        &self,
        wish: Wish,
        withdraw: bool,
        taken: Timestamp,
    ) -> Result<VerifiedRecordSet, AnnounceError> {
        let _one_for_all = self.signing.lock().await;
        let newest = self.newest.borrow().clone();
        if let Some(signed) = newest
            && (signed.number, signed.withdraw) == (wish.number, withdraw)
            && signed.set.timestamp() > taken
            && signed.set.is_valid_at(system::utc().plus_secs(u64::from(signed.set.ttl_secs()) * 3 / 4))
        {
            return Ok(signed.set);
        }
        let mut draft = wish.draft.unwrap_or_default();
        if withdraw {
            draft.addresses.clear();
            draft.relays.clear();
        }
        let set = draft.sign(&self.identity, self.timestamp().await?).map_err(AnnounceError::Draft)?;
        self.newest.send_replace(Some(Signed { set: set.clone(), number: wish.number, withdraw }));
        Ok(set)
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
async fn running(attempt: &mut Option<Attempt>) -> (u64, End, Known) {
    match attempt {
        None => std::future::pending().await,
        Some(running) => {
            let ended = running.await;
            *attempt = None;
            ended
        }
    }
}

/// Waits until a set was signed that is newer than what this authority was sent, and says its ttl. Only while no
/// attempt is under way, which may be the one that signs.
async fn overtaken(newest: &mut watch::Receiver<Option<Signed>>, known: &mut Known) -> u32 {
    let newer =
        |signed: &Option<Signed>| signed.as_ref().is_some_and(|new| new.set.timestamp() > known.tried);
    let Ok(signed) = newest.wait_for(newer).await else { return std::future::pending().await };
    // Neither failure is possible: what was waited for is there.
    let (tried, ttl) =
        signed.as_ref().map_or((known.tried, 1), |new| (new.set.timestamp(), new.set.ttl_secs()));
    drop(signed);
    known.tried = tried;
    ttl
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
