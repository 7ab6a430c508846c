//! Answers of the DNS that are spoofed, cut, mixed, endless or kept too long.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, Query};
use hickory_proto::rr::rdata::{CNAME, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use kith_directory::client::{
    ClientConfig, Directory, DiscoverError, Freshness, LookupError, MemoryReplay, SourceName,
};
use kith_identity::record::VerifiedRecordSet;
use kith_identity::{Identity, Ni};
use kith_sansio::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::discovering::{ask, resolver, texts_for};
use crate::world::{Zone, identity, in_time, set, utc};

fn ni_of(who: &Identity) -> Ni {
    Ni::new(who.fingerprint(), Some("example.org".parse().unwrap()))
}

fn named(message: &Message, owner: &Name, text: &[u8]) -> Record {
    assert_eq!(message.queries.len(), 1);
    Record::from_rdata(owner.clone(), 60, RData::TXT(TXT::from_bytes(text.chunks(255).collect())))
}

fn response(query: &Message) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply
}

#[tokio::test]
async fn an_answer_to_another_question_or_from_elsewhere_is_not_heard() {
    let alice = identity(1);
    let held = set(&alice, utc(), 600);
    let forged = set(&alice, utc().minus_secs(100), 3600);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (right, wrong) = (held.clone(), forged);
    tokio::spawn(async move {
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut packet = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            let query = Message::from_vec(&packet[..length]).unwrap();
            let spoofed = texts_for(&query, &wrong).to_vec().unwrap();
            let _ = elsewhere.send_to(&spoofed, from).await;
            let changed = |change: &dyn Fn(&mut Query)| {
                let mut message = texts_for(&query, &wrong);
                change(&mut message.queries[0]);
                message.to_vec().unwrap()
            };
            let mut two = texts_for(&query, &wrong);
            two.add_query(two.queries[0].clone());
            let mut none = texts_for(&query, &wrong);
            none.queries.clear();
            for spoofed in [
                changed(&|question| {
                    question.set_query_type(RecordType::A);
                }),
                changed(&|question| {
                    question.set_query_class(DNSClass::CH);
                }),
                two.to_vec().unwrap(),
                none.to_vec().unwrap(),
            ] {
                let _ = socket.send_to(&spoofed, from).await;
            }
            let _ = socket.send_to(&texts_for(&query, &right).to_vec().unwrap(), from).await;
        }
    });
    assert_eq!(ask(vec![address], &ni_of(&alice)).await.unwrap().as_ref(), Some(held.as_record_set()));
}

/// What a resolver that truncates does over TCP.
#[derive(Clone, Copy, Debug)]
enum OverTcp {
    Refuses,
    Stalls,
    StallsInside,
    Cuts,
    SaysNothing,
    AnswersAnotherQuestion,
    TruncatesAgain,
}

async fn truncating(over_tcp: OverTcp) -> SocketAddr {
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
    if !matches!(over_tcp, OverTcp::Refuses) {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_tcp(stream, over_tcp));
            }
        });
    }
    address
}

async fn serve_tcp(mut stream: TcpStream, how: OverTcp) -> std::io::Result<()> {
    let mut query = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut query).await?;
    let mut answer = query.clone();
    answer[2] |= 0x80;
    match how {
        OverTcp::Refuses | OverTcp::Stalls => std::future::pending().await,
        OverTcp::StallsInside => {
            stream.write_all(&[&[0xff, 0xff][..], &answer].concat()).await?;
            std::future::pending().await
        }
        OverTcp::Cuts => stream.write_all(&[&[0, 200][..], &answer].concat()).await,
        OverTcp::SaysNothing => stream.write_all(&[0, 0]).await,
        OverTcp::AnswersAnotherQuestion => {
            answer[0] ^= 1;
            stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()).await
        }
        OverTcp::TruncatesAgain => {
            answer[2] |= 0x02;
            stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()).await
        }
    }
}

