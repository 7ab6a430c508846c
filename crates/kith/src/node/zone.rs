//! A zone that is served from this home: its directory over HTTPS and DNS.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kith_directory::announce::{AllowList, Limits};
use kith_directory::defaults::MAX_MEMBERS_BYTES;
use kith_directory::limiter::Rate;
use kith_directory::members::{MemberList, Members};
use kith_directory::server::{HttpsCertificate, Server, ServerConfig, ServerError, ServerHandle};
use kith_directory::store::{RedbStore, RedisStore, Store};
use kith_identity::{Authority, Identity, Ni};
use kith_sansio::Span;
use kith_store::Home;
use tokio::signal::unix::{SignalKind, signal};

use super::secondaries;
use crate::config::Zone;
use crate::failure::{Failure, Result, chain};

/// The directory's database in the home folder.
const DATABASE: &str = "directory.redb";
/// Memory that it may use as a cache, in bytes.
const DATABASE_CACHE: usize = 64 * 1024 * 1024;
/// A certificate file larger than this is not one.
const MAX_PEM_BYTES: u64 = 1024 * 1024;
/// How often the file of members is looked at.
const MEMBERS_CHECK: Duration = Duration::from_secs(2);

/// A directory that listens, with what it takes to load its certificate again.
pub(crate) struct ZoneServer {
    pub(crate) server: Server,
    zone: Zone,
    members: Option<MemberList>,
}

/// Opens the zone's database and listens.
pub(crate) async fn bind(home: &Home, zone: &Zone, identity: &Identity) -> Result<ZoneServer> {
    let Some(authority) = &zone.authority else {
        return Err(Failure::failed("the zone has no name")
            .hint("set authorities, or directory.authority, in kith.toml"));
    };
    let authority: Authority = authority.parse().map_err(|error| Failure::usage(chain(&error)))?;
    let mut config = ServerConfig::new(authority);
    config.listen_https.clone_from(&zone.listen_https);
    config.listen_dns.clone_from(&zone.listen_dns);
    config.https_certificate = certificate(zone)?;
    config.a_records = zone.address_records;
    secondaries::configure(&mut config, zone)?;
    if let Some(bytes) = zone.max_blob_bytes {
        config.limits = Limits { max_blob_bytes: bytes, ..Limits::default() };
    }
    limits(zone, &mut config);
    let members = members(zone)?.map(MemberList::new);
    config.allow = members.clone().map(|list| Arc::new(list) as Arc<dyn AllowList>);
    let store = open(home, zone, &config.authority).await?;
    let server = Server::bind(config, store, identity).await.map_err(|error| cannot_serve(&error))?;
    Ok(ZoneServer { server, zone: zone.clone(), members })
}

/// The zone's store: on Redis or Valkey, or in the home.
async fn open(home: &Home, zone: &Zone, authority: &Authority) -> Result<Arc<dyn Store>> {
    let Some(redis) = zone.redis()? else {
        let database = super::open_store(home, DATABASE, DATABASE_CACHE)?;
        return Ok(Arc::new(RedbStore::new(database)));
    };
    let mut redis = redis.for_zone(&authority.to_string());
    redis.ca = zone.store_ca.as_deref().map(|path| read(path, MAX_PEM_BYTES)).transpose()?;
    let store = RedisStore::connect(redis).await.map_err(|error| {
        let failure = if error.may_pass() { Failure::unreachable(&error) } else { Failure::failed(&error) };
        failure.hint(error.hint())
    })?;
    Ok(Arc::new(store))
}

/// What of the server's numbers the operator says.
fn limits(zone: &Zone, config: &mut ServerConfig) {
    config.metrics = zone.metrics;
    config.dns_sockets = zone.dns_sockets;
    let connections = &mut config.connections;
    connections.most = zone.max_connections.unwrap_or(connections.most);
    connections.most_per_network = zone.max_connections_per_network.unwrap_or(connections.most_per_network);
    let change = |rate: &mut Rate, count: Option<u32>, period, seconds| {
        if let Some(count) = count {
            // After a pause, so many seconds' worth at once.
            *rate = Rate::per(period, count, count.saturating_mul(seconds));
        }
    };
    change(&mut config.fingerprint_rate, zone.announces_per_minute, Span::secs(60), 1);
    change(&mut config.network_rate, zone.network_announces_per_second, Span::secs(1), 10);
    change(&mut config.dns_rate, zone.dns_answers_per_second, Span::secs(1), 3);
}

