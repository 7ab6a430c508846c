//! The machine of one side.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use kith_identity::{Address, Reach, Transport};
use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::allowance::Allowance;
use super::limits::{
    AGAIN, DIRECT_SILENCE, MAX_ANSWERS, MAX_CANDIDATES, MAX_STRAYS, PROBE_AT, ROUND_EVERY, ROUND_GAP,
    ROUNDS_AT_ONCE,
};
use super::message::Candidates;
use super::probe::{Kind, Probe};
use crate::Vantage;
use crate::address::{Origin, may_dial};
use crate::relay::Token;

/// Which side of the connection this is: QUIC lets its initiator alone open paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It opened the connection.
    Initiator,
    /// The connection was opened to it.
    Target,
}

/// Where this node may be found, and what it may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Addresses that lead to the socket of the connection, the likeliest first.
    pub candidates: Vec<SocketAddr>,
    /// What is dialled from here.
    pub vantage: Vantage,
    /// The socket sends to IPv4 addresses.
    pub v4: bool,
    /// The socket sends to IPv6 addresses.
    pub v6: bool,
}

/// What a side is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// This node is here now.
    Place(Place),
    /// The peer says where it is.
    Heard(Candidates),
    /// A probe came from there that showed this side's token.
    Probed(Kind, SocketAddr),
    /// A direct path is open.
    Opened,
    /// No path could be opened to there.
    Failed(SocketAddr),
    /// The direct path is lost.
    Lost,
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say this to the peer.
    Say(Candidates),
    /// Send this there.
    Probe(SocketAddr, Probe),
    /// Open a path to there, where somebody has answered; an initiator's only.
    Open(SocketAddr),
    /// The peer does what it should not: leave it alone, the connection stays as it is.
    End(&'static str),
}

/// One side of the search for a direct path, for as long as the connection lives.
#[derive(Debug)]
pub struct Seeking {
    side: Side,
    token: Token,
    place: Place,
    peer: Option<Token>,
    tries: Vec<Try>,
    /// Probes answered in this round.
    answers: u32,
    /// Addresses that have answered while a path to another one was being opened.
    answered: VecDeque<SocketAddr>,
    state: State,
    /// The peer has been asked and has not answered.
    asked: bool,
    last_round: Option<Time>,
    next_round: Option<Time>,
    pause: Span,
    allowance: Allowance,
    outputs: VecDeque<Output>,
    is_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Relayed,
    Opening,
    Direct(Time),
}

/// An address that is probed.
#[derive(Debug)]
struct Try {
    to: SocketAddr,
    since: Time,
    sent: usize,
    is_stray: bool,
}

impl Try {
    fn next(&self) -> Option<Time> {
        PROBE_AT.get(self.sent).map(|span| self.since + *span)
    }
}

impl Place {
    /// Whether this node would dial `to` if a record set said so. A node on loopback has peers there alone.
    pub(super) fn may_try(&self, to: SocketAddr) -> bool {
        let address = Address::new(Transport::Quic, to);
        let is_reached = match to.ip() {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        };
        is_reached
            && self.vantage.loopback_only == (address.reach() == Reach::Loopback)
            && may_dial(&address, Origin::Discovered, &self.vantage)
    }
}

impl Seeking {
    /// A side at `place`. The target begins the first round; the initiator the later ones, since it knows what came of
    /// them.
    pub fn new(now: Now, side: Side, place: Place, rng: &mut dyn Rng) -> Seeking {
        let mut seeking = Seeking {
            side,
            token: Token::generate(rng),
            place,
            peer: None,
            tries: Vec::new(),
            answers: 0,
            answered: VecDeque::new(),
            state: State::Relayed,
            asked: false,
            last_round: None,
            next_round: None,
            pause: AGAIN.0,
            allowance: Allowance::new(now.time, ROUNDS_AT_ONCE, ROUND_EVERY),
            outputs: VecDeque::new(),
            is_over: false,
        };
        match side {
            Side::Target => seeking.begin_round(now.time),
            Side::Initiator => seeking.next_round = Some(now.time + AGAIN.0),
        }
        seeking
    }

    /// What probes for this side have to show.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Asks the peer where it is, or notes to do so where that was asked a moment ago.
    fn begin_round(&mut self, now: Time) {
        if let Some(last) = self.last_round
            && now < last + ROUND_GAP
        {
            self.next_round = Some(last + ROUND_GAP);
            return;
        }
        self.last_round = Some(now);
        self.asked = true;
        self.say(true);
        self.schedule(now);
    }

    fn schedule(&mut self, now: Time) {
        self.next_round = (self.side == Side::Initiator).then_some(now + self.pause);
    }

    fn say(&mut self, wants_answer: bool) {
        let addresses = self.place.candidates.iter().copied().take(MAX_CANDIDATES).collect();
        self.outputs.push_back(Output::Say(Candidates { wants_answer, token: self.token, addresses }));
    }

