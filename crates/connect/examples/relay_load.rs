//! What is done to a relay to measure it; `bench/relay` runs it. The nodes of `NUMBER…` are always the same.
//!
//! ```text
//! relay_load names FIRST COUNT                     # their names, one a line
//! relay_load idle NI ADDRESS FIRST COUNT           # exposes so many at the relay, says so, and holds on
//! relay_load pass LISTEN PROXY SESSIONS SECONDS    # bytes through a proxy that passes on to LISTEN
//! relay_load carry NI ADDRESS FIRST SESSIONS SECONDS            # bytes over sessions of the relay
//! relay_load flood NI ADDRESS FIRST SESSIONS SECONDS STRANGERS AT  # the same, before and while strangers knock there
//! relay_load fail NI ADDRESS NI ADDRESS FIRST      # an echo over two relays, one of which is killed
//! ```
//!
//! What is measured is printed as one line of JSON.

#![expect(clippy::expect_used, reason = "a benchmark ends where something fails")]

use std::fmt;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kith_connect::relay::limits::REFUSED_AFTER;
use kith_connect::relay::message::{Pass, RELAY, length};
use kith_connect::relay::{Carriage, Message, Request};
use kith_connect::{Admission, ConnectError, Discovery, Endpoint, Found, Protocol, Stream};
use kith_identity::{Address, Fingerprint, Identity, Ni, Relay, Transport, tls};
use kith_sansio::system::{OsRng, time, utc};
use kith_sansio::{SeededRng, Time};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

mod peer;

use peer::{There, endpoint};

/// Sessions of one target, and of one initiator: fewer than a relay allows by itself.
const SESSIONS_EACH: usize = 50;
/// Which of the nodes is exposed and declines whoever comes.
const DECLINING: u64 = 30;
/// Handshakes at once: fewer than a node lets wait of one source.
const HANDS: usize = 16;
/// Bytes written or read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// What a token comes after.
const PREAMBLE: &[u8; 8] = b"kith-rl1";
const ECHO: Protocol = Protocol::new("bench-echo/1");

fn identity(number: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(1_000_000 + number))
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("a number")
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["names", first, count] => {
            for at in 0..number::<u64>(count) {
                println!("{}", Ni::new(identity(number::<u64>(first) + at).fingerprint(), None));
            }
        }
        ["idle", ni, at, first, count] => Spot::new(ni, at).idle(number(first), number(count)).await,
        ["pass", listen, proxy, sessions, seconds] => {
            let flow = Flow::through_proxy(listen, proxy, number(sessions)).await;
            println!("{}", flow.during(Duration::from_secs(number(seconds))).await);
        }
        ["carry", ni, at, first, sessions, seconds] => {
            let (flow, _kept) = Spot::new(ni, at).sessions(number(first), number(sessions)).await;
            println!("{}", flow.during(Duration::from_secs(number(seconds))).await);
        }
        ["flood", ni, at, first, sessions, seconds, strangers, door] => {
            let span = Duration::from_secs(number(seconds));
            let strangers = (number(strangers), Spot::new(ni, door));
            Spot::new(ni, at).flood(number(first), number(sessions), span, strangers).await;
        }
        ["fail", one, one_at, two, two_at, first] => {
            fail([Spot::new(one, one_at), Spot::new(two, two_at)], number(first)).await;
        }
        _ => {
            eprintln!("usage: relay_load names|idle|pass|carry|flood|fail …, as its source says");
            std::process::exit(2);
        }
    }
}

/// A relay, and where it is.
#[derive(Clone)]
struct Spot {
    ni: Ni,
    at: Address,
}

impl Spot {
    fn new(ni: &str, at: &str) -> Spot {
        Spot { ni: ni.parse().expect("a name"), at: at.parse().expect("an address") }
    }

    fn record(&self, preference: u16) -> Relay {
        Relay { preference, ni: self.ni.clone() }
    }

    /// Nodes that the relay makes reachable and that nobody reaches.
    async fn idle(&self, first: u64, count: u64) {
        let hands = Arc::new(Semaphore::new(HANDS));
        let mut starting = JoinSet::new();
        for at in 0..count {
            let (spot, hands) = (self.clone(), Arc::clone(&hands));
            starting.spawn(async move {
                let _turn = hands.acquire().await.expect("hands");
                let node =
                    endpoint(identity(first + at), &["quic://127.0.0.1:0"], There(vec![spot.at])).await;
                let mut exposing = node.expose(vec![spot.record(1)]);
                while exposing.named().is_empty() && exposing.changed().await {}
                (node, exposing)
            });
        }
        let held = starting.join_all().await;
        println!("exposed {}", held.len());
        std::future::pending::<()>().await;
    }

