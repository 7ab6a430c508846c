//! The call that has actors drawn.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use kith_actors::hardened::{GRACE_SECS, Refusal, Terms};
use kith_actors::seat::Trouble;
use kith_actors::shell::SelectError;
use kith_identity::Ni;
use kith_identity::membership::EpochFacts;
use kith_sansio::{Timestamp, system};

use super::ground::Newest;
use super::{Land, Running};
use crate::api::actors::{DrawnActors, NewActors};
use crate::api::server::{Answer, Route};
use crate::api::wish::Body;
use crate::failure::{Failure, Result, chain};
use crate::node::network::AFTER_SECS;
use crate::node::{Node, dht};

/// After all members have asked for the next epoch, the last of them need so many seconds until they know their regions.
const SETTLE_SECS: u64 = 3;

pub(super) fn routes() -> Vec<Route> {
    vec![("/v1/actors", post(select))]
}

async fn select(State(node): State<Arc<Node>>, Body(wish): Body<NewActors>) -> Answer<DrawnActors> {
    let (manifest, expires) = (manifest(&wish.manifest)?, wish.expires.as_deref().map(expiry).transpose()?);
    let Running { actors, land } = running(&node)?;
    let facts = *ready(&land)?.epoch.facts();
    let latest = facts.ends().plus_secs(GRACE_SECS);
    let expires = expires.unwrap_or(latest);
    if expires > latest {
        let wrong = Failure::usage(format!("a list of this epoch is good until {latest} at most"));
        return Err(wrong.hint("leave --expires out for that"));
    }
    let terms = Terms { manifest, actors: wish.count, role: wish.role, expires };
    let selection = actors.select(terms).await.map_err(|error| explain(&land, &facts, &error))?;
    Ok(Json(DrawnActors {
        network: Ni::new(land.part().network, None).to_string(),
        draws: selection.draws,
        list: BASE64.encode(&selection.list.as_list().to_bytes()),
    }))
}

fn manifest(text: &str) -> Result<[u8; 32]> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| {
        Failure::usage("the hash of a manifest is 64 hexadecimal digits")
            .hint("for a file, 'openssl dgst -sha3-256 FILE' prints it")
    })
}

fn expiry(text: &str) -> Result<Timestamp> {
    text.parse().map_err(|error| Failure::usage(chain(&error)))
}

fn running(node: &Node) -> Result<Running> {
    let running = node.selections.running();
    running.ok_or_else(|| match node.book.network.membership.belongs() {
        None => dht::no_part(),
        Some(_) => unknown_region(),
    })
}

/// The newest epoch, where something can be drawn in it now.
fn ready(land: &Land) -> Result<Newest> {
    let newest = land.newest().ok_or_else(unknown_region)?;
    let facts = newest.epoch.facts();
    let view = newest.view.as_ref().map_err(|refusal| {
        Failure::failed(refusal).hint(match facts.members {
            0 | 1 => format!("the next epoch counts who has joined; it begins at {}", facts.ends()),
            _ => "how many may collude is for the issuer to say: 'colluding' in the section [network] of its kith.toml"
                .to_owned(),
        })
    })?;
    if !view.ids().any(|id| id == land.part().own) {
        let early = Failure::failed(format!("this node is not among the members of epoch {}", facts.epoch));
        return Err(early.hint(format!("the next one counts it; it begins at {}", facts.ends())));
    }
    let now = system::utc();
    if now >= facts.ends() {
        let late = Failure::unreachable(format!(
            "epoch {} is over, and the next one is not known here yet",
            facts.epoch
        ));
        return Err(late.hint("the issuer tells it: 'kith network status' says why it cannot be asked"));
    }
    let known_at = facts.starts.plus_secs(u64::from(facts.seconds) / 20 + AFTER_SECS + SETTLE_SECS);
    if now < known_at {
        let early = format!("epoch {} has just begun, and not all members know it yet", facts.epoch);
        return Err(Failure::failed(early).hint(format!("try again in {} s", known_at.secs_since(now))));
    }
    Ok(newest)
}

fn unknown_region() -> Failure {
    Failure::unreachable("the members of this node's region are not known yet").hint(
        "the issuer tells them: 'kith network status' says why it cannot be asked, 'kith dht status' when they are known",
    )
}

/// Why no actors are drawn, as a person reads it.
fn explain(land: &Land, facts: &EpochFacts, error: &SelectError) -> Failure {
    let next = format!("the next epoch begins at {}", facts.ends());
    let failed = || Failure::failed(chain(error));
    let SelectError::Failed { trouble, .. } = error else {
        return match error {
            SelectError::NotReady => unknown_region(),
            SelectError::Ended => Failure::failed(error)
                .hint("what it signs cannot be kept at present: the log of the node says why; it tries again by itself"),
            _ => failed(),
        };
    };
    match trouble {
        Trouble::Turned => {
            Failure::failed(trouble).hint("try again: members draw in the new epoch once all know it")
        }
        Trouble::Quota => Failure::failed(trouble).hint(next),
        Trouble::Here(refusal @ (Refusal::Actors { .. } | Refusal::Expired | Refusal::Lasting)) => {
            Failure::usage(refusal)
        }
        Trouble::Here(Refusal::Book) => Failure::failed(
            "this node does not know what it has signed in this epoch, so it takes no part in it",
        )
        .hint(next),
        Trouble::Here(Refusal::Sparse) | Trouble::Unanswered(_) | Trouble::Silent(_) | Trouble::NoSetter => {
            Failure::unreachable(chain(error)).hint(left(land, &next))
        }
        _ => failed().hint(left(land, &next)),
    }
}

fn left(land: &Land, next: &str) -> String {
    let left = land.kept().as_ref().map_or(0, |book| book.left(&land.part().own));
    format!("each draw counts, whatever comes of it: {left} are left in this epoch; {next}")
}
