//! The two machines alone: every lie of either side is told apart, and nothing is named because of it.

use kith_sansio::{Machine, Now, SeededRng, Span, Time};
use kith_transfer::frame::{Failed, Frame, Have, Proof, Received, Resume};
use kith_transfer::hash::{GROUP_BYTES, Root, Value, group_length};
use kith_transfer::receiver::{Input, Output, Place, Present, Receiver};
use kith_transfer::sender::{self, Job, Sender};
use kith_transfer::{
    AbortReason, Entry, Fault, Kind, Offer, Reason, ReceiveError, Refusal, SendError, Summary, Violation,
};
use proptest::prelude::*;

const MIB: u64 = GROUP_BYTES as u64;

/// `0` folder, `1` empty, `2` small, `3` of three groups, `4` link, `5` of two groups.
fn offer() -> Offer {
    let entry = |parent, name: &str, kind| Entry {
        parent,
        name: name.into(),
        mode: 0o644,
        seconds: 0,
        nanos: 0,
        kind,
    };
    Offer::new(vec![
        entry(0, "top", Kind::Folder),
        entry(1, "empty", Kind::File(0)),
        entry(1, "small", Kind::File(10)),
        entry(1, "three", Kind::File(2 * MIB + 5)),
        entry(1, "link", Kind::Link(b"x".to_vec())),
        entry(1, "two", Kind::File(2 * MIB)),
    ])
    .unwrap()
}

/// The value of a group in these tests: real contents are the shell's business.
fn value(index: u32, group: u32) -> Value {
    [(index * 16 + group + 1) as u8; 32]
}

fn root(index: u32) -> Value {
    let mut root = Root::default();
    (0..offer().groups(index).unwrap()).for_each(|group| root.push(value(index, group)));
    root.finish()
}

fn group(index: u32, group: u32) -> Input {
    let length = group_length(offer().size(index).unwrap(), group);
    Input::Group { length, claimed: value(index, group), computed: value(index, group) }
}

fn file(index: u32, first: u32) -> Vec<Input> {
    let mut inputs = vec![Input::Frame(Frame::FileStart { index, first })];
    inputs.extend((first..offer().groups(index).unwrap()).map(|number| group(index, number)));
    inputs.push(Input::Frame(Frame::FileEnd { root: root(index) }));
    inputs
}

fn honest() -> Vec<Input> {
    let mut inputs: Vec<Input> = [1, 2, 3, 5].into_iter().flat_map(|index| file(index, 0)).collect();
    inputs.push(Input::Frame(Frame::Done));
    inputs
}

#[derive(Default)]
struct Seen {
    sent: Vec<Frame>,
    committed: Vec<u32>,
    dropped: Vec<u32>,
    written: u64,
    settled: bool,
    end: Option<Result<Summary, ReceiveError>>,
}

/// Plays the shell: own groups are those that `own` says.
fn play(machine: &mut Receiver, inputs: Vec<Input>, own: impl Fn(u32, u32) -> Value) -> Seen {
    let (mut seen, mut rng) = (Seen::default(), SeededRng::new(1));
    for input in inputs {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            machine.handle_input(Now::default(), input, &mut rng);
            while let Some(output) = machine.poll_output() {
                assert!(seen.end.is_none(), "nothing follows the end");
                match output {
                    Output::Send(frame) => seen.sent.push(frame),
                    Output::Hash { index, first, count, .. } => {
                        next = Some(Input::Hashed(
                            (first..first + count).map(|group| own(index, group)).collect(),
                        ));
                    }
                    Output::Commit { index } => seen.committed.push(index),
                    Output::Drop { index } => seen.dropped.push(index),
                    Output::Write { .. } => seen.written += 1,
                    Output::Settle => {
                        seen.settled = true;
                        next = Some(Input::Settled);
                    }
                    Output::Finished(result) => seen.end = Some(result),
                    Output::Keep { .. } | Output::Open { .. } => {}
                }
            }
        }
    }
    seen
}

fn receive(inputs: Vec<Input>) -> Seen {
    let mut machine = Receiver::new(offer(), false);
    let mut all = vec![Input::Prepared(Present::default())];
    all.extend(inputs);
    play(&mut machine, all, value)
}

fn violation(seen: &Seen) -> &Violation {
    let Some(Err(ReceiveError::Peer(violation))) = &seen.end else { panic!("{:?}", seen.end) };
    assert_eq!(seen.sent.last(), Some(&Frame::Abort(AbortReason::Protocol)));
    assert!(!seen.settled);
    violation
}

