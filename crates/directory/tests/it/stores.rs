//! What every store does, whatever lies behind it.

use std::sync::Arc;

use kith_directory::store::{RedbStore, RedisConfig, RedisError, RedisStore, Store, StoreError, Stored};
use kith_identity::Identity;
use kith_identity::record::VerifiedRecordSet;
use kith_sansio::Timestamp;
use kith_store::Database;
use kith_vnet::needs;

use crate::servers::{Cluster, Server, wait_for};
use crate::world::{NOW, identity, in_time, set, set_with_blobs};

type Any = Arc<dyn Store>;

async fn redis(url: &str) -> Result<RedisStore, RedisError> {
    in_time(RedisStore::connect(config(url))).await
}

fn config(url: &str) -> RedisConfig {
    RedisConfig::parse(&[url]).unwrap().for_zone("example.org")
}

async fn put(store: &dyn Store, now: Timestamp, set: &VerifiedRecordSet) -> Stored {
    in_time(store.announce(now, set.clone())).await.unwrap()
}

async fn held(store: &dyn Store, now: Timestamp, who: &Identity) -> Option<VerifiedRecordSet> {
    in_time(store.lookup(now, &who.fingerprint())).await.unwrap()
}

#[tokio::test]
async fn the_embedded_store_does_what_every_store_does() {
    every_store(Arc::new(RedbStore::new(Database::in_memory().unwrap()))).await;
}

#[tokio::test]
async fn a_redis_server_does_what_every_store_does() {
    needs!("redis-server", "redis-cli");
    let server = Server::start(&[]);
    every_store(Arc::new(redis(&server.url()).await.unwrap())).await;
    can_be_walked(&async |database| redis(&format!("{}/{database}", server.url())).await.unwrap()).await;
}

#[tokio::test]
async fn a_redis_cluster_does_what_every_store_does() {
    needs!("redis-server", "redis-cli");
    let cluster = Cluster::start();
    every_store(Arc::new(redis(&cluster.url()).await.unwrap())).await;
    let zone = async |number| {
        let config = RedisConfig::parse(&[cluster.url()]).unwrap().for_zone(&format!("zone{number}.example"));
        in_time(RedisStore::connect(config)).await.unwrap()
    };
    can_be_walked(&zone).await;
}

/// What a zone transfer needs, each with an empty store.
async fn can_be_walked(empty: &impl AsyncFn(u8) -> RedisStore) {
    use crate::store_walk as walk;
    walk::a_walk_meets_every_set_once_whatever_the_size_of_its_pages(&empty(1).await).await;
    walk::a_walk_goes_on_behind_a_set_that_was_replaced_or_went_away(&empty(2).await).await;
    walk::every_change_raises_the_revision_and_nothing_else_does(&empty(3).await).await;
    walk::a_change_that_comes_late_takes_a_number_that_was_not_told(&empty(4).await).await;
    use crate::store_history as history;
    for seed in 0..3 {
        history::secondaries_follow_every_zone_that_is_told(&empty(5 + seed).await, seed.into()).await;
    }
    history::a_number_of_another_store_is_not_known(&empty(8).await).await;
    history::another_shape_is_a_change_that_no_difference_spans(&empty(9).await).await;
    history::a_history_that_was_cut_begins_later(&empty(10).await).await;
    history::what_is_too_old_is_forgotten(&empty(11).await).await;
    history::a_history_has_a_bound(&empty(12).await, 30).await;
}

async fn every_store(store: Any) {
    follows_the_replay_rule(&*store).await;
    lets_sets_vanish_at_once_and_remembers_them(&*store).await;
    takes_over_from_a_clock_that_was_wrong(&*store).await;
    takes_back_what_a_clock_that_was_ahead_swept_away(&*store).await;
    removes_no_more_than_asked_for(&*store).await;
    gives_back_what_it_got(&*store).await;
    keeps_the_newest_of_many_at_once(&store).await;
}

