//! Directories that lie, stall or talk nonsense: a clear error within the time there is, or another source.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kith_directory::client::{
    AnnounceError, BoxFuture, ClientConfig, Directory, DiscoverError, ExchangeError, Freshness, HttpsSource,
    LookupError, MemoryReplay, Source, SourceName,
};
use kith_directory::lookup::{Pace, Rejection};
use kith_identity::record::{MAX_JSON_BYTES, RecordSet, VerifiedRecordSet};
use kith_identity::tls::{Certificate, ServerCertificate, directory_server};
use kith_identity::{Authority, Identity, Ni};
use kith_sansio::Span;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::discovering::Fixed;
use crate::world::{Zone, identity, in_time, set, set_with_blobs, utc};

/// What a directory does with a connection.
#[derive(Clone)]
enum Evil {
    /// Takes it, and says nothing.
    Silent,
    /// Says this instead of a TLS handshake, and nothing more.
    NoTls(&'static [u8]),
    /// Answers a request with this, and keeps the connection.
    Says(Vec<u8>),
    /// Answers a request with this, byte by byte, and goes on with spaces for ever.
    Drips(Vec<u8>),
    /// Answers a request with this, then with the second part again and again.
    Floods(Vec<u8>, Vec<u8>),
    /// Answers a request with this, and cuts the connection.
    Cuts(Vec<u8>),
}

/// A directory at `127.0.0.1` and its key, pinned.
struct EvilDirectory {
    authority: Authority,
    pin: Arc<Identity>,
}

impl EvilDirectory {
    async fn start(evil: Evil) -> EvilDirectory {
        let pin = Arc::new(identity(66));
        let certificate = Certificate::self_signed(&pin).unwrap();
        let config = Arc::new(directory_server(ServerCertificate::Own(&certificate)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(meet(
                    stream,
                    evil.clone(),
                    tokio_rustls::TlsAcceptor::from(Arc::clone(&config)),
                ));
            }
        });
        EvilDirectory { authority, pin }
    }

    fn config(&self) -> ClientConfig {
        let pace = Pace { deadline: Span::secs(3), ..Pace::default() };
        let (https_timeout, announce_timeout) = (Span::millis(1500), Span::millis(1500));
        let config = ClientConfig { pace, https_timeout, announce_timeout, ..ClientConfig::default() };
        config.pin(self.authority.clone(), self.pin.fingerprint())
    }

    fn client(&self) -> Directory {
        Directory::open(self.config())
    }

    fn ni(&self, who: &Identity) -> Ni {
        Ni::new(who.fingerprint(), Some(self.authority.clone()))
    }

    async fn look_up(&self) -> Result<Option<RecordSet>, LookupError> {
        let config = self.config();
        let source = HttpsSource::new(config.roots, config.pins, config.https_timeout);
        in_time(source.lookup(self.ni(&identity(1)))).await
    }

    async fn announce(&self) -> Result<kith_directory::client::Announced, AnnounceError> {
        let alice = identity(1);
        in_time(self.client().announce(&self.authority, &alice, &set(&alice, utc(), 600))).await
    }
}

