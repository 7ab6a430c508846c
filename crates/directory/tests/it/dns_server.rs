//! The zone over real sockets: UDP and TCP, truncation, garbage, slow clients.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use kith_directory::limiter::Rate;
use kith_sansio::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::dns_answers::{query, with_edns};
use crate::world::{Zone, ask_over, identity, in_time, set, set_with_blobs, utc};

#[tokio::test]
async fn an_announced_set_is_in_the_dns_over_udp_and_tcp() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let name = zone.ni(&alice).fqdn().unwrap();
    let bytes = query(&name, RecordType::TXT).to_vec().unwrap();
    let nothing = Message::from_vec(&zone.ask_udp(&bytes).await).unwrap();
    assert_eq!(nothing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(zone.put(&alice, &set(&alice, utc(), 60)).await.status, 201);
    for reply in [zone.ask_udp(&bytes).await, zone.ask_tcp(&bytes).await] {
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!(reply.answers.len(), 6);
    }
    assert_eq!(zone.handle.counts().dns_queries, 3);
    zone.stop().await;
}

#[tokio::test]
async fn a_long_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    assert_eq!(zone.put(&alice, &set_with_blobs(&alice, utc(), &[2000])).await.status, 201);
    let name = zone.ni(&alice).fqdn().unwrap();
    let bytes = with_edns(query(&name, RecordType::TXT), 4096).to_vec().unwrap();
    let cut = Message::from_vec(&zone.ask_udp(&bytes).await).unwrap();
    assert!(cut.metadata.truncation);
    let whole = Message::from_vec(&zone.ask_tcp(&bytes).await).unwrap();
    assert!(!whole.metadata.truncation && whole.answers.len() == 6);
    zone.stop().await;
}

#[tokio::test]
async fn garbage_disturbs_nobody() {
    let zone = Zone::start(|_| {}).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 11, 12, 13, 100, 2047, 2048, 9000] {
        let packet: Vec<u8> = (0..length).map(|n| (n * 7 + length) as u8 | 0x80).collect();
        socket.send_to(&packet, zone.dns).await.unwrap();
    }
    let bytes = query("0a.localhost", RecordType::SOA).to_vec().unwrap();
    let mut broken = bytes.clone();
    broken.truncate(20);
    let reply = zone.ask_udp(&broken).await;
    assert_eq!((reply.len(), reply[3] & 15), (12, 1), "FORMERR");
    assert_eq!(zone.ask_udp(&bytes).await[3] & 15, 0);
    // Over TCP: an answer to an answer would never end, so the connection does.
    let mut stream = TcpStream::connect(zone.dns).await.unwrap();
    let mut response = bytes.clone();
    response[2] |= 0x80;
    stream.write_u16(response.len() as u16).await.unwrap();
    stream.write_all(&response).await.unwrap();
    assert_eq!(in_time(stream.read(&mut [0])).await.unwrap(), 0);
    zone.stop().await;
}

#[tokio::test]
async fn several_queries_share_one_tcp_connection() {
    let zone = Zone::start(|_| {}).await;
    let bytes = query("0a.localhost", RecordType::SOA).to_vec().unwrap();
    let mut stream = TcpStream::connect(zone.dns).await.unwrap();
    for _ in 0..20 {
        assert_eq!(ask_over(&mut stream, &bytes).await[..2], bytes[..2]);
    }
    zone.stop().await;
}

#[tokio::test]
async fn a_slow_tcp_client_is_cut_off_and_holds_up_nobody() {
    let zone = Zone::start(|config| {
        config.connections.idle = Span::secs(1);
        config.connections.most_per_network = 3;
    })
    .await;
    let mut slow = TcpStream::connect(zone.dns).await.unwrap();
    slow.write_all(&[0, 50, 1, 2, 3]).await.unwrap();
    let silent = TcpStream::connect(zone.dns).await.unwrap();
    let bytes = query("0a.localhost", RecordType::SOA).to_vec().unwrap();
    assert!(!zone.ask_tcp(&bytes).await.is_empty());
    assert_eq!(in_time(slow.read(&mut [0])).await.unwrap(), 0, "closed");
    drop(silent);
    zone.stop().await;
}

#[tokio::test]
async fn a_flood_in_somebodys_name_is_not_made_larger_and_tcp_stays_open() {
    let zone = Zone::start(|config| config.dns_rate = Rate { burst: 5, refill: Span::secs(2000) }).await;
    let alice = identity(1);
    assert_eq!(zone.put(&alice, &set_with_blobs(&alice, utc(), &[600])).await.status, 201);
    let name = zone.ni(&alice).fqdn().unwrap();
    let bytes = with_edns(query(&name, RecordType::TXT), 1232).to_vec().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut whole, mut cut) = (0, 0);
    for _ in 0..40 {
        socket.send_to(&bytes, zone.dns).await.unwrap();
    }
    // Over TCP, which proves the source, the answers go on; and when it comes, all of UDP was seen to.
    let reply = Message::from_vec(&zone.ask_tcp(&bytes).await).unwrap();
    assert!(!reply.metadata.truncation && reply.answers.len() == 6);
    let mut packet = [0; 2048];
    while whole + cut < 5 + 15 {
        let length = in_time(socket.recv(&mut packet)).await.unwrap();
        let reply = Message::from_vec(&packet[..length]).unwrap();
        match reply.metadata.truncation {
            true => {
                assert!(length <= bytes.len() && reply.answers.is_empty(), "{length}");
                cut += 1;
            }
            false => whole += 1,
        }
    }
    assert_eq!(whole, 5);
    zone.stop().await;
}

