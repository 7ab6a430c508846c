//! What a server counts, and the page on which it says so, for Prometheus.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kith_sansio::{Time, system};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::Connections;
use super::shared::Shared;
use crate::announce::Refusal;
use crate::dns::Transport;
use crate::store::Stored;

/// Upper ends of the classes of durations, in seconds.
const SECONDS: [f64; 14] = [
    0.000_005, 0.000_01, 0.000_025, 0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0,
];
/// One lookup of so many is timed where the answer takes less time than looking at a clock.
const TIMED: u64 = 64;
/// Connections that read metrics at once.
const READERS: usize = 8;
/// Time for one of them.
const READER_LIFE: Duration = Duration::from_secs(30);
/// What the page is (the OpenMetrics text format).
const FORMAT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The response codes that are counted by name, in the order of their numbers.
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

/// A call of the store that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum StoreCall {
    Announce,
    Lookup,
}

/// What a server did since it started. Counters that every query touches stand ready, without a look at a table.
pub(super) struct Metrics {
    registry: Registry,
    announces: Family<Label, Counter>,
    https_lookups: Family<Label, Counter>,
    dns: [[Counter; CODES.len() + 1]; 2],
    ignored: [Counter; 2],
    limited: [Counter; 2],
    store: [Histogram; 2],
    connections: Family<Label, Gauge>,
    transfers: Family<Label, Counter>,
    sets: Gauge,
    samples: AtomicU64,
}

/// What became of a transfer of the zone that somebody with a key asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transferred {
    /// The secondary has the whole zone.
    Whole,
    /// It has what changed.
    Incremental,
    /// It had everything already.
    Current,
    /// Too many transfers are under way.
    Refused,
    /// The secondary went away, or took too long.
    BrokenOff,
    /// The store failed.
    Failed,
}

impl Transferred {
    const ALL: [Transferred; 6] = [
        Transferred::Whole,
        Transferred::Incremental,
        Transferred::Current,
        Transferred::Refused,
        Transferred::BrokenOff,
        Transferred::Failed,
    ];

    fn label(self) -> Label {
        let outcome = match self {
            Transferred::Whole => "whole",
            Transferred::Incremental => "incremental",
            Transferred::Current => "current",
            Transferred::Refused => "refused",
            Transferred::BrokenOff => "broken_off",
            Transferred::Failed => "failed",
        };
        [("outcome", outcome)]
    }
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("kith_directory");
        let announces = Family::<Label, Counter>::default();
        registry.register("announces", "Announces by what became of them", announces.clone());
        let https_lookups = Family::<Label, Counter>::default();
        registry.register("https_lookups", "Lookups over HTTPS by their result", https_lookups.clone());
        let queries = Family::<Labels, Counter>::default();
        registry.register("dns_queries", "Queries over DNS by transport and response code", queries.clone());
        let ignored = Family::<Label, Counter>::default();
        registry.register("dns_ignored", "Packets over DNS that deserve no answer", ignored.clone());
        let limited = Family::<Label, Counter>::default();
        registry.register("dns_limited", "Queries over UDP beyond the rate of their source", limited.clone());
        let connections = Family::<Label, Gauge>::default();
        registry.register("connections", "Connections that are open", connections.clone());
        let transfers = Family::<Label, Counter>::default();
        registry.register("transfers", "Transfers of the zone over TCP by their outcome", transfers.clone());
        // What has not happened yet is there as 0, so that the first time is seen as a change.
        for outcome in Transferred::ALL {
            drop(transfers.get_or_create(&outcome.label()));
        }
        for outcome in TAKEN.into_iter().chain(REFUSED) {
            drop(announces.get_or_create(&[("outcome", outcome)]));
        }
        for result in LOOKED_UP {
            drop(https_lookups.get_or_create(&[("result", result)]));
        }
        let sets = Gauge::default();
        registry.register("sets", "Record sets in the store", sets.clone());
        let store = Family::<Label, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        registry.register("store_seconds", "Time that the store took", store.clone());
        let of = |family: &Family<Label, Counter>, key, value| family.get_or_create_owned(&[(key, value)]);
        let by_code = |transport: &'static str| {
            let code = |at: usize| CODES.get(at).copied().unwrap_or("OTHER");
            std::array::from_fn(|at| {
                queries.get_or_create_owned(&[("transport", transport), ("rcode", code(at))])
            })
        };
        Metrics {
            dns: [by_code("udp"), by_code("tcp")],
            ignored: ["udp", "tcp"].map(|transport| of(&ignored, "transport", transport)),
            limited: ["dropped", "truncated"].map(|action| of(&limited, "action", action)),
            store: ["announce", "lookup"].map(|call| store.get_or_create_owned(&[("operation", call)])),
            registry,
            announces,
            https_lookups,
            connections,
            transfers,
            sets,
            samples: AtomicU64::new(0),
        }
    }

    pub(super) fn announced(&self, outcome: &'static str) {
        self.announces.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(super) fn looked_up(&self, result: &'static str) {
        self.https_lookups.get_or_create(&[("result", result)]).inc();
    }

    /// Counts an answer over DNS by the code in it.
    pub(super) fn dns_answered(&self, transport: Transport, answer: &[u8]) {
        let code = answer.get(3).map_or(0, |flags| usize::from(flags & 0x0f));
        self.dns[index(transport)][code.min(CODES.len())].inc();
    }

    pub(super) fn dns_ignored(&self, transport: Transport) {
        self.ignored[index(transport)].inc();
    }

    pub(super) fn dns_limited(&self, truncated: bool) {
        self.limited[usize::from(truncated)].inc();
    }

    pub(super) fn transferred(&self, outcome: Transferred) {
        self.transfers.get_or_create(&outcome.label()).inc();
    }

    /// The time, where this lookup is one of those that are timed.
    pub(super) fn dns_sample(&self) -> Option<Time> {
        let number = self.samples.fetch_add(1, Ordering::Relaxed);
        number.is_multiple_of(TIMED).then(system::time)
    }

    /// Notes how long the store took since `begun`.
    pub(super) fn store_took(&self, call: StoreCall, begun: Option<Time>) {
        if let Some(begun) = begun {
            self.store[call as usize].observe(Duration::from(system::time() - begun).as_secs_f64());
        }
    }

    /// Announces that were taken, announces that were refused.
    pub(super) fn announces(&self) -> (u64, u64) {
        let count = |outcome| self.announces.get_or_create(&[("outcome", outcome)]).get();
        let taken = TAKEN.into_iter().map(count).sum();
        (taken, REFUSED.into_iter().map(count).sum())
    }

    /// Lookups over HTTPS.
    pub(super) fn https_lookups(&self) -> u64 {
        let count = |result| self.https_lookups.get_or_create(&[("result", result)]).get();
        LOOKED_UP.into_iter().map(count).sum()
    }

    /// Queries over DNS, whatever the answer.
    pub(super) fn dns_queries(&self) -> u64 {
        let answered: u64 = self.dns.iter().flatten().map(Counter::get).sum();
        answered + self.ignored.iter().map(Counter::get).sum::<u64>()
    }

    /// The page.
    async fn page(&self, shared: &Shared) -> Option<String> {
        for (endpoint, connections) in
            [("https", &shared.https_connections), ("dns", &shared.dns_connections)]
        {
            let open = i64::try_from(connections.open()).unwrap_or(i64::MAX);
            self.connections.get_or_create(&[("endpoint", endpoint)]).set(open);
        }
        match shared.store.count().await {
            Ok(Some(count)) => drop(self.sets.set(i64::try_from(count).unwrap_or(i64::MAX))),
            Ok(None) => {}
            Err(error) => shared.store_failed(&error),
        }
        let mut page = String::new();
        encode(&mut page, &self.registry).ok().map(|()| page)
    }
}

