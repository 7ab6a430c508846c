//! The floor of membership (SEP2P §2.3, `docs/network.md`): this node as the issuer of a network, and as a member of one.

mod issuing;
mod ledger;
mod membership;
mod routes;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kith_connect::delegator::Opener;
use kith_connect::membership::{Enquiry, EnquiryError, PROTOCOL, Refusal, SHOW, take_certificate};
use kith_connect::{ChangeSignal, ConnectError, Protocol, Stream};
use kith_identity::Fingerprint;
use kith_sansio::{Span, system};
use kith_store::Database;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use self::issuing::Issuing;
pub(super) use self::membership::AFTER_SECS;
use self::membership::{Membership, News, Row};
use super::Node;
use crate::failure::{Failure, Result, chain};
use crate::floors::Floor;

/// How often it is looked whether the issuer is to be asked, and whose certificate has ended.
const CHECK: Duration = Duration::from_secs(1);
/// The shortest and the longest pause between two questions for the same epoch.
const PAUSE: (Span, Span) = (Span::secs(2), Span::secs(300));
/// How long the exchange of certificates may take.
const SHOW_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) const FLOOR: Floor = Floor {
    name: "network",
    start: |node| Box::pin(start(node)),
    stop: |_| Box::pin(async {}),
    routes: routes::routes,
    status,
    commands: &["network"],
};

/// The network that this node issues, and the one that it has joined.
pub(crate) struct Network {
    issuing: Issuing,
    pub(crate) membership: Membership,
    /// Whether certificates are taken already.
    shows: AtomicBool,
}

impl Network {
    pub(crate) fn open(database: Database, changed: ChangeSignal) -> Result<Network> {
        Ok(Network {
            issuing: Issuing::open(database.clone())?,
            membership: Membership::open(database, changed)?,
            shows: AtomicBool::new(false),
        })
    }

    /// Whether that side may open a conversation with the issuer, contact or not.
    pub(crate) fn permits(&self, opener: Opener, peer: &Fingerprint, protocol: &Protocol) -> bool {
        *protocol == PROTOCOL
            && match opener {
                Opener::Peer => self.issuing.admits(peer),
                Opener::Own => self.membership.is_issuer(peer),
            }
    }

    /// Whether this peer is a member of the network that this node has joined.
    pub(crate) fn is_member(&self, peer: &Fingerprint) -> bool {
        self.membership.is_member(peer)
    }

    /// Where the issuer with this fingerprint may be.
    pub(crate) fn whereabouts(
        &self,
        issuer: &Fingerprint,
    ) -> Option<(kith_identity::Ni, Vec<kith_identity::contacts::Hint>)> {
        self.membership.whereabouts(issuer)
    }
}

async fn start(node: &Arc<Node>) -> Result<()> {
    let own = node.identity.fingerprint();
    match node.book.network.issuing.issuer() {
        Some(issuer) if issuer == own => issue(node).await?,
        Some(former) => tracing::warn!(%former, "the network of this home's former key is issued no more"),
        None => {}
    }
    if node.book.network.membership.row().is_some() {
        take_certificates(node)?;
    }
    node.tasks.spawn(follow(Arc::clone(node)));
    Ok(())
}

/// Opens the desk, where it is not open yet.
async fn issue(node: &Arc<Node>) -> Result<()> {
    let opening =
        node.on_disk(|node| node.book.network.issuing.begin(&node.identity, node.config.network.terms()));
    if opening.await? {
        node.serve(PROTOCOL, issuing::converse)?;
        node.tasks.spawn(issuing::roll(Arc::clone(node)));
    }
    Ok(())
}

/// Lets anybody show a certificate, where nobody may yet.
fn take_certificates(node: &Arc<Node>) -> Result<()> {
    if node.book.network.shows.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    node.serve_named(SHOW, |node, peer, stream| async move {
        match tokio::time::timeout(SHOW_TIMEOUT, exchange(&node, peer, stream)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a certificate was not exchanged"),
            Err(_) => tracing::debug!("a certificate was not exchanged in time"),
        }
    })
}

/// Takes the certificate of a peer; who is no member gets no answer.
async fn exchange(node: &Node, peer: Fingerprint, mut stream: Stream) -> std::io::Result<()> {
    let shown = take_certificate(&mut stream).await?;
    if node.book.is_blocked(&peer) {
        return Ok(());
    }
    let Some(own) = node.book.network.membership.meet(&peer, shown) else { return Ok(()) };
    stream.write_all(&own.to_bytes()).await?;
    stream.shutdown().await
}

