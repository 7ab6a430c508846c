use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use kith_identity::{Fingerprint, Identity};
use kith_sansio::{Now, SeededRng, Span, Time, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::Protocol;
use crate::protocol::{ADMITTED, Kind, REFUSED};

const LIMITS: Limits = Limits { half_open: 16, half_open_per_source: 4, patience: Span::secs(10) };
const START: Now = Now { time: Time(1_000_000), utc: Timestamp(1_790_000_000) };

fn identity(seed: u64) -> Arc<Identity> {
    Arc::new(Identity::generate(&mut SeededRng::new(seed)))
}

fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], number))
}

fn hello() -> Vec<u8> {
    Protocol::new("tun/1").hello(Kind::Datagrams)
}

/// What happens to a packet on its way: how often it arrives. Asked for each, with its number and direction.
type Fate<'a> = &'a mut dyn FnMut(usize, bool) -> usize;

/// A target at one address and an initiator at another.
struct World {
    now: Now,
    server: Hub,
    client: Hub,
    client_id: Id,
    server_id: Option<Id>,
    sent: [usize; 2],
    admits: bool,
    arrived: Vec<Fingerprint>,
    heard: Vec<Bytes>,
    at_server: Vec<Bytes>,
    at_client: Vec<Bytes>,
    ends: Vec<End>,
    /// What the target and the initiator know to go through, in bytes of datagrams.
    most_bytes: [usize; 2],
    /// Larger packets get lost.
    carried: usize,
    way: Vec<(bool, Bytes)>,
}

impl World {
    fn new(admits: bool) -> World {
        World::of(identity(1), identity(2), identity(1).fingerprint(), admits)
    }

    fn of(server: Arc<Identity>, client: Arc<Identity>, target: Fingerprint, admits: bool) -> World {
        let mut client = Hub::new(client, LIMITS, false).unwrap();
        let client_id = client.connect(START, address(1), target).unwrap();
        World {
            now: START,
            server: Hub::new(server, LIMITS, true).unwrap(),
            client,
            client_id,
            server_id: None,
            sent: [0; 2],
            admits,
            arrived: Vec::new(),
            heard: Vec::new(),
            at_server: Vec::new(),
            at_client: Vec::new(),
            ends: Vec::new(),
            most_bytes: [MAX_DATAGRAM_BYTES; 2],
            carried: 1500,
            way: Vec::new(),
        }
    }

    /// One whose keys are good for so many packets.
    fn changing_keys_after(records: u64) -> World {
        let mut world = World::new(true);
        world.server = Hub::changing_keys_after(2 * records, identity(1), LIMITS, true).unwrap();
        world.client = Hub::changing_keys_after(records, identity(2), LIMITS, false).unwrap();
        world.client_id = world.client.connect(START, address(1), identity(1).fingerprint()).unwrap();
        world
    }

    fn is_open(&self) -> bool {
        self.heard.len() == 2
    }

    fn send(&mut self, from_client: bool, words: &[u8]) -> usize {
        match (from_client, self.server_id) {
            (true, _) => self.client.send(self.now, self.client_id, std::iter::once(words)),
            (false, Some(id)) => self.server.send(self.now, id, std::iter::once(words)),
            (false, None) => 0,
        }
    }

