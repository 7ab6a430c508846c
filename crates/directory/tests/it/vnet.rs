//! Announcers, lookups and caches in the virtual network, with a directory that comes and goes, resolvers that lie,
//! pushes that come late, and clocks that are wrong.

mod client;
mod directory;
mod publisher;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use kith_directory::defaults::{ANNOUNCE, ANNOUNCE_GAP, BACKOFF_LAST};
use kith_directory::replay::Seen;
use kith_identity::record::{CLOCK_SKEW_SECS, RecordSet, VerifiedRecordSet};
use kith_identity::{Fingerprint, PublicKey};
use kith_sansio::{Machine, Now, Rng, Span, Time, Timestamp};
use kith_vnet::{Act, Faults, Peers, World, for_seeds};

use crate::world::identity;
use client::Client;
use directory::{Directory, MODES, Mode, Resolver};
use publisher::Publisher;

const PUBLISHERS: u8 = 2;
const RESOLVERS: u8 = 3;
const CLIENTS: u8 = 2;
/// After this time of being up and reachable a directory holds what is to be said: the longest pause, and one
/// attempt that was under way.
const LONG_ENOUGH: Span = Span(BACKOFF_LAST.0 + 2 * ANNOUNCE.0);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Address {
    Publisher(u8),
    Directory,
    Resolver(u8),
    Client(u8),
}

/// Shared bytes that do not fill the trace.
#[derive(Clone, PartialEq, Eq)]
struct Bytes(Rc<[u8]>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(bytes.into())
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[derive(Clone, Debug)]
enum Message {
    Put { life: u64, attempt: u64, key: Box<PublicKey>, named: Fingerprint, body: Bytes },
    PutAnswer { life: u64, attempt: u64, status: u16, pause: Option<Span> },
    Get { question: u64, fingerprint: Fingerprint },
    Answer { question: u64, fingerprint: Fingerprint, said: Said },
    Push(Fingerprint, Bytes),
}

#[derive(Clone, Debug)]
enum Said {
    Set(Bytes),
    Nothing,
}

/// What a node tells the test.
#[derive(Clone)]
enum Told {
    /// A set was signed, for an attempt that starts now.
    Signed(VerifiedRecordSet),
    Finished,
    Looked(Fingerprint, Option<VerifiedRecordSet>),
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Told::Signed(set) => write!(f, "that it signed a set of {}", set.timestamp()),
            Told::Finished => f.write_str("that it ended"),
            Told::Looked(_, None) => f.write_str("that it found nothing"),
            Told::Looked(_, Some(set)) => write!(f, "that it found a set of {}", set.timestamp()),
        }
    }
}

type Out = Act<Address, Message, Told>;

enum Input {
    From(Address, Message),
    Change,
    Withdraw,
    LookUp(Fingerprint),
    Behave(Mode),
    Busy(u64),
}

impl From<(Address, Message)> for Input {
    fn from((from, message): (Address, Message)) -> Input {
        Input::From(from, message)
    }
}

enum Node {
    Publisher(Box<Publisher>),
    Directory(Box<Directory>),
    Resolver(Box<Resolver>),
    Client(Box<Client>),
}

impl Machine for Node {
    type Input = Input;
    type Output = Out;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match (self, input) {
            (Node::Publisher(node), Input::Change) => node.change(now, rng),
            (Node::Publisher(node), Input::Withdraw) => node.withdraw(now, rng),
            (Node::Publisher(node), Input::From(_, Message::PutAnswer { life, attempt, status, pause })) => {
                node.put_answer(now, life, attempt, status < 300, pause, rng);
            }
            (Node::Directory(node), Input::Busy(busy)) => node.busy = busy,
            (Node::Directory(node), Input::From(from, message)) => node.message(now, from, message, rng),
            (Node::Resolver(node), Input::Behave(mode)) => node.mode = mode,
            (Node::Resolver(node), Input::From(from, message)) => node.message(now, from, message),
            (Node::Client(node), Input::LookUp(fingerprint)) => node.look_up(now, fingerprint),
            (Node::Client(node), Input::From(from, message)) => node.message(now, &from, message, rng),
            _ => panic!("an input for another kind of node"),
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        match self {
            Node::Publisher(node) => node.timeout(now, rng),
            Node::Client(node) => node.timeout(now, rng),
            Node::Directory(_) | Node::Resolver(_) => {}
        }
    }

