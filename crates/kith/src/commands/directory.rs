//! `kith directory serve`.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Context;
use crate::cli::{Directory, Serve};
use crate::config::{Config, Zone};
use crate::failure::{Failure, Result, chain};
use crate::identity_file;
use crate::node::zone;
use crate::supervisor;

pub(super) async fn directory(context: &Context, command: Directory) -> Result<()> {
    match command {
        Directory::Serve(options) => serve(context, options).await,
    }
}

async fn serve(context: &Context, options: Serve) -> Result<()> {
    context.refuse_without_identity()?;
    let config = Config::load(&context.home)?;
    let identity = identity_file::load(&context.home, &config)?;
    let zone = merged(&config, options)?;
    let server = zone::bind(&context.home, &zone, &identity).await?;
    let (https, dns) = (texts(&server.server.https_addresses()), texts(&server.server.dns_addresses()));
    let metrics = server.server.metrics_address().map(|address| address.to_string());
    let authority = zone.authority.unwrap_or_default();
    let _it_serves_all_the_same =
        context.out.result(&ready(&authority, &https, &dns, metrics.as_deref()), || {
            let metrics = metrics.as_ref().map_or_else(String::new, |address| format!("metrics {address}\n"));
            let (https, dns) = (https.join(" "), dns.join(" "));
            format!("directory of {authority}\nhttps  {https}\ndns    {dns}\n{metrics}ready")
        });
    let stop = crate::node::running::stop_signal()?;
    supervisor::ready(&format!("serving {authority}"));
    let stop = async {
        tokio::select! {
            () = stop => {}
            () = supervisor::watchdog() => {}
        }
        supervisor::stopping();
    };
    zone::run(server, stop).await;
    Ok(())
}

fn ready(authority: &str, https: &[String], dns: &[String], metrics: Option<&str>) -> Value {
    let mut ready = json!({ "ready": true, "authority": authority, "https": https, "dns": dns });
    if let Some(metrics) = metrics {
        ready["metrics"] = metrics.into();
    }
    ready
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// The configuration's zone with the options of the command before it.
fn merged(config: &Config, options: Serve) -> Result<Zone> {
    let mut zone = config.directory.clone().unwrap_or_default();
    zone.authority =
        options.authority.or(zone.authority).or_else(|| config.authorities.first().map(ToString::to_string));
    if zone.authority.is_none() {
        return Err(Failure::usage("the zone has no name")
            .hint("say --authority HOST[:PORT], or set authorities in kith.toml"));
    }
    zone.listen_https = listeners(&options.listen_https, &zone.listen_https, 443)?;
    zone.listen_dns = listeners(&options.listen_dns, &zone.listen_dns, 53)?;
    zone.certificate = options.cert.or(zone.certificate);
    zone.key = options.key.or(zone.key);
    if !options.store.is_empty() {
        zone.store = options.store;
    }
    zone.store_replicas = options.store_replicas.or(zone.store_replicas);
    zone.store_ca = options.store_ca.or(zone.store_ca);
    zone.members = options.members.or(zone.members);
    zone.metrics = options.metrics.or(zone.metrics);
    Ok(zone)
}

fn listeners(options: &[String], configured: &[SocketAddr], port: u16) -> Result<Vec<SocketAddr>> {
    if options.iter().any(|text| text == "off") {
        return Ok(Vec::new());
    }
    let wrong = |text: &str, error: &dyn std::error::Error| {
        Failure::usage(format!("cannot listen on '{text}': {}", chain(error)))
            .hint("write 127.0.0.1:8443 or [::]:443")
    };
    let named: Vec<SocketAddr> = options
        .iter()
        .map(|text| text.parse().map_err(|error| wrong(text, &error)))
        .collect::<Result<_>>()?;
    Ok(match (named.is_empty(), configured.is_empty()) {
        (false, _) => named,
        (true, false) => configured.to_vec(),
        (true, true) => vec![SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))],
    })
}
