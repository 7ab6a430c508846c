//! Real nodes on loopback, who belong to a network of which everybody knows everything.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kith_actors::hardened::{Book, Terms, View};
use kith_actors::ktable::epoch_hash;
use kith_actors::seat::Trouble;
use kith_actors::shell::{Actors, Ground, Neighbour, PROTOCOL, QUOTA, SelectError};
use kith_connect::{ChangeSignal, Changes, Config, Discovery, Endpoint, Found, Protocol, Trust};
use kith_identity::membership::pledge::VerifiedEvidence;
use kith_identity::membership::{
    Block, Issuer, MemoryLedger, NodeId, Request, Rolled, Terms as NetworkTerms,
};
use kith_identity::{Address, Fingerprint, Identity, Transport};
use kith_sansio::system::{OsRng, utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::network::assert_holds;

/// Long enough for any machine; nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(300);

/// Who is a member, and where everybody listens.
#[derive(Default)]
struct Town {
    members: Vec<Fingerprint>,
    addresses: Mutex<HashMap<Fingerprint, SocketAddr>>,
}

impl Trust for Town {
    fn trusts(&self, _: &Fingerprint, _: &Protocol) -> bool {
        false
    }
    fn is_member(&self, peer: &Fingerprint) -> bool {
        self.members.contains(peer)
    }
    fn knocked(&self, _: &Fingerprint, _: SocketAddr) {}
    fn changed(&self) -> Changes {
        ChangeSignal::new().changes()
    }
}

impl Discovery for Town {
    fn candidates<'a>(
        &'a self,
        target: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let at = self.addresses.lock().unwrap().get(&target).copied();
        Box::pin(async move { found.discovered(at.map(|at| Address::new(Transport::Quic, at))).await })
    }
}

/// What one node stands on.
struct Land {
    view: Mutex<Option<Arc<View>>>,
    signal: ChangeSignal,
    book: Mutex<Option<Vec<u8>>>,
}

impl Ground for Land {
    fn view(&self) -> Option<Arc<View>> {
        self.view.lock().unwrap().clone()
    }
    fn changed(&self) -> Changes {
        self.signal.changes()
    }
    fn nearest<'a>(&'a self, _: &'a NodeId) -> Pin<Box<dyn Future<Output = Vec<Neighbour>> + Send + 'a>> {
        Box::pin(async { Vec::new() })
    }
    fn prepare<'a>(&'a self, _: &'a Neighbour) -> Pin<Box<dyn Future<Output = Box<dyn Send>> + Send + 'a>> {
        Box::pin(async { Box::new(()) as Box<dyn Send> })
    }
    fn introduce<'a>(&'a self, _: &'a Fingerprint) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async { false })
    }
    fn recall(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.book.lock().unwrap().clone())
    }
    fn keep(&self, book: &[u8]) -> io::Result<()> {
        *self.book.lock().unwrap() = Some(book.to_vec());
        Ok(())
    }
    fn accuse(&self, _: VerifiedEvidence) {}
}

struct Member {
    id: NodeId,
    identity: Arc<Identity>,
    endpoint: Endpoint,
    land: Arc<Land>,
    actors: Actors,
}

struct Net {
    issuer: Issuer<MemoryLedger>,
    rolled: Rolled,
    members: Vec<Member>,
}

impl Net {
    async fn new(count: usize, colluding: u64) -> Net {
        let terms = NetworkTerms { colluding_least: colluding, ..NetworkTerms::default() };
        let mut issuer = Issuer::new(Identity::generate(&mut OsRng), terms, MemoryLedger::default());
        let network = issuer.network().id();
        let identities: Vec<_> = (0..count).map(|_| Arc::new(Identity::generate(&mut OsRng))).collect();
        let ids: Vec<_> = identities
            .iter()
            .map(|identity| {
                let request = Request::sign(identity, &network).verify(&network).unwrap();
                issuer.admit(&request, utc()).unwrap().id()
            })
            .collect();
        let rolled = issuer.roll(utc(), |n, c, alpha| epoch_hash(n, c, alpha.alpha())).unwrap();
        let members = identities.iter().map(|identity| identity.fingerprint()).collect();
        let town = Arc::new(Town { members, ..Town::default() });
        let mut net = Net { issuer, rolled, members: Vec::new() };
        for (identity, id) in identities.into_iter().zip(ids) {
            let member = net.start(&town, identity, id).await;
            net.members.push(member);
        }
        net
    }

