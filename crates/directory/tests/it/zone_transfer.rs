//! Transfers of the zone and notices of its changes, by a secondary that shares no code with the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use hmac::{Hmac, KeyInit, Mac};
use kith_directory::dns::tsig::{Algorithm, Key};
use kith_directory::server::{Secondary, Server, ServerConfig, ServerError};
use kith_directory::store::{
    BoxFuture, Difference, Held, Page, RedbStore, Revision, Shape, Store, StoreError, Stored,
};
use kith_identity::Fingerprint;
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_sansio::{Rng, SeededRng, Timestamp};
use kith_store::Database;
use sha2::Sha256;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::dns_answers::query;
use crate::dns_server::scrape;
use crate::world::{Zone, ask_over, identity, in_time, set, set_with_blobs, utc};

const NAME: &[u8] = b"\x08transfer\x07example\0";
const ALGORITHM: &[u8] = b"\x0bhmac-sha256\0";
const SECRET: [u8; 32] = [7; 32];
/// Bytes of a signature's record with this name, this algorithm and no other data.
const SIGNATURE: usize = 18 + 10 + 13 + 16 + 32;

/// A directory that takes notices and transfers with the right key to `secondary`.
fn with_secondary(secondary: &str) -> impl FnOnce(&mut ServerConfig) {
    let address = secondary.parse().unwrap();
    move |config| {
        let key = |name: &str| Arc::new(Key::new(name, Algorithm::HmacSha256, &SECRET).unwrap());
        config.tsig_keys = vec![key("transfer.example"), key("nobody.example")];
        config.secondaries = vec![Secondary { address, key: "Transfer.Example.".to_owned() }];
    }
}

async fn zone() -> Zone {
    Zone::start(with_secondary("127.0.0.1:9")).await
}

fn mac(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// The signature after RFC 8945 §4.3: what is signed beside the message, then the record.
fn sign(
    mut message: Vec<u8>,
    name: &[u8],
    secret: &[u8],
    time: Timestamp,
    prior: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let timers = [&time.0.to_be_bytes()[2..], &300_u16.to_be_bytes()].concat();
    let code = mac(secret, &[prior, &message, name, &[0, 255, 0, 0, 0, 0], ALGORITHM, &timers, &[0; 4]]);
    let id = [message[0], message[1]];
    let data = [ALGORITHM, &timers, &[0, 32], &code, &id, &[0; 4]].concat();
    message.extend_from_slice(
        &[name, &[0, 250, 0, 255, 0, 0, 0, 0], &(data.len() as u16).to_be_bytes(), &data].concat(),
    );
    message[11] += 1;
    (message, code)
}

fn signed(kind: RecordType, secret: &[u8], time: Timestamp) -> (Vec<u8>, Vec<u8>) {
    sign(query("0a.localhost", kind).to_vec().unwrap(), NAME, secret, time, &[])
}

/// An answer without its signature, and the signature's code after it was checked.
fn checked(answer: &[u8], prior: &[u8], first: bool) -> (Vec<u8>, Vec<u8>) {
    let (message, record) = answer.split_at(answer.len() - SIGNATURE);
    let mut message = message.to_vec();
    message[11] -= 1;
    let timers = &record[41..49];
    let code = record[51..83].to_vec();
    let prior = [&(prior.len() as u16).to_be_bytes(), prior].concat();
    let expected = match first {
        true => mac(&SECRET, &[&prior, &message, NAME, &[0, 255, 0, 0, 0, 0], ALGORITHM, timers, &[0; 4]]),
        false => mac(&SECRET, &[&prior, &message, timers]),
    };
    assert_eq!(code, expected, "the signature");
    (message, code)
}

/// All messages of the answer to a signed request, each with its signature checked.
async fn transfer(zone: &Zone, request: &(Vec<u8>, Vec<u8>)) -> Vec<Message> {
    let mut stream = TcpStream::connect(zone.dns).await.unwrap();
    let (mut answer, mut prior) = (ask_over(&mut stream, &request.0).await, request.1.clone());
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let (message, code) = checked(&answer, &prior, messages.is_empty());
        messages.push(Message::from_vec(&message).unwrap());
        prior = code;
        let Ok(length) = in_time(stream.read_u16()).await else { return messages };
        answer = vec![0; usize::from(length)];
        in_time(stream.read_exact(&mut answer)).await.unwrap();
    }
}

