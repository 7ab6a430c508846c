use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

use kith_identity::{Address, Reach, Transport};
use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::pcp::{self, Answer};
use super::{Kind, Lease};
use crate::defaults::{
    MAPPING_BACKOFF_FIRST, MAPPING_BACKOFF_LAST, MAPPING_LIFE, MAPPING_RENEW, MAPPING_SOONEST, MAPPING_TRIES,
    MAPPING_TRY, MAPPING_UPNP, MAX_LISTENERS,
};

/// Where this machine stands: its way out, and its own address on the network of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// The router's address.
    pub gateway: Ipv4Addr,
    /// This machine's.
    pub own: Ipv4Addr,
}

/// A port that shall be reached from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What listens there.
    pub kind: Kind,
    /// The port of this machine.
    pub port: u16,
}

/// What happens to a mapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// This is the way out now; `None` where there is none that could map ports, or none is needed.
    Router(Option<Router>),
    /// A packet from port 5351 of the router.
    Heard(Vec<u8>),
    /// UPnP has come to an end: the mapping, or that there is none.
    Upnp {
        /// Of which wish.
        wish: u64,
        /// What was mapped.
        lease: Option<Lease>,
    },
    /// Give all mappings back; this is the end.
    Release,
}

/// What a mapper wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to port 5351 of the router.
    Send(Vec<u8>),
    /// Map this by UPnP and come back with [`Input::Upnp`].
    Upnp {
        /// Names the wish.
        wish: u64,
        /// The port to map.
        wanted: Wanted,
        /// The port that would be liked on the other side, and for how long.
        lease: Lease,
    },
    /// Take this mapping away by UPnP; nobody waits for it.
    UpnpRemove {
        /// What it is for.
        kind: Kind,
        /// The port of the router.
        external: u16,
    },
    /// Take away what this wish has just mapped: it came too late, and nobody wants it any more.
    UpnpReturn {
        /// The wish of the [`Input::Upnp`] before.
        wish: u64,
    },
    /// What [`Mapper::mapped`] says has changed.
    Changed,
}

/// In the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Pcp,
    NatPmp,
    Upnp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing to do before this.
    Due(Time),
    /// Asked, so often; again or otherwise at this time.
    Asked(Protocol, u32, Time),
    /// UPnP is at it, until this time at most.
    Upnp(u64, Time),
}

#[derive(Clone, Copy, Debug)]
struct Held {
    by: Protocol,
    external: SocketAddrV4,
    until: Time,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    /// Names the mapping to a PCP router, which gives it to nobody else.
    nonce: [u8; 12],
    step: Step,
    held: Option<Held>,
    failures: u32,
}

/// The machine that keeps ports of a router for the listeners of this node.
#[derive(Debug)]
pub struct Mapper {
    router: Option<Router>,
    entries: Vec<Entry>,
    /// What the router was heard to speak.
    speaks: Option<Protocol>,
    /// The router's other address, as NAT-PMP says.
    address: Option<Ipv4Addr>,
    epoch: Option<u32>,
    next_wish: u64,
    /// What UPnP is still at, and with which router.
    wishes: HashMap<u64, (Wanted, Router)>,
    told: Vec<Address>,
    over: bool,
    outputs: VecDeque<Output>,
}

impl Mapper {
    /// A mapper for these ports, which knows no router yet.
    #[must_use]
    pub fn new(wanted: impl IntoIterator<Item = Wanted>, rng: &mut dyn Rng) -> Mapper {
        let entry = |wanted| {
            let mut nonce = [0; 12];
            rng.fill(&mut nonce);
            Entry { wanted, nonce, step: Step::Due(Time(0)), held: None, failures: 0 }
        };
        Mapper {
            router: None,
            entries: wanted.into_iter().take(MAX_LISTENERS).map(entry).collect(),
            speaks: None,
            address: None,
            epoch: None,
            next_wish: 0,
            wishes: HashMap::new(),
            told: Vec::new(),
            over: false,
            outputs: VecDeque::new(),
        }
    }

    /// Where this node is reached through the router: public addresses alone. Behind a second translator the router's
    /// own address is of no use to anybody.
    #[must_use]
    pub fn mapped(&self) -> Vec<Address> {
        let held = self.entries.iter().filter_map(|entry| entry.held.map(|held| (entry.wanted.kind, held)));
        let addresses = held.map(|(kind, held)| {
            let transport = if kind == Kind::Udp { Transport::Quic } else { Transport::Tcp };
            Address::new(transport, held.external.into())
        });
        addresses.filter(|address| address.reach() == Reach::Global && address.socket.port() != 0).collect()
    }

    fn router(&mut self, now: Time, router: Option<Router>) {
        if self.router == router {
            return;
        }
        self.router = router;
        (self.speaks, self.address, self.epoch) = (None, None, None);
        for entry in &mut self.entries {
            (entry.held, entry.failures, entry.step) = (None, 0, Step::Due(now));
        }
    }

