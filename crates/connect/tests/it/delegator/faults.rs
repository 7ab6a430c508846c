//! A delegator that lies, stalls, floods or replays, and subscribers that do.

use std::sync::Arc;

use kith_connect::Protocol;
use kith_connect::defaults;
use kith_connect::delegator::{
    ClosedFor, Delta, Direction, Entry, EntryError, Epoch, Fault, Message, Opener, Policy, Rights, Server,
    ServerInput, ServerOutput, SessionId, Stage, Subscriber, SubscriberInput, SubscriberOutput, Until,
    Update,
};
use kith_identity::Fingerprint;
use kith_sansio::{Machine, Now, SeededRng, Span, Timestamp};

use super::{card, mesh, rule, who};

const EPOCH: Epoch = Epoch([1; 16]);
const PING: Protocol = Protocol::new("ping/1");

fn entry(n: u8) -> Entry {
    let mut rights = Rights::default();
    rights.allow(None, Direction::Both, Until::Forever);
    Entry { peer: who(n), card: card(&format!("node {n}")), rights }
}

fn update(base: Option<u64>, revision: u64, put: &[u8]) -> Update {
    let delta = Delta { put: put.iter().map(|n| Arc::new(entry(*n))).collect(), gone: Vec::new() };
    Update { epoch: EPOCH, revision, base, lease_secs: 3600, delta, more: false }
}

/// A subscriber with a hand-made delegator.
struct Bench {
    subscriber: Subscriber,
    now: Now,
    rng: SeededRng,
}

impl Bench {
    /// Connected, and the list with revision 5 in force: node 1.
    fn current() -> Bench {
        let now = Now { utc: Timestamp(1_767_225_600), ..Now::default() };
        let mut bench = Bench { subscriber: Subscriber::new(who(0), now), now, rng: SeededRng::new(1) };
        assert_eq!(bench.outputs(), [SubscriberOutput::Connect]);
        bench.connect(None);
        let outputs = bench.hear(Message::Update(update(None, 5, &[1])));
        assert_eq!(outputs, [SubscriberOutput::Changed, SubscriberOutput::Send(Message::Applied(5))]);
        bench
    }

    fn connect(&mut self, held: Option<(Epoch, u64)>) {
        let outputs = self.give(SubscriberInput::Connected);
        assert_eq!(outputs, [SubscriberOutput::Send(Message::Subscribe(held))]);
    }

    fn outputs(&mut self) -> Vec<SubscriberOutput> {
        std::iter::from_fn(|| self.subscriber.poll_output()).collect()
    }

    fn give(&mut self, input: SubscriberInput) -> Vec<SubscriberOutput> {
        self.subscriber.handle_input(self.now, input, &mut self.rng);
        self.outputs()
    }

    fn hear(&mut self, message: Message) -> Vec<SubscriberOutput> {
        self.give(SubscriberInput::Received(message))
    }

    fn wait(&mut self, span: Span) -> Vec<SubscriberOutput> {
        self.now.time += span;
        self.now.utc = self.now.utc.plus_secs(span.as_secs());
        self.subscriber.handle_timeout(self.now, &mut self.rng);
        self.outputs()
    }

    /// The delegator's word ends the conversation, and what was in force stays so.
    #[track_caller]
    fn refuses(mut self, message: Message, fault: &Fault) {
        assert_eq!(self.hear(message), [SubscriberOutput::Disconnect(fault.clone())]);
        assert_eq!(self.subscriber.stage(), Stage::Waiting);
        assert!(self.subscriber.permits(Opener::Own, &who(1), &PING, self.now));
        assert_eq!(self.subscriber.entries(self.now).count(), 1);
        assert_eq!(self.wait(Span::secs(60)), [SubscriberOutput::Connect]);
        self.connect(None);
    }
}

