//! The race of a target's addresses and relays: which is tried when, and which one wins. Pure.

use std::collections::VecDeque;
use std::net::IpAddr;

use kith_identity::{Address, Fingerprint, Relay, Transport};
use kith_sansio::{Machine, Now, Rng, Span, Time};

use crate::address::{Origin, Vantage, may_dial};
use crate::defaults;
use crate::relay::limits::MAX_RELAYS;
use crate::{Failure, Route, Tried};

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
    /// DTLS and nothing else, without a relay: for datagrams. There are no streams over it.
    Dtls,
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
    /// These relays became known, over which the target can be reached too.
    Relays(Vec<Relay>),
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
    /// Try to reach the target over this relay.
    Relay(Attempt, Relay),
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
    /// How long relays wait for addresses, and each for the one before it.
    pub relay_stagger: Span,
    /// How long one relay may take.
    pub relay_timeout: Span,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            stagger: defaults::STAGGER,
            attempt_timeout: defaults::ATTEMPT_TIMEOUT,
            race_timeout: defaults::RACE_TIMEOUT,
            max_candidates: defaults::MAX_CANDIDATES,
            relay_stagger: defaults::RELAY_STAGGER,
            relay_timeout: defaults::RELAY_TIMEOUT,
        }
    }
}

/// One race for one target (RFC 8305 in spirit: IPv6 first, families take turns, a short head start for each).
///
/// The transports of one IP address start side by side. An address that fails makes room at once for the next.
/// Relays start one after another by preference, when addresses had a moment for themselves or none is left.
#[derive(Debug)]
pub struct Dialer {
    target: Fingerprint,
    pace: Pace,
    via: Via,
    vantage: Vantage,
    known: Vec<Address>,
    waiting: Vec<Slot>,
    relays: Vec<Relay>,
    relays_known: Vec<Fingerprint>,
    next_relay: Time,
    running: Vec<Running>,
    tried: Vec<Tried>,
    next_attempt: u32,
    next_start: Time,
    last_family_v6: bool,
    deadline: Time,
    more_to_come: bool,
    /// Whether it is for datagrams, which DTLS carries too.
    datagrams: bool,
    /// Addresses that are tried where nothing else becomes known.
    held_back: Vec<Candidate>,
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
    route: Route,
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
            relays: Vec::new(),
            relays_known: Vec::new(),
            next_relay: now.time + pace.relay_stagger,
            running: Vec::new(),
            tried: Vec::new(),
            next_attempt: 0,
            next_start: now.time,
            last_family_v6: false,
            deadline: now.time + pace.race_timeout,
            more_to_come: true,
            datagrams: false,
            held_back: Vec::new(),
            over: false,
            outputs: VecDeque::new(),
        }
    }

    /// Makes it a race for datagrams, before anything is known. DTLS carries these too; whoever does not insist on it is
    /// taken over it only where the target is known by nothing else, and not where all else fails: it is not safe from
    /// quantum computers, and somebody who drops packets on the way could force it otherwise.
    pub fn for_datagrams(&mut self) {
        self.datagrams = true;
    }

    /// Who is being dialled.
    pub fn target(&self) -> &Fingerprint {
        &self.target
    }

    fn leave_out(&mut self, route: Route, failure: Failure) {
        let tried = Tried { route, failure };
        if self.tried.len() < self.pace.max_candidates && !self.tried.contains(&tried) {
            self.tried.push(tried);
        }
    }

    fn learn(&mut self, mut candidate: Candidate) {
        if self.via == Via::Dtls && candidate.address.transport == Transport::Quic {
            // Who takes DTLS mostly does so at the port that QUIC has.
            candidate.address.transport = Transport::Dtls;
        }
        let address = candidate.address;
        let speaks = match address.transport {
            Transport::Tcp => !matches!(self.via, Via::Quic | Via::Dtls),
            Transport::Quic => !matches!(self.via, Via::Tcp | Via::Dtls),
            Transport::Dtls => self.datagrams && (self.via == Via::Dtls || !self.more_to_come),
        };
        if self.known.len() >= self.pace.max_candidates || self.known.contains(&address) {
            return;
        }
        if !speaks {
            let may_do_later = self.datagrams && self.via == Via::Any;
            if address.transport != Transport::Dtls {
                self.leave_out(Route::Direct(address), Failure::OtherTransport);
            } else if may_do_later && self.held_back.len() < self.pace.max_candidates {
                self.held_back.push(candidate);
            }
            return;
        }
        if !may_dial(&address, candidate.origin, &self.vantage) {
            // Known to be no use; a hint of the same address may still come and make it one.
            self.leave_out(Route::Direct(address), Failure::NotDialled);
            return;
        }
        self.tried.retain(|one| one.route != Route::Direct(address));
        self.known.push(address);
        let ip = address.socket.ip();
        let late = self.via == Via::Bulk && address.transport == Transport::Quic;
        match self.waiting.iter_mut().find(|slot| slot.ip == ip && slot.late == late) {
            Some(slot) => slot.addresses.push(address),
            None => self.waiting.push(Slot { ip, late, addresses: vec![address] }),
        }
    }

    /// Relays of the target, one path each.
    fn learn_relay(&mut self, relay: Relay) {
        let name = relay.ni.fingerprint;
        if self.via == Via::Dtls {
            return self.leave_out(Route::Over(name), Failure::OtherTransport);
        }
        let is_new = name != self.target && !self.relays_known.contains(&name);
        if !is_new || self.relays_known.len() >= MAX_RELAYS {
            return;
        }
        self.relays_known.push(name);
        let at = self.relays.partition_point(|one| *one <= relay);
        self.relays.insert(at, relay);
    }

    /// No more becomes known: where that is nothing but DTLS, so be it.
    fn know_all(&mut self) {
        self.more_to_come = false;
        let held_back = std::mem::take(&mut self.held_back);
        if self.known.is_empty() && self.relays_known.is_empty() && self.tried.is_empty() {
            held_back.into_iter().for_each(|one| self.learn(one));
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
                let attempt = self.run(Route::Direct(address), now + self.pace.attempt_timeout);
                self.outputs.push_back(Output::Start(attempt, address));
            }
            self.next_start = now + self.pace.stagger;
        }
        let may_relay = |dialer: &Dialer| dialer.running.is_empty() || now >= dialer.next_relay;
        while !self.over && !self.relays.is_empty() && may_relay(self) {
            let relay = self.relays.remove(0);
            let route = Route::Over(relay.ni.fingerprint);
            let attempt = self.run(route, now + self.pace.relay_timeout);
            self.outputs.push_back(Output::Relay(attempt, relay));
            self.next_relay = now + self.pace.relay_stagger;
        }
        let nothing_left = self.running.is_empty() && self.waiting.is_empty() && !self.more_to_come;
        if !self.over && nothing_left {
            self.lose();
        }
    }

    fn run(&mut self, route: Route, deadline: Time) -> Attempt {
        let attempt = Attempt(self.next_attempt);
        self.next_attempt += 1;
        self.running.push(Running { attempt, route, deadline });
        attempt
    }

    fn fail(&mut self, attempt: Attempt, failure: Failure) {
        if let Some(at) = self.running.iter().position(|one| one.attempt == attempt) {
            let route = self.running.remove(at).route;
            self.tried.push(Tried { route, failure });
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
        self.relays.clear();
        self.outputs.push_back(Output::Reached(attempt));
    }

    fn lose(&mut self) {
        self.over = true;
        for running in self.running.drain(..) {
            self.outputs.push_back(Output::Abort(running.attempt));
            self.tried.push(Tried { route: running.route, failure: Failure::GivenUp });
        }
        for address in self.waiting.drain(..).flat_map(|slot| slot.addresses) {
            self.tried.push(Tried { route: Route::Direct(address), failure: Failure::GivenUp });
        }
        for relay in self.relays.drain(..) {
            let route = Route::Over(relay.ni.fingerprint);
            self.tried.push(Tried { route, failure: Failure::GivenUp });
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
            Input::Relays(relays) => relays.into_iter().for_each(|one| self.learn_relay(one)),
            Input::NoMoreCandidates => self.know_all(),
            Input::Connected(attempt) => self.win(attempt),
            Input::Failed(attempt, failure) => self.fail(attempt, failure),
        }
        self.advance(now.time);
    }

    fn handle_timeout(&mut self, now: Now, _rng: &mut dyn Rng) {
        if self.over {
            return;
        }
        let late = self.running.iter().filter(|one| now.time >= one.deadline);
        let late: Vec<(Attempt, Route)> = late.map(|one| (one.attempt, one.route)).collect();
        for (attempt, route) in late {
            let waited = match route {
                Route::Direct(_) => self.pace.attempt_timeout,
                Route::Over(_) => self.pace.relay_timeout,
            };
            self.outputs.push_back(Output::Abort(attempt));
            self.fail(attempt, Failure::Silent(waited));
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
        let next_relay = (!self.relays.is_empty()).then_some(self.next_relay);
        let deadlines = self.running.iter().map(|one| one.deadline);
        deadlines.chain(next_start).chain(next_relay).chain([self.deadline]).min()
    }
}

#[cfg(test)]
mod tests;
