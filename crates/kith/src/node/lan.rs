//! The floor of local networks: this node is found on them, and finds others there.

use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use kith_connect::address::loopback_only;
use kith_directory::client::{Lan, LanConfig, Voice};
use kith_identity::record::VerifiedRecordSet;
use serde_json::{Value, json};

use super::Node;
use crate::config::Config;
use crate::failure::Result;
use crate::floors::Floor;

pub(crate) const FLOOR: Floor = Floor {
    name: "lan",
    start: |node| Box::pin(start(node)),
    stop: |node| Box::pin(stop(node)),
    routes: Vec::new,
    status: |node| node.lan.as_ref().map(status),
    commands: &[],
};

/// The local networks of a configuration, where they are used.
pub(crate) fn open(config: &Config) -> Option<Lan> {
    is_used(config).then(|| Lan::start(LanConfig::default()))
}

/// Whether local networks are used: they are switched on, and the node listens on more than loopback.
pub(crate) fn is_used(config: &Config) -> bool {
    config.lan && !loopback_only(&config.listen)
}

/// Answers those who know this node's fingerprint.
struct OwnVoice(Weak<Node>);

impl Voice for OwnVoice {
    fn said(&self) -> BoxFuture<'_, Option<VerifiedRecordSet>> {
        Box::pin(async move { self.0.upgrade()?.said().await })
    }
}

async fn start(node: &Arc<Node>) -> Result<()> {
    if let Some(lan) = &node.lan {
        lan.show(node.identity.fingerprint(), Arc::new(OwnVoice(Arc::downgrade(node)))).await;
    }
    Ok(())
}

async fn stop(node: &Arc<Node>) {
    if let Some(lan) = &node.lan {
        lan.leave().await;
    }
}

fn status(lan: &Lan) -> Value {
    json!({ "networks": lan.networks() })
}
