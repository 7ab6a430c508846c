use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use kith_sansio::{Rng, Time};

use crate::Faults;
use crate::faults::happens;

/// The most messages under way; more are lost, as in a network whose queues are full.
const MAX_IN_FLIGHT: usize = 1 << 20;

/// A network in virtual time: messages go in with [`send`](Network::send), and come out with
/// [`receive`](Network::receive) when their time has come.
///
/// The same calls with the same random numbers give the same deliveries.
#[derive(Clone, Debug)]
pub struct Network<A, M> {
    faults: Faults,
    links: HashMap<(A, A), Faults>,
    cut: HashSet<(A, A)>,
    crashed: HashSet<A>,
    /// By time of arrival, and in the order of sending where times are equal.
    in_flight: BTreeMap<(Time, u64), Flight<A, M>>,
    sequence: u64,
    /// When the last message of a link that keeps the order arrives.
    latest: HashMap<(A, A), Time>,
    counts: Counts,
}

#[derive(Clone, Debug)]
struct Flight<A, M> {
    from: A,
    to: A,
    message: M,
}

/// What happened to the messages so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed in.
    pub sent: u64,
    /// Lost by chance.
    pub dropped: u64,
    /// Made a second time.
    pub duplicated: u64,
    /// Delayed such that later ones may overtake.
    pub reordered: u64,
    /// Lost between separated nodes, to or from a crashed one, or because too much was under way.
    pub cut: u64,
    /// Handed out, copies included.
    pub delivered: u64,
}

impl<A: Eq + Hash + Clone, M: Clone> Network<A, M> {
    /// A network whose links all have these faults.
    pub fn new(faults: Faults) -> Self {
        Network {
            faults,
            links: HashMap::new(),
            cut: HashSet::new(),
            crashed: HashSet::new(),
            in_flight: BTreeMap::new(),
            sequence: 0,
            latest: HashMap::new(),
            counts: Counts::default(),
        }
    }

    /// Changes the faults of all links that have none of their own, for messages sent from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Gives the link from `from` to `to` faults of its own; the way back keeps its.
    pub fn set_link(&mut self, from: A, to: A, faults: Faults) {
        self.links.insert((from, to), faults);
    }

    /// Takes a message on its way.
    pub fn send(&mut self, now: Time, from: A, to: A, message: M, rng: &mut dyn Rng) {
        self.counts.sent += 1;
        if !self.reaches(&from, &to) {
            self.counts.cut += 1;
            return;
        }
        let link = (from, to);
        let faults = self.links.get(&link).unwrap_or(&self.faults).clone();
        if happens(faults.drop_permille, rng) {
            self.counts.dropped += 1;
            return;
        }
        if happens(faults.duplicate_permille, rng) {
            self.counts.duplicated += 1;
            self.fly(now, &link, message.clone(), &faults, rng);
        }
        self.fly(now, &link, message, &faults, rng);
    }

    /// When the next message arrives.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.in_flight.keys().next().map(|(arrival, _)| *arrival)
    }

    /// The next message that has arrived by `now`: from, to, message.
    pub fn receive(&mut self, now: Time) -> Option<(A, A, M)> {
        while let Some(next) = self.in_flight.first_entry() {
            if next.key().0 > now {
                return None;
            }
            let Flight { from, to, message } = next.remove();
            if self.arrives(&from, &to) {
                self.counts.delivered += 1;
                return Some((from, to, message));
            }
            self.counts.cut += 1;
        }
        None
    }

    /// Takes a node down: what is under way to it is lost, and so is all that is sent to it or by it until
    /// [`restart`](Network::restart). What it sent before still arrives.
    pub fn crash(&mut self, node: &A) {
        self.crashed.insert(node.clone());
        let before = self.in_flight.len();
        self.in_flight.retain(|_, flight| flight.to != *node);
        self.counts.cut += (before - self.in_flight.len()) as u64;
    }

    /// Brings a crashed node back.
    pub fn restart(&mut self, node: &A) {
        self.crashed.remove(node);
    }

    /// Separates two nodes in both directions; what is under way between them is lost unless they are joined
    /// again before it arrives.
    pub fn partition(&mut self, a: &A, b: &A) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Separates every node of one side from every node of the other.
    pub fn partition_groups(&mut self, one: &[A], other: &[A]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            self.partition(a, b);
        }
    }

    /// Lets nothing through from `from` to `to`; the way back stays open.
    pub fn cut(&mut self, from: &A, to: &A) {
        self.cut.insert((from.clone(), to.clone()));
    }

    /// Ends all separations; crashed nodes stay down.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many messages are under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn fly(&mut self, now: Time, link: &(A, A), message: M, faults: &Faults, rng: &mut dyn Rng) {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            self.counts.cut += 1;
            return;
        }
        let mut arrival = now + faults.draw_delay(rng);
        if happens(faults.reorder_permille, rng) {
            self.counts.reordered += 1;
            arrival += kith_sansio::Span(rng.below(faults.reorder_by.0.saturating_add(1)));
        } else {
            let latest = self.latest.entry(link.clone()).or_default();
            arrival = arrival.max(*latest);
            *latest = arrival;
        }
        let (from, to) = link.clone();
        self.sequence += 1;
        self.in_flight.insert((arrival, self.sequence), Flight { from, to, message });
    }

    fn reaches(&self, from: &A, to: &A) -> bool {
        !self.crashed.contains(from) && self.arrives(from, to)
    }

    fn arrives(&self, from: &A, to: &A) -> bool {
        !self.crashed.contains(to) && !self.cut.contains(&(from.clone(), to.clone()))
    }
}
