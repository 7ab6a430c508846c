//! The client against a real directory, against resolvers and directories that lie, and against nobody.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record};
use kith_directory::client::{
    AnnounceError, Announced, BoxFuture, ClientConfig, Directory, DiscoverError, DnsSource, ExchangeError,
    Freshness, HttpsSource, LookupError, MemoryReplay, Source, SourceName,
};
use kith_directory::lookup::Rejection;
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_identity::tls::{Certificate, ServerCertificate, directory_server};
use kith_identity::{Authority, Identity, Ni};
use kith_sansio::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::world::{Zone, identity, in_time, set, set_with_blobs, utc};

#[tokio::test]
async fn what_one_announces_the_other_discovers_over_dns_and_https() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let ni = zone.ni(&alice);
    let (one, two) = (zone.client(), zone.client());
    let held = set(&alice, utc(), 600);
    let announced = one.announce(&zone.authority(), &alice, &held).await.unwrap();
    assert_eq!(announced, Announced::Created);
    let again = one.announce(&zone.authority(), &alice, &held).await.unwrap();
    assert_eq!(again, Announced::Replaced);
    for via in [SourceName::Dns, SourceName::Https] {
        let found = in_time(two.discover_via(&ni, via)).await.unwrap();
        assert_eq!((found.set, found.verified_by, found.stale), (held.clone(), via, false));
    }
    let cached = two.discover(&ni, Freshness::Valid).await.unwrap();
    assert_eq!(cached.verified_by, SourceName::Cache);
    let fresh = two.discover(&ni, Freshness::Refetch).await.unwrap();
    assert_ne!(fresh.verified_by, SourceName::Cache);
    zone.stop().await;
}

#[tokio::test]
async fn a_probe_tells_status_and_clock_of_a_directory() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let client = zone.client();
    let before = client.probe(&zone.authority(), alice.fingerprint()).await.unwrap();
    client.announce(&zone.authority(), &alice, &set(&alice, utc(), 600)).await.unwrap();
    let after = client.probe(&zone.authority(), alice.fingerprint()).await.unwrap();
    assert_eq!((before.status, after.status), (404, 200));
    let apart = after.date.unwrap().secs_since(utc()).max(utc().secs_since(after.date.unwrap()));
    assert!(apart < 30, "{after:?}");
    zone.stop().await;
}

#[tokio::test]
async fn sets_of_every_size_are_discovered() {
    let zone = Zone::start(|_| {}).await;
    let client = zone.client();
    for (seed, sizes) in
        [(1, &[1][..]), (2, &[900]), (3, &[2500]), (4, &[4000, 4000]), (5, &[4096, 4096, 4000])]
    {
        let who = identity(seed);
        let held = set_with_blobs(&who, utc(), sizes);
        client.announce(&zone.authority(), &who, &held).await.unwrap();
        let found = in_time(client.discover(&zone.ni(&who), Freshness::Valid)).await.unwrap();
        assert_eq!(found.set, held);
        let large = sizes.len() > 1;
        assert_eq!(found.verified_by, if large { SourceName::Https } else { SourceName::Dns }, "{sizes:?}");
        if large {
            let by_dns = client.discover_via(&zone.ni(&who), SourceName::Dns).await.unwrap_err();
            let DiscoverError::NoAnswer { failures, .. } = by_dns else { panic!("{by_dns:?}") };
            assert!(matches!(failures[0].why, LookupError::UseHttps));
        }
    }
    zone.stop().await;
}

#[tokio::test]
async fn nothing_found_and_nobody_there_are_told_apart() {
    let zone = Zone::start(|_| {}).await;
    let (alice, client) = (identity(1), zone.client());
    let missing = in_time(client.discover(&zone.ni(&alice), Freshness::Valid)).await;
    assert!(matches!(missing, Err(DiscoverError::NotFound(_))), "{missing:?}");
    let bare = client.discover(&Ni::new(alice.fingerprint(), None), Freshness::Valid).await;
    assert!(matches!(bare, Err(DiscoverError::NothingToAsk(_))), "{bare:?}");
    let config = ClientConfig { pace: hurried(), ..zone.client_config() };
    let ni = zone.ni(&alice);
    let authority = zone.authority();
    zone.stop().await;
    let client = Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()));
    let nobody = in_time(client.discover(&ni, Freshness::Valid)).await;
    assert!(
        matches!(&nobody, Err(DiscoverError::NoAnswer { failures, .. }) if !failures.is_empty()),
        "{nobody:?}"
    );
    let refused = in_time(client.announce(&authority, &alice, &set(&alice, utc(), 60))).await;
    assert!(matches!(refused, Err(AnnounceError::Exchange(ExchangeError::Connect { .. }))), "{refused:?}");
}

