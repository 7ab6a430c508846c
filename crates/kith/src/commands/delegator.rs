//! `kith delegator`: over the running node, or in the home folder itself.

use std::collections::BTreeSet;

use hyper::Method;
use kith_connect::delegator::Policy;
use kith_store::HomeLock;
use serde::Deserialize;

use super::{Access, Context, node};
use crate::api::client::Control;
use crate::api::delegator::{
    Changed, Delegation, Entry, GroupChange, List, LogLine, Member, NewMember, NewRule, NewUse, Revocation,
    Rule, Using,
};
use crate::api::shapes::Status;
use crate::cli::{Delegator, DelegatorGroup, Grant, Revoke, ServeDelegator, Towards};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::identity_file;
use crate::node::contacts::Book;
use crate::node::delegator::{self as work, Keeper};
use crate::node::open_database;
use crate::output::printable;

/// Where the lists are at the moment.
enum Reach {
    Node(Control),
    Home(Box<AtRest>),
}

/// A home without a node.
struct AtRest {
    keeper: Keeper,
    book: Book,
    config: Config,
    _lock: HomeLock,
}

pub(super) async fn delegator(context: &Context, command: Delegator) -> Result<()> {
    let command = match command {
        Delegator::Serve(options) => return serve(context, options).await,
        other => other,
    };
    let mut reach = match context.node_or_home("delegator").await? {
        Access::Node(control) => Reach::Node(control),
        Access::Home(lock) => Reach::Home(Box::new(AtRest::open(context, lock)?)),
    };
    let out = context.out;
    match command {
        Delegator::Serve(_) => Ok(()),
        Delegator::Group(DelegatorGroup::List) => {
            let members = reach.members().await?;
            out.result(&members, || lines(&members, member_line, "no members"))
        }
        Delegator::Group(command) => {
            let (group, change) = group_change(command)?;
            let changed = reach.change_group(&group, &change).await?;
            out.result(&changed, || told(&changed))
        }
        Delegator::Grant(options) => {
            let changed = reach.grant(&new_rule(options)).await?;
            out.result(&changed, || told(&changed))
        }
        Delegator::Revoke(options) => {
            let changed = reach.revoke(options).await?;
            out.result(&changed, || told(&changed))
        }
        Delegator::List => {
            let overview = reach.overview().await?;
            out.result(&overview, || summary(&overview))
        }
        Delegator::Show { name } => {
            let list = reach.list(&name).await?;
            out.result(&list, || lines(&list.entries, entry_line, "nobody"))
        }
        Delegator::Log { count } => {
            let log = reach.log(count).await?;
            out.result(&log, || lines(&log, log_line, "no changes"))
        }
        Delegator::Use { who, called, at } => {
            let using = reach.take_up(context, &NewUse { who, called, at }).await?;
            out.result(&using, || {
                format!("{} manages whom this node trusts: {}", printable(&using.name), using.ni)
            })
        }
        Delegator::Drop { name } => {
            let dropped = reach.end_use(&name).await?;
            out.result(&dropped, || format!("{} manages nothing here any more", printable(&dropped.name)))
        }
    }
}

async fn serve(context: &Context, options: ServeDelegator) -> Result<()> {
    context.refuse_without_identity()?;
    let mut config = Config::load(&context.home)?;
    config.delegator.serve = true;
    config.delegator.file = options.file.or(config.delegator.file);
    config.delegator.lease = options.lease.or(config.delegator.lease);
    config.check_lease().map_err(|failure| Failure::usage(failure.error))?;
    node::run(context, config, &options.listen).await
}

fn group_change(command: DelegatorGroup) -> Result<(String, GroupChange)> {
    match command {
        DelegatorGroup::Add { members, called, at, .. }
            if members.len() > 1 && !(called.is_none() && at.is_empty()) =>
        {
            Err(Failure::usage("--as and --at are for one node").hint("add the nodes one after the other"))
        }
        DelegatorGroup::Add { group, members, called, at } => {
            let new = |who| NewMember { who, called: called.clone(), at: at.clone() };
            Ok((group, GroupChange { add: members.into_iter().map(new).collect(), remove: Vec::new() }))
        }
        DelegatorGroup::Remove { group, members } => {
            Ok((group, GroupChange { add: Vec::new(), remove: members }))
        }
        DelegatorGroup::List => Ok((String::new(), GroupChange::default())),
    }
}

fn new_rule(options: Grant) -> NewRule {
    let direction = match options.direction {
        Towards::Out => "out",
        Towards::In => "in",
        Towards::Both => "both",
    };
    NewRule {
        from: options.from,
        to: options.to,
        direction: direction.to_owned(),
        protocols: options.protocol,
        for_secs: options.lasting.map(kith_sansio::Span::as_secs),
    }
}

