//! One node as a machine: it joins, answers, looks up, keeps values, and knows who lives in its region.
//!
//! It takes whole messages of members whom their certificates and their connections proved. What it believes of others
//! it has from themselves: a node that was only heard of is asked before it has a place, and one that is said to be
//! gone is asked before it loses it.

mod answering;
mod calls;
mod keeping;
mod region;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use kith_identity::membership::NodeId;
use kith_sansio::{Machine, Now, Rng, Span, Time, Timestamp};

use crate::contact::Contact;
use crate::defaults::{Config, PROBE, REFRESH, SYNC, TEND};
use crate::message::{Body, Message};
use crate::routes::{Heard, Routes};
use crate::store::Store;
use crate::value::{Refusal, Value};
use answering::Askers;
use calls::{Calls, Probe, Why};
use keeping::{Pending, Served};
use region::{Absent, LOWEST, Sync};
use tasks::{Copies, Task};

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// Keep these values, which were kept before the node was started again, and which these members had brought; to be
    /// told before it joins.
    Restore(Vec<(Value, NodeId)>),
    /// Become part of the network that these belong to; nobody, where this node is the first.
    Join(Vec<Contact>),
    /// These belong to the network, too: whoever has lost everybody, or was alone, finds the others through them.
    Meet(Vec<Contact>),
    /// This node is reached elsewhere now.
    Moved(SocketAddr),
    /// What was to be kept is on the disk, or could not be written.
    Kept {
        /// Of [`Output::Keep`].
        ticket: u64,
        /// Whether it is on the disk.
        is_safe: bool,
    },
    /// Leave it.
    Leave,
    /// The network has so many members, as its issuer says in each epoch.
    Members(u64),
    /// These are all members of the own region ([`Routes::block`]), as the member root proves: whoever is not known is
    /// looked for.
    Roster(Vec<NodeId>),
    /// These are members no more, and nobody else is barred: they are not heard until another such list comes.
    Revoked(Vec<NodeId>),
    /// Find the `want` nodes nearest to a place.
    Find {
        /// Comes back with the outcome.
        op: u64,
        /// The place.
        place: NodeId,
        /// How many are wanted.
        want: usize,
    },
    /// Find the value of a key.
    Get {
        /// Comes back with the outcome.
        op: u64,
        /// The key.
        key: NodeId,
    },
    /// Store a value.
    Put {
        /// Comes back with the outcome.
        op: u64,
        /// The value.
        value: Value,
    },
    /// A member said something.
    Heard {
        /// Whose key and certificate the connection proved. Its address has the IP address that the connection comes from,
        /// whatever the peer says itself, so that nobody counts in a network in which it is not.
        from: Contact,
        /// What it said.
        message: Message,
    },
    /// There is no connection to this node.
    Unreachable(NodeId),
}

/// What a node wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say this to that node.
    Send {
        /// Whom.
        to: Contact,
        /// What.
        message: Message,
    },
    /// Write this value to the disk, over another one at its key, and say when it is there ([`Input::Kept`]): nobody is
    /// told before that it is kept. Only of a node that is [durable](Node::durable).
    Keep {
        /// Comes back with the outcome.
        ticket: u64,
        /// The value.
        value: Value,
        /// Who brought it.
        by: NodeId,
    },
    /// The value of this key is kept no more. Only of a node that is [durable](Node::durable).
    Forget(NodeId),
    /// It knows its region, and its region knows it.
    Joined,
    /// It said goodbye; nothing more will come.
    Left,
    /// The nodes that were looked for, nearest first, each of which answered.
    Found {
        /// Whose outcome this is.
        op: u64,
        /// They.
        nodes: Vec<Contact>,
        /// In which round of its path the nearest was asked.
        hops: u32,
        /// How many requests it took.
        requests: u32,
    },
    /// The value of a key, the newest that was found; `None` where no node had one.
    Got {
        /// Whose outcome this is.
        op: u64,
        /// The value.
        value: Option<Value>,
    },
    /// A value is stored and acknowledged.
    Stored {
        /// Whose outcome this is.
        op: u64,
        /// On so many nodes.
        nodes: usize,
    },
    /// A value is stored on too few nodes to count on it.
    NotStored {
        /// Whose outcome this is.
        op: u64,
        /// On so many nodes.
        nodes: usize,
        /// So many were needed.
        needed: usize,
        /// Why the last one that refused did so.
        refusal: Option<Refusal>,
    },
}