#[tokio::test]
async fn a_cut_answer_that_cannot_be_had_over_tcp_is_an_error_and_the_next_resolver_is_asked() {
    let alice = identity(1);
    let held = set(&alice, utc(), 600);
    let right = held.clone();
    let honest = resolver(move |query| vec![texts_for(query, &right).to_vec().unwrap()]).await;
    let each = [
        OverTcp::Refuses,
        OverTcp::Stalls,
        OverTcp::StallsInside,
        OverTcp::Cuts,
        OverTcp::SaysNothing,
        OverTcp::AnswersAnotherQuestion,
        OverTcp::TruncatesAgain,
    ]
    .map(async |how| {
        let evil = truncating(how).await;
        let failed = ask(vec![evil], &ni_of(&alice)).await;
        assert!(
            matches!(failed, Err(LookupError::Socket { .. } | LookupError::NoResolverAnswered { .. })),
            "{how:?}: {failed:?}"
        );
        let found = ask(vec![evil, honest], &ni_of(&alice)).await.unwrap();
        assert_eq!(found.as_ref(), Some(held.as_record_set()), "{how:?}");
    });
    futures_util::future::join_all(each).await;
}

/// A client that asks `resolver`, and the zone over HTTPS.
fn misled(zone: &Zone, resolver: SocketAddr) -> Directory {
    let config = ClientConfig { resolvers: vec![resolver], ..zone.client_config() };
    Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()))
}

#[tokio::test]
async fn records_of_two_sets_make_none() {
    let zone = Zone::start(|_| {}).await;
    let (alice, bob) = (identity(1), identity(2));
    let held = set(&alice, utc(), 600);
    zone.client().announce(&zone.authority(), &alice, &held).await.unwrap();
    let (older, other) = (set(&alice, utc().minus_secs(30), 600), set(&bob, utc(), 600));
    let texts = |set: &VerifiedRecordSet| set.to_txt();
    let mixtures: Vec<Vec<Vec<u8>>> = vec![
        [texts(&held), texts(&other)].concat(),
        [texts(&held), texts(&older)].concat(),
        texts(&held)[1..].to_vec(),
        [texts(&held), texts(&held)[..1].to_vec()].concat(),
        [texts(&held), vec![b"v=spf1 -all".to_vec()]].concat(),
        [texts(&held), vec![b"address=tcp://192.0.2.66:1".to_vec()]].concat(),
        vec![vec![]],
        vec![vec![b'x'; 60_000]],
    ];
    for mixture in mixtures {
        let said = mixture.clone();
        let evil = resolver(move |query| {
            let mut reply = response(query);
            let owner = query.queries[0].name().clone();
            reply.add_answers(said.iter().map(|text| named(query, &owner, text)));
            vec![reply.to_vec().unwrap()]
        })
        .await;
        let client = misled(&zone, evil);
        let failed = in_time(client.discover_via(&zone.ni(&alice), SourceName::Dns)).await;
        assert!(
            matches!(failed, Err(DiscoverError::Refused { .. } | DiscoverError::NoAnswer { .. })),
            "{failed:?}"
        );
        let found = in_time(client.discover(&zone.ni(&alice), Freshness::Valid)).await.unwrap();
        assert_eq!((found.set, found.verified_by), (held.clone(), SourceName::Https));
    }
    zone.stop().await;
}

