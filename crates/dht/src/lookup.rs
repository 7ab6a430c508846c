//! The search for the nodes nearest to a place, over paths that share no node (S/Kademlia §4.4).
//!
//! Whoever is asked names the nodes that it knows nearest to the target. A path goes on with what its own nodes named,
//! so that a liar leads one path astray and no other. A path asks α nodes at a time and begins its next round when all
//! of them have answered or failed; [`Lookup::press_on`] lets it go on without those that are slow.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kith_identity::membership::{Distance, NodeId};

use crate::contact::{Contact, Nets, Scope};
use crate::defaults::{Config, MAX_CANDIDATES, MAX_PATHS, MAX_PER_NET, MAX_ROUNDS};

/// A search under way.
#[derive(Clone, Debug)]
pub struct Lookup {
    target: NodeId,
    want: usize,
    alpha: usize,
    /// By distance, which tells each node from all others.
    candidates: BTreeMap<Distance, Candidate>,
    paths: Vec<Path>,
    requests: u32,
}

#[derive(Clone, Debug)]
struct Candidate {
    contact: Contact,
    /// The paths that know of it, and at which address: a liar tells its own path a wrong one, and no other.
    told: Vec<(usize, SocketAddr)>,
    /// Addresses at which it did not answer.
    tried: Vec<SocketAddr>,
    state: State,
    /// The round in which it was asked.
    round: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unasked,
    Asked {
        path: usize,
        /// The path goes on without it.
        is_slow: bool,
    },
    Answered,
    Failed,
}

#[derive(Clone, Debug)]
struct Path {
    rounds: u32,
    is_closed: bool,
    /// The networks of the nodes that it asked.
    nets: Nets,
}

impl Lookup {
    /// A search for the `want` nodes nearest to `target` that begins at `seeds`, the nearest of them first; `scope` is
    /// that of the node that searches.
    pub fn new(
        target: NodeId,
        want: usize,
        config: &Config,
        scope: Scope,
        seeds: impl IntoIterator<Item = Contact>,
    ) -> Lookup {
        let paths = config.paths.clamp(1, MAX_PATHS);
        let mut lookup = Lookup {
            target,
            want: want.max(1),
            alpha: config.alpha.max(1),
            candidates: BTreeMap::new(),
            paths: vec![Path { rounds: 0, is_closed: false, nets: Nets::new(scope) }; paths],
            requests: 0,
        };
        for (place, seed) in seeds.into_iter().enumerate() {
            lookup.learn(place % paths, seed);
        }
        lookup
    }

    /// What is searched for.
    pub fn target(&self) -> NodeId {
        self.target
    }

    /// Whom to ask now; to be called at the beginning and after everything that happened.
    pub fn next_round(&mut self) -> Vec<Contact> {
        (0..self.paths.len()).flat_map(|path| self.advance(path)).collect()
    }

    /// A node named these. Answers of nodes that were not asked count for nothing.
    pub fn answered(&mut self, id: &NodeId, named: impl IntoIterator<Item = Contact>) {
        let Some(path) = self.end(id, State::Answered) else { return };
        for contact in named {
            self.learn(path, contact);
        }
    }

    /// A node did not answer; a path that was told another address of it may try that one.
    pub fn failed(&mut self, id: &NodeId) {
        if self.end(id, State::Failed).is_some()
            && let Some(candidate) = self.candidates.get_mut(&self.target.distance(id))
        {
            let address = candidate.contact.address;
            candidate.tried.push(address);
            candidate.told.retain(|(_, other)| *other != address);
            if !candidate.told.is_empty() {
                candidate.state = State::Unasked;
            }
        }
    }

    /// A node had what is searched for: its path has come to its end.
    pub fn found(&mut self, id: &NodeId) {
        if let Some(path) = self.end(id, State::Answered) {
            self.paths[path].is_closed = true;
        }
    }

    /// No path waits any longer for those that were asked before.
    pub fn press_on(&mut self) {
        for candidate in self.candidates.values_mut() {
            if let State::Asked { is_slow, .. } = &mut candidate.state {
                *is_slow = true;
            }
        }
    }

    /// Whether nobody is left to ask or to wait for.
    pub fn is_finished(&self) -> bool {
        (0..self.paths.len()).all(|path| self.paths[path].is_closed || self.is_at_end(path))
    }

    /// Whether nobody is left to ask, and nobody to wait for but those that are slow.
    pub fn is_settled(&self) -> bool {
        let waits = |candidate: &Candidate| matches!(candidate.state, State::Asked { is_slow: false, .. });
        let is_done = |path: usize| self.paths[path].is_closed || !self.has_to_ask(path);
        (0..self.paths.len()).all(is_done) && !self.candidates.values().any(waits)
    }

