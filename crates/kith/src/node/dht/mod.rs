//! The floor of the DHT (`docs/dht.md`): a node that belongs to a network keeps small values with the other members, finds
//! them there, and publishes its own record set.

mod blinded;
mod pairs;
mod pass;
mod publishing;
mod routes;
mod rows;
mod source;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kith_connect::membership::{Enquiry, EnquiryError};
use kith_dht::shell::{Addresses, Dht, Hint, Settings};
use kith_dht::{Card, Contact};
use kith_directory::client::Source;
use kith_identity::membership::{Block, NodeId, VerifiedMember};
use kith_identity::{Address, Fingerprint, PublicKey, Reach, Transport};
use kith_sansio::{Span, Time, system};
use kith_store::Database;
use serde_json::{Value, json};

use self::pairs::Pairs;
use self::pass::{Pass, Roster};
use self::publishing::Published;
use self::rows::Rows;
use self::source::{BlindedSource, DhtSource};
use super::Node;
use crate::failure::{Failure, Result};
use crate::floors::Floor;

/// How often it is looked whether the node belongs to a network, and where it is reached.
const CHECK: Duration = Duration::from_secs(1);
/// The shortest and the longest pause between two questions to the issuer.
const PAUSE: (Span, Span) = (Span::secs(2), Span::secs(300));
/// Those whom the node knows are written down so soon after it has begun, then after twice as long each time …
const REMEMBER: Span = Span::secs(2);
/// … up to so often.
const REMEMBER_AT_LAST: Span = Span::secs(300);

pub(crate) const FLOOR: Floor = Floor {
    name: "dht",
    start: |node| Box::pin(start(node)),
    stop: |node| Box::pin(stop(node)),
    routes: routes::routes,
    status,
    commands: &["dht"],
};

/// What this node has of the DHT.
pub(crate) struct Keyspace {
    rows: Arc<Rows>,
    /// Where the members are whom the DHT calls.
    addresses: Addresses,
    running: Mutex<Option<Running>>,
    published: Mutex<Published>,
    pairs: Pairs,
}

/// A node of the DHT that runs, and in which network.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) dht: Dht,
    pub(super) network: Fingerprint,
    pub(super) own: NodeId,
    pub(super) pass: Arc<Pass>,
}

impl Keyspace {
    /// `own` is this node's key.
    pub(crate) fn open(database: Database, own: PublicKey) -> Result<Keyspace> {
        Ok(Keyspace {
            pairs: Pairs::open(database.clone(), own)?,
            rows: Arc::new(Rows::open(database)),
            addresses: Addresses::default(),
            running: Mutex::default(),
            published: Mutex::default(),
        })
    }

    fn slot(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of the DHT, where one runs.
    pub(super) fn running(&self) -> Option<Running> {
        self.slot().clone()
    }

    /// Tells the finder of connections where a member may be, while another floor wants to reach it.
    pub(super) fn hint(&self, member: Fingerprint, at: SocketAddr) -> Hint {
        self.addresses.hint(member, at)
    }

    /// Where a member may be whom the DHT, or a floor above it, wants to reach now.
    pub(crate) fn address(&self, member: &Fingerprint) -> Option<Address> {
        self.addresses.of(member)
    }
}

/// This node has no part in a DHT.
pub(crate) fn no_part() -> Failure {
    Failure::not_found("this node belongs to no network, so it has no part in a DHT")
        .hint("'kith network join ISSUER' makes it a member, while its node runs")
}

/// No member has a value.
pub(crate) fn nobody_has(what: &str) -> Failure {
    Failure::not_found(format!("no member has a value of {what}")).hint(
        "members publish their record sets by themselves; 'kith dht status' shows how many this node reaches",
    )
}

/// What the directory's client asks last, in this order.
pub(crate) fn sources(keyspace: &Arc<Keyspace>) -> Vec<Arc<dyn Source>> {
    vec![Arc::new(BlindedSource(Arc::clone(keyspace))), Arc::new(DhtSource(Arc::clone(keyspace)))]
}

async fn start(node: &Arc<Node>) -> Result<()> {
    pairs::start(node)?;
    node.tasks.spawn(keep(Arc::clone(node)));
    Ok(())
}

/// Says goodbye to the others.
async fn stop(node: &Arc<Node>) {
    let running = node.keyspace.slot().take();
    if let Some(running) = running {
        end(node, running).await;
    }
}

async fn end(node: &Node, Running { dht, network, .. }: Running) {
    remember(node, &network, &dht).await;
    dht.leave().await;
}

/// Runs a node of the DHT whenever this node belongs to a network.
async fn keep(node: Arc<Node>) {
    let mut wait = Span(0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait.into()) => {}
            () = node.stopping.cancelled() => return,
        }
        wait = Span(CHECK.as_micros() as u64);
        let wanted = node.book.network.membership.belongs();
        let has = node.keyspace.running().map(|running| (running.network, running.own));
        if has == wanted.as_ref().map(|(network, own)| (*network, own.id())) {
            continue;
        }
        let former = node.keyspace.slot().take();
        if let Some(former) = former {
            end(&node, former).await;
        }
        let Some((network, own)) = wanted else { continue };
        if let Err(failure) = begin(&node, network, own).await {
            tracing::error!(%failure, "the node of the DHT does not start");
            wait = PAUSE.1;
        }
    }
}

