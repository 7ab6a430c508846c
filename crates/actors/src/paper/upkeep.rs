//! How the caches of SEP2P §3.6 are kept while nodes come and go.
//!
//! A [`Newcomer`] asks the nodes before and behind it on the ring for what they know. Each of these, a [`Keeper`] like
//! every other node, has its own cache attested by the fewest nodes that the k-table allows around it, and hands both
//! over. The newcomer keeps what is in its own R3 and shows its certificate to everybody there. Whoever leaves signs that
//! it does. Who vanishes without a word is missed by its neighbours on the ring, which takes no signature.
//!
//! The paper sketches the joining alone; leaving follows from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kith_sansio::{Machine, Now, Rng, Span, Time, Timestamp};

use super::{Attestation, Cache, Node, Refusal, Rules};
use crate::gather::Gather;
use crate::scheme::{Hash, Key, Scheme, Signature, hash};

/// What a node knows of its R3, signed by nodes of which one is honest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestedCache {
    /// Whose cache it is.
    pub owner: Node,
    /// When it was attested.
    pub at: Timestamp,
    /// Everybody within R3 of its owner but the owner.
    pub nodes: Vec<Node>,
    /// Who says so.
    pub attestations: Vec<Attestation>,
}

impl AttestedCache {
    /// Checks with 2k operations that nodes which may decide around the owner say that this is its cache now. None for
    /// the nodes in it: one of those who attested it is honest and knows them.
    pub fn verify(&self, rules: &Rules, scheme: &mut impl Scheme, now: Timestamp) -> Result<(), Refusal> {
        if !is_fresh(rules, self.at, now) {
            return Err(Refusal::Expired);
        }
        let signers: Vec<_> = self.attestations.iter().map(|one| &one.builder).collect();
        let statement = statement(&self.owner, self.at, &self.nodes);
        let are_valid = !signers.contains(&&self.owner)
            && rules.are_legitimate(scheme, self.owner.place(), &signers)
            && self
                .attestations
                .iter()
                .all(|one| scheme.verify(one.builder.key(), &statement, &one.signature));
        if are_valid { Ok(()) } else { Err(Refusal::Signer) }
    }
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A newcomer asks for a cache.
    Ask,
    /// A node asks one that may decide around it to attest its cache.
    Attest {
        /// What is signed as the time.
        at: Timestamp,
        /// The cache.
        nodes: Vec<Node>,
    },
    /// The signature over a cache.
    Attested(Signature),
    /// A cache for a newcomer.
    Cache(Box<AttestedCache>),
    /// A newcomer, with its certificate, is there.
    Here,
    /// A node leaves, and signed that it does.
    Leave {
        /// What is signed as the time.
        at: Timestamp,
        /// The signature.
        signature: Signature,
    },
}

/// A node said something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who.
    pub from: Node,
    /// What.
    pub message: Message,
}

/// What a node wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say something to a node.
    Send {
        /// To whom.
        to: Node,
        /// What.
        message: Message,
    },
    /// The newcomer's cache is there, and all in it are told.
    Joined(Vec<Node>),
    /// This node belongs into the cache from now on.
    Known(Node),
    /// This node is in the cache no more.
    Gone(Node),
    /// It cannot go on.
    Refused(Refusal),
}

/// Says goodbye to everybody in the cache of `me`, with one operation.
pub fn goodbye(
    rules: &Rules,
    me: &Node,
    cache: &impl Cache,
    scheme: &mut impl Scheme,
    now: Timestamp,
) -> Vec<Output> {
    let leave = Message::Leave { at: now, signature: scheme.sign(&leaving(me, now)) };
    let others = others(rules, me, cache);
    others.into_iter().map(|to| Output::Send { to, message: leave.clone() }).collect()
}

/// Everybody within R3 of a node but itself.
fn others(rules: &Rules, me: &Node, cache: &impl Cache) -> Vec<Node> {
    let mut nodes = cache.around(me.place(), rules.candidates);
    nodes.retain(|node| node != me);
    nodes
}

fn statement(owner: &Node, at: Timestamp, nodes: &[Node]) -> Hash {
    let keys: Vec<Key> = nodes.iter().map(|node| *node.key()).collect();
    hash(b"sep2p cache", &[owner.key(), &at.0.to_be_bytes(), keys.as_flattened()])
}