#[test]
fn an_honest_sender_is_received() {
    let seen = receive(honest());
    let summary = seen.end.unwrap().unwrap();
    assert_eq!((summary.files, summary.bytes, summary.resumed_bytes), (4, 4 * MIB + 15, 0));
    assert_eq!((seen.committed, seen.written), (vec![1, 2, 3, 5], 6));
    assert_eq!(seen.sent[0], Frame::Accept);
    assert!(matches!(seen.sent[1], Frame::Received(_)));
}

#[test]
fn every_lie_of_the_sender_is_its_own_fault() {
    let lie = |inputs: Vec<Input>| receive(inputs);
    let start = |index, first| Input::Frame(Frame::FileStart { index, first });
    let end = |index| Input::Frame(Frame::FileEnd { root: root(index) });
    let wrong = |length, claimed, computed| Input::Group { length, claimed, computed };
    let failed = |index| Input::Frame(Frame::FileFailed(Failed { index, reason: Reason::Changed }));
    let after_empty = |more: Vec<Input>| file(1, 0).into_iter().chain(more).collect::<Vec<_>>();
    let cases = [
        (vec![start(2, 0)], Violation::Index(2)),
        (vec![start(9, 0)], Violation::Index(9)),
        (vec![start(0, 0)], Violation::Index(0)),
        (vec![start(1, 1)], Violation::Group { index: 1, group: 1 }),
        (vec![start(1, 0), start(2, 0)], Violation::Unexpected("inside a file")),
        (vec![start(1, 0), group(2, 0)], Violation::Length(1)),
        (vec![start(1, 0), end(2)], Violation::RootHash(1)),
        (vec![end(1)], Violation::Unexpected("outside a file")),
        (vec![group(1, 0)], Violation::Unexpected("outside a file")),
        (after_empty(vec![start(1, 0)]), Violation::Index(1)),
        (after_empty(vec![start(2, 0), wrong(11, [1; 32], [1; 32])]), Violation::Length(2)),
        (after_empty(vec![start(2, 0), wrong(9, [1; 32], [1; 32])]), Violation::Length(2)),
        (
            after_empty(vec![start(2, 0), wrong(10, [1; 32], [2; 32])]),
            Violation::GroupHash { index: 2, group: 0 },
        ),
        (after_empty(vec![start(2, 0), end(2)]), Violation::Length(2)),
        (after_empty(vec![start(2, 0), group(2, 0), group(2, 0)]), Violation::Length(2)),
        (after_empty(vec![start(2, 0), group(2, 0), end(3)]), Violation::RootHash(2)),
        (after_empty(vec![start(2, 0), failed(3)]), Violation::Index(3)),
        (after_empty(vec![failed(3)]), Violation::Index(3)),
        (after_empty(vec![Input::Frame(Frame::Done)]), Violation::Missing(2)),
        (vec![Input::Frame(Frame::Accept)], Violation::Unexpected("at this point")),
        (vec![Input::Frame(Frame::OfferEnd)], Violation::Unexpected("at this point")),
    ];
    for (number, (inputs, expected)) in cases.into_iter().enumerate() {
        let seen = lie(inputs);
        assert_eq!(*violation(&seen), expected, "case {number}");
        assert!(seen.committed.iter().all(|index| *index == 1), "case {number}");
    }
    assert_eq!(ReceiveError::from(Violation::Length(1)).fault(), Fault::Peer);
}

#[test]
fn groups_in_another_order_do_not_pass() {
    let mut inputs: Vec<Input> = [1, 2].into_iter().flat_map(|index| file(index, 0)).collect();
    inputs.push(Input::Frame(Frame::FileStart { index: 3, first: 0 }));
    // The shell hashes for the place where a group has to be, so a group from elsewhere has another value.
    inputs.push(Input::Group { length: GROUP_BYTES, claimed: value(3, 1), computed: [0; 32] });
    assert_eq!(*violation(&receive(inputs)), Violation::GroupHash { index: 3, group: 0 });
}

#[test]
fn the_place_of_a_group_is_known_only_inside_a_file() {
    let mut machine = Receiver::new(offer(), false);
    assert_eq!(machine.place(), None);
    let inputs = vec![Input::Prepared(Present::default())];
    play(&mut machine, inputs, value);
    assert_eq!(machine.place(), None);
    play(&mut machine, file(1, 0), value);
    play(&mut machine, file(2, 0), value);
    play(&mut machine, vec![Input::Frame(Frame::FileStart { index: 3, first: 0 }), group(3, 0)], value);
    assert_eq!(machine.place(), Some(Place { index: 3, group: 1, groups: 3 }));
}

