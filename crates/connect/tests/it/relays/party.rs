//! The nodes: a machine each, and a model of the shell around it.

mod streams;

use std::collections::{HashMap, VecDeque};

use kith_connect::relay::exposure::{self, Exposure};
use kith_connect::relay::knocking::{self, Knocking, Outcome};
use kith_connect::relay::message::Message as Said;
use kith_connect::relay::message::Pass;
use kith_connect::relay::serving::{self, Client, Regard, Relay, Settings, Side};
use kith_connect::relay::{Carriage, Quota, Request, Token};
use kith_identity::{Address, Fingerprint, Identity, Ni};
use kith_sansio::{Machine, Now, Rng, SeededRng, Span, Time};

use streams::{Packet, Streams};

/// How long a stream may take to be opened.
const OPENING: Span = Span::secs(4);
/// When what was not answered is said again, as TCP does.
const AGAIN: Span = Span::millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    Relay(u8),
    Target(u8),
    Initiator(u8),
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Open(u64),
    Opened(u64),
    Closed(u64),
    Packet(u64, Packet),
    /// A token, on a connection of its own.
    Show(u64, Token),
    Joined(u64),
    Rejected(u64),
    Bytes(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// A relay has put these together.
    Joined(Vec<(Node, u64)>),
    /// A target goes to meet somebody.
    Met(Fingerprint),
    /// An initiator's knock has ended.
    Ended(Outcome),
    /// What an initiator sent over a session came back.
    Carried,
}

pub(crate) type Out = kith_vnet::Act<Node, Message, Told>;

pub(crate) enum Input {
    From(Node, Message),
    /// Use that many relays.
    Use(u8),
    Knock {
        relay: u8,
        target: Fingerprint,
    },
}

impl From<(Node, Message)> for Input {
    fn from((from, message): (Node, Message)) -> Input {
        Input::From(from, message)
    }
}

/// How a relay misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    Floods,
    Replays,
    Stalls,
    Invents,
    Admits,
}

fn identity(node: Node) -> Identity {
    let seed = match node {
        Node::Relay(number) => 100 + u64::from(number),
        Node::Target(number) => 200 + u64::from(number),
        Node::Initiator(number) => 1_000 + u64::from(number),
    };
    Identity::generate(&mut SeededRng::new(seed))
}

pub(crate) fn name(node: Node) -> Fingerprint {
    identity(node).fingerprint()
}

pub(crate) fn relay_name(number: u8) -> Fingerprint {
    name(Node::Relay(number))
}

fn relay_at(ni: &Ni) -> Node {
    (0..9).map(Node::Relay).find(|node| name(*node) == ni.fingerprint).expect("a relay")
}

pub(crate) enum Party {
    Relay(Box<RelayParty>),
    Target(Box<TargetParty>),
    Initiator(Box<InitiatorParty>),
}

pub(crate) struct RelayParty {
    relay: Relay,
    lie: Option<Lie>,
    streams: Streams,
    clients: Vec<(Node, u64)>,
    sides: Vec<(Node, u64)>,
    joined: HashMap<(Node, u64), (Node, u64)>,
    outputs: VecDeque<Out>,
}

pub(crate) struct TargetParty {
    pub(crate) exposure: Exposure,
    streams: Streams,
    opening: Vec<(exposure::Link, Time)>,
    shows: Shows,
    outputs: VecDeque<Out>,
}

pub(crate) struct InitiatorParty {
    identity: Identity,
    streams: Streams,
    stream: u64,
    wish: Option<(Node, Fingerprint, Time)>,
    knocking: Option<Knocking>,
    shows: Shows,
    outputs: VecDeque<Out>,
}

/// Tokens that are being shown, until they are answered.
#[derive(Default)]
struct Shows {
    next: u64,
    waiting: Vec<(Node, u64, Token, Time)>,
}

