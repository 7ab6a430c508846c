//! Subscribers of a delegator, many in one process; `bench/delegator` runs it.
//!
//! ```text
//! subscribers names FIRST COUNT                # names of nodes, one a line; always the same
//! subscribers follow NI ADDRESS CONTROL COUNT HUBS ROUNDS
//! ```
//!
//! `follow` connects the first COUNT nodes as subscribers, waits until each has HUBS entries in force, and says so. Then,
//! once for each round, it has the member `hub-N` revoked over the delegator's control socket, waits until no subscriber
//! has it in force any more, prints how long that took each of them from the wish on, and has it admitted again.
//!
//! Each subscriber has a key, a QUIC connection and the machine of its own; only the sockets are shared, because one
//! process may not have ten thousand.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark ends where something fails")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kith_connect::delegator::message::{LENGTH_BYTES, length};
use kith_connect::delegator::{Message, PROTOCOL, Subscriber, SubscriberInput, SubscriberOutput};
use kith_identity::{Address, Fingerprint, Identity, Ni, tls};
use kith_sansio::system::{self, OsRng};
use kith_sansio::{Machine, SeededRng, Time};
use noq::crypto::rustls::QuicClientConfig;
use noq::{ClientConfig, EndpointConfig, TransportConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// Sockets that all share.
const SOCKETS: usize = 256;
/// Bytes that a socket asks the kernel to keep for it.
const SOCKET_BYTES: usize = 8 << 20;
/// Handshakes at once, below what a node allows one address.
const HANDSHAKES: usize = 16;
/// Nothing here may take longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seeds of the hubs' keys begin here.
const FIRST_HUB: u64 = 1 << 32;

fn identity(number: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(number))
}

/// Who is revoked now.
type Gone = Option<Fingerprint>;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["names", first, count] => {
            let first = if first == "hubs" { FIRST_HUB } else { number(first) };
            for seed in first..first + number(count) {
                println!("{}", Ni::new(identity(seed).fingerprint(), None));
            }
        }
        ["follow", ni, at, control, count, hubs, rounds] => {
            let node = ni.parse::<Ni>().expect("a name").fingerprint;
            let at: Address = at.parse().expect("an address");
            let crowd = Crowd { node, at: at.socket, hubs: number(hubs) as usize };
            follow(&crowd, Path::new(control), number(count), number(rounds)).await;
        }
        _ => {
            eprintln!(
                "usage: subscribers names FIRST|hubs COUNT | follow NI ADDRESS CONTROL COUNT HUBS ROUNDS"
            );
            std::process::exit(2);
        }
    }
}

/// Whom to follow.
#[derive(Clone)]
struct Crowd {
    node: Fingerprint,
    at: SocketAddr,
    hubs: usize,
}

async fn follow(crowd: &Crowd, control: &Path, count: u64, rounds: u64) {
    let sockets: Vec<_> = (0..SOCKETS).map(|_| socket()).collect();
    let (round, _) = watch::channel::<Gone>(None);
    let (told, mut heard) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    for seed in 0..count {
        let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
        let endpoint = sockets[seed as usize % SOCKETS].clone();
        let (crowd, round, told) = (crowd.clone(), round.subscribe(), told.clone());
        tasks.spawn(async move { subscribe(&crowd, &endpoint, seed, place, round, told).await });
    }
    for _ in 0..count {
        next(&mut heard).await;
    }
    println!("ready {count}");
    for number in 0..rounds {
        let hub = identity(FIRST_HUB + number).fingerprint();
        let wish = system::time();
        round.send_replace(Some(hub));
        call(control, "DELETE", &format!("/v1/delegator/members/hub-{number}"), "").await;
        let done = system::time();
        let mut times = Vec::new();
        for _ in 0..count {
            let at: Time = next(&mut heard).await;
            times.push((at - wish).0 as f64 / 1e6);
        }
        times.sort_by(f64::total_cmp);
        let at = |permille: usize| times[(times.len() * permille).div_ceil(1000) - 1];
        println!(
            "{{\"acknowledged\":{:.4},\"median\":{:.4},\"p99\":{:.4},\"max\":{:.4}}}",
            (done - wish).0 as f64 / 1e6,
            at(500),
            at(990),
            at(1000)
        );
        round.send_replace(None);
        let ni = Ni::new(hub, None);
        let back = format!("{{\"add\":[{{\"who\":\"{ni}\",\"as\":\"hub-{number}\"}}]}}");
        call(control, "PATCH", "/v1/delegator/groups/hubs", &back).await;
        for _ in 0..count {
            next(&mut heard).await;
        }
    }
}