fn serials(messages: &[Message]) -> Vec<u32> {
    let records = messages.iter().flat_map(|message| &message.answers);
    let serials = records.filter_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    });
    serials.collect()
}

/// The texts of each name below the zone.
fn texts(messages: &[Message]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut all: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for record in messages.iter().flat_map(|message| &message.answers) {
        if let RData::TXT(txt) = &record.data {
            assert!((1..=60).contains(&record.ttl), "{}", record.ttl);
            all.entry(record.name.to_ascii()).or_default().push(txt.txt_data.concat());
        }
    }
    all
}

#[tokio::test]
async fn a_transfer_of_many_messages_holds_every_set_and_each_is_signed() {
    const SETS: u64 = 20_000;
    let database = Database::in_memory().unwrap();
    // Long enough ago to be told at once.
    let (store, now) = (RedbStore::new(database.clone()), utc().minus_secs(60));
    let mut waiting = Vec::new();
    for seed in 0..SETS {
        let identity = identity(seed);
        let set = match seed {
            0 => set_with_blobs(&identity, now, &[4096]),
            1 => set(&identity, now.minus_secs(30), 20),
            _ => set(&identity, now, 3000),
        };
        waiting.push(store.announce(if seed == 1 { now.minus_secs(30) } else { now }, set));
        if waiting.len() == 500 {
            for announce in waiting.drain(..) {
                announce.await.unwrap();
            }
        }
    }
    drop(waiting);
    drop(store);
    let zone = Zone::over(database, with_secondary("127.0.0.1:9")).await;
    let messages = transfer(&zone, &signed(RecordType::AXFR, &SECRET, utc())).await;
    assert!((100..1000).contains(&messages.len()), "{} messages", messages.len());
    let (first, last) = (&messages[0].answers, &messages.last().unwrap().answers);
    assert!(matches!(first[0].data, RData::SOA(_)) && matches!(first[1].data, RData::NS(_)));
    assert!(matches!(last.last().unwrap().data, RData::SOA(_)));
    assert_eq!(serials(&messages).len(), 2);
    let texts = texts(&messages);
    assert_eq!(texts.len() as u64, SETS, "one is over, and was not removed yet under this number");
    for (seed, expected) in [(2, 6), (777, 6), (SETS - 1, 6), (0, 1)] {
        let fingerprint: Fingerprint = identity(seed).fingerprint();
        let name = format!("{}.", zone.ni(&identity(seed)).fqdn().unwrap());
        let texts = &texts[&name];
        assert_eq!(texts.len(), expected);
        match seed {
            0 => assert_eq!(texts[0], b"kithnet=https"),
            _ => drop(RecordSet::from_txt(texts).unwrap().verify(&fingerprint, utc()).unwrap()),
        }
    }
    zone.stop().await;
}

#[tokio::test]
async fn requests_without_a_right_signature_get_nothing_but_the_reason() {
    let zone = zone().await;
    let ask = async |query: &[u8]| zone.ask_tcp(query).await;
    let bare = query("0a.localhost", RecordType::AXFR).to_vec().unwrap();
    let refused = Message::from_vec(&ask(&bare).await).unwrap();
    assert_eq!((refused.metadata.response_code, refused.answers.len()), (ResponseCode::Refused, 0));
    let error = |answer: &[u8], other: usize| {
        assert_eq!(answer[3] & 15, 9, "NOTAUTH");
        let at = answer.len() - other - 4;
        u16::from_be_bytes([answer[at], answer[at + 1]])
    };
    let wrong = ask(&signed(RecordType::AXFR, &[8; 32], utc()).0).await;
    assert_eq!(error(&wrong, 0), 16, "BADSIG");
    let unknown = sign(bare.clone(), b"\x07unknown\0", &SECRET, utc(), &[]).0;
    assert_eq!(error(&ask(&unknown).await, 0), 17, "BADKEY");
    for time in [utc().minus_secs(400), utc().plus_secs(400)] {
        let answer = ask(&signed(RecordType::AXFR, &SECRET, time).0).await;
        assert_eq!(error(&answer, 6), 18, "BADTIME");
        let mut clock = [0; 8];
        clock[2..].copy_from_slice(&answer[answer.len() - 6..]);
        assert!(u64::from_be_bytes(clock).abs_diff(utc().0) < 60);
    }
    let mut changed = signed(RecordType::AXFR, &SECRET, utc()).0;
    let at = changed.len() - 20;
    changed[at] ^= 1;
    assert_eq!(error(&ask(&changed).await, 0), 16, "another code");
    // A key that no secondary has signs queries, and transfers nothing.
    let (nobody, _) = sign(bare.clone(), b"\x06nobody\x07example\0", &SECRET, utc(), &[]);
    assert_eq!(ask(&nobody).await[3] & 15, 5);
    let mut not_last = signed(RecordType::AXFR, &SECRET, utc()).0;
    not_last.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    not_last[11] += 1;
    assert_eq!(ask(&not_last).await[3] & 15, 1, "FORMERR");
    // Transfers go over TCP.
    assert_eq!(zone.ask_udp(&signed(RecordType::AXFR, &SECRET, utc()).0).await[3] & 15, 5);
    let (elsewhere, prior) =
        sign(query("localhost", RecordType::AXFR).to_vec().unwrap(), NAME, &SECRET, utc(), &[]);
    let (answer, _) = checked(&ask(&elsewhere).await, &prior, true);
    assert_eq!(answer[3] & 15, 5);
    zone.stop().await;
}

