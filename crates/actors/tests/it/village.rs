//! A network of members in one thread, with real keys, certificates and trees.

use std::collections::{BTreeMap, VecDeque};

use kith_actors::hardened::{
    ActorList, Book, Builder, Input, Message, Order, Output, Refusal, Setter, Terms, Ticket, Trigger, View,
    Witness, region_bits,
};
use kith_actors::ktable::epoch_hash;
use kith_identity::membership::{
    Block, Issuer, MemberLeaf, MemoryLedger, NodeId, Request, Rolled, Terms as NetworkTerms, Threshold,
};
use kith_identity::{Fingerprint, Identity};
use kith_sansio::{Machine, Now, SeededRng, Time, Timestamp};

pub(crate) const NOW: Now = Now { time: Time(0), utc: Timestamp(1_800_000_000) };
const QUOTA: u32 = 8;

pub(crate) struct Village {
    pub(crate) issuer: Fingerprint,
    pub(crate) rolled: Rolled,
    pub(crate) people: BTreeMap<NodeId, (Identity, View, Book)>,
    pub(crate) dead: Vec<NodeId>,
    /// What everybody says may be changed on its way.
    pub(crate) tamper: fn(&NodeId, &mut Message),
}

/// A witness or a builder.
enum Other<'a> {
    Witness(Witness<'a, &'a Identity>),
    Builder(Builder<'a, &'a Identity>),
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
    /// So many members, of whom `colluding` may collude, and regions of about `region` of them.
    pub(crate) fn new(count: u64, colluding: u64, alpha: f64, region: u64) -> Result<Village, Refusal> {
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
        let bits = region_bits(count, region);
        let person = |(id, identity)| {
            let range = rolled.members.range(&Block::around(&id, bits)).unwrap();
            Ok((id, (identity, View::new(rolled.epoch.clone(), range)?, Book::new(QUOTA))))
        };
        let people = members.into_iter().map(person).collect::<Result<_, Refusal>>()?;
        Ok(Village { issuer: network, rolled, people, dead: Vec::new(), tamper: |_, _| {} })
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

    /// The living member nearest to a place, as a lookup in the DHT would find it.
    fn at(&self, place: &NodeId) -> NodeId {
        let living = self.people.keys().filter(|id| !self.dead.contains(id));
        *living.min_by_key(|id| place.distance(id)).unwrap()
    }

    /// Draws; gives the order and the place to which it goes.
    pub(crate) fn draw(&mut self, ticket: Ticket) -> Result<(NodeId, Order), Refusal> {
        let (identity, view, _) = &self.people[&ticket.trigger];
        let trigger = Trigger::new(view, identity, ticket)?;
        let others = self.others(|view, id, identity| Other::Witness(Witness::new(view, id, identity)));
        let (output, books) = self.talk(trigger, ticket.trigger, others);
        self.keep(books);
        match output {
            Output::Route { to, order } => Ok((to, *order)),
            Output::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Selects for an order, moving where a region has too few candidates.
    pub(crate) fn select(&mut self, (mut place, mut order): (NodeId, Order)) -> Result<ActorList, Refusal> {
        loop {
            let me = self.at(&place);
            let (identity, view, _) = &self.people[&me];
            let setter = Setter::new(view, identity, order)?;
            let others = self.others(|view, id, identity| Other::Builder(Builder::new(view, id, identity)));
            let (output, books) = self.talk(setter, me, others);
            self.keep(books);
            match output {
                Output::Selected(list) => return Ok(*list),
                Output::Route { to, order: moved } => (place, order) = (to, *moved),
                Output::Refused(refusal) => return Err(refusal),
                other => panic!("{other:?}"),
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
            self.people.get_mut(&id).unwrap().2 = book;
        }
    }

    /// Carries messages between one member and others until the one has its result, or somebody refuses to go on.
    fn talk<A: Machine<Input = Input, Output = Output>>(
        &self,
        mut one: A,
        me: NodeId,
        mut others: BTreeMap<NodeId, (Other<'_>, Book)>,
    ) -> (Output, Vec<(NodeId, Book)>) {
        let mut rng = SeededRng::new(1);
        let mut under_way = VecDeque::new();
        let books = |others: BTreeMap<NodeId, (Other<'_>, Book)>| {
            others.into_iter().map(|(id, (_, book))| (id, book)).collect()
        };
        loop {
            while let Some(output) = one.poll_output() {
                match output {
                    Output::Send { to, mut message } => {
                        (self.tamper)(&me, &mut message);
                        under_way.push_back((to, carried(&message)));
                    }
                    Output::Probe(ids) => one.handle_input(NOW, self.alive(ids), &mut rng),
                    result => return (result, books(others)),
                }
            }
            let Some((to, message)) = under_way.pop_front() else {
                one.handle_timeout(Now { time: Time(u64::MAX), ..NOW }, &mut rng);
                return (one.poll_output().unwrap(), books(others));
            };
            let (other, book) = others.get_mut(&to).unwrap();
            other.handle(Input::Heard { from: me, message }, book);
            while let Some(output) = other.poll_output() {
                match output {
                    Output::Send { mut message, .. } => {
                        (self.tamper)(&to, &mut message);
                        let message = carried(&message);
                        one.handle_input(NOW, Input::Heard { from: to, message }, &mut rng);
                    }
                    Output::Probe(ids) => other.handle(self.alive(ids), book),
                    refused => return (refused, books(others)),
                }
            }
        }
    }

    fn alive(&self, ids: Vec<NodeId>) -> Input {
        Input::Alive(ids.into_iter().filter(|id| !self.dead.contains(id)).collect())
    }
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
