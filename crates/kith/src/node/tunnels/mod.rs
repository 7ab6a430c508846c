//! The floor of tunnels: which contact has which networks, on which device, over restarts of the node.

mod routes;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kith_connect::{Admission, Peer, Protocol, Trust as _, Via};
use kith_identity::Fingerprint;
use kith_store::Database;
use kith_tunnel::{AddError, Cidr, DeviceError, Hub, HubConfig, TakenError};
use serde_json::json;
use tokio::sync::Mutex;

use self::rows::{Row, Rows};
use super::Node;
use super::connect;
use crate::api::tunnels::{State, Tunnel};
use crate::failure::{Failure, Result, chain};
use crate::floors::Floor;

const TUN: Protocol = Protocol::new(kith_tunnel::PROTOCOL);
/// Most tunnels of a node.
const MAX_TUNNELS: usize = 256;

pub(crate) const FLOOR: Floor = Floor {
    name: "tun",
    start: |node| Box::pin(start(node)),
    stop: |node| Box::pin(stop(node)),
    routes: routes::routes,
    status: |node| node.tunnels.rows.count().map(|count| json!({ "tunnels": count })),
    commands: &["tun"],
};

/// The tunnels of a node.
pub(crate) struct Tunnels {
    rows: Rows,
    open: Mutex<Devices>,
}

/// The devices that are up, by name, and why others are not.
#[derive(Default)]
struct Devices {
    hubs: HashMap<String, Hub>,
    failed: HashMap<Fingerprint, String>,
}

impl Tunnels {
    pub(crate) fn open(database: Database) -> Result<Tunnels> {
        Ok(Tunnels { rows: Rows::open(database)?, open: Mutex::default() })
    }

    /// Says that `peer` may be reached now.
    pub(crate) fn hope(&self, peer: &Fingerprint) {
        let Some(row) = self.rows.get(peer) else { return };
        if let Ok(devices) = self.open.try_lock()
            && let Some(hub) = devices.hubs.get(&row.device)
        {
            hub.hope(peer);
        }
    }
}

async fn start(node: &Arc<Node>) -> Result<()> {
    let mut incoming = node.endpoint.listen_datagrams(TUN, Admission::Contacts).map_err(Failure::failed)?;
    node.tunnels.follow(node)?;
    {
        let mut devices = node.tunnels.open.lock().await;
        for (peer, row) in node.tunnels.rows.all() {
            if let Err(failure) = devices.bring_up(node, peer, &row) {
                tracing::warn!(%failure, "a tunnel is not up");
                devices.failed.insert(peer, failure.to_string());
            }
        }
    }
    let arriving = Arc::clone(node);
    node.tasks.spawn(async move {
        loop {
            let next = tokio::select! {
                next = incoming.next() => next,
                () = arriving.stopped.cancelled() => None,
            };
            let Some((Peer::Known(peer), datagrams)) = next else { return };
            let Some(row) = arriving.tunnels.rows.get(&peer) else { continue };
            let devices = arriving.tunnels.open.lock().await;
            if let Some(hub) = devices.hubs.get(&row.device) {
                hub.arrived(&peer, datagrams);
            }
        }
    });
    let leaving = Arc::clone(node);
    let mut changes = node.book.changed();
    node.tasks.spawn(async move {
        loop {
            let goes_on = tokio::select! {
                changed = changes.next() => changed,
                () = leaving.stopped.cancelled() => false,
            };
            if !goes_on {
                return;
            }
            let all = leaving.tunnels.rows.all();
            for (peer, _) in all.into_iter().filter(|(peer, _)| leaving.book.contact_of(peer).is_none()) {
                if let Err(failure) = leaving.tunnels.down(&leaving, &peer).await {
                    tracing::error!(%failure, "the tunnel of a former contact is not forgotten");
                }
            }
        }
    });
    Ok(())
}