fn leaving(who: &Node, at: Timestamp) -> Hash {
    hash(b"sep2p leave", &[who.key(), &at.0.to_be_bytes()])
}

fn is_fresh(rules: &Rules, at: Timestamp, now: Timestamp) -> bool {
    now.secs_since(at).max(at.secs_since(now)) <= rules.max_age_secs
}

/// A node on its way into the network.
#[derive(Debug)]
pub struct Newcomer<'a, S> {
    rules: &'a Rules,
    me: Node,
    /// Checks for the newcomer.
    pub scheme: S,
    asked: Option<Gather<Node, AttestedCache>>,
    deadline: Time,
    outputs: VecDeque<Output>,
}

impl<'a, S: Scheme> Newcomer<'a, S> {
    /// Asks the nodes before and behind `me` on the ring, which a lookup found.
    pub fn new(rules: &'a Rules, me: Node, neighbours: [Node; 2], scheme: S, now: Now) -> Self {
        let mut asked = neighbours.to_vec();
        asked.dedup();
        let outputs = asked.iter().map(|to| Output::Send { to: *to, message: Message::Ask }).collect();
        let deadline = now.time + Span::secs(rules.max_age_secs);
        Newcomer { rules, me, scheme, asked: Some(Gather::from(asked)), deadline, outputs }
    }

    fn heard(&mut self, from: &Node, cache: AttestedCache, now: Timestamp) -> Result<(), Refusal> {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.awaits(from)) else { return Ok(()) };
        if cache.owner != *from {
            return Err(Refusal::Signer);
        }
        cache.verify(self.rules, &mut self.scheme, now)?;
        if let Some(caches) = asked.put(from, cache) {
            self.asked = None;
            self.greet(caches);
        }
        Ok(())
    }

    /// Shows itself to all of its R3: the two caches reach beyond it on both sides.
    fn greet(&mut self, caches: Vec<AttestedCache>) {
        let all = caches.into_iter().flat_map(|cache| cache.nodes.into_iter().chain([cache.owner]));
        let (me, region) = (self.me, self.rules.candidates);
        let own = all.filter(|node| *node != me && region.holds(me.place(), node.place()));
        let known: BTreeMap<Key, Node> = own.map(|node| (*node.key(), node)).collect();
        let known: Vec<_> = known.into_values().collect();
        self.outputs.extend(known.iter().map(|to| Output::Send { to: *to, message: Message::Here }));
        self.outputs.push_back(Output::Joined(known));
    }
}

impl<S: Scheme> Machine for Newcomer<'_, S> {
    type Input = Heard;
    type Output = Output;

    fn handle_input(&mut self, now: Now, Heard { from, message }: Heard, _: &mut dyn Rng) {
        let Message::Cache(cache) = message else { return };
        if let Err(refusal) = self.heard(&from, *cache, now.utc) {
            self.asked = None;
            self.outputs.push_back(Output::Refused(refusal));
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now.time) {
            self.asked = None;
            self.outputs.push_back(Output::Refused(Refusal::Silence));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.asked.is_some().then_some(self.deadline)
    }
}

/// A node of the network, as far as others come and go. Its host keeps the cache as the outputs say.
#[derive(Debug)]
pub struct Keeper<'a, C, S> {
    rules: &'a Rules,
    me: Node,
    cache: &'a C,
    /// Signs and checks for the node.
    pub scheme: S,
    asking: Option<Asking>,
    outputs: VecDeque<Output>,
}

/// A newcomer waits for a cache that is being attested.
#[derive(Debug)]
struct Asking {
    newcomer: Node,
    cache: AttestedCache,
    signers: Vec<Node>,
    signatures: Gather<Node, Signature>,
    deadline: Time,
}

impl<'a, C: Cache, S: Scheme> Keeper<'a, C, S> {
    /// A node whom nobody has asked yet.
    pub fn new(rules: &'a Rules, me: Node, cache: &'a C, scheme: S) -> Self {
        Keeper { rules, me, cache, scheme, asking: None, outputs: VecDeque::new() }
    }