impl AtRest {
    fn open(context: &Context, lock: HomeLock) -> Result<AtRest> {
        let config = Config::load(&context.home)?;
        let database = open_database(&context.home)?;
        let (keeper, book) = (Keeper::open(database.clone())?, Book::open(database)?);
        Ok(AtRest { keeper, book, config, _lock: lock })
    }

    fn change(&self, change: impl FnOnce(&mut Policy) -> Result<()>) -> Result<Changed> {
        work::refuse_with_file(self.config.delegator.followed())?;
        self.keeper.change("command", change, |_nobody_is_served| {}).map(|changes| work::told(&changes))
    }
}

impl Reach {
    async fn overview(&mut self) -> Result<Delegation> {
        match self {
            Reach::Node(node) => node.read("/v1/delegator").await,
            Reach::Home(home) => Ok(work::overview_at_rest(&home.keeper.policy(), &home.book)),
        }
    }

    async fn members(&mut self) -> Result<Vec<Member>> {
        match self {
            Reach::Node(node) => node.read("/v1/delegator/members").await,
            Reach::Home(home) => Ok(work::members(&home.keeper.policy(), &BTreeSet::new(), &BTreeSet::new())),
        }
    }

    async fn change_group(&mut self, group: &str, change: &GroupChange) -> Result<Changed> {
        match self {
            Reach::Node(node) => {
                let path = format!("/v1/delegator/groups/{}", super::escape(group));
                node.call(Method::PATCH, &path, Some(change)).await
            }
            Reach::Home(home) => home.change(|policy| work::change_group(policy, &home.book, group, change)),
        }
    }

    async fn grant(&mut self, rule: &NewRule) -> Result<Changed> {
        match self {
            Reach::Node(node) => node.call(Method::POST, "/v1/delegator/rules", Some(rule)).await,
            Reach::Home(home) => home.change(|policy| work::grant(policy, rule)),
        }
    }

    async fn revoke(&mut self, options: Revoke) -> Result<Changed> {
        let Revoke { from, to, protocol } = options;
        let Some(to) = to else { return self.revoke_member(&from).await };
        let protocols = (!protocol.is_empty()).then(|| protocol.join(","));
        match self {
            Reach::Node(node) => {
                let only =
                    protocols.map_or(String::new(), |only| format!("&protocols={}", super::escape(&only)));
                let (from, to) = (super::escape(&from), super::escape(&to));
                let path = format!("/v1/delegator/rules?from={from}&to={to}{only}");
                node.call(Method::DELETE, &path, None::<&()>).await
            }
            Reach::Home(home) => {
                home.change(|policy| work::revoke(policy, &Revocation { from, to, protocols }))
            }
        }
    }

    async fn revoke_member(&mut self, who: &str) -> Result<Changed> {
        match self {
            Reach::Node(node) => {
                let path = format!("/v1/delegator/members/{}", super::escape(who));
                node.call(Method::DELETE, &path, None::<&()>).await
            }
            Reach::Home(home) => home.change(|policy| work::revoke_member(policy, who)),
        }
    }

    /// The list of a delegator in use, or of a member.
    async fn list(&mut self, name: &str) -> Result<List> {
        let overview = self.overview().await?;
        let is_meant = |using: &Using| {
            let ni = |text: &str| text.parse::<kith_identity::Ni>().ok();
            using.name.to_lowercase() == name.to_lowercase()
                || ni(name).is_some_and(|ni_of| ni(&using.ni) == Some(ni_of))
        };
        let is_used = overview.using.iter().any(is_meant);
        match self {
            Reach::Node(node) => {
                let kind = if is_used { "delegators" } else { "delegator/members" };
                node.read(&format!("/v1/{kind}/{}", super::escape(name))).await
            }
            Reach::Home(home) if is_used => work::list_used(&home.book, name),
            Reach::Home(home) => {
                work::list_of(&home.keeper.policy(), name, &BTreeSet::new(), &BTreeSet::new())
            }
        }
    }

    async fn log(&mut self, count: u64) -> Result<Vec<LogLine>> {
        match self {
            Reach::Node(node) => node.read(&format!("/v1/delegator/log?count={count}")).await,
            Reach::Home(home) => work::lines(&home.keeper, Some(count)),
        }
    }

    async fn take_up(&mut self, context: &Context, new: &NewUse) -> Result<Using> {
        match self {
            Reach::Node(node) => node.call(Method::POST, "/v1/delegators", Some(new)).await,
            Reach::Home(home) => {
                let own = identity_file::own_unasked(&context.home, &home.config);
                let row = work::take_up(&home.book, own.as_ref(), new)?;
                let ni = row.ni.to_string();
                home.book.delegated.add(row, None)?;
                work::find_use(&home.book, &ni)
            }
        }
    }