    fn ask(&mut self, now: Time, at: usize, protocol: Protocol, tries: u32) {
        let Some(router) = self.router else { return };
        let entry = &mut self.entries[at];
        let port = entry.wanted.port;
        let life_secs = u32::try_from(MAPPING_LIFE.as_secs()).unwrap_or(u32::MAX);
        let wanted = match entry.held {
            Some(held) => Lease { external: held.external, life_secs },
            None => Lease::any(port, life_secs),
        };
        let again = now + Span(MAPPING_TRY.0 << tries.min(8));
        entry.step = Step::Asked(protocol, tries + 1, again);
        match protocol {
            Protocol::Pcp => {
                let request = pcp::pcp_map(router.own, &entry.nonce, entry.wanted.kind, port, &wanted);
                self.outputs.push_back(Output::Send(request));
            }
            Protocol::NatPmp => {
                let request =
                    pcp::nat_pmp_map(entry.wanted.kind, port, wanted.external.port(), wanted.life_secs);
                self.outputs.push_back(Output::Send(pcp::nat_pmp_address()));
                self.outputs.push_back(Output::Send(request));
            }
            Protocol::Upnp => {
                self.next_wish += 1;
                entry.step = Step::Upnp(self.next_wish, now + MAPPING_UPNP);
                let (wish, wanted_port) = (self.next_wish, entry.wanted);
                self.wishes.insert(wish, (wanted_port, router));
                self.outputs.push_back(Output::Upnp { wish, wanted: wanted_port, lease: wanted });
            }
        }
    }

    /// The protocol came to nothing: the next one, or later again.
    fn failed(&mut self, now: Time, at: usize, protocol: Protocol) {
        if self.speaks == Some(protocol) {
            self.speaks = None;
        }
        match protocol {
            Protocol::Pcp => self.ask(now, at, Protocol::NatPmp, 0),
            Protocol::NatPmp => self.ask(now, at, Protocol::Upnp, 0),
            Protocol::Upnp => {
                let entry = &mut self.entries[at];
                let pause = MAPPING_BACKOFF_FIRST.times(1 << entry.failures.min(16));
                entry.failures += 1;
                entry.step = Step::Due(now + Span(pause.0.min(MAPPING_BACKOFF_LAST.0)));
            }
        }
    }

    fn gained(&mut self, now: Time, at: usize, by: Protocol, lease: Lease) {
        let entry = &mut self.entries[at];
        let life = Span::secs(lease.life_secs.into());
        entry.held = Some(Held { by, external: lease.external, until: now + life });
        entry.failures = 0;
        entry.step = Step::Due(now + Span((life.0 / 2).clamp(MAPPING_SOONEST.0, MAPPING_RENEW.0)));
        self.speaks = Some(by);
    }

    /// A router that counts anew has lost what it held: everything is asked for again.
    fn counts(&mut self, now: Time, epoch: u32) {
        if self.epoch.is_some_and(|last| epoch < last) {
            for entry in &mut self.entries {
                if let Step::Due(_) = entry.step {
                    entry.step = Step::Due(now);
                }
            }
        }
        self.epoch = Some(epoch);
    }

    fn asked(&self, by: Protocol, matches: impl Fn(&Entry) -> bool) -> Option<usize> {
        let is = |entry: &Entry| {
            matches!(entry.step, Step::Asked(protocol, ..) if protocol == by) && matches(entry)
        };
        self.entries.iter().position(is)
    }

    fn hear(&mut self, now: Time, answer: Answer) {
        match answer {
            Answer::Pcp { nonce, kind, internal, lease, epoch } => {
                let wanted = Wanted { kind, port: internal };
                let own = |entry: &Entry| entry.nonce == nonce && entry.wanted == wanted;
                let Some(at) = self.asked(Protocol::Pcp, own) else { return };
                self.gained(now, at, Protocol::Pcp, lease);
                self.counts(now, epoch);
            }
            Answer::PcpRefused { nonce, .. } => {
                if let Some(at) = self.asked(Protocol::Pcp, |entry| entry.nonce == nonce) {
                    self.failed(now, at, Protocol::Pcp);
                }
            }
            Answer::NotPcp => {
                while let Some(at) = self.asked(Protocol::Pcp, |_| true) {
                    self.ask(now, at, Protocol::NatPmp, 0);
                }
            }
            Answer::NatPmpAddress { external, epoch } => {
                self.address = Some(external);
                for entry in &mut self.entries {
                    match &mut entry.held {
                        Some(held) if held.by == Protocol::NatPmp => held.external.set_ip(external),
                        _ => {}
                    }
                }
                self.counts(now, epoch);
            }
            Answer::NatPmp { kind, internal, external, life_secs, epoch } => {
                let wanted = Wanted { kind, port: internal };
                let Some(at) = self.asked(Protocol::NatPmp, |entry| entry.wanted == wanted) else { return };
                // Until the router says its address the mapping leads nowhere that could be told.
                let address = self.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
                let lease = Lease { external: SocketAddrV4::new(address, external), life_secs };
                self.gained(now, at, Protocol::NatPmp, lease);
                self.counts(now, epoch);
            }
            Answer::NatPmpRefused(_) => {
                // It does not say which: each finds out by itself, by UPnP.
                while let Some(at) = self.asked(Protocol::NatPmp, |_| true) {
                    self.failed(now, at, Protocol::NatPmp);
                }
            }
        }
    }

