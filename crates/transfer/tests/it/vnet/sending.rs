//! A node with files: the sending machine and a model of its shell, which connects again after every loss.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use kith_sansio::{Machine, Now, Rng, Span, Time};
use kith_transfer::frame::{Failed, Frame, Have, Head, Proof, Resume};
use kith_transfer::hash::{Root, group_length};
use kith_transfer::sender::{Input, Job, Output, Sender};
use kith_transfer::{AbortReason, Reason, Refusal, SendError};

use super::model::{GARBAGE, Plan, Role, content, value};
use super::stream::{Body, Packet, Stream, Taken};
use super::{Out, Told};

/// How long making and sending one frame takes.
const FRAME: Span = Span::millis(60);
const PROOF_VALUES: u32 = 3;

/// How a sender lies in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Bytes that are not those of the value beside them.
    Bytes,
    /// A value that fits the bytes, and not the root of the file.
    Value,
}

#[derive(Debug)]
pub(crate) struct Sending {
    plan: Rc<Plan>,
    liar: bool,
    /// The highest connection number used; of a node that started again, above all before.
    pub(crate) connections: u64,
    session: Option<Session>,
    retry_at: Option<Time>,
    outputs: VecDeque<Out>,
}

#[derive(Debug)]
struct Session {
    connection: u64,
    stream: Stream,
    machine: Sender,
    lie: Option<Lie>,
    /// What the job under way has still to send.
    work: Option<VecDeque<Body>>,
    next_frame: Time,
    /// Bytes of groups sent.
    bytes: u64,
}

impl Sending {
    pub(crate) fn new(plan: Rc<Plan>, liar: bool, connections: u64, start: Time) -> Sending {
        Sending { plan, liar, connections, session: None, retry_at: Some(start), outputs: VecDeque::new() }
    }

    fn connect(&mut self, now: Now, rng: &mut dyn Rng) {
        self.connections += 1;
        let lie = match rng.below(6) {
            0 if self.liar => Some(Lie::Bytes),
            1 if self.liar => Some(Lie::Value),
            _ => None,
        };
        let mut stream = Stream::new(self.connections, now.time);
        let hello = Body::Hello { honest: lie.is_none() };
        self.outputs.push_back(Out::Send(stream.packet(now.time, hello)));
        self.session = Some(Session {
            connection: self.connections,
            stream,
            machine: Sender::new(self.plan.offer.clone(), Span::secs(30)),
            lie,
            work: None,
            next_frame: now.time,
            bytes: 0,
        });
    }

    pub(crate) fn packet(&mut self, now: Now, packet: Packet, rng: &mut dyn Rng) {
        let connection = packet.connection;
        let known = self.session.as_mut().filter(|session| session.connection == connection);
        let Some(session) = known else {
            if !matches!(packet.body, Body::Reset) {
                self.outputs.push_back(Out::Send(Packet::reset(connection)));
            }
            return;
        };
        match session.stream.take(now.time, packet) {
            Taken::Body(Body::Frame(frame)) => self.feed(now, Input::Frame(frame), rng),
            Taken::Lost => self.feed(now, Input::Lost(io::ErrorKind::ConnectionReset.into()), rng),
            Taken::Body(other) => panic!("a receiver does not send {other:?}"),
            Taken::Nothing => {}
        }
    }

    /// The node stops in order, and starts again after a while.
    pub(crate) fn stop(&mut self, now: Now, rng: &mut dyn Rng) {
        self.feed(now, Input::Cancel(AbortReason::Stopping), rng);
    }

    /// A person pauses it, and lets it go on after a while.
    pub(crate) fn pause(&mut self, now: Now, rng: &mut dyn Rng) {
        self.feed(now, Input::Cancel(AbortReason::Paused), rng);
    }