#[tokio::test]
async fn queries_that_come_together_over_tcp_are_all_answered() {
    let zone = Zone::start(|_| {}).await;
    let bytes = query("0a.localhost", RecordType::SOA).to_vec().unwrap();
    let stream = TcpStream::connect(zone.dns).await.unwrap();
    let mut sent = Vec::new();
    for id in 0..500_u16 {
        sent.extend((bytes.len() as u16).to_be_bytes());
        sent.extend(id.to_be_bytes());
        sent.extend(&bytes[2..]);
    }
    // The last one comes in two parts, when the others were answered.
    let (most, rest) = sent.split_at(sent.len() - 5);
    let (mut reader, mut writer) = stream.into_split();
    let most = most.to_vec();
    let writing = tokio::spawn(async move {
        writer.write_all(&most).await.unwrap();
        writer
    });
    let mut ids = Vec::new();
    let mut writing = Some(writing);
    while ids.len() < 500 {
        if ids.len() == 499 {
            let mut writer = in_time(writing.take().unwrap()).await.unwrap();
            writer.write_all(rest).await.unwrap();
            writer.forget();
        }
        let mut answer = vec![0; in_time(reader.read_u16()).await.unwrap().into()];
        in_time(reader.read_exact(&mut answer)).await.unwrap();
        ids.push(u16::from_be_bytes([answer[0], answer[1]]));
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..500).collect::<Vec<_>>());
    zone.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_answer_comes_from_the_address_that_was_asked() {
    let zone = Zone::start(|config| {
        config.listen_dns = vec!["0.0.0.0:0".parse().unwrap()];
        config.dns_sockets = Some(3);
    })
    .await;
    let bytes = query("0a.localhost", RecordType::SOA).to_vec().unwrap();
    for _ in 0..8 {
        // A socket that is connected hears nobody else.
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(("127.0.0.2", zone.dns.port())).await.unwrap();
        socket.send(&bytes).await.unwrap();
        let mut packet = [0; 512];
        let length = in_time(socket.recv(&mut packet)).await.unwrap();
        assert!(length > 12);
    }
    zone.stop().await;
}

#[tokio::test]
async fn the_rate_of_answers_can_be_switched_off() {
    let zone = Zone::start(|config| config.dns_rate = Rate::UNLIMITED).await;
    let bytes = query("0a.localhost", RecordType::SOA).to_vec().unwrap();
    for _ in 0..1000 {
        assert_eq!(zone.ask_udp(&bytes).await[2] & 2, 0, "not truncated");
    }
    zone.stop().await;
}

#[tokio::test]
async fn metrics_count_what_was_asked_and_answered() {
    let zone = Zone::start(|config| {
        config.metrics = Some("127.0.0.1:0".parse().unwrap());
        config.dns_rate = Rate { burst: 2, refill: Span::secs(2000) };
    })
    .await;
    let alice = identity(1);
    let now = utc();
    assert_eq!(zone.put(&alice, &set(&alice, now, 60)).await.status, 201);
    assert_eq!(zone.put(&alice, &set(&alice, now, 60)).await.status, 204);
    assert_eq!(zone.put(&alice, &set(&alice, now.minus_secs(1), 60)).await.status, 409);
    let name = zone.ni(&alice).fqdn().unwrap();
    let bytes = query(&name, RecordType::TXT).to_vec().unwrap();
    let nobody = query(&zone.ni(&identity(2)).fqdn().unwrap(), RecordType::TXT).to_vec().unwrap();
    for query in [&bytes, &nobody, &bytes] {
        zone.ask_udp(query).await;
    }
    zone.ask_tcp(&bytes).await;
    let page = scrape(zone.metrics.unwrap(), "GET /metrics HTTP/1.1").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("application/openmetrics-text"), "{page}");
    for line in [
        "kith_directory_announces_total{outcome=\"created\"} 1",
        "kith_directory_announces_total{outcome=\"repeated\"} 1",
        "kith_directory_announces_total{outcome=\"not_newer\"} 1",
        "kith_directory_dns_queries_total{transport=\"udp\",rcode=\"NOERROR\"} 1",
        "kith_directory_dns_queries_total{transport=\"udp\",rcode=\"NXDOMAIN\"} 1",
        "kith_directory_dns_queries_total{transport=\"tcp\",rcode=\"NOERROR\"} 1",
        "kith_directory_dns_limited_total{action=\"truncated\"} 1",
        "kith_directory_dns_limited_total{action=\"dropped\"} 0",
        "kith_directory_dns_ignored_total{transport=\"udp\"} 0",
        "kith_directory_connections{endpoint=\"https\"} ",
        "kith_directory_store_seconds_count{operation=\"announce\"} 3",
        "kith_directory_sets 1",
        "# EOF",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    let counts = zone.handle.counts();
    assert_eq!((counts.announces_taken, counts.announces_refused, counts.dns_queries), (2, 1, 3));
    assert!(scrape(zone.metrics.unwrap(), "GET / HTTP/1.1").await.starts_with("HTTP/1.1 404"));
    assert!(scrape(zone.metrics.unwrap(), "POST /metrics HTTP/1.1").await.starts_with("HTTP/1.1 405"));
    zone.stop().await;
}

pub(crate) async fn scrape(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    in_time(stream.read_to_string(&mut page)).await.unwrap();
    page
}
