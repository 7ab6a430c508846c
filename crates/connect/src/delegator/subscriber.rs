use std::collections::VecDeque;

use kith_identity::Fingerprint;
use kith_sansio::{Machine, Now, Rng, Span, Time, Timestamp};

use super::list::{Delta, Entry, EntryError, List};
use super::message::{Epoch, Message, Update, entry_bytes};
use super::rights::Opener;
use super::{MAX_LIST_BYTES, MAX_MEMBERS};
use crate::{Protocol, defaults};

/// How long nobody looks at the wall clock, which may have been set.
const LOOK_EVERY: Span = Span::secs(60);

/// What the subscriber's shell tells.
#[derive(Clone, Debug)]
pub enum SubscriberInput {
    /// The delegator was reached and admits this node.
    Connected,
    /// It was not, or the stream has ended.
    Lost,
    /// It said something.
    Received(Message),
    /// Something happened that makes another attempt worth while now.
    Nudged,
}

/// What the subscriber wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriberOutput {
    /// Reaches for the delegator; answered with [`SubscriberInput::Connected`] or [`SubscriberInput::Lost`].
    Connect,
    /// Says something to it.
    Send(Message),
    /// Ends the stream, because of what the delegator did.
    Disconnect(Fault),
    /// The list in force is another one than before.
    Changed,
}

/// What a delegator did that ends the conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A message that a delegator does not send, or not at this point.
    #[error("a message out of place")]
    OutOfPlace,
    /// A change of another list than the one that is held, or an older list than that.
    #[error("a change that does not fit the list held")]
    Misfit,
    /// An entry that cannot be, or too many.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// More messages in a second than a delegator ever sends.
    #[error("too many messages")]
    Flood,
    /// Nothing was heard for half of the lease.
    #[error("silence")]
    Silent,
}

/// How the subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waits before the next attempt.
    Waiting,
    /// Reaches for the delegator.
    Connecting,
    /// Connected, and has not heard the list yet.
    Syncing,
    /// Connected; the list is up to date.
    Current,
}

/// Mirrors this node's list of one delegator, in memory, as long as the delegator vouches for it.
#[derive(Debug)]
pub struct Subscriber {
    own: Fingerprint,
    list: List,
    held: Option<(Epoch, u64)>,
    /// The delegator is to tell the list from its beginning.
    asks_whole: bool,
    lease: Span,
    /// The delegator's last word on the list, on both clocks.
    heard: Option<Now>,
    stage: Stage,
    partial: Option<Partial>,
    /// When the stage ends by itself.
    due: Time,
    /// When an entry of the list ends next.
    next_end: Option<Time>,
    connected: Time,
    /// When the clocks were looked at last.
    looked: Time,
    failures: u32,
    second: (Time, u32),
    outputs: VecDeque<SubscriberOutput>,
}

/// A change whose end has not arrived.
#[derive(Debug)]
struct Partial {
    /// When its first part arrived.
    begun: Time,
    epoch: Epoch,
    revision: u64,
    base: Option<u64>,
    lease_secs: u32,
    delta: Delta,
    /// Bytes of what is put.
    bytes: usize,
}

impl Subscriber {
    /// A subscription of the node `own`, which reaches for its delegator at once.
    pub fn new(own: Fingerprint, now: Now) -> Subscriber {
        Subscriber {
            own,
            list: List::default(),
            held: None,
            asks_whole: false,
            lease: Span::ZERO,
            heard: None,
            stage: Stage::Connecting,
            partial: None,
            due: now.time,
            next_end: None,
            connected: now.time,
            looked: now.time,
            failures: 0,
            second: (now.time, 0),
            outputs: VecDeque::from([SubscriberOutput::Connect]),
        }
    }

    /// How it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The number of the list held, as the delegator counts them.
    pub fn revision(&self) -> Option<u64> {
        self.held.map(|(_, revision)| revision)
    }

    /// Until when the list holds if nothing more is heard; `None` where there is none in force.
    pub fn holds_until(&self, now: Now) -> Option<Timestamp> {
        let left = self.left(now)?;
        Some(now.utc.plus_secs(left.as_secs()))
    }

    /// What is left of the lease, by the clock that says less.
    fn left(&self, now: Now) -> Option<Span> {
        let heard = self.heard?;
        let by_timer = Span(self.lease.0.saturating_sub((now.time - heard.time).0));
        // A machine that slept kept its timer still; one whose clock was set back proves nothing.
        let slept = Span::secs(now.utc.secs_since(heard.utc));
        let by_clock = Span(self.lease.0.saturating_sub(slept.0));
        Some(by_timer.min(by_clock)).filter(|left| *left > Span::ZERO)
    }

