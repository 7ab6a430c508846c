//! What the tests of this folder share: identities, sets, a running directory, and clients that know no manners.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kith_directory::client::{ClientConfig, Directory, MemoryReplay};
use kith_directory::server::{Server, ServerConfig, ServerHandle};
use kith_directory::store::{RedbStore, Store};
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_identity::tls::{Certificate, Trust, directory_client};
use kith_identity::{Authority, Identity, Ni};
use kith_sansio::{SeededRng, Timestamp, system};
use kith_store::Database;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// The time of tests that have none of their own.
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000);
/// Nothing on loopback takes this long, not even on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn identity(seed: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(seed))
}

/// A set with one address and this validity.
pub(crate) fn set(identity: &Identity, timestamp: Timestamp, ttl: u32) -> VerifiedRecordSet {
    let addresses = vec!["quic://192.0.2.1:7117".parse().unwrap()];
    Draft { addresses, ttl, ..Draft::default() }.sign(identity, timestamp).unwrap()
}

/// A set with blobs of these sizes.
pub(crate) fn set_with_blobs(
    identity: &Identity,
    timestamp: Timestamp,
    sizes: &[usize],
) -> VerifiedRecordSet {
    let blobs = sizes.iter().enumerate().map(|(n, size)| vec![n as u8; *size]).collect();
    Draft { blobs, ..Draft::default() }.sign(identity, timestamp).unwrap()
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// A directory on loopback.
pub(crate) struct Zone {
    pub(crate) https: SocketAddr,
    pub(crate) dns: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) handle: ServerHandle,
    pub(crate) identity: Identity,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Zone {
    /// A directory with its store in memory.
    pub(crate) async fn start(change: impl FnOnce(&mut ServerConfig)) -> Zone {
        Zone::over(Database::in_memory().unwrap(), change).await
    }

    /// A directory with its store in a file.
    pub(crate) async fn at(path: &Path) -> Zone {
        Zone::over(Database::open(path, 1 << 20).unwrap(), |_| {}).await
    }

    pub(crate) async fn over(database: Database, change: impl FnOnce(&mut ServerConfig)) -> Zone {
        Zone::with(Arc::new(RedbStore::new(database)), change).await
    }

    /// A directory with any store.
    pub(crate) async fn with(store: Arc<dyn Store>, change: impl FnOnce(&mut ServerConfig)) -> Zone {
        let identity = identity(1000);
        let mut config = ServerConfig::new("localhost:443".parse().unwrap());
        config.listen_https = vec!["127.0.0.1:0".parse().unwrap()];
        config.listen_dns = vec!["127.0.0.1:0".parse().unwrap()];
        change(&mut config);
        let server = Server::bind(config, store, &identity).await.unwrap();
        let (https, dns) = (server.https_addresses()[0], server.dns_addresses()[0]);
        let metrics = server.metrics_address();
        let (handle, stop) = (server.handle(), CancellationToken::new());
        let task = tokio::spawn(server.run(stop.clone().cancelled_owned()));
        Zone { https, dns, metrics, handle, identity, stop, task }
    }

    /// Stops the directory in order; when this returns, its store is closed.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        in_time(self.task).await.unwrap();
    }

    pub(crate) fn authority(&self) -> Authority {
        format!("localhost:{}", self.https.port()).parse().unwrap()
    }

    pub(crate) fn ni(&self, who: &Identity) -> Ni {
        Ni::new(who.fingerprint(), Some(self.authority()))
    }

    /// A client that knows this directory by its pin and its resolver.
    pub(crate) fn client(&self) -> Directory {
        Directory::new(self.client_config(), Vec::new(), Arc::new(MemoryReplay::default()))
    }

    pub(crate) fn client_config(&self) -> ClientConfig {
        let pins = [(self.authority(), self.identity.fingerprint())].into();
        ClientConfig { resolvers: vec![self.dns], pins, ..ClientConfig::default() }
    }

    /// A TLS connection, with a client certificate or without.
    pub(crate) async fn connect(&self, who: Option<&Identity>) -> TlsStream<TcpStream> {
        let certificate = who.map(|who| Certificate::self_signed(who).unwrap());
        let trust = Trust::Pin(self.identity.fingerprint());
        let config = directory_client(&trust, certificate.as_ref()).unwrap();
        let stream = TcpStream::connect(self.https).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        in_time(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
    }

    /// One request on a connection of its own.
    pub(crate) async fn request(&self, who: Option<&Identity>, head: &str, body: &[u8]) -> Reply {
        let mut stream = self.connect(who).await;
        exchange(&mut stream, head, body).await
    }

    pub(crate) async fn put(&self, who: &Identity, set: &VerifiedRecordSet) -> Reply {
        let head = format!("PUT {} HTTP/1.1", path(&set.fingerprint().to_string()));
        self.request(Some(who), &head, &set.to_json()).await
    }

    pub(crate) async fn get(&self, who: &Identity, more: &str) -> Reply {
        let head = format!("GET {} HTTP/1.1{more}", path(&who.fingerprint().to_string()));
        self.request(None, &head, b"").await
    }

    /// One DNS query over UDP; `None` when there is no answer while another query gets its own.
    pub(crate) async fn ask_udp(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(query, self.dns).await.unwrap();
        let mut answer = vec![0; 65_535];
        let (length, from) = in_time(socket.recv_from(&mut answer)).await.unwrap();
        assert_eq!(from, self.dns);
        answer.truncate(length);
        answer
    }

    /// One DNS query over TCP.
    pub(crate) async fn ask_tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.dns).await.unwrap();
        ask_over(&mut stream, query).await
    }
}

pub(crate) async fn ask_over(stream: &mut TcpStream, query: &[u8]) -> Vec<u8> {
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(query).await.unwrap();
    let mut answer = vec![0; usize::from(in_time(stream.read_u16()).await.unwrap())];
    in_time(stream.read_exact(&mut answer)).await.unwrap();
    answer
}

pub(crate) fn path(value: &str) -> String {
    format!("/.well-known/ni/sha3-256/{value}")
}

/// An answer, taken apart without any library.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The JSON body of an error, which must have both its texts.
    pub(crate) fn complaint(&self) -> (String, String) {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let text = |key: &str| json[key].as_str().unwrap().to_owned();
        assert_eq!(self.header("content-type"), Some("application/json"));
        (text("error"), text("hint"))
    }
}

/// Sends a head and a body, and reads one answer.
pub(crate) async fn exchange<S>(stream: &mut S, head: &str, body: &[u8]) -> Reply
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head_bytes = format!("{head}\r\nHost: localhost\r\n{length}\r\n");
    stream.write_all(head_bytes.as_bytes()).await.unwrap();
    // A server that has heard enough may close before all of it is written.
    let _ = stream.write_all(body).await;
    let _ = stream.flush().await;
    read_reply(stream, head.starts_with("HEAD")).await
}

pub(crate) async fn read_reply<S: AsyncReadExt + Unpin>(stream: &mut S, no_body: bool) -> Reply {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(in_time(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let status: u16 = head[9..12].parse().unwrap();
    let mut reply = Reply { status, head, body: Vec::new() };
    let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
    if !no_body && status != 304 {
        reply.body = vec![0; length];
        in_time(stream.read_exact(&mut reply.body)).await.unwrap();
    }
    reply
}

/// Wall-clock time.
pub(crate) fn utc() -> Timestamp {
    system::utc()
}
