//! Strangers by the thousand at a relay.

use std::collections::HashSet;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kith_connect::relay::message::{RELAY, length};
use kith_connect::relay::{Carriage, Message, Request};
use kith_connect::{
    ChangeSignal, Changes, Config, ConnectError, Discovery, Endpoint, Found, Protocol, Trust,
};
use kith_identity::{Address, Fingerprint, Identity, Ni, Relay, tls};
use kith_sansio::system::{OsRng, time, utc};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::harness::{DEADLINE, Person, Place, eventually};

/// How many strangers there are.
const STRANGERS: usize = 1_000;
/// What each of them may cost the relay.
const BYTES_EACH: u64 = 64 << 10;
/// How many come over QUIC: as many more than may wait there at a time as the test has time for.
const STRANGERS_OVER_QUIC: usize = 400;
/// How many of them shake hands at once: fewer than the relay lets wait for that.
const HANDS: usize = 64;

/// Trusts nobody, notes who knocks, and knows where the relay is.
struct Apart {
    relay: Address,
    knocks: Mutex<HashSet<[u8; 32]>>,
    signal: ChangeSignal,
}

impl Apart {
    fn at(relay: Address) -> Apart {
        Apart { relay, knocks: Mutex::default(), signal: ChangeSignal::new() }
    }
}

impl Trust for Apart {
    fn trusts(&self, _: &Fingerprint, _: &Protocol) -> bool {
        false
    }

    fn knocked(&self, peer: &Fingerprint, _: SocketAddr) {
        assert!(self.knocks.lock().unwrap().insert(*peer.as_bytes()), "told once");
    }

    fn changed(&self) -> Changes {
        self.signal.changes()
    }
}

impl Discovery for Apart {
    fn candidates<'a>(
        &'a self,
        _: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move { found.hints([self.relay]).await })
    }
}

/// Somebody with a key and a stream of `relay/1`, from an address of the loopback network.
struct Outsider {
    who: Arc<Identity>,
    stream: Pin<Box<dyn Wire>>,
    /// What the stream belongs to, where it is more than the stream.
    _node: Option<Endpoint>,
}

trait Wire: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Wire for T {}

impl Outsider {
    async fn new(who: Identity, from: [u8; 4], relay: &Address) -> Outsider {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
        let stream = soon(socket.connect(relay.socket)).await.unwrap();
        let certificate = tls::Certificate::self_signed(&who).unwrap();
        let connector = TlsConnector::from(Arc::new(tls::node_client(&certificate).unwrap()));
        let name = ServerName::try_from(tls::SERVER_NAME).unwrap();
        let mut stream = soon(connector.connect(name, stream)).await.unwrap();
        let protocol = RELAY;
        let hello = protocol.as_str().as_bytes();
        stream.write_all(&[&[hello.len() as u8], hello].concat()).await.unwrap();
        assert_eq!(soon(stream.read_u8()).await.unwrap(), 1);
        Outsider { who: Arc::new(who), stream: Box::pin(stream), _node: None }
    }

    /// One whom the relay takes in, and who then says nothing to whatever is asked.
    async fn exposed(who: Identity, relay: &Address) -> Outsider {
        let mut exposed = Outsider::new(who, [127, 0, 0, 1], relay).await;
        exposed.says(&Message::Expose).await;
        assert_eq!(soon(exposed.hears()).await, Some(Message::Exposed));
        exposed
    }

    /// Like [`Outsider::new`] over QUIC; `None` where the relay has no room for more strangers there.
    async fn over_quic(from: [u8; 4], name: Fingerprint, relay: Address) -> Option<Outsider> {
        let who = Arc::new(Identity::generate(&mut OsRng));
        let listen = vec![format!("quic://{}:0", Ipv4Addr::from(from)).parse().unwrap()];
        let apart = Arc::new(Apart::at(relay));
        let config = Config { listen, ..Config::default() };
        let node = Endpoint::bind(Arc::clone(&who), Arc::clone(&apart) as _, apart, config).await.unwrap();
        let stream = match soon(node.connect(&name, &RELAY)).await {
            Err(ConnectError::Refused { .. }) => return None,
            stream => Box::pin(stream.unwrap()),
        };
        Some(Outsider { who, stream, _node: Some(node) })
    }

