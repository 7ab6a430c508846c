use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kith_identity::record::RecordSet;
use kith_identity::tls::peer_key;
use kith_identity::{Fingerprint, PublicKey};
use kith_sansio::{Timestamp, system};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::{StoreCall, outcome_of, outcome_of_refusal};
use super::shared::Shared;
use crate::announce::{Announce, Complaint, Refusal, admit, admit_client};
use crate::defaults::MAX_AGE_SECS;
use crate::store::{Held, StoreError, Stored};

/// The resource of a node, up to its VALUE.
const PREFIX: &str = "/.well-known/ni/sha3-256/";
/// What can be done with a resource.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, PUT");
/// Largest head of a request in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Bytes of a body that are read only to be thrown away, so that its sender gets to read why.
const MAX_DRAINED_BYTES: usize = 1 << 20;
/// Time that a connection has to finish after it was told to.
const GRACE: Duration = Duration::from_secs(2);

type Answer = Response<Full<Bytes>>;

/// A client as the handshake showed it.
#[derive(Clone, Copy)]
struct Client {
    source: SocketAddr,
    key: Option<PublicKey>,
}

/// Accepts connections until `stop`.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let (stream, source, place) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = shared.https_connections.accept(&listener) => accepted,
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move {
            converse(shared, stream, source, stop).await;
            drop(place);
        });
    }
}

/// One connection, from its handshake to its end.
async fn converse(shared: Arc<Shared>, stream: TcpStream, source: SocketAddr, stop: CancellationToken) {
    // Answers are small and waited for. Failing to say so harms nobody.
    let _ = stream.set_nodelay(true);
    let limits = shared.config.connections;
    let handshake = TlsAcceptor::from(shared.tls()).accept(stream);
    let shaken = tokio::select! {
        () = stop.cancelled() => return,
        shaken = tokio::time::timeout(limits.handshake.into(), handshake) => shaken,
    };
    let Ok(Ok(stream)) = shaken else { return };
    let Ok(key) = peer_key(stream.get_ref().1.peer_certificates()) else { return };
    let client = Client { source, key };
    speak(shared, stream, client, stop).await;
}

async fn speak(shared: Arc<Shared>, stream: TlsStream<TcpStream>, client: Client, stop: CancellationToken) {
    let limits = shared.config.connections;
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, client, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from(limits.idle))
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let over = tokio::time::sleep(limits.life.into());
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = over => {}
    }
    connection.as_mut().graceful_shutdown();
    // A peer that does not take its answer in time does not get it.
    let _ = tokio::time::timeout(GRACE, connection).await;
}

async fn answer(shared: &Shared, client: Client, request: Request<Incoming>) -> Answer {
    let Some(value) = request.uri().path().strip_prefix(PREFIX) else {
        return complain(
            StatusCode::NOT_FOUND,
            "there is nothing here",
            "record sets are at /.well-known/ni/sha3-256/VALUE",
        );
    };
    let Ok(fingerprint) = value.parse::<Fingerprint>() else {
        return complain(
            StatusCode::BAD_REQUEST,
            "the last part of the path is no fingerprint",
            "a VALUE is 43 characters of base64url",
        );
    };
    match *request.method() {
        Method::GET | Method::HEAD => discover(shared, request.headers(), fingerprint).await,
        Method::PUT => announce(shared, client, request, fingerprint).await,
        _ => {
            let text = "this method does nothing here";
            let mut answer = complain(StatusCode::METHOD_NOT_ALLOWED, text, "use GET, HEAD or PUT");
            answer.headers_mut().insert(header::ALLOW, ALLOW);
            answer
        }
    }
}

async fn discover(shared: &Shared, headers: &HeaderMap, fingerprint: Fingerprint) -> Answer {
    let (now, begun) = (system::utc(), system::time());
    let held = shared.store.held(now, fingerprint).await;
    shared.metrics.store_took(StoreCall::Lookup, Some(begun));
    let (result, answer) = match held {
        Ok(Some(set)) => match set.to_record_set() {
            Some(records) => found(headers, &set, &records, now),
            None => ("failed", broken(shared, &StoreError::Damaged(fingerprint))),
        },
        Ok(None) => {
            let hint = "the node may be down, or elsewhere";
            ("missing", complain(StatusCode::NOT_FOUND, "nothing valid is announced", hint))
        }
        Err(error) => ("failed", broken(shared, &error)),
    };
    shared.metrics.looked_up(result);
    answer
}

fn found(headers: &HeaderMap, set: &Held, records: &RecordSet, now: Timestamp) -> (&'static str, Answer) {
    let digest = set.digest();
    let tag = format!("\"{}\"", data_encoding::HEXLOWER.encode(&digest[..16]));
    let age = set.expires().secs_since(now).min(MAX_AGE_SECS);
    let builder = Response::builder()
        .header(header::ETAG, &tag)
        .header(header::CACHE_CONTROL, format!("max-age={age}"));
    let known = is_known(headers, &tag);
    let answer = if known {
        builder.status(StatusCode::NOT_MODIFIED).body(Full::default())
    } else {
        builder
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .body(Full::from(records.to_json()))
    };
    let answer = answer.unwrap_or_else(|_| Response::new(Full::default()));
    (if known { "not_modified" } else { "found" }, answer)
}

