//! The floor of directories: announce this node, discover others, serve a zone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::routing::{get, put};
use kith_directory::client::Freshness;
use kith_directory::client::{
    AnnounceStatus, Announcer, ClientConfig, Directory, DiscoverError, Discovered, Lan, ReplayMemory, Source,
    SourceName,
};
use kith_identity::Ni;
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_store::Home;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::contacts::Book;
use super::own::Own;
use super::{Node, zone};
use crate::api::server::{Answer, Route};
use crate::api::shapes::{Announced, NewBlob};
use crate::api::wish::{Asked, Body};
use crate::config::Config;
use crate::failure::{Failure, Result, chain};
use crate::floors::Floor;
use crate::identity_file;

/// How often the system's addresses are looked at.
const ADDRESSES: Duration = Duration::from_secs(10);
/// How long a stopping node waits for its directories.
const WITHDRAW: Duration = Duration::from_secs(3);
/// How long a command waits for its announcement.
const SETTLE: Duration = Duration::from_secs(20);

pub(crate) const FLOOR: Floor = Floor {
    name: "directory",
    start: |node| Box::pin(start(node)),
    stop: |node| Box::pin(stop(node)),
    routes,
    status: |node| Some(status(node)),
    commands: &["discover", "announce", "blob", "directory"],
};

/// What a node has announced where.
pub(crate) struct Announcements {
    announcer: Mutex<Option<Announcer>>,
    statuses: watch::Sender<Vec<AnnounceStatus>>,
}

impl Default for Announcements {
    fn default() -> Self {
        Announcements { announcer: Mutex::default(), statuses: watch::Sender::new(Vec::new()) }
    }
}

impl Announcements {
    fn with<T>(&self, work: impl FnOnce(&Announcer) -> T) -> Option<T> {
        self.announcer.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(work)
    }

    /// Hears whenever something was announced or failed.
    pub(crate) fn changes(&self) -> watch::Receiver<Vec<AnnounceStatus>> {
        self.statuses.subscribe()
    }

    fn statuses(&self) -> Vec<AnnounceStatus> {
        self.with(Announcer::statuses).unwrap_or_default()
    }

    /// Whether every directory holds what is to be said now.
    pub(crate) fn all_done(&self) -> bool {
        self.statuses().iter().all(|status| status.current)
    }

    /// Announces `draft` where it differs from what is announced.
    pub(crate) fn say(&self, draft: Draft) {
        self.with(|announcer| announcer.update(draft));
    }

    /// The set that was announced last.
    pub(crate) fn newest(&self) -> Option<VerifiedRecordSet> {
        self.with(Announcer::newest).flatten()
    }

    /// How it stands, for people.
    pub(crate) fn shapes(&self) -> Vec<Announced> {
        self.statuses().into_iter().map(shape).collect()
    }

    /// Why the node is not ready after all this time.
    pub(crate) fn overdue(&self) -> Failure {
        let late = self.statuses().into_iter().find(|status| !status.current);
        let late = late.map_or("a directory".to_owned(), |status| {
            format!("{} ({})", status.authority, status.error.unwrap_or("no answer yet".to_owned()))
        });
        Failure::unreachable(format!("not announced to {late}"))
    }

    /// Waits until each directory has taken what is to be said now, or failed to.
    async fn settled(&self) -> Vec<Announced> {
        let mut changes = self.changes();
        let open = |all: &[AnnounceStatus]| all.iter().any(|one| !one.current && one.error.is_none());
        let wait = async { while open(&self.statuses()) && changes.changed().await.is_ok() {} };
        // What has not settled by then shows as it stands.
        let _ = tokio::time::timeout(SETTLE, wait).await;
        self.statuses()
            .into_iter()
            .map(|mut status| {
                if !status.current && status.error.is_none() {
                    status.error = Some("no answer in time".to_owned());
                }
                shape(status)
            })
            .collect()
    }
}

fn shape(status: AnnounceStatus) -> Announced {
    Announced {
        authority: status.authority.to_string(),
        until: status.until.map(|until| until.to_string()),
        error: status.error,
    }
}

/// The directory client of a configuration; `last` are asked after all others.
pub(crate) fn client(
    config: &Config,
    memory: Arc<dyn ReplayMemory>,
    lan: Option<Lan>,
    last: Vec<Arc<dyn Source>>,
) -> Result<Directory> {
    let pins: HashMap<_, _> =
        config.pinned()?.into_iter().map(|(authority, ni)| (authority, ni.fingerprint)).collect();
    let settings = ClientConfig { resolvers: config.resolvers.clone(), pins, lan, ..ClientConfig::default() };
    Ok(Directory::asking(settings, Vec::new(), last, memory))
}

