use std::net::IpAddr;

use kith_identity::Identity;
use kith_sansio::{SeededRng, Span, Timestamp};

use super::*;
use crate::relay::limits::{
    MAX_QUARANTINED, MAX_QUARANTINED_KNOWN, MAX_QUARANTINED_PER_SOURCE, MAX_SESSIONS, MAX_WAITING,
    QUOTA_PERIOD,
};

const OWN: Fingerprint = Fingerprint::from_bytes([1; 32]);

/// A relay, and the time.
struct Bench {
    relay: Relay,
    now: Now,
    rng: SeededRng,
    next: u64,
    /// What the relay does for whoever knocks.
    regard: Regard,
}

fn bench(quota: Quota) -> Bench {
    let settings = Settings { quota, stream_port: Some(7117), datagram_port: None };
    let now = Now { time: Time(0), utc: Timestamp(1_800_000_000) };
    Bench { relay: Relay::new(OWN, settings), now, rng: SeededRng::new(1), next: 0, regard: Regard::Stranger }
}

fn address(ip: [u8; 4]) -> Address {
    Address::new(kith_identity::Transport::Tcp, (IpAddr::from(ip), 9).into())
}

impl Bench {
    fn give(&mut self, input: Input) -> Vec<Output> {
        self.relay.handle_input(self.now, input, &mut self.rng);
        std::iter::from_fn(|| self.relay.poll_output()).collect()
    }

    fn wait(&mut self, span: Span) -> Vec<Output> {
        self.now.time += span;
        self.now.utc = self.now.utc.plus_secs(span.as_secs());
        self.relay.handle_timeout(self.now, &mut self.rng);
        assert!(self.relay.poll_timeout().is_none_or(|due| due > self.now.time));
        std::iter::from_fn(|| self.relay.poll_output()).collect()
    }

    fn identity(&mut self) -> Identity {
        Identity::generate(&mut self.rng)
    }

    fn arrives(&mut self, peer: Fingerprint, ip: [u8; 4], regard: Regard) -> Client {
        self.next += 1;
        let client = Client(self.next);
        let outputs = self.give(Input::Arrived { client, peer, from: address(ip), regard });
        assert_eq!(outputs, []);
        client
    }

    fn says(&mut self, client: Client, message: Message) -> Vec<Output> {
        self.give(Input::Message(client, message))
    }

    fn exposed(&mut self, peer: Fingerprint) -> Client {
        let client = self.arrives(peer, [10, 0, 0, 1], Regard::Known);
        let outputs = self.says(client, Message::Expose);
        let observed = Message::Observed(address([10, 0, 0, 1]));
        assert_eq!(outputs, [Output::Send(client, Message::Exposed), Output::Send(client, observed)]);
        client
    }

    fn request(&mut self, who: &Identity, target: Fingerprint) -> Request {
        Request::sign(who, OWN, target, (Carriage::Stream, vec![]), self.now.utc, &mut self.rng)
    }

    /// Somebody asks for `target`, from an address of his own.
    fn knocks(&mut self, who: &Identity, target: Fingerprint) -> (Client, Vec<Output>) {
        let next = self.next;
        let client = self.arrives(who.fingerprint(), [10, 7, (next >> 8) as u8, next as u8], self.regard);
        let request = self.request(who, target);
        (client, self.says(client, Message::Request(Box::new(request))))
    }

    /// Both are put together as far as having tokens.
    fn agreed(&mut self, who: &Identity, at: Client, target: Fingerprint) -> [Token; 2] {
        let (client, outputs) = self.knocks(who, target);
        let [_, Output::Send(to, Message::Knock(id, request))] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!((*to, request.initiator.fingerprint()), (at, who.fingerprint()));
        let outputs = self.says(at, Message::Admit(*id));
        let [
            Output::Send(asked, Message::Meet(met, theirs)),
            Output::Send(told, Message::Ack(his)),
            Output::Close(closed),
        ] = outputs[..]
        else {
            panic!("{outputs:?}")
        };
        assert_eq!((asked, met, told, closed), (at, *id, client, client));
        assert_eq!((his.port, theirs.port), (7117, 7117));
        [his.token, theirs.token]
    }

