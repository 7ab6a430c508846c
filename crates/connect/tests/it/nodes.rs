//! Nodes for tests: an endpoint on loopback, a trust that can be edited, a discovery that can be lied to.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kith_connect::relay::serving::Regard;
use kith_connect::{
    Admission, ChangeSignal, Changes, Config, Discovery, Endpoint, Found, Incoming, Protocol, Stream, Trust,
};
use kith_identity::{Address, Fingerprint, Identity, Relay, Transport};
use kith_sansio::Span;
use kith_sansio::system::{OsRng, instant, time};

pub(crate) const ECHO: Protocol = Protocol::new("test-echo/1");
/// Long enough for any machine; nothing waits for it to pass.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Book {
    trusted: Mutex<HashSet<Fingerprint>>,
    /// Peers that this node may reach, and that may not reach it.
    reached: Mutex<HashSet<Fingerprint>>,
    /// Peers that hold a certificate of this node's network.
    members: Mutex<HashSet<Fingerprint>>,
    /// Peers for which a relay with this book does nothing.
    barred: Mutex<HashSet<Fingerprint>>,
    pub(crate) knocks: Mutex<Vec<Fingerprint>>,
    /// How often it was asked.
    pub(crate) asked: AtomicUsize,
    signal: ChangeSignal,
}

impl Book {
    pub(crate) fn add(&self, node: &Node) {
        self.trust(node.fingerprint());
    }

    pub(crate) fn trust(&self, peer: Fingerprint) {
        self.trusted.lock().unwrap().insert(peer);
        self.signal.raise();
    }

    pub(crate) fn reach(&self, node: &Node) {
        self.reached.lock().unwrap().insert(node.fingerprint());
        self.signal.raise();
    }

    pub(crate) fn enrol(&self, node: &Node) {
        self.enrol_peer(node.fingerprint());
    }

    pub(crate) fn enrol_peer(&self, peer: Fingerprint) {
        self.members.lock().unwrap().insert(peer);
        self.signal.raise();
    }

    pub(crate) fn expel(&self, node: &Node) {
        self.members.lock().unwrap().remove(&node.fingerprint());
        self.signal.raise();
    }

    pub(crate) fn remove(&self, node: &Node) {
        self.remove_peer(&node.fingerprint());
    }

    pub(crate) fn remove_peer(&self, peer: &Fingerprint) {
        self.trusted.lock().unwrap().remove(peer);
        self.reached.lock().unwrap().remove(peer);
        self.signal.raise();
    }

    pub(crate) fn bar(&self, node: &Node) {
        self.barred.lock().unwrap().insert(node.fingerprint());
        self.signal.raise();
    }

    pub(crate) fn has(&self, peer: &Fingerprint) -> bool {
        self.trusted.lock().unwrap().contains(peer)
    }

    pub(crate) fn knocks(&self) -> Vec<Fingerprint> {
        self.knocks.lock().unwrap().clone()
    }
}

/// What a relay with this book does for `peer`.
pub(crate) fn regard(book: &Book, peer: &Fingerprint) -> Regard {
    match book.barred.lock().unwrap().contains(peer) {
        true => Regard::Barred,
        false if book.has(peer) => Regard::Known,
        false => Regard::Stranger,
    }
}

impl Trust for Book {
    fn trusts(&self, peer: &Fingerprint, _: &Protocol) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.trusted.lock().unwrap().contains(peer)
    }
    fn reaches(&self, peer: &Fingerprint, protocol: &Protocol) -> bool {
        self.trusts(peer, protocol) || self.reached.lock().unwrap().contains(peer)
    }
    fn is_member(&self, peer: &Fingerprint) -> bool {
        self.members.lock().unwrap().contains(peer)
    }
    fn knocked(&self, peer: &Fingerprint, from: SocketAddr) {
        assert!(from.ip().is_loopback());
        self.knocks.lock().unwrap().push(*peer);
    }
    fn changed(&self) -> Changes {
        self.signal.changes()
    }
}

#[derive(Default)]
pub(crate) struct Map(Mutex<HashMap<Fingerprint, Whereabouts>>, Mutex<Option<Asked>>);

/// What happens when somebody is looked for, before anything is found.
type Asked = Box<dyn Fn() + Send>;

#[derive(Clone, Default)]
struct Whereabouts {
    addresses: Vec<Address>,
    relays: Vec<Relay>,
}

impl Discovery for Map {
    fn candidates<'a>(
        &'a self,
        target: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        if let Some(asked) = &*self.1.lock().unwrap() {
            asked();
        }
        let known = self.0.lock().unwrap().get(&target).cloned();
        Box::pin(async move {
            match known {
                Some(known) => {
                    found.hints(known.addresses).await;
                    found.relays(known.relays).await;
                }
                None => found.failed("nobody told me"),
            }
        })
    }
}

pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) identity: Arc<Identity>,
    pub(crate) book: Arc<Book>,
    map: Arc<Map>,
}

/// Short limits, so that slow peers are soon done with.
pub(crate) fn impatient() -> Config {
    Config { handshake_timeout: Span::millis(500), ..on_loopback() }
}

pub(crate) fn on_loopback() -> Config {
    let listen = ["tcp://127.0.0.1:0", "quic://127.0.0.1:0"].map(|one| one.parse().unwrap());
    Config { listen: listen.to_vec(), ..Config::default() }
}

impl Node {
    pub(crate) async fn new() -> Node {
        Node::with(on_loopback()).await
    }

    pub(crate) async fn with(config: Config) -> Node {
        Node::reborn(Arc::new(Identity::generate(&mut OsRng)), config).await
    }

