use kith_sansio::{SeededRng, Timestamp};
use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000;

fn target() -> Fingerprint {
    Fingerprint::from_bytes([7; 32])
}

fn at(micros: u64) -> Now {
    Now { time: Time(micros), utc: Timestamp(0) }
}

/// A dialer and what it wants, in virtual time.
struct Race {
    dialer: Dialer,
    now: u64,
    rng: SeededRng,
}

impl Race {
    fn new(via: Via) -> Race {
        let dialer = Dialer::new(target(), at(0), via, Vantage::default(), Pace::default());
        Race { dialer, now: 0, rng: SeededRng::new(1) }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.dialer.handle_input(at(self.now), input, &mut self.rng);
        self.outputs()
    }

    fn hints(&mut self, addresses: &[&str]) -> Vec<Output> {
        self.input(Input::Candidates(candidates(addresses, Origin::Hint)))
    }

    /// Goes on to the next timer.
    fn wait(&mut self) -> Vec<Output> {
        self.now = self.dialer.poll_timeout().expect("a timer").0;
        self.dialer.handle_timeout(at(self.now), &mut self.rng);
        self.outputs()
    }

    /// Goes on to this many milliseconds after the start.
    fn until(&mut self, millis: u64) -> Vec<Output> {
        self.now = millis * MS;
        self.dialer.handle_timeout(at(self.now), &mut self.rng);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.dialer.poll_output()).collect()
    }
}

fn candidates(addresses: &[&str], origin: Origin) -> Vec<Candidate> {
    addresses.iter().map(|text| Candidate { address: text.parse().unwrap(), origin }).collect()
}

fn start(attempt: u32, address: &str) -> Output {
    Output::Start(Attempt(attempt), address.parse().unwrap())
}

fn tried(address: &str, failure: Failure) -> Tried {
    Tried { route: Route::Direct(address.parse().unwrap()), failure }
}

fn network() -> Failure {
    Failure::Network("refused".into())
}

#[test]
fn ipv6_goes_first_transports_side_by_side_and_families_take_turns() {
    let mut race = Race::new(Via::Any);
    let first = race.hints(&[
        "quic://1.1.1.1:1",
        "tcp://1.1.1.1:1",
        "quic://[2600::1]:1",
        "tcp://[2600::1]:1",
        "tcp://[2600::2]:1",
    ]);
    assert_eq!(first, [start(0, "quic://[2600::1]:1"), start(1, "tcp://[2600::1]:1")]);
    assert_eq!(race.wait(), [start(2, "quic://1.1.1.1:1"), start(3, "tcp://1.1.1.1:1")]);
    assert_eq!(race.now, 100 * MS);
    assert_eq!(race.wait(), [start(4, "tcp://[2600::2]:1")]);
    assert_eq!(race.now, 200 * MS);
    assert_eq!(
        race.input(Input::Connected(Attempt(3))),
        [0, 1, 2, 4]
            .map(|n| Output::Abort(Attempt(n)))
            .into_iter()
            .chain([Output::Reached(Attempt(3))])
            .collect::<Vec<_>>()
    );
    assert_eq!(race.dialer.poll_timeout(), None);
    assert_eq!(race.input(Input::Connected(Attempt(4))), []);
}

#[test]
fn an_address_that_fails_makes_room_at_once() {
    let mut race = Race::new(Via::Any);
    assert_eq!(race.hints(&["tcp://1.1.1.1:1", "tcp://1.1.1.2:1"]).len(), 1);
    assert_eq!(race.input(Input::Failed(Attempt(0), network())), [start(1, "tcp://1.1.1.2:1")]);
    assert_eq!(race.input(Input::Failed(Attempt(1), network())), []);
    assert_eq!(
        race.input(Input::NoMoreCandidates),
        [Output::Unreachable(vec![tried("tcp://1.1.1.1:1", network()), tried("tcp://1.1.1.2:1", network())])]
    );
}

