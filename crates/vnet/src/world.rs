use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::{self, Debug};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;

use kith_sansio::{Machine, Now, Rng, SeededRng, Span, Time, Timestamp};

use crate::{Faults, Network};

/// Wall-clock time at which every world begins: 2026-01-01T00:00:00Z.
const BEGINNING: Timestamp = Timestamp(1_767_225_600);
/// The most outputs a machine may give for one event before it counts as running for ever.
const MAX_OUTPUTS: usize = 100_000;
/// How often one point of time may come again before a timer counts as stuck.
const MAX_STEPS_AT_ONE_TIME: u32 = 1_000_000;
/// How much of the trace is kept for printing, in lines.
const MAX_TRACE_LINES: usize = 200;

/// How a world's network and its machines go together; a test's own type, which may hold its model as well.
pub trait Wiring {
    /// The machines; an enum where there are several kinds.
    type Machine: Machine;
    /// Names a node.
    type Address: Clone + Eq + Hash + Debug;
    /// What goes over the network.
    type Message: Clone + Debug;
    /// What the test wants to know of, kept in [`World::events`].
    type Event: Debug;

    /// What a machine is told when a message arrives.
    fn input(&mut self, from: Self::Address, message: Self::Message) -> <Self::Machine as Machine>::Input;

    /// What the world has to do for an output of the machine at `at`.
    fn effect(&mut self, at: &Self::Address, output: <Self::Machine as Machine>::Output) -> Effect<Self>;
}

/// What the world does for an output.
pub enum Effect<W: Wiring + ?Sized> {
    /// Sends a message to a node.
    Send(W::Address, W::Message),
    /// Gives the machine an input after a while: slow work that has come to its end.
    Later(Span, <W::Machine as Machine>::Input),
    /// Tells the test.
    Event(W::Event),
    /// Nothing.
    Nothing,
}

/// What a machine of [`Peers`] gives.
pub enum Act<A, M, E> {
    /// A message for a node.
    Send(A, M),
    /// Something that the test wants to know.
    Tell(E),
}

/// The wiring of machines that say themselves whom they mean, and are told who spoke: their outputs are [`Act`], and
/// a message with its sender is one of their inputs.
pub struct Peers<P>(PhantomData<P>);

impl<P> Default for Peers<P> {
    fn default() -> Self {
        Peers(PhantomData)
    }
}

impl<P, A, M, E> Wiring for Peers<P>
where
    P: Machine<Output = Act<A, M, E>>,
    P::Input: From<(A, M)>,
    A: Clone + Eq + Hash + Debug,
    M: Clone + Debug,
    E: Debug,
{
    type Machine = P;
    type Address = A;
    type Message = M;
    type Event = E;

    fn input(&mut self, from: A, message: M) -> P::Input {
        (from, message).into()
    }

    fn effect(&mut self, _at: &A, output: Act<A, M, E>) -> Effect<Self> {
        match output {
            Act::Send(to, message) => Effect::Send(to, message),
            Act::Tell(event) => Effect::Event(event),
        }
    }
}

/// A set of machines, their network and their time.
///
/// Everything follows from the seed: two worlds of one seed and the same calls have equal traces. Where a test
/// panics, the seed and the last lines of the trace are printed.
pub struct World<W: Wiring> {
    wiring: W,
    seed: u64,
    now: Time,
    network: Network<W::Address, W::Message>,
    chance: SeededRng,
    /// In the order in which they were added, because that of a hash table is not the same in two runs.
    nodes: Vec<Node<W>>,
    places: HashMap<W::Address, usize>,
    /// When each node that waits for something wants to be woken, so that a large world need not ask all of them.
    wakes: BTreeSet<(Time, usize)>,
    events: Vec<(Time, W::Address, W::Event)>,
    trace: Trace,
    steps_at_now: u32,
}

struct Node<W: Wiring> {
    address: W::Address,
    /// `None` while it is down.
    machine: Option<W::Machine>,
    chance: SeededRng,
    skew_secs: i64,
    later: Vec<(Time, <W::Machine as Machine>::Input)>,
    /// What stands of it in [`World::wakes`].
    wake: Option<Time>,
}

/// A world was still busy when its time was up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotQuiet {
    /// When the next thing would have happened.
    pub next: Time,
    /// How many messages were under way.
    pub in_flight: usize,
}

#[derive(Default)]
struct Trace {
    lines: VecDeque<String>,
    digest: u64,
}

