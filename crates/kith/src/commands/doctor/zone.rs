//! Directories: those that this node announces to, and the zone that it serves.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kith_directory::client::{
    Directory, DiscoverError, Discovered, ExchangeError, LookupError, MemoryReplay, SourceName,
};
use kith_identity::record::CLOCK_SKEW_SECS;
use kith_identity::{Authority, Fingerprint, Ni, Transport};
use kith_sansio::{Timestamp, system};

use super::network::try_port;
use super::{Patient, Report};
use crate::failure::chain;
use crate::node::{directory, zone};

/// A clock that is this much off is worth a word, in seconds.
const OFF_SECS: u64 = 5;

/// The zone that is served from here: its ports and its certificate.
pub(super) fn served(report: &mut Report, patient: &Patient<'_>) {
    let Some(zone) = &patient.config.directory else { return };
    if let Err(failure) = zone::certificate(zone) {
        report.fail("zone", failure.error, "check directory.certificate and directory.key in kith.toml");
    }
    if patient.status.is_some() {
        return report.ok("zone", "the node serves it");
    }
    let https = zone.listen_https.iter().map(|at| (Transport::Tcp, *at));
    let dns = zone.listen_dns.iter().flat_map(|at| [(Transport::Quic, *at), (Transport::Tcp, *at)]);
    for (transport, at) in https.chain(dns) {
        port(report, transport, at);
    }
}

