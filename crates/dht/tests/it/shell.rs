//! Real nodes on loopback, with certificates of an issuer.

mod hostile;
mod networks;
mod strangers;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use kith_connect::{
    Admission, ChangeSignal, Changes, Config as EndpointConfig, Discovery, Endpoint, Found, Incoming,
    Protocol, Stream, Trust,
};
use kith_dht::shell::{Addresses, Dht, Membership, Settings};
use kith_dht::{Config, Contact, Value};
use kith_identity::membership::{
    Block, Issuer, Member, Members, MemoryLedger, NodeId, Request, Rolled, Terms, VerifiedMember,
};
use kith_identity::record::Draft;
use kith_identity::{Address, Fingerprint, Identity, Transport};
use kith_sansio::Timestamp;
use kith_sansio::system::{OsRng, utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How members show each other their certificates here.
const SHOW: Protocol = Protocol::new("test-member/1");
/// Long enough for any machine; nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(120);

/// What one node knows of who is a member.
struct Pass {
    own: VerifiedMember,
    members: Mutex<Members>,
    /// The statement of the epoch and what stands behind it.
    rolled: Mutex<Arc<Rolled>>,
    endpoint: OnceLock<Endpoint>,
    signal: ChangeSignal,
}

impl Pass {
    fn new(own: VerifiedMember, rolled: &Arc<Rolled>) -> Arc<Pass> {
        Arc::new(Pass {
            own,
            members: Mutex::new(Members::new(rolled.epoch.clone(), 1_000)),
            rolled: Mutex::new(Arc::clone(rolled)),
            endpoint: OnceLock::new(),
            signal: ChangeSignal::new(),
        })
    }

    /// The next epoch.
    fn adopt(&self, rolled: &Arc<Rolled>) {
        let mut members = self.members.lock().unwrap();
        let _newest = members.adopt(rolled.epoch.clone()).unwrap();
        members.revoke(&rolled.revoked.range(&Block::WHOLE).unwrap()).unwrap();
        drop(members);
        *self.rolled.lock().unwrap() = Arc::clone(rolled);
        self.signal.raise();
    }

    /// Takes the certificates of those who show them.
    async fn look(self: Arc<Self>, mut incoming: Incoming) {
        while let Some((peer, mut stream)) = incoming.next().await {
            let pass = Arc::clone(&self);
            tokio::spawn(async move {
                let mut bytes = vec![0; 337];
                let (Some(peer), Ok(_)) = (peer.fingerprint(), stream.read_exact(&mut bytes).await) else {
                    return;
                };
                let shown = Member::from_bytes(&bytes).ok();
                let shown =
                    shown.and_then(|member| pass.members.lock().unwrap().show(peer, member, utc()).ok());
                let _gone = stream.write_u8(shown.is_some().into()).await;
                let _gone = stream.shutdown().await;
                let _closed = stream.read_u8().await;
            });
        }
    }
}

impl Trust for Pass {
    fn trusts(&self, _: &Fingerprint, _: &Protocol) -> bool {
        false
    }
    fn is_member(&self, peer: &Fingerprint) -> bool {
        self.members.lock().unwrap().is_member(peer, utc())
    }
    fn knocked(&self, _: &Fingerprint, _: SocketAddr) {}
    fn changed(&self) -> Changes {
        self.signal.changes()
    }
}

impl Membership for Pass {
    fn own(&self) -> VerifiedMember {
        self.own.clone()
    }
    fn members(&self) -> u64 {
        self.members.lock().unwrap().epoch().facts().members
    }
    fn roster(&self, block: &Block) -> Option<Vec<NodeId>> {
        let rolled = self.rolled.lock().unwrap();
        let range = rolled.members.range(block).unwrap();
        Some(rolled.epoch.block(&range).unwrap().iter().map(|leaf| leaf.id).collect())
    }
    fn verify(&self, certificate: Member, now: Timestamp) -> Option<VerifiedMember> {
        self.members.lock().unwrap().verify(certificate, now).ok()
    }
    fn is_known(&self, peer: &Fingerprint) -> bool {
        self.members.lock().unwrap().is_member(peer, utc())
    }
    fn introduce<'a>(&'a self, peer: &'a Fingerprint) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move {
            let Some(endpoint) = self.endpoint.get() else { return false };
            let Ok(mut stream) = endpoint.connect(peer, &SHOW).await else { return false };
            stream.write_all(&self.own.as_member().to_bytes()).await.is_ok()
                && stream.flush().await.is_ok()
                && stream.read_u8().await.is_ok_and(|answer| answer == 1)
        })
    }
    fn changed(&self) -> Changes {
        self.signal.changes()
    }
}

/// A network, its issuer, and the keys of all who belong to it.
struct Town {
    issuer: Issuer<MemoryLedger>,
    identities: Vec<Arc<Identity>>,
    members: Vec<VerifiedMember>,
    rolled: Arc<Rolled>,
}

impl Town {
    fn new(count: usize) -> Town {
        let mut issuer =
            Issuer::new(Identity::generate(&mut OsRng), Terms::default(), MemoryLedger::default());
        let identities: Vec<_> = (0..count).map(|_| Arc::new(Identity::generate(&mut OsRng))).collect();
        let members = identities.iter().map(|identity| admit(&mut issuer, identity, utc())).collect();
        let rolled = Arc::new(issuer.roll(utc(), |_, _, _| [7; 32]).unwrap());
        Town { issuer, identities, members, rolled }
    }

