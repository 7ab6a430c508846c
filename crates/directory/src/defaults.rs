//! Every number of the directory that somebody may want to look up, in one place.

use kith_sansio::Span;

/// Largest body of an announce in bytes; the largest JSON form of a record set.
pub const MAX_BODY_BYTES: usize = kith_identity::record::MAX_JSON_BYTES;
/// Largest single blob that a directory takes, in bytes.
pub const MAX_BLOB_BYTES: usize = 4096;
/// TLS and HTTP connections that a server keeps at once.
pub const MAX_CONNECTIONS: usize = 1024;
/// Connections that a server keeps at once from one source network (/24, /48).
pub const MAX_CONNECTIONS_PER_NETWORK: usize = 256;
/// Time for a TLS handshake.
pub const HANDSHAKE: Span = Span::secs(10);
/// Time for the head of a request, and for the pause between two requests.
pub const IDLE: Span = Span::secs(15);
/// Time for the body of a request.
pub const BODY: Span = Span::secs(10);
/// Longest life of one connection, whatever it does; a reader who never reads is gone after it.
pub const CONNECTION_LIFE: Span = Span::secs(120);
/// Time that connections get to finish when a server is stopped.
pub const SHUTDOWN: Span = Span::secs(3);
/// How often expired sets are swept out of the store; secondaries hear of it soon after.
pub const SWEEP: Span = Span::secs(5);
/// Rows that one sweep removes in one transaction.
pub const SWEEP_ROWS: usize = 1000;
/// Longest time in seconds for which an answer may be kept by resolvers and HTTP caches.
pub const MAX_AGE_SECS: u64 = 60;
/// Source networks and fingerprints that each limiter remembers.
pub const LIMITER_ENTRIES: usize = 65_536;
/// Verified sets that a store keeps in memory.
pub const STORE_CACHE_SETS: usize = 16_384;
/// Rows that the embedded store is expected to keep in memory beside the database's pages.
pub const HOT_ROWS: usize = 131_072;
/// How much of them it keeps, in bytes.
pub const HOT_BYTES: u64 = 64 << 20;

/// Requests to one server of a Redis store that may wait.
pub const STORE_QUEUE: usize = 8192;
/// Requests to one server of a Redis store that are sent together.
pub const STORE_BATCH: usize = 512;
/// Time for a connection to a server of a Redis store.
pub const STORE_CONNECT: Span = Span::secs(1);
/// Time that the replicas of a Redis store have to confirm.
pub const STORE_WAIT: Span = Span::secs(2);
/// Time for an exchange with a server of a Redis store, waiting for its replicas included.
pub const STORE_REPLY: Span = Span::secs(4);
/// Time for an announce in a Redis store, with everything that is tried again; less than [`HTTPS_ANNOUNCE`].
pub const STORE_WRITE: Span = Span::secs(8);
/// Time for a lookup in a Redis store; less than [`HTTPS`].
pub const STORE_READ: Span = Span::secs(4);
/// Time between two questions about who has what in a cluster.
pub const STORE_REFRESH: Span = Span::millis(100);
/// First pause before something is tried again.
pub const STORE_PAUSE_FIRST: Span = Span::millis(20);
/// Longest pause before something is tried again.
pub const STORE_PAUSE_LAST: Span = Span::millis(400);

/// Members of a closed zone.
pub const MAX_MEMBERS: usize = 1_000_000;
/// Longest list of members in bytes.
pub const MAX_MEMBERS_BYTES: usize = 128 << 20;
/// Shortest time between two complaints about the store in the log.
pub const COMPLAINTS: Span = Span::secs(5);

/// Largest DNS answer over UDP in bytes, which passes every path unfragmented (DNS flag day 2020).
pub const MAX_UDP_BYTES: u16 = 1232;
/// Largest DNS form of a set in bytes; a larger one is answered with `kithnet=https`.
pub const MAX_DNS_FORM_BYTES: usize = 4096;

/// Time that one lookup may take in all.
pub const LOOKUP: Span = Span::secs(5);
/// Time between the starts of two sources of a lookup.
pub const STAGGER: Span = Span::millis(50);
/// How long a lookup with a valid set waits for a newer one.
pub const PREFER_NEWER: Span = Span::millis(50);
/// Time for one DNS question to one resolver.
pub const DNS_TRY: Span = Span::millis(1500);
/// How often a resolver is asked over UDP.
pub const DNS_TRIES: u32 = 2;
/// Time for one lookup over HTTPS, connecting included; less than [`LOOKUP`], so that there is time to say why.
pub const HTTPS: Span = Span::millis(4500);
/// Time for one announce over HTTPS, connecting included.
pub const HTTPS_ANNOUNCE: Span = Span::secs(10);
/// Lookups that run at once in one client.
pub const MAX_LOOKUPS: usize = 64;
/// Sets that a client caches.
pub const CACHE_SETS: usize = 4096;
/// Identities whose last timestamp a client remembers where they publish through it.
pub const PUBLISHED_ENTRIES: usize = 4096;
/// Fingerprints whose highest timestamp is remembered in memory.
pub const REPLAY_ENTRIES: usize = 65_536;

