//! From a relayed path to a direct one over TCP (SEP §5.4): which rounds there are, and what is dialled in them. Pure.
//!
//! The conversation goes over a relay. In each round both sides make a port ready whose address at NATs is known, tell
//! each other where they are, and dial each other from that port at the same time, while it takes what comes as well: so
//! either NAT takes the other's SYN for an answer. One round leads to one connection, since its ports are used up by it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::allowance::Allowance;
use super::limits::{
    AGAIN, ANSWER_PATIENCE, MAX_CANDIDATES, MAX_PROVEN, MAX_ROUNDS, PROVEN_ROUNDS, PUNCH_TAIL, PUNCH_TIME,
    READY_PATIENCE, ROUND_EVERY, ROUND_GAP, ROUNDS_AT_ONCE,
};
use super::message::Candidates;
use super::seeking::{Place, Side};
use crate::Protocol;
use crate::relay::Token;

/// The protocol by which the two sides of a relayed connection punch over TCP. Its messages are those of `direct/1`; the
/// token is the name of a round.
pub const PUNCH: Protocol = Protocol::new("punch/1");

/// What a side is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection is wanted; an initiator's only.
    Wanted,
    /// The port of a round is ready and may be seen at these addresses; none where there is no such port.
    Ready(Token, Vec<SocketAddr>),
    /// The peer says where it is.
    Heard(Candidates),
    /// The peer has proved its key over a connection of this round, from there.
    Through(Token, SocketAddr),
    /// This node is elsewhere now.
    Moved(Place),
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make a port ready for this round.
    Prepare(Token),
    /// Say this to the peer.
    Say(Candidates),
    /// Dial these from the round's port, again and again, and take what comes to it.
    Dial(Token, Vec<SocketAddr>),
    /// The round is over: let its port go, and what has not become a connection.
    Release(Token),
    /// The peer does what it should not: leave it alone.
    End(&'static str),
}

/// One side of the conversation.
#[derive(Debug)]
pub struct Punching {
    side: Side,
    place: Place,
    rounds: Vec<Round>,
    /// Where the peer has proved to be, newest last.
    proven: VecDeque<IpAddr>,
    /// Rounds in which the peer may name other addresses, and those in which it names no others.
    allowances: [Allowance; 2],
    works: bool,
    last_try: Option<Time>,
    next_try: Option<Time>,
    pause: Span,
    outputs: VecDeque<Output>,
    is_over: bool,
}

#[derive(Debug)]
struct Round {
    name: Token,
    stage: Stage,
    until: Time,
    own: Vec<SocketAddr>,
    theirs: Vec<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preparing,
    Asked,
    Dialling,
}

impl Punching {
    /// A side at `place`, whose candidates do not matter here. The initiator tries at once whether there is a way.
    pub fn new(now: Now, side: Side, place: Place) -> Punching {
        let strange = Allowance::new(now.time, ROUNDS_AT_ONCE, ROUND_EVERY);
        let proven = Allowance::new(now.time, PROVEN_ROUNDS.0, PROVEN_ROUNDS.1);
        Punching {
            side,
            place,
            rounds: Vec::new(),
            proven: VecDeque::new(),
            allowances: [strange, proven],
            works: false,
            last_try: None,
            next_try: (side == Side::Initiator).then_some(now.time),
            pause: AGAIN.0,
            outputs: VecDeque::new(),
            is_over: false,
        }
    }

    /// Whether a connection may be wanted: the last round led to one, and there is room for another.
    pub fn works(&self) -> bool {
        self.works && !self.is_over && self.rounds.len() < MAX_ROUNDS
    }

    fn begin(&mut self, now: Time, rng: &mut dyn Rng) {
        if self.rounds.len() < MAX_ROUNDS {
            self.last_try = Some(now);
            let name = Token::generate(rng);
            self.prepare(now, name, Vec::new());
        }
    }

    fn prepare(&mut self, now: Time, name: Token, theirs: Vec<SocketAddr>) {
        let until = now + READY_PATIENCE;
        self.rounds.push(Round { name, stage: Stage::Preparing, until, own: Vec::new(), theirs });
        self.outputs.push_back(Output::Prepare(name));
    }

    fn say(&mut self, name: Token, addresses: Vec<SocketAddr>) {
        let wants_answer = self.side == Side::Initiator;
        self.outputs.push_back(Output::Say(Candidates { wants_answer, token: name, addresses }));
    }

    fn find(&mut self, name: Token, stage: Stage) -> Option<&mut Round> {
        self.rounds.iter_mut().find(|one| one.name == name && one.stage == stage)
    }

