//! The calls about delegation, and the work behind them, which commands do themselves where no node runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, patch, post};
use kith_connect::delegator::{Card, Change, MAX_HINTS, Policy, Rule, Stage, SubscriptionState, Until};
use kith_identity::contacts::{Contact, Group, Hint, Petname};
use kith_identity::{Fingerprint, Ni, words};
use kith_sansio::{Timestamp, system};
use serde::Deserialize;

use super::keeper::{Keeper, protocols, refused};
use super::uses::{Use, new_use};
use crate::api::delegator::{
    Changed, Delegation, Entry, GroupChange, List, LogLine, Member, NewMember, NewRule, NewUse, Revocation,
    Right, Using,
};
use crate::api::server::{Answer, Route};
use crate::api::wish::{Asked, Body};
use crate::failure::{Failure, Result, chain};
use crate::node::Node;
use crate::node::contacts::{Book, presentable};

/// Lines of the log that are shown where nobody says how many.
const LOG_LINES: u64 = 100;

pub(super) fn routes() -> Vec<Route> {
    vec![
        ("/v1/delegator", get(overview_of)),
        ("/v1/delegator/groups/{group}", patch(change_group_of)),
        ("/v1/delegator/members", get(members_of)),
        ("/v1/delegator/members/{name}", get(member_of).delete(expel)),
        ("/v1/delegator/rules", post(grant_at).delete(revoke_at)),
        ("/v1/delegator/log", get(log)),
        ("/v1/delegators", post(take_up_at)),
        ("/v1/delegators/{name}", get(used).delete(drop_use)),
    ]
}

/// What a running node, or a home without one, says of delegation.
pub(crate) fn overview(node: &Node) -> Delegation {
    let (connected, current) = node.delegation.subscribers();
    Delegation {
        serving: node.config.delegator.serve,
        file: node.config.delegator.followed().map(|path| path.display().to_string()),
        connected: connected.len(),
        current: current.len(),
        ..overview_at_rest(&node.delegation.keeper.policy(), &node.book)
    }
}

/// The same where no node runs.
pub(crate) fn overview_at_rest(policy: &Policy, book: &Book) -> Delegation {
    Delegation {
        serving: false,
        file: None,
        members: policy.members().len(),
        groups: policy.groups().len(),
        rules: policy.rules().map(rule_shape).collect(),
        connected: 0,
        current: 0,
        using: book.delegated.list().iter().map(|(row, state)| using(row, state.as_ref())).collect(),
    }
}

fn rule_shape(rule: &Rule) -> crate::api::delegator::Rule {
    crate::api::delegator::Rule {
        from: rule.from.to_string(),
        to: rule.to.to_string(),
        direction: rule.direction.to_string(),
        protocols: rule.protocols.iter().map(ToString::to_string).collect(),
        until: ends(rule.until),
    }
}

fn ends(until: Until) -> Option<String> {
    match until {
        Until::Time(end) => Some(end.to_string()),
        Until::Forever => None,
    }
}

/// A delegator in use.
pub(crate) fn using(row: &Use, state: Option<&SubscriptionState>) -> Using {
    let stage = state.map_or("off", |state| match state.stage {
        Stage::Waiting => "waiting",
        Stage::Connecting => "connecting",
        Stage::Syncing => "syncing",
        Stage::Current => "current",
    });
    Using {
        name: row.name.to_string(),
        ni: row.ni.to_string(),
        at: row.at.iter().map(ToString::to_string).collect(),
        since: Timestamp(row.since).to_string(),
        state: stage.to_owned(),
        revision: state.and_then(|state| state.revision),
        entries: state.map_or(0, |state| state.entries),
        holds_until: state.and_then(|state| state.holds_until).map(|until| until.to_string()),
        failure: state.and_then(|state| state.failure.clone()),
    }
}

fn entry_shape(book: Option<&Book>, entry: &kith_connect::delegator::Entry) -> Entry {
    let right = |(protocol, direction, until): (Option<&kith_connect::Protocol>, _, _)| Right {
        direction: kith_connect::delegator::Direction::to_string(&direction),
        protocol: protocol.map(ToString::to_string),
        until: ends(until),
    };
    Entry {
        name: entry.card.name.to_string(),
        ni: entry.ni().to_string(),
        at: entry.card.hints.iter().map(ToString::to_string).collect(),
        rights: entry.rights.iter().map(right).collect(),
        blocked: book.is_some_and(|book| book.is_blocked(&entry.peer)),
    }
}

