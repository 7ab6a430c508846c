//! The machines of one attempt, and how they are spoken with by whoever deviates.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use kith_actors::hardened::{
    ActorList, Book, Builder, Claim, Input, Message, Order, Output, Refusal, Setter, Suite, Ticket, Trigger,
    View, Witness,
};
use kith_actors::scheme::{Key, Signature};
use kith_identity::Identity;
use kith_identity::membership::NodeId;
use kith_identity::membership::pledge::Pledge;
use kith_identity::vrf::{self, PROOF_BYTES};
use kith_sansio::{Machine, SeededRng};

use super::Village;
use crate::talk::NOW;

/// One attempt: who colludes, and what the others remember of it.
pub(super) struct Scene<'a> {
    pub(super) village: &'a Village,
    pub(super) is_ours: &'a [bool],
    quota: u32,
    books: BTreeMap<NodeId, Book>,
    known: Rc<RefCell<Known>>,
}

/// How the adversary deviates.
pub(super) struct Lies<'a> {
    /// Whether a node that colludes, the first, says of another that it does not answer.
    pub(super) denies: &'a dyn Fn(&NodeId, &NodeId) -> bool,
    /// Changes what a trigger or setter says.
    pub(super) alters: &'a dyn Fn(&mut Message),
}

/// Does not.
pub(super) const HONEST: Lies<'static> = Lies { denies: &|_, _| false, alters: &|_| () };

/// The keys of a member, which checks nothing that somebody has checked in this attempt: it would find the same.
#[derive(Clone)]
struct Keys<'a> {
    identity: &'a Identity,
    known: Rc<RefCell<Known>>,
}

/// What was checked, by the key and what it says something about.
#[derive(Default)]
struct Known {
    signed: BTreeSet<(Key, Vec<u8>, Signature)>,
    outputs: BTreeMap<(Key, Vec<u8>, [u8; PROOF_BYTES]), Option<vrf::Output>>,
}

impl Suite for Keys<'_> {
    fn sign(&mut self, pledge: &Pledge) -> Signature {
        pledge.sign(self.identity)
    }

    fn verify(&mut self, claims: &[Claim<'_>]) -> bool {
        let of = |claim: &Claim<'_>| (*claim.key, claim.pledge.message().to_vec(), *claim.signature);
        let mut known = self.known.borrow_mut();
        let new: Vec<_> = claims.iter().filter(|claim| !known.signed.contains(&of(claim))).copied().collect();
        let mut identity = self.identity;
        let holds = new.is_empty() || Suite::verify(&mut identity, &new);
        if holds {
            known.signed.extend(new.iter().map(of));
        }
        holds
    }

    fn prove(&mut self, input: &[u8]) -> vrf::Proof {
        self.identity.vrf_secret().prove(input)
    }

    fn output(&mut self, key: &[u8; 32], input: &[u8], proof: &vrf::Proof) -> Option<vrf::Output> {
        let mut identity = self.identity;
        let mut known = self.known.borrow_mut();
        let entry = known.outputs.entry((*key, input.to_vec(), *proof.as_bytes()));
        *entry.or_insert_with(|| Suite::output(&mut identity, key, input, proof))
    }
}

/// A witness or a builder.
enum Other<'a> {
    Witness(Witness<&'a View, Keys<'a>>),
    Builder(Builder<&'a View, Keys<'a>>),
}

/// Which of them.
#[derive(Clone, Copy)]
enum Role {
    Witness,
    Builder,
}

impl<'a> Other<'a> {
    fn new(scene: &Scene<'a>, id: &NodeId, role: Role) -> Option<Other<'a>> {
        let (view, keys) = (scene.village.view(id), scene.keys(id)?);
        Some(match role {
            Role::Witness => Other::Witness(Witness::new(view, *id, keys)),
            Role::Builder => Other::Builder(Builder::new(view, *id, keys)),
        })
    }

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

impl<'a> Scene<'a> {
    pub(super) fn new(village: &'a Village, is_ours: &'a [bool], quota: u32) -> Scene<'a> {
        Scene { village, is_ours, quota, books: BTreeMap::new(), known: Rc::default() }
    }

    pub(super) fn is_ours(&self, id: &NodeId) -> bool {
        self.village.index(id).is_some_and(|index| self.is_ours[index])
    }

    fn keys(&self, id: &NodeId) -> Option<Keys<'a>> {
        let identity = &self.village.people[self.village.index(id)?].1;
        Some(Keys { identity, known: Rc::clone(&self.known) })
    }