/// Asks the issuer for each epoch in its time, until the node stops.
async fn follow(node: Arc<Node>) {
    let (own, membership) = (node.identity.fingerprint(), &node.book.network.membership);
    let (mut again, mut pause) = (system::time(), PAUSE.0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECK) => {}
            () = node.stopped.cancelled() => return,
        }
        membership.tidy(system::utc());
        if system::time() < again || !membership.is_due(&own, system::utc()) {
            continue;
        }
        let Some(row) = membership.row() else { continue };
        let asked = tokio::select! {
            asked = ask(&node, row) => asked,
            () = node.stopped.cancelled() => return,
        };
        match asked {
            Ok(true) => pause = PAUSE.0,
            Ok(false) => pause = pause.times(2).min(PAUSE.1),
            Err(failure) => {
                tracing::debug!(%failure, "the issuer of the network does not answer");
                pause = pause.times(2).min(PAUSE.1);
            }
        }
        again = system::time() + pause;
    }
}

/// Asks the issuer for the newest epoch, and for a certificate where one is needed; whether the epoch is a new one.
async fn ask(node: &Arc<Node>, row: Row) -> Result<bool> {
    let membership = &node.book.network.membership;
    let _in_order = membership.asking.lock().await;
    let (issuer, own) = (row.ni.fingerprint, node.identity.fingerprint());
    let needed = membership.needs_certificate(&issuer, &own, system::utc());
    match enquire(node, &issuer, needed).await {
        Ok(news) => node.on_disk(move |node| node.book.network.membership.adopt(&row, &news)).await,
        Err(error) => {
            let failure = explain(node, &issuer, &error);
            if membership.is_issuer(&issuer) {
                membership.failed(&failure, matches!(error, EnquiryError::Refused(Refusal::Revoked)));
            }
            Err(failure)
        }
    }
}

async fn enquire(
    node: &Node,
    issuer: &Fingerprint,
    certificate: bool,
) -> std::result::Result<News, EnquiryError> {
    let mut enquiry = Enquiry::open(&node.endpoint, issuer).await?;
    let (certificate, epoch) = match certificate {
        true => enquiry.join(&node.identity).await.map(|(member, epoch)| (Some(member), epoch))?,
        false => (None, enquiry.newest().await?),
    };
    let revoked = enquiry.revocations(&epoch).await?;
    Ok(News { certificate, epoch, revoked })
}

/// What an issuer's answer means to a person.
fn explain(node: &Node, issuer: &Fingerprint, error: &EnquiryError) -> Failure {
    let name = node.book.name_of(issuer);
    let invite = format!("ask its owner to run: kith network issue '{}'", node.ni());
    let failed = || Failure::failed(format!("{name}: {}", chain(error)));
    match error {
        EnquiryError::Connect(ConnectError::Refused { .. }) => {
            Failure::not_trusted(format!("{name} issues no network, or has not invited this node"))
                .hint(invite)
        }
        EnquiryError::Connect(error) => unreached(&name, error),
        EnquiryError::Refused(Refusal::Uninvited) => {
            Failure::not_trusted(format!("{name} has not invited this node")).hint(invite)
        }
        EnquiryError::Refused(Refusal::Revoked) => {
            Failure::not_trusted(format!("{name} has revoked this node, which is for good"))
                .hint("another key may be invited anew: join from another home")
        }
        EnquiryError::Refused(Refusal::NoMember) => {
            failed().hint("its book has no such member: join again with 'kith network join'")
        }
        EnquiryError::Refused(Refusal::Trouble) => {
            failed().hint("try again in a minute; the log of its node says what is wrong")
        }
        EnquiryError::Lost(_) => Failure::unreachable(format!("{name}: {}", chain(error)))
            .hint("is its node still up? 'kith network join' asks again"),
        _ => failed().hint("nothing of it was taken; tell the issuer's owner"),
    }
}

/// An issuer that this node has not come to, as a person reads it.
fn unreached(name: &str, error: &ConnectError) -> Failure {
    let failure = super::connect::explain(name, error);
    match error {
        ConnectError::NotFound { .. } => failure.hint(
            "say where it is: kith network join ISSUER --at quic://host:port ('kith status' there shows its addresses)",
        ),
        ConnectError::WrongPeer { .. } => {
            failure.hint("the address belongs to another key; 'kith id' and 'kith status' on the issuer show both")
        }
        ConnectError::Unreachable { .. } => {
            failure.hint("is its node up? Where it has moved, say where it is: kith network join ISSUER --at quic://host:port")
        }
        _ => failure,
    }
}

fn status(node: &Node) -> Option<Value> {
    let network = &node.book.network;
    let issued = network.issuing.summary();
    let joined = network.membership.overview();
    (issued.is_some() || joined.is_some()).then(|| json!({ "issued": issued, "joined": joined }))
}