/// The members of a policy, by name.
pub(crate) fn members(
    policy: &Policy,
    connected: &BTreeSet<Fingerprint>,
    current: &BTreeSet<Fingerprint>,
) -> Vec<Member> {
    let shape = |(who, member): (&Fingerprint, &kith_connect::delegator::Member)| Member {
        name: member.card.name.to_string(),
        ni: Ni::new(*who, member.card.authority.clone()).to_string(),
        at: member.card.hints.iter().map(ToString::to_string).collect(),
        groups: member.groups.iter().map(ToString::to_string).collect(),
        connected: connected.contains(who),
        current: current.contains(who),
    };
    let mut members: Vec<_> = policy.members().map(shape).collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    members
}

/// The member that a name or a fingerprint means.
fn member(policy: &Policy, who: &str) -> Result<Fingerprint> {
    let found = match who.parse::<Ni>() {
        Ok(ni) => policy.member(&ni.fingerprint).map(|_| ni.fingerprint),
        Err(error) if who.starts_with("ni:") => return Err(Failure::usage(chain(&error))),
        Err(_) => policy.named(who),
    };
    found.ok_or_else(|| {
        let is_group = policy.groups().any(|(group, _)| group.as_str() == who);
        Failure::not_found(format!("'{who}' is no member here")).hint(match is_group {
            true => "it is a group; rules are between two of them",
            false => "list the members with 'kith delegator group list'",
        })
    })
}

/// The list that a member gets.
pub(crate) fn list_of(
    policy: &Policy,
    who: &str,
    connected: &BTreeSet<Fingerprint>,
    current: &BTreeSet<Fingerprint>,
) -> Result<List> {
    let who = member(policy, who)?;
    let list = policy.list_of(&who).map_err(|error| Failure::failed(chain(&error)))?;
    let ni = Ni::new(who, None);
    let member = members(policy, connected, current)
        .into_iter()
        .find(|one| one.ni.parse().is_ok_and(|one: Ni| one == ni));
    Ok(List { member, delegator: None, entries: list.iter().map(|entry| entry_shape(None, entry)).collect() })
}

/// Somebody with what is to be said of it: as told, as known as a member, or as known as a contact.
fn newcomer(policy: &Policy, book: &Book, new: &NewMember) -> Result<(Fingerprint, Card)> {
    let usage = |error: &dyn std::error::Error| Failure::usage(chain(error));
    let named = match new.who.parse::<Ni>() {
        Ok(ni) => Some(ni),
        Err(error) if new.who.starts_with("ni:") => return Err(usage(&error)),
        Err(_) => None,
    };
    let who = match &named {
        Some(ni) => ni.fingerprint,
        None => match policy.named(&new.who) {
            Some(who) => who,
            None => book.find(&new.who)?.ni.fingerprint,
        },
    };
    let known = policy.member(&who).map(|member| member.card.clone());
    let contact = book.contact_of(&who);
    let hints: Vec<Hint> =
        new.at.iter().map(|at| at.parse().map_err(|e| usage(&e))).collect::<Result<_>>()?;
    let called = new.called.as_deref().map(str::parse::<Petname>).transpose().map_err(|e| usage(&e))?;
    let card = Card {
        name: match (called, &known, &contact) {
            (Some(name), ..) => name,
            (None, Some(card), _) => card.name.clone(),
            (None, None, Some(contact)) => contact.name.clone(),
            (None, None, None) => first_words(&who)?,
        },
        authority: named
            .and_then(|ni| ni.authority)
            .or_else(|| known.as_ref().and_then(|card| card.authority.clone()))
            .or_else(|| contact.as_ref().and_then(|contact| contact.ni.authority.clone())),
        hints: match (hints.is_empty(), known, contact) {
            (false, ..) => hints,
            (true, Some(card), _) => card.hints,
            (true, None, Some(contact)) => contact.hints.into_iter().take(MAX_HINTS).collect(),
            (true, None, None) => hints,
        },
    };
    Ok((who, card))
}

/// The first two of the six words of a fingerprint.
fn first_words(who: &Fingerprint) -> Result<Petname> {
    let name = words(who)[..2].join("-");
    presentable(&name).ok_or_else(|| Failure::failed(format!("'{name}' is no name")))
}