impl Shows {
    fn begin(&mut self, now: Now, at: Node, pass: Pass, salt: u64, outputs: &mut VecDeque<Out>) {
        self.next += 1;
        let side = salt << 32 | self.next;
        self.waiting.push((at, side, pass.token, now.time + AGAIN));
        outputs.push_back(Out::Send(at, Message::Show(side, pass.token)));
    }

    fn end(&mut self, side: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|one| one.1 != side);
        before > self.waiting.len()
    }

    fn due(&self) -> Option<Time> {
        self.waiting.iter().map(|one| one.3).min()
    }

    fn timeout(&mut self, now: Now, outputs: &mut VecDeque<Out>) {
        for (at, side, token, again) in &mut self.waiting {
            if *again <= now.time {
                *again = now.time + AGAIN;
                outputs.push_back(Out::Send(*at, Message::Show(*side, *token)));
            }
        }
    }
}

impl Party {
    pub(crate) fn relay(number: u8, lie: Option<Lie>) -> Party {
        let settings = Settings { quota: Quota::default(), stream_port: Some(1), datagram_port: Some(2) };
        Party::Relay(Box::new(RelayParty {
            relay: Relay::new(relay_name(number), settings),
            lie,
            streams: Streams::default(),
            clients: Vec::new(),
            sides: Vec::new(),
            joined: HashMap::new(),
            outputs: VecDeque::new(),
        }))
    }

    pub(crate) fn target(number: u8) -> Party {
        Party::Target(Box::new(TargetParty {
            exposure: Exposure::new(name(Node::Target(number))),
            streams: Streams::default(),
            opening: Vec::new(),
            shows: Shows::default(),
            outputs: VecDeque::new(),
        }))
    }

    pub(crate) fn initiator(number: u8) -> Party {
        Party::Initiator(Box::new(InitiatorParty {
            identity: identity(Node::Initiator(number)),
            streams: Streams::default(),
            stream: 0,
            wish: None,
            knocking: None,
            shows: Shows::default(),
            outputs: VecDeque::new(),
        }))
    }
}

impl RelayParty {
    fn from(&mut self, now: Now, node: Node, message: Message, rng: &mut dyn Rng) {
        match message {
            Message::Open(stream) => {
                self.outputs.push_back(Out::Send(node, Message::Opened(stream)));
                if self.clients.contains(&(node, stream)) {
                    return;
                }
                self.clients.push((node, stream));
                let client = Client(self.clients.len() as u64 - 1);
                let from: Address = match node {
                    Node::Relay(number) | Node::Target(number) => format!("tcp://192.0.2.{number}:7"),
                    Node::Initiator(number) => format!("tcp://198.51.100.{number}:7"),
                }
                .parse()
                .unwrap();
                let is_known = matches!(node, Node::Target(_));
                let regard = if is_known { Regard::Known } else { Regard::Stranger };
                let arrived = serving::Input::Arrived { client, peer: name(node), from, regard };
                self.relay.handle_input(now, arrived, rng);
            }
            Message::Packet(stream, packet) => {
                let Some(client) = self.client(node, stream) else { return };
                for said in self.streams.receive(node, stream, packet) {
                    let heard = match (self.lie, said) {
                        (Some(Lie::Admits), Said::Decline(id)) => Said::Admit(id),
                        (_, said) => said,
                    };
                    self.relay.handle_input(now, serving::Input::Message(client, heard), rng);
                }
            }
            Message::Closed(stream) => {
                if let Some(client) = self.client(node, stream) {
                    self.relay.handle_input(now, serving::Input::Left(client), rng);
                }
            }
            Message::Show(side, token) => self.shown(now, (node, side), token, rng),
            Message::Bytes(side) => {
                if let Some((to, other)) = self.joined.get(&(node, side)) {
                    self.outputs.push_back(Out::Send(*to, Message::Bytes(*other)));
                }
            }
            Message::Opened(_) | Message::Joined(_) | Message::Rejected(_) => {}
        }
        self.drain();
    }

