//! A stream over a network that loses packets: what TCP or QUIC under TLS looks like to the two machines.
//!
//! Packets are numbered, and both ends show every second that they are alive. A gap, a reset or silence is the end:
//! it stands for a connection that was lost.

use kith_sansio::{Span, Time};
use kith_transfer::frame::Frame;
use kith_transfer::hash::Value;

const ALIVE: Span = Span::secs(1);
const IDLE: Span = Span::secs(4);

/// What a packet carries; bytes of files are handles.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Opens a connection. `honest` is for the model alone: this sender will not lie.
    Hello {
        honest: bool,
    },
    Frame(Frame),
    Group {
        length: usize,
        claimed: Value,
        content: u64,
    },
    Alive,
    Reset,
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) connection: u64,
    number: u64,
    pub(crate) body: Body,
}

impl Packet {
    /// The answer to a packet of a connection that nobody knows.
    pub(crate) fn reset(connection: u64) -> Packet {
        Packet { connection, number: 0, body: Body::Reset }
    }
}

/// What a packet means to its stream.
pub(crate) enum Taken {
    Body(Body),
    Nothing,
    Lost,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    connection: u64,
    sent: u64,
    expected: u64,
    heard: Time,
    alive_due: Time,
}

impl Stream {
    pub(crate) fn new(connection: u64, now: Time) -> Stream {
        Stream { connection, sent: 0, expected: 0, heard: now, alive_due: now + ALIVE }
    }

    pub(crate) fn packet(&mut self, now: Time, body: Body) -> Packet {
        let number = self.sent;
        self.sent += 1;
        self.alive_due = now + ALIVE;
        Packet { connection: self.connection, number, body }
    }

    pub(crate) fn take(&mut self, now: Time, packet: Packet) -> Taken {
        if matches!(packet.body, Body::Reset) || packet.number > self.expected {
            return Taken::Lost;
        }
        if packet.number < self.expected {
            return Taken::Nothing;
        }
        self.expected += 1;
        self.heard = now;
        match packet.body {
            Body::Alive => Taken::Nothing,
            body => Taken::Body(body),
        }
    }

    /// Whether the other end has been silent for too long.
    pub(crate) fn is_idle(&self, now: Time) -> bool {
        now >= self.heard + IDLE
    }

    /// The sign of life that is due.
    pub(crate) fn alive(&mut self, now: Time) -> Option<Packet> {
        (now >= self.alive_due).then(|| self.packet(now, Body::Alive))
    }

    pub(crate) fn poll_timeout(&self) -> Time {
        self.alive_due.min(self.heard + IDLE)
    }
}