#[test]
fn a_delegator_that_lies_or_replays_ends_its_conversation_and_changes_nothing() {
    let cases = [
        (update(Some(4), 6, &[2]), Fault::Misfit, "a change of an older list"),
        (update(Some(6), 7, &[2]), Fault::Misfit, "a change of a list that was never told"),
        (update(Some(5), 5, &[2]), Fault::Misfit, "a change that leads nowhere"),
        (update(Some(5), 4, &[2]), Fault::Misfit, "a change backwards"),
        (update(None, 6, &[2]), Fault::Misfit, "a whole list in the middle"),
        (Update { epoch: Epoch([2; 16]), ..update(Some(5), 6, &[2]) }, Fault::Misfit, "of another life"),
        (update(Some(5), 6, &[0]), Fault::Misfit, "the subscriber on its own list: somebody else's"),
    ];
    for (update, fault, what) in cases {
        println!("{what}");
        Bench::current().refuses(Message::Update(update), &fault);
    }
    let gone = Delta { put: Vec::new(), gone: vec![who(9)] };
    let absent = Update { delta: gone, ..update(Some(5), 6, &[]) };
    Bench::current().refuses(Message::Update(absent), &Fault::Entry(EntryError::Absent(who(9))));
    let half = Delta { put: vec![Arc::new(entry(2))], gone: vec![who(1), who(9)] };
    let half = Update { delta: half, ..update(Some(5), 6, &[]) };
    Bench::current().refuses(Message::Update(half), &Fault::Entry(EntryError::Absent(who(9))));
    Bench::current().refuses(Message::Alive(EPOCH, 4), &Fault::Misfit);
    Bench::current().refuses(Message::Applied(5), &Fault::OutOfPlace);
    Bench::current().refuses(Message::Subscribe(None), &Fault::OutOfPlace);
}

#[test]
fn an_older_list_of_the_same_life_is_refused_after_a_new_connection_too() {
    let mut bench = Bench::current();
    bench.give(SubscriberInput::Lost);
    assert_eq!(bench.wait(Span::secs(60)), [SubscriberOutput::Connect]);
    bench.connect(Some((EPOCH, 5)));
    let outputs = bench.hear(Message::Update(update(None, 4, &[2])));
    assert_eq!(outputs, [SubscriberOutput::Disconnect(Fault::Misfit)]);
    bench.wait(Span::secs(60));
    bench.connect(None);
    let outputs = bench.hear(Message::Update(update(None, 4, &[2])));
    assert_eq!(outputs, [SubscriberOutput::Disconnect(Fault::Misfit)], "nor when it was asked for");
    bench.wait(Span::secs(60));
    bench.connect(None);
    let outputs = bench.hear(Message::Update(update(None, 5, &[1])));
    assert_eq!(outputs, [SubscriberOutput::Send(Message::Applied(5))]);
}

#[test]
fn a_change_in_parts_holds_when_it_is_whole_and_not_before() {
    let mut bench = Bench::current();
    let part = Update { more: true, ..update(Some(5), 6, &[2]) };
    assert_eq!(bench.hear(Message::Update(part.clone())), []);
    assert_eq!(bench.subscriber.entries(bench.now).count(), 1);
    let last = update(Some(5), 6, &[3]);
    bench.hear(Message::Update(last));
    assert_eq!(bench.subscriber.entries(bench.now).count(), 3);
    let mut broken = Bench::current();
    broken.hear(Message::Update(part.clone()));
    broken.refuses(Message::Update(update(Some(5), 7, &[3])), &Fault::OutOfPlace);
    let mut vouched = Bench::current();
    vouched.hear(Message::Update(part));
    vouched.refuses(Message::Alive(EPOCH, 5), &Fault::OutOfPlace);
    let empty = Update { more: true, ..update(Some(5), 6, &[]) };
    Bench::current().refuses(Message::Update(empty), &Fault::Flood);
}

#[test]
fn a_flood_ends_the_conversation_and_the_next_one_is_further_away_each_time() {
    let mut bench = Bench::current();
    let mut waits = Vec::new();
    for _ in 0..8 {
        let mut heard = 0;
        while bench.subscriber.stage() == Stage::Current || heard == 0 {
            bench.hear(Message::Alive(EPOCH, 5));
            heard += 1;
            assert!(heard <= defaults::MAX_MESSAGES_PER_SECOND);
        }
        let due = bench.subscriber.poll_timeout().unwrap();
        waits.push(due - bench.now.time);
        assert_eq!(bench.wait(due - bench.now.time), [SubscriberOutput::Connect]);
        bench.connect(None);
        bench.hear(Message::Update(update(None, 5, &[1])));
    }
    assert!(waits[7] >= Span::secs(15) && waits.iter().all(|wait| *wait <= Span::secs(60)), "{waits:?}");
}