async fn follows_the_replay_rule(store: &dyn Store) {
    let alice = identity(100);
    assert_eq!(held(store, NOW, &alice).await, None);
    let (first, second) = (set(&alice, NOW, 600), set(&alice, NOW.plus_secs(5), 600));
    assert_eq!(put(store, NOW, &first).await, Stored::Created);
    assert_eq!(put(store, NOW, &first).await, Stored::Repeated);
    assert_eq!(put(store, NOW, &set(&alice, NOW, 601)).await, Stored::NotNewer, "another of the same time");
    assert_eq!(held(store, NOW, &alice).await, Some(first.clone()));
    assert_eq!(put(store, NOW, &second).await, Stored::Replaced);
    assert_eq!(put(store, NOW, &first).await, Stored::NotNewer);
    assert_eq!(put(store, NOW.plus_secs(50), &second).await, Stored::Repeated);
    assert_eq!(held(store, NOW.plus_secs(5), &alice).await, Some(second));
    assert_eq!(held(store, NOW, &identity(101)).await, None);
}

async fn lets_sets_vanish_at_once_and_remembers_them(store: &dyn Store) {
    let bob = identity(110);
    let short = set(&bob, NOW, 10);
    put(store, NOW, &short).await;
    assert_eq!(held(store, NOW.plus_secs(9), &bob).await, Some(short));
    assert_eq!(held(store, NOW.plus_secs(10), &bob).await, None);
    let older = set(&bob, NOW.minus_secs(1), 1000);
    assert_eq!(put(store, NOW.plus_secs(10), &older).await, Stored::NotNewer, "expired, and remembered");
    while in_time(store.expire(NOW.plus_secs(10), 100)).await.unwrap() > 0 {}
    assert_eq!(put(store, NOW.plus_secs(10), &older).await, Stored::NotNewer, "swept, and remembered");
    let newer = set(&bob, NOW.plus_secs(10), 1000);
    assert_eq!(put(store, NOW.plus_secs(10), &newer).await, Stored::Created, "there was none");
    let late = set(&bob, NOW.plus_secs(86_469), 1000);
    assert_eq!(put(store, NOW.plus_secs(86_469), &late).await, Stored::Created);
    assert_eq!(put(store, NOW.plus_secs(86_469), &newer).await, Stored::NotNewer);
    let forgotten = NOW.plus_secs(86_469 + 86_460);
    assert_eq!(put(store, forgotten, &newer).await, Stored::Created, "nothing is remembered that long");
}

async fn takes_over_from_a_clock_that_was_wrong(store: &dyn Store) {
    let carol = identity(115);
    let ahead = NOW.plus_secs(10 * 365 * 86_400);
    let wrong = set(&carol, ahead, 600);
    assert_eq!(put(store, ahead, &wrong).await, Stored::Created);
    assert_eq!(held(store, ahead, &carol).await, Some(wrong));
    assert_eq!(held(store, NOW, &carol).await, None);
    let right = set(&carol, NOW, 600);
    assert_eq!(put(store, NOW, &right).await, Stored::Created);
    assert_eq!(held(store, NOW, &carol).await, Some(right));
    assert_eq!(put(store, NOW, &set(&carol, NOW.minus_secs(1), 600)).await, Stored::NotNewer);
}

async fn takes_back_what_a_clock_that_was_ahead_swept_away(store: &dyn Store) {
    let dora = identity(117);
    let set = set(&dora, NOW, 3600);
    put(store, NOW, &set).await;
    assert_eq!(held(store, NOW, &dora).await.as_ref(), Some(&set));
    while in_time(store.expire(NOW.plus_secs(7200), 100)).await.unwrap() > 0 {}
    assert_eq!(held(store, NOW, &dora).await, None);
    assert_eq!(put(store, NOW, &set).await, Stored::Created, "a change that secondaries hear of");
    assert_eq!(put(store, NOW, &set).await, Stored::Repeated);
    assert_eq!(held(store, NOW, &dora).await, Some(set));
}

