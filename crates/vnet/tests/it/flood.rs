//! An example of a machine: every node learns every rumour, over a network that loses messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kith_sansio::{Machine, Now, Rng, Span, Time, Timestamp};
use kith_vnet::{Effect, Wiring};

/// How long a node waits for a receipt before it tells again.
const AGAIN: Span = Span::millis(300);

pub(crate) type Address = u8;
type Rumour = u32;

#[derive(Debug, Clone)]
pub(crate) enum Message {
    Rumour(Rumour),
    Receipt(Rumour),
}

pub(crate) enum Input {
    /// A person's wish: slow work first, then it is told.
    Invent(Rumour),
    /// The slow work is done, the rumour is stored.
    Stored(Rumour),
    From(Address, Message),
}

#[derive(Debug)]
pub(crate) enum Output {
    Send(Address, Message),
    Store(Rumour),
    Learned(Rumour, Timestamp),
}

/// Tells each neighbour each rumour until it has a receipt.
pub(crate) struct Flood {
    neighbours: Vec<Address>,
    /// What survives a crash.
    pub(crate) known: BTreeSet<Rumour>,
    open: BTreeMap<(Address, Rumour), Time>,
    outputs: VecDeque<Output>,
}

impl Flood {
    /// A node that knows some rumours from before, and tells them again: it forgot who has them.
    pub(crate) fn new(now: Time, neighbours: Vec<Address>, known: BTreeSet<Rumour>) -> Flood {
        let pairs = neighbours.iter().flat_map(|n| known.iter().map(move |rumour| ((*n, *rumour), now)));
        Flood { open: pairs.collect(), neighbours, known, outputs: VecDeque::new() }
    }

    fn learn(&mut self, now: Now, rumour: Rumour, rng: &mut dyn Rng) {
        if self.known.insert(rumour) {
            self.outputs.push_back(Output::Learned(rumour, now.utc));
            self.open.extend(self.neighbours.iter().map(|neighbour| ((*neighbour, rumour), now.time)));
            self.handle_timeout(now, rng);
        }
    }
}

impl Machine for Flood {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match input {
            Input::Invent(rumour) => self.outputs.push_back(Output::Store(rumour)),
            Input::Stored(rumour) => self.learn(now, rumour, rng),
            Input::From(from, Message::Rumour(rumour)) => {
                self.outputs.push_back(Output::Send(from, Message::Receipt(rumour)));
                self.learn(now, rumour, rng);
            }
            Input::From(from, Message::Receipt(rumour)) => drop(self.open.remove(&(from, rumour))),
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        for ((neighbour, rumour), due) in &mut self.open {
            if *due <= now.time {
                *due = now.time + AGAIN + Span(rng.below(50_000));
                self.outputs.push_back(Output::Send(*neighbour, Message::Rumour(*rumour)));
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.open.values().min().copied()
    }
}

/// Storing takes 20 ms; learning is an event.
pub(crate) struct Wires;

impl Wiring for Wires {
    type Machine = Flood;
    type Address = Address;
    type Message = Message;
    type Event = (Rumour, Timestamp);

    fn input(&mut self, from: Address, message: Message) -> Input {
        Input::From(from, message)
    }

    fn effect(&mut self, _at: &Address, output: Output) -> Effect<Wires> {
        match output {
            Output::Send(to, message) => Effect::Send(to, message),
            Output::Store(rumour) => Effect::Later(Span::millis(20), Input::Stored(rumour)),
            Output::Learned(rumour, at) => Effect::Event((rumour, at)),
        }
    }
}