impl<W: Wiring> World<W> {
    /// A world without nodes.
    pub fn new(seed: u64, faults: Faults, wiring: W) -> Self {
        World {
            wiring,
            seed,
            now: Time(0),
            network: Network::new(faults),
            chance: SeededRng::new(seed),
            nodes: Vec::new(),
            places: HashMap::new(),
            wakes: BTreeSet::new(),
            events: Vec::new(),
            trace: Trace::default(),
            steps_at_now: 0,
        }
    }

    /// Puts a machine at an address: a new node, or one that crashed and starts again. It can give outputs at
    /// once.
    pub fn start(&mut self, address: &W::Address, machine: W::Machine) {
        let place = self.places.get(address).copied().unwrap_or(self.nodes.len());
        if place == self.nodes.len() {
            // A source of chance of its own: faults of the network do not disturb what a machine draws.
            let chance = SeededRng::new(self.seed.rotate_left(32) ^ (place as u64 + 1));
            self.places.insert(address.clone(), place);
            self.nodes.push(Node {
                address: address.clone(),
                machine: None,
                chance,
                skew_secs: 0,
                later: Vec::new(),
                wake: None,
            });
        }
        self.trace.line(self.now, format_args!("{address:?} starts"));
        self.network.restart(address);
        self.nodes[place].machine = Some(machine);
        self.drain(place);
    }

    /// Takes a node down and gives its machine back, so that the test can start one from what was stored.
    pub fn crash(&mut self, address: &W::Address) -> Option<W::Machine> {
        self.trace.line(self.now, format_args!("{address:?} crashes"));
        self.network.crash(address);
        let place = *self.places.get(address)?;
        self.nodes[place].later.clear();
        let machine = self.nodes[place].machine.take();
        self.set_wake(place);
        machine
    }

    /// Lets the wall clock of a node go wrong by so many seconds.
    pub fn set_skew(&mut self, address: &W::Address, skew_secs: i64) {
        if let Some(place) = self.places.get(address) {
            self.nodes[*place].skew_secs = skew_secs;
        }
    }

    /// Gives a machine an input now; nothing happens where the node is down.
    pub fn input(&mut self, address: &W::Address, input: <W::Machine as Machine>::Input) {
        if let Some(place) = self.places.get(address).copied() {
            self.trace.line(self.now, format_args!("{address:?} is told something"));
            self.give(place, input);
        }
    }

    /// The machine of a node that is up.
    pub fn machine(&self, address: &W::Address) -> Option<&W::Machine> {
        self.nodes[*self.places.get(address)?].machine.as_ref()
    }

    /// The nodes that are up, in the order in which they were added.
    pub fn machines(&self) -> impl Iterator<Item = (&W::Address, &W::Machine)> {
        self.nodes.iter().filter_map(|node| Some((&node.address, node.machine.as_ref()?)))
    }

    /// The network, to separate and to heal.
    pub fn network(&mut self) -> &mut Network<W::Address, W::Message> {
        &mut self.network
    }

    /// The test's own wiring.
    pub fn wiring(&mut self) -> &mut W {
        &mut self.wiring
    }

    /// The world's source of chance, for the test's own choices.
    pub fn chance(&mut self) -> &mut dyn Rng {
        &mut self.chance
    }

    /// What machines told so far: when, where, what.
    pub fn events(&self) -> &[(Time, W::Address, W::Event)] {
        &self.events
    }

    /// Time by the world's clock.
    pub fn now(&self) -> Time {
        self.now
    }

    /// A number that stands for all that happened so far: equal histories, equal numbers.
    pub fn digest(&self) -> u64 {
        self.trace.digest
    }

    /// Moves time to the next thing that happens, and lets it happen; `None` where nothing ever will.
    pub fn step(&mut self) -> Option<Time> {
        let next = self.next()?.max(self.now);
        self.steps_at_now = if next == self.now { self.steps_at_now + 1 } else { 0 };
        assert!(
            self.steps_at_now < MAX_STEPS_AT_ONE_TIME,
            "time does not go on: a timer stays due after handle_timeout"
        );
        self.now = next;
        if let Some((from, to, message)) = self.network.receive(next) {
            self.trace.line(next, format_args!("{from:?} -> {to:?}: {message:?}"));
            if let Some(place) = self.places.get(&to).copied() {
                let input = self.wiring.input(from, message);
                self.give(place, input);
            }
        } else {
            self.timers();
        }
        Some(next)
    }

    /// Runs until nothing is left to happen before `deadline`, then moves the time there.
    pub fn run_until(&mut self, deadline: Time) {
        while self.next().is_some_and(|next| next <= deadline) {
            self.step();
        }
        self.now = self.now.max(deadline);
    }

    /// Runs until `done` says so; whether it did within `limit`.
    pub fn run_until_true(&mut self, limit: Span, mut done: impl FnMut(&Self) -> bool) -> bool {
        let deadline = self.now + limit;
        while !done(self) {
            if self.next().is_none_or(|next| next > deadline) {
                return false;
            }
            self.step();
        }
        true
    }