async fn removes_no_more_than_asked_for(store: &dyn Store) {
    while in_time(store.expire(NOW.plus_secs(400_000), 100)).await.unwrap() > 0 {}
    for seed in 120..125 {
        put(store, NOW, &set(&identity(seed), NOW, 10)).await;
    }
    put(store, NOW, &set(&identity(125), NOW, 11)).await;
    let at = NOW.plus_secs(10);
    assert_eq!(in_time(store.expire(NOW.plus_secs(9), 100)).await.unwrap(), 0);
    assert_eq!(in_time(store.expire(at, 3)).await.unwrap(), 3);
    assert_eq!(in_time(store.expire(at, 3)).await.unwrap(), 2);
    assert_eq!(in_time(store.expire(at, 3)).await.unwrap(), 0);
    assert!(held(store, at, &identity(125)).await.is_some());
}

async fn gives_back_what_it_got(store: &dyn Store) {
    let carol = identity(130);
    for (n, sizes) in [[0, 1, 2], [4096, 4096, 4000]].iter().enumerate() {
        let made = NOW.plus_secs(n as u64);
        let set = set_with_blobs(&carol, made, sizes);
        put(store, made, &set).await;
        assert_eq!(held(store, made, &carol).await.unwrap().to_bytes(), set.to_bytes());
    }
}

async fn keeps_the_newest_of_many_at_once(store: &Any) {
    let dora = identity(140);
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let (store, set) = (Arc::clone(store), set(&dora, NOW.plus_secs(n * 7 % 40), 600));
            tokio::spawn(async move { put(&*store, NOW, &set).await })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        created += usize::from(in_time(task).await.unwrap() == Stored::Created);
    }
    assert_eq!(created, 1);
    assert_eq!(held(&**store, NOW, &dora).await.unwrap().timestamp(), NOW.plus_secs(39));
}

#[tokio::test]
async fn directories_share_a_store_and_zones_do_not() {
    needs!("redis-server", "redis-cli");
    let server = Server::start(&[]);
    let (one, two) = (redis(&server.url()).await.unwrap(), redis(&server.url()).await.unwrap());
    let other = RedisConfig::parse(&[server.url()]).unwrap().for_zone("example.net");
    let other = in_time(RedisStore::connect(other)).await.unwrap();
    let alice = identity(1);
    let (first, second) = (set(&alice, NOW, 600), set(&alice, NOW.plus_secs(1), 600));
    assert_eq!(put(&one, NOW, &first).await, Stored::Created);
    assert_eq!(held(&two, NOW, &alice).await, Some(first.clone()));
    assert_eq!(put(&two, NOW, &second).await, Stored::Replaced);
    assert_eq!(held(&one, NOW, &alice).await, Some(second), "nothing old is kept in memory");
    assert_eq!(put(&one, NOW, &first).await, Stored::NotNewer);
    assert_eq!(held(&other, NOW, &alice).await, None);
    assert_eq!(put(&other, NOW, &first).await, Stored::Created);
    let elsewhere = redis(&format!("{}/5", server.url())).await.unwrap();
    assert_eq!(held(&elsewhere, NOW, &alice).await, None);
}

