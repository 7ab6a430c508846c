//! The verifiable random of SEP2P §3.4.

use std::collections::VecDeque;

use kith_sansio::{Machine, Now, Rng, Span, Time, Timestamp};

use super::{Cache, Input, Message, Node, Output, Refusal, Rules};
use crate::gather::Gather;
use crate::scheme::{Hash, Scheme, Signature, hash};

/// What one witness gave to a random value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The witness.
    pub witness: Node,
    /// Its random number.
    pub random: Hash,
    /// Its signature over the hashes of all numbers and the time.
    pub signature: Signature,
}

/// A random value that no witness could choose, as long as one of them is honest: VRND_T.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiableRandom {
    /// Around whose place the witnesses are.
    pub trigger: Node,
    /// When it was asked for.
    pub at: Timestamp,
    /// One share of each witness.
    pub shares: Vec<Share>,
}

impl VerifiableRandom {
    /// RND_T: all random numbers combined.
    pub fn value(&self) -> Hash {
        combined(self.shares.iter().map(|share| &share.random))
    }

    /// What a witness says first of its random number.
    pub fn commitment(random: &Hash) -> Hash {
        hash(b"sep2p random", &[random])
    }

    /// What witnesses sign: L, and the time of §3.6.
    pub fn statement(at: Timestamp, commits: &[Hash]) -> Hash {
        hash(b"sep2p witness", &[&at.0.to_be_bytes(), commits.as_flattened()])
    }

    /// Checks the trigger, the witnesses and their signatures with 2k + 1 operations, and gives the value. As in the
    /// paper, a trigger is as legitimate as any node around its place (definition 4), though an honest one asks others.
    pub fn verify(&self, rules: &Rules, scheme: &mut impl Scheme) -> Result<Hash, Refusal> {
        let witnesses: Vec<_> = self.shares.iter().map(|share| &share.witness).collect();
        let commits: Vec<_> =
            self.shares.iter().map(|share| VerifiableRandom::commitment(&share.random)).collect();
        let statement = VerifiableRandom::statement(self.at, &commits);
        let is_valid = self.trigger.is_genuine(scheme)
            && rules.are_legitimate(scheme, self.trigger.place(), &witnesses)
            && self
                .shares
                .iter()
                .all(|share| scheme.verify(share.witness.key(), &statement, &share.signature));
        if is_valid { Ok(self.value()) } else { Err(Refusal::Random) }
    }
}

/// The exclusive or of all numbers.
pub(super) fn combined<'a>(numbers: impl Iterator<Item = &'a Hash>) -> Hash {
    numbers.fold([0; 32], |sum, number| std::array::from_fn(|at| sum[at] ^ number[at]))
}

/// A random number.
pub(super) fn drawn(rng: &mut dyn Rng) -> Hash {
    let mut random = [0; 32];
    rng.fill(&mut random);
    random
}

/// T: asks the witnesses around itself.
#[derive(Debug)]
pub struct Trigger {
    me: Node,
    at: Timestamp,
    witnesses: Vec<Node>,
    state: Asking,
    deadline: Time,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Asking {
    Commits(Gather<Node, Hash>),
    Reveals(Vec<Hash>, Gather<Node, (Hash, Signature)>),
    Over,
}

impl Trigger {
    /// Asks the fewest witnesses that the k-table allows around `me`.
    pub fn new(rules: &Rules, me: Node, cache: &impl Cache, now: Now) -> Result<Trigger, Refusal> {
        let witnesses = rules.deciders(cache, me.place(), &me).ok_or(Refusal::Sparse)?;
        let ask = Message::Ask { k: witnesses.len() as u64, at: now.utc };
        let outputs = told(&witnesses, &ask).collect();
        let state = Asking::Commits(Gather::from(witnesses.clone()));
        let deadline = now.time + Span::secs(rules.max_age_secs);
        Ok(Trigger { me, at: now.utc, witnesses, state, deadline, outputs })
    }

