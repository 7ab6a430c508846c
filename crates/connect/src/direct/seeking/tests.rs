use std::collections::{BTreeMap, HashMap, HashSet};

use kith_sansio::{SeededRng, Timestamp};

use super::*;
use crate::Interface;
use crate::direct::limits::PROBE_AT;

fn at(span: Span) -> Now {
    Now { time: Time(1_000_000) + span, utc: Timestamp(1_800_000_000) }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn place(candidates: &[&str]) -> Place {
    let own = |ip: &str| Interface { ip: ip.parse().unwrap(), prefix_bits: 24 };
    let vantage = Vantage { loopback_only: false, interfaces: vec![own("127.0.0.1"), own("192.168.7.5")] };
    Place { candidates: candidates.iter().copied().map(address).collect(), vantage, v4: true, v6: false }
}

fn side(side: Side) -> Seeking {
    Seeking::new(at(Span::ZERO), side, place(&["198.51.100.1:7"]), &mut SeededRng::new(1))
}

fn told(seeking: &mut Seeking, when: Span, input: Input) -> Vec<Output> {
    seeking.handle_input(at(when), input, &mut SeededRng::new(2));
    drained(seeking)
}

fn drained(seeking: &mut Seeking) -> Vec<Output> {
    std::iter::from_fn(|| seeking.poll_output()).collect()
}

const THEIRS: Token = Token::from_bytes([9; 16]);

fn said(wants_answer: bool, addresses: &[&str]) -> Input {
    let addresses = addresses.iter().copied().map(address).collect();
    Input::Heard(Candidates { wants_answer, token: THEIRS, addresses })
}

fn probed(outputs: &[Output]) -> Vec<SocketAddr> {
    let ask = Probe { token: THEIRS, kind: Kind::Ask };
    let asks = outputs.iter().filter_map(|one| match one {
        Output::Probe(to, probe) if *probe == ask => Some(*to),
        _ => None,
    });
    asks.collect()
}

/// Lets time go by until `until`; what was done meanwhile.
fn run(seeking: &mut Seeking, until: Span) -> Vec<Output> {
    let mut all = Vec::new();
    while let Some(next) = seeking.poll_timeout().filter(|next| *next <= at(until).time) {
        let now = Now { time: next, ..at(until) };
        seeking.handle_timeout(now, &mut SeededRng::new(2));
        all.extend(drained(seeking));
    }
    all
}

#[test]
fn the_target_asks_first_and_the_initiator_answers() {
    let (mut target, mut initiator) = (side(Side::Target), side(Side::Initiator));
    let asked = drained(&mut target);
    let [Output::Say(said)] = &asked[..] else { panic!("{asked:?}") };
    assert!(said.wants_answer && said.addresses == [address("198.51.100.1:7")]);
    assert_eq!(drained(&mut initiator), []);
    let answered = told(&mut initiator, Span::ZERO, super::Input::Heard(said.clone()));
    let [Output::Say(answer)] = &answered[..] else { panic!("its own address is not probed: {answered:?}") };
    assert!(!answer.wants_answer);
}

#[test]
fn each_candidate_is_probed_seven_times_within_three_seconds() {
    let mut target = side(Side::Target);
    drained(&mut target);
    let mut all = told(&mut target, Span::ZERO, said(false, &["8.8.8.8:1", "8.8.8.8:2", "8.8.8.8:1"]));
    all.extend(run(&mut target, *PROBE_AT.last().unwrap()));
    let probes = probed(&all);
    assert_eq!(probes.len(), 2 * PROBE_AT.len());
    for to in ["8.8.8.8:1", "8.8.8.8:2"] {
        assert_eq!(probes.iter().filter(|one| **one == address(to)).count(), PROBE_AT.len());
    }
    assert_eq!(run(&mut target, Span::secs(3_600)), []);
}

#[test]
fn what_this_node_would_not_dial_is_neither_probed_nor_answered() {
    let mut target = side(Side::Target);
    drained(&mut target);
    let foreign = [
        "127.0.0.1:9",
        "224.0.0.1:9",
        "0.0.0.0:9",
        "255.255.255.255:9",
        "169.254.1.1:9",
        "169.254.169.254:80",
        "10.0.0.1:9",
        "192.168.8.1:9",
        "8.8.8.8:0",
        "[2600::1]:9",
        "198.51.100.1:7",
    ];
    let outputs = told(&mut target, Span::ZERO, said(false, &foreign));
    assert_eq!(outputs, []);
    for from in foreign {
        assert_eq!(told(&mut target, Span::ZERO, Input::Probed(Kind::Ask, address(from))), []);
    }
    let good = told(&mut target, Span::ZERO, said(true, &["192.168.7.9:9", "8.8.8.8:9"]));
    assert_eq!(probed(&good).len(), 2);
}

#[test]
fn a_node_on_loopback_probes_nothing_else() {
    let mut here = place(&["127.0.0.1:7"]);
    here.vantage.loopback_only = true;
    let mut target = Seeking::new(at(Span::ZERO), Side::Target, here, &mut SeededRng::new(1));
    drained(&mut target);
    let outputs = told(&mut target, Span::ZERO, said(false, &["8.8.8.8:9", "192.168.7.9:9", "127.0.0.1:9"]));
    assert_eq!(probed(&outputs), [address("127.0.0.1:9")]);
}

#[test]
fn probes_before_the_peer_has_said_where_it_is_have_no_effect() {
    let mut initiator = side(Side::Initiator);
    assert_eq!(told(&mut initiator, Span::ZERO, Input::Probed(Kind::Ask, address("8.8.8.8:9"))), []);
}

#[test]
fn answers_and_strays_have_a_limit() {
    let mut initiator = side(Side::Initiator);
    told(&mut initiator, Span::ZERO, said(true, &[]));
    let mut outputs = Vec::new();
    for port in 1..1_000 {
        let from = SocketAddr::new([8, 8, 8, 8].into(), port);
        outputs.extend(told(&mut initiator, Span::ZERO, Input::Probed(Kind::Ask, from)));
    }
    assert_eq!(probed(&outputs).len(), MAX_STRAYS);
    assert_eq!(outputs.len(), MAX_STRAYS + MAX_ANSWERS as usize);
}

#[test]
fn a_path_is_opened_to_the_first_address_that_answers_and_to_the_next_where_that_fails() {
    let mut initiator = side(Side::Initiator);
    told(&mut initiator, Span::ZERO, said(true, &["8.8.8.8:1", "8.8.8.8:2"]));
    let answer = |port| Input::Probed(Kind::Answer, SocketAddr::new([8, 8, 8, 8].into(), port));
    let open = |port| Output::Open(SocketAddr::new([8, 8, 8, 8].into(), port));
    assert_eq!(told(&mut initiator, Span::ZERO, answer(3)), [], "it was never asked");
    assert_eq!(told(&mut initiator, Span::ZERO, answer(1)), [open(1)]);
    assert_eq!(told(&mut initiator, Span::ZERO, answer(1)), []);
    assert_eq!(told(&mut initiator, Span::ZERO, answer(2)), []);
    assert_eq!(told(&mut initiator, Span::ZERO, Input::Failed(address("8.8.8.8:1"))), [open(2)]);
    assert_eq!(told(&mut initiator, Span::ZERO, Input::Opened), []);
    assert_eq!(initiator.poll_timeout(), None, "nothing is sought any more");
    assert_eq!(told(&mut initiator, Span::secs(1), answer(2)), []);
}

#[test]
fn a_round_that_led_nowhere_is_followed_by_others_ever_more_rarely() {
    let mut initiator = side(Side::Initiator);
    let mut rounds = Vec::new();
    let mut target_says = |seeking: &mut Seeking, outputs: &[Output], when| {
        if outputs.iter().any(|one| matches!(one, Output::Say(said) if said.wants_answer)) {
            rounds.push(when);
            told(seeking, when, said(false, &["8.8.8.8:1"]));
        }
    };
    for second in 0..=3_600 {
        let outputs = run(&mut initiator, Span::secs(second));
        target_says(&mut initiator, &outputs, Span::secs(second));
    }
    let gaps: Vec<_> = rounds.windows(2).map(|two| (two[1].0 - two[0].0) / 1_000_000).collect();
    assert_eq!(rounds[0], Span::secs(10));
    assert!(gaps.starts_with(&[10, 20, 40, 80, 160, 300, 300]), "{gaps:?}");
}

#[test]
fn a_lost_path_is_sought_again_at_once_where_it_had_lasted_and_after_a_pause_where_not() {
    for (lasted, pause) in [(Span::secs(60), Span::ZERO), (Span::secs(5), AGAIN.0)] {
        let mut initiator = side(Side::Initiator);
        told(&mut initiator, Span::ZERO, said(true, &["8.8.8.8:1"]));
        told(&mut initiator, Span::secs(1), Input::Opened);
        let lost = Span(Span::secs(1).0 + lasted.0 + 1);
        told(&mut initiator, lost, Input::Lost);
        assert_eq!(initiator.poll_timeout(), Some(at(lost).time + pause));
    }
}

#[test]
fn who_moves_says_so_unless_it_goes_directly_but_not_more_than_once_in_two_seconds() {
    let mut target = side(Side::Target);
    drained(&mut target);
    assert_eq!(told(&mut target, Span::secs(1), Input::Place(place(&["198.51.100.2:7"]))), []);
    assert_eq!(target.poll_timeout(), Some(at(ROUND_GAP).time));
    let later = run(&mut target, ROUND_GAP);
    assert!(matches!(&later[..], [Output::Say(said)] if said.addresses == [address("198.51.100.2:7")]));
    assert_eq!(told(&mut target, Span::secs(9), Input::Place(place(&["198.51.100.2:7"]))), []);
    told(&mut target, Span::secs(9), said(false, &["8.8.8.8:1"]));
    told(&mut target, Span::secs(9), Input::Opened);
    assert_eq!(told(&mut target, Span::secs(20), Input::Place(place(&["198.51.100.3:7"]))), []);
}

#[test]
fn whoever_begins_too_many_rounds_or_answers_unasked_is_left_alone() {
    let mut target = side(Side::Target);
    drained(&mut target);
    told(&mut target, Span::ZERO, said(false, &[]));
    for _ in 0..ROUNDS_AT_ONCE {
        assert!(matches!(told(&mut target, Span::ZERO, said(true, &[]))[..], [Output::Say(_)]));
    }
    let later = ROUND_EVERY;
    assert!(matches!(told(&mut target, later, said(true, &[]))[..], [Output::Say(_)]));
    assert!(matches!(told(&mut target, later, said(true, &["8.8.8.8:1"]))[..], [Output::End(_)]));
    assert_eq!(told(&mut target, later, said(true, &["8.8.8.8:1"])), []);
    assert_eq!(target.poll_timeout(), None);
    let mut initiator = side(Side::Initiator);
    assert!(matches!(told(&mut initiator, Span::ZERO, said(false, &[]))[..], [Output::End(_)]));
}

/// What a NAT does (RFC 4787 §4, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nat {
    /// One port for all, open to all.
    Open,
    /// One port for all, open to addresses that were sent to.
    Address,
    /// One port for all, open to addresses and ports that were sent to.
    Port,
    /// A port for each destination, open to it alone.
    Symmetric,
}