const LOOKED_UP: [&str; 4] = ["found", "not_modified", "missing", "failed"];
const TAKEN: [&str; 3] = ["created", "replaced", "repeated"];
const REFUSED: [&str; 9] = [
    "no_certificate",
    "somebody_else",
    "not_a_member",
    "not_newer",
    "too_large",
    "invalid",
    "too_often",
    "broken_off",
    "failed",
];

/// How an announce that the store took is counted.
pub(super) fn outcome_of(stored: Stored) -> &'static str {
    match stored {
        Stored::Created => "created",
        Stored::Replaced => "replaced",
        Stored::Repeated => "repeated",
        Stored::NotNewer => "not_newer",
    }
}

/// How a refused announce is counted.
pub(super) fn outcome_of_refusal(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NoCertificate => "no_certificate",
        Refusal::SomebodyElse(_) => "somebody_else",
        Refusal::NotAllowed(_) => "not_a_member",
        Refusal::NotNewer => "not_newer",
        Refusal::BodyTooLarge { .. } | Refusal::BlobTooLarge { .. } => "too_large",
        Refusal::Malformed(_) | Refusal::Invalid(_) => "invalid",
        Refusal::TooOften { .. } => "too_often",
    }
}

fn index(transport: Transport) -> usize {
    usize::from(transport == Transport::Tcp)
}

/// Gives out the page until `stop`.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let places = Connections::new(READERS, READERS);
    loop {
        let (stream, _, place) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = places.accept(&listener) => accepted,
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(READER_LIFE, converse(&shared, stream)) => {}
            }
            drop(place);
        });
    }
}

async fn converse(shared: &Shared, stream: TcpStream) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(shared, &request).await) });
    // A reader that goes away in the middle is nobody's trouble.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from(shared.config.connections.idle))
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    if request.uri().path() != "/metrics" {
        *answer.status_mut() = StatusCode::NOT_FOUND;
    } else if request.method() != Method::GET {
        *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    } else if let Some(page) = shared.metrics.page(shared).await {
        *answer.body_mut() = Full::from(page);
        answer.headers_mut().insert(header::CONTENT_TYPE, FORMAT);
    } else {
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    answer
}