fn port(report: &mut Report, transport: Transport, at: SocketAddr) {
    let kind = if transport == Transport::Tcp { "TCP" } else { "UDP" };
    match try_port(transport, at) {
        Ok(()) => report.ok("zone", format!("{at} is free for {kind}")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => report.warn(
            "zone",
            format!("something listens on {at} ({kind}) already"),
            "that is right if it is this directory; else choose another address in kith.toml",
        ),
        Err(error) => report.fail(
            "zone",
            format!("cannot listen on {at} ({kind}): {error}"),
            format!("port {} may need the capability CAP_NET_BIND_SERVICE", at.port()),
        ),
    }
}

/// Every directory of the configuration answers, knows the time, and holds what this node announced.
pub(super) async fn directories(report: &mut Report, patient: &Patient<'_>) {
    if patient.config.authorities.is_empty() {
        report.ok("directory", "none: contacts reach this node by address hints (kith contact add … --at …)");
        return;
    }
    // A memory of its own: what is seen here decides nothing later.
    let client = match directory::client(&patient.config, Arc::new(MemoryReplay::default()), None, Vec::new())
    {
        Ok(client) => client,
        Err(failure) => return report.fail("directory", failure.error, "check pins in kith.toml"),
    };
    for authority in &patient.config.authorities {
        one(report, patient, &client, authority).await;
    }
}

async fn one(report: &mut Report, patient: &Patient<'_>, client: &Directory, authority: &Authority) {
    let ni = patient.ni(authority);
    // Any fingerprint will do: "not found" is an answer too.
    let who = ni.as_ref().map_or(Fingerprint::from_bytes([0; 32]), |ni| ni.fingerprint);
    match client.probe(authority, who).await {
        Ok(probe) if matches!(probe.status, 200 | 404) => {
            report.ok("directory", format!("{authority} answers over HTTPS, and it is the right one"));
            their_clock(report, authority, probe.date);
        }
        Ok(probe) => {
            return report.fail(
                "directory",
                format!("{authority} answered with status {}", probe.status),
                "is it a Kithnet directory? ask whoever runs it",
            );
        }
        Err(error) => return unreachable(report, patient, authority, &error),
    }
    let Some(ni) = ni else { return };
    let held = client.discover_via(&ni, SourceName::Https).await;
    announced(report, patient, authority, &held);
    if authority.is_name() {
        delegation(report, client, &ni, held.is_ok()).await;
    }
}

fn unreachable(report: &mut Report, patient: &Patient<'_>, authority: &Authority, error: &ExchangeError) {
    let is_pinned = patient.config.pins.contains_key(&authority.to_string());
    let todo = match error {
        ExchangeError::Name { .. } => {
            "check the spelling in authorities of kith.toml, and this machine's DNS".to_owned()
        }
        ExchangeError::Connect { .. } | ExchangeError::TooSlow { .. } => {
            "check this machine's network; else its directory is down, ask whoever runs it".to_owned()
        }
        ExchangeError::Handshake { .. } if is_pinned => {
            "the pin in kith.toml is not this directory's fingerprint; compare it with whoever runs it"
                .to_owned()
        }
        ExchangeError::Handshake { .. } => format!(
            "no public authority vouches for it; if it has none, pin its fingerprint: [pins] \"{authority}\" = \"ni:…\" in kith.toml"
        ),
        _ => "is it a Kithnet directory? ask whoever runs it".to_owned(),
    };
    report.fail("directory", chain(error), todo);
}

/// Sets are refused whose time lies ahead, and a directory's clock is the first to judge.
fn their_clock(report: &mut Report, authority: &Authority, date: Option<Timestamp>) {
    let Some(date) = date else { return };
    let now = system::utc();
    let off = now.secs_since(date).max(date.secs_since(now));
    let says = format!("{off} s between this clock and that of {authority}");
    let todo = "set the clock, for example by installing systemd-timesyncd or chrony";
    match off {
        off if off > CLOCK_SKEW_SECS => report.fail("clock", says, todo),
        off if off > OFF_SECS => report.warn("clock", says, todo),
        _ => report.ok("clock", says),
    }
}

/// The directory holds what the node says now.
fn announced(
    report: &mut Report,
    patient: &Patient<'_>,
    authority: &Authority,
    held: &Result<Discovered, DiscoverError>,
) {
    let runs = patient.status.as_ref();
    match (held, runs) {
        (Ok(found), Some(status)) => {
            // A set has an order of its own.
            let held: BTreeSet<_> = found.set.addresses().iter().map(ToString::to_string).collect();
            if held == status.addresses.iter().cloned().collect() {
                report.ok("announced", format!("at {authority}, until {}", found.set.expires()));
            } else {
                report.warn(
                    "announced",
                    format!(
                        "{authority} holds other addresses than the node has: {}",
                        held.into_iter().collect::<Vec<_>>().join(" ")
                    ),
                    "run 'kith announce'",
                );
            }
        }
        (Ok(found), None) => {
            report.ok("announced", format!("at {authority}, until {}; no node runs", found.set.expires()));
        }
        (Err(DiscoverError::NotFound(_)), None) => {
            report.ok("announced", format!("nothing at {authority}, since no node runs"));
        }
        (Err(DiscoverError::NotFound(_)), Some(_)) => report.fail(
            "announced",
            format!("{authority} holds nothing of this node"),
            "run 'kith announce', it says why",
        ),
        (Err(error), _) => report.fail("announced", chain(error), "ask whoever runs the directory"),
    }
}

/// The DNS leads to the directory: `0a.HOST` is delegated to it.
async fn delegation(report: &mut Report, client: &Directory, ni: &Ni, is_held: bool) {
    let host = ni.authority.as_ref().map_or("", Authority::host);
    let todo = format!(
        "0a.{host} must be delegated to the directory, with port 53 open for UDP and TCP; docs/directory.md shows how"
    );
    match client.discover_via(ni, SourceName::Dns).await {
        Ok(_) => report.ok("dns", format!("0a.{host} leads to the directory")),
        Err(error) if too_large(&error) => {
            report
                .ok("dns", format!("0a.{host} leads to the directory; the set itself is too large for DNS"));
        }
        Err(DiscoverError::NotFound(_)) if is_held => report.warn(
            "dns",
            format!("the DNS does not know what the directory holds under 0a.{host}; HTTPS is used instead"),
            todo,
        ),
        Err(DiscoverError::NotFound(_)) => {
            report.ok("dns", format!("a resolver answers; 0a.{host} is seen once this node is announced"));
        }
        Err(error) => report.warn("dns", format!("{}; HTTPS is used instead", chain(&error)), todo),
    }
}

fn too_large(error: &DiscoverError) -> bool {
    match error {
        DiscoverError::NoAnswer { failures, .. } => {
            failures.iter().any(|failure| matches!(failure.why, LookupError::UseHttps))
        }
        _ => false,
    }
}
