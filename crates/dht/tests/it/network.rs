//! Whole networks of nodes in virtual time.

mod joining;
mod values;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::rc::Rc;

use kith_dht::node::{Input, Output};
use kith_dht::{Body, Config, Contact, Message, Node, Value};
use kith_identity::Fingerprint;
use kith_identity::membership::NodeId;
use kith_sansio::{Rng, Span, Timestamp};
use kith_vnet::{Effect, Faults, Wiring, World};

use crate::support::{contact, ids, random_id};

/// A message that does not fill the trace.
#[derive(Clone)]
struct Packet(Rc<(Contact, Message)>);

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0.1.body {
            Body::Nodes(nodes) => return write!(f, "{} nodes", nodes.len()),
            Body::Page { nodes, .. } => return write!(f, "page of {}", nodes.len()),
            Body::Store(_) => "store",
            Body::Found(_) => "found",
            Body::Block { .. } => "block",
            body => return write!(f, "{body:?}"),
        };
        f.write_str(name)
    }
}

/// Nodes that reach each other by their ids.
struct Wires {
    contacts: BTreeMap<NodeId, Contact>,
}

impl Wiring for Wires {
    type Machine = Node;
    type Address = NodeId;
    type Message = Packet;
    type Event = Output;

    fn input(&mut self, _: NodeId, packet: Packet) -> Input {
        let (from, message) = Rc::unwrap_or_clone(packet.0);
        Input::Heard { from, message }
    }

    fn effect(&mut self, at: &NodeId, output: Output) -> Effect<Wires> {
        match output {
            Output::Send { to, message } => {
                Effect::Send(to.id, Packet(Rc::new((self.contacts[at].clone(), message))))
            }
            event => Effect::Event(event),
        }
    }
}

/// A network and what its nodes told of what was wished.
struct Net {
    world: World<Wires>,
    config: Config,
    ids: Vec<NodeId>,
    live: Vec<NodeId>,
    next_op: u64,
}

impl Net {
    fn new(seed: u64, nodes: usize, config: Config, faults: Faults) -> Net {
        let contacts = ids(nodes, seed).into_iter().map(contact).collect();
        Net::of(seed, contacts, config, faults)
    }

    fn of(seed: u64, contacts: Vec<Contact>, config: Config, faults: Faults) -> Net {
        let ids = contacts.iter().map(|contact| contact.id).collect();
        let contacts = contacts.into_iter().map(|contact| (contact.id, contact)).collect();
        Net { world: World::new(seed, faults, Wires { contacts }), config, ids, live: Vec::new(), next_op: 0 }
    }

    fn contact(&mut self, id: NodeId) -> Contact {
        self.world.wiring().contacts[&id].clone()
    }

    fn any(&mut self) -> NodeId {
        self.live[self.world.chance().below(self.live.len() as u64) as usize]
    }

    /// Starts a node, which joins through one that is there.
    fn start(&mut self, id: NodeId) {
        let through = (!self.live.is_empty()).then(|| self.any()).map(|id| self.contact(id));
        let own = self.contact(id);
        self.world.start(&id, Node::new(own, self.config.clone(), self.ids.len() as u64));
        self.world.input(&id, Input::Join(through.into_iter().collect()));
        self.live.push(id);
    }

    /// A network in which all nodes have joined, in waves that double it.
    fn settle(&mut self) {
        let mut waiting = self.ids.clone();
        for place in (1..waiting.len()).rev() {
            let other = self.world.chance().below(place as u64 + 1) as usize;
            waiting.swap(place, other);
        }
        while !waiting.is_empty() {
            let wave = waiting.split_off(waiting.len() - waiting.len().min(self.live.len().max(1)));
            wave.into_iter().for_each(|id| self.start(id));
            self.run(Span::secs(60));
        }
        let joined = self.world.events().iter().filter(|(.., event)| *event == Output::Joined).count();
        assert_eq!(joined, self.ids.len(), "everybody joins");
    }

    fn run(&mut self, span: Span) {
        self.world.run_until(self.world.now() + span);
    }

    /// Lets so many of a hundred nodes die at once.
    fn kill(&mut self, percent: usize) -> Vec<NodeId> {
        let count = self.live.len() * percent / 100;
        let dead: Vec<_> = (0..count)
            .map(|_| {
                let place = self.world.chance().below(self.live.len() as u64) as usize;
                self.live.swap_remove(place)
            })
            .collect();
        dead.iter().for_each(|id| drop(self.world.crash(id)));
        dead
    }

    fn op(&mut self) -> u64 {
        self.next_op += 1;
        self.next_op
    }

    /// Puts a value from some node; the number of the wish.
    fn put(&mut self, value: Value) -> u64 {
        let (at, op) = (self.any(), self.op());
        self.world.input(&at, Input::Put { op, value });
        op
    }

    fn ask_anywhere(&mut self, key: NodeId) -> u64 {
        let (at, op) = (self.any(), self.op());
        self.world.input(&at, Input::Get { op, key });
        op
    }

    /// Runs until a wish has its outcome.
    fn outcome(&mut self, op: u64) -> Output {
        self.world.run_until_true(Span::secs(60), |world| outcome(world, op).is_some());
        outcome(&self.world, op).expect("every wish has an outcome")
    }

    /// What the node should know of its region, and what it knows.
    fn regions(&self, id: &NodeId) -> (HashSet<NodeId>, HashSet<NodeId>) {
        let routes = self.world.machine(id).expect("it is up").routes();
        let block = routes.block();
        let wanted =
            self.live.iter().filter(|other| block.contains(other) && *other != id).copied().collect();
        (wanted, routes.region().iter().map(|known| known.contact.id).collect())
    }

    /// How many of the nodes know their region exactly.
    fn exact(&self) -> usize {
        let is_exact = |id: &&NodeId| {
            let (wanted, known) = self.regions(id);
            wanted == known
        };
        self.live.iter().filter(is_exact).count()
    }
}

fn outcome(world: &World<Wires>, wanted: u64) -> Option<Output> {
    let is_it = |output: &&Output| match output {
        Output::Found { op, .. } | Output::Got { op, .. } => *op == wanted,
        Output::Stored { op, .. } | Output::NotStored { op, .. } => *op == wanted,
        _ => false,
    };
    world.events().iter().rev().map(|(.., output)| output).find(is_it).cloned()
}

/// Buckets and regions so small that it is no full mesh.
fn small() -> Config {
    Config { bucket: 8, region: 32, ..Config::default() }
}

fn value(rng: &mut dyn Rng, number: u64) -> Value {
    let mut publisher = [0; 32];
    publisher[..8].copy_from_slice(&number.to_be_bytes());
    Value {
        kind: 1,
        key: random_id(rng),
        publisher: Fingerprint::from_bytes(publisher),
        version: 1,
        // The world begins with 2026.
        expires: Timestamp(1_767_225_600 + 86_400),
        bytes: number.to_be_bytes().to_vec().into(),
    }
}