/// Puts members into a group and takes others out.
pub(crate) fn change_group(
    policy: &mut Policy,
    book: &Book,
    group: &str,
    change: &GroupChange,
) -> Result<()> {
    let group: Group = group.parse().map_err(|error| Failure::usage(chain(&error)))?;
    for new in &change.add {
        let (who, card) = newcomer(policy, book, new)?;
        policy.enter(who, card, group.clone()).map_err(|error| refused(&error))?;
    }
    for who in &change.remove {
        let who = member(policy, who)?;
        policy.leave(&who, &group).map_err(|error| refused(&error))?;
    }
    Ok(())
}

/// Adds a rule.
pub(crate) fn grant(policy: &mut Policy, new: &NewRule) -> Result<()> {
    let group = |name: &str| name.parse::<Group>().map_err(|error| Failure::usage(chain(&error)));
    let until = match new.for_secs {
        Some(0) => return Err(Failure::usage("a rule holds for a second at least")),
        Some(seconds) => Until::Time(system::utc().plus_secs(seconds)),
        None => Until::Forever,
    };
    let rule = Rule {
        from: group(&new.from)?,
        to: group(&new.to)?,
        direction: new.direction.parse().map_err(|error| refused(&error))?,
        protocols: protocols(&new.protocols)?,
        until,
    };
    policy.grant(rule).map_err(|error| refused(&error))
}

/// Takes rules away.
pub(crate) fn revoke(policy: &mut Policy, wish: &Revocation) -> Result<()> {
    let group = |name: &str| name.parse::<Group>().map_err(|error| Failure::usage(chain(&error)));
    let names: Option<Vec<String>> =
        wish.protocols.as_deref().map(|names| names.split(',').map(str::to_owned).collect());
    let only = names.map(|names| protocols(&names)).transpose()?;
    let revoked = policy.revoke(&group(&wish.from)?, &group(&wish.to)?, only.as_ref());
    revoked.map(drop).map_err(|error| refused(&error))
}

/// Takes a member out of every group.
pub(crate) fn revoke_member(policy: &mut Policy, who: &str) -> Result<()> {
    let who = member(policy, who)?;
    policy.expel(&who).map_err(|error| refused(&error))
}

/// Which delegator is to be used, and what is known of it; not this node itself, where it knows who that is.
pub(crate) fn take_up(book: &Book, own: Option<&Fingerprint>, new: &NewUse) -> Result<Use> {
    let usage = |error: &dyn std::error::Error| Failure::usage(chain(error));
    let contact: Option<Contact> = book.find(&new.who).ok();
    let ni = match (new.who.parse::<Ni>(), &contact) {
        (Ok(ni), _) if ni.authority.is_some() => ni,
        (_, Some(contact)) => contact.ni.clone(),
        (Ok(ni), None) => ni,
        (Err(error), None) if new.who.starts_with("ni:") => return Err(usage(&error)),
        (Err(_), None) => book.find(&new.who)?.ni,
    };
    if own == Some(&ni.fingerprint) {
        return Err(Failure::usage("a node cannot be its own delegator"));
    }
    if book.is_blocked(&ni.fingerprint) {
        return Err(Failure::usage(format!("{ni} is blocked here"))
            .hint(format!("'kith contact unblock {ni}' takes that back")));
    }
    let called = new.called.as_deref().map(str::parse::<Petname>).transpose().map_err(|e| usage(&e))?;
    let name = match (called, contact) {
        (Some(name), _) => name,
        (None, Some(contact)) => contact.name,
        (None, None) => first_words(&ni.fingerprint)?,
    };
    let at: Vec<Hint> = new.at.iter().map(|at| at.parse().map_err(|e| usage(&e))).collect::<Result<_>>()?;
    Ok(new_use(name, ni, at))
}

/// The steps as sentences.
pub(crate) fn told(changes: &[Change]) -> Changed {
    Changed { changes: changes.iter().map(ToString::to_string).collect() }
}

/// Refuses what commands cannot change, because a file says it.
pub(crate) fn refuse_with_file(file: Option<&std::path::Path>) -> Result<()> {
    match file {
        None => Ok(()),
        Some(path) => Err(Failure::failed(format!("this delegator's list is kept in {}", path.display()))
            .hint("edit that file; it is read again when it changes")),
    }
}