/// A node of the network.
#[derive(Debug)]
pub struct Node {
    own: Contact,
    config: Config,
    routes: Routes,
    store: Store,
    phase: Phase,
    calls: Calls,
    tasks: BTreeMap<u64, Task>,
    copies: BTreeMap<u64, Copies>,
    next_task: u64,
    /// Whom to ask whether they are there.
    rumours: BTreeMap<NodeId, Contact>,
    /// Who did not answer when it was asked because others told of it, and where.
    absent: BTreeMap<(NodeId, SocketAddr), Absent>,
    /// Members of the region that nobody was found at yet.
    missing: BTreeSet<NodeId>,
    /// Who of them was looked for last.
    searched: NodeId,
    /// Who is a member no more.
    revoked: BTreeSet<NodeId>,
    sync: Option<Sync>,
    /// How long until the region is compared again: longer and longer while nothing happens.
    sync_every: Span,
    askers: Askers,
    /// Neighbours that say that they have just come and have no values.
    emptied: BTreeSet<NodeId>,
    /// What neighbours were brought not long ago.
    served: BTreeMap<NodeId, Served>,
    /// Whether values are written to the disk before they count as kept.
    is_durable: bool,
    /// Who waits until a value is on the disk.
    unsafe_yet: BTreeMap<u64, Pending>,
    next_ticket: u64,
    /// Whether it has just come and has no values.
    is_empty_handed: bool,
    /// Whom the network was joined through.
    known: Vec<Contact>,
    /// The bucket that is refreshed next.
    refreshed: u32,
    timers: Timers,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing but answers.
    Apart,
    /// Looking for its region, or greeting it.
    Joining,
    Joined,
    Left,
}

/// When what is done again and again is due; nothing while the node is apart.
#[derive(Clone, Copy, Debug, Default)]
struct Timers {
    probe: Option<Time>,
    sync: Option<Time>,
    refresh: Option<Time>,
    tend: Option<Time>,
}

