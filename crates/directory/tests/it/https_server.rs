//! Every status of the design, provoked over real TLS; and clients that are slow, large or not welcome.

use std::sync::Arc;

use kith_directory::announce::AllowList;
use kith_directory::limiter::Rate;
use kith_directory::members::{MemberList, Members};
use kith_directory::server::{HttpsCertificate, Server, ServerConfig, ServerError};
use kith_directory::store::RedbStore;
use kith_identity::record::RecordSet;
use kith_identity::{Fingerprint, Identity};
use kith_sansio::Span;
use kith_store::Database;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Zone, exchange, identity, in_time, path, read_reply, set, set_with_blobs, utc};

fn put_head(value: &impl ToString) -> String {
    format!("PUT {} HTTP/1.1", path(&value.to_string()))
}

#[tokio::test]
async fn an_announce_is_created_replaced_and_repeated() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let (first, second) = (set(&alice, utc().minus_secs(5), 60), set(&alice, utc(), 60));
    let created = zone.put(&alice, &first).await;
    assert_eq!((created.status, created.body.len()), (201, 0));
    assert_eq!(zone.put(&alice, &first).await.status, 204, "a repeat");
    assert_eq!(zone.put(&alice, &second).await.status, 204, "a replacement");
    let back = zone.get(&alice, "").await;
    assert_eq!((back.status, back.header("content-type")), (200, Some("application/json")));
    let set = RecordSet::from_json(&back.body).unwrap().verify(&alice.fingerprint(), utc()).unwrap();
    assert_eq!(set, second);
    assert_eq!(zone.handle.counts().announces_taken, 3);
    zone.stop().await;
}

#[tokio::test]
async fn every_refusal_has_its_status_and_says_why() {
    let zone = Zone::start(|_| {}).await;
    let (alice, bob) = (identity(1), identity(2));
    let mine = alice.fingerprint();
    let good = set(&alice, utc(), 60);
    let check = async |status: u16, who, value: &str, body: &[u8]| {
        let reply = zone.request(who, &put_head(&value), body).await;
        assert_eq!(reply.status, status, "{}", String::from_utf8_lossy(&reply.body));
        let (error, hint) = reply.complaint();
        assert!(!error.is_empty() && !hint.is_empty());
    };
    let mine_text = mine.to_string();
    check(401, None, &mine_text, &good.to_json()).await;
    check(403, Some(&bob), &mine_text, &good.to_json()).await;
    check(413, Some(&alice), &mine_text, &vec![b' '; 60_000]).await;
    check(413, Some(&alice), &mine_text, &set_with_blobs(&alice, utc(), &[4097]).to_json()).await;
    check(422, Some(&alice), &mine_text, b"no json").await;
    check(422, Some(&alice), &mine_text, &set(&bob, utc(), 60).to_json()).await;
    check(422, Some(&alice), &mine_text, &set(&alice, utc().minus_secs(60), 60).to_json()).await;
    check(422, Some(&alice), &mine_text, &set(&alice, utc().plus_secs(100), 60).to_json()).await;
    assert_eq!(zone.put(&alice, &good).await.status, 201);
    check(409, Some(&alice), &mine_text, &set(&alice, good.timestamp().minus_secs(1), 60).to_json()).await;
    check(409, Some(&alice), &mine_text, &set(&alice, good.timestamp(), 61).to_json()).await;
    for wrong in ["", "x", &mine_text[1..], &format!("{mine_text}="), &format!("{mine_text}/x")] {
        check(400, Some(&alice), wrong, &good.to_json()).await;
    }
    zone.stop().await;
}

#[tokio::test]
async fn a_wrong_record_is_named() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let json = String::from_utf8(set(&alice, utc(), 60).to_json()).unwrap();
    let wrong = json.replace("quic://192.0.2.1:7117", "quic://192.0.2.1:07117");
    let reply = zone.request(Some(&alice), &put_head(&alice.fingerprint()), wrong.as_bytes()).await;
    assert_eq!(reply.status, 422);
    assert!(reply.complaint().0.contains("address"), "{}", reply.complaint().0);
    zone.stop().await;
}