#[tokio::test]
async fn what_is_damaged_is_not_served_and_the_next_announce_mends_it() {
    needs!("redis-server", "redis-cli");
    let server = Server::start(&[]);
    let store = redis(&server.url()).await.unwrap();
    let alice = identity(1);
    let fingerprint = alice.fingerprint();
    put(&store, NOW, &set(&alice, NOW, 600)).await;
    let keys = server.cli(&["--raw", "keys", "kith:example.org:*"]);
    let key = |what: &str| keys.lines().find(|key| key.contains(what)).unwrap().to_owned();
    let (of_set, seen) = (key(":set:"), key(":seen:"));
    assert!(of_set.ends_with(&fingerprint.to_string()));
    let ttl: u64 = server.cli(&["ttl", &of_set]).parse().unwrap();
    assert!((4190..=4200).contains(&ttl), "an hour more than its life: {ttl}");
    let ttl: u64 = server.cli(&["ttl", &seen]).parse().unwrap();
    assert!((86_450..=86_460).contains(&ttl), "{ttl}");
    let huge = "x".repeat(100_000);
    for damage in ["garbage", huge.as_str()] {
        server.cli(&["set", &of_set, damage]);
        let found = in_time(store.lookup(NOW, &fingerprint)).await;
        assert!(matches!(found, Err(StoreError::Damaged(who)) if who == fingerprint), "{found:?}");
    }
    assert_eq!(put(&store, NOW, &set(&alice, NOW, 600)).await, Stored::Repeated);
    assert!(held(&store, NOW, &alice).await.is_some());
    server.cli(&["set", &seen, "garbage"]);
    assert_eq!(put(&store, NOW, &set(&alice, NOW.minus_secs(1), 600)).await, Stored::Created);
    let bytes = set(&identity(2), NOW, 600).to_bytes();
    let hex: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let script = format!("return redis.call('set', KEYS[1], \"{hex}\")");
    server.cli(&["eval", &script, "1", &of_set]);
    assert!(in_time(store.lookup(NOW, &fingerprint)).await.is_err(), "somebody else's set");
}

#[tokio::test]
async fn what_is_gone_or_damaged_in_redis_is_in_no_difference() {
    needs!("redis-server", "redis-cli");
    let server = Server::start(&[]);
    let store = redis(&server.url()).await.unwrap();
    let (alice, key) = (identity(1), |what: &str| {
        let keys = server.cli(&["--raw", "keys", "kith:example.org:*"]);
        keys.lines().find(|key| key.contains(what)).unwrap().to_owned()
    });
    let at = |round: u64| NOW.plus_secs(round * 20);
    let mut round = 0;
    let mut announced = async || {
        round += 1;
        put(&store, at(round), &set(&alice, at(round), 600)).await;
        crate::store_walk::tell(&store, at(round).plus_secs(11)).await
    };
    let mut before = announced().await;
    for damage in 0..5 {
        let after = announced().await;
        assert!(in_time(store.changed(before, after)).await.unwrap().is_some(), "before damage {damage}");
        match damage {
            0 => drop(server.cli(&["del", &key(":set:")])),
            1 => drop(server.cli(&["set", &key(":set:"), "garbage"])),
            2 => drop(server.cli(&["del", &key(":history")])),
            3 => drop(server.cli(&["set", &key(":kept"), "garbage"])),
            _ => drop(server.cli(&["set", &key(":revision"), &format!("{} 1 1", after + 1)])),
        }
        let last = announced().await;
        let known = async |from| in_time(store.changed(from, last)).await.unwrap().is_some();
        assert!(!known(before).await, "damage {damage}");
        // Where the rows alone are gone, what is there is known.
        assert_eq!(known(after).await, damage == 2, "damage {damage}");
        before = last;
    }
    let garbage = "kithnet record set v1 and nothing that could be read";
    server.cli(&["set", &key(":set:"), garbage]);
    let after = announced().await;
    let found = in_time(store.differences(before, after, vec![alice.fingerprint()])).await;
    assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
    let ttl: u64 = server.cli(&["ttl", &key(":history")]).parse().unwrap();
    assert!((86_300..=86_400).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_server_that_would_lose_what_it_acknowledged_is_refused() {
    needs!("redis-server", "redis-cli");
    let server = Server::start(&[]);
    for (setting, value, safe) in [
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ("appendonly", "no", "yes"),
    ] {
        server.cli(&["config", "set", setting, value]);
        let error = redis(&server.url()).await.err().unwrap();
        assert!(matches!(error, RedisError::Settings { setting: found, .. } if found == setting), "{error}");
        assert!(error.hint().contains(setting), "{}", error.hint());
        server.cli(&["config", "set", setting, safe]);
    }
    redis(&server.url()).await.unwrap();
}

#[tokio::test]
async fn errors_say_what_to_do() {
    needs!("redis-server", "redis-cli");
    let server = Server::start(&["--requirepass", "se:cret"]);
    let at = |login: &str| format!("redis://{login}127.0.0.1:{}", server.port);
    for (login, code) in [("", "NOAUTH"), (":wrong@", "WRONGPASS")] {
        let error = redis(&at(login)).await.err().unwrap();
        assert!(matches!(&error, RedisError::Refused { code: found, .. } if found == code), "{error:?}");
        assert!(error.hint().contains("PASSWORD"), "{}", error.hint());
    }
    let store = redis(&at(":se%3Acret@")).await.unwrap();
    let alice = identity(1);
    put(&store, NOW, &set(&alice, NOW, 600)).await;
    let auth = |command: &[&str]| server.cli(&[&["-a", "se:cret", "--no-auth-warning"], command].concat());
    auth(&["config", "set", "maxmemory", "1"]);
    let refused = in_time(store.announce(NOW, set(&identity(2), NOW, 600))).await;
    assert!(
        matches!(&refused, Err(StoreError::Redis(e @ RedisError::Refused { code, .. })) if code == "OOM" && e.hint().contains("maxmemory")),
        "{refused:?}"
    );
    auth(&["config", "set", "maxmemory", "0"]);
    auth(&["script", "flush"]);
    assert_eq!(
        put(&store, NOW, &set(&identity(2), NOW, 600)).await,
        Stored::Created,
        "scripts are loaded again"
    );
    let cluster =
        redis(&format!("redis-cluster://:se%3Acret@127.0.0.1:{}", server.port)).await.err().unwrap();
    assert!(cluster.to_string().contains("cluster support disabled"), "{cluster}");
    drop(server);
    let gone = in_time(store.announce(NOW, set(&alice, NOW, 600))).await.unwrap_err();
    assert!(matches!(&gone, StoreError::Redis(error) if error.may_pass()), "{gone}");
}

/// An authority of the test, and a server whose certificate it made for an address.
struct Vouched {
    authority: Vec<u8>,
    server: Server,
    _folder: tempfile::TempDir,
}

impl Vouched {
    fn start(address: &str) -> Vouched {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec![address.to_owned()]).unwrap();
        let certificate = own.signed_by(&key, &issuer).unwrap().pem();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ca, certificate) = (file("ca", &authority), file("certificate", &certificate));
        let key = file("key", &key.serialize_pem());
        let options = [
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &ca],
            ["--tls-auth-clients", "no"],
        ];
        let server = Server::start(options.as_flattened());
        Vouched { authority: authority.into_bytes(), server, _folder: folder }
    }

    async fn connect(&self, ca: Option<Vec<u8>>) -> Result<RedisStore, RedisError> {
        let mut config = config(&format!("rediss://127.0.0.1:{}", self.server.port));
        config.ca = ca;
        in_time(RedisStore::connect(config)).await
    }
}

