//! Lookups over the tables of a settled network: how many rounds and requests, and who gets through among liars.

use std::collections::HashSet;

use kith_dht::defaults::REPLICAS;
use kith_dht::{Config, Ideal, Lookup, Nearest, Scope};
use kith_identity::membership::NodeId;
use kith_sansio::{Rng, SeededRng};

use crate::support::{contact, ids, random_id};

/// What it took until the owner of a key answered.
struct Cost {
    rounds: u32,
    requests: u32,
}

/// One lookup, in which whoever `answers` does not speak for answers by its table; `None` where the owner was not found.
fn look_up(
    network: &Ideal<'_>,
    config: &Config,
    from: NodeId,
    target: NodeId,
    owner: NodeId,
    lie: impl Fn(NodeId) -> Option<Vec<NodeId>>,
) -> Option<Cost> {
    let seeds: Vec<_> =
        network.nearest(from, target).take(REPLICAS.max(config.paths * config.alpha)).collect();
    let mut lookup = Lookup::new(target, 1, config, Scope::Internet, seeds.into_iter().copied().map(contact));
    loop {
        let batch = lookup.next_round();
        if batch.is_empty() {
            assert!(lookup.is_finished(), "nobody to ask and nobody to wait for");
            return None;
        }
        for asked in &batch {
            let honest = || network.nearest(asked.id, target).take(REPLICAS).copied().collect();
            let named = lie(asked.id).unwrap_or_else(honest);
            lookup.answered(&asked.id, named.into_iter().map(contact));
        }
        if batch.iter().any(|asked| asked.id == owner) {
            return Some(Cost { rounds: lookup.rounds(), requests: lookup.requests() });
        }
    }
}

/// Mean rounds, mean requests and the 95th percentile of rounds until the owner answers.
fn measure(nodes: usize, alpha: usize, lookups: usize) -> (f64, f64, u32) {
    let ids = ids(nodes, 7);
    let config = Config { alpha, paths: 1, ..Config::default() };
    let network = Ideal::new(&ids, &config);
    let mut rng = SeededRng::new(alpha as u64);
    let mut costs = Vec::new();
    while costs.len() < lookups {
        let (from, target) = (ids[rng.below(nodes as u64) as usize], random_id(&mut rng));
        let owner = *Nearest::new(&ids, target).next().unwrap();
        if from != owner {
            costs.push(look_up(&network, &config, from, target, owner, |_| None).expect("it is found"));
        }
    }
    let mean =
        |of: fn(&Cost) -> u32| costs.iter().map(|cost| f64::from(of(cost))).sum::<f64>() / lookups as f64;
    let (rounds, requests) = (mean(|cost| cost.rounds), mean(|cost| cost.requests));
    costs.sort_by_key(|cost| cost.rounds);
    let slow = costs[lookups * 95 / 100].rounds;
    println!("{nodes} nodes, alpha {alpha}: {rounds:.2} rounds, {requests:.2} requests, p95 {slow} rounds");
    (rounds, requests, slow)
}

#[test]
fn lookups_in_a_settled_network_take_few_rounds_and_requests() {
    for (nodes, alpha, most_rounds, most_requests) in
        [(10_000, 2, 2.5, 5.0), (10_000, 3, 2.4, 7.3), (100_000, 2, 3.0, 6.1), (100_000, 3, 2.9, 8.8)]
    {
        let (rounds, requests, slow) = measure(nodes, alpha, 2_000);
        assert!(rounds <= most_rounds && requests <= most_requests, "{rounds} rounds, {requests} requests");
        assert!(f64::from(slow) <= rounds + 1.5, "one in twenty takes {slow} rounds, the mean {rounds}");
    }
}

/// One node in five answers with its accomplices nearest to the target, and with nobody else.
#[test]
fn among_one_fifth_of_liars_eight_paths_find_the_owner() {
    let ids = ids(10_000, 3);
    let config = Config { paths: 8, ..Config::default() };
    let network = Ideal::new(&ids, &config);
    let mut rng = SeededRng::new(11);
    let liars: Vec<NodeId> = ids.iter().copied().filter(|_| rng.below(5) == 0).collect();
    let lies: HashSet<NodeId> = liars.iter().copied().collect();
    let (mut found, mut tried) = (0, 0);
    while tried < 1_000 {
        let (from, target) = (ids[rng.below(10_000) as usize], random_id(&mut rng));
        let owner = *Nearest::new(&ids, target).next().unwrap();
        if lies.contains(&from) || lies.contains(&owner) || from == owner {
            continue;
        }
        let lie = |id| {
            let accomplices = || Nearest::new(&liars, target).take(REPLICAS).copied().collect();
            lies.contains(&id).then(accomplices)
        };
        tried += 1;
        found += u32::from(look_up(&network, &config, from, target, owner, lie).is_some());
    }
    println!("{} liars of 10000, 8 paths: {found} of {tried} lookups find the owner", liars.len());
    assert!(found >= 990, "{found} of {tried}");
}