#[test]
fn a_failed_file_does_not_stop_the_others() {
    let mut inputs = file(1, 0);
    inputs.push(Input::Frame(Frame::FileFailed(Failed { index: 2, reason: Reason::Vanished })));
    inputs.extend([Input::Frame(Frame::FileStart { index: 3, first: 0 }), group(3, 0)]);
    inputs.push(Input::Frame(Frame::FileFailed(Failed { index: 3, reason: Reason::Changed })));
    inputs.push(Input::Frame(Frame::FileStart { index: 5, first: 0 }));
    inputs.push(Input::FileFailed(Reason::Unwritable));
    inputs.extend(file(5, 0).into_iter().skip(1));
    inputs.push(Input::Frame(Frame::Done));
    let seen = receive(inputs);
    let summary = seen.end.unwrap().unwrap();
    let failed: Vec<_> =
        summary.failed.iter().map(|failed| (failed.path.to_str().unwrap(), failed.reason)).collect();
    assert_eq!(
        failed,
        [("top/small", Reason::Vanished), ("top/three", Reason::Changed), ("top/two", Reason::Unwritable)]
    );
    assert_eq!((summary.files, summary.failures), (1, 3));
    assert_eq!((seen.committed, seen.dropped), (vec![1], vec![3]));
}

fn proof(index: u32, first: u32, count: u32, last: bool) -> Input {
    let values = (first..first + count).flat_map(|group| value(index, group)).collect();
    Input::Frame(Frame::Proof(Proof { index, first, values, last }))
}

#[test]
fn what_is_held_is_compared_before_it_is_believed() {
    let have = |index, groups, whole| Have { index, groups, whole };
    let present = || Present {
        haves: vec![have(2, 1, true), have(3, 2, false), have(5, 2, true)],
        already: vec![1],
        failed: vec![],
    };
    // The second group of file 3 is not what it should be, and file 5 is another file of the same size.
    let own =
        |index, group| if (index, group) == (3, 1) || index == 5 { [0; 32] } else { value(index, group) };
    for overwrite in [false, true] {
        let mut machine = Receiver::new(offer(), overwrite);
        let inputs = vec![
            Input::Prepared(present()),
            proof(2, 0, 1, true),
            proof(3, 0, 1, false),
            proof(3, 1, 1, true),
            proof(5, 0, 2, true),
        ];
        let seen = play(&mut machine, inputs, own);
        let resume = |index, first| Resume { index, first };
        let rest = if overwrite { resume(5, 0) } else { resume(5, 2) };
        let expected = [
            Frame::Have(present().haves),
            Frame::Resume(vec![resume(1, 0)]),
            Frame::Accept,
            Frame::Resume(vec![resume(2, 1), resume(3, 1), rest]),
            Frame::Start,
        ];
        assert_eq!(seen.sent, expected);
        let mut inputs = file(3, 1);
        if overwrite {
            inputs.extend(file(5, 0));
        }
        inputs.push(Input::Frame(Frame::Done));
        let summary = play(&mut machine, inputs, own).end.unwrap().unwrap();
        assert_eq!(summary.resumed_bytes, 10 + MIB);
        assert_eq!(summary.failures, u32::from(!overwrite));
    }
}

#[test]
fn proofs_of_something_else_are_refused() {
    let cases = [
        vec![proof(5, 0, 1, true)],
        vec![proof(3, 1, 1, true)],
        vec![proof(3, 0, 3, true)],
        vec![proof(3, 0, 1, false), proof(3, 0, 1, true)],
        vec![proof(3, 0, 0, false)],
        vec![proof(3, 0, 2, true), proof(3, 2, 1, true)],
        file(1, 0),
    ];
    for (number, inputs) in cases.into_iter().enumerate() {
        let mut machine = Receiver::new(offer(), false);
        let haves = vec![Have { index: 3, groups: 2, whole: false }];
        let mut all = vec![Input::Prepared(Present { haves, ..Present::default() })];
        all.extend(inputs);
        let seen = play(&mut machine, all, value);
        assert!(matches!(seen.end, Some(Err(ReceiveError::Peer(_)))), "case {number}: {:?}", seen.end);
        assert!(seen.committed.is_empty());
    }
}