    fn poll_output(&mut self) -> Option<Out> {
        match self {
            Node::Publisher(node) => node.poll_output(),
            Node::Directory(node) => node.poll_output(),
            Node::Resolver(node) => node.poll_output(),
            Node::Client(node) => node.poll_output(),
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self {
            Node::Publisher(node) => node.poll_timeout(),
            Node::Client(node) => node.poll_timeout(),
            Node::Directory(_) | Node::Resolver(_) => None,
        }
    }
}

/// A zone and its people, over hours.
struct Zone {
    world: World<Peers<Node>>,
    fingerprints: Vec<Fingerprint>,
    everybody: Vec<Address>,
    skew_of_directory: i64,
    /// Since when everything is up and joined, and nobody has something new to say.
    good_since: Time,
    /// When publishers started again.
    starts: Vec<(Address, Time)>,
}

impl Zone {
    fn new(seed: u64, faults: Faults) -> Zone {
        let mut world = World::new(seed, faults, Peers::default());
        let everybody: Vec<Address> = (0..PUBLISHERS)
            .map(Address::Publisher)
            .chain([Address::Directory])
            .chain((0..RESOLVERS).map(Address::Resolver))
            .chain((0..CLIENTS).map(Address::Client))
            .collect();
        let sources: Vec<Address> =
            (0..RESOLVERS).map(Address::Resolver).chain([Address::Directory]).collect();
        let clients: Vec<Address> = (0..CLIENTS).map(Address::Client).collect();
        let mut fingerprints = Vec::new();
        for address in &everybody {
            let node = match address {
                Address::Publisher(number) => {
                    let who = identity(u64::from(*number) + 1);
                    fingerprints.push(who.fingerprint());
                    let ttl = 300 + world.chance().below(3000) as u32;
                    Node::Publisher(Publisher::new(who, ttl, clients.clone()).into())
                }
                Address::Directory => Node::Directory(Directory::new().into()),
                Address::Resolver(_) => Node::Resolver(Resolver::new(Mode::Honest).into()),
                Address::Client(_) => Node::Client(Client::new(sources.clone()).into()),
            };
            world.start(address, node);
        }
        let (good_since, starts) = (Time(0), Vec::new());
        let mut zone = Zone { world, fingerprints, everybody, skew_of_directory: 0, good_since, starts };
        zone.skew();
        (0..PUBLISHERS).for_each(|number| zone.world.input(&Address::Publisher(number), Input::Change));
        zone
    }

    /// Clocks that are wrong by as much as may be between any two nodes.
    fn skew(&mut self) {
        let most = CLOCK_SKEW_SECS as i64;
        let publishers_alone = self.world.chance().below(2) == 0;
        for address in self.everybody.clone() {
            let skew = match address {
                Address::Publisher(_) if publishers_alone => self.draw(most),
                _ if publishers_alone => 0,
                _ => self.draw(most / 2),
            };
            if address == Address::Directory {
                self.skew_of_directory = skew;
            }
            self.world.set_skew(&address, skew);
        }
    }

    fn draw(&mut self, most: i64) -> i64 {
        self.world.chance().below(2 * most as u64 + 1) as i64 - most
    }

    fn pick(&mut self, count: u8) -> u8 {
        self.world.chance().below(count.into()) as u8
    }

    /// Lets a random time pass, with some lookups in it.
    fn pass(&mut self, at_most: Span) {
        let end = self.world.now() + Span(self.world.chance().below(at_most.0));
        for _ in 0..1 + self.world.chance().below(3) {
            let pause = Span(self.world.chance().below(at_most.0 / 3));
            self.world.run_until((self.world.now() + pause).min(end));
            let client = Address::Client(self.pick(CLIENTS));
            let wanted = self.pick(PUBLISHERS);
            self.world.input(&client, Input::LookUp(self.fingerprints[usize::from(wanted)]));
        }
        self.world.run_until(end);
    }