    /// UPnP has come to an end with `wish`, be it after its time.
    fn upnp(&mut self, now: Time, wish: u64, lease: Option<Lease>) {
        let Some((wanted, router)) = self.wishes.remove(&wish) else { return };
        let at = self.entries.iter().position(|one| matches!(one.step, Step::Upnp(id, _) if id == wish));
        match (at.filter(|_| !self.over), lease) {
            (Some(at), Some(lease)) => self.gained(now, at, Protocol::Upnp, lease),
            (Some(at), None) => self.failed(now, at, Protocol::Upnp),
            (None, Some(lease)) => self.late(now, wish, (wanted, router), lease),
            (None, None) => {}
        }
    }

    /// Something was mapped that was given up already: it is as good as any where nothing else is held, else it goes
    /// back.
    fn late(&mut self, now: Time, wish: u64, (wanted, router): (Wanted, Router), lease: Lease) {
        let is_here = !self.over && self.router == Some(router);
        let at = self.entries.iter().position(|entry| is_here && entry.wanted == wanted);
        match at.map(|at| (at, self.entries[at].held)) {
            Some((at, None)) => self.gained(now, at, Protocol::Upnp, lease),
            Some((_, Some(held))) if held.external == lease.external => {}
            _ => self.outputs.push_back(Output::UpnpReturn { wish }),
        }
    }

    fn release(&mut self) {
        self.over = true;
        let Some(router) = self.router else { return };
        for entry in &mut self.entries {
            let Some(held) = entry.held.take() else { continue };
            let Wanted { kind, port } = entry.wanted;
            self.outputs.push_back(match held.by {
                Protocol::Pcp => {
                    let gone = Lease { external: held.external, life_secs: 0 };
                    Output::Send(pcp::pcp_map(router.own, &entry.nonce, kind, port, &gone))
                }
                Protocol::NatPmp => Output::Send(pcp::nat_pmp_map(kind, port, 0, 0)),
                Protocol::Upnp => Output::UpnpRemove { kind, external: held.external.port() },
            });
        }
    }

    fn go_on(&mut self, now: Time) {
        if !self.over && self.router.is_some() {
            for at in 0..self.entries.len() {
                let entry = &mut self.entries[at];
                if entry.held.is_some_and(|held| now >= held.until) {
                    entry.held = None;
                }
                match entry.step {
                    Step::Due(due) if now >= due => {
                        self.ask(now, at, self.speaks.unwrap_or(Protocol::Pcp), 0);
                    }
                    Step::Asked(protocol, tries, again) if now >= again && tries < MAPPING_TRIES => {
                        self.ask(now, at, protocol, tries);
                    }
                    Step::Asked(protocol, _, again) if now >= again => self.failed(now, at, protocol),
                    Step::Upnp(_, until) if now >= until => self.failed(now, at, Protocol::Upnp),
                    _ => {}
                }
            }
        }
        let mapped = self.mapped();
        if mapped != self.told {
            self.told = mapped;
            self.outputs.push_back(Output::Changed);
        }
    }
}

impl Machine for Mapper {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, _: &mut dyn Rng) {
        if self.over {
            if let Input::Upnp { wish, lease } = input {
                self.upnp(now.time, wish, lease);
            }
            return;
        }
        match input {
            Input::Router(router) => self.router(now.time, router),
            Input::Heard(packet) => {
                if let Some(answer) = pcp::read(&packet).filter(|_| self.router.is_some()) {
                    self.hear(now.time, answer);
                }
            }
            Input::Upnp { wish, lease } => self.upnp(now.time, wish, lease),
            Input::Release => self.release(),
        }
        self.go_on(now.time);
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        self.go_on(now.time);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        if self.over || self.router.is_none() {
            return None;
        }
        let steps = self.entries.iter().map(|entry| match entry.step {
            Step::Due(at) | Step::Asked(_, _, at) | Step::Upnp(_, at) => at,
        });
        let ends = self.entries.iter().filter_map(|entry| entry.held.map(|held| held.until));
        steps.chain(ends).min()
    }
}

#[cfg(test)]
mod tests;