    async fn end_use(&mut self, name: &str) -> Result<Using> {
        match self {
            Reach::Node(node) => {
                let path = format!("/v1/delegators/{}", super::escape(name));
                node.call(Method::DELETE, &path, None::<&()>).await
            }
            Reach::Home(home) => work::end_use(&home.book, name),
        }
    }
}

fn lines<T>(all: &[T], line: impl Fn(&T) -> String, none: &str) -> String {
    if all.is_empty() { none.to_owned() } else { all.iter().map(line).collect::<Vec<_>>().join("\n") }
}

fn told(changed: &Changed) -> String {
    lines(&changed.changes, |change| printable(change), "it was so already")
}

fn member_line(member: &Member) -> String {
    let state = match (member.connected, member.current) {
        (true, true) => "connected",
        (true, false) => "connected, its list is under way",
        (false, _) => "not connected",
    };
    format!("{}\t{}\t{}\t{state}", printable(&member.name), member.ni, member.groups.join(" "))
}

fn entry_line(entry: &Entry) -> String {
    let right = |right: &crate::api::delegator::Right| {
        let protocol = right.protocol.as_deref().unwrap_or("every protocol");
        let until = right.until.as_ref().map_or(String::new(), |until| format!(" until {until}"));
        format!("{} {protocol}{until}", right.direction)
    };
    let rights: Vec<_> = entry.rights.iter().map(right).collect();
    let blocked = if entry.blocked { "\tBLOCKED HERE" } else { "" };
    format!("{}\t{}\t{}{blocked}", printable(&entry.name), entry.ni, rights.join(", "))
}

fn log_line(line: &LogLine) -> String {
    format!("{}\t{}\t{}", line.at, line.by, printable(&line.text))
}

fn rule_line(rule: &Rule) -> String {
    let (from, to) = (&rule.from, &rule.to);
    let what = match rule.direction.as_str() {
        "in" => format!("{from} may be reached by {to}"),
        "both" => format!("{from} and {to} may reach each other"),
        _ => format!("{from} may reach {to}"),
    };
    let protocols = match rule.protocols.as_slice() {
        [] => String::new(),
        all => format!(" for {}", all.join(", ")),
    };
    let until = rule.until.as_ref().map_or(String::new(), |until| format!(" until {until}"));
    format!("rule      {what}{protocols}{until}")
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

fn using_line(using: &Using) -> String {
    let failure = using.failure.as_deref().map_or(String::new(), |why| format!(" ({})", printable(why)));
    let until = using.holds_until.as_ref().filter(|_| using.entries > 0);
    let until = until.map_or(String::new(), |until| format!(" until {until}"));
    let (name, ni, state, listed) = (printable(&using.name), &using.ni, &using.state, nodes(using.entries));
    format!("uses      {name}\t{ni}\t{state}{failure}, lists {listed}{until}")
}

/// What `status` says of delegation; nothing where there is none.
pub(super) fn status_lines(status: &Status) -> Vec<String> {
    #[derive(Default, Deserialize)]
    struct Section {
        serving: bool,
        members: usize,
        connected: usize,
        using: Vec<Using>,
    }
    let section = status.floors.get("delegator").cloned().unwrap_or_default();
    let section: Section = serde_json::from_value(section).unwrap_or_default();
    let serves = format!("delegator    serves {} of {} members", section.connected, section.members);
    let uses = |using: &Using| {
        format!(
            "delegator    uses {}: {}, lists {}",
            printable(&using.name),
            using.state,
            nodes(using.entries)
        )
    };
    section.serving.then_some(serves).into_iter().chain(section.using.iter().map(uses)).collect()
}

fn summary(overview: &Delegation) -> String {
    let mut all = Vec::new();
    if overview.serving || overview.members > 0 {
        let Delegation { members, groups, connected, current, .. } = overview;
        let serving = match overview.serving {
            true => format!("{connected} connected, {current} of them with the list of now"),
            false => "not serving".to_owned(),
        };
        let groups = if *groups == 1 { "1 group".to_owned() } else { format!("{groups} groups") };
        all.push(format!("members   {members} in {groups}; {serving}"));
    }
    all.extend(overview.file.iter().map(|file| format!("file      {}", printable(file))));
    all.extend(overview.rules.iter().map(rule_line));
    all.extend(overview.using.iter().map(using_line));
    lines(&all, String::clone, "this node serves nobody and uses no delegator")
}