#[tokio::test]
async fn a_server_over_tls_is_used_when_the_right_authority_vouches_for_its_name() {
    needs!("redis-server", "redis-cli");
    let (right, elsewhere) = (Vouched::start("127.0.0.1"), Vouched::start("127.0.0.2"));
    let store = right.connect(Some(right.authority.clone())).await.unwrap();
    let alice = identity(1);
    assert_eq!(put(&store, NOW, &set(&alice, NOW, 600)).await, Stored::Created);
    assert_eq!(held(&store, NOW, &alice).await, Some(set(&alice, NOW, 600)));
    for (server, ca) in [
        (&right, None),
        (&right, Some(elsewhere.authority.clone())),
        (&elsewhere, Some(elsewhere.authority.clone())),
    ] {
        let error = server.connect(ca).await.err().unwrap();
        assert!(matches!(error, RedisError::NotTrusted { .. }) && !error.may_pass(), "{error}");
        assert!(error.hint().contains("store-ca"), "{}", error.hint());
    }
    for garbage in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = right.connect(Some(garbage.as_bytes().to_vec())).await.err().unwrap();
        assert!(matches!(error, RedisError::Authorities(_)), "{error}");
    }
    // Neither side mistakes the other for one without TLS, and nobody waits for ever.
    let plain = Server::start(&[]);
    for url in [format!("rediss://127.0.0.1:{}", plain.port), right.server.url()] {
        assert!(redis(&url).await.err().unwrap().may_pass());
    }
}