/// The request for what changed since a serial number.
fn since(known: u32) -> (Vec<u8>, Vec<u8>) {
    let mut request = query("0a.localhost", RecordType::IXFR).to_vec().unwrap();
    request[9] = 1;
    request.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0]);
    request.extend_from_slice(&known.to_be_bytes());
    request.extend_from_slice(&[0; 16]);
    sign(request, NAME, &SECRET, utc(), &[])
}

/// How a transfer came.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Nothing,
    Changes,
    Everything,
}

/// A secondary that takes a difference only where it fits to the last record.
#[derive(Debug, Default, PartialEq, Eq)]
struct Strict {
    serial: u32,
    /// Name, value and TTL of each record but the SOA.
    records: BTreeSet<(String, String, u32)>,
}

impl Strict {
    async fn whole(zone: &Zone) -> Strict {
        let mut strict = Strict::default();
        let came = strict.take(&transfer(zone, &signed(RecordType::AXFR, &SECRET, utc())).await);
        assert_eq!(came, Came::Everything);
        strict
    }

    async fn follow(&mut self, zone: &Zone) -> Came {
        self.take(&transfer(zone, &since(self.serial)).await)
    }

    fn take(&mut self, messages: &[Message]) -> Came {
        let records: Vec<_> = messages.iter().flat_map(|message| &message.answers).collect();
        let serial = |at: usize| match records.get(at).map(|record| &record.data) {
            Some(RData::SOA(soa)) => Some(soa.serial),
            _ => None,
        };
        let (new, last) = (serial(0).unwrap(), records.len() - 1);
        if last == 0 {
            assert!(new <= self.serial);
            return Came::Nothing;
        }
        assert_eq!(serial(last), Some(new));
        let rest = records[1..last].iter();
        let row = |record: &Record| (record.name.to_ascii(), format!("{:?}", record.data), record.ttl);
        if serial(1).is_none() {
            self.records = rest.clone().map(|record| row(record)).collect();
            assert_eq!(self.records.len(), last - 1, "a record came twice");
            self.serial = new;
            return Came::Everything;
        }
        assert_eq!(serial(1), Some(self.serial), "what is taken away is of the zone that is there");
        let mut adding = false;
        for record in rest.skip(1) {
            match &record.data {
                RData::SOA(soa) => {
                    assert!(!std::mem::replace(&mut adding, true), "one difference");
                    assert_eq!(soa.serial, new);
                }
                _ if adding => assert!(self.records.insert(row(record)), "{record} is there"),
                _ => assert!(self.records.remove(&row(record)), "{record} is not there"),
            }
        }
        assert!(adding);
        self.serial = new;
        Came::Changes
    }

    /// The texts under each name.
    fn names(&self) -> BTreeSet<&str> {
        self.records.iter().map(|(name, ..)| name.as_str()).filter(|name| name.len() > 60).collect()
    }
}

/// A store with sets that were announced long enough ago to be told at once.
async fn stored(sets: u64) -> Arc<RedbStore> {
    let store = RedbStore::new(Database::in_memory().unwrap());
    for seed in 0..sets {
        store.announce(utc().minus_secs(100), set(&identity(seed), utc(), 3000)).await.unwrap();
    }
    Arc::new(store)
}