    fn shown(&mut self, now: Now, side: (Node, u64), token: Token, rng: &mut dyn Rng) {
        if self.sides.contains(&side) {
            // The same connection, once more: what was said to it may have been lost.
            if self.joined.contains_key(&side) {
                self.outputs.push_back(Out::Send(side.0, Message::Joined(side.1)));
            }
            return;
        }
        self.sides.push(side);
        let number = Side::Stream(self.sides.len() as u64 - 1);
        self.relay.handle_input(now, serving::Input::Presented(token, number), rng);
    }

    fn client(&self, node: Node, stream: u64) -> Option<Client> {
        let at = self.clients.iter().position(|one| *one == (node, stream))?;
        Some(Client(at as u64))
    }

    fn side(&self, side: Side) -> (Node, u64) {
        match side {
            Side::Stream(number) => self.sides[number as usize],
            Side::Datagrams(at) => panic!("there are no datagrams here: {at}"),
        }
    }

    /// What is really said, by a relay that does not say what it should.
    fn lies(&self, said: Said) -> Vec<Said> {
        let invented = Pass { token: Token::from_bytes([6; 16]), port: 6 };
        match (self.lie, said) {
            (Some(Lie::Floods), Said::Exposed) => {
                [Said::Exposed].into_iter().chain((0..6_000).map(Said::Pong)).collect()
            }
            (Some(Lie::Replays), Said::Knock(id, request)) => {
                [0, 1_000, 2_000].map(|more| Said::Knock(id + more, request.clone())).to_vec()
            }
            (Some(Lie::Replays), Said::Meet(id, pass)) => {
                [0, 0, 1_000].map(|more| Said::Meet(id + more, pass)).to_vec()
            }
            (Some(Lie::Stalls), Said::Knock(..) | Said::Refused) => vec![],
            (Some(Lie::Invents), Said::Exposed) => vec![Said::Exposed, Said::Meet(7, invented)],
            (Some(Lie::Invents), Said::Knock(id, request)) => {
                vec![
                    Said::Knock(id, Box::new(Request { signature: [1; 64], ..*request })),
                    Said::Meet(id, invented),
                ]
            }
            (Some(Lie::Invents), Said::Refused) => vec![Said::Ack(invented)],
            (_, said) => vec![said],
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.relay.poll_output() {
            match output {
                serving::Output::Send(client, said) => {
                    let (node, stream) = self.clients[client.0 as usize];
                    for said in self.lies(said) {
                        let packet = self.streams.send(node, stream, &said);
                        self.outputs.push_back(Out::Send(node, Message::Packet(stream, packet)));
                    }
                }
                serving::Output::Close(client) => {
                    let (node, stream) = self.clients[client.0 as usize];
                    if self.lie != Some(Lie::Stalls) {
                        let packet = self.streams.close(node, stream);
                        self.outputs.push_back(Out::Send(node, Message::Packet(stream, packet)));
                    }
                }
                serving::Output::Wait(_) => {}
                serving::Output::Reject(side) => {
                    let (node, side) = self.side(side);
                    self.outputs.push_back(Out::Send(node, Message::Rejected(side)));
                }
                serving::Output::Join(joined) => {
                    let [one, two] = joined.sides.map(|side| self.side(side));
                    self.joined.extend([(one, two), (two, one)]);
                    for (node, side) in [one, two] {
                        self.outputs.push_back(Out::Send(node, Message::Joined(side)));
                    }
                    self.outputs.push_back(Out::Tell(Told::Joined(vec![one, two])));
                }
                serving::Output::Again(_) | serving::Output::End(_) => panic!("not here"),
            }
        }
    }
}

impl TargetParty {
    fn from(&mut self, now: Now, node: Node, message: Message, rng: &mut dyn Rng) {
        match message {
            Message::Opened(stream) => {
                let link = exposure::Link(stream);
                let before = self.opening.len();
                self.opening.retain(|one| one.0 != link);
                if self.opening.len() < before {
                    self.give(now, exposure::Input::Connected(link), rng);
                }
            }
            Message::Packet(stream, packet) => {
                let link = exposure::Link(stream);
                let is_end = packet.is_end();
                for said in self.streams.receive(node, stream, packet) {
                    self.give(now, exposure::Input::Message(link, said), rng);
                }
                if is_end {
                    self.give(now, exposure::Input::Lost(link), rng);
                }
            }
            Message::Joined(side) | Message::Rejected(side) => drop(self.shows.end(side)),
            Message::Bytes(side) => {
                self.shows.end(side);
                self.outputs.push_back(Out::Send(node, Message::Bytes(side)));
            }
            _ => {}
        }
    }

