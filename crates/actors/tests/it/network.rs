//! Selections among the nodes of a DHT in virtual time, by the seats that real nodes have.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use kith_actors::hardened::{ActorList, Book, Message, Refusal, Terms, Ticket, VerifiedActorList, View};
use kith_actors::ktable::epoch_hash;
use kith_actors::seat::{self, MAX_TRIES, Seat, Talk, Trouble};
use kith_dht::node::{self, Node};
use kith_dht::{Config, Contact};
use kith_identity::membership::pledge::VerifiedEvidence;
use kith_identity::membership::{
    Block, Issuer, MemberLeaf, MemoryLedger, NodeId, REGION_MEMBERS, Request, Rolled, Terms as NetworkTerms,
    region_bits,
};
use kith_identity::{Fingerprint, Identity};
use kith_sansio::{Machine, Now, Rng, SeededRng, Span, Time, Timestamp};
use kith_vnet::{Act, Faults, Peers, World};

/// When every world begins.
const BEGINNING: Timestamp = Timestamp(1_767_225_600);
const QUOTA: u32 = 24;

/// What goes over the network.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Dht(Contact, Rc<kith_dht::Message>),
    /// Part of a talk; whether the sender has opened it; nothing: it ends.
    Talk(u64, bool, Option<Rc<Message>>),
}

/// What the test is told.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Joined,
    Selected(u64, Box<VerifiedActorList>, u32),
    NotSelected(u64, Trouble),
    Accused(Box<VerifiedEvidence>),
}

pub(crate) enum Input {
    Dht(node::Input),
    Select(u64, Terms),
    Came(NodeId, Packet),
}

impl From<(NodeId, Packet)> for Input {
    fn from((from, packet): (NodeId, Packet)) -> Input {
        Input::Came(from, packet)
    }
}

/// Changes what a member says to another, or swallows it.
pub(crate) type Manner = Rc<dyn Fn(&NodeId, &mut Message) -> bool>;

/// A node with its two machines, and how the one finds whom the other wants to talk with.
pub(crate) struct Member {
    id: NodeId,
    own: Contact,
    dht: Node,
    pub(crate) seat: Seat,
    manner: Manner,
    /// Talks that others have opened, and their numbers.
    incoming: BTreeMap<Talk, (NodeId, u64)>,
    opened: BTreeMap<u64, Talk>,
    /// What waits until it is known where somebody is.
    waiting: BTreeMap<NodeId, Vec<(Talk, Packet)>>,
    /// Whose place each search is for; of others the seat has asked.
    searches: BTreeMap<u64, NodeId>,
    known: BTreeMap<NodeId, Contact>,
    last: u64,
    outputs: VecDeque<Act<NodeId, Packet, Event>>,
}

impl Member {
    fn drain(&mut self, now: Now, rng: &mut dyn Rng) {
        loop {
            if let Some(output) = self.dht.poll_output() {
                self.of_dht(now, output, rng);
            } else if let Some(output) = self.seat.poll_output() {
                self.of_seat(now, output, rng);
            } else {
                return;
            }
        }
    }

    fn of_dht(&mut self, now: Now, output: node::Output, rng: &mut dyn Rng) {
        match output {
            node::Output::Send { to, message } => {
                self.outputs.push_back(Act::Send(to.id, Packet::Dht(self.own.clone(), Rc::new(message))));
            }
            node::Output::Joined => self.outputs.push_back(Act::Tell(Event::Joined)),
            node::Output::Found { op, nodes, .. } => match self.searches.remove(&op) {
                Some(wanted) => {
                    let found = nodes.into_iter().find(|contact| contact.id == wanted);
                    let waiting = self.waiting.remove(&wanted).unwrap_or_default();
                    match found {
                        Some(contact) => {
                            self.known.insert(wanted, contact);
                            let packets = waiting.into_iter();
                            packets.for_each(|(_, packet)| {
                                self.outputs.push_back(Act::Send(wanted, packet));
                            });
                        }
                        None => waiting.into_iter().for_each(|(talk, _)| {
                            self.seat.handle_input(now, seat::Input::Closed(talk), rng);
                        }),
                    }
                }
                None => {
                    let mut members: Vec<_> = nodes.iter().map(|contact| contact.id).collect();
                    for contact in nodes {
                        self.known.insert(contact.id, contact);
                    }
                    members.push(self.id);
                    self.seat.handle_input(now, seat::Input::Found { wish: op, members }, rng);
                }
            },
            _ => {}
        }
    }

