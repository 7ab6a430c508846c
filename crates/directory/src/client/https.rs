//! HTTPS as a source, and the announce.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use kith_identity::record::{MAX_JSON_BYTES, RecordSet, VerifiedRecordSet};
use kith_identity::tls::{Certificate, Trust, directory_client};
use kith_identity::{Authority, Fingerprint, Ni};
use kith_sansio::{Span, Timestamp};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::connect;
use super::{AnnounceError, Announced, ExchangeError, LookupError, Probe, Source, SourceName};
use crate::announce::Complaint;
use crate::store::BoxFuture;

/// Largest head of an answer in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest pause that a directory can ask for, in seconds.
const MAX_RETRY_AFTER_SECS: u64 = 3600;

/// Speaks HTTPS with directories, one connection per exchange.
pub(super) struct Exchanger {
    roots: Arc<RootCertStore>,
    pins: HashMap<Authority, Fingerprint>,
    timeout: Span,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Exchanger {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        pins: HashMap<Authority, Fingerprint>,
        timeout: Span,
    ) -> Exchanger {
        Exchanger { roots, pins, timeout }
    }

    pub(super) async fn announce(
        &self,
        authority: &Authority,
        certificate: &Certificate,
        set: &VerifiedRecordSet,
        timeout: Span,
    ) -> Result<Announced, AnnounceError> {
        let body = Bytes::from(set.to_json());
        let request = (Method::PUT, set.fingerprint(), body);
        let reply = self.exchange(authority, Some(certificate), request, timeout).await?;
        match reply.status {
            StatusCode::CREATED => Ok(Announced::Created),
            StatusCode::NO_CONTENT => Ok(Announced::Replaced),
            _ => Err(reply.refusal(authority)),
        }
    }

    pub(super) async fn probe(
        &self,
        authority: &Authority,
        who: Fingerprint,
    ) -> Result<Probe, ExchangeError> {
        let reply = self.exchange(authority, None, (Method::GET, who, Bytes::new()), self.timeout).await?;
        let date = reply.headers.get(header::DATE).and_then(|value| value.to_str().ok());
        Ok(Probe { status: reply.status.as_u16(), date: date.and_then(Timestamp::from_http_date) })
    }

    async fn discover(
        &self,
        authority: &Authority,
        who: Fingerprint,
    ) -> Result<Option<RecordSet>, LookupError> {
        let reply = self.exchange(authority, None, (Method::GET, who, Bytes::new()), self.timeout).await?;
        match reply.status {
            StatusCode::OK => RecordSet::from_json(&reply.body).map(Some).map_err(LookupError::Malformed),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(LookupError::Status { authority: authority.clone(), status: status.as_u16() }),
        }
    }

    async fn exchange(
        &self,
        authority: &Authority,
        certificate: Option<&Certificate>,
        request: (Method, Fingerprint, Bytes),
        timeout: Span,
    ) -> Result<Reply, ExchangeError> {
        let whole = async {
            let stream = self.connect(authority, certificate).await?;
            speak(authority, stream, request).await
        };
        let too_slow = |_| ExchangeError::TooSlow { authority: authority.clone(), waited: timeout };
        tokio::time::timeout(timeout.into(), whole).await.map_err(too_slow)?
    }

    async fn connect(
        &self,
        authority: &Authority,
        certificate: Option<&Certificate>,
    ) -> Result<TlsStream<TcpStream>, ExchangeError> {
        let trust = match self.pins.get(authority) {
            Some(pin) => Trust::Pin(*pin),
            None => Trust::WebPki(Arc::clone(&self.roots)),
        };
        let config = directory_client(&trust, certificate).map_err(ExchangeError::Tls)?;
        let broken =
            |what: &str| ExchangeError::Broken { authority: authority.clone(), what: what.to_owned() };
        let name = ServerName::try_from(authority.host().to_owned()).map_err(|_| broken("no server name"))?;
        let stream = connect(authority).await?;
        // Small requests, each waited for: nothing is won by holding them back. Failing to say so harms nobody.
        let _ = stream.set_nodelay(true);
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        handshake.map_err(|error| ExchangeError::Handshake { authority: authority.clone(), error })
    }
}

async fn speak(
    authority: &Authority,
    stream: TlsStream<TcpStream>,
    (method, who, body): (Method, Fingerprint, Bytes),
) -> Result<Reply, ExchangeError> {
    let broken = |error: &dyn std::fmt::Display| ExchangeError::Broken {
        authority: authority.clone(),
        what: error.to_string(),
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("/.well-known/ni/sha3-256/{who}"))
        .header(header::HOST, authority.to_string())
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| broken(&error))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        collect(authority, response).await
    };
    // The connection makes progress only while it is polled, and its end alone decides nothing.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        reply = exchange => reply,
        never = driven => never,
    }
}

async fn collect(authority: &Authority, response: Response<Incoming>) -> Result<Reply, ExchangeError> {
    let (head, body) = response.into_parts();
    let collected = Limited::new(body, MAX_JSON_BYTES).collect().await.map_err(|error| {
        let authority = authority.clone();
        match error.is::<LengthLimitError>() {
            true => ExchangeError::TooLarge { authority, limit: MAX_JSON_BYTES },
            false => ExchangeError::Broken { authority, what: error.to_string() },
        }
    })?;
    Ok(Reply { status: head.status, headers: head.headers, body: collected.to_bytes() })
}

impl Reply {
    fn refusal(&self, authority: &Authority) -> AnnounceError {
        let unclear = || Complaint { error: "it does not say why".to_owned(), hint: String::new() };
        let Complaint { error, hint } = Complaint::from_json(&self.body).unwrap_or_else(unclear);
        let pause = self.headers.get(header::RETRY_AFTER);
        let secs: Option<u64> = pause.and_then(|value| value.to_str().ok()?.parse().ok());
        AnnounceError::Refused {
            authority: authority.clone(),
            status: self.status.as_u16(),
            error,
            hint,
            retry_after: secs.map(|secs| Span::secs(secs.min(MAX_RETRY_AFTER_SECS))),
        }
    }
}

/// Asks the directory of an authority over HTTPS.
pub struct HttpsSource {
    exchanger: Arc<Exchanger>,
}

impl HttpsSource {
    /// A source that trusts `roots`, or the pinned key of an authority, and gives each exchange `timeout`.
    #[must_use]
    pub fn new(roots: Arc<RootCertStore>, pins: HashMap<Authority, Fingerprint>, timeout: Span) -> Self {
        HttpsSource { exchanger: Arc::new(Exchanger::new(roots, pins, timeout)) }
    }

    pub(super) fn over(exchanger: Arc<Exchanger>) -> Self {
        HttpsSource { exchanger }
    }
}

impl Source for HttpsSource {
    fn name(&self) -> SourceName {
        SourceName::Https
    }

    fn serves(&self, ni: &Ni) -> bool {
        ni.authority.is_some()
    }

    fn lookup(&self, ni: Ni) -> BoxFuture<'_, Result<Option<RecordSet>, LookupError>> {
        Box::pin(async move {
            match &ni.authority {
                Some(authority) => self.exchanger.discover(authority, ni.fingerprint).await,
                None => Err(LookupError::NotServed(ni)),
            }
        })
    }
}