async fn begin(node: &Arc<Node>, network: Fingerprint, own: VerifiedMember) -> Result<()> {
    let stored = node.on_disk(move |node| node.keyspace.rows.stored(&network)).await?;
    let pass = Arc::new(Pass::new(node, network, own.clone()));
    let known = stored.known.into_iter().filter_map(|card| contact(node, &card)).collect();
    let settings = Settings {
        routing: kith_dht::Config::default(),
        address: reached_at(node),
        known,
        addresses: node.keyspace.addresses.clone(),
        kept: stored.values,
        shelf: Some(node.keyspace.rows.shelf(network)),
    };
    let dht = Dht::start(node.endpoint.clone(), settings, Arc::clone(&pass) as _).map_err(Failure::failed)?;
    let running = Running { dht, network, own: own.id(), pass };
    *node.keyspace.published() = Published::default();
    *node.keyspace.slot() = Some(running.clone());
    node.tasks.spawn(follow(Arc::clone(node), running.clone()));
    node.tasks.spawn(publishing::publish(Arc::clone(node), running));
    Ok(())
}

/// The member of a card that was written down, or that the issuer named.
fn contact(node: &Node, card: &Card) -> Option<Contact> {
    let certificate = kith_identity::membership::Member::from_bytes(&card.certificate).ok()?;
    let member = node.book.network.membership.verify(certificate)?;
    Some(Contact::of(&member, card.address))
}

/// Where others reach this node over QUIC, as far as it knows: the port is what counts, since they believe the address
/// that they see, and whether that address is of a private network. Nowhere, where it listens for no QUIC.
fn reached_at(node: &Node) -> SocketAddr {
    let all = node.addresses();
    let quic = || all.iter().filter(|one| one.transport == Transport::Quic);
    let best = quic().find(|one| one.reach() == Reach::Global).or_else(|| quic().next());
    best.map_or_else(|| SocketAddr::from(([0; 4], 0)), |one| one.socket)
}

/// What the issuer was asked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    epoch: u64,
    block: Block,
}

/// Follows where this node is reached, and asks the issuer in each epoch who is in its region and whom it may call.
async fn follow(node: Arc<Node>, running: Running) {
    let (mut asked, mut tried, mut again, mut pause) = (None, None, Time(0), PAUSE.0);
    let (mut remember_at, mut remember_every) = (system::time() + REMEMBER, REMEMBER);
    let mut address = reached_at(&node);
    while is_current(&node, &running) {
        tokio::select! {
            () = tokio::time::sleep(CHECK) => {}
            () = node.stopping.cancelled() => return,
        }
        let now = reached_at(&node);
        if now != address {
            address = now;
            running.dht.moved(now).await;
        }
        if system::time() >= remember_at {
            remember_every = remember_every.times(2).min(REMEMBER_AT_LAST);
            remember_at = system::time() + remember_every;
            remember(&node, &running.network, &running.dht).await;
        }
        let Ok(status) = running.dht.status().await else { return };
        let wanted = node.book.network.membership.epoch_number();
        let wanted =
            wanted.map(|epoch| Asked { epoch, block: Block::around(&running.own, status.region_bits) });
        if wanted != tried {
            // What did not come off in the last epoch is no reason to wait in this one.
            (tried, again, pause) = (wanted, Time(0), PAUSE.0);
        }
        let is_alone = status.region + status.buckets == 0 && status.members > 1;
        if system::time() < again || (asked == wanted && !is_alone) {
            continue;
        }
        let Some(wish) = wanted else { continue };
        match ask(&node, &running, wish, address.port()).await {
            Ok(true) => asked = wanted,
            // The issuer is an epoch ahead, which is adopted here in a moment.
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the issuer does not say who is in the region"),
        }
        pause = if is_alone || asked != wanted { pause.times(2).min(PAUSE.1) } else { PAUSE.0 };
        again = system::time() + pause;
    }
}

fn is_current(node: &Node, running: &Running) -> bool {
    let same = |other: &Running| Arc::ptr_eq(&other.pass, &running.pass);
    node.keyspace.slot().as_ref().is_some_and(same)
}

/// Asks the issuer whom this node may call, and for the roster of its region; whether that is one of this epoch.
async fn ask(
    node: &Arc<Node>,
    running: &Running,
    Asked { epoch, block }: Asked,
    port: u16,
) -> std::result::Result<bool, EnquiryError> {
    let mut enquiry = Enquiry::open(&node.endpoint, &running.network).await?;
    let met = enquiry.meet(port).await?;
    let cards = met
        .into_iter()
        .map(|(member, address)| Card { certificate: member.to_bytes().to_vec().into(), address });
    let cards: Vec<_> = cards.collect();
    let contacts =
        node.on_disk(move |node| Ok(cards.iter().filter_map(|card| contact(node, card)).collect::<Vec<_>>()));
    if let Ok(contacts) = contacts.await {
        running.dht.meet(contacts).await;
    }
    let newest = enquiry.newest().await?;
    if newest.facts().epoch != epoch {
        return Ok(false);
    }
    let range = enquiry.members(&newest, &block).await?;
    running.pass.set_roster(Roster::new(newest, range)?);
    Ok(true)
}

/// Writes down whom the node knows, so that it joins again without the issuer.
async fn remember(node: &Node, network: &Fingerprint, dht: &Dht) {
    let Ok(known) = dht.known().await else { return };
    if !known.is_empty() {
        node.keyspace.rows.remember(network, &known);
    }
}

fn status(node: &Node) -> Option<Value> {
    let running = node.keyspace.running()?;
    let published = node.keyspace.published().clone();
    Some(
        json!({ "network": kith_identity::Ni::new(running.network, None).to_string(), "id": running.own.to_string(), "published": published.shape(node.config.dht.publish) }),
    )
}