#[test]
fn discovered_addresses_join_a_race_that_hints_began() {
    let mut race = Race::new(Via::Any);
    assert_eq!(race.hints(&["tcp://1.1.1.1:1"]).len(), 1);
    race.now = 30 * MS;
    let found = candidates(&["tcp://1.1.1.1:1", "tcp://[2600::1]:1"], Origin::Discovered);
    assert_eq!(race.input(Input::Candidates(found)), []);
    assert_eq!(race.wait(), [start(1, "tcp://[2600::1]:1")]);
    assert_eq!(race.now, 100 * MS);
}

#[test]
fn silence_ends_an_attempt_and_somebody_else_is_named() {
    let mut race = Race::new(Via::Any);
    race.hints(&["tcp://1.1.1.1:1", "tcp://1.1.1.2:1"]);
    race.wait();
    let stranger = Fingerprint::from_bytes([9; 32]);
    race.input(Input::Failed(Attempt(1), Failure::WrongPeer(stranger)));
    race.input(Input::NoMoreCandidates);
    let silent = Failure::Silent(Span::secs(5));
    assert_eq!(
        race.wait(),
        [
            Output::Abort(Attempt(0)),
            Output::Unreachable(vec![
                tried("tcp://1.1.1.2:1", Failure::WrongPeer(stranger)),
                tried("tcp://1.1.1.1:1", silent)
            ])
        ]
    );
    assert_eq!(race.now, 5_000 * MS);
}

#[test]
fn nothing_known_is_unreachable_without_an_address_and_an_endless_search_ends() {
    let mut race = Race::new(Via::Any);
    assert_eq!(race.input(Input::NoMoreCandidates), [Output::Unreachable(vec![])]);
    let mut endless = Race::new(Via::Any);
    assert_eq!(endless.wait(), [Output::Unreachable(vec![])]);
    assert_eq!(endless.now, 15_000 * MS);
}

#[test]
fn what_must_not_be_dialled_is_told_and_a_hint_may_still_allow_it() {
    let mut race = Race::new(Via::Any);
    let found = candidates(&["tcp://127.0.0.1:1", "tcp://10.0.0.1:1"], Origin::Discovered);
    assert_eq!(race.input(Input::Candidates(found)), []);
    assert_eq!(race.hints(&["tcp://10.0.0.1:1"]), [start(0, "tcp://10.0.0.1:1")]);
    race.input(Input::NoMoreCandidates);
    assert_eq!(
        race.input(Input::Failed(Attempt(0), network())),
        [Output::Unreachable(vec![
            tried("tcp://127.0.0.1:1", Failure::NotDialled),
            tried("tcp://10.0.0.1:1", network())
        ])]
    );
}

#[test]
fn an_address_of_another_transport_than_the_one_insisted_on_is_told_of() {
    let mut race = Race::new(Via::Quic);
    assert_eq!(race.hints(&["tcp://1.1.1.1:1"]), []);
    let left_out = vec![tried("tcp://1.1.1.1:1", Failure::OtherTransport)];
    assert_eq!(race.input(Input::NoMoreCandidates), [Output::Unreachable(left_out)]);
}

#[test]
fn a_transport_can_be_insisted_on_and_bulk_gives_tcp_a_head_start() {
    let all = ["quic://1.1.1.1:1", "tcp://1.1.1.1:1"];
    assert_eq!(Race::new(Via::Tcp).hints(&all), [start(0, all[1])]);
    assert_eq!(Race::new(Via::Quic).hints(&all), [start(0, all[0])]);
    let mut bulk = Race::new(Via::Bulk);
    assert_eq!(bulk.hints(&all), [start(0, all[1])]);
    assert_eq!(bulk.wait(), [start(1, all[0])]);
    assert_eq!(bulk.now, 100 * MS);
    assert_eq!(Race::new(Via::Any).hints(&["dtls://1.1.1.1:1"]), []);
}

fn for_datagrams(via: Via) -> Race {
    let mut race = Race::new(via);
    race.dialer.for_datagrams();
    race
}