struct House {
    nat: Nat,
    ip: IpAddr,
    ports: HashMap<Option<SocketAddr>, u16>,
    sent: HashSet<(u16, SocketAddr)>,
}

impl House {
    fn new(nat: Nat, ip: &str) -> House {
        House { nat, ip: ip.parse().unwrap(), ports: HashMap::new(), sent: HashSet::new() }
    }

    /// Where a datagram to `to` seems to come from.
    fn out(&mut self, to: SocketAddr) -> SocketAddr {
        let key = (self.nat == Nat::Symmetric).then_some(to);
        let free = 40_000 + self.ports.len() as u16;
        let port = *self.ports.entry(key).or_insert(free);
        self.sent.insert((port, to));
        SocketAddr::new(self.ip, port)
    }

    /// Whether what comes from there to `port` is let in.
    fn lets_in(&self, from: SocketAddr, port: u16) -> bool {
        let sent = self.sent.iter().filter(|(own, _)| *own == port);
        match self.nat {
            Nat::Open => self.ports.values().any(|own| *own == port),
            Nat::Address => sent.into_iter().any(|(_, to)| to.ip() == from.ip()),
            Nat::Port | Nat::Symmetric => sent.into_iter().any(|(_, to)| *to == from),
        }
    }
}

enum Post {
    Said(Candidates),
    Datagram(Kind, SocketAddr, SocketAddr),
}

