//! A network of members in one thread, with real keys, certificates and trees.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use kith_actors::hardened::{
    ActorList, Book, Builder, Input, Message, Order, Output, Reason, Refusal, Reminder, Setter, Terms,
    Ticket, Trigger, Unfinished, View, Witness,
};
use kith_actors::ktable::epoch_hash;
use kith_identity::membership::{
    Block, Issuer, MemberLeaf, MemoryLedger, NodeId, REGION_MEMBERS, Request, Rolled, Terms as NetworkTerms,
    Threshold, region_bits,
};
use kith_identity::vrf::Proof;
use kith_identity::{Fingerprint, Identity};
use kith_sansio::{Machine, Now, SeededRng, Time, Timestamp};

pub(crate) const NOW: Now = Now { time: Time(0), utc: Timestamp(1_800_000_000) };
const QUOTA: u32 = 8;

pub(crate) struct Village {
    pub(crate) issuer: Fingerprint,
    pub(crate) rolled: Rolled,
    /// Members of one region have one view.
    pub(crate) people: BTreeMap<NodeId, (Identity, Rc<View>, Book)>,
    pub(crate) dead: Vec<NodeId>,
    /// The first of them says that the second does not answer.
    pub(crate) liar: Option<(NodeId, NodeId)>,
    /// What everybody says may be changed on its way, or lost.
    pub(crate) tamper: Box<Tamper>,
    /// Draws that stalled before those that follow.
    pub(crate) stalled: Vec<Unfinished>,
    /// The last draw, where it stalled.
    pub(crate) unfinished: Option<Unfinished>,
}

/// Changes what a member says; whether it arrives.
type Tamper = dyn Fn(&NodeId, &mut Message) -> bool;

/// Somebody whom nobody asked, and who says something to everybody before each message.
const STRANGER: NodeId = NodeId::from_bytes([0xee; 32]);

/// A witness or a builder.
enum Other<'a> {
    Witness(Witness<&'a View, &'a Identity>),
    Builder(Builder<&'a View, &'a Identity>),
}

impl Other<'_> {
    fn handle(&mut self, input: Input, book: &mut Book) {
        match self {
            Other::Witness(witness) => witness.handle(NOW, input, book),
            Other::Builder(builder) => builder.handle(NOW, input, book),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        match self {
            Other::Witness(witness) => witness.poll_output(),
            Other::Builder(builder) => builder.poll_output(),
        }
    }
}

impl Village {
    /// So many members, of whom `colluding` may collude.
    pub(crate) fn new(count: u64, colluding: u64, alpha: f64) -> Result<Village, Refusal> {
        let mut rng = SeededRng::new(11);
        let terms = NetworkTerms {
            colluding_per_mille: 0,
            colluding_least: colluding,
            threshold: Threshold::new(alpha).unwrap(),
            ..NetworkTerms::default()
        };
        let mut issuer = Issuer::new(Identity::generate(&mut rng), terms, MemoryLedger::default());
        let network = issuer.network().id();
        let mut members = Vec::new();
        for _ in 0..count {
            let identity = Identity::generate(&mut rng);
            let request = Request::sign(&identity, &network).verify(&network).unwrap();
            members.push((issuer.admit(&request, NOW.utc).unwrap().id(), identity));
        }
        let table = |nodes, colluding, alpha: Threshold| epoch_hash(nodes, colluding, alpha.alpha());
        let rolled = issuer.roll(NOW.utc, table).unwrap();
        let bits = region_bits(count, REGION_MEMBERS);
        let mut views = BTreeMap::new();
        let person = |(id, identity)| {
            let block = Block::around(&id, bits);
            let book = Book::new(&rolled.epoch, QUOTA);
            let view = match views.entry(block.first()) {
                Entry::Occupied(known) => Rc::clone(known.get()),
                Entry::Vacant(free) => {
                    let range = rolled.members.range(&block).unwrap();
                    Rc::clone(free.insert(Rc::new(View::new(rolled.epoch.clone(), range)?)))
                }
            };
            Ok((id, (identity, view, book)))
        };
        let people = members.into_iter().map(person).collect::<Result<_, Refusal>>()?;
        let (dead, tamper) = (Vec::new(), Box::new(|_: &NodeId, _: &mut Message| true));
        let (stalled, unfinished) = (Vec::new(), None);
        Ok(Village { issuer: network, rolled, people, dead, liar: None, tamper, stalled, unfinished })
    }