async fn next(heard: &mut mpsc::UnboundedReceiver<Time>) -> Time {
    tokio::time::timeout(PATIENCE, heard.recv()).await.expect("a subscriber in time").expect("subscribers")
}

fn socket() -> noq::Endpoint {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(SOCKET_BYTES).expect("a buffer");
    let runtime = Arc::new(noq::TokioRuntime);
    noq::Endpoint::new(EndpointConfig::default(), None, socket, runtime).expect("an endpoint")
}

/// One subscriber; tells when its list is whole, and when the one who is revoked is off it.
async fn subscribe(
    crowd: &Crowd,
    endpoint: &noq::Endpoint,
    seed: u64,
    place: tokio::sync::OwnedSemaphorePermit,
    mut round: watch::Receiver<Gone>,
    told: mpsc::UnboundedSender<Time>,
) {
    let identity = identity(seed);
    let connection = connect(crowd, endpoint, &identity).await;
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    let protocol = PROTOCOL;
    let name = protocol.as_str();
    let mut hello = vec![u8::try_from(name.len()).expect("a short name")];
    hello.extend_from_slice(name.as_bytes());
    send.write_all(&hello).await.expect("the delegator reads");
    assert_eq!(receive.read_u8().await.expect("an answer"), 1, "the delegator admits its members");
    drop(place);
    let mut machine = Subscriber::new(identity.fingerprint(), system::now());
    machine.handle_input(system::now(), SubscriberInput::Connected, &mut OsRng);
    // Whether what it waits for has been told: first the whole list, then each revocation and its end.
    let mut waits = true;
    loop {
        while let Some(output) = machine.poll_output() {
            match output {
                SubscriberOutput::Send(message) => {
                    send.write_all(&message.to_bytes()).await.expect("the delegator reads");
                }
                SubscriberOutput::Disconnect(fault) => panic!("the delegator is wrong: {fault}"),
                SubscriberOutput::Changed | SubscriberOutput::Connect => {}
            }
        }
        let now = system::now();
        let gone = *round.borrow();
        let is_there = match gone {
            Some(hub) => machine.find(&hub, now).is_none(),
            None => machine.entries(now).count() == crowd.hubs,
        };
        if waits && is_there {
            waits = false;
            told.send(now.time).expect("the benchmark waits");
        }
        tokio::select! {
            message = read(&mut receive) => {
                machine.handle_input(system::now(), SubscriberInput::Received(message), &mut OsRng);
            }
            changed = round.changed() => {
                if changed.is_err() {
                    return;
                }
                waits = true;
            }
        }
    }
}

async fn connect(crowd: &Crowd, endpoint: &noq::Endpoint, identity: &Identity) -> noq::Connection {
    let certificate = tls::Certificate::self_signed(identity).expect("a certificate");
    let crypto = tls::node_client(&certificate).expect("a configuration");
    let crypto = QuicClientConfig::try_from(crypto).expect("a configuration");
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(10)));
    config.transport_config(Arc::new(transport));
    let connecting = endpoint.connect_with(config, crowd.at, tls::SERVER_NAME).expect("a connection");
    let connection = connecting.await.expect("the delegator answers");
    let shown = connection.peer_identity().expect("a certificate");
    let shown = shown.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().expect("a certificate");
    let key = tls::peer_key(Some(&shown)).expect("a key").expect("a key");
    assert_eq!(key.fingerprint(), crowd.node, "this is the delegator");
    connection
}

/// The next message. What is read of it is lost where this is given up, which happens between messages only.
async fn read(stream: &mut noq::RecvStream) -> Message {
    let mut head = [0; LENGTH_BYTES];
    stream.read_exact(&mut head).await.expect("the delegator stays");
    let mut bytes = vec![0; length(head).expect("a length")];
    stream.read_exact(&mut bytes).await.expect("the delegator stays");
    Message::from_cbor(&bytes).expect("a message")
}

/// One call over the control socket.
async fn call(control: &Path, method: &str, path: &str, body: &str) {
    let mut stream = UnixStream::connect(control).await.expect("the node's socket");
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: kith\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the node answers");
    assert!(answer.split(' ').nth(1) == Some("200"), "{method} {path}: {answer}");
}