    /// A stream of `relay/1`.
    async fn stream(&self, node: &Endpoint) -> Stream {
        node.connect(&self.ni.fingerprint, &RELAY).await.expect("the relay lets it in")
    }

    /// The relay's TCP port for tokens, at the address by which it is reached.
    async fn bring(&self, pass: Pass) -> TcpStream {
        let at = SocketAddr::new(self.at.socket.ip(), pass.port);
        let mut stream = TcpStream::connect(at).await.expect("the relay takes tokens");
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(&[&PREAMBLE[..], pass.token.as_bytes()].concat()).await.expect("a token");
        assert_eq!(stream.read_u8().await.expect("both are there"), 1);
        stream
    }

    /// Opens sessions one after another, each with a target and an initiator of up to [`SESSIONS_EACH`]; what is
    /// handed back beside them keeps the targets exposed.
    async fn sessions(&self, first: u64, count: usize) -> (Flow, Vec<Endpoint>) {
        let (sender, mut arrived) = mpsc::unbounded_channel();
        let (mut flow, mut kept) = (Flow::new(), Vec::new());
        let mut opened = 0;
        while opened < count {
            let at = 2 * (opened / SESSIONS_EACH) as u64;
            let there = || There(vec![self.at]);
            let target = endpoint(identity(first + at), &["quic://127.0.0.1:0"], there()).await;
            let initiator = Arc::new(identity(first + at + 1));
            let dialling = endpoint(identity(first + at + 1), &["quic://127.0.0.1:0"], there()).await;
            let name = target.fingerprint();
            self.serve(&target, sender.clone()).await;
            for _ in 0..SESSIONS_EACH.min(count - opened) {
                let pass = self.ask(&dialling, &initiator, name).await.expect("the target admits");
                let (near, far) = tokio::join!(self.bring(pass), arrived.recv());
                flow.add(near, far.expect("the target comes"));
                opened += 1;
            }
            kept.extend([target, dialling]);
        }
        (flow, kept)
    }

    /// Has the relay make `target` reachable, and meets whoever comes.
    async fn serve(&self, target: &Endpoint, met: mpsc::UnboundedSender<TcpStream>) {
        let mut stream = self.stream(target).await;
        say(&mut stream, &Message::Expose).await;
        assert_eq!(hear(&mut stream).await, Some(Message::Exposed));
        let spot = self.clone();
        tokio::spawn(async move {
            while let Some(message) = hear(&mut stream).await {
                match message {
                    Message::Knock(id, _) => say(&mut stream, &Message::Admit(id)).await,
                    Message::Meet(_, pass) => {
                        let (spot, met) = (spot.clone(), met.clone());
                        tokio::spawn(async move { met.send(spot.bring(pass).await) });
                    }
                    _ => {}
                }
            }
        });
    }

    /// Asks for `target` over a stream of its own; `None` where it is refused.
    async fn ask(&self, node: &Endpoint, who: &Identity, target: Fingerprint) -> Option<Pass> {
        let mut stream = self.stream(node).await;
        let carriage = (Carriage::Stream, Vec::new());
        let request = Request::sign(who, self.ni.fingerprint, target, carriage, utc(), &mut OsRng);
        say(&mut stream, &Message::Request(Box::new(request))).await;
        loop {
            match hear(&mut stream).await? {
                Message::Ack(pass) => return Some(pass),
                Message::Refused => return None,
                _ => {}
            }
        }
    }

    /// Bytes over sessions: before strangers come, while they shake hands and knock, and while the last of them wait.
    async fn flood(&self, first: u64, sessions: usize, span: Duration, (strangers, door): (usize, Spot)) {
        let (flow, _kept) = self.sessions(first, sessions).await;
        let declining =
            endpoint(identity(first + DECLINING), &["quic://127.0.0.1:0"], There(vec![self.at])).await;
        let mut exposing = declining.expose(vec![self.record(1)]);
        while exposing.named().is_empty() && exposing.changed().await {}
        flow.warm().await;
        println!("carrying");
        let quiet = flow.during(span).await;
        let began = flow.mark();
        let hands = Arc::new(Semaphore::new(HANDS));
        let (came, mut coming) = mpsc::unbounded_channel();
        // To end so many nodes is work that no stranger of a relay does in one process.
        let (nodes, _ended_at_the_end) = mpsc::unbounded_channel();
        let mut knocking = JoinSet::new();
        for at in 0..strangers {
            let (spot, hands, came) = (door.clone(), Arc::clone(&hands), came.clone());
            let (target, nodes) = (declining.fingerprint(), nodes.clone());
            knocking.spawn(async move {
                let stranger = {
                    let _turn = hands.acquire().await.expect("hands");
                    match spot.at.transport {
                        Transport::Quic => Stranger::over_quic(&spot, at, &nodes).await,
                        _ => Some(Stranger::over_tcp(&spot, at).await),
                    }
                };
                came.send(stranger.is_none()).expect("they are counted");
                // At once: a relay gives a stranger three seconds to say what he wants.
                stranger?.knock(target).await
            });
        }
        let mut turned = 0;
        for _ in 0..strangers {
            turned += usize::from(coming.recv().await.expect("a stranger"));
        }
        let arriving = flow.since(&began);
        let began = flow.mark();
        tokio::time::sleep(REFUSED_AFTER.into()).await;
        let during = flow.since(&began);
        let waits = knocking.join_all().await;
        let refused = waits.iter().flatten().count();
        let (least, most) = (waits.iter().flatten().min(), waits.iter().flatten().max());
        let millis = |span: Option<&Duration>| span.map_or(0, Duration::as_millis);
        println!(
            "{{\"quiet\":{quiet},\"arriving\":{arriving},\"knocking\":{during},\"strangers\":{strangers},\
             \"turned\":{turned},\"refused\":{refused},\"least_ms\":{},\"most_ms\":{}}}",
            millis(least),
            millis(most)
        );
    }
}

