use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use kith_identity::Fingerprint;
use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::list::{Delta, EntryError, List};
use super::message::{Epoch, Message, updates};
use super::policy::Policy;
use crate::defaults;

/// One stream of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What the delegator's shell tells.
#[derive(Clone, Debug)]
pub enum ServerInput {
    /// An authenticated peer has opened a stream.
    Opened(SessionId, Fingerprint),
    /// It said something.
    Received(SessionId, Message),
    /// Its stream has ended.
    Closed(SessionId),
    /// The policy is another one from now on.
    Policy(Arc<Policy>),
}

/// What the delegator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerOutput {
    /// Says something to a subscriber.
    Send(SessionId, Message),
    /// Ends its stream; nothing more comes about it.
    Close(SessionId, ClosedFor),
}

/// Why a delegator ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClosedFor {
    /// It is no member, or not any more.
    #[error("it is no member")]
    NoMember,
    /// The same node has opened another stream.
    #[error("it has opened another stream")]
    Replaced,
    /// It did not say in time that its list is in force, or what it holds.
    #[error("it does not answer")]
    Silent,
    /// It said what does not fit.
    #[error("it broke the protocol")]
    Protocol,
    /// It has opened more streams in a minute than anybody needs.
    #[error("it comes too often")]
    TooOften,
    /// Its list does not fit into the limits.
    #[error("its list is too large")]
    TooLarge,
}

/// Keeps every subscriber's list up to date.
///
/// One change is under way to each subscriber at a time; what changes meanwhile goes into the next one. So a slow
/// subscriber costs one message and a reference to the policy that it knows, whatever happens.
#[derive(Debug)]
pub struct Server {
    policy: Arc<Policy>,
    epoch: Epoch,
    revision: u64,
    lease: Span,
    seats: HashMap<SessionId, Seat>,
    by_peer: BTreeMap<Fingerprint, Vec<SessionId>>,
    /// Members that have opened streams: since when it is counted, and how many.
    opened: BTreeMap<Fingerprint, (Time, u32)>,
    timers: BTreeSet<(Time, SessionId)>,
    outputs: VecDeque<ServerOutput>,
}

#[derive(Debug)]
struct Seat {
    peer: Fingerprint,
    /// What the subscriber knows, or is being told; `None` before it has said what it holds.
    known: Option<Known>,
    /// Until when it must have answered; `None` where nothing is asked of it.
    answer_by: Option<Time>,
    /// The last word to it.
    told: Time,
    due: Time,
}

#[derive(Debug)]
struct Known {
    /// A policy by which its list is the one that it knows.
    policy: Arc<Policy>,
    /// The number under which it knows it.
    revision: u64,
}

