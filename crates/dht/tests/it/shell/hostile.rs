//! A member that does not keep to the protocol harms nobody else.

use kith_connect::{Admission, Stream};
use kith_dht::defaults::{MAX_LINES_PER_MEMBER, MAX_MESSAGE_BYTES};
use kith_dht::shell::PROTOCOL;
use kith_dht::{Body, Contact, Message};
use kith_identity::membership::NodeId;
use tokio::io::AsyncWriteExt;

use super::{Node, Place, Town, frame, next, say, soon};

/// A network of three, and a fourth member that is no node but whatever a test makes of it.
async fn with_a_rogue() -> (Town, Vec<Node>, Place, Stream) {
    let town = Town::new(4);
    let mut nodes = vec![town.node(0, &[]).await];
    for number in 1..3 {
        nodes.push(town.node(number, &[nodes[0].place.contact()]).await);
    }
    for node in &nodes {
        soon(node.dht.joined()).await.unwrap();
        super::soon_true(async || node.region().await >= 2).await;
    }
    let rogue = town.place(3).await;
    let mut stream = rogue.call(&nodes[0].place.contact()).await.unwrap();
    let hello = next(&mut stream).await.unwrap();
    assert_eq!(hello, nodes[0].place.contact().to_card());
    (town, nodes, rogue, stream)
}

fn ping(id: u64) -> Vec<u8> {
    frame(&Message { id, body: Body::Ping { is_new: false } }.to_bytes())
}

/// The three work as if nobody else was there.
async fn work(town: &Town, nodes: &[Node]) {
    let value = town.value(1);
    assert!(soon(nodes[1].dht.put(value.clone())).await.unwrap() >= 3);
    assert_eq!(soon(nodes[2].dht.get(value.key)).await, Ok(Some(value)));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_the_stream_that_it_came_on() {
    let (town, nodes, rogue, mut stream) = with_a_rogue().await;
    let card = frame(&rogue.contact().to_card());
    let too_long = (MAX_MESSAGE_BYTES as u16 + 1).to_be_bytes().to_vec();
    for garbage in [frame(b""), frame(&[99; 40]), too_long] {
        say(&mut stream, &[card.clone(), ping(1), garbage].concat()).await;
        // Whatever was right before it is answered.
        while let Some(bytes) = next(&mut stream).await {
            assert!(Message::read(&bytes).is_ok());
        }
        stream = rogue.call(&nodes[0].place.contact()).await.unwrap();
        next(&mut stream).await.unwrap();
    }
    // No card at all.
    say(&mut stream, &frame(&[7; 60])).await;
    while next(&mut stream).await.is_some() {}
    work(&town, &nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_answers_nothing_delays_and_does_not_hinder() {
    let (town, nodes, rogue, mut stream) = with_a_rogue().await;
    say(&mut stream, &[frame(&rogue.contact().to_card()), ping(1)].concat()).await;
    while next(&mut stream).await.is_some_and(|bytes| Message::read(&bytes).unwrap().body != Body::Pong) {}
    // Now it has a place, and the next questions go to it too.
    assert_eq!(nodes[0].region().await, 3);
    work(&town, &nodes).await;
    let value = town.value(0);
    assert!(soon(nodes[0].dht.put(value.clone())).await.unwrap() >= 3);
    assert_eq!(soon(nodes[0].dht.get(NodeId::from_bytes([9; 32]))).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_questions_whose_answers_nobody_takes_slows_its_sender_alone() {
    let (town, nodes, rogue, stream) = with_a_rogue().await;
    let (_unread, mut writing) = tokio::io::split(stream);
    writing.write_all(&frame(&rogue.contact().to_card())).await.unwrap();
    let flood = tokio::spawn(async move {
        for id in 1.. {
            let question = Message { id, body: Body::Find(NodeId::from_bytes([id as u8; 32])) };
            if writing.write_all(&frame(&question.to_bytes())).await.is_err() {
                return;
            }
        }
    });
    work(&town, &nodes).await;
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stream_of_one_member_ends_its_oldest() {
    let (_town, nodes, rogue, mut oldest) = with_a_rogue().await;
    let mut others = Vec::new();
    for _ in 0..MAX_LINES_PER_MEMBER {
        others.push(rogue.call(&nodes[0].place.contact()).await.unwrap());
    }
    while next(&mut oldest).await.is_some() {}
    let mut newest = others.pop().unwrap();
    say(&mut newest, &[frame(&rogue.contact().to_card()), ping(5)].concat()).await;
    loop {
        let bytes = next(&mut newest).await.expect("an answer");
        if Message::read(&bytes).is_ok_and(|message| message.id == 5 && message.body == Body::Pong) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_that_it_is_elsewhere_is_sought_where_it_calls_from() {
    let (_town, nodes, rogue, mut stream) = with_a_rogue().await;
    let mut incoming = rogue.endpoint.listen(PROTOCOL, Admission::Members).unwrap();
    let own = rogue.contact();
    let elsewhere = Contact { address: ([192, 0, 2, 9], own.address.port()).into(), ..own.clone() };
    say(&mut stream, &[frame(&elsewhere.to_card()), ping(1)].concat()).await;
    while next(&mut stream).await.is_some_and(|bytes| Message::read(&bytes).unwrap().body != Body::Pong) {}
    // The first node tells the second where that member is.
    let (second, place) = (nodes[1].dht.clone(), own.id);
    tokio::spawn(async move { second.find(place, 1).await });
    let (first, second) = (nodes[0].place.contact().fingerprint, nodes[1].place.contact().fingerprint);
    while let Some((peer, _stream)) = soon(incoming.next()).await {
        assert_ne!(peer.fingerprint(), Some(&first), "it has a stream with it");
        if peer.fingerprint() == Some(&second) {
            return;
        }
    }
}
