//! The crate as others use it: its examples, run against a real directory, and the calls that they make.

use kith_directory::client::{AnnounceError, DiscoverError};
use kith_identity::record::Draft;
use kith_identity::{Fingerprint, Ni};

use crate::world::{Zone, identity, in_time, set, utc};

#[path = "../../examples/blob_get.rs"]
#[allow(dead_code)]
mod blob_get;
#[path = "../../examples/blob_put.rs"]
#[allow(dead_code)]
mod blob_put;

/// Longest example in lines.
const MAX_LINES: usize = 30;

#[tokio::test]
async fn the_examples_publish_a_blob_and_fetch_it() {
    let zone = Zone::start(|_| {}).await;
    let authority = format!("127.0.0.1:{}", zone.https.port());
    let pin = format!("ni:///sha3-256;{}", zone.identity.fingerprint());
    let said = "grüße".to_owned();
    let ni = in_time(blob_put::run(vec![authority, said.clone(), pin.clone()])).await.unwrap();
    assert_eq!(in_time(blob_get::run(vec![ni.clone(), pin])).await.unwrap(), said);
    assert!(in_time(blob_get::run(vec![ni])).await.is_err(), "without its pin nobody knows the directory");
    assert!(blob_put::run(vec![]).await.is_err() && blob_get::run(vec![]).await.is_err());
    zone.stop().await;
}

#[test]
fn every_example_is_short() {
    for (name, text) in [
        ("blob_put", include_str!("../../examples/blob_put.rs")),
        ("blob_get", include_str!("../../examples/blob_get.rs")),
    ] {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{name} has {lines} lines");
    }
}

#[tokio::test]
async fn blobs_follow_each_other_within_a_second() {
    let zone = Zone::start(|_| {}).await;
    let (alice, client) = (identity(1), zone.client());
    for blob in [&b"one"[..], b"two", b"three", b""] {
        client.put_blob(&zone.authority(), &alice, blob).await.unwrap();
        assert_eq!(client.fetch_blob(&zone.ni(&alice)).await.unwrap().as_deref(), Some(blob));
        assert_eq!(zone.client().fetch_blob(&zone.ni(&alice)).await.unwrap().as_deref(), Some(blob));
    }
    let draft = Draft { addresses: vec!["tcp://192.0.2.1:1".parse().unwrap()], ..Draft::default() };
    client.publish(&zone.authority(), &alice, &draft).await.unwrap();
    assert_eq!(client.fetch_blob(&zone.ni(&alice)).await.unwrap(), None);
    zone.stop().await;
}

#[tokio::test]
async fn a_program_that_starts_again_goes_on_after_its_last_set() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    // What an earlier run left, signed by a clock that was a little ahead.
    let left = set(&alice, utc().plus_secs(20), 600);
    assert_eq!(zone.put(&alice, &left).await.status, 201);
    let held = zone.client().put_blob(&zone.authority(), &alice, *b"new").await.unwrap();
    assert_eq!(held.timestamp(), left.timestamp().plus_secs(1));
    assert_eq!(zone.client().fetch_blob(&zone.ni(&alice)).await.unwrap().as_deref(), Some(&b"new"[..]));
    zone.stop().await;
}

#[tokio::test]
async fn what_cannot_be_published_or_fetched_says_why() {
    let zone = Zone::start(|_| {}).await;
    let (alice, client) = (identity(1), zone.client());
    let huge = client.put_blob(&zone.authority(), &alice, vec![7; 100_000]).await;
    assert!(matches!(huge, Err(AnnounceError::Draft(_))), "{huge:?}");
    let large = client.put_blob(&zone.authority(), &alice, vec![7; 5000]).await;
    assert!(matches!(large, Err(AnnounceError::Refused { status: 413, .. })), "{large:?}");
    let missing = client.fetch_blob(&zone.ni(&alice)).await;
    assert!(matches!(missing, Err(DiscoverError::NotFound(_))), "{missing:?}");
    let nowhere = client.fetch_blob(&Ni::new(Fingerprint::from_bytes([1; 32]), None)).await;
    assert!(matches!(nowhere, Err(DiscoverError::NothingToAsk(_))), "{nowhere:?}");
    zone.stop().await;
}