    /// Whether the list lets that side open streams of `protocol` with `peer`.
    pub fn permits(&self, opener: Opener, peer: &Fingerprint, protocol: &Protocol, now: Now) -> bool {
        self.find(peer, now).is_some_and(|entry| entry.rights.permit(opener, protocol, now.utc))
    }

    /// The entry of a peer that is allowed anything now.
    pub fn find(&self, peer: &Fingerprint, now: Now) -> Option<&Entry> {
        self.left(now)?;
        self.list.find(peer).filter(|entry| entry.rights.hold(now.utc))
    }

    /// All entries that allow anything now.
    pub fn entries(&self, now: Now) -> impl Iterator<Item = &Entry> {
        let holds = self.left(now).is_some();
        self.list.iter().filter(move |entry| holds && entry.rights.hold(now.utc))
    }

    /// The list held, as the delegator told it.
    pub fn list(&self) -> &List {
        &self.list
    }

    fn connected(&mut self, now: Now) {
        if self.stage != Stage::Connecting {
            return;
        }
        self.stage = Stage::Syncing;
        self.connected = now.time;
        self.due = now.time + defaults::DELEGATOR_PATIENCE;
        let held = self.held.filter(|_| !self.asks_whole);
        self.outputs.push_back(SubscriberOutput::Send(Message::Subscribe(held)));
    }

    /// The next attempt is later the more often it failed, and at no time that others share.
    fn lost(&mut self, now: Now, rng: &mut dyn Rng) {
        if self.stage == Stage::Waiting {
            return;
        }
        let stayed = self.stage == Stage::Current && now.time - self.connected >= defaults::STAYED;
        self.failures = if stayed { 0 } else { self.failures.saturating_add(1).min(16) };
        let (least, most) = defaults::RECONNECT_RANGE;
        let base = least.times(1 << self.failures.saturating_sub(1)).min(most);
        self.partial = None;
        self.stage = Stage::Waiting;
        self.due = now.time + Span(base.0 / 2 + rng.below(base.0 / 2 + 1));
    }

    fn fault(&mut self, now: Now, fault: Fault, rng: &mut dyn Rng) {
        self.outputs.push_back(SubscriberOutput::Disconnect(fault));
        // What does not fit is asked for from its beginning.
        self.asks_whole = true;
        self.lost(now, rng);
    }

    fn received(&mut self, now: Now, message: Message) -> Result<(), Fault> {
        if !matches!(self.stage, Stage::Syncing | Stage::Current) {
            return Ok(());
        }
        if now.time - self.second.0 >= Span::secs(1) {
            self.second = (now.time, 0);
        }
        self.second.1 += 1;
        if self.second.1 > defaults::MAX_MESSAGES_PER_SECOND {
            return Err(Fault::Flood);
        }
        match message {
            Message::Alive(epoch, revision) => {
                if self.partial.is_some() {
                    return Err(Fault::OutOfPlace);
                }
                if self.held != Some((epoch, revision)) {
                    return Err(Fault::Misfit);
                }
                if self.vouch(now) {
                    self.tell(now);
                }
                Ok(())
            }
            Message::Update(update) => self.update(now, update),
            Message::Subscribe(_) | Message::Applied(_) => Err(Fault::OutOfPlace),
        }
    }

    fn update(&mut self, now: Now, update: Update) -> Result<(), Fault> {
        let mut partial = match self.partial.take() {
            Some(partial) if partial.is_of(&update) => partial,
            Some(_) => return Err(Fault::OutOfPlace),
            None => self.begin(now, &update)?,
        };
        if update.more && update.delta.is_empty() {
            return Err(Fault::Flood);
        }
        if update.delta.put.iter().any(|entry| entry.peer == self.own) {
            return Err(Fault::Misfit);
        }
        partial.take(update.delta)?;
        if update.more {
            // Whoever tells it is not silent, for as long as a list may take.
            let due = (now.time + defaults::DELEGATOR_PATIENCE).min(partial.begun + defaults::LIST_PATIENCE);
            self.due = self.due.max(due);
            self.partial = Some(partial);
            return Ok(());
        }
        let changed = if partial.base.is_some() {
            self.list.apply(partial.delta)?
        } else {
            let mut list = List::default();
            list.apply(partial.delta)?;
            let before = std::mem::replace(&mut self.list, list);
            before != self.list
        };
        self.held = Some((update.epoch, update.revision));
        self.asks_whole = false;
        self.lease =
            Span::secs(update.lease_secs.into()).clamp(defaults::LEASE_RANGE.0, defaults::LEASE_RANGE.1);
        // The shell hears of it before the delegator does.
        if self.vouch(now) || changed {
            self.tell(now);
        }
        self.outputs.push_back(SubscriberOutput::Send(Message::Applied(update.revision)));
        Ok(())
    }