    /// Runs until nothing is left to happen at all: no message under way, no timer set.
    ///
    /// # Errors
    /// Where that is not so after `limit`.
    pub fn run_until_quiet(&mut self, limit: Span) -> Result<(), NotQuiet> {
        let deadline = self.now + limit;
        while let Some(next) = self.next() {
            if next > deadline {
                return Err(NotQuiet { next, in_flight: self.network.in_flight() });
            }
            self.step();
        }
        Ok(())
    }

    fn next(&self) -> Option<Time> {
        let wake = self.wakes.first().map(|(time, _)| *time);
        wake.into_iter().chain(self.network.poll_timeout()).min()
    }

    /// Notes when a node wants to be woken, after something happened to it.
    fn set_wake(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let next = node.poll_timeout();
        if let Some(before) = std::mem::replace(&mut node.wake, next) {
            self.wakes.remove(&(before, place));
        }
        self.wakes.extend(next.map(|time| (time, place)));
    }

    /// Lets all timers and all slow work fire that are due.
    fn timers(&mut self) {
        let due = self.wakes.iter().take_while(|(time, _)| *time <= self.now);
        let mut due: Vec<_> = due.map(|(_, place)| *place).collect();
        due.sort_unstable();
        for place in due {
            let now = self.nodes[place].clock(self.now);
            let node = &mut self.nodes[place];
            while let Some(index) = node.later.iter().position(|(due, _)| *due <= self.now) {
                let (_, input) = node.later.remove(index);
                if let Some(machine) = &mut node.machine {
                    machine.handle_input(now, input, &mut node.chance);
                }
            }
            if let Some(machine) = &mut node.machine
                && machine.poll_timeout().is_some_and(|due| due <= self.now)
            {
                self.trace.line(self.now, format_args!("{:?} wakes", node.address));
                machine.handle_timeout(now, &mut node.chance);
            }
            self.drain(place);
        }
    }

    fn give(&mut self, place: usize, input: <W::Machine as Machine>::Input) {
        let node = &mut self.nodes[place];
        let now = node.clock(self.now);
        if let Some(machine) = &mut node.machine {
            machine.handle_input(now, input, &mut node.chance);
            self.drain(place);
        }
    }

    /// Does what a machine wants done.
    fn drain(&mut self, place: usize) {
        let mut outputs = 0;
        while let Some(output) = self.nodes[place].machine.as_mut().and_then(Machine::poll_output) {
            outputs += 1;
            assert!(outputs < MAX_OUTPUTS, "{:?} does not stop giving outputs", self.nodes[place].address);
            let node = &mut self.nodes[place];
            match self.wiring.effect(&node.address, output) {
                Effect::Send(to, message) => {
                    self.network.send(self.now, node.address.clone(), to, message, &mut self.chance);
                }
                Effect::Later(after, input) => node.later.push((self.now + after, input)),
                Effect::Event(event) => {
                    self.trace.line(self.now, format_args!("{:?} tells {event:?}", node.address));
                    self.events.push((self.now, node.address.clone(), event));
                }
                Effect::Nothing => {}
            }
        }
        self.set_wake(place);
    }
}

impl<W: Wiring> Node<W> {
    fn clock(&self, time: Time) -> Now {
        let seconds = BEGINNING.0 + time.0 / 1_000_000;
        Now { time, utc: Timestamp(seconds.saturating_add_signed(self.skew_secs)) }
    }

    fn poll_timeout(&self) -> Option<Time> {
        let machine = self.machine.as_ref()?;
        self.later.iter().map(|(due, _)| *due).chain(machine.poll_timeout()).min()
    }
}

impl<W: Wiring> Drop for World<W> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{self:?}");
        }
    }
}

/// The seed, the time and the last lines of the trace.
impl<W: Wiring> Debug for World<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace.lines {
            writeln!(f, "  {line}")?;
        }
        write!(f, "world of seed {} at {}us, {:?}", self.seed, self.now.0, self.network.counts())
    }
}

impl fmt::Display for NotQuiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages are under way, the next event is at {}us", self.in_flight, self.next.0)
    }
}

impl std::error::Error for NotQuiet {}

impl Trace {
    fn line(&mut self, now: Time, what: fmt::Arguments<'_>) {
        let line = format!("{:>12}us {what}", now.0);
        let mut hasher = DefaultHasher::new();
        (self.digest, &line).hash(&mut hasher);
        self.digest = hasher.finish();
        if self.lines.len() == MAX_TRACE_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}