    pub(crate) fn timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        if self.retry_at.take_if(|at| *at <= now.time).is_some() {
            self.connect(now, rng);
        }
        let Some(session) = &mut self.session else { return };
        session.machine.handle_timeout(now, rng);
        self.outputs.extend(session.stream.alive(now.time).map(Out::Send));
        if session.stream.is_idle(now.time) {
            return self.feed(now, Input::Lost(io::ErrorKind::TimedOut.into()), rng);
        }
        if now.time >= session.next_frame
            && let Some(work) = &mut session.work
        {
            session.next_frame = now.time + FRAME;
            match work.pop_front() {
                Some(body) => {
                    if let Body::Group { length, .. } = body {
                        session.bytes += length as u64;
                    }
                    let packet = session.stream.packet(now.time, body);
                    self.outputs.push_back(Out::Send(packet));
                }
                None => {
                    session.work = None;
                    return self.feed(now, Input::JobDone, rng);
                }
            }
        }
        self.drain(now, rng);
    }

    fn feed(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        if let Some(session) = &mut self.session {
            session.machine.handle_input(now, input, rng);
            self.drain(now, rng);
        }
    }

    fn drain(&mut self, now: Now, rng: &mut dyn Rng) {
        while let Some(session) = &mut self.session
            && let Some(output) = session.machine.poll_output()
        {
            match output {
                Output::Send(frame) => {
                    let packet = session.stream.packet(now.time, Body::Frame(frame));
                    self.outputs.push_back(Out::Send(packet));
                }
                Output::Run(job) => {
                    assert!(session.work.is_none(), "one job runs at a time");
                    session.work = Some(frames(&self.plan, job, session.lie));
                    session.next_frame = now.time + FRAME;
                }
                Output::Halt => session.work = None,
                Output::Finished(result) => {
                    let (connection, bytes) = (session.connection, session.bytes);
                    self.session = None;
                    self.ended(now, result.as_ref().err(), rng);
                    if let Ok(summary) = result {
                        self.outputs.push_back(Out::Tell(Told::Sent { connection, summary, bytes }));
                    }
                }
            }
        }
    }

    /// Tries again after every end that an honest pair can come to.
    fn ended(&mut self, now: Now, error: Option<&SendError>, rng: &mut dyn Rng) {
        let Some(error) = error else { return };
        let expected = match error {
            SendError::Refused(reason) => matches!(reason, Refusal::Busy | Refusal::Paused),
            SendError::Aborted(AbortReason::Paused) => error.is_paused() && !error.is_connection_lost(),
            SendError::Aborted(AbortReason::Protocol) => self.liar,
            SendError::Aborted(reason) => *reason == AbortReason::Stopping && error.is_connection_lost(),
            SendError::ConnectionLost { .. } | SendError::Cancelled | SendError::Unanswered { .. } => true,
            _ => false,
        };
        assert!(expected, "{error:?}");
        self.retry_at = Some(now.time + Span::millis(200 + rng.below(800)));
    }

    pub(crate) fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let session = self.session.as_ref().and_then(|session| {
            let next_frame = session.work.as_ref().map(|_| session.next_frame);
            let timers = [session.machine.poll_timeout(), next_frame, Some(session.stream.poll_timeout())];
            timers.into_iter().flatten().min()
        });
        session.into_iter().chain(self.retry_at).min()
    }
}

/// The frames of a job, in order.
fn frames(plan: &Plan, job: Job, lie: Option<Lie>) -> VecDeque<Body> {
    match job {
        Job::Offer => offer(plan),
        Job::Prove(haves) => haves.iter().flat_map(prove).map(Body::Frame).collect(),
        Job::Stream(resumes) => stream(plan, &resumes, lie),
    }
}

fn offer(plan: &Plan) -> VecDeque<Body> {
    let offer = &plan.offer;
    let entries = offer.entries();
    let head = Head {
        version: 1,
        id: [7; 16],
        entries: entries.len() as u32,
        files: offer.files(),
        bytes: offer.bytes(),
        answer_within: 30,
    };
    let lists = entries.chunks(3).map(|some| Frame::Entries(some.to_vec()));
    [Frame::Offer(head)].into_iter().chain(lists).chain([Frame::OfferEnd]).map(Body::Frame).collect()
}

fn prove(have: &Have) -> Vec<Frame> {
    let index = have.index;
    let mut proofs = Vec::new();
    for first in (0..have.groups).step_by(PROOF_VALUES as usize) {
        let end = (first + PROOF_VALUES).min(have.groups);
        let values = (first..end).flat_map(|group| value(content(index, group), index, group)).collect();
        proofs.push(Frame::Proof(Proof { index, first, values, last: end == have.groups }));
    }
    proofs
}

fn stream(plan: &Plan, resumes: &[Resume], lie: Option<Lie>) -> VecDeque<Body> {
    let mut bodies = VecDeque::new();
    for index in plan.files() {
        let first = resumes.iter().find(|resume| resume.index == index).map(|resume| resume.first);
        let groups = plan.groups(index);
        if first == Some(groups) {
            continue;
        }
        if plan.roles[index as usize] == Role::Unreadable {
            let failed = Failed { index, reason: Reason::Unreadable };
            bodies.push_back(Body::Frame(Frame::FileFailed(failed)));
            continue;
        }
        let first = first.unwrap_or(0);
        bodies.push_back(Body::Frame(Frame::FileStart { index, first }));
        let mut root = Root::default();
        for group in 0..groups {
            let right = content(index, group);
            root.push(value(right, index, group));
            if group < first {
                continue;
            }
            let lies = lie.filter(|_| group == groups / 2);
            let content = if lies.is_some() { GARBAGE } else { right };
            let claimed = value(if lies == Some(Lie::Value) { GARBAGE } else { right }, index, group);
            let length = group_length(plan.offer.size(index).unwrap(), group);
            bodies.push_back(Body::Group { length, claimed, content });
        }
        bodies.push_back(Body::Frame(Frame::FileEnd { root: root.finish() }));
    }
    bodies
}
