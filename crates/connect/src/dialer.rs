//! The race of a target's addresses: which is tried when, and which one wins. Pure.

use std::collections::VecDeque;
use std::net::IpAddr;

use kith_identity::{Address, Fingerprint, Transport};
use kith_sansio::{Machine, Now, Rng, Span, Time};

use crate::address::{Origin, Vantage, may_dial};
use crate::defaults;
use crate::{Failure, Tried};

/// What a connection has to be made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// Whatever answers first.
    #[default]
    Any,
    /// TCP where it answers within a stagger's time, else QUIC: for bulk transfers.
    Bulk,
    /// TCP and nothing else.
    Tcp,
    /// QUIC and nothing else.
    Quic,
}

/// An address to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The address.
    pub address: Address,
    /// Where it comes from.
    pub origin: Origin,
}

/// Names one attempt within one race.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt(pub u32);

/// What a race is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// These addresses became known; those known already are passed over.
    Candidates(Vec<Candidate>),
    /// No more addresses will become known.
    NoMoreCandidates,
    /// The attempt reached the target and verified it.
    Connected(Attempt),
    /// The attempt came to nothing.
    Failed(Attempt, Failure),
}

/// What a race wants done, or its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Try this address.
    Start(Attempt, Address),
    /// Stop trying; the attempt will not be asked for again.
    Abort(Attempt),
    /// The race is won by this attempt; all others have been aborted.
    Reached(Attempt),
    /// The race is over and nobody won; empty where there was no address at all.
    Unreachable(Vec<Tried>),
}

/// How a race is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long the next address waits for the one before it.
    pub stagger: Span,
    /// How long one attempt may take.
    pub attempt_timeout: Span,
    /// How long the race may take.
    pub race_timeout: Span,
    /// Most addresses that are tried.
    pub max_candidates: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            stagger: defaults::STAGGER,
            attempt_timeout: defaults::ATTEMPT_TIMEOUT,
            race_timeout: defaults::RACE_TIMEOUT,
            max_candidates: defaults::MAX_CANDIDATES,
        }
    }
}

/// One race for one target (RFC 8305 in spirit: IPv6 first, families take turns, a short head start for each).
///
/// The transports of one IP address start side by side. An address that fails makes room at once for the next.
#[derive(Debug)]
pub struct Dialer {
    target: Fingerprint,
    pace: Pace,
    via: Via,
    vantage: Vantage,
    known: Vec<Address>,
    waiting: Vec<Slot>,
    running: Vec<Running>,
    tried: Vec<Tried>,
    next_attempt: u32,
    next_start: Time,
    last_family_v6: bool,
    deadline: Time,
    more_to_come: bool,
    over: bool,
    outputs: VecDeque<Output>,
}

/// Addresses that start together: one IP address, or one transport of it.
#[derive(Debug)]
struct Slot {
    ip: IpAddr,
    late: bool,
    addresses: Vec<Address>,
}

#[derive(Debug)]
struct Running {
    attempt: Attempt,
    address: Address,
    deadline: Time,
}

impl Dialer {
    /// A race that begins at `now` with no address known.
    pub fn new(target: Fingerprint, now: Now, via: Via, vantage: Vantage, pace: Pace) -> Dialer {
        Dialer {
            target,
            pace,
            via,
            vantage,
            known: Vec::new(),
            waiting: Vec::new(),
            running: Vec::new(),
            tried: Vec::new(),
            next_attempt: 0,
            next_start: now.time,
            last_family_v6: false,
            deadline: now.time + pace.race_timeout,
            more_to_come: true,
            over: false,
            outputs: VecDeque::new(),
        }
    }

    /// Who is being dialled.
    pub fn target(&self) -> &Fingerprint {
        &self.target
    }

    fn leave_out(&mut self, address: Address, failure: Failure) {
        let tried = Tried { address, failure };
        if self.tried.len() < self.pace.max_candidates && !self.tried.contains(&tried) {
            self.tried.push(tried);
        }
    }