    fn of_seat(&mut self, now: Now, output: seat::Output, rng: &mut dyn Rng) {
        match output {
            seat::Output::Keep(bytes) => {
                assert_eq!(Book::from_bytes(&bytes).unwrap().to_bytes(), bytes);
            }
            seat::Output::Say { talk, to, mut message } => {
                if (self.manner)(&to, &mut message) {
                    self.say(now, talk, to, Some(carried(&message)), rng);
                }
            }
            seat::Output::End(talk) => {
                if let Some((to, _)) = self.incoming.get(&talk).copied() {
                    self.say(now, talk, to, None, rng);
                    self.incoming.remove(&talk);
                }
                self.opened.remove(&talk.number());
            }
            seat::Output::Find { wish, place } => {
                self.dht.handle_input(now, node::Input::Find { op: wish, place, want: 8 }, rng);
            }
            seat::Output::Accuse(evidence) => {
                self.outputs.push_back(Act::Tell(Event::Accused(evidence)));
            }
            seat::Output::Selected { op, list, draws } => {
                self.outputs.push_back(Act::Tell(Event::Selected(op, list, draws)));
            }
            seat::Output::NotSelected { op, trouble, .. } => {
                self.outputs.push_back(Act::Tell(Event::NotSelected(op, trouble)));
            }
        }
    }

    fn say(&mut self, now: Now, talk: Talk, to: NodeId, message: Option<Message>, rng: &mut dyn Rng) {
        let message = message.map(Rc::new);
        if let Some((peer, number)) = self.incoming.get(&talk) {
            return self.outputs.push_back(Act::Send(*peer, Packet::Talk(*number, false, message)));
        }
        self.opened.insert(talk.number(), talk);
        let packet = Packet::Talk(talk.number(), true, message);
        let is_known = self.known.contains_key(&to) || self.dht.routes().find(&to).is_some();
        if is_known {
            return self.outputs.push_back(Act::Send(to, packet));
        }
        let waiting = self.waiting.entry(to).or_default();
        waiting.push((talk, packet));
        if waiting.len() == 1 {
            self.last += 1;
            // Above all numbers that a seat gives.
            let op = (1 << 40) + self.last;
            self.searches.insert(op, to);
            self.dht.handle_input(now, node::Input::Find { op, place: to, want: 1 }, rng);
        }
    }

    fn came(&mut self, now: Now, from: NodeId, packet: Packet, rng: &mut dyn Rng) {
        match packet {
            Packet::Dht(contact, message) => {
                let message = Rc::unwrap_or_clone(message);
                self.dht.handle_input(now, node::Input::Heard { from: contact, message }, rng);
            }
            Packet::Talk(number, is_opener, message) => {
                let talk =
                    if is_opener { Some(self.talk(from, number)) } else { self.opened.get(&number).copied() };
                let Some(talk) = talk else { return };
                let input = match message {
                    Some(message) => seat::Input::Heard { talk, from, message: Rc::unwrap_or_clone(message) },
                    None => seat::Input::Closed(talk),
                };
                self.seat.handle_input(now, input, rng);
            }
        }
    }

    fn talk(&mut self, from: NodeId, number: u64) -> Talk {
        let known =
            self.incoming.iter().find(|(_, theirs)| **theirs == (from, number)).map(|(talk, _)| *talk);
        known.unwrap_or_else(|| {
            self.last += 1;
            let talk = Talk::incoming(self.last);
            self.incoming.insert(talk, (from, number));
            talk
        })
    }
}

impl Machine for Member {
    type Input = Input;
    type Output = Act<NodeId, Packet, Event>;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match input {
            Input::Dht(input) => self.dht.handle_input(now, input, rng),
            Input::Select(op, terms) => {
                self.seat.handle_input(now, seat::Input::Select { op, terms }, rng);
            }
            Input::Came(from, packet) => self.came(now, from, packet, rng),
        }
        self.drain(now, rng);
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        self.dht.handle_timeout(now, rng);
        self.seat.handle_timeout(now, rng);
        self.drain(now, rng);
    }

    fn poll_output(&mut self) -> Option<Self::Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.dht.poll_timeout(), self.seat.poll_timeout()].into_iter().flatten().min()
    }
}

