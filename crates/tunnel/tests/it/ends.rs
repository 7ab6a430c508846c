//! Two ends that keep each other connected, over a network that loses and falls apart, and whose nodes are killed. The
//! connections of this network are as bad as they come: nothing ever says that one is dead.

use std::collections::{HashSet, VecDeque};

use kith_sansio::{Machine, Now, Rng, Span, Time};
use kith_tunnel::{Connection, Input, Output, Pace, Peering};
use kith_vnet::{Effect, Faults, Wiring, World, for_seeds};

/// How often each end has a packet for the other.
const EVERY: Span = Span::millis(100);
/// How long an attempt waits for its answer.
const ATTEMPT: Span = Span::secs(5);

#[derive(Clone, Debug)]
enum Message {
    Open(Connection),
    Opened(Connection),
    Over(Connection, Said),
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Packet,
    Ask,
    Answer,
}

/// One end with the connections of its shell.
struct End {
    peering: Peering,
    /// Behind a NAT, so to say: nobody can open a connection to the peer from here.
    is_passive: bool,
    known: HashSet<Connection>,
    attempt: Option<(Connection, Time)>,
    next_packet: Time,
    heard: Option<Time>,
    outputs: VecDeque<Message>,
}

impl End {
    fn new(now: Time, is_passive: bool) -> End {
        let pace = Pace::default();
        End {
            peering: Peering::new(Now { time: now, ..Now::default() }, pace),
            is_passive,
            known: HashSet::new(),
            attempt: None,
            next_packet: now,
            heard: None,
            outputs: VecDeque::new(),
        }
    }

    fn tell(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        if let Input::Connected(connection) = input {
            self.known.insert(connection);
        }
        self.peering.handle_input(now, input, rng);
        self.follow(now, rng);
    }

    fn follow(&mut self, now: Now, rng: &mut dyn Rng) {
        while let Some(output) = self.peering.poll_output() {
            match output {
                Output::Connect if self.is_passive => self.peering.handle_input(now, Input::Failed, rng),
                Output::Connect => {
                    let connection = Connection(rng.next_u64());
                    self.attempt = Some((connection, now.time + ATTEMPT));
                    self.outputs.push_back(Message::Open(connection));
                }
                Output::Ask(connection, _) => {
                    self.outputs.push_back(Message::Over(connection, Said::Ask));
                }
                // The peer is not told: it may be the network that is gone.
                Output::Close(connection) => {
                    self.known.remove(&connection);
                }
            }
        }
    }
}

impl Machine for End {
    type Input = Message;
    type Output = Message;

    fn handle_input(&mut self, now: Now, message: Message, rng: &mut dyn Rng) {
        match message {
            Message::Open(connection) => {
                self.outputs.push_back(Message::Opened(connection));
                if !self.known.contains(&connection) {
                    self.tell(now, Input::Connected(connection), rng);
                }
            }
            Message::Opened(connection) => {
                if self.attempt.take_if(|(attempt, _)| *attempt == connection).is_some() {
                    self.tell(now, Input::Connected(connection), rng);
                }
            }
            Message::Over(connection, said) if self.known.contains(&connection) => {
                match said {
                    Said::Packet => self.heard = Some(now.time),
                    Said::Ask => self.outputs.push_back(Message::Over(connection, Said::Answer)),
                    Said::Answer => {}
                }
                self.tell(now, Input::Heard(connection), rng);
            }
            Message::Over(..) => {}
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        if self.attempt.take_if(|(_, until)| *until <= now.time).is_some() {
            self.tell(now, Input::Failed, rng);
        }
        if self.next_packet <= now.time {
            self.next_packet = now.time + EVERY;
            if let Some(newest) = self.peering.newest() {
                self.outputs.push_back(Message::Over(newest, Said::Packet));
                self.tell(now, Input::Sent, rng);
            }
        }
        self.peering.handle_timeout(now, rng);
        self.follow(now, rng);
    }

    fn poll_output(&mut self) -> Option<Message> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        let attempt = self.attempt.map(|(_, until)| until);
        [attempt, Some(self.next_packet), self.peering.poll_timeout()].into_iter().flatten().min()
    }
}

struct Wires;

impl Wiring for Wires {
    type Machine = End;
    type Address = u8;
    type Message = Message;
    type Event = ();

    fn input(&mut self, _: u8, message: Message) -> Message {
        message
    }

    fn effect(&mut self, at: &u8, message: Message) -> Effect<Wires> {
        Effect::Send(1 - at, message)
    }
}

fn world(seed: u64, faults: Faults, one_is_passive: bool) -> World<Wires> {
    let mut world = World::new(seed, faults, Wires);
    for end in [0, 1] {
        world.start(&end, End::new(Time(0), one_is_passive && end == 1));
    }
    world
}

/// How long it takes until both ends hear packets that were sent from now on.
fn until_both_hear(world: &mut World<Wires>, limit: Span) -> Option<Span> {
    let begin = world.now();
    let both =
        |world: &World<Wires>| world.machines().all(|(_, end)| end.heard.is_some_and(|heard| heard > begin));
    world.run_until_true(limit, both).then(|| world.now() - begin)
}

#[test]
fn a_peer_that_is_killed_and_starts_again_is_back_within_a_second() {
    for_seeds(0..50, |seed| {
        for killed in [0, 1] {
            let mut world = world(seed, Faults::none(Span::millis(20)), false);
            until_both_hear(&mut world, Span::secs(2)).expect("a first connection");
            world.run_until(Time(20_000_000));
            world.crash(&killed);
            world.run_until(Time(21_000_000));
            let now = world.now();
            world.start(&killed, End::new(now, false));
            let took = until_both_hear(&mut world, Span::secs(1));
            assert!(took.is_some(), "{killed} was killed");
        }
    });
}

#[test]
fn a_killed_peer_that_cannot_connect_itself_is_found_again() {
    for_seeds(0..50, |seed| {
        let mut world = world(seed, Faults::none(Span::millis(20)), true);
        until_both_hear(&mut world, Span::secs(2)).expect("a first connection");
        world.crash(&1);
        let now = world.now();
        world.start(&1, End::new(now, true));
        // Two seconds until it is missed, three questions, and an attempt.
        let took = until_both_hear(&mut world, Span::secs(7));
        assert!(took.is_some());
    });
}

#[test]
fn whatever_the_network_did_both_hear_each_other_soon_after() {
    for_seeds(0..50, |seed| {
        let mut world = world(seed, Faults::harsh(), seed % 2 == 0);
        for _ in 0..10 {
            let (what, length) = (world.chance().below(4), world.chance().below(20_000_000));
            match what {
                0 => world.network().partition(&0, &1),
                1 => world.network().cut(&0, &1),
                end => {
                    let (end, now) = (u8::try_from(end - 2).unwrap(), world.now());
                    if let Some(old) = world.crash(&end) {
                        world.start(&end, End::new(now, old.is_passive));
                    }
                }
            }
            let until = world.now() + Span(length);
            world.run_until(until);
            world.network().heal();
        }
        // Questions until the dead one is given up, the longest wait between attempts, and some that get lost.
        let took = until_both_hear(&mut world, Span::secs(60));
        assert!(took.is_some());
        assert!(world.machines().all(|(_, end)| end.known.len() <= 2), "at most two connections are kept");
    });
}
