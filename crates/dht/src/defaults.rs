//! Every number of this crate that a person might want to know.

use kith_identity::membership::REGION_MEMBERS;
use kith_sansio::Span;

/// What differs between networks, and between a network and its tests. All nodes of a network have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Nodes in a bucket of the routing table: Kademlia's k.
    pub bucket: usize,
    /// Requests of one path of a lookup that are out at a time: Kademlia's α.
    pub alpha: usize,
    /// Paths of a lookup that share no node.
    pub paths: usize,
    /// Members that a region holds, about.
    pub region: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { bucket: 20, alpha: 3, paths: 3, region: REGION_MEMBERS }
    }
}

/// Nodes of one network (IPv4 /24, IPv6 /48) in a bucket, in an answer, and asked by a path.
pub const MAX_PER_NET: usize = 2;
/// Nodes that an answer names, and nodes that a value is stored on.
pub const REPLICAS: usize = 20;
/// A value is acknowledged when so many nodes have it, or more than a third of a network that is smaller. The loss of
/// a third of the nodes loses one value in fourteen million then (3^-15), and none in a network of 44 nodes or fewer.
pub const QUORUM: usize = 15;
/// A path of a lookup ends after so many rounds and those in which it asks all that are wanted: no honest way is longer.
pub const MAX_ROUNDS: u32 = 12;
/// Most nodes that one lookup keeps in mind.
pub const MAX_CANDIDATES: usize = 512;
/// Most paths of a lookup.
pub const MAX_PATHS: usize = 32;
/// A region keeps so many times the nodes that it should hold; more are not taken.
pub const REGION_SLACK: usize = 4;

/// How long a request may take.
pub const REQUEST: Span = Span::secs(4);
/// How long a path of a lookup waits for the last answers of a round before it begins the next one.
pub const PATIENCE: Span = Span::secs(1);

/// Largest message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 36 << 10;
/// Most nodes that a message names.
pub const MAX_CARDS: usize = 32;
/// Largest certificate in bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 1_024;
/// Largest value in bytes, its proof included: a record set of any size fits.
pub const MAX_VALUE_BYTES: usize = 20 << 10;

/// No value is kept for longer, in seconds.
pub const MAX_TTL_SECS: u64 = 7 * 86_400;
/// What a node keeps for others at most, in bytes.
pub const MAX_STORE_BYTES: usize = 64 << 20;
/// Of these, what one publisher has.
pub const MAX_BYTES_PER_PUBLISHER: usize = 256 << 10;
/// Most values that one publisher has on a node.
pub const MAX_VALUES_PER_PUBLISHER: usize = 64;
/// So many changes a publisher makes on a node at once …
pub const STORE_BURST: u64 = 64;
/// … and then one in this time.
pub const STORE_EVERY: Span = Span::secs(10);

/// A node asks the next neighbours whether they are there about this often.
pub const PROBE: Span = Span::secs(30);
/// How many of them.
pub const WATCHED: usize = 3;
/// A node compares its region with a neighbour's about this often.
pub const SYNC: Span = Span::secs(600);
/// A node looks around in one of its buckets about this often.
pub const REFRESH: Span = Span::secs(600);
/// A node looks after its values about this often …
pub const TEND: Span = Span::secs(120);
/// … and so soon after its region has changed.
pub const SETTLE: Span = Span::secs(5);
/// A value is brought to its nodes again after this time, or up to twice as long, unless somebody else does so.
pub const RENEW: Span = Span::secs(3_600);
/// A node that was not heard for so long may lose its place in a full bucket.
pub const STALE: Span = Span::secs(600);
/// Probes that are out at a time.
pub const MAX_PROBES: usize = 32;
/// Nodes that wait to be asked whether they are there.
pub const MAX_RUMOURS: usize = 4_096;
/// Lookups for members whom the roster names that begin at a time.
pub const MAX_SEARCHES: usize = 4;
/// Values that are brought to their nodes again at a time.
pub const MAX_RENEWALS: usize = 32;
/// So many of the nearest nodes that have a value bring it to those that lack it: one of them may only be thought to.
pub const REPAIRERS: usize = 2;
/// In [`SYNC`] a node is brought so many times the values that there are here, however often it says that it lost them.
pub const MAX_SERVINGS: usize = 2;
/// Copies of values that are sent at a time to nodes that have become one of their nearest.
pub const MAX_REPAIRS: usize = 256;
/// So many questions of one node are answered at once …
pub const ASK_BURST: u64 = 512;
/// … and then one in this time.
pub const ASK_EVERY: Span = Span::millis(20);
/// Nodes whose questions are counted.
pub const MAX_ASKERS: usize = 65_536;

/// Values that are being written to the disk; more are refused until some are there.
pub const MAX_PENDING: usize = 4_096;

/// Members that a node remembers over a restart.
pub const MAX_KNOWN: usize = 64;

/// Streams that a node has open with one member; another one ends the oldest.
pub const MAX_LINES_PER_MEMBER: usize = 2;
/// Members that a node has streams with; one more ends those with the member that was silent for longest.
pub const MAX_NEIGHBOURS: usize = 1_024;
/// A stream that this node opened ends after so long without a message; one that the other side opened after twice that.
pub const IDLE: Span = Span::secs(60);
/// Streams that are opened at a time.
pub const MAX_DIALS: usize = 64;
/// How long it may take to open a stream.
pub const DIAL: Span = Span::secs(10);
/// Answers that wait to be taken by the member that asked, in bytes; more are left out.
pub const MAX_WAITING_BYTES: usize = 256 << 10;
/// Questions to one member whose answers are still taken.
pub const MAX_ASKED: usize = 1_024;
/// Goodbyes may take so long.
pub const LEAVE: Span = Span::secs(2);