/// Whether the client has what `tag` stands for (RFC 9110 §13.1.2); the comparison is weak.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

async fn announce(shared: &Shared, client: Client, request: Request<Incoming>, named: Fingerprint) -> Answer {
    let (outcome, answer) = match take(shared, client, request, named).await {
        Ok(stored @ Stored::Created) => (outcome_of(stored), empty(StatusCode::CREATED)),
        Ok(stored @ (Stored::Replaced | Stored::Repeated)) => {
            (outcome_of(stored), empty(StatusCode::NO_CONTENT))
        }
        Ok(stored @ Stored::NotNewer) => (outcome_of(stored), refuse(&Refusal::NotNewer)),
        Err(Failed::Refused(refusal)) => (outcome_of_refusal(&refusal), refuse(&refusal)),
        Err(Failed::BrokenOff(answer)) => ("broken_off", *answer),
        Err(Failed::Store(error)) => ("failed", broken(shared, &error)),
    };
    shared.metrics.announced(outcome);
    answer
}

/// Why an announce was not taken.
enum Failed {
    Refused(Refusal),
    BrokenOff(Box<Answer>),
    Store(StoreError),
}

async fn take(
    shared: &Shared,
    client: Client,
    request: Request<Incoming>,
    named: Fingerprint,
) -> Result<Stored, Failed> {
    // Who waits to be told has sent nothing yet, and must not be asked for what nobody wants.
    let waits = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    if let Err(refusal) = before_body(shared, client, &body, &named) {
        if !waits {
            drain(shared, body).await;
        }
        return Err(Failed::Refused(refusal));
    }
    let body = read_body(shared, body).await?;
    let request = Announce { client_key: client.key, named: &named, body: &body };
    let (now, allow) = (system::utc(), shared.config.allow.as_deref());
    let set = admit(now, &request, &shared.config.limits, allow).map_err(Failed::Refused)?;
    let begun = system::time();
    let stored = shared.store.announce(now, set).await;
    shared.metrics.store_took(StoreCall::Announce, Some(begun));
    stored.map_err(Failed::Store)
}

/// All that can be said before the body is there. A node's own allowance is spent only by the node itself.
fn before_body(shared: &Shared, client: Client, body: &Incoming, named: &Fingerprint) -> Result<(), Refusal> {
    shared.spend_network(client.source.ip())?;
    admit_client(client.key.as_ref(), named, shared.config.allow.as_deref())?;
    shared.spend_fingerprint(*named)?;
    let limit = shared.config.limits.max_body_bytes;
    if body.size_hint().lower() > limit as u64 {
        return Err(Refusal::BodyTooLarge { limit });
    }
    Ok(())
}

async fn read_body(shared: &Shared, mut body: Incoming) -> Result<Bytes, Failed> {
    let limit = shared.config.limits.max_body_bytes;
    let reading = Limited::new(&mut body, limit).collect();
    match tokio::time::timeout(shared.config.connections.body.into(), reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drain(shared, body).await;
            Err(Failed::Refused(Refusal::BodyTooLarge { limit }))
        }
        Ok(Err(_)) => {
            let answer = complain(StatusCode::BAD_REQUEST, "the body broke off", "send it again");
            Err(Failed::BrokenOff(Box::new(answer)))
        }
        Err(_) => {
            let hint = "send the body at once";
            let answer = complain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time", hint);
            Err(Failed::BrokenOff(Box::new(answer)))
        }
    }
}

/// Reads on for a while: an answer to somebody who still sends would be lost in the reset of the connection.
async fn drain(shared: &Shared, body: Incoming) {
    let reading = Limited::new(body, MAX_DRAINED_BYTES).collect();
    let _ = tokio::time::timeout(shared.config.connections.body.into(), reading).await;
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

fn refuse(refusal: &Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut answer = json(status, refusal.to_json());
    if let Refusal::TooOften { wait } = refusal {
        let secs = wait.0.div_ceil(1_000_000);
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    answer
}

fn broken(shared: &Shared, error: &StoreError) -> Answer {
    match error {
        StoreError::Database(kith_store::StoreError::Busy { .. }) => {
            complain(StatusCode::SERVICE_UNAVAILABLE, "too much is being written", "try again in a moment")
        }
        StoreError::Redis(error) if error.may_pass() => {
            tracing::warn!(%error, hint = error.hint(), "the store did not do it");
            complain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the directory's store does not answer",
                "try again in a moment",
            )
        }
        StoreError::ClockBehind { .. } => {
            shared.store_failed(error);
            let text = "the set that is held here is from the future: the directory's clock was set back";
            complain(StatusCode::SERVICE_UNAVAILABLE, text, "it passes when the node announces again")
        }
        error => {
            shared.store_failed(error);
            complain(StatusCode::INTERNAL_SERVER_ERROR, "the directory's store failed", "ask its operator")
        }
    }
}

fn complain(status: StatusCode, error: &str, hint: &str) -> Answer {
    json(status, Complaint { error: error.to_owned(), hint: hint.to_owned() }.to_json())
}

fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
