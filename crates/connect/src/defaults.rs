//! Every number of this crate that a person might want to know.

use kith_sansio::Span;

/// Port for both transports where nothing else is asked for.
pub const PORT: u16 = 7117;
/// How many ports after [`PORT`] are tried when it is taken.
pub const PORTS_TRIED: u16 = 64;
/// Send and receive buffer of a UDP socket in bytes: some milliseconds at full speed. The system may give less.
pub const UDP_BUFFER_BYTES: usize = 8 << 20;
/// Most addresses that one endpoint listens on.
pub const MAX_LISTENERS: usize = 16;
/// How long the next address of a race waits for the one before it (RFC 8305 §5 allows 100 ms to 2 s).
pub const STAGGER: Span = Span::millis(100);
/// How long one address may take from the first packet to the verified peer.
pub const ATTEMPT_TIMEOUT: Span = Span::secs(5);
/// How long a race is for addresses alone before relays join it, and each relay waits for the one before it.
pub const RELAY_STAGGER: Span = Span::millis(250);
/// How long one relay may take, from being looked up to the verified peer behind it.
pub const RELAY_TIMEOUT: Span = Span::secs(8);
/// How long a whole race may take.
pub const RACE_TIMEOUT: Span = Span::secs(15);
/// Most addresses in one race.
pub const MAX_CANDIDATES: usize = 32;
/// How long a peer may take from its first packet to its complete hello, and a target to answer it.
pub const HANDSHAKE_TIMEOUT: Span = Span::secs(10);
/// Connections in all that have not said hello yet.
pub const MAX_HALF_OPEN: usize = 256;
/// Of these, from one IPv4 address or one IPv6 /64.
pub const MAX_HALF_OPEN_PER_SOURCE: usize = 32;
/// Connections in all over TCP and DTLS of peers that are not trusted, where a protocol admits anyone.
pub const MAX_STRANGERS: usize = 1024;
/// The same over QUIC, where each costs several times the memory.
pub const MAX_QUIC_STRANGERS: usize = 256;
/// Of either, from one IPv4 address or one IPv6 /64.
pub const MAX_STRANGERS_PER_SOURCE: usize = 32;
/// Open streams with one peer; nameless peers count by source.
pub const MAX_STREAMS_PER_PEER: usize = 256;
/// Open streams in all.
pub const MAX_STREAMS: usize = 4096;
/// Admitted streams that wait for one listener to take them.
pub const INCOMING_QUEUE: usize = 64;
/// Datagrams that wait to be sent to a peer, or to be taken here, in bytes with what each costs beside: some milliseconds
/// at full speed, a fifth of a second at 10 Mbit/s.
pub const DATAGRAM_BACKLOG_BYTES: usize = 256 << 10;
/// The same for datagrams of one flow that a peer sends that is not trusted, where a protocol admits anyone.
pub const STRANGER_DATAGRAM_BYTES: usize = 16 << 10;
/// Datagrams of one QUIC connection that have arrived and were not looked at, in bytes. Those of peers that are not
/// trusted are looked at without anybody asking for them.
pub const DATAGRAM_ARRIVAL_BYTES: usize = 1 << 20;
/// How long an existing connection may take to answer before a new one is dialled beside it.
pub const POOL_PATIENCE: Span = Span::millis(750);
/// How long a new connection for much data may take before an existing one is used for it.
pub const BULK_PATIENCE: Span = Span::secs(3);
/// How long a QUIC connection may be silent before it counts as lost.
pub const IDLE_TIMEOUT: Span = Span::secs(30);
/// How often an idle QUIC or TCP connection shows that it is alive.
pub const KEEP_ALIVE: Span = Span::secs(10);
/// How often one stranger is noted.
pub const KNOCK_EVERY: Span = Span::secs(3600);
/// Strangers remembered so as not to note them again.
pub const MAX_KNOCKS: usize = 1024;
/// How long a list holds after its delegator's last word, where the delegator says nothing else.
pub const LEASE: Span = Span::secs(3600);
/// The shortest and the longest such time.
pub const LEASE_RANGE: (Span, Span) = (Span::secs(10), Span::secs(86_400));
/// How often a subscriber hears that its list holds; a quarter of the lease where that is less.
pub const DELEGATOR_BEAT: Span = Span::secs(60);
/// Streams of one subscriber at a delegator; another one ends the oldest.
pub const MAX_SUBSCRIPTIONS: usize = 2;
/// Streams that one subscriber may open in a minute.
pub const MAX_SUBSCRIPTIONS_PER_MINUTE: u32 = 30;
/// How long a subscriber may take to say what it holds, to take one message, and to say that a list of one message is in
/// force.
pub const SUBSCRIBER_PATIENCE: Span = Span::secs(30);
/// How long a delegator may take to the first word about the list, and from one part of it to the next.
pub const DELEGATOR_PATIENCE: Span = Span::secs(30);
/// How long a list, or a change, of several messages may take with the answer to it: the largest needs 28 kB/s.
pub const LIST_PATIENCE: Span = Span::secs(600);
/// The shortest and the longest pause before a lost delegator is tried again; each is half to all of it, by chance.
pub const RECONNECT_RANGE: (Span, Span) = (Span::millis(500), Span::secs(60));
/// A delegator that stayed for so long is tried again without the pause that earlier failures earned.
pub const STAYED: Span = Span::secs(60);
/// Messages that a subscriber takes in a second: the largest list needs some three hundred.
pub const MAX_MESSAGES_PER_SECOND: u32 = 512;
/// How long a router is asked to keep a port mapped.
pub const MAPPING_LIFE: Span = Span::secs(3600);
/// How often a mapping is asked for again, so that a router that lost it is noticed.
pub const MAPPING_RENEW: Span = Span::secs(300);
/// How long the first answer of a router is waited for; doubled with each try.
pub const MAPPING_TRY: Span = Span::millis(250);
/// How often a router is asked in one protocol.
pub const MAPPING_TRIES: u32 = 3;
/// Time for one mapping over UPnP, with the search for the router.
pub const MAPPING_UPNP: Span = Span::secs(15);
/// Pause after a router mapped nothing in any protocol; doubled after each.
pub const MAPPING_BACKOFF_FIRST: Span = Span::secs(60);
/// Longest such pause.
pub const MAPPING_BACKOFF_LAST: Span = Span::secs(3600);
/// Shortest time until a mapping is asked for again, however short its life.
pub const MAPPING_SOONEST: Span = Span::secs(15);
/// How often it is looked where the way out is.
pub const MAPPING_LOOK_EVERY: Span = Span::secs(10);
/// Time for giving mappings back over UPnP when a node stops.
pub const MAPPING_RELEASE: Span = Span::secs(2);