    pub(crate) fn ticket(&self, trigger: usize, sequence: u32, actors: u16) -> Ticket {
        Ticket {
            network: self.issuer,
            epoch: self.rolled.epoch.facts().epoch,
            trigger: *self.people.keys().nth(trigger).unwrap(),
            sequence,
            terms: Terms { manifest: [5; 32], actors, role: 0, expires: NOW.utc.plus_secs(600) },
        }
    }

    /// The witnesses of a draw, nearest first.
    pub(crate) fn witnesses(&self, ticket: &Ticket) -> Vec<NodeId> {
        ids(&self.people[&ticket.trigger].1.witnesses(ticket, &[]).unwrap().members)
    }

    /// The second builder of a draw: the first may be the setter.
    pub(crate) fn builder(&self, (place, order): &(NodeId, Order)) -> NodeId {
        let view = &self.people[&self.at(place)].1;
        view.group(place, &order.draw.proposal.ticket.trigger, &[]).unwrap().members[1].id
    }

    /// The living member nearest to a place, as a lookup in the DHT would find it.
    pub(crate) fn at(&self, place: &NodeId) -> NodeId {
        let living = self.people.keys().filter(|id| !self.dead.contains(id));
        *living.min_by_key(|id| place.distance(id)).unwrap()
    }

    /// Draws; gives the order and the place to which it goes.
    pub(crate) fn draw(&mut self, ticket: Ticket) -> Result<(NodeId, Order), Output> {
        let (identity, view, book) = &self.people[&ticket.trigger];
        let mut book = book.clone();
        let trigger = Trigger::after(&**view, identity, ticket, &mut book, &self.stalled);
        let mut trigger = trigger.map_err(Output::Refused)?;
        let others = self.others(|view, id, identity| Other::Witness(Witness::new(view, id, identity)));
        let (output, books) = self.talk(&mut trigger, ticket.trigger, others);
        self.unfinished = trigger.unfinished().cloned();
        self.keep(books);
        self.keep(vec![(ticket.trigger, book)]);
        match output {
            Output::Route { to, order } => Ok((to, *order)),
            other => Err(other),
        }
    }

    /// Selects for an order, moving where a region has too few candidates.
    pub(crate) fn select(&mut self, (mut place, mut order): (NodeId, Order)) -> Result<ActorList, Output> {
        loop {
            let me = self.at(&place);
            let (identity, view, _) = &self.people[&me];
            let mut setter = Setter::new(&**view, identity, order).map_err(Output::Refused)?;
            let others = self.others(|view, id, identity| Other::Builder(Builder::new(view, id, identity)));
            let (output, books) = self.talk(&mut setter, me, others);
            self.keep(books);
            match output {
                Output::Selected(list) => return Ok(*list),
                Output::Route { to, order: moved } => (place, order) = (to, *moved),
                other => return Err(other),
            }
        }
    }

