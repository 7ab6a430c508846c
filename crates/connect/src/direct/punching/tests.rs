use kith_sansio::{SeededRng, Timestamp};

use super::*;
use crate::{Interface, Vantage};

fn at(span: Span) -> Now {
    Now { time: Time(1_000_000) + span, utc: Timestamp(1_800_000_000) }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().copied().map(address).collect()
}

fn place() -> Place {
    let own = |ip: &str| Interface { ip: ip.parse().unwrap(), prefix_bits: 24 };
    let vantage = Vantage { loopback_only: false, interfaces: vec![own("127.0.0.1"), own("192.168.7.5")] };
    Place { candidates: Vec::new(), vantage, v4: true, v6: false }
}

/// One side, and what it wants done.
struct Seat {
    punching: Punching,
    rng: SeededRng,
}

impl Seat {
    fn new(side: Side) -> Seat {
        Seat { punching: Punching::new(at(Span::ZERO), side, place()), rng: SeededRng::new(1) }
    }

    fn told(&mut self, when: Span, input: Input) -> Vec<Output> {
        self.punching.handle_input(at(when), input, &mut self.rng);
        self.drained()
    }

    fn drained(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.punching.poll_output()).collect()
    }

    /// Lets time go by until `until`; what was done, and when.
    fn run(&mut self, until: Span) -> Vec<(Span, Output)> {
        let mut all = Vec::new();
        while let Some(next) = self.punching.poll_timeout().filter(|next| *next <= at(until).time) {
            self.punching.handle_timeout(Now { time: next, ..at(until) }, &mut self.rng);
            all.extend(self.drained().into_iter().map(|one| (next - at(Span::ZERO).time, one)));
        }
        all
    }

    /// The initiator begins a round; its name.
    fn begins(&mut self, when: Span) -> Token {
        match &self.run(when)[..] {
            [(_, Output::Prepare(name))] => *name,
            other => panic!("{other:?}"),
        }
    }

    /// The initiator has begun a round and asked, and the round has led to a connection.
    fn succeeds(&mut self) {
        let name = self.begins(Span::ZERO);
        self.told(Span::ZERO, Input::Ready(name, addresses(&["198.51.100.1:7"])));
        self.told(Span::ZERO, said(false, name, &["8.8.8.8:1"]));
        assert_eq!(
            self.told(Span::ZERO, Input::Through(name, address("8.8.8.8:1"))),
            [Output::Release(name)]
        );
        assert!(self.punching.works());
    }
}

fn said(wants_answer: bool, token: Token, texts: &[&str]) -> Input {
    Input::Heard(Candidates { wants_answer, token, addresses: addresses(texts) })
}

fn name(number: u8) -> Token {
    Token::from_bytes([number; 16])
}

#[test]
fn both_sides_dial_each_other_from_ports_that_are_ready() {
    let (mut initiator, mut target) = (Seat::new(Side::Initiator), Seat::new(Side::Target));
    assert_eq!(target.run(Span::secs(3_600)), [], "a target waits to be asked");
    let round = initiator.begins(Span::ZERO);
    let asked = initiator.told(Span::ZERO, Input::Ready(round, addresses(&["198.51.100.1:7"])));
    let [Output::Say(question)] = &asked[..] else { panic!("{asked:?}") };
    assert!(question.wants_answer && question.token == round);
    assert_eq!(target.told(Span::ZERO, Input::Heard(question.clone())), [Output::Prepare(round)]);
    let ready = target.told(Span::ZERO, Input::Ready(round, addresses(&["203.0.113.1:9"])));
    let [Output::Say(answer), Output::Dial(dialled, to)] = &ready[..] else { panic!("{ready:?}") };
    assert_eq!((*dialled, &to[..]), (round, &addresses(&["198.51.100.1:7"])[..]));
    let dials = initiator.told(Span::ZERO, Input::Heard(answer.clone()));
    assert_eq!(dials, [Output::Dial(round, addresses(&["203.0.113.1:9"]))]);
    assert!(!initiator.punching.works());
    let through = initiator.told(Span::ZERO, Input::Through(round, address("203.0.113.1:9")));
    assert_eq!(through, [Output::Release(round)]);
    assert!(initiator.punching.works());
    // The target may see another connection first than the initiator.
    assert_eq!(target.told(Span::ZERO, Input::Through(round, address("198.51.100.1:7"))), []);
    assert_eq!(target.run(Span::secs(60)), [(PUNCH_TAIL, Output::Release(round))]);
    assert_eq!(initiator.run(Span::secs(3_600)), [], "it knows the way, and waits for somebody to want it");
}