/// The message after it went over a wire.
fn carried(message: &Message) -> Message {
    let read = Message::from_bytes(&message.to_bytes()).unwrap();
    assert_eq!(read, *message);
    read
}

pub(crate) struct Net {
    pub(crate) issuer: Fingerprint,
    rolled: Rolled,
    pub(crate) world: World<Peers<Member>>,
    pub(crate) live: Vec<NodeId>,
    people: BTreeMap<NodeId, Arc<Identity>>,
    views: BTreeMap<NodeId, Arc<View>>,
    config: Config,
    manners: BTreeMap<NodeId, Manner>,
    /// Who has no book of the epoch.
    pub(crate) forgetful: Vec<NodeId>,
    last: u64,
}

impl Net {
    /// Members with certificates, none of whom has a node yet.
    pub(crate) fn new(count: usize, config: Config) -> Net {
        let mut rng = SeededRng::new(5);
        let terms = NetworkTerms::default();
        let mut issuer = Issuer::new(Identity::generate(&mut rng), terms, MemoryLedger::default());
        let network = issuer.network().id();
        let mut people = BTreeMap::new();
        for _ in 0..count {
            let identity = Identity::generate(&mut rng);
            let request = Request::sign(&identity, &network).verify(&network).unwrap();
            people.insert(issuer.admit(&request, BEGINNING).unwrap().id(), Arc::new(identity));
        }
        let rolled = issuer.roll(BEGINNING, |n, c, alpha| epoch_hash(n, c, alpha.alpha())).unwrap();
        let world = World::new(7, Faults::default(), Peers::default());
        let (live, views, manners) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let forgetful = Vec::new();
        Net { issuer: network, rolled, world, live, people, views, config, manners, forgetful, last: 0 }
    }

    /// From now on this member has other manners; before it was started.
    pub(crate) fn behaves(&mut self, id: NodeId, manner: Manner) {
        self.manners.insert(id, manner);
    }

    fn contact(&self, id: NodeId) -> Contact {
        let [.., a, b, c] = *id.as_bytes();
        Contact {
            id,
            fingerprint: self.people[&id].fingerprint(),
            address: SocketAddr::from((Ipv4Addr::new(10, a, b, c), 7117)),
            certificate: Vec::new().into(),
            not_after: Timestamp::MAX,
        }
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.people.keys().copied().collect()
    }

    fn view(&mut self, id: NodeId) -> Arc<View> {
        let bits = region_bits(self.people.len() as u64, REGION_MEMBERS);
        let block = Block::around(&id, bits);
        let rolled = &self.rolled;
        let make = || {
            let range = rolled.members.range(&block).unwrap();
            Arc::new(View::new(rolled.epoch.clone(), range).unwrap())
        };
        Arc::clone(self.views.entry(block.first()).or_insert_with(make))
    }

    fn start(&mut self, id: NodeId) {
        let through = (!self.live.is_empty()).then(|| {
            let at = self.world.chance().below(self.live.len() as u64) as usize;
            self.contact(self.live[at])
        });
        let (own, view) = (self.contact(id), self.view(id));
        let book = if self.forgetful.contains(&id) {
            Book::closed(&self.rolled.epoch)
        } else {
            Book::new(&self.rolled.epoch, QUOTA)
        };
        let honest: Manner = Rc::new(|_, _| true);
        let member = Member {
            id,
            dht: Node::new(own.clone(), self.config.clone(), self.people.len() as u64),
            own,
            seat: Seat::new(id, Arc::clone(&self.people[&id]), view, book),
            manner: self.manners.get(&id).cloned().unwrap_or(honest),
            incoming: BTreeMap::new(),
            opened: BTreeMap::new(),
            waiting: BTreeMap::new(),
            searches: BTreeMap::new(),
            known: BTreeMap::new(),
            last: 0,
            outputs: VecDeque::new(),
        };
        self.world.start(&id, member);
        self.world.input(&id, Input::Dht(node::Input::Join(through.into_iter().collect())));
        self.live.push(id);
    }