    fn give(&mut self, now: Now, input: exposure::Input, rng: &mut dyn Rng) {
        self.exposure.handle_input(now, input, rng);
        self.drain(now, rng);
    }

    fn drain(&mut self, now: Now, rng: &mut dyn Rng) {
        while let Some(output) = self.exposure.poll_output() {
            match output {
                exposure::Output::Connect(link, ni) => {
                    self.opening.push((link, now.time + OPENING));
                    let at = relay_at(&ni);
                    self.streams.place(link.0, at);
                    self.outputs.push_back(Out::Send(at, Message::Open(link.0)));
                }
                exposure::Output::Close(link) => {
                    self.opening.retain(|one| one.0 != link);
                    let at = self.streams.at(link.0);
                    self.outputs.push_back(Out::Send(at, Message::Closed(link.0)));
                }
                exposure::Output::Send(link, said) => {
                    let at = self.streams.at(link.0);
                    let packet = self.streams.send(at, link.0, &said);
                    self.outputs.push_back(Out::Send(at, Message::Packet(link.0, packet)));
                }
                exposure::Output::Judge { link, id, initiator, .. } => {
                    let may_come = initiator != name(Node::Initiator(super::INITIATORS - 1));
                    self.exposure.handle_input(now, exposure::Input::Judged(link, id, may_come), rng);
                }
                exposure::Output::Meet(meeting) => {
                    self.outputs.push_back(Out::Tell(Told::Met(meeting.initiator)));
                    let at = self.streams.at(meeting.link.0);
                    self.shows.begin(now, at, meeting.pass, now.time.0, &mut self.outputs);
                }
                exposure::Output::Observed(..) | exposure::Output::Named(_) => {}
            }
        }
    }

    fn timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        let late: Vec<_> = self.opening.iter().filter(|one| one.1 <= now.time).map(|one| one.0).collect();
        for link in late {
            self.opening.retain(|one| one.0 != link);
            self.give(now, exposure::Input::Lost(link), rng);
        }
        self.shows.timeout(now, &mut self.outputs);
        self.exposure.handle_timeout(now, rng);
        self.drain(now, rng);
    }

    fn due(&self) -> Option<Time> {
        let opening = self.opening.iter().map(|one| one.1).min();
        [opening, self.shows.due(), self.exposure.poll_timeout()].into_iter().flatten().min()
    }
}

impl InitiatorParty {
    fn begin(&mut self, now: Now, relay: u8, target: Fingerprint) {
        self.stream += 1;
        let at = Node::Relay(relay);
        self.wish = Some((at, target, now.time + OPENING));
        self.knocking = None;
        self.streams.place(self.stream, at);
        self.outputs.push_back(Out::Send(at, Message::Open(self.stream)));
    }