async fn start(node: &Arc<Node>) -> Result<()> {
    if let Some(zone) = &node.config.directory {
        let mut zone = zone.clone();
        zone.authority = zone.authority.or_else(|| node.config.authorities.first().map(ToString::to_string));
        let server = zone::bind(&node.home, &zone, &node.identity).await?;
        let stopped = node.stopped.clone();
        node.tasks.spawn(zone::run(server, async move { stopped.cancelled().await }));
    }
    node.own.set_addresses(node.addresses());
    let watcher = Arc::clone(node);
    node.tasks.spawn(async move {
        tokio::select! {
            () = watch_addresses(&watcher) => {}
            () = watcher.stopping.cancelled() => {}
        }
    });
    if node.config.authorities.is_empty() {
        return Ok(());
    }
    let announcer = Announcer::start(
        node.directory.clone(),
        Arc::clone(&node.identity),
        node.config.authorities.clone(),
        node.own.clock(),
    );
    let announcer = announcer.map_err(|error| Failure::failed(chain(&error)))?;
    announcer.update(node.own.draft());
    *node.announcements.announcer.lock().unwrap_or_else(PoisonError::into_inner) = Some(announcer);
    let follower = Arc::clone(node);
    node.tasks.spawn(async move {
        tokio::select! {
            () = follow_statuses(&follower) => {}
            () = follower.stopping.cancelled() => {}
        }
    });
    Ok(())
}

/// Follows the system's addresses; when they change it announces anew, and asks relays whether they still answer.
async fn watch_addresses(node: &Arc<Node>) {
    let mut mapped = node.mapping.as_ref().map(kith_connect::PortMapping::watch);
    // Not those that are announced: a node behind relays may announce none.
    let mut here = node.endpoint.advertised_addresses();
    loop {
        let changed = async {
            let is_told = match &mut mapped {
                Some(mapped) => mapped.changed().await.is_ok(),
                None => false,
            };
            if !is_told {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(ADDRESSES) => {}
            () = node.endpoint.moved() => {}
            () = changed => {}
        }
        let now = node.endpoint.advertised_addresses();
        if now != here {
            here = now;
            node.relays.moved();
        }
        node.own.set_addresses(node.addresses());
        node.announcements.with(|announcer| announcer.update(node.own.draft()));
    }
}

/// Passes on what the announcer tells, so that nobody waits while holding its lock.
async fn follow_statuses(node: &Arc<Node>) {
    let Some(mut statuses) = node.announcements.with(Announcer::watch) else { return };
    loop {
        let now = statuses.borrow_and_update().clone();
        node.announcements.statuses.send_replace(now);
        if statuses.changed().await.is_err() {
            return;
        }
    }
}

/// Says at every directory that this node has no addresses any more.
async fn stop(node: &Arc<Node>) {
    let announcer = node.announcements.announcer.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(announcer) = announcer
        && tokio::time::timeout(WITHDRAW, announcer.withdraw()).await.is_err()
    {
        tracing::warn!("a directory did not take the withdrawal in time; the record set ends by itself");
    }
}

fn status(node: &Node) -> Value {
    let zone = node.config.directory.as_ref();
    json!({ "authorities": node.config.authorities.len(), "serves": zone.is_some() })
}

/// Announces to every directory now.
pub(crate) async fn announce_now(node: &Node) -> Result<Vec<Announced>> {
    if node.announcements.with(Announcer::again).is_none() {
        return Err(no_authority());
    }
    Ok(node.announcements.settled().await)
}

fn no_authority() -> Failure {
    Failure::failed("this node has no directory to announce to")
        .hint("name one in kith.toml: authorities = [\"example.org\"]")
}

fn routes() -> Vec<Route> {
    vec![("/v1/discover", get(discover)), ("/v1/blob", put(put_blob))]
}

/// What is looked up, and where.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Lookup {
    /// Fingerprint or petname.
    pub(crate) ni: String,
    /// `dns`, `https`, `lan` or `dht`; all sources where it is missing.
    pub(crate) via: Option<String>,
}

async fn discover(State(node): State<Arc<Node>>, Asked(wish): Asked<Lookup>) -> Answer<Value> {
    found(&lookup(&node.directory, &node.book, &wish).await?).map(Json)
}