    /// Everybody joins, in waves that double the network.
    pub(crate) fn settle(&mut self) {
        let mut waiting = self.ids();
        for place in (1..waiting.len()).rev() {
            let other = self.world.chance().below(place as u64 + 1) as usize;
            waiting.swap(place, other);
        }
        while !waiting.is_empty() {
            let wave = waiting.split_off(waiting.len() - waiting.len().min(self.live.len().max(1)));
            wave.into_iter().for_each(|id| self.start(id));
            self.world.run_until(self.world.now() + Span::secs(60));
        }
        let joined = self.world.events().iter().filter(|(.., event)| matches!(event, Event::Joined)).count();
        assert_eq!(joined, self.people.len(), "everybody joins");
    }

    /// So many of a hundred die at once, but not those who are spared.
    pub(crate) fn kill(&mut self, percent: usize, spared: &[NodeId]) {
        for _ in 0..self.live.len() * percent / 100 {
            let dead = loop {
                let at = self.world.chance().below(self.live.len() as u64) as usize;
                if !spared.contains(&self.live[at]) {
                    break self.live.swap_remove(at);
                }
            };
            self.world.crash(&dead);
        }
    }

    pub(crate) fn terms(&self, actors: u16) -> Terms {
        let expires = BEGINNING.plus_secs(self.world.now().0 / 1_000_000 + 1_800);
        Terms { manifest: [5; 32], actors, role: 0, expires }
    }

    /// Has a member draw actors; the outcome, and how long it took.
    pub(crate) fn select(&mut self, at: NodeId, actors: u16) -> (Event, Span) {
        self.last += 1;
        let (op, terms, begin) = (self.last, self.terms(actors), self.world.now());
        self.world.input(&at, Input::Select(op, terms));
        let is_it = move |event: &Event| match event {
            Event::Selected(of, ..) | Event::NotSelected(of, _) => *of == op,
            _ => false,
        };
        self.world
            .run_until_true(Span::secs(1_500), |world| world.events().iter().any(|(.., event)| is_it(event)));
        let (_, _, outcome) =
            self.world.events().iter().find(|(.., event)| is_it(event)).expect("every wish has an outcome");
        (outcome.clone(), self.world.now() - begin)
    }

    pub(crate) fn leaf(&self, id: &NodeId) -> MemberLeaf {
        let range = self.rolled.members.range(&Block::around(id, 255)).unwrap();
        *self.rolled.epoch.block(&range).unwrap().first().unwrap()
    }
}

/// Buckets and regions so small that it is no full mesh.
pub(crate) fn small() -> Config {
    Config { bucket: 8, region: 32, ..Config::default() }
}

/// The list as a file; it holds, and no byte of it can be another.
pub(crate) fn assert_holds(list: &VerifiedActorList, issuer: &Fingerprint, actors: usize) {
    let bytes = list.as_list().to_bytes();
    let read = |bytes: &[u8]| ActorList::from_bytes(bytes).and_then(|list| list.verify(issuer));
    assert_eq!(read(&bytes).unwrap().actors().len(), actors);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(read(&changed).is_err(), "byte {at} of {}", bytes.len());
    }
}

#[test]
fn a_thousand_nodes_that_lost_a_third_select_eight_actors_and_the_list_holds() {
    let mut net = Net::new(1_000, small());
    net.settle();
    net.kill(33, &[]);
    net.world.run_until(net.world.now() + Span::secs(300));
    let trigger = net.live[0];
    let (outcome, took) = net.select(trigger, 8);
    let Event::Selected(_, list, draws) = outcome else { panic!("{outcome:?}") };
    println!("{draws} draws, {:.1} s", took.0 as f64 / 1e6);
    assert!(list.actors().iter().all(|actor| net.live.contains(&actor.id)), "nobody who is dead");
    assert_holds(&list, &net.issuer, 8);
}