    fn view(&self) -> Arc<View> {
        let range = self.rolled.members.range(&Block::WHOLE).unwrap();
        Arc::new(View::new(self.rolled.epoch.clone(), range).unwrap())
    }

    async fn start(&self, town: &Arc<Town>, identity: Arc<Identity>, id: NodeId) -> Member {
        // All nodes have one address here, which no peer should have so many connections from.
        let config = Config {
            listen: vec!["quic://127.0.0.1:0".parse().unwrap()],
            max_half_open_per_source: 256,
            max_strangers_per_source: 256,
            ..Config::default()
        };
        let (trust, discovery) = (Arc::clone(town) as Arc<dyn Trust>, Arc::clone(town) as Arc<dyn Discovery>);
        let endpoint = Endpoint::bind(Arc::clone(&identity), trust, discovery, config).await.unwrap();
        let address = endpoint.local_addresses()[0].socket;
        town.addresses.lock().unwrap().insert(identity.fingerprint(), address);
        let book = Book::new(&self.rolled.epoch, QUOTA).to_bytes();
        let land = Arc::new(Land {
            view: Mutex::new(Some(self.view())),
            signal: ChangeSignal::new(),
            book: Mutex::new(Some(book)),
        });
        let ground = Arc::clone(&land) as Arc<dyn Ground>;
        let actors = Actors::start(endpoint.clone(), Arc::clone(&identity), id, ground).unwrap();
        Member { id, identity, endpoint, land, actors }
    }

    /// The next epoch begins, and everybody hears of it.
    fn roll(&mut self) {
        self.rolled = self.issuer.roll(utc(), |n, c, alpha| epoch_hash(n, c, alpha.alpha())).unwrap();
        let view = self.view();
        for member in &self.members {
            *member.land.view.lock().unwrap() = Some(Arc::clone(&view));
            member.land.signal.raise();
        }
    }

    fn issuer(&self) -> Fingerprint {
        self.issuer.network().id()
    }
}

fn terms(actors: u16) -> Terms {
    Terms { manifest: [7; 32], actors, role: 1, expires: utc().plus_secs(1_800) }
}