    pub(crate) async fn reborn(identity: Arc<Identity>, config: Config) -> Node {
        let (book, map) = (Arc::new(Book::default()), Arc::new(Map::default()));
        let (trust, discovery) =
            (Arc::clone(&book) as Arc<dyn Trust>, Arc::clone(&map) as Arc<dyn Discovery>);
        let endpoint = Endpoint::bind(Arc::clone(&identity), trust, discovery, config).await.unwrap();
        Node { endpoint, identity, book, map }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.endpoint.fingerprint()
    }

    pub(crate) fn at(&self, transport: Transport) -> SocketAddr {
        let all = self.endpoint.local_addresses();
        all.iter().find(|one| one.transport == transport).unwrap().socket
    }

    /// Makes this node believe that `whom` is at `addresses`.
    pub(crate) fn believe(&self, whom: &Fingerprint, addresses: Vec<Address>) {
        self.map.0.lock().unwrap().entry(*whom).or_default().addresses = addresses;
    }

    /// Makes this node believe that `whom` is exposed at `relays`.
    pub(crate) fn believe_relays(&self, whom: &Fingerprint, relays: Vec<Relay>) {
        self.map.0.lock().unwrap().entry(*whom).or_default().relays = relays;
    }

    /// Calls `asked` whenever this node looks for somebody.
    pub(crate) fn when_looking(&self, asked: impl Fn() + Send + 'static) {
        *self.map.1.lock().unwrap() = Some(Box::new(asked));
    }

    pub(crate) fn meet(&self, other: &Node) {
        self.believe(&other.fingerprint(), other.endpoint.local_addresses());
    }

    pub(crate) fn echo(&self, admission: Admission) {
        echo(self.endpoint.listen(ECHO, admission).unwrap());
    }
}

/// Two nodes that trust and know each other; the second one echoes.
pub(crate) async fn friends() -> (Node, Node) {
    friends_with(on_loopback()).await
}

/// As [`friends`], the first one with settings of its own.
pub(crate) async fn friends_with(config: Config) -> (Node, Node) {
    befriend(Node::with(config).await, Node::new().await)
}

/// Lets two nodes trust and know each other; the second one echoes.
pub(crate) fn befriend(one: Node, two: Node) -> (Node, Node) {
    one.book.add(&two);
    two.book.add(&one);
    one.meet(&two);
    two.meet(&one);
    two.echo(Admission::Contacts);
    (one, two)
}

fn echo(mut incoming: Incoming) {
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
            });
        }
    });
}

/// Sends `bytes` and expects them back.
pub(crate) async fn echoes(stream: Stream, bytes: &[u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        write.write_all(bytes).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let receiving = async {
        let mut back = Vec::new();
        read.read_to_end(&mut back).await.unwrap();
        back
    };
    let ((), back) = soon(async { tokio::join!(sending, receiving) }).await;
    assert!(back == bytes, "{} of {} bytes came back", back.len(), bytes.len());
}

/// The result of `work`, which must not hang.
pub(crate) async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(DEADLINE, work).await.expect("an end within the deadline")
}

/// What was seen on a wire.
pub(crate) type Tape = Arc<Mutex<Vec<u8>>>;

/// A UDP proxy in front of `to` for one client.
pub(crate) async fn udp_proxy(to: SocketAddr) -> (tokio::task::JoinHandle<()>, SocketAddr) {
    let (_, task, at) = udp_wiretap(to).await;
    (task, at)
}

/// A UDP proxy in front of `to` for one client, which records both directions.
pub(crate) async fn udp_wiretap(to: SocketAddr) -> (Tape, tokio::task::JoinHandle<()>, SocketAddr) {
    let near = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(to).await.unwrap();
    let (tape, at) = (Tape::default(), near.local_addr().unwrap());
    let recording = Arc::clone(&tape);
    let task = tokio::spawn(async move {
        let (mut there, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((n, from)) = near.recv_from(&mut there) => {
                    client = Some(from);
                    recording.lock().unwrap().extend_from_slice(&there[..n]);
                    let _ = far.send(&there[..n]).await;
                }
                Ok(n) = far.recv(&mut back) => {
                    recording.lock().unwrap().extend_from_slice(&back[..n]);
                    if let Some(client) = client {
                        let _ = near.send_to(&back[..n], client).await;
                    }
                }
            }
        }
    });
    (tape, task, at)
}

/// A UDP proxy in front of `target` for one client. What comes back from when the target first asks about trust is kept
/// for a second, and then handed over all at once.
pub(crate) async fn hesitant_udp_proxy(target: &Node) -> SocketAddr {
    let (to, book) = (target.at(Transport::Quic), Arc::clone(&target.book));
    let near = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(to).await.unwrap();
    let at = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut there, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let (mut client, mut kept, mut until) = (None, Vec::new(), None);
        loop {
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(instant(until).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok((n, from)) = near.recv_from(&mut there) => {
                    client = Some(from);
                    let _ = far.send(&there[..n]).await;
                }
                Ok(n) = far.recv(&mut back) => {
                    if until.is_none() && book.asked.load(Ordering::SeqCst) > 0 {
                        until = Some(time() + Span::secs(1));
                    }
                    kept.push(back[..n].to_vec());
                }
                () = over, if !kept.is_empty() => {}
            }
            if until.is_some_and(|until| until > time()) {
                continue;
            }
            for datagram in kept.drain(..) {
                let _ = near.send_to(&datagram, client.unwrap()).await;
            }
        }
    });
    at
}