/// The transport that a tunnel insists on.
fn via(name: Option<&str>) -> Result<Via> {
    match name {
        Some("dtls") => Ok(Via::Dtls),
        other => connect::via(other).map_err(|failure| failure.hint("quic, dtls or tcp")),
    }
}

fn is_over_dtls(row: &Row) -> bool {
    row.transport.as_deref() == Some("dtls")
}

async fn stop(node: &Arc<Node>) {
    let hubs = std::mem::take(&mut node.tunnels.open.lock().await.hubs);
    for hub in hubs.into_values() {
        hub.close().await;
    }
}

impl Tunnels {
    /// Opens a tunnel, in the place of the one that the contact has. What is acknowledged is stored.
    async fn up(&self, node: &Arc<Node>, peer: Fingerprint, row: Row) -> Result<()> {
        let mut devices = self.open.lock().await;
        let old = self.rows.get(&peer);
        if old.is_none() && self.rows.count().is_some_and(|count| count >= MAX_TUNNELS) {
            return Err(Failure::failed(format!("there are {MAX_TUNNELS} tunnels, more are not possible")));
        }
        // Another device, or the same with other properties, which it gets when it is made.
        let is_other =
            |old: &&Row| (&old.device, &old.addresses, old.mtu) != (&row.device, &row.addresses, row.mtu);
        if let Some(old) = old.as_ref().filter(is_other) {
            devices.take_down(&peer, old).await;
        }
        if is_over_dtls(&row) {
            accept_dtls(node, true)?;
        }
        if let Err(failure) = devices.bring_up(node, peer, &row) {
            self.follow(node)?;
            // As it was, as far as that still works.
            devices.drop_if_empty(&row.device).await;
            if let Some(old) = old {
                let _ = devices.bring_up(node, peer, &old);
            }
            return Err(failure);
        }
        devices.failed.remove(&peer);
        let stored = self.rows.put(&peer, row.clone()).await;
        if stored.is_err() {
            devices.take_down(&peer, &row).await;
        }
        self.follow(node)?;
        stored
    }

    /// Takes DTLS while there is a tunnel that insists on it, and no longer.
    fn follow(&self, node: &Node) -> Result<()> {
        accept_dtls(node, self.rows.any(is_over_dtls))
    }

    /// Closes a tunnel; `false` where there is none.
    async fn down(&self, node: &Node, peer: &Fingerprint) -> Result<bool> {
        let mut devices = self.open.lock().await;
        let Some(row) = self.rows.get(peer) else { return Ok(false) };
        self.rows.remove(peer).await?;
        devices.failed.remove(peer);
        devices.take_down(peer, &row).await;
        self.follow(node)?;
        Ok(true)
    }

    /// Every tunnel as it stands.
    async fn shapes(&self, node: &Node) -> Vec<Tunnel> {
        let devices = self.open.lock().await;
        self.rows.all().iter().map(|(peer, row)| devices.shape(node, peer, row)).collect()
    }

    /// The tunnel of a contact as it stands.
    async fn shape(&self, node: &Node, peer: &Fingerprint) -> Option<Tunnel> {
        let devices = self.open.lock().await;
        self.rows.get(peer).map(|row| devices.shape(node, peer, &row))
    }
}

impl Devices {
    /// Makes the device where it is not there, and adds the peer to it.
    fn bring_up(&mut self, node: &Arc<Node>, peer: Fingerprint, row: &Row) -> Result<()> {
        if self.hubs.get(&row.device).is_some_and(|hub| !hub.is_alive()) {
            self.hubs.remove(&row.device);
        }
        if !self.hubs.contains_key(&row.device) {
            let config =
                HubConfig { device: row.device.clone(), addresses: row.addresses.clone(), most_mtu: row.mtu };
            let hub = Hub::open(node.endpoint.clone(), TUN, &config).map_err(|error| no_device(&error))?;
            self.hubs.insert(row.device.clone(), hub);
        }
        let Some(hub) = self.hubs.get(&row.device) else { return Ok(()) };
        let via = via(row.transport.as_deref())?;
        hub.add(peer, &row.networks, via).map_err(|error| not_added(node, &error))
    }