    /// The nodes that answered, nearest first.
    pub fn nearest(&self) -> impl Iterator<Item = &Contact> {
        let answered = |candidate: &&Candidate| matches!(candidate.state, State::Answered);
        self.candidates.values().filter(answered).map(|candidate| &candidate.contact)
    }

    /// In which round of its path a node was asked that has answered.
    pub fn round_of(&self, id: &NodeId) -> Option<u32> {
        let candidate = self.candidates.get(&self.target.distance(id))?;
        matches!(candidate.state, State::Answered).then_some(candidate.round)
    }

    /// How many requests were given out.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// How many rounds the longest path has begun.
    pub fn rounds(&self) -> u32 {
        self.paths.iter().map(|path| path.rounds).max().unwrap_or(0)
    }

    fn learn(&mut self, path: usize, contact: Contact) {
        let distance = self.target.distance(&contact.id);
        let address = contact.address;
        let candidate = self.candidates.entry(distance).or_insert_with(|| Candidate::new(contact));
        if !candidate.is_told(path) && !candidate.tried.contains(&address) {
            candidate.told.push((path, address));
            if candidate.state == State::Failed {
                candidate.state = State::Unasked;
            }
        }
        if self.candidates.len() > MAX_CANDIDATES {
            let mut furthest = self.candidates.iter().rev();
            let unasked = furthest.find(|(_, candidate)| candidate.state == State::Unasked);
            if let Some(distance) = unasked.map(|(distance, _)| *distance) {
                self.candidates.remove(&distance);
            }
        }
    }

    /// Begins the next round of a path where the one before is over.
    fn advance(&mut self, path: usize) -> Vec<Contact> {
        let waits = |candidate: &Candidate| candidate.state == State::Asked { path, is_slow: false };
        if self.paths[path].is_closed || self.candidates.values().any(waits) || !self.has_to_ask(path) {
            return Vec::new();
        }
        let mut asked = Vec::new();
        let Path { nets, rounds, .. } = &mut self.paths[path];
        for candidate in self.candidates.values_mut() {
            if asked.len() == self.alpha {
                break;
            }
            if candidate.state == State::Unasked && candidate.counts_for(path, nets) {
                candidate.state = State::Asked { path, is_slow: false };
                candidate.round = *rounds + 1;
                candidate.contact.address = candidate.address_for(path);
                nets.add(candidate.contact.address);
                asked.push(candidate.contact.clone());
            }
        }
        *rounds += u32::from(!asked.is_empty());
        self.requests += asked.len() as u32;
        asked
    }

    /// Whether one of the nearest nodes that the path knows was not asked yet.
    fn has_to_ask(&self, path: usize) -> bool {
        let Path { rounds, nets, .. } = &self.paths[path];
        let most = MAX_ROUNDS as usize + self.want.div_ceil(self.alpha);
        if *rounds as usize >= most {
            return false;
        }
        let nearest = self.candidates.values().filter(|candidate| candidate.counts_for(path, nets));
        nearest.take(self.want).any(|candidate| candidate.state == State::Unasked)
    }

    /// Whether a path has nobody left to ask or to wait for.
    fn is_at_end(&self, path: usize) -> bool {
        let waits = |candidate: &Candidate| matches!(candidate.state, State::Asked { path: asker, .. } if asker == path);
        !self.has_to_ask(path) && !self.candidates.values().any(waits)
    }

    /// Ends the wait for a node; the path that waited.
    fn end(&mut self, id: &NodeId, state: State) -> Option<usize> {
        let candidate = self.candidates.get_mut(&self.target.distance(id))?;
        let State::Asked { path, .. } = candidate.state else { return None };
        candidate.state = state;
        Some(path)
    }
}

impl Candidate {
    fn new(contact: Contact) -> Candidate {
        Candidate { contact, told: Vec::new(), tried: Vec::new(), state: State::Unasked, round: 0 }
    }

    fn is_told(&self, path: usize) -> bool {
        self.told.iter().any(|(teller, _)| *teller == path)
    }

    /// Where the path was told that it is.
    fn address_for(&self, path: usize) -> SocketAddr {
        let told = self.told.iter().find(|(teller, _)| *teller == path);
        told.map_or(self.contact.address, |(_, address)| *address)
    }

    /// Whether it is one of those among which the path looks for the nearest.
    fn counts_for(&self, path: usize, nets: &Nets) -> bool {
        match self.state {
            State::Failed => false,
            State::Unasked => self.is_told(path) && nets.has_place(self.address_for(path), MAX_PER_NET),
            State::Asked { .. } | State::Answered => self.is_told(path),
        }
    }
}
