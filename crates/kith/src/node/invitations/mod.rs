//! The floor of invitations: strangers become contacts by a link (`docs/protocol-invite.md`).

mod guests;
mod inviting;
mod joining;
mod ledger;
mod routes;
mod wire;

use std::sync::Arc;

use kith_connect::address::{Origin, may_dial};
use kith_connect::{Protocol, Vantage, address};
use kith_identity::contacts::{Hint, Petname};
use kith_identity::invitation::Introduction;
use kith_identity::{Address, Fingerprint, Ni};
use kith_sansio::system;
use kith_store::Database;
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) use self::guests::Guests;
use self::inviting::Talks;
use self::ledger::Ledger;
use super::Node;
use super::contacts::{Met, presentable};
use crate::failure::{Failure, Result};
use crate::floors::Floor;

const PROTOCOL: Protocol = Protocol::new("invite/1");

pub(crate) const FLOOR: Floor = Floor {
    name: "invitations",
    start: |node| Box::pin(start(node)),
    stop: |_| Box::pin(async {}),
    routes: routes::routes,
    status: |node| Some(status(node)),
    commands: &["invite", "join"],
};

/// The invitations of this node.
pub(crate) struct Invitations {
    ledger: Ledger,
    talks: Talks,
    listening: watch::Sender<Listening>,
}

/// Whether joiners are listened to at this moment.
#[derive(Clone, Debug, Default)]
enum Listening {
    /// Nobody is expected, or it is about to begin.
    #[default]
    No,
    Yes,
    /// It does not work; it is tried again.
    Failed(Failure),
}

impl Invitations {
    pub(crate) fn open(database: Database) -> Result<Invitations> {
        Ok(Invitations {
            ledger: Ledger::open(database, system::now())?,
            talks: Talks::default(),
            listening: watch::Sender::default(),
        })
    }
}

async fn start(node: &Arc<Node>) -> Result<()> {
    let task = inviting::run(Arc::clone(node));
    node.tasks.spawn(task);
    Ok(())
}

fn status(node: &Node) -> Value {
    json!({ "open": node.invitations.ledger.open_count(system::now()) })
}

/// What this node says of itself to somebody who becomes a contact.
fn introduction(node: &Node) -> Introduction {
    Introduction {
        name: node.config.name.as_deref().and_then(presentable),
        authority: node.config.authorities.first().cloned(),
        addresses: node.addresses(),
    }
}

/// Somebody who introduced himself, under the name that the person here wants or the one that he proposes. Of his
/// addresses those are taken that a record set of his could make this node dial.
fn met(node: &Node, peer: Fingerprint, who: &Introduction, called: Option<Petname>) -> Met {
    let vantage = Vantage {
        loopback_only: address::loopback_only(&node.endpoint.local_addresses()),
        interfaces: node.endpoint.interfaces(),
    };
    let dialled = |one: &&Address| may_dial(one, Origin::Discovered, &vantage);
    let addresses: Vec<Address> = who.addresses.iter().filter(dialled).copied().collect();
    Met {
        ni: Ni::new(peer, who.authority.clone()),
        hints: hints_of(&addresses),
        called,
        proposed: who.name.clone(),
        is_own_word: true,
    }
}

/// Addresses as the hints of a contact.
fn hints_of(addresses: &[Address]) -> Vec<Hint> {
    addresses.iter().filter_map(|one| one.to_string().parse().ok()).collect()
}