/// Both sides behind NATs, with a relay in between; where the initiator opens a path, if it does.
fn meet(nats: [Nat; 2], seed: u64) -> Option<SocketAddr> {
    let (relay, rng) = (address("203.0.113.1:9"), &mut SeededRng::new(seed));
    let mut houses = [House::new(nats[0], "198.51.100.1"), House::new(nats[1], "198.51.100.2")];
    let places = [0, 1].map(|who| {
        let own = if who == 0 { "192.168.7.5:7117" } else { "10.1.1.5:7117" };
        let seen = houses[who].out(relay).to_string();
        Place { vantage: place(&[]).vantage, ..place(&[&seen, own]) }
    });
    let [one, two] = places;
    let mut sides = [
        Seeking::new(at(Span::ZERO), Side::Initiator, one, rng),
        Seeking::new(at(Span::ZERO), Side::Target, two, rng),
    ];
    let mut post: BTreeMap<(Time, u64), (usize, Post)> = BTreeMap::new();
    let (mut now, mut number) = (at(Span::ZERO), 0);
    loop {
        for who in 0..2 {
            while let Some(output) = sides[who].poll_output() {
                number += 1;
                let when = (now.time + Span::millis(10 + rng.below(90)), number);
                match output {
                    Output::Say(said) => drop(post.insert(when, (1 - who, Post::Said(said)))),
                    Output::Probe(to, probe) => {
                        assert_eq!(probe.token, sides[1 - who].token());
                        let from = houses[who].out(to);
                        // One in five is lost.
                        if rng.below(5) > 0 {
                            post.insert(when, (1 - who, Post::Datagram(probe.kind, from, to)));
                        }
                    }
                    Output::Open(to) => return Some(to),
                    Output::End(why) => panic!("{why}"),
                }
            }
        }
        let timers = sides.iter().filter_map(Seeking::poll_timeout).min();
        let next = post.first_key_value().map(|((when, _), _)| *when).into_iter().chain(timers).min()?;
        if next > at(Span::secs(60)).time {
            return None;
        }
        now.time = now.time.max(next);
        while let Some(entry) = post.first_entry().filter(|entry| entry.key().0 <= now.time) {
            match entry.remove() {
                (who, Post::Said(said)) => sides[who].handle_input(now, Input::Heard(said), rng),
                (who, Post::Datagram(kind, from, to)) => {
                    if to.ip() == houses[who].ip && houses[who].lets_in(from, to.port()) {
                        sides[who].handle_input(now, Input::Probed(kind, from), rng);
                    }
                }
            }
        }
        sides.iter_mut().for_each(|side| side.handle_timeout(now, rng));
    }
}

#[test]
fn thirteen_of_sixteen_pairs_of_nats_find_a_direct_path_however_many_probes_are_lost() {
    let all = [Nat::Open, Nat::Address, Nat::Port, Nat::Symmetric];
    for one in all {
        for two in all {
            let hopeless = matches!(
                (one, two),
                (Nat::Symmetric, Nat::Symmetric | Nat::Port) | (Nat::Port, Nat::Symmetric)
            );
            for seed in 0..50 {
                assert_eq!(meet([one, two], seed).is_none(), hopeless, "{one:?} and {two:?}, seed {seed}");
            }
        }
    }
}
