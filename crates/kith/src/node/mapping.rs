//! The floor of the router: ports of it that lead to this node, so that contacts elsewhere reach it.

use std::sync::Arc;

use kith_connect::address::loopback_only;
use kith_connect::{Endpoint, MappingConfig, PortMapping};
use kith_identity::record::MAX_ADDRESSES;
use kith_identity::{Address, Reach};
use serde_json::{Value, json};

use super::Node;
use crate::config::Config;
use crate::failure::Result;
use crate::floors::Floor;

pub(crate) const FLOOR: Floor = Floor {
    name: "mapping",
    start: |node| Box::pin(start(node)),
    stop: |node| Box::pin(stop(node)),
    routes: Vec::new,
    status: |node| node.mapping.as_ref().map(status),
    commands: &[],
};

/// The mapping of ports, where it is on and there is something to map.
pub(crate) fn open(config: &Config, endpoint: &Endpoint) -> Option<PortMapping> {
    if !config.port_mapping || config.relay.only || loopback_only(&config.listen) {
        return None;
    }
    PortMapping::start(&endpoint.local_addresses(), MappingConfig::default())
}

/// Has peers that come over a relay told of the mapped ports, which may lead around it.
async fn start(node: &Arc<Node>) -> Result<()> {
    let Some(mut mapped) = node.mapping.as_ref().map(PortMapping::watch) else { return Ok(()) };
    let offering = Arc::clone(node);
    node.tasks.spawn(async move {
        let following = async {
            loop {
                let now = mapped.borrow_and_update().clone();
                offering.endpoint.offer(now);
                if mapped.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = following => {}
            () = offering.stopping.cancelled() => {}
        }
    });
    Ok(())
}

async fn stop(node: &Arc<Node>) {
    if let Some(mapping) = &node.mapping {
        mapping.release().await;
    }
}

fn status(mapping: &PortMapping) -> Value {
    let mapped: Vec<_> = mapping.mapped().iter().map(ToString::to_string).collect();
    json!({ "router": mapping.router().map(|router| router.to_string()), "mapped": mapped })
}

impl Node {
    /// The addresses worth telling others: those of this machine, and those that the router lends it; none where this
    /// node is to be reached through its relays alone.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        if self.config.relay.only {
            return Vec::new();
        }
        let mut all = self.endpoint.advertised_addresses();
        let mapped = self.mapping.as_ref().map(PortMapping::mapped).unwrap_or_default();
        let new: Vec<_> = mapped.into_iter().filter(|address| !all.contains(address)).collect();
        all.extend(new);
        all.sort_by_key(|address| address.reach() != Reach::Global);
        all.truncate(MAX_ADDRESSES);
        all
    }
}