/// Announces sets of many nodes until `stop`; gives back those that were acknowledged.
pub(crate) fn load(
    store: &Any,
    workers: u64,
    stop: &tokio_util::sync::CancellationToken,
) -> Vec<tokio::task::JoinHandle<Vec<VerifiedRecordSet>>> {
    let spawn = |worker: u64| {
        let (store, stop) = (Arc::clone(store), stop.clone());
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                // Some nodes are new, some announce again.
                let who = identity(1_000_000 + worker * 10_000 + n % 50);
                let set = set(&who, NOW.plus_secs(n), 1000);
                match store.announce(NOW.plus_secs(n), set.clone()).await {
                    Ok(Stored::NotNewer) => panic!("nobody else announces it"),
                    Ok(_) => acknowledged.push(set),
                    Err(StoreError::Redis(error)) if error.may_pass() => {}
                    Err(error) => panic!("{error}"),
                }
                if stop.is_cancelled() {
                    break;
                }
            }
            acknowledged
        })
    };
    (0..workers).map(spawn).collect()
}

/// Every acknowledged set is there, or a newer one of the same node.
pub(crate) async fn all_there(
    store: &dyn Store,
    tasks: Vec<tokio::task::JoinHandle<Vec<VerifiedRecordSet>>>,
) -> usize {
    let mut count = 0;
    for task in tasks {
        for set in in_time(task).await.unwrap() {
            let found = in_time(store.lookup(set.timestamp(), &set.fingerprint())).await.unwrap();
            assert!(found.is_some_and(|found| found.timestamp() >= set.timestamp()), "{}", set.fingerprint());
            count += 1;
        }
    }
    count
}

