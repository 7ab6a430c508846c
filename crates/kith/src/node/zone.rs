//! A zone that is served from this home: its directory over HTTPS and DNS.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use kith_directory::announce::Limits;
use kith_directory::server::{HttpsCertificate, Server, ServerConfig, ServerError};
use kith_directory::store::{RedbStore, RedisStore, Store};
use kith_identity::{Authority, Identity};
use kith_store::Home;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Zone;
use crate::failure::{Failure, Result, chain};

/// The directory's database in the home folder.
const DATABASE: &str = "directory.redb";
/// Memory that it may use as a cache, in bytes.
const DATABASE_CACHE: usize = 64 * 1024 * 1024;
/// A certificate file larger than this is not one.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// A directory that listens, with what it takes to load its certificate again.
pub(crate) struct ZoneServer {
    pub(crate) server: Server,
    zone: Zone,
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
    if let Some(bytes) = zone.max_blob_bytes {
        config.limits = Limits { max_blob_bytes: bytes, ..Limits::default() };
    }
    let store = open(home, zone, &config.authority).await?;
    let server = Server::bind(config, store, identity).await.map_err(|error| cannot_serve(&error))?;
    Ok(ZoneServer { server, zone: zone.clone() })
}

/// The zone's store: on Redis or Valkey, or in the home.
async fn open(home: &Home, zone: &Zone, authority: &Authority) -> Result<Arc<dyn Store>> {
    let Some(redis) = zone.redis()? else {
        let database = super::open_store(home, DATABASE, DATABASE_CACHE)?;
        return Ok(Arc::new(RedbStore::new(database)));
    };
    let redis = redis.for_zone(&authority.to_string());
    let store = RedisStore::connect(redis).await.map_err(|error| {
        let failure = if error.may_pass() { Failure::unreachable(&error) } else { Failure::failed(&error) };
        failure.hint(error.hint())
    })?;
    Ok(Arc::new(store))
}

/// Serves until `stop`; on SIGHUP the certificate is read again.
pub(crate) async fn run(zone: ZoneServer, stop: impl Future<Output = ()> + Send) {
    let handle = zone.server.handle();
    let files = zone.zone;
    let reload = async move {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return std::future::pending::<()>().await;
        };
        while hangup.recv().await.is_some() {
            let loaded = certificate(&files).and_then(|certificate| {
                handle.reload_certificate(&certificate).map_err(|error| Failure::failed(chain(&error)))
            });
            match loaded {
                Ok(()) => tracing::info!("the certificate was read again"),
                Err(failure) => tracing::error!(%failure, "the certificate stays the old one"),
            }
        }
    };
    tokio::select! {
        () = zone.server.run(stop) => {}
        () = reload => {}
    }
}

/// The certificate of the HTTPS endpoint, read from its files.
pub(crate) fn certificate(zone: &Zone) -> Result<HttpsCertificate> {
    match (&zone.certificate, &zone.key) {
        (Some(chain), Some(key)) => Ok(HttpsCertificate::Pem { chain: read(chain)?, key: read(key)? }),
        (None, None) => Ok(HttpsCertificate::Own),
        _ => Err(Failure::failed("directory.certificate and directory.key go together")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let failed = |error| Failure::failed(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(MAX_PEM_BYTES).read_to_end(&mut bytes).map_err(failed)?;
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
        _ => failure,
    }
}
