//! Relayed connections that move to a direct path, and those that do not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kith_connect::direct::message::{DIRECT, LENGTH_BYTES, length};
use kith_connect::direct::{Candidates, Probe};
use kith_connect::relay::{Quota, Token};
use kith_connect::{Admission, Config, Exposing, Incoming, PathInfo, Stream, Via};
use kith_identity::{Address, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use crate::nodes::{ECHO, Node, echoes, on_loopback, soon};
use crate::relayed::{Relayer, expose};

/// A relay, a target that is exposed there, and an initiator who knows of no other way to it.
struct Scene {
    relay: Relayer,
    initiator: Node,
    target: Node,
    _exposing: Exposing,
}

fn listening(at: &[&str]) -> Config {
    let listen = at.iter().flat_map(|ip| [format!("tcp://{ip}:0"), format!("quic://{ip}:0")]);
    Config { listen: listen.map(|one| one.parse().unwrap()).collect(), ..Config::default() }
}

async fn scene(initiator: Config, target: Config) -> Scene {
    let relay = Relayer::with(Quota::default(), listening(&["127.0.0.1", "[::1]"])).await;
    let (initiator, target) = (Node::with(initiator).await, Node::with(target).await);
    let exposing = expose(&initiator, &target, &[&relay]).await;
    Scene { relay, initiator, target, _exposing: exposing }
}

impl Scene {
    async fn connect(&self) -> Stream {
        let there = self.target.fingerprint();
        soon(self.initiator.endpoint.connect_with(&there, &ECHO, Via::Quic)).await.unwrap()
    }

    /// How each side reaches the other.
    fn paths(&self) -> [PathInfo; 2] {
        self.quic().map(|path| path.expect("a QUIC connection"))
    }

    fn quic(&self) -> [Option<PathInfo>; 2] {
        [(&self.initiator, &self.target), (&self.target, &self.initiator)].map(|(from, to)| {
            let all = from.endpoint.paths(&to.fingerprint());
            all.into_iter().find(|path| path.transport == Transport::Quic)
        })
    }

    /// Waits until both sides go directly, or neither.
    async fn goes(&self, direct: bool) {
        soon(async {
            while self.quic().iter().any(|path| path.is_none_or(|path| path.direct != direct)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// The byte of a transfer at `offset`.
fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A transfer there and back that goes on until it is told to end; each byte is compared.
pub(crate) struct Transfer {
    enough: Arc<AtomicBool>,
    back: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<(u64, u64)>,
}

impl Transfer {
    pub(crate) fn start(stream: Stream) -> Transfer {
        let (enough, back) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&enough), Arc::clone(&back));
        let task = tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let sending = async {
                let mut at = 0;
                while !end.load(Ordering::SeqCst) {
                    let chunk: Vec<u8> = (at..at + (16 << 10)).map(byte).collect();
                    write.write_all(&chunk).await.unwrap();
                    at += chunk.len() as u64;
                }
                write.shutdown().await.unwrap();
                at
            };
            let receiving = async {
                let (mut at, mut room) = (0, vec![0; 64 << 10]);
                loop {
                    let got = read.read(&mut room).await.unwrap();
                    if got == 0 {
                        return at;
                    }
                    for one in &room[..got] {
                        assert_eq!(*one, byte(at), "at {at}");
                        at += 1;
                    }
                    count.store(at, Ordering::SeqCst);
                }
            };
            tokio::join!(sending, receiving)
        });
        Transfer { enough, back, task }
    }

    /// Waits until `bytes` more have come back.
    pub(crate) async fn more(&self, bytes: u64) {
        let wanted = self.back.load(Ordering::SeqCst) + bytes;
        soon(async {
            while self.back.load(Ordering::SeqCst) < wanted {
                assert!(!self.task.is_finished(), "the transfer ended");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    pub(crate) async fn end(self) {
        self.enough.store(true, Ordering::SeqCst);
        let (sent, received) = soon(self.task).await.unwrap();
        assert_eq!(sent, received);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relayed_connection_moves_to_a_direct_path_while_a_transfer_runs() {
    let scene = scene(on_loopback(), on_loopback()).await;
    let stream = scene.connect().await;
    let transfer = Transfer::start(stream);
    scene.goes(true).await;
    transfer.more(1 << 20).await;
    let [ours, theirs] = scene.paths();
    assert_eq!(ours.remote, scene.target.at(Transport::Quic));
    assert_eq!(theirs.remote, scene.initiator.at(Transport::Quic));
    assert!(ours.relay.is_none() && theirs.relay.is_none() && ours.rtt.is_some() && theirs.rtt.is_some());
    transfer.end().await;
    // The relayed path stays, for when the direct one fails.
    assert_eq!(scene.relay.sessions(), 1);
    let stream = scene.connect().await;
    assert!(stream.path().direct);
    echoes(stream, b"later streams go directly from the start").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_relayed_stream_over_tcp_a_direct_way_is_found_for_what_is_opened_later() {
    let scene = scene(on_loopback(), on_loopback()).await;
    let (there, initiator) = (scene.target.fingerprint(), &scene.initiator.endpoint);
    let first = soon(initiator.connect(&there, &ECHO)).await.unwrap();
    assert_eq!((first.path().transport, first.path().direct), (Transport::Tcp, false));
    scene.goes(true).await;
    for via in [Via::Any, Via::Bulk, Via::Quic] {
        let later = soon(async {
            loop {
                // The connection is kept a moment after it has moved.
                let stream = initiator.connect_with(&there, &ECHO, via).await.unwrap();
                if stream.path().direct {
                    return stream;
                }
            }
        })
        .await;
        assert_eq!(later.path().transport, Transport::Quic);
        echoes(later, &vec![7; 1 << 20]).await;
    }
    assert!(!first.path().direct, "what is open stays where it is");
    echoes(first, b"and goes on").await;
    // The trust that it was made for.
    scene.target.book.remove(&scene.initiator);
    soon(async {
        while scene.quic().iter().any(Option::is_some) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_where_its_connection_has_moved_to() {
    let scene = scene(on_loopback(), on_loopback()).await;
    let stream = scene.connect().await;
    scene.goes(true).await;
    assert!(stream.path().direct);
    assert_eq!(stream.path(), PathInfo { rtt: stream.path().rtt, ..scene.paths()[0] });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_want_to_be_found_stays_behind_the_relay() {
    for (ours, theirs) in [(false, true), (true, false)] {
        let with = |seek_direct| Config { seek_direct, ..on_loopback() };
        let scene = scene(with(ours), with(theirs)).await;
        let stream = scene.connect().await;
        echoes(stream, &vec![7; 1 << 20]).await;
        let there = scene.target.fingerprint();
        let tcp = soon(scene.initiator.endpoint.connect_with(&there, &ECHO, Via::Bulk)).await;
        echoes(tcp.unwrap(), &vec![7; 1 << 20]).await;
        assert!(scene.paths().iter().all(|path| !path.direct && path.relay.is_some()));
    }
}

/// A way to the target's socket for one peer, as a port that a router maps would be.
struct Forwarder {
    at: SocketAddr,
    is_cut: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Forwarder {
    async fn new(to: SocketAddr) -> Forwarder {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("[::1]:0").await.unwrap();
        let (at, is_cut) = (near.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let cut = Arc::clone(&is_cut);
        let task = tokio::spawn(async move {
            let (mut there, mut back, mut peer) = (vec![0; 1 << 16], vec![0; 1 << 16], None);
            loop {
                tokio::select! {
                    Ok((n, from)) = near.recv_from(&mut there) => {
                        peer = Some(from);
                        if !cut.load(Ordering::SeqCst) {
                            let _ = far.send_to(&there[..n], to).await;
                        }
                    }
                    Ok((n, _)) = far.recv_from(&mut back) => {
                        if let (false, Some(peer)) = (cut.load(Ordering::SeqCst), peer) {
                            let _ = near.send_to(&back[..n], peer).await;
                        }
                    }
                }
            }
        });
        Forwarder { at, is_cut, task }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn quic(at: SocketAddr) -> Address {
    Address::new(Transport::Quic, at)
}

/// The two have no family in common: whatever goes directly goes over what the target offers.
async fn apart() -> Option<Scene> {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        kith_vnet::unable("IPv6 on loopback");
        return None;
    }
    Some(scene(listening(&["127.0.0.1"]), listening(&["[::1]"])).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_direct_path_is_cut_goes_on_over_the_relay() {
    let Some(scene) = apart().await else { return };
    let forwarder = Forwarder::new(scene.target.at(Transport::Quic)).await;
    scene.target.endpoint.offer(vec![quic(forwarder.at)]);
    let transfer = Transfer::start(scene.connect().await);
    scene.goes(true).await;
    assert_eq!(scene.paths()[0].remote, forwarder.at);
    transfer.more(1 << 20).await;
    forwarder.is_cut.store(true, Ordering::SeqCst);
    scene.goes(false).await;
    assert!(scene.paths().iter().all(|path| path.relay == Some(scene.relay.node.fingerprint())));
    transfer.more(1 << 20).await;
    transfer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_addresses_do_not_answer_is_probed_a_few_times_and_stays_relayed() {
    let Some(scene) = apart().await else { return };
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    scene.target.endpoint.offer(vec![quic(silent.local_addr().unwrap())]);
    let stream = scene.connect().await;
    for _ in 0..7 {
        let mut bytes = [0; 2048];
        let (length, from) = soon(silent.recv_from(&mut bytes)).await.unwrap();
        assert!(Probe::from_bytes(&bytes[..length]).is_some() && from == scene.initiator.at(Transport::Quic));
    }
    assert!(scene.paths().iter().all(|path| !path.direct));
    echoes(stream, &vec![7; 1 << 20]).await;
    assert!(silent.try_recv(&mut [0; 9]).is_err(), "seven probes in a round");
}

/// An initiator that looks for a direct path by hand.
struct ByHand {
    scene: Scene,
    _stream: Stream,
    talk: Stream,
    _incoming: Incoming,
}

async fn by_hand() -> ByHand {
    let scene = scene(Config { seek_direct: false, ..on_loopback() }, on_loopback()).await;
    let mut incoming = scene.initiator.endpoint.listen(DIRECT, Admission::Contacts).unwrap();
    let stream = scene.connect().await;
    let (_, talk) = soon(incoming.next()).await.unwrap();
    ByHand { scene, _stream: stream, talk, _incoming: incoming }
}

impl ByHand {
    async fn hear(&mut self) -> Option<Candidates> {
        let mut prefix = [0; LENGTH_BYTES];
        soon(self.talk.read_exact(&mut prefix)).await.ok()?;
        let mut body = vec![0; length(prefix).unwrap()];
        soon(self.talk.read_exact(&mut body)).await.ok()?;
        Some(Candidates::from_bytes(&body).unwrap())
    }

    async fn say(&mut self, frame: &[u8]) {
        // After its end it is not heard, and that shows otherwise.
        let _ = self.talk.write_all(frame).await;
        let _ = self.talk.flush().await;
    }
}

fn said(wants_answer: bool, addresses: Vec<SocketAddr>) -> Vec<u8> {
    Candidates { wants_answer, token: Token::from_bytes([7; 16]), addresses }.to_frame()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_offers_a_thousand_addresses_is_not_listened_to_and_none_is_probed() {
    let mut by_hand = by_hand().await;
    assert!(by_hand.hear().await.unwrap().addresses.contains(&by_hand.scene.target.at(Transport::Quic)));
    let watched = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let one = said(false, vec![watched.local_addr().unwrap()]);
    let mut frame = vec![0, 0];
    frame.extend(&one[2..19]);
    frame.push(255);
    (0..1_000).for_each(|_| frame.extend(&one[20..]));
    let length = u16::try_from(frame.len() - 2).unwrap();
    frame[..2].copy_from_slice(&length.to_be_bytes());
    by_hand.say(&frame).await;
    assert!(by_hand.hear().await.is_none(), "it hangs up");
    echoes(by_hand.scene.connect().await, b"and goes on as before").await;
    assert!(watched.try_recv(&mut [0; 9]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_no_record_set_could_make_a_node_dial_are_not_probed() {
    let mut by_hand = by_hand().await;
    by_hand.hear().await.unwrap();
    let watched = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // What is not on loopback is foreign here. An address of this machine shows what is sent to it.
    let own = kith_connect::interfaces().into_iter().find(|one| one.ip.is_ipv4() && !one.ip.is_loopback());
    let foreign = match own {
        Some(own) => Some(UdpSocket::bind((own.ip, 0)).await.unwrap()),
        None => None,
    };
    let mut addresses: Vec<SocketAddr> =
        ["224.0.0.1:9", "0.0.0.0:9", "255.255.255.255:9", "169.254.169.254:80", "[fe80::1]:9", "127.0.0.1:0"]
            .map(|one| one.parse().unwrap())
            .to_vec();
    addresses.extend(foreign.as_ref().map(|one| one.local_addr().unwrap()));
    addresses.push(watched.local_addr().unwrap());
    by_hand.say(&said(false, addresses)).await;
    let mut bytes = [0; 2048];
    let (length, _) = soon(watched.recv_from(&mut bytes)).await.unwrap();
    assert_eq!(
        Probe::from_bytes(&bytes[..length]).map(|probe| probe.token),
        Some(Token::from_bytes([7; 16]))
    );
    assert!(foreign.is_none_or(|one| one.try_recv(&mut bytes).is_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_again_and_again_is_answered_eight_times() {
    let mut by_hand = by_hand().await;
    by_hand.hear().await.unwrap();
    let watched = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..20 {
        by_hand.say(&said(true, vec![watched.local_addr().unwrap()])).await;
    }
    let mut answers = 0;
    while by_hand.hear().await.is_some() {
        answers += 1;
    }
    assert!((8..=9).contains(&answers), "{answers}");
    let mut probes = 0;
    while watched.try_recv(&mut [0; 99]).is_ok() {
        probes += 1;
    }
    assert!((1..=2 * answers).contains(&probes), "{probes} probes");
}