    fn heard(&mut self, from: &Node, message: Message) {
        match (&mut self.state, message) {
            (Asking::Commits(gather), Message::Commit(commit)) => {
                let Some(commits) = gather.put(from, commit) else { return };
                self.outputs.extend(told(&self.witnesses, &Message::Commits(commits.clone())));
                self.state = Asking::Reveals(commits, Gather::from(self.witnesses.clone()));
            }
            (Asking::Reveals(commits, gather), Message::Reveal { random, signature }) => {
                let Some(reveals) = gather.put(from, (random, signature)) else { return };
                let disclosed = reveals.iter().map(|(random, _)| VerifiableRandom::commitment(random));
                let is_kept = disclosed.eq(commits.iter().copied());
                self.state = Asking::Over;
                self.outputs.push_back(match is_kept {
                    true => Output::Random(self.random(reveals)),
                    false => Output::Refused(Refusal::Broken),
                });
            }
            _ => {}
        }
    }

    fn random(&self, reveals: Vec<(Hash, Signature)>) -> VerifiableRandom {
        let share =
            |(witness, (random, signature)): (&Node, _)| Share { witness: *witness, random, signature };
        let shares = self.witnesses.iter().zip(reveals).map(share).collect();
        VerifiableRandom { trigger: self.me, at: self.at, shares }
    }
}

/// The same message to each of them.
pub(super) fn told<'a>(nodes: &'a [Node], message: &'a Message) -> impl Iterator<Item = Output> + 'a {
    nodes.iter().map(|to| Output::Send { to: *to, message: message.clone() })
}

impl Machine for Trigger {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, _: Now, input: Input, _: &mut dyn Rng) {
        if let Input::Heard { from, message } = input {
            self.heard(&from, message);
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now.time) {
            self.state = Asking::Over;
            self.outputs.push_back(Output::Refused(Refusal::Silence));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        (!matches!(self.state, Asking::Over)).then_some(self.deadline)
    }
}

/// TL: adds its random number to the value of one trigger. How often a trigger may ask is its host's business (§3.6).
#[derive(Debug)]
pub struct Witness<'a, C, S> {
    rules: &'a Rules,
    cache: &'a C,
    /// Signs for the witness.
    pub scheme: S,
    asked: Option<(Node, Timestamp, Hash)>,
    outputs: VecDeque<Output>,
}

impl<'a, C: Cache, S: Scheme> Witness<'a, C, S> {
    /// A witness that nobody has asked yet.
    pub fn new(rules: &'a Rules, cache: &'a C, scheme: S) -> Self {
        Witness { rules, cache, scheme, asked: None, outputs: VecDeque::new() }
    }

    fn heard(&mut self, from: Node, message: Message, rng: &mut dyn Rng) -> Result<Message, Refusal> {
        match (message, self.asked.take()) {
            (Message::Ask { k, at }, None) => {
                self.refuse_more_than_needed(&from, k)?;
                let random = drawn(rng);
                self.asked = Some((from, at, random));
                Ok(Message::Commit(VerifiableRandom::commitment(&random)))
            }
            (Message::Commits(commits), Some((trigger, at, random))) if trigger == from => {
                if !commits.contains(&VerifiableRandom::commitment(&random)) {
                    return Err(Refusal::NotCommitted);
                }
                let signature = self.scheme.sign(&VerifiableRandom::statement(at, &commits));
                Ok(Message::Reveal { random, signature })
            }
            _ => Err(Refusal::NotCommitted),
        }
    }

    /// As the witness knows the region around the trigger too, it can tell how few would do (§3.6).
    fn refuse_more_than_needed(&self, trigger: &Node, asked: u64) -> Result<(), Refusal> {
        let fewest = self.rules.deciders(self.cache, trigger.place(), trigger).ok_or(Refusal::Sparse)?;
        let smallest = fewest.len() as u64;
        if asked == smallest { Ok(()) } else { Err(Refusal::NotSmallest { asked, smallest }) }
    }
}

impl<C: Cache, S: Scheme> Machine for Witness<'_, C, S> {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, _: Now, input: Input, rng: &mut dyn Rng) {
        let Input::Heard { from, message } = input else { return };
        let output = match self.heard(from, message, rng) {
            Ok(message) => Output::Send { to: from, message },
            Err(refusal) => Output::Refused(refusal),
        };
        self.outputs.push_back(output);
    }

    fn handle_timeout(&mut self, _: Now, _: &mut dyn Rng) {}

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        None
    }
}