/// Everybody but the trigger does something wrong as a builder or setter, one manner for each third of the others.
fn bad_manners(which: u8) -> Manner {
    Rc::new(move |_, message| match (which, message) {
        // Stalls.
        (0, Message::Report(_) | Message::Signed { .. } | Message::Selected(_)) => false,
        // Lies.
        (1, Message::Signed { signature, .. }) => {
            signature[3] ^= 1;
            true
        }
        (1, Message::Selected(list)) => {
            list.actors.swap(0, 1);
            true
        }
        // Says that somebody does not answer who is nobody.
        (2, Message::Report(failed)) => {
            failed.push(NodeId::from_bytes([1; 32]));
            true
        }
        _ => true,
    })
}

/// The witnesses of a member's draw, nearest first.
fn witnesses(net: &mut Net, trigger: NodeId, sequence: u32) -> Vec<NodeId> {
    let view = net.view(trigger);
    let ticket = Ticket {
        network: net.issuer,
        epoch: view.epoch().facts().epoch,
        trigger,
        sequence,
        terms: net.terms(1),
    };
    view.witnesses(&ticket, &[]).unwrap().members.iter().map(|witness| witness.id).collect()
}

#[test]
fn builders_and_setters_that_stall_or_lie_burn_a_draw_and_no_more() {
    let mut net = Net::new(120, Config::default());
    let trigger = net.ids()[60];
    let others: Vec<_> = net.ids().into_iter().filter(|id| *id != trigger).collect();
    for (at, id) in others.into_iter().enumerate().filter(|(at, _)| at % 40 < 3) {
        net.behaves(id, bad_manners((at % 40) as u8));
    }
    net.settle();
    net.kill(20, &[trigger]);
    let (mut most, mut all) = (0, 0);
    for _ in 0..3 {
        let (outcome, took) = net.select(trigger, 4);
        let Event::Selected(_, list, draws) = outcome else { panic!("{outcome:?}") };
        assert_eq!(list.actors().len(), 4);
        (most, all) = (most.max(draws), all + draws);
        println!("{draws} draws, {:.1} s", took.0 as f64 / 1e6);
    }
    assert!(most > 1 && all < 24, "{most} draws at most");
    assert!(!net.world.events().iter().any(|(.., event)| matches!(event, Event::Accused(_))));
}

/// A witness of whom the trigger hears no reveals, nor anybody else but who is among `told`.
fn reveals_to(told: fn(trigger: &NodeId, to: &NodeId) -> bool, trigger: NodeId) -> Manner {
    Rc::new(move |to, message| !matches!(message, Message::Reveal(_)) || told(&trigger, to))
}

#[test]
fn a_witness_that_accepts_and_reveals_to_nobody_is_left_out_for_the_rest_of_the_epoch() {
    let mut net = Net::new(FEWEST, Config::default());
    let trigger = net.ids()[5];
    let near = witnesses(&mut net, trigger, 1);
    for witness in [near[1], near[2]] {
        net.behaves(witness, reveals_to(|_, _| false, trigger));
    }
    net.settle();
    let mut all = Vec::new();
    for _ in 0..3 {
        let (outcome, took) = net.select(trigger, 4);
        let Event::Selected(_, list, draws) = outcome else { panic!("{outcome:?}") };
        println!("{draws} draws, {:.1} s", took.0 as f64 / 1e6);
        assert_holds(&list, &net.issuer, 4);
        all.push(draws);
    }
    assert_eq!(all, [2, 1, 1], "the first draw stalls, and no other");
    assert!(!net.world.events().iter().any(|(.., event)| matches!(event, Event::Accused(_))));
}

#[test]
fn a_witness_that_reveals_only_when_others_remind_it_costs_a_ticket_and_no_selection() {
    let mut net = Net::new(FEWEST, Config::default());
    let trigger = net.ids()[5];
    let [first, second] = [1, 2].map(|sequence| witnesses(&mut net, trigger, sequence));
    let witness = *first.iter().find(|id| second.contains(id)).unwrap();
    net.behaves(witness, reveals_to(|trigger, to| to != trigger, trigger));
    net.settle();
    let (outcome, _) = net.select(trigger, 4);
    let Event::Selected(_, list, draws) = outcome else { panic!("{outcome:?}") };
    assert_holds(&list, &net.issuer, 4);
    assert_eq!((draws, list.ticket().sequence), (2, 1), "the draw that had stalled is gone on with");
}