#[test]
fn trouble_before_acceptance_is_a_refusal_and_later_an_abort() {
    let full = || ReceiveError::DiskFull { path: "x".into() };
    let seen = play(&mut Receiver::new(offer(), false), vec![Input::Failed(full())], value);
    assert_eq!(seen.sent, [Frame::Refuse(Refusal::NoSpace)]);
    let seen = receive(vec![Input::Failed(full())]);
    assert_eq!(seen.sent, [Frame::Accept, Frame::Abort(AbortReason::DiskFull)]);
    let seen = receive(vec![Input::Cancel(AbortReason::Stopping)]);
    assert_eq!(seen.sent, [Frame::Accept, Frame::Abort(AbortReason::Stopping)]);
    assert!(
        receive(vec![Input::Frame(Frame::Abort(AbortReason::Stopping))])
            .end
            .unwrap()
            .unwrap_err()
            .is_connection_lost()
    );
}

struct Sending {
    machine: Sender,
    sent: Vec<Frame>,
    jobs: Vec<Job>,
    end: Option<Result<Summary, SendError>>,
}

impl Sending {
    fn new() -> Self {
        let mut sending =
            Sending { machine: Sender::new(offer(), Span::secs(600)), sent: vec![], jobs: vec![], end: None };
        sending.at(Time(0));
        sending
    }

    fn at(&mut self, time: Time) {
        let now = Now { time, ..Now::default() };
        self.machine.handle_timeout(now, &mut SeededRng::new(1));
        self.drain();
    }

    fn input(mut self, input: sender::Input) -> Self {
        self.machine.handle_input(Now::default(), input, &mut SeededRng::new(1));
        self.drain();
        self
    }

    fn frame(self, frame: Frame) -> Self {
        self.input(sender::Input::Frame(frame))
    }

    fn done(self) -> Self {
        self.input(sender::Input::JobDone)
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                sender::Output::Send(frame) => self.sent.push(frame),
                sender::Output::Run(job) => self.jobs.push(job),
                sender::Output::Halt => {}
                sender::Output::Finished(result) => self.end = Some(result),
            }
        }
    }

    fn violation(&self) -> &Violation {
        let Some(Err(SendError::Peer(violation))) = &self.end else { panic!("{:?}", self.end) };
        assert_eq!(self.sent.last(), Some(&Frame::Abort(AbortReason::Protocol)));
        violation
    }
}

#[test]
fn sending_goes_through_offer_proof_and_stream() {
    let haves = vec![Have { index: 3, groups: 2, whole: false }];
    let resumes = [Resume { index: 3, first: 1 }, Resume { index: 1, first: 0 }];
    let received = Received { files: 4, bytes: 100, resumed: 50, failures: 0, failed: vec![] };
    let sending = Sending::new()
        .done()
        .frame(Frame::Have(haves.clone()))
        .frame(Frame::Resume(resumes[1..].to_vec()))
        .frame(Frame::Accept)
        .done()
        .frame(Frame::Resume(resumes[..1].to_vec()))
        .frame(Frame::Start)
        .done()
        .frame(Frame::Received(received));
    let sorted = vec![resumes[1], resumes[0]];
    assert_eq!(sending.jobs, [Job::Offer, Job::Prove(haves), Job::Stream(sorted)]);
    assert_eq!(sending.sent, [Frame::Done]);
    assert_eq!(sending.machine.resumed_bytes(), MIB);
    assert_eq!(sending.end.unwrap().unwrap().resumed_bytes, 50);
}

#[test]
fn answers_that_overtake_the_end_of_a_job_count() {
    let haves = vec![Have { index: 2, groups: 1, whole: true }];
    let sending = Sending::new().frame(Frame::Have(haves)).frame(Frame::Accept);
    assert_eq!(sending.jobs, [Job::Offer]);
    let sending = sending.done().frame(Frame::Start);
    assert_eq!(sending.jobs.len(), 2);
    assert_eq!(sending.done().jobs.len(), 3);
}