#[tokio::test]
async fn a_secondary_gets_what_changed_and_nothing_else() {
    let store = stored(200).await;
    let zone = Zone::with(Arc::clone(&store) as Arc<dyn Store>, with_secondary("127.0.0.1:9")).await;
    let mut strict = Strict::whole(&zone).await;
    assert_eq!(strict.names().len(), 200);
    assert_eq!(strict.follow(&zone).await, Came::Nothing);
    let udp = Message::from_vec(&zone.ask_udp(&since(strict.serial - 1).0).await).unwrap();
    assert_eq!(serials(&[udp]), [strict.serial], "over UDP it is told to come over TCP");
    let mut rng = SeededRng::new(7);
    for round in 1..6_u64 {
        // Replaced, new, too large for the DNS, soon over.
        for _ in 0..60 {
            let who = identity(rng.below(230));
            let made = utc().plus_secs(round * 8);
            let set = match rng.below(4) {
                0 => set(&who, made, 55),
                1 => set_with_blobs(&who, made, &[4096]),
                2 => set_with_blobs(&who, made, &[600, 700]),
                _ => set(&who, made, 3000),
            };
            store.announce(utc().minus_secs(50), set).await.unwrap();
        }
        if round % 2 == 0 {
            store.expire(utc().plus_secs(200), 1000).await.unwrap();
        }
        // Told within a second, in one number or in two.
        in_time(async {
            loop {
                let came = strict.follow(&zone).await;
                assert_ne!(came, Came::Everything);
                let whole = Strict::whole(&zone).await;
                if whole.serial == strict.serial {
                    assert_eq!(whole, strict);
                    if store.revision().await.unwrap().newest as u32 == whole.serial {
                        break;
                    }
                }
            }
        })
        .await;
        let held = store.count().await.unwrap();
        assert_eq!(strict.names().len() as u64, held.unwrap());
    }
    for unknown in [0, 1, strict.serial - 1_000_000] {
        let mut other = Strict { serial: unknown, ..Strict::default() };
        assert_eq!(other.follow(&zone).await, Came::Everything);
        assert_eq!(other, strict);
    }
    zone.stop().await;
}

#[tokio::test]
async fn a_zone_is_transferred_as_it_was_under_the_number_that_was_told() {
    let store = stored(50).await;
    let zone = Zone::with(Arc::clone(&store) as Arc<dyn Store>, with_secondary("127.0.0.1:9")).await;
    let before = Strict::whole(&zone).await;
    // In the batch of now, which is told when it is over.
    for seed in 40..60 {
        store.announce(utc(), set(&identity(seed), utc().plus_secs(1), 3000)).await.unwrap();
    }
    let after = Strict::whole(&zone).await;
    assert!(after == before || after.serial != before.serial, "another zone under the same number");
    zone.stop().await;
}

#[tokio::test]
async fn other_name_servers_are_told_and_spanned_by_no_difference() {
    let store = stored(5).await;
    let start = async |name_server: &str| {
        let name_servers = vec![name_server.to_owned()];
        let change = move |config: &mut ServerConfig| {
            with_secondary("127.0.0.1:9")(config);
            config.name_servers = name_servers;
        };
        Zone::with(Arc::clone(&store) as Arc<dyn Store>, change).await
    };
    // Each newer than the one before.
    let newest = std::cell::Cell::new(utc());
    let change = async |seed| {
        newest.set(newest.get().plus_secs(1));
        store.announce(utc().minus_secs(50), set(&identity(seed), newest.get(), 3000)).await.unwrap();
    };
    let zone = start("ns1.example.org").await;
    let mut strict = Strict::whole(&zone).await;
    change(10).await;
    in_time(async { while strict.follow(&zone).await == Came::Nothing {} }).await;
    assert_eq!(strict.names().len(), 6);
    // While it runs another one is started with other settings.
    let other = start("ns2.example.org").await;
    change(11).await;
    for (zone, name) in [(&other, "ns2"), (&zone, "ns1"), (&other, "ns2")] {
        change(20).await;
        let came = in_time(async {
            loop {
                match strict.follow(zone).await {
                    Came::Nothing => {}
                    came => break came,
                }
            }
        })
        .await;
        assert!(strict.records.iter().any(|(_, value, _)| value.contains(name)), "{name}: {strict:?}");
        assert_eq!(strict.records.iter().filter(|(_, value, _)| value.starts_with("NS")).count(), 1);
        assert_eq!(came, Came::Everything);
        change(21).await;
    }
    zone.stop().await;
    in_time(async { while strict.follow(&other).await == Came::Nothing {} }).await;
    change(22).await;
    let came = in_time(async {
        loop {
            match strict.follow(&other).await {
                Came::Nothing => {}
                came => break came,
            }
        }
    })
    .await;
    assert_eq!(came, Came::Changes, "the other one alone goes on with differences");
    other.stop().await;
}