/// Waits until `count` more announces came.
fn progress(servers: &[&Server], count: usize) {
    let announced = || -> usize {
        let calls = |stats: &str| -> Option<usize> {
            stats.split_once("cmdstat_evalsha:calls=")?.1.split(',').next()?.parse().ok()
        };
        servers.iter().filter_map(|server| calls(&server.cli(&["info", "commandstats"]))).sum()
    };
    let before = announced();
    wait_for("progress", || (announced() >= before + count).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_comes_back_with_all_that_was_acknowledged() {
    needs!("redis-server", "redis-cli");
    let mut server = Server::start(&[]);
    let store: Any = Arc::new(redis(&server.url()).await.unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let tasks = load(&store, 8, &stop);
    for _ in 0..2 {
        server = tokio::task::spawn_blocking(move || {
            progress(&[&server], 100);
            server.restart();
            server
        })
        .await
        .unwrap();
    }
    stop.cancel();
    assert!(all_there(&*store, tasks).await > 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_under_load_takes_nothing_with_it() {
    needs!("redis-server", "redis-cli");
    let mut cluster = Cluster::start();
    let store: Any = Arc::new(redis(&cluster.url()).await.unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let tasks = load(&store, 8, &stop);
    let cluster = tokio::task::spawn_blocking(move || {
        let masters: Vec<_> = cluster.servers[..3].iter().collect();
        progress(&masters, 200);
        cluster.servers[0].kill();
        cluster.servers[3].info("replication", "role:master");
        cluster
    })
    .await
    .unwrap();
    stop.cancel();
    assert!(all_there(&*store, tasks).await > 200);
    let (alice, mut seed) = (cluster.servers[3].cli(&["cluster", "myid"]), 1);
    assert!(!alice.is_empty());
    // The promoted server has no replica, so that nothing of its shard is acknowledged; the others go on.
    let mut outcomes = [0, 0];
    while outcomes.contains(&0) {
        let outcome = in_time(store.announce(NOW, set(&identity(seed), NOW, 600))).await;
        match outcome {
            Ok(_) => outcomes[0] += 1,
            Err(StoreError::Redis(RedisError::NotReplicated { got: 0, wanted: 1, .. })) => outcomes[1] += 1,
            other => panic!("{other:?}"),
        }
        seed += 1;
    }
}

#[tokio::test]
async fn what_no_replica_confirms_is_not_acknowledged_and_can_be_tried_again() {
    needs!("redis-server", "redis-cli");
    let master = Server::start(&[]);
    let port = master.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]);
    replica.info("replication", "master_link_status:up");
    master.info("replication", "state=online");
    let mut config = config(&master.url());
    config.replicas = Some(1);
    let store = in_time(RedisStore::connect(config)).await.unwrap();
    let alice = identity(1);
    assert_eq!(put(&store, NOW, &set(&alice, NOW, 600)).await, Stored::Created);
    replica.signal("STOP");
    let next = set(&alice, NOW.plus_secs(1), 600);
    let refused = in_time(store.announce(NOW, next.clone())).await;
    assert!(
        matches!(&refused, Err(StoreError::Redis(RedisError::NotReplicated { wanted: 1, got: 0, .. }))),
        "{refused:?}"
    );
    replica.signal("CONT");
    assert_eq!(put(&store, NOW, &next).await, Stored::Repeated);
    replica.info("replication", "master_link_status:up");
    let of_alice =
        format!("kith:example.org:{{{:02x}}}:set:{}", alice.fingerprint().as_bytes()[0], alice.fingerprint());
    assert_eq!(replica.cli(&["exists", &of_alice]), "1");
    let refused = redis(&replica.url()).await.unwrap();
    let readonly = in_time(refused.announce(NOW, set(&identity(2), NOW, 600))).await.unwrap_err();
    assert!(readonly.to_string().contains("READONLY"), "{readonly}");
    assert!(replica.folder().exists());
}

#[tokio::test]
async fn sets_are_found_while_their_slot_moves_and_afterwards() {
    needs!("redis-server", "redis-cli");
    let cluster = Cluster::start();
    let store = redis(&cluster.url()).await.unwrap();
    let alice = identity(1);
    put(&store, NOW, &set(&alice, NOW, 600)).await;
    let tag = format!("{:02x}", alice.fingerprint().as_bytes()[0]);
    let slot = cluster.servers[0].cli(&["cluster", "keyslot", &format!("{{{tag}}}")]);
    let owner = usize::from(slot.parse::<u16>().unwrap() / (16_384 / 3)).min(2);
    let (from, to) = (&cluster.servers[owner], &cluster.servers[(owner + 1) % 3]);
    let (from_id, to_id) = (from.cli(&["cluster", "myid"]), to.cli(&["cluster", "myid"]));
    assert_eq!(to.cli(&["cluster", "setslot", &slot, "importing", &from_id]), "OK");
    assert_eq!(from.cli(&["cluster", "setslot", &slot, "migrating", &to_id]), "OK");
    let keys = from.cli(&["--raw", "cluster", "getkeysinslot", &slot, "100"]);
    let port = to.port.to_string();
    let migrate = ["migrate", "127.0.0.1", &port, "", "0", "5000", "keys"];
    assert_eq!(from.cli(&[&migrate, keys.lines().collect::<Vec<_>>().as_slice()].concat()), "OK");
    assert!(held(&store, NOW, &alice).await.is_some(), "the way of ASK");
    assert_eq!(put(&store, NOW, &set(&alice, NOW.plus_secs(1), 600)).await, Stored::Replaced);
    for server in &cluster.servers[..3] {
        assert_eq!(server.cli(&["cluster", "setslot", &slot, "node", &to_id]), "OK");
    }
    assert_eq!(held(&store, NOW, &alice).await.unwrap().timestamp(), NOW.plus_secs(1), "the way of MOVED");
    assert_eq!(put(&store, NOW, &set(&alice, NOW.plus_secs(2), 600)).await, Stored::Replaced);
    let single = redis(&to.url()).await.err().unwrap();
    assert!(single.hint().contains("redis-cluster://"), "{single}");
}
