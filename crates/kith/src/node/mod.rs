//! The node: one identity, its floors, and the control socket that commands talk to.

pub(crate) mod actors;
pub(crate) mod claims;
pub(crate) mod connect;
pub(crate) mod contacts;
pub(crate) mod delegator;
pub(crate) mod dht;
pub(crate) mod directory;
pub(crate) mod invitations;
pub(crate) mod lan;
pub(crate) mod mapping;
pub(crate) mod network;
pub(crate) mod old_keys;
mod own;
#[cfg(test)]
mod power;
mod push;
pub(crate) mod relay;
mod replay;
pub(crate) mod running;
#[cfg(test)]
mod scene;
mod secondaries;
mod serving;
pub(crate) mod successions;
pub(crate) mod transfers;
pub(crate) mod tunnels;
pub(crate) mod zone;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kith_connect::{BindError, Endpoint, PathInfo, PortMapping};
use kith_directory::client::{Directory, Lan};
use kith_identity::contacts::Contact;
use kith_identity::record::VerifiedRecordSet;
use kith_identity::{Identity, Ni};
use kith_sansio::{Span, system};
use kith_store::{Database, Home, HomeError, HomeLock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::actors::Selections;
use self::connect::Finder;
use self::contacts::Book;
use self::delegator::Delegation;
use self::dht::Keyspace;
use self::directory::Announcements;
use self::invitations::{Guests, Invitations};
use self::old_keys::OldKeys;
use self::own::Own;
use self::replay::Replay;
use self::transfers::Transfers;
use self::tunnels::Tunnels;
use crate::api::{self, shapes};
use crate::config::Config;
use crate::failure::{Failure, Result, chain};
use crate::floors::FLOORS;
use crate::identity_file;

/// The node's database in the home folder.
const DATABASE: &str = "node.redb";
/// Memory that the database may use as a cache, in bytes.
const DATABASE_CACHE: usize = 4 * 1024 * 1024;
/// A home that a short command has locked is free again within this time.
const LOCK_PATIENCE: Span = Span::secs(15);
/// What a node writes into the lock of its home.
pub(crate) const LOCK_NAME: &str = "up";
/// How long tasks may take to end when the node stops.
const ENDING: Duration = Duration::from_secs(10);
/// How long `status --wait` waits for the announcements.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running node.
pub(crate) struct Node {
    pub(crate) home: Home,
    pub(crate) config: Config,
    pub(crate) identity: Arc<Identity>,
    pub(crate) book: Arc<Book>,
    pub(crate) delegation: Delegation,
    pub(crate) own: Arc<Own>,
    pub(crate) directory: Directory,
    /// Missing where they are switched off, or there is nothing to be found by.
    pub(crate) lan: Option<Lan>,
    pub(crate) endpoint: Endpoint,
    /// Missing where it is switched off, or there is nothing to map.
    pub(crate) mapping: Option<PortMapping>,
    pub(crate) announcements: Announcements,
    pub(crate) transfers: Transfers,
    pub(crate) tunnels: Tunnels,
    pub(crate) old_keys: OldKeys,
    pub(crate) invitations: Invitations,
    /// Inviters and issuers who are looked for before they are anything else.
    pub(crate) guests: Arc<Guests>,
    /// This node's part in the DHT of its network.
    pub(crate) keyspace: Arc<Keyspace>,
    /// This node's part in selections of actors there.
    pub(crate) selections: Arc<Selections>,
    told: push::Told,
    relays: relay::Relays,
    /// Somebody wants the node to stop.
    pub(crate) stopping: CancellationToken,
    /// The floors' tasks end.
    pub(crate) stopped: CancellationToken,
    pub(crate) tasks: TaskTracker,
    socket: PathBuf,
    lock: Mutex<Option<HomeLock>>,
}

/// Opens the database of a home whose lock the caller holds.
pub(crate) fn open_database(home: &Home) -> Result<Database> {
    open_store(home, DATABASE, DATABASE_CACHE)
}

/// Opens a database of a home under its file name; `cache_bytes` of memory are its own.
fn open_store(home: &Home, name: &str, cache_bytes: usize) -> Result<Database> {
    Database::open(&home.path(name), cache_bytes).map_err(|error| {
        let failure = Failure::failed(chain(&error));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// The directory client of a configuration, which looks on local networks too where there are any.
pub(crate) fn open_client(config: &Config, database: Database, lan: Option<Lan>) -> Result<Directory> {
    directory::client(config, Arc::new(Replay::open(database)?), lan, Vec::new())
}

/// Takes the lock of the home; a command that holds it for a moment is waited for.
async fn take_lock(home: &Home) -> Result<HomeLock> {
    let began = system::time();
    loop {
        match home.lock(LOCK_NAME) {
            Ok(lock) => return Ok(lock),
            // A command is over in a moment, another node is not.
            Err(HomeError::Locked { by, .. })
                if by.what.as_deref() != Some(LOCK_NAME) && system::time() - began < LOCK_PATIENCE =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(HomeError::Locked { home, by }) => {
                let failure =
                    Failure::failed(format!("the home folder {} is in use by {by}", home.display()));
                return Err(failure.hint("'kith status' shows a node that runs there, 'kith down' stops it"));
            }
            Err(error) => {
                let failure = Failure::failed(chain(&error));
                return Err(match error.hint() {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                });
            }
        }
    }
}

/// Lets this process have as many files open as the system allows: each connection is one, and many systems begin with
/// 1 024.
fn allow_all_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

impl Node {
    /// Starts the node of a home: lock, identity, database, sockets, floors, control socket.
    pub(crate) async fn start(home: &Home, config: Config) -> Result<Arc<Node>> {
        allow_all_files();
        let lock = take_lock(home).await?;
        let unlocked = identity_file::open(home, &config)?;
        let database = open_database(home)?;
        let current = unlocked.identity.fingerprint();
        let old_keys = OldKeys::open(home, &database, &current, unlocked.passphrase.as_ref())?;
        let identity = Arc::new(unlocked.identity);
        let book = Arc::new(Book::open(database.clone())?);
        let ttl_secs = u32::try_from(config.ttl.as_secs()).unwrap_or(u32::MAX);
        let own = Arc::new(Own::open(Arc::clone(&identity), database.clone(), ttl_secs)?);
        let lan = lan::open(&config);
        let keyspace = Arc::new(Keyspace::open(database.clone(), identity.public())?);
        let selections = Arc::new(Selections::open(database.clone()));
        let memory = Arc::new(Replay::open(database.clone())?);
        let directory = directory::client(&config, memory, lan.clone(), dht::sources(&keyspace))?;
        let guests = Arc::<Guests>::default();
        let finder =
            Finder::new(Arc::clone(&book), directory.clone(), Arc::clone(&guests), Arc::clone(&keyspace));
        let invitations = Invitations::open(database.clone())?;
        let delegation = Delegation::open(database.clone())?;
        let mut endpoint_config = kith_connect::Config {
            listen: config.listen.clone(),
            // Who is reached over relays alone tells nobody where it is.
            seek_direct: !config.relay.only,
            ..kith_connect::Config::default()
        };
        delegator::make_room(&config, &mut endpoint_config);
        relay::make_room(&config, &mut endpoint_config);
        let endpoint =
            Endpoint::bind(Arc::clone(&identity), Arc::clone(&book) as _, Arc::new(finder), endpoint_config)
                .await
                .map_err(|error| cannot_listen(&error))?;
        let mapping = mapping::open(&config, &endpoint);
        let socket = api::socket::path(home, &api::socket::runtime_folder());
        let (up, down) = (config.transfer.limit_up, config.transfer.limit_down);
        let tunnels = Tunnels::open(database.clone())?;
        let transfers = Transfers::new(database, up, down);
        let node = Arc::new(Node {
            home: home.clone(),
            config,
            identity,
            book,
            delegation,
            own,
            directory,
            lan,
            endpoint,
            mapping,
            announcements: Announcements::default(),
            transfers,
            tunnels,
            old_keys,
            invitations,
            guests,
            keyspace,
            selections,
            told: push::Told::default(),
            relays: relay::Relays::default(),
            stopping: CancellationToken::new(),
            stopped: CancellationToken::new(),
            tasks: TaskTracker::new(),
            socket,
            lock: Mutex::new(Some(lock)),
        });
        for floor in FLOORS {
            (floor.start)(&node).await?;
        }
        api::socket::prepare(&node.socket, &node.home)?;
        let listener = api::server::bind(&node.socket)?;
        node.tasks.spawn(api::server::serve(Arc::clone(&node), listener));
        Ok(node)
    }

    /// Asks the node to stop; returns at once.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Ends everything in good order. What is handed back is the home's lock: it goes last, after the databases.
    pub(crate) async fn end(self: Arc<Self>) -> Option<HomeLock> {
        for floor in FLOORS.iter().rev() {
            (floor.stop)(&self).await;
        }
        self.stopped.cancel();
        self.endpoint.close().await;
        self.tasks.close();
        if tokio::time::timeout(ENDING, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        let _ = std::fs::remove_file(&self.socket);
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until the node is listening and announced.
    pub(crate) async fn ready(&self) -> Result<()> {
        let mut changes = self.announcements.changes();
        let wait = async {
            while !self.announcements.all_done() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            waited = tokio::time::timeout(READY_TIMEOUT, wait) => waited.map_err(|_| self.announcements.overdue()),
            () = self.stopping.cancelled() => Err(Failure::failed("the node is stopping")),
        }
    }

    /// Everything that `status` shows.
    pub(crate) fn status(&self) -> shapes::Status {
        let texts =
            |addresses: Vec<kith_identity::Address>| addresses.iter().map(ToString::to_string).collect();
        let sections = FLOORS.iter().filter_map(|floor| {
            let status = (floor.status)(self)?;
            // Contacts have a place of their own in the document.
            (floor.name != "contacts").then(|| (floor.name.to_owned(), status))
        });
        shapes::Status {
            fingerprint: self.ni().to_string(),
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home: self.home.dir().display().to_string(),
            control: self.socket.display().to_string(),
            pid: std::process::id(),
            ready: self.announcements.all_done(),
            listen: texts(self.endpoint.local_addresses()),
            addresses: texts(self.addresses()),
            notes: self.notes(),
            announced: self.announcements.shapes(),
            contacts: self.contacts(),
            floors: sections.collect(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.endpoint.default_port_taken() {
            notes.push(format!(
                "port {} is taken; this node listens on the next free one",
                kith_connect::defaults::PORT
            ));
        }
        if !self.socket.starts_with(self.home.dir()) {
            notes.push(format!(
                "the control socket is {}, because the home's path is too long",
                self.socket.display()
            ));
        }
        notes.extend(self.old_keys.notes());
        notes
    }

    /// This node's name: fingerprint and first authority.
    pub(crate) fn ni(&self) -> Ni {
        Ni::new(self.identity.fingerprint(), self.config.authorities.first().cloned())
    }

    /// All contacts with how they are reached.
    pub(crate) fn contacts(&self) -> Vec<shapes::Contact> {
        self.book.list().iter().map(|contact| self.reached(contact)).collect()
    }

    /// A contact with how it is reached.
    pub(crate) fn reached(&self, contact: &Contact) -> shapes::Contact {
        let mut shape = contacts::shape(&self.book, contact);
        if let Some(path) = self.endpoint.paths(&contact.ni.fingerprint).first() {
            (shape.path, shape.relay) = self.way(path);
            shape.transport = Some(path.transport.to_string());
            shape.remote = Some(path.remote.to_string());
            shape.rtt_ms = path.rtt.map(|rtt| rtt.as_secs_f64() * 1e3);
        }
        shape
    }

    /// `direct`, or `relayed` and the name of the relay.
    pub(crate) fn way(&self, path: &PathInfo) -> (String, Option<String>) {
        match path.relay {
            None => ("direct".to_owned(), None),
            Some(relay) => ("relayed".to_owned(), Some(self.book.name_of(&relay))),
        }
    }

    /// Open connections to contacts.
    pub(crate) fn connections(&self) -> usize {
        self.book.list().iter().map(|contact| self.endpoint.paths(&contact.ni.fingerprint).len()).sum()
    }

    /// The record set that others are told of: the announced one while it says where this node is, else one of its
    /// own.
    pub(crate) async fn said(self: &Arc<Self>) -> Option<VerifiedRecordSet> {
        if let Some(announced) = self.announcements.newest()
            && self.own.agrees(&announced)
        {
            return Some(announced);
        }
        // Signing waits for the disk, where the timestamp is remembered first.
        let signed = self.on_disk(|node| node.own.signed()).await;
        let told = |failure: &Failure| tracing::error!(%failure, "the own record set cannot be signed");
        signed.inspect_err(told).ok()
    }

    /// Runs what waits for the disk off the runtime's threads and to its end, which the end of the node waits for.
    pub(crate) async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Node>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let node = Arc::clone(self);
        self.tasks.spawn_blocking(move || work(&node)).await.map_err(Failure::failed)?
    }

    /// Announces to every directory now and waits for the outcomes.
    pub(crate) async fn announce_now(&self) -> Result<Vec<shapes::Announced>> {
        directory::announce_now(self).await
    }
}

fn cannot_listen(error: &BindError) -> Failure {
    let failure = Failure::failed(chain(error));
    match error {
        BindError::Taken { .. } => {
            failure.hint("choose another port with --listen, or port 0 for any free one")
        }
        _ => failure,
    }
}