    fn learn(&mut self, candidate: Candidate) {
        let address = candidate.address;
        let speaks = match address.transport {
            Transport::Tcp => self.via != Via::Quic,
            Transport::Quic => self.via != Via::Tcp,
            Transport::Dtls => false,
        };
        if self.known.len() >= self.pace.max_candidates || self.known.contains(&address) {
            return;
        }
        if !speaks {
            if address.transport != Transport::Dtls {
                self.leave_out(address, Failure::OtherTransport);
            }
            return;
        }
        if !may_dial(&address, candidate.origin, &self.vantage) {
            // Known to be no use; a hint of the same address may still come and make it one.
            self.leave_out(address, Failure::NotDialled);
            return;
        }
        self.tried.retain(|one| one.address != address);
        self.known.push(address);
        let ip = address.socket.ip();
        let late = self.via == Via::Bulk && address.transport == Transport::Quic;
        match self.waiting.iter_mut().find(|slot| slot.ip == ip && slot.late == late) {
            Some(slot) => slot.addresses.push(address),
            None => self.waiting.push(Slot { ip, late, addresses: vec![address] }),
        }
    }

    /// The slot whose turn it is: those without a handicap first, then the family that was not served last.
    fn next_slot(&mut self) -> Option<Slot> {
        let wanted_v6 = !self.last_family_v6;
        let best = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(at, slot)| (slot.late, slot.ip.is_ipv6() != wanted_v6, *at))?
            .0;
        let slot = self.waiting.remove(best);
        self.last_family_v6 = slot.ip.is_ipv6();
        Some(slot)
    }

    fn advance(&mut self, now: Time) {
        while !self.over && (self.running.is_empty() || now >= self.next_start) {
            let Some(slot) = self.next_slot() else { break };
            for address in slot.addresses {
                let attempt = Attempt(self.next_attempt);
                self.next_attempt += 1;
                self.running.push(Running { attempt, address, deadline: now + self.pace.attempt_timeout });
                self.outputs.push_back(Output::Start(attempt, address));
            }
            self.next_start = now + self.pace.stagger;
        }
        let nothing_left = self.running.is_empty() && self.waiting.is_empty() && !self.more_to_come;
        if !self.over && nothing_left {
            self.lose();
        }
    }

    fn fail(&mut self, attempt: Attempt, failure: Failure) {
        if let Some(at) = self.running.iter().position(|one| one.attempt == attempt) {
            let address = self.running.remove(at).address;
            self.tried.push(Tried { address, failure });
        }
    }

    fn win(&mut self, attempt: Attempt) {
        if self.over || !self.running.iter().any(|one| one.attempt == attempt) {
            return;
        }
        self.over = true;
        for other in self.running.drain(..).filter(|one| one.attempt != attempt) {
            self.outputs.push_back(Output::Abort(other.attempt));
        }
        self.waiting.clear();
        self.outputs.push_back(Output::Reached(attempt));
    }

    fn lose(&mut self) {
        self.over = true;
        for running in self.running.drain(..) {
            self.outputs.push_back(Output::Abort(running.attempt));
            self.tried.push(Tried { address: running.address, failure: Failure::GivenUp });
        }
        for address in self.waiting.drain(..).flat_map(|slot| slot.addresses) {
            self.tried.push(Tried { address, failure: Failure::GivenUp });
        }
        self.outputs.push_back(Output::Unreachable(std::mem::take(&mut self.tried)));
    }
}

impl Machine for Dialer {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, _rng: &mut dyn Rng) {
        if self.over {
            return;
        }
        match input {
            Input::Candidates(candidates) => candidates.into_iter().for_each(|one| self.learn(one)),
            Input::NoMoreCandidates => self.more_to_come = false,
            Input::Connected(attempt) => self.win(attempt),
            Input::Failed(attempt, failure) => self.fail(attempt, failure),
        }
        self.advance(now.time);
    }

    fn handle_timeout(&mut self, now: Now, _rng: &mut dyn Rng) {
        if self.over {
            return;
        }
        let late: Vec<Attempt> =
            self.running.iter().filter(|one| now.time >= one.deadline).map(|one| one.attempt).collect();
        for attempt in late {
            self.outputs.push_back(Output::Abort(attempt));
            self.fail(attempt, Failure::Silent(self.pace.attempt_timeout));
        }
        if now.time >= self.deadline {
            self.lose();
        }
        self.advance(now.time);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        if self.over {
            return None;
        }
        let next_start = (!self.waiting.is_empty()).then_some(self.next_start);
        self.running.iter().map(|one| one.deadline).chain(next_start).chain([self.deadline]).min()
    }
}

#[cfg(test)]
mod tests;