struct Only(Fingerprint);
impl AllowList for Only {
    fn allows(&self, fingerprint: &Fingerprint) -> bool {
        *fingerprint == self.0
    }
}

#[tokio::test]
async fn a_closed_zone_takes_only_its_own() {
    let (alice, bob) = (identity(1), identity(2));
    let list = Arc::new(Only(alice.fingerprint()));
    let zone = Zone::start(|config| config.allow = Some(list)).await;
    assert_eq!(zone.put(&alice, &set(&alice, utc(), 60)).await.status, 201);
    assert_eq!(zone.put(&bob, &set(&bob, utc(), 60)).await.status, 403);
    zone.stop().await;
}

#[tokio::test]
async fn too_many_announces_of_a_node_or_a_network_are_told_to_wait() {
    let zone = Zone::start(|config| {
        config.fingerprint_rate = Rate { burst: 2, refill: Span::secs(1000) };
        config.network_rate = Rate { burst: 5, refill: Span::secs(2000) };
    })
    .await;
    let (alice, bob) = (identity(1), identity(2));
    let of_alice = set(&alice, utc(), 60);
    assert_eq!(zone.put(&alice, &of_alice).await.status, 201);
    assert_eq!(zone.request(Some(&bob), &put_head(&alice.fingerprint()), b"{}").await.status, 403);
    assert_eq!(zone.put(&alice, &of_alice).await.status, 204, "somebody else spends nothing of hers");
    let refused = zone.put(&alice, &of_alice).await;
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((900..=1000).contains(&wait));
    assert_eq!(zone.put(&bob, &set(&bob, utc(), 60)).await.status, 201);
    let refused = zone.put(&bob, &set(&bob, utc(), 60)).await;
    assert_eq!(refused.status, 429, "the network's share is spent");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 1000);
    assert_eq!(zone.get(&bob, "").await.status, 200, "reading is not announcing");
    zone.stop().await;
}

#[tokio::test]
async fn a_set_is_read_with_get_head_and_conditions() {
    let zone = Zone::start(|_| {}).await;
    let (alice, bob) = (identity(1), identity(2));
    zone.put(&alice, &set(&alice, utc(), 3600)).await;
    zone.put(&bob, &set(&bob, utc().minus_secs(20), 60)).await;
    let whole = zone.get(&alice, "").await;
    let tag = whole.header("etag").unwrap().to_owned();
    assert_eq!(whole.header("cache-control"), Some("max-age=60"));
    let age = zone.get(&bob, "").await.header("cache-control").unwrap()[8..].parse::<u64>().unwrap();
    assert!((20..=40).contains(&age), "the end of the set is near: {age}");
    let head =
        zone.request(None, &format!("HEAD {} HTTP/1.1", path(&alice.fingerprint().to_string())), b"").await;
    assert_eq!((head.status, head.header("etag")), (200, Some(&*tag)));
    assert_eq!(head.header("content-length"), Some(&*whole.body.len().to_string()));
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        let reply = zone.get(&alice, &format!("\r\nIf-None-Match: {known}")).await;
        assert_eq!((reply.status, reply.header("etag")), (304, Some(&*tag)), "{known}");
    }
    assert_eq!(zone.get(&alice, "\r\nIf-None-Match: \"other\"").await.status, 200);
    zone.put(&alice, &set(&alice, utc().plus_secs(1), 3600)).await;
    let changed = zone.get(&alice, &format!("\r\nIf-None-Match: {tag}")).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(&*tag));
    let missing = zone.get(&identity(3), "").await;
    assert_eq!(missing.status, 404);
    missing.complaint();
    zone.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_lead_nowhere() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    for method in ["POST", "DELETE", "PATCH", "OPTIONS"] {
        let head = format!("{method} {} HTTP/1.1", path(&alice.fingerprint().to_string()));
        let reply = zone.request(Some(&alice), &head, b"").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD, PUT")));
    }
    for gone in ["/", "/.well-known/ni/", "/.well-known/ni/sha-256/x", "/.well-known/ni/sha3-256"] {
        let reply = zone.request(None, &format!("GET {gone} HTTP/1.1"), b"").await;
        assert_eq!(reply.status, 404, "{gone}");
        reply.complaint();
    }
    zone.stop().await;
}