#[test]
fn a_member_that_never_accepts_burns_the_draws_that_it_is_a_witness_of_and_no_other() {
    let mut net = Net::new(60, Config::default());
    let trigger = net.ids()[30];
    let witness = witnesses(&mut net, trigger, 1)[0];
    net.behaves(witness, Rc::new(|_, message| !matches!(message, Message::Accept(_))));
    net.settle();
    let burnt = (1..).take_while(|sequence| witnesses(&mut net, trigger, *sequence).contains(&witness));
    let burnt = burnt.count() as u32;
    let (outcome, took) = net.select(trigger, 4);
    let Event::Selected(_, list, draws) = outcome else { panic!("{outcome:?}") };
    println!("{draws} draws, {:.1} s", took.0 as f64 / 1e6);
    assert_holds(&list, &net.issuer, 4);
    assert_eq!((burnt > 0, draws), (true, burnt + 1));
}

/// A trigger, four actors and so many witnesses that five cannot be left out.
const FEWEST: usize = 16;

#[test]
fn where_nobody_can_be_left_out_a_witness_that_fell_silent_is_asked_again() {
    let mut net = Net::new(FEWEST, Config::default());
    let trigger = net.ids()[5];
    let silent = witnesses(&mut net, trigger, 1)[1..6].to_vec();
    let stalls = Rc::new(Cell::new(silent.len() as u32));
    for witness in &silent {
        let left = Rc::clone(&stalls);
        let manner = move |_: &NodeId, message: &mut Message| {
            let does_stall = matches!(message, Message::Reveal(_)) && left.get() > 0;
            left.set(left.get() - u32::from(does_stall));
            !does_stall
        };
        net.behaves(*witness, Rc::new(manner));
    }
    net.settle();
    let (outcome, _) = net.select(trigger, 4);
    let Event::Selected(_, list, draws) = outcome else { panic!("{outcome:?}") };
    assert_holds(&list, &net.issuer, 4);
    assert_eq!(draws, 2);
    stalls.set(u32::MAX);
    let (outcome, _) = net.select(trigger, 4);
    let Event::NotSelected(_, trouble) = outcome else { panic!("{outcome:?}") };
    assert!(
        matches!(&trouble, Trouble::Silent(who) if who.iter().all(|one| silent.contains(one))),
        "{trouble:?}"
    );
    let book = net.world.machine(&trigger).unwrap().seat.book();
    assert_eq!(book.left(&trigger), QUOTA - 2 - MAX_TRIES, "it ends");
}

#[test]
fn where_too_few_are_there_no_draw_follows_the_last_try() {
    let mut net = Net::new(FEWEST, Config::default());
    let trigger = net.ids()[5];
    let absent = witnesses(&mut net, trigger, 1)[1..6].to_vec();
    net.settle();
    let (outcome, _) = net.select(trigger, 5);
    let Event::NotSelected(_, trouble) = outcome else { panic!("{outcome:?}") };
    assert_eq!(trouble, Trouble::Here(Refusal::Actors { most: 4 }));
    absent.iter().for_each(|witness| drop(net.world.crash(witness)));
    let left = |net: &Net| net.world.machine(&trigger).unwrap().seat.book().left(&trigger);
    assert_eq!(left(&net), QUOTA, "it costs no draw");
    let (outcome, _) = net.select(trigger, 4);
    assert!(matches!(outcome, Event::NotSelected(_, Trouble::Here(Refusal::Sparse))), "{outcome:?}");
    assert_eq!(left(&net), QUOTA - MAX_TRIES);
}

