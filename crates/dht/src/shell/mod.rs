//! A node of the DHT over an [`Endpoint`]: `dht/1` among the members of a network.
//!
//! One stream with each member that there is something to say to, in both directions, kept while it is used. Each side
//! first says its card, then messages. What is asked, and how much, is bounded; answers that nobody asked for are not
//! looked at; and of somebody who is no member any more nothing is heard.

mod addresses;
mod desk;
mod line;
mod membership;
mod shelf;

use std::net::SocketAddr;
use std::sync::Arc;

use kith_connect::{Admission, Endpoint, ListenError, Protocol, Stream};
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::{Span, Time, system};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use addresses::{Addresses, Hint};
pub use membership::Membership;
pub use shelf::{Shelf, Written};

use crate::contact::Contact;
use crate::defaults::{Config, LEAVE};
use crate::message::Message;
use crate::value::{Refusal, Value};
use desk::Desk;

/// The protocol.
pub const PROTOCOL: Protocol = Protocol::new("dht/1");

/// Wishes, and messages of members, that wait to be looked at.
const EVENTS: usize = 1_024;

/// How a node takes part.
#[derive(Clone)]
pub struct Settings {
    /// What all nodes of the network have the same.
    pub routing: Config,
    /// Where others reach this node over QUIC, as it tells them.
    pub address: SocketAddr,
    /// Members through whom the network is joined; nobody, where this node is the first.
    pub known: Vec<Contact>,
    /// The source for addresses that the endpoint's discovery has.
    pub addresses: Addresses,
    /// What the node kept when it ran last; nothing, where it never did.
    pub kept: Vec<(NodeId, Vec<u8>)>,
    /// Where it keeps values over its end; in memory alone, where there is none.
    pub shelf: Option<Arc<dyn Shelf>>,
}

/// A node of the DHT. Clones are the same one; when the last is dropped, it ends without a goodbye.
#[derive(Clone, Debug)]
pub struct Dht {
    orders: mpsc::Sender<Order>,
    joined: watch::Receiver<bool>,
    /// All that holds the membership and the shelf.
    tasks: TaskTracker,
    ending: CancellationToken,
    _ends: Arc<DropGuard>,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its place.
    pub id: NodeId,
    /// Whether it knows its region, and its region knows it.
    pub is_joined: bool,
    /// How many members the network has.
    pub members: u64,
    /// How many first bits the places of its region share.
    pub region_bits: u8,
    /// Live members of its region but itself.
    pub region: usize,
    /// Members in its buckets.
    pub buckets: usize,
    /// Members of its region, as the roster says, that were not found yet.
    pub missing: usize,
    /// Values that it keeps.
    pub values: usize,
    /// Members that it has streams with.
    pub neighbours: usize,
    /// Lookups that are under way, its own and those that persons wished.
    pub lookups: usize,
    /// Lookups that it has begun since it started.
    pub lookups_begun: u64,
}

/// What a search for nodes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The nodes, nearest first, each of which answered.
    pub nodes: Vec<Contact>,
    /// In which round of its path the nearest was asked.
    pub hops: u32,
    /// How many requests it took.
    pub requests: u32,
}

/// The node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node of the DHT has ended")]
pub struct Ended;

/// Why a value does not count as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// Too few nodes have it.
    #[error("the value is on {nodes} nodes, {needed} are needed{}", .refusal.map(|why| format!(": {why}")).unwrap_or_default())]
    TooFew {
        /// So many.
        nodes: usize,
        /// So many were needed.
        needed: usize,
        /// Why the last one that refused did so.
        refusal: Option<Refusal>,
    },
    /// The node has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// What somebody wishes, and whom to tell the outcome.
enum Order {
    Put(Value, oneshot::Sender<Result<usize, PutError>>),
    Get(NodeId, oneshot::Sender<Option<Value>>),
    Find(NodeId, usize, oneshot::Sender<Search>),
    Contact(NodeId, oneshot::Sender<Option<Contact>>),
    Status(oneshot::Sender<Status>),
    Known(oneshot::Sender<Vec<Contact>>),
    Meet(Vec<Contact>),
    Moved(SocketAddr),
    Leave(oneshot::Sender<()>),
}