    async fn take_down(&mut self, peer: &Fingerprint, row: &Row) {
        if let Some(hub) = self.hubs.get(&row.device) {
            hub.remove(peer);
        }
        self.drop_if_empty(&row.device).await;
    }

    async fn drop_if_empty(&mut self, device: &str) {
        if self.hubs.get(device).is_some_and(|hub| hub.peers().is_empty())
            && let Some(hub) = self.hubs.remove(device)
        {
            hub.close().await;
        }
    }

    fn shape(&self, node: &Node, peer: &Fingerprint, row: &Row) -> Tunnel {
        let hub = self.hubs.get(&row.device).filter(|hub| hub.is_alive());
        let peering = hub.and_then(|hub| hub.state(peer));
        let path = peering.as_ref().and_then(|peering| peering.path);
        let texts = |all: &[Cidr]| all.iter().map(ToString::to_string).collect();
        let state = match (&peering, path) {
            (None, _) => State::Failed,
            (Some(_), None) => State::Connecting,
            (Some(_), Some(_)) => State::Up,
        };
        let trouble = match &peering {
            Some(peering) => peering.trouble.clone(),
            None => Some(self.failed.get(peer).cloned().unwrap_or_else(|| "the device has gone".to_owned())),
        };
        let count = |of: fn(&kith_tunnel::PeerState) -> u64| peering.as_ref().map_or(0, of);
        Tunnel {
            contact: node.book.name_of(peer),
            ni: kith_identity::Ni::new(*peer, None).to_string(),
            device: row.device.clone(),
            addresses: texts(&row.addresses),
            allow: texts(&row.networks),
            insists: row.transport.clone(),
            state,
            trouble,
            mtu: hub.map(Hub::mtu),
            transport: path.map(|path| path.transport.to_string()),
            relay: path.and_then(|path| node.way(&path).1),
            remote: path.map(|path| path.remote.to_string()),
            rtt_ms: path.and_then(|path| path.rtt).map(|rtt| rtt.as_secs_f64() * 1e3),
            datagram_bytes: peering.as_ref().and_then(|peering| peering.max_size),
            sent_packets: count(|peering| peering.sent.0),
            sent_bytes: count(|peering| peering.sent.1),
            received_packets: count(|peering| peering.received.0),
            received_bytes: count(|peering| peering.received.1),
            unsent_packets: count(|peering| peering.unsent),
            too_large_packets: count(|peering| peering.too_large),
            refused_sources: count(|peering| peering.refused_sources),
            malformed: count(|peering| peering.malformed),
        }
    }
}

fn accept_dtls(node: &Node, accepts: bool) -> Result<()> {
    node.endpoint.accept_dtls(accepts).map_err(|error| Failure::failed(chain(&error)))
}

fn no_device(error: &DeviceError) -> Failure {
    let failure = Failure::failed(chain(error));
    match error {
        DeviceError::NotAllowed { .. } => failure.hint(
            "the node needs the capability CAP_NET_ADMIN: stop it, say 'sudo setcap cap_net_admin+ep \"$(command -v kith)\"', and start it again",
        ),
        DeviceError::NoDriver => failure.hint("load it with 'sudo modprobe tun'; in a container, let it have /dev/net/tun"),
        DeviceError::Taken { .. } => failure.hint("choose another name with --device"),
        _ => failure,
    }
}

fn not_added(node: &Node, error: &AddError) -> Failure {
    match error {
        AddError::Taken(TakenError::Another { network, of }) => {
            Failure::usage(format!("{network} goes to {} already", node.book.name_of(of)))
                .hint("say with --allow which addresses each contact has, such as --allow 10.7.0.2")
        }
        AddError::Device(error) => no_device(error),
        _ => Failure::usage(chain(error)),
    }
}

/// Tunnels by peer, as they are stored.
type All = BTreeMap<Fingerprint, Row>;