/// Somebody whom nobody knows, with a stream to a relay.
struct Stranger {
    relay: Fingerprint,
    who: Identity,
    stream: Pin<Box<dyn Wire>>,
}

trait Wire: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Wire for T {}

impl Stranger {
    /// Shakes hands with the relay, from an address that four of them share, where a relay lets eight wait.
    async fn over_tcp(spot: &Spot, at: usize) -> Stranger {
        let who = Stranger::identity(at);
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Stranger::address(at), 0).into()).expect("an address");
        let stream = socket.connect(spot.at.socket).await.expect("the relay listens");
        let certificate = tls::Certificate::self_signed(&who).expect("a certificate");
        let config = tls::node_client(&certificate).expect("a configuration");
        let name = ServerName::try_from(tls::SERVER_NAME).expect("a name");
        let mut stream =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
        let protocol = RELAY;
        let hello = protocol.as_str().as_bytes();
        let length = u8::try_from(hello.len()).expect("a short name");
        stream.write_all(&[&[length], hello].concat()).await.expect("the relay reads");
        assert_eq!(stream.read_u8().await.expect("the relay answers"), 1);
        Stranger { relay: spot.ni.fingerprint, who, stream: Box::pin(stream) }
    }

    /// The same over QUIC; `None` where the relay has no room for more of them there.
    async fn over_quic(spot: &Spot, at: usize, nodes: &mpsc::UnboundedSender<Endpoint>) -> Option<Stranger> {
        let listen = format!("quic://{}:0", Stranger::address(at));
        let node = endpoint(Stranger::identity(at), &[&listen], There(vec![spot.at])).await;
        let stream = node.connect(&spot.ni.fingerprint, &RELAY).await;
        nodes.send(node).expect("they are kept");
        let stream = match stream {
            Err(ConnectError::Refused { .. }) => return None,
            stream => Box::pin(stream.expect("a stream")),
        };
        Some(Stranger { relay: spot.ni.fingerprint, who: Stranger::identity(at), stream })
    }

    fn identity(at: usize) -> Identity {
        identity(1 << 32 | at as u64)
    }

    fn address(at: usize) -> Ipv4Addr {
        let [_, _, third, fourth] = u32::try_from(at / 4 + 1).expect("not so many").to_be_bytes();
        Ipv4Addr::new(127, 2, third, fourth)
    }

    /// Asks for `target`, and says how long the relay took to refuse; `None` where it did anything else.
    async fn knock(mut self, target: Fingerprint) -> Option<Duration> {
        let carriage = (Carriage::Stream, Vec::new());
        let request = Request::sign(&self.who, self.relay, target, carriage, utc(), &mut OsRng);
        let asked = time();
        say(&mut self.stream, &Message::Request(Box::new(request))).await;
        loop {
            match hear(&mut self.stream).await? {
                Message::Observed(_) => {}
                Message::Refused => return Some((time() - asked).into()),
                _ => return None,
            }
        }
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), message: &Message) {
    stream.write_all(&message.to_frame()).await.expect("the relay listens");
    stream.flush().await.expect("the relay listens");
}

/// What the relay says next; `None` at the end.
async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Option<Message> {
    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; length(prefix).expect("a message")];
    stream.read_exact(&mut body).await.ok()?;
    Some(Message::from_cbor(&body).expect("a message"))
}

/// Bytes that run as fast as they can, over some sessions.
struct Flow {
    arrived: Vec<Arc<AtomicU64>>,
    start: watch::Sender<bool>,
}

/// What had arrived over each session, and when.
struct Mark(Vec<u64>, Time);

