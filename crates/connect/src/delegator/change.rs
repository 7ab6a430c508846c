use std::fmt;

use kith_identity::contacts::{Group, Petname};
use kith_identity::{Fingerprint, Ni};

use super::policy::{Policy, Rule};

/// One step from a policy to the next, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Somebody is a member now.
    Admitted(Petname, Ni),
    /// Something else is said of a member: its name, its authority or its hints.
    Described(Petname, Ni),
    /// Somebody is no member any more.
    Expelled(Petname, Fingerprint),
    /// A member was put into a group.
    Joined(Petname, Group),
    /// A member was taken out of a group.
    Left(Petname, Group),
    /// A rule holds from now on, or has another end.
    Granted(Rule),
    /// A rule holds no more.
    Revoked(Rule),
}

impl Change {
    /// What leads from `before` to `after`.
    pub fn between(before: &Policy, after: &Policy) -> Vec<Change> {
        let mut changes = Vec::new();
        for (who, member) in before.members() {
            let name = &member.card.name;
            let later = after.member(who).map(|member| &member.groups);
            let left = member.groups.iter().filter(|group| later.is_none_or(|now| !now.contains(*group)));
            changes.extend(left.map(|group| Change::Left(name.clone(), group.clone())));
            if later.is_none() {
                changes.push(Change::Expelled(name.clone(), *who));
            }
        }
        for (who, member) in after.members() {
            let (name, ni) = (&member.card.name, Ni::new(*who, member.card.authority.clone()));
            let earlier = before.member(who);
            match earlier {
                None => changes.push(Change::Admitted(name.clone(), ni)),
                Some(known) if known.card != member.card => {
                    changes.push(Change::Described(name.clone(), ni));
                }
                Some(_) => {}
            }
            let joined = member
                .groups
                .iter()
                .filter(|group| earlier.is_none_or(|earlier| !earlier.groups.contains(*group)));
            changes.extend(joined.map(|group| Change::Joined(name.clone(), group.clone())));
        }
        let is_like = |rule: &Rule, policy: &Policy| policy.rules().any(|other| other.is_like(rule));
        let revoked = before.rules().filter(|rule| !is_like(rule, after));
        changes.extend(revoked.cloned().map(Change::Revoked));
        let granted = after.rules().filter(|rule| !before.rules().any(|other| other == *rule));
        changes.extend(granted.cloned().map(Change::Granted));
        changes
    }

    /// One word for the kind of change.
    pub fn kind(&self) -> &'static str {
        match self {
            Change::Admitted(..) => "admitted",
            Change::Described(..) => "described",
            Change::Expelled(..) => "expelled",
            Change::Joined(..) => "joined",
            Change::Left(..) => "left",
            Change::Granted(_) => "granted",
            Change::Revoked(_) => "revoked",
        }
    }
}

/// A sentence without its end.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Admitted(name, ni) => write!(f, "{name} is a member: {ni}"),
            Change::Described(name, ni) => write!(f, "{name} is described anew: {ni}"),
            Change::Expelled(name, who) => {
                write!(f, "{name} is no member any more: {}", Ni::new(*who, None))
            }
            Change::Joined(name, group) => write!(f, "{name} is in group {group}"),
            Change::Left(name, group) => write!(f, "{name} is not in group {group} any more"),
            Change::Granted(rule) => write!(f, "granted: {rule}"),
            Change::Revoked(rule) => write!(f, "revoked: {rule}"),
        }
    }
}

/// `sensors may reach hubs for ping/1 until 2026-01-31T12:00:00Z`; without protocols for every one, without an end for
/// good.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (&self.from, &self.to);
        match self.direction {
            super::Direction::Out => write!(f, "{from} may reach {to}")?,
            super::Direction::In => write!(f, "{from} may be reached by {to}")?,
            super::Direction::Both => write!(f, "{from} and {to} may reach each other")?,
        }
        let protocols: Vec<_> = self.protocols.iter().map(crate::Protocol::as_str).collect();
        if !protocols.is_empty() {
            write!(f, " for {}", protocols.join(", "))?;
        }
        match self.until {
            super::Until::Forever => Ok(()),
            super::Until::Time(end) => write!(f, " until {end}"),
        }
    }
}