#[tokio::test]
async fn signed_queries_get_signed_answers_over_udp_and_tcp() {
    let zone = zone().await;
    let alice = identity(1);
    assert_eq!(zone.put(&alice, &set(&alice, utc(), 600)).await.status, 201);
    let name = zone.ni(&alice).fqdn().unwrap();
    for (name, kind) in [("0a.localhost", RecordType::SOA), (&name, RecordType::TXT)] {
        let (request, prior) = sign(query(name, kind).to_vec().unwrap(), NAME, &SECRET, utc(), &[]);
        let udp = zone.ask_udp(&request).await;
        assert!(udp.len() <= 512);
        for answer in [udp, zone.ask_tcp(&request).await] {
            let answer = Message::from_vec(&checked(&answer, &prior, true).0).unwrap();
            assert!(answer.metadata.truncation || !answer.answers.is_empty());
        }
    }
    zone.stop().await;
}

/// A store in which looking up takes as long as the test likes.
struct Slow {
    store: RedbStore,
    asked: Semaphore,
    answers: Semaphore,
}

impl Store for Slow {
    fn announce(&self, now: Timestamp, set: VerifiedRecordSet) -> BoxFuture<'_, Result<Stored, StoreError>> {
        self.store.announce(now, set)
    }

    fn lookup<'a>(
        &'a self,
        now: Timestamp,
        fingerprint: &'a Fingerprint,
    ) -> BoxFuture<'a, Result<Option<VerifiedRecordSet>, StoreError>> {
        self.store.lookup(now, fingerprint)
    }

    fn held(
        &self,
        now: Timestamp,
        fingerprint: Fingerprint,
    ) -> BoxFuture<'_, Result<Option<Held>, StoreError>> {
        Box::pin(async move {
            self.asked.add_permits(1);
            self.answers.acquire().await.unwrap().forget();
            self.store.held(now, fingerprint).await
        })
    }

    fn expire(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.store.expire(now, limit)
    }

    fn page(
        &self,
        number: u64,
        after: Option<Fingerprint>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.store.page(number, after, limit)
    }

    fn changed(&self, from: u64, to: u64) -> BoxFuture<'_, Result<Option<Vec<Fingerprint>>, StoreError>> {
        self.store.changed(from, to)
    }

    fn differences(
        &self,
        from: u64,
        to: u64,
        of: Vec<Fingerprint>,
    ) -> BoxFuture<'_, Result<Option<Vec<Difference>>, StoreError>> {
        self.store.differences(from, to, of)
    }

    fn cut(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.cut(number)
    }

    fn reshape(&self, now: Timestamp, shape: Shape) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.reshape(now, shape)
    }

    fn shape(&self) -> BoxFuture<'_, Result<Option<Shape>, StoreError>> {
        self.store.shape()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.store.revision()
    }

    fn seal(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.seal(number)
    }
}