#[test]
fn whoever_insists_on_dtls_tries_the_ports_of_quic_too() {
    let all = ["quic://1.1.1.1:1", "tcp://1.1.1.1:1", "dtls://1.1.1.1:1", "dtls://1.1.1.1:2"];
    let mut race = for_datagrams(Via::Dtls);
    assert_eq!(race.hints(&all), [start(0, "dtls://1.1.1.1:1"), start(1, "dtls://1.1.1.1:2")]);
    // There are no streams over it.
    assert_eq!(Race::new(Via::Dtls).hints(&all), []);
}

#[test]
fn dtls_is_the_way_where_nothing_else_is_known_and_not_where_nothing_else_answers() {
    let mut race = for_datagrams(Via::Any);
    assert_eq!(race.hints(&["dtls://1.1.1.1:1"]), []);
    assert_eq!(race.input(Input::NoMoreCandidates), [start(0, "dtls://1.1.1.1:1")]);

    let mut race = for_datagrams(Via::Any);
    assert_eq!(race.hints(&["dtls://1.1.1.1:1", "tcp://1.1.1.1:1"]).len(), 1);
    assert_eq!(race.input(Input::Failed(Attempt(0), network())), []);
    assert_eq!(
        race.input(Input::NoMoreCandidates),
        [Output::Unreachable(vec![tried("tcp://1.1.1.1:1", network())])]
    );
}

