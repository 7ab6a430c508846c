//! The machines with a model of their shells: streams keep the order of what they carry, or break.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kith_connect::delegator::{
    Epoch, Message, Policy, Server, ServerInput, ServerOutput, SessionId, Subscriber, SubscriberInput,
    SubscriberOutput,
};
use kith_identity::Fingerprint;
use kith_sansio::{Machine, Now, Rng, Span, Time, Timestamp};
use kith_vnet::{Effect, Faults, Wiring, World};

use super::who;

pub(super) const SUBSCRIBERS: u8 = 5;
/// How long a connection may take.
const DIAL: Span = Span::secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Delegator,
    Subscriber(u8),
}

/// What goes over the network: a stream's number, and the place of the packet in it.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    stream: u64,
    place: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Dial,
    Accept,
    Data(Message),
    Hang,
}

pub(super) enum Input {
    From(Place, Packet),
    Policy(Arc<Policy>),
}

pub(super) enum Out {
    Send(Place, Packet),
    Changed,
}

/// One side of a stream.
#[derive(Debug, Default)]
struct Ends {
    sent: u64,
    got: u64,
}

impl Ends {
    fn packet(&mut self, stream: u64, what: What) -> Packet {
        self.sent += 1;
        Packet { stream, place: self.sent, what }
    }

    /// Whether the packet is the next one; `None` for one that was here before.
    fn fits(&mut self, packet: &Packet) -> Option<bool> {
        if packet.place <= self.got {
            return None;
        }
        self.got += 1;
        Some(packet.place == self.got)
    }
}

pub(super) enum Party {
    Desk(Box<Desk>),
    Reader(Box<Reader>),
}

pub(super) struct Desk {
    server: Server,
    streams: BTreeMap<(u8, u64), (SessionId, Ends)>,
    next: u64,
    out: VecDeque<Out>,
}

pub(super) struct Reader {
    pub(super) machine: Subscriber,
    /// The stream, its ends, and until when it must be accepted.
    stream: Option<(u64, Ends, Option<Time>)>,
    next: u64,
    pub(super) changes: usize,
    out: VecDeque<Out>,
}

impl Desk {
    fn from(&mut self, now: Now, from: u8, packet: &Packet, rng: &mut dyn Rng) {
        let key = (from, packet.stream);
        if let What::Dial = packet.what {
            if self.streams.contains_key(&key) {
                return;
            }
            self.next += 1;
            let session = SessionId(self.next);
            let mut ends = Ends { sent: 0, got: 1 };
            self.out.push_back(Out::Send(Place::Subscriber(from), ends.packet(packet.stream, What::Accept)));
            self.streams.insert(key, (session, ends));
            self.server.handle_input(now, ServerInput::Opened(session, who(from)), rng);
        } else if let Some((session, ends)) = self.streams.get_mut(&key) {
            let session = *session;
            let input = match (ends.fits(packet), &packet.what) {
                (None, _) => return,
                (Some(true), What::Data(message)) => ServerInput::Received(session, message.clone()),
                _ => {
                    self.streams.remove(&key);
                    self.out.push_back(Out::Send(
                        Place::Subscriber(from),
                        Ends::default().packet(key.1, What::Hang),
                    ));
                    ServerInput::Closed(session)
                }
            };
            self.server.handle_input(now, input, rng);
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            let (session, what) = match output {
                ServerOutput::Send(session, message) => (session, What::Data(message)),
                ServerOutput::Close(session, _) => (session, What::Hang),
            };
            let Some((key, (_, ends))) = self.streams.iter_mut().find(|(_, (one, _))| *one == session) else {
                continue;
            };
            let key = *key;
            let is_end = matches!(what, What::Hang);
            self.out.push_back(Out::Send(Place::Subscriber(key.0), ends.packet(key.1, what)));
            if is_end {
                self.streams.remove(&key);
            }
        }
    }
}