    /// Does what both want done, and delivers what is on its way.
    fn step(&mut self, fate: Fate<'_>) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Transmit(_, packet) => self.put(true, &packet, fate),
                Output::Reached(id) => self.client.ask(self.now, id, &hello()),
                Output::Heard(_, words) => self.heard.push(words),
                Output::Datagram(_, words) => self.at_client.push(words),
                Output::Size(_, bytes) => self.most_bytes[1] = bytes,
                Output::Over(_, end) => self.ends.push(end),
                Output::Arrived(..) => panic!("nobody arrives at an initiator"),
            }
        }
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Transmit(_, packet) => self.put(false, &packet, fate),
                Output::Arrived(id, _, peer) => {
                    self.arrived.push(peer);
                    self.server_id = Some(id);
                }
                Output::Heard(id, words) => {
                    self.heard.push(words);
                    self.server.answer(self.now, id, self.admits);
                }
                Output::Datagram(_, words) => self.at_server.push(words),
                Output::Size(_, bytes) => self.most_bytes[0] = bytes,
                Output::Over(_, end) => self.ends.push(end),
                Output::Reached(_) => panic!("a target reaches nobody"),
            }
        }
        for (to_server, packet) in std::mem::take(&mut self.way) {
            if to_server {
                self.server.handle_packet(self.now, address(2), &packet);
            } else {
                self.client.handle_packet(self.now, address(1), &packet);
            }
        }
    }

    fn put(&mut self, to_server: bool, packet: &Bytes, fate: Fate<'_>) {
        let number = &mut self.sent[usize::from(to_server)];
        *number += 1;
        let times = fate(*number, to_server);
        for _ in 0..if packet.len() <= self.carried { times } else { 0 } {
            self.way.push((to_server, packet.clone()));
        }
    }

    fn is_quiet(&mut self, fate: Fate<'_>) -> bool {
        let before = (self.sent, self.heard.len(), self.ends.len());
        self.step(fate);
        self.way.is_empty() && before == (self.sent, self.heard.len(), self.ends.len())
    }

    /// Lets time pass from timer to timer until `done`, or `span` is over.
    fn run(&mut self, span: Span, fate: Fate<'_>, done: impl Fn(&World) -> bool) {
        let until = self.now.time + span;
        loop {
            while !self.is_quiet(fate) {}
            if done(self) || self.now.time >= until {
                return;
            }
            let due = [self.server.poll_timeout(), self.client.poll_timeout()];
            let due = due.into_iter().flatten().min().unwrap_or(until).min(until);
            assert!(due > self.now.time, "a timer that has fired is due again");
            self.now.utc =
                self.now.utc.plus_secs((due - START.time).as_secs() - (self.now.time - START.time).as_secs());
            self.now.time = due;
            self.server.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
        }
    }

    fn open() -> World {
        let mut world = World::new(true);
        world.run(Span::ZERO, &mut |_, _| 1, World::is_open);
        assert!(world.is_open());
        world
    }
}

#[test]
fn datagrams_flow_both_ways_after_hello_and_answer() {
    let mut world = World::open();
    assert_eq!(world.arrived, [identity(2).fingerprint()]);
    assert_eq!(world.heard, [Bytes::from(hello()), Bytes::from_static(&[ADMITTED])]);
    let most = 1472 - OVERHEAD_BYTES;
    assert_eq!(world.most_bytes, [most; 2]);
    for words in [&b""[..], b"x", &vec![7; most]] {
        assert_eq!((world.send(true, words), world.send(false, words)), (1, 1));
        let sizes = &mut Vec::new();
        while let Some(output) = world.client.poll_output() {
            let Output::Transmit(_, packet) = output else { panic!("{output:?}") };
            sizes.push(packet.len());
            world.server.handle_packet(world.now, address(2), &packet);
        }
        assert_eq!(*sizes, [words.len() + OVERHEAD_BYTES]);
        world.step(&mut |_, _| 1);
        world.step(&mut |_, _| 1);
        assert_eq!(world.at_server.pop().as_deref(), Some(words));
        assert_eq!(world.at_client.pop().as_deref(), Some(words));
    }
    assert_eq!(world.send(true, &vec![7; most + 1]), 0);
}

#[test]
fn the_size_of_packets_follows_the_path() {
    let mut world = World::new(true);
    world.carried = 1400;
    world.run(Span::secs(5), &mut |_, _| 1, |_| false);
    assert_eq!(world.most_bytes, [1392 - OVERHEAD_BYTES; 2]);
    world.carried = 1300;
    world.run(Span::secs(60), &mut |_, _| 1, |_| false);
    assert_eq!(world.most_bytes, [1280 - OVERHEAD_BYTES; 2]);
    world.carried = 1500;
    world.run(Span::secs(700), &mut |_, _| 1, |_| false);
    assert_eq!(world.most_bytes, [1472 - OVERHEAD_BYTES; 2]);
    assert!(world.ends.is_empty());
}