    /// The next epoch, in which somebody is a member no more.
    fn revoke(&mut self, number: usize) -> Arc<Rolled> {
        self.issuer.revoke(&self.identities[number].fingerprint(), utc()).unwrap();
        self.rolled = Arc::new(self.issuer.roll(utc(), |_, _, _| [7; 32]).unwrap());
        Arc::clone(&self.rolled)
    }

    /// A place on loopback for a member, without a node of the DHT.
    async fn place(&self, number: usize) -> Place {
        Place::new(&self.identities[number], self.members[number].clone(), &self.rolled).await
    }

    async fn node(&self, number: usize, known: &[Contact]) -> Node {
        self.place(number).await.start(known)
    }

    /// So many nodes that have joined through the first.
    async fn settled(count: usize) -> (Town, Vec<Node>) {
        let town = Town::new(count);
        let mut nodes = vec![town.node(0, &[]).await];
        let known = [nodes[0].place.contact()];
        for number in 1..count {
            nodes.push(town.node(number, &known).await);
        }
        for node in &nodes {
            soon(node.dht.joined()).await.unwrap();
            soon_true(async || node.dht.status().await.unwrap().region == count - 1).await;
        }
        (town, nodes)
    }

    /// The record set of a member as a value.
    fn value(&self, number: usize) -> Value {
        let addresses = vec!["quic://192.0.2.1:4433".parse().unwrap()];
        let draft = Draft { addresses, ..Draft::default() };
        Value::of(&draft.sign(&self.identities[number], utc()).unwrap())
    }
}

fn admit(issuer: &mut Issuer<MemoryLedger>, joining: &Identity, now: Timestamp) -> VerifiedMember {
    let network = issuer.network().id();
    issuer.admit(&Request::sign(joining, &network).verify(&network).unwrap(), now).unwrap()
}

/// An endpoint, and what it knows of the network.
struct Place {
    endpoint: Endpoint,
    pass: Arc<Pass>,
    map: Arc<Map>,
}

/// Where tests that use no DHT say that others are, and the source of the DHT.
#[derive(Default)]
struct Map {
    dht: Addresses,
    told: Mutex<HashMap<Fingerprint, SocketAddr>>,
}

impl Discovery for Map {
    fn candidates<'a>(
        &'a self,
        target: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let at = self.told.lock().unwrap().get(&target).copied();
        match at {
            Some(at) => Box::pin(async move {
                found.discovered([Address::new(Transport::Quic, at)]).await;
            }),
            None => self.dht.candidates(target, found),
        }
    }
}

impl Place {
    async fn new(identity: &Arc<Identity>, own: VerifiedMember, rolled: &Arc<Rolled>) -> Place {
        let pass = Pass::new(own, rolled);
        let map = Arc::new(Map::default());
        // All nodes have one address here, which no peer should have so many connections from.
        let config = EndpointConfig {
            listen: vec!["quic://127.0.0.1:0".parse().unwrap()],
            max_half_open_per_source: 256,
            max_strangers_per_source: 256,
            ..EndpointConfig::default()
        };
        let trust = Arc::clone(&pass) as Arc<dyn Trust>;
        let discovery = Arc::clone(&map) as Arc<dyn Discovery>;
        let endpoint = Endpoint::bind(Arc::clone(identity), trust, discovery, config).await.unwrap();
        pass.endpoint.set(endpoint.clone()).ok().unwrap();
        let shows = endpoint.listen(SHOW, Admission::Anyone).unwrap();
        tokio::spawn(Arc::clone(&pass).look(shows));
        Place { endpoint, pass, map }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addresses()[0].socket
    }

    fn contact(&self) -> Contact {
        Contact::of(&self.pass.own, self.address())
    }

    fn start(self, known: &[Contact]) -> Node {
        let settings = Settings {
            routing: Config::default(),
            address: self.address(),
            known: known.to_vec(),
            addresses: self.map.dht.clone(),
            kept: Vec::new(),
            shelf: None,
        };
        let membership = Arc::clone(&self.pass) as Arc<dyn Membership>;
        let dht = Dht::start(self.endpoint.clone(), settings, membership).unwrap();
        Node { dht, place: self }
    }

    /// Opens a stream of `dht/1` by hand.
    async fn call(&self, other: &Contact) -> Option<Stream> {
        self.map.told.lock().unwrap().insert(other.fingerprint, other.address);
        let protocol = kith_dht::shell::PROTOCOL;
        if let Ok(stream) = soon(self.endpoint.connect(&other.fingerprint, &protocol)).await {
            return Some(stream);
        }
        soon(self.pass.introduce(&other.fingerprint)).await;
        soon(self.endpoint.connect(&other.fingerprint, &protocol)).await.ok()
    }
}

struct Node {
    dht: Dht,
    place: Place,
}

impl Node {
    async fn region(&self) -> usize {
        self.dht.status().await.unwrap().region
    }
}

/// The result of `work`, which must not hang.
async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(DEADLINE, work).await.expect("an end within the deadline")
}

/// Waits until something is true.
async fn soon_true(is_true: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_true().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(waiting).await;
}

/// A message, or a card, with its length before it.
fn frame(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// The next frame of a stream; `None` where it has ended.
async fn next(stream: &mut Stream) -> Option<Vec<u8>> {
    let reading = async {
        let mut bytes = vec![0; stream.read_u16().await.ok()?.into()];
        stream.read_exact(&mut bytes).await.ok()?;
        Some(bytes)
    };
    soon(reading).await
}

/// Writes as long as the other side takes it.
async fn say(stream: &mut Stream, bytes: &[u8]) {
    let _ended = stream.write_all(bytes).await;
    let _ended = stream.flush().await;
}