    /// One change for the better or the worse.
    fn happen(&mut self) {
        match self.world.chance().below(8) {
            0 => {
                let publisher = Address::Publisher(self.pick(PUBLISHERS));
                self.world.input(&publisher, Input::Change);
                self.good_since = self.world.now();
            }
            1 => self.restart(Address::Directory, Span::secs(3600)),
            2 => {
                let publisher = Address::Publisher(self.pick(PUBLISHERS));
                self.restart(publisher, Span::secs(1000));
                self.world.input(&publisher, Input::Change);
            }
            3 => {
                let client = Address::Client(self.pick(CLIENTS));
                self.restart(client, Span::secs(1000));
            }
            4 => self.part(),
            5 => {
                let busy = self.world.chance().below(10);
                self.world.input(&Address::Directory, Input::Busy(busy));
                self.pass(Span::secs(2000));
                self.world.input(&Address::Directory, Input::Busy(0));
                self.good_since = self.world.now();
            }
            _ => {
                let resolver = Address::Resolver(self.pick(RESOLVERS));
                let mode = MODES[usize::from(self.pick(MODES.len() as u8))];
                self.world.input(&resolver, Input::Behave(mode));
            }
        }
    }

    /// Takes a node down, and starts it again from what it had stored.
    fn restart(&mut self, address: Address, down: Span) {
        let node = self.world.crash(&address).expect("it was up");
        self.pass(down);
        let node = match node {
            Node::Publisher(old) => Node::Publisher(old.again().into()),
            Node::Directory(old) => Node::Directory(old.again().into()),
            Node::Client(old) => Node::Client(old.again().into()),
            Node::Resolver(old) => Node::Resolver(old),
        };
        self.world.start(&address, node);
        self.starts.push((address, self.world.now()));
        self.good_since = self.world.now();
    }

    fn part(&mut self) {
        let mut sides = (Vec::new(), Vec::new());
        for address in self.everybody.clone() {
            if self.pick(2) == 0 { sides.0.push(address) } else { sides.1.push(address) }
        }
        self.world.network().partition_groups(&sides.0, &sides.1);
        self.pass(Span::secs(2000));
        self.world.network().heal();
        self.good_since = self.world.now();
    }

    /// What the directory gives out of a publisher.
    fn held(&self, publisher: u8) -> Option<RecordSet> {
        let Some(Node::Directory(directory)) = self.world.machine(&Address::Directory) else { panic!("up") };
        let utc = Timestamp(
            (1_767_225_600 + self.world.now().0 / 1_000_000).saturating_add_signed(self.skew_of_directory),
        );
        let held = directory.held(utc, &self.fingerprints[usize::from(publisher)])?;
        Some(RecordSet::from_json(&held.0).unwrap())
    }

    /// What a publisher wants to be known.
    fn wanted(&self, publisher: u8) -> Vec<kith_identity::Address> {
        let Some(Node::Publisher(node)) = self.world.machine(&Address::Publisher(publisher)) else {
            panic!("up")
        };
        vec![format!("quic://192.0.2.1:{}", node.port).parse().unwrap()]
    }

    fn assert_current(&self) {
        for publisher in 0..PUBLISHERS {
            let held = self.held(publisher).expect("the directory has a valid set");
            let address = held.records(&kith_identity::record::Kind::ADDRESS).next().unwrap().to_vec();
            assert_eq!(String::from_utf8(address).unwrap(), self.wanted(publisher)[0].to_string());
        }
    }

    /// What must hold of everything that happened.
    fn check(&self) {
        let mut signed: HashSet<[u8; 32]> = HashSet::new();
        let mut last: HashMap<Address, (Time, Timestamp)> = HashMap::new();
        for (at, address, told) in self.world.events() {
            match told {
                Told::Signed(set) => {
                    signed.insert(Seen::of(set).digest);
                    if let Some((then, before)) = last.insert(*address, (*at, set.timestamp())) {
                        assert!(set.timestamp() > before, "timestamps of {address:?} strictly increase");
                        self.check_gap(*address, then, *at, set.ttl_secs());
                    }
                }
                Told::Looked(fingerprint, Some(set)) => {
                    assert_eq!(set.fingerprint(), *fingerprint);
                    assert!(signed.contains(&Seen::of(set).digest), "what is found was signed by its owner");
                }
                Told::Looked(_, None) | Told::Finished => {}
            }
        }
    }

