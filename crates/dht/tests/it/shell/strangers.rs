//! Who is no member gets nothing.

use std::sync::Arc;

use kith_identity::Identity;
use kith_sansio::system::{OsRng, utc};

use super::{Place, Town, admit, frame, next, say, soon, soon_true};

/// Longer ago than a certificate is valid.
const LONG_AGO_SECS: u64 = 400 * 86_400;

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_certificate_a_foreign_one_or_an_expired_one_gets_no_stream() {
    let (mut town, nodes) = Town::settled(2).await;
    let stranger = Arc::new(Identity::generate(&mut OsRng));
    let mut others = Town::new(1);
    let foreign = admit(&mut others.issuer, &stranger, utc());
    let expired = admit(&mut town.issuer, &stranger, utc().minus_secs(LONG_AGO_SECS));
    let valid = admit(&mut town.issuer, &stranger, utc());
    // Somebody else's certificate is none at all.
    for (own, is_let_in) in
        [(town.members[1].clone(), false), (foreign, false), (expired, false), (valid, true)]
    {
        let place = Place::new(&stranger, own, &town.rolled).await;
        assert_eq!(place.call(&nodes[0].place.contact()).await.is_some(), is_let_in);
        place.endpoint.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_another_ones_card_on_its_stream_is_not_heard() {
    let (town, nodes) = Town::settled(2).await;
    let member = town.place(1).await;
    let mut stream = member.call(&nodes[0].place.contact()).await.unwrap();
    let hello = next(&mut stream).await.unwrap();
    assert_eq!(hello, nodes[0].place.contact().to_card());
    say(&mut stream, &frame(&hello)).await;
    while next(&mut stream).await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_is_cut_off_and_forgotten() {
    let (mut town, mut nodes) = Town::settled(3).await;
    let rolled = town.revoke(2);
    let revoked = nodes.pop().unwrap();
    nodes.iter().for_each(|node| node.place.pass.adopt(&rolled));
    for node in &nodes {
        soon_true(async || node.region().await == 1).await;
    }
    assert!(revoked.place.call(&nodes[0].place.contact()).await.is_none());
    // It asks whom it knew, and nobody answers.
    let value = town.value(0);
    soon(nodes[0].dht.put(value.clone())).await.unwrap();
    assert_eq!(soon(revoked.dht.get(value.key)).await, Ok(None));
    assert_eq!(nodes[0].dht.status().await.unwrap().members, 2);
}