#[test]
fn a_delegator_that_stalls_is_left_and_its_list_ends_with_the_lease() {
    let mut bench = Bench::current();
    let silent = [SubscriberOutput::Disconnect(Fault::Silent)];
    assert_eq!(bench.wait(Span::secs(1799)), []);
    assert_eq!(bench.wait(Span::secs(1)), silent);
    bench.wait(Span::secs(60));
    bench.connect(None);
    assert_eq!(bench.wait(Span::secs(30)), silent, "admitted, and then silence");
    assert!(bench.subscriber.permits(Opener::Peer, &who(1), &PING, bench.now));
    let outputs = bench.wait(Span::secs(1800));
    assert!(outputs.contains(&SubscriberOutput::Changed), "{outputs:?}");
    assert!(!bench.subscriber.permits(Opener::Peer, &who(1), &PING, bench.now));
    assert!(bench.subscriber.list().is_empty());
}

#[test]
fn a_list_does_not_outlive_its_lease_while_the_machine_sleeps() {
    let mut bench = Bench::current();
    bench.now.utc = bench.now.utc.plus_secs(3600);
    assert!(!bench.subscriber.permits(Opener::Peer, &who(1), &PING, bench.now));
    assert_eq!(bench.subscriber.holds_until(bench.now), None);
    bench.now.utc = bench.now.utc.minus_secs(7200);
    assert!(
        bench.subscriber.permits(Opener::Peer, &who(1), &PING, bench.now),
        "a clock set back proves nothing"
    );
}

#[test]
fn a_whole_list_in_parts_stays_whole_where_the_old_lease_ends_on_the_way() {
    let mut bench = Bench::current();
    bench.wait(Span::secs(1800));
    assert_eq!(bench.wait(Span::secs(1780)), [SubscriberOutput::Connect]);
    bench.connect(None);
    let part = |more, put: &[u8]| Message::Update(Update { more, ..update(None, 9, put) });
    assert_eq!(bench.hear(part(true, &[1, 2])), []);
    assert_eq!(bench.wait(Span::secs(25)), [SubscriberOutput::Changed], "the old one is over");
    let outputs = bench.hear(part(false, &[3]));
    assert_eq!(outputs, [SubscriberOutput::Changed, SubscriberOutput::Send(Message::Applied(9))]);
    assert_eq!(bench.subscriber.entries(bench.now).count(), 3);
}

#[test]
fn a_change_whose_list_is_over_on_the_way_leads_to_a_whole_list() {
    let mut bench = Bench::current();
    bench.hear(Message::Update(Update { more: true, ..update(Some(5), 6, &[2]) }));
    bench.now.utc = bench.now.utc.plus_secs(3600);
    assert_eq!(bench.wait(Span::secs(1)), [SubscriberOutput::Changed]);
    let outputs = bench.hear(Message::Update(update(Some(5), 6, &[3])));
    assert_eq!(outputs, [SubscriberOutput::Disconnect(Fault::Misfit)]);
    assert!(bench.subscriber.list().is_empty());
}

#[test]
fn a_list_that_needs_long_arrives_as_long_as_its_parts_come_and_not_for_ever() {
    let mut bench = Bench::current();
    bench.give(SubscriberInput::Lost);
    bench.wait(Span::secs(60));
    bench.connect(Some((EPOCH, 5)));
    let part = |revision, more, n| Message::Update(Update { more, ..update(None, revision, &[n]) });
    for n in 1..=3 {
        assert_eq!(bench.hear(part(9, true, n)), []);
        assert_eq!(bench.wait(Span::secs(29)), [], "part {n}");
    }
    bench.hear(part(9, false, 4));
    assert_eq!(bench.subscriber.entries(bench.now).count(), 4);
    bench.give(SubscriberInput::Lost);
    bench.wait(Span::secs(60));
    bench.connect(Some((EPOCH, 9)));
    let began = bench.now.time;
    let last = (1..=99).find(|n| {
        assert_eq!(bench.hear(part(10, true, *n)), []);
        bench.wait(Span::secs(29)).contains(&SubscriberOutput::Disconnect(Fault::Silent))
    });
    assert!(last.is_some());
    assert!(bench.now.time <= began + defaults::LIST_PATIENCE + Span::secs(29));
}

