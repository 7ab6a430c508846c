//! SEP2P to the letter: the verifiable random of §3.4, the selection of §3.5 over the regions of §3.6, and the
//! strategies of §4.1 that it is compared with.
//!
//! For simulations: `docs/actors-protocol.md` says which attacks the paper leaves open. Four machines speak with each
//! other: a [`Trigger`] with its [`Witness`]es, then a [`Setter`] with its [`Builder`]s. Whoever drives them carries
//! their messages and counts them; operations count themselves ([`Counting`](crate::scheme::Counting)). [`upkeep`] has
//! two more, for nodes that join and leave.

pub mod baseline;
mod list;
mod place;
mod random;
mod select;
pub mod upkeep;

use kith_sansio::Timestamp;

use crate::ktable::{Arc, KTable};
use crate::scheme::{Hash, Scheme, Signature};

pub use list::{ActorList, Attestation};
pub use place::{Node, Place};
pub use random::{Share, Trigger, VerifiableRandom, Witness};
pub use select::{Builder, Order, Setter};

/// What all nodes of a network agree on.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How many nodes of which region decide.
    pub table: KTable<Arc>,
    /// R3, the region out of which actors are taken, and which a node's cache holds.
    pub candidates: Arc,
    /// How old a random value may be, in seconds, and how long a step may take.
    pub max_age_secs: u64,
}

impl Rules {
    /// The region of which `k` nodes may decide; none where the table has no such k.
    fn region(&self, k: usize) -> Option<Arc> {
        self.table.rows().iter().find(|row| row.k == k as u64).map(|row| row.region)
    }

    /// The fewest nodes that may decide around `center`, the nearest first, without `without`.
    fn deciders(&self, cache: &impl Cache, center: Place, without: &Node) -> Option<Vec<Node>> {
        let held = |arc| {
            let mut nodes = cache.around(center, arc);
            nodes.retain(|node| node != without);
            nodes
        };
        let row = self.table.first(|arc| held(arc).len() as u64)?;
        let mut nodes = held(row.region);
        nodes.truncate(row.k as usize);
        Some(nodes)
    }

    /// Whether all of `signers`, each once, may decide around `center`, and are genuine: one operation each.
    fn are_legitimate(&self, scheme: &mut impl Scheme, center: Place, signers: &[&Node]) -> bool {
        let Some(region) = self.region(signers.len()) else { return false };
        signers.iter().enumerate().all(|(at, node)| {
            region.holds(center, node.place()) && !signers[..at].contains(node) && node.is_genuine(scheme)
        })
    }
}

/// The nodes that a node knows of its own region R3, with valid certificates (§3.6).
pub trait Cache {
    /// Those of them in an arc around `center`, the nearest first.
    fn around(&self, center: Place, arc: Arc) -> Vec<Node>;
}

/// What nodes say to each other; the numbers are the steps of §3.4 and §3.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// §3.4 (1): the trigger, with its certificate, asks one of `k` witnesses.
    Ask {
        /// How many witnesses it asks.
        k: u64,
        /// What the witnesses sign as the time.
        at: Timestamp,
    },
    /// §3.4 (2), §3.5 (4): the hash of what will be disclosed.
    Commit(Hash),
    /// §3.4 (3), §3.5 (5): the hashes of all.
    Commits(Vec<Hash>),
    /// §3.4 (4): a witness's random number, and its signature over all hashes.
    Reveal {
        /// The number.
        random: Hash,
        /// The signature.
        signature: Signature,
    },
    /// §3.5 (3): what is to be selected for whom.
    Build(Box<Order>),
    /// §3.5 (6): a builder's random number and candidates.
    Candidates(Disclosure),
    /// §3.5 (7): those of all.
    Disclosed(Vec<Disclosure>),
    /// §3.5 (8.g): the actors, and the builder's signature over them.
    Signed {
        /// The actors.
        actors: Vec<Node>,
        /// The signature.
        signature: Signature,
    },
    /// §3.6: the region holds too few candidates, signed.
    Insufficient(Signature),
}

/// What a builder commits to and then discloses: RND_j and CL_j.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disclosure {
    /// The random number.
    pub random: Hash,
    /// The candidates that the builder knows.
    pub candidates: Vec<Node>,
}

/// What a machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A node said something.
    Heard {
        /// Who.
        from: Node,
        /// What.
        message: Message,
    },
    /// Those of the probed nodes that answered.
    Alive(Vec<Node>),
}

/// What a machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say something to a node.
    Send {
        /// To whom.
        to: Node,
        /// What.
        message: Message,
    },
    /// Ask these nodes whether they are there; the answer is [`Input::Alive`].
    Probe(Vec<Node>),
    /// §3.4 (5): the random value is there.
    Random(VerifiableRandom),
    /// Hand the order to the node that manages this place, over the DHT.
    Route {
        /// The place.
        to: Place,
        /// The order.
        order: Order,
    },
    /// §3.5 (9): the list is there.
    Selected(ActorList),
    /// It cannot go on.
    Refused(Refusal),
}

/// Why a node does not go on with a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No region of the k-table holds enough nodes.
    #[error("no region of the k-table around this place holds enough nodes")]
    Sparse,
    /// The trigger asked for another number of witnesses than the smallest that its region allows.
    #[error("{asked} witnesses were asked where {smallest} are enough")]
    NotSmallest {
        /// How many were asked.
        asked: u64,
        /// How many would do.
        smallest: u64,
    },
    /// The own hash is not among those of all.
    #[error("the own commitment is missing")]
    NotCommitted,
    /// What was disclosed is not what was committed to.
    #[error("what was disclosed is not what was committed to")]
    Broken,
    /// The random value does not verify.
    #[error("the random value does not verify")]
    Random,
    /// The order is too old.
    #[error("the random value is too old")]
    Expired,
    /// A signature or certificate does not verify, or its node may not sign.
    #[error("a signer is not legitimate, or its signature does not verify")]
    Signer,
    /// An actor is outside of the region, twice in the list, or not genuine.
    #[error("an actor is not legitimate")]
    Actor,
    /// Somebody did not answer in time.
    #[error("somebody did not answer in time")]
    Silence,
}