#[tokio::test]
async fn a_signed_query_that_waits_for_the_store_holds_up_nobody() {
    let store = RedbStore::new(Database::in_memory().unwrap());
    let slow = Arc::new(Slow { store, asked: Semaphore::new(0), answers: Semaphore::new(0) });
    let zone = Zone::with(Arc::clone(&slow) as Arc<dyn Store>, |config| {
        with_secondary("127.0.0.1:9")(config);
        config.dns_sockets = Some(1);
    })
    .await;
    let alice = identity(1);
    assert_eq!(zone.put(&alice, &set(&alice, utc(), 600)).await.status, 201);
    let name = zone.ni(&alice).fqdn().unwrap();
    let (request, prior) = sign(query(&name, RecordType::TXT).to_vec().unwrap(), NAME, &SECRET, utc(), &[]);
    let waiting = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    waiting.send_to(&request, zone.dns).await.unwrap();
    in_time(slow.asked.acquire()).await.unwrap().forget();
    let other = query("0a.localhost", RecordType::SOA).to_vec().unwrap();
    assert_eq!(zone.ask_udp(&other).await[3] & 15, 0, "answered meanwhile");
    let (signed, signed_prior) = sign(other, NAME, &SECRET, utc(), &[]);
    checked(&zone.ask_udp(&signed).await, &signed_prior, true);
    slow.answers.add_permits(1);
    let mut answer = [0; 1232];
    let length = in_time(waiting.recv(&mut answer)).await.unwrap();
    let answer = Message::from_vec(&checked(&answer[..length], &prior, true).0).unwrap();
    assert!(answer.metadata.truncation || !answer.answers.is_empty());
    zone.stop().await;
}

#[tokio::test]
async fn transfers_are_counted_by_what_became_of_them() {
    let zone = Zone::start(|config| {
        with_secondary("127.0.0.1:9")(config);
        config.metrics = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    transfer(&zone, &signed(RecordType::AXFR, &SECRET, utc())).await;
    let page = in_time(async {
        loop {
            // It is counted a moment after its last byte.
            let page = scrape(zone.metrics.unwrap(), "GET /metrics HTTP/1.1").await;
            if page.contains("kith_directory_transfers_total{outcome=\"whole\"} 1") {
                return page;
            }
        }
    })
    .await;
    for outcome in ["incremental", "current", "refused", "broken_off", "failed"] {
        let line = format!("kith_directory_transfers_total{{outcome=\"{outcome}\"}} 0");
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
    zone.stop().await;
}

#[tokio::test]
async fn two_keys_with_one_name_are_refused() {
    let mut config = ServerConfig::new("localhost:443".parse().unwrap());
    let key = |name: &str, secret| Arc::new(Key::new(name, Algorithm::HmacSha256, secret).unwrap());
    config.tsig_keys = vec![key("transfer.example", &SECRET), key("Transfer.Example.", &[8; 32])];
    let store = Arc::new(RedbStore::new(Database::in_memory().unwrap()));
    let error = Server::bind(config, store, &identity(1000)).await.err().unwrap();
    assert!(matches!(&error, ServerError::KeyTwice(name) if name == "transfer.example"), "{error}");
}

#[tokio::test]
async fn a_change_is_told_until_the_secondary_acknowledges_it_with_its_signature() {
    let secondary = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let zone = Zone::start(with_secondary(&secondary.local_addr().unwrap().to_string())).await;
    let notice = async || {
        let mut packet = [0; 1232];
        let (length, from) = in_time(secondary.recv_from(&mut packet)).await.unwrap();
        let record = &packet[length - SIGNATURE..length];
        let message = Message::from_vec(&packet[..length]).unwrap();
        (message, record[51..83].to_vec(), from)
    };
    let answered = |message: &Message, code: &[u8], secret: &[u8]| {
        let bytes = [&message.metadata.id.to_be_bytes()[..], &[0xa4, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        let question = query("0a.localhost", RecordType::SOA).to_vec().unwrap();
        let bytes = [bytes, question[12..].to_vec()].concat();
        let prior = [&[0, 32], code].concat();
        sign(bytes, NAME, secret, utc(), &prior).0
    };
    let (first, code, from) = notice().await;
    assert_eq!(first.queries[0].query_type(), RecordType::SOA);
    // Neither a forged answer nor one to another notice counts.
    secondary.send_to(&answered(&first, &code, &[8; 32]), from).await.unwrap();
    secondary.send_to(&answered(&first, &[0; 32], &SECRET), from).await.unwrap();
    let (again, code, from) = notice().await;
    let before = serials(std::slice::from_ref(&again))[0];
    secondary.send_to(&answered(&again, &code, &SECRET), from).await.unwrap();
    let alice = identity(1);
    assert_eq!(zone.put(&alice, &set(&alice, utc(), 600)).await.status, 201);
    let (changed, ..) = notice().await;
    let after = serials(&[changed])[0];
    assert!(after > before && u64::from(after).abs_diff(utc().0 / 10) < 10, "{before} then {after}");
    zone.stop().await;
}