    fn others<'a>(
        &'a self,
        make: fn(&'a View, NodeId, &'a Identity) -> Other<'a>,
    ) -> BTreeMap<NodeId, (Other<'a>, Book)> {
        let people = self.people.iter();
        people.map(|(id, (identity, view, book))| (*id, (make(view, *id, identity), book.clone()))).collect()
    }

    fn keep(&mut self, books: Vec<(NodeId, Book)>) {
        for (id, book) in books {
            let read = Book::from_bytes(&book.to_bytes()).unwrap();
            assert_eq!(read, book, "a restart forgets nothing");
            self.people.get_mut(&id).unwrap().2 = read;
        }
    }

    /// Carries messages between one member and others until the one has its result, or somebody refuses to go on.
    fn talk<A: Machine<Input = Input, Output = Output>>(
        &self,
        one: &mut A,
        me: NodeId,
        mut others: BTreeMap<NodeId, (Other<'_>, Book)>,
    ) -> (Output, Vec<(NodeId, Book)>) {
        let mut rng = SeededRng::new(1);
        let mut under_way = VecDeque::new();
        let books = |others: BTreeMap<NodeId, (Other<'_>, Book)>| {
            others.into_iter().map(|(id, (_, book))| (id, book)).collect()
        };
        let mut kept = BTreeSet::new();
        loop {
            while let Some(output) = one.poll_output() {
                match output {
                    Output::Keep => {}
                    Output::Send { to, mut message } => {
                        if (self.tamper)(&me, &mut message) {
                            under_way.push_back((to, carried(&message)));
                        }
                    }
                    Output::Probe(ids) => one.handle_input(NOW, self.alive(&me, ids), &mut rng),
                    result => return (result, books(others)),
                }
            }
            let Some((to, message)) = under_way.pop_front() else {
                one.handle_timeout(Now { time: Time(u64::MAX), ..NOW }, &mut rng);
                return (one.poll_output().unwrap(), books(others));
            };
            let (other, book) = others.get_mut(&to).unwrap();
            strays().for_each(|stray| other.handle(stray, book));
            strays().for_each(|stray| one.handle_input(NOW, stray, &mut rng));
            other.handle(Input::Heard { from: me, message }, book);
            while let Some(output) = other.poll_output() {
                match output {
                    Output::Keep => drop(kept.insert(to)),
                    Output::Send { mut message, .. } => {
                        let is_own = !matches!(message, Message::Late { .. });
                        assert!(kept.contains(&to) || !is_own, "what a restart may forget is not said");
                        if (self.tamper)(&to, &mut message) {
                            let message = carried(&message);
                            one.handle_input(NOW, Input::Heard { from: to, message }, &mut rng);
                        }
                    }
                    Output::Probe(ids) => other.handle(self.alive(&to, ids), book),
                    Output::Remind(ids, reminder) => other.handle(self.reminded(&ids, reminder), book),
                    refused => return (refused, books(others)),
                }
            }
        }
    }

    fn reminded(&self, ids: &[NodeId], reminder: Box<Reminder>) -> Input {
        let Message::Remind(reminder) = carried(&Message::Remind(reminder)) else { unreachable!() };
        let answer = |id: &NodeId| {
            let mut message = match self.owed(id, &reminder) {
                Ok(proof) => Message::Reveal(proof),
                Err(refusal) => Message::Refused(Reason::of(&refusal)),
            };
            (!self.dead.contains(id) && (self.tamper)(id, &mut message)).then_some((*id, message))
        };
        Input::Answered(ids.iter().filter_map(answer).collect())
    }

    /// What a member answers to a reminder.
    pub(crate) fn owed(&self, id: &NodeId, reminder: &Reminder) -> Result<Proof, Refusal> {
        let (identity, view, _) = &self.people[id];
        reminder.answer(id, view, &mut &*identity)
    }

    fn alive(&self, prober: &NodeId, ids: Vec<NodeId>) -> Input {
        let is_there = |id: &NodeId| !self.dead.contains(id) && self.liar != Some((*prober, *id));
        Input::Alive(ids.into_iter().filter(is_there).collect())
    }
}

/// What changes nothing, whoever hears it and when.
fn strays() -> impl Iterator<Item = Input> {
    let messages = [
        Message::Accept([0; 64]),
        Message::Accepted(Vec::new()),
        Message::Reveal(Proof::from_bytes([0; 80])),
        Message::Report(Vec::new()),
        Message::Reports(Vec::new()),
        Message::Insufficient([0; 64]),
    ];
    messages.into_iter().map(|message| Input::Heard { from: STRANGER, message })
}

pub(crate) fn ids(leaves: &[MemberLeaf]) -> Vec<NodeId> {
    leaves.iter().map(|leaf| leaf.id).collect()
}

/// The message after it went over a wire.
fn carried(message: &Message) -> Message {
    let read = Message::from_bytes(&message.to_bytes()).unwrap();
    assert_eq!(read, *message);
    read
}