    fn ready(&mut self, now: Time, name: Token, mut own: Vec<SocketAddr>) {
        own.truncate(MAX_CANDIDATES);
        let side = self.side;
        let Some(round) = self.find(name, Stage::Preparing) else { return };
        round.own.clone_from(&own);
        let is_ready = !own.is_empty();
        if side == Side::Initiator && is_ready {
            (round.stage, round.until) = (Stage::Asked, now + ANSWER_PATIENCE);
            return self.say(name, own);
        }
        if side == Side::Target {
            self.say(name, own);
        }
        if is_ready { self.dial(now, name) } else { self.fail(now, name) }
    }

    /// Dials what the other side named, but for what leads back here.
    fn dial(&mut self, now: Time, name: Token) {
        let Some(round) = self.rounds.iter_mut().find(|one| one.name == name) else { return };
        (round.stage, round.until) = (Stage::Dialling, now + PUNCH_TIME);
        let own = std::mem::take(&mut round.own);
        let to: Vec<_> = round.theirs.iter().copied().filter(|to| !own.contains(to)).collect();
        if to.is_empty() { self.fail(now, name) } else { self.outputs.push_back(Output::Dial(name, to)) }
    }

    fn heard(&mut self, now: Time, said: Candidates) {
        if said.wants_answer != (self.side == Side::Target) {
            return self.end("it speaks out of turn");
        }
        let mut theirs: Vec<SocketAddr> = Vec::new();
        for to in said.addresses {
            if theirs.len() < MAX_CANDIDATES && self.place.may_try(to) && !theirs.contains(&to) {
                theirs.push(to);
            }
        }
        match self.side {
            Side::Target => self.asked(now, said.token, theirs),
            Side::Initiator => {
                // An answer may come when its round is over.
                let Some(round) = self.find(said.token, Stage::Asked) else { return };
                round.theirs = theirs;
                self.dial(now, said.token);
            }
        }
    }

    fn asked(&mut self, now: Time, name: Token, theirs: Vec<SocketAddr>) {
        if self.rounds.iter().any(|one| one.name == name) {
            return self.end("it begins a round twice");
        }
        let is_proven = theirs.iter().all(|to| self.proven.contains(&to.ip()));
        let has_room = !theirs.is_empty() && self.rounds.len() < MAX_ROUNDS;
        let [strange, proven] = &mut self.allowances;
        let allowance = if is_proven { proven } else { strange };
        if has_room && allowance.take(now) {
            self.prepare(now, name, theirs);
        } else {
            self.say(name, Vec::new());
        }
    }

    fn end(&mut self, why: &'static str) {
        self.is_over = true;
        for round in self.rounds.drain(..) {
            self.outputs.push_back(Output::Release(round.name));
        }
        self.outputs.push_back(Output::End(why));
    }

    fn through(&mut self, now: Time, name: Token, from: SocketAddr) {
        let Some(round) = self.find(name, Stage::Dialling) else { return };
        // Which of several connections is used is for the initiator to say.
        round.until = round.until.min(now + PUNCH_TAIL);
        match self.side {
            Side::Target => {
                self.proven.retain(|ip| *ip != from.ip());
                self.proven.push_back(from.ip());
                if self.proven.len() > MAX_PROVEN {
                    self.proven.pop_front();
                }
            }
            Side::Initiator => {
                (self.works, self.next_try, self.pause) = (true, None, AGAIN.0);
                self.release(name);
            }
        }
    }

    fn release(&mut self, name: Token) {
        self.rounds.retain(|one| one.name != name);
        self.outputs.push_back(Output::Release(name));
    }

    fn fail(&mut self, now: Time, name: Token) {
        self.release(name);
        if self.side == Side::Initiator && self.next_try.is_none() {
            self.works = false;
            self.next_try = Some(now + self.pause);
            self.pause = self.pause.times(2).min(AGAIN.1);
        }
    }

    fn moved(&mut self, now: Time, place: Place) {
        self.place = place;
        if self.side == Side::Initiator {
            (self.works, self.pause) = (false, AGAIN.0);
            let soonest = self.last_try.map_or(now, |last| last + ROUND_GAP);
            self.next_try = Some(soonest.max(now));
        }
    }
}

impl Machine for Punching {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        if self.is_over {
            return;
        }
        match input {
            Input::Wanted if self.works() => self.begin(now.time, rng),
            Input::Wanted => {}
            Input::Ready(name, own) => self.ready(now.time, name, own),
            Input::Heard(said) => self.heard(now.time, said),
            Input::Through(name, from) => self.through(now.time, name, from),
            Input::Moved(place) => self.moved(now.time, place),
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        if self.is_over {
            return;
        }
        let late: Vec<Token> =
            self.rounds.iter().filter(|one| one.until <= now.time).map(|one| one.name).collect();
        late.into_iter().for_each(|name| self.fail(now.time, name));
        if self.next_try.is_some_and(|at| at <= now.time) {
            self.next_try = None;
            self.begin(now.time, rng);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        if self.is_over {
            return None;
        }
        self.rounds.iter().map(|one| one.until).chain(self.next_try).min()
    }
}

#[cfg(test)]
mod tests;