/// Looks up and verifies a record set.
pub(crate) async fn lookup(directory: &Directory, book: &Arc<Book>, wish: &Lookup) -> Result<Discovered> {
    let ni = book.resolve(&wish.ni)?;
    let outcome = match wish.via.as_deref() {
        None => directory.discover(&ni, Freshness::Valid).await,
        Some("dns") => directory.discover_via(&ni, SourceName::Dns).await,
        Some("https") => directory.discover_via(&ni, SourceName::Https).await,
        Some("lan") => directory.discover_via(&ni, SourceName::Lan).await,
        Some("dht") => discover_in_dht(directory, &ni).await,
        Some(other) => {
            return Err(
                Failure::usage(format!("there is no source '{other}'")).hint("dns, https, lan or dht")
            );
        }
    };
    let found = outcome.map_err(|error| match (&error, wish.via.as_deref()) {
        (DiscoverError::NothingToAsk(_), Some("lan")) => no_network(),
        (DiscoverError::NothingToAsk(_), Some("dht")) => super::dht::no_part(),
        (DiscoverError::NotFound(_), Some("dht")) => super::dht::nobody_has(&wish.ni),
        _ => explain(&error),
    })?;
    book.hear_set(&found.set).await;
    Ok(found)
}

/// What is for this node alone goes before what is for everybody.
async fn discover_in_dht(directory: &Directory, ni: &Ni) -> std::result::Result<Discovered, DiscoverError> {
    // Without its authority, so that an answer that nobody has it is the answer.
    let ni = Ni::new(ni.fingerprint, None);
    match directory.discover_via(&ni, SourceName::DhtBlinded).await {
        Ok(found) => Ok(found),
        Err(_) => directory.discover_via(&ni, SourceName::Dht).await,
    }
}

fn no_network() -> Failure {
    Failure::not_found("there is no local network to look on")
        .hint("it takes a network, 'lan' not switched off in kith.toml, and a node that listens on more than loopback")
}

fn explain(error: &DiscoverError) -> Failure {
    let text = chain(error);
    match error {
        DiscoverError::NotFound(_) => Failure::not_found(text).hint("is their node up, and announced there?"),
        DiscoverError::NothingToAsk(_) => Failure::not_found(format!("{text}: it names no authority"))
            .hint("a fingerprint with its directory looks like ni://example.org/sha3-256;…"),
        DiscoverError::Refused { .. } => Failure::not_trusted(text),
        DiscoverError::NoAnswer { ni, .. } if ni.authority.is_none() => Failure::unreachable(text)
            .hint("its fingerprint names no directory, so that only the networks of this machine were asked"),
        _ => Failure::unreachable(text).hint("check the authority's name, pins and resolvers in kith.toml"),
    }
}

/// The wire form of a set, with how it was found.
pub(crate) fn found(found: &Discovered) -> Result<Value> {
    let mut map: Map<String, Value> =
        serde_json::from_slice(&found.set.to_json()).map_err(Failure::failed)?;
    map.insert("verified_by".into(), json!(found.verified_by.to_string()));
    map.insert("expires".into(), json!(found.set.expires().to_string()));
    map.insert("stale".into(), json!(found.stale));
    Ok(Value::Object(map))
}

async fn put_blob(State(node): State<Arc<Node>>, Body(wish): Body<NewBlob>) -> Answer<Vec<Announced>> {
    let blob = wish.blob.map(|text| data_encoding::BASE64.decode(text.as_bytes())).transpose();
    let blob = blob.map_err(|error| Failure::usage(format!("the blob is no base64: {error}")))?;
    if node.config.authorities.is_empty() {
        return Err(no_authority());
    }
    node.on_disk(move |node| node.own.set_blob(blob)).await?;
    // Where the blob is the one that is published already, it is published once more.
    node.announcements.with(|announcer| announcer.update(node.own.draft()));
    node.announcements.with(Announcer::again);
    Ok(Json(node.announcements.settled().await))
}

/// Publishes a blob from a home on which no node runs: one announce to each directory.
pub(crate) async fn put_blob_from_home(home: &Home, blob: Vec<u8>) -> Result<Vec<Announced>> {
    let config = Config::load(home)?;
    if config.authorities.is_empty() {
        return Err(no_authority());
    }
    let identity = Arc::new(identity_file::load(home, &config)?);
    let database = super::open_database(home)?;
    let ttl_secs = u32::try_from(config.ttl.as_secs()).unwrap_or(u32::MAX);
    let own = Own::open(Arc::clone(&identity), database.clone(), ttl_secs)?;
    let client = super::open_client(&config, database, None)?;
    own.set_blob(Some(blob))?;
    let set = own.signed()?;
    let mut announced = Vec::new();
    for authority in &config.authorities {
        let error = client.announce(authority, &identity, &set).await.err().map(|error| chain(&error));
        let until = error.is_none().then(|| set.expires().to_string());
        announced.push(Announced { authority: authority.to_string(), until, error });
    }
    Ok(announced)
}