    /// What a member remembers: whoever colludes remembers nothing.
    fn book(&self, id: &NodeId) -> Book {
        let epoch = &self.village.rolled.epoch;
        if self.is_ours(id) {
            return Book::new(epoch, u32::MAX);
        }
        self.books.get(id).cloned().unwrap_or_else(|| Book::new(epoch, self.quota))
    }

    /// Draws: the order and the place to which it goes; none where somebody refuses.
    pub(super) fn draw(&mut self, ticket: Ticket, lies: &Lies<'_>) -> Option<(NodeId, Order)> {
        let village = self.village;
        let keys = self.keys(&ticket.trigger)?;
        let mut book = self.book(&ticket.trigger);
        let trigger = Trigger::new(village.view(&ticket.trigger), keys, ticket, &mut book).ok()?;
        match self.converse(trigger, ticket.trigger, Role::Witness, lies)? {
            Output::Route { to, order } => Some((to, *order)),
            _ => None,
        }
    }

    /// The list of an order, wherever it is moved. The trigger passes the messages: who did is nothing that a list says.
    pub(super) fn select(
        &mut self,
        (mut place, mut order): (NodeId, Order),
        lies: &Lies<'_>,
    ) -> Option<ActorList> {
        let village = self.village;
        let me = order.draw.proposal.ticket.trigger;
        loop {
            let setter = Setter::new(village.view(&place), self.keys(&me)?, order).ok()?;
            match self.converse(setter, me, Role::Builder, lies)? {
                Output::Selected(list) => return Some(*list),
                Output::Route { to, order: moved } => (place, order) = (to, *moved),
                _ => return None,
            }
        }
    }

    /// Carries messages between one member and others until the one has a result; none where somebody refuses to go on.
    fn converse<M: Machine<Input = Input, Output = Output>>(
        &mut self,
        mut one: M,
        me: NodeId,
        role: Role,
        lies: &Lies<'_>,
    ) -> Option<Output> {
        // Neither a trigger nor a setter draws anything of its own.
        let mut rng = SeededRng::new(0);
        let mut others: BTreeMap<NodeId, (Other<'a>, Book)> = BTreeMap::new();
        let done = loop {
            let mut said = Vec::new();
            let result = loop {
                match one.poll_output() {
                    None => break None,
                    Some(Output::Keep) => {}
                    Some(Output::Probe(ids)) => one.handle_input(NOW, self.alive(&me, ids, lies), &mut rng),
                    Some(Output::Send { to, mut message }) => {
                        (lies.alters)(&mut message);
                        said.push((to, message));
                    }
                    Some(result) => break Some(result),
                }
            };
            if result.is_some() || said.is_empty() {
                break result;
            }
            for (to, message) in said {
                if let Entry::Vacant(entry) = others.entry(to) {
                    let Some(other) = Other::new(self, &to, role) else { continue };
                    entry.insert((other, self.book(&to)));
                }
                let Some((other, book)) = others.get_mut(&to) else { continue };
                let heard = Input::Heard { from: me, message };
                // Whoever has refused answers nothing any more.
                if let Ok(message) = self.answer((&to, other, book), heard, lies) {
                    one.handle_input(NOW, Input::Heard { from: to, message }, &mut rng);
                }
            }
        };
        self.books.extend(others.into_iter().map(|(id, (_, book))| (id, book)));
        done
    }

    /// What a witness or a builder answers.
    fn answer(
        &self,
        (id, other, book): (&NodeId, &mut Other<'_>, &mut Book),
        heard: Input,
        lies: &Lies<'_>,
    ) -> Result<Message, Refusal> {
        other.handle(heard, book);
        loop {
            match other.poll_output() {
                Some(Output::Send { message, .. }) => return Ok(message),
                Some(Output::Probe(ids)) => other.handle(self.alive(id, ids, lies), book),
                Some(Output::Keep) => {}
                Some(Output::Refused(refusal)) => return Err(refusal),
                _ => return Err(Refusal::Signer),
            }
        }
    }

    /// Everybody answers; whoever colludes may say otherwise.
    fn alive(&self, prober: &NodeId, mut ids: Vec<NodeId>, lies: &Lies<'_>) -> Input {
        if self.is_ours(prober) {
            ids.retain(|id| !(lies.denies)(prober, id));
        }
        Input::Alive(ids)
    }
}
