//! The calls about membership.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use kith_identity::contacts::Hint;
use kith_identity::{Fingerprint, Ni};
use kith_sansio::system;

use super::membership::Row;
use crate::api::network::{Issued, Joined, Network, NewIssue, NewMembership, RollEntry};
use crate::api::server::{Answer, Route};
use crate::api::wish::Body;
use crate::failure::{Failure, Result, chain};
use crate::node::Node;

/// Nodes that one call may invite.
const MAX_INVITED: usize = 1024;

pub(super) fn routes() -> Vec<Route> {
    vec![
        ("/v1/network", get(overview)),
        ("/v1/network/issued", post(issue)),
        ("/v1/network/joined", post(join)),
        ("/v1/network/members/{who}", delete(revoke)),
    ]
}

async fn overview(State(node): State<Arc<Node>>) -> Answer<Network> {
    let joined = node.book.network.membership.overview();
    let issued = node.on_disk(|node| node.book.network.issuing.overview(&node.book)).await?;
    Ok(Json(Network { issued, joined }))
}

/// Makes this node an issuer, where it is none, and invites.
async fn issue(State(node): State<Arc<Node>>, Body(new): Body<NewIssue>) -> Answer<Issued> {
    if new.who.len() > MAX_INVITED {
        return Err(Failure::usage(format!("at most {MAX_INVITED} nodes are invited at once")));
    }
    let own = node.identity.fingerprint();
    let invited: Vec<Fingerprint> =
        new.who.iter().map(|who| node.book.resolve(who).map(|ni| ni.fingerprint)).collect::<Result<_>>()?;
    if invited.contains(&own) {
        return Err(Failure::usage("an issuer does not invite itself"));
    }
    invited.iter().try_for_each(|who| refuse_blocked(&node, &Ni::new(*who, None)))?;
    node.on_disk(move |node| node.book.network.issuing.found(&own)).await?;
    super::issue(&node).await?;
    let issued = node.on_disk(move |node| {
        node.book.network.issuing.invite(&invited)?;
        invited.iter().try_for_each(|who| node.book.forget_request(who))?;
        node.book.network.issuing.overview(&node.book)
    });
    issued.await?.map(Json).ok_or_else(super::issuing::no_issuer)
}

/// Joins the network of an issuer; nothing is kept where that fails.
async fn join(State(node): State<Arc<Node>>, Body(new): Body<NewMembership>) -> Answer<Joined> {
    let ni = node.book.resolve(&new.issuer)?;
    if ni.fingerprint == node.identity.fingerprint() {
        return Err(
            Failure::usage("an issuer is no member of its own network").hint("join from another home")
        );
    }
    refuse_blocked(&node, &ni)?;
    let hint = |at: &String| at.parse::<Hint>().map_err(|error| Failure::usage(chain(&error)));
    let at: Vec<Hint> = new.at.iter().map(hint).collect::<Result<_>>()?;
    let _sought = node.guests.expect(ni.clone(), at.clone());
    super::ask(&node, Row { ni, at, since: system::utc().0 }).await?;
    super::take_certificates(&node)?;
    let joined = node.book.network.membership.overview();
    joined.map(Json).ok_or_else(|| Failure::failed("the network was left meanwhile"))
}

fn refuse_blocked(node: &Node, ni: &Ni) -> Result<()> {
    if !node.book.is_blocked(&ni.fingerprint) {
        return Ok(());
    }
    Err(Failure::usage(format!("{ni} is blocked here"))
        .hint(format!("kith contact unblock '{ni}' takes that back")))
}

/// Revokes a member, or takes an invitation back.
async fn revoke(State(node): State<Arc<Node>>, Path(who): Path<String>) -> Answer<RollEntry> {
    let who = node.book.resolve(&who)?.fingerprint;
    let revoked = node.on_disk(move |node| {
        let issuing = &node.book.network.issuing;
        issuing.revoke(&who)?;
        Ok(issuing.told(&node.book, &who))
    });
    revoked.await.map(Json)
}