impl Reader {
    pub(super) fn new(n: u8, now: Now) -> Reader {
        let machine = Subscriber::new(who(n), now);
        Reader { machine, stream: None, next: 0, changes: 0, out: VecDeque::new() }
    }

    fn from(&mut self, now: Now, packet: &Packet, rng: &mut dyn Rng) {
        let Some((stream, ends, accept)) = self.stream.as_mut().filter(|(own, ..)| *own == packet.stream)
        else {
            return;
        };
        if let What::Hang = packet.what {
            return self.lose(now, rng);
        }
        let input = match (ends.fits(packet), &packet.what) {
            (None, _) => return,
            (Some(true), What::Accept) => {
                *accept = None;
                SubscriberInput::Connected
            }
            (Some(true), What::Data(message)) => SubscriberInput::Received(message.clone()),
            _ => {
                let hang = ends.packet(*stream, What::Hang);
                self.out.push_back(Out::Send(Place::Delegator, hang));
                return self.lose(now, rng);
            }
        };
        self.machine.handle_input(now, input, rng);
        self.drain(now);
    }

    fn lose(&mut self, now: Now, rng: &mut dyn Rng) {
        self.stream = None;
        self.machine.handle_input(now, SubscriberInput::Lost, rng);
        self.drain(now);
    }

    fn timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        if self.stream.as_ref().is_some_and(|(.., accept)| accept.is_some_and(|by| by <= now.time)) {
            self.lose(now, rng);
        }
        self.machine.handle_timeout(now, rng);
        self.drain(now);
    }

    fn drain(&mut self, now: Now) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                SubscriberOutput::Connect => {
                    self.next = now.time.0.max(self.next + 1);
                    let mut ends = Ends::default();
                    self.out.push_back(Out::Send(Place::Delegator, ends.packet(self.next, What::Dial)));
                    self.stream = Some((self.next, ends, Some(now.time + DIAL)));
                }
                SubscriberOutput::Send(message) => {
                    let Some((stream, ends, _)) = &mut self.stream else {
                        panic!("it talks without a stream")
                    };
                    self.out
                        .push_back(Out::Send(Place::Delegator, ends.packet(*stream, What::Data(message))));
                }
                SubscriberOutput::Disconnect(_) => {
                    let Some((stream, mut ends, _)) = self.stream.take() else { panic!("it had no stream") };
                    self.out.push_back(Out::Send(Place::Delegator, ends.packet(stream, What::Hang)));
                }
                SubscriberOutput::Changed => {
                    self.changes += 1;
                    self.out.push_back(Out::Changed);
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        let accept = self.stream.as_ref().and_then(|(.., accept)| *accept);
        accept.into_iter().chain(self.machine.poll_timeout()).min()
    }
}

impl Machine for Party {
    type Input = Input;
    type Output = Out;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match (self, input) {
            (Party::Desk(desk), Input::From(Place::Subscriber(from), packet)) => {
                desk.from(now, from, &packet, rng);
            }
            (Party::Desk(desk), Input::Policy(policy)) => {
                desk.server.handle_input(now, ServerInput::Policy(policy), rng);
                desk.drain();
            }
            (Party::Reader(reader), Input::From(Place::Delegator, packet)) => reader.from(now, &packet, rng),
            _ => panic!("an input for another kind of node"),
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        match self {
            Party::Desk(desk) => {
                desk.server.handle_timeout(now, rng);
                desk.drain();
            }
            Party::Reader(reader) => reader.timeout(now, rng),
        }
    }

    fn poll_output(&mut self) -> Option<Out> {
        match self {
            Party::Desk(desk) => desk.out.pop_front(),
            Party::Reader(reader) => {
                if reader.out.is_empty() {
                    reader.drain(Now::default());
                }
                reader.out.pop_front()
            }
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self {
            Party::Desk(desk) => desk.server.poll_timeout(),
            Party::Reader(reader) => reader.poll_timeout(),
        }
    }
}

pub(super) struct Wires;

impl Wiring for Wires {
    type Machine = Party;
    type Address = Place;
    type Message = Packet;
    type Event = ();