/// What happens on streams.
enum Event {
    /// The way to a member is there, or not.
    Dialled(Contact, Option<Box<Stream>>),
    /// A member said something.
    Heard(Contact, Message),
    /// A stream has ended.
    Closed(Fingerprint, LineId),
}

/// Tells streams apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LineId(u64);

impl Dht {
    /// Listens for members at `endpoint`, whose trust says who they are, and joins the network.
    ///
    /// # Errors
    /// Where the endpoint is closed, or has a node already.
    pub fn start(
        endpoint: Endpoint,
        settings: Settings,
        membership: Arc<dyn Membership>,
    ) -> Result<Dht, ListenError> {
        let incoming = endpoint.listen(PROTOCOL, Admission::Members)?;
        let (orders, wishes) = mpsc::channel(EVENTS);
        let (told, joined) = watch::channel(false);
        let (ending, tasks) = (CancellationToken::new(), TaskTracker::new());
        let desk = Desk::new(endpoint, settings, membership, told, tasks.clone());
        tasks.spawn(ending.clone().run_until_cancelled_owned(Box::pin(desk.run(incoming, wishes))));
        let _ends = Arc::new(ending.clone().drop_guard());
        Ok(Dht { orders, joined, tasks, ending, _ends })
    }

    /// Waits until the node knows its region, and its region knows it.
    ///
    /// # Errors
    /// Where the node has ended.
    pub async fn joined(&self) -> Result<(), Ended> {
        self.joined.clone().wait_for(|joined| *joined).await.map(drop).map_err(|_| Ended)
    }

    /// Stores a value; on how many nodes it is.
    ///
    /// # Errors
    /// Where too few have it for it to survive the loss of a third of all.
    pub async fn put(&self, value: Value) -> Result<usize, PutError> {
        self.order(|reply| Order::Put(value, reply)).await?
    }

    /// The value of a key; `None` where no node has one.
    ///
    /// # Errors
    /// Where the node has ended.
    pub async fn get(&self, key: NodeId) -> Result<Option<Value>, Ended> {
        self.order(|reply| Order::Get(key, reply)).await
    }

    /// The `want` nodes nearest to a place.
    ///
    /// # Errors
    /// Where the node has ended.
    pub async fn find(&self, place: NodeId, want: usize) -> Result<Search, Ended> {
        self.order(|reply| Order::Find(place, want, reply)).await
    }

    /// The member at this place, where the node knows it; nobody is asked.
    ///
    /// # Errors
    /// Where the node has ended.
    pub async fn contact(&self, id: NodeId) -> Result<Option<Contact>, Ended> {
        self.order(|reply| Order::Contact(id, reply)).await
    }

    /// How the node stands.
    ///
    /// # Errors
    /// Where the node has ended.
    pub async fn status(&self) -> Result<Status, Ended> {
        self.order(Order::Status).await
    }

    /// Members that it knows, the nearest first; with them it joins again after a restart.
    ///
    /// # Errors
    /// Where the node has ended.
    pub async fn known(&self) -> Result<Vec<Contact>, Ended> {
        self.order(Order::Known).await
    }

    /// Tells it of members of whom somebody knows who can be trusted to: it finds the others through them, where it has
    /// lost everybody or was alone.
    pub async fn meet(&self, others: Vec<Contact>) {
        let _ended = self.orders.send(Order::Meet(others)).await;
    }

    /// Tells it that others reach it elsewhere now.
    pub async fn moved(&self, address: SocketAddr) {
        let _ended = self.orders.send(Order::Moved(address)).await;
    }

    /// Says goodbye to the region, for two seconds at most, and ends. Nothing holds the membership and the shelf then.
    pub async fn leave(self) {
        // Where the node has ended by itself there is nobody to say it.
        let _ended = within(LEAVE, self.order(Order::Leave)).await;
        self.ending.cancel();
        self.tasks.close();
        if within(LEAVE, self.tasks.wait()).await.is_none() {
            tracing::warn!("some tasks of the DHT did not end in time");
        }
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Ended> {
        let (reply, outcome) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| Ended)?;
        outcome.await.map_err(|_| Ended)
    }
}

/// Runs `work`, for `span` at most.
async fn within<F: Future>(span: Span, work: F) -> Option<F::Output> {
    tokio::time::timeout(span.into(), work).await.ok()
}

async fn sleep_until(at: Time) {
    tokio::time::sleep_until(system::instant(at).into()).await;
}