impl Node {
    /// A node that is apart, in a network of `members`. `own` is what others are told of it; its address is one that
    /// they reach, since it says in which kind of network the node is.
    pub fn new(own: Contact, config: Config, members: u64) -> Node {
        Node {
            routes: Routes::new(&own, config.clone(), members),
            own,
            config,
            store: Store::default(),
            phase: Phase::Apart,
            calls: Calls::default(),
            tasks: BTreeMap::new(),
            copies: BTreeMap::new(),
            next_task: 0,
            rumours: BTreeMap::new(),
            absent: BTreeMap::new(),
            missing: BTreeSet::new(),
            searched: LOWEST,
            revoked: BTreeSet::new(),
            sync: None,
            sync_every: SYNC,
            askers: Askers::default(),
            emptied: BTreeSet::new(),
            served: BTreeMap::new(),
            is_durable: false,
            unsafe_yet: BTreeMap::new(),
            next_ticket: 0,
            is_empty_handed: true,
            known: Vec::new(),
            refreshed: 0,
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// The same, but it counts no value as kept before that is on the disk ([`Output::Keep`]).
    #[must_use]
    pub fn durable(mut self) -> Node {
        self.is_durable = true;
        self
    }

    /// Whom it knows.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What it keeps.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Lookups that are under way, for whatever purpose.
    pub fn lookups(&self) -> usize {
        self.tasks.len()
    }

    /// Lookups that it has begun since it was made.
    pub fn lookups_begun(&self) -> u64 {
        self.next_task
    }

    /// Members of its region that it looks for.
    pub fn missing(&self) -> impl Iterator<Item = &NodeId> {
        self.missing.iter()
    }

    /// Whether somebody of whom others told may be a node of the network.
    fn may_be_asked(&self, contact: &Contact, now: Timestamp) -> bool {
        self.routes.is_possible(contact) && contact.not_after > now && !self.revoked.contains(&contact.id)
    }

    fn say(&mut self, to: &Contact, id: u64, body: Body) {
        self.outputs.push_back(Output::Send { to: to.clone(), message: Message { id, body } });
    }

    fn ask(&mut self, to: &Contact, now: Time, body: Body, why: Why) {
        let id = self.calls.open(to.clone(), now, why);
        self.say(to, id, body);
    }

    fn probe(&mut self, to: &Contact, now: Time, probe: Probe) {
        let is_new = self.phase == Phase::Joining && self.is_empty_handed;
        self.ask(to, now, Body::Ping { is_new }, Why::Probe(probe));
    }

    fn heard(&mut self, now: Now, from: &Contact, message: Message, rng: &mut dyn Rng) {
        if from.id == self.own.id || matches!(self.phase, Phase::Apart | Phase::Left) {
            return;
        }
        if self.revoked.contains(&from.id) || from.not_after <= now.utc {
            return;
        }
        if message.body == Body::Leave {
            return self.forget(&from.id, now.time);
        }
        match self.routes.heard(from, now.time) {
            Heard::Region => self.region_changed(&from.id, now.time),
            Heard::Full(oldest) => self.doubt(oldest, now.time),
            Heard::Nothing | Heard::Bucket => {}
        }
        if !message.body.is_answer() {
            self.answer(now, from, message, rng);
        } else if let Some(call) = self.calls.answered(message.id, &from.id) {
            self.answered(now, from, call.why, message.body, rng);
        }
    }

    fn answered(&mut self, now: Now, from: &Contact, why: Why, body: Body, rng: &mut dyn Rng) {
        match why {
            Why::Task(task) => self.lookup_answered(now, task, from, body, rng),
            Why::Copy(task) => self.copy_answered(now.time, task, &body),
            Why::Repair(key) => self.repaired(&key, from, &body),
            Why::Page => self.page(now, from, body, rng),
            Why::Probe(_) => {}
        }
    }

    /// A question was not answered.
    fn failed(&mut self, now: Now, to: &Contact, why: Why, rng: &mut dyn Rng) {
        let is_known = self.routes.find(&to.id).is_some_and(|known| known.contact.address == to.address);
        if self.routes.failed(to).is_some() {
            self.lost(to, why, now.time);
        } else if let (false, Why::Probe(_)) = (is_known, why) {
            self.is_absent(to, now.time);
        } else if let (true, Why::Probe(probe)) = (is_known, why) {
            // Once is no proof: packets get lost.
            self.probe(to, now.time, probe);
        }
        match why {
            Why::Task(task) => self.lookup_failed(now, task, &to.id, rng),
            Why::Copy(task) => self.copy_failed(now.time, task, None),
            Why::Page => self.page_failed(now, rng),
            Why::Repair(_) | Why::Probe(_) => {}
        }
    }

    fn due(&mut self, now: Now, rng: &mut dyn Rng) {
        let mut is_due = |timer: fn(&mut Timers) -> &mut Option<Time>, every: Span| {
            let timer = timer(&mut self.timers);
            let due = timer.is_some_and(|due| due <= now.time);
            if due {
                *timer = Some(now.time + Span(every.0 / 2 + rng.below(every.0)));
            }
            due
        };
        let probe = is_due(|timers| &mut timers.probe, PROBE);
        let sync = is_due(|timers| &mut timers.sync, self.sync_every);
        let refresh = is_due(|timers| &mut timers.refresh, REFRESH);
        let tend = is_due(|timers| &mut timers.tend, TEND);
        if probe {
            self.watch(now, rng);
        }
        if sync {
            self.begin_sync(now, rng);
        }
        if refresh {
            self.refresh(now, rng);
        }
        if tend {
            self.tend(now, rng);
        }
    }
}

impl Machine for Node {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match input {
            Input::Restore(values) => self.restore(now, values, rng),
            Input::Join(known) => self.join(now, known, rng),
            Input::Meet(others) => self.meet(now, others),
            Input::Moved(address) => {
                self.own.address = address;
                self.routes.set_scope(self.own.scope());
            }
            Input::Kept { ticket, is_safe } => self.is_safe(now.time, ticket, is_safe),
            Input::Leave => self.leave(),
            Input::Members(members) => self.set_members(now.time, members),
            Input::Roster(ids) => self.set_roster(&ids),
            Input::Revoked(ids) => {
                ids.iter().for_each(|id| self.forget(id, now.time));
                self.revoked = ids.into_iter().collect();
            }
            Input::Find { op, place, want } => self.find(now, op, place, want, rng),
            Input::Get { op, key } => self.get(now, op, key, rng),
            Input::Put { op, value } => self.put(now, Some(op), value, rng),
            Input::Heard { from, message } => self.heard(now, &from, message, rng),
            Input::Unreachable(id) => {
                // Only the questions of now: what follows from their failures may ask the node again.
                let calls: Vec<_> = std::iter::from_fn(|| self.calls.any_to(&id)).collect();
                calls.iter().for_each(|call| self.failed(now, &call.to, call.why, rng));
            }
        }
        self.ask_around(now.time);
        self.forget_gone();
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        while let Some(call) = self.calls.expired(now.time) {
            self.failed(now, &call.to, call.why, rng);
        }
        self.press_on(now, rng);
        self.due(now, rng);
        self.ask_around(now.time);
        self.forget_gone();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        let Timers { probe, sync, refresh, tend } = self.timers;
        let tasks = self.tasks.values().map(Task::poll_timeout);
        [probe, sync, refresh, tend, self.calls.poll_timeout()].into_iter().flatten().chain(tasks).min()
    }
}
