//! What one node costs the others that joins, and that leaves: in mode `paper` between the machines of SEP2P §3.6, in
//! mode `hardened` around the real node of the DHT.

use std::collections::BTreeSet;

use kith_actors::paper::upkeep::{Heard, Keeper, Message, Newcomer, Output, goodbye};
use kith_actors::paper::{Node, Rules};
use kith_actors::scheme::{Counting, Pretended};
use kith_dht::defaults::{MAX_CARDS, REPLICAS};
use kith_dht::node::{Input, Output as Wish};
use kith_dht::{Body, Config, Ideal, Message as Asked};
use kith_identity::membership::NodeId;
use kith_sansio::{Machine, Now, Rng, Time};

use crate::members::contact;
use crate::ring::{Ring, View};
use crate::talk::{Effort, NOW};

/// What one event costs all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) join: Effort,
    pub(crate) leave: Effort,
}

/// A node joins a network of the paper and one leaves it; none where a region is too sparse to attest a cache.
pub(crate) fn on_ring(rules: &Rules, ring: &Ring, newcomer: Node, leaver: Node) -> Option<Event> {
    Some(Event { join: join(rules, ring, newcomer)?.0, leave: leave(rules, ring, leaver) })
}

fn view<'a>(rules: &Rules, ring: &'a Ring, node: &Node) -> View<'a> {
    View { ring, owner: node.place(), reach: rules.candidates, only: None }
}

/// The cost, and whom the newcomer knows then.
fn join(rules: &Rules, ring: &Ring, me: Node) -> Option<(Effort, Vec<Node>)> {
    let mut cost = Effort::default();
    let mut newcomer = Newcomer::new(rules, me, ring.beside(me.place()), counting(&me), NOW);
    loop {
        match newcomer.poll_output()? {
            Output::Send { to, message } => {
                if let Some(cache) = tell(rules, ring, (me, to), message, &mut cost) {
                    let before = newcomer.scheme.operations;
                    newcomer.handle_input(NOW, Heard { from: to, message: cache }, &mut Nothing);
                    cost.messages += 1;
                    cost.operations += newcomer.scheme.operations.total() - before.total();
                }
            }
            Output::Joined(known) => return Some((cost, known)),
            _ => return None,
        }
    }
}

fn leave(rules: &Rules, ring: &Ring, me: Node) -> Effort {
    let (mut cost, mut scheme) = (Effort::default(), counting(&me));
    for output in goodbye(rules, &me, &view(rules, ring, &me), &mut scheme, NOW.utc) {
        if let Output::Send { to, message } = output {
            tell(rules, ring, (me, to), message, &mut cost);
        }
    }
    cost.operations += scheme.operations.total();
    cost
}

/// One node says something to another, which may ask those around itself before it answers.
fn tell(
    rules: &Rules,
    ring: &Ring,
    (from, to): (Node, Node),
    message: Message,
    cost: &mut Effort,
) -> Option<Message> {
    let view = view(rules, ring, &to);
    let mut keeper = Keeper::new(rules, to, &view, counting(&to));
    keeper.handle_input(NOW, Heard { from, message }, &mut Nothing);
    let mut answer = None;
    cost.messages += 1;
    while let Some(output) = keeper.poll_output() {
        let Output::Send { to: other, message } = output else { continue };
        if other == from {
            answer = Some(message);
        } else if let Some(message) = tell(rules, ring, (to, other), message, cost) {
            cost.messages += 1;
            keeper.handle_input(NOW, Heard { from: other, message }, &mut Nothing);
        }
    }
    cost.operations += keeper.scheme.operations.total();
    answer
}

fn counting(node: &Node) -> Counting<Pretended> {
    Counting::new(Pretended(*node.key()))
}

/// These machines draw nothing.
struct Nothing;