async fn meet(mut stream: TcpStream, evil: Evil, tls: tokio_rustls::TlsAcceptor) {
    match evil {
        Evil::Silent => std::future::pending::<()>().await,
        Evil::NoTls(bytes) => {
            let _ = stream.write_all(bytes).await;
            std::future::pending::<()>().await;
        }
        evil => {
            // A client that does not trust this directory goes away here.
            if let Ok(stream) = tls.accept(stream).await {
                let _ = answer(stream, evil).await;
            }
        }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, evil: Evil) -> std::io::Result<()> {
    let _ = stream.read(&mut [0; 8192]).await?;
    match evil {
        Evil::Silent | Evil::NoTls(_) => {}
        Evil::Says(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            std::future::pending::<()>().await;
        }
        Evil::Drips(bytes) => {
            for byte in bytes.into_iter().chain(std::iter::repeat(b' ')) {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Evil::Floods(head, more) => {
            stream.write_all(&head).await?;
            loop {
                stream.write_all(&more).await?;
            }
        }
        Evil::Cuts(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
        }
    }
    Ok(())
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn set_answer(set: &VerifiedRecordSet) -> Evil {
    Evil::Says(http("200 OK", "Content-Type: application/json\r\n", &set.to_json()))
}

/// Sets that no reader may take for one of alice, with what is wrong with them.
fn lies() -> Vec<(&'static str, RecordSet)> {
    let (alice, mallory) = (identity(1), identity(2));
    let parsed = |json: String| RecordSet::from_json(json.as_bytes()).unwrap();
    let honest = String::from_utf8(set(&alice, utc(), 600).to_json()).unwrap();
    let of = |who: &Identity, at, ttl| set(who, at, ttl).as_record_set().clone();
    vec![
        ("somebody else's", of(&mallory, utc(), 600)),
        ("altered", parsed(honest.replace("192.0.2.1", "192.0.2.2"))),
        ("longer-lived", parsed(honest.replace("\"ttl\":600", "\"ttl\":601"))),
        ("expired", of(&alice, utc().minus_secs(700), 600)),
        ("from the future", of(&alice, utc().plus_secs(3600), 600)),
    ]
}

#[tokio::test]
async fn a_lie_is_refused_and_whoever_told_it_is_named() {
    for (what, lie) in lies() {
        let evil = EvilDirectory::start(Evil::Says(http("200 OK", "", &lie.to_json()))).await;
        let refused = in_time(evil.client().discover(&evil.ni(&identity(1)), Freshness::Valid)).await;
        assert!(
            matches!(refused, Err(DiscoverError::Refused { from: SourceName::Https, .. })),
            "{what}: {refused:?}"
        );
        assert!(evil.client().cached(&identity(1).fingerprint()).is_none());
    }
}

#[tokio::test]
async fn a_lie_of_one_source_does_not_keep_the_truth_of_another_away() {
    let zone = Zone::start(|_| {}).await;
    let alice = identity(1);
    let held = set(&alice, utc(), 600);
    zone.client().announce(&zone.authority(), &alice, &held).await.unwrap();
    for (what, lie) in lies() {
        let client = Directory::new(
            zone.client_config(),
            vec![Arc::new(Lies(lie))],
            Arc::new(MemoryReplay::default()),
        );
        let found = in_time(client.discover(&zone.ni(&alice), Freshness::Valid)).await.unwrap();
        assert_eq!(found.set, held, "{what}");
        assert_ne!(found.verified_by, SourceName::Lan, "{what}");
    }
    zone.stop().await;
}

struct Lies(RecordSet);

impl Source for Lies {
    fn name(&self) -> SourceName {
        SourceName::Lan
    }

    fn lookup(&self, _: Ni) -> BoxFuture<'_, Result<Option<RecordSet>, LookupError>> {
        Box::pin(async { Ok(Some(self.0.clone())) })
    }
}

/// A directory that gives out an old set, which was valid once and still would be, to those who have seen a newer.
#[tokio::test]
async fn an_older_set_is_refused_and_the_newer_one_that_was_seen_stays() {
    let alice = identity(1);
    let (old, new) = (set(&alice, utc().minus_secs(60), 600), set(&alice, utc(), 600));
    let evil = EvilDirectory::start(set_answer(&old)).await;
    let client = evil.client();
    client.offer(new.as_record_set().clone(), &alice.fingerprint()).unwrap();
    let found = in_time(client.discover(&evil.ni(&alice), Freshness::Refetch)).await.unwrap();
    assert_eq!((found.set, found.verified_by), (new.clone(), SourceName::Cache));
    // Where only the memory of it is left, there is an error and not an old set.
    let memory = Arc::new(MemoryReplay::default());
    let seen = Directory::new(
        ClientConfig::default(),
        vec![Arc::new(Fixed(SourceName::Lan, Some(new)))],
        Arc::clone(&memory) as Arc<_>,
    );
    in_time(seen.discover(&Ni::new(alice.fingerprint(), None), Freshness::Valid)).await.unwrap();
    let restarted = Directory::new(evil.config(), Vec::new(), memory);
    let refused = in_time(restarted.discover(&evil.ni(&alice), Freshness::Valid)).await;
    assert!(matches!(refused, Err(DiscoverError::Refused { why: Rejection::Older, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_directory_that_stalls_at_any_step_is_given_up_in_time() {
    let stalls = [
        ("before the handshake", Evil::Silent),
        ("in the handshake", Evil::NoTls(&[22, 3, 3, 0, 200, 2, 0, 0, 196])),
        ("before the head", Evil::Says(vec![])),
        ("in the head", Evil::Says(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec())),
        ("in the body", Evil::Says(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{".to_vec())),
        ("at each byte of the head", Evil::Drips(b"HTTP/1.1 200 OK\r\nX: ".to_vec())),
        (
            "at each byte of the body",
            Evil::Drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n".to_vec()),
        ),
        (
            "between chunks",
            Evil::Drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{".to_vec()),
        ),
        ("with one interim answer after the other", {
            Evil::Floods(vec![], b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec())
        }),
    ];
    let each = stalls.map(|(when, evil)| async move {
        let evil = EvilDirectory::start(evil).await;
        let (lookup, announce) = tokio::join!(evil.look_up(), evil.announce());
        let slow = |error: &ExchangeError| {
            let said = matches!(error, ExchangeError::TooSlow { .. } | ExchangeError::Broken { .. });
            said && error.to_string().contains(&evil.authority.to_string())
        };
        assert!(matches!(&lookup, Err(LookupError::Exchange(error)) if slow(error)), "{when}: {lookup:?}");
        assert!(
            matches!(&announce, Err(AnnounceError::Exchange(error)) if slow(error)),
            "{when}: {announce:?}"
        );
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_apart_from_who_is_slow() {
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", &[0; 64]] {
        let evil = EvilDirectory::start(Evil::NoTls(bytes)).await;
        let failed = evil.look_up().await;
        assert!(matches!(failed, Err(LookupError::Exchange(ExchangeError::Handshake { .. }))), "{failed:?}");
    }
}

#[tokio::test]
async fn a_body_beyond_all_measure_is_cut_off() {
    let chunk = [&b"4000\r\n"[..], &[b' '; 0x4000], b"\r\n"].concat();
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", u64::MAX).into_bytes();
    for evil in [
        Evil::Floods(large, vec![b'{'; 4096]),
        Evil::Floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), chunk),
        // Without a length: until the connection ends.
        Evil::Floods(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), vec![b' '; 4096]),
        Evil::Says(http("200 OK", "", &vec![b' '; MAX_JSON_BYTES + 1])),
    ] {
        let evil = EvilDirectory::start(evil).await;
        let failed = evil.look_up().await;
        assert!(
            matches!(
                failed,
                Err(LookupError::Exchange(ExchangeError::TooLarge { .. } | ExchangeError::Broken { .. }))
            ),
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_no_set() {
    let json = set_with_blobs(&identity(1), utc(), &[500]).to_json();
    let whole = http("200 OK", "", &json);
    for part in [10, whole.len() / 2, whole.len() - 1] {
        let evil = EvilDirectory::start(Evil::Cuts(whole[..part].to_vec())).await;
        let failed = evil.look_up().await;
        assert!(matches!(failed, Err(LookupError::Exchange(ExchangeError::Broken { .. }))), "{failed:?}");
    }
    // Without a length, the end of the connection is the end of the body; half of a set is none.
    let unsaid = [b"HTTP/1.1 200 OK\r\n\r\n", &json[..json.len() / 2]].concat();
    let failed = EvilDirectory::start(Evil::Cuts(unsaid)).await.look_up().await;
    assert!(
        matches!(
            failed,
            Err(LookupError::Malformed(_) | LookupError::Exchange(ExchangeError::Broken { .. }))
        ),
        "{failed:?}"
    );
}

#[tokio::test]
async fn what_is_no_set_is_called_so_whatever_it_says_it_is() {
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 1, 0, 0, 0xff, 0xff];
    let deep = [b"[".repeat(20_000), b"]".repeat(20_000)].concat();
    for (headers, body) in [
        ("Content-Type: text/html\r\n", &b"<html><body>Please log in to the hotel network</body></html>"[..]),
        ("Content-Type: application/json\r\n", b""),
        ("Content-Type: application/json\r\n", b"null"),
        ("Content-Type: application/json\r\n", b"{\"version\":1}"),
        ("Content-Type: application/json\r\n", b"{\"version\":1,\"version\":1}"),
        ("Content-Type: application/json\r\n", &deep),
        ("Content-Type: application/json\r\n", b"\xff\xfe\x00"),
        // Nothing was asked for that would have to be unpacked, and nothing is.
        ("Content-Encoding: gzip\r\n", &gzip),
        ("Content-Encoding: deflate\r\n", b"\x78\x9c\x03\x00\x00\x00\x00\x01"),
    ] {
        let evil = EvilDirectory::start(Evil::Says(http("200 OK", headers, body))).await;
        let failed = evil.look_up().await;
        assert!(matches!(failed, Err(LookupError::Malformed(_))), "{headers}: {failed:?}");
        let failed = in_time(evil.client().discover(&evil.ni(&identity(1)), Freshness::Valid)).await;
        let Err(DiscoverError::NoAnswer { failures, .. }) = failed else { panic!("{failed:?}") };
        assert_eq!(failures.len(), 1);
    }
}

/// Somebody whom a redirect points at; whether anybody came.
async fn bystander() -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, visited) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&visited);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            flag.store(true, Ordering::SeqCst);
        }
    });
    (address, visited)
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (address, visited) = bystander().await;
    for status in [300, 301, 302, 303, 307, 308] {
        let location = format!("Location: https://{address}/.well-known/ni/sha3-256/x\r\n");
        let evil = EvilDirectory::start(Evil::Says(http(&format!("{status} x"), &location, b""))).await;
        let failed = evil.look_up().await;
        let told = matches!(failed, Err(LookupError::Status { status: s, .. }) if s == status);
        assert!(told, "{failed:?}");
        let failed = evil.announce().await;
        let told = matches!(failed, Err(AnnounceError::Refused { status: s, .. }) if s == status);
        assert!(told, "{failed:?}");
    }
    assert!(!visited.load(Ordering::SeqCst));
}

#[tokio::test]
async fn an_odd_status_is_no_answer_and_no_success() {
    let json = set(&identity(1), utc(), 600).to_json();
    for status in [202, 204, 206, 304, 400, 401, 403, 410, 429, 500, 502, 503, 599] {
        let body = if matches!(status, 204 | 304) { &b""[..] } else { &json };
        let evil = EvilDirectory::start(Evil::Says(http(&format!("{status} x"), "", body))).await;
        let failed = evil.look_up().await;
        let told = matches!(failed, Err(LookupError::Status { status: s, .. }) if s == status);
        assert!(told, "{failed:?}");
        if status != 204 {
            let failed = evil.announce().await;
            let told = matches!(failed, Err(AnnounceError::Refused { status: s, .. }) if s == status);
            assert!(told, "{failed:?}");
        }
    }
}

#[tokio::test]
async fn a_pause_that_a_directory_asks_for_is_bounded() {
    for (header, pause) in [
        ("Retry-After: 7\r\n", Some(Span::secs(7))),
        ("Retry-After: 99999999999\r\n", Some(Span::secs(3600))),
        ("Retry-After: 99999999999999999999999\r\n", None),
        ("Retry-After: -1\r\n", None),
        ("Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", None),
    ] {
        let evil = EvilDirectory::start(Evil::Says(http("503 x", header, b"\x1b[2Jnonsense"))).await;
        let failed = evil.announce().await;
        let Err(AnnounceError::Refused { status: 503, error, retry_after, .. }) = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(retry_after, pause, "{header}");
        assert_eq!(error, "it does not say why");
    }
}
