//! The numbers of relaying.

use kith_sansio::Span;

/// Longest message of `relay/1` in bytes.
pub const MAX_MESSAGE_BYTES: usize = 512;
/// Most relays between an initiator and a target.
pub const MAX_HOPS: usize = 3;
/// How long a request may be valid, in seconds.
pub const REQUEST_SECS: u64 = 30;
/// By how much the clocks of the three sides may differ, in seconds.
pub const CLOCK_SKEW_SECS: u64 = 60;
/// When an initiator who is not admitted hears so, whatever the reason.
pub const REFUSED_AFTER: Span = Span::secs(3);
/// Requests of strangers that wait for their target's answer.
pub const MAX_QUARANTINED: usize = 1024;
/// Of these, from one IPv4 address or one IPv6 /64.
pub const MAX_QUARANTINED_PER_SOURCE: usize = 8;
/// Requests that wait, of all initiators whom the relay knows.
pub const MAX_QUARANTINED_KNOWN: usize = 256;
/// Of these, of one of them.
pub const MAX_WAITING_PER_CLIENT: usize = 16;
/// Requests that wait in all.
pub const MAX_WAITING: usize = MAX_QUARANTINED + MAX_QUARANTINED_KNOWN;
/// How often a target is asked about one request that it does not answer: again where it comes back on another stream.
pub const MAX_ASKED: u8 = 3;
/// Nodes that are exposed at one relay.
pub const MAX_EXPOSED: usize = 4096;
/// Streams of `relay/1` that have not said yet what they are for, or that wait.
pub const MAX_CLIENTS: usize = 8192;
/// How long a stream of `relay/1` may take to say what it is for.
pub const FIRST_MESSAGE: Span = Span::secs(10);
/// The same of a stranger, who has nothing to say but his request.
pub const FIRST_MESSAGE_OF_STRANGER: Span = Span::secs(3);
/// How long both sides may take to bring their tokens.
pub const TOKEN_LIFE: Span = Span::secs(10);
/// How long a relay keeps a node exposed that says nothing.
pub const EXPOSED_SILENCE: Span = Span::secs(50);
/// Messages that a peer may send at once: twice what can wait at a relay, as a knock and its meeting, or the answer to
/// one, and some pings.
pub const MESSAGES_AT_ONCE: u32 = 3072;
/// Messages that a peer may send each second in the long run: what waits at a relay is done with in three seconds.
pub const MESSAGES_PER_SECOND: u32 = 1024;
/// The longest time between two pings of a target.
pub const PING_MOST: Span = Span::secs(20);
/// The shortest, and the first.
pub const PING_LEAST: Span = Span::secs(5);
/// How soon an unanswered ping is followed by another.
pub const PING_AGAIN: Span = Span::millis(700);
/// A relay that has not answered for so long since it was asked is lost.
pub const PONG_PATIENCE: Span = Span::millis(2_800);
/// How long a relay may take to take a target in.
pub const EXPOSE_PATIENCE: Span = Span::secs(5);
/// How long a target waits before it tries a relay again, at first and at most.
pub const AGAIN_FIRST: Span = Span::millis(500);
/// See [`AGAIN_FIRST`].
pub const AGAIN_MOST: Span = Span::secs(60);
/// How long a target leaves a relay alone that says what makes no sense: half a minute at least, at first, and longer
/// where it does so again.
pub const BLAMED_FIRST: Span = Span::secs(40);
/// How long a target goes on naming a relay that it has lost.
pub const NAMED_FOR: Span = Span::secs(60);
/// Relays that one target uses at once.
pub const MAX_RELAYS: usize = 8;
/// Knocks of one relay that wait for the target's judgement or for their session.
pub const MAX_KNOCKS_OPEN: usize = MAX_WAITING;
/// Nonces that a target remembers.
pub const MAX_NONCES: usize = 16_384;
/// How long an initiator waits for a relay's answer.
pub const ANSWER_PATIENCE: Span = Span::secs(5);
/// Sessions of one relay in all, joined or about to be.
pub const MAX_SESSIONS: usize = 4096;
/// Fingerprints whose use of a relay is counted.
pub const MAX_ACCOUNTS: usize = 16_384;
/// The time for which bytes are counted against a quota.
pub const QUOTA_PERIOD: Span = Span::secs(86_400);