#[test]
fn nothing_is_drawn_any_more_for_who_does_not_wait_or_once_the_epoch_has_ended() {
    let mut net = Net::new(60, Config::default());
    let id = net.ids()[30];
    let view = net.view(id);
    let book = Book::new(view.epoch(), QUOTA);
    let mut seat = Seat::new(id, Arc::clone(&net.people[&id]), Arc::clone(&view), book.clone());
    let (mut rng, mut now) = (SeededRng::new(1), Now { time: Time(0), utc: BEGINNING });
    let [first, other] = [1, 2].map(|op| seat::Input::Select { op, terms: net.terms(4) });
    seat.handle_input(now, first, &mut rng);
    seat.handle_input(now, seat::Input::Forget { op: 1 }, &mut rng);
    let mut asked = 0;
    // Nobody answers, again and again, and the draw ends.
    while let Some(due) = seat.poll_timeout() {
        now.time = due;
        seat.handle_timeout(now, &mut rng);
        asked += 1;
    }
    let mut outcomes = Vec::new();
    let mut drain = |seat: &mut Seat| {
        while let Some(output) = seat.poll_output() {
            if let seat::Output::NotSelected { op, draws, trouble } = output {
                outcomes.push((op, draws, trouble));
            }
        }
    };
    drain(&mut seat);
    assert!(asked > 0);
    assert_eq!(seat.book().left(&id), QUOTA - 1);
    seat.handle_input(now, other, &mut rng);
    seat.handle_input(now, seat::Input::Epoch(view, Box::new(book)), &mut rng);
    drain(&mut seat);
    assert_eq!(outcomes, [(2, 1, Trouble::Turned)]);
    assert_eq!((seat.poll_timeout(), seat.book().left(&id)), (None, QUOTA));
}

#[test]
fn a_witness_without_the_book_of_the_epoch_stops_no_selection() {
    let mut net = Net::new(60, Config::default());
    let trigger = net.ids()[30];
    let near = witnesses(&mut net, trigger, 1);
    net.forgetful.extend([near[1], near[2]]);
    net.settle();
    let (outcome, _) = net.select(trigger, 4);
    let Event::Selected(_, list, draws) = outcome else { panic!("{outcome:?}") };
    assert_holds(&list, &net.issuer, 4);
    assert_eq!(draws, 1);
    assert!(list.actors().iter().all(|actor| !net.forgetful.contains(&actor.id)));
}

#[test]
fn a_trigger_that_shows_two_tickets_of_one_number_is_accused_and_no_more_served_by_who_saw_them() {
    let mut net = Net::new(40, Config::default());
    let trigger = net.ids()[20];
    // One draw goes to every witness in two forms, as if the trigger had two books.
    net.settle();
    let witness = witnesses(&mut net, trigger, 1)[1];
    let identity = Arc::clone(&net.people[&trigger]);
    let view = net.view(trigger);
    let ticket = |manifest, net: &Net| Ticket {
        network: net.issuer,
        epoch: view.epoch().facts().epoch,
        trigger,
        sequence: 1,
        terms: Terms { manifest, ..net.terms(2) },
    };
    let mut proposals = Vec::new();
    for manifest in [[1; 32], [2; 32]] {
        let mut book = Book::new(view.epoch(), 8);
        let drawing =
            kith_actors::hardened::Trigger::new(&*view, &*identity, ticket(manifest, &net), &mut book);
        let mut drawing = drawing.unwrap();
        let (mut rng, now) = (SeededRng::new(1), Now { time: Time(0), utc: BEGINNING });
        while let Some(output) = drawing.poll_output() {
            match output {
                kith_actors::hardened::Output::Probe(ids) => {
                    drawing.handle_input(now, kith_actors::hardened::Input::Alive(ids), &mut rng);
                }
                kith_actors::hardened::Output::Send { to, message } if to == witness => {
                    proposals.push(message);
                }
                _ => {}
            }
        }
    }
    for (number, message) in proposals.into_iter().enumerate() {
        let packet = Packet::Talk(1_000_000 + 2 * number as u64, true, Some(Rc::new(message)));
        net.world.input(&witness, Input::Came(trigger, packet));
    }
    let accused = net.world.events().iter().find_map(|(_, at, event)| match event {
        Event::Accused(evidence) if *at == witness => Some(evidence.clone()),
        _ => None,
    });
    assert_eq!(*accused.expect("evidence").signer(), identity.public());
    assert!(net.world.machine(&witness).unwrap().seat.book().is_barred(&net.leaf(&trigger)));
    let (outcome, _) = net.select(trigger, 2);
    let Event::Selected(_, list, draws) = outcome else { panic!("{outcome:?}") };
    let number = list.ticket().sequence;
    assert!(draws > 1 && number == draws && !witnesses(&mut net, trigger, number).contains(&witness));
}