    /// Asks the relay for `target`; what it says until it ends the stream, and after what time.
    async fn asks(&mut self, relay: Fingerprint, target: Fingerprint) -> (Vec<Message>, Duration) {
        let carriage = (Carriage::Stream, Vec::new());
        let request = Request::sign(&self.who, relay, target, carriage, utc(), &mut OsRng);
        let asked = time();
        self.says(&Message::Request(Box::new(request))).await;
        let mut said = Vec::new();
        while let Some(message) = soon(self.hears()).await {
            said.push(message);
        }
        (said, (time() - asked).into())
    }

    async fn says(&mut self, message: &Message) {
        self.stream.write_all(&message.to_frame()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn hears(&mut self) -> Option<Message> {
        let mut prefix = [0; 2];
        self.stream.read_exact(&mut prefix).await.ok()?;
        let mut body = vec![0; length(prefix).unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        Some(Message::from_cbor(&body).unwrap())
    }
}

async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(DEADLINE, work).await.expect("an end within the deadline")
}

/// A number of `/proc/PID/status`, in bytes.
fn memory_bytes(person: &Person, field: &str) -> u64 {
    let id = person.node.as_ref().unwrap().child.id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// The number of `name` in what the relay says of itself.
fn load(relay: &Person, name: &str) -> u64 {
    relay.run(&["relay", "list", "--json"]).ok().json()["serves"][name].as_u64().unwrap()
}

/// A target that is not there, one that refuses and one that says nothing: the answers of one kind come no later than
/// those of another, but for a part of what they differ by among themselves, which is much where the machine is busy.
fn look_the_same(mut waits: [Vec<Duration>; 3]) {
    let mut all = waits.concat();
    all.sort_unstable();
    let spread = all[all.len() * 9 / 10] - all[all.len() / 10];
    waits.iter_mut().for_each(|waits| waits.sort_unstable());
    let middles = waits.map(|waits| waits[waits.len() / 2]);
    let (least, greatest) = (middles.iter().min().unwrap(), middles.iter().max().unwrap());
    assert!(*greatest - *least <= spread / 2 + Duration::from_millis(250), "{middles:?}, {spread:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_strangers_learn_nothing_cost_little_and_are_known_to_whom_they_asked_for() {
    let place = Place::new();
    let mut relay = place.person("relay", &[]);
    relay.up_with(&["relay", "serve", "--listen", "tcp://127.0.0.1:0"]);
    let at: Address = relay.addresses()[0].parse().unwrap();
    let ni: Ni = relay.ni().trim().parse().unwrap();
    let name = ni.fingerprint;
    let [refusing, silent] = [1, 2].map(|_| Identity::generate(&mut OsRng));
    for (name, identity) in [("refusing", &refusing), ("silent", &silent)] {
        relay.run(&["contact", "add", name, &Ni::new(identity.fingerprint(), None).to_string()]).ok();
    }
    let notes = Arc::new(Apart::at(at));
    let config = Config { listen: vec!["tcp://127.0.0.1:0".parse().unwrap()], ..Config::default() };
    let (trust, discovery) = (Arc::clone(&notes) as _, Arc::clone(&notes) as _);
    let refusing = Endpoint::bind(Arc::new(refusing), trust, discovery, config).await.unwrap();
    let mut exposing = refusing.expose(vec![Relay { preference: 1, ni }]);
    soon(async { while exposing.named().is_empty() && exposing.changed().await {} }).await;
    let silent = Outsider::exposed(silent, &at).await;
    let nobody = Identity::generate(&mut OsRng).fingerprint();
    let targets = [nobody, refusing.fingerprint(), silent.who.fingerprint()];

    let before = memory_bytes(&relay, "VmRSS");
    let hands = Arc::new(Semaphore::new(HANDS));
    let mut asking = JoinSet::new();
    for number in 0..STRANGERS {
        // Four of each address, where eight are allowed.
        let from = [127, 1, (number / 4 / 250) as u8, (number / 4 % 250) as u8 + 1];
        let (hands, target) = (Arc::clone(&hands), targets[number % 3]);
        asking.spawn(async move {
            let mut stranger = {
                let _turn = hands.acquire().await.unwrap();
                Outsider::new(Identity::generate(&mut OsRng), from, &at).await
            };
            let (said, after) = stranger.asks(name, target).await;
            (number % 3, *stranger.who.fingerprint().as_bytes(), said, after)
        });
    }
    let (mut told, mut waits) = (HashSet::new(), [const { Vec::new() }; 3]);
    while let Some(asked) = asking.join_next().await {
        let (case, who, said, after) = asked.unwrap();
        assert!(matches!(said[..], [Message::Observed(_), Message::Refused]), "{case}: {said:?}");
        assert!(after >= Duration::from_secs(3), "{case}: {after:?}");
        waits[case].push(after);
        if case == 1 {
            told.insert(who);
        }
    }
    look_the_same(waits);
    let most = memory_bytes(&relay, "VmHWM").saturating_sub(before);
    assert!(most <= STRANGERS as u64 * BYTES_EACH, "{} KiB each", (most >> 10) / STRANGERS as u64);
    assert_eq!(*notes.knocks.lock().unwrap(), told);
    eventually("no stranger is left", || (load(&relay, "waiting") == 0).then_some(()));
    assert_eq!(load(&relay, "sessions"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_over_quic_cost_no_more_and_hear_the_same() {
    let place = Place::new();
    let mut relay = place.person("relay", &[]);
    relay.up_with(&["relay", "serve", "--listen", "tcp://127.0.0.1:0", "--listen", "quic://127.0.0.1:0"]);
    let addresses = relay.addresses();
    let at = |transport: &str| -> Address {
        addresses.iter().find(|one| one.starts_with(transport)).unwrap().parse().unwrap()
    };
    let (tcp, quic) = (at("tcp"), at("quic"));
    let name = relay.ni().trim().parse::<Ni>().unwrap().fingerprint;
    let silent = Identity::generate(&mut OsRng);
    let target = silent.fingerprint();
    relay.run(&["contact", "add", "silent", &Ni::new(target, None).to_string()]).ok();
    let _silent = Outsider::exposed(silent, &tcp).await;
    let nobody = Identity::generate(&mut OsRng).fingerprint();

    let before = memory_bytes(&relay, "VmRSS");
    let hands = Arc::new(Semaphore::new(HANDS));
    let mut asking = JoinSet::new();
    for number in 0..STRANGERS_OVER_QUIC {
        let from = [127, 3, (number / 4 / 250) as u8, (number / 4 % 250) as u8 + 1];
        let (hands, target) = (Arc::clone(&hands), [nobody, target][number % 2]);
        asking.spawn(async move {
            let stranger = {
                let _turn = hands.acquire().await.unwrap();
                Outsider::over_quic(from, name, quic).await
            };
            Some(stranger?.asks(name, target).await)
        });
    }
    let answers = asking.join_all().await;
    let heard: Vec<_> = answers.iter().flatten().collect();
    assert!(heard.len() >= STRANGERS_OVER_QUIC / 4, "{} were heard", heard.len());
    for (said, after) in heard {
        assert!(matches!(said[..], [Message::Observed(_), Message::Refused]), "{said:?}");
        assert!(*after >= Duration::from_secs(3), "{after:?}");
    }
    let most = memory_bytes(&relay, "VmHWM").saturating_sub(before);
    assert!(most <= STRANGERS as u64 * BYTES_EACH, "{} KiB", most >> 10);
    eventually("no stranger is left", || (load(&relay, "waiting") == 0).then_some(()));
}
