//! Sender and receiver in the virtual network: connections break, nodes crash and stop, disks lose what was not
//! safe, senders lie. In the end everything that can arrive has arrived, and nothing was named that is not right.

mod model;
mod receiving;
mod sending;
mod stream;

use std::collections::BTreeSet;
use std::rc::Rc;

use kith_sansio::{Machine, Now, Rng, SeededRng, Span, Time};
use kith_transfer::Summary;
use kith_vnet::{Effect, Faults, Wiring, World, for_seeds};

use model::{Disk, Plan, Role};
use receiving::Receiving;
use sending::Sending;
use stream::Packet;

/// The two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Sender,
    Receiver,
}

/// What a node tells the test.
#[derive(Clone, Debug)]
enum Told {
    /// `bytes` of groups were sent in the session.
    Sent {
        connection: u64,
        summary: Summary,
        bytes: u64,
    },
    Received {
        connection: u64,
        summary: Summary,
    },
}

enum Out {
    Send(Packet),
    Tell(Told),
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Out")
    }
}

enum Node {
    Sending(Sending),
    Receiving(Receiving),
}

enum Input {
    Packet(Packet),
    Stop,
    Pause,
}

impl Machine for Node {
    type Input = Input;
    type Output = Out;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match (self, input) {
            (Node::Sending(node), Input::Packet(packet)) => node.packet(now, packet, rng),
            (Node::Receiving(node), Input::Packet(packet)) => node.packet(now, packet, rng),
            (Node::Sending(node), Input::Stop) => node.stop(now, rng),
            (Node::Receiving(node), Input::Stop) => node.stop(now, rng),
            (Node::Sending(node), Input::Pause) => node.pause(now, rng),
            (Node::Receiving(node), Input::Pause) => node.pause(now, rng),
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        match self {
            Node::Sending(node) => node.timeout(now, rng),
            Node::Receiving(node) => node.timeout(now, rng),
        }
    }

    fn poll_output(&mut self) -> Option<Out> {
        match self {
            Node::Sending(node) => node.poll_output(),
            Node::Receiving(node) => node.poll_output(),
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self {
            Node::Sending(node) => node.poll_timeout(),
            Node::Receiving(node) => node.poll_timeout(),
        }
    }
}

struct Wires;

impl Wiring for Wires {
    type Machine = Node;
    type Address = Side;
    type Message = Packet;
    type Event = Told;

    fn input(&mut self, _from: Side, packet: Packet) -> Input {
        Input::Packet(packet)
    }

    fn effect(&mut self, at: &Side, output: Out) -> Effect<Wires> {
        let other = if *at == Side::Sender { Side::Receiver } else { Side::Sender };
        match output {
            Out::Send(packet) => Effect::Send(other, packet),
            Out::Tell(told) => Effect::Event(told),
        }
    }
}

struct Course {
    world: World<Wires>,
    plan: Rc<Plan>,
    liar: bool,
}

impl Course {
    fn new(seed: u64, faults: Faults, liar: bool) -> Course {
        let plan = Rc::new(Plan::draw(&mut SeededRng::new(seed ^ 0x5eed)));
        let mut world = World::new(seed, faults, Wires);
        world.start(&Side::Sender, Node::Sending(Sending::new(Rc::clone(&plan), liar, 0, Time(0))));
        let disk = Disk::before(&plan);
        world.start(&Side::Receiver, Node::Receiving(Receiving::new(Rc::clone(&plan), disk)));
        Course { world, plan, liar }
    }

    /// Takes a node down, and starts it again from what it had stored, a while later.
    fn crash(&mut self, side: Side) {
        let node = self.world.crash(&side).expect("it was up");
        let after = Span(self.world.chance().below(6_000_000));
        self.run(after);
        let plan = Rc::clone(&self.plan);
        let node = match node {
            Node::Sending(old) => {
                Node::Sending(Sending::new(plan, self.liar, old.connections, self.world.now()))
            }
            Node::Receiving(Receiving { mut disk, .. }) => {
                disk.crash(self.world.chance());
                Node::Receiving(Receiving::new(plan, disk))
            }
        };
        self.world.start(&side, node);
    }

    fn run(&mut self, span: Span) {
        self.world.run_until(self.world.now() + span);
    }

    /// One thing that goes wrong.
    fn mishap(&mut self) {
        let after = Span(self.world.chance().below(2_000_000));
        self.run(after);
        let side = if self.world.chance().below(2) == 0 { Side::Sender } else { Side::Receiver };
        match self.world.chance().below(6) {
            0 | 1 if self.sent() => {}
            0 | 1 => self.crash(side),
            2 => self.world.input(&side, Input::Stop),
            3 => self.world.input(&side, Input::Pause),
            4 => self.world.network().cut(&Side::Sender, &Side::Receiver),
            _ => self.world.network().partition(&Side::Sender, &Side::Receiver),
        }
        let after = Span(self.world.chance().below(7_000_000));
        self.run(after);
        self.world.network().heal();
    }