impl Server {
    /// A delegator without subscribers. Its lists hold for `lease` after each word; `epoch` is drawn anew for each one.
    pub fn new(policy: Arc<Policy>, epoch: Epoch, lease: Span) -> Server {
        Server {
            policy,
            epoch,
            revision: 1,
            lease: lease.clamp(defaults::LEASE_RANGE.0, defaults::LEASE_RANGE.1),
            seats: HashMap::new(),
            by_peer: BTreeMap::new(),
            opened: BTreeMap::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The number of its lists; grows with each change of the policy.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Each subscriber that is connected, and whether it has said that its list of now is in force.
    pub fn subscribers(&self) -> impl Iterator<Item = (&Fingerprint, bool)> {
        self.by_peer.iter().map(|(peer, sessions)| {
            let in_force = sessions.iter().filter_map(|session| self.seats.get(session)).any(|seat| {
                let is_current = |known: &Known| Arc::ptr_eq(&known.policy, &self.policy);
                seat.answer_by.is_none() && seat.known.as_ref().is_some_and(is_current)
            });
            (peer, in_force)
        })
    }

    /// Streams that are open.
    pub fn sessions(&self) -> usize {
        self.seats.len()
    }

    fn lease_secs(&self) -> u32 {
        u32::try_from(self.lease.as_secs()).unwrap_or(u32::MAX)
    }

    /// How often a subscriber hears that its list holds.
    fn beat(&self) -> Span {
        Span(self.lease.0 / 4).min(defaults::DELEGATOR_BEAT)
    }

    fn opened(&mut self, now: Time, session: SessionId, peer: Fingerprint) {
        if self.policy.member(&peer).is_none() {
            return self.outputs.push_back(ServerOutput::Close(session, ClosedFor::NoMember));
        }
        if self.comes_too_often(now, peer) {
            return self.outputs.push_back(ServerOutput::Close(session, ClosedFor::TooOften));
        }
        let of_peer = self.by_peer.get(&peer).cloned().unwrap_or_default();
        for old in of_peer.iter().rev().skip(defaults::MAX_SUBSCRIPTIONS - 1) {
            self.close(*old, ClosedFor::Replaced);
        }
        let answer_by = now + defaults::SUBSCRIBER_PATIENCE;
        let seat = Seat { peer, known: None, answer_by: Some(answer_by), told: now, due: answer_by };
        self.seats.insert(session, seat);
        self.by_peer.entry(peer).or_default().push(session);
        self.timers.insert((answer_by, session));
    }

    /// Each stream costs a whole list.
    fn comes_too_often(&mut self, now: Time, peer: Fingerprint) -> bool {
        let (since, count) = self.opened.entry(peer).or_insert((now, 0));
        if now - *since >= Span::secs(60) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count > defaults::MAX_SUBSCRIPTIONS_PER_MINUTE
    }

    fn received(&mut self, now: Time, session: SessionId, message: &Message) {
        let Some(seat) = self.seats.get_mut(&session) else { return };
        match (message, &seat.known) {
            (Message::Subscribe(held), None) => self.subscribe(now, session, *held),
            (Message::Applied(revision), Some(known))
                if *revision == known.revision && seat.answer_by.is_some() =>
            {
                seat.answer_by = None;
                self.catch_up(now, session);
            }
            _ => self.close(session, ClosedFor::Protocol),
        }
    }

    /// Tells a subscriber that its list holds, or the whole list.
    fn subscribe(&mut self, now: Time, session: SessionId, held: Option<(Epoch, u64)>) {
        let (epoch, revision) = (self.epoch, self.revision);
        let known = Known { policy: Arc::clone(&self.policy), revision };
        let Some(seat) = self.seats.get_mut(&session) else { return };
        seat.known = Some(known);
        if held == Some((epoch, revision)) {
            seat.answer_by = None;
            self.send(now, session, Message::Alive(epoch, revision));
            return;
        }
        let delta = self.policy.list_of(&seat.peer).map(|list| List::default().delta(&list));
        self.update(now, session, None, delta);
    }

    fn update(&mut self, now: Time, session: SessionId, base: Option<u64>, delta: Result<Delta, EntryError>) {
        let Ok(delta) = delta else { return self.close(session, ClosedFor::TooLarge) };
        let messages = updates(self.epoch, base, self.revision, self.lease_secs(), delta);
        // When its last byte arrives nobody here knows: megabytes may wait in the system, or in the connection.
        let in_parts = messages.len() > 1;
        let patience = if in_parts { defaults::LIST_PATIENCE } else { defaults::SUBSCRIBER_PATIENCE };
        if let Some(seat) = self.seats.get_mut(&session) {
            seat.answer_by = Some(now + patience);
        }
        messages.into_iter().for_each(|message| self.send(now, session, message));
    }

    /// Tells a subscriber that has answered what changed since.
    fn catch_up(&mut self, now: Time, session: SessionId) {
        let Some(seat) = self.seats.get(&session) else { return };
        let Some(known) = seat.known.as_ref() else { return };
        if Arc::ptr_eq(&known.policy, &self.policy) {
            return self.rest(session);
        }
        let lists =
            known.policy.list_of(&seat.peer).and_then(|one| Ok((one, self.policy.list_of(&seat.peer)?)));
        self.tell(now, session, lists.map(|(before, after)| before.delta(&after)));
    }

    fn change(&mut self, now: Time, policy: Arc<Policy>) {
        let before = std::mem::replace(&mut self.policy, policy);
        self.revision += 1;
        self.opened.retain(|peer, _| self.policy.member(peer).is_some());
        let deltas = before.deltas(&self.policy);
        let sessions: Vec<_> = self.by_peer.values().flatten().copied().collect();
        for session in sessions {
            let Some(seat) = self.seats.get(&session) else { continue };
            let is_told_of = |known: &Known| Arc::ptr_eq(&known.policy, &before);
            if seat.answer_by.is_some() || !seat.known.as_ref().is_some_and(is_told_of) {
                // It is told when it has answered.
                continue;
            }
            let delta = match &deltas {
                Ok(deltas) => Ok(deltas.get(&seat.peer).cloned().unwrap_or_default()),
                Err(error) => Err(error.clone()),
            };
            self.tell(now, session, delta);
        }
    }

    /// Tells a subscriber the way to its list of now, where there is any.
    fn tell(&mut self, now: Time, session: SessionId, delta: Result<Delta, EntryError>) {
        let (policy, revision) = (Arc::clone(&self.policy), self.revision);
        let Some(known) = self.seats.get_mut(&session).and_then(|seat| seat.known.as_mut()) else { return };
        let base = known.revision;
        known.policy = policy;
        if delta.as_ref().is_ok_and(Delta::is_empty) {
            return self.rest(session);
        }
        known.revision = revision;
        self.update(now, session, Some(base), delta);
    }

    /// Nothing is left to tell; whoever is no member has heard that nothing is left of its list.
    fn rest(&mut self, session: SessionId) {
        let is_member = |seat: &Seat| self.policy.member(&seat.peer).is_some();
        if self.seats.get(&session).is_some_and(is_member) {
            self.wake(session);
        } else {
            self.close(session, ClosedFor::NoMember);
        }
    }

    fn send(&mut self, now: Time, session: SessionId, message: Message) {
        if let Some(seat) = self.seats.get_mut(&session) {
            seat.told = now;
            self.outputs.push_back(ServerOutput::Send(session, message));
            self.wake(session);
        }
    }

    /// Sets the seat's timer.
    fn wake(&mut self, session: SessionId) {
        let beat = self.beat();
        let Some(seat) = self.seats.get_mut(&session) else { return };
        self.timers.remove(&(seat.due, session));
        seat.due = seat.answer_by.unwrap_or(seat.told + beat);
        self.timers.insert((seat.due, session));
    }

    fn close(&mut self, session: SessionId, reason: ClosedFor) {
        if self.forget(session) {
            self.outputs.push_back(ServerOutput::Close(session, reason));
        }
    }

    fn forget(&mut self, session: SessionId) -> bool {
        let Some(seat) = self.seats.remove(&session) else { return false };
        self.timers.remove(&(seat.due, session));
        if let Some(of_peer) = self.by_peer.get_mut(&seat.peer) {
            of_peer.retain(|one| *one != session);
            if of_peer.is_empty() {
                self.by_peer.remove(&seat.peer);
            }
        }
        true
    }
}

impl Machine for Server {
    type Input = ServerInput;
    type Output = ServerOutput;

    fn handle_input(&mut self, now: Now, input: ServerInput, _: &mut dyn Rng) {
        match input {
            ServerInput::Opened(session, peer) => self.opened(now.time, session, peer),
            ServerInput::Received(session, message) => self.received(now.time, session, &message),
            ServerInput::Closed(session) => {
                self.forget(session);
            }
            ServerInput::Policy(policy) => self.change(now.time, policy),
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        while let Some((due, session)) = self.timers.first().copied()
            && due <= now.time
        {
            let Some(seat) = self.seats.get(&session) else {
                self.timers.remove(&(due, session));
                continue;
            };
            match &seat.known {
                Some(known) if seat.answer_by.is_none() => {
                    let alive = Message::Alive(self.epoch, known.revision);
                    self.send(now.time, session, alive);
                }
                _ => self.close(session, ClosedFor::Silent),
            }
        }
    }

    fn poll_output(&mut self) -> Option<ServerOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }
}
