//! The numbers of moving to a direct path.

use kith_sansio::Span;

/// Most addresses that one side offers.
pub const MAX_CANDIDATES: usize = 16;
/// Addresses that probes came from and nobody offered, tried beside the candidates.
pub const MAX_STRAYS: usize = 8;
/// When an address is probed, counted from the start of a round: seven times within three seconds, since the other side
/// may begin a moment later.
pub const PROBE_AT: [Span; 7] = [
    Span::ZERO,
    Span::millis(100),
    Span::millis(200),
    Span::millis(400),
    Span::millis(800),
    Span::millis(1_600),
    Span::millis(3_000),
];
/// Probes that are answered in one round.
pub const MAX_ANSWERS: u32 = 128;
/// Rounds that a peer may begin at once.
pub const ROUNDS_AT_ONCE: u32 = 8;
/// How soon it may begin another one after that.
pub const ROUND_EVERY: Span = Span::secs(10);
/// How soon this node begins a round after the last.
pub const ROUND_GAP: Span = Span::secs(2);
/// When a round that led nowhere is followed by another, at first and at most; doubled each time.
pub const AGAIN: (Span, Span) = (Span::secs(10), Span::secs(300));
/// How long a path may take to be opened once a probe was answered.
pub const OPEN_PATIENCE: Span = Span::secs(3);
/// A direct path on which nothing comes for so long is lost.
pub const DIRECT_SILENCE: Span = Span::secs(4);
/// How often a silent direct path shows that it is there.
pub const DIRECT_BEAT: Span = Span::secs(1);
/// How often the relayed path beside it does, so that relay and NATs keep it.
pub const RESERVE_BEAT: Span = Span::secs(10);
/// How often a silent relayed path does while there is no direct one: a relay that dies says nothing.
pub const RELAYED_BEAT: Span = Span::secs(1);
/// A path on which nothing comes for so long is in doubt; a connection in doubt asks its relay whether it is there.
pub const DOUBT: Span = Span::millis(1_300);
/// How long a relayed path may take to show that it is there.
pub const RELAYED_PATIENCE: Span = Span::millis(600);
/// How often it is looked whether something has come.
pub const LOOK: Span = Span::millis(200);
/// When another relay is tried again after none was reached, at first and at most; doubled each time.
pub const MEND_AGAIN: (Span, Span) = (Span::millis(500), Span::secs(60));
/// How long the target's relays may take to be known.
pub const RELAYS_PATIENCE: Span = Span::secs(3);
/// How long a relay may take to say where it sees this node.
pub const OBSERVE_PATIENCE: Span = Span::millis(300);
/// Rounds over TCP that are under way at once.
pub const MAX_ROUNDS: usize = 8;
/// Most SYNs' worth of dialling that one address gets in a round over TCP: when it is dialled again, where it refused.
pub const DIAL_AT: [Span; 5] =
    [Span::ZERO, Span::millis(150), Span::millis(400), Span::millis(900), Span::millis(1_900)];
/// How long a port of a round may take to be ready, which includes asking the relay where it is seen.
pub const READY_PATIENCE: Span = Span::secs(2);
/// How long the other side may take to say where it is.
pub const ANSWER_PATIENCE: Span = Span::secs(4);
/// How long the two sides dial each other.
pub const PUNCH_TIME: Span = Span::secs(3);
/// How long a target goes on after the first connection of a round, because the initiator may have chosen another.
pub const PUNCH_TAIL: Span = Span::millis(500);
/// Addresses kept at which a peer has proved to be.
pub const MAX_PROVEN: usize = 4;
/// Rounds that a peer may begin at once, and how soon another one, where it names only such addresses.
pub const PROVEN_ROUNDS: (u32, Span) = (32, Span::secs(1));