/// The result of `work`, which must not hang.
async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(DEADLINE, work).await.expect("an end within the deadline")
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_nodes_select_actors_and_the_list_holds() {
    let net = Net::new(16, 4).await;
    let trigger = &net.members[3];
    let selection = soon(trigger.actors.select(terms(4))).await.unwrap();
    assert_eq!(*selection.list.ticket(), selection.list.as_list().ticket);
    assert_eq!(selection.list.ticket().trigger, trigger.id);
    assert_eq!(selection.list.as_list().endorsement.signatures.len(), 5);
    assert_holds(&selection.list, &net.issuer(), 4);
    // The draw is in the books of all who signed it, and on the disk.
    let books = net.members.iter().map(|one| one.land.book.lock().unwrap().clone().unwrap());
    let used = books.filter(|book| Book::from_bytes(book).unwrap().next(&trigger.id) == Some(2)).count();
    assert!(used > usize::try_from(selection.draws).unwrap(), "{used} books");
    let again = soon(trigger.actors.select(terms(4))).await.unwrap();
    assert!(again.list.ticket().sequence > selection.list.ticket().sequence);
    assert_ne!(again.list.as_list().seed, selection.list.as_list().seed);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_nodes_that_lost_a_third_select_eight_actors_and_the_list_holds() {
    let mut net = Net::new(64, 10).await;
    let dead = net.members.split_off(43);
    for member in &dead {
        member.endpoint.close().await;
    }
    let selection = soon(net.members[0].actors.select(terms(8))).await.unwrap();
    // No region of so few members is safe: the whole network decides, and more than may collude have to sign.
    assert_eq!(selection.list.as_list().endorsement.signatures.len(), 11);
    let is_there = |id: NodeId| net.members.iter().any(|member| member.id == id);
    assert!(selection.list.actors().iter().all(|actor| is_there(actor.id)));
    assert_holds(&selection.list, &net.issuer(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_book_of_the_epoch_takes_part_from_the_next_one_on() {
    let mut net = Net::new(8, 2).await;
    let Member { identity, endpoint, land, id, .. } = net.members.remove(0);
    drop(endpoint);
    let town = Arc::new(Town {
        members: net.members.iter().map(|member| member.identity.fingerprint()).collect(),
        addresses: Mutex::new(
            net.members
                .iter()
                .map(|member| (member.identity.fingerprint(), member.endpoint.local_addresses()[0].socket))
                .collect(),
        ),
    });
    let mut member = net.start(&town, identity, id).await;
    // What was kept is gone, and nothing is being kept any more.
    soon(member.actors.end()).await;
    *member.land.book.lock().unwrap() = None;
    drop(land);
    member.endpoint.close().await;
    let config = Config { listen: vec!["quic://127.0.0.1:0".parse().unwrap()], ..Config::default() };
    let (trust, discovery) = (Arc::clone(&town) as Arc<dyn Trust>, Arc::clone(&town) as Arc<dyn Discovery>);
    member.endpoint = Endpoint::bind(Arc::clone(&member.identity), trust, discovery, config).await.unwrap();
    let ground = Arc::clone(&member.land) as Arc<dyn Ground>;
    member.actors = Actors::start(member.endpoint.clone(), Arc::clone(&member.identity), id, ground).unwrap();
    let status = soon(member.actors.status()).await.unwrap();
    assert_eq!((status.takes_part, status.draws_left), (false, 0));
    let refused = soon(member.actors.select(terms(2))).await.unwrap_err();
    assert!(matches!(refused, SelectError::Failed { draws: 0, trouble: Trouble::Here(_) }), "{refused:?}");
    let before = status.epoch;
    net.members.push(member);
    net.roll();
    let member = net.members.last().unwrap();
    let taking_part = async {
        while !member.actors.status().await.unwrap().takes_part {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(taking_part).await;
    let status = soon(member.actors.status()).await.unwrap();
    assert!(status.epoch > before && status.draws_left == QUOTA);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_lets_go_of_everything_whatever_is_under_way() {
    let mut net = Net::new(8, 2).await;
    let Member { actors, land, .. } = net.members.remove(3);
    let selecting = tokio::spawn({
        let actors = actors.clone();
        async move { actors.select(terms(2)).await }
    });
    // The draw has begun.
    soon(async {
        while actors.status().await.unwrap().draws_left == QUOTA {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(actors.end()).await;
    assert_eq!(Arc::strong_count(&land), 1);
    let outcome = soon(selecting).await.unwrap();
    assert!(matches!(outcome, Ok(_) | Err(SelectError::Ended)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_protocol_says_ends_the_stream_and_nothing_else() {
    let net = Net::new(16, 4).await;
    let (one, other) = (&net.members[0], net.members[1].identity.fingerprint());
    for bytes in [&b"\xff\xff\xff"[..], b"\x00\x00\x01\xff", b"\x00\x00\x01\x0f", b"\x00\x00\x00"] {
        let mut stream = soon(one.endpoint.connect(&other, &PROTOCOL)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        let _it_may_be_cut = soon(stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
    }
    let mut stream = soon(one.endpoint.connect(&other, &PROTOCOL)).await.unwrap();
    stream.write_all(b"\x00\x00\x01\x0e").await.unwrap();
    stream.flush().await.unwrap();
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"\x00\x00\x01\x0f", "a ping has its pong");
}