#[tokio::test]
async fn one_connection_carries_several_requests() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let mut stream = zone.connect(Some(&alice)).await;
    for (n, status) in [(0, 201), (1, 204), (2, 204)] {
        let body = set(&alice, utc().plus_secs(n), 60).to_json();
        assert_eq!(exchange(&mut stream, &put_head(&alice.fingerprint()), &body).await.status, status);
    }
    zone.stop().await;
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_at_its_limit() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    // Says that it is larger than anything.
    let mut stream = zone.connect(Some(&alice)).await;
    let head = put_head(&alice.fingerprint());
    let lies = format!("{head}\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n");
    stream.write_all(lies.as_bytes()).await.unwrap();
    stream.write_all(&[b' '; 4096]).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let flood = tokio::spawn(async move { while writer.write_all(&[b' '; 16_384]).await.is_ok() {} });
    let mut reply = read_reply(&mut reader, false).await;
    if reply.status == 100 {
        reply = read_reply(&mut reader, false).await;
    }
    assert_eq!(reply.status, 413);
    // Says nothing of its size.
    let mut stream = zone.connect(Some(&alice)).await;
    let chunked = format!("{head}\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let chunk = [&b"1000\r\n"[..], &[b' '; 4096], b"\r\n"].concat();
    for _ in 0..16 {
        let _ = stream.write_all(&chunk).await;
    }
    let _ = stream.write_all(b"0\r\n\r\n").await;
    assert_eq!(read_reply(&mut stream, false).await.status, 413);
    flood.abort();
    zone.stop().await;
}

#[tokio::test]
async fn slow_clients_are_cut_off_at_every_stage() {
    let zone = Zone::start(|config| {
        config.connections.handshake = Span::secs(1);
        config.connections.idle = Span::secs(1);
        config.connections.body = Span::secs(1);
    })
    .await;
    let alice = identity(1);
    let mut silent = TcpStream::connect(zone.https).await.unwrap();
    let mut hello = TcpStream::connect(zone.https).await.unwrap();
    hello.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    for stream in [&mut silent, &mut hello] {
        in_time(async { while stream.read(&mut [0; 100]).await.is_ok_and(|length| length > 0) {} }).await;
    }
    let mut half_head = zone.connect(None).await;
    half_head.write_all(b"GET /.well-known/ni HTTP/1.1\r\nHost: ").await.unwrap();
    in_time(async { while half_head.read(&mut [0; 100]).await.is_ok_and(|length| length > 0) {} }).await;
    let mut half_body = zone.connect(Some(&alice)).await;
    let head = format!("{}\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{", put_head(&alice.fingerprint()));
    half_body.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut half_body, false).await.status, 408);
    zone.stop().await;
}

#[tokio::test]
async fn no_connection_lives_for_ever() {
    let zone = Zone::start(|config| config.connections.life = Span::secs(2)).await;
    let alice = identity(1);
    zone.put(&alice, &set(&alice, utc(), 60)).await;
    let mut busy = zone.connect(None).await;
    let head = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path(&alice.fingerprint().to_string()));
    let closed = in_time(async {
        loop {
            if busy.write_all(head.as_bytes()).await.is_err() {
                return true;
            }
            if busy.read(&mut [0; 4096]).await.is_ok_and(|length| length == 0) {
                return true;
            }
        }
    });
    assert!(closed.await);
    zone.stop().await;
}