/// How much arrived in a time, and how evenly.
struct Carried {
    bytes: u64,
    micros: u64,
    jain: f64,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"bytes\":{},\"micros\":{},\"jain\":{:.4}}}", self.bytes, self.micros, self.jain)
    }
}

impl Flow {
    fn new() -> Flow {
        Flow { arrived: Vec::new(), start: watch::Sender::new(false) }
    }

    async fn through_proxy(listen: &str, proxy: &str, sessions: usize) -> Flow {
        let listener = TcpListener::bind(listen).await.expect("an address");
        let mut flow = Flow::new();
        for _ in 0..sessions {
            let (near, far) = tokio::join!(TcpStream::connect(proxy), listener.accept());
            flow.add(near.expect("the proxy listens"), far.expect("the proxy passes on").0);
        }
        flow
    }

    /// From here on bytes run from `near` to `far`, once all do.
    fn add(&mut self, mut near: TcpStream, mut far: TcpStream) {
        let arrived = Arc::new(AtomicU64::new(0));
        self.arrived.push(Arc::clone(&arrived));
        let mut start = self.start.subscribe();
        tokio::spawn(async move {
            let chunk = vec![7; CHUNK_BYTES];
            if start.wait_for(|start| *start).await.is_ok() {
                while near.write_all(&chunk).await.is_ok() {}
            }
        });
        tokio::spawn(async move {
            let mut chunk = vec![0; CHUNK_BYTES];
            while let Ok(bytes @ 1..) = far.read(&mut chunk).await {
                arrived.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        });
    }

    /// Lets them run, and waits until they do.
    async fn warm(&self) {
        self.start.send_replace(true);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    async fn during(&self, span: Duration) -> Carried {
        if !*self.start.borrow() {
            self.warm().await;
        }
        let began = self.mark();
        tokio::time::sleep(span).await;
        self.since(&began)
    }

    fn mark(&self) -> Mark {
        Mark(self.arrived.iter().map(|one| one.load(Ordering::Relaxed)).collect(), time())
    }

    fn since(&self, Mark(before, began): &Mark) -> Carried {
        let Mark(after, ended) = self.mark();
        let each: Vec<f64> =
            after.iter().zip(before).map(|(after, before)| (after - before) as f64).collect();
        let (sum, squares) = (each.iter().sum::<f64>(), each.iter().map(|one| one * one).sum::<f64>());
        let bytes = after.iter().sum::<u64>() - before.iter().sum::<u64>();
        Carried { bytes, micros: (ended - *began).0, jain: sum * sum / (each.len() as f64 * squares) }
    }
}

/// Knows two relays, and who is exposed at them.
struct Both {
    relays: [Spot; 2],
    target: Fingerprint,
}

impl Discovery for Both {
    fn candidates<'a>(
        &'a self,
        whom: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if whom == self.target {
                found.relays([self.relays[0].record(1), self.relays[1].record(2)]).await;
            }
            for relay in self.relays.iter().filter(|relay| relay.ni.fingerprint == whom) {
                found.hints([relay.at]).await;
            }
        })
    }
}

/// Says which relay carries an echo, and when that is killed how long the echo was away.
async fn fail(relays: [Spot; 2], first: u64) {
    let name = identity(first).fingerprint();
    let both = || Both { relays: relays.clone(), target: name };
    let listen = ["tcp://127.0.0.1:0", "quic://127.0.0.1:0"];
    let target = endpoint(identity(first), &listen, both()).await;
    let mut incoming = target.listen(ECHO, Admission::Contacts).expect("nobody else listens");
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let mut exposing = target.expose(vec![relays[0].record(1), relays[1].record(2)]);
    while exposing.named().len() < 2 && exposing.changed().await {}
    let initiator = endpoint(identity(first + 1), &listen, both()).await;
    let (mut last, mut over) = (time(), None);
    loop {
        let Ok(mut stream) = initiator.connect(&name, &ECHO).await else { continue };
        let relay = stream.path().relay.expect("no way but over a relay");
        while echoed(&mut stream).await {
            let (now, before) = (time(), std::mem::replace(&mut last, time()));
            match over.replace(relay) {
                None => println!("over {}", Ni::new(relay, None)),
                Some(old) if old != relay => {
                    return println!("{{\"gap_ms\":{:.1}}}", (now - before).0 as f64 / 1e3);
                }
                Some(_) => {}
            }
        }
    }
}

async fn echoed(stream: &mut Stream) -> bool {
    let there = async {
        stream.write_all(&[7; 64]).await?;
        stream.flush().await?;
        stream.read_exact(&mut [0; 64]).await
    };
    let is_back = there.await.is_ok();
    tokio::time::sleep(Duration::from_millis(2)).await;
    is_back
}
