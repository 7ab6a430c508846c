//! A node with a disk: the receiving machine and a model of its shell, one of each for every connection.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use kith_sansio::{Machine, Now, Rng, Span, Time};
use kith_transfer::frame::Frame;
use kith_transfer::receiver::{Input, Output, Receiver};
use kith_transfer::{AbortReason, Offer, Reason, ReceiveError, Refusal, Summary};

use super::model::{Disk, Plan, Role, value};
use super::stream::{Body, Packet, Stream, Taken};
use super::{Out, Told};

/// How long hashing and writing one group takes.
const GROUP: Span = Span::millis(40);

#[derive(Debug)]
pub(crate) struct Receiving {
    plan: Rc<Plan>,
    pub(crate) disk: Disk,
    sessions: BTreeMap<u64, Session>,
    /// A person has paused it until then; offers are refused meanwhile.
    paused_until: Time,
    outputs: VecDeque<Out>,
}

#[derive(Debug)]
struct Session {
    stream: Stream,
    /// Whether the sender will tell no lie.
    honest: bool,
    /// What came and was not dealt with yet: one thread hashes and writes.
    inbox: VecDeque<Item>,
    busy_until: Time,
    /// What was offered so far.
    entries: Vec<kith_transfer::Entry>,
    machine: Option<Receiver>,
    /// The file being written.
    current: u32,
}

#[derive(Debug)]
enum Item {
    Body(Body),
    /// A person accepts.
    Accept,
    Lost,
    /// This side ends the session.
    End(AbortReason),
}

impl Receiving {
    pub(crate) fn new(plan: Rc<Plan>, disk: Disk) -> Receiving {
        Receiving { plan, disk, sessions: BTreeMap::new(), paused_until: Time(0), outputs: VecDeque::new() }
    }

    pub(crate) fn packet(&mut self, now: Now, packet: Packet, rng: &mut dyn Rng) {
        let connection = packet.connection;
        if let Body::Hello { honest } = packet.body {
            self.sessions.entry(connection).or_insert_with(|| Session {
                stream: Stream::new(connection, now.time),
                honest,
                inbox: VecDeque::new(),
                busy_until: now.time,
                entries: Vec::new(),
                machine: None,
                current: 0,
            });
        }
        let Some(session) = self.sessions.get_mut(&connection) else {
            if !matches!(packet.body, Body::Reset) {
                self.outputs.push_back(Out::Send(Packet::reset(connection)));
            }
            return;
        };
        match session.stream.take(now.time, packet) {
            Taken::Body(body) => session.inbox.push_back(Item::Body(body)),
            Taken::Lost => session.inbox.push_back(Item::Lost),
            Taken::Nothing => {}
        }
        self.work(now, connection, rng);
    }

    /// The node stops in order.
    pub(crate) fn stop(&mut self, now: Now, rng: &mut dyn Rng) {
        self.end(now, AbortReason::Stopping, rng);
    }

    /// A person pauses it, and lets it go on after a while.
    pub(crate) fn pause(&mut self, now: Now, rng: &mut dyn Rng) {
        self.paused_until = now.time + Span(rng.below(5_000_000));
        self.end(now, AbortReason::Paused, rng);
    }