/// Changes the policy of a running node.
async fn change(
    node: Arc<Node>,
    work: impl FnOnce(&mut Policy, &Book) -> Result<()> + Send + 'static,
) -> Answer<Changed> {
    refuse_with_file(node.config.delegator.followed())?;
    let changing =
        node.on_disk(move |node| node.delegation.change(node, "command", |policy| work(policy, &node.book)));
    let changes = changing.await?;
    Ok(Json(told(&changes)))
}

async fn overview_of(State(node): State<Arc<Node>>) -> Json<Delegation> {
    Json(overview(&node))
}

async fn change_group_of(
    State(node): State<Arc<Node>>,
    Path(group): Path<String>,
    Body(wish): Body<GroupChange>,
) -> Answer<Changed> {
    change(node, move |policy, book| change_group(policy, book, &group, &wish)).await
}

async fn members_of(State(node): State<Arc<Node>>) -> Json<Vec<Member>> {
    let (connected, current) = node.delegation.subscribers();
    Json(members(&node.delegation.keeper.policy(), &connected, &current))
}

async fn member_of(State(node): State<Arc<Node>>, Path(who): Path<String>) -> Answer<List> {
    let (connected, current) = node.delegation.subscribers();
    list_of(&node.delegation.keeper.policy(), &who, &connected, &current).map(Json)
}

async fn expel(State(node): State<Arc<Node>>, Path(who): Path<String>) -> Answer<Changed> {
    change(node, move |policy, _| revoke_member(policy, &who)).await
}

async fn grant_at(State(node): State<Arc<Node>>, Body(new): Body<NewRule>) -> Answer<Changed> {
    change(node, move |policy, _| grant(policy, &new)).await
}

async fn revoke_at(State(node): State<Arc<Node>>, Asked(wish): Asked<Revocation>) -> Answer<Changed> {
    change(node, move |policy, _| revoke(policy, &wish)).await
}

#[derive(Deserialize)]
struct LogQuery {
    count: Option<u64>,
}

async fn log(State(node): State<Arc<Node>>, Asked(query): Asked<LogQuery>) -> Answer<Vec<LogLine>> {
    node.on_disk(move |node| lines(&node.delegation.keeper, query.count)).await.map(Json)
}

/// The last lines of the log.
pub(crate) fn lines(keeper: &Keeper, count: Option<u64>) -> Result<Vec<LogLine>> {
    keeper.log(count.unwrap_or(LOG_LINES))
}

async fn take_up_at(State(node): State<Arc<Node>>, Body(new): Body<NewUse>) -> Answer<Using> {
    let working = node.on_disk(move |node| {
        let row = take_up(&node.book, Some(&node.identity.fingerprint()), &new)?;
        let ni = row.ni.clone();
        node.book.delegated.add(row, Some(&node.endpoint))?;
        find_use(&node.book, &ni.to_string())
    });
    working.await.map(Json)
}

/// A delegator in use, as it stands.
pub(crate) fn find_use(book: &Book, name: &str) -> Result<Using> {
    let row = find_row(book, name)?;
    let state =
        book.delegated.list().into_iter().find(|(one, _)| one.ni == row.ni).and_then(|(_, state)| state);
    Ok(using(&row, state.as_ref()))
}

fn find_row(book: &Book, name: &str) -> Result<Use> {
    book.delegated.find(name).ok_or_else(|| {
        Failure::not_found(format!("no delegator '{name}' is in use"))
            .hint("list them with 'kith delegator list'")
    })
}

async fn used(State(node): State<Arc<Node>>, Path(name): Path<String>) -> Answer<List> {
    list_used(&node.book, &name).map(Json)
}

/// This node's own list of a delegator.
pub(crate) fn list_used(book: &Book, name: &str) -> Result<List> {
    let delegator = find_use(book, name)?;
    let row = find_row(book, name)?;
    let entries = book.delegated.entries(&row.ni.fingerprint);
    let entries = entries.iter().map(|entry| entry_shape(Some(book), entry)).collect();
    Ok(List { member: None, delegator: Some(delegator), entries })
}

async fn drop_use(State(node): State<Arc<Node>>, Path(name): Path<String>) -> Answer<Using> {
    node.on_disk(move |node| end_use(&node.book, &name)).await.map(Json)
}

/// Lets a delegator manage nothing any more.
pub(crate) fn end_use(book: &Book, name: &str) -> Result<Using> {
    let row = find_row(book, name)?;
    book.delegated.remove(&row.ni.fingerprint)?;
    Ok(using(&row, None))
}