#[tokio::test]
async fn one_network_gets_no_more_than_its_share_of_connections() {
    let zone = Zone::start(|config| config.connections.most_per_network = 2).await;
    let first = zone.connect(None).await;
    let _second = zone.connect(None).await;
    let mut third = TcpStream::connect(zone.https).await.unwrap();
    let closed = in_time(third.read(&mut [0])).await;
    assert!(closed.is_err() || closed.is_ok_and(|length| length == 0));
    drop(first);
    // The place is free as soon as the server has seen the end.
    in_time(async {
        loop {
            let mut again = TcpStream::connect(zone.https).await.unwrap();
            let waits =
                tokio::time::timeout(std::time::Duration::from_millis(200), again.read(&mut [0])).await;
            if waits.is_err() {
                break;
            }
        }
    })
    .await;
    zone.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let zone = Zone::start(|_| {}).await;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (chain, key) = (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
    let broken = HttpsCertificate::Pem { chain: b"nonsense".to_vec(), key: key.clone() };
    assert!(zone.handle.reload_certificate(&broken).is_err());
    zone.get(&identity(1), "").await;
    zone.handle.reload_certificate(&HttpsCertificate::Pem { chain, key }).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let trust = kith_identity::tls::Trust::WebPki(Arc::new(roots));
    let config = kith_identity::tls::directory_client(&trust, None).unwrap();
    let stream = TcpStream::connect(zone.https).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    in_time(connector.connect(name, stream)).await.unwrap();
    zone.handle.reload_certificate(&HttpsCertificate::Own).unwrap();
    zone.get(&identity(1), "").await;
    zone.stop().await;
}

#[tokio::test]
async fn heads_beyond_all_measure_are_refused() {
    let zone = Zone::start(|_| {}).await;
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    let reply = zone.request(None, &long, b"").await;
    assert_eq!(reply.status, 431);
    zone.stop().await;
}

#[tokio::test]
async fn who_asks_first_is_refused_without_being_asked_for_the_body() {
    let zone = Zone::start(|_| {}).await;
    let mut stream = zone.connect(None).await;
    let head = put_head(&identity(1).fingerprint());
    let asks = format!("{head}\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n");
    stream.write_all(asks.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut stream, false).await.status, 401);
    zone.stop().await;
}

#[tokio::test]
async fn a_handshake_under_way_does_not_hold_up_the_end() {
    let zone = Zone::start(|_| {}).await;
    let mut hello = TcpStream::connect(zone.https).await.unwrap();
    hello.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    zone.get(&identity(1), "").await;
    zone.stop().await;
    in_time(async { while hello.read(&mut [0; 100]).await.is_ok_and(|length| length > 0) {} }).await;
}

#[tokio::test]
async fn a_closed_zone_takes_its_members_and_sends_others_away() {
    let (alice, bob) = (identity(1), identity(2));
    let members = |who: &Identity| Members::parse(zone_line(who).as_bytes()).unwrap();
    let list = MemberList::new(members(&alice));
    let zone = Zone::start(|config| config.allow = Some(Arc::new(list.clone()))).await;
    assert_eq!(zone.put(&alice, &set(&alice, utc(), 60)).await.status, 201);
    let refused = zone.put(&bob, &set(&bob, utc(), 60)).await;
    assert_eq!(refused.status, 403);
    let body = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(body.contains("does not take announces") && body.contains("members"), "{body}");
    list.replace(members(&bob));
    assert_eq!(zone.put(&bob, &set(&bob, utc(), 60)).await.status, 201);
    assert_eq!(zone.put(&alice, &set(&alice, utc().plus_secs(1), 60)).await.status, 403);
    zone.stop().await;
}

fn zone_line(who: &Identity) -> String {
    format!("ni:///sha3-256;{} # a member\n", who.fingerprint())
}

#[tokio::test]
async fn metrics_are_for_this_machine_alone() {
    let mut config = ServerConfig::new("localhost:443".parse().unwrap());
    config.metrics = Some("0.0.0.0:0".parse().unwrap());
    let store = Arc::new(RedbStore::new(Database::in_memory().unwrap()));
    let refused = Server::bind(config, store, &identity(1)).await;
    assert!(matches!(refused, Err(ServerError::PublicMetrics(_))));
}