    fn heard(&mut self, from: Node, message: Message, now: Now) -> Result<(), Refusal> {
        match message {
            Message::Ask => return self.asked(from, now),
            Message::Attest { at, nodes } => {
                let signature = self.attest(&from, at, &nodes, now.utc)?;
                self.outputs.push_back(Output::Send { to: from, message: Message::Attested(signature) });
            }
            Message::Attested(signature) => self.attested(&from, signature),
            Message::Here => self.greeted(from)?,
            Message::Leave { at, signature } => {
                let is_signed = is_fresh(self.rules, at, now.utc)
                    && self.scheme.verify(from.key(), &leaving(&from, at), &signature);
                self.outputs.push_back(if is_signed {
                    Output::Gone(from)
                } else {
                    Output::Refused(Refusal::Signer)
                });
            }
            Message::Cache(_) => {}
        }
        Ok(())
    }

    fn asked(&mut self, newcomer: Node, now: Now) -> Result<(), Refusal> {
        let signers = self.rules.deciders(self.cache, self.me.place(), &self.me).ok_or(Refusal::Sparse)?;
        let nodes = others(self.rules, &self.me, self.cache);
        let attest = Message::Attest { at: now.utc, nodes: nodes.clone() };
        self.outputs.extend(signers.iter().map(|to| Output::Send { to: *to, message: attest.clone() }));
        let cache = AttestedCache { owner: self.me, at: now.utc, nodes, attestations: Vec::new() };
        let signatures = Gather::from(signers.clone());
        let deadline = now.time + Span::secs(self.rules.max_age_secs);
        self.asking = Some(Asking { newcomer, cache, signers, signatures, deadline });
        Ok(())
    }

    /// Signs another one's cache where it has all whom both would know, and nobody who is not genuine: whoever is beyond
    /// the own R3 shows its certificate, one operation.
    fn attest(
        &mut self,
        owner: &Node,
        at: Timestamp,
        nodes: &[Node],
        now: Timestamp,
    ) -> Result<Signature, Refusal> {
        if !is_fresh(self.rules, at, now) {
            return Err(Refusal::Expired);
        }
        let region = self.rules.candidates;
        let known = self.cache.around(owner.place(), region);
        if !known.contains(owner) {
            return Err(Refusal::Signer);
        }
        let known: BTreeSet<&Key> = known.iter().filter(|node| *node != owner).map(Node::key).collect();
        let told: BTreeSet<&Key> = nodes.iter().map(Node::key).collect();
        if told.len() != nodes.len() || !known.is_subset(&told) {
            return Err(Refusal::Broken);
        }
        for node in nodes {
            let is_known = known.contains(node.key());
            let is_legitimate = node != owner && region.holds(owner.place(), node.place());
            if !is_legitimate || !(is_known || *node == self.me || node.is_genuine(&mut self.scheme)) {
                return Err(Refusal::Actor);
            }
        }
        Ok(self.scheme.sign(&statement(owner, at, nodes)))
    }

    fn attested(&mut self, from: &Node, signature: Signature) {
        let Some(asking) = &mut self.asking else { return };
        let Some(signatures) = asking.signatures.put(from, signature) else { return };
        let Some(Asking { newcomer, mut cache, signers, .. }) = self.asking.take() else { return };
        let attestation = |(builder, signature)| Attestation { builder, signature };
        cache.attestations = signers.into_iter().zip(signatures).map(attestation).collect();
        self.outputs.push_back(Output::Send { to: newcomer, message: Message::Cache(Box::new(cache)) });
    }

    /// A newcomer of the own R3 is believed its certificate.
    fn greeted(&mut self, newcomer: Node) -> Result<(), Refusal> {
        let is_legitimate = self.rules.candidates.holds(self.me.place(), newcomer.place())
            && newcomer.is_genuine(&mut self.scheme);
        if !is_legitimate {
            return Err(Refusal::Actor);
        }
        self.outputs.push_back(Output::Known(newcomer));
        Ok(())
    }
}

impl<C: Cache, S: Scheme> Machine for Keeper<'_, C, S> {
    type Input = Heard;
    type Output = Output;

    fn handle_input(&mut self, now: Now, Heard { from, message }: Heard, _: &mut dyn Rng) {
        if let Err(refusal) = self.heard(from, message, now) {
            self.outputs.push_back(Output::Refused(refusal));
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now.time) {
            self.asking = None;
            self.outputs.push_back(Output::Refused(Refusal::Silence));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.asking.as_ref().map(|asking| asking.deadline)
    }
}
