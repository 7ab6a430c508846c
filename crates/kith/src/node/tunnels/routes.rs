//! Calls of the control API about tunnels.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{delete, get};
use kith_tunnel::Cidr;
use serde_json::{Value, json};

use super::rows::Row;
use super::via;
use crate::api::server::{Answer, Route};
use crate::api::tunnels::{NewTunnel, Tunnel};
use crate::api::wish::Body;
use crate::failure::{Failure, Result, chain};
use crate::node::Node;

/// The device where none is named.
const DEVICE: &str = "kith0";
/// The longest name of a device, in bytes.
const MAX_DEVICE_BYTES: usize = 15;
/// The largest packets of a device where nothing is said, in bytes.
const MTU: u16 = 1500;
/// What may be said.
const MTUS: std::ops::RangeInclusive<u16> = 1280..=9000;
/// Most addresses of a device.
const MAX_ADDRESSES: usize = 16;

pub(super) fn routes() -> Vec<Route> {
    vec![("/v1/tunnels", get(list).post(up)), ("/v1/tunnels/{contact}", delete(down))]
}

async fn list(State(node): State<Arc<Node>>) -> Answer<Vec<Tunnel>> {
    Ok(Json(node.tunnels.shapes(&node).await))
}

async fn up(State(node): State<Arc<Node>>, Body(wish): Body<NewTunnel>) -> Answer<Tunnel> {
    let peer = node.book.find(&wish.contact)?.ni.fingerprint;
    let row = row(&node, &wish)?;
    node.tunnels.up(&node, peer, row).await?;
    let tunnel = node.tunnels.shape(&node, &peer).await;
    tunnel.map(Json).ok_or_else(|| Failure::failed("the tunnel was closed at once"))
}

async fn down(State(node): State<Arc<Node>>, Path(contact): Path<String>) -> Answer<Value> {
    let peer = node.book.resolve(&contact)?.fingerprint;
    if !node.tunnels.down(&node, &peer).await? {
        return Err(
            Failure::not_found(format!("there is no tunnel to {contact}")).hint("see 'kith tun list'")
        );
    }
    Ok(Json(json!({ "closed": true })))
}

/// What is wished, with what the device has already where nothing is said.
fn row(node: &Node, wish: &NewTunnel) -> Result<Row> {
    let device = wish.device.clone().unwrap_or_else(|| DEVICE.to_owned());
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if device.is_empty()
        || device.len() > MAX_DEVICE_BYTES
        || !device.bytes().all(is_name)
        || [".", ".."].contains(&device.as_str())
    {
        return Err(Failure::usage(format!("'{device}' is no name of a network device"))
            .hint("up to 15 letters, digits, dots, lines and underscores"));
    }
    let all = node.tunnels.rows.all();
    let known = all.values().find(|row| row.device == device);
    let is_shared = known.is_some() && !is_alone(node, wish, &device);
    let addresses = match (networks(&wish.addresses)?, known) {
        (said, None) if said.is_empty() => {
            return Err(Failure::usage(format!("the device {device} needs an address"))
                .hint("say which, with its network: --address 10.7.0.1/24"));
        }
        (said, Some(known)) if said.is_empty() => known.addresses.clone(),
        (said, Some(known)) if said != known.addresses && is_shared => {
            return Err(Failure::usage(format!(
                "the device {device} has other addresses, which other tunnels use"
            ))
            .hint("leave --address out, or name another device with --device"));
        }
        (said, _) => said,
    };
    if addresses.len() > MAX_ADDRESSES || addresses.iter().filter(|one| one.ip().is_ipv4()).count() > 1 {
        return Err(Failure::usage(format!(
            "a device has one IPv4 address, and {MAX_ADDRESSES} in all at most"
        )));
    }
    let mtu = wish.mtu.or(known.map(|known| known.mtu)).unwrap_or(MTU);
    if !MTUS.contains(&mtu) {
        return Err(Failure::usage(format!("an MTU has {} to {} bytes", MTUS.start(), MTUS.end())));
    }
    if is_shared && known.is_some_and(|known| known.mtu != mtu) {
        return Err(Failure::usage(format!("the device {device} has another MTU, which other tunnels use"))
            .hint("leave --mtu out, or name another device with --device"));
    }
    let mut allowed: Vec<Cidr> = networks(&wish.allow)?.iter().map(Cidr::network).collect();
    if allowed.is_empty() {
        allowed = addresses.iter().map(Cidr::network).collect();
    }
    allowed.sort_unstable();
    allowed.dedup();
    via(wish.transport.as_deref())?;
    Ok(Row { device, addresses, networks: allowed, transport: wish.transport.clone(), mtu })
}

/// Whether no other contact's tunnel uses the device.
fn is_alone(node: &Node, wish: &NewTunnel, device: &str) -> bool {
    let own = node.book.find(&wish.contact).map(|contact| contact.ni.fingerprint);
    let all = node.tunnels.rows.all();
    all.iter().all(|(peer, row)| row.device != device || own.as_ref().is_ok_and(|own| own == peer))
}

fn networks(texts: &[String]) -> Result<Vec<Cidr>> {
    let each = texts.iter().map(|text| {
        let network: Cidr = text.parse().map_err(|error| Failure::usage(chain(&error)))?;
        match network.ip() {
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                Err(Failure::usage(format!("{text} is an IPv4 address in IPv6 form")))
            }
            _ => Ok(network),
        }
    });
    each.collect()
}