impl Rng for Nothing {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// A connection of two members proves both keys: each signs once and checks the other's signature.
const CONNECTION: u64 = 4;
/// Each of two that never met checks the other's certificate.
const CERTIFICATES: u64 = 2;

/// A member joins a settled network of the DHT, and leaves it when all connections have been closed again.
pub(crate) fn among_members(ids: &[NodeId], config: &Config, own: NodeId, rng: &mut dyn Rng) -> Event {
    let network = Ideal::new(ids, config);
    let mut node = kith_dht::Node::new(contact(&own), config.clone(), ids.len() as u64);
    let mut event = Event::default();
    let mut met = BTreeSet::new();
    let through = ids[rng.below(ids.len() as u64) as usize];
    let mut now = Now { time: Time(0), utc: NOW.utc };
    node.handle_input(now, Input::Join(vec![contact(&through)]), rng);
    loop {
        match node.poll_output() {
            Some(Wish::Send { to, message }) => {
                let is_new = met.insert(to.id);
                event.join.operations += if is_new { CONNECTION + CERTIFICATES } else { 0 };
                event.join.messages += 1;
                if let Some(body) = answer(&network, own, to.id, &message.body) {
                    event.join.messages += 1;
                    let message = Asked { id: message.id, body };
                    node.handle_input(now, Input::Heard { from: to, message }, rng);
                }
            }
            Some(Wish::Joined) => break,
            Some(_) => {}
            None => match node.poll_timeout() {
                Some(due) => {
                    now.time = due.max(now.time);
                    node.handle_timeout(now, rng);
                }
                None => break,
            },
        }
    }
    while node.poll_output().is_some() {}
    node.handle_input(now, Input::Leave, rng);
    while let Some(output) = node.poll_output() {
        if let Wish::Send { .. } = output {
            event.leave.messages += 1;
            event.leave.operations += CONNECTION;
        }
    }
    event
}

/// What a settled node says to a newcomer, out of tables derived from all ids.
fn answer(network: &Ideal<'_>, asker: NodeId, asked: NodeId, question: &Body) -> Option<Body> {
    match question {
        Body::Ping { .. } => Some(Body::Pong),
        Body::Find(place) => {
            Some(Body::Nodes(network.nearest(asked, *place).take(REPLICAS).map(contact).collect()))
        }
        Body::Block { bits, after, .. } => {
            let block = kith_identity::membership::Block::around(&asker, *bits);
            let others = network.region(asked).iter().filter(|id| block.contains(id) && *id > after);
            let mut others = others.filter(|id| **id != asked);
            let nodes = others.by_ref().take(MAX_CARDS).map(contact).collect();
            Some(Body::Page { nodes, more: others.next().is_some() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kith_actors::ktable::{Arc, KTable, Network};
    use kith_sansio::SeededRng;

    use super::*;
    use crate::run::{Purpose, chance};

    fn rules(nodes: u64, cache: f64) -> Rules {
        let table = KTable::exact(Network::new(nodes, nodes / 100, 1e-6).unwrap()).unwrap();
        Rules { table, candidates: Arc::new(cache / nodes as f64).unwrap(), max_age_secs: 60 }
    }

    #[test]
    fn a_newcomer_knows_its_whole_region_and_everybody_there_checks_its_certificate() {
        let (rules, ring) = (rules(5_000, 128.0), Ring::new(5_000, 1, 0));
        let mut rng = chance(1, Purpose::Work, 0);
        for _ in 0..20 {
            let me = crate::ring::node(&mut rng);
            let (cost, known) = join(&rules, &ring, me).unwrap();
            let mut region: Vec<_> = ring.within(me.place(), rules.candidates).copied().collect();
            region.sort();
            assert_eq!(known, region);
            let rest = cost.operations - known.len() as u64;
            // Two caches, each signed by k and checked with 2k; and now and then a certificate beyond a signer's own region.
            assert!((12..150).contains(&rest), "{rest}");
        }
    }

    #[test]
    fn whoever_leaves_signs_once_and_all_who_know_it_check_that() {
        let (rules, ring) = (rules(5_000, 128.0), Ring::new(5_000, 1, 0));
        let me = ring.nodes()[77];
        let others = ring.within(me.place(), rules.candidates).count() as u64 - 1;
        assert_eq!(leave(&rules, &ring, me), Effort { operations: others + 1, messages: others });
    }

    #[test]
    fn a_member_meets_its_region_and_says_goodbye_to_it() {
        let mut rng = SeededRng::new(1);
        let mut ids: Vec<_> = (0..4_096).map(|_| crate::members::random_id(&mut rng)).collect();
        ids.sort_unstable();
        let config = Config { region: 128, ..Config::default() };
        let own = crate::members::random_id(&mut rng);
        let region = Ideal::new(&ids, &config).region(own).len() as u64;
        // Besides, it looks around in its buckets.
        let event = among_members(&ids, &config, own, &mut rng);
        assert_eq!(event.leave, Effort { operations: CONNECTION * region, messages: region });
        let met = event.join.operations / (CONNECTION + CERTIFICATES);
        assert!((region..region + 1_000).contains(&met), "{met} of {region}");
    }
}