    fn heard(&mut self, now: Time, said: Candidates) {
        if said.wants_answer {
            if !self.allowance.take(now) {
                return self.end("it begins too many rounds");
            }
            self.say(false);
        } else if !std::mem::take(&mut self.asked) {
            return self.end("it answers what nobody asked");
        }
        self.peer = Some(said.token);
        self.answers = 0;
        if matches!(self.state, State::Direct(_)) {
            return;
        }
        self.tries.clear();
        for to in said.addresses {
            if self.tries.len() < MAX_CANDIDATES && self.may_probe(to) && !self.is_tried(to) {
                self.tries.push(Try { to, since: now, sent: 0, is_stray: false });
            }
        }
        self.probe(now);
    }

    fn end(&mut self, why: &'static str) {
        self.is_over = true;
        self.tries.clear();
        self.outputs.push_back(Output::End(why));
    }

    fn may_probe(&self, to: SocketAddr) -> bool {
        !self.place.candidates.contains(&to) && self.place.may_try(to)
    }

    fn is_tried(&self, to: SocketAddr) -> bool {
        self.tries.iter().any(|one| one.to == to)
    }

    /// Sends the probes that are due.
    fn probe(&mut self, now: Time) {
        let Some(token) = self.peer else { return };
        for one in &mut self.tries {
            while one.next().is_some_and(|at| at <= now) {
                one.sent += 1;
                // What is late is not made up for.
                if one.next().is_none_or(|at| at > now) {
                    self.outputs.push_back(Output::Probe(one.to, Probe { token, kind: Kind::Ask }));
                }
            }
        }
    }

    fn probed(&mut self, now: Time, kind: Kind, from: SocketAddr) {
        let Some(token) = self.peer else { return };
        if !self.may_probe(from) {
            return;
        }
        match kind {
            Kind::Ask if self.answers < MAX_ANSWERS => {
                self.answers += 1;
                self.outputs.push_back(Output::Probe(from, Probe { token, kind: Kind::Answer }));
                self.stray(now, from);
            }
            Kind::Answer if self.side == Side::Initiator && self.is_tried(from) => self.reached(from),
            _ => {}
        }
    }

    /// Probes an address that nobody offered: a NAT shows the peer there to this node alone.
    fn stray(&mut self, now: Time, from: SocketAddr) {
        let strays = self.tries.iter().filter(|one| one.is_stray).count();
        let is_wanted = self.side == Side::Initiator && self.state == State::Relayed;
        if is_wanted && strays < MAX_STRAYS && !self.is_tried(from) {
            self.tries.push(Try { to: from, since: now, sent: 0, is_stray: true });
            self.probe(now);
        }
    }

    fn reached(&mut self, at: SocketAddr) {
        match self.state {
            State::Relayed => {
                self.state = State::Opening;
                self.outputs.push_back(Output::Open(at));
            }
            State::Opening if !self.answered.contains(&at) => self.answered.push_back(at),
            _ => {}
        }
    }

    fn failed(&mut self, at: SocketAddr) {
        self.tries.retain(|one| one.to != at);
        self.answered.retain(|one| *one != at);
        if self.state == State::Opening {
            self.state = State::Relayed;
            if let Some(next) = self.answered.pop_front() {
                self.reached(next);
            }
        }
    }

    fn opened(&mut self, now: Time) {
        self.state = State::Direct(now);
        self.tries.clear();
        self.answered.clear();
        self.next_round = None;
    }

    fn lost(&mut self, now: Time) {
        let State::Direct(since) = std::mem::replace(&mut self.state, State::Relayed) else { return };
        // A path that comes and goes is not sought without a pause.
        if now - since > DIRECT_SILENCE.times(4) {
            self.pause = AGAIN.0;
            self.next_round = (self.side == Side::Initiator).then_some(now);
        } else {
            self.schedule(now);
            self.pause = self.pause.times(2).min(AGAIN.1);
        }
    }

    fn moved(&mut self, now: Time, place: Place) {
        let has_moved = place.candidates != self.place.candidates;
        self.place = place;
        if has_moved && !matches!(self.state, State::Direct(_)) {
            self.pause = AGAIN.0;
            self.begin_round(now);
        }
    }
}

impl Machine for Seeking {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, _: &mut dyn Rng) {
        if self.is_over {
            return;
        }
        match input {
            Input::Place(place) => self.moved(now.time, place),
            Input::Heard(said) => self.heard(now.time, said),
            Input::Probed(kind, from) => self.probed(now.time, kind, from),
            Input::Opened => self.opened(now.time),
            Input::Failed(at) => self.failed(at),
            Input::Lost => self.lost(now.time),
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        if self.is_over {
            return;
        }
        self.probe(now.time);
        if self.next_round.is_some_and(|at| at <= now.time) {
            self.next_round = None;
            if !matches!(self.state, State::Direct(_)) {
                self.begin_round(now.time);
                self.pause = self.pause.times(2).min(AGAIN.1);
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        if self.is_over {
            return None;
        }
        self.tries.iter().filter_map(Try::next).chain(self.next_round).min()
    }
}

#[cfg(test)]
mod tests;
