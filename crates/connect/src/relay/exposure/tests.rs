use kith_identity::Identity;
use kith_sansio::{SeededRng, Timestamp};

use super::*;
use crate::relay::Token;
use crate::relay::limits::{AGAIN_FIRST, AGAIN_MOST, PING_MOST};

const OWN: Fingerprint = Fingerprint::from_bytes([1; 32]);

struct Bench {
    exposure: Exposure,
    now: Now,
    rng: SeededRng,
}

fn relay(n: u8, preference: u16) -> Relay {
    Relay { preference, ni: Ni::new(Fingerprint::from_bytes([n; 32]), None) }
}

fn bench() -> Bench {
    let now = Now { time: Time(0), utc: Timestamp(1_800_000_000) };
    Bench { exposure: Exposure::new(OWN), now, rng: SeededRng::new(1) }
}

impl Bench {
    fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.exposure.poll_output()).collect()
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.exposure.handle_input(self.now, input, &mut self.rng);
        self.drain()
    }

    fn wait(&mut self, span: Span) -> Vec<Output> {
        self.now.time += span;
        self.now.utc = self.now.utc.plus_secs(span.as_secs());
        self.exposure.handle_timeout(self.now, &mut self.rng);
        assert!(self.exposure.poll_timeout().is_none_or(|due| due > self.now.time));
        self.drain()
    }

    /// Waits for the next thing to happen.
    fn next(&mut self) -> (Span, Vec<Output>) {
        let waited = self.exposure.poll_timeout().expect("something is awaited") - self.now.time;
        (waited, self.wait(waited))
    }

    fn says(&mut self, link: Link, message: Message) -> Vec<Output> {
        self.give(Input::Message(link, message))
    }

    /// Uses relay `n` alone, and has it take this node in.
    fn warm(&mut self, n: u8) -> Link {
        let outputs = self.give(Input::Use(vec![relay(n, 10)]));
        let Some(Output::Connect(link, ni)) = outputs.last() else { panic!("{outputs:?}") };
        assert_eq!(*ni, relay(n, 10).ni);
        self.take_in(*link)
    }

    fn take_in(&mut self, link: Link) -> Link {
        assert_eq!(self.give(Input::Connected(link)), [Output::Send(link, Message::Expose)]);
        self.says(link, Message::Exposed);
        link
    }

    fn request(&mut self, who: &Identity, at: u8) -> Request {
        let relay = Fingerprint::from_bytes([at; 32]);
        Request::sign(who, relay, OWN, (Carriage::Stream, vec![]), self.now.utc, &mut self.rng)
    }
}

fn is_close(outputs: &[Output], link: Link) -> bool {
    outputs.contains(&Output::Close(link))
}