#[test]
fn only_so_many_addresses_are_tried() {
    let mut race = Race::new(Via::Any);
    let many: Vec<String> = (1..=100).map(|n| format!("tcp://1.1.1.1:{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(race.hints(&many).len(), 32);
    assert_eq!(race.hints(&["tcp://1.1.1.2:1"]), []);
}

/// What the network does to one attempt.
#[derive(Clone, Debug)]
enum Fate {
    Answers { after: u64 },
    Refuses { after: u64 },
    SomebodyElse { after: u64 },
    Silent,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        (0u64..8_000_000).prop_map(|after| Fate::Answers { after }),
        (0u64..8_000_000).prop_map(|after| Fate::Refuses { after }),
        (0u64..8_000_000).prop_map(|after| Fate::SomebodyElse { after }),
        Just(Fate::Silent),
    ]
}

/// Runs a race over a network with these fates, one address each, known at these times; what came of it, and when.
fn run(fates: &[(Fate, u64)]) -> (Output, u64, Vec<u64>) {
    let address =
        |n: usize| Address::new(Transport::Tcp, ([1, 1, 1, u8::try_from(n + 1).unwrap()], 1).into());
    let mut race = Race::new(Via::Any);
    let mut events: Vec<(u64, Input)> = fates
        .iter()
        .enumerate()
        .map(|(n, (_, known))| {
            (*known, Input::Candidates(vec![Candidate { address: address(n), origin: Origin::Hint }]))
        })
        .collect();
    let last = fates.iter().map(|(_, known)| *known).max().unwrap_or(0);
    events.push((last + 1, Input::NoMoreCandidates));
    let mut starts = Vec::new();
    loop {
        events.sort_by_key(|(when, _)| std::cmp::Reverse(*when));
        let timer = race.dialer.poll_timeout().map_or(u64::MAX, |time| time.0);
        let outputs = match events.last() {
            Some((when, _)) if *when <= timer => {
                let (when, input) = events.pop().unwrap();
                race.now = race.now.max(when);
                race.input(input)
            }
            _ => race.wait(),
        };
        for output in outputs {
            match output {
                Output::Start(attempt, started) => {
                    starts.push(race.now);
                    let n = (0..fates.len()).find(|n| address(*n) == started).unwrap();
                    let (after, input) = match fates[n].0 {
                        Fate::Answers { after } => (after, Input::Connected(attempt)),
                        Fate::Refuses { after } => (after, Input::Failed(attempt, network())),
                        Fate::SomebodyElse { after } => {
                            (after, Input::Failed(attempt, Failure::WrongPeer(target())))
                        }
                        Fate::Silent => continue,
                    };
                    events.push((race.now + after, input));
                }
                Output::Abort(_) => {}
                end => return (end, race.now, starts),
            }
        }
    }
}

proptest! {
    #[test]
    fn every_race_ends_in_time_and_is_won_where_somebody_answers(
        fates in prop::collection::vec((fate(), 0u64..1_000_000), 1..12)
    ) {
        let (end, when, starts) = run(&fates);
        prop_assert!(when <= 15_000_000);
        let soon = fates.iter().any(|(fate, _)| matches!(fate, Fate::Answers { after } if *after <= 5_000_000));
        match end {
            Output::Reached(_) => prop_assert!(soon),
            Output::Unreachable(tried) => {
                prop_assert!(!soon);
                prop_assert_eq!(tried.len(), fates.len());
            }
            other => prop_assert!(false, "{other:?}"),
        }
        prop_assert!(starts.len() <= fates.len());
    }
}

fn relays(names: &[(u8, u16)]) -> Input {
    let relay = |(name, preference)| Relay {
        preference,
        ni: kith_identity::Ni::new(Fingerprint::from_bytes([name; 32]), None),
    };
    Input::Relays(names.iter().copied().map(relay).collect())
}

/// The attempts that lead over a relay, with the relay's name.
fn started(outputs: &[Output]) -> Vec<(u32, u8)> {
    let over = |output: &Output| match output {
        Output::Relay(attempt, relay) => Some((attempt.0, relay.ni.fingerprint.as_bytes()[0])),
        _ => None,
    };
    outputs.iter().filter_map(over).collect()
}

#[test]
fn relays_start_a_quarter_of_a_second_later_one_after_another_by_preference() {
    let mut race = Race::new(Via::Any);
    race.hints(&["tcp://10.0.0.1:1"]);
    assert_eq!(race.input(relays(&[(17, 20), (18, 10), (19, 30), (18, 1)])), []);
    assert_eq!(started(&race.until(249)), []);
    assert_eq!(started(&race.until(250)), [(1, 18)]);
    assert_eq!(started(&race.until(499)), []);
    assert_eq!(started(&race.until(500)), [(2, 17)]);
    let outputs = race.input(Input::Connected(Attempt(2)));
    assert_eq!(outputs.last(), Some(&Output::Reached(Attempt(2))));
    assert_eq!(outputs.len(), 3, "the other two are aborted, and the third relay never starts");
}

#[test]
fn relays_start_at_once_where_no_address_is_left_to_try() {
    let mut race = Race::new(Via::Any);
    assert_eq!(started(&race.input(relays(&[(17, 20), (18, 10)]))), [(0, 18)]);
    assert_eq!(started(&race.input(Input::Failed(Attempt(0), Failure::RelayRefused))), [(1, 17)]);
    assert_eq!(race.input(Input::NoMoreCandidates), []);
    let over = |name| Route::Over(Fingerprint::from_bytes([name; 32]));
    let outputs = race.input(Input::Failed(Attempt(1), Failure::Relay("away".into())));
    let tried = vec![
        Tried { route: over(18), failure: Failure::RelayRefused },
        Tried { route: over(17), failure: Failure::Relay("away".into()) },
    ];
    assert_eq!(outputs, [Output::Unreachable(tried)]);
}

#[test]
fn a_relay_that_is_silent_is_given_up_over_either_transport() {
    for via in [Via::Tcp, Via::Quic] {
        let mut race = Race::new(via);
        race.input(relays(&[(17, 1)]));
        race.input(Input::NoMoreCandidates);
        let outputs = race.until(8_000);
        let over = Route::Over(Fingerprint::from_bytes([17; 32]));
        let silent = Failure::Silent(Pace::default().relay_timeout);
        assert_eq!(
            outputs,
            [Output::Abort(Attempt(0)), Output::Unreachable(vec![Tried { route: over, failure: silent }])]
        );
    }
}
