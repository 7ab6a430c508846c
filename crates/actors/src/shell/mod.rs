//! Selections over an [`Endpoint`]: `actors/1` among the members of a network.
//!
//! One stream for each talk of the [`Seat`](crate::seat::Seat): who wants something of another member opens it. What a
//! member may ask is bounded in size, number and time; what is signed is on the disk before it is said.

mod desk;
mod ground;
mod line;

use std::future::Future;
use std::sync::Arc;

use kith_connect::{Admission, Endpoint, ListenError, Protocol};
use kith_identity::Identity;
use kith_identity::membership::NodeId;
use kith_sansio::Span;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use ground::{Ground, Neighbour};

use crate::hardened::{Terms, VerifiedActorList};
use crate::seat::Trouble;
use desk::Desk;

/// The protocol.
pub const PROTOCOL: Protocol = Protocol::new("actors/1");
/// How many draws a member has in an epoch. All nodes of a network have the same.
pub const QUOTA: u32 = 24;

/// Wishes, and messages of members, that wait to be looked at.
const EVENTS: usize = 256;
/// Talks that other members have opened, and those of one member alone.
const MAX_TALKS: usize = 512;
const MAX_TALKS_OF_ONE: usize = 32;
/// So many talks may one member open at once …
const TALK_BURST: u64 = 256;
/// … and then one in this time.
const TALK_EVERY: Span = Span::millis(50);
/// Members whose talks are counted.
const MAX_COUNTED: usize = 4_096;
/// Messages of one side in one talk.
const MAX_MESSAGES: usize = 8;
/// Ways to members that are looked for at a time.
const MAX_DIALS: usize = 64;
/// How long such a way may take.
const DIAL: Span = Span::secs(20);
/// How long a message may take once it has begun.
const REQUEST: Span = Span::secs(10);
/// How long a talk may take in all.
const TALK: Span = Span::secs(220);

/// The part of a member in selections. Clones are the same; it ends with the last, or when somebody [ends](Actors::end)
/// it.
#[derive(Clone, Debug)]
pub struct Actors {
    orders: mpsc::Sender<Order>,
    /// All that holds the ground.
    tasks: TaskTracker,
    ending: CancellationToken,
    _ends: Arc<DropGuard>,
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its place.
    pub id: NodeId,
    /// The epoch whose region is known; nothing where none is yet.
    pub epoch: Option<u64>,
    /// Members of its region.
    pub region: usize,
    /// Whether it takes part: it knows what it has signed in the epoch.
    pub takes_part: bool,
    /// Draws that it has left in the epoch.
    pub draws_left: u32,
}

/// Actors that were drawn.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Who they are, and the proof.
    pub list: VerifiedActorList,
    /// How many draws it took.
    pub draws: u32,
}

/// Why no actors are drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// The region of this member is not known yet.
    #[error("the members of this node's region are not known yet")]
    NotReady,
    /// It came to nothing.
    #[error("no actors after {draws} draws: {trouble}")]
    Failed {
        /// How many draws were made.
        draws: u32,
        /// Why the last one failed.
        trouble: Trouble,
    },
    /// It has ended.
    #[error("selections have ended on this node")]
    Ended,
}

/// What somebody wishes, and whom to tell the outcome.
enum Order {
    Select(Terms, oneshot::Sender<Result<Selection, SelectError>>),
    Status(oneshot::Sender<Status>),
}

impl Actors {
    /// Listens for members at `endpoint`, whose trust says who they are. `me` is the place of the member with this key.
    ///
    /// # Errors
    /// Where the endpoint is closed, or has listened for this before.
    pub fn start(
        endpoint: Endpoint,
        identity: Arc<Identity>,
        me: NodeId,
        ground: Arc<dyn Ground>,
    ) -> Result<Actors, ListenError> {
        let incoming = endpoint.listen(PROTOCOL, Admission::Members)?;
        let (orders, wishes) = mpsc::channel(EVENTS);
        let (ending, tasks) = (CancellationToken::new(), TaskTracker::new());
        let desk = Desk::new(endpoint, identity, me, ground, tasks.clone());
        tasks.spawn(ending.clone().run_until_cancelled_owned(Box::pin(desk.run(incoming, wishes))));
        let _ends = Arc::new(ending.clone().drop_guard());
        Ok(Actors { orders, tasks, ending, _ends })
    }

    /// Ends it, whatever is under way. Nothing holds the ground then, and nothing is being kept any more.
    pub async fn end(self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether it has ended: by [`Actors::end`], with its endpoint, or because its book could not be kept.
    pub fn is_over(&self) -> bool {
        self.orders.is_closed()
    }

    /// Draws actors for these terms, again where a draw fails, as often as the quota of the epoch and
    /// [`MAX_TRIES`](crate::seat::MAX_TRIES) allow. Where the future is dropped, the draw under way is the last.
    ///
    /// # Errors
    /// Where none of the draws succeeds, or none is possible now.
    pub async fn select(&self, terms: Terms) -> Result<Selection, SelectError> {
        self.order(|reply| Order::Select(terms, reply)).await.unwrap_or(Err(SelectError::Ended))
    }

    /// How this member stands; `None` where it has ended.
    pub async fn status(&self) -> Option<Status> {
        self.order(Order::Status).await
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (reply, outcome) = oneshot::channel();
        self.orders.send(order(reply)).await.ok()?;
        outcome.await.ok()
    }
}

/// Runs `work`, for `span` at most.
async fn within<F: Future>(span: Span, work: F) -> Option<F::Output> {
    tokio::time::timeout(span.into(), work).await.ok()
}