#[test]
fn a_datagram_arrives_once_however_often_its_packet_does() {
    let mut world = World::open();
    let mut packets = Vec::new();
    for number in 0..40_u8 {
        assert_eq!(world.send(true, &[number]), 1);
        while let Some(output) = world.client.poll_output() {
            let Output::Transmit(_, packet) = output else { panic!("{output:?}") };
            packets.push(packet);
        }
    }
    // In another order, and all of it again later.
    packets.reverse();
    for packet in packets.iter().chain(&packets) {
        world.server.handle_packet(world.now, address(2), packet);
    }
    world.step(&mut |_, _| 1);
    let arrived: Vec<u8> = world.at_server.iter().map(|words| words[0]).collect();
    assert_eq!(arrived, (0..40).rev().collect::<Vec<_>>());
}

#[test]
fn keys_are_changed_while_datagrams_flow() {
    let mut world = World::changing_keys_after(500);
    world.run(Span::ZERO, &mut |_, _| 1, World::is_open);
    let (mut lost, mut sent) = (0, 0);
    for number in 0..2000_u16 {
        for from_client in [true, false] {
            sent += world.send(from_client, &number.to_be_bytes());
        }
        // Something is lost now and then, the change itself too; the timers repeat that.
        let mut fate = |number, _| {
            lost += usize::from(number % 31 == 0);
            usize::from(number % 31 != 0)
        };
        world.run(Span::millis(20), &mut fate, |_| false);
    }
    let arrived = world.at_server.len() + world.at_client.len();
    assert!(world.ends.is_empty(), "{:?}", world.ends);
    assert!(arrived + lost >= sent, "{arrived} arrived of {sent}, {lost} packets were lost");
}

#[test]
fn any_one_packet_of_the_beginning_may_get_lost() {
    for lost in 1..=8 {
        for way in [true, false] {
            let mut world = World::new(true);
            let mut fate = |number, to_server| usize::from(number != lost || way != to_server);
            world.run(Span::secs(9), &mut fate, World::is_open);
            assert!(world.is_open(), "packet {lost} lost, to the target: {way}; {:?}", world.ends);
        }
    }
}

#[test]
fn packets_may_come_twice_and_in_another_order() {
    let mut world = World::new(true);
    world.run(Span::secs(9), &mut |_, _| 2, World::is_open);
    assert!(world.is_open());
    assert_eq!(world.arrived.len(), 1);
    let mut world = World::new(true);
    for _ in 0..200 {
        world.way.reverse();
        world.step(&mut |number, _| 1 + number % 2);
        if world.way.is_empty() {
            world.run(Span::millis(100), &mut |_, _| 1, World::is_open);
        }
    }
    assert!(world.is_open(), "{:?}", world.ends);
}

#[test]
fn somebody_else_is_told_and_does_not_learn_who_asked() {
    let mut world = World::of(identity(3), identity(2), identity(1).fingerprint(), true);
    world.run(Span::secs(30), &mut |_, _| 1, |_| false);
    assert!(world.arrived.is_empty());
    assert!(world.ends.contains(&End::WrongPeer(identity(3).fingerprint())), "{:?}", world.ends);
    assert!(world.client.is_empty() && world.server.is_empty());
}

#[test]
fn who_is_refused_hears_it_even_where_the_first_answer_is_lost() {
    for lost in [0, 1] {
        let mut world = World::new(false);
        let mut losing = lost;
        world.run(Span::ZERO, &mut |_, _| 1, |world| !world.heard.is_empty());
        // The answer is the next that the target says.
        let mut fate = |_, to_server: bool| match (to_server, losing) {
            (false, 1..) => {
                losing -= 1;
                0
            }
            _ => 1,
        };
        world.run(Span::secs(3), &mut fate, World::is_open);
        assert_eq!(world.heard.last().map(|heard| &heard[..]), Some(&[REFUSED][..]));
        assert_eq!((world.send(true, b"x"), world.send(false, b"x")), (0, 0));
        world.run(Span::secs(3), &mut |_, _| 1, |world| world.server.is_empty());
        assert!(world.server.is_empty());
    }
}

#[test]
fn the_end_is_told_and_silence_is_noticed() {
    let mut world = World::open();
    world.client.close(world.now, world.client_id);
    world.run(Span::ZERO, &mut |_, _| 1, |_| false);
    assert_eq!(world.ends, [End::Closed, End::Closed]);
    assert!(world.server.is_empty() && world.client.is_empty());

    let mut world = World::open();
    world.run(Span::secs(600), &mut |_, _| 1, |_| false);
    assert!(world.ends.is_empty(), "signs of life keep it open");
    world.run(Span::secs(31), &mut |_, _| 0, |_| false);
    assert_eq!(world.ends, [End::Silent(Span::secs(30)), End::Silent(Span::secs(30))]);
}