#[test]
fn the_wall_clock_is_looked_at_within_a_minute_while_a_list_is_in_force() {
    let mut bench = Bench::current();
    let next = |bench: &Bench| bench.subscriber.poll_timeout().unwrap() - bench.now.time;
    assert!(next(&bench) <= Span::secs(60));
    assert_eq!(bench.wait(Span::secs(60)), []);
    assert!(next(&bench) <= Span::secs(60) && next(&bench) > Span::ZERO, "{}", next(&bench));
    // The machine has slept for an hour.
    bench.now.utc = bench.now.utc.plus_secs(3600);
    let wait = next(&bench);
    assert_eq!(bench.wait(wait), [SubscriberOutput::Changed], "what is open is cut");
}

struct Desk {
    server: Server,
    now: Now,
}

impl Desk {
    fn new() -> Desk {
        Desk { server: Server::new(Arc::new(mesh()), EPOCH, Span::secs(3600)), now: Now::default() }
    }

    fn give(&mut self, input: ServerInput) -> Vec<ServerOutput> {
        self.server.handle_input(self.now, input, &mut SeededRng::new(1));
        std::iter::from_fn(|| self.server.poll_output()).collect()
    }

    fn hear(&mut self, session: u64, message: Message) -> Vec<ServerOutput> {
        self.give(ServerInput::Received(SessionId(session), message))
    }

    fn wait(&mut self, span: Span) -> Vec<ServerOutput> {
        self.now.time += span;
        self.server.handle_timeout(self.now, &mut SeededRng::new(1));
        std::iter::from_fn(|| self.server.poll_output()).collect()
    }
}

fn closed(session: u64, reason: ClosedFor) -> Vec<ServerOutput> {
    vec![ServerOutput::Close(SessionId(session), reason)]
}

#[test]
fn a_stranger_hears_nothing() {
    let mut desk = Desk::new();
    let outputs = desk.give(ServerInput::Opened(SessionId(1), who(99)));
    assert_eq!(outputs, closed(1, ClosedFor::NoMember));
    assert_eq!(desk.hear(1, Message::Subscribe(None)), []);
    assert_eq!(desk.server.sessions(), 0);
}

#[test]
fn a_subscriber_that_says_what_does_not_fit_or_nothing_is_let_go() {
    for wrong in [Message::Applied(1), Message::Alive(EPOCH, 1), Message::Update(update(None, 1, &[]))] {
        let mut desk = Desk::new();
        assert_eq!(desk.give(ServerInput::Opened(SessionId(1), who(0))), []);
        assert_eq!(desk.hear(1, wrong), closed(1, ClosedFor::Protocol));
    }
    let mut desk = Desk::new();
    desk.give(ServerInput::Opened(SessionId(1), who(0)));
    assert_eq!(desk.wait(Span::secs(30)), closed(1, ClosedFor::Silent), "it does not say what it holds");
    desk.give(ServerInput::Opened(SessionId(2), who(0)));
    desk.hear(2, Message::Subscribe(None));
    assert_eq!(desk.wait(Span::secs(30)), closed(2, ClosedFor::Silent), "nor that it has its list");
    desk.give(ServerInput::Opened(SessionId(3), who(0)));
    desk.hear(3, Message::Subscribe(None));
    assert_eq!(desk.hear(3, Message::Applied(7)), closed(3, ClosedFor::Protocol), "another list");
    assert_eq!((desk.server.sessions(), desk.server.poll_timeout()), (0, None));
}

#[test]
fn a_subscriber_has_more_time_to_answer_where_its_list_comes_in_parts() {
    let mut policy = Policy::default();
    for n in 0..2_000_u16 {
        let who = Fingerprint::from_bytes([n.to_be_bytes(); 16].concat().try_into().unwrap());
        policy.enter(who, card(&format!("node {n}")), "all".parse().unwrap()).unwrap();
    }
    policy.grant(rule("all", "all", Direction::Both, Until::Forever)).unwrap();
    let server = Server::new(Arc::new(policy), EPOCH, Span::secs(3600));
    let mut desk = Desk { server, now: Now::default() };
    let first = Fingerprint::from_bytes([0; 32]);
    let open = |desk: &mut Desk, session| {
        desk.give(ServerInput::Opened(SessionId(session), first));
        assert!(desk.hear(session, Message::Subscribe(None)).len() > 1);
    };
    open(&mut desk, 1);
    assert_eq!(desk.wait(Span::secs(599)), [], "it is still under way");
    assert_eq!(desk.hear(1, Message::Applied(1)), []);
    open(&mut desk, 2);
    let outputs = desk.wait(defaults::LIST_PATIENCE);
    assert!(outputs.contains(&closed(2, ClosedFor::Silent)[0]), "and not for ever");
}