    fn end(&mut self, now: Now, reason: AbortReason, rng: &mut dyn Rng) {
        for connection in self.sessions.keys().copied().collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(&connection) {
                session.inbox.push_front(Item::End(reason));
                session.busy_until = now.time;
            }
            self.work(now, connection, rng);
        }
    }

    pub(crate) fn timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        for connection in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&connection) else { continue };
            self.outputs.extend(session.stream.alive(now.time).map(Out::Send));
            if session.stream.is_idle(now.time) {
                session.inbox.push_back(Item::Lost);
            }
            self.work(now, connection, rng);
        }
    }

    /// Deals with what came, until something takes its time.
    fn work(&mut self, now: Now, connection: u64, rng: &mut dyn Rng) {
        while let Some(session) = self.sessions.get_mut(&connection)
            && session.busy_until <= now.time
            && let Some(item) = session.inbox.pop_front()
        {
            match item {
                Item::Body(Body::Hello { .. }) => {}
                Item::Body(body) if session.machine.is_none() => self.offered(now, connection, body, rng),
                Item::Body(Body::Frame(frame)) => self.feed(now, connection, Input::Frame(frame), 0, rng),
                Item::Body(Body::Group { length, claimed, content }) => {
                    let place = session.machine.as_ref().and_then(Receiver::place);
                    let computed = place.map_or([0; 32], |place| value(content, place.index, place.group));
                    session.busy_until = now.time + GROUP;
                    self.feed(now, connection, Input::Group { length, claimed, computed }, content, rng);
                }
                Item::Accept => self.accept(now, connection, rng),
                // What nobody has accepted yet cannot be paused.
                Item::End(AbortReason::Paused) if session.machine.is_none() => {}
                Item::Lost | Item::End(_) if session.machine.is_none() => {
                    self.sessions.remove(&connection);
                }
                Item::Lost => {
                    let lost = Input::Lost(io::ErrorKind::ConnectionReset.into());
                    self.feed(now, connection, lost, 0, rng);
                }
                Item::End(reason) => self.feed(now, connection, Input::Cancel(reason), 0, rng),
                Item::Body(other) => panic!("a sender does not send {other:?}"),
            }
        }
    }

    /// A frame of an offer; the last of them asks a person, who takes up to three seconds.
    fn offered(&mut self, now: Now, connection: u64, body: Body, rng: &mut dyn Rng) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        match body {
            Body::Frame(Frame::Entries(more)) => session.entries.extend(more),
            Body::Frame(Frame::OfferEnd) => {
                session.busy_until = now.time + Span::millis(rng.below(3000));
                session.inbox.push_front(Item::Accept);
            }
            Body::Frame(Frame::Offer(_)) => {}
            Body::Frame(Frame::Abort(_)) => drop(self.sessions.remove(&connection)),
            other => panic!("{other:?} is not part of an offer"),
        }
    }

    fn accept(&mut self, now: Now, connection: u64, rng: &mut dyn Rng) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if now.time < self.paused_until {
            let refusal = Body::Frame(Frame::Refuse(Refusal::Paused));
            self.outputs.push_back(Out::Send(session.stream.packet(now.time, refusal)));
            self.sessions.remove(&connection);
            return;
        }
        let offer = Offer::new(std::mem::take(&mut session.entries)).unwrap();
        assert_eq!(offer, self.plan.offer, "the offer arrived as it was made");
        session.machine = Some(Receiver::new(offer, self.plan.overwrite));
        let prepared = if self.disk.lock.is_none_or(|holder| holder == connection) {
            self.disk.lock = Some(connection);
            Input::Prepared(self.disk.present(&self.plan))
        } else {
            Input::Failed(ReceiveError::Busy { path: "staging".into() })
        };
        self.feed(now, connection, prepared, 0, rng);
    }

    /// Gives the machine an input and does what it says; `content` is that of the group that the input is about.
    fn feed(&mut self, now: Now, connection: u64, input: Input, content: u64, rng: &mut dyn Rng) {
        let mut next = Some(input);
        while let Some(session) = self.sessions.get_mut(&connection)
            && let Some(machine) = &mut session.machine
        {
            if let Some(input) = next.take() {
                machine.handle_input(now, input, rng);
            }
            let Some(output) = machine.poll_output() else { return };
            match output {
                Output::Send(frame) => {
                    let packet = session.stream.packet(now.time, Body::Frame(frame));
                    self.outputs.push_back(Out::Send(packet));
                }
                Output::Finished(result) => return self.finished(connection, result),
                output => next = touch(&mut self.disk, &self.plan, session, &output, content),
            }
        }
    }

    fn finished(&mut self, connection: u64, result: Result<Summary, ReceiveError>) {
        let Some(session) = self.sessions.remove(&connection) else { return };
        let expected = match &result {
            Ok(_) | Err(ReceiveError::ConnectionLost { .. } | ReceiveError::Cancelled) => true,
            Err(ReceiveError::Aborted(reason)) => {
                matches!(reason, AbortReason::Stopping | AbortReason::Cancelled | AbortReason::Paused)
            }
            Err(ReceiveError::Busy { .. }) => self.disk.lock != Some(connection),
            Err(ReceiveError::Peer(_)) => !session.honest,
            Err(_) => false,
        };
        assert!(expected, "{result:?}");
        if self.disk.lock == Some(connection) {
            self.disk.lock = None;
            self.disk.name();
        }
        if let Ok(summary) = result {
            self.outputs.push_back(Out::Tell(Told::Received { connection, summary }));
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let timers = self.sessions.values().flat_map(|session| {
            let work = (!session.inbox.is_empty()).then_some(session.busy_until);
            work.into_iter().chain([session.stream.poll_timeout()])
        });
        timers.min()
    }
}

/// Does something to the disk; the answer for the machine.
fn touch(
    disk: &mut Disk,
    plan: &Plan,
    session: &mut Session,
    output: &Output,
    content: u64,
) -> Option<Input> {
    match *output {
        Output::Hash { index, first, count, whole } => {
            session.busy_until += GROUP.times(count.into());
            return Some(Input::Hashed(disk.values(index, first, count, whole)));
        }
        Output::Keep { index } => {
            assert_eq!(disk.named[&index], plan.contents(index), "what is kept is what was offered");
        }
        Output::Open { index, first } => {
            session.current = index;
            disk.open(index, first);
        }
        Output::Write { offset } => {
            if plan.roles[session.current as usize] == Role::Unwritable {
                return Some(Input::FileFailed(Reason::Unwritable));
            }
            let group = (offset / kith_transfer::hash::GROUP_BYTES as u64) as u32;
            disk.write(session.current, group, content);
        }
        Output::Commit { index } => disk.commit(plan, index),
        Output::Drop { index } => disk.discard(index),
        Output::Settle => {
            disk.name();
            return Some(Input::Settled);
        }
        Output::Send(_) | Output::Finished(_) => {}
    }
    None
}