    /// Attempts are never too close, and never further apart than the longest pause or half a ttl.
    fn check_gap(&self, address: Address, then: Time, at: Time, ttl: u32) {
        let restarted = self.starts.iter().any(|(who, start)| *who == address && (then..=at).contains(start));
        if !restarted {
            let most = Span(ANNOUNCE.0 + BACKOFF_LAST.0.max(u64::from(ttl) * 500_000));
            assert!(at - then >= ANNOUNCE_GAP && at - then <= most, "{} between two attempts", at - then);
        }
    }
}

fn bad() -> Faults {
    Faults { drop_permille: 50, delay: Span::millis(5)..=Span::millis(900), ..Faults::harsh() }
}

#[test]
fn sets_become_current_and_nobody_is_given_a_wrong_or_older_one() {
    for_seeds(0..150, |seed| {
        let mut zone = Zone::new(seed, bad());
        for _ in 0..zone.world.chance().below(25) {
            zone.happen();
            zone.pass(Span::secs(600));
        }
        zone.world.network().set_faults(Faults::none(Span::millis(20)));
        for number in 0..RESOLVERS {
            zone.world.input(&Address::Resolver(number), Input::Behave(Mode::Honest));
        }
        zone.world.run_until(zone.world.now() + LONG_ENOUGH);
        zone.assert_current();
        // Resolvers may give what they remember for another minute.
        zone.world.run_until(zone.world.now() + Span::secs(60));
        let before = zone.world.events().len();
        for client in 0..CLIENTS {
            for fingerprint in zone.fingerprints.clone() {
                zone.world.input(&Address::Client(client), Input::LookUp(fingerprint));
            }
        }
        zone.world.run_until(zone.world.now() + Span::secs(6));
        zone.check();
        let looked = zone.world.events()[before..].iter().filter_map(|(_, _, told)| match told {
            Told::Looked(_, found) => Some(found.as_ref().expect("it is found").addresses()),
            _ => None,
        });
        let looked: Vec<_> = looked.collect();
        let wanted: Vec<_> = (0..PUBLISHERS).map(|publisher| zone.wanted(publisher)).collect();
        assert_eq!(looked.len(), usize::from(PUBLISHERS * CLIENTS));
        assert!(looked.iter().all(|addresses| wanted.contains(addresses)), "{looked:?}");
    });
}

/// Without losses it is not left to chance: whatever went on before, it takes no longer than the longest pause.
#[test]
fn a_directory_that_is_up_long_enough_holds_what_is_to_be_said() {
    let (mut seeds, mut looks) = (0, 0);
    for_seeds(0..100, |seed| {
        let mut zone = Zone::new(seed, Faults { drop_permille: 0, ..bad() });
        seeds += 1;
        for _ in 0..20 {
            zone.happen();
            zone.pass(Span::secs(900));
            if zone.world.now() - zone.good_since >= LONG_ENOUGH {
                zone.assert_current();
                looks += 1;
            }
        }
        zone.check();
    });
    assert!(seeds == 1 || looks > 0, "it was up long enough now and then");
}

#[test]
fn a_withdrawal_ends_in_time_and_where_the_directory_hears_it_no_address_stays() {
    for_seeds(0..60, |seed| {
        let mut zone = Zone::new(seed, Faults { drop_permille: 0, ..bad() });
        zone.pass(Span::secs(1000));
        zone.happen();
        let down = seed % 2 == 0;
        if down {
            zone.world.crash(&Address::Directory);
        }
        let before = zone.world.now();
        (0..PUBLISHERS).for_each(|number| zone.world.input(&Address::Publisher(number), Input::Withdraw));
        // Two attempts, the one under way, and the pauses between them.
        zone.world.run_until_quiet(Span(3 * ANNOUNCE.0 + 3_000_000)).expect("it ends");
        let finished = zone
            .world
            .events()
            .iter()
            .filter(|(at, _, told)| *at >= before && matches!(told, Told::Finished));
        assert_eq!(finished.count(), usize::from(PUBLISHERS));
        if !down {
            for publisher in 0..PUBLISHERS {
                let held = zone.held(publisher).expect("a set without addresses");
                assert_eq!(held.records(&kith_identity::record::Kind::ADDRESS).count(), 0);
            }
        }
    });
}

#[test]
fn equal_seeds_give_equal_zones() {
    let run = |seed| {
        let mut zone = Zone::new(seed, bad());
        (0..8).for_each(|_| zone.happen());
        zone.check();
        zone.world.digest()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
