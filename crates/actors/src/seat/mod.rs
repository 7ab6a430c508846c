//! A member's seat in selections: all roles that it has at a time, over conversations with others, as one machine.
//!
//! A *talk* is a conversation of two members: whoever wants something of the other opens it, and it ends when that is
//! done. The machine says what is to be said in which talk; its shell has the streams, and what is signed is on the disk
//! before anything that follows is said ([`Output::Keep`]).

mod drawing;
mod serving;
mod talks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kith_identity::Identity;
use kith_identity::membership::NodeId;
use kith_identity::membership::pledge::VerifiedEvidence;
use kith_sansio::{Machine, Now, Rng, Span, Time};

use crate::hardened::{
    self, Book, Builder, ListError, Message, Order, Reason, Refusal, Setter, Terms, Trigger, Unfinished,
    VerifiedActorList, View, Witness, Witnessed,
};

/// How long a member may take to say that it is there.
pub const PROBE: Span = Span::secs(4);
/// How long one draw, or the work of a setter or builder, may take in all.
pub const WORK: Span = Span::secs(100);
/// How many draws one wish takes at most.
pub const MAX_TRIES: u32 = 8;
/// How long the next draw waits after one that failed; twice, thrice … as long after more.
pub const PAUSE: Span = Span::millis(500);
/// What others may have a member do at a time, and one of them alone.
pub const MAX_TASKS: usize = 64;
/// Of these, one member alone.
pub const MAX_TASKS_OF_ONE: usize = 4;
/// How many members nearest to a place are asked whether they are there, to find its setter.
const SETTERS: usize = 8;

/// A conversation with one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Talk(u64);

impl Talk {
    /// The conversation that another member has opened; whoever drives the machine counts them.
    pub fn incoming(number: u64) -> Talk {
        Talk(2 * number + 1)
    }

    /// Its number; of two members' talks several may have the same.
    pub fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn is_incoming(self) -> bool {
        self.0 % 2 == 1
    }
}

/// What happens at a seat.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody here wants actors drawn.
    Select {
        /// Comes back with the outcome.
        op: u64,
        /// What they are for.
        terms: Terms,
    },
    /// A member said something: in a talk of this seat, or in one that it has opened.
    Heard {
        /// The conversation.
        talk: Talk,
        /// Who: proved by the connection.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A talk has ended, or none came about.
    Closed(Talk),
    /// These members are nearest to the place that was asked for, nearest first.
    Found {
        /// The number of the question.
        wish: u64,
        /// The members.
        members: Vec<NodeId>,
    },
    /// Whoever wanted this does not wait any more: no further draw is made for it.
    Forget {
        /// What was wanted.
        op: u64,
    },
    /// An epoch has begun: nothing that was under way is good for it.
    Epoch(Arc<View>, Box<Book>),
}

