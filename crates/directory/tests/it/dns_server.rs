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