    fn joined(&mut self, who: &Identity, at: Client, target: Fingerprint) -> Session {
        let [his, theirs] = self.agreed(who, at, target);
        self.next += 2;
        let [one, two] = [self.next - 1, self.next].map(Side::Stream);
        assert_eq!(self.give(Input::Presented(theirs, two)), [Output::Wait(two)]);
        match self.give(Input::Presented(his, one))[..] {
            [Output::Join(joined)] => {
                assert_eq!((joined.sides, joined.payer), ([one, two], target));
                joined.session
            }
            ref other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_initiator_whom_the_target_admits_is_put_through() {
    let mut bench = bench(Quota::default());
    let (who, target) = (bench.identity(), bench.identity().fingerprint());
    let at = bench.exposed(target);
    let session = bench.joined(&who, at, target);
    assert_eq!(bench.relay.load(), Load { exposed: 1, waiting: 0, sessions: 1 });
    assert_eq!(bench.give(Input::Moved(session, 9_999)), []);
    assert_eq!(bench.give(Input::Ended(session)), []);
    assert_eq!(bench.relay.load(), Load { exposed: 1, waiting: 0, sessions: 0 });
}

#[test]
fn unknown_target_refusal_and_silence_are_one_answer_at_one_time() {
    let mut bench = bench(Quota::default());
    let target = bench.identity().fingerprint();
    let at = bench.exposed(target);
    for case in 0..3 {
        let who = bench.identity();
        let whom = if case == 0 { bench.identity().fingerprint() } else { target };
        let (client, outputs) = bench.knocks(&who, whom);
        let to_him = outputs.iter().filter(|one| matches!(one, Output::Send(to, _) if *to == client)).count();
        assert_eq!(to_him, 1, "he hears where he is seen");
        if case == 1 {
            let Some(Output::Send(_, Message::Knock(id, _))) = outputs.last() else { panic!("{outputs:?}") };
            assert_eq!(bench.says(at, Message::Decline(*id)), []);
            assert_eq!(bench.says(at, Message::Admit(*id)), [], "an answer counts once");
        }
        assert_eq!(bench.wait(Span(REFUSED_AFTER.0 - 1)), []);
        assert_eq!(bench.wait(Span(1)), [Output::Send(client, Message::Refused), Output::Close(client)]);
        assert_eq!(bench.relay.load().waiting, 0);
    }
}

#[test]
fn a_late_answer_and_the_answer_of_another_put_nobody_through() {
    let mut bench = bench(Quota::default());
    let (who, target, other) =
        (bench.identity(), bench.identity().fingerprint(), bench.identity().fingerprint());
    let (at, elsewhere) = (bench.exposed(target), bench.exposed(other));
    let (_, outputs) = bench.knocks(&who, target);
    let Some(Output::Send(_, Message::Knock(id, _))) = outputs.last() else { panic!("{outputs:?}") };
    assert_eq!(bench.says(elsewhere, Message::Admit(*id)), []);
    assert_eq!(bench.wait(REFUSED_AFTER).len(), 2);
    assert_eq!(bench.says(at, Message::Admit(*id)), []);
    assert_eq!(bench.relay.load(), Load { exposed: 2, waiting: 0, sessions: 0 });
}

/// The knocks that a target hears when it comes, on a new stream.
fn comes(bench: &mut Bench, target: Fingerprint) -> (Client, Vec<u32>) {
    let at = bench.arrives(target, [10, 0, 0, 2], Regard::Known);
    let knock = |output: Output| match output {
        Output::Send(to, Message::Knock(id, _)) if to == at => Some(id),
        _ => None,
    };
    (at, bench.says(at, Message::Expose).into_iter().filter_map(knock).collect())
}

#[test]
fn who_waits_is_put_through_by_a_target_that_comes_back_on_another_stream_or_comes_at_last() {
    for is_there in [true, false] {
        let mut bench = bench(Quota::default());
        let (target, elsewhere) = (bench.identity().fingerprint(), bench.identity().fingerprint());
        let before = is_there.then(|| bench.exposed(target));
        let (declined, who, other) = (bench.identity(), bench.identity(), bench.identity());
        let mut all = Vec::new();
        for (who, whom) in [(&declined, target), (&who, target), (&other, elsewhere)] {
            let (client, outputs) = bench.knocks(who, whom);
            assert_eq!(outputs.len(), 1 + usize::from(is_there && whom == target), "{outputs:?}");
            all.push(client);
        }
        if let Some(before) = before {
            assert_eq!(bench.says(before, Message::Decline(1)), []);
        }
        let (at, ids) = comes(&mut bench, target);
        assert_eq!(ids, if is_there { vec![2] } else { vec![1, 2] });
        if let Some(before) = before {
            assert_eq!(bench.says(before, Message::Admit(2)), [], "nobody hears what it says there");
        }
        let outputs = bench.says(at, Message::Admit(2));
        assert!(
            matches!(outputs[..], [_, Output::Send(to, Message::Ack(_)), _] if to == all[1]),
            "{outputs:?}"
        );
        assert_eq!(comes(&mut bench, target).1, if is_there { vec![] } else { vec![1] });
        assert_eq!(bench.wait(REFUSED_AFTER).len(), 4, "the others are refused");
        assert!(comes(&mut bench, target).1.is_empty());
    }
}

#[test]
fn a_target_that_does_nothing_but_come_back_is_asked_three_times() {
    let mut bench = bench(Quota::default());
    let (who, target) = (bench.identity(), bench.identity().fingerprint());
    bench.exposed(target);
    assert_eq!(bench.knocks(&who, target).1.len(), 2);
    let asked: Vec<usize> = (0..4).map(|_| comes(&mut bench, target).1.len()).collect();
    assert_eq!(asked, [1, 1, 0, 0]);
}

#[test]
fn what_is_no_proper_request_ends_the_stream() {
    let mut bench = bench(Quota::default());
    let (who, other) = (bench.identity(), bench.identity());
    let target = bench.identity().fingerprint();
    bench.exposed(target);
    let good = bench.request(&who, target);
    for wrong in [
        Message::Request(Box::new(Request { nonce: [0; 16], ..good.clone() })),
        Message::Request(Box::new(bench.request(&other, target))),
        Message::Request(Box::new(Request { expires: Timestamp(0), ..good.clone() })),
        Message::Ping(1),
        Message::Admit(1),
        Message::Exposed,
        Message::Knock(1, Box::new(good.clone())),
    ] {
        let client = bench.arrives(who.fingerprint(), [10, 0, 0, 9], Regard::Stranger);
        assert_eq!(bench.says(client, wrong), [Output::Close(client)]);
    }
    let client = bench.arrives(who.fingerprint(), [10, 0, 0, 9], Regard::Stranger);
    bench.says(client, Message::Request(Box::new(good.clone())));
    assert_eq!(
        bench.says(client, Message::Request(Box::new(good))),
        [Output::Close(client)],
        "one request a stream"
    );
    let silent = bench.arrives(who.fingerprint(), [10, 0, 0, 9], Regard::Stranger);
    assert_eq!(bench.wait(FIRST_MESSAGE_OF_STRANGER), [Output::Close(silent)]);
    assert_eq!(bench.relay.load().waiting, 0);
    let silent = bench.arrives(who.fingerprint(), [10, 0, 0, 9], Regard::Known);
    assert_eq!(bench.wait(Span(FIRST_MESSAGE.0 - 1)), []);
    assert_eq!(bench.wait(Span(1)), [Output::Close(silent)]);
}

#[test]
fn too_many_requests_are_refused_at_once_and_nobody_is_asked() {
    let mut bench = bench(Quota::default());
    let target = bench.identity().fingerprint();
    bench.exposed(target);
    let who = bench.identity();
    let (_, outputs) = bench.knocks(&who, target);
    assert_eq!(outputs.len(), 2);
    let (client, outputs) = bench.knocks(&who, target);
    assert_eq!(outputs, [Output::Send(client, Message::Refused), Output::Close(client)]);
    for n in 0..=MAX_QUARANTINED_PER_SOURCE {
        let who = bench.identity();
        let client = bench.arrives(who.fingerprint(), [10, 200, 0, 1], Regard::Stranger);
        let request = bench.request(&who, target);
        let outputs = bench.says(client, Message::Request(Box::new(request)));
        assert_eq!(outputs.contains(&Output::Close(client)), n == MAX_QUARANTINED_PER_SOURCE);
    }
    bench.wait(REFUSED_AFTER);
    let (_, outputs) = bench.knocks(&who, target);
    assert_eq!(outputs.len(), 2, "there is room again");
}

#[test]
fn who_leaves_before_he_is_refused_cannot_ask_again_sooner() {
    let mut bench = bench(Quota::default());
    let target = bench.identity().fingerprint();
    let at = bench.exposed(target);
    let who = bench.identity();
    let (client, outputs) = bench.knocks(&who, target);
    let Some(Output::Send(_, Message::Knock(id, _))) = outputs.last() else { panic!("{outputs:?}") };
    assert_eq!(bench.give(Input::Left(client)), []);
    assert_eq!(bench.says(at, Message::Admit(*id)), [], "he is not there any more");
    assert_eq!(bench.relay.load(), Load { exposed: 1, waiting: 1, sessions: 0 });
    for _ in 0..100 {
        let (client, outputs) = bench.knocks(&who, target);
        assert_eq!(outputs, [Output::Send(client, Message::Refused), Output::Close(client)]);
    }
    // Nor with other keys, from where he is.
    let mut knocked = 0;
    for _ in 0..100 {
        let who = bench.identity();
        let client = bench.arrives(who.fingerprint(), [10, 200, 0, 1], Regard::Stranger);
        let request = bench.request(&who, target);
        let outputs = bench.says(client, Message::Request(Box::new(request)));
        knocked += outputs.iter().filter(|one| matches!(one, Output::Send(_, Message::Knock(..)))).count();
        bench.give(Input::Left(client));
    }
    assert_eq!(knocked, MAX_QUARANTINED_PER_SOURCE);
    assert_eq!(bench.wait(Span(REFUSED_AFTER.0 - 1)), []);
    let (client, outputs) = bench.knocks(&who, target);
    assert_eq!(outputs, [Output::Send(client, Message::Refused), Output::Close(client)]);
    assert_eq!(bench.wait(Span(1)), [], "there is nobody to be told");
    assert_eq!(bench.relay.load(), Load { exposed: 1, waiting: 0, sessions: 0 });
    bench.joined(&who, at, target);
    // Whom the target admits does not wait for anything.
    bench.joined(&who, at, target);
}

#[test]
fn as_many_as_can_wait_may_ask_for_one_target_at_once() {
    let mut bench = bench(Quota::default());
    let (target, again) = (bench.identity().fingerprint(), bench.identity());
    let at = bench.exposed(target);
    for round in 0..3 {
        let mut asked = Vec::new();
        for _ in 0..MAX_QUARANTINED {
            let who = bench.identity();
            let (_, outputs) = bench.knocks(&who, target);
            let [_, Output::Send(to, Message::Knock(id, _))] = outputs[..] else { panic!("{outputs:?}") };
            assert_eq!(to, at);
            asked.push(id);
        }
        assert!(asked.iter().all(|id| bench.says(at, Message::Decline(*id)).is_empty()), "{round}");
        assert_eq!(bench.relay.load(), Load { exposed: 1, waiting: MAX_QUARANTINED, sessions: 0 });
        let outputs = bench.wait(REFUSED_AFTER);
        let refused = outputs.iter().filter(|one| matches!(one, Output::Send(_, Message::Refused))).count();
        assert_eq!(refused, MAX_QUARANTINED);
        assert_eq!(bench.relay.load(), Load { exposed: 1, waiting: 0, sessions: 0 });
    }
    let outputs = bench.knocks(&again, target).1;
    assert!(matches!(outputs[..], [_, Output::Send(..)]), "{outputs:?}");
}

#[test]
fn strangers_and_those_whom_the_relay_knows_wait_each_in_a_number_of_their_own() {
    let mut bench = bench(Quota::default());
    let target = bench.identity().fingerprint();
    bench.exposed(target);
    let knocks =
        |bench: &mut Bench| bench.knocks(&Identity::generate(&mut SeededRng::new(7)), target).1.len();
    for (regard, most) in [
        // Anybody may be made reachable by a relay that serves anyone, and is no less a stranger for that.
        (Regard::Served, MAX_QUARANTINED_PER_SOURCE),
        (Regard::Stranger, MAX_QUARANTINED_PER_SOURCE),
        (Regard::Known, MAX_QUARANTINED_KNOWN),
    ] {
        let mut waiting = 0;
        for _ in 0..MAX_WAITING {
            let who = bench.identity();
            let client = bench.arrives(who.fingerprint(), [10, 200, regard as u8, 1], regard);
            let request = bench.request(&who, target);
            let outputs = bench.says(client, Message::Request(Box::new(request)));
            waiting += usize::from(!outputs.contains(&Output::Close(client)));
        }
        assert_eq!(waiting, most, "{regard:?}");
    }
    assert_eq!(knocks(&mut bench), 2, "others are not in their way");
}

#[test]
fn strangers_leave_a_quarter_of_a_targets_sessions_to_those_whom_the_relay_knows() {
    let mut bench = bench(Quota::default());
    let (target, all) = (bench.identity().fingerprint(), Quota::default().sessions as usize);
    let at = bench.exposed(target);
    for which in 0..all * 3 / 4 {
        bench.regard = if which % 2 == 0 { Regard::Served } else { Regard::Stranger };
        let who = bench.identity();
        bench.agreed(&who, at, target);
    }
    let who = bench.identity();
    assert_eq!(bench.knocks(&who, target).1.len(), 1, "the target is not asked for another stranger");
    bench.regard = Regard::Known;
    let known = bench.identity();
    for _ in 0..all / 4 {
        bench.joined(&known, at, target);
    }
    assert_eq!(bench.knocks(&known, target).1.len(), 1, "all are taken");
    bench.regard = Regard::Stranger;
    bench.wait(TOKEN_LIFE);
    assert_eq!(bench.relay.load().sessions, all / 4, "no stranger came");
    bench.joined(&who, at, target);
}

#[test]
fn who_is_blocked_or_known_no_more_is_cut_as_an_initiator_too() {
    for (before, after, is_cut) in [
        (Regard::Known, Regard::Stranger, true),
        (Regard::Known, Regard::Served, true),
        (Regard::Known, Regard::Barred, true),
        (Regard::Stranger, Regard::Barred, true),
        (Regard::Stranger, Regard::Known, false),
        (Regard::Stranger, Regard::Stranger, false),
        (Regard::Known, Regard::Known, false),
    ] {
        let mut bench = bench(Quota::default());
        bench.regard = before;
        let (who, target) = (bench.identity(), bench.identity().fingerprint());
        let at = bench.exposed(target);
        let session = bench.joined(&who, at, target);
        let (waits, _) = bench.knocks(&who, target);
        let users = bench.relay.users();
        assert!(users.len() == 2 && users.contains(&who.fingerprint()));
        let outputs = bench.give(Input::Regarded(who.fingerprint(), after));
        assert_eq!(outputs.contains(&Output::End(session)), is_cut, "{before:?} {after:?}");
        assert_eq!(outputs.contains(&Output::Close(waits)), after == Regard::Barred, "{after:?}");
    }
    let mut bench = bench(Quota::default());
    let who = bench.identity().fingerprint();
    let client = Client(1);
    let arrived = Input::Arrived { client, peer: who, from: address([10, 0, 0, 1]), regard: Regard::Barred };
    assert_eq!(bench.give(arrived), [Output::Close(client)]);
    assert!(bench.relay.users().is_empty());
}

#[test]
fn tokens_open_one_side_once_and_for_a_while() {
    let mut bench = bench(Quota::default());
    let (who, target) = (bench.identity(), bench.identity().fingerprint());
    let at = bench.exposed(target);
    let [his, theirs] = bench.agreed(&who, at, target);
    let (one, two, three) = (Side::Stream(1), Side::Stream(2), Side::Stream(3));
    let forged = Token::from_bytes([7; 16]);
    assert_eq!(bench.give(Input::Presented(forged, one)), [Output::Reject(one)]);
    assert_eq!(bench.give(Input::Presented(his, one)), [Output::Wait(one)]);
    assert_eq!(bench.give(Input::Presented(his, two)), [Output::Reject(two)]);
    assert!(matches!(bench.give(Input::Presented(theirs, two))[..], [Output::Join(_)]));
    for token in [his, theirs] {
        assert_eq!(bench.give(Input::Presented(token, three)), [Output::Reject(three)]);
    }
    let [his, theirs] = bench.agreed(&who, at, target);
    assert_eq!(bench.give(Input::Presented(his, three)), [Output::Wait(three)]);
    assert_eq!(bench.wait(TOKEN_LIFE), [Output::Reject(three)]);
    assert_eq!(bench.give(Input::Presented(theirs, three)), [Output::Reject(three)]);
    let [his, theirs] = bench.agreed(&who, at, target);
    let datagrams = Side::Datagrams("192.0.2.1:5".parse().unwrap());
    assert_eq!(bench.give(Input::Presented(his, datagrams)), [Output::Reject(datagrams)]);
    assert_eq!(
        bench.give(Input::Presented(theirs, one)),
        [Output::Reject(one)],
        "a joined side stays where it is"
    );
    let [his, _] = bench.agreed(&who, at, target);
    let four = Side::Stream(4);
    assert_eq!(bench.give(Input::Presented(his, four)), [Output::Wait(four)]);
    assert_eq!(bench.give(Input::Withdrawn(four)), []);
    assert_eq!(bench.relay.load().sessions, 2);
}

#[test]
fn a_datagram_with_a_token_may_come_again() {
    let mut bench = bench(Quota::default());
    bench.relay.settings.datagram_port = Some(9);
    let (who, target) = (bench.identity(), bench.identity().fingerprint());
    let at = bench.exposed(target);
    let client = bench.arrives(who.fingerprint(), [10, 9, 9, 9], Regard::Stranger);
    let carriage = (Carriage::Datagrams, vec![]);
    let request = Request::sign(&who, OWN, target, carriage, bench.now.utc, &mut bench.rng);
    let outputs = bench.says(client, Message::Request(Box::new(request)));
    let Some(Output::Send(_, Message::Knock(id, _))) = outputs.last() else { panic!("{outputs:?}") };
    let outputs = bench.says(at, Message::Admit(*id));
    let [Output::Send(_, Message::Meet(_, theirs)), Output::Send(_, Message::Ack(his)), _] = outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(his.port, 9);
    let [one, two] = ["192.0.2.1:5", "192.0.2.1:6"].map(|at| Side::Datagrams(at.parse().unwrap()));
    for _ in 0..2 {
        assert_eq!(bench.give(Input::Presented(his.token, one)), [Output::Wait(one)]);
    }
    assert_eq!(
        bench.give(Input::Presented(theirs.token, one)),
        [Output::Reject(one)],
        "one socket, one side"
    );
    assert!(matches!(bench.give(Input::Presented(theirs.token, two))[..], [Output::Join(_)]));
    assert_eq!(bench.give(Input::Presented(theirs.token, two)), [Output::Again(two)]);
    assert_eq!(bench.give(Input::Presented(his.token, one)), [Output::Again(one)]);
}

#[test]
fn quotas_bound_sessions_and_bytes_of_target_and_initiator() {
    let quota = Quota { sessions: 2, bytes_per_day: Some(1_000), bytes_per_second: Some(5) };
    let mut bench = bench(quota);
    bench.regard = Regard::Known;
    let (who, target) = (bench.identity(), bench.identity().fingerprint());
    let at = bench.exposed(target);
    let first = bench.joined(&who, at, target);
    let second = bench.joined(&who, at, target);
    let (_, outputs) = bench.knocks(&who, target);
    assert_eq!(outputs.len(), 1, "the target is not asked for a third");
    bench.wait(REFUSED_AFTER);
    bench.give(Input::Ended(second));
    let second = bench.joined(&who, at, target);
    assert_eq!(bench.give(Input::Moved(first, 999)), []);
    assert_eq!(bench.give(Input::Moved(second, 1)), [Output::End(second)]);
    assert_eq!(bench.give(Input::Moved(second, 1)), [], "once");
    bench.give(Input::Ended(second));
    let (_, outputs) = bench.knocks(&who, target);
    assert_eq!(outputs.len(), 1, "the day's bytes are used up");
    bench.wait(REFUSED_AFTER);
    bench.wait(QUOTA_PERIOD);
    let at = bench.exposed(target);
    bench.joined(&who, at, target);
}

#[test]
fn sessions_are_bounded_in_all_whoever_they_are_of() {
    let mut bench = bench(Quota { sessions: u32::MAX, ..Quota::default() });
    let (who, target) = (bench.identity(), bench.identity().fingerprint());
    let at = bench.exposed(target);
    for _ in 0..MAX_SESSIONS {
        bench.agreed(&who, at, target);
        // Time for what both may say to be allowed again.
        bench.now.time += Span::millis(20);
    }
    let (client, outputs) = bench.knocks(&who, target);
    assert!(matches!(outputs[..], [Output::Send(to, Message::Observed(_))] if to == client), "{outputs:?}");
    assert_eq!(bench.relay.load().sessions, MAX_SESSIONS);
    bench.wait(TOKEN_LIFE);
    assert_eq!(bench.relay.load().sessions, 0);
}

#[test]
fn whom_the_relay_does_not_serve_is_not_exposed_and_whom_it_ceases_to_serve_is_cut() {
    let mut bench = bench(Quota::default());
    let (who, target) = (bench.identity(), bench.identity().fingerprint());
    let stranger = bench.arrives(target, [10, 0, 0, 1], Regard::Stranger);
    let outputs = bench.says(stranger, Message::Expose);
    assert_eq!(outputs, [Output::Send(stranger, Message::Refused), Output::Close(stranger)]);
    let at = bench.exposed(target);
    let session = bench.joined(&who, at, target);
    let [his, _] = bench.agreed(&who, at, target);
    let waits = Side::Stream(99);
    bench.give(Input::Presented(his, waits));
    assert!(bench.relay.users().contains(&target));
    let outputs = bench.give(Input::Regarded(target, Regard::Stranger));
    assert_eq!(outputs, [Output::Close(at), Output::End(session), Output::Reject(waits)]);
    assert_eq!(bench.relay.load(), Load { exposed: 0, waiting: 0, sessions: 1 });
    bench.give(Input::Ended(session));
    assert!(bench.relay.users().is_empty());
}

#[test]
fn an_exposed_node_that_is_silent_or_comes_again_or_floods_is_let_go() {
    let mut bench = bench(Quota::default());
    let target = bench.identity().fingerprint();
    let first = bench.exposed(target);
    let second = bench.arrives(target, [10, 0, 0, 2], Regard::Known);
    assert_eq!(bench.says(second, Message::Expose)[0], Output::Close(first));
    assert_eq!(bench.relay.load().exposed, 1);
    assert_eq!(bench.give(Input::Left(first)), []);
    assert_eq!(bench.relay.load().exposed, 1, "the old stream's end is not the new one's");
    assert_eq!(bench.wait(Span(EXPOSED_SILENCE.0 - 1)), []);
    assert_eq!(bench.says(second, Message::Ping(4)), [Output::Send(second, Message::Pong(4))]);
    assert_eq!(bench.wait(Span(EXPOSED_SILENCE.0 - 1)), []);
    assert_eq!(bench.wait(Span(1)), [Output::Close(second)]);
    let third = bench.exposed(target);
    let outputs: Vec<_> = (0..4_000).flat_map(|n| bench.says(third, Message::Ping(n))).collect();
    assert_eq!(outputs.last(), Some(&Output::Close(third)));
    assert!(outputs.len() <= MESSAGES_AT_ONCE as usize);
    assert_eq!(bench.relay.load(), Load::default());
}
