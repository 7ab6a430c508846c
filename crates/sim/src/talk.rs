//! Carries the messages of one selection and counts them.

use std::collections::{BTreeMap, VecDeque};

use kith_actors::paper::{Builder, Cache, Input, Message, Node, Output, Witness};
use kith_actors::scheme::{Counting, Scheme};
use kith_sansio::{Machine, Now, Rng, Time, Timestamp};

/// All selections happen at one time.
pub(crate) const NOW: Now = Now { time: Time(0), utc: Timestamp(1_800_000_000) };

/// Asymmetric operations and messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    pub(crate) operations: u64,
    pub(crate) messages: u64,
}

/// What was done in all, and the most that had to be done one after the other: total work and latency of SEP2P §4.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) total: Effort,
    pub(crate) latency: Effort,
}

impl Effort {
    fn later(self, other: Effort) -> Effort {
        Effort {
            operations: self.operations.max(other.operations),
            messages: self.messages.max(other.messages),
        }
    }
}

impl Cost {
    /// One message after the other.
    pub(crate) fn pass(&mut self, messages: u64) {
        self.total.messages += messages;
        self.latency.messages += messages;
    }

    /// One operation after the other.
    pub(crate) fn operate(&mut self, operations: u64) {
        self.total.operations += operations;
        self.latency.operations += operations;
    }
}

/// A machine whose asymmetric operations are counted.
pub(crate) trait Counted: Machine<Input = Input, Output = Output> {
    /// How many it did so far.
    fn operations(&self) -> u64;
}

impl<C: Cache, S: Scheme> Counted for Witness<'_, C, Counting<S>> {
    fn operations(&self) -> u64 {
        self.scheme.operations.total()
    }
}

impl<C: Cache, S: Scheme> Counted for Builder<'_, C, Counting<S>> {
    fn operations(&self) -> u64 {
        self.scheme.operations.total()
    }
}

/// One that is spoken with, and when it did the last thing that it did.
struct Partner<B> {
    machine: B,
    at: Effort,
}

/// What a machine says of its own accord, and to whom.
pub(crate) fn opening(one: &mut impl Machine<Input = Input, Output = Output>) -> Vec<(Node, Message)> {
    let said = std::iter::from_fn(|| one.poll_output());
    said.filter_map(|output| match output {
        Output::Send { to, message } => Some((to, message)),
        _ => None,
    })
    .collect()
}

/// Carries messages between `one`, which is `me` and has made its opening, and its partners until the one has a result,
/// or somebody refuses to go on. Nobody is absent.
pub(crate) fn talk<A, B>(
    (mut one, me, opening): (A, Node, Vec<(Node, Message)>),
    partners: impl Iterator<Item = (Node, B)>,
    cost: &mut Cost,
    rng: &mut dyn Rng,
) -> Option<Output>
where
    A: Machine<Input = Input, Output = Output>,
    B: Counted,
{
    let partner = |(node, machine)| (node, Partner { machine, at: Effort::default() });
    let mut partners: BTreeMap<Node, Partner<B>> = partners.map(partner).collect();
    let begun = cost.latency;
    let mut under_way: VecDeque<_> = opening.into_iter().map(|(to, message)| (to, message, begun)).collect();
    loop {
        let (to, message, sent) = under_way.pop_front()?;
        let partner = partners.get_mut(&to)?;
        cost.total.messages += 1;
        partner.at = partner.at.later(Effort { messages: sent.messages + 1, ..sent });
        partner.handle(Input::Heard { from: me, message }, cost, rng);
        while let Some(output) = partner.machine.poll_output() {
            match output {
                Output::Send { message, .. } => {
                    cost.total.messages += 1;
                    let arrived = Effort { messages: partner.at.messages + 1, ..partner.at };
                    cost.latency = cost.latency.later(arrived);
                    one.handle_input(NOW, Input::Heard { from: to, message }, rng);
                }
                Output::Probe(nodes) => {
                    cost.total.messages += 2 * nodes.len() as u64;
                    partner.at.messages += 2;
                    partner.handle(Input::Alive(nodes), cost, rng);
                }
                other => return Some(other),
            }
        }
        while let Some(output) = one.poll_output() {
            let Output::Send { to, message } = output else { return Some(output) };
            under_way.push_back((to, message, cost.latency));
        }
    }
}

impl<B: Counted> Partner<B> {
    fn handle(&mut self, input: Input, cost: &mut Cost, rng: &mut dyn Rng) {
        let before = self.machine.operations();
        self.machine.handle_input(NOW, input, rng);
        let operations = self.machine.operations() - before;
        cost.total.operations += operations;
        self.at.operations += operations;
    }
}