pub(crate) fn hurried() -> kith_directory::lookup::Pace {
    kith_directory::lookup::Pace { deadline: Span::secs(2), ..Default::default() }
}

#[tokio::test]
async fn a_directory_with_another_key_than_the_pinned_one_is_not_spoken_to() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let held = set(&alice, utc(), 60);
    for pins in [[(zone.authority(), identity(7).fingerprint())].into(), [].into()] {
        let config = ClientConfig { pins, ..zone.client_config() };
        let client = Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()));
        let refused = in_time(client.announce(&zone.authority(), &alice, &held)).await;
        assert!(
            matches!(refused, Err(AnnounceError::Exchange(ExchangeError::Handshake { .. }))),
            "{refused:?}"
        );
    }
    zone.stop().await;
}

#[tokio::test]
async fn a_refusal_reaches_whoever_announced() {
    let zone = Zone::start(|_| {}).await;
    let (alice, client) = (identity(1), zone.client());
    client.announce(&zone.authority(), &alice, &set(&alice, utc(), 60)).await.unwrap();
    let older = set(&alice, utc().minus_secs(30), 60);
    let refused = client.announce(&zone.authority(), &alice, &older).await.unwrap_err();
    let AnnounceError::Refused { status: 409, error, hint, .. } = refused else { panic!("{refused:?}") };
    assert!(!error.is_empty() && !hint.is_empty());
    zone.stop().await;
}

/// A source that says what the test tells it to.
pub(crate) struct Fixed(pub(crate) SourceName, pub(crate) Option<VerifiedRecordSet>);

impl Source for Fixed {
    fn name(&self) -> SourceName {
        self.0
    }

    fn lookup(&self, _: Ni) -> BoxFuture<'_, Result<Option<RecordSet>, LookupError>> {
        Box::pin(async { Ok(self.1.as_ref().map(|set| set.as_record_set().clone())) })
    }
}

fn with_source(source: Fixed, memory: &Arc<MemoryReplay>) -> Directory {
    let memory: Arc<MemoryReplay> = Arc::clone(memory);
    Directory::new(ClientConfig::default(), vec![Arc::new(source)], memory)
}

fn bare(who: &Identity) -> Ni {
    Ni::new(who.fingerprint(), None)
}

#[tokio::test]
async fn other_floors_add_sources_that_need_no_authority() {
    let alice = identity(1);
    let held = set(&alice, utc(), 60);
    let memory = Arc::new(MemoryReplay::default());
    let client = with_source(Fixed(SourceName::Lan, Some(held.clone())), &memory);
    let found = in_time(client.discover(&bare(&alice), Freshness::Valid)).await.unwrap();
    assert_eq!((found.set, found.verified_by), (held, SourceName::Lan));
}

#[tokio::test]
async fn replayed_sets_are_refused_after_a_restart_of_the_client() {
    let alice = identity(1);
    let memory = Arc::new(MemoryReplay::default());
    let (older, newer) = (set(&alice, utc().minus_secs(10), 600), set(&alice, utc(), 600));
    with_source(Fixed(SourceName::Lan, Some(newer.clone())), &memory)
        .discover(&bare(&alice), Freshness::Valid)
        .await
        .unwrap();
    let replaying = with_source(Fixed(SourceName::Lan, Some(older.clone())), &memory);
    let refused = replaying.discover(&bare(&alice), Freshness::Valid).await;
    assert!(matches!(refused, Err(DiscoverError::Refused { why: Rejection::Older, .. })), "{refused:?}");
    assert!(replaying.offer(older.as_record_set().clone(), &alice.fingerprint()).is_err());
    let different = set(&alice, newer.timestamp(), 601);
    assert!(replaying.offer(different.as_record_set().clone(), &alice.fingerprint()).is_err());
    // The newer set is pushed; from then on a source that lags behind is no reason to know nothing.
    replaying.offer(newer.as_record_set().clone(), &alice.fingerprint()).unwrap();
    let found = replaying.discover(&bare(&alice), Freshness::Refetch).await.unwrap();
    assert_eq!((found.set, found.verified_by), (newer, SourceName::Cache));
}

