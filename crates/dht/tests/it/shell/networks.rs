//! Networks that form, work, and lose nodes.

use kith_dht::shell::PutError;
use kith_sansio::Span;
use kith_sansio::system::time;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::{Node, Town, soon, soon_true};

/// Nodes of the large network.
const MANY: usize = 64;
/// How long it may take to form.
const FORMS: Span = Span::secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn eight_nodes_find_each_other_and_keep_a_value() {
    let (town, mut nodes) = Town::settled(8).await;
    let value = town.value(3);
    assert_eq!(soon(nodes[3].dht.get(value.key)).await, Ok(None));
    assert_eq!(soon(nodes[3].dht.put(value.clone())).await, Ok(8));
    for node in &nodes {
        assert_eq!(soon(node.dht.get(value.key)).await, Ok(Some(value.clone())));
    }
    let wanted = nodes[6].place.contact().id;
    let search = soon(nodes[1].dht.find(wanted, 3)).await.unwrap();
    assert_eq!((search.nodes.len(), search.nodes[0].id), (3, wanted));
    let status = nodes[1].dht.status().await.unwrap();
    assert_eq!((status.members, status.region, status.values, status.missing), (8, 7, 1, 0));
    // Whoever leaves says so.
    let gone = nodes.pop().unwrap();
    soon(gone.dht.leave()).await;
    for node in &nodes {
        soon_true(async || node.region().await == 6).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_too_few_have_does_not_count_as_stored() {
    let town = Town::new(8);
    let alone = town.node(0, &[]).await;
    soon(alone.dht.joined()).await.unwrap();
    let outcome = soon(alone.dht.put(town.value(0))).await;
    assert_eq!(outcome, Err(PutError::TooFew { nodes: 1, needed: 3, refusal: None }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_anew_is_one_of_the_network_again() {
    let (town, mut nodes) = Town::settled(4).await;
    let value = town.value(0);
    soon(nodes[0].dht.put(value.clone())).await.unwrap();
    let Node { dht, place } = nodes.pop().unwrap();
    drop(dht);
    soon_true(async || {
        place.endpoint.listen(kith_dht::shell::PROTOCOL, kith_connect::Admission::Members).is_ok()
    })
    .await;
    let again = place.start(&[nodes[1].place.contact()]);
    soon(again.dht.joined()).await.unwrap();
    soon_true(async || again.region().await == 3).await;
    assert_eq!(soon(again.dht.get(value.key)).await, Ok(Some(value)));
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// As after a loss of power: what a runtime that is gone has open is never closed towards others.
#[test]
fn sixty_four_nodes_form_a_network_and_a_third_of_them_dies_without_a_loss() {
    let (living, dying) = (runtime(), runtime());
    let town = Town::new(MANY);
    let begun = time();
    let first = living.block_on(town.node(0, &[]));
    let known = [first.place.contact()];
    let (mut nodes, mut victims) = (vec![first], Vec::new());
    for number in 1..MANY {
        match number % 3 {
            0 => victims.push(dying.block_on(town.node(number, &known))),
            _ => nodes.push(living.block_on(town.node(number, &known))),
        }
    }
    for node in nodes.iter().chain(&victims) {
        living.block_on(soon(node.dht.joined())).unwrap();
        living.block_on(soon_true(async || node.region().await == MANY - 1));
    }
    let formed = time() - begun;
    println!("{MANY} nodes know each other after {} ms", formed.0 / 1_000);
    assert!(formed <= FORMS, "it took {} ms", formed.0 / 1_000);

    let values: Vec<_> = (0..MANY).map(|number| town.value(number)).collect();
    for (number, value) in values.iter().enumerate() {
        let on = living.block_on(soon(nodes[number % nodes.len()].dht.put(value.clone()))).unwrap();
        assert!(on >= 15, "{on}");
    }
    assert_eq!(victims.len(), MANY / 3);
    dying.shutdown_background();
    let searched = time();
    living.block_on(async {
        let mut gets = JoinSet::new();
        for (number, value) in values.into_iter().enumerate() {
            let node = &nodes[(number * 7) % nodes.len()];
            let get = node.dht.clone();
            gets.spawn(async move { (soon(get.get(value.key)).await, value) });
        }
        while let Some(outcome) = gets.join_next().await {
            let (found, value) = outcome.unwrap();
            assert_eq!(found, Ok(Some(value)));
        }
    });
    println!("all values are there {} ms after the loss", (time() - searched).0 / 1_000);
    drop(victims);
    for node in &nodes {
        living.block_on(soon_true(async || node.region().await == nodes.len() - 1));
    }
    println!("nobody misses the dead {} ms after the loss", (time() - searched).0 / 1_000);
}