#[test]
fn all_relays_are_kept_warm_at_once_and_named_by_preference() {
    let mut bench = bench();
    let wanted = vec![relay(2, 30), relay(3, 10), relay(4, 20), relay(3, 40), relay(1, 1)];
    let outputs = bench.give(Input::Use(wanted));
    let links: Vec<Link> = outputs
        .iter()
        .map(|output| match output {
            Output::Connect(link, _) => *link,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(links.len(), 3, "each once, and never this node itself");
    for link in &links {
        bench.give(Input::Connected(*link));
    }
    let named = |outputs: Vec<Output>| match outputs.last() {
        Some(Output::Named(relays)) => relays.clone(),
        _ => panic!("{outputs:?}"),
    };
    assert_eq!(named(bench.says(links[2], Message::Exposed)), [relay(2, 30)]);
    assert_eq!(named(bench.says(links[0], Message::Exposed)), [relay(3, 10), relay(2, 30)]);
    assert_eq!(named(bench.says(links[1], Message::Exposed)), [relay(3, 10), relay(4, 20), relay(2, 30)]);
    assert!(bench.exposure.standings().iter().all(|standing| standing.is_warm));
    let outputs = bench.give(Input::Use(vec![relay(4, 5), relay(2, 30)]));
    assert_eq!(outputs, [Output::Close(links[0]), Output::Named(vec![relay(4, 5), relay(2, 30)])]);
    assert_eq!(bench.exposure.named(), [relay(4, 5), relay(2, 30)]);
}

#[test]
fn pings_grow_rarer_while_they_are_answered_and_never_rarer_than_20_seconds() {
    let mut bench = bench();
    let link = bench.warm(2);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let (waited, outputs) = bench.next();
        waits.push(waited);
        let [Output::Send(_, Message::Ping(number))] = outputs[..] else { panic!("{outputs:?}") };
        bench.now.time += Span::millis(30);
        bench.says(link, Message::Pong(number));
    }
    assert_eq!(waits, [5, 10, 20, 20, 20, 20].map(Span::secs));
    assert_eq!(bench.exposure.standings()[0].rtt, Some(Span::millis(30)));
}

#[test]
fn a_silent_relay_is_replaced_within_three_seconds_and_asked_more_often_afterwards() {
    let mut bench = bench();
    let link = bench.warm(2);
    for _ in 0..2 {
        let (_, outputs) = bench.next();
        let [Output::Send(_, Message::Ping(number))] = outputs[..] else { panic!("{outputs:?}") };
        bench.says(link, Message::Pong(number));
    }
    bench.wait(PING_MOST);
    let asked = bench.now.time;
    loop {
        let (_, outputs) = bench.next();
        if is_close(&outputs, link) {
            break;
        }
        assert!(matches!(outputs[..], [Output::Send(_, Message::Ping(_))]), "{outputs:?}");
        // A pong that nobody asked for does not save it.
        bench.says(link, Message::Pong(9_999));
    }
    assert!(bench.now.time - asked <= Span::secs(3));
    let (waited, outputs) = bench.next();
    assert!(waited <= Span::secs(1), "{waited}");
    let [Output::Connect(link, _)] = outputs[..] else { panic!("{outputs:?}") };
    bench.take_in(link);
    let mut longest = Span::ZERO;
    for _ in 0..4 {
        let (waited, outputs) = bench.next();
        longest = longest.max(waited);
        let [Output::Send(_, Message::Ping(number))] = outputs[..] else { panic!("{outputs:?}") };
        bench.says(link, Message::Pong(number));
    }
    assert_eq!(longest, Span::secs(10));
}

#[test]
fn a_relay_that_is_away_is_tried_ever_more_rarely_and_not_named_after_a_minute() {
    let mut bench = bench();
    let link = bench.warm(2);
    assert_eq!(bench.exposure.named().len(), 1);
    let lost = bench.now.time;
    bench.give(Input::Lost(link));
    let (mut waits, mut unnamed) = (Vec::new(), None);
    while waits.len() < 12 {
        let (_, outputs) = bench.next();
        for output in outputs {
            match output {
                Output::Connect(link, _) => {
                    waits.push(bench.now.time);
                    bench.give(Input::Lost(link));
                }
                Output::Named(relays) => unnamed = relays.is_empty().then_some(bench.now.time),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(unnamed.map(|at| at - lost), Some(NAMED_FOR));
    assert!(waits[0] - lost <= Span(AGAIN_FIRST.0 * 5 / 4));
    let last = waits[11] - waits[10];
    assert!(last.0 >= AGAIN_MOST.0 * 3 / 4 && last.0 <= AGAIN_MOST.0 * 5 / 4, "{last}");
    bench.give(Input::Lost(link));
    let outputs = bench.give(Input::Use(vec![]));
    assert_eq!((outputs, bench.exposure.poll_timeout()), (vec![], None));
}

#[test]
fn a_changed_network_is_tried_at_once() {
    let mut bench = bench();
    let link = bench.warm(2);
    let outputs = bench.give(Input::Shaken);
    assert_eq!(outputs, [Output::Send(link, Message::Ping(1))]);
    bench.says(link, Message::Pong(1));
    assert_eq!(bench.give(Input::Lost(link)), []);
    assert!(matches!(bench.give(Input::Shaken)[..], [Output::Connect(..)]));
}

#[test]
fn what_is_lost_because_the_network_has_changed_is_tried_again_at_once_and_once() {
    let mut bench = bench();
    let link = bench.warm(2);
    bench.give(Input::Shaken);
    let outputs = bench.give(Input::Lost(link));
    let [Output::Connect(link, _)] = outputs[..] else { panic!("{outputs:?}") };
    // The same while it is being reached.
    bench.give(Input::Shaken);
    let outputs = bench.give(Input::Lost(link));
    let [Output::Connect(link, _)] = outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(bench.give(Input::Lost(link)), []);
    // One that has answered since was not lost for that.
    let link = tried(&mut bench);
    bench.take_in(link);
    let outputs = bench.give(Input::Shaken);
    let [Output::Send(_, Message::Ping(number))] = outputs[..] else { panic!("{outputs:?}") };
    bench.says(link, Message::Pong(number));
    assert_eq!(bench.give(Input::Lost(link)), []);
}

#[test]
fn a_knock_is_judged_admitted_and_met_once() {
    let mut bench = bench();
    let link = bench.warm(2);
    let who = bench.identity();
    let request = bench.request(&who, 2);
    let judge = Output::Judge { link, id: 7, initiator: who.fingerprint(), carriage: Carriage::Stream };
    assert_eq!(bench.says(link, Message::Knock(7, Box::new(request))), [judge]);
    let pass = Pass { token: Token::from_bytes([3; 16]), port: 5 };
    assert_eq!(bench.says(link, Message::Meet(7, pass)), [], "before it is admitted");
    assert_eq!(bench.give(Input::Judged(link, 7, true)), [Output::Send(link, Message::Admit(7))]);
    assert_eq!(bench.give(Input::Judged(link, 7, true)), [], "judged once");
    let relay = relay(2, 10).ni.fingerprint;
    let initiator = who.fingerprint();
    let meeting = Meeting { link, relay, initiator, carriage: Carriage::Stream, pass };
    assert_eq!(bench.says(link, Message::Meet(7, pass)), [Output::Meet(meeting)]);
    assert_eq!(bench.says(link, Message::Meet(7, pass)), [], "met once");
    let request = bench.request(&who, 2);
    bench.says(link, Message::Knock(8, Box::new(request)));
    assert_eq!(bench.give(Input::Judged(link, 8, false)), [Output::Send(link, Message::Decline(8))]);
    assert_eq!(bench.says(link, Message::Meet(8, pass)), []);
}

#[test]
fn a_request_that_a_relay_plays_again_lets_nobody_in() {
    let mut bench = bench();
    let link = bench.warm(2);
    let who = bench.identity();
    let request = bench.request(&who, 2);
    for (id, answer) in [(1, Message::Admit(1)), (2, Message::Decline(2)), (3, Message::Decline(3))] {
        bench.says(link, Message::Knock(id, Box::new(request.clone())));
        assert_eq!(bench.give(Input::Judged(link, id, true)), [Output::Send(link, answer)]);
        bench.now.utc = bench.now.utc.plus_secs(20);
    }
    // After a new connection too, and at the same time twice.
    let link = {
        bench.give(Input::Lost(link));
        let (_, outputs) = bench.next();
        let Some(Output::Connect(link, _)) = outputs.last() else { panic!("{outputs:?}") };
        bench.take_in(*link)
    };
    let twice = bench.request(&who, 2);
    bench.says(link, Message::Knock(1, Box::new(twice.clone())));
    bench.says(link, Message::Knock(2, Box::new(twice)));
    assert_eq!(bench.give(Input::Judged(link, 2, true)), [Output::Send(link, Message::Admit(2))]);
    assert_eq!(bench.give(Input::Judged(link, 1, true)), [Output::Send(link, Message::Decline(1))]);
}

#[test]
fn knocks_that_are_not_for_this_node_over_this_relay_are_not_judged() {
    let mut bench = bench();
    let link = bench.warm(2);
    let who = bench.identity();
    let good = bench.request(&who, 2);
    let elsewhere = bench.request(&who, 3);
    let other = Fingerprint::from_bytes([9; 32]);
    let here = Fingerprint::from_bytes([2; 32]);
    let for_another =
        Request::sign(&who, here, other, (Carriage::Stream, vec![]), bench.now.utc, &mut bench.rng);
    for wrong in [
        elsewhere,
        for_another,
        Request { signature: [1; 64], ..good.clone() },
        Request { expires: Timestamp(1_000), ..good.clone() },
        Request { initiator: bench.identity().public(), ..good },
    ] {
        assert_eq!(bench.says(link, Message::Knock(1, Box::new(wrong))), []);
    }
}

#[test]
fn a_relay_that_talks_nonsense_or_floods_is_left_alone_for_a_while() {
    let flood: Vec<Message> = (0..4_000).map(Message::Pong).collect();
    for nonsense in [vec![Message::Expose], vec![Message::Refused], vec![Message::Admit(1)], flood] {
        let mut bench = bench();
        let link = bench.warm(2);
        let mut outputs = Vec::new();
        for message in nonsense {
            outputs.extend(bench.says(link, message));
        }
        assert!(is_close(&outputs, link), "{outputs:?}");
        let (waited, outputs) = bench.next();
        assert!(waited >= Span::secs(30), "{waited}");
        assert!(matches!(outputs[..], [Output::Connect(..)]), "{outputs:?}");
    }
    let mut bench = bench();
    bench.give(Input::Use(vec![relay(2, 1)]));
    bench.give(Input::Connected(Link(0)));
    assert!(is_close(&bench.says(Link(0), Message::Refused), Link(0)));
}

/// Waits for the next attempt.
fn tried(bench: &mut Bench) -> Link {
    loop {
        let (_, outputs) = bench.next();
        let tried = outputs.iter().find_map(|output| match output {
            Output::Connect(link, _) => Some(*link),
            _ => None,
        });
        if let Some(link) = tried {
            return link;
        }
    }
}

/// Has the relay that is tried next take this node in and serve for a while.
fn served(bench: &mut Bench) -> Link {
    let link = tried(bench);
    bench.take_in(link);
    for _ in 0..3 {
        let (_, outputs) = bench.next();
        let [Output::Send(_, Message::Ping(number))] = outputs[..] else { panic!("{outputs:?}") };
        bench.says(link, Message::Pong(number));
    }
    link
}

/// How long it takes until the next attempt.
fn again(bench: &mut Bench) -> Span {
    let since = bench.now.time;
    tried(bench);
    bench.now.time - since
}

#[test]
fn a_relay_that_could_not_be_reached_is_as_good_as_any_once_it_has_served() {
    let mut bench = bench();
    let link = bench.warm(2);
    bench.give(Input::Lost(link));
    for _ in 0..20 {
        let link = tried(&mut bench);
        bench.give(Input::Lost(link));
    }
    // A changed network is reason enough to try it at once.
    let outputs = bench.give(Input::Shaken);
    let [Output::Connect(link, _)] = outputs[..] else { panic!("{outputs:?}") };
    bench.give(Input::Lost(link));
    let link = served(&mut bench);
    bench.give(Input::Lost(link));
    assert!(again(&mut bench) <= Span::secs(1));
}

#[test]
fn blame_has_an_end() {
    let mut bench = bench();
    let link = bench.warm(2);
    bench.says(link, Message::Expose);
    assert_eq!(bench.give(Input::Shaken), [], "not even a changed network is a reason to try it");
    let link = served(&mut bench);
    bench.give(Input::Lost(link));
    assert!(again(&mut bench) <= Span::secs(1), "it is forgotten");
}

#[test]
fn what_an_old_stream_says_is_not_heard() {
    let mut bench = bench();
    let old = bench.warm(2);
    bench.give(Input::Lost(old));
    let (_, outputs) = bench.next();
    let [Output::Connect(new, _)] = outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(bench.says(old, Message::Exposed), []);
    assert_eq!(bench.give(Input::Connected(old)), []);
    assert_eq!(bench.give(Input::Lost(old)), []);
    assert_eq!(bench.give(Input::Connected(new)), [Output::Send(new, Message::Expose)]);
    assert_eq!(bench.wait(EXPOSE_PATIENCE), [Output::Close(new)]);
}

impl Bench {
    fn identity(&mut self) -> Identity {
        Identity::generate(&mut self.rng)
    }
}