    fn from(&mut self, now: Now, node: Node, message: Message, rng: &mut dyn Rng) {
        match message {
            Message::Opened(stream) if stream == self.stream => {
                let Some((at, target, _)) = self.wish.take() else { return };
                let Node::Relay(number) = at else { return };
                let carriage = (Carriage::Stream, vec![]);
                let request =
                    Request::sign(&self.identity, relay_name(number), target, carriage, now.utc, rng);
                self.knocking = Some(Knocking::new(now, request));
                self.drain(now, at);
            }
            Message::Packet(stream, packet) if stream == self.stream => {
                let is_end = packet.is_end();
                for said in self.streams.receive(node, stream, packet) {
                    self.tell(now, node, knocking::Input::Message(said), rng);
                }
                if is_end {
                    self.tell(now, node, knocking::Input::Lost, rng);
                }
            }
            Message::Joined(side) if self.shows.end(side) => {
                self.outputs.push_back(Out::Send(node, Message::Bytes(side)));
            }
            Message::Rejected(side) => drop(self.shows.end(side)),
            Message::Bytes(_) => self.outputs.push_back(Out::Tell(Told::Carried)),
            _ => {}
        }
    }

    fn tell(&mut self, now: Now, node: Node, input: knocking::Input, rng: &mut dyn Rng) {
        if let Some(knocking) = &mut self.knocking {
            knocking.handle_input(now, input, rng);
            self.drain(now, node);
        }
    }

    fn drain(&mut self, now: Now, at: Node) {
        while let Some(output) = self.knocking.as_mut().and_then(Machine::poll_output) {
            match output {
                knocking::Output::Send(said) => {
                    let packet = self.streams.send(at, self.stream, &said);
                    self.outputs.push_back(Out::Send(at, Message::Packet(self.stream, packet)));
                }
                knocking::Output::Observed(_) => {}
                knocking::Output::Done(outcome) => {
                    self.outputs.push_back(Out::Send(at, Message::Closed(self.stream)));
                    self.outputs.push_back(Out::Tell(Told::Ended(outcome)));
                    if let Outcome::Admitted(pass) = outcome {
                        self.shows.begin(now, at, pass, now.time.0, &mut self.outputs);
                    }
                    self.knocking = None;
                }
            }
        }
    }

    fn timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        if self.wish.is_some_and(|(.., until)| until <= now.time) {
            self.wish = None;
            self.outputs.push_back(Out::Tell(Told::Ended(Outcome::Silent)));
        }
        self.shows.timeout(now, &mut self.outputs);
        if let Some(knocking) = &mut self.knocking {
            knocking.handle_timeout(now, rng);
            let at = self.streams.at(self.stream);
            self.drain(now, at);
        }
    }

    fn due(&self) -> Option<Time> {
        let knocking = self.knocking.as_ref().and_then(Machine::poll_timeout);
        [self.wish.map(|wish| wish.2), self.shows.due(), knocking].into_iter().flatten().min()
    }
}

impl Machine for Party {
    type Input = Input;
    type Output = Out;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match (self, input) {
            (Party::Relay(party), Input::From(node, message)) => party.from(now, node, message, rng),
            (Party::Target(party), Input::From(node, message)) => party.from(now, node, message, rng),
            (Party::Initiator(party), Input::From(node, message)) => party.from(now, node, message, rng),
            (Party::Target(party), Input::Use(relays)) => {
                let relay = |number| kith_identity::Relay {
                    preference: number,
                    ni: Ni::new(relay_name(number as u8), None),
                };
                let relays = (0..relays.into()).map(relay).collect();
                party.give(now, exposure::Input::Use(relays), rng);
            }
            (Party::Initiator(party), Input::Knock { relay, target }) => party.begin(now, relay, target),
            _ => panic!("an input for another kind of node"),
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        match self {
            Party::Relay(party) => {
                party.relay.handle_timeout(now, rng);
                party.drain();
            }
            Party::Target(party) => party.timeout(now, rng),
            Party::Initiator(party) => party.timeout(now, rng),
        }
    }

    fn poll_output(&mut self) -> Option<Out> {
        match self {
            Party::Relay(party) => party.outputs.pop_front(),
            Party::Target(party) => party.outputs.pop_front(),
            Party::Initiator(party) => party.outputs.pop_front(),
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self {
            Party::Relay(party) => party.relay.poll_timeout(),
            Party::Target(party) => party.due(),
            Party::Initiator(party) => party.due(),
        }
    }
}