#[test]
fn what_leads_nowhere_is_tried_again_ever_more_rarely() {
    let mut initiator = Seat::new(Side::Initiator);
    let mut tried = Vec::new();
    for (when, output) in initiator.run(Span::secs(2_000)) {
        match output {
            Output::Prepare(_) => tried.push(when.0 / 1_000_000),
            Output::Release(_) => assert_eq!(when.0 / 1_000_000, tried.last().unwrap() + 2),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(tried, [0, 12, 34, 76, 158, 320, 622, 924, 1226, 1528, 1830]);
}

#[test]
fn a_connection_is_wanted_of_a_way_that_is_known_and_of_no_other() {
    let mut initiator = Seat::new(Side::Initiator);
    assert_eq!(initiator.told(Span::ZERO, Input::Wanted), []);
    initiator.succeeds();
    for _ in 0..MAX_ROUNDS {
        let wanted = initiator.told(Span::secs(1), Input::Wanted);
        assert!(matches!(wanted[..], [Output::Prepare(_)]));
    }
    assert!(!initiator.punching.works());
    assert_eq!(initiator.told(Span::secs(1), Input::Wanted), []);
    // They lead nowhere: the way is looked for as at first.
    let over = initiator.run(Span::secs(5));
    assert_eq!(over.iter().filter(|(_, one)| matches!(one, Output::Release(_))).count(), MAX_ROUNDS);
    assert!(!initiator.punching.works());
    assert!(matches!(initiator.run(Span::secs(14))[..], [(_, Output::Prepare(_)), ..]));
}

#[test]
fn what_this_node_would_not_dial_is_not_dialled() {
    let foreign = [
        "127.0.0.1:9",
        "224.0.0.1:9",
        "0.0.0.0:9",
        "255.255.255.255:9",
        "169.254.169.254:80",
        "10.0.0.1:9",
        "192.168.8.1:9",
        "8.8.8.8:0",
        "[2600::1]:9",
    ];
    let mut target = Seat::new(Side::Target);
    let nothing = Candidates { wants_answer: false, token: name(1), addresses: Vec::new() };
    assert_eq!(target.told(Span::ZERO, said(true, name(1), &foreign)), [Output::Say(nothing)]);
    let mixed = [&foreign[..], &["8.8.8.8:9", "192.168.7.9:9", "8.8.8.8:9"]].concat();
    assert_eq!(target.told(Span::ZERO, said(true, name(2), &mixed)), [Output::Prepare(name(2))]);
    let ready = target.told(Span::ZERO, Input::Ready(name(2), addresses(&["192.168.7.9:9"])));
    assert_eq!(ready[1], Output::Dial(name(2), addresses(&["8.8.8.8:9"])), "not itself either");

    let mut initiator = Seat::new(Side::Initiator);
    let round = initiator.begins(Span::ZERO);
    initiator.told(Span::ZERO, Input::Ready(round, addresses(&["198.51.100.1:7"])));
    assert_eq!(initiator.told(Span::ZERO, said(false, round, &foreign)), [Output::Release(round)]);
}

#[test]
fn a_peer_has_so_many_rounds_and_no_more() {
    let mut target = Seat::new(Side::Target);
    let mut prepared = Vec::new();
    for number in 0..=200_u8 {
        // Half a second apart, each over before the next.
        let when = Span::millis(500).times(number.into());
        let outputs = target.told(when, said(true, name(number), &[&format!("8.8.8.{number}:1")]));
        match outputs[..] {
            [Output::Prepare(round)] => {
                target.told(when, Input::Ready(round, Vec::new()));
                prepared.push(when);
            }
            [Output::Say(ref nothing)] => assert_eq!(nothing.addresses, []),
            ref other => panic!("{other:?}"),
        }
    }
    let at_once = usize::try_from(ROUNDS_AT_ONCE).unwrap();
    assert_eq!(prepared.len(), at_once + 10, "one in ten seconds, of a hundred");
    assert!(
        prepared[at_once..]
            .iter()
            .zip(&prepared[at_once + 1..])
            .all(|(one, next)| next.0 - one.0 >= ROUND_EVERY.0)
    );
}

#[test]
fn where_a_peer_has_proved_to_be_it_has_more_rounds() {
    let mut target = Seat::new(Side::Target);
    target.told(Span::ZERO, said(true, name(0), &["8.8.8.8:1"]));
    target.told(Span::ZERO, Input::Ready(name(0), addresses(&["203.0.113.1:9"])));
    target.told(Span::ZERO, Input::Through(name(0), address("8.8.8.8:1")));
    let mut count = |ip: &str, from: u8| {
        let mut prepared = 0;
        for number in from..from + 100 {
            let when = Span::secs(4);
            if target.told(when, said(true, name(number), &[&format!("{ip}:{number}")]))
                == [Output::Prepare(name(number))]
            {
                target.told(when, Input::Ready(name(number), Vec::new()));
                prepared += 1;
            }
        }
        prepared
    };
    assert_eq!(count("8.8.8.8", 1), PROVEN_ROUNDS.0);
    assert_eq!(count("8.8.4.4", 101), ROUNDS_AT_ONCE - 1, "others as before");
}

#[test]
fn of_rounds_at_once_there_are_few_and_each_has_its_own_name() {
    let mut target = Seat::new(Side::Target);
    for number in 0..MAX_ROUNDS as u8 {
        assert_eq!(
            target.told(Span::ZERO, said(true, name(number), &["8.8.8.8:1"])),
            [Output::Prepare(name(number))]
        );
    }
    let refused = target.told(Span::ZERO, said(true, name(99), &["8.8.8.8:1"]));
    assert!(matches!(&refused[..], [Output::Say(said)] if said.addresses.is_empty()), "{refused:?}");
    let again = target.told(Span::ZERO, said(true, name(0), &["8.8.8.8:1"]));
    assert_eq!(again.len(), MAX_ROUNDS + 1);
    assert!(matches!(again[MAX_ROUNDS], Output::End(_)));
    assert_eq!(target.told(Span::ZERO, said(true, name(100), &["8.8.8.8:1"])), []);
    assert_eq!(target.punching.poll_timeout(), None);
}

#[test]
fn who_speaks_out_of_turn_is_left_alone_and_who_speaks_late_is_not() {
    let mut target = Seat::new(Side::Target);
    assert!(matches!(target.told(Span::ZERO, said(false, name(1), &[]))[..], [Output::End(_)]));
    let mut initiator = Seat::new(Side::Initiator);
    let round = initiator.begins(Span::ZERO);
    initiator.told(Span::ZERO, Input::Ready(round, addresses(&["198.51.100.1:7"])));
    assert_eq!(initiator.run(ANSWER_PATIENCE), [(ANSWER_PATIENCE, Output::Release(round))]);
    assert_eq!(initiator.told(ANSWER_PATIENCE, said(false, round, &["8.8.8.8:1"])), []);
    assert_eq!(initiator.told(ANSWER_PATIENCE, said(false, name(1), &["8.8.8.8:1"])), []);
    assert!(matches!(initiator.told(ANSWER_PATIENCE, said(true, name(1), &[]))[..], [Output::End(_)]));
}

#[test]
fn an_initiator_that_is_elsewhere_looks_for_the_way_anew() {
    let mut initiator = Seat::new(Side::Initiator);
    initiator.succeeds();
    assert_eq!(initiator.told(Span::millis(500), Input::Moved(place())), []);
    assert!(!initiator.punching.works());
    assert!(matches!(initiator.run(Span::secs(3))[..], [(ROUND_GAP, Output::Prepare(_))]));
}