#[tokio::test]
async fn records_of_other_names_in_the_answer_are_passed_over() {
    let (alice, bob) = (identity(1), identity(2));
    let (held, other) = (set(&alice, utc(), 600), set(&bob, utc(), 600));
    let (right, wrong) = (held.clone(), other);
    let address = resolver(move |query| {
        let mut reply = texts_for(query, &right);
        let elsewhere: Name = "elsewhere.example.org.".parse().unwrap();
        reply.add_answers(wrong.to_txt().iter().map(|text| named(query, &elsewhere, text)));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    assert_eq!(ask(vec![address], &ni_of(&alice)).await.unwrap().as_ref(), Some(held.as_record_set()));
}

/// A resolver that answers with aliases: from the name through these, with the set at the last.
async fn aliases(names: Vec<Name>, held: VerifiedRecordSet) -> SocketAddr {
    resolver(move |query| {
        let mut reply = response(query);
        let mut owner = query.queries[0].name().clone();
        for target in &names {
            let data = RData::CNAME(CNAME(target.clone()));
            reply.add_answer(Record::from_rdata(owner.clone(), 60, data));
            owner = target.clone();
        }
        reply.add_answers(held.to_txt().iter().map(|text| named(query, &owner, text)));
        vec![reply.to_vec().unwrap()]
    })
    .await
}

#[tokio::test]
async fn aliases_are_followed_a_few_steps_and_in_no_circle() {
    let alice = identity(1);
    let held = set(&alice, utc(), 600);
    let own: Name = ni_of(&alice).fqdn().unwrap().parse().unwrap();
    let name = |n: usize| -> Name { format!("a{n}.x.org.").parse().unwrap() };
    let few = aliases((0..3).map(name).collect(), held.clone()).await;
    assert_eq!(ask(vec![few], &ni_of(&alice)).await.unwrap().as_ref(), Some(held.as_record_set()));
    let mut fqdn = own;
    fqdn.set_fqdn(true);
    for circle in [
        (0..20).map(name).collect::<Vec<_>>(),
        vec![fqdn.clone()],
        vec![name(1), fqdn.clone()],
        vec![name(1), name(2), name(1), name(2)],
    ] {
        let address = aliases(circle.clone(), held.clone()).await;
        let heard = ask(vec![address], &ni_of(&alice)).await;
        // A circle that comes back to the name itself has the records of that name, which is as good as none.
        let ends =
            matches!(&heard, Ok(None)) || matches!(&heard, Ok(Some(set)) if set == held.as_record_set());
        assert!(ends, "{circle:?}: {heard:?}");
    }
}

#[tokio::test]
async fn a_resolver_that_keeps_a_set_beyond_its_end_loses_to_the_directory() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let held = set(&alice, utc(), 600);
    zone.client().announce(&zone.authority(), &alice, &held).await.unwrap();
    let over = set(&alice, utc().minus_secs(100), 60);
    let stale = resolver(move |query| vec![texts_for(query, &over).to_vec().unwrap()]).await;
    let client = misled(&zone, stale);
    let refused = in_time(client.discover_via(&zone.ni(&alice), SourceName::Dns)).await;
    assert!(matches!(refused, Err(DiscoverError::Refused { from: SourceName::Dns, .. })), "{refused:?}");
    let found = in_time(client.discover(&zone.ni(&alice), Freshness::Valid)).await.unwrap();
    assert_eq!((found.set, found.verified_by), (held, SourceName::Https));
    zone.stop().await;
}

#[tokio::test]
async fn a_resolver_that_lags_behind_takes_nobody_back() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let (old, held) = (set(&alice, utc().minus_secs(100), 600), set(&alice, utc(), 600));
    zone.client().announce(&zone.authority(), &alice, &held).await.unwrap();
    let lagging = resolver(move |query| vec![texts_for(query, &old).to_vec().unwrap()]).await;
    let client = misled(&zone, lagging);
    in_time(client.discover_via(&zone.ni(&alice), SourceName::Https)).await.unwrap();
    let found = in_time(client.discover_via(&zone.ni(&alice), SourceName::Dns)).await.unwrap();
    assert_eq!((found.set, found.verified_by), (held.clone(), SourceName::Cache));
    let found = in_time(client.discover(&zone.ni(&alice), Freshness::Refetch)).await.unwrap();
    assert_eq!(found.set, held);
    zone.stop().await;
}

#[tokio::test]
async fn an_answer_of_any_size_or_of_noise_is_bounded() {
    let alice = identity(1);
    // As large as UDP carries, larger than was asked for.
    let huge = resolver(|query| {
        let mut reply = response(query);
        let owner = query.queries[0].name().clone();
        for n in 0..200 {
            reply.add_answer(named(query, &owner, &[n; 250]));
        }
        vec![reply.to_vec().unwrap()]
    })
    .await;
    // The header promises more than there is.
    let promising = resolver(|query| {
        let mut bytes = response(query).to_vec().unwrap();
        bytes[6..12].copy_from_slice(&[0xff; 6]);
        vec![bytes]
    })
    .await;
    // A name that points at itself.
    let pointing = resolver(|query| {
        let mut bytes = response(query).to_vec().unwrap();
        bytes.truncate(12);
        bytes.extend_from_slice(&[0xc0, 0x0c, 0, 16, 0, 1]);
        vec![bytes]
    })
    .await;
    for evil in [huge, promising, pointing] {
        let failed = ask(vec![evil], &ni_of(&alice)).await;
        assert!(matches!(failed, Err(LookupError::NoResolverAnswered { .. })), "{failed:?}");
    }
}

#[tokio::test]
async fn a_resolver_that_is_not_there_is_named() {
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let source = kith_directory::client::DnsSource::new(vec![gone], Span::millis(500));
    let failed = in_time(kith_directory::client::Source::lookup(&source, ni_of(&identity(1)))).await;
    assert!(matches!(failed, Err(LookupError::Socket { resolver, .. }) if resolver == gone), "{failed:?}");
}