    fn input(&mut self, from: Place, packet: Packet) -> Input {
        Input::From(from, packet)
    }

    fn effect(&mut self, _at: &Place, output: Out) -> Effect<Wires> {
        match output {
            Out::Send(to, packet) => Effect::Send(to, packet),
            Out::Changed => Effect::Event(()),
        }
    }
}

pub(super) struct Net {
    pub(super) world: World<Wires>,
    policy: Arc<Policy>,
    lease: Span,
    lives: u8,
}

impl Net {
    pub(super) fn new(seed: u64, faults: Faults, policy: Arc<Policy>, lease: Span) -> Net {
        let mut net = Net { world: World::new(seed, faults, Wires), policy, lease, lives: 0 };
        net.restart_server();
        for n in 0..SUBSCRIBERS {
            let reader = Reader::new(n, net.now());
            net.world.start(&Place::Subscriber(n), Party::Reader(Box::new(reader)));
        }
        net
    }

    pub(super) fn now(&self) -> Now {
        let time = self.world.now();
        Now { time, utc: Timestamp(1_767_225_600 + time.0 / 1_000_000) }
    }

    pub(super) fn policy(&self) -> Policy {
        (*self.policy).clone()
    }

    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.policy = Arc::new(policy);
        self.world.input(&Place::Delegator, Input::Policy(Arc::clone(&self.policy)));
    }

    /// Takes subscriber `n` out of the policy.
    pub(super) fn expel(&mut self, n: u8) {
        let mut policy = self.policy();
        policy.expel(&who(n)).unwrap();
        self.set_policy(policy);
    }

    pub(super) fn stop_server(&mut self) {
        self.world.crash(&Place::Delegator);
    }

    /// A new life of the delegator, which knows its policy and nobody else.
    pub(super) fn restart_server(&mut self) {
        self.stop_server();
        self.lives += 1;
        let server = Server::new(Arc::clone(&self.policy), Epoch([self.lives; 16]), self.lease);
        let next = u64::from(self.lives) << 32;
        let desk = Desk { server, streams: BTreeMap::new(), next, out: VecDeque::new() };
        self.world.start(&Place::Delegator, Party::Desk(Box::new(desk)));
    }

    pub(super) fn cut_somebody_off(&mut self) {
        let n = self.world.chance().below(u64::from(SUBSCRIBERS)) as u8;
        self.cut_off(n);
    }

    pub(super) fn cut_off(&mut self, n: u8) {
        self.world.network().partition(&Place::Delegator, &Place::Subscriber(n));
    }

    pub(super) fn run(&mut self, span: Span) {
        let until = self.world.now() + span;
        self.world.run_until(until);
    }

    fn reader(&self, n: u8) -> &Reader {
        match self.world.machine(&Place::Subscriber(n)) {
            Some(Party::Reader(reader)) => reader,
            _ => panic!("there is no subscriber {n}"),
        }
    }

    pub(super) fn changes(&self, n: u8) -> usize {
        self.reader(n).changes
    }

    /// The number of the list that a subscriber holds.
    pub(super) fn revision(&self, n: u8) -> Option<u64> {
        self.reader(n).machine.revision()
    }

    /// Whom a subscriber has to do with now.
    pub(super) fn in_force(&self, n: u8) -> BTreeSet<Fingerprint> {
        self.reader(n).machine.entries(self.now()).map(|entry| entry.peer).collect()
    }

    #[track_caller]
    pub(super) fn assert_everybody_has_his_list(&self) {
        for n in 0..SUBSCRIBERS {
            let list = self.policy.list_of(&who(n)).unwrap();
            let reader = self.reader(n);
            assert_eq!(reader.machine.list(), &list, "subscriber {n}: {:?}", reader.machine.stage());
            assert_eq!(self.in_force(n).len(), list.len(), "subscriber {n} has it in force");
        }
    }
}
