//! Nodes on a local network: machines behind a switch in the virtual network, and sockets on loopback.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kith_directory::client::{
    ClientConfig, Directory, DiscoverError, Freshness, Lan, LanConfig, MemoryReplay, Networks, Source,
    SourceName, Voice,
};
use kith_directory::defaults::{LAN_LOOKUP, LAN_NEIGHBOURS, LAN_SALT_LIFE, MAX_LOOKUPS};
use kith_directory::fuzz;
use kith_directory::lan::{Ask, Input, Instance, Link, Message, Nonce, Output, Salt};
use kith_directory::store::BoxFuture;
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_identity::{Fingerprint, Identity, Ni};
use kith_sansio::{Machine, Now, Rng, SeededRng, Span, Time, Timestamp, system};
use kith_vnet::{Effect, Faults, Wiring, World, for_seeds};
use proptest::prelude::*;

use crate::world::{identity, in_time, set, set_with_blobs};

/// The wall clock at which every virtual world begins.
const BEGINNING: Timestamp = Timestamp(1_767_225_600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Address {
    Switch,
    Port(u8),
}

enum Told {
    Packet(Vec<u8>),
    Link(Input),
}

enum Wanted {
    Link(Output),
    Forward(Address, Vec<u8>),
}

/// A node's link, or the switch that hands each packet to every port, the sender's too.
enum Device {
    Link(Box<Link>),
    Switch(u8, VecDeque<Wanted>),
}

impl Machine for Device {
    type Input = Told;
    type Output = Wanted;

    fn handle_input(&mut self, now: Now, input: Told, rng: &mut dyn Rng) {
        match (self, input) {
            (Device::Link(link), Told::Link(input)) => link.handle_input(now, input, rng),
            (Device::Link(link), Told::Packet(packet)) => {
                if let Some(message) = Message::read(&packet) {
                    link.handle_input(now, Input::Heard(message), rng);
                }
            }
            (Device::Switch(ports, queue), Told::Packet(packet)) => {
                queue.extend((0..*ports).map(|port| Wanted::Forward(Address::Port(port), packet.clone())));
            }
            (Device::Switch(..), Told::Link(_)) => {}
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        if let Device::Link(link) = self {
            link.handle_timeout(now, rng);
        }
    }

    fn poll_output(&mut self) -> Option<Wanted> {
        match self {
            Device::Link(link) => link.poll_output().map(Wanted::Link),
            Device::Switch(_, queue) => queue.pop_front(),
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self {
            Device::Link(link) => link.poll_timeout(),
            Device::Switch(..) => None,
        }
    }
}

#[derive(Default)]
struct Wires {
    /// What the node at a port says of itself.
    sets: HashMap<Address, VerifiedRecordSet>,
    /// Everything that was sent.
    capture: Vec<Vec<u8>>,
    asked: usize,
}

#[derive(Debug)]
struct Found(u64, RecordSet);

impl Wiring for Wires {
    type Machine = Device;
    type Address = Address;
    type Message = Vec<u8>;
    type Event = Found;

    fn input(&mut self, _: Address, packet: Vec<u8>) -> Told {
        Told::Packet(packet)
    }

    fn effect(&mut self, at: &Address, output: Wanted) -> Effect<Self> {
        match output {
            Wanted::Forward(to, packet) => Effect::Send(to, packet),
            Wanted::Link(Output::Send(packet)) => {
                self.capture.push(packet.clone());
                Effect::Send(Address::Switch, packet)
            }
            Wanted::Link(Output::Say(question)) => {
                self.asked += 1;
                let set = self.sets.get(at).map(VerifiedRecordSet::to_bytes);
                Effect::Later(Span::millis(3), Told::Link(Input::Said { question, set }))
            }
            Wanted::Link(Output::Found { search, set }) => Effect::Event(Found(search, set)),
        }
    }
}

/// Nodes with the identities 0, 1, 2 … on one network; the first `shown` of them show themselves.
fn lan(seed: u64, faults: Faults, nodes: u8, shown: u8) -> World<Wires> {
    let mut world = World::new(seed, faults, Wires::default());
    world.start(&Address::Switch, Device::Switch(nodes, VecDeque::new()));
    for node in 0..nodes {
        let at = Address::Port(node);
        world.start(&at, Device::Link(Box::new(Link::new())));
        if node < shown {
            let who = identity(node.into());
            world.wiring().sets.insert(at, set(&who, BEGINNING, 80_000));
            world.input(&at, Told::Link(Input::Show(who.fingerprint())));
        }
    }
    world
}

fn seek(world: &mut World<Wires>, from: u8, search: u64, target: Fingerprint) {
    world.input(&Address::Port(from), Told::Link(Input::Seek { search, target }));
}

fn found(world: &World<Wires>, search: u64) -> Option<&RecordSet> {
    world.events().iter().map(|(_, _, event)| event).find(|found| found.0 == search).map(|found| &found.1)
}

fn name_at(world: &World<Wires>, port: u8) -> Instance {
    match world.machine(&Address::Port(port)) {
        Some(Device::Link(link)) => link.instance().unwrap(),
        _ => panic!("no link"),
    }
}

#[test]
fn a_node_is_found_within_the_time_of_a_lookup_whoever_was_there_first() {
    for_seeds(0..20, |seed| {
        let mut world = lan(seed, Faults::none(Span::millis(2)), 3, 2);
        let target = identity(1).fingerprint();
        // Before the node has said that it is there, and long after.
        for (search, at) in [(1, Time(0)), (2, Time(30_000_000)), (3, Time(600_000_000))] {
            world.run_until(at);
            seek(&mut world, 2, search, target);
            assert!(world.run_until_true(LAN_LOOKUP, |world| found(world, search).is_some()), "{search}");
            let set = found(&world, search).unwrap().clone();
            assert!(set.verify(&target, BEGINNING).is_ok());
            world.input(&Address::Port(2), Told::Link(Input::Forget(search)));
        }
    });
}

#[test]
fn on_a_bad_network_a_search_that_goes_on_finds_its_node() {
    for_seeds(0..30, |seed| {
        let mut world = lan(seed, Faults::harsh(), 4, 4);
        seek(&mut world, 0, 1, identity(3).fingerprint());
        assert!(world.run_until_true(Span::secs(60), |world| found(world, 1).is_some()));
    });
}

#[test]
fn a_set_of_many_pieces_arrives_whole() {
    for_seeds(0..10, |seed| {
        let mut world = lan(seed, Faults::none(Span::millis(1)), 2, 2);
        let large = set_with_blobs(&identity(1), BEGINNING, &[4000, 4000, 4000, 3000]);
        world.wiring().sets.insert(Address::Port(1), large.clone());
        seek(&mut world, 0, 1, identity(1).fingerprint());
        assert!(world.run_until_true(LAN_LOOKUP, |world| found(world, 1).is_some()));
        assert_eq!(found(&world, 1).unwrap().to_bytes(), large.to_bytes());
    });
}

#[test]
fn whoever_is_not_there_is_not_found_and_nobody_is_asked_for_a_set() {
    let mut world = lan(1, Faults::none(Span::millis(1)), 4, 3);
    seek(&mut world, 3, 1, identity(77).fingerprint());
    world.run_until(Time(20_000_000));
    assert!(found(&world, 1).is_none());
    assert_eq!(world.wiring().asked, 0, "a name was taken for another");
}

#[test]
fn a_stranger_s_question_and_one_that_is_played_again_get_nothing() {
    let mut world = lan(3, Faults::none(Span::millis(1)), 3, 1);
    let target = identity(0).fingerprint();
    world.run_until(Time(5_000_000));
    seek(&mut world, 1, 1, target);
    assert!(world.run_until_true(LAN_LOOKUP, |world| found(world, 1).is_some()));
    let asked = world.wiring().asked;
    let heard = world.wiring().capture.clone();
    let questions: Vec<_> = heard
        .iter()
        .filter_map(|packet| match Message::read(packet)? {
            Message::Query(query) => query.asks.first().copied(),
            Message::Response(_) => None,
        })
        .collect();
    assert!(!questions.is_empty());
    let real = questions[0];
    let strangers = [
        Ask { mac: [0; 16], ..real },
        Ask { nonce: Nonce([1; 16]), ..real },
        Ask::new(&identity(9).fingerprint(), &Salt([1; 16]), Nonce([2; 16])),
        // Played again as it was.
        real,
    ];
    for ask in strangers {
        let query = kith_directory::lan::Query { asks: vec![ask], ..Default::default() };
        world.input(&Address::Port(0), Told::Link(Input::Heard(Message::Query(query))));
    }
    world.run_until(Time(20_000_000));
    assert_eq!(world.wiring().asked, asked);
}

#[test]
fn names_change_with_the_hour_differ_by_network_and_the_node_is_found_under_each() {
    let mut world = lan(4, Faults::none(Span::millis(1)), 2, 2);
    let target = identity(1).fingerprint();
    let first = name_at(&world, 1);
    let elsewhere = name_at(&lan(5, Faults::none(Span::millis(1)), 2, 2), 1);
    assert_ne!(first, elsewhere, "two networks, one salt");
    world.run_until(Time(LAN_SALT_LIFE.0 - 1_000_000));
    assert_eq!(name_at(&world, 1), first);
    world.run_until(Time(LAN_SALT_LIFE.0 + 5_000_000));
    let second = name_at(&world, 1);
    assert_ne!(first, second);
    seek(&mut world, 0, 1, target);
    assert!(world.run_until_true(LAN_LOOKUP, |world| found(world, 1).is_some()));
    let said = |name: &Instance| {
        let text = name.to_string();
        move |packet: &&Vec<u8>| packet.windows(32).any(|part| part == text.as_bytes())
    };
    let capture = &world.wiring().capture;
    assert!(capture.iter().any(|packet| said(&first)(&packet)));
    assert!(capture.iter().any(|packet| said(&second)(&packet)));
}

#[test]
fn the_hour_ends_by_the_wall_clock_too_for_computers_that_sleep() {
    let mut rng = SeededRng::new(1);
    let mut link = Link::new();
    let at = |time, utc| Now { time: Time(time), utc: Timestamp(utc) };
    link.handle_input(at(0, 1_000_000), Input::Show(identity(1).fingerprint()), &mut rng);
    let first = link.instance().unwrap();
    link.handle_timeout(at(5_000_000, 1_000_005), &mut rng);
    assert_eq!(link.instance(), Some(first));
    link.handle_timeout(at(6_000_000, 1_000_000 + LAN_SALT_LIFE.as_secs()), &mut rng);
    assert_ne!(link.instance(), Some(first));
}

/// Every eight bytes in a row of `secret`, raw and as people write bytes.
fn traces(secret: &[u8]) -> Vec<Vec<u8>> {
    let whole = |text: String| text.into_bytes();
    let mut all = vec![secret.to_vec()];
    for at in 0..=secret.len() - 8 {
        let part = &secret[at..at + 8];
        all.push(part.to_vec());
        all.push(whole(hex(part)));
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_said_on_a_network_holds_nothing_of_fingerprint_key_or_addresses() {
    let mut world = lan(6, Faults::none(Span::millis(1)), 3, 3);
    for (search, from, to) in [(1, 0, 1), (2, 1, 2), (3, 2, 0)] {
        seek(&mut world, from, search, identity(to).fingerprint());
    }
    world.run_until(Time(2 * LAN_SALT_LIFE.0));
    assert_eq!(world.events().len(), 3);
    let capture: Vec<Vec<u8>> =
        world.wiring().capture.iter().map(|packet| packet.to_ascii_lowercase()).collect();
    for seed in 0..3 {
        let who: Identity = identity(seed);
        let secrets = [
            who.fingerprint().as_bytes().to_vec(),
            who.public().spki()[12..].to_vec(),
            b"192.0.2.1".to_vec(),
        ];
        for trace in secrets.iter().flat_map(|secret| traces(secret)) {
            let trace = trace.to_ascii_lowercase();
            let holds = |packet: &Vec<u8>| packet.windows(trace.len()).any(|part| part == trace);
            assert!(!capture.iter().any(holds), "{trace:02x?}");
        }
    }
}

#[test]
fn a_node_that_takes_its_leave_is_forgotten_at_once() {
    let mut world = lan(7, Faults::none(Span::millis(1)), 2, 2);
    world.run_until(Time(5_000_000));
    world.input(&Address::Port(1), Told::Link(Input::Leave));
    world.run_until(Time(6_000_000));
    let before = world.wiring().capture.len();
    seek(&mut world, 0, 1, identity(1).fingerprint());
    world.run_until(Time(6_500_000));
    let asks = world.wiring().capture[before..].iter().filter(
        |packet| matches!(Message::read(packet), Some(Message::Query(query)) if !query.asks.is_empty()),
    );
    assert_eq!(asks.count(), 0, "it was asked for under a name that is gone");
}

#[test]
fn a_flood_of_names_pushes_out_old_ones_and_nothing_else_grows() {
    let mut rng = SeededRng::new(1);
    let mut link = Link::new();
    let now = Now { time: Time(0), utc: BEGINNING };
    link.handle_input(now, Input::Seek { search: 1, target: identity(1).fingerprint() }, &mut rng);
    for _ in 0..10 * LAN_NEIGHBOURS {
        let seen = kith_directory::lan::Seen {
            instance: Instance(Nonce::draw(&mut rng).0),
            salt: Salt::draw(&mut rng),
            ttl_secs: 120,
        };
        let response = kith_directory::lan::Response { seen: vec![seen], ..Default::default() };
        link.handle_input(now, Input::Heard(Message::Response(response)), &mut rng);
    }
    let outputs = std::iter::from_fn(|| link.poll_output()).count();
    assert_eq!(outputs, 1, "the question who is there");
    let text = format!("{link:?}");
    assert_eq!(text.matches("Neighbour {").count(), LAN_NEIGHBOURS);
}

#[test]
fn a_forged_set_of_somebody_who_knows_the_fingerprint_does_not_end_the_search() {
    let mut world = lan(8, Faults::none(Span::millis(1)), 3, 2);
    let target = identity(1).fingerprint();
    // Port 0 claims to be identity 1, with a set of its own.
    world.input(&Address::Port(0), Told::Link(Input::Show(target)));
    seek(&mut world, 2, 1, target);
    assert!(world.run_until_true(Span::secs(10), |world| found(world, 1).is_some()));
    assert!(found(&world, 1).unwrap().clone().verify(&target, BEGINNING).is_ok());
}

proptest! {
    #[test]
    fn any_packet_leaves_a_link_in_order(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz::fuzz_lan_packet(&data);
    }
}

struct Says(VerifiedRecordSet);

impl Voice for Says {
    fn said(&self) -> BoxFuture<'_, Option<VerifiedRecordSet>> {
        let set = self.0.clone();
        Box::pin(async move { Some(set) })
    }
}

fn finder(lan: Lan) -> Directory {
    let config = ClientConfig { lan: Some(lan), ..ClientConfig::default() };
    Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()))
}

/// On loopback, at a port that nobody else multicasts to.
fn loopback(port: u16) -> Lan {
    Lan::start(LanConfig { networks: Networks::Loopback, port, ..LanConfig::default() })
}

fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_node_on_the_same_network_is_discovered_without_any_directory() {
    let port = free_port();
    let alice = identity(1);
    let said = set(&alice, system::utc(), 600);
    let own = loopback(port);
    assert_eq!(own.networks(), ["lo"]);
    own.show(alice.fingerprint(), Arc::new(Says(said.clone()))).await;
    let directory = finder(loopback(port));
    let ni = Ni::new(alice.fingerprint(), None);
    let found = in_time(async {
        loop {
            // A packet may be lost on a loaded machine.
            if let Ok(found) = directory.discover(&ni, Freshness::Refetch).await {
                return found;
            }
        }
    })
    .await;
    assert_eq!((found.set, found.verified_by), (said, SourceName::Lan));
    own.leave().await;
    let gone = directory.discover(&ni, Freshness::Refetch).await.unwrap_err();
    let DiscoverError::NoAnswer { failures, .. } = gone else { panic!("{gone:?}") };
    assert!(failures[0].why.to_string().contains("local network"), "{failures:?}");
}

#[tokio::test]
async fn a_set_older_than_one_that_was_seen_is_refused_from_the_network_too() {
    let port = free_port();
    let alice = identity(2);
    let now = system::utc();
    let own = loopback(port);
    own.show(alice.fingerprint(), Arc::new(Says(set(&alice, now.minus_secs(60), 600)))).await;
    let directory = finder(loopback(port));
    let newer = set(&alice, system::utc(), 3);
    let ni = Ni::new(alice.fingerprint(), None);
    directory.offer(RecordSet::from_bytes(&newer.to_bytes()).unwrap(), &alice.fingerprint()).unwrap();
    // Until the newer one has ended, it is the answer; afterwards there is none.
    in_time(async {
        loop {
            match directory.discover(&ni, Freshness::Refetch).await {
                Ok(found) => assert_eq!(found.set, newer),
                Err(DiscoverError::Refused { from, .. }) => return assert_eq!(from, SourceName::Lan),
                Err(_) => {}
            }
        }
    })
    .await;
}

#[tokio::test]
async fn lookups_that_nobody_waits_for_any_more_take_no_places() {
    let port = free_port();
    let alice = identity(3);
    let own = loopback(port);
    own.show(alice.fingerprint(), Arc::new(Says(set(&alice, system::utc(), 600)))).await;
    let seeking = loopback(port);
    let lookup = |who: &Identity| seeking.lookup(Ni::new(who.fingerprint(), None));
    let nobody = identity(4);
    let all = (0..MAX_LOOKUPS).map(|_| lookup(&nobody));
    let all = futures_util::future::join_all(all);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), all).await.is_err(), "they wait");
    assert!(in_time(lookup(&alice)).await.unwrap().is_some());
}