    /// Where a change begins: at the list held, or at nothing.
    fn begin(&self, now: Now, update: &Update) -> Result<Partial, Fault> {
        match (update.base, self.held) {
            // A list from its beginning: the first thing that is said, and never an older one than was held.
            (None, held) => {
                let is_older =
                    held.is_some_and(|(epoch, revision)| epoch == update.epoch && update.revision < revision);
                if self.stage != Stage::Syncing || is_older {
                    return Err(Fault::Misfit);
                }
            }
            (Some(base), Some(held)) if held == (update.epoch, base) && update.revision > base => {}
            (Some(_), _) => return Err(Fault::Misfit),
        }
        Ok(Partial {
            begun: now.time,
            epoch: update.epoch,
            revision: update.revision,
            base: update.base,
            lease_secs: update.lease_secs,
            delta: Delta::default(),
            bytes: 0,
        })
    }

    /// The delegator says that the list holds; whether it did not before, by its lease.
    fn vouch(&mut self, now: Now) -> bool {
        let was_over = self.left(now).is_none();
        (self.heard, self.looked) = (Some(now), now.time);
        self.stage = Stage::Current;
        self.due = now.time + Span(self.lease.0 / 2);
        was_over && !self.list.is_empty()
    }

    fn tell(&mut self, now: Now) {
        self.set_next_end(now);
        if self.outputs.back() != Some(&SubscriberOutput::Changed) {
            self.outputs.push_back(SubscriberOutput::Changed);
        }
    }

    fn set_next_end(&mut self, now: Now) {
        let ends = self.list.iter().filter_map(|entry| entry.rights.next_end(now.utc));
        let wait = |end: Timestamp| Span::secs(end.secs_since(now.utc)).min(LOOK_EVERY);
        self.next_end = ends.min().map(|end| now.time + wait(end));
    }

    /// The time of the lease is over: nothing is held any more. A whole list that is on its way goes on; what began at
    /// the list held leads nowhere now.
    fn forget(&mut self, now: Now) {
        self.heard = None;
        self.held = None;
        self.partial = self.partial.take().filter(|partial| partial.base.is_none());
        if !self.list.is_empty() {
            self.list = List::default();
            self.tell(now);
        }
    }
}

impl Partial {
    fn take(&mut self, delta: Delta) -> Result<(), Fault> {
        self.bytes += delta.put.iter().map(|entry| entry_bytes(entry)).sum::<usize>();
        self.delta.put.extend(delta.put);
        self.delta.gone.extend(delta.gone);
        if self.delta.put.len() > MAX_MEMBERS || self.bytes > MAX_LIST_BYTES {
            return Err(EntryError::TooLarge.into());
        }
        if self.delta.gone.len() > MAX_MEMBERS { Err(Fault::Flood) } else { Ok(()) }
    }

    fn is_of(&self, update: &Update) -> bool {
        let own = (self.epoch, self.revision, self.base, self.lease_secs);
        own == (update.epoch, update.revision, update.base, update.lease_secs)
    }
}

impl Machine for Subscriber {
    type Input = SubscriberInput;
    type Output = SubscriberOutput;

    fn handle_input(&mut self, now: Now, input: SubscriberInput, rng: &mut dyn Rng) {
        match input {
            SubscriberInput::Connected => self.connected(now),
            SubscriberInput::Lost => self.lost(now, rng),
            SubscriberInput::Received(message) => {
                if let Err(fault) = self.received(now, message) {
                    self.fault(now, fault, rng);
                }
            }
            SubscriberInput::Nudged => {
                if self.stage == Stage::Waiting {
                    self.due = self.due.min(now.time);
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        self.looked = now.time;
        if self.heard.is_some() && self.left(now).is_none() {
            self.forget(now);
        }
        if self.next_end.is_some_and(|end| end <= now.time) {
            // Somebody's time may be over.
            self.tell(now);
        }
        if now.time < self.due {
            return;
        }
        match self.stage {
            Stage::Waiting => {
                self.stage = Stage::Connecting;
                self.outputs.push_back(SubscriberOutput::Connect);
            }
            // The shell says when it has come to an end.
            Stage::Connecting => {}
            Stage::Syncing | Stage::Current => self.fault(now, Fault::Silent, rng),
        }
    }

    fn poll_output(&mut self) -> Option<SubscriberOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        // The wall clock may end the lease before the timer does: after a sleep, or where it was set.
        let over = self.heard.map(|heard| (heard.time + self.lease).min(self.looked + LOOK_EVERY));
        let due = (self.stage != Stage::Connecting).then_some(self.due);
        [over, due, self.next_end].into_iter().flatten().min()
    }
}