/// Time for one announce, as the announcer counts it.
pub const ANNOUNCE: Span = Span::secs(15);
/// How often an announcer that waits looks at the wall clock, which goes on while a computer sleeps.
pub const CLOCK_CHECK: Span = Span::secs(60);
/// First pause after a failed announce.
pub const BACKOFF_FIRST: Span = Span::secs(1);
/// Longest pause after failed announces.
pub const BACKOFF_LAST: Span = Span::secs(300);
/// Shortest time between two announces of one authority that somebody's wishes can cause.
pub const ANNOUNCE_GAP: Span = Span::millis(200);
/// The same on average: timestamps count seconds and only grow, so that more sets than seconds would run ahead of the
/// clock, and a directory refuses what is from the future.
pub const ANNOUNCE_EVERY: Span = Span::secs(1);
/// How far ahead of that average a moment with many wishes may run.
pub const ANNOUNCE_AHEAD: Span = Span::secs(5);

/// How often a server looks whether its zone changed, for the serial number and the secondaries.
pub const REVISION_CHECK: Span = Span::secs(1);
/// Changes that a store keeps for secondaries that have an older zone.
pub const HISTORY_ROWS: u64 = 200_000;
/// How much of them it keeps, in bytes.
pub const HISTORY_BYTES: u64 = 64 << 20;
/// How long it keeps them, in seconds; a secondary that was away for longer gives out nothing any more.
pub const HISTORY_SECS: u64 = 86_400;
/// How long a Redis store keeps a set beyond its end, in seconds, so that the sweep which removes it finds what it was.
pub const STORE_GRACE_SECS: u64 = 3600;
/// Transfers of the zone at once.
pub const MAX_TRANSFERS: usize = 4;
/// Sets that a transfer reads from the store at a time.
pub const TRANSFER_PAGE: usize = 128;
/// Time for the secondary to take what one page of sets makes, at most 600 KiB.
pub const TRANSFER_WRITE: Span = Span::secs(60);
/// Longest time of one transfer.
pub const TRANSFER_LIFE: Span = Span::secs(3600);
/// Shortest time between the first notices of two changes to one secondary.
pub const NOTIFY_GAP: Span = Span::secs(10);
/// Pause after the first notice that was not acknowledged; doubled after each.
pub const NOTIFY_BACKOFF_FIRST: Span = Span::secs(1);
/// Longest pause between two notices of one change.
pub const NOTIFY_BACKOFF_LAST: Span = Span::secs(60);
/// Notices without an answer after which a secondary is reported as silent.
pub const NOTIFY_SILENT_TRIES: u32 = 5;

/// The port of mDNS (RFC 6762).
pub const LAN_PORT: u16 = 5353;
/// How long a node keeps its name on a network.
pub const LAN_SALT_LIFE: Span = Span::secs(3600);
/// Shortest time between two packets by which a node shows itself on one network (RFC 6762 §6).
pub const LAN_SAY_EVERY: Span = Span::secs(1);
/// Pause after the first question who is there; doubled after each.
pub const LAN_BROWSE_EVERY: Span = Span::secs(1);
/// Longest pause between two such questions while somebody waits.
pub const LAN_BROWSE_LAST: Span = Span::secs(60);
/// How long the answer to a question for a set is waited for before it is asked again.
pub const LAN_ASK_AGAIN: Span = Span::millis(400);
/// How often a node that shows itself is asked for its set.
pub const LAN_TRIES: u32 = 4;
/// Time for one lookup on the local networks.
pub const LAN_LOOKUP: Span = Span::secs(2);
/// Names that are remembered on one network.
pub const LAN_NEIGHBOURS: usize = 512;
/// Answered questions that are remembered on one network, so that none is answered twice.
pub const LAN_NONCES: usize = 1024;
/// Questions on one network whose set is being fetched at once.
pub const LAN_QUESTIONS: usize = 16;
/// Sets that a node gives out on one network at once.
pub const LAN_ANSWERS_BURST: u32 = 20;
/// Sets that a node gives out on one network each second.
pub const LAN_ANSWERS_PER_SECOND: u32 = 10;
/// How often it is looked which networks there are.
pub const LAN_NETWORKS_EVERY: Span = Span::secs(10);
/// Most networks that a node shows itself on at once.
pub const LAN_NETWORKS: usize = 16;