    fn sent(&self) -> bool {
        self.world.events().iter().any(|(_, _, told)| matches!(told, Told::Sent { .. }))
    }

    /// Lets a transfer over a network without faults come to its end, and looks at what came of it.
    fn finish(&mut self, within: Span) {
        self.world.network().heal();
        self.world.network().set_faults(Faults::none(Span::millis(20)));
        let done = self.world.run_until_true(within, |world| {
            world.events().iter().any(|(_, _, told)| matches!(told, Told::Sent { .. }))
        });
        assert!(done, "the transfer comes to its end");
        self.world.run_until_quiet(Span::secs(60)).expect("then nothing goes on");
        self.check();
    }

    fn check(&self) {
        let told = || self.world.events().iter().map(|(_, _, told)| told);
        let sent = told().find_map(|one| match one {
            Told::Sent { connection, summary, bytes } => Some((*connection, summary, *bytes)),
            Told::Received { .. } => None,
        });
        let (session, summary, sent) = sent.expect("it was sent");
        let theirs = told().find_map(|one| match one {
            Told::Received { connection, summary } if *connection == session => Some(summary),
            _ => None,
        });
        assert_eq!(theirs, Some(summary), "both summaries of the last session agree");
        self.check_summary(summary, sent);
        self.check_disk();
    }

    fn check_summary(&self, summary: &Summary, sent: u64) {
        let plan = &self.plan;
        let size = |index: &u32| plan.offer.size(*index).unwrap();
        let (here, missing): (Vec<u32>, Vec<u32>) = plan.files().partition(|index| plan.arrives(*index));
        let failed: BTreeSet<_> = summary.failed.iter().map(|failed| failed.path.clone()).collect();
        assert_eq!(failed, missing.iter().map(|index| plan.offer.path(*index)).collect());
        assert_eq!((summary.files, summary.failures), (here.len() as u32, missing.len() as u32));
        assert_eq!(summary.bytes, here.iter().map(size).sum::<u64>());
        // What the receiver cannot write is sent all the same, and nothing else beyond what was missing.
        let unwritable = missing.iter().filter(|index| plan.roles[**index as usize] == Role::Unwritable);
        let in_vain: u64 = unwritable.map(size).sum();
        assert_eq!(sent + summary.resumed_bytes, summary.bytes + in_vain, "nothing is sent twice");
    }

    fn check_disk(&self) {
        let Some(Node::Receiving(receiver)) = self.world.machine(&Side::Receiver) else { panic!("it is up") };
        let mut before = Disk::before(&self.plan);
        for index in self.plan.files() {
            let expected = match self.plan.arrives(index) {
                true => Some(self.plan.contents(index)),
                false => before.named.remove(&index),
            };
            assert_eq!(receiver.disk.named.get(&index), expected.as_ref(), "file {index}");
        }
    }
}

fn bad() -> Faults {
    Faults {
        drop_permille: 10,
        duplicate_permille: 20,
        delay: Span::millis(5)..=Span::millis(60),
        ..Faults::none(Span::ZERO)
    }
}

#[test]
fn a_transfer_over_a_quiet_network_takes_one_connection() {
    for_seeds(0..100, |seed| {
        let mut course = Course::new(seed, Faults::default(), false);
        course.finish(Span::secs(60));
        assert!(matches!(course.world.events()[1].2, Told::Sent { connection: 1, .. }));
        assert_eq!(course.world.network().counts().cut, 0);
    });
}

#[test]
fn a_transfer_over_lost_connections_resumes_until_everything_is_there() {
    for_seeds(0..400, |seed| {
        let mut course = Course::new(seed, bad(), false);
        course.run(Span::secs(20));
        course.finish(Span::secs(60));
    });
}

#[test]
fn crashes_partitions_and_stops_cost_only_what_was_in_flight() {
    for_seeds(0..600, |seed| {
        let mut course = Course::new(seed, bad(), false);
        for _ in 0..course.world.chance().below(8) {
            course.mishap();
        }
        course.finish(Span::secs(60));
    });
}

#[test]
fn pausing_at_any_moment_on_either_side_loses_nothing() {
    for_seeds(0..400, |seed| {
        let mut course = Course::new(seed, Faults::none(Span::millis(20)), false);
        for _ in 0..1 + course.world.chance().below(6) {
            let after = Span(course.world.chance().below(3_000_000));
            course.run(after);
            let side = if course.world.chance().below(2) == 0 { Side::Sender } else { Side::Receiver };
            course.world.input(&side, Input::Pause);
        }
        course.finish(Span::secs(60));
    });
}

#[test]
fn a_sender_that_lies_now_and_then_gets_nothing_wrong_named() {
    for_seeds(0..400, |seed| {
        let mut course = Course::new(seed, bad(), true);
        for _ in 0..course.world.chance().below(4) {
            course.mishap();
        }
        course.finish(Span::secs(300));
    });
}

#[test]
fn equal_seeds_give_equal_transfers() {
    let run = |seed| {
        let mut course = Course::new(seed, bad(), true);
        course.mishap();
        course.finish(Span::secs(300));
        course.world.digest()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