#[test]
fn who_stalls_in_the_handshake_is_dropped_in_time_and_makes_room() {
    // The target's flight gets lost again and again, so that nobody proves a key.
    let mut world = World::new(true);
    let (mut numbers, stop) = ([0; 2], 2);
    let mut fate = |number, to_server| {
        numbers[usize::from(to_server)] = number;
        usize::from(to_server || number < stop)
    };
    world.run(Span::secs(4), &mut fate, |_| false);
    assert_eq!(world.server.cost(), 1, "its address is proved, so it has its time");
    world.run(Span::secs(7), &mut fate, |_| false);
    assert!(world.server.is_empty() && world.client.is_empty());
    assert!(world.arrived.is_empty());
}

fn first_packet(of: u64) -> Bytes {
    let mut stranger = Hub::new(identity(of), LIMITS, false).unwrap();
    stranger.connect(START, address(1), identity(1).fingerprint()).unwrap();
    match stranger.poll_output() {
        Some(Output::Transmit(_, packet)) => packet,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thousand_first_packets_cost_a_bounded_number_of_places_and_keep_nobody_out() {
    let mut world = World::new(true);
    let packet = first_packet(9);
    let mut answered = 0;
    for number in 0..1000 {
        world.server.handle_packet(world.now, address(1000 + number), &packet);
        while let Some(output) = world.server.poll_output() {
            if let Output::Transmit(_, answer) = output {
                assert!(answer.len() <= packet.len(), "more comes back than was sent");
                answered += 1;
            }
        }
        assert!(world.server.cost() <= LIMITS.half_open);
    }
    assert_eq!(answered, 1000);
    world.run(Span::secs(5), &mut |_, _| 1, World::is_open);
    assert!(world.is_open());
    world.run(Span::secs(5), &mut |_, _| 1, |_| false);
    assert_eq!(world.server.cost(), 1, "only who was admitted stays");
}

/// The shortest ClientHello that is answered.
fn short_hello() -> Vec<u8> {
    let extensions = [0, 0x2b, 0, 3, 2, 0xfe, 0xfc];
    let body = [&[0xfe, 0xfd][..], &[7; 32], &[0, 0, 0, 2, 0x13, 1, 1, 0, 0, 7], &extensions].concat();
    let length = body.len() as u8;
    let header = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, length + 12];
    [&header[..], &[1, 0, 0, length, 0, 0, 0, 0, 0, 0, 0, length], &body].concat()
}

#[test]
fn an_address_that_nobody_has_proved_gets_three_times_what_came_from_it_at_most() {
    let mut server = Hub::new(identity(1), LIMITS, true).unwrap();
    let (hello, mut now, mut answered) = (short_hello(), START, 0);
    server.handle_packet(now, address(5), &hello);
    for _ in 0..100 {
        while let Some(output) = server.poll_output() {
            if let Output::Transmit(to, answer) = output {
                assert_eq!(to, address(5));
                answered += answer.len();
            }
        }
        now.time += Span::millis(50);
        server.handle_timeout(now);
    }
    assert!(answered > hello.len(), "it is answered, and more than once");
    assert!(answered <= 3 * hello.len(), "{answered} for {}", hello.len());
    assert!(server.is_empty());
}

#[test]
fn half_open_associations_of_one_network_are_bounded() {
    let mut server = Hub::new(identity(1), LIMITS, true).unwrap();
    let mut strangers: Vec<(SocketAddr, Hub)> = Vec::new();
    for number in 0..LIMITS.half_open_per_source as u16 + 3 {
        let mut hub = Hub::new(identity(9), LIMITS, false).unwrap();
        hub.connect(START, address(1), identity(1).fingerprint()).unwrap();
        strangers.push((address(100 + number), hub));
    }
    // Each shows its address and its key, and then says nothing.
    let (mut arrived, mut over) = (0, 0);
    for _ in 0..20 {
        for (at, hub) in &mut strangers {
            while let Some(Output::Transmit(_, packet)) = hub.poll_output() {
                server.handle_packet(START, *at, &packet);
            }
        }
        while let Some(output) = server.poll_output() {
            match output {
                Output::Transmit(to, packet) => {
                    let stranger = strangers.iter_mut().find(|(at, _)| *at == to);
                    stranger.unwrap().1.handle_packet(START, address(1), &packet);
                }
                Output::Arrived(..) => arrived += 1,
                Output::Over(..) => over += 1,
                _ => {}
            }
        }
    }
    assert_eq!((arrived, over), (LIMITS.half_open_per_source, 3));
    assert_eq!(server.cost(), LIMITS.half_open_per_source);
    let later = Now { time: START.time + Span::secs(11), ..START };
    server.handle_timeout(later);
    assert!(server.is_empty(), "they make room in time");
}

#[test]
fn a_peer_that_starts_anew_at_its_address_takes_the_place_of_what_it_was() {
    let mut world = World::open();
    let first = world.server_id;
    world.client = Hub::new(identity(2), LIMITS, false).unwrap();
    world.client_id = world.client.connect(world.now, address(1), identity(1).fingerprint()).unwrap();
    world.heard.clear();
    world.run(Span::secs(5), &mut |_, _| 1, World::is_open);
    assert!(world.is_open());
    assert_ne!(world.server_id, first);
    assert_eq!(world.ends, [End::Closed]);
    assert_eq!(world.server.cost(), 1);
    assert_eq!(world.send(true, b"anew"), 1);
    world.run(Span::ZERO, &mut |_, _| 1, |_| false);
    assert_eq!(world.at_server, [Bytes::from_static(b"anew")]);
}

#[test]
fn packets_that_anybody_can_make_do_not_harm_an_open_association() {
    let mut world = World::open();
    let mut alert = vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    let sealed = [&[0x2f, 0, 1, 0, 32][..], &[9; 32]].concat();
    let hello = first_packet(9);
    for packet in
        [alert.clone(), sealed.clone(), hello.to_vec(), [&sealed[..], &alert].concat(), vec![0xff; 900]]
    {
        world.server.handle_packet(world.now, address(2), &packet);
        world.client.handle_packet(world.now, address(1), &packet);
    }
    alert.extend_from_slice(&sealed);
    world.server.handle_packet(world.now, address(2), &alert);
    world.server.handle_packet(world.now, address(2), &vec![22; MAX_PACKET_BYTES + 1]);
    assert_eq!(world.send(true, b"still here"), 1);
    world.run(Span::ZERO, &mut |_, _| 1, |_| false);
    assert_eq!(world.at_server, [Bytes::from_static(b"still here")]);
}

#[test]
fn a_certificate_of_another_day_is_not_taken() {
    let mut world = World::of(identity(1), identity(2), identity(1).fingerprint(), true);
    world.now.utc = START.utc.plus_secs(3 * 86_400);
    world.run(Span::secs(11), &mut |_, _| 1, |_| false);
    assert!(!world.is_open() && world.arrived.is_empty());
    assert!(world.ends.iter().any(|end| matches!(end, End::Broken(why) if why.contains("not valid now"))));
}

#[test]
fn what_a_target_did_not_ask_for_opens_nothing() {
    let mut server = Hub::new(identity(1), LIMITS, true).unwrap();
    let mut dialler = Hub::new(identity(1), LIMITS, false).unwrap();
    for hub in [&mut server, &mut dialler] {
        hub.handle_packet(START, address(5), &[22; 500]);
        hub.handle_packet(START, address(5), &[0x2f; 500]);
        hub.handle_packet(START, address(5), &[]);
        assert!(hub.is_empty());
    }
    dialler.handle_packet(START, address(5), &first_packet(9));
    assert!(dialler.is_empty(), "who dials is not dialled");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_in_whatever_order_is_survived(
        steps in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)), 0..30),
    ) {
        let steps = steps.into_iter().flat_map(|(step, words)| {
            // One length for the words, whatever the step makes of it.
            let head = [step & 0x0f, words.len() as u8];
            head.into_iter().chain(words)
        });
        crate::fuzz::fuzz_dtls(&steps.collect::<Vec<u8>>());
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        crate::fuzz::fuzz_dtls(&bytes);
    }
}