#[tokio::test]
async fn a_stale_set_is_served_only_when_asked_for_and_says_so() {
    let alice = identity(1);
    let memory = Arc::new(MemoryReplay::default());
    let client = with_source(Fixed(SourceName::Lan, None), &memory);
    let short = set(&alice, utc(), 4);
    client.offer(short.as_record_set().clone(), &alice.fingerprint()).unwrap();
    in_time(async {
        while utc() < short.expires() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let none = client.discover(&bare(&alice), Freshness::Valid).await;
    assert!(matches!(none, Err(DiscoverError::NotFound(_))), "{none:?}");
    let stale = client.discover(&bare(&alice), Freshness::StaleAllowed).await.unwrap();
    assert_eq!((stale.set, stale.stale), (short, true));
}

/// A resolver that answers each query with what `reply` makes of it.
pub(crate) async fn resolver(reply: impl Fn(&Message) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            for answer in reply(&Message::from_vec(&packet[..length]).unwrap()) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    address
}

pub(crate) fn texts_for(query: &Message, set: &VerifiedRecordSet) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    for text in set.to_txt() {
        let txt = TXT::from_bytes(text.chunks(255).collect());
        reply.add_answer(Record::from_rdata(query.queries[0].name().clone(), 60, RData::TXT(txt)));
    }
    reply
}

pub(crate) async fn ask(resolvers: Vec<SocketAddr>, ni: &Ni) -> Result<Option<RecordSet>, LookupError> {
    in_time(DnsSource::new(resolvers, Span::millis(500)).lookup(ni.clone())).await
}

#[tokio::test]
async fn only_the_answer_to_the_question_is_heard() {
    let alice = identity(1);
    let held = set(&alice, utc(), 600);
    let ni = Ni::new(alice.fingerprint(), Some("example.org".parse().unwrap()));
    let answer = held.clone();
    let address = resolver(move |query| {
        let right = texts_for(query, &answer);
        let mut wrong_id = right.clone();
        wrong_id.metadata.id ^= 1;
        wrong_id.answers.clear();
        let mut wrong_name = right.clone();
        wrong_name.queries[0].set_name("evil.example.org.".parse().unwrap());
        let mut no_response = right.clone();
        no_response.metadata.message_type = MessageType::Query;
        let junk = vec![0xff; 40];
        let wrong = [wrong_id, wrong_name, no_response].map(|message| message.to_vec().unwrap());
        wrong.into_iter().chain([junk, vec![], right.to_vec().unwrap()]).collect()
    })
    .await;
    assert_eq!(ask(vec![address], &ni).await.unwrap().as_ref(), Some(held.as_record_set()));
}

#[tokio::test]
async fn the_next_resolver_is_asked_where_one_fails_or_is_silent() {
    let alice = identity(1);
    let held = set(&alice, utc(), 600);
    let ni = Ni::new(alice.fingerprint(), Some("example.org".parse().unwrap()));
    let failing = resolver(|query| {
        let mut reply = query.clone();
        reply.metadata.message_type = MessageType::Response;
        reply.metadata.response_code = hickory_proto::op::ResponseCode::ServFail;
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let silent = resolver(|_| vec![]).await;
    let answer = held.clone();
    let honest = resolver(move |query| vec![texts_for(query, &answer).to_vec().unwrap()]).await;
    let found = ask(vec![failing, silent, honest], &ni).await.unwrap();
    assert_eq!(found.as_ref(), Some(held.as_record_set()));
    let failed = ask(vec![failing], &ni).await.unwrap_err();
    assert!(matches!(failed, LookupError::Resolver { code: 2, .. }), "{failed:?}");
    let nobody = ask(vec![silent], &ni).await.unwrap_err();
    assert!(matches!(nobody, LookupError::NoResolverAnswered { .. }), "{nobody:?}");
}

#[tokio::test]
async fn a_resolver_that_truncates_for_ever_or_lies_over_tcp_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            packet[2] |= 0x82;
            let _ = socket.send_to(&packet[..length], from).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(&[0xff, 0xff, 1, 2, 3]).await;
            drop(stream);
        }
    });
    let ni = Ni::new(identity(1).fingerprint(), Some("example.org".parse().unwrap()));
    let failed = ask(vec![address], &ni).await.unwrap_err();
    assert!(matches!(failed, LookupError::Socket { .. }), "{failed:?}");
}