#[test]
fn one_change_is_under_way_to_a_slow_subscriber_and_the_next_holds_all_that_came_since() {
    let mut desk = Desk::new();
    desk.give(ServerInput::Opened(SessionId(1), who(0)));
    desk.hear(1, Message::Subscribe(None));
    for n in [1, 2, 3] {
        let mut policy = (**desk.server.policy()).clone();
        policy.expel(&who(n)).unwrap();
        assert_eq!(desk.give(ServerInput::Policy(Arc::new(policy))), [], "it has not answered");
    }
    let outputs = desk.hear(1, Message::Applied(1));
    let [ServerOutput::Send(_, Message::Update(update))] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((update.base, update.revision), (Some(1), 4));
    assert_eq!(update.delta.gone, [who(1), who(2), who(3)]);
    assert_eq!(desk.server.subscribers().collect::<Vec<_>>(), [(&who(0), false)]);
    assert_eq!(desk.hear(1, Message::Applied(4)), []);
    assert_eq!(desk.server.subscribers().collect::<Vec<_>>(), [(&who(0), true)]);
}

#[test]
fn a_change_that_leaves_a_list_as_it_is_is_not_told() {
    let mut desk = Desk::new();
    desk.give(ServerInput::Opened(SessionId(1), who(0)));
    desk.hear(1, Message::Subscribe(None));
    desk.hear(1, Message::Applied(1));
    let mut policy = (**desk.server.policy()).clone();
    policy.enter(who(50), card("elsewhere"), "nowhere".parse().unwrap()).unwrap();
    assert_eq!(desk.give(ServerInput::Policy(Arc::new(policy))), []);
    assert_eq!(desk.server.subscribers().collect::<Vec<_>>(), [(&who(0), true)]);
    let alive = ServerOutput::Send(SessionId(1), Message::Alive(EPOCH, 1));
    assert_eq!(desk.wait(Span::secs(60)), [alive], "and the list is vouched for under its number");
}

#[test]
fn whoever_is_expelled_hears_that_its_list_is_empty_and_is_let_go() {
    let mut desk = Desk::new();
    desk.give(ServerInput::Opened(SessionId(1), who(0)));
    desk.hear(1, Message::Subscribe(None));
    desk.hear(1, Message::Applied(1));
    let mut policy = (**desk.server.policy()).clone();
    policy.expel(&who(0)).unwrap();
    let outputs = desk.give(ServerInput::Policy(Arc::new(policy)));
    let [ServerOutput::Send(_, Message::Update(update))] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(update.delta.gone.len(), 4);
    assert_eq!(desk.hear(1, Message::Applied(2)), closed(1, ClosedFor::NoMember));
}

#[test]
fn a_subscriber_that_comes_again_and_again_is_turned_away_until_its_minute_is_over() {
    let mut desk = Desk::new();
    let most = u64::from(defaults::MAX_SUBSCRIPTIONS_PER_MINUTE);
    for session in 1..=most {
        desk.give(ServerInput::Opened(SessionId(session), who(0)));
        assert_eq!(desk.hear(session, Message::Subscribe(None)).len(), 1);
        desk.give(ServerInput::Closed(SessionId(session)));
    }
    assert_eq!(desk.give(ServerInput::Opened(SessionId(50), who(0))), closed(50, ClosedFor::TooOften));
    assert_eq!(desk.hear(50, Message::Subscribe(None)), []);
    assert_eq!(desk.give(ServerInput::Opened(SessionId(51), who(1))), [], "others do not suffer for it");
    desk.wait(Span::secs(60));
    assert_eq!(desk.give(ServerInput::Opened(SessionId(52), who(0))), []);
}

#[test]
fn a_subscriber_has_two_streams_and_the_oldest_gives_way() {
    let mut desk = Desk::new();
    assert_eq!(desk.give(ServerInput::Opened(SessionId(1), who(0))), []);
    assert_eq!(desk.give(ServerInput::Opened(SessionId(2), who(0))), []);
    assert_eq!(desk.give(ServerInput::Opened(SessionId(3), who(0))), closed(1, ClosedFor::Replaced));
    assert_eq!(desk.server.sessions(), 2);
}