/// Serves until `stop`. On SIGHUP certificate and members are read again, and the members also when their file
/// changes.
pub(crate) async fn run(zone: ZoneServer, stop: impl Future<Output = ()> + Send) {
    let handle = zone.server.handle();
    let files = Files { zone: zone.zone, members: zone.members, handle };
    tokio::select! {
        () = zone.server.run(stop) => {}
        () = files.hang_ups() => {}
        () = files.changes() => {}
    }
}

/// What is read again while the zone is served.
struct Files {
    zone: Zone,
    members: Option<MemberList>,
    handle: ServerHandle,
}

impl Files {
    async fn hang_ups(&self) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return std::future::pending().await;
        };
        while hangup.recv().await.is_some() {
            let loaded = certificate(&self.zone).and_then(|certificate| {
                self.handle.reload_certificate(&certificate).map_err(|error| Failure::failed(chain(&error)))
            });
            match loaded {
                Ok(()) => tracing::info!("the certificate was read again"),
                Err(failure) => tracing::error!(%failure, "the certificate stays the old one"),
            }
            self.read_members();
        }
    }

    /// Looks at the file of members now and then.
    async fn changes(&self) {
        let Some(path) = self.zone.members.as_ref() else { return std::future::pending().await };
        let mut before = stamp(path);
        loop {
            tokio::time::sleep(MEMBERS_CHECK).await;
            let now = stamp(path);
            if now != before {
                before = now;
                self.read_members();
            }
        }
    }

    fn read_members(&self) {
        let Some(list) = &self.members else { return };
        match members(&self.zone) {
            Ok(members) => {
                let members = members.unwrap_or_default();
                tracing::info!(members = members.len(), "the members were read again");
                list.replace(members);
            }
            Err(failure) => tracing::error!(%failure, "the members stay the old ones"),
        }
    }
}

/// What tells one state of a file from another.
fn stamp(path: &Path) -> Option<(u64, u64, std::time::SystemTime)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

/// Who may announce; everybody where the zone names nobody.
fn members(zone: &Zone) -> Result<Option<Members>> {
    if zone.members.is_none() && zone.allow.is_none() {
        return Ok(None);
    }
    let mut members = match &zone.members {
        Some(path) => Members::parse(&read(path, MAX_MEMBERS_BYTES as u64 + 1)?).map_err(|error| {
            Failure::failed(format!("{}: {}", path.display(), chain(&error)))
                .hint("write one fingerprint a line, as 'kith id' prints it; # begins a comment")
        })?,
        None => Members::default(),
    };
    for text in zone.allow.iter().flatten() {
        let wrong = |error| Failure::failed(format!("directory.allow: '{text}': {}", chain(&error)));
        members.insert(text.parse::<Ni>().map_err(wrong)?.fingerprint);
    }
    Ok(Some(members))
}

/// The certificate of the HTTPS endpoint, read from its files.
pub(crate) fn certificate(zone: &Zone) -> Result<HttpsCertificate> {
    match (&zone.certificate, &zone.key) {
        (Some(chain), Some(key)) => {
            Ok(HttpsCertificate::Pem { chain: read(chain, MAX_PEM_BYTES)?, key: read(key, MAX_PEM_BYTES)? })
        }
        (None, None) => Ok(HttpsCertificate::Own),
        _ => Err(Failure::failed("directory.certificate and directory.key go together")),
    }
}

fn read(path: &Path, most_bytes: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let failed = |error| Failure::failed(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(most_bytes).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn cannot_serve(error: &ServerError) -> Failure {
    let failure = Failure::failed(chain(error));
    match error {
        ServerError::Listen { address, error: cause, .. } => match cause.kind() {
            std::io::ErrorKind::PermissionDenied => failure.hint(format!(
                "port {} is the system's; let a redirect or a capability (CAP_NET_BIND_SERVICE) give it, or choose another",
                address.port()
            )),
            _ => failure.hint("choose another address with --listen-https and --listen-dns, or 'off'"),
        },
        ServerError::PublicMetrics(_) => failure.hint("say --metrics 127.0.0.1:9117"),
        ServerError::UnknownKey { key, .. } => {
            failure.hint(format!("describe '{key}' in a section [[directory.tsig-key]] of kith.toml"))
        }
        ServerError::KeyTwice(_) => failure.hint(
            "give each section [[directory.tsig-key]] of kith.toml a name of its own; case and a last dot do not count",
        ),
        _ => failure,
    }
}