#[tokio::test]
async fn a_forged_answer_of_the_dns_loses_to_the_honest_one_over_https() {
    let zone = Zone::start(|_| {}).await;
    let (alice, mallory) = (identity(1), identity(2));
    let held = set(&alice, utc(), 600);
    zone.client().announce(&zone.authority(), &alice, &held).await.unwrap();
    let forged = set(&mallory, utc(), 600);
    let lying = resolver(move |query| vec![texts_for(query, &forged).to_vec().unwrap()]).await;
    let config = ClientConfig { resolvers: vec![lying], ..zone.client_config() };
    let client = Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()));
    let found = in_time(client.discover(&zone.ni(&alice), Freshness::Valid)).await.unwrap();
    assert_eq!((found.set, found.verified_by), (held, SourceName::Https));
    let refused = in_time(client.discover_via(&zone.ni(&alice), SourceName::Dns)).await;
    let Err(DiscoverError::Refused { from: SourceName::Dns, .. }) = refused else { panic!("{refused:?}") };
    zone.stop().await;
}

/// A directory that answers each request with these bytes, and then keeps the connection open.
async fn evil_directory(reply: Vec<u8>) -> (Authority, Arc<Identity>) {
    let who = Arc::new(identity(66));
    let certificate = Certificate::self_signed(&who).unwrap();
    let config = directory_server(ServerCertificate::Own(&certificate)).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = format!("127.0.0.1:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, reply) = (acceptor.clone(), reply.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let _ = stream.read(&mut [0; 8192]).await;
                let _ = stream.write_all(&reply).await;
                let _ = stream.flush().await;
                std::future::pending::<()>().await;
            });
        }
    });
    (authority, who)
}

async fn ask_evil(reply: Vec<u8>) -> Result<Option<RecordSet>, LookupError> {
    let (authority, who) = evil_directory(reply).await;
    let pins = [(authority.clone(), who.fingerprint())].into();
    let source = HttpsSource::new(ClientConfig::default().roots, pins, Span::secs(2));
    in_time(source.lookup(Ni::new(identity(1).fingerprint(), Some(authority)))).await
}

#[tokio::test]
async fn a_directory_that_stalls_floods_or_talks_nonsense_is_given_up() {
    let silent = ask_evil(vec![]).await.unwrap_err();
    assert!(matches!(silent, LookupError::Exchange(ExchangeError::TooSlow { .. })), "{silent:?}");
    let half = ask_evil(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()).await.unwrap_err();
    assert!(matches!(half, LookupError::Exchange(ExchangeError::TooSlow { .. })), "{half:?}");
    let mut flood = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n".to_vec();
    flood.resize(200_000, b' ');
    let flood = ask_evil(flood).await.unwrap_err();
    assert!(matches!(flood, LookupError::Exchange(ExchangeError::TooLarge { .. })), "{flood:?}");
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 100_000]].concat();
    for broken in [endless, b"SSH-2.0-x\r\n\r\n".to_vec()] {
        let broken = ask_evil(broken).await.unwrap_err();
        assert!(matches!(broken, LookupError::Exchange(ExchangeError::Broken { .. })), "{broken:?}");
    }
    let junk = ask_evil(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()).await.unwrap_err();
    assert!(matches!(junk, LookupError::Malformed(_)), "{junk:?}");
    let teapot = ask_evil(b"HTTP/1.1 418 x\r\nContent-Length: 0\r\n\r\n".to_vec()).await.unwrap_err();
    assert!(matches!(teapot, LookupError::Status { status: 418, .. }), "{teapot:?}");
}

#[tokio::test]
async fn many_lookups_at_once_are_all_answered() {
    let zone = Zone::start(|_| {}).await;
    let (alice, client) = (identity(1), zone.client());
    client.announce(&zone.authority(), &alice, &set(&alice, utc(), 600)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (client, ni) = (client.clone(), zone.ni(&alice));
        tasks.spawn(
            async move { client.discover(&ni, Freshness::Refetch).await.map(|found| found.verified_by) },
        );
    }
    while let Some(found) = in_time(tasks.join_next()).await {
        found.unwrap().unwrap();
    }
    zone.stop().await;
}