/// What a seat wants.
#[derive(Clone, Debug)]
pub enum Output {
    /// Put these bytes of the book where a restart finds them, before anything that follows is done.
    Keep(Vec<u8>),
    /// Say this; the first thing said in a talk of this seat opens it.
    Say {
        /// The conversation.
        talk: Talk,
        /// With whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// The talk is over once all is said.
    End(Talk),
    /// Find the members nearest to a place: [`Input::Found`].
    Find {
        /// The number of the question.
        wish: u64,
        /// The place.
        place: NodeId,
    },
    /// This member has broken a pledge, as anybody can check.
    Accuse(Box<VerifiedEvidence>),
    /// The actors are drawn.
    Selected {
        /// Whose outcome this is.
        op: u64,
        /// The list.
        list: Box<VerifiedActorList>,
        /// How many draws it took.
        draws: u32,
    },
    /// They are not.
    NotSelected {
        /// Whose outcome this is.
        op: u64,
        /// How many draws were made.
        draws: u32,
        /// Why the last one failed.
        trouble: Trouble,
    },
}

/// Why a draw came to nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// This member cannot go on.
    #[error(transparent)]
    Here(#[from] Refusal),
    /// All draws of the epoch are used up.
    #[error("all draws that a member has in an epoch are used up")]
    Quota,
    /// A member that is needed refuses.
    #[error("{who:?} refuses: {reason}")]
    Refused {
        /// Who.
        who: NodeId,
        /// Why.
        reason: Reason,
    },
    /// Members that are there did not take part in time.
    #[error("members did not take part: {0:?}")]
    Unanswered(Vec<NodeId>),
    /// Members took part and did not say what is missing.
    #[error("members took part and then fell silent: {0:?}")]
    Silent(Vec<NodeId>),
    /// What a member said does not hold.
    #[error("what {0:?} said does not hold")]
    Lied(NodeId),
    /// No member near the place of the draw takes the work of the setter.
    #[error("no member near the place of the draw takes the work of the setter")]
    NoSetter,
    /// The list that came does not hold.
    #[error("the list that came does not hold: {0}")]
    List(#[from] ListError),
    /// It took too long.
    #[error("it took too long")]
    Late,
    /// The epoch ended meanwhile. Not all members know the next one at once.
    #[error("the epoch ended before a list was there")]
    Turned,
}

impl Trouble {
    /// Whether another draw is of no use.
    fn is_final(&self) -> bool {
        let passes =
            |refusal: &Refusal| matches!(refusal, Refusal::Sparse | Refusal::Signer | Refusal::Epoch);
        matches!(self, Trouble::Here(refusal) if !passes(refusal))
    }
}

type Suite = Arc<Identity>;
type SharedView = Arc<View>;

/// What a member does in selections.
pub struct Seat {
    me: NodeId,
    identity: Suite,
    view: SharedView,
    book: Book,
    seen: Witnessed,
    /// Draws of this member in the epoch in which somebody accepted and did not reveal; their numbers rise.
    stalled: Vec<Unfinished>,
    wishes: BTreeMap<u64, Wish>,
    tasks: BTreeMap<u64, Task>,
    talks: BTreeMap<Talk, Side>,
    /// The two ends of talks of this member with itself.
    mirrors: BTreeMap<Talk, Talk>,
    /// What it says to itself.
    loops: VecDeque<Input>,
    /// The last number that was given to a task or a talk.
    last: u64,
    outputs: VecDeque<Output>,
}

/// Actors that somebody here wants.
#[derive(Debug)]
struct Wish {
    terms: Terms,
    draws: u32,
    /// When the next draw begins; nothing while one is under way.
    again: Option<Time>,
}

/// One role in one draw.
struct Task {
    role: Role,
    /// Who asked for it.
    patron: Patron,
    /// Whom it talks with.
    talks: BTreeMap<NodeId, Talk>,
    /// Who has said all that was wanted.
    done: BTreeSet<NodeId>,
    probe: Option<Probe>,
    until: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patron {
    /// Somebody here, for this wish.
    Wish(u64),
    /// Another member.
    Member(NodeId, Talk),
}

enum Role {
    Trigger(Trigger<SharedView, Suite>),
    Handing(Handing),
    Witness(Witness<SharedView, Suite>),
    Setter(Setter<SharedView, Suite>),
    Builder(Builder<SharedView, Suite>),
}

/// A draw that is done and looks for its setter.
#[derive(Debug)]
struct Handing {
    order: Box<Order>,
    place: NodeId,
    /// Who may be asked next, nearest first.
    candidates: VecDeque<NodeId>,
    asked: Option<NodeId>,
}

/// Members that are asked whether they are there, or for what they owe.
#[derive(Debug)]
struct Probe {
    waiting: BTreeMap<Talk, NodeId>,
    answers: Vec<(NodeId, Message)>,
    is_reminder: bool,
    until: Time,
}

/// To what a talk belongs.
#[derive(Clone, Copy, Debug)]
struct Side {
    task: u64,
    peer: NodeId,
    is_probe: bool,
}

impl Seat {
    /// The seat of the member at `me` with this key. `view` is that of its own region; `book` that of the epoch.
    pub fn new(me: NodeId, identity: Arc<Identity>, view: Arc<View>, book: Book) -> Seat {
        Seat {
            me,
            identity,
            view,
            book,
            seen: Witnessed::default(),
            stalled: Vec::new(),
            wishes: BTreeMap::new(),
            tasks: BTreeMap::new(),
            talks: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            loops: VecDeque::new(),
            last: 0,
            outputs: VecDeque::new(),
        }
    }

    /// What it knows of its network.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What it has signed in the epoch.
    pub fn book(&self) -> &Book {
        &self.book
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn take(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match input {
            Input::Select { op, terms } => {
                self.wishes.insert(op, Wish { terms, draws: 0, again: None });
                self.draw(now, op, rng);
            }
            Input::Heard { talk, from, message } => match self.talks.get(&talk).copied() {
                Some(side) if side.peer != from => {}
                Some(Side { is_probe: true, .. }) => self.probed(now, talk, message, rng),
                Some(Side { task, .. }) => self.told(now, task, from, message, rng),
                None if talk.is_incoming() => self.asked(now, talk, from, message, rng),
                None => {}
            },
            Input::Closed(talk) => match self.talks.remove(&talk) {
                Some(side) if side.is_probe => self.unprobed(now, side.task, talk, rng),
                Some(side) => self.left(now, talk, side, rng),
                None => {}
            },
            Input::Found { wish, members } => self.found(now, wish, members, rng),
            Input::Forget { op } => drop(self.wishes.remove(&op)),
            Input::Epoch(view, book) => self.turn(view, *book),
        }
    }

    /// A new epoch: what is under way ends, and nothing that was signed before matters.
    fn turn(&mut self, view: Arc<View>, book: Book) {
        (self.view, self.book, self.seen) = (view, book, Witnessed::default());
        self.stalled.clear();
        self.outputs.push_back(Output::Keep(self.book.to_bytes()));
        let tasks: Vec<_> = self.tasks.keys().copied().collect();
        tasks.into_iter().for_each(|task| self.finish(task));
        let wishes: Vec<_> = self.wishes.keys().copied().collect();
        wishes.into_iter().for_each(|op| self.given_up(op, Trouble::Turned));
    }

    /// Gives a machine something, and does what it wants.
    fn drive(&mut self, now: Now, task: u64, input: hardened::Input, rng: &mut dyn Rng) {
        self.run(now, task, rng, |role, book, rng| match role {
            Role::Trigger(trigger) => trigger.handle_input(now, input, rng),
            Role::Setter(setter) => setter.handle_input(now, input, rng),
            Role::Witness(witness) => witness.handle(now, input, book),
            Role::Builder(builder) => builder.handle(now, input, book),
            Role::Handing(_) => {}
        });
    }

    fn run(
        &mut self,
        now: Now,
        task: u64,
        rng: &mut dyn Rng,
        work: impl FnOnce(&mut Role, &mut Book, &mut dyn Rng),
    ) {
        let Some(found) = self.tasks.get_mut(&task) else { return };
        work(&mut found.role, &mut self.book, rng);
        let outputs: Vec<_> = std::iter::from_fn(|| found.role.poll_output()).collect();
        for output in outputs {
            self.obey(now, task, output, rng);
        }
    }

    fn obey(&mut self, now: Now, task: u64, output: hardened::Output, rng: &mut dyn Rng) {
        use hardened::Output as Wanted;
        match output {
            Wanted::Keep => self.outputs.push_back(Output::Keep(self.book.to_bytes())),
            Wanted::Send { to, message } => self.send(task, to, message),
            Wanted::Probe(ids) => self.probe(now, task, ids, &Message::Ping, rng),
            Wanted::Remind(ids, reminder) => self.probe(now, task, ids, &Message::Remind(reminder), rng),
            Wanted::Route { to, order } => self.route(now, task, to, order, rng),
            Wanted::Selected(list) => self.reply(task, Message::Selected(list)),
            Wanted::Unanswered(who) => self.trouble(now, task, Trouble::Unanswered(who)),
            Wanted::Silent(who) => self.trouble(now, task, Trouble::Silent(who)),
            Wanted::Lied(who) => self.trouble(now, task, Trouble::Lied(who)),
            Wanted::Refused(refusal) => self.trouble(now, task, Trouble::Here(refusal)),
        }
    }

    /// A task comes to nothing.
    fn trouble(&mut self, now: Now, task: u64, trouble: Trouble) {
        let Some(found) = self.tasks.get(&task) else { return };
        match found.patron {
            Patron::Wish(op) => {
                self.remember(task);
                self.finish(task);
                self.failed(now, op, trouble);
            }
            Patron::Member(..) => {
                let reason = match trouble {
                    Trouble::Here(refusal) => Reason::of(&refusal),
                    _ => Reason::Others,
                };
                self.reply(task, Message::Refused(reason));
            }
        }
    }

    /// Says the last thing of a task to who asked for it.
    fn reply(&mut self, task: u64, message: Message) {
        if let Some(Task { patron: Patron::Member(to, talk), .. }) = self.tasks.get(&task) {
            let (to, talk) = (*to, *talk);
            self.say(talk, to, message);
        }
        self.finish(task);
    }

    /// Ends a task and all of its talks.
    fn finish(&mut self, task: u64) {
        self.tasks.remove(&task);
        let of_it: Vec<_> =
            self.talks.iter().filter(|(_, side)| side.task == task).map(|(talk, _)| *talk).collect();
        of_it.into_iter().for_each(|talk| self.end(talk));
    }
}

impl Role {
    fn poll_output(&mut self) -> Option<hardened::Output> {
        match self {
            Role::Trigger(trigger) => trigger.poll_output(),
            Role::Setter(setter) => setter.poll_output(),
            Role::Witness(witness) => witness.poll_output(),
            Role::Builder(builder) => builder.poll_output(),
            Role::Handing(_) => None,
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self {
            Role::Trigger(trigger) => trigger.poll_timeout(),
            Role::Setter(setter) => setter.poll_timeout(),
            Role::Witness(_) | Role::Builder(_) | Role::Handing(_) => None,
        }
    }
}

impl Machine for Seat {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        self.take(now, input, rng);
        while let Some(own) = self.loops.pop_front() {
            self.take(now, own, rng);
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        let tasks: Vec<_> = self.tasks.keys().copied().collect();
        for task in tasks {
            self.due(now, task, rng);
        }
        let is_due = |wish: &Wish| wish.again.is_some_and(|again| again <= now.time);
        let due: Vec<_> = self.wishes.iter().filter(|(_, wish)| is_due(wish)).map(|(op, _)| *op).collect();
        due.into_iter().for_each(|op| self.draw(now, op, rng));
        while let Some(own) = self.loops.pop_front() {
            self.take(now, own, rng);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        let tasks = self.tasks.values().map(Task::poll_timeout);
        tasks.chain(self.wishes.values().filter_map(|wish| wish.again)).min()
    }
}

impl Task {
    fn new(role: Role, patron: Patron, until: Time) -> Task {
        let (talks, done) = (BTreeMap::new(), BTreeSet::new());
        Task { role, patron, talks, done, probe: None, until }
    }

    fn poll_timeout(&self) -> Time {
        let probe = self.probe.as_ref().map(|probe| probe.until);
        [probe, self.role.poll_timeout()].into_iter().flatten().fold(self.until, Time::min)
    }
}