#[test]
fn every_lie_of_the_receiver_is_its_own_fault() {
    let have = |index, groups| Frame::Have(vec![Have { index, groups, whole: true }]);
    let resume = |index, first| Frame::Resume(vec![Resume { index, first }]);
    let waiting = || Sending::new().done();
    let ending = || waiting().frame(Frame::Accept).done();
    let account =
        |files, bytes, resumed, failures, failed| Received { files, bytes, resumed, failures, failed };
    let unknown = vec![Failed { index: 9, reason: Reason::Exists }];
    for (number, sending) in [
        waiting().frame(have(0, 1)),
        waiting().frame(have(9, 1)),
        waiting().frame(have(1, 1)),
        waiting().frame(have(2, 0)),
        waiting().frame(have(3, 4)),
        waiting().frame(have(3, 1)).frame(have(2, 1)),
        waiting().frame(have(3, 1)).frame(have(3, 1)),
        waiting().frame(resume(4, 0)),
        waiting().frame(resume(3, 4)),
        waiting().frame(resume(3, 1)).frame(resume(3, 1)).frame(Frame::Accept),
        (0..5).fold(waiting(), |sending, _| sending.frame(resume(3, 1))),
        waiting().frame(Frame::Start),
        waiting().frame(Frame::Received(Received::default())),
        waiting().frame(Frame::Done),
        Sending::new().frame(Frame::Accept).frame(Frame::Accept),
        waiting().frame(Frame::Accept).frame(Frame::Refuse(Refusal::Declined)),
        waiting().frame(Frame::Accept).frame(Frame::Received(Received::default())),
        ending().frame(Frame::Received(account(9, 0, 0, 0, vec![]))),
        ending().frame(Frame::Received(account(1, u64::MAX, 0, 0, vec![]))),
        ending().frame(Frame::Received(account(1, 5, 6, 0, vec![]))),
        ending().frame(Frame::Received(account(1, 5, 0, 100, vec![]))),
        ending().frame(Frame::Received(account(1, 5, 0, 1, vec![]))),
        ending().frame(Frame::Received(account(1, 5, 0, 1, unknown))),
        ending().input(sender::Input::Bad(Violation::Unexpected("at this point"))),
    ]
    .into_iter()
    .enumerate()
    {
        eprintln!("case {number}");
        sending.violation();
    }
}

#[test]
fn an_offer_that_nobody_accepts_ends_in_time() {
    let mut sending = Sending::new().done();
    assert_eq!(sending.machine.poll_timeout(), Some(Time(600_000_000)));
    sending.at(Time(599_999_999));
    assert!(sending.end.is_none());
    sending.at(Time(600_000_000));
    assert!(matches!(sending.end, Some(Err(SendError::Unanswered { .. }))));
    assert_eq!(sending.sent, [Frame::Abort(AbortReason::Cancelled)]);
}

#[derive(Clone, Debug)]
enum Fault1 {
    Drop(prop::sample::Index),
    Double(prop::sample::Index),
    Swap(prop::sample::Index),
    Corrupt(prop::sample::Index),
    Shorten(prop::sample::Index),
}

fn corrupt(input: &mut Input) -> bool {
    match input {
        Input::Group { computed, .. } => computed[0] ^= 1,
        Input::Frame(Frame::FileStart { index, .. }) => *index ^= 1,
        Input::Frame(Frame::FileEnd { root }) => root[31] ^= 1,
        _ => return false,
    }
    true
}

proptest! {
    #[test]
    fn a_stream_with_one_fault_names_nothing_after_it(fault in prop_oneof![
        any::<prop::sample::Index>().prop_map(Fault1::Drop),
        any::<prop::sample::Index>().prop_map(Fault1::Double),
        any::<prop::sample::Index>().prop_map(Fault1::Swap),
        any::<prop::sample::Index>().prop_map(Fault1::Corrupt),
        any::<prop::sample::Index>().prop_map(Fault1::Shorten),
    ]) {
        let mut inputs = honest();
        let last = inputs.len() - 1;
        let at = match fault {
            Fault1::Drop(at) => { let at = at.index(last); inputs.remove(at); at }
            Fault1::Double(at) => {
                let at = at.index(last);
                let again = match &inputs[at] {
                    Input::Group { length, claimed, computed } =>
                        Input::Group { length: *length, claimed: *claimed, computed: *computed },
                    Input::Frame(frame) => Input::Frame(frame.clone()),
                    other => panic!("{other:?}"),
                };
                inputs.insert(at, again);
                at
            }
            Fault1::Swap(at) => {
                let at = at.index(last);
                inputs.swap(at, at + 1);
                // The shell hashes for the place where a group has to be.
                for input in &mut inputs[at..=at + 1] {
                    if let Input::Group { computed, .. } = input {
                        computed[0] ^= 1;
                    }
                }
                at
            }
            Fault1::Corrupt(at) => { let at = at.index(last); prop_assume!(corrupt(&mut inputs[at])); at }
            Fault1::Shorten(at) => {
                let at = at.index(last);
                let Input::Group { length, .. } = &mut inputs[at] else { return Ok(()) };
                *length -= 1;
                at
            }
        };
        // Files that ended before the fault may be named, and no others.
        let before = honest().iter().take(at + 1).filter(|i| matches!(i, Input::Frame(Frame::FileEnd { .. }))).count();
        let seen = receive(inputs);
        prop_assert!(matches!(seen.end, Some(Err(ReceiveError::Peer(_)))), "{:?}", seen.end);
        prop_assert!(seen.committed.len() <= before, "{:?}", seen.committed);
    }
}
